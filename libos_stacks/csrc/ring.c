/* SPDX-License-Identifier: MIT
 *
 * The LibOS's rings: made from the two areas, pumped into the stack, flushed, and left alone while the LibOS sleeps.
 * Interface: ring.h. Invariant: counters are stored before receive_taken is published, so whoever sees a frame taken and the LibOS idle
 * also sees what became of it. The kernel area is trusted (the kernel is), yet nothing it could hold makes us touch foreign memory.
 */
#include <stdlib.h>

#include "ring_private.h"

static int good_entries(uint32_t entries)
{
    return entries != 0 && (entries & (entries - 1)) == 0;
}

static int good_array(uint32_t entries, size_t entry, uint32_t offset, uint32_t area)
{
    return good_entries(entries) && offset % 8 == 0 && (uint64_t)offset + (uint64_t)entries * entry <= area;
}

static int good_layout(const struct exo_layout *l)
{
    return good_array(l->receive_entries, sizeof(struct exo_receive), l->receive_offset, l->kernel_area_size) &&
           good_array(l->completion_entries, sizeof(struct exo_completion), l->completion_offset, l->kernel_area_size) &&
           good_array(l->fill_entries, sizeof(struct exo_fill), l->fill_offset, l->libos_area_size) &&
           good_array(l->transmit_entries, sizeof(struct exo_transmit), l->transmit_offset, l->libos_area_size) &&
           good_array(l->receive_entries, sizeof(uint16_t), l->verdict_offset, l->libos_area_size);
}

/* All four rings begin empty, at whatever indices the kernel has. */
static void start_indices(struct stk_rings *rings)
{
    const struct exo_kernel_area *kernel = rings->kernel;
    rings->fill_put = rings->fill_known = load_acquire(&kernel->fill_taken);
    rings->receive_taken = load_acquire(&kernel->receive_put);
    rings->transmit_put = rings->transmit_known = rings->transmit_flushed = load_acquire(&kernel->transmit_taken);
    rings->completion_taken = load_acquire(&kernel->completion_put);
    store_release(&rings->libos->fill_put, rings->fill_put);
    store_release(&rings->libos->receive_taken, rings->receive_taken);
    store_release(&rings->libos->transmit_put, rings->transmit_put);
    store_release(&rings->libos->completion_taken, rings->completion_taken);
    store_release(&rings->libos->need_wakeup, 0);
}

struct stk_rings *stk_rings_new(const void *kernel, void *libos)
{
    const struct exo_kernel_area *area = kernel;
    if (area->abi_version != EXO_ABI_VERSION || !good_layout(&area->layout))
        return NULL;
    struct stk_rings *rings = calloc(1, sizeof *rings);
    if (rings == NULL)
        return NULL;
    const struct exo_layout *l = &area->layout;
    rings->kernel = area;
    rings->libos = libos;
    rings->receive = (const struct exo_receive *)((const uint8_t *)kernel + l->receive_offset);
    rings->completion = (const struct exo_completion *)((const uint8_t *)kernel + l->completion_offset);
    rings->fill = (struct exo_fill *)((uint8_t *)libos + l->fill_offset);
    rings->transmit = (struct exo_transmit *)((uint8_t *)libos + l->transmit_offset);
    rings->verdict = (uint16_t *)((uint8_t *)libos + l->verdict_offset);
    rings->fill_entries = l->fill_entries;
    rings->receive_entries = l->receive_entries;
    rings->transmit_entries = l->transmit_entries;
    rings->completion_entries = l->completion_entries;
    start_indices(rings);
    return rings;
}

void stk_rings_free(struct stk_rings *rings)
{
    if (rings == NULL)
        return;
    for (uint32_t i = 0; i < STK_RING_PORTS; i++)
        free(rings->output[i].scratch);
    free(rings->spare);
    free(rings->buffer);
    free(rings->idle_buffer);
    free(rings);
}

int32_t stk_rings_extent(struct stk_rings *rings, uint32_t first, uint32_t count, uint8_t *base)
{
    if (count == 0 || base == NULL || count > UINT32_MAX - first)
        return EXO_E_INVALID;
    for (uint32_t i = 0; i < rings->extents; i++) {
        const struct extent *e = &rings->extent[i];
        if (first < e->first + e->count && e->first < first + count)
            return EXO_E_BUSY;
    }
    if (rings->extents == STK_RING_EXTENTS)
        return EXO_E_FULL;
    rings->extent[rings->extents++] = (struct extent){first, count, base};
    return 0;
}

uint32_t stk_gather(struct stk_rings *rings, uint32_t at, uint32_t ready, struct frame *out)
{
    const struct exo_receive *head = &rings->receive[at & (rings->receive_entries - 1)];
    uint32_t length = 0, entries = 0, readable = 1, more = 1;
    while (more) {
        if (entries == ready) {
            if (ready < rings->receive_entries)
                return 0;
            readable = 0;    /* a chain longer than the ring never ends: give it up, or nothing would ever move again */
            break;
        }
        const struct exo_receive *d = &rings->receive[(at + entries++) & (rings->receive_entries - 1)];
        const uint8_t *page = address_of(rings, d->page);
        more = d->flags & EXO_F_MORE;
        if (page == NULL || (uint32_t)d->offset + d->length > EXO_PAGE_SIZE || length + d->length > EXO_MAX_FRAME)
            readable = 0;
        if (readable) {
            memcpy(rings->gather + length, page + d->offset, d->length);
            length += d->length;
        }
    }
    /* The kernel's sum is of one buffer: not of the whole frame, so the stack makes its own. */
    uint32_t flags = head->flags & ~(uint32_t)(EXO_F_MORE | EXO_F_CSUM);
    *out = (struct frame){readable ? rings->gather : NULL, length, head->wire_len, flags, 0, head->port};
    return entries;
}

