/* SPDX-License-Identifier: MIT
 *
 * The receive path of the kernel: done descriptors of the NIC in a burst, classified, copied into the buffers that the owners
 * posted, published once per burst and environment. Settling reads back what the LibOS consumed. Use time only: nothing here raises.
 * Every LibOS-written word is read once into a local and bounded before it is used (invariants 3 and 5).
 */
#include <errno.h>
#include <sys/socket.h>

#include "machine_private.h"

enum { MOST_PIECES = 48 };      /* buffers of 2,048 bytes that begin at staggered places hold the longest frame */

/* The ring index a LibOS wrote, or the old one and a lie counted where it is further than `most` ahead. */
static uint32_t read_index(struct exo_env *env, const struct exo_index *index, uint32_t old, uint32_t most)
{
    uint32_t value = __atomic_load_n(&index->value, __ATOMIC_ACQUIRE);
    if (EXO_LIKELY(value - old <= most))
        return value;
    env->lies++;
    env->state = EXO_ENV_SHUT;
    return old;
}

static const struct exo_fill *fill_ring(const struct exo_env *env)
{
    return (const struct exo_fill *)((const uint8_t *)env->libos + env->layout.fill_offset);
}

static struct exo_receive *receive_ring(const struct exo_env *env)
{
    return (struct exo_receive *)((uint8_t *)env->kernel + env->layout.receive_offset);
}

/* The posted buffer `ahead` places after the next, validated: its address, or NULL where the LibOS posted what it may not. */
static uint8_t *posted_buffer(struct exo_machine *m, struct exo_env *env, uint32_t ahead, struct exo_fill *out)
{
    uint32_t slot = (env->fill_taken + ahead) & (env->layout.fill_entries - 1);
    uint64_t word = __atomic_load_n((const uint64_t *)&fill_ring(env)[slot], __ATOMIC_RELAXED);
    memcpy(out, &word, sizeof *out);
    if (EXO_UNLIKELY(out->page >= m->pages->count || (uint32_t)out->offset + out->length > EXO_PAGE_SIZE || !out->length))
        return NULL;
    const struct exo_page *page = &m->pages->page[out->page];
    if (EXO_UNLIKELY(page->env != env->number || !page->pins))
        return NULL;
    return page->address + out->offset;
}

static uint32_t fill_available(struct exo_env *env)
{
    if (EXO_UNLIKELY(env->fill_known - env->fill_taken < MOST_PIECES))
        env->fill_known = read_index(env, &env->libos->fill_put, env->fill_taken, env->layout.fill_entries);
    return env->fill_known - env->fill_taken;
}

static uint32_t receive_room(struct exo_machine *m, struct exo_env *env, uint32_t wanted)
{
    uint32_t room = env->layout.receive_entries - (env->receive_put - env->receive_seen);
    if (EXO_LIKELY(room >= wanted))
        return room;
    exo_deliver_settle(m, env);
    return env->layout.receive_entries - (env->receive_put - env->receive_seen);
}

static void describe(struct exo_env *env, const struct exo_frame *frame, const struct exo_fill *buffer, uint32_t length,
                     uint32_t flags, uint32_t csum, uint32_t binding, uint32_t first)
{
    uint32_t slot = env->receive_put++ & (env->layout.receive_entries - 1);
    receive_ring(env)[slot] = (struct exo_receive){
        .page = buffer->page, .offset = buffer->offset, .length = (uint16_t)length, .wire_len = frame->wire_len,
        .flags = (uint16_t)flags, .csum = (uint16_t)csum, .binding = binding, .port = frame->port, .timestamp = frame->ts,
    };
    env->placed[slot] = (struct exo_placed){
        .id = frame->id, .stamp = frame->stamp, .ts = frame->ts, .binding = binding, .bytes = (uint16_t)frame->len,
        .port = (uint8_t)frame->port, .first = first & 1, .local = (frame->flags & EXO_F_LOCAL) != 0, .converted = (frame->flags & EXO_F_CONVERTED) != 0,
    };
}

