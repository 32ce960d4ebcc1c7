/* SPDX-License-Identifier: MIT
 *
 * When a frame is due, and how late it was. Every due time is start + position * multiply / divide, rounded down, so
 * errors do not add up. By STAMPS a frame's position is the sum of the gaps before it: a step back is a gap of 0, a gap longer
 * than max_gap is that long. A loop begins one mean gap (at least 1 ns) after the last frame of the one before it.
 */
#include "replay_private.h"

static uint64_t add_capped(uint64_t a, uint64_t b)
{
    uint64_t sum;
    return __builtin_add_overflow(a, b, &sum) || sum > INT64_MAX ? INT64_MAX : sum;
}

static uint64_t scale(uint64_t position, uint64_t multiply, uint64_t divide)
{
    uint64_t product;
    if (EXO_LIKELY(!__builtin_mul_overflow(position, multiply, &product)))
        return product / divide;
    __uint128_t quotient = (__uint128_t)position * multiply / divide;
    return quotient > INT64_MAX ? INT64_MAX : (uint64_t)quotient;
}

static uint64_t frame_bits(const struct exo_record *record)
{
    uint32_t bytes = record->wire_len < EXO_MIN_FRAME ? EXO_MIN_FRAME : record->wire_len;
    return 8ull * (bytes + EXO_WIRE_OVERHEAD);
}

void pace_start(struct pace *pace, uint64_t now)
{
    pace->start = now;
    pace->last_due = now;
    pace->position = 0;
    pace->anchored = false;
    pace->loop_begin = 0;
    pace->stamps = 0;
}

static uint64_t stamp_position(const struct pace *pace, const struct exo_record *record)
{
    if (!pace->anchored || record->stamp <= pace->previous)
        return pace->position;
    uint64_t gap = record->stamp - pace->previous;
    return add_capped(pace->position, gap < pace->max_gap ? gap : pace->max_gap);
}

uint64_t pace_due(const struct pace *pace, const struct exo_record *record, uint64_t now, bool *backward)
{
    *backward = false;
    if (pace->mode == EXO_REPLAY_MAX)
        return now;
    if (pace->mode != EXO_REPLAY_STAMPS)
        return add_capped(pace->start, scale(pace->position, pace->multiply, pace->divide));
    if (record->flags & EXO_RECORD_NO_STAMP)
        return pace->last_due;
    *backward = pace->anchored && record->stamp < pace->previous;
    return add_capped(pace->start, scale(stamp_position(pace, record), pace->multiply, pace->divide));
}

void pace_commit(struct pace *pace, const struct exo_record *record, uint64_t due)
{
    pace->last_due = due;
    if (pace->mode == EXO_REPLAY_FRAMES) {
        pace->position++;
    } else if (pace->mode == EXO_REPLAY_BITS) {
        pace->position += frame_bits(record);
    } else if (pace->mode == EXO_REPLAY_STAMPS && !(record->flags & EXO_RECORD_NO_STAMP)) {
        pace->position = stamp_position(pace, record);
        pace->previous = record->stamp;
        pace->anchored = true;
        pace->stamps++;
    }
}

void pace_loop(struct pace *pace)
{
    if (pace->mode != EXO_REPLAY_STAMPS)
        return;
    uint64_t gap = pace->stamps > 1 ? (pace->position - pace->loop_begin) / (pace->stamps - 1) : 0;
    pace->position = pace->loop_begin = add_capped(pace->position, gap ? gap : 1);
    pace->anchored = false;
    pace->stamps = 0;
}

int32_t exo_replay_length(struct exo_trace *trace, uint64_t max_gap, uint64_t *ns)
{
    struct exo_cursor *cursor = exo_cursor_new(trace);
    if (!cursor)
        return EXO_E_MEMORY;
    struct pace pace = {.mode = EXO_REPLAY_STAMPS, .max_gap = max_gap ? max_gap : UINT64_MAX};
    struct exo_record record;
    const uint8_t *data;
    int32_t result;
    while ((result = cursor_next(cursor, true, &record, &data)) > 0)
        if (record_reason(&record) == 0)
            pace_commit(&pace, &record, 0);
    exo_cursor_free(cursor);
    *ns = pace.position;
    return result == EXO_E_END ? 0 : result;
}
