/* SPDX-License-Identifier: MIT
 *
 * A conjunct taken apart: into its shape's form and the values of its key. Masked bytes become lanes, loads as wide as may be; what
 * the dispatch decides on (ethertype, protocol, not a later fragment) leaves the key. Equal masks give equal forms.
 */
#include "demux_private.h"

#define MAX_GUARD (1u << 20)

enum { MOST_BYTES = 4 * EXO_MAX_ATOMS };

struct masked_byte {
    uint32_t offset;
    uint8_t base;
    uint8_t mask;
    uint8_t value;
};

struct masked {
    struct masked_byte byte[MOST_BYTES];
    uint32_t count;
    uint32_t length_mask;
    uint32_t length_value;
};

/* Adds a byte, keeping them sorted by base and offset. EXO_E_INVALID: a bit is wanted to be both. */
static int32_t add_byte(struct masked *masked, struct masked_byte byte)
{
    uint32_t i = masked->count;
    while (i > 0 && (masked->byte[i - 1].base > byte.base
                     || (masked->byte[i - 1].base == byte.base && masked->byte[i - 1].offset > byte.offset)))
        i--;
    if (i > 0 && masked->byte[i - 1].base == byte.base && masked->byte[i - 1].offset == byte.offset) {
        struct masked_byte *same = &masked->byte[i - 1];
        if ((same->value ^ byte.value) & same->mask & byte.mask)
            return EXO_E_INVALID;
        same->mask |= byte.mask;
        same->value |= byte.value;
        return 0;
    }
    memmove(&masked->byte[i + 1], &masked->byte[i], (masked->count - i) * sizeof byte);
    masked->byte[i] = byte;
    masked->count++;
    return 0;
}

static int32_t add_atom(struct masked *masked, const struct exo_atom *atom)
{
    if (atom->base == EXO_BASE_LENGTH) {
        if ((masked->length_value ^ atom->value) & masked->length_mask & atom->mask)
            return EXO_E_INVALID;
        masked->length_mask |= atom->mask;
        masked->length_value |= atom->value;
        return 0;
    }
    for (uint32_t i = 0; i < 4; i++) {
        struct masked_byte byte = {atom->offset + i, (uint8_t)atom->base, (uint8_t)(atom->mask >> (24 - 8 * i)),
                                   (uint8_t)(atom->value >> (24 - 8 * i))};
        int32_t code = byte.mask ? add_byte(masked, byte) : 0;
        if (code)
            return code;
    }
    return 0;
}

static struct masked_byte *byte_at(struct masked *masked, uint32_t base, uint32_t offset)
{
    for (uint32_t i = 0; i < masked->count; i++)
        if (masked->byte[i].base == base && masked->byte[i].offset == offset)
            return &masked->byte[i];
    return NULL;
}

/* Is every bit of the byte in `mask` asked for? Then *value gets what they are to be. */
static int fixes(struct masked *masked, uint32_t offset, uint8_t mask, uint8_t *value)
{
    const struct masked_byte *byte = byte_at(masked, EXO_BASE_FRAME, offset);
    if (!byte || (byte->mask & mask) != mask)
        return 0;
    *value = byte->value & mask;
    return 1;
}

static void strip(struct masked *masked, uint32_t offset, uint8_t mask)
{
    struct masked_byte *byte = byte_at(masked, EXO_BASE_FRAME, offset);
    byte->mask &= (uint8_t)~mask;
    byte->value &= (uint8_t)~mask;
    if (byte->mask)
        return;
    masked->count--;
    memmove(byte, byte + 1, (size_t)(&masked->byte[masked->count] - byte) * sizeof *byte);
}

/* Takes what the dispatch decides on out of the key. */
static void dispatched(struct exo_form *form, struct masked *masked)
{
    uint8_t high, low, protocol;
    form->protocol = EXO_ANY_PROTOCOL;
    if (!fixes(masked, 12, 0xff, &high) || !fixes(masked, 13, 0xff, &low))
        return;
    form->ethertype = (uint32_t)high << 8 | low;
    uint32_t kind = demux_ethertype_of(form->ethertype);
    if (kind == DEMUX_OTHER) {
        form->ethertype = 1;
        return;
    }
    strip(masked, 12, 0xff);
    strip(masked, 13, 0xff);
    uint32_t at = kind == DEMUX_IP4 ? 23 : 20;
    if ((kind == DEMUX_IP4 || kind == DEMUX_IP6) && fixes(masked, at, 0xff, &protocol)
        && demux_protocol_of(form->ethertype, protocol) != DEMUX_ANY) {
        form->protocol = protocol;
        strip(masked, at, 0xff);
    }
    if (kind == DEMUX_IP4 && fixes(masked, 20, 0x1f, &high) && fixes(masked, 21, 0xff, &low) && !high && !low) {
        form->unfragmented = 1;
        strip(masked, 20, 0x1f);
        strip(masked, 21, 0xff);
    }
}

