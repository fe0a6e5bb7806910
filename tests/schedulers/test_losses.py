"""Any loss: every one of torch's, and those that people write themselves, each as they write it."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import glyder

from .problems import batch, same
from .two_lines import EACH, OPTIMIZERS, POOL, Task, learns, net, plain_step, well

CLASSES, ROWS = 4, 32


class Data:
    """Batch t of the pool: inputs, and what a fixed teacher makes of them."""

    def __init__(self, t: int) -> None:
        self.x, self.label = batch(t % POOL)
        teacher = torch.randn(6, CLASSES, generator=torch.Generator().manual_seed(7))
        self.logits = self.x @ teacher
        self.values = (self.logits / 2).tanh()
        self.bits = (self.logits > 0).float()
        self.signs = 2 * self.bits - 1
        self.sides = self.signs[:, 0]
        self.noisy = self.x + 0.3 * torch.randn(self.x.shape, generator=torch.Generator().manual_seed(t % POOL))
        self.kinds = [[k for k, bit in enumerate(row) if bit] for row in self.bits.tolist()]

    @property
    def listed(self) -> Tensor:
        """Classes of each row, ended by -1."""
        return torch.tensor([row + [-1] * (CLASSES - len(row)) for row in self.kinds])


DATA = [Data(t) for t in range(POOL)]

Form = Callable[[nn.Module, Data], Tensor]


def spread(out: Tensor) -> Tensor:
    """A variance for each value, of at least a tenth."""
    return 0.1 + F.softplus(out)


def pair(model: nn.Module, d: Data) -> tuple[Tensor, Tensor]:
    """Embeddings of a row and of the next one; rows of one label belong together."""
    out = model(d.x)
    return out, out.roll(1, 0)


def together(d: Data) -> Tensor:
    return 2.0 * (d.label == d.label.roll(1, 0)) - 1


def near_and_far(model: nn.Module, d: Data) -> tuple[Tensor, Tensor, Tensor]:
    return model(d.x), model(d.noisy), model(d.x.roll(1, 0))


def spoken(model: nn.Module, d: Data) -> Tensor:
    """Each row's values as the frames of eight words of one or two letters."""
    frames = model(d.x).reshape(8, 4, CLASSES).transpose(0, 1).repeat_interleave(2, 0)
    letters = d.label.reshape(8, 4)[:, :2] % (CLASSES - 1) + 1
    return F.ctc_loss(frames.log_softmax(2), letters, torch.full((8,), 8), torch.full((8,), 2))


def ranked(model: nn.Module, d: Data) -> Tensor:
    one, other = model(d.x)[:, 0], model(d.noisy)[:, 0]
    return F.margin_ranking_loss(one, other.roll(1, 0), torch.sign(d.values - d.values.roll(1, 0))[:, 0], margin=0.2)


