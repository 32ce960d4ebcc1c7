/* SPDX-License-Identifier: MIT
 *
 * Link layers: what a packet's link header (LINKTYPE_ of tcpdump.org) says, and the Ethernet header that takes its place. Bytes are
 * looked at as far as `len` goes and no further; nothing is written but the result.
 */
enum exo_link_flag {
    EXO_LINK_WHOLE = 1,          /* the payload is an Ethernet frame as it stands */
    EXO_LINK_SOURCE = 2,         /* the link header has the sender's address */
    EXO_LINK_DESTINATION = 4,    /* the receiver's */
    EXO_LINK_GROUP = 8           /* the link header says that it went to a group, not to which */
};

struct exo_link {
    uint32_t header;             /* bytes in front of the payload */
    uint32_t len;                /* captured bytes of the payload */
    uint32_t wire_len;           /* its length on the wire, never less */
    uint16_t type;               /* Ethernet's type field for it: below 0x600 the length of an 802.2 packet */
    uint16_t flags;              /* enum exo_link_flag */
    uint8_t destination[6];
    uint8_t source[6];
};

/* 1: packets of this link type may become Ethernet frames. */
int32_t exo_link_known(uint32_t link_type);
/* Reads the link header of a packet of which len bytes were captured (len <= wire_len), the last fcs bytes on the wire being its FCS. 0: it
 * does not become an Ethernet frame. */
int32_t exo_link_parse(uint32_t link_type, uint32_t fcs, const uint8_t *data, uint32_t len, uint32_t wire_len, struct exo_link *link);
/* The 14 bytes of the Ethernet header for a payload that is not whole. Addresses that the link header does not have are made: from an
 * IPv4 address 02:00 and its four bytes, from an IPv6 address 02:06 and a hash of it, the group's own for a group. */
void exo_link_ethernet(const struct exo_link *link, const uint8_t *payload, uint8_t *header);
