"""The Gauss-Newton-Bartlett kernels through Python: values against NumPy in double, arguments, outputs."""

from __future__ import annotations

import gc
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from glyder import _core

Array = np.ndarray[Any, Any]


def softmax(z: Array) -> Array:
    e = np.exp(z.astype(float) - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def curvature(z: Array, u: Array, k: Array) -> float:
    p = softmax(z)
    centred = u - (p * u).sum(-1, keepdims=True)
    return float((k * (p * centred**2).sum(-1)).sum())


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2"])
@pytest.mark.parametrize("shape", [(5, 3), (1, 2), (4, 17), (2, 3, 5), (7,), (0, 3)])
def test_curvature(level: str, rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> None:
    z, plus, minus = (rng.standard_normal(shape).astype(dtype) for _ in range(3))
    k = rng.random(shape[:-1]).reshape(-1)
    wanted = curvature(z, (plus.astype(float) - minus.astype(float)) * 0.7, k.reshape(shape[:-1]))
    assert _core.ce_curvature(z, plus, minus, 0.7, k) == pytest.approx(wanted, rel=1e-12)
    ones = np.ones(shape[:-1])
    assert _core.ce_curvature(z, plus, None, 1.0) == pytest.approx(curvature(z, plus.astype(float), ones), rel=1e-12)
    assert _core.ce_curvature(z, plus, None, 1.0, None) == _core.ce_curvature(z, plus, None, 1.0, ones.reshape(-1))


def test_ways_in(rng: np.random.Generator, exporter: ModuleType) -> None:
    z = np.arange(1.0, 9.0).reshape(2, 4)
    wanted = _core.ce_curvature(z, z, None, 1.0)
    assert _core.ce_curvature(exporter.Tensor([2, 4]), z, None, 1.0) == wanted
    assert _core.ce_curvature((z.ctypes.data, 2, 4, "float64"), z, None, 1.0) == wanted


def test_hard_weights(rng: np.random.Generator) -> None:
    label = np.array([0, 2, -100, 1])
    w = np.array([1.0, 2.0, 0.5])
    out = np.empty(4)
    _core.ce_weights_hard(label, 3, out=out)
    assert out.tolist() == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3])
    _core.ce_weights_hard(label, 3, class_weight=w, label_smoothing=0.1, reduction="sum", ignore_index=-100, out=out)
    wanted = [0.9 * w[y] + 0.1 / 3 * w.sum() if y >= 0 else 0 for y in label]
    assert out.tolist() == pytest.approx(wanted)
    with pytest.raises(ValueError, match="^ce_weights_hard: "):
        _core.ce_weights_hard(np.array([3]), 3, out=np.empty(1))


def test_soft_weights(rng: np.random.Generator) -> None:
    target, out = rng.random((4, 3)), np.empty(4)
    w = np.array([1.0, 2.0, 0.5])
    _core.ce_weights_soft(target, class_weight=w, label_smoothing=0.2, out=out)
    assert out.tolist() == pytest.approx(((0.8 * target + 0.2 / 3) * w).sum(1) / 4)


def test_sample_and_residual(level: str, rng: np.random.Generator) -> None:
    z = rng.standard_normal((2000, 4)).astype("f4")
    label, again, other = (np.empty(2000, np.int64) for _ in range(3))
    _core.ce_sample(z, 2**64 - 1, 5, label)
    _core.ce_sample(z, 2**64 - 1, 5, again)
    _core.ce_sample(z, 2**64 - 1, 6, other)
    assert (label == again).all()
    assert (label != other).any()
    assert np.bincount(label, minlength=4) / 2000 == pytest.approx(softmax(z).mean(0), abs=0.05)
    k, out = rng.random(2000), np.empty((2000, 4), "f4")
    _core.ce_residual(z, label, k, out)
    wanted = k[:, None] * (softmax(z) - np.eye(4)[label])
    assert np.abs(out - wanted).max() < 1e-6
    _core.ce_residual(z, label, None, out)
    assert np.abs(out - wanted / k[:, None]).max() < 1e-6


def test_infer(rng: np.random.Generator) -> None:
    z, label = rng.standard_normal((50, 5)), rng.integers(0, 5, 50)
    k, out = rng.random(50) + 0.1, np.zeros(50)
    kind, rows, misfit, weight = _core.ce_infer(z, k[:, None] * (softmax(z) - np.eye(5)[label]), out)
    assert (kind, rows) == ("hard", 50)
    assert misfit < 1e-6
    assert out.tolist() == pytest.approx(k)
    assert weight == pytest.approx(k.sum())
    kind, *_ = _core.ce_infer(z, rng.standard_normal((50, 5)), out)
    assert kind == "none"
    assert np.isnan(out).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [0, 31])
