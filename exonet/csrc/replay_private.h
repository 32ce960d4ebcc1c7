/* SPDX-License-Identifier: MIT
 *
 * Inside the pcap wire: what is decided once (replay_open.c), receiving (replay.c), pacing (replay_pace.c), and which side of a
 * split trace a frame is of (replay_split.c).
 */
#ifndef EXO_REPLAY_PRIVATE_H
#define EXO_REPLAY_PRIVATE_H

#include "trace_private.h"

/* When frames are due. position is in the mode's unit: ns of capture time, frames, bits. */
struct pace {
    uint32_t mode;
    uint64_t multiply;
    uint64_t divide;
    uint64_t max_gap;                /* STAMPS: ns of capture time */
    uint64_t start;
    uint64_t position;               /* FRAMES, BITS: of the next frame. STAMPS: of the last one, the sum of the gaps before it */
    uint64_t last_due;
    bool anchored;                   /* STAMPS: there is a previous stamp in this loop */
    uint64_t previous;
    uint64_t loop_begin;             /* STAMPS: position of the loop's first frame */
    uint64_t stamps;                 /* frames with a stamp in this loop */
};

void pace_start(struct pace *pace, uint64_t now);
/* When the record would be due; backward: its stamp lies before the one before it, which costs no wait. */
uint64_t pace_due(const struct pace *pace, const struct exo_record *record, uint64_t now, bool *backward);
/* The record takes its place. */
void pace_commit(struct pace *pace, const struct exo_record *record, uint64_t due);
void pace_loop(struct pace *pace);

struct splitter {
    uint32_t rule;
    uint32_t prefixes;
    struct exo_prefix prefix[16];
    uint64_t *macs;                  /* open addressing: the address in the upper 48 bits, 2 + side below; 0: empty */
    uint32_t known;
};

int32_t split_open(struct splitter *s, const struct exo_replay_config *config);
void split_close(struct splitter *s);
void split_reset(struct splitter *s);
uint32_t split_side(struct splitter *s, const uint8_t *data, uint32_t len);

/* Ethernet type after any VLAN tags, and where its payload begins; 0 where the frame is too short. */
uint16_t ether_payload(const uint8_t *data, uint32_t len, uint32_t *at);

typedef uint32_t (*bpf_filter_fn)(const void *program, const uint8_t *packet, uint32_t wire_len, uint32_t len);

struct exo_replay {
    struct exo_wire wire;
    struct exo_replay_config config;
    struct exo_cursor *cursor;
    struct exo_replay *partner;      /* the other side of a split trace; NULL: none, or closed */
    struct pace pace;
    struct splitter splitter;
    bpf_filter_fn bpf_filter;
    uint8_t *verdicts;               /* of a loaded trace, one per record; NULL: all pass, or streamed */
    uint8_t *arena;                  /* rewritten frames of one burst */
    uint32_t arena_used;
    bool rewrites;
    bool started;
    bool ended;
    bool told;                       /* receive has said EXO_E_END */
    bool pending;                    /* a record was looked at and is not due yet */
    struct exo_record record;
    const uint8_t *data;
    uint64_t due;
    uint64_t end;                    /* when the duration is over */
    uint64_t loop;
    uint64_t loop_base;              /* id of the loop's first record */
    uint64_t accepted;               /* frames of all sides, for the limit */
    uint64_t given;                  /* frames of this side */
    uint64_t given_before;           /* when this loop began */
    struct exo_replay_counters counters;
    struct exo_delays delays;
};

enum { REPLAY_ARENA = 512 * 1024, REPLAY_OTHER_SIDE = 255 };

static inline struct exo_replay *replay_of(struct exo_wire *wire)
{
    return (struct exo_replay *)wire;
}

/* Bind time for a loaded trace, use time for a streamed one. 0, a source reason, or REPLAY_OTHER_SIDE. */
uint32_t replay_judge(struct exo_replay *r, const struct exo_record *record, const uint8_t *data);
/* A wire that is asked before it was started. */
void replay_start_unasked(struct exo_replay *r, uint64_t now);
int32_t replay_receive_general(struct exo_wire *wire, struct exo_frame *out, uint32_t max, uint64_t now);
int32_t replay_receive_plain(struct exo_wire *wire, struct exo_frame *out, uint32_t max, uint64_t now);

static inline bool is_vlan(uint16_t type)
{
    return type == 0x8100 || type == 0x88a8 || type == 0x9100;
}

#endif
