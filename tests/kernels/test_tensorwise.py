"""Sums and means tensor by tensor, through Python: against exact fractions, at every level, with hostile arguments."""

from __future__ import annotations

import contextlib
import gc
import math
import sys
from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from glyder import _core

DTYPES = ["float64", "float32", "float16", "bfloat16"]
SIZES = (1, 0, 15, 16, 17, 511, 0, 513, 1100)
EPS = 2.0**-53
PAIRS = [(i, j) for i in range(3) for j in range(3)]


def make(rng: np.random.Generator, dtype: str) -> list[np.ndarray[Any, Any]]:
    """Arrays of wide range; bfloat16 as 16-bit words."""
    values = [rng.standard_normal(n) * 2.0 ** rng.integers(-6, 7, n) for n in SIZES]
    if dtype == "bfloat16":
        return [(v.astype("f4").view("u4") >> 16).astype("u2") for v in values]
    return [v.astype(dtype) for v in values]


def doubles(array: np.ndarray[Any, Any]) -> list[float]:
    """The values, exactly."""
    return [float(v) for v in ((array.astype("u4") << 16).view("f4") if array.dtype == np.uint16 else array)]


def segments(arrays: list[np.ndarray[Any, Any]]) -> _core.Segments:
    return _core.Segments(arrays, bf16=True)


# ---------------------------------------------------------------- reduce_each


@pytest.mark.parametrize("dtypes", [(a, b) for a in DTYPES for b in DTYPES], ids="-".join)
def test_equals_exact_sums(level: str, dtypes: tuple[str, str]) -> None:
    rng = np.random.default_rng(1)
    a, b = (make(rng, dtype) for dtype in dtypes)
    sums = _core.reduce_each([segments(a), segments(b)], [(0, 1), (1, 0), (1, 1)])
    assert sums[0] == sums[1]
    assert [len(column) for column in sums] == [len(SIZES)] * 3
    for k, n in enumerate(SIZES):
        u, v = doubles(a[k]), doubles(b[k])
        for value, left in ((sums[0][k], u), (sums[2][k], v)):
            products = [Fraction(x) * Fraction(y) for x, y in zip(left, v, strict=True)]
            # One rounding of the product and at most one per addition that the value goes through.
            assert abs(Fraction(value) - sum(products)) <= (n + 1) * EPS * sum(map(abs, products))


@pytest.mark.parametrize("dtypes", [(a, b) for a in DTYPES for b in DTYPES], ids="-".join)
def test_levels_and_companions_change_no_bit(dtypes: tuple[str, str]) -> None:
    """Every level gives what a list of one segment gives: a tensor's sum does not hang on what stands beside it."""
    rng = np.random.default_rng(2)
    a, b, c = (make(rng, dtype) for dtype in (*dtypes, "float32"))
    results, before = {}, _core.level()
    try:
        for name in [name for name, available in _core.levels().items() if available]:
            _core.select_level(name)
            results[name] = _core.reduce_each([segments(a), (segments(b), segments(c)), segments(c)], PAIRS)
            alone = [
                _core.reduce([segments([x]), (segments([y]), segments([z])), segments([z])], PAIRS)
                for x, y, z in zip(a, b, c, strict=True)
            ]
            assert results[name] == tuple(zip(*alone, strict=True))
    finally:
        _core.select_level(before)
    assert len(set(results.values())) == 1, results


def test_differences_are_formed_before_multiplying() -> None:
    rng = np.random.default_rng(3)
    x, delta = rng.standard_normal(1000), 1e-13 * rng.standard_normal(1000)
    y = x + delta
    ((value,),) = _core.reduce_each([(segments([y]), segments([x]))], [(0, 0)])
    wanted = sum(Fraction(float(d)) ** 2 for d in y - x)
    assert abs(Fraction(value) - wanted) <= 1001 * EPS * wanted