static void account(struct stk_rings *rings, const struct stk *stack)
{
    const struct stk_counters *stk = stk_counters(stack);
    struct exo_stack_counters *shared = &rings->libos->counters;
    shared->delivered = rings->own.delivered + stk->delivered;
    shared->bytes = rings->own.bytes;
    shared->sent = rings->own.sent;
    shared->digest = rings->own.digest;
    for (uint32_t i = 0; i < EXO_STACK_REASONS; i++)
        shared->drop[i] = rings->own.drop[i] + stk->drop[i];
}

static uint32_t feed(struct stk_rings *rings, struct stk *stack, uint32_t max, uint64_t now)
{
    uint32_t put = load_acquire(&rings->kernel->receive_put), at = rings->receive_taken, frames = 0;
    while (frames < max && at != put) {
        struct frame frame;
        uint32_t entries = frame_at(rings, at, put - at, &frame);
        if (entries == 0)
            break;
        if (STK_UNLIKELY(frame.bytes == NULL)) {
            rings->unreadable++;
            rings->own.drop[EXO_R_STACK_UNACCOUNTED - EXO_R_STACK_FIRST]++;
            tell(rings, at, EXO_R_STACK_UNACCOUNTED);
        } else {
            int32_t verdict =
                stk_input_at(stack, frame.port, frame.bytes, frame.length, frame.wire_len, frame.flags, frame.csum, now);
            if (verdict == EXO_R_DELIVERED)
                rings->own.bytes += real_length(&frame);
            tell(rings, at, verdict);
        }
        give_back(rings, at, entries);
        at += entries;
        frames++;
    }
    rings->receive_taken = at;
    return frames;
}

uint32_t stk_rings_pump(struct stk_rings *rings, struct stk *stack, uint32_t max, uint64_t now)
{
    uint32_t total = 0, frames;
    rings->now = now;
    stk_reap(rings);
    do {
        uint32_t burst = max - total < STK_RING_BURST ? max - total : STK_RING_BURST;
        frames = feed(rings, stack, burst, now);
        if (frames == 0)
            break;
        total += frames;
        account(rings, stack);
        store_release(&rings->libos->receive_taken, rings->receive_taken);
        stk_post(rings);
    } while (total < max);
    if (total != 0 || now >= rings->deadline)
        stk_rings_poll(rings, stack, now);
    return total;
}

uint64_t stk_rings_poll(struct stk_rings *rings, struct stk *stack, uint64_t now)
{
    rings->now = now;
    rings->deadline = stk_poll(stack, now);
    account(rings, stack);
    return rings->deadline;
}

int32_t stk_rings_flush(struct stk_rings *rings)
{
    if (rings->transmit_put == rings->transmit_flushed)
        return 0;
    rings->transmit_flushed = rings->transmit_put;
    rings->libos->counters.sent = rings->own.sent;
    store_release(&rings->libos->transmit_put, rings->transmit_put);
    /* Against the kernel's "set need_wakeup, fence, look at transmit_put": one of the two sees the other. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return load_acquire(&rings->kernel->need_wakeup) != 0;
}

static int has_work(const struct stk_rings *rings)
{
    return load_acquire(&rings->kernel->receive_put) != rings->receive_taken ||
           load_acquire(&rings->kernel->completion_put) != rings->completion_taken || load_acquire(&rings->kernel->stop) != 0;
}

int32_t stk_rings_spin(const struct stk_rings *rings, uint32_t spins)
{
    for (uint32_t i = 0; i < spins; i++) {
        if (has_work(rings))
            return 1;
        stk_idle(i);
    }
    return has_work(rings);
}

int32_t stk_rings_prepare_sleep(struct stk_rings *rings)
{
    store_release(&rings->libos->need_wakeup, 1);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (!has_work(rings) && rings->transmit_put == rings->transmit_flushed)
        return 0;
    stk_rings_awake(rings);
    return 1;
}

void stk_rings_awake(struct stk_rings *rings)
{
    store_release(&rings->libos->need_wakeup, 0);
}

int32_t stk_rings_stopped(const struct stk_rings *rings)
{
    return load_acquire(&rings->kernel->stop) != 0;
}

void stk_rings_status(const struct stk_rings *rings, struct stk_rings_status *out)
{
    *out = (struct stk_rings_status){
        .posted = rings->posted,
        .spare = rings->spares,
        .transmit_free = rings->idle,
        .in_flight = rings->in_flight,
        .sent = rings->own.sent,
        .refused = rings->refused,
        .unreadable = rings->unreadable,
    };
}
