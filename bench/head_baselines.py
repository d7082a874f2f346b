"""Logprobs from hidden states by PyTorch alone: product, log_softmax and gather, in several
precisions, and compiled. A part of gpu_head.py.

call(hidden, weights, ids), both matrices bf16, gives the logprobs; fits tells whether the peer
takes them; graph: whether its calls may be captured.
"""
import collections

import torch

Peer = collections.namedtuple("Peer", "call fits graph")


def picked(logits, ids):
    return torch.log_softmax(logits, -1).gather(-1, ids[:, None])[:, 0]


def bf16(h, w, ids):
    return picked((h @ w.t()).float(), ids)


def fp32_logits(h, w, ids):
    return picked(torch.mm(h, w.t(), out_dtype=torch.float32), ids)


class Wide:
    """The product in fp32, or in TF32, of weights that are converted once."""

    def __init__(self, tf32):
        self.tf32, self.of, self.wide = tf32, None, None

    def __call__(self, h, w, ids):
        if self.of is not w:
            self.of, self.wide = w, w.float()
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = self.tf32
        try:
            return picked(h.float() @ self.wide.t(), ids)
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before


def always(*_):
    return True


def peers():
    compiled = torch.compile(bf16, dynamic=False)
    torch._dynamo.config.recompile_limit = 64 # it is compiled for every shape
    return {"PyTorch bf16": Peer(bf16, always, True),
            "PyTorch bf16, fp32 logits": Peer(fp32_logits, always, True),
            "PyTorch bf16, torch.compile": Peer(compiled, always, True),
            "PyTorch TF32": Peer(Wide(True), always, True),
            "PyTorch fp32": Peer(Wide(False), always, True)}
