#!/usr/bin/env python3
"""Measures the CUDA backend, a read-only floor and PyTorch, in one run on one GPU.

    python3 bench/gpu.py [--out bench/results/gpu-h100-DATE.md] [--budget 300] [--quick]

Needs PyTorch, nvcc and build/release/libsamebits.so. Liger is a peer if it can be imported.

Method. Every call reads logits that are not in L2: the buffers rotate, so at least twice the size
of L2 is touched between two uses of a buffer. Up to 512 rows, a CUDA graph of many such calls is
replayed and its time divided by their number, so that the cost of launches does not show. Above
that, events before and after each call time it. At least 30 replays (or calls) precede the first
one that counts. The floor is the best of several kernels that read the same bytes and do nothing
else. The floor and samebits are measured alternately, three times each. The figure is the median of
all samples, and the spread is the distance between the smallest and the largest of the three
medians. The bits of some rows are compared with those of the cpu backend, and their values with
fp64. The bits of all rows are compared between the timed call and one that waits.
"""
import argparse
import ctypes
import datetime
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import torch

from samebits_ctypes import Context, Unavailable, lib

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
BIG, ODD = 151936, 50257 # an aligned vocabulary, and one with unaligned rows
GRAPH_ROWS = 512         # up to here graphs are timed, above it single calls
WARM = 30                # replays or calls before the first that counts

# Shapes, the most informative first.
SHAPES = (
    [("bf16", BIG, n) for n in (4096, 16384, 1, 8, 64, 512)]
    + [("bf16", ODD, n) for n in (4096, 1, 8, 64, 512)]
    + [("fp32", BIG, 4096), ("fp16", BIG, 4096), ("bf16", ODD, 16384)]
    + [(d, v, n) for d in ("fp32", "fp16") for v in (BIG, ODD)
       for n in (1, 8, 64, 512, 4096, 16384) if (v, n) != (BIG, 4096)])

# The goals of the project: a ratio to the floor, or microseconds.
GOALS = {
    "H100": {
        ("bf16", BIG, 4096): (1.05, "x"), ("bf16", BIG, 16384): (1.035, "x"),
        ("bf16", ODD, 4096): (1.11, "x"), ("fp32", BIG, 4096): (1.025, "x"),
        ("fp16", BIG, 4096): (1.05, "x"),
        ("bf16", BIG, 512): (58, "us"), ("bf16", BIG, 64): (11.5, "us"),
        ("bf16", BIG, 8): (5.4, "us"), ("bf16", BIG, 1): (4.4, "us"),
        ("bf16", ODD, 512): (24, "us"), ("bf16", ODD, 64): (7.2, "us"),
        ("bf16", ODD, 8): (4.9, "us"), ("bf16", ODD, 1): (4.3, "us")},
    "H200": {("bf16", BIG, 4096): (1.17, "x"), ("bf16", BIG, 16384): (1.15, "x")},
}

# ---- the floor ----------------------------------------------------------------------------------

FLOOR = r"""
#include <cuda_runtime.h>
template <int U> __global__ void read_only(const uint4 *p, size_t n, unsigned *never)
{
    size_t i = (size_t)blockIdx.x * blockDim.x * U + threadIdx.x;
    uint4 v[U];
#pragma unroll
    for (int k = 0; k < U; k++) {
        size_t j = i + (size_t)k * blockDim.x;
        v[k] = j < n ? __ldg(p + j) : make_uint4(0, 0, 0, 0);
    }
    unsigned x = 0;
#pragma unroll
    for (int k = 0; k < U; k++) x ^= v[k].x ^ v[k].y ^ v[k].z ^ v[k].w;
    if (x == 0x9e3779b9u) *never = x; // so that the loads stay
}
__global__ void empty() {}
template <int U> void launch(const void *p, size_t n, int threads, void *never, cudaStream_t s)
{
    size_t a = (size_t)threads * U;
    unsigned blocks = (unsigned)((n + a - 1) / a);
    read_only<U><<<blocks, threads, 0, s>>>((const uint4 *)p, n, (unsigned *)never);
}
extern "C" int floor_read(const void *p, size_t bytes, int unroll, int threads, void *never,
                          void *stream)
{
    size_t n = (bytes + 15) / 16;
    if (unroll == 1) launch<1>(p, n, threads, never, (cudaStream_t)stream);
    if (unroll == 2) launch<2>(p, n, threads, never, (cudaStream_t)stream);
    if (unroll == 4) launch<4>(p, n, threads, never, (cudaStream_t)stream);
    return (int)cudaGetLastError();
}
extern "C" int floor_empty(void *stream)
{
    empty<<<1, 32, 0, (cudaStream_t)stream>>>();
    return (int)cudaGetLastError();
}
"""
FLOOR_KERNELS = [(1, 256), (2, 256), (2, 512), (4, 256), (4, 512)] # 16-byte loads, threads


