"""Rules on the run as a whole: its name, checkpoints, resume, limits, and what never changes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from trainrun_api.rules.base import OK, Facts, Rule, Values, pick
from trainrun_api.v1alpha1 import NAME_LIMIT

_NAME = "^[a-z]([-a-z0-9]*[a-z0-9])?$"
_PATH = "^(file://)?/[^/].*$|^s3://[a-z0-9][-.a-z0-9]{1,61}[a-z0-9](/.*)?$"
_DURATION = "^[1-9][0-9]{0,8}(s|m|h)$"
_STALL_LIMIT_SECONDS = 86400


def _name_length(facts: Facts) -> Values | None:
    return OK if len(facts.name) <= NAME_LIMIT else {"got": facts.name, "length": len(facts.name)}


def _name_form(facts: Facts) -> Values | None:
    return OK if re.match(_NAME, facts.name) else {"got": facts.name}


def _config_or_command(facts: Facts) -> Values | None:
    return OK if facts.spec.config or facts.spec.command else {}


def _path_scheme(facts: Facts) -> Values | None:
    got = facts.spec.checkpoint.path
    return OK if re.match(_PATH, got) else {"got": got}


def _interval(facts: Facts) -> Values | None:
    got = facts.spec.checkpoint.interval
    good = got >= 1 if isinstance(got, int) else got == "auto" or re.match(_DURATION, got)
    return OK if good else {"got": got}


def _stall(facts: Facts) -> Values | None:
    got = facts.spec.health.stall_timeout_seconds
    good = 1 <= got <= _STALL_LIMIT_SECONDS if isinstance(got, int) else got == "auto"
    return OK if good else {"got": got}


def _needs(word: str, name: str) -> Callable[[Facts], Values | None]:
    """`from: word` must come with the field `name`."""

    def check(facts: Facts) -> Values | None:
        resume = facts.spec.resume
        return {} if resume.from_ == word and getattr(resume, name) is None else OK

    return check


def _only_with(word: str, name: str) -> Callable[[Facts], Values | None]:
    """The field `name` may come with `from: word` only."""

    def check(facts: Facts) -> Values | None:
        resume = facts.spec.resume
        got = getattr(resume, name)
        return OK if got is None or resume.from_ == word else {"got": got, "from": resume.from_}

    return check


def _of_itself(facts: Facts) -> Values | None:
    got = facts.spec.resume.run
    return {"got": got} if got is not None and got == facts.name else OK


def _rule_twice(facts: Facts) -> Values | None:
    names = [rule.name for rule in facts.spec.failure_policy.rules]
    twice = next((name for name in names if names.count(name) > 1), None)
    return OK if twice is None else {"got": twice}


def _path_kept(facts: Facts) -> Values | None:
    old = (facts.old or {}).get("checkpoint", {}).get("path")
    new = facts.spec.checkpoint.path
    return OK if old is None or old == new else {"old": old, "new": new}


def _kept(*path: str) -> Callable[[Facts], Values | None]:
    """What stands at `path`, or its absence, must be the same as before."""

    def dig(spec: Mapping[str, Any]) -> str:
        here: Any = spec
        for name in path:
            here = here.get(name) if isinstance(here, Mapping) else None
        return json.dumps(here, sort_keys=True)

    def check(facts: Facts) -> Values | None:
        return OK if facts.old is None or dig(facts.old) == dig(facts.raw) else {}

    return check


def _kept_cel(name: str) -> str:
    """CEL for `_kept("config", name)`; `name` is a required field of config."""
    return (
        f"has(self.config) == has(oldSelf.config) && (!has(self.config) || self.config.{name} == oldSelf.config.{name})"
    )


_FROM = pick("from", "'Latest'")
_TWICE = "self.rules.filter(a, !self.rules.exists_one(b, b.name == a.name))[0].name"

RULES = (
    Rule(
        id="name-length",
        at="",
        child="metadata.name",
        cel=f"self.metadata.name.size() <= {NAME_LIMIT}",
        message="metadata.name={got} has {length} characters; use at most 45, because pods and services are named "
        "<name>-a<attempt>-worker-<index> and may have 63",
        values={"got": "self.metadata.name", "length": "self.metadata.name.size()"},
        check=_name_length,
    ),
    Rule(
        id="name-form",
        at="",
        child="metadata.name",
        cel=f"self.metadata.name.matches('{_NAME}')",
        message="metadata.name={got} cannot name a service; use lower-case letters, digits and '-', beginning with a "
        "letter and ending with a letter or digit (DNS-1035)",
        values={"got": "self.metadata.name"},
        check=_name_form,
    ),
    Rule(
        id="config-or-command",
        at="spec",
        child=None,
        cel="has(self.config) || (has(self.command) && self.command.size() > 0)",
        message="spec.config is missing; give it for our trainer, or spec.command for a program of your own",
        check=_config_or_command,
    ),
    Rule(
        id="checkpoint-path-scheme",
        at="spec.checkpoint",
        child="path",
        cel=f"self.path.matches('{_PATH}')",
        message="spec.checkpoint.path={got} is not a place that trainrun knows; use an absolute path, file:///path or "
        "s3://bucket/prefix",
        values={"got": "self.path"},
        check=_path_scheme,
    ),
    Rule(
        id="checkpoint-interval",
        at="spec.checkpoint",
        child="interval",
        cel="!has(self.interval) || (type(self.interval) == int ? int(self.interval) >= 1 : "
        f"string(self.interval) == 'auto' || string(self.interval).matches('{_DURATION}'))",
        message="spec.checkpoint.interval={got} is not an interval; use auto, a number of steps from 1 up, or a "
        "duration such as 90s, 10m or 1h",
        values={"got": "self.interval"},
        check=_interval,
    ),
    Rule(
        id="stall-timeout",
        at="spec.health",
        child="stallTimeoutSeconds",
        cel="!has(self.stallTimeoutSeconds) || (type(self.stallTimeoutSeconds) == int ? "
        f"int(self.stallTimeoutSeconds) >= 1 && int(self.stallTimeoutSeconds) <= {_STALL_LIMIT_SECONDS} : "
        "string(self.stallTimeoutSeconds) == 'auto')",
        message="spec.health.stallTimeoutSeconds={got} is not a limit; use auto or 1 to 86400 seconds",
        values={"got": "self.stallTimeoutSeconds"},
        check=_stall,
    ),
    Rule(
        id="resume-step-missing",
        at="spec.resume",
        child="from",
        cel=f"{_FROM} != 'Step' || has(self.step)",
        message="spec.resume.from=Step needs spec.resume.step; set it to the step of a committed checkpoint",
        check=_needs("Step", "step"),
    ),
    Rule(
        id="resume-run-missing",
        at="spec.resume",
        child="from",
        cel=f"{_FROM} != 'Run' || has(self.run)",
        message="spec.resume.from=Run needs spec.resume.run; set it to the name of the run to start from",
        check=_needs("Run", "run"),
    ),
    Rule(
        id="resume-step-unused",
        at="spec.resume",
        child="step",
        cel=f"!has(self.step) || {_FROM} == 'Step'",
        message="spec.resume.step={got} contradicts spec.resume.from={from}; use from: Step, or leave step out",
        values={"got": "self.step", "from": _FROM},
        check=_only_with("Step", "step"),
    ),
    Rule(
        id="resume-run-unused",
        at="spec.resume",
        child="run",
        cel=f"!has(self.run) || {_FROM} == 'Run'",
        message="spec.resume.run={got} contradicts spec.resume.from={from}; use from: Run, or leave run out",
        values={"got": "self.run", "from": _FROM},
        check=_only_with("Run", "run"),
    ),
    Rule(
        id="resume-run-itself",
        at="",
        child="spec.resume.run",
        cel="!has(self.spec.resume) || !has(self.spec.resume.run) || self.spec.resume.run != self.metadata.name",
        message="spec.resume.run={got} is this run itself; name the run whose result it starts from, or use from: "
        "Latest to go on with its own checkpoints",
        values={"got": "self.spec.resume.run"},
        check=_of_itself,
    ),
    Rule(
        id="failure-rule-names-unique",
        at="spec.failurePolicy",
        child="rules",
        cel="!has(self.rules) || self.rules.all(a, self.rules.exists_one(b, b.name == a.name))",
        message="spec.failurePolicy.rules has the name {got} twice; give each rule its own name",
        values={"got": _TWICE},
        check=_rule_twice,
    ),
    Rule(
        id="checkpoint-path-kept",
        at="spec.checkpoint",
        child="path",
        cel="self.path == oldSelf.path",
        message="spec.checkpoint.path cannot change from {old} to {new} during the life of a run; create a run of "
        "another name",
        values={"old": "oldSelf.path", "new": "self.path"},
        check=_path_kept,
        kind="immutable",
    ),
    Rule(
        id="resume-kept",
        at="spec",
        child="resume",
        cel="has(self.resume) == has(oldSelf.resume) && (!has(self.resume) || self.resume == oldSelf.resume)",
        message="spec.resume cannot change during the life of a run; create a run of another name",
        check=_kept("resume"),
        kind="immutable",
    ),
    Rule(
        id="model-kept",
        at="spec",
        child="config",
        cel=_kept_cel("model"),
        message="spec.config.model cannot change during the life of a run; create a run of another name",
        check=_kept("config", "model"),
        kind="immutable",
    ),
    Rule(
        id="data-kept",
        at="spec",
        child="config",
        cel=_kept_cel("data"),
        message="spec.config.data cannot change during the life of a run; create a run of another name",
        check=_kept("config", "data"),
        kind="immutable",
    ),
)
