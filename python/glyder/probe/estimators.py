"""Where slope and curvature come from.

Every estimator answers, for a direction delta and a sample of data: the slope s = <grad f, delta> and the curvature
q = delta^T C delta, both at the direction's origin: x_{t+1} on data that are independent of delta, or x_t on the data
that it was made from. The locally optimal learning rate follows from the two in C (2311.13877, Corollary 2.2).

====================================  ==========================================  ===============================
estimator                             curvature                                   cost of a measurement
====================================  ==========================================  ===============================
:class:`GaussNewton` (default)        exact Gauss-Newton, from the outputs        2 forwards
:class:`GaussNewtonBartlett`          sampled labels (2305.14342), as published   1 forward, 1 backward + 1 per draw
:class:`Projection` ``("hvp")``       second derivative of the loss               1 forward, backward twice over
:class:`Projection` ``("gradient")``  difference of two gradients                 2 forwards, 2 backwards
:class:`Projection` ``("loss")``      parabola through three losses               3 forwards
:class:`Smoothness`                   L ||delta||^2                               none
====================================  ==========================================  ===============================

The slope is the inner product of delta with the gradient that training computed anyway; it costs nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from glyder import _core
from glyder.probe.capture import Call, outputs_of
from glyder.probe.isolation import stand_ins, untouched
from glyder.probe.outputs_loss import REMEDY_OTHER, EstimatorError, OutputsLoss, ZeroGradient, outputs_loss
from glyder.probe.update_direction import Direction, Unmeasurable
from glyder.vectors.inner_products import inner_products
from glyder.vectors.segments import column, matrix

Source = Literal["gradients", "outputs", "loss"]


@dataclass(eq=False)
class Sample:
    """Data to measure on: the training batch of this update, or one additional mini-batch.

    Attributes:
        gradients: gradient of the loss by each parameter of the direction; None where one took no part.
        call: the forward pass, with its outputs and the gradient that reached them; None where none was seen.
        passes: how many forward passes the gradients sum over; ``call`` is the last of them.
        loss: the loss as a function of the model, where the user gave one.
        criterion, target: the declared loss (see ``outputs_loss``) and what it was called with.
        exact: the gradients are known to be those of the loss: nothing clipped or rescaled them.
        passes_made: cost of the sample itself, in forward passes.
    """

    gradients: Sequence[Tensor | None]
    call: Call | None = None
    passes: int = 1
    loss: Callable[[nn.Module], Tensor] | None = None
    criterion: nn.Module | str | None = None
    target: tuple[Tensor, Tensor] | None = None
    exact: bool = False
    passes_made: float = 0.0

    def seen(self) -> Call:
        """The forward pass. Raises Unmeasurable where there is none to use."""
        if self.call is None:
            raise Unmeasurable(
                "no_forward",
                "no forward pass of `model` took part in this update: pass the module that the training loop calls",
            )
        if self.call.stale:
            raise Unmeasurable("stale_inputs", "the inputs of the forward pass were overwritten before the update")
        return self.call

    def outputs_loss(self) -> OutputsLoss:
        try:
            return outputs_loss(self.seen(), self.criterion, self.target)
        except ZeroGradient as error:
            raise Unmeasurable("no_gradient", str(error)) from None


@dataclass(frozen=True)
class Measured:
    """Slope and curvature along delta at the direction's origin, and where the slope was taken from."""

    slope: float
    curvature: float
    source: Source


@dataclass(frozen=True)
class Parts:
    """Of blocks of the parameters: <grad_l f, delta_l> and an estimate of delta_l^T C_ll delta_l, and what it cost."""

    slopes: list[float]
    curvatures: list[float]
    passes: float


Blocks = Sequence[Sequence[int]]
"""Indices into the parameters of a direction, block by block."""