def build(source):
    """Compiles CUDA source for this GPU and loads it as a library."""
    nvcc = (os.environ.get("NVCC") or shutil.which("nvcc")
            or os.path.join(os.environ.get("CUDA_HOME", "/usr/local/cuda"), "bin", "nvcc"))
    major, minor = torch.cuda.get_device_capability()
    with tempfile.TemporaryDirectory() as folder:
        text, library = os.path.join(folder, "bench.cu"), os.path.join(folder, "bench.so")
        with open(text, "w") as f:
            f.write(source)
        subprocess.run([nvcc, "-O3", f"-arch=sm_{major}{minor}", "-shared", "-Xcompiler", "-fPIC",
                        "-o", library, text], check=True)
        return ctypes.CDLL(library)


def build_floor():
    loaded = build(FLOOR)
    loaded.floor_read.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int,
                                  ctypes.c_void_p, ctypes.c_void_p]
    loaded.floor_empty.argtypes = [ctypes.c_void_p]
    return loaded


# ---- peers: (logits, ids) to logprobs -----------------------------------------------------------

def log_softmax_gather(x, ids):
    return torch.log_softmax(x.float(), -1).gather(-1, ids[:, None])[:, 0]


def gather_logsumexp(x, ids):
    y = x.float()
    return y.gather(-1, ids[:, None])[:, 0] - y.logsumexp(-1)


def liger():
    try:
        from liger_kernel.transformers.functional import liger_cross_entropy
    except Exception as why: # whatever keeps it from loading
        return None, f"{type(why).__name__}: {why}"
    return lambda x, ids: -liger_cross_entropy(x, ids, reduction="none").float(), None


# ---- timing -------------------------------------------------------------------------------------

def bits(t):
    return t.cpu().view(torch.int32)


def stream():
    return torch.cuda.current_stream().cuda_stream


class Graph:
    """Times replays of a graph that makes all calls in turn, at_least that many. calls is a list of
    functions without arguments."""

    def __init__(self, calls, at_least=64):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side): # objects created at first use must exist before the capture
            calls[0]()
            calls[-1]()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        # With short graphs, the gaps between them would dominate the time.
        self.calls = calls * math.ceil(at_least / len(calls))
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            for call in self.calls:
                call()
        self.per = len(self.calls)

    def run(self, _):
        self.graph.replay()


class Events:
    """Times one call at a time."""

    def __init__(self, calls):
        self.calls, self.per = calls, 1

    def run(self, i):
        self.calls[i % len(self.calls)]()


def sample(timed, seconds, warm=WARM):
    """Samples for about that many seconds; each sample is the microseconds per call."""
    timed.run(0)
    torch.cuda.synchronize()
    start = time.perf_counter()
    for i in range(1, warm):
        timed.run(i)
    torch.cuda.synchronize()
    once = (time.perf_counter() - start) / (warm - 1)
    count = int(min(200, max(5, seconds / once)))
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(2 * count)]
    for i in range(count):
        marks[2 * i].record()
        timed.run(i)
        marks[2 * i + 1].record()
    torch.cuda.synchronize()
    return [marks[2 * i].elapsed_time(marks[2 * i + 1]) * 1e3 / timed.per for i in range(count)]


def in_turns(timed, seconds, rounds=3):
    """Gives, for each of several, the median of all samples and the spread of the medians of its
    rounds in %."""
    samples = [[] for _ in timed]
    for _ in range(rounds):
        for i, one in enumerate(timed):
            samples[i].append(sample(one, seconds))
    results = []
    for mine in samples:
        median = statistics.median(x for part in mine for x in part)
        medians = [statistics.median(part) for part in mine]
        results.append((median, 100 * (max(medians) - min(medians)) / median))
    return results


# ---- one shape ----------------------------------------------------------------------------------

