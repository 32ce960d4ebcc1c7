/* SPDX-License-Identifier: MIT
 *
 * The demux: whose is this frame? Bindings are sets of conjuncts; a conjunct is a box: masked values over a frame's bytes, with
 * the base of each offset and the lengths that must be there. This is the interface the native compiler takes over.
 * The most specific conjunct that holds wins: more mask bits, then less breadth, then more excluded atoms, then longer guards.
 */
enum exo_base {
    EXO_BASE_FRAME,          /* offset from the first byte of the frame */
    EXO_BASE_IP4,            /* offset from the end of the IPv4 header at 14: 14 + 4 * (frame[14] & 15); see ip4_at */
    EXO_BASE_LENGTH,         /* the frame's length on the wire as a 32-bit big-endian word at offset 0 */
    EXO_BASE_NOT = 32768     /* added to one of the above: the atom must not hold (it excludes a value of the box) */
};

/* (32-bit big-endian word at base + offset) & mask == value; value & ~mask == 0. */
struct exo_atom {
    uint16_t base;
    uint16_t offset;
    uint32_t mask;
    uint32_t value;
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
    uint32_t breadth;        /* log2 of the volume of the filter it came from, scaled: narrower wins among equal keys */
    struct exo_atom atom[24];
};

enum exo_demux_limits { EXO_MAX_ATOMS = 24, EXO_MAX_SHAPES = 256, EXO_MAX_BINDINGS = 1048576 };
enum exo_demux_owner { EXO_NO_OWNER = 4294967295 };

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
/* Every binding that takes the frame (group frames and snoopers), each once, most specific first; returns how many, at most max
 * are written (more than max: some of those beyond may be counted twice). */
uint32_t exo_demux_match_all(const struct exo_demux *demux, const struct exo_frame *frame, uint32_t *bindings, uint32_t max);
uint32_t exo_demux_shapes(const struct exo_demux *demux);
uint32_t exo_demux_conjuncts(const struct exo_demux *demux);
/* Memory held, in bytes. */
uint64_t exo_demux_bytes(const struct exo_demux *demux);
