/* SPDX-License-Identifier: MIT
 *
 * The contract between the kernel and a LibOS: everything the two share in memory, and the words both use.
 * gcc and cffi read this same file, so it holds declarations only; abi.c asserts every size and offset.
 * It names memory by page number and offset, never by pointer. Integers are in host byte order.
 *
 * Two memory areas belong to an environment. The *kernel area* is written by the kernel and mapped read-only by
 * the LibOS; it begins with struct exo_kernel_area. The *LibOS area* is written by the LibOS, so the kernel trusts
 * no word of it; it begins with struct exo_libos_area. Ring arrays lie at the offsets given in struct exo_layout.
 * Ring indices run freely (uint32 wrap-around); the slot is index & (entries - 1); entries is a power of two.
 */
enum exo_abi {
    EXO_ABI_VERSION = 1,
    EXO_PAGE_SIZE = 4096,
    EXO_CACHE_LINE = 64,
    EXO_MIN_FRAME = 60,
    EXO_MAX_FRAME = 65535,
    EXO_BUFFER_SIZE = 2048,
    EXO_STACK_REASONS = 32
};

/* What a C function returns instead of 0 or a count. abi.check() turns each into an exception of errors.py. */
enum exo_error {
    EXO_E_INVALID = -1,     /* an argument is out of its range */
    EXO_E_MEMORY = -2,      /* no memory */
    EXO_E_FULL = -3,        /* a table, ring or quota is full */
    EXO_E_NOT_FOUND = -4,   /* no such page, binding, environment */
    EXO_E_BUSY = -5,        /* pinned, posted, or owned by somebody else */
    EXO_E_END = -6,         /* the source has no more frames */
    EXO_E_SYSTEM = -7,      /* a system call failed; errno tells */
    EXO_E_FORMAT = -8,      /* a capture file breaks its format */
    EXO_E_DENIED = -9,      /* not authorised */
    EXO_E_CONFLICT = -10    /* it would take what another binding holds */
};

/* Receive descriptor and transmit descriptor flags. */
enum exo_flag {
    EXO_F_MORE = 1,          /* the frame goes on in the next descriptor */
    EXO_F_SNAPPED = 2,       /* the capture's snaplen cut it: length < wire_len */
    EXO_F_PADDED = 4,        /* it was shorter than 60 bytes: length > wire_len */
    EXO_F_CSUM = 8,          /* csum holds the ones-complement sum of the bytes from offset 14 to the end of the frame */
    EXO_F_GROUP = 16,        /* broadcast or multicast: this is a copy */
    EXO_F_SNOOP = 32,        /* a snoop binding's copy */
    EXO_F_LOCAL = 64,        /* switched from another environment of the port */
    EXO_F_NEEDS_CSUM = 128   /* transmit: fill the checksum at csum_start + csum_offset (virtio-net's meaning) */
};

/* fill ring entry, LibOS to kernel: a buffer to receive into. offset + length <= 4096. */
struct exo_fill {
    uint32_t page;
    uint16_t offset;
    uint16_t length;
};

/* receive ring entry, kernel to LibOS. length: bytes written here; wire_len: the frame's length on the wire. */
struct exo_receive {
    uint32_t page;
    uint16_t offset;
    uint16_t length;
    uint32_t wire_len;
    uint16_t flags;
    uint16_t csum;
    uint32_t binding;
    uint16_t port;
    uint16_t reserved;
    uint64_t timestamp;      /* arrival, ns of the machine's clock */
};

/* transmit ring entry, LibOS to kernel. A frame may be a chain (EXO_F_MORE) of up to 18 entries. */
struct exo_transmit {
    uint32_t page;
    uint16_t offset;
    uint16_t length;
    uint16_t flags;
    uint16_t port;
    uint16_t csum_start;
    uint16_t csum_offset;
    uint16_t gso_size;       /* 0: not a super-frame */
    uint16_t gso_type;       /* virtio-net's VIRTIO_NET_HDR_GSO_* */
    uint16_t hdr_len;
    uint16_t reserved;
    uint64_t cookie;         /* comes back in the completion */
};

/* completion ring entry, kernel to LibOS: the buffer of a transmit entry is the LibOS's again. One per entry. */
struct exo_completion {
    uint64_t cookie;
    int32_t status;          /* 0, or the negative exo_reason under which the frame was dropped */
    uint32_t reserved;
};

