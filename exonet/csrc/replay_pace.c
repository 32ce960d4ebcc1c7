/* SPDX-License-Identifier: MIT
 *
 * When a frame is due, and how late it was. Every due time is start + position * multiply / divide, rounded down, so
 * errors do not add up. A loop of STAMPS begins one mean gap (at least 1 ns) after the latest frame of the one before it.
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
    pace->latest = 0;
    pace->stamps = 0;
}

static uint64_t stamp_position(const struct pace *pace, const struct exo_record *record)
{
    return record->stamp > pace->first_stamp ? add_capped(pace->position, record->stamp - pace->first_stamp) : pace->position;
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
    if (!pace->anchored)
        return pace->start;
    *backward = record->stamp < pace->first_stamp || record->stamp - pace->first_stamp < pace->latest;
    uint64_t due = add_capped(pace->start, scale(stamp_position(pace, record), pace->multiply, pace->divide));
    return due < pace->last_due ? pace->last_due : due;
}

void pace_commit(struct pace *pace, const struct exo_record *record, uint64_t due)
{
    pace->last_due = due;
    if (pace->mode == EXO_REPLAY_FRAMES) {
        pace->position++;
    } else if (pace->mode == EXO_REPLAY_BITS) {
        pace->position += frame_bits(record);
    } else if (pace->mode == EXO_REPLAY_STAMPS && !(record->flags & EXO_RECORD_NO_STAMP)) {
        if (!pace->anchored) {
            pace->anchored = true;
            pace->first_stamp = record->stamp;
        }
        uint64_t at = record->stamp > pace->first_stamp ? record->stamp - pace->first_stamp : 0;
        if (at > pace->latest)
            pace->latest = at;
        pace->stamps++;
    }
}

void pace_loop(struct pace *pace)
{
    if (pace->mode != EXO_REPLAY_STAMPS)
        return;
    uint64_t gap = pace->stamps > 1 ? pace->latest / (pace->stamps - 1) : 0;
    pace->position = add_capped(pace->position, add_capped(pace->latest, gap ? gap : 1));
    pace->latest = 0;
    pace->stamps = 0;
}
