"""Trains the recurrent net of the rule ``meta`` and writes it as ``csrc/rules/meta_net.h``.

    python -m benchmarks.papers.meta_train            about a minute of one core; seed 0
    python -m benchmarks.papers.meta_train --dry      a few seconds, writes nothing

Networks with one or two hidden layers learn scikit-learn's digits by SGD, and the net, a ``torch.nn.LSTM`` in double
precision, gives their rate at every update from the batch loss. After every ``UNROLL`` updates the log of the loss on
held-out images, averaged over the last ``COUNTED`` of them, is differentiated through all of them, second derivatives
included, and Adam changes the net. The networks differ in width, depth, activation, batch size, scale of the inputs
and share of wrong labels, so that no single rate suits all of them and the losses tell which one does.

The published method looks one update ahead, once every 300, and trains the net anew for each run; this one is trained
once, over many short runs, and looks ``UNROLL`` updates ahead.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

HIDDEN = 4
RANGE = 7.0
"""Bound of |log(L/L_0)|: a loss of a thousandth of the first, or a thousand times it."""
UNROLL, COUNTED, UPDATES, RUNS, SEED = 30, 10, 600, 60, 0
HELD, META_BATCH, CLASSES = 597, 256, 10
HEADER = Path(__file__).parents[2] / "csrc" / "rules" / "meta_net.h"


class Net(nn.Module):
    """``sigmoid(a . LSTM(z) + b)``, as the rule computes it."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(1, HIDDEN, dtype=torch.float64)
        self.out = nn.Linear(HIDDEN, 1, dtype=torch.float64)

    def forward(self, z: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        h, state = self.cell(z.reshape(1, 1), state)
        return torch.sigmoid(self.out(h)).reshape(()), state


@dataclass
class Task:
    """A network, as a list of weights and biases, and what it learns."""

    weights: list[Tensor]
    activation: str
    batch: int
    x: Tensor
    y: Tensor
    held: tuple[Tensor, Tensor]
    draws: torch.Generator

    def loss(self, weights: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
        for i in range(0, len(weights), 2):
            x = x @ weights[i] + weights[i + 1]
            if i + 2 < len(weights):
                x = getattr(torch, self.activation)(x)
        return F.cross_entropy(x, y)

    def of_training(self, weights: list[Tensor]) -> Tensor:
        at = torch.randint(len(self.x), (self.batch,), generator=self.draws)
        return self.loss(weights, self.x[at], self.y[at])

    def of_held_out(self, weights: list[Tensor]) -> Tensor:
        at = torch.randint(len(self.held[0]), (META_BATCH,), generator=self.draws)
        return self.loss(weights, self.held[0][at], self.held[1][at])


def pick(draws: torch.Generator, choices: tuple) -> object:
    return choices[int(torch.randint(len(choices), (1,), generator=draws))]


def digits() -> tuple[Tensor, Tensor]:
    """Images with values in [0, 1], in a fixed shuffled order, and their labels."""
    x, y = load_digits(return_X_y=True)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(SEED))
    return torch.tensor(x, dtype=torch.float32)[order] / 16, torch.tensor(y)[order]


def task(x: Tensor, y: Tensor, draws: torch.Generator) -> Task:
    scale = 2.0 ** float(pick(draws, (-1, 0, 1, 2)))
    wrong = torch.rand(len(y), generator=draws) < float(pick(draws, (0.0, 0.1, 0.3)))
    labels = torch.where(wrong, torch.randint(CLASSES, y.shape, generator=draws), y)
    sizes = [x.shape[1], *[int(pick(draws, (16, 32, 64)))] * int(pick(draws, (1, 2))), CLASSES]
    weights: list[Tensor] = []
    for rows, columns in itertools.pairwise(sizes):
        weights += [torch.randn(rows, columns, generator=draws) / math.sqrt(rows), torch.zeros(columns)]
    activation, batch = str(pick(draws, ("relu", "tanh"))), int(pick(draws, (16, 32, 64, 128)))
    held = (scale * x[-HELD:], labels[-HELD:])
    return Task(weights, activation, batch, scale * x[:-HELD], labels[:-HELD], held, draws)


def gamma_of(first: float) -> float:
    """The published ceiling of the rate."""
    return math.sqrt(first) * math.log(first * CLASSES) / (4 * CLASSES**0.25)


def train(runs: int, updates: int) -> tuple[Net, list[float]]:
    """The net, and of each run the mean log of the held-out loss."""
    torch.manual_seed(SEED)
    net, (x, y), draws = Net(), digits(), torch.Generator().manual_seed(SEED)
    adam = torch.optim.Adam(net.parameters(), lr=0.01)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(adam, runs)
    course = []
    for _ in range(runs):
        course.append(one_run(net, adam, task(x, y, draws), updates))
        decay.step()
    return net, course


def one_run(net: Net, adam: torch.optim.Optimizer, work: Task, updates: int) -> float:
    weights = [w.requires_grad_() for w in work.weights]
    state, first, total = None, 0.0, 0.0
    for _ in range(0, updates, UNROLL):
        weights = [w.detach().requires_grad_() for w in weights]
        state = None if state is None else (state[0].detach(), state[1].detach())
        ahead = torch.zeros(())
        for step in range(UNROLL):
            loss = work.of_training(weights)
            first = first or loss.item()
            z = (loss.detach().double() / first).log().clamp(-RANGE, RANGE)
            share, state = net(z, state)
            gradients = torch.autograd.grad(loss, weights, create_graph=True)
            rate = (gamma_of(first) * share).float()
            weights = [w - rate * g for w, g in zip(weights, gradients, strict=True)]
            if step >= UNROLL - COUNTED:
                ahead = ahead + work.of_held_out(weights).log() / COUNTED
        if not torch.isfinite(ahead):
            break
        adam.zero_grad()
        ahead.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        adam.step()
        total += ahead.item() * UNROLL / updates
    return total


def table(values: Tensor) -> str:
    if values.dim() == 2:
        return "{\n" + "".join(f"    {table(row)},\n" for row in values) + "}"
    return "{" + ", ".join(repr(v) for v in values.tolist()) + "}"


def header(net: Net) -> str:
    cell = net.cell
    bias = (cell.bias_ih_l0 + cell.bias_hh_l0).detach()
    lines = [
        "/* meta_net.h - the weights of the net of meta.c.  Generated by benchmarks/papers/meta_train.py",
        f" * (seed {SEED}, {RUNS} runs of {UPDATES} updates on scikit-learn's digits, torch {torch.__version__}).",
        " *",
        " * Rows of gates in the order input, forget, cell, output.",
        " */",
        "/* clang-format off */",
        "#ifndef GL_META_NET_H",
        "#define GL_META_NET_H",
        "",
        f"#define GL_META_HIDDEN {HIDDEN}",
        f"#define GL_META_RANGE {RANGE}",
        "",
        f"static const double gl_meta_input[{4 * HIDDEN}] = {table(cell.weight_ih_l0.detach().flatten())};",
        f"static const double gl_meta_recurrent[{4 * HIDDEN}][{HIDDEN}] = {table(cell.weight_hh_l0.detach())};",
        f"static const double gl_meta_bias[{4 * HIDDEN}] = {table(bias)};",
        f"static const double gl_meta_output[{HIDDEN}] = {table(net.out.weight.detach().flatten())};",
        f"static const double gl_meta_output_bias = {net.out.bias.item()!r};",
        "",
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dry", action="store_true", help="two short runs, nothing written")
    dry = parser.parse_args().dry
    torch.set_num_threads(1)
    began = time.process_time()
    net, course = train(*((2, 30) if dry else (RUNS, UPDATES)))
    part = max(len(course) // 7, 1)
    means = [sum(course[i : i + part]) / len(course[i : i + part]) for i in range(0, len(course), part)]
    print("mean log of the held-out loss, by seventh of the runs:", *(f"{m:.3f}" for m in means))
    print(f"{time.process_time() - began:.0f} s of processor time")
    if not dry:
        HEADER.write_text(header(net), encoding="utf-8")


if __name__ == "__main__":
    main()
