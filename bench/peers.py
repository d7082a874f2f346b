"""Other programs that compute what samebits computes: the strongest there are, each optional.

What can be imported or loaded here is measured; what cannot is named in the record with the reason
(`missing`). Peers come from where Python finds them, and from a folder (--peers) for what is not
installed: packages in it, for which the folder is put on the path, and compiled libraries:

    liger_kernel/, flash_attn/ops/triton/cross_entropy.py       Liger, flash-attn (Triton)
    rl_kernel/batch_invariant_logp.py                           RL-Kernel in Triton
    rl_kernel/rl_kernel.so, rl_kernel/rl_kernel_fast.so         its operator deterministic, in the
                                                                namespace of the library's name
    quack/ce_<kind>_<dtype>_<V>.so                              quack's kernels, which its own
                                                                compile functions exported; tvm_ffi
                                                                loads them without CuTe DSL
    VERSIONS                                                    lines of a peer's name, a colon and
                                                                what was taken
Every peer is called as its users call it and allocates its results, unless its note says otherwise.
"""
import collections
import importlib
import importlib.metadata
import os
import sys

import torch
import torch.nn.functional as F

from shapes import row_after

DTYPES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}

# Logprobs: call(logits [N, V], ids [N]) gives the token logprobs [N].
# fits(dtype, vocab) tells whether the peer takes such logits.
Forward = collections.namedtuple("Forward", "name call note fits")

# Gradients: call(logits, ids, upstream [N]) gives the gradient of sum(upstream * logprob), and
# alone(logits, ids, upstream) gives a function that computes just that, after a forward call.
# ones: it takes no upstream gradient, the result is that of upstream -1 (a cross entropy's).
# in_place: it overwrites the logits.
# logprob(logits, ids) gives the differentiable token logprobs, or is None.
Gradient = collections.namedtuple("Gradient", "name call alone note ones in_place logprob")


def every(*_):
    return True


# ---- PyTorch ------------------------------------------------------------------------------------

def log_softmax_gather(x, ids):
    return torch.log_softmax(x.float(), -1).gather(-1, ids[:, None])[:, 0]


def gather_logsumexp(x, ids):
    y = x.float()
    return y.gather(-1, ids[:, None])[:, 0] - y.logsumexp(-1)


def cross_entropy(x, ids):
    return -F.cross_entropy(x, ids, reduction="none")


def entropy_and_logprob(x, ids):
    y = x.float()
    lse = y.logsumexp(-1)
    return (y.gather(-1, ids[:, None])[:, 0] - lse,
            lse - (torch.exp(y - lse[:, None]) * y).sum(-1))


def entropy_by_chunks(x, ids, rows=128):
    """The same of a few rows at a time, to save memory."""
    parts = [entropy_and_logprob(a, b) for a, b in zip(x.split(rows), ids.split(rows))]
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])


def divergence(p, q):
    lp, lq = torch.log_softmax(p.float(), -1), torch.log_softmax(q.float(), -1)
    return (lp.exp() * (lp - lq)).sum(-1)


def kl_div(p, q):
    return F.kl_div(torch.log_softmax(q.float(), -1), torch.log_softmax(p.float(), -1),
                    reduction="none", log_target=True).sum(-1)


def topk_logsumexp(x, k):
    top = x.topk(k, -1)
    return top.indices, top.values.float() - x.float().logsumexp(-1, keepdim=True)


def clipped_loss(x, ids, old, advantages, token=log_softmax_gather):
    """The clipped policy loss, averaged over tokens."""
    ratio = torch.exp(token(x, ids) - old)
    return -torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages).mean()


def gradient_of(loss):
    """The gradient by the logits of a loss of (logits, ids, ...), and the loss."""
    def call(x, ids, *given):
        y = x.detach().requires_grad_()
        total = loss(y, ids, *given)
        return torch.autograd.grad(total, y)[0], total.detach()
    return call


def compiled(function, mode="max-autotune-no-cudagraphs"):
    """torch.compile for fixed shapes. That mode tries many kernels: 5 s for one reduction, more
    than 15 s for those of an entropy."""
    torch._dynamo.reset()
    return torch.compile(function, dynamic=False, mode=mode)


