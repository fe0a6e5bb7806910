"""A run that was stopped, saved and taken up in a fresh process ends with the same bits."""

from __future__ import annotations

import copy
import io
import math
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import glyder

from . import runs
from .problems import mlp, same, train, weights
from .small import BOTH, SEARCHED

pytestmark = pytest.mark.filterwarnings("error::glyder.GlyderWarning")


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], ...]:
    """Where every case ends when it is never stopped, and when it is; and what was saved when it was."""
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
    return tuple(torch.load(folder / f"{name}.pt", weights_only=True) for name in ("whole", "ended", "saved"))


@pytest.mark.parametrize("stop", runs.STOPS)
@pytest.mark.parametrize("case", runs.CASES)
def test_to_the_bit(ends: tuple[dict[str, Any], ...], case: str, stop: int) -> None:
    whole, ended, _ = ends
    for order in runs.orders(case):
        end = ended[f"{case}|{stop}|{'-'.join(order)}"]
        for part in ("model", "optimizer"):
            assert same(end[part], whole[case][part]), (part, order)
        differing = [k for k in whole[case]["scheduler"] if not same(end["scheduler"][k], whole[case]["scheduler"][k])]
        assert not differing, order


def test_the_runs_are_what_they_claim(ends: tuple[dict[str, Any], ...]) -> None:
    """Something was measured, skipped, raised, drawn and scaled in the runs above, or they would show nothing."""
    whole, _, _ = ends
    for case in set(runs.CASES) - set(runs.SEARCHES):
        scheduler = whole[case]["scheduler"]
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


def test_searches_are_stopped_in_the_middle_and_after(ends: tuple[dict[str, Any], ...]) -> None:
    """And those that go back, also between having gone away and being back."""
    whole, _, saved = ends
    for case in runs.SEARCHES:
        start = runs.CASES[case]().model.state_dict()
        states = {stop: saved[case][stop] for stop in runs.STOPS}
        found = {stop: state["scheduler"]["peak"] is not None for stop, state in states.items()}
        assert found[25], case
        assert whole[case]["scheduler"]["skipped"] == 1, case
        if case == "peak given":
            assert all(found.values())
            continue
        assert not any(found[stop] for stop in (0, 1, 6)), case
        assert not same(states[6]["model"], start), case
        assert len(whole[case]["scheduler"]["history"]["texts"]) >= 8, case
    for case, lost in (
        ("adamw", 0),
        ("momentum", 1),
        ("sgd", 1),
        ("two optimizers", 1),
        ("groups, momentum", 1),
        ("mixed", 0),
    ):
        assert whole[f"search {case}"]["scheduler"]["updates"] == runs.UPDATES - 1 - lost, case


def _saved(make: Any, stop: int = 4, kind: Any = torch.optim.AdamW, **options: Any) -> tuple[Any, Any, Any]:
    model = mlp()
    optimizer = kind(model.parameters())
    scheduler = make(optimizer, model, **({"total_steps": 30} | options))
    train(model, optimizer, stop)
    return model, optimizer, scheduler


STATES = [
    pytest.param(glyder.LocalOptimumLR, {"refresh": "window"}, id="window"),
    pytest.param(glyder.LocalOptimumLR, {"refresh": "always"}, id="always"),
    pytest.param(glyder.GlyderLR, {}, id="search adamw"),
    pytest.param(glyder.GlyderLR, {"kind": torch.optim.SGD}, id="search sgd"),
]


@pytest.mark.parametrize(("make", "options"), STATES)
def test_the_state_is_neither_kept_nor_changed(make: Any, options: dict[str, Any]) -> None:
    first_model, first_optimizer, first = _saved(make, **options)
    state = first.state_dict()
    if make is glyder.LocalOptimumLR:
        assert (state["pending"] is None) == (options["refresh"] == "window")
    else:
        assert state["search"] is not None
    given = copy.deepcopy(state)
    model, optimizer, second = _saved(make, 0, **options)
    second.load_state_dict(state)
    assert same(state, given)
    train(model, optimizer, 10)
    assert same(state, given), "what was loaded is a copy"
    train(first_model, first_optimizer, 8)
    assert same(state, given), "what was saved is a copy"


NUMBERS: dict[type, dict[str, Any]] = {
    glyder.LocalOptimumLR: {"every": np.int32(2), "seed": np.int64(3)},
    glyder.GlyderLR: {"min_lr": np.float32(1e-7)},
}


