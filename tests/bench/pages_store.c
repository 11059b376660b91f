/* pages_store.c - what it costs to keep KV pages, beside LMDB as an index of a file of slots.
 *
 * usage: pages_store [--dir DIR] [--mib N] [--runs N]
 *
 * Pages of three sizes, N MiB (64) of each in a chain: stored in an empty cache, stored in a full
 * one (each evicts one), found, read in place (checksum, parent and tokens compared), and read
 * after the page cache was told to drop the file: the cache is closed and synced first,
 * posix_fadvise DONTNEED then drops it, and mincore says that nothing stayed. The peer keeps the
 * same values in slots of a plain file, written with pwrite and flushed before the index, an LMDB
 * environment as well, is committed; its readers have no snapshot, so that they must copy a page
 * and check the copy. Reading is measured with a copy for both, and in place for ours alone. The
 * limits are a write and flush of as many bytes, and the checksum of them in memory. Files lie in
 * DIR (build/bench). Prints a table and writes build/bench/pages_store.json.
 *
 * Units: GB/s of data, microseconds.  Owner, errors: a program; it exits 1 with a message. */
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/rng.h"
#include "store/pages.h"
#include "tests/bench/report/report.h"

enum { T = 16, RUNS_MAX = 32, PAGES_MAX = 1024, SIZES = 3 };
enum { PUT, PUT_FULL, FIND, IN_PLACE, COPY, COLD, CASES };
static const char *const case_names[CASES] = {"put", "put.full", "find", "get", "get.copy", "cold"};

struct bench {
    char dir[512], err[512];
    uint32_t data_bytes, n; /* n pages in a chain */
    uint64_t serial;        /* of chains */
    uint32_t *tokens;
    struct page_key keys[PAGES_MAX + 1];
    uint8_t *page[8], *copy; /* what is stored, in turn */
    struct page_shape shape;
    size_t value_bytes;
};
struct slots {
    struct env *index;
    int fd;
    uint8_t *map;
    uint64_t cap, slot_bytes;
    uint8_t *value;
};

static void die(const char *what) {
    fprintf(stderr, "pages_store: %s\n", what);
    exit(1);
}

static void need(int code, const char *what) {
    char text[256];
    if (code == 0) return;
    snprintf(text, sizeof text, "%s: %s", what, err_text(code));
    die(text);
}

static double seconds_since(int64_t begin_ns) {
    return (double)(clock_mono_ns() - begin_ns) / 1e9;
}

static struct page_model model_of(void) {
    return (struct page_model){.model = bytes_str("bench"), .page_tokens = T, .layout = 1};
}

/* Another conversation: other tokens, other keys. */
static void next_chain(struct bench *b) {
    struct page_model m = model_of();
    page_root_public(&b->keys[0], &m, (struct bytes){NULL, 0});
    b->serial++;
    for (uint32_t i = 0; i < b->n * T; i++) b->tokens[i] = (uint32_t)(b->serial * 1000003 + i);
    page_chain(b->keys, b->tokens, b->n, T);
}

static void path_of(const struct bench *b, const char *name, char out[1024]) {
    snprintf(out, 1024, "%s/%s", b->dir, name);
}

/* Writes the file out and drops it from memory; dies when some of it stays. */
static void drop_cache(const char *path) {
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0 || fsync(fd) != 0) die("a data file cannot be synced");
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    size_t pages = ((size_t)st.st_size + 4095) / 4096, there = 0;
    uint8_t *in_core = calloc(pages, 1);
    void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (!in_core || map == MAP_FAILED || mincore(map, (size_t)st.st_size, in_core) != 0)
        die("mincore failed");
    for (size_t i = 0; i < pages; i++) there += in_core[i] & 1;
    munmap(map, (size_t)st.st_size);
    free(in_core);
    close(fd);
    if (there * 100 > pages) die("the page cache did not let the file go");
}

/* ---- ours ---- */

static struct pages *open_ours(struct bench *b, uint64_t cap_bytes) {
    struct pages *p;
    struct pages_group_config g = {
        .name = "global", .data_bytes = b->data_bytes, .cap_bytes = cap_bytes};
    struct pages_config c = {
        .dir = b->dir, .about = "bench", .model = model_of(), .groups = &g, .n_groups = 1};
    if (pages_open(&p, &c, b->err, sizeof b->err) != 0) die(b->err);
    return p;
}

