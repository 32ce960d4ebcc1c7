/* SPDX-License-Identifier: MIT
 *
 * Intervals under one key, flattened: segments say for each value of the field which entry owns it, the narrowest interval that holds
 * it. A look-up is a binary search. Between bindings intervals are disjoint or nested (R4); those of one binding may overlap.
 */
#include "demux_private.h"

#include <stdlib.h>

/* The last segment whose low is not above the value; the first one's low is 0. */
static uint32_t segment_at(const struct demux_segments *segments, uint32_t value)
{
    uint32_t low = 0, count = segments->count;
    while (count > 1) {
        uint32_t half = count / 2;
        low += segments->at[low + half].low <= value ? half : 0;
        count -= half;
    }
    return low;
}

uint32_t demux_range_find(const struct demux_segments *segments, uint32_t value)
{
    return segments->at[segment_at(segments, value)].entry;
}

struct demux_segments *demux_range_reserve(struct demux_shape *shape, struct demux_segments *segments)
{
    if (segments && 2 * segments->intervals + 5 <= segments->capacity)
        return segments;
    uint32_t capacity = segments ? segments->capacity * 2 : 8;
    size_t size = sizeof *segments + capacity * sizeof *segments->at;
    struct demux_segments *more = realloc(segments, size);
    if (!more)
        return NULL;
    shape->segment_bytes += size - (segments ? sizeof *more + more->capacity * sizeof *more->at : 0);
    if (!segments) {
        more->count = 1;
        more->intervals = 0;
        more->at[0] = (struct demux_segment){0, DEMUX_NONE};
    }
    more->capacity = capacity;
    return more;
}

void demux_range_free(struct demux_shape *shape, struct demux_segments *segments)
{
    if (segments)
        shape->segment_bytes -= sizeof *segments + segments->capacity * sizeof *segments->at;
    free(segments);
}

/* Cuts a segment so that one begins at the value; returns which. */
static uint32_t split_at(struct demux_segments *segments, uint32_t value)
{
    uint32_t i = segment_at(segments, value);
    if (segments->at[i].low == value)
        return i;
    memmove(&segments->at[i + 2], &segments->at[i + 1], (segments->count - i - 1) * sizeof *segments->at);
    segments->at[i + 1] = (struct demux_segment){value, segments->at[i].entry};
    segments->count++;
    return i + 1;
}

/* By bits, breadth, size: large intervals of nearly one size have the same bits, and then breadth decides, as it does between shapes. */
int demux_range_before(const struct demux_shape *shape, const struct demux_entry *a, const struct demux_entry *b)
{
    const struct demux_range *x = demux_range_of(shape, a), *y = demux_range_of(shape, b);
    if (x->bits != y->bits)
        return x->bits > y->bits;
    if (a->breadth != b->breadth)
        return a->breadth < b->breadth;
    return x->high - x->low < y->high - y->low;
}

static int narrower(const struct demux_shape *shape, uint32_t a, uint32_t b)
{
    return b == DEMUX_NONE || demux_range_before(shape, demux_entry_at(shape, a), demux_entry_at(shape, b));
}

/* Neighbours of one owner become one. */
static void merge(struct demux_segments *segments)
{
    uint32_t kept = 0;
    for (uint32_t i = 1; i < segments->count; i++)
        if (segments->at[i].entry != segments->at[kept].entry)
            segments->at[++kept] = segments->at[i];
    segments->count = kept + 1;
}

/* An interval takes what nobody narrower has. */
static void claim(const struct demux_shape *shape, struct demux_segments *segments, uint32_t number)
{
    const struct demux_range *range = demux_range_of(shape, demux_entry_at(shape, number));
    uint32_t i = split_at(segments, range->low);
    uint32_t end = range->high == UINT32_MAX ? segments->count : split_at(segments, range->high + 1);
    for (; i < end; i++)
        if (narrower(shape, number, segments->at[i].entry))
            segments->at[i].entry = number;
    merge(segments);
}

void demux_range_add(const struct demux_shape *shape, struct demux_segments *segments, uint32_t number)
{
    segments->intervals++;
    claim(shape, segments, number);
}

void demux_range_remove(const struct demux_shape *shape, struct demux_segments *segments, uint32_t number, uint32_t head)
{
    const struct demux_range *gone = demux_range_of(shape, demux_entry_at(shape, number));
    segments->intervals--;
    for (uint32_t i = 0; i < segments->count; i++)
        if (segments->at[i].entry == number)
            segments->at[i].entry = DEMUX_NONE;
    merge(segments);
    for (uint32_t e = head; e != DEMUX_NONE; e = demux_entry_at(shape, e)->next_key) {
        const struct demux_range *left = demux_range_of(shape, demux_entry_at(shape, e));
        if (left->low <= gone->high && gone->low <= left->high)
            claim(shape, segments, e);
    }
}
