"""Genres of films, several or none each, from the title's trigrams, as in fastText, and four numbers."""

from __future__ import annotations

import functools
import zlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.tasks.common import data
from benchmarks.tasks.common.task import Problem, Score, Task, evaluating, seeded, shuffled

CENTRE = {"SGD": 1.0, "momentum": 0.0, "AdamW": -1.5}
GENRES = ("Action", "Animation", "Comedy", "Drama", "Documentary", "Romance", "Short")
BUCKETS, LENGTH = 4096, 32
SCORED = 4000

Films = tuple[Tensor, Tensor, Tensor]


def hashed(title: str) -> list[int]:
    """Buckets of its trigrams, 0 for none: at most 32."""
    padded = f" {title.lower()} "
    grams = [padded[i : i + 3] for i in range(len(padded) - 2)][:LENGTH]
    return [1 + zlib.crc32(gram.encode()) % (BUCKETS - 1) for gram in grams] + [0] * (LENGTH - len(grams))


@functools.cache
def films() -> dict[str, Films]:
    """Titles [n, 32] as buckets; year, length, votes and rating [n, 4], standardised; genres [n, 7] as 0 or 1."""
    table = data.packaged("movies")
    numbers = torch.tensor(table[["year", "length", "votes", "rating"]].to_numpy(float))
    numbers[:, 1:3] = numbers[:, 1:3].log()
    numbers = ((numbers - numbers.mean(0)) / numbers.std(0)).float()
    titles, genres = torch.tensor([hashed(title) for title in table["title"]]), table[list(GENRES)].to_numpy(float)
    rows = titles, numbers, torch.tensor(genres).float()
    indices = data.split(len(titles), len(titles) - 8000, 4000, 4000)
    train, validation, test = (tuple(of[i] for of in rows) for i in indices)
    return {"train": train, "validation": validation, "test": test}


class Genres(nn.Module):
    """Mean of the trigrams' vectors beside the numbers, two hidden layers."""

    def __init__(self, width: int = 32, hidden: int = 128) -> None:
        super().__init__()
        self.embed = nn.EmbeddingBag(BUCKETS, width, padding_idx=0)
        layers = nn.Linear(width + 4, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()
        self.layers = nn.Sequential(*layers, nn.Linear(hidden, len(GENRES)))

    def forward(self, title: Tensor, numbers: Tensor) -> Tensor:
        return self.layers(torch.cat((self.embed(title), numbers), 1))


def loss(model: nn.Module, batch: Films) -> Tensor:
    """Mean over films and genres."""
    title, numbers, genres = batch
    return F.binary_cross_entropy_with_logits(model(title, numbers), genres)


def score(model: nn.Module, part: str) -> Score:
    """And the share of wrong flags."""
    title, numbers, genres = (rows[:SCORED] for rows in films()[part])
    with evaluating(model):
        logits = model(title, numbers)
        wrong = (logits > 0) != (genres > 0)
        value = F.binary_cross_entropy_with_logits(logits, genres)
    return {"loss": float(value), "error": float(wrong.float().mean())}


def build(seed: int) -> Problem:
    title, numbers, genres = films()["train"]
    batches = ((title[i], numbers[i], genres[i]) for i in shuffled(len(title), 64, seed))
    return Problem(seeded(seed, Genres), loss, batches, score)


TASKS = (Task("movies", "movies", build, 600, CENTRE, "several labels, unbalanced", ("pydataset",)),)
