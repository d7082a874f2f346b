#!/usr/bin/env python3
"""Measures the CPU backend and PyTorch in one process, on the same logits and number of threads.

    python3 bench/cpu.py [--out bench/results/cpu-DATE.md] [--threads 1,2] [--rows 64]

Needs PyTorch and build/release/libsamebits.so. Each figure is the best of several calls. The calls
alternate (ours, theirs, ours, ...), so that a busy moment affects both. The same run also compares
bits: every isa, dtype and thread count must agree.
"""
import argparse
import datetime
import os
import platform
import time

import torch

from samebits_ctypes import Context, Unavailable

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def open_context(isa, threads):
    try:
        return Context("cpu", isa, threads), None
    except Unavailable as why:
        return None, str(why)


PEERS = {
    "torch log_softmax(fp32) + gather":
        lambda x, ids: torch.log_softmax(x.float(), -1).gather(-1, ids[:, None]),
    "torch log_softmax in the container's dtype + gather":
        lambda x, ids: torch.log_softmax(x, -1).gather(-1, ids[:, None]),
    "torch gather - logsumexp (fp32)":
        lambda x, ids: (lambda y: y.gather(-1, ids[:, None])[:, 0] - y.logsumexp(-1))(x.float()),
}


def best_times(calls, repeats):
    best = [float("inf")] * len(calls)
    for _ in range(repeats):
        for i, call in enumerate(calls):
            start = time.perf_counter()
            call()
            best[i] = min(best[i], time.perf_counter() - start)
    return best


def processor():
    with open("/proc/cpuinfo") as f:
        for line in f:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()

    lines = [
        f"# CPU: samebits and PyTorch, {datetime.date.today()}", "",
        f"{processor()}, {os.cpu_count()} cores; PyTorch {torch.__version__}; "
        f"{args.rows} rows; best of {args.repeats} calls in turns; `python3 bench/cpu.py`.", "",
        "Nanoseconds per logit (wall time / rows / V; so two threads halve it at best). The last",
        "column is the fastest samebits path's speed over that peer's, on the same threads.", ""]
    torch.manual_seed(0)
    seen = {}
    for vocab in (151936, 50257):
        base = (torch.randn(args.rows, vocab) * 3).to(torch.bfloat16).float()
        ids = torch.randint(0, vocab, (args.rows,))
        lines += [f"## V = {vocab}", "",
                  "| dtype | threads | path | ns per logit | samebits is faster by |",
                  "| --- | --- | --- | --- | --- |"]
        for name, dtype in DTYPES.items():
            logits = base.to(dtype)
            for threads in (int(t) for t in args.threads.split(",")):
                torch.set_num_threads(threads)
                token = torch.empty(args.rows)
                names, calls, contexts = [], [], []
                for isa in ("avx512", "avx2"):
                    ctx, why = open_context(isa, threads)
                    if ctx is None:
                        print(f"{isa}: {why}")
                        continue
                    ctx.logprob(logits, ids, token=token)
                    # the values are exact in bf16, and all but the smallest in fp16
                    bits = token.view(torch.int32).tolist()
                    key = (vocab, name == "fp16")
                    if seen.setdefault(key, bits) != bits:
                        raise SystemExit(
                            f"bits differ: {isa}, {name}, {threads} threads, V = {vocab}")
                    names.append(f"samebits {isa}")
                    calls.append(ctx.prepare(logits, ids, token=token))
                    contexts.append(ctx)
                for peer, call in PEERS.items():
                    if name == "fp32" and "container" in peer:
                        continue
                    names.append(peer)
                    calls.append(lambda call=call: call(logits, ids))
                times = best_times(calls, args.repeats)
                per_logit = [t * 1e9 / args.rows / vocab for t in times]
                ours = min(t for n, t in zip(names, per_logit) if n.startswith("samebits"))
                for n, t in zip(names, per_logit):
                    ratio = "" if n.startswith("samebits") else f"{t / ours:.2f}"
                    lines.append(f"| {name} | {threads} | {n} | {t:.3f} | {ratio} |")
                for ctx in contexts:
                    ctx.close()
        lines.append("")
    lines.append("Bits of all samebits paths, dtypes and thread counts: equal.")
    text = "\n".join(lines) + "\n"
    print(text)
    if args.out:
        with open(args.out, "w") as f:
            f.write(text)


if __name__ == "__main__":
    main()
