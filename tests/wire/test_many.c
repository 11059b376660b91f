#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/rng.h"
#include "schemas/many.h"

static const uint8_t tag[] = {'P', 'S', MSG_MAJOR, MSG_WAIT};

static bool add(struct buf *list, uint32_t *n, struct bytes header, const struct bytes *payload,
                uint32_t n_payload) {
    struct bytes frame[LIMIT_FRAMES] = {bytes_of(tag, sizeof tag), header};
    for (uint32_t i = 0; i < n_payload; i++) frame[2 + i] = payload[i];
    return many_add(list, n, frame, 2 + n_payload);
}

Test(many, messages_come_out_as_they_went_in) {
    struct buf list = {0};
    uint32_t n = 0;
    struct many_it it;
    struct refusal why;
    struct bytes parts[] = {bytes_str("first"), bytes_of(NULL, 0), bytes_str("third")};
    cr_assert(add(&list, &n, bytes_str("header"), parts, 3));
    cr_assert(add(&list, &n, bytes_str("alone"), NULL, 0));
    many_end(&list, n);
    cr_assert_eq(many_begin(&it, buf_bytes(&list), 2, &why), 0);
    cr_assert_eq(many_next(&it, &why), 1);
    cr_assert_eq(it.frames, 5);
    cr_assert(bytes_eq(it.frame[0], bytes_of(tag, sizeof tag)));
    cr_assert(bytes_is(it.frame[1], "header"));
    for (uint32_t i = 0; i < 3; i++) cr_assert(bytes_eq(it.frame[2 + i], parts[i]));
    cr_assert_eq(many_next(&it, &why), 1);
    cr_assert_eq(it.frames, 2);
    cr_assert(bytes_is(it.frame[1], "alone"));
    cr_assert_eq(many_next(&it, &why), 0);
    buf_fini(&list);
}

Test(many, it_is_bounded_in_messages_and_in_bytes) {
    static const uint8_t zeros[LIMIT_MANY_ITEM_BYTES + 1];
    struct bytes whole = bytes_of(zeros, LIMIT_MANY_ITEM_BYTES),
                 over = bytes_of(zeros, sizeof zeros);
    struct buf list = {0};
    uint32_t n = 0;
    while (add(&list, &n, bytes_str("h"), NULL, 0)) cr_assert_leq(n, LIMIT_MANY);
    cr_assert_eq(n, LIMIT_MANY);
    buf_clear(&list);
    n = 0;
    while (add(&list, &n, bytes_str("h"), &whole, 1))
        cr_assert_leq(list.len, LIMIT_MANY_BYTES + LIMIT_MANY_ITEM_BYTES + 64);
    cr_assert_gt(n, 1);
    size_t before = list.len;
    cr_assert_not(add(&list, &n, bytes_str("h"), &over, 1), "a long payload goes alone");
    cr_assert_not(add(&list, &n, over, NULL, 0), "so does a long header");
    cr_assert_eq(list.len, before);
    buf_clear(&list);
    n = 0;
    struct bytes nine[9] = {{NULL, 0}};
    cr_assert_not(add(&list, &n, bytes_str("h"), nine, 9), "so do many frames");
    cr_assert_eq(list.len, 0);
    buf_fini(&list);
}

static int begin(const char *bytes, size_t len, uint64_t n) {
    struct many_it it;
    struct refusal why = {.code = ""};
    int e = many_begin(&it, bytes_of(bytes, len), n, &why);
    cr_assert(e == 0 || (why.code[0] && why.fix[0] && it.left == 0));
    return e;
}

