"""The rate follows its own gradient (1703.04782)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from glyder import _checks as checks
from glyder.optimizers.displacement import by_group
from glyder.optimizers.parameter_ref import ParameterRef
from glyder.optimizers.properties import l2_decay
from glyder.rules.rule_lr import Key, Look, RuleLR
from glyder.vectors.inner_products import displace, inner_products, shifted, snapshot


class HypergradientLR(RuleLR):
    r"""Hypergradient descent: the rate follows its own gradient.

    .. math:: \eta \leftarrow \eta + \beta \langle g_t, u_{t-1} \rangle \qquad\text{or}\qquad
       \eta \leftarrow \eta \Bigl(1 + \beta \frac{\langle g_t, u_{t-1} \rangle}{\|g_t\| \|u_{t-1}\|}\Bigr)

    u is what the optimizer did in the update before, divided by the rate that it did it with: of SGD the gradient, of
    SGD with momentum the buffer, of Adam its direction. One inner product over all tensors of a block (the released
    code changes Adam's rate tensor by tensor inside of the loop instead). Weight decay that is part of the loss is
    part of g and u, decoupled weight decay is not.

    With ``every=K`` the rule looks at windows of K updates instead, as the paper of the Newton-based trainable rate
    has its rivals do: u is what a window's updates did together, over the mean of their rates, and g is the same of
    the window after it. All weight decay is then part of both.

    Args:
        optimizer: any torch optimizer, or a list of them. The rule starts from its rate.
        beta: step on the rate: in units of rate/||g||^2 (additive; 1e-3 for SGD and 1e-7 for Adam in the paper's runs,
            1e-6 in its code), or a plain number (multiplicative).
        form: ``"additive"`` or ``"multiplicative"``.
        every: None, or the updates of a window; the rate changes at the end of each but the first.
        shrink: an update leaves at least this fraction of the rate. Ours: published, the rate may turn negative.
        **options: of every rule of the family: ``total_steps``, ``anneal``, ``warmup``, ``min_lr``, ``max_lr``,
            ``max_growth``, ``scope``, ``safeguard`` (see :class:`~glyder.rules.rule_lr.RuleLR`).

    Raises:
        TypeError, ValueError: on construction, in call form, with the value and the remedy.

    :formula: ``eta += beta <g, u>``, or ``eta *= 1 + beta cos(g, u)``
    :source: 1703.04782, equations 6 to 8
    :passes: 0
    :memory: 1, or 2 with windows
    :optimizers: any that follows its rate
    :use: a rate that is roughly right should drift to a better one, at no cost
    :avoid: nothing is known of the rate: beta is then to be tuned in its place, or the rate creeps
    """

    RULE = "hypergradient"
    KEEPS = frozenset({"displacement"})

    def __init__(
        self,
        optimizer: Optimizer | Sequence[Optimizer],
        *,
        beta: float = 1e-6,
        form: str = "additive",
        every: int | None = None,
        shrink: float = 0.1,
        **options: Any,
    ) -> None:
        checks.one_of("HypergradientLR", "form", form, ("additive", "multiplicative"))
        config = {"beta": beta, "multiplicative": float(form == "multiplicative"), "shrink": shrink}
        self.every = None if every is None else checks.whole("HypergradientLR", "every", every, 1)
        self._lr_sum: dict[Key, float] = {}
        self._lr_before: dict[Key, float] = {}
        super().__init__(optimizer, config, **options)

    def _statistics(self, look: Look, key: Key) -> dict[str, float] | None:
        if self.every is not None:
            return self._of_windows(look, key) if self.updates % self.every == 0 else None
        if look.deltas is None:
            return None
        grads = self._gradients_of_the_loss(look)
        gu, uu, gg = inner_products([grads, look.deltas], [(0, 1), (1, 1), (0, 0)])
        return {
            "base": look.base,
            "gu": gu / (look.scale * look.lr),
            "uu": uu / look.lr**2,
            "gg": gg / look.scale**2,
        }

    def _gradients_of_the_loss(self, look: Look) -> list[Tensor]:
        """Those of the parameters that were moved before as well, weight decay that is part of the loss included."""
        grads = look.again
        for (o, g), some in by_group([look.places[i] for i in look.at]).items():
            decay = l2_decay(self.optimizers[o], self.optimizers[o].param_groups[g])
            if decay:
                params = [look.params[look.at[k]] for k in some]
                for k, grad in zip(some, shifted([grads[k] for k in some], decay * look.scale, params), strict=True):
                    grads[k] = grad
        return grads

    # ---- windows

    def _of_windows(self, look: Look, key: Key) -> dict[str, float] | None:
        """At the end of a window: its displacement against that of the window before."""
        start, window = self._kept.get("start", {}), self._kept.setdefault("window", {})
        older = {place: window.pop(place) for place in look.places if place in window}
        moved = [(place, p) for place, p in zip(look.places, look.params, strict=True) if place in start]
        deltas = displace([start[place] for place, _ in moved], 1.0, [p for _, p in moved])
        newer = {place: delta for (place, _), delta in zip(moved, deltas, strict=True)}
        window.update(newer)
        both = [place for place in newer if place in older]
        lr, before = self._lr_sum.get(key, 0.0) / self.every, self._lr_before.get(key, 0.0)  # type: ignore[operator]
        if not both or lr <= 0 or before <= 0:
            return None
        vectors = [[newer[place] for place in both], [older[place] for place in both]]
        gu, uu, gg = inner_products(vectors, [(0, 1), (1, 1), (0, 0)])
        return {"base": look.base, "gu": gu / (lr * before), "uu": uu / before**2, "gg": gg / lr**2}

    def _note(self, found: list[tuple[ParameterRef, Tensor]]) -> None:
        if self.every is None:
            super()._note(found)
        elif self.updates % self.every == 0:
            self._kept["start"] = dict(zip([place for place, _ in found], snapshot([p for _, p in found]), strict=True))
            self._lr_before = {key: total / self.every for key, total in self._lr_sum.items()}
            self._lr_sum = {}

    def _end(self) -> None:
        super()._end()
        for key, lr in self._kept_lr.items() if self.every is not None else ():
            self._lr_sum[key] = self._lr_sum.get(key, 0.0) + lr

    def _state(self) -> dict[str, Any]:
        return super()._state() | {"windows": [list(self._lr_sum.items()), list(self._lr_before.items())]}

    def _load(self, saved: dict[str, Any]) -> None:
        """A run that was saved inside of a window goes on inside of it."""
        super()._load(saved)
        self._lr_sum, self._lr_before = (
            {None if key is None else tuple(key): lr for key, lr in rates} for rates in saved["windows"]
        )

    def _options(self) -> dict[str, Any]:
        return super()._options() | {"every": self.every}
