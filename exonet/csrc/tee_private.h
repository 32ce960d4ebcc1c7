/* SPDX-License-Identifier: MIT
 *
 * The pcapng or classic pcap file that a tee writes: buffered, one interface, nanoseconds.
 */
#ifndef EXO_TEE_PRIVATE_H
#define EXO_TEE_PRIVATE_H

#include <stdbool.h>

#include "wrap.h"

struct tee_file {
    int fd;
    bool classic;            /* pcap: no comments, no direction */
    int error;               /* errno of the write that failed; nothing is written after it */
    uint8_t *buffer;
    size_t used;
    uint64_t bytes;          /* of the file */
};

/* Takes the descriptor and writes the file's head. 0, EXO_E_MEMORY. */
int32_t tee_file_open(struct tee_file *file, int fd, bool classic);
/* An Enhanced Packet Block, or a record. when: ns since 1970. direction: 1 inbound, 2 outbound. 1: written, 0: the file has failed. */
int tee_file_packet(struct tee_file *file, const struct exo_frame *frame, uint64_t when, uint32_t direction, const char *comment);
/* 0, EXO_E_SYSTEM. */
int32_t tee_file_flush(struct tee_file *file);
void tee_file_close(struct tee_file *file);

#endif
