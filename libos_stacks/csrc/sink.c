/* SPDX-License-Identifier: MIT
 *
 * The sink: takes every frame, counts it and adds its digest. What load is measured with, so nothing here is per frame that could be
 * per burst: indices and counters are published once in STK_RING_BURST frames, and the bytes of later frames are on their way to the cache
 * while this one is digested (they were written on another core). Interface: ring.h. No stack is involved.
 */
#include "ring_private.h"

enum { AHEAD = 12 };

static inline void prefetch(const struct stk_rings *rings, uint32_t at)
{
    const struct exo_receive *d = &rings->receive[at & (rings->receive_entries - 1)];
    const uint8_t *page = address_of(rings, d->page);
    __builtin_prefetch(page + (page == NULL ? 0 : d->offset % EXO_PAGE_SIZE));
}

static inline void take(struct stk_rings *rings, uint32_t at, const struct frame *frame)
{
    tell(rings, at, frame->bytes == NULL ? EXO_R_STACK_UNACCOUNTED : EXO_R_DELIVERED);
    if (STK_UNLIKELY(frame->bytes == NULL)) {
        rings->unreadable++;
        rings->own.drop[EXO_R_STACK_UNACCOUNTED - EXO_R_STACK_FIRST]++;
        return;
    }
    uint32_t length = real_length(frame);
    rings->own.delivered++;
    rings->own.bytes += length;
    rings->own.digest += exo_digest(frame->bytes, length);
}

static void account(struct stk_rings *rings)
{
    struct exo_stack_counters *shared = &rings->libos->counters;
    shared->delivered = rings->own.delivered;
    shared->bytes = rings->own.bytes;
    shared->digest = rings->own.digest;
    shared->drop[0] = rings->own.drop[0];
}

static uint32_t burst(struct stk_rings *rings, uint32_t max)
{
    uint32_t put = load_acquire(&rings->kernel->receive_put), at = rings->receive_taken, frames = 0;
    uint32_t ready = put - at;
    for (uint32_t i = 0; i < ready && i < AHEAD; i++)
        prefetch(rings, at + i);
    while (frames < max && at != put) {
        struct frame frame;
        if (put - at > AHEAD)
            prefetch(rings, at + AHEAD);
        uint32_t entries = frame_at(rings, at, put - at, &frame);
        if (entries == 0)
            break;
        take(rings, at, &frame);
        give_back(rings, at, entries);
        at += entries;
        frames++;
    }
    if (frames == 0)
        return 0;
    rings->receive_taken = at;
    account(rings);
    store_release(&rings->libos->receive_taken, at);
    stk_post(rings);
    return frames;
}

uint32_t stk_rings_sink(struct stk_rings *rings, uint32_t max)
{
    uint32_t total = 0, frames;
    stk_reap(rings);
    do {
        frames = burst(rings, max - total < STK_RING_BURST ? max - total : STK_RING_BURST);
        total += frames;
    } while (frames != 0 && total < max);
    return total;
}

uint32_t stk_rings_sink_loop(struct stk_rings *rings, uint32_t max, uint32_t spins)
{
    uint32_t total = 0, idle = 0;
    while (total < max && idle <= spins && !stk_rings_stopped(rings)) {
        uint32_t frames = stk_rings_sink(rings, max - total);
        total += frames;
        if (frames != 0) {
            idle = 0;
            continue;
        }
        stk_idle(idle++);
    }
    return total;
}
