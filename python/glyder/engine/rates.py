"""The rates of optimizers' groups, each a ratio times one reference rate, and the only place where they are written."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from glyder.optimizers.groups import (
    Ratios,
    check_apart,
    check_ratios,
    fits,
    reference_of,
    split,
    starting_rates,
    take_in,
)

Say = Callable[[str, str], None]
"""Tell the user something, once for each key."""


class Rates:
    """Reads and writes the rates of the groups of some optimizers.

    Args:
        optimizers: whose groups.
        scheduler: the class to name in errors.
        observe_only: the rates are their owner's; nothing is written.
        say: for what the user should know.

    Attributes:
        reference: rate of the first group at the start, which the ratios refer to.
        ratios: by optimizer and group. 0: the group is at rest. Changed in place, so that others may hold it.
        acting: the reference rate that the latest update was made with.
        last: the rates of that update, one for each group.
        starting: the groups' rates at the start, as torch's schedulers keep them.

    Raises:
        ValueError: rates that cannot be scheduled, or a parameter that two optimizers would move.
    """

    def __init__(self, optimizers: Sequence[Optimizer], scheduler: str, observe_only: bool, say: Say) -> None:
        self._optimizers, self._scheduler, self._observe_only, self._say = optimizers, scheduler, observe_only, say
        if not observe_only:
            check_apart(optimizers, scheduler)
        rates = starting_rates(optimizers, scheduler, observe_only)
        self.reference = reference_of(rates)
        self.ratios: Ratios = [[rate / self.reference for rate in of] for of in rates]
        if not observe_only:
            check_ratios(self.ratios, rates, self.reference)
        self.acting = 0.0
        self.last = self._none_yet()
        self.starting = [group.get("initial_lr", rate) for group, rate in zip(self._groups(), self.now(), strict=True)]
        self._written = 0.0  # as a reference rate
        self._written_values: list[float | None] = []
        self._written_ratios: Ratios = [[] for _ in optimizers]

    def _groups(self) -> Iterator[dict[str, Any]]:
        return (group for o in self._optimizers for group in o.param_groups)

    # ---- reading

    def now(self) -> list[float | Tensor]:
        """The rates of the groups; tensors are copies."""
        rates = (group["lr"] for group in self._groups())
        return [rate.clone() if isinstance(rate, Tensor) else rate for rate in rates]

    def of(self, optimizer: int, group: int) -> float:
        """The rate of one group."""
        return float(self._optimizers[optimizer].param_groups[group]["lr"])

    def read(self) -> float:
        """The reference rate as the optimizer will read it (a tensor rate may have rounded it)."""
        for ratios, optimizer in zip(self.ratios, self._optimizers, strict=True):
            for ratio, group in zip(ratios, optimizer.param_groups, strict=False):
                rate = float(group["lr"])
                if self._observe_only and rate > 0:
                    return rate
                if ratio > 0 and not self._observe_only:
                    return rate / ratio
        return 0.0

    def note(self, read: tuple[float, list[float | Tensor]] | None = None) -> None:
        """The rates as they are now, or what was ``read`` of them before, are those of the latest update."""
        self.acting, self.last = read or (self.read(), self.now())

    def step_was_made(self, *, at_rest: bool) -> None:
        """The step was made anew, at the rates as they are now, or taken back."""
        self.last = [rate * 0 for rate in self.now()] if at_rest else self.now()

    def _none_yet(self) -> list[float | Tensor]:
        """Before the first update there are none, but for what is only observed, which has its owner's."""
        return self.now() if self._observe_only else [rate * 0 for rate in self.now()]

    # ---- writing

    def write(self, rate: float) -> None:
        """Give every group its ratio of ``rate``. Rates that would overflow stay as they are, which is said once."""
        if not self._observe_only:
            self._write(rate, self.ratios)

    def _write(self, rate: float, by: Ratios) -> None:
        groups = list(self._groups())
        values = [rate * ratio for ratios in by for ratio in ratios]
        if not all(fits(value, group["lr"]) for value, group in zip(values, groups, strict=True)):
            self._say("overflow", f"a learning rate would overflow ({max(values)}): all stay as they were (said once)")
            return
        now = [group["lr"] for group in groups]
        if any(w is not None and w != lr for w, lr in zip(self._written_values, now, strict=False)):
            self._say(
                "foreign",
                f"something else changed the learning rate between two updates; {self._scheduler} sets it by "
                "itself and overrides that: remove the other scheduler, or close() this one (said once)",
            )
        for value, group in zip(values, groups, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(value)
            else:
                group["lr"] = value
        self._written_values = [None if isinstance(group["lr"], Tensor) else group["lr"] for group in groups]
        self._written, self._written_ratios = rate, [list(ratios) for ratios in by]

    # ---- groups

    def own(self) -> None:
        """``initial_lr`` as torch's schedulers leave it; a tensor rate that groups share becomes one for each."""
        seen: set[int] = set()
        for group in self._groups():
            rate = group["lr"]
            group.setdefault("initial_lr", rate.clone() if isinstance(rate, Tensor) else rate)
            if isinstance(rate, Tensor):
                if id(rate) in seen:
                    group["lr"] = rate.clone()
                seen.add(id(rate))

    def take_in_groups(self) -> list[tuple[int, int]]:
        """Give a ratio to groups that were added to an optimizer, and to those at rest that were given a rate.

        Returns which they are, by optimizer and index.
        """
        new = take_in(self._optimizers, self.ratios, self.reference, freed=not self._observe_only)
        if not new:
            return new
        self._written_values = []  # of other places, or of a rate that was the user's to change
        for o, g in new:
            if g < len(self._written_ratios[o]):
                self._written_ratios[o][g] = self.ratios[o][g]
        if not self._observe_only:
            self.own()
            for o, g in new:  # a scheduler after this one begins where this one would have begun
                self._optimizers[o].param_groups[g]["initial_lr"] = self.reference * self.ratios[o][g]
        self.starting = [group.get("initial_lr", float(group["lr"])) for group in self._groups()]
        return new

    def split_groups(self) -> None:
        """A group for each parameter, in place; rates, options and ratios stay what they are."""
        split(self._optimizers, self.ratios, self._scheduler)
        self._written_ratios = [[] for _ in self._optimizers]
        self.last = self._none_yet()
        self.starting = [float(rate) for rate in self.now()]

    # ---- checkpoints

    def state(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "reference": self.reference,
            "ratios": copy.deepcopy(self.ratios),
            "written": self._written,
            "written_ratios": copy.deepcopy(self._written_ratios),
            "acting": self.acting,
        }

    def load(self, state: dict[str, Any], updates: int) -> None:
        """Inverse of :meth:`state`; after ``updates`` updates. Writes what was written last, by the ratios of then: a
        measurement since may have changed them."""
        self.reference, self.acting = state["reference"], state["acting"]
        for ours, theirs in zip(self.ratios, state["ratios"], strict=True):
            ours[:] = theirs
        self._written, self._written_ratios = state["written"], state["written_ratios"]
        self._written_values, self.last = [], self._none_yet()
        if self._observe_only or not updates:
            return
        self._write(self._written, [w + r[len(w) :] for w, r in zip(self._written_ratios, self.ratios, strict=True)])
        self.last = self.now()
        self._written_values = []  # an optimizer that is loaded after this has what its owner gave a group since
