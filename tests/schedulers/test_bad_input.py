"""What happens when something is not as it should be: numbers, parameters, the user's own code."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import glyder

from .problems import INPUTS, backward, batch, mlp, same, train, weights
from .runs import Fragile
from .small import BOTH, UPDATES, Counted, small_run, state_of

# ---- numbers that are not finite

OPTIMIZERS = {
    "adamw": torch.optim.AdamW,
    "adamw foreach": lambda p: torch.optim.AdamW(p, foreach=True),
    "adamw fused": lambda p: torch.optim.AdamW(p, fused=True),
    "momentum": lambda p: torch.optim.SGD(p, momentum=0.9, weight_decay=0.1),
    "lbfgs": lambda p: torch.optim.LBFGS(p, max_iter=1),
}


def _spoiled(model: nn.Module, t: int, kind: str) -> torch.Tensor:
    x, y = batch(t)
    if kind == "logits":
        x = x * float("inf")
    loss = F.cross_entropy(model(x), y) * (float("nan") if kind == "loss" else 1.0)
    loss.backward()
    if kind in ("nan", "inf"):
        next(model.parameters()).grad.view(-1)[3] = float(kind)
    return loss


@BOTH
@pytest.mark.parametrize("t", [0, 1, 5, 12], ids=lambda t: f"update {t}")
@pytest.mark.parametrize("kind", ["nan", "inf", "loss", "logits"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_update_that_is_not_finite_moves_nothing(name: str, kind: str, t: int, make: Any) -> None:
    model, optimizer, scheduler = small_run(optimizer=OPTIMIZERS[name], make=make)

    def step(t: int, kind: str) -> None:
        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            return _spoiled(model, t, kind)

        if name == "lbfgs":
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()

    counted = Counted(model)
    for u in range(t):
        counted.around(lambda u=u: step(u, "good"))
    with pytest.warns(glyder.GlyderWarning, match="not a number: the update is skipped") as said:
        for u in range(t, t + 6, 2):
            held = weights(model), state_of(optimizer)
            step(u, kind)
            grads = [p.grad for p in model.parameters()]
            assert not all(torch.isfinite(g).all() for g in grads), "the gradients are as the user left them"
            assert same(weights(model), held[0])
            if name != "lbfgs":  # it counts its own calls in its state
                assert same(state_of(optimizer), held[1])
            counted.around(lambda u=u: step(u + 1, "good"))
    assert len([w for w in said if issubclass(w.category, glyder.GlyderWarning)]) == 1
    assert (scheduler.skipped, scheduler.reasons["not_finite"]) == (3, 3)
    for u in range(t + 6, t + 10):
        counted.around(lambda u=u: step(u, "good"))
    assert not same(weights(model), held[0]), "training goes on"
    assert scheduler.updates == counted.updates
    goes_back = name == "momentum" and make is glyder.GlyderLR
    assert len(counted.went_back) <= goes_back, "GlyderLR with gradient descent, and that once"
    assert t < 12 or len(counted.went_back) == goes_back
    assert all(torch.isfinite(p).all() for p in model.parameters())


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (glyder.LocalOptimumLR, torch.optim.AdamW),
        (glyder.GlyderLR, torch.optim.AdamW),
        (glyder.GlyderLR, torch.optim.SGD),
    ],
)
def test_skipped_updates_leave_the_run_as_it_would_have_been(make: Any, kind: Any) -> None:
    ends = []
    for bad in (False, True):
        model, optimizer, scheduler = small_run(optimizer=kind, make=make)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", glyder.GlyderWarning)
            for t in range(20):
                if bad and t in (0, 3, 4, 11, 18):
                    optimizer.zero_grad()
                    _spoiled(model, 99, "nan")
                    optimizer.step()
                train(model, optimizer, range(t, t + 1))
        ends.append([weights(model), scheduler.get_last_lr(), scheduler.history.tolist()])
    assert same(ends[0], ends[1])


def test_after_the_search_small_tensors_tell_of_large_ones() -> None:
    """What is not a number in a layer is so in all that lie before it, and the small ones cost nothing to look at."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(INPUTS, 100), nn.Tanh(), nn.Linear(100, 100), nn.Tanh(), nn.Linear(100, 4))
    _, optimizer, scheduler = small_run(model, make=glyder.GlyderLR)
    train(model, optimizer, 25)
    assert scheduler.peak_lr > 0
    held = weights(model), state_of(optimizer)
    model[2].register_full_backward_hook(lambda module, inputs, outputs: (inputs[0] * float("nan"),))
    with pytest.warns(glyder.GlyderWarning, match="skipped"):
        train(model, optimizer, range(25, 26))
    assert torch.isfinite(model[4].weight.grad).all()
    assert same((weights(model), state_of(optimizer)), held)


