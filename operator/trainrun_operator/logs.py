"""Logs as one JSON object per line; lines about a run carry run, attempt and rule."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

MESSAGE_LIMIT = 4000
"""Characters; a response body that a library logs whole would drown everything else."""

Line = Mapping[str, Any]
"""A line of the journal (trainrun_operator.reconcile.Journal)."""

journal_log = logging.getLogger("trainrun")


class JsonFormatter(logging.Formatter):
    """The record, and what `journal` gave with it."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage()[:MESSAGE_LIMIT],
        }
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)[-MESSAGE_LIMIT:]
        return json.dumps(line, default=str)


def set_up(level: str) -> None:
    """Everything to stdout as JSON, our own lines and the libraries'."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)  # a line for every watch event otherwise


def journal(line: Line) -> None:
    """One decision or action of the operator; its own time is the record's."""
    level = logging.WARNING if line.get("type") == "error" else logging.INFO
    fields = {name: value for name, value in line.items() if name not in ("time", "message")}
    journal_log.log(level, "%s", line.get("message", ""), extra={"fields": fields})
