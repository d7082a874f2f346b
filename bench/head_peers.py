"""Peers of bench/gpu_head.py: other programs that give logprobs from hidden states.

From the folder of --peers, each optional (peers.py tells how):

    liger_kernel/               Liger
    cut_cross_entropy/          CCE, Apple's ml-cross-entropy
    vllm/                       vLLM's model_executor/determinism/batch_invariant.py
    batch_invariant_ops/        that of thinking-machines-lab
    rl_engine/                  RL-Kernel, with its linear_logp for Triton and for SM90
    quack/                      what quack's own functions compile for sm_90a: lse_target_bf16.so, a
                                product whose epilogue leaves logsumexps, and its cross entropy,
                                ce_fwd_bf16_V.so; tvm_ffi loads them without CuTe DSL
    VERSIONS

Only calls that return without asking the GPU for anything may be captured: the others look at the
ids, or launch outside the current stream.
"""
import glob
import importlib
import os

import torch

from head_baselines import Peer, always
from peers import Folder

QUACK_TILE = 192  # columns of a logsumexp, in quack's default configuration
QUACK_CHUNK = 4096  # rows


def liger_selective(_):
    selective = importlib.import_module("liger_kernel.ops.grpo_loss").fused_selective_log_softmax

    def call(h, w, ids):
        # It takes logits with one more row, which it skips.
        logits = torch.empty((1, len(h) + 1, len(w)), dtype=h.dtype, device=h.device)
        torch.mm(h, w.t(), out=logits[0, :-1])
        return selective(logits, ids[None], 1.0)[0]
    return Peer(call, always, True)


def liger_linear(_):
    name = "liger_kernel.ops.fused_linear_cross_entropy"
    loss = importlib.import_module(name).LigerFusedLinearCrossEntropyFunction
    return Peer(lambda h, w, ids: -loss.apply(h, w, ids, None, None, -100, 0.0, 0.0, "none")[0],
                always, False)


def quack_kernels(folder):
    loader = importlib.import_module("tvm_ffi")
    paths = sorted(glob.glob(os.path.join(folder.file("quack"), "*.so")))
    return {os.path.basename(p)[:-3]: loader.load_module(p)["func"] for p in paths}


def quack_fused(folder):
    """What chunked_linear_cross_entropy does without gradients, before it adds up the losses."""
    kernel = quack_kernels(folder)["lse_target_bf16"]

    def call(h, w, ids):
        lse = torch.empty((len(h), -(-len(w) // QUACK_TILE)), device=h.device)
        target = torch.empty(len(h), device=h.device)
        # quack asks CuTe DSL how many clusters of 2 run at once: on Hopper one per pair of SMs.
        clusters = torch.cuda.get_device_properties(h.device).multi_processor_count // 2
        kernel(h, w.t(), None, None, (lse, target, ids, None, None),
               (clusters, None, 8, None, None, None), None, None, None)
        return -torch.where(ids != -100, torch.logsumexp(lse, dim=-1) - target, 0.0)
    return Peer(call, lambda h, w: h.shape[1] % 8 == 0, True)


def quack_chunked(folder):
    """What it does with use_scaled_exp=False: products, then quack's cross entropy, in chunks."""
    kernels = quack_kernels(folder)

    def call(h, w, ids):
        loss = torch.empty(len(h), device=h.device)
        logits = torch.empty((min(QUACK_CHUNK, len(h)), len(w)), dtype=h.dtype, device=h.device)
        kernel = kernels[f"ce_fwd_bf16_{len(w)}"]
        for x, target, part in zip(*(t.split(QUACK_CHUNK) for t in (h, ids, loss))):
            y = logits[:len(x)]
            torch.mm(x, w.mT, out=y)
            kernel(y, target, None, part, None, None, None, -100)
        return -loss
    return Peer(call, lambda h, w: len(h) % 8 == 0 and f"ce_fwd_bf16_{len(w)}" in kernels, True)


def cce(_):
    loss = importlib.import_module("cut_cross_entropy").linear_cross_entropy
    return Peer(lambda h, w, ids: -loss(h, w, ids, reduction="none"), always, False)


def vllm(_):
    its = importlib.import_module("vllm.model_executor.determinism.batch_invariant")
    return Peer(lambda h, w, ids: its.log_softmax(its.linear_batch_invariant(h, w).float())
                .gather(-1, ids[:, None])[:, 0], always, True)


def thinking_machines(_):
    its = importlib.import_module("batch_invariant_ops")
    return Peer(lambda h, w, ids: its.log_softmax(its.matmul_persistent(h, w.t()).float())
                .gather(-1, ids[:, None])[:, 0], always, True)


def rl_kernel_triton(_):
    name = "rl_engine.kernels.ops.triton.loss.linear_logp"
    return Peer(importlib.import_module(name).TritonLinearLogpOp(), always, False)


def rl_kernel_sm90(_):
    name = "rl_engine.kernels.ops.cuda.loss.linear_logp"
    return Peer(importlib.import_module(name).FusedLinearLogpSM90Op(),
                lambda h, w: h.shape[1] % 32 == 0, False)


# The name in tables, the name in VERSIONS with that of the package, and how it is made.
PEERS = [("PyTorch bf16, Liger selective", "Liger", "liger-kernel", liger_selective),
         ("quack linear CE, fused", "quack", "quack-kernels", quack_fused),
         ("quack linear CE, chunked", "quack", "quack-kernels", quack_chunked),
         ("CCE", "CCE", "cut-cross-entropy", cce),
         ("Liger fused linear CE", "Liger", "liger-kernel", liger_linear),
         ("vLLM batch-invariant Triton", "vLLM", "vllm", vllm),
         ("batch_invariant_ops Triton", "batch_invariant_ops", None, thinking_machines),
         ("RL-Kernel linear_logp Triton", "RL-Kernel linear_logp Triton", None, rl_kernel_triton),
         ("RL-Kernel linear_logp SM90", "RL-Kernel linear_logp SM90", None, rl_kernel_sm90)]


class HeadPeers(Folder):
    def __init__(self, folder=None):
        super().__init__(folder)
        self.peers = {}
        for name, told, package, make in PEERS:
            self.load(name, lambda: self.add(name, told, package, make))

    def add(self, name, told, package, make):
        self.peers[name] = make(self)
        self.version(told, package)
