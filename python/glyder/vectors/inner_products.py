"""Arithmetic over lists of tensors: in C where C can read them, by torch operations elsewhere.

This is the only file that holds numbers twice. For tensors in CPU memory every sum comes from one streaming pass of
the C core, with double results that are the same bits on every machine. For tensors on other devices the same sums
are formed by torch operations in double precision; the two agree to a relative error of ``n * 2**-53`` of the sum of
absolute products (``tests/kernels`` checks it on CPU). ``GLYDER_DEVICE_PATH=torch`` forces the second way.

Of sharded tensors the local parts are read and written in the same two ways, and their sums are added up over the
ranks: a collective that all ranks have to take part in.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from glyder import _core
from glyder.vectors.segments import pack
from glyder.vectors.shards import Layout, any_sharded, local_parts, over_ranks

Vector = Sequence[Tensor]
Operand = Vector | tuple[Vector, Vector]
Where = Callable[[int], str]
"""Names the i-th tensor of a vector in an error message."""


def in_c(tensors: Vector) -> bool:
    """Whether C can read the tensors."""
    return os.environ.get("GLYDER_DEVICE_PATH") != "torch" and all(t.is_cpu for t in tensors)


def inner_products(
    operands: Sequence[Operand], pairs: Sequence[tuple[int, int]], *, where: Where | None = None
) -> tuple[float, ...]:
    """Inner products of the pairs of operands, each a vector or the difference of two (a tuple of lists).

    Vectors are lists of tensors, equal in the shapes of their entries; dtypes may differ. No entries give zeros.
    """
    vectors = [v for operand in operands for v in _sides(operand)]
    if not vectors[0]:
        return (0.0,) * len(pairs)
    if any_sharded(vectors):
        return _sharded_inner_products(operands, pairs, where)
    if all(in_c(v) for v in vectors):
        packed = [tuple(pack(v, where=where) for v in _sides(operand)) for operand in operands]
        return _core.reduce([sides if len(sides) == 2 else sides[0] for sides in packed], pairs)
    _check_dtypes(vectors, where)
    return _torch_inner_products(operands, pairs)


def products_each(
    operands: Sequence[Vector], pairs: Sequence[tuple[int, int]], *, where: Where | None = None
) -> tuple[tuple[float, ...], ...]:
    """Inner products of the pairs of vectors, tensor by tensor: a tuple for each pair. No entries give empty ones."""
    if not operands[0]:
        return ((),) * len(pairs)
    if any_sharded(operands):
        parts, layouts = local_parts(operands, where)
        each = products_each(parts, pairs, where=where)
        return tuple(zip(*over_ranks(layouts, list(zip(*each, strict=True))), strict=True))
    if all(in_c(v) for v in operands):
        return _core.reduce_each([pack(v, where=where) for v in operands], pairs)
    _check_dtypes(operands, where)
    return _torch_products_each(operands, pairs)


def squared_lengths(vectors: Sequence[Vector]) -> list[float]:
    """The squared length of each vector; with sharded tensors all in one collective."""
    if not any_sharded(vectors):
        return [inner_products([v], [(0, 0)])[0] for v in vectors]
    (each,) = products_each([[t for v in vectors for t in v]], [(0, 0)])
    squares = iter(each)
    return [math.fsum(itertools.islice(squares, len(v))) for v in vectors]


def snapshot(x: Vector) -> list[Tensor]:
    """A copy of every tensor, outside of autograd."""
    return [t.detach().clone(memory_format=torch.preserve_format) for t in x]


def displace(older: Vector, scale: float, newer: Vector, *, where: Where | None = None) -> list[Tensor]:
    """``scale*older - newer``, in at least single precision. The result takes ``older``'s memory where it can."""
    out = [t if t.dtype.itemsize >= 4 else torch.empty_like(t, dtype=torch.float32) for t in older]

    def in_torch(o: Tensor, old: Tensor, new: Tensor) -> None:
        o.copy_(_wide(old).mul(scale).sub_(_wide(new)))

    return _write(lambda o, old, new: _core.displace(o, old, scale, new), in_torch, (out, older, newer), where)


def shifted(x: Vector, c: float, delta: Vector, *, where: Where | None = None) -> list[Tensor]:
    """``x + c*delta`` as new tensors of ``delta``'s dtype (so half-precision parameters come in single)."""
    out = [torch.empty_like(p, dtype=d.dtype, requires_grad=False) for p, d in zip(x, delta, strict=True)]

    def in_torch(o: Tensor, p: Tensor, d: Tensor) -> None:
        o.copy_(_wide(p).add(_wide(d), alpha=c))

    return _write(lambda o, p, d: _core.perturb(o, p, c, d), in_torch, (out, x, delta), where)


