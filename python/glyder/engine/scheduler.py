"""What every scheduler of glyder shares: torch's contract, the optimizer's hooks, the only writer of rates.

The schedulers act from the optimizer's step hooks, never from a patched ``step``. An *update* is one step of every
optimizer given, with gradients. Before it, with the gradients there, :meth:`_begin` decides the rate; after it,
:meth:`_end` looks at what happened. The user's ``scheduler.step()`` may be called any number of times per update, or
not at all.

The hooks hold the scheduler, so that it lives as long as the optimizer, also where nobody else keeps it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from glyder.engine.checkpoint import check_state
from glyder.engine.hooks import PostHook, PreHook
from glyder.engine.missing_updates import Unseen
from glyder.optimizers.groups import check_apart, check_ratios, fits, reference_of, split, starting_rates, take_in
from glyder.optimizers.nested_steps import within_another
from glyder.optimizers.parameter_ref import ParameterRef
from glyder.optimizers.properties import acts_late, check_optimizer
from glyder.vectors.inner_products import inner_products


class GlyderWarning(UserWarning):
    """Something that the user should know; said once per scheduler."""


class Scheduler(LRScheduler):
    """Base of the schedulers that set the rate by themselves. Subclasses define ``_begin`` and ``_end``.

    Not calling ``LRScheduler.__init__`` is deliberate: it would patch ``optimizer.step`` and count calls of ``step()``
    where this class counts updates. The constructor checks and changes nothing; :meth:`_attach` is the last act of a
    subclass's constructor, so that one that failed leaves no trace.
    """

    def __init__(self, optimizer: Optimizer | Sequence[Optimizer], *, observe_only: bool = False) -> None:
        optimizers: list[Any] = list(optimizer) if isinstance(optimizer, (list, tuple)) else [optimizer]
        if not optimizers:
            raise ValueError(f"{type(self).__name__}(optimizer=...) needs at least one optimizer, got an empty list")
        for o in optimizers:
            check_optimizer(o, type(self).__name__, observe_only)
        if not observe_only:
            check_apart(optimizers, type(self).__name__)
        self.optimizers: list[Optimizer] = optimizers
        self.optimizer = optimizers[0]
        self.observe_only = observe_only
        rates = starting_rates(optimizers, type(self).__name__, observe_only)
        self._reference = reference_of(rates)
        self._ratios = [[rate / self._reference for rate in of] for of in rates]
        if not observe_only:
            check_ratios(self._ratios, rates, self._reference)
        self.skipped = 0
        self._count(0)
        self._said: set[str] = set()
        self._stepped: set[int] = set()
        self._open = self._nested = self._moves = False
        self._hidden: dict[int, list[tuple[Tensor, Tensor]]] = {}
        self._unseen = Unseen(optimizers)
        self._acting = 0.0
        self._written: list[float | None] = []
        self._written_ratios: list[list[float]] = [[] for _ in optimizers]
        self._last_lr = self._no_rates()
        self.base_lrs = [
            group.get("initial_lr", rate) for group, rate in zip(self._groups(), self._rates(), strict=True)
        ]
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
        message = self._unseen.call(type(self).__name__, self.updates)
        if message is not None:
            self._say("unseen", message)
        if self._unseen.calls > 1:
            self._guarded(self._left_out)

    def get_last_lr(self) -> list[float | Tensor]:
        """The rates that the latest update was made with, one per group, 0 before the first; tensors are copies."""
        return [rate.clone() if isinstance(rate, Tensor) else rate for rate in self._last_lr]

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

    def _say_over(self, horizon: int | None) -> None:
        self._say(
            "over",
            f"total_steps={horizon} updates are done and the learning rate is at its end: training goes on without "
            "effect; give the right total_steps, or call extend(total_steps)",
        )

    def _check_state(self, saved: dict[str, Any], of: str, keys: Iterable[str] = ("ratios",)) -> None:
        check_state(saved, of, keys, self.optimizers)

    def _groups(self) -> Iterator[dict[str, Any]]:
        return (group for o in self.optimizers for group in o.param_groups)

    def _with_gradients(self) -> Iterator[tuple[ParameterRef, Tensor]]:
        """Parameters that the update will move: a gradient, and a group whose rate is not 0."""
        return ((place, p) for place, p in self._moved() if p.grad is not None)

    def _grads(self) -> Iterator[Tensor]:
        """The gradients of :meth:`_with_gradients`, in its order."""
        for ratios, optimizer in zip(self._ratios, self.optimizers, strict=True):
            for ratio, group in zip(ratios, optimizer.param_groups, strict=False):  # a group may have been taken away
                if ratio or self.observe_only:
                    yield from (p.grad for p in group["params"] if p.grad is not None)

    def _moved(self) -> Iterator[tuple[ParameterRef, Tensor]]:
        """Parameters of the groups whose rate is not 0."""
        for o, optimizer in enumerate(self.optimizers):
            for g, group in enumerate(optimizer.param_groups):
                if self._ratios[o][g] == 0 and not self.observe_only:
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

    def _applied(self) -> float:
        """The reference rate as the optimizer will read it (a tensor rate may have rounded it)."""
        for ratios, optimizer in zip(self._ratios, self.optimizers, strict=True):
            for ratio, group in zip(ratios, optimizer.param_groups, strict=False):
                rate = float(group["lr"])
                if self.observe_only and rate > 0:
                    return rate
                if ratio > 0 and not self.observe_only:
                    return rate / ratio
        return 0.0

    def _rates(self) -> list[float | Tensor]:
        rates = (group["lr"] for group in self._groups())
        return [rate.clone() if isinstance(rate, Tensor) else rate for rate in rates]

    def _no_rates(self) -> list[float | Tensor]:
        """The rates before the first update: none yet, but for what is only observed, which has its owner's."""
        return self._rates() if self.observe_only else [rate * 0 for rate in self._rates()]

    # ---- rates

    def _take_in_groups(self) -> None:
        """Groups that were added to an optimizer, and those at rest that were given a rate."""
        new = take_in(self.optimizers, self._ratios, self._reference, freed=not self.observe_only)
        if not new:
            return
        self._written = []  # of other places, or of a rate that was the user's to change
        for o, g in new:
            if g < len(self._written_ratios[o]):
                self._written_ratios[o][g] = self._ratios[o][g]
        if not self.observe_only:
            self._own_rates()
            for o, g in new:  # a scheduler after this one begins where this one would have begun
                self.optimizers[o].param_groups[g]["initial_lr"] = self._reference * self._ratios[o][g]
        self.base_lrs = [group.get("initial_lr", float(group["lr"])) for group in self._groups()]
        for key in new:
            self._joined(key)

    def _joined(self, key: tuple[int, int]) -> None:
        """A group, by optimizer and index, has been given a ratio on the way."""

    def _split_groups(self) -> None:
        """A group for each parameter, in place; rates, options and ratios stay what they are."""
        split(self.optimizers, self._ratios, type(self).__name__)
        self._written_ratios = [[] for _ in self.optimizers]
        self._last_lr = self._no_rates()
        self.base_lrs = [float(rate) for rate in self._rates()]

    def _write_again(self, rate: float) -> None:
        """After loading, what was written last: a measurement since may have changed the ratios."""
        self._written, self._last_lr = [], self._no_rates()
        if self.observe_only or not self.updates:
            return
        old = [w + r[len(w) :] for w, r in zip(self._written_ratios, self._ratios, strict=True)]
        self._ratios, now = old, self._ratios
        self._write(rate)
        self._ratios, self._last_lr = now, self._rates()
        self._written = []  # an optimizer that is loaded after this has what its owner gave a group since

    def _write(self, rate: float) -> None:
        """The only place where a learning rate is written."""
        groups = list(self._groups())
        values = [rate * ratio for ratios in self._ratios for ratio in ratios]
        if not all(fits(value, group["lr"]) for value, group in zip(values, groups, strict=True)):
            self._say("overflow", f"a learning rate would overflow ({max(values)}): all stay as they were (said once)")
            return
        now = [group["lr"] for group in groups]
        if any(w is not None and w != lr for w, lr in zip(self._written, now, strict=False)):
            self._say(
                "foreign",
                f"something else changed the learning rate between two updates; {type(self).__name__} sets it by "
                "itself and overrides that: remove the other scheduler, or close() this one (said once)",
            )
        for value, group in zip(values, groups, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(value)
            else:
                group["lr"] = value
        self._written = [None if isinstance(group["lr"], Tensor) else group["lr"] for group in groups]
        self._written_ratios = [list(ratios) for ratios in self._ratios]

    # ---- hooks

    def _attach(self) -> None:
        if not self.observe_only:
            for _, other in self._others():  # one sets the rates: the newest, as the others may be out of reach
                other.close()
            self._own_rates()
        for o, optimizer in enumerate(self.optimizers):
            self._handles.append(optimizer.register_step_pre_hook(PreHook(self, o, self._before_step)))
            self._handles.append(optimizer.register_step_post_hook(PostHook(o, self._after_step)))

    def _others(self) -> list[tuple[int, Scheduler]]:
        """Schedulers of these optimizers that were there before, and the index of the optimizer each was found at."""
        hooks = ((o, h) for o, of in enumerate(self.optimizers) for h in of._optimizer_step_pre_hooks.values())
        found = {id(h.owner): (o, h.owner) for o, h in hooks if isinstance(h, PreHook)}
        return [(o, other) for o, other in found.values() if not other.observe_only and other is not self]

    def _own_rates(self) -> None:
        """``initial_lr`` as torch's schedulers leave it; a tensor rate that groups share becomes one for each."""
        seen: set[int] = set()
        for group in self._groups():
            rate = group["lr"]
            group.setdefault("initial_lr", rate.clone() if isinstance(rate, Tensor) else rate)
            if isinstance(rate, Tensor):
                if id(rate) in seen:
                    group["lr"] = rate.clone()
                seen.add(id(rate))

    def _before_step(
        self, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if self._open and within_another(self.optimizers[index]):  # that one has begun it
            self._nested = True
            return None
        if self._open or index in self._stepped:  # a step that raised, or one optimizer stepped more often
            self._repair()
        self._open, self._nested = True, False
        self._unseen.stepped.add(index)
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
        read = (self._applied(), self._rates()) if late else None
        self._set(self._guarded(self._begin))
        self._acting, self._last_lr = read or (self._applied(), self._rates())

    def _set(self, rate: float | None) -> None:
        if rate is not None and not self.observe_only:
            self._write(rate)

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
            self._unseen.forget()

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
        self._unseen.forget()

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