def test_infer_takes_nothing_that_is_not_finite(rng: np.random.Generator, bad: float, row: int) -> None:
    """Mixup targets, known by the mean hypothesis; a row that holds NaN has no weight, not the weight 0."""
    z, out = rng.standard_normal((32, 10)), np.zeros(32)
    one = np.eye(10)
    r = (softmax(z) - 0.7 * one[rng.integers(0, 10, 32)] - 0.3 * one[rng.integers(0, 10, 32)]) / 32
    assert _core.ce_infer(z, r, out)[0] == "mean"
    assert out.tolist() == pytest.approx([1 / 32] * 32)
    r[row, 5] = bad
    assert _core.ce_infer(z, r, out)[0] == "none"
    assert np.isnan(out).all()


def rounded(a: Array, dtype: str) -> tuple[Array, Any]:
    """The array as the dtype has it, in double, and in a form that the core takes. bf16 is the upper half of f32."""
    if dtype != "bf16":
        return a.astype(dtype).astype(float), np.ascontiguousarray(a.astype(dtype))
    bits = np.ascontiguousarray(a, dtype="f4").view("u4")
    bits = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("u2")
    return (bits.astype("u4") << 16).view("f4").astype(float), bits


def inferred(rng: np.random.Generator, dtype: str, shape: tuple[int, int], scale: float, w: Array, s: float) -> Any:
    """(kind, the largest factor by which a weight is off) for labels drawn at random."""
    rows, classes = shape
    z, z_in = rounded(scale * rng.standard_normal(shape), dtype)
    label = rng.integers(0, classes, rows)
    tau = w * ((1 - s) * np.eye(classes)[label] + s / classes) / w[label].sum()
    r, r_in = rounded(tau.sum(1, keepdims=True) * softmax(z) - tau, dtype)
    k, active = np.zeros(rows), (r != 0).any(1)
    if dtype == "bf16":
        kind = _core.ce_infer(*((a.ctypes.data, rows, classes, "bfloat16") for a in (z_in, r_in)), k)[0]
    else:
        kind = _core.ce_infer(z_in, r_in, k)[0]
    return kind, 1.0 if kind == "none" else float(np.exp(np.abs(np.log((k / tau.sum(1))[active])).max()))


@pytest.mark.parametrize("dtype", ["f4", "f2", "bf16"])
@pytest.mark.parametrize("scale", [1.0, 5.0, 20.0])
@pytest.mark.parametrize("rows", [2, 8, 16, 64])
def test_infer_two_classes(rng: np.random.Generator, dtype: str, scale: float, rows: int) -> None:
    """Class weights of 2 classes are refused, or shown by rows of one label alone. bf16 can take them for smoothing."""
    for _ in range(50):
        kind, off = inferred(rng, dtype, (rows, 2), scale, np.array([1.0, 9.0]), 0.0)
        assert off < (9.5 if (kind, dtype) == ("smooth", "bf16") else 1.2), (kind, off)
    same = [inferred(rng, dtype, (rows, 2), scale, np.ones(2), 0.0) for _ in range(50)]
    assert max(off for _, off in same) < 1.1
    if rows == 64:
        assert sum(kind == "hard" for kind, _ in same) >= 40
    if rows < 8:
        assert {kind for kind, _ in same} == {"none"}


@pytest.mark.parametrize("dtype", ["f4", "f2", "bf16"])
@pytest.mark.parametrize("shape", [(4, 4), (8, 4), (16, 10)])
def test_infer_smoothing_of_a_sure_model(rng: np.random.Generator, dtype: str, shape: tuple[int, int]) -> None:
    """Where p is 0 nearly everywhere a line has any slope, but k stays in the range of the class weights, 1 to 20."""
    for _ in range(100):
        w = np.exp(rng.uniform(0, np.log(20), shape[1]))
        kind, off = inferred(rng, dtype, shape, 20.0, w, 0.1)
        assert off < (20 if dtype == "bf16" else 1.2), (kind, off)
    same = [inferred(rng, dtype, shape, 3.0, np.ones(shape[1]), 0.1) for _ in range(100)]
    assert max(off for _, off in same) < 1.2
    if shape[0] == 16:
        assert sum(kind == "smooth" for kind, _ in same) >= 95


