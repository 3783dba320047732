"""Rules, outcomes, causes, conditions as tables, read from the code: docs/rules.md, docs/conditions.md. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from trainrun_operator.core import goodput, reasons
from trainrun_operator.core.choice import Rule
from trainrun_operator.core.conditions import FRESHNESS, PHASES, TYPES
from trainrun_operator.core.decide import NO_OPEN_ATTEMPT, OPEN_ATTEMPT, WHOLE_RUN
from trainrun_operator.core.failure_policy import CAUSES, CausePolicy
from trainrun_operator.core.rules.always import ALWAYS

HEAD = """# The decision rules

Generated from the code by `make generate`; edit the docstrings instead. How the pieces fit:
`operator/trainrun_operator/core/decide.py`.
"""

CONDITIONS_HEAD = """# What a run's conditions say, and what to do

Generated from the code by `make generate`; edit core/conditions.py and core/reasons.py instead.

`kubectl get trun NAME -o wide` shows phase and reason, `kubectl describe trun NAME` the sentences, attempts and Events;
in local mode `trainrun status` and `trainrun explain` do. Of `Ready`, `Reconciling` and `Stalled` exactly one is True.
"""

REASONS_HEAD = """## Reasons

`Ready`, `Reconciling`, `Stalled` and `Completed` share one reason and one sentence, the newest. Why an attempt failed
is its *cause*: see [the causes](rules.md#causes-of-a-failure).
"""

VERDICT_HEADS = {
    "Stalled": "### Stalled: a person must act\n",
    "Reconciling": "### Reconciling: on its way\n",
    "Ready": "### Ready: as the spec wants it\n",
}
"""In the order in which a person who was woken up looks for them."""


def conditions_page() -> str:
    """docs/conditions.md."""
    types = ((f"`{k}`", t.when_true, t.when_false, t.when_absent, t.readers) for k, t in TYPES.items())
    parts = [CONDITIONS_HEAD, _table(("condition", "True", "False", "absent", "read by"), types), REASONS_HEAD]
    for verdict, head in VERDICT_HEADS.items():
        chosen = (o for o in reasons.ALL.values() if o.kstatus == verdict)
        rows = ((f"`{o.reason}`", o.phase, o.meaning, o.todo, o.event or "none") for o in chosen)
        parts += [head, _table(("reason", "phase", "what is going on", "what to do", "Event"), rows)]
    fresh = ((f"`{f.reason}`", f.status, f.meaning, f.todo) for f in FRESHNESS.values())
    parts += [
        "## Reasons of CheckpointFresh\n",
        _table(("reason", "status", "what is going on", "what to do"), fresh),
        "## Phases\n\nA summary for people; scripts read conditions.\n",
        _table(("phase", "the run"), ((f"`{k}`", v) for k, v in PHASES.items())),
    ]
    return "\n".join(parts)


def page() -> str:
    """docs/rules.md."""
    parts = [
        HEAD,
        "## Rules, in order: the first that applies wins\n",
        _rules(WHOLE_RUN),
        "While an attempt is open:\n",
        _rules(OPEN_ATTEMPT),
        "While none is:\n",
        _rules(NO_OPEN_ATTEMPT),
        "## In every pass, before the rule's own actions\n",
        _table(("rule", "what it does"), ((f"`{r.__name__}`", _words(r)) for r in ALWAYS)),
        "## Outcomes\n\nEach sets condition reason, phase, Event and log line from one place (`core/reasons.py`).\n",
        _table(("reason", "phase", "kstatus", "Event", "time is booked on", "sentence"), _outcomes()),
        "## Causes of a failure\n\n`failurePolicy.rules` of the run come before this table.\n",
        _table(("cause", "spends maxRestarts", "back-off", "where next", "fails the run"), _causes()),
        "## Classes of the goodput ledger\n",
        _table(("class", "seconds of"), ((f"`{k}`", v) for k, v in goodput.CLASSES.items())),
    ]
    return "\n".join(parts)


def _rules(rules: tuple[Rule, ...]) -> str:
    return _table(("rule", "what it does"), ((f"`{r.__name__}`", _words(r)) for r in rules))


def _outcomes() -> Iterable[tuple[str, ...]]:
    for o in reasons.ALL.values():
        yield f"`{o.reason}`", o.phase, o.kstatus, o.event or "none", o.goodput, o.template


def _causes() -> Iterable[tuple[str, ...]]:
    for name, policy in CAUSES.items():
        yield f"`{name}`", _yes(policy.spends), _yes(policy.backs_off), _where(policy), _fails(policy)


def _where(policy: CausePolicy) -> str:
    if policy.moves:
        return "not on that node"
    return "on other nodes if there are any" if policy.replays_elsewhere else "anywhere"


def _fails(policy: CausePolicy) -> str:
    if policy.sightings is None:
        return "when maxRestarts is spent" if policy.spends else "never"
    times = "at once" if policy.sightings == 1 else f"at sighting {policy.sightings} at the same step"
    return f"{times}. {policy.advice}".rstrip()


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _words(rule: Callable[..., object]) -> str:
    return " ".join((rule.__doc__ or "").split())


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines) + "\n"
