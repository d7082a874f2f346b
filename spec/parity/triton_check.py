#!/usr/bin/env python3
"""Holds the Triton kernels to the golden vectors, bit for bit.

    python3 spec/parity/triton_check.py                         on an NVIDIA GPU: every case
    TRITON_INTERPRET=1 python3 spec/parity/triton_check.py      in the interpreter: some
    SB_CASES=all TRITON_INTERPRET=1 python3 ...                 all; minutes

On a GPU each case is tried under several schedules. Needs torch, triton and numpy. Prints a line a
file, the first mismatches, and exits with 1 if there is one, with 77 and the reason if this machine
cannot run it.
"""
import os
import sys

sys.dont_write_bytecode = True


def give_up(why):
    print("cannot run here: %s" % why)
    sys.exit(77)


try:
    import numpy
    import torch
    import triton
except ImportError as missing:
    give_up(missing)

INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") not in ("", "0", "false", "off")
if not INTERPRETED and not torch.cuda.is_available():
    give_up("no GPU that torch can use; TRITON_INTERPRET=1 needs none")

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools"))
import reference            # noqa: E402
import triton_logprob       # noqa: E402
import vectors              # noqa: E402

tl, fma32, fma64 = triton.language, triton_logprob.fma32, triton_logprob.fma64

ALL = os.environ.get("SB_CASES") == "all" or not INTERPRETED
DEVICE = "cpu" if INTERPRETED else "cuda"
DTYPE = {"f32": (torch.int32, torch.float32), "f16": (torch.int16, torch.float16),
         "bf16": (torch.int16, torch.bfloat16)}

# leaves, pieces, warps: none of it may be seen. A large tile makes the interpreter fast.
SCHEDULES = ((1024, 1, 4), (1, 3, 4)) if INTERPRETED else (
    (64, 1, 4), (1, 3, 1), (16, 7, 2), (256, 2, 8))


def logits_of(bits, dtype):
    """Encodings [R, V] as a tensor of the dtype itself, at an odd place with an odd stride."""
    word, real = DTYPE[dtype]
    rows, vocab = bits.shape
    held = torch.zeros((rows, vocab + 3), dtype=word)
    held[:, 1:1 + vocab] = torch.from_numpy(
        bits.view(numpy.int32 if word == torch.int32 else numpy.int16))
    return held.to(DEVICE).view(real)[:, 1:1 + vocab]


def hexes(t):
    return ["%08x" % (b & 0xFFFFFFFF) for b in t.cpu().tolist()]


def state_hex(words):
    return b"".join((w & (2 ** 64 - 1)).to_bytes(8, "little") for w in words.tolist()).hex()


def fp32(bits):
    return numpy.array(bits, numpy.uint32).view(numpy.float32)


def call(logits, ids, schedule, **more):
    leaves, pieces, warps = schedule
    return triton_logprob.logprob(logits, ids, leaves=leaves, pieces=pieces, num_warps=warps,
                                  **more)


def check_row(case, schedule):
    """A row, its targets one call: rows of stride 0. What differs."""
    targets = case.targets if ALL else case.targets[case.line % len(case.targets):][:1]
    logits = logits_of(case.bits, case.dtype).expand(len(targets), case.vocab)
    out = call(logits, [i for i, _ in targets], schedule, temperature=float(fp32(case.tau)))
    for k, (i, want) in enumerate(targets):
        for what, got, wanted in (("logprob of id %d" % i, hexes(out.token)[k], "%08x" % want),
                                  ("lse", hexes(out.lse)[k], "%08x" % case.lse),
                                  ("state", state_hex(out.states[k].cpu()), case.state)):
            if got != wanted:
                yield "%s: expected %s, got %s" % (what, wanted, got)


def check_batch(case, schedule):
    taus = case.temperatures
    rows = len(case.ids)
    try:
        out = call(logits_of(case.bits.reshape(rows, case.vocab), case.dtype), case.ids, schedule,
                   mask=case.mask, ignore_index=case.ignore_index, shift=bool(case.shift),
                   temperature=torch.from_numpy(fp32(taus if taus else [case.temperature] * rows)),
                   batch=case.padded and case.padded[0], cu_seqlens=case.cu_seqlens,
                   row_list=case.row_list)
    except ValueError as error:
        if case.bad_id is None or not str(error).startswith("row %d: id %d " % tuple(case.bad_id)):
            yield "refused: %s" % error
        return
    if case.bad_id is not None:
        yield "the bad id was not refused"
        return
    for name in ("token", "lse", "sequence"):
        got, wanted = hexes(getattr(out, name)), ["%08x" % b for b in getattr(case, name)]
        if got != wanted:
            yield "%s: expected %s, got %s" % (name, " ".join(wanted), " ".join(got))
    if out.count != case.count:
        yield "count: expected %s, got %s" % (case.count, out.count)


def check_sum(case, _):
    bits = numpy.array(case.x, numpy.uint32).view(numpy.int32)
    token = torch.from_numpy(bits).to(DEVICE)
    starts = torch.tensor([0, len(case.x)], device=DEVICE)
    got = hexes(triton_logprob.sequence_sums(token, starts))[0]
    if got != "%08x" % case.sum:
        yield "sum: expected %08x, got %s" % (case.sum, got)


