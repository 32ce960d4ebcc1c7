/* SPDX-License-Identifier: MIT
 *
 * What ring.c, buffers.c and sink.c share: the rings' private state, and how one received frame is read and its buffers given back.
 * Indices kept here are the truth about our own words; *_known are the kernel's as last loaded. A receive buffer's place is a pure
 * function of its page and its position in it, so a descriptor that comes back names its buffer without any table.
 */
#ifndef STK_RING_PRIVATE_H
#define STK_RING_PRIVATE_H

#include <sched.h>

#include "stk.h"

#define STK_LIKELY(x) __builtin_expect(!!(x), 1)
#define STK_UNLIKELY(x) __builtin_expect(!!(x), 0)

enum { STK_LOOKS_A_YIELD = 64, STK_SCRATCH = 65536, STK_STAGGER_LINES = 8, STK_NO_BUFFER = 0xffffffff };

struct extent {
    uint32_t first;
    uint32_t count;
    uint8_t *base;
};

struct transmit_buffer {
    uint8_t *address;
    uint32_t page;
    uint16_t offset;
    uint16_t busy;           /* 1: the kernel has it */
};

/* One per port: the context of a struct stk_output. */
struct output {
    struct stk_rings *rings;
    uint8_t *scratch;        /* where a frame of several buffers is built; made when first needed */
    uint32_t port;
    uint32_t held;           /* the buffer that reserve() gave out, or STK_NO_BUFFER */
    uint32_t reserved;       /* bytes reserve() promised; 0: nothing */
    uint32_t in_scratch;     /* 1: they are in scratch */
};

struct stk_rings {
    const struct exo_kernel_area *kernel;
    struct exo_libos_area *libos;
    const struct exo_receive *receive;
    const struct exo_completion *completion;
    struct exo_fill *fill;
    struct exo_transmit *transmit;
    uint16_t *verdict;       /* what became of the frame of each receive entry: the kernel reads it when the entry is taken */
    uint32_t fill_entries, receive_entries, transmit_entries, completion_entries;

    uint32_t receive_taken;
    uint32_t fill_put, fill_known;
    uint32_t receive_size;   /* of a receive buffer; 0: none made yet */
    uint32_t most;           /* buffers to keep posted */
    uint32_t posted;
    uint32_t spares;
    struct exo_fill *spare;  /* a stack: the buffer used last is posted first, while it is in the cache */

    uint32_t transmit_put, transmit_known, transmit_flushed;
    uint32_t completion_taken;
    uint32_t transmit_size;
    uint32_t in_flight;
    uint32_t buffers, idle;
    struct transmit_buffer *buffer;
    uint32_t *idle_buffer;   /* a stack too */

    uint32_t extents;
    struct extent extent[STK_RING_EXTENTS];
    struct output output[STK_RING_PORTS];

    uint64_t now;            /* of the last pump */
    uint64_t deadline;       /* the stack's; 0: not known */
    uint64_t refused;
    uint64_t unreadable;
    struct exo_stack_counters own;  /* what we count ourselves; the stack's counters come on top */
    uint8_t gather[STK_SCRATCH];    /* a received chain, contiguous */
};

static inline uint32_t load_acquire(const struct exo_index *index)
{
    return __atomic_load_n(&index->value, __ATOMIC_ACQUIRE);
}

static inline void store_release(struct exo_index *index, uint32_t value)
{
    __atomic_store_n(&index->value, value, __ATOMIC_RELEASE);
}

static inline uint8_t *address_of(const struct stk_rings *rings, uint32_t page)
{
    for (uint32_t i = 0; i < rings->extents; i++) {
        const struct extent *e = &rings->extent[i];
        if (page - e->first < e->count)
            return e->base + (size_t)(page - e->first) * EXO_PAGE_SIZE;
    }
    return NULL;
}

/* Buffers of neighbouring pages begin on different cache lines: 2 KiB strides alone would share a few sets of the cache. */
static inline uint32_t stagger(uint32_t page, uint32_t size)
{
    uint32_t lines = size >= 2048 ? STK_STAGGER_LINES : size / 256;
    return page % lines * EXO_CACHE_LINE;
}

static inline struct exo_fill buffer_at(uint32_t page, uint32_t offset, uint32_t size)
{
    uint32_t skip = stagger(page, size);
    return (struct exo_fill){page, (uint16_t)((offset & ~(size - 1)) + skip), (uint16_t)(size - skip)};
}

/* Between two looks at empty rings. On a machine with fewer cores than spinners the CPU goes to whoever has work. */
static inline void stk_idle(uint32_t looks)
{
    if (looks % STK_LOOKS_A_YIELD == STK_LOOKS_A_YIELD - 1)
        sched_yield();
    else
        __builtin_ia32_pause();
}

/* One frame, as the stack or the sink wants it. bytes NULL: not readable. */
struct frame {
    const uint8_t *bytes;
    uint32_t length, wire_len;
    uint32_t flags, csum;
    uint32_t port;
};

/* The frame that begins at ring index `at`, of `ready` entries there: how many entries it has, or 0 where its end is not there yet. */
uint32_t stk_gather(struct stk_rings *rings, uint32_t at, uint32_t ready, struct frame *out);

static inline uint32_t frame_at(struct stk_rings *rings, uint32_t at, uint32_t ready, struct frame *out)
{
    const struct exo_receive *d = &rings->receive[at & (rings->receive_entries - 1)];
    if (STK_UNLIKELY(d->flags & EXO_F_MORE))
        return stk_gather(rings, at, ready, out);
    uint8_t *page = address_of(rings, d->page);
    int readable = page != NULL && (uint32_t)d->offset + d->length <= EXO_PAGE_SIZE;
    *out = (struct frame){readable ? page + d->offset : NULL, d->length, d->wire_len, d->flags, d->csum, d->port};
    return 1;
}

/* The bytes that were on the wire: neither the padding of a short frame nor what a snaplen cut off. */
static inline uint32_t real_length(const struct frame *frame)
{
    return frame->length < frame->wire_len ? frame->length : frame->wire_len;
}

static inline void tell(struct stk_rings *rings, uint32_t at, int32_t verdict)
{
    rings->verdict[at & (rings->receive_entries - 1)] = (uint16_t)verdict;
}

/* The buffers of `entries` descriptors from ring index `at` are ours again. */
static inline void give_back(struct stk_rings *rings, uint32_t at, uint32_t entries)
{
    for (uint32_t i = 0; i < entries; i++) {
        const struct exo_receive *d = &rings->receive[(at + i) & (rings->receive_entries - 1)];
        if (STK_UNLIKELY(rings->posted == 0 || d->offset >= EXO_PAGE_SIZE || address_of(rings, d->page) == NULL))
            continue;
        rings->posted--;
        rings->spare[rings->spares++] = buffer_at(d->page, d->offset, rings->receive_size);
    }
}

/* Posts spare buffers and publishes the fill index. */
void stk_post(struct stk_rings *rings);
/* Takes back the buffers of transmit entries that are done. */
void stk_reap(struct stk_rings *rings);

#endif
