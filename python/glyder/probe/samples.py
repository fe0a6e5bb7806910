"""What a measurement is made on: a training batch, or additional mini-batches."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from glyder.probe.capture import Call, TrainingStream, outputs_of, versions
from glyder.probe.estimators import Sample
from glyder.probe.extra_batches import batches_of
from glyder.probe.isolation import Mode, seed_all, stand_ins, untouched
from glyder.probe.outputs_loss import EstimatorError
from glyder.probe.update_direction import Direction

_Held = tuple[Call | None, tuple[Tensor, Tensor] | None, int, list[Tensor | None], tuple[int, ...]]
"""The last pass, what the criterion was called with, how many passes, the gradients and their versions."""


class Sampler:
    """Makes the samples of a measurement.

    Args:
        model: the module that is trained.
        loss: as given to the scheduler: None, ``"squared_error"``, a criterion module or a callable.
        logits: picks the logits out of what the model returns.
        batches, n_batches: additional mini-batches and how many of them make a measurement; None for the training
            stream.
        seed: of what is random in the forward passes of additional mini-batches.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: nn.Module | str | Callable[[nn.Module, Any], Tensor] | None,
        logits: Callable[[Any], Tensor] | None,
        batches: Any,
        n_batches: int,
        seed: int,
    ) -> None:
        if isinstance(loss, str) and loss != "squared_error":
            raise ValueError(f"loss={loss!r} is not known: a loss by name is 'squared_error'; others are callables")
        if batches is not None and (loss is None or isinstance(loss, str)):
            raise ValueError(f"batches=... needs loss=callable(model, batch) or a criterion module, got loss={loss!r}")
        if batches is None and n_batches != 1:
            raise ValueError(f"n_batches={n_batches} needs batches=...: the training stream is one batch at a time")
        self.model, self.logits = model, logits
        self.loss: Any = loss
        self.n_batches, self.seed = n_batches, seed
        self.batches = None if batches is None else batches_of(batches, seed)
        criterion = loss if isinstance(loss, nn.Module) and batches is None else None
        self.stream = TrainingStream(model, logits, criterion)
        self._mode: Mode | None = None
        self.held: _Held | None = None

    def watch(self, due: bool) -> None:
        """Remember the forward passes of the update that comes, or none. What was held is let go."""
        self.held = None
        if due:
            self.stream.arm()
        else:
            self.stream.disarm()

    def hold(self, params: Sequence[Tensor]) -> None:
        """Hold on to what the update that begins is made from, the passes so far and the gradients.

        A closure may run more passes at other parameters, and make gradients anew, before the update is over. Of an
        update that begins once more without a pass of its own, what was seen before still holds.
        """
        seen = self.stream.last, self.stream.target, self.stream.passes
        if self.held is not None and seen[0] is None:
            seen = self.held[:3]
        grads = [p.grad for p in params]
        self.held = *seen, grads, versions(grads)
        self.stream.arm()

    def samples(self, direction: Direction, draw: int) -> list[Sample]:
        """The samples to average over. Leaves the model untouched."""
        if self.batches is None:
            return [self._training(direction)]
        seen = self.stream.last if self.held is None else self.held[0]
        if seen is not None:
            self._mode = seen.mode  # as training runs the model: autocast and flags
        return [self._additional(direction, self.batches(), draw + i) for i in range(self.n_batches)]

    @property
    def taken(self) -> int:
        """Additional mini-batches taken so far, where that can be told (a callable of the user's keeps its own)."""
        return getattr(self.batches, "taken", 0)

    @taken.setter
    def taken(self, value: int) -> None:
        if hasattr(self.batches, "taken"):
            self.batches.taken = value  # type: ignore[union-attr]

    def _training(self, direction: Direction) -> Sample:
        if self.held is None:
            self.hold(direction.params)
        assert self.held is not None
        call, target, passes, gradients, before = self.held
        if versions(gradients) != before:  # by the optimizer: the outputs have the slope, too
            gradients = [None] * len(gradients)
        self.watch(False)  # what the measurement itself runs is not to be remembered
        evaluate = None
        if isinstance(self.loss, nn.Module):
            if call is not None and target is not None:

                def evaluate(model: nn.Module) -> Tensor:
                    outputs = outputs_of(model(*call.args, **call.kwargs), self.logits)
                    return _scalar(self.loss(_like(outputs, target[0]), target[1]))

        elif callable(self.loss):

            def evaluate(model: nn.Module) -> Tensor:
                return _scalar(self.loss(model, call))

        return Sample(
            gradients=gradients,
            call=call,
            passes=passes,
            loss=evaluate,
            criterion=self.loss if isinstance(self.loss, (nn.Module, str)) else None,
            target=target,
        )

    def _additional(self, direction: Direction, batch: Any, draw: int) -> Sample:
        target: tuple[Tensor, Tensor] | None = None

        def evaluate(model: nn.Module) -> Tensor:
            nonlocal target
            if not isinstance(self.loss, nn.Module):
                return _scalar(self.loss(model, batch))
            inputs, labels = _pair(batch, model)
            outputs = outputs_of(model(inputs), self.logits)
            target = (outputs.detach(), labels)
            return _scalar(self.loss(outputs, labels))

        self.stream.arm()
        try:
            with (
                untouched(),
                torch.enable_grad(),
                stand_ins(self.model, {}),
                contextlib.nullcontext() if self._mode is None else self._mode.applied(self.model),
            ):
                seed_all(self.seed * 1_000_003 + draw)
                gradients = torch.autograd.grad(evaluate(self.model), direction.params, allow_unused=True)
            call, passes = self.stream.last, self.stream.passes
        finally:
            self.stream.disarm()
        return Sample(
            gradients=gradients,
            call=call,
            passes=passes,
            loss=evaluate,
            criterion=self.loss if isinstance(self.loss, nn.Module) else None,
            target=target,
            exact=True,
            passes_made=3.0,
        )


def only(samples: Sequence[Sample], indices: Sequence[int]) -> list[Sample]:
    """The same samples for a part of the direction's parameters."""
    return [dataclasses.replace(s, gradients=[s.gradients[i] for i in indices]) for s in samples]


def _scalar(loss: Any) -> Tensor:
    if not (isinstance(loss, Tensor) and loss.numel() == 1):
        kind = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise EstimatorError(f"loss=callable must return a tensor with one element, got {kind}")
    return loss.reshape(())


def _pair(batch: Any, model: nn.Module) -> tuple[Any, Any]:
    """Inputs and labels for a criterion module, where the model is."""
    if not (isinstance(batch, (tuple, list)) and len(batch) == 2):
        raise EstimatorError(
            f"with loss=criterion a batch must be a pair (inputs, labels), got {type(batch).__name__}: "
            "pass loss=lambda model, batch: ... instead of the module"
        )
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    inputs, labels = tree_map(lambda value: value.to(device) if isinstance(value, Tensor) else value, batch)
    return inputs, labels


def _like(outputs: Tensor, given: Tensor) -> Tensor:
    """The outputs in the shape that the criterion was given."""
    if outputs.shape == given.shape:
        return outputs
    if given.dim() > 2 and outputs.movedim(-1, 1).shape == given.shape:
        return outputs.movedim(-1, 1)
    if given.dim() <= 2 and outputs.numel() == given.numel():
        return outputs.reshape(given.shape)
    raise EstimatorError(
        f"the criterion was called with shape {tuple(given.shape)}, the model's outputs have {tuple(outputs.shape)}: "
        "pass loss=lambda model, batch: ... instead of the module"
    )
