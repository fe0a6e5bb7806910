"""GlyderLR: finds the peak of a learning-rate schedule while the rate rises, and anneals it.

The numerator of the locally optimal rate (arXiv 2311.13877) is read from the run itself: the gradient of the next
batch along the displacement just made (``csrc/rules/peak.c``).
"""

from __future__ import annotations

import functools
import logging
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.optim import Optimizer

from glyder import _checks as checks
from glyder import _core
from glyder.engine.cosine_search import Search
from glyder.engine.edge_search import OVERFLOW, EdgeSearch
from glyder.engine.history import History
from glyder.engine.missing_updates import PATIENCE
from glyder.engine.schedule import energy
from glyder.engine.scheduler import Scheduler
from glyder.engine.stages import held
from glyder.optimizers.properties import bearable_rate, descends, follows_gradients, natural_rate
from glyder.schedulers.peak_checkpoint import restore, state_of
from glyder.schedulers.peak_words import explain

LOG = logging.getLogger("glyder")

SEARCHED: dict[str, str] = {
    "update": "number of the update whose displacement was met by the next gradient (0-based)",
    "lr": "rate that it was made with",
    "cosine": "mean over tensors of the cosine between the next gradient and the displacement",
    "relative": "||d||/||x||, d the displacement at a rate of 1: the root of the sum over matrices, or of the whole",
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

TOO_HIGH = 10.0
"""What the rate is divided by where a step of the search has led to gradients that are not finite."""

LOST = 20
"""Gradients in a row that are not finite, and neither bad batches nor a GradScaler's factor, which is halved each time.
"""

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

    Args:
        optimizer: any torch optimizer, or a list of optimizers that are stepped together. With several of them and a
            ``GradScaler``, call ``scaler.unscale_`` on each before the first is stepped.
        model: not needed; with SGD its buffers (BatchNorm) are set back with the parameters.
        loss: not needed, and not looked at; here so that it may be given.
        total_steps: updates of the whole run, at least 20. Without it the run has no horizon, and ``anneal`` is
            ``"rsqrt"``.
        anneal: ``"linear"`` (default), ``"cosine"``, ``"polynomial"``, ``"wsd"``, ``"rsqrt"``, ``"constant"`` or None
            (the same), or a pair ``("polynomial", {"power": 2.0})``.
        warmup: updates of the search, up to half of ``total_steps``: with SGD at most, as it ends where the edge is
            met; with other optimizers at least, and up to twice as many where it begins far below the peak. With
            ``peak_lr`` those of a linear warm-up. Default: a tenth of the run, but 8 to 80.
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

    def __init__(
        self,
        optimizer: Optimizer | Sequence[Optimizer],
        model: nn.Module | None = None,
        *,
        total_steps: int | None = None,
        anneal: str | tuple[str, dict[str, float]] | None = "auto",
        warmup: int | None = None,
        scale: float = 1.0,
        min_lr: float = 0.0,
        max_lr: float = math.inf,
        peak_lr: float | None = None,
        loss: Any = None,
        **moved: Any,
    ) -> None:
        number = functools.partial(checks.number, "GlyderLR")
        whole = functools.partial(checks.whole, "GlyderLR")
        for name in moved:
            if name in MOVED:
                raise TypeError(f"GlyderLR({name}=...) is no option any more; what has it now: {MOVED[name]}")
            raise TypeError(f"GlyderLR() got an unexpected keyword argument {name!r}")
        if model is not None and not isinstance(model, nn.Module):
            raise TypeError(
                f"GlyderLR(model=...) must be a torch.nn.Module or None, got {type(model).__name__}; it is not needed: "
                "leave it out"
            )
        self.horizon = None if total_steps is None else whole("total_steps", total_steps, 1)
        self._given_warmup = None if warmup is None else whole("warmup", warmup, 0)
        self.warmup = checks.search(self.horizon) if self._given_warmup is None else self._given_warmup
        if self.horizon is not None and self.warmup > self.horizon:
            raise ValueError(f"GlyderLR(warmup=...) must be <= total_steps={self.horizon}, got {self.warmup}")
        if self.horizon is not None and warmup is not None and peak_lr is None and 2 * self.warmup > self.horizon:
            raise ValueError(
                f"GlyderLR(warmup=...) must be at most half of total_steps={self.horizon} where a peak is searched, "
                f"got {self.warmup}: leave it out, or give a peak_lr that is known"
            )
        self.anneal, self._shape = checks.schedule("GlyderLR", "anneal", anneal, self.horizon, self.warmup)
        self.scale = scale
        low = number("min_lr", min_lr, 0, finite=True)
        top = number("max_lr", max_lr, 0, above=True)
        if low > top:
            raise ValueError(f"GlyderLR(min_lr=...) must be <= max_lr={top:g}, got {low:g}")
        given = None if peak_lr is None else number("peak_lr", peak_lr, 0, above=True, finite=True)
        self._given_peak, self._given_bounds, self._model = given, (low, top), model
        super().__init__(optimizer)
        self._bound()
        self._follows = any(follows_gradients(o) for o in self.optimizers)
        self._stages = {"brake": _core.Rule("brake"), "spike": _core.Rule("spike")}
        if given is None and self.horizon is not None and self.horizon < SHORTEST:
            self._say(
                "short",
                f"GlyderLR(total_steps={self.horizon}) leaves few updates to find a peak in, and fewer to use it: runs "
                f"below {SHORTEST} updates are not tested. Give peak_lr, if a good one is known",
            )
        self._search = None if given is not None else self._new_search(self.warmup)
        self._peak: float | None = given  # before `scale`
        self._found = 0  # updates that the search took
        self._floor = 0.0  # its last rate
        self._begun = self.warmup  # the update that annealing begins at
        self._rate = self._written_rate = 0.0  # of the search and the schedule; with the stages after them
        self._copies = self._lost = 0  # lost: gradients that were not finite, the last in a row
        self._zeros: int | None = 0  # updates with gradients of zero alone, until there are others
        self._history = History(SEARCHED, ("reason",))
        self._reasons: Counter[str] = Counter()
        self._attach()

    @property
    def scale(self) -> float:
        """A factor on the peak that is found. One that is set acts from the next update on."""
        return self._scale

    @scale.setter
    def scale(self, value: float) -> None:
        self._scale = checks.number("GlyderLR", "scale", value, 0, above=True, finite=True)

    def _search_length(self, horizon: int | None) -> int:
        """``warmup`` in a run of this length: a search has at most half of it."""
        if self._given_peak is not None:
            return self.warmup
        if self._given_warmup is None:
            return checks.search(horizon)
        return self._given_warmup if horizon is None else min(self._given_warmup, horizon // 2)

    def _new_search(self, updates: int) -> Search | EdgeSearch:
        updates = max(updates, 1)
        if all(descends(o) for o in self.optimizers):
            return EdgeSearch(self.optimizers, self._ratios, updates, self._model)
        return Search(self.optimizers, updates)

    def _bound(self) -> None:
        low, top = self._given_bounds
        top = min(top, bearable_rate(self.optimizers, self._ratios), *(natural_rate(o) for o in self.optimizers))
        self._bounds = _core.Rule("bounds", min_lr=low, max_lr=max(low, top))

    def _joined(self, key: tuple[int, int]) -> None:
        self._bound()

    # ---- an update

    def _left_out(self) -> None:
        """A GradScaler makes no update of gradients that are not finite."""
        if self._search is not None and not math.isfinite(self._squared_gradient()):
            self._lost += 1
            if self._lost >= LOST:
                self._go_back(self._search)

    def _begin(self) -> float | None:
        needed = self._search is not None or self._follows
        gg = self._squared_gradient() if needed else self._finite_length()
        if not math.isfinite(gg):
            self._reasons["not_finite"] += 1
            self._lost += 1
            if self._search is not None and (self._lost >= LOST or self._too_high(self._search)):
                self._go_back(self._search)
            self._skip_not_finite()
            return None
        self._lost = 0
        self._watch_zeros(gg)
        if self._search is not None and self._look(self._search, gg):
            self._hide_gradients()
            return None
        rate = self._next_rate(gg)
        if self._search is not None:
            self._copies += self._search.note(list(self._with_gradients()))
        return rate

    def _end(self) -> None:
        if self._search is not None:
            self._search.made(self._acting)

    def _abandon(self) -> None:
        if self._search is not None:
            self._search.forget()

    def _before_closure(self) -> float | None:
        """A first rate, as for a gradient of unknown length; later ones were written the update before."""
        if self._rate == 0.0:
            searched = self._search is not None
            self._rate = self._first_rate([p for _, p in self._moved()], 0.0) if searched else self._scheduled()
            return self._rate
        return None

    # ---- the rate

    def _look(self, search: Search | EdgeSearch, gg: float) -> bool:
        """Let the search see the gradients; whether it set parameters back."""
        if self._given_peak is not None:  # a state was loaded that was saved in a search
            return self._settle(search, self._given_peak)
        squares = energy(self.anneal, self.horizon, self.warmup, self._shape)
        top = self._bounds.config["max_lr"]
        rate, reason = search.look(self._rate, list(self._with_gradients()), gg, squares, top)
        self._reasons[reason] += 1
        if search.row:
            self._history.append(
                update=self.updates - 1, lr=self._acting, gradient=gg**0.5, reason=reason, **search.row
            )
        if reason not in ("found", "no_edge"):
            self._rate = rate
            return reason == "restarted" and (search.undo() if isinstance(search, Search) else search.finish())
        return self._settle(search, rate)

    def _settle(self, search: Search | EdgeSearch, rate: float) -> bool:
        """The search is over, and the peak known: whether parameters were set back."""
        self._peak, self._found, self._search = rate, self.updates, None
        self._begun = max(self.updates, checks.window(self.horizon))
        self._floor = 0.0 if isinstance(search, EdgeSearch) else self._rate
        self._stages["brake"].load({**self._stages["brake"].state, "factor": 1.0})
        LOG.info(
            "glyder: peak learning rate %.3g for %s, found in %d of %s updates",
            self.peak_lr, type(self.optimizer).__name__, self.updates, self.horizon or "any number of",
        )  # fmt: skip
        return search.finish()

    def _too_high(self, search: Search | EdgeSearch) -> bool:
        """Whether the rate was: gradients are not finite twice in a row, not those of one bad batch."""
        if self._lost < 2 or self._overflowed():
            return False
        return isinstance(search, Search) or search.may_be_over(self._rate)

    def _go_back(self, search: Search | EdgeSearch) -> None:
        """From a rate that was too high."""
        self._lost = 0
        if isinstance(search, EdgeSearch):
            self._look(search, OVERFLOW)
        elif search.undo():
            self._rate /= TOO_HIGH

    def _watch_zeros(self, gg: float) -> None:
        """Zeros from the beginning on. Later ones may be those of a margin that is kept."""
        if self._zeros is None or gg > 0:
            self._zeros = None
            return
        self._zeros += 1
        if self._zeros == PATIENCE:
            self._say(
                "zeros",
                f"all gradients were zero in the first {PATIENCE} updates: nothing is learned, at any learning rate. "
                "See that the loss hangs on the optimizer's parameters and is not constant in them (a factor of 0, "
                "saturated or dead units, half precision without a GradScaler)",
            )

    def _first_rate(self, params: Sequence[Tensor], gg: float) -> float:
        if self._search is not None and not any(p.numel() for p in params):
            raise ValueError(
                "GlyderLR(optimizer=...): all parameters that have gradients are empty, of no elements, so that there "
                "is nothing to train: give the optimizer the parameters of the model, once they have their sizes"
            )
        return 0.0 if self._search is None else self._bounded(self._search.first(params, gg))

    def _bounded(self, rate: float) -> float:
        bounded, _, reason = self._bounds.update(rate=rate)
        self._reasons[reason] += reason != "kept"
        return bounded

    def _next_rate(self, gg: float) -> float:
        """The search's rate, or the peak within its schedule; then the stages that look at the gradient."""
        if self._search is not None:
            if self._rate == 0.0:
                self._rate = self._first_rate([p for _, p in self._with_gradients()], gg)
            self._rate = self._bounded(self._rate)
            if self.horizon is not None and self.updates >= self.horizon:
                self._say(
                    "over",
                    f"total_steps={self.horizon} updates are done and the peak is still being searched: nothing was "
                    "annealed; give the right total_steps, or call extend(total_steps)",
                )
        else:
            self._rate = self._scheduled()
        self._written_rate = self._rate * self._held_back(gg)
        return self._written_rate

    def _scheduled(self) -> float:
        """The peak times the factor of this update."""
        factor = _core.schedule(self.anneal, self.updates, total=self.horizon, warmup=self._begun, **self._shape)
        if factor == 0:
            self._say_over(self.horizon)
        peak = self._bounded(self.scale * (self._peak or 0.0))
        if self._found <= self.updates < self._begun:  # on from the search's last rate, which training is used to
            return max(peak * factor, min(peak, self._floor))
        return peak * factor

    def _held_back(self, gg: float) -> float:
        """The factor of back-off and spikes, where gradients make the length of a step."""
        if not self._follows:
            return 1.0
        hold = held(self._stages["spike"], self.optimizers, self._ratios)
        if self._search is not None:  # they learn what is usual; the search looks after itself
            self._stages["brake"].update(rate=1.0, gg=gg)
            self._stages["spike"].update(rate=1.0, gg=gg, hold=hold)
            return 1.0
        return self._stage("brake", rate=1.0, gg=gg) * self._stage("spike", rate=1.0, gg=gg, hold=hold)

    def _stage(self, name: str, **seen: float) -> float:
        factor, _, reason = self._stages[name].update(**seen)
        self._reasons[reason] += reason != "kept"
        return factor

    def _finite_length(self) -> float:
        """The squared length of the gradients of the smallest tensors: infinite or NaN where those are. Of all where
        it would be zero."""
        grads = [g for g in self._grads() if g.numel() <= SMALL] or list(self._grads())[:1]
        return self._squared_length(grads) or self._squared_gradient()

    # ---- what the user sees

    @property
    def peak_lr(self) -> float:
        """The peak of the schedule, within its bounds, for the first group; NaN while it is searched."""
        return math.nan if self._peak is None else self._bounds.update(rate=self.scale * self._peak)[0]

    @property
    def history(self) -> np.ndarray:
        """What the search saw: a structured array, one row per measured update; columns in ``glyder.SEARCHED``."""
        return self._history.array()

    @property
    def reasons(self) -> dict[str, int]:
        """How often the search and the stages gave each reason."""
        return {reason: count for reason, count in self._reasons.items() if count}

    @property
    def cost(self) -> tuple[float, int]:
        """Extra work so far: forward passes, of which there are none, and copies of the parameters."""
        return 0.0, self._copies

    def __repr__(self) -> str:
        names = ", ".join(type(o).__name__ for o in self.optimizers)
        of = f" of {self.horizon}" if self.horizon else ""
        state = f"peak {self.peak_lr:.3g}, {self.anneal}"
        if self._peak is None:
            state = "searching the peak" if self._search is not None else "closed in its search"
        return f"GlyderLR({names}, update {self.updates}{of}, lr {self._acting:.3g}, {state})"

    def explain(self) -> str:
        """What was found so far and what it means, in a few sentences."""
        return explain(self)

    def extend(self, total_steps: int) -> None:
        """Change the horizon of the run, from the next update on. A peak that was found stays.

        A search goes on at the length that the new horizon gives it; a ``warmup`` that was given stays, up to half of
        the run.
        """
        self.horizon = checks.whole("GlyderLR.extend", "total_steps", total_steps, 1)
        self._said.discard("over")
        self.warmup = self._search_length(self.horizon)
        if self._search is not None:
            self._search.lengthen(max(self.warmup, 1))
            if self._given_warmup is not None and self.warmup < self._given_warmup:
                self._say(
                    "warmup",
                    f"warmup={self._given_warmup} is more than half of total_steps={self.horizon}: the search has "
                    f"{self.warmup} updates",
                )

    def close(self) -> None:
        """Let go of the optimizers: they keep their present rates. A closed scheduler does nothing more.

        Before SGD's peak is found, the parameters go back to where the search began: its rate may be more than they
        bear.
        """
        super().close()
        if self._search is not None:
            self._search.finish()
            self._search, self._rate = None, 0.0

    def leaves_at(self) -> str:
        if isinstance(self._search, EdgeSearch) and self._search.begin:
            return "where the search of the old one began: it had not ended, and the parameters are set back to there"
        return super().leaves_at()

    # ---- checkpoints

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs to go on to the same bits: plain values and tensors."""
        return state_of(self)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken; model, optimizer and scheduler may be loaded in any order.

        ``scale``, and ``peak_lr`` where one is given, are the constructor's, so that a resumed run can be given
        another; of all options but ``scale`` a difference is said once. The state is copied, not kept.
        """
        restore(self, state_dict)
        self._bound()
