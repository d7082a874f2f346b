/* one_read.cu - logprobs and their gradient with the logits read once.
 *
 *   token[r] and the other results of logprob.cu; grad[r, i] of gradient.cu, for a loss of logprobs
 *
 * Shapes: logits [rows, V] and grad [rows, V], bf16, each row 16-byte aligned, V a multiple of 8;
 * grad may take the logits' place. Everything else in src/cuda/args.h.
 *
 * A team of a.team blocks takes every a.teams-th row. Each block has a slice of the row, a whole
 * number of trips (512 logits, 32 leaves), in a ring in its shared memory. Slices of about 2.4 rows
 * are on their way or at work:
 *
 *     copy warps   copy slices into the ring, in chunks of CHUNK trips
 *     trip warps   sum the trips of row k + 1, then make the gradient of row k
 *     row warps    merge the warps' states, exchange them in the team (team.cuh), and make the
 *                  row's constants and results; each has every second row
 *
 *     trips -> lane's state -> warp -> block (row warp) -> team -> constants -> trips of the ring
 *
 * Trips are counted through all rows, and trip warp w takes trips w, w + SB_CUDA_TRIP_WARPS and so
 * on, so the warps wait for each other only by way of the ring and of the rows' constants. Rows
 * that are ignored or refused have their place in the ring, too, but nothing is copied.
 *
 *     one_read_bf16_bf16_token   grid teams * team, SB_CUDA_ONE_READ_THREADS threads,
 *                                SB_CUDA_ONE_READ_SHARED bytes of dynamic shared memory,
 *                                cooperative. Compute capability 9.0
 *     one_read_bf16_bf16_policy, one_read_bf16_bf16_clip, one_read_bf16_bf16_clip_k3
 *                                the same for the gradient of a policy loss of the logprobs: any
 *                                loss, a clipped ratio, that with a KL term of the third kind
 *     one_read_refuse            any grid: makes this gradient NaN, if the step's totals prove too
 *                                small once the loss has counted its tokens
 *
 * Nothing waits forever: all blocks run at the same time; a row warp waits for the same row of the
 * other blocks; and the ring has room for two slices and a chunk, so a row's sum never waits for a
 * later row's. */
#include "../src/cuda/one_read_args.h"

#define CHUNK 8 /* trips that are copied at once */
#define CHUNKS (SB_CUDA_RING_TRIPS / CHUNK)
#define TRIP_BYTES (2 * SB_CUDA_TRIP)
#define WORKERS (WARP * (SB_CUDA_TRIP_WARPS + SB_CUDA_ROW_WARPS)) /* threads that fill the table */

#include "one_read_row.cuh"

#if __CUDA_ARCH__ >= 900

/* Terms of a leaf that are looked up: lower halves, upper halves. */
#define SUM_TERMS 8, 3
#define GRADIENT_TERMS 8, 3

#define ABSENT 0xff80ff80u /* two bf16 */

/* A block's slice of its team's rows. */
struct slice_of_rows {
    int team, rank;
    int rows;         /* of the team */
    int first, trips; /* of a row: the block's first trip, and how many it has */
    int last_bytes;   /* of the last trip, up to the row's end; may be more than the trip has */
};

SB_DET slice_of_rows slice_of_block(const sb_cuda_one_read_args &a)
{
    const uint32_t team = a.team, teams = a.teams, trips = a.trips, block = blockIdx.x;
    const uint32_t rows = (uint32_t)a.gradient.in.rows, rank = block % team;
    slice_of_rows s;
    s.team = (int)(block / team), s.rank = (int)rank;
    s.rows = s.team < rows ? (int)((rows - s.team + teams - 1) / teams) : 0;
    s.first = (int)(rank * trips / team);
    s.trips = (int)((rank + 1) * trips / team) - s.first;
    s.last_bytes = (int)a.gradient.in.vocab * 2 - (s.first + s.trips - 1) * TRIP_BYTES;
    return s;
}

/* ---- copy warps --------------------------------------------------------------------------- */

/* The rows of the team whose logits must be read, of 32 from row k on: bit i is row k + i. Called
 * by the whole warp. */
SB_DET uint32_t rows_to_copy(const sb_cuda_one_read_args &a, const slice_of_rows &s, int k)
{
    const int mine = k + (int)(threadIdx.x % WARP);
    const int64_t source = s.team + (int64_t)mine * a.teams;
    return __ballot_sync(FULL, mine < s.rows && find_scored(a.gradient.in, source, false).kind ==
                                                    ONE_READ_FORMULA);
}

