/* team.cuh - exchanges between the blocks of a team, which share a row, through global memory.
 *
 * All blocks of a launch run at the same time (a cooperative launch), so a block may wait for
 * another one. A message consists of chunks of 16 bytes, each of which is stored and loaded as one
 * unit and carries the number of the exchange. So a chunk that has the expected number is complete,
 * and no fence or atomic is needed. Exchanges of a warp are counted from 1.
 *
 * A warp has two message slots and uses them in turn. When it sends message n + 2 over message n,
 * it has received message n + 1 of every block, and each block sent that one after it had received
 * all messages n.
 *
 * The area is cleared before the launch, because it may hold messages of an earlier one. */
#pragma once

#include "merge.cuh"
#include "row.cuh"

#if __CUDA_ARCH__ >= 900

/* The message slots of a row warp and of its like in the team's other blocks. */
struct mailbox {
    char *slots;    /* 64 bytes for each block, twice */
    int team, rank; /* blocks of the team, and the number of this one */
};

SB_DET char *message_chunk(const mailbox &box, uint32_t exchange, int from, int chunk)
{
    return box.slots + ((exchange & 1) * box.team + from) * 64 + chunk * 16;
}

/* What a block of a team sends about a row: the state of its slice, and the target's logit, which
 * every block knows. It is sent so that a block that has a message can rely on its sender having
 * read the logit. */
struct team_message {
    sb_state s; /* c is not sent */
    float x;
};

/* Merges the states that a team's blocks send. Called by the whole warp with the same message in
 * all lanes, which all get the result. */
SB_DET void exchange_message(const mailbox &box, uint32_t exchange, team_message *m)
{
    const int lane = threadIdx.x % WARP;
    if (box.team == 1) return;
    if (lane < 3) {
        const uint64_t l = lane == 0 ? m->s.l[0] : lane == 1 ? m->s.l[1] : m->s.l[2];
        const uint4 v = { (uint32_t)l, (uint32_t)(l >> 32), lane == 0 ? m->s.J : sb_bits32(m->x),
                          exchange };
        store16_whole(message_chunk(box, exchange, box.rank, lane), v);
    }
    uint4 v = { 0, 0, 0, 0 };
    if (lane < 3 * box.team) do {
            v = load16_whole(message_chunk(box, exchange, lane / 3, lane % 3));
        } while (v.w != exchange);
    __syncwarp();
    const int from = lane < box.team ? 3 * lane : 0;
    for (int i = 0; i < 3; i++) {
        const uint64_t high = __shfl_sync(FULL, v.y, from + i);
        m->s.l[i] = high << 32 | __shfl_sync(FULL, v.x, from + i);
    }
    m->s.J = __shfl_sync(FULL, v.z, from);
    if (lane >= box.team) make_none(&m->s);
    warp_merge(&m->s);
}

#endif
