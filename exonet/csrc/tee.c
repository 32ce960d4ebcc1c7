/* SPDX-License-Identifier: MIT
 *
 * The tee wire: writes what passes to a pcapng file, each packet with a comment that names its fate, its direction and its number
 * (opt_comment, epb_flags, epb_packetid).
 * A received frame is written when its fate is known, so the file is in order of fates and its timestamps, which are those of
 * arrival, are not sorted (reordercap sorts them); a sent frame is written when it is sent. Until its fate is known a frame is
 * remembered, bytes and all, in order of arrival; it stays remembered afterwards, since a group frame has a fate in every environment,
 * until newer ones need the memory. One pushed out without a fate is written then, and says so.
 * tee_file.c writes the blocks. Reference: draft-ietf-opsawg-pcapng.
 */
#include <stdio.h>

#include "tee_private.h"

enum { MAX_ENV = EXO_MAX_ENVS, COMMENT = 160, INBOUND = 1, OUTBOUND = 2 };

struct entry {
    struct entry *younger;
    struct entry *chain;         /* of the same bucket */
    int fated;
    struct exo_frame frame;
    uint8_t bytes[];
};

struct tee {
    struct exo_wrap wrap;
    struct tee_file file;
    struct exo_tee_counters counters;
    uint64_t epoch;
    char *name[MAX_ENV];                    /* of environments: by number % MAX_ENV .. */
    uint32_t named[MAX_ENV];                /* .. and whose that is: a number is of one life only */
    struct entry *oldest;
    struct entry *youngest;
    struct entry **bucket;
    uint64_t buckets;            /* a power of two */
    uint64_t memory;
    uint64_t used;
};

static struct entry **bucket_of(struct tee *tee, uint64_t id)
{
    return &tee->bucket[(id ^ id / SEGMENT_ID) & (tee->buckets - 1)];
}

static struct entry *find(struct tee *tee, uint64_t id)
{
    struct entry *entry = *bucket_of(tee, id);
    while (entry && entry->frame.id != id)
        entry = entry->chain;
    return entry;
}

static void write_packet(struct tee *tee, const struct exo_frame *frame, uint64_t when, uint32_t direction, const char *comment)
{
    if (tee_file_packet(&tee->file, frame, when + tee->epoch, direction, comment))
        tee->counters.written++;
}

static void forget_oldest(struct tee *tee)
{
    struct entry *entry = tee->oldest, **link = bucket_of(tee, entry->frame.id);
    if (!entry->fated) {
        write_packet(tee, &entry->frame, entry->frame.ts, INBOUND, "fate unknown: the tee's memory was full");
        tee->counters.forgotten++;
    }
    while (*link != entry)
        link = &(*link)->chain;
    *link = entry->chain;
    tee->oldest = entry->younger;
    if (!tee->oldest)
        tee->youngest = NULL;
    tee->used -= sizeof *entry + entry->frame.len;
    free(entry);
}

static void remember(struct tee *tee, const struct exo_frame *frame)
{
    uint64_t size = sizeof(struct entry) + frame->len;
    while (tee->oldest && tee->used + size > tee->memory)
        forget_oldest(tee);
    struct entry *entry = malloc(size);
    if (!entry) {
        write_packet(tee, frame, frame->ts, INBOUND, "fate unknown: out of memory");
        tee->counters.forgotten++;
        return;
    }
    struct entry **bucket = bucket_of(tee, frame->id);
    *entry = (struct entry){.chain = *bucket, .frame = *frame};
    entry->frame.data = entry->bytes;
    if (frame->len)
        memcpy(entry->bytes, frame->data, frame->len);
    *bucket = entry;
    if (tee->youngest)
        tee->youngest->younger = entry;
    else
        tee->oldest = entry;
    tee->youngest = entry;
    tee->used += size;
}

static const char *env_name(const struct tee *tee, uint32_t env, char *number, size_t size)
{
    uint32_t slot = env % MAX_ENV;
    if (tee->name[slot] && tee->named[slot] == env)
        return tee->name[slot];
    snprintf(number, size, "environment %u", env);
    return number;
}

/* "delivered to web", "sent by echo", "ring.no_buffer (web)", "demux.no_match". */
static void describe(const struct tee *tee, int32_t reason, uint32_t env, char *comment)
{
    char number[32];
    const char *what = exo_reason_name(reason);
    if (!what)
        what = "unknown reason";
    const char *by = env == EXO_NO_ENV ? NULL : env == EXO_KERNEL_ENV ? "kernel" : env_name(tee, env, number, sizeof number);
    if (!by)
        snprintf(comment, COMMENT, "%s", what);
    else if (reason == EXO_R_DELIVERED || reason == EXO_R_SENT)
        snprintf(comment, COMMENT, "%s %s %s", what, reason == EXO_R_SENT ? "by" : "to", by);
    else
        snprintf(comment, COMMENT, "%s (%s)", what, by);
}

/* Frames that this tee never gave: lost in a wire inside it, or on their way out. Their bytes are still the teller's. */
static int is_teller_s(int32_t reason)
{
    return (reason >= EXO_R_SOURCE_FIRST && reason < EXO_R_TAP_FIRST) || reason >= EXO_R_TRANSMIT_FIRST;
}

