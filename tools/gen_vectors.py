#!/usr/bin/env python3
"""Writes spec/vectors/*.txt: golden bits of the contract, computed by tools/reference.py.

    python3 tools/gen_vectors.py [--out DIR]     writes the files (default: spec/vectors)
    python3 tools/gen_vectors.py --check [--but NAME,...]    says which files would change, of all
                                                 but those named; writes nothing

spec/vectors/README.md defines the format. The output is the same every time: all random numbers
come from splitmix64, and no libm function is called. Beside the golden bits, the files hold true
values, which mpmath (pip install mpmath) computes from the logits as real numbers. Every row is
checked against the stated accuracy as it is written, and the largest error is printed.
"""
import math
import multiprocessing
import os
import struct
import sys
from collections import Counter
from fractions import Fraction

sys.dont_write_bytecode = True
import reference as ref     # noqa: E402

try:
    import mpmath
except ImportError:
    sys.exit("gen_vectors.py: mpmath is missing: pip install mpmath")

VERSION = "1"
INF = ref.INF
PLUS_INF = {"f32": 0x7F800000, "f16": 0x7C00, "bf16": 0x7F80}
ABSENT = {"f32": 0xFF800000, "f16": 0xFC00, "bf16": 0xFF80}         # -inf
NAN = {"f32": 0x7FC00000, "f16": 0x7E00, "bf16": 0x7FC0}
LOWEST = {"f32": 0xFF7FFFFF, "f16": 0xFBFF, "bf16": 0xFF7F}
DTYPES = ("f32", "bf16", "f16")
TAU_C1 = 0x3FB8AA3B             # 0x1.715476p+0: c is exactly 1, so t = x
TAUS = (0x3F800000, 0x3F333333, 0x3CA3D70A, 0x42480000, TAU_C1)     # 1, .7, .02, 50


# --- Integers that any language can repeat (README.md, "Generated rows") -------------------------

