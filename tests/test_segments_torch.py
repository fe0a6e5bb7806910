"""pack(): every kind of tensor that torch can put into an optimizer, by both ways into C."""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from glyder import _core
from glyder.vectors import segments
from glyder.vectors.segments import pack

ENTRIES = ["table", "pointer"] if segments._BY_TABLE else ["pointer"]


@pytest.fixture(params=ENTRIES)
def entry(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(segments, "_BY_TABLE", request.param == "table")
    return str(request.param)


class Plain(Tensor):
    """A subclass that holds its own memory."""


class Nosy(Tensor):
    """A subclass that intercepts every torch function."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} was called")


def sample(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape) + len(shape)), dtype=dtype)


def sparse() -> Tensor:
    # Row 0 twice: uncoalesced.
    return torch.sparse_coo_tensor([[0, 2, 0]], sample(3, 4), (5, 4), check_invariants=True)


def dense_of(t: Tensor) -> Tensor:
    """The values that C must see, as float64 in row-major order, by torch's own means."""
    with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
        t = t.detach()
        t = t.to_dense() if t.layout != torch.strided else t
        t = torch.view_as_real(t.resolve_conj()) if t.is_complex() else t
        return t.resolve_neg().reshape(-1).to(torch.float64).as_subclass(Tensor)


def seen(t: Tensor) -> Tensor:
    """The values that C does see."""
    source = pack([t])
    out = torch.empty(source.size, dtype=torch.float64)
    _core.copy(_core.Segments([(out.data_ptr(), out.numel(), "float64")], writable=True), source)
    return out


READABLE: dict[str, Callable[[], Tensor]] = {
    "plain": lambda: sample(3, 4),
    "parameter": lambda: nn.Parameter(sample(3, 4)),
    "buffer": lambda: nn.Buffer(sample(3)),
    "requires_grad": lambda: sample(3).requires_grad_(),
    "not a leaf": lambda: nn.Parameter(sample(3)) * 2,
    "float64": lambda: sample(5, dtype=torch.float64),
    "float16": lambda: sample(5).half(),
    "bfloat16": lambda: sample(5).bfloat16(),
    "0-d": lambda: torch.tensor(2.5),
    "empty": lambda: sample(0, 3),
    "offset": lambda: sample(10)[3:],
    "size 1 with odd strides": lambda: torch.as_strided(sample(4), (1, 4, 1), (99, 1, 7)),
    "transposed": lambda: sample(3, 4).t(),
    "sliced": lambda: sample(8, 4)[::2, 1:3],
    "channels_last": lambda: sample(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "channels_last parameter": lambda: nn.Parameter(sample(2, 3, 4, 5).to(memory_format=torch.channels_last)),
    "expanded": lambda: sample(3, 1).expand(3, 4),
    "expanded 0-d": lambda: torch.tensor(2.0).expand(4),
    "overlapping": lambda: torch.as_strided(sample(6), (3, 3), (1, 1)),
    "negated": lambda: torch._neg_view(sample(3, 4)),
    "negated and transposed": lambda: torch._neg_view(sample(3, 4)).t(),
    "imaginary part of a conjugate": lambda: sample(3, dtype=torch.complex64).conj().imag,
    "complex": lambda: sample(3, 4, dtype=torch.complex64),
    "complex128": lambda: sample(3, dtype=torch.complex128),
    "complex parameter": lambda: nn.Parameter(sample(3, dtype=torch.complex64)),
    "conjugated": lambda: sample(3, 4, dtype=torch.complex64).conj(),
    "conjugated and transposed": lambda: sample(3, 4, dtype=torch.complex64).mH,
    "sparse": sparse,
    "sparse coalesced": lambda: sparse().coalesce(),
    "sparse complex": lambda: torch.sparse_coo_tensor(
        [[0, 2]], sample(2, dtype=torch.complex64), (3,), check_invariants=True
    ),
    "csr": lambda: sample(3, 4).relu().to_sparse_csr(),
    "subclass": lambda: sample(3, 4).as_subclass(Plain),
    "subclass transposed": lambda: sample(3, 4).as_subclass(Plain).t(),
    "subclass of Parameter": lambda: type("P", (nn.Parameter,), {})(sample(3)),
    "subclass with __torch_function__": lambda: Tensor.as_subclass(sample(3), Nosy),
    "inference": lambda: inference_tensor(),
}


def inference_tensor() -> Tensor:
    with torch.inference_mode():
        return sample(3, 4).t()


@pytest.mark.filterwarnings("ignore:Sparse CSR")
@pytest.mark.parametrize("name", READABLE)
def test_reading(entry: str, name: str) -> None:
    t = READABLE[name]()
    assert torch.equal(seen(t), dense_of(t))


@pytest.mark.skipif(len(ENTRIES) < 2, reason="this torch has no exchange table")
@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_both_ways_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = [make() for make in READABLE.values()]
    sums = []
    for by_table in (True, False):
        monkeypatch.setattr(segments, "_BY_TABLE", by_table)
        s = pack(tensors)
        sums.append((s.lengths, s.dtypes, _core.reduce([s, (s, pack(tensors[::-1][::-1]))], [(0, 0), (0, 1)])))
    assert sums[0] == sums[1]


def test_elements_correspond_whatever_the_strides(entry: str) -> None:
    """The heart of it: gradient, parameter and displacement may each lie differently in memory."""
    a, b = sample(2, 3, 4, 5), sample(2, 3, 4, 5) + 1
    layouts = [a, a.to(memory_format=torch.channels_last), a.transpose(0, 2).contiguous().transpose(0, 2)]
    wanted = _core.reduce([pack([a]), pack([b])], [(0, 1)])
    for layout in layouts:
        assert _core.reduce([pack([layout]), pack([b])], [(0, 1)]) == wanted


def test_complex_products_are_real_parts(entry: str) -> None:
    a, b = sample(50, dtype=torch.complex128), sample(50, dtype=torch.complex128).conj() * 1j
    (value,) = _core.reduce([pack([a]), pack([b])], [(0, 1)])
    assert value == pytest.approx(torch.vdot(a, b).real.item(), rel=1e-12)


# ---------------------------------------------------------------- refusals


def fake() -> Tensor:
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode():
        return torch.randn(3)


def freed() -> Tensor:
    t = sample(3)
    t.untyped_storage().resize_(0)
    return t


def freed_and_transposed() -> Tensor:
    t = sample(3, 4).t()
    t.untyped_storage().resize_(0)
    return t


def wrapper() -> Tensor:
    from torch.testing._internal.two_tensor import TwoTensor

    return TwoTensor(sample(3), sample(3))  # type: ignore[no-untyped-call]


REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "None": (lambda: None, TypeError, "not a tensor, got NoneType"),
    "list": (lambda: [1.0], TypeError, "not a tensor, got list"),
    "int": (lambda: torch.arange(3), TypeError, "of dtype torch.int64"),
    "bool": (lambda: torch.ones(3, dtype=torch.bool), TypeError, "of dtype torch.bool"),
    "float8": (lambda: sample(3).to(torch.float8_e4m3fn), TypeError, "of dtype torch.float8_e4m3fn"),
    "meta": (lambda: sample(3).to("meta"), ValueError, "on device meta; C reads CPU memory only"),
    "meta parameter": (lambda: nn.Parameter(sample(3).to("meta")), ValueError, "on device meta"),
    "fake": (fake, TypeError, "of type FakeTensor: it has a shape but no values"),
    "wrapper": (wrapper, TypeError, "of type TwoTensor: its class decides"),
    "functional": (lambda: torch._to_functional_tensor(sample(3)), ValueError, "without memory of its own"),
    "freed": (freed, ValueError, "without memory of its own"),
    "freed and transposed": (freed_and_transposed, ValueError, "without memory of its own"),
    "lazy": (nn.UninitializedParameter, ValueError, "not initialized yet"),
    "mkldnn": (lambda: sample(3).to_mkldnn(), TypeError, "of layout torch._mkldnn"),
    "nested": (lambda: torch.nested.nested_tensor([sample(3), sample(2)]), TypeError, "of layout nested"),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested")
@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("writable", [False, True])
def test_refused(entry: str, name: str, writable: bool) -> None:
    make, error, reason = REFUSED[name]
    if name == "mkldnn" and not torch.backends.mkldnn.is_available():
        pytest.skip("torch was built without mkldnn")

    def where(i: int) -> str:
        return f"parameter {i} of group 7 (gradient)"

    with pytest.raises(error) as caught:
        pack([sample(2), make()], where=where, writable=writable)
    assert str(caught.value).startswith(f"parameter 1 of group 7 (gradient): {reason}")
    assert "\n" not in str(caught.value)
    with pytest.raises(error, match="^tensor 0: "):
        pack([make()], writable=writable)


def test_distributed_tensors_are_refused(entry: str) -> None:
    tensor = pytest.importorskip("torch.distributed.tensor")
    import torch.distributed as dist

    if not dist.is_available():
        pytest.skip("torch was built without distributed")
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        mesh = dist.device_mesh.init_device_mesh("cpu", (1,))
        t = tensor.distribute_tensor(sample(4), mesh, [tensor.Shard(0)])
        with pytest.raises(TypeError, match=r"tensor 0: of type DTensor: .*to_local\(\)"):
            pack([t])
        assert torch.equal(seen(t.to_local()), dense_of(sample(4)))
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("transform", [torch.func.vmap, lambda f: torch.func.grad(f)], ids=["vmap", "grad"])
def test_inside_of_transforms(entry: str, transform: Callable[..., Any]) -> None:
    def inner(t: Tensor) -> Tensor:
        with pytest.raises((ValueError, TypeError), match=r"^tensor 0: without memory of its own"):
            pack([t])
        return t.sum()

    transform(inner)(sample(3, 4))


# ---------------------------------------------------------------- writing

WRITABLE = ["plain", "parameter", "buffer", "requires_grad", "float16", "bfloat16", "0-d", "empty", "offset", "complex"]
NOT_IN_PLACE = [
    "transposed",
    "sliced",
    "channels_last",
    "expanded",
    "overlapping",
    "negated",
    "imaginary part of a conjugate",
    "conjugated",
    "sparse",
]


@pytest.mark.parametrize("name", WRITABLE)
def test_writing(entry: str, name: str) -> None:
    t = READABLE[name]()
    target = pack([t], writable=True)
    half = torch.full((target.size,), 0.5)
    _core.copy(target, pack([half]))
    assert torch.equal(dense_of(t), half.double())


@pytest.mark.parametrize("name", NOT_IN_PLACE)
def test_not_writable(entry: str, name: str) -> None:
    with pytest.raises(ValueError, match="^tensor 0: not plain contiguous memory"):
        pack([READABLE[name]()], writable=True)


@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_reading_writes_nothing(entry: str) -> None:
    for name in READABLE.keys() - {"inference", "subclass with __torch_function__"}:  # do not tell their version
        t = READABLE[name]()
        before = dense_of(t).clone(), t._version, t.grad_fn, t.requires_grad
        pack([t])
        assert torch.equal(dense_of(t), before[0])
        assert (t._version, t.grad_fn, t.requires_grad) == before[1:]


# ---------------------------------------------------------------- life, switches


def test_keeps_tensors_alive(entry: str) -> None:
    t = sample(1000)
    wanted = _core.reduce([pack([t, t])], [(0, 0)])
    s = pack([t, t])
    if entry == "table":
        alive = weakref.ref(t)
        del t
        gc.collect()
        assert alive() is not None
    else:
        del t
    others = [torch.zeros(1000) for _ in range(50)]  # would be given the memory, were it free
    assert _core.reduce([s], [(0, 0)]) == wanted
    assert not any(other.any() for other in others)


def test_nothing_stays_behind(entry: str) -> None:
    t, bad = nn.Parameter(sample(3)), sample(3).to("meta")

    def round_trip() -> None:
        pack([t, t.detach().expand(2, 3)])
        with pytest.raises(ValueError, match="meta"):
            pack([t, bad])

    round_trip()
    gc.collect()
    before = sys.getrefcount(t), sys.getrefcount(bad)
    for _ in range(50):
        round_trip()
    assert (sys.getrefcount(t), sys.getrefcount(bad)) == before


def run(entry: str, code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "GLYDER_ENTRY": entry}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


def test_entry_is_chosen_by_the_environment() -> None:
    code = "from glyder import _core; from glyder.vectors.segments import _BY_TABLE as table; "
    code += "print(table, len(_core.tensor_types()))"
    assert run("pointer", code).stdout.split() == ["False", "0"]
    has_table = hasattr(torch.Tensor, "__dlpack_c_exchange_api__")
    assert run("", code).stdout.split()[0] == str(has_table)
    if has_table:
        assert run("table", code).stdout.split() == ["True", "2"]
    done = run("magic", code)
    assert 'GLYDER_ENTRY must be "table" or "pointer", got "magic"' in done.stderr


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def test_ambient_modes_do_not_matter(entry: str) -> None:
    t = sample(3, 4).t()
    wanted = _core.reduce([pack([t])], [(0, 0)])
    with torch.inference_mode():
        assert _core.reduce([pack([t])], [(0, 0)]) == wanted
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert _core.reduce([pack([t])], [(0, 0)]) == wanted
    with default_dtype(torch.float64), torch.device("meta"):
        assert _core.reduce([pack([t])], [(0, 0)]) == wanted
