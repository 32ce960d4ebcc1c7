/* SPDX-License-Identifier: MIT
 *
 * pcapng blocks: section header (either byte order, several of them), interface description, enhanced, simple and (obsolete)
 * packet block. Every other block is passed over. A block's length must be a multiple of four, hold its fixed part, and stand
 * again at its end.
 * Reference: draft-ietf-opsawg-pcapng.
 */
#include "trace_private.h"

enum block_type {
    BLOCK_INTERFACE = 1,
    BLOCK_PACKET = 2,
    BLOCK_SIMPLE = 3,
    BLOCK_ENHANCED = 6,
    BLOCK_SECTION = 0x0a0d0d0a
};
enum option { OPTION_END = 0, OPTION_EPB_FLAGS = 2, OPTION_TSRESOL = 9, OPTION_FCSLEN = 13, OPTION_TSOFFSET = 14 };

/* A block being read: at its first byte, `len` as it claims. */
struct block {
    uint8_t *at;
    size_t avail;
    uint64_t where;                  /* offset of at from what pcapng_next was shown */
    uint32_t type;
    uint32_t len;
};

/* 10 to the 19th is the largest power of ten that fits. */
static uint64_t power_of_ten(uint32_t n)
{
    uint64_t v = 1;
    while (n-- > 0)
        v *= 10;
    return v;
}

static void set_stamp(struct exo_record *record, __int128_t ns)
{
    __int128_t kept = ns < 0 ? 0 : ns > INT64_MAX ? INT64_MAX : ns;
    record->stamp = (uint64_t)kept;
    if (EXO_UNLIKELY(kept != ns))
        record->flags |= EXO_RECORD_CLAMPED;
}

static void stamp_record(const struct exo_interface *interface, uint64_t ticks, struct exo_record *record)
{
    uint32_t resolution = interface->tsresol & 0x7f;
    if (EXO_LIKELY(interface->tsoffset == 0 && ticks < 9000000000000000ull)) {
        if (interface->tsresol == 6) {
            record->stamp = ticks * 1000;
            return;
        }
    }
    __uint128_t ns;
    if (interface->tsresol & 0x80)
        ns = ((__uint128_t)ticks * 1000000000u) >> resolution;
    else if (resolution <= 9)
        ns = (__uint128_t)ticks * power_of_ten(9 - resolution);
    else
        ns = resolution - 9 <= 19 ? ticks / power_of_ten(resolution - 9) : 0;
    set_stamp(record, (__int128_t)ns + (__int128_t)interface->tsoffset * 1000000000);
}

/* if_fcslen is in bits by the draft of old and in bytes by what programs write: 32 and 4 are the same. */
static uint16_t fcs_bytes(uint8_t value)
{
    if (value >= 16 && value % 8 == 0)
        return value / 8;
    return value <= 8 ? value : 0;
}

static void interface_option(const struct parser *p, struct exo_interface *interface, uint32_t code, const uint8_t *value,
                             uint32_t len)
{
    if (code == OPTION_TSRESOL && len >= 1) {
        interface->tsresol = value[0];
    } else if (code == OPTION_FCSLEN && len >= 1) {
        interface->fcslen = fcs_bytes(value[0]);
    } else if (code == OPTION_TSOFFSET && len >= 8) {
        uint64_t v;
        memcpy(&v, value, 8);
        interface->tsoffset = (int64_t)(p->swapped ? __builtin_bswap64(v) : v);
    }
}

static int32_t interface_block(struct parser *p, const struct block *b)
{
    if (b->len < 20)
        return parser_break(p, b->where, "interface block of %u bytes, 20 are the least", b->len);
    struct exo_interface interface = {
        .link_type = get16(p, b->at + 8),
        .snaplen = get32(p, b->at + 12),
        .section = p->section - 1,
        .tsresol = 6,
    };
    uint32_t at = 16, end = b->len - 4;
    while (end - at >= 4) {
        uint32_t code = get16(p, b->at + at), len = get16(p, b->at + at + 2);
        at += 4;
        if (code == OPTION_END)
            break;
        if (len > end - at)
            return parser_break(p, b->where + at - 4, "interface option %u claims %u bytes, %u are left in the block", code, len,
                                end - at);
        interface_option(p, &interface, code, b->at + at, len);
        at += (len + 3) & ~3u;
        if (at > end)
            break;
    }
    return parser_interface(p, &interface);
}

