"""Additional mini-batches: GLyDER as published measures on data that training does not see at that moment.

The user's own loader is never iterated: a second iterator would reset persistent workers, repeat a distributed
sampler's order, or eat a stream. From a ``DataLoader`` a sibling is built that reads the same data set in an order of
its own; any other source is a callable that returns a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from glyder.untouched import RandomState, seed_all


class Sibling:
    """Batches of a loader's data set, shuffled by a generator of its own, without workers, for ever."""

    def __init__(self, loader: DataLoader, seed: int = 0) -> None:
        if isinstance(loader.dataset, IterableDataset):
            raise TypeError(
                "batches=DataLoader(IterableDataset) cannot be read a second time without taking from the training: "
                "pass batches=callable that returns a batch from a stream of its own"
            )
        size = loader.batch_size if loader.batch_size is not None else getattr(loader.batch_sampler, "batch_size", 1)
        self.dataset, self.collate, self.seed = loader.dataset, loader.collate_fn, seed
        self.size = min(int(size), len(loader.dataset))  # type: ignore[arg-type]
        self.batched = loader.batch_size is not None or loader.batch_sampler is not None
        if self.size < 1:
            raise ValueError("batches=DataLoader(...) holds no data")
        self.taken = 0

    def __call__(self) -> Any:
        """The next batch. Leaves every random generator as it was."""
        per_epoch = len(self.dataset) // self.size  # type: ignore[arg-type]
        epoch, place = divmod(self.taken, per_epoch)
        order = torch.randperm(
            len(self.dataset),  # type: ignore[arg-type]
            generator=torch.Generator().manual_seed(self.seed + epoch),
        )
        rng = RandomState.now()
        try:
            seed_all(self.seed * 1_000_003 + self.taken)  # augmentation must not repeat the training's
            items = [self.dataset[i] for i in order[place * self.size : (place + 1) * self.size].tolist()]
            batch = self.collate(items if self.batched else items[0])
        finally:
            rng.restore()
        self.taken += 1
        return batch


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
        return source
    kind = type(source).__name__
    if isinstance(source, Iterator):
        raise TypeError(f"batches={kind} is a one-shot iterable and would run dry: pass a DataLoader or a callable")
    raise TypeError(f"batches=... must be a DataLoader, a list of batches or a callable, got {kind}")


class Cycle:
    """A list of batches, in turn, for ever."""

    def __init__(self, batches: list) -> None:
        if not batches:
            raise ValueError("batches=[] holds no data")
        self.batches, self.taken = batches, 0

    def __call__(self) -> Any:
        batch = self.batches[self.taken % len(self.batches)]
        self.taken += 1
        return batch
