"""The generic Rule type and the schedules, driven by what the register says; ``tests/rules`` checks the mathematics."""

from __future__ import annotations

import copy
import gc
import math
import pickle
import re
import sys
from types import MappingProxyType

import numpy as np
import pytest

from glyder import _core

ACTIONS = {"keep", "retry", "skip"}
RULES = _core.rules()


def bounds(make_error: str) -> tuple[float, float, bool, bool]:
    """Interval of a field, out of its error message: lower, upper, and whether each end is open."""
    found = re.search(r"must be in ([(\[])(\S+), (\S+)([)\]]), got nan$", make_error)
    assert found is not None, make_error
    return float(found[2]), float(found[3]), found[1] == "(", found[4] == ")"


def statistics(rule: _core.Rule, rng: np.random.Generator) -> dict[str, float]:
    values = {name: float(rng.standard_normal() * 2.0 ** rng.integers(-4, 5)) for name in rule.needs}
    positive = {
        "curvature",
        "dd",
        "lr",
        "xx",
        "gg",
        "n",
        "rate",
        "previous",
        "young",
        "start",
        "energy",
        "reach",
        "relative",
        "growth",
    }
    return {name: min(abs(v), 1.0) if name in positive else v for name, v in values.items()}


def test_register() -> None:
    assert len(set(RULES)) == len(RULES) > 0
    assert "glyder" in RULES
    for table in (_core.statistics(), _core.reasons()):
        assert table
        assert all(name.isidentifier() and meaning for name, meaning in table.items())


@pytest.mark.parametrize("name", RULES)
def test_attributes(name: str) -> None:
    rule = _core.Rule(name)
    assert rule.name == name
    assert name in repr(rule)
    assert rule.about.endswith(".")
    assert set(rule.needs) <= set(_core.statistics())
    assert all(isinstance(v, float) for v in (*rule.config.values(), *rule.state.values()))
    with pytest.raises(AttributeError):
        rule.config = {}  # type: ignore[misc]
    rule.config.clear()
    rule.state.clear()
    assert _core.Rule(name, **rule.config).config == rule.config


@pytest.mark.parametrize("name", RULES)
def test_every_field_is_checked(name: str) -> None:
    for field, default in _core.Rule(name).config.items():
        with pytest.raises(ValueError, match=rf'^Rule\("{name}", {field}=...\) must be in ') as caught:
            _core.Rule(name, **{field: math.nan})
        lower, upper, open_lower, open_upper = bounds(str(caught.value))
        assert lower <= default <= upper
        for end, is_open, beyond in [(lower, open_lower, -math.inf), (upper, open_upper, math.inf)]:
            if is_open:
                with pytest.raises(ValueError, match="must be in"):
                    _core.Rule(name, **{field: end})
            if math.isfinite(end):
                with pytest.raises(ValueError, match="must be in"):
                    _core.Rule(name, **{field: math.nextafter(end, beyond)})
        with pytest.raises(TypeError, match=rf'^Rule\("{name}", {field}=...\) must be a number .*, got \'1\'$'):
            _core.Rule(name, **{field: "1"})  # type: ignore[arg-type]


# What each rule counts, and its switches. How long the searches of peak and edge are may be a fraction of an update.
COUNTS = {
    "armijo": {"tries"},
    "autosgd": {"shortest", "longest"},
    "back_off": {"patience", "rest"},
    "edge": {"tries"},
    "meta": {"classes"},
    "polyak": {"batches"},
    "reset": {"batches"},
    "secant": {"form"},
    "spike": {"quiet"},
    "stochastic_bb": {"m"},
}
FLAGS = {
    "armijo": {"goldstein"},
    "autosgd": {"exact"},
    "hypergradient": {"multiplicative"},
    "ntlr": {"reference"},
}


@pytest.mark.parametrize("name", RULES)
def test_counts_and_flags_take_no_fractions(name: str) -> None:
    counts, flags = COUNTS.get(name, set()), FLAGS.get(name, set())
    for field, default in _core.Rule(name).config.items():
        for value in (default + 0.5, default - 0.5, 0.5):
            try:
                _core.Rule(name, **{field: value})
            except ValueError as error:
                if "must be in" in str(error):
                    continue
                kind = "0 or 1" if field in flags else "a whole number"
                assert str(error) == f'Rule("{name}", {field}=...) must be {kind}, got {value!r}'
                assert field in counts | flags
            else:
                assert field not in counts | flags


