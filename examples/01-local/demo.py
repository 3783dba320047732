"""`make demo`: one manifest, run twice; the second time three things break, and nobody can tell from the model.

Runs `run.yaml` once undisturbed and once with a killed worker, a lost node and a corrupted checkpoint, proves
that both runs are equal bit for bit, lets the exported model say a few words, and shows where the time went.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import fetch_text
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
OUT = HERE.parents[1] / "demo"
RUN = "kjv-small"
FAULTS = ("kill-worker@step=60", "lose-node@step=120", "corrupt-checkpoint@latest")
console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 120)


def train(name: str, faults: tuple[str, ...]) -> Path:
    """Run the manifest to its end in a fresh workdir; returns the run's folder."""
    workdir = OUT / name
    shutil.rmtree(workdir, ignore_errors=True)
    command = [str(Path(sys.executable).parent / "trainrun"), "run", str(HERE / "run.yaml")]
    command += ["--nodes", "3", "--workdir", str(workdir)]
    for fault in faults:
        command += ["--fault", fault]
    console.rule(f"{name}: trainrun {' '.join(command[1:]).replace(str(OUT.parent) + '/', '')}", align="left")
    started = time.monotonic()
    code = subprocess.call(command)
    if code != 0:
        sys.exit(f"the {name} run ended with exit code {code}; see {workdir / RUN}")
    console.print(f"{name}: Succeeded after {time.monotonic() - started:.0f} s")
    return workdir / RUN


def metrics(run: Path) -> list[dict[str, object]]:
    """Read the run's lines, one per optimizer step."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def digests(run: Path) -> dict[int, str]:
    """Read the state digest of every checkpoint on disk, by step; of a step saved twice, the newer claim's."""
    manifests = [json.loads(p.read_text()) for p in (run / "checkpoints").glob("step-*/manifest.json")]
    return {m["step"]: m["state_digest"] for m in sorted(manifests, key=lambda m: int(m["claim"]))}


def prove_equal(calm: Path, stormy: Path) -> None:
    """Compare loss and rows of every step, and the state of every checkpoint that both runs still have."""
    ours, theirs = metrics(calm), metrics(stormy)
    assert [m["step"] for m in ours] == [m["step"] for m in theirs], "the runs have different steps"
    for key in ("loss_hex", "rows_digest"):
        different = [m["step"] for m, n in zip(ours, theirs, strict=True) if m[key] != n[key]]
        assert not different, f"{key} differs at steps {different[:5]}"
    left, right = digests(calm), digests(stormy)
    common = sorted(left.keys() & right.keys())
    assert len(common) >= 3, f"only the checkpoints {common} are left to compare"
    different = [step for step in common if left[step] != right[step]]
    assert not different, f"state digests differ at steps {different}"
    attempts = sorted({(m["attempt"], m["generation"]) for m in theirs})
    console.print(f"equal bit for bit: {len(ours)} losses, {len(ours)} row digests, {len(common)} checkpoint states")
    for step in common:
        console.print(f"  step {step:>4}  {left[step]}  =  {right[step]}")
    console.print(f"  (the faulted run trained in {len(attempts)} pieces: attempt, generation = {attempts})")


def speak(run: Path) -> None:
    """Generate from the export with plain transformers, as any user of the model would."""
    from transformers import AutoModelForCausalLM, AutoTokenizer  # slow to import, needed only here
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    folder = run / "checkpoints" / "export"
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    prompt = tokenizer("And the LORD said unto", return_tensors="pt", return_token_type_ids=False)
    words = model.generate(**prompt, max_new_tokens=24, do_sample=False, repetition_penalty=1.3)
    console.print(f"the exported model says: {tokenizer.decode(words[0], skip_special_tokens=True)!r}")


def show_recovery(run: Path) -> None:
    """Print where the seconds between a fault and the next step went."""
    from trainrun_operator.report.recovery import PHASES, recoveries

    table = Table(title="fault -> next optimizer step, seconds", title_justify="left", box=None, padding=(0, 1))
    for column in ("fault", "seen as", *PHASES, "total"):
        table.add_column(column, no_wrap=True)
    for r in recoveries(run):
        cells = [f"{r.seconds[p]:.2f}" if p in r.seconds else "-" for p in PHASES]
        table.add_row(r.fault, r.cause, *cells, f"{r.total_seconds:.2f}")
    console.print(table)


def main() -> None:
    """Tell the story from text to report."""
    started = time.monotonic()
    fetch_text.main()
    calm, stormy = train("undisturbed", ()), train("faulted", FAULTS)
    console.rule("proof", align="left")
    prove_equal(calm, stormy)
    speak(stormy)
    show_recovery(stormy)
    console.print(f"report: {stormy / 'report.html'}")
    console.print(f"demo: {time.monotonic() - started:.0f} s in all")


if __name__ == "__main__":
    main()
