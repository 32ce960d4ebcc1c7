/* SPDX-License-Identifier: MIT
 *
 * The machine: everything hangs from it. Ports (a NIC and its wire), pages, environments, bindings, the demux, the ledger,
 * the clock. machine.c builds and walks it; loop.c runs it; deliver.c and transmit.c are the two ways of a frame.
 */
enum exo_clock { EXO_CLOCK_MONOTONIC, EXO_CLOCK_VIRTUAL };
enum exo_machine_limits { EXO_MAX_PORTS = 8, EXO_MAX_ENVS = 256, EXO_BURST = 64, EXO_MAX_GROUPS = 1024 };

struct exo_machine_config {
    uint32_t clock;          /* enum exo_clock */
    uint32_t pages;          /* physical pages */
    uint64_t seed;
    uint64_t spin_ns;        /* monotonic: poll this long without work before sleeping; UINT64_MAX: never sleep */
};

enum exo_binding_flag { EXO_BIND_SNOOP = 1, EXO_BIND_DEAD = 2 };

struct exo_machine;

struct exo_machine *exo_machine_new(const struct exo_machine_config *config);
void exo_machine_free(struct exo_machine *machine);
struct exo_ledger *exo_machine_ledger(struct exo_machine *machine);
struct exo_pages *exo_machine_pages(struct exo_machine *machine);
/* A port's demux; snoop 1: the one of its snoop bindings. NULL: no such port. */
struct exo_demux *exo_machine_demux(struct exo_machine *machine, uint32_t port, uint32_t snoop);
struct exo_nic *exo_machine_nic(struct exo_machine *machine, uint32_t port);
/* The clock of the machine, ns. The one reader of time in C. */
uint64_t exo_now(const struct exo_machine *machine);

/* Returns the port's number. The machine owns neither wire nor config; the NIC it makes is its own. */
int32_t exo_machine_attach(struct exo_machine *machine, struct exo_wire *wire, const struct exo_nic_config *config);

/* A new environment; its number, or EXO_E_FULL (255 are alive), EXO_E_INVALID. wake_fd: our end of its wake socket, or -1 inline. Where no
 * slot was never used, it takes the place of the one that has been dead longest, whose struct is freed: number - EXO_MAX_ENVS. */
int64_t exo_machine_env(struct exo_machine *machine, const struct exo_layout *layout, int32_t wake_fd);
/* Alive, or dead and its place not taken yet; NULL: no such. */
struct exo_env *exo_machine_env_at(struct exo_machine *machine, uint32_t number);
/* The environment is dead: undelivered frames become ring.env_dead, bindings stop, pages are reclaimed, areas are closed. */
int32_t exo_machine_env_kill(struct exo_machine *machine, uint32_t number);

/* A binding's number for exo_conjunct.binding, from 0. EXO_E_FULL. */
int64_t exo_machine_binding(struct exo_machine *machine, uint32_t env, uint32_t port, uint32_t flags);
/* Memory held for bindings beside the demuxes', in bytes. */
uint64_t exo_machine_binding_bytes(const struct exo_machine *machine);
int32_t exo_machine_unbind(struct exo_machine *machine, uint32_t binding);

/* Group subscription of an environment on a port; mac all zero: every group. Also joins the NIC's filter. */
int32_t exo_machine_subscribe(struct exo_machine *machine, uint32_t env, uint32_t port, const uint8_t mac[6]);
int32_t exo_machine_unsubscribe(struct exo_machine *machine, uint32_t env, uint32_t port, const uint8_t mac[6]);
/* Who answers for an address (ARP requests, neighbour solicitations, pings) on a port, in its own VLAN. family 4 or 6. EXO_E_CONFLICT:
 * another does. */
int32_t exo_machine_neighbour(struct exo_machine *machine, uint32_t env, uint32_t port, uint32_t family, const uint8_t *address);
int32_t exo_machine_forget_neighbour(struct exo_machine *machine, uint32_t env, uint32_t port, uint32_t family, const uint8_t *address);
/* Replaces what an environment may send. */
int32_t exo_machine_locals(struct exo_machine *machine, uint32_t env, const struct exo_local *locals, uint32_t n);
/* Grows whenever that has happened: look for shapes without native code then. */
uint64_t exo_machine_local_changes(const struct exo_machine *machine);
/* The demux of the next local sides from *place on (0: the first), which is moved past them; NULL: there are no more. */
struct exo_demux *exo_machine_next_locals(struct exo_machine *machine, uint32_t *place);

