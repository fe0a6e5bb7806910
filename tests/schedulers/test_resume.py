"""A run that was stopped, saved and taken up in a fresh process ends with the same bits."""

from __future__ import annotations

import copy
import io
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import glyder

from . import runs
from .problems import mlp, same, train

pytestmark = pytest.mark.filterwarnings("error::glyder.GlyderWarning")


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """Where every case ends when it is never stopped, and when it is."""
    folder = tmp_path_factory.mktemp("resume")
    saved: dict[str, Any] = {}
    whole: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", glyder.GlyderWarning)
        for case, make in runs.CASES.items():
            run, done = make(), 0
            saved[case] = {}
            for stop in runs.STOPS:
                run.go(done, stop)
                saved[case][stop] = copy.deepcopy(run.state())
                done = stop
            run.go(done, runs.UPDATES)
            whole[case] = run.state()
    torch.save(saved, folder / "saved.pt")
    torch.save(whole, folder / "whole.pt")
    here = Path(__file__).parent
    script = (
        f"import sys; sys.path.insert(0, {str(here.parent)!r}); from schedulers import runs; runs.main(*sys.argv[1:])"
    )
    path = os.pathsep.join([str(Path(glyder.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        [sys.executable, "-c", script, str(folder / "saved.pt"), str(folder / "ended.pt")],
        check=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": path},
    )
    # Both out of a file, so that both are plain types.
    return tuple(torch.load(folder / f"{name}.pt", weights_only=True) for name in ("whole", "ended"))  # type: ignore[return-value]


@pytest.mark.parametrize("stop", runs.STOPS)
@pytest.mark.parametrize("case", runs.CASES)
def test_to_the_bit(ends: tuple[dict[str, Any], dict[str, Any]], case: str, stop: int) -> None:
    whole, ended = ends
    for order in runs.orders(case):
        end = ended[f"{case}|{stop}|{'-'.join(order)}"]
        for part in ("model", "optimizer"):
            assert same(end[part], whole[case][part]), (part, order)
        differing = [k for k in whole[case]["scheduler"] if not same(end["scheduler"][k], whole[case]["scheduler"][k])]
        assert not differing, order


def test_the_runs_are_what_they_claim(ends: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Something was measured, skipped, raised, drawn and scaled in the runs above, or they would show nothing."""
    whole, _ = ends
    for case, state in whole.items():
        scheduler = state["scheduler"]
        assert scheduler["measured"] >= 3, case
        if case == "observe":
            assert scheduler["updates"] == runs.UPDATES
        else:
            assert (scheduler["updates"], scheduler["skipped"]) == (runs.UPDATES - 1, 1), case
    assert whole["failed measurements"]["scheduler"]["reasons"]["raised"] >= 1
    assert whole["sibling"]["scheduler"]["taken"] >= 6
    assert whole["sampled labels"]["scheduler"]["draw"] >= 3
    ratios = whole["groups"]["scheduler"]["ratios"][0]
    assert ratios[0] == 1.0
    assert ratios[1] != 0.1


def _saved(stop: int = 4, **options: Any) -> tuple[Any, Any, Any]:
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters())
    scheduler = glyder.LocalOptimumLR(optimizer, model, **({"total_steps": 30} | options))
    train(model, optimizer, stop)
    return model, optimizer, scheduler


@pytest.mark.parametrize("refresh", ["window", "always"])
def test_the_state_is_neither_kept_nor_changed(refresh: str) -> None:
    _, _, first = _saved(refresh=refresh)
    state = first.state_dict()
    assert (state["pending"] is None) == (refresh == "window")
    given = copy.deepcopy(state)
    model, optimizer, second = _saved(0, refresh=refresh)
    second.load_state_dict(state)
    assert same(state, given)
    train(model, optimizer, 6)
    assert same(state, given), "what was loaded is a copy"
    train(first.model, first.optimizer, 3)
    assert same(state, given), "what was saved is a copy"


def test_weights_only_also_with_numbers_of_numpy() -> None:
    import numpy as np

    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters())
    scheduler = glyder.LocalOptimumLR(
        optimizer, model, total_steps=np.int64(30), every=np.int32(2), warmup=np.int64(9), max_lr=np.float32(5.0),
        scale=np.float64(1.5), seed=np.int64(3),
    )  # fmt: skip
    train(model, optimizer, 4)
    file = io.BytesIO()
    torch.save(scheduler.state_dict(), file)
    file.seek(0)
    assert same(torch.load(file, weights_only=True), scheduler.state_dict())


def test_without_the_schedulers_state_it_starts_anew() -> None:
    model, optimizer, _ = _saved(10)
    model2 = mlp()
    optimizer2 = torch.optim.AdamW(model2.parameters())
    scheduler = glyder.LocalOptimumLR(optimizer2, model2, total_steps=30)
    model2.load_state_dict(model.state_dict())
    optimizer2.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # torch would share the tensors
    train(model2, optimizer2, 10)
    assert scheduler.updates == 10
    assert scheduler.reasons["kept"] > 0


def test_other_options_and_another_horizon_are_told() -> None:
    _, _, first = _saved()
    _, _, second = _saved(0, total_steps=60, every=3, scale=1.25)
    with pytest.warns(glyder.GlyderWarning) as said:
        second.load_state_dict(first.state_dict())
    text = "\n".join(str(w.message) for w in said)
    assert "every=3 (saved with 5)" in text
    assert "sigma=1.25" in text
    assert "total_steps=60 is not that of the saved run, 30" in text
    assert second.horizon == 30
    second.extend(60)
    assert second.horizon == 60


def test_refused_states_change_nothing() -> None:
    _, _, first = _saved()
    _, _, second = _saved(2)
    before = second.state_dict()
    with pytest.raises(ValueError, match="version 99"):
        second.load_state_dict(first.state_dict() | {"version": 99})
    with pytest.raises(ValueError, match=r"\[2\] parameter groups, these have \[1\]"):
        second.load_state_dict(first.state_dict() | {"ratios": [[1.0, 2.0]]})
    assert same(second.state_dict(), before)


def test_an_interrupted_step_is_not_in_the_state() -> None:
    """A step that raised leaves a scheduler that can be saved, and goes on as though the step had not been begun."""
    model, optimizer, scheduler = _saved()

    def broken(*_: Any) -> None:
        raise KeyboardInterrupt

    handle = optimizer.register_step_pre_hook(broken)
    with pytest.raises(KeyboardInterrupt):
        train(model, optimizer, range(4, 5))
    handle.remove()
    state = scheduler.state_dict()
    model2, optimizer2, second = _saved(0)
    model2.load_state_dict(model.state_dict())
    optimizer2.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # torch would share the tensors
    second.load_state_dict(state)
    for m, o in ((model, optimizer), (model2, optimizer2)):
        train(m, o, range(5, 20))
    assert same(model.state_dict(), model2.state_dict())
    assert same(scheduler.state_dict(), second.state_dict())
