/* SPDX-License-Identifier: MIT
 *
 * What a replay may change in a frame: MACs, the outer VLAN tag, IP addresses (IPv4, IPv6 and in ARP), ports, time to live. Checksums
 * are carried along by the difference, so a right one stays right, a wrong one stays as wrong, and a packet that a snaplen or
 * fragmentation cut needs no bytes that are not there. Or, asked for, all are computed anew. A field is touched only when
 * it lies inside both the captured bytes and the packet's own length. Quoted packets in ICMP errors are left as they are.
 * Reference: RFC 1624 equation 3; RFC 768 (zero is no checksum, and is sent as 0xffff).
 */
#include "replay_private.h"

enum { PROTO_ICMP = 1, PROTO_TCP = 6, PROTO_UDP = 17, PROTO_ICMP6 = 58, NO_PROTO = 256 };

/* One IP packet of the frame, as far as it parses. */
struct packet {
    uint8_t *ip;
    uint8_t *end;                    /* of the packet's bytes that are there */
    uint8_t *l4;                     /* NULL: none, or a later fragment */
    uint32_t proto;                  /* NO_PROTO: unknown */
    uint32_t l4_len;                 /* as the headers say */
    bool ip6;
    bool fragment;
    bool routed;                     /* IPv6: the checksum is over the routing header's last address, not this destination */
    uint32_t ip_delta;               /* what the checksums must follow: sums of ~old + new */
    uint32_t pseudo_delta;
    uint32_t l4_delta;
};

static uint32_t word_delta(const uint8_t *old, const uint8_t *new, uint32_t bytes)
{
    uint32_t delta = 0;
    for (uint32_t i = 0; i < bytes; i += 2) {
        uint16_t was = exo_be16(old + i), is = exo_be16(new + i);
        if (was != is)
            delta += (uint16_t)~was + is;
    }
    return delta;
}

