"""Rules where the answer is known: quadratics, first rates, divergences."""

import itertools
import math
import random

import numpy as np
import pytest

from glyder import _core


class Quadratic:
    """f(x) = x^T H x/2, and gradient descent on it with the statistics that a measurement would give."""

    def __init__(self, seed: int, n: int = 7) -> None:
        rng = np.random.default_rng(seed)
        self.h = rng.uniform(0.1, 10, n)
        self.x = rng.standard_normal(n)

    def loss(self) -> float:
        return 0.5 * float(self.x @ (self.h * self.x))

    def gradient(self) -> np.ndarray:
        return self.h * self.x

    def step(self, lr: float, direction: np.ndarray, behind: bool = True) -> dict[str, float]:
        delta, before = lr * direction, self.gradient()
        self.x = self.x - delta
        return {
            "slope": float((self.gradient() if behind else before) @ delta),
            "behind": float(behind),
            "curvature": float(delta @ (self.h * delta)),
            "dd": float(delta @ delta),
            "lr": lr,
            "young": 1.0,
        }


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("lr", [1e-6, 1e-2, 1.0])
@pytest.mark.parametrize("behind", [False, True])
def test_latest_measurement_is_exact_line_search(seed: int, lr: float, behind: bool) -> None:
    """sigma = 1, memory = 1: the minimiser along d, <grad, d>/(d^T H d), whatever rate the measurement was made at.

    And wherever the slope was taken, before the update or after it.
    """
    quadratic = Quadratic(seed)
    g = quadratic.gradient()
    rate, action, _ = _core.Rule("glyder", sigma=1, memory=1).update(**quadratic.step(lr, g, behind))
    assert action == "keep"
    assert rate == pytest.approx(float(g @ g) / float(g @ (quadratic.h * g)), rel=1e-12)


def test_latest_measurement_descends_to_the_bottom() -> None:
    quadratic, rule = Quadratic(0), _core.Rule("glyder", sigma=1, memory=1)
    rate = rule.update(**quadratic.step(1e-3, quadratic.gradient()))[0]
    for _ in range(300):
        rate = rule.update(**quadratic.step(rate, quadratic.gradient()))[0]
    assert quadratic.loss() < 1e-12


def test_sigma_two_leaves_the_loss_as_it_was() -> None:
    """The step of twice the optimum lands at the same height on the other side."""
    quadratic = Quadratic(1)
    x0, g = quadratic.x.copy(), quadratic.gradient()
    before = quadratic.loss()
    rate = _core.Rule("glyder").update(**quadratic.step(1e-4, g))[0]
    quadratic.x = x0
    quadratic.step(rate, g)
    assert quadratic.loss() == pytest.approx(before, rel=1e-9)


@pytest.mark.parametrize("young", [0.1, 0.5, 0.999])
def test_young_buffer_is_corrected(young: float) -> None:
    """A buffer that has gathered the weight w steps w*lr*d: the rate for the full d is w times what it looks like."""
    full, short = Quadratic(2), Quadratic(2)
    g = full.gradient()
    expected = _core.Rule("glyder").update(**full.step(1e-3, g))[0]
    stats = short.step(1e-3, young * g)
    assert _core.Rule("glyder").update(**{**stats, "young": young})[0] == pytest.approx(expected, rel=1e-9)


def test_plain_mean_divides_the_means() -> None:
    """Means apart, divided at the end: slopes 1 and 3, curvatures 1 and 7 give 12/8 and not the mean of ratios."""
    rule = _core.Rule("glyder", sigma=1)
    rule.update(slope=0, behind=1, curvature=1, dd=1, lr=1, young=1)
    assert rule.update(slope=4, behind=1, curvature=7, dd=1, lr=1, young=1)[0] == 12 / 8
    assert rule.state == {"slope": 12, "curvature": 8, "count": 2}


def test_glyder_holds_without_slope_or_curvature() -> None:
    assert _core.Rule("glyder").update(slope=-3, behind=0, curvature=1, dd=1, lr=1, young=1)[1:] == ("skip", "no_slope")
    assert _core.Rule("glyder").update(slope=3, behind=0, curvature=-1, dd=1, lr=1, young=1)[1:] == (
        "skip",
        "no_curvature",
    )
    assert _core.Rule("glyder").update(slope=3, behind=0, curvature=1, dd=0, lr=1, young=1)[1:] == (
        "skip",
        "not_visible",
    )


