"""Any model: what it returns, of how many parts it is, in what precision, and in what state training finds it."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import glyder

from .problems import batch, same
from .two_lines import EACH, OPTIMIZERS, POOL, UPDATES, Task, learns, net, plain_step, well

pytestmark = pytest.mark.filterwarnings("error::glyder.GlyderWarning")

CLASSES = 4

Batch = tuple[Tensor, Tensor]

BATCHES: list[Batch] = [batch(t) for t in range(POOL)]


def rounds(parameters: list[Tensor], loss: Callable[[Batch], Tensor], share: float = 0.4) -> Task:
    """The loss of one batch after the other."""
    return Task(parameters, lambda t: loss(BATCHES[t % POOL]), share)


def ended(task: Task, make: Any, step: Any = None) -> list[Any]:
    """Everything that a run ended with."""
    scheduler = learns(task, make, step)
    assert scheduler.cost[0] == 0
    return [[p.detach() for p in task.parameters], scheduler.peak_lr, scheduler.history.tolist()]


def classify(model: nn.Module, share: float = 0.4) -> Task:
    return rounds(list(model.parameters()), lambda b: F.cross_entropy(model(b[0]), b[1]), share)


# ---------------------------------------------------------------- what a model returns


@dataclass
class Output:
    logits: Tensor
    loss: Tensor | None = None


class Returning(nn.Module):
    """The same net, whose outputs come in one form or another."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.net, self.form = net(CLASSES), form

    def forward(self, x: Tensor, y: Tensor) -> Any:
        logits = self.net(x)
        loss = F.cross_entropy(logits, y)
        return {
            "logits": logits,
            "loss": loss,
            "tuple": (logits, loss),
            "dict": {"hidden": x, "logits": logits},
            "dataclass": Output(logits, loss),
        }[self.form]


READ: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "loss": lambda out, y: out,
    "tuple": lambda out, y: out[1],
    "dict": lambda out, y: F.cross_entropy(out["logits"], y),
    "dataclass": lambda out, y: out.loss,
}
"""The loss, out of what the model returns."""


@EACH
@pytest.mark.parametrize("form", READ)
def test_what_a_model_returns_changes_no_bit(form: str, make: Any) -> None:
    """As where it returns logits, and the loss is taken outside."""
    ends = []
    for kind, read in (("logits", F.cross_entropy), (form, READ[form])):
        torch.manual_seed(0)
        model = Returning(kind)
        ends.append(ended(rounds(list(model.parameters()), lambda b, m=model, r=read: r(m(*b), b[1])), make))
    assert same(*ends)


class Heads(nn.Module):
    """Two heads on a trunk, one of them for half of the batch only."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.label, self.value = net(12), nn.Linear(12, CLASSES), nn.Linear(12, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.trunk(x).relu()
        return self.label(hidden), self.value(hidden[::2])


@EACH
def test_several_heads(make: Any) -> None:
    model = Heads()

    def loss(b: Batch) -> Tensor:
        label, value = model(b[0])
        return F.cross_entropy(label, b[1]) + F.mse_loss(value, b[0][::2, :2])

    learns(rounds(list(model.parameters()), loss, 0.6), make)


# ---------------------------------------------------------------- of how many parts


@EACH
def test_two_modules(make: Any) -> None:
    """One after the other, one module of both, or a list of both: the same bits."""
    ends = []
    for way in ("sequence", "list", "chain"):
        torch.manual_seed(0)
        encoder, decoder = nn.Sequential(nn.Linear(6, 16), nn.Tanh()), nn.Linear(16, CLASSES)
        if way == "sequence":
            parameters = list(nn.Sequential(encoder, decoder).parameters())
        elif way == "list":
            parameters = list(nn.ModuleList([encoder, decoder]).parameters())
        else:
            parameters = list(itertools.chain(encoder.parameters(), decoder.parameters()))
        task = rounds(parameters, lambda b, e=encoder, d=decoder: F.cross_entropy(d(e(b[0])), b[1]))
        ends.append(ended(task, make))
    assert same(ends[0], ends[1])
    assert same(ends[0], ends[2])


@EACH
@pytest.mark.parametrize("shape", [(6, CLASSES), (6 * CLASSES,)], ids=["matrix", "vector"])
def test_a_bare_parameter(shape: tuple[int, ...], make: Any) -> None:
    """No module at all; from zero."""
    w = nn.Parameter(torch.zeros(shape))
    learns(rounds([w], lambda b: F.cross_entropy(b[0] @ w.view(6, CLASSES), b[1]), 0.5), make)


WORDS = 12


class Speech(nn.Module):
    """Predicts the next of a cycle of words; the output's weights are those of the embedding."""

    def __init__(self, tied: str) -> None:
        super().__init__()
        self.table, self.hidden, self.tied = nn.Embedding(WORDS, 8), nn.Linear(8, 8), tied
        if tied == "shared":
            self.out = nn.Linear(8, WORDS, bias=False)
            self.out.weight = self.table.weight

    def forward(self, words: Tensor) -> Tensor:
        hidden = self.hidden(self.table(words)).tanh()
        return self.out(hidden) if self.tied == "shared" else F.linear(hidden, self.table.weight)


