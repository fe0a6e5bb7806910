"""A scheduler that asks one rule of the C core for a rate, update by update: the engine of the family.

Before every update, with the gradients there, the statistics that the rule needs are formed and the rule's rate becomes
the base rate; bounds, growth limit, warm-up and annealing follow. A subclass names its rule, says which vectors it
looks back at, and forms the statistics.
"""

from __future__ import annotations

import copy
import functools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from glyder import _checks as checks
from glyder import _core
from glyder.engine.checkpoint import STATE_VERSION
from glyder.engine.history import History
from glyder.engine.scheduler import Scheduler
from glyder.optimizers.displacement import by_group, moved
from glyder.optimizers.parameter_ref import ParameterRef
from glyder.probe.closure_replay import Replay, plain
from glyder.rules.line_search import COLUMNS, LineSearch, Search
from glyder.vectors.inner_products import inner_products, snapshot

Key = tuple[int, int] | None
"""Optimizer and group of a block; None for the one block of everything."""

Vector = dict[ParameterRef, Tensor]


@dataclass(eq=False)
class Block:
    """Parameters that share one rule and one base rate."""

    key: Key
    rule: _core.Rule
    growth: _core.Rule
    base: float
    applied: float = 0.0


@dataclass(eq=False)
class Look:
    """What a rule may look at before an update, of one block.

    Attributes:
        places, params, grads: of the parameters that the update will move.
        scale: a GradScaler's factor, still in ``grads``.
        base: the block's base rate so far.
        loss: what was observed, or None.
        deltas, before: displacement of the update before and gradient that it was made from, over those of the
            parameters that were moved then as well; None where there are none, or they are not kept. ``at`` are the
            indices of these in ``grads``.
        lr: rate that ``deltas`` were made with.
        before_scale: a GradScaler's factor in ``before``.
    """

    places: list[ParameterRef]
    params: list[Tensor]
    grads: list[Tensor]
    scale: float
    base: float
    loss: float | None
    lr: float
    at: list[int] = field(default_factory=list)
    deltas: list[Tensor] | None = None
    before: list[Tensor] | None = None
    before_scale: float = 1.0

    @functools.cached_property
    def gg(self) -> float:
        """||g||^2, the factor of a GradScaler taken out; a pass over the gradients when a rule asks for it."""
        return inner_products([self.grads], [(0, 0)])[0] / self.scale**2

    @property
    def again(self) -> list[Tensor]:
        """The gradients of the parameters that ``deltas`` and ``before`` are of."""
        return [self.grads[i] for i in self.at]


