/* SPDX-License-Identifier: MIT
 *
 * The ports of a shape: from which to which destination port its entries can take frames. Where several owners share an address by
 * ports, the dispatch on destinations cannot tell their shapes apart; a frame whose port no entry of a shape has is not asked of it.
 * The span grows with every entry and shrinks when the shape goes: a probe too many, never one too few.
 */
#include "demux_private.h"

#define IP4_HEADER 14u
#define AT_IP4 2u                    /* after the IPv4 header */
#define AT_IP6 56u                   /* of the frame */

/* Where the port is in a frame of the form, and from what base; 0 where a frame that it admits may have none. */
static uint32_t port_at(const struct exo_form *form, uint32_t *base)
{
    *base = form->ethertype == 0x0800 ? EXO_BASE_IP4 : EXO_BASE_FRAME;
    if (form->ethertype == 0x0800 && form->ip4_at == IP4_HEADER && form->ip4_bytes >= AT_IP4 + 2)
        return AT_IP4;
    return form->ethertype == 0x86dd && form->frame_bytes >= AT_IP6 + 2 ? AT_IP6 : 0;
}

/* What the lanes say of the two bytes at `at`: which bits are fixed, and if value is given, to what. */
static uint32_t fixed_bits(const struct exo_form *form, uint32_t base, uint32_t at, const uint64_t *value, uint32_t *bits)
{
    uint32_t mask = 0;
    for (uint32_t i = 0; i < form->lanes; i++)
        for (uint32_t b = 0; b < 2; b++) {
            const struct exo_lane *lane = &form->lane[i];
            uint32_t from = at + b - (uint32_t)lane->offset;
            if (lane->base != base || from >= lane->bytes)
                continue;
            mask |= (uint32_t)(lane->mask >> 8 * from & 0xff) << 8 * (1 - b);
            if (value)
                *bits |= (uint32_t)(value[i] >> 8 * from & 0xff) << 8 * (1 - b);
        }
    return mask;
}

static int is_port(const struct exo_interval *interval, uint32_t base, uint32_t at)
{
    return interval->bytes == 2 && interval->base == base && interval->offset == at;
}

uint32_t demux_ported(const struct exo_form *form)
{
    uint32_t base, at = port_at(form, &base);
    return at && (is_port(&form->interval, base, at) || fixed_bits(form, base, at, NULL, NULL));
}

void demux_port_add(struct demux_shape *shape, const uint64_t *value, const struct exo_interval *interval)
{
    uint32_t base, at = port_at(&shape->form, &base), low = 0, high;
    if (!shape->ported)
        return;
    high = ~fixed_bits(&shape->form, base, at, value, &low) & 0xffff;
    high |= low;
    if (is_port(&shape->form.interval, base, at)) {
        low = interval->low > low ? interval->low : low;
        high = interval->high < high ? interval->high : high;
    }
    shape->port_low = low < shape->port_low ? low : shape->port_low;
    shape->port_high = high > shape->port_high ? high : shape->port_high;
}

struct demux_ports demux_port_read(uint32_t ethertype, struct exo_asked *asked, uint32_t n)
{
    struct demux_ports seen = {UINT32_MAX, 0};
    for (uint32_t i = 0; i < n; i++) {
        const uint8_t *d = asked[i].data;
        uint32_t at = ethertype == DEMUX_IP4 ? IP4_HEADER + 4u * (d[IP4_HEADER] & 15u) + AT_IP4 : AT_IP6;
        uint32_t port = asked[i].len >= at + 2 ? exo_be16(d + at) : DEMUX_NO_PORT;
        asked[i].port = port;
        seen.low = port < seen.low ? port : seen.low;
        seen.high = port > seen.high ? port : seen.high;
    }
    return seen;
}

uint32_t demux_port_sort(const struct demux_shape *shape, struct demux_ports seen, struct exo_asked *asked, uint32_t n)
{
    uint32_t low = shape->port_low, most = shape->port_high - low, inside = 0;
    if (!shape->ported)
        return n;
    if (seen.high < low || seen.low > shape->port_high)
        return 0;
    for (uint32_t i = 0; i < n; i++)
        inside += asked[i].port - low <= most;
    if (inside == 0 || inside == n)  /* mostly: a look at each costs a tenth of moving it */
        return inside;
    inside = 0;
    for (uint32_t i = 0; i < n; i++) {
        struct exo_asked one = asked[i];
        asked[i] = asked[inside];
        asked[inside] = one;
        inside += one.port - low <= most;
    }
    return inside;
}
