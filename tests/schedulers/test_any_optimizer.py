"""Any optimizer: a table of what is expected of every one, and the same truths for all that are followed.

Truths: (1) slope and curvature in LocalOptimumLR's history are those of the displacement that really happened,
recorded by hooks of the test and differentiated by autograd in double; (2) the scheduler does nothing to a run but set
its rates (and, GlyderLR with gradient descent, set the parameters back once): the optimizer alone, given the recorded
rates by hand, ends with the same bits.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import lion_pytorch
import prodigyopt
import pytest
import torch
import torch._dynamo.testing
import torch.nn.functional as F
from torch import nn

import glyder

from .problems import CLASSES, Recorder, backward, batch, mlp, same, slope_and_curvature, train, weights
from .small import BOTH

pytestmark = pytest.mark.filterwarnings("error::glyder.GlyderWarning")

UPDATES = 20


@dataclass(frozen=True)
class Expected:
    """``decay``: how the weight decay of 0.01 that it is given acts: part of the loss, beside it, or not taken."""

    refused: str = ""
    decay: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    closure: bool = False
    late: bool = False
    own_test: bool = False


TABLE: dict[type, Expected] = {
    torch.optim.Adadelta: Expected(decay="l2"),
    torch.optim.Adafactor: Expected(decay="decoupled"),
    torch.optim.Adagrad: Expected(decay="l2"),
    torch.optim.Adam: Expected(decay="l2"),
    torch.optim.AdamW: Expected(decay="decoupled"),
    torch.optim.Adamax: Expected(decay="l2"),
    torch.optim.ASGD: Expected(refused="one update behind"),
    torch.optim.LBFGS: Expected(closure=True, late=True, options={"max_iter": 3}),
    torch.optim.Muon: Expected(own_test=True),  # matrices only
    torch.optim.NAdam: Expected(decay="decoupled", options={"decoupled_weight_decay": True}),
    torch.optim.RAdam: Expected(decay="l2"),
    torch.optim.RMSprop: Expected(decay="l2"),
    torch.optim.Rprop: Expected(refused="ignores its learning rate"),
    torch.optim.SGD: Expected(decay="l2"),
    torch.optim.SparseAdam: Expected(own_test=True),  # sparse gradients only
    lion_pytorch.Lion: Expected(decay="decoupled"),
    prodigyopt.Prodigy: Expected(refused="step size of its own"),
}

FOLLOWED = [cls for cls, expected in TABLE.items() if not expected.refused and not expected.own_test]


def _ways() -> list[Any]:
    """Every followed optimizer in each of the implementations that it has."""
    found = []
    for cls in FOLLOWED:
        takes = inspect.signature(cls).parameters
        ways: dict[str, dict[str, Any]] = {"default": {}}
        ways |= {"foreach": {"foreach": True}} if "foreach" in takes else {}
        ways |= {"fused": {"fused": True}} if "fused" in takes else {}
        ways |= {} if TABLE[cls].closure else {"compiled": {}}
        for way, options in ways.items():
            found.append(pytest.param(cls, way, options, "window", id=f"{cls.__name__}-{way}"))
        found.append(pytest.param(cls, "default", {}, "always", id=f"{cls.__name__}-always"))
    return found


def test_every_optimizer_of_torch_is_in_the_table() -> None:
    classes = {c for c in vars(torch.optim).values() if inspect.isclass(c) and issubclass(c, torch.optim.Optimizer)}
    assert classes - {torch.optim.Optimizer} <= set(TABLE)


@BOTH
@pytest.mark.parametrize("cls", [c for c, e in TABLE.items() if e.refused], ids=lambda c: c.__name__)
def test_refused_by_name_with_the_reason(cls: type, make: Any) -> None:
    model = mlp()
    optimizer = cls(model.parameters())
    with pytest.raises(ValueError, match=f"cannot follow {cls.__name__}: .*{TABLE[cls].refused}.*AnnealedLR"):
        make(optimizer, model)
    derived = type("Derived", (cls,), {})(model.parameters())
    with pytest.raises(ValueError, match=TABLE[cls].refused):
        make(derived, model)
    glyder.LocalOptimumLR(optimizer, model, observe_only=True)  # looking is allowed


def _stepper(optimizer: torch.optim.Optimizer, way: str) -> Callable[[], Any]:
    if way != "compiled":
        return optimizer.step
    torch._dynamo.reset()
    return torch.compile(optimizer.step, backend="eager")


def _run(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    way: str,
    expected: Expected,
    before: Callable[[int], None] = lambda t: None,
    after_backward: Callable[[int], None] = lambda t: None,
) -> None:
    step = _stepper(optimizer, way)
    for t in range(UPDATES):

        def closure(t: int = t) -> torch.Tensor:
            optimizer.zero_grad()
            loss = backward(model, t)
            after_backward(t)
            return loss

        if expected.closure:
            before(t)
            step(closure)
        else:
            closure()
            before(t)
            step()


def _options(cls: type, way: str, options: dict[str, Any]) -> dict[str, Any]:
    """Of an optimizer in one of its ways; a rate that is a tensor is a new one every time."""
    options = options | TABLE[cls].options | ({"weight_decay": 0.01} if TABLE[cls].decay else {})
    if way == "compiled":
        options["lr"] = torch.tensor(1e-3, dtype=torch.float64)
        if cls in (torch.optim.Adafactor, lion_pytorch.Lion):
            options["lr"] = 1e-3  # these take numbers only
    return options


def _by_hand(
    start: list[torch.Tensor],
    cls: type,
    way: str,
    options: dict[str, Any],
    rates: list[list[float]],
    went_back: tuple[int, ...] = (),
) -> list[torch.Tensor]:
    """Where the optimizer alone ends from ``start`` with these rates; at the steps ``went_back``, no update is made
    and the parameters are those of the start again."""
    model = mlp(dtype=torch.float64)

    def go_back(t: int) -> None:
        if t == 0 or t in went_back:
            with torch.no_grad():
                for p, x in zip(model.parameters(), start, strict=True):
                    p.copy_(x)
                    p.grad = None if t else p.grad

    go_back(0)
    alone = cls(model.parameters(), **_options(cls, way, options))

    def set_rates(t: int) -> None:
        for group, rate in zip(alone.param_groups, rates[t], strict=True):
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    _run(model, alone, way, TABLE[cls], set_rates, lambda t: go_back(t) if t else None)
    return weights(model)


@pytest.mark.parametrize(("cls", "way", "options", "refresh"), _ways())
def test_followed(cls: type, way: str, options: dict[str, Any], refresh: Any) -> None:
    expected = TABLE[cls]
    model = mlp(dtype=torch.float64)
    names = [n for n, _ in model.named_parameters()]
    start = weights(model)
    optimizer = cls(model.parameters(), **_options(cls, way, options))
    scheduler = glyder.LocalOptimumLR(optimizer, model, every=1, total_steps=100, warmup=UPDATES, refresh=refresh)
    recorder = Recorder(optimizer)
    _run(model, optimizer, way, expected)

    used = recorder.rates_at_entry if expected.late else recorder.rates
    rows = {int(r["update"]): r for r in scheduler.history if math.isfinite(r["curvature"])}
    assert len(rows) >= UPDATES - 4, "most updates can be measured"
    for t, row in rows.items():
        lr = used[t][0]
        assert row["lr"] == pytest.approx(lr, rel=1e-15), "the rate that the update was made with"
        shrink = 1 - lr * 0.01 if expected.decay == "decoupled" else 1.0
        at = recorder.before[t]
        delta = [shrink * a - b for a, b in zip(at, recorder.after[t], strict=True)]
        if refresh == "window":  # on the batch that made it, with the gradient at x_t
            s, q = slope_and_curvature(model, names, at, delta, t, shrink)
        else:
            at = recorder.after[t]
            s, q = slope_and_curvature(model, names, at, delta, t + 1)
        if expected.decay == "l2":
            s += 0.01 * float(sum((x * d).sum() for x, d in zip(at, delta, strict=True)))
            q += 0.01 * float(sum((d * d).sum() for d in delta))
        descent = s if refresh == "window" else s + q  # <grad f(x_t), delta>, to second order
        # The slope is an inner product in double: rounding only, of the order of 100 units of its absolute terms.
        assert abs(row["slope"] - s) <= 1e-13 * row["gradient"] * row["displacement"] + 1e-12 * abs(s)
        # The curvature is a central difference with a relative step of 1e-3: its truncation error is 1e-6 times
        # third derivatives over first ones, some tens here.
        assert row["curvature"] == pytest.approx(q, rel=1e-4)
        if descent > 0:
            assert row["optimal"] == pytest.approx(lr * descent / q, rel=1e-4 + 1e-4 * abs(q / descent))

    assert same(weights(model), _by_hand(start, cls, way, options, used)), "the scheduler does nothing but set rates"


SEARCHED_WAYS = [
    pytest.param(*way.values[:3], id=way.id)
    for way in _ways()
    if way.values[3] == "window"
    and (way.values[1] != "compiled" or way.values[0] in (torch.optim.SGD, torch.optim.AdamW))
]
"""Compiled are one optimizer for each way to search: what is compiled is the optimizer's own step."""


