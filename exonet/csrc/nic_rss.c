/* SPDX-License-Identifier: MIT
 *
 * Receive-side scaling: the Toeplitz hash over addresses and ports, by tables per nibble of the input (4.5 KiB: they stay in the
 * first-level cache). TCP and UDP over IPv4 and IPv6 hash the 4-tuple, other IP and fragments the addresses, the rest nothing.
 * Reference: 82576 datasheet 7.1.2.10; Microsoft, "RSS hashing functions" and "Verifying the RSS hash calculation".
 */
#include "nic_private.h"

/* The key of Microsoft's verification suite, which drivers also use as a default. */
static const uint8_t VERIFICATION_KEY[NIC_RSS_KEY] = {
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb,
    0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
};

enum { ETHERTYPE_IP4 = 0x0800, ETHERTYPE_IP6 = 0x86dd, ETHERTYPE_VLAN = 0x8100, PROTOCOL_TCP = 6, PROTOCOL_UDP = 17 };

/* The 32 bits of the key that begin at bit `at`. */
static uint32_t window(const uint8_t *key, uint32_t at)
{
    uint64_t bits = (uint64_t)exo_be32(key + at / 8) << 8 | (at / 8 + 4 < NIC_RSS_KEY ? key[at / 8 + 4] : 0);
    return (uint32_t)(bits >> (8 - at % 8));
}

void nic_rss_tables(struct exo_nic *nic)
{
    for (uint32_t nibble = 0; nibble < NIC_RSS_INPUT * 2; nibble++)
        for (uint32_t value = 0; value < 16; value++) {
            uint32_t hash = 0;
            for (uint32_t bit = 0; bit < 4; bit++)
                if (value & 8u >> bit)
                    hash ^= window(nic->key, nibble * 4 + bit);
            nic->toeplitz[nibble][value] = hash;
        }
}

/* seed 0: the verification key; else bytes of splitmix64. */
void nic_rss_key(struct exo_nic *nic, uint64_t seed)
{
    memcpy(nic->key, VERIFICATION_KEY, NIC_RSS_KEY);
    for (uint32_t i = 0; seed && i < NIC_RSS_KEY; i += 8) {
        uint64_t z = seed + (i / 8 + 1) * 0x9e3779b97f4a7c15u;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        z ^= z >> 31;
        exo_put_be32(nic->key + i, (uint32_t)(z >> 32));
        exo_put_be32(nic->key + i + 4, (uint32_t)z);
    }
    nic_rss_tables(nic);
}

static uint32_t toeplitz(const struct exo_nic *nic, const uint8_t *bytes, uint32_t n, uint32_t at, uint32_t hash)
{
    for (uint32_t i = 0; i < n; i++) {
        hash ^= nic->toeplitz[(at + i) * 2][bytes[i] >> 4];
        hash ^= nic->toeplitz[(at + i) * 2 + 1][bytes[i] & 15];
    }
    return hash;
}

/* Addresses (2 x `size` bytes), then the ports where the protocol is hashed with them and they are there. */
static uint32_t hash_ip(const struct exo_nic *nic, const uint8_t *addresses, uint32_t size, const uint8_t *ports, uint16_t *type,
                        uint16_t with_ports, uint16_t without)
{
    uint32_t hash = toeplitz(nic, addresses, 2 * size, 0, 0);
    *type = ports ? with_ports : without;
    return ports ? toeplitz(nic, ports, 4, 2 * size, hash) : hash;
}

static int hashes_ports(const struct exo_nic *nic, uint8_t protocol, uint32_t tcp, uint32_t udp)
{
    return (protocol == PROTOCOL_TCP && nic->mrqc & tcp) || (protocol == PROTOCOL_UDP && nic->mrqc & udp);
}

static uint32_t hash_ip4(const struct exo_nic *nic, const uint8_t *ip, uint32_t len, uint16_t *type)
{
    uint32_t header = len >= 20 ? 4u * (ip[0] & 15) : 0;
    if (header < 20 || ip[0] >> 4 != 4 || !(nic->mrqc & NIC_RSS_IP4))
        return 0;
    int fragment = (exo_be16(ip + 6) & 0x3fff) != 0;
    int ports = !fragment && hashes_ports(nic, ip[9], NIC_RSS_TCP4, NIC_RSS_UDP4) && len >= header + 4;
    return hash_ip(nic, ip + 12, 4, ports ? ip + header : NULL, type, ip[9] == PROTOCOL_TCP ? NIC_HASH_TCP4 : NIC_HASH_UDP4,
                   NIC_HASH_IP4);
}

/* Extension headers are not walked: such a packet hashes its addresses, as a fragment must. */
static uint32_t hash_ip6(const struct exo_nic *nic, const uint8_t *ip, uint32_t len, uint16_t *type)
{
    if (len < 40 || ip[0] >> 4 != 6 || !(nic->mrqc & NIC_RSS_IP6))
        return 0;
    int ports = hashes_ports(nic, ip[6], NIC_RSS_TCP6, NIC_RSS_UDP6) && len >= 44;
    return hash_ip(nic, ip + 8, 16, ports ? ip + 40 : NULL, type, ip[6] == PROTOCOL_TCP ? NIC_HASH_TCP6 : NIC_HASH_UDP6,
                   NIC_HASH_IP6);
}

uint32_t nic_rss_hash(const struct exo_nic *nic, const uint8_t *data, uint32_t len, uint16_t *type)
{
    uint32_t at = NIC_HEADER;
    *type = NIC_HASH_NONE;
    if (len < at)
        return 0;
    if (exo_be16(data + 12) == ETHERTYPE_VLAN && len >= at + 4)
        at += 4;
    switch (exo_be16(data + at - 2)) {
    case ETHERTYPE_IP4:
        return hash_ip4(nic, data + at, len - at, type);
    case ETHERTYPE_IP6:
        return hash_ip6(nic, data + at, len - at, type);
    default:
        return 0;
    }
}

uint32_t exo_nic_rss(const struct exo_nic *nic, const uint8_t *data, uint32_t len)
{
    uint16_t type;
    return nic_rss_hash(nic, data, len, &type);
}
