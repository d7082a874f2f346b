#!/usr/bin/env python3
"""Markdown records of what the benches measured. Plain Python, without PyTorch.

    python3 bench/tables.py [--check] README.md docs/performance.md

That makes the pages' marked tables from the records that they name: those lines of the first table
of bench/results/RECORD.md that are of a call, dtype and V (* is any).

    <!-- bench: RECORD.md, logprob, bf16, 151936 -->
    <!-- bench: end -->

and, of the programs that stand in the page's table, columns of a section of a record; or ratios:
their times by those of one program, here samebits, where a column "error" is copied.

    <!-- cells: RECORD.md; SECTION; COLUMN; COLUMN -->
    | any heads | 4096 rows | 64 rows |
    | --- | --- | --- |
    | a program as the record names it | | |
    <!-- cells: end -->
    <!-- ratios: RECORD.md; SECTION; samebits; COLUMN; COLUMN -->
    <!-- ratios: end -->

A line of measurements is a dict:

    call, dtype, vocab, rows    what was measured
    floor                       microseconds of a kernel that only moves the bytes
    times                       name: (microseconds, spread in %); samebits' names begin with OURS
    compared, unlike            rows compared with the cpu backend's bits, and how many differ
    and where they exist
    errors                      name: greatest error; NaN if the peer gave NaN
    memory                      name: bytes beside inputs, for a peer also outputs
    ones                        names that compute only the gradient of upstream -1
    plan                        the kernels that samebits launched
"""
import argparse
import math
import os
import re
import sys

OURS = "samebits"


def us(t):
    return f"{t:.2f}" if t < 10 else f"{t:.1f}" if t < 1000 else f"{t:.0f}"


def size(count):
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:.2f} {name}"
    return f"{count:.0f} B"


def table(head, rows):
    return (["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
            + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows] + [""])


def ours(line):
    """The name of samebits' own time in a line: the plain one if there is one."""
    names = [n for n in line["times"] if n.startswith(OURS)]
    return OURS if OURS in names else names[0]


def wrong(line, name):
    """Whether a peer gave NaN where the answer is a number."""
    return math.isnan(line.get("errors", {}).get(name, 0.0))


def best(line, ones=False):
    """The name of the fastest peer that gave numbers; None if there is none. ones: of those that
    compute only the gradient of upstream -1."""
    names = [n for n in line["times"] if not n.startswith(OURS) and not wrong(line, n)
             and (n in line.get("ones", ())) == ones]
    return min(names, key=lambda n: line["times"][n][0], default=None)


def named(name, poisoned):
    """A peer's name, marked if it gives NaN for rows with -inf."""
    return name + " (n)" if name in poisoned else name


def key_of(line):
    return line["call"], line["dtype"], line["vocab"], line["rows"]


def goal(goals, line, mine):
    if key_of(line) not in goals:
        return ""
    value, unit = goals[key_of(line)]
    got = mine / line["floor"] if unit == "x" else mine
    return f"{value:g} {unit}: {'yes' if got <= value else 'no'}"


def summary(lines, goals, poisoned=()):
    """One row per line: the floor, samebits, and the fastest peer."""
    rows = []
    for line in lines:
        mine, spread = line["times"][ours(line)]
        peer, ratio, one = "", "", best(line, ones=True)
        if best(line):
            time = line["times"][best(line)][0]
            peer, ratio = f"{us(time)} {named(best(line), poisoned)}", f"{time / mine:.2f}"
        if one:
            peer += f"; upstream -1 only: {us(line['times'][one][0])} {named(one, poisoned)}"
        same = "equal" if line["unlike"] == 0 else f"**{line['unlike']} differ**"
        rows.append([line["call"], line["dtype"], line["vocab"], line["rows"], us(line["floor"]),
                     us(mine), f"{spread:.1f} %", f"{mine / line['floor']:.3f}",
                     goal(goals, line, mine), peer, ratio, f"{same} ({line['compared']})"])
    return table(["call", "dtype", "V", "N", "floor", OURS, "spread", "time / floor", "goal",
                  "fastest peer", f"peer / {OURS}", "bits as cpu (rows)"], rows)


