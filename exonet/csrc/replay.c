/* SPDX-License-Identifier: MIT
 *
 * The pcap wire. Two receive functions: replay_receive_plain (a loaded trace at top speed, nothing left out or changed) and
 * replay_receive_general (everything else). Every record is looked at once per loop, in order: is it due, is it cut (limit, duration:
 * never offered), is it dropped at the source (a fate), is it the other side's, and only then is it a frame.
 * A call does a bounded amount of work: when a million records in a row are left out it returns 0, due at once, to be asked again.
 */
#include "replay_private.h"

enum {
    AHEAD = 16,                      /* frames prefetched before they are handed out */
    PATIENCE = 1048576               /* records looked at in one call: milliseconds */
};

uint32_t replay_judge(struct exo_replay *r, const struct exo_record *record, const uint8_t *data)
{
    int32_t reason = record_reason(record);
    if (EXO_UNLIKELY(reason))
        return (uint32_t)reason;
    const void *include = (const void *)(uintptr_t)r->config.include, *exclude = (const void *)(uintptr_t)r->config.exclude;
    if (include && !r->bpf_filter(include, data, record->wire_len, record->len))
        return EXO_R_SOURCE_EXCLUDED;
    if (exclude && r->bpf_filter(exclude, data, record->wire_len, record->len))
        return EXO_R_SOURCE_EXCLUDED;
    if ((r->config.rewrite.flags & EXO_REWRITE_VLAN_SET) && record->wire_len > EXO_MAX_FRAME - 4)
        return EXO_R_SOURCE_OVERSIZE;
    if (r->config.split != EXO_SPLIT_NONE && split_side(&r->splitter, data, record->len) != r->config.side)
        return REPLAY_OTHER_SIDE;
    return 0;
}

static uint32_t verdict_of(struct exo_replay *r)
{
    if (r->cursor->streamed)
        return replay_judge(r, &r->record, r->data);
    return r->verdicts ? r->verdicts[r->cursor->next - 1] : 0;
}

static uint64_t current_id(const struct exo_replay *r)
{
    return r->loop_base + r->cursor->next - 1;
}

static void count_drop(struct exo_replay *r, uint32_t reason)
{
    r->counters.excluded += reason == EXO_R_SOURCE_EXCLUDED;
    r->counters.link_type += reason == EXO_R_SOURCE_LINK_TYPE;
    r->counters.oversize += reason == EXO_R_SOURCE_OVERSIZE;
}

/* The record ends here: counted on side 0 only, so that two wires over one trace count it once. */
static void source_drop(struct exo_replay *r, uint32_t reason, uint64_t now)
{
    if (r->config.split != EXO_SPLIT_NONE && r->config.side != 0)
        return;
    count_drop(r, reason);
    struct exo_ledger *ledger = r->wire.ledger;
    if (!ledger)
        return;
    struct exo_frame frame;
    record_frame(&r->record, r->data, current_id(r), &frame);
    frame.ts = now;
    frame.port = r->wire.port;
    ledger->in[EXO_S_SOURCE]++;
    exo_ledger_fate(ledger, &frame, (int32_t)reason, EXO_NO_ENV, now);
}

/* The trace has come to its end. false: there is no further loop. */
static bool next_loop(struct exo_replay *r)
{
    uint64_t records = r->cursor->next;
    r->counters.loops++;
    r->loop++;
    bool barren = records == 0 || (r->config.loops == 0 && r->given == r->given_before);
    if (barren || r->loop == r->config.loops || exo_cursor_rewind(r->cursor) < 0)
        return false;
    r->loop_base += records;
    r->given_before = r->given;
    pace_loop(&r->pace);
    split_reset(&r->splitter);
    return true;
}

enum step { STEP_FRAME, STEP_AGAIN, STEP_WAIT, STEP_REFILL, STEP_END, STEP_MEMORY };

/* Looks at one record: the pending one or the next. STEP_FRAME: it is ours and due, and stands in record, data and due. */
static enum step look(struct exo_replay *r, bool fresh, uint64_t now)
{
    if (!r->pending) {
        int32_t result = cursor_next(r->cursor, fresh, &r->record, &r->data);
        if (result == 0)
            return STEP_REFILL;
        if (result == EXO_E_MEMORY)
            return STEP_MEMORY;
        if (result < 0)
            return next_loop(r) ? STEP_AGAIN : STEP_END;
    }
    bool backward;
    r->due = pace_due(&r->pace, &r->record, now, &backward);
    if (r->accepted >= r->config.limit || r->due >= r->end)
        return STEP_END;
    uint32_t verdict = r->pending ? 0 : verdict_of(r);
    if (verdict == 0 && r->due > now) {
        r->pending = true;
        return STEP_WAIT;
    }
    r->counters.records++;
    if (verdict && verdict != REPLAY_OTHER_SIDE) {
        source_drop(r, verdict, now);
        return STEP_AGAIN;
    }
    r->pending = false;
    r->accepted++;
    pace_commit(&r->pace, &r->record, r->due);
    if (verdict == REPLAY_OTHER_SIDE) {
        r->counters.other_side++;
        return STEP_AGAIN;
    }
    r->counters.backward += backward;
    r->given++;
    return STEP_FRAME;
}

