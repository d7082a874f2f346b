"""What PyTorch gives for the logits that come in: the child process of spec/support/torch.lua.

    python3 torch_logprobs.py RESULTS

First writes PyTorch's version to standard output. Then reads jobs from standard input until it
ends: a line "DTYPE ROWS VOCAB TAU TARGETS" (TAU: the bits of an fp32 in hex), the logits as raw
bytes, the ids as int32 [ROWS, TARGETS]. Appends to the file RESULTS, for each job, two arrays of
fp32 [ROWS, TARGETS]: log_softmax and gather; gather minus logsumexp. Both in fp32, of the logits
divided by the temperature in fp32.
"""
import struct
import sys

import torch

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def read(stream, dtype, shape):
    count = shape[0] * shape[1]
    size = count * torch.empty(0, dtype=dtype).element_size()
    data = bytearray(stream.read(size))
    if len(data) != size:
        raise SystemExit("torch_logprobs.py: %d bytes instead of %d" % (len(data), size))
    return torch.frombuffer(data, dtype=dtype, count=count).view(shape)


def main():
    print(torch.__version__, flush=True)
    jobs = sys.stdin.buffer
    with open(sys.argv[1], "wb") as results:
        for line in iter(jobs.readline, b""):
            name, rows, vocab, tau, targets = line.decode().split()
            rows, vocab, targets = int(rows), int(vocab), int(targets)
            tau, = struct.unpack(">f", bytes.fromhex(tau))
            logits = read(jobs, DTYPES[name], (rows, vocab)).float() / tau
            ids = read(jobs, torch.int32, (rows, targets)).long()
            chosen = logits.gather(-1, ids)
            for out in (torch.log_softmax(logits, -1).gather(-1, ids),
                        chosen - logits.logsumexp(-1, keepdim=True)):
                results.write(out.contiguous().numpy().tobytes())


if __name__ == "__main__":
    main()
