/* SPDX-License-Identifier: MIT
 *
 * The transmit template: does a frame carry the sender's own local side (SEMANTICS R11)? Source MAC, source address, protocol,
 * source port or ICMP identifier, ARP sender fields, NDP source and target link-layer options. Works on the kernel's copy, which no
 * LibOS can change. Reads nothing past frame->len, nor past the packet's own length. RFC 826, 791, 8200, 4861.
 */
#include "machine_private.h"

struct side {
    const uint8_t *frame;
    uint32_t length;
    uint16_t type;
    uint32_t at;             /* of the network header */
};

static int address_in(const struct exo_local *local, const uint8_t *address)
{
    uint32_t whole = local->prefix / 8, rest = local->prefix % 8;
    if (memcmp(local->address, address, whole) != 0)
        return 0;
    return !rest || !((local->address[whole] ^ address[whole]) & (0xff00 >> rest));
}

static int all_ports(const struct exo_local *local)
{
    return local->port_low == 0 && local->port_high == 65535;
}

/* Source port of TCP, UDP, UDP-Lite, SCTP, DCCP; identifier of an ICMP echo; other messages need the whole range. */
static int port_in(const struct exo_local *local, uint8_t protocol, const uint8_t *l4, uint32_t length)
{
    if (all_ports(local))
        return 1;
    uint16_t port;
    if (protocol == 6 || protocol == 17 || protocol == 132 || protocol == 33 || protocol == 136) {
        if (length < 2)
            return 0;
        port = exo_be16(l4);
    } else if ((protocol == 1 && length >= 6 && (l4[0] == 0 || l4[0] == 8)) ||
               (protocol == 58 && length >= 6 && (l4[0] == 128 || l4[0] == 129))) {
        port = exo_be16(l4 + 4);
    } else {
        return 0;
    }
    return port >= local->port_low && port <= local->port_high;
}

static int arp_allowed(const struct exo_local *local, const struct side *s)
{
    static const uint8_t probe[4];   /* RFC 5227: a probe has no sender address yet */
    const uint8_t *a = s->frame + s->at;
    if (local->family != 4 || s->length < s->at + 28 || exo_be16(a) != 1 || exo_be16(a + 2) != 0x0800 || a[4] != 6 || a[5] != 4)
        return 0;
    if (memcmp(a + 8, local->mac, 6) != 0)
        return 0;
    return address_in(local, a + 14) || (memcmp(a + 14, probe, 4) == 0 && exo_be16(a + 6) == 1 && address_in(local, a + 24));
}

static int ip4_allowed(const struct exo_local *local, const struct side *s)
{
    const uint8_t *ip = s->frame + s->at;
    if (local->family != 4 || s->length < s->at + 20 || ip[0] >> 4 != 4)
        return 0;
    uint32_t header = 4u * (ip[0] & 15), total = exo_be16(ip + 2);
    if (header < 20 || total < header || s->length < s->at + total || !address_in(local, ip + 12))
        return 0;
    if (local->protocol && local->protocol != ip[9])
        return 0;
    if (exo_be16(ip + 6) & 0x1fff)   /* no port in a later fragment: only who owns them all may send it */
        return all_ports(local);
    return port_in(local, ip[9], ip + header, total - header);
}

/* Link-layer address options of neighbour discovery must name the sender's own MAC; a malformed list is refused. */
static int ndp_options_own(const struct exo_local *local, const uint8_t *options, uint32_t length)
{
    while (length) {
        if (length < 8 || !options[1] || 8u * options[1] > length)
            return 0;
        if ((options[0] == 1 || options[0] == 2) && memcmp(options + 2, local->mac, 6) != 0)
            return 0;
        length -= 8u * options[1];
        options += 8u * options[1];
    }
    return 1;
}

static int ndp_allowed(const struct exo_local *local, const uint8_t *icmp, uint32_t length, int unspecified)
{
    switch (icmp[0]) {
    case 133:   /* router solicitation */
        return length >= 8 && ndp_options_own(local, icmp + 8, length - 8);
    case 135:   /* neighbour solicitation; from :: it is duplicate address detection of an address of ours */
        return length >= 24 && (!unspecified || address_in(local, icmp + 8)) && ndp_options_own(local, icmp + 24, length - 24);
    case 136:   /* neighbour advertisement: the target must be ours */
        return length >= 24 && !unspecified && address_in(local, icmp + 8) && ndp_options_own(local, icmp + 24, length - 24);
    case 134: case 137:   /* router advertisement, redirect: no LibOS is a router */
        return 0;
    default:
        return 1;
    }
}

