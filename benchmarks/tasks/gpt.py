"""GPT on the bytes of Python's standard library: GPT-2's initialisation, tied head, clipped gradients, weight decay."""

from __future__ import annotations

import functools
import math
import sysconfig
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.tasks.common import data
from benchmarks.tasks.common.task import Batch, Problem, Score, Task, evaluating, seeded
from benchmarks.tasks.common.transformer import Attention, Embedding, initialise, next_token, windows

CENTRE = {"SGD": -0.7, "momentum": -1.2}
BYTES = 256
LENGTH = 64
SCORED = 100
"""Windows of a part that its loss is taken on."""


class Block(nn.Module):
    """Causal self-attention and two linear layers, four times as wide inside, each on a residual branch."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_self, self.norm_inner = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attend = Attention(width, heads)
        self.inner = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm_self(x)
        x = x + self.attend(normed, normed, causal=True)
        return x + self.inner(self.norm_inner(x))


class GPT(nn.Module):
    """Bytes [n, length] to logits [n · length, 256]."""

    def __init__(self, width: int, layers: int, heads: int = 4) -> None:
        super().__init__()
        self.embed = Embedding(BYTES, LENGTH, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.apply(initialise)
        for block in self.blocks:
            for last in (block.attend.out, block.inner[-1]):
                nn.init.normal_(last.weight, std=0.02 / math.sqrt(2 * layers))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.norm(self.blocks(self.embed(ids)))
        return F.linear(x, self.embed.token.weight).flatten(0, 1)


def as_bytes(text: bytes) -> Tensor:
    return torch.frombuffer(bytearray(text), dtype=torch.uint8).long()


@functools.cache
def library() -> dict[str, Tensor]:
    """The modules at the top of the standard library of this Python, 90 % of the files to train, then 5 % and 5 %."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    # what the build of this Python was like is no source
    files = sorted(path for path in folder.glob("*.py") if not path.name.startswith("_sysconfigdata"))
    held = len(files) // 20
    drawn = data.split(len(files), len(files) - 2 * held, held, held)
    return {
        part: as_bytes(b"\n".join(files[i].read_bytes() for i in index.tolist()))
        for part, index in zip(("train", "validation", "test"), drawn, strict=True)
    }


def spread(ids: Tensor) -> Batch:
    """Windows at equal distances over all of a text."""
    start = torch.linspace(0, len(ids) - LENGTH - 1, SCORED).long()[:, None]
    drawn = ids[start + torch.arange(LENGTH + 1)]
    return drawn[:, :-1], drawn[:, 1:]


def score(model: nn.Module, ids: Tensor) -> Score:
    x, y = spread(ids)
    with evaluating(model):
        losses = [float(next_token(model, pair)) * len(pair[0]) for pair in zip(x.split(25), y.split(25), strict=True)]
    return {"loss": sum(losses) / len(x)}


def language(model: nn.Module, parts: Mapping[str, Tensor], batch: int, seed: int) -> Problem:
    """Next-byte prediction on a text."""
    return Problem(
        model=model,
        loss=next_token,
        batches=windows(parts["train"], batch, LENGTH, seed),
        evaluate=lambda model, part: score(model, parts[part]),
    )


def build(seed: int, width: int, layers: int, batch: int) -> Problem:
    return language(seeded(seed, partial(GPT, width, layers)), library(), batch, seed)


def task(name: str, width: int, layers: int, batch: int, steps: int, stretch: str = "", adam: float = -3.0) -> Task:
    return Task(
        name=name,
        family="gpt",
        build=partial(build, width=width, layers=layers, batch=batch),
        steps=steps,
        centre={**CENTRE, "AdamW": adam},
        stretch=stretch,
        clip=1.0,
        decay=0.1,
        transformer=True,
    )


TASKS = (
    task("gpt-w64", 64, 2, 32, 240, adam=-2.5),
    task("gpt-w128", 128, 4, 8, 150),
    task("gpt-w256", 256, 2, 4, 150, "width 256"),
    task("gpt-b1", 64, 2, 1, 1200, "batch 1"),
)
