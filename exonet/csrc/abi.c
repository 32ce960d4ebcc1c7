/* SPDX-License-Identifier: MIT
 *
 * The contract's sizes and offsets, asserted: exo_abi.h itself may hold declarations only. A line that fails here is a change of
 * the ABI: it needs a new EXO_ABI_VERSION. Padding is explicit, so the sum of the fields is the size of the struct.
 */
#include "exo_kernel.h"

#define SIZE(type, bytes) _Static_assert(sizeof(struct type) == (bytes), "size of struct " #type)
#define AT(type, field, bytes) _Static_assert(offsetof(struct type, field) == (bytes), "offset of " #type "." #field)

SIZE(exo_fill, 8);
AT(exo_fill, page, 0);
AT(exo_fill, offset, 4);
AT(exo_fill, length, 6);

SIZE(exo_receive, 32);
AT(exo_receive, page, 0);
AT(exo_receive, offset, 4);
AT(exo_receive, length, 6);
AT(exo_receive, wire_len, 8);
AT(exo_receive, flags, 12);
AT(exo_receive, csum, 14);
AT(exo_receive, binding, 16);
AT(exo_receive, port, 20);
AT(exo_receive, reserved, 22);
AT(exo_receive, timestamp, 24);

SIZE(exo_transmit, 32);
AT(exo_transmit, page, 0);
AT(exo_transmit, offset, 4);
AT(exo_transmit, length, 6);
AT(exo_transmit, flags, 8);
AT(exo_transmit, port, 10);
AT(exo_transmit, csum_start, 12);
AT(exo_transmit, csum_offset, 14);
AT(exo_transmit, gso_size, 16);
AT(exo_transmit, gso_type, 18);
AT(exo_transmit, hdr_len, 20);
AT(exo_transmit, reserved, 22);
AT(exo_transmit, cookie, 24);

SIZE(exo_completion, 16);
AT(exo_completion, cookie, 0);
AT(exo_completion, status, 8);
AT(exo_completion, reserved, 12);

SIZE(exo_index, 64);
AT(exo_index, value, 0);
AT(exo_index, pad, 4);

SIZE(exo_layout, 48);
AT(exo_layout, fill_entries, 0);
AT(exo_layout, receive_entries, 4);
AT(exo_layout, transmit_entries, 8);
AT(exo_layout, completion_entries, 12);
AT(exo_layout, receive_offset, 16);
AT(exo_layout, completion_offset, 20);
AT(exo_layout, fill_offset, 24);
AT(exo_layout, transmit_offset, 28);
AT(exo_layout, verdict_offset, 32);
AT(exo_layout, reserved, 36);
AT(exo_layout, kernel_area_size, 40);
AT(exo_layout, libos_area_size, 44);

SIZE(exo_kernel_area, 512);
AT(exo_kernel_area, abi_version, 0);
AT(exo_kernel_area, env, 4);
AT(exo_kernel_area, seed, 8);
AT(exo_kernel_area, layout, 16);
AT(exo_kernel_area, fill_taken, 64);
AT(exo_kernel_area, receive_put, 128);
AT(exo_kernel_area, transmit_taken, 192);
AT(exo_kernel_area, completion_put, 256);
AT(exo_kernel_area, need_wakeup, 320);
AT(exo_kernel_area, stop, 384);
AT(exo_kernel_area, now, 448);
AT(exo_kernel_area, pad1, 456);

SIZE(exo_stack_counters, 288);
AT(exo_stack_counters, delivered, 0);
AT(exo_stack_counters, bytes, 8);
AT(exo_stack_counters, sent, 16);
AT(exo_stack_counters, digest, 24);
AT(exo_stack_counters, drop, 32);

SIZE(exo_libos_area, 640);
AT(exo_libos_area, fill_put, 0);
AT(exo_libos_area, receive_taken, 64);
AT(exo_libos_area, transmit_put, 128);
AT(exo_libos_area, completion_taken, 192);
AT(exo_libos_area, need_wakeup, 256);
AT(exo_libos_area, counters, 320);
AT(exo_libos_area, pad, 608);

SIZE(exo_page_owner, 8);
AT(exo_page_owner, env, 0);
AT(exo_page_owner, pins, 4);

/* What the layout relies on: ring entries divide cache lines or are multiples of 8, and every index has a line of its own. */
_Static_assert(sizeof(struct exo_index) == EXO_CACHE_LINE, "an index fills its cache line");
_Static_assert(offsetof(struct exo_kernel_area, fill_taken) % EXO_CACHE_LINE == 0, "kernel indices are aligned");
_Static_assert(offsetof(struct exo_libos_area, counters) % EXO_CACHE_LINE == 0, "counters are aligned");
_Static_assert(EXO_REASONS - EXO_R_STACK_FIRST > 0 && EXO_R_TRANSMIT_FIRST - EXO_R_STACK_FIRST <= EXO_STACK_REASONS,
               "every stack reason has a place in exo_stack_counters.drop");
_Static_assert(EXO_REASONS <= 96, "every reason has a place in the ledger");
_Static_assert(EXO_STAGES == 9, "every stage has a place in the ledger");
_Static_assert(EXO_MAX_LOCALS == 64, "exo_env.local holds EXO_MAX_LOCALS");
