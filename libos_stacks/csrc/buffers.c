/* SPDX-License-Identifier: MIT
 *
 * The LibOS's buffers: receive buffers go round spare stack, fill ring, receive ring; transmit buffers go round idle stack, transmit
 * ring, completion ring. Interface: ring.h. Invariants: posted + spares == receive buffers made; idle + held + in_flight == transmit
 * buffers made; in_flight never exceeds the completion ring, so the kernel always has room for the answer. Both stacks are last in,
 * first out: the buffer used last is still in the cache.
 */
#include <stdlib.h>

#include "ring_private.h"

static int good_size(uint32_t size)
{
    return size == 512 || size == 1024 || size == 2048 || size == 4096;
}

static int grow(void *array, uint32_t entries, size_t entry)
{
    void **at = array;
    void *grown = realloc(*at, (size_t)entries * entry);
    if (grown == NULL)
        return EXO_E_MEMORY;
    *at = grown;
    return 0;
}

/* Pages and sizes of either kind of buffer: how many they make, or an error. */
static int64_t plan(const struct stk_rings *rings, uint32_t first, uint32_t count, uint32_t size, uint32_t used_size)
{
    if (!good_size(size) || (used_size != 0 && used_size != size))
        return EXO_E_INVALID;
    if (count == 0 || count > UINT32_MAX / EXO_PAGE_SIZE)
        return EXO_E_INVALID;
    for (uint32_t i = 0; i < count; i++)
        if (address_of(rings, first + i) == NULL)
            return EXO_E_NOT_FOUND;
    return (int64_t)count * (EXO_PAGE_SIZE / size);
}

void stk_post(struct stk_rings *rings)
{
    uint32_t put = rings->fill_put;
    while (rings->spares != 0 && rings->posted < rings->most) {
        if (put - rings->fill_known >= rings->fill_entries) {
            rings->fill_known = load_acquire(&rings->kernel->fill_taken);
            if (put - rings->fill_known >= rings->fill_entries)
                break;
        }
        rings->fill[put++ & (rings->fill_entries - 1)] = rings->spare[--rings->spares];
        rings->posted++;
    }
    if (put == rings->fill_put)
        return;
    rings->fill_put = put;
    store_release(&rings->libos->fill_put, put);
}

int32_t stk_rings_receive_buffers(struct stk_rings *rings, uint32_t first, uint32_t count, uint32_t size, uint32_t most)
{
    int64_t made = plan(rings, first, count, size, rings->receive_size);
    if (made < 0)
        return (int32_t)made;
    if (grow(&rings->spare, rings->posted + rings->spares + (uint32_t)made, sizeof *rings->spare) < 0)
        return EXO_E_MEMORY;
    rings->receive_size = size;
    rings->most = most;
    for (uint32_t i = count; i-- != 0;)
        for (uint32_t end = EXO_PAGE_SIZE; end != 0; end -= size)
            rings->spare[rings->spares++] = buffer_at(first + i, end - size, size);
    stk_post(rings);
    return (int32_t)made;
}

int32_t stk_rings_transmit_buffers(struct stk_rings *rings, uint32_t first, uint32_t count, uint32_t size)
{
    int64_t made = plan(rings, first, count, size, rings->transmit_size);
    if (made < 0)
        return (int32_t)made;
    uint32_t total = rings->buffers + (uint32_t)made;
    if (grow(&rings->buffer, total, sizeof *rings->buffer) < 0 || grow(&rings->idle_buffer, total, sizeof *rings->idle_buffer) < 0)
        return EXO_E_MEMORY;
    rings->transmit_size = size;
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t offset = 0; offset < EXO_PAGE_SIZE; offset += size) {
            struct exo_fill place = buffer_at(first + i, offset, size);
            rings->buffer[rings->buffers++] =
                (struct transmit_buffer){address_of(rings, place.page) + place.offset, place.page, place.offset, 0};
        }
    for (uint32_t i = total; i-- != total - (uint32_t)made;)
        rings->idle_buffer[rings->idle++] = i;
    return (int32_t)made;
}

void stk_reap(struct stk_rings *rings)
{
    uint32_t put = load_acquire(&rings->kernel->completion_put), at = rings->completion_taken;
    if (at == put)
        return;
    for (; at != put; at++) {
        const struct exo_completion *done = &rings->completion[at & (rings->completion_entries - 1)];
        rings->refused += done->status != 0;
        if (done->cookie >= rings->buffers || !rings->buffer[done->cookie].busy)
            continue;
        rings->buffer[done->cookie].busy = 0;
        rings->idle_buffer[rings->idle++] = (uint32_t)done->cookie;
        rings->in_flight--;
    }
    rings->completion_taken = at;
    store_release(&rings->libos->completion_taken, at);
}

