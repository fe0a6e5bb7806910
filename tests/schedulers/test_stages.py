"""What happens to the base rate, or the peak, on its way to the optimizer: bounds, back-off, warm-up and annealing,
growth limit."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch

import glyder
from glyder.optimizers.displacement import Ages, by_group
from glyder.optimizers.parameter_ref import ParameterRef
from glyder.optimizers.properties import gathered, repeated, young

from .problems import mlp, same, train, weights

UPDATES, WARMUP = 60, 10


def _rates(model: Any, optimizer: Any, scheduler: Any, updates: int = UPDATES, before: Any = None) -> list[float]:
    rates = []
    for t in range(updates):
        train(model, optimizer, range(t, t + 1), before)
        rates.append(scheduler.get_last_lr()[0])
    return rates


def _make(beta: float = 0.0, **options: Any) -> tuple[Any, Any, Any]:
    """Without momentum, a spike ends with its update."""
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), betas=(beta, 0.999))
    return (
        model,
        optimizer,
        glyder.LocalOptimumLR(
            optimizer, model, **({"total_steps": UPDATES, "warmup": WARMUP, "max_growth": 1e9} | options)
        ),
    )


SHAPES = {
    "cosine": lambda t: (1 + math.cos(math.pi * (t - WARMUP) / (UPDATES - WARMUP))) / 2,
    "linear": lambda t: (UPDATES - t) / (UPDATES - WARMUP),
    "constant": lambda t: 1.0,
    "rsqrt": lambda t: math.sqrt(WARMUP / (t + 1)),
}


@pytest.mark.parametrize("anneal", SHAPES)
def test_after_the_phase_the_base_is_kept_and_annealed(anneal: str) -> None:
    model, optimizer, scheduler = _make(anneal=anneal)
    rates = _rates(model, optimizer, scheduler)
    base = scheduler.history["base"][-1]
    assert scheduler.history["update"][-1] < WARMUP
    shortened = 0
    for t in range(WARMUP + 1, UPDATES):
        # The factor is within 1e-15 of its formula; 1 + cos, as written here, loses digits near the end.
        spiked = rates[t] < base * SHAPES[anneal](t) * (1 - 1e-12)
        assert spiked or rates[t] == pytest.approx(base * SHAPES[anneal](t), rel=1e-12)
        shortened += spiked
    assert shortened <= scheduler.reasons.get("spike", 0) < UPDATES / 5


PEAK = 0.01
"""Given to GlyderLR, so that only what comes after the search is looked at."""


def _given(kind: Any = torch.optim.AdamW, **options: Any) -> tuple[Any, Any, Any]:
    model = mlp()
    optimizer = kind(model.parameters(), lr=1.0)
    given = {"total_steps": UPDATES, "warmup": WARMUP, "peak_lr": PEAK}
    return model, optimizer, glyder.GlyderLR(optimizer, **(given | options))


@pytest.mark.parametrize("anneal", SHAPES)
def test_a_peak_that_is_given_is_warmed_up_to_and_annealed(anneal: str) -> None:
    rates = _rates(*_given(anneal=anneal))
    wanted = [PEAK * ((t + 1) / WARMUP if t < WARMUP else SHAPES[anneal](t)) for t in range(UPDATES)]
    # The factor is within 1e-15 of its formula; 1 + cos, as written here, loses digits near the end.
    assert rates == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD], ids=["adamw", "sgd"])
@pytest.mark.parametrize("anneal", SHAPES)
def test_a_peak_that_is_found_is_annealed(anneal: str, kind: Any) -> None:
    """Once the rise to it is over, as one that was given: its schedule is that of a run without a search."""
    model, optimizer, scheduler = _given(kind, anneal=anneal, peak_lr=None)
    start, rates = weights(model), []
    for t in range(UPDATES):
        train(model, optimizer, range(t, t + 1))
        if t == 0 or not same(weights(model), start):
            rates.append(scheduler.get_last_lr()[0])
    begun = scheduler.state_dict()["begun"]
    assert begun <= UPDATES // 4
    peak, over = scheduler.peak_lr, UPDATES - begun
    shapes = {
        "cosine": lambda t: (1 + math.cos(math.pi * (t - begun) / over)) / 2,
        "linear": lambda t: (UPDATES - t) / over,
        "constant": lambda t: 1.0,
        "rsqrt": lambda t: math.sqrt(begun / (t + 1)),
    }
    shortened = 0
    for t in range(begun, len(rates)):
        wanted = peak * shapes[anneal](t)
        spiked = rates[t] < wanted * (1 - 1e-12)
        # The factor is within 1e-15 of its formula; 1 + cos, as written here, loses digits near the end.
        assert spiked or rates[t] == pytest.approx(wanted, rel=1e-12)
        shortened += spiked
    assert shortened <= (UPDATES / 5 if kind is torch.optim.SGD else 0)
    assert shortened <= scheduler.reasons.get("spike", 0) + scheduler.reasons.get("held", 0)


@pytest.mark.parametrize("late", [20, UPDATES])
def test_a_longer_run_is_annealed_later(late: int) -> None:
    """The peak stays, and no rate before the call is another for it."""
    model, optimizer, scheduler = _given()
    rates = _rates(model, optimizer, scheduler, late)
    scheduler.extend(2 * UPDATES)
    for t in range(late, 2 * UPDATES):
        train(model, optimizer, range(t, t + 1))
        rates.append(scheduler.get_last_lr()[0])
    wanted = [
        PEAK * ((t + 1) / WARMUP if t < WARMUP else (total - t) / (total - WARMUP))
        for t, total in ((t, UPDATES if t < late else 2 * UPDATES) for t in range(2 * UPDATES))
    ]
    assert rates == pytest.approx(wanted, rel=1e-12)


def _times(model: Any, factor: float, updates: range) -> Any:
    """Between backward and step: gradients that many times as long, at these updates."""

    def change(t: int) -> None:
        if t in updates:
            for p in model.parameters():
                p.grad.mul_(factor)

    return change


def test_gradient_descent_backs_off_and_shortens_as_gradients_grow() -> None:
    """As LocalOptimumLR does, below; its peak stays what it was."""
    model, optimizer, scheduler = _given(torch.optim.SGD, anneal=None)
    rates = _rates(model, optimizer, scheduler, UPDATES + 20, _times(model, 30, range(40, 1000)))
    assert max(rates[20:40]) == PEAK
    assert rates[40] < PEAK / 10, "a spike: at most 1.5 times the usual length, not 30 times"
    assert scheduler.reasons["spike"] >= 1
    times = scheduler.reasons["backed_off"]
    assert times >= 1
    assert max(rates[-20:]) == pytest.approx(PEAK * 0.5**times, rel=1e-15)
    assert scheduler.peak_lr == PEAK


def test_gradient_descent_meets_one_odd_batch() -> None:
    model, optimizer, scheduler = _given(torch.optim.SGD, anneal=None)
    rates = _rates(model, optimizer, scheduler, UPDATES, _times(model, 1e6, range(40, 41)))
    assert rates[40] < PEAK / 1e4
    assert max(rates[41:]) == PEAK, "it does not back off"


def test_where_gradients_make_no_length_they_change_no_rate() -> None:
    ends = []
    for factor in (1.0, 30.0):
        model, optimizer, scheduler = _given()
        ends.append(_rates(model, optimizer, scheduler, UPDATES, _times(model, factor, range(40, 1000))))
        assert not {"spike", "held", "backed_off"} & set(scheduler.reasons)
    assert ends[0] == ends[1]


def test_the_window_is_a_linear_warmup() -> None:
    """Of the base at the time; only the growth limit keeps a rate below it."""
    model, optimizer, scheduler = _make(every=1)
    rates = _rates(model, optimizer, scheduler, WARMUP)
    shares = []
    for row in scheduler.history[scheduler.history["reason"] == "kept"]:
        t = int(row["update"]) + 1  # the update that the new base first acts in
        if t < WARMUP:
            shares.append(rates[t] / (row["base"] * (t + 1) / WARMUP))
    assert max(shares) == pytest.approx(1.0, rel=1e-14)
    limited = sum(share < 1 - 1e-14 for share in shares)
    assert limited == scheduler.reasons.get("growth_limited", 0)


@pytest.mark.parametrize("growth", [1.5, 4.0])
def test_the_rate_grows_at_most_by_the_factor(growth: float) -> None:
    model, optimizer, scheduler = _make(max_growth=growth, every=1)
    rates = _rates(model, optimizer, scheduler)
    measured = [int(t) for t in scheduler.history["update"][scheduler.history["reason"] == "kept"]]
    grown = [b / a for a, b in itertools.pairwise(rates[measured[0] :])]
    assert max(grown) == pytest.approx(growth, rel=1e-14), "reached, as the first rates are tiny, and not passed"


def test_bounds_act_before_annealing() -> None:
    model, optimizer, scheduler = _make(min_lr=1e-3, max_lr=2e-3)
    rates = _rates(model, optimizer, scheduler)
    assert max(rates) <= 2e-3
    assert min(rates[-3:]) < 1e-4, "the end of the annealing is below min_lr"
    model, optimizer, scheduler = _make(min_lr=1e3, anneal=None, warmup=0)
    assert _rates(model, optimizer, scheduler, 8)[-1] == 1e3


def test_a_gradient_that_explodes_makes_it_back_off() -> None:
    """Thirty times the usual gradient, from update 40 on: single updates are shortened, and the base rate falls."""
    model, optimizer, scheduler = _make(anneal=None)

    def explode(t: int) -> None:
        if t >= 40:
            for p in model.parameters():
                p.grad.mul_(30)

    rates = _rates(model, optimizer, scheduler, UPDATES + 20, explode)
    usual = max(rates[20:40])  # single updates may be shortened
    assert rates[40] < usual / 10, "the first long gradient is a spike: at most 1.5 times the usual, not 30 times"
    assert scheduler.reasons["spike"] >= 1
    assert scheduler.reasons["backed_off"] >= 1
    # The new length has become usual after some twenty updates; what remains is the back-off's.
    assert max(rates[-20:]) == pytest.approx(usual * 0.5 ** scheduler.reasons["backed_off"], rel=1e-15)


def test_the_end_of_the_phase_releases_the_back_off() -> None:
    """Where half of the phase was measured since it acted; after a later burst it stays."""

    def factor_after(burst: range) -> tuple[list[float], int]:
        model, optimizer, scheduler = _make(anneal=None, warmup=30)

        def explode(t: int) -> None:
            if t in burst:
                for p in model.parameters():
                    p.grad.mul_(30)

        factors = []
        for t in range(UPDATES):
            train(model, optimizer, range(t, t + 1), explode)
            factors.append(scheduler.state_dict()["stages"]["back_off"]["factor"])
        return factors, scheduler.reasons.get("released", 0)

    early, released = factor_after(range(10, 14))
    assert early[13] < 1, "it acts at once, also inside of the phase"
    assert early[29] == early[13]
    assert set(early[30:]) == {1.0}
    assert released == 1
    for late in (range(20, 24), range(40, 44)):
        factors, released = factor_after(late)
        assert factors[late.start - 1] == 1.0
        assert factors[-1] == factors[late.stop - 1] < 1.0
        assert released == 0


def test_a_spike_is_over_when_momentum_has_forgotten_it() -> None:
    """The rate comes back as beta^t; the back-off, which the single batch does not concern, stays out of it."""
    model, optimizer, scheduler = _make(beta=0.5, anneal=None)

    def odd(t: int) -> None:
        if t == 30:
            for p in model.parameters():
                p.grad.mul_(1e6)

    rates = _rates(model, optimizer, scheduler, 36, odd)
    base = scheduler.history["base"][-1]
    spike = rates[30] / base
    assert spike < 1e-4
    for k in range(1, 6):
        # 1e-12: a few roundings; another spike would make it less
        assert rates[30 + k] == pytest.approx(base * (1 - 0.5**k * (1 - spike)), rel=1e-12)


def test_what_momentum_repeats() -> None:
    """Beta of SGD and of Adam's kin; nothing of an optimizer without, nor of what cannot be read as one."""

    def of(kind: Any = torch.optim.SGD, **group: Any) -> float:
        return repeated(kind([torch.zeros(1, requires_grad=True)], lr=1.0), group)

    class RMSprop(torch.optim.SGD):
        """Some have (alpha, momentum) for ``betas``."""

    class SGDScheduleFree(torch.optim.SGD):
        """Its momentum is the weight of an average."""

    assert of(momentum=0.9) == 0.9
    assert of(momentum=torch.tensor(0.5)) == 0.5
    assert of(betas=(0.95, 0.99)) == of(betas=[0.95]) == 0.95
    assert of(betas=torch.tensor([0.5, 0.99])) == 0.5
    assert of(betas=(0.5, 0.99), momentum=0.25) == 0.5
    for nothing in ({}, {"momentum": 0}, {"momentum": None}, {"betas": None}, {"betas": ()}, {"betas": (None, 0.9)}):
        assert of(**nothing) == 0
    for odd in (
        {"betas": 0.9},
        {"betas": {"a": 0.9}},
        {"momentum": "much"},
        {"betas": torch.tensor(0.9)},
        {"momentum": 1.0},
        {"momentum": math.nan},
    ):
        assert of(**odd) == 0
    assert of(RMSprop, betas=(0.99, 0.0)) == 0
    assert of(SGDScheduleFree, momentum=0.9) == 0


