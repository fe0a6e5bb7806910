"""A lint of the binding: misuse of Python's C interface that compiles and mostly works.

A line that must break a rule says so in a comment ``lint: allow``.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

BINDING = Path(__file__).parents[1] / "csrc" / "binding"
FILES = sorted(BINDING.glob("*.[ch]"))

FORBIDDEN = {
    r"\bPyModule_AddObject\s*\(": "steals on success only; use PyModule_AddObjectRef",
    r"\bPy(Tuple|List)_SetItem\s*\(": "steals a reference; append, or Py_BuildValue",
    r"\bPy(Tuple|List)_(SET|GET)_(ITEM|SIZE)\s*\(": "not in the stable ABI",
    r"\bPy_BuildValue\s*\(\s*\"[^\"]*N": "the N code steals a reference",
    r"\bPyException_Set(Cause|Context)\s*\(": "steals a reference",
    r"\bPyType_Ready\s*\(": "static type; use PyType_FromModuleAndSpec",
    r"\bPyTypeObject\s+\w+\s*=\s*\{": "static type; use PyType_FromModuleAndSpec",
    r"^\s*static\s+PyObject\s*\*\s*\w+\s*(=|;)": "object shared between interpreters; put it into the module state",
    r"\bPyModule_Create2?\s*\(": "single-phase initialisation",
    r"\bPyState_\w+\s*\(": "finds one module per process only",
    r"\bPyGILState_\w+\s*\(": "assumes one interpreter",
    r"\bPyEval_(Save|Restore)Thread\s*\((?!\)|glpy_thread)": "the lock is released by GLPY_KERNEL alone",
    r"\bPy_(BEGIN|END)_ALLOW_THREADS\b": "the lock is released by GLPY_KERNEL alone",
    r"\bPyDict_GetItem\s*\(": "swallows exceptions; use PyDict_GetItemWithError",
    r"\bPyObject_HasAttr(String)?\s*\(": "swallows exceptions",
    r"\bPyErr_(Print|Clear|WriteUnraisable)\s*\(": None,  # allowed where the line or the one before says what it drops
    r"\b(malloc|calloc|realloc|free)\s*\(": "use PyMem_*",
    r"\b(strcpy|strcat|sprintf|gets|strtok|alloca)\s*\(": "unbounded",
    r"\b_Py\w+": "private interface",
    r"#\s*include\s*<(internal|cpython)/": "private interface",
}


def code_lines(path: Path) -> list[str]:
    """Lines with comments and strings blanked, numbers kept."""

    def blank(match: re.Match[str]) -> str:
        keep = "lint: allow" if "lint: allow" in match[0] else ""
        return keep + "\n" * match[0].count("\n")

    text = re.sub(r"/\*.*?\*/", blank, path.read_text(encoding="utf-8"), flags=re.DOTALL)
    return text.split("\n")


def functions(path: Path) -> dict[str, list[str]]:
    """Bodies by name; functions start and end in the first column."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in code_lines(path):
        head = re.match(r"^(?!static const|#)[\w].*?\b(\w+)\(.*[^;]$", line)
        if head and not line.startswith(("struct {", "PyDoc_STRVAR")):
            name = head[1]
            found[name] = []
        if name:
            found[name].append(line)
        if line.startswith("}"):
            name = ""
    return found


BODIES = [(path.name, name, body) for path in FILES for name, body in functions(path).items() if body[-1] == "}"]


@pytest.mark.parametrize("pattern", [p for p, reason in FORBIDDEN.items() if reason])
def test_forbidden(pattern: str) -> None:
    hits = [
        f"{path.name}:{number}: {line.strip()}"
        for path in FILES
        for number, line in enumerate(code_lines(path), 1)
        if re.search(pattern, line) and "lint: allow" not in line
    ]
    assert not hits, f"{FORBIDDEN[pattern]}\n" + "\n".join(hits)


def test_the_lint_sees_the_functions() -> None:
    names = {name for _, name, _ in BODIES}
    assert {"segments_new", "reduce", "ce_residual", "rule_update", "exec_module", "glpy_read_array"} <= names


@pytest.mark.parametrize(("file", "name", "body"), BODIES, ids=[f"{f}:{n}" for f, n, _ in BODIES])
def test_functions(file: str, name: str, body: list[str]) -> None:
    text = "\n".join(body)
    assert len(body) <= 60
    for local in re.findall(r"\bPyObject \*(\w+)(?:, \*(\w+))*;", text):
        raise AssertionError(f"{file}: {name}: locals start as NULL: {local}")
    if "goto" in text:
        assert set(re.findall(r"goto (\w+);", text)) == {"done"}
        assert text.count("\ndone:\n") == 1
        after = text.split("\ndone:\n")[1]
        assert "return NULL" not in after
        # Between the first goto and the label nobody leaves another way.
        middle = text[text.index("goto") : text.index("\ndone:\n")]
        assert "return" not in middle.replace("result", ""), f"{file}: {name} returns past its cleanup"
    if "GLPY_KERNEL(" in text:
        call = text[text.index("GLPY_KERNEL(") :]
        call = call[: call.index(";")]
        assert "Py" not in call, f"{file}: {name}: Python is called without the lock"
    if "GLPY_LOCK(" in text:
        locked = text[text.index("GLPY_LOCK(") : text.index("GLPY_UNLOCK(")]
        assert "return" not in locked
        assert "Py" not in locked.replace("GLPY", "").replace("PyObject", "")
