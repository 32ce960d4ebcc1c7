/* SPDX-License-Identifier: MIT
 *
 * The discrete-event loop on the virtual clock. One CPU: an interrupt takes it from whoever runs, between two steps of a LibOS; then the
 * kernel's transmit work; then the slice vector decides (R16 to R19). An operation's effect comes when its charge has passed.
 * A step of an inline environment happens in Python: exo_machine_simulate returns EXO_RUN_INLINE, Python calls exo_machine_stepped.
 * Interrupts: EXO_POLL_BUDGET takes one, masks, and polls at most `budget` frames before the LibOSes get a turn (Mogul and
 * Ramakrishnan 1997); EXO_INTERRUPT_EACH lets every arrival preempt, and so can be driven into livelock.
 */
#include "machine_private.h"

#define ASK_FOR_DEADLINE_NS 1000000u
/* What a step costs at least that did nothing and wants another at once. */
#define BUSY_FOR_NOTHING_NS 1000u

enum { LOOK_AT_WATCHES = 4096 };

/* May the kernel take frames from this port's NIC now? Takes the interrupt where one is due. */
static int may_poll(struct exo_machine *m, struct port *p)
{
    if (p->masked && !exo_nic_pending(p->nic)) {
        p->masked = 0;
        exo_nic_unmask(p->nic, m->virtual_now);
    }
    if (!exo_nic_pending(p->nic))
        return 0;
    if (p->masked)
        return m->sim.budget_left > 0;
    if (exo_nic_interrupt_due(p->nic) > m->virtual_now)
        return 0;
    exo_nic_acknowledge(p->nic, m->virtual_now);
    exo_cpu_charge(m, m->sim.costs.interrupt);
    if (m->sim.interrupt_mode == EXO_INTERRUPT_EACH) {
        exo_nic_unmask(p->nic, m->virtual_now);
    } else {
        p->masked = 1;
        m->sim.budget_left = m->sim.budget;
    }
    return 1;
}

static uint32_t kernel_receive(struct exo_machine *m)
{
    for (uint32_t i = 0; i < m->ports; i++) {
        struct port *p = &m->port[i];
        if (!may_poll(m, p))
            continue;
        uint32_t n = 0;
        exo_cpu_charge(m, m->sim.costs.poll);
        for (uint32_t q = 0; q < p->config.queues; q++)
            n += exo_deliver_some(m, i, q, 1);
        m->sim.budget_left -= n < m->sim.budget_left ? n : m->sim.budget_left;
        if (n)
            return n;
    }
    return 0;
}

static uint32_t kernel_transmit(struct exo_machine *m)
{
    for (uint32_t i = 1; i <= m->envs; i++) {
        struct exo_env *env = m->env[i];
        if (!env || !exo_transmit_waiting(env))
            continue;
        uint64_t bytes = exo_transmit_next_bytes(env);
        exo_cpu_charge(m, m->sim.costs.transmit + m->sim.costs.transmit_byte_ps * bytes / 1000);
        if (exo_transmit_some(m, env, 1))
            return 1;
    }
    return 0;
}

/* The environment that runs next: the one whose slice it is, or without slices whoever is ready in turn. 0: nobody. */
static uint32_t choose(struct exo_machine *m)
{
    struct simulation *s = &m->sim;
    if (s->slice_count) {
        exo_cpu_locate(m);
        uint32_t number = s->slices[s->position].env;
        return m->virtual_now >= s->eligible && exo_env_has_work(m, live_env(m, number)) ? number : EXO_NO_ENV;
    }
    for (uint32_t k = 0; k < m->envs; k++) {
        uint32_t i = (s->last_ready + k) % m->envs + 1;
        if (exo_env_has_work(m, m->env[i])) {
            s->last_ready = i;
            return m->env[i]->number;
        }
    }
    return EXO_NO_ENV;
}

/* An environment without a slice never runs, so its work is nobody's event. */
static int has_slice(const struct exo_machine *m, uint32_t number)
{
    for (uint32_t i = 0; i < m->sim.slice_count; i++)
        if (m->sim.slices[i].env == number)
            return 1;
    return m->sim.slice_count == 0;
}

static uint64_t next_event(struct exo_machine *m)
{
    uint64_t next = UINT64_MAX;
    for (uint32_t i = 0; i < m->ports; i++) {
        struct port *p = &m->port[i];
        if (!p->ended && p->wire->next_due)
            next = earlier(next, p->wire->next_due(p->wire, m->virtual_now));
        if (!p->masked && exo_nic_pending(p->nic))   /* one for frames that are taken already is no event: time would stand still */
            next = earlier(next, exo_nic_interrupt_due(p->nic));
    }
    for (uint32_t i = 1; i <= m->envs; i++) {
        if (!m->env[i] || !has_slice(m, m->env[i]->number))
            continue;
        if (exo_env_has_work(m, m->env[i]))
            next = earlier(next, m->sim.eligible > m->virtual_now ? m->sim.eligible : m->sim.slice_end);
        else if (m->env[i]->state == EXO_ENV_LIVE)
            next = earlier(next, m->wake_at[i]);
    }
    for (uint32_t i = 0; i < HELD_FRAGMENTS && m->fragments->held_count; i++)
        if (m->fragments->held[i].frame.data)
            next = earlier(next, m->fragments->held[i].expires);
    return next;
}

