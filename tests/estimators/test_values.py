"""Slope and curvature of every estimator against automatic differentiation."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from glyder.probe.estimators import GaussNewton, GaussNewtonBartlett, Projection, Smoothness

from . import truth

DTYPES = {"f32": torch.float32, "f64": torch.float64}


def close(value: float, true: float, scale: float, bound: float, what: str) -> None:
    error = abs(value - true) / scale
    print(f"{what}: {error:.2g} of {bound:.2g}")
    assert error <= bound, f"{what}: {value} is not {true}: relative error {error:.3g} > {bound:g}"


class Setting:
    """One training pass of a model, with autograd's answers."""

    def __init__(self, name: str, dtype: torch.dtype) -> None:
        self.model, self.x, labels = truth.cases()[name](dtype)
        self.loss = truth.cross_entropy(labels)
        self.loss(self.model(self.x)).backward()  # something of the gradient in the displacement, for a slope to see
        self.direction = truth.direction_of(self.model)
        state = torch.get_rng_state()
        deltas = self.direction.deltas
        forward = truth.replayed(state, lambda m: m(self.x))
        self.gn = truth.gauss_newton(self.model, forward, self.loss, deltas)
        self.h = truth.hessian(self.model, lambda m: self.loss(forward(m)), deltas)
        self.sample = truth.sample_of(
            self.model,
            self.direction,
            lambda: self.loss(self.model(self.x)).backward(),
            loss=lambda model, batch: self.loss(model(*batch.args, **batch.kwargs)),
        )
        gg = float(truth.dot([p.grad for p in self.direction.params], [p.grad for p in self.direction.params]))
        self.largest_slope = math.sqrt(gg * self.direction.dd)


@pytest.fixture(params=[(n, d) for n in truth.cases() for d in DTYPES], ids=lambda p: "-".join(p), scope="module")
def setting(request: pytest.FixtureRequest) -> Setting:
    torch.manual_seed(1)
    return Setting(request.param[0], DTYPES[request.param[1]])


# Curvature, relative to that of Gauss-Newton. A central difference moves by 1e-3 of the parameters: its truncation is
# 1e-6 times what the third derivative makes of it (of a gradient, the fourth: up to 1e2 seen); rounding adds 6e-8/1e-3
# in single precision. The three losses of "loss" move 16 times as far in single precision and are cut off
# as much later, and lose 1e-7/(c^2 q) of themselves to rounding.
CURVATURE = {
    ("gauss-newton", "f32"): 1e-3,
    ("gauss-newton", "f64"): 1e-4,
    ("hvp", "f32"): 1e-4,
    ("hvp", "f64"): 1e-12,
    ("gradient", "f32"): 5e-3,
    ("gradient", "f64"): 1e-3,
    ("loss", "f32"): 1e-1,
    ("loss", "f64"): 1e-3,
}
# Slope, relative to the largest that a gradient of this norm could have: rounding of the backward pass.
SLOPE = {torch.float32: 1e-5, torch.float64: 1e-13}


def dtype_of(setting: Setting) -> str:
    return {v: k for k, v in DTYPES.items()}[next(setting.model.parameters()).dtype]


def test_gauss_newton(setting: Setting) -> None:
    found = GaussNewton().measure(setting.direction, setting.sample, 0)
    slope, curvature = setting.gn
    assert found.source == "gradients"
    close(found.slope, slope, setting.largest_slope, SLOPE[setting.direction.params[0].dtype], "slope")
    close(found.curvature, curvature, curvature, CURVATURE["gauss-newton", dtype_of(setting)], "curvature")


@pytest.mark.parametrize("method", ["hvp", "gradient", "loss"])
def test_projection(setting: Setting, method: str) -> None:
    found = Projection(method).measure(setting.direction, setting.sample, 0)
    slope, curvature = setting.h
    assert found.source == "gradients"
    close(found.slope, slope, setting.largest_slope, SLOPE[setting.direction.params[0].dtype], "slope")
    close(found.curvature, curvature, setting.gn[1], CURVATURE[method, dtype_of(setting)], "curvature")


