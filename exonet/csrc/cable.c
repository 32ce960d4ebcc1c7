/* SPDX-License-Identifier: MIT
 *
 * The cable: two wires joined in memory, each with a bounded queue of frames on their way to it, bytes copied.
 * Meant for two machines on one thread and one time line. Two threads, one per end, may use it too (scapy beside a machine that
 * runs): the queues have a lock, and everything else of an end, its ledger included, is touched by its own thread only. So frames
 * count as in[] when the receiving end next looks, not when they are sent.
 * A frame arrives at its sender's now plus the latency: that is its ts.
 */
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "wrap.h"

struct cable {
    pthread_mutex_t lock;
    uint64_t latency;
    uint32_t limit;
    uint32_t open;               /* ends not yet closed */
};

struct end {
    struct exo_wire wire;
    struct cable *cable;
    struct end *peer;            /* locked; NULL: closed */
    struct held_list queue;      /* locked; on their way to this end */
    uint64_t uncounted;          /* locked; queued, not yet in the ledger's in[] */
    uint64_t last_due;           /* locked */
    struct held_list given;      /* by the last receive */
    uint64_t next_id;
    int end_told;
};

static void count_in(struct end *end)
{
    if (!end->wire.ledger)
        return;
    end->wire.ledger->in[EXO_S_SOURCE] += end->uncounted;
    end->uncounted = 0;
}

static void signal_end(struct end *end)
{
    uint64_t one = 1;
    if (end->wire.fd >= 0 && write(end->wire.fd, &one, sizeof one) < 0)
        return;                  /* EAGAIN: the counter is full, so it is readable already */
}

static void clear_signal(struct end *end)
{
    uint64_t count;
    if (end->wire.fd >= 0 && read(end->wire.fd, &count, sizeof count) < 0)
        return;
}

static int32_t cable_receive(struct exo_wire *wire, struct exo_frame *out, uint32_t max, uint64_t now)
{
    struct end *end = (struct end *)wire;
    uint32_t n = 0;
    held_clear(&end->given);
    pthread_mutex_lock(&end->cable->lock);
    clear_signal(end);
    count_in(end);
    while (n < max && end->queue.head && end->queue.head->due <= now) {
        struct held *held = held_pop(&end->queue);
        held_push(&end->given, held);
        held->frame.id = end->next_id++;
        held->frame.port = wire->port;
        out[n++] = held->frame;
    }
    int over = !end->peer && !end->queue.head;
    pthread_mutex_unlock(&end->cable->lock);
    count_received(wire, out, n);
    if (n == 0 && over) {
        end->end_told = 1;
        return EXO_E_END;
    }
    return (int32_t)n;
}

/* Nothing of the sender's side but the frame itself goes over: no flags, no environment, no capture time. */
static struct held *sent_copy(struct end *to, const struct exo_frame *frame, uint64_t now)
{
    struct held *held = held_copy(frame);
    if (!held)
        return NULL;
    uint64_t due = now + to->cable->latency;
    held->due = due < to->last_due ? to->last_due : due;
    to->last_due = held->due;
    held->frame = (struct exo_frame){
        .data = held->bytes, .len = frame->len, .ts = held->due,
        .wire_len = frame->wire_len > frame->len ? frame->wire_len : frame->len,
        .flags = frame->wire_len > frame->len ? EXO_F_SNAPPED : 0,
    };
    return held;
}

static int32_t cable_send(struct exo_wire *wire, const struct exo_frame *in, uint32_t n, uint64_t now)
{
    struct end *end = (struct end *)wire;
    uint32_t taken = 0;
    pthread_mutex_lock(&end->cable->lock);
    struct end *to = end->peer;
    while (to && taken < n && to->queue.count < end->cable->limit) {
        struct held *held = sent_copy(to, &in[taken], now);
        if (!held)
            break;
        held_push(&to->queue, held);
        to->uncounted++;
        taken++;
    }
    if (taken)
        signal_end(to);
    pthread_mutex_unlock(&end->cable->lock);
    count_sent(wire, in, taken);
    return to ? (int32_t)taken : EXO_E_END;
}

static uint64_t cable_next_due(struct exo_wire *wire, uint64_t now)
{
    struct end *end = (struct end *)wire;
    pthread_mutex_lock(&end->cable->lock);
    uint64_t due = UINT64_MAX;
    if (end->queue.head)
        due = end->queue.head->due;
    else if (!end->peer && !end->end_told)
        due = now;
    pthread_mutex_unlock(&end->cable->lock);
    return due;
}

static uint64_t cable_held(struct exo_wire *wire)
{
    struct end *end = (struct end *)wire;
    pthread_mutex_lock(&end->cable->lock);
    count_in(end);
    uint64_t held = end->queue.count;
    pthread_mutex_unlock(&end->cable->lock);
    return held;
}

static void cable_close(struct exo_wire *wire)
{
    struct end *end = (struct end *)wire;
    struct cable *cable = end->cable;
    pthread_mutex_lock(&cable->lock);
    if (end->peer) {
        end->peer->peer = NULL;
        signal_end(end->peer);
    }
    uint32_t open = --cable->open;
    pthread_mutex_unlock(&cable->lock);
    held_clear(&end->queue);
    held_clear(&end->given);
    if (wire->fd >= 0)
        close(wire->fd);
    free(end);
    if (open == 0) {
        pthread_mutex_destroy(&cable->lock);
        free(cable);
    }
}

static void end_init(struct end *end, struct cable *cable, struct end *peer, int fd)
{
    end->cable = cable;
    end->peer = peer;
    end->wire = (struct exo_wire){
        .receive = cable_receive, .send = cable_send, .next_due = cable_next_due, .held = cable_held, .close = cable_close, .fd = fd,
    };
}

static int32_t no_cable(struct cable *cable, struct end *a, struct end *b, int fd, int32_t error)
{
    if (fd >= 0)
        close(fd);
    free(cable);
    free(a);
    free(b);
    return error;
}

int32_t exo_cable_new(uint32_t frames, uint64_t latency, uint32_t wake, struct exo_wire *ends[2])
{
    if (frames == 0 || latency > UINT64_MAX / 4)
        return EXO_E_INVALID;
    struct cable *cable = calloc(1, sizeof *cable);
    struct end *a = calloc(1, sizeof *a), *b = calloc(1, sizeof *b);
    if (!cable || !a || !b)
        return no_cable(cable, a, b, -1, EXO_E_MEMORY);
    int fd_a = wake ? eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC) : -1;
    int fd_b = fd_a >= 0 ? eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC) : -1;
    if (wake && (fd_a < 0 || fd_b < 0))
        return no_cable(cable, a, b, fd_a, EXO_E_SYSTEM);
    pthread_mutex_init(&cable->lock, NULL);
    cable->latency = latency;
    cable->limit = frames;
    cable->open = 2;
    end_init(a, cable, b, fd_a);
    end_init(b, cable, a, fd_b);
    ends[0] = &a->wire;
    ends[1] = &b->wire;
    return 0;
}
