#!/usr/bin/env python3
"""Measures entropy, gradients, several ids and top-k on the CUDA backend, PyTorch and Liger.

    python3 bench/gpu_ops.py [--out bench/results/ops-h100-DATE.md] [--rows 4096] [--vocab 151936]

Has the same requirements and timing method as bench/gpu.py: one run, events around each call,
logits many times larger than L2, at least 30 calls before the first that counts, and the median of
three alternating rounds. For a call that only reads, the floor is that of bench/gpu.py; for a call
that writes a gradient, it is the best of a copy kernel and PyTorch's device copy of the same bytes.
Memory is the amount that a call needs in addition to its inputs and outputs: the workspace for
samebits, the peak of the allocator for others. The bits of some rows are compared with those of the
cpu backend.
"""
import argparse
import ctypes
import datetime
import os
import statistics
import sys

import torch

import gpu
from samebits_ctypes import Context, Unavailable, lib

COPY = r"""
#include <cuda_runtime.h>
template <int U> __global__ void __launch_bounds__(512) copy(uint4 *to, const uint4 *from, size_t n)
{
    size_t i = (size_t)blockIdx.x * blockDim.x * U + threadIdx.x;
    uint4 v[U];
#pragma unroll
    for (int k = 0; k < U; k++)
        if (i + (size_t)k * blockDim.x < n) v[k] = from[i + (size_t)k * blockDim.x];
#pragma unroll
    for (int k = 0; k < U; k++)
        if (i + (size_t)k * blockDim.x < n) to[i + (size_t)k * blockDim.x] = v[k];
}
template <int U> int launch(void *to, const void *from, size_t bytes, int threads, void *s)
{
    size_t n = bytes / 16, a = (size_t)threads * U;
    copy<U><<<(unsigned)((n + a - 1) / a), threads, 0, (cudaStream_t)s>>>(
        (uint4 *)to, (const uint4 *)from, n);
    return (int)cudaGetLastError();
}
extern "C" int copy_kernel(void *to, const void *from, size_t bytes, int unroll, int threads,
                           void *s)
{
    return unroll == 2 ? launch<2>(to, from, bytes, threads, s)
                       : launch<4>(to, from, bytes, threads, s);
}
"""
COPIES = [(2, 128), (2, 512), (4, 128), (4, 256)] # 16-byte elements per thread, threads


def build_copy():
    loaded = gpu.build(COPY)
    loaded.copy_kernel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int,
                                   ctypes.c_int, ctypes.c_void_p]
    return loaded


# ---- peers --------------------------------------------------------------------------------------

def entropy_of_softmax(x):
    """As RL trainers compute it: lse - sum(p * logits), in fp32."""
    y = x.float()
    return y.logsumexp(-1) - (torch.softmax(y, -1) * y).sum(-1)


def entropy_by_chunks(x, rows=256):
    """The same, a few rows at a time to save memory."""
    return torch.cat([entropy_of_softmax(part) for part in x.split(rows)])


def torch_gradient(loss):
    def call(x, ids, upstream):
        y = x.detach().requires_grad_()
        loss(y, ids).backward(upstream)
        return y.grad
    return call


def topk_gather(x, k):
    top = x.topk(k, -1)
    return top.indices, top.values.float() - x.float().logsumexp(-1, keepdim=True)


def topk_gather_lean(x, k):
    """Without an fp32 copy of the logits. PyTorch's logsumexp then rounds to their dtype."""
    top = x.topk(k, -1)
    return top.indices, top.values.float() - x.logsumexp(-1, keepdim=True).float()


# ---- measuring ----------------------------------------------------------------------------------

