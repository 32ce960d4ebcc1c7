/* SPDX-License-Identifier: MIT
 *
 * The dispatch over shapes, made anew whenever a shape comes or goes: for each ethertype and protocol that is told apart (a branch), and
 * where there are many for each set of them that an IP destination may be asked for, the shapes that may match, the most specific
 * first. A shape that does not fix them is in every leaf.
 */
#include "demux_private.h"

uint32_t demux_ethertype_of(uint32_t ethertype)
{
    switch (ethertype) {
    case 0x0800: return DEMUX_IP4;
    case 0x86dd: return DEMUX_IP6;
    case 0x0806: return DEMUX_ARP;
    case 0x8100: return DEMUX_VLAN;
    case 0x88a8: return DEMUX_QINQ;
    case 0x8864: return DEMUX_PPPOE;
    default: return DEMUX_OTHER;
    }
}

uint32_t demux_protocol_of(uint32_t ethertype, uint32_t protocol)
{
    if (ethertype != 0x0800 && ethertype != 0x86dd)
        return DEMUX_ANY;
    switch (protocol) {
    case 1: return DEMUX_ICMP;
    case 6: return DEMUX_TCP;
    case 17: return DEMUX_UDP;
    case 58: return DEMUX_ICMP6;
    case 132: return DEMUX_SCTP;
    default: return DEMUX_ANY;
    }
}

uint32_t exo_form_branch(const struct exo_form *form)
{
    return demux_ethertype_of(form->ethertype) * DEMUX_PROTOCOLS + demux_protocol_of(form->ethertype, form->protocol);
}

/* Is a to be asked before b? The most specific first; the order of equals is that of their places. */
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

int demux_belongs(const struct exo_form *form, uint32_t ethertype, uint32_t protocol)
{
    if (form->ethertype == 0)
        return 1;
    if (demux_ethertype_of(form->ethertype) != ethertype)
        return 0;
    return form->protocol == EXO_ANY_PROTOCOL || demux_protocol_of(form->ethertype, form->protocol) == protocol;
}

static void append(const struct exo_demux *demux, struct demux_leaf *leaf, uint16_t place)
{
    const struct demux_shape *shape = demux->shape[place];
    if (!demux_is_plain(shape) || (leaf->count && demux->shape[leaf->place[leaf->count - 1]]->bits == shape->bits))
        leaf->first_wins = 0;
    leaf->place[leaf->count++] = place;
}

static void list_ordered(const struct exo_demux *demux, const uint16_t *order, uint32_t n, struct demux_leaf *leaf, uint32_t ethertype,
                         uint32_t protocol, const uint64_t *set)
{
    uint32_t ported = 0;
    leaf->count = 0;
    leaf->first_wins = 1;
    for (uint32_t i = 0; i < n; i++) {
        const struct demux_shape *shape = demux->shape[order[i]];
        int asked = !set || !shape->destination || (set[order[i] / 64] >> order[i] % 64 & 1);
        if (asked && demux_belongs(&shape->form, ethertype, protocol)) {
            append(demux, leaf, order[i]);
            ported += shape->ported;
        }
    }
    leaf->ports = ported > DEMUX_UNSPLIT ? ethertype : 0;
}

void demux_list(const struct exo_demux *demux, struct demux_leaf *leaf, uint32_t ethertype, uint32_t protocol, const uint64_t *set)
{
    uint16_t order[EXO_MAX_SHAPES];
    list_ordered(demux, order, order_shapes(demux, order), leaf, ethertype, protocol, set);
}

/* Does the form tell all frames of its branch from those of others? */
static int is_apart(const struct exo_form *form)
{
    if (form->protocol != EXO_ANY_PROTOCOL)
        return 1;
    uint32_t ethertype = demux_ethertype_of(form->ethertype);
    return ethertype != DEMUX_OTHER && ethertype != DEMUX_IP4 && ethertype != DEMUX_IP6;
}

void demux_dispatch(struct exo_demux *demux, int loose)
{
    uint16_t order[EXO_MAX_SHAPES];
    uint32_t n = order_shapes(demux, order);
    for (uint32_t ethertype = 0; ethertype < DEMUX_ETHERTYPES; ethertype++)
        for (uint32_t protocol = 0; protocol < DEMUX_PROTOCOLS; protocol++) {
            struct demux_branch *branch = &demux->branch[ethertype][protocol];
            struct demux_leaf *all = &branch->all;
            uint32_t fixing = 0;
            list_ordered(demux, order, n, all, ethertype, protocol, NULL);
            for (uint32_t i = 0; i < all->count; i++)
                fixing += demux->shape[all->place[i]]->destination != 0;
            branch->split = fixing > DEMUX_UNSPLIT;
            branch->apart = !branch->split && all->first_wins && all->count && is_apart(&demux->shape[all->place[0]]->form);
            for (uint32_t s = 0; s < branch->sets; s++) {
                struct demux_set *set = &branch->set[s];
                if (loose || set->stale)
                    list_ordered(demux, order, n, &set->leaf, ethertype, protocol, set->shapes);
                set->stale = 0;
            }
        }
    demux->generation++;
}