/* Absent logits: the trip warps add nothing. Called by the whole warp. */
SB_DET void fill_absent(shared_address to, int bytes)
{
    const uint4 absent = { ABSENT, ABSENT, ABSENT, ABSENT };
    for (int i = threadIdx.x % WARP * 16; i < bytes; i += WARP * 16) store16_shared(to + i, absent);
    order_before_copies();
}

/* Copies the block's slices: copy warp w takes every SB_CUDA_COPY_WARPS-th chunk. A chunk may hold
 * the end of a row and the beginning of the next. */
SB_DET void copy_slices(const sb_cuda_one_read_args &a, one_read_memory *mine, slice_of_rows s,
                        int w)
{
    const bool leads = threadIdx.x % WARP == 0;
    const int last_bytes = min(s.last_bytes, TRIP_BYTES);
    const int64_t step = a.teams * a.gradient.in.row_stride * 2;
    const char *row = (const char *)a.gradient.in.logits + s.team * a.gradient.in.row_stride * 2 +
                      s.first * TRIP_BYTES; /* row k's slice */
    shared_address ring = address_of(mine->ring), barriers = address_of(mine->loaded);
    hide(ring), hide(barriers);
    int k = 0, trip = w * CHUNK, total = s.rows * s.trips - w * CHUNK; /* total: trips left */
    int chunk = w;
    uint32_t active = rows_to_copy(a, s, 0), parity = 2; /* 2: the chunk has not been used */
    while (total > 0) {
        const shared_address loaded = barriers + chunk * 8;
        shared_address to = ring + chunk * (CHUNK * TRIP_BYTES);
        int room = min(total, CHUNK);
        if (parity != 2) wait_for_phase(loaded + CHUNKS * 8, parity); /* until the chunk is free */
        while (room > 0) {
            while (trip >= s.trips) {
                trip -= s.trips;
                row += step;
                if (++k % WARP == 0) active = rows_to_copy(a, s, k);
            }
            const int trips = min(room, s.trips - trip);
            const int bytes = trips * TRIP_BYTES -
                              (trips == s.trips - trip ? TRIP_BYTES - last_bytes : 0);
            room -= trips;
            if (!(active >> (k % WARP) & 1)) {
                fill_absent(to, trips * TRIP_BYTES);
            } else if (leads) {
                expect_copy(loaded, bytes);
                copy_bulk(to, row + trip * TRIP_BYTES, bytes, loaded);
            }
            trip += trips;
            to += trips * TRIP_BYTES;
        }
        arrive_as_warp(loaded);
        total -= SB_CUDA_COPY_WARPS * CHUNK;
        trip += (SB_CUDA_COPY_WARPS - 1) * CHUNK;
        chunk += SB_CUDA_COPY_WARPS;
        if (chunk >= CHUNKS) chunk -= CHUNKS, parity = parity == 2 ? 0 : parity ^ 1;
    }
}

/* ---- trip warps --------------------------------------------------------------------------- */

/* A warp's place among its block's trips. */
struct trip_place {
    int left;      /* trips of the row from the warp's next one on; none if not above 0 */
    uint32_t slot; /* of the warp's next trip: its offset in the ring */
};

/* Goes on to the warp's next trip. Returns whether it begins another round of the ring. */
SB_DET bool next_trip(trip_place *at)
{
    at->left -= SB_CUDA_TRIP_WARPS;
    at->slot += SB_CUDA_TRIP_WARPS * TRIP_BYTES;
    if (at->slot < SB_CUDA_RING_TRIPS * TRIP_BYTES) return false;
    at->slot -= SB_CUDA_RING_TRIPS * TRIP_BYTES;
    return true;
}

/* The barrier of a slot's chunk. */
SB_DET shared_address barrier_of(shared_address barriers, uint32_t slot)
{
    return barriers + slot / (CHUNK * TRIP_BYTES) * 8;
}

/* What a lane keeps for the whole launch. */
struct lane_constants {
    float c, k64;
    pair_table table;
};

/* Makes the ids of a leaf that are not below V absent. present: bytes of the row from the leaf's
 * start on. */
