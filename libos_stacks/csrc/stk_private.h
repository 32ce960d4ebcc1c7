/* SPDX-License-Identifier: MIT
 *
 * What the files of the stack engine share and nobody else sees: struct stk, the packet on its way up, the flow and path
 * of a packet on its way down. One direction of calls: ethernet -> arp | ip4 | ip6 -> fragment -> icmp | udp on the way up,
 * udp | icmp | ndp -> ip4 | ip6 -> ethernet on the way down. Input functions return EXO_R_DELIVERED, an exo_reason, or
 * STK_HELD (fragment.c accounts for the frame later).
 */
#ifndef STK_PRIVATE_H
#define STK_PRIVATE_H

#include "stk.h"

#define STK_SECOND 1000000000ull
#define STK_NEVER UINT64_MAX

enum {
    STK_HELD = -1,
    STK_ETHER = 14,              /* Ethernet II header */
    STK_TAG = 4,                 /* 802.1Q tag */
    STK_ASSEMBLIES = 64,         /* datagrams in reassembly at once */
    STK_FRAGMENTS = 1024,        /* of one datagram: bounds the walk of its list */
    STK_PATHS = 256,             /* path MTU cache */
    STK_IDENTIFIERS = 256,       /* counters of fragment identifiers */
    STK_PREFIXES = 8,            /* on-link prefixes from router advertisements */
    STK_HOP_LIMIT = 64,          /* RFC 1700's recommended default TTL */
    STK_SOCKET_BUCKETS = 2048,
    STK_SCRATCH = 65536 + 2048,  /* a reassembled packet: 65535 bytes of payload and its headers */
    STK_PENDING_EACH = 208 * 1024,   /* bytes waiting for one neighbour: Linux's unres_qlen_bytes; several largest datagrams */
    STK_PENDING_ALL = 512 * 1024
};

enum { STK_IP4 = 20 }; /* an IPv4 header without options */
enum { STK_ETHER_IP4 = 0x0800, STK_ETHER_ARP = 0x0806, STK_ETHER_VLAN = 0x8100, STK_ETHER_IP6 = 0x86dd, STK_ETHER_SVLAN = 0x88a8 };

enum {
    STK_P_HOP_BY_HOP = 0, STK_P_ICMP = 1, STK_P_TCP = 6, STK_P_UDP = 17, STK_P_ROUTING = 43, STK_P_FRAGMENT = 44, STK_P_ICMP6 = 58,
    STK_P_NONE = 59, STK_P_OPTIONS = 60
};

/* A received packet. payload and length move up the layers; the other fields are set once, by the layer that knows. */
struct stk_packet {
    const uint8_t *ether;        /* Ethernet header; 14 bytes are always there */
    const uint8_t *frame_end;    /* with padding: the end of what `csum` covers */
    const uint8_t *ip;           /* IP header, for quoting */
    uint32_t ip_length;          /* IP header and all that belongs to it */
    const uint8_t *payload;
    uint32_t length;
    uint32_t csum;               /* sum of ether+14..frame_end, where has_csum */
    uint16_t next_at;            /* IPv6: offset from ip of the Next Header octet that announced payload */
    uint8_t has_csum;
    uint8_t fragmented;          /* IPv6: a fragment header was met */
    uint8_t cut;                 /* a snaplen cut it */
    uint8_t link_group;          /* the frame went to a group MAC address */
    uint8_t group;               /* the packet went to a broadcast or multicast address */
    uint8_t family;
    uint8_t protocol;
    uint8_t hop_limit;
    uint8_t source[16];
    uint8_t destination[16];
};

/* Waits for its neighbour's MAC address. */
struct stk_pending {
    struct stk_pending *next;
    uint32_t length;
    int32_t socket;              /* who is told when the neighbour fails, or -1 */
    uint8_t frame[];
};

struct stk_neighbour {
    uint8_t address[16];
    uint8_t family;
    uint8_t state;               /* enum stk_neighbour_state */
    uint8_t tries;
    uint8_t referenced;          /* used since the clock hand passed */
    uint8_t port;                /* on which it is: part of its name, two links may have one address each */
    uint8_t mac[6];
    uint8_t local_mac[6];        /* any_address: the MAC address it talks to us under */
    uint8_t solicit_from[16];    /* source of solicitations: that of the packet that caused them (RFC 4861 7.2.2) */
    uint64_t deadline;           /* of INCOMPLETE, DELAY, PROBE; STK_NEVER otherwise */
    uint64_t reachable_until;
    struct stk_pending *first, *last;
    uint32_t pending_bytes;
    int32_t next;                /* in its hash bucket */
};

