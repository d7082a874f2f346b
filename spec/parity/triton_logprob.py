"""The contract (docs/numerics.md) as Triton kernels: token logprobs, lse, states, sequence sums.

    out = logprob(logits, ids)      out.token, out.lse, out.sequence, out.count, out.states

Not part of the library: it shows that the contract can be kept by another compiler, and spec/parity
holds it to the golden vectors, in Triton's interpreter on any machine and compiled on a GPU.

    row -> pieces -> tiles of LEAVES leaves -> state (exact integers) -> [pieces] -> finish

Neither the number of pieces nor LEAVES nor the number of warps can be seen in the result.

What Triton needs to be told for that:
  - enable_fp_fusion=False at every launch, else a product and a sum become one fma;
  - a division in fp32 is div_rn; `/` is approximate there, and IEEE in fp64;
  - the order of tl.sum is Triton's own, so the leaf's tree is written out (halve), and tl.sum adds
    integers only;
  - constants that fp32 cannot hold are made by tl.full, with their type;
  - tl.fma rounds once on a GPU. The interpreter of some versions multiplies and then adds, so the
    first call asks (fused), and where it does not fuse, fma is put together from fp64 operations:
    slower, and the same bits, because a sum rounded to odd may be rounded again (fma32, fma64).
"""
import types

import torch
import triton
import triton.language as tl

C = tl.constexpr

LEAF = C(16)
BIAS = C(2 ** 22)                   # a = A + BIAS is positive
POISON = C(0x7FFFFFFF)              # J of a poisoned state
MAGIC = C(1.5 * 2.0 ** 23)          # rounds to an integer when added
EVEN = C(1.5 * 2.0 ** 24)           # to an even one
INF = C(float("inf"))

LOG2E = C(float.fromhex("0x1.71547652b82fep+0"))
ROOT2 = C(float.fromhex("0x1.6a09e667f3bcdp+0"))

C1 = C(float.fromhex("0x1.62e430p-1"))
C2 = C(float.fromhex("0x1.ebfbe0p-3"))
C3 = C(float.fromhex("0x1.c6af6cp-5"))
C4 = C(float.fromhex("0x1.3b2a54p-7"))
C5 = C(float.fromhex("0x1.5f0890p-10"))
C6 = C(float.fromhex("0x1.44138ap-13"))

K0 = C(float.fromhex("0x1.71547652b82fep+1"))
K1 = C(float.fromhex("0x1.ec709dc3a03fep-1"))
K2 = C(float.fromhex("0x1.2776c50ef9bfep-1"))
K3 = C(float.fromhex("0x1.a61762a7adedap-2"))
K4 = C(float.fromhex("0x1.484b13d7c02a9p-2"))
K5 = C(float.fromhex("0x1.0c9a84994022dp-2"))
K6 = C(float.fromhex("0x1.c68f568d31761p-3"))
K7 = C(float.fromhex("0x1.89f3b1694cffep-3"))
K8 = C(float.fromhex("0x1.5b9ac9b743f0dp-3"))
K9 = C(float.fromhex("0x1.3703c1f4d0ffep-3"))
K10 = C(float.fromhex("0x1.1964ec6fc9491p-3"))

TEMPERATURES = (2.0 ** -10, 2.0 ** 10)


# ---- fused multiply-add ------------------------------------------------------------------------

@triton.jit
def sum_to_odd(a, b):
    """a + b in fp64, and where it is inexact the neighbour with an odd last bit."""
    s = a + b
    part = s - a
    error = (a - (s - part)) + (b - part)
    bits = s.to(tl.int64, bitcast=True)
    step = tl.where((error > 0.0) == (s > 0.0), 1, -1).to(tl.int64)
    moved = (error != 0.0) & ((bits & 1) == 0)
    return tl.where(moved, bits + step, bits).to(tl.float64, bitcast=True)


@triton.jit
def exact_sum(a, b):
    """a + b and its rounding error, in fp64."""
    s = a + b
    part = s - a
    return s, (a - (s - part)) + (b - part)


@triton.jit
def halves(a):
    """a as a sum of two fp64 numbers of at most 26 bits each."""
    scaled = a * 134217729.0                        # 2^27 + 1
    high = scaled - (scaled - a)
    return high, a - high