/* A frame that is longer than the first buffer: scattered over as many as it takes, all or nothing. */
static int32_t place_scattered(struct exo_machine *m, struct exo_env *env, const struct exo_frame *frame, uint32_t length,
                               uint32_t flags, uint32_t binding)
{
    struct exo_fill buffer[MOST_PIECES];
    uint8_t *to[MOST_PIECES];
    uint32_t have = fill_available(env), pieces = 0, covered = 0;
    while (covered < length) {
        if (pieces == have || pieces == MOST_PIECES)
            return EXO_R_RING_NO_BUFFER;
        to[pieces] = posted_buffer(m, env, pieces, &buffer[pieces]);
        if (!to[pieces]) {
            env->fill_taken += pieces + 1;
            return EXO_R_RING_BAD_BUFFER;
        }
        covered += buffer[pieces++].length;
    }
    if (receive_room(m, env, pieces) < pieces)
        return EXO_R_RING_FULL;
    env->fill_taken += pieces;
    for (uint32_t i = 0, at = 0; i < pieces; i++) {
        uint32_t part = length - at < buffer[i].length ? length - at : buffer[i].length;
        memcpy(to[i], frame->data + at, part);
        at += part;
        describe(env, frame, &buffer[i], part, flags | (at < length ? (uint32_t)EXO_F_MORE : 0), 0, binding, i == 0);
    }
    return 0;
}

/* Puts one frame into the next posted buffer. 0, or the reason why not. */
static int32_t place(struct exo_machine *m, struct exo_env *env, const struct exo_frame *frame, uint32_t flags, uint32_t binding)
{
    if (EXO_UNLIKELY(env->state != EXO_ENV_LIVE))
        return env->state == EXO_ENV_SHUT ? EXO_R_RING_CORRUPT : EXO_R_RING_ENV_DEAD;
    uint32_t length = frame->len;
    flags |= frame->flags & (EXO_F_SNAPPED | EXO_F_LOCAL);
    if (EXO_UNLIKELY(length < EXO_MIN_FRAME && !(frame->flags & EXO_F_SNAPPED))) {
        length = EXO_MIN_FRAME;   /* the NIC padded it in its buffer (R7) */
        flags |= EXO_F_PADDED;
    }
    if (EXO_UNLIKELY(!fill_available(env)))
        return env->state == EXO_ENV_SHUT ? EXO_R_RING_CORRUPT : EXO_R_RING_NO_BUFFER;
    struct exo_fill buffer;
    uint8_t *to = posted_buffer(m, env, 0, &buffer);
    if (EXO_UNLIKELY(!to)) {
        env->fill_taken++;
        return EXO_R_RING_BAD_BUFFER;
    }
    if (EXO_UNLIKELY(length > buffer.length))
        return place_scattered(m, env, frame, length, flags, binding);
    if (EXO_UNLIKELY(!receive_room(m, env, 1)))
        return env->state == EXO_ENV_SHUT ? EXO_R_RING_CORRUPT : EXO_R_RING_FULL;
    env->fill_taken++;
    uint16_t csum = exo_copy_checksum(to, frame->data, length, 14);
    describe(env, frame, &buffer, length, flags | EXO_F_CSUM, csum, binding, 1);
    return 0;
}

static void place_or_count(struct exo_machine *m, struct exo_env *env, const struct exo_frame *frame, uint32_t flags, uint32_t binding)
{
    int32_t reason = place(m, env, frame, flags, binding);
    if (EXO_LIKELY(!reason)) {
        env->placed_frames++;
        env->placed_bytes += frame->len;
    } else {
        exo_machine_fate(m, frame, reason, env);
    }
}

static inline int short_of_room(const struct exo_env *env)
{
    return env->fill_taken == env->fill_known || env->receive_put - env->receive_seen == env->layout.receive_entries;
}

/* On a port with backpressure a frame waits in the NIC for a LibOS that is only slow (patience.c). */
static int worth_waiting(struct exo_machine *m, uint32_t port, struct exo_env *env, const struct exo_frame *frame)
{
    if (env->state != EXO_ENV_LIVE || !short_of_room(env) || (fill_available(env) && receive_room(m, env, 1)))
        return 0;
    return exo_worth_waiting(m, port, env, frame);
}

/* The same for a frame of a group, which all that are bound on the port may get. */
static int worth_waiting_for_any(struct exo_machine *m, uint32_t port, const struct exo_frame *frame)
{
    for (uint32_t i = 1; i <= m->envs; i++) {
        struct exo_env *env = m->env[i];
        if (env && short_of_room(env) && exo_any_binding(m, env, port) != EXO_NO_OWNER && worth_waiting(m, port, env, frame))
            return 1;
    }
    return 0;
}

