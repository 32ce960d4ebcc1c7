/* SPDX-License-Identifier: MIT
 *
 * ICMP for IPv4: echo, errors told to us, errors we tell.
 * Never an error about an error, a group packet, a later fragment, or to an address that is not one host's.
 * Reference: RFC 792, RFC 1122 3.2.2, RFC 1191 (fragmentation needed), RFC 6633 (source quench is dead).
 */
#include "stk_private.h"

enum {
    ICMP_HEADER = 8, ICMP_ECHO_REPLY = 0, ICMP_UNREACHABLE = 3, ICMP_REDIRECT = 5, ICMP_ECHO = 8, ICMP_TIME_EXCEEDED = 11,
    ICMP_PARAMETER = 12, ICMP_TIMESTAMP = 13, ICMP_MASK_REPLY = 18
};
enum { ERROR_LENGTH = 576 }; /* RFC 1812 4.3.2.3: as much as fits */

static int32_t echo(struct stk *s, struct stk_packet *p)
{
    struct stk_flow flow;
    uint8_t head[ICMP_HEADER];
    s->counters.echo_in++;
    if (p->group || zero16(p->source))
        return EXO_R_STACK_REFUSED; /* a smurf amplifier otherwise, which RFC 1122 3.2.2.6 allows; or nobody to answer */
    memcpy(head, p->payload, ICMP_HEADER); /* identifier, sequence number, and then all data go back as they came */
    head[0] = ICMP_ECHO_REPLY;
    if (stk_route_back(s, p, &flow, STK_P_ICMP) != 0)
        return EXO_R_DELIVERED;
    flow.options_length = (uint8_t)stk_ip4_options_echo(s, p, flow.source, flow.options);
    if (stk_ip4_send(s, &flow, head, ICMP_HEADER, 2, p->payload + ICMP_HEADER, p->length - ICMP_HEADER) == 0)
        s->counters.echo_out++;
    return EXO_R_DELIVERED;
}

/* RFC 1191 7.1: a router that does not tell the MTU; the next plateau below the packet that did not pass. */
static uint32_t plateau(uint32_t length)
{
    static const uint32_t plateaus[] = {32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68};
    uint32_t i = 0;
    while (i < 9 && plateaus[i] >= length)
        i++;
    return plateaus[i];
}

/* An error quotes the packet that caused it. It counts only where that packet can have been ours (RFC 5927 4.1's spirit). */
static int32_t error_input(struct stk *s, const struct stk_packet *p)
{
    const uint8_t *quoted = p->payload + ICMP_HEADER;
    uint32_t room = p->length - ICMP_HEADER;
    if (room < 20 || quoted[0] >> 4 != 4 || (quoted[0] & 15) < 5 || room < (quoted[0] & 15) * 4u + 8)
        return EXO_R_STACK_ICMP_HEADER; /* RFC 1122 3.2.2: header and at least 8 octets */
    const uint8_t *transport = quoted + (quoted[0] & 15) * 4;
    uint8_t source[16], destination[16];
    address_set(source, 4, quoted + 12);
    address_set(destination, 4, quoted + 16);
    if (quoted[9] != STK_P_UDP || (be16(quoted + 6) & 0x1fff) != 0)
        return EXO_R_STACK_NO_SOCKET;
    int32_t socket = stk_socket_find(s, 4, source, be16(transport));
    if (socket < 0 || !(s->config.any_address || stk_own(s, 4, source)))
        return EXO_R_STACK_NO_SOCKET;
    if (p->payload[0] == ICMP_UNREACHABLE && p->payload[1] == 4) {
        uint32_t mtu = be16(p->payload + 6), length = be16(quoted + 2);
        stk_path_too_big(s, 4, destination, mtu != 0 ? mtu : plateau(length));
    }
    stk_socket_error(s, socket, p->payload[0] << 8 | p->payload[1]);
    return EXO_R_DELIVERED;
}

int32_t stk_icmp_input(struct stk *s, struct stk_packet *p)
{
    if (p->length < ICMP_HEADER)
        return EXO_R_STACK_ICMP_HEADER;
    if (!sum_good(stk_payload_sum(p, p->length)))
        return EXO_R_STACK_ICMP_CSUM;
    switch (p->payload[0]) {
    case ICMP_ECHO:
        return p->payload[1] == 0 ? echo(s, p) : EXO_R_STACK_ICMP_HEADER;
    case ICMP_UNREACHABLE:
    case ICMP_TIME_EXCEEDED:
    case ICMP_PARAMETER:
        return error_input(s, p);
    case ICMP_ECHO_REPLY:
        return EXO_R_STACK_NO_SOCKET;
    case ICMP_REDIRECT:
        return EXO_R_STACK_REFUSED; /* RFC 1122 3.2.2.2 SHOULD follow it; left out on purpose: anybody can forge one */
    default:
        return EXO_R_STACK_UNHANDLED_PROTO; /* RFC 1122 3.2.2: unknown types are discarded silently */
    }
}

/* RFC 1122 3.2.2: when an error must not be sent. */
static int32_t may_answer(const struct stk *s, const struct stk_packet *p)
{
    if (p->link_group || p->group || (be16(p->ip + 6) & 0x1fff) != 0)
        return 0;
    if (!stk_unicast(4, p->source) || stk_broadcast4(s, p->source))
        return 0;
    if (p->protocol != STK_P_ICMP)
        return 1;
    if (p->length == 0)
        return 0;
    uint32_t type = p->payload[0];
    return type == ICMP_ECHO || type == ICMP_ECHO_REPLY || (type >= ICMP_TIMESTAMP && type <= ICMP_MASK_REPLY);
}

/* rest: octets 4..7 of the message, e.g. the pointer of a parameter problem. */
void stk_icmp_error(struct stk *s, const struct stk_packet *p, uint32_t type, uint32_t code, uint32_t rest)
{
    struct stk_flow flow;
    uint8_t head[ICMP_HEADER] = {(uint8_t)type, (uint8_t)code};
    if (!may_answer(s, p) || !stk_error_allowed(s) || stk_route_back(s, p, &flow, STK_P_ICMP) != 0)
        return;
    put32(head + 4, rest);
    uint32_t room = ERROR_LENGTH - 20 - ICMP_HEADER, quote = p->ip_length < room ? p->ip_length : room;
    if (stk_ip4_send(s, &flow, head, ICMP_HEADER, 2, p->ip, quote) == 0 && type == ICMP_UNREACHABLE)
        s->counters.unreachable_out++;
}
