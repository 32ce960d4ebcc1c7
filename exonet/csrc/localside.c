/* SPDX-License-Identifier: MIT
 *
 * The local sides of an environment as boxes (R11), in a demux per port that its frames are asked of before they leave. A
 * box holds every value that a side compares with: source MAC, source address, protocol, source port or ICMP identifier, the ARP
 * sender's address, the target of neighbour discovery. It is said over a frame without tags and extension headers: template.c
 * takes them off first, and sees to what no box can say. RFC 826, 5227, 4861, 3590, 2710, 3810.
 */
#include "localside.h"
#include "machine_private.h"

enum { MAC_AT = 6, TYPE_AT = 12, IP_AT = 14, PROTOCOL4_AT = 23, SOURCE4_AT = 26, PROTOCOL6_AT = 20, SOURCE6_AT = 22, L4_AT = 54 };
enum { ICMP6_TARGET_AT = L4_AT + 8, ARP_OPERATION_AT = 20, ARP_SENDER_AT = 28, ARP_TARGET_AT = 38, ARP_END = 42 };

_Static_assert(sizeof ((struct exo_env *)0)->side == EXO_MAX_PORTS * sizeof(struct exo_demux *), "a demux per port");

static void atom(struct exo_conjunct *box, uint32_t base, uint32_t offset, uint32_t mask, uint32_t value)
{
    if (mask)
        box->atom[box->atoms++] = (struct exo_atom){(uint16_t)base, (uint16_t)offset, mask, value & mask};
}

static void byte(struct exo_conjunct *box, uint32_t base, uint32_t offset, uint8_t mask, uint8_t value)
{
    atom(box, base, offset, (uint32_t)mask << 24, (uint32_t)value << 24);
}

static void half(struct exo_conjunct *box, uint32_t offset, uint32_t value)
{
    atom(box, EXO_BASE_FRAME, offset, 0xffff0000, value << 16);
}

/* The first `bits` of an address. */
static void prefix(struct exo_conjunct *box, uint32_t offset, const uint8_t *address, uint32_t bits)
{
    for (uint32_t at = 0; bits; at += 4) {
        uint32_t here = bits < 32 ? bits : 32;
        atom(box, EXO_BASE_FRAME, offset + at, 0xffffffff << (32 - here), exo_be32(address + at));
        bits -= here;
    }
}

/* From the side's station, of this ethertype (0: any). */
static struct exo_conjunct box_of(const struct exo_local *local, enum side left, uint32_t ethertype)
{
    static const uint8_t every_station[6];
    struct exo_conjunct box = {.binding = left, .breadth = left};
    if (memcmp(local->mac, every_station, 6) != 0) {
        atom(&box, EXO_BASE_FRAME, MAC_AT, 0xffffffff, exo_be32(local->mac));
        half(&box, MAC_AT + 4, exo_be16(local->mac + 4));
    }
    if (ethertype)
        half(&box, TYPE_AT, ethertype);
    return box;
}

static struct exo_conjunct ip_box(const struct exo_local *local, enum side left)
{
    struct exo_conjunct box = box_of(local, left, local->family == 4 ? 0x0800 : 0x86dd);
    prefix(&box, local->family == 4 ? SOURCE4_AT : SOURCE6_AT, local->address, local->prefix);
    return box;
}

static void protocol(const struct exo_local *local, struct exo_conjunct *box, uint8_t number)
{
    byte(box, EXO_BASE_FRAME, local->family == 4 ? PROTOCOL4_AT : PROTOCOL6_AT, 0xff, number);
}

static int32_t every_port(struct exo_demux *demux, const struct exo_local *local)
{
    struct exo_conjunct box = ip_box(local, SIDE_WHOLE);
    if (local->protocol)
        protocol(local, &box, local->protocol);
    return exo_demux_insert(demux, &box);
}

/* One protocol whose 16 bits at `offset` are the port; where mask is not 0 the first byte behind the IP header is a type of message. */
static int32_t ports(struct exo_demux *demux, const struct exo_local *local, uint8_t number, uint32_t offset, uint8_t mask, uint8_t type)
{
    struct exo_conjunct box = ip_box(local, SIDE_PORTS);
    uint32_t base = EXO_BASE_FRAME, start = L4_AT;
    if (local->protocol && local->protocol != number)
        return 0;
    protocol(local, &box, number);
    if (local->family == 4) {
        half(&box, 20, 0);   /* no later fragment: it has no port, so only who owns them all may send it */
        box.atom[box.atoms - 1].mask = 0x1fff0000;
        base = EXO_BASE_IP4;
        start = 0;
        box.ip4_bytes = offset + 2;
    }
    byte(&box, base, start, mask, type);
    if (local->port_low == local->port_high)
        atom(&box, base, start + offset, 0xffff0000, (uint32_t)local->port_low << 16);
    else
        box.interval = (struct exo_interval){(uint16_t)base, (uint16_t)(start + offset), 2, local->port_low, local->port_high};
    return exo_demux_insert(demux, &box);
}

