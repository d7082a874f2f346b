#!/usr/bin/env python3
"""Measures the linear head of docs/numerics.md beside conventional ones, on real and made-up data;
prints the tables of docs/accuracy.md, "The linear head".

    python3 tools/head_accuracy.py [FILE.safetensors ..]        needs numpy

The files are those of tools/make_smollm2_head.py. Errors are against fp64 products of the operands
as they are, so they are those of the head alone. The heads:

    bf16 logits   the product rounded to bf16, as most engines return it
    fp32 product  numpy's float32 matmul, fp32 logits; of bf16 operands it is what a bf16 matrix
                  product with fp32 output computes, up to the order of its sums
    h24w16        the exact head, its sums made by fp64 products of integers, which are exact
    h24w24        likewise

For each it prints the largest and the root mean square error of a logit, and the root mean square
error of a target's logprob, which an fp64 log_softmax makes of the logits; for the exact heads, in
parentheses, what the bounds of numerics.md divided by sqrt(D) say of a logit's. No logit may exceed
its bound.
"""

import os
import sys

sys.dont_write_bytecode = True

import numpy as np

from make_smollm2 import to_bf16
from make_smollm2_head import read_safetensors

HEADS = ("bf16 logits", "fp32 product", "h24w16", "h24w24")


def scale(rows):
    """E of each row [R, D] of fp32; bad rows do not occur here."""
    a = (rows.view(np.uint32) & 0x7FFFFFFF).max(axis=-1)
    return np.maximum(-40, (a.astype(np.int64) + 0x10200 >> 23) - 126)


def integers(rows, E, bits):
    return np.rint(np.ldexp(rows.astype(np.float64), (bits - 1 - E)[:, None])).astype(np.int64)


def exact_head(hidden, weights, bits):
    """Logits [N, V], fp32, and E of all rows. Every fp64 product below is exact: of h24w16 no sum
    exceeds 2^45; for h24w24 a weight's integer is cut in two, and sums stay below 2^53."""
    E_h, E_w = scale(hidden), scale(weights)
    q, W = integers(hidden, E_h, 24), integers(weights, E_w, bits)

    def product(a, b):
        return (a.astype(np.float64) @ b.astype(np.float64).T).astype(np.int64)

    last = (q + 128 & 255) - 128
    if bits == 16:
        T = product(q - last >> 8, W) + product(last, W - ((W + 128 & 255) - 128) >> 8)
    else:
        assert hidden.shape[1] <= 8192
        high, low = W + 2048 >> 12, (W + 2048 & 4095) - 2048
        T = (product(q, high) << 12) + product(q, low) + 2 ** 15 >> 16
    return np.ldexp(T.astype(np.float32), E_h[:, None] + E_w[None, :] - 30), E_h, E_w


def log_softmax(logits):
    x = logits.astype(np.float64)
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def norm(rows):
    return np.sqrt((rows.astype(np.float64) ** 2).sum(axis=-1))


def error_bounds(hidden, weights, E_h, E_w, bits):
    """The bounds [N, V] of numerics.md, "Linear: a row's own bound"."""
    q, W = integers(hidden, E_h, 24), integers(weights, E_w, bits)
    h = np.ldexp(q.astype(np.float64), (E_h - 23)[:, None])
    w = np.ldexp(W.astype(np.float64), (E_w - bits + 1)[:, None])
    rho_h, rho_w = norm(hidden - h), norm(weights - w)
    bound = norm(hidden)[:, None] * rho_w + rho_h[:, None] * norm(w)
    if bits == 16:
        last = norm((q + 128 & 255) - 128) * 2.0 ** (E_h - 23)
        return bound + last[:, None] * (norm((W + 128 & 255) - 128) * 2.0 ** (E_w - 15))
    return bound + 2.0 ** (E_h[:, None] + E_w - 31)


