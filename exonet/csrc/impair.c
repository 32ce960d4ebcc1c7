/* SPDX-License-Identifier: MIT
 *
 * The impair wire: loses, delays, reorders, duplicates and corrupts what the wire inside gives, and if asked what it is sent.
 * Each direction is a lane: frames enter it in order, draw their fate, and leave it when due. Order is changed by `reorder` only.
 * Random numbers are splitmix64, addressed by (impairment, frame number) instead of drawn in turn: the same seed loses the same
 * frames whatever else is switched on, and whenever the wire is asked. Time is the frames' own: ts in, ts + delay out.
 * A copy counts in copies[], a lost frame as source.impair_loss, both of stage SOURCE; a *sent* frame has left the machine when it
 * gets here, so the lane's own counters alone tell what became of it.
 * Reference: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014); tc-netem(8) for the meaning of the words.
 */
#include "wrap.h"

enum draw { DRAW_LOSS, DRAW_DUPLICATE, DRAW_CORRUPT, DRAW_BIT, DRAW_REORDER, DRAW_JITTER, DRAWS };
enum { RECEIVED, SENT };

#define GOLDEN UINT64_C(0x9e3779b97f4a7c15)
#define REORDER_HOLD UINT64_C(10000000)  /* ns: how long a frame waits to be overtaken */
#define ROUNDS 16                        /* bursts asked of the inner wire by one receive, where all of them are lost */

struct lane {
    uint64_t seed[DRAWS];
    uint64_t number;             /* frames seen: addresses the draws */
    uint64_t last_due;
    struct held_list queue;      /* ordered by due */
    struct held_list aside;      /* waiting to be overtaken; due: when they stop waiting */
    struct exo_impair_counters counters;
};

struct impair {
    struct exo_wrap wrap;
    struct exo_impairments want;
    struct lane lane[2];
    struct held_list given;
    int ended;                   /* the inner wire said EXO_E_END */
    int end_told;
    int32_t send_error;          /* of the inner wire, when a delayed frame was due: told by the next send */
};

static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static uint64_t draw(const struct lane *lane, enum draw kind)
{
    return mix(lane->seed[kind] + (lane->number + 1) * GOLDEN);
}

static int happens(const struct lane *lane, enum draw kind, uint64_t parts)
{
    return parts && (draw(lane, kind) >> 32) < parts;
}

/* ts + delay, give or take the jitter, not before ts. */
static uint64_t due_of(const struct impair *impair, const struct lane *lane, uint64_t ts)
{
    uint64_t due = ts + impair->want.delay, jitter = impair->want.jitter;
    if (jitter == 0)
        return due;
    uint64_t offset = draw(lane, DRAW_JITTER) % (2 * jitter + 1);
    return due + offset < ts + jitter ? ts : due + offset - jitter;
}

static void enqueue(struct lane *lane, struct held *held, uint64_t due)
{
    if (due < lane->last_due)
        due = lane->last_due;
    lane->last_due = due;
    held->due = held->frame.ts = due;
    held_push(&lane->queue, held);
}

/* Frames that waited in vain to be overtaken go on, each at its own time. */
static void expire_aside(struct lane *lane, uint64_t now)
{
    while (lane->aside.head && lane->aside.head->due <= now) {
        struct held *held = held_pop(&lane->aside);
        enqueue(lane, held, held->due);
    }
}

/* The frame's place: aside, or in the queue with those it has thereby overtaken right behind it. */
static void place(struct impair *impair, struct lane *lane, struct held *held, int reorder)
{
    uint64_t ts = held->frame.ts, due = due_of(impair, lane, ts);
    expire_aside(lane, ts > due ? ts : due);
    if (reorder) {
        held->due = ts + impair->want.delay + REORDER_HOLD;
        held_push(&lane->aside, held);
        lane->counters.reordered++;
        return;
    }
    enqueue(lane, held, due);
    while (lane->aside.head)
        enqueue(lane, held_pop(&lane->aside), due);
}

