// header.cpp - checks that the public headers and their initialisers compile as C++ without
// warnings.
#include "samebits.h"
#include "samebits_conventional.h"

int main()
{
    sb_open_options options = SB_OPEN_OPTIONS_INIT;
    sb_batch batch = SB_BATCH_INIT;
    sb_logprob_out out = SB_LOGPROB_OUT_INIT;
    sb_launch launch = SB_LAUNCH_INIT;
    sb_context *ctx = nullptr;
    if (sb_open(&ctx, SB_ABI, "cpu", &options, nullptr, 0) != SB_OK) return 1;
    batch.vocab = 1;
    sb_status status = sb_logprob(ctx, &out, &batch, &launch);
    sb_status control = sb_conventional_logprob(ctx, &out, &batch, &launch);
    sb_close(ctx);
    return status == SB_OK && control == SB_OK ? 0 : 1;
}
