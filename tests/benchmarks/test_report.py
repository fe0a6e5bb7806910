"""The statistics and the report, on results whose answer is known."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.harness import statistics
from benchmarks.harness.recipe import RECIPE
from benchmarks.harness.run import EVALUATION_SEEDS, TUNING_SEEDS, Run
from benchmarks.harness.store import Store
from benchmarks.harness.tuning import Peak, run_at
from benchmarks.report import summary, tables
from benchmarks.report.pairs import Results
from benchmarks.report.summary import BARS
from benchmarks.studies import cost, plan
from benchmarks.tasks.common.task import Task

from .made import INITIAL, line, play, played, task, times

ALL = ("SGD", "momentum", "AdamW")


def results(store: Store, tasks: list[Task]) -> Results:
    return Results(store, {c.name: c for c in tasks})


def told(store: Store, tasks: list[Task]) -> dict[str, float | None]:
    return summary.key_figures(results(store, tasks), Store(cost.path(store.path.parent)))


def test_ten_percent_worse_everywhere(tmp_path: Path) -> None:
    tasks = [task(name, optimizers=ALL) for name in "ab"]
    store = played(tmp_path / "runs.jsonl", tasks, times(1.1, -2), ALL)
    found = results(store, tasks)
    assert [p.ratio for p in found.pairs] == pytest.approx([1.1] * 6)
    for optimizer in ALL:
        mean = summary.to_tuned(found.of(optimizer, "development"))
        assert mean is not None
        assert (mean.value, mean.median, mean.worst, *mean.interval) == pytest.approx([1.1] * 5)
        assert (mean.wins, mean.tasks) == (0, 2)
    known = {key: value for key, value in told(store, tasks).items() if value is not None}
    assert known == {
        "ratio_adamw": 1.1, "ratio_sgd": 1.1, "ratio_momentum": 1.1, "worst_ratio": 1.1,
        "scale_rms_adamw": 1.0, "scale_rms_sgd": 1.0, "scale_rms_momentum": 1.0,  # a peak of 1, and 0.1 is best
        "diverged": 0, "adamw_peaks_decades": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("losses", "decades"),
    [
        ((1.15625, 1.00625, 1.05625), 0.125),
        ((1.0, 1.0, 1.0), 0.0),
        ((2.0, 1.0, math.inf), 0.0),
        ((1.0, 1.0, 9.0), -0.25),
    ],
)
def test_vertex_of_the_parabola(losses: tuple[float, ...], decades: float) -> None:
    """1 + 0.1 (x - 0.25)^2 at -1, 0, 1 half-decades; flat; beside a cliff; level with a neighbour."""
    assert Peak(0, "5%", dict(zip((-1, 0, 1), losses, strict=True))).decades == pytest.approx(decades)
    assert Peak(-3, "5%", dict(zip((-4, -3, -2), losses, strict=True))).decades == pytest.approx(decades - 1.5)


def test_decades_from_the_tuned_peak(tmp_path: Path) -> None:
    """Peaks of 1, 0.1 and 10 by seed, a mean of 1, where 1 and 10^1.5 are best: rms of 0 and 1.5."""
    tasks = [task("a"), task("b")]
    for c, bottom in zip(tasks, (0, 3), strict=True):
        store = played(tmp_path / "runs.jsonl", [c], times(1.0, bottom))
    for r in [r for r in store.records.values() if r["method"] == "glyder"]:
        store.add(r | {"peak": {1: 1.0, 2: 0.1, 3: 10.0}[r["seed"]]})
    assert [p.off for p in results(store, tasks).pairs] == pytest.approx([0.0, -1.5])
    assert told(store, tasks)["scale_rms_sgd"] == pytest.approx(1.5 / math.sqrt(2), rel=1e-5)
    store.add(r | {"peak": None})
    assert told(store, tasks)["scale_rms_sgd"] is None


def test_diverged_run_counts_as_untrained_model(tmp_path: Path) -> None:
    def model(run: Run) -> float:
        return math.inf if run.method == "glyder" and run.seed == 3 else times(1.0)(run)

    tasks = [task("a")]
    store = played(tmp_path / "runs.jsonl", tasks, model)
    tuned = [0.5 + 0.01 * s for s in EVALUATION_SEEDS]
    expected = (sum(tuned) - 0.53 + INITIAL) / sum(tuned)
    assert results(store, tasks).pairs[0].ratio == pytest.approx(expected)
    assert told(store, tasks)["diverged"] == 1
    assert summary.diverged(results(store, tasks)) == ["a SGD seed 3"]


def test_groups(tmp_path: Path) -> None:
    """Tasks apart are in no overall figure, held_out ones in the worst ratio and the transformers, and in their own."""
    transformer: dict[str, Any] = {"optimizers": ("AdamW",), "transformer": True}
    tasks = [
        task("a", **transformer), task("b", optimizers=("AdamW",)), task("secret", held_out=True, **transformer),
        task("odd", apart=True, **transformer),
    ]  # fmt: skip
    factors = {"a": 0.9, "b": 1.0, "secret": 1.6, "odd": 3.0}
    store = played(tmp_path / "runs.jsonl", tasks, lambda run: times(factors[run.task], -4)(run), ("AdamW",))
    found = told(store, tasks)
    assert found["ratio_adamw"] == pytest.approx(0.9**0.5, rel=1e-5)
    assert found["heldout_adamw_high"] == found["worst_ratio"] == pytest.approx(1.6)
    assert found["transformers_adamw"] == pytest.approx(1.2)


def test_spans_of_tuned_peaks(tmp_path: Path) -> None:
    """From 0.1 to 10^-2.5, of the development tasks alone, tuned or not compared yet."""
    tasks = [task("a"), task("b"), task("c", apart=True)]
    tasks = [Task(**{**vars(c), "optimizers": ("AdamW",)}) for c in tasks]
    for c, bottom in zip(tasks, (-2, -5, 2), strict=True):
        store = played(tmp_path / "runs.jsonl", [c], times(1.0, bottom), ("AdamW",))
    for key in [r["key"] for r in store.records.values() if r["method"] == "glyder"]:
        del store.records[key]
    assert told(store, tasks)["adamw_peaks_decades"] == 1.5


def test_incomplete_pairs_are_counted(tmp_path: Path) -> None:
    """One lacks a run of the tuning, one a run of glyder, two have none."""
    tasks = [task("a"), task("b"), task("c"), task("secret", held_out=True), task("d")]
    store = played(tmp_path / "runs.jsonl", [*tasks[:2], tasks[4]], times(1.0))
    for run in (run_at(tasks[0], "SGD", 1, "5%", TUNING_SEEDS[1]), Run("b", "SGD", "glyder", 2)):
        del store.records[run.key]
    found = results(store, tasks)
    assert [p.name for p in found.pairs] == ["d SGD"]
    assert summary.incomplete(found) == {"development": (1, 4), "held-out": (0, 1), "best fixed peak": (0, 1)}


def test_other_methods(tmp_path: Path) -> None:
    """The recipe that was best on the first tuning seed counts, whatever it is on the evaluation seeds; a crash counts
    as the untrained model, and a package that is not there not at all."""
    tasks = [task("a", optimizers=("AdamW",)), task("b", optimizers=("AdamW",))]
    store = played(tmp_path / "runs.jsonl", tasks, times(1.0, -4), ("AdamW",))
    losses = {"prodigy": {"documented": 0.6, "annealed": 0.5, "linear": 0.7}}

    def model(run: Run) -> float:
        base = 0.5 + 0.01 * run.seed
        if run.method == "prodigy":
            first = run.seed == TUNING_SEEDS[0]
            return losses["prodigy"][run.options["recipe"]] if first else 1.25 * base
        if run.method == "fixed":
            return {3e-4: 2.0, 1e-3: 4.0, 1e-2: 1.6}[run.options["peak"]] * base
        return times(1.0, -4)(run)

    for c in tasks:
        for study in (plan.beside(name, c, store) for name in ("cosine", *plan.PEAKS, "prodigy")):
            play(study, store, model)
        play(plan.fixed(c, "AdamW", 1e-2), store, model)
        crashed = {"crashed": "ValueError: no", "diverged": True}
        play(plan.beside("schedulefree", c, store), store, lambda run: math.inf)
        for r in [r for r in store.records.values() if r["method"] == "schedulefree"]:
            store.add({k: v for k, v in r.items() if k != "initial"} | crashed)
    found = summary.beside(results(store, tasks))
    assert {name: made.value for name, made in found.items()} == pytest.approx(
        {
            ("best fixed peak", "AdamW"): 1 / 1.6,
            ("cosine", "AdamW"): 1.0,
            ("peak 3e-4", "AdamW"): 1 / 2,
            ("peak 1e-3", "AdamW"): 1 / 4,
            ("prodigy", "AdamW"): 1 / 1.25,
            ("schedulefree", "AdamW"): 0.52 / INITIAL,
        }
    )
    assert all(made.tasks == 2 for made in found.values())
    assert found["cosine", "AdamW"].wins == 0.5
    figures = told(store, tasks)
    assert figures["over_prodigy_high"] == pytest.approx(1 / 1.25)
    assert figures["over_best_fixed_adamw_high"] == pytest.approx(1 / 1.6)
    gone = Run("a", "AdamW", "schedulefree", 2, {"recipe": "documented"})
    store.add(store[gone] | {"crashed": "ImportError: schedulefree"})
    again = results(store, tasks)
    assert summary.beside(again)["schedulefree", "AdamW"].tasks == 1
    assert summary.incomplete(again)["schedulefree"] == (1, 2)


def test_refits(tmp_path: Path) -> None:
    """Of two nets the worse counts; losses of a net over that of its own first fit, on each seed."""
    store = Store(tmp_path / "runs.jsonl")
    for name, last in (("a", 0.8), ("b", 1.1)):
        for seed in EVALUATION_SEEDS:
            store.add(
                line(Run(name, "AdamW", "refit", seed), 1.0, losses=[seed * x for x in (2.0, 1.9, 1.8, 1.7, 2 * last)])
            )
    found = results(store, [task("a"), task("b")])
    assert summary.refits(found)["b"] == pytest.approx([1.0, 0.95, 0.9, 0.85, 1.1])
    assert told(store, [task("a"), task("b")])["refit5"] == pytest.approx(1.1)


def test_starting_rates(tmp_path: Path) -> None:
    """A last digit that differs, and a start that is not there."""
    store = Store(tmp_path / "runs.jsonl")
    for seed in EVALUATION_SEEDS:
        for start in plan.STARTS if seed < 3 else plan.STARTS[:2]:
            loss = 0.5 + (1e-15 if seed == 2 and start == 10.0 else 0.0)
            store.add(line(Run("a", "SGD", "glyder", seed, {"start": start}), loss))
    assert summary.starts(results(store, [task("a")])) == (2, ["a SGD seed 2"])


def test_wall_time_and_memory(tmp_path: Path) -> None:
    store, beside = Store(tmp_path / "runs.jsonl"), Store(cost.path(tmp_path))
    for name, ratio in (("a", 1.01), ("b", 1.02), ("c", 1.3)):
        beside.add(line(Run(name, "SGD", cost.TIME, 101), 1.0, plain=2.0, glyder=2.0 * ratio))
    beside.add(line(Run("a", "SGD", cost.MEMORY, 101), 1.0, plain=5e6, glyder=6.5e6, parameters=1e6))
    old = line(Run("d", "SGD", cost.TIME, 101), 1.0, plain=1.0, glyder=9.0)
    beside.add(old | {"recipe": "old"})
    store.add(line(Run("a", "SGD", "glyder", 1), 1.0))
    found = told(store, [task("a")])
    assert (found["wall_median"], found["wall_worst"]) == (1.02, 1.3)
    assert summary.memory(results(store, [task("a")]), beside) == {"SGD": 1.5}


def test_only_one_recipe_of_glyder(tmp_path: Path) -> None:
    """Lines of other recipes stay out; it is the tree's that counts, and the last line's where there is none of it."""
    tasks = [task("a")]
    store = played(tmp_path / "runs.jsonl", tasks, times(1.0))
    of_tree = [r for r in store.records.values() if r["method"] == "glyder"]
    for name, factor in (("old", 3.0), ("new", 2.0)):
        for r in of_tree:
            store.add(r | {"key": r["key"] + name, "recipe": name, "test": {"loss": factor * r["test"]["loss"]}})
    assert results(store, tasks).pairs[0].ratio == pytest.approx(1.0)
    assert results(store, tasks).recipe == RECIPE
    for r in of_tree:
        del store.records[r["key"]]
    found = results(store, tasks)
    assert found.pairs[0].ratio == pytest.approx(2.0)
    assert found.recipe == "new"


# ---- intervals


def test_quantiles_of_student() -> None:
    """Half the mass between -t and t, by the density, is 0.475; the table has four decimals."""
    for df, t in enumerate(statistics.STUDENT, 1):
        norm = math.gamma((df + 1) / 2) / (math.sqrt(df * math.pi) * math.gamma(df / 2))
        x = np.linspace(0, t, 20_001)
        density = norm * (1 + x**2 / df) ** (-(df + 1) / 2)
        slack = 5e-5 * density[-1] + 1e-8  # a digit of the table, and the trapezoids' own error
        assert np.trapezoid(density, x) == pytest.approx(0.475, abs=slack)


def test_interval_of_a_pair_covers() -> None:
    """Three seeds that vary together and a ratio of 1.1 that varies by itself."""
    generator, inside, draws = np.random.default_rng(0), 0, 4000
    for _ in range(draws):
        tuned = np.exp(0.02 * generator.standard_normal(3))
        low, high = statistics.over_seeds(tuned, 1.1 * tuned * np.exp(0.05 * generator.standard_normal(3)))
        inside += low <= 1.1 <= high
    # four standard errors of the simulation; the mean of three ratios is a trifle above 1.1
    assert inside / draws == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / draws))


def test_seeds_are_resampled_within_clusters() -> None:
    """One cluster has its seeds alone to vary, and its pairs share them: what one gains another loses."""
    tuned, other = np.ones((2, 5)), np.exp(np.array([[-0.02, -0.01, 0.0, 0.01, 0.02], [0.02, 0.01, 0.0, -0.01, -0.02]]))
    one, both = statistics.clustered(tuned[:1], other[:1], ["a"]), statistics.clustered(tuned, other, ["a", "a"])
    error = np.std(other[0]) / math.sqrt(5)
    # the standard error of a standard deviation from n draws is 1/sqrt(2 n) of it
    assert one.std() == pytest.approx(error, rel=4 / math.sqrt(2 * statistics.RESAMPLES))
    # what remains are the squares of the logarithms
    assert both == pytest.approx(1.0, abs=0.02**2)


def test_clusters_widen_the_interval() -> None:
    """Four families of six tasks that agree perfectly within a family tell no more than four tasks."""
    tuned = np.ones((24, 3))
    other = np.repeat(np.exp([-0.1, 0.0, 0.1, 0.2]), 6)[:, None] * tuned
    together, apart = [w for w in "abcd" for _ in range(6)], [str(i) for i in range(24)]
    wide, narrow = (
        np.ptp(statistics.interval(np.log(statistics.clustered(tuned, other, c)))) for c in (together, apart)
    )
    assert wide > 1.8 * narrow
    assert wide == pytest.approx(2 * 1.96 * np.std([-0.1, 0.0, 0.1, 0.2]) / 2, rel=0.15)


def test_the_mean_is_over_tasks(tmp_path: Path) -> None:
    """Three tasks of a family and one of another: the mean is that of four, the ends are those of one family alone."""
    tasks = [task("a1", "a"), task("a2", "a"), task("a3", "a"), task("b")]
    factor = {"a": 0.8, "b": 1.25}
    store = played(tmp_path / "runs.jsonl", tasks, lambda run: times(factor[run.task[0]])(run))
    mean = summary.to_tuned(results(store, tasks).pairs)
    assert mean is not None
    assert mean.value == pytest.approx(0.8**0.5)
    assert mean.interval == pytest.approx([0.8, 1.25])
    assert (mean.where, mean.wins) == ("b SGD", 0.75)


# ---- the report


def test_bars() -> None:
    """Which side each figure has to be on, at the bar itself too."""
    below = {key for key, bar in BARS.items() if bar.met(bar.limit - 1e-9)}
    at = {key for key, bar in BARS.items() if bar.met(bar.limit)}
    assert BARS.keys() - below == {"adamw_peaks_decades"}
    assert BARS.keys() - at == {"over_best_fixed_adamw_high", "over_prodigy_high", "over_schedulefree_high"}
    assert not any(bar.met(math.nan) for bar in BARS.values())
    limits = {key: bar.limit for key, bar in BARS.items()}
    assert limits["ratio_adamw"] == limits["transformers_adamw"] == limits["refit5"] == 1.02
    assert limits["ratio_sgd"] == limits["ratio_momentum"] == 0.99
    assert {limits[f"heldout_{o.lower()}_high"] for o in ALL} == {1.04}
    assert {limits[f"scale_rms_{o.lower()}"] for o in ALL} == {0.25}
    assert (limits["worst_ratio"], limits["wall_median"], limits["wall_worst"]) == (1.15, 1.03, 1.1)
    assert (limits["diverged"], limits["adamw_peaks_decades"]) == (0, 2.5)


def test_small_losses_keep_their_digits() -> None:
    assert [tables.loss(v) for v in (1.23456, 0.01, 0.00123456, 1.23e-9)] == ["1.2346", "0.0100", "0.00123", "1.23e-09"]


def test_report_is_the_same_twice(tmp_path: Path) -> None:
    tasks = [task("a"), task("b", held_out=True), task("c", apart=True)]
    known = {c.name: c for c in tasks}
    played(tmp_path / "runs.jsonl", tasks, times(1.05))
    for folder in ("one", "two"):
        tables.report(Store(tmp_path / "runs.jsonl"), tmp_path / folder, known)
    written = [{p.name: p.read_bytes() for p in sorted((tmp_path / f).iterdir())} for f in ("one", "two")]
    assert written[0] == written[1]
    assert set(written[0]) == {"README.md", "summary.json", "peaks.png", "ratios.png"}
    assert json.loads(written[0]["summary.json"]).keys() == BARS.keys()
    text = written[0]["README.md"].decode()
    for p in results(Store(tmp_path / "runs.jsonl"), tasks).pairs:
        assert p.ratio == pytest.approx(1.05)
        assert text.count(f"| {p.task.name} | {p.optimizer} | 100 | 1 |") == 1
    assert text.count("1.050 [1.050, 1.050]") == len(tasks) + 2  # and the means of the two groups that count
    assert all(len(blob) <= 100_000 for blob in written[0].values())


def test_report_of_nothing(tmp_path: Path) -> None:
    found = tables.report(Store(tmp_path / "runs.jsonl"), tmp_path / "out", {"a": task("a")})
    assert set(found.values()) == {None}
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"README.md", "summary.json"}
