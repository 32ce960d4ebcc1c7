/* SPDX-License-Identifier: MIT
 *
 * The stack as a whole: configuration, one frame in, timers, and the account of every frame.
 * stk_input is the only place that counts in_frames, and stk_settle the only one that counts delivered and drop.
 */
#include <stdlib.h>

#include "stk_private.h"

#define ERROR_COST 1000000ull       /* one ICMP error per ms in the long run ... */
#define ERROR_BURST (50 * ERROR_COST) /* ... and 50 at once: Linux's icmp_msgs_per_sec and icmp_msgs_burst */

/* splitmix64 (Steele, Lea, Flood 2014). */
static uint64_t scramble(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t stk_random(struct stk *s)
{
    s->random += 0x9e3779b97f4a7c15u;
    return scramble(s->random);
}

/* Keyed, so that a peer cannot choose addresses that collide. */
uint64_t stk_hash(const struct stk *s, uint32_t family, const uint8_t *address, uint64_t more)
{
    uint64_t h = (word64(address) ^ s->hash_key) * 0x9e3779b97f4a7c15u;
    if (family != 4)
        h = (h ^ (h >> 32) ^ word64(address + 8)) * 0xbf58476d1ce4e5b9u;
    h = (h ^ (h >> 29) ^ more) * 0x94d049bb133111ebu;
    return h ^ (h >> 32);
}

static const char *address_check(const struct stk_address *a)
{
    if (a->family != 4 && a->family != 6)
        return "address: family must be 4 or 6";
    if (a->prefix > 8 * address_size(a->family))
        return "address: prefix must be 0..32 (IPv4) or 0..128 (IPv6)";
    if (!stk_unicast(a->family, a->bytes))
        return "address: must be a unicast address";
    return NULL;
}

static const char *gateway_check(const struct stk_address *a, uint32_t family)
{
    if (a->family == 0)
        return NULL;
    return a->family == family && stk_unicast(family, a->bytes) ? NULL : "gateway: must be a unicast address of its family";
}

const char *stk_config_check(const struct stk_config *config)
{
    uint32_t mtu = config->mtu == 0 ? 1500 : config->mtu;
    if (mtu < 576 || mtu > 65521)
        return "mtu: must be 576..65521, or 0 for 1500";
    if (config->vlan > 4094)
        return "vlan: must be 0..4094";
    if (config->mac[0] & 1)
        return "mac: must not be a group address";
    if (config->address_count > STK_ADDRESSES)
        return "address_count: must be at most 16";
    if (config->neighbours > 65536)
        return "neighbours: must be at most 65536";
    if (config->socket_bytes > 1u << 30 || config->reassembly_bytes > 1u << 30)
        return "socket_bytes, reassembly_bytes: must be at most 1 GiB";
    for (uint32_t i = 0; i < config->address_count; i++) {
        const char *wrong = address_check(&config->address[i]);
        if (wrong != NULL)
            return wrong;
        if (config->address[i].family == 6 && mtu < 1280)
            return "mtu: IPv6 needs at least 1280 (RFC 8200 5)";
    }
    if (gateway_check(&config->gateway4, 4) != NULL)
        return gateway_check(&config->gateway4, 4);
    return gateway_check(&config->gateway6, 6);
}

/* Addresses are compared in the whole 16-byte form. */
static void normalise(struct stk_config *config)
{
    if (config->mtu == 0)
        config->mtu = 1500;
    if (config->socket_bytes == 0)
        config->socket_bytes = 262144;
    if (config->reassembly_bytes == 0)
        config->reassembly_bytes = 262144;
    if (config->neighbours == 0)
        config->neighbours = 256;
    for (uint32_t i = 0; i < config->address_count; i++) {
        if (config->address[i].family == 4)
            memset(config->address[i].bytes + 4, 0, 12);
    }
    memset(config->gateway4.bytes + 4, 0, 12);
}

static void enable_families(struct stk *s)
{
    s->enabled4 = s->config.any_address != 0;
    s->enabled6 = s->config.any_address != 0 && s->config.mtu >= 1280;
    for (uint32_t i = 0; i < s->config.address_count; i++) {
        if (s->config.address[i].family == 4)
            s->enabled4 = 1;
        else
            s->enabled6 = 1;
    }
}

struct stk *stk_new(const struct stk_config *config, const struct stk_output *output)
{
    if (stk_config_check(config) != NULL)
        return NULL;
    struct stk *s = calloc(1, sizeof *s);
    if (s == NULL)
        return NULL;
    s->config = *config;
    for (uint32_t i = 0; i < STK_PORTS; i++)
        s->output[i] = *output;
    normalise(&s->config);
    enable_families(s);
    s->random = config->seed;
    s->hash_key = stk_random(s);
    s->header = s->config.vlan != 0 ? STK_ETHER + STK_TAG : STK_ETHER;
    s->deadline = STK_NEVER;
    s->error_credit = ERROR_BURST;
    for (uint32_t i = 0; i < STK_IDENTIFIERS; i++)
        s->identifiers[i] = (uint32_t)stk_random(s);
    uint32_t buckets = 64;
    while (buckets < s->config.neighbours * 2)
        buckets *= 2;
    s->neighbour_mask = buckets - 1;
    s->neighbours = calloc(s->config.neighbours, sizeof *s->neighbours);
    s->neighbour_buckets = malloc(buckets * sizeof *s->neighbour_buckets);
    s->scratch = malloc(STK_SCRATCH);
    if (s->neighbours == NULL || s->neighbour_buckets == NULL || s->scratch == NULL) {
        stk_free(s);
        return NULL;
    }
    memset(s->neighbour_buckets, 0xff, buckets * sizeof *s->neighbour_buckets);
    stk_socket_start(s);
    return s;
}

void stk_free(struct stk *s)
{
    if (s == NULL)
        return;
    stk_fragment_free(s);
    if (s->neighbours != NULL)
        stk_neighbour_free(s);
    stk_socket_free(s);
    free(s->neighbours);
    free(s->neighbour_buckets);
    free(s->scratch);
    free(s);
}

void stk_output_on(struct stk *s, uint32_t port, const struct stk_output *output)
{
    if (port >= STK_PORTS)
        return;
    if (s->ports == 0)
        s->first_port = port;
    s->ports |= 1u << port;
    s->output[port] = *output;
}

void stk_settle(struct stk *s, int32_t reason, uint64_t frames)
{
    if (reason == EXO_R_DELIVERED)
        s->counters.delivered += frames;
    else
        s->counters.drop[reason - EXO_R_STACK_FIRST] += frames;
}

int32_t stk_input(struct stk *s, const uint8_t *frame, uint32_t length, uint32_t wire_len, uint32_t flags, uint32_t csum, uint64_t now)
{
    return stk_input_at(s, 0, frame, length, wire_len, flags, csum, now);
}

int32_t stk_input_at(struct stk *s, uint32_t port, const uint8_t *frame, uint32_t length, uint32_t wire_len, uint32_t flags, uint32_t csum,
                     uint64_t now)
{
    struct stk_packet p;
    s->now = now;
    s->port = port < STK_PORTS ? port : s->first_port;
    s->counters.in_frames++;
    s->counters.in_bytes += length;
    p.ether = frame;
    p.frame_end = frame + length;
    p.csum = csum;
    p.has_csum = (flags & EXO_F_CSUM) != 0;
    p.cut = (flags & EXO_F_SNAPPED) != 0;
    /* R7: padding up to 60 bytes is the NIC's; the packet ends where the wire said. */
    uint32_t n = (flags & EXO_F_PADDED) && wire_len < length ? wire_len : length;
    int32_t reason = n < STK_ETHER ? short_reason(&p) : stk_ethernet_input(s, &p, frame + n);
    if (reason == STK_HELD)
        return EXO_R_DELIVERED;
    stk_settle(s, reason, 1);
    return reason;
}

/* Sum of p->payload[0..n). From the kernel's sum over the frame, by subtraction of what is around it (RFC 1624's arithmetic),
 * where that is shorter than the payload itself. */
uint16_t stk_payload_sum(const struct stk_packet *p, uint32_t n)
{
    if (p->has_csum) {
        const uint8_t *start = p->ether + STK_ETHER;
        uint32_t before = (uint32_t)(p->payload - start), after = (uint32_t)(p->frame_end - (p->payload + n));
        if (before + after < n) {
            uint16_t tail = exo_checksum(p->payload + n, after, 0);
            if ((before + n) & 1)
                tail = __builtin_bswap16(tail);
            uint32_t sum = exo_checksum(start, before, tail);
            sum = p->csum + (uint32_t)(uint16_t)~sum;
            return (uint16_t)((sum & 0xffff) + (sum >> 16));
        }
    }
    return exo_checksum(p->payload, n, 0);
}

/* RFC 768, RFC 8200 8.1. */
uint32_t stk_pseudo_sum(uint32_t family, const uint8_t *source, const uint8_t *destination, uint32_t protocol, uint32_t length)
{
    uint32_t sum = summand(length & 0xffff) + summand(length >> 16) + summand(protocol);
    sum = exo_checksum(source, address_size(family), sum);
    return exo_checksum(destination, address_size(family), sum);
}

/* RFC 1812 4.3.2.8, RFC 4443 2.4(f): errors are limited by a token bucket. */
int32_t stk_error_allowed(struct stk *s)
{
    if (s->now > s->error_filled) {
        uint64_t gained = s->now - s->error_filled;
        s->error_credit = gained >= ERROR_BURST - s->error_credit ? ERROR_BURST : s->error_credit + gained;
        s->error_filled = s->now;
    }
    if (s->error_credit < ERROR_COST) {
        s->counters.errors_limited++;
        return 0;
    }
    s->error_credit -= ERROR_COST;
    return 1;
}

/* A timer is set; stk_poll looks at the tables again when the earliest one is due. */
void stk_arm(struct stk *s, uint64_t deadline)
{
    if (deadline < s->deadline)
        s->deadline = deadline;
}

uint64_t stk_poll(struct stk *s, uint64_t now)
{
    if (now < s->deadline)
        return s->deadline;
    s->now = now;
    s->deadline = STK_NEVER;
    uint64_t neighbours = stk_neighbour_poll(s), fragments = stk_fragment_poll(s);
    stk_arm(s, neighbours);
    stk_arm(s, fragments);
    return s->deadline;
}

uint64_t stk_held(const struct stk *s)
{
    return s->held;
}

const struct stk_counters *stk_counters(const struct stk *s)
{
    return &s->counters;
}
