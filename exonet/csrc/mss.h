/* SPDX-License-Identifier: MIT
 *
 * What TCP connections announced when they began: the maximum segment sizes of their ends. Private to the resegment wire.
 */
#ifndef EXO_MSS_H
#define EXO_MSS_H

#include "segment.h"

struct mss_table;

struct mss_table *mss_new(uint64_t seed);
struct mss_table *mss_share(struct mss_table *table);
void mss_release(struct mss_table *table);
/* A TCP packet goes by: what it announces is remembered if it is a SYN. */
void mss_learn(struct mss_table *table, const struct exo_segments *packet);
/* The smaller of what both ends of the packet's connection announced; 0: its beginning was not seen, or is forgotten. */
uint32_t mss_of(struct mss_table *table, const struct exo_segments *packet);

#endif
