"""Data flows one way: what each part of the source may include or import, read from the text."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CSRC = ROOT / "csrc"
PACKAGE = ROOT / "python" / "glyder"
CORE = sorted([*CSRC.glob("*.[ch]"), *CSRC.glob("rules/*.[ch]")])
BINDING = sorted(CSRC.glob("binding/*.[ch]"))


def includes(path: Path) -> set[str]:
    """Names of included files, without folders."""
    found = re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', path.read_text(encoding="utf-8"), re.MULTILINE)
    return {name if name.startswith("sys/") else Path(name).name for name in found}


def own(path: Path) -> set[str]:
    """Those among them that are ours."""
    return includes(path) & {p.name for p in CSRC.rglob("*.h")}


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", CORE, ids=relative)
def test_core_knows_no_python(path: Path) -> None:
    assert not {name for name in includes(path) if name.lower().startswith(("python", "numpy", "torch", "py_"))}
    assert "dlpack_abi.h" not in includes(path)


@pytest.mark.parametrize("path", BINDING, ids=relative)
def test_binding_sees_public_headers_only(path: Path) -> None:
    public = {"glyder.h", "rule.h", "schedule.h", "stats.h"}
    assert own(path) <= public | {"py_args.h", "py_fields.h", "dlpack_abi.h"}
    assert not {name for name in includes(path) if "numpy" in name or "torch" in name}


@pytest.mark.parametrize("path", sorted(CSRC.glob("rules/*.[ch]")), ids=relative)
def test_rules_know_no_arrays(path: Path) -> None:
    rules = {path.name for path in CSRC.glob("rules/*.h")}
    assert own(path) <= rules | {"glyder.h", "gl_fpenv.h"}
    text = path.read_text(encoding="utf-8")
    assert "gl_segment" not in text
    assert "gl_matrix" not in text


@pytest.mark.parametrize("path", sorted(CSRC.glob("*.[ch]")), ids=relative)
def test_kernels_know_no_rules(path: Path) -> None:
    assert not own(path) & {path.name for path in CSRC.glob("rules/*.h")}


@pytest.mark.parametrize("path", CORE, ids=relative)
def test_core_neither_allocates_nor_talks(path: Path) -> None:
    code = without_comments(path.read_text(encoding="utf-8"))
    assert not re.search(r"\b(malloc|calloc|realloc|free|printf|fprintf|puts|exit|abort|getenv|time|clock)\s*\(", code)
    assert not includes(path) & {"stdio.h", "stdlib.h", "time.h", "threads.h", "pthread.h", "omp.h"}


def without_comments(code: str) -> str:
    return re.sub(r"/\*.*?\*/", "", code, flags=re.DOTALL)


def imports(path: Path) -> set[str]:
    """Modules that a Python file imports anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=relative)
def test_only_segments_looks_inside_tensors(path: Path) -> None:
    if path.name != "segments.py":
        text = path.read_text(encoding="utf-8")
        assert "data_ptr(" not in text
        assert "_core.Segments(" not in text
        assert "register_tensor_type" not in text


def test_segments_stand_below_everything_else() -> None:
    assert {name for name in imports(PACKAGE / "segments.py") if name.startswith("glyder")} == {
        "glyder",
        "glyder._core",
    }


def own_modules(path: Path) -> set[str]:
    """Names of the package's files that a file imports."""
    found = {part for name in imports(path) if name.startswith("glyder.") for part in name.split(".")[1:2]}
    return {name for name in found if (PACKAGE / f"{name}.py").exists()}


def test_glyder_lr_stands_on_nothing_that_looks_at_a_model() -> None:
    """Neither at its forward passes nor at its loss: directly, or through what it stands on."""
    reached, new = set(), {"glyder_lr"}
    while new:
        reached |= new
        new = set().union(*(own_modules(PACKAGE / f"{name}.py") for name in new)) - reached
    assert {"base", "search", "edge", "measure", "support"} <= reached
    assert not reached & {"stream", "sampling", "estimators", "outputs_loss", "direction", "batches", "replay", "meter"}
    assert not reached & {"local_optimum", "rule_lr"}
    watches = re.compile(r"register_(module_)?(full_)?(forward|backward)\w*hook|register_post_accumulate_grad_hook")
    assert not [name for name in reached if watches.search((PACKAGE / f"{name}.py").read_text(encoding="utf-8"))]
    assert watches.search((PACKAGE / "stream.py").read_text(encoding="utf-8")), "the pattern finds those that do"


@pytest.mark.parametrize("path", [*CORE, *BINDING, *sorted(PACKAGE.rglob("*.py"))], ids=relative)
def test_files_open_with_what_they_are_and_stay_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 500
    if path.suffix == ".py":
        assert ast.get_docstring(ast.parse(text))
    else:
        assert text.startswith(f"/* {path.name} - ")