@triton.jit
def fma_kernel(x32, x64, out32, out64, N: tl.constexpr, FUSED: tl.constexpr):
    i = tl.arange(0, N)
    a, b, c = tl.load(x32 + i), tl.load(x32 + N + i), tl.load(x32 + 2 * N + i)
    tl.store(out32 + i, fma32(a, b, c, FUSED))
    a, b, c = tl.load(x64 + i), tl.load(x64 + N + i), tl.load(x64 + 2 * N + i)
    tl.store(out64 + i, fma64(a, b, c, FUSED))


def operands(kind, bits, draws):
    """a, b, c: of any size; c next to -a * b; c so large that a * b is about half its last bit."""
    n = len(draws) // 8
    u = draws.reshape(8, n)

    def real(u, exponent):
        m = 1.0 + (u & numpy.uint64(2 ** bits - 1)).astype("f8") * 2.0 ** -bits
        return (numpy.ldexp(m, exponent) * numpy.where(u >> numpy.uint64(63), -1, 1)).astype(kind)

    def spread(u, width):
        return (u % numpy.uint64(2 * width + 1)).astype("i8") - width

    a, b = real(u[0], spread(u[1], 30)), real(u[2], spread(u[3], 30))
    few = u[7] % numpy.uint64(2) == 0               # few bits: ties, and products that fit
    a = numpy.where(few, numpy.ldexp(numpy.round(numpy.ldexp(numpy.frexp(a)[0], 4)), 3), a)
    product = (a * b).astype(kind)
    near = -product + numpy.ldexp(product, -bits).astype(kind) * spread(u[6], 3).astype(kind)
    large = numpy.ldexp(real(u[4], 0), numpy.frexp(product)[1] + bits + spread(u[6], 2))
    which = (u[5] % numpy.uint64(3)).astype("i8")
    c = numpy.choose(which, [real(u[4], spread(u[6], 60)), near, large])
    return [x.astype(kind) for x in (a, b, c)]


def check_fma(count=1024):
    """fma, also the form for where it is not fused, against exact integers: the mismatches."""
    with numpy.errstate(over="ignore"):
        x32 = operands("f4", 23, vectors.draws("0000000000000007", 8 * count))
        x64 = operands("f8", 52, vectors.draws("0000000000000008", 8 * count))
    held = [torch.from_numpy(numpy.concatenate(x)).to(DEVICE) for x in (x32, x64)]
    out = [torch.empty(count, dtype=x.dtype, device=DEVICE) for x in held]
    wrong = []
    for use in (True, False) if triton_logprob.fused(torch.device(DEVICE)) else (False,):
        fma_kernel[(1,)](*held, *out, N=count, FUSED=use, enable_fp_fusion=False)
        for x, got, exact in zip((x32, x64), out, (reference.fma32, reference.fma64)):
            for a, b, c, z in zip(*(v.tolist() for v in x), got.tolist()):
                if z != exact(a, b, c):
                    wrong.append("fma %s, %s %s %s: expected %s, got %s" % (
                        "fused" if use else "emulated", a.hex(), b.hex(), c.hex(),
                        exact(a, b, c).hex(), z.hex()))
    return 2 * count, wrong


# Where one mistake shows and nowhere else, one row in so many of the rest, and a large one.
TELLING = ("catches", "window", "largest at", "around thr", "digits", "border")
ONE_IN = 16
LARGE = 100000


def wanted(case, seen):
    if ALL:
        return True
    if case.file == "sums.txt":
        return len(case.x) < 1000
    if case.file == "batches.txt":
        return len(case.ids) * (case.bad_id is None) < 9
    if case.vocab > LARGE:
        return case.dtype == "bf16"
    return case.vocab < 2000 and (
        case.name.startswith("catches") or case.name == "window"
        or seen[0] % (4 if case.name.startswith(TELLING) else ONE_IN) == 0)


def main():
    failed = 0
    fused = triton_logprob.fused(torch.device(DEVICE))
    print("triton %s, %s, fma %s" % (
        triton.__version__,
        "interpreted" if INTERPRETED else torch.cuda.get_device_name(),
        "fused" if fused else "emulated"))
    done, wrong = check_fma()
    print("fma: %d operands, %d mismatches" % (done, len(wrong)))
    for line in wrong[:5]:
        print("  " + line)
    failed += len(wrong)
    for name, check in (("rows.txt", check_row), ("generated.txt", check_row),
                        ("batches.txt", check_batch), ("sums.txt", check_sum)):
        seen, done, wrong = [0], 0, []
        for case in vectors.cases(name):
            seen[0] += 1
            if not wanted(case, seen):
                continue
            turns = SCHEDULES
            if INTERPRETED:                             # one each: many small tiles take long
                small = name != "sums.txt" and case.vocab <= 100
                turns = SCHEDULES[done % 2 if small else 0:][:1]
            done += 1
            for schedule in turns:
                for what in check(case, schedule):
                    wrong.append("%s:%d: %s, leaves, pieces, warps %s: %s" % (
                        name, case.line, case.name, schedule, what))
        print("%s: %d of %d cases, %d mismatches" % (name, done, seen[0], len(wrong)))
        for line in wrong[:5]:
            print("  " + line)
        failed += len(wrong) + (done == 0)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
