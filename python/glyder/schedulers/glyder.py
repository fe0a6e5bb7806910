"""GlyderLR: finds the peak of a learning-rate schedule while the rate rises, and anneals it.

The numerator of the locally optimal rate (arXiv 2311.13877) is read from the run itself: the gradient of the next
batch along the displacement just made (``csrc/rules/peak.c``).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from glyder import _checks as checks
from glyder.engine.gradient_watch import GradientWatch
from glyder.engine.history import History
from glyder.engine.peak_search import PeakSearch, search_updates
from glyder.engine.schedule import Given, Schedule
from glyder.engine.scheduler import Scheduler
from glyder.engine.stages import Stages, bounds_of
from glyder.optimizers.groups import listed
from glyder.optimizers.properties import bearable_rate, descends, follows_gradients, natural_rate

LOG = logging.getLogger("glyder")

SEARCHED: dict[str, str] = {
    "update": "number of the update whose displacement was met by the next gradient (0-based)",
    "lr": "rate that it was made with",
    "cosine": "mean over tensors of the cosine between the next gradient and the displacement",
    "relative": "||d||/||x||, d the displacement at a rate of 1: the root of the sum over matrices, or of the whole",
    "growth": "||x||/||x_0|| of the matrices, x_0 where the search began; 0 where they had no length, NaN with SGD",
    "gradient": "||g|| of the next update",
    "peak": "the peak, once it is found, before `scale` and bounds",
}
"""Columns of GlyderLR's history, all float64 but ``update``; beside them ``reason``."""

MOVED = {
    **dict.fromkeys(("refresh", "act", "every", "batches", "n_batches", "seed", "estimator", "logits"),
                    "LocalOptimumLR (GLyDER as published)"),
    **dict.fromkeys(("observe_only", "replicas", "scope"), "LocalOptimumLR"),
    "max_growth": "nothing: the search rises at a pace of its own",
}  # fmt: skip
"""Options of the first release, and what has them now."""

SHORTEST = 20
"""Updates of the shortest run that a peak is found in with time to use it."""

USUAL = ("kept", "rising", "found")
"""Reasons that are no news."""

SMALL = 4096
"""Elements of the tensors whose gradients are looked at for infinities and NaN where nothing else needs ||g||."""


