"""What the league runs, and what it never does: on stores that are played, without training."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.league import cost, data, plan, suites, train
from benchmarks.league.__main__ import main
from benchmarks.league.dry import missing
from benchmarks.league.store import Store
from benchmarks.league.suites import Stage, Suite
from benchmarks.league.train import Run
from benchmarks.league.tuning import FURTHEST, Study, loss_of, peak, tune
from benchmarks.league.workload import Task, cells

from .made import cell, line, play, played, times


@pytest.fixture
def league(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cells, one of them reserved, whose runs are played."""

    def drive(studies: list[Any], store: Store, jobs: int, execute: Any) -> None:
        for study in studies:
            play(study, store, times(1.0))

    made = [cell(name, reserved=name == "secret", suites=("quick",), optimizers=("SGD",)) for name in ("a", "secret")]
    monkeypatch.setattr(plan, "cells", lambda: {c.name: c for c in made})
    monkeypatch.setattr(suites, "drive", drive)


def run(folder: Path, *options: str) -> set[str]:
    """Cells that have lines after a run of the suite ``quick``."""
    main(["run", "--suite", "quick", "--results", str(folder), *options])
    return {r["cell"] for r in Store(folder / "runs.jsonl").records.values()}


@pytest.mark.usefixtures("league")
def test_reserved_cells_run_in_the_open_only(tmp_path: Path) -> None:
    log = tmp_path / "final.jsonl"
    assert run(tmp_path) == {"a"}
    with pytest.raises(SystemExit, match="secret is reserved"):
        run(tmp_path, "--cells", "secret")
    assert not log.exists()
    assert run(tmp_path, "--final") == {"a", "secret"}
    run(tmp_path, "--final")
    lines = [json.loads(text) for text in log.read_text().splitlines()]
    assert [(entry["count"], entry["cells"]) for entry in lines] == [(1, ["secret"]), (2, ["secret"])]
    assert all(entry["commit"] for entry in lines)


@pytest.mark.parametrize("bottom", [-6, -4, 3, 5])
def test_grid_grows_until_its_best_is_inside(tmp_path: Path, bottom: int) -> None:
    c, store = cell("a"), Store(tmp_path / "runs.jsonl")
    found = play(tune(c, "SGD", store), store, times(1.0, bottom))
    assert found.half == bottom
    assert set(found.losses) == {bottom - 1, bottom, bottom + 1}
    tried = {round(float(r["options"]["peak"]), 9) for r in store.records.values()}
    assert len(tried) == 7 + abs(bottom) - 2


@pytest.mark.parametrize("up", [-1, 1])
def test_grid_ends_somewhere(tmp_path: Path, up: int) -> None:
    """Where a smaller peak is always better, or a larger one."""
    store = Store(tmp_path / "runs.jsonl")
    found = play(tune(cell("a"), "SGD", store), store, lambda run: float(run.options["peak"]) ** -up)
    assert FURTHEST <= up * found.half <= FURTHEST + 3


@pytest.mark.parametrize("bottom", [-3, 0, 3])
def test_other_schedules_have_their_own_peak(tmp_path: Path, bottom: int) -> None:
    """Away from the cosine's, which is at 1; the best of those tried runs on seeds B. The warm-up is the cosine's."""
    c, store = cell("a"), Store(tmp_path / "runs.jsonl")

    def model(run: Run) -> float:
        late = 0.01 * (run.options["warmup"] != "none")
        return late + times(1.0, bottom if "anneal" in run.options else 0)(run)

    play(plan.shapes(c, "SGD", store, ("linear", "wsd")), store, model)
    for anneal in ("linear", "wsd"):
        lines = [r for r in store.records.values() if r["options"].get("anneal") == anneal]
        assert {r["options"]["warmup"] for r in lines} == {"none"}
        peaks = {seed: {r["options"]["peak"] for r in lines if r["seed"] == seed} for seed in (101, *plan.RIVAL_SEEDS)}
        assert peaks.pop(101) == {peak(k) for k in range(min(bottom, 0) - 1, max(bottom, 0) + 2)}
        assert peaks == {seed: {peak(bottom)} for seed in plan.RIVAL_SEEDS}