def test_smoothness_is_the_constant_times_the_squared_length(setting: Setting) -> None:
    found = Smoothness(3.0).measure(setting.direction, setting.sample, 0)
    dd = float(truth.dot(setting.direction.deltas, setting.direction.deltas))
    close(found.slope, setting.gn[0], setting.largest_slope, SLOPE[setting.direction.params[0].dtype], "slope")
    close(found.curvature, 3 * dd, 3 * dd, 1e-14, "curvature")


def test_kinks_cost_a_share_of_the_curvature() -> None:
    """A probe crosses some kinks of a ReLU, as many as the step is long (1e-3): Gauss-Newton sees their mean."""
    model, x, labels = truth.cases()["convnet"](torch.float64)
    model[2], model[5], model[7] = nn.ReLU(), nn.ReLU(), nn.Identity()
    loss, direction = truth.cross_entropy(labels), truth.direction_of(model)
    _, curvature = truth.gauss_newton(model, lambda m: m(x), loss, direction.deltas)
    sample = truth.sample_of(model, direction, lambda: loss(model(x)).backward())
    close(GaussNewton().measure(direction, sample, 0).curvature, curvature, curvature, 5e-2, "curvature")


def test_slope_in_the_outputs_is_the_gradients(setting: Setting) -> None:
    """With most of the gradient taken away by clipping, the slope comes out of the outputs."""
    for p in setting.direction.params:
        p.grad.mul_(0.1)
    try:
        found = GaussNewton().measure(setting.direction, setting.sample, 0)
    finally:
        for p in setting.direction.params:
            p.grad.mul_(10)
    assert found.source == "outputs"
    bound = {"f32": 1e-4, "f64": 1e-5}[dtype_of(setting)]
    close(found.slope, setting.gn[0], setting.largest_slope, bound, "slope")


def test_sampled_labels_are_unbiased(setting: Setting) -> None:
    """The mean of many draws lies within three standard errors of the exact value (fixed seed), which are below 2 %."""
    if setting.x.dim() != 2 or setting.x.dtype != torch.float32:
        pytest.skip("many draws on the smallest net only")
    draws = [GaussNewtonBartlett(draws=1).measure(setting.direction, setting.sample, i) for i in range(5500)]
    q = torch.tensor([d.curvature for d in draws], dtype=torch.float64)
    error = float(q.std()) / math.sqrt(len(draws))
    assert error < 0.02 * setting.gn[1]
    close(float(q.mean()), setting.gn[1], error, 3.0, "standard errors")
    # One draw is chi-squared with one degree of freedom: relative deviation sqrt(2).
    close(float(q.std() / q.mean()), math.sqrt(2), math.sqrt(2), 0.1, "deviation of a draw")
    assert {d.slope for d in draws} == {truth_slope(setting)}


def truth_slope(setting: Setting) -> float:
    return setting.direction.dot([p.grad for p in setting.direction.params])


def test_several_draws_are_the_mean_of_single_ones(setting: Setting) -> None:
    one, four = GaussNewtonBartlett(), GaussNewtonBartlett(draws=4)
    single = [one.measure(setting.direction, setting.sample, i).curvature for i in range(4)]
    mean = sum(single) / 4
    close(four.measure(setting.direction, setting.sample, 0).curvature, mean, mean, 1e-6, "mean")


def test_sampled_labels_need_a_cross_entropy() -> None:
    model, x = truth.mlp(), torch.randn(5, 12)
    direction = truth.direction_of(model)
    sample = truth.sample_of(model, direction, lambda: model(x).square().mean().backward(), loss="squared_error")
    with pytest.raises(ValueError, match="use GaussNewton"):
        GaussNewtonBartlett().measure(direction, sample, 0)


