/* SPDX-License-Identifier: MIT
 *
 * What the demux's files share. demux.c and demux_probe.c are use time (classify); demux_form.c, demux_table.c, demux_range.c
 * with demux_chunk.c and demux_tree.c, demux_bind.c, demux_dispatch.c and demux_destination.c are bind time (insert, remove);
 * demux_port.c has a part in both.
 *
 * A shape has one table: an index of tags over entries, whose numbers never change while they live. An entry is one conjunct. Entries of the same key
 * are chained by next_key, or in a tree where they have intervals; one of them (the head) stands in the index; entries of one binding by next_binding, as handles
 * (place of the shape above the entry's number). Owner of every field: the kernel thread.
 */
#ifndef EXO_DEMUX_PRIVATE_H
#define EXO_DEMUX_PRIVATE_H

#include "exo_kernel.h"

#define DEMUX_NONE UINT32_MAX
#define DEMUX_PROBE_CAP 8u         /* buckets */
#define DEMUX_BUCKET 7u            /* keys in one */
#define DEMUX_ENTRY_BITS 24u

/* The head of an entry; the values of its lanes follow, then of what it excludes, then a struct demux_range where the form has an interval. */
struct demux_entry {
    uint32_t binding;
    uint32_t breadth;
    uint32_t next_key;
    uint32_t next_binding;
    uint64_t value[];
};

/* Who owns each value of an interval's field under one key that has several: from low on, up to the next one's low. */
struct demux_chunk {
    uint32_t count;
    uint32_t capacity;
    struct demux_segment {
        uint32_t low;
        uint32_t entry;              /* DEMUX_NONE: nobody */
        uint32_t bits;               /* the entry's */
        uint32_t ends;               /* how many intervals begin here or have ended just before */
    } at[];
};

struct demux_segments {
    uint32_t intervals;
    uint32_t root;                   /* of the tree of their entries */
    uint64_t seed;
    uint32_t chunks;
    uint32_t capacity;               /* of the two arrays */
    uint32_t *low;                   /* of each chunk's first segment; rises from 0 */
    struct demux_chunk **chunk;
};

/* A program that conjuncts ask besides their boxes: the value of their last excluded lane is where it is. */
struct demux_program {
    struct demux_program *next;
    uint32_t users;
    uint32_t instructions;
    struct exo_instruction at[];
};

struct demux_range {
    uint32_t low;
    uint32_t high;
    uint32_t bits;                   /* that box and interval fix, 16.16 */
    uint32_t left;                   /* in the tree of its key */
    uint32_t right;
    uint32_t most;                   /* the greatest high from here down */
    struct demux_segments *segments; /* of all entries of its key; NULL: it is the only one */
};

struct demux_shape {
    struct exo_form form;
    struct exo_table table;
    exo_probe probe;
    exo_glance glance;               /* NULL: none */
    uint32_t destination;            /* where the IP destination is that every entry fixes; 0: it fixes none */
    uint32_t ported;                 /* every entry says something of the destination port */
    uint32_t port_low;               /* the least and the greatest that any of them takes */
    uint32_t port_high;
    uint32_t bits;                   /* fixed by its box, 16.16; the most it can be where there is an interval */
    uint32_t buckets;                /* of the index, a power of two */
    uint32_t keys;
    uint32_t entries;                /* in use */
    uint32_t entry_top;              /* numbers below have been used */
    uint32_t entry_free;             /* chained by next_key */
    struct exo_bucket *index;
    uint8_t *memory;                 /* of the entries */
    size_t memory_bytes;
    uint64_t segment_bytes;
};

/* Which shapes may take a frame, the most specific first. */
struct demux_leaf {
    uint32_t count;
    uint32_t first_wins;             /* the first shape with a frame's key decides: all are plain, no two fix as many bits */
    uint32_t ports;                  /* enum demux_ethertypes: shapes are asked only of frames to their ports; 0: of all */
    uint16_t place[EXO_MAX_SHAPES];
};

/* The shapes that hold something for an address, as bits, and the list of them and of those that fix none. */
#define DEMUX_SET_WORDS (EXO_MAX_SHAPES / 64)
struct demux_set {
    uint64_t shapes[DEMUX_SET_WORDS];
    uint32_t destinations;           /* whose set it is */
    uint32_t stale;                  /* a shape of it is gone: its list is to be made anew */
    struct demux_leaf leaf;
};

