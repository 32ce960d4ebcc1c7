/* SPDX-License-Identifier: MIT
 *
 * Programs of classic BPF that a conjunct asks besides its box: what compares two fields, or follows an offset that is computed. The
 * verdict is libpcap's `bpf_filter`'s. Equal programs of a demux are one. A program has no loop (every jump goes forward), so it ends
 * within its length; loads are bounded by the captured bytes, and a program that reaches beyond them refuses the frame.
 * Reference: McCanne, Jacobson, "The BSD Packet Filter", 1993.
 */
#include "demux_private.h"

#include <stdlib.h>

enum { CELLS = 16 };
enum { LD, LDX, ST, STX, ALU, JMP, RET, MISC };

static int valid_jump(const struct exo_instruction *i, uint32_t left)
{
    uint32_t kind = i->code >> 4;
    return i->code & 0xff00 || kind > 4 ? 0 : kind == 0 ? i->k < left : i->jt < left && i->jf < left;
}

static int valid_load(const struct exo_instruction *i)
{
    switch (i->code) {
    case 0x00: case 0x01: case 0x20: case 0x28: case 0x30: case 0x40: case 0x48: case 0x50: case 0x80: case 0x81: case 0xb1: return 1;
    case 0x60: case 0x61: return i->k < CELLS;
    default: return 0;
    }
}

static int valid(const struct exo_instruction *i, uint32_t left)
{
    switch (i->code & 7) {
    case LD: case LDX: return valid_load(i);
    case ST: case STX: return i->k < CELLS && i->code <= STX;
    case ALU: return i->code <= 0xaf && i->code != 0x8c && ((i->code != 0x34 && i->code != 0x94) || i->k);
    case JMP: return valid_jump(i, left);
    case RET: return i->code == 0x06 || i->code == 0x16;
    default: return i->code == 0x07 || i->code == 0x87;
    }
}

int demux_program_valid(const struct exo_instruction *program, uint32_t instructions)
{
    if (!program || !instructions || instructions > EXO_MAX_PROGRAM || (program[instructions - 1].code & 7) != RET)
        return 0;
    for (uint32_t at = 0; at < instructions; at++)
        if (!valid(&program[at], instructions - at - 1))
            return 0;
    return 1;
}

static struct demux_program **find(struct exo_demux *demux, const struct exo_instruction *program, uint32_t instructions)
{
    struct demux_program **at = &demux->programs;
    while (*at && ((*at)->instructions != instructions || memcmp((*at)->at, program, instructions * sizeof *program) != 0))
        at = &(*at)->next;
    return at;
}

struct demux_program *demux_program_take(struct exo_demux *demux, const struct exo_instruction *program, uint32_t instructions)
{
    struct demux_program *found = *find(demux, program, instructions);
    if (!found) {
        found = malloc(sizeof *found + instructions * sizeof *program);
        if (!found)
            return NULL;
        *found = (struct demux_program){.next = demux->programs, .instructions = instructions};
        memcpy(found->at, program, instructions * sizeof *program);
        demux->programs = found;
    }
    found->users++;
    return found;
}

void demux_program_give(struct exo_demux *demux, struct demux_program *program)
{
    if (--program->users)
        return;
    *find(demux, program->at, program->instructions) = program->next;
    free(program);
}

void demux_program_free(struct exo_demux *demux)
{
    for (struct demux_program *next; demux->programs; demux->programs = next) {
        next = demux->programs->next;
        free(demux->programs);
    }
}

uint64_t demux_program_bytes(const struct exo_demux *demux)
{
    uint64_t bytes = 0;
    for (const struct demux_program *p = demux->programs; p; p = p->next)
        bytes += sizeof *p + p->instructions * sizeof *p->at;
    return bytes;
}

/* A load of `bytes` at an offset of the frame; 0: it is not all there. */
static int fetch(const struct exo_asked *frame, uint64_t offset, uint32_t bytes, uint32_t *value)
{
    if (offset + bytes > frame->len)
        return 0;
    const uint8_t *p = frame->data + offset;
    *value = bytes == 4 ? exo_be32(p) : bytes == 2 ? exo_be16(p) : *p;
    return 1;
}

static uint32_t size_of(uint16_t code)
{
    return (code & 0x18) == 0x00 ? 4 : (code & 0x18) == 0x08 ? 2 : 1;
}

/* A or X after a load; 0: the frame ends before it. */
static int load(const struct exo_instruction *i, const struct exo_asked *frame, const uint32_t *cell, uint32_t x, uint32_t *to)
{
    switch (i->code & 0xe0) {
    case 0x00: *to = i->k; return 1;
    case 0x20: return fetch(frame, i->k, size_of(i->code), to);
    case 0x40: return fetch(frame, (uint64_t)x + i->k, size_of(i->code), to);   /* a sum beyond 2**32 does not wrap */
    case 0x60: *to = cell[i->k]; return 1;
    case 0x80: *to = frame->wire_len; return 1;
    default:
        if (!fetch(frame, i->k, 1, to))
            return 0;
        *to = 4 * (*to & 15);
        return 1;
    }
}

/* A after the operation; 0: a division by zero. */
static int compute(uint32_t operation, uint32_t *a, uint32_t b)
{
    switch (operation) {
    case 0: *a += b; return 1;
    case 1: *a -= b; return 1;
    case 2: *a *= b; return 1;
    case 3: *a = b ? *a / b : 0; return b != 0;
    case 4: *a |= b; return 1;
    case 5: *a &= b; return 1;
    case 6: *a = b < 32 ? *a << b : 0; return 1;
    case 7: *a = b < 32 ? *a >> b : 0; return 1;
    case 8: *a = 0u - *a; return 1;
    case 9: *a = b ? *a % b : 0; return b != 0;
    default: *a ^= b; return 1;
    }
}

static int jumps(uint32_t operation, uint32_t a, uint32_t b)
{
    return operation == 1 ? a == b : operation == 2 ? a > b : operation == 3 ? a >= b : (a & b) != 0;
}

int demux_program_takes(const struct exo_instruction *program, const struct exo_asked *frame)
{
    uint32_t a = 0, x = 0, cell[CELLS] = {0};
    for (const struct exo_instruction *i = program;; i++) {
        uint32_t b = i->code & 8 ? x : i->k;
        switch (i->code & 7) {
        case LD: case LDX:
            if (!load(i, frame, cell, x, (i->code & 7) == LD ? &a : &x))
                return 0;
            break;
        case ST: cell[i->k] = a; break;
        case STX: cell[i->k] = x; break;
        case ALU:
            if (!compute(i->code >> 4, &a, b))
                return 0;
            break;
        case JMP: i += i->code >> 4 == 0 ? i->k : jumps(i->code >> 4, a, b) ? i->jt : i->jf; break;
        case RET: return (i->code & 0x10 ? a : i->k) != 0;
        default:
            if (i->code & 0x80)
                a = x;
            else
                x = a;
        }
    }
}

int32_t exo_program_takes(const struct exo_instruction *program, uint32_t instructions, const uint8_t *data, uint32_t len, uint32_t wire_len)
{
    if (!demux_program_valid(program, instructions))
        return EXO_E_INVALID;
    return demux_program_takes(program, &(struct exo_asked){data, len, wire_len, 0, 0});
}
