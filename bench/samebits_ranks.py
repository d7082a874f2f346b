"""What ranks do together, for Python: records of shards, communicators, and heads cut in V and D.

    comm = Communicator(ctx, ranks, rank, share)      # share(id or None): rank 0's id, everywhere
    shard = Shard(call, first, n)                     # of a Call of samebits_ctypes
    shard.partial(stream); shard.exchange(comm, stream); shard.finish(stream)

Tensors are PyTorch's. Calls are unchecked, and take a workspace of their own.
"""
import ctypes

import torch

from samebits_ctypes import I32, I64, F32, Head, Launch, Weights, _address, _dtype, lib

pointer, i32, i64 = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
SUMS, MOMENTS = 1, 2
STATE_BYTES, TARGET_BYTES = {SUMS: 32, MOMENTS: 64}, 8
ADD, MAX = 1, 2
ID_BYTES = 128

lib.sb_partial.argtypes = [pointer, pointer, pointer, i64, i64, pointer]
lib.sb_merge.argtypes = [pointer, pointer, pointer, i64, i64, pointer]
lib.sb_finish.argtypes = [pointer] * 5
lib.sb_exchange.argtypes = [pointer, pointer, i64, pointer, pointer]
lib.sb_comm_new_id.argtypes = [pointer] * 2
lib.sb_comm_create.argtypes = [pointer, pointer, pointer, i32, i32]
lib.sb_comm_destroy.argtypes = [pointer] * 2
lib.sb_all_reduce.argtypes = [pointer, pointer, i32, i64, i32, pointer, pointer]
lib.sb_scales.argtypes = [pointer, pointer, pointer, i32, i64, i64, i64, pointer]
lib.sb_products.argtypes = [pointer, pointer, pointer, pointer, i64, i64, pointer]
lib.sb_combine.argtypes = [pointer, pointer, pointer, pointer, pointer, i64, i64, i64, pointer]


class Id(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_char * ID_BYTES)]


class Records(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint32), ("kind", i32), ("states", pointer),
                ("targets", pointer)]


def _bytes(count):
    return torch.empty(count, dtype=torch.uint8, device="cuda")


def launch(workspace=None):
    """A launch with as many bytes of workspace."""
    made = Launch(size=ctypes.sizeof(Launch))
    if workspace:
        made.keep = _bytes(workspace + 256)
        made.workspace, made.workspace_size = _address(made.keep), workspace
    return made


def with_workspace(call):
    """A launch with the workspace that call(launch) needs."""
    size, asks = ctypes.c_uint64(), launch()
    asks.needed = ctypes.addressof(size)
    call(asks)
    return launch(size.value)


class Communicator:
    def __init__(self, ctx, ranks, rank, share):
        its = Id()
        if rank == 0:
            ctx.must(lib.sb_comm_new_id(ctx.handle, ctypes.byref(its)))
        raw = share(bytes(its) if rank == 0 else None)
        ctypes.memmove(ctypes.byref(its), raw, ID_BYTES)
        self.ctx, self.ranks, self.rank, self.handle = ctx, ranks, rank, pointer()
        ctx.must(lib.sb_comm_create(ctx.handle, ctypes.byref(self.handle), ctypes.byref(its),
                                    ranks, rank))
        self.launch = launch(16 * ranks + 256)

    def all_reduce(self, values, reduction, stream):
        self.launch.stream = stream
        self.ctx.must(lib.sb_all_reduce(self.ctx.handle, _address(values),
                                        {torch.int32: I32, torch.int64: I64}[values.dtype],
                                        values.numel(), reduction, self.handle,
                                        ctypes.byref(self.launch)))

    def close(self):
        self.ctx.must(lib.sb_comm_destroy(self.ctx.handle, self.handle))


