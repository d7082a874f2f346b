#!/usr/bin/env python3
"""Measures what several GPUs compute together, one process for each, beside torch.distributed.

    python3 bench/gpu_ranks.py [--ranks N] [--out bench/results/ranks-h200-DATE.md]
                               [--rows 64,1024,2048,4096] [--shape 4096:151936] [--budget 100]
    torchrun --nproc-per-node N bench/gpu_ranks.py ...

Needs PyTorch with NCCL and build/release/libsamebits.so. Without --ranks, all GPUs take part; one
GPU is a world of one rank.

    exchange    records of rows, and the integers of a head cut in D, alone
    logits      token logprobs from bf16 logits of which each rank has V / N ids
    head        token logprobs from hidden states and a head, cut in V and cut in D

Method. A program runs on all ranks at the same time; its figure is that of the slowest rank, of the
medians of three rounds in turns, each of as many calls as the ranks agree on: replays of a CUDA
graph of 16 calls, or single calls between two events. The bits of every row are compared with one
call on the rank's own GPU, for logits also those of two rows with the cpu backend; the peers'
errors are against fp64, of 16 rows. Logits are normal with sigma 3.
"""
import argparse
import datetime
import os
import statistics
import sys
import time

import torch
import torch.distributed as dist

import tables
import timing
from gpu import commit, driver
from samebits_ctypes import Context, Head, lib
from samebits_ranks import (ADD, MAX, MOMENTS, SUMS, Communicator, PartOfHead, Products, Shard,
                            arrays, scales)
from shapes import unlike

FEW = 16              # rows whose errors are computed
PER_GRAPH = 16        # calls of a graph
CHUNK = 1 << 30       # bytes of integers of a head cut in D, at most, at a time
NORMAL = 3.0          # sigma of logits


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", help="a Markdown file to write")
    parser.add_argument("--ranks", type=int, default=0)
    parser.add_argument("--rows", default="64,1024,2048,4096")
    parser.add_argument("--shape", default="4096:151936", help="D:V")
    parser.add_argument("--form", default="h24w16")
    parser.add_argument("--seconds", type=float, default=0.05, help="of each of three rounds")
    parser.add_argument("--budget", type=float, default=100, help="seconds")
    parser.add_argument("--compile", action="store_true", help="a peer by torch.compile as well")
    parser.add_argument("--commit", default=None, help="what the record names as measured")
    return parser.parse_args()


# ---- timing on all ranks ------------------------------------------------------------------------

def most(value):
    """The largest of all ranks."""
    t = torch.tensor([float(value)], device="cuda", dtype=torch.float64)
    dist.all_reduce(t, dist.ReduceOp.MAX)
    return float(t)


def total(value):
    t = torch.tensor([int(value)], device="cuda")
    dist.all_reduce(t)
    return int(t)


def run_for(timed, count):
    """Seconds per run."""
    start = time.perf_counter()
    for i in range(count):
        timed.run(i)
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / count


def together(timed, seconds):
    """Microseconds per call: as many samples as all ranks can take in that time."""
    run_for(timed, 1)
    once = most(run_for(timed, 2))
    count = int(min(100, max(3, seconds / once)))
    marks = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(count)]
    dist.barrier()
    for i, (begin, end) in enumerate(marks):
        begin.record()
        timed.run(i)
        end.record()
    torch.cuda.synchronize()
    return [a.elapsed_time(b) * 1e3 / timed.per for a, b in marks]


def in_turns(timed, seconds, rounds=3):
    """Times a dict of several; gives name: (microseconds, spread in %), those of the slowest rank.
    """
    samples = {name: [] for name in timed}
    names = list(timed)
    for turn in range(rounds):
        shift = turn * len(names) // rounds
        for name in names[shift:] + names[:shift]:
            samples[name].append(statistics.median(together(timed[name], seconds)))
    results = {}
    for name, medians in samples.items():
        middle = most(statistics.median(medians))
        results[name] = middle, 100 * most(max(medians) - min(medians)) / middle
    return results


def single(call):
    return timing.Events([call])


