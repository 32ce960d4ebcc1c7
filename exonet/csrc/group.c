/* SPDX-License-Identifier: MIT
 *
 * Frames that more than a filter decides on (SEMANTICS R2, R3): group frames are copied to subscribers, ARP requests and
 * neighbour solicitations go to the owner of the address asked for, pings that no filter claims too, ICMP errors to the owner of
 * the packet they quote.
 * frame->data has at least 60 readable bytes (the NIC pads); anything beyond is guarded by frame->len.
 */
#include "machine_private.h"

enum { ARP = 0x0806, IP4 = 0x0800, IP6 = 0x86dd, MOST_MATCHES = 256 };

static struct exo_env *neighbour_owner(struct exo_machine *m, uint32_t port, uint32_t family, const uint8_t *address)
{
    for (uint32_t i = 0; i < m->neighbours; i++) {
        const struct neighbour *n = &m->neighbour[i];
        if (n->port == port && n->family == family && memcmp(n->address, address, family == 4 ? 4 : 16) == 0)
            return live_env(m, n->env);
    }
    return NULL;
}

/* ARP requests (RFC 826) and neighbour solicitations (RFC 4861 4.3): the address asked for, or NULL. */
static const uint8_t *asked_for(const struct exo_frame *frame, uint32_t *family)
{
    const uint8_t *d = frame->data;
    uint16_t type = exo_be16(d + 12);
    if (type == ARP && frame->len >= 42 && exo_be16(d + 20) == 1 && memcmp(d + 28, d + 38, 4) != 0) {
        *family = 4;
        return d + 38;
    }
    if (type == IP6 && frame->len >= 78 && d[20] == 58 && d[54] == 135) {
        *family = 6;
        return d + 62;
    }
    return NULL;
}

/* Where an echo request, or the first fragment of one, is sent to; NULL: it is none. */
static const uint8_t *pinged(const struct exo_frame *frame, uint32_t *family)
{
    const uint8_t *d = frame->data;
    uint16_t type = exo_be16(d + 12);
    if (type == IP4) {
        uint32_t icmp = 14 + 4u * (d[14] & 15);
        *family = 4;
        return d[23] == 1 && !(exo_be16(d + 20) & 0x1fff) && icmp >= 34 && frame->len > icmp && d[icmp] == 8 ? d + 30 : NULL;
    }
    *family = 6;
    if (type != IP6)
        return NULL;
    if (d[20] == 44)
        return frame->len > 62 && d[54] == 58 && !(exo_be16(d + 56) & 0xfff8) && d[62] == 128 ? d + 38 : NULL;
    return d[20] == 58 && frame->len > 54 && d[54] == 128 ? d + 38 : NULL;
}

