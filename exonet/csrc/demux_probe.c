/* SPDX-License-Identifier: MIT
 *
 * The probe that reads a shape's form: the answer while no native code is there, and the oracle for it. Three passes over the burst, so that
 * the cache misses of many frames overlap: guards, keys and tags; the index; the entries.
 */
#include "demux_private.h"

struct sought {
    uint32_t tag;
    uint32_t at;             /* bucket */
    uint64_t key[EXO_MAX_LANES];
};

static int make_key(const struct exo_table *table, const struct exo_asked *frame, struct sought *sought)
{
    const struct exo_form *form = table->form;
    uint32_t end;
    uint64_t hash = 0;
    if (!demux_admits(form, frame, &end))
        return 0;
    for (uint32_t i = 0; i < form->lanes; i++) {
        sought->key[i] = demux_lane(&form->lane[i], frame, end);
        hash += sought->key[i] * table->multiplier[i];
    }
    sought->tag = (uint32_t)(hash >> 32) | 1;
    sought->at = (uint32_t)(hash >> table->shift);
    return 1;
}

static int same_key(const struct exo_table *table, const struct demux_entry *entry, const uint64_t *key)
{
    uint64_t differ = 0;
    for (uint32_t i = 0; i < table->form->lanes; i++)
        differ |= entry->value[i] ^ key[i];
    return !differ;
}

static const struct demux_entry *entry_of(const struct exo_table *table, uint32_t number)
{
    return (const void *)(table->entries + (size_t)number * table->stride);
}

/* The keys of a bucket whose tag it is, as bits. */
static uint32_t tagged(const struct exo_bucket *bucket, uint32_t tag)
{
    uint32_t bits = 0;
    for (uint32_t i = 0; i < DEMUX_BUCKET; i++)
        bits |= (uint32_t)(bucket->tag[i] == tag) << i;
    return bits;
}

static uint32_t find(const struct exo_table *table, uint32_t home, uint32_t tag, const uint64_t *key)
{
    uint32_t mask = (uint32_t)(UINT64_MAX >> table->shift);
    for (uint32_t b = home;; b = (b + 1) & mask) {
        const struct exo_bucket *bucket = &table->index[b];
        for (uint32_t bits = tagged(bucket, tag); bits; bits &= bits - 1) {
            uint32_t number = bucket->entry[__builtin_ctz(bits)];
            if (same_key(table, entry_of(table, number), key))
                return number;
        }
        if (!bucket->tag[DEMUX_BUCKET])
            return EXO_NO_ENTRY;
    }
}

void exo_demux_ask(const struct exo_table *table, const struct exo_asked *asked, uint32_t *found, uint32_t *owner)
{
    struct sought sought;
    *found = make_key(table, asked, &sought) ? find(table, sought.at, sought.tag, sought.key) : (uint32_t)EXO_NO_ENTRY;
    if (*found != EXO_NO_ENTRY)
        *owner = entry_of(table, *found)->binding;
}

void demux_probe_table(const struct exo_table *table, const struct exo_asked *asked, uint32_t n, uint32_t *found, uint32_t *owners)
{
    struct sought sought[EXO_PROBE_BURST];
    uint16_t live[EXO_PROBE_BURST];
    uint32_t lives = 0;

    for (uint32_t i = 0; i < n; i++) {
        found[i] = EXO_NO_ENTRY;
        if (!make_key(table, &asked[i], &sought[i]))
            continue;
        __builtin_prefetch(table->index + sought[i].at);
        live[lives++] = (uint16_t)i;
    }
    for (uint32_t j = 0; table->large && j < lives; j++) {
        const struct sought *s = &sought[live[j]];
        uint32_t bits = tagged(&table->index[s->at], s->tag);
        if (bits)
            __builtin_prefetch(entry_of(table, table->index[s->at].entry[__builtin_ctz(bits)]));
    }
    for (uint32_t j = 0; j < lives; j++) {
        uint32_t i = live[j];
        found[i] = find(table, sought[i].at, sought[i].tag, sought[i].key);
        if (found[i] != EXO_NO_ENTRY)
            owners[asked[i].place] = entry_of(table, found[i])->binding;
    }
}