def graph(call):
    return timing.Graph([call], at_least=PER_GRAPH)


# ---- peers: token logprobs from a rank's logits -------------------------------------------------

def gathered(x, ids, _):
    """All logits on every rank, then log_softmax in fp32."""
    every = torch.empty((dist.get_world_size(), *x.shape), dtype=x.dtype, device=x.device)
    dist.all_gather_into_tensor(every, x)
    whole = every.transpose(0, 1).reshape(len(x), -1)
    return torch.log_softmax(whole.float(), -1).gather(-1, ids[:, None])[:, 0]


def of_target(x, ids, first):
    """The target's logit if this rank has it, otherwise 0."""
    local = ids - first
    absent = (local < 0) | (local >= x.shape[1])
    at = x.gather(-1, local.masked_fill(absent, 0)[:, None])[:, 0]
    return at.masked_fill(absent, 0)


def vocab_parallel(x, ids, first):
    """As Megatron-LM's vocab_parallel_cross_entropy: all-reduces of maxima, of the target's logits
    and of sums."""
    x = x.float()
    largest = x.max(-1)[0]
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    x = x - largest[:, None]
    target = of_target(x, ids, first)
    dist.all_reduce(target)
    sums = x.exp().sum(-1)
    dist.all_reduce(sums)
    return target - sums.log()


def local_lse(x, ids, first):
    wide = x.float()
    return torch.stack([torch.logsumexp(wide, -1), of_target(x, ids, first).float()])


def of_local(part, x, ids, first):
    """Each rank's own lse and target, 8 bytes per row, gathered."""
    mine = part(x, ids, first)
    every = torch.empty((dist.get_world_size(), *mine.shape), device=x.device)
    dist.all_gather_into_tensor(every, mine)
    return every[:, 1].sum(0) - torch.logsumexp(every[:, 0], 0)


PEERS = {
    "torch: all-gather of logits, log_softmax": gathered,
    "torch: vocab-parallel (Megatron)": vocab_parallel,
    "torch: local logsumexp, 8 bytes gathered": lambda *a: of_local(local_lse, *a),
}


# ---- the bench ----------------------------------------------------------------------------------

