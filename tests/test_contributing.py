"""CONTRIBUTING.md's walk, done as it is written: a new rule in a copy of the tree passes the common suites."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "CONTRIBUTING.md"
TREE = ("csrc", "python", "tests", "setup.py", "pyproject.toml", "README.md", "docs", ".clang-format")
PLACE = r"a new file|(?P<how>before the line|after) `(?P<anchor>[^`\n]+)`"
STEP = re.compile(rf"^`(?P<path>[^`\n]+)`, (?:{PLACE}):\n\n```\w+\n(?P<block>.*?)^```$", re.MULTILINE | re.DOTALL)


def apply(step: re.Match[str], tree: Path) -> None:
    """Put one block where the page says; what it is put next to must be there once."""
    file, block, anchor = tree / step["path"], step["block"], step["anchor"]
    if anchor is None:
        assert not file.exists(), f"{file} is no new file"
        file.write_text(block, encoding="utf-8")
        return
    text = file.read_text(encoding="utf-8")
    if step["how"] == "after":
        assert text.count(anchor) == 1, f"{file} holds {anchor} {text.count(anchor)} times"
        file.write_text(text.replace(anchor, anchor + block.rstrip("\n")), encoding="utf-8")
        return
    lines = text.splitlines(keepends=True)
    found = [i for i, line in enumerate(lines) if line.lstrip().startswith(anchor)]
    assert len(found) == 1, f"{file} has {len(found)} lines that begin with {anchor}"
    file.write_text("".join([*lines[: found[0]], block, *lines[found[0] :]]), encoding="utf-8")


@pytest.mark.slow
def test_the_walk_leads_to_a_rule_that_passes(tmp_path: Path) -> None:
    page = PAGE.read_text(encoding="utf-8").partition("\n## Adding a rule\n")[2]
    steps = list(STEP.finditer(page))
    assert len(steps) == len(re.findall(r"^```(?:c|python)$", page, re.MULTILINE)), "a block does not say where it goes"
    for name in TREE:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, tmp_path / name)
    for built in tmp_path.glob("python/glyder/*.so"):
        built.unlink()
    for step in steps:
        apply(step, tmp_path)

    def run(*command: str) -> str:
        environment = os.environ | {"PYTHONPATH": str(tmp_path / "python")}
        done = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    touched = {step["path"] for step in steps if step["path"].endswith(".py")}
    run("-m", "ruff", "check", "--fix", *touched)
    run("-m", "ruff", "format", *touched)
    run("setup.py", "-q", "build_ext", "--inplace")
    run("-m", "glyder", "rules", "--markdown", "docs/rules.md")
    assert "| `NormalisedLR` |" in (tmp_path / "docs" / "rules.md").read_text(encoding="utf-8")
    suites = ["tests/rules/test_common.py", "tests/schedulers/test_family.py", "tests/test_layering.py"]
    suites += ["tests/schedulers/test_normalised.py", "tests/cli/test_rules.py"]
    printed = run("-m", "pytest", "-v", "-p", "no:cacheprovider", *suites, "-k", "normalised or the_page_holds")
    assert all(f"{suite}::" in printed for suite in suites), f"a table does not hold the rule:\n{printed}"
