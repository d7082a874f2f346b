"""Times every operation on hidden states beside the logprobs of the same rows, which are the floor:
each operation needs all logits, unless the rows keep few ids. A part of gpu_head.py.

The bits of some rows are compared with those of the same operation on the logits that sb_logits
makes of these rows, in fp32.
"""
import torch

import tables
import timing
from samebits_ctypes import MOMENTS, SUMS
from shapes import unlike

FEW = 64     # rows, up to which graphs are replayed
COMPARED = 2 # rows whose bits are compared
IDS = 8      # of each row
KEPT = 64    # ids that each row keeps
FLOORS = {"divergence": 2} # how many calls for logprobs are the floor of an operation, if not 1


class Op:
    """An operation: the names of its options that are outputs of sb_logprob, its outputs, and how
    another call is made from a call and these."""

    def __init__(self, outputs, options=(), make=None, ids=1):
        self.outputs, self.options, self.make, self.ids = outputs, options, make, ids

    def of(self, prepare, ids, outputs):
        """A call, and the function of a stream that runs the operation. prepare(which, ids): a
        call of one of two batches."""
        ids = {0: None, 1: ids[:, 0].contiguous()}.get(self.ids, ids)
        call = prepare(0, ids, **dict(zip(self.options, outputs)))
        return call, self.make(call, prepare, outputs) if self.make else call


def keeps(kept):
    """Makes the calls of operations on rows that keep lists of ids, kept [rows, n]."""
    def make(call, prepare, outputs):
        lists = kept[:len(outputs[0])]
        offsets = torch.arange(len(lists) + 1, device="cuda") * kept.shape[1]
        call.keep_lists(lists.flatten(), offsets)
        return call
    return make


def operations(rows, kept):
    def floats(*shape):
        return torch.zeros(rows, *shape, device="cuda")

    def ints(*shape):
        return torch.zeros(rows, *shape, device="cuda", dtype=torch.int32)

    def records(state):
        return [torch.zeros(rows, n, device="cuda", dtype=torch.uint8) for n in (state, 8)]
    ops = {
        "logprob": Op([floats()], ["token"]),
        "logprob + entropy": Op([floats(), floats()], ["token", "entropy"]),
        "partial": Op(records(32), (), lambda call, _, out: call.partial(*out, SUMS)),
        "partial with moments": Op(records(64), (), lambda call, _, out: call.partial(*out,
                                                                                      MOMENTS)),
        f"{KEPT} ids kept": Op([floats()], ["token"], keeps(kept)),
        f"{KEPT} ids kept + entropy": Op([floats(), floats()], ["token", "entropy"], keeps(kept)),
        f"{IDS} ids": Op([floats(IDS)], (), lambda call, _, out: call.ids(IDS, *out), IDS),
        f"{IDS} ids and ranks": Op([floats(IDS), ints(IDS)], (),
                                   lambda call, _, out: call.ids(IDS, *out), IDS),
        "divergence": Op([floats()], (),
                         lambda call, prepare, out: call.kl(prepare(1, None), *out), 0)}
    for k in (1, 8, 64):
        ops[f"top-{k}"] = Op([ints(k), floats(k)], (),
                             lambda call, _, out, k=k: call.topk(k, *out), 0)
    return ops


def measure(bench, hidden, other, head, rows):
    """Times of the operations on the first so many rows of two matrices of hidden states: name:
    (Timing, bytes of workspace)."""
    ctx, few, vocab = bench.ctx, min(rows, COMPARED), len(head.weights)
    batches = hidden[:rows].contiguous(), other[:rows].contiguous()
    heads = [h[:few].contiguous() for h in batches]
    logits = [torch.empty(few, vocab, device="cuda") for _ in batches]
    ids = torch.randint(0, vocab, (rows, IDS), device="cuda")
    kept = torch.randint(0, vocab // KEPT, (rows, 1), device="cuda", dtype=torch.int32)
    kept = kept + torch.arange(KEPT, device="cuda", dtype=torch.int32) * (vocab // KEPT)
    timed, memory = {}, {}

    def add(name, call, run):
        memory[name] = size = call.needed(run)
        call.use_workspace(torch.empty(size + 256, dtype=torch.uint8, device="cuda"), size)
        run(timing.stream())
        torch.cuda.synchronize()

        def again():
            run(timing.stream())
        timed[name] = timing.Graph([again], 16) if rows <= FEW else timing.Events([again])

    def compare(name, got, expected):
        differ = sum(unlike(a[:few], b) for a, b in zip(got, expected))
        if differ:
            bench.say(f"{rows} rows, {name}: {differ} of {few} rows DIFFER")
        bench.differ += differ

    for of, to in zip(heads, logits):
        ctx.prepare_hidden(of, head, None).logits(to)(timing.stream())
    for name, op in operations(rows, kept).items():
        add(name, *op.of(lambda i, ids, **o: ctx.prepare_hidden(batches[i], head, ids, **o), ids,
                         op.outputs))
        expected = [torch.zeros_like(t[:few]) for t in op.outputs]
        op.of(lambda i, ids, **o: ctx.prepare(logits[i], ids, **o), ids[:few].contiguous(),
              expected)[1](timing.stream())
        torch.cuda.synchronize()
        compare(name, op.outputs, expected)
    for dtype in (torch.float32, torch.bfloat16):
        name, to = f"logits, {str(dtype)[6:]}", torch.empty(rows, vocab, dtype=dtype, device="cuda")
        call = ctx.prepare_hidden(batches[0], head, None)
        add(name, call, call.logits(to))
        compare(name, [to], [logits[0].to(dtype)])
    times = timing.in_turns(timed, bench.args.seconds,
                            lambda name, why: bench.note(f"{rows} rows: {name}", why))
    return {name: (times[name], memory[name]) for name in times}


def table(found):
    """A table: found is rows: what measure gave."""
    lines, most = [], max(found)
    for name in found[most]:
        cells = []
        for times in found.values():
            ms, floor = times[name][0].us / 1e3, times["logprob"][0].us / 1e3
            cells.append(f"{ms:.3f} ({ms / floor / FLOORS.get(name, 1):.2f})")
        lines.append([name] + cells + [tables.size(found[most][name][1])])
    return tables.table(["operation"] + [f"{n} rows" for n in found] + [f"memory, {most} rows"],
                        lines)
