#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/limits.h"
#include "base/rng.h"
#include "schemas/json_schema.h"
#include "schemas/pack.h"

static int check(const char *bytes, size_t len) {
    char err[256];
    return pack_check(bytes_of(bytes, len), err, sizeof err);
}
#define CHECK(literal) check(literal, sizeof literal - 1)

Test(pack, every_format_byte_is_read) {
    static const uint8_t doc[] = {
        0xDC, 0x00, 0x18, 0xC0, 0xC2, 0xC3, 0x7F, 0xCC, 0x80, 0xCD, 0x01, 0x00, 0xCE, 0x00,
        0x01, 0x00, 0x00, 0xCF, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0xFF, 0xD0,
        0x80, 0xD1, 0x80, 0x00, 0xD2, 0x80, 0x00, 0x00, 0x00, 0xD3, 0x80, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0xCA, 0x3F, 0x00, 0x00, 0x00, 0xCB, 0x3F, 0xE0, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0xA1, 'a',  0xD9, 0x01, 'b',  0xDA, 0x00, 0x01, 'c',  0xDB,
        0x00, 0x00, 0x00, 0x01, 'd',  0xC4, 0x01, 0x00, 0xC5, 0x00, 0x01, 0x00, 0xC6, 0x00,
        0x00, 0x00, 0x01, 0x00, 0xDD, 0x00, 0x00, 0x00, 0x00, 0xDF, 0x00, 0x00, 0x00, 0x00};
    struct pack_doc *d;
    char err[256] = "";
    cr_assert_eq(pack_parse(&d, bytes_of(doc, sizeof doc), err, sizeof err), 0, "%s", err);
    const struct pack_val *a = pack_root(d);
    cr_assert_eq(pack_len(a), 24);
    cr_assert_eq(pack_kind(pack_at(a, 0)), PACK_NIL);
    cr_assert_eq(pack_as_bool(pack_at(a, 2), false), true);
    cr_assert_eq(pack_as_u64(pack_at(a, 3), 0), 127);
    cr_assert_eq(pack_as_u64(pack_at(a, 4), 0), 128);
    cr_assert_eq(pack_as_u64(pack_at(a, 7), 0), 1ull << 32);
    cr_assert_eq(pack_as_i64(pack_at(a, 8), 0), -1);
    cr_assert_eq(pack_as_i64(pack_at(a, 12), 0), INT64_MIN);
    cr_assert_eq(pack_as_u64(pack_at(a, 12), 3), 3, "negative numbers are not unsigned");
    cr_assert_float_eq(pack_as_f64(pack_at(a, 13), 0), 0.5, 0);
    cr_assert_float_eq(pack_as_f64(pack_at(a, 14), 0), 0.5, 0);
    for (uint32_t i = 15; i < 19; i++) cr_assert_eq(pack_as_bytes(pack_at(a, i)).len, 1);
    cr_assert_eq(pack_kind(pack_at(a, 19)), PACK_BIN);
    cr_assert_eq(pack_kind(pack_at(a, 23)), PACK_MAP);
    cr_assert_null(pack_at(a, 24));
    pack_free(d);
}

Test(pack, a_declared_gigabyte_is_refused_before_anything_is_allocated) {
    cr_assert_eq(CHECK("\xDB\x40\x00\x00\x00"
                       "abc"),
                 ERR_CORRUPT);
    cr_assert_eq(CHECK("\xC6\x7F\xFF\xFF\xFF"
                       "abc"),
                 ERR_CORRUPT);
    cr_assert_eq(CHECK("\xDD\x40\x00\x00\x00\x01\x02"), ERR_CORRUPT);
    cr_assert_eq(CHECK("\xDF\xFF\xFF\xFF\xFF\x01\x02"), ERR_CORRUPT);
    char err[256];
    struct pack_doc *d = (void *)1;
    struct bytes doc = bytes_of("\x81\xA4text\xDB\x40\x00\x00\x00zz", 13);
    cr_assert_eq(pack_parse(&d, doc, err, sizeof err), ERR_CORRUPT);
    cr_assert_null(d);
    cr_assert(strstr(err, "declares 1073741824 bytes, 2 remain"), "%s", err);
    cr_assert(strstr(err, "in text"), "%s", err);
}

