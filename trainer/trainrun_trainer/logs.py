"""One JSON object per line on stderr, once per change: event, rank and whatever the event is about."""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def log(event: str, **fields: Any) -> None:
    """Write one line; never a secret, never once per step."""
    record = {"event": event, "rank": int(os.environ.get("RANK", "0")), **fields}
    print(json.dumps(record, default=str), file=sys.stderr, flush=True)
