"""The recipe: GlyderLR's rates, on problems whose arithmetic is the same everywhere, are those of its number.

python -m tests.benchmarks.test_recipe    writes the rates of the recipe that the tree has
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import glyder
from benchmarks.harness.recipe import RECIPE, carry, ours
from benchmarks.harness.run import Run
from benchmarks.harness.store import Store
from benchmarks.methods.catalogue import METHODS
from benchmarks.methods.optimizers import OPTIMIZERS

from .made import line

RECORDED = Path(__file__).with_name("recipe.json")
PROBLEMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "bowl": lambda x, noise: x + noise,
    "wide bowl": lambda x, noise: 0.01 * (x + noise),
    "two wells": lambda x, noise: x * x * x - x + noise,
}
"""Gradients."""
CHANGED = f"""GlyderLR's rates are not those recorded for recipe {RECIPE}. If that is meant, raise RECIPE by one in
benchmarks/harness/recipe.py, so that the runs of glyder are made again, and write the new rates by
python -m tests.benchmarks.test_recipe; if not, undo what changed them."""


def rates(problem: str, optimizer: str, steps: int) -> list[float]:
    """By update, of a run on two tensors, by operations on one entry at a time: sums of torch differ by processor."""
    params = [torch.arange(1.0, n + 1, dtype=torch.float64).reshape(shape) / n for n, *shape in ((12, 3, 4), (4, 4))]
    made = OPTIMIZERS[optimizer](params, lr=1e-3)
    schedule = glyder.GlyderLR(made, total_steps=steps)
    found = []
    for t in range(steps):
        for p in params:
            noise = ((torch.arange(p.numel()) * 7919 + t * 104_729) % 997).double() / 997 - 0.5
            p.grad = PROBLEMS[problem](p, noise.reshape(p.shape))
        made.step()
        schedule.step()
        found.append(float(f"{made.param_groups[0]['lr']:.12g}"))
    return found[:: max(1, steps // 40)]


def all_rates() -> dict[str, list[float]]:
    cases = [(p, o, s) for p in PROBLEMS for o in OPTIMIZERS for s in (40, 400)]
    return {f"{p}, {o}, {s}": rates(p, o, s) for p, o, s in cases}


def test_rates_are_those_of_the_recipe() -> None:
    """1e-9: of rounding, which a run of a few hundred updates may enlarge; a constant of the search changes more."""
    recorded = json.loads(RECORDED.read_text())
    assert recorded["recipe"] == RECIPE, CHANGED
    assert recorded["rates"] == {name: pytest.approx(v, rel=1e-9) for name, v in all_rates().items()}, CHANGED


def test_runs_of_glyder_are_keyed_by_the_recipe() -> None:
    for method in ("glyder", "refit", "glyder-search", "glyder-time"):
        assert Run("a", "SGD", method, 1).key == f'["a", "SGD", "{method}", 1, {{}}, {RECIPE}]'
    assert Run("a", "SGD", "prodigy", 1, {"b": 1}).key == '["a", "SGD", "prodigy", 1, {"b": 1}]'
    assert {name for name in METHODS if ours(name)} == {"glyder"}


def test_lines_are_carried_to_another_recipe(tmp_path: Path) -> None:
    """Those of the old recipe alone, and of these the key of what glyder ran; a torn line stays."""
    path = tmp_path / "runs.jsonl"
    store, runs = Store(path), [Run("a", "SGD", method, 1, {"z": 1, "b": 2}) for method in ("glyder", "tuned")]
    for recipe in ("d8100f1c1d", "4c951c7d73"):
        for run in runs:
            key = run.key.replace(f" {RECIPE}]", f' "{recipe}"]')
            store.add(line(run, 0.5, recipe=recipe) | {"key": key})
    with path.open("a") as file:
        file.write('{"key": "torn')
    before = path.read_text().splitlines()
    assert not Store(path).missing(runs[1:])
    assert Store(path).missing(runs) == runs[:1]
    assert carry(path, "d8100f1c1d", RECIPE) == 2
    after = path.read_text().splitlines()
    assert after[2:] == before[2:]
    assert not Store(path).missing(runs)
    assert [json.loads(text)["recipe"] for text in after[:2]] == [RECIPE] * 2
    assert carry(path, str(RECIPE), RECIPE + 1) == 2
    assert json.loads(path.read_text().splitlines()[0])["key"].endswith(f" {RECIPE + 1}]")


if __name__ == "__main__":
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(values)}" for name, values in all_rates().items())
    RECORDED.write_text(f'{{"recipe": {RECIPE}, "rates": {{\n{lines}\n}}}}\n')