@EACH
def test_tied_weights(make: Any) -> None:
    """One parameter under two names is one parameter."""
    words = torch.arange(4 * WORDS).view(POOL, WORDS) * 5 % WORDS
    ends = []
    for tied in ("shared", "used twice"):
        torch.manual_seed(0)
        model = Speech(tied)

        def loss(t: int, model: nn.Module = model) -> Tensor:
            return F.cross_entropy(model(words[t % POOL]), (words[t % POOL] + 1) % WORDS)

        ends.append(ended(Task(list(model.parameters()), loss, 0.5), make))
    assert len(ends[0][0]) == 3
    assert same(*ends)


# ---------------------------------------------------------------- forward passes that cannot be repeated


class Graphs:
    def __init__(self, x: Tensor) -> None:
        self.x = x


class Writing(nn.Module):
    """Writes into the object that it is given, and into the tensor in it."""

    def __init__(self, writes: bool) -> None:
        super().__init__()
        self.first, self.second, self.writes = nn.Linear(6, 12), nn.Linear(12, CLASSES), writes

    def forward(self, data: Graphs) -> Tensor:
        if not self.writes:
            return self.second(F.elu(self.first(data.x * 0.5)))
        data.x.mul_(0.5)
        data.x = F.elu(self.first(data.x))
        data.x = self.second(data.x)
        return data.x


@EACH
def test_a_forward_pass_that_writes_its_input(make: Any) -> None:
    ends = []
    for writes in (False, True):
        torch.manual_seed(0)
        model = Writing(writes)
        task = rounds(
            list(model.parameters()),
            lambda b, m=model: F.cross_entropy(m(Graphs(b[0].clone())), b[1]),
        )
        ends.append(ended(task, make))
    assert same(*ends)


class Noisy(nn.Module):
    """Dropout and noise from a generator of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 16), nn.Linear(16, CLASSES)
        self.generator = torch.Generator().manual_seed(5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x + 0.1 * torch.randn(x.shape, generator=self.generator)).relu()
        kept = torch.rand(x.shape, generator=self.generator) < 0.8
        return self.b(x * kept / 0.8)


@EACH
def test_a_generator_of_its_own_is_drawn_from_by_training_alone(make: Any) -> None:
    states = []
    for scheduled in (False, True):
        model = Noisy()
        task = classify(model, 0.6)
        if scheduled:
            learns(task, make)
        else:
            task.left()
            optimizer = make(model.parameters())
            for t in range(UPDATES):
                plain_step(optimizer, task.loss(t))
            task.left()
        states.append(model.generator.get_state())
    assert same(*states)


# ---------------------------------------------------------------- sparse gradients


class Bag(nn.Module):
    """A label of three words, by the first of them."""

    def __init__(self, sparse: bool) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(20, 6, sparse=sparse), nn.Linear(18, CLASSES)

    def forward(self, words: Tensor) -> Tensor:
        return self.out(self.table(words).flatten(1))


def of_words(model: nn.Module) -> Task:
    def loss(t: int) -> Tensor:
        words = torch.randint(20, (32, 3), generator=torch.Generator().manual_seed(t % POOL))
        return F.cross_entropy(model(words), words[:, 0] % CLASSES)

    return Task(list(model.parameters()), loss, 0.5)


@pytest.mark.parametrize("dense", [torch.optim.AdamW, torch.optim.SGD], ids=["adamw", "sgd"])
def test_sparse_embeddings_beside_dense_layers(dense: Any) -> None:
    """Two optimizers under one scheduler, as SparseAdam takes nothing else."""
    model = Bag(sparse=True)
    task = of_words(model)
    begun = task.left()
    sparse = torch.optim.SparseAdam if dense is torch.optim.AdamW else torch.optim.SGD
    optimizers = [sparse(list(model.table.parameters())), dense(model.out.parameters())]
    scheduler = glyder.GlyderLR(optimizers, total_steps=UPDATES)
    for t in range(UPDATES):
        model.zero_grad()
        task.loss(t).backward()
        assert model.table.weight.grad.is_sparse
        for o in optimizers:
            o.step()
    well(scheduler, task.parameters, UPDATES)
    assert task.left() < task.share * begun


@pytest.mark.parametrize("make", [OPTIMIZERS["sgd"], OPTIMIZERS["momentum"]], ids=["sgd", "momentum"])
def test_sgd_on_sparse_and_dense_gradients_at_once(make: Any) -> None:
    learns(of_words(Bag(sparse=True)), make)


# ---------------------------------------------------------------- precision


@EACH
def test_bf16_parameters(make: Any) -> None:
    model = net(CLASSES).bfloat16()
    parameters = list(model.parameters())
    learns(rounds(parameters, lambda b: F.cross_entropy(model(b[0].bfloat16()).float(), b[1]), 0.5), make)


class Upcast(nn.Module):
    """Returns copies in single precision of what autocast made, as accelerate's wrapper does."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            out = self.inner(x)
        assert out.dtype == torch.bfloat16
        return out.float()