class SplitMix64:
    def __init__(self, seed):
        self.state = seed & (2 ** 64 - 1)

    def next(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & (2 ** 64 - 1)
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & (2 ** 64 - 1)
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & (2 ** 64 - 1)
        return z ^ (z >> 31)

    def below(self, n):
        return self.next() % n

    def pick(self, values):
        return values[self.below(len(values))]


FORMAT = {"f32": (24, -126, 127), "bf16": (8, -126, 127), "f16": (11, -14, 15)}


def encode(n, q, dtype):
    """The encoding of n * 2^q, cut towards zero. Numbers beyond the finite range become the largest
    finite one."""
    if n == 0:
        return 0
    precision, emin, emax = FORMAT[dtype]
    sign = 1 << (4 * ref.WIDTH[dtype] - 1) if n < 0 else 0
    n = abs(n)
    top = max(n.bit_length() - 1 + q, emin)             # exponent of the leading bit
    if top > emax:
        return sign | (LOWEST[dtype] & ((1 << (4 * ref.WIDTH[dtype] - 1)) - 1))
    unit = top - (precision - 1)                        # exponent of the last bit kept
    m = n >> (unit - q) if unit > q else n << (q - unit)
    return sign | (m + ((top - emin) << (precision - 1)))


def encode_float(x, dtype):
    if x == -INF:
        return ABSENT[dtype]
    n, d = x.as_integer_ratio()
    return encode(n, 1 - d.bit_length(), dtype)


class Recipe:
    """A generated row: a gen line, then holes and put lines in order."""

    def __init__(self, kind, seed, *parameters):
        self.gen = (kind, seed) + parameters
        self.after = []

    def holes(self, seed, ids, leaves, fill):
        self.after.append(("holes", seed, ids, leaves, fill))
        return self

    def put(self, i, bits):
        self.after.append(("put", i, bits))
        return self

    def lines(self, dtype):
        kind, seed = self.gen[:2]
        yield "gen %s %016x %s" % (kind, seed, " ".join("%d" % p for p in self.gen[2:]))
        for step in self.after:
            if step[0] == "holes":
                yield "holes %016x %d %d %s" % (step[1:4] + (hex_of(step[4], dtype),))
            else:
                yield "put %d %s" % (step[1], hex_of(step[2], dtype))

    def row(self, vocab, dtype):
        kind, seed = self.gen[:2]
        parameters, draws, row = self.gen[2:], SplitMix64(seed), []
        width = 4 * ref.WIDTH[dtype]
        for i in range(vocab):
            u = draws.next()
            if kind == "bits":
                b = u >> (64 - width)
                if not parameters[0] and ref.is_poison(ref.decode(b, dtype)):
                    b = ABSENT[dtype]
            elif kind == "scatter":
                q, span = parameters
                n = 2 ** 20 + (u & 0xFFFFF)
                b = encode(-n if u >> 63 else n, q + ((u >> 32) & 0xFFFF) % span, dtype)
            else:
                q, offset, step = parameters
                b = encode(offset + step * (i >> 4) + NOISE[kind](u), q, dtype)
            row.append(b)
        for step in self.after:
            if step[0] == "put":
                row[step[1]] = step[2]
                continue
            draws = SplitMix64(step[1])
            for i in range(vocab):
                u = draws.next()
                if i % 16 == 0:
                    leaf_is_hole = (u >> 10 & 1023) < step[3]
                if leaf_is_hole or (u & 1023) < step[2]:
                    row[i] = step[4]
        return row


NOISE = {
    "const": lambda u: 0,
    "few": lambda u: u >> 62,
    "flat": lambda u: (u >> 52) - 2048,
    "gauss": lambda u: (u & 0xFFFF) + (u >> 16 & 0xFFFF) + (u >> 32 & 0xFFFF) + (u >> 48) - 131070,
}


# --- True values --------------------------------------------------------------------------------

mpmath.mp.dps = 80


def exact(x):
    f = Fraction(x)
    return mpmath.mpf(f.numerator) / f.denominator      # a power of two: exact


class Truth:
    """A row's lse, entropy, variance of ln p, and ln p in real arithmetic. Not usable if a logit
    saturates."""

    def __init__(self, row, k):
        self.tau, self.m, self.k = exact(k.tau), max(row), k
        present = Counter(x for x in row if x != -INF)
        saturated = [x for x in present if abs(x) > k.lim]
        self.known = abs(self.m) <= k.lim and (
            not saturated or (self.m + k.lim) / k.tau > 400.0)      # then they have no weight
        if not self.known:
            return
        total = moment = square = mpmath.mpf(0)
        for x, count in sorted(present.items()):
            if (self.m - x) / k.tau < 400.0:                        # e^-400: below 1e-173
                d = (exact(x) - exact(self.m)) / self.tau
                w = count * mpmath.exp(d)
                total += w
                moment += w * d
                square += w * d * d
        self.log_total = mpmath.log(total)
        self.lse = exact(self.m) / self.tau + self.log_total
        self.entropy = self.log_total - moment / total
        self.variance = square / total - (moment / total) ** 2

    def logprob(self, x):
        if not self.known or not abs(x) <= self.k.lim:
            return None
        return (exact(x) - exact(self.m)) / self.tau - self.log_total


def ulp32(x):
    return math.ldexp(1.0, max(math.frexp(x)[1] - 24, -149)) if x else 0.0


class Accuracy:
    """Checks |error| <= BOUND + 2^-24 * entropy + half an output ulp on every row."""

    BOUND = {"logprob": 4.1e-7, "lse": 3.3e-7}

    def __init__(self):
        self.count, self.largest = 0, {}

    def check(self, name, what, got, true, entropy):
        self.count += 1
        kind = "lse" if what == "lse" else "logprob"
        beyond = float(abs(exact(got) - true)) - 0.5 * ulp32(got)
        if beyond > self.BOUND[kind] + 2.0 ** -24 * float(entropy):
            sys.exit("gen_vectors.py: %s: %s is off by %g" % (name, what, beyond))
        self.largest[kind] = max(self.largest.get(kind, (0.0, "")), (beyond, name))


# --- Text ---------------------------------------------------------------------------------------

def hex_of(bits, dtype):
    return "%0*x" % (ref.WIDTH[dtype], bits)


def hex64(u):
    return "%016x" % int.from_bytes(ref.struct.pack(">d", u), "big")


def true_text(value):
    return "-" if value is None else float(value).hex()


class File:
    def __init__(self, name, about):
        self.name = name
        self.lines = ["samebits-vectors 1 %s numerics %d generator tools/gen_vectors.py %s"
                      % (name, ref.NUMERICS, VERSION), "# " + about]

    def add(self, *words):
        self.lines.append(" ".join(str(w) for w in words))

    def values(self, key, bits, dtype, per_line=16):
        for first in range(0, len(bits), per_line):
            self.add(key, *(hex_of(b, dtype) for b in bits[first:first + per_line]))

    def row(self, name, dtype, tau, row, recipe=None, kept=None):
        """Begins a case about a row of encodings, which may follow a recipe or have a kept set."""
        self.add("case", name)
        self.add("dtype", dtype)
        self.add("tau", hex_of(tau, "f32"))
        self.add("vocab", len(row))
        if recipe:
            self.lines += recipe.lines(dtype)
        else:
            self.values("x", row, dtype)
        if kept is not None:
            self.values("kept", kept, "f32")

    def text(self):
        return "\n".join(self.lines) + "\n"


# --- Parts: constants, polynomials, leaves -------------------------------------------------------

def constants_file():
    out = File("constants", "tau c kappa k64 lim; or refused tau")
    draws = SplitMix64(101)
    taus = [0x3A800000, 0x3A800001, 0x3A800002, 0x44800000, 0x447FFFFF, 0x447FFFFE]   # 2^-10, 2^10
    taus += list(TAUS) + [0x3F7FFFFF, 0x3F800001, 0x40000000, 0x3F000000, 0x3DCCCCCD, 0x3F19999A,
                          0x3F666666, 0x3F8CCCCD, 0x40400000, 0x41200000, 0x42C80000]
    taus += [TAU_C1 + d for d in (-3, -2, -1, 1, 2, 3)]
    taus += [0x3A800000 + draws.below(0x44800000 - 0x3A800000 + 1) for _ in range(160)]
    for tau in taus:
        k = ref.Constants(ref.from_bits32(tau))
        out.add("constants", hex_of(tau, "f32"), hex_of(ref.bits32(k.c), "f32"), hex64(k.kappa),
                hex_of(ref.bits32(k.k64), "f32"), hex_of(ref.bits32(k.lim), "f32"))
    for tau in (0x3A7FFFFF, 0x44800001, 0, 0x80000000, 0xBF800000, 1, 0x7F800000, 0xFF800000,
                0x7FC00000, 0x7F7FFFFF, 0xFFC00000):
        try:
            ref.Constants(ref.from_bits32(tau))
        except ValueError:
            out.add("refused", hex_of(tau, "f32"))
        else:
            raise AssertionError("a temperature that should be refused")
    return out


def exp2_file():
    out = File("exp2", "exp2 r p: the polynomial alone, |r| <= 1/2")
    draws = SplitMix64(102)
    rs = [0, 1, 0x80000001, 0x00800000, 0x33800000, 0xB3800000, 0x3F000000, 0xBF000000, 0x3EFFFFFF,
          0xBEFFFFFF, 0x3E800000, 0xBE800000, 0x34000000, 0xB4000000]
    for _ in range(1200):                               # uniform over the interval
        rs.append(encode(draws.below(2 ** 25 + 1) - 2 ** 24, -25, "f32"))
    for _ in range(300):                                # uniform over the exponents
        rs.append((draws.below(2) << 31) | draws.below(0x3F000000))
    rs += EXP2_TELLING
    for r in rs:
        out.add("exp2", hex_of(r, "f32"),
                hex_of(ref.bits32(ref.exp2_poly(ref.from_bits32(r))), "f32"))
    return out


# Values of r for which an error of one ulp in the coefficient of r^6, r^5 or r^4 changes the last
# bit of p. They are rare, and were found by trying up to a million random r.
EXP2_TELLING = [0xBEF529C2, 0xBEFF5FC2, 0xBEF13CA8, 0xBEF4768B, 0xBEFB2263, 0xBEF66E3A,
                0xBEFFE3F1, 0xBEF903CF, 0x3EF38C88, 0x3EFD4655, 0x3EF81D7A,
                0x3EEA1406, 0xBEFAFDD5, 0xBE9526BF, 0x3EDB46B1, 0x3EA47098, 0x3EC5997F]


def lg_file():
    out = File("lg", "lg u e F: log2(u) is about e + F; u and F are fp64 encodings")
    draws = SplitMix64(103)

    def add(u):
        e, F = ref.lg(u)
        out.add("lg", hex64(u), e, hex64(F))

    for e in (-3, -1, 0, 1, 2, 52, 53, 100, 127):
        add(math.ldexp(1.0, e))
    for d in (-2, -1, 0, 1, 2):                         # where g is halved
        add(ref.SQRT2 + d * 2.0 ** -52)
        add(0.5 * ref.SQRT2 + d * 2.0 ** -53)
    for n in range(1, 6):                               # next to 1, from both sides
        add(1.0 + n * 2.0 ** -52)
        add(1.0 - n * 2.0 ** -53)
    for _ in range(700):                                # sums: 53 bits, any exponent they have
        add(math.ldexp(2 ** 52 + draws.below(2 ** 52), draws.below(80)))
    for _ in range(300):                                # terms: fp32 values between 0.7 and 1.42
        add(ref.exp2_poly(ref.from_bits32(
            encode(draws.below(2 ** 25 + 1) - 2 ** 24, -25, "f32"))))
    for change in (unfused, lambda q, h, k: ref.fma64(q, h + 2.0 ** -58, k)):
        for _ in range(20):                             # where a small mistake changes F
            u = 1.0
            while lg_by(u, change) == ref.lg(u)[1]:
                u = 1.0 + draws.below(2 ** 52) * 2.0 ** -52
            add(u)
    for k, up, down in TELLING:
        for u, towards in ((up, math.inf), (down, 0.0)):
            u = float.fromhex(u)
            K = list(ref.LOG2_COEFFICIENTS)             # K10 first
            K[10 - k] = math.nextafter(K[10 - k], towards)
            assert lg_by(u, ref.fma64, K) != ref.lg(u)[1] == lg_by(u, ref.fma64)
            add(u)
    return out


# For each of K1 .. K5, raised and lowered by one unit: a u for which F changes. The rarest took 5e8
# draws to find. The terms above K5 have even less effect.
TELLING = (
    (1, "0x1.66a8b0019939cp+0", "0x1.67597673ea266p+0"),
    (2, "0x1.6c33e5f2c604cp+0", "0x1.6aabe93bebb03p+0"),
    (3, "0x1.6c6a2bff80f37p+0", "0x1.6ae8db8897e2dp+0"),
    (4, "0x1.6868b1c519429p+0", "0x1.6d91a41ef7d1fp+0"),
    (5, "0x1.6b13d3f0caa9dp+0", "0x1.6ba963e3574b2p+0"),
)


def unfused(q, h, k):
    return q * h + k


def lg_by(u, step, coefficients=ref.LOG2_COEFFICIENTS):
    """F of lg(u), 1 <= u < 2, with another Horner step or other coefficients."""
    g = 0.5 * u if u > ref.SQRT2 else u
    f = (g - 1.0) / (g + 1.0)
    q = coefficients[0]
    for k in coefficients[1:]:
        q = step(q, f * f, k)
    return f * q


def leaf_file():
    out = File("leaves", "leaf tau A M x0 .. x15; A and M are - where no logit is present")
    draws = SplitMix64(104)
    absent = ABSENT["f32"]

    def add(tau, xs):
        k = ref.Constants(ref.from_bits32(tau))
        value = ref.leaf([ref.from_bits32(x) for x in xs], k)
        A, M = value or ("-", "-")
        out.add("leaf", hex_of(tau, "f32"), A, M, *(hex_of(x, "f32") for x in xs))

    add(TAUS[0], [absent] * 16)
    for tau in TAUS + (0x3A800000, 0x44800000):
        k = ref.Constants(ref.from_bits32(tau))
        for scale in (1, 8, 60):                        # sigma / 0.29, in units of t
            for _ in range(6):
                add(tau, [near(NOISE["gauss"](draws.next()) * scale, -17, k) for _ in range(16)])
        for _ in range(12):                             # anywhere: also wide, also with holes
            centre = (draws.below(2 ** 14) - 2 ** 13) << 9
            add(tau, [near(centre + draws.below(2 ** 16), -9, k) if draws.below(4) else absent
                      for _ in range(16)])
        for t in (2 ** 21, -2 ** 21, 4096, -4096):      # around saturation and around wide
            limit = ref.bits32(math.copysign(k.lim, t)) if abs(t) > 4096 else near(t, 0, k)
            for _ in range(5):
                add(tau, [limit + draws.below(9) - 4 if draws.below(3) else
                          near(t + draws.below(257) - 128, 0, k) for _ in range(16)])
        for _ in range(10):                             # around thr, to the last bit
            m = ref.from_bits32(near((draws.below(2 ** 14) - 2 ** 13) * 999, -11, k))
            wide = not abs(ref.fma32(m, k.c, ref.EVEN) - ref.EVEN) < 4096
            thr, raw = ref.bits32(ref.threshold(m, wide, k)), ref.bits32(ref.to32(m - k.k64))
            xs = [thr - 1, thr, thr + 1, raw - 1, raw, raw + 1, thr + 0x8000, raw & 0xFFFF0000]
            xs = [x for x in xs if ref.from_bits32(x) <= m]
            add(tau, ([ref.bits32(m)] + xs + [absent] * 16)[:16])
    for tau in TAUS[:4]:                                # t next to a half, which decides n
        k = ref.Constants(ref.from_bits32(tau))
        for count in (1, 1, 1, 1, 4, 4, 16, 16):
            n = 2 * (draws.below(2 ** 12) - 2 ** 11) + 1
            xs = [near(n - 2 * draws.below(3), -1, k) for _ in range(count)]
            add(tau, xs + [absent] * (16 - count))
    for _ in range(100):                                # random bits, half of them near 1
        xs = [draws.next() >> 32 for _ in range(16)]
        if draws.below(2):
            xs = [(x & 0x87FFFFFF) | 0x38000000 for x in xs]
        add(draws.pick(TAUS), [absent if ref.is_poison(ref.from_bits32(x)) else x for x in xs])
    return out


def near(n, q, k):
    """The fp32 encoding of about n * 2^q / c: the logit at a position on the t axis."""
    return encode_float(ref.to32(math.ldexp(n, q) / k.c), "f32")


# --- Parts: accumulator, sums -------------------------------------------------------------------

def merge_file():
    out = File("merge", "leaves, ways to put them together, and the one record that all must give")
    draws = SplitMix64(105)

    def random_tree(items):
        """Postfix notation: an item pushes a state, and + merges the two states on top."""
        items, words, depth = list(items), [], 0
        while items or depth > 1:
            if items and (depth < 2 or draws.below(2)):
                words.append(items.pop(draws.below(len(items))))
                depth += 1
            else:
                words.append("+")
                depth -= 1
        return words

    def evaluate(words, leaves, c):
        stack = []
        for word in words:
            if word == "+":
                right = stack.pop()
                stack[-1].merge(right)
                continue
            state = ref.State(c)
            if word == "poison":
                state.poison()
            elif word != "empty":
                state.add(*leaves[word])
            stack.append(state)
        (state,) = stack
        return state.record()

    def case(name, leaves, extra=(), tau=TAUS[0]):
        c = ref.Constants(ref.from_bits32(tau)).c
        out.add("case", name)
        out.add("tau", hex_of(tau, "f32"))
        for A, M in leaves:
            out.add("leaf", A, M)
        records = set()
        items = list(range(len(leaves))) + list(extra)
        for _ in range(3 if len(items) <= 24 else 0):
            words = random_tree(items)
            out.add("tree", *words)
            records.add(evaluate(words, leaves, c))
        if "poison" not in extra:
            for order in (leaves, leaves[::-1], sorted(leaves)):
                state = ref.State(c)
                for A, M in order:
                    state.add(A, M)
                records.add(state.record())
        (record,) = records                             # the contract's claim
        out.add("state", record.hex())
        out.add("end")

    def M():
        return draws.pick((2 ** 23, 2 ** 29, 2 ** 29 - 1, 2 ** 24, 2 ** 23 + draws.below(2 ** 23),
                           2 ** 23 + draws.below(2 ** 29 - 2 ** 23)))

    case("none", [], ["empty", "empty"])
    case("poison", [(0, 2 ** 24)], ["poison"])
    case("poison twice", [(64, 2 ** 24), (-2000, 2 ** 29)], ["poison", "empty", "poison"])
    case("one", [(0, 2 ** 24)], ["empty"])
    for A in (0, 2, 30, 32, -2, -32, 2 ** 21, -2 ** 21, 4094, -4094):
        case("twice at %d" % A, [(A, 2 ** 29), (A, 2 ** 23)])
    for rise in (30, 32, 34, 62, 64, 66, 94, 96, 98, 128, 1000):
        case("rise %d" % rise, [(rise * n - 100, M()) for n in range(4)])
    for J in (0, 5, -70):                               # every distance below the window
        case("below digit %d" % J, [(32 * J + 31 & ~1, M())]
             + [(32 * (J - d) + 2 * draws.below(16), 2 ** 29) for d in range(5)])
    for n, width in ((5, 8), (8, 40), (10, 80), (12, 160), (16, 64), (20, 128), (24, 4000),
                     (24, 2 ** 21)):
        for _ in range(4):
            case("random %d, width %d" % (n, width),
                 [(2 * draws.below(width + 1) - width & ~1, M()) for _ in range(n)],
                 ["empty"] if n < 24 and draws.below(2) else [], draws.pick(TAUS))
    case("digits above 32 bits", [(2 * draws.below(16), 2 ** 29) for _ in range(300)])
    case("long", [(2 * draws.below(60) - 60, M()) for _ in range(400)])
    return out


def sums_file():
    out = File("sums", "exact sums of logprobs (fp32), rounded once")
    draws = SplitMix64(106)

    def case(name, bits, repeats=()):
        values = [ref.from_bits32(b) for b in bits]
        out.add("case", name)
        out.values("x", bits, "f32")
        for count, b in repeats:
            out.add("repeat", count, hex_of(b, "f32"))
            values += [ref.from_bits32(b)] * count
        out.add("sum", hex_of(ref.bits32(ref.exact_sum(values)), "f32"))
        out.add("end")

    minus = [ref.bits32(-math.ldexp(1.0, e)) for e in range(-54, 22)]      # -2^(index - 54)
    least, most = minus[0], 0xCA7FFFFF                                     # -2^-54, below -2^22
    case("empty", [])
    case("zero", [0])
    case("minus zero", [0x80000000])
    case("zeros", [0, 0x80000000, 0])
    for b in (least, least + 1, minus[54], most, 0xBF317218, 0xB3FFFFFF):
        case("one value", [b])
        case("one value and zeros", [0, b, 0])
    case("NaN", [minus[54], ref.NAN_BITS, minus[3]])
    case("another NaN", [minus[54], 0xFFC00001])
    case("-inf", [minus[54], ABSENT["f32"], minus[3]])
    case("NaN wins over -inf", [ABSENT["f32"], ref.NAN_BITS])
    case("NaN wins over -inf, either order", [ref.NAN_BITS, ABSENT["f32"]])
    for e in (54, 60, 74, 24):                          # last bit of -2^(e - 54): 2^(e - 54 - 23)
        half = minus[e - 24]
        case("tie to even, down", [minus[e], half])
        case("tie to even, up", [minus[e] + 1, half])
        case("tie and a little", [minus[e], half, least])
        case("tie and a little, from far", [least, minus[e], half, least])
        if e > 24:
            case("tie less a little", [minus[e], half - 1])
        if e > 24:
            case("tie of two halves", [minus[e], minus[e - 25], minus[e - 25]])
        case("carry to the next power", [minus[e + 1] - 1, half])
    case("all powers", minus)
    case("all powers, falling", minus[::-1])
    case("least steps", [least + 1, least + 1, least])
    case("steps of 2^-77", [least + 1] * 3)
    case("many of the largest", [], [(70000, most)])
    case("many of the least", [], [(70000, least + 1)])
    case("largest and least", [], [(40000, most), (3, least), (1, minus[20])])
    case("a tie, one ulp off 1", [0xBF800000] + [0xB3000000] * 5)
    case("large and least", [0xCA310002, 0xBE000000, 0xA4B17218])
    case("2^16 of -ln 2", [], [(65536, 0xBF317218)])
    for n in (2, 3, 5, 16, 40, 100):
        for low, high in ((0, 76), (44, 60), (50, 58), (0, 20), (70, 76)):
            case("random %d" % n, [(minus[low + draws.below(high - low)] & 0xFF800000)
                                   | draws.below(2 ** 23) for _ in range(n)])
    for n in (2, 4, 7):                                 # few bits: ties happen
        for _ in range(12):
            case("few bits %d" % n, [(minus[40 + draws.below(26)] & 0xFF800000)
                                     | (draws.below(4) << 21) for _ in range(n)])
    return out


# --- Rows ---------------------------------------------------------------------------------------

class RowFile(File):
    """Collects rows, then computes them all in as many processes as there are processors."""

    def __init__(self, name, about, accuracy):
        super().__init__(name, about)
        self.accuracy, self.draws, self.cases = accuracy, SplitMix64(107), []

    def case(self, name, dtype, tau, row, ids=None, vocab=None):
        """row is a list of encodings, or a Recipe, which needs vocab."""
        n = vocab if isinstance(row, Recipe) else len(row)
        drawn = (self.draws.below(n), self.draws.below(n)) if ids is None else None
        self.cases.append((name, dtype, tau, row, n, ids, drawn))

    def text(self):
        with multiprocessing.Pool() as pool:
            for name, lines, checks in pool.imap(row_lines, self.cases):
                self.lines += lines
                for check in checks:
                    self.accuracy.check(name, *check)
        self.cases = []
        return super().text()


def row_lines(case):
    """The name and the lines of a case, and the accuracy checks that it needs."""
    name, dtype, tau, row, n, ids, drawn = case
    out, checks = File(name, ""), []
    out.lines = []
    recipe = row if isinstance(row, Recipe) else None
    encodings = recipe.row(n, dtype) if recipe else row
    values = [ref.decode(b, dtype) for b in encodings]
    ids = choose(values, drawn) if ids is None else ids
    logprobs, lse, state = ref.logprob_row(values, ids, ref.from_bits32(tau))
    truth = None
    if lse == lse:
        truth = Truth(values, ref.Constants(ref.from_bits32(tau)))
    out.row(name, dtype, tau, encodings, recipe)
    known = truth is not None and truth.known
    for i, logprob in zip(ids, logprobs):
        true = truth.logprob(values[i]) if known and values[i] != -INF else None
        out.add("target", i, hex_of(ref.bits32(logprob), "f32"), true_text(true))
        if true is not None:
            checks.append(("id %d" % i, logprob, true, truth.entropy))
    out.add("lse", hex_of(ref.bits32(lse), "f32"), true_text(truth.lse if known else None))
    out.add("entropy", true_text(truth.entropy if known else None))
    out.add("state", state.record().hex())
    out.add("end")
    if known:
        checks.append(("lse", lse, truth.lse, truth.entropy))
    return name, out.lines, checks


def choose(values, drawn):
    """Targets: the largest logit, the smallest present one, an absent one, both ends, and two
    more."""
    n = len(values)
    finite = [i for i in range(n) if not ref.is_poison(values[i]) and values[i] != -INF]
    ids = {0, n - 1} | set(drawn)
    if finite:
        ids |= {max(finite, key=values.__getitem__), min(finite, key=values.__getitem__)}
    ids |= set([i for i in range(n) if values[i] == -INF][:1])
    return sorted(ids)


def edge_rows(accuracy):
    out = RowFile("rows", "literal rows: edge cases", accuracy)
    draws = SplitMix64(108)

    # Random rows cannot replace these: each of them catches one mistake in the leaf.
    for m, low, why in ((-1, -INF, "absent taken as 0"), (-1, -90, "clamped taken as 0"),
                        (4015, -INF, "thr not rounded to bf16"),
                        (-4017, -INF, "thr rounded towards zero"),
                        (4095, -INF, "wide by > instead of >="),
                        (-4097, -INF, "thr rounded in a wide leaf")):
        row = [low] * 16
        row[0], row[1], row[3] = m, m - 24, m - 48
        out.case("catches " + why, "f32", TAU_C1, encodings(row, "f32"))

    row = [-INF] * 112                                  # first leaf dropped, half of the second
    for i, x in enumerate((-70, -36.375, -2.375, 6.875, 7.875, 7.625, 29.625)):
        row[16 * i] = x
    out.case("window", "f32", TAU_C1, encodings(row, "f32"), [0, 16, 48, 96])
    for dtype in DTYPES:
        special_values(out, dtype)
    for tau in TAUS + (0x3A800000, 0x44800000):
        limits(out, tau, draws)
    near_certain(out)
    sticky(out)
    halves(out, draws)
    for dtype in DTYPES:                                # rows of every small size, in full
        for vocab in (1, 2, 15, 16, 17, 31, 33, 100):
            row = Recipe("gauss", draws.next(), -14, 0, 0).row(vocab, dtype)
            if vocab >= 31:
                for _ in range(4):
                    row[draws.below(vocab)] = ABSENT[dtype]
            out.case("plain", dtype, draws.pick(TAUS), row)
    return out


def encodings(values, dtype):
    return [encode_float(float(x), dtype) for x in values]


def special_values(out, dtype):
    """Edges: NaN, infinities, absent ids, signed zeros, subnormals, ties."""
    tau, a, p, q = TAUS[0], ABSENT[dtype], PLUS_INF[dtype], NAN[dtype]
    low = LOWEST[dtype]
    sign = a - p
    high = low - sign
    one, two, least = encode_float(1.0, dtype), encode_float(2.0, dtype), 1

    def case(name, row, ids=None):
        out.case(name, dtype, tau, row, ids)

    case("all absent", [a] * 3)
    case("all absent, two leaves", [a] * 17)
    for name, poison in (("NaN", q), ("negative NaN", q | sign), ("signalling NaN", p + 1),
                         ("negative signalling NaN", a + 1), ("NaN, all ones", 2 * sign - 1),
                         ("+inf", p)):
        case(name, [one, poison, two], [0, 1, 2])
        case(name + " alone", [poison])
        case(name + " among absent ids", [a, a, poison, a], [0, 2])
        case(name + " in the last leaf", [one] * 32 + [poison], [0, 32])
        case(name + " in the first leaf", [poison] + [a] * 15 + [two] * 3, [0, 1, 17])
        case(name + " beside the lowest", [low] * 5 + [poison] + [high] * 3)
    case("+inf and NaN", [p, q, one])
    case("target absent", [one, a, two], [0, 1, 2])
    for name, x in (("1", one), ("-2", two | sign), ("+0", 0), ("-0", sign), ("least", least),
                    ("-least", least | sign), ("high", high), ("low", low)):
        case("one token: " + name, [x])
        case("one present: " + name, [a, x, a], [0, 1])
        case("one present in the third leaf: " + name, [a] * 40 + [x] + [a] * 3, [0, 40])
        case("all equal: " + name, [x] * 16, [0, 15])
        case("all equal, a leaf and one: " + name, [x] * 17, [0, 16])
    case("zeros of both signs", [0, sign] * 8 + [sign])
    case("zeros of both signs, swapped", [sign, 0] * 8 + [0])
    case("subnormals", [least, least | sign, 3, 3 | sign, 0])
    case("highest and lowest", [high, low, one])
    case("lowest as a mask", [one, low, two, low, low], [0, 1, 2])
    case("lowest as a mask, whole leaves", [low] * 16 + [two, one] + [low] * 14 + [low] * 3,
         [0, 16, 17, 34])
    case("lowest and absent", [low, a, low, a])
    case("absent leaves between", [one] + [a] * 31 + [two] + [a] * 30 + [one | sign],
         [0, 1, 32, 63])


def limits(out, tau, draws):
    """Literal rows around wide leaves, saturation and thr, at points where one ulp decides."""
    k = ref.Constants(ref.from_bits32(tau))
    lim = ref.bits32(k.lim)
    sign, absent = 0x80000000, ABSENT["f32"]
    for s in (0, sign):
        for d in (-1, 0, 1):
            x = lim + d + s
            out.case("alone at lim %+d" % d, "f32", tau, [x])
            out.case("lim %+d among others" % d, "f32", tau,
                     [x, lim - 1 + s, lim + s, lim + 1 + s, near(40, 0, k), absent])
        for t in (4092, 4093, 4094, 4095, 4096, 4097, 4098, 4099, 4160):
            t = -t if s else t
            row = [near(t, 0, k), near(t - 24, 0, k), absent, near(t - 48, 0, k),
                   near(2 * t - 129, -1, k), near(t - 64, 0, k), near(t - 97, 0, k)]
            out.case("largest at t = %d" % t, "f32", tau, row, [0, 1, 6])
    for _ in range(4):                                  # a target on either side of thr
        m = ref.from_bits32(near(draws.below(2 ** 23) - 2 ** 22, -10, k))
        thr = ref.bits32(ref.threshold(m, False, k))
        out.case("around thr", "f32", tau,
                 [ref.bits32(m), thr - 1, thr, thr + 1] + [absent] * 12 + [thr], [0, 1, 2, 3])


def sticky(out):
    """In units of t: the largest m, m - 24 (half an ulp of it), m - 48 (half an ulp of that), and
    the rest at thr. The ties round up only if the logits at thr weigh more than 2^-72, so the last
    bit of M shows how thr was rounded. m - 64 is a bf16 or next to one. c is a power of two, so
    that t is exact.
    """
    places = [-1, -2, -63, -64, -66, 62, 63, 64, 65, 66, 70, 318, 319, 320, 322, 578, 1087, 1088,
              1090, 2110, 2112, 2114, 3134, 3136, 3138, 4078, 4092, 4094, -190, -192, -194, -448,
              -450, -958, -960, -962, -1982, -1984, -1986, -2496, -2512, -2514, -3966, -3968, -3970,
              -3984, -4015, -4016, -4017, -4032, -4094, 4096, 4098, 4100, 5000, -4096, -4098, -5000]
    for i, t in enumerate(places):
        scale = (0, 0, 1, -1, 5, -5, 9, -9)[i % 8]
        for low in (-INF, t - 90.0):
            row = [low] * 16
            row[0], row[1], row[3] = t, t - 24, t - 48
            out.case("sticky at t = %d" % t, "f32", TAU_C1 + (scale << 23),
                     encodings([math.ldexp(x, scale) if x > -INF else x for x in row], "f32"), [0])


def halves(out, draws):
    """t within an ulp of a half: rounding x c before the addition would give another n."""
    for tau in TAUS:
        k = ref.Constants(ref.from_bits32(tau))
        for _ in range(10):
            n = 2 * (draws.below(2 ** 12) - 2 ** 11) + 1
            out.case("alone at a half", "f32", tau, [near(n, -1, k)])
            row = [near(n - 2 * draws.below(4), -1, k) for _ in range(16)]
            out.case("a leaf of halves", "f32", tau, row, [0, 7])


def near_certain(out):
    """A lead of n nats, in the same leaf and in another one: tests relative accuracy near 0."""
    for n in (5, 9, 12, 16, 17, 20, 26, 30, 34, 37, 38, 45):
        for gap in (0, 16, 100):
            row = [n] + [0] * gap + [-1, -2, 0]
            row[1:1 + gap] = [-INF] * gap
            out.case("lead of %d" % n, "f32", TAUS[0], encodings(row, "f32"),
                     [0, len(row) - 1])


def generated_rows(accuracy):
    out = RowFile("generated", "generated rows; README.md has the generator", accuracy)
    draws = SplitMix64(109)

    def case(name, dtype, tau, vocab, *recipe, edit=None):
        made = Recipe(recipe[0], draws.next(), *recipe[1:])
        if edit:
            edit(made)
        out.case(name, dtype, tau, made, vocab=vocab)

    def some_holes(made):
        made.holes(draws.next(), 300, 200, ABSENT[dtype])

    def low_holes(made):
        made.holes(draws.next(), 500, 300, LOWEST[dtype])

    def peak(made):
        made.put(draws.below(vocab), encode_float(30.0, dtype))

    sizes = (1, 15, 16, 17, 31, 33, 100, 1023, 1025)
    for vocab in sizes:
        for dtype in DTYPES:
            for tau in TAUS if vocab < 1000 else TAUS[:1] + (draws.pick(TAUS[1:]),):
                case("gauss", dtype, tau, vocab, "gauss", -14, 0, 0)
            tau = draws.pick(TAUS)
            case("flat", dtype, tau, vocab, "flat", -15, 0, 0)
            case("peaked", dtype, tau, vocab, "gauss", -14, 0, 0, edit=peak)
            case("equal", dtype, tau, vocab, "const", -3, 5 + draws.below(90), 0)
            case("few values", dtype, tau, vocab, "few", -1, draws.below(64) - 32, 0)
            case("masked", dtype, tau, vocab, "gauss", -13, 0, 0, edit=some_holes)
            case("masked by the lowest", dtype, tau, vocab, "gauss", -14, 0, 0, edit=low_holes)
            case("offset", dtype, tau, vocab, "gauss", -14, 10000 << 14, 0)
            case("offset below", dtype, tau, vocab, "gauss", -14, -30000 << 14, 0)
            case("wide exponents", dtype, tau, vocab, "scatter", -40, 44)
            if dtype != "f16":
                case("all exponents", dtype, tau, vocab, "scatter", -160, 260)
            case("bits, finite", dtype, tau, vocab, "bits", 0)
            if vocab <= 100:
                case("bits", dtype, tau, vocab, "bits", 1)

    # Digit boundaries: the maxima of leaves are a multiple of 32 apart in t, so that the window
    # moves by 1, 2, 3 or more, upwards and downwards, with A on either side of the boundary.
    for vocab in (33, 100, 1025):
        for dtype in ("f32", "bf16"):
            for rise in (2, 30, 31, 32, 33, 34, 62, 64, 66, 96, 97, 128):
                for direction in (1, -1):
                    step = direction * rise * 2048
                    case("digits %+d" % (direction * rise), dtype, TAU_C1, vocab, "flat", -11,
                         -(step * (vocab // 32)) - 2048 - draws.below(4096), step)
    for vocab in (100, 1023):                           # across the boundary of wide leaves
        for tau in TAUS:
            k = ref.Constants(ref.from_bits32(tau))
            for t in (4096, -4096, 2 ** 21, -2 ** 21):
                dtype = "f32"
                offset = int(t / k.c * 256.0)
                case("border at t = %d" % t, dtype, tau, vocab, "flat", -8, offset,
                     draws.below(513) - 256)

    for dtype, tau, vocab, recipe, edit in (
            ("bf16", TAUS[0], 32000, ("gauss", -14, 0, 0), None),
            ("f32", TAUS[1], 32000, ("gauss", -14, 0, 0), some_holes),
            ("f16", TAUS[3], 32000, ("gauss", -13, 0, 0), peak),
            ("f32", TAU_C1, 32000, ("flat", -11, -1000 * 2048, 2048), None),
            ("f32", TAUS[0], 50257, ("gauss", -14, 0, 0), None),
            ("bf16", TAUS[2], 50257, ("gauss", -15, 0, 0), low_holes),
            ("f16", TAUS[0], 50257, ("flat", -8, 0, 0), some_holes),
            ("bf16", TAUS[0], 151936, ("gauss", -14, 0, 0), None),
            ("f16", TAUS[1], 151936, ("gauss", -14, 0, 0), some_holes),
            ("f32", TAU_C1, 151936, ("flat", -11, -4800 * 2048, 2048), None),
            ("f16", TAUS[2], 201088, ("gauss", -15, 0, 0), None),
            ("bf16", TAUS[0], 262144, ("gauss", -14, 0, 0), some_holes),
            ("f32", TAUS[1], 262143, ("gauss", -14, 0, 0), None)):
        case("large", dtype, tau, vocab, *recipe, edit=edit)
    return out


# --- Batches ------------------------------------------------------------------------------------

def batches_file():
    out = File("batches", "whole batches: masks, ignored rows, shift, temperatures, packing")
    draws = SplitMix64(110)

    def case(name, dtype, vocab, batch=None, time=None, cu=None, shift=False, ignore=-100,
             temperatures=None, mask=False, row_list=None, ids=None, edit=None, tau=TAUS[0]):
        rows = cu[-1] if cu else batch * time
        logits = [Recipe("gauss", draws.next(), -13, 0, 0).row(vocab, dtype) for _ in range(rows)]
        ids = [draws.below(vocab) for _ in range(rows)] if ids is None else ids
        masks = [draws.pick((0, 0, 1, 2, 128, 255)) for _ in range(rows)] if mask else None
        if temperatures == "random":
            temperatures = [draws.pick(TAUS) for _ in range(rows)]
        if edit:
            edit(logits, ids, masks, temperatures)
        out.add("case", name)
        out.add("dtype", dtype)
        out.add("vocab", vocab)
        if cu:
            out.add("cu_seqlens", *cu)
        else:
            out.add("padded", batch, time)
        out.add("shift", int(shift))
        out.add("ignore_index", ignore)
        if temperatures:
            out.values("temperatures", temperatures, "f32")
        else:
            out.add("temperature", hex_of(tau, "f32"))
        for key, values in (("ids", ids), ("mask", masks), ("row_list", row_list)):
            if values is not None:
                out.add(key, *values)
        for r, row in enumerate(logits):
            out.add("row", r)
            out.values("x", row, dtype)
        try:
            got = ref.logprob_batch(
                logits, dtype, ids, batch=batch, time=time, vocab=vocab, mask=masks,
                temperature=[ref.from_bits32(t) for t in temperatures or [tau] * rows],
                ignore_index=ignore, shift=shift, cu_seqlens=cu, row_list=row_list)
        except ValueError as error:
            words = str(error).split()                  # row R: id I is outside [0, V)
            assert words[2] == "id", error
            out.add("bad_id", words[1].rstrip(":"), words[3])
        else:
            out.values("token", got["token"], "f32")
            out.values("lse", got["lse"], "f32")
            out.values("sequence", got["sequence"], "f32")
            out.add("count", *got["count"])
        out.add("end")

    def poison_inactive(logits, ids, masks, temperatures):
        for r, m in enumerate(masks):
            if not m:                                   # none of this may be read
                logits[r] = [NAN["f32"]] * len(logits[r])
                ids[r] = draws.pick((-7, 1000000, ids[r]))
                if temperatures:
                    temperatures[r] = draws.pick((0, NAN["f32"], 0x50000000))

    def sprinkle(logits, ids, masks, temperatures):
        for row in logits:
            for _ in range(draws.below(6)):
                row[draws.below(len(row))] = ABSENT["f32"]
        logits[1][2] = NAN["f32"]
        logits[2][3] = PLUS_INF["f32"]
        logits[4] = [ABSENT["f32"]] * len(logits[4])
        logits[5][ids[5]] = ABSENT["f32"]

    for dtype in DTYPES:
        case("padded", dtype, 17, 2, 4)
        case("padded, mask, temperatures", dtype, 16, 3, 4, mask=True, temperatures="random")
        case("shift", dtype, 15, 2, 4, shift=True)
        case("packed", dtype, 19, cu=[0, 3, 3, 4, 9], temperatures="random")
    case("one token", "f32", 5, 1, 1)
    case("one token, shift", "f32", 5, 1, 1, shift=True)
    case("temperature .7", "f32", 33, 2, 3, tau=TAUS[1])
    case("inactive rows hold nonsense", "f32", 18, 3, 4, mask=True, edit=poison_inactive)
    case("inactive rows hold nonsense, temperatures", "f32", 18, 3, 4, mask=True,
         temperatures="random", edit=poison_inactive)
    case("ignore_index", "f32", 9, 2, 3, ids=[3, -100, 8, -100, -100, -100])
    case("ignore_index in range", "f32", 9, 2, 3, ids=[3, 0, 8, 0, 0, 2], ignore=0)
    case("ignore_index far away", "f32", 9, 1, 4, ids=[3, 70000, 8, 0], ignore=70000)
    case("poison and absent targets", "f32", 20, 4, 3, edit=sprinkle)
    case("poison and absent targets, mask, shift", "f32", 20, 4, 3, edit=sprinkle, mask=True,
         shift=True)
    case("shift, temperatures, mask", "f32", 16, 3, 4, shift=True, temperatures="random", mask=True)
    case("shift, ids of first rows unchecked", "f32", 16, 2, 3, shift=True,
         ids=[99, 1, 2, -5, 3, 4])
    case("packed, shift", "f32", 12, cu=[0, 0, 1, 5, 7, 7], shift=True, mask=True)
    case("row list", "f32", 16, 2, 4, row_list=[0, 3, 4])
    case("row list, shift, bad ids elsewhere", "f32", 16, 2, 4, row_list=[0, 2, 7], shift=True,
         ids=[-1, -1, 3, -1, -1, -1, 99, 15])
    case("empty row list", "f32", 16, 2, 2, row_list=[])
    case("bad id", "f32", 8, 2, 2, ids=[0, 8, 7, 9])
    case("bad id, negative", "f32", 8, 2, 2, ids=[0, 1, -1, 9])
    case("bad id before a poisoned row", "f32", 8, 1, 3, ids=[0, 1, -2],
         edit=lambda logits, *_: logits[0].__setitem__(0, NAN["f32"]))
    case("bad id: the default ignore_index is not special", "f32", 8, 1, 2, ids=[-100, 1],
         ignore=-1)
    case("bad id, packed, shift", "f32", 8, cu=[0, 2, 5], shift=True, ids=[9, 1, 9, 2, 8])
    case("bad id in a poisoned row", "f32", 8, 1, 2, ids=[1, 8],
         edit=lambda logits, *_: logits[1].__setitem__(0, NAN["f32"]))
    return out


# --- Shards -------------------------------------------------------------------------------------

def draws_file():
    """Draws from shards: every message of every shard, and the results."""
    out = File("draws", "draws from shards of the vocabulary: every message, and the token")
    draws = SplitMix64(151)
    one = 0x3F800000

    def case(name, dtype, row, cuts, top_k=0, top_p=one, min_p=0, kept=None, U=None, tau=None,
             outputs=("token", "logprob", "kept_logprob")):
        tau, vocab = tau or draws.pick(TAUS), len(row)
        U = draws.next() if U is None else U
        out.row(name, dtype, tau, row, kept=kept)
        out.add("cuts", *cuts)
        out.add("asked", top_k, hex_of(top_p, "f32"), hex_of(min_p, "f32"), "%016x" % U, *outputs)
        xs = [ref.decode(b, dtype) for b in row]
        filters = dict(top_k=top_k, top_p=ref.from_bits32(top_p), min_p=ref.from_bits32(min_p))
        messages, token, model, under, count, ids = ref.draw_from_shards(
            xs, cuts, U, ref.from_bits32(tau), kept, model="logprob" in outputs,
            count="count" in outputs or "kept" in outputs, **filters)
        whole = ref.sample_row(xs, U, ref.from_bits32(tau), kept, **filters)
        assert (token, ref.bits32(model), ref.bits32(under), sum(ids, [])) == (
            whole[0], ref.bits32(whole[1]), ref.bits32(whole[2]), whole[3])    # the claim
        for number, each in enumerate(messages):
            for shard, message in enumerate(each):
                if len(message) == 2048:
                    sums = ["%d:%016x" % (b, s) for b, s in
                            enumerate(struct.unpack("<256Q", message)) if s]
                    for first in range(0, len(sums) or 1, 8):
                        out.add("sums", number, shard, *sums[first:first + 8])
                else:
                    for first in range(0, len(message), 80):
                        out.add("message", number, shard, message[first:first + 80].hex())
        out.add("drawn", token, hex_of(ref.bits32(model), "f32"), hex_of(ref.bits32(under), "f32"),
                count)
        if "kept" in outputs:
            for shard, its in enumerate(ids):
                words = ["%08x" % sum(1 << i % 32 for i in its if i // 32 == w)
                         for w in range((vocab + 31) // 32)]
                for first in range(0, len(words), 16):
                    out.add("words", shard, *words[first:first + 16])
        out.add("end")

    def fp32(x):
        return ref.bits32(ref.to32(x))

    everything = ("token", "logprob", "kept_logprob", "count", "kept")
    row = [fp32(x) for x in (15.5, 13.75, 17, 11.25, 14.5, -100, -INF, 16, 10, 14.125, 15, 12.5, 14,
                             6, 16.5, -INF, 22.5)]
    case("the row of numerics.md", "f32", row, [16], tau=one, U=0)
    case("the row of numerics.md, top-k", "f32", row, [16], top_k=2, tau=one, U=0)
    for number, dtype in enumerate(DTYPES):
        for vocab, cuts in ((1, [0]), (17, [16]), (100, [48]), (300, [0, 16, 16, 160]),
                            (1041, [512])):
            for name, recipe in (("plain", ("gauss", -13, 0, 0)), ("ties", ("few", -1, -2, 0))):
                if number > 0 and vocab > 100:
                    continue
                row = Recipe(recipe[0], draws.next(), *recipe[1:]).row(vocab, dtype)
                kept = [draws.below(2 ** 32) for _ in range((vocab + 31) // 32)]
                case(name, dtype, row, cuts)
                case(name + ", count", dtype, row, cuts, outputs=everything)
                case(name + ", greedy", dtype, row, cuts, top_k=1, outputs=everything)
                case(name + ", a list", dtype, row, cuts, top_k=40, top_p=fp32(.9),
                     min_p=fp32(.05), outputs=everything)
                case(name + ", min-p", dtype, row, cuts, min_p=fp32(.1), outputs=everything)
                case(name + ", kept", dtype, row, cuts, kept=kept, outputs=everything)
                if vocab == 300 or (vocab == 100 and name == "ties"):
                    case(name + ", top-k", dtype, row, cuts, top_k=70, outputs=everything)
                    case(name + ", top-p", dtype, row, cuts, top_p=fp32(.7), outputs=everything)
                    case(name + ", all filters", dtype, row, cuts, top_k=90, top_p=fp32(.8),
                         min_p=fp32(.1), kept=kept, outputs=everything)
        spoilt = Recipe("gauss", draws.next(), -13, 0, 0).row(100, dtype)
        spoilt[70] = NAN[dtype]
        case("NaN", dtype, spoilt, [48])
        case("NaN, top-p", dtype, spoilt, [48], top_p=fp32(.5), outputs=everything)
        case("nothing present", dtype, [ABSENT[dtype]] * 40, [16], min_p=fp32(.5))
        case("NaN, not kept", dtype, spoilt, [48], kept=[0xFFFFFFFF, 0xFFFFFFFF, 7, 0])
    # Sums that reach top-p's goal exactly: half of the equal logits are left.
    equal = [fp32(1)] * 4 + [ABSENT["f32"]] * 14 + [fp32(1)] * 4
    for top_k in (0, 8, 100):
        case("half of ties", "f32", equal, [16], top_k=top_k, top_p=fp32(.5), tau=one,
             U=1 << 63, outputs=everything)
    return out


def shards_file():
    out = File("shards", "rows cut into shards of the vocabulary: every shard's record")
    draws = SplitMix64(111)

    def case(name, dtype, tau, row, cuts, targets):
        k, vocab = ref.Constants(ref.from_bits32(tau)), len(row)
        bounds = [0] + cuts + [vocab]
        out.row(name, dtype, tau, row)
        whole, finished = set(), set()
        for number, i in enumerate(targets):
            records = []
            for first, end in zip(bounds, bounds[1:]):
                state, target = ref.shard_records(row[first:end], dtype, first, i, k)
                records.append((state, target))
                if number == 0:
                    out.add("shard", first, end - first, state.record().hex())
            merged, target = ref.merge_records(records)
            backwards, its = ref.merge_records(records[::-1])
            unsharded = ref.shard_records(row, dtype, 0, i, k)
            assert target == its == unsharded[1]
            whole |= {s.record().hex() for s in (merged, backwards, unsharded[0])}
            logprob, lse = ref.finish_records(merged, target, k)
            finished.add((i, "%08x" % target[0], hex_of(ref.bits32(logprob), "f32"),
                          hex_of(ref.bits32(lse), "f32")))
        (state,) = whole                                # the contract's claim
        out.add("state", state)
        for i, x, logprob, lse in sorted(finished):
            out.add("record", i, x, logprob)
        if merged.J not in (0, ref.POISON_J):
            largest_target(merged, [ref.decode(b, dtype) for b in row], k)
        out.add("lse", lse, "-")
        out.add("end")

    def largest_target(state, row, k):
        """Two neighbouring logits: one that the state accepts as the target's, one that it
        refuses."""
        def encoding(key):
            return ref.bits32(ref.of_order_key(key))
        low, high = ref.order_key(max(row)), ref.order_key(3e38)
        if ref.can_hold(state, ref.of_order_key(high), k):
            return                                      # saturated
        while high - low > 1:
            middle = (low + high) // 2
            if ref.can_hold(state, ref.of_order_key(middle), k):
                low = middle
            else:
                high = middle
        logprob, _ = ref.finish_records(state, (encoding(low), 1), k)
        out.add("limit", "%08x" % encoding(low), hex_of(ref.bits32(logprob), "f32"),
                "%08x" % encoding(high))

    def cuts_of(vocab, shards):
        return sorted(16 * draws.below(vocab // 16 + 1) for _ in range(shards - 1))

    def targets_of(bounds, vocab):
        """Targets at the ends of each shard."""
        ends = {bound for bound in bounds if bound < vocab} | {bound - 1 for bound in bounds}
        return sorted(i for i in ends | {draws.below(vocab)} if i >= 0)

    for dtype in DTYPES:
        for vocab, shards in ((1, 2), (16, 1), (17, 2), (33, 3), (64, 4), (100, 3), (200, 7)):
            cuts = cuts_of(vocab, shards)
            row = Recipe("gauss", draws.next(), -13, 0, 0).row(vocab, dtype)
            case("plain", dtype, draws.pick(TAUS), row, cuts,
                 targets_of([0] + cuts + [vocab], vocab))
        case("every leaf alone", dtype, TAUS[0], Recipe("gauss", draws.next(), -13, 0, 0).row(
            70, dtype), [16, 32, 48, 64], [0, 15, 16, 69])
        for name, bits in (("NaN", NAN[dtype]), ("NaN with a payload", NAN[dtype] | 5),
                           ("+inf", PLUS_INF[dtype])):
            row = Recipe("gauss", draws.next(), -13, 0, 0).row(40, dtype)
            row[20] = bits
            case(name + " in one shard", dtype, TAUS[1], row, [16, 32], [3, 20, 33])
        absent = ABSENT[dtype]
        case("nothing present", dtype, TAUS[0], [absent] * 40, [16, 32], [0, 39])
        row = Recipe("gauss", draws.next(), -13, 0, 0).row(40, dtype)
        case("a shard of absent ids", dtype, TAUS[3], row[:16] + [absent] * 16 + row[32:], [16, 32],
             [0, 17, 39])
        row = [absent] * 40
        row[18] = encode(-3, 0, dtype)
        case("one id present", dtype, TAUS[1], row, [16, 16, 32], [0, 18])
        row[19] = LOWEST[dtype]
        case("the lowest finite target", dtype, TAUS[0], row, [16, 32], [18, 19])
        row[2], row[33] = 1 << (4 * ref.WIDTH[dtype] - 1), 0
        case("zeros of both signs", dtype, TAUS[0], row, [16, 32], [2, 33])
    # Shards whose windows are 0, 1, 2, 3 and more digits apart.
    for step in (0, 30, 32, 62, 64, 66, 94, 96, 98, 400, 5000):
        for direction in (1, -1):
            row = []
            for leaf in range(5):
                row += Recipe("flat", draws.next(), -11, direction * step * leaf * 2048,
                              0).row(16, "f32")
            case("windows %+d apart" % (direction * step), "f32", TAU_C1, row, [16, 32, 48, 64],
                 [0, 40, 79])
    return out


# --- Kept sets and the order of ids -------------------------------------------------------------

def order_file():
    out = File("order", "kept sets, logprobs and ranks of several ids, the first ids of a row")
    draws = SplitMix64(121)

    def case(name, dtype, row, kept, ids, k):
        tau, vocab = draws.pick(TAUS), len(row)
        out.row(name, dtype, tau, row, kept=kept)
        logprobs, ranks, first, theirs, lse = ref.order_row(
            [ref.decode(b, dtype) for b in row], kept, ids, k, ref.from_bits32(tau))
        for i, logprob, rank in zip(ids, logprobs, ranks):
            out.add("entry", i, hex_of(ref.bits32(logprob), "f32"), rank)
        for i, logprob in zip(first, theirs):
            out.add("first", i, hex_of(ref.bits32(logprob), "f32"))
        out.add("lse", hex_of(ref.bits32(lse), "f32"), "-")
        out.add("end")

    def words(vocab, odds):
        """Keeps about one id in odds; the bits past the vocabulary are random."""
        bits = [draws.below(odds) == 0 for _ in range((vocab + 31) // 32 * 32)]
        return [sum(bit << i for i, bit in enumerate(bits[w:w + 32]))
                for w in range(0, len(bits), 32)]

    def ids_of(vocab, number):
        return [draws.below(vocab) for _ in range(number)]

    for dtype in DTYPES:
        absent, sign = ABSENT[dtype], 1 << (4 * ref.WIDTH[dtype] - 1)
        for vocab, number, k in ((1, 1, 1), (2, 2, 4), (16, 3, 5), (17, 4, 64), (40, 6, 8),
                                 (100, 8, 33), (300, 5, 64)):
            row = Recipe("gauss", draws.next(), -13, 0, 0).row(vocab, dtype)
            case("plain", dtype, row, None, ids_of(vocab, number), k)
            ties = Recipe("few", draws.next(), -1, -2, 0).row(vocab, dtype)
            case("ties", dtype, ties, None, ids_of(vocab, number), k)
            for odds in (2, 9):
                case("kept, one in %d" % odds, dtype, draws.pick((row, ties)), words(vocab, odds),
                     ids_of(vocab, number), k)
        row = Recipe("gauss", draws.next(), -13, 0, 0).row(70, dtype)
        case("all kept", dtype, row, [0xFFFFFFFF] * 3, [0, 69], 3)
        case("nothing kept", dtype, row, [0] * 3, [0, 69], 3)
        case("one kept", dtype, row, [0, 1 << 7, 0], [39, 40], 3)
        case("nothing present", dtype, [absent] * 20, None, [0, 19], 2)
        for name, bits in (("NaN", NAN[dtype]), ("+inf", PLUS_INF[dtype])):
            spoilt = list(row)
            spoilt[41] = bits
            case(name, dtype, spoilt, None, [0, 41], 3)
            case(name + ", kept", dtype, spoilt, [1, 1 << 9, 0], [0, 41], 3)
            case(name + ", not kept", dtype, spoilt, [7, 1 << 8, 0xFFFFFFFF], [0, 41, 64], 5)
        zeros = [draws.pick((0, sign, sign | 1, 1, absent)) for _ in range(50)]
        case("zeros of both signs", dtype, zeros, None, [0, 1, 2, 3, 48, 49], 50)
        largest = LOWEST[dtype] ^ sign
        huge = [draws.pick((largest, largest - 1, LOWEST[dtype], LOWEST[dtype] - 1, absent))
                for _ in range(40)]
        case("logits that saturate", dtype, huge, None, [0, 1, 2, 3, 38, 39], 40)
    return out


# --- Sampling -----------------------------------------------------------------------------------

def sample_file():
    out = File("sample", "random bits, filters, and the token that is drawn")
    draws = SplitMix64(131)
    one_above_half = 0x3F000001

    def bits64():
        """U: mostly any; sometimes an end."""
        u = draws.next()
        return draws.pick((u, u, u, u >> 20, 0, 2 ** 64 - 1, 2 ** 64 - 1 - (u >> 40)))

    def case(name, dtype, row, kept=None, filters=((0, 0x3F800000, 0),), tau=None, us=(),
             triples=()):
        tau, vocab = tau or draws.pick(TAUS), len(row)
        out.row(name, dtype, tau, row, kept=kept)
        for triple in triples:
            out.add("seeded", *("%016x" % n for n in triple), "%016x" % ref.random_bits(*triple))
        xs = [ref.decode(b, dtype) for b in row]
        for top_k, top_p, min_p in filters:
            for U in us or [bits64() for _ in range(3)]:
                token, model, under, ids = ref.sample_row(
                    xs, U, ref.from_bits32(tau), kept, top_k, ref.from_bits32(top_p),
                    ref.from_bits32(min_p))
                out.add("draw", top_k, hex_of(top_p, "f32"), hex_of(min_p, "f32"), "%016x" % U,
                        token, hex_of(ref.bits32(model), "f32"),
                        hex_of(ref.bits32(under), "f32"), len(ids))
        out.add("end")

    def fp32(x):
        return ref.bits32(ref.to32(x))

    one = 0x3F800000
    plain = ((0, one, 0),)
    several = plain + ((1, one, 0), (3, one, 0), (40, one, 0), (0, fp32(.5), 0), (0, fp32(.9), 0),
                       (0, fp32(.999), 0), (0, 1, 0), (0, 0x3F7FFFFF, 0), (0, one, fp32(.01)),
                       (0, one, fp32(.5)), (0, one, one), (0, one, 1), (9, fp32(.8), fp32(.1)),
                       (5, fp32(.999), fp32(.001)), (2 ** 31 - 1, fp32(.99), 0))

    # The row of numerics.md.
    row = [fp32(x) for x in (15.5, 13.75, 17, 11.25, 14.5, -100, -INF, 16, 10, 14.125, 15, 12.5, 14,
                             6, 16.5, -INF, 22.5)]
    ends = (0, 0x0000500000000000, 0x00FFFFFFFFFFFFFF, 0x0100000000000000, 0xE169C58D6627E8D5,
            2 ** 64 - 1)
    case("the row of numerics.md", "f32", row, tau=one, us=ends)
    case("the row of numerics.md, filters", "f32", row, tau=one, us=(ends[4], 0),
         filters=((0, fp32(.9), 0), (0, fp32(.999), 0), (3, one, 0), (0, one, fp32(2.0 ** -9)),
                  (5, fp32(.999), fp32(.001))))
    equal = [one] * 1024
    case("random bits", "f32", equal, tau=one, us=(0,),
         triples=((0, 0, 0), (2 ** 64 - 1,) * 3, (1, 2, 3), (2 ** 40 + 7, 5, 2 ** 33 + 1),
                  *(tuple(draws.next() >> draws.below(60) for _ in range(3)) for _ in range(20))))
    case("eight equal logits", "f32", [one] * 8, tau=one,
         filters=((0, 0x3F000000, 0), (0, one_above_half, 0), (3, one, 0), (5, 0x3F000000, 0)))

    for dtype in DTYPES:
        absent, sign = ABSENT[dtype], 1 << (4 * ref.WIDTH[dtype] - 1)
        for vocab in (1, 2, 16, 17, 33, 100, 300, 1041):
            seed = draws.next()
            row = Recipe("gauss", seed, -13, 0, 0).row(vocab, dtype)
            case("plain", dtype, row, filters=several)
            case("ties", dtype, Recipe("few", seed, -1, -2, 0).row(vocab, dtype), filters=several)
            case("wide", dtype, Recipe("scatter", seed, -19, 12).row(vocab, dtype),
                 filters=several[::3])
            case("leaves far apart", dtype,
                 Recipe("gauss", seed, -13, 0, -40000).holes(seed, 200, 100, absent)
                 .row(vocab, dtype), filters=several[::2])
            words = [draws.next() & draws.next() & 0xFFFFFFFF for _ in range((vocab + 31) // 32)]
            case("kept", dtype, row, kept=words, filters=several[::2])
        row = Recipe("gauss", draws.next(), -13, 0, 0).row(70, dtype)
        case("nothing kept", dtype, row, kept=[0] * 3, filters=several[::5])
        case("one kept", dtype, row, kept=[0, 1 << 7, 0], filters=several[::3])
        case("nothing present", dtype, [absent] * 20, filters=several[::5])
        for name, bits in (("NaN", NAN[dtype]), ("+inf", PLUS_INF[dtype])):
            spoilt = list(row)
            spoilt[41] = bits
            case(name, dtype, spoilt, filters=several[::5])
            case(name + ", kept", dtype, spoilt, kept=[1, 1 << 9, 0], filters=several[::5])
            case(name + ", not kept", dtype, spoilt, kept=[7, 1 << 8, 0xFFFFFFFF],
                 filters=several[::2])
        zeros = [draws.pick((0, sign, sign | 1, 1, absent)) for _ in range(50)]
        case("zeros of both signs", dtype, zeros, filters=several)
        largest = LOWEST[dtype] ^ sign
        huge = [draws.pick((largest, largest - 1, LOWEST[dtype], LOWEST[dtype] - 1, absent))
                for _ in range(40)]
        case("logits that saturate", dtype, huge, filters=several)
    return out


# --- Statistics of tokens -----------------------------------------------------------------------

def float_bits(x):
    return ref.struct.unpack("<I", ref.struct.pack("<f", x))[0]


def check_ulp(name, got, true):
    """Checks that got, an fp32, is within 0.5001 ulp of true, an mpf. The ulp is that of the binade
    of true, or of the subnormals."""
    if abs(true) >= mpmath.mpf(2) ** 128 * (1 - mpmath.mpf(2) ** -25):
        wrong = abs(got) != INF
    else:
        binade = int(mpmath.floor(mpmath.log(abs(true), 2))) if true else -149
        ulp = mpmath.mpf(2) ** max(binade - 23, -149)
        wrong = got == INF or abs(got - true) > mpmath.mpf("0.5001") * ulp
    if wrong:
        sys.exit("gen_vectors.py: %s: %r is not %s" % (name, got, mpmath.nstr(true, 20)))


def compare_file():
    out = File("compare", "sampled other ratio k1 k2 k3")
    draws = SplitMix64(120)

    def case(sampled, other):
        x, y = ref.from_bits32(sampled), ref.from_bits32(other)
        got = ref.compare(x, y)
        out.add("compare", *("%08x" % b for b in (sampled, other, *map(ref.bits32, got))))
        if not (math.isfinite(x) and math.isfinite(y)):
            return
        with mpmath.workdps(90):
            d = mpmath.mpf(y) - mpmath.mpf(x)
            for g, true in zip(got, (mpmath.exp(d), -d, d * d / 2, mpmath.expm1(d) - d)):
                check_ulp("compare %08x %08x" % (sampled, other), g, true)

    def pair(x, d):
        case(float_bits(ref.to32(x)), float_bits(ref.to32(x + d)))

    special = [0, 0x80000000, 1, 0x80000001, 0xFF800000, 0x7F800000, 0x7FC00000, 0xFFC00001,
               0x7F800001, 0xBF800000, 0xFF7FFFFF, 0x7F7FFFFF, 0x80800000, 0x42B20000, 0xC2D00000]
    for a in special:
        for b in special:
            case(a, b)
    # Both sides of every edge: the ends of the range, the points where n changes, and those where a
    # result becomes subnormal, overflows or vanishes.
    for edge in (89.0, -104.0, 88.72283, -87.33654, -103.27893, -103.97208, 0.34657359, -0.34657359,
                 1.0397208, -1.0397208):
        b = float_bits(edge)
        for step in range(-2, 3):
            case(0, b + step)
            case(float_bits(-ref.from_bits32(b + step)), 0)
    for e in range(-60, 23):
        for sign in (1, -1):
            pair(-1.25, sign * (1 + draws.below(2 ** 20) / 2 ** 20) * 2.0 ** e)
            case(0, float_bits(sign * (1 + draws.below(2 ** 23) / 2 ** 23) * 2.0 ** e))
    for e in (-149, -140, -126, -100, -75, -70, -64, 60, 64, 90, 127):
        case(0, float_bits(2.0 ** e))
        case(float_bits(2.0 ** e), 0)
    for _ in range(600):
        x = -(draws.below(2 ** 24) / 2 ** 20)
        pair(x, (draws.below(2 ** 24) - 2 ** 23) / 2.0 ** (16 + draws.below(16)))
    for _ in range(200):
        case(draws.next() >> 32, draws.next() >> 32)
    for _ in range(200):                                # any two in the range of ratios
        case(0x3F000000 + draws.below(0x3C00000) | (draws.next() >> 63) << 31,
             0x3F000000 + draws.below(0x3C00000) | (draws.next() >> 63) << 31)
    return out


def means_file():
    out = File("means", "exact sums and means of any fp32, and of differences")
    draws = SplitMix64(121)

    def case(name, bits, minus=None):
        values = [ref.from_bits32(b) for b in bits]
        terms = values
        if minus is not None:
            terms = list(ref.differences(values, [ref.from_bits32(b) for b in minus]))
        mean = 0.0
        if bits:
            if all(map(math.isfinite, terms)):
                mean = sum(map(Fraction, terms))
                mean = mean.numerator / mean.denominator / len(bits) if mean else 0.0
            else:
                mean = ref.exact_sum(terms)
        if minus is None and bits and ref.bits32(mean) != ref.bits32(ref.exact_mean(values)):
            sys.exit("gen_vectors.py: %s: two means" % name)
        out.add("case", name)
        out.values("x", bits, "f32")
        if minus is not None:
            out.values("minus", minus, "f32")
        out.add("sum", "%08x" % ref.bits32(ref.exact_sum(terms)))
        out.add("mean", "%08x" % ref.bits32(ref.mean32(mean)))
        out.add("exp_mean", "%08x" % ref.bits32(ref.ratio(mean)))
        out.add("end")

    one, big, least, absent, plus = 0x3F800000, 0x7F7FFFFF, 1, 0xFF800000, 0x7F800000
    minus_of = 0x80000000
    case("empty", [])
    case("zeros", [0, minus_of, 0])
    case("minus zero", [minus_of])
    for b in (one, big, least, big | minus_of, least | minus_of, 0x007FFFFF, 0x00800000, 0x42B20000,
              0xC2D00000):
        case("one value", [b])
        case("one value and a zero", [b, 0])
        case("what cancels", [b, b ^ minus_of])
        case("three times", [b] * 3)
    case("overflow", [big, big])
    case("overflow taken back", [big, big, big | minus_of, one])
    case("a tie above the largest", [big, 0x73000000])
    case("below a tie above the largest", [big, 0x72FFFFFF])
    case("large and least", [big, least, big | minus_of])
    case("less the least", [one, 0x80000001])
    case("a tie to even", [one, 0x33800000])
    case("a tie and the least", [one, 0x33800000, least])
    case("a tie less the least", [one | 1, 0x33800000, least | minus_of])
    case("a tie at 53 bits", [one, 0x25000000, 0x4B800000])
    # R with 53 bits, divided by 4, is just above a tie of fp32; so would R with 54 bits be.
    case("a mean of 53 bits", [0x40800000, 0x34800000, 0x26800000, 0])
    case("a mean of 54 bits", [0x40800000, 0x34800000, 0x26000000, 0])
    case("NaN", [one, 0xFFC00001, one])
    case("-inf", [one, absent])
    case("+inf", [plus, one])
    case("both infinities", [plus, one, absent])
    case("NaN and -inf", [absent, 0x7F800001])
    case("a mean that rounds to zero", [least] + [0] * 3)
    case("a mean that rounds to minus zero", [least | minus_of] + [0] * 3)
    case("every digit", [((e << 23) | 0x2AAAAA) for e in range(0, 255, 5)])
    case("every digit, both signs", [((e << 23) | 0x155555 | (e & 1) << 31) for e in range(255)])
    for sign in (0, minus_of):
        case("a borrow through all digits", [0x7F000000 | sign, least | (sign ^ minus_of)])
    for n in (2, 3, 5, 17, 64, 200):
        case("random bits %d" % n, [(draws.next() >> 32) & 0xFF7FFFFF for _ in range(n)])
        case("logprobs %d" % n, [0x80000000 | 0x3C000000 + draws.below(0x6000000)
                                 for _ in range(n)])
        for low in (0, 60, 120, 126, 200, 250):
            case("near exponents %d" % n, [(low + draws.below(4)) << 23 | draws.below(2 ** 23)
                                           | (draws.next() >> 63) << 31 for _ in range(n)])
        x = [0x80000000 | 0x3C000000 + draws.below(0x5800000) for _ in range(n)]
        y = [b + draws.below(5) - 2 for b in x]
        case("equal logprobs %d" % n, x, x)
        case("near logprobs %d" % n, x, y)
        case("far logprobs %d" % n, x, x[::-1])
        few = [0xBF000000 | draws.below(4) << 21 for _ in range(n)]
        case("few bits %d" % n, few, few[::-1])
    case("infinities that are equal", [absent, one, plus], [absent, 0x3F000000, plus])
    case("one absent before", [absent, one], [0xBF800000, one])
    case("one absent after", [one, 0xBF800000], [one, absent])
    case("absent at different places", [absent, one], [one, absent])
    case("NaN in equal bits", [0x7FC00000], [0x7FC00000])
    case("NaN subtracted", [one, one], [one, 0xFFC00000])
    case("zeros of both signs", [0, minus_of], [minus_of, 0])
    case("exp past the largest", [0x42B20000] * 2, [0, 0])
    case("exp of the largest", [0x42B17217] * 2, [0, 0])
    case("exp below the least", [0xC2D00000] * 2, [0, 0])
    return out


# --- Entropy ------------------------------------------------------------------------------------

def entropy_bound(truth):
    """The bound of the error beyond half an ulp."""
    variance = float(truth.variance)
    return 1.34e-6 + 3.23e-7 * math.sqrt(variance) + 2.0 ** -24 * variance


def entropy_file():
    out = File("entropy", "rows and their entropy")
    draws = SplitMix64(112)
    largest = [0.0, ""]

    def case(name, dtype, tau, row, vocab=None):
        recipe = row if isinstance(row, Recipe) else None
        encoded = recipe.row(vocab, dtype) if recipe else row
        values = [ref.decode(b, dtype) for b in encoded]
        k = ref.Constants(ref.from_bits32(tau))
        state, true = ref.row_moments(values, k), None
        backwards = ref.Moments(k.c)
        for first in reversed(range(0, len(values), 16)):
            backwards.merge(ref.row_moments(values[first:first + 16], k))
        assert backwards.record() == state.record() and \
            state.record()[:32] == ref.row_state(values, k).record()
        entropy = ref.finish_entropy(state, k)
        if entropy == entropy:
            truth = Truth(values, k)
            true = truth.entropy if truth.known else None
        if true is not None:
            beyond = float(abs(exact(entropy) - true)) - 0.5 * ulp32(entropy)
            if beyond > entropy_bound(truth):
                sys.exit("gen_vectors.py: %s: the entropy is off by %g" % (name, beyond))
            largest[:] = max(largest, [beyond, name])
        out.row(name, dtype, tau, encoded, recipe)
        out.add("moments", state.record().hex())
        out.add("entropy_bits", hex_of(ref.bits32(entropy), "f32"))
        out.add("entropy", true_text(true))
        out.add("end")

    for dtype in DTYPES:
        a, low, sign = ABSENT[dtype], LOWEST[dtype], ABSENT[dtype] - PLUS_INF[dtype]
        one = encode_float(1.0, dtype)
        for name, row in (
                ("one token", [one]), ("one present in the third leaf", [a] * 40 + [one, a]),
                ("one beside lowest ones", [low] * 20 + [one] + [low] * 3),
                ("the lowest alone", [a, low]), ("all lowest", [low] * 33),
                ("two equal", [one, one]), ("two equal, two leaves", [one] + [a] * 20 + [one]),
                ("zeros of both signs", [0, sign] * 9), ("least", [1, 1 | sign] * 10),
                ("all absent", [a] * 20), ("NaN", [one, NAN[dtype], one]),
                ("NaN in a later leaf", [one] * 33 + [NAN[dtype]]),
                ("+inf", [PLUS_INF[dtype]] + [one] * 30), ("highest", [low - sign] * 5 + [one])):
            case(name, dtype, draws.pick(TAUS), row)
        for vocab in (1, 15, 16, 17, 33, 100, 257):
            for kind in (("gauss", -14, 0, 0), ("flat", -11, -60000, 2048 * 7), ("const", -3, 9, 0),
                         ("gauss", -13, 10000 << 13, 0)):
                made = Recipe(kind[0], draws.next(), *kind[1:])
                if draws.below(2):
                    made.holes(draws.next(), 300, 200, draws.pick((a, low)))
                case(kind[0], dtype, draws.pick(TAUS), made, vocab)
        for lead in (1, 5, 12, 20, 30, 45):
            row = Recipe("gauss", draws.next(), -16, 0, 0).row(50, dtype)
            row[draws.below(50)] = encode_float(float(lead), dtype)
            case("lead of %d" % lead, dtype, TAUS[0], row)
        case("bits", dtype, draws.pick(TAUS), Recipe("bits", draws.next(), 0), 100)
    for step in (0, 30, 32, 34, 62, 64, 66, 94, 96, 98, 400, 5000):     # windows move
        for direction in (1, -1):
            case("windows %+d apart" % (direction * step), "f32", TAU_C1,
                 Recipe("flat", draws.next(), -11, 0, direction * step * 2048), 80)
    for t in (4090, -4090, 4096, -4096, 2 ** 21, -2 ** 21):             # wide leaves
        for tau in TAUS:
            k = ref.Constants(ref.from_bits32(tau))
            case("border at t = %d" % t, "f32", tau,
                 Recipe("flat", draws.next(), -8, int(t / k.c * 256.0), draws.below(513) - 256), 60)
    case("large", "bf16", TAUS[0], Recipe("gauss", draws.next(), -14, 0, 0), 32000)
    case("uniform", "f32", TAUS[0], Recipe("const", draws.next(), 0, 3, 0), 50257)
    print("largest error of entropy beyond half an ulp: %.3g (%s)" % tuple(largest))
    return out


# --- Gradients ----------------------------------------------------------------------------------

def gradient_file():
    out = File("gradient", "rows and the gradients of their logprob and entropy")
    draws = SplitMix64(113)

    def case(name, dtype, tau, row, target, token, entropy, to):
        values = [ref.decode(b, dtype) for b in row]
        k = ref.Constants(ref.from_bits32(tau))
        saved = ref.saved_row(values, k, entropy is not None)
        grad = ref.gradient_row(values, target, k, saved, *(
            None if b is None else ref.from_bits32(b) for b in (token, entropy)))
        out.row(name, dtype, tau, row)
        out.add("id", target)
        for key, b in (("up_token", token), ("up_entropy", entropy)):
            if b is not None:
                out.add(key, hex_of(b, "f32"))
        out.add("saved", ref.saved_record(saved, k).hex())
        out.add("to", to)
        out.values("grad", [ref.narrowed(x, to) for x in grad], to)
        out.add("end")

    ups = [0x3F800000, 0xBF800000, 0x3FB33333, 0xC2C80000, 0x00000000, 0x80000000, 0x358637BD]
    odd = [0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC00001, 0x7F7FFFFF, 0x00000001, 0x80000123,
           0x0E000000]

    def both(name, dtype, tau, row, target, up=None):
        for losses in (1, 2, 3):
            pick = lambda: draws.pick(ups) if up is None else up    # noqa: E731
            case(name, dtype, tau, row, target, pick() if losses & 1 else None,
                 pick() if losses & 2 else None, draws.pick(DTYPES))

    for dtype in DTYPES:
        a, low, sign = ABSENT[dtype], LOWEST[dtype], ABSENT[dtype] - PLUS_INF[dtype]
        one = encode_float(1.0, dtype)
        for name, row, target in (
                ("one token", [one], 0), ("one present", [a] * 40 + [one, a], 40),
                ("absent target", [a] * 3 + [one, one, 0], 1), ("lowest", [low] * 5 + [one], 2),
                ("all lowest and an absent one", [low, low, a, low], 1),
                ("zeros of both signs", [0, sign] * 9, 3), ("all absent", [a] * 3, 0),
                ("NaN", [one, NAN[dtype], one], 0), ("+inf", [one] * 17 + [PLUS_INF[dtype]], 1),
                ("highest", [low - sign] * 3 + [one, low, a], 1)):
            both(name, dtype, draws.pick(TAUS), row, target)
        for vocab in (1, 15, 16, 17, 33, 100, 259):
            for tau in (TAUS[0], draws.pick(TAUS[1:])):
                row = Recipe("gauss", draws.next(), -13, 0, 0).row(vocab, dtype)
                for _ in range(draws.below(1 + vocab // 8)):
                    row[draws.below(vocab)] = draws.pick((a, a, low))
                both("gauss", dtype, tau, row, draws.below(vocab))
        for lead in (12, 30, 70, 84, 86, 88, 100):          # includes terms that count as 0
            row = Recipe("gauss", draws.next(), -16, 0, 0).row(40, dtype)
            row[7] = encode_float(float(lead), dtype)
            both("lead of %d" % lead, dtype, TAUS[0], row, draws.pick((7, 8)))
        for up in odd:
            row = Recipe("gauss", draws.next(), -13, 0, 0).row(20, dtype)
            row[3] = a
            both("upstream %08x" % up, dtype, draws.pick(TAUS), row, draws.below(4), up)
    for tau in (0x3A800000, 0x44800000):
        row = Recipe("gauss", draws.next(), -13, 0, 0).row(40, "f32")
        both("temperature %s" % hex_of(tau, "f32"), "f32", tau, row, 5)
    for t in (4096, -4096, 2 ** 21, -2 ** 21):
        for tau in TAUS:
            k = ref.Constants(ref.from_bits32(tau))
            row = Recipe("flat", draws.next(), -8, int(t / k.c * 256.0), 100).row(40, "f32")
            both("border at t = %d" % t, "f32", tau, row, draws.below(40))
    return out


# --- Divergence ---------------------------------------------------------------------------------

def true_kl(p, q, kp, kq):
    """KL(p || q) in real arithmetic, and the bound of its error beyond half an ulp; None if a logit
    saturates."""
    if any(x != -INF and abs(x) > k.lim for row, k in ((p, kp), (q, kq)) for x in row):
        return None
    (wp, lp), (wq, lq) = ((w, mpmath.log(mpmath.fsum(w))) for w in (
        [mpmath.exp((exact(x) - exact(max(row))) / exact(k.tau)) if x != -INF else mpmath.mpf(0)
         for x in row] for row, k in ((p, kp), (q, kq))))
    total = mpmath.fsum(wp)
    pairs = [(w / total, (exact(x) - exact(max(p))) / exact(kp.tau) - lp,
              (exact(y) - exact(max(q))) / exact(kq.tau) - lq)
             for w, x, y in zip(wp, p, q) if x != -INF]         # p, ln p, ln q
    kl = mpmath.fsum(w * (a - b) for w, a, b in pairs)
    p_entropy = -mpmath.fsum(w * a for w, a, _ in pairs)
    q_entropy = -mpmath.fsum(v * mpmath.log(v) for v in (w / mpmath.fsum(wq) for w in wq) if v > 0)
    covariance = mpmath.fsum(w * (a + p_entropy) * (a - b) for w, a, b in pairs)
    return kl, 4.6e-6 + 1.31e-6 * float(kl) + 2.0 ** -24 * float(
        abs(covariance) + abs(kl + p_entropy - q_entropy))


def kl_file():
    out = File("kl", "pairs of rows and their divergence")
    draws = SplitMix64(114)
    largest = [0.0, ""]

    def merged(leaves, order, kp, kq):
        s = ref.Divergence(kp, kq)
        for i in order:
            s.merge(leaves[i])
        return s

    def state_of(p, q, kp, kq):
        """Adds leaves from the first to the last, and checks that the reverse order and pairs give
        the same."""
        leaves = [ref.row_divergence(p[i:i + 16], q[i:i + 16], kp, kq)
                  for i in range(0, len(p), 16)]
        n = len(leaves)
        pairs = [merged(leaves[i:i + 2][::-1], range(len(leaves[i:i + 2])), kp, kq)
                 for i in range(0, n, 2)]
        s = merged(leaves, range(n), kp, kq)
        for other in (merged(leaves, range(n - 1, -1, -1), kp, kq),
                      merged(pairs, range(len(pairs)), kp, kq)):
            assert other.x == s.x and other.p.record() == s.p.record() and \
                other.q.record() == s.q.record() and other.outside == s.outside
        return s

    def checked(name, value, p, q, kp, kq):
        if not -INF < value < INF:
            return None
        true, bound = true_kl(p, q, kp, kq) or (None, 0.0)
        if true is not None:
            beyond = float(abs(exact(value) - true)) - 0.5 * ulp32(value)
            if beyond > bound:
                sys.exit("gen_vectors.py: %s: the divergence is off by %g" % (name, beyond))
            largest[:] = max(largest, [beyond, name])
        return true

    def case(name, p, q, p_dtype="f32", q_dtype=None, tau=TAUS[0], q_tau=None, vocab=None):
        q_dtype, q_tau, rows = q_dtype or p_dtype, q_tau or tau, []
        out.add("case", name)
        for which, row, dtype, temperature in (("", p, p_dtype, tau), ("q_", q, q_dtype, q_tau)):
            recipe = row if isinstance(row, Recipe) else None
            encoded = recipe.row(vocab, dtype) if recipe else row
            rows.append([ref.decode(b, dtype) for b in encoded])
            out.add(which + "dtype", dtype)
            out.add(which + "tau", hex_of(temperature, "f32"))
            if not which:
                out.add("vocab", len(encoded))
            if recipe:
                out.lines += [which + line for line in recipe.lines(dtype)]
            else:
                out.values(which + "x", encoded, dtype)
        kp, kq = (ref.Constants(ref.from_bits32(t)) for t in (tau, q_tau))
        value = ref.finish_divergence(state_of(*rows, kp, kq))
        out.add("kl", hex_of(ref.bits32(value), "f32"))
        out.add("true_kl", true_text(checked(name, value, *rows, kp, kq)))
        out.add("end")

    def gauss(dtype, vocab, scale=-13, offset=0):
        return Recipe("gauss", draws.next(), scale, offset, 0).row(vocab, dtype)

    for dtype in DTYPES:
        a, low, sign = ABSENT[dtype], LOWEST[dtype], ABSENT[dtype] - PLUS_INF[dtype]
        one, nan, inf = encode_float(1.0, dtype), NAN[dtype], PLUS_INF[dtype]
        tens = [one] * 10
        for name, p, q in (
                ("one token", [one], [low]), ("two equal and two apart", [one, one], [one, 0]),
                ("zeros of both signs", [0, sign] * 9, [sign, 0] * 9),
                ("absent in both", [a, one] * 20, [a, 0] * 20),
                ("absent in p", [a, one, a] * 7, [one, 0, 0] * 7),
                ("outside", [one] * 3, [one, a, one]),
                ("outside, a whole leaf", [one] * 40, [one] * 16 + [a] * 16 + [one] * 8),
                ("outside, and its term below all digits",
                 [encode_float(500.0, dtype)] * 16 + [one] * 8, [one] * 16 + [a] * 8),
                ("a leaf absent in p", [one] * 16 + [a] * 8, [0] * 16 + [one] * 8),
                ("a leaf absent in both", [one] * 16 + [a] * 16 + [0], [0] * 16 + [a] * 16 + [one]),
                ("p empty", [a] * 20, tens * 2), ("q empty", tens * 2, [a] * 20),
                ("both empty", [a], [a]),
                ("NaN in p", tens + [nan], tens + [one]), ("NaN in q", tens + [one], tens + [nan]),
                ("NaN in q beside outside", [one] * 20, [a] * 19 + [nan]),
                ("NaN in a leaf absent in p", [one] * 16 + [a] * 9, [one] * 16 + [a] * 8 + [nan]),
                ("+inf in p", [one] * 30 + [inf], [one] * 31), ("+inf in q", tens, [inf] * 10),
                ("lowest in q", [one] * 20, [one] * 19 + [low]),
                ("lowest in p", [one] * 19 + [low], [one] * 20),
                ("lowest in both", [low] * 3 + [one], [low] * 2 + [one] * 2),
                ("highest", [low - sign, one] * 3, [one, low - sign] * 3)):
            case(name, p, q, dtype)
        for vocab in (1, 15, 16, 17, 33, 100):
            for q_dtype in DTYPES:
                p, q = gauss(dtype, vocab), gauss(q_dtype, vocab)
                for i in range(vocab // 3 if draws.below(2) else 0):
                    p[i * 3] = a
                    if draws.below(2):
                        q[i * 3] = ABSENT[q_dtype]
                case("gauss", p, q, dtype, q_dtype, draws.pick(TAUS), draws.pick(TAUS))
            row, tau = gauss(dtype, vocab), draws.pick(TAUS)
            case("the same", row, row, dtype, None, tau)
            case("the same at another temperature", row, row, dtype, None, TAUS[0], TAUS[1])
        for bit in (0, 3, 6):                   # p and q close to each other
            row = gauss(dtype, 70)
            case("close", row, [b ^ (draws.below(2) << bit) for b in row], dtype)
        row = gauss(dtype, 40)                  # equal, though logits below thr count
        row[5] = row[20] = low
        case("the same, with lowest", row, row, dtype)
    for step in (0, 31, 32, 34, 64, 66, 96, 98, 128, 130, 160, 400, 5000):
        for direction in (1, -1):               # windows move, of p, of q, of both
            flat = [Recipe("flat", draws.next(), -11, 0, k * direction * step * 2048)
                    .row(40, "f32") for k in (1, 0, 1, -1)]
            case("p's windows %+d apart" % (direction * step), flat[0], flat[1], tau=TAU_C1)
            case("q's windows %+d apart" % (direction * step), flat[1], flat[0], tau=TAU_C1)
            case("windows %+d apart" % (direction * step), flat[0], flat[2], tau=TAU_C1)
            case("windows apart by %+d" % (direction * step), flat[0], flat[3], tau=TAU_C1)
    for t in (4090, -4090, 4096, -4096, 2 ** 21, -2 ** 21):             # wide leaves
        for tau in TAUS[::2]:
            k = ref.Constants(ref.from_bits32(tau))
            wide = Recipe("flat", draws.next(), -8, int(t / k.c * 256.0), draws.below(513) - 256)
            row, narrow = wide.row(33, "f32"), gauss("f32", 33)
            case("p's border at t = %d" % t, row, narrow, tau=tau)
            case("q's border at t = %d" % t, narrow, row, tau=tau)
            case("border at t = %d" % t, row, row, tau=tau, q_tau=draws.pick(TAUS))
    for tau in (0x3A800000, 0x44800000):
        for q_tau in (TAUS[0], 0x3A800000, 0x44800000):
            case("extreme temperatures", gauss("f32", 50), gauss("f32", 50), tau=tau, q_tau=q_tau)
    # U is 0 by a tie; the addend of an id that is absent in p would make it 1.
    case("a tie beside an absent id", encodings([0.0, -INF], "f32"),
         encodings([-2.0 ** -25, -2.0 ** 20], "f32"), tau=TAU_C1)
    # A leaf three digits below the first one of p; only the third digit of its R is in the window.
    for low in (-66.0, -80.0, -96.0):
        case("R's third digit alone", *(encodings([0.0] + [-INF] * 15 + [x], "f32")
                                        for x in (low, low - 2.0 ** 20)), tau=TAU_C1)
    bits = [Recipe("bits", draws.next(), 0) for _ in range(2)]
    case("bits", *bits, vocab=100)
    large = [Recipe("gauss", draws.next(), -14, 0, 0) for _ in range(2)]
    case("large", *large, "bf16", "f32", vocab=4112)
    print("largest error of KL beyond half an ulp: %.3g (%s)" % tuple(largest))
    return out


# --- The linear head ----------------------------------------------------------------------------

FORMS = ("h24w16", "h24w24")

# h and a weight row, one for each mistake that it shows.
PRODUCTS = (
    ("3f7f0000", "3f7f0000"), ("3f7efdff", "3f800000"), ("3f7efe00", "3f800000"),
    ("3f7efdfe", "3f800000"), ("3f800000 34c00000", "00000000 3f800000"),
    ("3f800000 00000000", "37800000 3f7e0000"), ("3f800000 00000000", "38400000 3f7e0000"),
    ("3f800000 00000000", "377f8000 3f800000"), ("3f800000 3f800000", "3f000000 3b800000"),
    ("3f800000 34800000 00000000", "00000000 3c000000 3f800000"),
    ("3f800000 34800000 00000000", "00000000 bc000000 3f800000"),
    ("bf800000 34000000", "3f800000 34000000"), ("3f800000 35400000", "3f800000 3f400000"),
    ("3f400000 374a0000", "3f400000 3b4a0000"),
    ("3f800000 bf800000 35800000", "3f800000 3f800000 3f800000"),
    ("3f800000 3f800000 3f800000", "3f800000 3b800000 38000000"),
    ("3f800000 38800000 00000000", "3d800000 38800000 3f800000"),
    ("bf800000 b8800000 00000000", "3d800000 39400000 3f800000"),
    ("3f7e0002 3f7e0000 3f7e0000 3f7e0000 3f7e0000",
     "3f7e0600 3f7e0000 3f7e0000 3f7e0000 3f7e0000"),
    ("21800000 20000000", "3f800000 3f800000"), ("20400000", "3f800000"),
    ("1f000000", "3f800000"), ("577efdff", "577efdff"), ("577efe00", "3f800000"),
    ("7fffffff", "3f800000"), ("3f800000", "ff800000"), ("00000001", "3f800000"),
    ("00000000 80000000", "3f800000 bf800000"))

# x, bias, scale, cap; None where there is none.
STEPS = (
    (0x3F800000, 0x3F800000, 0x3D800000, None), (0x41200001, 0x3F800000, 0x3E2AAAAB, None),
    (0x7FC00000, 0xFF800000, None, 0x41F00000), (0x3F800000, 0x7FC00000, None, None),
    (0x3F800000, 0x7F800000, None, 0x41F00000), (0x7FC00000, 0x3F800000, 0x3F000000, 0x41F00000),
    (0x41200000, 0xFF7FFFFF, None, None), (0x41200000, 0xFF7FFFFF, 0x40000000, None),
    (0x41200000, 0x7F7FFFFF, 0x40000000, 0x41F00000), (0x6F7DFD04, 0x7F7FFFFF, None, None),
    (0x41200000, 0xFF7FFFFF, None, 0x41F00000), (0x7F000000, 0xFF000000, 0x4F800000, 0x42480000),
    (0x3F800000, 0xBF800001, 0x2F800000, None), (0x00000000, 0x80000001, 0x3F000000, None),
    (0x08800000, 0x00000000, 0x2F800000, 0x3A800000), (0x00000000, 0x80000000, None, 0x49800000))
CAPPED = {
    0x41F00000: (0x00000001, 0xBF800000, 0x40A00000, 0x4195FFFF, 0x41960000, 0x4197CDCD, 0xC1F00000,
                 0x42C80000, 0x43F00000, 0x7F7FFFFF, 0x418940BE, 0x40E6F25B, 0x4187CE6C),
    0x418A6666: (0x41300000, 0x41E16DDC),
    0x42480000: (0x41200000, 0x41F9FFFF, 0x41FA0000, 0x4205493C, 0x428265B9, 0xC2C80000)}


def linear_file():
    out = File("linear", "products: format D E_h E_w T x h w; finish: x bias scale cap x; refused")
    draws = SplitMix64(180)

    def product(h, w):
        for form in FORMS:
            E_h, E_w = (ref.linear_E(ref.linear_magnitude(row)) for row in (h, w))
            T = "-"
            if E_h is not None and E_w is not None:
                T = ref.linear_T(ref.linear_sum(
                    ref.linear_integers(map(ref.from_bits32, h), E_h, 24),
                    ref.linear_integers(map(ref.from_bits32, w), E_w, ref.LINEAR_BITS[form]),
                    form), form)
            (x,) = ref.linear_row(h, [w], form)
            out.add("product", form, len(h), *("bad" if E is None else E for E in (E_h, E_w)), T,
                    *("%08x" % b for b in [ref.bits32(x)] + h + w))

    def finish(x, bias, scale, cap):
        def value(b):
            return None if b is None else ref.from_bits32(b)
        got = ref.linear_finish(*map(value, (x, bias, scale, cap)))
        if cap is not None and math.isfinite(got):
            check_cap(x, bias, scale, cap, got)
        out.add("finish", *("-" if b is None else "%08x" % b for b in (x, bias, scale, cap)),
                "%08x" % ref.bits32(got))

    def row(width, top, span, mask):
        return [(draws.next() & mask & 0x807FFFFF)
                | max(0, min(254, top - draws.below(span))) << 23 for _ in range(width)]

    for h, w in PRODUCTS:
        product(*([int(word, 16) for word in side.split()] for side in (h, w)))
    for b in (0, 0x80000001, 0x007FFFFF, 0x00800000, 0x2B7EFDFF, 0x2B7EFE00, 0x2BFEFE00, 0x577EFDFF,
              0x577EFE00, 0xD77EFE00, 0x7F7FFFFF, 0x7F800000, 0x7FC00000, 0xFFC00001, 0x7F800001):
        product([b], [0x3F800000])                              # the edges of E
        product([0xC0490FDB], [b])
        product([0x3E000000, b], [b, 0xBE000000])
    for _ in range(350):
        width, mask = 1 + draws.below(6), draws.pick((0xFFFFFFFF, 0xFFFF0000, 0xFFFE0000))
        product(row(width, 87 + draws.below(88), 1 + draws.below(24), mask),
                row(width, 87 + draws.below(88), 1 + draws.below(24), mask))
    for _ in range(60):         # ties in h, W and Q: odd multiples of half a unit
        width = 2 + draws.below(4)
        rows = []
        for bits in (24, draws.pick((16, 24))):
            halves = [2 * draws.below(2 ** 12) + 1 for _ in range(width - 1)]
            rows.append([float_bits(draws.pick((1, -1)) * n * 2.0 ** -bits) for n in halves])
            rows[-1].insert(draws.below(width), 0x3F000000 + draws.below(0x7EFE00))
        product(*rows)

    for step in STEPS:
        finish(*step)
    for cap, values in CAPPED.items():
        for x in values:
            finish(x, None, None, cap)
    for cap in (0x41F00000, 0x42480000, 0x3A800000, 0x49800000, 0x40490FDB):
        value = ref.from_bits32(cap)
        edge = float_bits(ref.to32(0.625 * value))
        for b in [edge + d for d in (-2, -1, 0, 1, 2)] + [float_bits(16.0 * value), 1, 0x00800000]:
            finish(b, None, None, cap)
            finish(b | 0x80000000, None, None, cap)
        for _ in range(40):
            x = ref.to32(value * (1 + draws.below(2 ** 20)) * 2.0 ** (-14 - draws.below(20)))
            finish(float_bits(x) | draws.below(2) << 31, None, None, cap)
    for _ in range(150):
        x, bias, scale = ((draws.next() & 0x807FFFFF) | (127 + draws.below(2 * span) - span) << 23
                          for span in (12, 12, 32))
        finish(x, draws.pick((None, bias)), draws.pick((None, scale & 0x7FFFFFFF)),
               draws.pick((None, 0x41F00000, 0x42480000, 0x41200000)))
    for b in (0, 0x2F7FFFFF, 0x4F800001, 0xBF800000, 0x7F800000, 0x7FC00000):
        out.add("refused_scale", "%08x" % b)
    for b in (0x80000000, 0x3A7FFFFF, 0x49800001, 0xC1F00000, 0x7F800000, 0x7FC00000):
        out.add("refused_cap", "%08x" % b)
    return out


def check_cap(x, bias, scale, cap, got):
    """Checks a softcap against tanh: at most 2 ulp from it, beside those of the steps before."""
    x = ref.linear_finish(*(None if b is None else ref.from_bits32(b) for b in (x, bias, scale)))
    with mpmath.workdps(60):
        cap = mpmath.mpf(ref.from_bits32(cap))
        true = cap * mpmath.tanh(mpmath.mpf(x) / cap)
        if abs(got - true) > 2 * mpmath.mpf(ulp32(got)):
            sys.exit("gen_vectors.py: the softcap of %r is %r" % (x, got))


def heads_file():
    out = File("heads", "whole rows of the linear head: hidden, weights, logits, logprobs")
    draws = SplitMix64(181)
    largest = [0.0, ""]

    def rows_of(recipe, count, dtype):
        return recipe.row(count, dtype) if isinstance(recipe, Recipe) else recipe

    def put(key, recipe, count, dtype):
        if isinstance(recipe, Recipe):
            for line in recipe.lines(dtype):
                out.add(key + line)
        else:
            out.values(key + "x", recipe, dtype)

    def case(name, hidden, weights, depth, vocab, dtype="f32", tau=0x3F800000, bias=None,
             scale=None, cap=None, kept=None):
        h = [ref.decode(b, dtype) for b in rows_of(hidden, depth, dtype)]
        w = [ref.decode(b, dtype) for b in rows_of(weights, depth * vocab, dtype)]
        wide = [float_bits(x) if x == x else 0x7FC00000 for x in h]
        rows = [[float_bits(x) if x == x else 0x7FC00000 for x in w[v * depth:(v + 1) * depth]]
                for v in range(vocab)]
        for form in FORMS:
            logits = ref.linear_row(
                wide, rows, form, None if bias is None else [ref.from_bits32(b) for b in bias],
                *(None if b is None else ref.from_bits32(b) for b in (scale, cap)))
            logits = ref.kept_row(logits, kept)
            bound = None
            if bias is None and scale is None and cap is None:
                bound = ref.linear_bound(wide, rows, form)
                check_logits(name, form, h, w, depth, logits, bound, largest)
            ids = sorted({0, vocab - 1, draws.below(vocab), draws.below(vocab)})
            got, lse, _ = ref.logprob_row(logits, ids, ref.from_bits32(tau))
            out.add("case", name + ", " + form)
            out.add("format", form)
            out.add("dtype", dtype)
            out.add("tau", "%08x" % tau)
            out.add("depth", depth)
            out.add("vocab", vocab)
            put("h_", hidden, depth, dtype)
            put("w_", weights, depth * vocab, dtype)
            if bias is not None:
                out.values("bias", bias, "f32")
            for key, value in (("scale", scale), ("cap", cap)):
                if value is not None:
                    out.add(key, "%08x" % value)
            if kept is not None:
                out.values("kept", kept, "f32")
            if bound is not None:
                out.add("bound", "%08x" % ref.bits32(bound))
            out.values("logits", [ref.bits32(x) for x in logits], "f32")
            for i, logprob in zip(ids, got):
                out.add("target", i, "%08x" % ref.bits32(logprob), "-")
            out.add("lse", "%08x" % ref.bits32(lse), "-")
            out.add("end")

    def gauss(scale=-17):
        return Recipe("gauss", draws.next(), scale, 0, 0)

    def scatter(q, span):
        return Recipe("scatter", draws.next(), q, span)

    for dtype in DTYPES:
        for depth, vocab in ((1, 1), (3, 16), (31, 17), (64, 15), (65, 33), (127, 5), (576, 4)):
            case("gauss", gauss(), gauss(-20), depth, vocab, dtype, draws.pick(TAUS[:2]))
    for depth, vocab in ((16, 40), (33, 37), (200, 17)):
        case("heavy tails", scatter(-24, 8), scatter(-28, 6), depth, vocab)
        case("heavier tails", scatter(-30, 20), scatter(-30, 14), depth, vocab)
    bias = [float_bits((31 * v % 17 - 8) / 4) for v in range(37)]
    bias[5] = 0xFF800000
    for name, parts in (("bias", (bias, None, None)), ("scale", (None, 0x3D800000, None)),
                        ("cap", (None, None, 0x41F00000)), ("all steps", (bias, 0x40600000,
                                                                          0x41200000))):
        case(name, gauss(), gauss(-19), 64, 37, "f32", 0x3F333333, *parts)
    case("a mask of finfo.min as bias", gauss(), gauss(), 40, 20, "f32", 0x3F800000,
         [0xFF7FFFFF, 0] * 10)
    case("the same under a scale", gauss(), gauss(), 40, 20, "f32", 0x3F800000,
         [0xFF7FFFFF, 0] * 10, 0x40000000)
    case("zeros", Recipe("const", 0, 0, 0, 0), gauss(), 64, 100)
    case("a wide D", gauss(), gauss(-24), 4097, 2, "bf16")
    largest_levels = Recipe("const", 0, -24, -0xFD0100, 0)
    case("the widest D, the largest levels", largest_levels, largest_levels, 32768, 1)
    case("the widest D, the largest levels of other signs",
         Recipe("const", 0, -24, 0xFCFEFE, 0), largest_levels, 32768, 1)

    # Bad rows: of hidden; of weights that count, that are not kept, and that the bias masks out.
    for bad in (0x7FC00000, 0xFF800000, 0x577EFE00):
        case("a bad hidden row", gauss().put(7, bad), gauss(-20), 33, 18)
        case("a bad weight row", gauss(), gauss(-20).put(33 * 4 + 32, bad), 33, 18)
        case("a bad weight row that is not kept", gauss(), gauss(-20).put(33 * 4 + 32, bad), 33, 18,
             kept=[0x3FFEF])
        case("a bad weight row that is masked out", gauss(), gauss(-20).put(33 * 4 + 32, bad), 33,
             18, bias=[0xFF800000 if v == 4 else 0 for v in range(18)])
    case("a bad hidden row, all ids masked out but one", gauss().put(7, 0x7FC00000), gauss(), 9, 18,
         bias=[0xFF800000] * 17 + [0])
    case("a bad hidden row without present ids", gauss().put(7, 0x7FC00000), gauss(), 9, 18,
         bias=[0xFF800000] * 18)
    case("NaN and +inf as bias", gauss(), gauss(), 9, 18, bias=[0] * 16 + [0x7FC00000, 0x7F800000])
    case("the same, not kept", gauss(), gauss(), 9, 18, bias=[0] * 16 + [0x7FC00000, 0x7F800000],
         kept=[0xFFFF], cap=0x41F00000)
    print("largest share of a logit's bound: %.3g (%s)" % tuple(largest))
    return out


ROUNDINGS = ((0x3F507C1F, 0x41EFFFFA), (0x3F3032F6, 0x41EFFFFB), (0x3F5577A1, 0x41B27194),
             (0x3F28BC34, 0x41EFD2DF), (0x3F5DFFC3, 0x4156B41C), (0x3F4D72E0, 0x41693E11),
             (0x3F3E833F, 0x419DF648), (0x3F4CC4B3, 0x413904A6))


def head_backward_file():
    out = File("head_backward", "derivatives through the head: what is added to sums in fp64")
    draws = SplitMix64(182)

    def scatter(q, span):
        return Recipe("scatter", draws.next(), q, span)

    def words(count, pick):
        return [pick() for _ in range(count)]

    def plain():
        """A double of magnitude 2^-24 .. 2^8, of any sign."""
        return draws.next() & 0x800FFFFFFFFFFFFF | (999 + draws.below(32)) << 52

    def case(name, shape, hidden, weights, grad, dtype="f32", grad_dtype="f32", scale=None,
             cap=None, logits=None, mask=None, before=None):
        R, V, D = shape
        h, w, g = ([ref.decode(b, of) for b in recipe.row(count, of)] for recipe, count, of in (
            (hidden, R * D, dtype), (weights, V * D, dtype), (grad, R * V, grad_dtype)))

        def rows_of(flat, width):
            return [flat[i:i + width] for i in range(0, len(flat), width)]

        flat = {key: words(count, before or (lambda: 0))
                for key, count in (("hidden", R * D), ("weights", V * D), ("bias", V))}
        sums = {"hidden": rows_of(flat["hidden"], D), "weights": rows_of(flat["weights"], D),
                "bias": flat["bias"]}
        value = [None if b is None else ref.from_bits32(b) for b in (scale, cap)]
        got = ref.linear_backward(
            [r for r in range(R) if not mask or mask[r]], rows_of(g, V), rows_of(h, D),
            rows_of(w, D), sums, *value,
            rows_of([ref.from_bits32(b) for b in logits], V) if logits else None)
        out.add("case", name)
        out.add("dtype", dtype)
        out.add("grad_dtype", grad_dtype)
        out.add("rows", R)
        out.add("depth", D)
        out.add("vocab", V)
        for key, recipe, of in (("h_", hidden, dtype), ("w_", weights, dtype),
                                ("g_", grad, grad_dtype)):
            for line in recipe.lines(of):
                out.add(key + line)
        for key, b in (("scale", scale), ("cap", cap)):
            if b is not None:
                out.add(key, "%08x" % b)
        if cap is not None:
            out.values("logits", logits, "f32")
        if mask:
            out.add("mask", *mask)

        def doubles(key, encodings):
            for first in range(0, len(encodings), 8):
                out.add(key, *("%016x" % b for b in encodings[first:first + 8]))

        for key in ("hidden", "weights", "bias"):
            if before:
                doubles("before_" + key, flat[key])
            doubles("by_" + key, got[key] if key == "bias" else sum(got[key], []))
        out.add("end")

    # The exponents of terms are far apart, so that another order gives other sums.
    def scattered(shape, dtype, grad_dtype, **more):
        grad = Recipe("scatter", draws.next(), -30, 8).holes(draws.next(), 256, 0, 0)
        case("R %d, V %d, D %d" % shape, shape, scatter(-24, 12), scatter(-28, 20), grad,
             dtype, grad_dtype, **more)

    SHAPES = ((1, 1, 1), (3, 5, 17), (2, 17, 3), (3, 5, 65), (2, 70, 3), (35, 3, 4), (67, 2, 3))
    for number, dtype in enumerate(DTYPES):
        for i, shape in enumerate(SHAPES):
            scattered(shape, dtype, DTYPES[(i + number) % 3],
                      mask=[1 - (r % 3 == 1) for r in range(shape[0])] if i % 2 else None,
                      before=plain if i % 3 == number else None)

    def near(cap):
        """A logit of a head with a cap."""
        return float_bits(ref.to32(cap * (draws.below(2 ** 21) - 2 ** 20) * 2.0 ** -20))

    for scale, cap in ((0x3E99999A, None), (None, 0x40200000), (0x40490FDB, 0x41F00000),
                       (0x2F800000, 0x3A800000), (0x4F800000, 0x49800000)):
        for shape in ((4, 9, 5), (2, 37, 3)):
            logits = None
            if cap is not None:
                logits = words(shape[0] * shape[1], lambda: near(ref.from_bits32(cap)))
                logits[:6] = [cap, cap | 0x80000000, 0, 0x80000000, cap - 1, 1]
            scattered(shape, "f32", "f32", scale=scale, cap=cap, logits=logits)

    # Where the order of the roundings, a reciprocal of the cap or a fused 1 - t * t shows: found by
    # a search, for cap 30 and scale 0.3.
    for grad, x in ROUNDINGS:
        case("roundings of a derivative", (1, 1, 1), scatter(-24, 1), scatter(-24, 1),
             Recipe("const", 0, 0, 0, 0).put(0, grad), scale=0x3E99999A, cap=0x41F00000,
             logits=[x])

    # What is there before: zeros of both signs, infinities, NaN, numbers beyond fp32; in an ignored
    # row they stay. And ids without a term.
    odd = (1 << 63, 0, 0x7FF0 << 48, 0xFFF0 << 48, 0x7FF0 << 48 | 1, 0xFFF8123456789ABC, 1,
           0x7FEFFFFFFFFFFFFF, 0x3FF0 << 48, 0x8000000000000001)
    for mask in (None, [0, 1, 0, 1], [0] * 4):
        scattered((4, 6, 5), "f32", "f32", mask=mask, before=lambda: draws.pick(odd))
    nothing = Recipe("const", 0, 0, 0, 0)
    case("no term", (2, 3, 4), scatter(-24, 12).put(1, 0x7FC00000), scatter(-24, 12), nothing,
         before=lambda: draws.pick(odd))

    # Operands that are not finite, with factors that are 0 and that are not; 0 beside an infinity.
    for bad in (0x7FC00000, 0xFFC12345, 0x7F800001, 0x7F800000, 0xFF800000):
        for factor in (0, 0x80000000, 1, 0x3F800000):
            case("a weight %08x by %08x" % (bad, factor), (2, 3, 3), scatter(-24, 4),
                 scatter(-24, 4).put(4, bad), scatter(-24, 4).put(1, factor).put(4, factor))
            case("a hidden state %08x by %08x" % (bad, factor), (3, 2, 3),
                 scatter(-24, 4).put(4, bad), scatter(-24, 4),
                 scatter(-24, 4).put(2, factor).put(3, factor))
        case("a derivative %08x" % bad, (2, 3, 3), scatter(-24, 4).put(1, 0),
             scatter(-24, 4).put(3, 0x80000000), scatter(-24, 4).put(1, bad))
    both = scatter(-24, 4).put(0, 0x7F800000).put(2, 0x7F800000)
    case("infinities of both signs", (1, 3, 2), scatter(-24, 1).put(0, 0x3F800000),
         scatter(-24, 1).put(0, 0x3F800000).put(4, 0xBF800000), both)

    # Derivatives at the ends of fp32: subnormal, infinite, rounded to 0 (which leaves out NaN).
    ends = (1, 0x007FFFFF, 0x80800000, 0x7F7FFFFF, 0xFF7FFFFF, 0x33000000, 0)
    for scale in (0x2F800000, 0x3F7FFFFF, 0x3F000000, 0x4F800000):
        grad = Recipe("const", 0, 0, 0, 0)
        for i, b in enumerate(ends + ends[::-1]):
            grad.put(i, b)
        case("the ends of fp32 under %08x" % scale, (2, 7, 2), scatter(-24, 4),
             scatter(-24, 4).put(1, 0x7FC00000), grad, scale=scale)

    # Logits that no head with a cap gives to a present id, where the derivative is 0 and elsewhere.
    for x in (0xFF800000, 0x7F800000, 0x7FC00000, 0x42C80000, 0x7F7FFFFF):
        for factor in (0, 0x3F800000, 0xBE000000):
            logits = words(6, lambda: near(30.0))
            logits[1] = logits[5] = x
            case("a logit %08x by %08x" % (x, factor), (2, 3, 2), scatter(-24, 4), scatter(-24, 4),
                 scatter(-24, 4).put(1, factor).put(5, factor), cap=0x41F00000, logits=logits)
    return out


def check_logits(name, form, h, w, depth, logits, own, largest):
    """Checks logits against the bounds of The linear head: Error, and the row's own. Products of
    two fp32 numbers are exact in fp64, and fsum rounds once."""
    def E_of(row):
        return ref.linear_E(max(float_bits(x) & 0x7FFFFFFF for x in row))

    E_h, of_h, low = E_of(h), math.fsum(map(abs, h)), ref.LINEAR_BITS[form]
    for v, x in enumerate(logits):
        row = w[v * depth:(v + 1) * depth]
        if not math.isfinite(x):
            continue
        E_w = E_of(row)
        true = math.fsum(a * b for a, b in zip(h, row))
        unit = 2.0 ** (E_h + E_w - 24)
        bound = (2.0 ** (E_w - low) * of_h + 2.0 ** (E_h - 24) * math.fsum(map(abs, row))
                 + unit * (1.0001 * depth if low == 16 else 2.0 ** -7 + depth * 2.0 ** -24))
        error = abs(x - true) - ulp32(x) / 2
        share = error / bound
        if error > own:
            sys.exit("gen_vectors.py: %s, %s: %d is beyond the row's bound" % (name, form, v))
        if share > 1:
            sys.exit("gen_vectors.py: %s, %s: %d is off by %g bounds" % (name, form, v, share))
        if share > largest[0]:
            largest[:] = share, name + ", " + form


# --- Policy losses ------------------------------------------------------------------------------

POLICY_KEYS = ("new", "old", "ref", "rollout", "entropy")
METRICS = ref.PARTS + ref.MARKS + ("ratio_min", "ratio_max")


def policy_bound(case, sequences, policy, got):
    """Checks gradients against exact formulas, where the stated bound holds: nothing near a bound
    of a clip, no overflow and nothing subnormal."""
    near = 3e-7
    for s, by_new in zip(sequences, got["by_new"]):
        n = len(s)
        tokens = policy.tokens or sum(map(len, sequences))
        count = policy.sequences or sum(1 for s in sequences if s)
        z = {"token-mean": tokens, "seq-mean-token-mean": n * count, "seq-mean-token-sum": count,
             "constant": policy.constant}[policy.norm]
        for t, g in zip(s, by_new):
            if not all(map(math.isfinite, t.values())) or policy.weight or policy.loss == "gspo":
                continue
            with mpmath.workdps(60):
                mpf = mpmath.mpf
                a, x = mpf(t["advantage"]), mpf(t["new"])
                rho = mpmath.exp(x - mpf(t.get("old", t["new"])))
                k = rho
                if any(abs(rho / b - 1) < near for b in (policy.lo, policy.hi, policy.dual) if b):
                    continue
                clipped = policy.clip(float(rho), t["advantage"])[1]
                if policy.loss == "cispo":
                    k = mpf(policy.hi) if rho > policy.hi else max(rho, mpf(policy.lo))
                slope, growth = -k * a, 0
                if policy.loss == "reinforce":
                    k, slope = mpf(1), -a
                elif clipped and policy.loss == "clip":
                    slope = mpf(0)
                if policy.beta:
                    d = mpf(t["ref"]) - x
                    growth = {"k1": mpf(1), "k2": abs(d), "k3": mpmath.exp(d) + 1}.get(
                        policy.kl, abs(d))
                    slope += policy.beta * {"k1": mpf(1), "k3": 1 - mpmath.exp(d)}.get(policy.kl,
                                                                                      -d)
                scale = abs(mpf(policy.upstream)) / mpf(z)
                true = slope * mpf(policy.upstream) / mpf(z)
                bound = 5.1 * mpf(2) ** -24 * (abs(a) * k + policy.beta * growth) * scale
                if 2.0 ** -100 < abs(true) < 2.0 ** 100 and abs(mpf(g) - true) > bound:
                    sys.exit("gen_vectors.py: %s: gradient %r is not %s within %s"
                             % (case, g, mpmath.nstr(true, 20), mpmath.nstr(bound, 5)))


def policy_file():
    out = File("policy", "policy losses, their gradients, metrics and records; group advantages")
    draws = SplitMix64(140)

    def fp32(b):
        return ref.from_bits32(b)

    def add_record(record):
        words = ["%x" % w for w in ref.struct.unpack("<%dQ" % (len(record) // 8), record)]
        for first in range(0, len(words), 10):
            out.add("record", *words[first:first + 10])

    def emit(name, listed, per_token=False, **options):
        policy = ref.Policy(**options)
        got = ref.policy_loss(listed, policy)
        policy_bound(name, listed, policy, got)
        tokens = [t for s in listed for t in s]
        out.add("case", name)
        for key, value in options.items():
            if isinstance(value, (str, int)) and key not in ("eps_low", "eps_high", "constant"):
                out.add("option", key, value)
            elif key in ("eps_low", "eps_high", "constant"):
                out.add("option", key, float(value).hex())
            else:
                out.add("option", key, ref.to32(value).hex())
        out.add("lengths", *map(len, listed))
        for key in POLICY_KEYS:
            if tokens and key in tokens[0]:
                out.values(key, [float_bits(t[key]) for t in tokens], "f32")
        if per_token:
            out.values("advantages", [float_bits(t["advantage"]) for t in tokens], "f32")
        else:
            out.values("advantages", [float_bits(s[0]["advantage"]) if s else 0
                                      for s in listed], "f32")
        for key in ("by_new", "by_entropy"):
            out.values(key, [ref.bits32(x) for s in got[key] for x in s], "f32")
        out.values("sequence", [ref.bits32(x) for x in got["sequence"]], "f32")
        out.values("metrics", [ref.bits32(got["metrics"][key]) for key in METRICS], "f32")
        add_record(got["record"])
        out.add("end")

    def table(drop=()):
        """The two sequences of docs/numerics.md."""
        columns = {"new": (-1, -2, -0.5, -3), "old": (-1.25, -2, -0.75, -2.5),
                   "ref": (-1.125, -2, -0.5, -3.5), "rollout": (-1.25, -2.0625, -0.75, -3.5),
                   "entropy": (1, 2, 0.5, 3), "advantage": (1, 1, 1, -0.5)}
        tokens = [{key: float(c[i]) for key, c in columns.items() if key not in drop}
                  for i in range(4)]
        return [tokens[:3], tokens[3:]]

    mean, total = "seq-mean-token-mean", "seq-mean-token-sum"
    emit("table clip", table())
    emit("table grpo", table(), norm=mean, beta=0.04, eta=0.01, weight="truncate", w_high=1.5)
    emit("table gspo", table(), loss="gspo", eps_low=3e-4, eps_high=4e-4, norm=mean)
    emit("table cispo", table(), loss="cispo", eps_low=1, eps_high=0.28, norm="constant",
         constant=8)
    emit("table reinforce", table(), loss="reinforce", norm=total, kl="k2", beta=0.5,
         weight="mask", w_high=1.5, level="geometric")
    emit("no old", table(("old", "ref", "rollout", "entropy")))

    def one(name, token, **options):
        emit(name, [[{key: fp32(b) for key, b in token.items()}]], **options)

    one("another precision", dict(new=0xC0909CFA, old=0xBF857753, ref=0xC088F35B,
                                  rollout=0xBF60E7C3, entropy=0x3E21671F, advantage=0x3D9D0D4B),
        eps_high=0.272, beta=0.1, eta=0.01, weight="truncate", w_high=2.0, norm=mean, sequences=7)
    one("rounded once", dict(new=0, ref=0xB37FFFFE, advantage=0xBF800001), kl="k1",
        beta=fp32(0x3F800001))
    for kl in ("k1", "k2", "k3", "k1+", "k3+"):
        one("small " + kl, dict(new=0xAE812345, ref=0xAFABCDEF, advantage=0), kl=kl, beta=1.0)
    one("beta slope", dict(new=0xBF22A7F9, ref=0x402958D9, advantage=0xC023ED5E), beta=0.1)
    one("above hi", dict(new=0xBF5B045B, old=0xBF8C4DD9, advantage=0x3F800000), eps_high=0.272)

    # Special values in every place, with every loss.
    special = (0xC0000000, 0xFF800000, 0x7F800000, 0x7FC00000, 0x80000000, 0xC3480000)
    for loss in ("clip", "gspo", "cispo", "reinforce"):
        for kl in ("k1", "k3", "k2", "k1+", "k3+"):
            sequences = []
            for new in special:
                for other in special:
                    a = (1.0, -1.0, 0.0, -0.5)[draws.below(4)]
                    sequences.append([{"new": fp32(new), "old": fp32(other), "ref": fp32(
                        draws.pick(special)), "rollout": fp32(draws.pick(special)),
                        "entropy": fp32(draws.pick(special)), "advantage": a}])
            more = [{"beta": 0.25, "eta": 0.5}, {}][draws.below(2)]
            weight = [{"weight": "truncate", "w_low": 0.5, "w_high": 2.0},
                      {"weight": "mask", "w_high": 4.0}, {}][draws.below(3)]
            emit("special %s %s" % (loss, kl), sequences, loss=loss, kl=kl,
                 norm=draws.pick(("token-mean", mean, total)), dual=3.0, **more, **weight)
    for loss in ("gspo", "clip", "reinforce"):
        emit("NaN beside, " + loss, [[{"new": -1.0, "advantage": 1.0},
                                      {"new": math.nan, "advantage": 1.0}]], loss=loss)
    for a in (math.nan, INF, -INF, 0.0, -0.0):
        emit("advantage %r" % a, [[{"new": -1.0, "old": -1.5, "advantage": a}], []])
    for new, old in ((0.0, -200.0), (-200.0, 0.0), (-88.0, 0.0), (0.0, -88.0)):
        for a in (1.0, -1.0, 0.0):
            for dual in (INF, 3.0):
                emit("far ratio", [[{"new": new, "old": old, "advantage": a}]], dual=dual)
    emit("nothing", [[], []])
    emit("empty sequences", [[], [{"new": -1.0, "advantage": 2.0}], [], []], norm=mean)
    emit("no tokens of many", [[]], tokens=100, sequences=5, norm=total)

    def drawn(lengths, wide=20, drop=(), per_token=False):
        sequences = []
        for n in lengths:
            advantage = ref.to32((draws.below(2 ** 20) - 2 ** 19) / 2 ** 18)
            s = []
            for _ in range(n):
                x = -(draws.below(2 ** 24) / 2 ** 21)

                def near(x):
                    step = (draws.below(2 ** 24) - 2 ** 23) / 2.0 ** (22 + draws.below(wide))
                    return ref.to32(x + step)
                old = near(x)
                t = {"new": ref.to32(x), "old": old, "ref": near(x), "rollout": near(old),
                     "entropy": ref.to32(draws.below(2 ** 22) / 2 ** 20), "advantage": advantage}
                if per_token:
                    t["advantage"] = ref.to32((draws.below(2 ** 20) - 2 ** 19) / 2 ** 18)
                s.append({key: v for key, v in t.items() if key not in drop})
            sequences.append(s)
        return sequences

    norms = ({}, {"norm": mean}, {"norm": total}, {"norm": "constant", "constant": 1234.5},
             {"tokens": 1000}, {"norm": mean, "sequences": 77})
    for loss in ("clip", "gspo", "cispo", "reinforce"):
        for i, norm in enumerate(norms):
            options = {"loss": loss, **norm}
            if i % 2:
                options.update(beta=0.04, kl=("k1", "k2", "k3", "k1+", "k3+")[(i + len(loss)) % 5])
            if i % 3 == 1:
                options.update(eta=0.003, upstream=-1024.0)
            if i >= 2:
                options.update(weight=("truncate", "mask")[i % 2],
                               level=("token", "sequence", "geometric")[(i + len(loss)) % 3],
                               w_low=(0.0, 0.5)[i // 4], w_high=1.25)
            if loss == "clip":
                options.update(dual=1.5, eps_high=0.28)
            per_token = i % 2 == 0
            emit("drawn %s %d" % (loss, i), drawn((7, 1, 0, 12, 3), per_token=per_token),
                 per_token=per_token, **options)
    emit("long", drawn((300, 41), drop=("rollout", "entropy")), beta=0.1, norm=mean)

    def group(name, rewards, eps=1e-4):
        mean64, std = ref.group_mean_std(rewards)
        population = ref.group_mean_std(rewards, True)[1]
        out.add("group", name)
        out.add("eps", ref.to32(eps).hex())
        out.values("rewards", [float_bits(x) for x in rewards], "f32")
        for key, scaled, s in (("advantages", True, std), ("population", True, population),
                               ("unscaled", False, std)):
            out.values(key, [ref.bits32(ref.group_advantage(x, mean64, s, eps, scaled))
                             for x in rewards], "f32")
        out.add("mean", *(["nan"] if mean64 != mean64 else [mean64.hex()]))
        out.add("std", *(["nan"] if std != std else [std.hex()]))
        add_record(ref.group_record(rewards))
        out.add("end")

    group("of docs/numerics.md", [1.0, 0.0, 0.0, 1.0, 1.0])
    group("tenths", [ref.to32(x) for x in (0.1, 0.2, 0.7, 0.001)])
    group("none", [])
    group("one", [0.3125])
    group("equal", [ref.to32(0.1)] * 7, eps=0.0)
    group("NaN", [1.0, math.nan])
    group("-inf", [1.0, -INF, 2.0])
    group("largest and least", [fp32(0x7F7FFFFF), fp32(0xFF7FFFFF), fp32(1), fp32(0x80000001)])
    group("neighbours", [fp32(0x3F800000), fp32(0x3F800001)], eps=0.0)
    group("far, and near each other", [fp32(0x4B800000 + i % 3) for i in range(16)])
    for n in (2, 3, 8, 33):
        group("drawn %d" % n, [ref.to32(draws.below(2 ** 24) / 2 ** 23 - 1) for _ in range(n)])
        group("any exponent %d" % n, [fp32((draws.below(254) << 23 | draws.below(2 ** 23))
                                           | (draws.next() >> 63) << 31) for _ in range(n)])
        group("zero and one %d" % n, [float(draws.below(2)) for _ in range(n)])
    return out


# --- Main ---------------------------------------------------------------------------------------

# The special rows of the contract: m, the rest, logprob of id 0, lse (tau 0x1.715476p+0).
KNOWN = ((-1, -INF, 0xB3FFFFFF, 0xBF317216), (-1, -90, 0xB3FFFFFF, 0xBF317216),
         (4015, -INF, 0x00000000, 0x452DEFC7), (-4017, -INF, 0x00000000, 0xC52E05F5),
         (4095, -INF, 0xB3FFFFFF, 0x45316701), (-4097, -INF, 0xB3FFFFFF, 0xC5317D2F))


def check_known():
    for m, low, logprob, lse in KNOWN:
        row = [float(low)] * 16
        row[0], row[1], row[3] = float(m), m - 24.0, m - 48.0
        (got,), got_lse, _ = ref.logprob_row(row, [0], ref.from_bits32(TAU_C1))
        if (ref.bits32(got), ref.bits32(got_lse)) != (logprob, lse):
            sys.exit("gen_vectors.py: the row with largest logit %d has the wrong bits" % m)


def main(arguments):
    check = arguments[:1] == ["--check"]
    left_out = arguments[2].split(",") if check and arguments[1:2] == ["--but"] else []
    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "spec", "vectors")
    if arguments[:1] == ["--out"] and len(arguments) == 2:
        folder = arguments[1]
    elif arguments and not (check and len(arguments) == (3 if left_out else 1)):
        print(__doc__.strip(), file=sys.stderr)
        return 2
    check_known()
    accuracy, changed = Accuracy(), 0
    for make in (constants_file, exp2_file, lg_file, leaf_file, merge_file, sums_file, edge_rows,
                 generated_rows, batches_file, shards_file, draws_file, order_file, sample_file,
                 compare_file, means_file, entropy_file, gradient_file, kl_file, linear_file,
                 heads_file, head_backward_file, policy_file):
        if make.__name__.split("_")[0] in left_out:
            continue
        out = make(accuracy) if make in (edge_rows, generated_rows) else make()
        path = os.path.join(folder, out.name + ".txt")
        old = None
        if os.path.exists(path):
            with open(path, newline="") as file:
                old = file.read()
        text = out.text()
        same = old == text
        changed += not same
        print("%-14s %7d lines %8d bytes %s" % (out.name + ".txt", len(out.lines), len(text),
                                                "same" if same else "changed"), flush=True)
        if not same and not check:
            with open(path + ".tmp", "w", newline="") as file:
                file.write(text)
            os.replace(path + ".tmp", path)
    for kind, (error, name) in sorted(accuracy.largest.items()):
        print("largest error of %s beyond half an ulp: %.3g (%s)" % (kind, error, name))
    print("%d values within the stated accuracy" % accuracy.count)
    return 1 if check and changed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
