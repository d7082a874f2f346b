/* backend.c - the CPU backend: its table, and how it is opened: it chooses the instruction set and
 * the number of threads. A forked child goes on with the calling thread alone. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cpu/cpu.h"
#include "control/conventional.h"

#define MAX_THREADS 1024

static const sb_isa *const isas[] = { &sb_isa_avx512, &sb_isa_avx2, &sb_isa_scalar, NULL };

static sb_status probe(int device, sb_message *why)
{
    (void)device, (void)why;
    return SB_OK;
}

static int32_t usable_threads(void)
{
    cpu_set_t set;
    long n;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
    n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > MAX_THREADS ? MAX_THREADS : (int32_t)n;
}

static sb_status isa_named(const char *name, const sb_isa **isa, sb_message *why)
{
    int any = !name || strcmp(name, "auto") == 0;
    for (int i = 0; isas[i]; i++) {
        if (!any && strcmp(isas[i]->name, name) != 0) continue;
        *isa = isas[i];
        if (isas[i]->available()) return SB_OK;
        if (!any)
            return sb_fail(why, SB_ERR_BACKEND, "this processor or build lacks the isa %s", name);
    }
    return sb_fail(why, SB_ERR_ARGUMENT,
                   "no isa is called \"%.40s\"; known: avx512, avx2, scalar, or auto", name);
}

/* The best products of an instruction set. */
static const sb_product_isa *products_of(const sb_isa *isa)
{
    const sb_product_isa *wide[] = { &sb_products_amx, &sb_products_avx512, &sb_products_avx2 };
    if (isa == &sb_isa_scalar) return &sb_products_scalar;
    for (int i = isa == &sb_isa_avx512 ? 0 : 2; i < 3; i++)
        if (wide[i]->available()) return wide[i];
    return &sb_products_scalar;
}

static sb_status open_cpu(sb_context *ctx, int device, const sb_open_options *options,
                          sb_message *why)
{
    int32_t threads = options->threads ? options->threads : usable_threads();
    const sb_isa *isa = NULL;
    sb_status status = isa_named(options->isa, &isa, why);
    sb_cpu *c;

    (void)device;
    if (status != SB_OK) return status;
    if (threads < 1 || threads > MAX_THREADS)
        return sb_fail(why, SB_ERR_ARGUMENT, "threads is %d, outside [0, %d]", (int)threads,
                       MAX_THREADS);
    c = calloc(1, sizeof *c);
    if (!c) return sb_fail(why, SB_ERR_MEMORY, "no memory for the cpu backend");
    c->isa = isa;
    c->products = products_of(isa);
    c->threads = threads;
    status = sb_pool_create(&c->pool, threads);
    if (status != SB_OK) {
        free(c);
        return sb_fail(why, status, "%s %d threads",
                       status == SB_ERR_MEMORY ? "no memory for" : "could not start", (int)threads);
    }
    ctx->state = c;
    return SB_OK;
}

static void close_cpu(sb_context *ctx)
{
    sb_cpu *c = ctx->state;
    sb_pool_destroy(c->pool);
    free(c->rows.data);
    free(c->states.data);
    free(c->tokens.data);
    free(c->wholes.data);
    free(c->counts.data);
    free(c->tallies.data);
    free(c->upstream.data);
    free(c->parts.data);
    free(c->models.data);
    for (int i = 0; i < 2; i++) {
        free(c->hidden[i].packed.data);
        free(c->hidden[i].E.data);
        free(c->hidden[i].targets.data);
    }
    free(c);
}

/* torn: at fork() another thread may have been replacing the scratch memory. The child then
 * neither uses nor frees it. */
static void inherit_cpu(sb_context *ctx, int torn)
{
    static const sb_cpu_scratch none;
    sb_cpu *c = ctx->state;
    sb_pool_inherit(c->pool);
    if (!torn) return;
    c->rows = c->states = c->tokens = c->wholes = c->parts = c->models = none;
    for (int i = 0; i < 2; i++) c->hidden[i].packed = c->hidden[i].E = c->hidden[i].targets = none;
}

static const char *isa_of(const sb_context *ctx) { return ((const sb_cpu *)ctx->state)->isa->name; }

static int32_t threads_of(const sb_context *ctx) { return ((const sb_cpu *)ctx->state)->threads; }

static sb_status conventional(sb_context *ctx, const void *call)
{
    return sb_conventional_cpu(((sb_cpu *)ctx->state)->pool, &ctx->error, call);
}

#define SLOT(NUMBER, name, scratch, what) [SB_OP_##NUMBER] = { sb_cpu_##name, NULL },

const sb_backend sb_backend_cpu = {
    .name = "cpu",
    .probe = probe,
    .open = open_cpu,
    .close = close_cpu,
    .inherit = inherit_cpu,
    .isa = isa_of,
    .threads = threads_of,
    .kept_sets = 1,
    .ops = { [SB_OP_CONVENTIONAL] = { conventional, NULL },
             SB_OPERATIONS(SLOT) SB_HOST_OPERATIONS(SLOT) },
    .heads = &sb_cpu_heads,
};
