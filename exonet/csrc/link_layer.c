/* SPDX-License-Identifier: MIT
 *
 * The table of link types that become Ethernet, and those of wires and of the host. A reader takes a header off the packet in one
 * order: length, fields; it says yes once it knows Ethernet's type for the rest. A packet that says no is counted, never guessed at.
 * Reference: www.tcpdump.org/linktypes.html, and the RFC, IEEE or vendor's document at each.
 */
#include "link_private.h"

enum { LINKTYPE_PPI = 192, LINKTYPE_PKTAP = 258, PACKET_BROADCAST = 1, PACKET_MULTICAST = 2, ARPHRD_NETLINK = 824 };

static bool is_llc(const uint8_t *at)
{
    uint8_t sap = at[0] & 0xfe;
    return sap == 0xaa || sap == 0x42 || sap == 0xe0 || sap == 0xf0 || sap == 0xfe;    /* SNAP, STP, IPX, NetBIOS, OSI */
}

bool link_llc(struct packet *p)
{
    if (!has(p, 3) || !is_llc(p->at))
        return false;
    bool snap = p->at[0] == 0xaa && p->at[1] == 0xaa && p->at[2] == 3;
    if (snap && !has(p, 8))
        return false;
    uint32_t oui = snap ? exo_be32(p->at + 2) & 0xffffff : 1;
    if (oui == 0 || oui == 0x0000f8) {
        bool known = set_type(p, exo_be16(p->at + 6));
        skip(p, 8);
        return known;
    }
    p->link->type = (uint16_t)p->wire_len;
    return p->wire_len <= LLC_MOST;
}

static bool whole(struct packet *p)
{
    p->link->flags |= EXO_LINK_WHOLE;
    return true;
}

static bool ip(struct packet *p)
{
    if (!has(p, 1) || (p->at[0] >> 4 != 4 && p->at[0] >> 4 != 6))
        return false;
    return set_type(p, p->at[0] >> 4 == 4 ? EXO_ETHER_IP4 : EXO_ETHER_IP6);
}

/* Whatever version the packet gives: that is the link type's, as in libpcap. */
static bool ip4(struct packet *p)
{
    return set_type(p, EXO_ETHER_IP4);
}

static bool ip6(struct packet *p)
{
    return set_type(p, EXO_ETHER_IP6);
}

/* AF_INET is 2 everywhere. AF_INET6: Linux, Windows, BSD/OS and NetBSD and OpenBSD, Solaris, FreeBSD, Darwin. */
static bool family(struct packet *p, uint32_t af)
{
    if (af == 2)
        return set_type(p, EXO_ETHER_IP4);
    return set_type(p, af == 10 || af == 23 || af == 24 || af == 26 || af == 28 || af == 30 ? EXO_ETHER_IP6 : 0);
}

/* In the byte order of the host that captured, which need not be the file's. */
static bool null(struct packet *p)
{
    if (!has(p, 4))
        return false;
    uint32_t big = exo_be32(p->at), little = le32(p->at);
    skip(p, 4);
    return family(p, big < little ? big : little);
}

static bool loop(struct packet *p)
{
    if (!has(p, 4))
        return false;
    uint32_t af = exo_be32(p->at);
    skip(p, 4);
    return family(p, af);
}

/* OpenBSD enc(4): family, security parameters index, flags. */
static bool enc(struct packet *p)
{
    if (!has(p, 12))
        return false;
    bool known = null(p);
    skip(p, 8);
    return known;
}

/* pflog(4): the header's length, then the family; padded to four bytes. */
static bool pflog(struct packet *p)
{
    if (!has(p, 2))
        return false;
    uint32_t header = ((uint32_t)p->at[0] + 3) & ~3u, af = p->at[1];
    if (header < 4 || !has(p, header))
        return false;
    skip(p, header);
    return family(p, af);
}

/* The protocol number (RFC 1661 2), one byte where it is odd (6.5). */
static bool ppp_protocol(struct packet *p)
{
    if (!has(p, 2))
        return false;
    bool compressed = p->at[0] & 1;
    uint32_t protocol = compressed ? p->at[0] : exo_be16(p->at);
    skip(p, compressed ? 1 : 2);
    switch (protocol) {
    case 0x0021: return set_type(p, EXO_ETHER_IP4);
    case 0x0057: return set_type(p, EXO_ETHER_IP6);
    case 0x0281: return set_type(p, 0x8847);
    case 0x0283: return set_type(p, 0x8848);
    default: return false;
    }
}

/* Cisco HDLC: address, control, then Ethernet's type; but SLARP, CDP and OSI have numbers that mean something else there. */
static bool cisco_hdlc(struct packet *p)
{
    if (!has(p, 4))
        return false;
    uint32_t type = exo_be16(p->at + 2);
    skip(p, 4);
    return type != 0x8035 && type != 0x2000 && type != 0xfefe && set_type(p, type);
}

