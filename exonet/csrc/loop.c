/* SPDX-License-Identifier: MIT
 *
 * The live loop, on the monotonic clock: polls while there is work, sleeps on descriptors when there is none. One thread runs it with the
 * GIL released; it comes back to Python for inline environments, control sockets, signals and deadlines only.
 * Before sleeping: need_wakeup is raised in every environment, full fence, one more look at the rings (no lost wake-up).
 */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <time.h>

#include "machine_private.h"

enum { LOOK_AT_WATCHES = 128, DRAIN_MOST = 16 };

/* After the last wire has ended a run goes on so long without frames of a wire being consumed at a good pace (patience.c). */
#define LINGER_NS 2000000000u
/* LibOSes that kept themselves busy and paused so long do not any more. */
#define CHATTER_GAP_NS 100000000u
/* How often to look at what has been posted but cannot leave. */
#define STUCK_NS 10000000u

/* Sleeping is not exact: what is due sooner than this is spun for, and a sleep ends so long before. */
#define SPIN_BEFORE_DUE_NS 100000u

int32_t exo_machine_watch(struct exo_machine *m, const int32_t *fds, uint32_t n)
{
    if (n > WATCHES)
        return EXO_E_FULL;
    memcpy(m->watch, fds, n * sizeof *fds);
    m->watches = n;
    return 0;
}

void exo_machine_halt(struct exo_machine *m)
{
    for (uint32_t i = 0; i < m->ports; i++) {
        if (!m->port[i].ended)
            m->last_wire = m->last_end = exo_now(m);
        m->port[i].ended = 1;
    }
}

void exo_machine_wake_at(struct exo_machine *m, uint32_t env, uint64_t ns)
{
    if (live_env(m, env))
        m->wake_at[slot_of_env(env)] = ns;
}

/* One burst from the wire into the NIC. What the NIC would not take (backpressure) waits in pending. Returns frames moved. */
uint32_t exo_port_pull(struct exo_machine *m, uint32_t port, uint64_t now)
{
    struct port *p = &m->port[port];
    if (p->pending_at == p->pending_n) {
        if (p->ended)
            return 0;
        int32_t n = p->wire->receive(p->wire, p->pending, EXO_BURST, now);
        if (n < 0) {
            p->ended = 1;
            m->last_wire = m->last_end = now;
            if (n != EXO_E_END) {
                m->error_port = (int32_t)port;
                m->error_errno = errno;
            }
            return 0;
        }
        for (int32_t i = 0; i < n; i++)
            p->pending[i].port = (uint16_t)port;
        p->pending_at = 0;
        p->pending_n = (uint32_t)n;
        if (!n)
            return 0;
    }
    uint32_t taken = exo_nic_receive(p->nic, p->pending + p->pending_at, p->pending_n - p->pending_at, now);
    m->ledger.out[EXO_S_SOURCE] += taken;
    if (taken)
        m->last_wire = now;
    p->pending_at += taken;
    return taken;
}

static uint32_t settle_all(struct exo_machine *m)
{
    uint32_t n = 0;
    for (uint32_t i = 1; i <= m->envs; i++)
        if (m->env[i])
            n += exo_deliver_settle(m, m->env[i]);
    return n;
}

/* Each environment in turn is first: where there is not room for all, everybody gets some. */
static uint32_t transmit_all(struct exo_machine *m)
{
    uint32_t n = 0;
    for (uint32_t k = 0; k < m->envs; k++) {
        struct exo_env *env = m->env[(m->passes + k) % m->envs + 1];
        if (env)
            n += exo_transmit_burst(m, env);
    }
    return n;
}

static uint32_t deliver_all(struct exo_machine *m, uint32_t port)
{
    uint32_t n = 0;
    for (uint32_t q = 0; q < m->port[port].config.queues; q++)
        n += exo_deliver_burst(m, port, q);
    return n;
}

static int crowded(const struct exo_machine *m)
{
    for (uint32_t i = 0; i < m->ports; i++)
        if (exo_nic_pending(m->port[i].nic))
            return 1;
    return 0;
}

