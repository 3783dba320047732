"""The commands of `trainrun`. Each reads its arguments and calls one function; imports of weight wait until then."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

File = Annotated[Path, typer.Argument(help="A TrainingRun manifest.", show_default=False)]
Workdir = Annotated[Path, typer.Option(help="Folder that holds one folder per run.")]
RunName = Annotated[str | None, typer.Argument(help="Name of the run; may be left out when there is only one.")]


def _say_version(is_wanted: bool) -> None:
    if is_wanted:
        from importlib.metadata import version

        typer.echo(f"trainrun {version('trainrun')}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Show the version.")]


@app.callback()
def trainrun(
    version: Version = False,
) -> None:
    """Long training jobs that survive their hardware."""


@app.command()
def run(
    file: File,
    nodes: Annotated[
        int | None, typer.Option(min=1, help="Slots that stand for nodes; default: workers + spares + 1.")
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPEC",
            help="lose-node@step=N, kill-worker@step=N, hang-worker@step=N, kill-operator@step=N (each with ,rank=K if "
            "wanted) or corrupt-checkpoint@latest; may be given several times.",
        ),
    ] = None,
    workdir: Workdir = Path("runs"),
) -> None:
    """Run a manifest on this machine, without Kubernetes; the same command goes on after a stop.

    Exit codes: 0 Succeeded, 1 Failed, 2 wrong arguments, 3 workdir in use, 10 stopped on request, 20 manifest refused.
    """
    from trainrun_operator.cli.run import run_order
    from trainrun_operator.local.order import Order

    raise typer.Exit(run_order(Order(file, workdir, nodes, tuple(fault or ()))))


@app.command()
def sweep(
    file: File,
    over: Annotated[
        list[str],
        typer.Option(metavar="FIELD=VALUES", help="Such as config.data.mix.general=0,0.01,0.05; several: every mix."),
    ],
    nodes: Annotated[
        int | None, typer.Option(min=1, help="Slots that stand for nodes; default: workers + spares + 1.")
    ] = None,
    dry: Annotated[bool, typer.Option("--dry-run", help="Only write the manifests, for kubectl apply.")] = False,
    workdir: Workdir = Path("runs"),
) -> None:
    """Run a manifest several times with other values of some fields; ends in one table and one page with plots.

    The same command goes on after a stop. Exit codes as of `run`; 1 when one of the runs failed.
    """
    from trainrun_operator.cli.sweep import Sweep
    from trainrun_operator.cli.sweep import sweep as run_all

    raise typer.Exit(run_all(Sweep(file, tuple(over), workdir, nodes, dry)))


@app.command()
def validate(files: Annotated[list[Path], typer.Argument(metavar="FILE...", show_default=False)]) -> None:
    """Say what the API server would say of manifests, without a cluster. Exit code 20 if one would be refused."""
    from trainrun_operator.cli.validate import validate_files

    raise typer.Exit(validate_files(files))


@app.command()
def plan(
    file: Annotated[
        Path | None, typer.Option("-f", "--file", help="Read sizes, tokens and machines of this run.")
    ] = None,
    params: Annotated[str | None, typer.Option(help="Size of the model, such as 6.6B; several: 2.6B,6.6B.")] = None,
    tokens: Annotated[
        str | None, typer.Option(help="Tokens of the run, such as 132B; default: 20 a parameter.")
    ] = None,
    instance: Annotated[str | None, typer.Option(help="Instance type, such as ml.p4d.24xlarge.")] = None,
    devices: Annotated[str | None, typer.Option(help="Number of devices; several: 64,128.")] = None,
    days: Annotated[float | None, typer.Option(min=1e-6, help="Ask what so many days would need.")] = None,
    utilisation: Annotated[
        float | None, typer.Option(min=1e-6, help="Share of the peak, such as 0.45; default: what others measured.")
    ] = None,
    price: Annotated[float | None, typer.Option(min=0, help="US dollars for a machine and hour.")] = None,
    lora_rank: Annotated[int | None, typer.Option(min=1, help="Train adapters of this rank only.")] = None,
    lora_targets: Annotated[str, typer.Option(help="Modules that get adapters.")] = "q_proj,v_proj",
    row_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens of a row; default: 4096.")] = None,
    micro_batch_rows: Annotated[int | None, typer.Option(min=1, help="Rows of a forward pass; default: 1.")] = None,
    batch_rows: Annotated[int | None, typer.Option(min=1, help="Rows of an optimizer step.")] = None,
    store_rate: Annotated[
        str | None,
        typer.Option(help="Bytes a second that the checkpoint store takes, such as 20G; default: 1G a machine."),
    ] = None,
    fault_rate: Annotated[
        float | None, typer.Option(min=1e-6, help="Failures per 1,000 node-days; default: 3.79, Llama 3's.")
    ] = None,
    stage: Annotated[
        str | None, typer.Option(help="Only this train stage of the run; default: all, and their sum.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a run will take: tokens, days, money, memory, checkpoints, spares; and what speaks against it."""
    from trainrun_operator.cli.plan import Question
    from trainrun_operator.cli.plan import plan as make

    question = Question(
        file, params, tokens, instance, devices, days, utilisation, price, lora_rank, lora_targets, row_tokens,
        micro_batch_rows, batch_rows, store_rate, fault_rate, stage,
    )  # fmt: skip
    raise typer.Exit(make(question, is_json=json))


