/* SPDX-License-Identifier: MIT
 *
 * How long others wait for a slow LibOS. On a port with backpressure a frame without room waits in the NIC, and what is behind it waits
 * too, so its owner's pace is everybody's. It is waited for while it takes PROGRESS frames within PATIENCE_NS of waiting. Who is slower is
 * late and loses its own frames, until it has caught up: PROGRESS frames taken within PATIENCE_NS, or none lost for so long. A LibOS that
 * has a port to itself holds nobody up: there one frame is progress. Times are the machine's; owner of the fields: the kernel thread.
 */
#include "machine_private.h"

enum { PROGRESS = 200 };
#define PATIENCE_NS 200000000u

/* Has no other environment a binding on this port? */
static int alone(const struct exo_machine *m, const struct exo_env *env, uint32_t port)
{
    for (uint32_t i = 1; i <= m->envs; i++)
        if (m->env[i] && m->env[i] != env && exo_any_binding(m, m->env[i], port) != EXO_NO_OWNER)
            return 0;
    return 1;
}

static int alone_everywhere(const struct exo_machine *m, const struct exo_env *env)
{
    for (uint32_t port = 0; port < m->ports; port++)
        if (exo_any_binding(m, env, port) != EXO_NO_OWNER && !alone(m, env, port))
            return 0;
    return 1;
}

static void begin(struct exo_env *env, uint64_t now)
{
    env->pace_since = now;
    env->pace_seen = env->receive_seen;
    env->held_ns = 0;
}

static void judge(const struct exo_machine *m, uint32_t port, struct exo_env *env, uint64_t now)
{
    uint32_t moved = env->receive_seen - env->pace_seen;
    if (env->late && now - env->pace_since > PATIENCE_NS) {
        begin(env, now);
    } else if (moved >= PROGRESS || (moved && alone(m, env, port))) {
        env->late = 0;
        begin(env, now);
    } else if (!env->late && env->held_ns >= PATIENCE_NS) {
        env->late = 1;
        begin(env, now);
    }
}

int32_t exo_worth_waiting(struct exo_machine *m, uint32_t port, struct exo_env *env, const struct exo_frame *frame)
{
    uint64_t now = exo_now(m), since = now - env->held_last;
    if (env->held_id == frame->id && env->held_last) {
        env->held_ns += since;
        m->stalled_ns += since;
    } else if (since > PATIENCE_NS + (m->stalled_ns - env->held_stalled)) {   /* while frames went, none waited for it or was lost */
        env->late = 0;
        begin(env, now);
    }
    env->held_last = now;
    env->held_stalled = m->stalled_ns;
    env->held_id = frame->id;
    judge(m, port, env, now);
    return !env->late;
}

void exo_end_moved(struct exo_machine *m, const struct exo_env *env, uint32_t frames, uint64_t now)
{
    if (now - m->end_since > PATIENCE_NS) {
        m->end_since = now;
        m->end_moved = 0;
    }
    m->end_moved += frames;
    if (m->end_moved < PROGRESS && m->config.clock == EXO_CLOCK_MONOTONIC && !alone_everywhere(m, env))
        return;
    m->last_wire = m->end_since = now;
    m->end_moved = 0;
}
