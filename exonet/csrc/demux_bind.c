/* SPDX-License-Identifier: MIT
 *
 * The demux's bind time: conjuncts in, bindings out. A refused insert changes nothing: everything that can fail (validation, memory,
 * a full table, a conflict) comes before the first write of a record.
 */
#include "demux_private.h"

#include <stdlib.h>

#define MAX_GUARD (1u << 20)

/* A conjunct taken apart: the shape's form, and the values in its order. */
struct parted {
    struct demux_form form;
    uint32_t value[EXO_MAX_ATOMS];
};

struct exo_demux *exo_demux_new(uint64_t seed)
{
    struct exo_demux *demux = calloc(1, sizeof *demux);
    if (!demux)
        return NULL;
    demux->random = seed;
    demux->record_free = DEMUX_NONE;
    return demux;
}

void exo_demux_free(struct exo_demux *demux)
{
    if (!demux)
        return;
    for (uint32_t i = 0; i < EXO_MAX_SHAPES; i++)
        demux_shape_free(demux->shape[i]);
    for (uint32_t i = 0; i < demux->record_capacity; i++)
        free(demux->record[i].excluded);
    free(demux->record);
    free(demux->head);
    free(demux);
}

static void swap_atoms(struct parted *parted, uint32_t i, uint32_t j)
{
    struct demux_probe atom = parted->form.atom[i];
    uint32_t value = parted->value[i];
    parted->form.atom[i] = parted->form.atom[j];
    parted->value[i] = parted->value[j];
    parted->form.atom[j] = atom;
    parted->value[j] = value;
}

static int atom_after(const struct parted *parted, uint32_t i, uint32_t j)
{
    const struct demux_probe *a = &parted->form.atom[i], *b = &parted->form.atom[j];
    if (a->base != b->base)
        return a->base > b->base;
    if (a->offset != b->offset)
        return a->offset > b->offset;
    if (a->mask != b->mask)
        return a->mask > b->mask;
    return parted->value[i] > parted->value[j];
}

/* Insertion sort of atoms [first, last). */
static void sort_atoms(struct parted *parted, uint32_t first, uint32_t last)
{
    for (uint32_t i = first + 1; i < last; i++)
        for (uint32_t j = i; j > first && atom_after(parted, j - 1, j); j--)
            swap_atoms(parted, j - 1, j);
}

/* Raises the guard of the atom's base so that it covers every masked byte. */
static void raise_guard(struct demux_form *form, const struct exo_atom *atom, uint32_t base)
{
    uint32_t end = atom->offset + 4u - (uint32_t)__builtin_ctz(atom->mask) / 8;
    if (base == EXO_BASE_FRAME && form->frame_bytes < end)
        form->frame_bytes = end;
    if (base == EXO_BASE_IP4 && form->ip4_bytes < end)
        form->ip4_bytes = end;
}

static int32_t part_atom(struct parted *parted, const struct exo_atom *atom, uint32_t at)
{
    uint32_t base = atom->base & ~(uint32_t)EXO_BASE_NOT;
    if (base > EXO_BASE_LENGTH || !atom->mask || (atom->value & ~atom->mask) || atom->offset > EXO_MAX_FRAME - 4)
        return EXO_E_INVALID;
    if (base == EXO_BASE_LENGTH && atom->offset != 0)
        return EXO_E_INVALID;
    parted->form.atom[at] = (struct demux_probe){(uint16_t)base, atom->offset, __builtin_bswap32(atom->mask)};
    parted->value[at] = __builtin_bswap32(atom->value);
    raise_guard(&parted->form, atom, base);
    return 0;
}

static int32_t part(struct parted *parted, const struct exo_conjunct *conjunct)
{
    memset(parted, 0, sizeof *parted);
    if (conjunct->atoms > EXO_MAX_ATOMS || conjunct->frame_bytes > MAX_GUARD || conjunct->ip4_bytes > MAX_GUARD)
        return EXO_E_INVALID;
    struct demux_form *form = &parted->form;
    form->frame_bytes = conjunct->frame_bytes;
    form->ip4_bytes = conjunct->ip4_bytes;
    for (uint32_t not = 0; not < 2; not++)
        for (uint32_t i = 0; i < conjunct->atoms; i++) {
            const struct exo_atom *atom = &conjunct->atom[i];
            if (((atom->base & EXO_BASE_NOT) != 0) != not)
                continue;
            if (part_atom(parted, atom, form->atoms + form->excluded))
                return EXO_E_INVALID;
            if (not)
                form->excluded++;
            else
                form->atoms++;
        }
    sort_atoms(parted, 0, form->atoms);
    sort_atoms(parted, form->atoms, form->atoms + form->excluded);
    if (form->ip4_bytes) {
        form->ip4_at = conjunct->ip4_at ? conjunct->ip4_at : 14;
        if (form->frame_bytes < form->ip4_at + 1)
            form->frame_bytes = form->ip4_at + 1;
    }
    return 0;
}

