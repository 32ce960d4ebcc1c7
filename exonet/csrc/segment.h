/* SPDX-License-Identifier: MIT
 *
 * The one cutter of packets that are longer than a frame: super-frames that LibOSes send (transmit.c), and those of captures
 * (resegment.c). A packet is found first, then it is said how it is cut, and then each segment is written. Private to these C files.
 */
#ifndef EXO_SEGMENT_H
#define EXO_SEGMENT_H

#include "exo_kernel.h"

enum exo_cut {
    EXO_CUT_TCP,                 /* each has the headers, and its place in the sequence */
    EXO_CUT_UDP,                 /* each is a datagram of its own */
    EXO_CUT_FRAGMENTS            /* one UDP datagram in fragments of its IP packet */
};

enum exo_packet { EXO_PACKET_NONE, EXO_PACKET_WHOLE, EXO_PACKET_SNAPPED };

struct exo_segments {
    const uint8_t *frame;
    uint32_t length;             /* of the frame, to the end of its packet or of what was captured of that */
    uint32_t l3, l4, payload;    /* where the IP header, the transport header and what is cut begin */
    uint32_t pppoe;              /* of the session header; 0: none */
    uint32_t ip4, protocol;
    uint32_t next, fragmentable; /* IPv6: where the number of the first header that may be in fragments stands, and where that begins */
    uint32_t declared;           /* bytes of the packet, by its IP header; 0: it does not say (offload) */
    uint32_t cut;                /* enum exo_cut */
    uint32_t size, count;        /* bytes of each but the last, and how many; 1: it is only put right */
    uint32_t inserted;           /* bytes of a fragment header in each */
    uint32_t identification;     /* of IPv6 fragments */
    uint16_t udp_length, udp_sum;/* of the datagram in fragments; the sum as it is stored */
};

/* Finds the TCP or UDP packet of a frame behind tags, a session and IPv6's extension headers: enum exo_packet. Fragments, packets whose
 * headers lie and those that are still to be routed by a source route are none. The headers lie within length. */
int32_t exo_segments_packet(struct exo_segments *s, const struct exo_frame *frame);
/* Of the TCP header found. */
uint32_t exo_segments_tcp_header(const struct exo_segments *s);
/* Says how a whole packet becomes segments: of at most size bytes of payload for TCP (size > 0), or fragments of at most mtu bytes. 1: it can be. */
int32_t exo_segments_plan_tcp(struct exo_segments *s, uint32_t size);
int32_t exo_segments_plan_fragments(struct exo_segments *s, uint32_t mtu, uint32_t identification);
/* How a super-frame is cut as its descriptor says. 0: it is none that this says it is, or would be too many. */
enum { EXO_MOST_SEGMENTS = 128 };
int32_t exo_segments_find(struct exo_segments *s, const struct exo_frame *frame, const struct exo_transmit *t);
uint32_t exo_segments_length(const struct exo_segments *s, uint32_t i);
void exo_segments_cut(const struct exo_segments *s, uint32_t i, uint8_t *to);

#endif
