"""`trainrun run`: chooses how to show the run, and turns errors into sentences and exit codes."""

from __future__ import annotations

import sys

from trainrun_operator.cli.live import LiveView
from trainrun_operator.cli.plain import PlainView
from trainrun_operator.errors import LocalModeError
from trainrun_operator.local.faults import UnknownFaultError
from trainrun_operator.local.observer import Observer
from trainrun_operator.local.order import Exit, ManifestRefusedError, Order
from trainrun_operator.local.supervisor import supervise
from trainrun_operator.local.workdir import WorkdirInUseError


def run_order(order: Order) -> int:
    """Run it; returns the exit code."""
    observer: Observer = LiveView() if sys.stdout.isatty() else PlainView(sys.stdout)
    try:
        return int(supervise(order, observer))
    except ManifestRefusedError as error:
        code = Exit.REFUSED
        print(error, file=sys.stderr)
    except WorkdirInUseError as error:
        code = Exit.IN_USE
        print(error, file=sys.stderr)
    except UnknownFaultError as error:
        code = Exit.USAGE
        print(error, file=sys.stderr)
    except LocalModeError as error:
        code = Exit.FAILED
        print(error, file=sys.stderr)
    finally:
        observer.close()
    return int(code)