/* What every subscriber gets, whatever its filter: gratuitous ARP, router advertisements, DHCP offers, mDNS. */
static int is_announcement(const struct exo_frame *frame)
{
    const uint8_t *d = frame->data;
    uint16_t type = exo_be16(d + 12);
    if (type == ARP)
        return memcmp(d + 28, d + 38, 4) == 0;
    if (type == IP6)
        return (d[20] == 58 && d[54] == 134) || (d[20] == 17 && exo_be16(d + 56) == 5353);
    if (type != IP4 || d[23] != 17 || (exo_be16(d + 20) & 0x1fff))
        return 0;
    uint32_t udp = 14 + 4u * (d[14] & 15);
    if (frame->len < udp + 8)
        return 0;
    uint16_t to = exo_be16(d + udp + 2);
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

/* What every subscriber gets goes to the oldest of its bindings on the port. */
static uint32_t copies_to_all(struct exo_machine *m, const struct exo_frame *frame, uint32_t by_slot[EXO_MAX_ENVS])
{
    uint32_t wanted = 0;
    for (uint32_t slot = 1; slot <= m->envs; slot++) {
        uint32_t binding = m->list[slot][frame->port][0].first;
        if (binding == EXO_NO_OWNER || m->binding[binding].env == frame->sender || !subscribed(m, frame, slot))
            continue;
        by_slot[slot] = binding;
        wanted++;
    }
    return wanted;
}

/* The binding under which each environment gets a copy; EXO_NO_OWNER: none. Returns how many environments do. */
static uint32_t copies_wanted(struct exo_machine *m, const struct exo_frame *frame, uint32_t by_slot[EXO_MAX_ENVS])
{
    uint32_t found[MOST_MATCHES], wanted = 0;
    memset(by_slot, 0xff, EXO_MAX_ENVS * sizeof *by_slot);
    if (is_announcement(frame))
        return copies_to_all(m, frame, by_slot);
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

/* The first binding of an environment on a port: what it is asked as a neighbour comes under it. EXO_NO_OWNER: it has none. */
static uint32_t any_binding(const struct exo_machine *m, const struct exo_env *env, uint32_t port)
{
    return m->list[slot_of_env(env->number)][port][0].first;
}

static void deliver_to_neighbour(struct exo_machine *m, const struct exo_frame *frame, struct exo_env *env)
{
    uint32_t binding = any_binding(m, env, frame->port);
    if (binding == EXO_NO_OWNER)
        exo_machine_fate(m, frame, EXO_R_DEMUX_NO_NEIGHBOUR, NULL);
    else
        exo_deliver_to(m, binding, frame, EXO_F_GROUP);
}

uint32_t exo_asked_owner(struct exo_machine *m, const struct exo_frame *frame, uint32_t owner)
{
    uint32_t family = 0;
    const uint8_t *address = asked_for(frame, &family);
    if (!address && owner == EXO_NO_OWNER)
        address = pinged(frame, &family);
    struct exo_env *env = address ? neighbour_owner(m, frame->port, family, address) : NULL;
    uint32_t binding = env && env->number != frame->sender ? any_binding(m, env, frame->port) : EXO_NO_OWNER;
    return binding == EXO_NO_OWNER ? owner : binding;
}

void exo_deliver_group(struct exo_machine *m, const struct exo_frame *frame)
{
    uint32_t family = 0, by_slot[EXO_MAX_ENVS];
    const uint8_t *address = asked_for(frame, &family);
    if (address) {
        struct exo_env *owner = neighbour_owner(m, frame->port, family, address);
        if (owner && owner->number != frame->sender) {
            deliver_to_neighbour(m, frame, owner);
            return;
        }
    }
    uint32_t wanted = copies_wanted(m, frame, by_slot);
    if (!wanted) {
        exo_machine_fate(m, frame, address ? EXO_R_DEMUX_NO_NEIGHBOUR : EXO_R_DEMUX_NO_SUBSCRIBER, NULL);
        return;
    }
    m->ledger.copies[EXO_S_DEMUX] += wanted - 1;
    for (uint32_t slot = 1; slot <= m->envs; slot++)
        if (by_slot[slot] != EXO_NO_OWNER)
            exo_deliver_to(m, by_slot[slot], frame, EXO_F_GROUP);
}

/* Turns the quoted packet round, as if its answer had come, in an Ethernet frame of its own. Returns its length, 0: none quoted. */
static uint32_t turn_round(const struct exo_frame *frame, uint8_t out[14 + 60 + 8])
{
    const uint8_t *d = frame->data;
    uint16_t type = exo_be16(d + 12);
    memcpy(out, d, 14);
    if (type == IP4) {
        uint32_t icmp = 14 + 4u * (d[14] & 15), inner = icmp + 8;
        if (d[23] != 1 || (exo_be16(d + 20) & 0x1fff) || frame->len < inner + 20)
            return 0;
        uint8_t kind = d[icmp];
        if (kind != 3 && kind != 4 && kind != 5 && kind != 11 && kind != 12)
            return 0;
        uint32_t header = 4u * (d[inner] & 15);
        if (header < 20 || frame->len < inner + header + 8)
            return 0;
        memcpy(out + 14, d + inner, header + 8);
        memcpy(out + 26, d + inner + 16, 4);
        memcpy(out + 30, d + inner + 12, 4);
        out[20] = out[21] = 0;
        uint8_t *l4 = out + 14 + header;
        if (out[23] == 6 || out[23] == 17) {
            memcpy(l4, d + inner + header + 2, 2);
            memcpy(l4 + 2, d + inner + header, 2);
        } else if (out[23] == 1 && l4[0] == 8) {
            l4[0] = 0;
        }
        return 14 + header + 8;
    }
    if (type != IP6 || d[20] != 58 || frame->len < 54 + 8 + 40 + 8 || d[54] >= 128)
        return 0;
    const uint8_t *inner = d + 62;
    memcpy(out + 14, inner, 48);
    memcpy(out + 22, inner + 24, 16);
    memcpy(out + 38, inner + 8, 16);
    if (inner[6] == 6 || inner[6] == 17) {
        memcpy(out + 54, inner + 42, 2);
        memcpy(out + 56, inner + 40, 2);
    } else if (inner[6] == 58 && out[54] == 128) {
        out[54] = 129;
    }
    return 14 + 48;
}

/* R3: an ICMP or ICMPv6 error belongs to the owner of the quoted packet's 4-tuple. EXO_NO_OWNER: no error, or nobody's. */
uint32_t exo_quoted_owner(struct exo_machine *m, const struct exo_frame *frame)
{
    uint8_t turned[14 + 60 + 8] = {0};
    uint32_t owner = EXO_NO_OWNER, length = turn_round(frame, turned);
    if (!length)
        return owner;
    struct exo_frame quoted = *frame;
    quoted.data = turned;
    quoted.len = quoted.wire_len = length;
    exo_demux_classify(m->port[frame->port].demux, &quoted, 1, &owner);
    return owner;
}
