/* plan.c - see plan.h. */
#include "cuda/plan.h"

#include "api/call.h"
#include "cuda/args.h"
#include "det/moments.h"

#define WARP 32
#define RESIDENT 1536         /* threads of 40 registers that a multiprocessor holds */
#define RESIDENT_MOMENTS 1024 /* likewise, of 64 registers: with moments for the entropy */
#define MANY 5                /* blocks per multiprocessor: from here on, whole rows fill the GPU */
#define EAGER_BYTES (20 << 20)
#define DEEP 16          /* rows per multiprocessor from which the deep shape of a table pays */
#define FAST_MEMORY 15.0 /* bytes per cycle: above an H100's, below an H200's */
#define MOST_PIECES 8    /* of a row that groups share */
#define GROUP_BYTES 16   /* a gradient: the logits that a thread takes at once */
#define FEW_GROUPS 4     /* for each thread of a block, if the rows are few */
#define MANY_GROUPS 8    /* the same, if they are many */
#define LINE 64 /* long pieces begin on lines of 128 bytes, of 16-bit elements, if rows do */

static int64_t ceil_of(int64_t a, int64_t b) { return (a + b - 1) / b; }

int sb_cuda_phases(const sb_call *call)
{
    const int64_t stride = call->in.row_stride;
    if (call->in.logits_dtype == SB_F32 || stride % 8 == 0) return 0;
    return stride % 2 ? 8 : stride % 4 ? 4 : 2;
}

/* A block of at most `most` threads whose trips through a piece are as full as possible. */
static int32_t even_block(int64_t piece, int32_t most)
{
    int64_t trips = ceil_of(piece, most);
    return (int32_t)(ceil_of(ceil_of(piece, trips ? trips : 1), WARP) * WARP);
}

static void cut(sb_cuda_plan *p, sb_cuda_kind kind, int32_t split, int64_t leaves, int32_t most)
{
    p->kind = kind;
    p->whole = 0;
    p->split = split > leaves ? (int32_t)leaves : split;
    p->piece = ceil_of(leaves, p->split);
    p->threads = even_block(p->piece, most);
}

/* Each row in a cluster of n blocks. */
static int cut_for_clusters(sb_cuda_plan *p, int32_t n, int64_t leaves, int32_t most)
{
    cut(p, SB_CUDA_CLUSTER, n, leaves, most);
    return 1;
}

/* Rows of more than 4096 leaves: the largest clusters that all run at once. Warps come in fours,
 * one for each scheduler of a multiprocessor. */
static int cut_long_rows(sb_cuda_plan *p, const sb_cuda_gpu *gpu, int64_t leaves)
{
    int32_t n = gpu->clusters;
    while (n >= 2 && gpu->room[n] < p->work) n--;
    if (n < 2) return 0;
    cut(p, SB_CUDA_CLUSTER, n, leaves, n > 8 ? 384 : n > 2 ? 512 : 640);
    p->threads = (int32_t)ceil_of(p->threads, 4 * WARP) * 4 * WARP;
    return 1;
}

/* Shorter ones: their blocks have less to do, and up to three share a multiprocessor. */
static int cut_short_rows(sb_cuda_plan *p, const sb_cuda_gpu *gpu, int64_t leaves)
{
    const int64_t work = p->work, multiprocessors = gpu->multiprocessors;
    if (work <= gpu->room[gpu->clusters])
        return cut_for_clusters(p, gpu->clusters, leaves, gpu->clusters > 8 ? 320 : 416);
    if (work <= multiprocessors / 8) return cut_for_clusters(p, 8, leaves, 416);
    if (work <= gpu->room[4]) return cut_for_clusters(p, 4, leaves, 512);
    if (work <= multiprocessors / 2) return cut_for_clusters(p, 2, leaves, 544);
    if (work <= 3 * multiprocessors / 2) return cut_for_clusters(p, 4, leaves, 224);
    return work <= 3 * multiprocessors && cut_for_clusters(p, 2, leaves, 256);
}

/* Plans a call whose rows are too few to fill the GPU with one block per row. Returns 0 if there
 * are enough rows. */
static int choose_latency(sb_cuda_plan *p, const sb_cuda_gpu *gpu, int clusters, int64_t leaves)
{
    int64_t split = p->work > 0 ? 4 * gpu->multiprocessors / p->work : 1;
    if (clusters && leaves < 64) return 0;
    if (clusters)
        return leaves > 4096 ? cut_long_rows(p, gpu, leaves) : cut_short_rows(p, gpu, leaves);
    if (split > leaves / 256) split = leaves / 256;
    if (split < 2) return 0;
    cut(p, SB_CUDA_LATENCY, (int32_t)split, leaves, 256);
    return 1;
}