@BOTH
def test_weights_only_also_with_numbers_of_numpy(make: Any) -> None:
    options = NUMBERS[make] | {"total_steps": np.int64(30), "warmup": np.int64(9)}
    _, _, scheduler = _saved(make, max_lr=np.float32(5.0), scale=np.float64(1.5), **options)
    file = io.BytesIO()
    torch.save(scheduler.state_dict(), file)
    file.seek(0)
    assert same(torch.load(file, weights_only=True), scheduler.state_dict())


@BOTH
def test_without_the_schedulers_state_it_starts_anew(make: Any) -> None:
    model, optimizer, _ = _saved(make, 10)
    model2, optimizer2, scheduler = _saved(make, 0)
    model2.load_state_dict(model.state_dict())
    optimizer2.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # torch would share the tensors
    train(model2, optimizer2, 10)
    assert scheduler.updates == 10
    assert scheduler.reasons["rising" if make is glyder.GlyderLR else "kept"] > 0


OTHER: dict[type, tuple[dict[str, Any], tuple[str, ...]]] = {
    glyder.LocalOptimumLR: ({"every": 3, "scale": 1.25}, ("every=3 (saved with 5)", "sigma=1.25")),
    glyder.GlyderLR: ({"anneal": "cosine", "max_lr": 2.0}, ("anneal='cosine' (saved with 'linear')", "max_lr=2.0")),
}


@BOTH
def test_other_options_and_another_total_steps_are_told(make: Any) -> None:
    options, named = OTHER[make]
    _, _, first = _saved(make)
    _, _, second = _saved(make, 0, total_steps=60, **options)
    with pytest.warns(glyder.GlyderWarning) as said:
        second.load_state_dict(first.state_dict())
    text = "\n".join(str(w.message) for w in said)
    assert all(words in text for words in named)
    assert "total_steps=60 is not that of the saved run, 30" in text
    assert second.total_steps == 30
    second.extend(60)
    assert second.total_steps == 60


@pytest.mark.parametrize("stop", [4, 20])
def test_a_resumed_run_may_be_given_another_scale(stop: int) -> None:
    """It is a factor on the peak: nothing of the search sees it, and nothing is to be told."""
    model, optimizer, first = _saved(glyder.GlyderLR, stop)
    _, _, whole = _saved(glyder.GlyderLR, 29)
    model2, optimizer2, second = _saved(glyder.GlyderLR, 0, scale=0.5)
    for mine, saved in ((model2, model), (optimizer2, optimizer), (second, first)):
        mine.load_state_dict(copy.deepcopy(saved.state_dict()))
    assert second.scale == 0.5
    train(model2, optimizer2, range(stop, 29))
    assert second.peak_lr == whole.peak_lr / 2
    # 1e-14: the same products in another order
    assert second.get_last_lr()[0] == pytest.approx(whole.get_last_lr()[0] / 2, rel=1e-14)


@BOTH
def test_refused_states_change_nothing(make: Any) -> None:
    _, _, first = _saved(make)
    model, optimizer, second = _saved(make, 2)
    before = [second.state_dict(), weights(model), copy.deepcopy(optimizer.state_dict())]
    with pytest.raises(ValueError, match="version 99"):
        second.load_state_dict(first.state_dict() | {"version": 99})
    with pytest.raises(ValueError, match=r"\[2\] parameter groups, these have \[1\]"):
        second.load_state_dict(first.state_dict() | {"ratios": [[1.0, 2.0]]})
    assert same([second.state_dict(), weights(model), optimizer.state_dict()], before)


@BOTH
def test_a_state_of_the_other_class_is_refused_by_its_name(make: Any) -> None:
    (other,) = {glyder.GlyderLR, glyder.LocalOptimumLR} - {make}
    _, _, foreign = _saved(other)
    _, _, scheduler = _saved(make, 2)
    before = scheduler.state_dict()
    with pytest.raises(ValueError, match=other.__name__):
        scheduler.load_state_dict(foreign.state_dict())
    assert same(scheduler.state_dict(), before)


@BOTH
def test_a_state_of_a_rule_is_not_one_of_these(make: Any) -> None:
    _, _, first = _saved(make)
    model = mlp()
    rule = glyder.HypergradientLR(torch.optim.SGD(model.parameters()), total_steps=30)
    with pytest.raises(ValueError, match=rf"'hypergradient', and this scheduler is '{make.__name__}'"):
        first.load_state_dict(rule.state_dict())
    with pytest.raises(ValueError, match=rf"'{make.__name__}', and this scheduler is 'hypergradient'"):
        rule.load_state_dict(first.state_dict())


