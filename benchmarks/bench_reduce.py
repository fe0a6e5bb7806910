"""Inner products of two lists of tensors: one pass in C against torch, and against a plain read of the same bytes.

Every way is checked against the others first. Times are medians of several rounds in which all ways run in turn;
``read`` is the fastest of several ways to read the same bytes once, so 1.0 in its column is the memory limit.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from glyder import _core
from glyder.vectors.segments import pack

CASES = {
    "62 tensors, 11 M": [11_000_000 // 62] * 62,
    "160 tensors, 25 M": [25_000_000 // 160] * 160,
    "1 tensor, 25 M": [25_000_000],
    "200 tensors of 1,000": [1_000] * 200,
}


def ways(a: list[torch.Tensor], b: list[torch.Tensor]) -> dict[str, Callable[[], tuple[float, ...]]]:
    """<a, b>, <a, a>, <b, b>, each way from lists of tensors to three floats."""

    def c() -> tuple[float, ...]:
        return _core.reduce([pack(a), pack(b)], [(0, 1), (0, 0), (1, 1)])

    def foreach() -> tuple[float, ...]:
        aa, bb = (torch.stack(torch._foreach_norm(v)).double().square().sum() for v in (a, b))
        ab = torch.stack([torch.dot(x, y) for x, y in zip(a, b, strict=True)]).double().sum()
        return float(ab), float(aa), float(bb)

    def loop() -> tuple[float, ...]:
        return tuple(
            sum(float(torch.dot(x, y)) for x, y in zip(u, v, strict=True)) for u, v in ((a, b), (a, a), (b, b))
        )

    def cat() -> tuple[float, ...]:
        x, y = torch.cat(a), torch.cat(b)
        return float(torch.dot(x, y)), float(torch.dot(x, x)), float(torch.dot(y, y))

    return {"C, one pass": c, "foreach": foreach, "tensor by tensor": loop, "cat": cat}


def plain_reads(tensors: list[torch.Tensor]) -> list[Callable[[], object]]:
    """Ways to read the same bytes once."""
    return [lambda: [t.sum() for t in tensors], lambda: [t.amax() for t in tensors]]


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, level {_core.level()}, one thread, seed 0")
    for name, sizes in CASES.items():
        torch.manual_seed(0)
        a, b = ([torch.randn(n) for n in sizes] for _ in range(2))
        todo = ways(a, b)
        exact = todo["C, one pass"]()
        for way, work in todo.items():
            # torch sums in single precision, which leaves up to 3e-3 of the norms in 25 M values
            bound = 5e-3 * (exact[1] * exact[2]) ** 0.5
            assert np.allclose(work(), exact, rtol=5e-3, atol=bound), (way, work(), exact)
        reads = plain_reads(a + b)
        times: dict[str, list[float]] = {way: [] for way in (*todo, "read")}
        for _ in range(rounds):
            for way, work in todo.items():
                times[way].append(seconds(work))
            times["read"].append(min(seconds(read) for read in reads))
        read = np.array(times.pop("read"))
        ours = np.array(times["C, one pass"])
        print(f"\n{name}")
        for way, taken in times.items():
            taken_ = np.array(taken)
            print(
                f"  {way:18} {1e3 * np.median(taken_):9.3f} ms   {np.median(taken_ / read):6.2f} x read"
                f"   {np.median(taken_ / ours):6.2f} x C"
            )


if __name__ == "__main__":
    main()
