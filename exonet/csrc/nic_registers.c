/* SPDX-License-Identifier: MIT
 *
 * The NIC's register file by byte offset, and its interrupt. Registers are views of the NIC's state, computed when read; the few
 * that hold state of their own are plain fields. One interrupt vector serves all queues, so EITR(0) is the only EITR.
 * Differences from the chip, on purpose: reading changes nothing (ICR is cleared by writing ones), RDT can only advance over
 * descriptors that the driver has taken (as an IOMMU would insist), and lengths do not count the frame check sequence.
 * Reference: 82576 datasheet chapter 8; offsets as in Linux drivers/net/ethernet/intel/igb/e1000_regs.h.
 */
#include "nic_private.h"

enum offset {
    CTRL = 0x0000, STATUS = 0x0008, VET = 0x0038, ICR_OLD = 0x00c0, ICS_OLD = 0x00c8, IMS_OLD = 0x00d0, IMC_OLD = 0x00d8,
    RCTL = 0x0100, ICR = 0x1500, ICS = 0x1504, IMS = 0x1508, IMC = 0x150c, EITR0 = 0x1680, RLPML = 0x5004, MTA = 0x5200,
    RAL = 0x5400, MRQC = 0x5818, RETA = 0x5c00, RSSRK = 0x5c80, RX_QUEUE = 0xc000, TX_QUEUE = 0xe000, QUEUE_STRIDE = 0x40
};
enum queue_offset { BAL = 0x00, BAH = 0x04, LEN = 0x08, SRRCTL = 0x0c, HEAD = 0x10, TAIL = 0x18, XDCTL = 0x28, RQDPC = 0x30 };

static const uint32_t RCTL_WRITABLE = NIC_RXEN | NIC_UPE | NIC_MPE | NIC_LPE | NIC_BAM | NIC_SECRC;
static const uint32_t SRRCTL_ADVANCED = 1u << 25;
static const uint32_t SRRCTL_DROP_EN = 1u << 31;
static const uint32_t RAH_VALID = 1u << 31;
static const uint32_t STATUS_UP = 0x83;              /* full duplex, link up, 1000 Mb/s */
static const uint32_t EITR_MAX_US = 0x1fff;

void nic_recompute(struct exo_nic *nic)
{
    const uint32_t everything = NIC_RXEN | NIC_UPE | NIC_BAM;
    int groups = (nic->rctl & NIC_MPE) || nic->all_groups;
    nic->fast = (nic->rctl & everything) == everything && groups && nic->queue[0].enabled && (nic->mrqc & 7) != NIC_MRQC_RSS;
}

/* The state after power-on and driver start: as the configuration says. Rings and counters are memory and stay. */
void nic_reset_registers(struct exo_nic *nic)
{
    const struct exo_nic_config *config = &nic->config;
    nic->ctrl = NIC_CTRL_FD | NIC_CTRL_SLU;
    nic->rctl = NIC_RXEN | NIC_BAM | NIC_LPE | NIC_SECRC | (config->promiscuous ? NIC_UPE | NIC_MPE : 0);
    nic->longest = config->max_frame;
    nic->vet = 0x8100;
    nic->icr = 0;
    nic->ims = NIC_RXDW;
    nic->raised = 0;
    nic->itr_ns = config->itr_ns;
    nic->interrupted = UINT64_MAX;
    nic->mrqc = (config->queues > 1 ? NIC_MRQC_RSS : 0) | NIC_RSS_TCP4 | NIC_RSS_IP4 | NIC_RSS_IP6 | NIC_RSS_TCP6 | NIC_RSS_UDP4 |
                NIC_RSS_UDP6;
    for (uint32_t i = 0; i < NIC_RETA; i++)
        nic->reta[i] = (uint8_t)(i % config->queues);
    memset(nic->mta, 0, sizeof nic->mta);
    nic_rss_key(nic, config->seed);
    for (uint32_t i = 0; i < config->queues; i++) {
        nic->queue[i].enabled = 1;
        nic->queue[i].drop_enable = config->drop_enable;
    }
    nic->unicast[0].mac = nic_mac(config->mac);
    if (!nic->unicast[0].users)
        nic->unicast[0].users = 1;
    nic_filter_rebuild(nic);
    nic_recompute(nic);
}