static double put_ours(struct bench *b, struct pages *p) {
    const void *data[PAGES_MAX];
    for (uint32_t i = 0; i < b->n; i++) data[i] = b->page[i % 8];
    struct pages_save s = {.pages = b->n, .keys = b->keys, .tokens = b->tokens, .data = data};
    struct pages_save *one = &s;
    int64_t begin = clock_mono_ns();
    pages_write(p, &one, 1);
    double seconds = seconds_since(begin);
    need(s.code, "a save");
    if (s.stored != b->n) die("not all pages were stored");
    return seconds;
}

static double find_ours(struct bench *b, struct pages *p) {
    struct pages_read r;
    struct pages_hit hit;
    int64_t begin = clock_mono_ns();
    need(pages_read_begin(p, 0, &r), "a read");
    page_chain(b->keys, b->tokens, b->n, T);
    need(pages_find(&r, 0, b->keys, b->n, &hit), "a lookup");
    pages_read_end(&r);
    double seconds = seconds_since(begin);
    if (hit.pages != b->n) die("a prefix was not found");
    return seconds;
}

static double get_ours(struct bench *b, struct pages *p, bool copy, bool prefetch) {
    struct pages_read r;
    struct bytes data;
    int64_t begin = clock_mono_ns();
    need(pages_read_begin(p, 0, &r), "a read");
    if (prefetch) pages_prefetch(&r, 0, b->keys, 0, b->n);
    for (uint32_t i = 0; i < b->n; i++) {
        need(pages_get(&r, 0, 0, b->keys, i, b->tokens, &data), "a page");
        if (copy) memcpy(b->copy + (size_t)i * b->data_bytes, data.data, data.len);
    }
    pages_read_end(&r);
    return seconds_since(begin);
}

static void run_ours(struct bench *b, double t[CASES]) {
    char path[1024], fingerprint[PAGE_FINGERPRINT_CHARS];
    struct page_model m = model_of();
    uint64_t bytes = (uint64_t)b->n * (b->value_bytes + 16);
    struct pages *p = open_ours(b, bytes + bytes / 2 + (16u << 20));
    next_chain(b);
    t[PUT] = put_ours(b, p);
    t[FIND] = find_ours(b, p);
    get_ours(b, p, true, false);
    t[IN_PLACE] = get_ours(b, p, false, false);
    t[COPY] = get_ours(b, p, true, false);
    pages_close(p);
    page_fingerprint(&m, fingerprint);
    snprintf(path, sizeof path, "%s/%s/global/data.mdb", b->dir, fingerprint);
    drop_cache(path);
    p = open_ours(b, bytes + bytes / 2 + (16u << 20));
    t[COLD] = get_ours(b, p, true, true);
    for (int i = 0; i < 3; i++) {
        next_chain(b);
        t[PUT_FULL] = put_ours(b, p);
    }
    if (pages_stats(p).evicted == 0) die("nothing was evicted");
    pages_close(p);
    snprintf(path, sizeof path, "%s/%s", b->dir, fingerprint);
    file_remove_tree(path);
}

/* ---- the peer ---- */

static void open_slots(struct bench *b, struct slots *s, bool anew) {
    static const char *const tables[] = {"slots"};
    char path[1024];
    path_of(b, "index", path);
    file_mkdirs(path);
    struct env_config c = {
        .dir = path, .tables = tables, .n_tables = 1, .cap_bytes = 64u << 20, .lazy = true};
    c.must_exist = !anew;
    if (env_open(&s->index, &c, b->err, sizeof b->err) != 0) die(b->err);
    path_of(b, "slots", path);
    s->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | (anew ? O_TRUNC : 0), 0600);
    s->slot_bytes = b->value_bytes + 16;
    s->cap = b->n + b->n / 4;
    size_t bytes = (size_t)(s->cap * s->slot_bytes);
    if (s->fd < 0 || ftruncate(s->fd, (off_t)bytes) != 0) die("no file of slots");
    s->map = mmap(NULL, bytes, PROT_READ, MAP_SHARED, s->fd, 0);
    s->value = malloc(b->value_bytes);
    if (s->map == MAP_FAILED || !s->value) die("no memory");
}

static void close_slots(struct slots *s) {
    munmap(s->map, (size_t)(s->cap * s->slot_bytes));
    close(s->fd);
    free(s->value);
    env_close(s->index);
}

