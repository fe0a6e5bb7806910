"""Several processes that average their gradients: DistributedDataParallel with other data on every rank.

What GlyderLR reads is the same on all of them, so that they find the same without a word between them.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

import glyder

from .problems import Recorder, batch, mlp, same, weights

pytestmark = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="torch was built without gloo"
)

RANKS, UPDATES = 2, 60

PATIENCE = 60.0
"""Seconds for all ranks to come back; what they wait for each other is less."""

OPTIMIZERS = {
    "adamw": torch.optim.AdamW,
    "momentum": lambda parameters: torch.optim.SGD(parameters, momentum=0.9),
}


# ---------------------------------------------------------------- the processes


def on_ranks(folder: Path, work: Callable[..., Any], *args: Any, ranks: int = RANKS, wait: float = 20.0) -> list[Any]:
    """What ``work(rank, *args)`` returns on each of the ranks. Raises where one raises or does not come back.

    ``wait``: seconds that a rank waits for the others in a collective.
    """
    ways = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in ways else "spawn")
    if "forkserver" in ways:
        context.set_forkserver_preload(["torch", "torch.distributed", "glyder"])  # imported once for all ranks
    given = folder, ranks, wait, work, args
    processes = [context.Process(target=_rank, args=(rank, *given)) for rank in range(ranks)]
    end = time.monotonic() + PATIENCE
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join(max(0.0, end - time.monotonic()))
        late = [rank for rank, process in enumerate(processes) if process.is_alive()]
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
                process.join()
    if late:
        raise TimeoutError(f"ranks {late} did not come back in {PATIENCE:g} s")
    for rank in range(ranks):
        if (folder / f"{rank}.txt").exists():
            raise RuntimeError(f"rank {rank}: {(folder / f'{rank}.txt').read_text()}")
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(ranks)]


def _rank(rank: int, folder: Path, ranks: int, wait: float, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    meeting = f"file://{folder / 'meeting'}"
    try:
        dist.init_process_group("gloo", meeting, timedelta(seconds=wait), ranks, rank)
        torch.save(work(rank, *args), folder / f"{rank}.pt")
        dist.barrier()  # none leaves while another is still in a collective
        dist.destroy_process_group()
    except BaseException:
        (folder / f"{rank}.txt").write_text(traceback.format_exc())
        sys.exit(1)


def _alone(rank: int) -> None:
    if rank == 0:
        dist.all_reduce(torch.zeros(1))


def test_a_deadlock_is_an_error(tmp_path: Path) -> None:
    """Of these tests' own: a rank that is left alone in a collective does not hang."""
    with pytest.raises((RuntimeError, TimeoutError)):
        on_ranks(tmp_path, _alone, wait=2.0)


# ---------------------------------------------------------------- the training on each rank


class Normed(nn.Module):
    """Has buffers, which are broadcast before every forward pass."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Either(nn.Module):
    """Two heads, of which a rank uses one in an update."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(6, 8), nn.Tanh())
        self.heads = nn.ModuleList([nn.Linear(8, 4) for _ in range(2)])

    def forward(self, x: Tensor, which: int) -> Tensor:
        return self.heads[which](self.trunk(x))


SECOND = 10
"""Updates after which one rank uses the second head, which had no gradient until then."""

INFINITE = (3, 30)
"""Updates with an input that is infinite on one rank: while the peak is searched, and after."""

EMPTY = (0, 2, 7, 8, 40, 41)
"""Updates in which a rank's share of the batch is empty."""


def fit(rank: int, case: str, optimizer: str) -> dict[str, Any]:
    """A run, and everything that was seen of it."""
    model: nn.Module = {"batch norm": Normed, "no label": Normed, "either head": Either}.get(case, mlp)()
    model = model.double()
    options = {
        "views": {"gradient_as_bucket_view": True},
        "either head": {"find_unused_parameters": True},
        "static graph": {"static_graph": True},
    }
    replica = nn.parallel.DistributedDataParallel(model, **options.get(case, {}))
    o = OPTIMIZERS[optimizer](model.parameters())
    ended, losses = [], []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", glyder.GlyderWarning)
        scheduler = glyder.GlyderLR(o, replica, total_steps=UPDATES)
        record = Recorder(o)
        for t in range(UPDATES):
            pieces = 2 if case == "accumulated" else 1
            o.zero_grad()
            for piece in range(pieces):
                x, y = share(case, rank, t, piece)
                between = replica.no_sync() if piece < pieces - 1 else contextlib.nullcontext()
                with between:
                    which = (int(rank == 0 and t > SECOND),) if case == "either head" else ()
                    loss = F.cross_entropy(replica(x, *which), y, reduction="sum") / (16 * pieces)
                    loss.backward()
            o.step()
            scheduler.step()
            ended.append(weights(model))
            losses.append(loss.item())
    return {
        "rates": record.rates,
        "ended": ended,
        "buffers": [b.clone() for b in model.buffers()],
        "state": scheduler.state_dict(),
        "peak": scheduler.peak_lr,
        "updates": scheduler.updates,
        "skipped": scheduler.skipped,
        "losses": losses,
        "said": [str(w.message) for w in caught if issubclass(w.category, glyder.GlyderWarning)],
    }