/* The next hop of a packet to send. */
struct stk_path {
    struct stk_neighbour *via;   /* its MAC address is not known yet; NULL: mac holds it */
    uint8_t mac[6];
    uint8_t local_mac[6];
    uint32_t mtu;
    int32_t socket;              /* told of a neighbour that fails, or -1 */
};

/* The IP header of a packet to send. */
struct stk_flow {
    uint8_t family;
    uint8_t protocol;
    uint8_t hop_limit;
    uint8_t keep_whole;          /* IPv4: set DF where it goes out whole (RFC 1191 3) */
    uint8_t options_length;      /* IPv4: a multiple of 4 */
    uint8_t options[40];
    uint8_t source[16];
    uint8_t destination[16];
    struct stk_path path;
};

struct stk_fragment {
    struct stk_fragment *next;   /* by offset */
    uint32_t offset;
    uint32_t length;
    uint32_t head;               /* bytes of IP header before the payload; 0 but for offset 0 */
    uint8_t bytes[];
};

struct stk_assembly {
    uint64_t deadline;           /* 0: free */
    uint64_t born;
    struct stk_fragment *first, *last;
    uint32_t id;
    uint32_t have;               /* payload bytes */
    uint32_t end;                /* payload bytes in all, once the last fragment has come; else 0 */
    uint32_t bytes;              /* memory held */
    uint32_t frames;
    uint32_t next_at;
    uint8_t family;
    uint8_t protocol;
    uint8_t poisoned;            /* RFC 5722: fragments overlapped, those to come are dropped too */
    uint8_t link_group;
    uint8_t port;
    uint8_t ether[STK_ETHER];
    uint8_t source[16];
    uint8_t destination[16];
};

struct stk_path_entry {
    uint8_t address[16];
    uint8_t family;              /* 0: free */
    uint32_t mtu;
    uint64_t until;
};

struct stk_prefix {
    uint8_t address[16];
    uint32_t bits;
    uint64_t until;              /* 0: free */
};

/* A datagram in a socket's queue; the data follows. */
struct stk_record {
    struct stk_datagram datagram;
    uint32_t size;
    uint32_t skip;               /* 1: not a datagram, the rest of the buffer is unused */
};

struct stk_socket {
    uint8_t family;              /* 0: closed */
    uint8_t any;
    uint8_t queued;              /* it is in the ready ring */
    uint16_t port;
    int16_t next;                /* in its hash bucket */
    uint8_t address[16];
    int32_t error;
    uint8_t *buffer;
    uint32_t head, tail, used;   /* bytes; used tells an empty queue from a full one */
};

struct stk {
    struct stk_config config;
    struct stk_output output[STK_PORTS];
    struct stk_counters counters;
    uint64_t now;                /* of the call in progress */
    uint32_t port;               /* likewise: where it receives and sends */
    uint32_t first_port, ports;  /* ports: named by stk_output_on */
    uint64_t deadline;           /* no timer is due before it */
    uint64_t held;
    uint64_t random;             /* splitmix64 */
    uint64_t hash_key;
    uint64_t error_credit;       /* token bucket of ICMP errors, ns */
    uint64_t error_filled;
    uint8_t enabled4, enabled6;
    uint32_t header;             /* link header of what is sent: 14, or 18 with a tag */

    struct {
        uint8_t *frame;
        uint32_t length;
        struct stk_pending *pending;
        struct stk_neighbour *via;
    } building;

    struct stk_neighbour *neighbours;
    int32_t *neighbour_buckets;
    uint32_t neighbour_mask;
    uint32_t neighbour_hand;
    uint32_t pending_bytes;

    struct stk_assembly assemblies[STK_ASSEMBLIES];
    uint32_t assembly_count;
    uint32_t assembly_bytes;
    uint8_t *scratch;

    struct stk_path_entry paths[STK_PATHS];
    uint32_t path_count;
    uint32_t identifiers[STK_IDENTIFIERS];
    uint8_t router6[16];
    uint64_t router6_until;
    struct stk_prefix prefixes[STK_PREFIXES];

    struct stk_socket sockets[STK_SOCKETS];
    int16_t socket_buckets[STK_SOCKET_BUCKETS];
    uint16_t ready[STK_SOCKETS];
    uint32_t ready_head, ready_tail;
};

/* Wire integers: neither alignment nor byte order assumed. */
static inline uint16_t be16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}
static inline uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}
static inline void put16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}
static inline void put32(uint8_t *p, uint32_t v)
{
    put16(p, v >> 16);
    put16(p + 2, v);
}
static inline uint64_t word64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}
/* A 16-bit number as it stands in a sum of memory words (checksum.h). */
static inline uint32_t summand(uint32_t v)
{
    return __builtin_bswap16((uint16_t)v);
}
static inline void put_checksum(uint8_t *p, uint16_t sum)
{
    sum = (uint16_t)~sum;
    memcpy(p, &sum, 2);
}
/* RFC 1071: all ones is zero; a sum by subtraction may come out as either. */
static inline int sum_good(uint16_t sum)
{
    return sum == 0xffff || sum == 0;
}

