"""The training stream as the source of data to measure on.

An update is measured with the training batch that it was made from, or with the next one, which is independent of it.
Hooks on the model remember how the forward passes of that batch were called, what came out, and the gradient that the
user's own backward pass sent into the outputs. Nothing else is needed: no second loader, no closure, no loss function.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from glyder.probe.isolation import Mode, RandomState


class OutputError(TypeError):
    """The model's output holds no tensor that can be taken for logits."""


def outputs_of(result: Any, logits: Callable[[Any], Tensor] | None = None) -> Tensor:
    """The tensor of logits (or predictions) in what a model returned.

    A tensor is itself; otherwise the attribute or key ``logits``; otherwise the only floating-point tensor of a
    tuple, list or dict. ``logits`` (a callable) overrides all of it. Raises OutputError with the remedy.
    """
    if logits is not None:
        chosen = logits(result)
        if not isinstance(chosen, Tensor):
            raise OutputError(f"logits=... must return a tensor, got {type(chosen).__name__}")
        return chosen
    if isinstance(result, Tensor):
        return result
    named = result.get("logits") if isinstance(result, Mapping) else getattr(result, "logits", None)
    if isinstance(named, Tensor):
        return named
    values = list(result.values()) if isinstance(result, Mapping) else result
    if isinstance(values, (tuple, list)):
        tensors = [v for v in values if isinstance(v, Tensor) and v.is_floating_point()]
        if len(tensors) == 1:
            return tensors[0]
    raise OutputError(
        f"cannot tell the logits in a model output of type {type(result).__name__}: "
        "pass logits=lambda output: ... to the estimator"
    )


@dataclass(eq=False)
class Call:
    """One forward pass of the training loop that took part in a backward pass."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    mode: Mode
    random: RandomState
    versions: tuple[int, ...]
    outputs: Tensor | None = None
    unclear: OutputError | None = None
    """Why there are no ``outputs``: raised where they are needed."""
    residual: Tensor | None = None
    """Gradient of the trained loss by the outputs, in whatever scale the loss had."""
    residual_version: int = 0
    used: bool = False
    """Whether a backward pass came through."""
    cache: dict[str, Any] = field(default_factory=dict)

    @property
    def stale(self) -> bool:
        """Whether the inputs, the outputs or their gradient were overwritten since the pass."""
        overwritten = self.residual is not None and self.residual._version != self.residual_version
        return overwritten or versions(self.args, self.kwargs, self.outputs) != self.versions

    def receive(self, gradient: Tensor) -> None:
        """The gradient by the outputs; more than once where the graph is retained for a second backward.

        It is kept itself, not by an alias: autograd would take it for free, and make a parameter's ``.grad`` of it.
        """
        gradient = gradient.detach() if gradient.requires_grad else gradient
        self.residual = gradient if self.residual is None else self.residual + gradient
        self.residual_version = self.residual._version


def versions(*values: Any) -> tuple[int, ...]:
    """How often each tensor in the values, nested or not, was written in place; inference tensors do not count that."""
    tensors = (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor) and not leaf.is_inference())
    return tuple(t._version for t in tensors)


class TrainingStream:
    """Remembers the forward passes of the next update while it is armed.

    Attributes:
        passes: forward passes whose outputs received a gradient since :meth:`arm`.
        last: the latest of them, or None.
    """

    def __init__(self, model: nn.Module, logits: Callable[[Any], Tensor] | None, criterion: nn.Module | None) -> None:
        self.model = model
        self.logits = logits
        self.armed = False
        self.passes = 0
        self.last: Call | None = None
        self.target: tuple[Tensor, Tensor] | None = None
        self._open: Call | None = None
        self.age = 0
        """Counts :meth:`arm`: a late backward through a pass of an earlier update is not of this one."""
        self._criterion = criterion
        self._attach()

    def _attach(self) -> None:
        hooks = _Hooks(self)
        self._handles = [
            self.model.register_forward_pre_hook(hooks.before, with_kwargs=True),
            self.model.register_forward_hook(hooks.after, with_kwargs=True),
        ]
        if self._criterion is not None:
            self._handles.append(self._criterion.register_forward_pre_hook(hooks.loss))

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy, or one out of a pickle: its model carries hooks without a link, which give way to its own."""
        self.__dict__.update(state)
        for handle in self._handles:
            handle.remove()
        self._attach()

    def arm(self) -> None:
        """Remember the passes from now on."""
        self.armed, self.passes, self.last, self.target, self._open = True, 0, None, None, None
        self.age += 1

    def disarm(self) -> None:
        """Forget everything, and hold no reference to the user's data."""
        self.arm()
        self.armed = False

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()
        self.disarm()

    def entered(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.armed and torch.is_grad_enabled():
            self._open = Call(args, kwargs, Mode.now(self.model), RandomState.now(), versions(args, kwargs))
        else:
            self._open = None

    def left(self, result: Any) -> None:
        call, self._open = self._open, None
        if call is None or not torch.is_grad_enabled():
            return
        try:
            outputs = outputs_of(result, self.logits)
            seen, call.outputs = [outputs], outputs.detach()
        except OutputError as error:
            call.unclear, seen = error, tree_leaves(result)
        call.versions += versions(call.outputs)
        stream, age = weakref.ref(self), self.age

        def received(gradient: Tensor) -> None:
            owner = stream()
            if owner is None or not owner.armed or owner.age != age:
                return
            if not call.used:
                call.used = True
                owner.passes += 1
                owner.last = call
            if call.outputs is not None:
                call.receive(gradient)

        for tensor in seen:
            if isinstance(tensor, Tensor) and tensor.requires_grad:
                tensor.register_hook(received)

    def scored(self, args: tuple[Any, ...]) -> None:
        if self.armed and torch.is_grad_enabled() and len(args) >= 2 and all(isinstance(a, Tensor) for a in args[:2]):
            self.target = (args[0].detach(), args[1].detach())


class _Hooks:
    """What is registered on the model: a weak link, so that copies and pickles of the model carry nothing of it."""

    def __init__(self, stream: TrainingStream | None = None) -> None:
        self._stream = (lambda: None) if stream is None else weakref.ref(stream)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Hooks, ()

    def __deepcopy__(self, memo: dict[int, Any]) -> _Hooks:
        return _Hooks()

    # The hooks run arbitrary Python and must not be traced into a compiled graph.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        stream = self._stream()
        if stream is not None:
            stream.entered(args, kwargs)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        stream = self._stream()
        if stream is not None:
            stream.left(result)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def loss(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        stream = self._stream()
        if stream is not None:
            stream.scored(args)