/* A wire that can wait is asked for more once the NIC holds no done frame: what waits in its FIFO is copied once more than need be, and a
 * backlog of one burst a pass would never shrink. A queue that a LibOS holds up stops the others no longer than it is worth waiting. */
static int may_pull(const struct port *p)
{
    return p->config.mode != EXO_NIC_BACKPRESSURE || !exo_nic_pending(p->nic);
}

/* Everything that can move moves by one burst. What LibOSes have ready goes first, somebody waits for it; but where a NIC is behind,
 * the wire gets the room that delivery makes, and what LibOSes send one another gets the rest. */
static uint32_t pass(struct exo_machine *m, uint64_t now)
{
    int behind = m->turned_round && crowded(m);
    m->turned_round = 0;
    uint32_t work = behind ? 0 : transmit_all(m);
    for (uint32_t i = 0; i < m->ports; i++) {
        if (behind)
            work += deliver_all(m, i);
        if (may_pull(&m->port[i]))
            work += exo_port_pull(m, i, now);
        if (!behind)
            work += deliver_all(m, i);
    }
    if (behind)
        work += transmit_all(m);
    work += settle_all(m);
    exo_fragment_expire(m, now);
    return work;
}

int32_t exo_env_has_work(struct exo_machine *m, struct exo_env *env)
{
    if (!env || env->wake_fd >= 0 || env->state != EXO_ENV_LIVE)
        return 0;
    return env->inline_ready || m->wake_at[slot_of_env(env->number)] <= exo_now(m);
}

uint32_t exo_machine_ready(struct exo_machine *m)
{
    m->timer_came = m->config.clock == EXO_CLOCK_VIRTUAL;
    if (m->config.clock == EXO_CLOCK_VIRTUAL)
        return m->sim.stepping;
    for (uint32_t n = 0; n < m->envs; n++) {   /* in turn: one that always has work lets the others have theirs */
        uint32_t i = 1 + (m->turn + n) % m->envs;
        struct exo_env *env = m->env[i];
        if (!exo_env_has_work(m, env))
            continue;
        m->turn = i;
        env->inline_ready = 0;
        if (m->wake_at[i] <= exo_now(m)) {
            m->wake_at[i] = UINT64_MAX;
            m->timer_came = 1;
        }
        return env->number;
    }
    return 0;
}

static int inline_ready(struct exo_machine *m)
{
    for (uint32_t i = 1; i <= m->envs; i++)
        if (exo_env_has_work(m, m->env[i]))
            return 1;
    return 0;
}

/* Nothing is on its way: sources ended, NIC empty, every live environment has consumed and sent what it had. */
int32_t exo_machine_quiet(struct exo_machine *m)
{
    for (uint32_t i = 0; i < m->ports; i++) {
        struct port *p = &m->port[i];
        if (!p->ended || p->pending_at != p->pending_n || exo_nic_pending(p->nic) || exo_nic_in_flight(p->nic))
            return 0;
    }
    for (uint32_t i = 1; i <= m->envs; i++) {
        struct exo_env *env = m->env[i];
        if (env && env->state == EXO_ENV_LIVE &&
            (env->receive_seen != env->receive_put || exo_transmit_posted(env) || exo_env_has_work(m, env)))
            return 0;
    }
    return m->ports > 0 && !m->fragments->held_count;
}

static int all_ended(const struct exo_machine *m)
{
    for (uint32_t i = 0; i < m->ports; i++)
        if (!m->port[i].ended || m->port[i].pending_at != m->port[i].pending_n)
            return 0;
    return m->ports > 0;
}

void exo_machine_chatter(struct exo_machine *m, uint64_t now)
{
    if (now > m->chatter_last + CHATTER_GAP_NS)
        m->chatter_since = now;
    m->chatter_last = now;
    m->turned_round = 1;
}

/* What happened during this pass is later than the pass's own `now`. */
static uint64_t since(uint64_t then, uint64_t now) { return now > then ? now - then : 0; }

