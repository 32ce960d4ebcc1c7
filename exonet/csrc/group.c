/* SPDX-License-Identifier: MIT
 *
 * Group frames (SEMANTICS R2): what asks for an address goes to who answers for it, announcements to every subscriber, the rest as a copy
 * to each subscriber whose filter takes it. An announcement behind VLAN tags is for the environments that the operator put on that VLAN
 * (exo_env.vlan; untagged: on none); others get it as they get any group frame. Nothing past frame->len is read.
 */
#include "machine_private.h"

enum { MOST_MATCHES = 256 };

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
    for (uint32_t i = 0; i < m->groups; i++) {
        const struct group *g = &m->group[i];
        if (g->port == frame->port && (g->members[slot / 64] >> (slot % 64) & 1) && (g->all || memcmp(g->mac, frame->data, 6) == 0))
            return 1;
    }
    return 0;
}

/* What every subscriber on the VLAN gets goes to the oldest of its bindings on the port. */
static uint32_t copies_to_all(struct exo_machine *m, const struct exo_frame *frame, uint32_t vlans, uint32_t by_slot[EXO_MAX_ENVS])
{
    uint32_t wanted = 0;
    for (uint32_t slot = 1; slot <= m->envs; slot++) {
        uint32_t binding = m->list[slot][frame->port][0].first;
        if (binding == EXO_NO_OWNER || m->env[slot]->vlan != vlans || m->binding[binding].env == frame->sender ||
            !subscribed(m, frame, slot))
            continue;
        by_slot[slot] = binding;
        wanted++;
    }
    return wanted;
}

/* The binding under which each environment gets a copy; EXO_NO_OWNER: none. Returns how many environments do. */
static uint32_t copies_wanted(struct exo_machine *m, const struct exo_frame *frame, const struct exo_l3 *l3, uint32_t by_slot[EXO_MAX_ENVS])
{
    uint32_t found[MOST_MATCHES], wanted = 0;
    memset(by_slot, 0xff, EXO_MAX_ENVS * sizeof *by_slot);
    if (is_announcement(l3))
        wanted = copies_to_all(m, frame, l3->vlans, by_slot);
    uint32_t n = exo_demux_match_all(m->port[frame->port].demux, frame, found, MOST_MATCHES);
    for (uint32_t i = 0; i < (n < MOST_MATCHES ? n : (uint32_t)MOST_MATCHES); i++) {
        uint32_t env = m->binding[found[i]].env, slot = slot_of_env(env);
        if (env == frame->sender || by_slot[slot] != EXO_NO_OWNER || !subscribed(m, frame, slot))
            continue;
        by_slot[slot] = found[i];
        wanted++;
    }
    return wanted;
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
    uint32_t by_slot[EXO_MAX_ENVS];
    struct exo_env *owner;
    struct exo_l3 l3;
    exo_l3_find(frame, &l3);
    int32_t question = exo_asked(m, frame, &l3, 0, &owner);
    if (owner) {
        deliver_to_neighbour(m, frame, owner);
        return;
    }
    uint32_t wanted = copies_wanted(m, frame, &l3, by_slot);
    if (!wanted) {
        exo_machine_fate(m, frame, question ? EXO_R_DEMUX_NO_NEIGHBOUR : EXO_R_DEMUX_NO_SUBSCRIBER, NULL);
        return;
    }
    m->ledger.copies[EXO_S_DEMUX] += wanted - 1;
    for (uint32_t slot = 1; slot <= m->envs; slot++)
        if (by_slot[slot] != EXO_NO_OWNER)
            exo_deliver_to(m, by_slot[slot], frame, EXO_F_GROUP);
}
