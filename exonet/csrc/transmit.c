/* SPDX-License-Identifier: MIT
 *
 * The transmit path of the kernel: a LibOS's descriptors are taken one by one, their frames are gathered into the NIC's own buffers, and
 * a run of such copies is checked in one go; each leaves, or is switched to another environment of the port (R8, R10, R11).
 * Use time only: whatever the LibOS wrote ends in a frame sent or in a counter.
 */
#include <sys/socket.h>

#include "machine_private.h"

static const struct exo_transmit *transmit_ring(const struct exo_env *env)
{
    return (const struct exo_transmit *)((const uint8_t *)env->libos + env->layout.transmit_offset);
}

static uint32_t posted(struct exo_env *env)
{
    uint32_t put = __atomic_load_n(&env->libos->transmit_put.value, __ATOMIC_ACQUIRE);
    if (EXO_LIKELY(put - env->transmit_taken <= env->layout.transmit_entries))
        return put - env->transmit_taken;
    env->lies++;
    env->state = EXO_ENV_SHUT;
    return 0;
}

static uint32_t word(const struct exo_index *index) { return __atomic_load_n(&index->value, __ATOMIC_RELAXED); }

/* Has it posted what may leave now? Not where the last look found a frame without its end, or no room for completions, and the
 * LibOS has written neither index since: it would keep the kernel from sleeping. */
int32_t exo_transmit_waiting(struct exo_env *env)
{
    if (!exo_transmit_posted(env))
        return 0;
    return !env->stuck || word(&env->libos->transmit_put) != env->stuck_put || word(&env->libos->completion_taken) != env->stuck_taken;
}

int32_t exo_transmit_posted(struct exo_env *env)
{
    return env->state == EXO_ENV_LIVE && word(&env->libos->transmit_put) != env->transmit_taken;
}

/* The next frame's descriptors, each read once into a local; 0: the chain is not complete yet. */
static uint32_t read_chain(struct exo_env *env, struct exo_transmit *chain)
{
    uint32_t have = posted(env);
    for (uint32_t i = 0; i < have && i < EXO_MOST_PIECES; i++) {
        uint32_t slot = (env->transmit_taken + i) & (env->layout.transmit_entries - 1);
        const volatile struct exo_transmit *entry = &transmit_ring(env)[slot];
        chain[i] = *entry;
        if (!(chain[i].flags & EXO_F_MORE))
            return i + 1;
    }
    /* No end within the most pieces, or in a full ring: it has none, and is refused whole. */
    if (have >= EXO_MOST_PIECES)
        return EXO_MOST_PIECES;
    return have == env->layout.transmit_entries ? have : 0;
}

/* What the next frame will cost to copy; the LibOS's word, so at most a page of it. */
uint32_t exo_transmit_next_bytes(struct exo_env *env)
{
    uint32_t length = transmit_ring(env)[env->transmit_taken & (env->layout.transmit_entries - 1)].length;
    return length < EXO_PAGE_SIZE ? length : (uint32_t)EXO_PAGE_SIZE;
}

static int completion_room(struct exo_env *env, uint32_t wanted)
{
    if (env->layout.completion_entries - (env->completion_put - env->completion_seen) >= wanted)
        return 1;
    uint32_t seen = __atomic_load_n(&env->libos->completion_taken.value, __ATOMIC_ACQUIRE);
    if (seen - env->completion_seen > env->completion_put - env->completion_seen) {
        env->lies++;
        env->state = EXO_ENV_SHUT;
        return 0;
    }
    env->completion_seen = seen;
    return env->layout.completion_entries - (env->completion_put - env->completion_seen) >= wanted;
}

static struct exo_completion *completion_at(const struct exo_env *env, uint32_t place)
{
    struct exo_completion *ring = (struct exo_completion *)((uint8_t *)env->kernel + env->layout.completion_offset);
    return &ring[place & (env->layout.completion_entries - 1)];
}

