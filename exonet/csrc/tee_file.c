/* SPDX-License-Identifier: MIT
 *
 * The writer of the tee's file, gathered into large writes, in the host's byte order. pcapng: a Section Header, one Interface
 * Description (Ethernet, nanoseconds) and Enhanced Packet Blocks. Classic pcap with nanoseconds: no comments, and seconds end in 2106.
 * Invariant: the buffer always has room for one whole block, so a block is never split between two states of the file.
 * Reference: draft-ietf-opsawg-pcapng sections 4.1, 4.2, 4.3.
 */
#include <errno.h>
#include <unistd.h>

#include "tee_private.h"

#define BUFFER_SIZE (UINT64_C(1) << 20)
#define BLOCK_MAX (UINT64_C(1) << 17)    /* a 65535-byte frame, its options and its comment */

enum block { SECTION_HEADER = 0x0a0d0d0a, INTERFACE = 1, ENHANCED_PACKET = 6 };
enum option { OPT_END = 0, OPT_COMMENT = 1, SHB_USERAPPL = 4, IF_TSRESOL = 9, EPB_FLAGS = 2, EPB_PACKETID = 5 };

static void put(struct tee_file *file, const void *bytes, size_t n)
{
    if (n)
        memcpy(file->buffer + file->used, bytes, n);
    file->used += n;
}

static void put16(struct tee_file *file, uint16_t v) { put(file, &v, sizeof v); }
static void put32(struct tee_file *file, uint32_t v) { put(file, &v, sizeof v); }

static void pad(struct tee_file *file)
{
    static const uint8_t zeroes[4];
    put(file, zeroes, -file->used & 3);
}

static void option(struct tee_file *file, enum option code, const void *value, uint16_t n)
{
    put16(file, (uint16_t)code);
    put16(file, n);
    put(file, value, n);
    pad(file);
}

/* Begins a block; its length is filled in by end(). Flushes first where the rest of the buffer might not hold it. */
static size_t begin(struct tee_file *file, enum block type)
{
    if (file->used + BLOCK_MAX > BUFFER_SIZE)
        tee_file_flush(file);
    size_t start = file->used;
    put32(file, type);
    put32(file, 0);
    return start;
}

static void end(struct tee_file *file, size_t start)
{
    option(file, OPT_END, NULL, 0);
    uint32_t length = (uint32_t)(file->used + 4 - start);
    memcpy(file->buffer + start + 4, &length, sizeof length);
    put32(file, length);
}

static void classic_header(struct tee_file *file)
{
    put32(file, 0xa1b23c4d);     /* nanoseconds */
    put16(file, 2);
    put16(file, 4);
    put32(file, 0);
    put32(file, 0);
    put32(file, EXO_MAX_FRAME);  /* snaplen */
    put32(file, 1);              /* LINKTYPE_ETHERNET */
}

static void classic_packet(struct tee_file *file, const struct exo_frame *frame, uint32_t len, uint64_t when)
{
    if (file->used + BLOCK_MAX > BUFFER_SIZE)
        tee_file_flush(file);
    put32(file, (uint32_t)(when / 1000000000));
    put32(file, (uint32_t)(when % 1000000000));
    put32(file, len);
    put32(file, frame->wire_len < len ? len : frame->wire_len);
    put(file, frame->data, len);
}

int32_t tee_file_open(struct tee_file *file, int fd, bool classic)
{
    static const char application[] = "exonet";
    static const uint8_t nanoseconds = 9;
    *file = (struct tee_file){.fd = fd, .classic = classic, .buffer = malloc(BUFFER_SIZE)};
    if (!file->buffer)
        return EXO_E_MEMORY;
    if (classic) {
        classic_header(file);
        return 0;
    }
    size_t start = begin(file, SECTION_HEADER);
    put32(file, 0x1a2b3c4d);
    put16(file, 1);
    put16(file, 0);
    put32(file, UINT32_MAX);     /* section length: not given */
    put32(file, UINT32_MAX);
    option(file, SHB_USERAPPL, application, sizeof application - 1);
    end(file, start);
    start = begin(file, INTERFACE);
    put16(file, 1);              /* LINKTYPE_ETHERNET */
    put16(file, 0);
    put32(file, 0);              /* no snaplen */
    option(file, IF_TSRESOL, &nanoseconds, 1);
    end(file, start);
    return 0;
}

int tee_file_packet(struct tee_file *file, const struct exo_frame *frame, uint64_t when, uint32_t direction, const char *comment)
{
    if (file->error)
        return 0;
    uint32_t len = frame->len > EXO_MAX_FRAME ? EXO_MAX_FRAME : frame->len;
    if (file->classic) {
        classic_packet(file, frame, len, when);
        return 1;
    }
    size_t start = begin(file, ENHANCED_PACKET);
    put32(file, 0);              /* interface */
    put32(file, (uint32_t)(when >> 32));
    put32(file, (uint32_t)when);
    put32(file, len);
    put32(file, frame->wire_len < len ? len : frame->wire_len);
    put(file, frame->data, len);
    pad(file);
    option(file, OPT_COMMENT, comment, (uint16_t)strlen(comment));
    option(file, EPB_FLAGS, &direction, sizeof direction);
    option(file, EPB_PACKETID, &frame->id, sizeof frame->id);
    end(file, start);
    return 1;
}

int32_t tee_file_flush(struct tee_file *file)
{
    size_t done = 0;
    while (!file->error && done < file->used) {
        ssize_t n = write(file->fd, file->buffer + done, file->used - done);
        if (n >= 0)
            done += (size_t)n;
        else if (errno != EINTR)
            file->error = errno;
    }
    file->bytes += done;
    file->used = 0;
    if (!file->error)
        return 0;
    errno = file->error;
    return EXO_E_SYSTEM;
}

void tee_file_close(struct tee_file *file)
{
    close(file->fd);
    free(file->buffer);
}
