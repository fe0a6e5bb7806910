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


MODULES = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
"""The package's files, by the name that Python has for them."""

FLOORS = (
    {"_core", "_checks"},
    {"vectors"},
    {"optimizers"},
    {"engine", "probe"},
    {"rules", "schedulers"},
    {"contrib"},
    {"__init__"},
    {"catalogue", "demo"},
    {"cli"},
    {"__main__"},
)
"""From the ground up: a room imports from floors below its own and from itself, not from its neighbours."""


FOREIGN = {
    "_C": "torch has no public way into these switches",
    "_version": "how often a tensor was written in place: torch has no public name for it",
    "_parameters": "a module's own tables: what stands in for a parameter must not go through __setattr__",
    "_buffers": "the same",
    "_modules": "the same",
    "_non_persistent_buffers_set": "the same",
    "_optimizer_step_pre_hooks": "torch has no public way to find the hooks that are there",
    "_getframe": "of sys: the stack alone tells a step within a step from one that raised",
}
"""Private attributes of objects that are not ours, and why they are touched."""


def room(module: str) -> str:
    """The part of the package that a module is in."""
    return [*module.split("."), "__init__"][1]


def floor(module: str) -> int:
    return next(i for i, rooms in enumerate(FLOORS) if room(module) in rooms)


def own_imports(module: str) -> set[str]:
    """The package's files that one of them imports, for types alone included."""
    return {name for name in imports(MODULES[module]) if name in MODULES} - {module}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_down_the_floors(module: str) -> None:
    for name in own_imports(module):
        if room(name) != room(module):
            assert floor(name) < floor(module), f"{module} imports {name}"


def test_no_circle_of_imports() -> None:
    """Those for types included: files are taken away as long as one is left that imports none of the others."""
    left = {module: own_imports(module) for module in MODULES}
    while free := [module for module, names in left.items() if not names & left.keys()]:
        for module in free:
            del left[module]
    assert not left


@pytest.mark.parametrize("module", sorted(MODULES))
def test_nothing_reaches_into_the_privates_of_another_object(module: str) -> None:
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and re.match("_[a-zA-Z]", node.attr) and not is_self(node.value):
            found.add((node.attr, node.lineno))
    assert not {(name, line) for name, line in found if name not in FOREIGN}


def is_self(value: ast.expr) -> bool:
    """``self``, ``cls`` or ``super()``."""
    if isinstance(value, ast.Call):
        return isinstance(value.func, ast.Name) and value.func.id == "super"
    return isinstance(value, ast.Name) and value.id in ("self", "cls")


@pytest.mark.parametrize("module", sorted(MODULES))
def test_only_segments_looks_inside_tensors(module: str) -> None:
    if module != "glyder.vectors.segments":
        text = MODULES[module].read_text(encoding="utf-8")
        assert "data_ptr(" not in text
        assert "_core.Segments(" not in text
        assert "register_tensor_type" not in text


def test_glyder_lr_stands_on_nothing_that_looks_at_a_model() -> None:
    """Neither at its forward passes nor at its loss: directly, or through what it stands on."""
    reached: set[str] = set()
    new = {"glyder.schedulers.glyder"}
    while new:
        reached |= new
        new = set().union(*(own_imports(module) for module in new)) - reached
    assert {room(module) for module in reached} == {"_checks", "vectors", "optimizers", "engine", "schedulers"}
    watches = re.compile(r"register_(module_)?(full_)?(forward|backward)\w*hook|register_post_accumulate_grad_hook")
    assert not [module for module in reached if watches.search(MODULES[module].read_text(encoding="utf-8"))]
    capture = MODULES["glyder.probe.capture"].read_text(encoding="utf-8")
    assert watches.search(capture), "the pattern finds those that do"


@pytest.mark.parametrize("path", [*CORE, *BINDING, *MODULES.values()], ids=relative)
def test_files_open_with_what_they_are_and_stay_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 500
    if path.suffix == ".py":
        assert ast.get_docstring(ast.parse(text))
    else:
        assert text.startswith(f"/* {path.name} - ")
