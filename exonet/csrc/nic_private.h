/* SPDX-License-Identifier: MIT
 *
 * The NIC's inside, shared by nic*.c only. Everything hangs from struct exo_nic.
 * Receive descriptors hold bus addresses: byte offsets into nic->dma, never pointers. The NIC owns descriptors [head, tail)
 * of a queue; done ones are [next, head); those taken but not refilled end at next; tail is always one behind what the
 * driver has given back, so head == tail means none free. `meta` is the driver's side array: what a descriptor cannot say.
 * Owner of every field: the kernel thread.
 */
#ifndef EXO_NIC_PRIVATE_H
#define EXO_NIC_PRIVATE_H

#include "exo_kernel.h"

/* 82576 datasheet 7.1.5: the advanced receive descriptor, read format and write-back format. */
union nic_rx_descriptor {
    struct {
        uint64_t packet_address;
        uint64_t header_address;
    } read;
    struct {
        uint16_t packet_info;    /* RSS type in the low four bits */
        uint16_t header_info;
        uint32_t rss_hash;
        uint32_t status;         /* written last, alone */
        uint16_t length;
        uint16_t vlan;
    } done;
};

/* 82576 datasheet 7.2.2.3: the advanced transmit data descriptor; the write-back sets DD in the last word. */
union nic_tx_descriptor {
    struct {
        uint64_t address;
        uint32_t command_length;
        uint32_t status;
    } data;
};

enum nic_status { NIC_DD = 1, NIC_EOP = 2, NIC_VP = 8 };
enum nic_tx_command { NIC_TX_DATA = 3 << 20, NIC_TX_EOP = 1 << 24, NIC_TX_RS = 1 << 27 };
enum nic_cause { NIC_TXDW = 1, NIC_LSC = 4, NIC_RX_MISS = 64, NIC_RXDW = 128 };
enum nic_ctrl { NIC_CTRL_FD = 1, NIC_CTRL_SLU = 64, NIC_CTRL_RST = 1 << 26 };
enum nic_rctl { NIC_RXEN = 2, NIC_UPE = 8, NIC_MPE = 16, NIC_LPE = 32, NIC_BAM = 32768, NIC_SECRC = 1 << 26 };
enum nic_queue_enable { NIC_QUEUE_ENABLE = 1 << 25 };
enum nic_mrqc {
    NIC_MRQC_RSS = 2, NIC_RSS_TCP4 = 1 << 16, NIC_RSS_IP4 = 1 << 17, NIC_RSS_IP6 = 1 << 20, NIC_RSS_TCP6 = 1 << 21,
    NIC_RSS_UDP4 = 1 << 22, NIC_RSS_UDP6 = 1 << 23
};
enum nic_rss_type { NIC_HASH_NONE, NIC_HASH_TCP4, NIC_HASH_IP4, NIC_HASH_TCP6, NIC_HASH_IP6 = 5, NIC_HASH_UDP4 = 7, NIC_HASH_UDP6 };
enum nic_sizes {
    NIC_HEADER = 14, NIC_RAR = 16, NIC_RETA = 128, NIC_RSS_KEY = 40, NIC_RSS_INPUT = 36, NIC_TX_ALIGN = 64,
    NIC_TX_MEMORY = 1 << 20, NIC_INDEX = 4096, NIC_MAX_DESCRIPTORS = 32768, NIC_MAX_FIFO = 1 << 28
};

struct nic_queue {
    union nic_rx_descriptor *ring;
    struct exo_frame *meta;
    uint64_t slots;          /* bus address of the first DMA slot */
    uint32_t mask;
    uint32_t head;           /* RDH: the next descriptor the NIC writes */
    uint32_t tail;           /* RDT */
    uint32_t next;           /* the driver: the next descriptor to look at */
    uint32_t enabled;
    uint32_t drop_enable;    /* SRRCTL.DROP_EN */
    uint64_t dropped;        /* RQDPC */
};

struct nic_fifo_entry {
    struct exo_frame frame;  /* data points into the FIFO */
    uint32_t bytes;          /* what it occupies; 0: this entry is empty */
    uint32_t hash;
    uint16_t queue;
    uint16_t type;
};

/* The shared packet buffer. Strictly in order: entries [head, tail). Bytes are placed whole: a frame that begins before `size` may
 * end in the slack behind it, so live frames never overlap (what they occupy never exceeds `size`). */
struct nic_fifo {
    uint8_t *memory;
    struct nic_fifo_entry *entry;
    uint32_t size;
    uint32_t used;
    uint32_t write;
    uint32_t mask;
    uint32_t head;
    uint32_t tail;
};

struct nic_address {
    uint64_t mac;            /* the six bytes, first one highest */
    uint32_t users;          /* 0: free */
};

struct nic_transmit {
    union nic_tx_descriptor *ring;
    struct exo_frame *frame;
    uint8_t *memory;
    uint32_t memory_size;
    uint32_t used;           /* bytes of memory handed out since the last flush */
    uint32_t buffers;        /* how many buffers they are */
    uint32_t count;          /* frames committed since the last flush */
    uint32_t head;           /* TDH */
    uint32_t tail;           /* TDT */
};

struct nic_statistics {
    uint64_t no_buffers;     /* RNBC: frames that met a queue without descriptors, dropped or not */
    uint64_t received_bytes;
    uint64_t received;       /* TPR: all frames that came, good and bad */
    uint64_t tx_multicast;
    uint64_t tx_broadcast;
};

