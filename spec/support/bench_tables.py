"""What bench/tables.py makes of given measurements; spec/project/bench_spec.lua reads it."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "bench"))

import goals
import tables

NAN = float("nan")


def line(call, rows, mine, unlike=0):
    return {"call": call, "dtype": "bf16", "vocab": goals.BIG, "rows": rows, "floor": 273.04,
            "compared": 64, "unlike": unlike,
            "times": {"samebits": (mine, 0.25), "samebits, two calls": (1, 0), "slow": (5000, 0),
                      "masked": (400.125, 1), "broken": (2, 1), "ones": (3.5, 1)},
            "errors": {"samebits": 1e-7, "broken": NAN}, "memory": {"masked": 1.246e9, "slow": 12},
            "ones": {"ones"}, "plan": f"a_kernel {rows} x 512"}


infinite = {"half": {"samebits": (0, 16), "masked": (16, 16)},
            "few": {"samebits": (0, 16), "masked": (0, 16), "slow": (0, 16)}}
poisoned = tables.poisoned_by(infinite)
lines = [line("logprob", 4096, 289.96), line("logprob", 512, 43.04, unlike=3),
         line("a call without a goal", 7, 3.456)]
record = tables.head("Title", {"gpu": "NVIDIA H200", "date": "2026-11-29", "machine": "one"})
record += tables.summary(lines, goals.of("NVIDIA H200"), poisoned)
record += tables.sustained(("logprob", "bf16", goals.BIG, 4096), {
    "samebits": {"first": 289, "us": 299.96, "MHz": 1700, "least MHz": 1500, "W": 699.6,
                 "capped": True},
    "without pynvml": {"first": 1, "us": 2}}, goals.of("NVIDIA H200"))
record += tables.columns(lines, poisoned) + tables.details(lines[0], poisoned)
record += tables.infinities(infinite) + tables.plans(lines)
record += tables.notes(["a note"])
print("\n".join(record))
print("PAGE")
MARK = "<!-- bench: a.md, {} -->\nold\n<!-- bench: end -->\n"
page = "before\n" + MARK.format("logprob, bf16, *") + "between\n" + MARK.format("*, fp16") + "after"
filled = tables.filled(page, {"a.md": "\n".join(record)}.get)
assert filled == tables.filled(filled, {"a.md": "\n".join(record)}.get)
print(filled)
ROWS = """<!-- {0}: a.md; {1}; {2} -->
| a | b |
| --- | --- |
| {3} | old |
| samebits | |
<!-- {0}: end -->
"""
ONE = "logprob: bf16, V = 151936, N = 4096"
page = ROWS.format("ratios", "bf16, V = 151936", "samebits;\n N = 7; N = 4096", "masked")
page += ROWS.format("ratios", ONE, "slow; us; error", "broken")
page += ROWS.format("cells", ONE, "us; error; memory", "masked")
filled = tables.with_cells(page, {"a.md": "\n".join(record)}.get)
assert filled == tables.with_cells(filled, {"a.md": "\n".join(record)}.get)
print("RATIOS\n" + filled)
