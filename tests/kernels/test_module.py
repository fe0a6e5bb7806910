"""The module itself: what it imports, levels, versions."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from glyder import _core

ROOT = Path(__file__).parents[2]
LOAD = f"""
import importlib.util, sys
before = set(sys.modules)
spec = importlib.util.spec_from_file_location("glyder._core", {_core.__file__!r})
_core = importlib.util.module_from_spec(spec)
spec.loader.exec_module(_core)
"""


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", LOAD + code], env={**os.environ, **environment}, capture_output=True, text=True
    )


def test_imports_nothing() -> None:
    done = run("print(sorted(set(sys.modules) - before))")
    assert done.stdout.strip() == "[]", done.stderr


def test_can_be_loaded_twice() -> None:
    code = """
other = importlib.util.module_from_spec(spec)
spec.loader.exec_module(other)
assert other.Segments is not _core.Segments and other.tensor_types() == ()
try:
    other.reduce([_core.Segments([])], [])
except TypeError as error:
    print(error)
"""
    assert "must be Segments" in run(code).stdout


def test_level_from_the_environment() -> None:
    for name, available in _core.levels().items():
        done = run("print(_core.level())", GLYDER_LEVEL=name)
        assert done.stdout.strip() == name if available else "lacks the level" in done.stderr
    assert 'there is no level "sse9"' in run("", GLYDER_LEVEL="sse9").stderr
    assert run("print(_core.level())", GLYDER_LEVEL="").returncode == 0


def test_select_level_refuses() -> None:
    with pytest.raises(ValueError, match='there is no level "sse9"; levels\\(\\) names them'):
        _core.select_level("sse9")
    for name, available in _core.levels().items():
        if not available:
            with pytest.raises(ValueError, match="lacks"):
                _core.select_level(name)
    assert _core.levels()["portable"] is True


def test_version_is_that_of_the_header() -> None:
    header = (ROOT / "csrc" / "glyder.h").read_text(encoding="utf-8")
    found = re.search(r'GLYDER_VERSION "(.+)"', header)
    assert found is not None
    assert _core.__version__ == found[1]
