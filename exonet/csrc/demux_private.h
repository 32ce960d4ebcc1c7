/* SPDX-License-Identifier: MIT
 *
 * What demux.c (use time: classify) and demux_bind.c, demux_table.c and demux_dispatch.c (bind time: insert, remove) share.
 * Masks, values and keys are kept in memory order (a word as the frame holds it), so the use path never swaps bytes.
 *
 * A shape has one open-addressing table; a slot holds a key and the best record of that key. Records are numbered, so slots may
 * move: record.slot follows. All records of a key are chained by next_key, narrowest first; all of a binding by next_binding.
 * Owner of every field: the kernel thread.
 */
#ifndef EXO_DEMUX_PRIVATE_H
#define EXO_DEMUX_PRIVATE_H

#include "exo_kernel.h"

#define DEMUX_NONE UINT32_MAX
#define DEMUX_GROUP_SLOTS 1024u
#define DEMUX_LIST_MAX 16640u      /* (256 - w) * (1 + w) + w at its worst, w = 128 shapes of no one ethertype */
#define DEMUX_PROBE_CAP 64u

enum { SLOT_RECORD, SLOT_BINDING, SLOT_BREADTH, SLOT_KEY };

struct demux_probe {
    uint16_t base;
    uint16_t offset;
    uint32_t mask;
};

struct demux_record {
    uint32_t shape;
    uint32_t slot;
    uint32_t binding;
    uint32_t breadth;
    uint32_t next_key;
    uint32_t next_binding;
    uint32_t *excluded;          /* excluded_count values, or NULL */
};

struct demux_shape {
    /* what it is: equal bytes mean the same shape */
    struct demux_form {
        uint32_t atoms;
        uint32_t excluded;
        uint32_t frame_bytes;
        uint32_t ip4_bytes;
        uint32_t ip4_at;         /* 0: no IPv4 base in use */
        struct demux_probe atom[EXO_MAX_ATOMS];  /* those that hold, then those that must not */
    } form;
    uint32_t frame_end;          /* words of the frame base end here: captured bytes beyond it make unchecked loads safe */
    uint32_t ip4_end;
    uint32_t bits;
    /* what all its values agree on */
    uint32_t has_ethertype;
    uint32_t ethertype;          /* memory order */
    uint32_t agree_mask;         /* over the word at 20: IPv4 fragment and protocol, IPv6 next header */
    uint32_t agree_value;
    /* the table: capacity slots of stride words */
    uint32_t *slots;
    uint32_t stride;
    uint32_t capacity;
    uint32_t shift;
    uint32_t keys;
    uint32_t records;
    uint64_t multiplier[EXO_MAX_ATOMS];
};

struct demux_group {
    uint32_t used;
    uint32_t ethertype;
    uint32_t first;
    uint32_t count;
};

struct exo_demux {
    struct demux_shape *shape[EXO_MAX_SHAPES];
    uint32_t shapes;
    uint32_t conjuncts;
    uint64_t random;
    struct demux_record *record;
    uint32_t record_capacity;
    uint32_t record_free;        /* chained by next_key */
    uint32_t *head;              /* first record of a binding, by number */
    uint32_t head_capacity;
    uint64_t extra_bytes;
    /* dispatch on the ethertype: a group of shapes each, most specific first; `other` has those of no one ethertype */
    struct demux_group group[DEMUX_GROUP_SLOTS];
    struct demux_group other;
    uint16_t list[DEMUX_LIST_MAX];
};

static inline uint32_t *demux_shape_slot(const struct demux_shape *shape, uint32_t i)
{
    return shape->slots + (size_t)i * shape->stride;
}

static inline size_t demux_shape_key_bytes(const struct demux_shape *shape)
{
    return shape->form.atoms * sizeof(uint32_t);
}

static inline uint32_t demux_group_slot(uint32_t ethertype)
{
    return (ethertype * 0x9e3779b1u) >> 22;
}

static inline uint32_t demux_word(const uint8_t *p)
{
    uint32_t word;
    memcpy(&word, p, sizeof word);
    return word;
}

/* demux_table.c. A shape's table; the records of moved slots follow, so these take the demux. */
struct demux_shape *demux_shape_new(struct exo_demux *demux, const struct demux_form *form);
void demux_shape_free(struct demux_shape *shape);
/* Makes room for the key: *at is its slot, taken or empty. */
int32_t demux_shape_reserve(struct exo_demux *demux, struct demux_shape *shape, const uint32_t *key, uint32_t *at);
void demux_shape_vacate(struct exo_demux *demux, struct demux_shape *shape, uint32_t hole);

/* demux_dispatch.c */
void demux_dispatch(struct exo_demux *demux);
/* Keeps in step what all values of the shape agree on. Returns whether the dispatch has to be made anew. */
int demux_shape_agree(struct demux_shape *shape, const uint32_t *value);

#endif
