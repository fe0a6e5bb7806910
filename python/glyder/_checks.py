"""Checks of arguments. Every message is in call form, with the value given and what would be right."""

from __future__ import annotations

import math
import numbers
from typing import Any

from glyder import _core


def whole(call: str, name: str, value: Any, low: int) -> int:
    """A whole number from ``low`` up, as an int (NumPy's own would not be read back from a checkpoint)."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{call}({name}=...) must be a whole number, got {value!r}")
    if value < low:
        raise ValueError(f"{call}({name}=...) must be >= {low}, got {value}")
    return int(value)


def number(call: str, name: str, value: Any, low: float, *, above: bool = False, finite: bool = False) -> float:
    """A real number from ``low`` up (``above``: without ``low`` itself), infinity included unless ``finite``."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{call}({name}=...) must be a number, got {value!r}")
    x = float(value)
    if not (x > low if above else x >= low) or (finite and x == math.inf):
        wanted = f"{'>' if above else '>='} {low:g}{' and finite' if finite else ''}"
        raise ValueError(f"{call}({name}=...) must be {wanted}, got {value}")
    return x


def rule(call: str, name: str, config: dict[str, Any]) -> _core.Rule:
    """A rule of the C core, which calls its errors after itself: they are told as those of ``call``."""
    try:
        return _core.Rule(name, **config)
    except (TypeError, ValueError) as error:
        raise type(error)(str(error).replace(f'Rule("{name}", ', f"{call}(", 1)) from None


def one_of(call: str, name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    """Refuse what is not one of the values allowed."""
    if not any(type(value) is type(a) and value == a for a in allowed):
        raise ValueError(f"{call}({name}=...) must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def function(call: str, name: str, value: Any, does: str) -> None:
    """Refuse what is neither None nor callable."""
    if value is not None and not callable(value):
        raise TypeError(f"{call}({name}=...) must be {does}, got {value!r}")


def measurement_phase(total_steps: int | None) -> int:
    """Updates of the measurement phase: 100, or a quarter of a short run; of a very short one 10, at most half."""
    return 100 if total_steps is None else min(100, max(total_steps // 4, min(10, total_steps // 2)))


def schedule(call: str, name: str, value: Any, total_steps: int | None, warmup: int) -> tuple[str, dict[str, float]]:
    """Name and parameters of an annealing schedule."""
    if value == "auto":
        value = "rsqrt" if total_steps is None else "linear"
    pair = value if isinstance(value, tuple) and len(value) == 2 else (value, {})
    kind, parameters = ("constant", {}) if value is None else pair
    if not isinstance(kind, str) or kind not in _core.schedules() or not isinstance(parameters, dict):
        known = ", ".join(map(repr, _core.schedules()))
        raise ValueError(
            f"{call}({name}=...) must be None, one of {known}, or a pair of such a name and a dict of its parameters, "
            f"got {value!r}"
        )
    try:
        _core.schedule(kind, 0, total=total_steps, warmup=warmup, **parameters)
    except (TypeError, ValueError) as error:
        hint = "; give total_steps" if total_steps is None else ""
        raise type(error)(f"{call}({name}={value!r}): {error}{hint}") from None
    return kind, dict(parameters)