/* Threads per block if whole rows fill the GPU. */
static int32_t stream_block(int64_t waves, int phases, int32_t dtype, int fast)
{
    if (waves < 3) return 512;
    if (waves < MANY) return phases ? 384 : 256;
    if (phases) return waves < 62 ? 256 : 128;
    if (dtype == SB_F32) return fast ? 512 : 384;
    return dtype == SB_BF16 && waves < 62 ? 512 : 384;
}

/* Plans one block per row; the last rows, which would not fill the GPU, are cut into pieces. If
 * memory is slow for the GPU's instruction rate, all rows of fp32 are. */
static void choose_stream(sb_cuda_plan *p, const sb_cuda_gpu *gpu, int64_t leaves,
                          const sb_call *call, int moments)
{
    const int32_t dtype = call->in.logits_dtype;
    const int64_t work = p->work, waves = work / gpu->multiprocessors;
    const int fast = sb_cuda_bytes_per_cycle(gpu) >= FAST_MEMORY;
    int64_t resident, rest;

    if (dtype == SB_F32 && !fast && waves >= MANY && !moments && leaves >= 2 * 3 * 384) {
        cut(p, SB_CUDA_STREAM, (int32_t)(leaves / (3 * 384)), leaves, 384);
        p->threads = 384;
        return;
    }
    p->threads = stream_block(waves, sb_cuda_phases(call) == 8, dtype, fast);
    if (moments) p->threads = waves < 3 ? 512 : waves < MANY ? 256 : 128;
    resident = (int64_t)gpu->multiprocessors *
               ((moments ? RESIDENT_MOMENTS : RESIDENT) / p->threads);
    rest = work % resident;
    if (work > resident && rest > 0 && leaves >= 8 * p->threads) {
        p->whole = work - rest;
        p->split = dtype == SB_F16 ? 2 : 4;
        p->piece = ceil_of(leaves, p->split);
    }
}

/* ---- a table in shared memory ------------------------------------------------------------- */

uint32_t sb_cuda_table_bytes(const sb_batch *in)
{
    const uint32_t bits = sb_bits32(SB_CUDA_TABLE_OCTAVES / sb_row_of(in->temperature).c);
    return SB_CUDA_TABLE_BYTES(bits, in->logits_dtype);
}

/* Whether all rows start at multiples of 16 bytes. */
static int is_aligned(const sb_batch *in)
{
    const int64_t chunk = 16 / (int64_t)sb_itemsize(in->logits_dtype);
    return (uintptr_t)in->logits % 16 == 0 && in->row_stride % chunk == 0 &&
           (in->cu_seqlens || in->batch <= 1 || in->batch_stride % chunk == 0);
}

/* Whether the kernels with a table can serve a call. */
static int table_serves(const sb_cuda_gpu *gpu, const sb_call *call)
{
    const sb_batch *in = &call->in;
    if (in->logits_dtype == SB_F16 && in->temperature < 1.0f / 64) return 0; /* see raise_words */
    return in->logits_dtype != SB_F32 && in->vocab > 0 && !sb_has_kept(in) && !in->temperatures &&
           sb_cuda_table_bytes(in) <= (uint32_t)gpu->shared;
}

/* Whether there are enough rows for them to be faster. A table of bf16 is filled soon. With long
 * rows it pays as soon as blocks of whole rows would leave multiprocessors idle: with more than one
 * row each, or with far fewer. */
static int has_rows_for_table(const sb_cuda_gpu *gpu, int64_t work, int64_t leaves, int32_t dtype)
{
    const int64_t each = gpu->multiprocessors;
    if (work >= 3 * each) return 1;
    return dtype == SB_BF16 && leaves > 4096 &&
           (work > each || (work > gpu->room[2] && work <= 2 * each / 3));
}

/* Whether they are faster, if there are enough rows. A low temperature brings many leaves out of
 * the table's reach. */
static int table_pays(const sb_cuda_gpu *gpu, const sb_call *call)
{
    const sb_launch *launch = &call->launch;
    return !launch->split && !launch->threads && launch->cluster <= 0 &&
           sb_cuda_bytes_per_cycle(gpu) >= FAST_MEMORY && call->in.temperature >= 0.5f &&
           call->in.vocab > 1023 * SB_LEAF;
}

