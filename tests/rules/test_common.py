"""One table of rules and stages; every one of them gets the whole suite.

A rule is numbers in, numbers out: no array, no optimizer and no model appears here.
"""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glyder import _core

from . import (
    reference,
    twin_adgd,
    twin_armijo,
    twin_autosgd,
    twin_edge,
    twin_gradnorm,
    twin_hypergradient,
    twin_meta,
    twin_ntlr,
    twin_peak,
    twin_polyak,
    twin_regime,
    twin_secant,
    twin_stochastic_bb,
)
from .case import Case, Law, Stats, positive


def draw_glyder(rng: random.Random) -> Stats:
    return {
        "slope": rng.gauss(0.3, 1),
        "behind": float(rng.random() < 0.5),
        "curvature": rng.gauss(1, 1),
        "dd": 0.0 if rng.random() < 0.05 else positive(rng),
        "lr": positive(rng),
        "young": rng.uniform(0.1, 1),
    }


def draw_scale(rng: random.Random) -> Stats:
    return draw_glyder(rng) | {
        "slope": rng.gauss(-2, 2),
        "curvature": rng.gauss(0, 1),
        "reach": positive(rng),
        "start": positive(rng) if rng.random() < 0.9 else 0.0,
        "energy": 100.0,
    }


def draw_start(rng: random.Random) -> Stats:
    """Gradients so long that they stay longer than a sign vector under every c of the scaling laws."""
    return {
        "xx": positive(rng, 3),
        "gg": 0.0 if rng.random() < 0.05 else 1e20 * positive(rng),
        "n": 100.0,
        "dd": 0.0 if rng.random() < 0.2 else 1e-10 * positive(rng, 4),
        "previous": positive(rng, 3),
    }


def draw_stage(rng: random.Random) -> Stats:
    return {"rate": positive(rng), "previous": positive(rng), "gg": positive(rng, 1.5) * rng.choice((1, 1, 1, 1e4))}


def draw_spike(rng: random.Random) -> Stats:
    return draw_stage(rng) | {"hold": rng.choice((0.0, 0.5, 0.9))}


CASES = [
    Case(
        "glyder",
        reference.Glyder,
        [{}, {"sigma": 1.0, "memory": 1.0}, {"sigma": 1.4, "memory": 20.0}],
        draw_glyder,
        {"kept", "no_slope", "no_curvature", "not_visible"},
        [
            Law("loss times c", {"slope": 1, "curvature": 1}, 0),
            Law("direction times c, same displacement", {"lr": -1}, -1),
            Law("parameters times c, SGD", {"lr": 2, "dd": 2}, 2),
        ],
    ),
    Case(
        "local_optimum",
        reference.Scale,
        [{}, {"sigma": 3.0, "share": 0.0, "fall": 1e9}, {"share": 1.0, "fall": 1.5, "cap": 1e9}],
        draw_scale,
        {"kept", "no_slope", "no_curvature", "not_visible"},
        [
            Law("loss times c", {"slope": 1, "curvature": 1}, 0),
            Law("direction times c, same displacement", {"lr": -1, "reach": 2}, -1),
            Law("parameters times c, SGD", {"lr": 2, "dd": 2, "start": 2, "reach": -2}, 2),
        ],
        exact=False,
    ),
    Case(
        "start",
        reference.Start,
        [{}, {"visible": 1e-2, "tolerance": 1.0, "jump": 3.0}],
        draw_start,
        {"first", "kept", "not_visible", "no_gradient"},
        [
            Law("parameters times c, direction unchanged", {"xx": 2, "dd": 2, "previous": 1}, 1),
            Law("gradient times c, SGD", {"gg": 2, "previous": -1}, -1),
        ],
    ),
    Case(
        "bounds",
        reference.Bounds,
        [{}, {"min_lr": 0.5, "max_lr": 2.0}, {"min_lr": 1.0, "max_lr": 1.0}],
        draw_stage,
        {"kept", "at_min", "at_max"},
        [Law("rates times c", {"rate": 1}, 1, {"min_lr": 1, "max_lr": 1})],
    ),
    Case(
        "growth",
        reference.Growth,
        [{}, {"max_growth": 1.1}, {"max_growth": math.inf}, {"power": 0.1}],
        draw_stage,
        {"kept", "growth_limited"},
        [Law("rates times c", {"rate": 1, "previous": 1}, 1)],
    ),
    Case(
        "spike",
        reference.Spike,
        [{}, {"limit": 1.0, "clip": 1.0, "memory": 5.0, "quiet": 1.0}],
        draw_spike,
        {"kept", "spike", "held"},
        [Law("rates times c", {"rate": 1}, 1), Law("gradients times c", {"gg": 2}, 0)],
    ),
    Case(
        "back_off",
        reference.Brake,
        [{}, {"memory": 5.0, "limit": 3.0, "drop": 0.9, "patience": 1.0, "rest": 0.0}, {"memory": 1.0, "rise": 3.0}],
        draw_stage,
        {"kept", "backed_off"},
        [Law("rates times c", {"rate": 1}, 1), Law("gradients times c", {"gg": 2}, 0)],
    ),
]
TWINS = (
    twin_adgd,
    twin_armijo,
    twin_autosgd,
    twin_edge,
    twin_gradnorm,
    twin_hypergradient,
    twin_meta,
    twin_ntlr,
    twin_peak,
    twin_polyak,
    twin_regime,
    twin_secant,
    twin_stochastic_bb,
)
CASES += [case for twin in TWINS for case in twin.CASES]