/* ---- interrupt ---- */

int32_t exo_nic_pending(const struct exo_nic *nic)
{
    for (uint32_t i = 0; i < nic->queues; i++) {
        const struct nic_queue *queue = &nic->queue[i];
        if (__atomic_load_n(&queue->ring[queue->next].done.status, __ATOMIC_ACQUIRE) & NIC_DD)
            return 1;
    }
    return 0;
}

uint64_t exo_nic_interrupt_due(const struct exo_nic *nic)
{
    if (!(nic->icr & nic->ims))
        return UINT64_MAX;
    if (nic->interrupted == UINT64_MAX)
        return nic->raised;
    uint64_t earliest = nic->interrupted + nic->itr_ns;
    return nic->raised > earliest ? nic->raised : earliest;
}

void exo_nic_acknowledge(struct exo_nic *nic, uint64_t now)
{
    nic->now = now;
    nic->counters.interrupts++;
    nic->interrupted = now;
    nic->icr = 0;
    nic->ims &= ~(uint32_t)NIC_RXDW;
}

/* The cause is raised anew from what is really there, so the driver neither misses work nor is called for none. */
void exo_nic_unmask(struct exo_nic *nic, uint64_t now)
{
    nic->now = now;
    nic->icr &= ~(uint32_t)NIC_RXDW;
    nic->ims |= NIC_RXDW;
    if (exo_nic_pending(nic))
        nic_raise(nic, NIC_RXDW, now);
}

/* ---- reading ---- */

static uint32_t high(uint64_t v)
{
    return (uint32_t)(v >> 32);
}

static uint32_t read_statistic(const struct exo_nic *nic, uint32_t offset)
{
    const struct exo_nic_counters *c = &nic->counters;
    const struct nic_statistics *s = &nic->statistics;
    switch (offset) {
    case 0x4000: return (uint32_t)c->rx_crc;             /* CRCERRS */
    case 0x4010: return (uint32_t)c->rx_missed;          /* MPC */
    case 0x4074: return (uint32_t)c->rx_packets;         /* GPRC */
    case 0x4078: return (uint32_t)c->rx_broadcast;       /* BPRC */
    case 0x407c: return (uint32_t)c->rx_multicast;       /* MPRC */
    case 0x4080: return (uint32_t)c->tx_packets;         /* GPTC */
    case 0x4088: return (uint32_t)c->rx_bytes;           /* GORCL */
    case 0x408c: return high(c->rx_bytes);
    case 0x4090: return (uint32_t)c->tx_bytes;           /* GOTCL */
    case 0x4094: return high(c->tx_bytes);
    case 0x40a0: return (uint32_t)s->no_buffers;         /* RNBC */
    case 0x40a4: return (uint32_t)c->rx_short;           /* RUC */
    case 0x40ac: return (uint32_t)c->rx_long;            /* ROC */
    case 0x40c0: return (uint32_t)s->received_bytes;     /* TORL */
    case 0x40c4: return high(s->received_bytes);
    case 0x40c8: return (uint32_t)c->tx_bytes;           /* TOTL */
    case 0x40cc: return high(c->tx_bytes);
    case 0x40d0: return (uint32_t)s->received;           /* TPR */
    case 0x40d4: return (uint32_t)c->tx_packets;         /* TPT */
    case 0x40f0: return (uint32_t)s->tx_multicast;       /* MPTC */
    case 0x40f4: return (uint32_t)s->tx_broadcast;       /* BPTC */
    case 0x4100: return (uint32_t)c->interrupts;         /* IAC */
    default: return 0;
    }
}

