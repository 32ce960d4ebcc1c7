/* SPDX-License-Identifier: MIT
 *
 * Physical pages. Every allocation is a segment: a memfd of its own, sealed against SHRINK, GROW and further sealing, mapped here
 * once. So a fault of ours cannot meet the end of the file, and a LibOS that punches holes into its pages only reads zeroes.
 * A page that changes its owner gets a new segment; the old backing is emptied (MADV_REMOVE) and unmapped, and used again for the
 * same owner only (invariant 4). The owner table is a memfd of its own that others can only map read-only (F_SEAL_FUTURE_WRITE).
 * Owner of every field: the kernel thread.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "exo_kernel.h"

enum { EXO_POISON = 0xdb, EXO_MAX_PAGES = 1 << 24 };

static size_t bytes_of(uint32_t count) { return (size_t)count * EXO_PAGE_SIZE; }

/* count >= 1 pages from first on lie inside the table. */
static int in_table(const struct exo_pages *pages, uint32_t first, uint32_t count) {
    return count >= 1 && first < pages->count && count <= pages->count - first;
}

static int all_owned(const struct exo_pages *pages, uint32_t env, uint32_t first, uint32_t count) {
    for (uint32_t i = first; i < first + count; i++)
        if (pages->page[i].env != env) return 0;
    return 1;
}

static uint32_t count_guaranteed(const struct exo_pages *pages, uint32_t first, uint32_t count) {
    uint32_t n = 0;
    for (uint32_t i = first; i < first + count; i++) n += pages->guaranteed[i];
    return n;
}

static int any_pinned(const struct exo_pages *pages, uint32_t first, uint32_t count) {
    for (uint32_t i = first; i < first + count; i++)
        if (pages->page[i].pins != 0) return 1;
    return 0;
}

/* The readable table follows the private one, which is the truth. */
static void publish(struct exo_pages *pages, uint32_t i) {
    __atomic_store_n(&pages->owner[i].env, pages->page[i].env, __ATOMIC_RELAXED);
    __atomic_store_n(&pages->owner[i].pins, pages->page[i].pins, __ATOMIC_RELAXED);
}

static int make_owner_table(struct exo_pages *pages) {
    size_t size = (size_t)pages->count * sizeof(struct exo_page_owner);
    pages->owner_fd = memfd_create("exonet-owners", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (pages->owner_fd < 0 || ftruncate(pages->owner_fd, (off_t)size) != 0) return -1;
    void *table = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, pages->owner_fd, 0);
    if (table == MAP_FAILED) return -1;
    pages->owner = table;
    return fcntl(pages->owner_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL);
}

struct exo_pages *exo_pages_new(uint32_t count) {
    if (count < 1 || count > EXO_MAX_PAGES) return NULL;
    struct exo_pages *pages = calloc(1, sizeof *pages);
    if (pages == NULL) return NULL;
    pages->count = count;
    pages->owner_fd = -1;
    pages->page = calloc(count, sizeof *pages->page);
    pages->guaranteed = calloc(count, sizeof *pages->guaranteed);
    if (pages->page == NULL || pages->guaranteed == NULL || make_owner_table(pages) != 0) {
        exo_pages_free(pages);
        return NULL;
    }
    return pages;
}

void exo_pages_free(struct exo_pages *pages) {
    if (pages == NULL) return;
    if (pages->page != NULL)
        for (uint32_t i = 0; i < pages->count; i++)
            if (pages->page[i].address != NULL) munmap(pages->page[i].address, EXO_PAGE_SIZE);
    if (pages->owner != NULL) munmap(pages->owner, (size_t)pages->count * sizeof(struct exo_page_owner));
    if (pages->owner_fd >= 0) close(pages->owner_fd);
    free(pages->page);
    free(pages->guaranteed);
    free(pages);
}

int64_t exo_pages_find(const struct exo_pages *pages, uint32_t first, uint32_t length, uint32_t count) {
    uint32_t run = 0;
    for (uint32_t i = first; i < pages->count && i - first < length; i++) {
        run = pages->page[i].env == EXO_NO_ENV ? run + 1 : 0;
        if (run == count) return (int64_t)i + 1 - count;
    }
    return EXO_E_FULL;
}

