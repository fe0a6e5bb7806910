"""Parameters that are sharded over several processes: FSDP2, HSDP and tensor parallelism.

What each rank holds is a part; the scheduler adds up what they find, so that all have the rates of one process that
holds everything.
"""

from __future__ import annotations

import copy
import io
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

import glyder
from glyder.vectors.inner_products import displace, inner_products, products_each, shifted, snapshot, squared_lengths

from .problems import HIDDEN, INPUTS, batch, same
from .test_ranks import OPTIMIZERS, on_ranks

pytestmark = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="torch was built without gloo"
)

UPDATES = 60

MESHES = {"fsdp": (2,), "mixed precision": (2,), "hsdp": (2, 2), "tensor parallel": (2,), "both": (2, 2)}

COLLECTIVES = {"hsdp": (2, 2), "both": (3, 2)}
"""For a look at all tensors, and for one at the matrices. They are 1 unless said here: one for each dimension of each
mesh. What is cut in both ways, as all matrices are, lies on the whole mesh, the rest on its columns."""


class Scale(nn.Module):
    """A parameter of one element, of which most ranks hold nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


def net(dtype: torch.dtype) -> nn.Module:
    """Five classes, of which the last never comes: shards of unequal sizes."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(INPUTS, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 5), Scale()).to(dtype)


def sharded(case: str) -> nn.Module:
    """The net on the ranks' mesh."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    names = ("outer", "inner")[-len(MESHES[case]) :]
    mesh = init_device_mesh("cpu", MESHES[case], mesh_dim_names=names)
    plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
    if case == "tensor parallel":
        return parallelize_module(net(torch.float64), mesh, plan)
    if case == "both":
        model = parallelize_module(net(torch.float64), mesh["inner"], plan)
        return fully_shard(model, mesh=mesh["outer"])
    if case == "mixed precision":
        model, policy = net(torch.float32), MixedPrecisionPolicy(torch.bfloat16, torch.float32)
    else:
        model, policy = net(torch.float64), MixedPrecisionPolicy()
    fully_shard(model[0], mesh=mesh, mp_policy=policy)  # type: ignore[index]
    fully_shard(model, mesh=mesh, mp_policy=policy)
    return model


def share(case: str, rank: int, t: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A rank's part of batch t; tensor parallel ranks see the same."""
    x, y = batch(t, dtype)
    parts, part = math.prod(MESHES[case]), rank
    if case in ("tensor parallel", "both"):
        parts, part = parts // 2, rank // 2
    return x[part::parts], y[part::parts]


def whole(model: nn.Module) -> list[Tensor]:
    return [getattr(p, "full_tensor", lambda p=p: p)().detach().clone() for p in model.parameters()]


def parts(model: nn.Module) -> list[Tensor]:
    with torch.no_grad():
        return [getattr(p, "to_local", lambda p=p: p)().detach().clone() for p in model.parameters()]


class Counter:
    """Counts what the scheduler gathers; torch's own FSDP and DTensor call other functions."""

    def __init__(self) -> None:
        self.count, self.gather = 0, dist.all_gather

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.count += 1
        return self.gather(*args, **kwargs)


NAN = (3, 40)
"""Updates with a gradient that is not a number, in one element that one rank holds: in the search, and after it."""


def fit(rank: int, case: str, optimizer: str, nan: bool = False) -> dict[str, Any]:
    """A run, and everything that was seen of it."""
    model = sharded(case)
    dtype = next(model.parameters()).dtype
    o = OPTIMIZERS[optimizer](model.parameters())
    scheduler = glyder.GlyderLR(o, model, total_steps=UPDATES)
    gather = dist.all_gather = Counter()  # type: ignore[assignment]
    rates, counts, searching, ended = [], [], [], []
    for t in range(UPDATES):
        x, y = share(case, rank, t, dtype)
        o.zero_grad()
        F.cross_entropy(model(x), y).backward()
        if nan and t in NAN and rank == 1:
            with torch.no_grad():
                next(model.parameters()).grad.to_local().view(-1)[0] = torch.nan  # type: ignore[union-attr]
        before = gather.count
        o.step()
        scheduler.step()
        rates.append(scheduler.get_last_lr())
        counts.append(gather.count - before)
        searching.append(math.isnan(scheduler.peak_lr))
        ended.append(parts(model))
    return {
        "rates": rates,
        "counts": counts,
        "searching": searching,
        "ended": ended,
        "whole": whole(model),
        "peak": scheduler.peak_lr,
        "skipped": scheduler.skipped,
        "history": scheduler.history.tolist(),
        "state": scheduler.state_dict(),  # after the search, so that none of it is of one rank
    }


