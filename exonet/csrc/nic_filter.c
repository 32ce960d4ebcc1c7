/* SPDX-License-Identifier: MIT
 *
 * The NIC's address filter: own and extra unicast addresses, exact groups, broadcast, promiscuous. Two tables hold the truth
 * (unicast: the first 16 rows are RAL/RAH; groups), one open-addressed set answers per frame and is rebuilt at every change.
 * More stations than RAL/RAH has rows are held too: a port may have one per environment.
 * Reference: 82576 datasheet 7.1.2 (L2 filtering), 8.10 (RCTL, MTA, RAL, RAH).
 */
#include "nic_private.h"

_Static_assert(EXO_NIC_UNICAST + EXO_NIC_GROUPS <= NIC_INDEX / 2, "the index stays half empty, so a probe ends");

static const uint64_t BROADCAST = 0xffffffffffff;
static const uint64_t GROUP_BIT = 0x010000000000;

uint64_t nic_mac(const uint8_t *mac)
{
    return (uint64_t)exo_be32(mac) << 16 | exo_be16(mac + 4);
}

/* Fibonacci hashing: the top 12 bits of a multiple of the golden ratio. */
static uint32_t home(uint64_t mac)
{
    return (uint32_t)((mac * 0x9e3779b97f4a7c15u) >> 52);
}

static int listed(const struct exo_nic *nic, uint64_t mac)
{
    for (uint32_t at = home(mac); nic->index[at]; at = (at + 1) % NIC_INDEX)
        if (nic->index[at] == mac)
            return 1;
    return 0;
}

static void enlist(struct exo_nic *nic, const struct nic_address *table, uint32_t rows)
{
    for (uint32_t i = 0; i < rows; i++) {
        if (!table[i].users || !table[i].mac || listed(nic, table[i].mac))
            continue;
        uint32_t at = home(table[i].mac);
        while (nic->index[at])
            at = (at + 1) % NIC_INDEX;
        nic->index[at] = table[i].mac;
    }
}

void nic_filter_rebuild(struct exo_nic *nic)
{
    memset(nic->index, 0, sizeof nic->index);
    enlist(nic, nic->unicast, EXO_NIC_UNICAST);
    enlist(nic, nic->group, EXO_NIC_GROUPS);
}

/* RCTL.MO = 0: bits 47:36 of the address, which is its last byte and the high half of the one before (datasheet 8.10.3). */
static uint32_t mta_bit(uint64_t mac)
{
    return (uint32_t)((mac & 0xff) << 4 | (mac >> 12 & 15));
}

uint32_t nic_mta_read(const struct exo_nic *nic, uint32_t word)
{
    uint32_t bits = nic->mta[word];
    for (uint32_t i = 0; i < EXO_NIC_GROUPS; i++)
        if (nic->group[i].users && mta_bit(nic->group[i].mac) / 32 == word)
            bits |= 1u << mta_bit(nic->group[i].mac) % 32;
    return bits;
}

static int group_accepts(const struct exo_nic *nic, uint64_t mac)
{
    if (mac == BROADCAST)
        return (nic->rctl & NIC_BAM) != 0;
    if ((nic->rctl & NIC_MPE) || nic->all_groups || listed(nic, mac))
        return 1;
    return nic->mta[mta_bit(mac) / 32] >> mta_bit(mac) % 32 & 1;
}

int nic_filter_accepts(const struct exo_nic *nic, const uint8_t *mac)
{
    uint64_t to = nic_mac(mac);
    if (to & GROUP_BIT)
        return group_accepts(nic, to);
    return (nic->rctl & NIC_UPE) || listed(nic, to);
}

int32_t exo_nic_is_local(const struct exo_nic *nic, const uint8_t mac[6])
{
    uint64_t to = nic_mac(mac);
    return !(to & GROUP_BIT) && listed(nic, to);
}

/* The row of mac, else the first free one, else NULL. Row 0 of the unicast table is the NIC's own address. */
static struct nic_address *find(struct exo_nic *nic, uint64_t mac, int want_free)
{
    struct nic_address *table = mac & GROUP_BIT ? nic->group : nic->unicast, *empty = NULL;
    uint32_t rows = mac & GROUP_BIT ? EXO_NIC_GROUPS : EXO_NIC_UNICAST;
    for (uint32_t i = 0; i < rows; i++) {
        if (table[i].users && table[i].mac == mac)
            return &table[i];
        if (!table[i].users && !empty && (i > 0 || table == nic->group))
            empty = &table[i];
    }
    return want_free ? empty : NULL;
}

int32_t exo_nic_filter_add(struct exo_nic *nic, const uint8_t mac[6])
{
    uint64_t address = nic_mac(mac);
    if (!address) {
        nic->all_groups++;
        nic_recompute(nic);
        return 0;
    }
    struct nic_address *row = find(nic, address, 1);
    if (!row)
        return EXO_E_FULL;
    row->mac = address;
    if (row->users++ == 0)
        nic_filter_rebuild(nic);
    return 0;
}

int32_t exo_nic_filter_remove(struct exo_nic *nic, const uint8_t mac[6])
{
    uint64_t address = nic_mac(mac);
    if (!address) {
        if (!nic->all_groups)
            return EXO_E_NOT_FOUND;
        nic->all_groups--;
        nic_recompute(nic);
        return 0;
    }
    struct nic_address *row = find(nic, address, 0);
    if (!row)
        return EXO_E_NOT_FOUND;
    if (--row->users == 0)
        nic_filter_rebuild(nic);
    return 0;
}
