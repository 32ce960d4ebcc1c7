/* SPDX-License-Identifier: MIT
 *
 * IPv6, both ways. Input: length, fields, extension headers in a loop that every turn shortens, protocol. Output: whole or in fragments.
 * A parameter problem is sent where RFC 8200 asks for it.
 * Reference: RFC 8200, RFC 4291 2, RFC 5095 (no type 0 routing header), RFC 7112 (first fragments hold all headers).
 */
#include "stk_private.h"

enum { IP6_HEADER = 40, IP6_FRAGMENT = 8, MAX_EXTENSIONS = 16 };
enum { PROBLEM_FIELD = 0, PROBLEM_NEXT_HEADER = 1, PROBLEM_OPTION = 2, PROBLEM_CHAIN = 3 };

static int32_t problem(struct stk *s, const struct stk_packet *p, uint32_t code, const uint8_t *at, int32_t reason)
{
    stk_icmp6_error(s, p, 4, code, (uint32_t)(at - p->ip));
    return reason;
}

/* RFC 8200 4.2: the type of an unknown option says what becomes of the packet. */
static int32_t options_check(struct stk *s, struct stk_packet *p, uint32_t header)
{
    for (uint32_t at = 2; at < header;) {
        const uint8_t *option = p->payload + at;
        if (option[0] == 0) { /* Pad1 */
            at++;
            continue;
        }
        if (at + 2 > header || at + 2 + option[1] > header)
            return problem(s, p, PROBLEM_FIELD, option, EXO_R_STACK_IP_HEADER);
        if (option[0] >> 6 == 1 || (option[0] >> 6 == 3 && p->group))
            return EXO_R_STACK_IP_HEADER;
        if (option[0] >> 6 >= 2)
            return problem(s, p, PROBLEM_OPTION, option, EXO_R_STACK_IP_HEADER);
        at += 2 + option[1]; /* PadN, router alert, and whatever else may be skipped */
    }
    return EXO_R_DELIVERED;
}

/* RFC 8200 4.4, RFC 5095: no routing type is known, so one with segments left is refused, one without is skipped. */
static int32_t routing_check(struct stk *s, const struct stk_packet *p)
{
    if (p->payload[3] != 0)
        return problem(s, p, PROBLEM_FIELD, p->payload + 2, EXO_R_STACK_IP_HEADER);
    return EXO_R_DELIVERED;
}

/* RFC 7112 5: whether the first fragment holds every header up to and with the transport's. */
static int32_t chain_complete(const struct stk_packet *p)
{
    const uint8_t *at = p->payload;
    uint32_t left = p->length, protocol = p->protocol;
    for (uint32_t i = 0; i < MAX_EXTENSIONS; i++) {
        if (protocol == STK_P_TCP)
            return left >= 20;
        if (protocol == STK_P_UDP || protocol == STK_P_ICMP6)
            return left >= 8;
        if (protocol != STK_P_OPTIONS && protocol != STK_P_ROUTING)
            return 1;
        if (left < 8 || left < (at[1] + 1) * 8u)
            return 0;
        uint32_t size = (at[1] + 1) * 8u;
        protocol = at[0];
        at += size;
        left -= size;
    }
    return 0;
}

static int32_t fragment_input(struct stk *s, struct stk_packet *p)
{
    const uint8_t *header = p->payload;
    if (p->length < IP6_FRAGMENT)
        return problem(s, p, PROBLEM_FIELD, p->ip + 4, EXO_R_STACK_IP_HEADER);
    uint32_t offset = be16(header + 2) & 0xfff8, more = header[3] & 1;
    p->protocol = header[0];
    p->payload += IP6_FRAGMENT;
    p->length -= IP6_FRAGMENT;
    if (offset == 0 && !more) { /* RFC 6946: an atomic fragment is a whole packet */
        p->next_at = (uint16_t)(header - p->ip);
        return stk_ip6_deliver(s, p);
    }
    if (offset == 0 && !chain_complete(p))
        return problem(s, p, PROBLEM_CHAIN, p->ip, EXO_R_STACK_IP_HEADER);
    return stk_fragment_input(s, p, be32(header + 4), offset, more);
}

/* Steps over one extension header. */
static int32_t extension(struct stk *s, struct stk_packet *p)
{
    uint32_t size = p->length >= 2 ? (p->payload[1] + 1) * 8u : 8;
    if (p->length < size)
        return problem(s, p, PROBLEM_FIELD, p->ip + 4, EXO_R_STACK_IP_HEADER);
    int32_t reason = p->protocol == STK_P_ROUTING ? routing_check(s, p) : options_check(s, p, size);
    p->protocol = p->payload[0];
    p->next_at = (uint16_t)(p->payload - p->ip);
    p->payload += size;
    p->length -= size;
    return reason;
}

int32_t stk_ip6_deliver(struct stk *s, struct stk_packet *p)
{
    for (uint32_t i = 0; i < MAX_EXTENSIONS; i++) {
        int32_t reason;
        switch (p->protocol) {
        case STK_P_UDP:
            return stk_udp_input(s, p);
        case STK_P_ICMP6:
            return stk_icmp6_input(s, p);
        case STK_P_OPTIONS:
        case STK_P_ROUTING:
            if ((reason = extension(s, p)) != EXO_R_DELIVERED)
                return reason;
            break;
        case STK_P_FRAGMENT:
            /* RFC 8200 4.1: once. One inside a reassembled or atomic packet could nest without end. */
            if (p->fragmented)
                return EXO_R_STACK_IP_HEADER;
            p->fragmented = 1;
            return fragment_input(s, p);
        case STK_P_NONE:
            return EXO_R_STACK_UNHANDLED_PROTO; /* RFC 8200 4.7 */
        default:
            /* RFC 8200 4; a hop-by-hop header anywhere but first is "unrecognized" too (4.1). */
            return problem(s, p, PROBLEM_NEXT_HEADER, p->ip + p->next_at, EXO_R_STACK_UNHANDLED_PROTO);
        }
    }
    return EXO_R_STACK_IP_HEADER; /* RFC 8504 5.3: a host may limit the chain */
}

