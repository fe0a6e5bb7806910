"""One run: a cell, an optimizer, a method with its options, a seed; and what came of it."""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import math
import platform
import re
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import glyder
from benchmarks.league.methods import Method, makers
from benchmarks.league.workload import Cell, Task, cells

TUNING_SEEDS = (101, 102, 103)
"""Seeds A: what is chosen, is chosen on these."""

FRESH_SEEDS = (1, 2, 3)
"""Seeds B: what was chosen is compared on these; only they are scored on the test part."""

POINTS = 50
"""Points of the curves of loss and rate that are kept of a run."""

GONE = 1.5
"""A run has diverged if its loss is not finite, or this many times that of the model before training."""


@dataclass(frozen=True)
class Run:
    """One run; ``options`` are the method's."""

    cell: str
    optimizer: str
    method: str
    seed: int
    options: dict[str, Any] = field(default_factory=dict)

    @functools.cached_property
    def key(self) -> str:
        """What makes two runs the same run; where GlyderLR sets the rates, the sources that decide them too."""
        parts: list[Any] = [self.cell, self.optimizer, self.method, self.seed, self.options]
        return json.dumps([*parts, recipe()] if ours(self.method) else parts, sort_keys=True)


def ours(method: str) -> bool:
    """Whether GlyderLR sets the rates."""
    return method.split("-")[0] in ("glyder", "refit")


@functools.cache
def recipe() -> str:
    """A short hash of the code that decides what GlyderLR does; its comments and docstrings play no part."""
    code = [
        bare(path.read_text(encoding="utf-8")) for path in reached(Path(glyder.__file__).parent, "schedulers.glyder")
    ]
    names = sorted({"schedule", *re.findall(r"Rule\(['\"](\w+)['\"]", "".join(code))})
    folder = Path(__file__).parents[2] / "csrc"
    rules = [folder / "gl_tensorwise.c", folder / "rules" / "peak.h", *(folder / "rules" / f"{n}.c" for n in names)]
    code += [re.sub(r"/\*.*?\*/|\s+", " ", path.read_text(encoding="utf-8"), flags=re.DOTALL) for path in rules]
    return hashlib.sha256("".join(code).encode()).hexdigest()[:10]


def reached(package: Path, module: str) -> list[Path]:
    """The files of a package that a module of it imports, directly or not, and its own."""
    found: dict[str, Path] = {}
    queue = [module]
    while queue:
        name = queue.pop()
        path = package / f"{name.replace('.', '/')}.py"
        if name in found or not path.exists():
            continue
        found[name] = path
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == package.name:
                queue += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{package.name}."):
                queue.append(str(node.module).removeprefix(f"{package.name}."))
    return [found[name] for name in sorted(found)]


def bare(code: str) -> str:
    """Python code as its syntax tree has it, without docstrings."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            # a string that stands alone documents what is around or before it
            node.body = [n for n in body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))]  # type: ignore[attr-defined]
    return ast.unparse(tree)


@functools.cache
def environment() -> dict[str, Any]:
    """Versions, machine and commit."""
    git = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return {
        "glyder": glyder.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "commit": git.stdout.strip() or "unknown",
    }


def recorded(run: Run, does: Callable[[Run], dict[str, Any]]) -> dict[str, Any]:
    """The line of a run: what it is, where it ran, and what ``does``, on one thread, makes of it."""
    line = {
        "key": run.key, "cell": run.cell, "optimizer": run.optimizer, "method": run.method, "seed": run.seed,
        "options": run.options, "steps": cells()[run.cell].steps, "recipe": recipe(),
        "environment": environment(),
    }  # fmt: skip
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return line | does(run)
    finally:
        torch.set_num_threads(threads)


def execute(run: Run) -> dict[str, Any]:
    """Train and score. A run that diverges stops there, and says so; so does one whose method raises."""
    return recorded(run, _attempt)


def _attempt(run: Run) -> dict[str, Any]:
    try:
        return _train(run)
    except Exception as error:  # a rival's crash is a result
        return {"crashed": f"{type(error).__name__}: {error}"[:500], "diverged": True}


def updates(task: Task, cell: Cell, method: Method) -> Iterator[Tensor]:
    """Train, an update at a time; gives the loss before each."""
    trained = [p for p in task.model.parameters() if p.requires_grad]
    for _ in range(cell.steps):
        loss = task.loss(task.model, next(task.batches))
        loss.backward()
        if cell.clip is not None:
            torch.nn.utils.clip_grad_norm_(trained, cell.clip)
        method.step(loss)
        method.zero_grad()
        yield loss.detach()


def _train(run: Run) -> dict[str, Any]:
    cell = cells()[run.cell]
    task = cell.build(run.seed)
    initial = task.evaluate(task.model, "validation")["loss"]
    torch.manual_seed(run.seed + 20_000)
    method = makers()[run.method](task, cell, run.optimizer, **run.options)
    every = max(1, cell.steps // POINTS)
    losses, rates, peak, finite = [], [], 0.0, True
    start = time.perf_counter()
    for t, loss in enumerate(updates(task, cell, method)):
        value, rate = float(loss), method.rate()
        peak = max(peak, value)
        if t % every == 0:
            losses.append(round(value, 5))
            rates.append(float(f"{rate:.4g}"))
        if not math.isfinite(value):
            finite = False
            break
    seconds = time.perf_counter() - start
    model = method.finish()
    parts = ("train", "validation", "test") if run.seed in FRESH_SEEDS else ("train", "validation")
    scores = {part: task.evaluate(model, part) for part in parts} if finite else {}
    final = scores["validation"]["loss"] if scores else math.inf
    forwards, copies = method.cost()
    return scores | {
        "diverged": not (final <= GONE * initial), "initial": initial, "worst": peak if finite else None,
        "seconds": round(seconds, 3), "forwards": forwards, "copies": copies,
        **method.told(), **({"losses": losses, "rates": rates} if run.seed == FRESH_SEEDS[0] else {}),
    }  # fmt: skip