class Walled(nn.Module):
    """Gradients of the same length everywhere, up to a wall beyond which there are no numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.ones(8, dtype=torch.float64))

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        return ((self.x - y).abs() + 0 * (2.0 - self.x.abs()).sqrt()).mean()


def test_a_search_that_leads_to_where_there_are_no_numbers_goes_back() -> None:
    """Else all gradients to come would be skipped, and the run with them."""
    model = Walled()
    optimizer = torch.optim.SGD(model.parameters())
    scheduler = glyder.GlyderLR(optimizer, total_steps=200)
    losses = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", glyder.GlyderWarning)
        for t in range(200):
            optimizer.zero_grad()
            loss = model(torch.randn(8, dtype=torch.float64, generator=torch.Generator().manual_seed(t)))
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert not all(map(math.isfinite, losses)), "it came there"
    assert scheduler.peak_lr > 0
    assert all(map(math.isfinite, losses[-20:]))


def test_gradients_that_were_cleared_do_not_come_back() -> None:
    """Two optimizers, each cleared right after its own step: a skipped update must not bring NaNs back."""
    for make in (glyder.LocalOptimumLR, glyder.GlyderLR):
        model = mlp()
        optimizers = [torch.optim.SGD(model[0].parameters()), torch.optim.SGD(model[2].parameters(), momentum=0.5)]
        scheduler = make(optimizers, model, total_steps=UPDATES)
        counted = Counted(model)

        def update(t: int, model: nn.Module = model, optimizers: Any = optimizers) -> None:
            _spoiled(model, t, "nan" if t == 5 else "good")
            for o in optimizers:
                o.step()
                o.zero_grad()

        with pytest.warns(glyder.GlyderWarning, match="skipped"):
            for t in range(20):
                counted.around(lambda t=t: update(t))
        assert (scheduler.updates, scheduler.skipped) == (counted.updates - 1, 1)
        assert len(counted.went_back) == (make is glyder.GlyderLR)


@pytest.mark.filterwarnings("ignore:no measurement:glyder.GlyderWarning")
def test_observing_does_not_skip() -> None:
    ends = []
    for observed in (False, True):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        if observed:
            glyder.LocalOptimumLR(optimizer, model, observe_only=True, every=1)
        for t in range(8):
            optimizer.zero_grad()
            _spoiled(model, t, "inf" if t == 5 else "good")
            optimizer.step()
        ends.append(weights(model))
    assert same(*ends)


# ---- gradients that are zero or missing


@BOTH
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam], ids=lambda cls: cls.__name__)
def test_zero_gradients_at_the_start_wait(kind: Any, make: Any) -> None:
    model, optimizer, scheduler = small_run(optimizer=kind, make=make)
    held = weights(model)
    for t in range(6):
        optimizer.zero_grad()
        backward(model, t)
        for p in model.parameters():
            p.grad.zero_()
        optimizer.step()
    assert same(weights(model), held)
    first = scheduler.get_last_lr()
    assert 0 < first[0] < 1
    train(model, optimizer, range(6, 25))
    assert scheduler.reasons["kept"] > 0
    assert all(torch.isfinite(p).all() for p in model.parameters())
    if make is glyder.GlyderLR:
        assert scheduler.peak_lr > 0


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW], ids=lambda cls: cls.__name__)
def test_zero_gradients_later_leave_the_peak(kind: Any) -> None:
    model, optimizer, scheduler = small_run(optimizer=kind, make=glyder.GlyderLR)
    train(model, optimizer, 20)
    peak = scheduler.peak_lr
    for _ in range(4):
        optimizer.zero_grad(set_to_none=False)
        optimizer.step()
    assert scheduler.peak_lr == peak > 0
    train(model, optimizer, range(24, 30))
    assert scheduler.peak_lr == peak


def test_zero_gradients_later_leave_the_base_rate() -> None:
    model, optimizer, scheduler = small_run(optimizer=torch.optim.SGD, anneal=None, warmup=10)
    train(model, optimizer, 10)
    base = scheduler.base_lr
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", glyder.GlyderWarning)
        for _ in range(4):
            optimizer.zero_grad(set_to_none=False)
            optimizer.step()
    assert scheduler.base_lr == base


@BOTH
def test_an_update_without_any_gradient_is_none(make: Any) -> None:
    """Also before the first: no rate, nothing to move, no error; and the run goes on as though it had not been."""
    ends = []
    for idle in (False, True):
        model, optimizer, scheduler = small_run(make=make)
        for t in range(15):
            if idle and t in (0, 2, 9, 13):
                optimizer.zero_grad()
                optimizer.step()
            train(model, optimizer, range(t, t + 1))
        assert scheduler.updates == 15
        ends.append([weights(model), scheduler.state_dict()])
    assert same(ends[0], ends[1])


@BOTH
def test_frozen_empty_and_resting_groups(make: Any) -> None:
    model = mlp()
    groups = [
        {"params": [model[0].weight], "lr": 0.0},
        {"params": []},
        {"params": [model[0].bias, model[2].weight]},
        {"params": [model[2].bias]},
    ]
    model[2].bias.requires_grad_(False)
    optimizer = torch.optim.AdamW(groups, lr=0.01, weight_decay=0.0)
    scheduler = make(optimizer, model, total_steps=UPDATES)
    held = model[0].weight.detach().clone(), model[2].bias.detach().clone()
    train(model, optimizer, 20)
    assert scheduler.get_last_lr()[0] == 0.0
    assert len(set(scheduler.get_last_lr()[1:])) == 1
    assert same((model[0].weight.detach(), model[2].bias.detach()), held)
    assert scheduler.reasons["rising" if make is glyder.GlyderLR else "kept"] > 5


@BOTH
def test_zero_grad_that_keeps_zeros_changes_nothing(make: Any) -> None:
    ends = []
    for to_none in (True, False):
        model, optimizer, _ = small_run(make=make)
        for t in range(15):
            optimizer.zero_grad(set_to_none=to_none)
            backward(model, t)
            optimizer.step()
        ends.append(weights(model))
    assert same(*ends)


# ---- groups and parameters that change


@BOTH
def test_a_group_added_later_is_taken_in(make: Any) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.5, momentum=0.9)
    options = {"warmup": 12} if make is glyder.GlyderLR else {"every": 1, "warmup": UPDATES}
    scheduler = make(optimizer, model, total_steps=UPDATES, **options)
    train(model, optimizer, 6)
    optimizer.add_param_group({"params": list(model[2].parameters()), "lr": optimizer.param_groups[0]["lr"] / 10})
    held = weights(model[2])
    train(model, optimizer, range(6, 20))
    first, second = scheduler.get_last_lr()
    assert second == pytest.approx(first / 10, rel=1e-14)
    assert not same(weights(model[2]), held)
    if make is glyder.GlyderLR:
        assert scheduler.peak_lr > 0
    else:
        assert scheduler.reasons["kept"] > 10


def test_parameters_outside_of_the_model_are_refused_by_name() -> None:
    model, head = mlp(), nn.Linear(3, 2)
    optimizer = torch.optim.SGD([{"params": model.parameters()}, {"params": head.parameters()}], lr=0.1)
    with pytest.raises(ValueError, match=r"parameter 0 of group 1 \(shape \(2, 3\)\) is not among model.parameters"):
        glyder.LocalOptimumLR(optimizer, model)
    assert not model._forward_hooks
    assert not optimizer._optimizer_step_pre_hooks
    glyder.LocalOptimumLR(optimizer, nn.ModuleList([model, head]))  # the remedy that the message names


def test_glyder_takes_parameters_of_any_model_or_none() -> None:
    model, extra = mlp(), nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([*model.parameters(), extra], weight_decay=0.0)
    scheduler = glyder.GlyderLR(optimizer, model, total_steps=UPDATES)
    train(model, optimizer, UPDATES, lambda t: setattr(extra, "grad", extra.detach().clone()))
    assert scheduler.updates == UPDATES
    assert extra.detach().abs().max() < 1, "it went down its own slope, too"


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW], ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("gone", [0, 3])
def test_parameters_that_are_taken_away_while_it_searches(kind: Any, gone: int) -> None:
    """To be frozen: the run goes on, and nothing of one is put into another."""
    model, optimizer, scheduler = small_run(optimizer=kind, make=glyder.GlyderLR)
    start = weights(model)[gone]
    train(model, optimizer, 5)
    assert math.isnan(scheduler.peak_lr)
    taken = optimizer.param_groups[0]["params"].pop(gone)
    held = taken.detach().clone()
    train(model, optimizer, range(5, 30))
    assert scheduler.peak_lr > 0
    assert any(torch.equal(taken.detach(), at) for at in (held, start))
    x, y = batch(777)
    assert F.cross_entropy(model(x), y).item() < F.cross_entropy(mlp()(x), y).item()


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW], ids=lambda cls: cls.__name__)
def test_parameters_that_move_up_are_known_by_themselves(kind: Any) -> None:
    """Where one is taken away, those behind it come to lie elsewhere: a run like that in which it lay behind them."""
    ends = []
    for first in (True, False):
        model = mlp(dtype=torch.float64)
        taken, *others = model.parameters()
        optimizer = kind([taken, *others] if first else [*others, taken])
        scheduler = glyder.GlyderLR(optimizer, total_steps=UPDATES)
        train(model, optimizer, 5)
        assert optimizer.param_groups[0]["params"].pop(0 if first else -1) is taken
        train(model, optimizer, range(5, 30))
        ends.append((scheduler.history, scheduler.peak_lr, weights(model)))
    (history, peak, end), (other, other_peak, other_end) = ends
    assert peak == pytest.approx(other_peak, rel=1e-9)
    for column in ("update", "lr", "relative"):
        # sums in another order
        assert history[column] == pytest.approx(other[column], rel=1e-9)
    for p, q in zip(end, other_end, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-9)


def test_a_step_is_not_taken_back_in_what_was_taken_away() -> None:
    model, optimizer, scheduler = small_run(make=glyder.GlyderLR)
    train(model, optimizer, 5)
    begun = weights(model)
    train(model, optimizer, range(5, 6))
    ended = weights(model)
    optimizer.param_groups[0]["params"].pop(0)
    with pytest.warns(glyder.GlyderWarning, match="infinite or not a number"):
        train(model, optimizer, range(6, 8), lambda _: model[2].bias.grad.fill_(math.nan))
    now = weights(model)
    assert torch.equal(now[0], ended[0])
    for p, before, after in zip(now[1:], begun[1:], ended[1:], strict=True):
        # back from a small step, but for rounding and its decay
        assert (p - before).abs().max() < 0.1 * (after - before).abs().max()
    assert scheduler.skipped == 2


def test_strangers_added_later_are_refused_too() -> None:
    model, optimizer, _ = small_run(optimizer=torch.optim.SGD)
    extra = nn.Parameter(torch.ones(2))
    train(model, optimizer, 2)
    optimizer.add_param_group({"params": [extra]})
    extra.grad = torch.ones(2)
    with pytest.raises(ValueError, match="parameter 0 of group 1"):
        train(model, optimizer, 1, before=lambda t: setattr(extra, "grad", torch.ones(2)))


def test_replaced_parameters_do_not_pass_unseen() -> None:
    model, optimizer, _ = small_run(optimizer=torch.optim.SGD)
    train(model, optimizer, 2)
    model[2].weight = nn.Parameter(model[2].weight.detach().clone())  # the optimizer goes on with the old one
    optimizer.param_groups[0]["params"][2].grad = torch.ones(4, 8)
    with pytest.raises(ValueError, match="parameter 2 of group 0"):
        train(
            model,
            optimizer,
            range(2, 3),
            lambda t: setattr(optimizer.param_groups[0]["params"][2], "grad", torch.ones(4, 8)),
        )


def test_a_displacement_whose_parameters_are_gone_is_dropped() -> None:
    model, optimizer, scheduler = small_run(optimizer=torch.optim.SGD, every=1, refresh="always")
    train(model, optimizer, 6)
    del optimizer.param_groups[0]["params"][3]
    with pytest.warns(glyder.GlyderWarning, match="parameters changed"):
        train(model, optimizer, range(6, 12))
    assert scheduler.reasons["params_changed"] == 1
    assert scheduler.history["reason"][-1] == "kept"


def test_no_displacement_waits_for_parameters_to_go_by_default() -> None:
    model, optimizer, scheduler = small_run(optimizer=torch.optim.SGD, every=1, warmup=UPDATES)
    train(model, optimizer, 6)
    del optimizer.param_groups[0]["params"][3]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(model, optimizer, range(6, 12))
    assert scheduler.history["update"].tolist() == list(range(12))
    assert set(scheduler.history["reason"][6:]) == {"kept"}


# ---- the user's own code raises in a measurement


def test_a_forward_that_raises_is_counted_and_said_once() -> None:
    model, optimizer, scheduler = small_run(Fragile(), every=1, warmup=UPDATES)
    train(model, optimizer, 5)
    base = scheduler.base_lr
    model.broken = True
    with pytest.warns(glyder.GlyderWarning, match="ArithmeticError: broken on purpose") as said:
        train(model, optimizer, range(5, 9))
    assert len(said) == 1
    assert scheduler.reasons["raised"] == 4
    assert scheduler.base_lr == base
    model.broken = False
    train(model, optimizer, range(9, 12))
    assert scheduler.history["reason"][-1] == "kept"


def _broken_loss(model: nn.Module, batch: Any) -> torch.Tensor:
    raise OSError("cannot read")


def _broken_batches() -> Any:
    raise OSError("cannot read")


def _far_targets() -> Any:
    return torch.zeros(4, INPUTS), torch.tensor([0, 1, 2, 77])


@pytest.mark.parametrize(
    ("options", "cause", "says"),
    [
        ({"estimator": "hvp", "loss": _broken_loss}, OSError, "cannot read"),
        ({"batches": _broken_batches, "loss": nn.CrossEntropyLoss()}, OSError, "cannot read"),
        ({"batches": _far_targets, "loss": nn.CrossEntropyLoss()}, IndexError, "77"),
    ],
    ids=["loss", "batches", "targets out of range"],
)
def test_nothing_ever_measured_is_raised(options: dict[str, Any], cause: type, says: str) -> None:
    model, optimizer, scheduler = small_run(**options)
    with (
        pytest.warns(glyder.GlyderWarning, match=says),
        pytest.raises(RuntimeError, match="could not measure anything in 3 attempts") as raised,
    ):
        train(model, optimizer, 10)
    assert scheduler.updates == 3, "an update counts that was made, also where looking at it afterwards raised"
    assert isinstance(raised.value.__cause__, cause)
    assert says in str(raised.value)
    assert scheduler.reasons == {"raised": 3}


def test_observing_raises_nothing_after_construction() -> None:
    ends = []
    for observed in (False, True):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        if observed:
            scheduler = glyder.LocalOptimumLR(optimizer, model, estimator="hvp", loss=_broken_loss, observe_only=True)
            with pytest.warns(glyder.GlyderWarning, match="cannot read"):
                train(model, optimizer, 10)
            assert scheduler.reasons == {"raised": 3}, "and it gives up"
        else:
            train(model, optimizer, 10)
        ends.append(weights(model))
    assert same(*ends)


def test_observing_goes_on_with_parameters_outside_of_the_model() -> None:
    model, extra = mlp(), nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = glyder.LocalOptimumLR(optimizer, model, observe_only=True)
    optimizer.add_param_group({"params": [extra], "lr": 1e-3})
    with pytest.warns(glyder.GlyderWarning, match="nothing could be observed: .*parameter 0 of group 1") as said:
        train(model, optimizer, 4, lambda t: setattr(extra, "grad", torch.ones(2)))
    assert len(said) == 1
    assert scheduler.updates == 4
    assert torch.allclose(extra, torch.tensor(1 - 4 * 1e-3)), "four steps of 1e-3, rounded in float32"


def test_a_loss_that_the_estimator_cannot_read_is_raised_with_the_remedy() -> None:
    model, optimizer, _ = small_run()
    with pytest.raises(glyder.EstimatorError, match="squared_error"):
        for t in range(8):
            optimizer.zero_grad()
            model(batch(t)[0]).pow(4).mean().backward()
            optimizer.step()


def test_a_step_without_a_forward_pass() -> None:
    """Gradients that were written by hand belong to no forward pass of the model."""
    model, optimizer, scheduler = small_run(every=1)
    train(model, optimizer, 5)
    base = scheduler.base_lr
    with pytest.warns(glyder.GlyderWarning, match="no forward pass of `model`"):
        optimizer.step()
    assert scheduler.reasons["no_forward"] == 1
    assert scheduler.base_lr == base


# ---- rates that cannot be


@BOTH
def test_lr_zero_everywhere(make: Any) -> None:
    model = mlp()
    with pytest.raises(ValueError, match="every group of the optimizer has lr=0.*leave lr at its default"):
        make(torch.optim.SGD(model.parameters(), lr=0.0), model)


@BOTH
def test_a_ratio_that_is_no_number(make: Any) -> None:
    model = mlp()
    groups = [{"params": model[0].parameters(), "lr": 1e-308}, {"params": model[2].parameters(), "lr": 10.0}]
    with pytest.raises(ValueError, match="lr of group 1 of optimizer 0 is 10.0.*ratio"):
        make(torch.optim.SGD(groups), model)


@BOTH
def test_a_rate_that_would_overflow_is_not_written(make: Any) -> None:
    """1e-45 and 1: the second group's rate is 1e45 times the first's, more than a float32 tensor holds."""
    model = mlp()
    groups = [
        {"params": model[0].parameters(), "lr": 1e-45},
        {"params": model[2].parameters(), "lr": torch.tensor(1.0)},
    ]
    optimizer = torch.optim.SGD(groups)
    scheduler = make(optimizer, model, total_steps=UPDATES)
    with pytest.warns(glyder.GlyderWarning, match="would overflow"):
        train(model, optimizer, 3)
    first, second = (float(rate) for rate in scheduler.get_last_lr())
    assert second < 3e38
    assert second == pytest.approx(first * 1e45, rel=1e-6), "as float32 holds it"
    assert all(torch.isfinite(p).all() for p in model.parameters())


@BOTH
def test_total_steps_too_small_is_said_once_and_extend_helps(make: Any) -> None:
    model, optimizer, scheduler = small_run(total_steps=22, make=make)
    train(model, optimizer, 22)
    with pytest.warns(glyder.GlyderWarning, match=r"total_steps=22 updates are done.*extend\(total_steps\)") as said:
        train(model, optimizer, range(22, 26))
    assert len(said) == 1
    assert scheduler.get_last_lr() == [0.0]
    scheduler.extend(50)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(model, optimizer, range(26, 50))
    assert scheduler.get_last_lr()[0] > 0
    with pytest.raises(ValueError, match=rf"^{make.__name__}.extend\(total_steps=...\) must be >= 1"):
        scheduler.extend(0)


@pytest.mark.parametrize(
    ("make", "options", "said"),
    [
        (glyder.LocalOptimumLR, {"total_steps": 19}, 1),
        (glyder.LocalOptimumLR, {"total_steps": 20}, 0),
        (glyder.LocalOptimumLR, {"total_steps": 5, "observe_only": True}, 0),
        (glyder.GlyderLR, {"total_steps": 19}, 1),
        (glyder.GlyderLR, {"total_steps": 20}, 0),
        (glyder.GlyderLR, {"total_steps": 5, "peak_lr": 0.1}, 0),
    ],
)
def test_a_run_too_short_to_be_measured_is_said(make: Any, options: dict[str, Any], said: int) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        small_run(make=make, **options)
    assert [w.category for w in caught] == [glyder.GlyderWarning] * said
    short = f"{make.__name__}(total_steps={options['total_steps']}) leaves few updates"
    assert all(short in str(w.message) for w in caught)
    assert all(w.filename == small_run.__code__.co_filename for w in caught), "it points to the call"


@BOTH
def test_where_a_warning_is_an_error_the_constructor_leaves_no_trace(make: Any) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(glyder.GlyderWarning, match="total_steps=10"):
            make(optimizer, model, total_steps=10, **({"scope": "tensor"} if make is glyder.LocalOptimumLR else {}))
        assert len(optimizer.param_groups) == 1
        assert not optimizer._optimizer_step_pre_hooks
        make(optimizer, model, total_steps=100)


@BOTH
@pytest.mark.parametrize("anneal", ["constant", "rsqrt"])
def test_schedules_without_an_end_have_none(anneal: str, make: Any) -> None:
    model, optimizer, scheduler = small_run(total_steps=20, anneal=anneal, make=make)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(model, optimizer, 30)
    assert scheduler.get_last_lr()[0] > 0


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW], ids=lambda cls: cls.__name__)
def test_parameters_without_elements(kind: Any) -> None:
    """Alone they are nothing to train; beside others they do no harm."""
    empty = torch.empty(0, 3, requires_grad=True)
    optimizer = kind([empty])
    glyder.GlyderLR(optimizer, total_steps=UPDATES)
    empty.sum().backward()
    with pytest.raises(ValueError, match=r"^GlyderLR\(optimizer=...\): all parameters.* are empty.*give the optimizer"):
        optimizer.step()
    model = mlp()
    optimizer = kind([*model.parameters(), empty])
    scheduler = glyder.GlyderLR(optimizer, total_steps=UPDATES)
    train(model, optimizer, UPDATES, lambda _: empty.sum().backward())
    assert scheduler.peak_lr > 0
