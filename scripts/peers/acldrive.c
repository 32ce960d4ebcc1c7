/* SPDX-License-Identifier: MIT
 *
 * DPDK's rte_acl on the demux benchmark's filters: a rule per frame of the file VALUES, its exact 5-tuple (IPv4 without options), user
 * data its number. Bursts of pointers in, user data out, each compared with what it must be. The methods that the processor has are
 * named on the first line; then each line of stdin is a run.
 *
 *   acldrive EAL-ARGUMENTS... -- VALUES
 *   methods: avx512x32 avx2 ...
 *   < METHOD FRAMES RIGHT ORDER|- ROUNDS     files: 64-byte frames; uint32_t per frame; uint32_t per place
 *   > NANOSECONDS GOOD OF                   of the thread on the processor
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include <rte_acl.h>
#include <rte_eal.h>

enum { FRAME = 64, BURST = 64, FIELDS = 5, TUPLE_AT = 23, HUGE = 2 << 20 };

RTE_ACL_RULE_DEF(tuple_rule, FIELDS);

/* The first field is one byte, the others lie in groups of four: offsets from the protocol of an IPv4 header at 14. */
static const struct rte_acl_field_def fields[FIELDS] = {
    {.type = RTE_ACL_FIELD_TYPE_BITMASK, .size = 1, .field_index = 0, .input_index = 0, .offset = 0},
    {.type = RTE_ACL_FIELD_TYPE_MASK, .size = 4, .field_index = 1, .input_index = 1, .offset = 3},
    {.type = RTE_ACL_FIELD_TYPE_MASK, .size = 4, .field_index = 2, .input_index = 2, .offset = 7},
    {.type = RTE_ACL_FIELD_TYPE_BITMASK, .size = 2, .field_index = 3, .input_index = 3, .offset = 11},
    {.type = RTE_ACL_FIELD_TYPE_BITMASK, .size = 2, .field_index = 4, .input_index = 3, .offset = 13},
};

static const struct method {
    const char *name;
    enum rte_acl_classify_alg algorithm;
} methods[] = {
    {"avx512x32", RTE_ACL_CLASSIFY_AVX512X32}, {"avx512x16", RTE_ACL_CLASSIFY_AVX512X16}, {"avx2", RTE_ACL_CLASSIFY_AVX2},
    {"sse", RTE_ACL_CLASSIFY_SSE}, {"scalar", RTE_ACL_CLASSIFY_SCALAR},
};
enum { METHODS = sizeof methods / sizeof *methods };

struct file {
    char path[256];
    uint8_t *bytes;
    size_t size;
};

static void die(const char *what)
{
    fprintf(stderr, "acldrive: error: %s\n", what);
    exit(1);
}

/* A file in memory of its own, in huge pages where the system gives them: as the arrays that our own side runs over are. */
static struct file read_file(const char *path)
{
    struct file file = {.size = 0};
    struct stat status;
    FILE *in = fopen(path, "rb");
    if (!in || fstat(fileno(in), &status) || (size_t)snprintf(file.path, sizeof file.path, "%s", path) >= sizeof file.path)
        die(path);
    file.size = (size_t)status.st_size;
    size_t room = (file.size + HUGE) / HUGE * HUGE;
    file.bytes = aligned_alloc(HUGE, room);
    if (!file.bytes)
        die("no memory");
    madvise(file.bytes, room, MADV_HUGEPAGE);
    if (fread(file.bytes, 1, file.size, in) != file.size)
        die(path);
    fclose(in);
    return file;
}

/* The file of a run, from the last time where it is the same. */
static const struct file *file_at(struct file *cached, const char *path)
{
    if (strcmp(cached->path, path) != 0) {
        free(cached->bytes);
        *cached = read_file(path);
    }
    return cached;
}

