"""How a pod ends: exit code and termination message, with real processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from trainrun_api.contract import CAUSE_OF_EXIT, TERMINATION_MESSAGE_LIMIT_BYTES, ExitCode
from trainrun_trainer.agent.ending import End, verdict

from tests.agent.pods import ROOT, small_launcher, started

TORCHRUN = str(Path(sys.executable).parent / "torchrun")
CODES = [code for code in ExitCode if code != ExitCode.ERROR]


def python(program: str) -> list[str]:
    """A user's own command."""
    return [sys.executable, "-u", "-c", program]


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder per contract code, as the launcher left it when its worker had returned that code."""
    folder = tmp_path_factory.mktemp("codes")
    command = [sys.executable, "-m", "tests.agent.many_launches", str(folder), *(str(int(c)) for c in CODES)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=120)
    return folder


@pytest.mark.parametrize("code", CODES, ids=[c.name for c in CODES])
def test_each_contract_code_ends_the_group_without_a_restart(launched: Path, code: ExitCode) -> None:
    """A returned outcome is final: the worker ran once, and its code, cause and steps become the message."""
    folder = launched / str(int(code))
    result = json.loads((folder / "result.json").read_text())
    assert (folder / "runs").read_text() == "x"
    assert result["inplace_restarts"] == 0
    end = End(returncode=0, result=result, progress={}, stop=None, is_own_launcher=True)
    fields = verdict(end)
    assert (fields["exit_code"], fields["cause"], fields["message"]) == (code, CAUSE_OF_EXIT[code], "as asked")
    assert (fields["step"], fields["target_step"]) == (7, 9)


def test_a_contract_code_by_exit_is_not_retried(tmp_path: Path) -> None:
    """A worker that calls sys.exit(31) means it, though it should return its outcome."""
    acts = [{"rank": 0, "step": 2, "do": "exit"}]
    with started(tmp_path, small_launcher(), TEST_STEPS="9", TEST_ACT=json.dumps(acts)) as (pod,):
        assert pod.wait() == 31
        assert pod.message()["cause"] == "NumericalFault"
        assert pod.message()["inplace_restarts"] == 0


def test_sigterm_lets_all_ranks_save_after_the_same_step(tmp_path: Path) -> None:
    """The signal goes to one pod only; both stop together with a checkpoint, and a second signal changes nothing."""
    with started(tmp_path, small_launcher(), pods=2, TEST_STEPS="100000") as made:
        made[1].until("both train", lambda: all((p.file("rank0.json").get("step") or 0) > 1 for p in made))
        for _ in range(2):
            os.kill(made[1].process.pid, signal.SIGTERM)
        assert [pod.wait() for pod in made] == [10, 10]
        messages = [pod.message() for pod in made]
        assert {m["cause"] for m in messages} == {"Stopped"}
        assert messages[0]["step"] == messages[1]["step"] == messages[0]["final_checkpoint"]["step"]


def test_the_deadline_stops_with_its_own_code(tmp_path: Path) -> None:
    """TRAINRUN_DEADLINE seconds after the start the workers are asked to save, and the pod exits 11."""
    with started(tmp_path, small_launcher(), TEST_STEPS="100000", TRAINRUN_DEADLINE="6") as (pod,):
        assert pod.wait() == 11
        assert pod.message()["cause"] == "TimeLimit"


def test_a_stop_before_the_workers_started_ends_cleanly(tmp_path: Path) -> None:
    """There is nothing to save: exit 10 at once, no step."""
    with started(tmp_path, small_launcher(), pods=1, PET_NNODES="2:2") as (pod,):  # waits for a peer for ever
        pod.until("the launcher waits for its peer", lambda: pod.file("launcher.json").get("state") == "rendezvous")
        os.kill(pod.process.pid, signal.SIGTERM)
        assert pod.wait(20) == 10
        assert pod.message()["step"] is None


def test_a_stop_while_the_rendezvous_name_is_unknown_ends_cleanly(tmp_path: Path) -> None:
    """Not even the launcher was started."""
    env = {"PET_RDZV_ENDPOINT": "no-such-host.invalid:29500"}
    with started(tmp_path, small_launcher(), **env) as (pod,):
        pod.until("the agent answers", lambda: pod.process.poll() is None and pod.progress_dir.exists())
        pod.until("the agent listens", lambda: can_connect(pod.port))
        os.kill(pod.process.pid, signal.SIGTERM)
        assert pod.wait(20) == 10


def can_connect(port: int) -> bool:
    """Somebody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_rendezvous_name_that_never_resolves_is_named(tmp_path: Path) -> None:
    """Bounded, with what to check."""
    env = {"PET_RDZV_ENDPOINT": "no-such-host.invalid:29500", "TRAINRUN_RENDEZVOUS_WAIT": "0.3"}
    with started(tmp_path, small_launcher(), **env) as (pod,):
        assert pod.wait(20) == 1
        assert "the rendezvous host 'no-such-host.invalid' cannot be resolved" in pod.message()["message"]


def test_a_users_command_starts_without_a_rendezvous_name(tmp_path: Path) -> None:
    """It may not need one; the wait is for torchrun's sake."""
    env = {"PET_RDZV_ENDPOINT": "no-such-host.invalid:29500", "TRAINRUN_RENDEZVOUS_WAIT": "0.3"}
    with started(tmp_path, python("print('it ran')"), **env) as (pod,):
        assert pod.wait(20) == 0
        assert "it ran" in pod.log() and "cannot be resolved" in pod.log()


