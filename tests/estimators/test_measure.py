"""Sums and writers: the C core's way against torch's, and both against exact sums."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from glyder.vectors import inner_products as measure
from glyder.vectors.inner_products import displace, inner_products, shifted, snapshot

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex128]
WAYS = ["c", "torch"]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    force(monkeypatch, request.param)
    return str(request.param)


def force(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    monkeypatch.setenv("GLYDER_DEVICE_PATH", "torch" if way == "torch" else "")


def vectors(dtype: torch.dtype, kind: str = "plain", seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(3, 4), (2, 5, 4, 4), (17,), (), (0, 3), (1000,)]
    drawn = torch.complex128 if dtype.is_complex else torch.float64
    tensors = [torch.randn(s, generator=generator, dtype=drawn).to(dtype) for s in shapes]
    if kind == "strided":
        tensors = [t.transpose(0, -1).contiguous().transpose(0, -1) if t.dim() > 1 else t for t in tensors]
        tensors[1] = tensors[1].to(memory_format=torch.channels_last)
        assert not tensors[1].is_contiguous()
    if kind == "sparse":
        tensors[0] = tensors[0].to_sparse()
    if kind == "lazy":
        tensors = [torch._neg_view(t.conj() if t.is_complex() else t) for t in tensors]
    return tensors


def numbers(v: list[Tensor]) -> list[float]:
    """Every entry as a Python float, in logical order; complex ones as two."""
    flat = []
    for t in v:
        t = t.to_dense() if t.layout != torch.strided else t
        t = t.resolve_conj().resolve_neg()
        flat += (torch.view_as_real(t) if t.is_complex() else t).double().reshape(-1).tolist()
    return flat


def exact(a: list[float], b: list[float]) -> tuple[float, float]:
    products = [x * y for x, y in zip(a, b, strict=True)]
    return math.fsum(products), math.fsum(map(abs, products))


@pytest.mark.parametrize("kind", ["plain", "strided", "sparse", "lazy"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_inner_products(way: str, dtype: torch.dtype, kind: str) -> None:
    """Of two lists and of a difference, to n * 2**-53 of the sum of absolute products, as the module promises."""
    a, b = vectors(dtype, kind, 1), vectors(dtype, "plain", 2)
    c = vectors(torch.complex64 if dtype.is_complex else torch.float32, "plain", 3)  # dtypes may differ
    found = inner_products([a, b, (b, c)], [(0, 0), (0, 1), (1, 2), (2, 2)])
    na, nb = numbers(a), numbers(b)
    nd = [x - y for x, y in zip(nb, numbers(c), strict=True)]
    for value, (x, y) in zip(found, [(na, na), (na, nb), (nb, nd), (nd, nd)], strict=True):
        true, absolute = exact(x, y)
        assert abs(value - true) <= len(x) * 2.0**-53 * absolute


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_both_ways_agree(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    a, b = vectors(dtype, "strided", 1), vectors(dtype, "plain", 2)
    found = {}
    for way in WAYS:
        force(monkeypatch, way)
        found[way] = inner_products([a, b], [(0, 1)])[0]
    _, absolute = exact(numbers(a), numbers(b))
    assert abs(found["c"] - found["torch"]) <= len(numbers(a)) * 2.0**-53 * absolute


def test_chunks_of_long_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    force(monkeypatch, "torch")
    monkeypatch.setattr(measure, "_CHUNK", 7)
    a, b = vectors(torch.float32, "strided", 1), vectors(torch.float32, "plain", 2)
    true, absolute = exact(numbers(a), numbers(b))
    value = inner_products([a, (b, a)], [(0, 1), (0, 0)])
    assert abs(value[0] - (true - value[1])) <= 2 * len(numbers(a)) * 2.0**-53 * (absolute + value[1])


def test_nothing_is_zero(way: str) -> None:
    assert inner_products([[], []], [(0, 1), (0, 0)]) == (0.0, 0.0)


def test_sparse_gradient_of_an_embedding(way: str) -> None:
    table = nn.Embedding(30, 4, sparse=True)
    table(torch.tensor([3, 3, 7])).square().sum().backward()  # row 3 twice: not coalesced
    delta = torch.randn(30, 4)
    assert table.weight.grad.is_sparse
    true, absolute = exact(numbers([table.weight.grad]), numbers([delta]))
    found = inner_products([[table.weight.grad], [delta]], [(0, 1)])[0]
    assert abs(found - true) <= 120 * 2.0**-53 * absolute


@pytest.mark.parametrize("kind", ["plain", "strided"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_displace(way: str, dtype: torch.dtype, kind: str) -> None:
    """scale*older - newer, formed in double precision and rounded once, in single precision at least."""
    older, newer = vectors(dtype, kind, 1), vectors(dtype, kind, 2)
    kept = snapshot(older)
    found = displace(snapshot(older), 0.75, newer)
    wide = dtype if dtype.itemsize >= 4 else torch.float32
    double = torch.complex128 if dtype.is_complex else torch.float64
    for f, o, n, k in zip(found, older, newer, kept, strict=True):
        assert f.dtype == wide and f.shape == o.shape
        assert torch.equal(f, (o.to(double) * 0.75 - n.to(double)).to(wide))
        assert torch.equal(o, k)


@pytest.mark.parametrize("kind", ["plain", "strided"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_shifted(way: str, dtype: torch.dtype, kind: str) -> None:
    """x + c*delta in delta's dtype; x itself is not written to. In f64 C rounds the product and the sum."""
    x = [nn.Parameter(t) for t in vectors(dtype, kind, 1)]
    wide = dtype if dtype.itemsize >= 4 else torch.float32
    delta = vectors(wide, kind, 2)
    versions = [p._version for p in x]
    found = shifted(x, 0.1, delta)
    double = torch.complex128 if dtype.is_complex else torch.float64
    for f, p, d in zip(found, x, delta, strict=True):
        assert f.dtype == wide and not f.requires_grad
        assert f.data_ptr() != p.data_ptr() or not p.numel()
        expected = p.detach().to(double) + d.to(double) * 0.1
        unit = torch.finfo(wide).eps
        assert bool(((f.to(double) - expected).abs() <= unit * expected.abs() + 1e-16).all())
    assert [p._version for p in x] == versions


def test_both_writers_agree_to_the_bit_in_single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    x, delta = vectors(torch.bfloat16, "plain", 1), vectors(torch.float32, "plain", 2)
    results = []
    for way in WAYS:
        force(monkeypatch, way)
        results.append(shifted(x, 1 / 3, delta) + displace(snapshot(x), 0.9, vectors(torch.bfloat16, "plain", 3)))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_a_displacement_takes_the_memory_of_its_snapshot(way: str) -> None:
    older = snapshot(vectors(torch.float32))
    addresses = [t.data_ptr() for t in older]
    assert [t.data_ptr() for t in displace(older, 1.0, vectors(torch.float32, seed=1))] == addresses


def test_errors_name_the_tensor() -> None:
    bad = [torch.zeros(3), torch.zeros(3, dtype=torch.int64)]
    with pytest.raises(TypeError, match=r"parameter 1.*int64"):
        inner_products([bad], [(0, 0)], where=lambda i: f"parameter {i}")
