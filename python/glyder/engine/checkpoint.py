"""Which saved states a scheduler takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch.optim import Optimizer

STATE_VERSION = 5


def check_state(saved: dict[str, Any], of: str, keys: Iterable[str], optimizers: Sequence[Optimizer]) -> None:
    """Refuse a state of another release, of other groups, of another scheduler or rule than ``of``, or without keys."""
    if saved.get("version") != STATE_VERSION:
        raise ValueError(
            f"load_state_dict: this state has version {saved.get('version')!r}, and this glyder reads version "
            f"{STATE_VERSION}: finish the run with the release that saved it"
        )
    found = saved.get("scheduler", saved.get("rule"))
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
