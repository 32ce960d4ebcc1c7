/* SPDX-License-Identifier: MIT
 *
 * What a kernel with one classic BPF program per binding does: asks libpcap's bpf_filter program by program until one takes the frame.
 * The demux benchmark's peer; frames, order and right owners as in demuxdrive.c.
 */
#include <stdint.h>

typedef unsigned (*filter)(const void *program, const uint8_t *packet, unsigned wire_len, unsigned len);

uint64_t drive(filter run, const void *const *programs, uint32_t count_programs, const uint8_t *base, uint32_t stride, uint32_t len,
               const uint32_t *order, uint64_t count, uint32_t rounds, const uint32_t *right)
{
    uint64_t good = 0;
    for (uint32_t round = 0; round < rounds; round++)
        for (uint64_t i = 0; i < count; i++) {
            uint64_t which = order ? order[i] : i;
            uint32_t owner = 0;
            while (owner < count_programs && !run(programs[owner], base + which * stride, len, len))
                owner++;
            good += owner == right[which];
        }
    return good;
}
