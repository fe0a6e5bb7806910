"""glyder's other schedulers as methods of the league: they train, have what they need, and are keyed by their code."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.league import data, family, rivals, train
from benchmarks.league.dry import missing
from benchmarks.league.family import CLASS, FAMILY, WINDOW, Member
from benchmarks.league.methods import makers
from benchmarks.league.pairs import League
from benchmarks.league.plan import RIVAL_SEEDS
from benchmarks.league.promises import promises
from benchmarks.league.rows import classification
from benchmarks.league.standings import knows
from benchmarks.league.statistics import summary
from benchmarks.league.store import Store
from benchmarks.league.suites import SHAPED, Full
from benchmarks.league.train import Run, recipe
from benchmarks.league.workload import Cell, cells
from glyder.catalogue import facts_of

from .made import cell, line, played, times

RECIPES = ("documented", "annealed")
STEPS = 2 * WINDOW + 10
"""The first change of a rate that waits for windows is at the end of the second."""
PASSES = {"adgd": 3 * (STEPS - 1), "armijo": STEPS, "autosgd": 7 * (STEPS - 1)}
"""Extra forward passes where the first trial of each search is good enough, and no stream wins."""
BESIDE = [(name, optimizer) for name, beside in CLASS.items() for optimizer in beside]


def made(name: str, optimizer: str, how: str = "documented", **more: Any) -> tuple[Any, Cell, Member]:
    """A member on few updates of the smoke cell."""
    few = dataclasses.replace(cells()["digits-mlp"], steps=STEPS, **more)
    task = few.build(101)
    method = makers()[name](task, few, optimizer, recipe=how)
    assert isinstance(method, Member)
    return task, few, method


@pytest.mark.parametrize("how", RECIPES)
@pytest.mark.parametrize(("name", "optimizer"), BESIDE)
def test_each_trains(name: str, optimizer: str, how: str) -> None:
    task, few, method = made(name, optimizer, how)
    before = [p.detach().clone() for p in task.model.parameters()]
    rates, losses = [], []
    for loss in train.updates(task, few, method):
        losses.append(float(loss))
        rates.append(method.rate())
    assert all(map(math.isfinite, losses))
    assert all(0 < rate < math.inf for rate in rates)
    assert method.scheduler.reasons, "the rule was never asked"
    assert not any(map(torch.equal, before, task.model.parameters()))
    assert method.scheduler.updates == STEPS
    assert method.scheduler.skipped == 0
    if how == "annealed":  # the last factor of a cosine, of STEPS - 1 updates of STEPS, and no rule is that far off
        assert rates[-1] < 0.05 * max(rates)
    forwards, copies = method.cost()
    if name in PASSES:
        assert PASSES[name] <= forwards <= 1.5 * PASSES[name]  # a search tries more than once now and then
    else:
        assert forwards == 0
    told = [int(n) for n in re.findall(r"\d+", facts_of(method.kind).memory)]
    assert copies in (*told, sum(told))


def test_documented_starts_from_torch_s_rate() -> None:
    for optimizer, kind in (("SGD", torch.optim.SGD), ("AdamW", torch.optim.AdamW)):
        assert kind([torch.zeros(1)]).defaults["lr"] == Member.start
        task, few, method = made("ntlr", optimizer)
        next(train.updates(task, few, method))
        assert method.rate() == Member.start


def test_closure_repeats_the_loss_of_its_batch() -> None:
    """With the same dropout masks, at other batches others; its gradient is clipped like that of the update."""
    few = dataclasses.replace(cells()["digits-mlp"], clip=0.01)
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10))
    task = classification(lambda: net, data.digits(), 32, 1)
    method = family.AdGD(task, few, "SGD")
    losses = []
    for _ in range(2):
        method.loss = task.loss(task.model, next(task.batches))
        first, again = method._closure(), method._closure()
        assert torch.equal(first, again)
        assert not torch.equal(first, task.loss(task.model, method.batch)), "dropout draws anew"
        norm = torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]).norm()
        assert float(norm) == pytest.approx(0.01, rel=1e-3)  # torch divides by the norm plus 1e-6
        net.zero_grad()
        losses.append(first.item())
    assert losses[0] != losses[1]


def test_refusals() -> None:
    with pytest.raises(ValueError, match="polyak stands beside SGD, momentum, not AdamW"):
        made("polyak", "AdamW")
    with pytest.raises(ValueError, match="recipe must be one of documented, annealed, got 'best'"):
        made("polyak", "SGD", "best")
    with pytest.raises(ValueError, match="not of the squared error of digits-mlp"):
        made("meta", "SGD", squared=True)


def test_names() -> None:
    """Each is named as ``python -m glyder rules`` names it, and none as a rival."""
    assert CLASS.keys() == family.HORIZON.keys() == FAMILY.keys()
    assert not FAMILY.keys() & rivals.RIVALS.keys()
    for name, member in FAMILY.items():
        assert isinstance(member, type)
        assert issubclass(member, Member)
        assert name == facts_of(member.kind).rule
        assert knows(name, "annealed")
        assert not knows(name, "documented")
        assert tuple(family.HORIZON[name]) == RECIPES
    assert knows("glyder scale=2", "")
    assert not knows("glyder horizon=False", "")


def test_each_is_keyed_by_its_own_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its module and what that imports, its rule with the tables beside it; nothing of another's."""
    hashes = {name: recipe(train.module(name)) for name in FAMILY}
    assert len({recipe(), *hashes.values()}) == 1 + len(FAMILY)
    for name, own in hashes.items():
        assert Run("a", "SGD", name, 1).key.endswith(f', "{own}"]')

    read: list[str] = []
    text = Path.read_text

    def noted(path: Path, **how: Any) -> str:
        read.append(path.name)
        return text(path, **how)

    monkeypatch.setattr(Path, "read_text", noted)
    recipe.__wrapped__("meta")
    assert {"meta.py", "rule_lr.py", "base.py", "meta.c", "meta_net.h", "bounds.c", "schedule.c"} <= set(read)
    assert not {"descent.py", "polyak.py", "polyak.c", "glyder.c"} & set(read)