TORCH: dict[str, tuple[float, Form]] = {
    "binary_cross_entropy": (0.4, lambda m, d: F.binary_cross_entropy(m(d.x).sigmoid(), d.bits)),
    "binary_cross_entropy_with_logits": (0.4, lambda m, d: F.binary_cross_entropy_with_logits(m(d.x), d.bits)),
    "cosine_embedding_loss": (0.4, lambda m, d: F.cosine_embedding_loss(*pair(m, d), together(d))),
    "cross_entropy": (0.4, lambda m, d: F.cross_entropy(m(d.x), d.label)),
    "ctc_loss": (0.6, spoken),
    "gaussian_nll_loss": (0.5, lambda m, d: F.gaussian_nll_loss(
        m(d.x)[:, :2], d.values[:, :2], spread(m(d.x)[:, 2:])) - math.log(0.1) / 2),
    "hinge_embedding_loss": (0.7, lambda m, d: F.hinge_embedding_loss(
        F.pairwise_distance(*pair(m, d)), together(d), margin=2.0)),
    "huber_loss": (0.3, lambda m, d: F.huber_loss(m(d.x), 5 * d.values)),
    "kl_div": (0.4, lambda m, d: F.kl_div(
        m(d.x).log_softmax(1), d.logits.log_softmax(1), reduction="batchmean", log_target=True)),
    "l1_loss": (0.5, lambda m, d: F.l1_loss(m(d.x), d.values)),
    "linear_cross_entropy": (0.4, lambda m, d: F.linear_cross_entropy(
        m[1](m[0](d.x)), m[2].weight, d.label, linear_bias=m[2].bias)),
    "margin_ranking_loss": (0.6, ranked),
    "mse_loss": (0.3, lambda m, d: F.mse_loss(m(d.x), d.values)),
    "multi_margin_loss": (0.4, lambda m, d: F.multi_margin_loss(m(d.x), d.label)),
    "multilabel_margin_loss": (0.4, lambda m, d: F.multilabel_margin_loss(m(d.x), d.listed)),
    "multilabel_soft_margin_loss": (0.4, lambda m, d: F.multilabel_soft_margin_loss(m(d.x), d.bits)),
    "nll_loss": (0.4, lambda m, d: F.nll_loss(m(d.x).log_softmax(1), d.label)),
    "poisson_nll_loss": (0.3, lambda m, d: F.poisson_nll_loss(m(d.x), d.values.exp()) - F.poisson_nll_loss(
        d.values, d.values.exp())),
    "smooth_l1_loss": (0.3, lambda m, d: F.smooth_l1_loss(m(d.x), d.values, beta=0.5)),
    "soft_margin_loss": (0.4, lambda m, d: F.soft_margin_loss(m(d.x), d.signs)),
    "triplet_margin_loss": (0.3, lambda m, d: F.triplet_margin_loss(*near_and_far(m, d))),
    "triplet_margin_with_distance_loss": (0.4, lambda m, d: F.triplet_margin_with_distance_loss(
        *near_and_far(m, d), distance_function=lambda a, b: 1 - F.cosine_similarity(a, b), margin=0.5)),
}  # fmt: skip
"""By name: the share of the loss that may be left, and the loss as it is written. 0 is the least of each."""


def same_parts(p: Tensor, q: Tensor) -> Tensor:
    """Dice: 1 - 2|P and Q|/(|P| + |Q|), class by class, smoothed by 1."""
    return 1 - ((2 * (p * q).sum(0) + 1) / (p.sum(0) + q.sum(0) + 1)).mean()


def focal(m: nn.Module, d: Data) -> Tensor:
    surprise = F.cross_entropy(m(d.x), d.label, reduction="none")
    return ((1 - (-surprise).exp()) ** 2 * surprise).mean()


def distilled(m: nn.Module, d: Data, temperature: float = 4.0) -> Tensor:
    student, teacher = m(d.x) / temperature, d.logits / temperature
    soft = F.kl_div(student.log_softmax(1), teacher.softmax(1), reduction="batchmean") * temperature**2
    return 0.8 * soft + 0.2 * F.cross_entropy(m(d.x), d.label)


def two_views(m: nn.Module, d: Data) -> Tensor:
    """InfoNCE over two passes of one encoder, at a temperature of 0.2."""
    one, other = F.normalize(m(d.x), dim=1), F.normalize(m(d.noisy), dim=1)
    return F.cross_entropy(one @ other.T / 0.2, torch.arange(ROWS))


def smoothed(m: nn.Module, d: Data, by: float = 0.1) -> Tensor:
    rest = by / CLASSES
    right = 1 - by + rest
    least = -right * math.log(right) - (CLASSES - 1) * rest * math.log(rest)
    return F.cross_entropy(m(d.x), d.label, label_smoothing=by) - least


def steep(m: nn.Module, d: Data) -> Tensor:
    """A penalty on the gradient by the inputs, as in WGAN-GP: the backward pass goes through another one."""
    with torch.enable_grad():
        x = d.x.clone().requires_grad_()
        out = m(x)
        (slopes,) = torch.autograd.grad(out.sum(), x, create_graph=True)
        return F.mse_loss(out, d.values) + 0.1 * (slopes.norm(dim=1) - 1).square().mean()


