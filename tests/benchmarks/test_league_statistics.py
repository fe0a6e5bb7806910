"""The league's statistics, on leagues whose answer is known."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.league import report, resample, statistics
from benchmarks.league.methods import makers
from benchmarks.league.pairs import League
from benchmarks.league.plan import RIVAL_SEEDS
from benchmarks.league.store import Store
from benchmarks.league.train import FRESH_SEEDS, TUNING_SEEDS, Run, recipe
from benchmarks.league.tuning import run_at
from benchmarks.league.workload import Cell

from .made import INITIAL, cell, half, line, played, times


def told(store: Store, cells: list[Cell], **options: Any) -> dict[str, Any]:
    return statistics.summary(League(store, known={c.name: c for c in cells}, **options))


def test_parabola_by_hand() -> None:
    """1 + 0.1 (x - 0.25)^2 at -1, 0, 1: its bottom is 1, at a quarter of a step."""
    below, tuned, above = (1 + 0.1 * (x - 0.25) ** 2 for x in (-1, 0, 1))
    bottom, off = resample.valley(below, tuned, above)
    assert bottom * tuned == pytest.approx(1.0)
    assert off * tuned == pytest.approx(1.05625)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ((1.0, 1.0, 1.0), (1.0, 1.0)),
        ((1.2, 1.0, 1.2), (1.0, 1.2)),
        ((1.0, 1.0, 50.0), (0.9, 1.0)),
        ((0.9, 1.0, 1.1), (0.9875, 1.0)),
    ],
)
def test_odd_valleys(losses: tuple[float, float, float], expected: tuple[float, float]) -> None:
    """Flat; symmetric; a cliff on one side; a neighbour that looks better because its divergence was capped."""
    assert resample.valley(*losses) == pytest.approx(expected)


def test_expected_best_is_that_of_all_subsets() -> None:
    losses = [1.4, 1.0, 2.3, 1.1, 1.1, 3.0, 1.02]
    found = resample.best_of(losses)
    for k in range(1, 8):
        chosen = [min(some) for some in itertools.combinations(losses, k)]
        assert found[k - 1] == pytest.approx(sum(chosen) / len(chosen))


def test_ten_percent_worse_everywhere(tmp_path: Path) -> None:
    cells = [cell("a"), cell("b"), cell("c", "b")]
    found = told(played(tmp_path / "runs.jsonl", cells, times(1.1), ("SGD", "AdamW")), cells)
    assert found["pairs"] == 6
    assert found["incomplete"] == []
    for row in found["cells"]:
        assert row["ratio"] == pytest.approx(1.1)
        assert row["interval"] == pytest.approx([1.1, 1.1])
        assert row["train_ratio"] == pytest.approx(1.1)
    assert found["median_ratio"]["value"] == found["worst_ratio"]["value"] == pytest.approx(1.1)
    assert found["median_ratio"]["interval"] == pytest.approx([1.1, 1.1])
    assert found["win_rate"]["value"] == 0
    assert found["sure"] == {"better": 0, "worse": 6}
    apart = {o: (group["pairs"], group["mean_ratio"]["value"]) for o, group in found["by_optimizer"].items()}
    assert apart == {"SGD": (3, pytest.approx(1.1)), "AdamW": (3, pytest.approx(1.1))}
    assert found["cost"]["steps"]["mean"] == pytest.approx(1 + 6 / 300)
    assert found["measured_cost"] == {"time": None, "memory": None}


def test_surely_better_surely_worse(tmp_path: Path) -> None:
    """Of ratios 0.9 and 1.1 on every seed, and of one that is 0.8 or 1.2 by the seed."""

    def model(run: Run) -> float:
        factor = {"better": 0.9, "worse": 1.1}.get(run.cell, (0.8, 1.2)[run.seed % 2])
        return times(factor)(run)

    cells = [cell(name) for name in ("better", "worse", "unsure")]
    assert told(played(tmp_path / "runs.jsonl", cells, model), cells)["sure"] == {"better": 1, "worse": 1}


def test_small_losses_keep_their_digits() -> None:
    assert [report.loss(v) for v in (None, 1.23456, 0.01, 0.00123456, 1.23e-9)] == [
        "-", "1.2346", "0.0100", "0.00123", "1.23e-09",
    ]  # fmt: skip


def test_what_fine_tuning_forgets(tmp_path: Path) -> None:
    """Where a run has no error on old classes, or one seed has not, nothing is told."""
    cells = [cell("a"), cell("b")]
    store = played(tmp_path / "runs.jsonl", cells, times(1.1))
    for r in store.records.values():
        if "test" in r and (r["cell"] == "a" or r["seed"] > 1):
            r["test"]["old_error"] = 0.5 if r["method"] == "glyder" else 0.25 * (r["seed"] % 2)
    rows = told(store, cells)["cells"]
    assert [row["old_error"] for row in rows] == [{"tuned": 0.15, "glyder": 0.5}, {}]
    assert report.forgotten(rows).endswith(": a SGD tuned 15.0 %, glyder 50.0 %.")
    assert report.forgotten(rows[1:]) == ""


def test_regret_is_measured_by_the_valley(tmp_path: Path) -> None:
    """A symmetric valley: its bottom is the tuned loss, 0.52 on seeds A, and a step off costs 0.05."""
    found = told(played(tmp_path / "runs.jsonl", [cell("a")], times(1.1)), [cell("a")])
    row = found["cells"][0]
    assert row["peak"] == 1.0
    assert not row["floored"]
    assert not row["deep"]
    assert row["regret"] == pytest.approx(0.1 / (0.05 / 0.52), rel=1e-4)
    assert row["tuning_runs"] == 7 + 3 + 3 + 3 * 2


def test_bottom_between_two_peaks(tmp_path: Path) -> None:
    """A quarter of a step beside the tuned peak, where glyder ends up."""

    def loss(run: Run, k: float) -> float:
        return 0.5 + 0.05 * (k - 0.25) ** 2 + 0.01 * (run.seed % 100)

    store = played(tmp_path / "runs.jsonl", [cell("a")], lambda r: loss(r, half(r) if r.method == "tuned" else 0.25))
    row = told(store, [cell("a")])["cells"][0]
    tuned = 0.523125
    bottom, off = 0.52 / tuned, 0.548125 / tuned
    assert row["valley"] == pytest.approx([bottom, off], rel=1e-5)
    assert row["regret"] == pytest.approx((0.53 / 0.533125 - bottom) / (off - bottom), rel=1e-3)
    assert row["tuned_regret"] == pytest.approx((1 - bottom) / (off - bottom), rel=1e-3)


def test_identical_losses(tmp_path: Path) -> None:
    cells = [cell("a"), cell("b")]
    found = told(played(tmp_path / "runs.jsonl", cells, times(1.0)), cells)
    assert [row["ratio"] for row in found["cells"]] == [1.0, 1.0]
    assert found["median_regret"]["value"] <= 0
    assert found["worst_regret"]["interval"][1] <= 0
    assert found["worth_runs"]["runs"] == 7  # only all seven hold the best for certain


def test_flat_valley_is_floored(tmp_path: Path) -> None:
    store = played(tmp_path / "runs.jsonl", [cell("a")], lambda run: 0.5 if run.method == "tuned" else 0.505)
    row = told(store, [cell("a")])["cells"][0]
    assert row["floored"]
    assert row["regret"] == pytest.approx(0.01 / 1e-3)


def test_scatter_does_not_lower_regret() -> None:
    """The floor grows with the noise of the comparison, up to what the tuned runs explain."""
    tuned = np.array([1.0, 1.02, 0.98, 1.01, 0.99])
    assert resample.noise(tuned, tuned * 1.1) == pytest.approx(0.1 * tuned.std(ddof=1) / math.sqrt(5))
    assert resample.noise(tuned, tuned + np.array([0, 0, 0, 0, 9])) == pytest.approx(
        tuned.std(ddof=1) * math.sqrt(2 / 5)
    )


def test_diverged_run_counts_as_untrained_model(tmp_path: Path) -> None:
    def model(run: Run) -> float:
        return math.inf if run.method == "glyder" and run.seed == 3 else times(1.0)(run)

    found = told(played(tmp_path / "runs.jsonl", [cell("a")], model), [cell("a")])
    tuned = [0.5 + 0.01 * s for s in FRESH_SEEDS]
    assert found["cells"][0]["ratio"] == pytest.approx((sum(tuned) - 0.53 + INITIAL) / sum(tuned), rel=1e-5)
    worst = {"value": 1.0, "where": "a SGD"}
    assert found["diverged"] == {
        "runs": 5, "diverged": 1, "crashed": 0, "where": ["a SGD seed 3"], "worst": worst, "passed": {},
    }  # fmt: skip


def test_best_of_k_is_relative_to_the_other_seeds_of_the_tuning(tmp_path: Path) -> None:
    """The first of seeds A is lucky by 0.1 at every peak; the other two are at 0.515 and 0.525 where they are best."""

    def model(run: Run) -> float:
        return {101: 0.42, 102: 0.515, 103: 0.525}.get(run.seed, 0.5) + (
            0.05 * half(run) ** 2 if run.method == "tuned" else 0.0
        )

    found = told(played(tmp_path / "runs.jsonl", [cell("a")], model), [cell("a")])["worth_runs"]
    assert found["expected_best"][-1] == pytest.approx(0.42 / 0.52, rel=1e-5)
    assert found["expected_best"][0] == pytest.approx((0.42 + 0.05 * 28 / 7) / 0.52, rel=1e-5)


@pytest.mark.parametrize("beyond", [math.inf, 3.0])
def test_diverged_peaks_of_the_grid(tmp_path: Path, beyond: float) -> None:
    """Above the best peak all runs blow up: they count as the initial loss, in the valley as in the best of k."""

    def model(run: Run) -> float:
        return beyond if run.method == "tuned" and half(run) > 0 else times(1.0)(run)

    found = told(played(tmp_path / "runs.jsonl", [cell("a")], model), [cell("a")])
    tuned = 0.52
    assert found["cells"][0]["valley"] == pytest.approx([0.9, 0.57 / tuned], rel=1e-5)
    assert found["cells"][0]["deep"]
    assert "] † |" in report.cells(found["cells"])
    assert "deeper than 0.9 of the tuned loss" in report.CELLS
    alone = tuned  # that of the other two seeds is the same in the mean
    grid = [(alone + 0.05 * k**2) / alone for k in range(4)] + [INITIAL / alone] * 3
    assert found["worth_runs"]["expected_best"][0] == pytest.approx(np.mean(grid), rel=1e-5)


def test_missing_runs_are_reported(tmp_path: Path) -> None:
    cells = [cell("a"), cell("b"), cell("c")]
    store = played(tmp_path / "runs.jsonl", cells, times(1.0))
    for run in (run_at(cells[0], "SGD", 1, "5%", TUNING_SEEDS[1]), Run("b", "SGD", "glyder", 4)):
        del store.records[run.key]
    found = told(store, cells[:2])
    assert [(i["cell"], i["why"]) for i in found["incomplete"]] == [
        ("a", "the tuning lacks 1 runs, or more"), ("b", "glyder lacks seed 4"), ("c", "no such cell"),
    ]  # fmt: skip
    assert found["pairs"] == 0


def test_pairs_without_lines_are_incomplete(tmp_path: Path) -> None:
    """Of every optimizer of every development cell; a reserved cell is not due."""
    cells = [cell("a", optimizers=("SGD", "AdamW")), cell("b"), cell("secret", reserved=True)]
    found = told(played(tmp_path / "runs.jsonl", cells[:1], times(1.0)), cells)
    assert found["incomplete"] == [
        {"cell": "a", "optimizer": "AdamW", "why": "not run"}, {"cell": "b", "optimizer": "SGD", "why": "not run"},
    ]  # fmt: skip
    assert report.verdict(found, False)[0].startswith(
        "1 of 3 pairs of a development cell and an optimizer are complete"
    )


def test_quantiles_of_student() -> None:
    """Half the mass between -t and t, by the density, is 0.475; the table has four decimals."""
    for df, t in enumerate(resample.STUDENT, 1):
        norm = math.gamma((df + 1) / 2) / (math.sqrt(df * math.pi) * math.gamma(df / 2))
        x = np.linspace(0, t, 20_001)
        density = norm * (1 + x**2 / df) ** (-(df + 1) / 2)
        slack = 5e-5 * density[-1] + 1e-8  # a digit of the table, and the trapezoids' own error
        assert np.trapezoid(density, x) == pytest.approx(0.475, abs=slack)


def test_interval_of_a_pair_covers() -> None:
    """Five seeds that vary together and a ratio of 1.1 that varies by itself; a bootstrap would cover 83 %."""
    generator, inside, draws = np.random.default_rng(0), 0, 4000
    for _ in range(draws):
        tuned = np.exp(0.02 * generator.standard_normal(5))
        low, high = resample.over_seeds(tuned, 1.1 * tuned * np.exp(0.05 * generator.standard_normal(5)))
        inside += low <= 1.1 <= high
    # four standard errors of the simulation; the mean of five ratios is a trifle above 1.1
    assert inside / draws == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / draws))


def test_seeds_are_resampled_within_clusters() -> None:
    """One cluster has its seeds alone to vary: mean and error are those of their bootstrap, its pairs sharing seeds."""
    tuned, other = np.ones((2, 5)), 1 + np.array([[-0.2, -0.1, 0.0, 0.1, 0.2], [0.2, 0.1, 0.0, -0.1, -0.2]])

    def both(_: np.ndarray, ratios: np.ndarray) -> np.ndarray:
        return np.append(ratios, ratios.mean())

    drawn = resample.clustered(tuned, other, ["a", "a"], both)
    error = np.std(other[0]) / math.sqrt(5)
    # the standard error of a standard deviation from n draws is 1/sqrt(2 n) of it
    assert drawn[:, :2].std(0) == pytest.approx([error, error], rel=4 / math.sqrt(2 * resample.RESAMPLES))
    assert drawn[:, 2] == pytest.approx(1.0)


def test_clusters_widen_the_interval() -> None:
    """Four workloads of six cells that agree perfectly within a workload tell no more than four cells."""
    tuned = np.ones((24, 5))
    other = np.repeat([0.9, 1.0, 1.1, 1.2], 6)[:, None] * tuned
    together, apart = [w for w in "abcd" for _ in range(6)], [str(i) for i in range(24)]

    def mean(_: np.ndarray, ratios: np.ndarray) -> np.ndarray:
        return np.array(ratios.mean())

    wide, narrow = (np.ptp(resample.interval(resample.clustered(tuned, other, c, mean))) for c in (together, apart))
    assert wide > 1.8 * narrow
    spread = np.std([0.9, 1.0, 1.1, 1.2])
    assert wide == pytest.approx(2 * 1.96 * spread / 2, rel=0.15)


def test_only_one_recipe_of_glyder(tmp_path: Path) -> None:
    """Lines of other recipes stay out; it is the tree's that counts, and the last line's where there is none of it."""
    store = played(tmp_path / "runs.jsonl", [cell("a")], times(1.0))
    of_tree = [r for r in store.records.values() if r["method"] == "glyder"]
    for name, factor in (("old", 3.0), ("new", 2.0)):
        for r in of_tree:
            store.add(r | {"key": r["key"] + name, "recipe": name, "test": {"loss": factor * r["test"]["loss"]}})
    found = told(store, [cell("a")])
    assert found["cells"][0]["ratio"] == pytest.approx(1.0)
    assert told(store, [cell("a")], recipe="old")["cells"][0]["ratio"] == pytest.approx(3.0)
    assert not any("the tree is" in text for text in report.verdict(found, False))
    for r in of_tree:
        del store.records[r["key"]]
    found = told(store, [cell("a")])
    assert found["cells"][0]["ratio"] == pytest.approx(2.0)
    assert report.verdict(found, False)[0] == f"These lines are of recipe new, the tree is {recipe()}."


def test_followed_is_of_a_recipe(tmp_path: Path) -> None:
    """It is GlyderLR by another name: a line of another recipe is another run, and enters no table."""
    keyed = {name for name in makers() if recipe() in Run("a", "SGD", name, 1).key}
    assert keyed == {"glyder", "glyder-ablated", "followed"}
    assert Run("a", "SGD", "dog", 1, {"b": 1}).key == '["a", "SGD", "dog", 1, {"b": 1}]'
    store = played(tmp_path / "runs.jsonl", [cell("a")], times(1.0))
    for seed in RIVAL_SEEDS:
        store.add(line(Run("a", "SGD", "followed", seed, {"scale": 1.0}), 0.6) | {"recipe": "old"})
    assert told(store, [cell("a")])["rivals"] == []
    for seed in RIVAL_SEEDS:
        store.add(line(Run("a", "SGD", "followed", seed, {"scale": 1.0}), 0.6))
    assert [r["method"] for r in told(store, [cell("a")])["rivals"]] == ["followed"]


def test_ladder_slope(tmp_path: Path) -> None:
    """Regret falls by the same amount with each rung."""
    rungs = [cell(name, "mnist-mlp", 300 * 4**i) for i, name in enumerate(statistics.LADDERS["mnist-mlp"])]
    factor = {c.name: 1.1 - 0.05 * i for i, c in enumerate(rungs)}
    found = told(played(tmp_path / "runs.jsonl", rungs, lambda run: times(factor[run.cell])(run)), rungs)
    assert found["ladder_slope"]["value"] == pytest.approx(-0.05 / (0.05 / 0.52), rel=1e-4)


def test_rivals(tmp_path: Path) -> None:
    """The recipe that was better on the first of seeds A is counted, whatever it is on seeds B; sweeps are no rivals,
    twins no ranks, a crash counts as the untrained model."""
    cells = [cell("a"), cell("b")]
    store = played(tmp_path / "runs.jsonl", cells, times(1.0))
    for c, seed in itertools.product(cells, RIVAL_SEEDS):
        base = 0.5 + 0.01 * seed
        for name, factor, first in (("poor", 1.1, 0.6), ("good", 1.2, 0.5), ("unlucky", 1.0, math.inf)):
            store.add(line(Run(c.name, "SGD", "other", seed, {"recipe": name}), factor * base))
            store.add(line(Run(c.name, "SGD", "other", TUNING_SEEDS[0], {"recipe": name}), first))
        store.add(line(Run(c.name, "SGD", "other", seed, {"recipe": "not chosen among"}), 0.9 * base))
        crashed = line(Run(c.name, "SGD", "broken", seed), math.inf) | {"crashed": "ValueError: no"}
        del crashed["initial"]
        store.add(crashed)
        store.add(line(Run(c.name, "SGD", "tuned", seed, {"peak": 1.0, "warmup": "5%", "fixed": True}), 0.9 * base))
        for name in ("tuned", "fixed"):
            store.add(line(Run(c.name, "SGD", name, seed, {"peak": 1.0, "anneal": "linear"}), 0.8 * base))
        store.add(line(Run(c.name, "SGD", "glyder", seed, {"scale": 2.0}), 9 * base))
        store.add(line(Run(c.name, "SGD", "plain", seed, {"peak": 1.0}), 9 * base))
        store.add(line(Run(c.name, "SGD", "glyder-ablated", seed, {"batches": 2}), 9 * base))
    found = told(store, cells)
    rows = {r["method"]: r for r in found["rivals"]}
    assert set(rows) == {"broken", "other", "tuned fixed", "tuned anneal=linear", "fixed anneal=linear"}
    assert rows["other"]["recipes"] == {"good": 2}
    assert rows["other"]["seeds"] == list(RIVAL_SEEDS)
    assert rows["other"]["mean_ratio"] == pytest.approx(1.2)
    assert rows["other"]["glyder_to_it"]["win_rate"] == {"value": 1.0, "interval": [1.0, 1.0]}
    assert rows["broken"]["crashed"] == 6
    assert rows["broken"]["mean_ratio"] == pytest.approx(INITIAL / 0.52, rel=1e-5)
    assert rows["tuned fixed"]["glyder_to_it"]["win_rate"]["value"] == 0
    ranks = {"tuned": 2.5, "glyder": 2.5, "broken": 5.0, "other": 4.0, "tuned fixed": 1.0}
    assert found["ranks"]["SGD"] == {"cells": 2, "ranks": ranks}


def test_report_is_the_same_twice(tmp_path: Path) -> None:
    cells = [cell("a"), cell("b")]
    played(tmp_path / "runs.jsonl", cells, times(1.0))
    known = {c.name: c for c in cells}
    for folder in ("one", "two"):
        report.report(Store(tmp_path / "runs.jsonl"), tmp_path / folder, known=known)
    written = [{p.name: p.read_bytes() for p in sorted((tmp_path / f).iterdir())} for f in ("one", "two")]
    assert written[0] == written[1]
    assert json.loads(written[0]["league.json"])["pairs"] == 2
    assert written[0]["README.md"].startswith(b"# ")
    assert all(len(blob) <= 100_000 for blob in written[0].values())


def test_report_of_nothing(tmp_path: Path) -> None:
    report.report(Store(tmp_path / "runs.jsonl"), tmp_path / "out", known={})
    assert "no pair" in (tmp_path / "out" / "README.md").read_text()
