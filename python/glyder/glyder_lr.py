"""GlyderLR: finds the peak of a learning-rate schedule while the rate rises, and anneals it.

The numerator of the locally optimal rate (arXiv 2311.13877) is read from the run itself: the gradient of the next
batch along the displacement just made (``csrc/rules/peak.c``).
"""

from __future__ import annotations

import copy
import functools
import logging
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.optim import Optimizer

from glyder import _core, options
from glyder.annealing import energy
from glyder.base import STATE_VERSION, Scheduler
from glyder.edge import OVERFLOW, EdgeSearch
from glyder.history import History
from glyder.recipe import held
from glyder.search import Search
from glyder.support import descends, follows_gradients, natural_rate

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
    Then the parameters are set back to where the search began, and a part of that rate, drawn towards h as well, is
    the peak (``csrc/rules/edge.c``), behind a linear warm-up.

    The peak is annealed, linearly to zero unless told otherwise. Nothing but gradients, parameters and what the
    optimizer did to them is read, at the optimizer's own step hooks: no forward pass, no loss, no hook on the model.
    The starting rate of the optimizer plays no part, only the ratios between its groups do. A group that is added on
    the way, or that rested at ``lr=0`` and is given a rate, has the ratio of that rate to the first one's present rate.

    Args:
        optimizer: any torch optimizer, or a list of optimizers that are stepped together. With several of them and a
            ``GradScaler``, call ``scaler.unscale_`` on each before the first is stepped.
        model, loss: not needed, and not looked at; here so that they may be given.
        total_steps: updates of the whole run, at least 20. Without it the run has no horizon, and ``anneal`` is
            ``"rsqrt"``.
        anneal: ``"linear"`` (default), ``"cosine"``, ``"polynomial"``, ``"wsd"``, ``"rsqrt"``, ``"constant"`` or None
            (the same), or a pair ``("polynomial", {"power": 2.0})``.
        warmup: updates of the search, at most (with SGD it ends where the edge is met); with ``peak_lr`` those of a
            linear warm-up. Default: a tenth of the run, but 8 to 80.
        scale: a factor on the peak that is found.
        min_lr, max_lr: bounds of the peak and of the rates before it, of the first group.
        peak_lr: a peak that is known, from an earlier run perhaps: nothing is searched.

    Raises:
        TypeError, ValueError: on construction, in call form, with the value and the remedy.

    An update whose gradients are infinite or not a number is made without gradients: parameters and optimizer state
    stay as they are, it is counted in :attr:`skipped` and not in :attr:`updates`, and said once. Where gradients make
    the length of a step (SGD), one that is far longer than usual makes a shorter one, and gradients that grow on and
    on lower the rate for good. With other optimizers the gradients of the smallest tensors alone are looked at once the
    peak is found, so that an update costs next to nothing.

    Example:
        >>> sched = glyder.GlyderLR(opt, total_steps=len(loader) * epochs)
        >>> for x, y in loader:
        ...     loss_fn(model(x), y).backward()
        ...     opt.step(); sched.step(); opt.zero_grad()

    :formula: ``peak = c z^0.6 h^0.4``: z the rate at which the next gradient no longer points along the step (SGD: at
        which gradients grow), h that at which the run walks by the length of its parameters
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
        number = functools.partial(options.number, "GlyderLR")
        whole = functools.partial(options.whole, "GlyderLR")
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
        self.warmup = options.search(self.horizon) if warmup is None else whole("warmup", warmup, 0)
        if self.horizon is not None and self.warmup > self.horizon:
            raise ValueError(f"GlyderLR(warmup=...) must be <= total_steps={self.horizon}, got {self.warmup}")
        self.anneal, self._shape = options.schedule("GlyderLR", "anneal", anneal, self.horizon, self.warmup)
        self.scale = number("scale", scale, 0, above=True, finite=True)
        low = number("min_lr", min_lr, 0, finite=True)
        top = number("max_lr", max_lr, 0, above=True)
        if low > top:
            raise ValueError(f"GlyderLR(min_lr=...) must be <= max_lr={top:g}, got {low:g}")
        given = None if peak_lr is None else number("peak_lr", peak_lr, 0, above=True, finite=True)
        super().__init__(optimizer)
        top = max(low, min(top, *(natural_rate(o) for o in self.optimizers)))
        self._bounds = _core.Rule("bounds", min_lr=low, max_lr=top)
        self._follows = any(follows_gradients(o) for o in self.optimizers)
        self._stages = {"brake": _core.Rule("brake"), "spike": _core.Rule("spike")}
        if given is None and self.horizon is not None and self.horizon < SHORTEST:
            self._say(
                "short",
                f"GlyderLR(total_steps={self.horizon}) leaves few updates to find a peak in, and fewer to use it: runs "
                f"below {SHORTEST} updates are not tested. Give peak_lr, if a good one is known",
            )
        self._search = None if given is not None else self._new_search()
        self._peak: float | None = given  # before `scale`
        self._found = 0  # updates that the search took
        self._floor = 0.0  # its last rate
        self._begun = self.warmup  # the update that annealing begins at
        self._rate = self._written_rate = 0.0  # of the search and the schedule; with the stages after them
        self._copies = self._lost = 0  # lost: gradients that were not finite, the last in a row
        self._history = History(SEARCHED, ("reason",))
        self._reasons: Counter[str] = Counter()
        self._attach()

    def _new_search(self) -> Search | EdgeSearch:
        updates = max(self.warmup, 1)
        if all(descends(o) for o in self.optimizers):
            return EdgeSearch(self.optimizers, self._ratios, updates)
        return Search(self.optimizers, updates)

    # ---- an update

    def _begin(self) -> float | None:
        needed = self._search is not None or self._follows
        gg = self._squared_gradient() if needed else self._finite_length()
        if not math.isfinite(gg):
            self._reasons["not_finite"] += 1
            self._lost += 1
            if self._search is not None and self._lost > 1 and not self._overflowed():
                self._go_back(self._search)
            self._skip_not_finite()
            return None
        self._lost = 0
        if self._search is not None and self._look(self._search, gg):
            self._hide_gradients()
            return None
        rate = self._next_rate(gg)
        if self._search is not None:
            self._search.note(list(self._with_gradients()))
            self._copies += 1
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
        """Let the search see the gradients; where it ends with the peak, whether parameters were set back."""
        squares = energy(self.anneal, self.horizon, self.warmup, self._shape)
        rate, reason = search.look(self._rate, list(self._with_gradients()), gg, squares)
        self._reasons[reason] += 1
        if search.row:
            self._history.append(
                update=self.updates - 1, lr=self._acting, gradient=gg**0.5, reason=reason, **search.row
            )
        if reason not in ("found", "no_edge"):
            self._rate = rate
            return False
        self._peak, self._found, self._search = rate, self.updates, None
        self._begun = max(self.updates, options.window(self.horizon))
        self._floor = 0.0 if isinstance(search, EdgeSearch) else self._rate
        self._stages["brake"].load({**self._stages["brake"].state, "factor": 1.0})
        LOG.info(
            "glyder: peak learning rate %.3g for %s, found in %d of %s updates",
            self.peak_lr, type(self.optimizer).__name__, self.updates, self.horizon or "any number of",
        )  # fmt: skip
        return search.finish()

    def _go_back(self, search: Search | EdgeSearch) -> None:
        """Gradients are not finite twice in a row: not one bad batch, but a rate that was too high."""
        if isinstance(search, EdgeSearch):
            self._look(search, OVERFLOW)
        elif search.undo():
            self._rate /= TOO_HIGH

    def _first_rate(self, params: Sequence[Tensor], gg: float) -> float:
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
        """The squared length of the gradients of the smallest tensors: infinite or NaN where those are."""
        grads = [g for g in self._grads() if g.numel() <= SMALL] or list(self._grads())[:1]
        return self._squared_length(grads)

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
        state = "searching the peak" if self._search is not None else f"peak {self.peak_lr:.3g}, {self.anneal}"
        return f"GlyderLR({names}, update {self.updates}{of}, lr {self._acting:.3g}, {state})"

    def explain(self) -> str:
        """What was found so far and what it means, in a few sentences."""
        rates = ", ".join(f"{float(rate):.3g}" for rate in self.get_last_lr())
        if self._search is not None:
            now = f", the learning rate is now {rates}" if self.updates else ""
            lines = [f"{self.updates} updates made; the peak is being searched{now}."]
        else:
            found = f"found in the first {self._found} updates" if len(self._history) else "as it was given"
            lines = [
                f"{self.updates} updates made. Peak learning rate {self.peak_lr:.3g}, {found}; with {self.anneal} "
                f"annealing now {rates}."
            ]
        usual = ("kept", "rising", "found")
        unusual = [f"{reason} {count} times" for reason, count in self.reasons.items() if reason not in usual]
        if unusual:
            lines.append(f"Also: {', '.join(unusual)}.")
        if self.skipped:
            lines.append(f"{self.skipped} updates were skipped because their gradient was not finite.")
        return "\n".join(lines)

    def extend(self, total_steps: int) -> None:
        """Change the horizon of the run, from the next update on. A peak that was found stays."""
        self.horizon = options.whole("GlyderLR.extend", "total_steps", total_steps, 1)
        self._said.discard("over")

    # ---- checkpoints

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs to go on to the same bits: plain values and tensors."""
        self._take_in_groups()
        return {
            "version": STATE_VERSION,
            "scheduler": "GlyderLR",
            "updates": self.updates,
            "skipped": self.skipped,
            "reference": self._reference,
            "ratios": copy.deepcopy(self._ratios),
            "written_ratios": copy.deepcopy(self._written_ratios),
            "total_steps": self.horizon,
            "config": self._options(),
            "peak": self._peak,
            "found": self._found,
            "floor": self._floor,
            "begun": self._begun,
            "rate": self._rate,
            "written_rate": self._written_rate,
            "acting": self._acting,
            "stages": {name: rule.state for name, rule in self._stages.items()},
            "search": None if self._search is None else self._search.state(),
            "copies": self._copies,
            "lost": self._lost,
            "said": sorted(self._said),
            "reasons": dict(self._reasons),
            "history": self._history.state(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken; model, optimizer and scheduler may be loaded in any order.

        ``scale`` is the constructor's, so that a resumed run can be given another; of the other options a difference is
        said once. The state is copied, not kept.
        """
        saved = copy.deepcopy(state_dict)
        self._check_state(saved, "GlyderLR")
        self._tell_differences(saved)
        self.horizon = saved["total_steps"]
        self._count(saved["updates"])
        self.skipped = saved["skipped"]
        self._reference, self._ratios, self._written_ratios = (
            saved[key] for key in ("reference", "ratios", "written_ratios")
        )
        self._peak, self._found, self._begun = saved["peak"], saved["found"], saved["begun"]
        self._floor, self._copies, self._lost = saved["floor"], saved["copies"], saved["lost"]
        self._rate, self._written_rate, self._acting = saved["rate"], saved["written_rate"], saved["acting"]
        for name, rule in self._stages.items():
            rule.load(saved["stages"][name])
        if saved["search"] is None:
            self._search = None
        else:
            self._search = self._new_search()
            self._search.load(saved["search"])
        self._said, self._reasons = set(saved["said"]), Counter(saved["reasons"])
        self._history.load(saved["history"])
        self._write_again(self._written_rate)

    def _options(self) -> dict[str, Any]:
        return {"anneal": self.anneal, **self._shape, "warmup": self.warmup, **self._bounds.config}

    def _tell_differences(self, saved: dict[str, Any]) -> None:
        differing = [
            f"{k}={v!r} (saved with {saved['config'].get(k)!r})"
            for k, v in self._options().items()
            if saved["config"].get(k) != v
        ]
        if differing:
            self._say("options", f"the run goes on with other options than it was saved with: {', '.join(differing)}")
        if self.horizon not in (None, saved["total_steps"]):
            self._say(
                "horizon",
                f"total_steps={self.horizon} is not that of the saved run, {saved['total_steps']}, which it goes on "
                "with: call extend(total_steps) after loading to change it",
            )
