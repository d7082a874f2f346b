"""Reads spec/vectors as its README.md defines them; for ports in Python. Needs numpy.

    for case in cases("rows.txt"):      case.name, case.line, case.bits [R, V] (encodings), ...
"""
import os
import types

import numpy

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "vectors")
WIDTH = {"f32": 32, "f16": 16, "bf16": 16}
FORMAT = {"f32": (24, -126, 127), "bf16": (8, -126, 127), "f16": (11, -14, 15)}
INFINITY = {"f32": 0x7F800000, "f16": 0x7C00, "bf16": 0x7F80}
WORD = {32: numpy.uint32, 16: numpy.uint16}


def u64(n):
    return numpy.uint64(n)


def draws(seed, count):
    """The stream of splitmix64."""
    s = u64(int(seed, 16)) + u64(0x9E3779B97F4A7C15) * numpy.arange(1, count + 1, dtype="u8")
    s = (s ^ (s >> u64(30))) * u64(0xBF58476D1CE4E5B9)
    s = (s ^ (s >> u64(27))) * u64(0x94D049BB133111EB)
    return s ^ (s >> u64(31))


def encode(n, q, dtype):
    """Encodings of n * 2^q, cut towards zero. n: int64; q: an int64 for each."""
    precision, emin, emax = FORMAT[dtype]
    length = numpy.frexp(numpy.abs(n).astype("f8"))[1].astype("i8")    # exact: |n| < 2^52
    top = numpy.maximum(length - 1 + q, emin)
    unit = top - (precision - 1)
    right = numpy.clip(unit - q, 0, 63)
    left = numpy.clip(q - unit, 0, 63)
    body = ((numpy.abs(n) >> right) << left) + ((top - emin) << (precision - 1))
    body = numpy.where(top > emax, INFINITY[dtype] - 1, body)
    body = numpy.where(n == 0, 0, body)
    return body | numpy.where(n < 0, 1 << (WIDTH[dtype] - 1), 0)


def noise(kind, u):
    if kind == "const":
        return numpy.zeros(len(u), "i8")
    if kind == "few":
        return (u >> u64(62)).astype("i8")
    if kind == "flat":
        return (u >> u64(52)).astype("i8") - 2048
    if kind == "gauss":
        return sum((u >> u64(16 * k)) & u64(0xFFFF) for k in range(4)).astype("i8") - 131070
    raise ValueError("unknown generator %r" % kind)


def generate(words, vocab, dtype):
    kind, seed, numbers = words[0], words[1], [int(w) for w in words[2:]]
    u, i = draws(seed, vocab), numpy.arange(vocab, dtype="i8")
    if kind == "bits":
        bits = (u >> u64(64 - WIDTH[dtype])).astype("i8")
        sign = 1 << (WIDTH[dtype] - 1)
        poison = ((bits & (sign - 1)) > INFINITY[dtype]) | (bits == INFINITY[dtype])
        return bits if numbers[0] else numpy.where(poison, INFINITY[dtype] | sign, bits)
    if kind == "scatter":
        n = 2 ** 20 + (u & u64(0xFFFFF)).astype("i8")
        n = numpy.where(u >> u64(63) != 0, -n, n)
        q = numbers[0] + ((u >> u64(32)) & u64(0xFFFF)).astype("i8") % numbers[1]
        return encode(n, q, dtype)
    q, offset, step = numbers
    return encode(offset + step * (i >> 4) + noise(kind, u), numpy.full(vocab, q, "i8"), dtype)


def punch(row, seed, ids, leaves, fill):
    u = draws(seed, len(row))
    hole = (u & u64(1023)) < ids
    of_leaf = (u[::16] >> u64(10) & u64(1023)) < leaves
    row[hole | numpy.repeat(of_leaf, 16)[:len(row)]] = fill


LISTS = {"ids", "mask", "row_list", "cu_seqlens", "count", "padded", "bad_id"}
NUMBERS = {"vocab", "shift", "ignore_index"}
ENCODINGS = {"token", "lse", "sequence", "temperatures"}


def add(case, key, words):
    """A line of a block."""
    if key in NUMBERS:
        setattr(case, key, int(words[0]))
    elif key in LISTS:
        setattr(case, key, (getattr(case, key, None) or []) + [int(w) for w in words])
    elif key in ENCODINGS and not case.targets:
        setattr(case, key, (getattr(case, key, None) or []) + [int(w, 16) for w in words])
    elif key == "lse":
        case.lse = int(words[0], 16)
    elif key in ("tau", "temperature", "sum"):
        setattr(case, key, int(words[0], 16))
    elif key == "repeat":
        case.x += [int(words[1], 16)] * int(words[0])
    elif key == "x":
        case.x += [int(w, 16) for w in words]
    elif key == "gen":
        case.row = generate(words, case.vocab, case.dtype)
    elif key == "holes":
        punch(case.row, words[0], int(words[1]), int(words[2]), int(words[3], 16))
    elif key == "put":
        case.row[int(words[0])] = int(words[1], 16)
    elif key == "target":
        case.targets.append((int(words[0]), int(words[1], 16)))
    elif key in ("dtype", "state"):
        setattr(case, key, words[0])
    elif key not in ("row", "entropy"):
        raise ValueError("unknown key %r" % key)


def cases(name):
    """The cases of a file of blocks, in order."""
    case = None
    with numpy.errstate(over="ignore"), open(os.path.join(FOLDER, name)) as file:
        head = next(file).split()
        if head[:2] != ["samebits-vectors", "1"] or head[3:5] != ["numerics", "1"]:
            raise ValueError("%s: not vectors of format 1, numerics 1" % name)
        for number, line in enumerate(file, 2):
            key, *words = line.split()
            if key.startswith("#"):
                continue
            if key == "case":
                case = types.SimpleNamespace(
                    name=" ".join(words), file=name, line=number, x=[], targets=[], row=None,
                    mask=None, row_list=None, cu_seqlens=None, padded=None, temperatures=None,
                    bad_id=None)
            elif key == "end":
                if hasattr(case, "dtype"):
                    bits = case.x if case.row is None else case.row
                    case.bits = numpy.array(bits, "i8").astype(WORD[WIDTH[case.dtype]])
                    case.bits = case.bits.reshape(-1, case.vocab)
                yield case
            else:
                add(case, key, words)
