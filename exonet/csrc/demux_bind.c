/* SPDX-License-Identifier: MIT
 *
 * The demux's bind time: conjuncts in, bindings out, and native probes installed. A refused insert changes nothing: everything that can fail
 * (validation, memory, a full table, a conflict) comes before the first write that a classification could see.
 */
#include "demux_private.h"

#include <stdlib.h>
#include <sys/mman.h>

struct exo_demux *exo_demux_new(uint64_t seed)
{
    struct exo_demux *demux = calloc(1, sizeof *demux);
    if (!demux)
        return NULL;
    demux->random = seed;
    for (uint32_t protocol = 0; protocol < 256; protocol++) {
        demux->branch_of[0][protocol] = (uint8_t)(DEMUX_IP4 * DEMUX_PROTOCOLS + demux_protocol_of(0x0800, protocol));
        demux->branch_of[1][protocol] = (uint8_t)(DEMUX_IP6 * DEMUX_PROTOCOLS + demux_protocol_of(0x86dd, protocol));
    }
    for (uint32_t ethertype = 0; ethertype < DEMUX_ETHERTYPES; ethertype++)
        for (uint16_t protocol = 0; protocol < DEMUX_PROTOCOLS; protocol++) {
            demux->branch[ethertype][protocol].is_ip6 = ethertype == DEMUX_IP6;
            demux->branch[ethertype][protocol].protocol = protocol;
        }
    for (uint32_t i = 0; i < 4; i++)
        demux->family[i / 2].multiplier[i % 2] = demux_draw(demux) | 1;
    return demux;
}

void exo_demux_free(struct exo_demux *demux)
{
    if (!demux)
        return;
    for (uint32_t i = 0; i < EXO_MAX_SHAPES; i++)
        demux_shape_free(demux->shape[i]);
    demux_destination_free(demux);
    free(demux->head);
    free(demux);
}

static uint32_t find_shape(const struct exo_demux *demux, const struct exo_form *form)
{
    for (uint32_t i = 0; i < EXO_MAX_SHAPES; i++)
        if (demux->shape[i] && !memcmp(&demux->shape[i]->form, form, sizeof *form))
            return i;
    return DEMUX_NONE;
}

static int32_t reserve_head(struct exo_demux *demux, uint32_t binding)
{
    if (binding >= EXO_MAX_BINDINGS)
        return EXO_E_INVALID;
    if (binding < demux->head_capacity)
        return 0;
    uint32_t capacity = demux->head_capacity ? demux->head_capacity : 64;
    while (capacity <= binding)
        capacity *= 2;
    uint32_t *head = realloc(demux->head, capacity * sizeof *head);
    if (!head)
        return EXO_E_MEMORY;
    memset(head + demux->head_capacity, 0xff, (capacity - demux->head_capacity) * sizeof *head);
    demux->head = head;
    demux->head_capacity = capacity;
    return 0;
}

/* Is the same box with the same breadth there? Of the same binding: 1; of another: EXO_E_CONFLICT; else 0. */
static int32_t find_twin(const struct demux_shape *shape, uint32_t head, const struct exo_conjunct *conjunct, const uint64_t *value)
{
    const struct exo_form *form = &shape->form;
    for (; head != DEMUX_NONE; head = demux_entry_at(shape, head)->next_key) {
        const struct demux_entry *entry = demux_entry_at(shape, head);
        if (entry->breadth != conjunct->breadth)
            continue;
        if (memcmp(entry->value + form->lanes, value + form->lanes, form->excluded * sizeof *value))
            continue;
        if (form->interval.bytes) {
            const struct demux_range *range = demux_range_of(shape, entry);
            if (range->low != conjunct->interval.low || range->high != conjunct->interval.high)
                continue;
        }
        return entry->binding == conjunct->binding ? 1 : EXO_E_CONFLICT;
    }
    return 0;
}

/* Is entry a to be asked before b of the same key? The smaller interval, then the narrower filter; new ones after their equals. */
static int before(const struct demux_shape *shape, const struct demux_entry *a, const struct demux_entry *b)
{
    return shape->form.interval.bytes ? demux_range_before(shape, a, b) : a->breadth < b->breadth;
}

