"""Masked words of the English captions of Multi30k, predicted by a small BERT (1810.04805)."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.tasks.common import data
from benchmarks.tasks.common.task import Batch, Problem, Score, Task, evaluating, seeded, shuffled
from benchmarks.tasks.common.transformer import Attention, Embedding, initialise

CENTRE = {"SGD": 0.0, "momentum": -0.7, "AdamW": -2.7}
WORDS = 2000
MASK = WORDS
"""The word after all others."""

SCORED = 1000
"""Captions of a part that its loss is taken on."""


class Layer(nn.Module):
    """Self-attention and two linear layers, each normalised after it is added."""

    def __init__(self, width: int, heads: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.attend, self.drop = Attention(width, heads), nn.Dropout(dropout)
        self.inner = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.norm_self, self.norm_inner = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.norm_self(x + self.drop(self.attend(x, x, mask=mask)))
        return self.norm_inner(x + self.drop(self.inner(x)))


class Bert(nn.Module):
    """Words [n, length] to logits [chosen, words] at the chosen places; the last matrix is the embedding."""

    def __init__(self, length: int = 22, width: int = 64, heads: int = 4, layers: int = 2) -> None:
        super().__init__()
        self.embed = Embedding(WORDS + 1, length, width)
        self.norm, self.drop = nn.LayerNorm(width), nn.Dropout(0.1)
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))
        self.head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))
        self.bias = nn.Parameter(torch.zeros(WORDS + 1))
        self.apply(initialise)

    def forward(self, ids: Tensor, chosen: Tensor) -> Tensor:
        mask = (ids != data.PAD)[:, None, None, :]
        x = self.drop(self.norm(self.embed(ids)))
        for layer in self.layers:
            x = layer(x, mask)
        return F.linear(self.head(x[chosen]), self.embed.token.weight, self.bias)


def masked(ids: Tensor, generator: torch.Generator) -> Batch:
    """What is shown, what is asked for, where: 15 % of the words, 80 % of them hidden, 10 % others, 10 % kept."""
    share, how = torch.rand(2, *ids.shape, generator=generator)
    chosen = (share < 0.15) & ((ids > data.END) | (ids == data.UNKNOWN))
    other = torch.randint(data.END + 1, WORDS, ids.shape, generator=generator)
    shown = torch.where(chosen & (how < 0.8), MASK, torch.where(chosen & (how >= 0.9), other, ids))
    return shown, ids[chosen], chosen


def loss(model: nn.Module, batch: Batch) -> Tensor:
    shown, words, chosen = batch
    return F.cross_entropy(model(shown, chosen), words)


def batches(ids: Tensor, batch: int, seed: int) -> Iterator[Batch]:
    """Captions under masks that are drawn anew each time."""
    generator = torch.Generator().manual_seed(seed + 1_000_000)
    return (masked(ids[i], generator) for i in shuffled(len(ids), batch, seed))


@functools.cache
def scored(part: str) -> Batch:
    """Captions under the same masks each time."""
    return masked(data.multi30k(WORDS)[part][1][:SCORED], torch.Generator().manual_seed(0))


def score(model: nn.Module, part: str) -> Score:
    with evaluating(model):
        return {"loss": float(loss(model, scored(part)))}


def build(seed: int) -> Problem:
    return Problem(
        model=seeded(seed, Bert), loss=loss, batches=batches(data.multi30k(WORDS)["train"][1], 32, seed), evaluate=score
    )


TASKS = (
    Task(
        "masked-lm",
        "masked-lm",
        build,
        500,
        CENTRE,
        needs=("multi30k",),
        clip=1.0,
        decay=0.01,
        transformer=True,
        held_out=True,
    ),
)
