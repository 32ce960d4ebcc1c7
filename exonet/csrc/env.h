/* SPDX-License-Identifier: MIT
 *
 * Physical pages and environments: the memory a LibOS shares with the kernel, and the kernel's private shadow of it.
 * Owner of each field: the kernel thread. What the LibOS can write is reached through `libos` only, read once, validated.
 */
struct exo_page {
    uint8_t *address;        /* where the kernel has its backing mapped; NULL: free */
    uint32_t env;            /* owner */
    uint32_t pins;
};

struct exo_pages {
    struct exo_page *page;   /* by page number */
    uint32_t count;
    uint8_t *guaranteed;     /* by page number; 1: no force takes it while its owner lives (R15) */
    struct exo_page_owner *owner;  /* the table every LibOS may read, kept in step */
    int32_t owner_fd;
};

/* What left of a slot of the receive ring the kernel remembers, for the ledger. */
struct exo_placed {
    uint64_t id;
    uint64_t stamp;
    uint64_t ts;
    uint32_t binding;
    uint16_t bytes;
    uint8_t port;
    uint8_t first : 1;       /* first entry of its chain, so a frame */
    uint8_t local : 1;       /* switched from another environment of the port */
    uint8_t converted : 1;
};

enum exo_env_state { EXO_ENV_FREE, EXO_ENV_LIVE, EXO_ENV_SHUT, EXO_ENV_DEAD };

/* What an environment may send on a port: its local side (R11). All zero: nothing. */
struct exo_local {
    uint8_t mac[6];          /* zeroes: every station, the rest of the frame saying the same as its source */
    uint8_t any;             /* 1: every local side, an explicit grant of the whole space */
    uint8_t family;          /* 4 or 6; 0: any frame from mac (other ethertypes as given) */
    uint8_t address[16];     /* IPv4 in the first four bytes */
    uint8_t prefix;          /* bits of address that must match */
    uint8_t protocol;        /* 0: all */
    uint16_t port_low;       /* source port or ICMP identifier, host order; 0..65535: all */
    uint16_t port_high;
    uint16_t ethertype;      /* with family 0: this ethertype only; 0: all */
    uint32_t port;           /* the NIC port it holds on */
};

enum exo_local_limits { EXO_MAX_LOCALS = 64 };

struct exo_env {
    uint32_t number;         /* from 1, of one life only: never used again */
    uint32_t state;          /* enum exo_env_state */
    struct exo_layout layout;
    struct exo_kernel_area *kernel;   /* writable here, read-only to the LibOS */
    struct exo_libos_area *libos;     /* hostile */
    int32_t kernel_fd;
    int32_t libos_fd;
    int32_t wake_fd;         /* our end of the wake socket; -1: inline */
    /* shadows: the truth about the kernel's own indices */
    uint32_t fill_taken;
    uint32_t fill_known;     /* fill_put as last validated */
    uint32_t receive_put;
    uint32_t receive_seen;   /* receive_taken as last validated */
    uint32_t transmit_taken;
    uint32_t completion_put;
    uint32_t completion_seen;
    struct exo_placed *placed;        /* receive_entries of them */
    struct exo_demux *side[8];        /* by port, what it may send as boxes (localside.c); NULL: nothing */
    uint32_t locals;
    uint16_t vlan;           /* the 802.1Q VLAN that the operator put it on, before it registers anything; 0: none */
    uint32_t inline_ready;   /* an inline environment with something to do */
    /* counters */
    uint64_t placed_frames;
    uint64_t placed_bytes;
    uint64_t consumed_frames;
    uint64_t consumed_bytes;
    uint64_t submitted;
    uint64_t sent;
    uint64_t wakeups;
    /* backpressure: see patience.c */
    uint64_t pace_since;     /* when the pace began to be measured, ns; and how far it was then */
    uint32_t pace_seen;
    uint32_t late;           /* 1: frames do not wait for it */
    uint64_t held_ns;        /* how long frames have waited for it since then */
    uint64_t held_last;      /* when it was last found without room, and for which frame */
    uint64_t held_id;
    uint64_t held_stalled;   /* the machine's stalled_ns then: no wire went on in that time, so nothing could be lost */
    uint32_t stuck;          /* 1: what it has posted to transmit cannot leave until it moves one of these two on */
    uint32_t stuck_put;
    uint32_t stuck_taken;
    uint64_t lies;           /* impossible words read from the LibOS area */
    uint64_t drop[96];       /* by enum exo_reason */
    struct exo_delays *delays;   /* of frames whose binding has none of its own; NULL: none yet */
    /* virtual time: see cpu.h */
    uint32_t own_costs;      /* 1: what it consumes costs these instead of struct exo_costs' */
    uint64_t consume;
    uint64_t consume_byte_ps;
    int64_t debt_ns;
    uint64_t cpu_ns;         /* charged; on the monotonic clock the time that an inline one's steps took */
    uint64_t excess;
    uint64_t died;           /* how many had died before it, itself included; 0: it lives */
};