Test(pack, nesting_beyond_the_limit_is_refused) {
    uint8_t doc[64];
    for (uint32_t depth = 1; depth < 40; depth++) {
        memset(doc, 0x91, depth);
        doc[depth] = 0xC0;
        int rc = check((const char *)doc, depth + 1);
        cr_assert_eq(rc, depth <= LIMIT_PACK_DEPTH ? 0 : ERR_LIMIT, "depth %u: %d", depth, rc);
    }
}

Test(pack, values_beyond_the_limit_are_refused) {
    size_t n = LIMIT_PACK_ITEMS + 1;
    uint8_t *doc = calloc(1, n + 5);
    doc[0] = 0xDD;
    for (unsigned i = 0; i < 4; i++) doc[1 + i] = (uint8_t)(n >> (24 - 8 * i));
    cr_assert_eq(check((const char *)doc, n + 5), ERR_LIMIT);
    n = LIMIT_PACK_ITEMS;
    for (unsigned i = 0; i < 4; i++) doc[1 + i] = (uint8_t)(n >> (24 - 8 * i));
    cr_assert_eq(check((const char *)doc, n + 5), 0);
    free(doc);
}

Test(pack, what_is_not_one_document_is_refused) {
    cr_assert_eq(CHECK(""), ERR_CORRUPT);
    cr_assert_eq(CHECK("\xC0\xC0"), ERR_CORRUPT, "bytes behind the document");
    cr_assert_eq(CHECK("\xC1"), ERR_CORRUPT, "the byte that is never used");
    cr_assert_eq(CHECK("\xD4\x01\x00"), ERR_CORRUPT, "ext");
    cr_assert_eq(CHECK("\xC7\x00\x01"), ERR_CORRUPT, "ext");
    cr_assert_eq(CHECK("\x81\x01\x02"), ERR_CORRUPT, "a key that is a number");
    cr_assert_eq(CHECK("\x81\xA1\xFF\x02"), ERR_CORRUPT, "a key that is not UTF-8");
    cr_assert_eq(CHECK("\x91\xA3\xED\xA0\x80"), ERR_CORRUPT, "a surrogate");
    cr_assert_eq(CHECK("\x91\xC4\x01\xFF"), 0, "binary may hold any byte");
}

Test(pack, random_bytes_never_crash_and_what_passes_parses) {
    uint64_t seed = 99, passed = 0;
    for (int round = 0; round < 200000; round++) {
        size_t len = rng_next(&seed) % 12;
        uint8_t *doc = malloc(len ? len : 1);
        for (size_t i = 0; i < len; i++) doc[i] = (uint8_t)(rng_next(&seed) >> 11);
        struct pack_doc *d = NULL;
        char err[128];
        if (pack_parse(&d, bytes_of(doc, len), err, sizeof err) == 0) passed++;
        pack_free(d);
        free(doc);
    }
    cr_assert_gt(passed, 100);
}

Test(pack, what_the_writer_writes_the_reader_reads) {
    struct buf b = {0};
    struct packer p = packer_of(&b);
    pack_map(&p, 7);
    pack_kv_str(&p, "s", "\xE5\x90\x88\xE5\x90\x8C");
    pack_kv_u64(&p, "u", UINT64_MAX);
    pack_kv_f64(&p, "f", 0.1);
    pack_kv_bool(&p, "b", true);
    pack_str(&p, "f32");
    pack_f32(&p, 0.25f);
    pack_str(&p, "bin");
    pack_bin(&p, bytes_of(NULL, 0));
    pack_str(&p, "raw");
    pack_raw(&p, bytes_of("\x93\x01\x02\x03", 4));
    cr_assert_eq(b.error, 0);
    struct pack_doc *d;
    cr_assert_eq(pack_parse(&d, buf_bytes(&b), NULL, 0), 0);
    const struct pack_val *m = pack_root(d), *value;
    cr_assert(bytes_is(pack_as_bytes(pack_get(m, "s")), "\xE5\x90\x88\xE5\x90\x8C"));
    cr_assert_eq(pack_as_u64(pack_get(m, "u"), 0), UINT64_MAX);
    cr_assert_eq(pack_as_i64(pack_get(m, "u"), -7), -7, "beyond int64");
    cr_assert_float_eq(pack_as_f64(pack_get(m, "f"), 0), 0.1, 0);
    cr_assert_float_eq(pack_as_f64(pack_get(m, "f32"), 0), 0.25, 0);
    cr_assert_eq(pack_kind(pack_get(m, "bin")), PACK_BIN);
    cr_assert_eq(pack_as_u64(pack_at(pack_get(m, "raw"), 2), 0), 3);
    cr_assert(bytes_is(pack_key_at(m, 3, &value), "b"));
    cr_assert(pack_as_bool(value, false));
    cr_assert_null(pack_get(m, "absent"));
    cr_assert_null(pack_get(NULL, "absent"));
    cr_assert_eq(pack_len(NULL), 0);
    pack_free(d);
    buf_fini(&b);
}

