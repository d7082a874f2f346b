#!/usr/bin/env python3
"""Times sampling on a GPU beside a kernel that only reads the logits, and beside peers.

    python3 bench/gpu_sample.py --peers sampling --commit HASH --out bench/results/FILE.md

The folder of --peers has sampling_peers.py; without it there are no peers. Tokens, logprobs and
kept sets are compared with the cpu's, bit for bit, before a case is timed. Logits are bf16, normal
with a standard deviation of 3; rows lie in several copies, so that no call finds them in L2. Up to
512 rows, graphs of many calls are timed, above single calls between events.
"""
import argparse
import ctypes
import datetime
import importlib
import subprocess
import sys
import time

import torch

import timing
from samebits_ctypes import Context

V = 151936
CASES = (("plain", {}), ("top-k 50, top-p 0.9", {"top_k": 50, "top_p": 0.9}),
         ("top-k 50", {"top_k": 50}), ("top-p 0.9", {"top_p": 0.9}),
         ("min-p 0.05", {"min_p": 0.05}))
GOALS = {("plain", 1): 8, ("plain", 64): 18, ("plain", 512): 75, ("plain", 4096): 420,
         ("top-k 50, top-p 0.9", 1): 20, ("top-k 50, top-p 0.9", 64): 45,
         ("top-k 50, top-p 0.9", 512): 170, ("top-k 50, top-p 0.9", 4096): 1200}