class Estimator:
    """Base of all estimators.

    Attributes:
        needs_loss: whether a sample must hold the loss as a function of the model.
        passes: cost of a measurement in forward passes; a backward counts as two.
    """

    needs_loss = False
    passes = 0.0

    def measure(self, direction: Direction, sample: Sample, draw: int) -> Measured:
        """Measure along ``direction``. ``draw`` numbers the measurement, for whatever is random in it.

        Raises:
            Unmeasurable: this sample is of no use; the rate stays.
            EstimatorError: no sample of this training would be; the message names the remedy.
        """
        raise NotImplementedError

    def parts(self, direction: Direction, sample: Sample, blocks: Blocks, draw: int, source: Source) -> Parts:
        """Slope and curvature of every block by itself, at the direction's origin, from one estimate for all of them.

        ``source``: where the slope of the whole direction was taken from; those of the blocks come from there, too.
        The curvatures are unbiased, and as noisy as a single draw is.
        """
        raise EstimatorError(
            f"{type(self).__name__} knows no curvature of single blocks: use scope='global' or 'group'"
        )


def _sums(values: Sequence[float], blocks: Blocks) -> list[float]:
    return [math.fsum(values[i] for i in block) for block in blocks]


# Two slopes that should be equal count as equal up to this share of the larger one plus this share of the largest
# value that an inner product of the two vectors can have. Single precision leaves 1e-4; half precision 3e-2.
AGREEMENT = {False: (2e-2, 1e-3), True: (1e-1, 1e-2)}


def _choose(
    direction: Direction, sample: Sample, other: float, bound: float, half: bool, name: Source
) -> tuple[float, Source]:
    """The training gradient's slope where it is that of the loss; otherwise the one found along with the curvature."""
    slope = direction.dot(sample.gradients)
    share, floor = AGREEMENT[half]
    agrees = abs(slope - other) <= share * max(abs(slope), abs(other)) + floor * bound
    return (slope, "gradients") if sample.exact or (agrees and sample.passes == 1) else (other, name)


@dataclass(frozen=True)
class GaussNewton(Estimator):
    """Exact Gauss-Newton curvature along delta: the default.

    The outputs' change u along delta comes from a central difference (two forwards, no backward, no targets); then
    q = sum_i k_i Var_{p_i}(u_i) for softmax cross-entropy and kappa*||u||^2 for squared error.

    The row weights k_i are read off the gradient that the trained loss sent into the outputs; where that is not the
    gradient of a cross-entropy, EstimatorError says so. The training gradient's slope is compared with the one seen
    in the outputs. Where they differ (clipped or rescaled gradients, several forward passes in one update, loss terms
    that bypass the outputs) the outputs' is taken, which is consistent with the curvature; the history says which.
    """

    passes = 2.0

    def measure(self, direction: Direction, sample: Sample, draw: int) -> Measured:
        call, loss = sample.seen(), sample.outputs_loss()
        half = call.mode.half or direction.native
        c = direction.step(half)
        with untouched():
            plus, minus = (loss.rows(direction.outputs(call, side)) for side in (c, -c))
        if plus.shape != loss.logits.shape:
            raise Unmeasurable("shape_changed", "the outputs changed their shape when the forward pass was repeated")
        curvature = loss.curvature(plus, minus, 0.5 / c)
        ru, rr, uu = inner_products([[loss.residual], ([plus], [minus])], [(0, 1), (0, 0), (1, 1)])
        if uu == 0:
            raise Unmeasurable(
                "unreached", "the displacement does not reach the outputs: does `model` use these parameters?"
            )
        bound = math.sqrt(rr * uu) * 0.5 / c
        slope, source = _choose(direction, sample, ru * 0.5 / c, bound, half, "outputs")
        if source == "outputs" and not loss.scaled:
            raise EstimatorError(
                "with loss='squared_error' the factor of the loss must be 1, and the gradients must be its own: they "
                "differ from what reached the outputs (a loss scale, several forward passes in one update, clipping, "
                "other terms of the loss?). Pass loss=criterion, the nn.MSELoss module that the training loop calls, "
                f"or {REMEDY_OTHER}"
            )
        return Measured(slope, curvature, source)

    def parts(self, direction: Direction, sample: Sample, blocks: Blocks, draw: int, source: Source) -> Parts:
        """From one draw, as :class:`GaussNewtonBartlett` makes it: exact ones would be two forwards for each."""
        return _drawn_parts(direction, sample, blocks, (0, draw, 1), source)