def _write(
    in_c_: Callable[..., None],
    in_torch: Callable[..., None],
    vectors: tuple[list[Tensor], Vector, Vector],
    where: Where | None,
) -> list[Tensor]:
    """One C call for all entries that C can read as they lie; torch for the rest. The first vector is written."""
    if any_sharded(vectors):
        out, older, newer = local_parts(vectors, where)[0]
        _write(in_c_, in_torch, (out, older, newer), where)
        return vectors[0]
    plain: list[int] = []
    allowed = os.environ.get("GLYDER_DEVICE_PATH") != "torch"
    for i, entry in enumerate(zip(*vectors, strict=True)):
        if allowed and all(t.is_cpu and t.is_contiguous() and not t.is_complex() and not t.is_neg() for t in entry):
            plain.append(i)
        else:
            in_torch(*entry)
    if plain:
        name = None if where is None else lambda k: where(plain[k])
        packed = (pack([v[i] for i in plain], where=name, writable=v is vectors[0]) for v in vectors)
        in_c_(*packed)
    return vectors[0]


def _check_dtypes(vectors: Sequence[Vector], where: Where | None) -> None:
    for v in vectors:
        for i, t in enumerate(v):
            if not (t.is_floating_point() or t.is_complex()):
                name = where(i) if where else f"tensor {i}"
                raise TypeError(f"{name}: of dtype {t.dtype}; floating-point and complex ones are taken")


def _sides(operand: Operand) -> tuple[Vector, ...]:
    return operand if isinstance(operand, tuple) else (operand,)


def _wide(t: Tensor) -> Tensor:
    return t.detach().to(torch.complex128 if t.is_complex() else torch.float64)


def _sharded_inner_products(
    operands: Sequence[Operand], pairs: Sequence[tuple[int, int]], where: Where | None
) -> tuple[float, ...]:
    """One sum for all tensors that lie on the ranks alike, then over the ranks."""
    vectors, layouts = local_parts([v for operand in operands for v in _sides(operand)], where)
    alike: dict[Layout | None, list[int]] = {}
    for i, layout in enumerate(layouts):
        alike.setdefault(layout, []).append(i)
    rows = []
    for indices in alike.values():
        parts = iter([[v[i] for i in indices] for v in vectors])
        taken = [(next(parts), next(parts)) if isinstance(operand, tuple) else next(parts) for operand in operands]
        name = None if where is None else lambda k, at=indices: where(at[k])
        rows.append(inner_products(taken, pairs, where=name))
    return tuple(sum(column) for column in zip(*over_ranks(list(alike), rows), strict=True))


_CHUNK = 1 << 22
"""Entries that are held in double precision at a time."""


def _torch_inner_products(operands: Sequence[Operand], pairs: Sequence[tuple[int, int]]) -> tuple[float, ...]:
    """One transfer per device, however many tensors there are."""
    totals: dict[torch.device, Tensor] = {}
    for entry in zip(*(v for operand in operands for v in _sides(operand)), strict=True):
        for chunk in zip(*(torch.split(_flat(t), _CHUNK) for t in entry), strict=True):
            sides = iter([t.to(torch.float64) for t in chunk])
            values = [next(sides) - next(sides) if isinstance(o, tuple) else next(sides) for o in operands]
            products = torch.stack([torch.dot(values[i], values[j]) for i, j in pairs])
            device = products.device
            totals[device] = totals[device] + products if device in totals else products
    sums = [total.tolist() for total in totals.values()]
    return tuple(math.fsum(column) for column in zip(*sums, strict=True))


def _torch_products_each(operands: Sequence[Vector], pairs: Sequence[tuple[int, int]]) -> tuple[tuple[float, ...], ...]:
    """One transfer per device, however many tensors there are."""
    made: dict[torch.device, list[tuple[int, Tensor]]] = {}
    for k, entry in enumerate(zip(*operands, strict=True)):
        total: Tensor | None = None
        for chunk in zip(*(torch.split(_flat(t), _CHUNK) for t in entry), strict=True):
            values = [t.to(torch.float64) for t in chunk]
            products = torch.stack([torch.dot(values[i], values[j]) for i, j in pairs])
            total = products if total is None else total + products
        if total is not None:
            made.setdefault(total.device, []).append((k, total))
    rows = {k: row for of in made.values() for k, row in _rows(of)}
    return tuple(tuple(rows[k][i] if k in rows else 0.0 for k in range(len(operands[0]))) for i in range(len(pairs)))


def _rows(of_device: list[tuple[int, Tensor]]) -> Iterator[tuple[int, list[float]]]:
    return zip((k for k, _ in of_device), torch.stack([total for _, total in of_device]).tolist(), strict=True)


def _flat(t: Tensor) -> Tensor:
    t = t.detach()
    if t.layout != torch.strided:
        t = t.to_dense()
    if t.is_complex():
        t = torch.view_as_real(t.resolve_conj())
    return t.reshape(-1)
