/* SPDX-License-Identifier: MIT
 *
 * The segments of one key: every value at which an interval begins or has just ended, and who owns the values from there on. They lie in
 * chunks of at most CHUNK, and the chunks' first values in an array of their own: a look-up is two short binary searches, and a change
 * moves no more than a chunk. A boundary stays as long as an interval ends at it, so taking one away never needs room.
 */
#include "demux_private.h"

#include <stdlib.h>

#define CHUNK 256u
#define FIRST 5u             /* the segment at 0, and two intervals */
#define TAIL 8u              /* what a chunk keeps when the next ones come in rising order */

static size_t chunk_bytes(uint32_t capacity) { return sizeof(struct demux_chunk) + capacity * sizeof(struct demux_segment); }
static size_t list_bytes(uint32_t capacity) { return capacity * (sizeof(uint32_t) + sizeof(struct demux_chunk *)); }

/* The last chunk whose first value is not above the value; the first one's is 0. */
static inline uint32_t chunk_at(const struct demux_segments *segments, uint32_t value)
{
    uint32_t low = 0, count = segments->chunks;
    while (count > 1) {
        uint32_t half = count / 2;
        low += segments->low[low + half] <= value ? half : 0;
        count -= half;
    }
    return low;
}

static inline uint32_t segment_at(const struct demux_chunk *chunk, uint32_t value)
{
    uint32_t low = 0, count = chunk->count;
    while (count > 1) {
        uint32_t half = count / 2;
        low += chunk->at[low + half].low <= value ? half : 0;
        count -= half;
    }
    return low;
}

uint32_t demux_segment_owner(const struct demux_segments *segments, uint32_t value)
{
    const struct demux_chunk *chunk = segments->chunk[chunk_at(segments, value)];
    return chunk->at[segment_at(chunk, value)].entry;
}

struct demux_segments *demux_segments_new(struct demux_shape *shape, uint64_t seed)
{
    struct demux_segments *segments = calloc(1, sizeof *segments);
    if (!segments)
        return NULL;
    segments->seed = seed;
    segments->root = DEMUX_NONE;
    segments->capacity = 1;
    segments->low = calloc(1, sizeof *segments->low);
    segments->chunk = calloc(1, sizeof *segments->chunk);
    struct demux_chunk *first = calloc(1, chunk_bytes(FIRST));
    if (!segments->low || !segments->chunk || !first) {
        free(first);
        free(segments->chunk);
        free(segments->low);
        free(segments);
        return NULL;
    }
    first->capacity = FIRST;
    first->count = 1;
    first->at[0] = (struct demux_segment){.low = 0, .entry = DEMUX_NONE, .ends = 1};
    segments->chunk[segments->chunks++] = first;
    shape->segment_bytes += sizeof *segments + list_bytes(1) + chunk_bytes(FIRST);
    return segments;
}

void demux_range_free(struct demux_shape *shape, struct demux_segments *segments)
{
    if (!segments)
        return;
    for (uint32_t c = 0; c < segments->chunks; c++) {
        shape->segment_bytes -= chunk_bytes(segments->chunk[c]->capacity);
        free(segments->chunk[c]);
    }
    shape->segment_bytes -= sizeof *segments + list_bytes(segments->capacity);
    free(segments->chunk);
    free(segments->low);
    free(segments);
}

static int32_t resize(struct demux_shape *shape, struct demux_segments *segments, uint32_t c, uint32_t capacity)
{
    struct demux_chunk *chunk = segments->chunk[c];
    uint32_t before = chunk->capacity;
    chunk = realloc(chunk, chunk_bytes(capacity));
    if (!chunk)
        return EXO_E_MEMORY;
    chunk->capacity = capacity;
    segments->chunk[c] = chunk;
    shape->segment_bytes += chunk_bytes(capacity) - chunk_bytes(before);
    return 0;
}

static int32_t longer_list(struct demux_shape *shape, struct demux_segments *segments)
{
    uint32_t capacity = segments->capacity + segments->capacity / 2 + 1;
    if (segments->chunks < segments->capacity)
        return 0;
    uint32_t *low = realloc(segments->low, capacity * sizeof *low);
    if (!low)
        return EXO_E_MEMORY;
    segments->low = low;
    struct demux_chunk **chunk = realloc(segments->chunk, capacity * sizeof(*chunk));
    if (!chunk)
        return EXO_E_MEMORY;
    segments->chunk = chunk;
    shape->segment_bytes += list_bytes(capacity) - list_bytes(segments->capacity);
    segments->capacity = capacity;
    return 0;
}

/* Makes two chunks of one. */
static int32_t halve(struct demux_shape *shape, struct demux_segments *segments, uint32_t c, uint32_t value)
{
    struct demux_chunk *full = segments->chunk[c];
    int rising = c + 1 == segments->chunks && full->at[full->count - 1].low <= value;
    uint32_t kept = rising ? full->count - TAIL : full->count / 2, moved = full->count - kept, capacity = moved + moved / 4 + 2;
    int32_t code = longer_list(shape, segments);
    struct demux_chunk *next = code ? NULL : malloc(chunk_bytes(capacity));
    if (!next)
        return EXO_E_MEMORY;
    next->capacity = capacity;
    next->count = moved;
    memcpy(next->at, full->at + kept, moved * sizeof *next->at);
    full->count = kept;
    memmove(&segments->low[c + 2], &segments->low[c + 1], (segments->chunks - c - 1) * sizeof *segments->low);
    memmove(&segments->chunk[c + 2], &segments->chunk[c + 1], (segments->chunks - c - 1) * sizeof(*segments->chunk));
    segments->low[c + 1] = next->at[0].low;
    segments->chunk[c + 1] = next;
    segments->chunks++;
    shape->segment_bytes += chunk_bytes(capacity);
    return 0;
}

