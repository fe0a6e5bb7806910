"""``python -m benchmarks run|report|scale|carry``: see README.md beside this file."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness.drive import drive
from benchmarks.harness.recipe import RECIPE, carry
from benchmarks.harness.store import RESULTS, RUNS, Store
from benchmarks.harness.tuning import tune
from benchmarks.report import tables
from benchmarks.studies import plan, scale
from benchmarks.studies.suites import SUITES, log_final
from benchmarks.tasks.common.catalogue import tasks
from benchmarks.tasks.common.task import Task


def _available(found: list[Task]) -> list[Task]:
    """The tasks whose data are here; says which are not."""
    for task in found:
        if task.missing():
            print(f"skipped: {task.name} needs data that are not here: {', '.join(task.missing())}", file=sys.stderr)
    return [task for task in found if not task.missing()]


def _run(args: argparse.Namespace) -> None:
    found = _available(plan.chosen(args.suite, args.tasks, args.final))
    suite = SUITES[args.suite](found, Store(args.results / RUNS), args.optimizers)
    if args.dry_run:
        for name, runs in suite.left().items():
            print(f"{name:20s} {len(runs):6d} runs {sum(tasks()[run.task].steps for run in runs):9d} updates")
        print("and what is decided by their results")
        return
    if held_out := [task for task in found if task.held_out]:
        log_final(args.results, held_out)
    start = time.monotonic()
    suite.run(args.jobs)
    print(f"{args.suite}: done in {time.monotonic() - start:.0f} s; now: python -m benchmarks report")


def _report(args: argparse.Namespace) -> None:
    tables.report(Store(args.results / RUNS), args.results)
    print(f"written: {args.results}")


def _scale(args: argparse.Namespace) -> None:
    found = [task for task in _available(plan.chosen("full", args.tasks)) if task.group == "development"]
    runs, seen = Store(args.results / RUNS), Store(scale.path(args.results))
    pairs = [(task, o) for task, o in plan.pairs_of(found) if not args.optimizers or o in args.optimizers]
    tuned = drive([tune(task, o, runs) for task, o in pairs], runs, args.jobs)
    drive([scale.study(task, o) for task, o in pairs], seen, args.jobs, scale.measured)
    peaks = {(task.name, o): peak for (task, o), peak in zip(pairs, tuned, strict=True)}
    print(tables.predicted(scale.summary(peaks, scale.found(seen, RECIPE), tasks())))


def _carry(args: argparse.Namespace) -> None:
    print(
        f"{args.file}: {carry(args.file, args.old, args.new)} lines of recipe {args.old} are of recipe {args.new} now"
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
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
            command.add_argument("--tasks", nargs="*", default=(), help="these tasks alone")
            command.add_argument("--optimizers", nargs="*", default=(), help="these optimizers alone")
        if call is _run:
            command.add_argument("--final", action="store_true", help="the held-out tasks too; logged")
            command.add_argument("--suite", choices=tuple(SUITES), default="quick")
            command.add_argument("--dry-run", action="store_true", help="print what is to be run next, and end")
    does = "have the lines of one recipe be of another: for runs that come out the same to the bit"
    command = commands.add_parser("carry", help=does, description=does)
    command.set_defaults(call=_carry)
    command.add_argument("file", type=Path, help="of lines; nothing else may write to it meanwhile")
    command.add_argument("old", help="the recipe that the lines have")
    command.add_argument("new", type=int, nargs="?", default=RECIPE, help="the recipe to give them (%(default)s)")
    args = parser.parse_args(argv)
    args.call(args)


if __name__ == "__main__":
    main()
