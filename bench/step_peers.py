"""Peers of bench/gpu_step.py: other programs that draw tokens and compute policy losses.

From the folder of --peers, each optional (peers.py tells how):

    flashinfer_sampling.so      FlashInfer's sampling kernels behind a C interface: fi_softmax,
                                fi_from_logits, fi_from_probs, fi_top_k, fi_top_p, fi_min_p,
                                fi_top_k_top_p
    vllm_topk_topp.py           vLLM's filter in Triton, with apply_top_k_top_p_triton
    VERSIONS
"""
import collections
import ctypes
import importlib

import torch

import timing
from peers import Folder, compiled

# Draws: call(logits [N, V], how) gives tokens [N]; how: top_k, top_p, min_p. fits(how) tells
# whether the peer has such filters. wide: it takes fp32 logits. in_place: it overwrites them. slow:
# not for many rows. compiles: it compiles for seconds.
Draw = collections.namedtuple("Draw", "name call fits wide in_place slow compiles note")

# Losses: call(buffers, case) gives the gradient by now; fits(name) tells whether it has that case
# of gpu_step.POLICIES.
Loss = collections.namedtuple("Loss", "name call fits compiles note")


def exponential_argmax(x):
    """As vLLM draws: the largest of p / an exponential variate."""
    p = torch.softmax(x, -1, dtype=torch.float32)
    return p.div_(torch.empty_like(p).exponential_()).argmax(-1)


def multinomial(x, _):
    return torch.multinomial(torch.softmax(x, -1, dtype=torch.float32), 1)


def sorted_filters(x, how):
    """Filters as in Hugging Face and in vLLM without Triton: by sorting."""
    x, order = x.float().sort(-1)
    if "top_k" in how:
        at = x[:, -how["top_k"]].unsqueeze(-1)
        x = x.masked_fill(x < at, float("-inf"))
    if "top_p" in how:
        below = torch.softmax(x, -1).cumsum(-1) <= 1 - how["top_p"]
        below[:, -1] = False
        x = x.masked_fill(below, float("-inf"))
    x = torch.empty_like(x).scatter_(-1, order, x)
    return exponential_argmax(x)


def min_p(x, how):
    p = torch.softmax(x, -1, dtype=torch.float32)
    x = x.float().masked_fill(p < how["min_p"] * p.amax(-1, keepdim=True), float("-inf"))
    return exponential_argmax(x)


def policy_loss(now, old, ref, mask, advantages, beta):
    """The clipped loss of trainers, a mean over tokens."""
    ratio = torch.exp(now - old)
    a = advantages[:, None]
    loss = -torch.min(ratio * a, ratio.clamp(0.8, 1.2) * a)
    if ref is not None:
        d = ref - now
        loss = loss + beta * (torch.exp(d) - d - 1)
    return (loss * mask).sum() / mask.sum()


class FlashInfer:
    """The kernels behind a C interface. Each call makes a row's probabilities first."""

    def __init__(self, path):
        self.kernels = ctypes.CDLL(path)
        self.work = torch.empty(1 << 20, dtype=torch.uint8, device="cuda")
        self.room, self.offset = {}, 0

    def buffers(self, x):
        if x.shape not in self.room:
            self.room.clear()
            self.room[x.shape] = (torch.empty_like(x),
                                  torch.empty(len(x), dtype=torch.int32, device="cuda"),
                                  torch.empty(len(x), dtype=torch.bool, device="cuda"))
        return self.room[x.shape]

    def must(self, error):
        if error:
            raise RuntimeError(f"FlashInfer: CUDA error {error}")

    def seeds(self):
        self.offset += 32
        return ctypes.c_uint64(7), ctypes.c_uint64(self.offset), ctypes.c_void_p(timing.stream())

    def from_logits(self, x, _):
        _, token, _ = self.buffers(x)
        self.must(self.kernels.fi_from_logits(
            ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(token.data_ptr()), len(x), x.shape[1],
            *self.seeds()))
        return token

    def from_probs(self, x, how):
        p, token, valid = self.buffers(x)
        rows, vocab = x.shape
        self.must(self.kernels.fi_softmax(
            ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(p.data_ptr()), rows, vocab,
            ctypes.c_void_p(self.work.data_ptr()), ctypes.c_size_t(self.work.numel()),
            ctypes.c_void_p(timing.stream())))
        kernel = "fi_" + ("_".join(how) or "from_probs")
        options = [ctypes.c_float(v) if isinstance(v, float) else v for v in how.values()]
        self.must(getattr(self.kernels, kernel)(
            ctypes.c_void_p(p.data_ptr()), ctypes.c_void_p(token.data_ptr()),
            ctypes.c_void_p(valid.data_ptr()), rows, vocab, *options, *self.seeds()))
        return token


