/* SPDX-License-Identifier: MIT
 *
 * Segmentation offload: a packet longer than a frame becomes frames of at most `size` bytes of payload, behind headers like its own: lengths,
 * IPv4 identifications, TCP sequence numbers and flags, and checksums are each one's. What names the sender is not touched, so a check of the
 * super-frame holds for all of them (R12). A UDP datagram may become IP fragments instead, as Linux's UFO made them: its checksum is computed,
 * the IPv4 identification is one, options are copied, and DF is cleared.
 * Reference: virtio 1.2, 5.1.6.2 (gso_type, gso_size); RFC 9293 3.1; RFC 3168 6.1.2 (CWR in the first segment alone); RFC 791 3.2, RFC 8200 4.5.
 */
#include "segment.h"

enum { GSO_TCP4 = 1, GSO_TCP6 = 4, GSO_UDP = 5, GSO_ECN = 128 };
enum { TCP = 6, UDP = 17, TCP_FIN = 1, TCP_PSH = 8, TCP_CWR = 128 };
enum { HOP = 0, ROUTING = 43, FRAGMENT = 44, DESTINATION = 60, JUMBO = 0xc2, MOST_HEADERS = 8 };
enum { MORE_FRAGMENTS = 0x2000 };

/* Has a hop-by-hop header of n bytes the jumbo payload option (RFC 2675)? */
static int is_jumbo(const uint8_t *header, uint32_t n)
{
    for (uint32_t at = 2; at + 2 <= n; at += header[at] ? 2u + header[at + 1] : 1)
        if (header[at] == JUMBO)
            return 1;
    return 0;
}

/* Walks the extension headers in n bytes from the IPv6 header on; 0: they lie, or name what is not looked into. Where fragments begin is
 * decided as Linux does: behind hop-by-hop, routing, and what options for a destination stand before the latter. */
static int walk6(struct exo_segments *s, const uint8_t *ip, uint32_t n)
{
    uint32_t at = 40, next = 6, routed = 0, number = 0;
    s->fragmentable = 0;
    for (; ip[next] == HOP || ip[next] == ROUTING || ip[next] == DESTINATION; number++) {
        uint32_t size = at + 8 <= n ? (ip[at + 1] + 1u) * 8 : 0;
        if (!size || at + size > n || number == MOST_HEADERS || (ip[next] == HOP && (at != 40 || is_jumbo(ip + at, size))))
            return 0;
        if (ip[next] == ROUTING && ip[at + 3])
            return 0;
        if (ip[next] == DESTINATION && routed && !s->fragmentable) {
            s->fragmentable = s->l3 + at;
            s->next = s->l3 + next;
        }
        routed |= ip[next] == ROUTING;
        next = at;
        at += size;
    }
    if (!s->fragmentable) {
        s->fragmentable = s->l3 + at;
        s->next = s->l3 + next;
    }
    s->protocol = ip[next];
    s->l4 = s->l3 + at;
    return 1;
}

static int find4(struct exo_segments *s, const uint8_t *ip, uint32_t n)
{
    uint32_t header = n < 20 ? 0 : (ip[0] & 15u) * 4;
    if (header < 20 || ip[0] >> 4 != 4 || header > n || exo_be16(ip + 6) & 0x3fff)
        return 0;
    s->declared = exo_be16(ip + 2);
    s->protocol = ip[9];
    s->l4 = s->fragmentable = s->l3 + header;
    return !s->declared || s->declared >= header;
}

static int find6(struct exo_segments *s, const uint8_t *ip, uint32_t n)
{
    if (n < 40 || ip[0] >> 4 != 6 || !walk6(s, ip, n))
        return 0;
    s->declared = exo_be16(ip + 4) ? exo_be16(ip + 4) + 40u : 0;
    return !s->declared || s->l3 + s->declared >= s->l4;
}

