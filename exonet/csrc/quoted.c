/* SPDX-License-Identifier: MIT
 *
 * ICMP and ICMPv6 errors (R3) belong to the owner of the packet they quote, whoever's the error itself would be. All the errors
 * of a burst are turned round into packets as their answers would be, and classified in one call.
 * RFC 792, RFC 4443. Nothing past frame->len is read.
 */
#include "machine_private.h"

/* Transports that begin with the two ports: TCP, UDP, DCCP, SCTP, UDP-Lite. */
static int has_ports(uint8_t protocol)
{
    return protocol == 6 || protocol == 17 || protocol == 33 || protocol == 132 || protocol == 136;
}

/* What was sent to a port comes back from there; the answer to a ping is one of its own kind. */
static void turn_payload(uint8_t *l4, uint8_t protocol, uint8_t icmp, uint8_t ping, uint8_t answer)
{
    uint8_t port[2];
    if (has_ports(protocol)) {
        memcpy(port, l4, 2);
        memcpy(l4, l4 + 2, 2);
        memcpy(l4 + 2, port, 2);
    } else if (protocol == icmp && l4[0] == ping) {
        l4[0] = answer;
    }
}

/* Of a later fragment only payload is quoted, which says nothing about an owner: 0. */
static uint32_t turn_ip4(const struct exo_l3 *l3, uint8_t *out)
{
    const uint8_t *ip = l3->data;
    if (l3->length < 20 || ip[9] != 1 || (exo_be16(ip + 6) & 0x1fff))
        return 0;
    uint32_t icmp = 4u * (ip[0] & 15), inner = icmp + 8;
    if (l3->length < inner + 20)
        return 0;
    uint8_t kind = ip[icmp];
    if (kind != 3 && kind != 4 && kind != 5 && kind != 11 && kind != 12)
        return 0;
    const uint8_t *quoted = ip + inner;
    uint32_t header = 4u * (quoted[0] & 15);
    if (header < 20 || l3->length < inner + header + 8 || (exo_be16(quoted + 6) & 0x1fff))
        return 0;
    memcpy(out, quoted, header + 8);
    memcpy(out + 12, quoted + 16, 4);
    memcpy(out + 16, quoted + 12, 4);
    out[6] = out[7] = 0;
    turn_payload(out + header, out[9], 1, 8, 0);
    return header + 8;
}

static uint32_t turn_ip6(const struct exo_l3 *l3, uint8_t *out)
{
    const uint8_t *ip = l3->data;
    if (l3->length < 40 + 8 + 40 + 8 || ip[6] != 58 || ip[40] >= 128)
        return 0;
    const uint8_t *quoted = ip + 48;
    if (quoted[6] == 44 && (exo_be16(quoted + 42) & 0xfff8))
        return 0;
    memcpy(out, quoted, 48);
    memcpy(out + 8, quoted + 24, 16);
    memcpy(out + 24, quoted + 8, 16);
    turn_payload(out + 40, out[6], 58, 128, 129);
    return 48;
}

uint32_t exo_l3_turn(const struct exo_frame *frame, uint8_t out[EXO_TURNED])
{
    struct exo_l3 l3;
    exo_l3_find(frame, &l3);
    uint32_t length = 0;
    if (l3.type == EXO_ETHER_IP4)
        length = turn_ip4(&l3, out + l3.at);
    else if (l3.type == EXO_ETHER_IP6)
        length = turn_ip6(&l3, out + l3.at);
    if (!length)
        return 0;
    memcpy(out, frame->data, l3.at);
    return l3.at + length;
}

void exo_quoted_owners(const struct exo_demux *demux, const struct exo_frame *frames, uint32_t n, uint32_t *owners)
{
    uint8_t turned[EXO_BURST][EXO_TURNED];
    struct exo_frame quoted[EXO_BURST];
    uint32_t found[EXO_BURST], place[EXO_BURST], errors = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t length = frames[i].data[0] & 1 ? 0 : exo_l3_turn(&frames[i], turned[errors]);
        if (!length)
            continue;
        quoted[errors] = frames[i];
        quoted[errors].data = turned[errors];
        quoted[errors].len = quoted[errors].wire_len = length;
        place[errors++] = i;
    }
    if (!errors)
        return;
    exo_demux_classify(demux, quoted, errors, found);
    for (uint32_t i = 0; i < errors; i++)
        if (found[i] != EXO_NO_OWNER)
            owners[place[i]] = found[i];
}
