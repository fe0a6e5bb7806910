"""Small U-Net that finds the pixels of MNIST digits pasted on CIFAR images: Dice loss and focal loss."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.tasks.common import data
from benchmarks.tasks.common.data import Parts
from benchmarks.tasks.common.task import Batch, Problem, Score, Task, evaluating, seeded, shuffled

DICE = {"SGD": 0.0, "momentum": -1.0, "AdamW": -2.0}
FOCAL = {"SGD": 1.0, "momentum": -0.5, "AdamW": -2.0}
SCORED = 500


def crops(x: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """A square of ``size`` out of each image, anywhere in it."""
    down, right = torch.randint(x.shape[-1] - size + 1, (2, len(x)), generator=generator)
    return x.unfold(2, size, 1).unfold(3, size, 1)[torch.arange(len(x)), :, down, right]


@functools.cache
def scenes(opacity: float = 0.8, noise: float = 0.2) -> Parts:
    """Images [n, 3, 32, 32] with a digit of some colour somewhere, and where it is, 0 or 1 [n, 1, 32, 32]."""
    generator = torch.Generator().manual_seed(0)
    parts: Parts = {}
    for name, (background, _) in data.cifar().items():
        count = len(background)
        digit = crops(F.pad(data.mnist()[name][0][:count], (6,) * 4), 32, generator)
        colour = torch.randn(count, 3, 1, 1, generator=generator)
        pasted = torch.lerp(background, colour.expand_as(background), opacity * digit)
        parts[name] = pasted + noise * torch.randn(pasted.shape, generator=generator), (digit > 0.5).float()
    return parts


def double(inputs: int, outputs: int) -> nn.Module:
    layers: list[nn.Module] = []
    for width in (inputs, outputs):
        layers += [nn.Conv2d(width, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    def __init__(self, width: int = 8, depth: int = 2) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        pairs = list(itertools.pairwise(widths))
        self.first = double(3, width)
        self.down = nn.ModuleList(nn.Sequential(nn.MaxPool2d(2), double(*pair)) for pair in pairs)
        self.up = nn.ModuleList(nn.ConvTranspose2d(wide, narrow, 2, 2) for narrow, wide in reversed(pairs))
        self.join = nn.ModuleList(double(2 * narrow, narrow) for narrow, _ in reversed(pairs))
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        levels = [self.first(x)]
        for down in self.down:
            levels.append(down(levels[-1]))
        x = levels.pop()
        for up, join in zip(self.up, self.join, strict=True):
            x = join(torch.cat((levels.pop(), up(x)), 1))
        return self.head(x)


def dice(logits: Tensor, mask: Tensor) -> Tensor:
    """1 - (2 |P and M| + 1) / (|P| + |M| + 1), of each image."""
    share = logits.sigmoid()
    both, either = (share * mask).sum((1, 2, 3)), (share + mask).sum((1, 2, 3))
    return (1 - (2 * both + 1) / (either + 1)).mean()


def focal(logits: Tensor, mask: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Cross-entropy times (1 - probability of the truth)^gamma, as torchvision's sigmoid_focal_loss has it."""
    entropy = F.binary_cross_entropy_with_logits(logits, mask, reduction="none")
    weight = alpha * mask + (1 - alpha) * (1 - mask)
    return (weight * (1 - torch.exp(-entropy)) ** gamma * entropy).mean()


Loss = Callable[[Tensor, Tensor], Tensor]


def score(model: nn.Module, loss: Loss, x: Tensor, mask: Tensor, rows: int = 100) -> Score:
    """Mean loss, and the share of pixels on the wrong side."""
    total = wrong = 0.0
    with evaluating(model):
        for image, truth in zip(x.split(rows), mask.split(rows), strict=True):
            logits = model(image)
            total += float(loss(logits, truth)) * len(image)
            wrong += float(((logits > 0) != (truth > 0)).float().mean()) * len(image)
    return {"loss": total / len(x), "error": wrong / len(x)}


def build(loss: Loss, seed: int, batch: int = 16) -> Problem:
    def trained(model: nn.Module, batch: Batch) -> Tensor:
        x, mask = batch
        return loss(model(x), mask)

    x, mask = scenes()["train"]
    scored = {name: (x[:SCORED], mask[:SCORED]) for name, (x, mask) in scenes().items()}
    return Problem(
        model=seeded(seed, UNet),
        loss=trained,
        batches=((x[i], mask[i]) for i in shuffled(len(x), batch, seed)),
        evaluate=lambda model, part: score(model, loss, *scored[part]),
    )


NEEDS = ("mnist", "cifar")
TASKS = (
    Task("segmentation-dice", "segmentation", partial(build, dice), 300, DICE, "Dice loss", NEEDS),
    Task("segmentation-focal", "segmentation", partial(build, focal), 300, FOCAL, "focal loss", NEEDS),
)