@pytest.mark.parametrize(("cls", "way", "options"), SEARCHED_WAYS)
def test_searched(cls: type, way: str, options: dict[str, Any]) -> None:
    """The whole of a search and what follows it; for gradient descent that begins where the search began."""
    model = mlp(dtype=torch.float64)
    start = weights(model)
    optimizer = cls(model.parameters(), **_options(cls, way, options))
    scheduler = glyder.GlyderLR(optimizer, total_steps=100, warmup=8)
    recorder = Recorder(optimizer)
    _run(model, optimizer, way, TABLE[cls])
    assert math.isfinite(scheduler.peak_lr), "found in these updates"
    went_back = tuple(t for t in range(1, UPDATES) if same(recorder.after[t], start))
    assert len(went_back) == (cls is torch.optim.SGD)
    assert scheduler.updates == UPDATES - len(went_back)
    used = recorder.rates_at_entry if TABLE[cls].late else recorder.rates
    made = [rates[0] for t, rates in enumerate(used) if t not in went_back]
    assert len(set(made)) > 4, "LBFGS soon meets its largest"
    assert scheduler.history["lr"].tolist() == pytest.approx([made[t] for t in scheduler.history["update"]], rel=1e-15)
    assert same(weights(model), _by_hand(start, cls, way, options, used, went_back)), "it does nothing else"