def test_states_count_in_whole_numbers() -> None:
    rule = _core.Rule("growth")
    with pytest.raises(ValueError, match=r'^Rule\("growth"\).load\(count=...\) must be a whole number, got 2.5$'):
        rule.load(rule.state | {"count": 2.5})
    with pytest.raises(ValueError, match=r'^Rule\("growth"\).load\(caught=...\) must be 0 or 1, got 0.5$'):
        rule.load(rule.state | {"caught": 0.5})


@pytest.mark.parametrize("name", RULES)
def test_unknown_names(name: str) -> None:
    with pytest.raises(TypeError, match=rf'^Rule\("{name}", nonsense=...\) is unknown; '):
        _core.Rule(name, nonsense=1)
    rule = _core.Rule(name)
    with pytest.raises(TypeError, match=rf'^Rule\("{name}"\).update\(nonsense=...\) is no statistic'):
        rule.update(nonsense=1)
    with pytest.raises(TypeError, match=rf'^Rule\("{name}"\).load\(nonsense=...\) is unknown'):
        rule.load({**rule.state, "nonsense": 1})


@pytest.mark.parametrize("name", RULES)
def test_missing_statistics(name: str) -> None:
    rule = _core.Rule(name)
    given = dict.fromkeys(rule.needs, 1.0)
    before = rule.state
    for missing in rule.needs:
        with pytest.raises(ValueError, match=rf'^Rule\("{name}"\).update\({missing}=...\) is missing$'):
            rule.update(**{k: v for k, v in given.items() if k != missing})
    for wrong in rule.needs:
        with pytest.raises(TypeError):
            rule.update(**{**given, wrong: "x"})  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        rule.update(1.0)  # type: ignore[misc]
    assert rule.state == before


@pytest.mark.parametrize("name", RULES)
def test_resumed_equals_uninterrupted(name: str) -> None:
    rng = np.random.default_rng(7)
    rule = _core.Rule(name)
    for step in range(200):
        resumed = _core.Rule(name, **rule.config)
        resumed.load(MappingProxyType(rule.state) if step % 2 else rule.state)
        given = statistics(rule, rng)
        if step % 17 == 0 and given:
            given[next(iter(given))] = math.nan
        verdict = rule.update(**given)
        assert resumed.update(**given) == verdict
        assert resumed.state == rule.state
        rate, action, reason = verdict
        assert action in ACTIONS
        assert reason in _core.reasons()
        assert rate == 0 if action == "skip" else sys.float_info.min <= rate < math.inf


