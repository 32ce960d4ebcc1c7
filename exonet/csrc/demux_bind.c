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
    demux_program_free(demux);
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

/* The entry of the same box with the same breadth, or DEMUX_NONE. */
static uint32_t find_twin(const struct demux_shape *shape, uint32_t head, const struct exo_conjunct *conjunct, const uint64_t *value)
{
    const struct exo_form *form = &shape->form;
    const uint64_t *excluded = value + form->lanes;
    if (form->interval.bytes) {
        struct demux_sought sought = {conjunct->interval.low, conjunct->interval.high, conjunct->breadth, excluded};
        return demux_range_twin(shape, head, &sought);
    }
    for (; head != DEMUX_NONE; head = demux_entry_at(shape, head)->next_key) {
        const struct demux_entry *entry = demux_entry_at(shape, head);
        if (entry->breadth == conjunct->breadth && !memcmp(entry->value + form->lanes, excluded, form->excluded * sizeof *value))
            return head;
    }
    return DEMUX_NONE;
}

/* Puts an entry among those of its key: into their tree, or into the chain before the first that is wider. */
static void join_key(struct demux_shape *shape, uint32_t number, uint32_t head)
{
    struct demux_entry *entry = demux_entry_at(shape, number), *previous = NULL;
    uint32_t after = head;
    if (shape->form.interval.bytes) {
        demux_range_add(shape, head, number);
        if (head == DEMUX_NONE)
            demux_table_put(shape, entry->value, number);
        return;
    }
    while (after != DEMUX_NONE && demux_entry_at(shape, after)->breadth <= entry->breadth) {
        previous = demux_entry_at(shape, after);
        after = previous->next_key;
    }
    entry->next_key = after;
    if (previous)
        previous->next_key = number;
    else
        demux_table_put(shape, entry->value, number);
}

static void commit(struct exo_demux *demux, uint32_t place, const struct exo_conjunct *conjunct, const struct demux_parted *parted,
                   uint32_t head)
{
    struct demux_shape *shape = demux->shape[place];
    uint32_t number = demux_entry_take(shape);
    struct demux_entry *entry = demux_entry_at(shape, number);
    entry->binding = conjunct->binding;
    entry->breadth = conjunct->breadth;
    memcpy(entry->value, parted->value, (shape->form.lanes + shape->form.excluded) * sizeof *entry->value);
    if (shape->form.interval.bytes) {
        const struct exo_interval *interval = &conjunct->interval;
        uint32_t bits = parted->bits + demux_interval_bits(interval, interval->low, interval->high);
        *demux_range_of(shape, entry) = (struct demux_range){.low = interval->low, .high = interval->high, .bits = bits};
    }
    join_key(shape, number, head);
    if (demux_has_program(&shape->form))
        demux_program_of(shape, entry)->users++;
    demux_destination_add(demux, place, entry->value);
    demux_port_add(shape, entry->value, &conjunct->interval);
    entry->next_binding = demux->head[entry->binding];
    demux->head[entry->binding] = place << DEMUX_ENTRY_BITS | number;
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

static int32_t try_insert(struct exo_demux *demux, uint32_t place, const struct exo_conjunct *conjunct, const struct demux_parted *parted)
{
    struct demux_shape *shape = demux->shape[place];
    int32_t code = demux_table_reserve(demux, shape, parted->value);
    if (!code)
        code = demux_destination_reserve(demux, shape);
    if (code)
        return code;
    uint32_t head = demux_table_find(shape, parted->value), twin = find_twin(shape, head, conjunct, parted->value);
    if (twin != DEMUX_NONE)
        return demux_entry_at(shape, twin)->binding == conjunct->binding ? 0 : EXO_E_CONFLICT;
    if (shape->form.interval.bytes)
        code = demux_range_reserve(shape, head, conjunct->interval.low, conjunct->interval.high);
    if (!code)
        commit(demux, place, conjunct, parted, head);
    return code;
}

/* A program is the last of the values: equal ones are one. */
static int32_t insert_into(struct exo_demux *demux, uint32_t place, const struct exo_conjunct *conjunct, struct demux_parted *parted)
{
    if (!conjunct->instructions)
        return try_insert(demux, place, conjunct, parted);
    struct demux_program *program = demux_program_take(demux, conjunct->program, conjunct->instructions);
    if (!program)
        return EXO_E_MEMORY;
    parted->value[parted->form.lanes + parted->form.excluded - 1] = (uintptr_t)program;
    int32_t code = try_insert(demux, place, conjunct, parted);
    demux_program_give(demux, program);
    return code;
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
        demux_dispatch(demux, !demux->shape[place]->destination);
    return code;
}

/* Takes an entry out of its key's chain or tree. Returns the head that is left, or DEMUX_NONE. */
static uint32_t leave_key(struct demux_shape *shape, uint32_t number, uint32_t head)
{
    uint32_t next = demux_entry_at(shape, number)->next_key, previous = head;
    if (shape->form.interval.bytes) {
        uint32_t left = demux_range_remove(shape, number);
        return head == number ? left : head;
    }
    if (head == number)
        return next;
    while (demux_entry_at(shape, previous)->next_key != number)
        previous = demux_entry_at(shape, previous)->next_key;
    demux_entry_at(shape, previous)->next_key = next;
    return head;
}

/* Takes an entry out, and its key out of the table with the last of it. Returns whether the shape is empty now. */
static int unlink_entry(struct exo_demux *demux, struct demux_shape *shape, uint32_t number)
{
    const uint64_t *key = demux_entry_at(shape, number)->value;
    uint32_t head = demux_table_find(shape, key), left = leave_key(shape, number, head);
    if (left == DEMUX_NONE)
        demux_table_drop(shape, key);
    else if (left != head)
        demux_table_put(shape, key, left);
    demux_destination_drop(demux, shape, key);
    if (demux_has_program(&shape->form))
        demux_program_give(demux, demux_program_of(shape, demux_entry_at(shape, number)));
    demux_entry_give(shape, number);
    demux->conjuncts--;
    demux->changes++;
    return !shape->entries;
}

int32_t exo_demux_remove(struct exo_demux *demux, uint32_t binding)
{
    int32_t removed = 0;
    int changed = 0, loose = 0;
    if (binding >= demux->head_capacity)
        return 0;
    for (uint32_t handle = demux->head[binding]; handle != DEMUX_NONE; removed++) {
        uint32_t place = handle >> DEMUX_ENTRY_BITS, number = handle & ((1u << DEMUX_ENTRY_BITS) - 1);
        struct demux_shape *shape = demux->shape[place];
        handle = demux_entry_at(shape, number)->next_binding;
        if (!unlink_entry(demux, shape, number))
            continue;
        loose |= !shape->destination;
        drop_shape(demux, place);
        changed = 1;
    }
    demux->head[binding] = DEMUX_NONE;
    if (changed)
        demux_dispatch(demux, loose);
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
    uint64_t bytes = sizeof *demux + demux->head_capacity * sizeof *demux->head + demux_destination_bytes(demux)
                   + demux_program_bytes(demux);
    for (uint32_t i = 0; i < EXO_MAX_SHAPES; i++)
        if (demux->shape[i])
            bytes += sizeof *demux->shape[i] + demux->shape[i]->memory_bytes + demux->shape[i]->segment_bytes
                   + demux->shape[i]->buckets * sizeof(struct exo_bucket);
    return bytes;
}
