"""The search for a peak as a whole: which of the two kinds it is, how long it may take, and what it found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from glyder import _checks as checks
from glyder.engine.cosine_search import CosineSearch, Found
from glyder.engine.edge_search import OVERFLOW, EdgeSearch
from glyder.engine.schedule import Schedule
from glyder.optimizers.parameter_ref import ParameterRef
from glyder.optimizers.properties import descends
from glyder.vectors.shards import misfit

TOO_HIGH = 10.0
"""What the rate is divided by where a step of the search has led to gradients that are not finite."""

PLACED = ("lengths", "begin", "displacement", "still", "asleep", "longest")
"""Entries of a search's state that are lists of pairs, parameter and value."""

KINDS = {CosineSearch: "by cosines, as Adam's is", EdgeSearch: "by the length of gradients, as SGD's is"}

ENDS = ("found", "no_edge")
"""Reasons with which a search ends."""


class PeakSearch:
    """Finds the peak of a schedule, or holds the one that is given.

    Args:
        optimizers: those that are stepped.
        ratios: of the groups' rates to the reference rate.
        schedule: of the run; its warm-up are the updates of the search, or of the way to a peak that is given.
        updates: of the search, where they are given.
        peak: where it is given.
        model: whose buffers go back with the parameters, if any.

    Attributes:
        now: the search that goes on, or None.
        given: the peak that was given, or None.
        peak: the one that was given or found, before scale and bounds; None until then.
        rate: of the search, before bounds; then the last one of the schedule.
        given_updates: of the search, or None.
        found: updates that it took.
        floor: its last rate, where training goes on from it.
        begun: the update that annealing begins at.
        copies: of the parameters, made so far.
        row: what the last look saw, for the history.
    """

    def __init__(
        self,
        optimizers: Sequence[Optimizer],
        ratios: Sequence[Sequence[float]],
        schedule: Schedule,
        updates: int | None,
        peak: float | None,
        model: nn.Module | None,
    ) -> None:
        self._optimizers, self._ratios, self._model, self._schedule = optimizers, ratios, model, schedule
        self.given_updates, self.given, self.peak = updates, peak, peak
        self.now = self._new() if peak is None else None
        self.begun, self.found, self.copies = schedule.warmup, 0, 0
        self.rate = self.floor = 0.0
        self.row: dict[str, Any] = {}

    def _new(self) -> CosineSearch | EdgeSearch:
        updates = max(self._schedule.warmup, 1)
        if kind_of(self._optimizers) is EdgeSearch:
            return EdgeSearch(self._optimizers, self._ratios, updates, self._model)
        return CosineSearch(self._optimizers, updates)

    def _fit(self, total_steps: int | None) -> None:
        """Give the search the length that it has in a run of so many updates; the way to a given peak stays."""
        if self.given is None:
            self._schedule.warmup = search_updates(self._optimizers, total_steps, self.given_updates)

    def lengthen(self) -> bool:
        """The run has another number of updates now. Whether a search that goes on has fewer than it was given."""
        self._fit(self._schedule.total_steps)
        if self.now is None:
            return False
        self.now.lengthen(max(self._schedule.warmup, 1))
        return self.given_updates is not None and self._schedule.warmup < self.given_updates

    # ---- an update

    def first(self, params: Sequence[Tensor], gg: float) -> float:
        """A rate for the first update, so small that it does no harm."""
        if self.now is None:
            return 0.0
        if not any(p.numel() for p in params):
            raise ValueError(
                "GlyderLR(optimizer=...): all parameters that have gradients are empty, of no elements, so that there "
                "is nothing to train: give the optimizer the parameters of the model, once they have their sizes"
            )
        return self.now.first(params, gg)

    def note(self, found: Found) -> None:
        """Before an update, which moves these."""
        if self.now is not None:
            self.copies += self.now.note(found)

    def made(self, lr: float) -> None:
        """After an update that was made at this reference rate."""
        if self.now is not None:
            self.now.made(lr)

    def forget(self) -> None:
        """An update was begun and not made."""
        if self.now is not None:
            self.now.forget()

    def look(self, found: Found, gg: float, top: float, done: int) -> tuple[bool, str]:
        """With the gradients of the next update: whether parameters were set back, and the reason for what was done.

        Args:
            found: what the update to come will move.
            gg: squared length of its gradients.
            top: the highest rate there is.
            done: updates made so far.
        """
        self.row = {}
        if self.now is None:
            return False, "kept"
        if self.given is not None:  # a state was loaded that was saved in a search
            return self._settle(self.given, done), "given"
        rate, reason = self.now.look(self.rate, found, gg, self._schedule.sum_of_squares(), top)
        self.row = self.now.row
        if reason in ENDS:
            return self._settle(rate, done), reason
        self.rate = rate
        if reason != "restarted":
            return False, reason
        return (self.now.undo() if isinstance(self.now, CosineSearch) else self.now.finish()), reason

    def _settle(self, peak: float, done: int) -> bool:
        """The search is over, and the peak known: whether parameters were set back."""
        assert self.now is not None
        search, self.now = self.now, None
        self.peak, self.found = peak, done
        self.begun = max(done, checks.measurement_phase(self._schedule.total_steps))
        self.floor = 0.0 if isinstance(search, EdgeSearch) else self.rate
        return search.finish()

    def may_be_too_high(self) -> bool:
        """Whether gradients that are not finite can be the rate's doing."""
        return isinstance(self.now, CosineSearch) or (self.now is not None and self.now.may_be_over(self.rate))

    def retreat(self) -> float | None:
        """From a rate that was too high: take the last step back and lower the rate. Where that cannot be, the squared
        length to look with in the place of the gradients'."""
        if isinstance(self.now, EdgeSearch):
            return OVERFLOW
        if self.now is not None and self.now.undo():
            self.rate /= TOO_HIGH
        return None

    @property
    def goes_back(self) -> bool:
        """Whether the search would set parameters back if it ended now."""
        return isinstance(self.now, EdgeSearch) and bool(self.now.begin)

    def close(self) -> None:
        """Give up a search that goes on: parameters go back to where it began, with SGD."""
        if self.now is not None:
            self.now.finish()
            self.now, self.rate = None, 0.0

    def words(self) -> str:
        """What came of it, in words."""
        if self.peak is None:
            return f"the peak {'is being searched' if self.now else 'was being searched when it was closed'}"
        given = self.given is not None or not self.found
        return "as it was given" if given else f"found in the first {self.found} updates"

    # ---- checkpoints

    def state(self) -> dict[str, Any]:
        """Plain values and tensors."""
        search = None if self.now is None else self.now.state()
        return {name: getattr(self, name) for name in _PLAIN} | {"search": search}

    def check(self, state: dict[str, Any]) -> None:
        """Refuse the state of a search of another kind or in other parameters."""
        saved = state["search"]
        if saved is None:
            return
        kind, here = (EdgeSearch if "begin" in saved else CosineSearch), self._new()
        if not isinstance(here, kind):
            names = ", ".join(type(o).__name__ for o in self._optimizers)
            raise ValueError(
                f"load_state_dict: this state was saved in a search {KINDS[kind]}, and that of {names} is "
                f"{KINDS[type(here)]}: load it into optimizers of the kind that saved it, or begin the run anew"
            )
        missing = [key for key in here.state() if key not in saved]
        if missing:
            raise ValueError(f"load_state_dict: the search in this state lacks {missing}: load what state_dict() gave")
        for entry in PLACED:
            for (o, g, i), value in saved.get(entry) or ():
                params, place = self._optimizers[o].param_groups[g]["params"], ParameterRef(o, g, i)
                if i >= len(params):
                    raise ValueError(
                        f"load_state_dict: this state has {place}, and that group has {len(params)}: load it into "
                        "optimizers of the model that saved it"
                    )
                wrong = misfit(value, params[i])
                if wrong is not None:
                    raise ValueError(f"load_state_dict: {place} {wrong}")

    def load(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state`, in a run of ``state["total_steps"]`` updates. A peak that is given stays: a search
        that goes on ends with it in the next update. One that was closed in its search begins another."""
        self._fit(state["total_steps"])
        begun = state["search"] is not None or (state["peak"] is None and self.given is None)
        self.now, self.row = self._new() if begun else None, {}
        if self.now is not None and state["search"] is not None:
            self.now.load(state["search"])
        for name in _PLAIN:
            setattr(self, name, state[name])
        if self.given is not None:
            self.peak = self.given


_PLAIN = ("peak", "found", "floor", "begun", "rate", "copies")
"""What a state holds of a search as it is."""


def kind_of(optimizers: Sequence[Optimizer]) -> type[CosineSearch | EdgeSearch]:
    """The search that these optimizers need."""
    return EdgeSearch if all(descends(o) for o in optimizers) else CosineSearch


def search_updates(optimizers: Sequence[Optimizer], total_steps: int | None, given: int | None = None) -> int:
    """Updates of a search in a run of this length, of which it has at most half: those given, or the share that its
    kind takes, but 8 to the most of it."""
    kind = kind_of(optimizers)
    if total_steps is None:
        return kind.MOST if given is None else given
    if given is not None:
        return min(given, total_steps // 2)
    return min(kind.MOST, max(int(kind.SHARE * total_steps), 8), max(total_steps // 2, 1))
