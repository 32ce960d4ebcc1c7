/* SPDX-License-Identifier: MIT
 *
 * Ethernet II and 802.1Q, both ways: whose frame it is, and the link header of what leaves.
 * A frame is built in place: stk_frame gives room behind the link header (in the output's buffer, or in a pending packet while the
 * neighbour is resolved), stk_frame_done sends or queues it.
 * Reference: IEEE 802.3, IEEE 802.1Q 9.6, RFC 894, RFC 2464.
 */
#include "stk_private.h"

/* The groups whose packets the layers above may take; they check the address itself. RFC 1112 6.4, RFC 2464 7. */
static int32_t group_wanted(const uint8_t *mac)
{
    static const uint8_t broadcast[6] = {255, 255, 255, 255, 255, 255};
    static const uint8_t all_systems[6] = {1, 0, 0x5e, 0, 0, 1};
    return memcmp(mac, broadcast, 6) == 0 || memcmp(mac, all_systems, 6) == 0 || (mac[0] == 0x33 && mac[1] == 0x33);
}

int32_t stk_ethernet_input(struct stk *s, struct stk_packet *p, const uint8_t *end)
{
    const uint8_t *type_at = p->ether + 12;
    uint32_t vlan = 0, type = be16(type_at);

    p->link_group = p->ether[0] & 1;
    if (p->link_group ? !group_wanted(p->ether) : !s->config.any_address && memcmp(p->ether, s->config.mac, 6) != 0)
        return EXO_R_STACK_OTHERHOST;
    if (p->ether[6] & 1)
        return EXO_R_STACK_REFUSED; /* IEEE 802.3 3.2.3: a source is an individual address; an answer to a group would be amplified */
    if (type == STK_ETHER_VLAN) {
        if (end - type_at < 2 + STK_TAG)
            return short_reason(p);
        vlan = be16(type_at + 2) & 0xfff; /* 802.1Q 9.6: VID 0 is a priority tag and names no VLAN */
        type_at += STK_TAG;
        type = be16(type_at);
    }
    /* A second tag, or a provider's, is no VLAN of ours. */
    if (vlan != s->config.vlan || type == STK_ETHER_VLAN || type == STK_ETHER_SVLAN)
        return EXO_R_STACK_VLAN;
    p->payload = type_at + 2;
    p->length = (uint32_t)(end - p->payload);
    if (type == STK_ETHER_IP4 && s->enabled4)
        return stk_ip4_input(s, p);
    if (type == STK_ETHER_IP6 && s->enabled6)
        return stk_ip6_input(s, p);
    if (type == STK_ETHER_ARP && s->enabled4)
        return stk_arp_input(s, p);
    return EXO_R_STACK_UNHANDLED_PROTO; /* 802.3 lengths (below 0x600) too: no LLC here */
}

uint8_t *stk_frame(struct stk *s, const struct stk_path *path, uint32_t type, uint32_t n)
{
    const struct stk_output *out = &s->output[s->port];
    uint32_t length = s->header + n;
    uint8_t *frame;

    s->building.pending = NULL;
    s->building.via = path->via;
    s->building.length = length;
    if (path->via != NULL) {
        s->building.pending = stk_pending_new(s, path->via, length, path->socket);
        frame = s->building.pending != NULL ? s->building.pending->frame : NULL;
    } else {
        frame = out->reserve(out->context, length);
    }
    if (frame == NULL) {
        s->counters.out_no_buffer++;
        return NULL;
    }
    memcpy(frame, path->mac, 6);
    memcpy(frame + 6, path->local_mac, 6);
    if (s->config.vlan != 0) {
        put16(frame + 12, STK_ETHER_VLAN);
        put16(frame + 14, s->config.vlan);
    }
    put16(frame + s->header - 2, type);
    return frame + s->header;
}

void stk_frame_done(struct stk *s)
{
    if (s->building.pending != NULL) {
        stk_pending_add(s, s->building.via, s->building.pending);
        return;
    }
    const struct stk_output *out = &s->output[s->port];
    out->commit(out->context, s->building.length);
    s->counters.out_frames++;
    s->counters.out_bytes += s->building.length;
}

/* A pending packet whose neighbour is known now. The caller frees it. */
void stk_frame_send(struct stk *s, struct stk_pending *pending, const uint8_t *mac)
{
    const struct stk_output *out = &s->output[s->port];
    uint8_t *frame = out->reserve(out->context, pending->length);
    if (frame == NULL) {
        s->counters.out_no_buffer++;
        return;
    }
    memcpy(frame, pending->frame, pending->length);
    memcpy(frame, mac, 6);
    out->commit(out->context, pending->length);
    s->counters.out_frames++;
    s->counters.out_bytes += pending->length;
}

/* RFC 4291 2.8: what a host must listen to. */
uint32_t stk_groups(const struct stk *s, uint8_t (*macs)[6], uint32_t max)
{
    uint8_t all[STK_ADDRESSES + 3][6] = {{255, 255, 255, 255, 255, 255}, {1, 0, 0x5e, 0, 0, 1}, {0x33, 0x33, 0, 0, 0, 1}};
    uint32_t n = s->enabled6 ? 3 : 2;
    for (uint32_t i = 0; i < s->config.address_count; i++) {
        const struct stk_address *a = &s->config.address[i];
        uint8_t mac[6] = {0x33, 0x33, 0xff, a->bytes[13], a->bytes[14], a->bytes[15]};
        uint32_t known = a->family != 6;
        for (uint32_t k = 0; k < n; k++)
            known |= memcmp(all[k], mac, 6) == 0;
        if (!known)
            memcpy(all[n++], mac, 6);
    }
    for (uint32_t i = 0; i < n && i < max; i++)
        memcpy(macs[i], all[i], 6);
    return n < max ? n : max;
}