/* Receive path, one burst of one queue: take, classify, place. Returns frames taken. */
uint32_t exo_deliver_burst(struct exo_machine *machine, uint32_t port, uint32_t queue);
/* Looks at what the LibOS has consumed, counts it (stages RING and STACK) and records fates. Returns frames seen consumed. */
uint32_t exo_deliver_settle(struct exo_machine *machine, struct exo_env *env);
/* Transmit path, at most EXO_BURST frames of one environment. Returns frames taken. */
uint32_t exo_transmit_burst(struct exo_machine *machine, struct exo_env *env);
/* Before pages are taken by force: what env has posted to transmit, up to the last descriptor that names one of them, leaves now. Not what
 * the LibOS leaves no room for: nobody waits for it. Receive needs no draining, for a copy never outlives its call. Returns frames taken. */
uint32_t exo_transmit_drain(struct exo_machine *machine, struct exo_env *env, uint32_t first, uint32_t count);
/* Does each of n <= EXO_BURST frames of one port carry one of the local sides there? reasons: 0, or
 * EXO_R_TRANSMIT_SPOOFED / _NOT_GRANTED. */
void exo_transmit_check(const struct exo_env *env, const struct exo_frame *frames, uint32_t n, int32_t *reasons);

/* Why exo_machine_run came back. */
enum exo_run_reason {
    EXO_RUN_DEADLINE = 1,    /* until has come */
    EXO_RUN_INLINE = 2,      /* inline environments are ready: exo_machine_ready tells which */
    EXO_RUN_CONTROL = 4,     /* a watched descriptor is readable */
    EXO_RUN_IDLE = 8,        /* every source has ended and nothing moves any more */
    EXO_RUN_STOP = 16,       /* a signal came */
    EXO_RUN_FATES = 32,      /* the fate buffer is three quarters full: drain it */
    EXO_RUN_ERROR = 64,      /* a wire failed: exo_machine_error tells which */
    EXO_RUN_TIMER = 128      /* with EXO_RUN_INLINE, from exo_machine_go: its timer has come, so ask it for the next deadline */
};

/* Monotonic clock: runs until ns or a reason comes; sleeps when idle. */
int32_t exo_machine_run(struct exo_machine *machine, uint64_t until);
/* Virtual clock: runs the discrete-event loop until ns or a reason; see cpu.h. */
int32_t exo_machine_simulate(struct exo_machine *machine, uint64_t until);
/* Both in one call, for whoever steps inline environments: settles the step that `stepped` made (0: none was), runs on the machine's clock,
 * and returns the reasons with the number of the environment that is to step next above them (reasons | number << 16). */
int64_t exo_machine_go(struct exo_machine *machine, uint64_t until, uint32_t stepped, int32_t again);
/* No wire is asked for frames any more: what is inside drains, and a run ends with EXO_RUN_IDLE. */
void exo_machine_halt(struct exo_machine *machine);
/* Descriptors whose readability ends a run with EXO_RUN_CONTROL (control sockets, the signal pipe). Replaces the set. */
int32_t exo_machine_watch(struct exo_machine *machine, const int32_t *fds, uint32_t n);
/* The next inline environment that has something to do, clearing its mark; 0: none. On the virtual clock: the one whose step is next. */
uint32_t exo_machine_ready(struct exo_machine *machine);
/* The inline environment has made one step: what it consumed is settled, and on the virtual clock charged. again: it has more to do at
 * once. On the monotonic clock it is asked for its deadline a little later (EXO_RUN_TIMER), off the way of its answer. */
void exo_machine_stepped(struct exo_machine *machine, uint32_t env, int32_t again);
/* Ask to run an inline environment at ns (its stack's timer). */
void exo_machine_wake_at(struct exo_machine *machine, uint32_t env, uint64_t ns);
/* How long frames took from the wire to being consumed: of a binding (NULL: nothing is known of it alone), and of all of an environment's. */
const struct exo_delays *exo_machine_binding_delays(const struct exo_machine *machine, uint32_t binding);
void exo_machine_env_delays(const struct exo_machine *machine, uint32_t env, struct exo_delays *out);
/* How often the kernel slept. */
uint64_t exo_machine_sleeps(const struct exo_machine *machine);
/* Frames in flight: walks wires, NICs and rings. out: EXO_ORIGINS times EXO_STAGES numbers. */
void exo_machine_in_flight(struct exo_machine *machine, uint64_t *out);
int32_t exo_machine_error(const struct exo_machine *machine, int32_t *saved_errno);
