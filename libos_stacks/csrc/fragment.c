/* SPDX-License-Identifier: MIT
 *
 * Reassembly for both families. Memory is bounded in all and per source (half of it); when the bound is met the oldest datagram goes. Frames
 * in here are `held`; they settle together when their datagram is delivered, dropped above, timed out, pushed out or overlapped.
 * Overlap drops the datagram in both families (RFC 5722, which Linux applies to IPv4 too); an exact duplicate is only ignored (RFC 8200 4.5).
 * Reference: RFC 791 3.2, RFC 815 (there: holes; here: an ordered list, which needs no writing into data), RFC 8200 4.5, RFC 6946.
 */
#include <stdlib.h>

#include "stk_private.h"

/* RFC 8200 4.5: 60 s. RFC 1122 3.3.2 wants 60 to 120 s for IPv4 too; 30 s, Linux's, on purpose: identifiers repeat (RFC 4963). */
#define LIFETIME4 (30 * STK_SECOND)
#define LIFETIME6 (60 * STK_SECOND)

static void release(struct stk *s, struct stk_assembly *a)
{
    while (a->first != NULL) {
        struct stk_fragment *next = a->first->next;
        free(a->first);
        a->first = next;
    }
    s->assembly_bytes -= a->bytes;
    s->held -= a->frames;
    a->last = NULL;
    a->bytes = 0;
    a->frames = 0;
}

/* The datagram is over: its frames settle under `reason`. */
static void end(struct stk *s, struct stk_assembly *a, int32_t reason)
{
    stk_settle(s, reason, a->frames);
    release(s, a);
    a->deadline = 0;
    s->assembly_count--;
}

static struct stk_assembly *find(struct stk *s, const struct stk_packet *p, uint32_t id)
{
    for (uint32_t i = 0; i < STK_ASSEMBLIES && s->assembly_count > 0; i++) {
        struct stk_assembly *a = &s->assemblies[i];
        /* RFC 791: the protocol is part of the key; RFC 8200 4.5: it is not. */
        if (a->deadline != 0 && a->id == id && a->family == p->family && (a->family == 6 || a->protocol == p->protocol)
            && a->port == s->port && same16(a->source, p->source) && same16(a->destination, p->destination))
            return a;
    }
    return NULL;
}

/* The oldest datagram, of one source or of all, other than `keep`. */
static struct stk_assembly *oldest(struct stk *s, const uint8_t *source, const struct stk_assembly *keep)
{
    struct stk_assembly *best = NULL;
    for (uint32_t i = 0; i < STK_ASSEMBLIES; i++) {
        struct stk_assembly *a = &s->assemblies[i];
        if (a->deadline == 0 || a == keep || (source != NULL && !same16(a->source, source)))
            continue;
        if (best == NULL || a->born < best->born)
            best = a;
    }
    return best;
}

static uint32_t bytes_of(const struct stk *s, const uint8_t *source)
{
    uint32_t bytes = 0;
    for (uint32_t i = 0; i < STK_ASSEMBLIES; i++) {
        if (s->assemblies[i].deadline != 0 && same16(s->assemblies[i].source, source))
            bytes += s->assemblies[i].bytes;
    }
    return bytes;
}

static struct stk_assembly *start(struct stk *s, const struct stk_packet *p, uint32_t id)
{
    if (s->assembly_count == STK_ASSEMBLIES)
        end(s, oldest(s, NULL, NULL), EXO_R_STACK_FRAG_REASM_FULL);
    struct stk_assembly *a = s->assemblies;
    while (a->deadline != 0)
        a++;
    memset(a, 0, sizeof *a);
    a->born = s->now;
    a->deadline = s->now + (p->family == 4 ? LIFETIME4 : LIFETIME6);
    a->id = id;
    a->family = p->family;
    a->protocol = p->protocol;
    a->port = (uint8_t)s->port;
    memcpy(a->source, p->source, 16);
    memcpy(a->destination, p->destination, 16);
    s->assembly_count++;
    stk_arm(s, a->deadline);
    return a;
}

/* Room for `bytes` more in `a`: first at the expense of the same source's older datagrams, then of everybody's. */
static int32_t make_room(struct stk *s, struct stk_assembly *a, uint32_t bytes)
{
    uint32_t limit = s->config.reassembly_bytes;
    struct stk_assembly *victim;
    while (bytes_of(s, a->source) + bytes > limit / 2) {
        if ((victim = oldest(s, a->source, a)) == NULL)
            return 0;
        end(s, victim, EXO_R_STACK_FRAG_REASM_FULL);
    }
    while (s->assembly_bytes + bytes > limit) {
        if ((victim = oldest(s, NULL, a)) == NULL)
            return 0;
        end(s, victim, EXO_R_STACK_FRAG_REASM_FULL);
    }
    return 1;
}

