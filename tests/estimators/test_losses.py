"""Row weights and curvature in the outputs, of every way in which a loss can be trained, against autograd.

The model is a table of outputs, so that outputs and their displacement are what the test says they are.
"""

# ruff: noqa: B008 - defaults of the lambdas are drawn when the case is made, which is what is wanted

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glyder.probe.estimators import EstimatorError, GaussNewton, GaussNewtonBartlett, Projection

from . import truth

N, C = 24, 6


class Table(nn.Module):
    """z = outputs, whatever comes in; ``shape`` and ``then`` say what the model returns."""

    def __init__(self, values: Tensor, then: Callable[[Tensor], Tensor] = lambda z: z) -> None:
        super().__init__()
        self.z, self.then = nn.Parameter(values), then

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self.z * 1)


def labels(n: int = N, classes: int = C) -> Tensor:
    return torch.randint(classes, (n,))


def masked(n: int = N) -> Tensor:
    y = labels(n)
    y[::3] = -100
    return y


def weights(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.linspace(0.2, 3, C, dtype=dtype)


def soft() -> Tensor:
    return F.softmax(torch.randn(N, C), dim=1)


# What is trained, as a function of the outputs [N, C].
INFERRED: dict[str, Callable[[], truth.Loss]] = {
    "mean": lambda: truth.cross_entropy(labels()),
    "sum": lambda: truth.cross_entropy(labels(), reduction="sum"),
    "ignored rows": lambda: truth.cross_entropy(masked()),
    "class weights": lambda: truth.cross_entropy(labels(), weight=weights()),
    "class weights and ignored rows": lambda: truth.cross_entropy(masked(), weight=weights()),
    "smoothed": lambda: truth.cross_entropy(labels(), label_smoothing=0.1),
    "smoothed and ignored rows": lambda: truth.cross_entropy(masked(), label_smoothing=0.1),
    "smoothed sum": lambda: truth.cross_entropy(labels(), label_smoothing=0.2, reduction="sum"),
    "quartered": lambda: lambda z, y=labels(): F.cross_entropy(z, y) * 0.25,
    "scaled by 65536": lambda: lambda z, y=labels(): F.cross_entropy(z, y) * 65536,
    "smoothed and scaled": lambda: lambda z, y=labels(): F.cross_entropy(z, y, label_smoothing=0.1) * 65536,
    "row weights": lambda: lambda z, y=labels(), w=torch.rand(N): (F.cross_entropy(z, y, reduction="none") * w).mean(),
    "mixed up (mixup)": lambda: (
        lambda z, y=labels(), o=labels(): 0.7 * F.cross_entropy(z, y) + 0.3 * F.cross_entropy(z, o)
    ),
    "shifted": lambda: lambda z, y=labels(N - 1): F.cross_entropy(z[:-1], y),
    "shifted and ignored rows": lambda: lambda z, y=masked(N - 1): F.cross_entropy(z[:-1], y),
    "likelihood of log-probabilities": lambda: lambda z, y=labels(): F.nll_loss(F.log_softmax(z, 1), y),
}
# Tolerance of the weights read off a gradient: its rounding, 6e-8 of the probabilities, where they are not close to 1.
WEIGHTS = {torch.float32: 2e-3, torch.float64: 1e-6}


def measured(
    model: nn.Module, trained: truth.Loss, estimator: Any = None, loss: Any = None, deltas: list | None = None
) -> tuple[Any, Any]:
    """What the estimator makes of it, and autograd's (slope, curvature)."""
    x = torch.zeros(1)
    trained(model(x)).backward()
    direction = truth.direction_of(model, deltas)
    true = truth.gauss_newton(model, lambda m: m(x), trained, direction.deltas)
    sample = truth.sample_of(model, direction, lambda: trained(model(x)).backward(), loss=loss)
    return (estimator or GaussNewton()).measure(direction, sample, 0), true


def check(found: Any, true: tuple, bound: float) -> None:
    print(f"curvature {abs(found.curvature / true[1] - 1):.2g} of {bound:g}")
    assert found.slope == pytest.approx(true[0], rel=bound)
    assert found.curvature == pytest.approx(true[1], rel=bound)


@pytest.mark.parametrize("dtype", WEIGHTS, ids=str)
@pytest.mark.parametrize("name", INFERRED)
def test_inferred(name: str, dtype: torch.dtype) -> None:
    if "weights" in name and dtype == torch.float64:
        pytest.skip("class weights are given in single precision")
    trained = INFERRED[name]()
    found, true = measured(Table(torch.randn(N, C, dtype=dtype)), trained)
    assert found.source == "gradients"
    check(found, true, WEIGHTS[dtype])


# A common offset of 1e4 leaves the logits a rounding of 1e4 * 2**-24 = 6e-4 at most, 2.8e-4 in the mean square.
# Probes 2e-3 apart: rounding adds to u a random part of 2.8e-4 * sqrt(2)/2e-3 = 20 %, whose square adds 4 % to q.
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 0.15), (torch.float64, 1e-6)], ids=str)
def test_common_offset(dtype: torch.dtype, bound: float) -> None:
    table = Table(torch.randn(N, C, dtype=dtype), lambda z: z + 1e4)
    found, true = measured(table, truth.cross_entropy(labels()))
    check(found, true, bound)