@dataclass(frozen=True)
class GaussNewtonBartlett(Estimator):
    """Gauss-Newton-Bartlett: labels drawn from the model's own predictions (2305.14342, used by 2311.13877).

    With labels drawn, g = J^T sqrt(k)(p - onehot) has mean zero and covariance the Gauss-Newton matrix, so <g, delta>^2
    is unbiased for q. One draw is chi-squared with one degree of freedom (relative deviation sqrt(2)), ``draws`` of
    them have sqrt(2/draws). Cross-entropy only. One more backward pass sends the gradient that the outputs received
    through the same graph: its slope is taken where the training gradient was clipped or rescaled.

    Args:
        draws: label draws per measurement, each one more backward pass.
        seed: of the counter-based generator that draws the labels.
    """

    draws: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise ValueError(f"GaussNewtonBartlett(draws=...) must be >= 1, got {self.draws}")

    @property
    def passes(self) -> float:  # type: ignore[override]
        return 3.0 + 2.0 * self.draws

    def measure(self, direction: Direction, sample: Sample, draw: int) -> Measured:
        call, loss = sample.seen(), sample.outputs_loss()
        if loss.weights is None:
            raise EstimatorError("GaussNewtonBartlett takes a cross-entropy only: use GaussNewton for squared error")
        with _graph(direction, call, loss) as (rows, back):
            draws = range(draw * self.draws, (draw + 1) * self.draws)
            total = math.fsum(direction.dot(back(_drawn(loss, rows, self.seed, i))) ** 2 for i in draws)
            through = direction.dot(back(loss.residual))
        half = call.mode.half or direction.half
        slope, source = _choose(direction, sample, through, abs(through), half, "outputs")
        return Measured(slope, total / self.draws, source)

    def parts(self, direction: Direction, sample: Sample, blocks: Blocks, draw: int, source: Source) -> Parts:
        return _drawn_parts(direction, sample, blocks, (self.seed, draw * self.draws, self.draws), source)


@contextlib.contextmanager
def _graph(
    direction: Direction, call: Call, loss: OutputsLoss
) -> Iterator[tuple[Tensor, Callable[[Tensor], Sequence[Tensor | None]]]]:
    """One more forward pass at the origin: its outputs as rows, and what takes a gradient by them to the parameters."""
    params, here = direction.params, stand_ins(direction.model, {})
    if direction.origin:
        params = [m.requires_grad_() for m in direction.moved(0.0)]
        here = direction.with_parameters(params)
    with untouched(), torch.enable_grad(), here, call.mode.applied(direction.model):
        call.random.restore()
        z = outputs_of(direction.model(*call.args, **call.kwargs), direction.logits)

        def back(residual: Tensor) -> Sequence[Tensor | None]:
            seed = loss.unrows(residual, like=z)
            return torch.autograd.grad(z, params, seed, retain_graph=True, allow_unused=True)

        yield loss.rows(z), back


def _drawn(loss: OutputsLoss, rows: Tensor, seed: int, draw: int) -> Tensor:
    """A random gradient by the outputs with mean zero, whose second moment is the loss's Hessian in them.

    Of a cross-entropy: labels drawn from the model's own predictions. Of a squared error: random signs.
    """
    residual = torch.empty_like(rows)
    if loss.weights is None:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + draw)
        return residual.bernoulli_(0.5, generator=generator).mul_(2).sub_(1).mul_(math.sqrt(loss.kappa))
    label = torch.empty(rows.shape[0], dtype=torch.int64)
    _core.ce_sample(matrix(rows), seed, draw, column(label))
    _core.ce_residual(matrix(rows), column(label), column(loss.weights.sqrt()), matrix(residual))
    return residual


def _drawn_parts(
    direction: Direction, sample: Sample, blocks: Blocks, draws: tuple[int, int, int], source: Source
) -> Parts:
    """<g_l, delta_l>^2 is unbiased for every block at once, g the gradient of a random draw; never negative.

    ``draws``: seed, number of the first, and how many.
    """
    call, loss = sample.seen(), sample.outputs_loss()
    seed, first, count = draws
    with _graph(direction, call, loss) as (rows, back):
        found = [_sums(direction.dots(back(_drawn(loss, rows, seed, first + i))), blocks) for i in range(count)]
        gradients = sample.gradients if source == "gradients" else back(loss.residual)
    curvatures = [math.fsum(v * v for v in of) / count for of in zip(*found, strict=True)]
    passes = 1.0 + 2.0 * count + 2.0 * (source != "gradients")
    return Parts(_sums(direction.dots(gradients), blocks), curvatures, passes)


