"""Jobs over processes of their own, which import no torch and end with the process that started them.

python -m trainrun_trainer.corpus.pool     reads a job a line, answers with its facts or its error
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import Any

from trainrun_trainer.agent import proctree
from trainrun_trainer.corpus.jobs import Facts, Job, run_job
from trainrun_trainer.errors import ConfigError, DataError, TextsChanged

SMALL_BYTES = 16 << 20
"""Less text than this is done by this process before another one has started."""
_ERRORS: dict[str, type[Exception]] = {one.__name__: one for one in (ConfigError, DataError, TextsChanged)}

OnDone = Callable[[Job, Facts], None]


def num_processes(asked: int | None, jobs: Sequence[Job]) -> int:
    """As many as asked for; else one for each core, or this one alone if there is little text."""
    if asked is None:
        cores = len(os.sched_getaffinity(0))
        asked = 1 if sum(job.file.size for job in jobs) < SMALL_BYTES else cores
    return max(1, min(asked, len(jobs)))


def run_jobs(jobs: Sequence[Job], asked: int | None, on_done: OnDone) -> list[Facts]:
    """Facts of each job, in the order of `jobs`; the largest files go first. Raises the first error."""
    count = num_processes(asked, jobs)
    results: dict[int, Facts] = {}
    if count == 1:
        for i, job in enumerate(jobs):
            results[i] = run_job(job)
            on_done(job, results[i])
        return [results[i] for i in range(len(jobs))]
    waiting: SimpleQueue[int] = SimpleQueue()
    for i in sorted(range(len(jobs)), key=lambda i: -jobs[i].file.size):
        waiting.put(i)
    with ThreadPoolExecutor(count) as threads:
        served = [threads.submit(_serve, jobs, waiting, results, on_done) for _ in range(count)]
    for one in served:
        one.result()
    return [results[i] for i in range(len(jobs))]


def _serve(jobs: Sequence[Job], waiting: SimpleQueue[int], results: dict[int, Facts], on_done: OnDone) -> None:
    """One process and its jobs, until none is left; an error empties the queue, so that the others stop, too."""
    command = [sys.executable, "-m", "trainrun_trainer.corpus.pool"]
    env = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdin is not None and process.stdout is not None
        while (i := _next(waiting)) is not None:
            try:
                process.stdin.write(jobs[i].to_json() + "\n")
                process.stdin.flush()
                answer = json.loads(process.stdout.readline() or "null")
            except BrokenPipeError:
                answer = None
            if answer is None or "error" in answer:
                while _next(waiting) is not None:
                    pass
                process.stdin.close()
                if answer is None:
                    raise RuntimeError(f"the process that read {jobs[i].file.address} ended with {process.wait()}")
                raise _ERRORS[answer["kind"]](answer["error"])
            results[i] = answer["facts"]
            on_done(jobs[i], answer["facts"])
        process.stdin.close()


def _next(waiting: SimpleQueue[int]) -> int | None:
    try:
        return waiting.get_nowait()
    except Empty:
        return None


def main() -> None:
    """Work on the jobs that come in, until no more come."""
    proctree.die_with_parent()
    for line in sys.stdin:
        try:
            answer: dict[str, Any] = {"facts": run_job(Job.from_json(line))}
        except (DataError, ConfigError) as error:
            answer = {"kind": type(error).__name__, "error": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
