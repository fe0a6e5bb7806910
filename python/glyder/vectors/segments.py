"""Tensors to segments: the only file that looks inside tensors.

C sees a list of tensors as one flattened vector, each tensor in its logical (row-major) order. Tensors that lie in
memory in that order are handed over as they are; all others are read through a contiguous copy, so that the elements
of every operand of a reduction correspond whatever their strides. Only plain memory can be written to.

Two ways lead into C, with the same bits in the end: the exchange table of the tensor type, which C reads itself, and
``data_ptr()``, for versions of torch without one. ``GLYDER_ENTRY=table`` or ``pointer`` forces one of them.

Segments hold on to the tensors but not to their memory, which ``t.data = ...``, ``t.set_()`` or ``t.resize_()`` may
replace: make them and use them within one call, never keep them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from glyder import _core

_DTYPES = {
    torch.float32: "float32",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
    torch.float64: "float64",
}
_COMPLEX = (torch.complex64, torch.complex128, torch.complex32)
_SPARSE = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)

# Types whose values lie elsewhere, by the names of their classes: importing them would load half of torch.
_WRAPPERS = {
    "DTensor": "it is sharded; pass its local part, to_local()",
    "FakeTensor": "it has a shape but no values",
    "FunctionalTensor": "it exists only while a program is traced",
}


def pack(
    tensors: Sequence[Tensor], *, where: Callable[[int], str] | None = None, writable: bool = False
) -> _core.Segments:
    """Segments of CPU tensors, for one call into C.

    Conjugated, negated, non-contiguous and sparse tensors are resolved by a copy; complex ones count as pairs of real
    numbers, so that inner products are real parts. With ``writable`` nothing is copied: what is not plain contiguous
    memory is refused.

    Args:
        tensors: floating-point or complex tensors in CPU memory.
        where: names the i-th tensor in an error message, for example ``"parameter 3 of group 1 (gradient)"``.
        writable: C is going to write to them.

    Raises:
        TypeError: a dtype or tensor type that cannot be read.
        ValueError: not in CPU memory, without memory, or not writable in place.
    """
    if _BY_TABLE:
        try:
            found = _core.Segments(tensors, writable=writable)
            # Lazily negated memory is the one trap that C cannot see.
            if not any(map(Tensor.is_neg, tensors)):
                return found
        except (TypeError, ValueError, BufferError):
            pass  # the long way below takes the tensors, or says which one it cannot take and why
    plain = [t if _is_plain(t) else _resolve(t, i, where, writable) for i, t in enumerate(tensors)]
    if _BY_TABLE:
        return _core.Segments(plain, writable=writable)
    return _core.Segments([(t.data_ptr(), t.numel(), _DTYPES[t.dtype], t) for t in plain], writable=writable)


def _table_wanted() -> bool:
    entry = os.environ.get("GLYDER_ENTRY", "")
    if entry not in ("", "table", "pointer"):
        raise ValueError(f'GLYDER_ENTRY must be "table" or "pointer", got "{entry}"')
    if entry == "pointer":
        return False
    found = all(_core.register_tensor_type(cls) for cls in (Tensor, nn.Parameter))
    if entry == "table" and not found:
        raise ImportError(f"GLYDER_ENTRY=table: torch {torch.__version__} has no exchange table")
    return found


_BY_TABLE = _table_wanted()


def _is_plain(t: Tensor) -> bool:
    """Whether C can have the tensor as it is. Short, since the way by ``data_ptr()`` asks it of every tensor."""
    return (
        type(t) in (Tensor, nn.Parameter)
        and t.is_cpu
        and t.dtype in _DTYPES
        and t.layout is torch.strided
        and _address(t) != 0
        and not t.is_nested
        and t.is_contiguous()
        and not t.is_neg()
    )


def matrix(t: Tensor, name: str = "outputs") -> Any:
    """A 2-d tensor in CPU memory as the kernels on logits take it; ``name`` stands in errors."""
    plain = _resolve(t, 0, lambda _: name, False)
    return plain if _BY_TABLE else (plain.data_ptr(), *plain.shape, _DTYPES[plain.dtype], plain)


def column(t: Tensor) -> Any:
    """A 1-d contiguous tensor of float64 or int64 in CPU memory as the kernels on logits take it."""
    return t if _BY_TABLE else t.numpy()


def entry() -> str:
    """How tensors enter C: ``"exchange table"`` or ``"data_ptr"``."""
    return "exchange table" if _BY_TABLE else "data_ptr"


def _resolve(t: Tensor, index: int, where: Callable[[int], str] | None, writable: bool) -> Tensor:
    """A plain ``torch.Tensor`` of real, contiguous values; or an error that names the tensor."""
    try:
        _check_type(t)
        # Subclasses without a dispatch of their own hold plain memory; what they override is of no concern here.
        with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
            _check_memory(t)
            return _in_place(t) if writable else _for_reading(t)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{where(index) if where else f'tensor {index}'}: {error}") from None


def _check_type(t: Tensor) -> None:
    if not isinstance(t, Tensor):
        raise TypeError(f"not a tensor, got {type(t).__qualname__}")
    if nn.parameter.is_lazy(t):
        raise ValueError("not initialized yet; a lazy module gets its parameters in its first forward pass")
    if type(t).__torch_dispatch__ is not Tensor.__torch_dispatch__:
        hints = [_WRAPPERS[cls.__name__] for cls in type(t).__mro__ if cls.__name__ in _WRAPPERS]
        hint = hints[0] if hints else "its class decides what its values are (__torch_dispatch__)"
        raise TypeError(f"of type {type(t).__qualname__}: {hint}")


def _check_memory(t: Tensor) -> None:
    if t.device.type != "cpu":
        raise ValueError(f"on device {t.device}; C reads CPU memory only")
    if t.is_nested or t.layout not in (torch.strided, *_SPARSE):
        raise TypeError(f"of layout {'nested' if t.is_nested else t.layout}; dense and sparse tensors are taken")
    if t.dtype not in _DTYPES and t.dtype not in _COMPLEX:
        raise TypeError(f"of dtype {t.dtype}; {', '.join(map(str, _DTYPES))} and complex ones are taken")
    if t.layout == torch.strided and t.numel() and not _address(t):
        raise ValueError("without memory of its own (freed, or inside of a torch.func transform?)")


def _address(t: Tensor) -> int:
    try:
        return t.data_ptr()
    except RuntimeError:
        return 0


def _in_place(t: Tensor) -> Tensor:
    if t.layout != torch.strided or t.is_neg() or t.is_conj() or not t.is_contiguous():
        raise ValueError("not plain contiguous memory, so that it cannot be written in place")
    return _as_real(t.detach().as_subclass(Tensor))


def _for_reading(t: Tensor) -> Tensor:
    t = t.detach()
    if t.layout != torch.strided:
        t = t.to_dense()
    return _as_real(t.as_subclass(Tensor).resolve_conj()).resolve_neg().contiguous()


def _as_real(t: Tensor) -> Tensor:
    return torch.view_as_real(t) if t.is_complex() else t
