/* SPDX-License-Identifier: MIT
 *
 * Fragment tracking, the stage after the stateless classifier (SEMANTICS R5): later fragments follow the owner of the first while a
 * bounded, timed table remembers it; fragments that come before their first wait within a quota, then are demux.fragment_lost.
 * RFC 791 (IPv4 identification), RFC 8200 4.5 (IPv6 fragment header directly after the fixed header).
 */
#include <stdlib.h>

#include "machine_private.h"

#define REMEMBER_NS 30000000000u
#define WAIT_NS 1000000000u

/* The fragment's datagram as a key; 0: not a fragment. *first: it is the first one. */
static int datagram_key(const struct exo_frame *frame, uint8_t key[40], int *first)
{
    const uint8_t *d = frame->data;
    uint16_t type = exo_be16(d + 12);
    memset(key, 0, 40);
    key[39] = (uint8_t)frame->port;
    if (type == 0x0800 && frame->len >= 34) {
        uint16_t word = exo_be16(d + 20);
        if (!(word & 0x3fff))
            return 0;
        *first = !(word & 0x1fff);
        memcpy(key, d + 26, 8);
        memcpy(key + 32, d + 18, 2);
        key[36] = d[23];
        key[38] = 4;
        return 1;
    }
    if (type == 0x86dd && frame->len >= 62 && d[20] == 44) {
        *first = !(exo_be16(d + 56) & 0xfff8);
        memcpy(key, d + 22, 32);
        memcpy(key + 32, d + 58, 4);
        key[36] = d[54];
        key[38] = 6;
        return 1;
    }
    return 0;
}

static struct fragment_flow *slot_of(struct exo_machine *m, const uint8_t key[40])
{
    uint64_t h = exo_digest(key, 40) ^ m->config.seed;
    return &m->fragments->flow[(h * 0x9e3779b97f4a7c15u) >> 54];
}

static void release(struct exo_machine *m, struct held_fragment *held)
{
    free((void *)(uintptr_t)held->frame.data);
    held->frame.data = NULL;
    m->fragments->held_count--;
}

static void deliver_waiting(struct exo_machine *m, const uint8_t key[40], uint32_t owner)
{
    for (uint32_t i = 0; i < HELD_FRAGMENTS && m->fragments->held_count; i++) {
        struct held_fragment *held = &m->fragments->held[i];
        if (!held->frame.data || memcmp(held->key, key, 40) != 0)
            continue;
        exo_deliver_to(m, owner, &held->frame, 0);
        release(m, held);
    }
}

static int hold(struct exo_machine *m, const struct exo_frame *frame, const uint8_t key[40], uint64_t now)
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
        memcpy(held->key, key, 40);
        held->expires = now + WAIT_NS;
        m->fragments->held_count++;
        return 1;
    }
    return 0;
}

uint32_t exo_fragment_follow(struct exo_machine *m, const struct exo_frame *frame, uint32_t owner, uint32_t *held)
{
    uint8_t key[40];
    int first = 0;
    if (!datagram_key(frame, key, &first))
        return owner;
    uint64_t now = exo_now(m);
    struct fragment_flow *flow = slot_of(m, key);
    if (first) {
        if (owner != EXO_NO_OWNER) {
            memcpy(flow->key, key, 40);
            flow->binding = owner;
            flow->expires = now + REMEMBER_NS;
            deliver_waiting(m, key, owner);
        }
        return owner;
    }
    if (flow->expires > now && memcmp(flow->key, key, 40) == 0)
        return flow->binding;   /* also where a wider binding takes it as it stands: the first one's narrower owner has it all */
    if (owner != EXO_NO_OWNER)
        return owner;
    *held = 1;
    if (!exo_demux_conjuncts(m->port[frame->port].demux) || !hold(m, frame, key, now))
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
