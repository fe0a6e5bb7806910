"""Draws docs/search.png: the search of GlyderLR in a real run, of seconds. python docs/draw_search.py"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

import glyder

UPDATES, BATCH = 800, 32


def run() -> tuple[glyder.GlyderLR, list[float]]:
    """A small net on scikit-learn's digits with AdamW; the scheduler, and the rate of every update."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # small tensors: threads cost more than they save
    digits = load_digits()
    x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.AdamW(model.parameters())
    scheduler = glyder.GlyderLR(optimizer, total_steps=UPDATES)
    rates = []
    for _ in range(UPDATES):
        chosen = torch.randint(len(x), (BATCH,))
        F.cross_entropy(model(x[chosen]), y[chosen]).backward()
        optimizer.step()
        optimizer.zero_grad()
        rates.append(float(scheduler.get_last_lr()[0]))
    return scheduler, rates


def draw(scheduler: glyder.GlyderLR, rates: list[float], file: Path) -> None:
    """Left: the cosines over the rates that they were measured at. Right: the rate of every update."""
    seen = scheduler.history
    half = seen[len(seen) - len(seen) // 2 :]
    zero = float(np.exp(np.log(half["lr"]).mean()))
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    left.axhline(0, color="0.6", linewidth=0.8)
    left.scatter(seen["lr"], seen["cosine"], s=14, c=seen["update"], cmap="viridis")
    left.axvline(zero, color="C3", label=f"zero, {zero:.2g}")
    left.axvline(scheduler.peak_lr, color="C0", linestyle="--", label=f"peak, {scheduler.peak_lr:.2g}")
    left.set(xscale="log", xlabel="learning rate of the step", ylabel="cosine of step and next gradient")
    left.set_title("the search: dots from dark (first) to light (last)", fontsize=10)
    left.legend(frameon=False)
    right.plot(rates, color="C0")
    right.axhline(zero, color="C3", linewidth=0.8)
    right.axvspan(0, len(seen), color="0.92")
    right.set(yscale="log", ylim=(rates[0] / 2, 2 * max(rates)), xlabel="update", ylabel="learning rate")
    right.set_title("the run: search (grey), warm-up, linear decay to zero", fontsize=10)
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    draw(*run(), Path(__file__).with_name("search.png"))
