/* SPDX-License-Identifier: MIT
 *
 * A shape's table: an index of tags, and the entries they number. Hashes are seeded per shape, whole keys are compared, the index is
 * at most half full and a key lies within DEMUX_PROBE_CAP words of its home; where chance breaks that, new multipliers are drawn, then the
 * index is made twice as large. Entries grow by mremap, so they are never copied; a tag is enough to move an index word, so growing
 * the index reads no entry.
 */
#include "demux_private.h"

#include <stdlib.h>
#include <sys/mman.h>

#define FIRST_CAPACITY 16u
#define MAX_CAPACITY (1u << DEMUX_ENTRY_BITS)
#define RESEEDS 4

/* splitmix64 */
static uint64_t draw(struct exo_demux *demux)
{
    uint64_t z = demux->random += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void draw_multipliers(struct exo_demux *demux, struct exo_table *table)
{
    for (uint32_t i = 0; i < EXO_MAX_LANES; i++)
        table->multiplier[i] = draw(demux) | 1;
}

static uint32_t tag_of(const struct demux_shape *shape, const uint64_t *key)
{
    uint64_t hash = 0;
    for (uint32_t i = 0; i < shape->form.lanes; i++)
        hash += key[i] * shape->table.multiplier[i];
    return (uint32_t)(hash >> 32);
}

static uint32_t home_of(const struct demux_shape *shape, uint32_t tag)
{
    return tag >> (shape->table.shift - 32);
}

static int same_key(const struct demux_shape *shape, uint32_t number, const uint64_t *key)
{
    return memcmp(demux_entry_at(shape, number)->value, key, shape->form.lanes * sizeof *key) == 0;
}

/* The index word of the key, or the empty one where it would go; *distance is how far that is from its home. */
static uint32_t find_word(const struct demux_shape *shape, const uint64_t *key, uint32_t *distance)
{
    uint32_t tag = tag_of(shape, key), i = home_of(shape, tag);
    for (*distance = 0; shape->index[i]; ++*distance, i = (i + 1) & (shape->capacity - 1))
        if (shape->index[i] >> 32 == tag && same_key(shape, (uint32_t)shape->index[i] - 1, key))
            break;
    return i;
}

uint32_t demux_table_find(const struct demux_shape *shape, const uint64_t *key)
{
    uint32_t distance;
    return (uint32_t)shape->index[find_word(shape, key, &distance)] - 1;
}

/* Puts a word at the first empty place from its home on. 0 where that is too far away. */
static int settle_word(struct demux_shape *shape, uint64_t word)
{
    uint32_t i = home_of(shape, (uint32_t)(word >> 32)), distance = 0;
    for (; shape->index[i]; i = (i + 1) & (shape->capacity - 1))
        if (++distance >= DEMUX_PROBE_CAP)
            return 0;
    shape->index[i] = word;
    return 1;
}

static int fill_index(struct demux_shape *shape, const struct demux_shape *old, int reseeded)
{
    memset(shape->index, 0, shape->capacity * sizeof *shape->index);
    for (uint32_t i = 0; i < old->capacity; i++) {
        uint64_t word = old->index[i];
        if (word && reseeded)
            word = (uint64_t)tag_of(shape, demux_entry_at(old, (uint32_t)word - 1)->value) << 32 | (uint32_t)word;
        if (word && !settle_word(shape, word))
            return 0;
    }
    return 1;
}

/* A new index of the given capacity, or of twice that where chance will not have it. */
static int32_t rebuild(struct exo_demux *demux, struct demux_shape *shape, uint32_t capacity, int reseed)
{
    struct demux_shape next = *shape;
    for (int attempt = 0; attempt < 2 * RESEEDS; attempt++) {
        next.capacity = attempt < RESEEDS ? capacity : 2 * capacity;
        if (next.capacity > MAX_CAPACITY)
            return EXO_E_FULL;
        next.table.shift = 64 - (uint32_t)__builtin_ctz(next.capacity);
        next.index = malloc(next.capacity * sizeof *next.index);
        if (!next.index)
            return EXO_E_MEMORY;
        int reseeded = reseed || attempt > 0;
        if (reseeded)
            draw_multipliers(demux, &next.table);
        if (fill_index(&next, shape, reseeded)) {
            free(shape->index);
            next.table.index = next.index;
            *shape = next;
            shape->table.form = &shape->form;
            return 0;
        }
        free(next.index);
    }
    return EXO_E_FULL;
}

/* Memory for one more entry than have ever been in use. */
static int32_t reserve_entry(struct demux_shape *shape)
{
    size_t need = ((size_t)shape->entry_top + 1) * shape->table.stride;
    if (shape->entry_free != DEMUX_NONE || need <= shape->memory_bytes)
        return 0;
    if (shape->entry_top + 1 >= MAX_CAPACITY)
        return EXO_E_FULL;
    size_t bytes = shape->memory_bytes ? shape->memory_bytes + shape->memory_bytes / 2 : EXO_PAGE_SIZE;
    bytes = (bytes + EXO_PAGE_SIZE - 1) & ~(size_t)(EXO_PAGE_SIZE - 1);
    void *memory = shape->memory_bytes
        ? mremap(shape->memory, shape->memory_bytes, bytes, MREMAP_MAYMOVE)
        : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return EXO_E_MEMORY;
    shape->memory = memory;
    shape->memory_bytes = bytes;
    shape->table.entries = memory;
    return 0;
}

int32_t demux_table_reserve(struct exo_demux *demux, struct demux_shape *shape, const uint64_t *key)
{
    uint32_t distance;
    int32_t code = reserve_entry(shape);
    if (code || shape->index[find_word(shape, key, &distance)])
        return code;
    if ((shape->keys + 1) * 2 > shape->capacity)
        code = rebuild(demux, shape, shape->capacity * 2, 0);
    for (int attempt = 0; !code && attempt < RESEEDS; attempt++) {
        find_word(shape, key, &distance);
        if (distance < DEMUX_PROBE_CAP)
            return 0;
        code = rebuild(demux, shape, shape->capacity, 1);
    }
    return code ? code : EXO_E_FULL;
}

void demux_table_put(struct demux_shape *shape, const uint64_t *key, uint32_t head)
{
    uint32_t distance, i = find_word(shape, key, &distance);
    shape->keys += !shape->index[i];
    shape->index[i] = (uint64_t)tag_of(shape, key) << 32 | (head + 1);
}

/* Empties the key's word and closes the gap by moving later ones of the run back, so that no probe ends too early. */
void demux_table_drop(struct demux_shape *shape, const uint64_t *key)
{
    uint32_t mask = shape->capacity - 1, distance, hole = find_word(shape, key, &distance);
    for (uint32_t i = (hole + 1) & mask; shape->index[i]; i = (i + 1) & mask) {
        uint32_t home = home_of(shape, (uint32_t)(shape->index[i] >> 32));
        if (((i - home) & mask) < ((i - hole) & mask))
            continue;
        shape->index[hole] = shape->index[i];
        hole = i;
    }
    shape->index[hole] = 0;
    shape->keys--;
}

uint32_t demux_entry_take(struct demux_shape *shape)
{
    uint32_t number = shape->entry_free;
    shape->entries++;
    if (number == DEMUX_NONE)
        return shape->entry_top++;
    shape->entry_free = demux_entry_at(shape, number)->next_key;
    return number;
}

void demux_entry_give(struct demux_shape *shape, uint32_t number)
{
    demux_entry_at(shape, number)->next_key = shape->entry_free;
    shape->entry_free = number;
    shape->entries--;
}

/* Entries of up to a cache line do not straddle one. */
static uint32_t stride_of(const struct exo_form *form)
{
    uint32_t bytes = sizeof(struct demux_entry) + 8 * (form->lanes + form->excluded)
                   + (form->interval.bytes ? (uint32_t)sizeof(struct demux_range) : 0), stride = 16;
    if (bytes > 64)
        return (bytes + 31) & ~31u;
    while (stride < bytes)
        stride *= 2;
    return stride;
}

struct demux_shape *demux_shape_new(struct exo_demux *demux, const struct demux_parted *parted)
{
    struct demux_shape *shape = calloc(1, sizeof *shape);
    if (!shape)
        return NULL;
    shape->form = parted->form;
    shape->bits = parted->bits;
    if (shape->form.interval.bytes)
        shape->bits += demux_interval_bits(&shape->form.interval, 0, 0);
    shape->entry_free = DEMUX_NONE;
    shape->table.stride = stride_of(&shape->form);
    shape->probe = demux_probe_table;
    if (rebuild(demux, shape, FIRST_CAPACITY, 1)) {
        demux_shape_free(shape);
        return NULL;
    }
    return shape;
}

void demux_shape_free(struct demux_shape *shape)
{
    if (!shape)
        return;
    for (uint32_t i = 0; shape->form.interval.bytes && i < shape->capacity; i++)
        if (shape->index && shape->index[i])
            demux_range_free(shape, demux_range_of(shape, demux_entry_at(shape, (uint32_t)shape->index[i] - 1))->segments);
    free(shape->index);
    if (shape->memory_bytes)
        munmap(shape->memory, shape->memory_bytes);
    free(shape);
}
