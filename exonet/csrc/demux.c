/* SPDX-License-Identifier: MIT
 *
 * The demux's use time: a burst of frames in, a burst of owners out. Each frame is dispatched on ethertype and protocol to a leaf, a short
 * list of shapes; frames of one leaf go together through its shapes, most specific first, one probe call for all of them. A frame leaves
 * once nothing that follows can be more specific than what it has.
 * Invariants: no allocation, no read past frame.len, nothing is written but the owners. DESIGN section 7, SEMANTICS R1, R4, R5.
 */
#include "demux_private.h"

#define AHEAD 8u

struct best {
    uint32_t bits;
    uint32_t breadth;
};

static inline uint32_t leaf_of(const struct exo_demux *demux, const struct exo_frame *frame)
{
    const uint8_t *d = frame->data;
    if (EXO_UNLIKELY(frame->len < 14))
        return DEMUX_OTHER * DEMUX_PROTOCOLS;
    uint16_t ethertype = exo_be16(d + 12);
    if (EXO_LIKELY(ethertype == 0x0800))
        return DEMUX_IP4 * DEMUX_PROTOCOLS + (EXO_LIKELY(frame->len > 23) ? demux->protocol_leaf[0][d[23]] : (uint32_t)DEMUX_ANY);
    if (ethertype == 0x86dd)
        return DEMUX_IP6 * DEMUX_PROTOCOLS + (frame->len > 20 ? demux->protocol_leaf[1][d[20]] : (uint32_t)DEMUX_ANY);
    return demux_ethertype_of(ethertype) * DEMUX_PROTOCOLS;
}

static int is_excluded(const struct demux_shape *shape, const struct demux_entry *entry, const struct exo_frame *frame, uint32_t end)
{
    const struct exo_form *form = &shape->form;
    for (uint32_t i = form->lanes; i < form->lanes + form->excluded; i++)
        if (demux_lane(&form->lane[i], frame, end) == entry->value[i])
            return 1;
    return 0;
}

static uint32_t interval_field(const struct exo_interval *interval, const struct exo_frame *frame, uint32_t end)
{
    if (interval->base == EXO_BASE_LENGTH)
        return frame->wire_len;
    const uint8_t *p = frame->data + interval->offset + (interval->base == EXO_BASE_IP4 ? end : 0);
    return interval->bytes == 4 ? exo_be32(p) : interval->bytes == 2 ? exo_be16(p) : *p;
}

/* Does an entry whose key holds take the frame? */
static int holds(const struct demux_shape *shape, const struct demux_entry *entry, const struct exo_frame *frame, uint32_t end)
{
    if (shape->form.interval.bytes) {
        const struct demux_range *range = demux_range_of(shape, entry);
        uint32_t value = interval_field(&shape->form.interval, frame, end);
        if (value < range->low || value > range->high)
            return 0;
    }
    return !is_excluded(shape, entry, frame, end);
}

/* Among the entries of one key, the narrowest that takes the frame. */
static uint32_t pick(const struct demux_shape *shape, uint32_t head, const struct exo_frame *frame)
{
    uint32_t end;
    demux_admits(&shape->form, frame, &end);
    if (!shape->form.excluded)
        return demux_range_find(demux_range_of(shape, demux_entry_at(shape, head))->segments,
                                interval_field(&shape->form.interval, frame, end));
    while (head != DEMUX_NONE && !holds(shape, demux_entry_at(shape, head), frame, end))
        head = demux_entry_at(shape, head)->next_key;
    return head;
}

/* The entry of a key was found: it owns the frame if it takes it and beats what was found before. */
static inline void consider(const struct demux_shape *shape, uint32_t number, const struct exo_frame *frame, struct best *best,
                            uint32_t *owner)
{
    uint32_t bits = shape->bits;
    if (!demux_is_plain(shape)) {
        number = pick(shape, number, frame);
        if (number == DEMUX_NONE)
            return;
        if (shape->form.interval.bytes)
            bits = (uint32_t)demux_range_of(shape, demux_entry_at(shape, number))->bits;
    }
    const struct demux_entry *entry = demux_entry_at(shape, number);
    if (*owner == EXO_NO_OWNER || bits > best->bits || (bits == best->bits && entry->breadth < best->breadth)) {
        *best = (struct best){bits, entry->breadth};
        *owner = entry->binding;
    }
}

/* The frames which[0..n) of a leaf whose shapes each fix another number of bits, and by their key alone: the first that has a frame's key
 * owns it. owners[] are EXO_NO_OWNER. No branch depends on what a frame matches. */
