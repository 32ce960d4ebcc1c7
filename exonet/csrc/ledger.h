/* SPDX-License-Identifier: MIT
 *
 * The ledger: where every frame is counted once at each stage and gets one fate. No term is computed from others.
 * frame in [stage], frame out [stage], copies made there, drops by reason; what is in flight is walked at the end.
 * Copies and fates are counted a second time by who offered the frame, so that what LibOSes send is no part of a wire's loss.
 */
enum exo_origin { EXO_O_WIRE, EXO_O_LIBOS, EXO_ORIGINS };

struct exo_fate {
    uint64_t id;             /* exo_frame.id */
    uint64_t stamp;          /* exo_frame.stamp */
    uint64_t arrived;        /* exo_frame.ts */
    uint64_t ended;          /* when the fate was known, ns of the machine's clock */
    uint32_t env;            /* 0: none */
    uint8_t reason;          /* enum exo_reason */
    uint8_t converted;       /* 1: made from a packet of another link type */
    uint16_t port;
};

/* The frames that came from one origin: how many copies were made of them anywhere, and their fates by enum exo_reason. */
struct exo_account {
    uint64_t copies;
    uint64_t drop[96];
};

struct exo_ledger {
    uint64_t in[9];
    uint64_t out[9];
    uint64_t copies[9];
    uint64_t drop[96];       /* by enum exo_reason; EXO_R_DELIVERED and EXO_R_SENT count here too */
    struct exo_account of[2];  /* by enum exo_origin: the same once more */
    uint64_t converted;      /* of the frames that wires offered: made from packets of another link type. No term of the balance. */
    struct exo_fate *fates;  /* NULL: not recorded */
    uint64_t fate_count;
    uint64_t fate_capacity;
    uint64_t fates_lost;     /* fates that found no room: the Parquet file says so */
    void (*observe)(void *observer, const struct exo_frame *frame, int32_t reason, uint32_t env);  /* NULL: nobody */
    void *observer;
};

/* "stage.reason" of a reason, "delivered", "sent"; NULL where there is none such. */
const char *exo_reason_name(int32_t reason);
const char *exo_stage_name(int32_t stage);
int32_t exo_reason_stage(int32_t reason);
/* What a reason means, in a few words for a person; NULL where there is none such. */
const char *exo_reason_text(int32_t reason);

/* Records fates from now on, up to capacity between two drains; 0 stops recording. EXO_E_MEMORY. */
int32_t exo_ledger_record(struct exo_ledger *ledger, uint64_t capacity);
/* One frame has met its end. now: ns of the machine's clock. */
void exo_ledger_fate(struct exo_ledger *ledger, const struct exo_frame *frame, int32_t reason, uint32_t env, uint64_t now);
/* n more copies of a frame come into being at a stage. */
void exo_ledger_copies(struct exo_ledger *ledger, int32_t stage, const struct exo_frame *frame, uint32_t n);
/* Counts n fates of frames from one origin without recording them. */
void exo_ledger_count(struct exo_ledger *ledger, int32_t origin, int32_t reason, uint64_t n);
/* Who offered the frame. */
int32_t exo_frame_origin(const struct exo_frame *frame);
