/* SPDX-License-Identifier: MIT
 *
 * The demux's use time: a burst of frames in, a burst of owners out. Each frame is dispatched on ethertype and protocol, and where many
 * shapes compete on its IP destination, to a leaf, a short list of shapes; frames of one leaf go together through its shapes, most
 * specific first, one probe call for all of them. A frame leaves once nothing that follows can be more specific than what it has.
 * A burst that looks to be of one kind is first taken straight through the first shape's glance.
 * Invariants: no allocation, no read past frame.len, nothing is written but the owners. R1, R4, R5.
 */
#include "demux_private.h"

_Static_assert(offsetof(struct exo_asked, len) == offsetof(struct exo_frame, len)
               && offsetof(struct exo_asked, wire_len) == offsetof(struct exo_frame, wire_len), "what is asked is a frame's beginning");

struct best {
    uint32_t bits;
    uint32_t breadth;
};

/* Of anything but a whole IPv4 header. */
static uint32_t other_branch(const struct exo_demux *demux, const struct exo_frame *frame)
{
    const uint8_t *d = frame->data;
    if (frame->len < 14)
        return DEMUX_OTHER * DEMUX_PROTOCOLS;
    uint16_t ethertype = exo_be16(d + 12);
    if (ethertype == 0x86dd && frame->len > 20)
        return demux->branch_of[1][d[20]];
    return demux_ethertype_of(ethertype) * DEMUX_PROTOCOLS;
}

static inline const struct demux_branch *branch_of(const struct exo_demux *demux, const struct exo_frame *frame)
{
    const uint8_t *d = frame->data;
    if (EXO_LIKELY(frame->len > 23 && d[12] == 0x08 && d[13] == 0x00))
        return &demux->branch[0][0] + demux->branch_of[0][d[23]];
    return &demux->branch[0][0] + other_branch(demux, frame);
}

/* The leaf of where a frame is sent to. One too short to tell is taken by no shape that fixes a destination. */
static const struct demux_leaf *leaf_by_destination(const struct exo_demux *demux, const struct demux_branch *branch,
                                                    const struct exo_frame *frame)
{
    const struct demux_family *family = &demux->family[branch->is_ip6];
    struct demux_address address = {{0}};
    if (frame->len < (branch->is_ip6 ? 54u : 34u))
        return &branch->set[0].leaf;
    if (branch->is_ip6)
        memcpy(&address, frame->data + 38, 16);
    else
        memcpy(&address, frame->data + 30, 4);
    uint32_t mask = family->capacity - 1;
    for (uint32_t i = demux_address_hash(family, address) & mask; family->destination[i].entries; i = (i + 1) & mask) {
        const struct demux_destination *found = &family->destination[i];
        if (demux_same_address(found->address, address)) {
            uint32_t set = found->set[branch->protocol];
            return set == DEMUX_ALL_SHAPES ? &branch->all : &branch->set[set].leaf;
        }
    }
    return &branch->set[0].leaf;
}

static inline const struct demux_leaf *leaf_of(const struct exo_demux *demux, const struct exo_frame *frame)
{
    const struct demux_branch *branch = branch_of(demux, frame);
    return EXO_LIKELY(!branch->split) ? &branch->all : leaf_by_destination(demux, branch, frame);
}

static int is_excluded(const struct demux_shape *shape, const struct demux_entry *entry, const struct exo_asked *frame, uint32_t end)
{
    const struct exo_form *form = &shape->form;
    for (uint32_t i = form->lanes; i < form->lanes + form->excluded; i++)
        if (form->lane[i].base == EXO_BASE_PROGRAM ? !demux_program_takes(demux_program_of(shape, entry)->at, frame)
                                                   : demux_lane(&form->lane[i], frame, end) == entry->value[i])
            return 1;
    return 0;
}

static uint32_t interval_field(const struct exo_interval *interval, const struct exo_asked *frame, uint32_t end)
{
    if (interval->base == EXO_BASE_LENGTH)
        return frame->wire_len;
    const uint8_t *p = frame->data + interval->offset + (interval->base == EXO_BASE_IP4 ? end : 0);
    return interval->bytes == 4 ? exo_be32(p) : interval->bytes == 2 ? exo_be16(p) : *p;
}

/* Of entries whose intervals hold a frame's field. */
struct sieve {
    const struct exo_asked *frame;
    uint32_t end;
    uint32_t best;                   /* the narrowest so far that does not exclude it, or DEMUX_NONE */
};

