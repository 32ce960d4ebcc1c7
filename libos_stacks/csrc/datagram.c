/* SPDX-License-Identifier: MIT
 *
 * Datagrams for a caller in another language: one call takes a datagram out with its peer as flat bytes, one call answers, so an echo
 * costs Python four calls in all. Interface: ring.h.
 */
#include "ring_private.h"

/* The first of n sockets with something to read, its datagram in *out; n where there is none. */
static uint32_t first_ready(struct stk *stack, const int32_t *sockets, uint32_t n, struct stk_datagram *out)
{
    uint32_t i = 0;
    while (i < n && stk_udp_receive(stack, sockets[i], out) != 1)
        i++;
    return i;
}

int32_t stk_udp_take(struct stk *stack, const int32_t *sockets, uint32_t n, struct stk_inbox *inbox)
{
    struct stk_datagram d;
    uint32_t at = first_ready(stack, sockets, n, &d);
    if (at == n)
        return -1;
    uint32_t length = d.length < sizeof inbox->data ? d.length : sizeof inbox->data;
    inbox->peer.family = (uint8_t)d.family;
    inbox->peer.link = (uint8_t)(d.link + 1);
    inbox->peer.port = d.port;
    inbox->peer.scope = d.scope;
    memcpy(inbox->peer.address, d.peer, sizeof d.peer);
    memcpy(inbox->peer.local, d.local, sizeof d.local);
    inbox->timestamp = d.timestamp;
    memcpy(inbox->data, d.data, length);
    stk_udp_done(stack, sockets[at]);
    return (int32_t)length + (first_ready(stack, sockets, n, &d) < n ? STK_TAKE_MORE : 0);
}

/* May an answer come from this address? Not from a group or from nowhere: there the stack chooses its own. */
static int is_source(const struct stk_peer *peer)
{
    static const uint8_t none[16];
    if (memcmp(peer->local, none, sizeof none) == 0)
        return 0;
    return peer->family == 4 ? peer->local[0] < 224 : peer->local[0] != 0xff;
}

int32_t stk_rings_send(struct stk_rings *rings, struct stk *stack, int32_t socket, const uint8_t *peer, const uint8_t *data, uint32_t length)
{
    struct stk_peer to;
    memcpy(&to, peer, sizeof to);
    rings->deadline = 0;     /* a datagram that waits for its neighbour has a deadline: the next pump asks */
    uint32_t link = to.link == 0 ? (uint32_t)STK_ANY_PORT : to.link - 1u;
    const uint8_t *local = is_source(&to) ? to.local : NULL;
    return stk_udp_send_by(stack, link, socket, to.family, to.address, to.port, local, data, length, rings->now);
}
