/* SPDX-License-Identifier: MIT
 *
 * Records out of bytes: which format it is, and classic pcap. A parser holds no bytes; it is shown some, says how many it
 * used, and is shown the rest again with more behind it. No length is believed before it is compared with a bound.
 * Reference: draft-ietf-opsawg-pcap; the modified format (magic 0xa1b2cd34) as libpcap's sf-pcap.c reads it.
 */
#include <stdarg.h>
#include <stdio.h>

#include "trace_private.h"

enum { ETHERNET_HEADER = 14, FILE_HEADER = 24, LIBPCAP_SNAPLEN = 262144, SANE_SNAPLEN = 128 * 1024 * 1024 };

int32_t parser_break(struct parser *p, uint64_t at, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vsnprintf(p->broken.message, sizeof p->broken.message, format, list);
    va_end(list);
    p->broken.code = EXO_E_FORMAT;
    p->broken.offset = p->offset + at;
    p->broken.record = p->records;
    return EXO_E_FORMAT;
}

int32_t parser_more(struct parser *p, uint64_t need)
{
    p->need = need;
    return PARSE_MORE;
}

void parser_free(struct parser *p)
{
    free(p->interfaces);
    p->interfaces = NULL;
}

void parser_rewind(struct parser *p)
{
    struct exo_interface *interfaces = p->interfaces;
    uint32_t room = p->interface_room;
    memset(p, 0, sizeof *p);
    p->interfaces = interfaces;
    p->interface_room = room;
}

int32_t parser_interface(struct parser *p, const struct exo_interface *interface)
{
    if (p->interface_count == MAX_INTERFACES)
        return parser_break(p, 0, "more than %u interfaces", MAX_INTERFACES);
    if (p->interface_count == p->interface_room) {
        uint32_t room = p->interface_room ? 2 * p->interface_room : 8;
        struct exo_interface *grown = realloc(p->interfaces, room * sizeof *grown);
        if (!grown)
            return EXO_E_MEMORY;
        p->interfaces = grown;
        p->interface_room = room;
    }
    p->interfaces[p->interface_count++] = *interface;
    return 0;
}

/* The Ethernet frame in place of the packet; the record's own header, which was read, is where its first bytes come to lie. */
static void convert(const struct exo_link *link, uint8_t *at, struct exo_record *record)
{
    bool whole = link->flags & EXO_LINK_WHOLE;
    uint32_t head = whole ? 0 : ETHERNET_HEADER;
    uint8_t header[ETHERNET_HEADER];
    record->offset += link->header;
    if (!whole) {
        exo_link_ethernet(link, at + record->offset, header);
        record->offset -= head;
        memcpy(at + (int64_t)record->offset, header, head);
    }
    record->len = link->len + head;
    record->wire_len = link->wire_len > UINT32_MAX - head ? UINT32_MAX : link->wire_len + head;
}

/* A packet that is not plainly an Ethernet frame. More than a frame can hold was passed over: its bytes are not there. */
static void adapt(struct parser *p, uint8_t *at, uint32_t fcs, struct exo_record *record)
{
    uint32_t link_type = p->interfaces[record->interface].link_type;
    struct exo_link link;
    bool there = record->len <= EXO_MAX_FRAME, foreign = link_type != LINKTYPE_ETHERNET;
    bool known = there ? exo_link_parse(link_type, fcs, at + record->offset, record->len, record->wire_len, &link) : exo_link_known(link_type);
    record->link_type = foreign ? link_type : 0;
    if (!known) {
        record->flags |= EXO_RECORD_LINK_TYPE;
    } else if (there) {
        record->flags |= (foreign ? EXO_RECORD_CONVERTED : 0) | (fcs ? EXO_RECORD_FCS : 0);
        convert(&link, at, record);
    }
}

void parser_finish(struct parser *p, uint8_t *at, uint32_t fcs, struct exo_record *record)
{
    const struct exo_interface *interface = &p->interfaces[record->interface];
    uint32_t most = interface->snaplen && interface->snaplen < record->wire_len ? interface->snaplen : record->wire_len;
    p->caplen = record->len;
    p->wire_len = record->wire_len;
    if (EXO_UNLIKELY(record->len > most && record->len <= EXO_MAX_FRAME))
        record->len = most;      /* a packet is no longer than it was on the wire or than the snaplen: libpcap */
    if (EXO_UNLIKELY(fcs || interface->link_type != LINKTYPE_ETHERNET))
        adapt(p, at, fcs, record);
    if (record->len < record->wire_len)
        record->flags |= EXO_RECORD_SNAPPED;
    if (EXO_UNLIKELY(record->wire_len > EXO_MAX_FRAME || record->len > EXO_MAX_FRAME))
        record->flags |= EXO_RECORD_OVERSIZE;
}

