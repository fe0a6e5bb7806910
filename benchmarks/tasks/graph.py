"""Two-layer graph convolution (Kipf and Welling 2017) on 2,500 MNIST images, each tied to its nearest: full batch."""

from __future__ import annotations

import functools
import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.tasks.common import data
from benchmarks.tasks.common.task import Batch, Problem, Score, Task, evaluating, seeded

CENTRE = {"SGD": 0.5, "momentum": 0.0, "AdamW": -1.0}
PARTS = {"train": 600, "validation": 900, "test": 1000}
"""Nodes whose labels are known to each part, the same number of each digit to train on."""


@functools.cache
def graph(count: int = 2500, nearest: int = 10) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels [n, 784] of sum 1, the normalised adjacency D^-1/2 (A + I) D^-1/2 [n, n], both sparse, and labels."""
    x, y = (tensor[:count] for tensor in data.mnist()["train"])
    x = x.flatten(1)
    near = torch.cdist(x, x).topk(nearest + 1, largest=False).indices
    ties = torch.zeros(count, count).scatter_(1, near, 1.0)
    ties = torch.maximum(ties, ties.T).fill_diagonal_(1.0)
    root = ties.sum(1).rsqrt()
    return (x / x.sum(1, keepdim=True)).to_sparse(), (root[:, None] * ties * root).to_sparse(), y


@functools.cache
def nodes() -> dict[str, Tensor]:
    """Which nodes each part has."""
    y = graph()[2]
    train = torch.cat([torch.nonzero(y == digit)[: PARTS["train"] // 10, 0] for digit in range(10)])
    rest = torch.ones(len(y)).index_fill_(0, train, 0).nonzero()[:, 0]
    validation, test = rest[: PARTS["validation"] + PARTS["test"]].split((PARTS["validation"], PARTS["test"]))
    return {"train": train, "validation": validation, "test": test}


class Convolution(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(inputs, outputs)), nn.Parameter(torch.zeros(outputs))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, x: Tensor, ties: Tensor) -> Tensor:
        return torch.sparse.mm(ties, x @ self.weight) + self.bias


class Net(nn.Module):
    def __init__(self, hidden: int = 16, dropout: float = 0.5) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.first, self.second = Convolution(784, hidden), Convolution(hidden, 10)

    def forward(self, x: Tensor, ties: Tensor) -> Tensor:
        kept = torch.sparse_coo_tensor(
            x.indices(), self.dropout(x.values()), x.shape, is_coalesced=True, check_invariants=False
        )
        return self.second(self.dropout(torch.relu(self.first(kept, ties))), ties)


def batch(part: str) -> Batch:
    x, ties, y = graph()
    index = nodes()[part]
    return x, ties, index, y[index]


def loss(model: nn.Module, batch: Batch) -> Tensor:
    x, ties, index, labels = batch
    return F.cross_entropy(model(x, ties)[index], labels)


def score(model: nn.Module, batch: Batch) -> Score:
    x, ties, index, labels = batch
    with evaluating(model):
        logits = model(x, ties)[index]
        return {
            "loss": float(F.cross_entropy(logits, labels)),
            "error": float((logits.argmax(1) != labels).float().mean()),
        }


def build(seed: int) -> Problem:
    return Problem(
        model=seeded(seed, Net),
        loss=loss,
        batches=itertools.repeat(batch("train")),
        evaluate=lambda model, part: score(model, batch(part)),
    )


TASKS = (Task("graph", "graph", build, 150, CENTRE, "full batch, dropout", ("mnist",), decay=5e-4, held_out=True),)