@pytest.mark.slow
def test_compiled_by_inductor() -> None:
    """The real compiler: the same rates as eager from the same displacements, and no compilation per rate."""
    model = mlp(dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=torch.tensor(0.1, dtype=torch.float64))
    scheduler = glyder.LocalOptimumLR(optimizer, model, every=1, total_steps=100, warmup=UPDATES)
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("inductor")
    step = torch.compile(optimizer.step, backend=counter)
    for t in range(UPDATES):
        optimizer.zero_grad()
        backward(model, t)
        step()
    assert scheduler.updates == UPDATES
    assert scheduler.reasons["kept"] >= UPDATES - 4
    eager = mlp(dtype=torch.float64)
    optimizer = torch.optim.SGD(eager.parameters())
    glyder.LocalOptimumLR(optimizer, eager, every=1, total_steps=100, warmup=UPDATES)
    train(eager, optimizer, UPDATES)
    for a, b in zip(weights(model), weights(eager), strict=True):
        # inductor may fuse x - lr*g into one rounding; twelve updates of a chaotic start amplify the last bit.
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-9)
    assert counter.frame_count <= 2


@BOTH
def test_a_compiled_step_is_compiled_once(make: Any) -> None:
    model = mlp()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=torch.tensor(0.1))
    scheduler = make(optimizer, model, total_steps=100)
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("eager")
    step = torch.compile(optimizer.step, backend=counter)
    rates = set()
    for t in range(UPDATES):
        optimizer.zero_grad()
        backward(model, t)
        step()
        rates.add(float(scheduler.get_last_lr()[0]))
    assert len(rates) > 5
    assert counter.frame_count <= 2  # the first step makes the optimizer's state


def test_the_rate_is_the_optimum_times_sigma() -> None:
    """With the stages out of the way, the rate after the first measurement is sigma*lr*(s + q)/q."""
    model = mlp(dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters())
    sigma = 0.7
    scheduler = glyder.LocalOptimumLR(
        optimizer, model, every=1, warmup=0, anneal=None, scale=sigma, max_growth=1e300, refresh="always"
    )
    t = 0
    while "kept" not in scheduler.reasons:  # the first updates may be too small to be seen
        train(model, optimizer, range(t, t + 1))
        t += 1
    row = scheduler.history[-1]
    assert row["optimal"] == pytest.approx(row["lr"] * (row["slope"] + row["curvature"]) / row["curvature"], rel=1e-14)
    assert scheduler.get_last_lr()[0] == pytest.approx(sigma * row["optimal"], rel=1e-14)


