"""`python -m trainrun_trainer.agent [-- command ...]`: a pod's first process. Without a command, our own launcher."""

from __future__ import annotations

import os
import sys
from typing import List

from trainrun_api.contract import CAUSE_OF_EXIT, TERMINATION_LOG, Env, ExitCode, TerminationMessage

from trainrun_trainer.agent import proctree
from trainrun_trainer.agent.agent import Agent, prepare_signals, write_message
from trainrun_trainer.agent.keeper import Keeper
from trainrun_trainer.agent.settings import SettingsError, read_settings

USAGE = (
    "usage: python -m trainrun_trainer.agent [-- command ...]; everything else is set by the environment (TRAINRUN_*)"
)


def main(arguments: List[str]) -> int:
    """Run the pod; the exit code is the contract's."""
    if arguments[:1] in (["--help"], ["-h"]):
        sys.stdout.write(USAGE + "\n")
        return 0
    if arguments and arguments[0] != "--":
        sys.stderr.write("unexpected argument %r; %s\n" % (arguments[0], USAGE))
        return 2
    try:
        settings = read_settings(os.environ)
    except SettingsError as error:
        message = TerminationMessage(
            run=os.environ.get(Env.RUN, ""),
            exit_code=int(ExitCode.BAD_CONFIG),
            cause=CAUSE_OF_EXIT[ExitCode.BAD_CONFIG],
            message=str(error),
        )
        write_message(os.environ.get(Env.TERMINATION_LOG, TERMINATION_LOG), message)
        return message.exit_code
    agent = Agent(settings, arguments[1:])
    wake_r, _ = prepare_signals(agent)  # first, so that an early SIGTERM is a stop and not a death
    proctree.adopt_orphans()
    return agent.run(Keeper(), wake_r)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