class RuleLR(Scheduler):
    """Base of the schedulers of one rule. Subclasses set ``RULE`` and define :meth:`_statistics`.

    Args:
        optimizer: any torch optimizer, or a list of them. Its rate is where the rule starts from. A group that is added
            on the way, or that rested at ``lr=0`` and is given a rate, goes on from the ratio of that rate to the first
            group's present one.
        config: of the rule.
        total_steps: number of updates of the whole run; needed by schedules with a horizon.
        anneal: a schedule as for ``GlyderLR``, as a factor on the rule's rate. None: the rule's rate as it is.
        warmup: updates of linear warm-up, a factor on the rule's rate.
        min_lr, max_lr: bounds of the rule's rate, before warm-up and annealing.
        max_growth: the rate grows at most by this factor from one update to the next.
        scope: ``"global"``: one rate, the groups' ratios kept. ``"group"``: each group has a rule and a rate of its
            own. ``"tensor"``: so has each parameter; the optimizer's groups are split into one group for each.
        safeguard: a line search along every update, which lowers all rates by one factor where the loss of the batch
            does not fall enough. None: the rule's rate is used unseen.
    """

    RULE: ClassVar[str]
    KEEPS: ClassVar[frozenset[str]] = frozenset()
    """Vectors of the update before that the statistics look at, each a copy of the parameters in memory:
    ``displacement``, ``gradient``."""
    SCOPES: ClassVar[tuple[str, ...]] = ("global", "group", "tensor")

    def __init__(
        self,
        optimizer: Optimizer | Sequence[Optimizer],
        config: dict[str, float],
        *,
        total_steps: int | None = None,
        anneal: str | tuple[str, dict[str, float]] | None = None,
        warmup: int = 0,
        min_lr: float = 0.0,
        max_lr: float = math.inf,
        max_growth: float = math.inf,
        scope: Literal["global", "group", "tensor"] = "global",
        safeguard: LineSearch | None = None,
    ) -> None:
        call = type(self).__name__
        number, whole = functools.partial(checks.number, call), functools.partial(checks.whole, call)
        checks.one_of(call, "scope", scope, self.SCOPES)
        self.scope = scope
        self.horizon = None if total_steps is None else whole("total_steps", total_steps, 1)
        self.warmup = whole("warmup", warmup, 0)
        self.anneal, self._shape = checks.schedule(call, "anneal", anneal, self.horizon, self.warmup)
        self._config = config
        low, top = number("min_lr", min_lr, 0, finite=True), number("max_lr", max_lr, 0, above=True)
        if low > top:
            raise ValueError(f"{call}(min_lr=...) must be <= max_lr={top:g}, got {low:g}")
        self._bounds = _core.Rule("bounds", min_lr=low, max_lr=top)
        self._max_growth = number("max_growth", max_growth, 1, above=True)
        checks.rule(call, self.RULE, config)  # wrong options are told before anything is touched
        super().__init__(optimizer)
        self._search = None if safeguard is None else Search(safeguard, self.optimizers, call, self._moved())
        if scope == "tensor":
            self._split_groups()
        self._blocks: dict[Key, Block] = {}
        self._noted: Vector | None = None
        self._kept: dict[str, Vector] = {}
        self._kept_lr: dict[Key, float] = {}
        self._kept_scale = 1.0
        self._loss: float | None = None
        self._factor = 1.0
        self._rows: list[tuple[Block, dict[str, Any]]] = []
        self._reasons: Counter[str] = Counter()
        self._history = self._new_history()
        self._attach()

    # ---- for subclasses

    def _statistics(self, look: Look, key: Key) -> dict[str, float] | None:
        """The statistics that the rule needs; None: there is nothing to ask it yet, and the rate stays."""
        raise NotImplementedError

    def _made_with(self, before: Vector) -> None:
        """A line search changed the rates that this step is made with; ``before``: the parameters that it moves."""

    def _replays(self) -> list[Replay]:
        """All by which closures are run again."""
        return [] if self._search is None else [self._search.replay]

    def _decided(self, look: Look, block: Block) -> None:
        """After the rule was asked, or there was nothing to ask."""

    # ---- an update

    def _begin(self) -> float | None:
        loss, self._loss = self._loss, None
        gg = self._squared_gradient()
        if self._search is not None:
            self._search.check_closure(loss)
        if not math.isfinite(gg):
            self._reasons["not_finite"] += 1
            self._skip_not_finite()
            self._abandon()
            return None
        found = list(self._with_gradients())
        for block, members in self._members(found):
            look = self._look(block, members, loss)
            seen = self._statistics(look, block.key)
            if seen is not None:
                self._ask(block, seen)
            self._decided(look, block)
        rate = self._next_rate()
        self._note(found)
        if self._search is None or loss is None or rate == 0:
            return rate
        self._search.note(found, loss)
        return rate / self._factor

    def _end(self) -> None:
        seen = {} if self._search is None else self._searched(self._search)
        for block, row in self._rows:
            self._history.append(**row | seen | {"rate": block.base})
        self._rows = []
        noted, self._noted = self._noted, None
        if noted is not None:
            places = list(noted)
            deltas = moved(self.optimizers, places, list(noted.values()))
            self._kept["displacement"] = dict(zip(places, deltas, strict=True))
        first = next(iter(self._blocks.values())).applied
        share = self._acting / first if first > 0 else 0.0  # not 1: rounded by a tensor rate, or read before it was set
        self._kept_lr = {key: share * block.applied for key, block in self._blocks.items()}

    def _searched(self, search: Search) -> dict[str, Any]:
        """Search along the update, made with the rates before the schedule; then the schedule shortens what was found.

        One factor for all blocks, so that all stay within bounds. Returns columns of the history.
        """
        first = next(iter(self._blocks.values()))
        if first.applied == 0:
            search.forget()
            return {}
        made, bases = first.applied / self._factor, [block.base for block in self._blocks.values()]
        bounds = self._bounds.config
        low, top = bounds["min_lr"] * (made / min(bases)), bounds["max_lr"] * (made / max(bases))
        found = search.along(made, low, max(low, top))
        self._reasons[found.reason] += 1
        search.write(found.rate / made * self._factor)
        for block in self._blocks.values() if found.rate != made else ():
            block.base = found.rate * (block.base / made)
            block.applied = found.rate * (block.applied / made)
        if found.rate != made:
            self._made_with(search.before())
        search.forget()
        self._set(first.applied)
        self._acting, self._last_lr = self._applied(), self._rates()
        return found.row | {"search": found.reason}

    def _watch_closure(self, closure: Callable[..., Any]) -> Callable[..., Any]:
        return closure if self._search is None else self._search.replay.watch(closure)

    def _abandon(self) -> None:
        self._noted, self._rows = None, []
        if self._search is not None:
            self._search.forget()

    def _saw_loss(self, loss: Any) -> None:
        self._loss = None if loss is None else plain(loss)

    def observe(self, loss: Tensor | float) -> None:
        """The loss whose gradient the next update is made from, of all its micro-batches together. Call it before
        ``optimizer.step()``; what a closure returns is seen by itself. The latest loss counts."""
        self._loss = plain(loss)

    def _members(
        self, found: list[tuple[ParameterRef, Tensor]]
    ) -> Iterator[tuple[Block, list[tuple[ParameterRef, Tensor]]]]:
        """Each block that is to move, with its parameters."""
        if self.scope == "global":
            yield self._block(None), found
            return
        for key, indices in by_group([place for place, _ in found]).items():
            yield self._block(key), [found[i] for i in indices]

    def _block(self, key: Key, reference: float | None = None) -> Block:
        if key not in self._blocks:
            growth = _core.Rule("growth", max_growth=self._max_growth, power=math.inf)
            base = self._first_base(key, self._reference if reference is None else reference)
            rule = _core.Rule(self.RULE, **self._config)
            self._blocks[key] = Block(key, rule, growth, self._bounds.update(rate=base)[0])
        return self._blocks[key]

    def _joined(self, key: tuple[int, int]) -> None:
        """In a run that has come somewhere else, ratios are to where it is now."""
        first = next((block for block in self._blocks.values() if block.applied > 0), None)
        if self.scope != "global" and first is not None and first.key is not None:
            self._block(key, first.base / self._ratios[first.key[0]][first.key[1]])

    def _first_base(self, key: Key, reference: float) -> float:
        """Where a block starts from: the reference rate, or the block that a later group was given the rate of."""
        if key is None:
            return reference
        rate = float(self.optimizers[key[0]].param_groups[key[1]]["lr"])
        for other, block in self._blocks.items():
            if other is not None and float(self.optimizers[other[0]].param_groups[other[1]]["lr"]) == rate:
                return block.base
        return reference * self._ratios[key[0]][key[1]]

    def _look(self, block: Block, members: list[tuple[ParameterRef, Tensor]], loss: float | None) -> Look:
        scale = self._gradient_scale()
        grads: list[Tensor] = [p.grad for _, p in members]  # type: ignore[misc]
        places, lr = [place for place, _ in members], self._kept_lr.get(block.key, 0.0)
        look = Look(places, [p for _, p in members], grads, scale, block.base, loss, lr)
        look.before_scale = self._kept_scale
        kept = [self._kept[name] for name in ("displacement", "gradient") if name in self._kept]
        look.at = [i for i, place in enumerate(places) if kept and all(place in vector for vector in kept)]
        if not look.at or look.lr <= 0:
            return look
        now = [places[i] for i in look.at]
        if "displacement" in self._kept:
            look.deltas = [self._kept["displacement"][place] for place in now]
        if "gradient" in self._kept:
            look.before = [self._kept["gradient"][place] for place in now]
        return look

    def _ask(self, block: Block, seen: dict[str, float]) -> str:
        """Let the rule decide; what it keeps is the new base rate, within bounds. Returns the reason."""
        rate, action, reason = block.rule.update(**seen)
        self._reasons[reason] += 1
        if action == "keep":
            block.base, _, bounded = self._bounds.update(rate=rate)
            if bounded != "kept":
                self._reasons[bounded] += 1
        name = "" if block.key is None else "{}.{}".format(*block.key)
        self._rows.append((block, {"update": self.updates, **seen, "block": name, "reason": reason}))
        return reason

    def _next_rate(self) -> float:
        """Warm-up, annealing, growth limit. Returns the first block's rate; the others become ratios to it."""
        factor = _core.schedule(self.anneal, self.updates, total=self.horizon, warmup=self.warmup, **self._shape)
        self._factor = factor
        if factor == 0:
            self._say_over(self.horizon)
        for block in self._blocks.values():
            wanted = block.base * factor
            block.applied = block.growth.update(rate=wanted, previous=block.applied)[0] if wanted > 0 else 0.0
        first = next(iter(self._blocks.values()))
        for block in self._blocks.values() if first.applied > 0 else ():
            if block.key is not None:
                self._ratios[block.key[0]][block.key[1]] = block.applied / first.applied
        return first.applied

    def _note(self, found: list[tuple[ParameterRef, Tensor]]) -> None:
        if "displacement" in self.KEEPS:
            self._kept.pop("displacement", None)  # was looked at, and a copy less is held while the step is made
            self._noted = dict(zip([place for place, _ in found], snapshot([p for _, p in found]), strict=True))
        if "gradient" in self.KEEPS:
            self._kept.pop("gradient", None)
            _check_dense(found)
            grads = snapshot([p.grad for _, p in found])  # type: ignore[misc]
            self._kept["gradient"] = dict(zip([place for place, _ in found], grads, strict=True))
            self._kept_scale = self._gradient_scale()

    # ---- what the user sees

    def _new_history(self) -> History:
        searched = self._search is not None
        seen = (*_core.Rule(self.RULE, **self._config).needs, *(COLUMNS if searched else ()))
        numbers = dict.fromkeys(("update", *seen, "rate"))
        return History(list(numbers), ("block", "reason", *(("search",) if searched else ())))

    @property
    def history(self) -> np.ndarray:
        """What the rule saw and decided: a structured array, a row for each update and block; ``rate`` is the base rate
        after it."""
        return self._history.array()

    @property
    def reasons(self) -> dict[str, int]:
        """How often the rule and the stages gave each reason."""
        return {reason: count for reason, count in self._reasons.items() if count}

    @property
    def cost(self) -> tuple[float, int]:
        """Extra work so far: forward passes of closures that were run again (a backward counts as two), and copies of
        the parameters that line searches made."""
        copies = 0 if self._search is None else self._search.copies
        return math.fsum(replay.forwards for replay in self._replays()), copies

    def extend(self, total_steps: int) -> None:
        """Change the horizon of the run. Takes effect with the next update."""
        self.horizon = checks.whole(f"{type(self).__name__}.extend", "total_steps", total_steps, 1)
        self._said.discard("over")

    # ---- checkpoints

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs to go on to the same bits: plain values and tensors."""
        self._take_in_groups()
        blocks = [
            [b.key, b.base, b.applied, b.rule.state, b.growth.state, self._kept_lr.get(b.key)]
            for b in self._blocks.values()
        ]
        kept = {
            name: [[[p.optimizer, p.group, p.index], t.clone()] for p, t in vector.items()]
            for name, vector in self._kept.items()
        }
        return {
            "version": STATE_VERSION,
            "rule": self.RULE,
            "updates": self.updates,
            "skipped": self.skipped,
            "reference": self._reference,
            "ratios": copy.deepcopy(self._ratios),
            "total_steps": self.horizon,
            "config": self._options(),
            "blocks": blocks,
            "kept": kept,
            "kept_scale": self._kept_scale,
            "loss": self._loss,
            "cost": [[replay.forwards for replay in self._replays()], self.cost[1]],
            "said": sorted(self._said),
            "reasons": dict(self._reasons),
            "history": self._history.state(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken; model, optimizer and scheduler may be loaded in any order.

        Options given to the constructor stay, but for ``total_steps``, which is the state's; a difference is said
        once. The state is copied, not kept.
        """
        saved = copy.deepcopy(state_dict)
        self._check_state(saved, self.RULE)
        self._tell_differences(saved)
        for name in ("skipped", "reference", "ratios", "kept_scale", "loss"):
            setattr(self, name if name == "skipped" else f"_{name}", saved[name])
        self.horizon = saved["total_steps"]
        self._count(saved["updates"])
        self._blocks, self._kept_lr = {}, {}
        for key, base, applied, rule, growth, kept_lr in saved["blocks"]:
            block = self._block(None if key is None else tuple(key))
            block.base, block.applied = base, applied
            block.rule.load(rule)
            block.growth.load(growth)
            if kept_lr is not None:
                self._kept_lr[block.key] = kept_lr
        self._kept = {}
        for name, entries in saved["kept"].items():
            places = [ParameterRef(*place) for place, _ in entries]
            moved_to = [t.to(self._parameter(p).device) for p, (_, t) in zip(places, entries, strict=True)]
            self._kept[name] = dict(zip(places, moved_to, strict=True))
        forwards, copies = saved["cost"]
        for replay, passes in zip(self._replays(), forwards, strict=True):
            replay.forwards = passes
        if self._search is not None:
            self._search.copies = copies
        self._said, self._reasons = set(saved["said"]), Counter(saved["reasons"])
        self._history.load(saved["history"])
        self._noted, self._written_ratios = None, [[] for _ in self.optimizers]  # written are those that were saved
        self._write_again(next((block.applied for block in self._blocks.values()), 0.0))

    def _options(self) -> dict[str, Any]:
        config = {"anneal": self.anneal, **self._shape, "warmup": self.warmup, "scope": self.scope}
        search = {} if self._search is None else {f"search {k}": v for k, v in self._search.config.items()}
        return config | self._bounds.config | {"max_growth": self._max_growth} | self._config | search

    def _tell_differences(self, saved: dict[str, Any]) -> None:
        differing = [
            f"{k}={v!r} (saved with {saved['config'].get(k)!r})"
            for k, v in self._options().items()
            if saved["config"].get(k) != v
        ]
        if differing:
            self._say("options", f"the run goes on with other options than it was saved with: {', '.join(differing)}")


def _check_dense(found: list[tuple[ParameterRef, Tensor]]) -> None:
    for place, p in found:
        if p.grad is not None and p.grad.layout != torch.strided:
            raise TypeError(
                f"the gradient of {place} is sparse ({p.grad.layout}), and this rule compares gradients entry by "
                "entry: use sparse=False, or GlyderLR"
            )
