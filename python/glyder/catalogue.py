"""What every scheduler says of itself: the facts in the field list of its docstring."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, fields

from torch.optim.lr_scheduler import LRScheduler

import glyder
from glyder import _core

NAMES = {"AnnealedLR": "schedule", "GlyderLR": "peak", "LocalOptimumLR": "glyder"}
"""Names in the C core of the schedulers that follow no rule, or one of another name."""

BEGIN, END = "<!-- rules: python -m glyder rules --markdown docs/rules.md -->", "<!-- end of rules -->"
"""What stands around the table of rules in docs/rules.md."""


@dataclass(frozen=True)
class Facts:
    """One scheduler: plain text, code in backticks.

    Attributes:
        rule: name in the C core: of a rule, or ``schedule``.
        scheduler: name of the class.
        formula: of the rate.
        source: paper and equation.
        passes: extra forward passes per update; a backward pass counts 2.
        memory: extra copies of the parameters.
        optimizers: those that it suits.
        use, avoid: when it is the right one, and when it is not.
    """

    rule: str
    scheduler: str
    formula: str
    source: str
    passes: str
    memory: str
    optimizers: str
    use: str
    avoid: str


FIELDS = tuple(field.name for field in fields(Facts))[2:]
"""Fields that each docstring has to have."""


def facts_of(scheduler: type) -> Facts:
    """The facts of one scheduler class.

    Raises:
        ValueError: it has no name in the C core, or a field of its docstring is missing, unknown or given twice.
    """
    name = scheduler.__name__
    rule = NAMES.get(name, name.removesuffix("LR").lower())
    if name not in NAMES and rule not in _core.rules():  # else RULE may be another: where a search starts from
        rule = getattr(scheduler, "RULE", "")
    if not rule:
        raise ValueError(f"{name}: it names no rule of the C core; set RULE")
    found: dict[str, str] = {}
    field = ""
    for line in inspect.cleandoc(scheduler.__doc__ or "").splitlines():
        if start := re.match(r":(\w+):(?: +(.*))?$", line):
            field, text = start[1], start[2] or ""
            if field not in FIELDS or field in found:
                fault = "given twice" if field in found else f"unknown; known: {', '.join(FIELDS)}"
                raise ValueError(f"{name}: the field :{field}: of its docstring is {fault}")
            found[field] = text
        elif field and line.startswith(" "):
            found[field] = f"{found[field]} {line.strip()}".lstrip()
        elif field and line:
            raise ValueError(f"{name}: a line goes on with the field :{field}: of its docstring and is not indented")
        else:
            field = ""
    for field in FIELDS:
        if not found.get(field):
            raise ValueError(f"{name}: the field :{field}: of its docstring is missing or empty")
    return Facts(rule, name, **{field: text.replace("``", "`") for field, text in found.items()})


def catalogue() -> list[Facts]:
    """The facts of every scheduler that glyder exports, in the order of ``glyder.__all__``."""
    exported = [getattr(glyder, name) for name in glyder.__all__]
    return [facts_of(thing) for thing in exported if isinstance(thing, type) and issubclass(thing, LRScheduler)]


def text(rules: list[Facts]) -> str:
    """For the terminal: a paragraph for each rule."""
    shown = ("source", "passes", "memory", "optimizers")
    paragraphs = [
        "\n".join([f"{facts.rule}: glyder.{facts.scheduler}", *(f"    {f:<12}{getattr(facts, f)}" for f in shown)])
        for facts in rules
    ]
    units = "passes: extra forward passes per update, a backward pass counts 2; memory: extra copies of the parameters"
    return "\n\n".join([*paragraphs, units])


def markdown(rules: list[Facts]) -> str:
    """The table of docs/rules.md."""
    rows: list[tuple[str, ...]] = [
        ("rule", "formula", "source", "extra passes", "extra memory", "optimizers", "use it when", "not when")
    ]
    rows.append(("---",) * len(rows[0]))
    rows += [(f"`{f.scheduler}`", *(getattr(f, field).replace("|", r"\|") for field in FIELDS)) for f in rules]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def renewed(page: str, rules: list[Facts]) -> str:
    """``page`` with the table between its two marks written anew.

    Raises:
        ValueError: the page does not hold each mark once, in order.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise ValueError(f"the table of rules needs the lines {BEGIN} and {END} around it, each once")
    head, rest = page.split(BEGIN)
    return f"{head}{BEGIN}\n\n{markdown(rules)}\n\n{END}{rest.split(END)[1]}"
