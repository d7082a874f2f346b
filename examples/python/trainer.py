"""One policy-gradient step whose rollout and trainer agree on every logprob, bit for bit.

    python3 examples/python/trainer.py [cpu | cuda]

The rollout samples token by token, with logits [B, V]; the trainer scores the same tokens in
micro-batches of whole, padded sequences, in another order. The policy looks up its logits in a
table, so both use the same numbers; only the logprobs could differ, and here they do not. (With a
network, the logits themselves may differ between the two shapes. No logprob function can repair
that, and the ratios then show it.)
"""
import sys

import torch

from samebits_torch import (HAS_BACKWARD, IGNORE_INDEX, check, merged_loss, policy_loss, sample,
                            selected_logprobs)

B, T, V, TEMPERATURE = 8, 24, 2003, 0.7


def bits(x):
    return x.detach().contiguous().view(torch.int32)


def rollout(table, lengths):
    """Returns ids [B, T + 1], which start with a given one, and the logprobs [B, T] of sampling."""
    ids = torch.full((B, T + 1), IGNORE_INDEX, device=table.device)
    ids[:, 0] = torch.arange(B, device=table.device)
    logprobs = torch.zeros(B, T, device=table.device)
    for t in range(T):
        active = lengths > t
        streams = active.nonzero().squeeze(-1)
        drawn, logprobs[active, t] = sample(table[ids[active, t]], torch.full_like(streams, t),
                                            streams, seed=1, temperature=TEMPERATURE)
        ids[active, t + 1] = drawn.long()
    return ids, logprobs


def fp32_log_softmax(logits, ids):
    logprobs = torch.log_softmax(logits.float() / TEMPERATURE, -1)
    return logprobs.gather(-1, ids.clamp(min=0).unsqueeze(-1)).squeeze(-1) * (ids != IGNORE_INDEX)


def score(table, ids, rows, logprobs_of):
    """The logprobs [len(rows), T] of some sequences, scored as a trainer's micro-batch."""
    given, targets = ids[rows, :-1].clamp(min=0), ids[rows, 1:]
    return logprobs_of(table[given], targets)


def ours(logits, ids):
    return selected_logprobs(logits, ids, TEMPERATURE)


def main(device):
    torch.manual_seed(1)
    table = torch.randn(V, V).mul_(2).to(device).requires_grad_()
    lengths = torch.randint(1, T + 1, (B,)).to(device)
    with torch.no_grad():
        ids, old = rollout(table, lengths)
    active = ids[:, 1:] != IGNORE_INDEX
    advantages = torch.randn(B, 1).to(device)

    # Each micro-batch is told how many tokens the step has, so the gradients of its tokens, and the
    # loss that the records give together, are those of the step in one call.
    tokens, records, by_token = int(active.sum()), [], torch.zeros(B, T, device=table.device)
    for rows in torch.randperm(B).to(device).split(3):
        new = score(table, ids, rows, ours)
        different = int((bits(new) != bits(old[rows])).sum())
        assert different == 0, "%d logprobs of the trainer have other bits" % different
        new.retain_grad()
        part, record, _ = policy_loss(new, advantages[rows, 0], old=old[rows], mask=active[rows],
                                      tokens=tokens)
        part.backward()
        records.append(record)
        by_token[rows] = new.grad
    loss, metrics = merged_loss(records, tokens)
    assert metrics["ratio_min"] == metrics["ratio_max"] == 1, "a ratio is not exactly 1"
    now = old.clone().requires_grad_()
    whole, _, _ = policy_loss(now, advantages[:, 0], old=old, mask=active, tokens=tokens)
    whole.backward()
    assert torch.equal(bits(whole), bits(loss)) and torch.equal(bits(now.grad), bits(by_token))
    if device != "cpu":
        check(table.device)
    print("%d tokens: rollout and trainer have the same bits, every ratio is 1" % tokens)
    print("loss and gradients of micro-batches have the bits of the whole step")

    gradient, table.grad = table.grad, None
    new = score(table, ids, torch.arange(B), fp32_log_softmax)
    (-(torch.exp(new - new.detach()) * advantages * active).sum() / tokens).backward()
    torch.testing.assert_close(gradient, table.grad, rtol=1e-4, atol=1e-7)
    by = "the library" if HAS_BACKWARD else "PyTorch's softmax"
    print("the gradient, by %s, is that of PyTorch's log_softmax" % by)
    print("loss %.6f" % float(loss))


if __name__ == "__main__":
    torch.set_num_threads(2)
    main(sys.argv[1] if len(sys.argv) > 1 else "cpu")
