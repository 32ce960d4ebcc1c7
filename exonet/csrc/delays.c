/* SPDX-License-Identifier: MIT
 *
 * The histogram of delays: what is below 64 ns has a bucket each, what is above shares one with a 32nd of its power of two.
 */
#include "exo_kernel.h"

enum { SUB_BITS = 5, SUB = 32, BUCKETS = 1920 };

_Static_assert(sizeof((struct exo_delays *)0)->bucket / sizeof(uint64_t) == BUCKETS, "every ns has a bucket");

static uint32_t bucket_of(uint64_t ns)
{
    if (ns < SUB)
        return (uint32_t)ns;
    uint32_t power = 63 - (uint32_t)__builtin_clzll(ns);
    return (power - SUB_BITS) * SUB + (uint32_t)(ns >> (power - SUB_BITS));
}

/* The largest value that falls into a bucket. */
static uint64_t bucket_top(uint32_t bucket)
{
    if (bucket < 2 * SUB)
        return bucket;
    uint32_t power = bucket / SUB - 1;
    return (((uint64_t)bucket - power * SUB + 1) << power) - 1;
}

void exo_delays_record(struct exo_delays *delays, uint64_t ns, uint64_t n)
{
    delays->count += n;
    delays->sum += ns * n;
    if (ns > delays->max)
        delays->max = ns;
    delays->bucket[bucket_of(ns)] += n;
}

void exo_delays_add(struct exo_delays *into, const struct exo_delays *from)
{
    into->count += from->count;
    into->sum += from->sum;
    if (from->max > into->max)
        into->max = from->max;
    for (uint32_t i = 0; i < BUCKETS; i++)
        into->bucket[i] += from->bucket[i];
}

uint64_t exo_delays_quantile(const struct exo_delays *delays, uint32_t parts)
{
    if (delays->count == 0)
        return 0;
    if (parts >= 1000000)
        return delays->max;
    uint64_t want = (uint64_t)((__uint128_t)delays->count * parts / 1000000), seen = 0;
    for (uint32_t i = 0; i < BUCKETS; i++) {
        seen += delays->bucket[i];
        if (seen > want)
            return bucket_top(i) < delays->max ? bucket_top(i) : delays->max;
    }
    return delays->max;
}
