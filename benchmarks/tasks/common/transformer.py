"""Pre-norm transformers of the smallest kind, and their training on a text: what several tasks share."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.tasks.common.task import Batch, Score, evaluating

SCORED = 25_000
"""Characters of a part that its loss is taken on."""


def initialise(module: nn.Module) -> None:
    """As in GPT-2: N(0, 0.02²) for matrices and embeddings, 0 for biases."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, memory: Tensor, causal: bool = False, mask: Tensor | None = None) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query(x), *self.key_value(memory).chunk(2, -1))
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Self-attention, attention to ``memory`` if ``crossed``, and two linear layers, each on a residual branch."""

    def __init__(self, width: int, heads: int, causal: bool = False, crossed: bool = False) -> None:
        super().__init__()
        self.causal = causal
        self.norm_self, self.norm_inner = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attend = Attention(width, heads)
        self.inner = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        if crossed:
            self.norm_cross, self.cross = nn.LayerNorm(width), Attention(width, heads)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, memory: Tensor | None = None, memory_mask: Tensor | None = None
    ) -> Tensor:
        normed = self.norm_self(x)
        x = x + self.attend(normed, normed, self.causal, mask)
        if memory is not None:
            x = x + self.cross(self.norm_cross(x), memory, mask=memory_mask)
        return x + self.inner(self.norm_inner(x))


class Embedding(nn.Module):
    """Tokens and learned places."""

    def __init__(self, vocabulary: int, length: int, width: int) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(vocabulary, width), nn.Embedding(length, width)

    def forward(self, ids: Tensor) -> Tensor:
        return self.token(ids) + self.place.weight[: ids.shape[1]]


class Decoder(nn.Module):
    """Language model: ids [n, length] to logits [n · length, vocabulary]."""

    def __init__(self, vocabulary: int, length: int = 64, width: int = 64, heads: int = 4, layers: int = 2) -> None:
        super().__init__()
        self.embed = Embedding(vocabulary, length, width)
        self.blocks = nn.ModuleList(Block(width, heads, causal=True) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)
        self.apply(initialise)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)).flatten(0, 1)


def next_token(model: nn.Module, batch: Batch) -> Tensor:
    x, y = batch
    return F.cross_entropy(model(x), y.flatten())


def windows(ids: Tensor, batch: int, length: int, seed: int) -> Iterator[Batch]:
    """Random windows of a text and the same, one further."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        start = torch.randint(len(ids) - length, (batch, 1), generator=generator)
        drawn = ids[start + torch.arange(length + 1)]
        yield drawn[:, :-1], drawn[:, 1:]


def score(model: nn.Module, ids: Tensor, length: int) -> Score:
    """Mean cross-entropy on windows that do not overlap."""
    count = (min(SCORED, len(ids)) - 1) // length
    x, y = (ids[shift : shift + count * length].view(count, length) for shift in (0, 1))
    with evaluating(model):
        loss = sum(float(next_token(model, pair)) * len(pair[0]) for pair in zip(x.split(64), y.split(64), strict=True))
    return {"loss": loss / count}
