"""head_torch.py - PyTorch on the CPU beside bench/head.lua: the bf16 product of hidden states and
weights, then log_softmax in fp32 and gather.

    python3 bench/head_torch.py [THREADS [D [V [ROWS ...]]]]

Each number is the fastest of some calls, at least 3 and about half a second.
"""

import sys
import time

import torch

arguments = [int(a) for a in sys.argv[1:]] + [None] * 3
threads, D, V = arguments[0] or 1, arguments[1] or 4096, arguments[2] or 32768
rows_list = [int(a) for a in sys.argv[4:]] or [1, 8, 64, 512]

torch.set_num_threads(threads)
weights = torch.randn(V, D).to(torch.bfloat16)
print(f"PyTorch {torch.__version__}, D {D}, V {V}, threads {threads}")
print("| rows | ns per multiply-add and thread | ms |\n| --- | --- | --- |")
with torch.inference_mode():
    for rows in rows_list:
        hidden = torch.randn(rows, D).to(torch.bfloat16)
        ids = torch.arange(rows)[:, None] % V
        best, begun, calls = float("inf"), time.time(), 0
        while calls < 3 or time.time() - begun < 0.5:
            start = time.time()
            torch.log_softmax((hidden @ weights.t()).float(), -1).gather(1, ids)
            best, calls = min(best, time.time() - start), calls + 1
        print(f"| {rows} | {best * threads * 1e9 / (rows * V * D):.4f} | {best * 1e3:.3f} |")