@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize("dtype", WEIGHTS, ids=str)
@pytest.mark.parametrize("shape", [(3, C, 4, 5), (4, C, 7)], ids=str)
def test_classes_in_dimension_1(shape: tuple, dtype: torch.dtype, declared: bool) -> None:
    y = torch.randint(C, (shape[0], *shape[2:]))
    y[0] = -100
    criterion = nn.CrossEntropyLoss()
    found, true = measured(
        Table(torch.randn(shape, dtype=dtype)), lambda z: criterion(z, y), loss=criterion if declared else None
    )
    check(found, true, WEIGHTS[dtype])


def test_log_probabilities_as_outputs() -> None:
    """NLL is linear in them; the curvature is that of the logits behind them."""
    y, logits = labels(), torch.randn(N, C, dtype=torch.float64)
    ours = Table(logits, lambda z: F.log_softmax(z, 1))
    F.nll_loss(ours(None), y).backward()
    direction = truth.direction_of(ours)
    deltas = direction.deltas
    true = truth.gauss_newton(Table(logits.clone()), lambda m: m(None), truth.cross_entropy(y), deltas)
    sample = truth.sample_of(ours, direction, lambda: F.nll_loss(ours(None), y).backward())
    check(GaussNewton().measure(direction, sample, 0), true, 1e-6)


# The options of the module that the loop calls, and its targets.
DECLARED: dict[str, tuple[dict[str, Any], Callable[[], Tensor]]] = {
    "mean": ({}, labels),
    "sum": ({"reduction": "sum"}, labels),
    "ignored rows": ({}, masked),
    "another ignored index": ({"ignore_index": 2}, labels),
    "class weights": ({"weight": weights()}, masked),
    "class weights, smoothed": ({"weight": weights(), "label_smoothing": 0.1}, masked),
    "soft": ({}, soft),
    "soft sum": ({"reduction": "sum"}, soft),
    "soft, weights, smoothed": ({"weight": weights(), "label_smoothing": 0.2}, soft),
}


@pytest.mark.parametrize("factor", [1.0, 0.25, 65536.0])
@pytest.mark.parametrize("name", DECLARED)
def test_declared(name: str, factor: float) -> None:
    options, target = DECLARED[name]
    criterion, y = nn.CrossEntropyLoss(**options), target()
    found, true = measured(Table(torch.randn(N, C)), lambda z: criterion(z, y) * factor, loss=criterion)
    # Weights in double precision; the central difference of outputs that are linear in the parameters only rounds.
    check(found, true, 1e-4)


def test_declared_with_flattened_outputs() -> None:
    criterion, y = nn.CrossEntropyLoss(), labels(12)
    found, true = measured(Table(torch.randn(3, 4, C)), lambda z: criterion(z.reshape(-1, C), y) / 4, loss=criterion)
    check(found, true, 1e-4)


