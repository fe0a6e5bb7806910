"""What is written lies apart from what is read: every overlap is refused, but for an array that is its own result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from glyder import _core

Array = np.ndarray[Any, Any]


def written(*items: Any) -> _core.Segments:
    return _core.Segments(items, writable=True)


def read(*items: Any) -> _core.Segments:
    return _core.Segments(items)


WRITERS: dict[str, Callable[[_core.Segments, _core.Segments, _core.Segments], None]] = {
    "copy: src": lambda out, one, _: _core.copy(out, one),
    "displace: older": lambda out, one, other: _core.displace(out, one, 0.5, other),
    "displace: newer": lambda out, one, other: _core.displace(out, other, 0.5, one),
    "perturb: x": lambda out, one, other: _core.perturb(out, one, 0.5, other),
    "perturb: delta": lambda out, one, other: _core.perturb(out, other, 0.5, one),
}


@pytest.mark.parametrize("argument", WRITERS)
def test_writers(argument: str) -> None:
    call, memory = WRITERS[argument], np.arange(4000.0)
    a, b, c, d = (memory[1000 * i : 1000 * i + 1000] for i in range(4))
    apart = read(np.ones(1000), np.ones(1000))
    out = written(c, a)  # in no order of addresses
    for wrong, message in [
        (read(c, memory[1:1001]), f"item 1 of {argument} overlaps item 1 of .*, and is not the same array"),
        (read(memory[2999:3999], b), f"item 0 of {argument} overlaps item 0 of "),
        (read(memory[1001:2001], b), f"item 0 of {argument} overlaps item 0 of "),
        (read(b, memory[999:1999]), f"item 1 of {argument} overlaps item 1 of "),
        (read(a, b), f"item 0 of {argument} overlaps item 1 of "),
        (read(a, c), f"item 0 of {argument} overlaps item 1 of "),
        (read(c, c), f"item 1 of {argument} overlaps item 0 of "),
        (read(memory.view("f4")[4000:5000], b), f"item 0 of {argument} overlaps item 0 of "),
    ]:
        with pytest.raises(ValueError, match=f"^{message}"):
            call(out, wrong, apart)
    assert memory.tolist() == list(range(4000))
    call(out, read(b, d), apart)
    call(out, read(c, b), apart)  # the first in place
    call(out, out, apart)
    call(written(a[:0], b), read(b[:0], c), read(np.ones(0), np.ones(1000)))


def test_items_written_together() -> None:
    m = np.ones(100)
    for items, message in [
        ((m, m), "^item 1: overlaps item 0, and both are to be written"),
        ((m[50:], np.ones(3), m[:51]), "^item 2: overlaps item 0"),
        ((m[:51], m[50:]), "^item 1: overlaps item 0"),
        ((m, m[10:20]), "^item 1: overlaps item 0"),
        ((m[10:20], m), "^item 1: overlaps item 0"),
        ((m, m.view("f4")), "^item 1: overlaps item 0"),
        ((m[:1], (m.ctypes.data, 2, "float32")), "^item 1: overlaps item 0"),
    ]:
        assert len(read(*items)) == len(items)
        with pytest.raises(ValueError, match=message):
            written(*items)
    assert len(written(m[50:], m[:50], m[20:20], m[20:20])) == 4


def test_many_items_in_any_order() -> None:
    rng = np.random.default_rng(0)
    memory = np.zeros((300, 7))
    order = rng.permutation(300)
    out = written(*(memory[i] for i in order))
    _core.copy(out, read(*(np.full(7, float(i)) for i in order)))
    assert memory.tolist() == [[float(i)] * 7 for i in range(300)]
    with pytest.raises(ValueError, match="overlaps"):
        _core.copy(out, read(*(memory[i] for i in rng.permutation(300))))


def test_row_weights() -> None:
    label, weight = np.zeros(4, np.int64), np.ones(9)
    for out in (label.view("f8"), np.frombuffer(label, "f8")):
        with pytest.raises(ValueError, match="^ce_weights_hard: out overlaps label$"):
            _core.ce_weights_hard(label, 3, class_weight=weight[:3], out=out)
    with pytest.raises(ValueError, match="^ce_weights_hard: out overlaps class_weight$"):
        _core.ce_weights_hard(label, 3, class_weight=weight[:3], out=weight[2:6])
    assert not label.any()
    assert weight.tolist() == [1.0] * 9
    _core.ce_weights_hard(label, 3, class_weight=weight[:3], out=weight[3:7])
    target = np.ones((4, 3))
    with pytest.raises(ValueError, match="^ce_weights_soft: out overlaps target$"):
        _core.ce_weights_soft(target, out=target.reshape(-1)[:4])
    with pytest.raises(ValueError, match="^ce_weights_soft: out overlaps class_weight$"):
        _core.ce_weights_soft(target, class_weight=weight[:3], out=weight[:4])


def test_other_outputs() -> None:
    z, r, k, label = np.zeros((4, 3)), np.ones((4, 3)), np.ones(4), np.zeros(4, np.int64)
    with pytest.raises(ValueError, match="^ce_infer: k_out overlaps z$"):
        _core.ce_infer(z, r, z.reshape(-1)[8:])
    with pytest.raises(ValueError, match="^ce_infer: k_out overlaps r$"):
        _core.ce_infer(z, r, r.reshape(-1)[:4])
    with pytest.raises(ValueError, match="^ce_sample: label_out overlaps z$"):
        _core.ce_sample(z, 0, 0, z.reshape(-1)[:4].view(np.int64))
    with pytest.raises(ValueError, match="^ce_residual: out overlaps label$"):
        _core.ce_residual(z[:1], label[:1], None, label.view("f8")[:3])
    with pytest.raises(ValueError, match="^ce_residual: out overlaps k$"):
        _core.ce_residual(z[:1], label[:1], k[:1], k[:3])
    with pytest.raises(ValueError, match="^ce_residual: out overlaps z$"):
        _core.ce_residual(z[:3], label[:3], None, z[1:])
    with pytest.raises(ValueError, match="^ce_residual: out overlaps z$"):
        _core.ce_residual(z, label, None, z.view("f4").reshape(-1)[:12].reshape(4, 3))
    assert not z.any()
    apart = np.empty_like(z)
    _core.ce_residual(z, label, None, apart)
    _core.ce_residual(z, label, None, z)
    assert z.tobytes() == apart.tobytes()