def test_empty_lists() -> None:
    a, none = segments([np.ones(3), np.ones(0)]), segments([])
    assert _core.reduce_each([a], []) == ()
    assert _core.reduce_each([a], [(0, 0)]) == ((3.0, 0.0),)
    assert _core.reduce_each([none], []) == ()
    assert _core.reduce_each([none, none], [(0, 1), (1, 1)]) == ((), ())


def test_what_is_not_finite_stays_in_its_segment() -> None:
    a = segments([np.float32([1, 2]), np.float32([1, np.nan]), np.float32([1, np.inf]), np.float32([3])])
    (squares,) = _core.reduce_each([a], [(0, 0)])
    assert (squares[0], squares[2], squares[3]) == (5.0, math.inf, 9.0)
    assert math.isnan(squares[1])


def test_arguments_of_reduce_each() -> None:
    a, b = segments([np.ones(3), np.ones(4)]), segments([np.ones(3), np.ones(5)])
    short = segments([np.ones(3)])
    for operands, pairs, message in [
        ([], [], "operands must be 1 to 4, got 0"),
        ([a] * 5, [], "operands must be 1 to 4, got 5"),
        ([a, b], [], "item 1 of another operand has 5 values, that of the first operand has 4"),
        ([(a, b)], [], "item 1 of another operand has 5 values"),
        ([a, short], [], "another operand has 1 items, the first operand has 2"),
        ([(a,)], [], "an operand must be Segments or a pair"),
        ([a], [(0, 1)], "a pair must be two indices"),
        ([a], [(-1, 0)], "a pair must be two indices"),
        ([a], [(0,)], "a pair must be two indices"),
        ([a], [("x", 0)], "a pair must be two indices"),
        ([a], [(0, 2**80)], "a pair must be two indices"),
    ]:
        with pytest.raises(ValueError, match=message):
            _core.reduce_each(operands, pairs)
    for operands, pairs in [([np.ones(3)], []), ([(a, None)], []), (3, []), ([a], 3), ([a, 1], [])]:
        with pytest.raises(TypeError):
            _core.reduce_each(operands, pairs)  # type: ignore[arg-type]
    for wrong in [(), ([a],), ([a], [], [])]:
        with pytest.raises(TypeError):
            _core.reduce_each(*wrong)


# ---------------------------------------------------------------- mean_cosine and sum_of_ratios


def squared_lengths(rng: np.random.Generator, n: int) -> list[float]:
    """Of any size, some exactly 0."""
    return [float(v) for v in rng.choice([0, 1, 1, 1], n) * (1 + rng.random(n)) * 2.0 ** rng.integers(-900, 900, n)]


def cosine(ab: float, aa: float, bb: float) -> Decimal:
    with localcontext(prec=50):
        return Decimal(ab) / (Decimal(aa).sqrt() * Decimal(bb).sqrt())


@pytest.mark.parametrize("n", [1, 2, 7, 100, 3000])
def test_mean_cosine_equals_decimals(n: int) -> None:
    rng = np.random.default_rng(n)
    aa, bb = squared_lengths(rng, n), squared_lengths(rng, n)
    ab = [float(c) * math.sqrt(a) * math.sqrt(b) for a, b, c in zip(aa, bb, rng.uniform(-1, 1, n), strict=True)]
    mean, counted = _core.mean_cosine(ab, aa, bb)
    exact = [cosine(*entry) for entry in zip(ab, aa, bb, strict=True) if entry[1] and entry[2]]
    assert counted == len(exact)
    if exact:
        with localcontext(prec=50):
            off = abs(Decimal(mean) - sum(exact) / counted)
            # Two roots, their product, the quotient and the division at the end; one rounding for each addition.
            assert off <= (n + 5) * Decimal(EPS) * sum(map(abs, exact)) / counted
    else:
        assert mean == 0


