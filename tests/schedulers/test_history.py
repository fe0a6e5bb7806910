"""The record of a run: what is in it, what it cost, and what is said in words."""

from __future__ import annotations

import numpy as np
import torch

import glyder

from .problems import mlp, train

UPDATES, WINDOW = 40, 12


def _run(**options: object) -> tuple[torch.nn.Module, torch.optim.Optimizer, glyder.LocalOptimumLR]:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = glyder.LocalOptimumLR(optimizer, model, **({"total_steps": UPDATES, "warmup": WINDOW} | options))
    return model, optimizer, scheduler


def test_before_anything() -> None:
    _, _, scheduler = _run()
    assert scheduler.history.shape == (0,)
    assert scheduler.reasons == {}
    assert scheduler.cost == (0.0, 0)
    assert scheduler.explain() == "0 updates made, nothing measured yet."


def test_fields_types_and_values() -> None:
    model, optimizer, scheduler = _run()
    rates = []
    for t in range(UPDATES):
        train(model, optimizer, range(t, t + 1))
        rates.append(scheduler.get_last_lr()[0])
    history = scheduler.history
    assert history.dtype.names == (*glyder.FIELDS, "source", "reason")
    assert history.dtype["update"] == np.int64
    assert all(history.dtype[name] == np.float64 for name in glyder.FIELDS if name != "update")
    assert history.dtype["reason"].kind == history.dtype["source"].kind == "U"
    assert (np.diff(history["update"]) > 0).all()
    assert [rates[t] for t in history["update"]] == history["lr"].tolist()
    assert (history["displacement"] >= 0).all()
    assert (history["gradient"] > 0).all()
    kept = history[history["reason"] == "kept"]
    assert (kept["source"] == "gradients").all()
    assert np.isfinite(kept["curvature"]).all()
    for reason in set(history["reason"].tolist()):
        assert (history["reason"] == reason).sum() == scheduler.reasons[reason]
    # One group of plain gradient descent: ||delta|| = lr ||g_t||; float32: x + lr*g is rounded, relative to ||x|| and
    # not to the step.
    np.testing.assert_allclose(history["displacement"], history["lr"] * history["gradient"], rtol=2e-2)


def test_a_copy_every_time() -> None:
    model, optimizer, scheduler = _run()
    train(model, optimizer, 5)
    scheduler.history["lr"][:] = -1
    assert (scheduler.history["lr"] > 0).all()


def test_cost_is_what_was_computed() -> None:
    """Forward passes counted by a hook of the test: those without gradients are the probes."""
    model, optimizer, scheduler = _run(every=1)
    probes = []
    model.register_forward_hook(lambda *_: probes.append(1) if not torch.is_grad_enabled() else None)
    train(model, optimizer, UPDATES)
    forwards, copies = scheduler.cost
    assert forwards == len(probes)
    assert forwards == 2 * (scheduler.history["reason"] == "kept").sum()
    assert copies >= len(scheduler.history)
    before = len(probes)
    scheduler.extend(UPDATES + 3)
    train(model, optimizer, 3)
    assert len(probes) == before, "after the window a run costs nothing more"


def test_measured_as_the_catalogue_states_it() -> None:
    """36 of the first 100 updates, and none after."""
    model, optimizer, scheduler = _run(total_steps=400, warmup=None)
    train(model, optimizer, 120)
    assert len(scheduler.history) == 36
    assert scheduler.history["update"].max() < 100


def test_always_goes_on() -> None:
    model, optimizer, scheduler = _run(refresh="always", every=3)
    train(model, optimizer, UPDATES)
    late = [int(t) for t in scheduler.history["update"] if t >= 25]
    assert late
    assert all(t % 3 == 0 for t in late)


def test_words() -> None:
    model, optimizer, scheduler = _run()
    train(model, optimizer, 20)
    text = scheduler.explain()
    usable = int(np.isfinite(scheduler.history["curvature"]).sum())
    assert f"20 updates made, {usable} of {len(scheduler.history)} measurements usable." in text
    assert f"Base learning rate {scheduler._base:.3g}" in text
    assert f"now {scheduler.get_last_lr()[0]:.3g}" in text