def through_autograd(logprob):
    """call, alone and logprob of a Gradient, from a differentiable function of (logits, ids)."""
    def call(x, ids, upstream):
        y = x.detach().requires_grad_()
        token = logprob(y, ids)
        return torch.autograd.grad(token, y, upstream.to(token.dtype))[0]

    def alone(x, ids, upstream):
        y = x.detach().requires_grad_()
        token = logprob(y, ids)
        upstream = upstream.to(token.dtype)
        return lambda: torch.autograd.grad(token, y, upstream, retain_graph=True)[0]
    return call, alone, logprob


# ---- all of them --------------------------------------------------------------------------------

class Folder:
    """A folder with peers, and what is known of those that are tried: their versions, and why one
    is missing."""

    def __init__(self, folder=None):
        self.folder = folder and os.path.abspath(folder)
        if self.folder:
            sys.path.insert(0, self.folder)
        self.versions, self.missing, self.told = {}, {}, self.read_versions()

    def load(self, name, how):
        """A peer that fails to load, for whatever reason, is left out and said to be missing."""
        try:
            how()
        except Exception as why:
            said = str(why).splitlines()[0][:120] if str(why) else ""
            self.missing[name] = f"{type(why).__name__}: {said}"

    def file(self, *names):
        path = os.path.join(self.folder or "", *names)
        if not self.folder or not os.path.exists(path):
            raise FileNotFoundError(f"no {os.path.join(*names)} in the folder of peers")
        return path

    def read_versions(self):
        try:
            with open(self.file("VERSIONS")) as f:
                return dict(line.strip().split(": ", 1) for line in f if ": " in line)
        except FileNotFoundError:
            return {}

    def version(self, name, package=None):
        """Notes what is measured under a name: what VERSIONS says, or a package's version."""
        try:
            self.versions[name] = self.told.get(name) or importlib.metadata.version(package or name)
        except importlib.metadata.PackageNotFoundError:
            self.versions[name] = "of unknown version"


