/* SPDX-License-Identifier: MIT
 *
 * The pcap wire: a trace replayed at a speed, in loops, some of it left out, some of it rewritten. Due times count from the start
 * (never from the frame before's), in integer ns. Also what a rewrite does to one frame, which the wire's users share.
 *
 * A frame's bits on the wire: max(wire_len, 60) + 4 (FCS) + 20 (preamble, start delimiter, inter-frame gap) bytes.
 */
struct exo_replay;

enum exo_replay_mode {
    EXO_REPLAY_STAMPS,       /* the capture's own times, ns * multiply / divide */
    EXO_REPLAY_FRAMES,       /* frame k is due at k * multiply / divide ns */
    EXO_REPLAY_BITS,         /* a frame is due when the bits before it have gone: bits * multiply / divide ns */
    EXO_REPLAY_MAX           /* all frames are due now */
};

enum exo_replay_overhead { EXO_WIRE_OVERHEAD = 24 };

enum exo_rewrite_flag {
    EXO_REWRITE_SOURCE_MAC = 1,
    EXO_REWRITE_DESTINATION_MAC = 2,
    EXO_REWRITE_VLAN_SET = 4,        /* tag with vlan, or change the outer tag's VLAN number */
    EXO_REWRITE_VLAN_STRIP = 8,      /* take the outer tag away */
    EXO_REWRITE_TTL = 16,            /* IPv4 time to live, IPv6 hop limit */
    EXO_REWRITE_CHECKSUMS = 32       /* compute IPv4, ICMP, TCP and UDP checksums anew where the whole packet is there */
};

/* Addresses in from/from_bits get the first to_bits bits of `to`, as tcprewrite's --pnat. The first map that matches counts. */
struct exo_prefix_map {
    uint8_t from[16];
    uint8_t to[16];
    uint16_t family;         /* 4 or 6 */
    uint8_t from_bits;
    uint8_t to_bits;
};

/* Ports first..last become `to` (TCP, UDP; source and destination). */
struct exo_port_map {
    uint16_t first;
    uint16_t last;
    uint16_t to;
    uint16_t reserved;
};

enum exo_rewrite_limits { EXO_MAX_MAPS = 16 };

struct exo_rewrite {
    uint32_t flags;
    uint8_t source_mac[6];
    uint8_t destination_mac[6];
    uint16_t vlan;           /* 0..4095 */
    uint8_t ttl;
    uint8_t reserved;
    uint16_t prefix_maps;
    uint16_t port_maps;
    struct exo_prefix_map prefix_map[16];
    struct exo_port_map port_map[16];
};

enum exo_split_rule {
    EXO_SPLIT_NONE,
    EXO_SPLIT_MAC,           /* a client is who speaks first; its frames are side 0, its peer's side 1 */
    EXO_SPLIT_PREFIX         /* frames from an address in one of the prefixes are side 0; no address: as EXO_SPLIT_MAC learned */
};

struct exo_prefix {
    uint8_t address[16];
    uint16_t family;
    uint16_t bits;
};

struct exo_replay_config {
    uint32_t mode;           /* enum exo_replay_mode */
    uint32_t shift;          /* 1: loop k adds k to every unicast IP address */
    uint64_t multiply;       /* <= 10^15 */
    uint64_t divide;
    uint64_t loops;          /* 0: for ever */
    uint64_t limit;          /* frames of all sides; UINT64_MAX: none */
    uint64_t duration;       /* ns from the start; UINT64_MAX: none */
    uint64_t max_gap;        /* ns of capture time: EXO_REPLAY_STAMPS waits no longer for a frame; 0: as long as the capture has it */
    uint64_t bpf_filter;     /* address of libpcap's bpf_filter(); 0: no filters */
    uint64_t include;        /* address of a struct bpf_insn array; 0: none. The caller keeps it alive. */
    uint64_t exclude;
    struct exo_rewrite rewrite;
    uint32_t split;          /* enum exo_split_rule */
    uint32_t side;           /* 0 or 1: which side this wire is. Source drops count on side 0 */
    uint32_t prefixes;
    struct exo_prefix prefix[16];
};

struct exo_replay_counters {
    uint64_t records;        /* taken from the trace, over all loops, of both sides */
    uint64_t loops;          /* completed */
    uint64_t backward;       /* timestamps before the last one's: sent without a wait */
    uint64_t snapped;
    uint64_t converted;      /* frames given that were of another link type */
    uint64_t excluded;
    uint64_t link_type;
    uint64_t oversize;
    uint64_t other_side;
    uint64_t rewritten;
};

/* NULL: error is EXO_E_INVALID (a value out of its range) or EXO_E_MEMORY. Holds the trace until its close. */
struct exo_wire *exo_replay_new(struct exo_trace *trace, const struct exo_replay_config *config, int32_t *error);
/* Begins anew, anchored at now. A wire that was not started starts at its first receive. EXO_E_SYSTEM, EXO_E_MEMORY. */
int32_t exo_replay_start(struct exo_wire *wire, uint64_t now);
/* Two sides of one trace: the one that is asked second, not having been started, begins when the other did. */
void exo_replay_pair(struct exo_wire *wire, struct exo_wire *other);
/* ns of capture time from the first to the last frame as EXO_REPLAY_STAMPS has it: no steps back, no gap longer than max_gap
 * (0: however long). EXO_E_MEMORY. */
int32_t exo_replay_length(struct exo_trace *trace, uint64_t max_gap, uint64_t *ns);
const struct exo_replay_counters *exo_replay_counters(const struct exo_wire *wire);
const struct exo_delays *exo_replay_delays(const struct exo_wire *wire);

/* EXO_E_INVALID: a field out of its range. */
int32_t exo_rewrite_check(const struct exo_rewrite *rewrite);
/* Rewrites a frame into `out` (room for len + 4) and sets data, len and wire_len; addresses move by `shift`. Checksums are kept as
 * right, or as wrong, as they were (RFC 1624), unless EXO_REWRITE_CHECKSUMS. Frames that do not parse keep what does not. */
void exo_rewrite_frame(const struct exo_rewrite *rewrite, uint64_t shift, struct exo_frame *frame, uint8_t *out);