class GlyderLR(Scheduler):
    r"""Finds one peak learning rate while the rate rises, then anneals it. For any optimizer, model and loss.

    .. math:: c_t = \mathrm{mean}_i \frac{\langle g_{t+1,i}, \delta_{t,i} \rangle}{\|g_{t+1,i}\| \|\delta_{t,i}\|}

    With optimizers whose steps have a length of their own (Adam and its kin), the rate begins low and follows the sign
    of c_t. While it is low, the gradient of the next batch still points along the displacement
    :math:`\delta_t = x_t - x_{t+1}` just made; where it no longer does, tensor by tensor on the mean, the step was as
    long as the next batch can bear. This zero z (that of the numerator in 2311.13877, Corollary 2.2), drawn towards the
    rate h at which a run of this length walks by the length of its parameters, is the peak (``csrc/rules/peak.c``).

    With optimizers whose steps are as long as gradients make them (SGD), the rate rises until gradients grow threefold.
    Then the parameters are set back to where the search began, in a step that is not counted in :attr:`updates`, and a
    part of that rate, drawn towards h where h is lower, is the peak (``csrc/rules/edge.c``), behind a linear warm-up.

    The peak is annealed, linearly to zero unless told otherwise. Nothing but gradients, parameters and what the
    optimizer did to them is read, at the optimizer's own step hooks: no forward pass, no loss, no hook on the model.
    The starting rate of the optimizer plays no part, only the ratios between its groups do. A group that is added on
    the way, or that rested at ``lr=0`` and is given a rate, has the ratio of that rate to the first one's present rate.
    Parameters may be sharded over ranks (``DTensor``): all ranks then find the same rates.

    Args:
        optimizer: any torch optimizer, or a list of optimizers that are stepped together. With several of them and a
            ``GradScaler``, call ``scaler.unscale_`` on each before the first is stepped.
        model: not needed; with SGD its buffers (BatchNorm) are set back with the parameters.
        loss: not needed, and not looked at; here so that it may be given.
        total_steps: updates of the whole run, at least 20. Without it the run has no end, and ``anneal`` is
            ``"rsqrt"``.
        anneal: ``"linear"`` (default), ``"cosine"``, ``"polynomial"``, ``"wsd"``, ``"rsqrt"``, ``"constant"`` or None
            (the same), or a pair ``("polynomial", {"power": 2.0})``.
        warmup: updates of the search, up to half of ``total_steps``: with SGD at most, as it ends where the edge is
            met; with other optimizers at least, and up to twice as many where it begins far below the peak. With
            ``peak_lr`` those of a linear warm-up. Default: 15 % of the run, but 8 to 120; a tenth with SGD, but 8
            to 80.
        scale: a factor on the peak that is found; may be set on the way.
        min_lr, max_lr: bounds of the peak and of the rates before it, of the first group.
        peak_lr: a peak that is known, from an earlier run perhaps: nothing is searched.

    Raises:
        TypeError, ValueError: on construction, in call form, with the value and the remedy.

    An update is made without gradients where those that are looked at are infinite or not a number: parameters and
    optimizer state stay as they are, it is counted in :attr:`skipped` and not in :attr:`updates`, and said once. All
    are looked at while the peak is searched, and with SGD to the end; with other optimizers those of the smallest
    tensors alone once it is found, so that an update costs next to nothing. Where gradients make the length of a step
    (SGD), one that is far longer than usual makes a shorter one, and gradients that grow on and on lower the rate for
    good.

    Example:
        >>> sched = glyder.GlyderLR(opt, total_steps=len(loader) * epochs)
        >>> for x, y in loader:
        ...     loss_fn(model(x), y).backward()
        ...     opt.step(); sched.step(); opt.zero_grad()

    :formula: ``peak = c z^0.7 h^0.3``: z the rate at which the next gradient no longer points along the step, h that
        at which the run walks by the length of its parameters; with SGD a part of the rate at which gradients grow, to
        the power 0.35, times the lower of that rate and h, to the power 0.65
    :source: 2311.13877, Corollary 2.2 (its numerator); the search and the peak are ours
    :passes: 0
    :memory: 1 while the peak is searched, then 0
    :optimizers: any that follows its rate
    :use: no rate is known, and none is to be tuned
    :avoid: the loss changes its nature on the way: make a new one then
    """

    _SHARDED = True

    def __init__(
        self,
        optimizer: Optimizer | Sequence[Optimizer],
        model: nn.Module | None = None,
        *,
        total_steps: int | None = None,
        anneal: Given = "auto",
        warmup: int | None = None,
        scale: float = 1.0,
        min_lr: float = 0.0,
        max_lr: float = math.inf,
        peak_lr: float | None = None,
        loss: Any = None,
        **moved: Any,
    ) -> None:
        for name in moved:
            if name in MOVED:
                raise TypeError(f"GlyderLR({name}=...) is no option any more; what has it now: {MOVED[name]}")
            raise TypeError(f"GlyderLR() got an unexpected keyword argument {name!r}")
        if model is not None and not isinstance(model, nn.Module):
            raise TypeError(
                f"GlyderLR(model=...) must be a torch.nn.Module or None, got {type(model).__name__}; it is not needed: "
                "leave it out"
            )
        total = None if total_steps is None else checks.whole("GlyderLR", "total_steps", total_steps, 1)
        updates = (
            search_updates(listed(optimizer), total)
            if warmup is None
            else checks.whole("GlyderLR", "warmup", warmup, 0)
        )
        if total is not None and updates > total:
            raise ValueError(f"GlyderLR(warmup=...) must be <= total_steps={total}, got {updates}")
        if total is not None and warmup is not None and peak_lr is None and 2 * updates > total:
            raise ValueError(
                f"GlyderLR(warmup=...) must be at most half of total_steps={total} where a peak is searched, "
                f"got {updates}: leave it out, or give a peak_lr that is known"
            )
        schedule = Schedule("GlyderLR", anneal, total, updates)
        self.scale = scale
        self._given_bounds = bounds_of("GlyderLR", min_lr, max_lr)
        if peak_lr is not None:
            peak_lr = checks.number("GlyderLR", "peak_lr", peak_lr, 0, above=True, finite=True)
        super().__init__(optimizer, schedule, History(SEARCHED, ("reason",)))
        self._stages = Stages(self._reasons, self._given_bounds)
        self._bound()
        self._follows = any(follows_gradients(o) for o in self.optimizers)
        if peak_lr is None and total is not None and total < SHORTEST:
            self._say(
                "short",
                f"GlyderLR(total_steps={total}) leaves few updates to find a peak in, and fewer to use it: runs "
                f"below {SHORTEST} updates are not tested. Give peak_lr, if a good one is known",
            )
        updates_given = None if warmup is None else updates
        self.search = PeakSearch(self.optimizers, self.rates.ratios, schedule, updates_given, peak_lr, model)
        self._watch = GradientWatch()
        self._attach()

    @property
    def scale(self) -> float:
        """A factor on the peak that is found. One that is set acts from the next update on."""
        return self._scale

    @scale.setter
    def scale(self, value: float) -> None:
        self._scale = checks.number("GlyderLR", "scale", value, 0, above=True, finite=True)

    def _bound(self) -> None:
        """The bounds that were given, within what the optimizers bear."""
        low, top = self._given_bounds
        top = min(top, bearable_rate(self.optimizers, self.rates.ratios), *(natural_rate(o) for o in self.optimizers))
        self._stages.bounds = low, max(low, top)

    def _joined(self, key: tuple[int, int]) -> None:
        self._bound()

    # ---- an update

    def _left_out(self) -> None:
        """A GradScaler makes no update of gradients that are not finite."""
        if self.search.now is not None:
            gg = self._squared_gradient()
            if not math.isfinite(gg) and not self._watch.sees(gg) and self._watch.is_lost:
                self._go_back()

    def _begin(self) -> float | None:
        gg = self._squared_gradient() if self.search.now is not None or self._follows else self._finite_length()
        if not self._watch.sees(gg):
            self._reasons["not_finite"] += 1
            if self.search.now is not None and (self._watch.is_lost or self._too_high()):
                self._go_back()
            self._skip_not_finite()
            return None
        message = self._watch.message()
        if message is not None:
            self._say("zeros", message)
        if self.search.now is not None and self._look(gg):
            self._hide_gradients()
            return None
        rate = self._next_rate(gg)
        self.search.note(list(self._with_gradients()) if self.search.now is not None else ())
        return rate

    def _end(self) -> None:
        self.search.made(self.rates.acting)

    def _abandon(self) -> None:
        self.search.forget()

    def _before_closure(self) -> float | None:
        """A first rate, as for a gradient of unknown length; later ones were written the update before."""
        if self.search.rate != 0.0:
            return None
        searched = self.search.now is not None
        self.search.rate = self._first_rate([p for _, p in self._moved()], 0.0) if searched else self._scheduled()
        return self.search.rate

    # ---- the search

    def _look(self, gg: float) -> bool:
        """Let the search see the gradients; whether it set parameters back."""
        back, reason = self.search.look(list(self._with_gradients()), gg, self._stages.bounds[1], self.updates)
        if self.search.given is None:
            self._reasons[reason] += 1
        if self.search.row:
            seen = {"update": self.updates - 1, "lr": self.rates.acting, "gradient": gg**0.5}
            self._history.append(**seen, reason=reason, **self.search.row)
        if self.search.now is None:
            self._stages.release()
            LOG.info(
                "glyder: peak learning rate %.3g for %s, found in %d of %s updates",
                self.peak_lr, type(self.optimizer).__name__, self.updates, self.schedule.total_steps or "any number of",
            )  # fmt: skip
        return back

    def _too_high(self) -> bool:
        """Whether the rate was: gradients are not finite twice in a row, not those of one bad batch."""
        return self._watch.lost >= 2 and not self._overflowed() and self.search.may_be_too_high()

    def _go_back(self) -> None:
        """From a rate that was too high."""
        self._watch.lost = 0
        instead = self.search.retreat()
        if instead is not None:
            self._look(instead)

    # ---- the rate

    def _first_rate(self, params: Sequence[Any], gg: float) -> float:
        return self._stages.bounded(self.search.first(params, gg))

    def _next_rate(self, gg: float) -> float:
        """The search's rate, or the peak within its schedule; then the stages that look at the gradient."""
        if self.search.now is None:
            self.search.rate = self._scheduled()
            return self.search.rate * self._held_back(gg)
        if self.search.rate == 0.0:
            self.search.rate = self._first_rate([p for _, p in self._with_gradients()], gg)
        self.search.rate = self._stages.bounded(self.search.rate)
        if self.updates >= self.total_steps:
            self._say(
                "over",
                f"total_steps={self.total_steps} updates are done and the peak is still being searched: nothing was "
                "annealed; give the right total_steps, or call extend(total_steps)",
            )
        if self._follows:  # they learn what is usual; the search looks after itself
            self._stages.learn(gg, self.optimizers, self.rates.ratios)
        return self.search.rate

    def _scheduled(self) -> float:
        """The peak times the factor of this update."""
        search, factor = self.search, self._factor(self.search.begun)
        peak = self._stages.bounded(self.scale * (search.peak or 0.0))
        if search.found <= self.updates < search.begun:  # on from the search's last rate, which training is used to
            return max(peak * factor, min(peak, search.floor))
        return peak * factor

    def _held_back(self, gg: float) -> float:
        """The factor of back-off and spikes, where gradients make the length of a step."""
        if not self._follows:
            return 1.0
        return self._stages.back_off(gg) * self._stages.spike(gg, self.optimizers, self.rates.ratios)

    def _finite_length(self) -> float:
        """The squared length of the gradients of the smallest tensors: infinite or NaN where those are. Of all where
        it would be zero. With sharded parameters it is one collective of a few numbers, which all ranks decide by."""
        grads = [g for g in self._grads() if g.numel() <= SMALL] or list(self._grads())[:1]
        return self._squared_length(grads) or self._squared_gradient()

    # ---- what the user sees

    @property
    def peak_lr(self) -> float:
        """The peak of the schedule, within its bounds, for the first group; NaN while it is searched."""
        peak = self.search.peak
        return math.nan if peak is None else self._stages.within_bounds(self.scale * peak)

    @property
    def cost(self) -> tuple[float, int]:
        """Extra work so far: forward passes, of which there are none, and copies of the parameters."""
        return 0.0, self.search.copies

    def __repr__(self) -> str:
        names = ", ".join(type(o).__name__ for o in self.optimizers)
        of = f" of {self.total_steps}" if self.schedule.total_steps else ""
        state = f"peak {self.peak_lr:.3g}, {self.anneal}"
        if self.search.peak is None:
            state = "searching the peak" if self.search.now is not None else "closed in its search"
        return f"GlyderLR({names}, update {self.updates}{of}, lr {self.rates.acting:.3g}, {state})"

    def explain(self) -> str:
        """What was found so far and what it means, in a few sentences."""
        rates = ", ".join(f"{float(rate):.3g}" for rate in self.get_last_lr())
        words, found = self.search.words(), self.search.found
        if self.search.peak is None:
            now = f", the learning rate is now {rates}" if self.updates else ""
            lines = [f"{self.updates} updates made; {words}{now}."]
        else:
            lines = [
                f"{self.updates} updates made. Peak learning rate {self.peak_lr:.3g}, {words}; with {self.anneal} "
                f"annealing now {rates}."
            ]
        if found and all(descends(o) for o in self.optimizers):
            back = 1 + self.reasons.get("restarted", 0)
            steps = (
                "in a step that is no update" if back == 1 else f"for the last time; this took {back} steps, no updates"
            )
            lines.append(
                f"The parameters were set back to where the search began after {found} updates, {steps}: a loop "
                f"of total_steps steps makes {back} less."
            )
        unusual = [f"{reason} {count} times" for reason, count in self.reasons.items() if reason not in USUAL]
        if unusual:
            lines.append(f"Also: {', '.join(unusual)}.")
        if self.skipped:
            lines.append(f"{self.skipped} updates were skipped because their gradient was not finite.")
        return "\n".join(lines)

    def extend(self, total_steps: int) -> None:
        """Change the number of updates of the run, from the next update on. A peak that was found stays.

        A search goes on at the length that this gives it; a ``warmup`` that was given stays, up to half of the run.
        """
        super().extend(total_steps)
        if self.search.lengthen():
            self._say(
                "warmup",
                f"warmup={self.search.given_updates} is more than half of total_steps={total_steps}: the search has "
                f"{self.warmup} updates",
            )

    def close(self) -> None:
        """Let go of the optimizers: they keep their present rates. A closed scheduler does nothing more.

        Before SGD's peak is found, the parameters go back to where the search began: its rate may be more than they
        bear.
        """
        super().close()
        self.search.close()

    def leaves_at(self) -> str:
        if self.search.goes_back:
            return "where the search of the old one began: it had not ended, and the parameters are set back to there"
        return super().leaves_at()

    # ---- checkpoints

    def _options(self) -> dict[str, Any]:
        low, top = self._stages.bounds
        given = {} if self.search.given is None else {"peak_lr": self.search.given}
        return self.schedule.config | {"warmup": self.search.given_updates, "min_lr": low, "max_lr": top} | given

    def _tell_differences(self, saved: dict[str, Any]) -> None:
        """A peak that is given is told beside the one that was found."""
        super()._tell_differences(saved | {"config": saved["config"] | {"peak_lr": saved["peak"]}})

    def _state(self) -> dict[str, Any]:
        return {**self.search.state(), **self._watch.state(), "stages": self._stages.state()}

    def _check(self, saved: dict[str, Any]) -> None:
        self.search.check(saved)

    def _load(self, saved: dict[str, Any]) -> None:
        """``scale``, and ``peak_lr`` where one is given, are the constructor's, so that a resumed run can be given
        another; of all options but ``scale`` a difference is said once."""
        self._stages.load(saved["stages"])
        self.search.load(saved)
        self._watch.load(saved)

    def _loaded(self) -> None:
        self._bound()