@SEARCHED
def test_parameters_that_were_taken_away_while_it_searched(optimizer: Any) -> None:
    model, o, first = _saved(glyder.GlyderLR, 5, optimizer)
    model2, o2, second = _saved(glyder.GlyderLR, 0, optimizer)
    for of in (o, o2):
        of.param_groups[0]["params"].pop(1)
    o.state.pop(model[0].bias, None)
    for mine, saved in ((model2, model), (o2, o), (second, first)):
        mine.load_state_dict(copy.deepcopy(saved.state_dict()))
    assert math.isnan(second.peak_lr)
    for m, of in ((model, o), (model2, o2)):
        train(m, of, range(5, 25))
    assert same(weights(model), weights(model2))
    assert same(first.state_dict(), second.state_dict())
    assert second.peak_lr > 0


INTERRUPTED = [
    (glyder.LocalOptimumLR, torch.optim.AdamW),
    (glyder.GlyderLR, torch.optim.AdamW),
    (glyder.GlyderLR, torch.optim.SGD),
]


@pytest.mark.parametrize(("make", "kind"), INTERRUPTED)
@pytest.mark.parametrize("stop", [4, 18])
def test_an_interrupted_step_is_not_in_the_state(make: Any, kind: Any, stop: int) -> None:
    """A step that raised leaves a scheduler that can be saved, and goes on as though the step had not been begun."""
    model, optimizer, scheduler = _saved(make, stop, kind)

    def broken(*_: Any) -> None:
        raise KeyboardInterrupt

    handle = optimizer.register_step_pre_hook(broken)
    with pytest.raises(KeyboardInterrupt):
        train(model, optimizer, range(stop, stop + 1))
    handle.remove()
    state = scheduler.state_dict()
    model2, optimizer2, second = _saved(make, 0, kind)
    model2.load_state_dict(model.state_dict())
    optimizer2.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # torch would share the tensors
    second.load_state_dict(state)
    for m, o in ((model, optimizer), (model2, optimizer2)):
        train(m, o, range(stop + 1, 28))
    assert same(model.state_dict(), model2.state_dict())
    assert same(scheduler.state_dict(), second.state_dict())


@SEARCHED
def test_a_state_taken_between_backward_and_step_is_as_good(optimizer: Any) -> None:
    """The gradients of the update to come are the user's to make again."""
    model, o, scheduler = _saved(glyder.GlyderLR, 5, optimizer)
    held = copy.deepcopy([model.state_dict(), o.state_dict()])
    state: dict[str, Any] = {}
    train(model, o, range(5, 6), lambda _: state.update(scheduler.state_dict()))
    train(model, o, range(6, 25))
    model2, o2, second = _saved(glyder.GlyderLR, 0, optimizer)
    model2.load_state_dict(held[0])
    o2.load_state_dict(held[1])
    second.load_state_dict(state)
    train(model2, o2, range(5, 25))
    assert same(weights(model), weights(model2))
    assert same(scheduler.state_dict(), second.state_dict())