struct exo_nic {
    struct exo_ledger *ledger;
    uint8_t *dma;
    uint32_t stride;
    uint32_t longest;        /* RLPML in force */
    uint32_t queues;
    uint32_t fast;           /* 1: everything is accepted into queue 0 (see nic_recompute) */
    uint32_t rctl;
    uint32_t mode;
    uint16_t port;
    struct nic_queue queue[EXO_NIC_MAX_QUEUES];
    struct exo_nic_counters counters;
    struct nic_statistics statistics;
    struct nic_fifo fifo;
    struct nic_transmit tx;
    struct exo_nic_config config;
    uint64_t now;            /* the latest time a caller named */
    /* interrupts */
    uint32_t icr;
    uint32_t ims;
    uint64_t raised;         /* when the oldest unacknowledged cause came */
    uint64_t interrupted;    /* when the last interrupt was taken */
    uint64_t itr_ns;
    /* plain registers */
    uint32_t ctrl;
    uint32_t vet;
    uint32_t mrqc;
    uint8_t reta[NIC_RETA];
    uint8_t key[NIC_RSS_KEY];
    uint32_t toeplitz[NIC_RSS_INPUT * 2][16];   /* by nibble of the input */
    /* address filter */
    struct nic_address unicast[EXO_NIC_UNICAST];   /* the first 16 are RAL/RAH */
    struct nic_address group[EXO_NIC_GROUPS];
    uint32_t all_groups;     /* users of "every group" */
    uint32_t mta[128];       /* what was written to the register: an imperfect filter beside the exact list */
    uint64_t index[NIC_INDEX];   /* open-addressed set of both tables; 0: empty */
};

/* nic_filter.c */
int nic_filter_accepts(const struct exo_nic *nic, const uint8_t *mac);
void nic_filter_rebuild(struct exo_nic *nic);
uint64_t nic_mac(const uint8_t *mac);
uint32_t nic_mta_read(const struct exo_nic *nic, uint32_t word);
/* nic_rss.c */
void nic_rss_key(struct exo_nic *nic, uint64_t seed);
void nic_rss_tables(struct exo_nic *nic);
uint32_t nic_rss_hash(const struct exo_nic *nic, const uint8_t *data, uint32_t len, uint16_t *type);
/* nic_fifo.c: the slow path. 1: taken (or dropped and counted); 0: no room, in backpressure mode. */
int nic_admit(struct exo_nic *nic, const struct exo_frame *frame, uint64_t now);
void nic_drain(struct exo_nic *nic, uint64_t now);
void nic_fifo_flush(struct exo_nic *nic, uint64_t now);
/* nic_registers.c */
void nic_reset_registers(struct exo_nic *nic);
void nic_recompute(struct exo_nic *nic);
/* nic_receive.c: gives `count` taken descriptors of a queue back. */
void nic_return(struct exo_nic *nic, struct nic_queue *queue, uint32_t count);

static inline uint32_t nic_free_descriptors(const struct nic_queue *queue)
{
    return queue->enabled ? (queue->tail - queue->head) & queue->mask : 0;
}

static inline void nic_raise(struct exo_nic *nic, uint32_t cause, uint64_t now)
{
    if (!(nic->icr & nic->ims))
        nic->raised = now;
    nic->icr |= cause;
}

/* How long the frame is on the wire, whatever the capture kept of it. */
static inline uint32_t nic_wire_length(const struct exo_frame *frame)
{
    return frame->wire_len > frame->len ? frame->wire_len : frame->len;
}

/* Small frames, the common case under load, by overlapping fixed-size moves: no call, and nothing read past the source. */
static inline void nic_copy(uint8_t *to, const uint8_t *from, uint32_t n)
{
    if (EXO_LIKELY(n - 32 <= 32)) {
        uint8_t low[32], high[32];
        memcpy(low, from, 32);
        memcpy(high, from + n - 32, 32);
        memcpy(to, low, 32);
        memcpy(to + n - 32, high, 32);
    } else {
        memcpy(to, from, n);
    }
    if (EXO_UNLIKELY(n < EXO_MIN_FRAME))
        memset(to + n, 0, EXO_MIN_FRAME - n);
}

/* DMA-writes a frame into the queue's head descriptor, which must be free: data, side array, then the done bit. */
static inline void nic_dma_write(struct exo_nic *nic, struct nic_queue *queue, uint32_t number, const struct exo_frame *frame,
                                 uint32_t hash, uint16_t type)
{
    union nic_rx_descriptor *descriptor = &queue->ring[queue->head];
    uint8_t *to = nic->dma + descriptor->read.packet_address;
    uint32_t len = frame->len, padded = frame->wire_len < EXO_MIN_FRAME;
    nic_copy(to, frame->data, len);
    uint32_t tagged = exo_be16(to + 12) == nic->vet;

    struct exo_frame *meta = &queue->meta[queue->head];
    *meta = *frame;
    meta->data = to;
    meta->flags |= (padded ? EXO_F_PADDED : 0) | (to[0] & 1 ? EXO_F_GROUP : 0);
    meta->port = nic->port;
    meta->queue = (uint16_t)number;
    meta->rss_hash = hash;

    descriptor->done.packet_info = type;
    descriptor->done.header_info = 0;
    descriptor->done.rss_hash = hash;
    descriptor->done.length = (uint16_t)(padded && len < EXO_MIN_FRAME ? EXO_MIN_FRAME : len);
    descriptor->done.vlan = tagged ? exo_be16(to + 14) : 0;
    /* The tag stays in the data (CTRL.VME is 0); VP only says that the vlan field is valid. */
    __atomic_store_n(&descriptor->done.status, NIC_DD | NIC_EOP | (tagged ? NIC_VP : 0), __ATOMIC_RELEASE);
    queue->head = (queue->head + 1) & queue->mask;
}

#endif
