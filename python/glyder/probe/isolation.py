"""Running the user's model without leaving a trace.

A measurement repeats forward passes of the model at shifted parameters. :func:`untouched` puts the random generators
back and keeps compiled code out of it; :func:`stand_ins` is around each single pass: parameters are never written
(shifted copies stand in for them), buffers are copies (so batch-norm statistics do not see the extra passes), and
module attributes and train/eval flags are put back, also when the pass raises. Every pass starts from the same
buffers: one that changes them, as a power iteration does, must not tell the second probe from the first.

What it cannot undo: side effects outside the model, such as a counter in a global variable, and changes of objects that
a module holds as attributes, other than tensors and plain containers.
"""

from __future__ import annotations

import contextlib
import copy
import random
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class RandomState:
    """State of every random generator that a forward pass may draw from."""

    python: tuple[Any, ...]
    numpy: dict[str, Any]
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
    np.random.seed(seed)  # the generator that users' data sets draw from
    torch.manual_seed(seed)


_KNOWN_DEVICES = ("cpu", "cuda", "xpu", "mps", "hpu", "mtia", "maia", "privateuseone")
_DEVICES = tuple(d for d in _KNOWN_DEVICES if torch.amp.is_autocast_available(d))


@dataclass(frozen=True)
class Mode:
    """Under which switches a forward pass was run: autocast per device, and the train/eval flag of every module."""

    autocast: Mapping[str, torch.dtype]
    training: Mapping[int, bool]
    """By ``id`` of the module; one that the pass itself added keeps its own."""

    @classmethod
    def now(cls, model: nn.Module) -> Mode:
        on = {d: torch.get_autocast_dtype(d) for d in _DEVICES if torch.is_autocast_enabled(d)}
        return cls(on, {id(module): module.training for module in model.modules()})

    @property
    def half(self) -> bool:
        """Whether autocast computes in half precision."""
        return any(dtype.itemsize < 4 for dtype in self.autocast.values())

    @contextlib.contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Repeat the switches. Only inside :func:`stand_ins`, which puts the flags of the modules back.

        The autocast weight cache stays off: two probes would see the same weights.
        """
        with contextlib.ExitStack() as stack:
            for device in _DEVICES:
                if device in self.autocast:
                    stack.enter_context(torch.autocast(device, dtype=self.autocast[device], cache_enabled=False))
                elif torch.is_autocast_enabled(device):
                    stack.enter_context(torch.autocast(device, enabled=False))
            for module in model.modules():
                if self.training.get(id(module), module.training) != module.training:
                    module.training = not module.training
            yield


@contextlib.contextmanager
def untouched() -> Iterator[None]:
    """Put the random generators back on the way out. Inside, compiled code runs eagerly: no probe recompiles it."""
    rng = RandomState.now()
    try:
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        rng.restore()


@contextlib.contextmanager
def stand_ins(model: nn.Module, parameters: Mapping[int, Tensor], *, single: bool = False) -> Iterator[None]:
    """One pass of ``model`` with tensors in place of parameters, by ``id``, and copies of what the pass may change.

    Tied parameters are replaced everywhere, also in lists that a module keeps of them (``nn.LSTM`` does).

    Args:
        model: the module; as it was, to the attribute, on the way out.
        parameters: what stands in for them.
        single: half-precision buffers come in single precision.
    """
    saved: list[tuple[nn.Module, dict[str, Any], list[tuple[dict[str, Any], dict[str, Any]]]]] = [
        (m, dict(m.__dict__), [(part, dict(part)) for part in (m._parameters, m._buffers, m._modules)])
        for m in model.modules()
    ]
    memo = dict(parameters)
    try:
        for module, attributes, ((_, params), (_, buffers), _) in saved:
            for name, p in params.items():
                module._parameters[name] = memo.get(id(p), p)
            for name, buffer in buffers.items():
                module._buffers[name] = _own(buffer, memo, single)
            for name, value in attributes.items():
                if name not in _MODULE and isinstance(value, _CHANGEABLE):
                    module.__dict__[name] = _own(value, memo, single)
            module.__dict__["_non_persistent_buffers_set"] = set(module._non_persistent_buffers_set)
        yield
    finally:
        for module, attributes, parts in saved:
            module.__dict__.clear()
            module.__dict__.update(attributes)
            for part, content in parts:
                part.clear()
                part.update(content)


_MODULE = frozenset(nn.Module().__dict__)
_CONTAINERS = (list, dict, set, deque, OrderedDict, defaultdict, Counter)
_CHANGEABLE = (Tensor, tuple, *_CONTAINERS)


def _own(value: Any, memo: dict[int, Tensor], single: bool) -> Any:
    """A copy for one pass. What is shared stays shared; a tensor that carries a graph is no state, and stays."""
    if isinstance(value, Tensor):
        if id(value) not in memo:
            if value.requires_grad or isinstance(value, nn.Parameter):
                return value
            own = value.detach().clone()
            memo[id(value)] = own.float() if single and is_half(own) else own
        return memo[id(value)]
    if type(value) not in (tuple, *_CONTAINERS):
        return value
    if type(value) in (list, tuple):
        return type(value)([_own(v, memo, single) if isinstance(v, Tensor) else v for v in value])
    own = copy.copy(value)
    if isinstance(own, dict):
        own.update((k, _own(v, memo, single)) for k, v in value.items() if isinstance(v, Tensor))
    return own


def is_half(value: Any) -> bool:
    """Whether ``value`` is a tensor in half precision."""
    return isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16)