int sb_cuda_takes_table(const sb_cuda_gpu *gpu, const sb_call *call, int64_t each)
{
    const int64_t leaves = ceil_of(call->in.vocab, SB_LEAF);
    const int64_t work = call->in.row_list ? call->in.row_count : call->rows;
    const int enough = each ? work >= each * gpu->multiprocessors
                            : has_rows_for_table(gpu, work, leaves, call->in.logits_dtype);
    return call->launch.table >= 0 && is_aligned(&call->in) && table_serves(gpu, call) &&
           (call->launch.table > 0 || (enough && table_pays(gpu, call)));
}

/* Each of the groups takes the same number of whole rows; the others are shared evenly. */
static void share_among(sb_cuda_plan *p, int multiprocessors, int64_t groups, int64_t leaves,
                        const sb_batch *in)
{
    const int64_t last = p->work % groups; /* rows; almost one per group are better left whole */
    const int64_t tail = last * 16 > groups * 15 ? 0 : last;
    p->split = 1;
    p->blocks = p->work ? multiprocessors : 0;
    p->groups = groups;
    p->whole = p->work - tail;
    p->tail_each = tail * leaves / groups;
    p->tail_more = tail * leaves % groups;
    p->table = sb_cuda_table_bytes(in);
}

/* Plans aligned rows with a table. */
static void share(sb_cuda_plan *p, int multiprocessors, int64_t leaves, const sb_batch *in)
{
    const int is_deep = in->logits_dtype == SB_BF16 && p->work >= DEEP * multiprocessors;
    const int32_t block = is_deep ? SB_CUDA_DEEP_BLOCK : SB_CUDA_TABLE_BLOCK;
    const int32_t group = is_deep ? SB_CUDA_DEEP_GROUP : SB_CUDA_TABLE_GROUP;
    share_among(p, multiprocessors, (int64_t)multiprocessors * (block / group), leaves, in);
    p->kind = is_deep ? SB_CUDA_DEEP : SB_CUDA_TABLE;
    p->threads = block;
}

#define BLOCK_WARPS (SB_CUDA_TABLE_BLOCK / WARP)

/* How many warps of a block take an unaligned row together: as many as leave no row without one, if
 * few warps are left without a row. */
static int32_t row_warps(int64_t warps, int64_t work, const sb_launch *launch)
{
    int32_t n = SB_CUDA_MOST_WARPS;
    while (n > 1 && work * n > warps) n /= 2;
    if (launch->table > 0 && launch->split) {
        while (n > launch->split) n /= 2;
        return n;
    }
    return 8 * work * n >= 7 * warps ? n : 1;
}

/* Plans unaligned rows with a table. Returns 0 if it does not pay, which nobody has measured for
 * fp16. */
static int share_unaligned(sb_cuda_plan *p, const sb_cuda_gpu *gpu, int64_t leaves,
                           const sb_call *call)
{
    const sb_launch *launch = &call->launch;
    const int64_t warps = (int64_t)gpu->multiprocessors * BLOCK_WARPS;
    const int32_t split = row_warps(warps, p->work, launch);
    const int pays = call->in.logits_dtype == SB_BF16 && table_pays(gpu, call) &&
                     p->work >= (split == 1 ? 8 : 3) * gpu->multiprocessors;
    if (launch->table < 0 || call->rows > INT32_MAX || !table_serves(gpu, call)) return 0;
    if (launch->table == 0 && !pays) return 0;
    share_among(p, gpu->multiprocessors, warps, leaves, &call->in);
    p->kind = SB_CUDA_UNALIGNED;
    p->threads = SB_CUDA_TABLE_BLOCK;
    p->split = split;
    if (split == 1) return 1;
    p->whole = p->work;
    p->piece = ceil_of(ceil_of(leaves, split), WARP) * WARP; /* whole trips */
    p->tail_each = p->tail_more = 0;
    return 1;
}

sb_cuda_shares sb_cuda_shares_of(int64_t work, int64_t groups, int64_t leaves)
{
    const int64_t rest = work % groups;
    sb_cuda_shares shares = { work, 1, leaves };
    for (int32_t split = 2; split <= MOST_PIECES && split <= leaves; split++)
        if (ceil_of(rest * split, groups) * shares.split <
            ceil_of(rest * shares.split, groups) * split)
            shares.split = split;
    if (shares.split > 1) shares.single = work - rest;
    shares.piece = ceil_of(leaves, shares.split);
    return shares;
}

