/* SPDX-License-Identifier: MIT
 *
 * Where the network layer of a frame is: behind its Ethernet header, up to two VLAN tags (802.1Q 0x8100, 802.1ad 0x88a8) and a PPPoE
 * session header (RFC 2516) with PPP's IPv4 or IPv6. The one answer for all that looks into a packet after the stateless classifier;
 * filters say for themselves where they look, and the transmit template has its own walk, which refuses what it does not know.
 */
struct exo_l3 {
    const uint8_t *data;     /* the network header */
    uint32_t length;         /* captured bytes from there on; 0: there are none */
    uint32_t at;             /* its offset in the frame */
    uint32_t vlans;          /* the VLANs, outer << 16 | inner; 0: none. Tags of VID 0 name none (802.1Q 9.6). A provider's: | 0x1000 */
    uint16_t type;           /* its ethertype; 0: the frame ends before it */
    uint16_t pppoe;          /* offset of the PPPoE session header; 0: there is none */
};

/* Reads nothing past frame->len. */
void exo_l3_find(const struct exo_frame *frame, struct exo_l3 *l3);
/* Is there, behind tags or in a session, what more than the filters decides on: ARP, ICMP, a fragment? */
int32_t exo_l3_rare(const struct exo_frame *frame);
/* An ICMP or ICMPv6 error's quoted packet, turned round as if its answer had come, in an Ethernet frame with the tags and the session of
 * the error itself. Returns its length, 0: no error, or too little quoted. */
enum exo_l3_limits { EXO_TURNED = 98 };   /* Ethernet, two tags, session, the longest IPv4 header, 8 bytes of what it carries */
uint32_t exo_l3_turn(const struct exo_frame *frame, uint8_t out[98]);
