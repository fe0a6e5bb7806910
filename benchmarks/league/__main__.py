"""``python -m benchmarks.league run|report|scale``: see README.md beside this file."""

from __future__ import annotations

import argparse
import json
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
from benchmarks.league.workload import Cell


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
    found = _available(plan.chosen("full", args.cells))
    runs, scales = Store(args.results / RUNS), Store(scale.path(args.results))
    pairs = [(cell, o) for cell, o in plan.pairs_of(found) if not args.optimizers or o in args.optimizers]
    names = [(cell.name, o) for cell, o in pairs]
    peaks = drive([tune(cell, o, runs) for cell, o in pairs], runs, args.jobs)
    drive([scale.study(cell, o, **args.options) for cell, o in pairs], scales, args.jobs, scale.execute)
    tuned = {name: scale.best_log_peak(peak) for name, peak in zip(names, peaks, strict=True)}
    workload = {name: cell.workload for name, (cell, _) in zip(names, pairs, strict=True)}
    errors = scale.errors(tuned, scale.found(scales, recipe(), args.options), workload)
    print(f"{'cell':24s} {'optimizer':10s} {'tuned':>7s} {'settled':>8s} {'error':>6s}   (log10)")
    for name in names:
        off = errors[scale.OURS][name]
        print(f"{name[0]:24s} {name[1]:10s} {tuned[name]:7.2f} {tuned[name] + off:8.2f} {off:+6.2f}")
    print("\n" + scale.render(scale.summary(errors)))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.league", description=__doc__)
    commands = parser.add_subparsers(required=True)
    for name, does, call in (
        ("run", "run a suite; what is there already is not run again", _run),
        ("report", "tables and figures of all results", _report),
        ("scale", "how far from the tuned peaks glyder settles, in decades", _scale),
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
        if call is _scale:
            command.add_argument("--options", type=json.loads, default={}, help="of GlyderLR, as JSON")
    args = parser.parse_args(argv)
    args.call(args)


if __name__ == "__main__":
    main()
