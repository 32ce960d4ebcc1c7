/* SPDX-License-Identifier: MIT
 *
 * The demux: whose is this frame? Bindings are sets of conjuncts; a conjunct is a box: masked values over a frame's bytes, at most
 * one field that lies in an interval, with the base of each offset and the lengths that must be there. Conjuncts that differ in
 * values only share a shape: one table, one probe function. The most specific conjunct that holds wins: the smaller box first (bits
 * that it fixes, an interval counting by its size), then less breadth, then more excluded atoms, then longer guards.
 */
enum exo_base {
    EXO_BASE_FRAME,          /* offset from the first byte of the frame */
    EXO_BASE_IP4,            /* offset from the end of the IPv4 header at 14: 14 + 4 * (frame[14] & 15); see ip4_at */
    EXO_BASE_LENGTH,         /* the frame's length on the wire as a 32-bit big-endian word at offset 0 */
    EXO_BASE_PROGRAM,        /* of a lane only: not bytes but a program's verdict */
    EXO_BASE_NOT = 32768     /* added to one of the above: the atom must not hold (it excludes a value of the box) */
};

/* (32-bit big-endian word at base + offset) & mask == value; value & ~mask == 0. */
struct exo_atom {
    uint16_t base;
    uint16_t offset;
    uint32_t mask;
    uint32_t value;
};

/* low <= (big-endian field of 1, 2 or 4 bytes at base + offset) <= high. bytes 0: there is none. */
struct exo_interval {
    uint16_t base;
    uint16_t offset;
    uint32_t bytes;
    uint32_t low;
    uint32_t high;
};

/* An instruction of classic BPF, as libpcap has it. */
struct exo_instruction {
    uint16_t code;
    uint8_t jt;
    uint8_t jf;
    uint32_t k;
};

/* One box: all atoms hold and the captured bytes reach frame_bytes, and ip4_bytes after the IPv4 header (0: no such need). An
 * atom's word may reach past the captured bytes where its mask is zero there: the guards alone decide on length, and are raised
 * to cover every masked byte. */
struct exo_conjunct {
    uint32_t binding;
    uint16_t atoms;
    uint16_t ip4_at;         /* where the IPv4 header of EXO_BASE_IP4 begins, behind tags; 0: at 14 */
    uint32_t frame_bytes;
    uint32_t ip4_bytes;
    uint32_t breadth;        /* log2 of the volume of the filter it came from, scaled: narrower wins among equal boxes */
    struct exo_interval interval;
    struct exo_atom atom[24];
    uint32_t instructions;   /* 0: no program */
    struct exo_instruction program[];   /* must take the frame, too; counts as a bit and as an excluded atom */
};

enum exo_demux_limits {
    EXO_MAX_ATOMS = 24, EXO_MAX_LANES = 24, EXO_MAX_SHAPES = 256, EXO_MAX_PROGRAM = 512, EXO_MAX_BINDINGS = 1048576, EXO_PROBE_BURST = 64
};
enum exo_demux_owner { EXO_NO_OWNER = 4294967295, EXO_NO_ENTRY = 4294967295, EXO_ANY_PROTOCOL = 256 };

/* A load of 1, 2, 4 or 8 bytes in the machine's own order at base + offset, masked: a part of the key. It ends where its last
 * masked byte does (so the guards cover it) and may begin before the base. Of what is excluded, the first three bytes of a frame are
 * a load too. */
struct exo_lane {
    int32_t offset;
    uint16_t base;
    uint16_t bytes;
    uint64_t mask;
};

/* What a shape is; equal bytes mean the same shape, and native code is made from this alone. Values that the dispatch decides on
 * are here and not in the key: the ethertype, the protocol of an IP packet, and that it is not a later fragment. */
struct exo_form {
    uint32_t ethertype;      /* 0: not fixed; 1: in the key, and none that is dispatched on */
    uint32_t protocol;       /* EXO_ANY_PROTOCOL; else the byte at 23 (IPv4) or 20 (IPv6) */
    uint32_t unfragmented;   /* the 13 bits of the fragment offset at 20 are zero */
    uint32_t lanes;
    uint32_t excluded;       /* lanes that must not hold, after those that must; the last may be a program */
    uint32_t frame_bytes;
    uint32_t ip4_bytes;
    uint32_t ip4_at;         /* 0: no IPv4 base in use */
    struct exo_interval interval;    /* where it is; low and high are zero */
    struct exo_lane lane[24];
};

/* A cache line of a table's index: the tags of seven keys, and their entries' numbers. tag 0: free. tag[7] counts the keys that would
 * have come here and found no room: where it is not 0, a key that is not here may be in the next bucket. entry[7] is the entry to take
 * where no tag is the key's: EXO_ENTRY_NOBODY, or EXO_ENTRY_ELSEWHERE where it may be in the next bucket. */
struct exo_bucket {
    uint32_t tag[8];
    uint32_t entry[8];
};

/* Entries that are no key's. */
enum exo_entry_reserved { EXO_ENTRY_NOBODY, EXO_ENTRY_ELSEWHERE, EXO_ENTRY_FIRST };

/* A shape's table as a probe sees it. The hash of a key is the sum of its lanes times the multipliers; its upper bits are the home
 * bucket, its upper 32 bits with the lowest of them set are the tag. An entry is `stride` bytes: 16 that are the demux's, the first four
 * of them the binding, then its lanes. */
struct exo_table {
    const struct exo_bucket *index;
    const uint8_t *entries;
    uint32_t shift;          /* 64 - log2 of the number of buckets */
    uint32_t stride;
    uint32_t large;          /* 1: index and entries are more than a core's own cache */
    uint32_t unused;
    const struct exo_form *form;
    uint64_t multiplier[24];
};

