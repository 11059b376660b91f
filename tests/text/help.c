#include "tests/text/help.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/rng.h"
#include "workers/encode/pretokenize.h"
#include "workers/encode/unicode.h"

void folder_begin(struct folder *f) {
    const char *tmp = getenv("TMPDIR");
    snprintf(f->dir, sizeof f->dir, "%.200s/penstock-text-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    cr_assert(mkdtemp(f->dir), "cannot make %s", f->dir);
}

void folder_write(const struct folder *f, const char *name, const void *data, size_t bytes) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", f->dir, name);
    FILE *file = fopen(path, "wb");
    cr_assert(file, "cannot write %s", path);
    cr_assert_eq(fwrite(data, 1, bytes, file), bytes);
    cr_assert_eq(fclose(file), 0);
}

void folder_end(struct folder *f) {
    static const char *const names[] = {"config.json", "tokenizer.json", "vocab.txt",
                                        "vocab.json",  "merges.txt",     "tokenizer_config.json",
                                        "policy.yaml", "taxonomy.yaml",  "chat_template.jinja"};
    char path[512];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", f->dir, names[i]);
        unlink(path);
    }
    cr_assert_eq(rmdir(f->dir), 0, "%s is not empty", f->dir);
}

struct tokenizer *tokenizer_must_open(const char *json) {
    struct folder f;
    struct tokenizer *t;
    char err[512] = "";
    folder_begin(&f);
    folder_write(&f, "tokenizer.json", json, strlen(json));
    int rc = tokenizer_open(&t, f.dir, err, sizeof err);
    folder_end(&f);
    cr_assert_eq(rc, 0, "%s", err);
    return t;
}

void tokenizer_must_refuse(const char *json, const char *says) {
    struct folder f;
    struct tokenizer *t;
    char err[512] = "";
    folder_begin(&f);
    folder_write(&f, "tokenizer.json", json, strlen(json));
    int rc = tokenizer_open(&t, f.dir, err, sizeof err);
    folder_end(&f);
    cr_assert_lt(rc, 0, "opened, but should be refused for %s", says);
    cr_assert_null(t);
    cr_assert(strstr(err, says), "'%s' does not say '%s'", err, says);
}

/* ---- a small byte-level BPE ---- */

static void put_quoted(struct buf *b, const char *text, size_t bytes) {
    buf_printf(b, "\"");
    for (size_t i = 0; i < bytes; i++) {
        if (text[i] == '"' || text[i] == '\\') buf_printf(b, "\\");
        buf_append(b, text + i, 1);
    }
    buf_printf(b, "\"");
}

char *bytelevel_json(const char *pre_tokenizer, const char *extra, bool pairs) {
    static const char *const merges[][2] = {
        {"h", "e"},  {"l", "l"},          {"he", "ll"}, {"hell", "o"}, {"\xC4\xA0", "w"},
        {"o", "r"},  {"\xC4\xA0w", "or"}, {"a", "a"},   {"aa", "aa"},  {"\xC3\xA4", "\xC2\xB8"},
        {"aa", "a"},
    };
    size_t n = sizeof merges / sizeof *merges;
    struct buf b = {0};
    buf_printf(&b,
               "{\"added_tokens\":[{\"id\":400,\"content\":\"<end>\",\"special\":true,"
               "\"normalized\":false}],\"pre_tokenizer\":%s,"
               "\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\"%s,\"vocab\":{",
               pre_tokenizer, extra);
    for (uint32_t i = 0; i < 256; i++) {
        char c[4];
        uint32_t bytes = unicode_put(c, bytelevel_char((uint8_t)i));
        put_quoted(&b, c, bytes);
        buf_printf(&b, ":%u,", i);
    }
    for (size_t i = 0; i < n; i++)
        buf_printf(&b, "\"%s%s\":%zu,", merges[i][0], merges[i][1], 300 + i);
    buf_printf(&b, "\"whole\":390},\"merges\":[");
    for (size_t i = 0; i < n; i++)
        buf_printf(&b, pairs ? "%s[\"%s\",\"%s\"]" : "%s\"%s %s\"", i ? "," : "", merges[i][0],
                   merges[i][1]);
    buf_printf(&b, "]}}");
    buf_u8(&b, 0);
    cr_assert_eq(b.error, 0);
    return (char *)b.data;
}