SB_DET void end_leaf(shared_address leaf, int present)
{
    const uint4 absent = { ABSENT, ABSENT, ABSENT, ABSENT };
    if (present >= 32) return;
    if (present <= 0) store16_shared(leaf, absent);
    store16_shared(leaf + 16, absent);
    order_before_copies();
}

SB_DET leaf_words<SB_CUDA_BF16> two_halves(shared_address first, shared_address second)
{
    const uint4 a = load16_shared(first), b = load16_shared(second);
    return { { a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w } };
}

/* Sums a warp's trips of row k, and hands the state to the row warps. */
SB_DET void sum_trips(const sb_cuda_one_read_args &a, one_read_memory *mine, const slice_of_rows &s,
                      const lane_constants &own, trip_place *at, uint32_t *parity, int k)
{
    const int lane = threadIdx.x % WARP;
    /* half of the lanes read their second 16 bytes first, so that no bank is met twice */
    const shared_address leaves = address_of(mine->ring) + lane * 32 + (lane & 4) * 4;
    table_state t;
    t.low = NO_BASE;
    sb_state_init(&t.s, own.c);
    while (at->left > 0) {
        const shared_address leaf = leaves + at->slot;
        wait_for_phase(barrier_of(address_of(mine->loaded), at->slot), *parity);
        if (at->left == 1) end_leaf(leaf & ~16u, s.last_bytes - lane * 32);
        leaf_words<SB_CUDA_BF16> x = two_halves(leaf, leaf ^ 16);
        add_leaf<SUM_TERMS>(&t, x, leaf & ~16u, own.c, own.k64, a.gradient.in.row.lim, own.table);
        if (next_trip(at)) *parity ^= 1;
    }
    at->left += s.trips;
    warp_merge(&t.s);
    if (lane == 0) mine->states[k % IN_FLIGHT][threadIdx.x / WARP] = t.s;
    arrive_as_warp(address_of(&mine->summed[k % IN_FLIGHT]));
}

/* The gradients of 16 logits by the table. */
SB_DET void gradients_by_table(leaf_words<SB_CUDA_BF16> &x, float scale, float c,
                               const pair_table &table)
{
    float v[16];
    pair_terms<GRADIENT_TERMS>(v, x.w, c, table);
#pragma unroll
    for (int i = 0; i < 8; i++)
        x.w[i] = pair_of_bf16(sb_fma32(v[2 * i], scale, 0.0f), sb_fma32(v[2 * i + 1], scale, 0.0f));
}

/* Stores a lane's gradients of a trip: 8 elements at grad, if first, and 8 half a trip behind them,
 * if second. */
SB_DET void store_trip(char *grad, const leaf_words<SB_CUDA_BF16> &x, bool first, bool second)
{
    const uint4 a = { x.w[0], x.w[1], x.w[2], x.w[3] }, b = { x.w[4], x.w[5], x.w[6], x.w[7] };
    if (first) store16(grad, a);
    if (second) store16(grad + TRIP_BYTES / 2, b);
}

/* The gradients of 16 logits by det/gradient.h. */
SB_DET void gradients_by_formula(leaf_words<SB_CUDA_BF16> &x, const sb_gradient_row &g)
{
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const float low = unpack<SB_CUDA_BF16>(x, 2 * i), high = unpack<SB_CUDA_BF16>(x, 2 * i + 1);
        if (g.plain)
            x.w[i] = pair_of_bf16(sb_gradient_plain(low, &g, SB_OF_TOKEN),
                                  sb_gradient_plain(high, &g, SB_OF_TOKEN));
        else
            x.w[i] = sb_to_bf16(sb_gradient_at(low, &g, SB_OF_TOKEN)) |
                     (uint32_t)sb_to_bf16(sb_gradient_at(high, &g, SB_OF_TOKEN)) << 16;
    }
}

/* Makes and stores what gradients_by_table alone cannot make. If all other logits are in the
 * table's range, absent ones are looked up as 0, and their gradients are cleared. A function of its
 * own, so that it takes no registers from the hot loop. */
