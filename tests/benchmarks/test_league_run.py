"""What the league runs, and what it never does: on stores that are played, without training."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.league import cost, data, plan, refit, rivals, suites, train
from benchmarks.league.__main__ import main
from benchmarks.league.dry import missing
from benchmarks.league.methods import makers
from benchmarks.league.store import Store
from benchmarks.league.suites import Stage, Suite
from benchmarks.league.train import FRESH_SEEDS, Run
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


@pytest.mark.parametrize("bottom", [-7, -4, -1])
def test_a_cosine_has_its_own_peak(tmp_path: Path, bottom: int) -> None:
    """Away from the linear decay's, which is at 0.01; the best of those tried runs on seeds B, behind its warm-up."""
    c, store = cell("a", optimizers=("AdamW",)), Store(tmp_path / "runs.jsonl")

    def model(run: Run) -> float:
        late = 0.01 * (run.options["warmup"] != "none")
        return late + times(1.0, bottom if run.options["anneal"] == "cosine" else -4)(run)

    chosen = play(plan.beside("cosine", c, store), store, model)
    lines = [r for r in store.records.values() if r["options"]["anneal"] == "cosine"]
    assert {r["options"]["warmup"] for r in lines} == {"none"}
    peaks = {seed: {r["options"]["peak"] for r in lines if r["seed"] == seed} for seed in (101, *FRESH_SEEDS)}
    assert peaks.pop(101) == {peak(k) for k in range(min(bottom, -4) - 1, max(bottom, -4) + 2)}
    assert peaks == {seed: {peak(bottom)} for seed in FRESH_SEEDS}
    assert [(run.options["peak"], run.seed) for run in chosen] == [(peak(bottom), seed) for seed in FRESH_SEEDS]


def test_the_best_recipe_runs_on_seeds_b(tmp_path: Path) -> None:
    """Whatever it does there."""
    c, store = cell("a"), Store(tmp_path / "runs.jsonl")

    def model(run: Run) -> float:
        return {"documented": 0.6, "annealed": 0.5, "linear": 0.7}[run.options["recipe"]] + run.seed / 1000

    chosen = play(plan.beside("prodigy", c, store), store, model)
    assert {(run.method, run.options["recipe"], run.seed) for run in chosen} == {
        ("prodigy", "annealed", s) for s in (1, 2, 3)
    }
    assert len(store.records) == 3 + 3
    assert {r["seed"] for r in store.records.values()} == {101, *FRESH_SEEDS}


def test_one_fixed_peak_is_chosen_from_all_development_cells(tmp_path: Path) -> None:
    """Peaks of 10 and 0.1 are best: 1 lies between. None while a cell is not tuned; other cells have no say."""
    made = [cell("a"), cell("b"), cell("secret", reserved=True), cell("odd", apart=True)]
    known = {c.name: c for c in made}
    store = played(tmp_path / "runs.jsonl", [made[0], *made[2:]], times(1.0, 2))
    assert plan.fixed_peaks(store, known) == {}
    store = played(tmp_path / "runs.jsonl", [made[1]], times(1.0, -2))
    assert plan.fixed_peaks(store, known) == {"SGD": 1.0}


def test_torn_last_line_is_left_out_and_run_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs.jsonl")
    first, second = (Run("a", "SGD", "dog", seed) for seed in (1, 2))
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
    for there in (0, 1, 10, 24, len(whole.records)):
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
    assert "skipped: mnist-mlp-raw needs data that are not here: mnist\n" in told.err
    assert "skipped: adapter needs data that are not here: shakespeare, multi30k\n" in told.err
    here = [c for c in cells().values() if not c.reserved and not set(c.needs) & data.FILES.keys()]
    counted = [c for c in here if not c.apart]
    counts = {text[:20].strip(): int(text[20:27]) for text in told.out.splitlines() if " runs " in text}
    assert counts == {
        "tuned and glyder": len(here) * 3 * (7 + 3 + 3 + 3 * 2 + 2 * 3),
        plan.BEST: 0,  # the cells that are not here are not tuned
        "cosine": len(counted) * (3 + 3),
        "peak 3e-4": len(counted) * 3,
        "peak 1e-3": len(counted) * 3,
        "prodigy": len(counted) * (3 + 3),
        "schedulefree": len(counted) * (2 + 3),
        "starting rate": 1 * 3 * 3 * 3,
        "refits": 1 * 3,
        "cost": 2 * sum(not c.stretch for c in counted) + 2,
        "to run in all": counts["to run in all"],
    }
    assert counts.pop("to run in all") == sum(counts.values())


def test_cells_apart_and_reserved_ones_in_the_plan(tmp_path: Path) -> None:
    """Those apart are compared with the tuned schedule alone; reserved ones with all, but not timed."""
    made = [cell(name, optimizers=("SGD", "AdamW")) for name in ("a", "odd", "secret")]
    made[1:] = dataclasses.replace(made[1], apart=True), dataclasses.replace(made[2], reserved=True)
    stages = {stage.name: missing(stage) for stage in suites.Full(made, Store(tmp_path / "runs.jsonl"), ()).stages()}
    run = {name: {(r.cell, r.optimizer) for r in runs} for name, runs in stages.items() if name in plan.BESIDE}
    assert {r.cell for r in stages["tuned and glyder"]} == {"a", "odd", "secret"}
    assert run == {name: {("a", "AdamW"), ("secret", "AdamW")} for name in plan.BESIDE}
    assert {r.cell for r in stages["cost"]} == {"a", cost.WIDE_CELL}
    assert not stages["starting rate"] + stages["refits"]


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