int32_t exo_segments_packet(struct exo_segments *s, const struct exo_frame *frame)
{
    struct exo_l3 l3;
    exo_l3_find(frame, &l3);
    *s = (struct exo_segments){.frame = frame->data, .length = frame->len, .l3 = l3.at, .pppoe = l3.pppoe};
    s->ip4 = l3.type == EXO_ETHER_IP4;
    if (s->ip4 ? !find4(s, l3.data, l3.length) : l3.type != EXO_ETHER_IP6 || !find6(s, l3.data, l3.length))
        return EXO_PACKET_NONE;
    int snapped = s->declared ? s->declared > l3.length : frame->wire_len > frame->len;
    if (s->declared && !snapped)
        s->length = s->l3 + s->declared;
    if (!(s->protocol == TCP || s->protocol == UDP) || s->length < s->l4 + (s->protocol == TCP ? 20 : 8))
        return EXO_PACKET_NONE;
    if (s->protocol == TCP && (exo_segments_tcp_header(s) < 20 || s->length < s->l4 + exo_segments_tcp_header(s)))
        return EXO_PACKET_NONE;
    return snapped ? EXO_PACKET_SNAPPED : EXO_PACKET_WHOLE;
}

uint32_t exo_segments_tcp_header(const struct exo_segments *s)
{
    return (s->frame[s->l4 + 12] >> 4) * 4u;
}

static int32_t plan(struct exo_segments *s, uint32_t cut, uint32_t payload, uint32_t size)
{
    if (s->length <= payload)
        return 0;
    s->cut = cut;
    s->payload = payload;
    s->size = size;
    s->count = (s->length - payload + size - 1) / size;
    return 1;
}

int32_t exo_segments_plan_tcp(struct exo_segments *s, uint32_t size)
{
    return s->protocol == TCP && plan(s, EXO_CUT_TCP, s->l4 + exo_segments_tcp_header(s), size);
}

int32_t exo_segments_find(struct exo_segments *s, const struct exo_frame *frame, const struct exo_transmit *t)
{
    if (exo_segments_packet(s, frame) != EXO_PACKET_WHOLE || s->pppoe || s->declared != frame->len - s->l3)
        return 0;
    uint32_t kind = t->gso_type & ~(uint32_t)GSO_ECN;
    if (!s->ip4 && s->l4 != s->l3 + 40)
        return 0;
    if (kind == (s->ip4 ? GSO_TCP4 : GSO_TCP6))
        return exo_segments_plan_tcp(s, t->gso_size) && s->count <= EXO_MOST_SEGMENTS;
    return kind == GSO_UDP && s->protocol == UDP && plan(s, EXO_CUT_UDP, s->l4 + 8, t->gso_size) && s->count <= EXO_MOST_SEGMENTS;
}

/* The sum over n bytes and the pseudo header of the packet's addresses, as it is stored; the field itself counts as 0. */
static uint16_t transport_sum(const struct exo_segments *s, const uint8_t *ip, const uint8_t *l4, uint32_t n)
{
    uint32_t initial = exo_pseudo_sum(ip + (s->ip4 ? 12 : 8), s->ip4 ? 8 : 32, s->protocol, n);
    uint16_t sum = (uint16_t)~exo_checksum(l4, n, initial);
    return s->protocol == UDP && !sum ? 0xffff : sum;
}

/* The datagram's own checksum: of its bytes with the right length and no checksum, which only the first 8 of them are copied for. */
static void sum_datagram(struct exo_segments *s)
{
    const uint8_t *ip = s->frame + s->l3, *l4 = s->frame + s->l4;
    uint8_t head[8];
    memcpy(head, l4, 4);
    exo_put_be16(head + 4, s->udp_length);
    memset(head + 6, 0, 2);
    uint32_t initial = exo_pseudo_sum(ip + (s->ip4 ? 12 : 8), s->ip4 ? 8 : 32, UDP, s->udp_length);
    uint16_t sum = (uint16_t)~exo_checksum(l4 + 8, s->udp_length - 8u, exo_checksum(head, 8, initial));
    s->udp_sum = sum ? sum : 0xffff;
}