/* The lane from byte s on: as many of the bytes as one load covers. Returns how many. */
static uint32_t cut_lane(struct exo_lane *lane, uint64_t *value, const struct masked_byte *byte, uint32_t n)
{
    uint32_t taken = 1, bytes = 1;
    while (taken < n && byte[taken].base == byte->base && byte[taken].offset - byte->offset < 8)
        taken++;
    uint32_t span = byte[taken - 1].offset - byte->offset + 1;
    while (bytes < span)
        bytes *= 2;
    int32_t at = (int32_t)byte[taken - 1].offset + 1 - (int32_t)bytes;
    if (byte->base == EXO_BASE_FRAME && at < 0) {
        bytes /= 2;
        at = (int32_t)byte->offset;
        for (taken = 1; taken < n && byte[taken].base == byte->base && byte[taken].offset < byte->offset + bytes;)
            taken++;
    }
    *lane = (struct exo_lane){at, byte->base, (uint16_t)bytes, 0};
    *value = 0;
    for (uint32_t i = 0; i < taken; i++) {
        uint32_t shift = 8 * (uint32_t)((int32_t)byte[i].offset - at);
        lane->mask |= (uint64_t)byte[i].mask << shift;
        *value |= (uint64_t)byte[i].value << shift;
    }
    return taken;
}

static int32_t cut_lanes(struct demux_parted *parted, const struct masked *masked)
{
    struct exo_form *form = &parted->form;
    for (uint32_t i = 0; i < masked->count; form->lanes++) {
        if (form->lanes == EXO_MAX_LANES)
            return EXO_E_INVALID;
        i += cut_lane(&form->lane[form->lanes], &parted->value[form->lanes], &masked->byte[i], masked->count - i);
    }
    if (!masked->length_mask)
        return 0;
    if (form->lanes == EXO_MAX_LANES)
        return EXO_E_INVALID;
    form->lane[form->lanes] = (struct exo_lane){0, EXO_BASE_LENGTH, 4, masked->length_mask};
    parted->value[form->lanes++] = masked->length_value;
    return 0;
}

/* The guard of a base covers bytes up to `end`. */
static void raise_guard(struct exo_form *form, uint32_t base, uint32_t end)
{
    if (base == EXO_BASE_FRAME && form->frame_bytes < end)
        form->frame_bytes = end;
    if (base == EXO_BASE_IP4 && form->ip4_bytes < end)
        form->ip4_bytes = end;
}

static int32_t valid_atom(const struct exo_atom *atom)
{
    uint32_t base = atom->base & ~(uint32_t)EXO_BASE_NOT;
    if (base > EXO_BASE_LENGTH || !atom->mask || (atom->value & ~atom->mask) || atom->offset > EXO_MAX_FRAME - 4)
        return EXO_E_INVALID;
    return base == EXO_BASE_LENGTH && atom->offset ? EXO_E_INVALID : 0;
}

static int lane_after(const struct demux_parted *parted, uint32_t i, uint32_t j)
{
    const struct exo_lane *a = &parted->form.lane[i], *b = &parted->form.lane[j];
    if (a->base != b->base)
        return a->base > b->base;
    if (a->offset != b->offset)
        return a->offset > b->offset;
    if (a->mask != b->mask)
        return a->mask > b->mask;
    return parted->value[i] > parted->value[j];
}

/* No load of four bytes ends with the third of a frame, so these three are a load of their own. */
static int ends_at_third_byte(const struct exo_atom *atom)
{
    return atom->base == EXO_BASE_FRAME && !atom->offset && atom->mask >> 24 && !(atom->mask & 0xff) && atom->mask & 0xff00;
}

/* Adds an atom that must not hold as a lane of its own, keeping these sorted. */
static int32_t add_excluded(struct demux_parted *parted, const struct exo_atom *atom)
{
    struct exo_form *form = &parted->form;
    struct exo_atom positive = *atom;
    struct masked masked = {0};
    positive.base &= (uint16_t)~(uint32_t)EXO_BASE_NOT;
    add_atom(&masked, &positive);
    uint32_t at = form->lanes + form->excluded;
    if (at == EXO_MAX_LANES)
        return EXO_E_INVALID;
    if (masked.length_mask) {
        form->lane[at] = (struct exo_lane){0, EXO_BASE_LENGTH, 4, masked.length_mask};
        parted->value[at] = masked.length_value;
    } else if (ends_at_third_byte(&positive)) {
        form->lane[at] = (struct exo_lane){0, EXO_BASE_FRAME, 3, __builtin_bswap32(positive.mask)};
        parted->value[at] = __builtin_bswap32(positive.value);
    } else {
        cut_lane(&form->lane[at], &parted->value[at], masked.byte, masked.count);
    }
    form->excluded++;
    for (uint32_t j = at; j > form->lanes && lane_after(parted, j - 1, j); j--) {
        struct exo_lane lane = form->lane[j];
        uint64_t value = parted->value[j];
        form->lane[j] = form->lane[j - 1];
        parted->value[j] = parted->value[j - 1];
        form->lane[j - 1] = lane;
        parted->value[j - 1] = value;
    }
    return 0;
}