/* Frames that backpressure kept on the wire's side of the NIC try again whenever time or work has passed. */
static uint32_t retry_pending(struct exo_machine *m)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < m->ports; i++)
        if (m->port[i].pending_at != m->port[i].pending_n)
            n += exo_port_pull(m, i, m->virtual_now);
    return n;
}

static int32_t ask_for_step(struct exo_machine *m, uint32_t number)
{
    struct exo_env *env = live_env(m, number);
    uint64_t *wake_at = &m->wake_at[slot_of_env(number)];
    m->sim.step_slice_end = m->sim.slice_end;
    if (m->sim.entered != number) {
        m->sim.entered = number;
        exo_cpu_charge(m, m->sim.costs.upcall);
    }
    if (*wake_at <= m->virtual_now)
        *wake_at = UINT64_MAX;
    env->inline_ready = 0;
    env->kernel->now = m->virtual_now;
    m->sim.stepping = number;
    return EXO_RUN_INLINE;
}

static int32_t reasons_now(struct exo_machine *m, uint64_t until)
{
    if (m->error_port >= 0)
        return EXO_RUN_ERROR;
    if (m->ledger.fates && m->ledger.fate_count * 4 > m->ledger.fate_capacity * 3)
        return EXO_RUN_FATES;
    if (exo_machine_spent(m, m->virtual_now))
        return EXO_RUN_IDLE;
    if (++m->passes % LOOK_AT_WATCHES == 0 && exo_control_waiting(m))
        return EXO_RUN_CONTROL;   /* a signal */
    return m->virtual_now >= until ? EXO_RUN_DEADLINE : 0;
}

static int kernel_has_work(struct exo_machine *m)
{
    for (uint32_t i = 0; i < m->ports; i++)
        if (m->port[i].masked && exo_nic_pending(m->port[i].nic))
            return 1;
    return 0;
}

int32_t exo_machine_simulate(struct exo_machine *m, uint64_t until)
{
    if (m->config.clock != EXO_CLOCK_VIRTUAL)
        return EXO_E_INVALID;
    for (;;) {
        int32_t reasons = reasons_now(m, until);
        if (reasons)
            return reasons;
        exo_cpu_advance(m, m->virtual_now);
        exo_fragment_expire(m, m->virtual_now);
        if (retry_pending(m) || kernel_receive(m) || kernel_transmit(m))
            continue;
        uint32_t number = choose(m);
        if (number)
            return ask_for_step(m, number);
        int exhausted = m->sim.budget_left == 0;
        m->sim.budget_left = m->sim.budget;
        if (exhausted && kernel_has_work(m))
            continue;
        uint64_t next = next_event(m);
        if (next == UINT64_MAX)
            return EXO_RUN_IDLE;
        m->sim.entered = EXO_NO_ENV;
        exo_cpu_advance(m, earlier(next, until));
    }
}

/* What the step consumed, at the model's cost: read from the rings, not from what the LibOS says of itself. */
static uint64_t step_cost(struct exo_machine *m, struct exo_env *env)
{
    uint32_t taken = __atomic_load_n(&env->libos->receive_taken.value, __ATOMIC_ACQUIRE) - env->receive_seen;
    uint64_t each = env->own_costs ? env->consume : m->sim.costs.consume, ns = 0;
    uint64_t byte_ps = env->own_costs ? env->consume_byte_ps : m->sim.costs.consume_byte_ps;
    if (taken > env->receive_put - env->receive_seen)
        return 0;
    for (uint32_t i = 0; i < taken; i++) {
        const struct exo_placed *placed = &env->placed[(env->receive_seen + i) & (env->layout.receive_entries - 1)];
        if (placed->first)
            ns += each + placed->bytes * byte_ps / 1000;
    }
    return ns;
}

void exo_machine_stepped(struct exo_machine *m, uint32_t number, int32_t again)
{
    struct exo_env *env = live_env(m, number);
    uint64_t *wake_at = &m->wake_at[slot_of_env(number)];
    if (!env)
        return;
    if (m->config.clock == EXO_CLOCK_VIRTUAL) {
        uint64_t ns = step_cost(m, env);
        if (!ns && !exo_transmit_posted(env) && (again || *wake_at <= m->virtual_now)) {
            ns = BUSY_FOR_NOTHING_NS;
            exo_machine_chatter(m, m->virtual_now);
        }
        env->cpu_ns += ns;
        exo_cpu_charge(m, ns);
        if (m->sim.slice_count && m->virtual_now > m->sim.step_slice_end)
            env->debt_ns += (int64_t)(m->virtual_now - m->sim.step_slice_end);
        m->sim.stepping = EXO_NO_ENV;
        m->sim.budget_left = m->sim.budget;
    } else if (*wake_at == UINT64_MAX && !m->timer_came) {
        *wake_at = m->last_work + ASK_FOR_DEADLINE_NS;
    }
    exo_deliver_settle(m, env);
    if (again)
        env->inline_ready = 1;
}