static inline int same16(const uint8_t *a, const uint8_t *b)
{
    return ((word64(a) ^ word64(b)) | (word64(a + 8) ^ word64(b + 8))) == 0;
}
static inline int zero16(const uint8_t *a)
{
    return (word64(a) | word64(a + 8)) == 0;
}
static inline uint32_t address_size(uint32_t family)
{
    return family == 4 ? 4 : 16;
}
/* An address in the 16-byte form: the tail of an IPv4 address is zero, so that whole forms compare. */
static inline void address_set(uint8_t *to, uint32_t family, const uint8_t *from)
{
    memset(to, 0, 16);
    memcpy(to, from, address_size(family));
}

/* stack.c */
uint64_t stk_random(struct stk *s);
uint64_t stk_hash(const struct stk *s, uint32_t family, const uint8_t *address, uint64_t more);
void stk_settle(struct stk *s, int32_t reason, uint64_t frames);
void stk_arm(struct stk *s, uint64_t deadline);
/* The drop reason of a packet that ends early. */
static inline int32_t short_reason(const struct stk_packet *p)
{
    return p->cut ? EXO_R_STACK_SNAPPED : EXO_R_STACK_TOO_SHORT;
}
uint16_t stk_payload_sum(const struct stk_packet *p, uint32_t n);
uint32_t stk_pseudo_sum(uint32_t family, const uint8_t *source, const uint8_t *destination, uint32_t protocol, uint32_t length);
int32_t stk_error_allowed(struct stk *s);

/* ethernet.c */
int32_t stk_ethernet_input(struct stk *s, struct stk_packet *p, const uint8_t *end);
/* A frame of n bytes after the link header, to be filled at the pointer and then sent by stk_frame_done; NULL: no room, counted. */
uint8_t *stk_frame(struct stk *s, const struct stk_path *path, uint32_t type, uint32_t n);
void stk_frame_done(struct stk *s);
void stk_frame_send(struct stk *s, struct stk_pending *pending, const uint8_t *mac);

/* arp.c */
int32_t stk_arp_input(struct stk *s, struct stk_packet *p);
void stk_arp_request(struct stk *s, const struct stk_neighbour *n);

/* neighbour.c */
/* Neighbours on s->port. */
struct stk_neighbour *stk_neighbour_find(const struct stk *s, uint32_t family, const uint8_t *address);
struct stk_neighbour *stk_neighbour_make(struct stk *s, uint32_t family, const uint8_t *address);
void stk_neighbour_learn(struct stk *s, struct stk_neighbour *n, const uint8_t *mac, uint32_t state);
/* To be called before a packet goes to n: starts resolution or verification; 1 where n->mac can be used now. */
int32_t stk_neighbour_use(struct stk *s, struct stk_neighbour *n, const uint8_t *source);
struct stk_pending *stk_pending_new(struct stk *s, struct stk_neighbour *n, uint32_t length, int32_t socket);
void stk_pending_add(struct stk *s, struct stk_neighbour *n, struct stk_pending *pending);
uint64_t stk_neighbour_poll(struct stk *s);
void stk_neighbour_free(struct stk *s);

/* route.c */
int32_t stk_own(const struct stk *s, uint32_t family, const uint8_t *address);
int32_t stk_broadcast4(const struct stk *s, const uint8_t *address);
/* Whether a host on a link can have the address: neither a group nor unspecified nor loopback. */
int32_t stk_unicast(uint32_t family, const uint8_t *address);
/* Whether a packet can come from its source: another host's address, or none of a host that does not know its own yet. */
int32_t stk_source_valid(const struct stk *s, const struct stk_packet *p);
/* The port on which the next hop of flow is known, or the first. */
uint32_t stk_route_port(struct stk *s, const struct stk_flow *flow);
/* Fills flow->path for flow->destination, and flow->source where it is not set: 0 or EXO_E_NOT_FOUND. */
int32_t stk_route(struct stk *s, struct stk_flow *flow);
/* The flow of an answer to p, from the address it was sent to. */
int32_t stk_route_back(struct stk *s, const struct stk_packet *p, struct stk_flow *flow, uint32_t protocol);
void stk_path_too_big(struct stk *s, uint32_t family, const uint8_t *address, uint32_t mtu);
/* any_address: whoever sent p is reached by turning its frame round. */
void stk_route_learn(struct stk *s, const struct stk_packet *p);
uint32_t stk_identifier(struct stk *s, const struct stk_flow *flow);
void stk_prefix_add(struct stk *s, const uint8_t *address, uint32_t bits, uint64_t until);

