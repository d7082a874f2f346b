#!/usr/bin/env python3
"""Measures logprobs on the CUDA backend beside a read-only floor and the strongest peers, in one
run on one GPU.

    python3 bench/gpu.py [--out bench/results/peers-h200-DATE.md] [--peers DIR] [--budget 150]
                         [--phases infinite,forward,sustained,compile] [--shapes bf16:151936:4096]

Needs PyTorch, nvcc and build/release/libsamebits.so. bench/peers.py tells what the peers are and
where they come from; one that is not to be had is left out, and the record says so.

    infinite    who gives NaN for rows with -inf logits, as masks and top-k filters make them
    forward     every shape: floor, samebits and peers in turns
    sustained   the same for 2 s back to back, with clocks and power
    compile     with torch.compile among the peers of some shapes; it compiles for seconds per shape

Method (bench/timing.py, bench/shapes.py). Logits are never in L2. Up to 512 rows, a CUDA graph of
at least 64 calls is replayed and its time divided by their number, so that the cost of launches
does not show; above that, events before and after each call time it. The floor is the best of
several kernels that read the same bytes and do nothing else. The bits of 64 rows are compared with
those of the cpu backend, and all rows of the timed call with a call that waits. The record is
written again after each shape, so that a run that is cut off loses little.
"""
import argparse
import datetime
import os
import statistics
import subprocess
import sys
import time

import torch

import clocks
import goals
import tables
import timing
from floors import Floors
from peers import Forward, Peers, compiled, every, gather_logsumexp
from samebits_ctypes import Context, Unavailable, lib
from shapes import BIG, ODD, Shape, unlike, with_workspace

FORCED = ["split", "threads", "cluster", "table"] # of sb_launch
PHASES = ["infinite", "forward", "sustained", "compile"]
SECONDS = 0.03 # of a round of one program

# The most informative first.
FEW = [1, 8, 64, 512]
SHAPES = (
    [("bf16", BIG, n) for n in (4096, 16384, 512, 64, 8, 1)]
    + [("bf16", ODD, n) for n in (4096, 512, 64, 8, 1)]
    + [("fp32", BIG, 4096), ("fp16", BIG, 4096), ("bf16", ODD, 16384)]
    + [(d, BIG, n) for d in ("fp32", "fp16") for n in FEW + [16384]]
    + [(d, ODD, n) for d in ("fp32", "fp16") for n in FEW + [4096, 16384]])
COMPILED = [("bf16", BIG, n) for n in (4096, 8, 1)] + [("bf16", ODD, n) for n in (64, 1)]
SUSTAINED = ["Liger selective", "flash-attn CE", "quack CE, two passes"]


def parser_of(text, phases):
    """The arguments that gpu.py and gpu_ops.py share."""
    parser = argparse.ArgumentParser(description=text.split("\n\n")[0],
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", help="a Markdown file to write")
    parser.add_argument("--peers", metavar="DIR", help="a folder with peers; see bench/peers.py")
    parser.add_argument("--no-peers", action="store_true", help="samebits and the floor alone")
    parser.add_argument("--phases", default=",".join(phases), help="of " + ", ".join(phases))
    parser.add_argument("--budget", type=float, default=300,
                        help="seconds after which no further shape is begun; default 300")
    parser.add_argument("--seconds", type=float, default=SECONDS,
                        help=f"of each of three rounds of one program; default {SECONDS}")
    parser.add_argument("--floors", metavar="FILE",
                        help="a library of the floor's kernels, compiled into it if it is missing")
    parser.add_argument("--sustained", type=float, default=2.0, help="seconds; default 2")
    parser.add_argument("--commit", default=commit(), help="what the record names as measured")
    return parser


def phases_of(args, known):
    phases = args.phases.split(",")
    if set(phases) - set(known):
        sys.exit(f"no phase {', '.join(sorted(set(phases) - set(known)))}")
    return phases


def commit():
    said = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True,
                          text=True, cwd=os.path.dirname(os.path.abspath(__file__)), check=False)
    return said.stdout.strip() or "unknown"


def driver():
    try:
        said = subprocess.run(["nvidia-smi", "--query-gpu=driver_version,clocks.max.sm,power.limit",
                               "--format=csv,noheader"], capture_output=True, text=True, check=True)
        return said.stdout.splitlines()[0].strip()
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "unknown"