def alone(optimizer: str) -> dict[str, Any]:
    """The same run in one process that holds everything and sees all data."""
    model = net(torch.float64)
    o = OPTIMIZERS[optimizer](model.parameters())
    scheduler = glyder.GlyderLR(o, model, total_steps=UPDATES)
    rates = []
    for t in range(UPDATES):
        x, y = batch(t, torch.float64)
        o.zero_grad()
        F.cross_entropy(model(x), y).backward()
        o.step()
        rates.append(scheduler.get_last_lr())
    return {"rates": rates, "whole": whole(model), "peak": scheduler.peak_lr}


def agreed(found: list[dict[str, Any]]) -> None:
    for other in found[1:]:
        for name in ("rates", "counts", "searching", "whole", "peak", "skipped", "history", "state"):
            assert same(found[0][name], other[name]), name
    assert found[0]["peak"] > 0
    assert len({rate for (rate,) in found[0]["rates"]}) > UPDATES / 2


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("case", MESHES)
def test_all_ranks_find_what_one_process_does(case: str, optimizer: str, tmp_path: Path) -> None:
    found = on_ranks(tmp_path, fit, case, optimizer, ranks=math.prod(MESHES[case]))
    agreed(found)
    first = found[0]
    assert first["skipped"] == 0
    if case != "mixed precision":
        one = alone(optimizer)
        # Sums in another order, in double precision; steps that overshoot amplify them.
        assert first["peak"] == pytest.approx(one["peak"], rel=1e-6)
        assert [rate for (rate,) in first["rates"]] == pytest.approx([rate for (rate,) in one["rates"]], rel=1e-6)
        for a, b in zip(first["whole"], one["whole"], strict=True):
            assert torch.allclose(a, b, rtol=1e-6, atol=1e-6)
    # ||g|| in every update, and the cosines while they are searched.
    every, matrices = COLLECTIVES.get(case, (1, 1))
    end = first["searching"].index(False)
    assert 3 < end < UPDATES / 2
    searched, after = first["counts"][2:end], first["counts"][end + 1 :]
    assert set(searched) == {every + (matrices if optimizer == "adamw" else 0)}
    assert set(after) == {every}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("case", ["fsdp", "tensor parallel"])
def test_what_one_rank_sees_in_its_shard_alone_all_skip(case: str, optimizer: str, tmp_path: Path) -> None:
    found = on_ranks(tmp_path, fit, case, optimizer, True)
    agreed(found)
    for one in found:
        assert one["skipped"] == len(NAN)
        assert all(same(one["ended"][t], one["ended"][t - 1]) for t in NAN)
        assert all(p.isfinite().all() for p in one["whole"])


# ---------------------------------------------------------------- groups


def grouped(rank: int, case: str) -> tuple[list[int], float]:
    """SGD with a group for each parameter: what it gathers in each update, and its peak."""
    gather = dist.all_gather = Counter()  # type: ignore[assignment]
    return by_groups(sharded(case), [share(case, rank, t, torch.float64) for t in range(UPDATES)], gather)


def by_groups(model: nn.Module, data: list[tuple[Tensor, Tensor]], gather: Counter) -> tuple[list[int], float]:
    o = torch.optim.SGD([{"params": [p], "lr": 0.1 * (1 + i)} for i, p in enumerate(model.parameters())], momentum=0.9)
    scheduler = glyder.GlyderLR(o, model, total_steps=UPDATES)
    counts = []
    for x, y in data:
        o.zero_grad()
        F.cross_entropy(model(x), y).backward()
        before = gather.count
        o.step()
        counts.append(gather.count - before)
    return counts, scheduler.peak_lr


def test_the_lengths_of_all_groups_are_asked_for_together(tmp_path: Path) -> None:
    first, second = on_ranks(tmp_path, grouped, "fsdp")
    assert same(first, second)
    assert max(first[0][1:]) == 2
    _, peak = by_groups(net(torch.float64), [batch(t, torch.float64) for t in range(UPDATES)], Counter())
    assert first[1] == pytest.approx(peak, rel=1e-6)


# ---------------------------------------------------------------- checkpoints


