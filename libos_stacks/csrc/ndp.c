/* SPDX-License-Identifier: MIT
 *
 * Neighbour discovery: solicitations and advertisements both ways, router advertisements as far as a default router and on-link prefixes.
 * Left out on purpose: duplicate address detection and router solicitations (addresses are given by configuration and used at once), address
 * autoconfiguration, redirects.
 * Reference: RFC 4861 6.1.2, 6.3.4, 7.1, 7.2; RFC 4862 5.4.3.
 */
#include "stk_private.h"

enum {
    NDP_RS = 133, NDP_RA = 134, NDP_NS = 135, NDP_NA = 136, NDP_LENGTH = 24, RA_LENGTH = 16, OPTION_SOURCE = 1, OPTION_TARGET = 2,
    OPTION_PREFIX = 3
};
enum { NA_SOLICITED = 0x40, NA_OVERRIDE = 0x20 };

/* RFC 4861 7.1: an option of length 0 or beyond the end spoils the message. 0 where that is so. The MAC address of option `kind` goes to *mac. */
static int32_t options(const struct stk_packet *p, uint32_t from, uint32_t kind, const uint8_t **mac)
{
    *mac = NULL;
    for (uint32_t at = from; at < p->length;) {
        const uint8_t *option = p->payload + at;
        if (at + 2 > p->length || option[1] == 0 || at + option[1] * 8u > p->length)
            return 0;
        if (option[0] == kind) {
            if (option[2] & 1)
                return 0; /* a group MAC address is nobody's */
            *mac = option + 2;
        }
        at += option[1] * 8u;
    }
    return 1;
}

/* target, and a link-layer address option with our MAC address. */
static void ndp_send(struct stk *s, struct stk_flow *flow, uint32_t type, uint32_t flags, const uint8_t *target, uint32_t option)
{
    uint8_t message[32] = {(uint8_t)type};
    put32(message + 4, flags << 24);
    memcpy(message + 8, target, 16);
    message[24] = (uint8_t)option;
    message[25] = 1;
    memcpy(message + 26, s->config.mac, 6);
    if (stk_ip6_send(s, flow, message, sizeof message, 2, message, 0) == 0)
        s->counters.ndp_out++;
}

/* RFC 4861 7.2.2: to the solicited-node group, or to the neighbour itself when verifying it. */
void stk_ndp_solicit(struct stk *s, const struct stk_neighbour *n, int32_t unicast)
{
    static const uint8_t solicited[13] = {0xff, 2, [11] = 1, [12] = 0xff};
    struct stk_flow flow = {.family = 6, .protocol = STK_P_ICMP6, .hop_limit = 255, .path = {.mtu = s->config.mtu, .socket = -1}};
    memcpy(flow.source, n->solicit_from, 16);
    memcpy(flow.destination, n->address, 16);
    memcpy(flow.path.local_mac, s->config.mac, 6);
    if (unicast) {
        memcpy(flow.path.mac, n->mac, 6);
    } else {
        memcpy(flow.destination, solicited, 13);
        memset(flow.path.mac, 0x33, 2);
        memcpy(flow.path.mac + 2, flow.destination + 12, 4);
    }
    ndp_send(s, &flow, NDP_NS, 0, n->address, OPTION_SOURCE);
}

static void learn_stale(struct stk *s, const struct stk_packet *p, const uint8_t *mac)
{
    if (s->config.any_address) {
        stk_route_learn(s, p); /* answered by turning the frame round */
        return;
    }
    struct stk_neighbour *n = stk_neighbour_find(s, 6, p->source);
    if (n == NULL)
        n = stk_neighbour_make(s, 6, p->source);
    if (n->state == STK_N_INCOMPLETE || memcmp(n->mac, mac, 6) != 0)
        stk_neighbour_learn(s, n, mac, STK_N_STALE);
}

static int32_t solicitation(struct stk *s, struct stk_packet *p)
{
    static const uint8_t solicited[13] = {0xff, 2, [11] = 1, [12] = 0xff};
    static const uint8_t all_nodes[16] = {0xff, 2, [15] = 1};
    const uint8_t *target = p->payload + 8, *mac;
    int32_t unspecified = zero16(p->source);
    if (p->length < NDP_LENGTH || !stk_unicast(6, target) || !options(p, NDP_LENGTH, OPTION_SOURCE, &mac))
        return EXO_R_STACK_NDP_HEADER;
    if (unspecified && (mac != NULL || memcmp(p->destination, solicited, 13) != 0))
        return EXO_R_STACK_NDP_HEADER; /* RFC 4861 7.1.1 */
    if (!stk_own(s, 6, target) && (!s->config.any_address || unspecified))
        return EXO_R_STACK_OTHERHOST;
    struct stk_flow flow;
    if (mac != NULL)
        learn_stale(s, p, mac);
    if (unspecified) { /* RFC 4862 5.4.3: somebody tries our address; he hears that it is taken */
        s->counters.address_conflicts++;
        memset(&flow, 0, sizeof flow);
        flow.family = 6;
        flow.protocol = STK_P_ICMP6;
        flow.path.socket = -1;
        memcpy(flow.destination, all_nodes, 16);
        memcpy(flow.source, target, 16);
        if (stk_route(s, &flow) != 0)
            return EXO_R_DELIVERED;
    } else {
        memcpy(p->destination, target, 16); /* answered from the target, whatever the solicitation was sent to */
        p->group = 0;
        if (stk_route_back(s, p, &flow, STK_P_ICMP6) != 0)
            return EXO_R_DELIVERED;
    }
    flow.hop_limit = 255;
    ndp_send(s, &flow, NDP_NA, (unspecified ? 0 : NA_SOLICITED) | NA_OVERRIDE, target, OPTION_TARGET);
    return EXO_R_DELIVERED;
}