/* ip4_options.c */
/* RFC 791 3.1: every option is stepped over by its length. EXO_R_DELIVERED or the reason of a drop. */
int32_t stk_ip4_options_check(struct stk *s, const struct stk_packet *p, uint32_t header);
/* RFC 1122 3.2.2.6: what an echo reply takes back of the options of a checked request: the recorded route and times, with those of `own`.
 * out: 40 bytes. Returns how many are used, a multiple of 4. */
uint32_t stk_ip4_options_echo(const struct stk *s, const struct stk_packet *p, const uint8_t *own, uint8_t *out);

/* ip4.c, ip6.c */
int32_t stk_ip4_input(struct stk *s, struct stk_packet *p);
int32_t stk_ip4_deliver(struct stk *s, struct stk_packet *p);
int32_t stk_ip6_input(struct stk *s, struct stk_packet *p);
/* Goes on with the header `p->protocol` at p->payload. */
int32_t stk_ip6_deliver(struct stk *s, struct stk_packet *p);
/* Sends head and data as one datagram, with the transport checksum filled in at head + check; fragments it where needed. head_length is
 * even, at most 64. 0 or EXO_E_FULL. */
int32_t stk_ip_send(struct stk *s, const struct stk_flow *flow, uint8_t *head, uint32_t head_length, uint32_t check, const uint8_t *data,
                    uint32_t length);
int32_t stk_ip4_send(struct stk *s, const struct stk_flow *flow, uint8_t *head, uint32_t head_length, uint32_t check, const uint8_t *data,
                     uint32_t length);
int32_t stk_ip6_send(struct stk *s, const struct stk_flow *flow, uint8_t *head, uint32_t head_length, uint32_t check, const uint8_t *data,
                     uint32_t length);
/* Bytes offset..offset+n of head and data as if they were one. */
static inline void gather(uint8_t *to, const uint8_t *head, uint32_t head_length, const uint8_t *data, uint32_t offset, uint32_t n)
{
    if (offset < head_length) {
        uint32_t part = head_length - offset < n ? head_length - offset : n;
        memcpy(to, head + offset, part);
        to += part;
        offset += part;
        n -= part;
    }
    if (n > 0)
        memcpy(to, data + (offset - head_length), n);
}

/* The checksum of head and data into head + check; sum: what the data adds to it. ICMP over IPv4 has no pseudo header. */
static inline void finish_head(const struct stk_flow *flow, uint8_t *head, uint32_t head_length, uint32_t check, uint32_t length,
                               uint32_t sum)
{
    if (flow->family == 6 || flow->protocol != STK_P_ICMP)
        sum += stk_pseudo_sum(flow->family, flow->source, flow->destination, flow->protocol, head_length + length);
    put_checksum(head + check, exo_checksum(head, head_length, sum));
    if (flow->protocol == STK_P_UDP && be16(head + check) == 0)
        put16(head + check, 0xffff); /* RFC 768, RFC 8200 8.1: zero would say "no checksum" */
}

/* fragment.c */
/* p->payload is a fragment at `offset` of datagram `id`. Delivers the datagram when it is whole. */
int32_t stk_fragment_input(struct stk *s, struct stk_packet *p, uint32_t id, uint32_t offset, uint32_t more);
uint64_t stk_fragment_poll(struct stk *s);
void stk_fragment_free(struct stk *s);

/* icmp.c, icmp6.c, ndp.c */
int32_t stk_icmp_input(struct stk *s, struct stk_packet *p);
void stk_icmp_error(struct stk *s, const struct stk_packet *p, uint32_t type, uint32_t code, uint32_t rest);
int32_t stk_icmp6_input(struct stk *s, struct stk_packet *p);
void stk_icmp6_error(struct stk *s, const struct stk_packet *p, uint32_t type, uint32_t code, uint32_t rest);
int32_t stk_ndp_input(struct stk *s, struct stk_packet *p);
void stk_ndp_solicit(struct stk *s, const struct stk_neighbour *n, int32_t unicast);

/* udp.c, udp_socket.c */
int32_t stk_udp_input(struct stk *s, struct stk_packet *p);
int32_t stk_socket_find(const struct stk *s, uint32_t family, const uint8_t *address, uint32_t port);
int32_t stk_socket_put(struct stk *s, int32_t socket, const struct stk_packet *p, uint32_t peer_port, const uint8_t *data, uint32_t length);
void stk_socket_error(struct stk *s, int32_t socket, int32_t error);
void stk_socket_start(struct stk *s);
void stk_socket_free(struct stk *s);
struct stk_socket *stk_socket_get(const struct stk *s, int32_t socket);

#endif