/* A sealed memfd of count pages, mapped; *base set. Returns its descriptor, or EXO_E_SYSTEM with errno set. */
static int32_t make_segment(uint32_t count, uint8_t **base) {
    int fd = memfd_create("exonet-pages", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) return EXO_E_SYSTEM;
    void *map = MAP_FAILED;
    if (ftruncate(fd, (off_t)bytes_of(count)) == 0)
        map = mmap(NULL, bytes_of(count), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (map != MAP_FAILED && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0) {
        *base = map;
        return fd;
    }
    if (map != MAP_FAILED) munmap(map, bytes_of(count));
    close(fd);
    return EXO_E_SYSTEM;
}

/* Where count pages from `first` on, or anywhere, are free. */
static int64_t find_free(const struct exo_pages *pages, uint32_t env, uint32_t first, uint32_t count) {
    if (env == EXO_NO_ENV || count < 1 || count > pages->count) return EXO_E_INVALID;
    if (first == EXO_ANY_PAGE) return exo_pages_find(pages, 0, pages->count, count);
    if (!in_table(pages, first, count)) return EXO_E_INVALID;
    return all_owned(pages, EXO_NO_ENV, first, count) ? (int64_t)first : EXO_E_BUSY;
}

static void give(struct exo_pages *pages, uint32_t env, uint32_t first, uint32_t count, uint8_t *base) {
    for (uint32_t i = 0; i < count; i++) {
        pages->page[first + i] = (struct exo_page){.address = base + bytes_of(i), .env = env, .pins = 0};
        publish(pages, first + i);
    }
}

int64_t exo_pages_allocate(struct exo_pages *pages, uint32_t env, uint32_t first, uint32_t count, int32_t *fd) {
    int64_t found = find_free(pages, env, first, count);
    if (found < 0) return found;
    uint8_t *base = NULL;
    int32_t segment = make_segment(count, &base);
    if (segment < 0) return segment;
    give(pages, env, (uint32_t)found, count, base);
    *fd = segment;
    return found;
}

int64_t exo_pages_adopt(struct exo_pages *pages, uint32_t env, uint32_t first, uint32_t count, int32_t fd) {
    int64_t found = find_free(pages, env, first, count);
    if (found < 0) return found;
    struct stat made;
    if (fstat(fd, &made) != 0) return EXO_E_SYSTEM;
    if ((uint64_t)made.st_size < bytes_of(count)) return EXO_E_INVALID;
    if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, made.st_size) != 0) return EXO_E_SYSTEM;
    void *map = mmap(NULL, bytes_of(count), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (map == MAP_FAILED) return EXO_E_SYSTEM;
    give(pages, env, (uint32_t)found, count, map);
    return found;
}

/* The page is nobody's: contents gone for everyone who still maps the segment, our mapping gone. */
static void drop(struct exo_pages *pages, uint32_t i) {
    uint8_t *address = pages->page[i].address;
    pages->page[i] = (struct exo_page){.address = NULL, .env = EXO_NO_ENV, .pins = 0};
    pages->guaranteed[i] = 0;
    publish(pages, i);
    if (madvise(address, EXO_PAGE_SIZE, MADV_REMOVE) != 0) memset(address, EXO_POISON, EXO_PAGE_SIZE);
    munmap(address, EXO_PAGE_SIZE);
}

/* 0 where these are pages of env's, or what is wrong. */
static int32_t check_owned(const struct exo_pages *pages, uint32_t env, uint32_t first, uint32_t count) {
    if (!in_table(pages, first, count)) return EXO_E_INVALID;
    return env == EXO_NO_ENV || !all_owned(pages, env, first, count) ? EXO_E_NOT_FOUND : 0;
}

static void drop_all(struct exo_pages *pages, uint32_t first, uint32_t count) {
    for (uint32_t i = first; i < first + count; i++) drop(pages, i);
}

int32_t exo_pages_seize(struct exo_pages *pages, uint32_t env, uint32_t first, uint32_t count) {
    int32_t bad = check_owned(pages, env, first, count);
    if (bad < 0) return bad;
    if (count_guaranteed(pages, first, count) != 0) return EXO_E_DENIED;
    drop_all(pages, first, count);
    return 0;
}

/* The owner's own choice, so a guarantee ends with the page. */
int32_t exo_pages_release(struct exo_pages *pages, uint32_t env, uint32_t first, uint32_t count) {
    int32_t bad = check_owned(pages, env, first, count);
    if (bad < 0) return bad;
    if (any_pinned(pages, first, count)) return EXO_E_BUSY;
    drop_all(pages, first, count);
    return 0;
}

int32_t exo_pages_guaranteed(const struct exo_pages *pages, uint32_t env, uint32_t first, uint32_t count) {
    int32_t bad = check_owned(pages, env, first, count);
    return bad < 0 ? bad : (int32_t)count_guaranteed(pages, first, count);
}

int32_t exo_pages_guarantee(struct exo_pages *pages, uint32_t env, uint32_t first, uint32_t count, uint32_t guaranteed) {
    int32_t bad = check_owned(pages, env, first, count);
    if (bad < 0) return bad;
    uint32_t had = count_guaranteed(pages, first, count);
    memset(pages->guaranteed + first, guaranteed != 0, count);
    return (int32_t)(guaranteed ? count - had : had);
}

int32_t exo_pages_reclaim(struct exo_pages *pages, uint32_t env) {
    if (env == EXO_NO_ENV) return EXO_E_INVALID;
    int32_t gone = 0;
    for (uint32_t i = 0; i < pages->count; i++)
        if (pages->page[i].env == env) {
            drop(pages, i);
            gone++;
        }
    return gone;
}

int32_t exo_pages_pin(struct exo_pages *pages, uint32_t env, uint32_t first, uint32_t count) {
    int32_t bad = check_owned(pages, env, first, count);
    if (bad < 0) return bad;
    for (uint32_t i = first; i < first + count; i++)
        if (pages->page[i].pins == UINT32_MAX) return EXO_E_FULL;
    for (uint32_t i = first; i < first + count; i++) {
        pages->page[i].pins++;
        publish(pages, i);
    }
    return 0;
}

int32_t exo_pages_unpin(struct exo_pages *pages, uint32_t env, uint32_t first, uint32_t count) {
    int32_t bad = check_owned(pages, env, first, count);
    if (bad < 0) return bad;
    for (uint32_t i = first; i < first + count; i++)
        if (pages->page[i].pins == 0) return EXO_E_INVALID;
    for (uint32_t i = first; i < first + count; i++) {
        pages->page[i].pins--;
        publish(pages, i);
    }
    return 0;
}

uint32_t exo_pages_free_count(const struct exo_pages *pages) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < pages->count; i++) n += pages->page[i].env == EXO_NO_ENV;
    return n;
}
