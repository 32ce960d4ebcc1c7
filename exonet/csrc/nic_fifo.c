/* SPDX-License-Identifier: MIT
 *
 * The NIC's slow receive path: the checks of one frame, the shared byte FIFO, and its draining into descriptors.
 * The FIFO is strictly in order: while one frame waits, every later one waits behind it, whatever its queue
 * (head-of-line blocking); a queue with drop-enable loses its frame at the head instead. A frame occupies its length
 * on the wire, at least 60 bytes. Every end a frame can find here goes through `lose`, once.
 */
#include "nic_private.h"

static void lose(struct exo_nic *nic, const struct exo_frame *frame, int32_t reason, uint64_t *counter, uint64_t now)
{
    struct exo_frame lost = *frame;
    lost.port = nic->port;
    ++*counter;
    exo_ledger_fate(nic->ledger, &lost, reason, 0, now);
}

static uint32_t occupancy(const struct exo_frame *frame)
{
    uint32_t n = nic_wire_length(frame);
    return n < EXO_MIN_FRAME ? EXO_MIN_FRAME : n;
}

static void fifo_put(struct nic_fifo *fifo, const struct exo_frame *frame, uint16_t queue, uint32_t hash, uint16_t type)
{
    struct nic_fifo_entry *entry = &fifo->entry[fifo->tail & fifo->mask];
    uint8_t *to = fifo->memory + fifo->write;
    memcpy(to, frame->data, frame->len);
    entry->frame = *frame;
    entry->frame.data = to;
    entry->bytes = occupancy(frame);
    entry->queue = queue;
    entry->hash = hash;
    entry->type = type;
    fifo->tail++;
    fifo->used += entry->bytes;
    fifo->write += frame->len;
    if (fifo->write >= fifo->size)
        fifo->write = 0;
}

static void fifo_drop_head(struct nic_fifo *fifo)
{
    struct nic_fifo_entry *entry = &fifo->entry[fifo->head++ & fifo->mask];
    fifo->used -= entry->bytes;
    entry->bytes = 0;
    if (fifo->head == fifo->tail)
        fifo->write = 0;
}

static void deliver(struct exo_nic *nic, uint32_t number, const struct exo_frame *frame, uint32_t hash, uint16_t type)
{
    nic_dma_write(nic, &nic->queue[number], number, frame, hash, type);
    nic->counters.rx_packets++;
    nic->counters.rx_descriptors++;
    nic->counters.rx_bytes += frame->len;
}

/* At the head of the line: into a descriptor, or lost to drop-enable. 0: it has to wait. */
static int advance(struct exo_nic *nic, uint32_t number, const struct exo_frame *frame, uint32_t hash, uint16_t type, uint64_t now)
{
    struct nic_queue *queue = &nic->queue[number];
    if (nic_free_descriptors(queue)) {
        deliver(nic, number, frame, hash, type);
        return 1;
    }
    if (!queue->enabled) {
        lose(nic, frame, EXO_R_NIC_RX_FIFO, &nic->counters.rx_fifo, now);
        return 1;
    }
    if (queue->drop_enable) {
        queue->dropped++;
        lose(nic, frame, EXO_R_NIC_RX_NO_BUFFER, &nic->counters.rx_no_buffer, now);
        return 1;
    }
    return 0;
}

void nic_drain(struct exo_nic *nic, uint64_t now)
{
    uint64_t before = nic->counters.rx_packets;
    struct nic_fifo *fifo = &nic->fifo;
    while (fifo->head != fifo->tail) {
        const struct nic_fifo_entry *entry = &fifo->entry[fifo->head & fifo->mask];
        if (!advance(nic, entry->queue, &entry->frame, entry->hash, entry->type, now))
            break;
        fifo_drop_head(fifo);
    }
    if (nic->counters.rx_packets != before)
        nic_raise(nic, NIC_RXDW, now);
}

void nic_fifo_flush(struct exo_nic *nic, uint64_t now)
{
    struct nic_fifo *fifo = &nic->fifo;
    while (fifo->head != fifo->tail) {
        lose(nic, &fifo->entry[fifo->head & fifo->mask].frame, EXO_R_NIC_RX_FIFO, &nic->counters.rx_fifo, now);
        fifo_drop_head(fifo);
    }
}

