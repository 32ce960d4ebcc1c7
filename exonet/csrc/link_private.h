/* SPDX-License-Identifier: MIT
 *
 * Inside the link layers: a packet as its headers are taken off it one after another.
 * link_layer.c has the table and the wired ones, link_wireless.c 802.11 and what stands before it, link_ethernet.c the header made.
 */
#ifndef EXO_LINK_PRIVATE_H
#define EXO_LINK_PRIVATE_H

#include <stdbool.h>
#include <string.h>

#include "exo_kernel.h"

enum { TYPE_LEAST = 0x0600, LLC_MOST = 1500 };

/* What is left of a packet, and what is known of it. len <= wire_len always. */
struct packet {
    const uint8_t *at;
    uint32_t len;
    uint32_t wire_len;
    struct exo_link *link;
};

static inline bool has(const struct packet *p, uint32_t n)
{
    return p->len >= n;
}

/* Takes n bytes off the front; the caller has checked that they are there. */
static inline void skip(struct packet *p, uint32_t n)
{
    p->at += n;
    p->len -= n;
    p->wire_len -= n;
}

/* No more than n bytes of it belong to the packet. */
static inline void cut(struct packet *p, uint32_t n)
{
    p->wire_len = n < p->wire_len ? n : p->wire_len;
    p->len = p->len < p->wire_len ? p->len : p->wire_len;
}

/* Its last n bytes on the wire do not belong to it; of a snapped one, as many of them as were captured. */
static inline void cut_tail(struct packet *p, uint32_t n)
{
    cut(p, n < p->wire_len ? p->wire_len - n : 0);
}

static inline uint16_t le16(const uint8_t *at)
{
    return (uint16_t)(at[1] << 8 | at[0]);
}

static inline uint32_t le32(const uint8_t *at)
{
    return (uint32_t)le16(at + 2) << 16 | le16(at);
}

static inline bool set_type(struct packet *p, uint32_t type)
{
    p->link->type = (uint16_t)type;
    return type >= TYPE_LEAST;
}

static inline void set_address(struct packet *p, enum exo_link_flag which, const uint8_t *address)
{
    memcpy(which == EXO_LINK_SOURCE ? p->link->source : p->link->destination, address, 6);
    p->link->flags |= (uint16_t)which;
}

/* An 802.2 header: SNAP with an Ethernet type is taken off, what an 802.3 frame carries otherwise stays behind its length. */
bool link_llc(struct packet *p);
bool link_ieee80211(struct packet *p);
bool link_radiotap(struct packet *p);
bool link_prism(struct packet *p);
bool link_avs(struct packet *p);
/* Per-packet information: a header that names the link type of what follows; it must not be one of its own kind. */
bool link_ppi(struct packet *p);
bool link_by_type(struct packet *p, uint32_t link_type);

#endif
