/* SPDX-License-Identifier: MIT
 *
 * Which addresses are ours, where a packet goes next, from which address, and how large it may be (the path MTU cache).
 * There is no loopback: what is sent to an own address has no route.
 * Reference: RFC 1122 3.3.1, RFC 4861 5.2, RFC 6724 5, RFC 1191, RFC 8201.
 */
#include "stk_private.h"

#define PATH_LIFETIME (600 * STK_SECOND) /* RFC 1191 6.3, RFC 8201 5.3: ten minutes */
enum { PATH_MIN4 = 576, PATH_MIN6 = 1280 };

int32_t stk_own(const struct stk *s, uint32_t family, const uint8_t *address)
{
    for (uint32_t i = 0; i < s->config.address_count; i++) {
        if (s->config.address[i].family == family && same16(s->config.address[i].bytes, address))
            return 1;
    }
    return 0;
}

int32_t stk_unicast(uint32_t family, const uint8_t *address)
{
    static const uint8_t loopback[16] = {[15] = 1}, mapped[12] = {[10] = 255, [11] = 255};
    if (family == 4)
        return address[0] != 0 && address[0] != 127 && address[0] < 224; /* RFC 1122 3.2.1.3, RFC 1112 4 */
    /* RFC 4291 2.5.2, 2.5.3, 2.7; RFC 4942 2.2: v4-mapped addresses do not belong on a wire. */
    return address[0] != 0xff && !zero16(address) && !same16(address, loopback) && memcmp(address, mapped, 12) != 0;
}

int32_t stk_source_valid(const struct stk *s, const struct stk_packet *p)
{
    if (zero16(p->source))
        return 1;
    if (!stk_unicast(p->family, p->source))
        return 0;
    return s->config.any_address ? !same16(p->source, p->destination) : !stk_own(s, p->family, p->source);
}

static int32_t prefix_match(const uint8_t *a, const uint8_t *b, uint32_t bits)
{
    uint32_t bytes = bits / 8, rest = bits % 8;
    if (memcmp(a, b, bytes) != 0)
        return 0;
    return rest == 0 || ((a[bytes] ^ b[bytes]) >> (8 - rest)) == 0;
}

/* Limited, or directed to a network of ours (RFC 919). A /31 (RFC 3021) and a /32 have none. The old forms with zeros (RFC 1122 3.3.6) are
 * left out on purpose: no sender in use makes them. */
int32_t stk_broadcast4(const struct stk *s, const uint8_t *address)
{
    uint32_t value = be32(address);
    if (value == 0xffffffff)
        return 1;
    for (uint32_t i = 0; i < s->config.address_count; i++) {
        const struct stk_address *own = &s->config.address[i];
        if (own->family != 4 || own->prefix > 30)
            continue;
        uint32_t host = 0xffffffffu >> own->prefix;
        if ((value & host) == host && prefix_match(own->bytes, address, own->prefix))
            return 1;
    }
    return 0;
}

static int32_t on_link(const struct stk *s, uint32_t family, const uint8_t *address)
{
    if (family == 6 && prefix_match(address, (const uint8_t[]){0xfe, 0x80}, 10))
        return 1;
    for (uint32_t i = 0; i < s->config.address_count; i++) {
        const struct stk_address *own = &s->config.address[i];
        if (own->family == family && prefix_match(own->bytes, address, own->prefix))
            return 1;
    }
    for (uint32_t i = 0; family == 6 && i < STK_PREFIXES; i++) {
        const struct stk_prefix *prefix = &s->prefixes[i];
        if (prefix->until > s->now && prefix_match(prefix->address, address, prefix->bits))
            return 1;
    }
    return 0;
}

/* A router advertisement's on-link prefix (RFC 4861 6.3.4). `until` in the past takes it away. */
void stk_prefix_add(struct stk *s, const uint8_t *address, uint32_t bits, uint64_t until)
{
    struct stk_prefix *place = NULL;
    for (uint32_t i = 0; i < STK_PREFIXES; i++) {
        struct stk_prefix *prefix = &s->prefixes[i];
        if (prefix->until > s->now && prefix->bits == bits && prefix_match(prefix->address, address, bits)) {
            prefix->until = until;
            return;
        }
        if (prefix->until <= s->now)
            place = prefix;
    }
    if (place == NULL)
        return; /* a host may bound its list (RFC 4861 6.3.4); a flood of prefixes does not push out good ones */
    memcpy(place->address, address, 16);
    place->bits = bits;
    place->until = until;
}

