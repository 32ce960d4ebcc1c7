/* SPDX-License-Identifier: MIT
 *
 * Inside the capture reader: input (bytes of a file, inflated) -> window (a stretch of them in memory) -> parser (records).
 * trace_input.c, trace_pcap.c, trace_pcapng.c, trace_stream.c and trace.c share this; replay.c takes the cursor.
 */
#ifndef EXO_TRACE_PRIVATE_H
#define EXO_TRACE_PRIVATE_H

#include <stdbool.h>
#include <stdlib.h>
#include <zlib.h>

#include "exo_kernel.h"

enum {
    LINKTYPE_ETHERNET = 1,
    WINDOW_LEAD = 16,                /* bytes before the first one to parse: a frame made in place may begin there */
    PACKED_BYTES = 256 * 1024,
    WHOLE_BLOCK = 128 * 1024,        /* a block up to this is checked to its end before its frame is given */
    WINDOW_MIN = 192 * 1024,         /* holds any whole block */
    WINDOW_MAX = 1024 * 1024,        /* stays in the second-level cache */
    MAX_INTERFACES = 65535
};

/* A file's bytes in order, inflated where it is gzip. Several inputs may share one descriptor: they pread. */
struct input {
    int fd;
    bool seekable;
    bool gzip;
    bool started;
    bool ended;
    bool z_ready;
    uint64_t position;               /* of the next raw byte to read */
    uint8_t *packed;                 /* raw bytes read and not yet used */
    size_t packed_at;
    size_t packed_len;
    z_stream z;
    int32_t fault_code;              /* why it ended early; 0: it did not */
    int32_t saved_errno;
    char fault[128];
};

struct parser {
    uint32_t format;                 /* 0: the header is still to come */
    bool swapped;
    bool nanosecond;
    bool lengths_swapped;
    uint32_t record_header;
    uint32_t max_caplen;
    uint32_t section;
    uint32_t section_base;           /* first interface of the section */
    uint64_t offset;                 /* in the uncompressed file, of the next byte to parse */
    uint64_t records;
    uint64_t skip;                   /* bytes to pass over first */
    uint64_t need;                   /* bytes that the last PARSE_MORE wanted */
    uint32_t caplen;                 /* of the last record, as the file has them */
    uint32_t wire_len;
    uint32_t trailer;                /* then the block length that must stand there again */
    struct exo_interface *interfaces;
    uint32_t interface_count;
    uint32_t interface_room;
    struct exo_fault broken;
};

enum parse_result { PARSE_MORE = 0, PARSE_RECORD = 1 };

void input_open(struct input *in, int fd, bool seekable);
void input_close(struct input *in);
int32_t input_rewind(struct input *in);
/* Up to n bytes; 0: the end, early if fault_code is set. EXO_E_MEMORY. */
int64_t input_read(struct input *in, uint8_t *to, size_t n);

void parser_free(struct parser *p);
void parser_rewind(struct parser *p);
/* The next record in avail bytes at `at`; used: bytes consumed, also when more are wanted. Record offsets are relative to `at`: a frame made
 * in place lies in bytes that are consumed, and may begin up to WINDOW_LEAD bytes before `at`. */
int32_t parser_next(struct parser *p, uint8_t *at, size_t avail, size_t *used, struct exo_record *record);
/* The bytes have ended with avail left over: EXO_E_END, or EXO_E_FORMAT with broken filled in. */
int32_t parser_end(struct parser *p, size_t avail, const struct input *in);
int32_t parser_break(struct parser *p, uint64_t at, const char *format, ...) __attribute__((format(printf, 3, 4)));
int32_t parser_interface(struct parser *p, const struct exo_interface *interface);
int32_t parser_more(struct parser *p, uint64_t need);
/* The last word on a record whose bytes are all there, an FCS of so many bytes among them: its lengths, its flags, and the frame that a
 * packet of another link type becomes. */
void parser_finish(struct parser *p, uint8_t *at, uint32_t fcs, struct exo_record *record);
/* pcapng's part. */
int32_t pcapng_next(struct parser *p, uint8_t *at, size_t avail, size_t *used, struct exo_record *record);

