/* SPDX-License-Identifier: MIT
 *
 * The dispatch over shapes, made anew whenever a shape comes or goes: per ethertype the list of shapes that may match it, most
 * specific first. A shape belongs to one ethertype while all its values agree on it, else to every list.
 */
#include "demux_private.h"

/* Is a to be asked before b? The most specific first; the order of equals is that of their numbers. */
static int more_specific(const struct demux_shape *a, const struct demux_shape *b)
{
    if (a->bits != b->bits)
        return a->bits > b->bits;
    if (a->form.excluded != b->form.excluded)
        return a->form.excluded > b->form.excluded;
    if (a->form.frame_bytes != b->form.frame_bytes)
        return a->form.frame_bytes > b->form.frame_bytes;
    return a->form.ip4_bytes > b->form.ip4_bytes;
}

static uint32_t order_shapes(const struct exo_demux *demux, uint16_t order[EXO_MAX_SHAPES])
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < EXO_MAX_SHAPES; i++) {
        if (!demux->shape[i])
            continue;
        uint32_t j = n++;
        for (; j > 0 && more_specific(demux->shape[i], demux->shape[order[j - 1]]); j--)
            order[j] = order[j - 1];
        order[j] = (uint16_t)i;
    }
    return n;
}

static struct demux_group *group_for(struct exo_demux *demux, uint32_t ethertype)
{
    uint32_t i = demux_group_slot(ethertype);
    while (demux->group[i].used && demux->group[i].ethertype != ethertype)
        i = (i + 1) % DEMUX_GROUP_SLOTS;
    return &demux->group[i];
}

/* Lists the shapes of one group: those of its ethertype (NULL: none), and those of no one ethertype. */
static uint32_t fill_group(struct exo_demux *demux, const uint16_t *order, uint32_t n, const struct demux_group *of, uint32_t at)
{
    for (uint32_t i = 0; i < n; i++) {
        const struct demux_shape *shape = demux->shape[order[i]];
        if (!shape->has_ethertype || (of && shape->ethertype == of->ethertype))
            demux->list[at++] = order[i];
    }
    return at;
}

void demux_dispatch(struct exo_demux *demux)
{
    uint16_t order[EXO_MAX_SHAPES];
    uint32_t n = order_shapes(demux, order), at;

    memset(demux->group, 0, sizeof demux->group);
    at = fill_group(demux, order, n, NULL, 0);
    demux->other = (struct demux_group){1, 0, 0, at};
    for (uint32_t i = 0; i < n; i++) {
        const struct demux_shape *shape = demux->shape[order[i]];
        if (!shape->has_ethertype)
            continue;
        struct demux_group *group = group_for(demux, shape->ethertype);
        if (group->used)
            continue;
        *group = (struct demux_group){1, shape->ethertype, at, 0};
        uint32_t end = fill_group(demux, order, n, group, at);
        group->count = end - at;
        at = end;
    }
}

static const struct demux_probe *atom_at(const struct demux_shape *shape, uint32_t offset, uint32_t *index)
{
    for (*index = 0; *index < shape->form.atoms; ++*index)
        if (shape->form.atom[*index].base == EXO_BASE_FRAME && shape->form.atom[*index].offset == offset)
            return &shape->form.atom[*index];
    return NULL;
}

/* Keeps in step what all values of the shape agree on. Returns whether the dispatch has to be made anew. */
int demux_shape_agree(struct demux_shape *shape, const uint32_t *value)
{
    uint32_t i, first = shape->records == 0, had = shape->has_ethertype;
    const struct demux_probe *atom = atom_at(shape, 20, &i);
    if (atom && first) {
        shape->agree_mask = atom->mask;
        shape->agree_value = value[i];
    } else if (atom) {
        shape->agree_mask &= ~(shape->agree_value ^ value[i]);
        shape->agree_value &= shape->agree_mask;
    }
    atom = atom_at(shape, 12, &i);
    if (atom && (atom->mask & 0xffff) == 0xffff) {
        uint32_t ethertype = value[i] & 0xffff;
        shape->has_ethertype = first || (had && shape->ethertype == ethertype);
        shape->ethertype = ethertype;
    }
    return first || had != shape->has_ethertype;
}
