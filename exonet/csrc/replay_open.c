/* SPDX-License-Identifier: MIT
 *
 * The pcap wire, made, started and closed: what is decided once. The verdict on every record of a loaded trace is taken here, so
 * that filters cost nothing while it is replayed.
 */
#include "replay_private.h"

static int32_t judge_all(struct exo_replay *r)
{
    const struct exo_trace *trace = r->cursor->trace;
    uint64_t passed = 0;
    r->verdicts = malloc(trace->info.count + 1);
    if (!r->verdicts)
        return EXO_E_MEMORY;
    for (uint64_t i = 0; i < trace->info.count; i++) {
        const struct exo_record *record = &trace->records[i];
        r->verdicts[i] = (uint8_t)replay_judge(r, record, trace->data + record->offset);
        passed += r->verdicts[i] == 0;
    }
    if (passed == trace->info.count) {
        free(r->verdicts);
        r->verdicts = NULL;
    }
    return 0;
}

/* A replay has nobody at its other end: what is sent is counted; a tee around it writes it down. */
static int32_t send_away(struct exo_wire *wire, const struct exo_frame *in, uint32_t n, uint64_t now)
{
    (void)now;
    wire->tx_frames += n;
    for (uint32_t i = 0; i < n; i++)
        wire->tx_bytes += in[i].len;
    return (int32_t)n;
}

/* Exact where a record was looked at and is waiting; else now: receive will tell. */
static uint64_t next_due(struct exo_wire *wire, uint64_t now)
{
    const struct exo_replay *r = replay_of(wire);
    if (r->told)
        return UINT64_MAX;
    return r->pending ? r->due : now;
}

static uint64_t held(struct exo_wire *wire)
{
    (void)wire;
    return 0;
}

static void close_replay(struct exo_wire *wire)
{
    struct exo_replay *r = replay_of(wire);
    if (r->partner)
        r->partner->partner = NULL;
    exo_cursor_free(r->cursor);
    split_close(&r->splitter);
    free(r->verdicts);
    free(r->arena);
    free(r);
}

static bool is_valid(const struct exo_replay_config *c)
{
    bool paced = c->mode != EXO_REPLAY_MAX;
    if (c->mode > EXO_REPLAY_MAX || (paced && (c->divide == 0 || c->multiply == 0 || c->multiply > 1000000000000000ull)))
        return false;
    if ((c->include || c->exclude) && !c->bpf_filter)
        return false;
    if (c->split > EXO_SPLIT_PREFIX || c->side > 1 || c->prefixes > 16)
        return false;
    for (uint32_t i = 0; i < c->prefixes; i++)
        if (c->prefix[i].bits > (c->prefix[i].family == 4 ? 32 : 128))
            return false;
    return exo_rewrite_check(&c->rewrite) == 0;
}

static int32_t prepare(struct exo_replay *r, struct exo_trace *trace)
{
    const struct exo_rewrite *rewrite = &r->config.rewrite;
    r->cursor = exo_cursor_new(trace);
    if (!r->cursor || split_open(&r->splitter, &r->config) < 0)
        return EXO_E_MEMORY;
    r->bpf_filter = (bpf_filter_fn)(uintptr_t)r->config.bpf_filter;
    r->rewrites = rewrite->flags || rewrite->prefix_maps || rewrite->port_maps || r->config.shift;
    if (r->rewrites && !(r->arena = malloc(REPLAY_ARENA)))
        return EXO_E_MEMORY;
    if (!r->cursor->streamed && judge_all(r) < 0)
        return EXO_E_MEMORY;
    bool plain = !r->cursor->streamed && !r->verdicts && !r->rewrites && r->config.mode == EXO_REPLAY_MAX;
    r->wire.receive = plain ? replay_receive_plain : replay_receive_general;
    return 0;
}

struct exo_wire *exo_replay_new(struct exo_trace *trace, const struct exo_replay_config *config, int32_t *error)
{
    *error = EXO_E_INVALID;
    if (!is_valid(config))
        return NULL;
    *error = EXO_E_MEMORY;
    struct exo_replay *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    r->config = *config;
    r->wire.fd = -1;
    r->wire.flags = config->mode == EXO_REPLAY_MAX ? EXO_WIRE_UNTIMED : 0;
    r->wire.send = send_away;
    r->wire.next_due = next_due;
    r->wire.held = held;
    r->wire.close = close_replay;
    r->pace.mode = config->mode;
    r->pace.multiply = config->multiply;
    r->pace.divide = config->divide;
    r->pace.max_gap = config->max_gap ? config->max_gap : UINT64_MAX;
    if (prepare(r, trace) < 0) {
        close_replay(&r->wire);
        return NULL;
    }
    *error = 0;
    return &r->wire;
}

int32_t exo_replay_start(struct exo_wire *wire, uint64_t now)
{
    struct exo_replay *r = replay_of(wire);
    int32_t code = exo_cursor_rewind(r->cursor);
    if (code < 0)
        return code;
    memset(&r->counters, 0, sizeof r->counters);
    memset(&r->delays, 0, sizeof r->delays);
    split_reset(&r->splitter);
    pace_start(&r->pace, now);
    r->end = now + r->config.duration < now ? UINT64_MAX : now + r->config.duration;
    r->started = true;
    r->ended = r->told = r->pending = false;
    r->loop = r->loop_base = r->accepted = r->given = r->given_before = 0;
    return 0;
}

void replay_start_unasked(struct exo_replay *r, uint64_t now)
{
    (void)exo_replay_start(&r->wire, r->partner && r->partner->started ? r->partner->pace.start : now);
}

void exo_replay_pair(struct exo_wire *wire, struct exo_wire *other)
{
    replay_of(wire)->partner = replay_of(other);
    replay_of(other)->partner = replay_of(wire);
}

const struct exo_replay_counters *exo_replay_counters(const struct exo_wire *wire)
{
    return &((const struct exo_replay *)wire)->counters;
}

const struct exo_delays *exo_replay_delays(const struct exo_wire *wire)
{
    return &((const struct exo_replay *)wire)->delays;
}
