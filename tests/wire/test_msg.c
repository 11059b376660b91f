#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/rng.h"
#include "schemas/job.h"
#include "schemas/kinds.h"
#include "schemas/msg.h"
#include "schemas/pack.h"
#include "tests/wire/random_msg.h"

static uint64_t cases(uint64_t otherwise) {
    const char *n = getenv("CASES");
    return n && atoll(n) > 0 ? (uint64_t)atoll(n) : otherwise;
}

/* Encodes a map written by hand, so that wrong ones can be made. */
struct by_hand {
    struct buf b;
    struct packer p;
};
static struct by_hand *begin(struct by_hand *h, uint32_t pairs) {
    *h = (struct by_hand){{0}, {NULL}};
    h->p = packer_of(&h->b);
    pack_map(&h->p, pairs);
    return h;
}

static int decode(const struct msg_desc *d, struct by_hand *h, void *out, struct refusal *why) {
    memset(why, 0, sizeof *why);
    return msg_decode(d, buf_bytes(&h->b), out, why);
}

static void cr_names_all(const struct refusal *why, const char *code, const char *field) {
    cr_assert_str_eq(why->code, code);
    cr_assert_str_eq(why->field, field);
    cr_assert_neq(why->limit[0], '\0', "no limit for %s %s", code, field);
    cr_assert_neq(why->fix[0], '\0', "no fix for %s %s", code, field);
    cr_assert_neq(why->message[0], '\0');
}

Test(msg, every_message_decodes_to_what_was_encoded) {
    uint64_t seed = 0x5EED, rounds = cases(300);
    struct arena pool;
    arena_init(&pool, 64u << 20);
    const struct msg_desc *d;
    for (uint32_t i = 0; (d = msg_desc_at(i)); i++) {
        for (uint64_t round = 0; round < rounds; round++) {
            void *in = calloc(1, d->struct_bytes), *out = calloc(1, d->struct_bytes);
            random_fields(d->fields, d->n, &seed, &pool, in);
            uint8_t tag[MSG_TAG_BYTES];
            struct buf b = {0};
            struct refusal why;
            cr_assert_eq(msg_encode(d->type, in, tag, &b), 0, "%s", d->name);
            int rc = msg_decode(d, buf_bytes(&b), out, &why);
            cr_assert_eq(rc, 0, "%s: %s", d->name, rc ? why.message : "");
            cr_assert(fields_equal(d->fields, d->n, in, out), "%s, round %llu", d->name,
                      (unsigned long long)round);
            buf_fini(&b);
            free(in);
            free(out);
            arena_reset(&pool);
        }
    }
    arena_fini(&pool);
}

Test(msg, a_header_cut_at_any_byte_is_refused) {
    uint64_t seed = 7;
    struct arena pool;
    arena_init(&pool, 64u << 20);
    const struct msg_desc *d;
    for (uint32_t i = 0; (d = msg_desc_at(i)); i++) {
        void *in = calloc(1, d->struct_bytes), *out = calloc(1, d->struct_bytes);
        random_fields(d->fields, d->n, &seed, &pool, in);
        uint8_t tag[MSG_TAG_BYTES];
        struct buf b = {0};
        cr_assert_eq(msg_encode(d->type, in, tag, &b), 0);
        for (size_t cut = 0; cut < b.len; cut++) {
            uint8_t *exact = malloc(cut ? cut : 1); /* so that a sanitizer sees one byte too many */
            memcpy(exact, b.data, cut);
            struct refusal why = {.code = ""};
            cr_assert_lt(msg_decode(d, bytes_of(exact, cut), out, &why), 0, "%s cut at %zu",
                         d->name, cut);
            cr_assert_str_eq(why.code, "malformed");
            msg_req(bytes_of(exact, cut));
            free(exact);
        }
        buf_fini(&b);
        free(in);
        free(out);
        arena_reset(&pool);
    }
    arena_fini(&pool);
}

