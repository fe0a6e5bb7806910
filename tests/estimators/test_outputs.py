"""Model outputs as people have them, and what the stream makes of what a loop does between two updates."""

from __future__ import annotations

import copy
import dataclasses
import gc
import io
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glyder.probe.capture import OutputError, TrainingStream, outputs_of
from glyder.probe.estimators import GaussNewton, GaussNewtonBartlett, Projection
from glyder.probe.update_direction import Unmeasurable

from . import truth


@dataclasses.dataclass
class Answer:
    loss: Tensor | None
    logits: Tensor


Named = namedtuple("Named", "logits state")


class Wrapped(nn.Module):
    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.body, self.wrap = truth.mlp(), wrap

    def forward(self, *, x: Tensor) -> Any:
        return self.wrap(self.body(x))


WRAPS: dict[str, tuple[Callable[[Tensor], Any], Callable[[Any], Tensor] | None]] = {
    "tensor": (lambda z: z, None),
    "attribute": (lambda z: Answer(z.mean(), z), None),
    "dict": (lambda z: {"loss": z.mean(), "logits": z}, None),
    "ordered dict": (lambda z: OrderedDict(a=z.argmax(1), b=z), None),
    "tuple": (lambda z: (z.argmax(1), None, z), None),
    "list": (lambda z: [z, "text"], None),
    "named tuple": (lambda z: Named(z, z.mean()), None),
    "callable": (lambda z: (z.mean(), {"deep": [z]}), lambda out: out[1]["deep"][0]),
}


@pytest.mark.parametrize("name", WRAPS)
def test_outputs(name: str) -> None:
    """The same numbers, however the outputs are wrapped. The forward takes keyword arguments only."""
    wrap, logits = WRAPS[name]
    pick = logits or outputs_of
    model, x = Wrapped(wrap), torch.randn(20, 12)
    loss = truth.cross_entropy(torch.randint(7, (20,)))
    loss(pick(model(x=x))).backward()
    direction = truth.direction_of(model, logits=logits)
    true = truth.gauss_newton(model, lambda m: m.body(x), loss, direction.deltas)
    sample = truth.sample_of(model, direction, lambda: loss(pick(model(x=x))).backward(), logits=logits)
    found = GaussNewton().measure(direction, sample, 0)
    assert found.source == "gradients"
    assert found.slope == pytest.approx(true[0], rel=1e-5)
    assert found.curvature == pytest.approx(true[1], rel=1e-3)
    assert GaussNewtonBartlett().measure(direction, sample, 0).slope == found.slope


WRONG = {
    "two tensors": lambda z: (z, z * 2),
    "no tensor": lambda z: "text",
    "dict of two": lambda z: {"a": z, "b": z + 1},
    "integers": lambda z: (z.argmax(1),),
    "None": lambda z: None,
}


@pytest.mark.parametrize("name", WRONG)
def test_unclear_outputs(name: str) -> None:
    with pytest.raises(OutputError, match=r"pass logits=lambda output"):
        outputs_of(WRONG[name](torch.randn(2, 3)))


def test_logits_must_be_a_tensor() -> None:
    with pytest.raises(OutputError, match="must return a tensor, got dict"):
        outputs_of({}, lambda out: out)


def test_unclear_outputs_matter_only_where_outputs_are_needed() -> None:
    """A model with two outputs trains and is measured by its loss; only what needs the logits refuses."""
    model, x, y = Wrapped(lambda z: (z, z * 2)), torch.randn(20, 12), torch.randint(7, (20,))

    def loss(m: nn.Module) -> Tensor:
        a, b = m(x=x)
        return F.cross_entropy(a, y) + b.square().mean()

    direction = truth.direction_of(model)
    true = truth.hessian(model, loss, direction.deltas)
    sample = truth.sample_of(model, direction, lambda: loss(model).backward(), loss=lambda m, batch: loss(m))
    assert Projection("hvp").measure(direction, sample, 0).curvature == pytest.approx(true[1], rel=1e-4)
    with pytest.raises(OutputError, match="pass logits="):
        GaussNewton().measure(direction, sample, 0)


