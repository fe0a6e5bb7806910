"""Reductions and writers through Python: against exact sums, at every level, and with the lock released.

The C tests in ``tests/c`` go deeper into kernels (guard pages, alignments, flushing); here the binding is on trial.
"""

from __future__ import annotations

import contextlib
import gc
import math
import sys
import threading
import time
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from glyder import _core

DTYPES = ["float64", "float32", "float16", "bfloat16"]
SIZES = [(), (0,), (1,), (7, 0, 9), (15, 16, 17), (31, 32, 33), (1000, 1, 63)]
EPS = 2.0**-53


def make(rng: np.random.Generator, sizes: tuple[int, ...], dtype: str) -> list[np.ndarray[Any, Any]]:
    """Arrays of wide range; bfloat16 as 16-bit words."""
    values = [rng.standard_normal(n) * 2.0 ** rng.integers(-6, 7, n) for n in sizes]
    if dtype == "bfloat16":
        return [(v.astype("f4").view("u4") >> 16).astype("u2") for v in values]
    return [v.astype(dtype) for v in values]


def doubles(arrays: list[np.ndarray[Any, Any]]) -> list[float]:
    """The values, exactly."""
    wide = [(a.astype("u4") << 16).view("f4") if a.dtype == np.uint16 else a for a in arrays]
    return [float(v) for a in wide for v in a]


def segments(arrays: list[np.ndarray[Any, Any]], *, writable: bool = False) -> _core.Segments:
    return _core.Segments(arrays, bf16=True, writable=writable)


