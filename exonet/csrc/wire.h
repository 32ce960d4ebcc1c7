/* SPDX-License-Identifier: MIT
 *
 * A wire: where frames come from and go to. Every kind (pcap, tap, cable) and every wrapper (impair, tee, pace)
 * is this one struct with its functions filled in; a wrapper holds the wire inside it. The maker frees by close().
 */
/* Its frames have no time of arrival: they are due whenever they are asked for. */
enum exo_wire_flag { EXO_WIRE_UNTIMED = 1 };

struct exo_wire {
    /* Frames due at or before now, at most max; 0: none now; EXO_E_END: there will be no more; EXO_E_SYSTEM. */
    int32_t (*receive)(struct exo_wire *wire, struct exo_frame *out, uint32_t max, uint64_t now);
    /* Hands n frames to the wire; returns how many it took. Fewer than n: it is full, the caller counts the rest. */
    int32_t (*send)(struct exo_wire *wire, const struct exo_frame *in, uint32_t n, uint64_t now);
    /* The earliest ns at which receive may give a frame without its descriptor becoming readable; UINT64_MAX: never. */
    uint64_t (*next_due)(struct exo_wire *wire, uint64_t now);
    /* Frames inside the wire, on their way in: for the in-flight walk. */
    uint64_t (*held)(struct exo_wire *wire);
    /* A frame that this wire gave has met its fate (tee writes it down); NULL for most wires. */
    void (*fate)(struct exo_wire *wire, const struct exo_frame *frame, int32_t reason, uint32_t env);
    void (*close)(struct exo_wire *wire);
    struct exo_ledger *ledger;   /* set when the wire is attached to a port */
    int32_t fd;                  /* readable when receive has frames; -1: none */
    uint16_t port;
    uint16_t flags;              /* enum exo_wire_flag */
    uint64_t rx_frames;          /* given by receive */
    uint64_t rx_bytes;
    uint64_t tx_frames;          /* taken by send */
    uint64_t tx_bytes;
};
