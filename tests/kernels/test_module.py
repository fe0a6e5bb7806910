"""The module itself: what it imports, levels, versions."""

from __future__ import annotations

import os
import platform
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


def test_brings_its_own_mathematics() -> None:
    """The interpreter may have been linked without the C library's mathematics; nobody else loads it for us."""
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        pytest.skip("has no mathematics library apart")
    assert b"libm.so" in Path(_core.__file__).read_bytes()


def test_sanitized_builds_lie_apart() -> None:
    """An extension that is newer than its sources is kept: other sanitizers must not find it."""
    if not os.environ.get("GLYDER_SANITIZE"):
        pytest.skip("a build without sanitizers")
    assert re.sub("[^a-z]", "-", os.environ["GLYDER_SANITIZE"]) in _core.__file__


def test_source_distribution_is_complete(tmp_path: Path) -> None:
    command = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    shipped = set((tmp_path / "glyder.egg-info" / "SOURCES.txt").read_text(encoding="utf-8").split("\n"))
    wanted = {"Makefile", "LICENSE", "README.md", "MANIFEST.in", "pyproject.toml", "setup.py", ".clang-format"}
    for folder, kinds in [
        ("csrc", "c h"),
        ("python", "py pyi typed"),
        ("tests", "py c h sh"),
        ("benchmarks", "py md"),
        ("examples", "ipynb"),
    ]:
        wanted |= {str(p.relative_to(ROOT)) for kind in kinds.split(" ") for p in (ROOT / folder).rglob(f"*.{kind}")}
    assert "tests/c/Makefile" in shipped
    assert not {name for name in wanted if "checkpoints" not in name} - shipped
    assert not [name for name in shipped if name.endswith((".so", ".pyc", ".o"))]


def test_version_is_that_of_the_header() -> None:
    header = (ROOT / "csrc" / "glyder.h").read_text(encoding="utf-8")
    found = re.search(r'GLYDER_VERSION "(.+)"', header)
    assert found is not None
    assert _core.__version__ == found[1]
