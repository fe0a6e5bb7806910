"""Results: one JSON line a run, appended as it ends, found again by what the run is."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from benchmarks.harness.run import AnyRun, Identified, Record

RESULTS = Path(__file__).resolve().parents[1] / "results"
RUNS = "runs.jsonl"


class Store:
    """The lines of a file, the latest of each key; a torn last line (a run that was cut off) is left out."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: dict[str, Record] = {}
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    record = json.loads(line)
                except json.JSONDecodeError:
                    continue
                self.records[record["key"]] = record

    def __getitem__(self, run: Identified) -> Record:
        return self.records[run.key]

    def __contains__(self, run: Identified) -> bool:
        return run.key in self.records

    def missing(self, runs: Iterable[AnyRun]) -> list[AnyRun]:
        return [run for run in runs if run not in self]

    def add(self, record: Record) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+") as file:
            torn = file.tell() > 0 and file.seek(-1, 2) >= 0 and file.read() != b"\n"
            file.write(b"\n" * torn + json.dumps(record).encode() + b"\n")
        self.records[record["key"]] = record