/* The fragment after which one at `offset` belongs; NULL: at the start. Mostly they come in order. */
static struct stk_fragment *place(const struct stk_assembly *a, uint32_t offset)
{
    if (a->last != NULL && a->last->offset < offset)
        return a->last;
    struct stk_fragment *before = NULL;
    for (struct stk_fragment *f = a->first; f != NULL && f->offset < offset; f = f->next)
        before = f;
    return before;
}

enum fit { FITS, DUPLICATE, OVERLAPS };

static enum fit fit(const struct stk_assembly *a, const struct stk_fragment *before, const struct stk_packet *p, uint32_t offset, uint32_t more)
{
    const struct stk_fragment *after = before != NULL ? before->next : a->first;
    uint32_t stop = offset + p->length;
    if (after != NULL && after->offset == offset && after->length == p->length && (more != 0) == (a->end != stop)
        && memcmp(after->bytes + after->head, p->payload, p->length) == 0)
        return DUPLICATE;
    if ((before != NULL && before->offset + before->length > offset) || (after != NULL && after->offset < stop))
        return OVERLAPS;
    /* Beyond the end, or a second and different end. */
    if (a->end != 0 && (stop > a->end || (!more && stop != a->end)))
        return OVERLAPS;
    if (!more && a->last != NULL && a->last->offset + a->last->length > stop)
        return OVERLAPS;
    return FITS;
}

static struct stk_fragment *keep(struct stk *s, struct stk_assembly *a, const struct stk_packet *p, struct stk_fragment *before,
                                 uint32_t offset)
{
    uint32_t head = offset == 0 ? (uint32_t)(p->payload - p->ip) : 0;
    uint32_t size = (uint32_t)sizeof(struct stk_fragment) + head + p->length;
    if (a->frames >= STK_FRAGMENTS || !make_room(s, a, size))
        return NULL;
    struct stk_fragment *f = malloc(size);
    if (f == NULL)
        return NULL;
    f->offset = offset;
    f->length = p->length;
    f->head = head;
    memcpy(f->bytes, p->payload - head, head + p->length);
    f->next = before != NULL ? before->next : a->first;
    if (before != NULL)
        before->next = f;
    else
        a->first = f;
    if (f->next == NULL)
        a->last = f;
    a->have += p->length;
    a->bytes += size;
    s->assembly_bytes += size;
    a->frames++;
    s->held++;
    return f;
}

/* The whole packet in the scratch buffer, as if it had come in one: the first fragment's headers, without the fragment header, then the data. */
static void join(struct stk *s, const struct stk_assembly *a, struct stk_packet *p)
{
    uint32_t head = a->first->head - (a->family == 6 ? 8 : 0);
    uint8_t *at = s->scratch;
    memcpy(at, a->first->bytes, head);
    at += head;
    for (const struct stk_fragment *f = a->first; f != NULL; f = f->next) {
        memcpy(at, f->bytes + f->head, f->length);
        at += f->length;
    }
    p->ip = s->scratch;
    p->ip_length = head + a->have;
    p->payload = s->scratch + head;
    p->length = a->have;
    p->has_csum = 0;
    p->protocol = a->protocol;
    p->link_group = a->link_group;
    if (a->family == 4) {
        put16(s->scratch + 2, p->ip_length);
        put16(s->scratch + 6, 0);
        put16(s->scratch + 10, 0);
        put_checksum(s->scratch + 10, exo_checksum(s->scratch, head, 0));
    } else {
        put16(s->scratch + 4, p->ip_length - 40);
        s->scratch[a->next_at] = a->protocol;
        p->next_at = (uint16_t)a->next_at;
    }
}

static int32_t deliver(struct stk *s, struct stk_assembly *a, struct stk_packet *p)
{
    uint32_t head = a->first->head - (a->family == 6 ? 48 : 0); /* IPv6: the payload length does not count the header */
    int32_t reason = EXO_R_STACK_IP_HEADER;
    if (head + a->have <= 65535) {
        join(s, a, p);
        s->counters.reassembled++;
        uint32_t others = a->frames - 1;
        release(s, a);
        a->frames = others;
        s->held += others;
        reason = a->family == 4 ? stk_ip4_deliver(s, p) : stk_ip6_deliver(s, p);
    } else {
        a->frames--; /* the one in hand settles by its return value */
        s->held--;
    }
    end(s, a, reason);
    return reason;
}

