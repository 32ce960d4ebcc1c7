/* SPDX-License-Identifier: MIT
 *
 * ICMPv6: echo, errors told to us, errors we tell. Neighbour discovery is ndp.c.
 * Reference: RFC 4443, RFC 8201 (packet too big).
 */
#include "stk_private.h"

enum {
    ICMP6_HEADER = 8, ICMP6_UNREACHABLE = 1, ICMP6_TOO_BIG = 2, ICMP6_TIME_EXCEEDED = 3, ICMP6_PARAMETER = 4, ICMP6_ECHO = 128,
    ICMP6_ECHO_REPLY = 129, ICMP6_ROUTER_SOLICITATION = 133, ICMP6_REDIRECT = 137
};
enum { ERROR_LENGTH = 1280 }; /* RFC 4443 2.4(c): not beyond the minimum MTU */

static int32_t echo(struct stk *s, struct stk_packet *p)
{
    struct stk_flow flow;
    uint8_t head[ICMP6_HEADER];
    s->counters.echo_in++;
    if (zero16(p->source))
        return EXO_R_STACK_REFUSED; /* nobody to answer */
    memcpy(head, p->payload, ICMP6_HEADER);
    head[0] = ICMP6_ECHO_REPLY;
    /* RFC 4443 4.2: one to a group is answered too, from an own address. */
    if (stk_route_back(s, p, &flow, STK_P_ICMP6) == 0
        && stk_ip6_send(s, &flow, head, ICMP6_HEADER, 2, p->payload + ICMP6_HEADER, p->length - ICMP6_HEADER) == 0)
        s->counters.echo_out++;
    return EXO_R_DELIVERED;
}

/* The transport header in a quoted packet, behind a fragment header of its first fragment if there is one; NULL: not there. */
static const uint8_t *quoted_transport(const uint8_t *quoted, uint32_t room, uint32_t *protocol)
{
    uint32_t at = 40;
    *protocol = quoted[6];
    if (*protocol == STK_P_FRAGMENT) {
        if (room < at + 8 || (be16(quoted + at + 2) & 0xfff8) != 0)
            return NULL;
        *protocol = quoted[at];
        at += 8;
    }
    return room >= at + 8 ? quoted + at : NULL;
}

/* RFC 4443 2.4(d): the quoted packet says whom it concerns. RFC 8201 4: a too big about an echo reply of ours counts as well. */
static int32_t error_input(struct stk *s, const struct stk_packet *p)
{
    const uint8_t *quoted = p->payload + ICMP6_HEADER;
    uint32_t room = p->length - ICMP6_HEADER, protocol, type = p->payload[0];
    if (room < 40 || quoted[0] >> 4 != 6)
        return EXO_R_STACK_ICMP_HEADER;
    const uint8_t *transport = quoted_transport(quoted, room, &protocol);
    if (transport == NULL || !(s->config.any_address || stk_own(s, 6, quoted + 8)))
        return EXO_R_STACK_NO_SOCKET;
    int32_t socket = protocol == STK_P_UDP ? stk_socket_find(s, 6, quoted + 8, be16(transport)) : -1;
    int32_t reply = protocol == STK_P_ICMP6 && transport[0] == ICMP6_ECHO_REPLY;
    if (socket < 0 && !(reply && type == ICMP6_TOO_BIG))
        return EXO_R_STACK_NO_SOCKET;
    if (type == ICMP6_TOO_BIG)
        stk_path_too_big(s, 6, quoted + 24, be32(p->payload + 4));
    stk_socket_error(s, socket, 65536 | type << 8 | p->payload[1]);
    return EXO_R_DELIVERED;
}

int32_t stk_icmp6_input(struct stk *s, struct stk_packet *p)
{
    if (p->length < ICMP6_HEADER)
        return EXO_R_STACK_ICMP_HEADER;
    uint32_t sum = stk_pseudo_sum(6, p->source, p->destination, STK_P_ICMP6, p->length) + stk_payload_sum(p, p->length);
    if (!sum_good((uint16_t)((sum & 0xffff) + (sum >> 16))))
        return EXO_R_STACK_ICMP_CSUM;
    uint32_t type = p->payload[0];
    if (type == ICMP6_ECHO)
        return p->payload[1] == 0 ? echo(s, p) : EXO_R_STACK_ICMP_HEADER;
    if (type >= ICMP6_UNREACHABLE && type <= ICMP6_PARAMETER)
        return error_input(s, p);
    if (type >= ICMP6_ROUTER_SOLICITATION && type <= ICMP6_REDIRECT)
        return stk_ndp_input(s, p);
    if (type == ICMP6_ECHO_REPLY)
        return EXO_R_STACK_NO_SOCKET;
    return EXO_R_STACK_UNHANDLED_PROTO; /* RFC 4443 2.4(a), (b); MLD is left out on purpose: groups are the kernel's subscriptions */
}

/* RFC 4443 2.4(e). */
static int32_t may_answer(const struct stk_packet *p, uint32_t type, uint32_t code)
{
    int32_t group_too = type == ICMP6_PARAMETER && code == 2; /* (e.3): with packet too big the two exceptions */
    if ((p->group || p->link_group) && !group_too)
        return 0;
    if (zero16(p->source) || p->source[0] == 0xff)
        return 0;
    if (p->protocol != STK_P_ICMP6)
        return 1;
    return p->length > 0 && p->payload[0] >= 128 && p->payload[0] != ICMP6_REDIRECT;
}

/* rest: octets 4..7 of the message, e.g. the pointer of a parameter problem. */
void stk_icmp6_error(struct stk *s, const struct stk_packet *p, uint32_t type, uint32_t code, uint32_t rest)
{
    struct stk_flow flow;
    uint8_t head[ICMP6_HEADER] = {(uint8_t)type, (uint8_t)code};
    if (!may_answer(p, type, code) || !stk_error_allowed(s) || stk_route_back(s, p, &flow, STK_P_ICMP6) != 0)
        return;
    put32(head + 4, rest);
    uint32_t room = ERROR_LENGTH - 40 - ICMP6_HEADER, quote = p->ip_length < room ? p->ip_length : room;
    if (stk_ip6_send(s, &flow, head, ICMP6_HEADER, 2, p->ip, quote) == 0 && type == ICMP6_UNREACHABLE)
        s->counters.unreachable_out++;
}