def test_declared_with_transposed_outputs() -> None:
    criterion, y = nn.CrossEntropyLoss(), labels(12).view(3, 4)
    found, true = measured(Table(torch.randn(3, 4, C)), lambda z: criterion(z.transpose(1, 2), y), loss=criterion)
    check(found, true, 1e-4)


def test_declared_but_shifted_is_inferred() -> None:
    criterion, y = nn.CrossEntropyLoss(), labels(N - 1)
    found, true = measured(Table(torch.randn(N, C)), lambda z: criterion(z[:-1], y), loss=criterion)
    check(found, true, 2e-3)


def test_sampled_form_takes_the_loss_scale_from_the_outputs() -> None:
    """A scaler's gradients come unscaled to the optimizer; slope and curvature must be in one scale."""
    y, model, many = labels(), Table(torch.randn(N, C)), GaussNewtonBartlett(draws=3000)
    truth.cross_entropy(y)(model(None)).backward()
    direction = truth.direction_of(model)

    def train() -> None:
        (F.cross_entropy(model(None), y) * 1024).backward()
        model.z.grad /= 1024

    plain = truth.gauss_newton(model, lambda m: m(None), truth.cross_entropy(y), direction.deltas)
    found = many.measure(direction, truth.sample_of(model, direction, train), 0)
    assert found.source == "outputs"
    # 3000 draws: a standard error of sqrt(2/3000) = 2.6 %, and three of them.
    assert found.slope / found.curvature == pytest.approx(plain[0] / plain[1], rel=0.08)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("factor", [1.0, 0.25, 65536.0])
@pytest.mark.parametrize("shape", [(N, C), (N, 1), (N,), (2, 3, 4, 5)], ids=str)
def test_declared_squared_error(shape: tuple, factor: float, reduction: str) -> None:
    criterion, y = nn.MSELoss(reduction=reduction), torch.randn(shape)
    found, true = measured(Table(torch.randn(shape)), lambda z: criterion(z, y) * factor, loss=criterion)
    check(found, true, 1e-4)


def test_declared_squared_error_of_squeezed_outputs() -> None:
    criterion, y = nn.MSELoss(), torch.randn(N)
    found, true = measured(Table(torch.randn(N, 1)), lambda z: criterion(z.squeeze(1), y), loss=criterion)
    check(found, true, 1e-4)


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_declared_squared_error_of_broadcast_targets(reduction: str) -> None:
    criterion, y = nn.MSELoss(reduction=reduction), torch.randn(N)
    found, true = measured(Table(torch.randn(N, 1)), lambda z: criterion(z, y), loss=criterion)
    check(found, true, 1e-4)


def test_squared_error_by_name() -> None:
    y = torch.randn(N, C)
    found, true = measured(Table(torch.randn(N, C)), lambda z: F.mse_loss(z, y), loss="squared_error")
    check(found, true, 1e-4)


@pytest.mark.parametrize("trained", ["scaled", "penalised", "clipped", "two passes"])
def test_squared_error_by_name_refuses_what_it_cannot_know(trained: str) -> None:
    """The factor of the loss is not to be seen in the gradient; a wrong one would give a wrong rate, silently."""
    y, model = torch.randn(N, C), Table(torch.randn(N, C))

    def train() -> None:
        loss = F.mse_loss(model(None), y) * (1024 if trained == "scaled" else 1)
        loss = loss + ((model.z + 3).square().sum() if trained == "penalised" else 0)
        loss = loss + (F.mse_loss(model(None), y) if trained == "two passes" else 0)
        loss.backward()
        model.z.grad *= {"scaled": 1 / 1024, "clipped": 0.1}.get(trained, 1.0)

    train()
    direction = truth.direction_of(model)
    sample = truth.sample_of(model, direction, train, loss="squared_error")
    with pytest.raises(EstimatorError, match="loss=criterion, the nn.MSELoss module"):
        GaussNewton().measure(direction, sample, 0)