static const uint8_t *next_hop(const struct stk *s, const struct stk_flow *flow)
{
    if (on_link(s, flow->family, flow->destination))
        return flow->destination;
    const struct stk_address *gateway = flow->family == 4 ? &s->config.gateway4 : &s->config.gateway6;
    if (gateway->family != 0)
        return gateway->bytes;
    return flow->family == 6 && s->router6_until > s->now ? s->router6 : NULL;
}

static uint32_t common_bits(const uint8_t *a, const uint8_t *b, uint32_t size)
{
    for (uint32_t i = 0; i < size; i++) {
        if (a[i] != b[i])
            return i * 8 + (uint32_t)__builtin_clz((uint32_t)(a[i] ^ b[i])) - 24;
    }
    return size * 8;
}

/* RFC 6724 5, rules 2 (scope) and 8 (longest prefix) for IPv6; for IPv4 the address that shares most with the next hop (RFC 1122 3.3.4.3). */
static const struct stk_address *choose_source(const struct stk *s, uint32_t family, const uint8_t *towards)
{
    const struct stk_address *best = NULL;
    uint32_t best_score = 0;
    uint32_t local = family == 6 && ((towards[0] == 0xfe && (towards[1] & 0xc0) == 0x80) || (towards[0] == 0xff && (towards[1] & 15) <= 2));
    for (uint32_t i = 0; i < s->config.address_count; i++) {
        const struct stk_address *own = &s->config.address[i];
        if (own->family != family)
            continue;
        uint32_t own_local = family == 6 && own->bytes[0] == 0xfe && (own->bytes[1] & 0xc0) == 0x80;
        uint32_t score = 1 + common_bits(own->bytes, towards, address_size(family)) + (own_local == local ? 256 : 0);
        if (score > best_score) {
            best = own;
            best_score = score;
        }
    }
    return best;
}

static int32_t source_from(const struct stk *s, struct stk_flow *flow, const uint8_t *towards)
{
    if (!zero16(flow->source))
        return 0;
    const struct stk_address *own = choose_source(s, flow->family, towards);
    if (own == NULL)
        return EXO_E_NOT_FOUND;
    memcpy(flow->source, own->bytes, 16);
    return 0;
}

/* RFC 1112 6.4, RFC 2464 7, RFC 919. */
static int32_t group_mac(const struct stk *s, const struct stk_flow *flow, uint8_t *mac)
{
    const uint8_t *a = flow->destination;
    if (flow->family == 6) {
        if (a[0] != 0xff)
            return 0;
        memset(mac, 0x33, 2);
        memcpy(mac + 2, a + 12, 4);
        return 1;
    }
    if ((a[0] & 0xf0) == 0xe0) {
        memcpy(mac, (const uint8_t[]){1, 0, 0x5e, a[1] & 0x7f, a[2], a[3]}, 6);
        return 1;
    }
    if (!stk_broadcast4(s, a))
        return 0;
    memset(mac, 255, 6);
    return 1;
}

static void path_by(struct stk_path *path, struct stk_neighbour *n, int32_t known)
{
    path->via = known ? NULL : n;
    memcpy(path->mac, n->mac, 6);
}

uint32_t stk_route_port(struct stk *s, const struct stk_flow *flow)
{
    const uint8_t *hop = s->config.any_address ? flow->destination : next_hop(s, flow);
    for (s->port = 0; hop != NULL && s->port < STK_PORTS && s->ports >> s->port != 0; s->port++) {
        const struct stk_neighbour *n = stk_neighbour_find(s, flow->family, hop);
        if (n != NULL && n->state != STK_N_INCOMPLETE)
            return s->port;
    }
    return s->first_port;
}