static int32_t check(struct stk *s, const struct stk_packet *p, uint32_t offset, uint32_t more)
{
    uint32_t head = p->family == 4 ? (uint32_t)(p->payload - p->ip) : 0;
    if (p->length == 0 || (more && p->length % 8 != 0)) {
        if (p->family == 6 && p->length != 0)
            stk_icmp6_error(s, p, 4, 0, 4); /* RFC 8200 4.5: points at the payload length */
        return EXO_R_STACK_IP_HEADER;
    }
    if (head + offset + p->length > 65535) {
        if (p->family == 6)
            stk_icmp6_error(s, p, 4, 0, (uint32_t)(p->payload - p->ip) - 6); /* RFC 8200 4.5: at the fragment offset */
        return EXO_R_STACK_IP_HEADER;
    }
    return EXO_R_DELIVERED;
}

int32_t stk_fragment_input(struct stk *s, struct stk_packet *p, uint32_t id, uint32_t offset, uint32_t more)
{
    s->counters.fragments_in++;
    int32_t reason = check(s, p, offset, more);
    if (reason != EXO_R_DELIVERED)
        return reason;
    struct stk_assembly *a = find(s, p, id);
    if (a != NULL && a->deadline <= s->now) { /* late: the timer has not run yet */
        end(s, a, EXO_R_STACK_FRAG_REASM_TIMEOUT);
        a = NULL;
    }
    if (a == NULL)
        a = start(s, p, id);
    if (a->poisoned)
        return EXO_R_STACK_FRAG_OVERLAP;
    struct stk_fragment *before = place(a, offset);
    enum fit fits = fit(a, before, p, offset, more);
    if (fits == DUPLICATE)
        return EXO_R_STACK_FRAG_OVERLAP;
    if (fits == OVERLAPS) {
        stk_settle(s, EXO_R_STACK_FRAG_OVERLAP, a->frames);
        release(s, a);
        a->poisoned = 1;
        return EXO_R_STACK_FRAG_OVERLAP;
    }
    if (keep(s, a, p, before, offset) == NULL) {
        end(s, a, EXO_R_STACK_FRAG_REASM_FULL);
        return EXO_R_STACK_FRAG_REASM_FULL;
    }
    if (offset == 0) {
        memcpy(a->ether, p->ether, STK_ETHER);
        a->link_group = p->link_group;
        a->protocol = p->protocol;
        a->next_at = p->next_at;
    }
    if (!more)
        a->end = offset + p->length;
    if (a->end == 0 || a->have != a->end)
        return STK_HELD;
    return deliver(s, a, p);
}

/* RFC 792, RFC 8200 4.5: told to the sender only where the first fragment came. */
static void time_exceeded(struct stk *s, const struct stk_assembly *a)
{
    const struct stk_fragment *f = a->first;
    if (f == NULL || f->offset != 0)
        return;
    s->port = a->port;
    struct stk_packet p = {.ether = a->ether, .ip = f->bytes, .ip_length = f->head + f->length, .payload = f->bytes + f->head};
    p.length = f->length;
    p.family = a->family;
    p.protocol = a->protocol;
    p.link_group = a->link_group;
    p.group = a->family == 4 ? !stk_unicast(4, a->destination) || stk_broadcast4(s, a->destination) : a->destination[0] == 0xff;
    memcpy(p.source, a->source, 16);
    memcpy(p.destination, a->destination, 16);
    if (a->family == 4)
        stk_icmp_error(s, &p, 11, 1, 0);
    else
        stk_icmp6_error(s, &p, 3, 1, 0);
}

uint64_t stk_fragment_poll(struct stk *s)
{
    uint64_t next = STK_NEVER;
    for (uint32_t i = 0; i < STK_ASSEMBLIES && s->assembly_count > 0; i++) {
        struct stk_assembly *a = &s->assemblies[i];
        if (a->deadline == 0)
            continue;
        if (a->deadline <= s->now) {
            time_exceeded(s, a);
            end(s, a, EXO_R_STACK_FRAG_REASM_TIMEOUT);
        } else if (a->deadline < next) {
            next = a->deadline;
        }
    }
    return next;
}

void stk_fragment_free(struct stk *s)
{
    for (uint32_t i = 0; i < STK_ASSEMBLIES; i++)
        release(s, &s->assemblies[i]);
}
