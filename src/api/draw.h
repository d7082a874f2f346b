/* draw.h - draws from shards of the vocabulary: the rounds of a call, and what the messages of all
 * ranks tell of a row. Host arrays only. */
#ifndef SB_API_DRAW_H
#define SB_API_DRAW_H

#include "api/sample.h"
#include "det/draw.h"

/* Bits of sb_draw.outputs. */
#define SB_DRAW_MODEL 1 /* logprobs without the batch's kept sets, which has some */
#define SB_DRAW_COUNT 2 /* what is kept, or its number */

/* The bytes of the message of round `round`, per row. */
static inline int64_t sb_draw_bytes(const sb_draw_call *d, int32_t round)
{
    return d->draw.bytes[round];
}

/* The message of a rank in the round before. */
static inline const char *sb_draw_message(const sb_draw_call *d, int64_t shard, int64_t row)
{
    return (const char *)d->all + (shard * d->call.rows + row) * sb_draw_bytes(d, d->round - 1);
}

/* What a rank knows of a row once it has the messages of a round. */
typedef struct sb_draw_news {
    sb_draw_row row;
    uint64_t
        nth; /* the cut is at this one of the rank's own ids of the key that was searched; 0: it
                     is set */
    uint64_t places[SB_MAX_TOPK]; /* the first ids of all ranks, if a round tells of these */
    sb_draw_token token;          /* likewise */
} sb_draw_news;

/* What the messages of the round before tell of an active row. On a fault, *shard is the rank whose
 * message is at fault, or -1 if it is those of all together. */
sb_fault sb_draw_learn(const sb_draw_call *call, int64_t row, sb_draw_news *news, int64_t *shard);

/* Checks the messages of a call's active rows, in ascending order. */
sb_status sb_check_draw(const sb_draw_call *call, const int64_t *active, int64_t actives,
                        sb_message *why);

/* Fails because of the messages of a row. shard: the rank's, or -1 for those of all together. */
sb_status sb_draw_refuse(const sb_draw_call *call, int64_t row, int64_t shard, sb_fault fault,
                         sb_message *why);

#endif
