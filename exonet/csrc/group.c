/* SPDX-License-Identifier: MIT
 *
 * Group frames (R2): what asks for an address goes to who answers for it, announcements to every subscriber, the rest as a copy
 * to each subscriber whose filter takes it. An announcement behind VLAN tags is for the environments that the operator put on that VLAN
 * (exo_env.vlan; untagged: on none); others get it as they get any group frame. Nothing past frame->len is read.
 */
#include "machine_private.h"

/* What every subscriber gets, whatever its filter: gratuitous ARP, router advertisements, DHCP offers, mDNS. */
static int is_announcement(const struct exo_l3 *l3)
{
    const uint8_t *p = l3->data;
    if (l3->pppoe)
        return 0;
    if (l3->type == EXO_ETHER_ARP)
        return l3->length >= 28 && memcmp(p + 14, p + 24, 4) == 0;
    if (l3->type == EXO_ETHER_IP6)
        return l3->length >= 44 && ((p[6] == 58 && p[40] == 134) || (p[6] == 17 && exo_be16(p + 42) == 5353));
    if (l3->type != EXO_ETHER_IP4 || l3->length < 20 || p[9] != 17 || (exo_be16(p + 6) & 0x1fff))
        return 0;
    uint32_t udp = 4u * (p[0] & 15);
    if (l3->length < udp + 8)
        return 0;
    uint16_t to = exo_be16(p + udp + 2);
    return to == 68 || to == 5353;
}

static int subscribed(const struct exo_machine *m, const struct exo_frame *frame, uint32_t slot)
{
    if (m->env[slot]->number == frame->sender)
        return 0;
    for (uint32_t i = 0; i < m->groups; i++) {
        const struct group *g = &m->group[i];
        if (g->port == frame->port && (g->members[slot / 64] >> (slot % 64) & 1) && (g->all || memcmp(g->mac, frame->data, 6) == 0))
            return 1;
    }
    return 0;
}

/* What every subscriber on the VLAN gets goes to the oldest of its bindings on the port. */
static void copy_to_all(struct copies *copies, uint32_t vlans)
{
    const struct exo_machine *m = copies->machine;
    for (uint32_t slot = 1; slot <= m->envs; slot++) {
        uint32_t binding = m->list[slot][copies->frame->port][0].first;
        if (binding != EXO_NO_OWNER && m->env[slot]->vlan == vlans && subscribed(m, copies->frame, slot))
            exo_copies_settle(copies, slot, binding);
    }
}

static void deliver_to_neighbour(struct exo_machine *m, const struct exo_frame *frame, struct exo_env *env)
{
    uint32_t binding = exo_any_binding(m, env, frame->port);
    if (binding == EXO_NO_OWNER)
        exo_machine_fate(m, frame, EXO_R_DEMUX_NO_NEIGHBOUR, NULL);
    else
        exo_deliver_to(m, binding, frame, EXO_F_GROUP);
}

void exo_deliver_group(struct exo_machine *m, const struct exo_frame *frame)
{
    struct copies copies;
    struct exo_env *owner;
    struct exo_l3 l3;
    exo_l3_find(frame, &l3);
    int32_t question = exo_asked(m, frame, &l3, 0, &owner);
    if (owner) {
        deliver_to_neighbour(m, frame, owner);
        return;
    }
    exo_copies_begin(&copies, m, frame, subscribed);
    if (is_announcement(&l3))
        copy_to_all(&copies, l3.vlans);
    exo_demux_most_specific(m->port[frame->port].demux, frame, exo_copies_keep, &copies);
    uint32_t delivered = exo_copies_deliver(&copies, m, EXO_F_GROUP);
    if (delivered)
        exo_ledger_copies(&m->ledger, EXO_S_DEMUX, frame, delivered - 1);
    else
        exo_machine_fate(m, frame, question ? EXO_R_DEMUX_NO_NEIGHBOUR : EXO_R_DEMUX_NO_SUBSCRIBER, NULL);
}
