"""What the command runs, and what it never does: on stores that are played, without training."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.harness import train
from benchmarks.harness.run import EVALUATION_SEEDS, Run
from benchmarks.harness.store import Store
from benchmarks.harness.tuning import FURTHEST, peak, tune
from benchmarks.studies import cost, plan, refit, suites
from benchmarks.tasks.common import data
from benchmarks.tasks.common.catalogue import tasks
from benchmarks.tasks.common.task import Problem

from .made import line, play, played, task, times


@pytest.fixture
def two_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tasks, one of them held out, whose runs are played."""

    def drive(studies: list[Any], store: Store, jobs: int, does: Any) -> None:
        for study in studies:
            play(study, store, times(1.0))

    made = [task(name, held_out=name == "secret", suites=("quick",), optimizers=("SGD",)) for name in ("a", "secret")]
    monkeypatch.setattr(plan, "tasks", lambda: {c.name: c for c in made})
    monkeypatch.setattr(suites, "drive", drive)


def run(folder: Path, *options: str) -> set[str]:
    """Tasks that have lines after a run of the suite ``quick``."""
    main(["run", "--suite", "quick", "--results", str(folder), *options])
    return {r["cell"] for r in Store(folder / "runs.jsonl").records.values()}


@pytest.mark.usefixtures("two_tasks")
def test_held_out_tasks_run_in_the_open_only(tmp_path: Path) -> None:
    log = tmp_path / "final.jsonl"
    assert run(tmp_path) == {"a"}
    with pytest.raises(SystemExit, match="secret is held out"):
        run(tmp_path, "--tasks", "secret")
    assert not log.exists()
    assert run(tmp_path, "--final") == {"a", "secret"}
    run(tmp_path, "--final")
    lines = [json.loads(text) for text in log.read_text().splitlines()]
    assert [(entry["count"], entry["cells"]) for entry in lines] == [(1, ["secret"]), (2, ["secret"])]
    assert all(entry["commit"] for entry in lines)


@pytest.mark.parametrize("bottom", [-6, -4, 3, 5])
def test_grid_grows_until_its_best_is_inside(tmp_path: Path, bottom: int) -> None:
    c, store = task("a"), Store(tmp_path / "runs.jsonl")
    found = play(tune(c, "SGD", store), store, times(1.0, bottom))
    assert found.half == bottom
    assert set(found.losses) == {bottom - 1, bottom, bottom + 1}
    tried = {round(float(r["options"]["peak"]), 9) for r in store.records.values()}
    assert len(tried) == 7 + abs(bottom) - 2


@pytest.mark.parametrize("up", [-1, 1])
def test_grid_ends_somewhere(tmp_path: Path, up: int) -> None:
    """Where a smaller peak is always better, or a larger one."""
    store = Store(tmp_path / "runs.jsonl")
    found = play(tune(task("a"), "SGD", store), store, lambda run: float(run.options["peak"]) ** -up)
    assert FURTHEST <= up * found.half <= FURTHEST + 3


@pytest.mark.parametrize("bottom", [-7, -4, -1])
def test_a_cosine_has_its_own_peak(tmp_path: Path, bottom: int) -> None:
    """Away from the linear decay's, which is at 0.01; the best of those tried is evaluated, behind its warm-up."""
    c, store = task("a", optimizers=("AdamW",)), Store(tmp_path / "runs.jsonl")

    def model(run: Run) -> float:
        late = 0.01 * (run.options["warmup"] != "none")
        return late + times(1.0, bottom if run.options["anneal"] == "cosine" else -4)(run)

    chosen = play(plan.beside("cosine", c, store), store, model)
    lines = [r for r in store.records.values() if r["options"]["anneal"] == "cosine"]
    assert {r["options"]["warmup"] for r in lines} == {"none"}
    peaks = {seed: {r["options"]["peak"] for r in lines if r["seed"] == seed} for seed in (101, *EVALUATION_SEEDS)}
    assert peaks.pop(101) == {peak(k) for k in range(min(bottom, -4) - 1, max(bottom, -4) + 2)}
    assert peaks == {seed: {peak(bottom)} for seed in EVALUATION_SEEDS}
    assert [(run.options["peak"], run.seed) for run in chosen] == [(peak(bottom), seed) for seed in EVALUATION_SEEDS]