class Coarse(torch.autograd.Function):
    """An operation without a second derivative."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: object, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return g * (1 - x.tanh() ** 2)


class CoarseTanh(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Coarse.apply(x)


def test_without_second_derivative_the_difference_of_gradients_takes_over() -> None:
    model = truth.mlp().double()
    smooth = nn.Sequential(*model)
    model[1] = CoarseTanh()
    x, loss = torch.randn(30, 12, dtype=torch.float64), truth.cross_entropy(torch.randint(7, (30,)))
    direction = truth.direction_of(model)
    _, curvature = truth.hessian(smooth, lambda m: loss(m(x)), direction.deltas)
    sample = truth.sample_of(model, direction, lambda: loss(model(x)).backward(), loss=lambda m, b: loss(m(*b.args)))
    estimator = Projection("hvp")
    with pytest.warns(UserWarning, match="goes on as 'gradient'"):
        found = estimator.measure(direction, sample, 0)
    close(found.curvature, curvature, abs(curvature), 1e-4, "curvature")
    assert estimator.method == "gradient"


@pytest.mark.parametrize("name", ["mlp", "convnet", "transformer"])
@pytest.mark.parametrize("kind", ["bf16", "f16", "autocast"])
def test_half_precision(name: str, kind: str) -> None:
    """Half-precision weights are probed in single precision; autocast with a longer step.

    The gradient that reached the outputs and the probabilities in it were computed in half precision (2**-9 in
    bfloat16); the truth is that of the same weights in double precision. Without dropout, whose masks differ by dtype.
    """
    half = {"bf16": torch.bfloat16, "f16": torch.float16, "autocast": torch.float32}[kind]
    model, x, labels = truth.cases()[name](torch.float32)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    model = model.to(half)
    x = x.to(half) if x.is_floating_point() else x
    loss = truth.cross_entropy(labels)
    direction = truth.direction_of(model)

    def train() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=kind == "autocast"):
            z = model(x)
        loss(z.float()).backward()

    sample = truth.sample_of(model, direction, train)
    found = GaussNewton().measure(direction, sample, 0)
    exact = type(model)(*model).double() if isinstance(model, nn.Sequential) else truth.Transformer().double()
    exact.load_state_dict({k: v.double() for k, v in model.state_dict().items()})
    xs = x.double() if x.is_floating_point() else x
    slope, curvature = truth.gauss_newton(exact, lambda m: m(xs), loss, [d.double() for d in direction.deltas])
    grads = [p.grad for p in direction.params]
    largest = math.sqrt(float(truth.dot(grads, grads)) * direction.dd)
    close(found.curvature, curvature, curvature, {"bf16": 0.03, "f16": 0.005, "autocast": 0.15}[kind], "curvature")
    close(found.slope, slope, largest, {"bf16": 0.03, "f16": 0.005, "autocast": 0.03}[kind], "slope")


def test_half_precision_parameters_stay_in_half_precision() -> None:
    model = truth.convnet().bfloat16()
    x, loss = torch.randn(8, 3, 8, 8).bfloat16(), truth.cross_entropy(torch.randint(7, (8,)))
    direction = truth.direction_of(model)
    sample = truth.sample_of(model, direction, lambda: loss(model(x)).backward())
    GaussNewton().measure(direction, sample, 0)
    assert {t.dtype for t in model.state_dict().values()} == {torch.bfloat16, torch.int64}
    assert model(x).dtype == torch.bfloat16


@pytest.mark.parametrize("method", ["hvp", "gradient", "loss"])
def test_projection_of_half_precision_weights(method: str) -> None:
    """The user's loss sees a model in single precision, also where the inputs are in half precision."""
    model = truth.mlp().bfloat16()
    x, loss = torch.randn(40, 12).bfloat16(), truth.cross_entropy(torch.randint(7, (40,)))
    direction = truth.direction_of(model)
    sample = truth.sample_of(
        model, direction, lambda: loss(model(x).float()).backward(), loss=lambda m, b: loss(m(*b.args).float())
    )
    found = Projection(method).measure(direction, sample, 0)
    exact = truth.mlp().double()
    exact.load_state_dict({k: v.double() for k, v in model.state_dict().items()})
    deltas = [d.double() for d in direction.deltas]
    _, scale = truth.gauss_newton(exact, lambda m: m(x.double()), loss, deltas)
    _, curvature = truth.hessian(exact, lambda m: loss(m(x.double())), deltas)
    close(found.curvature, curvature, scale, CURVATURE[method, "f32"], "curvature")
