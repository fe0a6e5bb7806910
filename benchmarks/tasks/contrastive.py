"""Two encoders that find the English caption of a German one and the reverse, as in CLIP, on Multi30k."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.tasks.common import data
from benchmarks.tasks.common.task import Batch, Problem, Score, Task, evaluating, seeded, shuffled

CENTRE = {"SGD": -0.5, "momentum": -0.5, "AdamW": -1.5}
WORDS, BATCH = 2000, 128


class Encoder(nn.Module):
    """Ids [n, length] to vectors [n, width] of length 1: mean of the words' vectors, two layers."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, width)
        self.layers = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))

    def forward(self, ids: Tensor) -> Tensor:
        words = (ids != data.PAD).unsqueeze(2)
        return F.normalize(self.layers((self.embed(ids) * words).sum(1) / words.sum(1)), dim=1)


class Pair(nn.Module):
    """Similarities [n, n] of German captions with English ones, over a temperature that is learnt from 0.07 on."""

    def __init__(self) -> None:
        super().__init__()
        self.german, self.english = Encoder(), Encoder()
        self.scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, german: Tensor, english: Tensor) -> Tensor:
        return self.scale.exp().clamp(max=100) * self.german(german) @ self.english(english).T


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """InfoNCE in both directions: the right caption among those of the batch."""
    logits = model(*batch)
    right = torch.arange(len(logits))
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2


def score(model: nn.Module, german: Tensor, english: Tensor) -> Score:
    """Mean over batches of the size that is trained with; ``error`` is the share of wrong English captions."""
    batches = list(zip(german.split(BATCH), english.split(BATCH), strict=True))
    total = wrong = 0.0
    with evaluating(model):
        for batch in batches:
            total += float(loss(model, batch))
            wrong += float((model(*batch).argmax(1) != torch.arange(BATCH)).float().mean())
    return {"loss": total / len(batches), "error": wrong / len(batches)}


def build(seed: int) -> Problem:
    parts = data.multi30k(WORDS)
    german, english = parts["train"]
    scored = {name: (first[: 7 * BATCH], second[: 7 * BATCH]) for name, (first, second) in parts.items()}
    return Problem(
        model=seeded(seed, Pair),
        loss=loss,
        batches=((german[i], english[i]) for i in shuffled(len(german), BATCH, seed)),
        evaluate=lambda model, part: score(model, *scored[part]),
    )


TASKS = (Task("contrastive", "contrastive", build, 300, CENTRE, "InfoNCE", ("multi30k",), held_out=True),)