/* Reads the section header's byte order, then its length: the only block that tells its own. */
static int32_t section_block(struct parser *p, struct block *b)
{
    if (b->avail < 24)
        return parser_more(p, 24);
    uint32_t order;
    memcpy(&order, b->at + 8, 4);
    if (order != 0x1a2b3c4d && order != 0x4d3c2b1a)
        return parser_break(p, b->where + 8, "section header with byte-order mark 0x%08x, expected 0x1a2b3c4d",
                            __builtin_bswap32(order));
    p->swapped = order == 0x4d3c2b1a;
    b->len = get32(p, b->at + 4);
    uint16_t major = get16(p, b->at + 12), minor = get16(p, b->at + 14);
    if (b->len < 28 || b->len % 4)
        return parser_break(p, b->where + 4, "section header of %u bytes, expected a multiple of 4 from 28", b->len);
    if (major != 1)
        return parser_break(p, b->where + 12, "pcapng version %u.%u, expected 1.x", major, minor);
    p->section++;
    p->section_base = p->interface_count;
    return PARSE_RECORD;
}

/* Where the fields of a packet-carrying block lie. Returns its fixed length, 0 for a block that carries none. */
static uint32_t packet_fields(const struct parser *p, const struct block *b, uint32_t *interface, uint64_t *ticks, uint32_t *caplen,
                              uint32_t *len)
{
    const uint8_t *at = b->at;
    if (b->type == BLOCK_SIMPLE) {
        *interface = 0;
        *len = get32(p, at + 8);
        *caplen = *len;
        return 12;
    }
    *interface = b->type == BLOCK_ENHANCED ? get32(p, at + 8) : get16(p, at + 8);
    *ticks = (uint64_t)get32(p, at + 12) << 32 | get32(p, at + 16);
    *caplen = get32(p, at + 20);
    *len = get32(p, at + 24);
    return 28;
}

/* A simple packet block does not say how much was captured: the snaplen and the block's end do. */
static uint32_t simple_caplen(const struct exo_interface *interface, uint32_t len, uint32_t room)
{
    if (interface->snaplen && len > interface->snaplen)
        len = interface->snaplen;
    return len < room ? len : room;
}

/* Bytes of FCS by the packet's own flags (epb_flags, bits 5 to 8); 0 there says nothing, and the interface's count. Options that break
 * their form are not read on: they are the packet's last word, and nothing hangs on it. */
static uint32_t packet_fcs(const struct parser *p, const struct block *b, uint32_t at, uint32_t fcs)
{
    uint32_t end = b->len - 4;
    while (end - at >= 8) {
        uint32_t code = get16(p, b->at + at), len = get16(p, b->at + at + 2);
        if (code == OPTION_END || len > end - at - 4)
            break;
        if (code == OPTION_EPB_FLAGS && len == 4) {
            uint32_t own = get32(p, b->at + at + 4) >> 5 & 0xf;
            return own ? own : fcs;
        }
        at += 4 + ((len + 3) & ~3u);
        if (at > end)
            break;
    }
    return fcs;
}

