"""Sharded tensors (DTensor): their local parts, sums over the ranks that hold them, and their way into checkpoints.

An inner product of sharded tensors is the sum over all ranks of what each finds in its local parts; where ranks hold
copies, one of them counts. The sums of all tensors of a call go through one small collective for each dimension of a
mesh. Every rank gathers the same numbers and adds them in the same order, so that all hold the same bits and decide
alike.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

Vector = Sequence[Tensor]


class Layout(NamedTuple):
    """How a tensor lies on the ranks.

    Attributes:
        mesh: its ``DeviceMesh``.
        sharded: for each dimension of the mesh, whether the tensor is cut along it, not copied.
    """

    mesh: Any
    sharded: tuple[bool, ...]


def any_sharded(vectors: Sequence[Vector]) -> bool:
    """Whether there is a DTensor among the tensors. Without a process group there is none, and none is looked for."""
    if not (dist.is_available() and dist.is_initialized()):
        return False
    return any(_is_sharded_type(cls) for v in vectors for cls in {*map(type, v)})


@functools.cache
def _is_sharded_type(cls: type) -> bool:
    if cls in (Tensor, torch.nn.Parameter):
        return False
    from torch.distributed.tensor import DTensor

    return issubclass(cls, DTensor)


def is_sharded(t: Any) -> bool:
    """Whether the tensor is a DTensor, be it cut or copied."""
    return any_sharded([[t]])


def local(t: Any) -> Tensor:
    """The part of a tensor that this rank holds, in the same memory; of one that is not sharded, all of it."""
    with torch.no_grad():
        return t.to_local() if is_sharded(t) else t  # type: ignore[no-any-return]


def local_parts(
    vectors: Sequence[Vector], where: Callable[[int], str] | None = None
) -> tuple[list[list[Tensor]], list[Layout | None]]:
    """The local parts of the vectors, and how each entry lies on the ranks: None where it is not sharded.

    The tensors of an entry are brought to the placements of the first of them. One that is a sum yet to be formed
    (``Partial``) is formed.
    """
    entries = list(zip(*vectors, strict=True))
    found = [_local_entry(entry, i, where) for i, entry in enumerate(entries)]
    return [list(v) for v in zip(*(parts for parts, _ in found), strict=True)], [layout for _, layout in found]


def _local_entry(
    entry: Sequence[Any], index: int, where: Callable[[int], str] | None
) -> tuple[Sequence[Tensor], Layout | None]:
    sharded = [is_sharded(t) for t in entry]
    if not any(sharded):
        return entry, None
    if not all(sharded) or any(t.device_mesh != entry[0].device_mesh for t in entry):
        name = where(index) if where else f"tensor {index}"
        raise TypeError(
            f"{name}: sharded over other ranks than what it is multiplied with: give parameter, gradient and what the "
            "optimizer makes of them one mesh"
        )
    from torch.distributed.tensor import Replicate

    placements = tuple(Replicate() if p.is_partial() else p for p in entry[0].placements)
    layout = Layout(entry[0].device_mesh, tuple(not p.is_replicate() for p in placements))
    alike = (t if t.placements == placements else t.redistribute(placements=placements) for t in entry)
    return [local(t) for t in alike], layout


def over_ranks(layouts: Sequence[Layout | None], rows: Sequence[Sequence[float]]) -> list[list[float]]:
    """Sums over the ranks of numbers that each found in its local parts: a row for each layout, of equal lengths.

    Rows without a layout are equal on all ranks. They ride along in the collectives of the largest mesh, and so do sums
    over smaller ones: of all that is held in copies the first rank's counts, should others differ by a rounding.
    """
    total = [list(row) for row in rows]
    meshes = sorted({layout.mesh: None for layout in layouts if layout}, key=lambda mesh: mesh.size())  # stable
    for mesh in meshes:
        at = [i for i, layout in enumerate(layouts) if mesh is meshes[-1] or (layout and layout.mesh == mesh)]
        here = (layouts[i] for i in at)
        sharded = [layout.sharded if layout and layout.mesh == mesh else (False,) * mesh.ndim for layout in here]
        found = _over_mesh(mesh, torch.tensor(sharded, device="cpu"), _numbers([total[i] for i in at]))
        for i, row in zip(at, found.tolist(), strict=True):
            total[i] = row
    return total


def _numbers(rows: Sequence[Sequence[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64, device="cpu")


def _over_mesh(mesh: Any, sharded: Tensor, rows: Tensor) -> Tensor:
    """Rows summed over the dimensions of a mesh along which they are ``sharded`` (rows x dimensions); a collective for
    each dimension."""
    for dimension in reversed(range(mesh.ndim)):
        mine = rows.to(mesh.device_type)
        gathered = [torch.empty_like(mine) for _ in range(mesh.size(dimension))]
        dist.all_gather(gathered, mine, group=mesh.get_group(dimension))
        of_ranks = torch.stack(gathered).cpu().unbind()
        added = functools.reduce(torch.add, of_ranks)  # in the order of ranks, whatever the machine
        rows = torch.where(sharded[:, dimension, None], added, of_ranks[0])
    return rows


# ---- checkpoints


def saved(value: Any) -> Any:
    """A copy of a tensor for a checkpoint: of a sharded one the local part, and which part that is. Other values as
    they are."""
    if not isinstance(value, Tensor):
        return value
    return {"local": local(value).clone(), "part": _part(value)} if is_sharded(value) else value.clone()


def restored(value: Any, like: Any) -> Any:
    """Inverse of :func:`saved`, on the device of the tensor ``like``, and sharded as that is."""
    if isinstance(value, Tensor):
        return value.clone().to(like.device)
    if not isinstance(value, dict):
        return value
    found = torch.empty_like(like, dtype=value["local"].dtype, requires_grad=False)
    local(found).copy_(value["local"])
    return found


def misfit(value: Any, like: Tensor) -> str | None:
    """What a saved tensor is and what it would have to be, where it is not of the shape of ``like`` or another part."""
    if not isinstance(value, (Tensor, dict)):
        return None
    tensor, part = (value["local"], value["part"]) if isinstance(value, dict) else (value, _part(None))
    here = _part(like)
    if part != here:
        return (
            f"is {part} in this state and {here} here: each rank loads the state that it saved itself, in a run on as "
            "many ranks"
        )
    if tensor.shape == local(like).shape:
        return None
    return (
        f"has shape {tuple(tensor.shape)} in this state and {tuple(local(like).shape)} here: load it into optimizers "
        "of the model that saved it"
    )


def _part(t: Any) -> str:
    """Which part of a tensor this rank holds, in words."""
    if not is_sharded(t):
        return "whole"
    mesh, placements = t.device_mesh, ", ".join(map(str, t.placements))
    return f"part {tuple(mesh.get_coordinate())} of {tuple(mesh.shape)}, placed {placements}"
