"""The last layer and the logprobs of a trainer as one autograd function, without logits [N, V].

    from samebits_torch import Head
    from fused_head import head_logprobs
    head = Head(weight)                          # once; head.update(weight) after each step
    logprobs = head_logprobs(hidden, weight, ids, head, temperature=0.7)
    loss(logprobs).backward()                    # into hidden and weight

    python3 examples/python/fused_head.py [cpu | cuda]

checks the gradients against PyTorch's own, in fp64.

The forward pass keeps 32 bytes per row. The backward pass goes through the ids in chunks: samebits
computes the gradient by a chunk's logits [N, chunk], in the dtype of hidden, and PyTorch multiplies
it with the chunk's weights and with the hidden states. Logprobs and gradients by logits have the
same bits on every device and for every batch; the two products are PyTorch's own, and have the bits
of its kernels. On a CPU, sb_head_backward computes both in a fixed order instead.
"""
import ctypes
import sys

import torch

from samebits_torch import (DTYPES, IGNORE_INDEX, SAVED_BYTES, Gradient, Head, Launch, Out, check,
                            context, lib, must, stream_of)

CHUNK = 8192  # ids, a multiple of 16


def run(function, device, argument, batch):
    """Calls the library in PyTorch's current stream, with scratch memory of PyTorch's on a GPU."""
    handle, launch = context(device), Launch(stream=stream_of(device))
    arguments = handle, ctypes.byref(argument), ctypes.byref(batch), ctypes.byref(launch)
    if device.type == "cuda":
        needed = ctypes.c_uint64()
        launch.needed = ctypes.addressof(needed)
        must(function(*arguments), handle)
        launch.needed = None
        scratch = torch.empty(max(needed.value, 1), dtype=torch.uint8, device=device)
        launch.workspace, launch.workspace_size = scratch.data_ptr(), needed.value
    must(function(*arguments), handle)


def add_product(to, a, b):
    """to += a @ b, in fp32."""
    if a.dtype == torch.float32:
        to.addmm_(a, b)
    elif a.is_cuda:
        to += torch.mm(a, b, out_dtype=torch.float32)
    else:
        to.addmm_(a.float(), b.float())


class HeadLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, ids, head, temperature, chunk):
        rows = hidden.shape[0]
        token = torch.empty(rows, dtype=torch.float32, device=hidden.device)
        saved = torch.empty(rows * SAVED_BYTES, dtype=torch.uint8, device=hidden.device)
        out = Out(token=token.data_ptr(), saved=saved.data_ptr())
        run(lib.sb_logprob, hidden.device, out, head.batch(hidden, ids, temperature))
        ctx.save_for_backward(hidden, weight, ids, saved)
        ctx.options = head, temperature, chunk
        return token

    @staticmethod
    def backward(ctx, upstream):
        hidden, weight, ids, saved = ctx.saved_tensors
        head, temperature, chunk = ctx.options
        vocab, upstream = weight.shape[0], upstream.float().contiguous()
        batch = head.batch(hidden, ids, temperature)
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        by_hidden = torch.zeros(hidden.shape, dtype=torch.float32, device=hidden.device) \
            if wants_hidden else None
        by_weight = torch.empty_like(weight) if wants_weight else None
        by_logits = torch.empty(hidden.shape[0] * min(chunk, vocab), dtype=hidden.dtype,
                                device=hidden.device)
        for first in range(0, vocab, chunk):
            held = min(chunk, vocab - first)
            grad = by_logits[:hidden.shape[0] * held].view(hidden.shape[0], held)
            gradient = Gradient(dtype=DTYPES[grad.dtype], grad=grad.data_ptr(),
                                saved=saved.data_ptr(), token=upstream.data_ptr(), first=first,
                                held=held)
            run(lib.sb_logprob_backward, hidden.device, gradient, batch)
            if wants_hidden:
                add_product(by_hidden, grad, weight[first:first + held])
            if wants_weight:
                torch.mm(grad.t(), hidden, out=by_weight[first:first + held])
        return (None if by_hidden is None else by_hidden.to(hidden.dtype)), by_weight, None, None, \
            None, None