static void follow(uint8_t *field, uint32_t delta, bool udp)
{
    uint16_t was = exo_be16(field);
    if (delta == 0 || (udp && was == 0))
        return;
    uint32_t sum = (uint16_t)~was + (delta & 0xffff) + (delta >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    uint16_t is = (uint16_t)~sum;
    exo_put_be16(field, udp && is == 0 ? 0xffff : is);
}

static uint8_t *l4_checksum(const struct packet *p)
{
    if (!p->l4)
        return NULL;
    uint32_t offset = NO_PROTO;
    if (p->proto == PROTO_TCP)
        offset = 16;
    else if (p->proto == PROTO_UDP)
        offset = 6;
    else if (p->proto == PROTO_ICMP || p->proto == PROTO_ICMP6)
        offset = 2;
    return p->end - p->l4 >= (ptrdiff_t)offset + 2 ? p->l4 + offset : NULL;
}

static bool has_prefix(const uint8_t *address, const uint8_t *prefix, uint32_t bits)
{
    uint32_t whole = bits / 8, rest = bits % 8;
    if (memcmp(address, prefix, whole))
        return false;
    return rest == 0 || (uint8_t)((address[whole] ^ prefix[whole]) >> (8 - rest)) == 0;
}

static void put_prefix(uint8_t *address, const uint8_t *prefix, uint32_t bits)
{
    uint32_t whole = bits / 8, rest = bits % 8;
    memcpy(address, prefix, whole);
    if (rest) {
        uint8_t mask = (uint8_t)(0xff00u >> rest);
        address[whole] = (uint8_t)((prefix[whole] & mask) | (address[whole] & ~mask));
    }
}

static bool is_unicast(const uint8_t *address, uint32_t size)
{
    static const uint8_t unspecified[16];
    return address[0] < (size == 4 ? 224 : 255) && memcmp(address, unspecified, size);
}

static void add_shift(uint8_t *address, uint32_t size, uint64_t shift)
{
    for (uint32_t i = size; i-- > 0 && shift;) {
        shift += address[i];
        address[i] = (uint8_t)shift;
        shift >>= 8;
    }
}

/* Maps and shifts one address in place; returns the delta of its words. */
static uint32_t change_address(const struct exo_rewrite *r, uint64_t shift, uint8_t *address, uint32_t size)
{
    uint8_t old[16];
    memcpy(old, address, size);
    for (uint32_t i = 0; i < r->prefix_maps; i++) {
        const struct exo_prefix_map *map = &r->prefix_map[i];
        if (map->family == (size == 4 ? 4 : 6) && has_prefix(address, map->from, map->from_bits)) {
            put_prefix(address, map->to, map->to_bits);
            break;
        }
    }
    if (shift && is_unicast(address, size))
        add_shift(address, size, shift);
    return word_delta(old, address, size);
}

static void change_arp(const struct exo_rewrite *r, uint64_t shift, uint8_t *arp, const uint8_t *end)
{
    if (end - arp < 28 || exo_be16(arp + 2) != 0x0800 || arp[4] != 6 || arp[5] != 4)
        return;
    (void)change_address(r, shift, arp + 14, 4);
    (void)change_address(r, shift, arp + 24, 4);
}

/* Sets end, and l4_len: the packet's own length where it is sane, what is there where it is 0 (segmentation offload). */
static void bound(struct packet *p, uint8_t *frame_end, uint32_t header, uint32_t claimed, bool unknown)
{
    uint32_t there = (uint32_t)(frame_end - p->ip);
    uint32_t total = unknown ? there : claimed;
    p->end = p->ip + (total < there ? total : there);
    p->l4_len = total > header ? total - header : 0;
    if (p->l4 && p->l4 > p->end)
        p->l4 = NULL;
}

static bool parse_ip4(struct packet *p, uint8_t *ip, uint8_t *frame_end)
{
    if (frame_end - ip < 20 || ip[0] >> 4 != 4)
        return false;
    uint32_t header = (ip[0] & 15u) * 4, total = exo_be16(ip + 2), fragment = exo_be16(ip + 6);
    if (header < 20 || frame_end - ip < (ptrdiff_t)header)
        return false;
    *p = (struct packet){.ip = ip, .proto = ip[9], .fragment = (fragment & 0x3fff) != 0};
    p->l4 = fragment & 0x1fff ? NULL : ip + header;
    bound(p, frame_end, header, total, total == 0);
    return true;
}

static bool parse_ip6(struct packet *p, uint8_t *ip, uint8_t *frame_end)
{
    if (frame_end - ip < 40 || ip[0] >> 4 != 6)
        return false;
    *p = (struct packet){.ip = ip, .ip6 = true, .proto = ip[6]};
    uint32_t at = 40, there = (uint32_t)(frame_end - ip), payload = exo_be16(ip + 4);
    bool later = false;
    for (int hops = 0; hops < 16 && at + 8 <= there; hops++) {
        const uint8_t *h = ip + at;
        if (p->proto == 44) {
            p->fragment = (exo_be16(h + 2) & 0xfff9) != 0;
            later = (exo_be16(h + 2) & 0xfff8) != 0;
            at += 8;
        } else if (p->proto == 0 || p->proto == 43 || p->proto == 60) {
            p->routed |= p->proto == 43 && h[3] != 0;
            at += 8 + 8u * h[1];
        } else if (p->proto == 51) {
            at += 8 + 4u * h[1];
        } else {
            break;
        }
        p->proto = h[0];
        if (later)
            break;
    }
    p->l4 = later || at > there ? NULL : ip + at;
    bound(p, frame_end, at, 40 + payload, payload == 0);
    return true;
}

static void change_ports(const struct exo_rewrite *r, struct packet *p)
{
    if (!p->l4 || (p->proto != PROTO_TCP && p->proto != PROTO_UDP) || p->end - p->l4 < 4)
        return;
    uint8_t old[4];
    memcpy(old, p->l4, 4);
    for (uint32_t side = 0; side < 4; side += 2)
        for (uint32_t i = 0; i < r->port_maps; i++) {
            uint16_t port = exo_be16(old + side);
            if (port >= r->port_map[i].first && port <= r->port_map[i].last) {
                exo_put_be16(p->l4 + side, r->port_map[i].to);
                break;
            }
        }
    p->l4_delta += word_delta(old, p->l4, 4);
}

static void change_addresses(const struct exo_rewrite *r, uint64_t shift, struct packet *p)
{
    uint32_t size = p->ip6 ? 16 : 4;
    uint8_t *source = p->ip + (p->ip6 ? 8 : 12);
    uint32_t delta = change_address(r, shift, source, size);
    p->pseudo_delta += delta;
    p->ip_delta += delta;
    delta = change_address(r, shift, source + size, size);
    p->ip_delta += delta;
    if (!p->routed)
        p->pseudo_delta += delta;
}

static void change_ttl(const struct exo_rewrite *r, struct packet *p)
{
    uint8_t old[2];
    memcpy(old, p->ip + 8, 2);
    p->ip[p->ip6 ? 7 : 8] = r->ttl;
    if (!p->ip6)
        p->ip_delta += word_delta(old, p->ip + 8, 2);
}

static void follow_checksums(struct packet *p)
{
    if (!p->ip6)
        follow(p->ip + 10, p->ip_delta, false);
    uint8_t *field = l4_checksum(p);
    if (field)
        follow(field, p->l4_delta + (p->proto == PROTO_ICMP ? 0 : p->pseudo_delta), p->proto == PROTO_UDP);
}

static uint32_t pseudo_sum(const struct packet *p)
{
    return exo_pseudo_sum(p->ip + (p->ip6 ? 8 : 12), p->ip6 ? 32 : 8, p->proto, p->l4_len);
}

static void repair_checksums(struct packet *p)
{
    uint16_t zero = 0, sum;
    if (!p->ip6) {
        memcpy(p->ip + 10, &zero, 2);
        sum = (uint16_t)~exo_checksum(p->ip, (p->ip[0] & 15u) * 4, 0);
        memcpy(p->ip + 10, &sum, 2);
    }
    uint8_t *field = l4_checksum(p);
    if (!field || p->fragment || p->routed || p->end - p->l4 < (ptrdiff_t)p->l4_len)
        return;
    if (p->proto == PROTO_UDP && !p->ip6 && exo_be16(field) == 0)
        return;
    memcpy(field, &zero, 2);
    sum = (uint16_t)~exo_checksum(p->l4, p->l4_len, p->proto == PROTO_ICMP ? 0 : pseudo_sum(p));
    if (p->proto == PROTO_UDP && sum == 0)
        sum = 0xffff;
    memcpy(field, &sum, 2);
}

/* The outer tag: taken away, put in, or its number changed. Returns the new length. */
static uint32_t change_vlan(const struct exo_rewrite *r, struct exo_frame *frame, uint8_t *out, uint32_t len)
{
    bool tagged = len >= 16 && is_vlan(exo_be16(out + 12));
    if ((r->flags & EXO_REWRITE_VLAN_STRIP) && tagged) {
        memmove(out + 12, out + 16, len - 16);
        frame->wire_len -= 4;
        return len - 4;
    }
    if (!(r->flags & EXO_REWRITE_VLAN_SET) || len < 14)
        return len;
    if (tagged) {
        exo_put_be16(out + 14, (uint16_t)((exo_be16(out + 14) & 0xf000) | r->vlan));
        return len;
    }
    memmove(out + 16, out + 12, len - 12);
    exo_put_be16(out + 12, 0x8100);
    exo_put_be16(out + 14, r->vlan);
    frame->wire_len += 4;
    return len + 4;
}

void exo_rewrite_frame(const struct exo_rewrite *r, uint64_t shift, struct exo_frame *frame, uint8_t *out)
{
    uint32_t len = frame->len, at;
    memcpy(out, frame->data, len);
    if ((r->flags & EXO_REWRITE_DESTINATION_MAC) && len >= 6)
        memcpy(out, r->destination_mac, 6);
    if ((r->flags & EXO_REWRITE_SOURCE_MAC) && len >= 12)
        memcpy(out + 6, r->source_mac, 6);
    frame->len = len = change_vlan(r, frame, out, len);
    frame->data = out;
    uint16_t type = ether_payload(out, len, &at);
    struct packet p;
    if (type == 0x0806)
        change_arp(r, shift, out + at, out + len);
    bool ip = (type == 0x0800 && parse_ip4(&p, out + at, out + len)) || (type == 0x86dd && parse_ip6(&p, out + at, out + len));
    if (!ip)
        return;
    change_addresses(r, shift, &p);
    change_ports(r, &p);
    if (r->flags & EXO_REWRITE_TTL)
        change_ttl(r, &p);
    if (r->flags & EXO_REWRITE_CHECKSUMS)
        repair_checksums(&p);
    else
        follow_checksums(&p);
}

int32_t exo_rewrite_check(const struct exo_rewrite *r)
{
    if (r->flags > 63 || r->vlan > 4095 || r->prefix_maps > EXO_MAX_MAPS || r->port_maps > EXO_MAX_MAPS)
        return EXO_E_INVALID;
    for (uint32_t i = 0; i < r->prefix_maps; i++) {
        const struct exo_prefix_map *map = &r->prefix_map[i];
        uint32_t most = map->family == 4 ? 32 : 128;
        if ((map->family != 4 && map->family != 6) || map->from_bits > most || map->to_bits > most)
            return EXO_E_INVALID;
    }
    for (uint32_t i = 0; i < r->port_maps; i++)
        if (r->port_map[i].first > r->port_map[i].last)
            return EXO_E_INVALID;
    return 0;
}