def test_an_overrun_grace_period_kills_and_says_so(tmp_path: Path) -> None:
    """A worker that hangs cannot save; the pod ends before the kubelet's kill, with what is durable."""
    acts = [{"rank": 0, "step": 3, "do": "hang"}]
    env = {"TEST_STEPS": "9", "TEST_ACT": json.dumps(acts), "TRAINRUN_GRACE_SECONDS": "2"}
    with started(tmp_path, small_launcher(), **env) as (pod,):
        pod.until("it hangs", lambda: pod.file("rank0.json").get("step") == 3)
        tree = pod.tree()
        os.kill(pod.process.pid, signal.SIGTERM)
        assert pod.wait(20) == 10
        message = pod.message()
        assert "the newest durable checkpoint is step 3" in message["message"]
        assert "terminationGracePeriodSeconds" in message["message"]
        assert message["final_checkpoint"] is None
        assert not any(Path(f"/proc/{pid}").exists() for pid in tree)


@pytest.mark.parametrize(
    ("program", "code", "cause"),
    [
        ("print('fine')", 0, "Done"),
        ("raise SystemExit(31)", 31, "ProgramError"),
        ("raise SystemExit(3)", 3, "ProgramError"),
        ("import os; os.kill(os.getpid(), 11)", 139, "ProgramError"),
        (
            "import json, os; "
            "open(os.environ['TRAINRUN_PROGRESS_DIR'] + '/rank0.json', 'w').write(json.dumps({'step': 4})); "
            "raise SystemExit(31)",
            31,
            "NumericalFault",
        ),
    ],
    ids=["done", "contract-code-without-report", "error", "signal", "contract-code-of-a-reporting-program"],
)
def test_a_users_command_passes_its_exit_code_through(tmp_path: Path, program: str, code: int, cause: str) -> None:
    """A number means the contract only if the program has shown that it knows us."""
    with started(tmp_path, python(program)) as (pod,):
        assert pod.wait() == code
        message = pod.message()
        assert (message["exit_code"], message["cause"]) == (code, cause)
        assert message["signal"] == (11 if code == 139 else None)
        assert message["target_step"] is None


def test_a_users_command_gets_the_signal_that_it_knows(tmp_path: Path) -> None:
    """It knows no stop file, so SIGTERM is passed on to it, and its exit code passes through."""
    program = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
        "print('ready')\n"
        "time.sleep(600)\n"
    )
    with started(tmp_path, python(program)) as (pod,):
        pod.until("the program runs", lambda: "ready" in pod.log())
        os.kill(pod.process.pid, signal.SIGTERM)
        assert pod.wait(20) == 0


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["/no/such/program"], "/no/such/program"),
        ([TORCHRUN, "--no-python", "no-such-program"], "no-such-program"),
        ([TORCHRUN, "no/such/script.py", "--steps=3"], "no/such/script.py"),
    ],
    ids=["program", "program under torchrun", "script under torchrun"],
)
def test_a_command_that_does_not_exist_is_named(tmp_path: Path, command: list[str], name: str) -> None:
    """As a shell: 127. torchrun would hide the name in a traceback and exit 1, which looks worth a retry."""
    with started(tmp_path, command) as (pod,):
        assert pod.wait(20) == 127
        assert f"cannot start {name!r}: no such" in pod.message()["message"]


def test_the_message_is_bounded_and_free_of_secrets(tmp_path: Path) -> None:
    """A talkative program cannot push the cause out of the kubelet's 4,096 bytes, nor leak its environment."""
    program = (
        "import sys\n"
        "for k in range(2000): print('line', k, 'x' * 300)\n"
        "print('HF_TOKEN=hf_verysecret DB_PASSWORD=\"hunter2\" aws_secret_access_key: abc123 s3://user:pw99@bucket')\n"
        "sys.exit(5)\n"
    )
    with started(tmp_path, python(program)) as (pod,):
        assert pod.wait() == 5
        raw = pod.message_path.read_bytes()
        assert len(raw) <= TERMINATION_MESSAGE_LIMIT_BYTES
        tail = pod.message()["log_tail"]
        assert "HF_TOKEN=***" in tail and "DB_PASSWORD=***" in tail
        assert not any(secret in tail for secret in ("hf_verysecret", "hunter2", "abc123", "pw99"))
        assert "line 1999" in tail and "line 0 " not in tail
        assert "line 0 " in pod.log()  # the pod's own output is complete


def test_a_port_in_use_is_told_with_its_setting(tmp_path: Path) -> None:
    """The pod cannot be watched, so it does not start."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with started(tmp_path, python("print('never')"), TRAINRUN_AGENT_PORT=str(port)) as (pod,):
            assert pod.wait(20) == 1
            assert f"port {port} of 127.0.0.1 is in use" in pod.message()["message"]
            assert "TRAINRUN_AGENT_PORT" in pod.message()["message"]


def test_a_rendezvous_port_in_use_is_told(tmp_path: Path) -> None:
    """The pod that hosts the rendezvous says so, instead of blaming its peers."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        endpoint = f"127.0.0.1:{holder.getsockname()[1]}"
        with started(tmp_path, small_launcher(), PET_RDZV_ENDPOINT=endpoint) as (pod,):
            assert pod.wait() == 1
            assert f"cannot open the rendezvous port {endpoint}" in pod.message()["message"]
            assert pod.message()["cause"] == "ProgramError"


def test_a_setting_that_is_no_number_is_named(tmp_path: Path) -> None:
    """With the variable, the value and what is expected."""
    with started(tmp_path, python("print('never')"), TRAINRUN_DEADLINE="soon") as (pod,):
        assert pod.wait(20) == ExitCode.BAD_CONFIG
        assert "TRAINRUN_DEADLINE='soon' is not a number" in pod.message()["message"]