/* Pages. first: a page number, or EXO_ANY_PAGE for any run of count pages. Each call makes one segment: a sealed memfd of its own,
 * returned in *fd (the caller closes its copy after handing it on), mapped here. Returns the first page number or an error. */
enum exo_page_any { EXO_ANY_PAGE = 4294967295 };
struct exo_pages *exo_pages_new(uint32_t count);
void exo_pages_free(struct exo_pages *pages);
/* The lowest run of count free pages among first..first + length - 1; EXO_E_FULL. */
int64_t exo_pages_find(const struct exo_pages *pages, uint32_t first, uint32_t length, uint32_t count);
int64_t exo_pages_allocate(struct exo_pages *pages, uint32_t env, uint32_t first, uint32_t count, int32_t *fd);
/* The same in a segment of env's own that it has freed and that nobody else was given: memfd fd, of count pages or more, emptied first. */
int64_t exo_pages_adopt(struct exo_pages *pages, uint32_t env, uint32_t first, uint32_t count, int32_t fd);
/* EXO_E_BUSY while pinned; EXO_E_NOT_FOUND where env is not the owner of every page. Backing is poisoned and dropped. */
int32_t exo_pages_release(struct exo_pages *pages, uint32_t env, uint32_t first, uint32_t count);
/* By force, pins or not: these pages, all of which are env's. EXO_E_DENIED where one is guaranteed. What env has posted from a pinned
 * page is the caller's to drain first (exo_transmit_drain). */
int32_t exo_pages_seize(struct exo_pages *pages, uint32_t env, uint32_t first, uint32_t count);
/* env is dead: every page of it, pins and guarantees broken. Returns how many pages went. */
int32_t exo_pages_reclaim(struct exo_pages *pages, uint32_t env);
int32_t exo_pages_pin(struct exo_pages *pages, uint32_t env, uint32_t first, uint32_t count);
int32_t exo_pages_unpin(struct exo_pages *pages, uint32_t env, uint32_t first, uint32_t count);
/* How many of these pages of env's are guaranteed; EXO_E_NOT_FOUND where not all are its own. */
int32_t exo_pages_guaranteed(const struct exo_pages *pages, uint32_t env, uint32_t first, uint32_t count);
/* From now on, or no longer, are these pages of env's guaranteed. Returns how many that changed. */
int32_t exo_pages_guarantee(struct exo_pages *pages, uint32_t env, uint32_t first, uint32_t count, uint32_t guaranteed);
uint32_t exo_pages_free_count(const struct exo_pages *pages);

/* An environment's two areas, made and sealed. entries: powers of two, 8..32768, in layout's four *_entries; the rest of
 * layout is computed. EXO_E_INVALID, EXO_E_MEMORY, EXO_E_SYSTEM. */
int32_t exo_env_open(struct exo_env *env, uint32_t number, const struct exo_layout *layout, uint64_t seed);
/* Unmaps both areas and closes their descriptors, not wake_fd. The LibOS's own mapping is its affair. Twice is harmless. */
void exo_env_close(struct exo_env *env);
/* Replaces what it may send; seed: of the demuxes' hashes. EXO_E_INVALID: too many, or an impossible one; EXO_E_FULL, EXO_E_MEMORY. Nothing
 * is changed by a refusal. */
int32_t exo_env_locals(struct exo_env *env, const struct exo_local *locals, uint32_t n, uint64_t seed);
