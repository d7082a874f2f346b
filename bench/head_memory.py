#!/usr/bin/env python3
"""Measures the memory and the time of one step of a trainer's last layer, logprobs from hidden
states and the gradients by hidden states and weights, beside PyTorch's own way with logits [N, V].

    python3 bench/head_memory.py [--out bench/results/head-memory-h200-DATE.md]
                                 [--shapes 4096:151936,576:49152] [--rows 4096,1024]

Needs PyTorch and build/release/libsamebits.so. samebits runs by examples/python/fused_head.py.

Method. hidden and weights are bf16. PyTorch's way is log_softmax(hidden @ weight.T) in fp32, and
autograd. The memory of a step is the most that PyTorch's allocator holds during the second of two
steps, beside hidden, weights and, for samebits, the prepared head, which lives from step to step;
samebits' scratch memory comes from the same allocator. Both include the two gradients. The time is
the median of events around steps in turn.
"""
import argparse
import datetime
import os
import statistics
import sys
import time

import torch

import tables
import timing
from gpu import commit, driver
from samebits_ctypes import ROOT, lib

sys.path.insert(0, os.path.join(ROOT, "examples", "python"))
from fused_head import CHUNK, head_logprobs  # noqa: E402
from samebits_torch import Head  # noqa: E402


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", help="a Markdown file to write")
    parser.add_argument("--shapes", default="4096:151936,576:49152", help="D:V, D:V ...")
    parser.add_argument("--rows", default="4096,1024")
    parser.add_argument("--seconds", type=float, default=0.2, help="of each of three rounds")
    parser.add_argument("--commit", default=commit(), help="what the record names as measured")
    return parser.parse_args()


def plain(hidden, weight, ids):
    logits = (hidden @ weight.t()).float()
    return torch.log_softmax(logits, -1).gather(-1, ids[:, None])[:, 0]


class Step:
    """One step: the logprobs, and the gradients of their sum times factors."""

    def __init__(self, hidden, weight, factors, logprobs):
        self.hidden, self.weight = hidden, weight
        self.factors, self.logprobs = factors, logprobs

    def __call__(self):
        self.hidden.grad = self.weight.grad = None
        (self.logprobs(self.hidden, self.weight) * self.factors).sum().backward()

    def peak(self):
        """The most bytes held during a step, beside those held before it."""
        self()
        self.hidden.grad = self.weight.grad = None
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        self()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before


def measure(args, width, vocab, rows):
    torch.manual_seed(0)
    hidden = torch.randn(rows, width, device="cuda").bfloat16().requires_grad_()
    weight = (torch.randn(vocab, width, device="cuda") * (3 / width ** 0.5)).bfloat16()
    weight.requires_grad_()
    ids = torch.randint(0, vocab, (rows,), device="cuda")
    factors = torch.randn(rows, device="cuda")
    steps, heads, lines = {}, {}, []
    for form in ("h24w16", "h24w24"):
        heads[form] = Head(weight.detach(), format=form)
        steps[f"{tables.OURS} {form}"] = Step(
            hidden, weight, factors,
            lambda h, w, head=heads[form]: head_logprobs(h, w, ids, head))
    steps["PyTorch"] = Step(hidden, weight, factors, lambda h, w: plain(h, w, ids))
    memory, failed = {}, {}
    for name, step in list(steps.items()):
        try:
            memory[name] = step.peak()
        except torch.OutOfMemoryError as why:
            failed[name] = str(why).splitlines()[0][:100]
            del steps[name]
            torch.cuda.empty_cache()
    timed = timing.in_turns({name: timing.Events([step]) for name, step in steps.items()},
                            args.seconds, lambda name, why: failed.update({name: str(why)[:100]}))
    gradients = hidden.numel() * 2 + weight.numel() * 2
    for name in list(memory) + list(failed):
        form = name.split()[-1]
        lines.append([f"D = {width}, V = {vocab}", rows, name,
                      f"{timed[name].us / 1e3:.2f}" if name in timed else failed.get(name, ""),
                      tables.size(memory.get(name, 0)),
                      tables.size(max(0, memory.get(name, 0) - gradients)),
                      tables.size(heads[form].memory.numel()) if form in heads else ""])
    return lines


def main():
    args, began = arguments(), time.perf_counter()
    lines = []
    for shape in args.shapes.split(","):
        width, vocab = map(int, shape.split(":"))
        for rows in map(int, args.rows.split(",")):
            lines += measure(args, width, vocab, rows)
            torch.cuda.empty_cache()
            print(f"[{time.perf_counter() - began:5.1f}] {lines[-3:]}", flush=True)
    properties = torch.cuda.get_device_properties(0)
    meta = {"gpu": properties.name, "date": str(datetime.date.today()), "commit": args.commit,
            "machine": f"{properties.multi_processor_count} SMs; driver, max clock, power limit: "
                       f"{driver()}",
            "software": f"samebits {lib.sb_version().decode()}, numerics {lib.sb_numerics()}; "
                        f"PyTorch {torch.__version__}",
            "seconds": f"{time.perf_counter() - began:.0f}"}
    text = tables.head("A step of the last layer: memory and time", meta)
    text += [f"Logprobs and the gradients by hidden states and weights, bf16, in chunks of {CHUNK} "
             "ids (bench/head_memory.py). Memory: the most held during a step beside hidden "
             "states, weights and the prepared head.", ""]
    text += tables.table(["shape", "rows", "program", "ms", "memory", "without both gradients",
                          "head"], lines)
    print("\n".join(text))
    if args.out:
        with open(args.out, "w") as f:
            f.write("\n".join(text).rstrip() + "\n")


if __name__ == "__main__":
    main()
