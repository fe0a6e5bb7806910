"""Physics-informed net for the Burgers equation u_t + u u_x = ν u_xx, u(0, x) = −sin πx, as in Raissi et al. 2019.

``distance`` is how far it is from the exact solution, relative to that.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.tasks.common.task import Problem, Score, Task, evaluating, seeded

CENTRE = {"SGD": -1.0, "momentum": -1.0, "AdamW": -1.5}
NU = 0.01 / np.pi
SEEDS = {"train": 2, "validation": 0, "test": 1}
"""Of the points of each part."""


class Points(NamedTuple):
    """(t, x) [n, 2] within 0..1 times −1..1, at t = 0 and at x = ±1."""

    inside: Tensor
    start: Tensor
    border: Tensor


def draw(generator: torch.Generator, inside: int = 256, edge: int = 64) -> Points:
    def uniform(count: int) -> Tensor:
        return torch.rand(count, 2, generator=generator) * torch.tensor([1.0, 2.0]) - torch.tensor([0.0, 1.0])

    start, border = uniform(edge), uniform(edge)
    start[:, 0] = 0
    border[:, 1] = border[:, 1].sign()
    return Points(uniform(inside), start, border)


def net(width: int = 32) -> nn.Module:
    layers = nn.Linear(2, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh()
    made = nn.Sequential(*layers, nn.Linear(width, 1))
    for layer in made:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
    return made


def residual(model: nn.Module, points: Tensor) -> Tensor:
    """u_t + u u_x − ν u_xx; it needs derivatives by t and x even where none are taken by the weights."""
    with torch.enable_grad():
        points = points.detach().requires_grad_()
        u = model(points)
        u_t, u_x = torch.autograd.grad(u.sum(), points, create_graph=True)[0].split(1, 1)
        u_xx = torch.autograd.grad(u_x.sum(), points, create_graph=True)[0][:, 1:]
    return u_t + u * u_x - NU * u_xx


def loss(model: nn.Module, points: Points) -> Tensor:
    """Mean squares of the residual and of the errors at the start and on the border, where u = 0."""
    at_start = model(points.start) + torch.sin(torch.pi * points.start[:, 1:])
    terms = residual(model, points.inside), at_start, model(points.border)
    return sum((term.square().mean() for term in terms), torch.zeros(()))


def exact(points: Tensor, nodes: int = 100) -> Tensor:
    """By Cole and Hopf: u = −E[sin(πy) f(y)] / E[f(y)], y = x − √(4νt) z, f = exp(−cos(πy) / 2πν), E over exp(−z²)."""
    z, weight = np.polynomial.hermite.hermgauss(nodes)
    t, x = points.double().numpy().T[:, :, None]
    y = x - np.sqrt(4 * NU * t) * z
    height = -np.cos(np.pi * y) / (2 * np.pi * NU)
    f = weight * np.exp(height - height.max(1, keepdims=True))
    return torch.from_numpy(-(f * np.sin(np.pi * y)).sum(1, keepdims=True) / f.sum(1, keepdims=True)).float()


@functools.cache
def fixed(part: str) -> tuple[Points, Tensor]:
    points = draw(torch.Generator().manual_seed(SEEDS[part]), 4000, 1000)
    return points, exact(points.inside)


def evaluate(model: nn.Module, part: str) -> Score:
    points, u = fixed(part)
    with evaluating(model):
        away = (model(points.inside) - u).norm() / u.norm()
        return {"loss": float(loss(model, points)), "distance": float(away)}


def batches(seed: int) -> Iterator[Points]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield draw(generator)


def build(seed: int) -> Problem:
    return Problem(model=seeded(seed, net), loss=loss, batches=batches(seed), evaluate=evaluate)


TASKS = (Task("pinn", "pinn", build, 1200, CENTRE, "derivatives in the loss", held_out=True),)
