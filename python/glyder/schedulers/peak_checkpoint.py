"""State of a run with GlyderLR, to the bit: plain values and tensors that ``torch.load(weights_only=True)`` accepts."""

from __future__ import annotations

import copy
from collections import Counter
from typing import TYPE_CHECKING, Any

from torch import Tensor

from glyder import _core
from glyder.engine.checkpoint import STATE_VERSION
from glyder.engine.cosine_search import Search
from glyder.engine.edge_search import EdgeSearch
from glyder.engine.history import History
from glyder.optimizers.parameter_ref import ParameterRef

if TYPE_CHECKING:
    from glyder.schedulers.glyder import GlyderLR

PLAIN = {
    "skipped": "skipped",
    "reference": "_reference",
    "ratios": "_ratios",
    "written_ratios": "_written_ratios",
    "total_steps": "horizon",
    "peak": "_peak",
    "found": "_found",
    "floor": "_floor",
    "begun": "_begun",
    "rate": "_rate",
    "written_rate": "_written_rate",
    "acting": "_acting",
    "copies": "_copies",
    "lost": "_lost",
    "zeros": "_zeros",
}
"""Entries of a state that are attributes of the scheduler as they are."""

KEYS = (*PLAIN, "updates", "config", "stages", "search", "said", "reasons", "history")
"""All that a state needs beside what it is of."""

PLACED = ("lengths", "begin", "displacement", "still", "asleep", "longest")
"""Entries of a search's state that are lists of pairs, place and value."""

KINDS = {Search: "by cosines, as Adam's is", EdgeSearch: "by the length of gradients, as SGD's is"}


def state_of(scheduler: GlyderLR) -> dict[str, Any]:
    """Everything that a resumed run needs; nothing of it is shared with the scheduler."""
    scheduler._take_in_groups()
    state = {key: copy.deepcopy(getattr(scheduler, name)) for key, name in PLAIN.items()}
    return state | {
        "version": STATE_VERSION,
        "scheduler": "GlyderLR",
        "updates": scheduler.updates,
        "config": _config_of(scheduler, scheduler.warmup),
        "stages": {name: rule.state for name, rule in scheduler._stages.items()},
        "search": None if scheduler._search is None else scheduler._search.state(),
        "said": sorted(scheduler._said),
        "reasons": dict(scheduler._reasons),
        "history": scheduler._history.state(),
    }


def restore(scheduler: GlyderLR, state: dict[str, Any]) -> None:
    """Inverse of :func:`state_of`, into a scheduler of the same optimizers. The state is copied, not kept.

    All that can fail comes before the first change.
    """
    saved = copy.deepcopy(state)
    scheduler._check_state(saved, "GlyderLR", KEYS)
    warmup = scheduler._search_length(saved["total_steps"])
    search = None
    if saved["search"] is not None:
        search = scheduler._new_search(warmup)
        _check_search(scheduler, search, saved["search"])
        search.load(saved["search"])
    elif saved["peak"] is None and scheduler._given_peak is None:  # it was closed in its search: begin another
        search = scheduler._new_search(warmup)
    stages = {name: _core.Rule(name, **rule.config) for name, rule in scheduler._stages.items()}
    for name, rule in stages.items():
        rule.load(saved["stages"][name])
    history = History(scheduler._history.fields, scheduler._history.texts)
    history.load(saved["history"])
    _tell_differences(scheduler, saved, warmup)

    ratios = scheduler._ratios  # a search holds this list
    for key, name in PLAIN.items():
        setattr(scheduler, name, saved[key])
    ratios[:], scheduler._ratios = saved["ratios"], ratios
    scheduler._count(saved["updates"])
    scheduler.warmup, scheduler._search, scheduler._stages, scheduler._history = warmup, search, stages, history
    scheduler._said, scheduler._reasons = set(saved["said"]), Counter(saved["reasons"])
    if scheduler._given_peak is not None:  # a search that goes on ends with it in the next update
        scheduler._peak = scheduler._given_peak
    scheduler._write_again(scheduler._written_rate)


def _check_search(scheduler: GlyderLR, search: Search | EdgeSearch, saved: dict[str, Any]) -> None:
    """Refuse the state of a search of another kind or in other parameters."""
    kind = EdgeSearch if "begin" in saved else Search
    if not isinstance(search, kind):
        names = ", ".join(type(o).__name__ for o in scheduler.optimizers)
        raise ValueError(
            f"load_state_dict: this state was saved in a search {KINDS[kind]}, and that of {names} is "
            f"{KINDS[type(search)]}: load it into optimizers of the kind that saved it, or begin the run anew"
        )
    missing = [key for key in search.state() if key not in saved]
    if missing:
        raise ValueError(f"load_state_dict: the search in this state lacks {missing}: load what state_dict() gave")
    for entry in PLACED:
        for (o, g, i), value in saved.get(entry) or ():
            params, place = scheduler.optimizers[o].param_groups[g]["params"], ParameterRef(o, g, i)
            of_its_model = "load it into optimizers of the model that saved it"
            if i >= len(params):
                raise ValueError(
                    f"load_state_dict: this state has {place}, and that group has {len(params)}: {of_its_model}"
                )
            if isinstance(value, Tensor) and value.shape != params[i].shape:
                raise ValueError(
                    f"load_state_dict: {place} has shape {tuple(value.shape)} in this state and "
                    f"{tuple(params[i].shape)} here: {of_its_model}"
                )


def _config_of(scheduler: GlyderLR, warmup: int) -> dict[str, Any]:
    """Options that change the run: one that is resumed is told where they differ."""
    return {"anneal": scheduler.anneal, **scheduler._shape, "warmup": warmup, **scheduler._bounds.config}


def _tell_differences(scheduler: GlyderLR, saved: dict[str, Any], warmup: int) -> None:
    ours, theirs = _config_of(scheduler, warmup), saved["config"]
    if scheduler._given_peak is not None:
        ours, theirs = ours | {"peak_lr": scheduler._given_peak}, theirs | {"peak_lr": saved["peak"]}
    differing = [f"{k}={v!r} (saved with {theirs.get(k)!r})" for k, v in ours.items() if theirs.get(k) != v]
    if differing:
        scheduler._say("options", f"the run goes on with other options than it was saved with: {', '.join(differing)}")
    if scheduler.horizon not in (None, saved["total_steps"]):
        scheduler._say(
            "horizon",
            f"total_steps={scheduler.horizon} is not that of the saved run, {saved['total_steps']}, which it goes on "
            "with: call extend(total_steps) after loading to change it",
        )
