#!/usr/bin/env python3
"""Makes short calls to the CUDA backend, for compute-sanitizer, and compares them bit for bit with
the cpu backend.

    python3 bench/gpu_short.py [--repeats N] [--streams N] [--exact] [--backend cuda]

Plain Python, without PyTorch. Without options, it runs every dtype, id dtype, layout and kind of
row at shapes on the edges, divided and launched in several ways: logprobs alone, and with
entropies, gradients or both. --repeats runs one batch N times, in changing ways. --streams uses N
streams at once. The last line is a digest of the results, which is the same on any GPU.
"""
import argparse
import array
import ctypes
import hashlib
import random
import struct
import sys

from samebits_ctypes import DEVICE, Context, Unavailable, lib

INF, NAN = float("inf"), float("nan")


class Array:
    """Elements in the memory of a context, with the interface of a tensor.

    Kernels read logits in aligned chunks of 16 bytes, each of which holds at least one logit. The
    other bytes of a first or last chunk are never used, and the GPU allocates whole chunks. But
    compute-sanitizer counts bytes, so the last chunk is completed and written here, unless exact is
    set.
    """

    exact = False

    def __init__(self, ctx, dtype, data, itemsize, offset=0):
        self.ctx, self.dtype, self.bytes, self.itemsize = ctx, dtype, bytes(data), itemsize
        self.offset, self.base = offset, ctypes.c_void_p()
        size = max(1, len(self.bytes) + offset)
        if not Array.exact:
            size = (size + 15) // 16 * 16
        ctx.must(lib.sb_memory_alloc(ctx.handle, ctypes.byref(self.base), size, DEVICE))
        if self.bytes:
            self.write(bytes(offset) + self.bytes + bytes(size - offset - len(self.bytes)),
                       -offset)

    def __len__(self):
        return len(self.bytes) // self.itemsize

    def data_ptr(self):
        return self.base.value + self.offset

    def write(self, data, at=0):
        self.ctx.must(lib.sb_memory_copy(self.ctx.handle, self.data_ptr() + at, data, len(data),
                                         None))
        self.ctx.must(lib.sb_stream_wait(self.ctx.handle, None))

    def read(self):
        into = ctypes.create_string_buffer(len(self.bytes))
        self.ctx.must(lib.sb_memory_copy(self.ctx.handle, into, self.data_ptr(), len(self.bytes),
                                         None))
        self.ctx.must(lib.sb_stream_wait(self.ctx.handle, None))
        return into.raw

    def free(self):
        self.ctx.must(lib.sb_memory_free(self.ctx.handle, self.base, DEVICE))


def encode(values, dtype):
    if dtype == "float32":
        return array.array("f", values).tobytes()
    if dtype == "float16":
        return struct.pack(f"<{len(values)}e", *values)
    words = array.array("I", array.array("f", values).tobytes())
    return array.array("H", [w >> 16 for w in words]).tobytes() # exact, see logits()


