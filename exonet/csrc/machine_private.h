/* SPDX-License-Identifier: MIT
 *
 * The machine's own structs: shared by machine.c, deliver.c, fragment.c, transmit.c, loop.c, simulate.c and cpu.c only.
 */
#ifndef EXO_MACHINE_PRIVATE_H
#define EXO_MACHINE_PRIVATE_H

#include "exo_kernel.h"
#include "segment.h"

enum { EXO_MOST_PIECES = 18 };   /* of a frame that a LibOS sends */
enum { NEIGHBOURS = 1024, HELD_FRAGMENTS = 64, FRAGMENT_FLOWS = 1024, FRAGMENT_WAYS = 4, FRAGMENT_SOURCES = 256, WATCHES = 512 };

/* The owners of frames that were held back in the NIC for a slow LibOS, from the next one on. */
struct held_back {
    uint32_t n;
    uint32_t looked;                       /* the ICMP errors among so many have the owners of what they quote */
    uint64_t first;                        /* the next one's id */
    uint64_t changes;                      /* of the demux, when they were classified */
    uint32_t owners[EXO_BURST];
};

struct port {
    struct exo_wire *wire;
    struct exo_nic *nic;
    struct exo_demux *demux;
    struct exo_demux *snoops;
    struct exo_nic_config config;
    struct exo_frame pending[EXO_BURST];   /* taken from the wire, not yet accepted by the NIC (backpressure) */
    struct held_back held[EXO_NIC_MAX_QUEUES];
    uint32_t pending_at;
    uint32_t pending_n;
    uint32_t ended;
    uint32_t masked;                       /* simulate: the interrupt was taken and polling goes on */
};

struct binding {
    uint32_t env;
    uint16_t port;
    uint16_t flags;
    uint32_t next;                         /* of its list; EXO_NO_OWNER: the last */
    uint32_t previous;
    struct exo_delays *delays;             /* NULL: none yet, or too many bindings have some */
};

/* An environment's bindings on a port, the oldest first: what is asked of them never depends on how many others there are. */
struct binding_list {
    uint32_t first;
    uint32_t last;
};

struct group {
    uint8_t mac[6];
    uint16_t port;
    uint32_t all;                          /* 1: every group of the port */
    uint64_t members[EXO_MAX_ENVS / 64];   /* by slot */
};

struct neighbour {
    uint32_t env;
    uint16_t port;
    uint16_t vlan;                         /* its owner's */
    uint16_t family;
    uint8_t address[16];
};

/* What the fragments of a datagram have in common: the same numbers in another VLAN or PPPoE session are another datagram's. No padding. */
struct datagram {
    uint8_t addresses[32];
    uint8_t stations[12];                  /* with a session, which is its two stations' (RFC 2516 4) */
    uint8_t identification[4];
    uint8_t session[2];
    uint16_t port;
    uint32_t vlans;
    uint8_t protocol;
    uint8_t family;
    uint8_t zero[2];
};

/* Who got the first fragment of a datagram; and fragments that came before theirs. */
struct fragment_flow {
    struct datagram key;
    uint32_t binding;
    uint32_t env;                          /* its slot */
    uint64_t expires;                      /* 0: free */
};

struct held_fragment {
    struct exo_frame frame;                /* data: malloc'ed; NULL: free slot */
    struct datagram key;
    uint32_t source;                       /* which of the sources' counts it is in */
    uint64_t expires;
};

struct fragments {
    struct fragment_flow flow[FRAGMENT_FLOWS / FRAGMENT_WAYS][FRAGMENT_WAYS];
    uint32_t flows[EXO_MAX_ENVS];          /* of each environment, by slot */
    struct held_fragment held[HELD_FRAGMENTS];
    uint32_t held_count;
    uint32_t held_of[FRAGMENT_SOURCES];    /* of each source, as far as its hash tells */
};

struct simulation {
    struct exo_costs costs;
    uint32_t interrupt_mode;
    uint32_t budget;
    uint32_t budget_left;
    struct exo_slice slices[1024];
    uint32_t slice_count;
    uint32_t position;                     /* the slice that virtual_now lies in */
    uint64_t slice_end;
    uint64_t eligible;                     /* its environment runs from here on: debts are paid before */
    uint32_t entered;                      /* the environment whose upcall was charged in this slice */
    uint32_t stepping;                     /* the environment whose step Python is asked for */
    uint64_t step_slice_end;               /* end of the slice in which that step began */
    uint32_t last_ready;                   /* round robin without slices: a slot */
};