/* With HDLC's address and control bytes (RFC 1662) or without; Cisco's framing has other addresses. */
static bool ppp(struct packet *p)
{
    if (!has(p, 2))
        return false;
    if (p->at[0] == 0x0f || p->at[0] == 0x8f)
        return cisco_hdlc(p);
    if (p->at[0] == 0xff && p->at[1] == 0x03)
        skip(p, 2);
    return ppp_protocol(p);
}

/* A byte that tells the direction, in pppd's in the place of the address. */
static bool ppp_pppd(struct packet *p)
{
    if (!has(p, 2))
        return false;
    skip(p, p->at[1] == 0x03 ? 2 : 1);
    return ppp_protocol(p);
}

static bool ppp_with_direction(struct packet *p)
{
    if (!has(p, 1))
        return false;
    skip(p, 1);
    return ppp(p);
}

/* RFC 2516 4: IP in a session loses its PPP; all else stays PPPoE. */
static bool pppoe(struct packet *p)
{
    if (!has(p, 6) || p->at[0] != 0x11)
        return false;
    struct packet before = *p;
    uint32_t length = exo_be16(p->at + 4);
    bool session = p->at[1] == 0;
    skip(p, 6);
    cut(p, length);
    if (session && ppp_protocol(p))
        return true;
    *p = before;
    return set_type(p, session ? 0x8864 : 0x8863);
}

static bool bridged(struct packet *p, uint32_t protocol)
{
    if (protocol == 1)
        cut_tail(p, 4);          /* with its FCS */
    return (protocol == 1 || protocol == 7) && whole(p);
}

/* RFC 2427: an address of two to four bytes, UI, padding, the protocol. Cisco's: Ethernet's type behind the address. */
static bool frame_relay(struct packet *p)
{
    uint32_t n = 2;
    while (n <= 4 && has(p, n) && !(p->at[n - 1] & 1))
        n++;
    if (n > 4 || !has(p, n + 2) || p->at[0] & 1)
        return false;
    skip(p, n);
    if (p->at[0] != 3) {
        uint32_t type = exo_be16(p->at);
        skip(p, 2);
        return (type == EXO_ETHER_IP4 || type == EXO_ETHER_IP6 || type == EXO_ETHER_ARP || type == 0x8847) && set_type(p, type);
    }
    skip(p, p->at[1] == 0 && has(p, 3) ? 2 : 1);
    uint8_t protocol = p->at[0];
    skip(p, 1);
    if (protocol == 0xcc || protocol == 0x8e)
        return set_type(p, protocol == 0xcc ? EXO_ETHER_IP4 : EXO_ETHER_IP6);
    if (protocol != 0x80 || !has(p, 5))
        return false;
    uint32_t oui = exo_be32(p->at) >> 8, number = exo_be16(p->at + 3);
    skip(p, 5);
    return oui == 0 ? set_type(p, number) : oui == 0x0080c2 && bridged(p, number);
}

/* A protocol as Linux's packet sockets have it: Ethernet's type, 4 for 802.2. Netlink's are numbers of another kind. */
static bool cooked(struct packet *p, uint32_t hardware, uint32_t kind, uint32_t address_len, const uint8_t *address, uint32_t protocol)
{
    bool wireless = hardware >= 801 && hardware <= 803;
    if (address_len == 6 && (hardware == 1 || hardware == 772 || wireless))
        set_address(p, EXO_LINK_SOURCE, address);
    if (kind == PACKET_BROADCAST)
        set_address(p, EXO_LINK_DESTINATION, (const uint8_t[]){0xff, 0xff, 0xff, 0xff, 0xff, 0xff});
    p->link->flags |= kind == PACKET_MULTICAST ? EXO_LINK_GROUP : 0;
    if (hardware == ARPHRD_NETLINK)
        return false;
    return protocol == 4 ? link_llc(p) : set_type(p, protocol);
}

static bool sll(struct packet *p)
{
    if (!has(p, 16))
        return false;
    const uint8_t *at = p->at;
    skip(p, 16);
    return cooked(p, exo_be16(at + 2), exo_be16(at), exo_be16(at + 4), at + 6, exo_be16(at + 14));
}

static bool sll2(struct packet *p)
{
    if (!has(p, 20))
        return false;
    const uint8_t *at = p->at;
    skip(p, 20);
    return cooked(p, exo_be16(at + 8), at[10], at[11], at + 12, exo_be16(at));
}

/* Endace's extensible record format: 16 bytes of header, eight for every extension, two before an Ethernet frame; the record is
 * padded, and the length on the wire counts the FCS, which the bytes of the frame may have or not. */
static bool endace(struct packet *p)
{
    if (!has(p, 16))
        return false;
    uint32_t type = p->at[8] & 0x7f, record = exo_be16(p->at + 10), wire = exo_be16(p->at + 14), more = p->at[8];
    cut(p, record);
    if (!has(p, 16))
        return false;
    skip(p, 16);
    while (more & 0x80) {
        if (!has(p, 8))
            return false;
        more = p->at[0];
        skip(p, 8);
    }
    bool ethernet = type == 2 || type == 11 || type == 16 || type == 20;
    if ((!ethernet && type != 22 && type != 23) || (ethernet && !has(p, 2)))
        return false;
    if (ethernet)
        skip(p, 2);
    uint32_t payload = ethernet ? (wire < 4 ? 0 : wire - 4) : wire;
    p->len = p->len < payload ? p->len : payload;
    p->wire_len = payload;
    return ethernet ? whole(p) : ip(p);
}

