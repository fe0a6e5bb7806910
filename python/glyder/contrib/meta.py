"""A small recurrent net, trained ahead, maps the losses to a rate (2007.14546)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer

from glyder import _checks as checks
from glyder.rules.rule_lr import Key, Look, RuleLR


class MetaLR(RuleLR):
    r"""MLR-SNet: a small recurrent net, trained ahead, maps the losses seen so far to a rate.

    .. math:: \eta_t = \gamma\,\sigma(a \cdot h_t + b), \qquad h_t = \mathrm{LSTM}(\ln(L_t/L_0), h_{t-1}), \qquad
       \gamma = \frac{\sqrt{L_0} \ln(L_0 C)}{4 C^{1/4}}

    L_0 is the first loss and C the number of classes. The net comes with the package: four units, trained once on
    small networks that learn scikit-learn's digits by SGD (``benchmarks/papers/meta_train.py``), where the released
    one has 50 and is trained anew in each run, on held-out data. The published net sees the loss itself; this one sees
    its ratio to the first, so that the unit of the loss plays no part. It anneals as the loss falls; a loss that
    rises above the first does not make it lower the rate.

    The finding against it (``benchmarks/results/papers/meta.md``): on workloads that it was not trained on it ends
    behind the best constant rate.

    Args:
        optimizer: any torch optimizer, or a list of them; the net was trained with plain SGD. Its own rate is used
            only until there is a first loss, and for the ratios between groups.
        classes: C of the published ceiling, at least 2. Needs a first loss above 1/C.
        gamma: the ceiling itself, in place of ``classes``. The rate lies between 0 and it.
        **options: of every rule of the family: ``total_steps``, ``anneal``, ``warmup``, ``min_lr``, ``max_lr``,
            ``max_growth``, ``safeguard`` (see :class:`~glyder.rules.rule_lr.RuleLR`). ``scope`` is ``"global"``.

    Raises:
        TypeError, ValueError: on construction, in call form, with the value and the remedy; RuntimeError where an
            update is made whose loss was not shown.

    :formula: ``gamma * sigmoid(linear(LSTM(log(loss/first loss))))``
    :source: 2007.14546, section 3 and its released code (gamma); net and input are ours
    :passes: 0
    :memory: 0
    :optimizers: any that follows its rate; trained on plain SGD
    :use: SGD on classification, much like what the net was trained on
    :avoid: anything else: it knows neither the scale of the gradients nor the run's length, and does not see divergence
    """

    RULE = "meta"
    SCOPES = ("global",)

    def __init__(
        self,
        optimizer: Optimizer | Sequence[Optimizer],
        *,
        classes: int | None = None,
        gamma: float | None = None,
        **options: Any,
    ) -> None:
        if (classes is None) == (gamma is None):
            raise ValueError(
                f"MetaLR needs classes=... (the number of classes) or gamma=... (the largest rate), and not both, "
                f"got classes={classes!r}, gamma={gamma!r}"
            )
        if gamma is not None:
            config = {"gamma": checks.number("MetaLR", "gamma", gamma, 0, above=True, finite=True)}
        else:
            config = {"classes": float(checks.whole("MetaLR", "classes", classes, 2))}
        super().__init__(optimizer, config, **options)

    def _statistics(self, look: Look, key: Key) -> dict[str, float] | None:
        if look.loss is None:
            raise RuntimeError(
                "MetaLR needs the loss of every update: call scheduler.observe(loss) before optimizer.step(), or "
                "optimizer.step(closure)"
            )
        return {"loss": look.loss}
