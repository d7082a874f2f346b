#!/usr/bin/env python3
"""The bit contract (docs/numerics.md) in plain Python: slow, exact, and short enough to port from.

Every function below names the section of docs/numerics.md that it implements. This file shares no
code with the C library; the two are checked against each other, and spec/vectors is made with this
file.

A Python float is an IEEE binary64. An fp32 value is stored as the float that equals it, so

  RN64(a + b), RN64(a * b), ...  are a + b, a * b, ...;
  RN32(a + b), RN32(a / b), ...  are to32(a + b), to32(a / b), ...: for + - * / of two fp32 values,
                                 rounding twice, to 53 bits and then to 24, gives the same result as
                                 rounding once, because 53 >= 2 * 24 + 2;
  fma                            is the only operation for which that is not true: fma32 and fma64
                                 form the exact value in integers and round it once.

Needs only the standard library of Python 3.9 or later.

    python3 tools/reference.py FILE.json        ("-": standard input)

reads one batch and prints one JSON object with token_bits, lse_bits (a list for each sequence),
sequence_bits and count. The fields of the input, with defaults in parentheses:

    dtype         "f32", "f16" or "bf16"
    logits        a list of rows; a row is a string of concatenated hex encodings, in which spaces
                  are ignored, or a list of such strings; null if the row is never read
    ids           target ids, a flat list or a list of lists
    mask          likewise; optional (all active); a row is active if its entry is not 0
    temperature   a number for all rows, or a list with one for each row; a string is an fp32
                  encoding in hex; optional (1)
    ignore_index  optional (-100)
    shift         optional (false): the logits of row t score id t + 1 of the same sequence
    batch, time   B and T of the padded layout; optional (1 and the number of rows)
    cu_seqlens    instead of batch and time: the packed layout
    row_list      optional: the rows to score; the others are ignored
    vocab         optional: V, for the case that every row is null

If the input has a field `draws`, it prints {"tokens": [[..], ..]} instead: for each row, the tokens
that are drawn at the positions 0 .. count - 1. Only dtype, logits and temperature are used besides:

    draws         {"count": .., "seed": [..], "stream": [..], "top_k": [..], "top_p": [..],
                  "min_p": [..]}: one of each for each row; top_p and min_p are fp32 encodings, hex
"""
import bisect
import json
import math
import struct
import sys
from fractions import Fraction

VERSION = "1"       # of this program
NUMERICS = 1        # of the arithmetic

INF = math.inf
NAN_BITS = 0x7FC00000
NAN64_BITS = 0x7FF8000000000000


# --- Numbers ------------------------------------------------------------------------------------

def to32(u):
    """Definitions, fp32(u): the double u rounded once to fp32, nearest even."""
    try:
        return struct.unpack("<f", struct.pack("<f", u))[0]
    except OverflowError:               # struct refuses values that round to infinity
        return math.copysign(INF, u)


def round32(n, e):
    """The real number n * 2^e (n an integer of any size) rounded once to fp32, nearest even."""
    cut = max(abs(n).bit_length() - 24, -149 - e)       # bits to drop; fp32's last bit is 2^-149
    if cut > 0:
        q = n >> cut                                    # the floor, even if n is negative
        rest, half = n - (q << cut), 1 << (cut - 1)
        if rest > half or (rest == half and q & 1):
            q += 1
        n, e = q, e + cut
    if n.bit_length() + e > 128:
        return math.copysign(INF, n)
    return math.ldexp(n, e)


def fma32(a, b, c):
    """RN32(a * b + c) for fp32 values. (An exact zero comes out as +0: its sign has no effect.)"""
    pn, pd = (a * b).as_integer_ratio()                 # exact: 24 + 24 bits fit in 53
    cn, cd = c.as_integer_ratio()                       # pd and cd are powers of two
    return round32(pn * cd + cn * pd, 2 - pd.bit_length() - cd.bit_length())


def fma64(a, b, c):
    """RN64(a * b + c)."""
    an, ad = a.as_integer_ratio()
    bn, bd = b.as_integer_ratio()
    cn, cd = c.as_integer_ratio()
    return (an * bn * cd + cn * ad * bd) / (ad * bd * cd)   # int / int is rounded once


def bits32(x):
    """The encoding of an fp32 value; any NaN is 7fc00000 (Edges)."""
    return NAN_BITS if x != x else struct.unpack("<I", struct.pack("<f", x))[0]


def bits64(u):
    """The encoding of a double; any NaN is 7ff8000000000000."""
    return NAN64_BITS if u != u else struct.unpack("<Q", struct.pack("<d", u))[0]


def from_bits64(b):
    return struct.unpack("<d", struct.pack("<Q", b))[0]


def from_bits32(b):
    return struct.unpack("<f", struct.pack("<I", b))[0]


def decode(bits, dtype):
    """Definitions, x_i: the value of an encoding. All three dtypes convert to fp32 exactly."""
    if dtype == "f32":
        return from_bits32(bits)
    if dtype == "bf16":
        return from_bits32(bits << 16)
    if dtype == "f16":
        return struct.unpack("<e", struct.pack("<H", bits))[0]
    raise ValueError("unknown dtype %r" % (dtype,))


WIDTH = {"f32": 8, "f16": 4, "bf16": 4}     # hex digits of an encoding


# --- Definitions: row constants -----------------------------------------------------------------

LOG2E = float.fromhex("0x1.71547652b82fep+0")
MAGIC = 1.5 * 2.0 ** 23         # adding it rounds to a multiple of 1,
EVEN = 1.5 * 2.0 ** 24          # and adding this one rounds to a multiple of 2


class Constants:
    """Definitions: the constants that a temperature determines. tau is rounded to fp32, then its
    range is checked."""

    def __init__(self, temperature):
        tau = to32(temperature)
        if not 2.0 ** -10 <= tau <= 2.0 ** 10:
            raise ValueError("temperature %r is outside [2^-10, 2^10]" % (temperature,))
        self.tau = tau
        self.c = to32(LOG2E / tau)                              # fp64 division, then rounded
        self.kappa = (1.0 / tau) / self.c                       # two fp64 divisions
        self.k64 = to32(64.0 / self.c)                          # fp32 division
        self.lim = from_bits32(bits32(to32(2.0 ** 21 / self.c)) & 0xFFFF0000)


# --- Leaf ---------------------------------------------------------------------------------------

EXP2_COEFFICIENTS = [float.fromhex(h) for h in (               # of r^6 .. r^0
    "0x1.44138ap-13", "0x1.5f0890p-10", "0x1.3b2a54p-7", "0x1.c6af6cp-5", "0x1.ebfbe0p-3",
    "0x1.62e430p-1", "0x1p+0")]


def exp2_poly(r):
    """Definitions, exp2: p = 2^r for r in [-1/2, 1/2], Horner with fma."""
    p = EXP2_COEFFICIENTS[0]
    for coefficient in EXP2_COEFFICIENTS[1:]:
        p = fma32(p, r, coefficient)
    return p


def clamp(x, lim):
    return max(-lim, min(x, lim))


def threshold(m, wide, k):
    """Leaf, Threshold: the smallest value that a leaf with largest logit m distinguishes."""
    thr = to32(m - k.k64)
    if wide:
        return thr
    b = bits32(thr)
    if b >> 31:
        b += 0xFFFF                     # towards -inf: away from zero where thr is negative
    return from_bits32(b & 0xFFFF0000)


def is_poison(x):
    return x != x or x == INF


def leaf(xs, k):
    """Leaf: the pair (A, M), whose value is M * 2^(A - 24), of up to 16 logits; None if none is
    present.

    xs holds the fp32 logits of ids 16 b, 16 b + 1, ...; -inf means absent, and ids past the end are
    omitted. The caller must have excluded NaN and +inf.
    """
    m = max(xs)                                                 # Scan
    if m == -INF:
        return None
    A = to32(fma32(m, k.c, EVEN) - EVEN)                    # Octave
    wide = not abs(A) < 4096                                    # Wide
    if wide:
        xs = [x if x == -INF else clamp(x, k.lim) for x in xs]
        m = clamp(m, k.lim)
        A = fma32(m, k.c, EVEN) - EVEN
    thr = threshold(m, wide, k)                                 # Threshold
    xs = list(xs) + [-INF] * (16 - len(xs))
    v = [leaf_term(max(x, thr), A, k.c) for x in xs]            # Terms
    for half in (8, 4, 2, 1):                                   # Tree
        v = [to32(v[i] + v[i + half]) for i in range(half)]
    M = int(v[0] * 2.0 ** 24)                                   # Integer
    assert M == v[0] * 2.0 ** 24 and 2 ** 23 <= M <= 2 ** 29 and A % 2 == 0
    return int(A), M