int32_t stk_route(struct stk *s, struct stk_flow *flow)
{
    struct stk_path *path = &flow->path;
    path->via = NULL;
    path->mtu = stk_path_mtu(s, flow->family, flow->destination, s->now);
    memcpy(path->local_mac, s->config.mac, 6);
    if (group_mac(s, flow, path->mac))
        return source_from(s, flow, flow->destination);
    if (!stk_unicast(flow->family, flow->destination) || stk_own(s, flow->family, flow->destination))
        return EXO_E_NOT_FOUND;
    struct stk_neighbour *n = s->config.any_address ? stk_neighbour_find(s, flow->family, flow->destination) : NULL;
    if (n != NULL && n->state == STK_N_PERMANENT) {
        n->referenced = 1;
        path_by(path, n, 1);
        memcpy(path->local_mac, n->local_mac, 6);
        return source_from(s, flow, flow->destination);
    }
    const uint8_t *hop = next_hop(s, flow);
    if (hop == NULL || source_from(s, flow, flow->family == 4 ? hop : flow->destination) != 0)
        return EXO_E_NOT_FOUND;
    n = stk_neighbour_find(s, flow->family, hop);
    if (n == NULL)
        n = stk_neighbour_make(s, flow->family, hop);
    path_by(path, n, stk_neighbour_use(s, n, flow->source));
    return 0;
}

int32_t stk_route_back(struct stk *s, const struct stk_packet *p, struct stk_flow *flow, uint32_t protocol)
{
    memset(flow, 0, sizeof *flow);
    flow->family = p->family;
    flow->protocol = (uint8_t)protocol;
    flow->hop_limit = STK_HOP_LIMIT;
    flow->path.socket = -1;
    memcpy(flow->destination, p->source, 16);
    if (!p->group)
        memcpy(flow->source, p->destination, 16);
    if (!s->config.any_address)
        return stk_route(s, flow);
    memcpy(flow->path.mac, p->ether + 6, 6);
    memcpy(flow->path.local_mac, p->link_group ? s->config.mac : p->ether, 6);
    flow->path.mtu = stk_path_mtu(s, p->family, p->source, s->now);
    return source_from(s, flow, p->source);
}

void stk_route_learn(struct stk *s, const struct stk_packet *p)
{
    struct stk_neighbour *n = stk_neighbour_find(s, p->family, p->source);
    if (!stk_unicast(p->family, p->source))
        return;
    if (n == NULL)
        n = stk_neighbour_make(s, p->family, p->source);
    n->referenced = 1;
    memcpy(n->local_mac, p->link_group ? s->config.mac : p->ether, 6);
    if (n->state != STK_N_PERMANENT || memcmp(n->mac, p->ether + 6, 6) != 0)
        stk_neighbour_learn(s, n, p->ether + 6, STK_N_PERMANENT);
}

static uint32_t path_slot(const struct stk *s, uint32_t family, const uint8_t *address)
{
    return (uint32_t)stk_hash(s, family, address, 77) % STK_PATHS;
}

uint32_t stk_path_mtu(const struct stk *s, uint32_t family, const uint8_t *address, uint64_t now)
{
    uint8_t whole[16];
    if (s->path_count == 0)
        return s->config.mtu;
    address_set(whole, family, address);
    const struct stk_path_entry *entry = &s->paths[path_slot(s, family, whole)];
    if (entry->family != family || entry->until <= now || !same16(entry->address, whole))
        return s->config.mtu;
    return entry->mtu;
}

/* A "too big" lowers the path's MTU, never raises it, and not below what every path must take: RFC 8201 4 for IPv6; for IPv4 576 rather than
 * RFC 1191 3's 68, as a floor against forged ones - below it DF is left out, so datagrams still pass. */
void stk_path_too_big(struct stk *s, uint32_t family, const uint8_t *address, uint32_t mtu)
{
    uint32_t floor = family == 4 ? PATH_MIN4 : PATH_MIN6;
    if (mtu < floor)
        mtu = floor;
    if (mtu >= stk_path_mtu(s, family, address, s->now))
        return;
    struct stk_path_entry *entry = &s->paths[path_slot(s, family, address)];
    memcpy(entry->address, address, 16);
    entry->family = (uint8_t)family;
    entry->mtu = mtu;
    entry->until = s->now + PATH_LIFETIME;
    s->path_count = 1;
}

/* RFC 7739 5.3: a counter per keyed hash of the flow, so that one peer learns nothing of another's traffic. */
uint32_t stk_identifier(struct stk *s, const struct stk_flow *flow)
{
    return s->identifiers[stk_hash(s, flow->family, flow->destination, flow->protocol) % STK_IDENTIFIERS]++;
}
