/* SPDX-License-Identifier: MIT
 *
 * A shape and its hash table. Hashes are seeded per shape, whole keys are compared, a table is at most half full and a key lies
 * within DEMUX_PROBE_CAP slots of where its hash points; where chance breaks that, new multipliers are drawn, then the table is made
 * twice as large as it needs. Slots move; the records that live in them follow.
 */
#include "demux_private.h"

#include <stdlib.h>

#define FIRST_CAPACITY 16u
#define MAX_CAPACITY (1u << 24)
#define RESEEDS 4

/* splitmix64 */
static uint64_t draw(struct exo_demux *demux)
{
    uint64_t z = demux->random += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

void demux_shape_free(struct demux_shape *shape)
{
    if (shape)
        free(shape->slots);
    free(shape);
}

static uint64_t hash_key(const struct demux_shape *shape, const uint32_t *key)
{
    uint64_t hash = 0;
    for (uint32_t i = 0; i < shape->form.atoms; i++)
        hash += key[i] * shape->multiplier[i];
    return hash;
}

/* The slot of the key, or the empty one where it would go; *distance is how far that is from where its hash points. */
static uint32_t find_slot(const struct demux_shape *shape, const uint32_t *key, uint32_t *distance)
{
    uint32_t i = (uint32_t)(hash_key(shape, key) >> shape->shift);
    for (*distance = 0; demux_shape_slot(shape, i)[SLOT_RECORD] != DEMUX_NONE; ++*distance) {
        if (!memcmp(demux_shape_slot(shape, i) + SLOT_KEY, key, demux_shape_key_bytes(shape)))
            break;
        i = (i + 1) & (shape->capacity - 1);
    }
    return i;
}

/* Moves every key of `from` into `to`'s fresh table. 0 where the probe cap does not hold. */
static int fill_table(struct demux_shape *to, const struct demux_shape *from)
{
    memset(to->slots, 0xff, (size_t)to->capacity * to->stride * sizeof(uint32_t));
    for (uint32_t i = 0; i < from->capacity; i++) {
        const uint32_t *old = demux_shape_slot(from, i);
        uint32_t distance;
        if (old[SLOT_RECORD] == DEMUX_NONE)
            continue;
        uint32_t at = find_slot(to, old + SLOT_KEY, &distance);
        if (distance >= DEMUX_PROBE_CAP)
            return 0;
        memcpy(demux_shape_slot(to, at), old, to->stride * sizeof(uint32_t));
    }
    return 1;
}

static void follow_slots(struct exo_demux *demux, const struct demux_shape *shape)
{
    for (uint32_t i = 0; i < shape->capacity; i++)
        for (uint32_t r = demux_shape_slot(shape, i)[SLOT_RECORD]; r != DEMUX_NONE; r = demux->record[r].next_key)
            demux->record[r].slot = i;
}

/* Fills a fresh table of next->capacity from the shape's, with multipliers drawn until the probe cap holds. */
static int draw_table(struct exo_demux *demux, struct demux_shape *next, const struct demux_shape *shape)
{
    for (int attempt = 0; attempt < RESEEDS; attempt++) {
        for (uint32_t i = 0; i < EXO_MAX_ATOMS; i++)
            next->multiplier[i] = draw(demux) | 1;
        if (fill_table(next, shape))
            return 1;
    }
    return 0;
}

/* A new table of the given capacity, or of twice that where chance will not have it; the records follow. */
static int32_t rebuild(struct exo_demux *demux, struct demux_shape *shape, uint32_t capacity)
{
    for (uint32_t last = capacity * 2; capacity <= last && capacity <= MAX_CAPACITY; capacity *= 2) {
        struct demux_shape next = *shape;
        next.capacity = capacity;
        next.shift = 64 - (uint32_t)__builtin_ctz(capacity);
        next.slots = malloc((size_t)capacity * shape->stride * sizeof(uint32_t));
        if (!next.slots)
            return EXO_E_MEMORY;
        if (draw_table(demux, &next, shape)) {
            free(shape->slots);
            *shape = next;
            follow_slots(demux, shape);
            return 0;
        }
        free(next.slots);
    }
    return EXO_E_FULL;
}

/* Makes room for the key: *at is its slot, taken or empty. */
int32_t demux_shape_reserve(struct exo_demux *demux, struct demux_shape *shape, const uint32_t *key, uint32_t *at)
{
    uint32_t distance;
    *at = find_slot(shape, key, &distance);
    if (demux_shape_slot(shape, *at)[SLOT_RECORD] != DEMUX_NONE)
        return 0;
    for (int attempt = 0; attempt < RESEEDS; attempt++) {
        uint32_t crowded = (shape->keys + 1) * 2 > shape->capacity;
        if (!crowded && distance < DEMUX_PROBE_CAP)
            return 0;
        int32_t code = rebuild(demux, shape, crowded ? shape->capacity * 2 : shape->capacity);
        if (code)
            return code;
        *at = find_slot(shape, key, &distance);
    }
    return distance < DEMUX_PROBE_CAP ? 0 : EXO_E_FULL;
}

/* Empties a slot and closes the gap by moving later keys of the run back, so that no probe ends too early. */
void demux_shape_vacate(struct exo_demux *demux, struct demux_shape *shape, uint32_t hole)
{
    uint32_t mask = shape->capacity - 1;
    for (uint32_t i = (hole + 1) & mask; demux_shape_slot(shape, i)[SLOT_RECORD] != DEMUX_NONE; i = (i + 1) & mask) {
        uint32_t home = (uint32_t)(hash_key(shape, demux_shape_slot(shape, i) + SLOT_KEY) >> shape->shift);
        if (((i - home) & mask) < ((i - hole) & mask))
            continue;
        memcpy(demux_shape_slot(shape, hole), demux_shape_slot(shape, i), shape->stride * sizeof(uint32_t));
        for (uint32_t r = demux_shape_slot(shape, hole)[SLOT_RECORD]; r != DEMUX_NONE; r = demux->record[r].next_key)
            demux->record[r].slot = hole;
        hole = i;
    }
    demux_shape_slot(shape, hole)[SLOT_RECORD] = DEMUX_NONE;
}

static uint32_t end_of_words(const struct demux_form *form, uint32_t base)
{
    uint32_t end = 0;
    for (uint32_t i = 0; i < form->atoms + form->excluded; i++)
        if (form->atom[i].base == base && form->atom[i].offset + 4u > end)
            end = form->atom[i].offset + 4u;
    return end;
}

struct demux_shape *demux_shape_new(struct exo_demux *demux, const struct demux_form *form)
{
    struct demux_shape *shape = calloc(1, sizeof *shape);
    if (!shape)
        return NULL;
    shape->form = *form;
    shape->frame_end = end_of_words(form, EXO_BASE_FRAME);
    shape->ip4_end = end_of_words(form, EXO_BASE_IP4);
    for (uint32_t i = 0; i < form->atoms; i++)
        shape->bits += (uint32_t)__builtin_popcount(form->atom[i].mask);
    shape->stride = SLOT_KEY + form->atoms;
    if (rebuild(demux, shape, FIRST_CAPACITY)) {
        demux_shape_free(shape);
        return NULL;
    }
    return shape;
}
