"""Three streams of SGD race at neighbouring rates, and the winner's rate is kept (2505.21651)."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from glyder import _checks as checks
from glyder import _core
from glyder.optimizers.displacement import check_members
from glyder.optimizers.groups import listed
from glyder.optimizers.parameter_ref import ParameterRef
from glyder.probe.closure_replay import Replay
from glyder.rules.rule_lr import Block, Key, Look, RuleLR
from glyder.vectors.inner_products import inner_products, snapshot

_GOES_ON_FROM = {"grown": "fast", "kept": None, "lowered": None, "restarted": "begin"}
"""By the outcome of an episode: the vector that the parameters become; None: they stay."""


class AutoSGDLR(RuleLR):
    r"""AutoSGD: three streams of SGD race at neighbouring rates, and the winner's rate is kept.

    .. math:: (x, \gamma) \leftarrow (x^{fast}, 2\gamma), \quad (x, \gamma), \quad (x, \gamma/2) \quad\text{or}\quad
       (x^{begin}, \gamma/2)

    In an episode three streams step from one point at the rates gamma/2, gamma and 2 gamma, on the same batches. The
    middle one is the model, which the optimizer steps; the others are vectors here, whose losses and gradients come
    from the closure once more. The paper's four outcomes: *increase*, where the fast stream is better, *stay*,
    *decrease*, where the slow one is, and *restart*, where none of it was worth it. **Increase and restart write the
    model's parameters and gradients in place**, before the optimizer's step; its buffers (batch norm) stay.

    The finding against it (``benchmarks/results/papers/convex-findings.md``): it needs no rate, but pays for that with
    up to ten forward passes an update, and is slow where the loss is ill-conditioned.

    When an episode ends, and by what evidence, is not known of the paper, and ours: the differences of the losses on
    each batch are paired, and a stream is better where their mean lies ``bound`` standard errors below zero. It is
    looked at from the update ``shortest`` of the episode on, and after ``longest`` updates the rate stays.

    It needs ``optimizer.step(closure)``, and SGD without momentum or weight decay: anything that an optimizer carries
    from step to step is of one stream only.

    Args:
        optimizer: ``torch.optim.SGD``. The rule starts from its rate, which may be wrong by many orders.
        model: holds every parameter that is trained.
        down: factor of the slow stream's rate, in (0, 1).
        up: factor of the fast stream's rate, above 1.
        bound: standard errors that decide.
        shortest: updates of an episode before anything is decided, at least 2.
        longest: updates after which the rate stays.
        exact: the closure's loss is exact, of all data and without randomness: every update decides, without bound
            (AutoGD); ``bound``, ``shortest`` and ``longest`` then play no part.
        **options: of every rule of the family: ``total_steps``, ``anneal``, ``warmup``, ``min_lr``, ``max_lr``,
            ``max_growth`` (see :class:`~glyder.rules.rule_lr.RuleLR`). ``scope`` is ``"global"``: the loss is that of
            all.

    Raises:
        TypeError, ValueError: on construction, in call form, with the value and the remedy; TypeError where the
            optimizer is stepped without a closure.

    :formula: ``gamma`` times 1/2, 1 or 2, by the losses of streams at these rates
    :source: 2505.21651 (episodes, outcomes); the decision is ours
    :passes: 7 (two gradients and a loss; 9 where the closure takes no ``backward=False``)
    :memory: 3, and 2 gradients while the step is made
    :optimizers: torch.optim.SGD without momentum and weight decay
    :use: plain SGD, nothing is known of the rate, and robustness is worth three times the cost
    :avoid: passes are dear, or any optimizer but plain SGD
    """

    RULE = "autosgd"
    SCOPES = ("global",)

    def __init__(
        self,
        optimizer: Optimizer | Sequence[Optimizer],
        model: nn.Module,
        *,
        down: float = 0.5,
        up: float = 2.0,
        bound: float = 3.5,
        shortest: int = 5,
        longest: int = 100,
        exact: bool = False,
        **options: Any,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"AutoSGDLR(model=...) must be a torch.nn.Module, got {type(model).__name__}")
        checks.one_of("AutoSGDLR", "exact", exact, (False, True))
        for each in listed(optimizer):
            _check_plain(each)
        if options.get("safeguard") is not None:
            raise ValueError(
                "AutoSGDLR(safeguard=...) is of no use: its streams are a search of their own, leave it out"
            )
        if len(listed(optimizer)) > 1:
            raise ValueError(f"AutoSGDLR looks at the closure of one optimizer, got {len(listed(optimizer))} of them")
        config = {
            "down": down,
            "up": up,
            "bound": bound,
            "shortest": float(checks.whole("AutoSGDLR", "shortest", shortest, 2)),
            "longest": float(checks.whole("AutoSGDLR", "longest", longest, 2)),
            "exact": float(exact),
        }
        self._replay = Replay(model)
        self._gradients: dict[str, list[Tensor]] = {}
        super().__init__(optimizer, config, **options)

    def _attach(self) -> None:
        check_members(self._replay.model, self._moved(), "AutoSGDLR")
        super()._attach()

    def _replays(self) -> list[Replay]:
        return [self._replay, *super()._replays()]

    # ---- an update

    def _watch_closure(self, closure: Any) -> Any:
        return self._replay.watch(closure)

    def _begin(self) -> float | None:
        if not self._replay.ready:
            raise TypeError("AutoSGDLR needs the closure of every update: call optimizer.step(closure)")
        try:
            return self._race()
        finally:
            self._replay.forget()

    def _race(self) -> float | None:
        for each in self.optimizers:
            _check_plain(each)
        self._gradients = {}
        block = self._block(None)
        if self._kept and list(self._kept["begin"]) != self._places():  # a group was added, or taken out
            block.rule.load(_core.Rule(self.RULE).state)
            self._kept = {}
        if self._kept and not math.isfinite(self._squared_gradient()):
            begin, _ = self._evaluate("begin")
            if begin < _LOST:  # it is not the batch's fault: the model has diverged
                self._ask(block, _losses(block, _LOST, _LOST, _LOST, begin))
        return super()._begin()

    def _statistics(self, look: Look, key: Key) -> dict[str, float] | None:
        if not self._kept:
            return None
        slow, self._gradients["slow"] = self._evaluate("slow")
        fast, self._gradients["fast"] = self._evaluate("fast")
        begin = _sound(self._replay.loss(self._params(), list(self._kept["begin"].values())))
        return _losses(self._block(key), _sound(look.loss), slow, fast, begin)

    def _ask(self, block: Block, seen: dict[str, float]) -> str:
        reason = super()._ask(block, seen)
        if reason in _GOES_ON_FROM:
            self._go_on_from(_GOES_ON_FROM[reason])
        return reason

    def _decided(self, look: Look, block: Block) -> None:
        if not self._kept:
            params = self._params()
            self._kept = {name: dict(zip(self._places(), snapshot(params), strict=True)) for name in _STREAMS}
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in params]
            self._gradients = {"slow": grads, "fast": grads}

    def _end(self) -> None:
        super()._end()
        base, (low, top) = self._block(None).base, self._stages.bounds
        down, up = max(self._config["down"], low / base), min(self._config["up"], top / base)
        for name, factor in (("slow", down), ("fast", up)):
            for (place, x), g in zip(self._kept[name].items(), self._gradients[name], strict=True):
                rate = self.rates.of(place.optimizer, place.group)
                x.add_(g, alpha=-factor * rate)
        self._gradients = {}

    def _abandon(self) -> None:
        super()._abandon()
        self._gradients = {}
        self._replay.forget()

    # ---- streams

    def _places(self) -> list[ParameterRef]:
        return [place for place, p in self._moved() if p.requires_grad]

    def _params(self) -> list[Tensor]:
        return [self._parameter(place) for place in self._places()]

    def _evaluate(self, name: str) -> tuple[float, list[Tensor]]:
        """Loss and gradient of a stream on the batch of this update."""
        loss, grads = self._replay.gradients(self._params(), list(self._kept[name].values()))
        return (_sound(loss) if math.isfinite(inner_products([grads], [(0, 0)])[0]) else _LOST), grads

    def _go_on_from(self, name: str | None) -> None:
        """End the episode; the model becomes the stream of this name, its gradient that on the batch of this update."""
        if name is not None:
            grads = self._gradients[name] if name in self._gradients else self._evaluate(name)[1]
            for p, value, g in zip(self._params(), self._kept[name].values(), grads, strict=True):
                p.copy_(value)
                if p.grad is not None:
                    p.grad.copy_(g)
            if not math.isfinite(self._squared_gradient()):
                self._skip_not_finite()
        self._kept = {}


_STREAMS = ("slow", "fast", "begin")
_LOST = sys.float_info.max
"""The loss of a stream that has diverged: as bad as can be."""


def _sound(loss: float | None) -> float:
    return loss if loss is not None and math.isfinite(loss) else _LOST


def _losses(block: Block, middle: float, slow: float, fast: float, begin: float) -> dict[str, float]:
    return {"base": block.base, "loss": middle, "slow_loss": slow, "fast_loss": fast, "begin_loss": begin}


def _check_plain(optimizer: Any) -> None:
    """Refuse what carries anything from step to step, or steps by anything but the gradient of the loss."""
    if not isinstance(optimizer, Optimizer):
        return
    if type(optimizer) is not SGD:
        raise ValueError(
            f"AutoSGDLR(optimizer=...) must be torch.optim.SGD, got {type(optimizer).__name__}: the streams are those "
            "of plain SGD. GlyderLR sets the rate of any optimizer"
        )
    for g, group in enumerate(optimizer.param_groups):
        if group["momentum"]:
            raise ValueError(
                f"AutoSGDLR(optimizer=...): group {g} has momentum={group['momentum']}, and a buffer is of one stream "
                "only: give momentum=0, or take GlyderLR"
            )
        if group["weight_decay"]:
            raise ValueError(
                f"AutoSGDLR(optimizer=...): group {g} has weight_decay={group['weight_decay']}, which is no part of "
                "the losses that decide: give weight_decay=0 and add the penalty to the closure's loss"
            )
