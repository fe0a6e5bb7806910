"""Every method by name."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.methods.baselines import Prodigy, ScheduleFree
from benchmarks.methods.glyder import Glyder
from benchmarks.methods.schedules import Method, Tuned

METHODS: dict[str, Callable[..., Method]] = {
    "tuned": Tuned,
    "fixed": Tuned,
    "glyder": Glyder,
    "prodigy": Prodigy,
    "schedulefree": ScheduleFree,
}