Test(msg, changed_bytes_never_crash_the_decoder) {
    uint64_t seed = 11, rounds = cases(200);
    struct arena pool;
    arena_init(&pool, 64u << 20);
    const struct msg_desc *d;
    uint64_t refused = 0, taken = 0;
    for (uint32_t i = 0; (d = msg_desc_at(i)); i++) {
        void *in = calloc(1, d->struct_bytes), *out = calloc(1, d->struct_bytes);
        random_fields(d->fields, d->n, &seed, &pool, in);
        uint8_t tag[MSG_TAG_BYTES];
        struct buf b = {0};
        cr_assert_eq(msg_encode(d->type, in, tag, &b), 0);
        for (uint64_t round = 0; round < rounds; round++) {
            uint8_t *copy = malloc(b.len);
            memcpy(copy, b.data, b.len);
            for (uint64_t k = 1 + rng_next(&seed) % 4; k; k--)
                copy[rng_next(&seed) % b.len] = (uint8_t)rng_next(&seed);
            struct refusal why = {.code = ""};
            int rc = msg_decode(d, bytes_of(copy, b.len), out, &why);
            cr_assert(rc == 0 || why.code[0], "%s: %d without a word", d->name, rc);
            refused += rc < 0;
            taken += rc == 0;
            free(copy);
        }
        buf_fini(&b);
        free(in);
        free(out);
        arena_reset(&pool);
    }
    cr_assert_gt(refused, 0);
    cr_assert_gt(taken, 0);
    arena_fini(&pool);
}

Test(msg, the_smallest_submit_gets_the_defaults_of_the_table) {
    struct by_hand h;
    begin(&h, 2);
    pack_kv_u64(&h.p, "req", 5);
    pack_kv_str(&h.p, "kind", "text.embed");
    struct msg_submit m;
    struct refusal why;
    cr_assert_eq(decode(msg_desc(MSG_SUBMIT), &h, &m, &why), 0);
    cr_assert_eq(m.req, 5);
    cr_assert(bytes_is(m.kind, "text.embed"));
    cr_assert_eq(m.priority, 4);
    cr_assert_eq(m.ttl_ms, 0);
    cr_assert_not(m.has_seed);
    cr_assert_eq(m.key.len, 0);
    buf_fini(&h.b);
}

Test(msg, unknown_keys_are_ignored_whatever_they_hold) {
    struct by_hand h;
    begin(&h, 4);
    pack_str(&h.p, "from_the_future");
    pack_map(&h.p, 1);
    pack_str(&h.p, "req");
    pack_array(&h.p, 2);
    pack_u64(&h.p, 1);
    pack_nil(&h.p);
    pack_kv_u64(&h.p, "req", 9);
    pack_kv_u64(&h.p, "from_the_future", 1); /* even twice */
    pack_kv_str(&h.p, "kind", "k");
    struct msg_submit m;
    struct refusal why;
    cr_assert_eq(decode(msg_desc(MSG_SUBMIT), &h, &m, &why), 0);
    cr_assert_eq(m.req, 9);
    cr_assert_eq(msg_req(buf_bytes(&h.b)), 9);
    buf_fini(&h.b);
}

Test(msg, a_missing_field_is_named_with_its_bounds_and_the_fix) {
    struct by_hand h;
    begin(&h, 1);
    pack_kv_u64(&h.p, "req", 5);
    struct msg_submit m;
    struct refusal why;
    cr_assert_eq(decode(msg_desc(MSG_SUBMIT), &h, &m, &why), ERR_FIELD);
    cr_names_all(&why, "missing", "kind");
    cr_assert_str_eq(why.limit, "a string of 1 to 64 bytes");
    cr_assert(strstr(why.fix, "job kind, such as text.embed"));
    buf_fini(&h.b);
}

Test(msg, nil_is_absent) {
    struct by_hand h;
    begin(&h, 3);
    pack_kv_u64(&h.p, "req", 5);
    pack_kv_str(&h.p, "kind", "k");
    pack_str(&h.p, "priority");
    pack_nil(&h.p);
    struct msg_submit m;
    struct refusal why;
    cr_assert_eq(decode(msg_desc(MSG_SUBMIT), &h, &m, &why), 0);
    cr_assert_eq(m.priority, 4);
    buf_fini(&h.b);
}

Test(msg, a_key_given_twice_is_refused) {
    struct by_hand h;
    begin(&h, 3);
    pack_kv_u64(&h.p, "req", 5);
    pack_kv_str(&h.p, "kind", "a");
    pack_kv_str(&h.p, "kind", "b");
    struct msg_submit m;
    struct refusal why;
    cr_assert_eq(decode(msg_desc(MSG_SUBMIT), &h, &m, &why), ERR_FIELD);
    cr_names_all(&why, "duplicate", "kind");
    buf_fini(&h.b);
}

Test(msg, a_value_of_another_type_is_refused) {
    struct by_hand h;
    begin(&h, 2);
    pack_kv_u64(&h.p, "req", 5);
    pack_kv_u64(&h.p, "kind", 1);
    struct msg_submit m;
    struct refusal why;
    cr_assert_eq(decode(msg_desc(MSG_SUBMIT), &h, &m, &why), ERR_FIELD);
    cr_names_all(&why, "type", "kind");
    cr_assert_str_eq(why.message, "field 'kind' is an integer");
    buf_fini(&h.b);
}

