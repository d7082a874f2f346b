"""Kernels that move the same bytes as a call and do nothing else: what no call can beat.

Reading alone is the floor of logprobs, entropies and top-k; reading and writing as much is that of
a gradient. Of several widths and block sizes, the fastest on the GPU at hand is the floor.
"""
import ctypes
import os
import shutil
import subprocess
import tempfile

import torch

import timing

SOURCE = r"""
#include <cuda_runtime.h>
template <int U> __global__ void read_only(const uint4 *p, size_t n, unsigned *never)
{
    size_t i = (size_t)blockIdx.x * blockDim.x * U + threadIdx.x;
    uint4 v[U];
#pragma unroll
    for (int k = 0; k < U; k++) {
        size_t j = i + (size_t)k * blockDim.x;
        v[k] = j < n ? __ldg(p + j) : make_uint4(0, 0, 0, 0);
    }
    unsigned x = 0;
#pragma unroll
    for (int k = 0; k < U; k++) x ^= v[k].x ^ v[k].y ^ v[k].z ^ v[k].w;
    if (x == 0x9e3779b9u) *never = x; // so that the loads stay
}
__global__ void empty() {}
template <int U>
void launch_read(const void *p, size_t n, int threads, void *never, cudaStream_t s)
{
    size_t a = (size_t)threads * U;
    unsigned blocks = (unsigned)((n + a - 1) / a);
    read_only<U><<<blocks, threads, 0, s>>>((const uint4 *)p, n, (unsigned *)never);
}
extern "C" int floor_read(const void *p, size_t bytes, int unroll, int threads, void *never,
                          void *stream)
{
    size_t n = (bytes + 15) / 16;
    if (unroll == 1) launch_read<1>(p, n, threads, never, (cudaStream_t)stream);
    if (unroll == 2) launch_read<2>(p, n, threads, never, (cudaStream_t)stream);
    if (unroll == 4) launch_read<4>(p, n, threads, never, (cudaStream_t)stream);
    return (int)cudaGetLastError();
}
extern "C" int floor_empty(void *stream)
{
    empty<<<1, 32, 0, (cudaStream_t)stream>>>();
    return (int)cudaGetLastError();
}
template <int U> __global__ void __launch_bounds__(512) copy(uint4 *to, const uint4 *from, size_t n)
{
    size_t i = (size_t)blockIdx.x * blockDim.x * U + threadIdx.x;
    uint4 v[U];
#pragma unroll
    for (int k = 0; k < U; k++)
        if (i + (size_t)k * blockDim.x < n) v[k] = from[i + (size_t)k * blockDim.x];
#pragma unroll
    for (int k = 0; k < U; k++)
        if (i + (size_t)k * blockDim.x < n) to[i + (size_t)k * blockDim.x] = v[k];
}
template <int U> int launch_copy(void *to, const void *from, size_t bytes, int threads, void *s)
{
    size_t n = bytes / 16, a = (size_t)threads * U;
    copy<U><<<(unsigned)((n + a - 1) / a), threads, 0, (cudaStream_t)s>>>(
        (uint4 *)to, (const uint4 *)from, n);
    return (int)cudaGetLastError();
}
extern "C" int floor_copy(void *to, const void *from, size_t bytes, int unroll, int threads,
                          void *s)
{
    return unroll == 2 ? launch_copy<2>(to, from, bytes, threads, s)
                       : launch_copy<4>(to, from, bytes, threads, s);
}
__global__ void gather(const unsigned short *x, const int *ids, size_t count, size_t vocab,
                       int each, unsigned *never)
{
    size_t i = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * 4;
    if (i >= count) return;
    int4 at = *(const int4 *)(ids + i);
    x += i / each * vocab;
    unsigned found = x[at.x] ^ x[at.y] << 8 ^ x[at.z] << 16 ^ x[at.w] << 24;
    if (found == 0x9e3779b9u) *never = found;
}
/* each is a multiple of 4, and so is count */
extern "C" int floor_gather(const void *x, const void *ids, size_t count, size_t vocab, int each,
                            int threads, void *never, void *s)
{
    unsigned blocks = (unsigned)((count / 4 + threads - 1) / threads);
    gather<<<blocks, threads, 0, (cudaStream_t)s>>>((const unsigned short *)x, (const int *)ids,
                                                     count, vocab, each, (unsigned *)never);
    return (int)cudaGetLastError();
}
struct arrays {
    const uint4 *from[6];
    uint4 *to[2];
    const unsigned *mask;
};
template <int FROM, int TO> __global__ void stream(arrays a, size_t n)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    uint4 v[FROM], sum = make_uint4(0, 0, 0, 0);
    sum.x = a.mask[i];
#pragma unroll
    for (int k = 0; k < FROM; k++) v[k] = a.from[k][i];
#pragma unroll
    for (int k = 0; k < FROM; k++)
        sum.x ^= v[k].x, sum.y ^= v[k].y, sum.z ^= v[k].z, sum.w ^= v[k].w;
#pragma unroll
    for (int k = 0; k < TO; k++) a.to[k][i] = sum;
}
/* from: `reads` float arrays; to: `writes`; n: 16-byte elements of each. */
extern "C" int floor_stream(const void *const *from, int reads, void *const *to, int writes,
                            const void *mask, size_t n, int threads, void *s)
{
    arrays a;
    for (int k = 0; k < reads; k++) a.from[k] = (const uint4 *)from[k];
    for (int k = 0; k < writes; k++) a.to[k] = (uint4 *)to[k];
    a.mask = (const unsigned *)mask;
    unsigned blocks = (unsigned)((n + threads - 1) / threads);
    cudaStream_t on = (cudaStream_t)s;
    if (reads == 2 && writes == 1) stream<2, 1><<<blocks, threads, 0, on>>>(a, n);
    else if (reads == 3 && writes == 1) stream<3, 1><<<blocks, threads, 0, on>>>(a, n);
    else if (reads == 5 && writes == 2) stream<5, 2><<<blocks, threads, 0, on>>>(a, n);
    else return 1;
    return (int)cudaGetLastError();
}
"""
READS = [(1, 256), (2, 256), (2, 512), (4, 256), (4, 512)] # 16-byte loads per thread, threads
COPIES = [(2, 128), (2, 512), (4, 128), (4, 256)] # 16-byte elements per thread, threads