static __device__ __noinline__ void store_beside_table(char *grad, leaf_words<SB_CUDA_BF16> x,
                                                       const one_read_row *row, pair_table table,
                                                       bool first, bool second)
{
    leaf_words<SB_CUDA_BF16> y;
    uint32_t absent[8], low = row->least;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        absent[i] = equal_pair_bf16(x.w[i], ABSENT);
        y.w[i] = x.w[i] & ~absent[i];
        low = min_pair_bf16(low, y.w[i]);
    }
    if (row->kind != ONE_READ_FORMULA) {
        const uint32_t word = row->kind == ONE_READ_NAN ? 0x7fc07fc0u : 0;
#pragma unroll
        for (int i = 0; i < 8; i++) x.w[i] = word;
    } else if (low == row->least) {
        gradients_by_table(y, row->scale, row->g.c, table);
#pragma unroll
        for (int i = 0; i < 8; i++) x.w[i] = y.w[i] & ~absent[i];
    } else {
        gradients_by_formula(x, row->g);
    }
    store_trip(grad, x, first, second);
}

/* Stores the target's gradient over that of its logit. */
SB_DET void store_target(char *grad, int place, float own)
{
    hide(grad); /* so that no address is kept for this */
    ((uint16_t *)grad)[place] = (uint16_t)sb_to_bf16(own);
}

/* Makes the gradient of a warp's trips of row k. grad is where the lane's part of the warp's next
 * trip goes; returned is where that of the row's trip behind the last goes. */
SB_DET char *make_gradient(one_read_memory *mine, const slice_of_rows &s, const lane_constants &own,
                           trip_place *at, char *grad, int k)
{
    const int lane = threadIdx.x % WARP;
    const one_read_row *row = &mine->rows[k % IN_FLIGHT];
    wait_for_phase(address_of(&mine->ready[k % IN_FLIGHT]), k / IN_FLIGHT & 1);
    const uint32_t least = row->least;
    const float scale = row->scale;
    /* where the target is, from the lane's first element of the slice's end on; -1 is not there */
    const int target = row->target - (s.first + s.trips) * SB_CUDA_TRIP - lane * 8;
    while (at->left > 0) {
        const shared_address group = address_of(mine->ring) + lane * 16 + at->slot;
        leaf_words<SB_CUDA_BF16> x = two_halves(group, group + TRIP_BYTES / 2);
        const bool inner = at->left > 1;
        const bool first = inner || lane * 16 < s.last_bytes;
        const bool second = inner || TRIP_BYTES / 2 + lane * 16 < s.last_bytes;
        uint32_t low = least;
#pragma unroll
        for (int i = 0; i < 8; i++) low = min_pair_bf16(low, x.w[i]);
        const shared_address free = barrier_of(address_of(mine->free), at->slot);
        if (__builtin_expect(__all_sync(FULL, low == least), 1)) {
            arrive_as_warp(free); /* all lanes have read the trip */
            gradients_by_table(x, scale, own.c, own.table);
            store_trip(grad, x, first, second);
        } else {
            store_beside_table(grad, x, row, own.table, first, second);
            arrive_as_warp(free);
        }
        const int place = target + at->left * SB_CUDA_TRIP; /* from the lane's first element on */
        if ((place & ~(7 | SB_CUDA_TRIP / 2)) == 0)         /* among the lane's */
            store_target(grad, place, row->own);
        next_trip(at);
        grad += SB_CUDA_TRIP_WARPS * TRIP_BYTES;
    }
    at->left += s.trips;
    return grad;
}

/* A warp sums its trips of row k + 1 and then makes the gradient of its trips of row k, whose
 * constants come from the row warps meanwhile. */
SB_DET void work_on_trips(const sb_cuda_one_read_args &a, one_read_memory *mine,
                          const slice_of_rows &s)
{
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const volatile one_read_memory *shared = mine;
    const lane_constants own = { shared->c[lane],
                                 shared->k64[lane],
                                 { shared->terms[lane].zero, shared->terms[lane].last } };
    char *grad = (char *)a.gradient.grad + s.team * a.gradient.row_stride * 2 +
                 (s.first + warp) * TRIP_BYTES + lane * 16;
    trip_place sum = { s.trips - warp, (uint32_t)warp * TRIP_BYTES }, gradient = sum;
    uint32_t parity = 0;
    for (int k = 0; k <= s.rows; k++) {
        if (k < s.rows) sum_trips(a, mine, s, own, &sum, &parity, k);
        if (k == 0) continue;
        grad = make_gradient(mine, s, own, &gradient, grad, k - 1);
        grad += a.teams * a.gradient.row_stride * 2 - s.trips * TRIP_BYTES;
    }
}

/* ---- the kernel --------------------------------------------------------------------------- */

