#include <criterion/criterion.h>
#include <string.h>

#include "base/err.h"
#include "base/rng.h"
#include "schemas/batch.h"
#include "schemas/pack.h"

static void pack_item(struct packer *p, const char *key, const char *text) {
    if (key) {
        pack_array(p, 2);
        pack_str(p, key);
    }
    pack_map(p, 1);
    pack_kv_str(p, "text", text);
}

Test(batch, items_are_bodies_with_or_without_a_key) {
    struct buf list = {0};
    struct packer p = packer_of(&list);
    struct batch_it it;
    struct batch_item item;
    struct refusal why;
    pack_array(&p, 2);
    pack_item(&p, NULL, "one");
    pack_item(&p, "key", "two");
    cr_assert_eq(batch_begin(&it, buf_bytes(&list), &why), 0);
    cr_assert_eq(it.left, 2);
    cr_assert_eq(batch_next(&it, &item, &why), 1);
    cr_assert_eq(item.key.len, 0);
    cr_assert(item.body.len == 10 && memcmp(item.body.data, "\x81\xa4text\xa3one", 10) == 0);
    cr_assert_eq(batch_next(&it, &item, &why), 1);
    cr_assert(bytes_is(item.key, "key"));
    cr_assert(item.body.len == 10 && memcmp(item.body.data, "\x81\xa4text\xa3two", 10) == 0);
    cr_assert_eq(batch_next(&it, &item, &why), 0);
    buf_fini(&list);
}

Test(batch, an_item_that_is_no_job_is_refused_and_the_next_one_is_read) {
    struct buf list = {0};
    struct packer p = packer_of(&list);
    struct batch_it it;
    struct batch_item item;
    struct refusal why;
    char long_key[LIMIT_KEY_BYTES + 2];
    memset(long_key, 'k', sizeof long_key - 1);
    long_key[sizeof long_key - 1] = 0;
    pack_array(&p, 6);
    pack_u64(&p, 7);
    pack_array(&p, 0);
    pack_array(&p, 3);
    for (int i = 0; i < 3; i++) pack_str(&p, "x");
    pack_item(&p, long_key, "x");
    pack_item(&p, "", "x");
    pack_item(&p, "k", "last");
    cr_assert_eq(batch_begin(&it, buf_bytes(&list), &why), 0);
    static const char *const code[] = {"type", "type", "type", "limit", "limit"};
    for (int i = 0; i < 5; i++) {
        cr_assert_lt(batch_next(&it, &item, &why), 0, "item %d", i);
        cr_assert_str_eq(why.code, code[i]);
    }
    cr_assert_eq(batch_next(&it, &item, &why), 1);
    cr_assert(bytes_is(item.key, "k"));
    buf_fini(&list);
}

Test(batch, a_frame_that_is_not_one_list_is_refused_whole) {
    struct batch_it it;
    struct refusal why;
    cr_assert_eq(batch_begin(&it, bytes_of("\x80", 1), &why), ERR_FIELD);
    cr_assert_str_eq(why.code, "type");
    cr_assert_eq(batch_begin(&it, bytes_of("\xdd\xff\xff\xff\xff", 5), &why), ERR_CORRUPT);
    cr_assert_str_eq(why.code, "malformed");
    cr_assert_eq(batch_begin(&it, bytes_of("", 0), &why), ERR_CORRUPT);
}

Test(batch, damaged_lists_are_refused_or_read_within_their_bounds) {
    struct buf list = {0};
    struct packer p = packer_of(&list);
    uint64_t rng = 5;
    pack_array(&p, 3);
    pack_item(&p, NULL, "one");
    pack_item(&p, "key", "two");
    pack_item(&p, "another", "three");
    for (int round = 0; round < 20000; round++) {
        uint8_t bytes[128];
        struct batch_it it;
        struct batch_item item;
        struct refusal why;
        size_t n = rng_next(&rng) % 4 ? list.len : rng_next(&rng) % list.len;
        memcpy(bytes, list.data, n);
        for (int i = 0; i < 2 && n; i++) bytes[rng_next(&rng) % n] = (uint8_t)rng_next(&rng);
        uint32_t seen = 0;
        if (batch_begin(&it, bytes_of(bytes, n), &why) != 0) continue;
        for (int e; (e = batch_next(&it, &item, &why)) != 0; seen++) {
            if (e < 0) continue;
            const uint8_t *body = item.body.data;
            cr_assert(body >= bytes && body + item.body.len <= bytes + n);
        }
        cr_assert_leq(seen, n);
    }
    buf_fini(&list);
}