@pytest.mark.parametrize(("young", "lr"), [(0.0, 1.0), (1.1, 1.0), (-1.0, 1.0), (1.0, 0.0), (1.0, -1.0)])
def test_glyder_takes_no_impossible_scalars(young: float, lr: float) -> None:
    verdict = _core.Rule("glyder").update(slope=1, behind=1, curvature=1, dd=1, lr=lr, young=young)
    assert verdict == (0.0, "skip", "out_of_range")


def scale_of(stats: dict[str, float] | None = None, **config: float) -> float:
    """For a slope of 8 and a curvature of 2 at a rate of 1: eta* = 4, and with a reach of 4 eta_n = 5/(4*5) = 1/4."""
    plain = {"slope": 8.0, "behind": 0.0, "curvature": 2.0, "dd": 4.0, "lr": 1.0, "young": 1.0, "reach": 16.0}
    rate, action, reason = _core.Rule("local_optimum", **{"edge": 1.0} | config).update(
        **plain | {"start": 25.0, "energy": 25.0} | (stats or {})
    )
    assert (action, reason) == ("keep", "kept")
    return rate


def test_scale_between_its_two_limits() -> None:
    # Rounding of pow alone.
    assert scale_of(share=0.0) == pytest.approx(4, rel=1e-15)
    assert scale_of(share=1.0) == pytest.approx(1 / 4, rel=1e-15)
    assert scale_of(share=0.5) == pytest.approx(1, rel=1e-15)
    assert scale_of(share=0.5, sigma=5.0, edge=2.0) == pytest.approx(10, rel=1e-15)


def test_scale_never_passes_a_multiple_of_the_local_optimum() -> None:
    assert scale_of({"start": 1e30}) == 24
    assert scale_of({"start": 1e30}, sigma=0.5, cap=3.0) == 6


def test_scale_from_zero_is_the_local_optimum_alone() -> None:
    assert scale_of({"start": 0.0}, share=1.0) == 4
    assert scale_of({"start": 0.0}, sigma=3.0, cap=0.1) == 12


@pytest.mark.parametrize("slope", [0.0, -8.0, 0.1])
def test_scale_lets_no_measurement_say_more_than_that_its_rate_was_fall_times_too_high(slope: float) -> None:
    assert scale_of({"slope": slope}, share=0.0) == 1 / 4
    assert scale_of({"slope": slope}, share=0.0, fall=8.0) == 1 / 8


def test_scale_takes_slopes_before_and_behind_the_update() -> None:
    assert scale_of({"slope": 6.0, "behind": 1.0}) == scale_of()


@pytest.mark.parametrize(
    "wrong",
    [{"reach": -1.0}, {"start": -1.0}, {"behind": -1.0}, {"energy": 0.0}, {"young": 0.0}, {"lr": 0.0}],
    ids=lambda w: next(iter(w)),
)
def test_scale_takes_no_impossible_scalars(wrong: dict[str, float]) -> None:
    with pytest.raises(AssertionError, match="out_of_range"):
        scale_of(wrong)


WALK = {"relative": 4.0, "growth": 1.0, "energy": 25.0}
"""Steps of length 2 eta in a run that counts as 25 of them: h = 1/sqrt(4*25) = 1/10."""


def test_peak_where_the_cosines_are_zero_from_the_start() -> None:
    """The rate stays where it began, at h 10^-below, and is z."""
    rule = _core.Rule("peak", updates=6, below=0.25, gain=3, share=0.5, sigma=2)
    rate = rule.update(cosine=0.9, lr=1e-6, **WALK)[0]
    assert rate == pytest.approx(0.1 * 10**-0.25, rel=1e-15)
    for _ in range(5):
        assert rule.update(cosine=0.0, lr=rate, **WALK) == (rate, "keep", "rising")
    peak, _, reason = rule.update(cosine=0.0, lr=rate, **WALK)
    assert reason == "found"
    assert peak == pytest.approx(2 * 3 * math.sqrt(rate * 0.1), rel=1e-14)
    assert rule.update(cosine=-1.0, lr=7.0, **WALK) == (peak, "keep", "kept"), "for good"


