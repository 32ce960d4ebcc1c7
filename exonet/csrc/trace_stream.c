/* SPDX-License-Identifier: MIT
 *
 * A file read through a window of constant size, and the cursor: records in order, from a loaded trace's index or from a
 * stream of the cursor's own. Bytes given stay where they are until the taker releases them: where a burst goes beyond the window,
 * it goes on in another buffer, so that bursts of a streamed trace are as long as a loaded one's.
 */
#include "trace_private.h"

int32_t stream_open(struct stream *s, int fd, bool seekable, size_t window)
{
    memset(s, 0, sizeof *s);
    input_open(&s->input, fd, seekable);
    if (window) {
        s->window.bytes = s->buffers[0] = malloc(window);
        if (!s->window.bytes)
            return EXO_E_MEMORY;
        s->window.room = window;
    }
    return 0;
}

void stream_close(struct stream *s)
{
    input_close(&s->input);
    parser_free(&s->parser);
    for (uint32_t i = 0; i < EXO_BURST; i++)
        free(s->buffers[i]);
    memset(s->buffers, 0, sizeof s->buffers);
    s->window.bytes = NULL;
}

int32_t stream_rewind(struct stream *s)
{
    parser_rewind(&s->parser);
    s->window.at = 0;
    s->window.end = 0;
    s->window.ended = false;
    return input_rewind(&s->input);
}

void stream_release(struct stream *s, bool but_last)
{
    s->given = but_last;
    if (s->held == 0)
        return;
    uint8_t *window = s->buffers[s->held];
    s->buffers[s->held] = s->buffers[0];
    s->buffers[0] = window;
    s->held = 0;
}

/* Where the window's rest goes: to its beginning, or into another buffer because records that were given lie there. */
static int32_t make_way(struct stream *s)
{
    struct window *w = &s->window;
    uint8_t *to = w->bytes;
    if (s->given) {
        if (s->held + 1 == EXO_BURST)
            return 0;
        uint8_t **next = &s->buffers[s->held + 1];
        if (!*next && !(*next = malloc(w->room)))
            return EXO_E_MEMORY;
        s->held++;
        to = *next;
    }
    size_t left = w->end - w->at;
    memmove(to + WINDOW_LEAD, w->bytes + w->at, left);
    w->bytes = to;
    w->at = WINDOW_LEAD;
    w->end = WINDOW_LEAD + left;
    s->given = false;
    return 1;
}

int32_t stream_fill(struct stream *s)
{
    struct window *w = &s->window;
    int32_t code = make_way(s);
    if (code <= 0)
        return code;
    while (w->end < w->room) {
        int64_t got = input_read(&s->input, w->bytes + w->end, w->room - w->end);
        if (got < 0)
            return (int32_t)got;
        if (got == 0) {
            w->ended = true;
            break;
        }
        w->end += (size_t)got;
    }
    return 1;
}

int32_t stream_next(struct stream *s, struct exo_record *record)
{
    struct window *w = &s->window;
    size_t used;
    int32_t result = parser_next(&s->parser, w->bytes + w->at, w->end - w->at, &used, record);
    if (EXO_LIKELY(result == PARSE_RECORD)) {
        record->offset += w->at;
        s->given = true;
    }
    w->at += used;
    if (result == PARSE_MORE && w->ended)
        return parser_end(&s->parser, w->end - w->at, &s->input);
    return result;
}

struct exo_cursor *exo_cursor_new(struct exo_trace *trace)
{
    struct exo_cursor *cursor = calloc(1, sizeof *cursor);
    if (!cursor)
        return NULL;
    cursor->streamed = trace->info.streamed;
    if (cursor->streamed && stream_open(&cursor->stream, trace->fd, true, trace->window) < 0) {
        free(cursor);
        return NULL;
    }
    cursor->trace = trace_retain(trace);
    return cursor;
}

void exo_cursor_free(struct exo_cursor *cursor)
{
    if (!cursor)
        return;
    if (cursor->streamed)
        stream_close(&cursor->stream);
    exo_trace_release(cursor->trace);
    free(cursor);
}

int32_t exo_cursor_rewind(struct exo_cursor *cursor)
{
    cursor->next = 0;
    cursor->ended = false;
    return cursor->streamed ? stream_rewind(&cursor->stream) : 0;
}

/* What a cursor finds wrong is wrong with the trace: the file may have changed since it was scanned. */
static void tell_end(struct exo_cursor *cursor)
{
    struct exo_trace *trace = cursor->trace;
    struct parser *p = &cursor->stream.parser;
    if (!p->broken.code && trace->info.complete && cursor->next < trace->info.count)
        parser_break(p, 0, "the file has become shorter: it had %llu records", (unsigned long long)trace->info.count);
    if (p->broken.code && !trace->broken.code)
        trace->broken = p->broken;
}

static int32_t next_streamed(struct exo_cursor *cursor, bool fresh, struct exo_record *record, const uint8_t **data)
{
    struct stream *s = &cursor->stream;
    if (cursor->ended)
        return EXO_E_END;
    if (fresh)
        stream_release(s, false);
    int32_t result;
    while ((result = stream_next(s, record)) == PARSE_MORE) {
        int32_t code = stream_fill(s);
        if (code <= 0)
            return code;
    }
    if (EXO_UNLIKELY(result < 0)) {
        if (result == EXO_E_MEMORY)
            return result;
        cursor->ended = true;
        tell_end(cursor);
        return EXO_E_END;
    }
    *data = s->window.bytes + record->offset;
    cursor->next++;
    return 1;
}

int32_t cursor_next(struct exo_cursor *cursor, bool fresh, struct exo_record *record, const uint8_t **data)
{
    if (cursor->streamed)
        return next_streamed(cursor, fresh, record, data);
    const struct exo_trace *trace = cursor->trace;
    uint64_t i = cursor->next;
    if (EXO_UNLIKELY(i >= trace->info.count))
        return EXO_E_END;
    *record = trace->records[i];
    *data = trace->data + record->offset;
    uint64_t ahead = i + 8 < trace->info.count ? i + 8 : i;
    __builtin_prefetch(trace->data + trace->records[ahead].offset);
    cursor->next = i + 1;
    return 1;
}

int32_t exo_cursor_read(struct exo_cursor *cursor, struct exo_frame *out, int32_t *reasons, uint32_t max)
{
    uint32_t n = 0;
    while (n < max) {
        struct exo_record record;
        const uint8_t *data;
        int32_t result = cursor_next(cursor, n == 0, &record, &data);
        if (result <= 0)
            return n ? (int32_t)n : result;
        record_frame(&record, data, cursor->next - 1, &out[n]);
        reasons[n] = record_reason(&record);
        n++;
    }
    return (int32_t)n;
}
