"""Token logprobs of a column-parallel head, without gathering logits.

    torchrun --nproc_per_node 2 examples/python/tensor_parallel.py [cpu | cuda]

Each rank has the weights of some ids, and all have the hidden states. For each token a rank sends
40 bytes, the exact sum over its ids and the target's logit if it has it, whatever the vocabulary.
Every rank then has the logprobs that one GPU has with all the weights, to the last bit, for any
number of ranks. Beside it: the same by a bf16 product and all-reduces of floats, as trainers do it.

The records are gathered by torch.distributed, with NCCL on GPUs and gloo on the CPU. A program
without torch.distributed calls sb_exchange, which gathers with NCCL and merges in one call. Without
torchrun, there is one rank.
"""
import ctypes
import os
import sys

import torch
import torch.distributed as dist

from samebits_torch import (Head, Launch, Out, Struct, check, context, i32, i64, lib, must, pointer,
                            stream_of)

N, D, V, TEMPERATURE = 96, 192, 5003, 0.8
STATE_BYTES, TARGET_BYTES = 32, 8  # the records of a row

lib.sb_partial.argtypes = [pointer] * 3 + [i64, i64, pointer]
lib.sb_merge.argtypes = [pointer] * 3 + [i64, i64, pointer]
lib.sb_finish.argtypes = [pointer] * 5


class Records(Struct):
    _fields_ = [("size", ctypes.c_uint32), ("kind", i32), ("states", pointer),
                ("targets", pointer)]


def records_of(states, targets):
    return Records(kind=1, states=states.data_ptr(), targets=targets.data_ptr())


def gathered(mine, ranks):
    every = mine.new_empty((ranks, *mine.shape))
    dist.all_gather(list(every.unbind(0)), mine)
    return every


def column_parallel_logprobs(hidden, ids, head, temperature=1.0):
    """The logprobs of ids [N] from hidden states [N, D], by the heads of all ranks."""
    device, rows, ranks = hidden.device, len(ids), dist.get_world_size()
    ctx, launch = context(device), Launch(stream=stream_of(device))
    states = torch.empty(rows, STATE_BYTES, dtype=torch.uint8, device=device)
    targets = torch.empty(rows, TARGET_BYTES, dtype=torch.uint8, device=device)
    token = torch.empty(rows, device=device)
    mine, batch = records_of(states, targets), head.batch(hidden, ids, temperature)
    must(lib.sb_partial(ctx, ctypes.byref(mine), ctypes.byref(batch), head.first, head.held,
                        ctypes.byref(launch)), ctx)
    all_states, all_targets = gathered(states, ranks), gathered(targets, ranks)
    every = records_of(all_states, all_targets)
    must(lib.sb_merge(ctx, ctypes.byref(mine), ctypes.byref(every), ranks, rows,
                      ctypes.byref(launch)), ctx)
    out = Out(token=token.data_ptr())
    must(lib.sb_finish(ctx, ctypes.byref(out), ctypes.byref(batch), ctypes.byref(mine),
                       ctypes.byref(launch)), ctx)
    return token


def whole_logprobs(hidden, ids, head, temperature=1.0):
    """The same by a head of all ids."""
    token, ctx = torch.empty(len(ids), device=hidden.device), context(hidden.device)
    out, batch = Out(token=token.data_ptr()), head.batch(hidden, ids, temperature)
    launch = Launch(stream=stream_of(hidden.device))
    must(lib.sb_logprob(ctx, ctypes.byref(out), ctypes.byref(batch), ctypes.byref(launch)), ctx)
    return token


def conventional_logprobs(hidden, ids, weights, first, temperature=1.0, reduce=dist.all_reduce):
    """A bf16 product, and all-reduces of maxima, of the targets' logits and of sums."""
    logits = (hidden @ weights.t()).float() / temperature
    largest = logits.max(-1)[0]
    reduce(largest, dist.ReduceOp.MAX)
    logits = logits - largest[:, None]
    local = ids - first
    absent = (local < 0) | (local >= len(weights))
    target = logits.gather(-1, local.masked_fill(absent, 0)[:, None])[:, 0].masked_fill(absent, 0)
    reduce(target, dist.ReduceOp.SUM)
    sums = logits.exp().sum(-1)
    reduce(sums, dist.ReduceOp.SUM)
    return target - sums.log()


def bits(x):
    return x.contiguous().view(torch.int32)


def main(device, rank, ranks):
    torch.manual_seed(1)  # the same model and batch on all ranks
    hidden = torch.randn(N, D).bfloat16().to(device)
    weights = (torch.randn(V, D) / D ** 0.5 * 3).bfloat16().to(device)
    ids = torch.randint(0, V, (N,)).to(device)

    cuts = [r * V // ranks // 16 * 16 for r in range(ranks)] + [V]
    first, past = cuts[rank], cuts[rank + 1]
    own = weights[first:past].contiguous()  # all that this rank needs of them
    head = Head(own, first, V)
    token = column_parallel_logprobs(hidden, ids, head, TEMPERATURE)

    whole = Head(weights)
    alone = whole_logprobs(hidden, ids, whole, TEMPERATURE)
    if device.type == "cuda":
        check(device)
    different = int((bits(token) != bits(alone)).sum())
    assert different == 0, "rank %d: %d logprobs have other bits" % (rank, different)

    cut = conventional_logprobs(hidden, ids, own, first, TEMPERATURE)
    usual = conventional_logprobs(hidden, ids, weights, 0, TEMPERATURE, lambda *_: None)
    torch.testing.assert_close(token, usual, rtol=0, atol=0.1)  # bf16 logits
    if rank == 0:
        print("%d tokens, %d ids, %d ranks of %s" % (N, V, ranks, device.type))
        print("exact head: 0 logprobs differ from those of one rank")
        print("bf16 product and all-reduces: %d differ, by up to %.1e"
              % (int((bits(cut) != bits(usual)).sum()), float((cut - usual).abs().max())))
    head.free()
    whole.free()


if __name__ == "__main__":
    torch.set_num_threads(1)
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29511")
    RANK, RANKS = (int(os.environ.get(name, default)) for name, default in
                   (("RANK", 0), ("WORLD_SIZE", 1)))
    LOCAL = int(os.environ.get("LOCAL_RANK", RANK))
    CUDA = (sys.argv[1] == "cuda" if len(sys.argv) > 1
            else torch.cuda.device_count() >= int(os.environ.get("LOCAL_WORLD_SIZE", RANKS)))
    if CUDA:
        torch.cuda.set_device(LOCAL)
    dist.init_process_group("nccl" if CUDA else "gloo", rank=RANK, world_size=RANKS)
    main(torch.device("cuda", LOCAL) if CUDA else torch.device("cpu"), RANK, RANKS)
    dist.destroy_process_group()