def test_lines_of_one_recipe_count(tmp_path: Path) -> None:
    """The tree's; the last line's where there is none of it. They stand in the table and in no promise."""
    known = {"a": cell("a")}
    store = played(tmp_path / "runs.jsonl", list(known.values()), times(1.0))
    runs = [Run("a", "SGD", "polyak", seed, {"recipe": "annealed"}) for seed in RIVAL_SEEDS]

    def rows() -> dict[str, Any]:
        found = summary(League(store, known=known))
        assert not any("polyak" in promise.text for promise in promises(found))
        return {r["method"]: r for r in found["rivals"]}

    assert rows() == {}
    for of, loss in (("older", 0.6), ("old", 0.7)):
        for run in runs:
            store.add(line(run, loss) | {"key": run.key + of, "recipe": of})
        assert rows()["polyak"]["mean_ratio"] == pytest.approx(loss / 0.52, rel=1e-5)
    store.add(line(runs[0], 0.8))
    assert rows()["polyak"]["pairs"] == 0, "two seeds lack, and those of the old recipe do not stand in"
    for run in runs[1:]:
        store.add(line(run, 0.8))
    (row,) = rows().values()
    assert row["mean_ratio"] == pytest.approx(0.8 / 0.52, rel=1e-5)
    assert (row["pairs"], row["know_length"], row["recipes"]) == (1, 1, {"annealed": 1})


def test_stage(tmp_path: Path) -> None:
    """Two recipes on one seed, the better on the rivals' seeds, of every pair on the chosen cells alone."""
    main = ("SGD", "momentum", "AdamW")
    suite = Full([cells()[SHAPED[0]], cell("a", optimizers=main)], Store(tmp_path / "runs.jsonl"), ())
    (stage,) = (s for s in suite.stages() if s.name == "family")
    found = missing(stage)
    assert {run.cell for run in found} == {SHAPED[0]}
    assert {(run.method, run.optimizer) for run in found} == set(BESIDE)
    chosen = [run for run in found if run.seed in RIVAL_SEEDS]
    assert len(found) - len(chosen) == len(list(itertools.product(BESIDE, RECIPES)))
    assert len(chosen) == len(BESIDE) * len(RIVAL_SEEDS)


def test_rivals_and_linear_decay_meet_every_cell_that_is_not_reserved(tmp_path: Path) -> None:
    known = [cell("a"), cell("b", stretch="so"), cell("c", reserved=True)]
    suite = Full(known, played(tmp_path / "runs.jsonl", known, times(1.0)), ())
    stages = {s.name: s for s in suite.stages()}
    beside = {name for name, optimizers in rivals.CLASS.items() if "SGD" in optimizers}
    assert {(r.cell, r.method) for r in missing(stages["rivals"])} == set(itertools.product("ab", beside))
    found = missing(stages["linear decay"])
    assert {(r.cell, r.method, r.options["anneal"]) for r in found} == {
        ("a", "tuned", "linear"),
        ("b", "tuned", "linear"),
    }
    assert Counter(r.seed for r in found if r.cell == "b") == {101: 3} | dict.fromkeys(RIVAL_SEEDS, 1)


def test_rivals_have_the_linear_decay_too(monkeypatch: pytest.MonkeyPatch) -> None:
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
