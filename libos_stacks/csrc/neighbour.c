/* SPDX-License-Identifier: MIT
 *
 * The neighbour table of both families: a hash over a fixed array, evicted by a clock hand, with the states of RFC 4861 7.3.2. ARP uses the
 * same states. Packets wait in a queue bounded per neighbour and in all; when it overflows the oldest goes (RFC 1122 2.3.2.2).
 * Any stk_neighbour_make may evict, so no struct stk_neighbour pointer is kept across one.
 */
#include <stdlib.h>

#include "stk_private.h"

/* RFC 4861 10; the reachable time is fixed, not drawn at random, as it is not shared by many hosts here. */
#define RETRANS_TIMER STK_SECOND
#define REACHABLE_TIME (30 * STK_SECOND)
#define DELAY_FIRST_PROBE (5 * STK_SECOND)
enum { MAX_SOLICITS = 3 };

static uint32_t bucket_of(const struct stk *s, uint32_t family, const uint8_t *address)
{
    return (uint32_t)stk_hash(s, family, address, family) & s->neighbour_mask;
}

struct stk_neighbour *stk_neighbour_find(const struct stk *s, uint32_t family, const uint8_t *address)
{
    for (int32_t i = s->neighbour_buckets[bucket_of(s, family, address)]; i >= 0; i = s->neighbours[i].next) {
        struct stk_neighbour *n = &s->neighbours[i];
        if (same16(n->address, address) && n->family == family && n->port == s->port)
            return n;
    }
    return NULL;
}

static struct stk_pending *pending_take(struct stk *s, struct stk_neighbour *n)
{
    struct stk_pending *pending = n->first;
    if (pending == NULL)
        return NULL;
    n->first = pending->next;
    if (n->first == NULL)
        n->last = NULL;
    n->pending_bytes -= pending->length;
    s->pending_bytes -= pending->length;
    return pending;
}

/* The packets waited in vain; their sockets learn it as a host unreachable (RFC 1122 2.4, RFC 4861 7.2.2). */
static void pending_fail(struct stk *s, struct stk_neighbour *n)
{
    struct stk_pending *pending;
    while ((pending = pending_take(s, n)) != NULL) {
        s->counters.out_neigh_failed++;
        stk_socket_error(s, pending->socket, n->family == 4 ? 3 << 8 | 1 : 65536 | 1 << 8 | 3);
        free(pending);
    }
}

static void forget(struct stk *s, struct stk_neighbour *n)
{
    int32_t index = (int32_t)(n - s->neighbours);
    int32_t *link = &s->neighbour_buckets[bucket_of(s, n->family, n->address)];
    while (*link != index)
        link = &s->neighbours[*link].next;
    *link = n->next;
    pending_fail(s, n);
    memset(n, 0, sizeof *n);
}

/* A free slot, or the first that was not used since the clock hand last passed it. */
static struct stk_neighbour *slot(struct stk *s)
{
    for (;;) {
        struct stk_neighbour *n = &s->neighbours[s->neighbour_hand];
        s->neighbour_hand = s->neighbour_hand + 1 < s->config.neighbours ? s->neighbour_hand + 1 : 0;
        if (n->state == STK_N_FREE)
            return n;
        if (!n->referenced) {
            forget(s, n);
            return n;
        }
        n->referenced = 0;
    }
}

struct stk_neighbour *stk_neighbour_make(struct stk *s, uint32_t family, const uint8_t *address)
{
    struct stk_neighbour *n = slot(s);
    int32_t *bucket = &s->neighbour_buckets[bucket_of(s, family, address)];
    memcpy(n->address, address, 16);
    n->family = (uint8_t)family;
    n->port = (uint8_t)s->port;
    n->state = STK_N_INCOMPLETE;
    n->deadline = STK_NEVER;
    n->next = *bucket;
    *bucket = (int32_t)(n - s->neighbours);
    return n;
}

