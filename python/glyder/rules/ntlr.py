"""A damped Newton step on the rate itself, from two windows of updates (NTLR)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from glyder import _checks as checks
from glyder.optimizers.parameter_ref import ParameterRef
from glyder.optimizers.properties import acts_late
from glyder.rules.rule_lr import Key, Look, RuleLR, Vector
from glyder.vectors.inner_products import displace, inner_products, snapshot


class NewtonLR(RuleLR):
    r"""Newton-based trainable learning rate: a damped Newton step on the rate after every window of K updates.

    .. math:: \eta \leftarrow \eta \Bigl(1 + \gamma \frac{\langle v, w \rangle}{\langle v, v - w \rangle}\Bigr)

    w is the direction of the window just done and v that of the one before: the sum over the window's updates of
    displacement/rate, whatever the optimizer makes of gradients, momentum and weight decay included. With a rate that
    stays this is (parameters at the start - parameters now)/rate, as published. Where warm-up or annealing change the
    rate inside of a window, every displacement is still divided by the rate that it was made with: at each change from
    eta to eta' the start s becomes x + (eta'/eta)(s - x), x the parameters at that moment. That costs a pass over the
    parameters for each change and no memory.

    The rate first moves after the second window. A rate so small that no parameter moves at all is not lifted:
    :attr:`reasons` counts ``not_visible``.

    Args:
        optimizer: any torch optimizer, or a list of them. The rule starts from its rate.
        every: K, the updates of a window.
        fraction: K is int(fraction*batches_per_epoch) where ``every`` is not given; 0.2 in the paper's text, 1/3 in its
            code.
        batches_per_epoch: ``len(loader)``.
        gamma: damping, in (0, 1]; 1 is Newton's full step. 0.33 in the paper's text, 0.2 in its code.
        cap: most that one window raises the rate by, as a factor; 100 in the paper's text.
        reference: do as the released code does: the first window begins after update K + 1, so that the rate first
            moves after 3K + 1; 1e-10 in the denominator; no guard against a curvature that is not positive, and no cap;
            a rate for each group (``scope="group"`` unless given). Where its rate would turn negative it stays.
        **options: of every rule of the family: ``total_steps``, ``anneal``, ``warmup``, ``min_lr``, ``max_lr``,
            ``max_growth``, ``scope``, ``safeguard`` (see :class:`~glyder.rules.rule_lr.RuleLR`).

    Raises:
        TypeError, ValueError: on construction, in call form, with the value and the remedy.

    :formula: ``eta *= 1 + gamma <v, w>/<v, v - w>``
    :source: Retsinas et al., Newton-based Trainable Learning Rate, and its code (georgeretsi/NTLR)
    :passes: 0
    :memory: 2
    :optimizers: any that follows its rate
    :use: the starting rate is a guess, and some epochs are there for it to be corrected
    :avoid: runs of few windows, or windows of few noisy updates: two of them then say little of each other, and the
        buffer of momentum alone makes them agree (noise with momentum 0.8: the rate times 2.3 at a window of 1, 1.26 at
        6, 1.04 at 23)
    """

    RULE = "ntlr"

    def __init__(
        self,
        optimizer: Optimizer | Sequence[Optimizer],
        *,
        every: int | None = None,
        fraction: float = 0.2,
        batches_per_epoch: int | None = None,
        gamma: float = 0.33,
        cap: float = 100.0,
        reference: bool = False,
        **options: Any,
    ) -> None:
        checks.one_of("NewtonLR", "reference", reference, (False, True))
        self.every = _window(every, fraction, batches_per_epoch)
        self._first = self.every + 1 if reference else 0
        self._ended = -1
        self._window_lr: dict[Key, float] = {}
        self._ending: Vector = {}
        scope = {"scope": "group"} if reference else {}
        config = {"gamma": gamma, "cap": cap, "reference": float(reference)}
        super().__init__(optimizer, config, **(scope | options))

    def _statistics(self, look: Look, key: Key) -> dict[str, float] | None:
        start = self._started().get(key) if self._due() else None
        if not start:
            return None
        w = displace(list(start.values()), 1.0, [self._parameter(place) for place in start])
        for part in w:
            part.div_(self._window_lr[key])
        now = dict(zip(start, w, strict=True))
        self._ending |= now
        before = self._kept.get("direction", {})
        both = [place for place in now if place in before]
        if not both:
            return None
        vv, vw = inner_products([[before[p] for p in both], [now[p] for p in both]], [(0, 0), (0, 1)])
        return {"base": look.base, "vv": vv, "vw": vw}

    def _note(self, found: list[tuple[ParameterRef, Tensor]]) -> None:
        """The rates of this update are known, and the parameters have not moved yet."""
        super()._note(found)
        late = acts_late(self.optimizer)  # one group only: it goes on at the rate that stands there
        rates = {block.key: self.rates.read() if late else block.applied for block, _ in self._members(found)}
        if not self._due():
            self._in_units_of({key: lr for key, lr in rates.items() if lr > 0 and self._window_lr.get(key, lr) != lr})
            return
        for key, lr in rates.items():
            self._window_lr[key] = lr or self._blocks[key].base  # at a rate of 0 nothing moves, and any unit will do
        self._kept["direction"], self._ending = self._ending, {}
        self._kept["start"] = dict(zip([p for p, _ in found], snapshot([p for _, p in found]), strict=True))
        self._ended = self.updates

    def _due(self) -> bool:
        """Whether a window ends and the next begins; once, also where the step that follows is not made."""
        since = self.updates - self._first
        return since >= 0 and since % self.every == 0 and self._ended != self.updates

    def _started(self) -> dict[Key, Vector]:
        """Where the parameters of each block were when the window began."""
        parts: dict[Key, Vector] = {}
        for place, t in self._kept.get("start", {}).items():
            key = None if self.scope == "global" else (place.optimizer, place.group)
            parts.setdefault(key, {})[place] = t
        return parts

    def _made_with(self, before: Vector) -> None:
        if self._ended == self.updates:  # the window begins with this step
            self._window_lr = {key: block.applied for key, block in self._blocks.items()}
        else:
            self._in_units_of({key: block.applied for key, block in self._blocks.items()}, before)

    def _in_units_of(self, rates: dict[Key, float], at: Vector | None = None) -> None:
        """Move the window's start, so that (start - x)/rate is the direction so far. Takes its memory.

        x are the parameters, or what ``at`` holds of them.
        """
        for key, start in self._started().items() if rates else ():
            if key in rates:
                params = [(at or {}).get(place, self._parameter(place)) for place in start]
                ratio, self._window_lr[key] = rates[key] / self._window_lr[key], rates[key]
                for place, p, so_far in zip(start, params, displace(list(start.values()), 1.0, params), strict=True):
                    self._kept["start"][place] = so_far.mul_(ratio).add_(p.detach())

    def _state(self) -> dict[str, Any]:
        window_lr = [[key, lr] for key, lr in self._window_lr.items()]
        return super()._state() | {"window_lr": window_lr, "ended": self._ended}

    def _load(self, saved: dict[str, Any]) -> None:
        super()._load(saved)
        self._window_lr = {None if key is None else tuple(key): lr for key, lr in saved["window_lr"]}
        self._ending, self._ended = {}, saved["ended"]

    def _options(self) -> dict[str, Any]:
        return super()._options() | {"every": self.every}


def _window(every: int | None, fraction: float, batches_per_epoch: int | None) -> int:
    if (every is None) == (batches_per_epoch is None):
        given = f"every={every}, batches_per_epoch={batches_per_epoch}"
        raise ValueError(f"NewtonLR(...) needs one of every= and batches_per_epoch= (len(loader)), got {given}")
    if every is not None:
        return checks.whole("NewtonLR", "every", every, 1)
    share = checks.number("NewtonLR", "fraction", fraction, 0, above=True, finite=True)
    updates = int(share * checks.whole("NewtonLR", "batches_per_epoch", batches_per_epoch, 1))
    if updates < 1:
        raise ValueError(
            f"NewtonLR(fraction={fraction}, batches_per_epoch={batches_per_epoch}) makes a window of no update: "
            "give every=1 or more"
        )
    return updates
