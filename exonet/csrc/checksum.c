/* SPDX-License-Identifier: MIT
 *
 * Internet checksum and frame digest. Compiled into both extensions; no state.
 * Reference: RFC 1071 (the sum is byte-order independent, so it is taken in host words and folded at the end).
 */
#include <stdint.h>
#include <string.h>

#include "checksum.h"

static inline uint64_t load64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}

/* Fewer than 8 bytes, as the low bytes of a word: zero-padded at the end, as RFC 1071 pads an odd byte. */
static inline uint64_t load_tail(const uint8_t *p, uint32_t n)
{
    uint64_t v = 0;
    memcpy(&v, p, n);
    return v;
}

static inline uint64_t add_carry(uint64_t a, uint64_t b)
{
    a += b;
    return a + (a < b);
}

static inline uint16_t fold(uint64_t sum)
{
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

uint16_t exo_checksum(const uint8_t *bytes, uint32_t n, uint32_t initial)
{
    uint64_t sum = initial;
    for (; n >= 8; n -= 8, bytes += 8)
        sum = add_carry(sum, load64(bytes));
    return fold(add_carry(sum, load_tail(bytes, n)));
}

uint16_t exo_pseudo_sum(const uint8_t *addresses, uint32_t n, uint32_t protocol, uint32_t length)
{
    uint8_t tail[4] = {0, (uint8_t)protocol, (uint8_t)(length >> 8), (uint8_t)length};
    return exo_checksum(addresses, n, exo_checksum(tail, 4, 0));
}

uint16_t exo_copy_checksum(uint8_t *to, const uint8_t *from, uint32_t n, uint32_t skip)
{
    if (n <= skip) {
        memcpy(to, from, n);
        return 0;
    }
    memcpy(to, from, skip);
    to += skip;
    from += skip;
    n -= skip;
    uint64_t sum = 0;
    for (; n >= 8; n -= 8, from += 8, to += 8) {
        uint64_t v = load64(from);
        memcpy(to, &v, 8);
        sum = add_carry(sum, v);
    }
    memcpy(to, from, n);
    return fold(add_carry(sum, load_tail(from, n)));
}

/* Multiply-mix over 8-byte words, the length folded in (the idea of wyhash: 64x64->128 multiply, halves xored). */
static inline uint64_t mix(uint64_t a, uint64_t b)
{
    __extension__ unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

uint64_t exo_digest(const uint8_t *bytes, uint32_t n)
{
    const uint64_t k0 = 0xa0761d6478bd642fu, k1 = 0xe7037ed1a0b428dbu;
    uint64_t h = mix(n ^ k0, k1);
    for (; n >= 16; n -= 16, bytes += 16)
        h = mix(load64(bytes) ^ k1, load64(bytes + 8) ^ h);
    if (n >= 8) {
        h = mix(load64(bytes) ^ k1, h ^ k0);
        n -= 8;
        bytes += 8;
    }
    return mix(load_tail(bytes, n) ^ k1, h ^ k0);
}