/* The slots from `first` on are taken in turn, as a clock would evict them. */
static double put_slots(struct bench *b, struct slots *s, uint64_t *first) {
    uint32_t batch = (uint32_t)(PAGE_GROUP_BATCH_BYTES / b->value_bytes);
    int64_t begin = clock_mono_ns();
    for (uint32_t i = 0; i < b->n;) {
        struct env_txn t;
        need(env_begin(s->index, true, &t), "the index");
        uint32_t end = i + batch < b->n ? i + batch : b->n, from = i;
        for (; i < end; i++) {
            uint64_t slot = (*first + i) % s->cap;
            page_value_write(s->value, b->value_bytes, &b->shape, &b->keys[i + 1], &b->keys[i],
                             b->tokens + (size_t)i * T, b->page[i % 8]);
            if (pwrite(s->fd, s->value, b->value_bytes, (off_t)(slot * s->slot_bytes + 16)) !=
                (ssize_t)b->value_bytes)
                die("a slot was not written");
        }
        if (fdatasync(s->fd) != 0) die("no flush");
        for (i = from; i < end; i++) {
            uint64_t slot = (*first + i) % s->cap;
            need(env_put(&t, 0, bytes_of(b->keys[i + 1].b, PAGE_KEY_BYTES),
                         bytes_of(&slot, sizeof slot), ENV_REPLACE),
                 "the index");
        }
        need(env_commit(&t), "the index");
    }
    *first += b->n;
    return seconds_since(begin);
}

static const uint8_t *slot_of(struct slots *s, const struct env_txn *t, const struct page_key *k) {
    struct bytes value;
    uint64_t slot;
    need(env_get(t, 0, bytes_of(k->b, PAGE_KEY_BYTES), &value), "the index");
    memcpy(&slot, value.data, sizeof slot);
    return s->map + slot * s->slot_bytes + 16;
}

static double find_slots(struct bench *b, struct slots *s) {
    struct env_txn t;
    int64_t begin = clock_mono_ns();
    need(env_begin(s->index, false, &t), "the index");
    page_chain(b->keys, b->tokens, b->n, T);
    for (uint32_t i = 0; i < b->n; i++) slot_of(s, &t, &b->keys[i + 1]);
    env_abort(&t);
    return seconds_since(begin);
}

/* A slot may be written anew while it is read: the whole value is copied, then checked. */
static double copy_slots(struct bench *b, struct slots *s, bool prefetch) {
    struct env_txn t;
    struct bytes data;
    int64_t begin = clock_mono_ns();
    need(env_begin(s->index, false, &t), "the index");
    if (prefetch)
        for (uint32_t i = 0; i < b->n; i++) {
            const uint8_t *at = slot_of(s, &t, &b->keys[i + 1]) - 16;
            madvise((void *)(uintptr_t)at, s->slot_bytes, MADV_WILLNEED);
        }
    for (uint32_t i = 0; i < b->n; i++) {
        uint8_t *to = b->copy + (size_t)i * s->slot_bytes;
        memcpy(to, slot_of(s, &t, &b->keys[i + 1]), b->value_bytes);
        need(page_value_open(bytes_of(to, b->value_bytes), &b->shape, &b->keys[i + 1], &b->keys[i],
                             b->tokens + (size_t)i * T, &data),
             "a slot");
    }
    env_abort(&t);
    return seconds_since(begin);
}

static void run_slots(struct bench *b, double t[CASES]) {
    char path[1024];
    struct slots s;
    uint64_t first = 0;
    open_slots(b, &s, true);
    next_chain(b);
    t[PUT] = put_slots(b, &s, &first);
    t[FIND] = find_slots(b, &s);
    copy_slots(b, &s, false);
    t[IN_PLACE] = t[COPY] = copy_slots(b, &s, false);
    close_slots(&s);
    path_of(b, "slots", path);
    drop_cache(path);
    open_slots(b, &s, false);
    t[COLD] = copy_slots(b, &s, true);
    for (int i = 0; i < 3; i++) {
        next_chain(b);
        t[PUT_FULL] = put_slots(b, &s, &first);
    }
    close_slots(&s);
    unlink(path);
    path_of(b, "index", path);
    file_remove_tree(path);
}

/* ---- limits ---- */

static double write_and_flush(struct bench *b) {
    char path[1024];
    path_of(b, "plain", path);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    uint32_t batch = (uint32_t)(PAGE_GROUP_BATCH_BYTES / b->value_bytes);
    int64_t begin = clock_mono_ns();
    for (uint32_t i = 0; i < b->n; i++) {
        if (write(fd, b->page[i % 8], b->data_bytes) != (ssize_t)b->data_bytes) die("no write");
        if ((i + 1) % batch == 0 && fdatasync(fd) != 0) die("no flush");
    }
    if (fdatasync(fd) != 0) die("no flush");
    double seconds = seconds_since(begin);
    close(fd);
    unlink(path);
    return seconds;
}

