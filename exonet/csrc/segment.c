/* SPDX-License-Identifier: MIT
 *
 * Segmentation offload: a super-frame becomes frames of at most gso_size bytes of payload, behind headers like its own: lengths, IPv4
 * identifications, TCP sequence numbers and flags, and checksums are each one's. What names the sender is not touched, so a check of the
 * super-frame holds for all of them (R12).
 * Reference: virtio 1.2, 5.1.6.2 (gso_type, gso_size); RFC 9293 3.1; RFC 3168 6.1.2 (CWR in the first segment alone).
 */
#include "machine_private.h"

enum { GSO_TCP4 = 1, GSO_TCP6 = 4, GSO_UDP = 5, GSO_ECN = 128 };
enum { TCP = 6, UDP = 17, TCP_FIN = 1, TCP_PSH = 8, TCP_CWR = 128 };

/* Where the transport header begins, for a whole packet of TCP or UDP right behind an IP header that says so; 0: it is none. */
static uint32_t transport_at(const struct exo_frame *frame, const struct exo_l3 *l3, uint32_t *protocol)
{
    const uint8_t *ip = l3->data;
    if (l3->pppoe || l3->length < 20)
        return 0;
    if (l3->type == EXO_ETHER_IP4) {
        uint32_t header = (ip[0] & 15u) * 4;
        if (ip[0] >> 4 != 4 || header < 20 || header > l3->length || exo_be16(ip + 2) != l3->length || exo_be16(ip + 6) & 0x3fff)
            return 0;
        *protocol = ip[9];
        return l3->at + header;
    }
    if (l3->type != EXO_ETHER_IP6 || l3->length < 40 || ip[0] >> 4 != 6 || exo_be16(ip + 4) != l3->length - 40)
        return 0;
    *protocol = ip[6];
    return frame->len - l3->length + 40;
}

int32_t exo_segments_find(struct exo_segments *s, const struct exo_frame *frame, const struct exo_transmit *t)
{
    struct exo_l3 l3;
    exo_l3_find(frame, &l3);
    uint32_t protocol = 0, kind = t->gso_type & ~(uint32_t)GSO_ECN, l4 = transport_at(frame, &l3, &protocol);
    uint32_t tcp = kind == (l3.type == EXO_ETHER_IP4 ? GSO_TCP4 : GSO_TCP6) && protocol == TCP;
    if (!l4 || !(tcp || (kind == GSO_UDP && protocol == UDP)) || frame->len < l4 + (tcp ? 20 : 8))
        return 0;
    uint32_t header = tcp ? (frame->data[l4 + 12] >> 4) * 4u : 8;
    if ((tcp && header < 20) || frame->len <= l4 + header)
        return 0;
    *s = (struct exo_segments){.frame = frame->data, .length = frame->len, .l3 = l3.at, .l4 = l4, .headers = l4 + header};
    s->ip4 = l3.type == EXO_ETHER_IP4;
    s->tcp = tcp;
    s->size = t->gso_size;
    s->count = (frame->len - s->headers + s->size - 1) / s->size;
    return s->count <= EXO_MOST_SEGMENTS;
}

static void put_checksum(uint8_t *at, const uint8_t *from, uint32_t n, uint32_t initial, int udp)
{
    uint16_t sum = 0;
    memcpy(at, &sum, 2);
    sum = (uint16_t)~exo_checksum(from, n, initial);
    if (udp && !sum)
        sum = 0xffff;
    memcpy(at, &sum, 2);
}

uint32_t exo_segments_length(const struct exo_segments *s, uint32_t i)
{
    uint32_t left = s->length - s->headers - i * s->size;
    return s->headers + (left < s->size ? left : s->size);
}

void exo_segments_cut(const struct exo_segments *s, uint32_t i, uint8_t *to)
{
    uint32_t length = exo_segments_length(s, i), carried = length - s->l4;
    uint8_t *ip = to + s->l3, *l4 = to + s->l4;
    memcpy(to, s->frame, s->headers);
    memcpy(to + s->headers, s->frame + s->headers + i * s->size, length - s->headers);
    if (s->ip4) {
        exo_put_be16(ip + 2, (uint16_t)(length - s->l3));
        exo_put_be16(ip + 4, (uint16_t)(exo_be16(ip + 4) + i));
        put_checksum(ip + 10, ip, s->l4 - s->l3, 0, 0);
    } else {
        exo_put_be16(ip + 4, (uint16_t)(length - s->l3 - 40));
    }
    if (s->tcp) {
        exo_put_be32(l4 + 4, exo_be32(l4 + 4) + i * s->size);
        l4[13] &= (uint8_t)~((i ? TCP_CWR : 0) | (i + 1 < s->count ? TCP_FIN | TCP_PSH : 0));
    } else {
        exo_put_be16(l4 + 4, (uint16_t)carried);
    }
    uint32_t pseudo = exo_pseudo_sum(ip + (s->ip4 ? 12 : 8), s->ip4 ? 8 : 32, s->tcp ? TCP : UDP, carried);
    put_checksum(l4 + (s->tcp ? 16 : 6), l4, carried, pseudo, !s->tcp);
}
