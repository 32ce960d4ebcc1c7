/* SPDX-License-Identifier: MIT
 *
 * How long things took: a histogram of ns in log-linear buckets, 32 to each power of two, so within 3.2 % (as HdrHistogram's).
 */
struct exo_delays {
    uint64_t count;
    uint64_t max;
    uint64_t sum;
    uint64_t bucket[1920];
};

/* n more delays of ns each. */
void exo_delays_record(struct exo_delays *delays, uint64_t ns, uint64_t n);
/* All of from's are put into `into` too. */
void exo_delays_add(struct exo_delays *into, const struct exo_delays *from);
/* The delay that `parts` in a million do not exceed: 500000 is the median. 0 where nothing was recorded. */
uint64_t exo_delays_quantile(const struct exo_delays *delays, uint32_t parts);
