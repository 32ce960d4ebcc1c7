/* SPDX-License-Identifier: MIT
 *
 * The intervals under one key as a treap over their entries, in the order (low, widest first, breadth, what is excluded): by it a twin is
 * found, and those that overlap some values, without a look at the others. Each node knows the greatest high below it. Priorities are
 * drawn from a seed, so nobody can make it deep.
 */
#include "demux_private.h"

static struct demux_range *range_at(const struct demux_shape *shape, uint32_t number)
{
    return demux_range_of(shape, demux_entry_at(shape, number));
}

/* Below 0: what is sought comes before the entry; 0: it is the entry. */
static int order(const struct demux_shape *shape, const struct demux_sought *sought, uint32_t number)
{
    const struct demux_entry *entry = demux_entry_at(shape, number);
    const struct demux_range *range = demux_range_of(shape, entry);
    if (sought->low != range->low)
        return sought->low < range->low ? -1 : 1;
    if (sought->high != range->high)
        return sought->high > range->high ? -1 : 1;
    if (sought->breadth != entry->breadth)
        return sought->breadth < entry->breadth ? -1 : 1;
    return memcmp(sought->excluded, entry->value + shape->form.lanes, shape->form.excluded * sizeof *entry->value);
}

static struct demux_sought itself(const struct demux_shape *shape, uint32_t number)
{
    const struct demux_entry *entry = demux_entry_at(shape, number);
    const struct demux_range *range = demux_range_of(shape, entry);
    return (struct demux_sought){range->low, range->high, entry->breadth, entry->value + shape->form.lanes};
}

static uint32_t priority(uint64_t seed, uint32_t number)
{
    uint64_t z = (seed ^ number) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 29)) * 0xbf58476d1ce4e5b9u;
    return (uint32_t)(z >> 32);
}

static void pull(const struct demux_shape *shape, struct demux_range *range)
{
    const uint32_t below[2] = {range->left, range->right};
    range->most = range->high;
    for (uint32_t i = 0; i < 2; i++)
        if (below[i] != DEMUX_NONE && range_at(shape, below[i])->most > range->most)
            range->most = range_at(shape, below[i])->most;
}

/* Parts a tree into what comes before the sought one and what comes after it. */
static void split(const struct demux_shape *shape, uint32_t root, const struct demux_sought *sought, uint32_t *left, uint32_t *right)
{
    if (root == DEMUX_NONE) {
        *left = *right = DEMUX_NONE;
        return;
    }
    struct demux_range *range = range_at(shape, root);
    if (order(shape, sought, root) < 0) {
        split(shape, range->left, sought, left, &range->left);
        *right = root;
    } else {
        split(shape, range->right, sought, &range->right, right);
        *left = root;
    }
    pull(shape, range);
}

static uint32_t join(const struct demux_shape *shape, uint64_t seed, uint32_t left, uint32_t right)
{
    if (left == DEMUX_NONE || right == DEMUX_NONE)
        return left == DEMUX_NONE ? right : left;
    if (priority(seed, left) >= priority(seed, right)) {
        struct demux_range *range = range_at(shape, left);
        range->right = join(shape, seed, range->right, right);
        pull(shape, range);
        return left;
    }
    struct demux_range *range = range_at(shape, right);
    range->left = join(shape, seed, left, range->left);
    pull(shape, range);
    return right;
}

void demux_tree_add(const struct demux_shape *shape, struct demux_segments *segments, uint32_t number)
{
    struct demux_sought sought = itself(shape, number);
    struct demux_range *added = range_at(shape, number);
    uint32_t *at = &segments->root, mine = priority(segments->seed, number);
    while (*at != DEMUX_NONE && priority(segments->seed, *at) >= mine) {
        struct demux_range *range = range_at(shape, *at);
        if (range->most < added->high)
            range->most = added->high;
        at = order(shape, &sought, *at) < 0 ? &range->left : &range->right;
    }
    split(shape, *at, &sought, &added->left, &added->right);
    pull(shape, added);
    *at = number;
}

static uint32_t without(const struct demux_shape *shape, uint64_t seed, uint32_t root, const struct demux_sought *gone, uint32_t number)
{
    struct demux_range *range = range_at(shape, root);
    if (root == number)
        return join(shape, seed, range->left, range->right);
    uint32_t *below = order(shape, gone, root) < 0 ? &range->left : &range->right;
    *below = without(shape, seed, *below, gone, number);
    pull(shape, range);
    return root;
}

void demux_tree_remove(const struct demux_shape *shape, struct demux_segments *segments, uint32_t number)
{
    struct demux_sought gone = itself(shape, number);
    segments->root = without(shape, segments->seed, segments->root, &gone, number);
}

uint32_t demux_tree_find(const struct demux_shape *shape, uint32_t root, const struct demux_sought *sought)
{
    while (root != DEMUX_NONE) {
        int way = order(shape, sought, root);
        if (!way)
            return root;
        root = way < 0 ? range_at(shape, root)->left : range_at(shape, root)->right;
    }
    return DEMUX_NONE;
}

void demux_tree_visit(const struct demux_shape *shape, uint32_t root, uint32_t low, uint32_t high, demux_visit visit, void *context)
{
    while (root != DEMUX_NONE) {
        const struct demux_range *range = range_at(shape, root);
        if (range->most < low)
            return;
        demux_tree_visit(shape, range->left, low, high, visit, context);
        if (range->low > high)
            return;
        if (range->high >= low)
            visit(shape, root, context);
        root = range->right;
    }
}
