"""The loss as a function of the model's outputs: what its second derivative is, without knowing the loss function.

For softmax cross-entropy the Hessian in the logits of row i is k_i (diag p_i - p_i p_i^T); the targets enter through
the row weight k_i alone, and k_i can be read off the gradient r_i = k_i p_i - tau_i that the trained loss sent into
the outputs (``gl_ce_infer``). Class weights, masks, ignored and shifted rows, reductions and loss scales are all in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from glyder import _core
from glyder.probe.capture import Call
from glyder.vectors.inner_products import inner_products
from glyder.vectors.segments import column, matrix

REMEDY_OTHER = (
    "pass estimator='gradient' with loss=criterion, the module that the training loop calls, or with "
    "loss=lambda model, batch: ... (batch.args and batch.kwargs are what the model was called with)"
)
REMEDY = (
    "pass loss='squared_error' for a mean squared error, loss=criterion for the nn.CrossEntropyLoss or nn.MSELoss "
    f"module that the training loop calls; for any other loss {REMEDY_OTHER}"
)


class EstimatorError(ValueError):
    """The estimator does not fit the loss that is trained; the message names the remedy."""


class ZeroGradient(Exception):
    """No gradient, or no finite one, reached the outputs."""


@dataclass(frozen=True, eq=False)
class OutputsLoss:
    """Second derivative of the trained loss in the outputs.

    Attributes:
        dim: dimension of the outputs that holds the classes.
        logits: outputs of the training pass as rows [n, classes].
        residual: gradient of the trained loss by them, same shape.
        weights: row weights k_i [n], float64, of a cross-entropy; None for squared error.
        kappa: second derivative of a squared error.
        scaled: weights or kappa hold whatever factor the loss was trained with, as ``residual`` does.
    """

    dim: int
    logits: Tensor
    residual: Tensor
    weights: Tensor | None
    kappa: float = 0.0
    scaled: bool = True

    def rows(self, outputs: Tensor) -> Tensor:
        return as_rows(outputs, self.dim)

    def unrows(self, rows: Tensor, like: Tensor) -> Tensor:
        """Inverse of :meth:`rows`, in shape, device and dtype of ``like``."""
        return rows.reshape(like.movedim(self.dim, -1).shape).movedim(-1, self.dim).to(like)

    def curvature(self, plus: Tensor, minus: Tensor, inv_two_c: float) -> float:
        """u^T H u for u = (plus - minus)*inv_two_c, both as rows."""
        if self.weights is None:
            return self.kappa * inner_products([([plus], [minus])], [(0, 0)])[0] * inv_two_c**2
        return _core.ce_curvature(matrix(self.logits), matrix(plus), matrix(minus), inv_two_c, column(self.weights))


def as_rows(outputs: Tensor, dim: int) -> Tensor:
    """[n, classes], contiguous, in CPU memory, where the kernels of the C core can read it."""
    if outputs.dim() == 0:
        return outputs.detach().reshape(1, 1).cpu()
    return outputs.detach().movedim(dim, -1).reshape(-1, outputs.shape[dim]).contiguous().cpu()


def outputs_loss(call: Call, loss: nn.Module | str | None, target: tuple[Tensor, Tensor] | None) -> OutputsLoss:
    """The loss seen from the outputs of ``call``; worked out once per call.

    Args:
        loss: None to read the row weights off the gradient; ``"squared_error"`` (its mean over all outputs); an
            ``nn.CrossEntropyLoss`` or ``nn.MSELoss`` that was called with ``target``.

    Raises:
        EstimatorError: the gradient at the outputs is not that of such a loss.
        ZeroGradient: nothing can be read off this pass.
    """
    if "loss" not in call.cache:
        call.cache["loss"] = _outputs_loss(call, loss, target)
    found: OutputsLoss = call.cache["loss"]
    return found


def _outputs_loss(call: Call, loss: nn.Module | str | None, target: tuple[Tensor, Tensor] | None) -> OutputsLoss:
    if call.unclear is not None:
        raise call.unclear
    outputs, residual = call.outputs, call.residual
    assert outputs is not None and residual is not None
    if loss == "squared_error":
        z, r = as_rows(outputs, -1), as_rows(residual, -1)
        return OutputsLoss(-1, z, r, None, 2.0 / outputs.numel(), scaled=False)
    if isinstance(loss, nn.Module) and target is not None:
        declared = _declared(loss, target, outputs, residual)
        if declared is not None:
            return declared
    return _inferred(outputs, residual)


def _inferred(outputs: Tensor, residual: Tensor) -> OutputsLoss:
    """Cross-entropy with the classes last, or in dimension 1 as torch has it for images."""
    best = math.inf
    for dim in (-1, 1) if outputs.dim() > 2 else (-1,):
        z, r = as_rows(outputs, dim), as_rows(residual, dim)
        k = torch.empty(z.shape[0], dtype=torch.float64)
        kind, rows, misfit, _ = _core.ce_infer(matrix(z), matrix(r), column(k))
        likelihood = kind == "none" and _is_likelihood(z, r)
        if likelihood:
            k = r.double().sum(1).neg()
        if likelihood or kind != "none":
            if _follows_probability(z, r, k):
                raise EstimatorError(
                    "the gradient that reached the model's outputs is that of a loss of the label's probability other "
                    f"than its logarithm, such as a focal loss: {REMEDY}"
                )
            return OutputsLoss(dim, z, r, k)
        if rows == 0:
            raise ZeroGradient("no gradient reached the outputs")
        if not bool(torch.isfinite(z).all() and torch.isfinite(r).all()):
            raise ZeroGradient("outputs or their gradient are not finite")
        best = min(best, misfit)
    fit = f" (relative misfit {best:.2g})" if best < math.inf else ""
    raise EstimatorError(
        f"the gradient that reached the model's outputs (shape {tuple(outputs.shape)}) is not that of a softmax "
        f"cross-entropy{fit}: {REMEDY}"
    )


# Relative errors that rounding may leave in a gradient or in a sum of probabilities, and that no other loss is below.
ROUNDING, ROUNDING_HALF = 1e-2, 5e-2


def _rounding(*tensors: Tensor) -> float:
    return ROUNDING_HALF if any(t.dtype.itemsize < 4 for t in tensors) else ROUNDING


def _is_likelihood(z: Tensor, r: Tensor) -> bool:
    """Whether the outputs are log-probabilities (``log_softmax``) under a negative log-likelihood, r = -tau.

    Its Hessian in the outputs is 0, that in the logits behind them k (diag p - p p^T) with k = sum_c tau_c; and as
    shifting a row of logits changes nothing, the log-probabilities serve as logits.
    """
    if bool((r > 0).any()):
        return False
    seen = (r != 0).any(1)
    off = z[seen].double().logsumexp(1).abs()
    return off.numel() > 0 and float(off.max()) <= _rounding(z)


FEWEST = 16
"""Turns that can be judged. Of as many independent weights two thirds turn; an eighth at most, once in 1e5 times."""


def _follows_probability(z: Tensor, r: Tensor, k: Tensor) -> bool:
    """Whether, among rows of the same label, the row weight is a smooth function of the label's probability.

    A loss phi(log p_y) sends the gradient of a cross-entropy, with the weight -phi' in each row, and has another
    Hessian. True row weights know nothing of p_y: sorted by it, they go up and down.
    """
    spread = math.log1p(_rounding(z, r))
    rows = torch.nonzero(k > 0).flatten()
    if rows.numel() <= FEWEST or float(k[rows].max().log() - k[rows].min().log()) <= spread:
        return False
    z, weight, label = z[rows].double(), k[rows].log(), r[rows].argmin(1)
    p = z.gather(1, label[:, None]).flatten() - z.logsumexp(1)
    order = p.argsort()
    order = order[label[order].argsort(stable=True)]
    steps, of = weight[order].diff(), label[order][1:]
    plain = (label[order].diff() == 0) & (steps.abs() > spread / 100)  # rounding leaves less than that
    up, of = steps[plain] > 0, of[plain]
    turns = (up[1:] != up[:-1])[of[1:] == of[:-1]]
    return turns.numel() >= FEWEST and int(turns.sum()) * 8 <= turns.numel()


def _declared(loss: nn.Module, target: tuple[Tensor, Tensor], outputs: Tensor, residual: Tensor) -> OutputsLoss | None:
    """Row weights from the criterion's own options; None where they have to be read off the gradient after all.

    The loss that was trained may be the criterion's times a factor (accumulation, a loss scale): the factor is the
    ratio of the gradient that came to the one that the criterion alone would have sent.
    """
    kinds = (nn.CrossEntropyLoss, nn.MSELoss)
    kind = next((cls for cls in kinds if isinstance(loss, cls) and type(loss).forward is cls.forward), None)
    if kind is None or loss.reduction == "none":
        return None
    criterion: Any = loss
    given, labels = target
    dims = _alike(given, outputs, kind is nn.CrossEntropyLoss)
    if dims is None:
        if kind is nn.CrossEntropyLoss:
            return None
        raise EstimatorError(f"the criterion was called with something else than the model's outputs: {REMEDY_OTHER}")
    with torch.enable_grad():
        probe = given.detach().clone().requires_grad_()
        (alone,) = torch.autograd.grad(loss(probe, labels), probe)
    z, r, a = as_rows(outputs, dims[0]), as_rows(residual, dims[0]), as_rows(alone, dims[1]).reshape(-1)
    rr, ra, aa = inner_products([[r.reshape(-1)], [a]], [(0, 0), (0, 1), (1, 1)])
    if not (aa > 0 and rr > 0 and math.isfinite(aa) and math.isfinite(rr)):
        raise ZeroGradient("no finite gradient reached the outputs")
    if ra <= 0 or 1 - ra * ra / (rr * aa) > _rounding(r, a) ** 2:
        raise EstimatorError(
            f"more than the criterion's gradient reached the outputs, from other terms of the loss: {REMEDY_OTHER}"
        )
    factor = ra / aa
    if kind is nn.MSELoss:
        terms = torch.broadcast_shapes(given.shape, labels.shape).numel()
        kappa = 2.0 * terms / given.numel() / (terms if criterion.reduction == "mean" else 1)
        return OutputsLoss(dims[0], z, r, None, factor * kappa)
    k = torch.empty(z.shape[0], dtype=torch.float64)
    class_weight = criterion.weight
    options: dict[str, Any] = {
        "class_weight": None if class_weight is None else column(class_weight.detach().double().cpu().contiguous()),
        "label_smoothing": criterion.label_smoothing,
        "reduction": criterion.reduction,
    }
    if labels.is_floating_point():
        _core.ce_weights_soft(matrix(as_rows(labels, dims[1])), out=column(k), **options)
    else:
        flat = labels.detach().reshape(-1).to("cpu", torch.int64).contiguous()
        _core.ce_weights_hard(column(flat), z.shape[1], ignore_index=criterion.ignore_index, out=column(k), **options)
    return OutputsLoss(dims[0], z, r, k * factor)


def _alike(given: Tensor, outputs: Tensor, classes: bool) -> tuple[int, int] | None:
    """Dimensions of ``outputs`` and ``given`` along which both hold the same rows; None where they are not the same.

    A criterion may be given the outputs in another shape, and in another precision. With ``classes`` the rows of
    ``given`` are those of torch's cross-entropy.
    """
    if given.numel() != outputs.numel():
        return None
    there = (1 if given.dim() > 1 else 0) if classes else -1
    rows = as_rows(given, there)
    for here in (1, -1) if classes and outputs.dim() > 1 else (-1,):
        ours = as_rows(outputs, here)
        if classes and ours.shape != rows.shape:
            continue
        if torch.equal(ours.reshape(-1), rows.reshape(-1).to(ours.dtype)):
            return here, there
    return None
