"""`python -m trainrun_trainer.launcher [--entry module:function]`: starts this pod's workers by torchelastic.

Three processes stand between agent and workers, so that torch is imported once per pod: this small one, the fork
server that it starts, which does all imports, and the launcher proper (launcher_group.py), which is forked from the
server as the workers are. The kernel ends each with the one before it.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import multiprocessing.forkserver
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from trainrun_api.contract import Env, LauncherState, ProgressFile

from trainrun_trainer.accelerators import PRELOAD, PRELOAD_LORA, START_METHOD
from trainrun_trainer.agent import files, proctree
from trainrun_trainer.logs import log

DEFAULT_ENTRY = "trainrun_trainer.worker:run"
PRELOAD_FIRST = "trainrun_trainer.launcher_preload"
"""Ties the fork server to this process before the long imports begin."""


def read_config() -> dict[str, Any]:
    """TRAINRUN_CONFIG as it came; empty when it cannot be read, since the worker is who says what is wrong with it."""
    try:
        config = json.loads(os.environ.get(Env.CONFIG) or "{}")
    except ValueError:
        return {}
    return config if isinstance(config, dict) else {}


def prepare_environment() -> None:
    """Set what must hold before torch is imported here and in the fork server."""
    fixed = {
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",  # else a restarted group reads the dead group's addresses
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # asking for CUDA must not initialise it before the fork
        "TORCH_ELASTIC_WORKER_IDENTICAL": "1",
    }
    os.environ.update(fixed)
    threads = read_config().get("threads_per_worker", 1)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, str(threads))
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy's would start threads at import, in the fork server
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def start_fork_server(preload: Sequence[str]) -> None:
    """Let the imports begin now; processes that are asked for meanwhile wait for their end."""
    multiprocessing.set_forkserver_preload([PRELOAD_FIRST, *preload])
    multiprocessing.forkserver.ensure_running()


def launch_forked(entry: str, progress_dir: str) -> None:
    """The launcher proper, in a process of the fork server; workers come from the same server."""
    gc.freeze()
    gc.enable()
    proctree.die_with_parent()
    # the server runs, or we would not; the library does not know that here and would start another one
    multiprocessing.forkserver._forkserver.ensure_running = lambda: None  # type: ignore[method-assign]
    from trainrun_trainer.launcher_group import launch

    sys.exit(launch(entry, progress_dir, "forkserver"))


def is_done_already(progress_dir: str) -> bool:
    """Whether this pod's stage was done by an earlier attempt; its result is then written as its workers would.

    Costs a tenth of the imports, beside which it is asked. Whatever is wrong, workers say better.
    """
    pods = os.environ.get("PET_NNODES", "1").rpartition(":")[2]
    if not os.environ.get(Env.STAGE_KIND) or pods != "1" or os.environ.get(Env.SPARES, "0") != "0":
        return False  # a run without stages has nothing to ask, and of several pods none may leave the others alone
    from trainrun_trainer.stages.already import done_already

    try:
        outcome = done_already()
    except Exception:
        return False
    if outcome is None:
        return False
    log("outcome", exit_code=outcome.exit_code, cause=outcome.cause, message=outcome.message, step=outcome.step)
    result = {"outcomes": [asdict(outcome)], "failures": [], "history": [], "inplace_restarts": 0}
    files.write_json(progress_dir, ProgressFile.RESULT, result)
    return True


def run(entry: str, preload: Sequence[str]) -> int:
    """Launch by the accelerator's start method; the launcher's exit code, or its signal again."""
    progress_dir = os.environ[Env.PROGRESS_DIR]
    facts = {"state": LauncherState.IMPORTING, "generation": 0, "inplace_restarts": 0}
    files.write_json(progress_dir, ProgressFile.LAUNCHER, facts)
    prepare_environment()
    method = START_METHOD[os.environ.get(Env.ACCELERATOR, "cpu")]
    if method == "forkserver":
        start_fork_server(preload)
    if entry == DEFAULT_ENTRY and is_done_already(progress_dir):
        return 0
    if method != "forkserver":
        from trainrun_trainer.launcher_group import launch

        return launch(entry, progress_dir, method)
    process = multiprocessing.get_context("forkserver").Process(target=launch_forked, args=(entry, progress_dir))
    process.start()
    process.join()
    code = process.exitcode if process.exitcode is not None else 1
    if code < 0:  # pass on what it died of; other signals than SIGKILL have their default action here
        os.kill(os.getpid(), -code)
    return code


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and launch."""
    parser = argparse.ArgumentParser(prog="python -m trainrun_trainer.launcher", description=__doc__)
    parser.add_argument("--entry", default=DEFAULT_ENTRY, help="module:function that each worker calls")
    parser.add_argument("--preload", help="modules of the fork server, by comma, instead of the trainer's")
    parsed = parser.parse_args(arguments)
    preload = [*PRELOAD, PRELOAD_LORA] if read_config().get("lora") else [*PRELOAD]
    return run(parsed.entry, preload if parsed.preload is None else parsed.preload.split(","))


if __name__ == "__main__":
    # Workers need nothing of the main module, and multiprocessing would run it again in each of them. What they do need
    # is pickled by its module's name, so it must not be this one's.
    sys.modules["__main__"].__spec__ = None
    del sys.modules["__main__"].__file__
    from trainrun_trainer import launcher

    sys.exit(launcher.main())