@EACH
def test_autocast_with_upcast_outputs(make: Any) -> None:
    learns(classify(Upcast(net(CLASSES))), make)


@EACH
def test_autocast_and_a_scaler(make: Any) -> None:
    """fp16, with a scale that overflows at first: what the scaler leaves out is no update, and is not warned of."""
    model = net(CLASSES)
    task = classify(model, 0.5)
    begun = task.left()
    optimizer = make(task.parameters)
    scheduler = glyder.GlyderLR(optimizer, total_steps=UPDATES)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24, growth_interval=1000)
    left_out = 0
    for t in range(UPDATES + 12):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = task.loss(t)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(task.parameters, 10.0)
        before = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        left_out += scaler.get_scale() < before
        if scheduler.updates == UPDATES:
            break
    assert left_out >= 1
    well(scheduler, task.parameters, UPDATES)
    assert task.left() < task.share * begun


# ---------------------------------------------------------------- what is done to gradients


@EACH
def test_accumulated_gradients_are_those_of_the_whole_batch(make: Any) -> None:
    ends = []
    for pieces in (1, 4):
        torch.manual_seed(0)
        model = net(CLASSES).double()
        task = rounds(list(model.parameters()), lambda b, m=model: F.cross_entropy(m(b[0].double()), b[1]))

        def step(optimizer: Any, t: int, model: nn.Module = model, pieces: int = pieces) -> None:
            optimizer.zero_grad()
            x, y = (part.chunk(pieces) for part in BATCHES[t % POOL])
            for i in range(pieces):
                (F.cross_entropy(model(x[i].double()), y[i]) / pieces).backward()
            optimizer.step()

        ends.append(ended(task, make, step))
    (weights, peak, _), (others, other_peak, _) = ends
    # Sums in another order, in double precision; a search that goes on until steps overshoot amplifies them.
    assert peak == pytest.approx(other_peak, rel=1e-8)
    for a, b in zip(weights, others, strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-6)


@EACH
def test_clipped_in_the_backward_pass_or_after_it(make: Any) -> None:
    """By hooks on the parameters, or by torch's function: the same bits."""
    ends = []
    for hooked in (False, True):
        torch.manual_seed(0)
        model = net(CLASSES)
        task = classify(model, 0.6)
        if hooked:
            for p in task.parameters:
                p.register_hook(lambda g: g.clamp(-0.02, 0.02))

        def step(optimizer: Any, t: int, task: Task = task, hooked: bool = hooked) -> None:
            optimizer.zero_grad()
            task.loss(t).backward()
            if not hooked:
                nn.utils.clip_grad_value_(task.parameters, 0.02)
            optimizer.step()

        ends.append(ended(task, make, step))
    assert same(*ends)


# ---------------------------------------------------------------- compiled


@EACH
def test_a_compiled_model_without_a_break_in_its_graph(make: Any) -> None:
    """The same bits, where its graph is run as it was written down."""
    ends = []
    for compiled in (False, True):
        torch.manual_seed(0)
        torch._dynamo.reset()
        model = net(CLASSES)
        called = torch.compile(model, backend="eager", fullgraph=True) if compiled else model
        parameters = list(model.parameters())
        task = rounds(parameters, lambda b, m=called: F.cross_entropy(m(b[0]), b[1]))
        ends.append(ended(task, make))
    assert same(*ends)


@pytest.mark.slow
def test_a_model_that_was_really_compiled() -> None:
    torch._dynamo.reset()
    model = net(CLASSES)
    called = torch.compile(model, fullgraph=True)
    try:
        F.cross_entropy(called(BATCHES[0][0]), BATCHES[0][1]).backward()
    except Exception as error:
        pytest.skip(f"torch.compile does not work here: {type(error).__name__}: {str(error)[:100]}")
    learns(rounds(list(model.parameters()), lambda b: F.cross_entropy(called(b[0]), b[1])), torch.optim.AdamW)