@pytest.mark.parametrize("cosine", [1e-6, 0.01, 1.0])
def test_peak_rises_by_the_pace_where_all_cosines_agree(cosine: float) -> None:
    rule = _core.Rule("peak", updates=1000, pace=0.05)
    rates = [rule.update(cosine=cosine, lr=1.0, **WALK)[0]]
    for _ in range(30):
        rates.append(rule.update(cosine=cosine, lr=rates[-1], **WALK)[0])
    steps = [math.log10(b / a) for a, b in itertools.pairwise(rates)]
    assert max(steps) == pytest.approx(0.05, rel=1e-12)
    assert min(steps) > 0.04, "means of a few are as good as means of many"
    # a change of sign turns the rate around within a few updates
    for _ in range(6):
        rates.append(rule.update(cosine=-cosine, lr=rates[-1], **WALK)[0])
    assert rates[-1] < rates[-2]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("zero", [0.01, 0.3, 3.0])
def test_peak_finds_the_zero_of_noisy_cosines(seed: int, zero: float) -> None:
    """The noise is a quarter of the signal a decade from the zero; a seventh of a decade is four times the scatter of
    z."""
    rng, rule = random.Random(seed), _core.Rule("peak", share=0, gain=1)
    lr, reason = 1e-5, ""
    while reason != "found":
        cosine = 0.1 * math.tanh(math.log10(zero / lr)) + rng.gauss(0, 0.02)
        lr, _, reason = rule.update(cosine=cosine, lr=lr, **WALK)
    assert abs(math.log10(lr / zero)) < 1 / 7


def test_peak_takes_a_length_of_almost_nothing_for_none() -> None:
    """h at 1/10, and z three decades above: it counts as half a decade below. From zero there is no h at all."""
    for apart, power in ((0.5, 0.5), (2.0, 2.0), (10.0, 3.0)):
        rule = _core.Rule("peak", updates=1, apart=apart, share=0.4, gain=1)
        rule.update(cosine=0, lr=1, **WALK)
        assert rule.update(cosine=0, lr=100, **WALK)[0] == pytest.approx(100 * 10 ** (-0.4 * power), rel=1e-14)
    rule = _core.Rule("peak", updates=1, longest=2, gain=1)
    assert rule.update(cosine=0, lr=100, relative=0, growth=0, energy=25) == (100, "keep", "rising")
    assert rule.update(cosine=0, lr=100, relative=0, growth=0, energy=25)[1:] == ("keep", "found")


def test_peak_rises_no_further_where_parameters_have_grown() -> None:
    """Threefold, their squares ninefold; and falls as ever."""
    rule = _core.Rule("peak", grown=3.0)
    still, grown = WALK | {"growth": 8.9}, WALK | {"growth": 9.1}
    rate = rule.update(cosine=0.5, lr=1.0, **still)[0]
    for _ in range(5):
        rate, last = rule.update(cosine=0.5, lr=rate, **still)[0], rate
        assert rate > last
    for _ in range(5):
        assert rule.update(cosine=0.5, lr=rate, **grown)[0] == rate
    for _ in range(5):
        last = rule.update(cosine=-0.5, lr=rate, **grown)[0]
    assert last < rate


def edge_after(lengths: list[float], **config: float) -> tuple[float, float, str]:
    """(peak, last rate, reason) for gradients of these lengths, from an update that sets the rate on."""
    rule = _core.Rule("edge", **config)
    rate, _, reason = rule.update(gg=1, lr=1, **WALK)
    for length in lengths:
        last = rate
        rate, _, reason = rule.update(gg=length**2, lr=last, **WALK)
        if reason != "rising":
            break
    return rate, last, reason


def test_edge_where_gradients_jump() -> None:
    """Elevenfold is seen at once, ninefold and a single one are let pass; the rate that made it is the edge."""
    options = {
        "gain": 3,
        "share": 0.5,
        "sigma": 2,
        "below": 1,
        "pace": 0.1,
        "pace_total": 0.1,
        "memory": 1,
        "sudden": 1,
    }
    assert edge_after([1.0] * 10 + [9.0] + [1.0] * 90, **options)[2] == "no_edge"
    peak, last, reason = edge_after([1.0] * 10 + [11.0], **options)
    assert reason == "found"
    # sums of ten steps of a tenth of a decade
    assert last == pytest.approx(0.1 * 10**-1 * 10 ** (0.1 * 10), rel=1e-12)
    assert peak == pytest.approx(2 * 3 * math.sqrt(last * 0.1), rel=1e-12)