def test_a_recipe_is_the_code_and_not_what_is_said_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the scheduler does not import, comments and docstrings change nothing; a number does."""
    package = tmp_path / "glyder"
    package.mkdir()
    (package / "search.py").write_text("from glyder.other import x\nfrom glyder import third\ny = 1  # one\n")
    for name in ("other", "third", "apart"):
        (package / f"{name}.py").write_text('"""Something."""\nx = 1\n')
    assert [path.stem for path in train.reached(package, "search")] == ["other", "search", "third"]
    assert train.bare('"""A."""\ndef f():\n    """B."""\n    return 1  # C\n') == train.bare("def f():\n  return 1\n")
    assert train.bare("def f():\n    return 1\n") != train.bare("def f():\n    return 2\n")

    read: list[str] = []
    text = Path.read_text

    def noted(path: Path, **how: Any) -> str:
        read.append(path.name)
        return text(path, **how)

    monkeypatch.setattr(Path, "read_text", noted)
    train.recipe.__wrapped__()
    searches = {"cosine_search.py", "edge_search.py"}
    assert searches | {"peak.c", "edge.c", "peak.h", "gl_tensorwise.c", "schedule.c"} <= set(read)
    assert not {"local_optimum.py", "polyak.py", "polyak.c"} & set(read)


def test_runs_of_glyder_are_keyed_by_its_code() -> None:
    for method in ("glyder", "refit", "glyder-search", "glyder-time"):
        assert Run("a", "SGD", method, 1).key == f'["a", "SGD", "{method}", 1, {{}}, "{train.recipe()}"]'
    assert Run("a", "SGD", "dog", 1, {"b": 1}).key == '["a", "SGD", "dog", 1, {"b": 1}]'
    assert {name for name in makers() if train.ours(name)} == {"glyder"}


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
    assert train._train(Run("digits-mlp", "SGD", "tuned", 101, {"peak": 0.01}))["diverged"] is diverged


def short(monkeypatch: pytest.MonkeyPatch, module: Any, steps: int) -> None:
    """The smoke cell with fewer updates, for a module of the league."""
    made = dataclasses.replace(cells()["digits-mlp"], steps=steps)
    monkeypatch.setattr(module, "cells", lambda: {made.name: made})


def test_the_peak_is_in_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of 40 falls from it to zero by equal steps, once it was found in 8 to 24 updates."""
    short(monkeypatch, train, 40)
    record = train._train(Run("digits-mlp", "AdamW", "glyder", 1))
    steps = record["peak"] / -np.diff(record["rates"])[25:]
    assert steps == pytest.approx(round(steps[0]), rel=2e-2)  # rates are kept to four digits
    assert 16 <= round(steps[0]) <= 32
    assert "peak" not in train._train(Run("digits-mlp", "AdamW", "tuned", 1, {"peak": 0.01}))


def test_starting_rates_play_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    short(monkeypatch, train, 40)
    found = [train._train(Run("digits-mlp", "SGD", "glyder", 1, {"start": start})) for start in plan.STARTS]
    assert all(record["test"] == found[0]["test"] and record["peak"] == found[0]["peak"] for record in found)


def test_refits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each fit goes on with the net and the batches of the one before, and with nothing else."""
    seen: list[Any] = []

    class Noted(refit.Glyder):
        def __init__(self, task: Task, *how: Any) -> None:
            super().__init__(task, *how)
            seen.append((task, self.optimizers[0], self.scheduler.total_steps, task.model[1].weight.detach().clone()))

    monkeypatch.setattr(refit, "Glyder", Noted)
    found = refit.fits(Run("digits-mlp", "AdamW", "refit", 1), count=3, steps=60)
    assert found["losses"] == sorted(found["losses"], reverse=True)
    assert found["steps"] == 180
    tasks, optimizers, horizons, weights = zip(*seen, strict=True)
    assert horizons == (60,) * 3
    assert len(set(map(id, tasks))) == 1
    assert len(set(map(id, optimizers))) == 3
    assert not any(itertools.starmap(torch.equal, itertools.pairwise(weights)))


def test_cost_of_a_run() -> None:
    """Two whole runs, of which glyder's has its search."""
    found = cost.execute(Run("digits-mlp-t30", "SGD", cost.TIME, cost.SEED))
    assert found["glyder"] > 0
    assert found["plain"] > 0
    assert "crashed" not in found


def test_rivals_have_the_linear_decay_too() -> None:
    """Schedule-Free has nothing to anneal; of the others the factor half way tells the schedules apart."""
    for name, recipes in rivals.HORIZON.items():
        assert tuple(recipes) == ("documented", "annealed", *(() if name == "schedulefree" else ("linear",)))

    class Plain(rivals.Rival):
        name, copies = "dog", {"SGD": 0}

        def made(self, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
            return torch.optim.SGD(parameters, lr=1.0)

    few = dataclasses.replace(cells()["digits-mlp"], steps=40)
    rates = {}
    for how in ("documented", "annealed", "linear"):
        task = few.build(101)
        method = Plain(task, few, "SGD", how)
        rates[how] = [method.rate() for _ in train.updates(task, few, method)]
    half = 10 + 15  # behind a warm-up of a quarter
    assert set(rates["documented"]) == {1.0}
    for how in ("annealed", "linear"):
        # an update of 30 changes a factor by 1/30, the cosine's by pi/2 of that in the middle
        assert rates[how][half] == pytest.approx(0.5, abs=0.06)
    assert rates["annealed"][half + 6] < 0.9 * rates["linear"][half + 6]