class Shard:
    """The records of a Call's rows, of the ids first .. first + n - 1, in arrays of their own or
    in row `of` of those of several shards."""

    def __init__(self, call, first, n, kind=SUMS, into=None, of=0):
        self.call, self.ctx, self.first, self.n, self.kind = call, call.ctx, first, n, kind
        batch = call.batch
        self.rows = batch.rows or batch.batch * batch.time
        self.states, self.targets = into or arrays(1, self.rows, kind)
        self.records = records(self.states[of], self.targets[of], kind)
        self.launches = {"partial": with_workspace(self._partial),
                         "finish": with_workspace(self._finish)}

    def _partial(self, how):
        self.ctx.must(lib.sb_partial(self.ctx.handle, ctypes.byref(self.records),
                                     ctypes.byref(self.call.batch), self.first, self.n,
                                     ctypes.byref(how)))

    def _finish(self, how):
        self.ctx.must(lib.sb_finish(self.ctx.handle, ctypes.byref(self.call.out),
                                    ctypes.byref(self.call.batch), ctypes.byref(self.records),
                                    ctypes.byref(how)))

    def _exchange(self, comm, how):
        self.ctx.must(lib.sb_exchange(self.ctx.handle, ctypes.byref(self.records), self.rows,
                                      comm.handle, ctypes.byref(how)))

    def partial(self, stream):
        self.launches["partial"].stream = stream
        self._partial(self.launches["partial"])

    def finish(self, stream):
        self.launches["finish"].stream = stream
        self._finish(self.launches["finish"])

    def exchange(self, comm, stream, check=0):
        if "exchange" not in self.launches:
            self.launches["exchange"] = with_workspace(lambda how: self._exchange(comm, how))
        how = self.launches["exchange"]
        how.stream, how.check = stream, check
        self._exchange(comm, how)

    def merge(self, count, stream):
        """Merges the arrays' records of count shards into the first."""
        how = launch()
        how.stream = stream
        all_of_them = records(self.states, self.targets, self.kind)
        self.ctx.must(lib.sb_merge(self.ctx.handle, ctypes.byref(self.records),
                                   ctypes.byref(all_of_them), count, self.rows,
                                   ctypes.byref(how)))


def arrays(shards, rows, kind=SUMS):
    """Arrays for the records of several shards."""
    return (_bytes(shards * rows * STATE_BYTES[kind]).view(shards, -1),
            _bytes(shards * rows * TARGET_BYTES).view(shards, -1))


def records(states, targets, kind=SUMS):
    return Records(ctypes.sizeof(Records), kind, _address(states), _address(targets))


class PartOfHead(Head):
    """A Head of some ids, from `first` on; or of some columns, with the scales of whole rows."""

    def __init__(self, ctx, weights, form, first=0, scales=None):
        self.ctx, self.weights, self.handle, self.first = ctx, weights, pointer(), first
        ids, width = weights.shape
        self.of = Weights(size=ctypes.sizeof(Weights), dtype=_dtype(weights),
                          weights=_address(weights), ids=ids, width=width, first=first,
                          scales=_address(scales), row_stride=weights.stride(0), bias_dtype=F32,
                          format={"h24w16": 1, "h24w24": 2}[form], scale=1.0)
        ctx.must(lib.sb_head_create(ctx.handle, ctypes.byref(self.handle), ctypes.byref(self.of),
                                    None, 0, None))


def scales(ctx, matrix, out, stream):
    how = launch()
    how.stream = stream
    rows, width = matrix.shape
    ctx.must(lib.sb_scales(ctx.handle, _address(out), _address(matrix), _dtype(matrix), rows, width,
                           matrix.stride(0), ctypes.byref(how)))


class Products:
    """Sums [rows, n] of a Call of hidden states with a head of some columns, and their logits."""

    def __init__(self, call, head, of_h, first, n, sums, logits):
        self.call, self.ctx, self.head, self.of_h = call, call.ctx, head, of_h
        self.first, self.n, self.sums, self.logits = first, n, sums, logits
        self.rows = call.batch.batch * call.batch.time
        self.how = with_workspace(self._products)

    def _products(self, how):
        self.ctx.must(lib.sb_products(self.ctx.handle, _address(self.sums),
                                      ctypes.byref(self.call.batch), _address(self.of_h),
                                      self.first, self.n, ctypes.byref(how)))

    def products(self, stream):
        self.how.stream = stream
        self._products(self.how)

    def combine(self, stream):
        how = launch()
        how.stream = stream
        self.ctx.must(lib.sb_combine(self.ctx.handle, _address(self.logits), _address(self.sums),
                                     _address(self.of_h), self.head.handle, self.rows, self.first,
                                     self.n, ctypes.byref(how)))