/* Source port of TCP, UDP, UDP-Lite, SCTP, DCCP; identifier of an ICMP echo: other messages need every port. */
static int32_t some_ports(struct exo_demux *demux, const struct exo_local *local)
{
    static const uint8_t with_ports[] = {6, 17, 132, 33, 136};
    int32_t rc = 0;
    for (uint32_t i = 0; !rc && i < sizeof with_ports; i++)
        rc = ports(demux, local, with_ports[i], 0, 0, 0);
    if (!rc)
        rc = ports(demux, local, 1, 4, 0xf7, 0);       /* types 0 and 8 */
    return rc ? rc : ports(demux, local, 58, 4, 0xfe, 128);   /* 128 and 129 */
}

static int32_t arp(struct exo_demux *demux, const struct exo_local *local)
{
    struct exo_conjunct box = box_of(local, SIDE_ARP, 0x0806);
    atom(&box, EXO_BASE_FRAME, IP_AT, 0xffffffff, 0x00010800);
    half(&box, IP_AT + 4, 0x0604);
    box.frame_bytes = ARP_END;
    struct exo_conjunct probe = box;   /* RFC 5227: it has no sender address yet */
    prefix(&box, ARP_SENDER_AT, local->address, local->prefix);
    half(&probe, ARP_OPERATION_AT, 1);
    atom(&probe, EXO_BASE_FRAME, ARP_SENDER_AT, 0xffffffff, 0);
    prefix(&probe, ARP_TARGET_AT, local->address, local->prefix);
    int32_t rc = exo_demux_insert(demux, &box);
    return rc ? rc : exo_demux_insert(demux, &probe);
}

/* Messages of ICMPv6 whose type is `type` under `mask`, their target the side's own where that is asked. */
static int32_t message(struct exo_demux *demux, const struct exo_local *local, enum side left, uint8_t mask, uint8_t type, int own_target)
{
    static const uint8_t unspecified[16];
    struct exo_conjunct box = left == SIDE_DISCOVERY ? ip_box(local, left) : box_of(local, left, 0x86dd);
    if (left == SIDE_UNSPECIFIED)
        prefix(&box, SOURCE6_AT, unspecified, 128);
    protocol(local, &box, 58);
    byte(&box, EXO_BASE_FRAME, L4_AT, mask, type);
    if (own_target)
        prefix(&box, ICMP6_TARGET_AT, local->address, local->prefix);
    return exo_demux_insert(demux, &box);
}

/* No router's message is among them. From :: a solicitation is duplicate address detection of an address of ours, and RFC 3590 lets
 * a listener report for it come from there. None of these has a port: who owns but some may send them too. */
static int32_t discovery(struct exo_demux *demux, const struct exo_local *local)
{
    static const struct { uint8_t left, mask, type, own_target; } may[] = {
        {SIDE_DISCOVERY, 0xfd, 133, 0},     /* router and neighbour solicitation, 133 and 135 */
        {SIDE_DISCOVERY, 0xff, 136, 1},
        {SIDE_DISCOVERY, 0xff, 131, 0}, {SIDE_DISCOVERY, 0xff, 143, 0},
        {SIDE_UNSPECIFIED, 0xff, 133, 0}, {SIDE_UNSPECIFIED, 0xff, 135, 1},
        {SIDE_UNSPECIFIED, 0xff, 131, 0}, {SIDE_UNSPECIFIED, 0xff, 143, 0},
    };
    int32_t rc = 0;
    for (uint32_t i = 0; !rc && i < sizeof may / sizeof *may; i++)
        rc = message(demux, local, may[i].left, may[i].mask, may[i].type, may[i].own_target);
    return rc;
}

static int32_t add(struct exo_demux *demux, const struct exo_local *local)
{
    struct exo_conjunct all = {.binding = SIDE_FREE, .breadth = SIDE_FREE};
    if (local->any)
        return exo_demux_insert(demux, &all);
    if (!local->family) {
        struct exo_conjunct station = box_of(local, SIDE_FREE, local->ethertype);
        return exo_demux_insert(demux, &station);
    }
    if ((local->family != 4 && local->family != 6) || local->prefix > (local->family == 4 ? 32 : 128))
        return EXO_E_INVALID;
    int32_t rc = local->port_low == 0 && local->port_high == 65535 ? every_port(demux, local) : some_ports(demux, local);
    if (rc)
        return rc;
    if (local->family == 4)
        return arp(demux, local);
    return !local->protocol || local->protocol == 58 ? discovery(demux, local) : 0;
}

static void drop(struct exo_demux **sides)
{
    for (uint32_t i = 0; i < EXO_MAX_PORTS; i++)
        if (sides[i])
            exo_demux_free(sides[i]);
}

int32_t exo_env_locals(struct exo_env *env, const struct exo_local *locals, uint32_t n, uint64_t seed)
{
    struct exo_demux *sides[EXO_MAX_PORTS] = {0};
    int32_t rc = n > EXO_MAX_LOCALS ? EXO_E_INVALID : 0;
    for (uint32_t i = 0; !rc && i < n; i++) {
        uint32_t port = locals[i].port;
        if (port >= EXO_MAX_PORTS)
            rc = EXO_E_INVALID;
        else if (!sides[port] && !(sides[port] = exo_demux_new(seed + port)))
            rc = EXO_E_MEMORY;
        else
            rc = add(sides[port], &locals[i]);
    }
    drop(rc ? sides : env->side);
    if (rc)
        return rc;
    memcpy(env->side, sides, sizeof sides);
    env->locals = n;
    return 0;
}