def resumed(rank: int, case: str, optimizer: str, folder: Path) -> dict[str, Any]:
    """A run that is begun anew from its checkpoint in the search, and the one that was not."""

    def make() -> tuple[nn.Module, torch.optim.Optimizer, glyder.GlyderLR]:
        model = sharded(case)
        o = OPTIMIZERS[optimizer](model.parameters())
        return model, o, glyder.GlyderLR(o, model, total_steps=UPDATES)

    def train(model: nn.Module, o: torch.optim.Optimizer, updates: range) -> Iterator[float]:
        for t in updates:
            x, y = share(case, rank, t, torch.float64)
            o.zero_grad()
            F.cross_entropy(model(x), y).backward()
            o.step()
            yield float(o.param_groups[0]["lr"])

    model, o, scheduler = make()
    list(train(model, o, range(4)))
    assert math.isnan(scheduler.peak_lr), "it is being searched"
    torch.save(scheduler.state_dict(), folder / f"state {rank}.pt")
    new_model, new_o, new_scheduler = make()
    with torch.no_grad():
        for new, old in zip(new_model.parameters(), model.parameters(), strict=True):
            new.copy_(old)
    new_o.load_state_dict(copy.deepcopy(o.state_dict()))
    dist.barrier()
    theirs = torch.load(folder / f"state {1 - rank}.pt", weights_only=True)
    with pytest.raises(ValueError, match=r"each rank loads the state that it saved itself"):
        new_scheduler.load_state_dict(theirs)
    new_scheduler.load_state_dict(torch.load(folder / f"state {rank}.pt", weights_only=True))
    whole_state = alone_state(optimizer)
    with pytest.raises(ValueError, match=r"is whole in this state and part"):
        new_scheduler.load_state_dict(whole_state)
    rest = range(4, UPDATES)
    return {
        "on": (list(train(model, o, rest)), whole(model)),
        "anew": (list(train(new_model, new_o, rest)), whole(new_model)),
    }


def alone_state(optimizer: str) -> dict[str, Any]:
    model = net(torch.float64)
    o = OPTIMIZERS[optimizer](model.parameters())
    scheduler = glyder.GlyderLR(o, model, total_steps=UPDATES)
    for t in range(4):
        x, y = batch(t, torch.float64)
        F.cross_entropy(model(x), y).backward()
        o.step()
    file = io.BytesIO()
    torch.save(scheduler.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)  # type: ignore[no-any-return]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("case", ["fsdp", "tensor parallel"])
def test_a_run_is_resumed_to_the_bit(case: str, optimizer: str, tmp_path: Path) -> None:
    for one in on_ranks(tmp_path, resumed, case, optimizer, tmp_path):
        assert same(one["on"], one["anew"])


# ---------------------------------------------------------------- vectors


