"""The logits that the benches measure with, and the bits that they compare.

A Shape is so many rows of so many logits, normal with sigma 3, in buffers that rotate: at least
twice the size of L2 is touched between two uses of a buffer, so that no call finds logits there.
"""
import math

import torch

import timing

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
BIG, ODD = 151936, 50257 # an aligned vocabulary, and one with unaligned rows
GRAPH_ROWS = 512         # up to here graphs are timed, above it single calls


def unlike(a, b):
    """Counts the rows whose encodings differ."""
    if a.device != b.device:
        a, b = a.cpu(), b.cpu()
    a, b = (t.contiguous().view(torch.uint8).reshape(len(t), -1) for t in (a, b))
    return int((a != b).any(1).sum())


def with_workspace(call, size):
    """Gives a call of samebits a workspace of its own. Calls run one by one in a stream, but in a
    graph each keeps its memory."""
    if size:
        call.use_workspace(torch.empty(size, dtype=torch.uint8, device="cuda"), size)
    return call


class Shape:
    pools = {}

    def __init__(self, dtype, vocab, rows):
        self.key, self.dtype = (dtype, vocab, rows), DTYPES[dtype]
        self.vocab, self.rows = vocab, rows
        self.bytes = rows * vocab * self.dtype.itemsize
        l2 = torch.cuda.get_device_properties(0).L2_cache_size
        # a buffer of many times the size of L2 evicts its own beginning before it is read again
        self.count = 1 if self.bytes >= 8 * l2 else 1 + math.ceil(2 * l2 / self.bytes)
        step = math.ceil(rows * vocab / 128) * 128 # in elements; buffers start at 256 bytes
        pool = self.take(dtype, step * self.count + vocab) # a row more: see row_after
        self.logits = [pool[i * step:i * step + rows * vocab].view(rows, vocab)
                       for i in range(self.count)]
        generator = torch.Generator(device="cuda").manual_seed(rows * 31 + vocab)
        self.ids = [torch.randint(0, vocab, (rows,), device="cuda", generator=generator)
                    for _ in range(self.count)]

    @classmethod
    def take(cls, dtype, elements):
        if dtype not in cls.pools or cls.pools[dtype].numel() < elements:
            cls.drop()
            cls.pools[dtype] = torch.empty(elements, dtype=DTYPES[dtype], device="cuda")
            cls.fill(dtype)
        return cls.pools[dtype]

    @classmethod
    def drop(cls):
        cls.pools.clear()
        torch.cuda.empty_cache()

    @classmethod
    def fill(cls, dtype):
        torch.manual_seed(0)
        for part in cls.pools[dtype].split(1 << 28):
            part.normal_(0, 3)

    def timed(self, calls, graph=True, at_least=64):
        graph = graph and self.rows <= GRAPH_ROWS
        return timing.Graph(calls, at_least) if graph else timing.Events(calls)

    def each(self, call):
        """A call of (logits, ids) for every buffer, as functions without arguments."""
        return [lambda x=x, i=i: call(x, i) for x, i in zip(self.logits, self.ids)]

    def first(self):
        """The first buffer and its ids."""
        return self.logits[0], self.ids[0]

    def some_rows(self, count):
        """Up to count rows, spread over the first buffer."""
        step = max(1, (self.rows - 1) // max(1, count - 1))
        return torch.arange(self.rows - 1, -1, -step, device="cuda")[:count].flip(0)

    def exact(self, rows):
        """The fp64 log softmax of some rows of the first buffer."""
        return torch.log_softmax(self.logits[0][rows].double(), -1)


def row_after(x):
    """The rows of a Shape's buffer as one sequence with a row more behind them, as [1, N + 1, V]:
    what scores the row before the last id expects."""
    return x.as_strided((1, len(x) + 1, x.shape[1]), (x.numel() + x.shape[1], x.shape[1], 1))