def leaf_term(y, A, c):
    """Leaf, Terms: v = 2^(y c - A). Scaling by a power of two is exact: v is a normal number."""
    z = fma32(y, c, MAGIC - A)
    n = z - (MAGIC - A)
    r = fma32(y, c, -n)
    return exp2_poly(r) * 2.0 ** int(n - A)


# --- Accumulator --------------------------------------------------------------------------------

POISON_J = 0x7FFFFFFF
MASK32 = 2 ** 32 - 1


class State:
    """Accumulator: (J, l0, l1, l2), exact sums of the 32-bit digits J - 1, J, J + 1 of a row."""

    def __init__(self, c):
        self.c = c                      # merging needs equal bits of c
        self.J = 0                      # 0: empty
        self.digits = [0, 0, 0]

    def raise_to(self, J):
        """Moves the window up to J and drops the digits below it."""
        if J > self.J:
            self.digits = (self.digits + [0, 0, 0])[min(J - self.J, 3):][:3]
            self.J = J

    def add(self, A, M):
        """Adds M * 2^(A - 24)."""
        a = A + 2 ** 22
        j, w = a >> 5, M << (a & 31)
        self.raise_to(j)
        for digit, part in ((j, w & MASK32), (j + 1, w >> 32)):
            if digit >= self.J - 1:
                self.digits[digit - (self.J - 1)] += part

    def poison(self):
        self.J, self.digits = POISON_J, [0, 0, 0]

    def merge(self, other):
        if bits32(self.c) != bits32(other.c):
            raise ValueError("states of different temperatures")
        J = max(self.J, other.J)
        moved = State(other.c)
        moved.J, moved.digits = other.J, list(other.digits)
        moved.raise_to(J)
        self.raise_to(J)
        self.digits = [p + q for p, q in zip(self.digits, moved.digits)]

    def record(self):
        """Shards and state bytes: the 32 bytes, little-endian: J, the bits of c, l0, l1, l2."""
        return struct.pack("<IIQQQ", self.J, bits32(self.c), *self.digits)


def row_state(row, k):
    """Leaf and Accumulator: the state of a row of fp32 values; leaves may come in any order."""
    state = State(k.c)
    if any(map(is_poison, row)):
        state.poison()
        return state
    for first in range(0, len(row), 16):
        value = leaf(row[first:first + 16], k)
        if value is not None:
            state.add(*value)
    return state


# --- Finish -------------------------------------------------------------------------------------

SQRT2 = float.fromhex("0x1.6a09e667f3bcdp+0")
LOG2_COEFFICIENTS = [float.fromhex(h) for h in (               # k = 10 .. 0
    "0x1.1964ec6fc9491p-3", "0x1.3703c1f4d0ffep-3", "0x1.5b9ac9b743f0dp-3", "0x1.89f3b1694cffep-3",
    "0x1.c68f568d31761p-3", "0x1.0c9a84994022dp-2", "0x1.484b13d7c02a9p-2", "0x1.a61762a7adedap-2",
    "0x1.2776c50ef9bfep-1", "0x1.ec709dc3a03fep-1", "0x1.71547652b82fep+1")]


def lg(u):
    """Definitions, lg(u) = (e, F): log2 of a double u > 0 is e + F, |F| <= about 1/2, in fp64."""
    g, e = math.frexp(u)                # in [1/2, 1)
    g, e = 2.0 * g, e - 1               # in [1, 2)
    if g > SQRT2:
        g, e = 0.5 * g, e + 1
    f = (g - 1.0) / (g + 1.0)
    h = f * f
    q = LOG2_COEFFICIENTS[0]
    for coefficient in LOG2_COEFFICIENTS[1:]:
        q = fma64(q, h, coefficient)
    return e, f * q


def trunc53(T):
    """Finish, T: a positive integer, cut to its 53 highest bits towards zero, as a double."""
    drop = max(T.bit_length() - 53, 0)
    return math.ldexp(T >> drop, drop)


def lg_of_state(state):
    """Finish, Sum, (eS, FS): log2 of the row's sum."""
    l0, l1, l2 = state.digits
    e, F = lg(trunc53(l0 + (l1 << 32) + (l2 << 64)))
    return e + 32 * (state.J - 1) - 24 - 2 ** 22, F


def target_term(x, k):
    """Finish, Target's term, (p, n): p * 2^n, from the target's logit alone."""
    x = clamp(x, k.lim)
    z = fma32(x, k.c, MAGIC)
    n = z - MAGIC
    return exp2_poly(fma32(x, k.c, -n)), int(n)


def lg_of_target(x, k):
    """Finish, Target's term, (ey, Fy): log2 of the target's term."""
    p, n = target_term(x, k)
    e, F = lg(p)
    return e + n, F


def finish_lse(state, k):
    """Finish and Edges: lse as an fp32 value, from the state of the whole row."""
    if state.J in (0, POISON_J):
        return math.nan
    eS, FS = lg_of_state(state)
    return to32(k.kappa * (eS + FS))


def finish_logprob(state, x, k):
    """Finish and Edges: the logprob as an fp32 value. x is the logit of the target."""
    if state.J in (0, POISON_J):
        return math.nan
    if x == -INF:
        return -INF
    eS, FS = lg_of_state(state)
    ey, Fy = lg_of_target(x, k)
    return to32(k.kappa * ((ey - eS) + (Fy - FS)))


def logprob_row(row, ids, temperature):
    """One row of fp32 values: (logprob of each id, lse, state)."""
    k = Constants(temperature)
    state = row_state(row, k)
    return [finish_logprob(state, row[i], k) for i in ids], finish_lse(state, k), state


# --- Entropy ------------------------------------------------------------------------------------

LN2 = float.fromhex("0x1.62e42fefa39efp-1")


def order_key(x):
    """Entropy, key: an unsigned integer that orders like the numbers, and is the same for both
    zeros."""
    b = 0 if x == 0 else bits32(x)
    return b ^ 0xFFFFFFFF if b >> 31 else b | 0x80000000


def of_order_key(key):
    return from_bits32(key & 0x7FFFFFFF if key >> 31 else key ^ 0xFFFFFFFF)


def moment_leaf(xs, k):
    """Entropy, Leaf: (A, M, U, key) of up to 16 logits; None if none is present."""
    value = leaf(xs, k)
    if value is None:
        return None
    A, M = value
    m = max(xs)
    wide = not abs(to32(fma32(m, k.c, EVEN) - EVEN)) < 4096
    ys = [clamp(x, k.lim) if wide and x != -INF else x for x in xs] + [-INF] * (16 - len(xs))
    thr = threshold(clamp(m, k.lim) if wide else m, wide, k)
    h = []
    for y in (max(y, thr) for y in ys):
        h.append(to32(leaf_term(y, A, k.c) * fma32(y, k.c, -float(A))))
    for half in (8, 4, 2, 1):
        h = [to32(h[i] + h[i + half]) for i in range(half)]
    return A, M, round(h[0] * 2.0 ** 24), order_key(m)      # round: to even


class Moments(State):
    """Entropy, State: the digits l, their moments g about t = 32 J - 2^22, and the best key."""

    def __init__(self, c):
        super().__init__(c)
        self.g = [0, 0, 0]
        self.key = 0

    def raise_to(self, J):
        rise = J - self.J
        if rise > 0:
            self.g = [g - 32 * rise * l for g, l in zip(self.g, self.digits)]
            self.g = (self.g + [0, 0, 0])[min(rise, 3):][:3]
        super().raise_to(J)

    def add_leaf(self, A, M, U, key):
        self.add(A, M)                                  # may also raise the window
        a = A + 2 ** 22
        j, w, q, e = a >> 5, M << (a & 31), U << (a & 31), a - 32 * self.J
        self.key = max(self.key, key)
        for digit, part, rest in ((j, w & MASK32, q & MASK32), (j + 1, w >> 32, q >> 32)):
            if self.J - 1 <= digit:
                self.g[digit - (self.J - 1)] += e * part + rest

    def poison(self):
        super().poison()
        self.g, self.key = [0, 0, 0], 0

    def merge(self, other):
        J = max(self.J, other.J)
        moved = Moments(other.c)
        moved.J, moved.digits, moved.g = other.J, list(other.digits), list(other.g)
        moved.raise_to(J)
        self.raise_to(J)
        self.digits = [p + q for p, q in zip(self.digits, moved.digits)]
        self.g = [p + q for p, q in zip(self.g, moved.g)]
        self.key = 0 if J == POISON_J else max(self.key, other.key)

    def record(self):
        """Entropy, Bytes: the 64 bytes, little-endian."""
        return super().record() + struct.pack("<qqqII", *self.g, self.key, 0)


