"""What the papers' experiments share: the loop, with and without a closure, and lines that are not made twice."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import glyder
from benchmarks.harness.store import Store
from benchmarks.harness.train import updates
from benchmarks.papers.common import MLPS, Trial, complete, mnist
from benchmarks.tasks.common import data
from benchmarks.tasks.common.problem import Problem


def task(rate_of_growth: float = 0.0) -> Problem:
    """A line fitted to points; inputs may grow from batch to batch until the loss overflows."""
    torch.manual_seed(0)
    model = nn.Linear(3, 1)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(1)
        t = 0
        while True:
            x = torch.randn(8, 3, generator=generator) * math.exp(rate_of_growth * t)
            yield x, x.sum(1, keepdim=True)
            t += 1

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return ((model(batch[0]) - batch[1]) ** 2).mean()

    return Problem(model, loss, batches(), lambda model, part: {"loss": 0.0})


def trained(by_closure: bool) -> tuple[list[float], list[float], glyder.HypergradientLR]:
    made = task()
    optimizer = torch.optim.SGD(made.model.parameters(), lr=0.01)
    scheduler = glyder.HypergradientLR(optimizer, beta=1e-3)
    losses = list(updates(made, optimizer, scheduler, 30, by_closure=by_closure))
    return losses, [float(p.detach().sum()) for p in made.model.parameters()], scheduler


def test_closure_and_plain_loop_train_to_the_same_bits() -> None:
    plain, closed = trained(False), trained(True)
    assert plain[:2] == closed[:2]
    assert len(plain[0]) == 30 == plain[2].updates == closed[2].updates
    assert plain[0][-1] < 0.5 * plain[0][0]


@pytest.mark.parametrize("by_closure", [False, True])
def test_a_scheduler_that_observes_sees_a_loss_once(monkeypatch: pytest.MonkeyPatch, by_closure: bool) -> None:
    seen: list[float] = []
    saw = glyder.HypergradientLR._saw_loss
    observed = glyder.HypergradientLR.observe

    def saw_loss(self: Any, loss: Any) -> None:
        seen.append(float(loss.detach()))
        saw(self, loss)

    def observe(self: Any, loss: Any) -> None:
        seen.append(float(loss.detach()))
        observed(self, loss)

    monkeypatch.setattr(glyder.HypergradientLR, "_saw_loss", saw_loss)
    monkeypatch.setattr(glyder.HypergradientLR, "observe", observe)
    losses = trained(by_closure)[0]
    assert seen == losses


def test_training_ends_after_a_loss_that_is_not_finite() -> None:
    made = task(rate_of_growth=20.0)
    optimizer = torch.optim.SGD(made.model.parameters(), lr=1.0)
    losses = list(updates(made, optimizer, glyder.AnnealedLR(optimizer, 50), 50))
    assert len(losses) < 50
    assert [math.isfinite(v) for v in losses] == [True] * (len(losses) - 1) + [False]


def test_what_is_stored_is_not_run_again(tmp_path: Path) -> None:
    trials = [Trial("made", seed, {"rate": rate}) for seed in (1, 2) for rate in (0.1, 1.0)]
    ran: list[Trial] = []

    def does(trial: Trial) -> dict[str, Any]:
        if len(ran) == 3:
            raise KeyboardInterrupt
        ran.append(trial)
        return {"final": trial.seed * trial.options["rate"], "threads": torch.get_num_threads()}

    path, threads = tmp_path / "deep" / "lines.jsonl", torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt):
        complete(trials, Store(path), does)
    first = path.read_bytes()
    ran.clear()
    lines = complete(trials, Store(path), does)
    assert ran == trials[3:]
    assert path.read_bytes().startswith(first)
    assert [line["final"] for line in lines] == [0.1, 1.0, 0.2, 2.0]
    assert {line["threads"] for line in lines} == {1}
    assert torch.get_num_threads() == threads
    stored = json.loads(path.read_text().splitlines()[0])
    assert stored["seed"] == 1
    assert {"glyder", "torch", "numpy", "python", "machine", "processor", "commit"} <= stored["environment"].keys()


@pytest.mark.skipif(not data.present("mnist"), reason="needs MNIST, in $GLYDER_DATA")
@pytest.mark.parametrize("net", MLPS)
def test_smoke(net: str) -> None:
    def first(seed: int) -> list[float]:
        made = mnist(net, seed)
        optimizer = torch.optim.SGD(made.model.parameters(), lr=0.5)
        return list(updates(made, optimizer, glyder.AnnealedLR(optimizer, 12, "linear"), 12))

    losses = first(1)
    assert losses == first(1)
    assert losses != first(2)
    assert losses[0] == pytest.approx(math.log(10), abs=0.2)  # logits near 0; 0.2: their spread, batch of 128
    assert losses[-1] < losses[0] - 0.2  # more than that spread
    widths = [m.out_features for m in mnist(net, 1).model.modules() if isinstance(m, nn.Linear)]
    assert "-".join(map(str, (784, *widths))) == net


def test_an_unknown_net_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"mnist\(net=\.\.\.\) must be one of 784-1000-10, .*, got 'lenet'"):
        mnist("lenet", 1)