int32_t exo_segments_plan_fragments(struct exo_segments *s, uint32_t mtu, uint32_t identification)
{
    if (s->protocol != UDP)
        return 0;
    uint32_t datagram = s->length - s->l4, said = exo_be16(s->frame + s->l4 + 4), headers = s->fragmentable - s->l3;
    if (said != datagram && said)
        return 0;
    s->udp_length = (uint16_t)datagram;
    s->identification = identification;
    uint32_t whole = s->length - s->l3 <= mtu, extra = s->ip4 || whole ? 0 : 8;
    uint32_t size = whole ? s->length - s->fragmentable : mtu < headers + extra ? 0 : (mtu - headers - extra) & ~7u;
    if (!size || !plan(s, EXO_CUT_FRAGMENTS, s->fragmentable, size))
        return 0;
    s->inserted = extra;
    sum_datagram(s);
    return 1;
}

uint32_t exo_segments_length(const struct exo_segments *s, uint32_t i)
{
    uint32_t left = s->length - s->payload - i * s->size;
    return s->payload + s->inserted + (left < s->size ? left : s->size);
}

static void store_sum(uint8_t *at, uint16_t sum)
{
    memcpy(at, &sum, 2);
}

/* Fragment i has bytes i * size .. of what may be in fragments; the datagram's header, of 8 bytes, is in one of them. */
static void finish_fragment(const struct exo_segments *s, uint32_t i, uint8_t *to)
{
    uint32_t from = i * s->size, more = i + 1 < s->count, header = s->l4 - s->payload;
    if (s->ip4 && s->count > 1)
        exo_put_be16(to + s->l3 + 6, (uint16_t)(from / 8 | (more ? MORE_FRAGMENTS : 0)));
    if (s->inserted) {
        uint8_t *fragment = to + s->payload;
        fragment[0] = s->frame[s->next];
        fragment[1] = 0;
        exo_put_be16(fragment + 2, (uint16_t)(from | more));
        exo_put_be32(fragment + 4, s->identification);
        to[s->next] = FRAGMENT;
    }
    if (header < from || header >= from + s->size)
        return;
    uint8_t *udp = to + s->payload + s->inserted + header - from;
    exo_put_be16(udp + 4, s->udp_length);
    store_sum(udp + 6, s->udp_sum);
}

static void finish_transport(const struct exo_segments *s, uint32_t i, uint8_t *to, uint32_t carried)
{
    uint8_t *l4 = to + s->l4;
    if (s->cut == EXO_CUT_TCP) {
        exo_put_be32(l4 + 4, exo_be32(l4 + 4) + i * s->size);
        l4[13] &= (uint8_t)~((i ? TCP_CWR : 0) | (i + 1 < s->count ? TCP_FIN | TCP_PSH : 0));
    } else {
        exo_put_be16(l4 + 4, (uint16_t)carried);
    }
    uint8_t *sum = l4 + (s->cut == EXO_CUT_TCP ? 16 : 6);
    store_sum(sum, 0);
    store_sum(sum, transport_sum(s, to + s->l3, l4, carried));
}

void exo_segments_cut(const struct exo_segments *s, uint32_t i, uint8_t *to)
{
    uint32_t length = exo_segments_length(s, i), before = s->payload + s->inserted;
    uint8_t *ip = to + s->l3;
    memcpy(to, s->frame, s->payload);
    memcpy(to + before, s->frame + s->payload + i * s->size, length - before);
    if (s->pppoe)
        exo_put_be16(to + s->pppoe + 4, (uint16_t)(length - s->pppoe - 6));
    if (s->ip4) {
        exo_put_be16(ip + 2, (uint16_t)(length - s->l3));
        if (s->cut != EXO_CUT_FRAGMENTS)
            exo_put_be16(ip + 4, (uint16_t)(exo_be16(ip + 4) + i));
    } else {
        exo_put_be16(ip + 4, (uint16_t)(length - s->l3 - 40));
    }
    if (s->cut == EXO_CUT_FRAGMENTS)
        finish_fragment(s, i, to);
    else
        finish_transport(s, i, to, length - s->l4);
    if (s->ip4) {
        store_sum(ip + 10, 0);
        store_sum(ip + 10, (uint16_t)~exo_checksum(ip, s->fragmentable - s->l3, 0));
    }
}