static void sieve(const struct demux_shape *shape, uint32_t number, void *context)
{
    struct sieve *s = context;
    if (s->best == DEMUX_NONE || demux_range_before(shape, number, s->best))
        if (!is_excluded(shape, demux_entry_at(shape, number), s->frame, s->end))
            s->best = number;
}

/* The same where there are intervals: mostly the narrowest of all, and only where that excludes the frame are the others looked at. */
static uint32_t pick_narrowest(const struct demux_shape *shape, uint32_t head, const struct exo_asked *frame, uint32_t end)
{
    struct sieve s = {frame, end, DEMUX_NONE};
    uint32_t value = interval_field(&shape->form.interval, frame, end), number = demux_range_find(shape, head, value);
    if (number == DEMUX_NONE || !is_excluded(shape, demux_entry_at(shape, number), frame, end))
        return number;
    demux_range_visit(shape, head, value, sieve, &s);
    return s.best;
}

/* Among the entries of one key, the narrowest that takes the frame. */
static uint32_t pick(const struct demux_shape *shape, uint32_t head, const struct exo_asked *frame)
{
    uint32_t end;
    demux_admits(&shape->form, frame, &end);
    if (shape->form.interval.bytes)
        return pick_narrowest(shape, head, frame, end);
    while (head != DEMUX_NONE && is_excluded(shape, demux_entry_at(shape, head), frame, end))
        head = demux_entry_at(shape, head)->next_key;
    return head;
}

/* The entry of a key was found: it owns the frame if it takes it and beats what was found before. */
static inline void consider(const struct demux_shape *shape, uint32_t number, const struct exo_asked *frame, struct best *best,
                            uint32_t *owner)
{
    uint32_t bits = shape->bits;
    if (!demux_is_plain(shape)) {
        number = pick(shape, number, frame);
        if (number == DEMUX_NONE)
            return;
        if (shape->form.interval.bytes)
            bits = demux_range_of(shape, demux_entry_at(shape, number))->bits;
    }
    const struct demux_entry *entry = demux_entry_at(shape, number);
    if (*owner == EXO_NO_OWNER || bits > best->bits || (bits == best->bits && entry->breadth < best->breadth)) {
        *best = (struct best){bits, entry->breadth};
        *owner = entry->binding;
    }
}

/* The frames of a leaf whose shapes each fix another number of bits, and by their key alone: the first that has a frame's key owns it.
 * The shapes before `from` have been asked. owners[] are EXO_NO_OWNER. No branch depends on what a frame matches. */
static void resolve_first(const struct exo_demux *demux, const struct demux_leaf *leaf, uint32_t from, struct exo_asked *asked, uint32_t n,
                          uint32_t *owners)
{
    uint32_t found[EXO_PROBE_BURST];
    struct demux_ports ports = {0, 0};
    if (leaf->ports)
        ports = demux_port_read(leaf->ports, asked, n);
    for (uint32_t s = from; s < leaf->count && n; s++) {
        const struct demux_shape *shape = demux->shape[leaf->place[s]];
        uint32_t kept = 0, inside = leaf->ports ? demux_port_sort(shape, ports, asked, n) : n;
        if (!inside)
            continue;
        shape->probe(&shape->table, asked, inside, found, owners);
        for (uint32_t i = 0; s + 1 < leaf->count && i < inside; i++) {
            asked[kept] = asked[i];
            kept += found[i] == EXO_NO_ENTRY;
        }
        for (uint32_t i = inside; i < n; i++)
            asked[kept++] = asked[i];
        n = kept;
    }
}