class Run:
    """One run on one GPU: contexts, floors, peers, what was measured, and the record of it."""

    def __init__(self, args, title, with_peers=True):
        self.args, self.title, self.began = args, title, time.perf_counter()
        if not torch.cuda.is_available():
            sys.exit("PyTorch sees no CUDA device")
        try:
            self.ctx, self.cpu = Context("cuda"), Context("cpu")
        except Unavailable as why:
            sys.exit(str(why))
        self.floors = Floors(args.floors)
        self.peers = Peers(args.peers) if with_peers and not args.no_peers else None
        self.lines, self.notes, self.infinite, self.late = [], [], {}, {}
        self.forced = {} # fields of sb_launch
        properties = torch.cuda.get_device_properties(0)
        self.goals = goals.of(properties.name)
        empty = timing.Graph([self.floors.empty] * 64)
        self.meta = {
            "gpu": properties.name, "date": str(datetime.date.today()), "commit": args.commit,
            "command": "`python3 " + " ".join([os.path.relpath(sys.argv[0])] + sys.argv[1:]) + "`",
            "machine": f"{properties.multi_processor_count} SMs, "
                       f"{properties.L2_cache_size / 2**20:.0f} MiB L2, "
                       f"{properties.total_memory / 2**30:.0f} GiB; driver, max clock, power "
                       f"limit: {driver()}; CPU threads of {os.cpu_count()}, {self.cpu.isa}",
            "software": f"samebits {lib.sb_version().decode()}, numerics {lib.sb_numerics()}; "
                        f"PyTorch {torch.__version__}, CUDA {torch.version.cuda}",
            "an empty kernel in a graph":
                f"{statistics.median(timing.sample(empty, 0.02)):.2f} us"}
        if self.peers:
            self.note_peers(self.peers, self.peers.forward + self.peers.gradient)
        if clocks.MISSING:
            self.meta["no clocks"] = clocks.MISSING
        self.say("begun")

    def say(self, text):
        print(f"[{time.perf_counter() - self.began:5.1f}] {text}", flush=True)

    def note_peers(self, peers, noted):
        """Keeps the versions of peers, the notes of some, and which are left out."""
        self.meta["peers"] = "; ".join(f"{n} {v}" for n, v in peers.versions.items())
        self.meta["of these"] = "; ".join(
            dict.fromkeys(f"{peer.name}: {peer.note}" for peer in noted if peer.note))
        if peers.missing:
            self.meta["peers left out"] = "; ".join(
                f"{n} ({why})" for n, why in peers.missing.items())
            self.say("peers left out: " + self.meta["peers left out"])

    def enough(self, seconds, what):
        """Whether that many seconds are left for something; otherwise it is noted."""
        left = self.args.budget - (time.perf_counter() - self.began)
        if left < seconds:
            self.note("not measured for lack of time", what)
        return left >= seconds

    def note(self, where, why):
        """Keeps what failed, for the record."""
        said = str(why).splitlines()[0][:160] if str(why) else ""
        self.notes.append(f"{where}: {type(why).__name__}: {said}" if isinstance(why, Exception)
                          else f"{where}: {said}")
        self.say("note: " + self.notes[-1])

    def add(self, line):
        """Keeps a line, in place of one of the same call and shape, and writes the record as far as
        it goes."""
        key = tables.key_of(line)
        self.lines = [other for other in self.lines if tables.key_of(other) != key] + [line]
        times = sorted((t[0], n) for n, t in line["times"].items())
        self.say(f"{line['call']} {line['dtype']} {line['vocab']} x {line['rows']}: floor "
                 f"{line['floor']:.2f}, {line['unlike']} of {line['compared']} rows unlike; "
                 + ", ".join(f"{n} {t:.2f}" for t, n in times))
        self.write()

    def write(self):
        if self.args.out:
            with open(self.args.out + ".tmp", "w") as f:
                f.write("\n".join(self.report()).rstrip() + "\n")
            os.replace(self.args.out + ".tmp", self.args.out)

    def poisoned(self):
        return tables.poisoned_by(self.infinite)

    def report(self):
        self.meta["seconds"] = f"{time.perf_counter() - self.began:.0f}"
        text = tables.head(self.title, self.meta)
        text += ["Microseconds per call, inputs not in L2; graphs up to 512 rows, events above.",
                 "Spread: of three rounds' medians. (n): gives NaN for rows with -inf logits.", ""]
        text += tables.summary(self.lines, self.goals, self.poisoned())
        if self.late:
            text += ["## Back to back for seconds", ""]
            for key, late in self.late.items():
                text += tables.sustained(key, late, self.goals)
        text += ["## Every program", ""] + self.programs()
        if self.infinite:
            text += ["## Rows with -inf logits", ""] + tables.infinities(self.infinite)
        text += ["## Launches", ""] + tables.plans(self.lines)
        return text + tables.notes(self.notes)

    def programs(self):
        """The tables of all that was timed."""
        return tables.columns(self.lines, self.poisoned())

    def close(self):
        """Ends the run; fails if any bits differ."""
        self.write()
        print("\n".join(self.report()))
        self.ctx.close()
        self.cpu.close()
        differ = sum(line["unlike"] for line in self.lines)
        if differ or not (self.lines or self.late or self.infinite):
            sys.exit(f"{differ} rows differ from the cpu backend's bits")

    def in_turns(self, where, timed, seconds=None):
        return timing.in_turns(timed, seconds or self.args.seconds,
                               lambda name, why: self.note(f"{where}: {name}", why))


