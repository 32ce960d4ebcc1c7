/* SPDX-License-Identifier: MIT
 *
 * ARP for IPv4 over Ethernet. Answers for own addresses only and never lets anybody else's claim to one of them into the table.
 * Reference: RFC 826 (packet reception), RFC 5227 (probes, announcements, conflicts).
 */
#include "stk_private.h"

enum { ARP_LENGTH = 28, ARP_REQUEST = 1, ARP_REPLY = 2 };

static void arp_send(struct stk *s, const struct stk_path *path, uint32_t operation, const uint8_t *sender_ip, const uint8_t *target_mac,
                     const uint8_t *target_ip)
{
    static const uint8_t ethernet_ip4[6] = {0, 1, 8, 0, 6, 4};
    uint8_t *arp = stk_frame(s, path, STK_ETHER_ARP, ARP_LENGTH);
    if (arp == NULL)
        return;
    memcpy(arp, ethernet_ip4, 6);
    put16(arp + 6, operation);
    memcpy(arp + 8, path->local_mac, 6);
    memcpy(arp + 14, sender_ip, 4);
    memcpy(arp + 18, target_mac, 6);
    memcpy(arp + 24, target_ip, 4);
    stk_frame_done(s);
    s->counters.arp_out++;
}

/* Broadcast while nobody answered, to the known MAC address when verifying one (RFC 1122 2.3.2.1). */
void stk_arp_request(struct stk *s, const struct stk_neighbour *n)
{
    static const uint8_t unknown[6];
    struct stk_path path = {.socket = -1};
    if (n->state == STK_N_PROBE)
        memcpy(path.mac, n->mac, 6);
    else
        memset(path.mac, 255, 6);
    memcpy(path.local_mac, s->config.mac, 6);
    arp_send(s, &path, ARP_REQUEST, n->solicit_from, unknown, n->address);
}

static void arp_answer(struct stk *s, const uint8_t *arp)
{
    struct stk_path path = {.socket = -1};
    memcpy(path.mac, arp + 8, 6);
    memcpy(path.local_mac, s->config.mac, 6);
    arp_send(s, &path, ARP_REPLY, arp + 24, arp + 8, arp + 14);
}

/* RFC 826: merge into an existing entry whoever the target is; add a new one only where we are the target. */
static int32_t merge(struct stk *s, const uint8_t *sender_mac, const uint8_t *sender_ip, uint32_t operation, int32_t for_us)
{
    struct stk_neighbour *n = stk_neighbour_find(s, 4, sender_ip);
    if (n == NULL && !for_us)
        return 0;
    /* Only the answer to our own question proves that the way there works too (RFC 4861 7.3.1's rule, for ARP). */
    int32_t asked = n != NULL && (n->state == STK_N_INCOMPLETE || n->state == STK_N_PROBE || n->state == STK_N_DELAY);
    if (n == NULL)
        n = stk_neighbour_make(s, 4, sender_ip);
    if (s->config.any_address)
        memcpy(n->local_mac, s->config.mac, 6);
    stk_neighbour_learn(s, n, sender_mac, operation == ARP_REPLY && for_us && asked ? STK_N_REACHABLE : STK_N_STALE);
    return 1;
}

int32_t stk_arp_input(struct stk *s, struct stk_packet *p)
{
    const uint8_t *arp = p->payload;
    if (p->length < ARP_LENGTH)
        return short_reason(p);
    s->counters.arp_in++;
    uint32_t operation = be16(arp + 6);
    if (be16(arp) != 1 || be16(arp + 2) != STK_ETHER_IP4 || arp[4] != 6 || arp[5] != 4 || operation - 1 > 1)
        return EXO_R_STACK_ARP_HEADER;
    uint8_t sender[16], target[16];
    address_set(sender, 4, arp + 14);
    address_set(target, 4, arp + 24);
    uint32_t announcement = memcmp(sender, target, 4) == 0, probe = be32(sender) == 0;
    if (arp[8] & 1)
        return EXO_R_STACK_ARP_HEADER; /* RFC 1812 3.3.2: a group MAC address is nobody's */
    if (!probe && (!stk_unicast(4, sender) || stk_broadcast4(s, sender)))
        return EXO_R_STACK_ARP_HEADER;
    /* Under any_address every address is ours, but the announcement or probe of a replayed host is no question to us. */
    int32_t for_us = s->config.any_address ? !announcement && !probe && stk_unicast(4, target) : stk_own(s, 4, target);
    if (!s->config.any_address && stk_own(s, 4, sender)) {
        /* RFC 5227 2.4: a conflict. Never learnt; our own traffic goes on, and a request for the address is still answered. */
        s->counters.address_conflicts++;
        if (operation != ARP_REQUEST)
            return EXO_R_STACK_REFUSED;
        arp_answer(s, arp);
        return EXO_R_DELIVERED;
    }
    int32_t merged = probe ? 0 : merge(s, arp + 8, sender, operation, for_us);
    if (for_us && operation == ARP_REQUEST)
        arp_answer(s, arp);
    return for_us || merged ? EXO_R_DELIVERED : EXO_R_STACK_OTHERHOST;
}
