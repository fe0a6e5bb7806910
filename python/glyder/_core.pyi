"""Typed face of the C extension ``glyder._core``.  ``csrc/glyder.h`` is the manual."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, Self, final

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
    vouches for; a fourth entry, if any, is kept alive with it. All must be C-contiguous and in CPU memory.
    ``writable=True`` demands writable memory that no two items share, and only such Segments can be written to. What is
    read in the same call lies apart from it, but for the very array (same dtype) that an item is written over.

    A tensor may be given other memory while it lives (``t.data = ...``): make and use Segments within one call.

    Raises TypeError, ValueError or BufferError with the item's index and the reason."""

    def __new__(cls, items: Iterable[Any], /, *, writable: bool = False, bf16: bool = False) -> Self: ...
    def __len__(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def writable(self) -> bool: ...
    @property
    def dtypes(self) -> tuple[str, ...]: ...
    @property
    def lengths(self) -> tuple[int, ...]: ...

_Operand = Segments | tuple[Segments, Segments]

def reduce(operands: Iterable[_Operand], pairs: Iterable[tuple[int, int]], /) -> tuple[float, ...]:
    """Inner products of the pairs asked for, in one pass. An operand ``(a, b)`` is the difference a - b."""

def reduce_each(operands: Iterable[_Operand], pairs: Iterable[tuple[int, int]], /) -> tuple[tuple[float, ...], ...]:
    """The same for every segment by itself: a tuple of numbers for each of the pairs."""

def mean_cosine(ab: Iterable[float], aa: Iterable[float], bb: Iterable[float], /) -> tuple[float, int]:
    """Mean of the cosines ab_i/sqrt(aa_i bb_i), and how many count: pairs of which one has no length do not."""

def sum_of_ratios(dd: Iterable[float], xx: Iterable[float], /) -> tuple[float, int]:
    """Sum of the quotients dd_i/xx_i, and how many count: those with a 0 do not."""

def copy(dst: Segments, src: Segments, /) -> None:
    """dst <- src, rounded where the dtypes differ."""

def displace(out: Segments, older: Segments, scale: float, newer: Segments, /) -> None:
    """out <- scale*older - newer."""

def perturb(dst: Segments, x: Segments, c: float, delta: Segments, /) -> None:
    """dst <- x + c*delta."""

# ---- Gauss-Newton-Bartlett.  Matrices are tensors or buffers whose last dimension counts the classes and all others
# ---- the rows, or tuples (address, rows, classes, dtype).  Row and class weights are float64, labels int64; outputs
# ---- are written in place, and lie apart from all inputs but for ``out`` of ce_residual, which may be z.

def ce_curvature(z: Any, plus: Any, minus: Any, inv_two_eps: float, k: Any = None, /) -> float:
    """sum_i k_i sum_c p_ic (u_ic - ubar_i)^2 with u = (plus - minus)*inv_two_eps, p = softmax(z).

    ``minus=None``: u = plus*inv_two_eps; ``k=None``: ones."""

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
) -> None:
    """Row weights of torch's cross_entropy with class indices."""

def ce_weights_soft(
    target: Any,
    /,
    *,
    class_weight: Any = None,
    label_smoothing: float = 0.0,
    reduction: Literal["mean", "sum"] = "mean",
    out: Any,
) -> None:
    """Row weights of torch's cross_entropy with class probabilities."""

def ce_infer(z: Any, r: Any, k_out: Any, /) -> tuple[Literal["none", "hard", "mean", "smooth"], int, float, float]:
    """Row weights read off the gradient r by the logits z: (kind, rows, misfit, weight). With "none" they are NaN."""

def ce_sample(z: Any, seed: int, draw: int, label_out: Any, /) -> None:
    """label_i ~ softmax(z_i); (seed, draw, i) alone decide. Both numbers lie in [0, 2**64)."""

def ce_residual(z: Any, label: Any, k: Any, out: Any, /) -> None:
    """out_ic <- k_i (p_ic - [c == label_i]); ``k=None``: ones."""

# ---- rules and schedules

def rules() -> tuple[str, ...]:
    """Names of all rules and stages."""

def statistics() -> dict[str, str]:
    """What rules look at: name and meaning."""

def reasons() -> dict[str, str]:
    """Why a rate is what it is: name and meaning."""

@final
class Rule:
    """A rule or stage: configuration, state, and a pure update of scalars.

    ``Rule("glyder", sigma=2.0)``; unknown names, unknown or missing fields and values out of range are errors in
    call form, and so are fractions where a whole number or a flag is meant. ``state`` gives what ``load`` takes;
    ``load`` changes nothing unless all fields are right. Pickles and copies keep configuration and state."""

    def __new__(cls, name: str, /, **config: float) -> Self: ...
    @property
    def name(self) -> str: ...
    @property
    def about(self) -> str:
        """What the rule does, in a sentence."""
    @property
    def needs(self) -> tuple[str, ...]:
        """Statistics that ``update`` must be given."""
    @property
    def config(self) -> dict[str, float]: ...
    @property
    def state(self) -> dict[str, float]: ...
    def load(self, state: Mapping[str, float], /) -> None: ...
    def __reduce__(self) -> tuple[Any, ...]: ...
    def __setstate__(self, state: Mapping[str, float], /) -> None: ...
    def update(self, /, **statistics: float) -> tuple[float, Literal["keep", "retry", "skip"], str]:
        """(rate, action, reason). With "skip" the rate is 0 and not to be used."""

def schedules() -> tuple[str, ...]:
    """Names of all schedules."""

def schedule(name: str, t: int, /, *, total: int | None = None, warmup: int = 0, **parameters: float) -> float:
    """Factor of update ``t`` (0-based), in [0, 1]. Schedules with a horizon need ``total``, the number of updates."""
