/* plan.c - checks that every launch that the CUDA backend may choose covers every leaf, or every
 * element of a gradient, exactly once, within the limits of its kernels and of a GPU. */
#include "../../src/cuda/plan.h"

#include <stdio.h>
#include <string.h>

#include "cuda/args.h"
#include "det/accumulator.h"
#include "spec.h"

static int has_table(const sb_cuda_plan *p)
{
    return p->kind == SB_CUDA_TABLE || p->kind == SB_CUDA_DEEP || p->kind == SB_CUDA_UNALIGNED;
}

/* The groups of a table share the rows that are not whole: all of their leaves, less than a row per
 * group; and the states of a row and of the next group never share a place. */
static int shares(const sb_cuda_plan *p, int64_t leaves, int moments)
{
    const int64_t rows = p->work - p->whole, first = p->tail_each * p->groups + p->tail_more;
    if (!has_table(p))
        return !p->groups && !p->single && !p->tail_each && !p->tail_more && !p->table;
    if (moments) /* whole rows and pieces, all with a state */
        return p->groups && p->whole == 0 && p->single >= 0 && p->single <= p->work &&
               p->split > 0 && p->piece * p->split >= leaves && !p->tail_each && !p->tail_more &&
               p->states == (uint64_t)(p->single + (p->work - p->single) * p->split) * 64;
    return first == rows * leaves && p->tail_more < p->groups && rows < p->groups &&
           p->tail_each <= leaves &&
           p->states == (rows ? (uint64_t)(p->groups + rows) * sizeof(sb_state) : 0);
}

/* Warps of a block take a row together: a power of two of them, so that none waits for another
 * block's, and there are enough for all rows. */
static int splits_rows(const sb_cuda_plan *p, int64_t leaves)
{
    return p->split <= SB_CUDA_MOST_WARPS && (p->split & (p->split - 1)) == 0 &&
           p->work * p->split <= p->groups && p->piece * p->split >= leaves && p->piece % 32 == 0 &&
           p->whole == p->work;
}

static int covers(const sb_cuda_plan *p, int64_t leaves, int moments)
{
    if (!shares(p, leaves, moments)) return 0;
    if (p->kind == SB_CUDA_UNALIGNED && p->split != 1) return splits_rows(p, leaves);
    if (has_table(p)) return (moments || p->split == 1) && p->whole >= 0 && p->whole <= p->work;
    if (p->split < 1 || p->whole < 0 || p->whole > p->work) return 0;
    if (p->whole == p->work) return 1;
    return p->piece > 0 && p->piece * p->split >= leaves; /* kernels shorten the last piece */
}

static int launches(const sb_cuda_plan *p, int32_t dtype, int clusters, int shared, int moments)
{
    const int row_warp = p->kind == SB_CUDA_LATENCY || p->kind == SB_CUDA_CLUSTER;
    int32_t most = row_warp ? 1024 : 512;
    int64_t cut_rows = p->kind == SB_CUDA_CLUSTER ? 0 : p->work - p->whole;
    if (has_table(p))
        return (!moments || (!p->eager && p->kind == SB_CUDA_TABLE)) &&
               (p->kind != SB_CUDA_UNALIGNED ||
                (!p->eager && (p->groups == 32 * p->blocks || !p->work))) &&
               (p->kind == SB_CUDA_DEEP || moments ? dtype == SB_BF16 : dtype != SB_F32) &&
               sb_cuda_block(p) ==
                   (p->kind == SB_CUDA_DEEP ? SB_CUDA_DEEP_BLOCK : SB_CUDA_TABLE_BLOCK) &&
               p->groups % (p->blocks ? p->blocks : 1) == 0 && (p->blocks > 0) == (p->work > 0) &&
               sb_cuda_blocks(p) == p->blocks && sb_cuda_shared(p, dtype) == p->table &&
               p->table <= (uint32_t)shared;
    if (p->threads < 32 || p->threads % 32 || sb_cuda_block(p) > most) return 0;
    if (p->kind == SB_CUDA_CLUSTER && (p->split < 2 || p->split > clusters)) return 0;
    if (p->kind != SB_CUDA_STREAM && p->whole != 0) return 0;
    if (row_warp && moments) return 0;
    if (!row_warp && p->eager) return 0;
    if (sb_cuda_blocks(p) != p->whole + (p->work - p->whole) * p->split) return 0;
    if (p->states != (uint64_t)(cut_rows * p->split * (moments ? 64 : 32))) return 0;
    /* a stream kernel's dynamic shared memory stays below the limit for any kernel */
    return sb_cuda_shared(p, dtype) <= (!row_warp ? 47u * 1024 : (uint32_t)SB_CUDA_MAX_SHARED);
}