/* A frame on its way through the shapes of a leaf: what of it is asked, and its place in the burst. port: where the leaf asks for
 * it, of no use to a probe. */
struct exo_asked {
    const uint8_t *data;
    uint32_t len;
    uint32_t wire_len;
    uint32_t place;
    uint32_t port;
};

/* Looks up n <= EXO_PROBE_BURST frames. found[i]: the entry of the key of asked[i], or EXO_NO_ENTRY; where there is one its binding is
 * also put into owners[asked[i].place]. Reads nothing past a frame's len. The dispatch has seen to ethertype and protocol. */
typedef void (*exo_probe)(const struct exo_table *table, const struct exo_asked *asked, uint32_t n, uint32_t *found, uint32_t *owners);

/* Places in a burst. */
struct exo_places {
    uint32_t n;
    uint8_t place[64];
};

/* Looks up n <= EXO_PROBE_BURST frames as they come: no dispatch has seen them. One of the shape's ethertype and protocol gets its owner
 * where its key is in the table; where it surely is not, its place is missed. Those on which only the long way can decide (another
 * ethertype or protocol, a longer IPv4 header, too short, a full bucket) go aside. The shape's key alone decides on a frame. */
typedef void (*exo_glance)(const struct exo_table *table, const struct exo_frame *frames, uint32_t n, struct exo_places *missed,
                           struct exo_places *aside, uint32_t *owners);

/* A probe of one frame, by the table: the rarer way of native code. */
void exo_demux_ask(const struct exo_table *table, const struct exo_asked *asked, uint32_t *found, uint32_t *owner);

/* Does the program take the frame? As libpcap's bpf_filter says; EXO_E_INVALID: it is none that is run here. */
int32_t exo_program_takes(const struct exo_instruction *program, uint32_t instructions, const uint8_t *data, uint32_t len, uint32_t wire_len);

struct exo_demux;

struct exo_demux *exo_demux_new(uint64_t seed);
void exo_demux_free(struct exo_demux *demux);
/* EXO_E_FULL: shapes or table; EXO_E_INVALID: a bad box; EXO_E_CONFLICT: the same box with the same breadth belongs to another;
 * EXO_E_MEMORY. Nothing is changed by a refusal. The same box twice for one binding is kept once. */
int32_t exo_demux_insert(struct exo_demux *demux, const struct exo_conjunct *conjunct);
/* Every conjunct of a binding; returns how many there were. */
int32_t exo_demux_remove(struct exo_demux *demux, uint32_t binding);
/* A burst in, owners out: the binding of the most specific conjunct that holds, or EXO_NO_OWNER. Reads nothing past len. */
void exo_demux_classify(const struct exo_demux *demux, const struct exo_frame *frames, uint32_t n, uint32_t *owners);
/* What takes a frame: the more bits, then the less breadth, then the smaller interval, the more specific. EXO_NO_OWNER: nothing yet. */
struct exo_taker {
    uint32_t binding;
    uint32_t bits;
    uint32_t breadth;
    uint32_t size;           /* of its interval */
};

/* Where the most specific taker is kept of all bindings that count as one with this; NULL: it is not wanted. */
typedef struct exo_taker *(*exo_keep)(void *context, uint32_t binding);

/* The most specific taker of a frame in each place that `keep` names (group frames and snoopers: one per environment). Asks once for
 * every conjunct that may take the frame, in no order: what that costs grows with their number and no faster. */
void exo_demux_most_specific(const struct exo_demux *demux, const struct exo_frame *frame, exo_keep keep, void *context);
/* Every binding that takes the frame, each once, most specific first; returns how many, at most max are written (more than max: some
 * of those beyond may be counted twice). For a max that is small: each is sought among those before it. */
uint32_t exo_demux_match_all(const struct exo_demux *demux, const struct exo_frame *frame, uint32_t *bindings, uint32_t max);
uint32_t exo_demux_shapes(const struct exo_demux *demux);
uint32_t exo_demux_conjuncts(const struct exo_demux *demux);
/* Grows with every conjunct that comes or goes: what was classified before may be answered otherwise now. */
uint64_t exo_demux_changes(const struct exo_demux *demux);
/* Memory held, in bytes. */
uint64_t exo_demux_bytes(const struct exo_demux *demux);

/* Native code. A shape is asked by its table until exo_demux_install has given it a probe; only the kernel thread installs, between
 * bursts. */
/* The form of the shape at a place, 0..EXO_MAX_SHAPES-1: 1 where it is answered natively, 0 where by its table, EXO_E_INVALID where there is none. */
int32_t exo_demux_form(const struct exo_demux *demux, uint32_t place, struct exo_form *form);
/* Which shape a conjunct falls in, whether or not that is there. EXO_E_INVALID: a bad box. */
int32_t exo_form_of(const struct exo_conjunct *conjunct, struct exo_form *form);
/* Where the IP destination is that every conjunct of the shape fixes, or 0: one that fixes none is asked for everybody's frames. */
uint32_t exo_form_destination(const struct exo_form *form);
/* The pair of ethertype and protocol that the dispatch tells the shape by, as a number. */
uint32_t exo_form_branch(const struct exo_form *form);
/* Bytes of an entry of the shape. */
uint32_t exo_form_stride(const struct exo_form *form);
/* Gives every shape of that form (there is at most one) its code; probe NULL: back to the table; glance NULL: no frame is looked up
 * before the dispatch. Returns how many that were. */
int32_t exo_demux_install(struct exo_demux *demux, const struct exo_form *form, exo_probe probe, exo_glance glance);
/* Grows whenever a shape comes or goes: look for forms without native code then. */
uint64_t exo_demux_generation(const struct exo_demux *demux);