def test_edge_where_the_search_begins_above_it() -> None:
    """Gradients that are longer than the first ones at once: again from a lower rate, but not for ever."""
    rule = _core.Rule("edge", below=1, lower=2, tries=3)
    rate, _, _ = rule.update(gg=1, lr=1, **WALK)
    for _ in range(2):
        before = rate
        rate, _, reason = rule.update(gg=25, lr=before, **WALK)
        assert (rate, reason) == (pytest.approx(before / 100, rel=1e-14), "restarted")
    assert rule.update(gg=25, lr=rate, **WALK)[2] == "found"


@pytest.mark.parametrize("trend", [0.7, 0.9, 1.0, 1.05])
def test_edge_where_gradients_never_grow_enough(trend: float) -> None:
    """Falling, level, or growing by less than `grown` decades over all updates: the search ends by itself."""
    updates = 20
    _, last, reason = edge_after([trend**t for t in range(100)], longest=updates, below=1, pace=0.1, pace_total=0.1)
    assert reason == "no_edge"
    assert last == pytest.approx(0.1 * 10**-1 * 10 ** (0.1 * (updates - 1)), rel=1e-12)


def test_edge_is_not_met_by_noise() -> None:
    """Lengths that scatter by a fifth: of a thousand searches none ends early."""
    rng = random.Random(0)
    ends = {edge_after([math.exp(rng.gauss(0, 0.2)) for _ in range(50)])[2] for _ in range(1000)}
    assert ends == {"no_edge"}


@pytest.mark.parametrize("name", ["peak", "edge"])
@pytest.mark.parametrize(
    "wrong", [{"relative": -1.0}, {"energy": 0.0}, {"energy": -1.0}, {"lr": 0.0}, {"lr": -1.0}], ids=str
)
def test_searches_take_no_impossible_scalars(name: str, wrong: dict[str, float]) -> None:
    rule = _core.Rule(name)
    stats = dict.fromkeys(rule.needs, 1.0) | wrong
    before = rule.state
    assert rule.update(**stats) == (0.0, "skip", "out_of_range")
    assert rule.state == before


@pytest.mark.parametrize("name", ["peak", "edge"])
@pytest.mark.parametrize("size", [1e-300, 1e300])
def test_searches_survive_rates_out_of_range(name: str, size: float) -> None:
    """What would overflow or vanish is refused, and the state can be saved and loaded."""
    rule, fresh = _core.Rule(name), _core.Rule(name)
    for t in range(200):
        stats = {"relative": 0.0, "growth": 1.0, "lr": size, "energy": 1.0, "cosine": (-1.0) ** t, "gg": 1.0}
        rate, action, _ = rule.update(**{need: stats[need] for need in rule.needs})
        assert (action == "skip") == (rate == 0)
        fresh.load(rule.state)


def first(**stats: float) -> float:
    rate: float = _core.Rule("start").update(**{"dd": math.nan, "previous": math.nan, **stats})[0]
    return rate


def test_first_rate_aims_at_the_visible_displacement() -> None:
    """||delta|| = 1e-4 ||x|| for the longer of the two kinds of direction."""
    assert first(xx=9e4, gg=100.0**2, n=400) == pytest.approx(1e-4 * 300 / 100)
    assert first(xx=9e4, gg=1e-12, n=400) == pytest.approx(1e-4 * 300 / 20)
    assert first(xx=9e4, gg=0, n=400) == pytest.approx(1e-4 * 300 / 20)


def test_first_rate_where_all_parameters_are_zero() -> None:
    assert first(xx=0, gg=0, n=400) == pytest.approx(1e-4)
    assert first(xx=0, gg=1e4, n=400) == pytest.approx(1e-4 * 20 / 100)


@pytest.mark.parametrize("xx", [0.0, 5e-324, 1e-300, 1e308])
@pytest.mark.parametrize("gg", [0.0, 5e-324, 1e-300, 1e308])
@pytest.mark.parametrize("n", [1.0, 1e12])
def test_first_rate_is_never_zero(xx: float, gg: float, n: float) -> None:
    assert 2.0**-1022 <= first(xx=xx, gg=gg, n=n) < math.inf


