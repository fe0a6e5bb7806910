"""State of a run, to the bit: plain values and tensors that ``torch.load(weights_only=True)`` accepts."""

from __future__ import annotations

import copy
import copyreg
from collections import Counter
from typing import TYPE_CHECKING, Any

from glyder import _core
from glyder.engine.checkpoint import STATE_VERSION
from glyder.optimizers.displacement import Displacement
from glyder.optimizers.parameter_ref import ParameterRef

if TYPE_CHECKING:
    from glyder.schedulers.local_optimum import LocalOptimumLR

copyreg.pickle(_core.Rule, lambda rule: (_rule, (rule.name, rule.config, rule.state)))


def _rule(name: str, config: dict[str, float], state: dict[str, float]) -> _core.Rule:
    """A rule as it was, for copies and pickles of schedulers."""
    rule = _core.Rule(name, **config)
    rule.load(state)
    return rule


PLAIN = {
    "skipped": "skipped",
    "reference": "_reference",
    "ratios": "_ratios",
    "base_lr": "_base",
    "rate": "_rate",
    "written_rate": "_written_rate",
    "written_ratios": "_written_ratios",
    "start": "_start",
    "total_steps": "horizon",
    "draw": "_draw",
    "measured": "_measured",
    "failed": "_failed",
}
"""Entries of a state that are attributes of the scheduler as they are."""


def state_of(scheduler: LocalOptimumLR) -> dict[str, Any]:
    """Everything that a resumed run needs; nothing of it is shared with the scheduler."""
    scheduler._take_in_groups()
    state = {key: copy.deepcopy(getattr(scheduler, name)) for key, name in PLAIN.items()}
    return state | {
        "version": STATE_VERSION,
        "scheduler": "LocalOptimumLR",
        "updates": scheduler.updates,
        "config": config_of(scheduler),
        "rules": {name: rule.state for name, rule in scheduler._rules.items()},
        "begun": copy.deepcopy(scheduler._ages.begun),
        "native": scheduler._meter.native,
        "cost": list(scheduler.cost),
        "taken": scheduler._sampler.taken,
        "said": sorted(scheduler._said),
        "reasons": dict(scheduler._reasons),
        "history": scheduler._history.state(),
        "pending": None if scheduler._pending is None else _pending_state(scheduler._pending),
    }


def restore(scheduler: LocalOptimumLR, state: dict[str, Any]) -> None:
    """Inverse of :func:`state_of`, into a scheduler of the same optimizers. The state is copied, not kept."""
    scheduler._check_state(state, "LocalOptimumLR")
    _tell_differences(scheduler, state)
    pending = None if state["pending"] is None else _pending_from(scheduler, state["pending"])
    for key, name in PLAIN.items():
        setattr(scheduler, name, copy.deepcopy(state[key]))
    scheduler._count(state["updates"])
    for name, rule in state["rules"].items():
        scheduler._rules.setdefault(name, _core.Rule("glyder", **scheduler._rule_config)).load(rule)
    scheduler._ages.begun = copy.deepcopy(state["begun"])
    scheduler._meter.native = state["native"]
    scheduler._meter.forwards, scheduler._meter.copies = state["cost"]
    scheduler._sampler.taken = state["taken"]
    scheduler._said, scheduler._reasons = set(state["said"]), Counter(state["reasons"])
    scheduler._history.load(state["history"])
    scheduler._go_on_with(pending)


def config_of(scheduler: LocalOptimumLR) -> dict[str, Any]:
    """Options that change the recipe: a resumed run is told where they differ."""
    config = {name: getattr(scheduler, name) for name in ("anneal", "warmup", "every", "refresh", "scope")}
    for name in ("scale", "glyder", "bounds", "growth"):
        config |= scheduler._rules[name].config
    config["act"] = "same-step" if scheduler._same_step else "next"
    return config | {"observe_only": scheduler.observe_only, "estimator": type(scheduler.estimator).__name__}


def _tell_differences(scheduler: LocalOptimumLR, state: dict[str, Any]) -> None:
    ours, saved = config_of(scheduler), state["config"]
    differing = [f"{k}={v!r} (saved with {saved.get(k)!r})" for k, v in ours.items() if saved.get(k) != v]
    if differing:
        scheduler._say("options", f"the run goes on with other options than it was saved with: {', '.join(differing)}")
    if scheduler.horizon not in (None, state["total_steps"]):
        scheduler._say(
            "horizon",
            f"total_steps={scheduler.horizon} is not that of the saved run, {state['total_steps']}, which it goes on "
            "with: call extend(total_steps) after loading to change it",
        )


def _pending_state(pending: Displacement) -> dict[str, Any]:
    return {
        "places": [[p.optimizer, p.group, p.index] for p in pending.places],
        "deltas": [d.clone() for d in pending.deltas],
        "lr": pending.lr,
        "young": pending.young,
        "reach": pending.reach,
        "ratios": [list(r) for r in pending.ratios],
    }


def _pending_from(scheduler: LocalOptimumLR, saved: dict[str, Any]) -> Displacement:
    places = [ParameterRef(*place) for place in saved["places"]]
    deltas = [
        d.clone().to(scheduler._parameter(place).device) for place, d in zip(places, saved["deltas"], strict=True)
    ]
    ratios = [list(r) for r in saved["ratios"]]
    scalars = {name: float(saved[name]) for name in ("lr", "young", "reach")}
    return Displacement(places, deltas, ratios=ratios, **scalars)