/* A branch per pair of ethertype and protocol that is dispatched on. */
enum demux_ethertypes { DEMUX_OTHER, DEMUX_IP4, DEMUX_IP6, DEMUX_ARP, DEMUX_VLAN, DEMUX_QINQ, DEMUX_PPPOE, DEMUX_ETHERTYPES };
enum demux_protocols { DEMUX_ANY, DEMUX_TCP, DEMUX_UDP, DEMUX_ICMP, DEMUX_ICMP6, DEMUX_SCTP, DEMUX_PROTOCOLS };

#define DEMUX_UNSPLIT 4u             /* shapes that fix a destination and are asked all the same */
#define DEMUX_MOST_SETS 4096u
#define DEMUX_ALL_SHAPES UINT16_MAX  /* for an address that comes when there are too many sets */

struct demux_branch {
    struct demux_leaf all;
    uint32_t split;                  /* a frame's leaf depends on where it is sent to; else it is `all` */
    uint32_t apart;                  /* not split, and the first shape takes no frame of another branch */
    uint16_t is_ip6;
    uint16_t protocol;               /* enum demux_protocols */
    uint32_t sets;
    uint32_t set_room;
    struct demux_set *set;           /* the first: for addresses that are not in the table */
};

/* An IP address, network byte order, IPv4 in the first four bytes. */
struct demux_address {
    uint64_t word[2];
};

struct demux_destination {
    struct demux_address address;
    uint32_t entries;                /* that fix it; 0: a free place */
    uint16_t set[DEMUX_PROTOCOLS];
};

/* Open addressing, at most three quarters full. */
struct demux_family {
    struct demux_destination *destination;
    uint64_t multiplier[2];
    uint32_t capacity;
    uint32_t count;
};

struct exo_demux {
    struct demux_shape *shape[EXO_MAX_SHAPES];
    uint32_t shapes;
    uint32_t conjuncts;
    uint64_t generation;
    uint64_t changes;
    uint64_t random;
    uint32_t *head;                  /* handle of the first entry of a binding, by number */
    uint32_t head_capacity;
    struct demux_program *programs;
    uint8_t branch_of[2][256];       /* IPv4, IPv6: the branch's number by protocol number */
    struct demux_branch branch[DEMUX_ETHERTYPES][DEMUX_PROTOCOLS];
    struct demux_family family[2];   /* IPv4, IPv6 */
};

static inline int demux_same_address(struct demux_address a, struct demux_address b)
{
    return !((a.word[0] ^ b.word[0]) | (a.word[1] ^ b.word[1]));
}

static inline uint32_t demux_address_hash(const struct demux_family *family, struct demux_address a)
{
    return (uint32_t)((a.word[0] * family->multiplier[0] + a.word[1] * family->multiplier[1]) >> 32);
}

/* A conjunct taken apart: its shape's form, and its values in the order of the form's lanes. */
struct demux_parted {
    struct exo_form form;
    uint64_t value[EXO_MAX_LANES];
    uint32_t bits;
};

static inline struct demux_entry *demux_entry_at(const struct demux_shape *shape, uint32_t number)
{
    return (struct demux_entry *)(shape->memory + (size_t)number * shape->table.stride);
}

static inline struct demux_range *demux_range_of(const struct demux_shape *shape, const struct demux_entry *entry)
{
    return (struct demux_range *)(uintptr_t)(entry->value + shape->form.lanes + shape->form.excluded);
}

/* The last lane of a form that has a program is it. */
static inline int demux_has_program(const struct exo_form *form)
{
    return form->excluded && form->lane[form->lanes + form->excluded - 1].base == EXO_BASE_PROGRAM;
}

static inline struct demux_program *demux_program_of(const struct demux_shape *shape, const struct demux_entry *entry)
{
    return (struct demux_program *)(uintptr_t)entry->value[shape->form.lanes + shape->form.excluded - 1];
}

/* Does the key alone decide? */
static inline int demux_is_plain(const struct demux_shape *shape) { return !shape->form.excluded && !shape->form.interval.bytes; }

