"""Whether glyder still computes the same, to the bit: digests of standard runs of every public scheduler.

    python -m benchmarks.bits            compare with benchmarks/results/bits.json; exit status 1 where they differ
    python -m benchmarks.bits --write    write that file anew

Each run is a small net on the CPU in one thread, of 60 steps. Digests are of the rates that its steps were made with
and of the parameters in the end. They hold for one machine and version of torch: write the file before a change that is
to change nothing, and compare after it.
"""

from __future__ import annotations

import hashlib
import json
import struct
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import glyder

TABLE = Path(__file__).parent / "results" / "bits.json"
STEPS = 60
Options = dict[str, Any]
Optimizer = torch.optim.Optimizer

POOL = [torch.randn(16, 6, generator=torch.Generator().manual_seed(t)) for t in range(8)]
TEACHER = torch.randn(6, 4, generator=torch.Generator().manual_seed(99))
BATCHES = [(x, (x @ TEACHER).argmax(1)) for x in POOL]

OPTIMIZERS: dict[str, Callable[[Any], Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.05),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.05),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=1e-3, momentum=0.5),
    "SignSGD": lambda p: glyder.SignSGD(p, lr=1e-3, momentum=0.9),
    "tensor rate": lambda p: torch.optim.AdamW(p, lr=torch.tensor(1e-3)),
}
"""Whose name a run begins with, before a comma or the end of the name."""


def line_search(optimizer: Optimizer, model: nn.Module, **options: Any) -> Any:
    return glyder.HypergradientLR(optimizer, beta=0.05, form="multiplicative", safeguard=glyder.LineSearch(model))


T = {"total_steps": STEPS}
ALWAYS = T | {"refresh": "always"}
SIBLING = {"batches": BATCHES, "loss": nn.CrossEntropyLoss(), "n_batches": 2}
G, L = glyder.GlyderLR, glyder.LocalOptimumLR
EXTRA: dict[str, tuple[Callable[..., Any], Options]] = {
    "search": (G, T),
    "search, scaled cosine": (G, T | {"anneal": "cosine", "scale": 0.5, "max_lr": 0.3, "warmup": 20}),
    "search, endless": (G, {}),
    "search, extended": (G, {"total_steps": 40}),
    "peak given": (G, T | {"peak_lr": 0.02, "anneal": "wsd"}),
    "local": (L, T),
    "local, always": (L, ALWAYS),
    "local, same step": (L, ALWAYS | {"act": "same-step"}),
    "local, sibling": (L, T | SIBLING),
    "local, always sibling": (L, ALWAYS | SIBLING),
    "local, by group": (L, T | {"scope": "group"}),
    "local, by tensor": (L, T | {"scope": "tensor"}),
    "local, bounded": (L, T | {"max_lr": 0.01, "min_lr": 1e-4, "max_growth": 1.5, "every": 2}),
    "local, replicas": (L, T | {"replicas": True}),
    "local, observed": (L, T | {"observe_only": True}),
    "local, gnb": (L, T | {"estimator": "gnb"}),
    **{f"local, {name}": (L, T | SIBLING | {"estimator": name}) for name in ("hvp", "gradient", "loss")},
    "hypergradient": (glyder.HypergradientLR, {"beta": 1e-3, "scope": "group"}),
    "hypergradient, windows": (glyder.HypergradientLR, {"beta": 0.2, "form": "multiplicative", "every": 2}),
    "hypergradient, guarded": (line_search, {}),
    "Newton": (glyder.NewtonLR, T | {"every": 3, "anneal": "cosine", "warmup": 5}),
    "Newton, reference": (glyder.NewtonLR, {"every": 4, "reference": True}),
    "secant": (glyder.SecantLR, {"scope": "tensor"}),
    "secant, same batch": (glyder.SecantLR, {"model": True, "form": "geometric"}),
    "AdGD": (glyder.AdGDLR, {}),
    "regime": (glyder.RegimeLR, {"max_lr": 0.5}),
    "Armijo": (glyder.ArmijoLR, {"model": True, "batches_per_epoch": 10}),
    "Goldstein": (glyder.ArmijoLR, {"model": True, "condition": "goldstein", "reset": "start", "max_lr": 10.0}),
    "meta": (glyder.MetaLR, {"classes": 4}),
    "AnnealedLR": (glyder.AnnealedLR, T | {"anneal": "polynomial", "warmup": 7, "power": 2.0}),
}
SGD_ONLY: dict[str, tuple[Callable[..., Any], Options]] = {
    "polyak": (glyder.PolyakLR, {"c": 5.0, "gamma": 2.0}),
    "NGN": (glyder.PolyakLR, {"sigma": 1.0}),
    "Barzilai-Borwein": (glyder.StochasticBBLR, {"m": 5}),
}
PLAIN_SGD_ONLY: dict[str, tuple[Callable[..., Any], Options]] = {
    "AutoSGD": (glyder.AutoSGDLR, {"model": True, "shortest": 3, "bound": 3.0}),
    "gradient norm": (glyder.GradientNormLR, {"batches": BATCHES, "loss": nn.CrossEntropyLoss(), "model": True}),
}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.last = nn.Linear(6, 12), nn.BatchNorm1d(12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.dropout(self.norm(self.first(x)).relu(), 0.1, self.training))