def test_momentum_is_read_at_every_update() -> None:
    """Of the groups that are trained, which neither a rate of 0 nor a lack of gradients is; nine tenths at most."""
    model, optimizer, scheduler = _make(beta=0.5, anneal=None)
    for lr, frozen in ((0.0, False), (1.0, True)):
        more = torch.nn.Parameter(torch.zeros(1), requires_grad=not frozen)
        model.register_parameter(f"more{frozen}", more)
        optimizer.add_param_group({"params": [more], "lr": lr, "betas": (0.8, 0.999)})

    def odd(t: int) -> None:
        optimizer.param_groups[0]["betas"] = (0.5 if t < 32 else 0.99, 0.999)
        if t == 30:
            for p in model.parameters():
                if p.grad is not None:
                    p.grad.mul_(1e6)

    rates = _rates(model, optimizer, scheduler, 34, odd)
    base = scheduler.history["base"][-1]
    less = [1 - rate / base for rate in rates[30:]]
    # 1e-9: of 1 - rate/base, whose digits the subtraction costs
    assert less[1] / less[0] == pytest.approx(0.5, rel=1e-9)
    spikes, held = scheduler.reasons["spike"], scheduler.reasons["held"]
    assert held >= 2
    long = "with a gradient 1.5 times as long as usual, or longer, were made at a smaller rate"
    assert f"{spikes} updates {long}, and {held} more" in (scheduler.explain())
    assert less[2] / less[1] == pytest.approx(0.9, rel=1e-9)