static inline uint64_t demux_load(const uint8_t *p, uint32_t bytes)
{
    uint64_t v8;
    uint32_t v4 = 0;
    uint16_t v2;
    switch (bytes) {
    case 8: memcpy(&v8, p, 8); return v8;
    case 4: memcpy(&v4, p, 4); return v4;
    case 3: memcpy(&v4, p, 3); return v4;
    case 2: memcpy(&v2, p, 2); return v2;
    default: return *p;
    }
}

/* A lane's masked value. end: where the IPv4 header ends. */
static inline uint64_t demux_lane(const struct exo_lane *lane, const struct exo_asked *frame, uint32_t end)
{
    if (lane->base == EXO_BASE_LENGTH)
        return frame->wire_len & lane->mask;
    return demux_load(frame->data + lane->offset + (lane->base == EXO_BASE_IP4 ? end : 0), lane->bytes) & lane->mask;
}

/* The guards of a form that a frame of its ethertype and protocol must pass; *end: where the IPv4 header ends. */
static inline int demux_admits(const struct exo_form *form, const struct exo_asked *frame, uint32_t *end)
{
    const uint8_t *d = frame->data;
    *end = 0;
    if (frame->len < form->frame_bytes)
        return 0;
    if (form->unfragmented && (exo_be16(d + 20) & 0x1fff))
        return 0;
    if (form->ip4_at) {
        *end = form->ip4_at + 4u * (d[form->ip4_at] & 15u);
        return frame->len >= *end + form->ip4_bytes;
    }
    return 1;
}

