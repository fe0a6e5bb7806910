"""Segments: every way in, everything that must be refused, and that nothing is left behind."""

from __future__ import annotations

import array
import contextlib
import ctypes
import gc
import re
import sys
import weakref
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from glyder import _core

FLOAT, INT, UINT, BFLOAT, COMPLEX, BOOL = 2, 0, 1, 4, 5, 6


def total(item: Any, **options: bool) -> float:
    """Sum of squares of the values that C sees."""
    return _core.reduce([_core.Segments([item], **options)], [(0, 0)])[0]


# ---------------------------------------------------------------- exchange table


@pytest.mark.parametrize(
    ("description", "values"),
    [
        ({"shape": [8]}, range(1, 9)),
        ({"shape": [2, 4], "strides": [4, 1]}, range(1, 9)),
        ({"shape": []}, [1]),
        ({"shape": [1, 3, 1], "strides": [77, 1, -5]}, [1, 2, 3]),
        ({"shape": [3], "byte_offset": 16}, [3, 4, 5]),
        ({"shape": [0, 3], "strides": [9, 9]}, []),
        ({"shape": [0], "null": True}, []),
        ({"shape": [1], "strides": [0]}, [1]),
        ({"shape": [3], "device": 3}, [1, 2, 3]),
        ({"shape": [1] * 64}, [1]),
    ],
)
def test_tensors_taken(exporter: ModuleType, description: dict[str, Any], values: Any) -> None:
    segments = _core.Segments([exporter.Tensor(**description)])
    assert segments.lengths == (len(values),)
    assert total(exporter.Tensor(**description)) == sum(v * v for v in values)


@pytest.mark.parametrize(
    ("description", "error", "reason"),
    [
        ({"shape": [3], "null": True}, ValueError, "hands out no memory"),
        ({"shape": [], "null": True}, ValueError, "hands out no memory"),
        ({"shape": [3], "null": True, "byte_offset": 64}, ValueError, "hands out no memory"),
        ({"shape": [3], "device": 2}, ValueError, "on device cuda:0, not in CPU memory"),
        ({"shape": [3], "device": 12}, ValueError, "on a device of DLPack type 12"),
        ({"shape": [3], "device": -1}, ValueError, "on a device of DLPack type -1"),
        ({"shape": [3], "code": INT, "bits": 32}, TypeError, "dtype int32"),
        ({"shape": [3], "code": INT}, TypeError, "dtype int64"),
        ({"shape": [3], "code": UINT, "bits": 8}, TypeError, "dtype uint8"),
        ({"shape": [3], "code": BOOL, "bits": 8}, TypeError, "dtype bool"),
        ({"shape": [3], "code": COMPLEX}, TypeError, "dtype complex64"),
        ({"shape": [3], "code": BFLOAT, "bits": 32}, TypeError, "dtype bfloat32"),
        ({"shape": [3], "code": 10, "bits": 8}, TypeError, "dtype of code 10 with 8 bits"),
        ({"shape": [3], "lanes": 2}, TypeError, "dtype with 2 lanes"),
        ({"shape": [3], "lanes": 0}, TypeError, "dtype with 0 lanes"),
        ({"shape": [4], "strides": [0]}, ValueError, "not contiguous"),
        ({"shape": [4], "strides": [2]}, ValueError, "not contiguous"),
        ({"shape": [4], "strides": [-1]}, ValueError, "not contiguous"),
        ({"shape": [2, 4], "strides": [1, 2]}, ValueError, "not contiguous"),
        ({"shape": [2, -4]}, ValueError, "size -4 of dimension 1 is negative"),
        ({"shape": [2**40, 2**40]}, ValueError, "more values than memory can hold"),
        ({"shape": [2**62]}, ValueError, "more values than memory can hold"),
        ({"shape": [2], "ndim": -1}, ValueError, "-1 dimensions"),
        ({"shape": [], "ndim": 2}, ValueError, "2 dimensions"),
        ({"shape": [1] * 65}, ValueError, "65 dimensions"),
        ({"shape": [2], "silent": True}, BufferError, "gave no reason"),
    ],
)
def test_tensors_refused(
    exporter: ModuleType, description: dict[str, Any], error: type[Exception], reason: str
) -> None:
    good, bad = exporter.Tensor([2]), exporter.Tensor(**description)
    before = sys.getrefcount(good), sys.getrefcount(bad)
    for _ in range(3):
        with pytest.raises(error, match=f"^item 1: .*{re.escape(reason)}"):
            _core.Segments([good, bad])
    assert (sys.getrefcount(good), sys.getrefcount(bad)) == before


