"""Additional mini-batches: they never touch the user's loader, and what is measured on them is what autograd says."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Sampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from glyder.probe.estimators import EstimatorError, GaussNewton, GaussNewtonBartlett, Projection
from glyder.probe.extra_batches import Cycle, Sibling, batches_of
from glyder.probe.samples import Sampler as Source

from . import truth
from .test_no_trace import no_trace, switches


class Augmented(Dataset):
    """Every item is itself and noise from every generator there is."""

    def __init__(self, n: int = 50) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> tuple[int, float, float, Tensor]:
        return i, random.random(), np.random.rand(), torch.rand(2)


class Stream(IterableDataset):
    def __iter__(self) -> Iterator[int]:
        return iter(range(10))


def test_the_loader_goes_on_as_if_nothing_was_read() -> None:
    """With a sibling read between its batches, a loader gives the very batches that it gives alone."""

    def run(read: bool) -> list:
        torch.manual_seed(3)
        random.seed(3)
        np.random.seed(3)
        loader = DataLoader(Augmented(), batch_size=7, shuffle=True)
        source = batches_of(loader, 1)
        seen = []
        for batch in loader:
            seen.append([t.tolist() for t in batch])
            if read:
                source()
        seen.append(torch.rand(3).tolist())
        return seen

    assert run(True) == run(False)


def test_workers_stay() -> None:
    """Persistent workers are not reset, and none are started."""
    loader = DataLoader(TensorDataset(torch.arange(8)), batch_size=2, num_workers=1, persistent_workers=True)
    source = batches_of(loader)
    first = list(loader)
    iterator, workers = loader._iterator, loader._iterator._workers
    try:
        source()
        assert loader._iterator is iterator and loader._iterator._workers is workers
        assert [b[0].tolist() for b in loader] == [b[0].tolist() for b in first]
    finally:
        iterator._shutdown_workers()


def test_a_sibling_reads_everything_once_per_epoch_in_an_order_of_its_own() -> None:
    loader = DataLoader(Augmented(48), batch_size=8)
    sibling, other = Sibling(loader, 1), Sibling(loader, 2)
    epochs = [[i for _ in range(6) for i in sibling()[0].tolist()] for _ in range(2)]
    for order in epochs:
        assert sorted(order) == list(range(48)) != order
    assert epochs[0] != epochs[1]
    assert [i for _ in range(6) for i in other()[0].tolist()] != epochs[0]


def test_a_sibling_goes_on_where_it_was() -> None:
    loader = DataLoader(Augmented(), batch_size=8)
    one, other = Sibling(loader), Sibling(loader)
    batches = [one() for _ in range(9)]
    other.taken = 7
    for expected in batches[7:]:
        for a, b in zip(expected, other(), strict=True):
            assert torch.equal(a, b)


def test_reading_leaves_the_generators() -> None:
    source = batches_of(DataLoader(Augmented(), batch_size=8))
    before = switches()
    source()
    assert switches() == before


def test_augmentation_differs_between_batches_and_is_repeatable() -> None:
    loader = DataLoader(Augmented(4), batch_size=4)
    one, other = Sibling(loader), Sibling(loader)
    first, second = one(), one()
    assert not set(first[1].tolist()) & set(second[1].tolist())
    assert torch.equal(first[3], other()[3])


def test_small_and_unbatched_and_ragged() -> None:
    assert len(Sibling(DataLoader(Augmented(3), batch_size=8))()[0]) == 3
    assert Sibling(DataLoader(Augmented(3), batch_size=None))()[3].shape == (2,)
    sibling = Sibling(DataLoader(Augmented(10), batch_size=4))
    assert [len(sibling()[0]) for _ in range(5)] == [4] * 5  # the ragged rest is left out


def test_a_subset_stays_one() -> None:
    """The rest may be the validation data."""
    sibling = Sibling(DataLoader(Augmented(50), batch_size=5, sampler=SubsetRandomSampler(range(20))))
    assert {i for _ in range(4) for i in sibling()[0].tolist()} == set(range(20))


class Own(Sampler):
    def __iter__(self) -> Iterator[int]:
        return iter(range(3))


class OwnBatches(Own):
    def __iter__(self) -> Iterator[list[int]]:
        return iter([[0, 1]])


REFUSED = {
    "IterableDataset": lambda: DataLoader(Stream()),
    "WeightedRandomSampler": lambda: DataLoader(Augmented(), sampler=WeightedRandomSampler([1.0, 2.0], 2)),
    "a Own ": lambda: DataLoader(Augmented(), sampler=Own()),
    "OwnBatches": lambda: DataLoader(Augmented(), batch_sampler=OwnBatches()),
    "list_iterator is a one-shot iterable": lambda: iter([1, 2]),
    "generator is a one-shot iterable": lambda: (i for i in range(3)),
    "SingleProcessDataLoaderIter is a one-shot": lambda: iter(DataLoader(Augmented())),
    "got int": lambda: 3,
    "got Tensor": lambda: torch.zeros(3),
}


@pytest.mark.parametrize("words", REFUSED)
def test_refused_by_name(words: str) -> None:
    with pytest.raises(TypeError, match=words) as caught:
        batches_of(REFUSED[words]())
    assert "callable" in str(caught.value)


def test_nothing_to_read() -> None:
    with pytest.raises(ValueError, match="holds no data"):
        batches_of([])
    with pytest.raises(ValueError, match="holds no data"):
        batches_of(DataLoader(Augmented(0), sampler=SubsetRandomSampler([])))


def test_a_list_goes_round_and_a_callable_is_called() -> None:
    cycle = batches_of(["a", "b", "c"])
    assert isinstance(cycle, Cycle)
    assert [cycle() for _ in range(7)] == list("abcabca")
    assert batches_of(lambda: 5)() == 5


# ---- what is measured on them


def pairs(n: int) -> list[tuple[Tensor, Tensor]]:
    return [(torch.randn(20, 12).double(), torch.randint(7, (20,))) for _ in range(n)]


def by_callable(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


@pytest.mark.parametrize("loss", [by_callable, nn.CrossEntropyLoss()], ids=["callable", "criterion"])
def test_slope_and_curvature_on_batches(loss: Any) -> None:
    """Each batch gives autograd's numbers of that batch, whatever training did in between."""
    model, data = truth.mlp().double(), pairs(3)
    direction = truth.direction_of(model)
    source = Source(model, loss, None, data, 3, 0)
    with no_trace(model):
        samples = source.samples(direction, 0)
    assert len(samples) == 3 and source.taken == 3
    for (x, y), sample in zip(data, samples, strict=True):
        true = truth.gauss_newton(model, lambda m, x=x: m(x), truth.cross_entropy(y), direction.deltas)
        second = truth.hessian(model, lambda m, x=x, y=y: F.cross_entropy(m(x), y), direction.deltas)
        with no_trace(model):
            found = GaussNewton().measure(direction, sample, 0)
            twice = Projection("hvp").measure(direction, sample, 0)
        assert found.source == twice.source == "gradients"
        assert found.slope == pytest.approx(true[0], rel=1e-12)
        assert found.curvature == pytest.approx(true[1], rel=1e-4)  # truncation of the central difference
        assert twice.curvature == pytest.approx(second[1], rel=1e-10)


