#!/usr/bin/env python3
"""Measures logprobs from hidden states, exact, beside products and fused heads of other libraries,
in one run on one GPU.

    python3 bench/gpu_head.py [--out bench/results/head-h200-DATE.md] [--peers DIR]
                              [--shapes 4096:151936,576:49152] [--rows 4096,1024,64,8,1]
                              [--phases heads,ops] [--op-rows 4096,64,1]

Needs PyTorch and build/release/libsamebits.so. The peers are PyTorch (head_baselines.py) and those
that are installed or in DIR (head_peers.py). The other operations on hidden states are timed beside
samebits' own logprobs (head_ops.py).

Method (bench/timing.py). hidden and weights are bf16, of normal distribution. Up to 64 rows, a CUDA
graph of 16 calls is replayed and its time divided by their number, if the program can be captured;
otherwise events before and after each call time it. All programs of a shape take turns. The bits of
some rows are compared with the cpu backend's, for weights of at most 10^8 elements, and otherwise
with those of the rows alone; each program's logprobs are compared with fp64.
"""
import argparse
import datetime
import statistics
import sys
import time

import torch

import clocks
import head_baselines
import head_ops
import tables
import timing
from gpu import commit, driver
from head_peers import HeadPeers
from samebits_ctypes import Context, Head, lib
from shapes import unlike

FORMATS = ["h24w16", "h24w24"]
FEW = 64       # rows, up to which graphs are replayed
COMPARED = 2   # rows whose bits are compared
ON_CPU = 1e8   # elements of weights, at most, for a head on the cpu


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", help="a Markdown file to write")
    parser.add_argument("--peers", metavar="DIR", help="a folder with peers: see head_peers.py")
    parser.add_argument("--shapes", default="4096:151936,576:49152", help="D:V, D:V ...")
    parser.add_argument("--rows", default="4096,1024,64,8,1")
    parser.add_argument("--phases", default="heads,ops", help="heads: beside peers; ops: the other "
                        "operations on hidden states, h24w16")
    parser.add_argument("--op-rows", default="4096,64,1")
    parser.add_argument("--seconds", type=float, default=0.03, help="of each of three rounds")
    parser.add_argument("--budget", type=float, default=120, help="seconds")
    parser.add_argument("--commit", default=commit(), help="what the record names as measured")
    return parser.parse_args()