static void link_entry(struct exo_demux *demux, uint32_t place, uint32_t number, uint32_t head)
{
    struct demux_shape *shape = demux->shape[place];
    struct demux_entry *entry = demux_entry_at(shape, number), *previous = NULL;
    uint32_t after = head;
    while (after != DEMUX_NONE && !before(shape, entry, demux_entry_at(shape, after))) {
        previous = demux_entry_at(shape, after);
        after = previous->next_key;
    }
    entry->next_key = after;
    if (previous)
        previous->next_key = number;
    else
        demux_table_put(shape, entry->value, number);
    entry->next_binding = demux->head[entry->binding];
    demux->head[entry->binding] = place << DEMUX_ENTRY_BITS | number;
}

static void commit(struct exo_demux *demux, uint32_t place, const struct exo_conjunct *conjunct, const struct demux_parted *parted,
                   uint32_t head, struct demux_segments *segments)
{
    struct demux_shape *shape = demux->shape[place];
    uint32_t number = demux_entry_take(shape);
    struct demux_entry *entry = demux_entry_at(shape, number);
    entry->binding = conjunct->binding;
    entry->breadth = conjunct->breadth;
    memcpy(entry->value, parted->value, (shape->form.lanes + shape->form.excluded) * sizeof *entry->value);
    if (segments) {
        const struct exo_interval *interval = &conjunct->interval;
        uint32_t bits = parted->bits + demux_interval_bits(interval, interval->low, interval->high);
        *demux_range_of(shape, entry) = (struct demux_range){interval->low, interval->high, bits, segments};
        demux_range_add(shape, segments, number);
    }
    link_entry(demux, place, number, head);
    demux_destination_add(demux, place, entry->value);
    demux->conjuncts++;
    demux->changes++;
}

/* The shape of the form, made if need be; *made tells, so that a refusal can take it back. */
static int32_t reserve_shape(struct exo_demux *demux, const struct demux_parted *parted, uint32_t *place, int *made)
{
    *made = 0;
    *place = find_shape(demux, &parted->form);
    if (*place != DEMUX_NONE)
        return 0;
    for (*place = 0; *place < EXO_MAX_SHAPES && demux->shape[*place]; ++*place)
        ;
    if (*place == EXO_MAX_SHAPES)
        return EXO_E_FULL;
    demux->shape[*place] = demux_shape_new(demux, parted);
    if (!demux->shape[*place])
        return EXO_E_MEMORY;
    demux->shapes++;
    *made = 1;
    return 0;
}

static void drop_shape(struct exo_demux *demux, uint32_t place)
{
    demux_destination_forget(demux, place);
    demux_shape_free(demux->shape[place]);
    demux->shape[place] = NULL;
    demux->shapes--;
}

/* The segments of all entries of a key may have moved when they grew. */
static void follow_segments(struct demux_shape *shape, uint32_t head, struct demux_segments *segments)
{
    for (; head != DEMUX_NONE; head = demux_entry_at(shape, head)->next_key)
        demux_range_of(shape, demux_entry_at(shape, head))->segments = segments;
}

static int32_t insert_into(struct exo_demux *demux, uint32_t place, const struct exo_conjunct *conjunct, const struct demux_parted *parted)
{
    struct demux_shape *shape = demux->shape[place];
    struct demux_segments *segments = NULL;
    int32_t code = demux_table_reserve(demux, shape, parted->value);
    if (!code)
        code = demux_destination_reserve(demux, shape);
    if (code)
        return code;
    uint32_t head = demux_table_find(shape, parted->value);
    code = find_twin(shape, head, conjunct, parted->value);
    if (code)
        return code > 0 ? 0 : code;
    if (shape->form.interval.bytes) {
        struct demux_segments *old = head == DEMUX_NONE ? NULL : demux_range_of(shape, demux_entry_at(shape, head))->segments;
        segments = demux_range_reserve(shape, old);
        if (!segments)
            return EXO_E_MEMORY;
        if (segments != old)
            follow_segments(shape, head, segments);
    }
    commit(demux, place, conjunct, parted, head, segments);
    return 0;
}

