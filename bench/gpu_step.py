#!/usr/bin/env python3
"""Measures what an RL step needs beside logprobs and gradients, on the CUDA backend beside a floor
and the strongest peers, in one run on one GPU: draws of tokens, lists of kept ids, policy losses.

    python3 bench/gpu_step.py [--out bench/results/step-h200-DATE.md] [--peers DIR] [--budget 150]
                              [--phases sampling,kept,policy,compile] [--rows 4096,512,64,1]

Requirements and method are those of bench/gpu.py; bench/step_peers.py tells what the peers are and
where they come from. The bits of draws are compared with the cpu backend's for some rows, those of
policy losses for all tokens.

    sampling    draws from bf16 logits, for all --rows: plain, top-k, top-p, min-p, top-k and top-p.
                The floor reads the logits. The results are the token and both logprobs, but the
                peers' are the token alone. A peer that takes fp32 gets fp32
    kept        logprobs of rows that keep 512 ids each, given as lists and as bitsets. The floor
                reads the ids and their logits
    policy      policy losses and their gradients by fp32 logprobs. The floor reads the inputs and
                writes the gradients. N is sequences x tokens
    compile     with torch.compile among the peers of policy losses and of plain draws
"""
import sys

import torch

import gpu
import gpu_ops
import step_peers
import tables
import timing
from gpu_ops import outputs
from shapes import BIG, Shape, with_workspace

PHASES = ["sampling", "kept", "policy", "compile"]
SAMPLING = {"sample": {}, "sample, top-k 50": {"top_k": 50}, "sample, top-p 0.9": {"top_p": 0.9},
            "sample, min-p 0.05": {"min_p": 0.05},
            "sample, top-k 50, top-p 0.9": {"top_k": 50, "top_p": 0.9}}
SORTED_ROWS = 64 # a sort of more rows takes too long
KEPT, IDS = 4096, 512
LONG, SHORT = (256, 16384), (64, 2048)


# ---- draws --------------------------------------------------------------------------------------

def sample_calls(run, shape, how):
    """Calls for every buffer, and the bytes of their workspace."""
    positions = torch.arange(shape.rows, device="cuda")
    outs = [outputs(shape.rows, dtype=t) for t in (torch.int32, torch.float32, torch.float32)]
    return gpu_ops.several(run, shape, None,
                           lambda call: call.sample(positions, *outs, seed=7, **how))