def test_one_fixed_peak_is_chosen_from_all_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Peaks of 10 and 0.1 are best: 1 lies between. None while a cell is not tuned."""
    made = [cell(name, optimizers=("SGD",)) for name in ("a", "b")]
    monkeypatch.setattr(plan, "cells", lambda: {c.name: c for c in made})
    store = played(tmp_path / "runs.jsonl", made[:1], times(1.0, 2))
    assert plan.fixed_peaks(store) == {}
    store = played(tmp_path / "runs.jsonl", made[1:], times(1.0, -2))
    assert plan.fixed_peaks(store) == {"SGD": 1.0}


def test_torn_last_line_is_left_out_and_run_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs.jsonl")
    first, second = (Run("a", "SGD", "plain", seed) for seed in (1, 2))
    for each in (first, second):
        store.add(line(each, 0.5))
    whole = store.path.read_bytes()
    store.path.write_bytes(whole[:-40])
    torn = Store(store.path)
    assert torn.missing([first, second]) == [second]
    torn.add(line(second, 0.5))
    again = Store(store.path)
    assert again.missing([first, second]) == []
    assert again[second] == store[second]


def test_dry_run_counts_what_is_run(tmp_path: Path) -> None:
    """On an empty store and on one that was cut off, and without writing."""
    whole = played(tmp_path / "whole.jsonl", [cell("a")], times(1.0))
    for there in (0, 1, 10, 28, len(whole.records)):
        cut = Store(tmp_path / f"{there}.jsonl")
        for record in itertools.islice(whole.records.values(), there):
            cut.add(record)
        (stage,) = Suite([cell("a", optimizers=("SGD",))], cut, ()).stages()
        assert {run.key for run in missing(stage)} == whole.records.keys() - set(itertools.islice(whole.records, there))
        assert len(Store(cut.path).records) == there


@pytest.mark.parametrize("there", [0, 7])
def test_dry_run_counts_a_grid_once(tmp_path: Path, there: int) -> None:
    """That two studies of a stage ask for, and two stages; of it nothing is there, or all."""
    store = Store(tmp_path / "runs.jsonl")
    grid = [Run("a", "SGD", "tuned", 101, {"peak": peak(k)}) for k in range(7)]
    for k, run in enumerate(grid[:there]):
        store.add(line(run, 1.0 + abs(k - 3)))

    def study(seed: int) -> Study:
        yield grid
        best = min(grid, key=lambda run: loss_of(store[run]))
        yield [*(dataclasses.replace(best, seed=s) for s in range(102, 107)), best]
        yield [dataclasses.replace(best, seed=seed)]

    stages = [Stage(name, lambda: [study(1), study(2)], store) for name in ("one", "two")]
    assert [len(missing(stage)) for stage in stages] == [7 - there + 5 + 2, 0]


def test_without_data_the_rest_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GLYDER_DATA", str(tmp_path))
    main(["run", "--suite", "full", "--dry-run", "--results", str(tmp_path)])
    told = capsys.readouterr()
    assert "skipped: mnist-mlp-t60 needs data that are not here: mnist\n" in told.err
    assert "skipped: adapter needs data that are not here: shakespeare, multi30k\n" in told.err
    here = sum(all(name not in data.FILES for name in c.needs) for c in cells().values())
    counts = {text[:20].strip(): int(text[20:27]) for text in told.out.splitlines() if " runs " in text}
    assert counts["tuned and glyder"] == here * 3 * 29
    assert counts["one fixed peak"] == here * 3 * 5 * 2
    assert counts["starting rate"] == 1 * 3 * 5 * 3
    assert counts.pop("to run in all") == sum(counts.values())


@pytest.mark.parametrize("name", ["digits-mlp", "diabetes"])
def test_seed_decides_a_task(name: str) -> None:
    def begun(seed: int) -> tuple[list[torch.Tensor], dict[str, float]]:
        task = cells()[name].build(seed)
        score = task.evaluate(task.model, "validation")
        assert task.model.training
        return [*task.model.parameters(), *(part for _ in range(3) for part in next(task.batches))], score

    one, again, other = begun(1), begun(1), begun(2)
    assert all(map(torch.equal, one[0], again[0]))
    assert one[1] == again[1]
    assert not any(map(torch.equal, one[0], other[0]))
    assert one[1] != other[1]


def test_a_recipe_is_the_code_and_not_what_is_said_of_it(tmp_path: Path) -> None:
    """What the scheduler does not import, comments and docstrings change nothing; a number does."""
    package = tmp_path / "glyder"
    package.mkdir()
    (package / "descent.py").write_text("from glyder.other import x\nfrom glyder import third\ny = 1  # one\n")
    for name in ("other", "third", "apart"):
        (package / f"{name}.py").write_text('"""Something."""\nx = 1\n')
    assert [path.stem for path in train.reached(package, "descent")] == ["descent", "other", "third"]
    assert train.bare('"""A."""\ndef f():\n    """B."""\n    return 1  # C\n') == train.bare("def f():\n  return 1\n")
    assert train.bare("def f():\n    return 1\n") != train.bare("def f():\n    return 2\n")


@pytest.mark.parametrize(("end", "diverged"), [(1.49, False), (1.51, True), (math.nan, True)])
def test_a_run_has_diverged_where_it_ends_above_its_start(
    end: float, diverged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By half, on the validation part; whatever it did on its way."""
    known = cells()["digits-mlp"]

    def build(seed: int) -> Task:
        task = known.build(seed)
        scores = iter([2.0, 1.0, 2.0 * end])  # before training; afterwards of the parts
        return dataclasses.replace(task, evaluate=lambda model, part: {"loss": next(scores)})

    short = dataclasses.replace(known, build=build, steps=3)
    monkeypatch.setattr(train, "cells", lambda: {"digits-mlp": short})
    assert train._train(Run("digits-mlp", "SGD", "plain", 101, {"peak": 0.01}))["diverged"] is diverged


def test_cost_of_a_run() -> None:
    """Two whole runs, of which glyder's has its measurements."""
    found = cost.execute(Run("digits-conv", "SGD", cost.TIME, cost.SEED))
    assert found["glyder"] > 0
    assert found["plain"] > 0
    assert "crashed" not in found