int32_t exo_demux_insert(struct exo_demux *demux, const struct exo_conjunct *conjunct)
{
    struct demux_parted parted;
    uint32_t place;
    int made = 0;
    int32_t code = demux_part(&parted, conjunct);
    if (!code)
        code = reserve_head(demux, conjunct->binding);
    if (!code)
        code = reserve_shape(demux, &parted, &place, &made);
    if (code)
        return code;
    code = insert_into(demux, place, conjunct, &parted);
    if (code && made)
        drop_shape(demux, place);
    else if (made)
        demux_dispatch(demux);
    return code;
}

/* Takes an entry out of its key's chain, and the key out of the table with its last. Returns whether the shape is empty now. */
static int unlink_entry(struct exo_demux *demux, struct demux_shape *shape, uint32_t number)
{
    struct demux_entry *entry = demux_entry_at(shape, number);
    struct demux_segments *segments = shape->form.interval.bytes ? demux_range_of(shape, entry)->segments : NULL;
    uint32_t head = demux_table_find(shape, entry->value);
    if (head == number && entry->next_key == DEMUX_NONE) {
        demux_table_drop(shape, entry->value);
        demux_range_free(shape, segments);
        segments = NULL;
    } else if (head == number) {
        head = entry->next_key;
        demux_table_put(shape, entry->value, head);
    } else {
        uint32_t previous = head;
        while (demux_entry_at(shape, previous)->next_key != number)
            previous = demux_entry_at(shape, previous)->next_key;
        demux_entry_at(shape, previous)->next_key = entry->next_key;
    }
    if (segments)
        demux_range_remove(shape, segments, number, head);
    demux_destination_drop(demux, shape, entry->value);
    demux_entry_give(shape, number);
    demux->conjuncts--;
    demux->changes++;
    return !shape->entries;
}

int32_t exo_demux_remove(struct exo_demux *demux, uint32_t binding)
{
    int32_t removed = 0;
    int changed = 0;
    if (binding >= demux->head_capacity)
        return 0;
    for (uint32_t handle = demux->head[binding]; handle != DEMUX_NONE; removed++) {
        uint32_t place = handle >> DEMUX_ENTRY_BITS, number = handle & ((1u << DEMUX_ENTRY_BITS) - 1);
        struct demux_shape *shape = demux->shape[place];
        handle = demux_entry_at(shape, number)->next_binding;
        if (!unlink_entry(demux, shape, number))
            continue;
        drop_shape(demux, place);
        changed = 1;
    }
    demux->head[binding] = DEMUX_NONE;
    if (changed)
        demux_dispatch(demux);
    return removed;
}

int32_t exo_demux_form(const struct exo_demux *demux, uint32_t place, struct exo_form *form)
{
    if (place >= EXO_MAX_SHAPES || !demux->shape[place])
        return EXO_E_INVALID;
    *form = demux->shape[place]->form;
    return demux->shape[place]->probe != demux_probe_table;
}

int32_t exo_demux_install(struct exo_demux *demux, const struct exo_form *form, exo_probe probe, exo_glance glance)
{
    uint32_t place = find_shape(demux, form);
    if (place == DEMUX_NONE)
        return 0;
    demux->shape[place]->probe = probe ? probe : demux_probe_table;
    demux->shape[place]->glance = probe ? glance : NULL;
    return 1;
}

uint64_t exo_demux_bytes(const struct exo_demux *demux)
{
    uint64_t bytes = sizeof *demux + demux->head_capacity * sizeof *demux->head + demux_destination_bytes(demux);
    for (uint32_t i = 0; i < EXO_MAX_SHAPES; i++)
        if (demux->shape[i])
            bytes += sizeof *demux->shape[i] + demux->shape[i]->memory_bytes + demux->shape[i]->segment_bytes
                   + demux->shape[i]->buckets * sizeof(struct exo_bucket);
    return bytes;
}