@pytest.mark.parametrize("n", [1, 2, 7, 100, 3000])
def test_sum_of_ratios_equals_fractions(n: int) -> None:
    rng = np.random.default_rng(n)
    dd = squared_lengths(rng, n)
    xx = [
        d * float(k) if d else 1.0
        for d, k in zip(dd, rng.choice([0, 1, 1, 1], n) * rng.uniform(1, 1e6, n), strict=True)
    ]
    total, counted = _core.sum_of_ratios(dd, xx)
    exact = [Fraction(d) / Fraction(x) for d, x in zip(dd, xx, strict=True) if d and x]
    assert counted == len(exact)
    assert abs(Fraction(total) - sum(exact)) <= (n + 1) * Fraction(EPS) * sum(exact)


def test_units_of_a_tensor_play_no_part() -> None:
    """One vector of each tensor times a power of two: not a bit changes."""
    rng = np.random.default_rng(4)
    ab, aa, bb = rng.standard_normal(20), 1 + rng.random(20), 1 + rng.random(20)
    c = 2.0 ** rng.integers(-100, 100, 20)
    assert _core.mean_cosine(ab * c, aa * c * c, bb) == _core.mean_cosine(ab, aa, bb)
    assert _core.mean_cosine(ab * c, aa, bb * c * c) == _core.mean_cosine(ab, aa, bb)
    assert _core.sum_of_ratios(aa * c, bb * c) == _core.sum_of_ratios(aa, bb)


def test_products_of_lengths_do_not_overflow() -> None:
    for size in (2.0**1022, 2.0**-1022, 2.0**-1074):
        assert _core.mean_cosine([size], [size], [size]) == (1.0, 1)
    assert _core.sum_of_ratios([2.0**1000], [2.0**-1000]) == (math.inf, 1)


def test_vectors_of_zeros_have_no_say() -> None:
    for nothing in (0.0, -0.0):
        assert _core.mean_cosine([0.0, 1.0], [nothing, 4.0], [9.0, 1.0]) == (0.5, 1)
        assert _core.mean_cosine([0.0, 1.0], [9.0, 4.0], [nothing, 1.0]) == (0.5, 1)
        assert _core.sum_of_ratios([nothing, 1.0], [1.0, 4.0]) == (0.25, 1)
        assert _core.sum_of_ratios([7.0, 1.0], [nothing, 4.0]) == (0.25, 1)
        assert _core.mean_cosine([0.0], [nothing], [nothing]) == (0.0, 0)
        assert _core.sum_of_ratios([nothing], [nothing]) == (0.0, 0)
    assert _core.mean_cosine([0.0], [1.0], [1.0]) == (0.0, 1), "at right angles is an answer"


