/* SPDX-License-Identifier: MIT
 *
 * The Ethernet header of a packet that had another. Addresses that its link header does not have are made from the payload:
 * IP's addresses behind any tags, ARP's own; they are local ones (RFC 9542: 02 in the first byte), the same in every run.
 * Groups: RFC 1112 6.4, RFC 2464 7.
 */
#include "link_private.h"

enum { TAGS_MOST = 8 };

static const uint8_t BROADCAST[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
/* Of a payload that tells no address: as IPv4 0.0.0.0 and 0.0.0.1 would, and a local group. */
static const uint8_t NOBODY[6] = {2, 0, 0, 0, 0, 0}, SOMEBODY[6] = {2, 0, 0, 0, 0, 1}, SOME_GROUP[6] = {3, 0, 0, 0, 0, 0};

static bool is_tag(uint32_t type)
{
    return type == 0x8100 || type == 0x88a8 || type == 0x9100;
}

static void from_ipv4(const uint8_t *address, uint8_t *mac)
{
    if (memcmp(address, BROADCAST, 4) == 0) {
        memcpy(mac, BROADCAST, 6);
    } else if ((address[0] & 0xf0) == 0xe0) {
        memcpy(mac, (const uint8_t[]){0x01, 0x00, 0x5e, address[1] & 0x7f, address[2], address[3]}, 6);
    } else {
        mac[0] = 2;
        mac[1] = 0;
        memcpy(mac + 2, address, 4);
    }
}

/* FNV-1a over the address. */
static void from_ipv6(const uint8_t *address, uint8_t *mac)
{
    if (address[0] == 0xff) {
        mac[0] = mac[1] = 0x33;
        memcpy(mac + 2, address + 12, 4);
        return;
    }
    uint32_t hash = 2166136261u;
    for (uint32_t i = 0; i < 16; i++)
        hash = (hash ^ address[i]) * 16777619u;
    mac[0] = 2;
    mac[1] = 6;
    for (uint32_t i = 0; i < 4; i++)
        mac[2 + i] = (uint8_t)(hash >> 8 * (3 - i));
}

/* RFC 826 with 6-byte addresses: a request goes to everybody. */
static void from_arp(const uint8_t *arp, uint8_t *destination, uint8_t *source)
{
    if (arp[4] != 6)
        return;
    memcpy(source, arp + 8, 6);
    memcpy(destination, exo_be16(arp + 6) == 2 ? arp + 8 + 6 + arp[5] : BROADCAST, 6);
}

static void make_addresses(const struct exo_link *link, const uint8_t *payload, uint8_t *destination, uint8_t *source)
{
    uint32_t type = link->type, at = 0;
    for (uint32_t tags = 0; tags < TAGS_MOST && is_tag(type) && link->len - at >= 4; tags++, at += 4)
        type = exo_be16(payload + at + 2);
    uint32_t left = link->len - at;
    const uint8_t *packet = payload + at;
    if (type == EXO_ETHER_IP4 && left >= 20) {
        from_ipv4(packet + 12, source);
        from_ipv4(packet + 16, destination);
    } else if (type == EXO_ETHER_IP6 && left >= 40) {
        from_ipv6(packet + 8, source);
        from_ipv6(packet + 24, destination);
    } else if (type == EXO_ETHER_ARP && left >= 28 && packet[5] == 4) {
        from_arp(packet, destination, source);
    }
}

void exo_link_ethernet(const struct exo_link *link, const uint8_t *payload, uint8_t *header)
{
    uint8_t destination[6], source[6];
    memcpy(destination, SOMEBODY, 6);
    memcpy(source, NOBODY, 6);
    make_addresses(link, payload, destination, source);
    if (link->flags & EXO_LINK_GROUP && !(destination[0] & 1))
        memcpy(destination, SOME_GROUP, 6);
    if (source[0] & 1)
        memcpy(source, NOBODY, 6);    /* a group sends nothing */
    memcpy(header, link->flags & EXO_LINK_DESTINATION ? link->destination : destination, 6);
    memcpy(header + 6, link->flags & EXO_LINK_SOURCE ? link->source : source, 6);
    header[12] = (uint8_t)(link->type >> 8);
    header[13] = (uint8_t)link->type;
}