/* demux_probe.c: an exo_probe that reads the form of its table */
void demux_probe_table(const struct exo_table *table, const struct exo_asked *asked, uint32_t n, uint32_t *found, uint32_t *owners);
/* demux_form.c */
int32_t demux_part(struct demux_parted *parted, const struct exo_conjunct *conjunct);
uint32_t demux_interval_bits(const struct exo_interval *interval, uint32_t low, uint32_t high);
/* demux_program.c */
int demux_program_valid(const struct exo_instruction *program, uint32_t instructions);
/* The demux's copy of a program, with one user more; NULL: no memory. */
struct demux_program *demux_program_take(struct exo_demux *demux, const struct exo_instruction *program, uint32_t instructions);
void demux_program_give(struct exo_demux *demux, struct demux_program *program);   /* one user less */
void demux_program_free(struct exo_demux *demux);
uint64_t demux_program_bytes(const struct exo_demux *demux);
int demux_program_takes(const struct exo_instruction *program, const struct exo_asked *frame);
/* demux_table.c */
struct demux_shape *demux_shape_new(struct exo_demux *demux, const struct demux_parted *parted);
void demux_shape_free(struct demux_shape *shape);
/* Makes room for one more entry and one more key: what follows cannot fail. */
int32_t demux_table_reserve(struct exo_demux *demux, struct demux_shape *shape, const uint64_t *key);
uint32_t demux_table_find(const struct demux_shape *shape, const uint64_t *key);   /* the head entry, or DEMUX_NONE */
void demux_table_put(struct demux_shape *shape, const uint64_t *key, uint32_t head); /* a new key, or another head of it */
void demux_table_drop(struct demux_shape *shape, const uint64_t *key);
uint32_t demux_entry_take(struct demux_shape *shape);
void demux_entry_give(struct demux_shape *shape, uint32_t number);
uint64_t demux_draw(struct exo_demux *demux);                                      /* the next of its seeded random numbers */
/* demux_destination.c */
/* Makes room for one more entry of the shape: what follows cannot fail. */
int32_t demux_destination_reserve(struct exo_demux *demux, const struct demux_shape *shape);
void demux_destination_add(struct exo_demux *demux, uint32_t place, const uint64_t *value);
void demux_destination_drop(struct exo_demux *demux, const struct demux_shape *shape, const uint64_t *value);
void demux_destination_forget(struct exo_demux *demux, uint32_t place);   /* a shape that has no entries any more */
void demux_destination_free(struct exo_demux *demux);
uint64_t demux_destination_bytes(const struct exo_demux *demux);
/* demux_port.c */
#define DEMUX_NO_PORT UINT32_MAX
uint32_t demux_ported(const struct exo_form *form);
void demux_port_add(struct demux_shape *shape, const uint64_t *value, const struct exo_interval *interval);
/* Use time. The least and the greatest destination port of frames of an ethertype, each of which gets its own. */
struct demux_ports {
    uint32_t low;
    uint32_t high;
};
struct demux_ports demux_port_read(uint32_t ethertype, struct exo_asked *asked, uint32_t n);
/* Puts the frames to ports of the shape first, and says how many they are. seen: of all frames, or of more. */
uint32_t demux_port_sort(const struct demux_shape *shape, struct demux_ports seen, struct exo_asked *asked, uint32_t n);
/* demux_range.c. head: of the key in question, or DEMUX_NONE */
struct demux_sought {
    uint32_t low;
    uint32_t high;
    uint32_t breadth;
    const uint64_t *excluded;
};
/* Makes room for one more interval; a refusal changes no answer. */
int32_t demux_range_reserve(struct demux_shape *shape, uint32_t head, uint32_t low, uint32_t high);
void demux_range_add(const struct demux_shape *shape, uint32_t head, uint32_t number);
/* Returns another entry of the key, or DEMUX_NONE. */
uint32_t demux_range_remove(struct demux_shape *shape, uint32_t number);
void demux_range_free(struct demux_shape *shape, struct demux_segments *segments);
uint32_t demux_range_twin(const struct demux_shape *shape, uint32_t head, const struct demux_sought *sought);
uint32_t demux_range_find(const struct demux_shape *shape, uint32_t head, uint32_t value);
typedef void (*demux_visit)(const struct demux_shape *shape, uint32_t number, void *context);
/* Each entry whose interval holds the value, in no order of use. */
void demux_range_visit(const struct demux_shape *shape, uint32_t head, uint32_t value, demux_visit visit, void *context);
/* Chains the entries whose interval holds the value by next_key, which is of no other use to them, the narrowest first. */
uint32_t demux_range_chain(const struct demux_shape *shape, uint32_t head, uint32_t value);
/* Is a value that both hold the first one's? */
int demux_range_before(const struct demux_shape *shape, uint32_t one, uint32_t other);
/* demux_chunk.c */
struct demux_segments *demux_segments_new(struct demux_shape *shape, uint64_t seed);
/* Makes room for two boundaries where the value is. */
int32_t demux_segments_reserve(struct demux_shape *shape, struct demux_segments *segments, uint32_t value);
void demux_segments_begin(struct demux_segments *segments, uint32_t value);
void demux_segments_end(struct demux_shape *shape, struct demux_segments *segments, uint32_t value);
/* Gives the entry what it wins of low..high, where boundaries are; takes from it what it has of that, and says how many segments that were. */
void demux_segments_claim(const struct demux_shape *shape, struct demux_segments *segments, uint32_t low, uint32_t high, uint32_t number);
uint32_t demux_segments_leave(struct demux_segments *segments, uint32_t low, uint32_t high, uint32_t number);
uint32_t demux_segment_owner(const struct demux_segments *segments, uint32_t value);
/* demux_tree.c */
void demux_tree_add(const struct demux_shape *shape, struct demux_segments *segments, uint32_t number);
void demux_tree_remove(const struct demux_shape *shape, struct demux_segments *segments, uint32_t number);
uint32_t demux_tree_find(const struct demux_shape *shape, uint32_t root, const struct demux_sought *sought);
/* Every interval that overlaps low..high, in their order. */
void demux_tree_visit(const struct demux_shape *shape, uint32_t root, uint32_t low, uint32_t high, demux_visit visit, void *context);
/* demux_dispatch.c */
/* A shape came or went. loose: one that fixes no destination, so it is in every list. */
void demux_dispatch(struct exo_demux *demux, int loose);
int demux_belongs(const struct exo_form *form, uint32_t ethertype, uint32_t protocol);
/* The shapes of a branch that fix no destination, and those that do and are in the set; NULL: all. */
void demux_list(const struct exo_demux *demux, struct demux_leaf *leaf, uint32_t ethertype, uint32_t protocol, const uint64_t *set);
uint32_t demux_ethertype_of(uint32_t ethertype);      /* enum demux_ethertypes */
uint32_t demux_protocol_of(uint32_t ethertype, uint32_t protocol);  /* enum demux_protocols; DEMUX_ANY: not dispatched on */

#endif
