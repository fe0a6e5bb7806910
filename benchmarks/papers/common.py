"""What the experiments share: runs that are found again by what they are, and where they are kept."""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness.run import Record, recorded
from benchmarks.harness.store import RESULTS, Store
from benchmarks.tasks.common import data

PAPERS = RESULTS / "papers"
"""Where the lines, figures and tables of these experiments lie."""


@dataclass(frozen=True)
class Trial:
    """One run of an experiment: ``seed`` and ``options``, which JSON can hold, decide all of it."""

    experiment: str
    seed: int
    options: dict[str, Any] = field(default_factory=dict)

    @functools.cached_property
    def key(self) -> str:
        """What makes two runs the same run."""
        return json.dumps([self.experiment, self.seed, self.options], sort_keys=True)

    @property
    def identity(self) -> Record:
        return {"key": self.key, **asdict(self)}


def complete(trials: Iterable[Trial], store: Store, does: Callable[[Trial], Record], needs: str = "") -> list[Record]:
    """The lines of all ``trials``, in order; what ``store`` lacks is run, and kept as it ends.

    None of them where some are lacking and the data set ``needs`` is not here.
    """
    wanted = list(trials)
    missing = store.missing(wanted)
    if missing and not data.present(needs):
        print(f"skipped: {len(missing)} runs need data that are not here: {needs}", file=sys.stderr)
        return []
    for trial in missing:
        store.add(recorded(trial, does))
    return [store[trial] for trial in wanted]


def folder(paper: str, about: str | None, argv: Sequence[str] | None) -> Path:
    """Where the command line wants the results."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.papers.{paper}", description=about)
    parser.add_argument("--results", type=Path, default=PAPERS, help="folder of the results (%(default)s)")
    return parser.parse_args(argv).results
