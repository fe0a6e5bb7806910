"""A GPT that knows Python's standard library learns the German captions of Multi30k, with all of its weights."""

from __future__ import annotations

import functools
import gzip
import platform

from torch import Tensor, nn

from benchmarks.tasks import gpt
from benchmarks.tasks.common import data, transformer
from benchmarks.tasks.common.pretrained import pretrained
from benchmarks.tasks.common.task import Problem, Task, seeded

CENTRE = {"SGD": -0.2, "momentum": -1.0, "AdamW": -2.5}


def before(seed: int) -> Problem:
    return gpt.build(seed, width=128, layers=2, batch=16)


@functools.cache
def base() -> dict[str, Tensor]:
    """Weights after 1.5 million bytes of the library, a third of it; every Python has a library of its own."""
    sources = (gpt.build, gpt.language, gpt.library, gpt.GPT, gpt.Block, transformer)
    return pretrained(f"gpt-python-{platform.python_version()}", before, 1500, 2e-3, *sources)


def start() -> nn.Module:
    model = gpt.GPT(width=128, layers=2)
    model.load_state_dict(base())
    return model


@functools.cache
def german() -> dict[str, Tensor]:
    """The captions, one a line, as bytes of UTF-8."""
    files = {part: data.root() / "multi30k" / f"{name}.de.gz" for part, name in data.CAPTIONS.items()}
    return {part: gpt.as_bytes(gzip.decompress(path.read_bytes())) for part, path in files.items()}


def build(seed: int) -> Problem:
    base()
    return gpt.language(seeded(seed, start), german(), 16, seed)


TASKS = (
    Task("gpt-finetune", "gpt-finetune", build, 150, CENTRE, "fine-tuning", ("multi30k",), clip=1.0, transformer=True),
)
