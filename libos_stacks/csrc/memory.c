/* SPDX-License-Identifier: MIT
 *
 * An output that keeps frames in memory: records of a length word and the frame, one after the other, taken from the front. The buffer
 * starts again when it has been emptied, so no frame is split; reserve says NULL when the end is reached.
 */
#include <stdlib.h>

#include "stk_private.h"

struct stk_memory {
    uint32_t size;
    uint32_t head;               /* the next record to take */
    uint32_t tail;               /* the next record to write */
    uint8_t bytes[];
};

struct stk_memory *stk_memory_new(uint32_t bytes)
{
    struct stk_memory *memory = malloc(sizeof *memory + bytes);
    if (memory != NULL) {
        memory->size = bytes;
        memory->head = 0;
        memory->tail = 0;
    }
    return memory;
}

void stk_memory_free(struct stk_memory *memory)
{
    free(memory);
}

static uint8_t *reserve(void *context, uint32_t n)
{
    struct stk_memory *memory = context;
    if (memory->head == memory->tail)
        memory->head = memory->tail = 0;
    return memory->size - memory->tail >= n + 4 ? memory->bytes + memory->tail + 4 : NULL;
}

static void commit(void *context, uint32_t n)
{
    struct stk_memory *memory = context;
    memcpy(memory->bytes + memory->tail, &n, 4);
    memory->tail += n + 4;
}

void stk_memory_output(struct stk_memory *memory, struct stk_output *out)
{
    out->context = memory;
    out->reserve = reserve;
    out->commit = commit;
}

uint32_t stk_memory_take(struct stk_memory *memory, const uint8_t **frame)
{
    uint32_t n;
    if (memory->head == memory->tail)
        return 0;
    memcpy(&n, memory->bytes + memory->head, 4);
    *frame = memory->bytes + memory->head + 4;
    memory->head += n + 4;
    return n;
}
