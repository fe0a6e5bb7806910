"""Plain twins of the rules, stages and schedules, written as the papers and file heads write them.

Rules keep the whole history of their measurements and go through it anew at every update; schedules are evaluated in
decimal arithmetic of 50 digits. Slow, and of no use but to compare with. Statistics are taken as given: refusing bad
ones is not described here.
"""

import itertools
import math
import operator
from decimal import Decimal, getcontext

getcontext().prec = 50

PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459")

Verdict = tuple[float, str, str]


def skip(reason: str) -> Verdict:
    return 0.0, "skip", reason


def discounted(history: list[float], memory: float) -> float:
    """Mean with weights (1 - 1/memory)^age."""
    beta = 1 - 1 / memory
    weights = [beta**age for age in range(len(history))][::-1]
    return math.fsum(w * h for w, h in zip(weights, history, strict=True)) / math.fsum(weights)


class Glyder:
    """Corollary 2.2 of 2311.13877 along any direction, slope and curvature averaged apart."""

    def __init__(self, sigma: float = 2.0, memory: float = math.inf) -> None:
        self.sigma, self.memory = sigma, memory
        self.a: list[float] = []
        self.smoothness: list[float] = []

    def update(self, slope: float, behind: float, curvature: float, dd: float, lr: float, young: float) -> Verdict:
        if dd == 0:
            return skip("not_visible")
        slope_at_start = slope + curvature if behind else slope  # <grad f(x_t), delta>, to second order
        self.a.append(slope_at_start / lr / (dd / lr**2) * young)
        self.smoothness.append(curvature / lr**2 / (dd / lr**2))
        a, smoothness = discounted(self.a, self.memory), discounted(self.smoothness, self.memory)
        if a <= 0:
            return skip("no_slope")
        if smoothness <= 0:
            return skip("no_curvature")
        return self.sigma * a / smoothness, "keep", "kept"


class Scale:
    """Geometric mean of the rate that curvature allows, a quotient of means weighted by lr^2, and the one that noise
    allows."""

    def __init__(
        self, sigma: float = 1.0, edge: float = 1.25, share: float = 0.62, fall: float = 4.0, cap: float = 6.0
    ) -> None:
        self.sigma, self.edge, self.share, self.fall, self.cap = sigma, edge, share, fall, cap
        self.seen: list[dict[str, float]] = []

    def mean(self, values: list[float]) -> float:
        weights = [s["lr"] ** 2 for s in self.seen]
        return math.fsum(w * v for w, v in zip(weights, values, strict=True)) / math.fsum(weights)

    def update(self, **s: float) -> Verdict:
        if s["dd"] == 0:
            return skip("not_visible")
        self.seen.append(s)
        at_start = [s["slope"] + s["curvature"] if s["behind"] else s["slope"] for s in self.seen]
        # no measurement says that its rate was more than `fall` times too high
        at_start = [max(a, s["curvature"] / self.fall) for a, s in zip(at_start, self.seen, strict=True)]
        # d = delta/lr is short by `young` while the momentum buffer fills
        slope = self.mean([a * s["young"] * s["lr"] / s["dd"] for a, s in zip(at_start, self.seen, strict=True)])
        smoothness = self.mean([s["curvature"] / s["dd"] for s in self.seen])
        if slope <= 0:
            return skip("no_slope")
        reach = math.sqrt(math.fsum(s["reach"] for s in self.seen) / len(self.seen))
        by_noise = math.sqrt(s["start"]) / (reach * math.sqrt(s["energy"]))
        if smoothness <= 0:
            return (self.sigma * by_noise, "keep", "no_curvature") if by_noise else skip("no_curvature")
        optimal = slope / smoothness
        if not by_noise:
            return self.sigma * optimal, "keep", "kept"
        mean = self.edge * optimal ** (1 - self.share) * by_noise**self.share
        return self.sigma * min(mean, self.cap * optimal), "keep", "kept"