# ---- logprobs -----------------------------------------------------------------------------------

def samebits_calls(run, shape, token):
    calls = []
    for x, ids in zip(shape.logits, shape.ids):
        call = run.ctx.prepare(x, ids, token=token, **run.forced)
        with_workspace(call, call.workspace_size())
        calls.append(lambda call=call: call(timing.stream()))
    return calls


def error_of(shape, token):
    """The greatest error of some rows against fp64."""
    rows = shape.some_rows(16)
    exact = shape.exact(rows).gather(-1, shape.ids[0][rows][:, None])[:, 0]
    return float((token[rows].double() - exact).abs().max())


def unlike_cpu(run, shape, token, rows):
    """Counts those of some rows of the first buffer whose bits are not the cpu backend's."""
    expected = torch.empty(len(rows))
    run.cpu.logprob(shape.logits[0][rows].cpu(), shape.ids[0][rows].cpu(), token=expected)
    return unlike(token[rows], expected)


def unlike_waiting(run, shape, timed, token):
    """Counts the rows of the last buffer that differ between the timed call and one that waits."""
    token.fill_(float("nan"))
    timed.run(len(timed.calls) - 1)
    waited = torch.full_like(token, float("nan"))
    run.ctx.logprob(shape.logits[-1], shape.ids[-1], stream=timing.stream(), token=waited, check=1)
    return unlike(token, waited)


def measure(run, key, peers):
    """One shape, all programs in turns."""
    dtype, vocab, rows = key
    shape, where = Shape(*key), " ".join(map(str, key))
    token = torch.full((rows,), float("nan"), device="cuda")
    calls, some = samebits_calls(run, shape, token), shape.some_rows(64)
    calls[0]()
    line = {"call": "logprob", "dtype": dtype, "vocab": vocab, "rows": rows,
            "plan": run.ctx.plan(), "compared": len(some),
            "unlike": unlike_cpu(run, shape, token, some),
            "errors": {tables.OURS: error_of(shape, token)}}
    timed = {"floor": run.floors.reading(shape, run.args.seconds / 4),
             tables.OURS: shape.timed(calls)}
    before = shape.logits[0][:1].clone()
    with torch.no_grad():
        for peer in peers:
            if not peer.fits(dtype, vocab):
                continue
            try:
                line["errors"][peer.name] = error_of(shape, peer.call(*shape.first()))
                timed[peer.name] = shape.timed(shape.each(peer.call), at_least=16)
            except Exception as why: # a failing peer must not end the run; the record shows it
                run.note(f"{where}: {peer.name}", why)
                torch.cuda.synchronize()
        line["times"] = run.in_turns(where, timed)
    line["unlike"] += unlike_waiting(run, shape, timed[tables.OURS], token)
    if unlike(before, shape.logits[0][:1]):
        run.note(where, "a peer overwrites the logits")
        Shape.drop()
    line["floor"] = line["times"].pop("floor").us
    return line


def forward(run, keys, with_compile):
    for key in keys:
        if not run.enough(5, f"{key}"):
            continue
        peers = list(run.peers.forward) if run.peers else []
        if with_compile and peers and key in COMPILED:
            peers.append(Forward("torch.compile", compiled(gather_logsumexp), "", every))
        try:
            run.add(measure(run, key, peers))
        except torch.cuda.OutOfMemoryError as why:
            run.note(f"{key}", why)
            Shape.drop()