/* n frames have their owners and go on to the rings; no handler stands in between yet. */
static void count_owned(struct exo_machine *m, uint32_t n)
{
    m->ledger.out[EXO_S_DEMUX] += n;
    m->ledger.in[EXO_S_HANDLER] += n;
    m->ledger.out[EXO_S_HANDLER] += n;
    m->ledger.in[EXO_S_RING] += n;
}

void exo_deliver_to(struct exo_machine *m, uint32_t binding, const struct exo_frame *frame, uint32_t flags)
{
    struct exo_env *env = m->env[slot_of_env(m->binding[binding].env)];
    count_owned(m, 1);
    place_or_count(m, env, frame, flags, binding);
}

/* The kernel's own indices become visible, and a sleeping LibOS is woken: store, full fence, then look at its flag. */
void exo_deliver_publish(struct exo_env *env)
{
    struct exo_kernel_area *k = env->kernel;
    if (!k)
        return;
    if (k->fill_taken.value != env->fill_taken)
        __atomic_store_n(&k->fill_taken.value, env->fill_taken, __ATOMIC_RELEASE);
    if (k->receive_put.value == env->receive_put)
        return;
    __atomic_store_n(&k->receive_put.value, env->receive_put, __ATOMIC_RELEASE);
    if (env->wake_fd < 0) {
        env->inline_ready = 1;
        return;
    }
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (__atomic_load_n(&env->libos->need_wakeup.value, __ATOMIC_RELAXED)) {
        env->wakeups++;
        send(env->wake_fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
}

/* Could it be anything but a plain unicast packet: a group address, ARP, ICMP, a fragment? */
static inline int is_rare(const struct exo_frame *frame)
{
    const uint8_t *d = frame->data;   /* at least 60 readable bytes: the NIC pads */
    if (d[0] & 1)
        return 1;
    if (d[12] == 0x08)
        return d[13] == 0x06 || (d[13] == 0x00 && ((exo_be16(d + 20) & 0x3fff) != 0 || d[23] == 1));
    if (d[12] == 0x86 && d[13] == 0xdd)
        return d[20] == 44 || d[20] == 58;
    return (d[12] == 0x81 || d[12] == 0x88) && exo_l3_rare(frame);   /* a tag, a session */
}

static void publish_all(struct exo_machine *m)
{
    for (uint32_t i = 1; i <= m->envs; i++)
        if (m->env[i])
            exo_deliver_publish(m->env[i]);
}

/* Frames just taken, and whose they are. `looked`: the ICMP errors among the first so many have the owners of what they quote. */
struct burst {
    uint32_t n;
    uint32_t looked;
    uint32_t owners[EXO_BURST];
    struct exo_frame frames[EXO_BURST];
};

/* Those that were held back before keep their owners, unless a binding has come or gone since. */
static void classify(struct port *p, uint32_t queue, struct burst *b)
{
    struct held_back *held = &p->held[queue];
    int same = held->n && held->first == b->frames[0].id && held->changes == exo_demux_changes(p->demux);
    uint32_t known = !same ? 0 : held->n < b->n ? held->n : b->n;
    memcpy(b->owners, held->owners, known * sizeof *b->owners);
    exo_demux_classify(p->demux, b->frames + known, b->n - known, b->owners + known);
    b->looked = held->looked < known ? held->looked : known;
    held->n = 0;
}

/* The frames from i on stay in the NIC. */
static void hold_back(struct exo_machine *m, struct port *p, uint32_t queue, struct burst *b, uint32_t i)
{
    struct held_back *held = &p->held[queue];
    held->n = b->n - i;
    held->looked = b->looked > i ? b->looked - i : 0;
    held->first = b->frames[i].id;
    held->changes = exo_demux_changes(p->demux);
    memcpy(held->owners, b->owners + i, held->n * sizeof *b->owners);
    exo_nic_untake(p->nic, queue, held->n);
    m->ledger.in[EXO_S_DEMUX] -= held->n;
    b->n = i;
}

static struct exo_env *env_of(const struct exo_machine *m, uint32_t owner)
{
    return owner == EXO_NO_OWNER ? NULL : m->env[slot_of_env(m->binding[owner].env)];
}

static void snoop(struct exo_machine *m, const struct exo_frame *frame)
{
    struct copies copies;
    exo_copies_begin(&copies, m, frame, NULL);
    exo_demux_most_specific(m->port[frame->port].snoops, frame, exo_copies_keep, &copies);
    exo_ledger_copies(&m->ledger, EXO_S_DEMUX, frame, exo_copies_deliver(&copies, m, EXO_F_SNOOP));
}

/* Everything that is not a unicast frame with an owner: groups, what asks for an address, ICMP errors, fragments, nobody's. 0: the frame
 * is to wait in the NIC. */
static __attribute__((noinline)) int deliver_rarer(struct exo_machine *m, struct port *p, struct burst *b, uint32_t i, int snoops)
{
    const struct exo_frame *frame = &b->frames[i];
    uint32_t group = frame->data[0] & 1, patient = p->config.mode == EXO_NIC_BACKPRESSURE, held = 0;
    if (!group && i >= b->looked && is_rare(frame)) {
        exo_quoted_owners(p->demux, frame, b->n - i, b->owners + i);   /* of all the errors of the burst */
        b->looked = b->n;
    }
    struct exo_env *env = env_of(m, b->owners[i]);
    uint32_t port = frame->port;
    if (patient && (group ? worth_waiting_for_any(m, port, frame) : env && worth_waiting(m, port, env, frame)))
        return 0;
    if (snoops)
        snoop(m, frame);
    if (group && frame->len >= 6) {
        exo_deliver_group(m, frame);
        return 1;
    }
    uint32_t owner = exo_fragment_follow(m, frame, exo_asked_owner(m, frame, b->owners[i]), &held);
    if (owner != EXO_NO_OWNER)
        exo_deliver_to(m, owner, frame, 0);
    else if (!held)
        exo_machine_fate(m, frame, EXO_R_DEMUX_NO_MATCH, NULL);
    return 1;
}

/* Where the frames of a burst will go, on its way into the cache: pages and entries that another core had last. What a LibOS has posted is
 * read again, and checked, when it is used. */
static void prefetch_places(const struct exo_machine *m, const struct burst *b)
{
    uint8_t ahead[EXO_MAX_ENVS + 1] = {0};
    for (uint32_t i = 0; i < b->n; i++) {
        struct exo_env *env = env_of(m, b->owners[i]);
        if (EXO_UNLIKELY(!env || env->state != EXO_ENV_LIVE))
            continue;
        uint32_t k = ahead[slot_of_env(env->number)]++;
        uint64_t word = __atomic_load_n((const uint64_t *)&fill_ring(env)[(env->fill_taken + k) & (env->layout.fill_entries - 1)],
                                        __ATOMIC_RELAXED);
        struct exo_fill buffer;
        memcpy(&buffer, &word, sizeof buffer);
        const struct exo_page *page = buffer.page < m->pages->count ? &m->pages->page[buffer.page] : NULL;
        if (EXO_LIKELY(page && page->env == env->number))
            __builtin_prefetch(page->address + buffer.offset, 1);
        __builtin_prefetch(&receive_ring(env)[(env->receive_put + k) & (env->layout.receive_entries - 1)], 1);
    }
}

uint32_t exo_deliver_some(struct exo_machine *m, uint32_t port, uint32_t queue, uint32_t max)
{
    struct burst b;
    struct port *p = &m->port[port];
    uint32_t n = exo_nic_take(p->nic, queue, b.frames, max), plain = 0;
    if (!n)
        return 0;
    b.n = n;
    m->ledger.in[EXO_S_DEMUX] += n;
    classify(p, queue, &b);
    if (m->config.clock == EXO_CLOCK_VIRTUAL)
        for (uint32_t i = 0; i < n; i++)
            exo_cpu_charge(m, m->sim.costs.classify + m->sim.costs.place + m->sim.costs.place_byte_ps * b.frames[i].len / 1000);
    else
        prefetch_places(m, &b);
    int snoops = exo_demux_conjuncts(p->snoops) != 0, patient = p->config.mode == EXO_NIC_BACKPRESSURE;
    for (uint32_t i = 0; i < n; i++) {
        struct exo_env *env = env_of(m, b.owners[i]);
        if (EXO_UNLIKELY(!env || is_rare(&b.frames[i]))) {
            if (deliver_rarer(m, p, &b, i, snoops))
                continue;
            hold_back(m, p, queue, &b, i);
            break;
        }
        if (patient && short_of_room(env) && worth_waiting(m, port, env, &b.frames[i])) {
            hold_back(m, p, queue, &b, i);
            break;
        }
        if (EXO_UNLIKELY(snoops))
            snoop(m, &b.frames[i]);
        plain++;
        place_or_count(m, env, &b.frames[i], 0, b.owners[i]);
    }
    count_owned(m, plain);
    exo_nic_refill(p->nic, queue, exo_now(m));
    publish_all(m);
    return b.n;
}

uint32_t exo_deliver_burst(struct exo_machine *m, uint32_t port, uint32_t queue)
{
    return exo_deliver_some(m, port, queue, EXO_BURST);
}

/* What the LibOS says became of the frame in this slot; anything but a reason of its own stage is its own lie. */
static int32_t read_verdict(struct exo_env *env, uint32_t slot)
{
    const uint16_t *verdicts = (const uint16_t *)((const uint8_t *)env->libos + env->layout.verdict_offset);
    uint16_t verdict = __atomic_load_n(&verdicts[slot], __ATOMIC_RELAXED);
    if (EXO_LIKELY(verdict == EXO_R_DELIVERED || (verdict >= EXO_R_STACK_FIRST && verdict < EXO_R_TRANSMIT_FIRST)))
        return verdict;
    env->lies++;
    return EXO_R_STACK_UNACCOUNTED;
}

/* Frames of one binding that came at one time. */
struct arrival {
    uint64_t ts;
    uint32_t binding;
    uint32_t n;
};

/* Counts it with those before it where it is like them. */
static inline void waited(struct exo_machine *m, struct exo_env *env, struct arrival *run, const struct exo_placed *placed, uint64_t now)
{
    if (placed->ts != run->ts || placed->binding != run->binding) {
        if (run->n)
            exo_latency_record(m, env, run->binding, now > run->ts ? now - run->ts : 0, run->n);
        *run = (struct arrival){.ts = placed->ts, .binding = placed->binding};
    }
    run->n++;
}

uint32_t exo_deliver_settle(struct exo_machine *m, struct exo_env *env)
{
    if (env->state != EXO_ENV_LIVE)
        return 0;
    uint32_t taken = read_index(env, &env->libos->receive_taken, env->receive_seen, env->receive_put - env->receive_seen);
    if (taken == env->receive_seen)
        return 0;
    uint32_t frames = 0, local = 0, delivered[EXO_ORIGINS] = {0};
    uint64_t bytes = 0;
    int each = m->ledger.fates || m->ledger.observe, timed = !m->untimed;
    struct arrival run = {.n = 0};
    uint64_t now = exo_now(m);
    for (uint32_t i = env->receive_seen; i != taken; i++) {
        uint32_t slot = i & (env->layout.receive_entries - 1);
        const struct exo_placed *placed = &env->placed[slot];
        if (!placed->first)
            continue;
        frames++;
        local += placed->local != 0;
        bytes += placed->bytes;
        if (timed)
            waited(m, env, &run, placed, now);
        int32_t verdict = read_verdict(env, slot);
        if (EXO_LIKELY(verdict == EXO_R_DELIVERED && !each)) {
            delivered[placed->local ? EXO_O_LIBOS : EXO_O_WIRE]++;
            continue;
        }
        struct exo_frame frame = placed_frame(placed);
        exo_machine_fate(m, &frame, verdict, env);
        m->ledger.out[EXO_S_STACK] += verdict == EXO_R_DELIVERED;
    }
    env->receive_seen = taken;
    if (run.n)
        exo_latency_record(m, env, run.binding, now > run.ts ? now - run.ts : 0, run.n);
    if (frames > local && m->last_end)
        exo_end_moved(m, env, frames - local, now);
    env->consumed_frames += frames;
    env->consumed_bytes += bytes;
    uint32_t all = 0;
    for (int32_t origin = 0; origin < EXO_ORIGINS; origin++) {
        exo_ledger_count(&m->ledger, origin, EXO_R_DELIVERED, delivered[origin]);
        all += delivered[origin];
    }
    env->drop[EXO_R_DELIVERED] += all;
    m->ledger.out[EXO_S_RING] += frames;
    m->ledger.in[EXO_S_STACK] += frames;
    m->ledger.out[EXO_S_STACK] += all;
    return frames;
}
