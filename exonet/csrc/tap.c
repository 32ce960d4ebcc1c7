/* SPDX-License-Identifier: MIT
 *
 * The TAP wire: frames of a kernel network device, a read or a write each.
 * A burst lies in buffers of the wire's own, one per slot, valid until the next receive. Their stride is an odd multiple of a
 * cache line, so that the headers of a burst fall into different cache sets.
 * A TAP hands over frames as short as ARP's 42 bytes: len and wire_len are that; padding is the NIC's.
 * IFF_VNET_HDR will put its header in front of each frame: `header` bytes of every slot and write are its place.
 * Reference: Linux drivers/net/tun.c; Documentation/networking/tuntap.rst.
 */
#include <errno.h>
#include <unistd.h>

#include "wrap.h"

#define LINE EXO_CACHE_LINE
#define OVERHEAD (14 + 2 * 4)    /* Ethernet header and two VLAN tags above the MTU */

struct exo_tap {
    struct exo_wire wire;
    uint8_t *buffers;
    uint32_t stride;
    uint32_t header;
    uint32_t expected;           /* size of the last burst that ended in an empty read */
    uint32_t trust;              /* 1: stop there this time without asking for more */
    uint64_t next_id;
    struct exo_tap_counters counters;
};

static int is_gone(int error)
{
    return error == EBADFD || error == EBADF || error == ENODEV || error == ENXIO;
}

/* A read gave no frame. Anything but "nothing there" and "device gone" is a frame that the kernel took off its queue and lost. */
static void read_failed(struct exo_tap *tap, int error)
{
    if (error == EAGAIN || error == EINTR) {
        tap->counters.empty_reads++;
        return;
    }
    tap->counters.read_errors++;
    if (tap->wire.ledger) {
        tap->wire.ledger->in[EXO_S_TAP]++;
        exo_ledger_count(tap->wire.ledger, EXO_O_WIRE, EXO_R_TAP_READ_ERROR, 1);
    }
}

/* One empty read a burst is one too many when frames come singly, as in a ping-pong: it delays the answer by a system call. So a
 * burst as long as the last complete one ends without asking; the next call then asks to the end, which confirms or corrects. */
static uint32_t burst_limit(const struct exo_tap *tap, uint32_t max)
{
    uint32_t limit = max < EXO_BURST ? max : EXO_BURST;
    return tap->trust && tap->expected < limit ? tap->expected : limit;
}

static void learn(struct exo_tap *tap, uint32_t n, int empty)
{
    tap->trust = (uint32_t)empty && (n || tap->expected);
    if (empty && n)
        tap->expected = n;
}

static void fill(struct exo_tap *tap, struct exo_frame *frame, const uint8_t *slot, uint32_t len, uint64_t now)
{
    *frame = (struct exo_frame){
        .data = slot, .len = len, .wire_len = len, .ts = now, .id = tap->next_id++, .port = tap->wire.port,
    };
    if (EXO_UNLIKELY(len == tap->stride)) {
        frame->flags = EXO_F_SNAPPED;
        tap->counters.truncated++;
    }
}

static int32_t tap_receive(struct exo_wire *wire, struct exo_frame *out, uint32_t max, uint64_t now)
{
    struct exo_tap *tap = (struct exo_tap *)wire;
    uint32_t limit = burst_limit(tap, max), n = 0;
    int empty = 0;
    while (n < limit) {
        uint8_t *slot = tap->buffers + (size_t)n * tap->stride;
        ssize_t got = read(wire->fd, slot, tap->stride);
        if (got <= 0) {
            if (got < 0 && is_gone(errno)) {
                if (n == 0)
                    return EXO_E_SYSTEM;
                break;
            }
            read_failed(tap, got < 0 ? errno : EAGAIN);
            empty = 1;
            break;
        }
        fill(tap, &out[n++], slot, (uint32_t)got, now);
    }
    learn(tap, n, empty);
    count_received(wire, out, n);
    if (wire->ledger)
        wire->ledger->in[EXO_S_SOURCE] += n;
    return (int32_t)n;
}

/* 0: taken, or refused for good (counted); 1: stop here, the wire is full or down; EXO_E_SYSTEM: gone. */
static int32_t tap_write(struct exo_tap *tap, const struct exo_frame *frame)
{
    ssize_t put;
    do
        put = write(tap->wire.fd, frame->data, frame->len);
    while (put < 0 && errno == EINTR);
    if (EXO_LIKELY(put >= 0)) {
        count_sent(&tap->wire, frame, 1);
        return 0;
    }
    if (is_gone(errno))
        return EXO_E_SYSTEM;
    if (errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM) {
        tap->counters.write_full++;
        return 1;
    }
    tap->counters.write_errors++;
    return errno == EIO;         /* EIO: the device is down, and all that follows would fail too */
}

static int32_t tap_send(struct exo_wire *wire, const struct exo_frame *in, uint32_t n, uint64_t now)
{
    struct exo_tap *tap = (struct exo_tap *)wire;
    (void)now;
    for (uint32_t i = 0; i < n; i++) {
        int32_t stop = tap_write(tap, &in[i]);
        if (EXO_UNLIKELY(stop))
            return stop < 0 && i == 0 ? stop : (int32_t)i;
    }
    return (int32_t)n;
}

static uint64_t tap_next_due(struct exo_wire *wire, uint64_t now)
{
    (void)wire;
    (void)now;
    return UINT64_MAX;
}

/* What waits in the device's queue is the kernel's, and found by its counters (R21). */
static uint64_t tap_held(struct exo_wire *wire)
{
    (void)wire;
    return 0;
}

static void tap_close(struct exo_wire *wire)
{
    struct exo_tap *tap = (struct exo_tap *)wire;
    close(wire->fd);
    free(tap->buffers);
    free(tap);
}

static uint32_t odd_lines(uint32_t bytes)
{
    return ((bytes + LINE - 1) / LINE | 1) * LINE;
}

struct exo_wire *exo_tap_new(int32_t fd, uint32_t mtu)
{
    struct exo_tap *tap = calloc(1, sizeof *tap);
    if (!tap)
        return NULL;
    tap->stride = odd_lines(tap->header + mtu + OVERHEAD + 1);
    tap->buffers = aligned_alloc(LINE, (size_t)tap->stride * EXO_BURST);
    if (!tap->buffers) {
        free(tap);
        return NULL;
    }
    tap->wire = (struct exo_wire){
        .receive = tap_receive, .send = tap_send, .next_due = tap_next_due, .held = tap_held, .close = tap_close, .fd = fd,
    };
    return &tap->wire;
}

const struct exo_tap_counters *exo_tap_counters(const struct exo_wire *wire)
{
    return &((const struct exo_tap *)wire)->counters;
}
