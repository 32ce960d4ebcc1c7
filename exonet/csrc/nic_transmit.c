/* SPDX-License-Identifier: MIT
 *
 * The NIC's transmit side: frames are gathered into DMA memory of the NIC's own, those that may leave are committed to descriptors, and
 * sent in one burst per flush. Memory is handed out from the bottom after every flush, so a small burst stays in the same few cache lines.
 * What the caller checks is the gathered copy, and only it leaves (R10).
 * Reference: 82576 datasheet 7.2 (transmit).
 */
#include "nic_private.h"

enum { TX_MASK = EXO_NIC_TX_DESCRIPTORS - 1 };

uint8_t *exo_nic_tx_buffer(struct exo_nic *nic, uint32_t n)
{
    struct nic_transmit *tx = &nic->tx;
    if (tx->buffers == TX_MASK || n > tx->memory_size - tx->used)
        return NULL;
    uint8_t *buffer = tx->memory + tx->used;
    uint32_t taken = (n + NIC_TX_ALIGN - 1) & ~(uint32_t)(NIC_TX_ALIGN - 1);
    tx->used += taken < tx->memory_size - tx->used ? taken : tx->memory_size - tx->used;
    tx->buffers++;
    return buffer;
}

void exo_nic_tx_commit(struct exo_nic *nic, const struct exo_frame *frame)
{
    struct nic_transmit *tx = &nic->tx;
    uintptr_t at = (uintptr_t)frame->data - (uintptr_t)tx->memory;
    if (!frame->len || at >= tx->used || frame->len > tx->used - at || tx->count == TX_MASK)
        return;
    struct exo_frame *committed = &tx->frame[tx->count++];
    *committed = *frame;
    committed->port = nic->port;
    union nic_tx_descriptor *descriptor = &tx->ring[tx->tail];
    descriptor->data.address = at;
    descriptor->data.command_length = (uint32_t)NIC_TX_DATA | NIC_TX_EOP | NIC_TX_RS | (frame->len & 0xffff);
    descriptor->data.status = 0;
    tx->tail = (tx->tail + 1) & TX_MASK;
}

/* What the wire took: counters, and the fate of each. */
static void count_sent(struct exo_nic *nic, const struct exo_frame *frames, uint32_t n, uint64_t now)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < n; i++) {
        const struct exo_frame *frame = &frames[i];
        bytes += frame->len;
        if (frame->len >= 6 && frame->data[0] & 1) {
            uint64_t all = nic_mac(frame->data) == 0xffffffffffff;
            nic->statistics.tx_broadcast += all;
            nic->statistics.tx_multicast += !all;
        }
        exo_ledger_fate(nic->ledger, frame, EXO_R_SENT, frame->sender, now);
    }
    nic->ledger->out[EXO_S_TRANSMIT] += n;
    nic->counters.tx_packets += n;
    nic->counters.tx_bytes += bytes;
}

/* The NIC fetched them all, whatever became of them: head catches up with tail and DD is written back. */
static void complete(struct exo_nic *nic)
{
    struct nic_transmit *tx = &nic->tx;
    for (; tx->head != tx->tail; tx->head = (tx->head + 1) & TX_MASK)
        __atomic_store_n(&tx->ring[tx->head].data.status, NIC_DD, __ATOMIC_RELEASE);
    nic->counters.tx_descriptors += tx->count;
    tx->count = 0;
    nic_raise(nic, NIC_TXDW, nic->now);
}

uint32_t exo_nic_flush(struct exo_nic *nic, struct exo_wire *wire, uint64_t now)
{
    struct nic_transmit *tx = &nic->tx;
    uint32_t count = tx->count;
    nic->now = now;
    tx->used = tx->buffers = 0;
    if (count == 0)
        return 0;
    int32_t took = wire ? wire->send(wire, tx->frame, count, now) : EXO_E_END;
    uint32_t sent = took < 0 ? 0 : (uint32_t)took < count ? (uint32_t)took : count;
    count_sent(nic, tx->frame, sent, now);
    int32_t reason = took < 0 ? EXO_R_TRANSMIT_NO_CARRIER : EXO_R_TRANSMIT_WIRE_FULL;
    for (uint32_t i = sent; i < count; i++)
        exo_ledger_fate(nic->ledger, &tx->frame[i], reason, tx->frame[i].sender, now);
    complete(nic);
    return sent;
}
