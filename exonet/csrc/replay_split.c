/* SPDX-License-Identifier: MIT
 *
 * Which side of a two-sided replay a frame is of. By MAC: who speaks first is a client (side 0) and whom it addresses a server
 * (side 1), remembered per address, so that a server's later broadcast stays on its side. By prefix: side 0 is whoever has a
 * source address in one of the prefixes; frames without an address follow what their MAC did before.
 * Two replays that see the same records decide alike; each keeps its own table. The table is bounded: a trace with more
 * addresses than it holds puts the unknown ones on side 0.
 */
#include "replay_private.h"

enum { MAC_SLOTS = 65536, MAC_MOST = 49152 };

int32_t split_open(struct splitter *s, const struct exo_replay_config *config)
{
    s->rule = config->split;
    s->prefixes = config->prefixes;
    memcpy(s->prefix, config->prefix, sizeof s->prefix);
    if (s->rule == EXO_SPLIT_NONE)
        return 0;
    s->macs = calloc(MAC_SLOTS, sizeof *s->macs);
    return s->macs ? 0 : EXO_E_MEMORY;
}

void split_close(struct splitter *s)
{
    free(s->macs);
    s->macs = NULL;
}

void split_reset(struct splitter *s)
{
    s->known = 0;
    if (s->macs)
        memset(s->macs, 0, MAC_SLOTS * sizeof *s->macs);
}

static uint64_t mac_key(const uint8_t *mac)
{
    return (uint64_t)exo_be32(mac) << 32 | (uint64_t)exo_be16(mac + 4) << 16;
}

static uint64_t *find(struct splitter *s, uint64_t key)
{
    uint32_t slot = (uint32_t)((key * 0x9e3779b97f4a7c15ull) >> 48);
    while (s->macs[slot] && (s->macs[slot] & ~0xffffull) != key)
        slot = (slot + 1) % MAC_SLOTS;
    return &s->macs[slot];
}

static void learn(struct splitter *s, const uint8_t *mac, uint32_t side)
{
    uint64_t key = mac_key(mac), *slot = find(s, key);
    if (*slot || (mac[0] & 1) || s->known == MAC_MOST)
        return;
    *slot = key | 2 | side;
    s->known++;
}

static uint32_t side_by_mac(struct splitter *s, const uint8_t *data)
{
    const uint8_t *to = data, *from = data + 6;
    uint64_t known_from = *find(s, mac_key(from)), known_to = *find(s, mac_key(to));
    uint32_t side = 0;
    if (known_from)
        side = known_from & 1;
    else if (known_to)
        side = !(known_to & 1);
    learn(s, from, side);
    learn(s, to, !side);
    return side;
}

uint16_t ether_payload(const uint8_t *data, uint32_t len, uint32_t *at)
{
    uint32_t offset = 12;
    while (offset + 2 <= len && is_vlan(exo_be16(data + offset)))
        offset += 4;
    *at = offset + 2;
    return *at <= len ? exo_be16(data + offset) : 0;
}

/* Where the sender's network address lies, and its family; NULL: none. */
static const uint8_t *source_address(const uint8_t *data, uint32_t len, uint16_t *family)
{
    uint32_t at;
    uint16_t type = ether_payload(data, len, &at);
    *family = type == 0x86dd ? 6 : 4;
    uint32_t offset = type == 0x0800 ? 12 : type == 0x0806 ? 14 : type == 0x86dd ? 8 : UINT32_MAX;
    uint32_t size = *family == 6 ? 16 : 4;
    return offset != UINT32_MAX && at + offset + size <= len ? data + at + offset : NULL;
}

static bool in_prefix(const struct exo_prefix *prefix, uint16_t family, const uint8_t *address)
{
    if (prefix->family != family)
        return false;
    uint32_t whole = prefix->bits / 8, rest = prefix->bits % 8;
    if (memcmp(prefix->address, address, whole))
        return false;
    return rest == 0 || (uint8_t)((prefix->address[whole] ^ address[whole]) >> (8 - rest)) == 0;
}

uint32_t split_side(struct splitter *s, const uint8_t *data, uint32_t len)
{
    if (len < 14)
        return 0;
    if (s->rule == EXO_SPLIT_MAC)
        return side_by_mac(s, data);
    uint16_t family;
    const uint8_t *address = source_address(data, len, &family);
    if (!address)
        return side_by_mac(s, data);
    uint32_t side = 1;
    for (uint32_t i = 0; i < s->prefixes && side; i++)
        side = !in_prefix(&s->prefix[i], family, address);
    learn(s, data + 6, side);
    return side;
}