class Bench:
    def __init__(self, args):
        self.args, self.began = args, time.perf_counter()
        self.ctx, self.cpu = Context("cuda"), Context("cpu")
        others = HeadPeers(args.peers)
        self.peers, self.missing = head_baselines.peers() | others.peers, others.missing
        versions = {"PyTorch": torch.__version__} | others.versions
        properties = torch.cuda.get_device_properties(0)
        self.meta = {
            "gpu": properties.name, "date": str(datetime.date.today()), "commit": args.commit,
            "machine": f"{properties.multi_processor_count} SMs; driver, max clock, power limit: "
                       f"{driver()}",
            "software": f"samebits {lib.sb_version().decode()}, numerics {lib.sb_numerics()}",
            "peers": "; ".join(f"{n} {v}" for n, v in versions.items())}
        if self.missing:
            self.meta["peers left out"] = "; ".join(f"{n} ({w})" for n, w in self.missing.items())
        self.text, self.notes, self.differ = [], [], 0

    def say(self, text):
        print(f"[{time.perf_counter() - self.began:5.1f}] {text}", flush=True)

    def note(self, where, why):
        said = str(why).splitlines()[0][:120] if str(why) else ""
        self.notes.append(f"{where}: {type(why).__name__}: {said}")
        self.say("note: " + self.notes[-1])

    def write(self):
        self.meta["seconds"] = f"{time.perf_counter() - self.began:.0f}"
        lines = tables.head("Logprobs from hidden states", self.meta)
        lines += ["Milliseconds per call. Error: the largest of a logprob, against fp64. Memory: "
                  "the most that PyTorch held beside inputs, or samebits' workspace.", ""]
        lines += self.text + tables.notes(self.notes)
        if self.args.out:
            with open(self.args.out, "w") as f:
                f.write("\n".join(lines).rstrip() + "\n")
        return lines

    # ---- one shape ----

    def heads(self, weight):
        """The heads of both formats, and the time of preparing each."""
        heads = {form: Head(self.ctx, weight, form) for form in FORMATS}
        for form, head in heads.items():
            update = timing.Events([lambda head=head: head.update(timing.stream())])
            ms = statistics.median(timing.sample(update, self.args.seconds)) / 1e3
            self.text += [f"- preparing the weights, {form}: {ms:.3f} ms, "
                          f"{head.bytes / 1e9:.2f} GB"]
        return heads

    def ours(self, hidden, head, ids):
        """A call with its own workspace, and its output."""
        token = torch.full((len(ids),), float("nan"), device="cuda")
        call = self.ctx.prepare_hidden(hidden, head, ids, token=token)
        size = call.workspace_size()
        call.use_workspace(torch.empty(size + 256, dtype=torch.uint8, device="cuda"), size)
        return call, token, size

    def compare(self, hidden, head, ids, token, on_cpu):
        """Counts the rows whose bits are not the cpu backend's, or not those of the rows alone."""
        rows = list(range(0, len(ids), max(1, len(ids) // COMPARED)))[:COMPARED]
        expected = torch.empty(len(rows), device="cpu" if on_cpu else "cuda")
        ctx, head = (self.cpu, on_cpu) if on_cpu else (self.ctx, head)
        ctx.prepare_hidden(hidden[rows].to(expected.device), head, ids[rows].to(expected.device),
                           token=expected)()
        torch.cuda.synchronize()
        self.differ += unlike(token[rows], expected)

    def timed(self, rows, call, graph):
        if rows <= FEW and graph:
            return timing.Graph([call], at_least=16)
        return timing.Events([call])

    def measure(self, hidden, weight, wide, heads, on_cpu, rows):
        h = hidden[:rows].contiguous()
        ids = torch.randint(0, len(weight), (rows,), device="cuda")
        few = min(rows, 16)
        exact = torch.cat([torch.log_softmax(part.double() @ wide.t(), -1)
                           for part in h[:few].split(4)]).gather(-1, ids[:few, None])[:, 0]
        timed, errors, memory = {}, {}, {}
        for form, head in heads.items():
            call, token, size = self.ours(h, head, ids)
            call(timing.stream())
            torch.cuda.synchronize()
            self.compare(h, head, ids, token, on_cpu.get(form))
            name = f"{tables.OURS} {form}"
            errors[name] = float((token[:few].double() - exact).abs().max())
            memory[name] = size
            timed[name] = self.timed(rows, lambda call=call: call(timing.stream()), True)
        for name, peer in self.peers.items():
            if not peer.fits(h, weight):
                continue
            try:
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated()
                got = peer.call(h, weight, ids)
                torch.cuda.synchronize()
                memory[name] = torch.cuda.max_memory_allocated() - before
                errors[name] = float((got[:few].double() - exact).abs().max())
                timed[name] = self.timed(rows, lambda peer=peer: peer.call(h, weight, ids),
                                         peer.graph)
            except Exception as why: # a failing peer must not end the run
                self.note(f"{rows} rows: {name}", why)
        results = timing.in_turns(timed, self.args.seconds,
                                  lambda name, why: self.note(f"{rows} rows: {name}", why))
        return results, errors, memory

    def ops(self, hidden, head):
        """The operations on hidden states, beside logprobs."""
        found, other = {}, torch.randn_like(hidden)
        for rows in (int(n) for n in self.args.op_rows.split(",")):
            found[rows] = head_ops.measure(self, hidden, other, head, rows)
            self.say(f"ops, rows {rows}: " + ", ".join(
                f"{n} {t.us / 1e3:.3f}" for n, (t, _) in found[rows].items()))
        self.text += ["Operations on hidden states, h24w16; in brackets: as a multiple of the time "
                      "of logprobs, of two calls for the divergence of two batches.", ""]
        self.text += head_ops.table(found)

    def shape(self, width, vocab):
        torch.manual_seed(0)
        phases = self.args.phases.split(",")
        counts = [int(n) for n in self.args.rows.split(",")] if "heads" in phases else []
        most = max(counts + [int(n) for n in self.args.op_rows.split(",")])
        hidden = torch.randn(most, width, device="cuda").bfloat16()
        weight = (torch.randn(vocab, width, device="cuda") * (3 / width ** 0.5)).bfloat16()
        self.text += [f"## D = {width}, V = {vocab}", ""]
        heads = self.heads(weight)
        on_cpu = {form: Head(self.cpu, weight.cpu(), form) for form in FORMATS
                  if weight.numel() <= ON_CPU}
        wide = weight.double() if counts else None
        found = {}
        with torch.no_grad():
            for rows in counts:
                if time.perf_counter() - self.began > self.args.budget:
                    self.note(f"D = {width}", TimeoutError(f"{rows} rows were not measured"))
                    continue
                found[rows] = self.measure(hidden, weight, wide, heads, on_cpu, rows)
                times = found[rows][0]
                self.say(f"D {width} V {vocab} rows {rows}: " + ", ".join(
                    f"{n} {t.us / 1e3:.3f}" for n, t in sorted(times.items(),
                                                             key=lambda item: item[1].us)))
        names = list(dict.fromkeys(name for times, _, _ in found.values() for name in times))
        most = max(found, default=0)
        table = []
        for name in names:
            cells = [f"{found[n][0][name].us / 1e3:.3f}" if name in found[n][0] else ""
                     for n in found]
            _, errors, memory = found[most]
            table.append([name] + cells + [f"{errors.get(name, float('nan')):.1e}",
                                           tables.size(memory.get(name, 0))])
        self.text += [""]
        if found:
            self.text += tables.table(["program"] + [f"{n} rows" for n in found]
                                      + ["error", f"memory, {most} rows"], table)
        if "ops" in phases:
            self.ops(hidden, heads["h24w16"])
        for head in list(heads.values()) + list(on_cpu.values()):
            head.free()
        self.write()


def main():
    args = arguments()
    bench = Bench(args)
    if clocks.MISSING:
        bench.meta["no clocks"] = clocks.MISSING
    for shape in args.shapes.split(","):
        bench.shape(*map(int, shape.split(":")))
    print("\n".join(bench.write()))
    if bench.differ:
        sys.exit(f"{bench.differ} rows differ from the cpu backend's bits")


if __name__ == "__main__":
    main()
