"""The convex tasks on made rows: the parts against plainer ways to say them, one run of each method, and the report."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import glyder
from benchmarks.papers import classical, convex, convex_runs
from benchmarks.papers.common import Trial
from benchmarks.report.canvas import canvas
from benchmarks.tasks.common import data


def rows(count: int, seed: int, noise: float = 0.0) -> tuple[Tensor, Tensor]:
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((count, 4))
    y = x[:, 0] + noise * generator.standard_normal(count) > 0
    return torch.from_numpy(x), torch.from_numpy(y.astype(np.int64))


@pytest.fixture
def problem(monkeypatch: pytest.MonkeyPatch) -> convex_runs.Rows:
    """Labels that no vector separates."""
    train = rows(300, 1, noise=1.0)
    made = convex_runs.Rows({"train": train, "test": rows(50, 2)}, 2, convex_runs.least(*train))
    monkeypatch.setattr(convex_runs, "rows_of", lambda name: made)
    return made


def test_kernel_is_the_formula_entry_by_entry() -> None:
    a, b = rows(5, 1)[0], rows(3, 2)[0]
    plain = [[math.exp(-sum((u - v) ** 2 for u, v in zip(p, q, strict=True)) / (2 * 0.7**2)) for q in b.tolist()]
             for p in a.tolist()]  # fmt: skip
    # 1e-12: the square of a difference as a sum of products, of numbers near 1.
    np.testing.assert_allclose(convex_runs.kernel(a, b, 0.7), plain, rtol=1e-12)


def test_margin_has_the_logistic_loss() -> None:
    x, y = rows(20, 3)
    model = convex_runs.Margin(4)
    expected = F.binary_cross_entropy_with_logits(model.linear(x)[:, 0], y.double())
    # 1e-14: rounding of a loss near 1.
    assert F.cross_entropy(model(x), y).item() == pytest.approx(expected.item(), abs=1e-14)


def test_nothing_lies_below_the_least_loss(problem: convex_runs.Rows) -> None:
    model = convex_runs.Margin(4)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=200, line_search_fn="strong_wolfe")
    x, y = problem.parts["train"]

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss

    optimizer.step(closure)
    # 1e-6: where another method ends, by a gradient of 1e-7 and steps of 1e-9.
    assert closure().item() == pytest.approx(problem.least, abs=1e-6)


@pytest.mark.parametrize("method", convex_runs.METHODS)
def test_a_run_of_each_method(problem: convex_runs.Rows, method: str) -> None:
    short = pytest.warns(glyder.GlyderWarning, match="few updates") if "GlyderLR" in method else nullcontext()
    with short:  # six updates leave none to use a peak in
        line = convex_runs.train(Trial("convex", 1, {"data": "made", "method": method}))
    assert len(line["losses"]) == 3
    assert len(line["rates"]) == 2
    assert line["updates"] == 6
    least_cost = 4 if method.startswith("SLS") else 3
    assert line["forwards"] >= least_cost * 6
    assert min(line["losses"]) >= problem.least - 1e-6  # lines hold six digits
    if not method.endswith(("00", "no bound", "GlyderLR, Adam")):  # these throw the weights far off
        assert line["losses"][-1] < line["losses"][0]
    if method.startswith("SGD"):
        assert set(line["rates"]) == {float(method.removeprefix("SGD "))}


@pytest.mark.parametrize("name", classical.PROBLEMS)
def test_least_values_of_the_classical_problems(name: str) -> None:
    made = classical.PROBLEMS[name]()
    x = made.start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([x], max_iter=2000, max_eval=5000, tolerance_grad=1e-12, tolerance_change=0,
                                  line_search_fn="strong_wolfe")  # fmt: skip

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = made.f(x)
        value.backward()
        return value

    optimizer.step(closure)
    # 1e-10: gradients of 1e-9 over curvatures of 1e-4 squared, and rounding of losses near 1.
    assert made.f(x).item() == pytest.approx(made.least, abs=1e-10)


def line_of(rule: str, rate: float, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(classical, "BUDGET", 60)
    options = {"problem": "quadratic, condition 1e2", "rule": rule, "rate": rate}
    return classical.descend(Trial("classical", 0, options))


def test_gaps_of_a_constant_rate_in_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    line = line_of(classical.CONSTANT, 1.5, monkeypatch)
    curvatures = np.logspace(-2, 0, 20)
    for spent, gap in line["curve"]:
        steps = spent // 3
        expected = (curvatures * (1 - 1.5 * curvatures) ** (2 * steps)).sum() / curvatures.sum()
        assert gap == pytest.approx(expected, rel=1e-3)  # four digits are kept
    assert line["curve"][-1][0] <= 60


def test_a_divergent_run_has_no_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classical, "BUDGET", 6000)
    options = {"problem": "Rosenbrock", "rule": classical.CONSTANT, "rate": 1.0}
    assert classical.descend(Trial("classical", 0, options))["gap"] is None


@pytest.mark.parametrize("rule", classical.RULES)
def test_cost_is_counted_where_the_function_is_called(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    line = line_of(rule, 0.01, monkeypatch)
    costs = [c for c, _ in line["curve"]]
    assert costs[:2] == [0, 4 if rule.startswith("Armijo") else 3]  # the first rate passes its first trial
    # After its first update AutoGD takes three gradients and the loss of the start; a search a loss or more each.
    steps = np.diff(costs)
    if rule == "AutoGD":
        assert steps[1:].min() >= 9
    elif rule.startswith("Armijo"):
        assert steps.min() >= 4
    else:
        assert set(steps % 3) == {0}
    assert line["gap"] < 1


def test_factor_of_a_run_that_ends_in_rounding() -> None:
    curve = 0.5 ** np.arange(20.0)
    # 1e-12: a root of a quotient of powers of 2.
    assert convex.factor(curve) == pytest.approx(0.5, rel=1e-12)
    assert convex.factor(np.concatenate([0.25 ** np.arange(10.0), np.zeros(10)])) == pytest.approx(0.25)


def test_report(problem: convex_runs.Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convex_runs, "SEEDS", (1,))
    for name, value in {"BUDGET": 30, "GRID": (0.01, 1.0), "STARTS": (0.1,)}.items():
        monkeypatch.setattr(classical, name, value)
    monkeypatch.setattr(convex, "canvas", lambda *a: canvas(6, 4, *a[2:]))
    lines = [convex_line(t) for t in convex_runs.trials("ijcnn1")]
    exact = [{"options": t.options} | classical.descend(t) for t in classical.trials()]
    convex.report({"ijcnn1": lines}, exact, tmp_path)
    assert convex.chosen(exact, "quadratic, condition 1e2", classical.CONSTANT)[0]["options"]["rate"] == 1.0
    text = (tmp_path / "convex.md").read_text()
    for name in (*convex_runs.METHODS, *classical.PROBLEMS, *classical.RULES):
        assert name in text
    assert (tmp_path / "convex.png").stat().st_size > 0


def convex_line(trial: Trial) -> dict[str, Any]:
    return {"options": trial.options, "seed": trial.seed} | convex_runs.train(trial)


def test_mushrooms_see_their_own_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file as it is distributed: 0 and 1 in each column, labels of 1 and 2."""
    draws = np.random.default_rng(0)
    (tmp_path / "libsvm").mkdir()
    np.savez(tmp_path / data.FILES["mushrooms"], x=draws.integers(0, 2, (400, 112)), y=draws.integers(1, 3, 400))
    monkeypatch.setenv("GLYDER_DATA", str(tmp_path))
    made = convex_runs.mushrooms(rows=200, test=100)
    k, y = made.parts["train"]
    assert k.shape == (200, 200)
    assert made.parts["test"][0].shape == (100, 200)
    assert set(y.tolist()) == {0, 1}
    np.testing.assert_allclose(k.diagonal(), 1, atol=1e-10)  # the square of a distance to itself, by rounding
