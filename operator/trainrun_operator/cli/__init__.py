"""`trainrun`: the command line. Nothing is imported here, so that completion and `--help` stay fast."""


def main() -> None:
    """Entry point of the console scripts."""
    from trainrun_operator.cli.app import app

    app()