@pytest.mark.parametrize("kind", [BufferError, ValueError, TypeError, RuntimeError])
def test_failing_export_is_located(exporter: ModuleType, kind: type[Exception]) -> None:
    def fail() -> None:
        raise kind("no such thing\nwith a stack trace")

    with pytest.raises(BufferError, match="^item 0: no such thing$"):
        _core.Segments([exporter.Tensor([2], action=fail)])


@pytest.mark.parametrize("kind", [KeyboardInterrupt, MemoryError])
def test_interrupts_pass_unchanged(exporter: ModuleType, kind: type[BaseException]) -> None:
    def fail() -> None:
        raise kind("stop")

    with pytest.raises(kind, match="^stop$"):
        _core.Segments([exporter.Tensor([2], action=fail)])


def test_list_may_change_while_it_is_read(exporter: ModuleType) -> None:
    items: list[Any] = []
    items += [exporter.Tensor([2], action=items.clear), exporter.Tensor([3])]
    assert _core.Segments(items).lengths == (2, 3)
    assert items == []


def test_only_exactly_registered_types(exporter: ModuleType) -> None:
    class Wrapper(exporter.Tensor):  # type: ignore[name-defined, misc]
        pass

    with pytest.raises(TypeError, match="item 0: neither a registered tensor type.*Wrapper"):
        _core.Segments([Wrapper([2])])
    with pytest.raises(TypeError):
        _core.Segments([exporter.Newer([2])])


@pytest.mark.parametrize(
    ("name", "taken"),
    [("Tensor", True), ("Newer", True), ("TooNew", False), ("LendsNothing", False), ("Misnamed", False)],
)
def test_registration(exporter: ModuleType, name: str, taken: bool) -> None:
    class Fresh(getattr(exporter, name)):  # type: ignore[misc]
        pass

    assert _core.register_tensor_type(Fresh) is taken
    assert (Fresh in _core.tensor_types()) is taken
    if taken:
        assert total(Fresh([2])) == 5


def test_registration_refuses() -> None:
    assert _core.register_tensor_type(int) is False
    with pytest.raises(TypeError):
        _core.register_tensor_type(3)  # type: ignore[arg-type]

    class Meta(type):
        @property
        def __dlpack_c_exchange_api__(cls) -> None:
            raise OSError("broken")

    class Broken(metaclass=Meta):
        pass

    with pytest.raises(OSError, match="broken"):
        _core.register_tensor_type(Broken)


