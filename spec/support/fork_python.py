"""Contexts in forked children, by os.fork or multiprocessing, as the argument says; prints "fine".
A child that hangs is killed, and counts as one that failed."""
import array
import multiprocessing
import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "..", "bench"))
from samebits_ctypes import Context  # noqa: E402

ROWS, VOCAB = 16, 20000  # enough for threads to be woken


class Array:
    """As much of a tensor as samebits_ctypes asks for."""

    def __init__(self, dtype, values):
        self.dtype = dtype
        self.values = array.array({"float32": "f", "int32": "i"}[dtype], values)

    def data_ptr(self):
        return self.values.buffer_info()[0]


logits = Array("float32", ((i * 7919 % 4001 - 2000) / 256 for i in range(ROWS * VOCAB)))
ids = Array("int32", range(ROWS))


def score(ctx):
    token = Array("float32", [0] * ROWS)
    ctx.logprob(logits, ids, token=token, shape=(ROWS, VOCAB))
    return token.values.tobytes()


def live(ctx, wanted):
    signal.alarm(60)
    assert score(ctx) == wanted
    own = Context("cpu", threads=3)
    assert score(own) == wanted
    own.close()
    ctx.close()


def forked(ctx, wanted):
    child = os.fork()
    if child == 0:
        live(ctx, wanted)
        sys.exit(0)
    return os.waitpid(child, 0)[1]


def processed(ctx, wanted):
    child = multiprocessing.get_context("fork").Process(target=live, args=(ctx, wanted))
    child.start()
    child.join()
    return child.exitcode


run = {"os.fork": forked, "multiprocessing": processed}[sys.argv[1]]
for threads in (1, 4):
    ctx = Context("cpu", threads=threads)
    wanted = score(ctx)
    for _ in range(2):
        status = run(ctx, wanted)
        assert status == 0, f"{threads} threads: the child ended with {status}"
    assert score(ctx) == wanted
    ctx.close()
print("fine")