@SEARCHED
def test_between_two_gradients_that_are_not_finite(optimizer: Any) -> None:
    """The second in a row ends a search that goes back, or takes back a step."""

    def bad(model: Any, o: Any) -> None:
        train(model, o, range(7, 8), lambda _: next(model.parameters()).grad.fill_(float("nan")))

    model, o, scheduler = _saved(glyder.GlyderLR, 7, optimizer)
    model2, o2, second = _saved(glyder.GlyderLR, 0, optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", glyder.GlyderWarning)
        bad(model, o)
        for mine, saved in ((model2, model), (o2, o), (second, scheduler)):
            mine.load_state_dict(copy.deepcopy(saved.state_dict()))
        for m, of in ((model, o), (model2, o2)):
            bad(m, of)
            train(m, of, range(8, 25))
    assert scheduler.skipped == 2
    assert same(weights(model), weights(model2))
    assert same(scheduler.state_dict(), second.state_dict())


@pytest.mark.parametrize("stop", [4, 20])
@SEARCHED
def test_a_peak_that_is_given_to_a_resumed_run_acts(optimizer: Any, stop: int) -> None:
    """In the middle of a search, which is then over: where it goes back, the parameters do; and after it."""
    model, o, first = _saved(glyder.GlyderLR, stop, optimizer)
    model2, o2, second = _saved(glyder.GlyderLR, 0, optimizer, peak_lr=1e-4)
    begin = weights(model2)  # of the other one, too
    model2.load_state_dict(model.state_dict())
    o2.load_state_dict(copy.deepcopy(o.state_dict()))
    saved = first.state_dict()["peak"]
    with pytest.warns(glyder.GlyderWarning, match=rf"other options.*: peak_lr=0.0001 \(saved with {saved}\)$") as said:
        second.load_state_dict(first.state_dict())
    assert len(said) == 1
    assert second.peak_lr == 1e-4
    train(model2, o2, range(stop, stop + 1))
    back = stop == 4 and isinstance(o, torch.optim.SGD)
    assert same(weights(model2), begin) is back
    train(model2, o2, range(stop + 1, 29))
    assert second.updates == 29 - isinstance(o, torch.optim.SGD)
    assert second.peak_lr == 1e-4
    assert 0 < second.get_last_lr()[0] < 1e-4
    assert "as it was given" in second.explain()


def _refused(first: Any, second: Any, state: dict[str, Any], says: str) -> None:
    before = second.state_dict(), second.search.now, second.warmup, second.optimizer.param_groups[0]["lr"]
    with pytest.raises(ValueError, match=says):
        second.load_state_dict(state)
    assert same(second.state_dict(), before[0])
    assert (second.search.now, second.warmup, second.optimizer.param_groups[0]["lr"]) == before[1:]


@pytest.mark.parametrize(("saved", "loaded"), [("SGD", "AdamW"), ("AdamW", "SGD")])
def test_a_search_of_another_kind_is_refused(saved: str, loaded: str) -> None:
    _, _, first = _saved(glyder.GlyderLR, 4, getattr(torch.optim, saved))
    model, optimizer, second = _saved(glyder.GlyderLR, 3, getattr(torch.optim, loaded))
    _refused(first, second, first.state_dict(), rf"saved in a search by .* that of {loaded} is by .*kind that saved")
    train(model, optimizer, range(3, 25))
    assert second.peak_lr > 0


@SEARCHED
def test_a_search_in_other_parameters_is_refused(optimizer: Any) -> None:
    _, _, first = _saved(glyder.GlyderLR, 4, optimizer)
    says = {
        r"this state has parameter 2 of group 0, and that group has 2: .* model that saved it": torch.nn.Linear(6, 8),
        r"parameter 0 of group 0 has shape \(8, 6\) in this state and \(9, 6\) here: .* model": torch.nn.Sequential(
            torch.nn.Linear(6, 9), torch.nn.Linear(9, 4)
        ),
    }
    for words, model in says.items():
        second = glyder.GlyderLR(optimizer(model.parameters()), total_steps=30)
        _refused(first, second, first.state_dict(), words)


@SEARCHED
def test_a_state_without_a_key_is_refused(optimizer: Any) -> None:
    _, _, first = _saved(glyder.GlyderLR, 4, optimizer)
    _, _, second = _saved(glyder.GlyderLR, 2, optimizer)
    whole = first.state_dict()
    for key in whole:
        words = {"version": "version None", "scheduler": "is of None"}.get(key, rf"lacks \['{key}'\]: load what")
        _refused(first, second, {k: v for k, v in whole.items() if k != key}, words)
    for key in whole["search"]:
        part = whole | {"search": {k: v for k, v in whole["search"].items() if k != key}}
        _refused(first, second, part, "lacks|in a search by")
    stages = {name: {"unknown": 1.0} for name in whole["stages"]}
    with pytest.raises((TypeError, ValueError)):
        second.load_state_dict(whole | {"stages": stages})
    assert second.updates == 2


@SEARCHED
def test_a_search_that_was_extended_goes_on_as_it_was(optimizer: Any) -> None:
    """Its length is that of the total_steps that it was given on the way, not that of the constructor."""
    model, o, first = _saved(glyder.GlyderLR, 4, optimizer, total_steps=400)
    first.extend(100)
    model2, o2, second = _saved(glyder.GlyderLR, 0, optimizer, total_steps=100)
    for mine, saved in ((model2, model), (o2, o), (second, first)):
        mine.load_state_dict(copy.deepcopy(saved.state_dict()))
    for m, of in ((model, o), (model2, o2)):
        train(m, of, range(4, 40))
    assert same(weights(model), weights(model2))
    assert same(first.state_dict(), second.state_dict())
