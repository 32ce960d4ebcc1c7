/* SPDX-License-Identifier: MIT
 *
 * The ledger's words and its one act: a frame has met its end. Two tables spell every stage and reason; the order of
 * REASONS is that of enum exo_reason, and a reason's stage is the part before the dot.
 * Invariant: exactly one exo_ledger_fate per frame or copy; recording never changes what is counted.
 * Owner: the kernel thread. ledger->fates is drained (fate_count set back to 0) by exonet/ledger.py between runs of the loop.
 */
#include "exo_kernel.h"

#include <stdlib.h>

static const char *const STAGES[EXO_STAGES] = {
    [EXO_S_SOURCE] = "source",
    [EXO_S_TAP] = "tap",
    [EXO_S_MAC] = "mac",
    [EXO_S_NIC] = "nic",
    [EXO_S_DEMUX] = "demux",
    [EXO_S_HANDLER] = "handler",
    [EXO_S_RING] = "ring",
    [EXO_S_STACK] = "stack",
    [EXO_S_TRANSMIT] = "transmit",
};

struct reason {
    const char *name;
    int32_t stage;
    const char *text;
};

static const struct reason REASONS[EXO_REASONS] = {
    [EXO_R_DELIVERED] = {"delivered", EXO_S_STACK, "a LibOS consumed it"},
    [EXO_R_SENT] = {"sent", EXO_S_TRANSMIT, "it left on a wire"},

    [EXO_R_SOURCE_EXCLUDED] = {"source.excluded", EXO_S_SOURCE, "--include or --exclude left it out"},
    [EXO_R_SOURCE_LINK_TYPE] = {"source.link_type", EXO_S_SOURCE, "of a link type or kind that cannot become an Ethernet frame"},
    [EXO_R_SOURCE_OVERSIZE] = {"source.oversize", EXO_S_SOURCE, "longer than 65535 bytes"},
    [EXO_R_SOURCE_IMPAIR_LOSS] = {"source.impair_loss", EXO_S_SOURCE, "the impair wire lost it on purpose"},
    [EXO_R_SOURCE_QUEUE_FULL] = {"source.queue_full", EXO_S_SOURCE, "the queue of an impair wire or cable was full"},

    [EXO_R_TAP_TX_DROPPED] = {"tap.tx_dropped", EXO_S_TAP, "the device had no room: nobody read fast enough"},
    [EXO_R_TAP_UNACCOUNTED] = {"tap.unaccounted", EXO_S_TAP, "counted by neither the device nor its reader"},
    [EXO_R_TAP_READ_ERROR] = {"tap.read_error", EXO_S_TAP, "reading the TAP device failed"},

    [EXO_R_MAC_FILTERED] = {"mac.filtered", EXO_S_MAC, "another station's, or a group nobody joined"},

    [EXO_R_NIC_RX_MISSED] = {"nic.rx_missed", EXO_S_NIC, "the NIC's byte FIFO was full"},
    [EXO_R_NIC_RX_NO_BUFFER] = {"nic.rx_no_buffer", EXO_S_NIC, "the NIC had no free receive descriptor"},
    [EXO_R_NIC_RX_SHORT] = {"nic.rx_short", EXO_S_NIC, "shorter than an Ethernet header"},
    [EXO_R_NIC_RX_LONG] = {"nic.rx_long", EXO_S_NIC, "longer than the NIC's maximum frame"},
    [EXO_R_NIC_RX_CRC] = {"nic.rx_crc", EXO_S_NIC, "bad frame check sequence"},
    [EXO_R_NIC_RX_FIFO] = {"nic.rx_fifo", EXO_S_NIC, "the receiver was reset or disabled"},

    [EXO_R_DEMUX_NO_MATCH] = {"demux.no_match", EXO_S_DEMUX, "no binding claims it"},
    [EXO_R_DEMUX_NO_SUBSCRIBER] = {"demux.no_subscriber", EXO_S_DEMUX, "broadcast or multicast nobody takes"},
    [EXO_R_DEMUX_NO_NEIGHBOUR] = {"demux.no_neighbour", EXO_S_DEMUX, "asks for an address that nobody owns"},
    [EXO_R_DEMUX_FRAGMENT_LOST] = {"demux.fragment_lost", EXO_S_DEMUX, "a fragment whose first one is not known"},

    [EXO_R_RING_NO_BUFFER] = {"ring.no_buffer", EXO_S_RING, "the LibOS had posted no buffer"},
    [EXO_R_RING_BAD_BUFFER] = {"ring.bad_buffer", EXO_S_RING, "the LibOS posted a buffer it may not use"},
    [EXO_R_RING_FULL] = {"ring.full", EXO_S_RING, "the LibOS's receive ring was full"},
    [EXO_R_RING_CORRUPT] = {"ring.corrupt", EXO_S_RING, "the LibOS wrote an impossible ring index"},
    [EXO_R_RING_ENV_DEAD] = {"ring.env_dead", EXO_S_RING, "the environment is gone"},

    [EXO_R_STACK_UNACCOUNTED] = {"stack.unaccounted", EXO_S_STACK, "the LibOS never said what became of it"},
    [EXO_R_STACK_TOO_SHORT] = {"stack.too_short", EXO_S_STACK, "shorter than its headers"},
    [EXO_R_STACK_OTHERHOST] = {"stack.otherhost", EXO_S_STACK, "to an address that is not this stack's"},
    [EXO_R_STACK_UNHANDLED_PROTO] = {"stack.unhandled_proto", EXO_S_STACK, "a protocol this stack does not speak"},
    [EXO_R_STACK_IP_HEADER] = {"stack.ip_header", EXO_S_STACK, "malformed IP header"},
    [EXO_R_STACK_IP_INVALID_SOURCE] = {"stack.ip_invalid_source", EXO_S_STACK, "from an address that no other host can have"},
    [EXO_R_STACK_IP_CSUM] = {"stack.ip_csum", EXO_S_STACK, "wrong IP header checksum"},
    [EXO_R_STACK_ICMP_CSUM] = {"stack.icmp_csum", EXO_S_STACK, "wrong ICMP checksum"},
    [EXO_R_STACK_UDP_CSUM] = {"stack.udp_csum", EXO_S_STACK, "wrong UDP checksum"},
    [EXO_R_STACK_NO_SOCKET] = {"stack.no_socket", EXO_S_STACK, "no socket has this port"},
    [EXO_R_STACK_SOCKET_RCVBUFF] = {"stack.socket_rcvbuff", EXO_S_STACK, "the socket's queue was full"},
    [EXO_R_STACK_FRAG_REASM_TIMEOUT] = {"stack.frag_reasm_timeout", EXO_S_STACK, "datagram not complete in time"},
    [EXO_R_STACK_FRAG_REASM_FULL] = {"stack.frag_reasm_full", EXO_S_STACK, "no room to reassemble it"},
    [EXO_R_STACK_FRAG_OVERLAP] = {"stack.frag_overlap", EXO_S_STACK, "overlaps another fragment"},
    [EXO_R_STACK_ARP_HEADER] = {"stack.arp_header", EXO_S_STACK, "malformed ARP"},
    [EXO_R_STACK_NDP_HEADER] = {"stack.ndp_header", EXO_S_STACK, "malformed neighbour discovery"},
    [EXO_R_STACK_ICMP_HEADER] = {"stack.icmp_header", EXO_S_STACK, "malformed ICMP"},
    [EXO_R_STACK_UDP_HEADER] = {"stack.udp_header", EXO_S_STACK, "malformed UDP"},
    [EXO_R_STACK_SNAPPED] = {"stack.snapped", EXO_S_STACK, "the capture cut off what the stack needs"},
    [EXO_R_STACK_VLAN] = {"stack.vlan", EXO_S_STACK, "a VLAN tag this stack has no interface for"},
    [EXO_R_STACK_REFUSED] = {"stack.refused", EXO_S_STACK, "the application's own policy"},

    [EXO_R_TRANSMIT_SPOOFED] = {"transmit.spoofed", EXO_S_TRANSMIT, "not from the sender's own local side"},
    [EXO_R_TRANSMIT_BAD_DESCRIPTOR] = {"transmit.bad_descriptor", EXO_S_TRANSMIT, "page, bounds or chain not allowed"},
    [EXO_R_TRANSMIT_NOT_GRANTED] = {"transmit.not_granted", EXO_S_TRANSMIT, "no right to transmit on this port"},
    [EXO_R_TRANSMIT_TOO_LONG] = {"transmit.too_long", EXO_S_TRANSMIT, "longer than the wire takes"},
    [EXO_R_TRANSMIT_WIRE_FULL] = {"transmit.wire_full", EXO_S_TRANSMIT, "the wire would not take it"},
    [EXO_R_TRANSMIT_NO_CARRIER] = {"transmit.no_carrier", EXO_S_TRANSMIT, "the wire is gone"},
};

