/* SPDX-License-Identifier: MIT
 *
 * The dispatch on destinations: where a leaf has many shapes, a frame is asked only of those that hold something for the IP address it
 * is sent to, and of those that fix none. So the shapes of one owner's addresses cost the frames of another's nothing.
 * A table per family, from address to a set of shapes per protocol. Equal sets are one, so that the frames of a burst still go together.
 * A shape stays in an address's set until nothing is bound to the address: a probe too many, never one too few.
 */
#include "demux_private.h"

#include <stdlib.h>

#define FIRST_CAPACITY 16u
#define FIRST_SETS 4u

static const uint32_t ethertype_of_family[2] = {DEMUX_IP4, DEMUX_IP6};

uint32_t exo_form_destination(const struct exo_form *form)
{
    uint32_t at = form->ethertype == 0x0800 ? 30 : 38, bytes = form->ethertype == 0x0800 ? 4 : 16, fixed = 0;
    if (form->ethertype != 0x0800 && form->ethertype != 0x86dd)
        return 0;
    for (uint32_t b = at; b < at + bytes; b++)
        for (uint32_t i = 0; i < form->lanes; i++) {
            const struct exo_lane *lane = &form->lane[i];
            uint32_t from = b - (uint32_t)lane->offset;
            if (lane->base == EXO_BASE_FRAME && from < lane->bytes && (lane->mask >> 8 * from & 0xff) == 0xff) {
                fixed++;
                break;
            }
        }
    return fixed == bytes ? at : 0;
}

/* The address that an entry of the shape fixes. */
static struct demux_address address_of(const struct demux_shape *shape, const uint64_t *value)
{
    struct demux_address address = {{0}};
    uint32_t bytes = shape->destination == 30 ? 4 : 16;
    for (uint32_t i = 0; i < shape->form.lanes; i++) {
        const struct exo_lane *lane = &shape->form.lane[i];
        for (uint32_t from = 0; lane->base == EXO_BASE_FRAME && from < lane->bytes; from++) {
            uint32_t at = (uint32_t)lane->offset + from - shape->destination;
            if (at < bytes)
                ((uint8_t *)address.word)[at] |= (uint8_t)(value[i] >> 8 * from);
        }
    }
    return address;
}

static struct demux_destination *find(const struct demux_family *family, struct demux_address address)
{
    uint32_t mask = family->capacity - 1;
    for (uint32_t i = demux_address_hash(family, address) & mask;; i = (i + 1) & mask) {
        struct demux_destination *d = &family->destination[i];
        if (!d->entries || demux_same_address(d->address, address))
            return d;
    }
}

static int32_t grow(struct demux_family *family)
{
    struct demux_family next = *family;
    next.capacity = family->capacity ? family->capacity * 2 : FIRST_CAPACITY;
    next.destination = calloc(next.capacity, sizeof *next.destination);
    if (!next.destination)
        return EXO_E_MEMORY;
    for (uint32_t i = 0; i < family->capacity; i++)
        if (family->destination[i].entries)
            *find(&next, family->destination[i].address) = family->destination[i];
    free(family->destination);
    *family = next;
    return 0;
}

/* Set 0 is that of an address for which nothing is held. */
static int32_t grow_sets(struct demux_branch *branch)
{
    uint32_t room = branch->set_room ? branch->set_room * 2 : FIRST_SETS;
    struct demux_set *set = realloc(branch->set, room * sizeof *set);
    if (!set)
        return EXO_E_MEMORY;
    memset(set + branch->set_room, 0, (room - branch->set_room) * sizeof *set);
    branch->set = set;
    branch->set_room = room;
    branch->set[0].stale |= !branch->sets;
    branch->sets += !branch->sets;
    return 0;
}

static struct demux_family *family_of(struct exo_demux *demux, const struct demux_shape *shape, uint32_t *ethertype)
{
    uint32_t family = shape->destination != 30;
    *ethertype = ethertype_of_family[family];
    return &demux->family[family];
}

int32_t demux_destination_reserve(struct exo_demux *demux, const struct demux_shape *shape)
{
    uint32_t ethertype;
    if (!shape->destination)
        return 0;
    struct demux_family *family = family_of(demux, shape, &ethertype);
    int32_t code = (family->count + 1) * 4 > family->capacity * 3 ? grow(family) : 0;
    for (uint32_t p = 0; !code && p < DEMUX_PROTOCOLS; p++) {
        struct demux_branch *branch = &demux->branch[ethertype][p];
        if (branch->sets == branch->set_room && branch->set_room < DEMUX_MOST_SETS)
            code = grow_sets(branch);
    }
    return code;
}

