"""Arguments whose own code runs while they are read: they answer differently each time, raise, or change the caller's
containers. None of it may be read twice, lost or swallowed."""

from __future__ import annotations

import gc
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from glyder import _core


class Index:
    """An integer that is what it was told to be, one answer after the other; an exception is raised."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    def __index__(self) -> int:
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return int(answer)


def test_indices_of_pairs_are_read_once() -> None:
    a, b = _core.Segments([np.array([3.0])]), _core.Segments([np.array([5.0])])
    for second in (1, 3, -1, 10**6, RuntimeError("asked twice")):
        i, j = Index(0, second), Index(1, second)
        assert _core.reduce([a, b], [(i, i), (0, j), (1, 1)][1:]) == (15.0, 25.0)
        assert _core.reduce([a, b], [(i, 0)]) == (9.0,)
        assert i.answers == [second] == j.answers
        i, j = Index(0, second), Index(1, second)
        assert _core.reduce_each([a, b], [(i, j)]) == ((15.0,),)
        assert i.answers == [second] == j.answers


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError, RuntimeError])
def test_other_exceptions_pass(stop: type[BaseException]) -> None:
    a, m = _core.Segments([np.ones(2)]), np.ones(2)
    index, zeros = Index(*[stop("stop")] * 9), np.zeros(1, np.int64)
    for call in [
        lambda: _core.reduce([a], [(index, 0)]),
        lambda: _core.reduce([a], [(0, index)]),
        lambda: _core.reduce_each([a], [(index, 0)]),
        lambda: _core.Segments([(m.ctypes.data, index, "float64")]),
        lambda: _core.ce_curvature((m.ctypes.data, 1, index, "float64"), m, None, 1.0),
        lambda: _core.schedule("cosine", index, total=3),
        lambda: _core.schedule("cosine", 0, total=index),
        lambda: _core.ce_weights_hard(zeros, index, out=m[:1]),
        lambda: _core.ce_weights_hard(zeros, 1, ignore_index=index, out=m[:1]),
    ]:
        with pytest.raises(stop, match="^stop$"):
            call()


class Clearing:
    """A number that empties every dict in which it stands before it answers."""

    def __init__(self) -> None:
        self.cleared = 0

    def __float__(self) -> float:
        for holder in gc.get_referrers(self):
            if type(holder) is dict and any(isinstance(key, str) and value is self for key, value in holder.items()):
                holder.clear()
                self.cleared += 1
        np.ones(1000).tolist()  # takes what was set free
        return 0.5


@pytest.mark.parametrize("name", _core.rules())
def test_dicts_may_change_while_they_are_read(name: str) -> None:
    rule = _core.Rule(name)
    number = Clearing()
    if rule.needs:
        wanted = _core.Rule(name).update(**dict.fromkeys(rule.needs, 0.5))
        assert repr(rule.update(**dict.fromkeys(rule.needs, number))) == repr(wanted)  # type: ignore[arg-type]
        assert number.cleared
    for make in [
        lambda: rule.load({key + "": number for key in rule.state}),
        lambda: _core.Rule(name, **{key + "": number for key in rule.config}),
    ]:
        try:
            make()
        except (TypeError, ValueError) as error:
            assert "must be" in str(error)  # half is out of bounds, or more than another field allows


class Odd(str):
    """A name that looks like one field, hides among others, and equals none or all of them."""

    equal = False

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        return self.equal


@pytest.mark.parametrize("name", [name for name in _core.rules() if _core.Rule(name).state])
def test_fields_are_named_by_plain_strings(name: str) -> None:
    rule = _core.Rule(name)
    before = rule.state
    for field in before:
        others = {key: value for key, value in before.items() if key != field}
        for twin in others or ["x"]:
            with pytest.raises(TypeError, match="^names of fields must be str, got .*Odd"):
                rule.load({**others, Odd(twin): 1.0})
        with pytest.raises(TypeError, match="^names of fields must be str"):
            rule.load({**others, 3: 1.0})  # type: ignore[dict-item]
    assert rule.state == before
    for field in rule.config:
        with pytest.raises(TypeError, match="^names of fields must be str"):
            _core.Rule(name, **{Odd(field): 1.0})


@pytest.mark.parametrize("name", _core.rules())
def test_names_do_not_end_at_a_zero(name: str) -> None:
    rule = _core.Rule(name)
    given = dict.fromkeys(rule.needs, 1.0)
    for need in rule.needs:
        with pytest.raises(TypeError, match="is no statistic"):
            rule.update(**{**given, need + "\0junk": 2.0})
    for field in rule.config:
        with pytest.raises(TypeError, match="is unknown"):
            _core.Rule(name, **{field + "\0junk": 1.0})


def test_types_are_told_apart_by_identity(exporter: ModuleType) -> None:
    asked: list[str] = []
    quiet: list[str] = []

    class Meta(type):
        def __eq__(cls, other: object) -> bool:
            asked.append("eq")
            return not quiet

        def __hash__(cls) -> int:
            asked.append("hash")
            return hash(exporter.Tensor)

    class Impostor(metaclass=Meta):
        pass

    class Genuine(exporter.Tensor, metaclass=Meta):  # type: ignore[name-defined, misc]
        pass

    with pytest.raises(TypeError, match="^item 1: neither a registered tensor type"):
        _core.Segments([exporter.Tensor([1]), Impostor()])
    with pytest.raises(TypeError, match="^item 0: neither a registered tensor type"):
        _core.Segments([Genuine([1])])
    assert _core.register_tensor_type(Genuine)
    assert _core.Segments([Genuine([2]), exporter.Tensor([3])]).lengths == (2, 3)
    assert not asked
    assert any(cls is Genuine for cls in _core.tensor_types())
    quiet.append("it stays registered, and other tests compare types")


def test_labels_that_change_meanwhile() -> None:
    """Another thread writes to the labels: whatever is read, nothing outside of the class weights is."""
    import threading

    label, out = np.zeros(1 << 17, np.int64), np.empty(1 << 17)
    done = threading.Event()

    def disturb() -> None:
        while not done.is_set():
            label[-1000:] = 2**60
            label[-1000:] = 0

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        for _ in range(50):
            try:
                _core.ce_weights_hard(label, 2, class_weight=np.ones(2), out=out)
            except ValueError as error:
                assert str(error).startswith("ce_weights_hard: ")
    finally:
        done.set()
        thread.join()