/* The frames of one leaf. owners[] are EXO_NO_OWNER. */
static void resolve(const struct exo_demux *demux, const struct demux_leaf *leaf, struct exo_asked *asked, uint32_t n, uint32_t *owners)
{
    struct best best[EXO_PROBE_BURST];
    uint32_t found[EXO_PROBE_BURST], unused[EXO_PROBE_BURST];
    struct demux_ports ports = {0, 0};
    if (leaf->ports)
        ports = demux_port_read(leaf->ports, asked, n);
    for (uint32_t s = 0; s < leaf->count && n; s++) {
        const struct demux_shape *shape = demux->shape[leaf->place[s]];
        uint32_t next = s + 1 < leaf->count ? demux->shape[leaf->place[s + 1]]->bits : UINT32_MAX, kept = 0;
        uint32_t inside = leaf->ports ? demux_port_sort(shape, ports, asked, n) : n;
        if (!inside)
            continue;
        shape->probe(&shape->table, asked, inside, found, unused);
        for (uint32_t i = 0; i < n; i++) {
            uint32_t f = asked[i].place;
            if (i < inside && found[i] != EXO_NO_ENTRY)
                consider(shape, found[i], &asked[i], &best[f], &owners[f]);
            asked[kept] = asked[i];
            kept += owners[f] == EXO_NO_OWNER || best[f].bits <= next;
        }
        n = kept;
    }
}

static void resolve_leaf(const struct exo_demux *demux, const struct demux_leaf *leaf, struct exo_asked *asked, uint32_t n, uint32_t *owners)
{
    if (leaf->first_wins)
        resolve_first(demux, leaf, 0, asked, n, owners);
    else
        resolve(demux, leaf, asked, n, owners);
}

/* Frames of several leaves: leaf by leaf. leaf[]: by a frame's place. */
static void resolve_mixed(const struct exo_demux *demux, const struct demux_leaf *const *leaf, struct exo_asked *asked, uint32_t n,
                          uint32_t *owners)
{
    struct exo_asked these[EXO_PROBE_BURST];
    while (n) {
        const struct demux_leaf *here = leaf[asked[0].place];
        uint32_t kept = 0, taken = 0;
        for (uint32_t i = 0; i < n; i++) {
            struct exo_asked one = asked[i];
            uint32_t is_here = leaf[one.place] == here;
            these[taken] = asked[kept] = one;
            taken += is_here;
            kept += !is_here;
        }
        n = kept;
        resolve_leaf(demux, here, these, taken, owners);
    }
}

static inline struct exo_asked asked_of(const struct exo_frame *frames, uint32_t place)
{
    struct exo_asked asked;
    memcpy(&asked, &frames[place], offsetof(struct exo_asked, place));
    asked.place = place;
    return asked;
}

/* The long way: by the dispatch, leaf by leaf. place[]: which frames; NULL: the first n. */
static inline void classify_each(const struct exo_demux *demux, const struct exo_frame *frames, const uint8_t *place, uint32_t n,
                                 uint32_t *owners)
{
    struct exo_asked asked[EXO_PROBE_BURST];
    const struct demux_leaf *leaf[EXO_PROBE_BURST], *first = NULL;
    uint32_t different = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t f = place ? place[i] : i;
        asked[i] = asked_of(frames, f);
        leaf[f] = leaf_of(demux, &frames[f]);
        first = i ? first : leaf[f];
        different |= leaf[f] != first;
    }
    if (different)
        resolve_mixed(demux, leaf, asked, n, owners);
    else
        resolve_leaf(demux, first, asked, n, owners);
}

/* The branch of a burst that looks to be of one, of which the first shape can be asked before any dispatch; or NULL. */
static const struct demux_branch *branch_to_glance(const struct exo_demux *demux, const struct exo_frame *frames, uint32_t n)
{
    const struct demux_branch *branch = branch_of(demux, &frames[0]);
    if (!branch->apart || branch_of(demux, &frames[n / 2]) != branch || branch_of(demux, &frames[n - 1]) != branch)
        return NULL;
    const struct demux_shape *shape = demux->shape[branch->all.place[0]];
    return shape->glance && !shape->table.large ? branch : NULL;
}

/* The short way: the branch's first shape, frame by frame, with nothing noted of those it owns. */
static void classify_alike(const struct exo_demux *demux, const struct demux_branch *branch, const struct exo_frame *frames, uint32_t n,
                           uint32_t *owners)
{
    struct exo_asked asked[EXO_PROBE_BURST];
    struct exo_places missed, aside;
    const struct demux_shape *shape = demux->shape[branch->all.place[0]];
    shape->glance(&shape->table, frames, n, &missed, &aside, owners);
    if (missed.n && branch->all.count > 1) {
        for (uint32_t i = 0; i < missed.n; i++)
            asked[i] = asked_of(frames, missed.place[i]);
        resolve_first(demux, &branch->all, 1, asked, missed.n, owners);
    }
    if (aside.n)
        classify_each(demux, frames, aside.place, aside.n, owners);
}