static int32_t pcap_header(struct parser *p, const uint8_t *at, uint32_t magic)
{
    p->record_header = magic == 0xa1b2cd34 ? 24 : 16;
    p->nanosecond = magic == 0xa1b23c4d;
    uint16_t major = get16(p, at + 4), minor = get16(p, at + 6);
    if (major != 2)
        return parser_break(p, 4, "pcap version %u.%u, expected 2.x", major, minor);
    p->lengths_swapped = minor < 3;
    struct exo_interface interface = {
        .link_type = get32(p, at + 20) & 0x03ffffff,
        .snaplen = get32(p, at + 16),
        .tsresol = p->nanosecond ? 9 : 6,
    };
    uint32_t upper = get32(p, at + 20);
    if (upper & 0x04000000)
        interface.fcslen = (uint16_t)(upper >> 28) * 2;    /* in words of 16 bits */
    p->max_caplen = interface.snaplen > LIBPCAP_SNAPLEN ? interface.snaplen : LIBPCAP_SNAPLEN;
    if (p->max_caplen > SANE_SNAPLEN)
        p->max_caplen = SANE_SNAPLEN;
    p->format = EXO_TRACE_PCAP;
    return parser_interface(p, &interface);
}

/* The file's first bytes. pcapng needs none consumed: its section header is a block like others. */
static int32_t file_header(struct parser *p, const uint8_t *at, size_t avail, size_t *used)
{
    if (avail < 4)
        return parser_more(p, 4);
    uint32_t magic;
    memcpy(&magic, at, 4);
    if (magic == 0x0a0d0d0a) {
        p->format = EXO_TRACE_PCAPNG;
        return 0;
    }
    uint32_t turned = __builtin_bswap32(magic);
    p->swapped = turned == 0xa1b2c3d4 || turned == 0xa1b23c4d || turned == 0xa1b2cd34;
    magic = p->swapped ? turned : magic;
    if (magic != 0xa1b2c3d4 && magic != 0xa1b23c4d && magic != 0xa1b2cd34)
        return parser_break(p, 0, "not a capture");
    if (avail < FILE_HEADER)
        return parser_more(p, FILE_HEADER);
    int32_t code = pcap_header(p, at, magic);
    if (code < 0)
        return code;
    *used = FILE_HEADER;
    return 0;
}

static int32_t pcap_next(struct parser *p, uint8_t *at, size_t avail, size_t *used, struct exo_record *record)
{
    uint32_t header = p->record_header;
    if (avail < header)
        return parser_more(p, header);
    uint32_t seconds = get32(p, at), fraction = get32(p, at + 4), caplen = get32(p, at + 8), len = get32(p, at + 12);
    if (EXO_UNLIKELY(p->lengths_swapped)) {
        uint32_t swap = caplen;
        caplen = len;
        len = swap;
    }
    if (EXO_UNLIKELY(caplen > p->max_caplen))
        return parser_break(p, 0, "record %llu claims %u captured bytes, more than the %u that may be",
                            (unsigned long long)p->records, caplen, p->max_caplen);
    if (EXO_LIKELY(caplen <= EXO_MAX_FRAME) && avail - header < caplen)
        return parser_more(p, (uint64_t)header + caplen);
    *record = (struct exo_record){
        .offset = header,
        .stamp = seconds * 1000000000ull + fraction * (p->nanosecond ? 1ull : 1000ull),
        .len = caplen,
        .wire_len = len,
        .flags = EXO_UNLIKELY(fraction >= (p->nanosecond ? 1000000000u : 1000000u)) ? EXO_RECORD_FRACTION : 0,
    };
    parser_finish(p, at, p->interfaces[0].fcslen, record);
    *used = header;
    if (EXO_LIKELY(caplen <= EXO_MAX_FRAME))
        *used += caplen;
    else
        p->skip = caplen;
    return PARSE_RECORD;
}

static size_t pass_over(struct parser *p, size_t avail)
{
    size_t take = p->skip < avail ? (size_t)p->skip : avail;
    p->skip -= take;
    p->offset += take;
    return take;
}

int32_t parser_next(struct parser *p, uint8_t *at, size_t avail, size_t *used, struct exo_record *record)
{
    *used = 0;
    if (EXO_UNLIKELY(p->broken.code))
        return EXO_E_FORMAT;
    size_t before = p->skip ? pass_over(p, avail) : 0;
    if (EXO_UNLIKELY(p->format == 0)) {
        int32_t code = file_header(p, at, avail, &before);
        if (code < 0 || p->format == 0)
            return code;
        p->offset += before;
    }
    if (p->skip) {
        *used = before;
        return parser_more(p, p->skip);
    }
    size_t step = 0;
    int32_t result = (p->format == EXO_TRACE_PCAP ? pcap_next : pcapng_next)(p, at + before, avail - before, &step, record);
    p->offset += step;
    *used = before + step;
    if (result == PARSE_RECORD) {
        record->offset += before;
        p->records++;
    }
    return result;
}

int32_t parser_end(struct parser *p, size_t avail, const struct input *in)
{
    if (p->broken.code)
        return EXO_E_FORMAT;
    if (in->fault_code) {
        parser_break(p, avail, "%s", in->fault);
        p->broken.code = in->fault_code;
        p->broken.saved_errno = in->saved_errno;
        return EXO_E_FORMAT;
    }
    if (avail == 0 && p->format && !p->skip && !p->trailer && (p->format == EXO_TRACE_PCAP || p->section))
        return EXO_E_END;
    return parser_break(p, 0, "truncated: %llu bytes are wanted, %zu are left", (unsigned long long)p->need, avail);
}
