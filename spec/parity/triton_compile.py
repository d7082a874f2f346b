#!/usr/bin/env python3
"""Compiles the Triton kernels for GPUs that need not be here.

    python3 spec/parity/triton_compile.py FOLDER

writes FOLDER/KERNEL.TARGET.ll (LLVM IR) for each, for NVIDIA also KERNEL.TARGET.ptx, and prints
TARGET and WARP for each target; or says why one cannot be compiled for, after "TARGET: ". Needs
triton; exits with 77 and the reason where it is missing.
"""
import os
import sys

sys.dont_write_bytecode = True
os.environ.pop("TRITON_INTERPRET", None)

try:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    import triton_logprob as kernels
except ImportError as missing:
    print("cannot run here: %s" % missing)
    sys.exit(77)

TARGETS = (("cuda", 80, 32), ("cuda", 90, 32), ("hip", "gfx90a", 64), ("hip", "gfx942", 64),
           ("hip", "gfx1100", 32))

ROW = dict(logits="*bf16", ids="*i64", active="*u8", temperatures="*fp32", states="*i64",
           stride="i32", ignore_index="i32", shift="i32", pieces="i32", vocab="i32", piece="i32",
           token="*i32", lse="*i32", records="*i64", starts="*i64", sequence="*i32")
CONSTANTS = {
    "sum_kernel": {"LEAVES": 64, "FUSED": True},
    "finish_kernel": {"PIECES": 4, "FUSED": True},
    "sequence_kernel": {"BLOCK": 256},
}


def main(folder):
    for backend, arch, warp in TARGETS:
        target = "sm_%d" % arch if backend == "cuda" else arch
        try:
            for name, constants in CONSTANTS.items():
                kernel = getattr(kernels, name)
                signature = {a: "constexpr" if a in constants else ROW[a]
                             for a in kernel.arg_names}
                made = triton.compile(
                    ASTSource(kernel, signature, constexprs=constants),
                    target=GPUTarget(backend, arch, warp), options={"enable_fp_fusion": False})
                for kind, ending in (("llir", "ll"), ("ptx", "ptx")):
                    if kind in made.asm:
                        path = "%s/%s.%s.%s" % (folder, name, target, ending)
                        with open(path, "w") as file:
                            file.write(made.asm[kind])
        except Exception as error:      # a backend or target that this Triton lacks
            print("%s: %s" % (target, " ".join(str(error).split())[-300:]))
        else:
            print(target, warp)


if __name__ == "__main__":
    main(sys.argv[1])