def names_of(lines):
    names = []
    for line in lines:
        names += [n for n in line["times"] if n not in names]
    return names


def columns(lines, poisoned=()):
    """A table for each dtype and V: a row per program, a column per N."""
    text, groups = [], {}
    for line in lines:
        groups.setdefault((line["dtype"], line["vocab"]), []).append(line)
    for (dtype, vocab), group in groups.items():
        group = sorted(group, key=lambda line: line["rows"])
        rows = [["read floor"] + [us(line["floor"]) for line in group]]
        for name in names_of(group):
            cells = []
            for line in group:
                if name not in line["times"]:
                    cells.append("")
                    continue
                time = line["times"][name][0]
                cells.append(f"{us(time)} ({100 * line['floor'] / time:.0f} %)"
                             + (" **NaN**" if wrong(line, name) else ""))
            rows.append([named(name, poisoned)] + cells)
        text += [f"### {dtype}, V = {vocab}", ""]
        text += table(["us (floor / time)"] + [f"N = {line['rows']}" for line in group], rows)
    return text


def details(line, poisoned=()):
    """All times of one line, the fastest first, with memory and errors."""
    rows = [[f"floor ({line.get('floor is', 'read')})", us(line["floor"]), "", "", "", ""]]
    for name, (time, spread) in sorted(line["times"].items(), key=lambda item: item[1][0]):
        memory, error = line.get("memory", {}).get(name), line.get("errors", {}).get(name)
        rows.append([named(name, poisoned), us(time), f"{spread:.1f} %",
                     f"{100 * line['floor'] / time:.0f} %",
                     "" if memory is None else size(memory),
                     "" if error is None else "**NaN**" if math.isnan(error) else f"{error:.1e}"])
    return ([f"### {line['call']}: {line['dtype']}, V = {line['vocab']}, N = {line['rows']}", ""]
            + table(["", "us", "spread", "floor / time", "memory", "error"], rows))


def plans(lines):
    return table(["call", "dtype", "V", "N", "kernels"],
                 [[line["call"], line["dtype"], line["vocab"], line["rows"], line["plan"]]
                  for line in lines if "plan" in line])


def sustained(key, lines, goals):
    """One (call, dtype, V, N) back to back. lines: name to what clocks.sustained returned."""
    call, dtype, vocab, n = key
    value, _ = goals.get((call + ", sustained", dtype, vocab, n), (None, None))
    mine = lines.get(OURS)
    text = f"{call}: {dtype}, V = {vocab}, N = {n}"
    if value and mine:
        text += f". Goal: {value} us: {'yes' if mine['us'] <= value else 'no'}"
    rows = []
    for name, s in lines.items():
        clocks = [f"{s[k]:.0f}" if k in s else "" for k in ("MHz", "least MHz", "W")]
        capped = {True: "yes", False: "no"}.get(s.get("capped"), "")
        rows.append([name, us(s["first"]), us(s["us"])] + clocks + [capped])
    return [text, ""] + table(
        ["", "first calls, us", "second half, us", "SM MHz", "least", "W", "power limit"], rows)


def poisoned_by(infinite):
    """infinite: kind of rows to name to (rows that are NaN, of how many). The names of peers that
    gave any."""
    return {name for peers in infinite.values() for name, (bad, _) in peers.items() if bad}


def infinities(infinite):
    names = []
    for peers in infinite.values():
        names += [n for n in peers if n not in names]
    return table(["rows that are NaN"] + list(infinite),
                 [[n] + [f"{peers[n][0]} of {peers[n][1]}" if n in peers else ""
                         for peers in infinite.values()] for n in names])


def head(title, meta):
    return [f"# {title}: samebits, {meta['gpu']}, {meta['date']}", ""] + [
        f"- {name}: {text}" for name, text in meta.items() if name not in ("gpu", "date")] + [""]


