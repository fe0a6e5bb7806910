"""What every scheduler of glyder shares: torch's contract, the optimizer's hooks, the record of a run, checkpoints.

The schedulers act from the optimizer's step hooks, never from a patched ``step``. An *update* is one step of every
optimizer given, with gradients. Before it, with the gradients there, :meth:`_begin` decides the rate; after it,
:meth:`_end` looks at what happened. The user's ``scheduler.step()`` may be called any number of times per update, or
not at all.

The hooks hold the scheduler, so that it lives as long as the optimizer, also where nobody else keeps it.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from glyder import _checks as checks
from glyder.engine.checkpoint import STATE_VERSION, check_state
from glyder.engine.history import History
from glyder.engine.hooks import PostHook, PreHook
from glyder.engine.missing_updates import MissingUpdates
from glyder.engine.rates import Rates
from glyder.engine.schedule import Schedule
from glyder.optimizers.groups import check_whole, listed
from glyder.optimizers.nested_steps import within_another
from glyder.optimizers.parameter_ref import ParameterRef
from glyder.optimizers.properties import acts_late, check_optimizer
from glyder.vectors.inner_products import inner_products


class GlyderWarning(UserWarning):
    """Something that the user should know; said once per scheduler."""


_KEYS = ("updates", "skipped", "total_steps", "config", "said", "reasons", "history")
"""Of the states of all schedulers, beside what they are of, and what :class:`Rates` has in them."""


class Scheduler(LRScheduler):
    """Base of the schedulers that set the rate by themselves. Subclasses define ``_begin`` and ``_end``.

    Not calling ``LRScheduler.__init__`` is deliberate: it would patch ``optimizer.step`` and count calls of ``step()``
    where this class counts updates. The constructor checks and changes nothing; :meth:`_attach` is the last act of a
    subclass's constructor, so that one that failed leaves no trace.
    """

    _SHARDED: ClassVar[bool] = False
    """Whether parameters may be sharded over ranks."""

    def __init__(
        self,
        optimizer: Optimizer | Sequence[Optimizer],
        schedule: Schedule,
        history: History,
        *,
        observe_only: bool = False,
    ) -> None:
        name = type(self).__name__
        optimizers = listed(optimizer)
        if not optimizers:
            raise ValueError(f"{name}(optimizer=...) needs at least one optimizer, got an empty list")
        for o in optimizers:
            check_optimizer(o, name, observe_only)
        if not self._SHARDED:
            check_whole(optimizers, name)
        self.optimizers: list[Optimizer] = optimizers
        self.optimizer = optimizers[0]
        self.observe_only = observe_only
        self.schedule = schedule
        self._said: set[str] = set()
        self.rates = Rates(optimizers, name, observe_only, self._say)
        self.base_lrs = self.rates.starting
        self.skipped = 0
        self._count(0)
        self._reasons: Counter[str] = Counter()
        self._history = history
        self._stepped: set[int] = set()
        self._open = self._nested = self._moves = False
        self._hidden: dict[int, list[tuple[Tensor, Tensor]]] = {}
        self._missing = MissingUpdates(optimizers)
        self._handles: list[Any] = []
        for o, other in self._others() if not observe_only else ():
            self._say(
                "replaced",
                f"optimizer {o} ({type(optimizers[o]).__name__}) has a {type(other).__name__} already, which gives way "
                f"and is closed: the new {type(self).__name__} goes on from {other.leaves_at()}. Where both were "
                "wanted, give each an optimizer of its own",
                level=4,
            )

    # ---- the contract of torch's schedulers

    def step(self, epoch: int | None = None) -> None:
        """Sets no rate: that was done in the update itself. Says so where calls come and no updates."""
        if not self._handles:
            return
        message = self._missing.call(type(self).__name__, self.updates)
        if message is not None:
            self._say("unseen", message)
        if self._missing.calls > 1:
            self._guarded(self._left_out)

    def get_last_lr(self) -> list[float | Tensor]:
        """The rates that the latest update was made with, one per group, 0 before the first; tensors are copies."""
        return [rate.clone() if isinstance(rate, Tensor) else rate for rate in self.rates.last]

    def get_lr(self) -> list[float | Tensor]:
        """The same as :meth:`get_last_lr`."""
        return self.get_last_lr()

    def close(self) -> None:
        """Let go of the optimizers: they keep their present rates. A closed scheduler does nothing more."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._repair()

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        state["_handles"] = []
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._attach()

    @property
    def updates(self) -> int:
        """Number of updates made. A step that was skipped for its gradients is not one."""
        return self._updates

    def _count(self, updates: int) -> None:
        self._updates = self.last_epoch = updates  # frameworks read and even write the names that torch uses
        self._step_count = updates + 1

    # ---- what the user sees

    @property
    def total_steps(self) -> float:
        """Updates of the whole run; infinite where it has no end."""
        return math.inf if self.schedule.total_steps is None else self.schedule.total_steps

    @property
    def anneal(self) -> str:
        """Name of the schedule."""
        return self.schedule.name

    @property
    def warmup(self) -> int:
        """Updates of the warm-up, or of the search."""
        return self.schedule.warmup

    def extend(self, total_steps: int) -> None:
        """Change the number of updates of the run, from the next update on. What was found stays: call it early."""
        self.schedule.total_steps = checks.whole(f"{type(self).__name__}.extend", "total_steps", total_steps, 1)
        self._said.discard("over")

    @property
    def history(self) -> np.ndarray:
        """What was seen and decided: a structured array, its columns ``glyder.SEARCHED`` of GlyderLR, ``glyder.FIELDS``
        of LocalOptimumLR, and of a rule what it is shown and the base rate after it, a row for each block."""
        return self._history.array()

    @property
    def reasons(self) -> dict[str, int]:
        """How often each reason was given for what was decided."""
        return {reason: count for reason, count in self._reasons.items() if count}

    def _factor(self, warmup: int | None = None) -> float:
        """The schedule's factor of this update, behind another warm-up where one is given; its end is said."""
        factor = self.schedule.factor(self.updates, warmup)
        if factor == 0:
            self._say_over()
        return factor

    # ---- for subclasses

    def _begin(self) -> float | None:
        """Before an update, gradients present. Returns the reference rate to make it with; None leaves it."""
        raise NotImplementedError

    def _before_closure(self) -> float | None:
        """As :meth:`_begin`, for an optimizer that reads its rate before there are gradients."""

    def _end(self) -> None:
        """After an update."""

    def _watch_closure(self, closure: Callable[..., Any]) -> Callable[..., Any]:
        """The closure of this update, and what is to be run in its place."""
        return closure

    def _saw_loss(self, loss: Any) -> None:
        """What a closure returned, before the update that it gave the gradients of."""

    def leaves_at(self) -> str:
        """Where :meth:`close` would leave parameters and optimizer."""
        return "where parameters and optimizer are"

    def _left_out(self) -> None:
        """``step()`` was called and there was no update."""

    def _abandon(self) -> None:
        """An update was begun and never finished: forget what was noted for it."""

    def _say(self, key: str, message: str, level: int = 3) -> None:
        if key not in self._said:
            self._said.add(key)
            warnings.warn(message, GlyderWarning, stacklevel=level)

    def _say_over(self) -> None:
        self._say(
            "over",
            f"total_steps={self.schedule.total_steps} updates are done and the learning rate is at its end: training "
            "goes on without effect; give the right total_steps, or call extend(total_steps)",
        )

    def _with_gradients(self) -> Iterator[tuple[ParameterRef, Tensor]]:
        """Parameters that the update will move: a gradient, and a group whose rate is not 0."""
        return ((place, p) for place, p in self._moved() if p.grad is not None)

    def _grads(self) -> Iterator[Tensor]:
        """The gradients of :meth:`_with_gradients`, in its order."""
        for ratios, optimizer in zip(self.rates.ratios, self.optimizers, strict=True):
            for ratio, group in zip(ratios, optimizer.param_groups, strict=False):  # a group may have been taken away
                if ratio or self.observe_only:
                    yield from (p.grad for p in group["params"] if p.grad is not None)

    def _moved(self) -> Iterator[tuple[ParameterRef, Tensor]]:
        """Parameters of the groups whose rate is not 0."""
        for o, optimizer in enumerate(self.optimizers):
            for g, group in enumerate(optimizer.param_groups):
                if self.rates.ratios[o][g] == 0 and not self.observe_only:
                    continue
                for i, p in enumerate(group["params"]):
                    yield ParameterRef(o, g, i), p

    def _parameter(self, place: ParameterRef) -> Tensor:
        p: Tensor = self.optimizers[place.optimizer].param_groups[place.group]["params"][place.index]
        return p

    def _gradient_scale(self) -> float:
        """What a GradScaler multiplied the gradients by that a fused optimizer has yet to take out."""
        scales = (getattr(o, "grad_scale", None) for o in self.optimizers)
        return next((float(s) for s in scales if s is not None), 1.0)

    def _take_in_groups(self) -> None:
        """Groups that were added to an optimizer, and those at rest that were given a rate."""
        new = self.rates.take_in_groups()
        self.base_lrs = self.rates.starting
        for key in new:
            self._joined(key)

    def _split_groups(self) -> None:
        """A group for each parameter."""
        self.rates.split_groups()
        self.base_lrs = self.rates.starting

    def _joined(self, key: tuple[int, int]) -> None:
        """A group, by optimizer and index, has been given a ratio on the way."""

    # ---- checkpoints

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs to go on to the same bits: plain values and tensors."""
        self._take_in_groups()
        return {
            "version": STATE_VERSION,
            "scheduler": self._kind(),
            "updates": self.updates,
            "skipped": self.skipped,
            "total_steps": self.schedule.total_steps,
            "config": self._options(),
            "said": sorted(self._said),
            "reasons": dict(self._reasons),
            "history": self._history.state(),
            **self.rates.state(),
            **self._state(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken; model, optimizer and scheduler may be loaded in any order.

        Options given to the constructor stay, but for ``total_steps``, which is the state's; a difference is said
        once. The state is copied, not kept. One that is refused, with a ValueError, changes nothing.
        """
        saved = copy.deepcopy(state_dict)
        check_state(saved, self._kind(), (*_KEYS, *self.rates.state(), *self._state()), self.optimizers)
        self._check(saved)
        self._tell_differences(saved)
        self._load(saved)
        self.skipped, self.schedule.total_steps = saved["skipped"], saved["total_steps"]
        self._count(saved["updates"])
        self._said = set(saved["said"])
        self._reasons.clear()  # stages hold it
        self._reasons.update(saved["reasons"])
        self._history.load(saved["history"])
        self.rates.load(saved, self.updates)
        self._loaded()

    def _kind(self) -> str:
        """Whose states it takes."""
        return type(self).__name__

    def _options(self) -> dict[str, Any]:
        """Options that change the run: one that is resumed is told where they differ."""
        return self.schedule.config

    def _state(self) -> dict[str, Any]:
        """What a subclass has to save besides."""
        raise NotImplementedError

    def _check(self, saved: dict[str, Any]) -> None:
        """Refuse a state that :meth:`_load` cannot take."""

    def _load(self, saved: dict[str, Any]) -> None:
        """Inverse of :meth:`_state`."""
        raise NotImplementedError

    def _loaded(self) -> None:
        """After all of a state was loaded."""

    def _tell_differences(self, saved: dict[str, Any]) -> None:
        theirs, total = saved["config"], self.schedule.total_steps
        ours = {name: value for name, value in self._options().items() if theirs.get(name) != value}
        differing = [f"{name}={value!r} (saved with {theirs.get(name)!r})" for name, value in ours.items()]
        if differing:
            found = ", ".join(differing)
            self._say("options", f"the run goes on with other options than it was saved with: {found}")
        if total not in (None, saved["total_steps"]):
            self._say(
                "total_steps",
                f"total_steps={total} is not that of the saved run, {saved['total_steps']}, which it goes on with: "
                "call extend(total_steps) after loading to change it",
            )

    # ---- hooks

    def _attach(self) -> None:
        if not self.observe_only:
            for _, other in self._others():  # one sets the rates: the newest, as the others may be out of reach
                other.close()
            self.rates.own()
        for o, optimizer in enumerate(self.optimizers):
            self._handles.append(optimizer.register_step_pre_hook(PreHook(self, o, self._before_step)))
            self._handles.append(optimizer.register_step_post_hook(PostHook(o, self._after_step)))

    def _others(self) -> list[tuple[int, Scheduler]]:
        """Schedulers of these optimizers that were there before, and the index of the optimizer each was found at."""
        hooks = ((o, h) for o, of in enumerate(self.optimizers) for h in of._optimizer_step_pre_hooks.values())
        found = {id(h.owner): (o, h.owner) for o, h in hooks if isinstance(h, PreHook)}
        return [(o, other) for o, other in found.values() if not other.observe_only and other is not self]

    def _before_step(
        self, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if self._open and within_another(self.optimizers[index]):  # that one has begun it
            self._nested = True
            return None
        if self._open or index in self._stepped:  # a step that raised, or one optimizer stepped more often
            self._repair()
        self._open, self._nested = True, False
        self._missing.stepped.add(index)
        if self._stepped:
            return None
        self._moves = False
        self._take_in_groups()
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            self._begin_update()
            return None
        if len(self.optimizers) > 1:
            raise TypeError(f"{type(self).__name__} of several optimizers cannot be stepped with a closure")
        closure = self._watch_closure(closure)
        late = acts_late(self.optimizer)
        if late:
            self._set(self._before_closure())
        begun = False

        def wrapped() -> Any:
            nonlocal begun
            loss = closure()  # the gradients exist only now
            if not begun:
                begun = True
                self._saw_loss(loss)
                self._begin_update(late)
            return loss

        if "closure" in kwargs:
            return args, {**kwargs, "closure": wrapped}
        return (args[0], wrapped, *args[2:]), kwargs

    def _begin_update(self, late: bool = False) -> None:
        """``late``: the optimizer has read its rate already, and a new one acts in its next step."""
        if not any(True for _ in self._grads()):
            return
        self._moves = True
        read = (self.rates.read(), self.rates.now()) if late else None
        self._set(self._guarded(self._begin))
        self.rates.note(read)

    def _set(self, rate: float | None) -> None:
        if rate is not None:
            self.rates.write(rate)

    def _after_step(self, index: int) -> None:
        if not self._open or (self._nested and within_another(self.optimizers[index])):  # that one will end it
            return
        self._open = False
        self._show_gradients(index)
        self._stepped.add(index)
        if len(self._stepped) < len(self.optimizers):
            return
        self._stepped.clear()
        if not self._moves:
            return
        try:
            self._guarded(self._end)
        finally:
            self._count(self.updates + 1)  # it was made, whatever came of looking at it
            self._missing.forget()

    def _guarded(self, act: Callable[[], float | None]) -> float | None:
        """Outside of autograd; and what only observes must not stop the training, whatever goes wrong."""
        try:
            with torch.no_grad():
                return act()
        except Exception as error:
            if not self.observe_only:
                raise
            self._abandon()
            self._say("observing", f"nothing could be observed: {type(error).__name__}: {error} (said once)")
            return None

    def _repair(self) -> None:
        self._open = False
        self._stepped.clear()
        for index in list(self._hidden):
            self._show_gradients(index)
        self._abandon()

    def _skip_not_finite(self) -> None:
        """A gradient that is not finite: this update is made without gradients, so that nothing moves."""
        if not self._overflowed():
            self._say(
                "not_finite",
                f"the gradient of update {self.updates} is infinite or not a number: the update is skipped; "
                "parameters, optimizer state and rate stay as they are (said once, counted in `skipped`)",
            )
        self._hide_gradients()
        self.skipped += 1
        self._missing.forget()

    def _hide_gradients(self) -> None:
        """Let the optimizers make this step without gradients: parameters and optimizer state stay as they are."""
        for o, optimizer in enumerate(self.optimizers):
            params = (p for group in optimizer.param_groups for p in group["params"])
            self._hidden[o] = [(p, p.grad) for p in params if p.grad is not None]
            for p, _ in self._hidden[o]:
                p.grad = None
        self._moves = False

    def _show_gradients(self, index: int) -> None:
        for p, grad in self._hidden.pop(index, ()):
            if p.grad is None:
                p.grad = grad

    def _overflowed(self) -> bool:
        """Whether a GradScaler has told a fused optimizer that its scale was too large: expected, and its affair."""
        found = (getattr(o, "found_inf", None) for o in self.optimizers)
        return any(f is not None and float(f) > 0 for f in found)

    def _squared_gradient(self) -> float:
        """||g||^2 over everything that moves. Every update pays for it, so places are named on error only."""
        grads = list(self._grads())

        def where(i: int) -> str:
            return f"gradient of {list(self._with_gradients())[i][0]}"

        return self._squared_length(grads, where)

    def _squared_length(self, grads: list[Tensor], where: Callable[[int], str] | None = None) -> float:
        """Of these gradients, as they are without a GradScaler's factor."""
        return inner_products([grads], [(0, 0)], where=where)[0] / self._gradient_scale() ** 2