def row_moments(row, k):
    """Entropy: the state of a row of fp32 values."""
    state = Moments(k.c)
    if any(map(is_poison, row)):
        state.poison()
        return state
    for first in range(0, len(row), 16):
        value = moment_leaf(row[first:first + 16], k)
        if value is not None:
            state.add_leaf(*value)
    return state


def entropy_octaves(state, k):
    """Entropy, Finish: H2, at least +0."""
    T, G = (sum(d << 32 * i for i, d in enumerate(digits)) for digits in (state.digits, state.g))
    Q = math.copysign(trunc53(abs(G)), G) / trunc53(T) if G else 0.0
    A, M, U, _ = moment_leaf([of_order_key(state.key)], k)
    e, F = lg(float(M))
    e += A - 24
    Qb = (M * (A + 2 ** 22 - 32 * state.J) + U) / M
    eS, FS = lg_of_state(state)
    H2 = ((eS - e) + (FS - F)) + (Qb - Q)
    return H2 if H2 > 0 else 0.0


def finish_entropy(state, k):
    """Entropy, Finish: the entropy in nats as an fp32 value."""
    if state.J in (0, POISON_J):
        return math.nan
    return to32(LN2 * entropy_octaves(state, k))


# --- Gradients ----------------------------------------------------------------------------------

def saved_row(row, k, with_entropy):
    """Gradients, Saved row: kind, eS, gS, best, H2 of a row of fp32 values."""
    state = row_moments(row, k)
    if state.J in (0, POISON_J):
        return 3, 0, 0.0, 0, 0.0
    eS, _ = lg_of_state(state)
    l0, l1, l2 = state.digits
    gS, _ = halved(trunc53(l0 + (l1 << 32) + (l2 << 64)))
    if not with_entropy:
        return 1, eS, gS, 0, 0.0
    best = bits32(of_order_key(state.key))
    return 2, eS, gS, best, entropy_octaves(state, k)


def saved_record(saved, k):
    """Gradients, Saved row: the 32 bytes, little-endian."""
    kind, eS, gS, best, H2 = saved
    return struct.pack("<IIiIdd", kind, bits32(k.c), eS, best, gS, H2)


def halved(u):
    """Definitions, lg, step 1: g and e."""
    g, e = math.frexp(u)
    g, e = 2.0 * g, e - 1
    return (0.5 * g, e + 1) if g > SQRT2 else (g, e)


def term(x, k):
    """Finish, Target's term: g of lg(p), e and F."""
    g, _ = halved(target_term(x, k)[0])
    e, F = lg_of_target(x, k)
    return g, e, F


def times(v, w):
    """fma(v, w, +0) for fp32 values: -0 only if a product that is not zero rounds to it."""
    p = v * w                                           # exact, or not finite
    return to32(p) if p != 0.0 else 0.0


def gradient_row(row, target, k, saved, token=None, entropy=None):
    """Gradients: those of a row of fp32 values, as fp32 values. token and entropy are the upstream
    gradients, or None."""
    kind, eS, gS, best, H2 = saved
    if kind == 3:
        return [math.nan] * len(row)
    MB = MAGIC - eS
    if token is not None:
        Gt = token / k.tau
        w = to32(-(Gt / gS))
    if entropy is not None:
        we = to32(-((entropy * LN2 / k.tau) / gS))
        xb = clamp(from_bits32(best), k.lim)
        kb = fma32(xb, k.c, -float(eS))
        _, eb, Fb = term(xb, k)
        _, FS = lg(gS)
        s = to32((H2 + ((eb - eS) + (Fb - FS))) - kb)
    out = []
    for i, x in enumerate(row):
        y = clamp(x, k.lim)
        z = fma32(y, k.c, MB)
        gone = x == -INF or z < MAGIC - 125.0
        if not gone:
            n = z - MB
            v = exp2_poly(fma32(y, k.c, -n)) * 2.0 ** int(z - MAGIC)
        parts = []
        if token is not None:
            if x == -INF:
                parts.append(0.0)
            elif i == target:
                gy, ey, _ = term(x, k)
                p = gy / gS * 2.0 ** max(ey - eS, -1000)
                parts.append(to32(Gt * (1.0 - p) + 0.0))
            else:
                parts.append(0.0 if gone else times(v, w))
        if entropy is not None:
            parts.append(0.0 if gone else
                         times(to32(v * to32(fma32(y, k.c, -float(eS)) + s)), we))
        out.append(parts[0] if len(parts) == 1 else to32(parts[0] + parts[1]))
    return out


def narrowed(x, dtype):
    """Gradients, Output: the encoding of an fp32 value in a dtype, rounded to nearest even."""
    if dtype == "f32":
        return bits32(x)
    if x != x:
        return 0x7FC0 if dtype == "bf16" else 0x7E00
    if dtype == "bf16":
        b = bits32(x)
        return (b + 0x7FFF + (b >> 16 & 1)) >> 16
    try:
        return struct.unpack("<H", struct.pack("<e", x))[0]
    except OverflowError:
        return 0xFC00 if x < 0 else 0x7C00


# --- Divergence ---------------------------------------------------------------------------------

class Divergence:
    """Divergence, State: the states of two rows; x, a sum whose digits start at digit J - 1 of the
    window of p; and whether an id is present in p and absent in q."""

    def __init__(self, kp, kq):
        self.p, self.q, self.x, self.outside = State(kp.c), State(kq.c), [0, 0, 0, 0], False

    def raise_to(self, J):
        self.x = (self.x + [0] * 4)[min(max(J - self.p.J, 0), 4):][:4]
        self.p.raise_to(J)

    def add(self, p, q, U):
        """Adds two leaves (A, M), each None if absent. U is None if an id is outside."""
        if q is not None:
            self.q.add(*q)
        if p is None:
            return
        a = p[0] + 2 ** 22
        self.raise_to(a >> 5)
        self.p.add(*p)
        if U is None:
            self.outside = True
            return
        R = (p[1] * (p[0] - q[0]) + U) << (a & 31)
        for digit, part in ((0, R & MASK32), (1, R >> 32 & MASK32), (2, R >> 64)):
            place = (a >> 5) + digit - (self.p.J - 1)
            if place >= 0:
                self.x[place] += part

    def merge(self, other):
        J = max(self.p.J, other.p.J)
        moved = (other.x + [0] * 4)[min(J - other.p.J, 4):][:4]
        self.raise_to(J)
        self.x = [a + b for a, b in zip(self.x, moved)]
        self.p.merge(other.p)
        self.q.merge(other.q)
        self.outside |= other.outside


def divergence_integer(xp, xq, A, B, kp, kq):
    """Divergence, Leaf: U of two present leaves, whose octaves are A and B; None if an id is
    outside."""
    wide = not abs(to32(fma32(max(xp), kp.c, EVEN) - EVEN)) < 4096
    m = clamp(max(xp), kp.lim) if wide else max(xp)
    thr = threshold(m, wide, kp)
    h = [0.0] * 16
    for i, (x, y) in enumerate(zip(xp, xq)):
        if x == -INF:
            continue
        if y == -INF:
            return None
        x = max(clamp(x, kp.lim) if wide else x, thr)
        distance = to32(fma32(x, kp.c, -float(A)) - fma32(clamp(y, kq.lim), kq.c, -float(B)))
        h[i] = to32(leaf_term(x, A, kp.c) * distance)
    for half in (8, 4, 2, 1):
        h = [to32(h[i] + h[i + half]) for i in range(half)]
    return round(h[0] * 2.0 ** 24)                      # to even


def row_divergence(p, q, kp, kq):
    """Divergence: the state of two rows of fp32 values."""
    s = Divergence(kp, kq)
    for first in range(0, len(p), 16):
        xp, xq = p[first:first + 16], q[first:first + 16]
        if any(map(is_poison, xp)) or any(map(is_poison, xq)):
            if any(map(is_poison, xp)):
                s.raise_to(POISON_J)
            if any(map(is_poison, xq)):
                s.q.poison()
            continue
        P, Q = leaf(xp, kp), leaf(xq, kq)
        both = P is not None and Q is not None
        s.add(P, Q, divergence_integer(xp, xq, P[0], Q[0], kp, kq) if both else None)
    return s


def finish_divergence(s):
    """Divergence, Finish: the divergence in nats, as an fp32 value."""
    if s.p.J in (0, POISON_J) or s.q.J in (0, POISON_J):
        return math.nan
    if s.outside:
        return INF
    X = sum(d << 32 * i for i, d in enumerate(s.x))
    T = sum(d << 32 * i for i, d in enumerate(s.p.digits))
    mean = math.copysign(trunc53(abs(X)), X) / trunc53(T) if X else 0.0
    (eP, FP), (eQ, FQ) = lg_of_state(s.p), lg_of_state(s.q)
    K2 = mean - ((eP - eQ) + (FP - FQ))
    return to32(LN2 * K2) if K2 > 0 else 0.0


