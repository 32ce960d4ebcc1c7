/* SPDX-License-Identifier: MIT
 *
 * The machine: built, taken apart and walked here; everything is bind time but exo_now and the fates.
 * Owner of every field: the one kernel thread. machine_private.h has the structs.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "machine_private.h"

#define LAST_NUMBER (EXO_KERNEL_ENV - 1)

static void observe(void *context, const struct exo_frame *frame, int32_t reason, uint32_t env)
{
    struct exo_machine *m = context;
    if (frame->port >= m->ports)
        return;
    struct exo_wire *wire = m->port[frame->port].wire;
    if (wire->fate)
        wire->fate(wire, frame, reason, env);
}

struct exo_machine *exo_machine_new(const struct exo_machine_config *config)
{
    struct exo_machine *m = calloc(1, sizeof *m);
    if (!m)
        return NULL;
    m->config = *config;
    prctl(PR_SET_TIMERSLACK, 1);   /* this thread's sleeps end when they should, not up to 50 us later */
    m->pages = exo_pages_new(config->pages);
    m->fragments = calloc(1, sizeof *m->fragments);
    m->error_port = -1;
    m->sim.budget = m->sim.budget_left = EXO_BURST;
    memset(m->list, 0xff, sizeof m->list);
    for (uint32_t i = 0; i < EXO_MAX_ENVS; i++)
        m->wake_at[i] = UINT64_MAX;
    if (!m->pages || !m->fragments) {
        exo_machine_free(m);
        return NULL;
    }
    return m;
}

void exo_machine_free(struct exo_machine *m)
{
    if (!m)
        return;
    for (uint32_t i = 1; i < EXO_MAX_ENVS; i++) {
        if (m->env[i]) {
            exo_env_close(m->env[i]);
            free(m->env[i]->delays);
            free(m->env[i]);
        }
    }
    for (uint32_t i = 0; i < m->ports; i++) {
        exo_nic_free(m->port[i].nic);
        exo_demux_free(m->port[i].demux);
        exo_demux_free(m->port[i].snoops);
        m->port[i].wire->ledger = NULL;
    }
    if (m->fragments)
        for (uint32_t i = 0; i < HELD_FRAGMENTS; i++)
            free((void *)(uintptr_t)m->fragments->held[i].frame.data);
    free(m->fragments);
    for (uint32_t i = 0; i < m->bindings; i++)
        free(m->binding[i].delays);
    free(m->binding);
    free(m->free_binding);
    exo_ledger_record(&m->ledger, 0);
    if (m->pages)
        exo_pages_free(m->pages);
    free(m);
}

struct exo_ledger *exo_machine_ledger(struct exo_machine *m) { return &m->ledger; }
struct exo_pages *exo_machine_pages(struct exo_machine *m) { return m->pages; }

uint64_t exo_machine_sleeps(const struct exo_machine *m) { return m->sleeps; }

struct exo_demux *exo_machine_demux(struct exo_machine *m, uint32_t port, uint32_t snoop)
{
    if (port >= m->ports)
        return NULL;
    return snoop ? m->port[port].snoops : m->port[port].demux;
}

struct exo_nic *exo_machine_nic(struct exo_machine *m, uint32_t port)
{
    return port < m->ports ? m->port[port].nic : NULL;
}

