/* SPDX-License-Identifier: MIT
 *
 * A trace: a capture file loaded (bytes and index in memory) or prepared for streaming, with what is known about it.
 * Loading is one pass: a chunk is read, and parsed while it is in the cache. Growing is by mremap, so a large trace is
 * never copied. Records hold offsets, not pointers, because of that.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "trace_private.h"

enum { LOAD_CHUNK = 256 * 1024, FIRST_ROOM = 1024 * 1024 };

static void *grow(void *old, size_t from, size_t to)
{
    void *p = from ? mremap(old, from, to, MREMAP_MAYMOVE)
                   : mmap(NULL, to, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    (void)madvise(p, to, MADV_HUGEPAGE);
    return p;
}

static void unload(struct exo_trace *trace)
{
    if (!trace->info.streamed)
        trace->head.window.bytes = NULL;   /* it was data */
    if (trace->data)
        munmap(trace->data, trace->data_room);
    if (trace->records)
        munmap(trace->records, trace->record_room * sizeof *trace->records);
    trace->data = NULL;
    trace->records = NULL;
    trace->data_room = trace->data_len = 0;
    trace->record_room = 0;
}

struct exo_trace *trace_retain(struct exo_trace *trace)
{
    trace->references++;
    return trace;
}

void exo_trace_release(struct exo_trace *trace)
{
    if (!trace || --trace->references)
        return;
    unload(trace);
    stream_close(&trace->head);
    if (trace->fd >= 0)
        close(trace->fd);
    free(trace);
}

static void count_stamp(struct exo_trace_info *info, const struct exo_record *record)
{
    uint64_t stamp = record->stamp, last = info->last_stamp;
    if (EXO_UNLIKELY(info->stamped++ == 0))
        info->first_stamp = info->earliest = info->latest = last = stamp;
    if (EXO_UNLIKELY(stamp < last)) {
        info->backward++;
        info->step_back = last - stamp > info->step_back ? last - stamp : info->step_back;
        info->earliest = stamp < info->earliest ? stamp : info->earliest;
    } else if (EXO_UNLIKELY(stamp - last > EXO_LONG_GAP * 1000000000ull)) {
        info->long_gaps++;
        if (stamp - last > info->longest_gap) {
            info->longest_gap = stamp - last;
            info->longest_before = info->count;
        }
    }
    info->latest = stamp > info->latest ? stamp : info->latest;
    info->last_stamp = stamp;
    info->clamped += record->flags & EXO_RECORD_CLAMPED ? 1 : 0;
    info->fractions += record->flags & EXO_RECORD_FRACTION ? 1 : 0;
}

static void count_record(struct exo_trace *trace, const struct exo_record *record)
{
    struct exo_trace_info *info = &trace->info;
    const struct parser *p = &trace->head.parser;
    struct exo_interface *interface = &p->interfaces[record->interface];
    if (EXO_LIKELY(!(record->flags & EXO_RECORD_NO_STAMP)))
        count_stamp(info, record);
    info->count++;
    info->bytes += p->caplen;
    info->wire_bytes += p->wire_len;
    interface->records++;
    info->snapped += record->flags & EXO_RECORD_SNAPPED ? 1 : 0;
    if (EXO_UNLIKELY(record->flags & (EXO_RECORD_CONVERTED | EXO_RECORD_LINK_TYPE | EXO_RECORD_FCS))) {
        uint64_t converted = record->flags & EXO_RECORD_CONVERTED ? 1 : 0, refused = record->flags & EXO_RECORD_LINK_TYPE ? 1 : 0;
        interface->converted += converted;
        interface->refused += refused;
        info->converted += converted;
        info->not_ethernet += refused;
        info->fcs += record->flags & EXO_RECORD_FCS ? 1 : 0;
    }
    info->oversize += (record->flags & (EXO_RECORD_OVERSIZE | EXO_RECORD_LINK_TYPE)) == EXO_RECORD_OVERSIZE;   /* one reason each */
}

static void know_format(struct exo_trace *trace)
{
    const struct parser *p = &trace->head.parser;
    trace->info.format = p->format;
    trace->info.gzip = trace->head.input.gzip;
    trace->info.big_endian = p->swapped;
    trace->info.nanosecond = p->nanosecond;
    trace->info.interfaces = p->interface_count;
}