static int32_t part_interval(struct demux_parted *parted, const struct exo_interval *interval)
{
    uint32_t bytes = interval->bytes;
    if (!bytes)
        return 0;
    uint32_t most = bytes >= 4 ? UINT32_MAX : (1u << 8 * bytes) - 1;
    if (interval->base > EXO_BASE_LENGTH || (bytes != 1 && bytes != 2 && bytes != 4) || interval->low > interval->high
        || interval->high > most || interval->offset > EXO_MAX_FRAME - 4)
        return EXO_E_INVALID;
    if (interval->base == EXO_BASE_LENGTH && (bytes != 4 || interval->offset))
        return EXO_E_INVALID;
    parted->form.interval = (struct exo_interval){.base = interval->base, .offset = interval->offset, .bytes = bytes};
    raise_guard(&parted->form, interval->base, interval->offset + bytes);
    return 0;
}

static int32_t part_atoms(struct demux_parted *parted, struct masked *masked, const struct exo_conjunct *conjunct)
{
    for (uint32_t i = 0; i < conjunct->atoms; i++) {
        const struct exo_atom *atom = &conjunct->atom[i];
        int32_t code = valid_atom(atom);
        if (!code && !(atom->base & EXO_BASE_NOT))
            code = add_atom(masked, atom);
        if (code)
            return code;
        raise_guard(&parted->form, atom->base & ~(uint32_t)EXO_BASE_NOT, atom->offset + 4u - (uint32_t)__builtin_ctz(atom->mask) / 8);
    }
    return 0;
}

/* The program is a lane after those that must not hold. */
static int32_t part_program(struct demux_parted *parted, const struct exo_conjunct *conjunct)
{
    struct exo_form *form = &parted->form;
    if (!conjunct->instructions)
        return 0;
    if (form->lanes + form->excluded == EXO_MAX_LANES || !demux_program_valid(conjunct->program, conjunct->instructions))
        return EXO_E_INVALID;
    form->lane[form->lanes + form->excluded++] = (struct exo_lane){.base = EXO_BASE_PROGRAM, .bytes = 1};
    parted->bits += 1u << 16;
    return 0;
}

int32_t demux_part(struct demux_parted *parted, const struct exo_conjunct *conjunct)
{
    struct masked masked = {0};
    struct exo_form *form = &parted->form;
    memset(parted, 0, sizeof *parted);
    if (conjunct->atoms > EXO_MAX_ATOMS || conjunct->frame_bytes > MAX_GUARD || conjunct->ip4_bytes > MAX_GUARD)
        return EXO_E_INVALID;
    form->frame_bytes = conjunct->frame_bytes;
    form->ip4_bytes = conjunct->ip4_bytes;
    if (part_atoms(parted, &masked, conjunct) || part_interval(parted, &conjunct->interval))
        return EXO_E_INVALID;
    for (uint32_t i = 0; i < masked.count; i++)
        parted->bits += (uint32_t)__builtin_popcount(masked.byte[i].mask);
    parted->bits = (parted->bits + (uint32_t)__builtin_popcount(masked.length_mask)) << 16;
    dispatched(form, &masked);
    if (cut_lanes(parted, &masked))
        return EXO_E_INVALID;
    for (uint32_t i = 0; i < conjunct->atoms; i++)
        if ((conjunct->atom[i].base & EXO_BASE_NOT) && add_excluded(parted, &conjunct->atom[i]))
            return EXO_E_INVALID;
    if (part_program(parted, conjunct))
        return EXO_E_INVALID;
    if (form->ip4_bytes) {
        form->ip4_at = conjunct->ip4_at ? conjunct->ip4_at : 14;
        if (form->frame_bytes < form->ip4_at + 1)
            form->frame_bytes = form->ip4_at + 1;
    }
    return 0;
}

int32_t exo_form_of(const struct exo_conjunct *conjunct, struct exo_form *form)
{
    struct demux_parted parted;
    int32_t code = demux_part(&parted, conjunct);
    *form = parted.form;
    return code;
}

/* log2 in 16.16, rounded down: the fraction bit by bit, by squaring. */
static uint32_t log2_fixed(uint64_t n)
{
    uint32_t whole = 63 - (uint32_t)__builtin_clzll(n), fraction = 0;
    uint64_t x = n << (63 - whole) >> 32;        /* 1.31 */
    for (uint32_t i = 0; i < 16; i++) {
        x = x * x >> 31;
        fraction *= 2;
        if (x >= 1ull << 32) {
            fraction++;
            x >>= 1;
        }
    }
    return whole << 16 | fraction;
}

/* How many bits of its field an interval fixes, 16.16. */
uint32_t demux_interval_bits(const struct exo_interval *interval, uint32_t low, uint32_t high)
{
    uint32_t all = 8 * interval->bytes;
    uint32_t open = log2_fixed((uint64_t)high - low + 1);
    return open < all << 16 ? (all << 16) - open : 0;
}
