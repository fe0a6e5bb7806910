"""glyder: the learning rate of any PyTorch optimizer, found while it trains.

>>> opt = torch.optim.AdamW(model.parameters())
>>> sched = glyder.GlyderLR(opt, total_steps=T)
"""

from glyder._core import __version__
from glyder.contrib.autosgd import AutoSGDLR
from glyder.contrib.meta import MetaLR
from glyder.contrib.regime import RegimeLR
from glyder.contrib.sign_sgd import SignSGD
from glyder.engine.history import FIELDS
from glyder.engine.scheduler import GlyderWarning
from glyder.probe.estimators import (
    Estimator,
    GaussNewton,
    GaussNewtonBartlett,
    Measured,
    Projection,
    Sample,
    Smoothness,
)
from glyder.probe.outputs_loss import EstimatorError
from glyder.rules.adgd import AdGDLR
from glyder.rules.armijo import ArmijoLR
from glyder.rules.hypergradient import HypergradientLR
from glyder.rules.line_search import LineSearch
from glyder.rules.ntlr import NewtonLR
from glyder.rules.polyak import PolyakLR
from glyder.rules.secant import SecantLR
from glyder.rules.stochastic_bb import StochasticBBLR
from glyder.schedulers.annealed import AnnealedLR
from glyder.schedulers.glyder import SEARCHED, GlyderLR
from glyder.schedulers.gradient_norm import GradientNormLR
from glyder.schedulers.local_optimum import LocalOptimumLR

__all__ = [
    "FIELDS",
    "SEARCHED",
    "AdGDLR",
    "AnnealedLR",
    "ArmijoLR",
    "AutoSGDLR",
    "Estimator",
    "EstimatorError",
    "GaussNewton",
    "GaussNewtonBartlett",
    "GlyderLR",
    "GlyderWarning",
    "GradientNormLR",
    "HypergradientLR",
    "LineSearch",
    "LocalOptimumLR",
    "Measured",
    "MetaLR",
    "NewtonLR",
    "PolyakLR",
    "Projection",
    "RegimeLR",
    "Sample",
    "SecantLR",
    "SignSGD",
    "Smoothness",
    "StochasticBBLR",
    "__version__",
]
