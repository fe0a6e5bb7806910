"""torch's own nn.TransformerEncoder, initialised as it comes, on the characters of the German captions of Multi30k."""

from __future__ import annotations

import functools
import gzip
import math
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.tasks.common import data
from benchmarks.tasks.common.task import Problem, Task, seeded
from benchmarks.tasks.common.transformer import next_token, score, windows

CENTRE = {"SGD": -0.5, "momentum": -1.0, "AdamW": -2.0}
LENGTH = 32


def sinusoids(length: int, width: int) -> Tensor:
    """Sines and cosines of each place [length, width] (1706.03762, section 3.5)."""
    frequency = torch.exp(-math.log(10_000) * torch.arange(0, width, 2) / width)
    angle = torch.arange(length)[:, None] * frequency
    return torch.stack((angle.sin(), angle.cos()), -1).flatten(1)


class Language(nn.Module):
    """Characters [n, length] to logits [n · length, characters]; post-norm, dropout 0.1."""

    place: Tensor

    def __init__(self, characters: int, width: int = 64, heads: int = 4, layers: int = 2) -> None:
        super().__init__()
        self.embed, self.drop = nn.Embedding(characters, width), nn.Dropout(0.1)
        self.register_buffer("place", sinusoids(LENGTH, width))
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers)
        self.head = nn.Linear(width, characters)

    def forward(self, ids: Tensor) -> Tensor:
        length = ids.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        x = self.drop(self.embed(ids) + self.place[:length])
        return self.head(self.encoder(x, mask, is_causal=True)).flatten(0, 1)


@functools.cache
def german() -> tuple[dict[str, Tensor], int]:
    """The captions, one a line, as numbers of the characters that the training part has; and how many there are."""
    files = {part: data.root() / "multi30k" / f"{name}.de.gz" for part, name in data.CAPTIONS.items()}
    texts = {part: gzip.decompress(path.read_bytes()).decode() for part, path in files.items()}
    known = {c: i for i, c in enumerate(sorted(set(texts["train"])))}
    ids = {part: torch.tensor([known.get(c, known[" "]) for c in text]) for part, text in texts.items()}
    return ids, len(known)


def build(seed: int, batch: int) -> Problem:
    parts, characters = german()
    return Problem(
        model=seeded(seed, partial(Language, characters)),
        loss=next_token,
        batches=windows(parts["train"], batch, LENGTH, seed),
        evaluate=lambda model, part: score(model, parts[part], LENGTH),
    )


def task(batch: int, steps: int) -> Task:
    name, made = f"torch-lm-b{batch}", partial(build, batch=batch)
    return Task(name, "torch-lm", made, steps, CENTRE, f"batch {batch}", ("multi30k",), transformer=True, held_out=True)


TASKS = (task(16, 450), task(64, 120))
