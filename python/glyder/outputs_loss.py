"""The loss as a function of the model's outputs: what its second derivative is, without knowing the loss function.

For softmax cross-entropy the Hessian in the logits of row i is k_i (diag p_i - p_i p_i^T); the targets enter through
the row weight k_i alone, and k_i can be read off the gradient r_i = k_i p_i - tau_i that the trained loss sent into
the outputs (``gl_ce_infer``). Class weights, masks, ignored and shifted rows, reductions and loss scales are all in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from glyder import _core
from glyder.measure import inner_products
from glyder.stream import Call

REMEDY = (
    "pass loss='squared_error' for a mean squared error, loss=criterion for the nn.CrossEntropyLoss or nn.MSELoss "
    "module that the training loop calls, or estimator=Projection('gradient') with loss=lambda model, batch: ..."
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
    """

    dim: int
    logits: Tensor
    residual: Tensor
    weights: Tensor | None
    kappa: float = 0.0

    def rows(self, outputs: Tensor) -> Tensor:
        return as_rows(outputs, self.dim)

    def unrows(self, rows: Tensor, like: Tensor) -> Tensor:
        """Inverse of :meth:`rows`, in shape, device and dtype of ``like``."""
        return rows.reshape(like.movedim(self.dim, -1).shape).movedim(-1, self.dim).to(like)

    def curvature(self, plus: Tensor, minus: Tensor, inv_two_c: float) -> float:
        """u^T H u for u = (plus - minus)*inv_two_c, both as rows."""
        if self.weights is None:
            return self.kappa * inner_products([([plus], [minus])], [(0, 0)])[0] * inv_two_c**2
        return _core.ce_curvature(self.logits, plus, minus, inv_two_c, self.weights)


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
    return call.cache["loss"]


def _outputs_loss(call: Call, loss: nn.Module | str | None, target: tuple[Tensor, Tensor] | None) -> OutputsLoss:
    outputs, residual = call.outputs, call.residual
    assert outputs is not None and residual is not None
    if loss == "squared_error":
        return OutputsLoss(-1, as_rows(outputs, -1), as_rows(residual, -1), None, 2.0 / outputs.numel())
    if isinstance(loss, nn.Module) and target is not None:
        declared = _declared(loss, target, outputs, residual)
        if declared is not None:
            return declared
    return _inferred(outputs, residual)


def _inferred(outputs: Tensor, residual: Tensor) -> OutputsLoss:
    """Cross-entropy with the classes last, or in dimension 1 as torch has it for images."""
    misfit = math.inf
    for dim in (-1, 1) if outputs.dim() > 2 else (-1,):
        z, r = as_rows(outputs, dim), as_rows(residual, dim)
        k = torch.empty(z.shape[0], dtype=torch.float64)
        kind, rows, misfit, _ = _core.ce_infer(z, r, k)
        if kind != "none":
            return OutputsLoss(dim, z, r, k)
        if rows == 0:
            raise ZeroGradient("no gradient reached the outputs")
        if not bool(torch.isfinite(z).all() and torch.isfinite(r).all()):
            raise ZeroGradient("outputs or their gradient are not finite")
    raise EstimatorError(
        f"the gradient that reached the model's outputs (shape {tuple(outputs.shape)}) is not that of a softmax "
        f"cross-entropy (relative misfit {misfit:.2g}): {REMEDY}"
    )


def _declared(loss: nn.Module, target: tuple[Tensor, Tensor], outputs: Tensor, residual: Tensor) -> OutputsLoss | None:
    """Row weights from the criterion's own options; None where its input is not the outputs as they are.

    The loss that was trained may be the criterion's times a factor (accumulation, a loss scale): the factor is the
    ratio of the gradient that came to the one that the criterion alone would have sent.
    """
    given, labels = target
    if given.numel() != outputs.numel() or getattr(loss, "reduction", None) not in ("mean", "sum"):
        return None
    with torch.enable_grad():
        probe = given.detach().clone().requires_grad_()
        (alone,) = torch.autograd.grad(loss(probe, labels), probe)
    rr, aa = (inner_products([[v]], [(0, 0)])[0] for v in (residual, alone))
    if not (aa > 0 and math.isfinite(aa) and math.isfinite(rr)):
        raise ZeroGradient("no finite gradient reached the outputs")
    factor = math.sqrt(rr / aa)
    if isinstance(loss, nn.MSELoss):
        kappa = factor * 2.0 / (outputs.numel() if loss.reduction == "mean" else 1)
        return OutputsLoss(-1, as_rows(outputs, -1), as_rows(residual, -1), None, kappa)
    dim = _class_dim(given, outputs)
    if dim is None:
        return None
    z = as_rows(outputs, dim)
    k = torch.empty(z.shape[0], dtype=torch.float64)
    options = {
        "class_weight": None if loss.weight is None else loss.weight.detach().double().cpu().contiguous(),
        "label_smoothing": loss.label_smoothing,
        "reduction": loss.reduction,
    }
    if labels.is_floating_point():
        _core.ce_weights_soft(as_rows(labels, 1 if labels.dim() > 1 else 0), out=k, **options)
    else:
        flat = labels.detach().reshape(-1).to("cpu", torch.int64).contiguous()
        _core.ce_weights_hard(flat, z.shape[1], ignore_index=loss.ignore_index, out=k, **options)
    return OutputsLoss(dim, z, as_rows(residual, dim), k * factor)


def _class_dim(given: Tensor, outputs: Tensor) -> int | None:
    """Where the classes lie in the outputs, for a criterion that was given ``given``, the outputs in some shape."""
    classes = given.shape[1] if given.dim() > 1 else given.shape[0]
    if given.shape == outputs.shape:
        return 1 if given.dim() > 1 else 0
    return -1 if outputs.dim() > 0 and outputs.shape[-1] == classes else None