def test_the_back_off_holds_before_there_is_a_base_rate() -> None:
    model, optimizer, scheduler = _make(anneal=None)
    train(model, optimizer, 3)
    state = scheduler.state_dict()
    state["base_lr"], state["stages"]["back_off"]["factor"] = None, 0.25
    scheduler.load_state_dict(state)
    train(model, optimizer, range(3, 4))
    assert scheduler.get_last_lr()[0] == 0.25 * state["rate"] > 0


def test_one_odd_batch_makes_it_not_back_off() -> None:
    model, optimizer, scheduler = _make(anneal=None)

    def odd(t: int) -> None:
        if t == 40:
            for p in model.parameters():
                p.grad.mul_(1e6)

    rates = _rates(model, optimizer, scheduler, UPDATES, odd)
    # single updates may be shortened: the back-off would have lowered all of them
    assert max(rates[41:]) == rates[30]


def _steps(optimizer: torch.optim.Optimizer, p: torch.nn.Parameter, count: int) -> list[float]:
    """The steps that a constant gradient of 1 makes."""
    steps = []
    for _ in range(count):
        before = p.item()
        p.grad = torch.ones_like(p)
        optimizer.step()
        steps.append(before - p.item())
    return steps


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (torch.optim.SGD, {"momentum": 0.9}),
        (torch.optim.SGD, {"momentum": 0.7, "dampening": 0.4}),
        (torch.optim.SGD, {"momentum": 0.0}),
    ],
)
def test_the_youth_of_a_buffer_is_what_the_optimizer_does(make: Any, options: dict[str, float]) -> None:
    """A constant gradient: the length of step t over that of a step after very many."""
    p = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = make([p], lr=1.0, **options)
    steps = _steps(optimizer, p, 400)
    for t in range(1, 60):
        # Positions of up to 4,000 are differenced: 1e-16 of them, relative to steps of about 1.
        wanted = min(1.0, steps[t - 1] / steps[-1])
        assert young(optimizer, optimizer.param_groups[0], t) == pytest.approx(wanted, rel=1e-11)