def pinball(m: nn.Module, d: Data, quantile: float = 0.7) -> Tensor:
    off = d.values - m(d.x)
    return torch.maximum(quantile * off, (quantile - 1) * off).mean()


OWN: dict[str, tuple[float, Form]] = {
    "focal": (0.4, focal),
    "dice": (0.4, lambda m, d: same_parts(m(d.x).sigmoid(), d.bits)),
    "dice and cross-entropy": (0.4, lambda m, d: same_parts(
        m(d.x).sigmoid(), d.bits) + F.binary_cross_entropy_with_logits(m(d.x), d.bits)),
    "distillation": (0.5, distilled),
    "two views": (0.8, two_views),
    "label smoothing": (0.5, smoothed),
    "gradient penalty": (0.5, steep),
    "pinball": (0.5, pinball),
    "of transformed outputs": (0.3, lambda m, d: F.mse_loss(m(d.x).exp(), d.values.exp())),
    "penalty on weights": (0.5, lambda m, d: F.mse_loss(m(d.x), d.values) + 1e-3 * sum(
        p.abs().sum() for p in m.parameters())),
}  # fmt: skip
"""As TORCH, written by hand."""


def task_of(form: Form, share: float) -> Task:
    model = net(CLASSES)
    return Task(list(model.parameters()), lambda t: form(model, DATA[t % POOL]), share)


def test_every_loss_of_torch_is_in_the_table() -> None:
    """Those of this version; later ones may be missing in earlier versions."""
    of_torch = {name for name in dir(F) if name.endswith(("_loss", "entropy", "kl_div", "with_logits"))}
    assert of_torch <= TORCH.keys()


@EACH
@pytest.mark.parametrize("name", TORCH)
def test_of_torch(name: str, make: Any) -> None:
    if not hasattr(F, name):
        pytest.skip(f"torch {torch.__version__} has no {name}")
    share, form = TORCH[name]
    learns(task_of(form, share), make)


@EACH
@pytest.mark.parametrize("name", OWN)
def test_written_by_hand(name: str, make: Any) -> None:
    share, form = OWN[name]
    learns(task_of(form, share), make)


# ---------------------------------------------------------------- with more than one net, or noise of its own


def autoencoder() -> Task:
    """Variational: what is encoded is drawn anew in every pass. The inputs lie in a plane."""
    encoder, decoder = net(4), net(6, inputs=2)
    plane = torch.randn(2, 6, generator=torch.Generator().manual_seed(3))

    def loss(t: int) -> Tensor:
        x = DATA[t % POOL].x[:, :2] @ plane
        mean, log_variance = encoder(x).chunk(2, 1)
        seen = decoder(mean + (log_variance / 2).exp() * torch.randn_like(mean))
        prior = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(1)
        return ((seen - x).square().sum(1) + 0.1 * prior).mean()

    return Task([*encoder.parameters(), *decoder.parameters()], loss, 0.6)