# ---- what a loop does between two updates


class Loop:
    """A double-precision model in a training loop, with autograd's Gauss-Newton numbers for one batch."""

    def __init__(self) -> None:
        self.model = truth.mlp().double()
        self.x, self.y = torch.randn(3, 20, 12).double(), torch.randint(7, (3, 20))
        self.loss(0).backward()
        self.direction = truth.direction_of(self.model)

    def loss(self, i: int) -> Tensor:
        return F.cross_entropy(self.model(self.x[i]), self.y[i])

    def true(self, i: int, factor: float = 1.0) -> tuple[float, float]:
        s, q = truth.gauss_newton(
            self.model, lambda m: m(self.x[i]), truth.cross_entropy(self.y[i]), self.direction.deltas
        )
        return factor * s, factor * q

    def check(self, train: Callable[[], Any], true: tuple[float, float], source: str) -> None:
        sample = truth.sample_of(self.model, self.direction, train)
        found = GaussNewton().measure(self.direction, sample, 0)
        assert found.source == source
        assert found.slope == pytest.approx(true[0], rel=1e-4)
        assert found.curvature == pytest.approx(true[1], rel=1e-4)


@pytest.fixture
def loop() -> Loop:
    return Loop()


def test_accumulation_measures_the_last_pass(loop: Loop) -> None:
    """Slope and curvature of the last micro-batch, at its share of the loss."""

    def train() -> None:
        for i in range(3):
            (loop.loss(i) / 3).backward()

    loop.check(train, loop.true(2, 1 / 3), "outputs")


def test_two_passes_never_count_as_one(loop: Loop) -> None:
    """Not even where the slopes agree: the curvature of the other pass would be missing."""

    def train() -> None:
        (loop.loss(1) * 1e-6).backward()
        loop.loss(0).backward()

    loop.check(train, loop.true(0), "outputs")


def test_two_views_measure_one_of_them(loop: Loop) -> None:
    """One backward through two passes: whichever was seen last, slope and curvature are both of it."""
    sample = truth.sample_of(loop.model, loop.direction, lambda: (loop.loss(0) + loop.loss(1)).backward())
    found = GaussNewton().measure(loop.direction, sample, 0)
    assert (sample.passes, found.source) == (2, "outputs")
    assert any(
        found.slope == pytest.approx(loop.true(i)[0], rel=1e-4)
        and found.curvature == pytest.approx(loop.true(i)[1], rel=1e-4)
        for i in (0, 1)
    )


def test_clipped_and_scaled_gradients_leave_the_ratio(loop: Loop) -> None:
    def train(factor: float = 1.0, clip: float | None = None) -> None:
        (loop.loss(0) * factor).backward()
        for p in loop.model.parameters():
            p.grad /= factor
        if clip is not None:
            norm = nn.utils.clip_grad_norm_(loop.model.parameters(), 1e9)
            nn.utils.clip_grad_norm_(loop.model.parameters(), clip * float(norm))

    loop.check(train, loop.true(0), "gradients")
    loop.check(lambda: train(clip=0.1), loop.true(0), "outputs")
    loop.check(lambda: train(factor=65536), loop.true(0, 65536), "outputs")
    loop.check(lambda: train(factor=65536, clip=0.1), loop.true(0, 65536), "outputs")


def test_evaluation_between_updates_is_not_seen(loop: Loop) -> None:
    def train() -> None:
        loop.loss(0).backward()
        with torch.no_grad():
            loop.model(loop.x[1])
        with torch.inference_mode():
            loop.model(loop.x[1])
        loop.loss(2)  # looked at, never differentiated
        loop.model.eval()

    loop.check(train, loop.true(0), "gradients")


