/* SPDX-License-Identifier: MIT
 *
 * The NIC as a whole: made, taken apart, looked at. One DMA area holds the receive rings and after them the slots of
 * every queue; a slot is an odd number of cache lines long, so that consecutive slots fall into different cache sets.
 * The files beside it: nic_receive (fast path and driver), nic_fifo (slow path), nic_filter, nic_rss, nic_registers, nic_transmit.
 */
#include "nic_private.h"

#include <stdlib.h>

_Static_assert(sizeof(union nic_rx_descriptor) == 16, "advanced receive descriptor");
_Static_assert(offsetof(union nic_rx_descriptor, done.status) == 8, "advanced receive descriptor, write-back format");
_Static_assert(sizeof(union nic_tx_descriptor) == 16, "advanced transmit descriptor");
_Static_assert(offsetof(union nic_rx_descriptor, read.header_address) == 8, "read format has the done bit clear");

static int valid(const struct exo_nic_config *config)
{
    uint32_t n = config->descriptors;
    return config->queues >= 1 && config->queues <= EXO_NIC_MAX_QUEUES && n >= 8 && n <= NIC_MAX_DESCRIPTORS && (n & (n - 1)) == 0 &&
           config->fifo_bytes <= NIC_MAX_FIFO && config->max_frame >= EXO_MIN_FRAME && config->max_frame <= EXO_MAX_FRAME &&
           config->mode <= EXO_NIC_BACKPRESSURE && !(config->mac[0] & 1);
}

/* Rounded up to an odd multiple of the cache line. */
static uint32_t slot_stride(uint32_t max_frame)
{
    uint32_t lines = (max_frame + EXO_CACHE_LINE - 1) / EXO_CACHE_LINE;
    return (lines | 1) * EXO_CACHE_LINE;
}

static int make_queues(struct exo_nic *nic)
{
    uint32_t n = nic->config.descriptors;
    size_t rings = (size_t)nic->queues * n * sizeof(union nic_rx_descriptor), slots = (size_t)n * nic->stride;
    /* Large areas come from the system untouched: a slot costs memory once a frame has been in it. Huge pages were measured: they
     * save 1 ns per frame and cost 25 ms of zeroing per 10 MiB. */
    nic->dma = aligned_alloc(EXO_CACHE_LINE, rings + nic->queues * slots);
    if (!nic->dma)
        return 0;
    memset(nic->dma, 0, rings);
    for (uint32_t i = 0; i < nic->queues; i++) {
        struct nic_queue *queue = &nic->queue[i];
        queue->ring = (union nic_rx_descriptor *)(void *)nic->dma + (size_t)i * n;
        queue->slots = rings + i * slots;
        queue->mask = n - 1;
        queue->tail = n - 1;
        queue->meta = calloc(n, sizeof *queue->meta);
        if (!queue->meta)
            return 0;
        for (uint32_t slot = 0; slot < n; slot++)
            queue->ring[slot].read.packet_address = queue->slots + (uint64_t)slot * nic->stride;
    }
    return 1;
}

static int make_fifo(struct exo_nic *nic)
{
    struct nic_fifo *fifo = &nic->fifo;
    uint32_t entries = 1;
    while (entries < nic->config.fifo_bytes / EXO_MIN_FRAME + 1)
        entries *= 2;
    fifo->size = nic->config.fifo_bytes;
    fifo->mask = entries - 1;
    fifo->memory = malloc((size_t)fifo->size + nic->config.max_frame);
    fifo->entry = calloc(entries, sizeof *fifo->entry);
    return fifo->memory && fifo->entry;
}

static int make_transmit(struct exo_nic *nic)
{
    struct nic_transmit *tx = &nic->tx;
    tx->memory_size = NIC_TX_MEMORY;
    tx->memory = aligned_alloc(EXO_CACHE_LINE, NIC_TX_MEMORY);
    tx->ring = calloc(EXO_NIC_TX_DESCRIPTORS, sizeof *tx->ring);
    tx->frame = calloc(EXO_NIC_TX_DESCRIPTORS, sizeof *tx->frame);
    return tx->memory && tx->ring && tx->frame;
}

struct exo_nic *exo_nic_new(const struct exo_nic_config *config, struct exo_ledger *ledger, uint16_t port)
{
    if (!ledger || !valid(config))
        return NULL;
    struct exo_nic *nic = calloc(1, sizeof *nic);
    if (!nic)
        return NULL;
    nic->config = *config;
    nic->ledger = ledger;
    nic->port = port;
    nic->queues = config->queues;
    nic->mode = config->mode;
    nic->stride = slot_stride(config->max_frame);
    if (!make_queues(nic) || !make_fifo(nic) || !make_transmit(nic)) {
        exo_nic_free(nic);
        return NULL;
    }
    nic_reset_registers(nic);
    return nic;
}

void exo_nic_free(struct exo_nic *nic)
{
    if (!nic)
        return;
    for (uint32_t i = 0; i < nic->queues; i++)
        free(nic->queue[i].meta);
    free(nic->dma);
    free(nic->fifo.memory);
    free(nic->fifo.entry);
    free(nic->tx.memory);
    free(nic->tx.ring);
    free(nic->tx.frame);
    free(nic);
}

const struct exo_nic_counters *exo_nic_counters(const struct exo_nic *nic)
{
    return &nic->counters;
}

void exo_nic_in_flight_of(const struct exo_nic *nic, uint64_t out[2])
{
    for (uint32_t i = 0; i < nic->queues; i++) {
        const struct nic_queue *queue = &nic->queue[i];
        for (uint32_t at = queue->next; queue->ring[at].done.status & NIC_DD; at = (at + 1) & queue->mask)
            out[exo_frame_origin(&queue->meta[at])]++;
    }
    for (uint32_t i = 0; i <= nic->fifo.mask; i++)
        if (nic->fifo.entry[i].bytes)
            out[exo_frame_origin(&nic->fifo.entry[i].frame)]++;
}

uint64_t exo_nic_in_flight(const struct exo_nic *nic)
{
    uint64_t found[EXO_ORIGINS] = {0};
    exo_nic_in_flight_of(nic, found);
    return found[EXO_O_WIRE] + found[EXO_O_LIBOS];
}

static const union nic_rx_descriptor *descriptor_at(const struct exo_nic *nic, uint32_t queue, uint32_t index)
{
    return queue < nic->queues && index <= nic->queue[queue].mask ? &nic->queue[queue].ring[index] : NULL;
}

/* The status word first, so that what is read after it is at least as new. */
int32_t exo_nic_descriptor(const struct exo_nic *nic, uint32_t queue, uint32_t index, uint8_t out[16])
{
    const union nic_rx_descriptor *descriptor = descriptor_at(nic, queue, index);
    if (!descriptor)
        return EXO_E_INVALID;
    uint32_t status = __atomic_load_n(&descriptor->done.status, __ATOMIC_ACQUIRE);
    memcpy(out, descriptor, sizeof *descriptor);
    memcpy(out + offsetof(union nic_rx_descriptor, done.status), &status, sizeof status);
    return 0;
}

int32_t exo_nic_buffer(const struct exo_nic *nic, uint32_t queue, uint32_t index, uint8_t *out, uint32_t n)
{
    if (!descriptor_at(nic, queue, index))
        return EXO_E_INVALID;
    uint32_t length = n < nic->stride ? n : nic->stride;
    memcpy(out, nic->dma + nic->queue[queue].slots + (uint64_t)index * nic->stride, length);
    return (int32_t)length;
}