@dataclass(eq=False)
class Projection(Estimator):
    """Second derivative of the loss itself along delta (the 1-d projection of 2311.13877). Needs ``loss=``.

    Args:
        method: ``"hvp"`` differentiates twice by the step along delta; where an operation has no second derivative
            it says so once and goes on as ``"gradient"``, the central difference of two gradients. ``"loss"`` fits a
            parabola to three losses, without any backward pass.
    """

    method: Literal["hvp", "gradient", "loss"] = "hvp"
    needs_loss = True

    def __post_init__(self) -> None:
        if self.method not in ("hvp", "gradient", "loss"):
            raise ValueError(f"Projection(method=...) must be 'hvp', 'gradient' or 'loss', got {self.method!r}")

    @property
    def passes(self) -> float:  # type: ignore[override]
        return {"hvp": 7.0, "gradient": 6.0, "loss": 3.0}[self.method]

    def measure(self, direction: Direction, sample: Sample, draw: int) -> Measured:
        call = sample.seen()
        if sample.loss is None:
            raise EstimatorError(f"Projection({self.method!r}) needs the loss: pass loss=lambda model, batch: ...")
        half = call.mode.half or direction.native
        with untouched():
            slope, curvature = {"hvp": self._hvp, "gradient": self._gradient, "loss": self._loss}[self.method](
                direction, _At(sample, call, direction), half
            )
        chosen, source = _choose(direction, sample, slope, abs(slope), half, "loss")
        return Measured(chosen, curvature, source)

    def _hvp(self, direction: Direction, at: _At, half: bool) -> tuple[float, float]:
        c = torch.zeros((), dtype=torch.float64, requires_grad=True)
        try:
            with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
                moved = []
                factors = direction.factors or [1.0] * len(direction.deltas)
                for p, k, d in zip(direction.params, factors, direction.deltas, strict=True):
                    like = d if direction.single else p
                    moved.append(p.detach().to(like.dtype) + (direction.origin + c * k).to(like) * d.to(like.dtype))
                with at.parameters(moved):
                    (slope,) = torch.autograd.grad(at.evaluate(), c, create_graph=True)
                    curvature = torch.zeros(())
                    if slope.requires_grad:
                        _check_twice(slope)
                        (curvature,) = torch.autograd.grad(slope, c)
        except (RuntimeError, NotImplementedError) as error:
            if not any(words in str(error) for words in ("derivative", "double backward", "differentiate twice")):
                raise
            warnings.warn(f"Projection('hvp') goes on as 'gradient': {error}", stacklevel=2)
            self.method = "gradient"
            return self._gradient(direction, at, half)
        return slope.item(), curvature.item()

    def _gradient(self, direction: Direction, at: _At, half: bool) -> tuple[float, float]:
        c = direction.step(half)
        plus, minus = at.slope(c), at.slope(-c)
        return (plus + minus) / 2, (plus - minus) / (2 * c)

    def _loss(self, direction: Direction, at: _At, half: bool) -> tuple[float, float]:
        # A second difference loses 4*u*|f|/(c^2 q) to rounding and c^2 to truncation: u^(1/4) balances the two.
        unit = max(torch.finfo(p.dtype).eps for p in direction.deltas) / 2
        c = direction.step(half) * max(1.0, unit**0.25 / 1e-3)
        plus, here, minus = at.loss(c), at.loss(0.0), at.loss(-c)
        return (plus - minus) / (2 * c), (plus - 2 * here + minus) / c**2

    def parts(self, direction: Direction, sample: Sample, blocks: Blocks, draw: int, source: Source) -> Parts:
        """From the difference of two gradients along sum_l z_l delta_l, z_l independent random signs: the cross terms
        of z_l <delta_l, C sum_m z_m delta_m> have mean zero. Whatever ``method`` is."""
        call = sample.seen()
        half = call.mode.half or direction.native
        signs = torch.randint(2, (len(blocks),), generator=torch.Generator().manual_seed(draw)).mul(2).sub(1).tolist()
        factors = [0.0] * len(direction.deltas)
        for sign, block in zip(signs, blocks, strict=True):
            for i in block:
                factors[i] = float(sign)
        signed = dataclasses.replace(direction, factors=factors)
        c = signed.step(half)
        with untouched():
            at = _At(sample, call, signed)
            plus, minus = at.gradient(c), at.gradient(-c)
        bends = zip(signed.dots(plus), signed.dots(minus), strict=True)
        curvatures = _sums([(p - m) / (2 * c) for p, m in bends], blocks)
        ends = zip(direction.dots(plus), direction.dots(minus), strict=True)
        slopes = direction.dots(sample.gradients) if source == "gradients" else [(p + m) / 2 for p, m in ends]
        return Parts(_sums(slopes, blocks), curvatures, 6.0)