Test(pack, a_full_buffer_sticks_as_an_error) {
    struct buf b = {.max_bytes = 10};
    struct packer p = packer_of(&b);
    pack_str(&p, "12345");
    cr_assert_eq(b.error, 0);
    pack_str(&p, "67890");
    cr_assert_eq(b.error, ERR_LIMIT);
    pack_nil(&p);
    cr_assert_eq(b.error, ERR_LIMIT);
    buf_fini(&b);
}

static size_t from_hex(const char *text, uint8_t *out, size_t room) {
    size_t n = 0;
    for (const char *p = text; p[0] && p[1] && n < room; p += p[2] ? 3 : 2)
        out[n++] = (uint8_t)strtoul((char[]){p[0], p[1], '\0'}, NULL, 16);
    return n;
}

/* Whether the value of a case (of a type that JSON has too) is what was read. */
static bool same(const struct json *want, struct bytes document) {
    struct json *got;
    if (json_from_pack(document, &got, NULL, 0) != 0) return false;
    bool number = json_kind(want) == JSON_INT || json_kind(want) == JSON_REAL;
    char *a = json_text(want, 0), *b = json_text(got, 0);
    double x = json_num(want, 0), y = json_num(got, 0);
    bool equal = number ? !(x < y || x > y) : strcmp(a, b) == 0;
    free(a);
    free(b);
    json_free(got);
    return equal;
}

/* With PENSTOCK_DATA: the published cases; ext types and timestamps must be refused. */
Test(pack, the_published_suite_is_read_or_refused_as_the_protocol_says) {
    const char *data = getenv("PENSTOCK_DATA");
    if (!data) cr_skip("PENSTOCK_DATA is unset: no msgpack suite");
    char path[512], err[256];
    snprintf(path, sizeof path, "%s/suites/msgpack/dist/msgpack-test-suite.json", data);
    struct json *suite;
    cr_assert_eq(json_load(&suite, path, 1u << 20, err, sizeof err), 0, "%s", err);
    const char *group, *key;
    const struct json *cases, *value;
    int judged = 0;
    for (size_t it = 0; json_next(suite, &it, &group, &cases);) {
        for (size_t i = 0; i < json_len(cases); i++) {
            const struct json *one = json_at(cases, i), *forms = json_get(one, "msgpack");
            bool ext = json_get(one, "ext") || json_get(one, "timestamp");
            for (size_t k = 0; k < json_len(forms); k++, judged++) {
                uint8_t bytes[1024];
                size_t n = from_hex(json_str(json_at(forms, k)), bytes, sizeof bytes);
                int rc = pack_check(bytes_of(bytes, n), err, sizeof err);
                cr_expect_eq(rc < 0, ext, "%s %zu.%zu: %s", group, i, k, rc < 0 ? err : "taken");
                size_t first = 0;
                cr_assert(json_next(one, &first, &key, &value));
                bool plain = strcmp(key, "binary") != 0 && strcmp(key, "bignum") != 0 && !ext;
                if (plain)
                    cr_expect(same(value, bytes_of(bytes, n)), "%s %zu.%zu: another value", group,
                              i, k);
            }
        }
    }
    cr_assert_gt(judged, 100);
    json_free(suite);
}