/* Plans aligned rows with a table and with moments. A second launch finishes all rows. */
static void share_moments(sb_cuda_plan *p, int multiprocessors, int64_t leaves, const sb_batch *in)
{
    const int64_t groups = (int64_t)multiprocessors * (SB_CUDA_TABLE_BLOCK / SB_CUDA_TABLE_GROUP);
    const sb_cuda_shares shares = sb_cuda_shares_of(p->work, groups, leaves);
    p->kind = SB_CUDA_TABLE;
    p->threads = SB_CUDA_TABLE_BLOCK;
    p->blocks = p->work ? multiprocessors : 0;
    p->groups = groups;
    p->table = sb_cuda_table_bytes(in);
    p->whole = 0;
    p->single = shares.single;
    p->split = shares.split;
    p->piece = shares.piece;
}

/* ---- lists of kept ids -------------------------------------------------------------------- */

#define LIST_TRIP 8          /* ids that a thread takes at once: see kernels/lists.cu */
#define LIST_WARPS 32        /* per multiprocessor, that run at once */
#define LIST_PIECE (1 << 13) /* ids of a piece */

/* Plans rows that keep lists, whose lengths the host does not know: only their mean. More warps
 * take a row if the rows are few, or long. */
static void plan_lists(sb_cuda_plan *p, const sb_cuda_gpu *gpu, const sb_call *call)
{
    const int64_t each = call->in.kept_count / (call->rows > 0 ? call->rows : 1);
    const int64_t warps = (int64_t)gpu->multiprocessors * LIST_WARPS;
    int64_t split = call->launch.split;
    p->kind = SB_CUDA_LISTS;
    p->threads = WARP;
    while (p->threads < SB_CUDA_MAX_BLOCK &&
           ((each > 2 * p->threads && p->work * (p->threads / WARP) <= warps / 2) ||
            each > 16 * LIST_TRIP * p->threads))
        p->threads *= 2;
    if (call->launch.threads) p->threads = call->launch.threads;
    if (!split && p->work > 0 && p->work < gpu->multiprocessors) {
        split = ceil_of(each, LIST_PIECE);
        if (split > 2 * gpu->multiprocessors / p->work) split = 2 * gpu->multiprocessors / p->work;
    }
    p->split = split > 1 ? (int32_t)split : 1;
    p->whole = p->split == 1 ? p->work : 0;
}

/* ---- the choice --------------------------------------------------------------------------- */

/* Applies the choices that the call makes. */
static void force(sb_cuda_plan *p, int clusters, int64_t leaves, const sb_launch *launch)
{
    int32_t split = launch->split > leaves ? (int32_t)leaves : launch->split;
    sb_cuda_kind kind = SB_CUDA_STREAM;
    if (split > 1 && launch->cluster >= 0) kind = SB_CUDA_LATENCY;
    if (split > 1 && split <= clusters && launch->cluster > 0) kind = SB_CUDA_CLUSTER;
    cut(p, kind, split, leaves, 256);
    if (split == 1) p->whole = p->work;
}

static int has_row_warp(const sb_cuda_plan *p)
{
    return p->kind == SB_CUDA_LATENCY || p->kind == SB_CUDA_CLUSTER;
}

/* The same plan, with the bytes of scratch memory that it needs. A group's states of the rows that
 * it shares lie at the group's number plus the row's. */
static sb_cuda_plan with_scratch(sb_cuda_plan p, const sb_logprob_out *out, const sb_call *call,
                                 int moments)
{
    const int64_t cut_rows = p.kind == SB_CUDA_CLUSTER ? 0 : p.work - p.whole;
    const int64_t states = p.groups && !moments ? p.groups + cut_rows
                                                : p.single + (cut_rows - p.single) * p.split;
    const uint64_t size = moments ? sizeof(sb_moments) : sizeof(sb_state);
    p.states = cut_rows ? (uint64_t)states * size : 0;
    p.targets = (uint64_t)cut_rows * sizeof(sb_cuda_target);
    p.tokens = sb_cuda_token_bytes(out, call->rows);
    p.strays = p.kind == SB_CUDA_LISTS && out->outside ? (uint64_t)call->rows : 0;
    return p;
}

uint64_t sb_cuda_token_bytes(const sb_logprob_out *out, int64_t rows)
{
    return out->sequence && !out->token ? (uint64_t)rows * sizeof(float) : 0;
}

double sb_cuda_bytes_per_cycle(const sb_cuda_gpu *gpu)
{
    const double bits = 2.0 * gpu->memory_clock * gpu->memory_bits; /* per ms; two per cycle */
    const double cycles = (double)gpu->multiprocessors * gpu->clock;
    return cycles > 0 ? bits / 8 / cycles : 0;
}