struct exo_machine {
    struct exo_machine_config config;
    struct exo_ledger ledger;
    struct exo_pages *pages;
    struct port port[EXO_MAX_PORTS];
    uint32_t ports;
    struct exo_env *env[EXO_MAX_ENVS];     /* by slot; [0] unused */
    uint32_t envs;                         /* highest slot in use */
    uint64_t local_changes;                /* how often an environment was given other local sides */
    uint64_t deaths;
    struct binding *binding;
    uint32_t bindings;
    uint32_t binding_capacity;
    uint32_t *free_binding;                /* stack of numbers to use again */
    uint32_t free_bindings;
    struct binding_list list[EXO_MAX_ENVS][EXO_MAX_PORTS][2];   /* by slot; [1]: those that snoop */
    struct group group[EXO_MAX_GROUPS];
    uint32_t groups;
    struct neighbour neighbour[NEIGHBOURS];
    uint32_t neighbours;
    struct fragments *fragments;
    struct simulation sim;
    uint64_t virtual_now;
    uint64_t wake_at[EXO_MAX_ENVS];        /* by slot */
    int32_t watch[WATCHES];
    uint32_t watches;
    int32_t error_port;
    int32_t error_errno;
    uint32_t turned_round;                 /* frames were switched locally since the last pass began */
    uint64_t sleeps;
    uint64_t last_work;
    uint64_t last_wire;                    /* when a frame of a wire was last pulled, a wire ended, or its frames were last consumed */
    uint64_t last_end;                     /* when a wire last ended */
    uint64_t stalled_ns;                   /* how long frames have waited for LibOSes (patience.c) */
    uint64_t end_since;                    /* since then: how many frames of wires were consumed, and counted from when (patience.c) */
    uint32_t end_moved;
    uint64_t chatter_since;                /* LibOSes have kept themselves busy from then .. */
    uint64_t chatter_last;                 /* .. until then */
    uint32_t passes;
    uint32_t turn;                         /* the place of the environment that exo_machine_ready named last */
    uint32_t untimed;                      /* a wire's frames have no time of arrival: nobody's delays are recorded */
    uint32_t timed_bindings;               /* how many have delays of their own */
    uint64_t step_began;                   /* monotonic: of the inline environment that steps */
    uint32_t timer_came;                   /* for the environment that exo_machine_ready named last */
    uint8_t super[EXO_MOST_PIECES * EXO_PAGE_SIZE];   /* the super-frame that is being cut */
};