static uint32_t read_rx_queue(const struct exo_nic *nic, uint32_t number, uint32_t offset)
{
    const struct nic_queue *queue = &nic->queue[number];
    uint64_t base = (uint64_t)((const uint8_t *)queue->ring - nic->dma);
    switch (offset) {
    case BAL: return (uint32_t)base;
    case BAH: return high(base);
    case LEN: return (queue->mask + 1) * (uint32_t)sizeof *queue->ring;
    case SRRCTL: return SRRCTL_ADVANCED | ((nic->stride + 1023) / 1024 & 127) | (queue->drop_enable ? SRRCTL_DROP_EN : 0);
    case HEAD: return queue->head;
    case TAIL: return queue->tail;
    case XDCTL: return queue->enabled ? NIC_QUEUE_ENABLE : 0;
    case RQDPC: return (uint32_t)queue->dropped;
    default: return 0;
    }
}

static uint32_t read_tx_queue(const struct exo_nic *nic, uint32_t offset)
{
    switch (offset) {
    case LEN: return EXO_NIC_TX_DESCRIPTORS * (uint32_t)sizeof *nic->tx.ring;
    case HEAD: return nic->tx.head;
    case TAIL: return nic->tx.tail;
    case XDCTL: return NIC_QUEUE_ENABLE;
    default: return 0;
    }
}

/* RAL and RAH hold the address as it goes over the wire, first byte lowest. */
static uint32_t read_address(const struct exo_nic *nic, uint32_t row, int high_half)
{
    const struct nic_address *entry = &nic->unicast[row];
    if (high_half)
        return __builtin_bswap16((uint16_t)entry->mac) | (entry->users ? RAH_VALID : 0);
    return __builtin_bswap32((uint32_t)(entry->mac >> 16));
}