@pytest.mark.parametrize(("dtype", "visible"), [(np.float32, 1e-4), (np.float16, 1e-2)])
@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1.0, 1e12])
def test_start_gets_to_a_visible_displacement(dtype: type, visible: float, scale: float) -> None:
    """Whatever the length of the direction, a few updates of a rounding optimizer are enough."""
    rng = np.random.default_rng(0)
    x: np.ndarray = rng.standard_normal(1000).astype(dtype)
    d = scale * rng.standard_normal(1000)
    rule = _core.Rule("start", visible=visible)
    xx, dd, rate = float(x.astype(float) @ x.astype(float)), 0.0, 0.0
    for _ in range(40):
        rate, action, reason = rule.update(xx=xx, gg=float(d @ d), n=x.size, dd=dd, previous=rate)
        assert action == "keep"
        if reason == "kept":
            break
        new: np.ndarray = (x.astype(float) - rate * d).astype(dtype)
        dd = float(((x.astype(float) - new.astype(float)) ** 2).sum())
    assert reason == "kept"
    assert 0.1 * visible <= math.sqrt(dd / xx) <= 10 * visible


def test_start_waits_for_a_gradient() -> None:
    rule = _core.Rule("start")
    rate = rule.update(xx=1, gg=0, n=1, dd=0, previous=0)[0]
    for _ in range(1000):
        assert rule.update(xx=1, gg=0, n=1, dd=0, previous=rate) == (rate, "keep", "no_gradient")


def test_growth_without_a_previous_rate_is_free() -> None:
    for previous in (0.0, 1e-309, math.nan, math.inf):
        assert _core.Rule("growth").update(rate=5.0, previous=previous) == (5.0, "keep", "kept")


def spike_after(norms: list[float], hold: float = 0.0) -> list[float]:
    rule = _core.Rule("spike")
    return [rule.update(rate=1.0, gg=norm**2, hold=hold)[0] for norm in norms]


def test_spike_limits_to_the_usual_length() -> None:
    assert spike_after([1.0] * 40 + [2.0, 1e6])[39:] == pytest.approx([1.0, 0.75, 1.5e-6], rel=0.1)


def test_spike_holds_the_rate_down_as_long_as_momentum_holds_the_gradient() -> None:
    """1 - f falls as beta^t, also over gradients of zero, and vanishes; the next spike starts from there."""
    after = spike_after([1.0] * 40 + [1e6] + [0.0] * 5 + [1.0] * 500 + [2.0], hold=0.9)
    # 1e-12: 40 products, each within a rounding
    assert after[40:80] == pytest.approx([1 - 0.9**k * (1 - 1.5e-6) for k in range(40)], rel=1e-12)
    assert after[-2] == 1.0
    rule = _core.Rule("spike")
    for norm in [1.0] * 40 + [1e6] + [1.0] * 500:
        rule.update(rate=1.0, gg=norm**2, hold=0.9)
    assert rule.state["less"] == 0, "forgotten for good, not small"
    # 1e-3: the usual length, of a memory of 20, is still 1e-5 above 1
    assert after[-1] == pytest.approx(0.75, rel=1e-3)


def test_a_held_spike_outlives_its_history() -> None:
    """Norms that are a thousand times longer for good become the history after 20; from there the rate comes back."""
    after = spike_after([1.0] * 40 + [1e3] * 60, hold=0.9)
    usual = next(t for t in range(41, 100) if after[t] > after[t - 1] * 1.5)
    assert usual <= 61
    for t in range(usual, 100):
        # 1e-9: what is held is 1 - f, so that a small f has lost digits
        assert after[t] == pytest.approx(1 - 0.9 ** (t - usual + 1) * (1 - after[usual - 1]), rel=1e-9)


@pytest.mark.parametrize("hold", [-0.1, 1.0, 2.0])
def test_spike_takes_no_impossible_hold(hold: float) -> None:
    assert _core.Rule("spike").update(rate=1, gg=1, hold=hold) == (0.0, "skip", "out_of_range")


def test_spike_holds_nothing_that_is_not_finite() -> None:
    assert _core.Rule("spike").update(rate=1, gg=1, hold=math.nan)[1] == "skip"