sb_cuda_plan sb_cuda_plan_of(const sb_cuda_gpu *gpu, const sb_logprob_out *out, const sb_call *call,
                             int moments)
{
    const int multiprocessors = gpu->multiprocessors;
    const int64_t leaves = ceil_of(call->in.vocab, SB_LEAF);
    const int64_t bytes = call->in.vocab * (sb_itemsize(call->in.logits_dtype));
    sb_cuda_plan p = { .kind = SB_CUDA_STREAM, .threads = 256, .split = 1, .piece = leaves };
    const int kept = call->in.kept != NULL, clusters = kept || moments ? 0 : gpu->clusters;

    p.work = call->in.row_list ? call->in.row_count : call->rows;
    p.whole = p.work;
    if (call->in.kept_offsets && !call->in.kept) {
        plan_lists(&p, gpu, call);
        return with_scratch(p, out, call, moments);
    }
    if (sb_cuda_takes_table(gpu, call, moments ? 3 : 0) &&
        (!moments || call->in.logits_dtype == SB_BF16)) {
        if (moments) share_moments(&p, multiprocessors, leaves, &call->in);
        else share(&p, multiprocessors, leaves, &call->in);
        p.eager = !moments && call->launch.cluster >= 0 && p.work * bytes <= EAGER_BYTES;
        return with_scratch(p, out, call, moments);
    }
    if (!moments && !is_aligned(&call->in) && share_unaligned(&p, gpu, leaves, call))
        return with_scratch(p, out, call, moments);
    if (call->launch.split) force(&p, clusters, leaves, &call->launch);
    else if (!choose_latency(&p, gpu, call->launch.cluster < 0 ? 0 : clusters, leaves))
        choose_stream(&p, gpu, leaves, call, moments);
    if (call->launch.cluster < 0 || moments) p.kind = SB_CUDA_STREAM;
    if (kept) {
        sb_cuda_plan_evenly(&p, call);
        p.kind = SB_CUDA_KEPT;
        p.whole = 0;
    }
    if (p.threads > even_block(p.piece, 1024)) p.threads = even_block(p.piece, 1024);
    if (call->launch.threads) p.threads = call->launch.threads;
    p.eager = has_row_warp(&p) && p.work * bytes <= EAGER_BYTES;

    return with_scratch(p, out, call, moments);
}

void sb_cuda_plan_evenly(sb_cuda_plan *p, const sb_call *call)
{
    if (p->whole == 0) return;
    p->whole = p->work;
    p->split = 1;
    p->piece = ceil_of(call->in.vocab, SB_LEAF);
}

sb_cuda_pieces sb_cuda_pieces_of(int multiprocessors, int64_t rows, int64_t width, int32_t itemsize,
                                 int32_t split, int32_t threads)
{
    const int64_t group = (int64_t)threads * (GROUP_BYTES / itemsize);
    const int64_t resident = (int64_t)multiprocessors * (RESIDENT / threads);
    sb_cuda_pieces p = { 8, 1 };
    int64_t unit;
    if (width == 0) return p;
    p.pieces = split ? split : ceil_of(width, MANY_GROUPS * group);
    if (!split && rows * p.pieces < 4 * resident) p.pieces = ceil_of(width, FEW_GROUPS * group);
    unit = width / p.pieces < 16 * LINE ? 8 : LINE;
    p.piece = ceil_of(ceil_of(width, p.pieces), unit) * unit;
    p.pieces = ceil_of(width, p.piece);
    return p;
}

int64_t sb_cuda_blocks(const sb_cuda_plan *p)
{
    if (p->groups) return p->blocks;
    return p->whole + (p->work - p->whole) * p->split;
}

/* Latency and cluster kernels have one more warp, which sums nothing. */
int32_t sb_cuda_block(const sb_cuda_plan *p) { return p->threads + (has_row_warp(p) ? WARP : 0); }

uint32_t sb_cuda_shared(const sb_cuda_plan *p, int32_t dtype)
{
    const uint32_t size = dtype == SB_F32 ? 4 : 2;
    if (p->kind == SB_CUDA_KEPT) return 0;
    if (p->kind == SB_CUDA_LISTS) return (uint32_t)p->threads * SB_CUDA_LIST_BYTES;
    if (p->groups) return p->table;
    if (has_row_warp(p))
        return (uint32_t)p->threads / WARP * (SB_CUDA_RING / SB_CUDA_LANE_BYTES(size)) *
               SB_CUDA_SLOT(WARP, size);
    return dtype == SB_F32 ? 0 : (uint32_t)p->threads * 2 * SB_LEAF * 2; /* load.cuh, staging */
}
