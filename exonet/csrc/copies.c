/* SPDX-License-Identifier: MIT
 *
 * Copies of a frame for several environments (R2, R6): each that has a binding which takes the frame gets one, under the most
 * specific of them. What is collected is environments, of which there are few, so that nobody's bindings push out another's.
 */
#include "machine_private.h"

void exo_copies_begin(struct copies *copies, const struct exo_machine *m, const struct exo_frame *frame,
                      int (*wanted)(const struct exo_machine *m, const struct exo_frame *frame, uint32_t slot))
{
    copies->machine = m;
    copies->frame = frame;
    copies->wanted = wanted;
    memset(copies->known, 0, sizeof copies->known);
    memset(copies->open, 0, sizeof copies->open);
}

void exo_copies_settle(struct copies *copies, uint32_t slot, uint32_t binding)
{
    uint64_t bit = 1ull << slot % 64;
    copies->known[slot / 64] |= bit;
    copies->open[slot / 64] &= ~bit;
    copies->by_slot[slot].binding = binding;
}

struct exo_taker *exo_copies_keep(void *context, uint32_t binding)
{
    struct copies *copies = context;
    const struct exo_machine *m = copies->machine;
    uint32_t slot = slot_of_env(m->binding[binding].env);
    uint64_t bit = 1ull << slot % 64;
    if (!(copies->known[slot / 64] & bit)) {
        exo_copies_settle(copies, slot, EXO_NO_OWNER);
        if (!copies->wanted || copies->wanted(m, copies->frame, slot))
            copies->open[slot / 64] |= bit;
    }
    return copies->open[slot / 64] & bit ? &copies->by_slot[slot] : NULL;
}

/* Returns how many there are. */
uint32_t exo_copies_deliver(const struct copies *copies, struct exo_machine *m, uint32_t flags)
{
    uint32_t delivered = 0;
    for (uint32_t word = 0; word < EXO_MAX_ENVS / 64; word++) {
        for (uint64_t left = copies->known[word]; left; left &= left - 1) {
            uint32_t binding = copies->by_slot[64 * word + (uint32_t)__builtin_ctzll(left)].binding;
            if (binding == EXO_NO_OWNER)
                continue;
            exo_deliver_to(m, binding, copies->frame, flags);
            delivered++;
        }
    }
    return delivered;
}
