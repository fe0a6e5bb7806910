"""Skip-gram with negative sampling on the English captions of Multi30k (Mikolov et al. 2013)."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.tasks.common import data
from benchmarks.tasks.common.task import Batch, Problem, Score, Task, evaluating, seeded, shuffled

CENTRE = {"SGD": 1.5, "momentum": 0.7, "AdamW": -2.0}
WORDS, WINDOW, NEGATIVES = 3000, 4, 5
FREQUENT = 1e-3
"""Words above this share of the text are left out at random (section 2.3)."""
SCORED = 20_000
BEFORE = 4
"""Words before this are no words: padding, unknown, start and end."""


@functools.cache
def text() -> tuple[dict[str, tuple[Tensor, Tensor]], Tensor]:
    """Pairs of a word and one near it, of each part; and the weights that negatives are drawn with, counts^(3/4)."""
    parts = {name: english for name, (_, english) in data.multi30k(WORDS).items()}
    counts = parts["train"].flatten().bincount(minlength=WORDS).double()
    counts[:BEFORE] = 0
    kept = (FREQUENT * counts.sum() / counts).sqrt()
    generator = torch.Generator().manual_seed(0)

    def near(ids: Tensor) -> tuple[Tensor, Tensor]:
        """At most ``WINDOW`` apart in what is left of a caption."""
        stays = (ids >= BEFORE) & (torch.rand(ids.shape, generator=generator, dtype=kept.dtype) < kept[ids])
        order = (~stays).long().argsort(dim=1, stable=True)
        ids, stays = ids.gather(1, order), stays.gather(1, order)
        apart = range(1, WINDOW + 1)
        both = [stays[:, k:] for k in apart]
        left = torch.cat([ids[:, :-k][at] for k, at in zip(apart, both, strict=True)])
        right = torch.cat([ids[:, k:][at] for k, at in zip(apart, both, strict=True)])
        return torch.cat((left, right)), torch.cat((right, left))

    return {name: near(ids) for name, ids in parts.items()}, counts**0.75


class SkipGram(nn.Module):
    """Scores of words [n] beside others [n, k]; ``zeros``: tables as word2vec starts them, else N(0, 0.01²)."""

    def __init__(self, zeros: bool, width: int = 64) -> None:
        super().__init__()
        self.inner, self.outer = nn.Embedding(WORDS, width), nn.Embedding(WORDS, width)
        if zeros:
            nn.init.uniform_(self.inner.weight, -0.5 / width, 0.5 / width)
            nn.init.zeros_(self.outer.weight)
        else:
            nn.init.normal_(self.inner.weight, std=0.01)
            nn.init.normal_(self.outer.weight, std=0.01)

    def forward(self, word: Tensor, others: Tensor) -> Tensor:
        return (self.outer(others) @ self.inner(word)[:, :, None]).squeeze(2)


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """-log σ of the true neighbour's score, and of the negatives' with the sign turned; summed, mean over words."""
    word, neighbour, negatives = batch
    scores = model(word, torch.cat((neighbour[:, None], negatives), 1))
    return -(F.logsigmoid(scores[:, 0]) + F.logsigmoid(-scores[:, 1:]).sum(1)).mean()


def negatives(count: int, generator: torch.Generator) -> Tensor:
    return torch.multinomial(text()[1], count * NEGATIVES, replacement=True, generator=generator).view(count, NEGATIVES)


def drawn(batch: int, seed: int) -> Iterator[Batch]:
    word, neighbour = text()[0]["train"]
    generator = torch.Generator().manual_seed(seed + 1_000_000)
    for index in shuffled(len(word), batch, seed):
        yield word[index], neighbour[index], negatives(batch, generator)


@functools.cache
def scored() -> dict[str, Batch]:
    """Some pairs of each part, with negatives drawn once and for all."""
    generator = torch.Generator().manual_seed(1)
    made = {}
    for name, (word, neighbour) in text()[0].items():
        index = torch.randperm(len(word), generator=generator)[:SCORED]
        made[name] = word[index], neighbour[index], negatives(len(index), generator)
    return made


def score(model: nn.Module, part: str) -> Score:
    with evaluating(model):
        return {"loss": float(loss(model, scored()[part]))}


def build(seed: int, zeros: bool = False) -> Problem:
    return Problem(seeded(seed, functools.partial(SkipGram, zeros)), loss, drawn(256, seed), score)


TASKS = (
    Task("word2vec", "word2vec", build, 1000, CENTRE, needs=("multi30k",)),
    Task(
        "word2vec-zeros",
        "word2vec",
        functools.partial(build, zeros=True),
        500,
        {"SGD": 2.0, "momentum": 1.0, "AdamW": -1.7},
        "output vectors start at 0",
        ("multi30k",),
    ),
)