def measure(hidden, weights, ids):
    """Returns {head: (largest, rms, rms of logprobs, estimated rms or None)}. hidden and weights
    are fp32 [N, D] and [V, D]."""
    true = hidden.astype(np.float64) @ weights.astype(np.float64).T
    rows = np.arange(len(ids))
    logprobs, results = log_softmax(true)[rows, ids], {}
    for head in HEADS:
        guess = None
        if head == "bf16 logits":
            x = (to_bf16(true).astype(np.uint32) << 16).view(np.float32)
        elif head == "fp32 product":
            x = hidden @ weights.T
        else:
            bits = int(head[-2:])
            x, E_h, E_w = exact_head(hidden, weights, bits)
            bound = error_bounds(hidden, weights, E_h, E_w, bits)
            guess = np.sqrt((bound ** 2).mean() / hidden.shape[1])
        error = x.astype(np.float64) - true
        assert guess is None or (np.abs(error) <= bound + np.spacing(np.abs(x))).all()
        drift = log_softmax(x)[rows, ids] - logprobs
        results[head] = (np.abs(error).max(), np.sqrt((error ** 2).mean()),
                         np.sqrt((drift ** 2).mean()), guess)
    return results


def bf16(x):
    return (to_bf16(x).astype(np.uint32) << 16).view(np.float32)


def made_up(name, D, rows=96, vocab=4096):
    """Logits of deviation 3. Returns hidden, weights and targets drawn from the softmax."""
    rng = np.random.default_rng([D, sum(map(ord, name))])
    if name.startswith("heavy"):
        h, w = rng.standard_t(2.5, (rows, D)), rng.standard_t(3, (vocab, D))
    else:
        h, w = rng.standard_normal((rows, D)), rng.standard_normal((vocab, D))
    if "channels" in name:
        factor = 10.0 ** int(name[name.index("10^") + 3])
        h[:, [3, D // 2]] *= factor
        if "less there" in name:
            w[:, [3, D // 2]] /= 0.3 * factor
    h, w = h.astype(np.float32), w.astype(np.float32)
    w *= np.float32(3 / np.sqrt(((h.astype(np.float64) @ w.astype(np.float64).T) ** 2).mean()))
    h, w = bf16(h) if "fp32" not in name else h, bf16(w)
    p = np.exp(log_softmax(h.astype(np.float64) @ w.astype(np.float64).T))
    draw = rng.random(rows)[:, None] * p.sum(axis=-1)[:, None]
    return h, w, np.minimum((np.cumsum(p, axis=-1) < draw).sum(axis=-1), vocab - 1)


def short(x):
    return ("%.1e" % x).replace("e-0", "e-").replace("e+00", "")


def line(name, results):
    cells = []
    for head in HEADS:
        largest, rms, logprob, guess = results[head]
        cells.append("%s / %s; %s" % tuple(map(short, (largest, rms, logprob))))
        if guess is not None:
            cells[-1] += " (%s)" % short(guess)
    print("| %s | %s |" % (name, " | ".join(cells)), flush=True)


def main(files):
    print("| data | %s |" % " | ".join(HEADS))
    print("|" + " --- |" * (len(HEADS) + 1))
    for path in files:
        tensors, about = read_safetensors(path)
        hidden, head = (tensors[name] if tensors[name].dtype == np.float32
                        else (tensors[name].astype(np.uint32) << 16).view(np.float32)
                        for name in ("hidden", "head"))
        active = tensors["mask"].ravel() != 0
        line("%s, %s hidden, V = %d" % (
            about["model"].split("/")[-1].split(",")[0],
            "fp32" if tensors["hidden"].dtype == np.float32 else "bf16", len(head)),
            measure(hidden.reshape(-1, hidden.shape[-1])[active], head,
                    tensors["ids"].ravel()[active]))
    for name in ("Gauss", "Gauss, fp32 hidden", "heavy tails: t(2.5), t(3)",
                 "2 channels at 10^4", "2 channels at 10^2, weights less there",
                 "2 channels at 10^3, weights less there",
                 "2 channels at 10^4, weights less there"):
        for D in (576, 4096):
            line("%s, D = %d" % (name, D), measure(*made_up(name, D)))


if __name__ == "__main__":
    main(sys.argv[1:])
