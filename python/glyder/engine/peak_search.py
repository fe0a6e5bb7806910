"""The search for a peak as a whole: which of the two kinds it is, how long it may take, and what it found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from glyder import _checks as checks
from glyder.engine.cosine_search import CosineSearch, Found
from glyder.engine.edge_search import OVERFLOW, EdgeSearch
from glyder.optimizers.parameter_ref import ParameterRef
from glyder.optimizers.properties import descends

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
        total_steps: updates of the run; None where it has no end.
        warmup: updates of the search, where they are given.
        peak: where it is given.
        model: whose buffers go back with the parameters, if any.

    Attributes:
        now: the search that goes on, or None.
        given: the peak that was given, or None.
        peak: the one that was given or found, before scale and bounds; None until then.
        rate: of the search, before bounds; then the last one of the schedule.
        updates: that the search may take; with a given peak those of the warm-up.
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
        total_steps: int | None,
        warmup: int | None,
        peak: float | None,
        model: nn.Module | None,
    ) -> None:
        self._optimizers, self._ratios, self._model = optimizers, ratios, model
        self.given_updates, self.given, self.peak = warmup, peak, peak
        self.updates = search_updates(total_steps, warmup, peak)
        self.now = None if peak is not None else self._new(self.updates)
        self.begun, self.found, self.copies = self.updates, 0, 0
        self.rate = self.floor = 0.0
        self.row: dict[str, Any] = {}

    def _new(self, updates: int) -> CosineSearch | EdgeSearch:
        updates = max(updates, 1)
        if all(descends(o) for o in self._optimizers):
            return EdgeSearch(self._optimizers, self._ratios, updates, self._model)
        return CosineSearch(self._optimizers, updates)

    def _updates(self, total_steps: int | None) -> int:
        """Of the search in a run of this length; the warm-up to a peak that is given stays as it is."""
        return self.updates if self.given is not None else search_updates(total_steps, self.given_updates, None)

    def lengthen(self, total_steps: int) -> bool:
        """The run has so many updates now. Whether a search that goes on has fewer than it was given."""
        self.updates = self._updates(total_steps)
        if self.now is None:
            return False
        self.now.lengthen(max(self.updates, 1))
        return self.given_updates is not None and self.updates < self.given_updates

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

    def look(
        self, found: Found, gg: float, squares: float, top: float, done: int, total_steps: int | None
    ) -> tuple[bool, str]:
        """With the gradients of the next update: whether parameters were set back, and the reason for what was done.

        Args:
            found: what the update to come will move.
            gg: squared length of its gradients.
            squares: sum of the squared schedule factors over the run.
            top: the highest rate there is.
            done: updates made so far.
            total_steps: of the run.
        """
        self.row = {}
        if self.now is None:
            return False, "kept"
        if self.given is not None:  # a state was loaded that was saved in a search
            return self._settle(self.given, done, total_steps), "given"
        rate, reason = self.now.look(self.rate, found, gg, squares, top)
        self.row = self.now.row
        if reason in ENDS:
            return self._settle(rate, done, total_steps), reason
        self.rate = rate
        if reason != "restarted":
            return False, reason
        return (self.now.undo() if isinstance(self.now, CosineSearch) else self.now.finish()), reason

    def _settle(self, peak: float, done: int, total_steps: int | None) -> bool:
        """The search is over, and the peak known: whether parameters were set back."""
        assert self.now is not None
        search, self.now = self.now, None
        self.peak, self.found = peak, done
        self.begun = max(done, checks.measurement_phase(total_steps))
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
        names = ("peak", "found", "floor", "begun", "rate", "copies")
        return {name: getattr(self, name) for name in names} | {
            "search": None if self.now is None else self.now.state()
        }

    def check(self, state: dict[str, Any]) -> None:
        """Refuse the state of a search of another kind or in other parameters."""
        saved = state["search"]
        if saved is None:
            return
        kind, here = (EdgeSearch if "begin" in saved else CosineSearch), self._new(1)
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

    def load(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state`, in a run of ``state["total_steps"]`` updates. A peak that is given stays: a search
        that goes on ends with it in the next update. One that was closed in its search begins another."""
        updates = self._updates(state["total_steps"])
        search = None
        if state["search"] is not None:
            search = self._new(updates)
            search.load(state["search"])
        elif state["peak"] is None and self.given is None:
            search = self._new(updates)
        self.updates, self.now, self.row = updates, search, {}
        for name in ("peak", "found", "floor", "begun", "rate", "copies"):
            setattr(self, name, state[name])
        self.peak = state["peak"] if self.given is None else self.given


def search_updates(total_steps: int | None, given: int | None, peak: float | None) -> int:
    """Updates of a search in a run of this length, of which it has at most half; with a peak, of the warm-up."""
    if given is None:
        return checks.search(total_steps)
    return given if total_steps is None or peak is not None else min(given, total_steps // 2)
