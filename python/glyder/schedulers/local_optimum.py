"""GLyDER: the locally optimal learning rate of any optimizer (arXiv 2311.13877).

Along the direction d of an update the loss is f(x - eta d) ~ f(x) - eta <grad f, d> + eta^2/2 d^T C d, which is least
at eta* = <grad f, d> / (d^T C d). Both scalars come from the training batches, the curvature from a 1-d projection.

By default they are measured at x_t while the rate warms up and give one scale (csrc/rules/scale.c), which is annealed;
``refresh="always"`` follows eta* itself to the end, as published, with the slope at x_{t+1} of independent data.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn
from torch.optim import Optimizer

from glyder import _checks as checks
from glyder import _core
from glyder.engine.history import FIELDS, TEXTS, History
from glyder.engine.schedule import energy
from glyder.engine.scheduler import Scheduler
from glyder.engine.stages import FIRST_UPDATES, PATIENCE, SHORTEST, TOO_SHORT, farther, held, recipe, release
from glyder.optimizers.displacement import Ages, Displacement, Noted, check_members, displacement_of, note, still_there
from glyder.optimizers.properties import natural_rate
from glyder.probe.estimators import Estimator, Sample, estimator_of
from glyder.probe.gradient_noise import Replicas
from glyder.probe.measurement import Meter
from glyder.probe.outputs_loss import EstimatorError
from glyder.probe.samples import Sampler
from glyder.probe.update_direction import Direction, Unmeasurable
from glyder.schedulers.checkpoint import restore, state_of
from glyder.schedulers.explain import explain, text_of
from glyder.schedulers.same_step import check_linear, step_anew
from glyder.schedulers.scopes import adopt
from glyder.vectors.inner_products import inner_products


class LocalOptimumLR(Scheduler):
    r"""Sets the learning rate of any optimizer from the slope and the curvature of the loss along its updates.

    .. math:: \eta^* = \frac{\langle \nabla f, d \rangle}{d^\top C d}
       \qquad \text{(2311.13877, Corollary 2.2, with } d^\top C d = L \|d\|^2 \text{)}

    By default eta* and the noise that the run can bear, measured over a window, give one scale that is annealed
    (``csrc/rules/scale.c`` has the formula); ``refresh="always"`` follows ``scale`` times eta* itself.

    The starting rate of the optimizer plays no part, only the ratios between its groups do. An update is measured with
    the training batch that it was made from, right after it; with ``refresh="always"``, with that of the next update.

    Args:
        optimizer: any torch optimizer, or a list of optimizers that together train ``model``.
        model: the module that the training loop calls.
        total_steps: updates of the whole run, at least 20. Without it it has no horizon, and ``anneal`` is ``"rsqrt"``.
        anneal: ``"linear"`` (default), ``"cosine"``, ``"polynomial"``, ``"wsd"``, ``"rsqrt"``, ``"constant"`` or None
            (the same), or a pair ``("polynomial", {"power": 2.0})``.
        warmup: updates of linear warm-up, which are also the measuring window. Default: 100, or a quarter of
            ``total_steps`` where that is less (but 10, or half of a run that is shorter than 20).
        every: updates between measurements, after the first 20.
        refresh: ``"window"`` measures during the warm-up, and then keeps one scale for the whole run. ``"always"``
            follows the locally optimal rate to the end, with forgetting, as published: for losses that change.
        scale: the factor sigma on the rate that is found, the one parameter of the paper.
        min_lr, max_lr: bounds of the rate before warm-up and annealing, of the first group (of each, with a ``scope``
            of their own). ``max_lr="given"``: the optimizer's own.
        max_growth: the rate grows at most by this factor from one update to the next; less once it has caught up.
        scope: ``"global"``: one rate, the groups' ratios kept. ``"group"``: one for each, rescaled by one joint step
            along their sum; costs a measurement more for each pair of groups. ``"tensor"``: one for each parameter
            (2305.13664), by splitting groups; costs three forwards and a measurement more in all. Needs
            ``refresh="window"``, no ``batches``.
        act: ``"next"``: a rate that is found acts from the next update on. ``"same-step"``: as published, each measured
            step is made anew at its own locally optimal rate, or taken back where the loss does not fall along it;
            nothing is averaged. Needs ``refresh="always"`` and an optimizer whose steps are linear in the rate.
        observe_only: change nothing, measure beside the user's own rates (see :meth:`explain`).
        estimator: an :class:`~glyder.probe.estimators.Estimator` or its name.
        loss: what ``estimator`` cannot see by itself: ``"squared_error"`` (its mean over all outputs; a factor on it
            would not be noticed, give the module for that), the ``nn.CrossEntropyLoss`` or
            ``nn.MSELoss`` module that the loop calls, or a callable ``loss(model, batch)``. With ``batches=`` the
            batch is one of those; without, it is the call that the loop made: ``batch.args``, ``batch.kwargs``.
        logits: picks the logits out of what the model returns, ``logits(output)``.
        batches: additional mini-batches to measure on, as published: a ``DataLoader`` (a sibling is built, the
            user's iterator stays untouched), a list, or a callable. Needs ``loss``.
        n_batches: how many of them are averaged per measurement.
        replicas: the micro-batches of gradient accumulation are compared with each other, for the columns
            ``squared_gradient``, ``gradient_noise`` and ``noise_scale`` of :attr:`history`.
        seed: of everything random in the measurements.

    Raises:
        TypeError, ValueError: on construction, in call form, with the value and the remedy.
        EstimatorError: at the first measurement, when the estimator does not fit the loss that is trained.
        RuntimeError: when nothing could be measured so far and three attempts have failed.

    An update whose gradients are infinite or not a number is made without gradients: parameters and optimizer state
    stay as they are, it is counted in :attr:`skipped` and not in :attr:`updates`, and said once. A loss or logits
    that are not finite show in the gradients. A measurement that fails, in the model's, the loader's or the loss's
    own code, is counted in :attr:`reasons` and said once, and the rate stays. With ``observe_only`` none of this
    interferes: updates are made whatever the gradients, and nothing is raised after construction.

    Example:
        >>> sched = glyder.LocalOptimumLR(opt, model, total_steps=len(loader) * epochs)
        >>> for x, y in loader:
        ...     F.cross_entropy(model(x), y).backward()
        ...     opt.step(); sched.step(); opt.zero_grad()

    :formula: ``eta* = <g, d>/(d^T C d)``, which gives one scale with the noise that the run can bear, annealed
    :source: 2311.13877, Corollary 2.2; the scale is ours
    :passes: 2 at a measured update, 0 at others: 36 of the first 100 are measured (fewer of a run below 400), then none
    :memory: 2 at a measured update, 0 at others
    :optimizers: any that follows its rate
    :use: the locally optimal rate itself is wanted: as published (``refresh="always"``), or to look at beside a rate of
        your own (``observe_only``)
    :avoid: a rate is wanted that just trains (``GlyderLR``), or the loss is neither cross-entropy nor squared error and
        cannot be given as ``loss``; under several ranks each finds a rate of its own
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
        scale: float = 1.0,
        min_lr: float = 0.0,
        max_lr: float | Literal["given"] = math.inf,
        max_growth: float = 3.0,
        scope: Literal["global", "group", "tensor"] = "global",
        act: Literal["next", "same-step"] = "next",
        observe_only: bool = False,
        estimator: Estimator | str = "gauss-newton",
        loss: nn.Module | str | Callable[[nn.Module, Any], Tensor] | None = None,
        logits: Callable[[Any], Tensor] | None = None,
        batches: Any = None,
        n_batches: int = 1,
        replicas: bool = False,
        seed: int = 0,
    ) -> None:
        number = functools.partial(checks.number, "LocalOptimumLR")
        whole = functools.partial(checks.whole, "LocalOptimumLR")
        if not isinstance(model, nn.Module):
            raise TypeError(f"LocalOptimumLR(model=...) must be a torch.nn.Module, got {type(model).__name__}")
        checks.one_of("LocalOptimumLR", "refresh", refresh, ("window", "always"))
        checks.one_of("LocalOptimumLR", "scope", scope, ("global", "group", "tensor"))
        checks.one_of("LocalOptimumLR", "act", act, ("next", "same-step"))
        for name, value in (("observe_only", observe_only), ("replicas", replicas)):
            checks.one_of("LocalOptimumLR", name, value, (False, True))
        if not isinstance(loss, str):
            checks.function("LocalOptimumLR", "loss", loss, "'squared_error', a criterion module or a callable")
        checks.function("LocalOptimumLR", "logits", logits, "a callable that picks the logits out of an output")
        self.model = model
        self.horizon = None if total_steps is None else whole("total_steps", total_steps, 1)
        self.every, self.refresh, self.scope = whole("every", every, 1), refresh, scope
        self.warmup = checks.window(self.horizon) if warmup is None else whole("warmup", warmup, 0)
        if self.horizon is not None and self.warmup > self.horizon:
            raise ValueError(f"LocalOptimumLR(warmup=...) must be <= total_steps={self.horizon}, got {self.warmup}")
        self.anneal, self._shape = checks.schedule("LocalOptimumLR", "anneal", anneal, self.horizon, self.warmup)
        self.estimator = estimator_of(estimator)
        if self.estimator.needs_loss and (loss is None or isinstance(loss, str)):
            raise ValueError(f"{self.estimator} needs loss=callable(model, batch) or a criterion module, got {loss!r}")
        self._same_step = act == "same-step"
        self._at_once = self._same_step or (refresh == "window" and batches is None)
        if scope == "tensor" and (refresh == "always" or not self._at_once):
            raise ValueError(
                "LocalOptimumLR(scope='tensor') goes with refresh='window' and without batches: take 'group'"
            )
        if self._same_step and (refresh == "window" or observe_only):
            raise ValueError("LocalOptimumLR(act='same-step') goes with refresh='always' and without observe_only")
        super().__init__(optimizer, observe_only=observe_only)
        for o in self.optimizers if self._same_step else ():
            check_linear(o)
        given = isinstance(max_lr, str) and max_lr == "given"
        if given and scope != "global":
            raise ValueError("LocalOptimumLR(max_lr='given') goes with scope='global': give a number")
        top = self._reference if given else number("max_lr", max_lr, 0, above=True)
        low = number("min_lr", min_lr, 0, finite=True)
        if low > top:
            raise ValueError(f"LocalOptimumLR(min_lr=...) must be <= max_lr={top:g}, got {low:g}")
        top = max(low, min(top, *(natural_rate(o) for o in self.optimizers)))
        growth = number("max_growth", max_growth, 1, above=True)
        self._build(number("scale", scale, 0, above=True, finite=True), low, top, growth)
        check_members(model, self._moved())
        if not observe_only and self.horizon is not None and self.horizon < SHORTEST:
            self._say("short", TOO_SHORT.format(self.horizon))
        self._logits = logits
        self._blank()
        n_batches = whole("n_batches", n_batches, 1)
        self._sampler = Sampler(model, loss, logits, batches, n_batches, whole("seed", seed, 0))
        if scope == "tensor" and not observe_only:
            self._split_groups()
        self._attach()
        self._replicas = Replicas() if replicas else None
        self._watch(0)

    def _blank(self) -> None:
        """Nothing measured yet."""
        self._base: float | None = None
        self._rate = self._written_rate = 0.0
        self._start: float | None = None  # ||x_0||^2
        self._seen = 0.0  # ||g||^2 of this update
        self._noise: dict[str, float] = {}  # of the gradient, from its replicas
        self._noted: Noted | None = None
        self._pending: Displacement | None = None
        self._ages = Ages(self.optimizers)
        self._meter = Meter(self.estimator, self.optimizers, self._say)
        self._draw = self._measured = self._failed = 0
        self._history = History(FIELDS, TEXTS)
        self._reasons: Counter[str] = Counter()

    def _build(self, scale: float, min_lr: float, max_lr: float, max_growth: float) -> None:
        always = self.refresh == "always" or self.observe_only
        memory = 1.0 if self._same_step else max(1.0, 100 / self.every) if always else math.inf
        self._rule_config = {"sigma": scale, "memory": memory}
        half = any(p.dtype.itemsize < 4 for p in self.model.parameters())
        limits = {"min_lr": min_lr, "max_lr": max_lr}, {"max_growth": max_growth}
        self._rules = recipe(self._rule_config, *limits, half=half, loose=self._same_step)
        self._local = _core.Rule("glyder", sigma=1.0, memory=1.0)

    # ---- an update

    def _begin(self) -> float | None:
        self._ages.note(self.updates)
        gg = self._squared_gradient()
        self._noise = {} if self._replicas is None else self._replicas.take().estimates(gg)
        if not math.isfinite(gg):
            self._hold()
            return None
        self._seen = gg
        if self._pending is not None:
            pending, self._pending = self._pending, None
            self._measure(pending, self.updates - 1)
        if self._same_step and self._base is not None and self._due(self.updates):
            rate = self._written_rate = self._rate  # on trial
        else:
            rate = self._applied() if self.observe_only else self._next_rate()
        self._note_position(rate)
        return rate

    def _end(self) -> None:
        noted, self._noted = self._noted, None
        try:
            if noted is not None and self._acting > 0 and self._same_step:
                step_anew(self, noted)
            elif noted is not None and self._acting > 0:
                updates = self.updates + 1
                made = displacement_of(self.optimizers, *noted, self._acting, self._ratios, self._ages, updates)
                if self._at_once:
                    self._measure(made, self.updates)
                else:
                    self._pending = made
        finally:
            self._watch(self.updates + 1)

    def _watch(self, update: int) -> None:
        """Watch the forward passes of the update that comes, if something is to be measured with them."""
        self._sampler.watch(self._due(update) if self._at_once else self._pending is not None)
        if self._replicas is not None:
            self._replicas.start(p for _, p in self._moved())

    def _abandon(self) -> None:
        self._noted = self._pending = None
        if not self._at_once:  # else what was seen is of the update that comes
            self._sampler.watch(False)

    def _hold(self) -> None:
        """A gradient that is not finite, and what that means for the measurement under way."""
        if self.observe_only:  # the update is made, and the noted displacement is no longer the latest
            self._abandon()
            return
        self._watch(self.updates)  # a displacement stays; the next good batch measures it
        self._reasons["not_finite"] += 1
        self._skip_not_finite()

    # ---- the rate

    def _next_rate(self) -> float:
        """Base rate, bounds, brake, warm-up and annealing, growth limit, spikes: each a stage in C."""
        gg = self._seen
        if self.updates == self.warmup and self.refresh == "window":
            self._reasons["released"] += release(self._rules["brake"], self.warmup)
        brake = self._stage("brake", rate=1.0, gg=gg)
        spike = self._stage("spike", rate=1.0, gg=gg, hold=held(self._rules["spike"], self.optimizers, self._ratios))
        if self._base is None:
            if self._rate == 0.0:
                self._rate = self._first_rate(gg, [p for _, p in self._with_gradients()])
            self._written_rate = self._rate * brake * spike
            return self._written_rate
        base = self._stage("bounds", rate=self._base) * brake
        factor = _core.schedule(self.anneal, self.updates, total=self.horizon, warmup=self.warmup, **self._shape)
        if factor == 0:
            self._say_over(self.horizon)
        wanted = base * factor
        self._rate = self._stage("growth", rate=wanted, previous=self._rate) if wanted > 0 else 0.0
        self._written_rate = self._rate * spike
        return self._written_rate

    def _stage(self, name: str, **seen: float) -> float:
        rate, _, reason = self._rules[name].update(**seen)
        self._reasons[reason] += reason != "kept"
        return rate

    def _before_closure(self) -> float | None:
        """A first rate, as for a gradient of unknown length; later ones were written the update before."""
        if self._rate == 0.0 and self._base is None:
            params = [p for _, p in self._moved()]
            self._rate = self._written_rate = self._first_rate(0.0, params)
            return self._rate
        return None

    def _first_rate(self, gg: float, moved: Sequence[Tensor]) -> float:
        self._start = xx = inner_products([moved], [(0, 0)])[0]
        n = float(sum(p.numel() for p in moved))
        rate, action, reason = self._rules["start"].update(xx=xx, gg=gg, n=n, dd=0.0, previous=0.0)
        if action != "keep":
            raise ValueError(f"no first learning rate can be had: {reason} (||x||^2 = {xx}, ||g||^2 = {gg}, n = {n})")
        return rate

    # ---- what the update does

    def _due(self, update: int) -> bool:
        """Whether that update is to be measured."""
        if self.observe_only and self._measured == 0 and self._failed >= PATIENCE:
            return False
        if self._base is not None and self.refresh == "window" and update >= self.warmup:
            return self.observe_only and update % self.every == 0
        return update < FIRST_UPDATES or update % self.every == 0 or self._base is None

    def _note_position(self, rate: float) -> None:
        self._noted = None
        if rate > 0 and self._due(self.updates):
            found = list(self._with_gradients())
            check_members(self.model, found)
            params = [p for _, p in found]
            if self._start is None:  # only observed: there was no first rate
                self._start = inner_products([params], [(0, 0)])[0]
            self._noted = note(self.optimizers, found, self._ratios, self._gradient_scale())
            if self._at_once:
                self._sampler.hold(params)
            self._meter.copies += 1

    # ---- the measurement

    def _measure(self, pending: Displacement, update: int) -> str:
        """Returns the reason for what came of it, the rule's or that of the failure."""
        row: dict[str, Any] = {"update": update, "lr": pending.lr, "gradient": self._seen**0.5} | self._noise
        params = still_there(self.optimizers, pending)
        if params is None:
            changed = Unmeasurable("params_changed", "the optimizer's parameters changed since the last update")
            return self._failure(changed.reason, changed, row)
        places, origin = pending.places, float(self._at_once and not self._same_step)
        direction = Direction(self.model, params, pending.deltas, places, self._logits, origin)
        direction.behind = float(not self._at_once)
        row["displacement"] = direction.dd**0.5
        if self._base is None and not self.observe_only:
            n = float(sum(p.numel() for p in params))
            rate, _, reason = self._rules["start"].update(
                xx=direction.xx, dd=direction.dd, gg=self._seen, n=n, previous=self._rate
            )
            if reason in ("not_visible", "no_gradient"):
                self._rate = rate
                self._reasons[reason] += 1
                self._history.append(**row, reason=reason)
                return reason
        try:
            return self._learn(pending, direction, row)
        except Unmeasurable as error:
            return self._failure(error.reason, error, row)
        except EstimatorError as error:
            return self._failure("estimator", error, row)
        except Exception as error:  # the user's model, loss or data, in a pass that they did not ask for
            return self._failure("raised", error, row)
        finally:
            self._sampler.stream.disarm()

    def _failure(self, reason: str, error: Exception, row: dict[str, Any]) -> str:
        """A measurement that came to nothing: counted, said once, and the rate stays; fatal if none ever came."""
        self._reasons[reason] += 1
        self._history.append(**row, reason=reason)
        if reason == "no_gradient":
            return reason
        self._failed += 1
        if self._measured == 0 and not self.observe_only:
            if isinstance(error, EstimatorError):
                raise error
            if self._failed >= PATIENCE:
                raise RuntimeError(
                    f"LocalOptimumLR could not measure anything in {self._failed} attempts, so there is no rate: "
                    f"{text_of(error)}"
                ) from error
        stays = "nothing is changed" if self.observe_only else "the rate stays as it was"
        self._say(reason, f"no measurement at update {self.updates}: {text_of(error)} (said once; {stays})")
        return reason

    def _learn(self, pending: Displacement, direction: Direction, row: dict[str, Any]) -> str:
        """Measure, let the rule see it, and take its rate as the new base rate."""
        samples = self._sampler.samples(direction, self._draw)
        measured = self._meter.averaged(direction, samples, self._draw)
        statistics = {"slope": measured.slope, "curvature": measured.curvature, "dd": direction.dd}
        statistics |= {"lr": pending.lr, "young": pending.young, "behind": direction.behind}
        for name, value in statistics.items():
            if not math.isfinite(value):
                raise Unmeasurable("not_finite", f"{name} is {value}")
        rate, reason = self._rule_on(statistics, pending.reach, samples)
        if rate and self.scope != "global" and not self.observe_only:
            adopt(self, pending, direction, samples, measured, rate)
        elif rate:
            self._base = rate
        elif self._base is None and reason == "no_curvature" and not self.observe_only:
            xx = self._start or float(sum(p.numel() for p in direction.params))  # as in start.c
            self._rate = farther(self._rules, self._rate, xx, direction.dd)
        self._measured += 1
        if self._base is None and self._measured >= FIRST_UPDATES:
            self._say(
                "stuck",
                f"{self._measured} measurements and no learning rate yet ({reason}): along what the optimizer does the "
                "loss does not fall, or has no end; is `loss` what is trained, on batches of the same task?",
            )
        self._draw += len(samples)
        self._reasons[reason] += 1
        optimal, usable, _ = self._local.update(**statistics)
        row["optimal"] = optimal if usable == "keep" else math.nan
        row["base"] = math.nan if self._base is None else self._base
        self._history.append(**row, **dataclasses.asdict(measured), reason=reason)
        return reason

    def _rule_on(
        self, statistics: dict[str, float], reach: float, samples: Sequence[Sample]
    ) -> tuple[float | None, str]:
        """What the rule makes of a measurement: a rate, if it has one, and the reason."""
        rate, action, reason = self._rules["glyder"].update(**statistics)
        if self.refresh == "window":
            run = energy(self.anneal, self.horizon, self.warmup, self._shape)
            start = self._start or 0.0
            rate, action, reason = self._rules["scale"].update(energy=run, reach=reach, start=start, **statistics)
        return rate if action == "keep" else None, reason

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
        return self._meter.forwards, self._meter.copies

    def explain(self) -> str:
        """What was found so far and what it means, in a few sentences."""
        return explain(self)

    def extend(self, total_steps: int) -> None:
        """Change the horizon of the run, from the next update on. A scale that was found stays: call it early."""
        self.horizon = checks.whole("LocalOptimumLR.extend", "total_steps", total_steps, 1)
        self._said.discard("over")

    def close(self) -> None:
        """Let go of optimizer and model: the rates stay as they are."""
        super().close()
        self._sampler.stream.close()
        if self._replicas is not None:
            self._replicas.close()

    # ---- checkpoints

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs to go on to the same bits: plain values and tensors.

        Where the next batch measures (``refresh="always"``, ``batches=``) that includes the last displacement.
        """
        return state_of(self)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken; model, optimizer and scheduler may be loaded in any order.

        Options given to the constructor stay, but for ``total_steps``, which is the state's; a difference is said
        once. The state is copied, not kept.
        """
        restore(self, state_dict)

    def _go_on_with(self, pending: Displacement | None) -> None:
        """The rest of loading: the displacement to measure, and the rate."""
        self._noted, self._pending = None, None if self._at_once else pending
        self._watch(self.updates)
        self._write_again(self._written_rate)