/* Every wire has ended, and what still moves, or does not, is LibOSes alone: one that hangs, or two that answer each other for ever.
 * On the virtual clock a LibOS may wait long for its slice or a timer, so there only those count that keep themselves busy. */
int32_t exo_machine_spent(const struct exo_machine *m, uint64_t now)
{
    if (!all_ended(m))
        return 0;
    if (since(m->last_wire, now) < LINGER_NS)
        return 0;
    if (m->config.clock == EXO_CLOCK_MONOTONIC)
        return 1;
    return since(m->chatter_since, now) > LINGER_NS && since(m->chatter_last, now) < CHATTER_GAP_NS;
}

static uint64_t next_event(struct exo_machine *m, uint64_t until, uint64_t now)
{
    for (uint32_t i = 0; i < m->ports; i++) {
        struct port *p = &m->port[i];
        if (p->pending_at != p->pending_n || exo_nic_pending(p->nic))
            return now;
        if (!p->ended && p->wire->next_due)
            until = earlier(until, p->wire->next_due(p->wire, now));
    }
    for (uint32_t i = 1; i <= m->envs; i++)
        if (m->env[i] && m->env[i]->wake_fd < 0)
            until = earlier(until, m->wake_at[i]);
    if (m->fragments->held_count)
        until = earlier(until, now + 10000000u);
    for (uint32_t i = 1; i <= m->envs; i++)
        if (m->env[i] && m->env[i]->stuck && exo_transmit_posted(m->env[i]))
            until = earlier(until, now + STUCK_NS);
    if (all_ended(m))
        until = earlier(until, m->last_wire + LINGER_NS);
    return until;
}

