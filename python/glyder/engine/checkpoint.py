"""Which saved states a scheduler takes, and rules of the C core in states and copies."""

from __future__ import annotations

import copyreg
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch.optim import Optimizer

from glyder import _core

STATE_VERSION = 6


def check_state(saved: dict[str, Any], of: str, keys: Iterable[str], optimizers: Sequence[Optimizer]) -> None:
    """Refuse a state of another release, of other groups, of another scheduler or rule than ``of``, or without keys."""
    if saved.get("version") != STATE_VERSION:
        raise ValueError(
            f"load_state_dict: this state has version {saved.get('version')!r}, and this glyder reads version "
            f"{STATE_VERSION}: finish the run with the release that saved it"
        )
    found = saved.get("scheduler")
    if found != of:
        raise ValueError(
            f"load_state_dict: this state is of {found!r}, and this scheduler is {of!r}: load it into a scheduler "
            "of the kind that saved it"
        )
    missing = [key for key in keys if key not in saved]
    if missing:
        raise ValueError(f"load_state_dict: this state lacks {missing}: load what state_dict() gave, as a whole")
    groups, here = [len(r) for r in saved["ratios"]], [len(o.param_groups) for o in optimizers]
    if groups != here:
        raise ValueError(f"the state is of optimizers with {groups} parameter groups, these have {here}")


def loaded(rules: Mapping[str, _core.Rule], states: Mapping[str, dict[str, float]]) -> dict[str, _core.Rule]:
    """Rules of the same kinds and configs, in these states; those that are given stay as they are."""
    new = {name: _core.Rule(rule.name, **rule.config) for name, rule in rules.items()}
    for name, rule in new.items():
        rule.load(states[name])
    return new


copyreg.pickle(_core.Rule, lambda rule: (_rule, (rule.name, rule.config, rule.state)))


def _rule(name: str, config: dict[str, float], state: dict[str, float]) -> _core.Rule:
    """A rule as it was, for copies and pickles of schedulers."""
    rule = _core.Rule(name, **config)
    rule.load(state)
    return rule
