"""The committed program that draws docs/search.png runs; a shorter run than the page's."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "docs" / "draw_search.py"


def test_the_search_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("draw_search", PROGRAM)
    assert spec is not None and spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    monkeypatch.setattr(program, "UPDATES", 60)
    scheduler, rates = program.run()
    assert len(rates) == 60
    assert scheduler.peak_lr > rates[0]
    program.draw(scheduler, rates, tmp_path / "search.png")
    assert (tmp_path / "search.png").read_bytes().startswith(b"\x89PNG")