def share(case: str, rank: int, t: int, piece: int = 0) -> tuple[Tensor, Tensor]:
    """A rank's half of batch t."""
    x, y = batch(100 * piece + t, torch.float64)
    x, y = x[rank::RANKS], y[rank::RANKS]
    if case == "not finite" and rank == 1 and t in INFINITE:
        x = x.clone()
        x[0, 0] = torch.inf
    if case == "no rows" and rank == 1 and t in EMPTY:
        x, y = x[:0], y[:0]
    if case == "no label" and rank == 1 and t in EMPTY:
        y = torch.full_like(y, -100)
    return x, y


NOT_SHARED = ("losses", "said", "buffers")
"""What hangs on a rank's own data."""


def agreed(first: dict[str, Any], second: dict[str, Any]) -> None:
    for name in first.keys() - set(NOT_SHARED):
        assert same(first[name], second[name]), name
    assert first["losses"] != second["losses"], "the data are other ones"
    assert first["peak"] > 0
    assert len({rate for (rate,) in first["rates"]}) > UPDATES / 2


CASES = ("plain", "views", "static graph", "either head", "accumulated", "batch norm", "no rows", "no label")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("case", CASES)
def test_all_ranks_find_the_same(case: str, optimizer: str, tmp_path: Path) -> None:
    first, second = on_ranks(tmp_path, fit, case, optimizer)
    agreed(first, second)
    assert first["said"] == second["said"] == []
    assert first["updates"] == UPDATES - (optimizer == "momentum")  # one step of SGD's sets it back
    for one in (first, second):
        assert sum(one["losses"][-10:]) / 10 < 0.8 * max(one["losses"][:5])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_as_one_process_that_sees_all_data(optimizer: str, tmp_path: Path) -> None:
    first, _ = on_ranks(tmp_path, fit, "plain", optimizer)
    model = mlp(dtype=torch.float64)
    o = OPTIMIZERS[optimizer](model.parameters())
    scheduler = glyder.GlyderLR(o, total_steps=UPDATES)
    for t in range(UPDATES):
        x, y = batch(t, torch.float64)
        o.zero_grad()
        F.cross_entropy(model(x), y).backward()
        o.step()
    # Means in another order, in double precision; steps that overshoot amplify them.
    assert first["peak"] == pytest.approx(scheduler.peak_lr, rel=1e-8)
    for a, b in zip(first["ended"][-1], weights(model), strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_gradient_that_is_not_finite_on_one_rank_is_skipped_on_all(optimizer: str, tmp_path: Path) -> None:
    first, second = on_ranks(tmp_path, fit, "not finite", optimizer)
    agreed(first, second)
    for one in (first, second):
        assert one["skipped"] == len(INFINITE)
        assert one["updates"] == UPDATES - len(INFINITE) - (optimizer == "momentum")
        assert all(same(one["ended"][t], one["ended"][t - 1]) for t in INFINITE)
        assert all(p.isfinite().all() for p in one["ended"][-1])
        assert len(one["said"]) == 1
        assert "skipped" in one["said"][0]


# ---------------------------------------------------------------- as many batches as each rank has


BATCHES = (20, 17)
"""Of an epoch, on each rank."""


def uneven(rank: int, optimizer: str) -> dict[str, Any]:
    """Three epochs under torch's join(), which has a rank that is done take part in the others' collectives."""
    model = mlp().double()
    replica = nn.parallel.DistributedDataParallel(model)
    o = OPTIMIZERS[optimizer](model.parameters())
    scheduler = glyder.GlyderLR(o, total_steps=3 * max(BATCHES))
    ends, rates, updates = [], [], []
    for epoch in range(3):
        with replica.join():
            for t in range(BATCHES[rank]):
                x, y = share("uneven", rank, 20 * epoch + t)
                o.zero_grad()
                F.cross_entropy(replica(x), y).backward()
                o.step()
                rates.append(scheduler.get_last_lr()[0])
        ends.append(weights(model))
        updates.append(scheduler.updates)
    return {"ends": ends, "rates": rates, "updates": updates, "peak": scheduler.peak_lr}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_ranks_with_unequal_numbers_of_batches(optimizer: str, tmp_path: Path) -> None:
    """A rank that is done makes no steps; torch gives it the others' parameters in the end. None is left waiting."""
    found = on_ranks(tmp_path, uneven, optimizer)
    back = optimizer == "momentum"
    for one, batches in zip(found, BATCHES, strict=True):
        assert one["updates"] == [epoch * batches - back for epoch in (1, 2, 3)]
        assert one["peak"] > 0
        assert all(p.isfinite().all() for p in one["ends"][-1])
    assert same(found[0]["ends"], found[1]["ends"])
    assert found[0]["peak"] == found[1]["peak"], "the search was over before a rank was done"
    assert found[0]["rates"][: BATCHES[1]] == found[1]["rates"][: BATCHES[1]]