static uint32_t find_shape(const struct exo_demux *demux, const struct demux_form *form)
{
    for (uint32_t i = 0; i < EXO_MAX_SHAPES; i++)
        if (demux->shape[i] && !memcmp(&demux->shape[i]->form, form, sizeof *form))
            return i;
    return DEMUX_NONE;
}

static int32_t reserve_record(struct exo_demux *demux)
{
    if (demux->record_free != DEMUX_NONE)
        return 0;
    uint32_t capacity = demux->record_capacity ? demux->record_capacity + demux->record_capacity / 2 : 64;
    struct demux_record *record = realloc(demux->record, capacity * sizeof *record);
    if (!record)
        return EXO_E_MEMORY;
    memset(record + demux->record_capacity, 0, (capacity - demux->record_capacity) * sizeof *record);
    for (uint32_t i = demux->record_capacity; i < capacity; i++)
        record[i].next_key = i + 1 < capacity ? i + 1 : DEMUX_NONE;
    demux->record_free = demux->record_capacity;
    demux->record = record;
    demux->record_capacity = capacity;
    return 0;
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
static int32_t find_twin(const struct exo_demux *demux, const struct demux_shape *shape, uint32_t at,
                         const struct exo_conjunct *conjunct, const uint32_t *excluded)
{
    uint32_t r = demux_shape_slot(shape, at)[SLOT_RECORD];
    for (; r != DEMUX_NONE; r = demux->record[r].next_key) {
        const struct demux_record *record = &demux->record[r];
        if (record->breadth != conjunct->breadth)
            continue;
        if (shape->form.excluded && memcmp(record->excluded, excluded, shape->form.excluded * sizeof *excluded))
            continue;
        return record->binding == conjunct->binding ? 1 : EXO_E_CONFLICT;
    }
    return 0;
}

static void refresh_slot(const struct exo_demux *demux, uint32_t *slot, uint32_t number)
{
    slot[SLOT_RECORD] = number;
    slot[SLOT_BINDING] = demux->record[number].binding;
    slot[SLOT_BREADTH] = demux->record[number].breadth;
}

/* Puts a record into its key's chain, narrowest first, and into its binding's. */
static void link_record(struct exo_demux *demux, struct demux_shape *shape, uint32_t number)
{
    struct demux_record *record = &demux->record[number];
    uint32_t *slot = demux_shape_slot(shape, record->slot);
    uint32_t before = DEMUX_NONE, after = slot[SLOT_RECORD];
    while (after != DEMUX_NONE && demux->record[after].breadth <= record->breadth) {
        before = after;
        after = demux->record[after].next_key;
    }
    record->next_key = after;
    if (before == DEMUX_NONE)
        refresh_slot(demux, slot, number);
    else
        demux->record[before].next_key = number;
    record->next_binding = demux->head[record->binding];
    demux->head[record->binding] = number;
}

static void commit(struct exo_demux *demux, uint32_t shape_number, uint32_t at, const struct exo_conjunct *conjunct,
                   const struct parted *parted, uint32_t *excluded)
{
    struct demux_shape *shape = demux->shape[shape_number];
    uint32_t number = demux->record_free;
    uint32_t *slot = demux_shape_slot(shape, at);

    demux->record_free = demux->record[number].next_key;
    demux->record[number] = (struct demux_record){
        .shape = shape_number, .slot = at, .binding = conjunct->binding, .breadth = conjunct->breadth, .excluded = excluded,
    };
    if (slot[SLOT_RECORD] == DEMUX_NONE) {
        memcpy(slot + SLOT_KEY, parted->value, demux_shape_key_bytes(shape));
        shape->keys++;
    }
    int changed = demux_shape_agree(shape, parted->value);
    link_record(demux, shape, number);
    shape->records++;
    demux->conjuncts++;
    demux->extra_bytes += shape->form.excluded * sizeof(uint32_t);
    if (changed)
        demux_dispatch(demux);
}

static uint32_t empty_place(const struct exo_demux *demux)
{
    for (uint32_t i = 0; i < EXO_MAX_SHAPES; i++)
        if (!demux->shape[i])
            return i;
    return DEMUX_NONE;
}

/* The shape of the form, made if need be; *made tells, so that a refusal can take it back. */
static int32_t reserve_shape(struct exo_demux *demux, const struct demux_form *form, uint32_t *number, int *made)
{
    *made = 0;
    *number = find_shape(demux, form);
    if (*number != DEMUX_NONE)
        return 0;
    *number = empty_place(demux);
    if (*number == DEMUX_NONE)
        return EXO_E_FULL;
    demux->shape[*number] = demux_shape_new(demux, form);
    if (!demux->shape[*number])
        return EXO_E_MEMORY;
    demux->shapes++;
    *made = 1;
    return 0;
}

static void drop_shape(struct exo_demux *demux, uint32_t number)
{
    demux_shape_free(demux->shape[number]);
    demux->shape[number] = NULL;
    demux->shapes--;
}

static int32_t insert_into(struct exo_demux *demux, uint32_t number, const struct exo_conjunct *conjunct,
                           const struct parted *parted)
{
    struct demux_shape *shape = demux->shape[number];
    const uint32_t *values = parted->value + shape->form.atoms;
    uint32_t *excluded = NULL, at;
    int32_t code = demux_shape_reserve(demux, shape, parted->value, &at);
    if (code)
        return code;
    code = find_twin(demux, shape, at, conjunct, values);
    if (code)
        return code > 0 ? 0 : code;
    if (shape->form.excluded) {
        size_t size = shape->form.excluded * sizeof *excluded;
        excluded = malloc(size);
        if (!excluded)
            return EXO_E_MEMORY;
        memcpy(excluded, values, size);
    }
    commit(demux, number, at, conjunct, parted, excluded);
    return 0;
}

int32_t exo_demux_insert(struct exo_demux *demux, const struct exo_conjunct *conjunct)
{
    struct parted parted;
    uint32_t number;
    int made;
    int32_t code = part(&parted, conjunct);
    if (!code)
        code = reserve_record(demux);
    if (!code)
        code = reserve_head(demux, conjunct->binding);
    if (!code)
        code = reserve_shape(demux, &parted.form, &number, &made);
    if (code)
        return code;
    code = insert_into(demux, number, conjunct, &parted);
    if (code && made)
        drop_shape(demux, number);
    return code;
}

/* Takes a record out of its key's chain, and the key out of the table with its last. Returns whether a shape went. */
static int unlink_record(struct exo_demux *demux, uint32_t number)
{
    struct demux_record *record = &demux->record[number];
    struct demux_shape *shape = demux->shape[record->shape];
    uint32_t *slot = demux_shape_slot(shape, record->slot);

    if (slot[SLOT_RECORD] != number) {
        uint32_t before = slot[SLOT_RECORD];
        while (demux->record[before].next_key != number)
            before = demux->record[before].next_key;
        demux->record[before].next_key = record->next_key;
    } else if (record->next_key != DEMUX_NONE) {
        refresh_slot(demux, slot, record->next_key);
    } else {
        shape->keys--;
        demux_shape_vacate(demux, shape, record->slot);
    }
    demux->extra_bytes -= shape->form.excluded * sizeof(uint32_t);
    demux->conjuncts--;
    if (--shape->records)
        return 0;
    drop_shape(demux, record->shape);
    return 1;
}

int32_t exo_demux_remove(struct exo_demux *demux, uint32_t binding)
{
    int32_t removed = 0;
    int changed = 0;
    if (binding >= demux->head_capacity)
        return 0;
    for (uint32_t number = demux->head[binding], next; number != DEMUX_NONE; number = next, removed++) {
        struct demux_record *record = &demux->record[number];
        next = record->next_binding;
        changed |= unlink_record(demux, number);
        free(record->excluded);
        *record = (struct demux_record){.next_key = demux->record_free};
        demux->record_free = number;
    }
    demux->head[binding] = DEMUX_NONE;
    if (changed)
        demux_dispatch(demux);
    return removed;
}

uint64_t exo_demux_bytes(const struct exo_demux *demux)
{
    uint64_t bytes = sizeof *demux + demux->extra_bytes + demux->record_capacity * sizeof *demux->record
                   + demux->head_capacity * sizeof *demux->head;
    for (uint32_t i = 0; i < EXO_MAX_SHAPES; i++)
        if (demux->shape[i])
            bytes += sizeof *demux->shape[i]
                   + (uint64_t)demux->shape[i]->capacity * demux->shape[i]->stride * sizeof(uint32_t);
    return bytes;
}
