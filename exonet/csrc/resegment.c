/* SPDX-License-Identifier: MIT
 *
 * The resegment wire: what the wire inside gives and is longer than the MTU is cut as the NIC of its sender would have cut it (segment.c). TCP
 * at the connection's maximum segment size (mss.c), less options, and never beyond the MTU; UDP into IP fragments. A packet whose IP header
 * says no length, as offload leaves it, gets its own even where it is short. All else passes, also what the snaplen cut.
 * Every segment is a frame that was offered: counted as one, due when its packet was, with the packet's number in the low bits of its own.
 * It keeps one burst of the inner wire's frames, as pace does, and cuts as many as there is room for.
 */
#include "wrap.h"

#include "mss.h"

enum { ARENA = 512 * 1024, LEAST_PAYLOAD = 8, TCP = 6, SYN_RST = 6 };

_Static_assert(EXO_MAX_FRAME / LEAST_PAYLOAD < COPY_ID / SEGMENT_ID, "a segment's place fits beside its packet's number");

struct resegment {
    struct exo_wrap wrap;
    struct mss_table *table;
    uint32_t mtu;
    struct exo_frame burst[EXO_BURST];
    uint32_t at;
    uint32_t n;
    struct exo_segments cut;         /* of the frame at hand */
    uint32_t next;                   /* its segment that is next; 0: it has not been looked at */
    uint8_t *arena;
    struct exo_resegment_counters counters;
};

/* What the packet's IP header, without options, leaves of the MTU and of the segment size. 0: too little. */
static uint32_t tcp_size(struct resegment *r, const struct exo_segments *s, uint32_t room)
{
    uint32_t header = exo_segments_tcp_header(s), before = s->l4 - s->l3 + header, mss = mss_of(r->table, s);
    uint32_t size = room < before + LEAST_PAYLOAD ? 0 : room - before;
    if (!mss)
        return size;
    uint32_t options = before - 20 - (s->ip4 ? 20 : 40);
    mss = mss < options + LEAST_PAYLOAD ? LEAST_PAYLOAD : mss - options;
    return mss < size ? mss : size;
}

/* Says how the frame is cut. 0: it passes as it is. */
static int plan(struct resegment *r, const struct exo_frame *frame)
{
    struct exo_segments *s = &r->cut;
    int32_t found = exo_segments_packet(s, frame);
    if (found == EXO_PACKET_NONE)
        return 0;
    if (s->protocol == TCP)
        mss_learn(r->table, s);
    uint32_t room = r->mtu - (s->pppoe ? 8 : 0), packet = s->declared ? s->declared : frame->wire_len - s->l3;
    if (s->declared && packet <= room)
        return 0;
    if (found == EXO_PACKET_SNAPPED) {
        r->counters.snapped++;
        return 0;
    }
    if (s->protocol != TCP)
        return exo_segments_plan_fragments(s, room, (uint32_t)frame->id + 1);
    uint32_t size = tcp_size(r, s, room);
    return size && !(s->frame[s->l4 + 13] & SYN_RST) && exo_segments_plan_tcp(s, size);
}

static void begin(struct resegment *r, const struct exo_frame *frame)
{
    r->cut.count = plan(r, frame) ? r->cut.count : 0;
    if (!r->cut.count)
        return;
    r->counters.packets++;
    r->counters.segments += r->cut.count;
    struct exo_ledger *ledger = r->wrap.wire.ledger;
    if (!ledger)
        return;
    ledger->in[EXO_S_SOURCE] += r->cut.count - 1;
    ledger->converted += frame->flags & EXO_F_CONVERTED ? r->cut.count - 1 : 0;
}

/* The next frame: one that passes, or a segment, made in the arena from used on. */
static uint32_t give(struct resegment *r, struct exo_frame *out, uint32_t used)
{
    const struct exo_frame *frame = &r->burst[r->at];
    *out = *frame;
    if (!r->next)
        begin(r, frame);
    if (!r->cut.count) {
        r->at++;
        return used;
    }
    out->data = r->arena + used;
    out->len = out->wire_len = exo_segments_length(&r->cut, r->next);
    out->id += r->next * SEGMENT_ID;
    out->flags &= ~(uint32_t)EXO_F_SNAPPED;
    exo_segments_cut(&r->cut, r->next, r->arena + used);
    if (++r->next == r->cut.count) {
        r->next = 0;
        r->at++;
    }
    return used + ((out->len + 63) & ~63u);
}

static int32_t resegment_receive(struct exo_wire *wire, struct exo_frame *out, uint32_t max, uint64_t now)
{
    struct resegment *r = (struct resegment *)wire;
    struct exo_wire *inner = wrap_inner(wire);
    if (r->at == r->n) {
        r->at = r->n = 0;
        int32_t got = inner->receive(inner, r->burst, EXO_BURST, now);
        wire->fd = inner->fd;
        if (got <= 0)
            return got;
        r->n = (uint32_t)got;
    }
    uint32_t n = 0, used = 0;
    while (n < max && r->at < r->n && ARENA - used >= EXO_MAX_FRAME + 64)
        used = give(r, &out[n++], used);
    wire->fd = r->at < r->n ? -1 : inner->fd;
    count_received(wire, out, n);
    return (int32_t)n;
}

static uint64_t resegment_next_due(struct exo_wire *wire, uint64_t now)
{
    const struct resegment *r = (const struct resegment *)wire;
    struct exo_wire *inner = wrap_inner(wire);
    return r->at < r->n ? now : inner->next_due(inner, now);
}

/* Of a frame that is being cut, the segments that are left. */
static uint64_t resegment_held(struct exo_wire *wire)
{
    const struct resegment *r = (const struct resegment *)wire;
    return wrap_held(wire) + (r->n - r->at) + (r->next ? r->cut.count - r->next - 1 : 0);
}

static void resegment_close(struct exo_wire *wire)
{
    struct resegment *r = (struct resegment *)wire;
    mss_release(r->table);
    free(r->arena);
    free(r);
}

struct exo_wire *exo_resegment_new(struct exo_wire *inner, uint32_t mtu, uint64_t seed, struct exo_wire *beside)
{
    struct resegment *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    r->table = beside ? mss_share(((struct resegment *)beside)->table) : mss_new(seed);
    r->arena = malloc(ARENA);
    if (!r->table || !r->arena) {
        resegment_close(&r->wrap.wire);
        return NULL;
    }
    r->mtu = mtu;
    r->wrap.inner = inner;
    r->wrap.wire = (struct exo_wire){
        .receive = resegment_receive, .send = wrap_send, .next_due = resegment_next_due, .held = resegment_held,
        .fate = inner->fate ? wrap_fate : NULL, .close = resegment_close, .fd = inner->fd, .flags = inner->flags,
    };
    return &r->wrap.wire;
}

const struct exo_resegment_counters *exo_resegment_counters(const struct exo_wire *wire)
{
    return &((const struct resegment *)wire)->counters;
}