class StepPeers(Folder):
    def __init__(self, folder, wanted):
        super().__init__(folder)
        self.draws, self.policies = [], []
        if not wanted:
            return
        self.pytorch()
        self.load("FlashInfer", self.flashinfer)
        self.load("vLLM", self.vllm)

    def draw(self, name, call, fits, wide=False, in_place=False, slow=False, compiles=False,
             note=""):
        self.draws.append(Draw(name, call, fits, wide, in_place, slow, compiles, note))

    def pytorch(self):
        self.versions["PyTorch"] = torch.__version__
        self.draw("PyTorch softmax, multinomial", multinomial, lambda how: not how)
        self.draw("PyTorch softmax, exponential argmax", lambda x, _: exponential_argmax(x),
                  lambda how: not how)
        made = []

        def draw_compiled(x, _):
            if not made or made[0] != x.shape:
                made[:] = [x.shape, compiled(exponential_argmax, "default")]
            return made[1](x)
        self.draw("torch.compile", draw_compiled, lambda how: not how, compiles=True)
        self.draw("PyTorch sort", sorted_filters, lambda how: how and "min_p" not in how, slow=True)
        self.draw("PyTorch min-p", min_p, lambda how: "min_p" in how)

        def gradient(loss):
            def call(b, case):
                with torch.enable_grad():
                    now = b["now"].detach().requires_grad_()
                    total = loss(now, b["old"], b["ref"] if "ref" in case[1] else None, b["mask"],
                                 b["advantages"], case[0].get("beta", 0.0))
                    return torch.autograd.grad(total, now)[0]
            return call

        def plain(name):
            return name in ("PPO loss", "GRPO loss, KL")
        self.policies.append(Loss("PyTorch", gradient(policy_loss), plain, False, ""))
        self.policies.append(Loss("torch.compile", gradient(compiled(policy_loss, "default")),
                                  plain, True, ""))

    def flashinfer(self):
        its = FlashInfer(self.file("flashinfer_sampling.so"))
        self.version("FlashInfer")
        self.draw("FlashInfer from logits", its.from_logits, lambda how: not how, wide=True,
                  note="fp32 logits, deterministic")
        self.draw("FlashInfer softmax, sampling", its.from_probs, lambda how: True, wide=True,
                  note="fp32 logits, deterministic")

    def vllm(self):
        self.file("vllm_topk_topp.py")
        filters = importlib.import_module("vllm_topk_topp").apply_top_k_top_p_triton
        self.version("vLLM")
        columns = {}

        def column(rows, value, dtype):
            if (rows, value) not in columns:
                columns[rows, value] = torch.full((rows,), value, dtype=dtype, device="cuda")
            return columns[rows, value]

        def call(x, how):
            k = column(len(x), how["top_k"], torch.int32) if "top_k" in how else None
            p = column(len(x), how["top_p"], torch.float32) if "top_p" in how else None
            return exponential_argmax(filters(x, k, p))
        self.draw("vLLM Triton filter, exponential argmax", call,
                  lambda how: how and "min_p" not in how, wide=True, in_place=True,
                  note="fp32 logits")
