"""The optimizers of the league, each from its rate alone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

Made = list[Optimizer]


def _one(make: Callable[..., Optimizer], model: nn.Module, lr: float, **options: Any) -> Made:
    return [make([p for p in model.parameters() if p.requires_grad], lr=lr, **options)]


def _muon(model: nn.Module, lr: float) -> Made:
    """torch's Muon for hidden matrices, AdamW beside it for all else, at one rate (Muon's is matched to AdamW's)."""
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim == 2]
    rest = [p for p in model.parameters() if p.requires_grad and p.ndim != 2]
    made: Made = [torch.optim.Muon(matrices, lr=lr, adjust_lr_fn="match_rms_adamw")]
    return [*made, torch.optim.AdamW(rest, lr=lr)] if rest else made


def _packaged(name: str, model: nn.Module, lr: float, **options: Any) -> Made:
    """An optimizer of the package pytorch_optimizer; Lookahead wraps AdamW as its paper does."""
    import pytorch_optimizer as packaged

    if name == "Lookahead":
        inner = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr)
        return [packaged.Lookahead(inner, k=5, alpha=0.5)]
    return _one(getattr(packaged, name), model, lr, **options)


MAKERS: dict[str, Callable[[nn.Module, float], Made]] = {
    "SGD": functools.partial(_one, torch.optim.SGD),
    "momentum": functools.partial(_one, torch.optim.SGD, momentum=0.9),
    "AdamW": functools.partial(_one, torch.optim.AdamW),
    "RMSprop": functools.partial(_one, torch.optim.RMSprop),
    "Muon": _muon,
    "Lion": functools.partial(_packaged, "Lion"),
    "AdaBelief": functools.partial(_packaged, "AdaBelief"),
    "Lookahead": functools.partial(_packaged, "Lookahead"),
    "SWATS": functools.partial(_packaged, "SWATS"),
}

MAIN = ("SGD", "momentum", "AdamW")

CENTRES = {"RMSprop": -0.5, "Muon": 0.5, "Lion": -1.0, "AdaBelief": 0.0, "Lookahead": 0.0, "SWATS": 0.0}
"""Where the grid of peaks starts, in decades from AdamW's."""


def make(optimizer: str, model: nn.Module, lr: float, decay: float | None = None) -> Made:
    """``decay`` is AdamW's weight decay of matrices, other parameters get none; None leaves what the optimizer has.

    SGD has none: at its rates, ten to a hundred times AdamW's, what people give AdamW would eat the weights.
    """
    made = MAKERS[optimizer](model, lr)
    if decay is not None and optimizer == "AdamW":
        for each in made:
            (group,) = each.param_groups
            params = group["params"]
            matrices, rest = [p for p in params if p.ndim >= 2], [p for p in params if p.ndim < 2]
            group.update(params=matrices, weight_decay=decay)
            if rest:
                each.add_param_group({"params": rest, "weight_decay": 0.0})
    return made