static void corrupt(struct lane *lane, struct held *held)
{
    if (held->frame.len == 0)
        return;
    uint64_t bit = draw(lane, DRAW_BIT) % ((uint64_t)held->frame.len * 8);
    held->bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    lane->counters.corrupted++;
}

static int has_room(const struct impair *impair, const struct lane *lane)
{
    return lane->queue.count + lane->aside.count < impair->want.limit;
}

static void drop(struct impair *impair, struct lane *lane, const struct exo_frame *frame, int32_t reason, uint64_t now)
{
    if (reason == EXO_R_SOURCE_IMPAIR_LOSS)
        lane->counters.lost++;
    else
        lane->counters.overflowed++;
    struct exo_ledger *ledger = impair->wrap.wire.ledger;
    if (lane == &impair->lane[RECEIVED] && ledger)
        exo_ledger_fate(ledger, frame, reason, EXO_NO_ENV, now);
}

static void duplicate(struct impair *impair, struct lane *lane, const struct exo_frame *frame, int reorder)
{
    struct held *copy = has_room(impair, lane) ? held_copy(frame) : NULL;
    if (!copy)
        return;
    copy->frame.id += COPY_ID;
    lane->counters.duplicated++;
    if (lane == &impair->lane[RECEIVED] && impair->wrap.wire.ledger)
        exo_ledger_copies(impair->wrap.wire.ledger, EXO_S_SOURCE, frame, 1);
    if (reorder)
        lane->counters.reordered--;  /* one overtaking, however many copies wait for it */
    place(impair, lane, copy, reorder);
}

static void admit(struct impair *impair, struct lane *lane, const struct exo_frame *frame, uint64_t now)
{
    const struct exo_impairments *want = &impair->want;
    lane->counters.seen++;
    struct held *held = NULL;
    if (happens(lane, DRAW_LOSS, want->loss))
        drop(impair, lane, frame, EXO_R_SOURCE_IMPAIR_LOSS, now);
    else if (!has_room(impair, lane) || !(held = held_copy(frame)))
        drop(impair, lane, frame, EXO_R_SOURCE_QUEUE_FULL, now);
    if (held) {
        int reorder = happens(lane, DRAW_REORDER, want->reorder);
        if (happens(lane, DRAW_CORRUPT, want->corrupt))
            corrupt(lane, held);
        place(impair, lane, held, reorder);
        if (happens(lane, DRAW_DUPLICATE, want->duplicate))
            duplicate(impair, lane, frame, reorder);
    }
    lane->number++;
}

/* Sent frames whose time has come go on to the inner wire; what it does not take is lost there. */
static void flush_sent(struct impair *impair, uint64_t now)
{
    struct lane *lane = &impair->lane[SENT];
    struct exo_wire *inner = impair->wrap.inner;
    expire_aside(lane, now);
    while (lane->queue.head && lane->queue.head->due <= now) {
        struct held *held = held_pop(&lane->queue);
        int32_t taken = inner->send(inner, &held->frame, 1, now);
        if (taken != 1)
            lane->counters.refused++;
        if (taken < 0)
            impair->send_error = taken;
        free(held);
    }
}

static uint32_t give(struct impair *impair, struct exo_frame *out, uint32_t max, uint64_t now)
{
    struct lane *lane = &impair->lane[RECEIVED];
    uint32_t n = 0;
    expire_aside(lane, now);
    while (n < max && lane->queue.head && lane->queue.head->due <= now) {
        struct held *held = held_pop(&lane->queue);
        held_push(&impair->given, held);
        out[n++] = held->frame;
    }
    return n;
}

/* Asks the inner wire for what it has now. 0: nothing, or its end; a negative code. */
static int32_t take(struct impair *impair, uint64_t now)
{
    struct exo_frame burst[EXO_BURST];
    struct exo_wire *inner = impair->wrap.inner;
    if (impair->ended)
        return 0;
    int32_t got = inner->receive(inner, burst, EXO_BURST, now);
    if (got == EXO_E_END) {
        impair->ended = 1;
        return 0;
    }
    for (int32_t i = 0; i < got; i++)
        admit(impair, &impair->lane[RECEIVED], &burst[i], now);
    return got;
}