static void lose_long(struct exo_nic *nic, const struct exo_frame *frame, uint64_t now)
{
    if (nic_wire_length(frame) > nic->counters.rx_longest)
        nic->counters.rx_longest = nic_wire_length(frame);
    lose(nic, frame, EXO_R_NIC_RX_LONG, &nic->counters.rx_long, now);
}

/* A frame that passed the filter but is no good, or that no receiver is there for. The order is the hardware's: length, then CRC. */
static int bad(struct exo_nic *nic, const struct exo_frame *frame, uint64_t now)
{
    struct exo_nic_counters *counters = &nic->counters;
    if (!(nic->rctl & NIC_RXEN))
        lose(nic, frame, EXO_R_NIC_RX_FIFO, &counters->rx_fifo, now);
    else if (frame->len < NIC_HEADER)
        lose(nic, frame, EXO_R_NIC_RX_SHORT, &counters->rx_short, now);
    else if (nic_wire_length(frame) > nic->longest)
        lose_long(nic, frame, now);
    else if (frame->flags & EXO_F_BAD_CRC)
        lose(nic, frame, EXO_R_NIC_RX_CRC, &counters->rx_crc, now);
    else
        return 0;
    return 1;
}

static void count_group(struct exo_nic *nic, const struct exo_frame *frame)
{
    if (!(frame->data[0] & 1))
        return;
    if (nic_mac(frame->data) == 0xffffffffffff)
        nic->counters.rx_broadcast++;
    else
        nic->counters.rx_multicast++;
}

static uint32_t choose_queue(const struct exo_nic *nic, const struct exo_frame *frame, uint32_t *hash, uint16_t *type)
{
    *hash = 0;
    *type = NIC_HASH_NONE;
    if ((nic->mrqc & 7) != NIC_MRQC_RSS)
        return 0;
    *hash = nic_rss_hash(nic, frame->data, frame->len, type);
    if (*type == NIC_HASH_NONE)
        return 0;
    uint32_t number = nic->reta[*hash % NIC_RETA];
    return number < nic->queues ? number : 0;
}

/* A good frame: straight into a descriptor where nothing is ahead of it, else into the FIFO. 0: no room (backpressure). */
static int place(struct exo_nic *nic, const struct exo_frame *frame, uint64_t now)
{
    struct nic_fifo *fifo = &nic->fifo;
    uint32_t hash;
    uint16_t type;
    uint32_t number = choose_queue(nic, frame, &hash, &type);
    uint32_t starved = !nic_free_descriptors(&nic->queue[number]), fits = occupancy(frame) <= fifo->size - fifo->used;
    if (fifo->head == fifo->tail && advance(nic, number, frame, hash, type, now)) {
        nic->statistics.no_buffers += starved;
        return 1;
    }
    /* Only a wire can hold a frame back: one that an environment sent to another is lost here. */
    if (!fits && nic->mode == EXO_NIC_BACKPRESSURE && !(frame->flags & EXO_F_LOCAL))
        return 0;
    nic->statistics.no_buffers += starved;
    if (fits) {
        nic->counters.rx_waited++;
        fifo_put(fifo, frame, (uint16_t)number, hash, type);
        return 1;
    }
    nic->icr |= NIC_RX_MISS;
    lose(nic, frame, EXO_R_NIC_RX_MISSED, &nic->counters.rx_missed, now);
    return 1;
}

int nic_admit(struct exo_nic *nic, const struct exo_frame *frame, uint64_t now)
{
    /* Hardware counts short and long frames only where they pass the address filter (82576 datasheet 8.19). */
    if (frame->len >= 6 && !nic_filter_accepts(nic, frame->data)) {
        lose(nic, frame, EXO_R_MAC_FILTERED, &nic->counters.rx_filtered, now);
    } else {
        if (!bad(nic, frame, now)) {
            if (!place(nic, frame, now))
                return 0;
            count_group(nic, frame);
        }
        nic->ledger->out[EXO_S_MAC]++;
        nic->ledger->in[EXO_S_NIC]++;
    }
    nic->statistics.received++;
    nic->statistics.received_bytes += frame->len;
    nic->counters.switched += (frame->flags & EXO_F_LOCAL) != 0;
    return 1;
}
