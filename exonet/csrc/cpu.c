/* SPDX-License-Identifier: MIT
 *
 * The virtual CPU: costs, the slice vector, and the passing of time (R16, R18). Time moves only in exo_cpu_charge and
 * exo_cpu_advance; both let every frame that arrives on the way into its NIC at its own timestamp first.
 */
#include "machine_private.h"

int32_t exo_cpu_costs(struct exo_machine *m, const struct exo_costs *costs, uint32_t interrupt_mode, uint32_t budget)
{
    if (interrupt_mode > EXO_INTERRUPT_EACH || !budget)
        return EXO_E_INVALID;
    m->sim.costs = *costs;
    m->sim.interrupt_mode = interrupt_mode;
    m->sim.budget = m->sim.budget_left = budget;
    return 0;
}

int32_t exo_cpu_slices(struct exo_machine *m, const struct exo_slice *slices, uint32_t n)
{
    if (n > sizeof m->sim.slices / sizeof *m->sim.slices)
        return EXO_E_FULL;
    for (uint32_t i = 0; i < n; i++)
        if ((slices[i].env && !live_env(m, slices[i].env)) || !slices[i].ns)
            return EXO_E_INVALID;
    memcpy(m->sim.slices, slices, n * sizeof *slices);
    m->sim.slice_count = n;
    m->sim.position = 0;
    m->sim.slice_end = m->virtual_now + (n ? slices[0].ns : 0);
    m->sim.eligible = m->virtual_now;
    m->sim.entered = 0;
    return 0;
}

/* A new slice begins: its environment pays its debt first (R17); a slice paid away whole is forfeited and counted. */
static void enter_slice(struct exo_machine *m, uint64_t start)
{
    struct simulation *s = &m->sim;
    const struct exo_slice *slice = &s->slices[s->position];
    struct exo_env *env = live_env(m, slice->env);
    s->slice_end = start + slice->ns;
    s->eligible = start;
    s->entered = 0;
    if (!env || env->debt_ns <= 0)
        return;
    uint64_t paid = (uint64_t)env->debt_ns < slice->ns ? (uint64_t)env->debt_ns : slice->ns;
    env->debt_ns -= (int64_t)paid;
    s->eligible = start + paid;
    env->excess += paid == slice->ns;
}

/* The vector is linear and its position a function of time alone: whoever has nothing to do lets its slice pass. */
void exo_cpu_locate(struct exo_machine *m)
{
    struct simulation *s = &m->sim;
    while (s->slice_count && m->virtual_now >= s->slice_end) {
        s->position = (s->position + 1) % s->slice_count;
        enter_slice(m, s->slice_end);
    }
}

static uint64_t due_at(struct exo_machine *m, uint32_t port)
{
    struct port *p = &m->port[port];
    if (p->ended || p->pending_at != p->pending_n || !p->wire->next_due)
        return UINT64_MAX;
    return p->wire->next_due(p->wire, m->virtual_now);
}

/* The next arrival of any port at or before `limit`, in time order, ports in order of number; UINT64_MAX: none. */
static uint64_t next_arrival(struct exo_machine *m, uint64_t limit, uint32_t *port)
{
    uint64_t first = UINT64_MAX;
    for (uint32_t i = 0; i < m->ports; i++) {
        uint64_t due = due_at(m, i);
        if (due < first) {
            first = due;
            *port = i;
        }
    }
    return first <= limit ? first : UINT64_MAX;
}

/* Time reaches `target`. A wire that gives nothing although it said it was due has ended or is waiting: it is asked once. */
void exo_cpu_advance(struct exo_machine *m, uint64_t target)
{
    uint32_t port = 0;
    uint64_t due;
    while ((due = next_arrival(m, target, &port)) != UINT64_MAX) {
        if (due > m->virtual_now)
            m->virtual_now = due;
        uint32_t moved = exo_port_pull(m, port, m->virtual_now);
        struct port *p = &m->port[port];
        if (!moved && !p->ended && p->pending_at == p->pending_n && due_at(m, port) <= m->virtual_now)
            break;
    }
    if (target > m->virtual_now)
        m->virtual_now = target;
}

void exo_cpu_charge(struct exo_machine *m, uint64_t ns)
{
    if (m->config.clock == EXO_CLOCK_VIRTUAL)
        exo_cpu_advance(m, m->virtual_now + ns);
}