static int is_empty(const struct lane *lane)
{
    return lane->queue.count + lane->aside.count == 0;
}

static int32_t impair_receive(struct exo_wire *wire, struct exo_frame *out, uint32_t max, uint64_t now)
{
    struct impair *impair = (struct impair *)wire;
    wrap_inner(wire);
    held_clear(&impair->given);
    flush_sent(impair, now);
    uint32_t n = give(impair, out, max, now);
    for (int round = 0; n < max && round < ROUNDS; round++) {
        int32_t got = take(impair, now);
        if (got < 0 && n == 0)
            return got;
        if (got <= 0)
            break;
        n += give(impair, out + n, max - n, now);
    }
    wire->fd = impair->wrap.inner->fd;
    count_received(wire, out, n);
    if (n == 0 && impair->ended && !wire->held(wire) && is_empty(&impair->lane[SENT])) {
        impair->end_told = 1;
        return EXO_E_END;
    }
    return (int32_t)n;
}

static int32_t impair_send(struct exo_wire *wire, const struct exo_frame *in, uint32_t n, uint64_t now)
{
    struct impair *impair = (struct impair *)wire;
    if (!impair->want.both)
        return wrap_send(wire, in, n, now);
    wrap_inner(wire);
    if (impair->send_error) {
        int32_t error = impair->send_error;
        impair->send_error = 0;
        return error;
    }
    for (uint32_t i = 0; i < n; i++) {
        struct exo_frame frame = in[i];
        frame.ts = now;
        admit(impair, &impair->lane[SENT], &frame, now);
    }
    flush_sent(impair, now);
    count_sent(wire, in, n);
    return (int32_t)n;
}

static uint64_t earlier(uint64_t due, const struct held_list *list)
{
    return list->head && list->head->due < due ? list->head->due : due;
}

static uint64_t impair_next_due(struct exo_wire *wire, uint64_t now)
{
    struct impair *impair = (struct impair *)wire;
    struct exo_wire *inner = wrap_inner(wire);
    uint64_t due = UINT64_MAX;
    if (!impair->ended)
        due = inner->next_due(inner, now);
    for (int i = 0; i < 2; i++)
        due = earlier(earlier(due, &impair->lane[i].queue), &impair->lane[i].aside);
    if (impair->ended && !impair->end_told && due == UINT64_MAX)
        due = now;
    return due;
}

static uint64_t impair_held(struct exo_wire *wire)
{
    const struct lane *lane = &((struct impair *)wire)->lane[RECEIVED];
    return wrap_held(wire) + lane->queue.count + lane->aside.count;
}

static void impair_close(struct exo_wire *wire)
{
    struct impair *impair = (struct impair *)wire;
    held_clear(&impair->given);
    for (int i = 0; i < 2; i++) {
        held_clear(&impair->lane[i].queue);
        held_clear(&impair->lane[i].aside);
    }
    free(impair);
}

struct exo_wire *exo_impair_new(struct exo_wire *inner, const struct exo_impairments *impairments, uint64_t seed)
{
    struct impair *impair = calloc(1, sizeof *impair);
    if (!impair)
        return NULL;
    impair->want = *impairments;
    for (uint64_t i = 0; i < 2 * DRAWS; i++)
        impair->lane[i / DRAWS].seed[i % DRAWS] = mix(mix(seed + GOLDEN) + (i + 1) * GOLDEN);
    impair->wrap.inner = inner;
    impair->wrap.wire = (struct exo_wire){
        .receive = impair_receive, .send = impair_send, .next_due = impair_next_due, .held = impair_held,
        .fate = inner->fate ? wrap_fate : NULL, .close = impair_close, .fd = inner->fd, .flags = inner->flags,
    };
    return &impair->wrap.wire;
}

const struct exo_impair_counters *exo_impair_counters(const struct exo_wire *wire, uint32_t direction)
{
    return &((const struct impair *)wire)->lane[direction ? SENT : RECEIVED].counters;
}
