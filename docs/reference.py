"""What GlyderLR does by default with Adam and its kin, in plain NumPy: to be read, and tested equal to the product.

Left out is what a plain run never meets: bounds, gradients of zero or not finite, steps too small to be seen, a first
rate more than a decade too low, parameters that double; and several groups.
"""

import math

import numpy as np


def norm(arrays):
    return math.sqrt(sum(float((a**2).sum()) for a in arrays))


def factor(t, warmup, total):
    """The schedule of update t: linear warm-up, then a linear decay to zero."""
    return (t + 1) / warmup if t < warmup else (total - t) / (total - warmup)


def rates(x, total, decay=0.0):
    """A generator. Send it the gradients of each update, and it answers with the learning rate to make the update with.

    x: the parameters, arrays that the optimizer changes in place. total: updates of the run, 20 to 4096. decay:
    decoupled weight decay, which is no part of a step.
    """
    n, warmup = min(120, max(int(0.15 * total), 8)), min(100, max(total // 4, 10))
    energy = sum(factor(t, n, total) ** 2 for t in range(total))
    matrices = [i for i, p in enumerate(x) if p.ndim >= 2] or list(range(len(x)))
    lengths = {i: norm([x[i]]) for i in matrices}
    pace = max(0.08, min(0.5, 2 / n))  # decades an update
    g = yield None
    lr = 1e-4 * norm(x) / max(norm(g), math.sqrt(sum(p.size for p in x)))  # a step that can be seen, no more
    mean = square = 0.0
    updates, met = 0, []

    while len(met) < n:
        before = [p.copy() for p in x]
        g = yield lr
        updates += 1
        step = {i: (1 - lr * decay) * before[i] - x[i] for i in matrices}
        cosine = np.mean([(g[i] * step[i]).sum() / (norm([g[i]]) * norm([step[i]])) for i in matrices])
        relative = sum((norm([step[i]]) / lengths[i]) ** 2 for i in matrices) / lr**2
        h = 1 / math.sqrt(relative * energy)  # at this rate the run walks by the length of its parameters
        if updates == 1:
            floor, lr = lr, h / 10**0.4
            continue
        mean, square = 0.7 * mean + 0.3 * cosine, 0.9 * square + 0.1 * cosine**2
        m, v = mean / (1 - 0.7**updates), square / (1 - 0.9**updates)
        move = pace * min(1, max(-1, m / math.sqrt(v)))  # by the cosine's sign and how sure it is, not by its size
        floor, lr = lr, lr * 10**move
        met.append((lr, relative))

    half = met[n // 2 :]
    z = math.exp(np.mean([math.log(rate) for rate, _ in half]))
    h = 1 / math.sqrt(np.mean([relative for _, relative in half]) * energy)
    peak = 1.5 * z**0.7 * min(max(h, z * 10**-0.5), z * 10**0.5) ** 0.3
    warmup = max(warmup, updates)
    for t in range(updates, total):
        yield max(peak * factor(t, warmup, total), min(peak, floor) if t < warmup else 0)