def sustained(run, key):
    """Back to back: the floor, samebits and the strongest peers."""
    shape = Shape(*key)
    token = torch.full((shape.rows,), float("nan"), device="cuda")
    late = run.late.setdefault(("logprob",) + key, {})
    calls = {"read floor": run.floors.reading(shape, run.args.seconds / 4).calls[0],
             tables.OURS: samebits_calls(run, shape, token)[0]}
    for peer in run.peers.forward if run.peers else []:
        if peer.name in SUSTAINED and peer.fits(*key[:2]):
            calls[peer.name] = shape.each(peer.call)[0]
    with torch.no_grad():
        for name, call in calls.items():
            try:
                late[name] = clocks.sustained(call, run.args.sustained)
                run.say(f"back to back, {name}: {late[name]}")
            except Exception as why:
                run.note(f"back to back, {name}", why)
    run.write()


def infinite_rows(vocab, rows=16):
    """Kinds of rows with -inf logits, each with finite logprobs: name to logits [rows, V], of
    which a row after the last can be read. ids are of the last half of the vocabulary."""
    torch.manual_seed(5)
    inf = float("inf")
    base = torch.empty(rows + 1, vocab, device="cuda").normal_(0, 3)
    ids = torch.randint(vocab // 2, vocab, (rows,), device="cuda")
    kept = torch.randint(0, vocab, (rows + 1, 50), device="cuda")
    kinds = {"the first half -inf": base.clone(),
             "9 of 10 -inf": torch.where(torch.rand_like(base) < 0.9, -inf, base),
             "all but 51 -inf": torch.full_like(base, -inf).scatter_(1, kept, base.gather(1, kept)),
             "ids 4096 to 12287 -inf": base.clone()}
    kinds["the first half -inf"][:, :vocab // 2] = -inf
    kinds["ids 4096 to 12287 -inf"][:, 4096:12288] = -inf
    every_row = torch.arange(rows, device="cuda")
    for x in kinds.values():
        x[every_row, ids] = base[every_row, ids]
    return kinds, ids


def count_poisoned(run, calls):
    """calls: name to a function of (logits, ids) whose result has to be finite. Counts, for each
    kind of rows with -inf, those with NaN in the result."""
    kinds, ids = infinite_rows(BIG)
    for kind, x in kinds.items():
        x = x.to(torch.bfloat16)[:len(ids)]
        run.infinite[kind] = {}
        for name, call in calls.items():
            try:
                bad = call(x, ids).detach().isnan().reshape(len(ids), -1).any(1)
                run.infinite[kind][name] = (int(bad.sum()), len(ids))
            except Exception as why:
                run.note(f"{kind}: {name}", why)
    run.say("NaN for -inf: " + (", ".join(sorted(run.poisoned())) or "none"))
    run.write()


def infinite(run):
    def samebits(x, ids):
        token = torch.empty(len(ids), device="cuda")
        run.ctx.logprob(x, ids, stream=timing.stream(), token=token)
        return token
    calls = {tables.OURS: samebits}
    for peer in run.peers.forward if run.peers else []:
        if peer.fits("bf16", BIG):
            calls[peer.name] = peer.call
    with torch.no_grad():
        count_poisoned(run, calls)


def shapes_of(text):
    parts = [part.split(":") for part in text.split(",")]
    return [(dtype, int(vocab), int(rows)) for dtype, vocab, rows in parts]


def main():
    parser = parser_of(__doc__, PHASES)
    parser.add_argument("--shapes", help="dtype:V:N, comma-separated; default: all")
    parser.add_argument("--quick", action="store_true", help="only the shapes with a goal")
    for name in FORCED:
        parser.add_argument("--" + name, type=int, default=0, help="as in sb_launch; 0: chosen")
    args = parser.parse_args()
    phases = phases_of(args, PHASES)
    run = Run(args, "Logprobs on a GPU beside peers")
    run.forced = {name: getattr(args, name) for name in FORCED if getattr(args, name)}
    if run.forced:
        run.meta["forced"] = ", ".join(f"{name} {value}" for name, value in run.forced.items())
    keys = shapes_of(args.shapes) if args.shapes else SHAPES
    if args.quick:
        keys = [k for k in keys if ("logprob",) + k in run.goals]
    if "infinite" in phases:
        infinite(run)
    if "forward" in phases:
        forward(run, keys, "compile" in phases)
    if "sustained" in phases:
        sustained(run, keys[0])
    run.close()


if __name__ == "__main__":
    main()