/* The bytes have come to their end, rightly or not. */
static void complete(struct exo_trace *trace)
{
    trace->broken = trace->head.parser.broken;
    trace->info.complete = 1;
    know_format(trace);
}

static int32_t append(struct exo_trace *trace, const struct exo_record *record)
{
    uint64_t count = trace->info.count;
    if (EXO_UNLIKELY(count == trace->record_room)) {
        uint64_t room = count ? 2 * count : FIRST_ROOM / sizeof *record;
        void *grown = grow(trace->records, count * sizeof *record, room * sizeof *record);
        if (!grown)
            return EXO_E_MEMORY;
        trace->records = grown;
        trace->record_room = room;
    }
    trace->records[count] = *record;
    count_record(trace, record);
    return 0;
}

static int32_t parse_loaded(struct exo_trace *trace)
{
    struct stream *s = &trace->head;
    struct exo_record record;
    int32_t result;
    while ((result = stream_next(s, &record)) == PARSE_RECORD)
        if (append(trace, &record) < 0)
            return EXO_E_MEMORY;
    return result;
}

/* Room for another chunk: the whole file at once where its size is known. */
static int32_t make_room(struct exo_trace *trace, uint64_t file_size)
{
    struct window *w = &trace->head.window;
    if (w->room - w->end >= LOAD_CHUNK)
        return 0;
    uint64_t room = w->room ? 2 * w->room : FIRST_ROOM;
    if (!trace->head.input.gzip && file_size + 2 * LOAD_CHUNK > room)
        room = (file_size + 2 * LOAD_CHUNK + 4095) & ~(uint64_t)4095;
    uint8_t *grown = grow(trace->data, trace->data_room, room);
    if (!grown)
        return EXO_E_MEMORY;
    trace->data = w->bytes = grown;
    trace->data_room = w->room = room;
    return 0;
}

/* 0: loaded; 1: it does not fit; EXO_E_MEMORY. The head's window is the data itself and never slides. */
static int32_t load(struct exo_trace *trace, uint64_t limit, uint64_t file_size)
{
    struct window *w = &trace->head.window;
    for (;;) {
        if (make_room(trace, trace->head.input.started ? file_size : 0) < 0)
            return EXO_E_MEMORY;
        int64_t got = input_read(&trace->head.input, w->bytes + w->end, LOAD_CHUNK);
        if (got < 0)
            return (int32_t)got;
        w->end += (size_t)got;
        w->ended = got == 0;
        trace->data_len = w->end;
        int32_t result = parse_loaded(trace);
        if (w->end + trace->info.count * sizeof *trace->records > limit)
            return 1;
        if (result == PARSE_MORE)
            continue;
        return result == EXO_E_MEMORY ? result : 0;
    }
}

static void forget_loaded(struct exo_trace *trace)
{
    unload(trace);
    stream_close(&trace->head);
    memset(&trace->info, 0, sizeof trace->info);
}

static int32_t prepare_stream(struct exo_trace *trace, uint64_t limit)
{
    trace->window = limit < WINDOW_MIN ? WINDOW_MIN : limit < WINDOW_MAX ? limit : WINDOW_MAX;
    int32_t code = stream_open(&trace->head, trace->fd, true, trace->window);
    if (code < 0)
        return code;
    trace->info.streamed = 1;
    trace->info.memory = trace->window;
    while (trace->info.count == 0 && !trace->info.complete) {
        int64_t n = exo_trace_scan(trace, 1);
        if (n < 0)
            return (int32_t)n;
    }
    know_format(trace);
    return 0;
}

int64_t exo_trace_scan(struct exo_trace *trace, uint64_t max)
{
    struct exo_record record;
    uint64_t n = 0;
    while (n < max && !trace->info.complete) {
        int32_t result = stream_next(&trace->head, &record);
        if (result == PARSE_MORE) {
            stream_release(&trace->head, false);
            if (stream_fill(&trace->head) < 0)
                return EXO_E_MEMORY;
            continue;
        }
        if (result == EXO_E_MEMORY)
            return result;
        if (result < 0)
            complete(trace);
        else if (result == PARSE_RECORD) {
            count_record(trace, &record);
            n++;
        }
    }
    return (int64_t)n;
}

