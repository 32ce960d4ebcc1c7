/* SPDX-License-Identifier: MIT
 *
 * IPv4 options: the check of those that came, and those that an echo reply takes back.
 * Reference: RFC 791 3.1, RFC 1122 3.2.1.8 and 3.2.2.6, RFC 781 (timestamps), RFC 7126 (what is dropped).
 */
#include "stk_private.h"

enum { OPTION_END = 0, OPTION_NOP = 1, OPTION_RECORD_ROUTE = 7, OPTION_TIMESTAMP = 68, OPTION_LSRR = 131, OPTION_SSRR = 137 };
enum { STAMP_ONLY = 0, STAMP_ADDRESS = 1, STAMP_PRESPECIFIED = 3, STAMP_OVERFLOWS = 15 };
enum { LENGTH = 1, POINTER = 2, FLAGS = 3 }; /* octets of an option; the pointer counts from 1 */

#define DAY_MS 86400000u
#define NOT_UNIVERSAL 0x80000000u /* RFC 791 3.1: a time that does not count from midnight UT */

/* Of a record route or timestamp option: the octet that is wrong, or 0. Full is right; room for a part of an entry is not. */
static uint32_t record_wrong(const uint8_t *option)
{
    uint32_t stamp = option[0] == OPTION_TIMESTAMP, first = stamp ? 5 : 4, entry = 4, length = option[LENGTH];
    if (length < first - 1)
        return LENGTH;
    if (option[POINTER] < first)
        return POINTER;
    if (stamp) {
        uint32_t kind = option[FLAGS] & 15;
        if (kind != STAMP_ONLY && kind != STAMP_ADDRESS && kind != STAMP_PRESPECIFIED)
            return FLAGS;
        if (option[POINTER] > length && option[FLAGS] >> 4 == STAMP_OVERFLOWS)
            return FLAGS;
        entry = kind == STAMP_ONLY ? 4 : 8;
    }
    return option[POINTER] <= length && option[POINTER] + entry - 1 > length ? POINTER : 0;
}

/* RFC 1122 3.2.2.5: a parameter problem, the pointer in the first octet. */
static int32_t problem(struct stk *s, const struct stk_packet *p, uint32_t at)
{
    stk_icmp_error(s, p, 12, 0, at << 24);
    return EXO_R_STACK_IP_HEADER;
}

int32_t stk_ip4_options_check(struct stk *s, const struct stk_packet *p, uint32_t header)
{
    uint32_t records = 0;
    for (uint32_t at = STK_IP4; at < header;) {
        uint32_t kind = p->ip[at];
        if (kind == OPTION_END)
            return EXO_R_DELIVERED;
        if (kind == OPTION_NOP) {
            at++;
            continue;
        }
        if (at + 2 > header || p->ip[at + LENGTH] < 2 || at + p->ip[at + LENGTH] > header)
            return problem(s, p, at);
        if (kind == OPTION_LSRR || kind == OPTION_SSRR)
            return EXO_R_STACK_REFUSED; /* RFC 7126 4.3, 4.4: source routes are dropped, silently */
        if (kind == OPTION_RECORD_ROUTE || kind == OPTION_TIMESTAMP) {
            uint32_t seen = kind == OPTION_TIMESTAMP ? 1 : 2, wrong = record_wrong(p->ip + at);
            if (wrong != 0 || (records & seen))
                return problem(s, p, at + wrong); /* at most once in a datagram */
            records |= seen;
        }
        at += p->ip[at + LENGTH];
    }
    return EXO_R_DELIVERED;
}

static void record_route(uint8_t *option, const uint8_t *own)
{
    if (option[POINTER] > option[LENGTH])
        return;
    memcpy(option + option[POINTER] - 1, own, 4);
    option[POINTER] = (uint8_t)(option[POINTER] + 4);
}

static void record_time(const struct stk *s, uint8_t *option, const uint8_t *own)
{
    uint32_t kind = option[FLAGS] & 15;
    uint8_t *entry = option + option[POINTER] - 1, address[16];
    if (option[POINTER] > option[LENGTH]) {
        option[FLAGS] = (uint8_t)(option[FLAGS] + 16); /* one host more that had no room */
        return;
    }
    if (kind == STAMP_PRESPECIFIED) {
        address_set(address, 4, entry);
        if (!same16(address, own) && !stk_own(s, 4, address))
            return;
    }
    if (kind == STAMP_ADDRESS)
        memcpy(entry, own, 4);
    if (kind != STAMP_ONLY)
        entry += 4;
    put32(entry, (uint32_t)(s->now / 1000000u % DAY_MS) | NOT_UNIVERSAL);
    option[POINTER] = (uint8_t)(entry + 5 - option);
}

uint32_t stk_ip4_options_echo(const struct stk *s, const struct stk_packet *p, const uint8_t *own, uint8_t *out)
{
    uint32_t header = (p->ip[0] & 15) * 4u, n = 0;
    for (uint32_t at = STK_IP4; at < header && p->ip[at] != OPTION_END;) {
        const uint8_t *option = p->ip + at;
        if (option[0] == OPTION_NOP) {
            at++;
            continue;
        }
        if (option[0] == OPTION_RECORD_ROUTE || option[0] == OPTION_TIMESTAMP) {
            memcpy(out + n, option, option[LENGTH]);
            if (option[0] == OPTION_RECORD_ROUTE)
                record_route(out + n, own);
            else
                record_time(s, out + n, own);
            n += option[LENGTH];
        }
        at += option[LENGTH];
    }
    while (n % 4 != 0)
        out[n++] = OPTION_END;
    return n;
}
