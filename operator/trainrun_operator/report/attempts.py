"""The attempts as lanes of the time line."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from trainrun_api.page.words import duration, parse_time
from trainrun_api.v1alpha1 import AttemptStatus

from trainrun_operator.report.bars import Lane, Part, Point
from trainrun_operator.report.records import RunRecords, unix
from trainrun_operator.report.recovery import Recovery


def lanes(records: RunRecords, resumed: Sequence[Recovery]) -> list[Lane]:
    """One per attempt that status remembers; seconds count from the run's creation."""
    if records.created_at is None or records.ended_at is None:
        return []
    origin = records.created_at.timestamp()
    return [_lane(records, attempt, resumed, origin, records.ended_at) for attempt in records.attempts]


def _lane(
    records: RunRecords, attempt: AttemptStatus, resumed: Sequence[Recovery], origin: float, last: datetime
) -> Lane:
    end = (unix(parse_time(attempt.ended_at)) or last.timestamp()) - origin
    begin = (unix(parse_time(attempt.started_at)) or origin) - origin
    scheduled = max(begin, min(end, _since(attempt.scheduled_at, origin, begin)))
    first = max(scheduled, min(end, _since(attempt.first_step_at, origin, end)))
    points = _points(records, attempt.number, origin)
    in_place = [one for one in resumed if one.is_in_place and one.attempt == attempt.number]
    fatal = [point.at for point in points if first <= point.at <= end and not _is_survived(point.at, origin, in_place)]
    hurt = min(fatal) if fatal and attempt.cause not in (None, "Done") else end
    parts = [
        Part(begin, scheduled, "waitingCapacity", f"waiting for nodes, {duration(scheduled - begin)}"),
        Part(scheduled, first, "starting", f"starting, {duration(first - scheduled)}"),
        Part(first, hurt, "training", f"training, {duration(hurt - first)}"),
        Part(hurt, end, "detecting", f"fault to verdict, {duration(end - hurt)}"),
    ]
    parts += [
        Part(
            one.begins_at - origin,
            one.begins_at - origin + one.total_seconds,
            "starting",
            f"restart in place, {duration(one.total_seconds)}",
        )
        for one in in_place
    ]
    return Lane(
        name=f"attempt {attempt.number}",
        parts=[part for part in parts if part.end > part.begin],
        points=points,
        ending=attempt.cause or "goes on",
        is_good=attempt.cause in (None, "Done"),
    )


def _since(text: str | None, origin: float, otherwise: float) -> float:
    moment = unix(parse_time(text))
    return otherwise if moment is None else moment - origin


def _points(records: RunRecords, attempt: int, origin: float) -> list[Point]:
    points = []
    for fault in records.faults:
        moment = unix(parse_time(fault.get("time")))
        if moment is not None and fault.get("attempt") == attempt:
            points.append(Point(moment - origin, "fault", f"{fault.get('fault')}: {fault.get('message')}"))
    return points


def _is_survived(at: float, origin: float, in_place: Sequence[Recovery]) -> bool:
    return any(abs(one.begins_at - origin - at) < 0.001 for one in in_place)
