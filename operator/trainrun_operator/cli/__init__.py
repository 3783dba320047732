"""`trainrun`: the command line. Nothing is imported here, so that completion and `--help` stay fast."""


def main() -> None:
    """Entry point of the console scripts: what a user can mend is one sentence and exit code 1, never a traceback."""
    import sys

    from trainrun_operator.cli.app import app
    from trainrun_operator.errors import LocalModeError

    try:
        app()
    except LocalModeError as error:
        sys.exit(str(error))
