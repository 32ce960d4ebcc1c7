/* SPDX-License-Identifier: MIT
 *
 * Fragment tracking, the stage after the stateless classifier (R5): later fragments follow the owner of the first while a
 * bounded, timed table remembers it; fragments that come before their first wait within a quota, then are demux.fragment_lost. Where there
 * is no room, who has the most loses first: of what is remembered the owner, of what waits the sender.
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

static uint32_t hash_of(const struct exo_machine *m, const void *bytes, uint32_t n)
{
    return (uint32_t)(((exo_digest(bytes, n) ^ m->config.seed) * 0x9e3779b97f4a7c15u) >> 32);
}

static struct fragment_flow *set_of(struct exo_machine *m, const struct datagram *key)
{
    return m->fragments->flow[hash_of(m, key, sizeof *key) % (FRAGMENT_FLOWS / FRAGMENT_WAYS)];
}

static void forget(struct exo_machine *m, struct fragment_flow *flow)
{
    if (flow->expires)
        m->fragments->flows[flow->env]--;
    flow->expires = 0;
}

/* Free, or of the environment that has the most here, and the oldest of these; NULL: that has no more than the asking one. */
static struct fragment_flow *place_for(struct exo_machine *m, const struct datagram *key, uint32_t env, uint64_t now)
{
    struct fragment_flow *set = set_of(m, key), *found = &set[0];
    const uint32_t *flows = m->fragments->flows;
    for (uint32_t i = 0; i < FRAGMENT_WAYS; i++) {
        struct fragment_flow *flow = &set[i];
        if (flow->expires <= now || same(&flow->key, key))
            return flow;
        if (flows[flow->env] > flows[found->env] || (flow->env == found->env && flow->expires < found->expires))
            found = flow;
    }
    return found->env == env || flows[found->env] > flows[env] ? found : NULL;
}

static void remember(struct exo_machine *m, const struct datagram *key, uint32_t binding, uint64_t now)
{
    uint32_t env = slot_of_env(m->binding[binding].env);
    struct fragment_flow *flow = place_for(m, key, env, now);
    if (!flow)
        return;
    forget(m, flow);
    *flow = (struct fragment_flow){.key = *key, .binding = binding, .env = env, .expires = now + REMEMBER_NS};
    m->fragments->flows[env]++;
}

/* The binding that got its first fragment; EXO_NO_OWNER: that is not known. */
static uint32_t remembered(struct exo_machine *m, const struct datagram *key, uint64_t now)
{
    const struct fragment_flow *set = set_of(m, key);
    for (uint32_t i = 0; i < FRAGMENT_WAYS; i++)
        if (set[i].expires > now && same(&set[i].key, key))
            return set[i].binding;
    return EXO_NO_OWNER;
}

static void release(struct exo_machine *m, struct held_fragment *held)
{
    free((void *)(uintptr_t)held->frame.data);
    held->frame.data = NULL;
    m->fragments->held_count--;
    m->fragments->held_of[held->source]--;
}

static void lose(struct exo_machine *m, struct held_fragment *held)
{
    exo_machine_fate(m, &held->frame, EXO_R_DEMUX_FRAGMENT_LOST, NULL);
    release(m, held);
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

/* A free place, or that of the newest of the source that has the most, if that has two more than this one; NULL: there is none. */
static struct held_fragment *room_for(struct exo_machine *m, uint32_t source)
{
    struct fragments *fragments = m->fragments;
    struct held_fragment *found = &fragments->held[0];
    for (uint32_t i = 0; i < HELD_FRAGMENTS; i++) {
        struct held_fragment *held = &fragments->held[i];
        if (!held->frame.data)
            return held;
        uint32_t more = fragments->held_of[held->source], most = fragments->held_of[found->source];
        if (more > most || (held->source == found->source && held->expires >= found->expires))
            found = held;
    }
    if (fragments->held_of[found->source] < fragments->held_of[source] + 2)
        return NULL;
    lose(m, found);
    return found;
}

static int hold(struct exo_machine *m, const struct exo_frame *frame, const struct datagram *key, uint64_t now)
{
    uint32_t source = hash_of(m, key->addresses, key->family == 4 ? 4 : 16) % FRAGMENT_SOURCES;
    uint32_t bytes = frame->len < EXO_MIN_FRAME ? (uint32_t)EXO_MIN_FRAME : frame->len;
    struct held_fragment *held = room_for(m, source);
    uint8_t *copy = held ? malloc(bytes) : NULL;
    if (!copy)
        return 0;
    memcpy(copy, frame->data, bytes);
    *held = (struct held_fragment){.frame = *frame, .key = *key, .source = source, .expires = now + WAIT_NS};
    held->frame.data = copy;
    m->fragments->held_count++;
    m->fragments->held_of[source]++;
    return 1;
}

uint32_t exo_fragment_follow(struct exo_machine *m, const struct exo_frame *frame, uint32_t owner, uint32_t *held)
{
    struct datagram key;
    int first = 0;
    if (!datagram_of(frame, &key, &first))
        return owner;
    uint64_t now = exo_now(m);
    if (first) {
        if (owner != EXO_NO_OWNER) {
            remember(m, &key, owner, now);
            deliver_waiting(m, &key, owner);
        }
        return owner;
    }
    uint32_t of_first = remembered(m, &key, now);
    if (of_first != EXO_NO_OWNER)
        return of_first;   /* also where a wider binding takes it as it stands: the first one's narrower owner has it all */
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
        if (held->frame.data && held->expires <= now)
            lose(m, held);
    }
}

void exo_fragment_forget(struct exo_machine *m, uint32_t binding)
{
    struct fragment_flow *flow = m->fragments->flow[0];
    for (uint32_t i = 0; i < FRAGMENT_FLOWS; i++)
        if (flow[i].binding == binding)
            forget(m, &flow[i]);
}