class Bench:
    def __init__(self, ctx, cpu, floor, copies, args):
        self.ctx, self.cpu, self.floor, self.copies = ctx, cpu, floor, copies
        self.rows, self.vocab, self.seconds = args.rows, args.vocab, args.seconds
        self.never = torch.zeros(1, dtype=torch.int32, device="cuda")
        self.results, self.notes = [], []

    def logits(self, dtype):
        torch.manual_seed(0)
        x = torch.empty(self.rows, self.vocab, dtype=gpu.DTYPES[dtype], device="cuda")
        for part in x.split(256):
            part.normal_(0, 3)
        ids = torch.randint(0, self.vocab, (self.rows,), device="cuda")
        return x, ids

    def floats(self, *shape, fill=float("nan")):
        return torch.full(shape or (self.rows,), fill, device="cuda")

    def call_of(self, x, ids, order=False, **outputs):
        call = self.ctx.prepare(x, ids, **outputs)
        size = call.order_workspace_size() if order else call.workspace_size()
        if size:
            call.use_workspace(torch.empty(size, dtype=torch.uint8, device="cuda"), size)
        return call, size

    def best_read(self, x):
        size = x.numel() * x.element_size()

        def call(u, t):
            if self.floor.floor_read(x.data_ptr(), size, u, t, self.never.data_ptr(), gpu.stream()):
                raise RuntimeError("the floor kernel was not launched")
        return self.best([lambda u=u, t=t: call(u, t) for u, t in gpu.FLOOR_KERNELS])

    def best_copy(self, to, x):
        """Reads the logits and writes as many bytes as `to` holds. to and x have the same dtype."""
        size = x.numel() * x.element_size()

        def call(u, t):
            if self.copies.copy_kernel(to.data_ptr(), x.data_ptr(), size, u, t, gpu.stream()):
                raise RuntimeError("the copy kernel was not launched")
        return self.best([lambda: to.copy_(x)] + [lambda u=u, t=t: call(u, t) for u, t in COPIES])

    def best(self, calls):
        quick = [statistics.median(gpu.sample(gpu.Events([c]), self.seconds / 4)) for c in calls]
        return calls[quick.index(min(quick))]

    def add(self, what, dtype, floor, ours, memory, peers, bits):
        """Measures one line of the table: the floor and ours alternately, then the peers."""
        timed = [gpu.Events([c]) for c in ([floor] if floor else []) + [ours]]
        measured = gpu.in_turns(timed, self.seconds)
        us, spread = measured[-1]
        line = {"what": what, "dtype": dtype, "us": us, "spread": spread, "memory": memory,
                "floor": measured[0][0] if floor else None, "bits": bits, "peers": {}}
        for name, peer in peers.items():
            try:
                torch.cuda.synchronize()
                torch.cuda.empty_cache()
                before = torch.cuda.memory_allocated()
                torch.cuda.reset_peak_memory_stats()
                peer()
                torch.cuda.synchronize()
                peak = torch.cuda.max_memory_allocated() - before
                peer_us = statistics.median(gpu.sample(gpu.Events([peer]), self.seconds, 5))
                line["peers"][name] = (peer_us, peak)
            except Exception as why: # a failing peer must not end the run; it becomes a note
                said = str(why).splitlines()[0][:100] if str(why) else ""
                self.notes.append(f"{what}, {dtype}: {name}: {type(why).__name__}: {said}")
        self.results.append(line)
        best = min(line["peers"].values(), default=(float("nan"), 0))[0]
        floor_us = line["floor"] or float("nan")
        print(f"{what} {dtype}: {us:.1f} us, floor {floor_us:.1f}, best peer {best:.1f}, "
              f"bits {bits}", flush=True)

    def some(self):
        return torch.linspace(0, self.rows - 1, 4, device="cuda").long()

    def same(self, pairs):
        """pairs: (results of the GPU for some rows, results of the cpu backend)."""
        for mine, theirs in pairs:
            a, b = mine.cpu().contiguous(), theirs.contiguous()
            if not torch.equal(a.view(torch.uint8), b.view(torch.uint8)):
                return "**differ**"
        return "equal"

    # ---- operations

    def entropy(self, dtype):
        x, ids = self.logits(dtype)
        token, entropy = self.floats(), self.floats()
        floor = self.best_read(x)
        plain, size = self.call_of(x, ids, token=token)
        both, both_size = self.call_of(x, ids, token=token, entropy=entropy)
        some = self.some()
        cpu_token, cpu_entropy = torch.empty(len(some)), torch.empty(len(some))
        both(gpu.stream())
        self.cpu.logprob(x[some].cpu(), ids[some].cpu(), token=cpu_token, entropy=cpu_entropy)
        bits = self.same([(token[some], cpu_token), (entropy[some], cpu_entropy)])
        self.add("logprob", dtype, floor, lambda: plain(gpu.stream()), size, {}, bits)
        self.add("logprob + entropy", dtype, floor, lambda: both(gpu.stream()), both_size,
                 {"PyTorch": lambda: (gpu.log_softmax_gather(x, ids), entropy_of_softmax(x)),
                  "PyTorch, by chunks, entropy alone": lambda: entropy_by_chunks(x)}, bits)

    def gradients(self, dtype):
        x, ids = self.logits(dtype)
        token, upstream = self.floats(), self.floats(fill=-1.0)
        saved = torch.zeros(self.rows, 32, dtype=torch.uint8, device="cuda")
        grad = torch.empty_like(x)
        forward, size = self.call_of(x, ids, token=token, saved=saved)
        backward = forward.backward(grad, saved, token=upstream)
        copy = self.best_copy(grad, x)
        forward(gpu.stream())
        backward(gpu.stream())
        some = self.some()
        cpu_x, cpu_saved = x[some].cpu(), torch.zeros(len(some), 32, dtype=torch.uint8)
        cpu_token, cpu_grad = torch.empty(len(some)), torch.empty_like(cpu_x)
        call = self.cpu.prepare(cpu_x, ids[some].cpu(), token=cpu_token, saved=cpu_saved)
        call()
        call.backward(cpu_grad, cpu_saved, token=torch.full((len(some),), -1.0))()
        bits = self.same([(grad[some], cpu_grad), (saved[some], cpu_saved)])
        self.add("gradient", dtype, copy, lambda: backward(gpu.stream()), 0, {}, bits)

        both_ent = self.floats()
        with_h, h_size = self.call_of(x, ids, token=token, entropy=both_ent, saved=saved)
        with_h(gpu.stream())
        both = with_h.backward(grad, saved, token=upstream, entropy=upstream)
        self.add("gradient of logprob and entropy", dtype, copy, lambda: both(gpu.stream()), 0, {},
                 bits)

        def there_and_back():
            forward(gpu.stream())
            backward(gpu.stream())
        peers = {"PyTorch": lambda: torch_gradient(gpu.log_softmax_gather)(x, ids, upstream)}
        liger, why = gpu.liger()
        if liger:
            peers["Liger"] = lambda: torch_gradient(liger)(x, ids, upstream)
        else:
            self.notes.append(f"Liger: left out, {why}")
        self.add("forward + gradient", dtype, None, there_and_back, size, peers, bits)

        # In place: a call overwrites the logits, so later timed calls run on their own gradients.
        in_place = forward.backward(x, saved, token=upstream)

        def in_place_both():
            forward(gpu.stream())
            in_place(gpu.stream())
        self.add("forward + gradient, in place", dtype, None, in_place_both, size, {}, bits)

    def order(self, dtype):
        x, ids = self.logits(dtype)
        floor = self.best_read(x)
        some = self.some()
        cpu_x = x[some].cpu()
        for k in (1, 8, 64):
            first = torch.empty(self.rows, k, dtype=torch.int32, device="cuda")
            logprob = self.floats(self.rows, k)
            call, size = self.call_of(x, None, order=True)
            topk = call.topk(k, first, logprob)
            topk(gpu.stream())
            cpu_first = torch.empty(len(some), k, dtype=torch.int32)
            cpu_logprob = torch.empty(len(some), k)
            self.cpu.prepare(cpu_x, None).topk(k, cpu_first, cpu_logprob)()
            bits = self.same([(first[some], cpu_first), (logprob[some], cpu_logprob)])
            self.add(f"top-{k} and logprobs", dtype, floor, lambda: topk(gpu.stream()), size,
                     {"PyTorch": lambda: topk_gather(x, k),
                      "PyTorch, lse in the logits' dtype": lambda: topk_gather_lean(x, k)}, bits)
        k = 16
        many = torch.randint(0, self.vocab, (self.rows, k), device="cuda")
        logprob, rank = self.floats(self.rows, k), torch.empty(self.rows, k, dtype=torch.int32,
                                                               device="cuda")
        call, size = self.call_of(x, many, order=True)
        for what, ranks in ((f"{k} ids", None), (f"{k} ids and ranks", rank)):
            ask = call.ids(k, logprob, ranks)
            ask(gpu.stream())
            cpu_logprob = torch.empty(len(some), k)
            self.cpu.prepare(cpu_x, many[some].cpu()).ids(k, cpu_logprob)()
            bits = self.same([(logprob[some], cpu_logprob)])
            self.add(what, dtype, floor, lambda: ask(gpu.stream()), size,
                     {"PyTorch": lambda: torch.log_softmax(x.float(), -1).gather(-1, many)}
                     if ranks is None else {}, bits)


