/* SPDX-License-Identifier: MIT
 *
 * 802.11 data frames (IEEE Std 802.11, 9.2 and 9.3.2) and the headers that capture programs put before them: radiotap
 * (radiotap.org), Prism, AVS, per-packet information. A frame becomes Ethernet if it carries one whole packet in the clear: not a
 * null frame, a fragment, an A-MSDU, management or control.
 */
#include "link_private.h"

enum {
    TO_DS = 0x01, FROM_DS = 0x02, MORE_FRAGMENTS = 0x04, PROTECTED = 0x40, ORDER = 0x80,   /* second byte of frame control */
    QOS = 0x80, NO_DATA = 0x40, AMSDU = 0x80,
    RADIOTAP_FCS = 0x10, RADIOTAP_PAD = 0x20
};

/* hole: the header is padded to a multiple of four bytes, as radiotap may say. */
static bool data_frame(struct packet *p, bool hole)
{
    if (!has(p, 24))
        return false;
    uint8_t kind = p->at[0], flags = p->at[1];
    if ((kind & 0x0f) != 0x08 || kind & NO_DATA || flags & (PROTECTED | MORE_FRAGMENTS) || p->at[22] & 0x0f)
        return false;
    uint32_t header = 24, wds = (flags & (TO_DS | FROM_DS)) == (TO_DS | FROM_DS) ? 6 : 0;
    header += wds;
    if (kind & QOS) {
        if (!has(p, header + 2) || p->at[header] & AMSDU)
            return false;
        header += flags & ORDER ? 6 : 2;
    }
    if (hole)
        header = (header + 3) & ~3u;
    if (!has(p, header))
        return false;
    set_address(p, EXO_LINK_DESTINATION, p->at + (flags & TO_DS ? 16 : 4));
    set_address(p, EXO_LINK_SOURCE, p->at + (wds ? 24 : flags & FROM_DS ? 16 : 10));
    skip(p, header);
    return link_llc(p);
}

bool link_ieee80211(struct packet *p)
{
    return data_frame(p, false);
}

/* The flags field, which lies behind the bitmaps and the eight aligned bytes of a time. */
static uint8_t radiotap_flags(const struct packet *p, uint32_t header)
{
    uint32_t present = le32(p->at + 4), at = 8;
    for (uint32_t more = present; more >> 31; at += 4) {
        if (at + 4 > header)
            return 0;
        more = le32(p->at + at);
    }
    if (present & 1)
        at = ((at + 7) & ~7u) + 8;
    return present & 2 && at < header ? p->at[at] : 0;
}

bool link_radiotap(struct packet *p)
{
    if (!has(p, 8) || p->at[0] != 0)
        return false;
    uint32_t header = le16(p->at + 2);
    if (header < 8 || !has(p, header))
        return false;
    uint8_t flags = radiotap_flags(p, header);
    skip(p, header);
    if (flags & RADIOTAP_FCS)
        cut_tail(p, 4);
    return data_frame(p, flags & RADIOTAP_PAD);
}

bool link_avs(struct packet *p)
{
    if (!has(p, 8))
        return false;
    uint32_t header = exo_be32(p->at + 4);
    if (header < 8 || !has(p, header))
        return false;
    skip(p, header);
    return data_frame(p, false);
}

/* Words in the byte order of whoever captured; a driver that says Prism may write AVS. */
bool link_prism(struct packet *p)
{
    if (!has(p, 8))
        return false;
    if ((exo_be32(p->at) & 0xfffff000) == 0x80211000)
        return link_avs(p);
    uint32_t little = le32(p->at + 4), big = exo_be32(p->at + 4), header = little < big ? little : big;
    if (header < 8 || !has(p, header))
        return false;
    skip(p, header);
    return data_frame(p, false);
}

bool link_ppi(struct packet *p)
{
    if (!has(p, 8))
        return false;
    uint32_t header = le16(p->at + 2), link_type = le32(p->at + 4);
    if (header < 8 || !has(p, header) || link_type == 192)
        return false;
    bool fcs = header >= 22 && le16(p->at + 8) == 2 && p->at[20] & 1;    /* the first field: 802.11-Common, its flags */
    skip(p, header);
    if (fcs)
        cut_tail(p, 4);
    return link_by_type(p, link_type);
}