def build(library):
    """Compiles the kernels for this GPU into a library."""
    nvcc = (os.environ.get("NVCC") or shutil.which("nvcc")
            or os.path.join(os.environ.get("CUDA_HOME", "/usr/local/cuda"), "bin", "nvcc"))
    major, minor = torch.cuda.get_device_capability()
    with tempfile.TemporaryDirectory() as folder:
        text = os.path.join(folder, "floors.cu")
        with open(text, "w") as f:
            f.write(SOURCE)
        subprocess.run([nvcc, "-O3", f"-arch=sm_{major}{minor}", "-shared", "-Xcompiler", "-fPIC",
                        "-o", library, text], check=True)


def load(library):
    """Loads the kernels, from a library if that exists; otherwise they are compiled, into it if it
    has a name."""
    if library and os.path.exists(library):
        return ctypes.CDLL(os.path.abspath(library))
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.abspath(library) if library else os.path.join(folder, "floors.so")
        build(path)
        return ctypes.CDLL(path)


def started(error):
    if error != 0:
        raise RuntimeError(f"a floor kernel was not launched: CUDA error {error}")


class Floors:
    def __init__(self, library=None):
        p, z, i = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
        self.kernels = load(library)
        self.kernels.floor_read.argtypes = [p, z, i, i, p, p]
        self.kernels.floor_empty.argtypes = [p]
        self.kernels.floor_copy.argtypes = [p, p, z, i, i, p]
        self.kernels.floor_gather.argtypes = [p, p, z, z, i, i, p, p]
        self.kernels.floor_stream.argtypes = [p, i, p, i, p, z, i, p]
        self.never = torch.zeros(1, dtype=torch.int32, device="cuda")

    def empty(self):
        started(self.kernels.floor_empty(timing.stream()))

    def reading(self, shape, seconds):
        """The fastest that reads the buffers of a Shape, as something to time."""
        def call(x, unroll, threads):
            started(self.kernels.floor_read(x.data_ptr(), shape.bytes, unroll, threads,
                                         self.never.data_ptr(), timing.stream()))
        return timing.quickest([shape.timed([lambda x=x, u=u, t=t: call(x, u, t)
                                             for x in shape.logits]) for u, t in READS], seconds)

    def gathering(self, shape, lists):
        """One that reads int32 ids [rows, each] and the rows' 16-bit logits at them."""
        def call(x):
            started(self.kernels.floor_gather(x.data_ptr(), lists.data_ptr(), lists.numel(),
                                              shape.vocab, lists.shape[1], 256,
                                              self.never.data_ptr(), timing.stream()))
        return shape.timed([lambda x=x: call(x) for x in shape.logits])

    def streaming(self, reads, mask, writes):
        """A call that reads some fp32 tensors and a mask, and writes others of the same shape."""
        n, p = mask.numel() // 4, ctypes.c_void_p
        sources = (p * len(reads))(*[x.data_ptr() for x in reads])
        targets = (p * len(writes))(*[x.data_ptr() for x in writes])
        return lambda: started(self.kernels.floor_stream(
            sources, len(reads), targets, len(writes), mask.data_ptr(), n, 256, timing.stream()))

    def copying(self, shape, to, seconds):
        """The fastest that copies the buffers of a Shape to a tensor of the same size and dtype."""
        def call(x, unroll, threads):
            started(self.kernels.floor_copy(to.data_ptr(), x.data_ptr(), shape.bytes, unroll,
                                          threads, timing.stream()))
        kinds = [[lambda x=x: to.copy_(x) for x in shape.logits]]
        kinds += [[lambda x=x, u=u, t=t: call(x, u, t) for x in shape.logits] for u, t in COPIES]
        return timing.quickest([shape.timed(kind) for kind in kinds], seconds)