static int32_t packet_block(struct parser *p, const struct block *b, size_t *used, struct exo_record *record)
{
    uint32_t least = b->type == BLOCK_SIMPLE ? 16 : 32;
    if (b->len < least)
        return parser_break(p, b->where, "packet block of %u bytes, %u are the least", b->len, least);
    if (b->avail < least)
        return parser_more(p, b->len);
    uint32_t number, caplen, len;
    uint64_t ticks = 0;
    uint32_t fixed = packet_fields(p, b, &number, &ticks, &caplen, &len);
    if (number >= p->interface_count - p->section_base)
        return parser_break(p, b->where + 8, "record %llu names interface %u, the section describes %u",
                            (unsigned long long)p->records, number, p->interface_count - p->section_base);
    const struct exo_interface *interface = &p->interfaces[p->section_base + number];
    uint32_t room = b->len - fixed - 4;
    if (b->type == BLOCK_SIMPLE)
        caplen = simple_caplen(interface, len, room);
    if (caplen > room)
        return parser_break(p, b->where, "record %llu claims %u captured bytes, its block has room for %u",
                            (unsigned long long)p->records, caplen, room);
    *record = (struct exo_record){
        .offset = b->where + fixed,
        .len = caplen,
        .wire_len = len,
        .interface = (uint16_t)(p->section_base + number),
    };
    if (b->type == BLOCK_SIMPLE)
        record->flags = EXO_RECORD_NO_STAMP;
    else
        stamp_record(interface, ticks, record);
    uint32_t fcs = interface->fcslen;
    if (EXO_LIKELY(b->len <= WHOLE_BLOCK)) {
        uint32_t options = fixed + ((caplen + 3) & ~3u);
        if (b->type == BLOCK_ENHANCED && options + 4 < b->len)
            fcs = packet_fcs(p, b, options, fcs);
        *used = b->len;
    } else {
        uint32_t shown = caplen <= EXO_MAX_FRAME ? fixed + caplen : fixed;
        if (b->avail < shown)
            return parser_more(p, shown);
        *used = shown;
        p->skip = b->len - 4 - shown;
        p->trailer = b->len;
    }
    parser_finish(p, b->at - b->where, fcs, record);
    return PARSE_RECORD;
}

static int32_t check_trailer(struct parser *p, const uint8_t *at, uint64_t where, uint32_t len)
{
    uint32_t again = get32(p, at);
    if (EXO_LIKELY(again == len))
        return 0;
    return parser_break(p, where, "a block's length is %u at its start and %u at its end", len, again);
}

static bool carries_packet(uint32_t type)
{
    return type == BLOCK_ENHANCED || type == BLOCK_SIMPLE || type == BLOCK_PACKET;
}

/* One block. PARSE_RECORD with *used bytes consumed; record untouched unless it carries a packet. */
static int32_t one_block(struct parser *p, struct block *b, size_t *used, struct exo_record *record)
{
    b->type = get32(p, b->at);
    if (b->type == BLOCK_SECTION) {
        int32_t code = section_block(p, b);
        if (code != PARSE_RECORD)
            return code;
        *used = 24;
        p->skip = b->len - 28;
        p->trailer = b->len;
        return PARSE_RECORD;
    }
    b->len = get32(p, b->at + 4);
    if (b->len < 12 || b->len % 4)
        return parser_break(p, b->where + 4, "block of %u bytes, expected a multiple of 4 from 12", b->len);
    bool packet = carries_packet(b->type);
    if (!packet && b->type != BLOCK_INTERFACE) {
        *used = 8;
        p->skip = b->len - 12;
        p->trailer = b->len;
        return PARSE_RECORD;
    }
    if (b->len <= WHOLE_BLOCK) {
        if (b->avail < b->len)
            return parser_more(p, b->len);
        if (check_trailer(p, b->at + b->len - 4, b->where + b->len - 4, b->len) < 0)
            return EXO_E_FORMAT;
    }
    if (packet)
        return packet_block(p, b, used, record);
    if (b->len > WHOLE_BLOCK)
        return parser_break(p, b->where, "interface block of %u bytes, %u are the most", b->len, WHOLE_BLOCK);
    int32_t code = interface_block(p, b);
    *used = b->len;
    return code < 0 ? code : PARSE_RECORD;
}

int32_t pcapng_next(struct parser *p, uint8_t *at, size_t avail, size_t *used, struct exo_record *record)
{
    size_t done = 0;
    for (;;) {
        *used = done;
        if (p->skip) {
            size_t take = p->skip < avail - done ? (size_t)p->skip : avail - done;
            p->skip -= take;
            done += take;
            *used = done;
            if (p->skip)
                return parser_more(p, p->skip);
        }
        if (p->trailer) {
            if (avail - done < 4)
                return parser_more(p, 4);
            if (check_trailer(p, at + done, done, p->trailer) < 0)
                return EXO_E_FORMAT;
            p->trailer = 0;
            done += 4;
            *used = done;
        }
        if (avail - done < 12)
            return parser_more(p, 12);
        struct block b = {.at = at + done, .avail = avail - done, .where = done};
        size_t step = 0;
        int32_t result = one_block(p, &b, &step, record);
        if (result != PARSE_RECORD)
            return result;
        done += step;
        if (carries_packet(b.type)) {
            *used = done;
            return PARSE_RECORD;
        }
    }
}
