"""GLyDER: the locally optimal learning rate of any optimizer (arXiv 2311.13877).

Along the direction d of an update the loss is f(x - eta d) ~ f(x) - eta <grad f, d> + eta^2/2 d^T C d, which is least
at eta* = <grad f, d> / (d^T C d). The slope comes from data independent of d, the curvature from a 1-d projection.
Both are averaged separately over a window at the start of training, while the rate warms up; the scale so found is
kept and annealed. *GLyDER finds the scale, annealing gives the shape.*
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn
from torch.optim import Optimizer

from glyder import _core
from glyder.base import STATE_VERSION, Place, Scheduler
from glyder.blocks import gram, joint_rates
from glyder.direction import Direction, Unmeasurable
from glyder.estimators import Estimator, EstimatorError, Measured, Sample, estimator_of
from glyder.explain import explain
from glyder.history import History
from glyder.measure import displace, inner_products, snapshot
from glyder.sampling import Sampler, only
from glyder.support import decoupled_decay, l2_decay, young

FIRST_UPDATES = 20
"""Updates that are all measured, whatever ``every`` says: the early estimates need the most averaging."""

VISIBLE, VISIBLE_HALF = 1e-4, 1e-2
"""Relative displacement that the first updates aim at: what the parameters' dtype can carry with some digits."""

PATIENCE = 3
"""Measurements that may fail in a row before the first good one; then the reason is raised."""


@dataclass(eq=False)
class Displacement:
    """What an update did: where, by how much, with which rate."""

    places: list[Place]
    deltas: list[Tensor]
    lr: float
    young: float
    ratios: list[list[float]]