@BOTH
@pytest.mark.parametrize("keyword", [False, True])
def test_sgd_through_a_closure_is_sgd_without(keyword: bool, make: Any) -> None:
    ends = []
    for closing in (False, True):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scheduler = make(optimizer, model, total_steps=UPDATES)
        for t in range(UPDATES):

            def closure(t: int = t, optimizer: Any = optimizer, model: nn.Module = model) -> torch.Tensor:
                optimizer.zero_grad()
                return backward(model, t)

            if not closing:
                closure()
                optimizer.step()
            elif keyword:
                assert optimizer.step(closure=closure).item() > 0, "the loss is handed through"
            else:
                assert optimizer.step(closure).item() > 0
        ends.append([weights(model), scheduler.get_last_lr(), scheduler.updates])
    assert same(ends[0], ends[1])


@BOTH
def test_lbfgs_does_not_start_from_the_users_rate(make: Any) -> None:
    ends = []
    for lr in (1e-9, 1.0, 10.0):
        model = mlp()
        optimizer = torch.optim.LBFGS(model.parameters(), lr=lr, max_iter=3)
        scheduler = make(optimizer, model, total_steps=UPDATES)
        _run(model, optimizer, "default", TABLE[torch.optim.LBFGS])
        ends.append([weights(model), scheduler.get_last_lr()])
    assert same(ends[0], ends[1])
    assert same(ends[0], ends[2])


def test_lbfgs_with_a_peak_that_is_given() -> None:
    """It reads the rate before there are gradients, so that each acts an update later; the first one acts, too."""
    model = mlp()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=1)
    scheduler = glyder.GlyderLR(optimizer, total_steps=UPDATES, warmup=4, peak_lr=0.2)
    recorder = Recorder(optimizer)
    _run(model, optimizer, "default", TABLE[torch.optim.LBFGS])
    wanted = [0.2 * ((t + 1) / 4 if t < 4 else (UPDATES - t) / (UPDATES - 4)) for t in range(UPDATES)]
    used = [rates[0] for rates in recorder.rates_at_entry]
    assert not same(recorder.before[0], recorder.after[0])
    assert used[0] == wanted[0]
    shorter = [t for t in range(1, UPDATES) if used[t] < wanted[t - 1] * (1 - 1e-12)]
    assert len(shorter) <= scheduler.reasons.get("spike", 0) + scheduler.reasons.get("held", 0) < UPDATES / 2
    # 1e-14: a product and a quotient
    assert all(used[t] == pytest.approx(wanted[t - 1], rel=1e-14) for t in range(1, UPDATES) if t not in shorter)
    assert scheduler.updates == UPDATES


@BOTH
def test_lbfgs_with_a_line_search_is_refused(make: Any) -> None:
    model = mlp()
    optimizer = torch.optim.LBFGS(model.parameters(), line_search_fn="strong_wolfe")
    with pytest.raises(ValueError, match="line search sets the step"):
        make(optimizer, model)


def test_muon_with_adamw_beside_it() -> None:
    """Two optimizers, one measurement: the displacement is the joint one, the ratio of their rates is kept."""
    model = mlp(dtype=torch.float64)
    named = dict(model.named_parameters())
    matrices, rest = [n for n in named if named[n].dim() == 2], [n for n in named if named[n].dim() != 2]
    muon = torch.optim.Muon([named[n] for n in matrices], lr=0.02, weight_decay=0.0)
    adamw = torch.optim.AdamW([named[n] for n in rest], lr=0.005, weight_decay=0.0)
    scheduler = glyder.LocalOptimumLR([muon, adamw], model, every=1, total_steps=100, warmup=UPDATES)
    records = [Recorder(muon), Recorder(adamw)]
    train(model, [muon, adamw], UPDATES)
    assert scheduler.updates == UPDATES
    measured = 0
    for row in scheduler.history:
        if not math.isfinite(row["curvature"]):
            continue
        t = int(row["update"])
        assert records[0].rates[t][0] == row["lr"]
        assert records[1].rates[t][0] == pytest.approx(row["lr"] / 4, rel=1e-15)
        x0 = records[0].before[t] + records[1].before[t]
        x1 = records[0].after[t] + records[1].after[t]
        s, q = slope_and_curvature(model, matrices + rest, x0, [a - b for a, b in zip(x0, x1, strict=True)], t)
        assert row["slope"] == pytest.approx(s, rel=1e-9)  # Muon iterates in bfloat16, but the displacement is exact
        assert row["curvature"] == pytest.approx(q, rel=1e-4)  # central difference, as above
        measured += 1
    assert measured >= UPDATES - 4


