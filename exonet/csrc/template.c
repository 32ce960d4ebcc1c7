/* SPDX-License-Identifier: MIT
 *
 * The transmit template: does a frame carry the sender's own local side (R11)? A burst of the kernel's copies, which no
 * LibOS can change, is asked of the sender's demux (localside.c) in one call. What no box can say is checked here, of frames that lie
 * in one: lengths that other fields give, addresses that must equal each other, options that are walked. A frame with tags or
 * extension headers is reduced to what it carries and asked alone. Reads nothing past frame->len, nor past the packet's own length.
 * RFC 826, 791, 8200, 4861, 6980, 7112.
 */
#include "localside.h"
#include "machine_private.h"

enum { MOST_REDUCED = 96 };

/* A frame read up to its upper layer. */
struct sent {
    const uint8_t *frame;
    const uint8_t *l4;
    uint32_t l4_bytes;       /* inside the packet; of a later fragment none */
    uint32_t length;
    uint32_t at;             /* of the network header */
    uint16_t type;
    uint16_t protocol;
    uint8_t whole;           /* an IP packet all of which is here, with a chain of headers that ends */
    uint8_t plain;           /* no tag and no extension header: what the boxes are said over */
};

static inline int is_extension(uint8_t next)
{
    return next == 0 || next == 43 || next == 44 || next == 60 || next == 51;
}

static int is_discovery(const struct sent *s)
{
    return s->protocol == 58 && s->l4_bytes >= 8 && s->l4[0] >= 133 && s->l4[0] <= 137;
}

/* The upper-layer header behind extension headers, at most eight of them. 0: there is none, or it is fragmented as it must not be: the
 * first fragment holds the whole chain (RFC 7112) and no neighbour discovery (RFC 6980). So a later one holds none, unless it does
 * not even say what follows its own header. */
static int walk_extensions(struct sent *s, const uint8_t *ip, uint32_t length)
{
    uint8_t next = ip[6];
    uint32_t at = 40;
    int fragment = 0;
    for (int i = 0; i < 8; i++) {
        if (EXO_LIKELY(!is_extension(next))) {
            s->protocol = next;
            s->l4 = ip + at;
            s->l4_bytes = length - at;
            return !fragment || (s->l4_bytes >= 8 && !is_discovery(s));
        }
        s->plain = 0;
        if (at + 8 > length)
            return 0;
        uint32_t size = next == 44 ? 8 : next == 51 ? 4u * (ip[at + 1] + 2u) : 8u * (ip[at + 1] + 1u);
        int later = next == 44 && exo_be16(ip + at + 2) & 0xfff8;
        fragment |= next == 44;
        next = ip[at];
        if (later) {
            s->protocol = next;
            return !is_extension(next);
        }
        at += size;
        if (at > length)
            return 0;
    }
    return 0;
}

/* Is all of an IPv4 packet in these bytes, 20 or more? */
static inline int whole_ip4(const uint8_t *ip, uint32_t bytes)
{
    uint32_t header = 4u * (ip[0] & 15), total = exo_be16(ip + 2);
    return ip[0] >> 4 == 4 && header >= 20 && total >= header && bytes >= total;
}

static void read_ip4(struct sent *s)
{
    const uint8_t *ip = s->frame + s->at;
    if (s->length < s->at + 20 || !whole_ip4(ip, s->length - s->at))
        return;
    s->whole = 1;
    s->protocol = ip[9];
    s->l4_bytes = exo_be16(ip + 2) - 4u * (ip[0] & 15);
}

static void read_ip6(struct sent *s)
{
    const uint8_t *ip = s->frame + s->at;
    if (s->length < s->at + 40 || ip[0] >> 4 != 6)
        return;
    uint32_t length = 40u + exo_be16(ip + 4);
    s->whole = s->length >= s->at + length && walk_extensions(s, ip, length);
}

static struct sent read_frame(const struct exo_frame *frame)
{
    struct sent s = {.frame = frame->data, .length = frame->len, .at = 14, .type = exo_be16(frame->data + 12), .plain = 1};
    for (int tags = 0; tags < 2 && (s.type == 0x8100 || s.type == 0x88a8) && s.length >= s.at + 4; tags++) {
        s.type = exo_be16(frame->data + s.at + 2);
        s.at += 4;
        s.plain = 0;
    }
    if (s.type == 0x0800)
        read_ip4(&s);
    else if (s.type == 0x86dd)
        read_ip6(&s);
    return s;
}

/* The same frame as the boxes are said over it: without tags and extension headers, as far as any box looks. A later fragment of IPv6 is
 * left without a byte behind its header, so that no box with a port takes it. */
