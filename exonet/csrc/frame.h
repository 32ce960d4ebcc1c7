/* SPDX-License-Identifier: MIT
 *
 * A frame on its way through the trusted part: wire to NIC, NIC to kernel, kernel to wire. Kernel-private: it has
 * pointers. data is valid until the next call of the same producer (a wire's receive, the NIC's refill).
 */
enum exo_frame_flag { EXO_F_CONVERTED = 131072 };    /* made from a packet of another link type; no LibOS is told */

struct exo_frame {
    const uint8_t *data;
    uint32_t len;            /* bytes present at data, without padding: the captured length */
    uint32_t wire_len;       /* length on the wire; more than len where a snaplen cut it */
    uint64_t ts;             /* arrival on the machine's clock, ns: the intended time of a paced replay */
    uint64_t stamp;          /* the capture's own timestamp, ns since the epoch; 0 where there is none */
    uint64_t id;             /* the frame's number in its source, from 0, unique in a run */
    uint32_t flags;          /* EXO_F_SNAPPED, EXO_F_GROUP, EXO_F_LOCAL, ... */
    uint16_t port;
    uint16_t queue;
    uint32_t rss_hash;
    uint32_t sender;         /* the environment that sent a locally switched frame, else 0 */
    uint32_t link_type;      /* of the capture's packet that it was made from, or that could not become one; else 0 */
    uint32_t reserved;
};
