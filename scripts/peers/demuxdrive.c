/* SPDX-License-Identifier: MIT
 *
 * Drives a classifier over frames in memory, burst by burst, as the kernel's receive path does: fills an array of EXO_BURST frames, asks
 * for their owners, compares each with what it must be. Built by the demux benchmark against exonet's headers.
 */
#include "exo_kernel.h"

typedef void (*classifier)(const void *self, const struct exo_frame *frames, uint32_t n, uint32_t *owners);

/* Frame i is order[i] (NULL: i) of the frames at base, stride bytes apart; right[that] owns it. All `count` of them, `rounds` times.
 * Returns how many had their right owner. */
uint64_t drive(classifier classify, const void *self, const uint8_t *base, uint32_t stride, uint32_t len, const uint32_t *order,
               uint64_t count, uint32_t rounds, const uint32_t *right)
{
    struct exo_frame frames[EXO_BURST];
    uint32_t owners[EXO_BURST];
    uint64_t good = 0, total = count * rounds;
    memset(frames, 0, sizeof frames);
    for (uint64_t done = 0, at = 0, n; done < total; done += n, at = at + n == count ? 0 : at + n) {
        n = count - at < EXO_BURST ? count - at : (uint64_t)EXO_BURST;
        for (uint32_t i = 0; i < n; i++) {
            frames[i].data = base + (order ? order[at + i] : at + i) * stride;
            frames[i].len = frames[i].wire_len = len;
        }
        classify(self, frames, (uint32_t)n, owners);
        for (uint32_t i = 0; i < n; i++)
            good += owners[i] == right[order ? order[at + i] : at + i];
    }
    return good;
}