class Peers(Folder):
    def __init__(self, folder=None):
        super().__init__(folder)
        self.forward, self.gradient, self.top = [], [], []
        self.pytorch()
        for name, load in (("Liger", self.liger), ("flash-attn", self.flash_attn),
                           ("quack", self.quack), ("RL-Kernel Triton", self.rl_kernel_triton)):
            self.load(name, load)
        for name in ("rl_kernel", "rl_kernel_fast"):
            self.load(name, lambda: self.rl_kernel(name))

    def logprobs(self, name, call, note="", fits=every):
        self.forward.append(Forward(name, call, note, fits))

    def gradients(self, name, call, alone=None, logprob=None, note="", ones=False,
                  in_place=False):
        self.gradient.append(Gradient(name, call, alone, note, ones, in_place, logprob))

    def pytorch(self):
        self.versions["PyTorch"] = torch.__version__
        self.logprobs("PyTorch log_softmax", log_softmax_gather, "of logits.float(), and gather")
        self.logprobs("PyTorch cross_entropy", cross_entropy, "results in the logits' dtype")
        self.gradients("PyTorch cross_entropy", *through_autograd(cross_entropy))
        self.top.append(("PyTorch topk, logsumexp", topk_logsumexp))

    def liger(self):
        # Not through liger_kernel.transformers, whose import takes in all of transformers.
        ops = importlib.import_module("liger_kernel.ops.grpo_loss")
        loss = importlib.import_module("liger_kernel.ops.cross_entropy").LigerCrossEntropyFunction
        self.version("Liger", "liger_kernel")

        def selective(x, ids):
            return ops.fused_selective_log_softmax(row_after(x), ids[None], 1.0)[0]

        def overwriting(x, ids, _):
            y = x.detach().requires_grad_()
            total = loss.apply(y, ids, None, -100, 0.0, 0.0, "sum", None, False)[0]
            return torch.autograd.grad(total, y)[0]

        def top(x, k):
            """PyTorch's first k; their logsumexp from the fastest kernel for a selected logprob."""
            if k == 1:
                values, ids = x.max(-1, keepdim=True)
            else:
                values, ids = x.topk(k, -1)
            lse = values[:, 0].float() - selective(x, ids[:, 0].contiguous())
            return ids, values.float() - lse[:, None]
        self.logprobs("Liger selective", selective, "fused_selective_log_softmax, temperature 1")
        self.gradients("Liger cross entropy", overwriting, ones=True, in_place=True,
                       note="the loss's sum; it overwrites the logits")
        self.top.append(("PyTorch topk (max if k is 1), Liger selective", top))

    def flash_attn(self):
        name = "flash_attn.ops.triton.cross_entropy"
        loss = importlib.import_module(name).cross_entropy_loss
        self.version("flash-attn", "flash_attn")

        def logprob(x, ids):
            return -loss(x, ids)[0]

        def overwriting(x, ids, upstream):
            y = x.detach().requires_grad_()
            return torch.autograd.grad(-loss(y, ids, inplace_backward=True)[0], y, upstream)[0]
        self.logprobs("flash-attn CE", logprob)
        self.gradients("flash-attn CE", *through_autograd(logprob))
        self.gradients("flash-attn CE in place", overwriting, in_place=True)

    def rl_kernel_triton(self):
        name = "rl_kernel.batch_invariant_logp"
        call = importlib.import_module(name).TritonBatchInvariantLogpOp()
        self.version("RL-Kernel Triton")
        self.logprobs("RL-Kernel Triton", call)
        self.gradients("RL-Kernel Triton", *through_autograd(call))

    def rl_kernel(self, library):
        torch.ops.load_library(self.file("rl_kernel", library + ".so"))
        call = getattr(torch.ops, library).deterministic
        fast = ", fast math" if library.endswith("fast") else ""
        self.version("RL-Kernel deterministic" + fast)
        self.logprobs("RL-Kernel deterministic" + fast, call,
                      "built with --use_fast_math" if fast else "")

    def quack(self):
        loader = importlib.import_module("tvm_ffi")
        folder = self.file("quack")
        kernels = {name[:-3]: loader.load_module(os.path.join(folder, name))["func"]
                   for name in sorted(os.listdir(folder)) if name.endswith(".so")}
        self.version("quack")

        def kernel(kind, x):
            return kernels[f"ce_{kind}_{DTYPES[x.dtype]}_{x.shape[1]}"]

        def forward(kind):
            def call(x, ids):
                loss = torch.empty(len(x), device=x.device)
                kernel(kind, x)(x, ids, None, loss, None, None, None, -100)
                return -loss
            return call

        def fits(kind):
            return lambda dtype, vocab: f"ce_{kind}_{dtype}_{vocab}" in kernels

        def with_lse(x, ids):
            loss, lse = torch.empty(len(x), device=x.device), torch.empty(len(x), device=x.device)
            kernel("lse2", x)(x, ids, None, loss, lse, None, None, -100)
            return lse

        def both(x, ids, upstream):
            grad = torch.empty_like(x)
            kernel("bwd", x)(x, ids, -upstream, grad, with_lse(x, ids), None, -100)
            return grad

        def alone(x, ids, upstream):
            lse, grad, by_loss = with_lse(x, ids), torch.empty_like(x), -upstream
            return lambda: kernel("bwd", x)(x, ids, by_loss, grad, lse, None, -100)

        def fused(in_place):
            def call(x, ids, _):
                loss = torch.empty(len(x), device=x.device)
                grad = x if in_place else torch.empty_like(x)
                kernel("dx", x)(x, ids, None, loss, None, grad, None, -100)
                return grad
            return call
        self.logprobs("quack CE", forward("fwd"), "as it ships", fits("fwd"))
        self.logprobs("quack CE, two passes", forward("fwd2"),
                      "compiled with its option online_softmax=False", fits("fwd2"))
        self.gradients("quack CE, two passes", both, alone)
        self.gradients("quack CE fused", fused(False), ones=True, note="one kernel")
        self.gradients("quack CE fused, in place", fused(True), ones=True, in_place=True,
                       note="one kernel")
