/* SPDX-License-Identifier: MIT
 *
 * An environment's shared memory: the kernel area (written here, sealed so that nobody else can ever map it writable) and the
 * LibOS area (hostile), each a memfd, with the ring arrays laid out in them on cache lines of their own.
 * The layout that counts is the copy in struct exo_env; the one in the kernel area is for the LibOS to read.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "exo_kernel.h"

enum { EXO_MIN_ENTRIES = 8, EXO_MAX_ENTRIES = 32768 };

_Static_assert(sizeof(struct exo_placed) == 32, "two in a cache line");
_Static_assert(EXO_MAX_FRAME <= UINT16_MAX && EXO_MAX_PORTS <= UINT8_MAX, "exo_placed has room for lengths and ports");

static uint32_t align_to(uint32_t value, uint32_t unit) { return (value + unit - 1) / unit * unit; }

static int good_entries(uint32_t n) { return n >= EXO_MIN_ENTRIES && n <= EXO_MAX_ENTRIES && (n & (n - 1)) == 0; }

/* The next array, of `bytes`, begins on a fresh cache line at or after *end; moves *end behind it. */
static uint32_t place(uint32_t *end, size_t bytes) {
    uint32_t offset = align_to(*end, EXO_CACHE_LINE);
    *end = offset + (uint32_t)bytes;
    return offset;
}

static int32_t compute_layout(struct exo_layout *out, const struct exo_layout *in) {
    if (!good_entries(in->fill_entries) || !good_entries(in->receive_entries) || !good_entries(in->transmit_entries) ||
        !good_entries(in->completion_entries))
        return EXO_E_INVALID;
    *out = *in;
    uint32_t end = sizeof(struct exo_kernel_area);
    out->receive_offset = place(&end, in->receive_entries * sizeof(struct exo_receive));
    out->completion_offset = place(&end, in->completion_entries * sizeof(struct exo_completion));
    out->kernel_area_size = align_to(end, EXO_PAGE_SIZE);
    end = sizeof(struct exo_libos_area);
    out->fill_offset = place(&end, in->fill_entries * sizeof(struct exo_fill));
    out->transmit_offset = place(&end, in->transmit_entries * sizeof(struct exo_transmit));
    out->verdict_offset = place(&end, in->receive_entries * sizeof(uint16_t));
    out->libos_area_size = align_to(end, EXO_PAGE_SIZE);
    out->reserved = 0;
    return 0;
}

/* A memfd of size bytes, mapped writable here and then sealed. NULL with errno set; *fd is the caller's to close either way. */
static void *make_area(const char *name, uint32_t size, int seals, int32_t *fd) {
    *fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (*fd < 0 || ftruncate(*fd, (off_t)size) != 0) return NULL;
    void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, *fd, 0);
    if (map == MAP_FAILED) return NULL;
    if (fcntl(*fd, F_ADD_SEALS, seals) == 0) return map;
    munmap(map, size);
    return NULL;
}

/* SplitMix64's finaliser: seeds and numbers that lie close give words that do not. */
static uint64_t mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

int32_t exo_env_open(struct exo_env *env, uint32_t number, const struct exo_layout *layout, uint64_t seed) {
    memset(env, 0, sizeof *env);
    env->kernel_fd = env->libos_fd = env->wake_fd = -1;
    if (number == EXO_NO_ENV || number == EXO_KERNEL_ENV) return EXO_E_INVALID;
    int32_t bad = compute_layout(&env->layout, layout);
    if (bad < 0) return bad;
    env->number = number;
    env->placed = calloc(env->layout.receive_entries, sizeof *env->placed);
    if (env->placed == NULL) return EXO_E_MEMORY;
    int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
    env->kernel = make_area("exonet-kernel-area", env->layout.kernel_area_size, seals | F_SEAL_FUTURE_WRITE, &env->kernel_fd);
    if (env->kernel != NULL) env->libos = make_area("exonet-libos-area", env->layout.libos_area_size, seals, &env->libos_fd);
    if (env->libos == NULL) {
        exo_env_close(env);
        return EXO_E_SYSTEM;
    }
    env->kernel->abi_version = EXO_ABI_VERSION;
    env->kernel->env = number;
    env->kernel->seed = mix(mix(seed) ^ number);
    env->kernel->layout = env->layout;
    env->state = EXO_ENV_LIVE;
    return 0;
}

void exo_env_close(struct exo_env *env) {
    if (env->kernel != NULL) munmap(env->kernel, env->layout.kernel_area_size);
    if (env->libos != NULL) munmap(env->libos, env->layout.libos_area_size);
    if (env->kernel_fd >= 0) close(env->kernel_fd);
    if (env->libos_fd >= 0) close(env->libos_fd);
    free(env->placed);
    exo_env_locals(env, NULL, 0, 0);
    env->kernel = NULL;
    env->libos = NULL;
    env->placed = NULL;
    env->kernel_fd = env->libos_fd = -1;
}
