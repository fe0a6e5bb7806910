"""Bag of embedded words that tells which module of Python's standard library 16 words are from."""

from __future__ import annotations

import functools

from torch import Tensor, nn

from benchmarks.tasks.common.rows import classification
from benchmarks.tasks.common.task import Problem, Task
from benchmarks.tasks.text_encoder import snippets

CENTRE = {"SGD": 1.0, "momentum": 0.5, "AdamW": -1.2}
LENGTH, WORDS = 16, 5000
MODULES = (
    "_pydecimal", "argparse", "ast", "bisect", "configparser", "difflib", "doctest", "enum", "fractions", "heapq",
    "inspect", "ipaddress", "mailbox", "pickle", "pickletools", "pydoc", "random", "shutil", "statistics", "string",
    "subprocess", "tarfile", "textwrap", "turtle", "typing",
)  # fmt: skip


class Bag(nn.Module):
    """Words [n, 16] to logits [n, modules]; ``deviation`` is that of the table at the start."""

    def __init__(self, deviation: float, width: int = 64) -> None:
        super().__init__()
        self.embed, self.head = nn.EmbeddingBag(WORDS, width), nn.Linear(width, len(MODULES))
        nn.init.normal_(self.embed.weight, std=deviation)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.embed(ids))


def build(seed: int, deviation: float = 1.0) -> Problem:
    return classification(functools.partial(Bag, deviation), snippets(MODULES, LENGTH, WORDS, 3000), 32, seed)


TASKS = (
    Task("embedding-bag", "embedding-bag", build, 600, CENTRE, "unbalanced classes"),
    Task(
        "embedding-bag-small",
        "embedding-bag",
        functools.partial(build, deviation=0.02),
        600,
        CENTRE,
        "small initial table",
    ),
)