@triton.jit
def fma32(a, b, c, FUSED: tl.constexpr):
    if FUSED:
        z = tl.fma(a, b, c)
    else:                                           # the product of two fp32 is an fp64
        product = a.to(tl.float64) * b.to(tl.float64)
        z = sum_to_odd(product, c.to(tl.float64)).to(tl.float32)
    return z


@triton.jit
def fma64(a, b, c, FUSED: tl.constexpr):
    """Unfused: Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums: proved
    algorithms using rounding to odd"; nothing here comes near overflow or underflow."""
    if FUSED:
        z = tl.fma(a, b, c)
    else:
        product = a * b
        ah, al = halves(a)
        bh, bl = halves(b)
        low = ((ah * bh - product) + ah * bl + al * bh) + al * bl
        th, below = exact_sum(c, low)
        vh, middle = exact_sum(product, th)
        z = vh + sum_to_odd(below, middle)
    return z


@triton.jit
def probe_kernel(x32, x64, out):
    """out: whether fma rounds once in fp32 and in fp64. (1 + e) (1 - e) - 1 is -e^2, or 0."""
    a, b, c = tl.load(x32), tl.load(x32 + 1), tl.load(x32 + 2)
    tl.store(out, (tl.fma(a, b, c) != 0.0).to(tl.int32))
    d, e, f = tl.load(x64), tl.load(x64 + 1), tl.load(x64 + 2)
    tl.store(out + 1, (tl.fma(d, e, f) != 0.0).to(tl.int32))


FUSES = {}


def fused(device):
    """Whether tl.fma rounds once on this device: asked once."""
    key = str(device)
    if key not in FUSES:
        x32 = torch.tensor([1 + 2.0 ** -13, 1 - 2.0 ** -13, -1.0], device=device)
        x64 = torch.tensor([1 + 2.0 ** -30, 1 - 2.0 ** -30, -1.0], dtype=torch.float64,
                           device=device)
        out = torch.zeros(2, dtype=torch.int32, device=device)
        probe_kernel[(1,)](x32, x64, out, enable_fp_fusion=False)
        FUSES[key] = bool(out.min().item())
    return FUSES[key]


# ---- definitions -------------------------------------------------------------------------------

@triton.jit
def constants(tau):
    """Row constants: c, k64, lim (fp32) and kappa (fp64)."""
    tau = tau.to(tl.float64)
    c = (tl.full((), LOG2E, tl.float64) / tau).to(tl.float32)
    kappa = (tl.full((), 1.0, tl.float64) / tau) / c.to(tl.float64)
    k64 = tl.div_rn(tl.full((), 64.0, tl.float32), c)
    lim = tl.div_rn(tl.full((), 2097152.0, tl.float32), c)
    lim = (lim.to(tl.int32, bitcast=True) & -65536).to(tl.float32, bitcast=True)
    return c, k64, lim, kappa


@triton.jit
def exp2_poly(r, FUSED: tl.constexpr):
    q = tl.full(r.shape, C6, tl.float32)
    q = fma32(q, r, tl.full(r.shape, C5, tl.float32), FUSED)
    q = fma32(q, r, tl.full(r.shape, C4, tl.float32), FUSED)
    q = fma32(q, r, tl.full(r.shape, C3, tl.float32), FUSED)
    q = fma32(q, r, tl.full(r.shape, C2, tl.float32), FUSED)
    q = fma32(q, r, tl.full(r.shape, C1, tl.float32), FUSED)
    return fma32(q, r, tl.full(r.shape, 1.0, tl.float32), FUSED)


@triton.jit
def lg(mantissa, e, FUSED: tl.constexpr):
    """lg of (1 + mantissa / 2^52) * 2^e: an integer and an fp64."""
    g = (mantissa | tl.full((), 0x3FF0000000000000, tl.int64)).to(tl.float64, bitcast=True)
    above = g > tl.full((), ROOT2, tl.float64)
    g = tl.where(above, g * 0.5, g)
    e = tl.where(above, e + 1, e)
    f = (g - 1.0) / (g + 1.0)
    h = f * f
    q = tl.full((), K10, tl.float64)
    q = fma64(q, h, tl.full((), K9, tl.float64), FUSED)
    q = fma64(q, h, tl.full((), K8, tl.float64), FUSED)
    q = fma64(q, h, tl.full((), K7, tl.float64), FUSED)
    q = fma64(q, h, tl.full((), K6, tl.float64), FUSED)
    q = fma64(q, h, tl.full((), K5, tl.float64), FUSED)
    q = fma64(q, h, tl.full((), K4, tl.float64), FUSED)
    q = fma64(q, h, tl.full((), K3, tl.float64), FUSED)
    q = fma64(q, h, tl.full((), K2, tl.float64), FUSED)
    q = fma64(q, h, tl.full((), K1, tl.float64), FUSED)
    q = fma64(q, h, tl.full((), K0, tl.float64), FUSED)
    return e, f * q