_Static_assert(EXO_ORIGINS == 2, "struct exo_ledger has two accounts");
_Static_assert(EXO_STAGES == 9, "struct exo_ledger has nine stages");
_Static_assert(EXO_REASONS <= 96, "struct exo_ledger has room for 96 reasons");
_Static_assert(sizeof(struct exo_fate) == 40, "ledger.py reads fates as records of 40 bytes");

static int known(int32_t reason)
{
    return reason >= 0 && reason < EXO_REASONS && REASONS[reason].name;
}

const char *exo_reason_name(int32_t reason)
{
    return known(reason) ? REASONS[reason].name : NULL;
}

const char *exo_stage_name(int32_t stage)
{
    return stage >= 0 && stage < EXO_STAGES ? STAGES[stage] : NULL;
}

const char *exo_reason_text(int32_t reason)
{
    return known(reason) ? REASONS[reason].text : NULL;
}

int32_t exo_reason_stage(int32_t reason)
{
    return known(reason) ? REASONS[reason].stage : EXO_E_INVALID;
}

int32_t exo_ledger_record(struct exo_ledger *ledger, uint64_t capacity)
{
    free(ledger->fates);
    ledger->fates = NULL;
    ledger->fate_count = 0;
    ledger->fate_capacity = 0;
    if (capacity == 0)
        return 0;
    if (capacity > SIZE_MAX / sizeof *ledger->fates)
        return EXO_E_MEMORY;
    ledger->fates = malloc(capacity * sizeof *ledger->fates);
    if (!ledger->fates)
        return EXO_E_MEMORY;
    ledger->fate_capacity = capacity;
    return 0;
}

