/* SPDX-License-Identifier: MIT
 *
 * Intervals under one key. One alone is its own answer; several are flattened: segments (demux_chunk.c) say for each value of the field
 * which entry owns it, the narrowest interval that holds it, and a tree (demux_tree.c) which intervals overlap. A change looks at the
 * segments within the interval that comes or goes, and at the intervals around its ends. Between bindings intervals are disjoint or
 * nested (R4); those of one binding, of snoopers and of group frames may overlap.
 */
#include "demux_private.h"

static struct demux_range *range_at(const struct demux_shape *shape, uint32_t number)
{
    return demux_range_of(shape, demux_entry_at(shape, number));
}

uint32_t demux_range_find(const struct demux_shape *shape, uint32_t head, uint32_t value)
{
    const struct demux_range *range = range_at(shape, head);
    if (range->segments)
        return demux_segment_owner(range->segments, value);
    return value >= range->low && value <= range->high ? head : DEMUX_NONE;
}

/* By bits, breadth, size: large intervals of nearly one size have the same bits, and then breadth decides, as it does between shapes. */
int demux_range_before(const struct demux_shape *shape, uint32_t one, uint32_t other)
{
    const struct demux_entry *a = demux_entry_at(shape, one), *b = demux_entry_at(shape, other);
    const struct demux_range *x = demux_range_of(shape, a), *y = demux_range_of(shape, b);
    if (x->bits != y->bits)
        return x->bits > y->bits;
    if (a->breadth != b->breadth)
        return a->breadth < b->breadth;
    return x->high - x->low < y->high - y->low;
}

void demux_range_visit(const struct demux_shape *shape, uint32_t head, uint32_t value, demux_visit visit, void *context)
{
    const struct demux_segments *segments = range_at(shape, head)->segments;
    demux_tree_visit(shape, segments ? segments->root : head, value, value, visit, context);
}

/* Two chains that are in order become one; of equals those of the first come first. */
static uint32_t merge(const struct demux_shape *shape, uint32_t one, uint32_t other)
{
    uint32_t first = DEMUX_NONE, *end = &first;
    while (one != DEMUX_NONE && other != DEMUX_NONE) {
        uint32_t *next = demux_range_before(shape, other, one) ? &other : &one;
        *end = *next;
        end = &demux_entry_at(shape, *next)->next_key;
        *next = *end;
    }
    *end = one == DEMUX_NONE ? other : one;
    return first;
}

/* Chains of 1, 2, 4, .. entries, each in order, as a counter has its bits: no entry is moved more often than it has places. */
struct chains {
    uint32_t first[DEMUX_ENTRY_BITS + 1];
};

static void chain(const struct demux_shape *shape, uint32_t number, void *context)
{
    struct chains *chains = context;
    uint32_t i = 0;
    demux_entry_at(shape, number)->next_key = DEMUX_NONE;
    for (; chains->first[i] != DEMUX_NONE; i++) {
        number = merge(shape, chains->first[i], number);
        chains->first[i] = DEMUX_NONE;
    }
    chains->first[i] = number;
}

uint32_t demux_range_chain(const struct demux_shape *shape, uint32_t head, uint32_t value)
{
    struct chains chains;
    uint32_t first = DEMUX_NONE;
    memset(&chains, 0xff, sizeof chains);
    demux_range_visit(shape, head, value, chain, &chains);
    for (uint32_t i = 0; i <= DEMUX_ENTRY_BITS; i++)
        first = merge(shape, chains.first[i], first);
    return first;
}

uint32_t demux_range_twin(const struct demux_shape *shape, uint32_t head, const struct demux_sought *sought)
{
    const struct demux_segments *segments = head == DEMUX_NONE ? NULL : range_at(shape, head)->segments;
    return demux_tree_find(shape, segments ? segments->root : head, sought);
}