static inline uint64_t earlier(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* A slot of the tables is used again, a number never: its next life there is EXO_MAX_ENVS further. So whatever still names a dead
 * environment (a frame on its way, a fate, a token) names nobody else. */
static inline uint32_t slot_of_env(uint32_t number) { return number % EXO_MAX_ENVS; }

/* Dead or alive, while its slot is not used again; NULL: no such. */
static inline struct exo_env *known_env(const struct exo_machine *m, uint32_t number)
{
    struct exo_env *env = m->env[slot_of_env(number)];
    return env && env->number == number ? env : NULL;
}

static inline struct exo_env *live_env(const struct exo_machine *m, uint32_t number)
{
    struct exo_env *env = known_env(m, number);
    return env && env->state != EXO_ENV_DEAD ? env : NULL;
}

/* A frame that a LibOS has consumed or left, as far as it is remembered. */
static inline struct exo_frame placed_frame(const struct exo_placed *placed)
{
    return (struct exo_frame){
        .id = placed->id, .stamp = placed->stamp, .ts = placed->ts, .len = placed->bytes, .port = placed->port,
        .flags = (placed->local ? (uint32_t)EXO_F_LOCAL : 0) | (placed->converted ? (uint32_t)EXO_F_CONVERTED : 0),
    };
}

/* A fate that is not the fast path's: counted for the environment too. */
void exo_machine_fate(struct exo_machine *m, const struct exo_frame *frame, int32_t reason, struct exo_env *env);
/* deliver.c */
uint32_t exo_deliver_some(struct exo_machine *m, uint32_t port, uint32_t queue, uint32_t max);
void exo_deliver_publish(struct exo_env *env);
void exo_deliver_to(struct exo_machine *m, uint32_t binding, const struct exo_frame *frame, uint32_t flags);
/* patience.c. Worth waiting: 1 where a frame is to wait for env, which has no room on this port. End moved: wires have ended, and env has
 * consumed frames of theirs: at a good pace the run goes on. */
int32_t exo_worth_waiting(struct exo_machine *m, uint32_t port, struct exo_env *env, const struct exo_frame *frame);
void exo_end_moved(struct exo_machine *m, const struct exo_env *env, uint32_t frames, uint64_t now);
/* latency.c: n frames of one binding have been consumed that long after they came; its delays become its environment's. */
void exo_latency_record(struct exo_machine *m, struct exo_env *env, uint32_t binding, uint64_t ns, uint32_t n);
void exo_latency_end(struct exo_machine *m, struct binding *binding);
/* fragment.c: the owner a fragment follows, remembering first fragments; EXO_NO_OWNER: none. Held: 1 where it was kept. */
uint32_t exo_fragment_follow(struct exo_machine *m, const struct exo_frame *frame, uint32_t owner, uint32_t *held);
void exo_fragment_expire(struct exo_machine *m, uint64_t now);
void exo_fragment_forget(struct exo_machine *m, uint32_t binding);
/* copies.c: the binding under which each environment gets a copy of a frame: one copy each, however many of its bindings take it. */
struct copies {
    const struct exo_machine *machine;
    const struct exo_frame *frame;
    int (*wanted)(const struct exo_machine *m, const struct exo_frame *frame, uint32_t slot);   /* NULL: by all */
    uint64_t known[EXO_MAX_ENVS / 64];     /* by slot: whether it is wanted there has been asked */
    uint64_t open[EXO_MAX_ENVS / 64];      /* by slot: the most specific binding is being looked for */
    struct exo_taker by_slot[EXO_MAX_ENVS];   /* of those that are known */
};

void exo_copies_begin(struct copies *copies, const struct exo_machine *m, const struct exo_frame *frame,
                      int (*wanted)(const struct exo_machine *m, const struct exo_frame *frame, uint32_t slot));
void exo_copies_settle(struct copies *copies, uint32_t slot, uint32_t binding);   /* the copy there goes to this binding */
struct exo_taker *exo_copies_keep(void *copies, uint32_t binding);                /* an exo_keep */
uint32_t exo_copies_deliver(const struct copies *copies, struct exo_machine *m, uint32_t flags);
/* group.c: copies of a group frame. */
void exo_deliver_group(struct exo_machine *m, const struct exo_frame *frame);
/* quoted.c: the owner of each ICMP error among n <= EXO_BURST frames becomes that of what it quotes, where it has one. */
void exo_quoted_owners(const struct exo_demux *demux, const struct exo_frame *frames, uint32_t n, uint32_t *owners);
/* neighbour.c. Asked: 1 where the frame asks for an address; *owner: who answers for it, or (pings) for the address of a ping; NULL: nobody,
 * or its sender. Any binding: the first of an environment on a port, under which it is asked; EXO_NO_OWNER: it has none. Asked owner (R2,
 * R3): who answers for the address that a unicast frame asks for, by one of its bindings; else `owner`, whom the filters named. */
int32_t exo_asked(struct exo_machine *m, const struct exo_frame *frame, const struct exo_l3 *l3, int32_t pings, struct exo_env **owner);
uint32_t exo_any_binding(const struct exo_machine *m, const struct exo_env *env, uint32_t port);
uint32_t exo_asked_owner(struct exo_machine *m, const struct exo_frame *frame, uint32_t owner);
/* transmit.c */
uint32_t exo_transmit_some(struct exo_machine *m, struct exo_env *env, uint32_t max);
int32_t exo_transmit_waiting(struct exo_env *env);
int32_t exo_transmit_posted(struct exo_env *env);
uint32_t exo_transmit_next_bytes(struct exo_env *env);
/* loop.c */
uint32_t exo_port_pull(struct exo_machine *m, uint32_t port, uint64_t now);
int32_t exo_machine_quiet(struct exo_machine *m);
int32_t exo_machine_spent(const struct exo_machine *m, uint64_t now);
int32_t exo_control_waiting(struct exo_machine *m);
void exo_machine_chatter(struct exo_machine *m, uint64_t now);
/* cpu.c: time reaches target, arrivals first; the slice that now lies in */
void exo_cpu_advance(struct exo_machine *m, uint64_t target);
void exo_cpu_locate(struct exo_machine *m);
int32_t exo_env_has_work(struct exo_machine *m, struct exo_env *env);

#endif