def policy() -> Task:
    """PPO: four updates of every set of actions, drawn by the policy as it was; the reward is 1 for the right one."""
    model = net(CLASSES + 1)
    old = copy.deepcopy(model)

    def loss(t: int) -> Tensor:
        d = DATA[t // 4 % POOL]
        if t % 4 == 0:
            old.load_state_dict(model.state_dict())
        with torch.no_grad():
            before = old(d.x)[:, :CLASSES].log_softmax(1)
            acts = torch.multinomial(before.exp(), 8, replacement=True, generator=torch.Generator().manual_seed(t // 4))
        reward = (acts == d.label[:, None]).float()
        out = model(d.x)
        logs, value = out[:, :CLASSES].log_softmax(1), out[:, CLASSES:]
        gain = reward - value.detach()
        ratio = (logs.gather(1, acts) - before.gather(1, acts)).exp()
        clipped = torch.minimum(ratio * gain, ratio.clamp(0.8, 1.2) * gain).mean()
        return -clipped + 0.5 * (value - reward).square().mean() + 0.01 * (logs.exp() * logs).sum(1).mean()

    def missed() -> float:
        rates = [model(d.x)[:, :CLASSES].softmax(1).gather(1, d.label[:, None]).mean() for d in DATA]
        return 1 - sum(rates).item() / POOL

    return Task(list(model.parameters()), loss, 0.7, missed)


@EACH
@pytest.mark.parametrize("task", [autoencoder, policy])
def test_noisy(task: Callable[[], Task], make: Any) -> None:
    learns(task(), make)


class Uncertainty(nn.Module):
    """The weights of several losses, learned with the net."""

    def __init__(self) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(torch.zeros(2))

    def forward(self, losses: Tensor) -> Tensor:
        return (losses * (-self.log_variance).exp() + self.log_variance / 2).sum()


def weighted() -> tuple[Task, list[dict[str, Any]]]:
    model, criterion = net(CLASSES + 2), Uncertainty()

    def losses(d: Data) -> Tensor:
        out = model(d.x)
        return torch.stack([F.cross_entropy(out[:, :CLASSES], d.label), F.mse_loss(out[:, CLASSES:], d.values[:, :2])])

    task = Task(
        [*model.parameters(), criterion.log_variance],
        lambda t: criterion(losses(DATA[t % POOL])),
        0.4,
        lambda: sum(losses(d).sum().item() for d in DATA),
    )
    return task, [{"params": model.parameters()}, {"params": criterion.parameters(), "weight_decay": 0.0}]


@EACH
def test_parameters_outside_of_the_model(make: Any) -> None:
    task, groups = weighted()
    learns(task, lambda _: make(groups))
    assert task.parameters[-1].abs().min() > 1e-3, "they were learned, too"


class Adversaries:
    """A generator that is to find a cloud of points, and a discriminator whose criterion is called twice."""

    def __init__(self) -> None:
        self.generator, self.discriminator = net(2, inputs=2), net(1, inputs=2)
        self.centre = torch.tensor([2.0, -1.0])

    def points(self, t: int) -> tuple[Tensor, Tensor]:
        draw = torch.Generator().manual_seed(t)
        real, noise = torch.randn(2, ROWS, 2, generator=draw)
        return self.centre + 0.5 * real, self.generator(noise)

    def judge(self, t: int) -> Tensor:
        """With a penalty on its slope at real points, without which the two go round in circles at any rate."""
        real, made = self.points(t)
        right, wrong = self.discriminator(real.requires_grad_()), self.discriminator(made.detach())
        (slope,) = torch.autograd.grad(right.sum(), real, create_graph=True)
        criterion = F.binary_cross_entropy_with_logits
        fooled = criterion(right, torch.ones_like(right)) + criterion(wrong, torch.zeros_like(wrong))
        return fooled + slope.square().sum(1).mean()

    def fool(self, t: int) -> Tensor:
        told = self.discriminator(self.points(t)[1])
        return F.binary_cross_entropy_with_logits(told, torch.ones_like(told))

    def off(self) -> float:
        with torch.no_grad():
            return (torch.cat([self.points(1000 + t)[1] for t in range(POOL)]).mean(0) - self.centre).norm().item()


@pytest.mark.parametrize(
    "make", [lambda p: torch.optim.AdamW(p, betas=(0.5, 0.999)), torch.optim.SGD], ids=["adamw", "sgd"]
)
def test_two_nets_against_each_other(make: Any) -> None:
    """Two optimizers and two schedulers, for 120 updates."""
    both = Adversaries()
    nets, begun = (both.discriminator, both.generator), both.off()
    optimizers = [make(n.parameters()) for n in nets]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedulers = [glyder.GlyderLR(o, total_steps=120) for o in optimizers]
        for t in range(120):
            plain_step(optimizers[0], both.judge(t))
            plain_step(optimizers[1], both.fool(t))
    for scheduler, n in zip(schedulers, nets, strict=True):
        well(scheduler, n.parameters(), 120)
    assert both.off() < 0.4 * begun


# ---------------------------------------------------------------- nothing but a closure


@pytest.mark.parametrize("make", [OPTIMIZERS["adamw"], OPTIMIZERS["momentum"]], ids=["adamw", "momentum"])
def test_nothing_but_a_closure(make: Any) -> None:
    """To the bit what it is without one."""
    ends = []
    for closing in (False, True):
        torch.manual_seed(0)
        task = task_of(OWN["focal"][1], 0.4)

        def step(optimizer: torch.optim.Optimizer, t: int, task: Task = task) -> None:
            def closure() -> Tensor:
                optimizer.zero_grad()
                loss = task.loss(t)
                loss.backward()
                return loss

            optimizer.step(closure)

        scheduler = learns(task, make, step if closing else None)
        ends.append([[p.detach() for p in task.parameters], scheduler.peak_lr, scheduler.history.tolist()])
    assert same(*ends)


# ---------------------------------------------------------------- seldom met


@pytest.mark.parametrize("seed", range(4))
def test_a_hinge_that_hardly_bends_loses_no_run(seed: int) -> None:
    """One encoder called three times, with momentum."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 8))
    loss = nn.TripletMarginLoss()
    learns(
        Task(list(model.parameters()), lambda t: loss(*near_and_far(model, DATA[t % POOL])), 0.25),
        OPTIMIZERS["momentum"],
    )


@EACH
@pytest.mark.parametrize("gain", [10, 30])
def test_a_classifier_that_is_very_sure_of_itself(gain: int, make: Any) -> None:
    """Most gradients are 0 in single precision; one label in sixteen is wrong, and loses no more than before."""
    model = net(CLASSES)
    plain = torch.optim.Adam(model.parameters(), lr=0.03)
    for t in range(60):
        plain_step(plain, F.cross_entropy(model(DATA[t % POOL].x), DATA[t % POOL].label))
    with torch.no_grad():
        for p in model[2].parameters():
            p.mul_(gain)

    def loss(t: int) -> Tensor:
        label = DATA[t % POOL].label.clone()
        label[::16] = (label[::16] + 1) % CLASSES
        return F.cross_entropy(model(DATA[t % POOL].x), label)

    learns(Task(list(model.parameters()), loss, 1.0), make)


@pytest.mark.parametrize("updates", [500, 1000])
def test_embeddings_that_leave_a_saddle_are_not_thrown_beyond_it(updates: int) -> None:
    """A recommender's pairwise loss, tables drawn from N(0, 0.01): on a held-out set it ends where the best of five
    peaks does, give or take a tenth, and its loss never rises above that of a model that knows nothing."""

    def run(**options: Any) -> tuple[float, float]:
        draw = torch.Generator().manual_seed(0)
        taste = torch.randn(200, 4, generator=draw) @ torch.randn(4, 150, generator=draw)
        users, items = (torch.randn(n, 16, generator=draw).mul(0.01).requires_grad_() for n in (200, 150))

        def loss(count: int) -> Tensor:
            user = torch.randint(200, (count,), generator=draw)
            a, b = torch.randint(150, (2, count), generator=draw)
            better = taste[user, a] > taste[user, b] + 0.5 * torch.randn(count, generator=draw)
            liked, other = torch.where(better, a, b), torch.where(better, b, a)
            return -F.logsigmoid((users[user] * (items[liked] - items[other])).sum(-1)).mean()

        optimizer = torch.optim.Adam([users, items])
        glyder.GlyderLR(optimizer, total_steps=updates, **options)
        highest = 0.0
        for _ in range(updates):
            optimizer.zero_grad()
            now = loss(256)
            now.backward()
            optimizer.step()
            highest = max(highest, now.item())
        return loss(4000).item(), highest

    tuned = min(run(peak_lr=10 ** (k / 2), warmup=updates // 20)[0] for k in range(-6, -1))
    ours, highest = run()
    assert ours <= 1.1 * tuned
    assert highest < 0.75  # log 2, and a batch's noise