Z = np.zeros((4, 3))
K = np.ones(4)
Y = np.zeros(4, np.int64)
FROZEN = np.ones(4)
FROZEN.flags.writeable = False
BAD: list[tuple[Any, type[Exception], str]] = [
    (lambda: _core.ce_curvature(Z[:, :2], Z, None, 1.0), ValueError, "ce_curvature: z: not contiguous"),
    (lambda: _core.ce_curvature(Z, Z[:3], None, 1.0), ValueError, "plus: 3 rows of 3 classes, z has 4 of 3"),
    (lambda: _core.ce_curvature(Z, Z, Z.reshape(3, 4), 1.0), ValueError, "minus: 3 rows of 4 classes"),
    (lambda: _core.ce_curvature(np.float64(1), Z, None, 1.0), ValueError, "z: 0-dimensional, not a matrix"),
    (lambda: _core.ce_curvature(np.zeros((3, 0)), Z, None, 1.0), ValueError, "z: no classes"),
    (lambda: _core.ce_curvature(Y, Z, None, 1.0), TypeError, "z: dtype int64 is not floating point"),
    (lambda: _core.ce_curvature(None, Z, None, 1.0), TypeError, "z: neither a registered"),
    (lambda: _core.ce_curvature((8, 3, "float32"), Z, None, 1.0), TypeError, "z: a tuple must be .address, rows"),
    (lambda: _core.ce_curvature(Z, Z, None, "1"), TypeError, ""),
    (lambda: _core.ce_curvature(Z, Z, None, 1.0, K[:3]), ValueError, "k: 3 values, not 4"),
    (lambda: _core.ce_curvature(Z, Z, None, 1.0, K.astype("f4")), TypeError, "k: dtype float32, not float64"),
    (lambda: _core.ce_weights_hard(Y, 3), TypeError, "ce_weights_hard.out=.... is missing"),
    (lambda: _core.ce_weights_hard(Y, 0, out=K), ValueError, "classes=.... must be >= 1, got 0"),
    (
        lambda: _core.ce_weights_hard(Y, 10**30, out=K),
        ValueError,
        "^ce_weights_hard.classes=.... must be <= 9.*, got 10",
    ),
    (lambda: _core.ce_weights_hard(Y, 2.0, out=K), TypeError, "^ce_weights_hard.classes=.... must be a whole number"),
    (lambda: _core.ce_weights_hard(Y, 3, ignore_index=-(10**30), out=K), ValueError, "ignore_index=.... must be >= -9"),
    (lambda: _core.ce_weights_hard(Y, 3, label_smoothing=np.nan, out=K), ValueError, "label_smoothing=.*, got nan"),
    (lambda: _core.ce_weights_soft(Z, label_smoothing=1.5, out=K), ValueError, "label_smoothing=.* in .0, 1., got 1.5"),
    (
        lambda: _core.ce_weights_hard(np.array([-100, 3, 4, 3]), 4, out=K),
        ValueError,
        r"^ce_weights_hard: label of row 2 must be in \[0, 4\), got 4$",
    ),
    (lambda: _core.ce_weights_hard(Y.astype("i4"), 3, out=K), TypeError, "label: buffer format 'i'"),
    (lambda: _core.ce_weights_hard(K, 3, out=K), TypeError, "label: dtype float64, not int64"),
    (lambda: _core.ce_weights_hard(Y, 3, out=FROZEN), BufferError, "out: .*read-only"),
    (lambda: _core.ce_weights_hard(Y, 3, out=K[:2]), ValueError, "out: 2 values, not 4"),
    (lambda: _core.ce_weights_hard(Y, 3, class_weight=K, out=K), ValueError, "class_weight: 4 values, not 3"),
    (lambda: _core.ce_weights_hard(Y, 3, reduction="none", out=K), ValueError, 'must be "mean" or "sum", got "none"'),
    (lambda: _core.ce_weights_soft(Z, out=K[:1]), ValueError, "out: 1 values, not 4"),
    (lambda: _core.ce_weights_soft(Z), TypeError, "ce_weights_soft.out=.... is missing"),
    (lambda: _core.ce_infer(Z, Z[:2], K), ValueError, "r: 2 rows"),
    (lambda: _core.ce_sample(Z, -1, 0, Y), ValueError, r"seed and draw must lie in \[0, 2\*\*64\), got -1 and 0"),
    (lambda: _core.ce_sample(Z, 0, 2**64, Y), ValueError, "seed and draw"),
    (lambda: _core.ce_sample(Z, 0.5, 0, Y), TypeError, ""),
    (lambda: _core.ce_sample(Z, 0, 0, K), TypeError, "label_out: dtype float64, not int64"),
    (lambda: _core.ce_residual(Z, Y, K, np.zeros((4, 2))), ValueError, "out: 8 values, not 12"),
    (
        lambda: _core.ce_residual(Z, Y + 3, np.array([0.0, 0.0, 1.0, 1.0]), Z.copy()),
        ValueError,
        r"^ce_residual: label of row 2 must be in \[0, 3\), got 3$",
    ),
    (
        lambda: _core.ce_curvature(Z, Z, None, 1.0, np.frombuffer(bytes(33), "f8", 4, 1)),
        ValueError,
        "k: not aligned to its dtype",
    ),
]


@pytest.mark.parametrize("case", range(len(BAD)))
def test_refused(case: int) -> None:
    call, error, message = BAD[case]
    before = K.copy(), Y.copy()
    with pytest.raises(error, match=message or None):
        call()
    assert (before[0] == K).all()
    assert (before[1] == Y).all()


def test_no_leaks() -> None:
    """Every argument is a buffer: whatever the path, none of them stays exported."""
    arrays = [Z, K, Y, FROZEN]

    def round_trip() -> None:
        _core.ce_curvature(Z, Z, Z, 1.0, K)
        for call, error, _ in BAD:
            with pytest.raises(error):
                call()

    round_trip()
    gc.collect()
    before = [sys.getrefcount(a) for a in arrays], len(gc.get_objects())
    for _ in range(50):
        round_trip()
    gc.collect()
    assert [sys.getrefcount(a) for a in arrays] == before[0]
    assert len(gc.get_objects()) <= before[1] + 20
