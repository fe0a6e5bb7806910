"""GLyDER: the locally optimal learning rate of any optimizer (arXiv 2311.13877).

Along the direction d of an update the loss is f(x - eta d) ~ f(x) - eta <grad f, d> + eta^2/2 d^T C d, which is least
at eta* = <grad f, d> / (d^T C d). Both scalars come from the training batches, the curvature from a 1-d projection.

By default they are measured at x_t while the rate warms up and give one scale (csrc/rules/local_optimum.c), which is
annealed; ``refresh="always"`` follows eta* itself to the end, as published, with the slope at x_{t+1} of independent
data.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch import Tensor, nn
from torch.optim import Optimizer

from glyder import _checks as checks
from glyder.engine.history import FIELDS, TEXTS, History
from glyder.engine.schedule import Given, Schedule
from glyder.engine.scheduler import Scheduler
from glyder.engine.stages import Stages, bounds_of
from glyder.optimizers.displacement import Ages, Displacement, Noted, check_members, displacement_of, note, still_there
from glyder.optimizers.properties import natural_rate
from glyder.optimizers.trial_step import TrialStep, check_linear
from glyder.probe.estimators import Estimator, estimator_of
from glyder.probe.gradient_noise import Replicas
from glyder.probe.measurement import Meter
from glyder.probe.outputs_loss import EstimatorError
from glyder.probe.samples import Sampler
from glyder.probe.scoped_rates import Measurement
from glyder.probe.update_direction import Direction, Unmeasurable
from glyder.schedulers.base_rate import BaseRate
from glyder.schedulers.local_optimum_words import explain, text_of
from glyder.vectors.inner_products import snapshot

FIRST_UPDATES = 20
"""Updates that are all measured, whatever ``every`` says: the early estimates need the most averaging."""

SHORTEST = 20
"""Updates of the shortest run that is measured in time to be of use; the league goes down to it."""

PATIENCE = 3
"""Measurements that may fail before the first good one; then the reason is raised."""

FALL = 3.0
"""Least factor that the trial rate keeps of the last: a step that comes out near zero says nothing of the next."""


class LocalOptimumLR(Scheduler):
    r"""Sets the learning rate of any optimizer from the slope and the curvature of the loss along its updates.

    .. math:: \eta^* = \frac{\langle \nabla f, d \rangle}{d^\top C d}
       \qquad \text{(2311.13877, Corollary 2.2, with } d^\top C d = L \|d\|^2 \text{)}

    By default eta* and the noise that the run can bear, measured over a phase, give one scale that is annealed
    (``csrc/rules/local_optimum.c`` has the formula); ``refresh="always"`` follows ``scale`` times eta* itself.

    The starting rate of the optimizer plays no part, only the ratios between its groups do. An update is measured with
    the training batch that it was made from, right after it; with ``refresh="always"``, with that of the next update.

    Args:
        optimizer: any torch optimizer, or a list of optimizers that together train ``model``.
        model: the module that the training loop calls.
        total_steps: updates of the whole run, at least 20. Without it it has no end, and ``anneal`` is ``"rsqrt"``.
        anneal: ``"linear"`` (default), ``"cosine"``, ``"polynomial"``, ``"wsd"``, ``"rsqrt"``, ``"constant"`` or None
            (the same), or a pair ``("polynomial", {"power": 2.0})``.
        warmup: updates of linear warm-up, which are also the measurement phase. Default: 100, or a quarter of
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

    _BASE: type[BaseRate] = BaseRate

    def __init__(
        self,
        optimizer: Optimizer | Sequence[Optimizer],
        model: nn.Module,
        *,
        total_steps: int | None = None,
        anneal: Given = "auto",
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
        total = None if total_steps is None else whole("total_steps", total_steps, 1)
        self.every, self.refresh, self.scope = whole("every", every, 1), refresh, scope
        warmup = checks.measurement_phase(total) if warmup is None else whole("warmup", warmup, 0)
        if total is not None and warmup > total:
            raise ValueError(f"LocalOptimumLR(warmup=...) must be <= total_steps={total}, got {warmup}")
        schedule = Schedule("LocalOptimumLR", anneal, total, warmup)
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
        super().__init__(optimizer, schedule, History(FIELDS, TEXTS), observe_only=observe_only)
        for o in self.optimizers if self._same_step else ():
            check_linear(o)
        given = isinstance(max_lr, str) and max_lr == "given"
        if given and scope != "global":
            raise ValueError("LocalOptimumLR(max_lr='given') goes with scope='global': give a number")
        low, top = bounds_of("LocalOptimumLR", min_lr, self.rates.reference if given else max_lr)
        bounds = low, max(low, min(top, *(natural_rate(o) for o in self.optimizers)))
        growth = {"max_growth": number("max_growth", max_growth, 1, above=True)}
        if self._same_step:  # a rate may rise by it at any time
            growth["power"] = math.inf
        self._stages = Stages(self._reasons, bounds, **growth)
        self._base = self._new_base(number("scale", scale, 0, above=True, finite=True))
        check_members(model, self._moved())
        if not observe_only and total is not None and total < SHORTEST:
            self._say(
                "short",
                f"LocalOptimumLR(total_steps={total}) leaves few updates to find a learning rate with, and fewer to "
                "use it: runs below 20 updates are not tested, and those below 8 may learn nothing. AnnealedLR gives a "
                "schedule to a rate of your own",
            )
        self._logits = logits
        self._rate = 0.0
        self._seen = 0.0  # ||g||^2 of this update
        self._noise: dict[str, float] = {}  # of the gradient, from its replicas
        self._noted: Noted | None = None
        self._pending: Displacement | None = None
        self._ages = Ages(self.optimizers)
        self._meter = Meter(self.estimator, self.optimizers, self._say)
        self._draw = self._measured = self._failed = 0
        n_batches = whole("n_batches", n_batches, 1)
        self._sampler = Sampler(model, loss, logits, batches, n_batches, whole("seed", seed, 0))
        if scope == "tensor" and not observe_only:
            self._split_groups()
        self._attach()
        self._replicas = Replicas() if replicas else None
        self._watch(0)

    def _new_base(self, scale: float) -> BaseRate:
        always = self.refresh == "always" or self.observe_only
        memory = 1.0 if self._same_step else max(1.0, 100 / self.every) if always else math.inf
        half = any(p.dtype.itemsize < 4 for p in self.model.parameters())
        return self._BASE(self._stages, scale, memory, half=half, once=self.refresh == "window")

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
        if self._same_step and self._base.value is not None and self._due(self.updates):
            rate = self._rate  # on trial
        else:
            rate = self.rates.read() if self.observe_only else self._next_rate()
        self._note_position(rate)
        return rate

    def _end(self) -> None:
        noted, self._noted = self._noted, None
        try:
            if noted is not None and self.rates.acting > 0:
                self._look_back(noted)
        finally:
            self._watch(self.updates + 1)

    def _look_back(self, noted: Noted) -> None:
        """At what the update did: to measure it, or to note it for the next batch."""
        start = snapshot(noted[1]) if self._same_step else []
        acting, ratios, updates = self.rates.acting, self.rates.ratios, self.updates + 1
        made = displacement_of(self.optimizers, *noted, acting, ratios, self._ages, updates)
        if self._same_step:
            self._step_anew(TrialStep(self.optimizers, start, made), made)
        elif self._at_once:
            self._measure(made, self.updates)
        else:
            self._pending = made

    def _step_anew(self, trial: TrialStep, made: Displacement) -> None:
        """Measure the trial step from where it began, and make it at the rate that is found."""
        trial.take_back()
        outcome = "raised"
        try:
            outcome = self._measure(made, self.updates)
        finally:
            if outcome == "kept":
                self.rates.write(self._next_rate())
            if outcome != "no_slope":
                trial.make_anew()
            self.rates.step_was_made(at_rest=outcome == "no_slope")
        if outcome == "kept":
            self._rate = max(self._rate, made.lr / FALL)

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
        """Base rate, bounds, back-off, warm-up and annealing, growth limit, spikes: each a stage in C."""
        gg = self._seen
        if self.updates == self.warmup and self.refresh == "window":
            self._reasons["released"] += self._stages.release_after(self.warmup)
        back_off = self._stages.back_off(gg)
        spike = self._stages.spike(gg, self.optimizers, self.rates.ratios)
        found = self._base.value
        if found is None:
            if self._rate == 0.0:
                self._rate = self._base.first([p for _, p in self._with_gradients()], gg)
            return self._rate * back_off * spike
        base = self._stages.bounded(found) * back_off
        wanted = base * self._factor()
        self._rate = self._stages.limited(wanted, self._rate) if wanted > 0 else 0.0
        return self._rate * spike

    def _before_closure(self) -> float | None:
        """A first rate, as for a gradient of unknown length; later ones were written the update before."""
        if self._rate == 0.0 and self._base.value is None:
            params = [p for _, p in self._moved()]
            self._rate = self._base.first(params, 0.0)
            return self._rate
        return None

    # ---- what the update does

    def _due(self, update: int) -> bool:
        """Whether that update is to be measured."""
        if self.observe_only and self._measured == 0 and self._failed >= PATIENCE:
            return False
        if self._base.value is not None and self.refresh == "window" and update >= self.warmup:
            return self.observe_only and update % self.every == 0
        return update < FIRST_UPDATES or update % self.every == 0 or self._base.value is None

    def _note_position(self, rate: float) -> None:
        self._noted = None
        if rate > 0 and self._due(self.updates):
            found = list(self._with_gradients())
            check_members(self.model, found)
            params = [p for _, p in found]
            self._base.note_start(params)
            self._noted = note(self.optimizers, found, self.rates.ratios, self._gradient_scale())
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
        if self._base.value is None and not self.observe_only:
            rate, reason = self._base.made_visible(direction, self._seen, self._rate)
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
        squares = self.schedule.sum_of_squares() if self.refresh == "window" else 0.0
        rate, reason = self._base.learn(statistics, pending.reach, samples, squares)
        if rate and self.scope != "global" and not self.observe_only:
            found = Measurement(pending, direction, samples, self._draw, self._meter, measured, self._base.rule_of)
            self._base.adopt(found, rate, self.scope, self.rates.ratios)
        elif rate:
            self._base.value = rate
        elif self._base.value is None and reason == "no_curvature" and not self.observe_only:
            self._rate = self._base.farther(self._rate, direction)
        self._measured += 1
        if self._base.value is None and self._measured >= FIRST_UPDATES:
            self._say(
                "stuck",
                f"{self._measured} measurements and no learning rate yet ({reason}): along what the optimizer does the "
                "loss does not fall, or has no end; is `loss` what is trained, on batches of the same task?",
            )
        self._draw += len(samples)
        self._reasons[reason] += 1
        row["optimal"] = self._base.local(statistics)
        row["base"] = math.nan if self._base.value is None else self._base.value
        self._history.append(**row, **dataclasses.asdict(measured), reason=reason)
        return reason

    # ---- what the user sees

    @property
    def base_lr(self) -> float | None:
        """The rate before warm-up and annealing, of the first group; None until it is found."""
        return self._base.value

    @property
    def cost(self) -> tuple[float, int]:
        """Extra work so far: forward passes (a backward counts as two) and copies of the parameters."""
        return self._meter.forwards, self._meter.copies

    def explain(self) -> str:
        """What was found so far and what it means, in a few sentences."""
        return explain(self, self._base.value)

    def close(self) -> None:
        """Let go of optimizer and model: the rates stay as they are."""
        super().close()
        self._sampler.stream.close()
        if self._replicas is not None:
            self._replicas.close()

    # ---- checkpoints

    def _options(self) -> dict[str, Any]:
        own: dict[str, Any] = {name: getattr(self, name) for name in ("every", "refresh", "scope", "observe_only")}
        own |= {"act": "same-step" if self._same_step else "next", "estimator": type(self.estimator).__name__}
        return self.schedule.config | own | self._base.config | self._stages.config

    def _state(self) -> dict[str, Any]:
        """Where the next batch measures (``refresh="always"``, ``batches=``) that includes the last displacement."""
        return {
            **self._base.state(),
            **self._meter.state(),
            **{name: getattr(self, f"_{name}") for name in _COUNTS},
            "stages": self._stages.state(),
            "begun": [list(of) for of in self._ages.begun],
            "taken": self._sampler.taken,
            "pending": None if self._pending is None else self._pending.state(),
        }

    def _load(self, saved: dict[str, Any]) -> None:
        self._noted = self._pending = None
        if saved["pending"] is not None and not self._at_once:
            self._pending = Displacement.of_state(saved["pending"], self.optimizers)
        self._stages.load(saved["stages"])
        self._base.load(saved)
        self._meter.load(saved)
        for name in _COUNTS:
            setattr(self, f"_{name}", saved[name])
        self._ages.begun, self._sampler.taken = saved["begun"], saved["taken"]

    def _loaded(self) -> None:
        self._watch(self.updates)


_COUNTS = ("rate", "draw", "measured", "failed")
"""What a state holds of a scheduler as it is."""