SB_DET void make_barriers(one_read_memory *mine)
{
    for (int i = 0; i < CHUNKS; i++) {
        make_barrier(&mine->loaded[i], ARRIVALS);
        make_barrier(&mine->free[i], CHUNK * ARRIVALS);
    }
    for (int i = 0; i < IN_FLIGHT; i++) {
        make_barrier(&mine->summed[i], SB_CUDA_TRIP_WARPS * ARRIVALS);
        make_barrier(&mine->ready[i], ARRIVALS);
    }
    publish_barriers();
}

extern __shared__ __align__(128) char one_read_shared[];

/* policy: null, or the loss that the gradient is of. */
template <rules_kind KIND>
SB_DET void one_read_block(const sb_cuda_one_read_args &a, const sb_cuda_policy_args *policy)
{
    one_read_memory *mine = (one_read_memory *)one_read_shared;
    const sb_row &row = a.gradient.in.row;
    const slice_of_rows s = slice_of_block(a);
    const int warp = threadIdx.x / WARP;
    if (threadIdx.x == 0) make_barriers(mine);
    if (threadIdx.x < WARP) {
        mine->c[threadIdx.x] = row.c;
        mine->k64[threadIdx.x] = row.k64;
        mine->terms[threadIdx.x] = pairs_at(mine->table, a.least);
    }
    __syncthreads(); /* the barriers and constants are there */
    if (warp >= SB_CUDA_TRIP_WARPS + SB_CUDA_ROW_WARPS) {
        copy_slices(a, mine, s, warp - SB_CUDA_TRIP_WARPS - SB_CUDA_ROW_WARPS);
        return;
    }
    fill_pairs(mine->table, a.least, row.c, threadIdx.x, WORKERS);
    meet<WORKERS>(); /* the table is there */
    if (warp < SB_CUDA_TRIP_WARPS) work_on_trips(a, mine, s);
    else make_rows<KIND>(a, policy, mine, s.team, s.rank, s.rows, warp - SB_CUDA_TRIP_WARPS);
}

#endif

extern "C" __global__ void __launch_bounds__(SB_CUDA_ONE_READ_THREADS, 1)
    one_read_bf16_bf16_token(const __grid_constant__ sb_cuda_one_read_args a)
{
#if __CUDA_ARCH__ >= 900
    one_read_block<RULES_NONE>(a, nullptr);
#endif
}

extern "C" __global__ void __launch_bounds__(SB_CUDA_ONE_READ_THREADS, 1)
    one_read_bf16_bf16_policy(const __grid_constant__ sb_cuda_one_read_policy_args a)
{
#if __CUDA_ARCH__ >= 900
    one_read_block<RULES_ANY>(a.once, &a.policy);
#endif
}

extern "C" __global__ void __launch_bounds__(SB_CUDA_ONE_READ_THREADS, 1)
    one_read_bf16_bf16_clip(const __grid_constant__ sb_cuda_one_read_policy_args a)
{
#if __CUDA_ARCH__ >= 900
    one_read_block<RULES_CLIP>(a.once, &a.policy);
#endif
}

extern "C" __global__ void __launch_bounds__(SB_CUDA_ONE_READ_THREADS, 1)
    one_read_bf16_bf16_clip_k3(const __grid_constant__ sb_cuda_one_read_policy_args a)
{
#if __CUDA_ARCH__ >= 900
    one_read_block<RULES_CLIP_K3>(a.once, &a.policy);
#endif
}

extern "C" __global__ void __launch_bounds__(SB_CUDA_ONE_READ_REFUSERS)
    one_read_refuse(const __grid_constant__ sb_cuda_one_read_policy_args a)
{
#if __CUDA_ARCH__ >= 900
    const sb_cuda_gradient_args &to = a.once.gradient;
    const uint4 nan = { 0x7fc07fc0u, 0x7fc07fc0u, 0x7fc07fc0u, 0x7fc07fc0u };
    wait_for_primary();
    if (!are_totals_short(a.policy)) return;
    for (int64_t row = blockIdx.x; row < to.in.rows; row += gridDim.x) {
        if (find_scored(to.in, row, false).kind == ONE_READ_ZERO) continue;
        char *const grad = (char *)to.grad + row * to.row_stride * 2;
        for (int64_t i = threadIdx.x; i < to.width / 8; i += SB_CUDA_ONE_READ_REFUSERS)
            store16(grad + i * 16, nan);
    }
#endif
}