/* One ring index alone on its cache line. */
struct exo_index {
    uint32_t value;
    uint8_t pad[60];
};

/* Where the four arrays lie, in bytes from the start of their area, and how many entries each has. */
struct exo_layout {
    uint32_t fill_entries;
    uint32_t receive_entries;
    uint32_t transmit_entries;
    uint32_t completion_entries;
    uint32_t receive_offset;     /* in the kernel area */
    uint32_t completion_offset;  /* in the kernel area */
    uint32_t fill_offset;        /* in the LibOS area */
    uint32_t transmit_offset;    /* in the LibOS area */
    uint32_t verdict_offset;     /* in the LibOS area: a uint16 per receive entry, the exo_reason the LibOS gave it */
    uint32_t reserved;
    uint32_t kernel_area_size;
    uint32_t libos_area_size;
};

/* Kernel-written words. */
struct exo_kernel_area {
    uint32_t abi_version;
    uint32_t env;
    uint64_t seed;               /* the run's seed, mixed with env: for a LibOS that wants to repeat itself */
    struct exo_layout layout;
    struct exo_index fill_taken;         /* fill entries the kernel has taken */
    struct exo_index receive_put;        /* receive entries the kernel has written */
    struct exo_index transmit_taken;
    struct exo_index completion_put;
    struct exo_index need_wakeup;        /* 1: the kernel sleeps; after posting to transmit, send a byte on the wake socket */
    struct exo_index stop;               /* 1: the environment is asked to leave */
    uint64_t now;                        /* inline on the virtual clock: the time of this step, ns */
    uint8_t pad1[56];
};

/* What a LibOS counts of itself, for its own describe(); the ledger does not rest on it. What became of each received frame is told
 * by its verdict: before it moves receive_taken past an entry, the LibOS writes there EXO_R_DELIVERED or a reason of stage STACK (of a
 * chain, the first entry's counts). drop[] is indexed by reason - EXO_R_STACK_FIRST. */
struct exo_stack_counters {
    uint64_t delivered;
    uint64_t bytes;
    uint64_t sent;
    uint64_t digest;
    uint64_t drop[32];
};

/* LibOS-written words. */
struct exo_libos_area {
    struct exo_index fill_put;
    struct exo_index receive_taken;
    struct exo_index transmit_put;
    struct exo_index completion_taken;
    struct exo_index need_wakeup;        /* 1: the LibOS sleeps; the kernel wakes it after putting into receive or completion */
    struct exo_stack_counters counters;
    uint8_t pad[32];
};

/* A row of the owner table, one per physical page, readable by every LibOS. */
struct exo_page_owner {
    uint32_t env;            /* 0: free; EXO_KERNEL_ENV: the kernel's */
    uint32_t pins;
};

enum exo_env_number { EXO_NO_ENV = 0, EXO_KERNEL_ENV = 4294967295 };

/* The stages of the ledger, in the order a frame passes them. */
enum exo_stage {
    EXO_S_SOURCE, EXO_S_TAP, EXO_S_MAC, EXO_S_NIC, EXO_S_DEMUX, EXO_S_HANDLER, EXO_S_RING, EXO_S_STACK, EXO_S_TRANSMIT,
    EXO_STAGES
};

/* Every fate a frame can have. ledger.c has the "stage.reason" spelling of each; its tests compare the two. */
enum exo_reason {
    EXO_R_DELIVERED = 0,         /* a LibOS consumed it */
    EXO_R_SENT,                  /* it left on a wire */

    EXO_R_SOURCE_FIRST,
    EXO_R_SOURCE_EXCLUDED = EXO_R_SOURCE_FIRST,  /* --include / --exclude */
    EXO_R_SOURCE_LINK_TYPE,       /* of another link type, and it cannot become an Ethernet frame */
    EXO_R_SOURCE_OVERSIZE,       /* longer than 65535 bytes */
    EXO_R_SOURCE_IMPAIR_LOSS,    /* the impair wire lost it on purpose */
    EXO_R_SOURCE_QUEUE_FULL,     /* the impair wire's or cable's queue was full */