static inline uint16_t get16(const struct parser *p, const uint8_t *at)
{
    uint16_t v;
    memcpy(&v, at, 2);
    return p->swapped ? __builtin_bswap16(v) : v;
}

static inline uint32_t get32(const struct parser *p, const uint8_t *at)
{
    uint32_t v;
    memcpy(&v, at, 4);
    return p->swapped ? __builtin_bswap32(v) : v;
}

/* A stretch of the file in memory: the whole of it (it grows), or a window that slides. */
struct window {
    uint8_t *bytes;
    size_t room;
    size_t at;                       /* next byte to parse */
    size_t end;
    bool ended;
};

/* buffers[0..held] hold what was given since stream_release, the last of them is the window. */
struct stream {
    struct input input;
    struct parser parser;
    struct window window;
    uint8_t *buffers[EXO_BURST];     /* made when they are needed; a loaded trace has none */
    uint32_t held;
    bool given;                      /* a record in the window, since it was filled */
};

int32_t stream_open(struct stream *s, int fd, bool seekable, size_t window);
void stream_close(struct stream *s);
int32_t stream_rewind(struct stream *s);
/* Reads on; records that were given stay where they are. 1: done; 0: too much is held, stream_release first; a negative code. */
int32_t stream_fill(struct stream *s);
/* What was given before is not needed any more; but_last: all but the last record. */
void stream_release(struct stream *s, bool but_last);
/* 1: a record, its offset in window.bytes; 0: stream_fill first; EXO_E_END, EXO_E_FORMAT (see parser.broken). */
int32_t stream_next(struct stream *s, struct exo_record *record);

struct exo_trace {
    uint32_t references;
    int fd;
    uint64_t window;                 /* a stream's */
    uint8_t *data;                   /* loaded: the file's bytes */
    size_t data_room;
    size_t data_len;
    struct exo_record *records;
    uint64_t record_room;
    struct exo_trace_info info;
    struct exo_fault broken;
    struct stream head;              /* loads or scans; its parser keeps the interfaces */
};

struct exo_cursor {
    struct exo_trace *trace;
    uint64_t next;                   /* number of the next record */
    struct stream stream;
    bool streamed;
    bool ended;
};

struct exo_trace *trace_retain(struct exo_trace *trace);
/* 1: a record and its bytes, which stay until a call with fresh; 0: they would not, call again with it; EXO_E_END; EXO_E_MEMORY. */
int32_t cursor_next(struct exo_cursor *cursor, bool fresh, struct exo_record *record, const uint8_t **data);

static inline int32_t record_reason(const struct exo_record *record)
{
    if (EXO_LIKELY(!(record->flags & (EXO_RECORD_LINK_TYPE | EXO_RECORD_OVERSIZE))))
        return 0;
    return record->flags & EXO_RECORD_LINK_TYPE ? EXO_R_SOURCE_LINK_TYPE : EXO_R_SOURCE_OVERSIZE;
}

_Static_assert(EXO_RECORD_SNAPPED << 1 == EXO_F_SNAPPED && EXO_RECORD_CONVERTED << 10 == EXO_F_CONVERTED, "record_flags shifts");

static inline uint32_t record_flags(const struct exo_record *record)
{
    return (record->flags & (uint32_t)EXO_RECORD_SNAPPED) << 1 | (record->flags & (uint32_t)EXO_RECORD_CONVERTED) << 10;
}

/* More than a frame can hold is passed over by a stream and may be cut off in a file: len is 0 then. */
static inline void record_frame(const struct exo_record *record, const uint8_t *data, uint64_t id, struct exo_frame *out)
{
    *out = (struct exo_frame){
        .data = data,
        .len = record->len <= EXO_MAX_FRAME ? record->len : 0,
        .wire_len = record->wire_len,
        .stamp = record->stamp,
        .id = id,
        .flags = record_flags(record),
        .link_type = record->link_type,
    };
}

#endif
