/* SPDX-License-Identifier: MIT
 *
 * The demux's use time: a burst of frames in, a burst of owners out. Per frame: dispatch on the ethertype to a short list of
 * shapes, most specific first; per shape one length check, one masked key, one hash probe. The key of the first shape of
 * every frame is made one stage ahead, so that its table line is there when it is compared.
 * Invariants: no allocation, no read past frame.len, nothing is written but the owners. DESIGN section 7, SEMANTICS R1, R4, R5.
 */
#include "demux_private.h"

#define CHUNK 64u
#define AHEAD 6u

/* A frame as the shapes see it. */
struct view {
    const uint8_t *data;
    uint32_t len;
    uint32_t wire;               /* the length on the wire as a word in memory order */
    uint32_t word20;
};

struct candidate {
    const struct demux_group *group;
    uint32_t at;                 /* position in the group's list of the first shape that may match */
    uint32_t end_of_header;
    uint64_t hash;
    uint32_t key[EXO_MAX_ATOMS];
};

struct best {
    uint32_t owner;
    uint32_t breadth;
    uint32_t bits;
};

/* A word of which only the bytes that are there are read; the mask is zero on the others. */
static uint32_t word_at_tail(const uint8_t *data, uint32_t len, uint32_t offset)
{
    uint32_t word = 0;
    if (offset < len)
        memcpy(&word, data + offset, len - offset < 4 ? len - offset : 4);
    return word;
}

static inline void view_open(struct view *view, const struct exo_frame *frame)
{
    view->data = frame->data;
    view->len = frame->len;
    view->wire = __builtin_bswap32(frame->wire_len);
    view->word20 = frame->len >= 24 ? demux_word(frame->data + 20) : word_at_tail(frame->data, frame->len, 20);
}

static inline const struct demux_group *group_of(const struct exo_demux *demux, const struct view *view)
{
    if (EXO_UNLIKELY(view->len < 14))
        return &demux->other;
    uint16_t ethertype;
    memcpy(&ethertype, view->data + 12, 2);
    for (uint32_t i = demux_group_slot(ethertype); demux->group[i].used; i = (i + 1) % DEMUX_GROUP_SLOTS)
        if (demux->group[i].ethertype == ethertype)
            return &demux->group[i];
    return &demux->other;
}

/* The length guards, and what all values of the shape agree on. Finds where the IPv4 header ends. */
static inline int admits(const struct demux_shape *shape, const struct view *view, uint32_t *end_of_header)
{
    if ((view->word20 & shape->agree_mask) != shape->agree_value || view->len < shape->form.frame_bytes)
        return 0;
    *end_of_header = 0;
    if (shape->form.ip4_at) {
        *end_of_header = shape->form.ip4_at + 4u * (view->data[shape->form.ip4_at] & 15u);
        return view->len >= *end_of_header + shape->form.ip4_bytes;
    }
    return 1;
}

static uint32_t word_of(const struct demux_probe *atom, const struct view *view, uint32_t end_of_header)
{
    if (atom->base == EXO_BASE_LENGTH)
        return view->wire & atom->mask;
    uint32_t offset = atom->offset + (atom->base == EXO_BASE_IP4 ? end_of_header : 0);
    return word_at_tail(view->data, view->len, offset) & atom->mask;
}

/* The masked key and its hash: a sum of products by the shape's random odd multipliers, of which the top bits are used. */
static inline uint64_t key_of(const struct demux_shape *shape, const struct view *view, uint32_t end_of_header, uint32_t *key)
{
    uint64_t hash = 0;
    uint32_t n = shape->form.atoms;
    if (EXO_LIKELY(shape->frame_end <= view->len && end_of_header + shape->ip4_end <= view->len)) {
        const uint8_t *base[3] = {view->data, view->data + end_of_header, (const uint8_t *)&view->wire};
        for (uint32_t i = 0; i < n; i++) {
            const struct demux_probe *atom = &shape->form.atom[i];
            key[i] = demux_word(base[atom->base] + atom->offset) & atom->mask;
            hash += key[i] * shape->multiplier[i];
        }
        return hash;
    }
    for (uint32_t i = 0; i < n; i++) {
        key[i] = word_of(&shape->form.atom[i], view, end_of_header);
        hash += key[i] * shape->multiplier[i];
    }
    return hash;
}

static inline int key_equal(const uint32_t *a, const uint32_t *b, uint32_t n)
{
    uint32_t differ = 0;
    for (uint32_t i = 0; i < n; i++)
        differ |= a[i] ^ b[i];
    return differ == 0;
}

static inline const uint32_t *probe(const struct demux_shape *shape, uint64_t hash, const uint32_t *key)
{
    uint32_t mask = shape->capacity - 1;
    for (uint32_t i = (uint32_t)(hash >> shape->shift);; i = (i + 1) & mask) {
        const uint32_t *slot = shape->slots + (size_t)i * shape->stride;
        if (slot[SLOT_RECORD] == DEMUX_NONE)
            return NULL;
        if (key_equal(slot + SLOT_KEY, key, shape->form.atoms))
            return slot;
    }
}