def _check_twice(slope: Tensor) -> None:
    """Raise where a custom operation forbade its second derivative: autograd would leave its part out, silently."""
    seen, todo = set(), [slope.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        if node.name() == "torch::autograd::Error":
            raise RuntimeError("an operation of the model forbids to differentiate twice (once_differentiable)")
        seen.add(node)
        todo += [following for following, _ in node.next_functions]


@dataclass(frozen=True, eq=False)
class _At:
    """The loss of one sample at shifted parameters, always with the same random numbers and switches."""

    sample: Sample
    call: Call
    direction: Direction

    @contextlib.contextmanager
    def parameters(self, moved: Sequence[Tensor]) -> Iterator[None]:
        """Passes backward belong inside: checkpointed parts of the model run again in them."""
        with self.direction.with_parameters(moved), self.call.mode.applied(self.direction.model):
            yield

    def evaluate(self) -> Tensor:
        self.call.random.restore()
        return self.sample.loss(self.direction.model)  # type: ignore[misc]

    def loss(self, c: float) -> float:
        with torch.no_grad(), self.parameters(self.direction.moved(c)):
            return float(self.evaluate())

    def slope(self, c: float) -> float:
        return self.direction.dot(self.gradient(c))

    def gradient(self, c: float) -> Sequence[Tensor | None]:
        moved = [m.requires_grad_() for m in self.direction.moved(c)]
        with torch.enable_grad(), self.parameters(moved):
            return torch.autograd.grad(self.evaluate(), moved, allow_unused=True)


@dataclass(frozen=True)
class Smoothness(Estimator):
    """Curvature L*||delta||^2 for a known smoothness constant L, as in the theory of 2311.13877.

    Args:
        L: smoothness constant of the loss in the parameters, > 0.
    """

    L: float

    def __post_init__(self) -> None:
        if not 0 < self.L < math.inf:
            raise ValueError(f"Smoothness(L=...) must be > 0 and finite, got {self.L}")

    def measure(self, direction: Direction, sample: Sample, draw: int) -> Measured:
        return Measured(direction.dot(sample.gradients), self.L * direction.dd, "gradients")

    def parts(self, direction: Direction, sample: Sample, blocks: Blocks, draw: int, source: Source) -> Parts:
        curvatures = [self.L * direction.only(block).dd for block in blocks]
        return Parts(_sums(direction.dots(sample.gradients), blocks), curvatures, 0.0)


def estimator_of(value: Estimator | str) -> Estimator:
    """An estimator by object or by name."""
    names: dict[str, Callable[[], Estimator]] = {
        "gauss-newton": GaussNewton,
        "gnb": GaussNewtonBartlett,
        "hvp": lambda: Projection("hvp"),
        "gradient": lambda: Projection("gradient"),
        "loss": lambda: Projection("loss"),
    }
    if isinstance(value, Estimator):
        return value
    if value in names:
        return names[value]()
    raise ValueError(f"LocalOptimumLR(estimator=...) must be an Estimator or one of {', '.join(names)}, got {value!r}")
