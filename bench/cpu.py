#!/usr/bin/env python3
"""The CPU backend beside PyTorch, in one process, on the same logits and the same number of threads.

    python3 bench/cpu.py [--out bench/results/cpu-DATE.md] [--threads 1,2] [--rows 64]

Needs PyTorch and build/release/libsamebits.so. Each figure is the best of several calls, taken in
turns (ours, theirs, ours, ...), so that a busy moment hits both. Bits are compared in the same run:
every isa, dtype container and thread count must agree.
"""
import argparse
import ctypes
import datetime
import os
import platform
import time

import torch

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DTYPES = {"fp32": (1, torch.float32), "fp16": (2, torch.float16), "bf16": (3, torch.bfloat16)}


class Batch(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_uint32), ("logits_dtype", ctypes.c_int32), ("logits", ctypes.c_void_p),
        ("batch", ctypes.c_int64), ("time", ctypes.c_int64), ("rows", ctypes.c_int64),
        ("vocab", ctypes.c_int64), ("row_stride", ctypes.c_int64), ("batch_stride", ctypes.c_int64),
        ("cu_seqlens", ctypes.c_void_p), ("ids", ctypes.c_void_p), ("mask", ctypes.c_void_p),
        ("temperatures", ctypes.c_void_p), ("row_list", ctypes.c_void_p),
        ("row_count", ctypes.c_int64), ("ignore_index", ctypes.c_int64),
        ("cu_seqlens_dtype", ctypes.c_int32), ("ids_dtype", ctypes.c_int32),
        ("temperature", ctypes.c_float), ("shift", ctypes.c_int32)]


class Out(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint32), ("reserved", ctypes.c_uint32), ("token", ctypes.c_void_p),
                ("lse", ctypes.c_void_p), ("sequence", ctypes.c_void_p), ("count", ctypes.c_void_p)]


class OpenOptions(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint32), ("threads", ctypes.c_int32), ("isa", ctypes.c_char_p)]


lib = ctypes.CDLL(os.path.join(ROOT, "build", "release", "libsamebits.so"))
lib.sb_last_error.restype = ctypes.c_char_p
lib.sb_last_error.argtypes = [ctypes.c_void_p]
lib.sb_logprob.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
lib.sb_close.argtypes = [ctypes.c_void_p]


def open_context(isa, threads):
    options = OpenOptions(ctypes.sizeof(OpenOptions), threads, isa.encode())
    ctx, why = ctypes.c_void_p(), ctypes.create_string_buffer(256)
    status = lib.sb_open(ctypes.byref(ctx), lib.sb_abi(), b"cpu", ctypes.byref(options), why, 256)
    return (ctx, None) if status == 0 else (None, why.value.decode())


def samebits(ctx, logits, ids, token):
    dtype = next(number for number, torch_dtype in DTYPES.values() if torch_dtype == logits.dtype)
    batch = Batch(size=ctypes.sizeof(Batch), logits_dtype=dtype, logits=logits.data_ptr(), batch=1,
                  time=logits.shape[0], vocab=logits.shape[1], ids=ids.data_ptr(), ids_dtype=5,
                  ignore_index=-100, temperature=1.0)
    out = Out(size=ctypes.sizeof(Out), token=token.data_ptr())
    if lib.sb_logprob(ctx, ctypes.byref(out), ctypes.byref(batch), None) != 0:
        raise RuntimeError(lib.sb_last_error(ctx).decode())


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
        "Nanoseconds per logit (wall time / rows / V; so two threads halve it at best). The last column is",
        "the fastest samebits path's speed over that peer's, on the same threads.", ""]
    torch.manual_seed(0)
    seen = {}
    for vocab in (151936, 50257):
        base = (torch.randn(args.rows, vocab) * 3).to(torch.bfloat16).float()
        ids = torch.randint(0, vocab, (args.rows,))
        lines += [f"## V = {vocab}", "", "| dtype | threads | path | ns per logit | samebits is faster by |",
                  "| --- | --- | --- | --- | --- |"]
        for name, (_, dtype) in DTYPES.items():
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
                    samebits(ctx, logits, ids, token)
                    # the values are exact in bf16, and in fp16 but for the smallest
                    bits = token.view(torch.int32).tolist()
                    key = (vocab, name == "fp16")
                    if seen.setdefault(key, bits) != bits:
                        raise SystemExit(f"bits differ: {isa}, {name}, {threads} threads, V = {vocab}")
                    names.append(f"samebits {isa}")
                    calls.append(lambda ctx=ctx: samebits(ctx, logits, ids, token))
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
                    lib.sb_close(ctx)
        lines.append("")
    lines.append("Bits of all samebits paths, dtypes and thread counts: equal.")
    text = "\n".join(lines) + "\n"
    print(text)
    if args.out:
        with open(args.out, "w") as f:
            f.write(text)


if __name__ == "__main__":
    main()