static int is_excluded(const struct demux_shape *shape, const struct demux_record *record, const struct view *view,
                       uint32_t end_of_header)
{
    const struct demux_probe *atom = shape->form.atom + shape->form.atoms;
    for (uint32_t i = 0; i < shape->form.excluded; i++)
        if (word_of(&atom[i], view, end_of_header) == record->excluded[i])
            return 1;
    return 0;
}

/* A key was found: its narrowest record that excludes none of the frame's values, if it beats what was found before. */
static inline void consider(const struct exo_demux *demux, const struct demux_shape *shape, const uint32_t *slot,
                            const struct view *view, uint32_t end_of_header, struct best *best)
{
    uint32_t owner = slot[SLOT_BINDING], breadth = slot[SLOT_BREADTH];
    if (shape->form.excluded) {
        uint32_t number = slot[SLOT_RECORD];
        while (number != DEMUX_NONE && is_excluded(shape, &demux->record[number], view, end_of_header))
            number = demux->record[number].next_key;
        if (number == DEMUX_NONE)
            return;
        owner = demux->record[number].binding;
        breadth = demux->record[number].breadth;
    }
    if (best->owner == EXO_NO_OWNER || breadth < best->breadth)
        *best = (struct best){owner, breadth, shape->bits};
}

/* Finds the first shape that may match, makes its key and asks for its table line. */
static inline void stage(const struct exo_demux *demux, const struct view *view, struct candidate *candidate)
{
    const struct demux_group *group = candidate->group = group_of(demux, view);
    uint32_t i = 0;
    for (; i < group->count; i++) {
        const struct demux_shape *shape = demux->shape[demux->list[group->first + i]];
        if (admits(shape, view, &candidate->end_of_header)) {
            candidate->hash = key_of(shape, view, candidate->end_of_header, candidate->key);
            __builtin_prefetch(shape->slots + (size_t)(candidate->hash >> shape->shift) * shape->stride);
            break;
        }
    }
    candidate->at = i;
}

static inline uint32_t resolve(const struct exo_demux *demux, const struct view *view, struct candidate *candidate)
{
    const struct demux_group *group = candidate->group;
    struct best best = {EXO_NO_OWNER, 0, 0};
    uint64_t hash = candidate->hash;
    uint32_t end_of_header = candidate->end_of_header;
    for (uint32_t i = candidate->at; i < group->count; i++) {
        const struct demux_shape *shape = demux->shape[demux->list[group->first + i]];
        if (best.owner != EXO_NO_OWNER && shape->bits < best.bits)
            break;
        if (i != candidate->at) {
            if (!admits(shape, view, &end_of_header))
                continue;
            hash = key_of(shape, view, end_of_header, candidate->key);
        }
        const uint32_t *slot = probe(shape, hash, candidate->key);
        if (slot)
            consider(demux, shape, slot, view, end_of_header, &best);
    }
    return best.owner;
}

void exo_demux_classify(const struct exo_demux *demux, const struct exo_frame *frames, uint32_t n, uint32_t *owners)
{
    struct view view[CHUNK];
    struct candidate candidate[CHUNK];

    for (uint32_t done = 0; done < n; done += CHUNK) {
        uint32_t count = n - done < CHUNK ? n - done : CHUNK;
        for (uint32_t i = 0; i < count && i < AHEAD; i++)
            __builtin_prefetch(frames[done + i].data);
        for (uint32_t i = 0; i < count; i++) {
            if (i + AHEAD < count)
                __builtin_prefetch(frames[done + i + AHEAD].data);
            view_open(&view[i], &frames[done + i]);
            stage(demux, &view[i], &candidate[i]);
        }
        for (uint32_t i = 0; i < count; i++)
            owners[done + i] = resolve(demux, &view[i], &candidate[i]);
    }
}

static uint32_t add_once(uint32_t *bindings, uint32_t found, uint32_t max, uint32_t binding)
{
    for (uint32_t i = 0; i < found && i < max; i++)
        if (bindings[i] == binding)
            return found;
    if (found < max)
        bindings[found] = binding;
    return found + 1;
}

uint32_t exo_demux_match_all(const struct exo_demux *demux, const struct exo_frame *frame, uint32_t *bindings, uint32_t max)
{
    struct view view;
    uint32_t key[EXO_MAX_ATOMS];
    uint32_t found = 0, end_of_header;

    view_open(&view, frame);
    const struct demux_group *group = group_of(demux, &view);
    for (uint32_t i = 0; i < group->count; i++) {
        const struct demux_shape *shape = demux->shape[demux->list[group->first + i]];
        if (!admits(shape, &view, &end_of_header))
            continue;
        uint64_t hash = key_of(shape, &view, end_of_header, key);
        const uint32_t *slot = probe(shape, hash, key);
        uint32_t number = slot ? slot[SLOT_RECORD] : DEMUX_NONE;
        for (; number != DEMUX_NONE; number = demux->record[number].next_key)
            if (!is_excluded(shape, &demux->record[number], &view, end_of_header))
                found = add_once(bindings, found, max, demux->record[number].binding);
    }
    return found;
}

uint32_t exo_demux_shapes(const struct exo_demux *demux) { return demux->shapes; }
uint32_t exo_demux_conjuncts(const struct exo_demux *demux) { return demux->conjuncts; }
