/* SPDX-License-Identifier: MIT
 *
 * The table of announced segment sizes: of fixed size, 65,536 connections in sets of four, by a seeded hash of both ends; a new one takes the
 * place of the one in its set that was asked for least lately. So no trace makes it large or slow; the worst it does is to be forgotten.
 * A connection is its hash: that two of a set have the same 64 bits does not happen by chance.
 * Reference: RFC 9293 3.7.1 (the option, and 536 or 1220 where there is none); Linux tcp_min_snd_mss (48).
 */
#include "mss.h"

#include <stdlib.h>

enum { SETS = 16384, WAYS = 4, OPTION_MSS = 2, SYN = 2, LEAST = 48, UNSAID4 = 536, UNSAID6 = 1220 };

struct connection {
    uint64_t hash;               /* 0: free */
    uint32_t used;               /* by the table's clock */
    uint16_t mss[2];             /* by side; 0: not known */
};

struct mss_table {
    uint64_t seed;
    uint32_t users;
    uint32_t clock;
    struct connection set[SETS][WAYS];
};

struct mss_table *mss_new(uint64_t seed)
{
    struct mss_table *table = calloc(1, sizeof *table);
    if (table) {
        table->seed = seed;
        table->users = 1;
    }
    return table;
}

struct mss_table *mss_share(struct mss_table *table)
{
    table->users++;
    return table;
}

void mss_release(struct mss_table *table)
{
    if (table && !--table->users)
        free(table);
}

/* Both ends in one order, whoever sends; side: which of them that is. */
static uint64_t hash_of(const struct mss_table *table, const struct exo_segments *packet, uint32_t *side)
{
    uint8_t end[2][18] = {{0}}, key[44];
    const uint8_t *ip = packet->frame + packet->l3, *l4 = packet->frame + packet->l4;
    uint32_t size = packet->ip4 ? 4 : 16, at = packet->ip4 ? 12 : 8;
    for (uint32_t i = 0; i < 2; i++) {
        memcpy(end[i], ip + at + i * size, size);
        memcpy(end[i] + 16, l4 + 2 * i, 2);
    }
    *side = memcmp(end[0], end[1], 18) > 0;
    memcpy(key, &table->seed, 8);
    memcpy(key + 8, end[*side], 18);
    memcpy(key + 26, end[!*side], 18);
    uint64_t hash = exo_digest(key, sizeof key);
    return hash ? hash : 1;
}

static struct connection *find(struct mss_table *table, uint64_t hash)
{
    struct connection *set = table->set[hash % SETS];
    for (uint32_t i = 0; i < WAYS; i++)
        if (set[i].hash == hash) {
            set[i].used = ++table->clock;
            return &set[i];
        }
    return NULL;
}

static struct connection *make(struct mss_table *table, uint64_t hash)
{
    struct connection *set = table->set[hash % SETS], *oldest = set;
    for (uint32_t i = 1; i < WAYS; i++)
        if (table->clock - set[i].used > table->clock - oldest->used)
            oldest = &set[i];
    *oldest = (struct connection){.hash = hash, .used = ++table->clock};
    return oldest;
}

static uint16_t announced(const struct exo_segments *packet)
{
    const uint8_t *tcp = packet->frame + packet->l4;
    uint32_t at = 20, end = exo_segments_tcp_header(packet), found = packet->ip4 ? UNSAID4 : UNSAID6;
    while (at < end && tcp[at] != 0) {
        uint32_t size = tcp[at] == 1 ? 1 : at + 2 <= end ? tcp[at + 1] : 0;
        if (!size || (size < 2 && tcp[at] != 1) || at + size > end)
            break;
        if (tcp[at] == OPTION_MSS && size == 4)
            found = exo_be16(tcp + at + 2);
        at += size;
    }
    return (uint16_t)(found < LEAST ? LEAST : found);
}

void mss_learn(struct mss_table *table, const struct exo_segments *packet)
{
    if (!(packet->frame[packet->l4 + 13] & SYN))
        return;
    uint32_t side;
    uint64_t hash = hash_of(table, packet, &side);
    struct connection *connection = find(table, hash);
    if (!connection)
        connection = make(table, hash);
    connection->mss[side] = announced(packet);
}

uint32_t mss_of(struct mss_table *table, const struct exo_segments *packet)
{
    uint32_t side;
    const struct connection *connection = find(table, hash_of(table, packet, &side));
    if (!connection)
        return 0;
    uint32_t mine = connection->mss[side], theirs = connection->mss[!side];
    return !theirs || (mine && mine < theirs) ? mine : theirs;
}
