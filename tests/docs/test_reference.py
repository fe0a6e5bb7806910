"""docs/reference.py is what the documentation shows of GlyderLR: its rates are those of the product."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import glyder

PAGE = Path(__file__).parents[2] / "docs" / "reference.py"
SPEC = importlib.util.spec_from_file_location("reference", PAGE)
assert SPEC is not None and SPEC.loader is not None
reference = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(reference)

Make = Callable[..., torch.optim.Optimizer]


def start() -> tuple[nn.Module, Callable[[int], tuple[Tensor, Tensor]]]:
    """A small net, and its noisy batches by the number of the update."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 4)).double()
    x, noise = torch.randn(512, 12).double(), torch.randn(512, 4).double()
    y = (x[:, :4] * x[:, 4:8] + noise).argmax(1)

    def batch(t: int) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(512, (16,), generator=torch.Generator().manual_seed(t))
        return x[chosen], y[chosen]

    return model, batch


def with_product(make: Make, total: int) -> list[float]:
    model, batch = start()
    optimizer = make(model.parameters())
    scheduler = glyder.GlyderLR(optimizer, total_steps=total)
    rates = []
    for t in range(total):
        optimizer.zero_grad()
        x, y = batch(t)
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        rates.append(float(scheduler.get_last_lr()[0]))
    return rates


def with_reference(make: Make, total: int, decay: float) -> list[float]:
    model, batch = start()
    optimizer = make(model.parameters())
    parameters = list(model.parameters())
    answers = reference.rates([p.detach().numpy() for p in parameters], total, decay)
    next(answers)
    rates = []
    for t in range(total):
        optimizer.zero_grad()
        x, y = batch(t)
        F.cross_entropy(model(x), y).backward()
        rates.append(answers.send([p.grad.numpy() for p in parameters]))
        for group in optimizer.param_groups:
            group["lr"] = rates[-1]
        optimizer.step()
    return rates


@pytest.mark.parametrize("total", [20, 95, 400, 1200])
@pytest.mark.parametrize(
    ("make", "decay"),
    [(torch.optim.Adam, 0.0), (torch.optim.AdamW, 0.01), (lambda p: torch.optim.AdamW(p, weight_decay=0.5), 0.5)],
    ids=["adam", "adamw", "decay"],
)
def test_rates_are_those_of_the_product(make: Make, decay: float, total: int) -> None:
    """Each trains a net of its own at its own rates. 1e-9: sums in another order differ by 1e-16 at first, and
    training carries that on."""
    theirs = with_reference(make, total, decay)
    assert theirs == pytest.approx(with_product(make, total), rel=1e-9)
    assert max(theirs) > 10 * theirs[0]
    assert theirs[-1] < 0.2 * max(theirs)


def test_the_page_shows_the_file() -> None:
    page = (PAGE.parent / "how-it-works.md").read_text(encoding="utf-8")
    assert f"<!-- docs/reference.py -->\n```python\n{PAGE.read_text(encoding='utf-8')}```\n" in page


def test_short_enough_to_be_read() -> None:
    assert len(PAGE.read_text(encoding="utf-8").splitlines()) <= 60