def notes(lines):
    return ["## Notes", ""] + [f"- {note}" for note in lines] + [""] if lines else []


# ---- from records to pages ----------------------------------------------------------------------

def cells_of(text, column):
    """The rows of the record's tables that have such a column, as dicts."""
    rows, head_of = [], None
    for line in text.splitlines():
        cells = [c.strip() for c in line.strip("|").split("|")] if line.startswith("|") else None
        if cells and column in cells:
            head_of = cells
        elif not cells:
            head_of = None
        elif head_of and set(cells[0]) != {"-"}:
            rows.append(dict(zip(head_of, cells)))
    return rows


def filled(text, records):
    """A page with its marked tables made anew. records: a function of a record's name that gives
    its text."""
    def block(found):
        record, *wanted = found.group(1).split(", ")
        wanted = dict(zip(("call", "dtype", "V"), wanted))
        rows = [r for r in cells_of(records(record), "fastest peer")
                if all(value in ("*", r[key]) for key, value in wanted.items())]
        keys = [k for k in ("call", "dtype", "V") if wanted.get(k, "*") == "*"]
        keys += ["N", OURS, "floor", "fastest peer"]
        names = {"N": "rows", "fastest peer": "fastest peer (us)", OURS: f"{OURS} (us)"}
        lines = table([names.get(k, k) for k in keys], [[r[k] for k in keys] for r in rows])
        return "\n".join([found.group(0).splitlines()[0], ""] + lines + ["<!-- bench: end -->"])
    return re.sub(r"<!-- bench: ([^\n]*\.md[^\n]*) -->\n.*?<!-- bench: end -->", block, text,
                  flags=re.DOTALL)


def ratio(cell, base):
    """The text of a cell's time by that of another cell."""
    if "NaN" in cell or "nan" in cell:
        return "NaN"
    if not cell:
        return ""
    x = float(cell.split()[0]) / float(base.split()[0])
    return f"{x:.2f}" if x < 10 else f"{x:.1f}"


def with_cells(text, records):
    """A page with its tables of programs made anew. records: as for `filled`."""
    def block(found):
        mark, kind, words, old = found.groups()
        record, section, *columns = [" ".join(w.split()) for w in words.split(";")]
        base = columns.pop(0) if kind == "ratios" else None
        _, _, after = records(record).partition(f"# {section}\n")
        rows = {}
        for row in cells_of(after.partition("\n#")[0], columns[0]):
            name = next(iter(row.values()))
            rows[name.removesuffix(" (n)")] = name, row

        def cells(name):
            shown, row = rows[name.removesuffix(" (n)")]
            return [shown] + [row[c] if c == "error" or not base else
                              ratio(row[c], rows[base][1][c]) for c in columns]

        lines = [line for line in old.splitlines() if line.startswith("|")]
        names = [line.strip("|").split("|")[0].strip() for line in lines[2:]]
        head_of = [cell.strip() for cell in lines[0].strip("|").split("|")]
        return "\n".join([mark, ""] + table(head_of, [cells(name) for name in names])
                         + [f"<!-- {kind}: end -->"])
    return re.sub(r"(<!-- (cells|ratios): ([^<>]*\.md;[^<>]*) -->)\n(.*?)<!-- \2: end -->", block,
                  text, flags=re.DOTALL)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing, fail if it would")
    parser.add_argument("pages", nargs="+")
    args = parser.parse_args()

    def record(name):
        folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "results")
        with open(os.path.join(folder, name)) as f:
            return f.read()
    for page in args.pages:
        with open(page) as f:
            text = f.read()
        new = with_cells(filled(text, record), record)
        if args.check and new != text:
            sys.exit(f"{page} is not what its records say: python3 bench/tables.py {page}")
        if new != text:
            with open(page, "w") as f:
                f.write(new)


if __name__ == "__main__":
    main()
