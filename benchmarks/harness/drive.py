"""Runs the studies of a suite: many at once, in processes of one thread each, every result kept as it comes."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import Any

from benchmarks.harness.run import Record, Run, recorded
from benchmarks.harness.store import Store
from benchmarks.harness.train import scored
from benchmarks.harness.tuning import Study

Does = Callable[[Run], Record]
"""Runs, in a process of its own; gives what the line is to hold beside what the run is."""


def drive(studies: Iterable[Study], store: Store, jobs: int, does: Does = scored) -> list[Any]:
    """What each study returns, in order."""
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        return _Driver(list(studies), store, pool, jobs, does).run()


class _Driver:
    def __init__(self, studies: list[Study], store: Store, pool: ProcessPoolExecutor, jobs: int, does: Does) -> None:
        self.studies, self.store, self.pool, self.jobs, self.does = studies, store, pool, jobs, does
        self.results: list[Any] = [None] * len(studies)
        self.waiting: dict[int, set[str]] = {}
        self.queue: list[tuple[int, Run]] = []  # with the study that asked: earlier ones are finished first
        self.futures: dict[Future[Record], Run] = {}
        self.done, self.start = 0, time.monotonic()

    def run(self) -> list[Any]:
        for i in range(len(self.studies)):
            self._advance(i)
            self._submit()
        while self.futures:
            finished, _ = wait(self.futures, return_when=FIRST_COMPLETED)
            for future in finished:
                run = self.futures.pop(future)
                record = future.result()
                self.store.add(record)
                self._tell(run, record)
                for i, keys in list(self.waiting.items()):
                    keys.discard(run.key)
                    if not keys:
                        self._advance(i)
            self._submit()
        return self.results

    def _advance(self, i: int) -> None:
        """Resume a study until it asks for runs that are not there yet."""
        self.waiting.pop(i, None)
        while True:
            try:
                wanted = self.store.missing(next(self.studies[i]))
            except StopIteration as end:
                self.results[i] = end.value
                return
            if wanted:
                under_way = {r.key for r in (*(r for _, r in self.queue), *self.futures.values())}
                self.queue += [(i, r) for r in wanted if r.key not in under_way]
                self.queue.sort(key=lambda asked: asked[0])
                self.waiting[i] = {r.key for r in wanted}
                return

    def _submit(self) -> None:
        while self.queue and len(self.futures) < self.jobs:
            _, run = self.queue.pop(0)
            self.futures[self.pool.submit(recorded, run, self.does)] = run

    def _tell(self, run: Run, record: Record) -> None:
        self.done += 1
        score = f"{record['validation']['loss']:.4g}" if "validation" in record else "done"
        what = record.get("crashed") or ("diverged" if record.get("diverged") else score)
        options = " ".join(f"{k}={v}" for k, v in run.options.items())
        line = f"[{self.done} +{len(self.queue) + len(self.futures)}, {time.monotonic() - self.start:.0f} s]"
        print(f"{line} {run.task} {run.optimizer} {run.method} {options} seed {run.seed}: {what}", file=sys.stderr)
