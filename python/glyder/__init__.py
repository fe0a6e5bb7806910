"""glyder: the learning rate of any PyTorch optimizer, found while it trains.

>>> opt = torch.optim.AdamW(model.parameters())
>>> sched = glyder.GlyderLR(opt, total_steps=T)
"""

from glyder._core import __version__
from glyder.adgd import AdGDLR
from glyder.annealing import AnnealedLR
from glyder.armijo import ArmijoLR
from glyder.autosgd import AutoSGDLR
from glyder.base import GlyderWarning
from glyder.estimators import (
    Estimator,
    GaussNewton,
    GaussNewtonBartlett,
    Measured,
    Projection,
    Sample,
    Smoothness,
)
from glyder.glyder_lr import SEARCHED, GlyderLR
from glyder.gradient_norm import GradientNormLR
from glyder.history import FIELDS
from glyder.hypergradient import HypergradientLR
from glyder.line_search import LineSearch
from glyder.local_optimum import LocalOptimumLR
from glyder.meta import MetaLR
from glyder.ntlr import NewtonLR
from glyder.outputs_loss import EstimatorError
from glyder.polyak import PolyakLR
from glyder.regime import RegimeLR
from glyder.secant import SecantLR
from glyder.sign_sgd import SignSGD
from glyder.stochastic_bb import StochasticBBLR

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
