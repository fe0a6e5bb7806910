"""Encoder-decoder transformer from German to English, words, on Multi30k."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.tasks.common import data
from benchmarks.tasks.common.task import Batch, Problem, Score, Task, evaluating, seeded, shuffled
from benchmarks.tasks.common.transformer import Block, Embedding, initialise

CENTRE = {"SGD": 0.0, "momentum": -0.7, "AdamW": -2.0}
WORDS = 2000


class Translator(nn.Module):
    """Source and target ids [n, length] to logits [n · length, words]."""

    def __init__(self, length: int = 22, width: int = 64, heads: int = 4) -> None:
        super().__init__()
        self.read, self.write = Embedding(WORDS, length, width), Embedding(WORDS, length, width)
        self.encoder, self.decoder = Block(width, heads), Block(width, heads, causal=True, crossed=True)
        self.norm_source, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.head = nn.Linear(width, WORDS)
        self.apply(initialise)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        mask = (source != data.PAD)[:, None, None, :]
        memory = self.norm_source(self.encoder(self.read(source), mask))
        return self.head(self.norm(self.decoder(self.write(target), memory=memory, memory_mask=mask))).flatten(0, 1)


def loss(model: nn.Module, batch: Batch, reduction: str = "mean") -> Tensor:
    """Cross-entropy of the next word given the true ones before it; padding does not count."""
    (source, target), following = batch
    return F.cross_entropy(model(source, target), following.flatten(), ignore_index=data.PAD, reduction=reduction)


def pairs(german: Tensor, english: Tensor) -> Batch:
    return (german, english[:, :-1]), english[:, 1:]


def score(model: nn.Module, german: Tensor, english: Tensor, rows: int = 100) -> Score:
    chunks = zip(german.split(rows), english.split(rows), strict=True)
    with evaluating(model):
        total = sum(float(loss(model, pairs(*chunk), reduction="sum")) for chunk in chunks)
    return {"loss": total / int((english[:, 1:] != data.PAD).sum())}


def build(seed: int) -> Problem:
    parts = data.multi30k(WORDS)
    german, english = parts["train"]
    scored = {name: (source[:1000], target[:1000]) for name, (source, target) in parts.items()}
    return Problem(
        model=seeded(seed, Translator),
        loss=loss,
        batches=(pairs(german[i], english[i]) for i in shuffled(len(german), 32, seed)),
        evaluate=lambda model, part: score(model, *scored[part]),
    )


TASKS = (Task("multi30k", "multi30k", build, 400, CENTRE, needs=("multi30k",), transformer=True),)
