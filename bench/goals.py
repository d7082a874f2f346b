"""The goals of the project: a ratio to the floor of the same run, or microseconds."""
BIG, ODD = 151936, 50257

H100 = {
    ("logprob", "bf16", BIG, 4096): (1.05, "x"), ("logprob", "bf16", BIG, 16384): (1.035, "x"),
    ("logprob", "bf16", ODD, 4096): (1.11, "x"), ("logprob", "fp32", BIG, 4096): (1.025, "x"),
    ("logprob", "fp16", BIG, 4096): (1.05, "x"),
    ("logprob", "bf16", BIG, 512): (58, "us"), ("logprob", "bf16", BIG, 64): (11.5, "us"),
    ("logprob", "bf16", BIG, 8): (5.4, "us"), ("logprob", "bf16", BIG, 1): (4.4, "us"),
    ("logprob", "bf16", ODD, 512): (24, "us"), ("logprob", "bf16", ODD, 64): (7.2, "us"),
    ("logprob", "bf16", ODD, 8): (4.9, "us"), ("logprob", "bf16", ODD, 1): (4.3, "us"),
}

H200 = {
    ("logprob", "bf16", BIG, 4096): (290, "us"), ("logprob", "bf16", BIG, 16384): (1110, "us"),
    ("logprob", "bf16", BIG, 512): (43, "us"), ("logprob", "bf16", BIG, 64): (10.5, "us"),
    ("logprob", "bf16", BIG, 8): (4.6, "us"), ("logprob", "bf16", BIG, 1): (3.5, "us"),
    ("logprob", "bf16", ODD, 4096): (112, "us"), ("logprob", "bf16", ODD, 512): (20, "us"),
    ("logprob", "fp32", BIG, 4096): (550, "us"), ("logprob", "fp16", BIG, 4096): (305, "us"),
    ("logprob, sustained", "bf16", BIG, 4096): (300, "us"),
    ("logprob + entropy", "bf16", BIG, 4096): (330, "us"),
    ("forward + gradient", "bf16", BIG, 4096): (700, "us"),
    ("forward + gradient", "bf16", BIG, 16384): (2730, "us"),
    ("forward + gradient", "bf16", BIG, 512): (100, "us"),
    ("forward + gradient, sustained", "bf16", BIG, 4096): (735, "us"),
    ("forward + policy gradient", "bf16", BIG, 4096): (720, "us"),
    ("gradient", "bf16", BIG, 4096): (630, "us"),
    ("top-1", "bf16", BIG, 4096): (450, "us"), ("top-8", "bf16", BIG, 4096): (600, "us"),
    ("top-64", "bf16", BIG, 4096): (1200, "us"),
    ("divergence", "bf16", BIG, 4096): (700, "us"),
    ("sample", "bf16", BIG, 4096): (420, "us"), ("sample", "bf16", BIG, 512): (75, "us"),
    ("sample", "bf16", BIG, 64): (18, "us"), ("sample", "bf16", BIG, 1): (8, "us"),
    ("sample, top-k 50, top-p 0.9", "bf16", BIG, 4096): (1200, "us"),
    ("sample, top-k 50, top-p 0.9", "bf16", BIG, 512): (170, "us"),
    ("sample, top-k 50, top-p 0.9", "bf16", BIG, 64): (45, "us"),
    ("sample, top-k 50, top-p 0.9", "bf16", BIG, 1): (20, "us"),
    ("PPO loss", "fp32", "-", "256 x 16384"): (45, "us"),
    ("PPO loss, tokens counted", "fp32", "-", "256 x 16384"): (45, "us"),
    ("GRPO loss, KL", "fp32", "-", "256 x 16384"): (45, "us"),
    ("GRPO loss, KL, metrics", "fp32", "-", "256 x 16384"): (90, "us"),
}


def of(gpu):
    """The goals for a GPU of that name: (call, dtype, V, rows) to (value, "x" or "us")."""
    return next((goals for name, goals in (("H100", H100), ("H200", H200)) if name in gpu), {})