static uint32_t reduce(const struct sent *s, uint8_t *to)
{
    uint32_t n = s->length - s->at, most = MOST_REDUCED - 14;
    memcpy(to, s->frame, 12);
    exo_put_be16(to + 12, s->type);
    if (s->type != 0x86dd || !s->whole) {
        n = n < most ? n : most;
        memcpy(to + 14, s->frame + s->at, n);
        return 14 + n;
    }
    n = s->l4_bytes < most - 40 ? s->l4_bytes : most - 40;
    memcpy(to + 14, s->frame + s->at, 40);
    to[20] = (uint8_t)s->protocol;
    if (n)
        memcpy(to + 54, s->l4, n);
    return 54 + n;
}

/* Link-layer address options of neighbour discovery must name the frame's own source; a malformed list is refused. */
static int options_own(const struct sent *s, uint32_t from)
{
    if (s->l4_bytes < from)
        return 0;
    const uint8_t *options = s->l4 + from;
    for (uint32_t left = s->l4_bytes - from; left; left -= 8u * options[1], options += 8u * options[1]) {
        if (left < 8 || !options[1] || 8u * options[1] > left)
            return 0;
        if ((options[0] == 1 || options[0] == 2) && memcmp(options + 2, s->frame + 6, 6) != 0)
            return 0;
    }
    return 1;
}

static int discovery_own(const struct sent *s)
{
    switch (s->l4_bytes < 8 ? 0 : s->l4[0]) {
    case 133: return options_own(s, 8);
    case 135: case 136: return options_own(s, 24);
    case 131: case 143: return 1;
    default: return 0;
    }
}

static int from_nowhere(const struct sent *s)
{
    static const uint8_t unspecified[16];
    return memcmp(s->frame + s->at + 8, unspecified, 16) == 0;
}

/* Where a frame lies in a box: what that leaves to check. */
static inline int holds(uint32_t left, const struct sent *s)
{
    if (left == SIDE_FREE)
        return 1;
    if (left == SIDE_ARP)
        return memcmp(s->frame + 6, s->frame + s->at + 8, 6) == 0;
    if (left >= SIDES || !s->whole)
        return 0;
    if (left == SIDE_UNSPECIFIED)
        return discovery_own(s);
    if (s->type == 0x86dd && from_nowhere(s))
        return 0;
    switch (left) {
    case SIDE_DISCOVERY: return discovery_own(s);
    case SIDE_PORTS: return s->l4_bytes >= (s->protocol == 1 || s->protocol == 58 ? 6 : 2);
    default: return s->type != 0x86dd || !is_discovery(s);
    }
}

/* Every box that the frame lies in, for a frame that is not plain or whose most specific box was not enough. */
static int held_by_any(const struct exo_demux *demux, const struct exo_frame *frame, const struct sent *s)
{
    uint8_t reduced[MOST_REDUCED];
    uint32_t left[SIDES], n;
    struct exo_frame asked = *frame;
    if (!s->plain) {
        asked.len = asked.wire_len = reduce(s, reduced);
        asked.data = reduced;
    }
    n = exo_demux_match_all(demux, &asked, left, SIDES);
    for (uint32_t i = 0; i < n && i < SIDES; i++)
        if (holds(left[i], s))
            return 1;
    return 0;
}

static int is_own(const struct exo_demux *demux, const struct exo_frame *frame, uint32_t left)
{
    struct sent s = read_frame(frame);
    return (s.plain && holds(left, &s)) || held_by_any(demux, frame, &s);
}

/* Most frames: IPv4 from one who owns every port. Nothing but lengths is left, so nothing else is read. */
static inline int is_usual(const struct exo_frame *frame, uint32_t left)
{
    const uint8_t *d = frame->data;
    return left == SIDE_WHOLE && d[12] == 0x08 && d[13] == 0x00 && frame->len >= 34 && whole_ip4(d + 14, frame->len - 14);
}

void exo_transmit_check(const struct exo_env *env, const struct exo_frame *frames, uint32_t n, int32_t *reasons)
{
    uint32_t left[EXO_BURST];
    const struct exo_demux *demux = n && frames->port < EXO_MAX_PORTS ? env->side[frames->port] : NULL;
    if (demux)
        exo_demux_classify(demux, frames, n, left);
    for (uint32_t i = 0; i < n; i++) {
        reasons[i] = frames[i].len < 14 ? EXO_R_TRANSMIT_BAD_DESCRIPTOR : demux ? 0 : EXO_R_TRANSMIT_NOT_GRANTED;
        if (reasons[i])
            continue;
        if (EXO_UNLIKELY(!is_usual(&frames[i], left[i]) && !is_own(demux, &frames[i], left[i])))
            reasons[i] = EXO_R_TRANSMIT_SPOOFED;
    }
}
