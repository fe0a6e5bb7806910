"""Additional mini-batches: GLyDER as published measures on data that training does not see at that moment.

The user's own loader is never iterated: a second iterator would reset persistent workers, repeat a distributed
sampler's order, or eat a stream. From a ``DataLoader`` a sibling is built that reads the same data set in an order of
its own; any other source is a callable that returns a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
)

from glyder.probe.isolation import RandomState, seed_all


class Sibling:
    """Batches of a loader's data set, shuffled by a generator of its own, without workers, for ever."""

    def __init__(self, loader: DataLoader[Any], seed: int = 0) -> None:
        if isinstance(loader.dataset, IterableDataset):
            raise TypeError(
                "batches=DataLoader(IterableDataset) cannot be read a second time without taking from the training: "
                "pass batches=callable that returns a batch from a stream of its own"
            )
        self.dataset, self.collate, self.seed = loader.dataset, loader.collate_fn, seed
        self.indices = _indices(loader)
        self.batched = loader.batch_sampler is not None
        self.size = min(getattr(loader.batch_sampler, "batch_size", 1), len(self.indices))
        if self.size < 1:
            raise ValueError("batches=DataLoader(...) holds no data")
        self.taken = 0
        self._order: tuple[int, list[int]] = (-1, [])

    def __call__(self) -> Any:
        """The next batch. Leaves every random generator as it was."""
        epoch, place = divmod(self.taken, len(self.indices) // self.size)
        if self._order[0] != epoch:
            generator = torch.Generator().manual_seed(self.seed + epoch)
            self._order = epoch, torch.randperm(len(self.indices), generator=generator).tolist()
        chosen = [self.indices[i] for i in self._order[1][place * self.size : (place + 1) * self.size]]
        rng = RandomState.now()
        try:
            seed_all(self.seed * 1_000_003 + self.taken)  # augmentation must not repeat the training's
            several = getattr(self.dataset, "__getitems__", None)
            items = several(chosen) if several is not None and self.batched else [self.dataset[i] for i in chosen]
            batch = self.collate(items if self.batched else items[0])
        finally:
            rng.restore()
        self.taken += 1
        return batch


def _indices(loader: DataLoader[Any]) -> Sequence[int]:
    """What the loader draws from, without asking its sampler, whose state belongs to the training."""
    samplers = (loader.sampler, loader.batch_sampler)
    if type(samplers[1]) in (BatchSampler, type(None)):
        if type(samplers[0]) in (RandomSampler, SequentialSampler, DistributedSampler):
            return range(len(loader.dataset))  # type: ignore[arg-type]
        if type(samplers[0]) is SubsetRandomSampler:
            return samplers[0].indices
    other = samplers[0 if type(samplers[1]) in (BatchSampler, type(None)) else 1]
    raise TypeError(
        f"batches=DataLoader(...) with a {type(other).__name__} cannot be read a second time without knowing what it "
        "draws: pass batches=callable that returns a batch"
    )


def batches_of(source: Any, seed: int = 0) -> Callable[[], Any]:
    """A callable that returns the next additional mini-batch.

    Args:
        source: a ``DataLoader`` (a sibling is built), a list of batches (cycled), or a callable without arguments.

    Raises:
        TypeError: for one-shot iterables, which would run dry, and anything else.
    """
    if isinstance(source, DataLoader):
        return Sibling(source, seed)
    if isinstance(source, list):
        return Cycle(source)
    if callable(source):
        return source  # type: ignore[no-any-return]
    kind = type(source).__name__
    if isinstance(source, Iterator):
        raise TypeError(f"batches={kind} is a one-shot iterable and would run dry: pass a DataLoader or a callable")
    raise TypeError(f"batches=... must be a DataLoader, a list of batches or a callable, got {kind}")


class Cycle:
    """A list of batches, in turn, for ever."""

    def __init__(self, batches: list[Any]) -> None:
        if not batches:
            raise ValueError("batches=[] holds no data")
        self.batches, self.taken = batches, 0

    def __call__(self) -> Any:
        batch = self.batches[self.taken % len(self.batches)]
        self.taken += 1
        return batch
