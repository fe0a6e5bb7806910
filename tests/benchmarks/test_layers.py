"""The benchmarks' imports go one way, and nowhere in a circle."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

ROOT = Path(__file__).parents[2]
LAYERS = ("tasks", "methods", "harness", "studies", "report", "papers")
"""From below; ``__main__`` stands on all of them."""


def imports() -> dict[str, set[str]]:
    """By file the files that it imports, anywhere in it."""
    paths = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in (ROOT / "benchmarks").rglob("*.py")}
    found = {}
    for name, path in paths.items():
        nodes = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom) and n.module]
        found[name] = {n.module for n in nodes} | {f"{n.module}.{alias.name}" for n in nodes for alias in n.names}
    return {name: wanted & paths.keys() for name, wanted in found.items()}


def test_imports_go_one_way() -> None:
    files = imports()
    order = [name.split(".")[1] for name in graphlib.TopologicalSorter(files).static_order()]  # raises at a circle
    assert set(LAYERS) <= set(order)
    for name, wanted in files.items():
        layer = name.split(".")[1]
        if layer in LAYERS:
            below = LAYERS[: LAYERS.index(layer) + 1]
            assert {other.split(".")[1] for other in wanted} <= set(below), name


def test_benchmarks_use_the_public_api() -> None:
    """But for the one that times the C core itself."""
    for path in (ROOT / "benchmarks").rglob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text()))
        inner = {
            n.module for n in nodes if isinstance(n, ast.ImportFrom) and (n.module or "").split(".")[0] == "glyder"
        }
        assert not inner or path.name == "bench_reduce.py", path
