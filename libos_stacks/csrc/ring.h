/* SPDX-License-Identifier: MIT
 *
 * The LibOS's side of its four rings and its pages: policy-free helpers that a LibOS's environment is built from.
 * One thread owns a struct stk_rings. The words it writes for the kernel are indices (stored with release, once per burst) and counters
 * (plain stores); the words the kernel writes are loaded with acquire. Nothing here blocks or reads a clock, or allocates after the buffers
 * are made (but a scratch area when the first long frame leaves). ring.c: rings, receive, sleep; buffers.c: fill and transmit; sink.c: the
 * sink; datagram.c: datagrams for a caller in another language.
 */
struct stk_rings;

enum stk_ring_limits {
    STK_RING_EXTENTS = 32,   /* mapped page extents of one LibOS */
    STK_RING_PORTS = 8,      /* outputs of one LibOS */
    STK_RING_CHAIN = 18,     /* entries of a transmit chain (struct exo_transmit) */
    STK_RING_BURST = 64      /* frames between two publications of the indices */
};

/* kernel: the read-only kernel area; libos: the LibOS area. NULL where the ABI version differs or memory is short. */
struct stk_rings *stk_rings_new(const void *kernel, void *libos);
void stk_rings_free(struct stk_rings *rings);
/* Pages first..first+count-1 are mapped at base. EXO_E_INVALID, EXO_E_BUSY (overlaps another extent), EXO_E_FULL. */
int32_t stk_rings_extent(struct stk_rings *rings, uint32_t first, uint32_t count, uint8_t *base);
/* Cuts pages into receive buffers of `size` bytes (staggered by cache lines) and posts as many as the fill ring takes, at most `most`; the
 * rest is kept and posted as buffers return. size: 512, 1024, 2048 or 4096, the same in every call. Returns how many buffers were cut. */
int32_t stk_rings_receive_buffers(struct stk_rings *rings, uint32_t first, uint32_t count, uint32_t size, uint32_t most);
/* Cuts pages into transmit buffers of `size` bytes; likewise. */
int32_t stk_rings_transmit_buffers(struct stk_rings *rings, uint32_t first, uint32_t count, uint32_t size);
/* The output that builds frames in transmit buffers and posts them on `port`. A frame longer than a buffer is built in a scratch area and
 * chained. Past STK_RING_PORTS ports, or without room or buffers, reserve() gives NULL: the stack counts it. */
void stk_rings_output(struct stk_rings *rings, uint32_t port, struct stk_output *out);
/* Feeds at most max received frames to the stack, posts the buffers again, reaps completions, runs the stack's timers where one may be
 * due, accounts in the LibOS area's counters. Returns frames consumed. */
uint32_t stk_rings_pump(struct stk_rings *rings, struct stk *stack, uint32_t max, uint64_t now);
/* stk_poll with the accounting: the next deadline, ns, or UINT64_MAX. */
uint64_t stk_rings_poll(struct stk_rings *rings, struct stk *stack, uint64_t now);
/* Counts and digests at most max received frames, posts the buffers again: the sink. */
uint32_t stk_rings_sink(struct stk_rings *rings, uint32_t max);
/* stk_rings_sink, again and again, until max frames are consumed, `spins` looks in a row found nothing, or the kernel asks to stop. */
uint32_t stk_rings_sink_loop(struct stk_rings *rings, uint32_t max, uint32_t spins);
/* Publishes what was posted to transmit and says whether the kernel must be woken (its need_wakeup, after a full fence). */
int32_t stk_rings_flush(struct stk_rings *rings);
/* Looks at the rings up to `spins` times: 1 as soon as there is something to receive or reap or the kernel asks to stop, else 0. */
int32_t stk_rings_spin(const struct stk_rings *rings, uint32_t spins);
/* Before sleeping: sets our need_wakeup, fences, and says whether there is work after all (do not sleep; need_wakeup is cleared again). */
int32_t stk_rings_prepare_sleep(struct stk_rings *rings);
void stk_rings_awake(struct stk_rings *rings);
/* 1: the kernel asks this environment to leave. */
int32_t stk_rings_stopped(const struct stk_rings *rings);

/* Where the buffers are, and what went wrong on the way. */
struct stk_rings_status {
    uint32_t posted;         /* receive buffers the kernel has */
    uint32_t spare;          /* receive buffers we keep */
    uint32_t transmit_free;
    uint32_t in_flight;      /* transmit buffers the kernel has */
    uint64_t sent;           /* frames posted to transmit */
    uint64_t refused;        /* transmit entries that came back with a drop reason */
    uint64_t unreadable;     /* received frames in pages that are not ours: counted as stack.unaccounted */
};
void stk_rings_status(const struct stk_rings *rings, struct stk_rings_status *out);

/* Who sent a datagram and which address it was sent to: all an answer needs. Flat, so that a caller may keep it as 40 opaque bytes. */
struct stk_peer {
    uint8_t family;          /* 4 or 6 */
    uint8_t link;            /* 1 + the port of the machine that it came in at, where the answer leaves; 0: the stack chooses */
    uint16_t port;
    uint32_t scope;
    uint8_t address[16];
    uint8_t local[16];       /* the source of the answer; all zero: the stack chooses */
};

struct stk_inbox {
    struct stk_peer peer;
    uint64_t timestamp;
    uint8_t data[65536];
};

/* Copies the oldest datagram of the first of n sockets that has one out and drops it from the queue: its length, with STK_TAKE_MORE added
 * where these sockets have another, or -1 where there is none. */
enum stk_take { STK_TAKE_MORE = 1048576 };
int32_t stk_udp_take(struct stk *stack, const int32_t *sockets, uint32_t n, struct stk_inbox *inbox);
/* stk_udp_send to a peer (a struct stk_peer, unaligned) at the time of the last pump or poll. The same errors. */
int32_t stk_rings_send(struct stk_rings *rings, struct stk *stack, int32_t socket, const uint8_t *peer, const uint8_t *data, uint32_t length);