/* Checks that the pieces of a gradient's rows cover the whole width, and that none is empty except
 * the one of an empty row. */
static int64_t wrong_pieces(int64_t *plans)
{
    static const int64_t widths[] = { 0, 1, 7, 8, 9, 1024, 4096, 4097, 50257, 151936, 1 << 20 };
    static const int32_t splits[] = { 0, 1, 2, 7, 65536 }, threads[] = { 32, 128, 512 };
    static const int64_t counts[] = { 0, 1, 600, 1 << 20 };
    int64_t wrong = 0;
    for (int i = 0; i < 11 * 5 * 3 * 4 * 2; i++) {
        const int64_t width = widths[i % 11];
        const int32_t split = splits[i / 11 % 5];
        const sb_cuda_pieces p = sb_cuda_pieces_of(132, counts[i / 165 % 4], width, i < 660 ? 2 : 4,
                                                   split, threads[i / 55 % 3]);
        ++*plans;
        if (p.piece > 0 && p.piece % 8 == 0 && p.pieces > 0 && p.pieces * p.piece >= width &&
            (p.pieces == 1 || (p.pieces - 1) * p.piece < width) && (!split || p.pieces <= split))
            continue;
        if (wrong++ == 0)
            printf("width %lld, split %d: %lld pieces of %lld; ", (long long)width, (int)split,
                   (long long)p.pieces, (long long)p.piece);
    }
    return wrong;
}

/* An H100 and an H200 as they say of themselves, with one of the many ways in which their
 * multiprocessors form groups. */
#define ROOM                                                                                       \
    {                                                                                              \
        0, 0, 65, 43, 29, 22, 22, 14, 14, 14, 7, 7, 7, 7, 7, 7, 7                                  \
    }
static const sb_cuda_gpu h100 = { 132, 16, 232448, 1980000, 2619000, 5120, ROOM };
static const sb_cuda_gpu h200 = { 132, 16, 232448, 1980000, 3201000, 6144, ROOM };

/* Checks what is chosen for these two, kind by kind: the table of docs/kernels.md. */
static int64_t wrong_choices(int64_t *plans)
{
    static const struct {
        const sb_cuda_gpu *gpu;
        int64_t vocab, rows;
        int32_t dtype, kind, split, threads;
    } cases[] = {
        { &h200, 151936, 1, SB_BF16, SB_CUDA_CLUSTER, 16, 384 },
        { &h200, 151936, 8, SB_BF16, SB_CUDA_CLUSTER, 9, 384 },
        { &h200, 151936, 64, SB_BF16, SB_CUDA_CLUSTER, 2, 640 },
        { &h100, 151936, 32, SB_BF16, SB_CUDA_CLUSTER, 3, 512 },
        { &h200, 151936, 65, SB_BF16, SB_CUDA_CLUSTER, 2, 640 },
        { &h200, 151936, 66, SB_BF16, SB_CUDA_TABLE, 1, SB_CUDA_TABLE_BLOCK },
        { &h100, 151936, 66, SB_BF16, SB_CUDA_STREAM, 1, 512 },
        { &h200, 151936, 132, SB_BF16, SB_CUDA_STREAM, 1, 512 },
        { &h200, 151936, 133, SB_BF16, SB_CUDA_TABLE, 1, SB_CUDA_TABLE_BLOCK },
        { &h200, 50257, 8, SB_BF16, SB_CUDA_CLUSTER, 8, 416 },
        { &h200, 50257, 64, SB_BF16, SB_CUDA_CLUSTER, 2, 544 },
        { &h200, 151936, 1024, SB_BF16, SB_CUDA_TABLE, 1, SB_CUDA_TABLE_BLOCK },
        { &h200, 151936, 4096, SB_BF16, SB_CUDA_DEEP, 1, SB_CUDA_DEEP_BLOCK },
        { &h100, 151936, 4096, SB_BF16, SB_CUDA_STREAM, 4, 512 },
        { &h200, 151936, 4096, SB_F16, SB_CUDA_TABLE, 1, SB_CUDA_TABLE_BLOCK },
        { &h100, 151936, 4096, SB_F16, SB_CUDA_STREAM, 2, 384 },
        { &h200, 151936, 4096, SB_F32, SB_CUDA_STREAM, 4, 512 },
        { &h100, 151936, 4096, SB_F32, SB_CUDA_STREAM, 8, 384 },
    };
    int64_t wrong = 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sb_logprob_out out;
        sb_cuda_plan p;
        sb_call call;
        memset(&out, 0, sizeof out);
        memset(&call, 0, sizeof call);
        call.in.vocab = call.in.row_stride = cases[i].vocab;
        call.in.batch = 1;
        call.in.time = call.rows = cases[i].rows;
        call.in.temperature = 1.0f;
        call.in.logits_dtype = cases[i].dtype;
        p = sb_cuda_plan_of(cases[i].gpu, &out, &call, 0);
        ++*plans;
        if ((int32_t)p.kind == cases[i].kind && p.split == cases[i].split &&
            p.threads == cases[i].threads)
            continue;
        if (wrong++ == 0)
            printf("%lld rows, dtype %d: kind %d, split %d, %d threads; ", (long long)cases[i].rows,
                   (int)cases[i].dtype, (int)p.kind, (int)p.split, (int)p.threads);
    }
    return wrong;
}

