"""Transformer encoder that tells which package of Python's standard library 24 words are from, and with few data."""

from __future__ import annotations

import collections
import dataclasses
import functools
import re
import sysconfig
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.tasks.common import data
from benchmarks.tasks.common.data import Parts
from benchmarks.tasks.common.rows import classification, score_labels
from benchmarks.tasks.common.task import Problem, Task
from benchmarks.tasks.common.transformer import Embedding

CENTRE = {"SGD": -0.5, "momentum": -1.0, "AdamW": -2.0}
LENGTH, WORDS = 24, 4000
SCORED = 2000
PACKAGES = (
    "asyncio", "dbm", "email", "http", "importlib", "json",
    "logging", "multiprocessing", "unittest", "xml", "xmlrpc", "zoneinfo",
)  # fmt: skip


def words(name: str) -> list[str]:
    """Of a package or module, without its tests: some versions of Python have them elsewhere."""
    place = Path(sysconfig.get_paths()["stdlib"]) / name
    found = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    files = [path for path in found if not {"test", "tests"} & {*path.relative_to(place.parent).parts}]
    return [word for path in files for word in re.findall(r"\w+|[^\w\s]", path.read_text(encoding="utf-8"))]


@functools.cache
def snippets(names: tuple[str, ...], length: int, known: int, held: int) -> Parts:
    """Numbered words [n, length] of the sources, 0 where not among the most frequent, and which of ``names`` it is.

    Validation and test have ``held`` rows each.
    """
    texts = [words(name) for name in names]
    counts = collections.Counter(word for text in texts for word in text)
    frequent = sorted(counts, key=lambda word: (-counts[word], word))[: known - 1]
    number = {word: i for i, word in enumerate(frequent, 1)}
    rows = [torch.tensor([number.get(word, 0) for word in text]).unfold(0, length, length) for text in texts]
    x, y = torch.cat(rows), torch.cat([torch.full((len(part),), label) for label, part in enumerate(rows)])
    indices = data.split(len(y), len(y) - 2 * held, held, held)
    return {name: (x[i], y[i]) for name, i in zip(("train", "validation", "test"), indices, strict=True)}


class Encoder(nn.Module):
    """Ids [n, 24] to logits [n, packages]."""

    def __init__(self, width: int = 64, heads: int = 4, layers: int = 2) -> None:
        super().__init__()
        self.embed = Embedding(WORDS, LENGTH, width)
        layer = nn.TransformerEncoderLayer(width, heads, 2 * width, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers)
        self.head = nn.Linear(width, len(PACKAGES))

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(ids)).mean(1))


def build(seed: int, count: int | None = None, batch: int = 32) -> Problem:
    """``count`` snippets to train on, all if None."""
    parts = snippets(PACKAGES, LENGTH, WORDS, SCORED)
    x, y = parts["train"]
    problem = classification(Encoder, {**parts, "train": (x[:count], y[:count])}, batch, seed)
    scored = {**parts, "train": (x[: count or SCORED], y[: count or SCORED])}
    return dataclasses.replace(problem, evaluate=lambda model, part: score_labels(model, scored[part]))


TASKS = (
    Task("text-encoder", "text-encoder", build, 250, CENTRE, transformer=True),
    Task(
        "text-encoder-few",
        "text-encoder",
        functools.partial(build, count=600, batch=16),
        100,
        CENTRE | {"AdamW": -2.5},
        "600 snippets",
        transformer=True,
    ),
)
