"""Policy losses by plain PyTorch, as TRL's GRPOTrainer and verl's core_algos write them: the child
process of spec/tolerance/policy_torch_spec.lua.

    python3 torch_policy.py JOBS RESULTS

JOBS holds, one after the other: a line "LOSS NORM KL WEIGHT LEVEL BETA ETA EPS_LOW EPS_HIGH DUAL
W_LOW W_HIGH CONSTANT B T"; six arrays of fp32 [B, T] (new, old, ref, rollout, entropy, advantages);
the mask, uint8 [B, T]. RESULTS receives, in fp64: the scalar; its gradients by new and by entropy,
by autograd; a bound of the error of the first gradient but for its factor, [B, T]; 1 where a ratio
or a weight is within 1e-6 of one of its bounds, [B, T]; the mean that bounds the scalar's error.
"""
import math
import sys

import torch


def read(stream, dtype, shape):
    size = shape[0] * shape[1] * torch.empty(0, dtype=dtype).element_size()
    data = bytearray(stream.read(size))
    if len(data) != size:
        raise SystemExit("torch_policy.py: %d bytes instead of %d" % (len(data), size))
    return torch.frombuffer(data, dtype=dtype).view(shape)


def term(loss, ratio, advantage, new, low, high, dual):
    """The term that advantages enter; TRL's and verl's forms must agree."""
    if loss == "reinforce":
        return -advantage * new
    if loss == "cispo":                         # verl: compute_policy_loss_cispo
        return -ratio.clamp(low, high).detach() * advantage * new
    # verl: compute_policy_loss_vanilla
    first, second = -advantage * ratio, -advantage * ratio.clamp(low, high)
    clipped = torch.maximum(first, second)
    verl = torch.where(advantage < 0, torch.min(-advantage * dual, clipped), clipped)
    # TRL: _compute_loss with delta
    trl = -torch.min(ratio.clamp(max=dual) * advantage, ratio.clamp(low, high) * advantage)
    assert torch.equal(verl, trl), "TRL and verl differ"
    return verl


def divergence(kind, new, ref):
    """verl: kl_penalty; those with + take the gradient of k2."""
    d = ref - new
    kl = {"k1": -d, "k2": d * d / 2, "k3": torch.exp(d) - d - 1}[kind[:2]]
    if not kind.endswith("+"):
        return kl
    second = d * d / 2
    return second - second.detach() + kl.detach()


def reduced(norm, l, mask, constant):
    """TRL: loss_type; verl: agg_loss."""
    l = torch.where(mask, l, 0.0)
    n = mask.sum(-1)
    some = n > 0
    if norm == "token-mean":
        return l.sum() / n.sum()
    if norm == "constant":
        return l.sum() / constant
    per = l.sum(-1)
    if norm == "sequence-mean":
        per = per / n.clamp(min=1)
    return per[some].sum() / some.sum()


def near(x, *bounds):
    return sum(((x / b - 1).abs() < 1e-6) for b in bounds if 0 < b < math.inf) > 0


def job(line, stream):
    loss, norm, kind, weight, level = line[:5]
    beta, eta, low, high, dual, w_low, w_high, constant = map(float, line[5:13])
    shape = tuple(map(int, line[13:15]))
    new, old, ref, rollout, entropy, advantage = (read(stream, torch.float32, shape).double()
                                                  for _ in range(6))
    mask = read(stream, torch.uint8, shape) != 0
    new.requires_grad_()
    entropy.requires_grad_()
    low, high = (float(torch.tensor(x).float()) for x in (1 - low, 1 + high))
    count = mask.sum(-1, keepdim=True).clamp(min=1)

    def mean(x):
        return torch.where(mask, x, 0.0).sum(-1, keepdim=True) / count

    ratio = torch.exp(new - old)
    if loss == "gspo":                          # verl: compute_policy_loss_gspo
        ratio = torch.exp(new - new.detach() + mean(new - old).detach())
    w = torch.ones_like(new)
    close = near(ratio, low, high, dual)
    if weight != "none":                        # verl: rollout_corr_helper, without its clamps
        w = old - rollout
        if level == "sequence":
            w = (mean(w) * count).expand(shape)
        elif level == "geometric":
            w = mean(w).expand(shape)
        w = torch.exp(w)
        close = close | near(w, w_low, w_high)
        out = (w > w_high) | (w < w_low)
        w = torch.where(out, 0.0, w) if weight == "drop" else w.clamp(w_low, w_high)
    pg = w * term(loss, ratio, advantage, new, low, high, dual)
    kl = divergence(kind, new, ref)
    scalar = reduced(norm, pg + beta * kl - eta * entropy, mask, constant)
    by_new, by_entropy = torch.autograd.grad(scalar, (new, entropy), allow_unused=True)
    if by_entropy is None:
        by_entropy = torch.zeros_like(by_new)

    with torch.no_grad():
        k = ratio.clamp(max=high) if loss != "reinforce" else torch.ones_like(ratio)
        if loss in ("clip", "gspo"):
            k = torch.where(advantage < 0, ratio.clamp(low, dual), k)
        elif loss == "cispo":
            k = ratio.clamp(low, high)
        d = ref - new
        slope = {"k3": torch.exp(d) + 1, "k1": torch.ones_like(d)}.get(kind, d.abs())
        ones = torch.ones_like(new)
        scale = {"token-mean": 1 / mask.sum(), "constant": 1 / constant,
                 "sequence-mean": 1 / count / (mask.sum(-1) > 0).sum(),
                 "sequence-sum": 1 / (mask.sum(-1) > 0).sum()}[norm] * ones
        bound = (advantage.abs() * k * w + beta * slope) * scale
        of = reduced(norm, pg.abs() + beta * kl.abs() + eta * entropy.abs(), mask, constant)
    return scalar, by_new, by_entropy, bound, close.double(), of


def main():
    print(torch.__version__, flush=True)
    with open(sys.argv[1], "rb") as jobs, open(sys.argv[2], "wb") as results:
        for line in iter(jobs.readline, b""):
            for out in job(line.decode().split(), jobs):
                results.write(out.detach().double().contiguous().numpy().tobytes())


if __name__ == "__main__":
    main()