@triton.jit
def clamp(x, lim):
    return tl.where(x > lim, lim, tl.where(x < -lim, -lim, x))


# ---- leaves ------------------------------------------------------------------------------------

@triton.jit
def halve(v, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """One step of the tree: columns i and i + COLUMNS / 2."""
    pairs = tl.permute(tl.reshape(v, (ROWS, 2, COLUMNS // 2)), (0, 2, 1))
    a, b = tl.split(pairs)
    return a + b


@triton.jit
def octave(m, c, FUSED: tl.constexpr):
    return fma32(m, c, tl.full(m.shape, EVEN, tl.float32), FUSED) - EVEN


@triton.jit
def leaf_values(x, c, k64, lim, LEAVES: tl.constexpr, FUSED: tl.constexpr):
    """present, A and M of each row of x [LEAVES, 16]; no NaN, no +inf. Absent ids hold -inf."""
    m = tl.max(x, axis=1)
    present = m > -INF
    m = tl.where(present, m, 0.0)
    A = octave(m, c, FUSED)
    wide = (A >= 4096.0) | (A <= -4096.0)
    m = tl.where(wide, clamp(m, lim), m)
    A = octave(m, c, FUSED)

    thr = m - k64
    b = thr.to(tl.int32, bitcast=True)
    floor = ((b + ((b >> 31) & 0xFFFF)) & -65536).to(tl.float32, bitcast=True)
    thr = tl.where(wide, thr, floor)[:, None]
    x = tl.where(wide[:, None] & (x > -INF), clamp(x, lim), x)
    y = tl.where(x > thr, x, thr)

    magic = (tl.full(A.shape, MAGIC, tl.float32) - A)[:, None] + tl.zeros_like(y)
    c = c + tl.zeros_like(y)
    z = fma32(y, c, magic, FUSED)
    n = z - magic
    p = exp2_poly(fma32(y, c, -n, FUSED), FUSED)
    scale = (z - MAGIC).to(tl.int32) << 23          # n - A, exactly
    v = (p.to(tl.int32, bitcast=True) + scale).to(tl.float32, bitcast=True)

    v = halve(v, LEAVES, 16)
    v = halve(v, LEAVES, 8)
    v = halve(v, LEAVES, 4)
    s = tl.reshape(halve(v, LEAVES, 2), (LEAVES,))
    return present, A.to(tl.int32), (s * 16777216.0).to(tl.int64)


# ---- states: J and the sums of digits J - 1, J, J + 1 ------------------------------------------

@triton.jit
def rise(l0, l1, l2, by):
    """The digits in a window by places higher."""
    zero = tl.zeros_like(l0)
    return (tl.where(by == 0, l0, tl.where(by == 1, l1, tl.where(by == 2, l2, zero))),
            tl.where(by == 0, l1, tl.where(by == 1, l2, zero)),
            tl.where(by == 0, l2, zero))


@triton.jit
def digit_sum(j, lo, hi, digit):
    """What leaves at digits j add to one digit."""
    zero = tl.zeros_like(lo)
    return tl.sum(tl.where(j == digit, lo, zero) + tl.where(j + 1 == digit, hi, zero), axis=0)


@triton.jit
def sum_kernel(logits, ids, active, temperatures, states, vocab, stride, ignore_index, shift,
               piece, pieces, LEAVES: tl.constexpr, FUSED: tl.constexpr):
    """Grid (rows, pieces): the state of leaves piece * p .. piece * (p + 1) - 1 of a row."""
    row, p = tl.program_id(0).to(tl.int64), tl.program_id(1)
    if (tl.load(ids + row) != ignore_index) & (tl.load(active + row) != 0):
        c, k64, lim, kappa = constants(tl.load(temperatures + row))
        x_row = logits + (row - shift) * stride
        end = tl.minimum((p + 1) * piece, tl.cdiv(vocab, LEAF))
        J = tl.full((), 0, tl.int32)
        l0 = tl.full((), 0, tl.int64)
        l1 = tl.full((), 0, tl.int64)
        l2 = tl.full((), 0, tl.int64)
        poisoned = tl.full((), 0, tl.int32)
        first = p * piece
        while first < end:                          # the interpreter's range wants numpy < 2.4
            leaf = first + tl.arange(0, LEAVES)
            i = leaf[:, None] * LEAF + tl.arange(0, LEAF)[None, :]
            x = tl.load(x_row + i, mask=(leaf < end)[:, None] & (i < vocab), other=-INF)
            x = x.to(tl.float32)
            bits = x.to(tl.int32, bitcast=True)
            bad = (bits == 0x7F800000) | ((bits & 0x7FFFFFFF) > 0x7F800000)
            poisoned = tl.maximum(poisoned, tl.max(tl.max(bad.to(tl.int32), axis=1), axis=0))
            x = tl.where(bad, 0.0, x)               # the row is NaN anyhow

            present, A, M = leaf_values(x, c, k64, lim, LEAVES, FUSED)
            a = A + BIAS
            j = tl.where(present, a >> 5, 0)
            w = tl.where(present, M << (a & 31).to(tl.int64), tl.zeros_like(M))
            lo, hi = w & 0xFFFFFFFF, w >> 32
            top = tl.maximum(J, tl.max(j, axis=0))
            l0, l1, l2 = rise(l0, l1, l2, top - J)
            J = top
            l0 += digit_sum(j, lo, hi, J - 1)
            l1 += digit_sum(j, lo, hi, J)
            l2 += digit_sum(j, lo, hi, J + 1)
            first += LEAVES

        zero = tl.zeros_like(l0)
        J = tl.where(poisoned != 0, POISON, J).to(tl.int64)
        out = states + (row * pieces + p) * 4
        tl.store(out, J | c.to(tl.int32, bitcast=True).to(tl.int64) << 32)
        tl.store(out + 1, tl.where(poisoned != 0, zero, l0))
        tl.store(out + 2, tl.where(poisoned != 0, zero, l1))
        tl.store(out + 3, tl.where(poisoned != 0, zero, l2))


# ---- finish ------------------------------------------------------------------------------------

@triton.jit
def normalized(high, low):
    """A 128-bit integer, not 0, shifted to the left until its highest bit is bit 127: the two
    halves, and the place of that bit before."""
    none = high == 0
    zero = tl.zeros_like(low)
    high, low = tl.where(none, low, high), tl.where(none, zero, low)
    top = tl.where(none, 63, 127)
    for k in tl.static_range(6):
        small = (high >> (64 - (32 >> k))) == 0
        shifted = (high << (32 >> k)) | (low >> (64 - (32 >> k)))
        high, low = tl.where(small, shifted, high), tl.where(small, low << (32 >> k), low)
        top = tl.where(small, top - (32 >> k), top)
    return high, low, top


@triton.jit
def finish_kernel(logits, ids, active, temperatures, states, token, lse, records, stride,
                  ignore_index, shift, pieces, PIECES: tl.constexpr, FUSED: tl.constexpr):
    """Grid (rows,): merges a row's pieces; its state, lse and the target's logprob."""
    row = tl.program_id(0).to(tl.int64)
    y = tl.load(ids + row)
    if (y != ignore_index) & (tl.load(active + row) != 0):
        c, k64, lim, kappa = constants(tl.load(temperatures + row))
        p = tl.arange(0, PIECES)
        at, here = states + (row * pieces + p) * 4, p < pieces
        Js = (tl.load(at, mask=here, other=0) & 0xFFFFFFFF).to(tl.int32)
        J = tl.max(Js, axis=0)
        l0, l1, l2 = rise(tl.load(at + 1, mask=here, other=0), tl.load(at + 2, mask=here, other=0),
                          tl.load(at + 3, mask=here, other=0), J - Js)
        l0, l1, l2 = tl.sum(l0, axis=0), tl.sum(l1, axis=0), tl.sum(l2, axis=0)
        tl.store(records + row * 4, J.to(tl.int64) | c.to(tl.int32, bitcast=True).to(tl.int64)
                 << 32)
        tl.store(records + row * 4 + 1, l0)
        tl.store(records + row * 4 + 2, l1)
        tl.store(records + row * 4 + 3, l2)

        # T = l0 + l1 * 2^32 + l2 * 2^64
        l1 += l0 >> 32
        l2 += l1 >> 32
        low = (l0 & 0xFFFFFFFF) | (l1 << 32)
        nan = (J == 0) | (J == POISON)
        high, low, top = normalized(l2.to(tl.uint64), low.to(tl.uint64))
        mantissa = (high >> 11).to(tl.int64) & 0xFFFFFFFFFFFFF
        eS, FS = lg(mantissa, top + 32 * (J - 1) - 24 - BIAS, FUSED)

        x = tl.load(logits + (row - shift) * stride + y).to(tl.float32)
        absent = x == -INF
        x = clamp(tl.where(nan | absent, 0.0, x), lim)
        n = fma32(x, c, tl.full((), MAGIC, tl.float32), FUSED) - MAGIC
        b = exp2_poly(fma32(x, c, -n, FUSED), FUSED).to(tl.int32, bitcast=True)
        ey, Fy = lg((b & 0x7FFFFF).to(tl.int64) << 29, (b >> 23) - 127, FUSED)
        ey += n.to(tl.int32)

        logprob = (kappa * ((ey - eS).to(tl.float64) + (Fy - FS))).to(tl.float32)
        total = (kappa * (eS.to(tl.float64) + FS)).to(tl.float32)
        bits = tl.where(absent, tl.full((), -8388608, tl.int32),        # -inf
                        logprob.to(tl.int32, bitcast=True))
        quiet = tl.full((), 0x7FC00000, tl.int32)
        tl.store(token + row, tl.where(nan, quiet, bits))
        tl.store(lse + row, tl.where(nan, quiet, total.to(tl.int32, bitcast=True)))


# ---- sequences ---------------------------------------------------------------------------------

@triton.jit
def sequence_kernel(token, starts, sequence, BLOCK: tl.constexpr):
    """Grid (sequences,): the exact sum of logprobs, as four 32-bit digits in steps of 2^-80."""
    b = tl.program_id(0)
    first, end = tl.load(starts + b), tl.load(starts + b + 1)
    d0 = tl.full((), 0, tl.int64)
    d1 = tl.full((), 0, tl.int64)
    d2 = tl.full((), 0, tl.int64)
    d3 = tl.full((), 0, tl.int64)
    largest = tl.full((), 0, tl.int32)
    while first < end:
        i = first + tl.arange(0, BLOCK)
        bits = tl.load(token + i, mask=i < end, other=0) & 0x7FFFFFFF
        largest = tl.maximum(largest, tl.max(bits, axis=0))
        finite = (bits != 0) & (bits < 0x7F800000)
        shift = tl.where(finite, (bits >> 23) - 70, 0)
        m = tl.where(finite, (bits & 0x7FFFFF) | 0x800000, 0).to(tl.int64)
        w = m << (shift & 31).to(tl.int64)
        lo, hi, digit = w & 0xFFFFFFFF, w >> 32, shift >> 5
        d0 += digit_sum(digit, lo, hi, 0)
        d1 += digit_sum(digit, lo, hi, 1)
        d2 += digit_sum(digit, lo, hi, 2)
        d3 += digit_sum(digit, lo, hi, 3)
        first += BLOCK
    d1 += d0 >> 32
    d2 += d1 >> 32
    d3 += d2 >> 32
    low = (d0 & 0xFFFFFFFF) | (d1 << 32)
    high = (d2 & 0xFFFFFFFF) | (d3 << 32)
    zero = (low | high) == 0
    high, low, top = normalized(high.to(tl.uint64), tl.where(zero, 1, low).to(tl.uint64))
    q = (high >> 40).to(tl.int32)
    half = ((high >> 39) & 1).to(tl.int32)
    rest = ((high << 25) | low) != 0
    q += half & (rest.to(tl.int32) | (q & 1))
    # q has 24 bits, or is 2^24 and carries into the exponent; the sign is minus
    bits = (q - 0x800000) + ((top - 80 + 127) << 23)
    bits = tl.where(zero, 0, bits | (-2147483647 - 1))
    bits = tl.where(largest == 0x7F800000, -8388608, bits)
    tl.store(sequence + b, tl.where(largest > 0x7F800000, 0x7FC00000, bits))


# ---- a call ------------------------------------------------------------------------------------

def sequence_sums(token, starts):
    """Sums of fp32 encodings token (int32) between starts[b] and starts[b + 1]: encodings."""
    sequence = torch.empty(len(starts) - 1, dtype=torch.int32, device=token.device)
    if len(sequence):
        sequence_kernel[(len(sequence),)](token, starts, sequence, BLOCK=256,
                                          enable_fp_fusion=False)
    return sequence


def logprob(logits, ids, mask=None, temperature=1.0, ignore_index=-100, shift=False,
            batch=None, cu_seqlens=None, row_list=None, leaves=64, pieces=1, num_warps=4):
    """logits: [R, V] fp32, fp16 or bf16; ids: R. mask: R; an fp32 temperature, or R of them.

    Rows are batch sequences of R / batch each (1 if neither is given), or packed by cu_seqlens.
    shift: logits of row r - 1 score row r of the same sequence. row_list: rows to score, others
    are ignored. token, lse, sequence are int32 encodings; states are [R, 4] int64, the 32 bytes of
    a state each, zeros where the row is ignored. ValueError names the row of a bad id.
    """
    rows, vocab = logits.shape
    device = logits.device
    if vocab < 1 or logits.stride(1) != 1:
        raise ValueError("logits are not rows of neighbouring elements")

    def tensor(values, dtype):
        return torch.as_tensor(values, device=device).to(dtype).reshape(-1).contiguous()

    ids = tensor(ids, torch.int64)
    if cu_seqlens is None:
        batch = 1 if batch is None else batch
        cu_seqlens = [b * (rows // batch) for b in range(batch + 1)]
    starts = tensor(cu_seqlens, torch.int64)
    if len(ids) != rows or int(starts[-1]) != rows:
        raise ValueError("%d rows of logits, %d ids, sequences to row %d"
                         % (rows, len(ids), int(starts[-1])))
    if isinstance(temperature, (int, float)):
        temperature = [temperature] * rows
    temperatures = tensor(temperature, torch.float32)

    active = torch.ones(rows, dtype=torch.bool, device=device)
    if mask is not None:
        active &= tensor(mask, torch.uint8) != 0
    if row_list is not None:
        listed = torch.zeros_like(active)
        listed[tensor(row_list, torch.int64)] = True
        active &= listed
    if shift:
        active[starts[:-1][starts[:-1] < starts[1:]]] = False
    counted = active & (ids != ignore_index)
    for wrong, what, values in (
            (counted & ((ids < 0) | (ids >= vocab)), "id", ids),
            (counted & ~((temperatures >= TEMPERATURES[0]) & (temperatures <= TEMPERATURES[1])),
             "temperature", temperatures)):
        if wrong.any():
            row = int(wrong.nonzero()[0])
            raise ValueError("row %d: %s %s is out of range" % (row, what, values[row].item()))

    total = -(-vocab // 16)
    pieces = max(1, min(pieces, total))
    piece = -(-total // pieces)
    options = dict(FUSED=fused(device), num_warps=num_warps, enable_fp_fusion=False)
    leaves = min(leaves, triton.next_power_of_2(piece))
    states = torch.zeros((rows, pieces, 4), dtype=torch.int64, device=device)
    out = types.SimpleNamespace(
        token=torch.zeros(rows, dtype=torch.int32, device=device),
        lse=torch.zeros(rows, dtype=torch.int32, device=device),
        states=torch.zeros((rows, 4), dtype=torch.int64, device=device))
    active = active.to(torch.uint8)
    if rows:
        sum_kernel[(rows, pieces)](
            logits, ids, active, temperatures, states, vocab, logits.stride(0), ignore_index,
            int(shift), piece, pieces, LEAVES=leaves, **options)
        finish_kernel[(rows,)](
            logits, ids, active, temperatures, states, out.token, out.lse, out.states,
            logits.stride(0), ignore_index, int(shift), pieces,
            PIECES=triton.next_power_of_2(pieces), **options)
    out.sequence = sequence_sums(out.token, starts)
    spans = starts.tolist()
    out.count = [int(counted[a:b].sum()) for a, b in zip(spans, spans[1:])]
    return out
