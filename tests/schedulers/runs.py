"""Runs to be interrupted: the test makes and saves them, a fresh process goes on with them (see ``test_resume``)."""

from __future__ import annotations

import copy
import itertools
import random
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import glyder

from .problems import CLASSES, HIDDEN, INPUTS, batch, mlp

UPDATES, PHASE = 34, 12
STOPS = (0, 1, 6, PHASE, PHASE + 1, 25)
"""Before the start, inside of the measurement phase (with "always" a displacement waits then), at its end, after it.
Of GlyderLR, whose search has as many updates: before it, in it (a displacement waits then, or what to go back to),
about its end, after it."""


class Fragile(nn.Module):
    """Raises in a forward pass without gradients when told so: only measurements make such passes."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.broken = mlp(), False

    def forward(self, x: Tensor) -> Tensor:
        if self.broken and not torch.is_grad_enabled():
            raise ArithmeticError("broken on purpose")
        return self.net(x)


class Dropping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.norm, self.b = nn.Linear(INPUTS, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.Linear(HIDDEN, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.dropout(self.norm(self.a(x)).relu(), 0.3, self.training))


@dataclass
class Run:
    model: nn.Module
    optimizers: list[torch.optim.Optimizer]
    scheduler: glyder.LocalOptimumLR | glyder.GlyderLR

    def go(self, start: int, end: int) -> None:
        for t in range(start, end):
            torch.manual_seed(5000 + t)  # what is random in training is the user's to save
            if isinstance(self.model, Fragile):
                self.model.broken = t in (5, 6, 26)
            for o in self.optimizers:
                o.zero_grad()
            x, y = batch(t, next(self.model.parameters()).dtype)
            F.cross_entropy(self.model(x), y).backward()
            if t == 8:
                next(self.model.parameters()).grad[0, 0] = float("nan")
            for o in self.optimizers:
                o.step()

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "optimizer": [o.state_dict() for o in self.optimizers],
        }

    def load(self, state: dict[str, Any], order: tuple[str, ...]) -> None:
        for part in order:
            if part == "optimizer":
                for o, s in zip(self.optimizers, state[part], strict=True):
                    o.load_state_dict(copy.deepcopy(s))  # torch would share the tensors between runs
            else:
                getattr(self, part).load_state_dict(state[part])


def _loader() -> DataLoader:
    x, y = (torch.cat(parts) for parts in zip(*(batch(t) for t in range(500, 504)), strict=True))
    return DataLoader(TensorDataset(x, y), batch_size=16, shuffle=True)


def _one(make: Callable[[Any], torch.optim.Optimizer], model: nn.Module, **options: Any) -> Run:
    optimizer = make(model.parameters())
    options = {"total_steps": UPDATES, "warmup": PHASE, "every": 2} | options
    return Run(model, [optimizer], glyder.LocalOptimumLR(optimizer, model, **options))


def _adamw(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, weight_decay=0.05)


def _momentum(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, momentum=0.9, weight_decay=0.05)


def _tensor_rate(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=torch.tensor(1e-3))


def _groups(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW([{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": 1e-4}])


def _search(make: Callable[[Any], torch.optim.Optimizer], model: nn.Module, **options: Any) -> Run:
    optimizer = make(model.parameters())
    return Run(model, [optimizer], glyder.GlyderLR(optimizer, **({"total_steps": UPDATES, "warmup": PHASE} | options)))


def _searched_groups(kind: type[torch.optim.Optimizer], **options: Any) -> Run:
    model = mlp()
    groups = [{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": 1e-4}]
    optimizer = kind(groups, lr=1e-3, **options)
    return Run(model, [optimizer], glyder.GlyderLR(optimizer, total_steps=UPDATES, warmup=PHASE))


def _search_of_two(second: type[torch.optim.Optimizer]) -> Run:
    model = mlp()
    optimizers = [torch.optim.SGD(model[0].parameters(), momentum=0.9), second(model[2].parameters())]
    return Run(model, optimizers, glyder.GlyderLR(optimizers, total_steps=UPDATES, warmup=PHASE))


def _scoped() -> Run:
    model = mlp()
    optimizer = _groups(model)
    scheduler = glyder.LocalOptimumLR(optimizer, model, total_steps=UPDATES, warmup=PHASE, scope="group")
    return Run(model, [optimizer], scheduler)


def _two() -> Run:
    model = mlp()
    optimizers = [torch.optim.SGD(model[0].parameters(), momentum=0.9), torch.optim.AdamW(model[2].parameters())]
    return Run(model, optimizers, glyder.LocalOptimumLR(optimizers, model, total_steps=UPDATES, warmup=PHASE))


SEARCHES: dict[str, Callable[[], Run]] = {
    "search adamw": lambda: _search(_adamw, mlp()),
    "search momentum": lambda: _search(_momentum, mlp()),
    "search sgd": lambda: _search(torch.optim.SGD, mlp()),
    "search tensor rate": lambda: _search(_tensor_rate, mlp()),
    "search bf16": lambda: _search(_adamw, mlp(dtype=torch.bfloat16)),
    "search dropout, batch norm": lambda: _search(_momentum, Dropping()),
    "search without end": lambda: _search(_adamw, mlp(), total_steps=None, scale=0.5),
    "search groups": lambda: _searched_groups(torch.optim.AdamW),
    "search groups, momentum": lambda: _searched_groups(torch.optim.SGD, momentum=0.9),
    "search two optimizers": lambda: _search_of_two(torch.optim.SGD),
    "search mixed": lambda: _search_of_two(torch.optim.AdamW),
    "peak given": lambda: _search(_momentum, mlp(), peak_lr=0.05, anneal="cosine"),
}
"""Of GlyderLR; all others are of LocalOptimumLR."""

CASES: dict[str, Callable[[], Run]] = SEARCHES | {
    "adamw": lambda: _one(_adamw, mlp()),
    "momentum": lambda: _one(_momentum, mlp()),
    "always": lambda: _one(_momentum, mlp(), refresh="always", anneal="rsqrt"),
    "tensor rate": lambda: _one(_tensor_rate, mlp()),
    "dropout, batch norm": lambda: _one(_adamw, Dropping()),
    "failed measurements": lambda: _one(_adamw, Fragile()),
    "sibling": lambda: _one(_adamw, mlp(), batches=_loader(), loss=nn.CrossEntropyLoss(), n_batches=2),
    "sampled labels": lambda: _one(_adamw, mlp(), estimator="gnb"),
    "observe": lambda: _one(_adamw, mlp(), observe_only=True),
    "groups": _scoped,
    "tensors": lambda: _one(_momentum, mlp(), scope="tensor"),
    "same step": lambda: _one(_adamw, mlp(), refresh="always", act="same-step"),
    "two optimizers": _two,
}

ORDERS = tuple(itertools.permutations(("model", "optimizer", "scheduler")))


def orders(case: str) -> tuple[tuple[str, ...], ...]:
    """All six for some cases; one drawn for each of the others."""
    return ORDERS if case in ("adamw", "tensor rate", "search momentum") else (random.Random(case).choice(ORDERS),)


def main(source: str, target: str) -> None:
    """Go on with every saved run of ``source`` in every order of loading; write where they ended to ``target``."""
    warnings.simplefilter("ignore", glyder.GlyderWarning)
    ended: dict[str, Any] = {}
    for case, stops in torch.load(source, weights_only=True).items():
        for stop, state in stops.items():
            for order in orders(case):
                run = CASES[case]()
                run.load(state, order)
                run.go(stop, UPDATES)
                ended[f"{case}|{stop}|{'-'.join(order)}"] = run.state()
    torch.save(ended, target)


if __name__ == "__main__":
    main(*sys.argv[1:])