uint64_t exo_now(const struct exo_machine *m)
{
    if (m->config.clock == EXO_CLOCK_VIRTUAL)
        return m->virtual_now;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int32_t exo_machine_attach(struct exo_machine *m, struct exo_wire *wire, const struct exo_nic_config *config)
{
    if (m->ports == EXO_MAX_PORTS)
        return EXO_E_FULL;
    uint32_t number = m->ports;
    struct port *p = &m->port[number];
    p->nic = exo_nic_new(config, &m->ledger, (uint16_t)number);
    p->demux = exo_demux_new(m->config.seed * 2 + 1);
    p->snoops = exo_demux_new(m->config.seed * 2 + 2);
    if (!p->nic || !p->demux || !p->snoops) {
        exo_nic_free(p->nic);
        exo_demux_free(p->demux);
        exo_demux_free(p->snoops);
        return EXO_E_INVALID;
    }
    p->config = *config;
    p->wire = wire;
    wire->ledger = &m->ledger;
    wire->port = (uint16_t)number;
    if (wire->fate) {
        m->ledger.observe = observe;
        m->ledger.observer = m;
    }
    m->untimed |= wire->flags & EXO_WIRE_UNTIMED;
    m->ports++;
    return (int32_t)number;
}

/* The number of the next environment: of a slot never used, else of the one whose last environment died first. EXO_NO_ENV: none is free. */
static uint32_t next_number(const struct exo_machine *m)
{
    const struct exo_env *longest = NULL;
    for (uint32_t slot = 1; slot < EXO_MAX_ENVS; slot++) {
        const struct exo_env *env = m->env[slot];
        if (!env)
            return slot;
        if (env->died && env->number <= LAST_NUMBER - EXO_MAX_ENVS && (!longest || env->died < longest->died))
            longest = env;
    }
    return longest ? longest->number + EXO_MAX_ENVS : (uint32_t)EXO_NO_ENV;
}

int64_t exo_machine_env(struct exo_machine *m, const struct exo_layout *layout, int32_t wake_fd)
{
    uint32_t number = next_number(m), slot = slot_of_env(number);
    if (number == EXO_NO_ENV)
        return EXO_E_FULL;
    struct exo_env *env = calloc(1, sizeof *env);
    if (!env)
        return EXO_E_MEMORY;
    int32_t rc = exo_env_open(env, number, layout, m->config.seed * 0x9e3779b97f4a7c15u + number);
    if (rc < 0) {
        free(env);
        return rc;
    }
    env->wake_fd = wake_fd;
    env->state = EXO_ENV_LIVE;
    if (m->env[slot])
        free(m->env[slot]->delays);
    free(m->env[slot]);
    m->env[slot] = env;
    m->wake_at[slot] = UINT64_MAX;
    if (slot > m->envs)
        m->envs = slot;
    return number;
}

struct exo_env *exo_machine_env_at(struct exo_machine *m, uint32_t number) { return known_env(m, number); }

static void forget_groups(struct exo_machine *m, uint32_t number)
{
    for (uint32_t i = m->groups; i-- > 0;) {   /* from the end: a group that becomes empty is replaced by the last */
        struct group g = m->group[i];
        if (g.members[slot_of_env(number) / 64] >> (number % 64) & 1)
            exo_machine_unsubscribe(m, number, g.port, g.mac);
    }
    for (uint32_t i = 0; i < m->neighbours;) {
        if (m->neighbour[i].env == number)
            m->neighbour[i] = m->neighbour[--m->neighbours];
        else
            i++;
    }
}

int32_t exo_machine_env_kill(struct exo_machine *m, uint32_t number)
{
    struct exo_env *env = known_env(m, number);
    if (!env)
        return EXO_E_NOT_FOUND;
    if (env->state == EXO_ENV_DEAD)
        return 0;
    uint32_t slot = slot_of_env(number);
    if (env->state == EXO_ENV_LIVE)
        exo_deliver_settle(m, env);
    uint32_t mask = env->layout.receive_entries - 1;
    for (uint32_t i = env->receive_seen; i != env->receive_put; i++) {
        const struct exo_placed *placed = &env->placed[i & mask];
        if (!placed->first)
            continue;
        struct exo_frame frame = placed_frame(placed);
        exo_machine_fate(m, &frame, EXO_R_RING_ENV_DEAD, env);
    }
    env->receive_seen = env->receive_put;
    for (uint32_t i = 0; i < 2 * EXO_MAX_PORTS; i++)
        while (m->list[slot][i / 2][i % 2].first != EXO_NO_OWNER)
            exo_machine_unbind(m, m->list[slot][i / 2][i % 2].first);
    forget_groups(m, number);
    exo_pages_reclaim(m->pages, number);
    m->wake_at[slot] = UINT64_MAX;
    env->state = EXO_ENV_DEAD;
    env->died = ++m->deaths;
    env->inline_ready = env->stuck = 0;
    exo_env_close(env);
    return 0;
}

static struct binding_list *list_of(struct exo_machine *m, const struct binding *b)
{
    return &m->list[slot_of_env(b->env)][b->port][b->flags & EXO_BIND_SNOOP ? 1 : 0];
}

static void link_binding(struct exo_machine *m, uint32_t number)
{
    struct binding *b = &m->binding[number];
    struct binding_list *list = list_of(m, b);
    b->next = EXO_NO_OWNER;
    b->previous = list->last;
    if (list->last == EXO_NO_OWNER)
        list->first = number;
    else
        m->binding[list->last].next = number;
    list->last = number;
}

static void unlink_binding(struct exo_machine *m, uint32_t number)
{
    struct binding *b = &m->binding[number];
    struct binding_list *list = list_of(m, b);
    if (b->previous == EXO_NO_OWNER)
        list->first = b->next;
    else
        m->binding[b->previous].next = b->next;
    if (b->next == EXO_NO_OWNER)
        list->last = b->previous;
    else
        m->binding[b->next].previous = b->previous;
}

int64_t exo_machine_binding(struct exo_machine *m, uint32_t env, uint32_t port, uint32_t flags)
{
    if (port >= m->ports || !live_env(m, env) || live_env(m, env)->state != EXO_ENV_LIVE)
        return EXO_E_INVALID;
    uint32_t number;
    if (m->free_bindings) {
        number = m->free_binding[--m->free_bindings];
    } else {
        if (m->bindings == m->binding_capacity) {
            uint32_t capacity = m->binding_capacity ? m->binding_capacity * 2 : 64;
            struct binding *grown = realloc(m->binding, capacity * sizeof *grown);
            if (!grown)
                return EXO_E_MEMORY;
            m->binding = grown;
            uint32_t *stack = realloc(m->free_binding, capacity * sizeof *stack);
            if (!stack)
                return EXO_E_MEMORY;
            m->free_binding = stack;
            m->binding_capacity = capacity;
        }
        number = m->bindings++;
    }
    m->binding[number] = (struct binding){.env = env, .port = (uint16_t)port, .flags = (uint16_t)(flags & EXO_BIND_SNOOP)};
    link_binding(m, number);
    return number;
}

uint64_t exo_machine_binding_bytes(const struct exo_machine *m)
{
    return sizeof m->list + (uint64_t)m->binding_capacity * (sizeof *m->binding + sizeof *m->free_binding);
}

int32_t exo_machine_unbind(struct exo_machine *m, uint32_t number)
{
    if (number >= m->bindings || m->binding[number].flags & EXO_BIND_DEAD)
        return EXO_E_NOT_FOUND;
    struct binding *b = &m->binding[number];
    exo_demux_remove(b->flags & EXO_BIND_SNOOP ? m->port[b->port].snoops : m->port[b->port].demux, number);
    exo_fragment_forget(m, number);
    unlink_binding(m, number);
    exo_latency_end(m, b);
    b->flags = EXO_BIND_DEAD;
    b->env = EXO_NO_ENV;
    m->free_binding[m->free_bindings++] = number;
    return 0;
}

static int is_all(const uint8_t mac[6])
{
    static const uint8_t zero[6];
    return memcmp(mac, zero, 6) == 0;
}

static struct group *find_group(struct exo_machine *m, uint32_t port, const uint8_t mac[6])
{
    for (uint32_t i = 0; i < m->groups; i++)
        if (m->group[i].port == port && memcmp(m->group[i].mac, mac, 6) == 0)
            return &m->group[i];
    return NULL;
}

/* A group without members gives its row back. */
static void drop_if_empty(struct exo_machine *m, struct group *g)
{
    for (uint32_t i = 0; i < EXO_MAX_ENVS / 64; i++)
        if (g->members[i])
            return;
    *g = m->group[--m->groups];
}

int32_t exo_machine_subscribe(struct exo_machine *m, uint32_t env, uint32_t port, const uint8_t mac[6])
{
    if (port >= m->ports || !live_env(m, env) || !(is_all(mac) || mac[0] & 1))
        return EXO_E_INVALID;
    struct group *g = find_group(m, port, mac);
    if (!g) {
        if (m->groups == EXO_MAX_GROUPS)
            return EXO_E_FULL;
        g = &m->group[m->groups++];
        *g = (struct group){.port = (uint16_t)port, .all = (uint32_t)is_all(mac)};
        memcpy(g->mac, mac, 6);
    }
    uint64_t bit = (uint64_t)1 << (env % 64), *members = &g->members[slot_of_env(env) / 64];
    if (*members & bit)
        return 0;
    if (!g->all) {
        int32_t rc = exo_nic_filter_add(m->port[port].nic, mac);
        if (rc < 0) {
            drop_if_empty(m, g);
            return rc;
        }
    }
    *members |= bit;
    return 0;
}

int32_t exo_machine_unsubscribe(struct exo_machine *m, uint32_t env, uint32_t port, const uint8_t mac[6])
{
    struct group *g = port < m->ports && live_env(m, env) ? find_group(m, port, mac) : NULL;
    uint64_t bit = (uint64_t)1 << (env % 64), *members = g ? &g->members[slot_of_env(env) / 64] : NULL;
    if (!g || !(*members & bit))
        return EXO_E_NOT_FOUND;
    *members &= ~bit;
    if (!g->all)
        exo_nic_filter_remove(m->port[port].nic, mac);
    drop_if_empty(m, g);
    return 0;
}

int32_t exo_machine_locals(struct exo_machine *m, uint32_t env, const struct exo_local *locals, uint32_t n)
{
    struct exo_env *to = live_env(m, env);
    if (!to)
        return EXO_E_INVALID;
    int32_t rc = exo_env_locals(to, locals, n, m->config.seed * 2 + 3);
    m->local_changes += !rc;
    return rc;
}

uint64_t exo_machine_local_changes(const struct exo_machine *m) { return m->local_changes; }

struct exo_demux *exo_machine_next_locals(struct exo_machine *m, uint32_t *place)
{
    while (*place < (m->envs + 1) * EXO_MAX_PORTS) {
        uint32_t here = (*place)++;
        const struct exo_env *env = m->env[here / EXO_MAX_PORTS];
        if (env && env->side[here % EXO_MAX_PORTS])
            return env->side[here % EXO_MAX_PORTS];
    }
    return NULL;
}

void exo_machine_fate(struct exo_machine *m, const struct exo_frame *frame, int32_t reason, struct exo_env *env)
{
    if (env)
        env->drop[reason]++;
    exo_ledger_fate(&m->ledger, frame, reason, env ? env->number : EXO_NO_ENV, exo_now(m));
}

void exo_machine_in_flight(struct exo_machine *m, uint64_t *out)
{
    uint64_t (*of)[EXO_STAGES] = (uint64_t (*)[EXO_STAGES])out;
    memset(out, 0, EXO_ORIGINS * sizeof *of);
    for (uint32_t i = 0; i < m->ports; i++) {
        struct port *p = &m->port[i];
        if (p->wire->held)
            of[EXO_O_WIRE][EXO_S_SOURCE] += p->wire->held(p->wire);
        of[EXO_O_WIRE][EXO_S_SOURCE] += p->pending_n - p->pending_at;
        uint64_t nic[EXO_ORIGINS] = {0};
        exo_nic_in_flight_of(p->nic, nic);
        for (uint32_t origin = 0; origin < EXO_ORIGINS; origin++)
            of[origin][EXO_S_NIC] += nic[origin];
    }
    for (uint32_t i = 0; i < HELD_FRAGMENTS; i++)
        if (m->fragments->held[i].frame.data)
            of[exo_frame_origin(&m->fragments->held[i].frame)][EXO_S_DEMUX]++;
    for (uint32_t number = 1; number <= m->envs; number++) {
        const struct exo_env *env = m->env[number];
        if (!env || env->state == EXO_ENV_DEAD)
            continue;
        for (uint32_t i = env->receive_seen; i != env->receive_put; i++) {
            const struct exo_placed *placed = &env->placed[i & (env->layout.receive_entries - 1)];
            of[placed->local ? EXO_O_LIBOS : EXO_O_WIRE][EXO_S_RING] += placed->first;
        }
    }
}

int32_t exo_machine_error(const struct exo_machine *m, int32_t *saved_errno)
{
    if (saved_errno)
        *saved_errno = m->error_errno;
    return m->error_port;
}