def focal(y: Tensor) -> truth.Loss:
    def loss(z: Tensor) -> Tensor:
        log_p = F.log_softmax(z, 1).gather(1, y[:, None]).flatten()
        return (-((1 - log_p.exp()) ** 2) * log_p).mean()

    return loss


def hinge(y: Tensor) -> truth.Loss:
    return lambda z: (1 + z - z.gather(1, y[:, None])).clamp(min=0).mean()


def two_sided(y: Tensor) -> truth.Loss:
    return lambda z: F.cross_entropy(z, y) + 0.1 * z.square().mean()


REFUSED: dict[str, Callable[[], tuple[tuple, truth.Loss]]] = {
    "binary cross-entropy": lambda: (
        (N, C),
        lambda z, y=torch.randint(2, (N, C)).float(): F.binary_cross_entropy_with_logits(z, y),
    ),
    "binary cross-entropy, one output": lambda: (
        (N, 1),
        lambda z, y=torch.randint(2, (N, 1)).float(): F.binary_cross_entropy_with_logits(z, y),
    ),
    "binary cross-entropy, flat": lambda: (
        (N,),
        lambda z, y=torch.randint(2, (N,)).float(): F.binary_cross_entropy_with_logits(z, y),
    ),
    "squared error": lambda: ((N, C), lambda z, y=torch.randn(N, C): F.mse_loss(z, y)),
    "squared error, one output": lambda: ((N, 1), lambda z, y=torch.randn(N, 1): F.mse_loss(z, y)),
    "squared error, flat": lambda: ((N,), lambda z, y=torch.randn(N): F.mse_loss(z, y)),
    "squared error of one-hot": lambda: ((N, C), lambda z, y=labels(): F.mse_loss(z, F.one_hot(y, C).float())),
    "squared error of probabilities": lambda: (
        (N, C),
        lambda z, y=labels(): F.mse_loss(z.softmax(1), F.one_hot(y, C).float()),
    ),
    "absolute error": lambda: ((N, C), lambda z, y=torch.randn(N, C): F.l1_loss(z, y)),
    "focal": lambda: ((200, C), focal(labels(200))),
    "focal of log-probabilities": lambda: (
        (200, C),
        lambda z, y=labels(200): (-((1 - z.gather(1, y[:, None]).exp()) ** 2) * z.gather(1, y[:, None])).mean(),
    ),
    "rewards of log-probabilities": lambda: (
        (N, C),
        lambda z, y=labels(), a=torch.linspace(-1, 1, N): -(a * z.gather(1, y[:, None]).flatten()).mean(),
    ),
    "hinge": lambda: ((N, C), hinge(labels())),
    "tempered": lambda: ((N, C), lambda z, y=labels(): F.cross_entropy(z / 2, y)),
    "penalised logits": lambda: ((N, C), two_sided(labels())),
    "images": lambda: ((2, 3, 8, 8), lambda z, y=torch.randn(2, 3, 8, 8): F.mse_loss(z, y)),
    "contrastive": lambda: (
        (N, C),
        lambda z: F.cross_entropy(F.normalize(z, dim=1) @ F.normalize(z, dim=1).T / 0.1, torch.arange(N)),
    ),
    "z-loss": lambda: ((N, C), lambda z, y=labels(): F.cross_entropy(z, y) + 0.05 * z.logsumexp(1).square().mean()),
    "unnormalised likelihood": lambda: ((N, C), lambda z, y=labels(): F.nll_loss(z, y)),
    "policy gradient": lambda: (
        (N, C),
        lambda z, y=labels(), a=torch.randn(N): -(a * F.log_softmax(z, 1).gather(1, y[:, None]).flatten()).mean(),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    shape, trained = REFUSED[name]()
    table = Table(torch.randn(shape), (lambda z: F.log_softmax(z, 1)) if "log-prob" in name else (lambda z: z))
    with pytest.raises(EstimatorError, match=r"estimator=.gradient. with loss=criterion.*loss=lambda model, batch"):
        measured(table, trained)


@pytest.mark.parametrize("name", REFUSED)
def test_the_remedy_works(name: str) -> None:
    """What the message tells to do gives autograd's numbers."""
    shape, trained = REFUSED[name]()
    table = Table(torch.randn(shape), (lambda z: F.log_softmax(z, 1)) if "log-prob" in name else (lambda z: z))
    table = table.double()
    trained(table(None)).backward()
    direction = truth.direction_of(table)
    kinked = name in ("absolute error", "hinge")  # all of whose curvature is in their kinks
    if kinked:
        slope, curvature = float(truth.dot([table.z.grad], direction.deltas)), 0.0
    else:
        slope, curvature = truth.hessian(table, lambda m: trained(m(None)), direction.deltas)
    sample = truth.sample_of(
        table, direction, lambda: trained(table(None)).backward(), loss=lambda model, batch: trained(model(*batch.args))
    )
    found = Projection("gradient").measure(direction, sample, 0)
    scale = abs(curvature) + 1e-3 * abs(slope)
    assert found.slope == pytest.approx(slope, rel=1e-6)
    if not kinked:
        # Truncation of the difference, 1e-6 of a fourth derivative: of a temperature of 0.1 that is 1e4.
        assert abs(found.curvature - curvature) <= 1e-2 * scale


class Focal(nn.CrossEntropyLoss):
    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        return focal(y)(z)


@pytest.mark.parametrize(
    ("criterion", "trained"),
    [
        (Focal(), lambda c, z, y: c(z, y)),
        (nn.CrossEntropyLoss(), lambda c, z, y: c(z / 2, y)),
        (nn.CrossEntropyLoss(), lambda c, z, y: c(z, y) + 0.1 * z.square().mean()),
        (nn.MSELoss(), lambda c, z, y: c(z.sigmoid(), F.one_hot(y, C).float())),
        (nn.MSELoss(), lambda c, z, y: c(z, F.one_hot(y, C).float()) + z.abs().mean()),
        (nn.L1Loss(), lambda c, z, y: c(z, F.one_hot(y, C).float())),
        (nn.BCEWithLogitsLoss(), lambda c, z, y: c(z, F.one_hot(y, C).float())),
        (nn.SmoothL1Loss(), lambda c, z, y: c(z, F.one_hot(y, C).float())),
    ],
    ids=["focal", "tempered", "penalised", "sigmoid", "two terms", "L1", "BCE", "smooth L1"],
)
def test_declared_but_not_so(criterion: nn.Module, trained: Callable[..., Tensor]) -> None:
    """A criterion that is not what it seems, or not all of the loss, is never believed."""
    y = labels(200)
    with pytest.raises(EstimatorError, match="estimator='gradient'"):
        measured(Table(torch.randn(200, C)), lambda z: trained(criterion, z, y), loss=criterion)


def test_a_gradient_that_the_optimizer_owns_is_not_the_outputs() -> None:
    """Where a parameter is the outputs, autograd makes one tensor of both gradients, and clipping writes into it."""
    y, table = labels(), Table(torch.randn(N, C))
    table.forward = lambda x: table.z.view(N, C)
    direction = truth.direction_of(table)
    true = truth.gauss_newton(
        Table(table.z.detach().clone()), lambda m: m(None), truth.cross_entropy(y), direction.deltas
    )

    def train() -> None:
        F.cross_entropy(table(None), y).backward()
        table.z.grad /= 1024

    sample = truth.sample_of(table, direction, train)
    if sample.call.stale:  # noticed, and not used
        return
    found = GaussNewton().measure(direction, sample, 0)
    assert found.source == "outputs"
    check(found, true, 2e-3)


def test_no_gradient() -> None:
    from glyder.probe.update_direction import Unmeasurable

    with pytest.raises(Unmeasurable, match="no gradient reached the outputs"):
        measured(Table(torch.randn(N, C)), lambda z: 0 * z.sum(), deltas=[torch.randn(N, C)])
    with pytest.raises(Unmeasurable, match="not finite"):
        measured(Table(torch.full((N, C), torch.nan)), truth.cross_entropy(labels()), deltas=[torch.randn(N, C)])
