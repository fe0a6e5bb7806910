"""Typed face of the C extension ``glyder._core``.  ``csrc/glyder.h`` is the manual."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, final

__version__: str

# ---- machine

def levels() -> dict[str, bool]:
    """Every dispatch level by name, and whether this machine has it."""

def level() -> str:
    """The dispatch level in use."""

def select_level(name: str, /) -> None:
    """Use another level (tests, reports). ``GLYDER_LEVEL`` in the environment does the same at import.

    Raises ValueError for an unknown level or one that this machine lacks."""

def register_tensor_type(cls: type, /) -> bool:
    """Take instances of exactly ``cls`` through its DLPack C exchange table.

    Returns False where the type has no table of a version that is understood; subclasses never count."""

def tensor_types() -> tuple[type, ...]:
    """The types registered so far."""

# ---- vectors

@final
class Segments:
    """A list of arrays that stands for one flattened vector; keeps them alive, copies nothing.

    Items: an instance of a registered tensor type, an object with the buffer protocol (formats ``d f e``, or
    ``H`` for bfloat16 in 16-bit words where ``bf16=True``), or a tuple ``(address, n, dtype)`` that the caller
    vouches for. All must be C-contiguous and in CPU memory. ``writable=True`` demands writable memory.

    Raises TypeError, ValueError or BufferError with the item's index and the reason."""

    def __init__(self, items: Sequence[Any], /, *, writable: bool = False, bf16: bool = False) -> None: ...
    def __len__(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def dtypes(self) -> tuple[str, ...]: ...
    @property
    def lengths(self) -> tuple[int, ...]: ...

Operand = Segments | tuple[Segments, Segments]

def reduce(operands: Sequence[Operand], pairs: Sequence[tuple[int, int]], /) -> tuple[float, ...]:
    """Inner products of the pairs asked for, in one pass. An operand ``(a, b)`` is the difference a - b."""

def copy(dst: Segments, src: Segments, /) -> None: ...
def displace(out: Segments, older: Segments, scale: float, newer: Segments, /) -> None:
    """out <- scale*older - newer."""

def perturb(dst: Segments, x: Segments, c: float, delta: Segments, /) -> None:
    """dst <- x + c*delta."""

# ---- Gauss-Newton-Bartlett.  Matrices are 2-d tensors or buffers, or tuples (address, rows, classes, dtype).

def ce_curvature(z: Any, plus: Any, minus: Any, inv_two_eps: float, k: Any = None, /) -> float: ...
def ce_weights_hard(
    label: Any,
    classes: int,
    /,
    *,
    class_weight: Any = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: Literal["mean", "sum"] = "mean",
    out: Any,
) -> None: ...
def ce_weights_soft(
    target: Any,
    /,
    *,
    class_weight: Any = None,
    label_smoothing: float = 0.0,
    reduction: Literal["mean", "sum"] = "mean",
    out: Any,
) -> None: ...
def ce_infer(z: Any, r: Any, k_out: Any, /) -> tuple[Literal["none", "hard", "mean"], int, float, float]:
    """(kind, rows, misfit, weight)"""

def ce_sample(z: Any, seed: int, draw: int, label_out: Any, /) -> None: ...
def ce_residual(z: Any, label: Any, k: Any, out: Any, /) -> None: ...

# ---- rules and schedules

def rules() -> tuple[str, ...]:
    """Names of all rules and stages."""

@final
class Rule:
    """A rule or stage: configuration, state, and a pure update of scalars.

    ``Rule("glyder", sigma=2.0)``; unknown names, unknown or missing fields and values out of range are errors in
    call form."""

    def __init__(self, name: str, /, **config: float) -> None: ...
    @property
    def name(self) -> str: ...
    @property
    def needs(self) -> tuple[str, ...]:
        """Statistics that ``update`` must be given."""
    @property
    def config(self) -> dict[str, float]: ...
    @property
    def state(self) -> dict[str, float]: ...
    def load(self, state: Mapping[str, float], /) -> None: ...
    def update(self, /, **statistics: float) -> tuple[float, str, str]:
        """(rate, action, reason): action is "keep", "retry" or "skip"."""

def schedules() -> tuple[str, ...]: ...
def schedule(name: str, t: int, /, *, total: int | None = None, warmup: int = 0, **parameters: float) -> float:
    """Factor of update ``t`` (0-based), in [0, 1]."""
