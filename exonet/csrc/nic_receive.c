/* SPDX-License-Identifier: MIT
 *
 * The NIC's fast receive path and its driver: a burst from the wire into descriptors, done descriptors out, and back.
 * The fast loop takes plain frames while descriptors are free, nothing waits in the FIFO and everything goes to queue 0; every
 * other frame goes through nic_admit, one by one. Ledger stages are counted per burst, drops where they happen.
 * Reference: 82576 datasheet 7.1 (receive).
 */
#include "nic_private.h"

enum { PREFETCH_AHEAD = 6 };

/* Takes frames until one is not plain or descriptors run out; returns how many it took. */
static uint32_t receive_plain(struct exo_nic *nic, const struct exo_frame *frames, uint32_t n)
{
    struct nic_queue *queue = &nic->queue[0];
    uint32_t room = nic_free_descriptors(queue), limit = n < room ? n : room, i;
    uint64_t bytes = 0, multicast = 0, broadcast = 0;
    for (i = 0; i < limit; i++) {
        const struct exo_frame *frame = &frames[i];
        if (i + PREFETCH_AHEAD < limit) {
            __builtin_prefetch(frames[i + PREFETCH_AHEAD].data);
            uint32_t ahead = (queue->head + PREFETCH_AHEAD) & queue->mask;
            __builtin_prefetch(nic->dma + queue->slots + (uint64_t)ahead * nic->stride, 1);
        }
        if (EXO_UNLIKELY(frame->len < NIC_HEADER || nic_wire_length(frame) > nic->longest ||
                         (frame->flags & (EXO_F_BAD_CRC | EXO_F_LOCAL))))
            break;
        if (EXO_UNLIKELY(frame->data[0] & 1)) {
            uint64_t all = nic_mac(frame->data) == 0xffffffffffff;
            broadcast += all;
            multicast += !all;
        }
        bytes += frame->len;
        nic_dma_write(nic, queue, 0, frame, 0, NIC_HASH_NONE);
    }
    nic->counters.rx_packets += i;
    nic->counters.rx_descriptors += i;
    nic->counters.rx_bytes += bytes;
    nic->counters.rx_multicast += multicast;
    nic->counters.rx_broadcast += broadcast;
    nic->statistics.received += i;
    nic->statistics.received_bytes += bytes;
    nic->ledger->out[EXO_S_MAC] += i;
    nic->ledger->in[EXO_S_NIC] += i;
    return i;
}

uint32_t exo_nic_receive(struct exo_nic *nic, const struct exo_frame *frames, uint32_t n, uint64_t now)
{
    uint32_t done = 0;
    uint64_t before = nic->counters.rx_packets;
    nic->now = now;
    while (done < n) {
        if (EXO_LIKELY(nic->fast && nic->fifo.head == nic->fifo.tail)) {
            done += receive_plain(nic, frames + done, n - done);
            if (EXO_LIKELY(done == n))
                break;
        }
        if (!nic_admit(nic, &frames[done], now))
            break;
        done++;
    }
    if (nic->counters.rx_packets != before)
        nic_raise(nic, NIC_RXDW, now);
    nic->ledger->in[EXO_S_MAC] += done;
    return done;
}

uint32_t exo_nic_take(struct exo_nic *nic, uint32_t number, struct exo_frame *out, uint32_t max)
{
    if (number >= nic->queues)
        return 0;
    struct nic_queue *queue = &nic->queue[number];
    uint32_t next = queue->next, i;
    /* The descriptor at head is never a done one (nic_return), so a full round stops there. */
    for (i = 0; i < max; i++) {
        if (!(__atomic_load_n(&queue->ring[next].done.status, __ATOMIC_ACQUIRE) & NIC_DD))
            break;
        __builtin_prefetch(queue->meta[next].data);
        out[i] = queue->meta[next];
        next = (next + 1) & queue->mask;
    }
    queue->next = next;
    nic->ledger->out[EXO_S_NIC] += i;
    return i;
}

void exo_nic_untake(struct exo_nic *nic, uint32_t number, uint32_t n)
{
    if (number >= nic->queues)
        return;
    struct nic_queue *queue = &nic->queue[number];
    uint32_t taken = (queue->next - 1 - queue->tail) & queue->mask, back = n < taken ? n : taken;
    queue->next = (queue->next - back) & queue->mask;
    nic->ledger->out[EXO_S_NIC] -= back;
}

/* Puts descriptors back into read format and only then moves the tail. */
void nic_return(struct exo_nic *nic, struct nic_queue *queue, uint32_t count)
{
    uint32_t at = (queue->tail + 1) & queue->mask;
    for (uint32_t i = 0; i < count; i++) {
        queue->ring[at].read.packet_address = queue->slots + (uint64_t)at * nic->stride;
        queue->ring[at].read.header_address = 0;
        at = (at + 1) & queue->mask;
    }
    __atomic_store_n(&queue->tail, (at - 1) & queue->mask, __ATOMIC_RELEASE);
}

void exo_nic_refill(struct exo_nic *nic, uint32_t number, uint64_t now)
{
    if (number >= nic->queues)
        return;
    struct nic_queue *queue = &nic->queue[number];
    nic->now = now;
    nic_return(nic, queue, (queue->next - 1 - queue->tail) & queue->mask);
    if (EXO_UNLIKELY(nic->fifo.head != nic->fifo.tail))
        nic_drain(nic, now);
}