int check_cuda_plans(void)
{
    static const int64_t vocabs[] = { 1, 15, 17, 300, 1025, 32000, 50257, 151936, 262144, 1 << 20 };
    static const int64_t counts[] = { 0,   1,   2,   3,    8,    16,   17,   33,    64,    66,
                                      67,  132, 133, 198,  199,  396,  397,  512,   660,   661,
                                      792, 793, 800, 2048, 4096, 8184, 8185, 16384, 100003 };
    static const int32_t splits[] = { 0, 1, 2, 7, 16, 17, 65536 }, threads[] = { 0, 32, 96, 512 };
    static const sb_cuda_gpu gpus[] = {
        { 132, 16, 232448, 1980000, 3201000, 6144, ROOM }, /* an H200 */
        { 108, 0, 166912, 1410000, 1215000, 5120, { 0 } }, /* an A100 */
        { 170, 8, 101376, 2407000, 14001000, 512, { 0, 0, 84, 48, 36, 24, 24, 12, 12 } },
        { 16, 0, 101376, 0, 0, 0, { 0 } },
        { 1, 16, 232448, 1000000, 1000000, 4096, { 0 } },
    };
    int64_t plans = 0, wrong = wrong_pieces(&plans) + wrong_choices(&plans);

    sb_logprob_out out;
    uint32_t set = 0;
    sb_call call;
    float token;

    memset(&out, 0, sizeof out);
    memset(&call, 0, sizeof call);
    out.token = &token;
    for (uint64_t i = 0; i < 5 * 10 * 29 * 7 * 4 * 3 * 3 * 3 * 2 * 2; i++) {
        uint64_t n = i;
        const sb_cuda_gpu *gpu = &gpus[n % 5];
        const int64_t vocab = vocabs[(n /= 5) % 10], rows = counts[(n /= 10) % 29];
        int moments;
        sb_cuda_plan p;
        call.in.vocab = call.in.row_stride = vocab;
        call.in.batch = 1;
        call.in.time = call.rows = rows;
        call.launch.split = splits[(n /= 29) % 7];
        call.launch.threads = threads[(n /= 7) % 4];
        call.launch.cluster = (int32_t)((n /= 4) % 3) - 1;
        call.launch.table = (int32_t)((n /= 3) % 3) - 1;
        call.in.temperature = 1.0f;
        call.in.logits_dtype = (int32_t)(n / 3 % 3) + 1;
        call.in.kept = n / 9 % 2 ? &set : NULL;
        moments = n / 18 != 0;
        p = sb_cuda_plan_of(gpu, &out, &call, moments);
        plans++;
        if ((p.kind == SB_CUDA_KEPT) == (call.in.kept != NULL) && p.work == rows &&
            covers(&p, (vocab + SB_LEAF - 1) / SB_LEAF, moments) &&
            launches(&p, call.in.logits_dtype, gpu->clusters, gpu->shared, moments))
            continue;
        if (wrong++ == 0)
            printf("V = %lld, %lld rows, dtype %d, split %d, threads %d, cluster %d, table %d on "
                   "%d: kind "
                   "%d, split %d, %d threads, %lld whole; ",
                   (long long)vocab, (long long)rows, (int)call.in.logits_dtype,
                   (int)call.launch.split, (int)call.launch.threads, (int)call.launch.cluster,
                   (int)call.launch.table, gpu->multiprocessors, (int)p.kind, (int)p.split,
                   (int)p.threads, (long long)p.whole);
    }
    printf("%lld launches: %lld wrong\n", (long long)plans, (long long)wrong);
    return wrong == 0;
}