def test_spike_leaves_gradients_of_zero_out() -> None:
    norms = [math.exp(random.Random(t).gauss(0, 0.5)) for t in range(100)]
    zeros = [0.0] * 200
    assert spike_after(zeros + norms) == [1.0] * 200 + spike_after(norms)
    assert spike_after(norms + zeros + norms) == spike_after(norms)[:100] + [1.0] * 200 + spike_after(norms * 2)[100:]


@pytest.mark.parametrize("ratio", [1e-30, 1e-12, 1e-3, 0.1, 0.4, 2.5, 10.0, 1e3, 1e12, 1e30])
@pytest.mark.parametrize("before", [1, 5, 10, 1000])
def test_spike_follows_a_lasting_change(ratio: float, before: int) -> None:
    """After the memory of 20 updates nothing is limited, and after the memory of a mean, 60, a spike is seen again."""
    after = spike_after([1.0] * before + [ratio] * 60 + [10 * ratio])[before:]
    assert after[20:60] == [1.0] * 40
    assert after[60] == pytest.approx(0.15, rel=0.15)


def test_spike_survives_a_tiny_first_gradient() -> None:
    assert spike_after([1e-12] + [1.0] * 60)[7:] == [1.0] * 54


def test_spike_does_not_make_room_for_the_next() -> None:
    """Single spikes are no lasting change, however often they come."""
    after = spike_after(([1.0] * 10 + [1e6]) * 30)
    assert max(after[10::11]) < 5e-6
    assert set(after[:10] + after[11:21]) == {1.0}


def back_off_after(norms: list[float], **config: float) -> list[float]:
    rule = _core.Rule("back_off", **config)
    return [rule.update(rate=1.0, gg=norm**2)[0] for norm in norms]


def test_back_off_leaves_an_ordinary_run_alone() -> None:
    rng = random.Random(0)
    norms = [math.exp(rng.gauss(0, 0.5)) * (1 + 5 * t / 2000) for t in range(2000)]
    assert set(back_off_after(norms)) == {1.0}


def test_back_off_leaves_single_outliers_alone() -> None:
    assert set(back_off_after(([1.0] * 30 + [1e6]) * 10)) == {1.0}


def test_back_off_never_acts_without_history() -> None:
    assert set(back_off_after([1e3**t for t in range(10)])) == {1.0}


def test_back_off_acts_on_a_divergence_and_rests() -> None:
    """Norms that double at every update: on from the third doubling or so, then every rest + 1."""
    factors = back_off_after([1.0] * 30 + [2.0**t for t in range(1, 40)])
    drops = [t for t in range(1, len(factors)) if factors[t] < factors[t - 1]]
    assert drops[0] < 30 + 8
    assert {b - a for a, b in itertools.pairwise(drops)} == {2}
    assert all(factors[t] == factors[t - 1] / 2 for t in drops)


@pytest.mark.parametrize("growth", [1.05, 1.1, 1.3])
def test_back_off_on_a_slow_divergence(growth: float) -> None:
    """The reference rises by log(4)/20 an update, which a slower divergence takes along, and by log 2 at each halving,
    which makes up for the rest of a faster one."""
    updates = 400
    factor = back_off_after([1.0] * 30 + [growth**t for t in range(updates)])[-1]
    most = (updates * math.log(growth) - math.log(4)) / math.log(2) + 1
    # 3: the updates of patience and rest, in which the norm grows by less than a halving each
    least = (updates * (math.log(growth) - math.log(4) / 20) - math.log(4)) / math.log(2) - 3
    assert least <= -math.log2(factor) <= (most if least > 0 else 0)


def test_back_off_gets_used_to_a_new_level() -> None:
    factors = back_off_after([1.0] * 100 + [100.0] * 1000)
    assert 1 / 64 <= factors[-1] <= 1 / 4
    assert factors[-1] == factors[200]


def test_back_off_counts_what_is_not_finite() -> None:
    rule = _core.Rule("back_off")
    for gg in (math.nan, math.inf, -1.0):
        assert rule.update(rate=1.0, gg=gg) == (0.0, "skip", "not_finite")
    assert rule.state["bad"] == 3
    assert rule.state["count"] == 0
