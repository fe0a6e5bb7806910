"""The record of a run: what is in it, what it cost, and what is said in words."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import glyder

from .problems import mlp, train
from .small import BOTH, SEARCHED, small_run

UPDATES, PHASE = 40, 12


def _run(
    make: Any = glyder.LocalOptimumLR, kind: Any = torch.optim.SGD, **options: object
) -> tuple[torch.nn.Module, torch.optim.Optimizer, Any]:
    model = mlp()
    optimizer = kind(model.parameters(), lr=0.1)
    scheduler = make(optimizer, model, **({"total_steps": UPDATES, "warmup": PHASE} | options))
    return model, optimizer, scheduler


@BOTH
def test_before_anything(make: Any) -> None:
    _, _, scheduler = _run(make)
    assert scheduler.history.shape == (0,)
    assert scheduler.reasons == {}
    assert scheduler.cost == (0.0, 0)
    words = {
        glyder.LocalOptimumLR: "0 updates made, nothing measured yet.",
        glyder.GlyderLR: "0 updates made; the peak is being searched.",
    }
    assert scheduler.explain() == words[make]


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


KINDS = pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW], ids=["sgd", "adamw"])
"""GlyderLR searches differently with each of the two."""


@KINDS
def test_fields_types_and_values_of_a_search(kind: Any) -> None:
    """Beside rates and gradients, which are the run's, the columns of the rules: see test_search and test_edge."""
    model, optimizer, scheduler = _run(glyder.GlyderLR, kind)
    rates, lengths = [], []

    def note(t: int) -> None:
        lengths.append(float(sum(p.grad.double().square().sum() for p in model.parameters())) ** 0.5)

    for t in range(UPDATES - 1):
        updates = scheduler.updates
        train(model, optimizer, range(t, t + 1), note)
        if scheduler.updates > updates:
            rates.append(scheduler.get_last_lr()[0])
    history = scheduler.history
    assert history.dtype.names == (*glyder.SEARCHED, "reason")
    assert history.dtype["update"] == np.int64
    assert all(history.dtype[name] == np.float64 for name in glyder.SEARCHED if name != "update")
    assert history.dtype["reason"].kind == "U"
    assert (np.diff(history["update"]) == 1).all()
    assert [rates[t] for t in history["update"]] == history["lr"].tolist()
    # every update of the search was one step, and the gradient is that of the next
    np.testing.assert_allclose(history["gradient"], [lengths[t + 1] for t in history["update"]], rtol=1e-12)
    assert np.isnan(history["peak"][:-1]).all()
    assert history["peak"][-1] == scheduler.peak_lr
    for reason in set(history["reason"].tolist()):
        assert (history["reason"] == reason).sum() == scheduler.reasons[reason]
    rows = len(history)
    scheduler.extend(UPDATES + 5)
    train(model, optimizer, 5)
    assert len(scheduler.history) == rows, "nothing is measured once the peak is found"


@BOTH
def test_a_copy_every_time(make: Any) -> None:
    model, optimizer, scheduler = _run(make)
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
    assert len(probes) == before, "after the phase a run costs nothing more"


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
    assert f"Base learning rate {scheduler.base_lr:.3g}" in text
    assert f"now {scheduler.get_last_lr()[0]:.3g}" in text


@KINDS
@pytest.mark.parametrize("total_steps", [UPDATES, 200])
def test_words_of_a_search(kind: Any, total_steps: int) -> None:
    model, optimizer, scheduler = _run(glyder.GlyderLR, kind, total_steps=total_steps)
    took = 0
    for t in range(30):
        train(model, optimizer, range(t, t + 1))
        rate = f"{scheduler.get_last_lr()[0]:.3g}"
        searching = math.isnan(scheduler.peak_lr)
        took = scheduler.updates if searching else took
        text = scheduler.explain()
        if searching:
            assert text.startswith(
                f"{t + 1} updates made; the peak is being searched, the learning rate is now {rate}."
            )
            assert "searching the peak" in repr(scheduler)
        else:
            peak = f"Peak learning rate {scheduler.peak_lr:.3g}, found in the first {took} updates; "
            assert peak in text
            assert f"with linear annealing now {rate}." in text
            assert f"peak {scheduler.peak_lr:.3g}, linear" in repr(scheduler)
        assert f"update {scheduler.updates} of {total_steps}, lr {rate}" in repr(scheduler)
    assert took >= PHASE / 2
    next(model.parameters()).grad[0, 0] = float("nan")
    with pytest.warns(glyder.GlyderWarning, match="skipped"):
        optimizer.step()
    assert "1 updates were skipped because their gradient was not finite." in scheduler.explain()


def test_words_of_a_peak_that_was_given() -> None:
    model, optimizer, scheduler = _run(glyder.GlyderLR, peak_lr=0.25)
    train(model, optimizer, 3)
    assert "Peak learning rate 0.25, as it was given; with linear annealing now" in scheduler.explain()


@SEARCHED
def test_copies_that_a_search_made(optimizer: Any) -> None:
    """One for each update that is searched; one in all where the search goes back to it."""
    model, o, scheduler = small_run(optimizer=optimizer, make=glyder.GlyderLR)
    assert scheduler.cost == (0.0, 0)
    train(model, o, 5)
    goes_back = isinstance(o, torch.optim.SGD)
    assert scheduler.cost == (0.0, 1 if goes_back else 5)
    train(model, o, range(5, 30))
    assert scheduler.cost == (0.0, 1 if goes_back else len(scheduler.history))


def test_a_step_that_is_no_update_is_told() -> None:
    for kind, words in (
        (torch.optim.SGD, "were set back to where the search began after {} updates"),
        (torch.optim.AdamW, ""),
    ):
        model, o, scheduler = small_run(optimizer=kind, make=glyder.GlyderLR)
        train(model, o, 3)
        assert "set back" not in scheduler.explain()
        train(model, o, range(3, UPDATES))
        assert words.format(scheduler.history["update"][-1] + 1) in scheduler.explain()
        assert ("set back" in scheduler.explain()) == bool(words)
        assert scheduler.updates == UPDATES - bool(words)
