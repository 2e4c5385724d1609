"""The LSTM as a plain loop, row by row and step by step, and arguments to try it on."""

import numpy as np

BATCH, TIME, FEATURES, HIDDEN = 4, 9, 5, 3


def numpy_lstm(
    x, mask, kernel, recurrent_kernel, bias, h0, c0, reverse=False, *,
    recurrent_scale=None, resets=None, xp=np,
):  # fmt: skip
    """The textbook equations. Masked steps are left out. `xp`: numpy, or jax.numpy to differentiate it."""

    def sigmoid(z):
        return 1 / (1 + xp.exp(-z))

    batch, time, _ = x.shape
    outputs, states = [], []
    for b in range(batch):
        h, c, ends = h0[b], c0[b], False
        rows = [xp.zeros_like(h0[0])] * time
        for t in reversed(range(time)) if reverse else range(time):
            if not mask[b, t]:
                continue
            starts = resets is not None and resets[b, t]
            if ends or (starts and not reverse):
                h, c = xp.zeros_like(h), xp.zeros_like(c)
            ends = starts and reverse
            recurrent = h if recurrent_scale is None else h * recurrent_scale[b]
            i, f, g, o = xp.split(x[b, t] @ kernel + recurrent @ recurrent_kernel + bias, 4)
            c = sigmoid(f) * c + sigmoid(i) * xp.tanh(g)
            h = sigmoid(o) * xp.tanh(c)
            rows[t] = h
        outputs.append(xp.stack(rows))
        states.append((h, c))
    h, c = (xp.stack(s) for s in zip(*states, strict=True))
    return xp.stack(outputs), h, c


def make(seed, *, batch=BATCH, time=TIME, features=FEATURES, hidden=HIDDEN, dtype=np.float32):
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return rng.normal(size=shape).astype(dtype)

    return {
        "x": draw(batch, time, features),
        "kernel": draw(features, 4 * hidden),
        "recurrent_kernel": draw(hidden, 4 * hidden) * dtype(0.5),
        "bias": draw(4 * hidden),
        "h0": draw(batch, hidden),
        "c0": draw(batch, hidden),
    }


def masks(seed=0, batch=BATCH, time=TIME):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, time + 1, batch)
    behind = np.arange(time) < lengths[:, None]
    anywhere = rng.random((batch, time)) < 0.5
    anywhere[0] = False
    return {
        "all": np.ones((batch, time), bool),
        "behind": behind,
        "in front": behind[:, ::-1].copy(),
        "anywhere": anywhere,
        "nowhere": np.zeros((batch, time), bool),
    }