static void append(struct exo_ledger *ledger, const struct exo_frame *frame, int32_t reason, uint32_t env, uint64_t now)
{
    if (ledger->fate_count >= ledger->fate_capacity) {
        ledger->fates_lost++;
        return;
    }
    struct exo_fate *fate = &ledger->fates[ledger->fate_count++];
    fate->id = frame->id;
    fate->stamp = frame->stamp;
    fate->arrived = frame->ts;
    fate->ended = now;
    fate->env = env;
    fate->reason = (uint8_t)reason;
    fate->converted = frame->flags & EXO_F_CONVERTED ? 1 : 0;
    fate->port = frame->port;
}

int32_t exo_frame_origin(const struct exo_frame *frame)
{
    return frame->sender || frame->flags & EXO_F_LOCAL ? EXO_O_LIBOS : EXO_O_WIRE;
}

void exo_ledger_count(struct exo_ledger *ledger, int32_t origin, int32_t reason, uint64_t n)
{
    ledger->drop[reason] += n;
    ledger->of[origin].drop[reason] += n;
}

void exo_ledger_copies(struct exo_ledger *ledger, int32_t stage, const struct exo_frame *frame, uint32_t n)
{
    ledger->copies[stage] += n;
    ledger->of[exo_frame_origin(frame)].copies += n;
}

void exo_ledger_fate(struct exo_ledger *ledger, const struct exo_frame *frame, int32_t reason, uint32_t env, uint64_t now)
{
    exo_ledger_count(ledger, exo_frame_origin(frame), reason, 1);
    if (EXO_UNLIKELY(ledger->fates != NULL))
        append(ledger, frame, reason, env, now);
    if (EXO_UNLIKELY(ledger->observe != NULL))
        ledger->observe(ledger->observer, frame, reason, env);
}
