"""What an update did to the parameters, taken from a snapshot before it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from glyder.optimizers.parameter_ref import ParameterRef
from glyder.optimizers.properties import decoupled_decay, gathered, gradient_weight, young
from glyder.vectors.inner_products import displace, inner_products, snapshot


@dataclass(eq=False)
class Displacement:
    """What an update did.

    Attributes:
        places, deltas: where, and by how much.
        lr, ratios: the reference rate that it was made with, and the groups' ratios to it.
        young: share of its final weight that the youngest momentum buffer had.
        reach: squared length that all steps of one gradient come to, at a reference rate of 1.
    """

    places: list[ParameterRef]
    deltas: list[Tensor]
    lr: float
    young: float
    reach: float
    ratios: list[list[float]]

    def state(self) -> dict[str, Any]:
        """Plain values and tensors."""
        return {
            "places": [[p.optimizer, p.group, p.index] for p in self.places],
            "deltas": [d.clone() for d in self.deltas],
            "ratios": [list(r) for r in self.ratios],
            **{name: getattr(self, name) for name in ("lr", "young", "reach")},
        }

    @classmethod
    def of_state(cls, state: dict[str, Any], optimizers: Sequence[Optimizer]) -> Displacement:
        """Inverse of :meth:`state`, on the devices that the parameters are on."""
        places = [ParameterRef(*place) for place in state["places"]]
        deltas = [
            d.to(optimizers[p.optimizer].param_groups[p.group]["params"][p.index].device)
            for p, d in zip(places, state["deltas"], strict=True)
        ]
        return cls(places, deltas, state["lr"], state["young"], state["reach"], state["ratios"])


def by_group(places: Sequence[Any]) -> dict[tuple[int, int], list[int]]:
    """Indices into ``places``, by optimizer and group."""
    found: dict[tuple[int, int], list[int]] = {}
    for i, place in enumerate(places):
        found.setdefault((place.optimizer, place.group), []).append(i)
    return found


Reaches = dict[tuple[int, int], float]
"""By optimizer and group."""


Noted = tuple[list[ParameterRef], list[Tensor], Reaches]
"""Before an update: the parameters that it will move, a copy of each, and the reaches known from the gradients."""


def note(
    optimizers: Sequence[Optimizer],
    found: Sequence[tuple[ParameterRef, Tensor]],
    ratios: Sequence[Sequence[float]],
    gradient_scale: float,
) -> Noted:
    """Take a copy of the parameters, and where momentum sums gradients the squared length that all steps of these come
    to at a reference rate of 1. ``gradient_scale`` is in the gradients and will be taken out."""
    places, params = [place for place, _ in found], [p for _, p in found]
    reaches: Reaches = {}
    for (o, g), indices in by_group(places).items():
        weight = gradient_weight(optimizers[o], optimizers[o].param_groups[g])
        if weight:
            grads = [params[i].grad for i in indices]
            gg = inner_products([grads], [(0, 0)])[0]  # type: ignore[list-item]
            reaches[o, g] = (weight * ratios[o][g]) ** 2 * gg / gradient_scale**2
    return places, snapshot(params), reaches


def displacement_of(
    optimizers: Sequence[Optimizer],
    places: list[ParameterRef],
    older: Sequence[Tensor],
    reaches: Reaches,
    lr: float,
    ratios: Sequence[Sequence[float]],
    ages: Ages,
    updates: int,
) -> Displacement:
    """What the update did, the last of ``updates``, that was made from ``older`` with the rate ``lr``. Takes
    ``older``'s memory.

    ``reaches``: of the groups where they are known from the gradients; elsewhere the direction's own length counts,
    referred to what it will be once the optimizer's averages have gathered.
    """
    deltas = moved(optimizers, places, older)
    alike: dict[float, list[Tensor]] = {}  # in one sum, so that it does not hang on how the groups are cut
    for key, indices in by_group(places).items():
        if key not in reaches:
            alike.setdefault(ages.gathered(*key, updates), []).extend(deltas[i] for i in indices)
    reach = sum(reaches.values())
    for share, vector in alike.items():
        reach += share * inner_products([vector], [(0, 0)])[0] / lr**2
    return Displacement(places, deltas, lr, ages.youngest(places, updates), reach, [list(r) for r in ratios])


def moved(optimizers: Sequence[Optimizer], places: Sequence[ParameterRef], older: Sequence[Tensor]) -> list[Tensor]:
    """delta = (1 - lr*lambda) x_t - x_{t+1}, lambda the decoupled weight decay of each group. Takes ``older``'s memory.

    ``places`` come group by group.
    """
    deltas: list[Tensor] = []
    for (o, g), indices in by_group(places).items():
        group = optimizers[o].param_groups[g]
        scale = 1.0 - float(group["lr"]) * decoupled_decay(optimizers[o], group)
        newer = [group["params"][places[i].index] for i in indices]
        deltas += displace(
            [older[i] for i in indices],
            scale,
            newer,
            where=lambda k, at=indices: str(places[at[k]]),  # type: ignore[misc]
        )
    return deltas


def still_there(optimizers: Sequence[Optimizer], pending: Displacement) -> list[Tensor] | None:
    """The parameters of a displacement, where they are what they were; None if the optimizer was rebuilt."""
    try:
        params = [optimizers[p.optimizer].param_groups[p.group]["params"][p.index] for p in pending.places]
    except IndexError:
        return None
    return None if any(p.shape != d.shape for p, d in zip(params, pending.deltas, strict=True)) else params


def check_members(
    model: nn.Module, moved: Iterable[tuple[ParameterRef, Tensor]], scheduler: str = "LocalOptimumLR"
) -> None:
    """What is moved but not in the model would be missing from what is measured: ValueError that names it."""
    members = {id(p) for p in model.parameters()}
    for place, p in moved:
        if id(p) not in members:
            raise ValueError(
                f"{place} (shape {tuple(p.shape)}) is not among model.parameters(): pass {scheduler}(model=...) "
                "the module that holds every parameter that is trained, or leave it out of the optimizer"
            )


_BUFFERS = {"momentum_buffer", "square_avg"}
"""By the names that they have in an optimizer's state."""


class Ages:
    """Since which update each group's buffers gather: the first displacements are short by what is missing of momentum,
    and long by what is missing of squares."""

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self._optimizers = optimizers
        self.begun: list[list[int | None]] = [[] for _ in optimizers]
        """By optimizer and group; None where the buffers were there before the scheduler was."""

    def note(self, updates: int) -> None:
        """Take in groups that are new. Before an update."""
        for begun, optimizer in zip(self.begun, self._optimizers, strict=True):
            for group in optimizer.param_groups[len(begun) :]:
                old = any(optimizer.state.get(p, {}).keys() & _BUFFERS for p in group["params"])
                begun.append(None if old else updates)

    def gathered(self, o: int, g: int, updates: int) -> float:
        """The share of its final size that a group's average of squares has after ``updates`` updates, in (0, 1]."""
        begun, optimizer = self.begun[o][g], self._optimizers[o]
        return 1.0 if begun is None else gathered(optimizer, optimizer.param_groups[g], updates - begun)

    def youngest(self, places: Sequence[ParameterRef], updates: int) -> float:
        """The least share of its final weight that a buffer has after ``updates`` updates, in (0, 1]."""
        shares = [1.0]
        for o, g in by_group(places):
            begun = self.begun[o][g]
            if begun is not None:
                optimizer = self._optimizers[o]
                shares.append(young(optimizer, optimizer.param_groups[g], updates - begun))
        return min(shares)