int32_t demux_segments_reserve(struct demux_shape *shape, struct demux_segments *segments, uint32_t value)
{
    for (;;) {
        uint32_t c = chunk_at(segments, value), count = segments->chunk[c]->count, capacity = segments->chunk[c]->capacity;
        int32_t code;
        if (count + 2 <= capacity)
            return 0;
        capacity += capacity / 4 + 2;
        if (count + 2 > CHUNK)
            code = halve(shape, segments, c, value);
        else
            code = resize(shape, segments, c, capacity < CHUNK ? capacity : CHUNK);
        if (code)
            return code;
    }
}

void demux_segments_begin(struct demux_segments *segments, uint32_t value)
{
    struct demux_chunk *chunk = segments->chunk[chunk_at(segments, value)];
    uint32_t i = segment_at(chunk, value);
    if (chunk->at[i].low == value) {
        chunk->at[i].ends++;
        return;
    }
    memmove(&chunk->at[i + 2], &chunk->at[i + 1], (chunk->count - i - 1) * sizeof *chunk->at);
    chunk->at[i + 1] = (struct demux_segment){value, chunk->at[i].entry, chunk->at[i].bits, 1};
    chunk->count++;
}

static void drop_chunk(struct demux_shape *shape, struct demux_segments *segments, uint32_t c)
{
    shape->segment_bytes -= chunk_bytes(segments->chunk[c]->capacity);
    free(segments->chunk[c]);
    segments->chunks--;
    memmove(&segments->low[c], &segments->low[c + 1], (segments->chunks - c) * sizeof *segments->low);
    memmove(&segments->chunk[c], &segments->chunk[c + 1], (segments->chunks - c) * sizeof(*segments->chunk));
}

/* Moves the chunk after c into it where both are small; where there is no memory for that, they stay two. */
static void merge(struct demux_shape *shape, struct demux_segments *segments, uint32_t c)
{
    if (c + 1 >= segments->chunks)
        return;
    uint32_t count = segments->chunk[c]->count + segments->chunk[c + 1]->count;
    if (count > CHUNK / 2 || (count > segments->chunk[c]->capacity && resize(shape, segments, c, count)))
        return;
    struct demux_chunk *into = segments->chunk[c], *from = segments->chunk[c + 1];
    memcpy(into->at + into->count, from->at, from->count * sizeof *into->at);
    into->count = count;
    drop_chunk(shape, segments, c + 1);
}

void demux_segments_end(struct demux_shape *shape, struct demux_segments *segments, uint32_t value)
{
    uint32_t c = chunk_at(segments, value);
    struct demux_chunk *chunk = segments->chunk[c];
    uint32_t i = segment_at(chunk, value);
    if (--chunk->at[i].ends)
        return;
    chunk->count--;
    memmove(&chunk->at[i], &chunk->at[i + 1], (chunk->count - i) * sizeof *chunk->at);
    if (!chunk->count) {
        drop_chunk(shape, segments, c);
        return;
    }
    segments->low[c] = chunk->at[0].low;
    merge(shape, segments, c);
    if (c)
        merge(shape, segments, c - 1);
}

/* Mostly without a look at the other entry, so that a wide interval around many passes over them fast. */
static inline int wins(const struct demux_shape *shape, const struct demux_segment *segment, uint32_t number, uint32_t bits)
{
    if (segment->entry == DEMUX_NONE || segment->bits != bits)
        return segment->entry == DEMUX_NONE || segment->bits < bits;
    return demux_range_before(shape, number, segment->entry);
}

void demux_segments_claim(const struct demux_shape *shape, struct demux_segments *segments, uint32_t low, uint32_t high, uint32_t number)
{
    uint32_t c = chunk_at(segments, low), bits = demux_range_of(shape, demux_entry_at(shape, number))->bits;
    for (uint32_t i = segment_at(segments->chunk[c], low); c < segments->chunks; c++, i = 0)
        for (struct demux_chunk *chunk = segments->chunk[c]; i < chunk->count; i++) {
            struct demux_segment *segment = &chunk->at[i];
            if (segment->low > high)
                return;
            if (wins(shape, segment, number, bits)) {
                segment->entry = number;
                segment->bits = bits;
            }
        }
}

uint32_t demux_segments_leave(struct demux_segments *segments, uint32_t low, uint32_t high, uint32_t number)
{
    uint32_t left = 0, c = chunk_at(segments, low);
    for (uint32_t i = segment_at(segments->chunk[c], low); c < segments->chunks; c++, i = 0)
        for (struct demux_chunk *chunk = segments->chunk[c]; i < chunk->count; i++) {
            if (chunk->at[i].low > high)
                return left;
            if (chunk->at[i].entry == number) {
                chunk->at[i].entry = DEMUX_NONE;
                left++;
            }
        }
    return left;
}
