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
    (lambda: _core.ce_weights_hard(Y, 0, out=K), ValueError, "classes=.... must be at least 1, got 0"),
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
    (lambda: _core.ce_residual(Z, Y + 3, K, Z.copy()), ValueError, "^ce_residual: "),
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
