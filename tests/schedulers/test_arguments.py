"""Wrong arguments: named with their value and the remedy, and nothing of the user's is touched."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import pytest
import torch
from torch import nn

import glyder

from .problems import mlp, same, train, weights
from .small import BOTH

Wrong = list[tuple[dict[str, Any], Any, str]]
"""Options, error and message; ``~`` stands for the name of the class."""

OF_BOTH: Wrong = [
    ({"model": 3}, TypeError, r"~\(model=...\) must be a torch.nn.Module.*, got int"),
    ({"optimizer": 3}, TypeError, r"~\(optimizer=...\) must be a torch Optimizer, got int"),
    ({"optimizer": []}, ValueError, r"~\(optimizer=...\) needs at least one optimizer"),
    ({"total_steps": 0}, ValueError, r"~\(total_steps=...\) must be >= 1, got 0"),
    ({"total_steps": 1.5}, TypeError, r"~\(total_steps=...\) must be a whole number, got 1.5"),
    ({"total_steps": True}, TypeError, r"~\(total_steps=...\) must be a whole number, got True"),
    ({"total_steps": None, "anneal": "cosine"}, ValueError, r"~\(anneal='cosine'\).*give total_steps"),
    ({"anneal": "cosinus"}, ValueError, r"~\(anneal=...\) must be None, one of .*'cosine'.*got 'cosinus'"),
    ({"anneal": ["cosine"]}, ValueError, r"~\(anneal=...\) must be"),
    ({"anneal": ("polynomial", {"power": -1})}, ValueError, r"~\(anneal=.*power.*-1"),
    ({"anneal": ("polynomial", 2)}, ValueError, r"~\(anneal=...\) must be"),
    ({"warmup": -1}, ValueError, r"~\(warmup=...\) must be >= 0, got -1"),
    ({"warmup": "10"}, TypeError, r"~\(warmup=...\) must be a whole number, got '10'"),
    ({"warmup": 200}, ValueError, r"~\(warmup=...\) must be <= total_steps=100, got 200"),
    ({"scale": 0}, ValueError, r"~\(scale=...\) must be > 0 and finite, got 0"),
    ({"scale": float("nan")}, ValueError, r"~\(scale=...\).*got nan"),
    ({"scale": "2"}, TypeError, r"~\(scale=...\) must be a number, got '2'"),
    ({"min_lr": -1e-3}, ValueError, r"~\(min_lr=...\) must be >= 0 and finite, got -0.001"),
    ({"min_lr": None}, TypeError, r"~\(min_lr=...\) must be a number, got None"),
    ({"max_lr": 0.0}, ValueError, r"~\(max_lr=...\) must be > 0, got 0.0"),
    ({"max_lr": "gven"}, TypeError, r"~\(max_lr=...\) must be a number.*'gven'"),
    ({"min_lr": 1.0, "max_lr": 0.5}, ValueError, r"~\(min_lr=...\) must be <= max_lr=0.5, got 1"),
]

OF_GLYDER: Wrong = [
    ({"peak_lr": 0}, ValueError, r"~\(peak_lr=...\) must be > 0 and finite, got 0"),
    ({"peak_lr": float("inf")}, ValueError, r"~\(peak_lr=...\) must be > 0 and finite, got inf"),
    ({"peak_lr": "auto"}, TypeError, r"~\(peak_lr=...\) must be a number, got 'auto'"),
    ({"max_lr": "given"}, TypeError, r"~\(max_lr=...\) must be a number.*'given'"),
    (
        {"warmup": 51},
        ValueError,
        r"~\(warmup=...\) must be at most half of total_steps=100.*got 51: leave it out.*peak_lr",
    ),
    ({"warmup": 101, "peak_lr": 0.1}, ValueError, r"~\(warmup=...\) must be <= total_steps=100, got 101"),
    ({"learning_rate": 0.1}, TypeError, r"~\(\) got an unexpected keyword argument 'learning_rate'"),
]

OF_LOCAL_OPTIMUM: Wrong = [
    ({"every": 0}, ValueError, r"~\(every=...\) must be >= 1, got 0"),
    ({"every": None}, TypeError, r"~\(every=...\) must be a whole number, got None"),
    ({"refresh": "sometimes"}, ValueError, r"~\(refresh=...\) must be one of 'window', 'always', got"),
    ({"refresh": 1}, ValueError, r"~\(refresh=...\)"),
    ({"n_batches": 4}, ValueError, r"n_batches=4 needs batches="),
    ({"max_growth": 1.0}, ValueError, r"~\(max_growth=...\) must be > 1, got 1.0"),
    ({"scope": "layer"}, ValueError, r"~\(scope=...\) must be one of 'global', 'group', 'tensor', got 'layer'"),
    ({"scope": "tensor", "refresh": "always"}, ValueError, r"~\(scope='tensor'\) goes with refresh='window'"),
    ({"replicas": 4}, ValueError, r"~\(replicas=...\) must be one of False, True, got 4"),
    ({"act": "now"}, ValueError, r"~\(act=...\) must be one of 'next', 'same-step', got 'now'"),
    ({"act": "same-step"}, ValueError, r"~\(act='same-step'\) goes with refresh='always'"),
    ({"scope": "group", "max_lr": "given"}, ValueError, r"~\(max_lr='given'\) goes with scope='global'"),
    ({"observe_only": "yes"}, ValueError, r"~\(observe_only=...\) must be one of False, True, got 'yes'"),
    ({"estimator": "newton"}, ValueError, r"~\(estimator=...\) must be an Estimator or one of .*got 'newton'"),
    ({"estimator": "hvp"}, ValueError, r"needs loss=callable"),
    ({"estimator": 3}, (TypeError, ValueError), r"~\(estimator=...\)"),
    ({"loss": "hinge"}, ValueError, r"loss='hinge'"),
    ({"loss": 3}, TypeError, r"~\(loss=...\) must be 'squared_error', a criterion.*got 3"),
    ({"logits": "logits"}, TypeError, r"~\(logits=...\) must be a callable.*got 'logits'"),
    ({"batches": [1]}, ValueError, r"batches=... needs loss="),
    ({"batches": iter([1]), "loss": nn.MSELoss()}, TypeError, r"batches=.*one-shot"),
    ({"batches": 3, "loss": nn.MSELoss()}, TypeError, r"batches=... must be"),
    ({"batches": [], "loss": nn.MSELoss()}, ValueError, r"batches=\[\] holds no data"),
    ({"n_batches": 0}, ValueError, r"~\(n_batches=...\) must be >= 1, got 0"),
    ({"seed": -1}, ValueError, r"~\(seed=...\) must be >= 0, got -1"),
    ({"seed": "a"}, TypeError, r"~\(seed=...\) must be a whole number, got 'a'"),
]

GIVEN_BEFORE: dict[str, Any] = {
    "refresh": "always",
    "act": "next",
    "every": 5,
    "batches": None,
    "n_batches": 1,
    "seed": 0,
    "estimator": "auto",
    "logits": None,
    "observe_only": True,
    "replicas": True,
    "scope": "group",
}
"""Good values of what GlyderLR took in the first release, and LocalOptimumLR takes now."""

WRONG: dict[type, Wrong] = {
    glyder.GlyderLR: OF_BOTH
    + OF_GLYDER
    + [
        ({name: value}, TypeError, rf"~\({name}=...\) is no option any more.*LocalOptimumLR")
        for name, value in GIVEN_BEFORE.items()
    ]
    + [({"max_growth": 3.0}, TypeError, r"~\(max_growth=...\) is no option any more")],
    glyder.LocalOptimumLR: OF_BOTH + OF_LOCAL_OPTIMUM,
}

ALL = [
    pytest.param(make, options, error, says.replace("~", make.__name__), id=f"{make.__name__}-{','.join(options)}")
    for make, rows in WRONG.items()
    for options, error, says in rows
]


@pytest.mark.parametrize(("make", "options", "error", "says"), ALL)
def test_wrong_arguments_are_named_and_leave_no_trace(
    make: Any, options: dict[str, Any], error: Any, says: str
) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=torch.tensor(0.1))
    given = {"optimizer": optimizer, "model": model, "total_steps": 100} | options
    before = copy.deepcopy(optimizer.state_dict())
    attributes = set(vars(optimizer)), set(vars(model))
    loss = options.get("loss")
    with pytest.raises(error, match=says):
        make(given.pop("optimizer"), given.pop("model"), **given)
    assert same(optimizer.state_dict(), before)
    assert (set(vars(optimizer)), set(vars(model))) == attributes
    for module in (model, *model.modules(), *([loss] if isinstance(loss, nn.Module) else [])):
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


def _parameters(make: type) -> set[str]:
    return set(inspect.signature(make.__init__).parameters) - {"self"}


@BOTH
def test_every_argument_has_a_wrong_value_above(make: Any) -> None:
    named = {name for options, _, _ in WRONG[make] for name in options}
    anything = {"moved", "loss"} if make is glyder.GlyderLR else set()
    assert _parameters(make) - anything <= named
    assert _parameters(glyder.LocalOptimumLR) - anything <= named, "GlyderLR says what has the options it had before"


@BOTH
@pytest.mark.parametrize("key", ["maximize", "lr"])
def test_optimizers_that_cannot_be_taken(key: str, make: Any) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), maximize=key == "maximize")
    if key == "lr":
        del optimizer.param_groups[0]["lr"]
    with pytest.raises(ValueError, match=f"group 0 of SGD has .*{key}"):
        make(optimizer, model)


def test_neither_model_nor_loss_is_needed() -> None:
    """What is given of them is not looked at."""
    ends = []
    for given in ({}, {"model": nn.Linear(2, 2), "loss": nn.MSELoss()}):
        model = mlp()
        optimizer = torch.optim.AdamW(model.parameters())
        scheduler = glyder.GlyderLR(optimizer, total_steps=30, **given)
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in (model, *given.values()))
        train(model, optimizer, 30)
        ends.append([weights(model), scheduler.state_dict()])
    assert same(*ends)


def test_warmups_that_leave_a_run_its_half() -> None:
    """Up to half of it where a peak is searched, and all of it where one is given."""
    for options in ({"warmup": 30}, {"warmup": 60, "peak_lr": 0.1}, {"warmup": 500, "total_steps": None}):
        scheduler = glyder.GlyderLR(torch.optim.AdamW(mlp().parameters()), **{"total_steps": 60} | options)
        assert scheduler.warmup == options["warmup"]


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "x", None])
def test_a_scale_that_is_set_is_checked_as_one_that_is_given(value: Any) -> None:
    optimizer = torch.optim.AdamW(mlp().parameters())
    scheduler = glyder.GlyderLR(optimizer, total_steps=30, scale=2)
    said = []
    for act in (lambda: glyder.GlyderLR(optimizer, scale=value), lambda: setattr(scheduler, "scale", value)):
        with pytest.raises((TypeError, ValueError), match=r"^GlyderLR\(scale=...\) must be") as error:
            act()
        said.append((error.type, str(error.value)))
    assert said[0] == said[1]
    assert scheduler.scale == 2


@BOTH
def test_a_parameter_of_two_optimizers(make: Any) -> None:
    model = mlp()
    first = torch.optim.AdamW(model.parameters())
    second = torch.optim.SGD([{"params": [torch.ones(2, requires_grad=True)]}, {"params": [model[2].weight]}])
    says = (
        rf"{make.__name__}\(optimizer=...\): parameter 0 of group 1 of optimizer 1, of shape \(4, 8\), is "
        "parameter 2 of group 0 of optimizer 0 as well.*leave it to one"
    )
    with pytest.raises(ValueError, match=says):
        make([first, second], model, total_steps=30)
    assert not first._optimizer_step_pre_hooks
    with pytest.raises(ValueError, match="parameter 0 of group 0 of optimizer 1.*one of them"):
        make([first, first], model, total_steps=30)
