"""Checks of examples/python/samebits_torch.py; prints "fine"."""
import os
import sys

import torch

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "examples",
                                "python"))
import samebits_torch as sb    # noqa: E402


def same(a, b):
    return torch.equal(a.contiguous().view(torch.int32), b.contiguous().view(torch.int32))


def refused(kind, words, *arguments):
    try:
        sb.selected_logprobs(*arguments)
    except kind as error:
        assert words in str(error), error
        return
    raise AssertionError("not refused: %s" % words)


torch.set_num_threads(1)
torch.manual_seed(2)
full = torch.randn(3, 5, 64).to(torch.float16)
ids = torch.randint(0, 64, (3, 5))
want = sb.selected_logprobs(full, ids)
assert want.shape == (3, 5) and want.dtype == torch.float32

# Containers, integer types, strides and shapes.
assert same(want, sb.selected_logprobs(full.float(), ids))
assert same(want, sb.selected_logprobs(full, ids.int()))
wide = torch.zeros(3, 5, 80, dtype=torch.float16)
wide[..., :64] = full
assert same(want, sb.selected_logprobs(wide[..., :64], ids))
assert same(want, sb.selected_logprobs(full.transpose(0, 1), ids.t()).t())
assert same(want[1, 2], sb.selected_logprobs(full[1, 2], ids[1, 2]))
assert sb.selected_logprobs(full[:0], ids[:0]).shape == (0, 5)

# Ignored rows: 0, no gradient, NaN or not.
bad = full.float()
bad[0, 1] = float("nan")
bad.requires_grad_()
some = ids.clone()
some[0, 1] = sb.IGNORE_INDEX
out = sb.selected_logprobs(bad, some, 0.5)
weights = torch.randn(3, 5)
(out * weights).sum().backward()
assert float(out[0, 1].detach()) == 0 and bool((bad.grad[0, 1] == 0).all())

# The gradient is PyTorch's, to fp32.
double = bad.detach().double().requires_grad_()
reference = torch.log_softmax(double / 0.5, -1).gather(-1, some.clamp(min=0).unsqueeze(-1))
kept = torch.ones(3, 5, dtype=torch.bool)
kept[0, 1] = False
(reference.squeeze(-1)[kept] * weights[kept]).sum().backward()
torch.testing.assert_close(bad.grad[kept], double.grad[kept].float(), rtol=2e-6, atol=1e-6)
torch.testing.assert_close(out[kept].detach(), reference.squeeze(-1)[kept].float().detach(),
                           rtol=1e-6, atol=1e-6)
half = full.clone().requires_grad_()
sb.selected_logprobs(half, ids).sum().backward()
assert half.grad.dtype == torch.float16 and half.grad.shape == full.shape

refused(TypeError, "float64", full.double(), ids)
refused(TypeError, "not int32 or int64", full, ids.short())
refused(ValueError, "do not fit", full, ids[0])
refused(RuntimeError, "id 64 is outside", full, ids * 0 + 64)
refused(RuntimeError, "temperature", full, ids, 0.0)
sb.check(full.device)
print("fine")