# ---------------------------------------------------------------- buffers


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2"])
@pytest.mark.parametrize("shape", [(5,), (2, 3), (), (0,), (2, 0, 3), (1, 4, 1)])
def test_arrays_taken(dtype: str, shape: tuple[int, ...]) -> None:
    a = np.arange(1, 1 + np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    segments = _core.Segments([a])
    assert (segments.size, segments.nbytes, len(segments)) == (a.size, a.nbytes, 1)
    assert segments.dtypes == (a.dtype.name,)
    assert total(a) == float((a.astype(float) ** 2).sum())


def test_other_buffers() -> None:
    assert total(array.array("d", [1, 2, 3])) == 14
    assert total(memoryview(array.array("f", [1, 2, 3]))) == 14
    assert total(memoryview(bytearray(np.float32([1, 2]).tobytes())).cast("f")) == 5


def test_buffers_without_strides_or_shape(exporter: ModuleType) -> None:
    assert total((ctypes.c_double * 4)(1, 2, 3)) == 14
    assert total((ctypes.c_float * 3 * 2)((1, 2, 3), (4, 5, 6))) == 91
    assert total(ctypes.c_double(3)) == 9
    assert total((ctypes.c_double * 0)()) == 0
    target = (ctypes.c_double * 4)()
    _core.copy(_core.Segments([target], writable=True), _core.Segments([np.arange(4.0)]))
    assert list(target) == [0, 1, 2, 3]
    with pytest.raises(TypeError, match="buffer format"):
        _core.Segments([(ctypes.c_int32 * 4)()])
    bare = exporter.Bare()  # four doubles: a number of dimensions, but neither shape nor strides
    assert total(bare) == 30
    matrix = (ctypes.c_double * 3 * 2)((1, 2, 3), (4, 5, 6))
    array = np.frombuffer(matrix).reshape(2, 3)
    label, k, out = (ctypes.c_int64 * 2)(0, 2), (ctypes.c_double * 2)(), (ctypes.c_double * 3 * 2)()
    assert _core.ce_curvature(matrix, matrix, None, 1.0) == _core.ce_curvature(array, array, None, 1.0)
    assert _core.ce_curvature(bare, bare, None, 1.0) == _core.ce_curvature(*[np.arange(1.0, 5.0)] * 2, None, 1.0)
    _core.ce_weights_hard(label, 3, out=k)
    assert list(k) == [0.5, 0.5]
    _core.ce_residual(matrix, label, k, out)
    assert abs(np.frombuffer(out).sum()) < 1e-15


def test_bfloat16_words() -> None:
    words = (np.float32([1, -2.5, 3]).view(np.uint32) >> 16).astype(np.uint16)
    assert _core.Segments([words], bf16=True).dtypes == ("bfloat16",)
    assert total(words, bf16=True) == 1 + 6.25 + 9
    with pytest.raises(TypeError, match="item 0: buffer format 'H'"):
        _core.Segments([words])


def test_unaligned_arrays() -> None:
    a = np.frombuffer(b"x" + np.float64([1, 2]).tobytes(), dtype=np.float64, offset=1)
    assert total(a) == 5


@pytest.mark.parametrize(
    ("item", "error", "reason"),
    [
        (np.zeros(3, "i4"), TypeError, "buffer format 'i'"),
        (np.zeros(3, "i8"), TypeError, "int64 is not floating point"),
        (np.zeros(3, "c16"), TypeError, "buffer format 'Zd'"),
        (np.zeros(3, bool), TypeError, "buffer format '?'"),
        (np.zeros(3, "g"), TypeError, "buffer format 'g'"),
        (np.zeros(3, np.dtype("f8").newbyteorder()), TypeError, "not in this machine's byte order"),
        (np.zeros(3, "f4,f4"), TypeError, "buffer format 'T{"),
        (np.zeros((4, 4))[:, 1], ValueError, "not contiguous"),
        (np.zeros((4, 3)).T, ValueError, "not contiguous"),
        (np.zeros(4)[::-1], ValueError, "not contiguous"),
        (np.broadcast_to(np.float64(1), (4,)), ValueError, "not contiguous"),
        (b"abcdefgh", TypeError, "buffer format 'B'"),
        ([1.0], TypeError, "neither a registered tensor type, a buffer nor a tuple"),
        (None, TypeError, "neither a registered"),
        (1.5, TypeError, "neither a registered"),
    ],
)
def test_arrays_refused(item: Any, error: type[Exception], reason: str) -> None:
    good = bytearray(8)
    view = memoryview(good).cast("d")
    for _ in range(3):
        with pytest.raises(error, match=f"^item 1: .*{re.escape(reason)}"):
            _core.Segments([view, item])
    view.release()
    good.append(1)  # no export of it is left


def test_writable() -> None:
    frozen = np.zeros(3)
    frozen.flags.writeable = False
    assert total(frozen) == 0
    with pytest.raises(BufferError, match="^item 0: .*read-only"):
        _core.Segments([frozen], writable=True)
    plain = _core.Segments([np.zeros(3)])
    assert plain.writable is False
    assert _core.Segments([np.zeros(3)], writable=True).writable is True
    with pytest.raises(ValueError, match="copy: dst must be Segments made with writable=True"):
        _core.copy(plain, plain)


# ---------------------------------------------------------------- tuples


def test_tuples_taken() -> None:
    a = np.float32([1, 2, 3])
    assert total((a.ctypes.data, 3, "float32")) == 14
    assert total((a.ctypes.data, 3, "float32", a)) == 14
    assert total((0, 0, "bfloat16")) == 0


@pytest.mark.parametrize(
    ("item", "error"),
    [
        ((), TypeError),
        ((1, 2), TypeError),
        ((1, 2, "float32", None, None), TypeError),
        (("a", 2, "float32"), TypeError),
        ((8, 2.0, "float32"), TypeError),
        ((2**70, 2, "float32"), TypeError),
        ((8, 2**70, "float32"), TypeError),
        ((8, 2, "float8"), TypeError),
        ((8, 2, 32), TypeError),
        ((8, 2, "int64"), TypeError),
        ((8, -2, "float32"), ValueError),
        ((0, 2, "float32"), ValueError),
        ((8, 2**62, "float32"), ValueError),
    ],
)
def test_tuples_refused(item: tuple[Any, ...], error: type[Exception]) -> None:
    with pytest.raises(error, match="^item 0: "):
        _core.Segments([item])


# ---------------------------------------------------------------- life


def test_keeps_memory_alive() -> None:
    class Owner:
        pass

    owner, a = Owner(), np.ones(4)
    alive = weakref.ref(owner), weakref.ref(a)
    segments = _core.Segments([a, (a.ctypes.data, 4, "float64", owner)])
    del owner, a
    gc.collect()
    assert all(r() is not None for r in alive)
    assert _core.reduce([segments], [(0, 0)]) == (8.0,)
    del segments
    assert all(r() is None for r in alive)


def test_cycles_are_collected() -> None:
    class Owner:
        segments: _core.Segments

    owner = Owner()
    owner.segments = _core.Segments([(0, 0, "float32", owner), np.ones(2)])
    alive = weakref.ref(owner)
    del owner
    gc.collect()
    assert alive() is None


def test_buffers_are_held_and_given_back() -> None:
    data = bytearray(16)
    segments = _core.Segments([memoryview(data).cast("d")])
    with pytest.raises(BufferError):
        data.append(1)
    del segments
    data.append(1)


def test_no_leaks(exporter: ModuleType) -> None:
    """Every path, right and wrong, many times: references come back and the number of objects stays."""
    a, t, none = np.ones(3), exporter.Tensor([3]), None
    lists: list[list[Any]] = [[a, t], [a, t, none], [a, (1, 2)], [a, np.ones(3, "i4")], [a, t, a[::2]], [t] * 50, []]

    def round_trip() -> None:
        for items in lists:
            with contextlib.suppress(TypeError, ValueError):
                s = _core.Segments(items)
                assert all((s.lengths, s.dtypes, repr(s))) or not items
                _core.reduce([s, (s, s)], [(0, 1), (1, 1)])

    round_trip()
    gc.collect()
    before = [sys.getrefcount(o) for o in (a, t, _core.Segments)], len(gc.get_objects())
    for _ in range(200):
        round_trip()
    gc.collect()
    after = [sys.getrefcount(o) for o in (a, t, _core.Segments)], len(gc.get_objects())
    assert after[0] == before[0]
    assert after[1] <= before[1] + 5


def test_is_final_and_immutable() -> None:
    with pytest.raises(TypeError):
        type("Derived", (_core.Segments,), {})
    with pytest.raises(TypeError):
        _core.Segments.size = 3  # type: ignore[misc, assignment]
    with pytest.raises(AttributeError):
        _core.Segments([]).size = 3  # type: ignore[misc]


@pytest.mark.parametrize("call", [lambda: _core.Segments(), lambda: _core.Segments(3), lambda: _core.Segments([], 1)])
def test_call_errors(call: Any) -> None:
    with pytest.raises(TypeError):
        call()
