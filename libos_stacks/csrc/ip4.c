/* SPDX-License-Identifier: MIT
 *
 * IPv4, both ways. Input: length, checksum, fields, options, reassembly, protocol. Output: one datagram, whole or in fragments.
 * Reference: RFC 791, RFC 1122 3.2.1, RFC 1191 (DF), RFC 6864 (identification).
 */
#include "stk_private.h"

enum { IP4_HEADER = 20, IP4_DF = 0x4000, IP4_MF = 0x2000, IP4_OFFSET = 0x1fff };
enum { OPTION_END = 0, OPTION_NOP = 1, OPTION_LSRR = 131, OPTION_SSRR = 137 };

/* RFC 791 3.1: every option is stepped over by its length; none is acted upon. */
static int32_t options_check(struct stk *s, const struct stk_packet *p, uint32_t header)
{
    for (uint32_t at = IP4_HEADER; at < header;) {
        uint32_t kind = p->ip[at];
        if (kind == OPTION_END)
            return EXO_R_DELIVERED;
        if (kind == OPTION_NOP) {
            at++;
            continue;
        }
        if (at + 2 > header || p->ip[at + 1] < 2 || at + p->ip[at + 1] > header) {
            stk_icmp_error(s, p, 12, 0, at << 24); /* RFC 1122 3.2.2.5: parameter problem, the pointer in the first octet */
            return EXO_R_STACK_IP_HEADER;
        }
        if (kind == OPTION_LSRR || kind == OPTION_SSRR)
            return EXO_R_STACK_REFUSED; /* RFC 7126 4.3, 4.4: source routes are dropped, silently */
        at += p->ip[at + 1];
    }
    return EXO_R_DELIVERED;
}

/* RFC 1122 3.2.1.3: a source is one host's address, or 0.0.0.0 of a host that does not know its own yet. */
static int32_t source_valid(const struct stk *s, const struct stk_packet *p)
{
    if (s->config.any_address)
        return stk_unicast(4, p->source) || be32(p->source) == 0;
    if (p->source[0] == 127 || stk_broadcast4(s, p->source) || stk_own(s, 4, p->source))
        return 0;
    return stk_unicast(4, p->source) || be32(p->source) == 0;
}

/* Whether the packet is for us; says whether as one of a group. */
static int32_t for_us(const struct stk *s, struct stk_packet *p)
{
    p->group = 0;
    if (s->config.any_address ? stk_unicast(4, p->destination) : stk_own(s, 4, p->destination))
        return !p->link_group; /* RFC 1122 3.3.6: unicast in a link-layer broadcast is discarded */
    p->group = 1;
    return stk_broadcast4(s, p->destination) || be32(p->destination) == 0xe0000001; /* RFC 1112 4: all hosts */
}

int32_t stk_ip4_input(struct stk *s, struct stk_packet *p)
{
    const uint8_t *ip = p->payload;
    if (p->length < IP4_HEADER)
        return short_reason(p);
    uint32_t header = (ip[0] & 15) * 4u, total = be16(ip + 2);
    if (ip[0] >> 4 != 4 || header < IP4_HEADER || total < header)
        return EXO_R_STACK_IP_HEADER;
    if (total > p->length)
        return short_reason(p);
    if (exo_checksum(ip, header, 0) != 0xffff)
        return EXO_R_STACK_IP_CSUM;
    p->family = 4;
    p->ip = ip;
    p->ip_length = total; /* what follows is the link's padding */
    p->payload = ip + header;
    p->length = total - header;
    p->hop_limit = ip[8]; /* RFC 1122 3.2.1.7: the destination does not care how low it is */
    p->protocol = ip[9];
    address_set(p->source, 4, ip + 12);
    address_set(p->destination, 4, ip + 16);
    if (!source_valid(s, p))
        return EXO_R_STACK_IP_HEADER;
    if (!for_us(s, p))
        return EXO_R_STACK_OTHERHOST;
    if (header > IP4_HEADER) {
        int32_t reason = options_check(s, p, header);
        if (reason != EXO_R_DELIVERED)
            return reason;
    }
    uint32_t fragment = be16(ip + 6);
    if (fragment & (IP4_MF | IP4_OFFSET))
        return stk_fragment_input(s, p, be16(ip + 4), (fragment & IP4_OFFSET) * 8, fragment & IP4_MF);
    return stk_ip4_deliver(s, p);
}