@app.command()
def status(name: RunName = None, workdir: Workdir = Path("runs")) -> None:
    """Show one run on one screen."""
    from trainrun_operator.cli.status import show_status

    raise typer.Exit(show_status(workdir, name))


@app.command()
def logs(
    name: RunName = None,
    pod: Annotated[str | None, typer.Argument(help="Pod or worker index; default: all of the newest attempt.")] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the run's processes end.")] = False,
    workdir: Workdir = Path("runs"),
) -> None:
    """Print the output of a run's pods."""
    from trainrun_operator.cli.logs import show_logs

    raise typer.Exit(show_logs(workdir, name, pod, follow=follow))


@app.command()
def explain(name: RunName = None, workdir: Workdir = Path("runs")) -> None:
    """Say why a run restarted: evidence, rule, action and the budget left, per attempt."""
    from trainrun_operator.cli.explain import show_explanation

    raise typer.Exit(show_explanation(workdir, name))


@app.command("explain-step")
def explain_step(
    step: Annotated[int, typer.Argument(min=1, help="An optimizer step, past or to come.", show_default=False)],
    name: RunName = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="checkpoint.path of a run elsewhere, such as s3://bucket/prefix.")
    ] = None,
    stage: Annotated[
        str | None, typer.Option(help="In a run of stages: which one; may be left out if only one trains.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    workdir: Workdir = Path("runs"),
) -> None:
    """Name the documents that a step reads, and prove by the run's digests that it read what was ordered."""
    from trainrun_operator.cli.explain_step import explain_step as tell

    raise typer.Exit(tell(step, name, workdir, checkpoint, stage, is_json=json))


@app.command()
def report(name: RunName = None, workdir: Workdir = Path("runs")) -> None:
    """Write report.html of a run again and print its path."""
    from trainrun_operator.cli.report import make_report

    raise typer.Exit(make_report(workdir, name))


@app.command()
def manifest(
    file: Annotated[Path, typer.Argument(help="Output of kubectl get trun NAME -o json; - for standard input.")],
    store: Annotated[Path, typer.Option(help="The run's checkpoint.path, as it is seen here.", show_default=False)],
) -> None:
    """Print what a run in a cluster was made of and what came of it. In local mode `run` keeps it as manifest.json."""
    from trainrun_operator.cli.provenance import show_manifest

    raise typer.Exit(show_manifest(file, store))


@app.command()
def clone(
    file: Annotated[Path, typer.Argument(help="manifest.json of a run.", show_default=False)],
    name: Annotated[str | None, typer.Option(help="Name of the new run; default: NAME-clone.")] = None,
    path: Annotated[
        str | None, typer.Option("--checkpoint-path", help="Its checkpoint.path; default: beside the old one.")
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="File to write; default: <name>.yaml.")] = None,
) -> None:
    """Write the manifest that does a run again, from its manifest.json alone."""
    from trainrun_operator.cli.provenance import clone as make

    raise typer.Exit(make(file, name, path, out))