# --- Shards and state bytes ---------------------------------------------------------------------

def widened(bits, dtype):
    """The fp32 encoding of a logit, which keeps the payload of a NaN."""
    if dtype == "f32":
        return bits
    if dtype == "bf16":
        return bits << 16
    x = decode(bits, dtype)
    return bits32(x) if x == x else (bits >> 15) << 31 | 0x7F800000 | (bits & 0x3FF) << 13


def shard_records(encodings, dtype, first, target, k):
    """Shards and state bytes: the state and target record of a part that begins at id first."""
    state = row_state([decode(b, dtype) for b in encodings], k)
    if first <= target < first + len(encodings):
        return state, (widened(encodings[target - first], dtype), 1)
    return state, (0, 0)


def merge_records(records):
    """Shards and state bytes: merges the records of parts, in any order."""
    (state, (x, owners)), *others = records
    merged = State(state.c)
    merged.merge(state)
    for other, (its_x, its_owners) in others:
        merged.merge(other)
        x, owners = x | its_x, owners + its_owners
    return merged, (x, owners)


def exceeds(x, state, k):
    """Shards and state bytes: whether the term of x, which must be finite, exceeds the sum."""
    p, n = target_term(x, k)
    m, up = int(p * 2.0 ** 24), n - 24 - (32 * (state.J - 1) - 24 - 2 ** 22)
    T = sum(d << 32 * i for i, d in enumerate(state.digits))
    return m << up > T if up >= 0 else m > T << -up


def can_hold(state, x, k):
    """Shards and state bytes: whether a state may contain the logit of a target."""
    if is_poison(x):
        return state.J == POISON_J
    if x == -INF or state.J == POISON_J:
        return True
    return state.J != 0 and not exceeds(x, state, k)


def finish_records(state, target, k):
    """Shards and state bytes: (logprob, lse) of a whole row as fp32 values."""
    x = from_bits32(target[0])
    if bits32(state.c) != bits32(k.c):
        raise ValueError("a state of another temperature")
    if target[1] != 1:
        raise ValueError("%d owners" % target[1])
    if not can_hold(state, x, k):
        raise ValueError("a state that does not hold a target's logit of %r" % x)
    return finish_logprob(state, x, k), finish_lse(state, k)


# --- Kept sets and the order of ids -------------------------------------------------------------

def kept_row(row, kept):
    """Kept sets: the row with all ids absent that are not kept. kept holds the 32-bit words, or is
    None, which keeps all."""
    if kept is None:
        return list(row)
    return [x if kept[i >> 5] >> (i & 31) & 1 else -INF for i, x in enumerate(row)]


def in_order(row):
    """Order of ids: the present ids, largest logit first; among equal logits, the lowest id
    first."""
    return sorted((i for i, x in enumerate(row) if x > -INF), key=lambda i: (-row[i], i))


def order_row(row, kept, ids, k, temperature):
    """One row of fp32 values: (logprob of each id, rank of each id, first k ids, their logprobs,
    lse)."""
    constants = Constants(temperature)
    row = kept_row(row, kept)
    state = row_state(row, constants)
    lse = finish_lse(state, constants)
    if state.J in (0, POISON_J):
        nan = math.nan
        return [nan] * len(ids), [-1] * len(ids), [-1] * k, [nan] * k, lse
    order = in_order(row)
    place = {i: n for n, i in enumerate(order)}
    first = order[:k] + [-1] * (k - len(order))
    return ([finish_logprob(state, row[i], constants) for i in ids],
            [place.get(i, len(order)) for i in ids], first,
            [finish_logprob(state, row[i], constants) if i >= 0 else -INF for i in first], lse)


# --- The linear head ----------------------------------------------------------------------------
# The rows here are lists of fp32 values. Integers are of any size, so nothing can overflow, and the
# sums of products are made from whole integers: digits occur only where the text leaves one out.

LINEAR_BITS = {"h24w16": 16, "h24w24": 24}          # of a weight's integer
LINEAR_LAST = {"h24w16": 8, "h24w24": 16}           # bits of a product below a unit of T


def linear_magnitude(row):
    """The linear head, Scale, a: the largest encoding without its sign; NaN is above all numbers.
    Takes encodings, since a Python float does not keep the encoding of a NaN."""
    return max(b & 0x7FFFFFFF for b in row)


def linear_E(a):
    """Scale: E, or None for a bad row."""
    E = max(-40, ((a + 0x10200) >> 23) - 126)
    return None if E > 48 else E


def linear_ratio(x, E, bits):
    """Integers and digits: x * 2^(bits - 1 - E) as a fraction of two integers."""
    n, d = x.as_integer_ratio()
    shift = bits - 1 - E
    return (n << shift, d) if shift >= 0 else (n, d << -shift)


def linear_integers(row, E, bits):
    """Integers and digits: RNI(x * 2^(bits - 1 - E)) of each element of a row that is not bad."""
    integers = []
    for x in row:
        n, d = linear_ratio(x, E, bits)
        q, rest = divmod(n, d)
        integers.append(q + (2 * rest > d or (2 * rest == d and q & 1)))
    return integers


def last_digit(q):
    """Integers and digits: the least significant signed digit of an integer."""
    return (q + 128) % 256 - 128


def linear_sum(h, w, form):
    """Product: the exact sum of products of integers, in steps of 2^-8 (h24w16) or 2^-16 of a unit
    of T. The sums of parts of D add up."""
    if form == "h24w24":
        return sum(q * Q for q, Q in zip(h, w))
    return sum(q * W - last_digit(q) * last_digit(W) for q, W in zip(h, w))


def linear_T(total, form):
    """Product: T of the sum over the whole of D. In h24w16 nothing is cut off."""
    low = LINEAR_LAST[form]
    assert form == "h24w24" or total % 256 == 0
    return (total + (1 << (low - 1))) >> low


def linear_x(T, E_h, E_w):
    """Product: the logit, rounded once; NaN if a row is bad."""
    if E_h is None or E_w is None:
        return math.nan
    return round32(T, E_h + E_w - 30) if T else 0.0


def softcap(x, cap):
    """Bias, scale, softcap: cap * tanh(x / cap)."""
    k = to32(2.0 * LOG2E / cap)
    y = abs(x)
    if y < to32(0.625 * cap):
        u = to32(y * to32(1.0 / cap))
        w = to32(u * u)
        p = float.fromhex("-0x1.75e1c6p-8")
        for coefficient in ("0x1.52269ap-6", "-0x1.b83c5ap-5", "0x1.110726p-3", "-0x1.555532p-2"):
            p = fma32(p, w, float.fromhex(coefficient))
        y = fma32(to32(y * w), p, y)
    else:
        y = min(y, 16.0 * cap)
        z = fma32(y, -k, MAGIC)
        n = to32(z - MAGIC)
        e = exp2_poly(fma32(y, -k, -n)) * 2.0 ** int(n)
        y = fma32(-cap, to32(to32(e + e) / to32(1.0 + e)), cap)
    return math.copysign(y, x)


def linear_finish(x, bias=None, scale=None, cap=None):
    """Bias, scale, softcap: the logit of an id that is below V and kept."""
    if scale is not None and not 2.0 ** -32 <= scale <= 2.0 ** 32:
        raise ValueError("scale %r is outside [2^-32, 2^32]" % (scale,))
    if cap is not None and not 2.0 ** -10 <= cap <= 2.0 ** 20:
        raise ValueError("cap %r is outside [2^-10, 2^20]" % (cap,))
    if bias == -INF:
        return -INF
    if x != x or bias is not None and not math.isfinite(bias):
        return math.nan
    if bias is not None:
        x = to32(x + bias)
    if scale is not None:
        x = to32(x * scale)
    if not math.isfinite(x):
        return math.nan
    return x if cap is None else softcap(x, cap)


def linear_row(hidden, weights, form, bias=None, scale=None, cap=None):
    """The linear head: the logits of a row. hidden is D encodings of fp32, weights V lists of
    them."""
    def prepared(row, bits):
        E = linear_E(linear_magnitude(row))
        return E, None if E is None else linear_integers(map(from_bits32, row), E, bits)

    E_h, h = prepared(hidden, 24)
    logits = []
    for v, weight in enumerate(weights):
        E_w, w = prepared(weight, LINEAR_BITS[form])
        bad = E_h is None or E_w is None
        x = math.nan if bad else linear_x(linear_T(linear_sum(h, w, form), form), E_h, E_w)
        logits.append(linear_finish(x, None if bias is None else bias[v], scale, cap))
    return logits