int32_t stk_ip4_deliver(struct stk *s, struct stk_packet *p)
{
    if (p->protocol == STK_P_UDP)
        return stk_udp_input(s, p);
    if (p->protocol == STK_P_ICMP)
        return stk_icmp_input(s, p);
    stk_icmp_error(s, p, 3, 2, 0); /* RFC 1122 3.2.2.1: protocol unreachable */
    return EXO_R_STACK_UNHANDLED_PROTO;
}

/* One frame's IP header; what follows it is the caller's. */
static uint8_t *ip4_frame(struct stk *s, const struct stk_flow *flow, uint32_t id, uint32_t fragment, uint32_t length)
{
    uint8_t *ip = stk_frame(s, &flow->path, STK_ETHER_IP4, IP4_HEADER + length);
    if (ip == NULL)
        return NULL;
    ip[0] = 0x45;
    ip[1] = 0;
    put16(ip + 2, IP4_HEADER + length);
    put16(ip + 4, id);
    put16(ip + 6, fragment);
    ip[8] = flow->hop_limit;
    ip[9] = flow->protocol;
    put16(ip + 10, 0);
    memcpy(ip + 12, flow->source, 4);
    memcpy(ip + 16, flow->destination, 4);
    put_checksum(ip + 10, exo_checksum(ip, IP4_HEADER, 0));
    return ip + IP4_HEADER;
}

static int32_t send_fragments(struct stk *s, const struct stk_flow *flow, const uint8_t *head, uint32_t head_length, const uint8_t *data,
                              uint32_t length)
{
    uint32_t all = head_length + length, room = (flow->path.mtu - IP4_HEADER) & ~7u, id = stk_identifier(s, flow);
    for (uint32_t offset = 0; offset < all; offset += room) {
        uint32_t n = all - offset > room ? room : all - offset;
        uint8_t *to = ip4_frame(s, flow, id, offset / 8 | (offset + n < all ? IP4_MF : 0), n);
        if (to == NULL)
            return EXO_E_FULL;
        gather(to, head, head_length, data, offset, n);
        stk_frame_done(s);
        s->counters.fragments_out++;
    }
    return 0;
}

int32_t stk_ip4_send(struct stk *s, const struct stk_flow *flow, uint8_t *head, uint32_t head_length, uint32_t check, const uint8_t *data,
                     uint32_t length)
{
    put16(head + check, 0);
    if (IP4_HEADER + head_length + length > flow->path.mtu) {
        finish_head(flow, head, head_length, check, length, exo_checksum(data, length, 0));
        return send_fragments(s, flow, head, head_length, data, length);
    }
    /* RFC 1191 3: DF on what goes out whole, unless the path is at our floor already. */
    uint32_t fragment = flow->keep_whole && flow->path.mtu > 576 ? IP4_DF : 0;
    uint8_t *to = ip4_frame(s, flow, stk_identifier(s, flow), fragment, head_length + length);
    if (to == NULL)
        return EXO_E_FULL;
    finish_head(flow, head, head_length, check, length, exo_copy_checksum(to + head_length, data, length, 0));
    memcpy(to, head, head_length);
    stk_frame_done(s);
    return 0;
}

int32_t stk_ip_send(struct stk *s, const struct stk_flow *flow, uint8_t *head, uint32_t head_length, uint32_t check, const uint8_t *data,
                    uint32_t length)
{
    return flow->family == 4 ? stk_ip4_send(s, flow, head, head_length, check, data, length)
                             : stk_ip6_send(s, flow, head, head_length, check, data, length);
}