static void tee_fate(struct exo_wire *wire, const struct exo_frame *frame, int32_t reason, uint32_t env)
{
    struct tee *tee = (struct tee *)wire;
    char comment[COMMENT];
    wrap_fate(wire, frame, reason, env);
    if (reason == EXO_R_SENT || frame->flags & EXO_F_LOCAL)
        return;                  /* written when it was sent; or it never was on this wire */
    describe(tee, reason, env, comment);
    int outbound = reason >= EXO_R_TRANSMIT_FIRST;
    struct entry *entry = outbound ? NULL : find(tee, frame->id);
    if (!entry && !outbound && frame->id >= COPY_ID)
        entry = find(tee, frame->id % COPY_ID);  /* a copy that a wire outside the tee made */
    if (entry) {
        entry->fated = 1;
        write_packet(tee, &entry->frame, entry->frame.ts, INBOUND, comment);
    } else if (is_teller_s(reason) && frame->data)
        write_packet(tee, frame, frame->ts, outbound ? OUTBOUND : INBOUND, comment);
    else
        tee->counters.unknown++;
}

static int32_t tee_receive(struct exo_wire *wire, struct exo_frame *out, uint32_t max, uint64_t now)
{
    struct exo_wire *inner = wrap_inner(wire);
    int32_t n = inner->receive(inner, out, max, now);
    wire->fd = inner->fd;
    for (int32_t i = 0; i < n; i++)
        remember((struct tee *)wire, &out[i]);
    if (n > 0)
        count_received(wire, out, (uint32_t)n);
    return n;
}

static int32_t tee_send(struct exo_wire *wire, const struct exo_frame *in, uint32_t n, uint64_t now)
{
    struct tee *tee = (struct tee *)wire;
    struct exo_wire *inner = wrap_inner(wire);
    char comment[COMMENT];
    int32_t taken = inner->send(inner, in, n, now);
    for (int32_t i = 0; i < taken; i++) {
        describe(tee, EXO_R_SENT, in[i].sender, comment);
        write_packet(tee, &in[i], now, OUTBOUND, comment);
    }
    if (taken > 0)
        count_sent(wire, in, (uint32_t)taken);
    return taken;
}

static uint64_t tee_next_due(struct exo_wire *wire, uint64_t now)
{
    struct exo_wire *inner = wrap_inner(wire);
    return inner->next_due(inner, now);
}

int32_t exo_tee_flush(struct exo_wire *wire)
{
    return tee_file_flush(&((struct tee *)wire)->file);
}

int32_t exo_tee_finish(struct exo_wire *wire)
{
    struct tee *tee = (struct tee *)wire;
    for (struct entry *entry = tee->oldest; entry; entry = entry->younger) {
        if (entry->fated)
            continue;
        entry->fated = 1;
        write_packet(tee, &entry->frame, entry->frame.ts, INBOUND, "in flight");
        tee->counters.in_flight++;
    }
    return exo_tee_flush(wire);
}

static void tee_close(struct exo_wire *wire)
{
    struct tee *tee = (struct tee *)wire;
    exo_tee_finish(wire);
    while (tee->oldest)
        forget_oldest(tee);
    for (int i = 0; i < MAX_ENV; i++)
        free(tee->name[i]);
    tee_file_close(&tee->file);
    free(tee->bucket);
    free(tee);
}

int32_t exo_tee_name(struct exo_wire *wire, uint32_t env, const char *name)
{
    struct tee *tee = (struct tee *)wire;
    uint32_t slot = env % MAX_ENV;
    if (!slot || env == EXO_KERNEL_ENV)
        return EXO_E_INVALID;
    char *copy = strdup(name);
    if (!copy)
        return EXO_E_MEMORY;
    free(tee->name[slot]);
    tee->name[slot] = copy;
    tee->named[slot] = env;
    return 0;
}

/* A remembered frame takes about 200 bytes or more: chains stay about one long. */
static uint64_t bucket_count(uint64_t memory)
{
    uint64_t buckets = 1024;
    while (buckets < memory / 256 && buckets < (UINT64_C(1) << 22))
        buckets *= 2;
    return buckets;
}

struct exo_wire *exo_tee_new(struct exo_wire *inner, int32_t fd, uint32_t classic, uint64_t memory, uint64_t epoch)
{
    struct tee *tee = calloc(1, sizeof *tee);
    if (!tee)
        return NULL;
    tee->buckets = bucket_count(memory);
    tee->bucket = calloc(tee->buckets, sizeof(struct entry *));
    if (!tee->bucket || tee_file_open(&tee->file, fd, classic != 0) < 0) {
        free(tee->bucket);
        free(tee);
        return NULL;
    }
    tee->memory = memory;
    tee->epoch = epoch;
    tee->wrap.inner = inner;
    tee->wrap.wire = (struct exo_wire){
        .receive = tee_receive, .send = tee_send, .next_due = tee_next_due, .held = wrap_held, .fate = tee_fate,
        .close = tee_close, .fd = inner->fd, .flags = inner->flags,
    };
    return &tee->wrap.wire;
}

const struct exo_tee_counters *exo_tee_counters(struct exo_wire *wire)
{
    struct tee *tee = (struct tee *)wire;
    tee->counters.bytes = tee->file.bytes;
    tee->counters.error = tee->file.error;
    return &tee->counters;
}