/* Not seen by the LibOS before transmit_some is through, so that refuse() can still change them. */
static void complete(struct exo_env *env, const struct exo_transmit *chain, uint32_t pieces)
{
    for (uint32_t i = 0; i < pieces; i++)
        *completion_at(env, env->completion_put++) = (struct exo_completion){.cookie = chain[i].cookie};
    env->transmit_taken += pieces;
}

/* The frame does not leave; its completions, from `place` on, say why. */
static void refuse(struct exo_machine *m, struct exo_env *env, const struct exo_frame *frame, uint32_t place, uint32_t pieces, int32_t reason)
{
    for (uint32_t i = 0; i < pieces; i++)
        completion_at(env, place + i)->status = -reason;
    exo_machine_fate(m, frame, reason, env);
}

/* The total length where every piece lies in a pinned page of the sender's own and the port is one, else 0. */
static uint32_t chain_length(const struct exo_machine *m, const struct exo_env *env, const struct exo_transmit *chain, uint32_t pieces)
{
    uint32_t total = 0;
    if (chain[pieces - 1].flags & EXO_F_MORE || chain[0].port >= m->ports)
        return 0;
    for (uint32_t i = 0; i < pieces; i++) {
        const struct exo_transmit *t = &chain[i];
        if (t->page >= m->pages->count || (uint32_t)t->offset + t->length > EXO_PAGE_SIZE || !t->length || (i && t->gso_size))
            return 0;
        const struct exo_page *page = &m->pages->page[t->page];
        if (page->env != env->number || !page->pins)
            return 0;
        total += t->length;
    }
    return total >= 14 ? total : 0;
}

/* virtio-net's partial checksum: the field at start + offset becomes the complement of the sum from start on. */
static int finish_checksum(uint8_t *frame, uint32_t length, const struct exo_transmit *t)
{
    uint32_t at = (uint32_t)t->csum_start + t->csum_offset;
    if (t->csum_start >= length || at + 2 > length)
        return 0;
    uint16_t sum = (uint16_t)~exo_checksum(frame + t->csum_start, length - t->csum_start, 0);
    if (!sum)
        sum = 0xffff;
    memcpy(frame + at, &sum, 2);
    return 1;
}

/* To the port's own environments, as if it came from the wire. The NIC takes it in any mode: nothing can hold it back. */
static void switch_locally(struct port *p, const struct exo_frame *frame, uint64_t now)
{
    struct exo_frame turned = *frame;
    turned.flags |= EXO_F_LOCAL;
    turned.ts = now;
    exo_nic_receive(p->nic, &turned, 1, now);
}

/* Sends the checked copy: to the wire, to the port's own environments, or both for a group. 0, or the reason. */
static void forward(struct exo_machine *m, struct exo_env *env, struct exo_frame *frame, uint64_t now)
{
    struct port *p = &m->port[frame->port];
    int group = frame->data[0] & 1;
    int local = group ? m->envs > 1 : exo_nic_is_local(p->nic, frame->data);
    env->sent++;
    if (group || !local)
        exo_nic_tx_commit(p->nic, frame);
    if (!local)
        return;
    if (group)
        exo_ledger_copies(&m->ledger, EXO_S_TRANSMIT, frame, 1);
    m->ledger.out[EXO_S_TRANSMIT]++;
    exo_machine_chatter(m, now);
    switch_locally(p, frame, now);
}

/* Copies of one port that lie in its NIC's buffers and are not checked yet. */
struct run {
    uint32_t n;
    struct exo_frame frame[EXO_BURST];
    uint32_t place[EXO_BURST];   /* of its first completion */
    uint32_t pieces[EXO_BURST];
};

/* The run is checked (R11) and leaves, in its order; it is empty then. */
static void send_run(struct exo_machine *m, struct exo_env *env, struct run *run, uint64_t now)
{
    int32_t reason[EXO_BURST];
    exo_transmit_check(env, run->frame, run->n, reason);
    for (uint32_t i = 0; i < run->n; i++) {
        if (reason[i])
            refuse(m, env, &run->frame[i], run->place[i], run->pieces[i], reason[i]);
        else
            forward(m, env, &run->frame[i], now);
    }
    run->n = 0;
}

