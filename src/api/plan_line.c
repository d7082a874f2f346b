/* plan_line.c - the line that sb_last_plan returns, built piece by piece. It is terminated after
 * each step, so that a child forked in the middle of one finds a line that ends. */
#include <string.h>

#include "api/entry.h"

void sb_plan_say(sb_context *ctx, const char *text)
{
    sb_plan_line *line = &ctx->plan;
    const size_t room = sizeof line->text - 1 - line->length;
    size_t length = strlen(text);
    if (length > room) length = room;
    line->text[line->length + length] = '\0';
    memcpy(line->text + line->length, text, length);
    line->length += length;
}

void sb_plan_say_number(sb_context *ctx, int64_t number)
{
    char digits[24];
    char *first = digits + sizeof digits - 1;
    uint64_t rest = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    *first = '\0';
    do {
        *--first = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest);
    if (number < 0) *--first = '-';
    sb_plan_say(ctx, first);
}

const char *sb_last_plan(const sb_context *ctx)
{
    return ctx ? sb_gate_text(ctx, ctx->plan.text) : "ctx is null";
}
