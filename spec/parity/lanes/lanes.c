/* lanes.c - a block's threads as coroutines, in turn. */
#include "lanes.h"

#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

enum { MAX_THREADS = 1024, STACK = 64 * 1024 };

typedef enum waits { READY, FOR_WARP, FOR_BLOCK, DONE } waits;

/* Where a coroutine or the scheduler goes on: the compiler's setjmp, which saves three registers
 * and calls nothing. */
typedef void *point[5];

typedef struct lane {
    waits state;
    int turn; /* which half of brought its warp uses; a lane is at most one exchange ahead */
    int started;
    void *stack;
    point at;
} lane;

static lane lanes[MAX_THREADS];
static uint64_t brought[2][MAX_THREADS];
static lanes_place place;
static uint32_t now; /* the running lane */
static point scheduler;
static lanes_kernel running;
static const void *arguments;

const lanes_place *lanes_now(void) { return &place; }

static __attribute__((noreturn, noinline)) void go_to(void **to) { __builtin_longjmp(to, 1); }

static void run_lane(uint32_t i)
{
    now = i;
    place.thread.x = i;
}

/* Goes on with the warp's next lane, or in the scheduler. */
static __attribute__((noinline)) void wait(waits what)
{
    const uint32_t next = now + 1;
    lanes[now].state = what;
    if (__builtin_setjmp(lanes[now].at)) return;
    if (next % WARP == 0 || lanes[next].state != READY || !lanes[next].started) go_to(scheduler);
    run_lane(next);
    go_to(lanes[next].at);
}

void lanes_meet_block(void) { wait(FOR_BLOCK); }

const uint64_t *lanes_meet_warp(uint64_t x)
{
    const uint32_t mine = now;
    const int turn = lanes[mine].turn;
    brought[turn][mine] = x;
    lanes[mine].turn = !turn;
    wait(FOR_WARP);
    return &brought[turn][mine / WARP * WARP];
}

/* A coroutine lives on from block to block. */
static void body(void)
{
    for (;;) {
        running(arguments);
        wait(DONE);
    }
}

/* The start of a coroutine. */
static void start(void)
{
    static ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = lanes[now].stack = malloc(STACK);
    context.uc_stack.ss_size = STACK;
    context.uc_link = NULL;
    makecontext(&context, body, 0);
    setcontext(&context);
}

/* When the driver is unloaded. */
__attribute__((destructor)) static void free_stacks(void)
{
    for (size_t i = 0; i < sizeof lanes / sizeof *lanes; i++) free(lanes[i].stack);
}

/* Lets a lane, and those that it goes on with, run until they wait or are done. */
static __attribute__((noinline)) void resume(uint32_t i)
{
    run_lane(i);
    if (__builtin_setjmp(scheduler)) return;
    if (lanes[i].started) go_to(lanes[i].at);
    lanes[i].started = 1;
    start();
}

/* Lets a warp run until its lanes wait for the block or are done. Fails where only some wait for
 * the warp. */
static int run_warp(uint32_t first)
{
    for (;;) {
        uint32_t waiting = 0;
        for (uint32_t i = first; i < first + WARP; i++) {
            if (lanes[i].state == READY) resume(i);
            waiting += lanes[i].state == FOR_WARP;
        }
        if (waiting != WARP) return waiting != 0;
        for (uint32_t i = first; i < first + WARP; i++) lanes[i].state = READY;
    }
}

static int run_block(uint32_t threads)
{
    uint32_t waiting;
    for (uint32_t i = 0; i < threads; i++) {
        lanes[i].state = READY;
        lanes[i].turn = 0;
    }
    do {
        waiting = 0;
        for (uint32_t first = 0; first < threads; first += WARP)
            if (run_warp(first)) return 1;
        for (uint32_t i = 0; i < threads; i++)
            if (lanes[i].state == FOR_BLOCK) {
                lanes[i].state = READY;
                waiting++;
            }
    } while (waiting);
    return 0;
}

int lanes_run(lanes_kernel kernel, const void *args, uint32_t blocks, uint32_t threads)
{
    if (threads == 0 || threads > MAX_THREADS || threads % WARP != 0) return 1;
    running = kernel;
    arguments = args;
    memset(&place, 0, sizeof place);
    place.threads.x = threads;
    place.blocks.x = blocks;
    place.threads.y = place.threads.z = place.blocks.y = place.blocks.z = 1;
    for (place.block.x = 0; place.block.x < blocks; place.block.x++)
        if (run_block(threads)) return 1;
    return 0;
}
