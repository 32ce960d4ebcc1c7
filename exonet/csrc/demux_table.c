/* SPDX-License-Identifier: MIT
 *
 * A shape's table: an index of buckets, a cache line each, and the entries they number. Hashes are seeded per shape, whole keys are
 * compared, the index is at most half full and a key lies within DEMUX_PROBE_CAP buckets of its home; where chance breaks that, new
 * multipliers are drawn, then the index is made twice as large. Entries grow by mremap, so they are never copied; a tag is enough to
 * find its bucket, so growing the index reads no entry.
 */
#include "demux_private.h"

#include <stdlib.h>
#include <sys/mman.h>

#define FIRST_BUCKETS 2u
#define MAX_ENTRIES (1u << DEMUX_ENTRY_BITS)
#define OWN_CACHE (1u << 19)        /* bytes of a core's second cache that a table may count on */
#define RESEEDS 4

/* splitmix64 */
uint64_t demux_draw(struct exo_demux *demux)
{
    uint64_t z = demux->random += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void draw_multipliers(struct exo_demux *demux, struct exo_table *table)
{
    for (uint32_t i = 0; i < EXO_MAX_LANES; i++)
        table->multiplier[i] = demux_draw(demux) | 1;
}

static uint32_t tag_of(const struct demux_shape *shape, const uint64_t *key)
{
    uint64_t hash = 0;
    for (uint32_t i = 0; i < shape->form.lanes; i++)
        hash += key[i] * shape->table.multiplier[i];
    return (uint32_t)(hash >> 32) | 1;
}

static uint32_t home_of(const struct demux_shape *shape, uint32_t tag)
{
    return tag >> (shape->table.shift - 32);
}

static int same_key(const struct demux_shape *shape, uint32_t number, const uint64_t *key)
{
    return memcmp(demux_entry_at(shape, number)->value, key, shape->form.lanes * sizeof *key) == 0;
}

/* Where a key is: its bucket and the place in it. NULL: it is not there. */
static struct exo_bucket *find_key(const struct demux_shape *shape, const uint64_t *key, uint32_t *at)
{
    uint32_t tag = tag_of(shape, key);
    for (uint32_t b = home_of(shape, tag);; b = (b + 1) & (shape->buckets - 1)) {
        struct exo_bucket *bucket = &shape->index[b];
        for (*at = 0; *at < DEMUX_BUCKET; ++*at)
            if (bucket->tag[*at] == tag && same_key(shape, bucket->entry[*at], key))
                return bucket;
        if (!bucket->tag[DEMUX_BUCKET])
            return NULL;
    }
}

static uint32_t free_place(const struct exo_bucket *bucket)
{
    uint32_t at = 0;
    while (at < DEMUX_BUCKET && bucket->tag[at])
        at++;
    return at;
}

/* How many buckets from its home on are full. */
static uint32_t distance_of(const struct demux_shape *shape, uint32_t tag)
{
    uint32_t distance = 0, home = home_of(shape, tag);
    while (distance < DEMUX_PROBE_CAP && free_place(&shape->index[(home + distance) & (shape->buckets - 1)]) == DEMUX_BUCKET)
        distance++;
    return distance;
}

/* Puts a tag into the first bucket with room from its home on. 0 where that is too far away. */
static int settle(struct demux_shape *shape, uint32_t tag, uint32_t number)
{
    uint32_t b = home_of(shape, tag), mask = shape->buckets - 1, at;
    if (distance_of(shape, tag) == DEMUX_PROBE_CAP)
        return 0;
    for (; (at = free_place(&shape->index[b])) == DEMUX_BUCKET; b = (b + 1) & mask) {
        shape->index[b].tag[DEMUX_BUCKET]++;
        shape->index[b].entry[DEMUX_BUCKET] = EXO_ENTRY_ELSEWHERE;
    }
    shape->index[b].tag[at] = tag;
    shape->index[b].entry[at] = number;
    return 1;
}

uint32_t demux_table_find(const struct demux_shape *shape, const uint64_t *key)
{
    uint32_t at;
    const struct exo_bucket *bucket = find_key(shape, key, &at);
    return bucket ? bucket->entry[at] : DEMUX_NONE;
}

static int fill_index(struct demux_shape *shape, const struct demux_shape *old, int reseeded)
{
    memset(shape->index, 0, shape->buckets * sizeof *shape->index);
    for (uint32_t i = 0; i < old->buckets * DEMUX_BUCKET; i++) {
        const struct exo_bucket *bucket = &old->index[i / DEMUX_BUCKET];
        uint32_t tag = bucket->tag[i % DEMUX_BUCKET], number = bucket->entry[i % DEMUX_BUCKET];
        if (tag && !settle(shape, reseeded ? tag_of(shape, demux_entry_at(old, number)->value) : tag, number))
            return 0;
    }
    return 1;
}

/* A new index of so many buckets, or of twice that where chance will not have it. */
static int32_t rebuild(struct exo_demux *demux, struct demux_shape *shape, uint32_t buckets, int reseed)
{
    struct demux_shape next = *shape;
    for (int attempt = 0; attempt < 2 * RESEEDS; attempt++) {
        next.buckets = attempt < RESEEDS ? buckets : 2 * buckets;
        if (next.buckets > MAX_ENTRIES / 2)
            return EXO_E_FULL;
        next.table.shift = 64 - (uint32_t)__builtin_ctz(next.buckets);
        next.index = aligned_alloc(sizeof *next.index, next.buckets * sizeof *next.index);
        if (!next.index)
            return EXO_E_MEMORY;
        int reseeded = reseed || attempt > 0;
        if (reseeded)
            draw_multipliers(demux, &next.table);
        if (fill_index(&next, shape, reseeded)) {
            free(shape->index);
            next.table.index = next.index;
            next.table.large = next.buckets * (sizeof *next.index + 4 * next.table.stride) > OWN_CACHE;
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
    if (shape->entry_top + 1 >= MAX_ENTRIES)
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
    int32_t code = reserve_entry(shape);
    if (code || demux_table_find(shape, key) != DEMUX_NONE)
        return code;
    if ((shape->keys + 1) * 2 > shape->buckets * DEMUX_BUCKET)
        code = rebuild(demux, shape, shape->buckets * 2, 0);
    for (int attempt = 0; !code && attempt < RESEEDS; attempt++) {
        if (distance_of(shape, tag_of(shape, key)) < DEMUX_PROBE_CAP)
            return 0;
        code = rebuild(demux, shape, shape->buckets, 1);
    }
    return code ? code : EXO_E_FULL;
}

void demux_table_put(struct demux_shape *shape, const uint64_t *key, uint32_t head)
{
    uint32_t at;
    struct exo_bucket *bucket = find_key(shape, key, &at);
    if (bucket) {
        bucket->entry[at] = head;
        return;
    }
    settle(shape, tag_of(shape, key), head);
    shape->keys++;
}

void demux_table_drop(struct demux_shape *shape, const uint64_t *key)
{
    uint32_t at, tag = tag_of(shape, key);
    struct exo_bucket *bucket = find_key(shape, key, &at);
    bucket->tag[at] = 0;
    for (uint32_t b = home_of(shape, tag); &shape->index[b] != bucket; b = (b + 1) & (shape->buckets - 1))
        if (!--shape->index[b].tag[DEMUX_BUCKET])
            shape->index[b].entry[DEMUX_BUCKET] = EXO_ENTRY_NOBODY;
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
uint32_t exo_form_stride(const struct exo_form *form)
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
    shape->entry_top = EXO_ENTRY_FIRST;
    shape->destination = exo_form_destination(&shape->form);
    shape->ported = demux_ported(&shape->form);
    shape->port_low = UINT16_MAX;
    shape->table.stride = exo_form_stride(&shape->form);
    shape->probe = demux_probe_table;
    if (reserve_entry(shape) || rebuild(demux, shape, FIRST_BUCKETS, 1)) {
        demux_shape_free(shape);
        return NULL;
    }
    demux_entry_at(shape, EXO_ENTRY_NOBODY)->binding = EXO_NO_OWNER;   /* a glance that misses loads it */
    return shape;
}

void demux_shape_free(struct demux_shape *shape)
{
    if (!shape)
        return;
    for (uint32_t i = 0; shape->form.interval.bytes && shape->index && i < shape->buckets * DEMUX_BUCKET; i++) {
        const struct exo_bucket *bucket = &shape->index[i / DEMUX_BUCKET];
        if (bucket->tag[i % DEMUX_BUCKET])
            demux_range_free(shape, demux_range_of(shape, demux_entry_at(shape, bucket->entry[i % DEMUX_BUCKET]))->segments);
    }
    free(shape->index);
    if (shape->memory_bytes)
        munmap(shape->memory, shape->memory_bytes);
    free(shape);
}