def linear_norms(row, E, bits):
    """A row's own bound: size, loss and last of a row of fp32 values that is not bad."""
    N = R = L = 0
    for x, n in zip(row, linear_integers(row, E, bits)):
        u, d = linear_ratio(x, E, bits)
        lost = -(-(abs(u - n * d) << 16) // d)                  # rounded up
        N, R, L = N + n * n, R + lost * lost, L + last_digit(n) ** 2
    unit = E - bits + 1
    return [math.ldexp(math.sqrt(float(s)), e) for s, e in ((N, unit), (R, unit - 16), (L, unit))]


def linear_bound(hidden, weights, form):
    """A row's own bound, as an fp32 value, of the error of each logit of a row, beside half an ulp.
    Takes encodings, as linear_row does."""
    E_h = linear_E(linear_magnitude(hidden))
    if E_h is None:
        return math.nan
    size, loss, last = linear_norms(list(map(from_bits32, hidden)), E_h, 24)
    heads, most = [[0.0, 0.0, 0.0]], -40
    for weight in weights:
        E_w = linear_E(linear_magnitude(weight))
        if E_w is not None:
            heads.append(linear_norms(list(map(from_bits32, weight)), E_w, LINEAR_BITS[form]))
            most = max(most, E_w)
    of_size, of_loss, of_last = map(max, zip(*heads))
    third = last * of_last if form == "h24w16" else 2.0 ** (E_h + most - 31)
    return to32((1.0 + 2.0 ** -20) * ((size + loss) * of_loss + loss * of_size + third))


def linear_derivative(g, x, scale=None, cap=None):
    """Derivatives, d, an fp32 value, from g, that by the logit x."""
    if g == 0:
        return 0.0
    t = x / cap if cap is not None else 0.0
    return to32(g * (1.0 - t * t) * (1.0 if scale is None else scale))


def linear_backward(active, grad, hidden, weights, sums, scale=None, cap=None, logits=None):
    """Derivatives: what is in `sums` once the terms of a batch are added. active has the numbers of
    its rows, in ascending order; grad [R][V], hidden [R][D], weights [V][D] and logits [R][V],
    which count with a cap alone, are fp32 values. sums, a dict of "hidden" [R][D], "weights" [V][D]
    and "bias" [V], and the dict of the same names that is returned are encodings of doubles."""
    V, D = len(weights), len(weights[0])

    def begun(row):
        return [from_bits64(b) + 0.0 for b in row]          # -0 becomes +0

    def encoded(row):
        return [bits64(u) for u in row]

    def add(to, d, factor):
        return to if d == 0 else to + d * factor            # the product is exact

    by_weights, by_bias = [begun(row) for row in sums["weights"]], begun(sums["bias"])
    by_hidden = list(sums["hidden"])                        # those of ignored rows stay as they are
    for r in active:
        of_row = begun(by_hidden[r])
        for v in range(V):
            d = linear_derivative(grad[r][v], logits[r][v] if logits else 0.0, scale, cap)
            by_bias[v] = add(by_bias[v], d, 1.0)
            for k in range(D):
                of_row[k] = add(of_row[k], d, weights[v][k])
                by_weights[v][k] = add(by_weights[v][k], d, hidden[r][k])
        by_hidden[r] = encoded(of_row)
    return {"hidden": by_hidden, "weights": [encoded(row) for row in by_weights],
            "bias": encoded(by_bias)}


# --- Sampling -----------------------------------------------------------------------------------

def random_bits(seed, stream, position):
    """Sampling, Random bits: U, from Philox4x32-10."""
    key = [seed & MASK32, seed >> 32]
    x = [position & MASK32, position >> 32, stream & MASK32, stream >> 32]
    for _ in range(10):
        a, b = 0xD2511F53 * x[0], 0xCD9E8D57 * x[2]
        x = [b >> 32 ^ x[1] ^ key[0], b & MASK32, a >> 32 ^ x[3] ^ key[1], a & MASK32]
        key = [(key[0] + 0x9E3779B9) & MASK32, (key[1] + 0xBB67AE85) & MASK32]
    return x[1] << 32 | x[0]


def bits_of_u(u):
    """Sampling, Random bits: U of a given u in [0, 1)."""
    return int(u * 2.0 ** 64)


def leaf_units(xs, k):
    """Sampling, Draw: q of a leaf that has present ids."""
    m = max(xs)
    wide = not abs(to32(fma32(m, k.c, EVEN) - EVEN)) < 4096
    m = clamp(m, k.lim) if wide else m
    A = to32(fma32(m, k.c, EVEN) - EVEN)
    thr = threshold(m, wide, k)
    return [0 if x == -INF else
            int(leaf_term(max(clamp(x, k.lim) if wide else x, thr), A, k.c) * 2.0 ** 40)
            for x in xs]


def draw(row, U, k):
    """Sampling, Draw: the token of a row of fp32 values that is neither poisoned nor empty."""
    state = row_state(row, k)
    T = sum(d << 32 * i for i, d in enumerate(state.digits))
    return draw_at(row, U * T >> 64, state.J, k)


def draw_at(row, r, J, k):
    """Sampling, Draw, steps 2 and 3: the token at r of a row whose window is at J."""
    leaves = [(first, leaf(row[first:first + 16], k)) for first in range(0, len(row), 16)]
    unit = 32 * (J - 1)
    for first, value in leaves:
        if value is None:
            continue
        shift = value[0] + 2 ** 22 - unit
        W = value[1] << shift if shift >= 0 else value[1] >> -shift
        if r < W:
            break
        r -= W
    q = leaf_units(row[first:first + 16], k)
    C = 0
    for i, units in enumerate(q):
        C += units
        if C * W > r * sum(q):
            return first + i


def drawer(row, k):
    """Sampling, Draw: a function from U to the token of a row, for many draws of one row."""
    state = row_state(row, k)
    T = sum(d << 32 * i for i, d in enumerate(state.digits))
    ends, total, firsts = [], 0, []
    for first in range(0, len(row), 16):
        value = leaf(row[first:first + 16], k)
        if value is None:
            continue
        a = value[0] + 2 ** 22 - 32 * (state.J - 1)
        total += value[1] << a if a >= 0 else value[1] >> -a
        ends.append(total)
        firsts.append(first)
    assert total == T
    units = {}

    def token(U):
        R = U * T >> 64
        n = bisect.bisect_right(ends, R)
        before = ends[n - 1] if n else 0
        if n not in units:
            q = leaf_units(row[firsts[n]:firsts[n] + 16], k)
            units[n] = [sum(q[:i + 1]) for i in range(len(q))]
        C, W = units[n], ends[n] - before
        return firsts[n] + bisect.bisect_right(C, (R - before) * C[-1] // W)

    return token


def weights(row, k):
    """Sampling, Weights: the weight v of each id, an fp32 value."""
    best = max(x for x in row if x > -INF)
    N = fma32(clamp(best, k.lim), k.c, EVEN) - EVEN
    out = []
    for x in row:
        y = clamp(x, k.lim)
        z = fma32(y, k.c, MAGIC - N)
        if x == -INF or z < MAGIC - 125.0:
            out.append(0.0)
        else:
            out.append(exp2_poly(fma32(y, k.c, -(z - (MAGIC - N)))) * 2.0 ** int(z - MAGIC))
    return out


def filtered(row, k, top_k=0, top_p=1.0, min_p=0.0):
    """Sampling, Filters: the row with the ids absent that top-k, top-p and min-p leave out."""
    left, v = in_order(row), weights(row, k)
    if top_k:
        left = left[:top_k]
    if top_p < 1.0:
        n, d = to32(top_p).as_integer_ratio()
        goal = -(-n * sum(int(v[i] * 2.0 ** 40) for i in left) // d)
        total, count = 0, 0
        while total < goal:
            total += int(v[left[count]] * 2.0 ** 40)
            count += 1
        left = left[:count]
    bound = to32(min_p) * v[left[0]]                    # exact: 24 + 24 bits
    stays = {i for i in left if v[i] >= bound}
    return [x if i in stays else -INF for i, x in enumerate(row)]


def sample_row(row, U, temperature, kept=None, top_k=0, top_p=1.0, min_p=0.0):
    """Sampling: (token, its logprob under the model, its logprob under the kept set, the ids of the
    kept set) of a row of fp32 values."""
    k = Constants(temperature)
    model, row = row_state(row, k), kept_row(row, kept)
    state = row_state(row, k)
    if state.J in (0, POISON_J):
        return -1, math.nan, math.nan, []
    row = filtered(row, k, top_k, top_p, min_p)
    token = draw(row, U, k)
    return (token, finish_logprob(model, row[token], k),
            finish_logprob(row_state(row, k), row[token], k),
            [i for i, x in enumerate(row) if x > -INF])


# --- Draws from shards --------------------------------------------------------------------------

def place(x, i):
    """Order of ids: the place of id i, whose logit is x."""
    return order_key(x) << 32 | (2 ** 32 - 1 - i)


def draw_from_shards(row, cuts, U, temperature, kept=None, top_k=0, top_p=1.0, min_p=0.0,
                     model=False, count=False):
    """Draws from shards: (messages, token, logprob under the model, logprob under the kept set,
    number of kept ids, kept ids of each shard) of a row of fp32 values, cut at `cuts`. messages is
    a list of rounds, each a list of the shards' messages. model, count: whether the model's logprob
    and the number of kept ids are wanted. All filters are the same for all rows of the call."""
    k, V = Constants(temperature), len(row)
    bounds = [0] + list(cuts) + [V]
    parts = list(zip(bounds, bounds[1:]))
    bare, row = row, kept_row(row, kept)
    lists = 1 <= top_k <= 64
    filters = top_k > 0 or top_p < 1.0 or min_p > 0.0 or count
    need_model = model and kept is not None
    messages = []

    def states(x):
        return [row_state(x[a:b], k) for a, b in parts]

    def send(each):
        messages.append(each)

    def merged(several):
        whole = State(k.c)
        for state in several:
            whole.merge(state)
        return whole

    present = {i for i, x in enumerate(row) if x > -INF and not is_poison(x)}
    of_present, of_models = states(row), states(bare)
    want = top_k if lists else 1 if filters else 0

    def begin(number):
        a, b = parts[number]
        out = struct.pack("<II", a, b - a) + of_present[number].record()
        if need_model:
            out += of_models[number].record()
        places = sorted((place(row[i], i) for i in present if a <= i < b), reverse=True)
        return out + struct.pack("<%dQ" % want, *(places + [0] * want)[:want])

    send([begin(n) for n in range(len(parts))])
    whole, under = merged(of_present), merged(of_models if need_model else of_present)
    rounds = 1 if lists else 2
    if filters and not lists:
        rounds = 3 + 4 * (top_k > 0) + 4 * (top_p < 1.0)
    if whole.J in (0, POISON_J):
        while len(messages) < rounds:
            size = 8 if len(messages) == rounds - 1 else 40 if len(messages) == rounds - 2 else 2048
            send([bytes(size)] * len(parts))
        return messages, -1, math.nan, math.nan, 0, [[] for _ in parts]

    left = set(present)
    v = weights(row, k)
    q = [int(x * 2.0 ** 40) for x in v]
    if lists:
        left = set(sorted(left, key=lambda i: -place(row[i], i))[:top_k])
    for weighted in (False, True):
        if not (top_p < 1.0 if weighted else top_k > 0) or (lists and not weighted):
            continue

        def adds(i):
            return q[i] if weighted else 1

        prefix, goal, searches = 0, None, True
        for level in range(4):
            shift = 24 - 8 * level
            sums = [[0] * 256 for _ in parts]
            for number, (a, b) in enumerate(parts):
                for i in left:
                    key = order_key(row[i])
                    if searches and a <= i < b and key >> shift + 8 == prefix:
                        sums[number][key >> shift & 255] += adds(i)
            if not lists:
                send([struct.pack("<256Q", *s) for s in sums])
            if not searches:
                continue
            total = [sum(column) for column in zip(*sums)]
            if goal is None:
                n, d = to32(top_p).as_integer_ratio()
                goal = -(-n * sum(total) // d) if weighted else top_k
                if not weighted and top_k >= sum(total):
                    searches = False
                    continue
            found = 255
            while total[found] < goal:
                goal -= total[found]
                found -= 1
            prefix = prefix << 8 | found
        if searches:
            equal = sorted(i for i in left if order_key(row[i]) == prefix)
            stays = -(-goal // adds(equal[0]))
            left = {i for i in left if order_key(row[i]) > prefix} | set(equal[:stays])
    best = max(present, key=lambda i: place(row[i], i))
    left = {i for i in left if v[i] >= to32(min_p) * v[best]}
    row = [x if i in left else -INF for i, x in enumerate(row)]
    of_kept = states(row)
    if filters and not lists:
        send([state.record() + struct.pack("<II", sum(a <= i < b for i in left), 0)
              for state, (a, b) in zip(of_kept, parts)])
    whole = merged(of_kept)

    # The shard that holds R, by the shares of whole shards; then inside it.
    T = sum(d << 32 * i for i, d in enumerate(whole.digits))
    R = U * T >> 64
    for number, state in enumerate(of_kept):
        raised = State(k.c)
        raised.merge(state)
        raised.raise_to(whole.J)
        share = sum(d << 32 * i for i, d in enumerate(raised.digits))
        if R < share:
            break
        R -= share
    a, b = parts[number]
    token = a + draw_at(row[a:b], R, whole.J, k)
    if not lists:
        send([struct.pack("<II", bits32(row[token]), token + 1) if n == number else bytes(8)
              for n in range(len(parts))])
    return (messages, token, finish_logprob(under, row[token], k),
            finish_logprob(whole, row[token], k), len(left),
            [sorted(i for i in left if a <= i < b) for a, b in parts])


# --- Sums ---------------------------------------------------------------------------------------

def exact_sum(values):
    """Sums: the exact real sum of fp32 values, rounded once to nearest even. A zero or empty sum is
    +0."""
    values = list(values)
    if any(x != x for x in values) or (INF in values and -INF in values):
        return math.nan
    for infinity in (INF, -INF):
        if infinity in values:
            return infinity
    total = 0
    for x in values:                                    # in steps of 2^-149, fp32's last bit
        n, d = x.as_integer_ratio()
        total += n * (2 ** 149 // d)
    return round32(total, -149)


def exact_mean(values):
    """Sums, Mean: the exact sum, rounded once to 53 bits, divided by the count; as a double."""
    values = list(values)
    if any(x != x for x in values) or any(x in values for x in (INF, -INF)):
        return exact_sum(values)
    total = sum(int(x * 2.0 ** 149) for x in values)    # exact: fp64 has room for 2^-149 .. 2^277
    return total / 2 ** 149 / len(values) if total else 0.0     # int / int is rounded once


def mean32(mean):
    """Sums, Mean: a mean as fp32; one that rounds to zero becomes +0."""
    return to32(mean) or 0.0


def differences(values, minus):
    """Sums, Differences: the values that a sum adds for x - y: x and -y, or none if the bits are
    equal."""
    for x, y in zip(values, minus):
        if x != x or y != y:
            yield math.nan
        elif struct.pack("<f", x) != struct.pack("<f", y):
            yield x
            yield -y


# --- Ratios -------------------------------------------------------------------------------------

LN2_HIGH = float.fromhex("0x1.62e42fefa39efp-1")
LN2_LOW = float.fromhex("0x1.abc9e3b39803fp-56")
INVERSE_FACTORIALS = [1 / math.factorial(k) for k in range(14, 1, -1)]      # rounded once each


def growth(d):
    """Ratios: (e^d, e^d - 1 - d) in fp64."""
    if d >= 89.0:
        return INF, INF
    if d <= -104.0:
        return 0.0, -1.0 - d
    z = fma64(d, LOG2E, 1.5 * 2.0 ** 52)
    n = z - 1.5 * 2.0 ** 52
    r = fma64(-n, LN2_HIGH, d)
    r = fma64(-n, LN2_LOW, r)
    q = INVERSE_FACTORIALS[0]
    for coefficient in INVERSE_FACTORIALS[1:]:
        q = fma64(q, r, coefficient)
    f = (r * r) * q
    e = math.ldexp(1.0 + (r + f), int(n))
    return e, f if n == 0.0 else (e - 1.0) - d


def ratio(d):
    """Ratios: e^d as an fp32 value, of a double d."""
    return d if d != d else to32(growth(d)[0])


def compare(sampled, other):
    """Ratios: (ratio, k1, k2, k3) of two fp32 logprobs as fp32 values."""
    if sampled != sampled or other != other:
        return (math.nan,) * 4
    same = struct.pack("<f", sampled) == struct.pack("<f", other)
    d = 0.0 if same else other - sampled
    e, rest = growth(d)
    return to32(e), to32(0.0 - d), to32(0.5 * (d * d)), to32(rest)


# --- Policy losses ------------------------------------------------------------------------------

NO_OLD = object()


def difference(x, y):
    """Ratios: D(x, y) = RN64(x - y); +0 where the bits are equal, NaN where either is NaN."""
    if x != x or y != y:
        return math.nan
    return 0.0 if struct.pack("<f", x) == struct.pack("<f", y) else x - y


class Policy:
    """The options of a policy loss. loss: clip, gspo, cispo or reinforce; norm: token-mean,
    seq-mean-token-mean, seq-mean-token-sum or constant; kl: k1, k2, k3, k1+, k3+; weight: None,
    truncate or mask; level: token, sequence or geometric."""

    def __init__(self, loss="clip", norm="token-mean", eps_low=0.2, eps_high=0.2, dual=INF,
                 kl="k3", beta=0.0, eta=0.0, weight=None, level="token", w_low=0.0, w_high=0.0,
                 constant=0.0, tokens=0, sequences=0, upstream=1.0):
        self.loss, self.norm, self.kl = loss, norm, kl
        self.lo, self.hi = to32(1 - eps_low), to32(1 + eps_high)
        self.dual, self.beta, self.eta = to32(dual), to32(beta), to32(eta)
        self.weight, self.level = weight, level
        self.w_low, self.w_high = to32(w_low), to32(w_high)
        self.constant, self.tokens, self.sequences = constant, tokens, sequences
        self.upstream = to32(upstream)

    def adds_sequences(self):
        return self.norm.startswith("seq")

    def clip(self, rho, advantage):
        """Token, step 2: (k, mark)."""
        if self.loss == "reinforce":
            return 1.0, None
        if self.loss == "cispo":
            return ((self.hi, "high") if rho > self.hi else (self.lo, "low") if rho < self.lo
                    else (rho, None))
        if advantage > 0 and rho > self.hi:
            return self.hi, "high"
        if advantage < 0 and rho < self.lo:
            return self.lo, "low"
        if advantage < 0 and rho > self.dual:
            return self.dual, "dual"
        return rho, None


def product(x, y):
    """RN32(x * y), with 0 * inf = NaN as IEEE has it."""
    return to32(x * y)


def kl_and_slope(kind, new, ref):
    """Token, step 5."""
    d = difference(ref, new)
    if d != d:
        return math.nan, math.nan
    k1, k2, k3 = to32(0.0 - d), to32(0.5 * (d * d)), to32(growth(d)[1])
    kl = {"k1": k1, "k2": k2, "k3": k3}[kind[:2]]
    if kind == "k1":
        return kl, 1.0
    if kind == "k3":
        if d >= 89:
            x = INF
        elif d <= -104:
            x = -1.0
        else:
            z = fma64(d, LOG2E, 1.5 * 2.0 ** 52)
            e, rest = growth(d)
            x = rest + d if z - 1.5 * 2.0 ** 52 == 0 else e - 1.0
        return kl, 0.0 - x
    return kl, 0.0 - d


def mean64(terms, count):
    """Sums, Means: R / count, or the infinity or NaN of the sum, as a double."""
    special = exact_sum(terms)
    if not math.isfinite(special) and not all(map(math.isfinite, terms)):
        return special
    total = sum(map(Fraction, terms))
    return float(total) / count if total else 0.0


class Sum:
    """Record: ten digits that are never carried, and what was seen."""

    def __init__(self):
        self.digits, self.seen, self.values = [0] * 10, 0, []

    def add(self, x):
        self.values.append(x)
        if x != x:
            self.seen |= 1
        elif x in (INF, -INF):
            self.seen |= 2 if x > 0 else 4
        else:
            b = bits32(x)
            E, m, sign = b >> 23 & 255, b & 0x7FFFFF, -1 if b >> 31 else 1
            m, E = (m | 0x800000, E) if E else (m, 1)
            w, k = m << (E - 1 & 31), E - 1 >> 5
            self.digits[k] += sign * (w & 0xFFFFFFFF)
            self.digits[k + 1] += sign * (w >> 32)

    def over(self, z):
        """RN32(RN64(R / z)); +0 where that is zero."""
        return mean32(mean64(self.values, z)) if self.values else 0.0

    def record(self):
        return struct.pack("<10qII", *self.digits, self.seen, 0)


MARKS = ("high", "low", "dual", "cut", "drift", "outside")
PARTS = ("loss", "pg", "kl", "entropy", "ratio", "k1", "k3", "weight")


def policy_loss(sequences, p):
    """Policy losses. sequences: a list of lists of active tokens, each a dict with new, advantage
    and, where given, old, ref, rollout, entropy. Returns a dict: loss, sequence [L_b], by_new and
    by_entropy (lists of lists), metrics, record (bytes, with metrics)."""
    has = {key: any(key in t for s in sequences for t in s)
           for key in ("ref", "rollout", "entropy")}
    own_tokens = sum(map(len, sequences))
    own_sequences = sum(1 for s in sequences if s)
    tokens, count = p.tokens or own_tokens, p.sequences or own_sequences
    sums = {part: Sum() for part in PARTS}
    marks = dict.fromkeys(MARKS, 0)
    ratios, out = [], {"sequence": [], "by_new": [], "by_entropy": []}
    for s in sequences:
        new = [t["new"] for t in s]
        old = [t.get("old", t["new"]) for t in s]
        rollout = [t.get("rollout") for t in s]
        n = len(s)
        joint = drifted = None
        if p.loss == "gspo" and n:
            joint = ratio(mean64(list(differences(new, old)), n))
            if has["rollout"]:
                drifted = ratio(mean64(list(differences(new, rollout)), n))
        shared = None
        if p.weight and n and p.level != "token":
            shared = ratio(mean64(list(differences(old, rollout)),
                                  1 if p.level == "sequence" else n))
        losses, by_new, by_entropy = [], [], []
        if n:
            z = {"token-mean": float(tokens), "seq-mean-token-mean": float(n * count),
                 "seq-mean-token-sum": float(count), "constant": p.constant}[p.norm]
            scale = p.upstream / z
        for t, x, y in zip(s, new, old):
            advantage = t["advantage"]
            d = difference(x, y)
            rho = joint if joint is not None else ratio(d)
            k, mark = p.clip(rho, advantage)
            a = product(k, advantage)
            if k != k or advantage != advantage or x != x:
                pg = g = math.nan
            elif 0 in (k, advantage, a):
                pg = g = 0.0
            elif p.loss in ("cispo", "reinforce"):
                g = to32(0.0 - a)
                pg = product(g, x)
                g = math.nan if pg != pg else g
            else:
                pg = to32(0.0 - a)
                g = 0.0 if mark else pg
            w, cut = 0.0, False
            if p.weight:
                w = shared if shared is not None else ratio(difference(y, t["rollout"]))
                if w > p.w_high or w < p.w_low:
                    cut = True
                    w = 0.0 if p.weight == "mask" else p.w_high if w > p.w_high else p.w_low
                if pg != pg or w != w:
                    pg = g = math.nan
                elif w == 0:
                    pg = g = 0.0
                else:
                    pg, g = product(w, pg), product(w, g)
            kl, slope = kl_and_slope(p.kl, x, t["ref"]) if has["ref"] else (0.0, 0.0)
            l, gradient = pg, g
            if p.beta:
                l = pg + p.beta * kl
                gradient = g + p.beta * slope
            if p.eta:
                l = l - p.eta * t["entropy"]
            losses.append(to32(l))
            by_new.append(to32(gradient * scale + 0.0))
            by_entropy.append(to32((0.0 - p.eta) * scale + 0.0) if p.eta else 0.0)
            values = (pg, kl, t.get("entropy", 0.0), rho,
                      to32(0.0 - d), math.nan if d != d else to32(growth(d)[1]), w)
            for part, value in zip(PARTS[1:], values):
                sums[part].add(value)
            if rho == rho:
                ratios.append(rho)
            for name in (mark, "cut" if cut else None, "outside" if x == -INF else None):
                if name:
                    marks[name] += 1
            if has["rollout"] and not mark:
                other = drifted if joint is not None else ratio(difference(x, t["rollout"]))
                if p.clip(other, advantage)[1]:
                    marks["drift"] += 1
        of = Sum()
        for l in losses:
            of.add(l)
        if p.norm == "seq-mean-token-mean":
            L = of.over(n) if n else 0.0
        else:
            L = exact_sum(losses)
        out["sequence"].append(L)
        out["by_new"].append(by_new)
        out["by_entropy"].append(by_entropy)
        if n:
            for value in [L] if p.adds_sequences() else losses:
                sums["loss"].add(value)
    z = {"token-mean": tokens, "constant": p.constant}.get(p.norm, count)
    out["loss"] = sums["loss"].over(z) if z else 0.0
    out["metrics"] = {part: sums[part].over(own_tokens) if own_tokens else 0.0
                      for part in PARTS[1:]}
    out["metrics"]["loss"] = out["loss"]
    for mark in MARKS:
        out["metrics"][mark] = to32(marks[mark] / own_tokens) if own_tokens else 0.0
    out["metrics"]["ratio_min"] = min(ratios) if ratios else math.nan
    out["metrics"]["ratio_max"] = max(ratios) if ratios else math.nan
    keys = [order_key(rho) for rho in ratios]
    most, least = max(keys, default=0), max((key ^ 0xFFFFFFFF for key in keys), default=0)
    out["record"] = struct.pack(
        "<II8qII", int(p.adds_sequences()), 255, own_tokens, own_sequences,
        *(marks[mark] for mark in MARKS), most, least) + b"".join(
            sums[part].record() for part in PARTS)
    return out


# --- Group advantages ---------------------------------------------------------------------------

def group_record(rewards):
    """Group advantages: the 240 bytes of a group."""
    total, squares = Sum(), [0] * 18
    for x in rewards:
        total.add(x)
        if math.isfinite(x):
            b = bits32(x)
            E, m = b >> 23 & 255, b & 0x7FFFFF
            m, E = (m | 0x800000, E) if E else (m, 1)
            w, k = m * m << (2 * E - 2 & 31), 2 * E - 2 >> 5
            for i in range(3):
                squares[k + i] += w >> 32 * i & 0xFFFFFFFF
    return (struct.pack("<Q", len(rewards)) + total.record() + struct.pack("<18Q", *squares))


def round53(n, unit):
    """An integer in units of 2^unit as a double, rounded once."""
    x = Fraction(n) * Fraction(2) ** unit
    return x.numerator / x.denominator


def group_mean_std(rewards, population=False):
    """Group advantages: (mean, std) as doubles."""
    n = len(rewards)
    if not all(map(math.isfinite, rewards)):
        return math.nan, math.nan
    x = sum(int(Fraction(v) * 2 ** 149) for v in rewards)
    mean = round53(x, -149) / n if n and x else 0.0
    if n <= 1:
        return mean, 0.0
    y = sum(int(Fraction(v) * 2 ** 149) ** 2 for v in rewards)
    spread = round53(n * y - x * x, -298)
    return mean, math.sqrt(spread / float(n * n if population else n * (n - 1)))


def group_advantage(x, mean, std, eps=1e-4, scaled=True):
    """Group advantages: of one reward."""
    if mean != mean or scaled and std != std:
        return math.nan
    e = x - mean
    if e == 0:
        return 0.0
    return mean32(e / (std + to32(eps)) if scaled else e)


# --- Edges: whole batches -----------------------------------------------------------------------

def logprob_batch(logits, dtype, ids, batch=None, time=None, vocab=None, mask=None,
                  temperature=1.0, ignore_index=-100, shift=False, cu_seqlens=None,
                  row_list=None):
    """Edges and Sums: all results of sb_logprob, as encodings.

    logits has R rows, each a list of V encodings, or None if the row is never read. ids, mask and a
    list of temperatures have R entries. R is batch * time in the padded layout; cu_seqlens selects
    the packed layout. The result is a dict of the lists token and lse (R encodings), sequence (B
    encodings) and count (B). With shift, the token at row r of a sequence (its id, mask,
    temperature, entry in row_list, and result) is scored with the logits of row r - 1.
    """
    rows = len(ids)
    if cu_seqlens is not None:
        spans = list(zip(cu_seqlens[:-1], cu_seqlens[1:]))
    else:
        batch = 1 if batch is None else batch
        time = rows // max(batch, 1) if time is None else time
        spans = [(b * time, (b + 1) * time) for b in range(batch)]
    temperatures = temperature if isinstance(temperature, list) else [temperature] * rows
    for name, size in (("positions", spans[-1][1] if spans else 0), ("rows of logits", len(logits)),
                       ("masks", rows if mask is None else len(mask)),
                       ("temperatures", len(temperatures))):
        if size != rows:
            raise ValueError("%d ids, but %d %s" % (rows, size, name))
    if vocab is None:
        vocab = next((len(row) for row in logits if row is not None), 0)

    for r, row in enumerate(logits):
        if row is not None and len(row) != vocab:
            raise ValueError("row %d: %d logits, not %d" % (r, len(row), vocab))

    active = [True] * rows
    if mask is not None:
        active = [m != 0 for m in mask]
    if row_list is not None:
        listed = set(row_list)
        active = [active[r] and r in listed for r in range(rows)]
    if shift:
        for first, end in spans:
            if first < end:
                active[first] = False
    active = [active[r] and ids[r] != ignore_index for r in range(rows)]

    for r in range(rows):                               # checks all ids before computing any result
        if active[r] and not 0 <= ids[r] < vocab:
            raise ValueError("row %d: id %d is outside [0, %d)" % (r, ids[r], vocab))

    token, lse = [0.0] * rows, [0.0] * rows             # +0 where ignored
    for r in range(rows):
        if active[r]:
            row = [decode(b, dtype) for b in logits[r - 1 if shift else r]]
            try:
                (token[r],), lse[r], _ = logprob_row(row, [ids[r]], temperatures[r])
            except ValueError as error:
                raise ValueError("row %d: %s" % (r, error))
    sums = [exact_sum(token[r] for r in range(*span) if active[r]) for span in spans]
    return {"token": [bits32(x) for x in token], "lse": [bits32(x) for x in lse],
            "sequence": [bits32(x) for x in sums],
            "count": [sum(active[first:end]) for first, end in spans], "spans": spans}


# --- Command line -------------------------------------------------------------------------------

def hex_row(row, dtype):
    """The encodings in a string of hex digits, or in a list of such strings; null stays None."""
    if row is None:
        return None
    text = "".join(("".join(row) if isinstance(row, list) else row).split())
    width = WIDTH[dtype]
    if len(text) % width:
        raise ValueError("a row's hex digits are not a multiple of %d" % width)
    return [int(text[i:i + width], 16) for i in range(0, len(text), width)]


def flat(values):
    """A list of lists as one list; any other list as it is."""
    if values and isinstance(values[0], list):
        return [x for inner in values for x in inner]
    return values


def temperature_of(value):
    if isinstance(value, list):
        return [temperature_of(v) for v in flat(value)]
    return from_bits32(int(value, 16)) if isinstance(value, str) else float(value)


def many_draws(job, dtype):
    """The tokens of a job with `draws`."""
    out, draws = [], job["draws"]
    for number, bits in enumerate(job["logits"]):
        tau = temperature_of(job.get("temperature", 1.0))
        k = Constants(tau[number] if isinstance(tau, list) else tau)
        row = filtered([decode(b, dtype) for b in hex_row(bits, dtype)], k,
                       draws["top_k"][number], from_bits32(int(draws["top_p"][number], 16)),
                       from_bits32(int(draws["min_p"][number], 16)))
        token = drawer(row, k)
        seed, stream = draws["seed"][number], draws["stream"][number]
        out.append([token(random_bits(seed, stream, position))
                    for position in range(draws["count"])])
    return {"tokens": out}


def main(arguments):
    if len(arguments) != 1 or arguments[0] in ("-h", "--help"):
        print(__doc__.strip())
        return 0 if arguments and arguments[0] in ("-h", "--help") else 2
    try:
        if arguments[0] == "-":
            job = json.load(sys.stdin)
        else:
            with open(arguments[0]) as file:
                job = json.load(file)
        dtype = {"fp32": "f32", "fp16": "f16"}.get(job["dtype"], job["dtype"])
        if dtype not in WIDTH:
            raise ValueError("unknown dtype %r" % (job["dtype"],))
        if "draws" in job:
            print(json.dumps(many_draws(job, dtype)))
            return 0
        mask = job.get("mask")
        out = logprob_batch(
            [hex_row(row, dtype) for row in job["logits"]], dtype, flat(job["ids"]),
            batch=job.get("batch"), time=job.get("time"), vocab=job.get("vocab"),
            mask=None if mask is None else flat(mask),
            temperature=temperature_of(job.get("temperature", 1.0)),
            ignore_index=job.get("ignore_index", -100), shift=bool(job.get("shift", False)),
            cu_seqlens=job.get("cu_seqlens"), row_list=job.get("row_list"))
    except (OSError, KeyError, TypeError, ValueError) as error:
        what = "field %s is missing" % error if isinstance(error, KeyError) else error
        print("reference.py: %s" % what, file=sys.stderr)
        return 1

    def sequences(bits):
        return [["%08x" % b for b in bits[first:end]] for first, end in out["spans"]]

    print(json.dumps({
        "numerics": NUMERICS, "token_bits": sequences(out["token"]),
        "lse_bits": sequences(out["lse"]),
        "sequence_bits": ["%08x" % b for b in out["sequence"]], "count": out["count"]}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
