"""What GlyderLR adds to a training step, in shares of the step without it.

Three kinds of updates are timed in turn with those of a plain run: those that measure, those between measurements in
the window, and those after it. ``whole run`` is a run of the given length with the defaults.
"""

import argparse
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import glyder


def mlp() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    model = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    return model, torch.randn(64, 784), torch.randint(10, (64,))


def conv() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    layers: list[nn.Module] = []
    for i, o in ((3, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(i, o, 3, padding=1, stride=2, bias=False), nn.BatchNorm2d(o), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 16, 10))
    return model, torch.randn(64, 3, 32, 32), torch.randint(10, (64,))


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(65, 128)
        layer = nn.TransformerEncoderLayer(128, 4, 512, dropout=0.0, batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.head = nn.Linear(128, 65)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.embed(x))).flatten(0, 1)


def transformer() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    return Transformer(), torch.randint(65, (16, 64)), torch.randint(65, (16 * 64,))


def run(case, optimizer: str, steps: int, with_glyder: bool) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of every update, and which of them measured."""
    torch.manual_seed(0)
    model, x, y = case()
    opt = getattr(torch.optim, optimizer)(model.parameters(), lr=1e-3)
    sched = glyder.GlyderLR(opt, model, total_steps=steps) if with_glyder else None
    taken, measured = [], []
    for _ in range(steps):
        before = len(sched.history) if sched else 0
        started = time.perf_counter()
        F.cross_entropy(model(x), y).backward()
        opt.step()
        opt.zero_grad()
        taken.append(time.perf_counter() - started)
        measured.append(bool(sched) and len(sched.history) > before)
    return np.array(taken), np.array(measured)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, glyder {glyder.__version__}, one thread, {arguments.steps} updates, seed 0")
    print("median cost of an update over that of the plain run; `whole run` is the ratio of the sums\n")
    print(f"{'':24}{'plain, ms':>10}{'measuring':>11}{'window':>9}{'after':>8}{'whole run':>11}")
    for case in (mlp, conv, transformer):
        for optimizer in ("SGD", "AdamW"):
            ratios = []
            for _ in range(arguments.rounds):
                plain, _ = run(case, optimizer, arguments.steps, False)
                ours, measured = run(case, optimizer, arguments.steps, True)
                window = np.arange(arguments.steps) < min(100, arguments.steps // 4)
                usual = np.median(plain)
                kinds = (measured, window & ~measured, ~window)
                ratios.append([np.median(ours[kind]) / usual for kind in kinds] + [ours.sum() / plain.sum()])
            middle = np.median(ratios, axis=0)
            label = f"{case.__name__}, {optimizer}"
            print(f"{label:24}{1e3 * usual:10.2f}{middle[0]:11.2f}{middle[1]:9.2f}{middle[2]:8.2f}{middle[3]:11.3f}")


if __name__ == "__main__":
    main()
