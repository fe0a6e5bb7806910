"""The catalogue of rules: read from docstrings, listed by the command line, and the table of docs/rules.md."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from torch.optim.lr_scheduler import LRScheduler

import glyder
from glyder import _core, cli
from glyder.catalogue import BEGIN, END, catalogue, facts_of, renewed
from glyder.rules.rule_lr import RuleLR

PAGE = Path(__file__).parents[2] / "docs" / "rules.md"

LIST = """Of a test.

    :formula: ``|g| + a``
    :source: 2311.13877,
        equation 1
    :passes: 0
    :memory: 1
    :optimizers: SGD
    :use: always
    :avoid: never
    """


def stated(doc: str | None) -> type:
    """A scheduler with that docstring."""
    return type("MadeUpLR", (RuleLR,), {"RULE": "hypergradient", "__doc__": doc})


def test_facts_of_a_class() -> None:
    facts = facts_of(stated(LIST + "\n    More, with a :class:`role` in it.\n"))
    assert (facts.rule, facts.scheduler) == ("hypergradient", "MadeUpLR")
    assert facts.formula == "`|g| + a`"
    assert facts.source == "2311.13877, equation 1"
    assert (facts.passes, facts.memory, facts.optimizers) == ("0", "1", "SGD")
    assert (facts.use, facts.avoid) == ("always", "never")


@pytest.mark.parametrize(
    ("doc", "message"),
    [
        (None, "MadeUpLR: the field :formula: .* missing"),
        (LIST.replace(":memory: 1", ""), "MadeUpLR: the field :memory: .* missing or empty"),
        (LIST.replace(":memory: 1", ":memory:"), "MadeUpLR: the field :memory: .* missing or empty"),
        (LIST.replace(":memory:", ":memmory:"), "MadeUpLR: the field :memmory: .* unknown; known: formula, source"),
        (LIST.replace(":memory:", ":passes:"), "MadeUpLR: the field :passes: .* given twice"),
        (LIST.replace("    equation", "equation"), "MadeUpLR: .* :source: .* not indented"),
    ],
)
def test_what_is_wrong_with_a_docstring(doc: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        facts_of(stated(doc))


def test_a_class_without_a_rule_is_told() -> None:
    with pytest.raises(ValueError, match="MadeUpLR: .* set RULE"):
        facts_of(type("MadeUpLR", (LRScheduler,), {"__doc__": LIST}))


def test_the_rule_of_its_own_name_goes_before_the_one_that_it_asks_first() -> None:
    assert facts_of(type("PeakLR", (RuleLR,), {"RULE": "start", "__doc__": LIST})).rule == "peak"


def test_every_scheduler_is_listed_by_a_name_of_the_core() -> None:
    found = {facts.scheduler: facts.rule for facts in catalogue()}
    assert set(found) == {name for name in glyder.__all__ if name.endswith("LR")}
    assert set(found.values()) - {"schedule"} <= set(_core.rules())
    for rule in set(found.values()) - {"schedule"}:
        assert not _core.Rule(rule).about.startswith("Stage:")


def test_listed_for_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["rules"]) == 0
    printed = capsys.readouterr().out
    for facts in catalogue():
        assert f"{facts.rule}: glyder.{facts.scheduler}\n    source      {facts.source}\n" in printed
        for text in (facts.passes, facts.memory, facts.optimizers):
            assert text in printed
    assert "bounds" not in printed


def test_listed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["rules", "--json"]) == 0
    rows = {row["scheduler"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert list(rows) == [facts.scheduler for facts in catalogue()]
    assert rows["HypergradientLR"] == asdict(facts_of(glyder.HypergradientLR))
    assert rows["HypergradientLR"]["rule"] == "hypergradient"


def test_the_page_holds_the_table_as_generated() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert renewed(page, catalogue()) == page, "run: python -m glyder rules --markdown docs/rules.md"


def test_the_table_is_written_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    assert cli.main(["rules", "--markdown", str(page)]) == 0
    lines = page.read_text(encoding="utf-8").splitlines()
    assert (lines[:2], lines[-2:]) == (["before", BEGIN], [END, "after"])
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 2 + len(catalogue())
    assert {row.replace(r"\|", "").count("|") for row in rows} == {9}, "eight columns, and no more where a text has a |"
    assert "old" not in lines


@pytest.mark.parametrize("page", ["", BEGIN, f"{END}{BEGIN}", f"{BEGIN}{END}{END}", f"{END}{END}"])
def test_a_page_without_marks_is_left_alone(page: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "page.md"
    file.write_text(page, encoding="utf-8")
    assert cli.main(["rules", "--markdown", str(file)]) == 2
    assert "page.md" in capsys.readouterr().err
    assert file.read_text(encoding="utf-8") == page


def test_a_pipe_does_not_end_a_cell() -> None:
    page = renewed(f"{BEGIN}{END}", [facts_of(stated(LIST))])
    assert r"| `MadeUpLR` | `\|g\| + a` | 2311.13877, equation 1 | 0 | 1 | SGD | always | never |" in page