/* The set with these shapes; made where there is none. DEMUX_ALL_SHAPES: too many sets. */
static uint16_t set_with(struct exo_demux *demux, struct demux_branch *branch, uint32_t ethertype, uint32_t protocol,
                         const uint64_t shapes[DEMUX_SET_WORDS])
{
    uint32_t at = 1, spare = 0;
    for (; at < branch->sets && memcmp(branch->set[at].shapes, shapes, sizeof branch->set[at].shapes) != 0; at++)
        if (!branch->set[at].destinations && !spare)
            spare = at;
    if (at == branch->sets) {
        at = spare ? spare : at;
        if (at == DEMUX_MOST_SETS)
            return DEMUX_ALL_SHAPES;
        branch->sets += at == branch->sets;
        memcpy(branch->set[at].shapes, shapes, sizeof branch->set[at].shapes);
        demux_list(demux, &branch->set[at].leaf, ethertype, protocol, branch->set[at].shapes);
        branch->set[at].stale = 0;
    }
    branch->set[at].destinations++;
    return (uint16_t)at;
}

static void leave_set(struct demux_branch *branch, uint16_t at)
{
    if (at && at != DEMUX_ALL_SHAPES)
        branch->set[at].destinations--;
}

static void join(struct exo_demux *demux, struct demux_destination *d, uint32_t ethertype, uint32_t protocol, uint32_t place)
{
    struct demux_branch *branch = &demux->branch[ethertype][protocol];
    uint64_t shapes[DEMUX_SET_WORDS];
    if (d->set[protocol] == DEMUX_ALL_SHAPES)
        return;
    memcpy(shapes, branch->set[d->set[protocol]].shapes, sizeof shapes);
    if (shapes[place / 64] >> place % 64 & 1)
        return;
    shapes[place / 64] |= (uint64_t)1 << place % 64;
    leave_set(branch, d->set[protocol]);
    d->set[protocol] = set_with(demux, branch, ethertype, protocol, shapes);
}

void demux_destination_add(struct exo_demux *demux, uint32_t place, const uint64_t *value)
{
    const struct demux_shape *shape = demux->shape[place];
    uint32_t ethertype;
    if (!shape->destination)
        return;
    struct demux_family *family = family_of(demux, shape, &ethertype);
    struct demux_address address = address_of(shape, value);
    struct demux_destination *d = find(family, address);
    if (!d->entries) {
        *d = (struct demux_destination){.address = address};
        family->count++;
    }
    d->entries++;
    for (uint32_t p = 0; p < DEMUX_PROTOCOLS; p++)
        if (demux_belongs(&shape->form, ethertype, p))
            join(demux, d, ethertype, p, place);
}

/* Closes the gap that a free place would leave in the runs behind it. */
static void close_gap(struct demux_family *family, uint32_t gap)
{
    uint32_t mask = family->capacity - 1;
    for (uint32_t i = (gap + 1) & mask; family->destination[i].entries; i = (i + 1) & mask) {
        uint32_t home = demux_address_hash(family, family->destination[i].address) & mask;
        if (((i - home) & mask) < ((i - gap) & mask))
            continue;
        family->destination[gap] = family->destination[i];
        gap = i;
    }
    memset(&family->destination[gap], 0, sizeof family->destination[gap]);
}

void demux_destination_drop(struct exo_demux *demux, const struct demux_shape *shape, const uint64_t *value)
{
    uint32_t ethertype;
    if (!shape->destination)
        return;
    struct demux_family *family = family_of(demux, shape, &ethertype);
    struct demux_destination *d = find(family, address_of(shape, value));
    if (--d->entries)
        return;
    for (uint32_t p = 0; p < DEMUX_PROTOCOLS; p++)
        leave_set(&demux->branch[ethertype][p], d->set[p]);
    family->count--;
    close_gap(family, (uint32_t)(d - family->destination));
}

void demux_destination_forget(struct exo_demux *demux, uint32_t place)
{
    for (uint32_t f = 0; f < 2; f++)
        for (uint32_t p = 0; p < DEMUX_PROTOCOLS; p++) {
            struct demux_branch *branch = &demux->branch[ethertype_of_family[f]][p];
            for (uint32_t s = 0; s < branch->sets; s++) {
                uint64_t bit = (uint64_t)1 << place % 64;
                branch->set[s].stale |= (branch->set[s].shapes[place / 64] & bit) != 0;
                branch->set[s].shapes[place / 64] &= ~bit;
            }
        }
}

void demux_destination_free(struct exo_demux *demux)
{
    for (uint32_t f = 0; f < 2; f++) {
        free(demux->family[f].destination);
        for (uint32_t p = 0; p < DEMUX_PROTOCOLS; p++)
            free(demux->branch[ethertype_of_family[f]][p].set);
    }
}

uint64_t demux_destination_bytes(const struct exo_demux *demux)
{
    uint64_t bytes = 0;
    for (uint32_t f = 0; f < 2; f++) {
        bytes += demux->family[f].capacity * sizeof(struct demux_destination);
        for (uint32_t p = 0; p < DEMUX_PROTOCOLS; p++)
            bytes += demux->branch[ethertype_of_family[f]][p].set_room * sizeof(struct demux_set);
    }
    return bytes;
}
