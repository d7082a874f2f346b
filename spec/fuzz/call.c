/* call.c - sb_logprob on arguments made from bytes, right and wrong ones.
 *
 * What has to hold: an error, in words, exactly where samebits.h says so; outputs untouched by a
 * refusal, written whole by a success; the same bits again by another instruction set, with other
 * threads and pieces. */
#include <math.h>

#include "batches.h"
#include "results.h"
#include "target.h"

static void check_signs(const results *r)
{
    for (size_t i = 0; r->out.token && i < r->row_bytes / 4; i++)
        HOLDS(!(r->out.token[i] > 0), "token %zu is %.9g", i, (double)r->out.token[i]);
    for (size_t i = 0; r->out.entropy && i < r->row_bytes / 4; i++)
        HOLDS(!signbit(r->out.entropy[i]), "entropy %zu is %.9g", i, (double)r->out.entropy[i]);
    for (size_t i = 0; r->out.count && i < r->sequence_bytes; i++)
        HOLDS(r->out.count[i] >= 0, "count %zu is %lld", i, (long long)r->out.count[i]);
}

static void try_again(const sb_batch *batch, const sb_launch *launch, const results *first,
                      results *again)
{
    sb_launch ask = *launch;
    uint64_t room = 1;
    ask.needed = &room;
    HOLDS(sb_logprob(contexts[0], &again->out, batch, &ask) == SB_OK && room == 0, "workspace");
    HOLDS(untouched(again), "asking for the workspace");
    for (int i = 0; i < 2; i++) {
        HOLDS(sb_logprob(contexts[i], &again->out, batch, launch) == SB_OK, "%s",
              sb_last_error(contexts[i]));
        HOLDS(same_results(first, again), "isa %s", sb_context_isa(contexts[i]));
    }
}

/* more: outputs behind those that every struct has. */
static void try_call(const options *o, uint8_t more, const arrays *a, const sb_batch *batch)
{
    const part all = { 0, batch->vocab };
    results first = results_of(o->wanted, batch, a->rows, 0xa5);
    results again = results_of(o->wanted, batch, a->rows, 0x5a);
    sb_launch launch = o->launch;
    sb_status status;
    int right = is_right_out_size(o->out_size) && is_right_launch(&launch) &&
                is_right_batch(batch, a->rows, all);

    if (o->out_size != sizeof first.out || times(batch->batch, 8) < 0) more = 0;
    want_more(&first, more);
    want_more(&again, more);
    first.out.size = again.out.size = o->out_size;
    status = sb_logprob(contexts[0], &first.out, batch, &launch);
    check_status(status, contexts[0]);
    HOLDS((status == SB_OK) == right, "status %d (\"%s\")", (int)status,
          sb_last_error(contexts[0]));
    if (status != SB_OK) {
        HOLDS(untouched(&first), "%s", sb_last_error(contexts[0]));
        HOLDS(sb_logprob(contexts[1], &again.out, batch, &launch) == status, "%s",
              sb_last_error(contexts[0]));
        HOLDS(untouched(&again), "%s", sb_last_error(contexts[0]));
    } else {
        check_signs(&first);
        guard_logits(batch, a, all);
        launch.split = launch.split == 1 ? 3 : 1;
        try_again(batch, &launch, &first, &again);
    }
    free_results(&first);
    free_results(&again);
}

int fuzz_call(const uint8_t *data, size_t size)
{
    source s = { data, size };
    sb_batch batch = SB_BATCH_INIT;
    arrays a = { 0 };
    options o = options_of(&s);
    open_contexts();
    make_batch(&s, &a, &batch, NULL);
    try_call(&o, byte(&s), &a, &batch);
    free_arrays(&a);
    return 0;
}
