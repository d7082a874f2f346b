/* lanes.h - runs a kernel on the CPU, with each thread of a block as a coroutine, so that code that
 * depends on the width of a warp shows without a GPU. WARP: 32 or 64.
 *
 * Blocks run one after the other; the warps of a block run in turn until each waits for the block,
 * and the lanes of a warp in turn until each waits for the warp. Stricter than a GPU: all lanes of
 * a warp must come to every exchange. */
#ifndef LANES_H
#define LANES_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lanes_dim {
    uint32_t x, y, z;
} lanes_dim;

typedef struct lanes_place {
    lanes_dim thread, block, threads, blocks;
} lanes_place;

/* Where the running lane is. */
const lanes_place *lanes_now(void);

/* Waits for the block. */
void lanes_meet_block(void);

/* Waits for the warp; returns the values of its lanes, valid until the lane's next call. */
const uint64_t *lanes_meet_warp(uint64_t brought);

/* Runs blocks of threads; a multiple of WARP. 0, or 1 where only some of a warp's lanes came. */
typedef void (*lanes_kernel)(const void *args);
int lanes_run(lanes_kernel kernel, const void *args, uint32_t blocks, uint32_t threads);

/* The kernels: what lanes/build makes of those in kernels/. A null name ends the list. */
typedef struct lanes_entry {
    const char *name;
    lanes_kernel kernel;
    uint32_t size; /* of its arguments */
} lanes_entry;
extern const lanes_entry *const lanes_files[]; /* ends with null */

#ifdef __cplusplus
}

/* An entry of a kernel that takes one struct by value. */
template <typename Args, void (*KERNEL)(Args)> void lanes_call(const void *args)
{
    KERNEL(*(const Args *)args);
}
template <typename Args> struct lanes_of {
    template <void (*KERNEL)(Args)> static lanes_kernel call() { return lanes_call<Args, KERNEL>; }
    static const uint32_t size = sizeof(Args);
};
template <typename Args> lanes_of<Args> lanes_taking(void (*)(Args));
#define LANES_ENTRY(name)                                                                          \
    {                                                                                              \
#name, decltype(lanes_taking(name))::template call < name>(),                              \
            decltype(lanes_taking(name))::size                                                     \
    }
#endif

#endif