static uint32_t read_word(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

static uint32_t read_eitr(const struct exo_nic *nic)
{
    uint64_t us = nic->itr_ns / 1000;
    return (uint32_t)(us > EITR_MAX_US ? EITR_MAX_US : us) << 2;
}

/* Is offset inside the table of `n` words at `base`? */
static int within(uint32_t offset, uint32_t base, uint32_t n)
{
    return offset >= base && offset < base + 4 * n;
}

static uint32_t read_table(const struct exo_nic *nic, uint32_t offset)
{
    if (within(offset, 0x4000, 0x80))
        return read_statistic(nic, offset);
    if (within(offset, MTA, 128))
        return nic_mta_read(nic, (offset - MTA) / 4);
    if (within(offset, RAL, 2 * NIC_RAR))
        return read_address(nic, (offset - RAL) / 8, offset & 4);
    if (within(offset, RETA, NIC_RETA / 4))
        return read_word(nic->reta + offset - RETA);
    if (within(offset, RSSRK, NIC_RSS_KEY / 4))
        return read_word(nic->key + offset - RSSRK);
    if (within(offset, RX_QUEUE, nic->queues * QUEUE_STRIDE / 4))
        return read_rx_queue(nic, (offset - RX_QUEUE) / QUEUE_STRIDE, offset % QUEUE_STRIDE);
    if (within(offset, TX_QUEUE, QUEUE_STRIDE / 4))
        return read_tx_queue(nic, offset % QUEUE_STRIDE);
    return 0;
}

uint32_t exo_nic_read(const struct exo_nic *nic, uint32_t offset)
{
    if (offset % 4)
        return 0;
    switch (offset) {
    case CTRL: return nic->ctrl;
    case STATUS: return STATUS_UP;
    case VET: return nic->vet;
    case ICR: case ICR_OLD: return nic->icr;
    case IMS: case IMS_OLD: return nic->ims;
    case EITR0: return read_eitr(nic);
    case RCTL: return nic->rctl;
    case RLPML: return nic->longest;
    case MRQC: return nic->mrqc;
    default: return read_table(nic, offset);
    }
}

/* ---- writing ---- */

static void write_ctrl(struct exo_nic *nic, uint32_t value)
{
    if (!(value & NIC_CTRL_RST)) {
        nic->ctrl = value & (NIC_CTRL_FD | NIC_CTRL_SLU);
        return;
    }
    nic_fifo_flush(nic, nic->now);
    nic_reset_registers(nic);
}

static void write_rctl(struct exo_nic *nic, uint32_t value)
{
    nic->rctl = value & RCTL_WRITABLE;
    if (!(nic->rctl & NIC_RXEN))
        nic_fifo_flush(nic, nic->now);
    nic_recompute(nic);
}

/* Slots are as long as the configuration said; a longer limit than that cannot be had. */
static void write_rlpml(struct exo_nic *nic, uint32_t value)
{
    uint32_t longest = value < nic->config.max_frame ? value : nic->config.max_frame;
    nic->longest = longest < EXO_MIN_FRAME ? EXO_MIN_FRAME : longest;
}

static void write_ims(struct exo_nic *nic, uint32_t value)
{
    if (!(nic->icr & nic->ims) && nic->icr & value)
        nic->raised = nic->now;
    nic->ims |= value;
}

static void write_tail(struct exo_nic *nic, struct nic_queue *queue, uint32_t value)
{
    uint32_t taken = (queue->next - 1 - queue->tail) & queue->mask, count = (value - queue->tail) & queue->mask;
    if (value <= queue->mask && count <= taken) {
        nic_return(nic, queue, count);
        nic_drain(nic, nic->now);
    }
}

static void write_rx_queue(struct exo_nic *nic, uint32_t number, uint32_t offset, uint32_t value)
{
    struct nic_queue *queue = &nic->queue[number];
    switch (offset) {
    case SRRCTL: queue->drop_enable = (value & SRRCTL_DROP_EN) != 0; break;
    case TAIL: write_tail(nic, queue, value); return;
    case XDCTL: queue->enabled = (value & NIC_QUEUE_ENABLE) != 0; break;
    default: return;
    }
    nic_recompute(nic);
    nic_drain(nic, nic->now);
}

static void write_address(struct exo_nic *nic, uint32_t row, int high_half, uint32_t value)
{
    struct nic_address *entry = &nic->unicast[row];
    if (high_half) {
        entry->mac = (entry->mac & ~0xffffull) | __builtin_bswap16((uint16_t)value);
        entry->users = (value & RAH_VALID) != 0;
    } else {
        entry->mac = (entry->mac & 0xffff) | (uint64_t)__builtin_bswap32(value) << 16;
    }
    nic_filter_rebuild(nic);
}

static void write_word(uint8_t *bytes, uint32_t value)
{
    for (uint32_t i = 0; i < 4; i++)
        bytes[i] = (uint8_t)(value >> 8 * i);
}

static void write_table(struct exo_nic *nic, uint32_t offset, uint32_t value)
{
    if (within(offset, MTA, 128)) {
        nic->mta[(offset - MTA) / 4] = value;
    } else if (within(offset, RAL, 2 * NIC_RAR)) {
        write_address(nic, (offset - RAL) / 8, offset & 4, value);
    } else if (within(offset, RETA, NIC_RETA / 4)) {
        write_word(nic->reta + offset - RETA, value & 0x07070707);
    } else if (within(offset, RSSRK, NIC_RSS_KEY / 4)) {
        write_word(nic->key + offset - RSSRK, value);
        nic_rss_tables(nic);
    } else if (within(offset, RX_QUEUE, nic->queues * QUEUE_STRIDE / 4)) {
        write_rx_queue(nic, (offset - RX_QUEUE) / QUEUE_STRIDE, offset % QUEUE_STRIDE, value);
    }
}

void exo_nic_write(struct exo_nic *nic, uint32_t offset, uint32_t value)
{
    if (offset % 4)
        return;
    switch (offset) {
    case CTRL: write_ctrl(nic, value); break;
    case VET: nic->vet = value & 0xffff; break;
    case ICR: case ICR_OLD: nic->icr &= ~value; break;
    case ICS: case ICS_OLD: nic_raise(nic, value, nic->now); break;
    case IMS: case IMS_OLD: write_ims(nic, value); break;
    case IMC: case IMC_OLD: nic->ims &= ~value; break;
    case EITR0: nic->itr_ns = (value >> 2 & EITR_MAX_US) * 1000ull; break;
    case RCTL: write_rctl(nic, value); break;
    case RLPML: write_rlpml(nic, value); break;
    case MRQC: nic->mrqc = value; nic_recompute(nic); break;
    default: write_table(nic, offset, value);
    }
}