/* RFC 4861 7.2.5. The router flag is not kept. */
static int32_t advertisement(struct stk *s, struct stk_packet *p)
{
    const uint8_t *target = p->payload + 8, *mac;
    if (p->length < NDP_LENGTH || !stk_unicast(6, target) || !options(p, NDP_LENGTH, OPTION_TARGET, &mac))
        return EXO_R_STACK_NDP_HEADER;
    uint32_t solicited = p->payload[4] & NA_SOLICITED, override = p->payload[4] & NA_OVERRIDE;
    if (p->group && solicited)
        return EXO_R_STACK_NDP_HEADER; /* RFC 4861 7.1.2 */
    if (stk_own(s, 6, target)) {
        s->counters.address_conflicts++;
        return EXO_R_STACK_REFUSED;
    }
    struct stk_neighbour *n = stk_neighbour_find(s, 6, target);
    if (n == NULL || n->state == STK_N_PERMANENT)
        return EXO_R_STACK_OTHERHOST;
    if (n->state == STK_N_INCOMPLETE) {
        if (mac == NULL)
            return EXO_R_STACK_OTHERHOST;
        stk_neighbour_learn(s, n, mac, solicited ? STK_N_REACHABLE : STK_N_STALE);
        return EXO_R_DELIVERED;
    }
    int32_t other = mac != NULL && memcmp(mac, n->mac, 6) != 0;
    if (!override && other) {
        if (n->state == STK_N_REACHABLE)
            n->state = STK_N_STALE;
        return EXO_R_DELIVERED;
    }
    if (solicited || other) {
        uint8_t known[6];
        memcpy(known, mac != NULL ? mac : n->mac, 6);
        stk_neighbour_learn(s, n, known, solicited ? STK_N_REACHABLE : STK_N_STALE);
    }
    return EXO_R_DELIVERED;
}

/* RFC 4861 6.3.4: a prefix that is on-link; 4.6.2 has the layout. */
static void prefixes(struct stk *s, const struct stk_packet *p)
{
    for (uint32_t at = RA_LENGTH; at < p->length; at += p->payload[at + 1] * 8u) {
        const uint8_t *option = p->payload + at;
        if (option[0] != OPTION_PREFIX || option[1] != 4 || option[2] > 128 || !(option[3] & 0x80))
            continue;
        if (option[16] == 0xff || (option[16] == 0xfe && (option[17] & 0xc0) == 0x80))
            continue;
        uint32_t lifetime = be32(option + 4);
        stk_prefix_add(s, option + 16, option[2], lifetime == 0xffffffff ? STK_NEVER : s->now + lifetime * STK_SECOND);
    }
}

/* One default router is kept: the first, until its lifetime ends or it says that it is none. */
static int32_t router_advertisement(struct stk *s, struct stk_packet *p)
{
    const uint8_t *mac;
    if (p->length < RA_LENGTH || p->source[0] != 0xfe || (p->source[1] & 0xc0) != 0x80 || !options(p, RA_LENGTH, OPTION_SOURCE, &mac))
        return EXO_R_STACK_NDP_HEADER; /* RFC 4861 6.1.2 */
    uint64_t until = s->now + be16(p->payload + 6) * STK_SECOND;
    if (s->router6_until <= s->now || same16(s->router6, p->source)) {
        memcpy(s->router6, p->source, 16);
        s->router6_until = until;
    }
    if (mac != NULL)
        learn_stale(s, p, mac);
    prefixes(s, p);
    return EXO_R_DELIVERED;
}

/* RFC 4861 6.1, 7.1: hop limit 255 proves that the sender is on this link. The checksum is verified already. */
int32_t stk_ndp_input(struct stk *s, struct stk_packet *p)
{
    s->counters.ndp_in++;
    if (p->hop_limit != 255 || p->payload[1] != 0 || p->fragmented) /* RFC 6980: never in fragments */
        return EXO_R_STACK_NDP_HEADER;
    switch (p->payload[0]) {
    case NDP_NS:
        return solicitation(s, p);
    case NDP_NA:
        return advertisement(s, p);
    case NDP_RA:
        return router_advertisement(s, p);
    case NDP_RS:
        return EXO_R_STACK_UNHANDLED_PROTO; /* RFC 4861 6.2.6: a host discards it */
    default:
        return EXO_R_STACK_REFUSED; /* redirects: as in icmp.c */
    }
}