def test_nothing_at_all() -> None:
    for nothing in ([], (), iter([])):
        assert _core.mean_cosine(nothing, [], []) == (0.0, 0)
        assert _core.sum_of_ratios(nothing, []) == (0.0, 0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_shows(bad: float) -> None:
    good = [1.0, 2.0]
    for hit in ([bad, 1.0], [1.0, bad]):
        mean, counted = _core.mean_cosine(hit, good, good)
        assert not math.isfinite(mean)
        assert counted == 2
        # a vector with such an entry: both its products are so
        assert math.isnan(_core.mean_cosine(hit, hit, good)[0])
        assert math.isnan(_core.mean_cosine(hit, good, hit)[0])
        total, counted = _core.sum_of_ratios(hit, good)
        assert not math.isfinite(total)
        assert counted == 2
        if math.isnan(bad):
            assert math.isnan(_core.sum_of_ratios(good, hit)[0])


CALLS: list[tuple[Callable[..., Any], int]] = [(_core.mean_cosine, 3), (_core.sum_of_ratios, 2)]


@pytest.mark.parametrize(("call", "arguments"), CALLS, ids=["mean_cosine", "sum_of_ratios"])
def test_any_sequence_of_numbers_is_taken(call: Callable[..., Any], arguments: int) -> None:
    wanted = call(*[[1.0, 4.0]] * arguments)
    for numbers in ((1, 4), np.array([1.0, 4.0]), np.float32([1, 4]), {1: 0, 4: 0}, [True, np.int64(4)]):
        assert call(*[numbers] * arguments) == wanted
    assert call(*(iter([1.0, 4.0]) for _ in range(arguments))) == wanted


@pytest.mark.parametrize(("call", "arguments"), CALLS, ids=["mean_cosine", "sum_of_ratios"])
def test_wrong_arguments(call: Callable[..., Any], arguments: int) -> None:
    good = [[1.0, 2.0]] * arguments
    for i in range(arguments):
        for wrong in (None, 3, [None, 1.0], ["1", 1.0], [1.0, [2.0]], [1j, 1.0]):
            with pytest.raises(TypeError):
                call(*good[:i], wrong, *good[i + 1 :])
        with pytest.raises((OverflowError, ValueError)):
            call(*good[:i], [10**400, 1.0], *good[i + 1 :])
        for wrong in ([], [1.0], [1.0, 2.0, 3.0]):
            with pytest.raises(
                ValueError, match=rf"^{call.__name__}: .* must have \d numbers, as the first .*, got \d"
            ):
                call(*good[:i], wrong, *good[i + 1 :])
    for count in (arguments - 1, arguments + 1):
        with pytest.raises(TypeError):
            call(*[[1.0]] * count)


class Number:
    """A number that does something before it answers."""

    def __init__(self, act: Callable[[], None], value: float = 1.0) -> None:
        self.act, self.value = act, value

    def __float__(self) -> float:
        self.act()
        return self.value


def stop(error: type[BaseException]) -> None:
    raise error("stop")


@pytest.mark.parametrize(("call", "arguments"), CALLS, ids=["mean_cosine", "sum_of_ratios"])
def test_numbers_whose_code_runs(call: Callable[..., Any], arguments: int) -> None:
    for error in (KeyboardInterrupt, MemoryError, RuntimeError):
        for i in range(arguments):
            lists: list[list[Any]] = [[1.0, 2.0] for _ in range(arguments)]
            lists[i][1] = Number(lambda error=error: stop(error))  # type: ignore[misc]
            with pytest.raises(error, match="^stop$"):
                call(*lists)
    minus_one = [Number(lambda: None, -1.0), 4.0]  # what C reads as a sign of failure
    assert call(minus_one, *[[1.0, 4.0]] * (arguments - 1)) == call([-1.0, 4.0], *[[1.0, 4.0]] * (arguments - 1))

    emptied: list[list[Any]] = [[] for _ in range(arguments)]

    def empty() -> None:
        for numbers in emptied:
            numbers.clear()
        np.ones(1000).tolist()  # takes what was set free

    for numbers in emptied:
        numbers += [Number(empty), 4.0]
    with pytest.raises(ValueError, match="must have 2 numbers, as the first argument has, got 0"):
        call(*emptied)


def test_no_leaks() -> None:
    a = segments([np.ones(3), np.ones(2)])
    numbers = [float(k) + 0.5 for k in range(50)]
    calls = [
        lambda: _core.reduce_each([a, (a, a)], [(0, 1), (0, 0)]),
        lambda: _core.reduce_each([a, 3], []),  # type: ignore[list-item]
        lambda: _core.reduce_each([a], [(0, 5)]),
        lambda: _core.mean_cosine(numbers, numbers, numbers),
        lambda: _core.mean_cosine(numbers, numbers, [*numbers, 1.0]),
        lambda: _core.mean_cosine(numbers, numbers, [*numbers[1:], "x"]),  # type: ignore[list-item]
        lambda: _core.sum_of_ratios(numbers, numbers),
        lambda: _core.sum_of_ratios(numbers, 3),  # type: ignore[arg-type]
    ]

    def round_trip() -> None:
        for call in calls:
            with contextlib.suppress(TypeError, ValueError):
                call()

    round_trip()
    gc.collect()
    before = sys.getrefcount(a), sum(map(sys.getrefcount, numbers)), len(gc.get_objects())
    for _ in range(200):
        round_trip()
    gc.collect()
    after = sys.getrefcount(a), sum(map(sys.getrefcount, numbers)), len(gc.get_objects())
    assert after[:2] == before[:2]
    assert after[2] <= before[2] + 5
