"""Runs that want to diverge: the rate is brought down before the parameters are lost."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .small import BOTH


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(65, 64)
        layer = nn.TransformerEncoderLayer(64, 4, 256, dropout=0.0, batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(64, 65)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.embed(x))).flatten(0, 1)


@BOTH
def test_memorising_noise_with_sgd(make: Any) -> None:
    """Without the back-off this run of LocalOptimumLR passes a loss of 1e12: its curvature rises tenfold while the rate
    ramps up."""
    torch.manual_seed(0)
    model, x, y = Transformer(), torch.randint(65, (8, 32)), torch.randint(65, (8 * 32,))
    optimizer = torch.optim.SGD(model.parameters())
    scheduler = make(optimizer, model, total_steps=600)
    losses = []
    for _ in range(150):
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert scheduler.skipped == 0
    assert max(losses) < 1000
    assert losses[-1] < losses[0] / 1.5