/* The upper-layer header behind extension headers, at most eight of them: its protocol, or -1. *later: a later fragment. */
static int upper_layer(const uint8_t *ip, uint32_t length, uint32_t *offset, int *later)
{
    uint8_t next = ip[6];
    uint32_t at = 40;
    for (int i = 0; i < 8; i++) {
        if (next != 0 && next != 43 && next != 44 && next != 60 && next != 51) {
            *offset = at;
            return next;
        }
        if (at + 8 > length)
            return -1;
        uint32_t size = next == 44 ? 8 : next == 51 ? 4u * (ip[at + 1] + 2u) : 8u * (ip[at + 1] + 1u);
        if (next == 44 && exo_be16(ip + at + 2) & 0xfff8) {
            *later = 1;
            *offset = at + 8;
            return ip[at];
        }
        next = ip[at];
        at += size;
        if (at > length)
            return -1;
    }
    return -1;
}

static int ip6_allowed(const struct exo_local *local, const struct side *s)
{
    static const uint8_t unspecified[16];
    const uint8_t *ip = s->frame + s->at;
    if (local->family != 6 || s->length < s->at + 40 || ip[0] >> 4 != 6)
        return 0;
    uint32_t length = 40u + exo_be16(ip + 4), offset = 0;
    if (s->length < s->at + length)
        return 0;
    int later = 0, protocol = upper_layer(ip, length, &offset, &later);
    if (protocol < 0 || (local->protocol && local->protocol != protocol))
        return 0;
    int none = memcmp(ip + 8, unspecified, 16) == 0;
    const uint8_t *l4 = ip + offset;
    int discovery = protocol == 58 && !later && length >= offset + 8 && l4[0] >= 133 && l4[0] <= 137;
    /* RFC 3590: a listener report for DAD may come from ::, so may a neighbour or router solicitation; nothing else may */
    int report = protocol == 58 && !later && length >= offset + 8 && (l4[0] == 143 || l4[0] == 131);
    if (none ? !(discovery || report) : !address_in(local, ip + 8))
        return 0;
    if (discovery)
        return ndp_allowed(local, l4, length - offset, none);
    if (later)
        return all_ports(local);
    return report || port_in(local, (uint8_t)protocol, l4, length - offset);
}

static int allowed(const struct exo_local *local, const struct side *s)
{
    static const uint8_t every_station[6];
    struct exo_local as_sent;
    if (local->any)
        return 1;
    if (memcmp(local->mac, every_station, 6) == 0) {
        as_sent = *local;   /* whichever it is, the rest of the frame must say the same */
        memcpy(as_sent.mac, s->frame + 6, 6);
        local = &as_sent;
    }
    if (memcmp(s->frame + 6, local->mac, 6) != 0)
        return 0;
    if (local->family == 0)
        return !local->ethertype || local->ethertype == s->type;
    switch (s->type) {
    case 0x0806: return arp_allowed(local, s);
    case 0x0800: return ip4_allowed(local, s);
    case 0x86dd: return ip6_allowed(local, s);
    default: return 0;
    }
}

int32_t exo_transmit_check(const struct exo_env *env, const struct exo_frame *frame)
{
    struct side s = {.frame = frame->data, .length = frame->len, .at = 14};
    if (frame->len < 14)
        return EXO_R_TRANSMIT_BAD_DESCRIPTOR;
    s.type = exo_be16(frame->data + 12);
    for (int tags = 0; tags < 2 && (s.type == 0x8100 || s.type == 0x88a8) && s.length >= s.at + 4; tags++) {
        s.type = exo_be16(frame->data + s.at + 2);
        s.at += 4;
    }
    int granted = 0;
    for (uint32_t i = 0; i < env->locals; i++) {
        if (env->local[i].port != frame->port)
            continue;
        granted = 1;
        if (allowed(&env->local[i], &s))
            return 0;
    }
    return granted ? EXO_R_TRANSMIT_SPOOFED : EXO_R_TRANSMIT_NOT_GRANTED;
}
