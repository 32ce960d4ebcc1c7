/* SPDX-License-Identifier: MIT
 *
 * The stack engine: (frames in, now) -> (frames out, events, next deadline). No I/O, no clock, no global state; everything hangs
 * from struct stk. Addresses are 16 bytes with a family beside them (IPv4 in the first four). Ports are in host order.
 * Interface for rings (ring.h), the link simulator of the tests, and the fuzzer alike. Invariant, at every return:
 * in_frames == delivered + sum(drop) + stk_held().
 */
enum stk_limits { STK_ADDRESSES = 16, STK_SOCKETS = 1024, STK_PORTS = 8, STK_ANY_PORT = 255 };

/* States of a neighbour (RFC 4861 7.3.2, for ARP too). PERMANENT: learnt under any_address, never asked for. */
enum stk_neighbour_state {
    STK_N_FREE, STK_N_INCOMPLETE, STK_N_REACHABLE, STK_N_STALE, STK_N_DELAY, STK_N_PROBE, STK_N_PERMANENT
};

struct stk_address {
    uint8_t family;          /* 4 or 6; 0: none */
    uint8_t prefix;          /* length of the on-link prefix, bits */
    uint8_t bytes[16];
    uint8_t pad[2];
};

struct stk_config {
    uint8_t mac[6];
    uint16_t mtu;            /* IP bytes in a frame, 576..65521; 1500 where 0 */
    uint16_t vlan;           /* 0: untagged; else the 802.1Q VLAN this stack lives on */
    uint16_t any_address;    /* 1: takes unicast for every MAC and IP address as its own and answers as the one addressed: replay */
    uint32_t address_count;
    struct stk_address address[16];
    struct stk_address gateway4;
    struct stk_address gateway6;
    uint32_t socket_bytes;   /* receive queue of a socket, bytes; 262144 where 0 */
    uint32_t reassembly_bytes;  /* all fragments held; 262144 where 0 */
    uint32_t neighbours;     /* neighbour table; 256 where 0 */
    uint64_t seed;           /* of identifiers and hashes */
};

/* Where frames go. reserve: n writable bytes, or NULL: no room now (the frame is dropped and counted as out_no_buffer). commit: the
 * last reserved buffer holds a frame of n bytes. Each reserve is followed by its commit. Neither may call the stack. Frames are not padded
 * to 60 bytes: that is the wire's (R7). */
struct stk_output {
    void *context;
    uint8_t *(*reserve)(void *context, uint32_t n);
    void (*commit)(void *context, uint32_t n);
};

struct stk_counters {
    uint64_t in_frames;
    uint64_t in_bytes;
    uint64_t out_frames;
    uint64_t out_bytes;
    uint64_t out_no_buffer;
    uint64_t out_neigh_failed;   /* packets that waited for a neighbour that never answered */
    uint64_t arp_in, arp_out, ndp_in, ndp_out, echo_in, echo_out, unreachable_out, too_big_out;
    uint64_t fragments_in, fragments_out, reassembled;
    uint64_t udp_in, udp_out;
    uint64_t address_conflicts;  /* somebody else claimed one of our addresses (RFC 5227 2.4) */
    uint64_t errors_limited;     /* ICMP errors the token bucket held back */
    uint64_t delivered;
    uint64_t drop[32];           /* by exo_reason - EXO_R_STACK_FIRST */
};

/* One datagram as stk_udp_receive hands it out; data is valid until stk_udp_done. */
struct stk_datagram {
    const uint8_t *data;
    uint32_t length;
    uint16_t family;
    uint16_t port;           /* the peer's */
    uint16_t local_port;
    uint16_t link;           /* the port of the machine that it came in at: where an answer leaves */
    uint32_t scope;
    uint8_t peer[16];
    uint8_t local[16];       /* the address it was sent to: the source of an answer */
    uint8_t peer_mac[6];
    uint8_t pad2[2];
    uint64_t timestamp;      /* `now` of the stk_input that brought it */
};

struct stk;

/* NULL, or what is wrong with the configuration: a constant string. */
const char *stk_config_check(const struct stk_config *config);
/* NULL: no memory, or the configuration is out of its ranges (stk_config_check says which). */
struct stk *stk_new(const struct stk_config *config, const struct stk_output *output);
void stk_free(struct stk *stack);
/* A stack on several ports of the machine, 0..STK_PORTS-1: what leaves by `port` goes to this output. The first one named is where goes
 * what answers nobody and whose next hop is not known on any other. Without a call all ports are the output of stk_new. */