class Start:
    def __init__(self, visible: float = 1e-4, tolerance: float = 0.1, jump: float = 100.0) -> None:
        self.visible, self.tolerance, self.jump = visible, tolerance, jump
        self.first = True

    def update(self, xx: float, gg: float, n: float, dd: float, previous: float) -> Verdict:
        if self.first:
            self.first = False
            length = math.sqrt(xx) if xx > 0 else math.sqrt(n)
            return self.visible * length / max(math.sqrt(gg), math.sqrt(n)), "keep", "first"
        if dd == 0 and gg == 0:
            return previous, "keep", "no_gradient"
        if dd == 0:
            return previous * self.jump, "keep", "not_visible"
        missing = self.visible * math.sqrt(xx) / math.sqrt(dd)
        if missing * self.tolerance > 1:
            return previous * min(self.jump, missing), "keep", "not_visible"
        return previous, "keep", "kept"


class Bounds:
    def __init__(self, min_lr: float = 0.0, max_lr: float = math.inf) -> None:
        self.min_lr, self.max_lr = min_lr, max_lr

    def update(self, rate: float) -> Verdict:
        reason = "at_min" if rate < self.min_lr else "at_max" if rate > self.max_lr else "kept"
        return min(max(rate, self.min_lr), self.max_lr), "keep", reason


class Growth:
    def __init__(self, max_growth: float = 3.0, power: float = 2.0) -> None:
        self.max_growth, self.power = max_growth, power
        self.count, self.caught = 0, False

    def update(self, rate: float, previous: float) -> Verdict:
        self.count += 1
        most = min(self.max_growth, 1 + self.power / self.count) if self.caught else self.max_growth
        if rate > most * previous:
            return most * previous, "keep", "growth_limited"
        self.caught = True
        return rate, "keep", "kept"


class Spike:
    def __init__(self, limit: float = 1.5, clip: float = 3.0, memory: float = 20.0, quiet: float = 6.0) -> None:
        self.limit, self.clip, self.memory, self.quiet = limit, clip, memory, quiet
        self.factors: list[float] = []
        self.holds: list[float] = []
        self.norms: list[float] = []  # of the history, clipped
        self.run: list[float] = []  # as they are
        self.longer = False  # what the run is

    def usual(self) -> float:
        """Root mean square of the clipped lengths so far."""
        mean = 0.0
        for t, norm in enumerate(self.norms):
            mean += max(1 / (t + 1), 1 / self.memory) * (norm**2 - mean)
        return math.sqrt(mean)

    def update(self, rate: float, gg: float, hold: float) -> Verdict:
        norm, usual = math.sqrt(gg), self.usual()
        limited = len(self.norms) >= self.quiet and norm > self.limit * usual
        # what is left of each factor so far, and the one of now
        self.holds.append(hold)
        left = list(itertools.accumulate(reversed(self.holds), operator.mul))
        back = min([1.0, *(1 - rest * (1 - f) for rest, f in zip(left, reversed(self.factors), strict=False))])
        self.factors.append(self.limit * usual / norm if limited else 1.0)
        if norm > 0:
            self.remember(norm, usual)
        reason = "spike" if limited else "held" if back < 0.99 else "kept"
        return rate * min(self.factors[-1], back), "keep", reason

    def remember(self, norm: float, usual: float) -> None:
        if not self.norms:
            self.norms = [norm]
            return
        self.norms.append(min(norm, self.clip * usual))
        longer, shorter = norm > self.clip * usual, norm < usual / self.clip
        if not (longer or shorter) or longer != self.longer:
            self.run = []
        if longer or shorter:
            self.longer = longer
            self.run.append(norm)
        before = len(self.norms) - len(self.run)
        if len(self.run) >= min(self.memory, max(self.quiet, before)):
            mean_square = math.fsum(n**2 for n in self.run) / len(self.run)
            self.norms, self.run = [math.sqrt(mean_square)] * len(self.run), []


