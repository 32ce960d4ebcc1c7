/* SPDX-License-Identifier: MIT
 *
 * Fragment tracking, the stage after the stateless classifier (SEMANTICS R5): later fragments follow the owner of the first while a
 * bounded, timed table remembers it; fragments that come before their first wait within a quota, then are demux.fragment_lost.
 * Datagrams are told apart by VLAN and PPPoE session too: one VLAN's fragment never follows another's.
 * RFC 791 (IPv4 identification), RFC 8200 4.5 (IPv6 fragment header directly after the fixed header).
 */
#include <stdlib.h>

#include "machine_private.h"

#define REMEMBER_NS 30000000000u
#define WAIT_NS 1000000000u

_Static_assert(sizeof(struct datagram) == 60, "keys are compared and hashed as bytes");

/* The datagram that a frame is a fragment of; 0: it is none. *first: the first one. */
static int datagram_of(const struct exo_frame *frame, struct datagram *key, int *first)
{
    struct exo_l3 l3;
    exo_l3_find(frame, &l3);
    const uint8_t *p = l3.data;
    memset(key, 0, sizeof *key);
    key->port = frame->port;
    key->vlans = l3.vlans;
    if (l3.pppoe && l3.length) {
        memcpy(key->stations, frame->data, 12);
        memcpy(key->session, frame->data + l3.pppoe + 2, 2);
    }
    if (l3.type == EXO_ETHER_IP4 && l3.length >= 20 && exo_be16(p + 6) & 0x3fff) {
        *first = !(exo_be16(p + 6) & 0x1fff);
        memcpy(key->addresses, p + 12, 8);
        memcpy(key->identification, p + 4, 2);
        key->protocol = p[9];
        key->family = 4;
        return 1;
    }
    if (l3.type == EXO_ETHER_IP6 && l3.length >= 48 && p[6] == 44) {
        *first = !(exo_be16(p + 42) & 0xfff8);
        memcpy(key->addresses, p + 8, 32);
        memcpy(key->identification, p + 44, 4);
        key->protocol = p[40];
        key->family = 6;
        return 1;
    }
    return 0;
}

static int same(const struct datagram *a, const struct datagram *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

static struct fragment_flow *slot_of(struct exo_machine *m, const struct datagram *key)
{
    uint64_t h = exo_digest((const uint8_t *)key, sizeof *key) ^ m->config.seed;
    return &m->fragments->flow[(h * 0x9e3779b97f4a7c15u) >> 54];
}

static void release(struct exo_machine *m, struct held_fragment *held)
{
    free((void *)(uintptr_t)held->frame.data);
    held->frame.data = NULL;
    m->fragments->held_count--;
}

static void deliver_waiting(struct exo_machine *m, const struct datagram *key, uint32_t owner)
{
    for (uint32_t i = 0; i < HELD_FRAGMENTS && m->fragments->held_count; i++) {
        struct held_fragment *held = &m->fragments->held[i];
        if (!held->frame.data || !same(&held->key, key))
            continue;
        exo_deliver_to(m, owner, &held->frame, 0);
        release(m, held);
    }
}

static int hold(struct exo_machine *m, const struct exo_frame *frame, const struct datagram *key, uint64_t now)
{
    for (uint32_t i = 0; i < HELD_FRAGMENTS; i++) {
        struct held_fragment *held = &m->fragments->held[i];
        if (held->frame.data)
            continue;
        uint32_t bytes = frame->len < EXO_MIN_FRAME ? (uint32_t)EXO_MIN_FRAME : frame->len;
        uint8_t *copy = malloc(bytes);
        if (!copy)
            return 0;
        memcpy(copy, frame->data, bytes);
        held->frame = *frame;
        held->frame.data = copy;
        held->key = *key;
        held->expires = now + WAIT_NS;
        m->fragments->held_count++;
        return 1;
    }
    return 0;
}

uint32_t exo_fragment_follow(struct exo_machine *m, const struct exo_frame *frame, uint32_t owner, uint32_t *held)
{
    struct datagram key;
    int first = 0;
    if (!datagram_of(frame, &key, &first))
        return owner;
    uint64_t now = exo_now(m);
    struct fragment_flow *flow = slot_of(m, &key);
    if (first) {
        if (owner != EXO_NO_OWNER) {
            flow->key = key;
            flow->binding = owner;
            flow->expires = now + REMEMBER_NS;
            deliver_waiting(m, &key, owner);
        }
        return owner;
    }
    if (flow->expires > now && same(&flow->key, &key))
        return flow->binding;   /* also where a wider binding takes it as it stands: the first one's narrower owner has it all */
    if (owner != EXO_NO_OWNER)
        return owner;
    *held = 1;
    if (!exo_demux_conjuncts(m->port[frame->port].demux) || !hold(m, frame, &key, now))
        exo_machine_fate(m, frame, EXO_R_DEMUX_FRAGMENT_LOST, NULL);
    return EXO_NO_OWNER;
}

void exo_fragment_expire(struct exo_machine *m, uint64_t now)
{
    if (!m->fragments->held_count)
        return;
    for (uint32_t i = 0; i < HELD_FRAGMENTS; i++) {
        struct held_fragment *held = &m->fragments->held[i];
        if (!held->frame.data || held->expires > now)
            continue;
        exo_machine_fate(m, &held->frame, EXO_R_DEMUX_FRAGMENT_LOST, NULL);
        release(m, held);
    }
}

void exo_fragment_forget(struct exo_machine *m, uint32_t binding)
{
    for (uint32_t i = 0; i < FRAGMENT_FLOWS; i++)
        if (m->fragments->flow[i].binding == binding)
            m->fragments->flow[i].expires = 0;
}