static double checksum(struct bench *b) {
    volatile uint32_t sum = 0;
    int64_t begin = 0;
    for (int round = 0; round < 2; round++) { /* the first moves what the copies left in caches */
        begin = clock_mono_ns();
        for (uint32_t i = 0; i < b->n; i++)
            sum = crc32c(sum, b->copy + (size_t)i * b->data_bytes, b->data_bytes);
    }
    return seconds_since(begin);
}

static void measure(struct bench *b, struct report *report, int runs, const char *size) {
    double ours[CASES][RUNS_MAX], theirs[CASES][RUNS_MAX], flush[RUNS_MAX], sum[RUNS_MAX];
    double gb = (double)b->n * b->data_bytes / 1e9;
    for (int run = 0; run < runs; run++) {
        double a[CASES], p[CASES];
        flush[run] = gb / write_and_flush(b);
        run_ours(b, a);
        run_slots(b, p);
        sum[run] = gb / checksum(b);
        for (int c = 0; c < CASES; c++) {
            ours[c][run] = c == FIND ? a[c] * 1e6 : gb / a[c];
            theirs[c][run] = c == FIND ? p[c] * 1e6 : gb / p[c];
        }
    }
    for (int c = 0; c < CASES; c++) {
        char name[64];
        bool put = c == PUT || c == PUT_FULL, get = c == IN_PLACE || c == COPY;
        snprintf(name, sizeof name, "%s.%s", case_names[c], size);
        report_add(report, &(struct report_row){.name = name,
                                                .unit = c == FIND ? "us" : "GB/s",
                                                .value = report_median(ours[c], runs),
                                                .peer = "slots",
                                                .peer_value = report_median(theirs[c], runs),
                                                .limit_of = put   ? "write and flush"
                                                            : get ? "CRC32C"
                                                                  : NULL,
                                                .limit = put   ? report_median(flush, runs)
                                                         : get ? report_median(sum, runs)
                                                               : 0,
                                                .less_is_better = c == FIND,
                                                .runs = runs});
    }
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        uint32_t bytes;
    } sizes[SIZES] = {{"192KiB", 192u << 10}, {"400KiB", 400u << 10}, {"1.5MiB", 1536u << 10}};
    static struct bench b;
    const char *dir = "build/bench";
    mallopt(M_MMAP_THRESHOLD, 4 << 20); /* as a worker has it */
    uint32_t mib = 64;
    int runs = 5;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--dir") == 0) dir = argv[i + 1];
        if (strcmp(argv[i], "--mib") == 0) mib = (uint32_t)atoi(argv[i + 1]);
        if (strcmp(argv[i], "--runs") == 0) runs = atoi(argv[i + 1]);
    }
    if (runs < 1 || runs > RUNS_MAX || mib < 32 || mib > 190 || argc % 2 == 0)
        die("usage: pages_store [--dir DIR] [--mib 32..190] [--runs 1..32]");
    snprintf(b.dir, sizeof b.dir, "%s/pages_store-XXXXXX", dir);
    file_mkdirs(dir);
    if (!mkdtemp(b.dir)) die("no folder");
    b.copy = aligned_alloc(64, ((size_t)mib + 64) << 20);
    b.tokens = malloc(PAGES_MAX * T * sizeof *b.tokens);
    if (!b.copy || !b.tokens) die("no memory");
    memset(b.copy, 1, ((size_t)mib + 64) << 20);
    struct report *report = report_open("pages_store", runs);
    for (int k = 0; k < SIZES; k++) {
        uint64_t rng = (uint64_t)k;
        b.data_bytes = sizes[k].bytes;
        b.n = (mib << 20) / b.data_bytes;
        b.shape = (struct page_shape){b.data_bytes, T, 1, 0};
        b.value_bytes = page_value_bytes(&b.shape, (uint32_t)sysconf(_SC_PAGESIZE));
        for (int i = 0; i < 8; i++) {
            free(b.page[i]);
            b.page[i] = malloc(b.data_bytes);
            if (!b.page[i]) die("no memory");
            for (uint32_t at = 0; at < b.data_bytes; at += 8) {
                uint64_t v = rng_next(&rng);
                memcpy(b.page[i] + at, &v, sizeof v);
            }
        }
        measure(&b, report, runs, sizes[k].name);
    }
    report_close(report);
    for (int i = 0; i < 8; i++) free(b.page[i]);
    free(b.copy);
    free(b.tokens);
    file_remove_tree(b.dir);
    return 0;
}
