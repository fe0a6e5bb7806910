"""Problems of one input and one target a row, labels or numbers: their training loss and their scores."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.tasks.common.data import Parts
from benchmarks.tasks.common.task import Batch, Problem, Score, evaluating, seeded, shuffled

SCORED = 5000
"""Rows of the training part that its loss is taken on."""

Rows = tuple[Tensor, ...]
Model = Callable[[], nn.Module]


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    x, y = batch
    return F.cross_entropy(model(x), y)


def squared_error(model: nn.Module, batch: Batch) -> Tensor:
    """Mean over all outputs."""
    x, y = batch
    return F.mse_loss(model(x), y)


def score_labels(model: nn.Module, part: Rows, rows: int = 1000) -> Score:
    """Mean cross-entropy and share of wrong labels."""
    x, y = part
    loss = wrong = 0.0
    with evaluating(model):
        for start in range(0, len(y), rows):
            logits, labels = model(x[start : start + rows]), y[start : start + rows]
            loss += float(F.cross_entropy(logits, labels, reduction="sum"))
            wrong += float((logits.argmax(-1) != labels).sum())
    return {"loss": loss / len(y), "error": wrong / len(y)}


def score_numbers(model: nn.Module, part: Rows, rows: int = 1000) -> Score:
    x, y = part
    with evaluating(model):
        pairs = zip(x.split(rows), y.split(rows), strict=True)
        loss = sum(float(squared_error(model, pair)) * len(pair[0]) for pair in pairs)
    return {"loss": loss / len(y)}


def classification(model: Model, parts: Parts, batch: int, seed: int) -> Problem:
    return _task(model, parts, batch, seed, cross_entropy, score_labels)


def regression(model: Model, parts: Parts, batch: int, seed: int) -> Problem:
    return _task(model, parts, batch, seed, squared_error, score_numbers)


def _task(
    model: Model,
    parts: Parts,
    batch: int,
    seed: int,
    loss: Callable[[nn.Module, Batch], Tensor],
    score: Callable[[nn.Module, Rows], Score],
) -> Problem:
    x, y = parts["train"]
    scored = {**parts, "train": (x[:SCORED], y[:SCORED])}
    return Problem(
        model=seeded(seed, model),
        loss=loss,
        batches=((x[i], y[i]) for i in shuffled(len(y), batch, seed)),
        evaluate=lambda model, part: score(model, scored[part]),
    )