@pytest.mark.parametrize("name", RULES)
def test_copies_go_on_alike_and_apart(name: str) -> None:
    rng = np.random.default_rng(8)
    default = _core.Rule(name).config
    rule = _core.Rule(
        name, **{k: min(v, 1e3) for k, v in default.items()}
    )  # not the defaults, where those are infinite
    for _ in range(5):
        rule.update(**statistics(rule, rng))
    before = rule.state
    given = [statistics(rule, rng) for _ in range(20)]
    copies = [copy.copy(rule), copy.deepcopy(rule)]
    copies += [pickle.loads(pickle.dumps(rule, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    verdicts = [rule.update(**each) for each in given]
    for twin in copies:
        assert type(twin) is _core.Rule
        assert (twin.name, twin.config, twin.state) == (rule.name, rule.config, before)
        assert [twin.update(**each) for each in given] == verdicts
        assert twin.state == rule.state


def test_shared_rules_stay_shared() -> None:
    rule = _core.Rule("growth")
    for first, second in (copy.deepcopy([rule, rule]), pickle.loads(pickle.dumps([rule, rule]))):
        assert first is second
        assert first is not rule


@pytest.mark.parametrize("name", RULES)
def test_load_is_all_or_nothing(name: str) -> None:
    rule = _core.Rule(name)
    before = rule.state
    for field in before:
        with pytest.raises(ValueError, match=rf'^Rule\("{name}"\).load\({field}=...\) is missing'):
            rule.load({k: v for k, v in before.items() if k != field})
        with pytest.raises(ValueError, match="must be in"):
            rule.load({**before, field: math.nan})
        with pytest.raises(TypeError):
            rule.load({**before, field: None})  # type: ignore[dict-item]
    with pytest.raises((TypeError, AttributeError)):
        rule.load(3)  # type: ignore[arg-type]
    assert rule.state == before


def test_integers_beyond_float() -> None:
    with pytest.raises(
        ValueError, match=r"^Rule\(\"bounds\"\).update\(rate=...\) must be a number in the range of float"
    ):
        _core.Rule("bounds").update(rate=10**400)


def test_constructor_refuses() -> None:
    with pytest.raises(ValueError, match=r'^Rule\("nonsense"\): there is no such rule; rules\(\) names them'):
        _core.Rule("nonsense")
    for wrong in [(), (3,), ("glyder", 1), ("gly\0der",)]:
        with pytest.raises((TypeError, ValueError)):
            _core.Rule(*wrong)
    with pytest.raises(TypeError):
        type("Derived", (_core.Rule,), {})


def test_no_leaks() -> None:
    def round_trip() -> None:
        for name in RULES:
            rule = _core.Rule(name)
            rule.load(rule.state)
            copy.deepcopy(rule)
            rule.update(**dict.fromkeys(rule.needs, 1.0))
            for call in [
                lambda: _core.Rule(name, nonsense=1),  # noqa: B023
                lambda: rule.load({}) if rule.state else rule.load({"x": 1}),  # noqa: B023
                lambda: rule.update(x=1),  # noqa: B023
                lambda: _core.schedule("cosine", 1, x=1),
                lambda: _core.schedule("cosine", 1),
            ]:
                with pytest.raises((TypeError, ValueError)):
                    call()

    round_trip()
    gc.collect()
    before = sys.getrefcount(_core.Rule), len(gc.get_objects())
    for _ in range(50):
        round_trip()
    gc.collect()
    assert sys.getrefcount(_core.Rule) <= before[0] + 5  # a frame may linger, 50 round trips may not
    assert len(gc.get_objects()) <= before[1] + 20


# ---------------------------------------------------------------- schedules


@pytest.mark.parametrize("name", _core.schedules())
def test_factors_lie_between_0_and_1(name: str) -> None:
    for total in (1, 2, 10, 1000):
        for warmup in (0, 1, 5):
            for t in range(0, total + 3, max(1, total // 50)):
                assert 0 <= _core.schedule(name, t, total=total, warmup=warmup) <= 1


def test_arguments_of_schedule() -> None:
    assert _core.schedule("constant", 5) == _core.schedule("constant", 5, total=None) == 1.0
    assert _core.schedule("linear", 0, total=4) == 1.0
    assert _core.schedule("linear", 4, total=4) == 0.0
    assert _core.schedule("linear", 0, total=4, warmup=2) == 0.5
    for call, error, message in [
        (lambda: _core.schedule("nonsense", 1), ValueError, r'^schedule\("nonsense"\): there is no such schedule'),
        (lambda: _core.schedule("cosine", 1), ValueError, r'^schedule\("cosine", total=...\) is missing'),
        (lambda: _core.schedule("cosine", -1, total=3), ValueError, r"^schedule\(t=...\) must be >= 0, got -1"),
        (lambda: _core.schedule("cosine", 1, total=-1), ValueError, r"^schedule\(total=...\) must be >= 0, got -1"),
        (lambda: _core.schedule("cosine", 1, total=3, warmup=-2), ValueError, r"^schedule\(warmup=...\) must be >= 0"),
        (lambda: _core.schedule("cosine", 1, total=3, power=2), TypeError, r'^schedule\("cosine", power=...\) is unkn'),
        (lambda: _core.schedule("polynomial", 1, total=3, power=-2), ValueError, r'^schedule\("polynomial", power=...'),
        (lambda: _core.schedule("cosine", 1.5, total=3), TypeError, ""),  # type: ignore[arg-type]
        (lambda: _core.schedule("cosine", 1, total=1.5), TypeError, ""),  # type: ignore[arg-type]
        (
            lambda: _core.schedule("cosine", 10**30, total=3),
            ValueError,
            r"^schedule\(t=...\) must be <= 9007199254740992, got",
        ),
        (lambda: _core.schedule("cosine", -(10**30), total=3), ValueError, r"^schedule\(t=...\) must be >= 0, got -1"),
        (
            lambda: _core.schedule("cosine", 1, total=2**60),
            ValueError,
            r"^schedule\(total=...\) must be <= 90071992547",
        ),
        (
            lambda: _core.schedule("cosine", 1, total=3, warmup=2**54),
            ValueError,
            r"^schedule\(warmup=...\) must be <= ",
        ),
        (
            lambda: _core.schedule("cosine", 1, total=3.0),
            TypeError,
            r"^schedule\(total=...\) must be a whole number, g",
        ),  # type: ignore[arg-type]
        (lambda: _core.schedule("cosine"), TypeError, ""),  # type: ignore[call-arg]
    ]:
        with pytest.raises(error, match=message or None):
            call()
