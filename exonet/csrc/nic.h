/* SPDX-License-Identifier: MIT
 *
 * The emulated NIC, modelled on Intel's 82576 (igb): register file, receive queues of 16-byte descriptors with head and
 * tail, a byte FIFO apart from them, address filter, RSS, interrupt throttling, transmit descriptors. One per port.
 * The kernel is its driver: exo_nic_take reads done descriptors, exo_nic_refill gives them back.
 */
enum exo_nic_mode { EXO_NIC_DROP, EXO_NIC_BACKPRESSURE };
enum exo_nic_limits { EXO_NIC_MAX_QUEUES = 8, EXO_NIC_UNICAST = 320, EXO_NIC_GROUPS = 1024, EXO_NIC_TX_DESCRIPTORS = 256 };

/* exo_frame.flags beyond the 16 that a LibOS sees. */
enum exo_nic_frame_flag { EXO_F_BAD_CRC = 65536 };   /* the wire says that the frame check sequence was wrong: rx_crc */

struct exo_nic_config {
    uint8_t mac[6];
    uint16_t queues;         /* receive queues, 1..8 */
    uint32_t descriptors;    /* per queue, power of two, 8..32768; one is always left unused (RDT one behind) */
    uint32_t fifo_bytes;     /* the shared byte FIFO */
    uint32_t max_frame;      /* longer ones are rx_long; 60..65535 */
    uint32_t mode;           /* enum exo_nic_mode */
    uint32_t promiscuous;    /* 1: unicast and multicast promiscuous */
    uint32_t drop_enable;    /* 1: a queue without descriptors drops (rx_no_buffer) instead of blocking the FIFO */
    uint32_t itr_ns;         /* interrupt throttling interval; 0: an interrupt per arrival */
    uint64_t seed;           /* of the RSS key; 0: Microsoft's verification key */
};

/* exonet's own counters beside the registers; names as ethtool -S spells them. */
struct exo_nic_counters {
    uint64_t rx_packets;     /* DMA-written with a descriptor */
    uint64_t rx_bytes;       /* captured bytes, without padding */
    uint64_t rx_multicast;
    uint64_t rx_broadcast;
    uint64_t rx_filtered;
    uint64_t rx_missed;
    uint64_t rx_no_buffer;
    uint64_t rx_short;
    uint64_t rx_long;
    uint64_t rx_crc;
    uint64_t rx_fifo;
    uint64_t rx_descriptors; /* descriptors consumed, all queues */
    uint64_t rx_waited;      /* frames that found no free descriptor, or others waiting, and went through the FIFO */
    uint64_t tx_packets;
    uint64_t tx_bytes;
    uint64_t tx_descriptors;
    uint64_t interrupts;
    uint64_t rx_longest;     /* bytes of the longest frame that was rx_long */
    uint64_t switched;       /* frames of the port's own environments turned round */
};

struct exo_nic;

/* NULL where a value is out of range or there is no memory. The ledger is where its drops are counted. */
struct exo_nic *exo_nic_new(const struct exo_nic_config *config, struct exo_ledger *ledger, uint16_t port);
void exo_nic_free(struct exo_nic *nic);

/* Frames from the wire (or switched locally), in order. Returns how many were taken, which in EXO_NIC_DROP mode is all of them
 * (dropped ones are counted); in EXO_NIC_BACKPRESSURE mode it stops at the first that finds no room (one with EXO_F_LOCAL has no
 * wire to wait on and is rx_missed there too). Counts stages MAC and NIC. */
uint32_t exo_nic_receive(struct exo_nic *nic, const struct exo_frame *frames, uint32_t n, uint64_t now);

/* The driver: done descriptors of a queue, in order, at most max. data points into the DMA buffer and is padded with zeroes to 60
 * bytes there. Nothing is reused before exo_nic_refill. */
uint32_t exo_nic_take(struct exo_nic *nic, uint32_t queue, struct exo_frame *out, uint32_t max);
/* The last n frames taken from a queue since its refill are done descriptors again, and the next exo_nic_take gives them again: for a
 * kernel that finds no room for them and would rather wait. More than were taken: all of those. */
void exo_nic_untake(struct exo_nic *nic, uint32_t queue, uint32_t n);
/* The driver gives back every descriptor that exo_nic_take handed out on this queue (writes RDT); the FIFO drains into them. */
void exo_nic_refill(struct exo_nic *nic, uint32_t queue, uint64_t now);
/* Is there a done descriptor in any queue? */
int32_t exo_nic_pending(const struct exo_nic *nic);
/* ns at which a throttled interrupt will fire; UINT64_MAX: none asked for. */
uint64_t exo_nic_interrupt_due(const struct exo_nic *nic);
/* Takes the interrupt: clears the cause, counts it, masks until exo_nic_unmask (budgeted polling). */
void exo_nic_acknowledge(struct exo_nic *nic, uint64_t now);
void exo_nic_unmask(struct exo_nic *nic, uint64_t now);

/* Transmit: a DMA buffer of the NIC's own, of n bytes, to gather a frame into: the caller's until exo_nic_flush. NULL: ring full. */
uint8_t *exo_nic_tx_buffer(struct exo_nic *nic, uint32_t n);
/* Commits a frame that lies in such a buffer for the wire, sent at exo_nic_flush. A buffer that is not committed sends nothing. */
void exo_nic_tx_commit(struct exo_nic *nic, const struct exo_frame *frame);
/* Sends what was committed; returns how many the wire took; the rest is dropped as transmit.wire_full. */
uint32_t exo_nic_flush(struct exo_nic *nic, struct exo_wire *wire, uint64_t now);

/* Frames inside: FIFO and done descriptors (walked, not remembered). */
uint64_t exo_nic_in_flight(const struct exo_nic *nic);
/* The same added to out, by enum exo_origin. */
void exo_nic_in_flight_of(const struct exo_nic *nic, uint64_t out[2]);
const struct exo_nic_counters *exo_nic_counters(const struct exo_nic *nic);
/* The register file by byte offset as in the 82576 datasheet; an unknown offset reads 0 and ignores writes. Reading has no effect:
 * what the datasheet clears on read (ICR) is cleared by writing ones, and statistics only grow. */
uint32_t exo_nic_read(const struct exo_nic *nic, uint32_t offset);
void exo_nic_write(struct exo_nic *nic, uint32_t offset, uint32_t value);
/* Adds a unicast address or a group to the filter, or takes it away (counted per address: two joins need two leaves). All zero: every
 * group. EXO_E_FULL, EXO_E_NOT_FOUND. */
int32_t exo_nic_filter_add(struct exo_nic *nic, const uint8_t mac[6]);
int32_t exo_nic_filter_remove(struct exo_nic *nic, const uint8_t mac[6]);
/* Is mac a station behind this port: the NIC's own address or a unicast one added to the filter? 1 or 0; groups are 0. */
int32_t exo_nic_is_local(const struct exo_nic *nic, const uint8_t mac[6]);
/* What the driver would read of a receive descriptor now: its 16 bytes as they stand; EXO_E_INVALID. For tests and `exonet show`. */
int32_t exo_nic_descriptor(const struct exo_nic *nic, uint32_t queue, uint32_t index, uint8_t out[16]);
/* At most n bytes of the DMA buffer of that descriptor; returns how many were copied, or EXO_E_INVALID. */
int32_t exo_nic_buffer(const struct exo_nic *nic, uint32_t queue, uint32_t index, uint8_t *out, uint32_t n);
/* Toeplitz hash of a frame as RSS computes it (0 where the frame has no IP header). */
uint32_t exo_nic_rss(const struct exo_nic *nic, const uint8_t *data, uint32_t len);
