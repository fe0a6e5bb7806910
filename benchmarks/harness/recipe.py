"""Which version of GlyderLR's rates a run was made with."""

from __future__ import annotations

import json
import os
from pathlib import Path

RECIPE = 2
"""Raised by hand whenever the rates of GlyderLR change, so that its runs are made again and no others are.

1 was the first release. ``tests/benchmarks/test_recipe.py`` says when it has to be raised.
"""


def ours(method: str) -> bool:
    """Whether GlyderLR sets the rates, so that the recipe is part of a run's key."""
    return method.split("-")[0] in ("glyder", "refit")


def carry(path: Path, old: str, new: int) -> int:
    """Have the lines of recipe ``old`` in a file be of recipe ``new``; returns how many there were.

    For runs that are known to come out the same to the bit. Nothing else may write to the file meanwhile.
    """
    lines, count = path.read_text().splitlines(keepends=True), 0
    for i, text in enumerate(lines):
        try:
            record = json.loads(text)
        except json.JSONDecodeError:  # a run that was cut off
            continue
        if str(record["recipe"]) == old:
            if ours(record["method"]):
                record["key"] = json.dumps([*json.loads(record["key"])[:-1], new], sort_keys=True)
            lines[i], count = json.dumps(record | {"recipe": new}) + "\n", count + 1
    partial = path.with_suffix(".partial")
    partial.write_text("".join(lines))
    os.replace(partial, path)
    return count