def logits(seed, rows, vocab):
    """Values that fp16 and bf16 hold exactly, including the worst that rows can contain."""
    source = random.Random(seed)
    values = [source.randint(-128, 127) / 8 for _ in range(rows * vocab)]
    for r in range(rows):
        kind, first = r % 7, r * vocab
        if kind == 1:
            values[first:first + vocab // 2] = [-INF] * (vocab // 2)
        elif kind == 2:
            values[first + vocab - 1] = NAN
        elif kind == 3:
            values[first:first + vocab] = [-INF] * vocab
        elif kind == 4:
            values[first + source.randrange(vocab)] = 61440.0
        elif kind == 5:
            values[first] = INF
    return values


# (rows or (B, T), vocab, options)
SHAPES = [
    ((1,), 1, {}), ((1,), 15, {}), ((3,), 16, {}), ((9,), 17, {"ids": "int64"}),
    ((7,), 1023, {"temperature": 0.75}), ((8,), 1025, {"mask": True}),
    ((65,), 257, {"temperatures": True}), ((4, 5), 129, {"shift": 1, "mask": True}),
    ((12,), 333, {"row_list": [0, 2, 3, 11]}), ((11,), 64, {"cu_seqlens": [0, 0, 4, 11]}),
    ((9,), 4097, {"stride": 4103}), ((2,), 50257, {}), ((3, 3), 2048, {"stride": 2049}),
    ((37,), 2048, {"aligned": True}), ((140,), 4104, {"aligned": True, "mask": True}),
]
FORCED = ("split", "threads", "cluster", "table", "one_read")
WAYS = [dict(zip(FORCED, way)) for way in (
    (0, 0, 0, 0, 0), (1, 32, 0, -1, 1), (3, 64, -1, 1, -1), (17, 512, 0, 0, 1), (8, 256, 1, 0, -1),
    (1, 256, 0, 1, 0), (2, 128, 1, 0, 0), (7, 64, -1, 1, 1), (0, 0, 0, 1, 1), (0, 0, 0, -1, -1))]
MORE = [("entropy",), ("gradient",), ("entropy", "gradient")] # beside logprobs, in turns


class Case:
    """A batch in the memory of a context, and the arrays that calls write to."""

    def __init__(self, ctx, shape, vocab, dtype, options, offset=0):
        rows = 1
        for extent in shape:
            rows *= extent
        stride, source = options.get("stride", vocab), random.Random(rows * vocab)
        itemsize = 4 if dtype == "float32" else 2
        ids_dtype = options.get("ids", "int32")
        ids = [source.randrange(vocab) if r % 5 else -100 for r in range(1, rows + 1)]
        self.arrays, self.sequences = [], shape[0] if len(shape) == 2 else 1

        def add(name, data, size, at=0):
            self.arrays.append(Array(ctx, name, data, size, at))
            return self.arrays[-1]

        values = logits(vocab, rows, stride)
        arguments = {
            "logits": add(dtype, encode(values, dtype), itemsize, offset * itemsize),
            "ids": add(ids_dtype, array.array("i" if ids_dtype == "int32" else "q", ids).tobytes(),
                       4 if ids_dtype == "int32" else 8),
            "shape": (*shape, vocab), "row_stride": stride, "shift": options.get("shift", 0),
            "temperature": options.get("temperature", 1.0)}
        if options.get("mask"):
            arguments["mask"] = add("uint8", bytes(r % 3 != 1 for r in range(rows)), 1)
        if options.get("temperatures"):
            taus = array.array("f", [0.5 + r / 16 for r in range(rows)])
            arguments["temperatures"] = add("float32", taus.tobytes(), 4)
        for name, code, kind, size in (("row_list", "q", "int64", 8),
                                       ("cu_seqlens", "i", "int32", 4)):
            if name in options:
                data = array.array(code, options[name]).tobytes()
                arguments[name] = add(kind, data, size)
        if "cu_seqlens" in options:
            self.sequences = len(options["cu_seqlens"]) - 1
        self.outputs = {
            "token": add("float32", b"\xee" * 4 * rows, 4),
            "lse": add("float32", b"\xee" * 4 * rows, 4),
            "sequence": add("float32", b"\xee" * 4 * self.sequences, 4),
            "count": add("int64", b"\xee" * 8 * self.sequences, 8)}
        self.entropy = {"entropy": add("float32", b"\xee" * 4 * rows, 4)}
        self.gradient = add(dtype, b"\xee" * itemsize * rows * vocab, itemsize)
        slopes = array.array("f", [(r % 9 - 4) / 8 for r in range(rows)]).tobytes()
        self.by_token, self.by_entropy = add("float32", slopes, 4), add("float32", slopes, 4)
        self.ctx, self.arguments = ctx, {**arguments, **self.outputs}

    def call(self, workspace=True, check=0, more=(), **launch):
        """A Call with a workspace of its own, or with one allocated in the order of the stream."""
        call = self.ctx.prepare(check=check, **launch, **self.arguments,
                                **(self.entropy if "entropy" in more else {}))
        if "gradient" in more:
            call.use_gradient(self.gradient, self.by_token,
                              self.by_entropy if "entropy" in more else None)
        size = call.workspace_size()
        if workspace and size:
            # not initialised, so that initcheck finds kernels that read unwritten memory
            scratch = Array(self.ctx, "uint8", b"", 1, size)
            self.arrays.append(scratch)
            call.launch.workspace, call.launch.workspace_size = scratch.base.value, size
        return call

    def written(self):
        return [*self.outputs.values(), *self.entropy.values(), self.gradient]

    def poison(self):
        for out in self.written():
            out.write(b"\xee" * len(out.bytes))

    def results(self):
        return b"".join(out.read() for out in self.written())

    def free(self):
        for one in self.arrays:
            one.free()


def fail(what):
    sys.exit(f"bench/gpu_short.py: {what}")


def every_shape(ctx, cpu, digest):
    calls = 0
    for shape, vocab, options in SHAPES:
        for number, dtype in enumerate(("float32", "float16", "bfloat16")):
            reference, expected = Case(cpu, shape, vocab, dtype, options), {}
            for more in [()] + MORE:
                reference.poison()
                reference.call(more=more)()
                expected[more] = reference.results()
                digest.update(expected[more])
            reference.free()
            case = Case(ctx, shape, vocab, dtype, options,
                        offset=0 if options.get("aligned") else number + vocab % 3)
            for way, launch in enumerate(WAYS):
                for more in ((), MORE[(way + number) % len(MORE)]):
                    case.poison()
                    case.call(workspace=way % 2 == 0, check=way % 3 == 0, more=more, **launch)()
                    if case.results() != expected[more]:
                        fail(f"the bits differ from the cpu's: {shape}, V = {vocab}, {dtype}, "
                             f"{options}, {launch}, with {more}")
                    calls += 1
            case.free()
    print(f"{calls} calls: the cpu's bits")


def repeats(ctx, count):
    case = Case(ctx, (64,), 5003, "bfloat16", {})
    ways = [case.call(**launch) for launch in WAYS]
    first = None
    for i in range(count):
        case.poison()
        ways[i % len(ways)]()
        if first is None:
            first = case.results()
        elif case.results() != first:
            fail(f"call {i} of {count} gives other bits than the first")
    case.free()
    print(f"{count} repeats: the same bits")


def streams(ctx, cpu, count, rounds=50):
    handles, cases, calls = [], [], []
    for i in range(count):
        handle = ctypes.c_void_p()
        ctx.must(lib.sb_stream_create(ctx.handle, ctypes.byref(handle)))
        handles.append(handle)
        dtype = ("float32", "float16", "bfloat16")[i % 3]
        arguments = ((16 + i,), 1000 + 701 * i, dtype, {})
        reference = Case(cpu, *arguments)
        reference.call()()
        case = Case(ctx, *arguments)
        cases.append((case, reference.results()))
        calls.append(case.call(**WAYS[i % len(WAYS)], workspace=i % 2 == 0))
        reference.free()
    for _ in range(rounds):
        for case, _ in cases:
            case.poison()
        for _ in range(4): # several calls in flight in each stream
            for call, handle in zip(calls, handles):
                call(handle)
        for handle in handles:
            ctx.must(lib.sb_check(ctx.handle, handle))
        for i, (case, expected) in enumerate(cases):
            if case.results() != expected:
                fail(f"stream {i} of {count} gives other bits than the cpu")
    for (case, _), handle in zip(cases, handles):
        ctx.must(lib.sb_stream_destroy(ctx.handle, handle))
        case.free()
    print(f"{count} streams at once, {rounds} rounds: the cpu's bits")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=0)
    parser.add_argument("--streams", type=int, default=0)
    parser.add_argument("--exact", action="store_true", help="allocations end with their data")
    parser.add_argument("--backend", default="cuda")
    args = parser.parse_args()
    Array.exact = args.exact
    try:
        ctx, cpu = Context(args.backend), Context("cpu")
    except Unavailable as why:
        fail(why)
    digest = hashlib.sha256()
    every_shape(ctx, cpu, digest)
    if args.repeats:
        repeats(ctx, args.repeats)
    if args.streams:
        streams(ctx, cpu, args.streams)
    ctx.close()
    cpu.close()
    print(f"digest {digest.hexdigest()}")


if __name__ == "__main__":
    main()