def digests(optimizer_name: str, make: Callable[..., Any], options: Options, trouble: str) -> list[str]:
    """Of the rates and of the parameters. ``trouble``: what happens on the way, besides training."""
    model = Net()
    parts = [{"params": model.first.parameters()}, {"params": [*model.norm.parameters(), *model.last.parameters()]}]
    if trouble == "groups":
        parts[1]["lr"] = 3e-4
    optimizer = OPTIMIZERS[optimizer_name](parts)
    options = options | ({"model": model} if "model" in options or make in (L, line_search) else {})
    scheduler = make(optimizer, **options)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40, growth_interval=7) if trouble == "scaler" else None
    rates: list[float] = []
    for t in range(STEPS):
        x, y = BATCHES[t % len(BATCHES)]
        if trouble == "extended" and t == 25:
            scheduler.extend(STEPS)
        if trouble == "added" and t == 15:
            optimizer.add_param_group(
                {"params": [nn.Parameter(torch.ones(3, 3))], "lr": optimizer.param_groups[0]["lr"]}
            )

        def closure(x: Tensor = x, y: Tensor = y, t: int = t) -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            (loss if scaler is None else scaler.scale(loss)).backward()
            if trouble == "not finite" and t in (5, 40, 41):
                model.first.weight.grad[0, 0] = float("nan")
            return loss

        torch.manual_seed(1000 + t)
        if scaler is not None:
            closure()
            scaler.step(optimizer)
            scaler.update()
        elif isinstance(scheduler, glyder.MetaLR | glyder.PolyakLR | glyder.ArmijoLR | glyder.AutoSGDLR) or (
            getattr(scheduler, "replay", None) is not None or make is line_search
        ):
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()
        scheduler.step()
        rates += [float(rate) for rate in scheduler.get_last_lr()]
    values = [p.detach().double().reshape(-1) for group in optimizer.param_groups for p in group["params"]]
    return [hashlib.sha256(struct.pack(f"{len(v)}d", *v)).hexdigest() for v in (rates, torch.cat(values).tolist())]


def table() -> dict[str, list[str]]:
    runs = [
        (name, make, options, o, "") for name, (make, options) in EXTRA.items() for o in ("SGD", "momentum", "AdamW")
    ]
    runs += [(name, make, options, o, "") for name, (make, options) in SGD_ONLY.items() for o in ("SGD", "momentum")]
    runs += [(name, make, options, "SGD", "") for name, (make, options) in PLAIN_SGD_ONLY.items()]
    for name, trouble in (("search", "scaler"), ("search, extended", "extended"), ("local", "scaler")):
        runs += [(name, *EXTRA[name], o, trouble) for o in ("SGD", "AdamW")]
    for name in ("search", "local", "hypergradient", "Newton", "regime", "local, by group", "AnnealedLR"):
        runs += [(name, *EXTRA[name], o, trouble) for o in ("momentum", "AdamW") for trouble in ("groups", "added")]
    for name in ("search", "local", "local, always", "local, same step", "secant", "AdGD"):
        runs += [(name, *EXTRA[name], o, "not finite") for o in ("momentum", "AdamW")]
    for name in ("search", "local", "hypergradient", "regime"):
        runs += [(name, *EXTRA[name], o, "") for o in ("RMSprop", "SignSGD", "tensor rate")]
    return {
        " | ".join((name, o, trouble)): digests(o, make, options, trouble) for name, make, options, o, trouble in runs
    }


def main(arguments: list[str]) -> int:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    found = table()
    if arguments == ["--write"]:
        lines = ",\n".join(f"{json.dumps(run)}: {json.dumps(of)}" for run, of in found.items())
        TABLE.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
        return 0
    saved = json.loads(TABLE.read_text(encoding="utf-8"))
    differing = [run for run in saved.keys() | found.keys() if saved.get(run) != found.get(run)]
    print(f"{len(found)} runs, {len(differing)} differ", *sorted(differing), sep="\n")
    return int(bool(differing))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