Test(msg, values_beyond_their_bounds_are_refused) {
    struct by_hand h;
    struct msg_submit m;
    struct refusal why;
    begin(&h, 3);
    pack_kv_u64(&h.p, "req", 5);
    pack_kv_str(&h.p, "kind", "k");
    pack_kv_u64(&h.p, "priority", 10);
    cr_assert_eq(decode(msg_desc(MSG_SUBMIT), &h, &m, &why), ERR_LIMIT);
    cr_names_all(&why, "limit", "priority");
    buf_fini(&h.b);
    begin(&h, 3);
    pack_kv_u64(&h.p, "req", 5);
    pack_kv_str(&h.p, "kind", "k");
    pack_str(&h.p, "priority");
    pack_i64(&h.p, -1);
    cr_assert_eq(decode(msg_desc(MSG_SUBMIT), &h, &m, &why), ERR_LIMIT);
    cr_names_all(&why, "limit", "priority");
    buf_fini(&h.b);
    begin(&h, 2);
    pack_kv_u64(&h.p, "req", 5);
    pack_kv_str(&h.p, "kind", "");
    cr_assert_eq(decode(msg_desc(MSG_SUBMIT), &h, &m, &why), ERR_LIMIT);
    cr_names_all(&why, "limit", "kind");
    buf_fini(&h.b);
}

Test(msg, a_job_id_that_is_none_is_refused) {
    struct by_hand h;
    struct msg_wait m;
    struct refusal why;
    begin(&h, 2);
    pack_kv_u64(&h.p, "req", 5);
    pack_kv_str(&h.p, "job", "not-an-id");
    cr_assert_eq(decode(msg_desc(MSG_WAIT), &h, &m, &why), ERR_FIELD);
    cr_names_all(&why, "limit", "job");
    buf_fini(&h.b);
}

Test(msg, a_word_outside_the_choices_is_refused) {
    struct by_hand h;
    struct msg_stage_failed m;
    struct refusal why;
    begin(&h, 5);
    pack_kv_str(&h.p, "job", "0000000000001");
    pack_kv_u64(&h.p, "stage", 0);
    pack_kv_u64(&h.p, "attempt", 1);
    pack_kv_str(&h.p, "error_class", "perm");
    pack_kv_str(&h.p, "reason", "x");
    cr_assert_eq(decode(msg_desc(MSG_STAGE_FAILED), &h, &m, &why), ERR_FIELD);
    cr_names_all(&why, "choice", "error_class");
    buf_fini(&h.b);
}

Test(msg, text_that_is_not_utf8_is_refused_with_its_field) {
    struct by_hand h;
    begin(&h, 2);
    pack_kv_u64(&h.p, "req", 5);
    pack_str(&h.p, "kind");
    pack_strn(&h.p, bytes_of("ab\xC0\x80", 4));
    struct msg_submit m;
    struct refusal why;
    cr_assert_eq(decode(msg_desc(MSG_SUBMIT), &h, &m, &why), ERR_CORRUPT);
    cr_names_all(&why, "utf8", "kind");
    cr_assert(strstr(why.message, "byte 2"));
    cr_assert_eq(msg_req(buf_bytes(&h.b)), 5);
    buf_fini(&h.b);
}

Test(msg, what_the_peer_would_refuse_is_not_encoded) {
    struct buf b = {0};
    uint8_t tag[MSG_TAG_BYTES];
    struct msg_submit m = {.req = 1, .kind = bytes_str("k"), .priority = 10};
    cr_assert_eq(msg_encode(MSG_SUBMIT, &m, tag, &b), ERR_LIMIT);
    m.priority = 4;
    m.kind = bytes_of("\xFF", 1);
    cr_assert_eq(msg_encode(MSG_SUBMIT, &m, tag, &b), ERR_CORRUPT);
    m.kind = bytes_of(NULL, 0);
    cr_assert_eq(msg_encode(MSG_SUBMIT, &m, tag, &b), ERR_LIMIT);
    cr_assert_eq(b.len, 0);
    m.kind = bytes_str("k");
    cr_assert_eq(msg_encode(MSG_SUBMIT, &m, tag, &b), 0);
    cr_assert_eq(memcmp(tag, "PS\x01\x01", 4), 0);
    buf_fini(&b);
}

/* ---- frames ---- */

