"""Writes random heads and the logits that tools/reference.py gives them, as safetensors.

    python3 spec/parity/head.py FIRST CASES OUT.safetensors

Case n, FIRST <= n < FIRST + CASES, has the tensors hidden.n [16, D], weights.n [64, D] and logits.n
[16, 64], bias.n [64] in some, and the metadata n: "FORMAT SCALE CAP", encodings of fp32 or "-".
Needs only the standard library.
"""
import json
import operator
import os
import random
import struct
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools"))
import reference as ref     # noqa: E402

ROWS, IDS = 16, 64
CODES = {"f32": ("F32", "I"), "bf16": ("BF16", "H"), "f16": ("F16", "H")}


def matrix(draw, count, width, dtype):
    """Encodings of rows whose largest exponents and spreads differ; few rows are bad."""
    rows = []
    for _ in range(count):
        if dtype == "f16":
            rows.append([draw.getrandbits(16) & 0xFBFF for _ in range(width)])
            continue
        top, span = draw.randrange(95, 165), draw.choice((1, 4, 12, 30))
        if draw.random() < 0.02:
            top = draw.choice((30, 174, 175, 254))
        mask = draw.choice((0x7FFFFF, 0x7F0000, 0x600000, 0x7FFF80))
        row = [draw.getrandbits(1) << 31 | max(0, top - draw.randrange(span)) << 23
               | draw.getrandbits(23) & mask for _ in range(width)]
        if draw.random() < 0.01:
            row[draw.randrange(width)] = draw.choice((0x7F800000, 0xFF800000, 0x7FC00000))
        rows.append([b >> 16 for b in row] if dtype == "bf16" else row)
    return rows


def fp32(rows, dtype):
    """The same as encodings of fp32."""
    if dtype == "f32":
        return rows
    if dtype == "bf16":
        return [[b << 16 for b in row] for row in rows]
    return [[struct.unpack("<I", struct.pack("<f", ref.decode(b, dtype)))[0] for b in row]
            for row in rows]


def prepared(rows, bits):
    out = []
    for row in rows:
        E = ref.linear_E(ref.linear_magnitude(row))
        n = [0] if E is None else ref.linear_integers(map(ref.from_bits32, row), E, bits)
        out.append((E, n, [ref.last_digit(q) for q in n]))
    return out


def product(h, w, form):
    if h[0] is None or w[0] is None:
        return float("nan")
    total = sum(map(operator.mul, h[1], w[1]))
    if form == "h24w16":
        total -= sum(map(operator.mul, h[2], w[2]))
    return ref.linear_x(ref.linear_T(total, form), h[0], w[0])


def make(n):
    """Returns the tensors of case n, [(name, dtype, shape, encodings)], and its words."""
    draw = random.Random(n)
    form, width = draw.choice(("h24w16", "h24w24")), draw.choice((1, 2, 7, 16, 31, 40, 65))
    dtypes = [draw.choice(("f32", "bf16", "f16")) for _ in range(2)]
    raw = matrix(draw, ROWS, width, dtypes[0]), matrix(draw, IDS, width, dtypes[1])
    h, w = (prepared(fp32(rows, dtype), bits) for rows, dtype, bits in
            zip(raw, dtypes, (24, ref.LINEAR_BITS[form])))
    bias = scale = cap = None
    if draw.random() < 0.4:
        bias = [draw.choice((0xFF800000, 0x7FC00000, 0, draw.getrandbits(32) & 0xC2FFFFFF,
                             draw.getrandbits(32) & 0xC2FFFFFF)) for _ in range(IDS)]
    if draw.random() < 0.3:
        scale = draw.randrange(0x2F800000, 0x4F800001)
    if draw.random() < 0.4:
        cap = draw.choice((0x41F00000, 0x42480000, draw.randrange(0x3A800000, 0x49800001)))
    biases = [None if bias is None else ref.from_bits32(b) for b in bias or [0] * IDS]
    steps = [None if b is None else ref.from_bits32(b) for b in (scale, cap)]
    logits = [ref.bits32(ref.linear_finish(product(row, one, form), b, *steps))
              for row in h for one, b in zip(w, biases)]
    tensors = [("hidden", dtypes[0], (ROWS, width), sum(raw[0], [])),
               ("weights", dtypes[1], (IDS, width), sum(raw[1], [])),
               ("logits", "f32", (ROWS, IDS), logits)]
    if bias is not None:
        tensors.append(("bias", "f32", (IDS,), bias))
    return tensors, "%s %s %s" % (form, *("-" if b is None else "%08x" % b for b in (scale, cap)))


def main(first, cases, path):
    header, data = {"__metadata__": {}}, bytearray()
    for n in range(first, first + cases):
        tensors, header["__metadata__"][str(n)] = make(n)
        for name, dtype, shape, encodings in tensors:
            code, letter = CODES[dtype]
            at = len(data)
            data += struct.pack("<%d%s" % (len(encodings), letter), *encodings)
            header["%s.%d" % (name, n)] = {"dtype": code, "shape": shape,
                                           "data_offsets": [at, len(data)]}
            if len(data) % 4:
                header["pad.%s.%d" % (name, n)] = {
                    "dtype": "U8", "shape": [2], "data_offsets": [len(data), len(data) + 2]}
                data += b"\0\0"
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