def test_several_batches_are_the_mean_of_single_ones() -> None:
    """The scheduler's average over n_batches=3 is that of three samples of one."""
    model, data = truth.mlp().double(), pairs(3)
    direction = truth.direction_of(model)
    three = [
        GaussNewton().measure(direction, s, 0)
        for s in Source(model, by_callable, None, data, 3, 0).samples(direction, 0)
    ]
    single = Source(model, by_callable, None, data, 1, 0)
    ones = [GaussNewton().measure(direction, single.samples(direction, i)[0], 0) for i in range(3)]
    assert three == ones


def test_dropout_repeats_within_and_differs_between_measurements() -> None:
    model, (batch,) = truth.mlp(), pairs(1)
    model.insert(2, nn.Dropout(0.5))
    model, direction = model.double(), truth.direction_of(model.double())
    source = Source(model, by_callable, None, [batch], 1, 0)
    found = []
    for draw in (0, 0, 1):
        (sample,) = source.samples(direction, draw)
        found.append(GaussNewton().measure(direction, sample, draw))
        # The slope in the outputs, with the same masks, is that of the gradient.
        assert Projection("gradient").measure(direction, sample, draw).slope == found[-1].slope
        exact = truth.gauss_newton(
            model,
            truth.replayed(sample.call.random.cpu, lambda m: m(batch[0])),
            truth.cross_entropy(batch[1]),
            direction.deltas,
        )
        assert found[-1].curvature == pytest.approx(exact[1], rel=1e-4)
    assert found[0] == found[1] != found[2]


def test_sampled_labels_differ_between_draws() -> None:
    model, (batch,) = truth.mlp().double(), pairs(1)
    direction = truth.direction_of(model)
    (sample,) = Source(model, by_callable, None, [batch], 1, 0).samples(direction, 0)
    values = {GaussNewtonBartlett().measure(direction, sample, i).curvature for i in range(5)}
    assert len(values) == 5


def test_additional_batches_are_run_as_training_runs() -> None:
    """Under autocast and with the flags of the training pass, although the step is outside of both."""
    model, (batch,) = truth.mlp(), pairs(1)
    dtypes, batch = [], (batch[0].float(), batch[1])
    model.register_forward_hook(lambda m, args, z: dtypes.append((z.dtype, m[1].training)))
    direction = truth.direction_of(model)
    source = Source(model, by_callable, None, [batch], 1, 0)
    source.stream.arm()
    model[1].eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = by_callable(model, batch)
    loss.backward()
    model.train()
    (sample,) = source.samples(direction, 0)
    GaussNewton().measure(direction, sample, 0)
    assert set(dtypes) == {(torch.bfloat16, False)} and len(dtypes) == 4


def test_messages() -> None:
    model = truth.mlp().double()
    direction = truth.direction_of(model)
    with pytest.raises(EstimatorError, match="must be a pair"):
        Source(model, nn.CrossEntropyLoss(), None, [{"x": 1}], 1, 0).samples(direction, 0)
    with pytest.raises(EstimatorError, match="one element, got a tensor of shape"):
        Source(model, lambda m, b: m(b[0]), None, pairs(1), 1, 0).samples(direction, 0)
    with pytest.raises(ValueError, match=r"batches=... needs loss=callable"):
        Source(model, None, None, pairs(1), 1, 0)
    with pytest.raises(ValueError, match="loss='mse' is not known"):
        Source(model, "mse", None, None, 1, 0)
