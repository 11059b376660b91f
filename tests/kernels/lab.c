#include "tests/kernels/lab.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>
#include <sys/mman.h>

#include "base/rng.h"
#include "kernels/cpu/level.h"
#include "kernels/half.h"

enum { PAGE = 4096, CANARY = 0xa5, BUFFERS_MAX = 4096 };

const char *lab_level[LAB_LEVELS_MAX];
uint32_t lab_levels;

static struct {
    unsigned char *map;
    size_t map_bytes, front_bytes;
} buffers[BUFFERS_MAX];
static uint32_t n_buffers;
static uint64_t state;

void lab_start(void) {
    static const struct level *const all[] = {
#if defined(__x86_64__)
        &LEVEL_AVX512BF16,
        &LEVEL_AVX512,
        &LEVEL_AVX2,
#endif
        &LEVEL_PLAIN
    };
    lab_levels = 0;
    lab_level[lab_levels++] = "ref";
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i]->supported()) lab_level[lab_levels++] = all[i]->name;
    state = 20261123;
}

void *lab_bytes(size_t bytes) {
    size_t whole = (bytes + PAGE - 1) / PAGE * PAGE + (size_t)2 * PAGE;
    unsigned char *map =
        mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert(map != MAP_FAILED && n_buffers < BUFFERS_MAX);
    size_t front = whole - PAGE - bytes;
    memset(map, CANARY, front);
    cr_assert_eq(mprotect(map + whole - PAGE, PAGE, PROT_NONE), 0);
    buffers[n_buffers].map = map;
    buffers[n_buffers].map_bytes = whole;
    buffers[n_buffers++].front_bytes = front;
    return map + front;
}

uint32_t lab_mark(void) {
    return n_buffers;
}

void lab_release(uint32_t mark) {
    for (; n_buffers > mark; n_buffers--) {
        unsigned char *map = buffers[n_buffers - 1].map;
        for (size_t i = 0; i < buffers[n_buffers - 1].front_bytes; i++)
            if (map[i] != CANARY) cr_assert_fail("something wrote in front of a buffer");
        munmap(map, buffers[n_buffers - 1].map_bytes);
    }
}

void lab_free(void) {
    lab_release(0);
}

struct ops *lab_open(const char *level, uint32_t threads) {
    struct ops *o = NULL;
    char err[256] = "";
    struct ops_config c = {.backend = "ref"};
    if (strcmp(level, "ref") != 0) c = (struct ops_config){"cpu", level, threads};
    cr_assert_eq(ops_open(&o, &c, err, sizeof err), 0, "%s", err);
    return o;
}

uint32_t lab_below(uint32_t n) {
    return (uint32_t)(rng_next(&state) % n);
}

float *lab_floats(size_t n) {
    return lab_bytes(n * sizeof(float));
}

float *lab_random(size_t n, float scale) {
    float *x = lab_floats(n);
    for (size_t i = 0; i < n; i++) {
        double sum = -6; /* twelve uniform numbers: variance one */
        for (int j = 0; j < 12; j++) sum += (double)(rng_next(&state) >> 40) * 0x1p-24;
        x[i] = (float)sum * scale;
    }
    return x;
}

uint32_t *lab_ids(size_t n, uint32_t below) {
    uint32_t *id = lab_bytes(n * sizeof *id);
    for (size_t i = 0; i < n; i++) id[i] = lab_below(below);
    return id;
}

uint16_t *lab_bf16(const float *from, size_t n) {
    uint16_t *to = lab_bytes(n * sizeof *to);
    for (size_t i = 0; i < n; i++) to[i] = bf16_of_float(from[i]);
    return to;
}

void lab_near(const char *what, const float *got, const float *want, const float *magnitude,
              size_t n, double tolerance) {
    for (size_t i = 0; i < n; i++) {
        double size = 1 + fabs((double)(magnitude ? magnitude[i] : want[i]));
        double off = fabs((double)got[i] - (double)want[i]);
        cr_assert(off <= tolerance * size,
                  "%s: element %zu of %zu is %.9g, expected %.9g, off by %.3g of %.3g", what, i, n,
                  (double)got[i], (double)want[i], off, tolerance * size);
    }
}

bool lab_same_bits(const float *a, const float *b, size_t n) {
    return memcmp(a, b, n * sizeof *a) == 0;
}

struct lab_batch lab_batch(uint32_t n_seq, const uint32_t *fresh, const uint32_t *cached,
                           uint32_t page_tokens, uint32_t pages_max) {
    uint32_t *begin = lab_bytes((n_seq + 1) * sizeof *begin), rows = 0;
    for (uint32_t s = 0; s <= n_seq; s++) {
        begin[s] = rows;
        if (s < n_seq) rows += fresh[s];
    }
    uint32_t *pos = lab_bytes(rows * sizeof *pos), *kv_len = lab_bytes(n_seq * sizeof *kv_len);
    uint32_t all = n_seq * pages_max, *pages = lab_bytes(all * sizeof *pages);
    for (uint32_t i = 0; i < all; i++) pages[i] = i;
    for (uint32_t i = all; i > 1; i--) {
        uint32_t j = lab_below(i), kept = pages[i - 1];
        pages[i - 1] = pages[j];
        pages[j] = kept;
    }
    for (uint32_t s = 0; s < n_seq; s++) {
        uint32_t before = cached ? cached[s] : 0;
        kv_len[s] = before + fresh[s];
        cr_assert(kv_len[s] <= page_tokens * pages_max);
        for (uint32_t i = 0; i < fresh[s]; i++) pos[begin[s] + i] = before + i;
    }
    return (struct lab_batch){{n_seq, rows, begin, pos, kv_len, pages, pages_max}, all};
}