class Bag(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.table = nn.Embedding(20, CLASSES, sparse=True)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.table(tokens).sum(1)


def test_sparse_adam() -> None:
    model = Bag().double()
    optimizer = torch.optim.SparseAdam(list(model.parameters()))
    scheduler = glyder.LocalOptimumLR(optimizer, model, every=1, total_steps=100, warmup=UPDATES)
    recorder = Recorder(optimizer)
    for t in range(UPDATES):
        tokens = torch.randint(20, (32, 3), generator=torch.Generator().manual_seed(t))
        optimizer.zero_grad()
        F.cross_entropy(model(tokens), tokens[:, 0] % CLASSES).backward()
        assert model.table.weight.grad.is_sparse
        optimizer.step()
    rows = [r for r in scheduler.history if math.isfinite(r["curvature"])]
    assert len(rows) >= UPDATES - 4
    for row in rows:
        t = int(row["update"])
        delta = recorder.before[t][0] - recorder.after[t][0]
        tokens = torch.randint(20, (32, 3), generator=torch.Generator().manual_seed(t))
        z, u = recorder.before[t][0][tokens].sum(1), delta[tokens].sum(1)  # linear: u is exact
        p = z.softmax(1)
        variance = (p * u * u).sum(1) - (p * u).sum(1) ** 2
        assert row["curvature"] == pytest.approx(float(variance.mean()), rel=1e-9)  # eps over the relative step 1e-3
        r = p - F.one_hot(tokens[:, 0] % CLASSES, CLASSES)
        assert row["slope"] == pytest.approx(float((r * u).sum(1).mean()), rel=1e-9)


def _searched_bag(make: Any, sparse: bool) -> tuple[float, torch.Tensor]:
    """(peak, table) of a search on an embedding, whose history is compared with what happened."""
    model = Bag().double()
    model.table.sparse = sparse
    optimizer = make(list(model.parameters()))
    scheduler = glyder.GlyderLR(optimizer, total_steps=100, warmup=8)
    recorder, gradients = Recorder(optimizer), []
    for t in range(UPDATES):
        tokens = torch.randint(20, (32, 3), generator=torch.Generator().manual_seed(t))
        optimizer.zero_grad()
        F.cross_entropy(model(tokens), tokens[:, 0] % CLASSES).backward()
        assert model.table.weight.grad.is_sparse == sparse
        gradients.append(model.table.weight.grad.to_dense().clone())
        optimizer.step()
    assert len(scheduler.history) >= 8
    for row in scheduler.history:
        t = int(row["update"])
        g, d = gradients[t + 1], recorder.before[t][0] - recorder.after[t][0]
        assert row["gradient"] == pytest.approx(float(g.norm()), rel=1e-12)  # a sum of squares in double
        if "cosine" in scheduler.history.dtype.names and math.isfinite(row["cosine"]):
            # the first displacements are 1e-4 of the parameters, and have lost as many digits
            assert row["cosine"] == pytest.approx(float((g * d).sum() / (g.norm() * d.norm())), rel=1e-9, abs=1e-9)
    return scheduler.peak_lr, model.table.weight.detach()


def test_sparse_gradients_are_searched_with() -> None:
    """As dense ones are: of both, SGD makes the same steps."""
    assert math.isfinite(_searched_bag(torch.optim.SparseAdam, True)[0])
    (peak, table), (dense_peak, dense_table) = (_searched_bag(torch.optim.SGD, sparse) for sparse in (True, False))
    # Sums over rows in another order, carried on by a search that goes on until steps overshoot.
    assert peak == pytest.approx(dense_peak, rel=1e-9)
    assert torch.allclose(table, dense_table, rtol=1e-9, atol=1e-9)


def test_the_outputs_name_the_batch() -> None:
    """The truth above is sensitive: another batch, or another displacement, is not within its bounds."""
    model = mlp(dtype=torch.float64)
    names = [n for n, _ in model.named_parameters()]
    delta = [torch.ones_like(p) * 1e-2 for p in model.parameters()]
    s, q = slope_and_curvature(model, names, weights(model), delta, 1)
    s2, q2 = slope_and_curvature(model, names, weights(model), delta, 2)
    assert abs(s - s2) > 1e-3 * abs(s)
    assert abs(q - q2) > 1e-3 * q
    assert batch(1)[0].shape == batch(2)[0].shape