/* Token Ring: access and frame control, addresses (their bits the other way round), source routing where the sender's group bit says
 * so. */
static bool token_ring(struct packet *p)
{
    if (!has(p, 16))
        return false;
    uint32_t routing = p->at[8] & 0x80 ? p->at[14] & 0x1f : 0;
    if ((p->at[1] & 0xc0) != 0x40 || !has(p, 14 + routing))
        return false;
    skip(p, 14 + routing);
    return link_llc(p);
}

static bool fddi(struct packet *p)
{
    if (!has(p, 13) || (p->at[0] & 0xf0) != 0x50)
        return false;
    skip(p, 13);
    return link_llc(p);
}

/* RFC 2684 5.1 behind what a driver says of its cell: routed packets, or a bridged frame behind two bytes of padding. */
static bool atm_llc(struct packet *p)
{
    if (has(p, 10) && exo_be32(p->at) == 0xaaaa0300 && exo_be16(p->at + 4) == 0x80c2) {
        uint32_t protocol = exo_be16(p->at + 6);
        skip(p, 10);
        return bridged(p, protocol);
    }
    return link_llc(p);
}

static bool mpls(struct packet *p)
{
    return has(p, 4) && set_type(p, 0x8847);
}

static bool firewire(struct packet *p)
{
    if (!has(p, 18))
        return false;
    uint32_t type = exo_be16(p->at + 16);
    skip(p, 18);
    return set_type(p, type);
}

/* Darwin's packet tap: the header's length, a kind that must be 1, the link type of what follows. */
static bool pktap(struct packet *p)
{
    if (!has(p, 12))
        return false;
    uint32_t header = le32(p->at), link_type = le32(p->at + 8);
    if (header < 12 || !has(p, header) || le32(p->at + 4) != 1)
        return false;
    skip(p, header);
    return link_type != LINKTYPE_PKTAP && link_type != LINKTYPE_PPI && link_by_type(p, link_type);
}

struct link_layer {
    uint32_t type;
    bool (*read)(struct packet *p);
    bool own_fcs;                /* its header says whether an FCS is there: what the file says of it does not count */
};

static const struct link_layer LAYERS[] = {
    {.type = 0, .read = null},
    {.type = 1, .read = whole},
    {.type = 6, .read = token_ring},
    {.type = 9, .read = ppp},
    {.type = 10, .read = fddi},
    {.type = 12, .read = ip},                  /* DLT_RAW of most systems */
    {.type = 14, .read = ip},                  /* of OpenBSD */
    {.type = 50, .read = ppp},
    {.type = 51, .read = pppoe},
    {.type = 100, .read = atm_llc},
    {.type = 101, .read = ip},
    {.type = 104, .read = cisco_hdlc},
    {.type = 105, .read = link_ieee80211},
    {.type = 107, .read = frame_relay},
    {.type = 108, .read = loop},
    {.type = 109, .read = enc},
    {.type = 113, .read = sll},
    {.type = 117, .read = pflog},
    {.type = 119, .read = link_prism},
    {.type = 127, .read = link_radiotap, .own_fcs = true},
    {.type = 138, .read = firewire},
    {.type = 163, .read = link_avs},
    {.type = 166, .read = ppp_pppd},
    {.type = LINKTYPE_PPI, .read = link_ppi, .own_fcs = true},
    {.type = 197, .read = endace, .own_fcs = true},
    {.type = 204, .read = ppp_with_direction},
    {.type = 219, .read = mpls},
    {.type = 228, .read = ip4},
    {.type = 229, .read = ip6},
    {.type = LINKTYPE_PKTAP, .read = pktap},
    {.type = 276, .read = sll2},
};

static const struct link_layer *find(uint32_t link_type)
{
    for (size_t i = 0; i < sizeof LAYERS / sizeof *LAYERS; i++)
        if (LAYERS[i].type == link_type)
            return &LAYERS[i];
    return NULL;
}

bool link_by_type(struct packet *p, uint32_t link_type)
{
    const struct link_layer *layer = find(link_type);
    return layer && layer->read(p);
}

int32_t exo_link_known(uint32_t link_type)
{
    return find(link_type) != NULL;
}

int32_t exo_link_parse(uint32_t link_type, uint32_t fcs, const uint8_t *data, uint32_t len, uint32_t wire_len, struct exo_link *link)
{
    memset(link, 0, sizeof *link);
    struct packet p = {.at = data, .len = len, .wire_len = wire_len, .link = link};
    const struct link_layer *layer = find(link_type);
    if (layer && !layer->own_fcs)
        cut_tail(&p, fcs);
    if (!layer || !layer->read(&p))
        return 0;
    link->header = (uint32_t)(p.at - data);
    link->len = p.len;
    link->wire_len = p.wire_len;
    return 1;
}
