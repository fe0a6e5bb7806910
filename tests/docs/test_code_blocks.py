"""Every Python block of the documentation runs: those of a page in order, in one namespace, warnings being errors.

A ``diff`` block is code before and after a change: both run, each from a fresh start.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import glyder

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
BLOCK = re.compile(r"^```(python|diff)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FENCE = re.compile(r"^ *(?:```|~~~) *\{?(?:py|diff)", re.MULTILINE)


def blocks(page: Path, kind: str) -> list[tuple[int, str]]:
    """Blocks of one kind, with the line that each begins at."""
    text = page.read_text(encoding="utf-8")
    found = list(BLOCK.finditer(text))
    assert len(found) == len(FENCE.findall(text)), f"{page.name} has a block of code that is not taken"
    return [(text.count("\n", 0, m.start(2)), m[2]) for m in found if m[1] == kind]


def stand_ins() -> dict[str, Any]:
    """What the pages call the reader's own: 40 updates of a small classifier."""
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    x = torch.randn(160, 8)
    loader = DataLoader(TensorDataset(x, x[:, :3].argmax(1)), batch_size=16, shuffle=True)
    known = {"torch": torch, "nn": nn, "F": F, "glyder": glyder, "__name__": "page"}
    return known | {"model": model, "loader": loader, "loss_fn": nn.CrossEntropyLoss(), "epochs": 4}


def run(code: str, line: int, page: Path, namespace: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(compile("\n" * line + code, str(page), "exec"), namespace)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace = stand_ins()
    for line, code in blocks(page, "python"):
        run(code, line, page, namespace)


CHANGES = [(page, line, code) for page in PAGES for line, code in blocks(page, "diff")]


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize(("page", "line", "code"), CHANGES, ids=[f"{page.name}:{line}" for page, line, _ in CHANGES])
def test_both_sides_of_a_change_run(page: Path, line: int, code: str, side: str) -> None:
    left_out = "+" if side == "before" else "-"
    lines = ["" if text.startswith(left_out) else text[1:] for text in code.splitlines()]
    for package in re.findall(r"^import (\w+)", "\n".join(lines), re.MULTILINE):
        pytest.importorskip(package)
    run("\n".join(lines), line, page, stand_ins())
