/* SPDX-License-Identifier: MIT
 *
 * What the kernel's C files share. The headers below it are plain declarations (cffi reads them too), so they are
 * included here in order, once.
 */
#ifndef EXO_KERNEL_H
#define EXO_KERNEL_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "exo_abi.h"
#include "frame.h"
#include "l3.h"
#include "ledger.h"
#include "checksum.h"
#include "wire.h"
#include "link_layer.h"
#include "trace.h"
#include "delays.h"
#include "replay.h"
#include "link.h"
#include "nic.h"
#include "demux.h"
#include "env.h"
#include "isolate.h"
#include "machine.h"
#include "cpu.h"

#define EXO_LIKELY(x) __builtin_expect(!!(x), 1)
#define EXO_UNLIKELY(x) __builtin_expect(!!(x), 0)

/* Ethertypes of the network layers that are looked into. */
enum { EXO_ETHER_IP4 = 0x0800, EXO_ETHER_ARP = 0x0806, EXO_ETHER_IP6 = 0x86dd };

/* Wire integers: no alignment, no byte order assumed. */
static inline uint16_t exo_be16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }
static inline uint32_t exo_be32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return __builtin_bswap32(v); }
static inline void exo_put_be16(uint8_t *p, uint16_t v) { p[0] = (uint8_t)(v >> 8); p[1] = (uint8_t)v; }
static inline void exo_put_be32(uint8_t *p, uint32_t v) { v = __builtin_bswap32(v); memcpy(p, &v, 4); }

#endif
