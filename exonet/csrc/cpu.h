/* SPDX-License-Identifier: MIT
 *
 * Virtual time: the cost model and the linear vector of slices (R16 to R18). One CPU, integer ns.
 */
struct exo_costs {
    uint64_t interrupt;      /* taking one NIC interrupt */
    uint64_t poll;           /* a look at the NIC, for each frame that it takes */
    uint64_t classify;       /* demux, per frame */
    uint64_t place;          /* receive copy, per frame */
    uint64_t place_byte_ps;  /* receive copy, per byte, picoseconds */
    uint64_t transmit;       /* transmit check and copy, per frame */
    uint64_t transmit_byte_ps;
    uint64_t upcall;         /* entering a LibOS for its slice */
    uint64_t consume;        /* LibOS, per frame consumed; exo_env.consume where its kind has a cost of its own */
    uint64_t consume_byte_ps;
};

enum exo_interrupt_mode { EXO_POLL_BUDGET, EXO_INTERRUPT_EACH };

struct exo_slice {
    uint32_t env;            /* 0: an idle slice */
    uint32_t ns;
};

int32_t exo_cpu_costs(struct exo_machine *machine, const struct exo_costs *costs, uint32_t interrupt_mode, uint32_t budget);
/* The slice vector, cycled; replaces the old one. n 0: whoever is ready runs, in order of number. */
int32_t exo_cpu_slices(struct exo_machine *machine, const struct exo_slice *slices, uint32_t n);
/* The machine's CPU works ns: time passes, and frames that arrive meanwhile are put into the NIC first (R16). */
void exo_cpu_charge(struct exo_machine *machine, uint64_t ns);