/* Everything for one more: cannot fail once there is room. */
static void put(const struct demux_shape *shape, struct demux_segments *segments, uint32_t number)
{
    struct demux_range *range = range_at(shape, number);
    range->segments = segments;
    segments->intervals++;
    demux_segments_begin(segments, range->low);
    if (range->high != UINT32_MAX)
        demux_segments_begin(segments, range->high + 1);
    demux_segments_claim(shape, segments, range->low, range->high, number);
    demux_tree_add(shape, segments, number);
}

int32_t demux_range_reserve(struct demux_shape *shape, uint32_t head, uint32_t low, uint32_t high)
{
    if (head == DEMUX_NONE)
        return 0;
    struct demux_segments *segments = range_at(shape, head)->segments;
    if (!segments) {
        segments = demux_segments_new(shape, shape->table.multiplier[0]);
        if (!segments)
            return EXO_E_MEMORY;
        put(shape, segments, head);
    }
    int32_t code = demux_segments_reserve(shape, segments, low);
    return code || high == UINT32_MAX ? code : demux_segments_reserve(shape, segments, high + 1);
}

void demux_range_add(const struct demux_shape *shape, uint32_t head, uint32_t number)
{
    struct demux_range *range = range_at(shape, number);
    range->left = range->right = DEMUX_NONE;
    range->most = range->high;
    range->segments = NULL;
    if (head != DEMUX_NONE)
        put(shape, range_at(shape, head)->segments, number);
}

/* Who gets the values of an interval that goes: whoever is the narrowest of those that overlap it and lose to it. Each of those lies
 * around its first value, its last or its middle: within it are only smaller ones, which win unless they are nearly as large. */
struct heirs {
    struct demux_segments *segments;
    uint32_t gone;
    uint32_t low;
    uint32_t high;
    uint32_t around;                 /* the first of those around all of it, or DEMUX_NONE */
};

static void find_around(const struct demux_shape *shape, uint32_t number, void *context)
{
    struct heirs *heirs = context;
    const struct demux_range *range = range_at(shape, number);
    if (range->low <= heirs->low && range->high >= heirs->high)
        if (heirs->around == DEMUX_NONE || demux_range_before(shape, number, heirs->around))
            heirs->around = number;
}

static void inherit(const struct demux_shape *shape, uint32_t number, void *context)
{
    struct heirs *heirs = context;
    const struct demux_range *range = range_at(shape, number);
    if (demux_range_before(shape, number, heirs->gone))
        return;
    if (heirs->around != DEMUX_NONE && !demux_range_before(shape, number, heirs->around))
        return;
    uint32_t low = range->low > heirs->low ? range->low : heirs->low, high = range->high < heirs->high ? range->high : heirs->high;
    demux_segments_claim(shape, heirs->segments, low, high, number);
}

static void give_up(const struct demux_shape *shape, struct demux_segments *segments, uint32_t number)
{
    const struct demux_range *range = range_at(shape, number);
    const uint32_t values[3] = {range->low, range->high, range->low + (range->high - range->low) / 2};
    struct heirs heirs = {segments, number, range->low, range->high, DEMUX_NONE};
    if (!demux_segments_leave(segments, range->low, range->high, number))
        return;
    demux_tree_visit(shape, segments->root, range->low, range->low, find_around, &heirs);
    if (heirs.around != DEMUX_NONE)
        demux_segments_claim(shape, segments, range->low, range->high, heirs.around);
    for (uint32_t i = 0; i < 3; i++)
        demux_tree_visit(shape, segments->root, values[i], values[i], inherit, &heirs);
}

uint32_t demux_range_remove(struct demux_shape *shape, uint32_t number)
{
    struct demux_range *gone = range_at(shape, number);
    struct demux_segments *segments = gone->segments;
    if (!segments)
        return DEMUX_NONE;
    demux_tree_remove(shape, segments, number);
    uint32_t left = segments->root;
    if (--segments->intervals <= 1) {
        demux_range_free(shape, segments);
        if (left != DEMUX_NONE)
            range_at(shape, left)->segments = NULL;
        return left;
    }
    give_up(shape, segments, number);
    demux_segments_end(shape, segments, gone->low);
    if (gone->high != UINT32_MAX)
        demux_segments_end(shape, segments, gone->high + 1);
    return left;
}