class Bench:
    def __init__(self, args, rank, ranks):
        self.args, self.rank, self.ranks, self.began = args, rank, ranks, time.perf_counter()
        self.ctx, self.cpu = Context(f"cuda:{rank}"), Context("cpu")
        self.comm = Communicator(self.ctx, ranks, rank, self.share)
        self.width, self.vocab = map(int, args.shape.split(":"))
        cuts = [r * self.vocab // ranks // 16 * 16 for r in range(ranks)] + [self.vocab]
        self.first, self.held = cuts[rank], cuts[rank + 1] - cuts[rank]
        self.even = all(b - a == cuts[1] for a, b in zip(cuts, cuts[1:]))
        self.columns = [r * self.width // ranks for r in range(ranks + 1)]
        self.rows = [int(n) for n in args.rows.split(",")]
        self.text, self.notes, self.compared, self.differ = [], [], 0, 0
        self.peers = dict(PEERS)
        if args.compile:
            part = torch.compile(local_lse, dynamic=True)
            self.peers["torch.compile: local logsumexp, 8 bytes gathered"] = (
                lambda *a: of_local(part, *a))

    def share(self, mine):
        box = [mine]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def say(self, text):
        if self.rank == 0:
            print(f"[{time.perf_counter() - self.began:5.1f}] {text}", flush=True)

    def late(self, what):
        """Whether the budget is spent, on any rank."""
        spent = most(time.perf_counter() - self.began) > self.args.budget
        if spent:
            self.notes.append(f"{what}: not measured, for want of time")
        return spent

    def same(self, what, got, expected):
        torch.cuda.synchronize()
        wrong = total(unlike(got, expected))
        self.compared += total(len(got))
        self.differ += wrong
        if wrong:
            self.notes.append(f"**{what}: {wrong} rows differ**")
            self.say(self.notes[-1])

    def table(self, title, found, unit=1e3, form="{:.3f}"):
        """found: rows to name to (microseconds, spread)."""
        names = list(dict.fromkeys(name for times in found.values() for name in times))
        lines = [[name] + [f"{form.format(found[n][name][0] / unit)} "
                           f"({found[n][name][1]:.0f} %)" if name in found[n] else ""
                           for n in found] for name in names]
        self.text += [f"## {title}", ""] + tables.table(
            ["program"] + [f"{n} rows" for n in found], lines)
        if self.rank == 0:
            print("\n".join(self.text[-len(lines) - 5:]), flush=True)
        self.write()

    def write(self):
        """Writes the record, again after each table, so that a run that is cut off loses little."""
        if self.rank == 0 and self.args.out:
            with open(self.args.out, "w") as f:
                f.write("\n".join(self.record()).rstrip() + "\n")

    # ---- exchange alone ----

    def exchange(self):
        # Ignored rows: their records are zero, and stay so when they are merged again and again.
        ids, found = torch.full((max(self.rows),), -100, device="cuda"), {}
        few = torch.randn(max(self.rows), 256, device="cuda").bfloat16()
        for rows in self.rows:
            if self.late(f"exchange, {rows} rows"):
                break
            timed = {}
            for kind, name in ((SUMS, "40 bytes"), (MOMENTS, "72 bytes")):
                token = torch.empty(rows, device="cuda")
                call = self.ctx.prepare(few[:rows], ids[:rows], token=token,
                                        shape=(rows, 256 * self.ranks))
                shard = Shard(call, 256 * self.rank, 256, kind)
                shard.partial(timing.stream())
                torch.cuda.synchronize()
                run = lambda shard=shard: shard.exchange(self.comm, timing.stream())
                timed[f"records of {name}"] = single(run)
                timed[f"records of {name}, in a graph"] = graph(run)
            for name, n in (("scales", 1), ("products of 4096 ids", 4096)):
                values = torch.zeros(rows * n, dtype=torch.int32 if n == 1 else torch.int64,
                                     device="cuda")
                how = MAX if n == 1 else ADD
                run = lambda v=values, h=how: self.comm.all_reduce(v, h, timing.stream())
                timed[f"all-reduce of {name}"] = single(run)
                timed[f"all-reduce of {name}, in a graph"] = graph(run)
            found[rows] = in_turns(timed, self.args.seconds)
            self.say(f"exchange, {rows} rows")
        self.table("Exchange alone, microseconds", found, unit=1, form="{:.1f}")

    # ---- logits cut in V ----

    def logits(self):
        V, largest = self.vocab, max(self.rows)
        torch.manual_seed(1)
        whole = torch.empty(largest, V, dtype=torch.bfloat16, device="cuda")
        for part in whole.split(256):
            part.copy_(torch.randn(part.shape, device="cuda") * NORMAL)
        ids = torch.randint(0, V, (largest,), device="cuda")
        mine = whole[:, self.first:self.first + self.held].contiguous()
        few = min(FEW, min(self.rows))
        exact = torch.log_softmax(whole[:few].double(), -1).gather(-1, ids[:few, None])[:, 0]
        found, errors = {}, {}
        for rows in self.rows:
            if self.late(f"logits, {rows} rows"):
                break
            x, target = mine[:rows], ids[:rows]
            token, alone = (torch.full((rows,), float("nan"), device="cuda") for _ in range(2))
            self.ctx.prepare(whole[:rows], target, token=alone)(timing.stream())
            call = self.ctx.prepare(x, target, token=token, shape=(rows, V))
            shard = Shard(call, self.first, self.held)

            def ours(shard=shard):
                shard.partial(timing.stream())
                shard.exchange(self.comm, timing.stream())
                shard.finish(timing.stream())
            ours()
            self.same(f"logits, {rows} rows", token, alone)
            cpu = torch.empty(2)
            self.cpu.prepare(whole[:2].cpu(), ids[:2].cpu(), token=cpu)()
            self.same(f"logits, {rows} rows, cpu", token[:2], cpu)
            name = f"{tables.OURS}: partial, exchange, finish"
            errors[name] = float((token[:few].double() - exact).abs().max())
            timed = {name: single(ours), name + ", in a graph": graph(ours)}
            token.fill_(float("nan"))
            timed[name + ", in a graph"].run(0)
            self.same(f"logits, {rows} rows, in a graph", token, alone)
            for name, peer in self.peers.items():
                if name.endswith("log_softmax") and not self.even:
                    continue
                run = lambda peer=peer: peer(x, target, self.first)
                errors[name] = float((run()[:few].double() - exact).abs().max())
                timed[name] = single(run)
                if rows <= 1024 and not name.startswith("torch.compile"):
                    timed[name + ", in a graph"] = graph(run)
            found[rows] = in_turns(timed, self.args.seconds)
            self.say(f"logits, {rows} rows")
            del timed
        self.table(f"Token logprobs from bf16 logits, V = {V} cut in {self.ranks}, milliseconds",
                   found)
        self.text += ["Largest errors against fp64: " + "; ".join(
            f"{name} {most(error):.1e}" for name, error in errors.items()) + ".", ""]

    # ---- a head, cut in V and in D ----

    def head(self):
        V, D, form = self.vocab, self.width, self.args.form
        torch.manual_seed(2)
        hidden = torch.randn(max(self.rows), D, device="cuda").bfloat16()
        weights = torch.empty(V, D, dtype=torch.bfloat16, device="cuda")
        for part in weights.split(8192):
            part.copy_(torch.randn(part.shape, device="cuda") * (NORMAL / D ** 0.5))
        ids = torch.randint(0, V, (max(self.rows),), device="cuda")
        own = weights[self.first:self.first + self.held].contiguous()
        whole_head = Head(self.ctx, weights, form)
        of_ids = PartOfHead(self.ctx, own, form, first=self.first)
        columns = slice(self.columns[self.rank], self.columns[self.rank + 1])
        narrow = weights[:, columns].contiguous()
        of_w = torch.empty(V, dtype=torch.int32, device="cuda")
        scales(self.ctx, narrow, of_w, timing.stream())
        self.comm.all_reduce(of_w, MAX, timing.stream())
        torch.cuda.synchronize()
        of_columns = PartOfHead(self.ctx, narrow, form, scales=of_w)
        self.say("heads are prepared")
        found = {}
        for rows in self.rows:
            if self.late(f"head, {rows} rows"):
                break
            h, target = hidden[:rows], ids[:rows]
            alone, by_ids, by_columns = (torch.full((rows,), float("nan"), device="cuda")
                                         for _ in range(3))
            one = self.ctx.prepare_hidden(h, whole_head, target, token=alone)
            size = one.workspace_size()
            one.use_workspace(torch.empty(size + 256, dtype=torch.uint8, device="cuda"), size)
            one(timing.stream())
            cut_v = self.cut_in_v(h, of_ids, target, by_ids)
            cut_d = self.cut_in_d(h[:, columns].contiguous(), of_columns, target, by_columns)
            cut_v()
            self.same(f"head cut in V, {rows} rows", by_ids, alone)
            cut_d()
            self.same(f"head cut in D, {rows} rows", by_columns, alone)
            timed = {f"{tables.OURS} {form}: one GPU": single(lambda: one(timing.stream())),
                     f"{tables.OURS} {form}: cut in V": single(cut_v),
                     f"{tables.OURS} {form}: cut in D": single(cut_d)}
            if rows <= 64:
                timed[f"{tables.OURS} {form}: cut in V, in a graph"] = graph(cut_v)
                by_ids.fill_(float("nan"))
                timed[f"{tables.OURS} {form}: cut in V, in a graph"].run(0)
                self.same(f"head cut in V, {rows} rows, in a graph", by_ids, alone)
            for name, peer in self.peers.items():
                if self.even or not name.endswith("log_softmax"):
                    timed["bf16 product, " + name] = single(
                        lambda peer=peer: peer(h @ own.t(), target, self.first))
            found[rows] = in_turns(timed, self.args.seconds)
            self.say(f"head, {rows} rows")
            del timed, cut_d
        self.table(f"Token logprobs from hidden states, D = {D}, V = {V}, {self.ranks} ranks, "
                   "milliseconds", found)

    def cut_in_v(self, h, head, ids, token):
        call = self.ctx.prepare_hidden(h, head, ids, token=token)
        call.batch.vocab = self.vocab
        shard = Shard(call, self.first, self.held)

        def run():
            shard.partial(timing.stream())
            shard.exchange(self.comm, timing.stream())
            shard.finish(timing.stream())
        return run

    def cut_in_d(self, h, head, ids, token):
        """Chunks of ids: products, all-reduce, logits, and their records; merged in the end."""
        rows, V = len(h), self.vocab
        step = max(16, CHUNK // (8 * rows) // 16 * 16)
        firsts = list(range(0, V, step))
        of_h = torch.empty(rows, dtype=torch.int32, device="cuda")
        sums = torch.empty(rows * min(step, V), dtype=torch.int64, device="cuda")
        logits = torch.empty(rows * min(step, V), device="cuda")
        into, chunks = arrays(len(firsts), rows), []
        hidden = self.ctx.prepare_hidden(h, head, ids, token=token)
        for k, first in enumerate(firsts):
            n = min(step, V - first)
            part = Products(hidden, head, of_h, first, n, sums, logits)
            call = self.ctx.prepare(logits[:rows * n].view(rows, n), ids, token=token,
                                    shape=(rows, V))
            chunks.append((part, Shard(call, first, n, into=into, of=k), sums[:rows * n]))

        def run():
            stream = timing.stream()
            scales(self.ctx, h, of_h, stream)
            self.comm.all_reduce(of_h, MAX, stream)
            for part, shard, its in chunks:
                part.products(stream)
                self.comm.all_reduce(its, ADD, stream)
                part.combine(stream)
                shard.partial(stream)
            chunks[0][1].merge(len(chunks), stream)
            chunks[0][1].finish(stream)
        return run

    # ---- the record ----

    def record(self):
        properties = torch.cuda.get_device_properties(self.rank)
        meta = {
            "gpu": f"{self.ranks} x {properties.name}", "date": str(datetime.date.today()),
            "commit": self.args.commit or commit(), "machine": f"driver, max clock, power limit: "
            f"{driver()}; NCCL {'.'.join(map(str, torch.cuda.nccl.version()))}, NCCL_NVLS_ENABLE "
            f"{os.environ.get('NCCL_NVLS_ENABLE', 'unset')}",
            "software": f"samebits {lib.sb_version().decode()}, numerics {lib.sb_numerics()}; "
                        f"PyTorch {torch.__version__}",
            "bits": f"{self.compared} rows compared with one GPU's and the cpu's, "
                    f"{self.differ} differ",
            "seconds": f"{time.perf_counter() - self.began:.0f}"}
        lines = tables.head("Ranks", meta)
        lines += ["Each figure is the slowest rank's; in brackets the spread of three rounds.", ""]
        return lines + self.text + tables.notes(self.notes)


def of_rank(rank, ranks, args):
    torch.cuda.set_device(rank)
    dist.init_process_group("nccl", rank=rank, world_size=ranks,
                            timeout=datetime.timedelta(seconds=60),
                            device_id=torch.device("cuda", rank))
    bench = Bench(args, rank, ranks)
    bench.say(f"{ranks} ranks")
    with torch.no_grad():
        for phase in (bench.exchange, bench.logits, bench.head):
            phase()
            torch.cuda.empty_cache()
    bench.write()
    torch.cuda.synchronize()
    bench.comm.close()
    if rank == 0:
        print(f"{bench.compared} compared, {bench.differ} differ")
    dist.barrier()
    dist.destroy_process_group()
    if bench.differ:
        sys.exit(f"{bench.differ} rows differ")


def main():
    args = arguments()
    if "RANK" in os.environ: # by torchrun
        of_rank(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), args)
        return
    ranks = args.ranks or torch.cuda.device_count()
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29517")
    torch.multiprocessing.spawn(of_rank, args=(ranks, args), nprocs=ranks)


if __name__ == "__main__":
    main()