@pytest.mark.parametrize("alpha", [0.99, 0.5])
def test_directions_are_long_while_squares_gather(alpha: float) -> None:
    """A constant gradient: the squared length of a step after very many over that of step t."""
    p = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = torch.optim.RMSprop([p], lr=1.0, alpha=alpha, eps=0.0)
    steps = _steps(optimizer, p, 4000)
    for t in range(1, 60):
        # Positions of up to 4,000 are differenced: 1e-16 of them, relative to steps of about 1.
        wanted = (steps[-1] / steps[t - 1]) ** 2
        assert gathered(optimizer, optimizer.param_groups[0], t) == pytest.approx(wanted, rel=1e-11)
    ages = Ages([optimizer])
    ages.note(0)
    assert ages.gathered(0, 0, 1) == 1.0  # its squares were there before
    del optimizer.param_groups[0]["alpha"]  # another RMSprop, whose average has another name
    assert gathered(optimizer, optimizer.param_groups[0], 1) == 1.0


def test_ages_of_groups_that_come_later_or_with_buffers() -> None:
    a, b = torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([a], lr=0.1, momentum=0.9)
    ages = Ages([optimizer])
    ages.note(0)
    optimizer.add_param_group({"params": [b]})
    ages.note(5)
    assert ages.begun == [[0, 5]]
    first, second = ParameterRef(0, 0, 0), ParameterRef(0, 1, 0)
    assert by_group([first, second]) == {(0, 0): [0], (0, 1): [1]}
    assert ages.youngest([second], 6) == young(optimizer, optimizer.param_groups[1], 1)
    assert ages.youngest([first], 6) == young(optimizer, optimizer.param_groups[0], 6)
    assert ages.youngest([first, second], 6) == ages.youngest([second], 6)
    a.grad = torch.ones(1)
    optimizer.step()
    later = Ages([optimizer])
    later.note(0)
    assert later.begun == [[None, 0]]
    assert later.youngest([first], 1) == 1.0
