/* SPDX-License-Identifier: MIT
 *
 * UDP, both ways. Sockets and their queues are udp_socket.c.
 * Reference: RFC 768, RFC 1122 4.1, RFC 8200 8.1 (no zero checksum in IPv6; the exception of RFC 6935 for tunnels is not made).
 */
#include "stk_private.h"

enum { UDP_HEADER = 8, UDP_MAX4 = 65507, UDP_MAX6 = 65527 };

int32_t stk_udp_input(struct stk *s, struct stk_packet *p)
{
    const uint8_t *udp = p->payload;
    if (p->length < UDP_HEADER)
        return EXO_R_STACK_UDP_HEADER;
    uint32_t length = be16(udp + 4);
    if (length < UDP_HEADER || length > p->length)
        return EXO_R_STACK_UDP_HEADER; /* a shorter one is right: the rest is not UDP's */
    if (be16(udp + 6) != 0) {
        uint32_t sum = stk_pseudo_sum(p->family, p->source, p->destination, STK_P_UDP, length) + stk_payload_sum(p, length);
        if (!sum_good((uint16_t)((sum & 0xffff) + (sum >> 16))))
            return EXO_R_STACK_UDP_CSUM;
    } else if (p->family == 6) {
        return EXO_R_STACK_UDP_CSUM;
    }
    int32_t socket = stk_socket_find(s, p->family, p->destination, be16(udp + 2));
    if (socket >= 0)
        return stk_socket_put(s, socket, p, be16(udp), udp + UDP_HEADER, length - UDP_HEADER);
    if (p->family == 4)
        stk_icmp_error(s, p, 3, 3, 0); /* RFC 1122 4.1.3.1: port unreachable */
    else
        stk_icmp6_error(s, p, 1, 4, 0); /* RFC 4443 3.1 */
    return EXO_R_STACK_NO_SOCKET;
}

/* The source address asked for: 0, or EXO_E_INVALID where it is not ours. A group address (what a broadcast was sent to) means: choose. */
static int32_t source_of(const struct stk *s, const struct stk_socket *socket, const uint8_t *local, struct stk_flow *flow)
{
    uint8_t whole[16];
    if (!socket->any)
        memcpy(flow->source, socket->address, 16);
    if (local == NULL)
        return 0;
    address_set(whole, socket->family, local);
    if (!stk_unicast(socket->family, whole) || (socket->family == 4 && stk_broadcast4(s, whole)))
        return 0;
    if (!s->config.any_address && !stk_own(s, socket->family, whole))
        return EXO_E_INVALID;
    if (!socket->any && !same16(socket->address, whole))
        return EXO_E_INVALID;
    memcpy(flow->source, whole, 16);
    return 0;
}

static uint32_t is_multicast(uint32_t family, const uint8_t *address)
{
    return family == 4 ? (address[0] & 0xf0) == 0xe0 : address[0] == 0xff;
}

int32_t stk_udp_send(struct stk *s, int32_t number, uint32_t family, const uint8_t *peer, uint32_t port, const uint8_t *local,
                     const uint8_t *data, uint32_t length, uint64_t now)
{
    return stk_udp_send_by(s, STK_ANY_PORT, number, family, peer, port, local, data, length, now);
}

int32_t stk_udp_send_by(struct stk *s, uint32_t link, int32_t number, uint32_t family, const uint8_t *peer, uint32_t port,
                        const uint8_t *local, const uint8_t *data, uint32_t length, uint64_t now)
{
    const struct stk_socket *socket = stk_socket_get(s, number);
    if (socket == NULL || socket->family != family || port == 0 || port > 65535 || length > (family == 4 ? UDP_MAX4 : UDP_MAX6))
        return EXO_E_INVALID;
    struct stk_flow flow = {.family = (uint8_t)family, .protocol = STK_P_UDP, .keep_whole = 1, .path = {.socket = number}};
    s->now = now;
    flow.hop_limit = is_multicast(family, peer) ? 1 : STK_HOP_LIMIT; /* RFC 1112 6.1, RFC 3493 5.2 */
    address_set(flow.destination, family, peer);
    s->port = link < STK_PORTS ? link : stk_route_port(s, &flow);
    int32_t error = source_of(s, socket, local, &flow);
    if (error == 0)
        error = stk_route(s, &flow);
    if (error != 0)
        return error;
    uint8_t head[UDP_HEADER];
    put16(head, socket->port);
    put16(head + 2, port);
    put16(head + 4, UDP_HEADER + length);
    error = stk_ip_send(s, &flow, head, UDP_HEADER, 6, length != 0 ? data : head, length);
    s->counters.udp_out += error == 0;
    return error;
}