/* ff01::1, ff02::1, and the solicited-node group of an own address (RFC 4291 2.7.1). */
static int32_t joined(const struct stk *s, const uint8_t *group)
{
    static const uint8_t solicited[13] = {0xff, 2, [11] = 1, [12] = 0xff};
    uint8_t all_nodes[16] = {0xff, group[1] == 1 ? 1 : 2, [15] = 1};
    if (same16(group, all_nodes))
        return 1;
    if (memcmp(group, solicited, 13) != 0)
        return 0;
    for (uint32_t i = 0; i < s->config.address_count; i++) {
        if (s->config.address[i].family == 6 && memcmp(s->config.address[i].bytes + 13, group + 13, 3) == 0)
            return 1;
    }
    return s->config.any_address;
}

static int32_t for_us(const struct stk *s, struct stk_packet *p)
{
    p->group = p->destination[0] == 0xff;
    if (p->group)
        return joined(s, p->destination);
    if (p->link_group)
        return 0; /* as RFC 1122 3.3.6 for IPv4 */
    return s->config.any_address ? stk_unicast(6, p->destination) : stk_own(s, 6, p->destination);
}

int32_t stk_ip6_input(struct stk *s, struct stk_packet *p)
{
    const uint8_t *ip = p->payload;
    if (p->length < IP6_HEADER)
        return short_reason(p);
    uint32_t length = be16(ip + 4);
    if (ip[0] >> 4 != 6)
        return EXO_R_STACK_IP_HEADER;
    if (IP6_HEADER + length > p->length)
        return short_reason(p);
    p->family = 6;
    p->fragmented = 0;
    p->ip = ip;
    p->ip_length = IP6_HEADER + length;
    p->payload = ip + IP6_HEADER;
    p->length = length;
    p->protocol = ip[6];
    p->next_at = 6;
    p->hop_limit = ip[7];
    memcpy(p->source, ip + 8, 16);
    memcpy(p->destination, ip + 24, 16);
    if (!stk_source_valid(s, p))
        return EXO_R_STACK_IP_INVALID_SOURCE;
    if (!for_us(s, p))
        return EXO_R_STACK_OTHERHOST;
    if (p->protocol == STK_P_HOP_BY_HOP) {
        int32_t reason = extension(s, p);
        if (reason != EXO_R_DELIVERED)
            return reason;
    }
    return stk_ip6_deliver(s, p);
}

/* One frame's IP header; what follows it is the caller's. */
static uint8_t *ip6_frame(struct stk *s, const struct stk_flow *flow, uint32_t next_header, uint32_t length)
{
    uint8_t *ip = stk_frame(s, &flow->path, STK_ETHER_IP6, IP6_HEADER + length);
    if (ip == NULL)
        return NULL;
    put32(ip, 0x60000000);
    put16(ip + 4, length);
    ip[6] = (uint8_t)next_header;
    ip[7] = flow->hop_limit;
    memcpy(ip + 8, flow->source, 16);
    memcpy(ip + 24, flow->destination, 16);
    return ip + IP6_HEADER;
}

static int32_t send_fragments(struct stk *s, const struct stk_flow *flow, const uint8_t *head, uint32_t head_length, const uint8_t *data,
                              uint32_t length)
{
    uint32_t all = head_length + length, room = (flow->path.mtu - IP6_HEADER - IP6_FRAGMENT) & ~7u, id = stk_identifier(s, flow);
    for (uint32_t offset = 0; offset < all; offset += room) {
        uint32_t n = all - offset > room ? room : all - offset;
        uint8_t *to = ip6_frame(s, flow, STK_P_FRAGMENT, IP6_FRAGMENT + n);
        if (to == NULL)
            return EXO_E_FULL;
        to[0] = flow->protocol;
        to[1] = 0;
        put16(to + 2, offset | (offset + n < all));
        put32(to + 4, id);
        gather(to + IP6_FRAGMENT, head, head_length, data, offset, n);
        stk_frame_done(s);
        s->counters.fragments_out++;
    }
    return 0;
}

int32_t stk_ip6_send(struct stk *s, const struct stk_flow *flow, uint8_t *head, uint32_t head_length, uint32_t check, const uint8_t *data,
                     uint32_t length)
{
    put16(head + check, 0);
    if (IP6_HEADER + head_length + length > flow->path.mtu) {
        finish_head(flow, head, head_length, check, length, exo_checksum(data, length, 0));
        return send_fragments(s, flow, head, head_length, data, length);
    }
    uint8_t *to = ip6_frame(s, flow, flow->protocol, head_length + length);
    if (to == NULL)
        return EXO_E_FULL;
    finish_head(flow, head, head_length, check, length, exo_copy_checksum(to + head_length, data, length, 0));
    memcpy(to, head, head_length);
    stk_frame_done(s);
    return 0;
}