    EXO_R_TAP_FIRST,
    EXO_R_TAP_TX_DROPPED = EXO_R_TAP_FIRST,      /* the device's own counter */
    EXO_R_TAP_UNACCOUNTED,       /* counted by neither the device nor the reader */
    EXO_R_TAP_READ_ERROR,

    EXO_R_MAC_FIRST,
    EXO_R_MAC_FILTERED = EXO_R_MAC_FIRST,        /* another station's unicast, or a group nobody joined */

    EXO_R_NIC_FIRST,
    EXO_R_NIC_RX_MISSED = EXO_R_NIC_FIRST,       /* byte FIFO full */
    EXO_R_NIC_RX_NO_BUFFER,      /* no free descriptor, with drop-enable */
    EXO_R_NIC_RX_SHORT,          /* shorter than an Ethernet header */
    EXO_R_NIC_RX_LONG,           /* giant */
    EXO_R_NIC_RX_CRC,
    EXO_R_NIC_RX_FIFO,           /* receiver reset or disabled while the FIFO held it */

    EXO_R_DEMUX_FIRST,
    EXO_R_DEMUX_NO_MATCH = EXO_R_DEMUX_FIRST,    /* nobody claims it */
    EXO_R_DEMUX_NO_SUBSCRIBER,   /* a group frame that no environment takes */
    EXO_R_DEMUX_NO_NEIGHBOUR,    /* ARP request or neighbour solicitation for an address nobody owns */
    EXO_R_DEMUX_FRAGMENT_LOST,   /* a fragment whose first never came, or whose table entry was pushed out */

    EXO_R_RING_FIRST,
    EXO_R_RING_NO_BUFFER = EXO_R_RING_FIRST,     /* the LibOS had posted no buffer */
    EXO_R_RING_BAD_BUFFER,       /* it posted a buffer that is not its own, not pinned, or out of bounds */
    EXO_R_RING_FULL,             /* the receive ring is full */
    EXO_R_RING_CORRUPT,          /* the LibOS wrote an impossible ring index; the ring is shut */
    EXO_R_RING_ENV_DEAD,         /* the environment is gone */

    EXO_R_STACK_FIRST,
    EXO_R_STACK_UNACCOUNTED = EXO_R_STACK_FIRST, /* the LibOS took it and never said what became of it */
    EXO_R_STACK_TOO_SHORT,
    EXO_R_STACK_OTHERHOST,
    EXO_R_STACK_UNHANDLED_PROTO,
    EXO_R_STACK_IP_HEADER,
    EXO_R_STACK_IP_CSUM,
    EXO_R_STACK_ICMP_CSUM,
    EXO_R_STACK_UDP_CSUM,
    EXO_R_STACK_NO_SOCKET,
    EXO_R_STACK_SOCKET_RCVBUFF,  /* the socket's queue is full */
    EXO_R_STACK_FRAG_REASM_TIMEOUT,
    EXO_R_STACK_FRAG_REASM_FULL,
    EXO_R_STACK_FRAG_OVERLAP,
    EXO_R_STACK_ARP_HEADER,
    EXO_R_STACK_NDP_HEADER,
    EXO_R_STACK_ICMP_HEADER,
    EXO_R_STACK_UDP_HEADER,
    EXO_R_STACK_SNAPPED,         /* the capture's snaplen cut off what the stack needs */
    EXO_R_STACK_VLAN,            /* a tag this stack has no interface for */
    EXO_R_STACK_REFUSED,         /* the app's own policy */
    EXO_R_STACK_IP_INVALID_SOURCE,  /* from an address that no other host can have */

    EXO_R_TRANSMIT_FIRST,
    EXO_R_TRANSMIT_SPOOFED = EXO_R_TRANSMIT_FIRST,  /* not from the sender's own local side */
    EXO_R_TRANSMIT_BAD_DESCRIPTOR,  /* page, bounds or chain */
    EXO_R_TRANSMIT_NOT_GRANTED,  /* no transmit right on the port */
    EXO_R_TRANSMIT_TOO_LONG,
    EXO_R_TRANSMIT_WIRE_FULL,    /* the wire would not take it */
    EXO_R_TRANSMIT_NO_CARRIER,   /* the wire is gone */

    EXO_REASONS
};
