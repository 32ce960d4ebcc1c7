/* SPDX-License-Identifier: MIT
 *
 * UDP sockets: the table, found by a hash of the port, and each one's queue: a byte ring of records, a datagram's bytes never split.
 * A socket that has something to read is in the ready ring once; it may be found empty there, and then leaves it.
 */
#include <stdlib.h>

#include "stk_private.h"

enum { EPHEMERAL_FIRST = 49152, EPHEMERAL_COUNT = 16384 }; /* RFC 6335 6 */

static uint32_t bucket_of(uint32_t family, uint32_t port)
{
    return (port * 2 + (family == 6)) % STK_SOCKET_BUCKETS;
}

static uint32_t capacity(const struct stk *s)
{
    return s->config.socket_bytes & ~7u;
}

void stk_socket_start(struct stk *s)
{
    memset(s->socket_buckets, 0xff, sizeof s->socket_buckets);
}

void stk_socket_free(struct stk *s)
{
    for (int32_t i = 0; i < STK_SOCKETS; i++)
        free(s->sockets[i].buffer);
}

struct stk_socket *stk_socket_get(const struct stk *s, int32_t number)
{
    if (number < 0 || number >= STK_SOCKETS || s->sockets[number].family == 0)
        return NULL;
    return (struct stk_socket *)&s->sockets[number];
}

int32_t stk_socket_find(const struct stk *s, uint32_t family, const uint8_t *address, uint32_t port)
{
    for (int32_t i = s->socket_buckets[bucket_of(family, port)]; i >= 0; i = s->sockets[i].next) {
        const struct stk_socket *socket = &s->sockets[i];
        if (socket->port == port && socket->family == family && (socket->any || same16(socket->address, address)))
            return i;
    }
    return -1;
}

/* As BSD without SO_REUSEADDR: a wildcard and a specific address on one port exclude each other. address NULL: the wildcard. */
static int32_t taken(const struct stk *s, uint32_t family, const uint8_t *address, uint32_t port)
{
    for (int32_t i = s->socket_buckets[bucket_of(family, port)]; i >= 0; i = s->sockets[i].next) {
        const struct stk_socket *socket = &s->sockets[i];
        if (socket->port == port && socket->family == family
            && (address == NULL || socket->any || same16(socket->address, address)))
            return 1;
    }
    return 0;
}

/* RFC 6056 3.3.1: a random start, then on. 0: every port is taken. */
static uint32_t ephemeral(struct stk *s, uint32_t family, const uint8_t *address)
{
    uint32_t start = (uint32_t)(stk_random(s) % EPHEMERAL_COUNT);
    for (uint32_t i = 0; i < EPHEMERAL_COUNT; i++) {
        uint32_t port = EPHEMERAL_FIRST + (start + i) % EPHEMERAL_COUNT;
        if (!taken(s, family, address, port))
            return port;
    }
    return 0;
}

int32_t stk_udp_open(struct stk *s, uint32_t family, const uint8_t *address, uint32_t port)
{
    uint8_t whole[16] = {0};
    if ((family != 4 && family != 6) || port > 65535)
        return EXO_E_INVALID;
    if (address != NULL)
        address_set(whole, family, address);
    const uint8_t *specific = zero16(whole) ? NULL : whole;
    if (specific != NULL && !(s->config.any_address ? stk_unicast(family, whole) : stk_own(s, family, whole)))
        return EXO_E_INVALID;
    int32_t number = 0;
    while (number < STK_SOCKETS && s->sockets[number].family != 0)
        number++;
    if (number == STK_SOCKETS)
        return EXO_E_FULL;
    if (port == 0)
        port = ephemeral(s, family, specific);
    if (port == 0 || taken(s, family, specific, port))
        return EXO_E_BUSY;
    struct stk_socket *socket = &s->sockets[number];
    uint8_t queued = socket->queued; /* a closed socket's place in the ready ring is reused with it */
    uint8_t *buffer = malloc(capacity(s) + 8);
    if (buffer == NULL)
        return EXO_E_MEMORY;
    int16_t *bucket = &s->socket_buckets[bucket_of(family, port)];
    memset(socket, 0, sizeof *socket);
    socket->family = (uint8_t)family;
    socket->any = specific == NULL;
    socket->queued = queued;
    socket->port = (uint16_t)port;
    socket->buffer = buffer;
    memcpy(socket->address, whole, 16);
    socket->next = *bucket;
    *bucket = (int16_t)number;
    return number;
}

