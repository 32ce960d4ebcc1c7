/* SPDX-License-Identifier: MIT
 *
 * The probe that reads a shape's form: the answer while no native code is there, and the oracle for it. Three passes over the burst, so that
 * the cache misses of many frames overlap: guards, keys and tags; the index; the entries.
 */
#include "demux_private.h"

struct asked {
    uint32_t tag;
    uint32_t at;             /* in the index */
    uint64_t key[EXO_MAX_LANES];
};

static int make_key(const struct exo_table *table, const struct exo_frame *frame, struct asked *asked)
{
    const struct exo_form *form = table->form;
    uint32_t end;
    uint64_t hash = 0;
    if (!demux_admits(form, frame, &end))
        return 0;
    for (uint32_t i = 0; i < form->lanes; i++) {
        asked->key[i] = demux_lane(&form->lane[i], frame, end);
        hash += asked->key[i] * table->multiplier[i];
    }
    asked->tag = (uint32_t)(hash >> 32);
    asked->at = (uint32_t)(hash >> table->shift);
    return 1;
}

static int same_key(const struct exo_table *table, uint32_t number, const uint64_t *key)
{
    const struct demux_entry *entry = (const void *)(table->entries + (size_t)number * table->stride);
    uint64_t differ = 0;
    for (uint32_t i = 0; i < table->form->lanes; i++)
        differ |= entry->value[i] ^ key[i];
    return !differ;
}

/* The first index word from *at on with the tag: its entry; EXO_NO_ENTRY: the run ends without. */
static uint32_t next_tagged(const struct exo_table *table, uint32_t tag, uint32_t *at)
{
    uint32_t mask = (uint32_t)(UINT64_MAX >> table->shift);
    for (uint64_t word; (word = table->index[*at]); *at = (*at + 1) & mask)
        if (word >> 32 == tag)
            return (uint32_t)word - 1;
    return EXO_NO_ENTRY;
}

void demux_probe_table(const struct exo_table *table, const struct exo_frame *frames, const uint16_t *which, uint32_t n, uint32_t *found)
{
    struct asked asked[EXO_PROBE_BURST];
    uint16_t live[EXO_PROBE_BURST];
    uint32_t lives = 0, mask = (uint32_t)(UINT64_MAX >> table->shift);

    for (uint32_t i = 0; i < n; i++) {
        found[i] = EXO_NO_ENTRY;
        if (!make_key(table, &frames[which[i]], &asked[i]))
            continue;
        __builtin_prefetch(table->index + asked[i].at);
        live[lives++] = (uint16_t)i;
    }
    for (uint32_t j = 0; j < lives; j++) {
        struct asked *a = &asked[live[j]];
        uint32_t number = found[live[j]] = next_tagged(table, a->tag, &a->at);
        if (number != EXO_NO_ENTRY)
            __builtin_prefetch(table->entries + (size_t)number * table->stride);
    }
    for (uint32_t j = 0; j < lives; j++) {
        uint32_t i = live[j];
        struct asked *a = &asked[i];
        while (found[i] != EXO_NO_ENTRY && !same_key(table, found[i], a->key)) {
            a->at = (a->at + 1) & mask;
            found[i] = next_tagged(table, a->tag, &a->at);
        }
    }
}