/* ---- encoding and decoding ---- */

char *ids_text(struct arena *a, const uint32_t *ids, uint32_t n) {
    char *text = arena_alloc(a, (size_t)n * 11 + 1), *to = text;
    cr_assert(text);
    *to = '\0';
    for (uint32_t i = 0; i < n; i++) to += sprintf(to, i ? " %u" : "%u", ids[i]);
    return text;
}

char *encode_text(const struct tokenizer *t, struct arena *a, const char *text, bool special,
                  uint32_t max) {
    struct tokens k;
    char err[256] = "";
    int rc = tokenizer_encode(t, bytes_str(text), special, max, a, &k, err, sizeof err);
    cr_assert_eq(rc, 0, "%s", err);
    return ids_text(a, k.ids, k.n);
}

void must_decode(const struct tokenizer *t, const uint32_t *ids, uint32_t n, bool skip,
                 const char *expected) {
    struct buf out = {0};
    cr_assert_eq(tokenizer_decode(t, ids, n, skip, &out), 0);
    cr_assert(bytes_is(buf_bytes(&out), expected), "decoded '%.*s', not '%s'", (int)out.len,
              (char *)out.data, expected);
    buf_fini(&out);
}

/* ---- random texts ---- */

void random_text(uint64_t *state, uint32_t chars_max, struct buf *out) {
    static const struct {
        uint32_t first, n;
    } ranges[] = {{' ', 95},      {' ', 95},        {'a', 26},      {'0', 10},
                  {0xA0, 0x160},  {0x300, 0x70},    {0x400, 0x100}, {0x4E00, 0x5000},
                  {0x3000, 0x40}, {0xAC00, 0x2B00}, {0xFF00, 0x60}, {0x1F600, 0x50},
                  {9, 5},         {0x2000, 0x70}};
    buf_clear(out);
    uint32_t n = (uint32_t)(rng_next(state) % (chars_max + 1));
    while (n > 0) {
        uint64_t r = rng_next(state);
        uint32_t k = (uint32_t)(r % (sizeof ranges / sizeof *ranges)),
                 run = 1 + (uint32_t)(r >> 32) % 5;
        for (; run > 0 && n > 0; run--, n--) {
            char c[4];
            uint32_t code = ranges[k].first + (uint32_t)(rng_next(state) % ranges[k].n);
            buf_append(out, c, unicode_put(c, code));
        }
    }
    cr_assert_eq(out->error, 0);
}

uint64_t test_seed(void) {
    const char *given = getenv("SEED");
    uint64_t seed = given ? strtoull(given, NULL, 10) : 20261123;
    cr_log_info("SEED=%llu", (unsigned long long)seed);
    return seed;
}

/* ---- outside data ---- */

static bool is_dir(const char *path) {
    struct stat s;
    return stat(path, &s) == 0 && S_ISDIR(s.st_mode);
}

const char *data_dir(const char *below) {
    static char dir[512];
    const char *data = getenv("PENSTOCK_DATA");
    if (!data || !*data) cr_skip_test("PENSTOCK_DATA is not set: no %s", below);
    snprintf(dir, sizeof dir, "%s/%s", data, below);
    if (!is_dir(dir)) cr_skip_test("%s is not there", dir);
    return dir;
}

const char *minilm_dir(void) {
    static char dir[512];
    const char *cache = getenv("PENSTOCK_CACHE"), *xdg = getenv("XDG_CACHE_HOME"),
               *home = getenv("HOME");
    if (cache && *cache)
        snprintf(dir, sizeof dir, "%s/models/all-MiniLM-L6-v2", cache);
    else if (xdg && *xdg)
        snprintf(dir, sizeof dir, "%s/penstock/models/all-MiniLM-L6-v2", xdg);
    else
        snprintf(dir, sizeof dir, "%s/.cache/penstock/models/all-MiniLM-L6-v2", home ? home : "");
    if (!is_dir(dir)) cr_skip_test("all-MiniLM-L6-v2 is not in the user's cache: run ops/models");
    return dir;
}