static void add_rule(struct rte_acl_ctx *context, const uint8_t *frame, uint32_t number)
{
    const uint8_t *t = frame + TUPLE_AT;
    struct tuple_rule rule = {.data = {.userdata = number + 1, .category_mask = 1, .priority = 1}};
    uint32_t source, target;
    memcpy(&source, t + 3, 4);
    memcpy(&target, t + 7, 4);
    rule.field[0] = (struct rte_acl_field){.value.u8 = t[0], .mask_range.u8 = 0xff};
    rule.field[1] = (struct rte_acl_field){.value.u32 = __builtin_bswap32(source), .mask_range.u32 = 32};
    rule.field[2] = (struct rte_acl_field){.value.u32 = __builtin_bswap32(target), .mask_range.u32 = 32};
    rule.field[3] = (struct rte_acl_field){.value.u16 = (uint16_t)(t[11] << 8 | t[12]), .mask_range.u16 = 0xffff};
    rule.field[4] = (struct rte_acl_field){.value.u16 = (uint16_t)(t[13] << 8 | t[14]), .mask_range.u16 = 0xffff};
    if (rte_acl_add_rules(context, (struct rte_acl_rule *)&rule, 1))
        die("a rule was refused");
}

static struct rte_acl_ctx *make_context(const struct file *values)
{
    uint32_t count = (uint32_t)(values->size / FRAME);
    struct rte_acl_param param = {.name = "values", .rule_size = RTE_ACL_RULE_SZ(FIELDS), .max_rule_num = count};
    struct rte_acl_config config = {.num_categories = 1, .num_fields = FIELDS};
    struct rte_acl_ctx *context = rte_acl_create(&param);
    if (!context)
        die("rte_acl_create failed");
    for (uint32_t i = 0; i < count; i++)
        add_rule(context, values->bytes + (size_t)i * FRAME, i);
    memcpy(config.defs, fields, sizeof fields);
    if (rte_acl_build(context, &config))
        die("rte_acl_build failed");
    return context;
}

static uint64_t burst(const struct rte_acl_ctx *context, const uint8_t *base, const uint32_t *order, uint64_t at, uint32_t n,
                      const uint32_t *right)
{
    const uint8_t *data[BURST];
    uint32_t owners[BURST];
    uint64_t good = 0;
    for (uint32_t i = 0; i < n; i++)
        data[i] = base + (order ? order[at + i] : at + i) * FRAME + TUPLE_AT;
    rte_acl_classify(context, data, owners, n, 1);
    for (uint32_t i = 0; i < n; i++)
        good += owners[i] == right[order ? order[at + i] : at + i] + 1;
    return good;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void choose(struct rte_acl_ctx *context, const char *name)
{
    for (uint32_t i = 0; i < METHODS; i++)
        if (strcmp(methods[i].name, name) == 0 && rte_acl_set_ctx_classify(context, methods[i].algorithm) == 0)
            return;
    die("no such method here");
}

int main(int argc, char **argv)
{
    int taken = rte_eal_init(argc, argv);
    if (taken < 0 || argc - taken != 2)
        die("the environment abstraction layer did not start");
    struct file values = read_file(argv[taken + 1]), frames = {.size = 0}, right = {.size = 0}, order = {.size = 0};
    struct rte_acl_ctx *context = make_context(&values);
    printf("methods:");
    for (uint32_t i = 0; i < METHODS; i++)
        if (rte_acl_set_ctx_classify(context, methods[i].algorithm) == 0)
            printf(" %s", methods[i].name);
    printf("\n");
    fflush(stdout);
    char method[32], path[3][256];
    uint32_t rounds;
    while (scanf("%31s %255s %255s %255s %u", method, path[0], path[1], path[2], &rounds) == 5) {
        choose(context, method);
        const uint8_t *base = file_at(&frames, path[0])->bytes;
        const uint32_t *owners = (const uint32_t *)file_at(&right, path[1])->bytes;
        int ordered = strcmp(path[2], "-") != 0;
        const uint32_t *places = ordered ? (const uint32_t *)file_at(&order, path[2])->bytes : NULL;
        uint64_t count = ordered ? order.size / 4 : frames.size / FRAME, good = 0;
        double start = now();
        for (uint32_t round = 0; round < rounds; round++)
            for (uint64_t at = 0; at < count; at += BURST)
                good += burst(context, base, places, at, count - at < BURST ? (uint32_t)(count - at) : (uint32_t)BURST, owners);
        printf("%.0f %llu %llu\n", now() - start, (unsigned long long)good, (unsigned long long)(count * rounds));
        fflush(stdout);
    }
    return 0;
}
