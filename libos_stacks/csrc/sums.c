/* SPDX-License-Identifier: MIT
 *
 * The checksums, which both cores have: compiled here under a name of its own, so that each has its own object and its own counts.
 */
#include "checksum.c"
