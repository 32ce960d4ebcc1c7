/* SPDX-License-Identifier: MIT
 *
 * What the stack's C files share. Only the ABI comes from exonet.
 */
#ifndef STK_H
#define STK_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifndef EXO_KERNEL_H
#include "exo_abi.h"
#include "checksum.h"
#endif
#include "stack.h"
#include "ring.h"

#endif
