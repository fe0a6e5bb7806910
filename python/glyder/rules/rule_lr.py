"""A scheduler that asks one rule of the C core for a rate, update by update: the engine of the family.

Before every update, with the gradients there, the statistics that the rule needs are formed and the rule's rate becomes
the base rate; bounds, growth limit, warm-up and annealing follow. A subclass names its rule, says which vectors it
looks back at, and forms the statistics.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from glyder import _checks as checks
from glyder import _core
from glyder.engine.history import History
from glyder.engine.schedule import Given, Schedule
from glyder.engine.scheduler import Scheduler
from glyder.engine.stages import Stages, bounds_of
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

    def state(self) -> list[Any]:
        """Plain values."""
        return [self.key, self.base, self.applied, self.rule.state, self.growth.state]

    def load(self, base: float, applied: float, rule: dict[str, float], growth: dict[str, float]) -> None:
        """Inverse of :meth:`state`, but for the key."""
        self.base, self.applied = base, applied
        self.rule.load(rule)
        self.growth.load(growth)


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
        total_steps: number of updates of the whole run; needed by schedules with an end.
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
        anneal: Given = None,
        warmup: int = 0,
        min_lr: float = 0.0,
        max_lr: float = math.inf,
        max_growth: float = math.inf,
        scope: Literal["global", "group", "tensor"] = "global",
        safeguard: LineSearch | None = None,
    ) -> None:
        call = type(self).__name__
        checks.one_of(call, "scope", scope, self.SCOPES)
        self.scope = scope
        total = None if total_steps is None else checks.whole(call, "total_steps", total_steps, 1)
        schedule = Schedule(call, anneal, total, checks.whole(call, "warmup", warmup, 0))
        self._config = config
        bounds = bounds_of(call, min_lr, max_lr)
        self._max_growth = checks.number(call, "max_growth", max_growth, 1, above=True)
        rule = checks.rule(call, self.RULE, config)  # wrong options are told before anything is touched
        searched = COLUMNS if safeguard is not None else ()
        columns = dict.fromkeys(("update", *rule.needs, *searched, "rate"))
        history = History(list(columns), ("block", "reason", *(("search",) if searched else ())))
        super().__init__(optimizer, schedule, history)
        self._stages = Stages(self._reasons, bounds)
        self._search = None if safeguard is None else Search(safeguard, self.optimizers, call, self._moved())
        if scope == "tensor":
            self._split_groups()
        self._blocks: dict[Key, Block] = {}
        self._noted: Vector | None = None
        self._kept: dict[str, Vector] = {}
        self._kept_lr: dict[Key, float] = {}
        self._kept_scale = 1.0
        self._loss: float | None = None
        self._shortened = 1.0  # by the schedule
        self._rows: list[tuple[Block, dict[str, Any]]] = []
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
        return rate / self._shortened

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
        # Not 1 where it was rounded by a tensor rate, or read before it was set.
        share = self.rates.acting / first if first > 0 else 0.0
        self._kept_lr = {key: share * block.applied for key, block in self._blocks.items()}

    def _searched(self, search: Search) -> dict[str, Any]:
        """Search along the update, made with the rates before the schedule; then the schedule shortens what was found.

        One factor for all blocks, so that all stay within bounds. Returns columns of the history.
        """
        first = next(iter(self._blocks.values()))
        if first.applied == 0:
            search.forget()
            return {}
        made, bases = first.applied / self._shortened, [block.base for block in self._blocks.values()]
        low, top = self._stages.bounds
        low, top = low * (made / min(bases)), top * (made / max(bases))
        found = search.along(made, low, max(low, top))
        self._reasons[found.reason] += 1
        search.write(found.rate / made * self._shortened)
        for block in self._blocks.values() if found.rate != made else ():
            block.base = found.rate * (block.base / made)
            block.applied = found.rate * (block.applied / made)
        if found.rate != made:
            self._made_with(search.before())
        search.forget()
        self._set(first.applied)
        self.rates.note()
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
            base = self._first_base(key, self.rates.reference if reference is None else reference)
            rule = _core.Rule(self.RULE, **self._config)
            self._blocks[key] = Block(key, rule, growth, self._stages.within_bounds(base))
        return self._blocks[key]

    def _joined(self, key: tuple[int, int]) -> None:
        """In a run that has come somewhere else, ratios are to where it is now."""
        first = next((block for block in self._blocks.values() if block.applied > 0), None)
        if self.scope != "global" and first is not None and first.key is not None:
            self._block(key, first.base / self.rates.ratios[first.key[0]][first.key[1]])

    def _first_base(self, key: Key, reference: float) -> float:
        """Where a block starts from: the reference rate, or the block that a later group was given the rate of."""
        if key is None:
            return reference
        rate = self.rates.of(*key)
        for other, block in self._blocks.items():
            if other is not None and self.rates.of(*other) == rate:
                return block.base
        return reference * self.rates.ratios[key[0]][key[1]]

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
            block.base = self._stages.bounded(rate)
        name = "" if block.key is None else "{}.{}".format(*block.key)
        self._rows.append((block, {"update": self.updates, **seen, "block": name, "reason": reason}))
        return reason

    def _next_rate(self) -> float:
        """Warm-up, annealing, growth limit. Returns the first block's rate; the others become ratios to it."""
        factor = self._shortened = self._factor()
        for block in self._blocks.values():
            wanted = block.base * factor
            block.applied = block.growth.update(rate=wanted, previous=block.applied)[0] if wanted > 0 else 0.0
        first = next(iter(self._blocks.values()))
        for block in self._blocks.values() if first.applied > 0 else ():
            if block.key is not None:
                self.rates.ratios[block.key[0]][block.key[1]] = block.applied / first.applied
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

    @property
    def cost(self) -> tuple[float, int]:
        """Extra work so far: forward passes of closures that were run again (a backward counts as two), and copies of
        the parameters that line searches made."""
        copies = 0 if self._search is None else self._search.copies
        return math.fsum(replay.forwards for replay in self._replays()), copies

    # ---- checkpoints

    def _kind(self) -> str:
        return self.RULE

    def _state(self) -> dict[str, Any]:
        return {
            "blocks": [[*block.state(), self._kept_lr.get(block.key)] for block in self._blocks.values()],
            "kept": {
                name: [[[p.optimizer, p.group, p.index], t.clone()] for p, t in vector.items()]
                for name, vector in self._kept.items()
            },
            "kept_scale": self._kept_scale,
            "loss": self._loss,
            "cost": [[replay.forwards for replay in self._replays()], self.cost[1]],
        }

    def _load(self, saved: dict[str, Any]) -> None:
        self._kept_scale, self._loss = saved["kept_scale"], saved["loss"]
        self._blocks, self._kept_lr, self._kept, self._noted = {}, {}, {}, None
        for key, *state, kept_lr in saved["blocks"]:
            block = self._block(None if key is None else tuple(key))
            block.load(*state)
            if kept_lr is not None:
                self._kept_lr[block.key] = kept_lr
        for name, entries in saved["kept"].items():
            places = [ParameterRef(*place) for place, _ in entries]
            moved_to = [t.to(self._parameter(p).device) for p, (_, t) in zip(places, entries, strict=True)]
            self._kept[name] = dict(zip(places, moved_to, strict=True))
        forwards, copies = saved["cost"]
        for replay, passes in zip(self._replays(), forwards, strict=True):
            replay.forwards = passes
        if self._search is not None:
            self._search.copies = copies

    def _options(self) -> dict[str, Any]:
        low, top = self._stages.bounds
        limits = {"min_lr": low, "max_lr": top, "max_growth": self._max_growth}
        search = {} if self._search is None else {f"search {k}": v for k, v in self._search.config.items()}
        return self.schedule.config | {"scope": self.scope} | limits | self._config | search


def _check_dense(found: list[tuple[ParameterRef, Tensor]]) -> None:
    for place, p in found:
        if p.grad is not None and p.grad.layout != torch.strided:
            raise TypeError(
                f"the gradient of {place} is sparse ({p.grad.layout}), and this rule compares gradients entry by "
                "entry: use sparse=False, or GlyderLR"
            )