static void classify(const struct exo_demux *demux, const struct exo_frame *frames, uint32_t n, uint32_t *owners)
{
    memset(owners, 0xff, n * sizeof *owners);
    for (uint32_t i = 0; i < n; i++)
        __builtin_prefetch(frames[i].data);
    const struct demux_branch *branch = branch_to_glance(demux, frames, n);
    if (branch)
        classify_alike(demux, branch, frames, n, owners);
    else
        classify_each(demux, frames, NULL, n, owners);
}

void exo_demux_classify(const struct exo_demux *demux, const struct exo_frame *frames, uint32_t n, uint32_t *owners)
{
    for (uint32_t done = 0; done < n; done += EXO_PROBE_BURST)
        classify(demux, frames + done, n - done < EXO_PROBE_BURST ? n - done : (uint32_t)EXO_PROBE_BURST, owners + done);
}

/* A frame that is asked about under one key, for exo_demux_most_specific. */
struct contest {
    const struct exo_asked *frame;
    uint32_t end;
    exo_keep keep;
    void *context;
};

static int is_narrower(const struct exo_taker *one, const struct exo_taker *other)
{
    if (other->binding == EXO_NO_OWNER || one->bits != other->bits)
        return other->binding == EXO_NO_OWNER || one->bits > other->bits;
    return one->breadth != other->breadth ? one->breadth < other->breadth : one->size < other->size;
}

static void compete(const struct demux_shape *shape, uint32_t number, void *context)
{
    const struct contest *contest = context;
    const struct demux_entry *entry = demux_entry_at(shape, number);
    struct exo_taker taker = {entry->binding, shape->bits, entry->breadth, 0}, *kept = contest->keep(contest->context, entry->binding);
    if (!kept)
        return;
    if (shape->form.interval.bytes) {
        const struct demux_range *range = demux_range_of(shape, entry);
        taker.bits = range->bits;
        taker.size = range->high - range->low;
    }
    if (is_narrower(&taker, kept) && !is_excluded(shape, entry, contest->frame, contest->end))
        *kept = taker;
}

void exo_demux_most_specific(const struct exo_demux *demux, const struct exo_frame *frame, exo_keep keep, void *context)
{
    const struct demux_leaf *leaf = leaf_of(demux, frame);
    struct exo_asked asked = {frame->data, frame->len, frame->wire_len, 0, 0};
    struct contest contest = {&asked, 0, keep, context};
    uint32_t number, owner;
    for (uint32_t s = 0; s < leaf->count; s++) {
        const struct demux_shape *shape = demux->shape[leaf->place[s]];
        shape->probe(&shape->table, &asked, 1, &number, &owner);
        demux_admits(&shape->form, &asked, &contest.end);
        if (number != DEMUX_NONE && shape->form.interval.bytes) {
            demux_range_visit(shape, number, interval_field(&shape->form.interval, &asked, contest.end), compete, &contest);
            continue;
        }
        for (; number != DEMUX_NONE; number = demux_entry_at(shape, number)->next_key)
            compete(shape, number, &contest);
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
    const struct demux_leaf *leaf = leaf_of(demux, frame);
    struct exo_asked asked = {frame->data, frame->len, frame->wire_len, 0, 0};
    uint32_t found = 0, number, owner, end;
    for (uint32_t s = 0; s < leaf->count; s++) {
        const struct demux_shape *shape = demux->shape[leaf->place[s]];
        shape->probe(&shape->table, &asked, 1, &number, &owner);
        demux_admits(&shape->form, &asked, &end);
        if (number != DEMUX_NONE && shape->form.interval.bytes)
            number = demux_range_chain(shape, number, interval_field(&shape->form.interval, &asked, end));
        for (; number != DEMUX_NONE; number = demux_entry_at(shape, number)->next_key)
            if (!is_excluded(shape, demux_entry_at(shape, number), &asked, end))
                found = add_once(bindings, found, max, demux_entry_at(shape, number)->binding);
    }
    return found;
}

uint32_t exo_demux_shapes(const struct exo_demux *demux) { return demux->shapes; }
uint32_t exo_demux_conjuncts(const struct exo_demux *demux) { return demux->conjuncts; }
uint64_t exo_demux_changes(const struct exo_demux *demux) { return demux->changes; }
uint64_t exo_demux_generation(const struct exo_demux *demux) { return demux->generation; }
