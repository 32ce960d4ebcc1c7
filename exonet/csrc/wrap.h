/* SPDX-License-Identifier: MIT
 *
 * What cable and the wrappers share: a wire around a wire, and a frame copied to be kept. Private to these C files.
 */
#ifndef EXO_WRAP_H
#define EXO_WRAP_H

#include <stdlib.h>

#include "exo_kernel.h"

/* A copy made by duplication keeps its original's number in the low bits of its own, so both are unique and traceable. */
#define COPY_ID (UINT64_C(1) << 56)
/* A segment that a packet was cut into has its place in the bits between, from 0; EXO_SEGMENT_SHIFT says where they begin. */
#define SEGMENT_ID (UINT64_C(1) << EXO_SEGMENT_SHIFT)

struct exo_wrap {
    struct exo_wire wire;
    struct exo_wire *inner;
};

/* The inner wire, told what a port told the outer one since the last call. */
static inline struct exo_wire *wrap_inner(struct exo_wire *wire)
{
    struct exo_wire *inner = ((struct exo_wrap *)wire)->inner;
    inner->ledger = wire->ledger;
    inner->port = wire->port;
    return inner;
}

static inline void wrap_fate(struct exo_wire *wire, const struct exo_frame *frame, int32_t reason, uint32_t env)
{
    struct exo_wire *inner = wrap_inner(wire);
    if (inner->fate)
        inner->fate(inner, frame, reason, env);
}

static inline uint64_t wrap_held(struct exo_wire *wire)
{
    struct exo_wire *inner = wrap_inner(wire);
    return inner->held ? inner->held(inner) : 0;
}

static inline void count_received(struct exo_wire *wire, const struct exo_frame *frames, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        wire->rx_bytes += frames[i].len;
    wire->rx_frames += n;
}

static inline void count_sent(struct exo_wire *wire, const struct exo_frame *frames, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        wire->tx_bytes += frames[i].len;
    wire->tx_frames += n;
}

static inline int32_t wrap_send(struct exo_wire *wire, const struct exo_frame *in, uint32_t n, uint64_t now)
{
    struct exo_wire *inner = wrap_inner(wire);
    int32_t taken = inner->send(inner, in, n, now);
    if (taken > 0)
        count_sent(wire, in, (uint32_t)taken);
    return taken;
}

/* A frame with bytes of its own, in a list ordered by due. */
struct held {
    struct held *next;
    uint64_t due;
    struct exo_frame frame;
    uint8_t bytes[];
};

struct held_list {
    struct held *head;
    struct held *tail;
    uint32_t count;
};

static inline struct held *held_copy(const struct exo_frame *frame)
{
    struct held *held = malloc(sizeof *held + frame->len);
    if (!held)
        return NULL;
    held->next = NULL;
    held->due = frame->ts;
    held->frame = *frame;
    held->frame.data = held->bytes;
    if (frame->len)
        memcpy(held->bytes, frame->data, frame->len);
    return held;
}

static inline void held_push(struct held_list *list, struct held *held)
{
    held->next = NULL;
    if (list->tail)
        list->tail->next = held;
    else
        list->head = held;
    list->tail = held;
    list->count++;
}

static inline struct held *held_pop(struct held_list *list)
{
    struct held *held = list->head;
    if (!held)
        return NULL;
    list->head = held->next;
    if (!list->head)
        list->tail = NULL;
    list->count--;
    return held;
}

static inline void held_clear(struct held_list *list)
{
    for (struct held *held; (held = held_pop(list));)
        free(held);
}

#endif