def test_second_backward_through_one_pass(loop: Loop) -> None:
    def train() -> None:
        loss = loop.loss(0)
        loss.backward(retain_graph=True)
        loss.backward()

    loop.check(train, loop.true(0, 2), "gradients")


def test_a_pass_of_an_earlier_update_is_not_of_this_one(loop: Loop) -> None:
    stream = TrainingStream(loop.model, None, None)
    stream.arm()
    late = loop.loss(0)
    stream.arm()
    late.backward()
    assert stream.passes == 0 and stream.last is None
    stream.close()


def test_overwritten_inputs_and_outputs_are_noticed(loop: Loop) -> None:
    def overwrites_inputs() -> None:
        x = loop.x[0].clone()
        F.cross_entropy(loop.model(x), loop.y[0]).backward()
        x.copy_(loop.x[1])

    def overwrites_outputs() -> None:
        z = loop.model(loop.x[0])
        z.mul_(2)
        F.cross_entropy(z, loop.y[0]).backward()

    for train in (overwrites_inputs, overwrites_outputs):
        sample = truth.sample_of(loop.model, loop.direction, train)
        with pytest.raises(Unmeasurable, match="overwritten"):
            GaussNewton().measure(loop.direction, sample, 0)


def test_no_pass_seen(loop: Loop) -> None:
    sample = truth.sample_of(loop.model, loop.direction, lambda: None)
    with pytest.raises(Unmeasurable, match="pass the module that the training loop calls"):
        GaussNewton().measure(loop.direction, sample, 0)


def test_unreached_parameters(loop: Loop) -> None:
    other = truth.mlp().double()
    direction = truth.direction_of(other)
    direction.model = loop.model
    sample = truth.sample_of(loop.model, direction, lambda: loop.loss(0).backward())
    with pytest.raises(Unmeasurable, match="does not reach the outputs"):
        GaussNewton().measure(direction, sample, 0)


def test_still_parameters(loop: Loop) -> None:
    direction = truth.direction_of(loop.model, [torch.zeros_like(p) for p in loop.model.parameters()])
    sample = truth.sample_of(loop.model, direction, lambda: loop.loss(0).backward())
    with pytest.raises(Unmeasurable, match="left the parameters as they were"):
        GaussNewton().measure(direction, sample, 0)


def test_copies_of_the_model_are_inert(loop: Loop) -> None:
    stream = TrainingStream(loop.model, None, None)
    stream.arm()
    file = io.BytesIO()
    torch.save(loop.model, file)
    file.seek(0)
    for twin in (copy.deepcopy(loop.model), torch.load(file, weights_only=False)):
        F.cross_entropy(twin(loop.x[0]), loop.y[0]).backward()
        assert stream.passes == 0 and stream.last is None
    loop.loss(0).backward()
    assert stream.passes == 1
    stream.close()
    assert not loop.model._forward_hooks and not loop.model._forward_pre_hooks


def test_the_model_does_not_keep_the_stream_alive(loop: Loop) -> None:
    stream = TrainingStream(loop.model, None, None)
    stream.arm()
    hooks = len(loop.model._forward_hooks)
    del stream
    gc.collect()
    loop.loss(0).backward()
    assert hooks == 1


def test_the_stream_holds_nothing_when_disarmed(loop: Loop) -> None:
    stream = TrainingStream(loop.model, None, None)
    stream.arm()
    loop.loss(0).backward()
    stream.disarm()
    loop.loss(1).backward()
    assert stream.last is None and stream.target is None and stream.passes == 0
    stream.close()


def test_the_measurement_itself_is_not_remembered(loop: Loop) -> None:
    """Its own passes with gradients run through the same hooks."""
    sample = truth.sample_of(
        loop.model, loop.direction, lambda: loop.loss(0).backward(), loss=lambda m, b: loop.loss(0)
    )
    call = sample.call
    for estimator in (GaussNewtonBartlett(draws=2), Projection("gradient"), Projection("hvp")):
        estimator.measure(loop.direction, sample, 0)
    assert sample.call is call and sample.passes == 1
