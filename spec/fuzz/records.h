/* records.h - right and wrong records of shards, made from bytes, and the rules for them in
 * docs/numerics.md, section "Shards and state bytes". */
#ifndef SB_RECORDS_H
#define SB_RECORDS_H

#include "samebits.h"
#include "source.h"

typedef struct record {
    sb_state_record state;
    sb_target_record target;
} record;

/* The bits of c that a temperature gives. */
uint32_t c_of(float temperature);

/* m * 2^e, m below 2^24. */
typedef struct term {
    uint32_t m;
    int32_t e;
} term;

/* The term of a finite logit, where c has these bits. */
term term_of(float x, uint32_t c);

/* Mostly one of a row whose c has these bits; owned: that holds the target. */
record make_record(source *s, uint32_t c, int owned);

/* To be merged with others whose c has these bits. */
int is_mergeable(const record *r, uint32_t c);

/* A whole row's. */
int is_finishable(const record *r, uint32_t c);

/* The record of both, written from the definition: a sum of digits, those below the window dropped.
 * Both have the same c. */
record merged(const record *a, const record *b);

/* Records lie in two arrays. */
record record_at(const sb_state_record *states, const sb_target_record *targets, int64_t i);

#endif
