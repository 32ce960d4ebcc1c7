/* SPDX-License-Identifier: MIT
 *
 * The bytes of a capture file, in order, inflated where the file is gzip (RFC 1952, several members allowed). Read with
 * pread, never mapped: a file that shrinks under us ends early instead of raising SIGBUS. What is wrong with the file is
 * kept in fault and ends the bytes; everything before it has been given.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "trace_private.h"

void input_open(struct input *in, int fd, bool seekable)
{
    memset(in, 0, sizeof *in);
    in->fd = fd;
    in->seekable = seekable;
    if (seekable)
        (void)posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
}

void input_close(struct input *in)
{
    if (in->z_ready)
        inflateEnd(&in->z);
    in->z_ready = false;
    free(in->packed);
    in->packed = NULL;
}

int32_t input_rewind(struct input *in)
{
    if (!in->seekable)
        return EXO_E_INVALID;
    int fd = in->fd;
    input_close(in);
    input_open(in, fd, true);
    return 0;
}

static void set_fault(struct input *in, int32_t code, const char *what, const char *why)
{
    if (in->fault_code)
        return;
    in->fault_code = code;
    in->saved_errno = code == EXO_E_SYSTEM ? errno : 0;
    snprintf(in->fault, sizeof in->fault, "%s at byte %llu of the file: %s", what,
             (unsigned long long)(in->position - (in->packed_len - in->packed_at)), why);
    in->ended = true;
}

static size_t read_raw(struct input *in, uint8_t *to, size_t n)
{
    ssize_t got;
    if (in->fault_code)
        return 0;
    do
        got = in->seekable ? pread(in->fd, to, n, (off_t)in->position) : read(in->fd, to, n);
    while (got < 0 && errno == EINTR && in->seekable);   /* from a pipe that may be silent for ever, a signal is the way out */
    if (got < 0) {
        set_fault(in, EXO_E_SYSTEM, "read error", strerror(errno));
        return 0;
    }
    in->position += (uint64_t)got;
    return (size_t)got;
}

/* Makes sure that `want` raw bytes lie in packed, unless the file ends. */
static size_t fill_packed(struct input *in, size_t want)
{
    size_t left = in->packed_len - in->packed_at;
    if (left >= want)
        return left;
    memmove(in->packed, in->packed + in->packed_at, left);
    in->packed_at = 0;
    in->packed_len = left;
    while (in->packed_len < want) {
        size_t got = read_raw(in, in->packed + in->packed_len, PACKED_BYTES - in->packed_len);
        if (got == 0)
            break;
        in->packed_len += got;
    }
    return in->packed_len;
}

static int32_t start(struct input *in)
{
    in->started = true;
    in->packed = malloc(PACKED_BYTES);
    if (!in->packed)
        return EXO_E_MEMORY;
    in->gzip = fill_packed(in, 3) >= 3 && in->packed[0] == 0x1f && in->packed[1] == 0x8b && in->packed[2] == 8;
    if (!in->gzip)
        return 0;
    if (inflateInit2(&in->z, 16 + MAX_WBITS) != Z_OK)
        return EXO_E_MEMORY;
    in->z_ready = true;
    return 0;
}

/* A member has ended. Another may follow; zero padding (tar, tape) ends the file as gzip(1) has it. */
static void next_member(struct input *in)
{
    size_t left = fill_packed(in, 2);
    const uint8_t *at = in->packed + in->packed_at;
    if (left == 0 || at[0] == 0) {
        in->ended = true;
    } else if (left >= 2 && at[0] == 0x1f && at[1] == 0x8b) {
        inflateReset(&in->z);
    } else {
        set_fault(in, EXO_E_FORMAT, "gzip", "garbage after the compressed data");
    }
}

static size_t read_gzip(struct input *in, uint8_t *to, size_t n)
{
    z_stream *z = &in->z;
    z->next_out = to;
    z->avail_out = (uInt)n;
    while (z->avail_out == n && !in->ended) {
        size_t left = fill_packed(in, 1);
        if (left == 0) {
            set_fault(in, EXO_E_FORMAT, "gzip", "the compressed data is cut off");
            break;
        }
        z->next_in = in->packed + in->packed_at;
        z->avail_in = (uInt)left;
        int result = inflate(z, Z_NO_FLUSH);
        in->packed_at = in->packed_len - z->avail_in;
        if (result == Z_STREAM_END)
            next_member(in);
        else if (result != Z_OK)
            set_fault(in, result == Z_MEM_ERROR ? EXO_E_MEMORY : EXO_E_FORMAT, "gzip", z->msg ? z->msg : "corrupt data");
    }
    return n - z->avail_out;
}

static size_t read_plain(struct input *in, uint8_t *to, size_t n)
{
    size_t left = in->packed_len - in->packed_at;
    if (left == 0)
        return read_raw(in, to, n);
    size_t take = left < n ? left : n;
    memcpy(to, in->packed + in->packed_at, take);
    in->packed_at += take;
    return take;
}

int64_t input_read(struct input *in, uint8_t *to, size_t n)
{
    if (!in->started) {
        int32_t code = start(in);
        if (code < 0)
            return code;
    }
    if (n > (size_t)64 << 20)
        n = (size_t)64 << 20;
    if (n == 0 || (in->ended && in->gzip))
        return 0;
    return (int64_t)(in->gzip ? read_gzip(in, to, n) : read_plain(in, to, n));
}