RUNS = [pytest.param(case, config, id=f"{case.name}-{i}") for case in CASES for i, config in enumerate(case.configs)]
LAWS = [
    pytest.param(case, law, config, id=f"{case.name}-{law.label}-{i}")
    for case in CASES
    for law in case.laws
    for i, config in enumerate(case.configs)
]
NAMES = list(dict.fromkeys(case.name for case in CASES))


def needed(rule: _core.Rule, stats: Stats) -> Stats:
    return {name: stats[name] for name in rule.needs}


def histories(case: Case, updates: int, seed: int = 0) -> list[Stats]:
    rng = random.Random(seed)
    return [needed(_core.Rule(case.name), case.draw(rng)) for _ in range(updates)]


def test_all_rules_are_in_the_table() -> None:
    assert set(NAMES) == set(_core.rules())


@pytest.mark.parametrize(("case", "config"), RUNS)
def test_equals_twin(case: Case, config: Stats) -> None:
    """1,000 updates. 1e-9: sums of either sign cancel to a thousandth of their size, on top of 1e-13."""
    rule, twin = _core.Rule(case.name, **config), case.twin(**config)
    for stats in histories(case, 1000):
        rate, action, reason = rule.update(**stats)
        expected = twin.update(**stats)
        assert (action, reason) == expected[1:]
        assert rate == pytest.approx(expected[0], rel=1e-9)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_histories_meet_every_outcome(case: Case) -> None:
    """The comparison above would say little if every update had the same reason."""
    twins = [case.twin(**config) for config in case.configs]
    assert {twin.update(**stats)[2] for twin in twins for stats in histories(case, 1000)} == case.reasons


@pytest.mark.parametrize(("case", "config"), RUNS)
def test_resumed_equals_uninterrupted(case: Case, config: Stats) -> None:
    stats = histories(case, 200)
    whole, before, after = (_core.Rule(case.name, **config) for _ in range(3))
    expected = [whole.update(**s) for s in stats]
    got = [before.update(**s) for s in stats[:77]]
    after.load(before.state)
    got += [after.update(**s) for s in stats[77:]]
    assert got == expected
    assert after.state == whole.state


@pytest.mark.parametrize(("case", "law", "config"), LAWS)
@pytest.mark.parametrize("power", [-20, -1, 1, 20])
def test_scaling_law(case: Case, law: Law, config: Stats, power: int) -> None:
    """c is a power of two: nothing is rounded on the way, and the laws hold to the bit; sums of logarithms to 1e-13."""
    c = 2.0**power
    rule = _core.Rule(case.name, **config)
    defaults = rule.config
    scaled = _core.Rule(case.name, **{k: v * c ** law.config.get(k, 0) for k, v in defaults.items()})
    for stats in histories(case, 100):
        rate, action, reason = rule.update(**stats)
        other = scaled.update(**{k: v * c ** law.statistics.get(k, 0) for k, v in stats.items()})
        assert other[1:] == (action, reason)
        assert other[0] == pytest.approx(rate * c**law.rate, rel=0 if case.exact else 1e-13, abs=0)


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None)
@given(data=st.data())
def test_any_input(name: str, data: st.DataObject) -> None:
    """Every verdict is SKIP or a positive normal rate to keep or try; every state that comes about can be saved and
    loaded."""
    rule, fresh = _core.Rule(name), _core.Rule(name)
    any_stats = st.fixed_dictionaries({need: st.floats() for need in rule.needs})
    for stats in data.draw(st.lists(any_stats, min_size=1, max_size=8)):
        rate, action, _reason = rule.update(**stats)
        assert action in ("keep", "retry", "skip")
        if action == "skip":
            assert rate == 0.0
        else:
            assert 2.0**-1022 <= rate < math.inf
        assert not any(math.isnan(value) for value in rule.state.values())
        fresh.load(rule.state)
        assert fresh.state == rule.state


def measured(name: str) -> tuple[str, ...]:
    """Statistics whose loss costs the whole update: growth does without `previous`, and to armijo a trial that is not
    finite is one that failed."""
    needs: tuple[str, ...] = _core.Rule(name).needs
    return {"growth": ("rate",), "armijo": ("loss", "slope", "lr", "rate")}.get(name, needs)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_not_finite_leaves_no_trace(name: str, bad: float) -> None:
    """A statistic that is not finite changes no later verdict."""
    case = next(c for c in CASES if c.name == name)
    clean, hit = _core.Rule(name), _core.Rule(name)
    for i, stats in enumerate(histories(case, 60)):
        for need in measured(name) if i else ():
            before = hit.state
            assert hit.update(**{**stats, need: bad})[1:] == ("skip", "not_finite")
            assert {**hit.state, "bad": 0} == {**before, "bad": 0}, "what is not finite is at most counted"
        assert hit.update(**stats) == clean.update(**stats)