def test_the_best_recipe_runs_on_evaluation_seeds(tmp_path: Path) -> None:
    """Whatever it does there."""
    c, store = task("a"), Store(tmp_path / "runs.jsonl")

    def model(run: Run) -> float:
        return {"documented": 0.6, "annealed": 0.5, "linear": 0.7}[run.options["recipe"]] + run.seed / 1000

    chosen = play(plan.beside("prodigy", c, store), store, model)
    assert {(run.method, run.options["recipe"], run.seed) for run in chosen} == {
        ("prodigy", "annealed", s) for s in (1, 2, 3)
    }
    assert len(store.records) == 3 + 3
    assert {r["seed"] for r in store.records.values()} == {101, *EVALUATION_SEEDS}


def test_one_fixed_peak_from_all_development_tasks(tmp_path: Path) -> None:
    """Peaks of 10 and 0.1 are best: 1 lies between. None while a task is not tuned; other tasks have no say."""
    made = [task("a"), task("b"), task("secret", held_out=True), task("odd", apart=True)]
    known = {c.name: c for c in made}
    store = played(tmp_path / "runs.jsonl", [made[0], *made[2:]], times(1.0, 2))
    assert plan.fixed_peaks(store, known) == {}
    store = played(tmp_path / "runs.jsonl", [made[1]], times(1.0, -2))
    assert plan.fixed_peaks(store, known) == {"SGD": 1.0}


def test_torn_last_line_is_left_out_and_run_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs.jsonl")
    first, second = (Run("a", "SGD", "prodigy", seed) for seed in (1, 2))
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


def test_what_is_left_is_what_is_lacking(tmp_path: Path) -> None:
    """Of the first grid, of the comparison that follows, of nothing; a run that two stages ask for counts once."""
    whole = played(tmp_path / "whole.jsonl", [task("a")], times(1.0, -4), ("AdamW",))
    for there, lacking in ((3, range(3, 7)), (len(whole.records) - 2, range(-2, 0)), (len(whole.records), ())):
        cut, keys = Store(tmp_path / f"{there}.jsonl"), list(whole.records)
        for key in keys[:there]:
            cut.add(whole.records[key])
        left = suites.Full([task("a", optimizers=("AdamW",))], cut, ()).left()
        assert [run.key for run in left["tuned and glyder"]] == [keys[i] for i in lacking]
        assert len(left["cosine"]) == (0 if there == 3 else 3)
        assert len(Store(cut.path).records) == there


def test_without_data_the_rest_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GLYDER_DATA", str(tmp_path))
    main(["run", "--suite", "full", "--dry-run", "--results", str(tmp_path)])
    told = capsys.readouterr()
    assert "skipped: mnist-mlp-raw needs data that are not here: mnist\n" in told.err
    assert "skipped: adapter needs data that are not here: shakespeare, multi30k\n" in told.err
    lacking = data.FILES.keys() | {name for name in data.PACKAGES if find_spec(name) is None}
    here = [c for c in tasks().values() if not c.held_out and not set(c.needs) & lacking]
    counted = [c for c in here if not c.apart]
    counts = {text[:20].strip(): int(text[20:27]) for text in told.out.splitlines() if " runs " in text}
    assert counts == {
        "tuned and glyder": len(here) * 3 * 7,  # the first grid decides what follows
        plan.BEST: 0,  # the tasks that are not here are not tuned
        "cosine": 0,  # nor that
        "peak 3e-4": len(counted) * 3,
        "peak 1e-3": len(counted) * 3,
        "prodigy": len(counted) * 3,
        "schedulefree": len(counted) * 2,
        "starting rate": 1 * 3 * 3 * 3,
        "refits": 1 * 3,
        "cost": 2 * sum(not c.stretch for c in counted) + 2,
    }


def test_tasks_apart_and_held_out_in_the_plan(tmp_path: Path) -> None:
    """Those apart are compared with the tuned schedule alone; held-out ones with all, but not timed."""
    made = [task(name, optimizers=("SGD", "AdamW")) for name in ("a", "odd", "secret")]
    made[1:] = dataclasses.replace(made[1], apart=True), dataclasses.replace(made[2], held_out=True)
    empty = suites.Full(made, Store(tmp_path / "empty.jsonl"), ())
    assert {r.task for r in empty.left()["tuned and glyder"]} == {"a", "odd", "secret"}
    stages = suites.Full(made, played(tmp_path / "runs.jsonl", made, times(1.0, -4), ("SGD", "AdamW")), ()).left()
    run = {name: {(r.task, r.optimizer) for r in runs} for name, runs in stages.items() if name in plan.BESIDE}
    assert not stages["tuned and glyder"]
    assert run == {name: {("a", "AdamW"), ("secret", "AdamW")} for name in plan.BESIDE}
    assert {r.task for r in stages["cost"]} == {"a", cost.WIDE_TASK}
    assert not stages["starting rate"] + stages["refits"]


