"""The report stage: what a chain of stages came to, on one page that a manager can read."""

from trainrun_trainer.reporting.page import write_report

__all__ = ["write_report"]