/* A buffer of the port's NIC, which is emptied for it where it has to be: of the run first, for that lies there too. */
static uint8_t *buffer_for(struct exo_machine *m, struct exo_env *env, struct run *run, struct port *p, uint32_t length, uint64_t now)
{
    uint8_t *to = exo_nic_tx_buffer(p->nic, length);
    if (to)
        return to;
    send_run(m, env, run, now);
    exo_nic_flush(p->nic, p->wire, now);
    return exo_nic_tx_buffer(p->nic, length);
}

static void copy_pieces(const struct exo_machine *m, uint8_t *to, const struct exo_transmit *chain, uint32_t pieces)
{
    for (uint32_t i = 0; i < pieces; to += chain[i++].length)
        memcpy(to, m->pages->page[chain[i].page].address + chain[i].offset, chain[i].length);
}

/* Copies the chain's frame to where nobody else can write. 0, or why that cannot be. */
static int32_t gather(struct exo_machine *m, struct exo_env *env, struct run *run, struct exo_frame *frame,
                      const struct exo_transmit *chain, uint32_t pieces)
{
    uint32_t length = chain_length(m, env, chain, pieces);
    struct port *p = &m->port[frame->port];
    if (!length)
        return EXO_R_TRANSMIT_BAD_DESCRIPTOR;
    if (length > p->config.max_frame)
        return EXO_R_TRANSMIT_TOO_LONG;
    uint8_t *to = buffer_for(m, env, run, p, length, frame->ts);
    if (!to)
        return EXO_R_TRANSMIT_WIRE_FULL;
    copy_pieces(m, to, chain, pieces);
    frame->data = to;
    frame->len = frame->wire_len = length;
    /* The checksum may be put anywhere in the frame, so the frame is checked with it in (R10). */
    if (chain[0].flags & EXO_F_NEEDS_CSUM && !finish_checksum(to, length, &chain[0]))
        return EXO_R_TRANSMIT_BAD_DESCRIPTOR;
    return 0;
}

/* Copies a super-frame to where nobody else can write, checks it, and says how it is cut. 0, or why it does not leave. */
static int32_t gather_super(struct exo_machine *m, struct exo_env *env, struct exo_segments *cut, struct exo_frame *frame,
                            const struct exo_transmit *chain, uint32_t pieces)
{
    int32_t reason = 0;
    uint32_t length = chain_length(m, env, chain, pieces);
    if (!length)
        return EXO_R_TRANSMIT_BAD_DESCRIPTOR;
    copy_pieces(m, m->super, chain, pieces);
    frame->data = m->super;
    frame->len = frame->wire_len = length;
    if (!exo_segments_find(cut, frame, &chain[0]))
        return EXO_R_TRANSMIT_BAD_DESCRIPTOR;
    if (exo_segments_length(cut, 0) > m->port[frame->port].config.max_frame)
        return EXO_R_TRANSMIT_TOO_LONG;
    exo_transmit_check(env, frame, 1, &reason);
    return reason;
}

/* A super-frame is checked once, and its segments leave or stay as it does (R12). How many it is. */
static uint32_t transmit_super(struct exo_machine *m, struct exo_env *env, struct run *run, struct exo_frame *frame,
                           const struct exo_transmit *chain, uint32_t pieces, uint64_t now)
{
    struct exo_segments cut;
    uint32_t place = env->completion_put;
    send_run(m, env, run, now);
    int32_t reason = gather_super(m, env, &cut, frame, chain, pieces);
    complete(env, chain, pieces);
    if (reason) {
        refuse(m, env, frame, place, pieces, reason);
        return 1;
    }
    exo_ledger_copies(&m->ledger, EXO_S_TRANSMIT, frame, cut.count - 1);
    for (uint32_t i = 0; i < cut.count; i++) {
        struct exo_frame segment = *frame;
        segment.len = segment.wire_len = exo_segments_length(&cut, i);
        uint8_t *to = buffer_for(m, env, run, &m->port[frame->port], segment.len, now);
        if (!to) {
            refuse(m, env, &segment, place, pieces, EXO_R_TRANSMIT_WIRE_FULL);
            continue;
        }
        exo_segments_cut(&cut, i, to);
        segment.data = to;
        forward(m, env, &segment, now);
    }
    return cut.count;
}