@pytest.mark.parametrize("name", ["digits-mlp", "diabetes"])
def test_seed_decides_a_task(name: str) -> None:
    def begun(seed: int) -> tuple[list[torch.Tensor], dict[str, float]]:
        problem = tasks()[name].build(seed)
        score = problem.evaluate(problem.model, "validation")
        assert problem.model.training
        return [*problem.model.parameters(), *(part for _ in range(3) for part in next(problem.batches))], score

    one, again, other = begun(1), begun(1), begun(2)
    assert all(map(torch.equal, one[0], again[0]))
    assert one[1] == again[1]
    assert not any(map(torch.equal, one[0], other[0]))
    assert one[1] != other[1]


@pytest.mark.parametrize(("end", "diverged"), [(1.49, False), (1.51, True), (math.nan, True)])
def test_a_run_that_ends_above_its_start_diverged(end: float, diverged: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By half, on the validation part; whatever it did on its way."""
    known = tasks()["digits-mlp"]

    def build(seed: int) -> Problem:
        problem = known.build(seed)
        scores = iter([2.0, 1.0, 2.0 * end])  # before training; afterwards of the parts
        return dataclasses.replace(problem, evaluate=lambda model, part: {"loss": next(scores)})

    short = dataclasses.replace(known, build=build, steps=3)
    monkeypatch.setattr(train, "tasks", lambda: {"digits-mlp": short})
    assert train.scored(Run("digits-mlp", "SGD", "tuned", 101, {"peak": 0.01}))["diverged"] is diverged


def short(monkeypatch: pytest.MonkeyPatch, module: Any, steps: int) -> None:
    """The smoke task with fewer updates, for a module of the results."""
    made = dataclasses.replace(tasks()["digits-mlp"], steps=steps)
    monkeypatch.setattr(module, "tasks", lambda: {made.name: made})


def test_the_peak_is_in_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of 40 falls from it to zero by equal steps, once it was found in 8 to 24 updates."""
    short(monkeypatch, train, 40)
    record = train.scored(Run("digits-mlp", "AdamW", "glyder", 1))
    steps = record["peak"] / -np.diff(record["rates"])[25:]
    assert steps == pytest.approx(round(steps[0]), rel=2e-2)  # rates are kept to four digits
    assert 16 <= round(steps[0]) <= 32
    assert "peak" not in train.scored(Run("digits-mlp", "AdamW", "tuned", 1, {"peak": 0.01}))


def test_starting_rates_play_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    short(monkeypatch, train, 40)
    found = [train.scored(Run("digits-mlp", "SGD", "glyder", 1, {"start": start})) for start in plan.STARTS]
    assert all(record["test"] == found[0]["test"] and record["peak"] == found[0]["peak"] for record in found)


def test_refits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each fit goes on with the net and the batches of the one before, and with nothing else."""
    seen: list[Any] = []

    class Noted(refit.Glyder):
        def __init__(self, problem: Problem, *how: Any) -> None:
            super().__init__(problem, *how)
            seen.append((problem, self.optimizer, self.scheduler.total_steps, problem.model[1].weight.detach().clone()))

    monkeypatch.setattr(refit, "Glyder", Noted)
    found = refit.fits(Run("digits-mlp", "AdamW", "refit", 1), count=3, steps=60)
    assert found["losses"] == sorted(found["losses"], reverse=True)
    assert found["steps"] == 180
    problems, optimizers, horizons, weights = zip(*seen, strict=True)
    assert horizons == (60,) * 3
    assert len(set(map(id, problems))) == 1
    assert len(set(map(id, optimizers))) == 3
    assert not any(itertools.starmap(torch.equal, itertools.pairwise(weights)))


def test_cost_of_a_run() -> None:
    """Two whole runs, of which glyder's has its search."""
    found = cost.measured(Run("digits-mlp-t30", "SGD", cost.TIME, cost.SEED))
    assert found["glyder"] > 0
    assert found["plain"] > 0
    assert "crashed" not in found