def vectors(rank: int, path: str) -> list[str]:
    """Every placement on a mesh of 2 x 2, and what was wrong with it."""
    os.environ["GLYDER_DEVICE_PATH"] = path
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("outer", "inner"))

    def made(seed: int, *shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))

    shapes = [(5, 3), (3, 4), (1,), (7,), (4, 6), (2, 2), (6,)]
    a, b = ([made(10 * i + k, *shape) for k, shape in enumerate(shapes)] for i in (1, 2))
    placements = [
        (Shard(0), Shard(1)),
        (Replicate(), Shard(0)),
        (Shard(0), Shard(0)),
        (Replicate(), Replicate()),
        (Shard(0), Replicate()),
        None,
        "inner",
    ]

    def spread(v: list[Tensor]) -> list[Tensor]:
        found = []
        for t, at in zip(v, placements, strict=True):
            over = mesh["inner"] if at == "inner" else mesh
            found.append(t if at is None else distribute_tensor(t, over, [Shard(0)] if at == "inner" else at))
        return found

    da, db = spread(a), spread(b)
    wrong = []

    def check(name: str, x: Any, y: Any) -> None:
        x, y = torch.as_tensor(x, dtype=torch.float64), torch.as_tensor(y, dtype=torch.float64)
        everywhere = [torch.empty_like(x) for _ in range(4)]
        dist.all_gather(everywhere, x)
        if not all(torch.equal(x, other) for other in everywhere):
            wrong.append(f"{name}: ranks differ")
        if not torch.allclose(x, y, rtol=1e-14, atol=1e-14):
            wrong.append(f"{name}: {x.tolist()}, not {y.tolist()}")

    pairs = [(0, 1), (0, 0)]
    check("each", products_each([da, db], pairs), products_each([a, b], pairs))
    check("sums", inner_products([da, db], pairs), inner_products([a, b], pairs))
    check("differences", inner_products([(da, db), da], pairs), inner_products([(a, b), a], pairs))
    check("lengths", squared_lengths([da[:2], [], da[2:]]), squared_lengths([a[:2], [], a[2:]]))
    # A sum that is not formed yet, on its own and by a tensor that is sharded.
    terms = made(100 + rank, 6, 2)
    total = sum(made(100 + r, 6, 2) for r in range(4))
    partial = DTensor.from_local(terms, mesh, [Partial(), Partial()])
    other = distribute_tensor(made(7, 6, 2), mesh, [Shard(0), Replicate()])
    full = [[total], [made(7, 6, 2)]]
    check("partial", inner_products([[partial], [other]], pairs), inner_products(full, pairs))
    check("partial second", inner_products([[other], [partial]], pairs[:1]), inner_products(full, pairs[:1]))
    # What is not finite in one shard is so everywhere.
    spoiled = snapshot(da)
    if rank == 3:
        spoiled[0].to_local().fill_(torch.nan)  # type: ignore[attr-defined]
    if not math.isnan(inner_products([spoiled], [(0, 0)])[0]):
        wrong.append("not a number is lost")
    # Written in place, or made anew.
    for t, x, y in zip(shifted(da, 0.5, db), a, b, strict=True):
        check("shifted", t.full_tensor() if hasattr(t, "full_tensor") else t, x + 0.5 * y)
    older = snapshot(da)
    for t, old, x, y in zip(displace(older, 0.5, db), older, a, b, strict=True):
        if t is not old:
            wrong.append("other memory")
        check("displaced", t.full_tensor() if hasattr(t, "full_tensor") else t, 0.5 * x - y)
    half = [t.bfloat16() for t in da]
    for t, x in zip(displace(half, 1.0, [0 * h for h in half]), half, strict=True):
        if t.dtype != torch.float32 or (isinstance(t, DTensor) and t.placements != x.placements):
            wrong.append(f"half precision: {t}")
    try:
        inner_products([da, [*b[:-1], db[-1]]], [(0, 1)], where=lambda i: f"parameter {i}")
        wrong.append("plain by sharded")
    except TypeError as error:
        if not str(error).startswith("parameter 0: sharded over other ranks"):
            wrong.append(str(error))
    return wrong


@pytest.mark.parametrize("path", ["", "torch"])
def test_arithmetic_is_that_of_the_whole(path: str, tmp_path: Path) -> None:
    assert on_ranks(tmp_path, vectors, path, ranks=4) == [[]] * 4


# ---------------------------------------------------------------- those that see one rank's part


LOOKS: dict[str, Callable[[torch.optim.Optimizer, nn.Module], Any]] = {
    "LocalOptimumLR": lambda o, model: glyder.LocalOptimumLR(o, model, total_steps=UPDATES),
    "LocalOptimumLR beside": lambda o, model: glyder.LocalOptimumLR(o, model, observe_only=True),
    "GradientNormLR": lambda o, model: glyder.GradientNormLR(
        o, model, total_steps=UPDATES, loss=nn.CrossEntropyLoss(), batches=[batch(0)]
    ),
    "HypergradientLR": lambda o, model: glyder.HypergradientLR(o),
    "PolyakLR": lambda o, model: glyder.PolyakLR(o),
}


@pytest.fixture
def one_rank() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize("name", LOOKS)
def test_others_refuse_in_the_constructor(name: str) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = net(torch.float32)
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    o = torch.optim.SGD(model.parameters(), lr=0.1)
    wanted = rf"^{name.split()[0]}\(optimizer=...\): parameter 0 of group 0 is sharded .* use GlyderLR"
    with pytest.raises(TypeError, match=wanted):
        LOOKS[name](o, model)
    assert not o._optimizer_step_pre_hooks
    glyder.AnnealedLR(o, UPDATES)  # reads no parameter


@pytest.mark.usefixtures("one_rank")
def test_nothing_is_gathered_where_nothing_is_sharded(monkeypatch: pytest.MonkeyPatch) -> None:
    gather = Counter()
    monkeypatch.setattr(dist, "all_gather", gather)
    alone("adamw")
    assert gather.count == 0