@pytest.mark.parametrize("name", NAMES)
def test_missing_statistic_is_refused(name: str) -> None:
    case = next(c for c in CASES if c.name == name)
    stats = histories(case, 1)[0]
    for need in stats:
        rule = _core.Rule(name)
        before = rule.state
        with pytest.raises((TypeError, ValueError), match=need):
            rule.update(**{k: v for k, v in stats.items() if k != need})
        assert rule.state == before


@pytest.mark.parametrize("name", NAMES)
def test_unknown_names_are_refused(name: str) -> None:
    rule = _core.Rule(name)
    with pytest.raises((TypeError, ValueError), match="nosuch"):
        _core.Rule(name, nosuch=1.0)
    with pytest.raises((TypeError, ValueError), match="nosuch"):
        rule.update(**dict.fromkeys(rule.needs, 1.0), nosuch=1.0)
    with pytest.raises((TypeError, ValueError, KeyError), match="nosuch"):
        rule.load({**rule.state, "nosuch": 1.0})
    for field in rule.state:
        with pytest.raises((TypeError, ValueError, KeyError), match=field):
            rule.load({k: v for k, v in rule.state.items() if k != field})


@pytest.mark.parametrize("name", NAMES)
def test_config_takes_no_nan(name: str) -> None:
    for field in _core.Rule(name).config:
        with pytest.raises(ValueError, match=field):
            _core.Rule(name, **{field: math.nan})


def test_unknown_rule() -> None:
    with pytest.raises(ValueError, match="nosuch"):
        _core.Rule("nosuch")


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("glyder", {"sigma": 0.0}),
        ("glyder", {"sigma": math.inf}),
        ("glyder", {"memory": 0.5}),
        ("start", {"visible": 0.0}),
        ("start", {"visible": 1.0}),
        ("start", {"tolerance": 0.0}),
        ("start", {"tolerance": 1.5}),
        ("start", {"jump": 1.0}),
        ("bounds", {"min_lr": -1.0}),
        ("bounds", {"min_lr": math.inf}),
        ("bounds", {"max_lr": 0.0}),
        ("bounds", {"min_lr": 2.0, "max_lr": 1.0}),
        ("local_optimum", {"sigma": 0.0}),
        ("local_optimum", {"share": 1.5}),
        ("local_optimum", {"fall": 1.0}),
        ("local_optimum", {"fall": 0.0}),
        ("local_optimum", {"cap": 0.0}),
        ("growth", {"max_growth": 1.0}),
        ("growth", {"power": 0.0}),
        ("spike", {"limit": 0.5}),
        ("spike", {"clip": 0.5}),
        ("spike", {"memory": 0.5}),
        ("spike", {"quiet": 0.0}),
        ("back_off", {"memory": 0.0}),
        ("back_off", {"limit": 1.0}),
        ("back_off", {"drop": 0.0}),
        ("back_off", {"drop": 1.5}),
        ("back_off", {"patience": 0.0}),
        ("back_off", {"rest": -1.0}),
        ("back_off", {"rise": 0.0}),
        ("armijo", {"c": 0.0}),
        ("armijo", {"c": 0.5, "goldstein": 1.0}),
        ("armijo", {"backtrack": 1.0}),
        ("armijo", {"extend": 1.0}),
        ("armijo", {"rise": 0.5}),
        ("armijo", {"tries": 0.5}),
        ("armijo", {"slack": -1.0}),
        ("armijo", {"min_lr": 2.0, "max_lr": 1.0}),
        ("peak", {"sigma": 0.0}),
        ("peak", {"updates": 0.5}),
        ("peak", {"updates": math.inf}),
        ("peak", {"longest": 0.5}),
        ("peak", {"pace": 0.0}),
        ("peak", {"quick": 1.0}),
        ("peak", {"slow": -0.5}),
        ("peak", {"gain": 0.0}),
        ("peak", {"share": 1.5}),
        ("edge", {"sigma": 0.0}),
        ("edge", {"longest": 0.5}),
        ("edge", {"earliest": -1.0}),
        ("edge", {"below": 0.0}),
        ("edge", {"pace": 0.0}),
        ("edge", {"memory": 0.0}),
        ("edge", {"grown": 0.0}),
        ("edge", {"sudden": 0.0}),
        ("edge", {"gain": 0.0}),
        ("edge", {"share": -0.5}),
        ("reset", {"gamma": 0.9}),
        ("reset", {"batches": 0.5}),
    ],
)
def test_config_out_of_range(name: str, config: Stats) -> None:
    with pytest.raises(ValueError, match=next(iter(config))):
        _core.Rule(name, **config)
