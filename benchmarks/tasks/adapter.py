"""LoRA adapters: a transformer that knows half of tiny Shakespeare learns the captions of Multi30k."""

from __future__ import annotations

import functools

from torch import Tensor, nn

from benchmarks.tasks.common import data, transformer
from benchmarks.tasks.common.pretrained import pretrained
from benchmarks.tasks.common.task import Problem, Task, seeded
from benchmarks.tasks.common.transformer import Decoder, next_token, score, windows

CENTRE = {"SGD": 0.0, "momentum": -0.7, "AdamW": -2.0}
LENGTH = 64


class Adapted(nn.Module):
    """A linear layer plus B A x, B = 0 at the start."""

    def __init__(self, base: nn.Linear, rank: int, scale: float = 2.0) -> None:
        super().__init__()
        self.base, self.scale = base, scale
        self.down, self.up = nn.Linear(base.in_features, rank, False), nn.Linear(rank, base.out_features, False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.scale * self.up(self.down(x))


def adapt(model: nn.Module, rank: int = 8) -> nn.Module:
    """Freezes ``model`` and puts an adapter on each of its linear layers."""
    model.requires_grad_(False)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear):
            model.set_submodule(name, Adapted(module, rank))
    return model


def before(seed: int) -> Problem:
    parts, characters = data.shakespeare()
    half = parts["train"][: len(parts["train"]) // 2]
    model = seeded(seed, functools.partial(Decoder, characters, LENGTH))
    return Problem(model, next_token, windows(half, 16, LENGTH, seed), lambda model, part: score(model, half, LENGTH))


@functools.cache
def base() -> dict[str, Tensor]:
    return pretrained("shakespeare", before, 400, 1e-2, transformer)


def start() -> nn.Module:
    model = Decoder(data.shakespeare()[1], LENGTH)
    model.load_state_dict(base())
    return adapt(model)


def build(seed: int) -> Problem:
    base()
    parts = data.captions()
    return Problem(
        model=seeded(seed, start),
        loss=next_token,
        batches=windows(parts["train"], 16, LENGTH, seed),
        evaluate=lambda model, part: score(model, parts[part], LENGTH),
    )


TASKS = (
    Task("adapter", "adapter", build, 300, CENTRE, "low-rank adapters", ("shakespeare", "multi30k"), transformer=True),
)
