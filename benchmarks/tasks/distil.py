"""Distillation, as in Hinton et al. 2015: an MLP learns 5,000 digits of MNIST and what a conv net makes of them."""

from __future__ import annotations

import functools

import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.tasks import mnist_conv
from benchmarks.tasks.common import data
from benchmarks.tasks.common.pretrained import pretrained
from benchmarks.tasks.common.rows import classification
from benchmarks.tasks.common.task import Batch, Problem, Score, Task, evaluating, seeded, shuffled

CENTRE = {"SGD": -1.0, "momentum": -1.5, "AdamW": -2.0}
TEMPERATURE = 4.0
IMAGES = {"train": 5000, "validation": 2000, "test": 2000}


def before(seed: int) -> Problem:
    return classification(mnist_conv.net, data.mnist(), 64, seed)


@functools.cache
def taught() -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Images, labels and the teacher's logits."""
    teacher = mnist_conv.net()
    teacher.load_state_dict(pretrained("teacher", before, 600, 1e-2, mnist_conv.net))
    with evaluating(teacher):
        parts = {name: (x[: IMAGES[name]], y[: IMAGES[name]]) for name, (x, y) in data.mnist().items()}
        return {name: (x, y, teacher(x)) for name, (x, y) in parts.items()}


def student() -> nn.Module:
    layers = nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
    return nn.Sequential(nn.Flatten(), *layers)


def distillation(logits: Tensor, y: Tensor, teacher: Tensor) -> Tensor:
    soft, target = ((z / TEMPERATURE).log_softmax(-1) for z in (logits, teacher))
    divergence = F.kl_div(soft, target, reduction="batchmean", log_target=True)
    return TEMPERATURE**2 * divergence + F.cross_entropy(logits, y)


def loss(model: nn.Module, batch: Batch) -> Tensor:
    x, y, teacher = batch
    return distillation(model(x), y, teacher)


def evaluate(model: nn.Module, part: str) -> Score:
    x, y, teacher = taught()[part]
    with evaluating(model):
        logits = model(x)
        return {
            "loss": float(distillation(logits, y, teacher)),
            "error": float((logits.argmax(-1) != y).float().mean()),
        }


def build(seed: int) -> Problem:
    x, y, teacher = taught()["train"]
    return Problem(
        model=seeded(seed, student),
        loss=loss,
        batches=((x[i], y[i], teacher[i]) for i in shuffled(len(y), 64, seed)),
        evaluate=evaluate,
    )


TASKS = (Task("distil", "distil", build, 600, CENTRE, "distillation", ("mnist",), held_out=True),)