/* Takes the next frame into the run; a run ends before a frame of another port, and before one that is refused at once. How many
 * frames it becomes. */
static uint32_t transmit_one(struct exo_machine *m, struct exo_env *env, struct run *run, const struct exo_transmit *chain,
                             uint32_t pieces, uint64_t now)
{
    struct exo_frame frame = {.ts = now, .id = env->submitted++, .sender = env->number};
    frame.port = chain[0].port < m->ports ? chain[0].port : 0;
    if (run->n && run->frame->port != frame.port)
        send_run(m, env, run, now);
    m->ledger.in[EXO_S_TRANSMIT]++;
    if (EXO_UNLIKELY(chain[0].gso_size))
        return transmit_super(m, env, run, &frame, chain, pieces, now);
    int32_t reason = gather(m, env, run, &frame, chain, pieces);
    uint32_t place = env->completion_put;
    complete(env, chain, pieces);
    if (reason) {
        send_run(m, env, run, now);
        refuse(m, env, &frame, place, pieces, reason);
        return 1;
    }
    run->frame[run->n] = frame;
    run->place[run->n] = place;
    run->pieces[run->n++] = pieces;
    if (run->n == EXO_BURST)
        send_run(m, env, run, now);
    return 1;
}

uint32_t exo_transmit_some(struct exo_machine *m, struct exo_env *env, uint32_t max)
{
    if (!exo_transmit_waiting(env))
        return 0;
    struct exo_transmit chain[EXO_MOST_PIECES];
    struct run run;
    run.n = 0;
    uint32_t n = 0, frames = 0, pieces;
    uint64_t now = exo_now(m);
    env->stuck_put = word(&env->libos->transmit_put);
    env->stuck_taken = word(&env->libos->completion_taken);
    for (; frames < max && (pieces = read_chain(env, chain)) && completion_room(env, pieces); n++)
        frames += transmit_one(m, env, &run, chain, pieces, now);
    send_run(m, env, &run, now);
    env->stuck = !n;
    if (!n)
        return 0;
    for (uint32_t i = 0; i < m->ports; i++)
        exo_nic_flush(m->port[i].nic, m->port[i].wire, now);
    struct exo_kernel_area *k = env->kernel;
    __atomic_store_n(&k->transmit_taken.value, env->transmit_taken, __ATOMIC_RELEASE);
    __atomic_store_n(&k->completion_put.value, env->completion_put, __ATOMIC_RELEASE);
    return n;
}

/* Entries posted up to the last that names one of the pages; the LibOS's words, so it only ever costs its own frames. */
static uint32_t entries_naming(struct exo_env *env, uint32_t first, uint32_t count)
{
    uint32_t last = 0;
    for (uint32_t i = 0, have = posted(env); i < have; i++) {
        uint32_t slot = (env->transmit_taken + i) & (env->layout.transmit_entries - 1);
        uint32_t page = __atomic_load_n(&transmit_ring(env)[slot].page, __ATOMIC_RELAXED);
        if (page >= first && page - first < count)
            last = i + 1;
    }
    return last;
}

uint32_t exo_transmit_drain(struct exo_machine *m, struct exo_env *env, uint32_t first, uint32_t count)
{
    if (env->state != EXO_ENV_LIVE)
        return 0;
    uint32_t start = env->transmit_taken, due = entries_naming(env, first, count), n = 0, taken;
    while (env->transmit_taken - start < due && (taken = exo_transmit_some(m, env, 1)) != 0)
        n += taken;
    return n;
}

uint32_t exo_transmit_burst(struct exo_machine *m, struct exo_env *env)
{
    return exo_transmit_some(m, env, EXO_BURST);
}