def exact(u: list[float], v: list[float]) -> tuple[float, float]:
    """Sum of products and sum of their absolute values, rounded once."""
    products = [Fraction(a) * Fraction(b) for a, b in zip(u, v, strict=True)]
    return float(sum(products)), float(sum(map(abs, products)))


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("dtypes", [(a, b) for a in DTYPES for b in DTYPES], ids="-".join)
def test_inner_product(level: str, dtypes: tuple[str, str], sizes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(len(sizes) + sum(sizes))
    a, b = (make(rng, sizes, dtype) for dtype in dtypes)
    pairs = [(0, 0), (1, 0), (0, 1), (1, 1)]
    sums = _core.reduce([segments(a), segments(b)], pairs)
    assert sums[1] == sums[2]
    u, v = doubles(a), doubles(b)
    for (i, j), value in zip(pairs, sums, strict=True):
        wanted, magnitude = exact((u, v)[i], (u, v)[j])
        # One rounding of the product and at most one per addition that the value goes through.
        assert abs(value - wanted) <= (len(u) + 1) * EPS * magnitude


def test_differences_are_formed_before_multiplying() -> None:
    rng = np.random.default_rng(1)
    x, delta = rng.standard_normal(1000), 1e-13 * rng.standard_normal(1000)
    y = x + delta
    g = rng.standard_normal(1000)
    (value,) = _core.reduce([(segments([y]), segments([x])), segments([g])], [(0, 1)])
    wanted, magnitude = exact([float(d) for d in y - x], [float(v) for v in g])
    assert abs(value - wanted) <= 1001 * EPS * magnitude


@pytest.mark.parametrize("dtypes", [(a, b) for a in DTYPES for b in DTYPES], ids="-".join)
def test_levels_agree_to_the_bit(dtypes: tuple[str, str]) -> None:
    rng = np.random.default_rng(2)
    sizes = (1, 63, 64, 65, 1023, 4097, 0, 20000)
    a, b, c = (segments(make(rng, sizes, dtype)) for dtype in (*dtypes, "float32"))
    pairs = [(i, j) for j in range(3) for i in range(j + 1)]
    results, before = {}, _core.level()
    try:
        for name in [name for name, available in _core.levels().items() if available]:
            _core.select_level(name)
            results[name] = _core.reduce([a, (b, c), c], pairs)
    finally:
        _core.select_level(before)
    assert len(set(results.values())) == 1, results


def test_four_operands_and_all_pairs() -> None:
    rng = np.random.default_rng(3)
    vectors = [make(rng, (100, 7), "float64") for _ in range(4)]
    pairs = [(i, j) for i in range(4) for j in range(4)]
    sums = _core.reduce([segments(v) for v in vectors], pairs)
    for (i, j), value in zip(pairs, sums, strict=True):
        u, v = doubles(vectors[i]), doubles(vectors[j])
        assert value == pytest.approx(math.fsum(x * y for x, y in zip(u, v, strict=True)), rel=1e-12)
        assert (value,) == _core.reduce([segments(vectors[i]), segments(vectors[j])], [(0, 1)])


def test_not_finite_values_reach_the_sum() -> None:
    assert math.isnan(_core.reduce([segments([np.float32([1, np.nan])])], [(0, 0)])[0])
    assert _core.reduce([segments([np.float32([1, np.inf])])], [(0, 0)])[0] == math.inf


def test_arguments_of_reduce() -> None:
    a, b = segments([np.ones(3), np.ones(4)]), segments([np.ones(3), np.ones(5)])
    short = segments([np.ones(3)])
    assert _core.reduce([a], []) == ()
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
            _core.reduce(operands, pairs)
    for operands, pairs in [([np.ones(3)], []), ([(a, None)], []), (3, []), ([a], 3), ([a, 1], [])]:
        with pytest.raises(TypeError):
            _core.reduce(operands, pairs)  # type: ignore[arg-type]


# ---------------------------------------------------------------- writers


def test_copy_and_rounding(level: str) -> None:
    source = np.float64([1, 1 + 2.0**-11, 1 + 3 * 2.0**-11, 70000, 1e-8, -0.0])
    half, single = np.empty(6, "f2"), np.empty(6, "f4")
    _core.copy(segments([half], writable=True), segments([source]))
    _core.copy(segments([single], writable=True), segments([source]))
    with np.errstate(over="ignore"):
        assert half.tobytes() == source.astype("f2").tobytes()
    assert single.tobytes() == source.astype("f4").tobytes()


def test_displace_and_perturb(level: str) -> None:
    rng = np.random.default_rng(4)
    older, newer = rng.standard_normal(1000), rng.standard_normal(1000)
    out = np.empty(1000)
    _core.displace(segments([out], writable=True), segments([older]), 0.75, segments([newer]))
    assert out.tobytes() == (0.75 * older - newer).tobytes()
    _core.perturb(segments([out], writable=True), segments([older]), -0.3, segments([newer]))
    assert out.tobytes() == (older + -0.3 * newer).tobytes()
    in_place = older.copy()
    target = segments([in_place], writable=True)
    _core.displace(target, target, 1.0, segments([newer]))
    assert in_place.tobytes() == (older - newer).tobytes()


def test_arguments_of_writers() -> None:
    out, other = segments([np.ones(3)], writable=True), segments([np.ones(4)])
    with pytest.raises(ValueError, match="item 0 of copy: src has 4 values, that of dst has 3"):
        _core.copy(out, other)
    with pytest.raises(ValueError, match="displace: newer"):
        _core.displace(out, out, 1.0, other)
    with pytest.raises(ValueError, match="perturb: delta"):
        _core.perturb(out, out, 1.0, other)
    with pytest.raises(ValueError, match="made with writable=True"):
        _core.perturb(other, other, 1.0, other)
    with pytest.raises(TypeError, match="displace: older must be Segments"):
        _core.displace(out, np.ones(3), 1.0, out)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        _core.perturb(out, out, "x", out)  # type: ignore[arg-type]


# ---------------------------------------------------------------- process


def test_lock_is_released() -> None:
    """Another thread runs while a long reduction does: without that it would wait for the whole of it.

    On a busy machine the other thread may not be given a core within one reduction, so there are many; with the lock
    held it runs in none of them, however many there are.
    """
    big = segments([np.ones(1 << 24)])
    ticks: list[float] = []
    running = threading.Event()

    def tick() -> None:
        running.set()
        while running.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0)

    switch = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # nobody gets the lock by waiting for it
    thread = threading.Thread(target=tick)
    thread.start()
    inside = 0
    try:
        running.wait()
        for _ in range(200):
            start = time.perf_counter()
            _core.reduce([big], [(0, 0)])
            stop = time.perf_counter()
            inside += sum(start < t < stop for t in ticks)
            if inside:
                break
            ticks.clear()
    finally:
        running.clear()
        thread.join()
        sys.setswitchinterval(switch)
    assert inside >= 1


def test_threads_agree() -> None:
    rng = np.random.default_rng(5)
    a = segments(make(rng, (200_000, 3), "float32"))
    wanted, results = _core.reduce([a], [(0, 0)]), []
    threads = [
        threading.Thread(target=lambda: results.extend(_core.reduce([a], [(0, 0)]) for _ in range(5))) for _ in range(4)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert set(results) == {wanted}


def test_no_leaks() -> None:
    a, w = segments([np.ones(3)]), segments([np.ones(3)], writable=True)
    calls = [
        lambda: _core.reduce([a, (a, w)], [(0, 1)]),
        lambda: _core.reduce([a, 3], []),  # type: ignore[list-item]
        lambda: _core.reduce([a], [(0, 5)]),
        lambda: _core.copy(w, a),
        lambda: _core.copy(a, w),
        lambda: _core.displace(w, a, 1.0, None),  # type: ignore[arg-type]
    ]

    def round_trip() -> None:
        for call in calls:
            with contextlib.suppress(TypeError, ValueError):
                call()

    round_trip()
    gc.collect()
    before = sys.getrefcount(a), sys.getrefcount(w), len(gc.get_objects())
    for _ in range(200):
        round_trip()
    gc.collect()
    after = sys.getrefcount(a), sys.getrefcount(w), len(gc.get_objects())
    assert after[:2] == before[:2]
    assert after[2] <= before[2] + 5
