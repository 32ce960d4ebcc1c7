/* SPDX-License-Identifier: MIT
 *
 * IPv4, both ways. Input: length, checksum, fields, options (ip4_options.c), reassembly, protocol. Output: one datagram, whole or in fragments.
 * Reference: RFC 791, RFC 1122 3.2.1, RFC 1191 (DF), RFC 6864 (identification).
 */
#include "stk_private.h"

enum { IP4_DF = 0x4000, IP4_MF = 0x2000, IP4_OFFSET = 0x1fff };

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
    if (p->length < STK_IP4)
        return short_reason(p);
    uint32_t header = (ip[0] & 15) * 4u, total = be16(ip + 2);
    if (ip[0] >> 4 != 4 || header < STK_IP4 || total < header)
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
    if (!stk_source_valid(s, p) || (!s->config.any_address && stk_broadcast4(s, p->source)))
        return EXO_R_STACK_IP_INVALID_SOURCE;
    if (!for_us(s, p))
        return EXO_R_STACK_OTHERHOST;
    if (header > STK_IP4) {
        int32_t reason = stk_ip4_options_check(s, p, header);
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

/* One frame's IP header with `options` bytes of the flow's options; what follows it is the caller's. */
static uint8_t *ip4_frame(struct stk *s, const struct stk_flow *flow, uint32_t options, uint32_t id, uint32_t fragment, uint32_t length)
{
    uint32_t header = STK_IP4 + options;
    uint8_t *ip = stk_frame(s, &flow->path, STK_ETHER_IP4, header + length);
    if (ip == NULL)
        return NULL;
    ip[0] = (uint8_t)(0x40 | header / 4);
    ip[1] = 0;
    put16(ip + 2, header + length);
    put16(ip + 4, id);
    put16(ip + 6, fragment);
    ip[8] = flow->hop_limit;
    ip[9] = flow->protocol;
    put16(ip + 10, 0);
    memcpy(ip + 12, flow->source, 4);
    memcpy(ip + 16, flow->destination, 4);
    memcpy(ip + STK_IP4, flow->options, options);
    put_checksum(ip + 10, exo_checksum(ip, header, 0));
    return ip + header;
}

/* RFC 791 3.1: record route and timestamp, all that a flow can have, are in the first fragment only. */
static int32_t send_fragments(struct stk *s, const struct stk_flow *flow, const uint8_t *head, uint32_t head_length, const uint8_t *data,
                              uint32_t length)
{
    uint32_t all = head_length + length, id = stk_identifier(s, flow), n;
    for (uint32_t offset = 0; offset < all; offset += n) {
        uint32_t options = offset == 0 ? flow->options_length : 0, room = (flow->path.mtu - STK_IP4 - options) & ~7u;
        n = all - offset > room ? room : all - offset;
        uint8_t *to = ip4_frame(s, flow, options, id, offset / 8 | (offset + n < all ? IP4_MF : 0), n);
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
    if (STK_IP4 + flow->options_length + head_length + length > flow->path.mtu) {
        finish_head(flow, head, head_length, check, length, exo_checksum(data, length, 0));
        return send_fragments(s, flow, head, head_length, data, length);
    }
    /* RFC 1191 3: DF on what goes out whole, unless the path is at our floor already. */
    uint32_t fragment = flow->keep_whole && flow->path.mtu > 576 ? IP4_DF : 0;
    uint8_t *to = ip4_frame(s, flow, flow->options_length, stk_identifier(s, flow), fragment, head_length + length);
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