class Rows:
    """The logits of some rows, in as many copies as exceed L2, and the calls that sample them."""

    def __init__(self, ctx, cpu, n):
        copies = max(2, -(-(160 << 20) // (n * V * 2)))
        copies = min(copies, 64)
        torch.manual_seed(n)
        self.n, self.ctx, self.cpu = n, ctx, cpu
        self.logits = [(torch.randn(n, V, device="cuda") * 3).bfloat16() for _ in range(copies)]
        self.positions = torch.arange(n, device="cuda")
        self.outs = [torch.empty(n, dtype=t, device="cuda")
                     for t in (torch.int32, torch.float32, torch.float32)]

    def calls(self, how):
        out = []
        for logits in self.logits:
            call = self.ctx.prepare(logits, None)
            made = call.sample(self.positions, *self.outs, seed=7, **how)
            size = call.needed(made)
            call.use_workspace(torch.empty(max(size, 1), dtype=torch.uint8, device="cuda"), size)
            out.append(lambda made=made, call=call: made(timing.stream()))
        self.size = size
        return out

    def differ(self, how, rows=32):
        """How many of some rows differ from the cpu's, in any output."""
        n, words = self.n, -(-V // 32)
        some = min(n, rows)
        at = torch.linspace(0, n - 1, some).long()
        results = []
        for ctx, logits, positions in (
                (self.ctx, self.logits[0], self.positions),
                (self.cpu, self.logits[0][at.cuda()].cpu(), self.positions.cpu()[at])):
            device, rows_here = logits.device, len(logits)
            kept = how and torch.zeros(rows_here, words, dtype=torch.int32, device=device)
            count = how and torch.zeros(rows_here, dtype=torch.int32, device=device)
            outs = [torch.zeros(rows_here, dtype=t, device=device)
                    for t in (torch.int32, torch.float32, torch.float32)]
            call = ctx.prepare(logits, None)
            call.sample(positions, *outs, count=count if how else None,
                        kept=kept if how else None, seed=7, **how)(
                            timing.stream() if device.type == "cuda" else None)
            torch.cuda.synchronize()
            outs = [o.view(torch.int32).cpu() for o in outs] + ([count.cpu(), kept.cpu()]
                                                               if how else [])
            results.append([o if device.type == "cpu" else o[at] for o in outs])
        bad = torch.zeros(some, dtype=torch.bool)
        for a, b in zip(*results):
            bad |= (a.reshape(some, -1) != b.reshape(some, -1)).any(1)
        return int(bad.sum()), some


def floor(rows, path):
    """The fastest of some kernels that only read the logits."""
    c = ctypes.CDLL(path)
    c.floor_read.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int,
                             ctypes.c_void_p, ctypes.c_void_p]
    never = torch.zeros(1, dtype=torch.int32, device="cuda")

    def made(unroll, threads):
        return [lambda x=x: c.floor_read(x.data_ptr(), x.numel() * 2, unroll, threads,
                                         never.data_ptr(), timing.stream()) for x in rows.logits]
    return timing.quickest([timed(made(u, t), rows.n) for u in (1, 2, 4) for t in (256, 512)], 0.02)


def timed(calls, n):
    return timing.Graph(calls) if n <= 512 else timing.Events(calls)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rows", default="1,64,512,4096")
    parser.add_argument("--cases", default=",".join(str(i) for i in range(len(CASES))))
    parser.add_argument("--peers")
    parser.add_argument("--floors")
    parser.add_argument("--commit", default="-")
    parser.add_argument("--seconds", type=float, default=0.05, help="of each sampling")
    parser.add_argument("--out")
    args = parser.parse_args()
    began = time.time()
    peers, missing, versions = {}, {}, {}
    if args.peers:
        sys.path.insert(0, args.peers)
        peers, missing, versions = importlib.import_module("sampling_peers").load(args.peers)
    ctx, cpu = Context("cuda"), Context("cpu")
    gpu = torch.cuda.get_device_properties(0)
    driver = subprocess.run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
                            capture_output=True, text=True).stdout.strip()
    lines = [f"# Sampling on a GPU beside peers: samebits, {gpu.name}, {datetime.date.today()}", "",
             f"- commit: {args.commit}", f"- command: `python3 {' '.join(sys.argv)}`",
             f"- machine: {gpu.multi_processor_count} SMs; driver {driver}",
             f"- software: PyTorch {torch.__version__}, CUDA {torch.version.cuda}; " +
             ", ".join(f"{k} {v}" for k, v in versions.items() if k != "PyTorch"),
             "- missing peers: " + (", ".join(f"{k} ({v})" for k, v in missing.items()) or "none"),
             f"- logits: bf16, normal, standard deviation 3, V = {V}", "",
             "Microseconds per call, inputs not in L2; graphs up to 512 rows, events above.", "",
             "| call | N | floor | samebits | spread | goal | fastest peer | peer / samebits | "
             "rows that differ from the cpu's | plan |",
             "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    every = []
    for n in map(int, args.rows.split(",")):
        rows = Rows(ctx, cpu, n)
        low = floor(rows, args.floors) if args.floors else None
        for name, how in (CASES[int(i)] for i in args.cases.split(",")):
            differ, compared = rows.differ(how)
            programs = {"samebits": timed(rows.calls(how), n)}
            if low:
                programs["floor"] = low
            rows.calls(how)[0]()
            plan = ctx.plan()
            k, p = how.get("top_k"), how.get("top_p")
            failed = {}
            for peer, its in (peers.items() if "min_p" not in how else ()):
                if not its.fits(k, p) or peer.startswith("PyTorch sort") and n > 512:
                    continue
                try:
                    made = [lambda x=x, its=its: its.call(x, 1.0, k, p) for x in rows.logits[:4]]
                    made[0]()
                    torch.cuda.synchronize()
                    programs[peer] = timed(made, n) if "PyTorch" not in peer else \
                        timing.Events(made)
                except Exception as why:
                    failed[peer] = why
            times = timing.in_turns(programs, args.seconds, failed.__setitem__)
            torch.cuda.synchronize()
            mine = times["samebits"]
            others = {key: t for key, t in times.items() if key not in ("samebits", "floor")}
            best = min(others, key=lambda key: others[key].us) if others else None
            goal = GOALS.get((name, n))
            lines.append("| " + " | ".join([
                name, str(n), f"{times['floor'].us:.4g}" if low else "", f"{mine.us:.4g}",
                f"{mine.spread:.1f} %",
                f"{goal} us: {'yes' if mine.us <= goal else 'no'}" if goal else "",
                f"{others[best].us:.4g} {best}" if best else "",
                f"{others[best].us / mine.us:.2f}" if best else "", f"{differ} of {compared}",
                plan]) + " |")
            print(lines[-1], flush=True)
            every.append(f"| {name} | {n} | " + "; ".join(
                f"{key} {t.us:.4g}" for key, t in sorted(others.items(), key=lambda i: i[1].us)) +
                "".join(f"; {key}: {type(why).__name__}" for key, why in failed.items()) + " |")
            del programs
            torch.cuda.empty_cache()
        del rows, low
        torch.cuda.empty_cache()
    lines += ["", "## Every peer", "", "| call | N | us |", "| --- | --- | --- |"] + every
    lines.insert(9, f"- seconds: {time.time() - began:.0f}")
    if args.out:
        with open(args.out, "w") as f:
            f.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
