/* SPDX-License-Identifier: MIT
 *
 * Who answers for an address (R2, R3): ARP requests and neighbour solicitations go to the environment that does, pings that no
 * filter claims too.
 * An address is a port's and a VLAN's: that of its owner, which the operator put there (exo_env.vlan), so two VLANs may have the same.
 * A frame is asked of an owner only where its tags name exactly that VLAN, untagged and tagged with VID 0 being none. What comes in two
 * tags, in a provider's or in a PPPoE session is nobody's by its address, and goes where filters say.
 */
#include "machine_private.h"

static struct neighbour *find(struct exo_machine *m, uint32_t port, uint32_t vlan, uint32_t family, const uint8_t *address)
{
    for (uint32_t i = 0; i < m->neighbours; i++) {
        struct neighbour *n = &m->neighbour[i];
        if (n->port == port && n->vlan == vlan && n->family == family && memcmp(n->address, address, family == 4 ? 4 : 16) == 0)
            return n;
    }
    return NULL;
}

int32_t exo_machine_neighbour(struct exo_machine *m, uint32_t env, uint32_t port, uint32_t family, const uint8_t *address)
{
    const struct exo_env *owner = live_env(m, env);
    if (port >= m->ports || !owner || (family != 4 && family != 6))
        return EXO_E_INVALID;
    struct neighbour *n = find(m, port, owner->vlan, family, address);
    if (n)
        return n->env == env ? 0 : EXO_E_CONFLICT;
    if (m->neighbours == NEIGHBOURS)
        return EXO_E_FULL;
    n = &m->neighbour[m->neighbours++];
    *n = (struct neighbour){.env = env, .port = (uint16_t)port, .vlan = owner->vlan, .family = (uint16_t)family};
    memcpy(n->address, address, family == 4 ? 4 : 16);
    return 0;
}

int32_t exo_machine_forget_neighbour(struct exo_machine *m, uint32_t env, uint32_t port, uint32_t family, const uint8_t *address)
{
    const struct exo_env *owner = live_env(m, env);
    struct neighbour *n = owner && (family == 4 || family == 6) ? find(m, port, owner->vlan, family, address) : NULL;
    if (!n || n->env != env)
        return EXO_E_NOT_FOUND;
    *n = m->neighbour[--m->neighbours];
    return 0;
}

/* ARP requests (RFC 826) and neighbour solicitations (RFC 4861 4.3): the address asked for, or NULL. */
static const uint8_t *asked_for(const struct exo_l3 *l3, uint32_t *family)
{
    const uint8_t *p = l3->data;
    if (l3->type == EXO_ETHER_ARP && l3->length >= 28 && exo_be16(p + 6) == 1 && memcmp(p + 14, p + 24, 4) != 0) {
        *family = 4;
        return p + 24;
    }
    if (l3->type == EXO_ETHER_IP6 && l3->length >= 64 && p[6] == 58 && p[40] == 135) {
        *family = 6;
        return p + 48;
    }
    return NULL;
}

/* Where an echo request, or the first fragment of one, is sent to; NULL: it is none. */
static const uint8_t *pinged(const struct exo_l3 *l3, uint32_t *family)
{
    const uint8_t *p = l3->data;
    if (l3->type == EXO_ETHER_IP4 && l3->length >= 20) {
        uint32_t icmp = 4u * (p[0] & 15);
        *family = 4;
        return p[9] == 1 && !(exo_be16(p + 6) & 0x1fff) && icmp >= 20 && l3->length > icmp && p[icmp] == 8 ? p + 16 : NULL;
    }
    *family = 6;
    if (l3->type != EXO_ETHER_IP6 || l3->length <= 40)
        return NULL;
    if (p[6] == 44)
        return l3->length > 48 && p[40] == 58 && !(exo_be16(p + 42) & 0xfff8) && p[48] == 128 ? p + 24 : NULL;
    return p[6] == 58 && p[40] == 128 ? p + 24 : NULL;
}

int32_t exo_asked(struct exo_machine *m, const struct exo_frame *frame, const struct exo_l3 *l3, int32_t pings, struct exo_env **owner)
{
    uint32_t family = 0;
    const uint8_t *address = l3->pppoe ? NULL : asked_for(l3, &family);
    int32_t question = address != NULL;
    if (!address && pings && !l3->pppoe)
        address = pinged(l3, &family);
    const struct neighbour *n = address ? find(m, frame->port, l3->vlans, family, address) : NULL;
    struct exo_env *env = n ? live_env(m, n->env) : NULL;
    *owner = env && env->number != frame->sender ? env : NULL;
    return question;
}

uint32_t exo_any_binding(const struct exo_machine *m, const struct exo_env *env, uint32_t port)
{
    return m->list[slot_of_env(env->number)][port][0].first;
}

uint32_t exo_asked_owner(struct exo_machine *m, const struct exo_frame *frame, uint32_t owner)
{
    struct exo_env *env;
    struct exo_l3 l3;
    exo_l3_find(frame, &l3);
    exo_asked(m, frame, &l3, owner == EXO_NO_OWNER, &env);
    uint32_t binding = env ? exo_any_binding(m, env, frame->port) : EXO_NO_OWNER;
    return binding == EXO_NO_OWNER ? owner : binding;
}
