"""Stochastic line search (1905.09997)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from glyder import _checks as checks
from glyder.rules.line_search import LineSearch
from glyder.rules.rule_lr import Key, Look, RuleLR


class ArmijoLR(RuleLR):
    r"""Stochastic line search (SLS): the largest rate of a row at which the loss of the batch itself falls enough.

    .. math:: f_t(x_t - \eta d_t) \le f_t(x_t) - c\, \eta\, \langle g_t, d_t \rangle, \qquad
       \eta \leftarrow \beta\, \eta \text{ until it holds, from } \eta_{t-1}\, \gamma^{1/\text{batches}}

    d is the direction that the optimizer took: of SGD the gradient, and this is the published method; of any other the
    search goes along its own displacement, momentum and preconditioner included (the released variant with momentum
    searches along the gradient and adds the momentum unseen). Where the loss does not fall along it
    at all (momentum that overshoots), the step stands as the optimizer made it and the rate stays (reason
    ``no_slope``). Where no rate passes, a small step is made that was not seen (reason ``not_found``).

    A loop with a closure is needed, and the loss must be that of one batch::

        def closure(backward=True):
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            if backward:
                loss.backward()
            return loss

        optimizer.step(closure)

    One without the argument ``backward`` works, at three times the cost. Every evaluation sees the same dropout masks,
    and leaves batch-norm statistics, gradients and random generators as they were. Decoupled weight decay is no part
    of the loss and does not enter the search.

    Args:
        optimizer: a torch optimizer whose displacement is proportional to its rate. Its rate is where the first search
            starts (1 in the released code).
        model: the module that holds every parameter that is trained.
        c, backtrack, extend, rise, tries, slack: of the search (see :class:`~glyder.rules.line_search.LineSearch`).
        condition: ``"armijo"``, or ``"goldstein"``: a rate at which the loss falls by more than the share 1 - c is
            raised (``max_lr``: 10 in the released code).
        reset: where a search starts: ``"grow"``: from the rate before, ``gamma`` times per epoch; ``"keep"``: from the
            rate before; ``"start"``: from the optimizer's own rate. Options 1, 0 and 2 of the released code.
        gamma: growth per epoch, >= 1.
        batches_per_epoch: number of updates in an epoch, >= 1.
        **options: of every rule of the family: ``total_steps``, ``anneal``, ``warmup``, ``min_lr``, ``max_lr``,
            ``max_growth`` (see :class:`~glyder.rules.rule_lr.RuleLR`). A schedule shortens the step that was found.

    Raises:
        TypeError, ValueError: on construction, in call form, with the value and the remedy.
        RuntimeError: in ``optimizer.step`` without a closure.

    :formula: ``f(x - eta d) <= f(x) - c eta <g, d>``, else ``eta *= 0.9``
    :source: 1905.09997, equation 1; resets and Goldstein as in its released code
    :passes: 1 and more: one for each trial (3 where the closure does not take ``backward``)
    :memory: 4
    :optimizers: any whose displacement is proportional to its rate: not LBFGS, Adafactor and Schedule-Free
    :use: the model can fit every batch (interpolation), and no rate is known
    :avoid: batches are small against the noise: each is fitted for itself, and the rate does not anneal; momentum close
        to 1: a step that is right by itself goes on for many updates
    """

    RULE = "reset"
    SCOPES = ("global",)

    def __init__(
        self,
        optimizer: Optimizer | Sequence[Optimizer],
        model: nn.Module,
        *,
        c: float = 0.1,
        backtrack: float = 0.9,
        condition: str = "armijo",
        extend: float = 2.0,
        rise: float = 1000.0,
        tries: int = 100,
        slack: float | None = None,
        reset: str = "grow",
        gamma: float = 2.0,
        batches_per_epoch: int = 500,
        **options: Any,
    ) -> None:
        checks.one_of("ArmijoLR", "condition", condition, ("armijo", "goldstein"))
        checks.one_of("ArmijoLR", "reset", reset, ("grow", "keep", "start"))
        batches = float(checks.whole("ArmijoLR", "batches_per_epoch", batches_per_epoch, 1))
        search = LineSearch(model, c, backtrack, condition == "goldstein", extend, rise, tries, slack)
        config = {"gamma": gamma if reset == "grow" else 1.0, "batches": batches}
        super().__init__(optimizer, config, safeguard=search, **options)
        self._reset = reset

    def _statistics(self, look: Look, key: Key) -> dict[str, float] | None:
        return {"base": self.rates.reference if self._reset == "start" else look.base}

    def _options(self) -> dict[str, Any]:
        return super()._options() | {"reset": self._reset}