static void resolve_first(const struct exo_demux *demux, const struct demux_leaf *leaf, const struct exo_frame *frames, uint16_t *which,
                          uint32_t n, uint32_t *owners)
{
    uint32_t found[EXO_PROBE_BURST];
    for (uint32_t s = 0; s < leaf->count && n; s++) {
        const struct demux_shape *shape = demux->shape[leaf->place[s]];
        uint32_t kept = 0;
        shape->probe(&shape->table, frames, which, n, found, owners);
        for (uint32_t i = 0; s + 1 < leaf->count && i < n; i++) {
            which[kept] = which[i];
            kept += found[i] == EXO_NO_ENTRY;
        }
        n = kept;
    }
}

/* The frames which[0..n) of one leaf. owners[] are EXO_NO_OWNER. */
static void resolve(const struct exo_demux *demux, const struct demux_leaf *leaf, const struct exo_frame *frames, uint16_t *which,
                    uint32_t n, uint32_t *owners)
{
    struct best best[EXO_PROBE_BURST];
    uint32_t found[EXO_PROBE_BURST], unused[EXO_PROBE_BURST];
    for (uint32_t s = 0; s < leaf->count && n; s++) {
        const struct demux_shape *shape = demux->shape[leaf->place[s]];
        uint32_t next = s + 1 < leaf->count ? demux->shape[leaf->place[s + 1]]->bits : UINT32_MAX, kept = 0;
        shape->probe(&shape->table, frames, which, n, found, unused);
        for (uint32_t i = 0; i < n; i++) {
            uint32_t f = which[i];
            if (found[i] != EXO_NO_ENTRY)
                consider(shape, found[i], &frames[f], &best[f], &owners[f]);
            which[kept] = (uint16_t)f;
            kept += owners[f] == EXO_NO_OWNER || best[f].bits <= next;
        }
        n = kept;
    }
}

/* Those of which[0..n) that are of the leaf go to the front of `these`; the others stay. Returns how many stay. */
static uint32_t part_leaf(const uint8_t *leaf, uint32_t here, uint16_t *which, uint32_t n, uint16_t *these, uint32_t *count)
{
    uint32_t kept = 0, taken = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint16_t f = which[i];
        uint32_t is_here = leaf[f] == here;
        these[taken] = which[kept] = f;
        taken += is_here;
        kept += !is_here;
    }
    *count = taken;
    return kept;
}

static void classify(const struct exo_demux *demux, const struct exo_frame *frames, uint32_t n, uint32_t *owners)
{
    uint16_t which[EXO_PROBE_BURST], these[EXO_PROBE_BURST];
    uint8_t leaf[EXO_PROBE_BURST];
    uint32_t count, different = 0;
    for (uint32_t i = 0; i < n; i++) {
        __builtin_prefetch(frames[i + AHEAD < n ? i + AHEAD : i].data);
        leaf[i] = (uint8_t)leaf_of(demux, &frames[i]);
        different |= leaf[i] ^ leaf[0];
        which[i] = (uint16_t)i;
        owners[i] = EXO_NO_OWNER;
    }
    while (n) {
        uint32_t here = leaf[which[0]];
        const struct demux_leaf *at = &demux->leaf[0][0] + here;
        uint16_t *mine = these;
        if (different) {
            n = part_leaf(leaf, here, which, n, these, &count);
        } else {
            mine = which;
            count = n;
            n = 0;
        }
        if (at->first_wins)
            resolve_first(demux, at, frames, mine, count, owners);
        else
            resolve(demux, at, frames, mine, count, owners);
    }
}

void exo_demux_classify(const struct exo_demux *demux, const struct exo_frame *frames, uint32_t n, uint32_t *owners)
{
    for (uint32_t done = 0; done < n; done += EXO_PROBE_BURST)
        classify(demux, frames + done, n - done < EXO_PROBE_BURST ? n - done : (uint32_t)EXO_PROBE_BURST, owners + done);
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
    const struct demux_leaf *leaf = &demux->leaf[0][0] + leaf_of(demux, frame);
    const uint16_t only = 0;
    uint32_t found = 0, number, owner, end;
    for (uint32_t s = 0; s < leaf->count; s++) {
        const struct demux_shape *shape = demux->shape[leaf->place[s]];
        shape->probe(&shape->table, frame, &only, 1, &number, &owner);
        demux_admits(&shape->form, frame, &end);
        for (; number != DEMUX_NONE; number = demux_entry_at(shape, number)->next_key)
            if (holds(shape, demux_entry_at(shape, number), frame, end))
                found = add_once(bindings, found, max, demux_entry_at(shape, number)->binding);
    }
    return found;
}

uint32_t exo_demux_shapes(const struct exo_demux *demux) { return demux->shapes; }
uint32_t exo_demux_conjuncts(const struct exo_demux *demux) { return demux->conjuncts; }
uint64_t exo_demux_generation(const struct exo_demux *demux) { return demux->generation; }