def sample_results(ctx, logits, positions, how):
    """All results of a call that waits, kept sets among them."""
    rows, device = len(logits), logits.device
    outs = [outputs(rows, dtype=t, device=device) * 0
            for t in (torch.int32, torch.float32, torch.float32)]
    more = [outputs(rows, *extents, dtype=torch.int32, device=device) * 0
            for extents in ([(), (-(-BIG // 32),)] if how else [])]
    ctx.prepare(logits, None).sample(positions, *outs, *more, seed=7, **how)(
        timing.stream() if device.type == "cuda" else None)
    return outs + more


def sampling(run, rows, compiles):
    shape = Shape("bf16", BIG, rows)
    floor, some = run.floors.reading(shape, run.args.seconds / 4), shape.some_rows(16)
    positions = torch.arange(rows, device="cuda")
    wide = [x.float() for x in shape.logits] # what most peers take
    for name, how in SAMPLING.items():
        line = run.line(name, shape)
        calls, line["memory"][tables.OURS] = sample_calls(run, shape, how)
        calls[0]()
        line["plan"] = run.ctx.plan()
        got = sample_results(run.ctx, shape.logits[0], positions, how)
        want = sample_results(run.cpu, shape.logits[0][some].cpu(), positions[some].cpu(), how)
        run.compare(line, [(a[some], b) for a, b in zip(got, want)])
        timed = {tables.OURS: shape.timed(calls)}
        for peer in run.step.draws:
            if not peer.fits(how) or (peer.slow and rows > SORTED_ROWS):
                continue
            if peer.compiles and not (compiles and rows in (1, 4096)):
                continue
            source, restore = (wide if peer.wide else shape.logits), None
            if peer.in_place:
                scratch = source[0].clone()
                source, restore = [scratch], lambda s=scratch: s.copy_(wide[0])
            run.peer(line, shape, timed, peer.name,
                     [lambda x=x, peer=peer, how=how: peer.call(x, how) for x in source],
                     restore=restore)
        run.finish(line, timed, floor)


# ---- lists of kept ids --------------------------------------------------------------------------

def kept_lists(run):
    shape = Shape("bf16", BIG, KEPT)
    line, some = run.line(f"logprob, {IDS} ids kept", shape), shape.some_rows(64)
    line["floor is"] = "a gather"
    lists = torch.rand(KEPT, BIG, device="cuda").topk(IDS, -1).indices.int().sort(-1).values
    lists = lists.contiguous()
    offsets = torch.arange(0, KEPT * IDS + 1, IDS, device="cuda", dtype=torch.int32)
    bits = torch.zeros(KEPT, -(-BIG // 32) * 32, dtype=torch.uint8, device="cuda")
    bits.scatter_(1, lists.long(), 1)
    weights = (1 << torch.arange(32, device="cuda", dtype=torch.int64))
    words = torch.cat([(part.view(len(part), -1, 32) * weights).sum(-1)
                       for part in bits.split(64)]).int()
    del bits
    ids, timed = lists[:, IDS // 2].long().contiguous(), {}
    few = shape.logits[0][some].cpu()
    results = {}
    for name in (tables.OURS, tables.OURS + ", as bitsets"):
        token = outputs(KEPT)
        calls = []
        for x in shape.logits:
            call = run.ctx.prepare(x, ids, token=token)
            if name == tables.OURS:
                call.keep_lists(lists.view(-1), offsets)
            else:
                call.keep_bits(words)
            line["memory"][name] = call.workspace_size()
            with_workspace(call, line["memory"][name])
            calls.append(lambda call=call: call(timing.stream()))
        calls[0]()
        line.setdefault("plan", run.ctx.plan())
        results[name] = token
        timed[name] = shape.timed(calls)
    expected = outputs(len(some), device="cpu")
    call = run.cpu.prepare(few, ids[some].cpu(), token=expected)
    call.keep_lists(lists[some].cpu().contiguous().view(-1), offsets[:len(some) + 1].cpu())
    call()
    run.compare(line, [(token[some], expected) for token in results.values()])
    run.finish(line, timed, run.floors.gathering(shape, lists))


# ---- policy losses ------------------------------------------------------------------------------

class Tokens:
    """The inputs of policy losses, in buffers that rotate."""

    def __init__(self, batch, time):
        self.rows, self.batch, self.time = f"{batch} x {time}", batch, time
        generator = torch.Generator(device="cuda").manual_seed(batch + time)

        def normal(sigma):
            return torch.randn(batch, time, device="cuda", generator=generator) * sigma
        self.sets = []
        for _ in range(3 if batch * time > 1 << 20 else 24):
            now = -normal(1).abs()
            old = now + normal(0.05)
            lengths = torch.randint(time // 4, time + 1, (batch, 1), device="cuda",
                                    generator=generator)
            self.sets.append({
                "now": now, "old": old, "ref": now + normal(0.1), "rollout": old + normal(0.02),
                "entropy": normal(1).abs(),
                "advantages": torch.randn(batch, device="cuda", generator=generator),
                "mask": (torch.arange(time, device="cuda") < lengths).to(torch.uint8)})

    def timed(self, calls, at_least=16):
        long = self.batch * self.time > 1 << 20
        return timing.Events(calls) if long else timing.Graph(calls, at_least)


POLICIES = { # name: rules, inputs, whether there are metrics
    "PPO loss": ({"tokens": 1 << 40}, ("old", "mask"), False),
    "PPO loss, tokens counted": ({}, ("old", "mask"), False),
    "GRPO loss, KL": ({"tokens": 1 << 40, "beta": 0.04}, ("old", "ref", "mask"), False),
    "GRPO loss, KL, sequences counted": ({"norm": 2, "beta": 0.04}, ("old", "ref", "mask"), False),
    "GRPO loss, KL, metrics": ({"tokens": 1 << 40, "beta": 0.04}, ("old", "ref", "mask"), True),
    "CISPO loss, all inputs, metrics": (
        {"tokens": 1 << 40, "loss": 3, "beta": 0.04, "eta": 0.01, "weight": 1, "w_high": 2.0},
        ("old", "ref", "rollout", "entropy", "mask"), True),
    "GSPO loss": ({"loss": 2, "norm": 2, "eps_low": 3e-4, "eps_high": 4e-4}, ("old", "mask"),
                  False)}


def policy_outputs(tokens, metrics, entropy, device):
    shape = tokens.batch, tokens.time
    out = {"loss": (1,), "sequence": shape[:1], "token": shape}
    if metrics:
        out["metrics"] = 16,
    if entropy:
        out["entropy"] = shape
    out = {name: outputs(*extents, device=device) for name, extents in out.items()}
    out["record"] = outputs(98, dtype=torch.int64, device=device)
    return out


def policy_call(ctx, tokens, buffers, case, device):
    """A call, and its outputs by name."""
    rules, inputs, metrics = case
    out = policy_outputs(tokens, metrics, "eta" in rules, device)
    there = {name: x.to(device) for name, x in buffers.items() if name in inputs}
    return ctx.prepare_policy(buffers["now"].to(device), buffers["advantages"].to(device), out,
                              rules=rules, **there), out


def policy(run, tokens, compiles):
    for name, case in POLICIES.items():
        if not run.enough(3, name):
            continue
        line = {"call": name, "dtype": "fp32", "vocab": "-", "rows": tokens.rows, "compared": 0,
                "unlike": 0, "errors": {}, "memory": {}, "ones": set(), "floor is": "a copy"}
        calls = []
        for buffers in tokens.sets:
            call, out = policy_call(run.ctx, tokens, buffers, case, "cuda")
            line["memory"][tables.OURS] = call.workspace_size()
            with_workspace(call, line["memory"][tables.OURS])
            calls.append((call, out))
        calls[0][0](timing.stream())
        line["plan"] = run.ctx.plan()
        call, want = policy_call(run.cpu, tokens, tokens.sets[0], case, "cpu")
        call()
        run.compare(line, [(calls[0][1][key].view(-1), want[key].view(-1)) for key in want])
        timed = {tables.OURS: tokens.timed([lambda c=c: c(timing.stream()) for c, _ in calls])}
        for peer in run.step.policies:
            if peer.compiles and not compiles or not peer.fits(name):
                continue
            run.peer(line, tokens, timed, peer.name,
                     [lambda b=b, peer=peer, case=case: peer.call(b, case)
                      for b in tokens.sets])
        run.finish(line, timed, tokens.timed(policy_floor(run, calls, tokens, case)))


def policy_floor(run, calls, tokens, case):
    """Kernels that read a call's inputs and write its gradients."""
    made = []
    for buffers, (_, out) in zip(tokens.sets, calls):
        reads = [buffers[name] for name in ("now",) + case[1] if name != "mask"]
        writes = [out[name] for name in ("token", "entropy") if name in out]
        made.append(run.floors.streaming(reads, buffers["mask"], writes))
    return made


def records(run, tokens, count=256):
    """The merge of records with metrics, as of so many micro-batches."""
    case = POLICIES["GRPO loss, KL, metrics"]
    line = {"call": f"merge of {count} records", "dtype": "fp32", "vocab": "-",
            "rows": count, "compared": 0, "unlike": 0, "errors": {}, "memory": {}, "ones": set(),
            "floor is": "an empty kernel"}
    call, out = policy_call(run.cpu, tokens, tokens.sets[0], case, "cpu")
    call()
    all_records = out["record"].repeat(count).view(count, -1)
    results = []
    for ctx, device in ((run.ctx, "cuda"), (run.cpu, "cpu")):
        merged = {"loss": outputs(1, device=device), "metrics": outputs(16, device=device),
                  "record": outputs(98, dtype=torch.int64, device=device)}
        buffers = {key: x[:1, :1].contiguous() for key, x in tokens.sets[0].items()
                   if key in ("now",)}
        made = ctx.prepare_policy(buffers["now"].to(device),
                                  tokens.sets[0]["advantages"][:1].to(device), merged,
                                  rules={"tokens": 1 << 40})
        there = all_records.to(device)
        results.append((made.merge(there, count), merged))
        results[-1][0](timing.stream() if device == "cuda" else None)
    line["plan"] = run.ctx.plan()
    run.compare(line, [(a, results[1][1][key]) for key, a in results[0][1].items()])
    run.finish(line, {tables.OURS: timing.Graph([lambda: results[0][0](timing.stream())])},
               timing.Graph([run.floors.empty]))


def main():
    parser = gpu.parser_of(__doc__, PHASES)
    parser.add_argument("--rows", default="4096,512,64,1")
    args = parser.parse_args()
    phases, rows = gpu.phases_of(args, PHASES), [int(n) for n in args.rows.split(",")]
    compiles = "compile" in phases
    run = gpu_ops.Ops(args, "Draws, kept sets and policy losses on a GPU beside peers", False)
    run.step = step_peers.StepPeers(None if args.no_peers else args.peers, not args.no_peers)
    run.note_peers(run.step, run.step.draws + run.step.policies)
    with torch.no_grad():
        if "policy" in phases:
            for size in (LONG, SHORT):
                tokens = Tokens(*size)
                policy(run, tokens, compiles and size == LONG)
            records(run, tokens)
            del tokens
            torch.cuda.empty_cache()
        if "kept" in phases and run.enough(5, "lists of kept ids"):
            kept_lists(run)
        for n in rows if "sampling" in phases else []:
            if run.enough(10, f"draws, N = {n}"):
                sampling(run, n, compiles)
        Shape.drop()
    run.close()


if __name__ == "__main__":
    sys.exit(main())