class Brake:
    def __init__(
        self, memory: float = 10.0, limit: float = 4.0, drop: float = 0.5, patience: float = 2, rest: float = 1,
        rise: float = 20,
    ) -> None:  # fmt: skip
        self.memory, self.limit, self.drop, self.patience, self.rest = memory, limit, drop, patience, rest
        self.rise = rise
        self.norms: list[float] = []
        self.usual = -math.inf  # the logarithm of the reference
        self.high: list[bool] = []
        self.backed_off: list[int] = []  # updates at which it backed off

    def update(self, rate: float, gg: float) -> Verdict:
        if gg > 0:
            self.observe(math.sqrt(gg))
        acted = gg > 0 and bool(self.backed_off) and self.backed_off[-1] == len(self.norms) - 1
        return rate * self.drop ** len(self.backed_off), "keep", "backed_off" if acted else "kept"

    def observe(self, norm: float) -> None:
        t = len(self.norms)
        self.high.append(t >= self.memory and norm > self.limit * math.exp(self.usual))
        rested = not self.backed_off or t - self.backed_off[-1] > self.rest
        in_a_row = next((i for i, high in enumerate(reversed(self.high)) if not high), t + 1)
        if rested and in_a_row >= self.patience:
            self.backed_off.append(t)
            self.usual -= math.log(self.drop)
        self.norms.append(norm)
        mean = discounted([math.log(n) for n in self.norms], self.memory)
        if t >= self.memory:
            mean = min(mean, self.usual + math.log(self.limit) / self.rise)
        self.usual = max(self.usual, mean)


def decimal_cos(x: Decimal) -> Decimal:
    term = total = Decimal(1)
    for k in range(1, 60):
        term *= -x * x / ((2 * k - 1) * (2 * k))
        total += term
    return total


ENDLESS = ("constant", "rsqrt", "exponential", "step", "restarts")


def shape(name: str, t: int, total: int | None, warmup: int, **p: float) -> Decimal:
    """h(u) of the file head of schedule.h."""
    if name == "constant":
        return Decimal(1)
    if name == "rsqrt":
        return (Decimal(max(warmup, 1)) / (t + 1)).sqrt()
    if name in ("exponential", "step"):
        periods = (t - warmup) / Decimal(p.get("period", 1000))
        gamma = Decimal(p.get("gamma", 0.9 if name == "exponential" else 0.1))
        return max(gamma ** (periods if name == "exponential" else int(periods)), Decimal(2) ** -1022)
    if name == "restarts":
        gone, length, multiplier = t - warmup, int(p.get("period", 1000)), int(p.get("multiplier", 2))
        if multiplier == 1:
            gone %= length
        while gone >= length:  # one cycle after the other
            gone, length = gone - length, length * multiplier
        return (1 + decimal_cos(PI * gone / length)) / 2
    assert total is not None
    u = Decimal(t - warmup) / (total - warmup)
    if name == "polynomial":
        return (1 - u) ** Decimal(p.get("power", 1))
    if name == "linear":
        return 1 - u
    if name == "cosine":
        return (1 + decimal_cos(PI * u)) / 2
    if name == "wsd":
        decay = min(Decimal(p.get("decay_fraction", 0.2)) * total, Decimal(total - warmup))
        return min(Decimal(1), (total - t) / decay) if decay else Decimal(1)
    if name == "cooldown":
        length = min(math.floor(p.get("decay_fraction", 0.2) * total + 0.5), total - warmup)
        gone = Decimal(t - (total - length))
        return 1 - (gone / length).sqrt() if gone > 0 else Decimal(1)
    if name == "multistep":
        milestones = [p.get("first", 0.5), p.get("second", 0.75), p.get("third", 1.0)]
        met = [m for m in milestones if m <= (t - warmup) / (total - warmup)]
        return Decimal(p.get("gamma", 0.1)) ** len(met)
    raise ValueError(name)


def schedule(name: str, t: int, total: int | None = None, warmup: int = 0, **p: float) -> Decimal:
    endless = name in ENDLESS
    if not endless and total is not None and t >= total:
        return Decimal(0)
    if t < warmup:
        return Decimal(t + 1) / warmup
    return shape(name, t, total, warmup, **p)
