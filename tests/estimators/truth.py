"""Slope and curvature by automatic differentiation alone, and the models that they are compared on.

Nothing here uses glyder, but for :func:`sample_of`, which plays the part of the training loop.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from glyder.probe.estimators import Sample
from glyder.probe.samples import Sampler
from glyder.probe.update_direction import Direction

Loss = Callable[[Any], Tensor]


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.norm = heads, nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).view(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(x.shape))
        return x + self.mlp(x)


class Transformer(nn.Module):
    """A small causal language model with tied embeddings."""

    def __init__(self, vocabulary: int = 23, width: int = 16) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.blocks = nn.Sequential(Attention(width, 2), Attention(width, 2))
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.blocks(self.embed(tokens)))


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(12, 32), nn.Tanh(), nn.Linear(32, 32), nn.GELU(), nn.Linear(32, 7))


def convnet() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.Softplus(),
        nn.Conv2d(8, 8, 3, stride=2),
        nn.BatchNorm2d(8),
        nn.SiLU(),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(72, 7),
    )


def cases() -> dict[str, Callable[[torch.dtype], tuple[nn.Module, Tensor, Tensor]]]:
    """Model, inputs and labels by name, for a dtype."""
    return {
        "mlp": lambda dtype: (mlp().to(dtype), torch.randn(40, 12, dtype=dtype), torch.randint(7, (40,))),
        "convnet": lambda dtype: (convnet().to(dtype), torch.randn(24, 3, 8, 8, dtype=dtype), torch.randint(7, (24,))),
        "transformer": lambda dtype: (
            Transformer().to(dtype),
            torch.randint(23, (6, 9)),
            torch.randint(23, (6, 9)),
        ),
    }


def cross_entropy(labels: Tensor, **options: Any) -> Loss:
    """As a language model or a classifier has it: classes last."""
    return lambda z: F.cross_entropy(z.reshape(-1, z.shape[-1]), labels.reshape(-1), **options)


def displacement(params: Sequence[Tensor], size: float = 1e-2) -> list[Tensor]:
    """In each parameter of ``size`` times its norm: random, and as much of the gradient; not in half precision."""
    deltas = []
    for p in params:
        dtype = p.dtype if p.dtype.itemsize >= 4 else torch.float32
        d = torch.randn(p.shape, dtype=dtype)
        if p.grad is not None:
            g = p.grad.to(dtype)
            d = d / d.norm() + g / g.norm().clamp(min=1e-30)
        deltas.append(d * (size * p.detach().to(dtype).norm().clamp(min=0.1) / d.norm()))
    return deltas


def direction_of(model: nn.Module, deltas: Sequence[Tensor] | None = None, **options: Any) -> Direction:
    params = [p for p in model.parameters() if p.requires_grad]
    deltas = displacement(params) if deltas is None else deltas
    return Direction(model, params, deltas, [f"parameter {i}" for i in range(len(params))], **options)


def sample_of(
    model: nn.Module,
    direction: Direction,
    train: Callable[[], Any],
    loss: Any = None,
    logits: Callable[[Any], Tensor] | None = None,
) -> Sample:
    """What the scheduler would have seen of ``train()``, which runs forward and backward passes."""
    sampler = Sampler(model, loss, logits, None, 1, 0)
    sampler.stream.arm()
    try:
        model.zero_grad()
        train()
        (sample,) = sampler.samples(direction, 0)
    finally:
        sampler.stream.close()
    return sample


def dot(left: Sequence[Tensor | None], right: Sequence[Tensor]) -> Tensor:
    return sum((a.double() * b.double()).sum() for a, b in zip(left, right, strict=True) if a is not None)


def gauss_newton(
    model: nn.Module,
    forward: Callable[[nn.Module], Tensor],
    loss: Loss,
    deltas: Sequence[Tensor],
    *,
    copied: bool = True,
) -> tuple:
    """(slope, curvature) of the Gauss-Newton matrix J^T H J, all derivatives exact.

    J delta by differentiating v -> <J^T v, delta>; H, the second derivative of the loss in the outputs, by
    differentiating its gradient.
    """
    model = copy.deepcopy(model) if copied else model
    params = [p for p in model.parameters() if p.requires_grad]
    with sdpa_kernel(SDPBackend.MATH):
        z = forward(model)
        v = torch.zeros_like(z, requires_grad=True)
        back = torch.autograd.grad(z, params, v, create_graph=True, allow_unused=True)
        total = sum((g * d.to(g)).sum() for g, d in zip(back, deltas, strict=True) if g is not None)
        (u,) = torch.autograd.grad(total, v)
    z = z.detach().requires_grad_()
    (r,) = torch.autograd.grad(loss(z), z, create_graph=True)
    slope = float((r.detach().double() * u.double()).sum())
    product = (r * u).sum()
    if not product.requires_grad:
        return slope, 0.0
    (hu,) = torch.autograd.grad(product, z)
    return slope, float((hu.double() * u.double()).sum())


def hessian(
    model: nn.Module, evaluate: Callable[[nn.Module], Tensor], deltas: Sequence[Tensor], *, copied: bool = True
) -> tuple:
    """(slope, curvature) of the loss itself, by differentiating twice."""
    model = copy.deepcopy(model) if copied else model
    params = [p for p in model.parameters() if p.requires_grad]
    with sdpa_kernel(SDPBackend.MATH):
        g = torch.autograd.grad(evaluate(model), params, create_graph=True, allow_unused=True)
        slope = dot(g, deltas)
        hd = torch.autograd.grad(slope, params, allow_unused=True)
    return slope.item(), dot(hd, deltas).item()


def replayed(state: Tensor, run: Callable[[nn.Module], Tensor]) -> Callable[[nn.Module], Tensor]:
    """``run`` with torch's generator set to ``state`` first, so that dropout draws the same masks."""

    def again(model: nn.Module) -> Tensor:
        with torch.random.fork_rng():
            torch.set_rng_state(state)
            return run(model)

    return again