Test(many, a_list_that_is_none_or_has_another_count_is_refused) {
    cr_assert_eq(begin("", 0, 1), ERR_CORRUPT);
    cr_assert_eq(begin("\x80", 1, 1), ERR_CORRUPT);
    cr_assert_eq(begin("\x90", 1, 0), ERR_CORRUPT, "none at all");
    cr_assert_eq(begin("\x91\x92\x02\xC4", 4, 2), ERR_CORRUPT, "one, not two");
    cr_assert_eq(begin("\xDD\xFF\xFF\xFF\xFF", 5, UINT32_MAX), ERR_CORRUPT, "declared, not there");
    char many[3 + LIMIT_MANY + 1];
    memset(many, 0x90, sizeof many);
    memcpy(many, "\xDC\x01\x01", 3);
    cr_assert_eq(begin(many, sizeof many, LIMIT_MANY + 1), ERR_LIMIT);
}

static int first(const char *bytes, size_t len, uint64_t n) {
    struct many_it it;
    struct refusal why = {.code = ""};
    cr_assert_eq(many_begin(&it, bytes_of(bytes, len), n, &why), 0);
    int e = many_next(&it, &why);
    cr_assert(e > 0 || why.code[0]);
    return e;
}

Test(many, what_cannot_be_read_ends_it) {
    cr_assert_eq(first("\x91\x92\x02\xC4\x01h", 6, 1), 1);
    cr_assert_eq(first("\x91\x91\x02", 3, 1), ERR_CORRUPT, "no header");
    cr_assert_eq(first("\x91\x92\xA1x\xC4\x01h", 7, 1), ERR_CORRUPT, "a type that is no number");
    cr_assert_eq(first("\x91\x92\xCD\x01\x02\xC4\x01h", 8, 1), ERR_CORRUPT, "a type above 255");
    cr_assert_eq(first("\x91\x92\x02\xA1h", 5, 1), ERR_CORRUPT, "a header that is no bin");
    cr_assert_eq(first("\x91\x92\x02\xC4\x02h", 6, 1), ERR_CORRUPT,
                 "a header that is not all there");
    struct many_it it;
    struct refusal why;
    cr_assert_eq(many_begin(&it, bytes_of("\x91\x92\x02\xC4\x01hX", 7), 1, &why), 0);
    cr_assert_eq(many_next(&it, &why), 1);
    cr_assert_eq(many_next(&it, &why), ERR_CORRUPT, "something follows");
}

Test(many, changed_bytes_are_read_within_their_bounds) {
    uint64_t seed = 5;
    struct refusal why;
    for (uint32_t round = 0; round < 3000; round++) {
        struct buf list = {0};
        uint32_t n = 0, said = 1 + (uint32_t)(rng_next(&seed) % 6);
        for (uint32_t i = 0; i < said; i++) {
            uint8_t text[40];
            struct bytes p[3];
            for (uint32_t k = 0; k < 3; k++) p[k] = bytes_of(text, rng_next(&seed) % sizeof text);
            memset(text, (int)i, sizeof text);
            cr_assert(add(&list, &n, bytes_of(text, rng_next(&seed) % sizeof text), p,
                          (uint32_t)(rng_next(&seed) % 4)));
        }
        many_end(&list, n);
        uint8_t *copy = malloc(list.len); /* exact, so that a sanitizer sees one byte too many */
        memcpy(copy, list.data, list.len);
        uint32_t changes = round % 4;
        for (uint32_t k = 0; k < changes; k++)
            copy[rng_next(&seed) % list.len] = (uint8_t)rng_next(&seed);
        struct many_it it;
        uint32_t seen = 0;
        int e = many_begin(&it, bytes_of(copy, list.len), n, &why);
        while (e >= 0 && (e = many_next(&it, &why)) == 1) {
            seen++;
            for (uint32_t k = 1; k < it.frames; k++) {
                const uint8_t *at = it.frame[k].data;
                cr_assert(it.frame[k].len == 0 ||
                          (at >= copy && at + it.frame[k].len <= copy + list.len));
            }
        }
        cr_assert_leq(seen, n);
        if (!changes) cr_assert(e == 0 && seen == n);
        free(copy);
        buf_fini(&list);
    }
}
