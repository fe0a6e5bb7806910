"""``python -m benchmarks.league run|report|scale``: see README.md beside this file."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.league import plan, scale
from benchmarks.league.drive import drive
from benchmarks.league.dry import dry_run
from benchmarks.league.store import RESULTS, RUNS, Store
from benchmarks.league.suites import SUITES, log_final
from benchmarks.league.train import environment, recipe
from benchmarks.league.tuning import tune
from benchmarks.league.workload import Cell, cells


def _available(found: list[Cell]) -> list[Cell]:
    """The cells whose data are here; says which are not."""
    for cell in found:
        if cell.missing():
            print(f"skipped: {cell.name} needs data that are not here: {', '.join(cell.missing())}", file=sys.stderr)
    return [cell for cell in found if not cell.missing()]


def _run(args: argparse.Namespace) -> None:
    found = _available(plan.chosen(args.suite, args.cells, args.final))
    suite = SUITES[args.suite](found, Store(args.results / RUNS), args.optimizers)
    if args.dry_run:
        print(dry_run(suite))
        return
    if reserved := [cell for cell in found if cell.reserved]:
        log_final(args.results, reserved, environment())
    start = time.monotonic()
    suite.run(args.jobs)
    print(f"{args.suite}: done in {time.monotonic() - start:.0f} s; now: python -m benchmarks.league report")


def _report(args: argparse.Namespace) -> None:
    from benchmarks.league.report import report

    report(Store(args.results / RUNS), args.results)
    print(f"written: {args.results}")


def _scale(args: argparse.Namespace) -> None:
    found = [cell for cell in _available(plan.chosen("full", args.cells)) if cell.group == "development"]
    runs, seen = Store(args.results / RUNS), Store(scale.path(args.results))
    pairs = [(cell, o) for cell, o in plan.pairs_of(found) if not args.optimizers or o in args.optimizers]
    tuned = drive([tune(cell, o, runs) for cell, o in pairs], runs, args.jobs)
    drive([scale.study(cell, o) for cell, o in pairs], seen, args.jobs, scale.execute)
    peaks = {(cell.name, o): peak for (cell, o), peak in zip(pairs, tuned, strict=True)}
    print(scale.render(scale.summary(peaks, scale.found(seen, recipe()), cells())))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.league", description=__doc__)
    commands = parser.add_subparsers(required=True)
    for name, does, call in (
        ("run", "run a suite; what is there already is not run again", _run),
        ("report", "tables and figures of all results", _report),
        ("scale", "what tells of the tuned peaks, and how far from them glyder settles", _scale),
    ):
        command = commands.add_parser(name, help=does, description=does)
        command.set_defaults(call=call)
        command.add_argument("--results", type=Path, default=RESULTS, help="folder of the results (%(default)s)")
        if call is not _report:
            command.add_argument("--jobs", type=int, default=2, help="processes, one thread each (%(default)s)")
            command.add_argument("--cells", nargs="*", default=(), help="these cells alone")
            command.add_argument("--optimizers", nargs="*", default=(), help="these optimizers alone")
        if call is _run:
            command.add_argument("--final", action="store_true", help="the reserved workloads too; logged")
            command.add_argument("--suite", choices=tuple(SUITES), default="quick")
            command.add_argument("--dry-run", action="store_true", help="print how much there is to run, and end")
    args = parser.parse_args(argv)
    args.call(args)


if __name__ == "__main__":
    main()