# ---------------------------------------------------------------- where training begins


class Factors(nn.Module):
    """Users and items from N(0, 0.01): at the start the outputs hardly hang on anything."""

    def __init__(self) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(12, 6), nn.Embedding(10, 6)
        for table in (self.users, self.items):
            nn.init.normal_(table.weight, std=0.01)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        return (self.users(user) * self.items(item)).sum(-1)


def recommender() -> Task:
    """Which of two items a user likes better, by the pairwise loss of BPR."""
    model = Factors()
    draw = torch.Generator().manual_seed(0)
    taste = torch.randn(12, 2, generator=draw) @ torch.randn(2, 10, generator=draw)

    def loss(t: int) -> Tensor:
        drawn = torch.Generator().manual_seed(t % POOL)
        user, a, b = torch.randint(12, (64,), generator=drawn), *torch.randint(10, (2, 64), generator=drawn)
        better = taste[user, a] > taste[user, b]
        liked, other = torch.where(better, a, b), torch.where(better, b, a)
        return -F.logsigmoid(model(user, liked) - model(user, other)).mean()

    return Task(list(model.parameters()), loss, 0.7)


class Adapted(nn.Module):
    """A net that is kept as it is, and a branch of low rank beside each layer that begins at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.base = net(CLASSES).requires_grad_(False)
        self.down = nn.ParameterList([nn.Parameter(torch.randn(4, n) / n**0.5) for n in (6, 16)])
        self.up = nn.ParameterList([nn.Parameter(torch.zeros(n, 4)) for n in (16, CLASSES)])

    def forward(self, x: Tensor) -> Tensor:
        for i, layer in enumerate((self.base[0], self.base[2])):
            x = layer(x) + x @ self.down[i].T @ self.up[i].T
            x = x.tanh() if i == 0 else x
        return x


class Gated(nn.Module):
    """Residual blocks behind gates that begin at zero, and a last layer that does."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(6, 6) for _ in range(3)])
        self.gates, self.out = nn.Parameter(torch.zeros(3)), nn.Linear(6, CLASSES)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        for gate, block in zip(self.gates, self.blocks, strict=True):
            x = x + gate * block(x).relu()
        return self.out(x)


def adapter() -> Task:
    model = Adapted()
    return rounds([p for p in model.parameters() if p.requires_grad], lambda b: F.cross_entropy(model(b[0]), b[1]), 0.5)


def gated() -> Task:
    return classify(Gated(), 0.5)


@EACH
@pytest.mark.parametrize("task", [recommender, adapter, gated])
def test_what_begins_near_zero(task: Callable[[], Task], make: Any) -> None:
    learns(task(), make, updates=120)


@EACH
def test_a_frozen_net_is_left_alone(make: Any) -> None:
    """It is in the optimizer, too: what has no gradient is neither moved nor counted."""
    model = Adapted()
    frozen = copy.deepcopy(model.base.state_dict())
    learns(classify(model, 0.5), make)
    assert same(dict(model.base.state_dict()), dict(frozen))


def fits(make: Any, count: int, rows: int, updates: int = UPDATES) -> list[float]:
    """Losses after each of several fits of one net to the same data, by an optimizer and a scheduler of its own each.

    A fifth of the labels are wrong.
    """
    x, y = (torch.cat(parts) for parts in zip(*(batch(t) for t in range(rows // 32)), strict=True))
    y = torch.where(torch.rand(len(y)) < 0.2, torch.randint(CLASSES, y.shape), y)
    model = net(CLASSES)
    losses = []
    for _ in range(count):
        optimizer = make(model.parameters())
        scheduler = glyder.GlyderLR(optimizer, total_steps=updates)
        for _ in range(updates):
            drawn = torch.randint(len(x), (32,))
            plain_step(optimizer, F.cross_entropy(model(x[drawn]), y[drawn]))
        well(scheduler, model.parameters(), updates)
        losses.append(F.cross_entropy(model(x), y).item())
    return losses


@EACH
@pytest.mark.parametrize("rows", [128, 2048])
def test_fit_after_fit(rows: int, make: Any) -> None:
    """The loss does not climb with the weights, where the data can be learned by heart and where they cannot."""
    losses = fits(make, 5, rows)
    assert losses[4] <= 1.05 * losses[0]


@EACH
def test_a_trained_net_on_another_task(make: Any) -> None:
    """Fine-tuning: trained on one teacher's labels, then on other ones, by a new optimizer and a new scheduler."""
    model = net(CLASSES)
    learns(classify(model), make)
    learns(rounds(list(model.parameters()), lambda b: F.cross_entropy(model(b[0]), (b[1] + 1) % CLASSES)), make)
