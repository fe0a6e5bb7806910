"""The net of ``meta``: what is shipped is what its script writes, and the comparison runs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from benchmarks.papers import meta, meta_train
from glyder import _core

from ..rules.twin_meta import shipped


def test_training_moves_the_net_and_a_header_keeps_it() -> None:
    net, course = meta_train.train(runs=1, updates=meta_train.UNROLL)
    torch.manual_seed(meta_train.SEED)
    assert not torch.equal(net.out.bias, meta_train.Net().out.bias)
    assert all(math.isfinite(value) for value in course)
    text = meta_train.header(net)
    assert repr(net.out.bias.item()) in text
    assert all(repr(value) in text for value in net.cell.weight_hh_l0.flatten().tolist())


def test_the_rule_has_the_form_that_was_trained() -> None:
    """1e-12, as for torch's LSTM alone (``test_meta``)."""
    w = {name: torch.tensor(value) for name, value in shipped().items()}
    net = meta_train.Net()
    with torch.no_grad():
        for tensor, value in (
            (net.cell.weight_ih_l0, w["input"][:, None]),
            (net.cell.weight_hh_l0, w["recurrent"]),
            (net.cell.bias_ih_l0, w["bias"]),
            (net.cell.bias_hh_l0, torch.zeros_like(w["bias"])),
            (net.out.weight, w["output"][None]),
            (net.out.bias, w["output_bias"].reshape(1)),
        ):
            tensor.copy_(value)
        losses, state, expected = 2.3 * np.exp(-np.arange(50) / 10), None, []
        for loss in losses:
            z = torch.tensor(math.log(loss / losses[0]), dtype=torch.float64).clamp(-meta_train.RANGE, meta_train.RANGE)
            share, state = net(z, state)
            expected.append(meta_train.gamma_of(losses[0]) * float(share))
    rule = _core.Rule("meta", classes=meta_train.CLASSES)
    assert [rule.update(loss=loss)[0] for loss in losses] == pytest.approx(expected, rel=1e-12)


def test_comparison_runs() -> None:
    row = meta.compare(meta.TASKS[3], steps=30, seeds=range(1), grid=[0.01, 0.1])
    assert all(math.isfinite(value) for value in (*row["meta"], *row["best"]))  # type: ignore[misc]
    assert f"{row['best'][0]:.3f}" in meta.tabled([row])
