"""Wrong arguments: named with their value and the remedy, and nothing of the user's is touched."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import glyder

from .problems import mlp, same

WRONG: list[tuple[dict[str, Any], type, str]] = [
    ({"model": 3}, TypeError, r"LocalOptimumLR\(model=...\) must be a torch.nn.Module, got int"),
    ({"optimizer": 3}, TypeError, r"LocalOptimumLR\(optimizer=...\) must be a torch Optimizer, got int"),
    ({"optimizer": []}, ValueError, r"LocalOptimumLR\(optimizer=...\) needs at least one optimizer"),
    ({"total_steps": 0}, ValueError, r"LocalOptimumLR\(total_steps=...\) must be >= 1, got 0"),
    ({"total_steps": 1.5}, TypeError, r"LocalOptimumLR\(total_steps=...\) must be a whole number, got 1.5"),
    ({"total_steps": True}, TypeError, r"LocalOptimumLR\(total_steps=...\) must be a whole number, got True"),
    ({"total_steps": None, "anneal": "cosine"}, ValueError, r"LocalOptimumLR\(anneal='cosine'\).*give total_steps"),
    ({"anneal": "cosinus"}, ValueError, r"LocalOptimumLR\(anneal=...\) must be None, one of .*'cosine'.*got 'cosinus'"),
    ({"anneal": ["cosine"]}, ValueError, r"LocalOptimumLR\(anneal=...\) must be"),
    ({"anneal": ("polynomial", {"power": -1})}, ValueError, r"LocalOptimumLR\(anneal=.*power.*-1"),
    ({"anneal": ("polynomial", 2)}, ValueError, r"LocalOptimumLR\(anneal=...\) must be"),
    ({"warmup": -1}, ValueError, r"LocalOptimumLR\(warmup=...\) must be >= 0, got -1"),
    ({"warmup": "10"}, TypeError, r"LocalOptimumLR\(warmup=...\) must be a whole number, got '10'"),
    ({"every": 0}, ValueError, r"LocalOptimumLR\(every=...\) must be >= 1, got 0"),
    ({"every": None}, TypeError, r"LocalOptimumLR\(every=...\) must be a whole number, got None"),
    ({"refresh": "sometimes"}, ValueError, r"LocalOptimumLR\(refresh=...\) must be one of 'window', 'always', got"),
    ({"refresh": 1}, ValueError, r"LocalOptimumLR\(refresh=...\)"),
    ({"scale": 0}, ValueError, r"LocalOptimumLR\(scale=...\) must be > 0 and finite, got 0"),
    ({"scale": float("nan")}, ValueError, r"LocalOptimumLR\(scale=...\).*got nan"),
    ({"scale": "2"}, TypeError, r"LocalOptimumLR\(scale=...\) must be a number, got '2'"),
    ({"min_lr": -1e-3}, ValueError, r"LocalOptimumLR\(min_lr=...\) must be >= 0 and finite, got -0.001"),
    ({"min_lr": None}, TypeError, r"LocalOptimumLR\(min_lr=...\) must be a number, got None"),
    ({"max_lr": 0.0}, ValueError, r"LocalOptimumLR\(max_lr=...\) must be > 0, got 0.0"),
    ({"max_lr": "gven"}, TypeError, r"LocalOptimumLR\(max_lr=...\) must be a number.*'gven'"),
    ({"min_lr": 1.0, "max_lr": 0.5}, ValueError, r"LocalOptimumLR\(min_lr=...\) must be <= max_lr=0.5, got 1"),
    ({"warmup": 200}, ValueError, r"LocalOptimumLR\(warmup=...\) must be <= total_steps=100, got 200"),
    ({"n_batches": 4}, ValueError, r"n_batches=4 needs batches="),
    ({"max_growth": 1.0}, ValueError, r"LocalOptimumLR\(max_growth=...\) must be > 1, got 1.0"),
    (
        {"scope": "layer"},
        ValueError,
        r"LocalOptimumLR\(scope=...\) must be one of 'global', 'group', 'tensor', got 'layer'",
    ),
    (
        {"scope": "tensor", "refresh": "always"},
        ValueError,
        r"LocalOptimumLR\(scope='tensor'\) goes with refresh='window'",
    ),
    ({"replicas": 4}, ValueError, r"LocalOptimumLR\(replicas=...\) must be one of False, True, got 4"),
    ({"act": "now"}, ValueError, r"LocalOptimumLR\(act=...\) must be one of 'next', 'same-step', got 'now'"),
    ({"act": "same-step"}, ValueError, r"LocalOptimumLR\(act='same-step'\) goes with refresh='always'"),
    ({"scope": "group", "max_lr": "given"}, ValueError, r"LocalOptimumLR\(max_lr='given'\) goes with scope='global'"),
    ({"observe_only": "yes"}, ValueError, r"LocalOptimumLR\(observe_only=...\) must be one of False, True, got 'yes'"),
    (
        {"estimator": "newton"},
        ValueError,
        r"LocalOptimumLR\(estimator=...\) must be an Estimator or one of .*got 'newton'",
    ),
    ({"estimator": "hvp"}, ValueError, r"needs loss=callable"),
    ({"estimator": 3}, (TypeError, ValueError), r"LocalOptimumLR\(estimator=...\)"),
    ({"loss": "hinge"}, ValueError, r"loss='hinge'"),
    ({"loss": 3}, TypeError, r"LocalOptimumLR\(loss=...\) must be 'squared_error', a criterion.*got 3"),
    ({"logits": "logits"}, TypeError, r"LocalOptimumLR\(logits=...\) must be a callable.*got 'logits'"),
    ({"batches": [1]}, ValueError, r"batches=... needs loss="),
    ({"batches": iter([1]), "loss": nn.MSELoss()}, TypeError, r"batches=.*one-shot"),
    ({"batches": 3, "loss": nn.MSELoss()}, TypeError, r"batches=... must be"),
    ({"batches": [], "loss": nn.MSELoss()}, ValueError, r"batches=\[\] holds no data"),
    ({"n_batches": 0}, ValueError, r"LocalOptimumLR\(n_batches=...\) must be >= 1, got 0"),
    ({"seed": -1}, ValueError, r"LocalOptimumLR\(seed=...\) must be >= 0, got -1"),
    ({"seed": "a"}, TypeError, r"LocalOptimumLR\(seed=...\) must be a whole number, got 'a'"),
]


@pytest.mark.parametrize(("options", "error", "says"), WRONG, ids=lambda v: ",".join(v) if isinstance(v, dict) else "")
def test_wrong_arguments_are_named_and_leave_no_trace(options: dict[str, Any], error: Any, says: str) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=torch.tensor(0.1))
    given = {"optimizer": optimizer, "model": model, "total_steps": 100} | options
    before = copy.deepcopy(optimizer.state_dict())
    attributes = set(vars(optimizer)), set(vars(model))
    loss = options.get("loss")
    with pytest.raises(error, match=says):
        glyder.LocalOptimumLR(given.pop("optimizer"), given.pop("model"), **given)
    assert same(optimizer.state_dict(), before)
    assert (set(vars(optimizer)), set(vars(model))) == attributes
    for module in (model, *model.modules(), *([loss] if isinstance(loss, nn.Module) else [])):
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


def test_every_argument_has_a_wrong_value_above() -> None:
    import inspect

    names = set(inspect.signature(glyder.LocalOptimumLR.__init__).parameters) - {"self"}
    assert names == {name for options, _, _ in WRONG for name in options}


@pytest.mark.parametrize("key", ["maximize", "lr"])
def test_optimizers_that_cannot_be_taken(key: str) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), maximize=key == "maximize")
    if key == "lr":
        del optimizer.param_groups[0]["lr"]
    with pytest.raises(ValueError, match=f"group 0 of SGD has .*{key}"):
        glyder.LocalOptimumLR(optimizer, model)