static void count_converted(struct exo_replay *r, uint64_t n)
{
    r->counters.converted += n;
    if (r->wire.ledger)
        r->wire.ledger->converted += n;
}

/* The record at hand becomes a frame. */
static void hand_over(struct exo_replay *r, struct exo_frame *out, uint64_t now)
{
    record_frame(&r->record, r->data, current_id(r), out);
    out->ts = r->due;
    out->port = r->wire.port;
    if (r->record.flags & EXO_RECORD_SNAPPED)
        r->counters.snapped++;
    count_converted(r, out->flags & EXO_F_CONVERTED ? 1 : 0);
    if (r->rewrites) {
        exo_rewrite_frame(&r->config.rewrite, r->config.shift ? r->loop : 0, out, r->arena + r->arena_used);
        r->arena_used += (out->len + 63) & ~63u;
        r->counters.rewritten++;
    }
    if (r->config.mode != EXO_REPLAY_MAX)
        exo_delays_record(&r->delays, now - r->due, 1);
}

static void count_burst(struct exo_replay *r, uint32_t n, uint64_t bytes)
{
    r->wire.rx_frames += n;
    r->wire.rx_bytes += bytes;
    if (r->wire.ledger)
        r->wire.ledger->in[EXO_S_SOURCE] += n;   /* out is counted by the port that takes them */
}

static int32_t finish(struct exo_replay *r, enum step step, uint32_t n)
{
    r->ended |= step == STEP_END;
    if (n)
        return (int32_t)n;
    if (step == STEP_MEMORY)
        return EXO_E_MEMORY;
    if (!r->ended)
        return 0;
    r->told = true;
    return EXO_E_END;
}

int32_t replay_receive_general(struct exo_wire *wire, struct exo_frame *out, uint32_t max, uint64_t now)
{
    struct exo_replay *r = replay_of(wire);
    if (EXO_UNLIKELY(!r->started))
        replay_start_unasked(r, now);
    uint32_t n = 0, patience = max > PATIENCE ? max : PATIENCE;
    uint64_t bytes = 0;
    enum step step = r->ended ? STEP_END : STEP_AGAIN;
    r->arena_used = 0;
    if (r->pending && r->cursor->streamed)
        stream_release(&r->cursor->stream, true);
    while (step != STEP_END && n < max && patience-- > 0) {
        if (r->rewrites && REPLAY_ARENA - r->arena_used < EXO_MAX_FRAME + 64)
            break;
        step = look(r, n == 0, now);
        if (step == STEP_FRAME) {
            hand_over(r, &out[n], now);
            bytes += out[n++].len;
        } else if (step != STEP_AGAIN) {
            break;
        }
    }
    count_burst(r, n, bytes);
    return finish(r, step, n);
}

/* Frames i..i+n of the index; the trace is far larger than a cache, so their bytes are fetched some frames ahead. */
static uint64_t give_run(struct exo_replay *r, struct exo_frame *out, uint32_t n, uint64_t now)
{
    const struct exo_trace *trace = r->cursor->trace;
    uint64_t i = r->cursor->next, id = r->loop_base + i, bytes = 0, snapped = 0, converted = 0, last = trace->info.count - i - 1;
    const struct exo_record *records = trace->records + i;
    uint16_t port = r->wire.port;
    for (uint32_t k = 0; k < n; k++) {
        uint64_t ahead = k + AHEAD < last ? k + AHEAD : last;
        __builtin_prefetch(trace->data + records[ahead].offset);
        const struct exo_record *record = &records[k];
        struct exo_frame *frame = &out[k];
        frame->data = trace->data + record->offset;
        frame->len = record->len;
        frame->wire_len = record->wire_len;
        frame->ts = now;
        frame->stamp = record->stamp;
        frame->id = id + k;
        frame->flags = record_flags(record);
        frame->port = port;
        frame->queue = 0;
        frame->rss_hash = 0;
        frame->sender = 0;
        frame->link_type = record->link_type;
        bytes += record->len;
        snapped += record->flags & EXO_RECORD_SNAPPED;
        converted += record->flags / EXO_RECORD_CONVERTED & 1;
    }
    count_converted(r, converted);
    r->counters.snapped += snapped;
    return bytes;
}

int32_t replay_receive_plain(struct exo_wire *wire, struct exo_frame *out, uint32_t max, uint64_t now)
{
    struct exo_replay *r = replay_of(wire);
    if (EXO_UNLIKELY(!r->started))
        replay_start_unasked(r, now);
    struct exo_cursor *cursor = r->cursor;
    const struct exo_trace *trace = cursor->trace;
    uint32_t n = 0;
    uint64_t bytes = 0;
    r->ended |= now >= r->end;
    while (n < max && !r->ended) {
        uint64_t left = trace->info.count - cursor->next, allowed = r->config.limit - r->accepted;
        uint64_t run = max - n;
        run = left < run ? left : run;
        run = allowed < run ? allowed : run;
        bytes += run ? give_run(r, out + n, (uint32_t)run, now) : 0;
        n += (uint32_t)run;
        cursor->next += run;
        r->accepted += run;
        r->given += run;
        if (r->accepted >= r->config.limit || (cursor->next == trace->info.count && !next_loop(r)))
            r->ended = true;
    }
    r->counters.records += n;
    count_burst(r, n, bytes);
    return finish(r, STEP_AGAIN, n);
}