/* The bytes every transmit buffer has, whatever its stagger. */
static uint32_t least(const struct stk_rings *rings)
{
    uint32_t size = rings->transmit_size;
    return size == 0 ? 0 : size - stagger(size >= 2048 ? STK_STAGGER_LINES - 1 : size / 256 - 1, size);
}

static int room(struct stk_rings *rings, uint32_t entries, uint32_t held)
{
    return rings->idle + held >= entries && rings->in_flight + entries <= rings->completion_entries &&
           rings->transmit_put - rings->transmit_known + entries <= rings->transmit_entries;
}

/* Is there room for so many entries? Where not, the kernel is shown what it has not seen yet, so that there will be. */
static int make_room(struct stk_rings *rings, uint32_t entries, uint32_t held)
{
    if (STK_LIKELY(room(rings, entries, held)))
        return 1;
    rings->transmit_known = load_acquire(&rings->kernel->transmit_taken);
    stk_reap(rings);
    if (room(rings, entries, held))
        return 1;
    store_release(&rings->libos->transmit_put, rings->transmit_put);
    return 0;
}

static uint8_t *reserve(void *context, uint32_t n)
{
    struct output *out = context;
    struct stk_rings *rings = out->rings;
    uint32_t bytes = least(rings), held = out->held != STK_NO_BUFFER;
    out->reserved = 0;
    if (n == 0 || bytes == 0 || n > EXO_MAX_FRAME)
        return NULL;
    uint32_t entries = (n + bytes - 1) / bytes;
    if (entries > STK_RING_CHAIN || !make_room(rings, entries, held))
        return NULL;
    out->in_scratch = entries > 1;
    if (out->in_scratch && out->scratch == NULL && (out->scratch = malloc(STK_SCRATCH)) == NULL)
        return NULL;
    if (!held)
        out->held = rings->idle_buffer[--rings->idle];
    out->reserved = n;
    return out->in_scratch ? out->scratch : rings->buffer[out->held].address;
}

static void post(struct output *out, uint32_t length, uint32_t flags)
{
    struct stk_rings *rings = out->rings;
    struct transmit_buffer *buffer = &rings->buffer[out->held];
    buffer->busy = 1;
    rings->in_flight++;
    rings->transmit[rings->transmit_put++ & (rings->transmit_entries - 1)] = (struct exo_transmit){
        .page = buffer->page,
        .offset = buffer->offset,
        .length = (uint16_t)length,
        .flags = (uint16_t)flags,
        .port = (uint16_t)out->port,
        .cookie = out->held,
    };
    out->held = STK_NO_BUFFER;
}

static void commit(void *context, uint32_t n)
{
    struct output *out = context;
    struct stk_rings *rings = out->rings;
    if (n == 0 || n > out->reserved)
        return;              /* nothing was reserved for it: the buffer stays held for the next frame */
    out->reserved = 0;
    uint32_t bytes = least(rings), entries = out->in_scratch ? (n + bytes - 1) / bytes : 1;
    if (STK_UNLIKELY(!room(rings, entries, 1))) {
        rings->refused++;    /* another output used the room between reserve and commit */
        return;
    }
    rings->own.sent++;
    if (STK_LIKELY(!out->in_scratch)) {
        post(out, n, 0);
        return;
    }
    for (uint32_t at = 0; at < n; at += bytes) {
        uint32_t part = n - at < bytes ? n - at : bytes;
        if (out->held == STK_NO_BUFFER)
            out->held = rings->idle_buffer[--rings->idle];
        memcpy(rings->buffer[out->held].address, out->scratch + at, part);
        post(out, part, at + part < n ? EXO_F_MORE : 0);
    }
}

static uint8_t *reserve_nothing(void *context, uint32_t n)
{
    (void)context;
    (void)n;
    return NULL;
}

static void commit_nothing(void *context, uint32_t n)
{
    (void)context;
    (void)n;
}

void stk_rings_output(struct stk_rings *rings, uint32_t port, struct stk_output *out)
{
    if (port >= STK_RING_PORTS) {
        *out = (struct stk_output){NULL, reserve_nothing, commit_nothing};
        return;
    }
    struct output *context = &rings->output[port];
    if (context->rings == NULL)
        *context = (struct output){.rings = rings, .port = port, .held = STK_NO_BUFFER};
    *out = (struct stk_output){context, reserve, commit};
}