# ---- the report ---------------------------------------------------------------------------------

def memory(size):
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 1024:.1f} KiB"


def report(meta, bench):
    lines = [f"# GPU, beside logprobs: samebits, {meta['gpu']}, {meta['date']}", ""]
    lines += [f"- {name}: {text}" for name, text in meta.items() if name not in ("gpu", "date")]
    lines += ["", f"{bench.rows} rows of {bench.vocab} logits. Microseconds per call, by events;",
              "the floor reads the same bytes, for a gradient it copies them. Memory: beside",
              "inputs and outputs (a peer's outputs count: it makes them).", "",
              "| call | dtype | samebits | spread | floor | floor / time | memory | "
              "peers (memory), each over samebits | bits as cpu |",
              "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    for r in bench.results:
        peers = "; ".join(f"{name} {us:.0f} ({memory(peak)}) {us / r['us']:.2f}"
                          for name, (us, peak) in r["peers"].items())
        floor = (f"{r['floor']:.1f} | {100 * r['floor'] / r['us']:.1f} %" if r["floor"] else " | ")
        lines.append(f"| {r['what']} | {r['dtype']} | {r['us']:.1f} | {r['spread']:.1f} % "
                     f"| {floor} | {memory(r['memory'])} | {peers} | {r['bits']} |")
    if bench.notes:
        lines += ["", "## Notes", ""] + ["- " + n for n in bench.notes]
    return lines


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", help="a Markdown file to write")
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--vocab", type=int, default=151936)
    parser.add_argument("--seconds", type=float, default=0.05, help="a round of one call")
    parser.add_argument("--dtypes", default="bf16", help="comma-separated: bf16, fp16, fp32")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("bench/gpu_ops.py: PyTorch sees no CUDA device")
    try:
        ctx, cpu = Context("cuda"), Context("cpu")
    except Unavailable as why:
        sys.exit(f"bench/gpu_ops.py: {why}")
    properties = torch.cuda.get_device_properties(0)
    meta = {
        "gpu": properties.name, "date": str(datetime.date.today()),
        "command": "`python3 " + " ".join([os.path.relpath(sys.argv[0])] + sys.argv[1:]) + "`",
        "driver, max clock, power limit": gpu.driver(),
        "software": f"samebits {lib.sb_version().decode()}, numerics {lib.sb_numerics()}; "
                    f"PyTorch {torch.__version__}, CUDA {torch.version.cuda}"}
    bench = Bench(ctx, cpu, gpu.build_floor(), build_copy(), args)
    for dtype in args.dtypes.split(","):
        for operation in (bench.entropy, bench.gradients, bench.order):
            operation(dtype)
            torch.cuda.empty_cache()
    lines = report(meta, bench)
    print("\n".join(lines))
    if args.out:
        gpu.write(args.out, lines)
    ctx.close()
    cpu.close()
    if any(r["bits"] != "equal" for r in bench.results):
        sys.exit("bench/gpu_ops.py: bits differ from the cpu backend's")


if __name__ == "__main__":
    main()