static int open_as(const char *tag, size_t tag_bytes, uint32_t frames, size_t header,
                   size_t payload, enum msg_direction from, struct refusal *why) {
    static const uint8_t zeros[3u << 20];
    struct bytes frame[LIMIT_FRAMES] = {bytes_of(tag, tag_bytes), bytes_of(zeros, header)};
    for (uint32_t i = 2; i < frames; i++) frame[i] = bytes_of(zeros, payload);
    const struct msg_desc *d;
    memset(why, 0, sizeof *why);
    return msg_open(frame, frames, from, &d, why);
}

Test(frames, a_tag_of_another_protocol_is_refused) {
    struct refusal why;
    cr_assert_eq(open_as("PX\x01\x01", 4, 3, 1, 1, MSG_C2B, &why), ERR_CORRUPT);
    cr_names_all(&why, "malformed", "tag");
    cr_assert_eq(open_as("PS\x01", 3, 3, 1, 1, MSG_C2B, &why), ERR_CORRUPT);
    cr_assert_eq(open_as("", 0, 0, 0, 0, MSG_C2B, &why), ERR_CORRUPT);
}

Test(frames, an_unknown_major_is_refused) {
    struct refusal why;
    cr_assert_eq(open_as("PS\x02\x01", 4, 3, 1, 1, MSG_C2B, &why), ERR_VERSION);
    cr_names_all(&why, "version", "major");
}

Test(frames, a_type_of_the_other_direction_is_refused) {
    struct refusal why;
    cr_assert_eq(open_as("PS\x01\x82", 4, 2, 1, 0, MSG_C2B, &why), ERR_UNKNOWN);
    cr_names_all(&why, "unknown_type", "type");
    cr_assert_eq(open_as("PS\x01\x7F", 4, 2, 1, 0, MSG_C2B, &why), ERR_UNKNOWN);
    cr_assert_eq(open_as("PS\x01\x42", 4, 2, 1, 0, MSG_B2W, &why), 0, "REFUSED goes to both");
    cr_assert_eq(open_as("PS\x01\x42", 4, 2, 1, 0, MSG_B2C, &why), 0);
}

Test(frames, counts_and_sizes_are_checked_against_the_row) {
    struct refusal why;
    cr_assert_eq(open_as("PS\x01\x0D", 4, 3, 1, 1, MSG_C2B, &why), 0);
    cr_assert_lt(open_as("PS\x01\x0D", 4, 1, 0, 0, MSG_C2B, &why), 0);
    cr_names_all(&why, "frames", "header");
    cr_assert_eq(open_as("PS\x01\x0D", 4, 2, 1, 1, MSG_C2B, &why), ERR_LIMIT);
    cr_names_all(&why, "frames", "payload");
    cr_assert_eq(open_as("PS\x01\x0D", 4, 4, 1, 1, MSG_C2B, &why), ERR_LIMIT);
    cr_assert_eq(open_as("PS\x01\x0D", 4, 3, LIMIT_HEADER_BYTES, 1, MSG_C2B, &why), 0);
    cr_assert_eq(open_as("PS\x01\x0D", 4, 3, LIMIT_HEADER_BYTES + 1, 1, MSG_C2B, &why), ERR_LIMIT);
    cr_names_all(&why, "limit", "header");
    cr_assert_eq(open_as("PS\x01\x0D", 4, 3, 1, LIMIT_FRAME_BYTES, MSG_C2B, &why), 0);
    cr_assert_eq(open_as("PS\x01\x0D", 4, 3, 1, LIMIT_FRAME_BYTES + 1, MSG_C2B, &why), ERR_LIMIT);
    cr_names_all(&why, "limit", "payload");
}

Test(frames, every_row_is_found_by_its_code_and_has_words) {
    const struct msg_desc *d;
    uint32_t n = 0;
    for (; (d = msg_desc_at(n)); n++) {
        cr_assert_eq(msg_desc(d->type), d);
        cr_assert_geq(strlen(d->doc), 5);
        cr_assert_leq(d->payload_max, LIMIT_FRAMES - 2);
        for (uint32_t i = 0; i < d->n; i++) {
            cr_assert_geq(strlen(d->fields[i].doc), 3);
            cr_assert_lt(strlen(d->fields[i].name), LIMIT_NAME_BYTES);
            cr_assert_leq(d->fields[i].min, d->fields[i].max);
            cr_assert_eq(field_find(d->fields, d->n, d->fields[i].name), &d->fields[i]);
        }
    }
    cr_assert_gt(n, 25);
    cr_assert_null(msg_desc(0));
    cr_assert_null(msg_desc(1000));
}