void stk_output_on(struct stk *stack, uint32_t port, const struct stk_output *output);
/* One frame. flags and csum as in struct exo_receive. Returns EXO_R_DELIVERED (0) where the stack used or holds it, else the exo_reason
 * of stage STACK under which this frame was dropped. A frame held for reassembly returns EXO_R_DELIVERED and is in stk_held(), not yet in
 * counters.delivered; it settles later, with all fragments of its datagram, as delivered or under the reason that ended the datagram. So the
 * counters are the account; do not count return values. */
int32_t stk_input(struct stk *stack, const uint8_t *frame, uint32_t length, uint32_t wire_len, uint32_t flags, uint32_t csum, uint64_t now);
/* The same of a frame that came in at a port: what it causes to be sent leaves there. stk_input is of port 0. */
int32_t stk_input_at(struct stk *stack, uint32_t port, const uint8_t *frame, uint32_t length, uint32_t wire_len, uint32_t flags, uint32_t csum,
                     uint64_t now);
/* Runs the timers due at now; returns the next deadline, ns, or UINT64_MAX. */
uint64_t stk_poll(struct stk *stack, uint64_t now);
uint64_t stk_held(const struct stk *stack);
const struct stk_counters *stk_counters(const struct stk *stack);

/* UDP (RFC 768). Returns a socket number, or EXO_E_BUSY (port taken), EXO_E_FULL, EXO_E_INVALID. port 0: an ephemeral one. address
 * may be NULL: any. */
int32_t stk_udp_open(struct stk *stack, uint32_t family, const uint8_t *address, uint32_t port);
int32_t stk_udp_close(struct stk *stack, int32_t socket);
int32_t stk_udp_port(const struct stk *stack, int32_t socket);
/* Sends length bytes (fragmented where larger than the MTU, RFC 791 / RFC 8200). local NULL: chosen. 0, EXO_E_INVALID (too long),
 * EXO_E_NOT_FOUND (no route), EXO_E_FULL (no buffer). Waits for the neighbour's address by itself. */
int32_t stk_udp_send(struct stk *stack, int32_t socket, uint32_t family, const uint8_t *peer, uint32_t port, const uint8_t *local,
                     const uint8_t *data, uint32_t length, uint64_t now);
/* The same by a port, or STK_ANY_PORT: that on which the next hop is known, else the first. stk_udp_send is by any. */
int32_t stk_udp_send_by(struct stk *stack, uint32_t port, int32_t socket, uint32_t family, const uint8_t *peer, uint32_t peer_port,
                        const uint8_t *local, const uint8_t *data, uint32_t length, uint64_t now);
/* The oldest datagram: 1, or 0 where there is none. It stays until stk_udp_done. */
int32_t stk_udp_receive(struct stk *stack, int32_t socket, struct stk_datagram *out);
void stk_udp_done(struct stk *stack, int32_t socket);
/* A socket with something to read, round robin, or -1. */
int32_t stk_udp_ready(struct stk *stack);
/* The last ICMP error that quoted this socket's packet, cleared by reading: 0 or (type << 8 | code) of ICMP, + 65536 for ICMPv6. */
int32_t stk_udp_error(struct stk *stack, int32_t socket);
/* The groups (multicast MAC addresses) this stack must receive: broadcast, solicited-node, all-nodes. Returns how many. */
uint32_t stk_groups(const struct stk *stack, uint8_t (*macs)[6], uint32_t max);
/* What the path to an address takes, IP bytes: the link's MTU, or less after a "too big" (RFC 1191, RFC 8201). */
uint32_t stk_path_mtu(const struct stk *stack, uint32_t family, const uint8_t *address, uint64_t now);
/* The stk_neighbour_state of an address on the first port and, where it is known, its MAC address; STK_N_FREE where there is no entry. mac may
 * be NULL. */
int32_t stk_neighbour_get(struct stk *stack, uint32_t family, const uint8_t *address, uint8_t *mac);

/* An output that keeps frames in memory, oldest first: for tests, simulated links and apps without rings. */
struct stk_memory;
struct stk_memory *stk_memory_new(uint32_t bytes);
void stk_memory_free(struct stk_memory *memory);
void stk_memory_output(struct stk_memory *memory, struct stk_output *out);
/* The oldest frame: its length, 0 where there is none. *frame is valid until the next frame is reserved. */
uint32_t stk_memory_take(struct stk_memory *memory, const uint8_t **frame);