int32_t stk_udp_close(struct stk *s, int32_t number)
{
    struct stk_socket *socket = stk_socket_get(s, number);
    if (socket == NULL)
        return EXO_E_NOT_FOUND;
    int16_t *link = &s->socket_buckets[bucket_of(socket->family, socket->port)];
    while (*link != number)
        link = &s->sockets[*link].next;
    *link = socket->next;
    free(socket->buffer);
    socket->buffer = NULL;
    socket->family = 0;
    socket->used = 0;
    return 0;
}

int32_t stk_udp_port(const struct stk *s, int32_t number)
{
    const struct stk_socket *socket = stk_socket_get(s, number);
    return socket != NULL ? socket->port : EXO_E_NOT_FOUND;
}

/* Room for a record of `size` bytes in one piece, or NULL. What is left at the end is marked as skipped. */
static struct stk_record *record_new(const struct stk *s, struct stk_socket *socket, uint32_t size)
{
    uint32_t end = capacity(s) - socket->tail;
    if (socket->used != 0 && socket->tail <= socket->head) {
        if (socket->head - socket->tail < size)
            return NULL;
    } else if (end < size) {
        if (socket->head < size)
            return NULL;
        if (end >= sizeof(struct stk_record))
            ((struct stk_record *)(void *)(socket->buffer + socket->tail))->skip = 1;
        socket->used += end;
        socket->tail = 0;
    }
    struct stk_record *record = (struct stk_record *)(void *)(socket->buffer + socket->tail);
    record->size = size;
    record->skip = 0;
    socket->tail += size;
    socket->used += size;
    return record;
}

static void make_ready(struct stk *s, int32_t number)
{
    if (s->sockets[number].queued)
        return;
    s->sockets[number].queued = 1;
    s->ready[s->ready_tail++ % STK_SOCKETS] = (uint16_t)number;
}

int32_t stk_socket_put(struct stk *s, int32_t number, const struct stk_packet *p, uint32_t peer_port, const uint8_t *data, uint32_t length)
{
    struct stk_socket *socket = &s->sockets[number];
    struct stk_record *record = record_new(s, socket, ((uint32_t)sizeof *record + length + 7) & ~7u);
    if (record == NULL)
        return EXO_R_STACK_SOCKET_RCVBUFF;
    struct stk_datagram *d = &record->datagram;
    memset(d, 0, sizeof *d);
    d->length = length;
    d->family = p->family;
    d->port = (uint16_t)peer_port;
    d->local_port = socket->port;
    d->link = (uint16_t)s->port;
    memcpy(d->peer, p->source, 16);
    memcpy(d->local, p->destination, 16);
    memcpy(d->peer_mac, p->ether + 6, 6);
    d->timestamp = s->now;
    memcpy(record + 1, data, length);
    make_ready(s, number);
    s->counters.udp_in++;
    if (s->config.any_address)
        stk_route_learn(s, p);
    return EXO_R_DELIVERED;
}

int32_t stk_udp_receive(struct stk *s, int32_t number, struct stk_datagram *out)
{
    const struct stk_socket *socket = stk_socket_get(s, number);
    if (socket == NULL || socket->used == 0)
        return 0;
    const struct stk_record *record = (const struct stk_record *)(const void *)(socket->buffer + socket->head);
    *out = record->datagram;
    out->data = (const uint8_t *)(record + 1);
    return 1;
}

void stk_udp_done(struct stk *s, int32_t number)
{
    struct stk_socket *socket = stk_socket_get(s, number);
    if (socket == NULL || socket->used == 0)
        return;
    const struct stk_record *record = (const struct stk_record *)(const void *)(socket->buffer + socket->head);
    socket->head += record->size;
    socket->used -= record->size;
    if (socket->used == 0) { /* the start of the buffer is the part that is in the cache */
        socket->head = 0;
        socket->tail = 0;
        return;
    }
    uint32_t end = capacity(s) - socket->head;
    record = (const struct stk_record *)(const void *)(socket->buffer + socket->head);
    if (end < sizeof *record || record->skip) {
        socket->used -= end;
        socket->head = 0;
    }
}

int32_t stk_udp_ready(struct stk *s)
{
    while (s->ready_head != s->ready_tail) {
        int32_t number = s->ready[s->ready_head++ % STK_SOCKETS];
        if (s->sockets[number].used != 0) {
            s->ready[s->ready_tail++ % STK_SOCKETS] = (uint16_t)number;
            return number;
        }
        s->sockets[number].queued = 0;
    }
    return -1;
}

void stk_socket_error(struct stk *s, int32_t number, int32_t error)
{
    struct stk_socket *socket = stk_socket_get(s, number);
    if (socket != NULL)
        socket->error = error;
}

int32_t stk_udp_error(struct stk *s, int32_t number)
{
    struct stk_socket *socket = stk_socket_get(s, number);
    if (socket == NULL)
        return 0;
    int32_t error = socket->error;
    socket->error = 0;
    return error;
}