/* RFC 4861 7.2.5, 7.3.3: the MAC address is known; what waited for it leaves. */
void stk_neighbour_learn(struct stk *s, struct stk_neighbour *n, const uint8_t *mac, uint32_t state)
{
    /* An unsolicited word that only repeats what is known does not weaken it. */
    int32_t same = n->state != STK_N_INCOMPLETE && memcmp(n->mac, mac, 6) == 0;
    memcpy(n->mac, mac, 6);
    if (s->config.any_address)
        state = STK_N_PERMANENT;
    if (!(same && state == STK_N_STALE)) {
        n->state = (uint8_t)state;
        n->deadline = STK_NEVER;
        n->tries = 0;
        if (state == STK_N_REACHABLE)
            n->reachable_until = s->now + REACHABLE_TIME;
    }
    struct stk_pending *pending;
    while ((pending = pending_take(s, n)) != NULL) {
        stk_frame_send(s, pending, n->mac);
        free(pending);
    }
}

static void solicit(struct stk *s, struct stk_neighbour *n)
{
    /* IPv4: 1, 2, 4 s (RFC 1122 2.3.2.1: at most one per second); IPv6: RetransTimer each (RFC 4861 7.2.2). */
    n->deadline = s->now + (n->family == 4 ? RETRANS_TIMER << n->tries : RETRANS_TIMER);
    n->tries++;
    stk_arm(s, n->deadline);
    if (n->family == 4)
        stk_arp_request(s, n);
    else
        stk_ndp_solicit(s, n, n->state == STK_N_PROBE);
}

int32_t stk_neighbour_use(struct stk *s, struct stk_neighbour *n, const uint8_t *source)
{
    n->referenced = 1;
    if (n->state == STK_N_PERMANENT || (n->state == STK_N_REACHABLE && s->now < n->reachable_until))
        return 1;
    memcpy(n->solicit_from, source, 16);
    if (n->state == STK_N_INCOMPLETE) {
        if (n->tries == 0)
            solicit(s, n);
        return 0;
    }
    if (n->state == STK_N_REACHABLE || n->state == STK_N_STALE) {
        n->state = STK_N_DELAY;
        n->deadline = s->now + DELAY_FIRST_PROBE;
        stk_arm(s, n->deadline);
    }
    return 1;
}

struct stk_pending *stk_pending_new(struct stk *s, struct stk_neighbour *n, uint32_t length, int32_t socket)
{
    while (n->first != NULL && n->pending_bytes + length > STK_PENDING_EACH) {
        free(pending_take(s, n));
        s->counters.out_neigh_failed++;
    }
    if (s->pending_bytes + length > STK_PENDING_ALL)
        return NULL;
    struct stk_pending *pending = malloc(sizeof *pending + length);
    if (pending == NULL)
        return NULL;
    pending->next = NULL;
    pending->length = length;
    pending->socket = socket;
    return pending;
}

void stk_pending_add(struct stk *s, struct stk_neighbour *n, struct stk_pending *pending)
{
    if (n->last != NULL)
        n->last->next = pending;
    else
        n->first = pending;
    n->last = pending;
    n->pending_bytes += pending->length;
    s->pending_bytes += pending->length;
}

static void timer(struct stk *s, struct stk_neighbour *n)
{
    s->port = n->port;
    if (n->state == STK_N_DELAY) {
        n->state = STK_N_PROBE;
        n->tries = 0;
    }
    if (n->tries < MAX_SOLICITS)
        solicit(s, n);
    else
        forget(s, n); /* RFC 4861 7.3.3: the next packet starts resolution anew */
}

uint64_t stk_neighbour_poll(struct stk *s)
{
    uint64_t next = STK_NEVER;
    for (uint32_t i = 0; i < s->config.neighbours; i++) {
        struct stk_neighbour *n = &s->neighbours[i];
        if (n->state == STK_N_FREE)
            continue;
        if (n->deadline <= s->now)
            timer(s, n);
        if (n->state != STK_N_FREE && n->deadline < next)
            next = n->deadline;
    }
    return next;
}

void stk_neighbour_free(struct stk *s)
{
    for (uint32_t i = 0; i < s->config.neighbours; i++) {
        struct stk_pending *pending;
        while ((pending = pending_take(s, &s->neighbours[i])) != NULL)
            free(pending);
    }
}

int32_t stk_neighbour_get(struct stk *s, uint32_t family, const uint8_t *address, uint8_t *mac)
{
    uint8_t whole[16];
    s->port = s->first_port;
    address_set(whole, family, address);
    const struct stk_neighbour *n = stk_neighbour_find(s, family, whole);
    if (n == NULL)
        return STK_N_FREE;
    if (mac != NULL)
        memcpy(mac, n->mac, 6);
    return n->state;
}
