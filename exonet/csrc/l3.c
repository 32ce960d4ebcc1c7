/* SPDX-License-Identifier: MIT
 *
 * The network layer of a frame, behind tags and in PPPoE sessions: see l3.h. Nothing past frame->len is read.
 */
#include "exo_kernel.h"

enum { CTAG = 0x8100, STAG = 0x88a8, SESSION = 0x8864, PPP_IP4 = 0x0021, PPP_IP6 = 0x0057, MOST_TAGS = 2, PROVIDER = 0x1000 };

/* An S-VLAN is another than the C-VLAN of the same number (802.1Q 3.233). */
static uint32_t vlan_of(uint16_t tpid, uint16_t tci)
{
    uint32_t vid = tci & 0xfff;
    return vid && tpid == STAG ? vid | PROVIDER : vid;
}

static void enter_session(const struct exo_frame *frame, struct exo_l3 *l3)
{
    uint16_t protocol = frame->len < l3->at + 8 ? 0 : exo_be16(frame->data + l3->at + 6);
    l3->type = protocol == PPP_IP4 ? EXO_ETHER_IP4 : protocol == PPP_IP6 ? EXO_ETHER_IP6 : 0;
    l3->pppoe = (uint16_t)l3->at;
    l3->at += 8;
}

void exo_l3_find(const struct exo_frame *frame, struct exo_l3 *l3)
{
    const uint8_t *d = frame->data;
    *l3 = (struct exo_l3){.at = 14, .type = frame->len < 14 ? 0 : exo_be16(d + 12)};
    for (int tags = 0; tags < MOST_TAGS && (l3->type == CTAG || l3->type == STAG); tags++) {
        int whole = frame->len >= l3->at + 4;
        uint32_t vlan = whole ? vlan_of(l3->type, exo_be16(d + l3->at)) : 0;
        if (vlan)
            l3->vlans = l3->vlans << 16 | vlan;
        l3->type = whole ? exo_be16(d + l3->at + 2) : 0;
        l3->at += 4;
    }
    if (l3->type == SESSION)
        enter_session(frame, l3);
    l3->data = d + (l3->at < frame->len ? l3->at : 0);
    l3->length = l3->at < frame->len ? frame->len - l3->at : 0;
}

int32_t exo_l3_rare(const struct exo_frame *frame)
{
    struct exo_l3 l3;
    exo_l3_find(frame, &l3);
    if (l3.type == EXO_ETHER_IP4)
        return l3.length >= 20 && ((exo_be16(l3.data + 6) & 0x3fff) != 0 || l3.data[9] == 1);
    if (l3.type == EXO_ETHER_IP6)
        return l3.length >= 40 && (l3.data[6] == 44 || l3.data[6] == 58);
    return l3.type == EXO_ETHER_ARP;
}
