"""Running the user's model without leaving a trace.

A measurement repeats forward passes of the model at shifted parameters. :func:`untouched` makes sure that nothing
of it remains, also when it raises: parameters are never written (shifted copies stand in for them), buffers are
copies (so batch-norm statistics do not see the extra passes), and module attributes, train/eval flags, random
generators, autograd and autocast state are put back.

What it cannot undo: side effects outside the model, such as a counter in a global variable.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class RandomState:
    """State of every random generator that a forward pass may draw from."""

    python: tuple
    numpy: dict
    cpu: Tensor
    cuda: list[Tensor]

    @classmethod
    def now(cls) -> RandomState:
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        return cls(random.getstate(), np.random.get_state(legacy=False), torch.get_rng_state(), cuda)

    def restore(self) -> None:
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.cpu)
        if self.cuda:
            torch.cuda.set_rng_state_all(self.cuda)


def seed_all(seed: int) -> None:
    """Seed every generator that a forward pass or a data set may draw from. Between now() and restore() only."""
    seed %= 2**32
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the generator that users' data sets draw from
    torch.manual_seed(seed)


@dataclass(frozen=True)
class Mode:
    """Under which switches a forward pass was run: autocast per device, and the train/eval flag of every module."""

    autocast: tuple[tuple[str, torch.dtype], ...]
    training: tuple[bool, ...]

    @classmethod
    def now(cls, model: nn.Module) -> Mode:
        devices = {"cpu", *(p.device.type for p in model.parameters())} - {"meta"}
        on = tuple((d, torch.get_autocast_dtype(d)) for d in sorted(devices) if torch.is_autocast_enabled(d))
        return cls(on, tuple(module.training for module in model.modules()))

    @property
    def half(self) -> bool:
        """Whether autocast computes in half precision."""
        return any(dtype.itemsize < 4 for _, dtype in self.autocast)

    @contextlib.contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Repeat the switches. The autocast weight cache stays off: two probes would see the same weights."""
        with contextlib.ExitStack() as stack:
            for device in ("cpu", "cuda"):
                if torch.is_autocast_enabled(device):
                    stack.enter_context(torch.autocast(device, enabled=False))
            for device, dtype in self.autocast:
                stack.enter_context(torch.autocast(device, dtype=dtype, cache_enabled=False))
            for module, training in zip(model.modules(), self.training, strict=True):
                module.training = training
            yield


@contextlib.contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Put everything of ``model`` and of the random generators back on the way out.

    Inside, buffers are copies, compiled code runs eagerly (a probe is no reason to recompile), and parameters may be
    replaced by :func:`parameters_as`.
    """
    saved = [(m, dict(m.__dict__), dict(m._parameters), dict(m._buffers)) for m in model.modules()]
    rng = RandomState.now()
    copies: dict[int, Tensor] = {}
    try:
        for module, _, _, buffers in saved:
            for name, buffer in buffers.items():
                if buffer is not None:
                    module._buffers[name] = copies.setdefault(id(buffer), buffer.detach().clone())
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        for module, attributes, parameters, buffers in saved:
            module.__dict__.clear()
            module.__dict__.update(attributes)
            _refill(module._parameters, parameters)
            _refill(module._buffers, buffers)
        rng.restore()


@contextlib.contextmanager
def parameters_as(model: nn.Module, replacement: Mapping[int, Tensor]) -> Iterator[None]:
    """Let tensors stand in for parameters, by ``id``; tied parameters are replaced everywhere.

    Only inside :func:`untouched`. Half-precision buffers follow a replacement in single precision.
    """
    saved = [(module, dict(module._parameters)) for module in model.modules()]
    try:
        for module, parameters in saved:
            for name, p in parameters.items():
                if p is not None and id(p) in replacement:
                    module._parameters[name] = replacement[id(p)]  # type: ignore[assignment]
        yield
    finally:
        for module, parameters in saved:
            _refill(module._parameters, parameters)


def _refill(target: dict, content: dict) -> None:
    target.clear()
    target.update(content)