def head_logprobs(hidden, weight, ids, head, temperature=1.0, chunk=CHUNK):
    """ln p(id) of each row of hidden [.., D], whose logits are hidden @ weight.T, with the
    library's bits. Differentiable with respect to hidden and weight, which have one dtype. head:
    made from weight as it is now. An id of -100 is ignored, and its hidden state not read by
    samebits; it must be finite, because PyTorch multiplies it by 0."""
    if hidden.dtype != weight.dtype or hidden.shape[-1] != weight.shape[1]:
        raise ValueError("hidden %s %s does not fit weight %s %s" % (
            hidden.dtype, tuple(hidden.shape), weight.dtype, tuple(weight.shape)))
    if ids.shape != hidden.shape[:-1] or ids.device != hidden.device:
        raise ValueError("ids %s on %s do not fit hidden %s on %s" % (
            tuple(ids.shape), ids.device, tuple(hidden.shape), hidden.device))
    flat = hidden.reshape(-1, hidden.shape[-1])
    if flat.stride(-1) != 1:
        flat = flat.contiguous()
    token = HeadLogprobs.apply(flat, weight, ids.reshape(-1).contiguous(), head,
                               float(temperature), chunk)
    return token.reshape(ids.shape)


# ---- the check ---------------------------------------------------------------------------------

def largest_error(got, exact):
    """The largest error, in parts of the largest element."""
    return float((got.double() - exact).abs().max() / exact.abs().max())


def gradients(hidden, weight, loss):
    """The derivatives of loss(hidden, weight) by copies of both."""
    hidden, weight = (t.detach().clone().requires_grad_() for t in (hidden, weight))
    value = loss(hidden, weight)
    value.backward()
    return hidden.grad, weight.grad


def compare(device, dtype, rows=96, width=64, vocab=2003, temperature=0.7):
    """Gradients of this file and of PyTorch in the same dtype, each against fp64."""
    torch.manual_seed(1)
    hidden = torch.randn(rows, width).to(device, dtype)
    weight = (torch.randn(vocab, width) * 0.3).to(device, dtype)
    ids = torch.randint(0, vocab, (rows,)).to(device)
    ids[::7] = IGNORE_INDEX
    factors = torch.randn(rows).to(device)
    form = "h24w16" if dtype == torch.bfloat16 else "h24w24"

    def plain(hidden, weight):
        logits = (hidden @ weight.t()) / temperature
        picked = torch.log_softmax(logits if logits.dtype == torch.float64 else logits.float(), -1)
        picked = picked.gather(-1, ids.clamp(min=0)[:, None])[:, 0]
        return (picked * factors * (ids != IGNORE_INDEX)).sum()

    def fused(hidden, weight, chunk=512):
        head = Head(weight.detach(), format=form)
        return (head_logprobs(hidden, weight, ids, head, temperature, chunk) * factors).sum()

    exact = gradients(hidden.double(), weight.double(), plain)
    ours = gradients(hidden, weight, fused)
    theirs = gradients(hidden, weight, plain)
    # bf16 operands and results have 8 bits: the gradient by logits is rounded once, and so are both
    # results. An fp32 product of fp32 numbers adds up at most a few hundred roundings.
    bound = 2 ** -7 if dtype == torch.bfloat16 else 2 ** -17
    for name, got, other, true in zip(("hidden", "weight"), ours, theirs, exact):
        error, its = largest_error(got, true), largest_error(other, true)
        print("%-4s %-8s by %s: error %.1e of the largest, PyTorch's %.1e, bound %.1e" % (
            device, str(dtype).split(".")[1], name, error, its, bound))
        assert error <= bound, "the gradient by %s is off by %g" % (name, error)
    whole = gradients(hidden, weight, lambda h, w: fused(h, w, vocab // 16 * 16 + 16))
    for one, other in zip(ours, whole):
        assert largest_error(one, other.double()) <= bound, "chunks disagree"


def main(device):
    compare(device, torch.float32)
    compare(device, torch.bfloat16)
    if device != "cpu":
        check(torch.device(device))
    print("the gradients by hidden states and weights are those of PyTorch, within their bounds")


if __name__ == "__main__":
    torch.set_num_threads(2)
    torch.backends.cuda.matmul.allow_tf32 = False
    main(sys.argv[1] if len(sys.argv) > 1 else "cpu")