class GlyderLR(Scheduler):
    r"""Sets the learning rate of any optimizer from the slope and the curvature of the loss along its updates.

    .. math:: \eta^* = \sigma \, \frac{\langle \nabla f, d \rangle}{d^\top C d}
       \qquad \text{(2311.13877, Corollary 2.2, with } d^\top C d = L \|d\|^2 \text{)}

    The starting rate of the optimizer plays no part, only the ratios between its groups do. No loader, no closure and
    no loss is needed: the displacement of one update is measured with the training batch of the next.

    Args:
        optimizer: any torch optimizer, or a list of optimizers that together train ``model``.
        model: the module that the training loop calls.
        total_steps: number of updates of the whole run. Without it the run has no horizon and ``anneal`` is
            ``"rsqrt"``.
        anneal: ``"cosine"`` (default), ``"linear"``, ``"polynomial"``, ``"wsd"``, ``"rsqrt"``, ``"constant"`` or None
            (the same), or a pair ``("polynomial", {"power": 2.0})``.
        warmup: updates of linear warm-up, which are also the measuring window. Default: 100, at most a sixth of
            ``total_steps``.
        every: updates between measurements, after the first 20.
        refresh: ``"window"`` measures during the warm-up and then keeps the scale; ``"always"`` goes on to the end,
            with forgetting, for losses that change.
        scale: the factor sigma, the one parameter of the paper. 1 is the greedy optimum, 2 the edge of stability.
        min_lr, max_lr: bounds of the rate before warm-up and annealing. ``max_lr="given"``: the optimizer's own.
        max_growth: the rate grows at most by this factor from one update to the next.
        scope: ``"global"``: one rate, the groups' ratios kept. ``"group"``: a rate of its own for each group,
            rescaled by one joint step along their sum; costs a measurement more for each group.
        observe_only: change nothing, measure beside the user's own rates (see :meth:`explain`).
        estimator: an :class:`~glyder.estimators.Estimator` or its name.
        loss: what ``estimator`` cannot see by itself: ``"squared_error"``, the ``nn.CrossEntropyLoss`` or
            ``nn.MSELoss`` module that the loop calls, or a callable ``loss(model, batch)``. With ``batches=`` the
            batch is one of those; without, it is the call that the loop made: ``batch.args``, ``batch.kwargs``.
        logits: picks the logits out of what the model returns, ``logits(output)``.
        batches: additional mini-batches to measure on, as published: a ``DataLoader`` (a sibling is built, the
            user's iterator stays untouched), a list, or a callable. Needs ``loss``.
        n_batches: how many of them are averaged per measurement.
        seed: of everything random in the measurements.

    Raises:
        TypeError, ValueError: on construction, in call form, with the value and the remedy.
        EstimatorError: at the first measurement, when the estimator does not fit the loss that is trained.

    Cost: two forward passes per measurement with the default estimator, one copy of the parameters between two
    updates and another while measuring.

    Example:
        >>> opt = torch.optim.AdamW(model.parameters())
        >>> sched = glyder.GlyderLR(opt, model, total_steps=len(loader) * epochs)
        >>> for x, y in loader:
        ...     F.cross_entropy(model(x), y).backward()
        ...     opt.step(); sched.step(); opt.zero_grad()
    """

    def __init__(
        self,
        optimizer: Optimizer | Sequence[Optimizer],
        model: nn.Module,
        *,
        total_steps: int | None = None,
        anneal: str | tuple[str, dict[str, float]] | None = "auto",
        warmup: int | None = None,
        every: int = 5,
        refresh: Literal["window", "always"] = "window",
        scale: float = 2.0,
        min_lr: float = 0.0,
        max_lr: float | Literal["given"] = math.inf,
        max_growth: float = 10.0,
        scope: Literal["global", "group"] = "global",
        observe_only: bool = False,
        estimator: Estimator | str = "gauss-newton",
        loss: nn.Module | str | Callable[[nn.Module, Any], Tensor] | None = None,
        logits: Callable[[Any], Tensor] | None = None,
        batches: Any = None,
        n_batches: int = 1,
        seed: int = 0,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"GlyderLR(model=...) must be a torch.nn.Module, got {type(model).__name__}")
        for name, value, low in (("every", every, 1), ("n_batches", n_batches, 1), ("warmup", warmup, 0)):
            _whole(name, value, low)
        _whole("total_steps", total_steps, 1)
        _one_of("refresh", refresh, ("window", "always"))
        _one_of("scope", scope, ("global", "group"))
        self.model = model
        self.total_steps, self.every, self.refresh, self.scope = total_steps, every, refresh, scope
        self.estimator = estimator_of(estimator)
        if self.estimator.needs_loss and (loss is None or isinstance(loss, str)):
            raise ValueError(f"{self.estimator} needs loss=callable(model, batch) or a criterion module, got {loss!r}")
        share = math.inf if total_steps is None else math.ceil(total_steps / 6)
        self.warmup = warmup if warmup is not None else int(min(100, share))
        self.anneal, self._shape = _anneal(anneal, total_steps)
        super().__init__(optimizer, observe_only=observe_only)
        try:
            self._sampler = Sampler(model, loss, logits, batches, n_batches, seed)
            self._build(float(scale), min_lr, self._reference if max_lr == "given" else max_lr, max_growth)
        except BaseException:
            self.close()
            raise
        self._logits = logits
        self._base: float | None = None
        self._rate = 0.0
        self._noted: tuple[list[Place], list[Tensor]] | None = None
        self._pending: Displacement | None = None
        self._mature: list[list[bool]] | None = None
        self._native = False
        self._draw = self._measured = self._failed = self._copies = 0
        self._forwards = 0.0
        self._history = History()
        self._reasons: Counter[str] = Counter()

    def _build(self, scale: float, min_lr: float, max_lr: float, max_growth: float) -> None:
        """The rule and its stages; each checks its own numbers."""
        always = self.refresh == "always" or self.observe_only
        memory = max(1.0, 100 / self.every) if always else math.inf
        self._rule_config = {"sigma": scale, "memory": memory}
        half = any(p.dtype.itemsize < 4 for p in self.model.parameters())
        self._rules = {
            "glyder": _core.Rule("glyder", **self._rule_config),
            "start": _core.Rule("start", visible=VISIBLE_HALF if half else VISIBLE),
            "bounds": _core.Rule("bounds", min_lr=min_lr, max_lr=max_lr),
            "growth": _core.Rule("growth", max_growth=max_growth),
            "brake": _core.Rule("brake"),
        }
        self._local = _core.Rule("glyder", sigma=1.0, memory=1.0)
        _core.schedule(self.anneal, 0, total=self.total_steps, warmup=self.warmup, **self._shape)

    # ---- an update

    def _begin(self) -> float | None:
        if self._mature is None:
            self._mature = [[_has_momentum(o, g) for g in o.param_groups] for o in self.optimizers]
        gg, n = self._squared_gradient()
        if not math.isfinite(gg):
            self._hold()
            return None
        if self._pending is not None:
            self._measure(gg, n)
        rate = self._applied() if self.observe_only else self._next_rate(gg, n)
        self._note_position(rate)
        return rate

    def _end(self) -> None:
        noted, self._noted = self._noted, None
        if noted is None:
            return
        places, older = noted
        self._pending = self._displacement(places, older)
        if self._pending is not None:
            self._sampler.stream.arm()

    def _abandon(self) -> None:
        self._noted = None
        self._pending = None
        self._sampler.stream.disarm()

    def _hold(self) -> None:
        """A gradient that is not finite: this update is made without gradients, so that nothing moves."""
        if self._pending is not None:
            self._sampler.stream.arm()  # the displacement stays; the next good batch measures it
        if self.observe_only:
            return
        self._reasons["not_finite"] += 1
        self._say(
            "not_finite",
            f"the gradient of update {self.updates} is infinite or not a number: the update is skipped; parameters, "
            "optimizer state and rate stay as they are (said once, counted in `skipped`)",
        )
        self._hide_gradients()

    # ---- the rate

    def _next_rate(self, gg: float, n: int) -> float:
        """Base rate, bounds, brake, warm-up and annealing, growth limit: each a stage in C."""
        _, _, braked = self._rules["brake"].update(rate=1.0, gg=gg)
        self._reasons[braked] += braked == "braked"
        if self._base is None:
            if self._rate == 0.0:
                self._rate = self._first_rate(gg, n)
            return self._rate
        if self.total_steps is not None and self.updates == self.total_steps:
            self._say(
                "over",
                f"total_steps={self.total_steps} updates are done and the learning rate is at its end: training goes "
                "on without effect; give the right total_steps, or call extend(total_steps)",
            )
        base = self._rules["bounds"].update(rate=self._base)[0] * self._rules["brake"].state["factor"]
        factor = _core.schedule(self.anneal, self.updates, total=self.total_steps, warmup=self.warmup, **self._shape)
        if base * factor > 0:
            self._rate = self._rules["growth"].update(rate=base * factor, previous=self._rate)[0]
        else:
            self._rate = 0.0
        return self._rate

    def _first_rate(self, gg: float, n: int) -> float:
        found = [p for _, p in self._with_gradients()]
        xx = inner_products([found], [(0, 0)])[0]
        rate, action, reason = self._rules["start"].update(xx=xx, gg=gg, n=float(n), dd=0.0, previous=0.0)
        if action != "keep":
            raise ValueError(f"no first learning rate can be had: {reason} (||x||^2 = {xx}, ||g||^2 = {gg}, n = {n})")
        return rate

    # ---- what the update does

    def _due(self) -> bool:
        """Whether the update that comes is to be measured."""
        if self._base is not None and self.refresh == "window" and self.updates >= self.warmup:
            return self.observe_only and self.updates % self.every == 0
        return self.updates < FIRST_UPDATES or self.updates % self.every == 0 or self._base is None

    def _note_position(self, rate: float) -> None:
        self._noted = None
        if self._due():
            found = list(self._with_gradients())
            self._noted = [place for place, _ in found], snapshot([p for _, p in found])
            self._copies += 1

    def _displacement(self, places: list[Place], older: list[Tensor]) -> Displacement | None:
        """delta = (1 - lr*lambda) x_t - x_{t+1} per group, lambda the decoupled weight decay."""
        deltas: list[Tensor] = []
        youngest = 1.0
        start = 0
        for (o, g), count in Counter((p.optimizer, p.group) for p in places).items():
            optimizer, group = self.optimizers[o], self.optimizers[o].param_groups[g]
            mine = slice(start, start + count)
            start += count
            scale = 1.0 - float(group["lr"]) * decoupled_decay(optimizer, group)
            newer = [self._parameter(place) for place in places[mine]]
            deltas += displace(older[mine], scale, newer, where=lambda i, m=mine: str(places[m][i]))
            if not self._mature[o][g]:  # type: ignore[index]
                youngest = min(youngest, young(optimizer, group, self.updates + 1))
        lr = self._applied()
        return (
            Displacement(places, deltas, lr, youngest, [list(r) for r in self._ratios]) if places and lr > 0 else None
        )

    # ---- the measurement

    def _measure(self, gg: float, n: int) -> None:
        pending, self._pending = self._pending, None
        assert pending is not None
        try:
            params = [self._parameter(place) for place in pending.places]
            if any(p.shape != d.shape for p, d in zip(params, pending.deltas, strict=True)):
                raise IndexError
        except IndexError:
            self._failure("parameters_changed", "the optimizer's parameters changed since the last update")
            return
        direction = Direction(self.model, params, pending.deltas, pending.places, self._logits, self._native)
        row = {"update": self.updates - 1, "lr": pending.lr, "displacement": direction.dd**0.5, "gradient": gg**0.5}
        if self._base is None and not self.observe_only:
            rate, _, reason = self._rules["start"].update(
                xx=direction.xx, dd=direction.dd, gg=gg, n=float(n), previous=self._rate
            )
            if reason == "not_visible":
                self._rate = rate
                self._reasons[reason] += 1
                self._history.append(**row, reason=reason)
                return
        try:
            self._learn(pending, direction, row)
        except Unmeasurable as error:
            self._failure(error.reason, str(error), row)
        except EstimatorError as error:
            if self._measured == 0:
                raise
            self._failure("estimator", str(error), row)
        except Exception as error:  # the user's model, loss or data, in a pass that they did not ask for
            if self._measured == 0 and self._failed + 1 >= PATIENCE:
                raise
            self._failure("raised", f"{type(error).__name__}: {error}", row)
        finally:
            self._sampler.stream.disarm()

    def _failure(self, reason: str, message: str, row: dict[str, Any] | None = None) -> None:
        """A measurement that came to nothing: counted, said once, and the rate stays."""
        self._failed += 1
        self._reasons[reason] += 1
        if row is not None:
            self._history.append(**row, reason=reason)
        if self._measured == 0 and self._failed >= PATIENCE and reason != "no_gradient":
            raise RuntimeError(
                f"GlyderLR could not measure anything in {self._failed} attempts, so there is no learning rate: "
                f"{message}"
            )
        self._say(reason, f"no measurement at update {self.updates}: {message} (said once; the rate stays as it was)")

    def _learn(self, pending: Displacement, direction: Direction, row: dict[str, Any]) -> None:
        """Measure, let the rule see it, and take its rate as the new base rate."""
        samples = self._sampler.samples(direction, self._draw)
        measured = self._averaged(direction, samples)
        statistics = {"slope": measured.slope, "curvature": measured.curvature, "dd": direction.dd}
        statistics |= {"lr": pending.lr, "young": pending.young}
        for name, value in statistics.items():
            if not math.isfinite(value):
                raise Unmeasurable("not_finite", f"{name} is {value}")
        rate, action, reason = self._rules["glyder"].update(**statistics)
        if self.scope == "group" and not self.observe_only:
            self._adopt_groups(pending, direction, samples)
        elif action == "keep":
            self._base = rate
        self._measured += 1
        self._draw += len(samples)
        self._reasons[reason] += 1
        optimal, usable, _ = self._local.update(**statistics)
        self._history.append(
            **row,
            optimal=optimal if usable == "keep" else math.nan,
            base=math.nan if self._base is None else self._base,
            slope=measured.slope,
            curvature=measured.curvature,
            source=measured.source,
            reason=reason,
        )

    def _averaged(self, direction: Direction, samples: Sequence[Sample]) -> Measured:
        """Slope and curvature, averaged over the samples; weight decay that is part of the loss is added."""
        found = [self._one(direction, sample, self._draw + i) for i, sample in enumerate(samples)]
        self._forwards += sum(self.estimator.passes + sample.passes_made for sample in samples)
        self._copies += 2 * len(samples)
        slope = math.fsum(m.slope for m in found) / len(found)
        curvature = math.fsum(m.curvature for m in found) / len(found)
        for part, factor in self._l2_parts(direction):
            slope += factor * part.dot(part.params)
            curvature += factor * part.dd
        return Measured(slope, curvature, found[0].source)

    def _one(self, direction: Direction, sample: Sample, draw: int) -> Measured:
        direction.native = self._native
        try:
            return self.estimator.measure(direction, sample, draw)
        except RuntimeError as error:
            if self._native or not direction.half or "dtype" not in str(error):
                raise
        self._native = True
        self._say(
            "native",
            "the model does not run in single precision: slope and curvature are measured in its own half precision, "
            "with a few per cent of rounding noise",
        )
        return self._one(direction, sample, draw)

    def _l2_parts(self, direction: Direction) -> list[tuple[Direction, float]]:
        """The parts of the direction whose optimizer adds lambda*x to the gradient, and their lambda."""
        parts: dict[tuple[int, int], list[int]] = {}
        for i, place in enumerate(direction.places):
            parts.setdefault((place.optimizer, place.group), []).append(i)
        found = []
        for (o, g), indices in parts.items():
            factor = l2_decay(self.optimizers[o], self.optimizers[o].param_groups[g])
            if factor:
                found.append((direction.only(indices), factor))
        return found

    def _adopt_groups(self, pending: Displacement, direction: Direction, samples: Sequence[Sample]) -> None:
        blocks: dict[tuple[int, int], list[int]] = {}
        for i, place in enumerate(pending.places):
            blocks.setdefault((place.optimizer, place.group), []).append(i)

        def measure(indices: Sequence[int]) -> tuple[float, float]:
            measured = self._averaged(direction.only(indices), only(samples, indices))
            return measured.slope, measured.curvature

        own = self._rule_config | {"sigma": 1.0}
        alone = [self._rules.setdefault(f"group {o}.{g}", _core.Rule("glyder", **own)) for o, g in blocks]
        joint = self._rules.setdefault("joint", _core.Rule("glyder", **self._rule_config))
        rates = [pending.lr * ratio for ratio in (pending.ratios[o][g] for o, g in blocks)]
        new = joint_rates(gram(direction, list(blocks.values()), measure), rates, pending.young, alone, joint)
        if new is not None:
            self._base = new[0]
            for (o, g), rate in zip(blocks, new, strict=True):
                self._ratios[o][g] = rate / new[0]

    # ---- what the user sees

    @property
    def history(self) -> np.ndarray:
        """What was measured and decided: a structured array, one row per measurement; columns in ``glyder.FIELDS``."""
        return self._history.array()

    @property
    def reasons(self) -> dict[str, int]:
        """How often the rule, the stages and failed measurements gave each reason."""
        return {reason: count for reason, count in self._reasons.items() if count}

    @property
    def cost(self) -> tuple[float, int]:
        """Extra work so far: forward passes (a backward counts as two) and copies of the parameters."""
        return self._forwards, self._copies

    def explain(self) -> str:
        """What was found so far and what it means, in a few sentences."""
        return explain(self)

    def extend(self, total_steps: int) -> None:
        """Change the horizon of the run. Takes effect with the next update."""
        _whole("total_steps", total_steps, 1)
        _core.schedule(self.anneal, 0, total=total_steps, warmup=self.warmup, **self._shape)
        self.total_steps = total_steps
        self._said.discard("over")

    def close(self) -> None:
        """Let go of optimizer and model: the rates stay as they are."""
        super().close()
        if hasattr(self, "_sampler"):
            self._sampler.stream.close()

    # ---- checkpoints

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs to go on to the same bits: plain values and tensors.

        Between the snapshot of an update and its measurement that includes one copy of the parameters.
        """
        pending = self._pending
        return {
            "version": STATE_VERSION,
            "updates": self.updates,
            "skipped": self.skipped,
            "reference": self._reference,
            "ratios": [list(r) for r in self._ratios],
            "base_lr": self._base,
            "rate": self._rate,
            "total_steps": self.total_steps,
            "config": self._config(),
            "rules": {name: rule.state for name, rule in self._rules.items()},
            "mature": self._mature,
            "native": self._native,
            "draw": self._draw,
            "taken": self._sampler.taken,
            "measured": self._measured,
            "forwards": self._forwards,
            "copies": self._copies,
            "failed": self._failed,
            "said": sorted(self._said),
            "reasons": dict(self._reasons),
            "history": self._history.state(),
            "pending": None
            if pending is None
            else {
                "places": [[p.optimizer, p.group, p.index] for p in pending.places],
                "deltas": [d.clone() for d in pending.deltas],
                "lr": pending.lr,
                "young": pending.young,
                "ratios": [list(r) for r in pending.ratios],
            },
        }

    def _config(self) -> dict[str, Any]:
        """Options that change the recipe: a resumed run is told where they differ."""
        config = {name: getattr(self, name) for name in ("anneal", "warmup", "every", "refresh", "scope")}
        for name in ("glyder", "bounds", "growth"):
            config |= self._rules[name].config
        return config | {"observe_only": self.observe_only, "estimator": type(self.estimator).__name__}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken; model, optimizer and scheduler may be loaded in any order.

        Options given to the constructor stay, but for ``total_steps``, which is the state's; a difference is said
        once. The state is copied, not kept.
        """
        version = state_dict.get("version")
        if version != STATE_VERSION:
            raise ValueError(f"this state has version {version!r}, and this glyder reads version {STATE_VERSION}")
        groups = [len(r) for r in state_dict["ratios"]]
        here = [len(o.param_groups) for o in self.optimizers]
        if groups != here:
            raise ValueError(f"the state is of optimizers with {groups} parameter groups, these have {here}")
        self._tell_differences(state_dict["config"])
        self._count(state_dict["updates"])
        self.skipped = state_dict["skipped"]
        self._reference = state_dict["reference"]
        self._ratios = [list(r) for r in state_dict["ratios"]]
        self._base, self._rate = state_dict["base_lr"], state_dict["rate"]
        self.total_steps = state_dict["total_steps"]
        for name, rule in state_dict["rules"].items():
            if name not in self._rules:
                sigma = self._rule_config if name == "joint" else self._rule_config | {"sigma": 1.0}
                self._rules[name] = _core.Rule("glyder", **sigma)
            self._rules[name].load(rule)
        self._mature = None if state_dict["mature"] is None else [list(m) for m in state_dict["mature"]]
        self._native, self._draw = state_dict["native"], state_dict["draw"]
        self._sampler.taken = state_dict["taken"]
        self._measured, self._failed = state_dict["measured"], state_dict["failed"]
        self._forwards, self._copies = state_dict["forwards"], state_dict["copies"]
        self._said, self._reasons = set(state_dict["said"]), Counter(state_dict["reasons"])
        self._history.load(state_dict["history"])
        self._noted, self._pending = None, None
        self._sampler.stream.disarm()
        if state_dict["pending"] is not None:
            self._pending = self._pending_from(state_dict["pending"])
            self._sampler.stream.arm()
        if not self.observe_only and self.updates:
            self._write(self._rate)

    def _pending_from(self, saved: dict[str, Any]) -> Displacement:
        places = [Place(*place) for place in saved["places"]]
        deltas = [d.clone().to(self._parameter(place).device) for place, d in zip(places, saved["deltas"], strict=True)]
        return Displacement(places, deltas, saved["lr"], saved["young"], [list(r) for r in saved["ratios"]])

    def _tell_differences(self, saved: dict[str, Any]) -> None:
        ours = self._config()
        differing = [
            f"{name}={ours[name]!r} (saved with {saved[name]!r})" for name in ours if saved[name] != ours[name]
        ]
        if differing:
            self._say("options", f"the run goes on with other options than it was saved with: {', '.join(differing)}")


def _whole(name: str, value: Any, low: int) -> None:
    """Refuse what is not None or a whole number from ``low`` up."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"GlyderLR({name}=...) must be a whole number, got {value!r}")
    if value < low:
        raise ValueError(f"GlyderLR({name}=...) must be >= {low}, got {value}")


def _one_of(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"GlyderLR({name}=...) must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def _anneal(value: Any, total_steps: int | None) -> tuple[str, dict[str, float]]:
    """Name and parameters of the schedule."""
    if value == "auto":
        value = "rsqrt" if total_steps is None else "cosine"
    if value is None:
        value = "constant"
    name, parameters = value if isinstance(value, tuple) and len(value) == 2 else (value, {})
    if name not in _core.schedules():
        known = ", ".join(map(repr, _core.schedules()))
        raise ValueError(f"GlyderLR(anneal=...) must be None or one of {known}, got {value!r}")
    return name, dict(parameters)


def _has_momentum(optimizer: Optimizer, group: dict[str, Any]) -> bool:
    """Whether the group's momentum buffers were there before the scheduler was."""
    return any("momentum_buffer" in optimizer.state.get(p, {}) for p in group["params"])
