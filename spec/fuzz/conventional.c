/* conventional.c - sb_conventional_logprob on arguments made from bytes, like sb_logprob in call.c.
 *
 * What has to hold: the same refusals; outputs untouched by them, written whole by a success; the
 * same call gives the same bits. */
#include "samebits_conventional.h"

#include "batches.h"
#include "results.h"
#include "target.h"

static void try_call(const options *o, const arrays *a, const sb_batch *batch)
{
    const part all = { 0, batch->vocab };
    const sb_launch *launch = &o->launch;
    int right = is_right_out_size(o->out_size) && is_right_launch(launch) && !launch->cluster &&
                !batch->kept && !batch->kept_offsets && is_right_batch(batch, a->rows, all);
    for (int i = 0; i < 2; i++) {
        results first = results_of(o->wanted, batch, a->rows, 0xa5);
        results again = results_of(o->wanted, batch, a->rows, 0x5a);
        sb_context *ctx = contexts[i];
        sb_status status;
        first.out.size = again.out.size = o->out_size;
        status = sb_conventional_logprob(ctx, &first.out, batch, launch);
        check_status(status, ctx);
        HOLDS((status == SB_OK) == right, "status %d (\"%s\")", (int)status, sb_last_error(ctx));
        if (status != SB_OK) HOLDS(untouched(&first), "%s", sb_last_error(ctx));
        else {
            guard_logits(batch, a, all);
            HOLDS(sb_conventional_logprob(ctx, &again.out, batch, launch) == SB_OK, "%s",
                  sb_last_error(ctx));
            HOLDS(same_results(&first, &again), "isa %s", sb_context_isa(ctx));
        }
        free_results(&first);
        free_results(&again);
    }
}

int fuzz_conventional(const uint8_t *data, size_t size)
{
    source s = { data, size };
    sb_batch batch = SB_BATCH_INIT;
    arrays a = { 0 };
    options o = options_of(&s);
    o.launch.cluster = byte(&s) > 250;
    open_contexts();
    make_batch(&s, &a, &batch, NULL);
    try_call(&o, &a, &batch);
    free_arrays(&a);
    return 0;
}