static struct exo_trace *refuse(struct exo_trace *trace, struct exo_fault *fault, int32_t code, const char *why)
{
    fault->code = code;
    fault->saved_errno = errno;
    snprintf(fault->message, sizeof fault->message, "%s", why);
    exo_trace_release(trace);
    return NULL;
}

/* The first bytes as they lie in the file, for the message. */
static void show_found(struct exo_trace *trace, struct exo_fault *fault)
{
    ssize_t got = pread(trace->fd, fault->found, sizeof fault->found, 0);
    if (got < 0) {
        got = trace->data_len < sizeof fault->found ? (ssize_t)trace->data_len : (ssize_t)sizeof fault->found;
        memcpy(fault->found, trace->data, (size_t)got);
    }
    fault->found_len = (uint32_t)got;
}

/* What is no capture at all is refused. */
static struct exo_trace *judge(struct exo_trace *trace, struct exo_fault *fault)
{
    const struct parser *p = &trace->head.parser;
    if (p->broken.code && trace->info.count == 0 && p->interface_count == 0) {
        *fault = p->broken;
        show_found(trace, fault);
        exo_trace_release(trace);
        return NULL;
    }
    return trace;
}

struct exo_trace *exo_trace_open(const char *path, uint64_t memory_limit, struct exo_fault *fault)
{
    memset(fault, 0, sizeof *fault);
    struct exo_trace *trace = calloc(1, sizeof *trace);
    if (!trace)
        return refuse(NULL, fault, EXO_E_MEMORY, "out of memory");
    trace->references = 1;
    trace->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    struct stat status;
    if (trace->fd < 0 || fstat(trace->fd, &status) < 0)
        return refuse(trace, fault, EXO_E_SYSTEM, "cannot open");
    if (S_ISDIR(status.st_mode)) {
        errno = EISDIR;
        return refuse(trace, fault, EXO_E_SYSTEM, "cannot open");
    }
    bool seekable = S_ISREG(status.st_mode);
    uint64_t size = seekable ? (uint64_t)status.st_size : 0;
    int32_t code = size > memory_limit ? 1 : stream_open(&trace->head, trace->fd, seekable, 0);
    if (code == 0) {
        code = load(trace, memory_limit, size);
        if (code == 1 && !seekable)
            return refuse(trace, fault, EXO_E_FULL, "not a regular file, and larger than the memory limit: it cannot be streamed");
        if (code == 1)
            forget_loaded(trace);
    }
    if (code == 1)
        code = prepare_stream(trace, memory_limit);
    else if (code == 0) {
        complete(trace);
        trace->info.memory = trace->data_len + trace->info.count * sizeof *trace->records;
    }
    if (code < 0)
        return refuse(trace, fault, code, "out of memory");
    return judge(trace, fault);
}

const struct exo_trace_info *exo_trace_info(const struct exo_trace *trace)
{
    return &trace->info;
}

const struct exo_interface *exo_trace_interface(const struct exo_trace *trace, uint32_t number)
{
    return number < trace->head.parser.interface_count ? &trace->head.parser.interfaces[number] : NULL;
}

const struct exo_fault *exo_trace_broken(const struct exo_trace *trace)
{
    return trace->broken.code ? &trace->broken : NULL;
}

int32_t exo_trace_frame(const struct exo_trace *trace, uint64_t i, struct exo_frame *out)
{
    if (trace->info.streamed)
        return EXO_E_INVALID;
    if (i >= trace->info.count)
        return EXO_E_NOT_FOUND;
    const struct exo_record *record = &trace->records[i];
    record_frame(record, trace->data + record->offset, i, out);
    return record_reason(record);
}

int32_t exo_trace_digest(struct exo_trace *trace, uint64_t *digest)
{
    struct exo_cursor *cursor = exo_cursor_new(trace);
    if (!cursor)
        return EXO_E_MEMORY;
    uint64_t sum = 0;
    struct exo_record record;
    const uint8_t *data;
    int32_t result;
    while ((result = cursor_next(cursor, true, &record, &data)) > 0)
        if (record_reason(&record) == 0)
            sum += exo_digest(data, record.len);
    exo_cursor_free(cursor);
    if (result != EXO_E_END)
        return result;
    *digest = trace->info.digest = sum;
    return 0;
}