class Shape:
    """Ids, and buffers of normal logits (sigma 3) that rotate within one pool of memory."""

    pools = {}

    def __init__(self, dtype, vocab, rows):
        self.key, self.vocab, self.rows = (dtype, vocab, rows), vocab, rows
        itemsize = DTYPES[dtype].itemsize
        self.bytes = rows * vocab * itemsize
        l2 = torch.cuda.get_device_properties(0).L2_cache_size
        # a buffer of many times the size of L2 evicts its own beginning before it is read again
        self.count = 1 if self.bytes >= 8 * l2 else 1 + math.ceil(2 * l2 / self.bytes)
        step = math.ceil(rows * vocab / 128) * 128 # in elements; buffers start at 256 bytes
        self.pool = self.take(dtype, step * self.count)
        self.logits = [self.pool[i * step:i * step + rows * vocab].view(rows, vocab)
                       for i in range(self.count)]
        generator = torch.Generator(device="cuda").manual_seed(rows * 31 + vocab)
        self.ids = [torch.randint(0, vocab, (rows,), device="cuda", generator=generator)
                    for _ in range(self.count)]
        self.token = torch.full((rows,), float("nan"), device="cuda")

    @classmethod
    def take(cls, dtype, elements):
        if dtype not in cls.pools or cls.pools[dtype].numel() < elements:
            cls.pools.pop(dtype, None)
            torch.cuda.empty_cache()
            cls.pools[dtype] = torch.empty(elements, dtype=DTYPES[dtype], device="cuda")
            cls.fill(dtype)
        return cls.pools[dtype]

    @classmethod
    def fill(cls, dtype):
        torch.manual_seed(0)
        for part in cls.pools[dtype].split(1 << 28):
            part.normal_(0, 3)

    def timed(self, calls, graphs=True, at_least=64):
        return Graph(calls, at_least) if graphs and self.rows <= GRAPH_ROWS else Events(calls)

    def floors(self, floor, never):
        def call(x, unroll, threads):
            if floor.floor_read(x.data_ptr(), self.bytes, unroll, threads, never.data_ptr(),
                                stream()) != 0:
                raise RuntimeError("the floor kernel was not launched")
        return [self.timed([lambda x=x, u=u, t=t: call(x, u, t) for x in self.logits])
                for u, t in FLOOR_KERNELS]

    def samebits(self, ctx, forced):
        calls = []
        for x, ids in zip(self.logits, self.ids):
            call = ctx.prepare(x, ids, token=self.token, **forced)
            size = call.workspace_size()
            if size: # calls run one by one in a stream, but each has its own
                call.use_workspace(torch.empty(size, dtype=torch.uint8, device="cuda"), size)
            calls.append(lambda call=call: call(stream()))
        return self.timed(calls)

    def some_rows(self, count):
        """Up to count rows, spread over the first buffer."""
        step = max(1, (self.rows - 1) // max(1, count - 1))
        return torch.arange(self.rows - 1, -1, -step, device="cuda")[:count].flip(0)

    def check(self, ctx, cpu, forced):
        """Returns the number of rows compared with the cpu backend, how many of them differ, and
        the error against fp64."""
        x, ids = self.logits[0], self.ids[0]
        lse = torch.full_like(self.token, float("nan"))
        self.token.fill_(float("nan"))
        ctx.logprob(x, ids, stream=stream(), token=self.token, lse=lse, check=1, **forced)
        rows = self.some_rows(8)
        few, few_ids = x[rows].cpu(), ids[rows].cpu()
        token, row_lse = torch.empty(len(rows)), torch.empty(len(rows))
        cpu.logprob(few, few_ids, token=token, lse=row_lse)
        unlike = ((bits(self.token[rows]) != bits(token)) | (bits(lse[rows]) != bits(row_lse)))
        return len(rows), int(unlike.sum()), self.error(self.token)

    def check_timed(self, timed, ctx, forced):
        """Counts the rows of the last buffer that differ between the timed call and one that
        waits."""
        self.token.fill_(float("nan"))
        timed.run(len(timed.calls) - 1)
        token = torch.full_like(self.token, float("nan"))
        ctx.logprob(self.logits[-1], self.ids[-1], stream=stream(), token=token, check=1,
                    **forced)
        return int((bits(self.token) != bits(token)).sum())

    def exact(self):
        """The fp64 logprobs of some rows of the first buffer."""
        rows = self.some_rows(16)
        y = self.logits[0][rows].double()
        exact = torch.log_softmax(y, -1).gather(-1, self.ids[0][rows][:, None])[:, 0]
        return rows, exact

    def error(self, token):
        rows, exact = self.exact()
        return float((token[rows].double() - exact).abs().max())


def measure(shape, floor, never, ctx, cpu, args):
    """Measures the floor and samebits, and checks its bits. Returns a dict."""
    forced = {"split": args.split, "threads": args.threads, "cluster": args.cluster}
    rows, unlike, error = shape.check(ctx, cpu, forced)
    seconds = 0.01 if args.quick else 0.04
    floors = shape.floors(floor, never)
    quick = [statistics.median(sample(f, seconds / 4)) for f in floors]
    best = floors[quick.index(min(quick))]
    ours = shape.samebits(ctx, forced)
    (floor_us, floor_spread), (us, spread) = in_turns([best, ours], seconds)
    notes = []
    unlike_timed = shape.check_timed(ours, ctx, forced)
    if unlike_timed:
        notes.append(f"{unlike_timed} rows of the timed call differ from a call that waits")
    return {"floor": floor_us, "us": us, "spread": max(spread, floor_spread), "rows": rows,
            "unlike": unlike + unlike_timed, "error": error, "peers": {}, "errors": {},
            "notes": notes}


def measure_peer(shape, name, peer, result, args, graphs=True):
    dtype = shape.key[0]
    before = shape.logits[0][:1].clone()
    try:
        with torch.no_grad():
            token = peer(shape.logits[0], shape.ids[0])
            result["errors"][name] = shape.error(token)
            del token
            timed = shape.timed([lambda x=x, i=i: peer(x, i)
                                 for x, i in zip(shape.logits, shape.ids)], graphs, 16)
            us = statistics.median(sample(timed, 0.02 if args.quick else 0.06))
        result["peers"][name] = (us, "" if isinstance(timed, Graph) else "e")
    except torch.cuda.OutOfMemoryError:
        result["notes"].append(f"{name}: out of memory")
    except Exception as why: # a failing peer must not end the run; the table shows it
        result["notes"].append(f"{name}: {type(why).__name__}: {str(why).splitlines()[0][:120]}")
    timed = token = None
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    if not torch.equal(before, shape.logits[0][:1]):
        result["notes"].append(f"{name}: overwrites the logits")
        Shape.fill(dtype)


# ---- the report ---------------------------------------------------------------------------------

def goal_cell(goals, key, us, floor):
    if key not in goals:
        return ""
    value, unit = goals[key]
    got = us / floor if unit == "x" else us
    return f"{value:g} {unit}: {'yes' if got <= value else 'no'}"


def report(meta, results):
    """The report as lines of Markdown. results is { (dtype, V, N): the dict of measure, with
    peers }, in order."""
    goals = next((g for name, g in GOALS.items() if name in meta["gpu"]), {})
    lines = [f"# GPU: samebits, {meta['gpu']}, {meta['date']}", ""]
    lines += [f"- {name}: {text}" for name, text in meta.items() if name not in ("gpu", "date")]
    lines += ["", "Microseconds per call, inputs not in L2; graphs up to 512 rows, else events",
              "(and where marked e). Spread: of three rounds' medians, the worse of floor's and",
              "samebits'. Goal: of time / floor (x) or of the time (us).", "",
              "| dtype | V | N | floor | samebits | spread | time / floor | goal | best peer | "
              "peer / samebits | bits as cpu |",
              "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    for key, r in results.items():
        best, ratio = "", ""
        if r["peers"]:
            name, (us, mark) = min(r["peers"].items(), key=lambda item: item[1][0])
            best, ratio = f"{us:.1f}{mark} {name}", f"{us / r['us']:.2f}"
        same = "equal" if r["unlike"] == 0 else f"**{r['unlike']} differ**"
        lines.append("| {} | {} | {} | {:.2f} | {:.2f} | {:.1f} % | {:.3f} | {} | {} | {} | {} |"
                     .format(*key, r["floor"], r["us"], r["spread"], r["us"] / r["floor"],
                             goal_cell(goals, key, r["us"], r["floor"]), best, ratio, same))
    names = []
    for r in results.values():
        names += [n for n in r["peers"] if n not in names]
    if names:
        lines += ["", "## Peers, microseconds (greatest error against fp64)", "",
                  "| dtype | V | N | samebits | " + " | ".join(names) + " |",
                  "| --- " * (4 + len(names)) + "|"]
        for key, r in results.items():
            if not r["peers"]:
                continue
            cells = [f"{r['us']:.1f} ({r['error']:.1e})"]
            for n in names:
                us, mark = r["peers"].get(n, (None, ""))
                cells.append("" if us is None else f"{us:.1f}{mark} ({r['errors'][n]:.1e})")
            lines.append("| {} | {} | {} | ".format(*key) + " | ".join(cells) + " |")
    notes = [f"- {key[0]}, V = {key[1]}, N = {key[2]}: {n}"
             for key, r in results.items() for n in r["notes"]]
    if notes:
        lines += ["", "## Notes", ""] + notes
    return lines


def driver():
    try:
        said = subprocess.run(["nvidia-smi", "--query-gpu=driver_version,clocks.max.sm,power.limit",
                               "--format=csv,noheader"], capture_output=True, text=True, check=True)
        return said.stdout.splitlines()[0].strip()
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "unknown"


def write(path, lines):
    with open(path + ".tmp", "w") as f:
        f.write("\n".join(lines) + "\n")
    os.replace(path + ".tmp", path)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", help="a Markdown file to write")
    parser.add_argument("--budget", type=float, default=None, help="seconds; default 300")
    parser.add_argument("--quick", action="store_true", help="60 s: fewer shapes and samples")
    parser.add_argument("--split", type=int, default=0, help="pieces per row; 0: chosen")
    parser.add_argument("--threads", type=int, default=0, help="threads per block; 0: chosen")
    parser.add_argument("--cluster", type=int, default=0, help="1, -1: as in sb_launch; 0: chosen")
    parser.add_argument("--no-peers", action="store_true")
    args = parser.parse_args()
    began = time.perf_counter()
    budget = args.budget or (60 if args.quick else 300)

    def left():
        return budget - (time.perf_counter() - began)

    if not torch.cuda.is_available():
        sys.exit("bench/gpu.py: PyTorch sees no CUDA device")
    properties = torch.cuda.get_device_properties(0)
    try:
        ctx, cpu = Context("cuda"), Context("cpu")
    except Unavailable as why:
        sys.exit(f"bench/gpu.py: {why}")
    floor, never = build_floor(), torch.zeros(1, dtype=torch.int32, device="cuda")
    empty = Graph([lambda: floor.floor_empty(stream())] * 64)
    empty_us = statistics.median(sample(empty, 0.02))
    meta = {
        "gpu": properties.name, "date": str(datetime.date.today()),
        "command": "`python3 " + " ".join([os.path.relpath(sys.argv[0])] + sys.argv[1:]) + "`",
        "machine": f"{properties.multi_processor_count} SMs, "
                   f"{properties.L2_cache_size / 2**20:.0f} MiB L2, "
                   f"{properties.total_memory / 2**30:.0f} GiB; driver, max clock, power limit: "
                   f"{driver()}",
        "software": f"samebits {lib.sb_version().decode()}, numerics {lib.sb_numerics()}; "
                    f"PyTorch {torch.__version__}, CUDA {torch.version.cuda}",
        "an empty kernel in a graph": f"{empty_us:.2f} us"}
    if args.split or args.threads or args.cluster:
        meta["forced"] = f"split {args.split}, threads {args.threads}, cluster {args.cluster}"

    wanted = [s for s in SHAPES if not args.quick or s in GOALS["H100"]]
    results, shapes, skipped = {}, {}, []
    for key in wanted:
        if left() < 5:
            skipped.append(key)
            continue
        try:
            shape = Shape(*key)
            results[key] = measure(shape, floor, never, ctx, cpu, args)
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            skipped.append(key)
            continue
        shape = None
        r = results[key]
        print(f"{key}: floor {r['floor']:.2f} us, samebits {r['us']:.2f} us, "
              f"x {r['us'] / r['floor']:.3f}, {r['unlike']} rows differ", flush=True)

    peers = [] if args.no_peers else [("log_softmax", log_softmax_gather, True),
                                      ("logsumexp", gather_logsumexp, True)]
    liger_peer, why = (None, None) if args.no_peers else liger()
    if liger_peer:
        peers.append(("Liger", liger_peer, False)) # it sometimes waits for the device
    elif why:
        meta["Liger"] = f"left out, {why}"
    for key in list(results):
        if left() < 15 or not peers:
            break
        shape = Shape(*key)
        for name, peer, graphs in peers:
            if left() > 10:
                measure_peer(shape, name, peer, results[key], args, graphs)
    # Compiling takes seconds per shape, so it comes last, and only for shapes with a goal.
    for key in [k for k in results if k in GOALS["H100"]]:
        if left() < 40 or not peers or args.quick:
            break
        torch._dynamo.reset()
        compiled = torch.compile(gather_logsumexp, dynamic=False)
        measure_peer(Shape(*key), "torch.compile", compiled, results[key], args)

    if skipped:
        meta["not measured (time or memory)"] = ", ".join(str(k) for k in skipped)
    meta["seconds"] = f"{time.perf_counter() - began:.0f} of {budget:.0f}"
    lines = report(meta, results)
    print("\n".join(lines))
    if args.out:
        write(args.out, lines)
    ctx.close()
    cpu.close()
    unlike = sum(r["unlike"] for r in results.values())
    if unlike or not results:
        sys.exit(f"bench/gpu.py: {unlike} rows differ from the cpu backend's bits")


if __name__ == "__main__":
    main()
