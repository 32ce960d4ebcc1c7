/* SPDX-License-Identifier: MIT
 *
 * The pace wire: lets the frames of the wire inside out at a rate, or at a multiple of their stamps' speed.
 * Due times are anchored to a start and never summed from gaps, so a late caller catches up and nothing drifts; a source that had
 * nothing when it was asked (a live one) is anchored anew by its next frame, so idle time is no credit.
 * It keeps one burst of the inner wire's own frames, uncopied: the inner wire is asked again only when all of it has been given and
 * the caller comes back.
 */
#include "wrap.h"

#define LINE_OVERHEAD 24         /* preamble 8, FCS 4, inter-frame gap 12: what a frame takes on the line beside itself */

struct pace {
    struct exo_wrap wrap;
    uint32_t kind;
    uint64_t multiply;           /* ns for a unit (a ns of capture, a frame, a bit on the line): multiply / divide */
    uint64_t divide;
    struct exo_frame burst[EXO_BURST];
    uint32_t at;
    uint32_t n;
    int started;
    int dry;                     /* the inner wire had nothing when last asked */
    int ended;
    int end_told;
    uint64_t start;              /* anchor on the machine's clock */
    uint64_t units;              /* since the anchor: frames, bits on the line, or ns of capture time without steps back */
    uint64_t last_due;
    uint64_t last_stamp;
    uint64_t backward;
};

static uint64_t line_bits(const struct exo_frame *frame)
{
    uint32_t len = frame->wire_len < EXO_MIN_FRAME ? EXO_MIN_FRAME : frame->wire_len;
    return 8 * ((uint64_t)len + LINE_OVERHEAD);
}

static void anchor(struct pace *pace, const struct exo_frame *frame)
{
    pace->started = 1;
    pace->start = frame->ts;
    pace->last_stamp = frame->stamp ? frame->stamp : frame->ts;
    pace->units = 0;
}

/* The anchor plus the time of so many units; capped where a capture's stamps ask for more than the clock has. */
static uint64_t after(const struct pace *pace, uint64_t units)
{
    unsigned __int128 due = (unsigned __int128)units * pace->multiply / pace->divide + pace->start;
    return due > UINT64_MAX / 2 ? UINT64_MAX / 2 : (uint64_t)due;
}

static uint64_t due_by_rate(struct pace *pace, const struct exo_frame *frame)
{
    uint64_t due = after(pace, pace->units);
    if (pace->dry && frame->ts > due) {
        anchor(pace, frame);
        due = frame->ts;
    }
    pace->units += pace->kind == EXO_PACE_FRAMES ? 1 : line_bits(frame);
    return due;
}

static uint64_t due_by_stamp(struct pace *pace, const struct exo_frame *frame)
{
    uint64_t stamp = frame->stamp ? frame->stamp : frame->ts;
    if (stamp < pace->last_stamp)
        pace->backward++;
    else if (__builtin_add_overflow(pace->units, stamp - pace->last_stamp, &pace->units))
        pace->units = UINT64_MAX;
    pace->last_stamp = stamp;
    return after(pace, pace->units);
}

static void schedule(struct pace *pace)
{
    for (uint32_t i = 0; i < pace->n; i++) {
        struct exo_frame *frame = &pace->burst[i];
        if (!pace->started)
            anchor(pace, frame);
        uint64_t due = frame->ts;
        if (pace->kind == EXO_PACE_STAMPS)
            due = due_by_stamp(pace, frame);
        else if (pace->kind != EXO_PACE_MAX)
            due = due_by_rate(pace, frame);
        pace->dry = 0;
        frame->ts = pace->last_due = due < pace->last_due ? pace->last_due : due;
    }
}

/* Asks for the next burst. 0: there is one, or nothing yet; a negative code. */
static int32_t refill(struct pace *pace, uint64_t now)
{
    struct exo_wire *inner = pace->wrap.inner;
    if (pace->ended) {
        pace->end_told = 1;
        return EXO_E_END;
    }
    pace->at = pace->n = 0;
    int32_t got = inner->receive(inner, pace->burst, EXO_BURST, now);
    if (got < 0) {
        pace->ended = pace->end_told = got == EXO_E_END;
        return got;
    }
    if (got == 0)
        pace->dry = 1;
    pace->n = (uint32_t)got;
    schedule(pace);
    return 0;
}

static int32_t pace_receive(struct exo_wire *wire, struct exo_frame *out, uint32_t max, uint64_t now)
{
    struct pace *pace = (struct pace *)wire;
    wrap_inner(wire);
    if (pace->at == pace->n) {
        int32_t error = refill(pace, now);
        if (error)
            return error;
    }
    uint32_t n = 0;
    while (n < max && pace->at < pace->n && pace->burst[pace->at].ts <= now)
        out[n++] = pace->burst[pace->at++];
    wire->fd = pace->at < pace->n ? -1 : pace->wrap.inner->fd;
    count_received(wire, out, n);
    return (int32_t)n;
}

static uint64_t pace_next_due(struct exo_wire *wire, uint64_t now)
{
    struct pace *pace = (struct pace *)wire;
    struct exo_wire *inner = wrap_inner(wire);
    if (pace->at < pace->n)
        return pace->burst[pace->at].ts;
    if (pace->ended)
        return pace->end_told ? UINT64_MAX : now;
    return inner->next_due(inner, now);
}

static uint64_t pace_held(struct exo_wire *wire)
{
    const struct pace *pace = (const struct pace *)wire;
    return wrap_held(wire) + (pace->n - pace->at);
}

static void pace_close(struct exo_wire *wire)
{
    free(wire);
}

struct exo_wire *exo_pace_new(struct exo_wire *inner, uint32_t kind, uint64_t multiply, uint64_t divide)
{
    struct pace *pace = kind <= EXO_PACE_MAX && divide ? calloc(1, sizeof *pace) : NULL;
    if (!pace)
        return NULL;
    pace->kind = kind;
    pace->multiply = multiply;
    pace->divide = divide;
    pace->wrap.inner = inner;
    pace->wrap.wire = (struct exo_wire){
        .receive = pace_receive, .send = wrap_send, .next_due = pace_next_due, .held = pace_held,
        .fate = inner->fate ? wrap_fate : NULL, .close = pace_close, .fd = inner->fd,
    };
    return &pace->wrap.wire;
}

uint64_t exo_pace_backward(const struct exo_wire *wire)
{
    return ((const struct pace *)wire)->backward;
}
