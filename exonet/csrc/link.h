/* SPDX-License-Identifier: MIT
 *
 * The other wires: tap, cable, and the wrappers impair, tee, pace and resegment. Each maker returns NULL where there is no memory.
 * Counting: a wire counts in[], copies[] and its own drops of stage SOURCE; out[] is counted by the port that takes the frame.
 * close() of a wrapper frees the wrapper only: the wire inside is its maker's, and is closed after it.
 * A wrapper's fd follows its inner wire's and may change with every call: -1 while a clock, not a descriptor, decides.
 */
struct exo_tap_counters {
    uint64_t empty_reads;    /* reads that found nothing: at most one a burst */
    uint64_t read_errors;    /* frames the kernel had and could not hand over: tap.read_error */
    uint64_t truncated;      /* longer than the buffer (the MTU was raised meanwhile): flagged EXO_F_SNAPPED */
    uint64_t write_errors;   /* frames the device refused: it is down, or the frame is impossible */
    uint64_t write_full;     /* times the device would take no more */
};

/* A non-blocking TAP descriptor (IFF_TAP | IFF_NO_PI), which becomes the wire's. receive and send return EXO_E_SYSTEM only when the
 * device is gone; one that is down is quiet, and refuses what is sent. */
struct exo_wire *exo_tap_new(int32_t fd, uint32_t mtu);
const struct exo_tap_counters *exo_tap_counters(const struct exo_wire *wire);

/* Two wires joined: what one end sends the other receives latency ns later. Each direction holds at most `frames`; wake 1: each end
 * has a descriptor (an eventfd), for ends on two threads that sleep. After one end is closed the other receives what is queued, then
 * EXO_E_END, and its send returns EXO_E_END. 0, EXO_E_INVALID, EXO_E_MEMORY, EXO_E_SYSTEM. */
int32_t exo_cable_new(uint32_t frames, uint64_t latency, uint32_t wake, struct exo_wire *ends[2]);

/* Probabilities are parts of 2^32 (4294967296: always); times are ns. */
struct exo_impairments {
    uint64_t loss;
    uint64_t reorder;        /* held back until the next frame has overtaken it, or 10 ms have gone */
    uint64_t duplicate;
    uint64_t corrupt;        /* one bit is flipped */
    uint64_t delay;
    uint64_t jitter;         /* delay varies by up to this, evenly, to both sides; the order stays */
    uint32_t both;           /* 1: sent frames too, else only received ones */
    uint32_t limit;          /* frames held at most, each direction; more are dropped as source.queue_full */
};

struct exo_impair_counters {
    uint64_t seen;
    uint64_t lost;
    uint64_t reordered;
    uint64_t duplicated;
    uint64_t corrupted;
    uint64_t overflowed;
    uint64_t refused;        /* sent direction: the inner wire would not take it when its time had come */
};

struct exo_wire *exo_impair_new(struct exo_wire *inner, const struct exo_impairments *impairments, uint64_t seed);
/* direction 0: received, 1: sent. */
const struct exo_impair_counters *exo_impair_counters(const struct exo_wire *wire, uint32_t direction);

struct exo_tee_counters {
    uint64_t written;        /* packets in the file */
    uint64_t in_flight;      /* of those, without a fate at close */
    uint64_t forgotten;      /* of those, without a fate when the memory ran out */
    uint64_t unknown;        /* fates of frames that were no longer remembered: not in the file */
    uint64_t bytes;          /* of the file */
    int64_t error;           /* errno of the write that failed; nothing is written after it */
};

/* fd: the pcapng file, which becomes the wire's. memory: bytes of frames remembered until their fate is known. epoch: what to add to
 * the machine's clock to get ns since 1970. */
struct exo_wire *exo_tee_new(struct exo_wire *inner, int32_t fd, uint32_t classic, uint64_t memory, uint64_t epoch);
/* The name that comments use for an environment. EXO_E_INVALID, EXO_E_MEMORY. */
int32_t exo_tee_name(struct exo_wire *wire, uint32_t env, const char *name);
/* Writes what is buffered to the file. 0, EXO_E_SYSTEM. */
int32_t exo_tee_flush(struct exo_wire *wire);
/* Writes every frame without a fate as "in flight"; the run has ended. 0, EXO_E_SYSTEM. */
int32_t exo_tee_finish(struct exo_wire *wire);
const struct exo_tee_counters *exo_tee_counters(struct exo_wire *wire);

/* What due times are made from: the same four as enum exo_replay_mode, with the same numbers. */
enum exo_pace { EXO_PACE_STAMPS, EXO_PACE_FRAMES, EXO_PACE_BITS, EXO_PACE_MAX };

/* multiply / divide: ns for a ns of capture time, for a frame, or for a bit on the line (max(wire_len, 60) + 24 bytes a frame). NULL
 * too where kind or divide is impossible. */
struct exo_wire *exo_pace_new(struct exo_wire *inner, uint32_t kind, uint64_t multiply, uint64_t divide);
/* Frames whose stamp lay before their predecessor's: let out at once (R7). */
uint64_t exo_pace_backward(const struct exo_wire *wire);

/* Frame k of those that a packet was cut into has the packet's number plus k << EXO_SEGMENT_SHIFT. */
enum exo_segment_number { EXO_SEGMENT_SHIFT = 43, EXO_SEGMENT_MASK = 8191 };

struct exo_resegment_counters {
    uint64_t packets;        /* that were cut, or whose missing IP length was filled in */
    uint64_t segments;       /* that they became */
    uint64_t snapped;        /* super-frames of which the snaplen left a part: they pass as they are */
};

/* mtu: the longest IP packet, 68..65521. beside: NULL, or a resegment wire for the other direction of the same traffic, whose connections
 * this one shares. */
struct exo_wire *exo_resegment_new(struct exo_wire *inner, uint32_t mtu, uint64_t seed, struct exo_wire *beside);
const struct exo_resegment_counters *exo_resegment_counters(const struct exo_wire *wire);
