/* SPDX-License-Identifier: MIT
 *
 * Latency: from a frame's arrival at the wire, which in a replay is when it was due (so that a late sender's delay is counted too), until
 * the kernel sees that its LibOS has consumed it. By binding; beyond MOST_TIMED bindings, and once one has ended, by environment.
 * Nothing is recorded where a wire's frames are due whenever they are asked for: it would be the length of the queues.
 */
#include <stdlib.h>

#include "machine_private.h"

enum { MOST_TIMED = 1024 };

/* NULL: there is no memory. */
static struct exo_delays *delays_of(struct exo_machine *m, struct exo_env *env, uint32_t number)
{
    struct binding *binding = &m->binding[number];
    if (binding->env == env->number) {
        if (!binding->delays && m->timed_bindings < MOST_TIMED && (binding->delays = calloc(1, sizeof *binding->delays)) != NULL)
            m->timed_bindings++;
        if (binding->delays)
            return binding->delays;
    }
    if (!env->delays)
        env->delays = calloc(1, sizeof *env->delays);
    return env->delays;
}

void exo_latency_record(struct exo_machine *m, struct exo_env *env, uint32_t binding, uint64_t ns, uint32_t n)
{
    struct exo_delays *delays = delays_of(m, env, binding);
    if (delays)
        exo_delays_record(delays, ns, n);
}

void exo_latency_end(struct exo_machine *m, struct binding *binding)
{
    struct exo_delays *ended = binding->delays;
    struct exo_env *env = known_env(m, binding->env);
    if (!ended)
        return;
    binding->delays = NULL;
    m->timed_bindings--;
    if (!env || env->delays) {
        if (env)
            exo_delays_add(env->delays, ended);
        free(ended);
    } else {
        env->delays = ended;
    }
}

const struct exo_delays *exo_machine_binding_delays(const struct exo_machine *m, uint32_t binding)
{
    return binding < m->bindings ? m->binding[binding].delays : NULL;
}

void exo_machine_env_delays(const struct exo_machine *m, uint32_t number, struct exo_delays *out)
{
    const struct exo_env *env = known_env(m, number);
    memset(out, 0, sizeof *out);
    if (!env)
        return;
    if (env->delays)
        exo_delays_add(out, env->delays);
    for (uint32_t i = 0; i < 2 * EXO_MAX_PORTS; i++)
        for (uint32_t b = m->list[slot_of_env(number)][i / 2][i % 2].first; b != EXO_NO_OWNER; b = m->binding[b].next)
            if (m->binding[b].delays)
                exo_delays_add(out, m->binding[b].delays);
}