static void raise_need_wakeup(struct exo_machine *m, uint32_t value)
{
    for (uint32_t i = 1; i <= m->envs; i++)
        if (m->env[i] && m->env[i]->state == EXO_ENV_LIVE)
            __atomic_store_n(&m->env[i]->kernel->need_wakeup.value, value, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static int rings_waiting(struct exo_machine *m)
{
    for (uint32_t i = 1; i <= m->envs; i++)
        if (m->env[i] && exo_transmit_waiting(m->env[i]))
            return 1;
    return 0;
}

/* A LibOS may fill its wake socket with bytes: read a bounded number and go on. */
static void drain_wake(int32_t fd)
{
    char bytes[64];
    for (int i = 0; i < DRAIN_MOST; i++)
        if (recv(fd, bytes, sizeof bytes, MSG_DONTWAIT) <= 0)
            return;
}

/* Sleeps until a descriptor or `deadline`. Returns run reasons (EXO_RUN_CONTROL, EXO_RUN_STOP). */
static int32_t doze(struct exo_machine *m, uint64_t deadline, uint64_t now)
{
    struct pollfd fds[EXO_MAX_PORTS + EXO_MAX_ENVS + WATCHES];
    nfds_t n = 0, wires, envs;
    for (uint32_t i = 0; i < m->ports; i++)
        if (m->port[i].wire->fd >= 0 && !m->port[i].ended)
            fds[n++] = (struct pollfd){.fd = m->port[i].wire->fd, .events = POLLIN};
    wires = n;
    for (uint32_t i = 1; i <= m->envs; i++)
        if (m->env[i] && m->env[i]->state == EXO_ENV_LIVE && m->env[i]->wake_fd >= 0)
            fds[n++] = (struct pollfd){.fd = m->env[i]->wake_fd, .events = POLLIN};
    envs = n;
    for (uint32_t i = 0; i < m->watches; i++)
        fds[n++] = (struct pollfd){.fd = m->watch[i], .events = POLLIN};
    raise_need_wakeup(m, 1);
    int32_t reasons = 0;
    if (!rings_waiting(m)) {
        uint64_t ns = deadline > now ? deadline - now : 0;
        struct timespec timeout = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
        m->sleeps++;
        int rc = ppoll(fds, n, deadline == UINT64_MAX ? NULL : &timeout, NULL);
        if (rc < 0 && errno == EINTR)
            reasons |= EXO_RUN_STOP;
        for (nfds_t i = wires; rc > 0 && i < n; i++) {
            if (!fds[i].revents)
                continue;
            if (i < envs)
                drain_wake(fds[i].fd);
            else
                reasons |= EXO_RUN_CONTROL;
        }
    }
    raise_need_wakeup(m, 0);
    return reasons;
}

int32_t exo_control_waiting(struct exo_machine *m)
{
    struct pollfd fds[WATCHES];
    for (uint32_t i = 0; i < m->watches; i++)
        fds[i] = (struct pollfd){.fd = m->watch[i], .events = POLLIN};
    return m->watches && poll(fds, m->watches, 0) > 0 ? EXO_RUN_CONTROL : 0;
}

static int32_t reasons_now(struct exo_machine *m, uint64_t now, uint64_t until)
{
    int32_t reasons = 0;
    if (now >= until)
        reasons |= EXO_RUN_DEADLINE;
    if (m->error_port >= 0)
        reasons |= EXO_RUN_ERROR;
    if (m->ledger.fates && m->ledger.fate_count * 4 > m->ledger.fate_capacity * 3)
        reasons |= EXO_RUN_FATES;
    if (inline_ready(m))
        reasons |= EXO_RUN_INLINE;
    if (++m->passes % LOOK_AT_WATCHES == 0)
        reasons |= exo_control_waiting(m);
    return reasons;
}

int64_t exo_machine_go(struct exo_machine *m, uint64_t until, uint32_t stepped, int32_t again)
{
    int timed = m->config.clock == EXO_CLOCK_MONOTONIC;
    if (stepped) {
        struct exo_env *env = timed ? live_env(m, stepped) : NULL;
        if (env)
            env->cpu_ns += exo_now(m) - m->step_began;
        exo_machine_stepped(m, stepped, again);
    }
    int32_t reasons = m->config.clock == EXO_CLOCK_VIRTUAL ? exo_machine_simulate(m, until) : exo_machine_run(m, until);
    if (reasons < 0 || !(reasons & EXO_RUN_INLINE))
        return reasons;
    int64_t next = (int64_t)exo_machine_ready(m) << 16;   /* which says whether its timer came */
    if (timed)
        m->step_began = exo_now(m);
    return next | reasons | (m->timer_came ? (int32_t)EXO_RUN_TIMER : 0);
}

/* The LibOSes and their peers may need this core. On a busy host it comes back late, so that control is looked at each time. */
static int32_t yield(struct exo_machine *m)
{
    sched_yield();
    return exo_control_waiting(m);
}

int32_t exo_machine_run(struct exo_machine *m, uint64_t until)
{
    if (m->config.clock != EXO_CLOCK_MONOTONIC)
        return EXO_E_INVALID;
    for (;;) {
        uint64_t now = exo_now(m);
        uint32_t work = pass(m, now);
        int32_t reasons = reasons_now(m, now, until);
        if (work)
            m->last_work = now;
        if (exo_machine_spent(m, now))
            return (reasons & ~EXO_RUN_INLINE) | EXO_RUN_IDLE;
        if (reasons)
            return reasons;
        if (work)
            continue;
        if (exo_machine_quiet(m))
            return EXO_RUN_IDLE;
        uint64_t due = next_event(m, until, now);
        if (due <= now) {
            /* A frame waits in the NIC for a LibOS, which may wait for this core, or for the answer to a system call. */
            if ((reasons = yield(m)))
                return reasons;
            continue;
        }
        if (due <= now + SPIN_BEFORE_DUE_NS)
            continue;
        if (now - m->last_work < m->config.spin_ns) {
            if ((reasons = yield(m)))
                return reasons;
            continue;
        }
        reasons = doze(m, due == UINT64_MAX ? due : due - SPIN_BEFORE_DUE_NS, now);
        if (reasons)
            return reasons;
    }
}
