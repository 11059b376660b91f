#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/rng.h"
#include "store/record.h"
#include "tests/store/fixture.h"

static struct arena arena;

static void setup(void) {
    arena_init(&arena, 16u << 20);
}

static void teardown(void) {
    arena_fini(&arena);
}
TestSuite(record, .init = setup, .fini = teardown);

/* A record with a payload of each kind. */
static struct job_record full_record(uint64_t *rng) {
    struct job_record r = random_record(&arena, rng, rng_next(rng) | 1);
    struct bytes small = random_bytes(&arena, rng, 1 + rng_next(rng) % LIMIT_INLINE_BYTES);
    r.body = (struct job_payload){small.len, crc32c(0, small.data, small.len), false, small};
    r.input = (struct job_payload){LIMIT_OUTPUT_BYTES, 7, true, {NULL, 0}};
    return r;
}

Test(record, what_was_encoded_is_decoded_field_by_field) {
    uint64_t rng = test_seed();
    for (int i = 0; i < 500; i++) {
        struct buf b = {0};
        struct job_record in = full_record(&rng), out;
        cr_assert_eq(record_encode(&in, &b), 0);
        cr_assert_eq(record_decode(buf_bytes(&b), &out, &arena), 0);
        expect_same_record(&in, &out);
        buf_fini(&b);
        arena_reset(&arena);
    }
}

Test(record, every_truncation_is_refused_as_corrupt) {
    uint64_t rng = test_seed();
    struct buf b = {0};
    struct job_record in = full_record(&rng), out;
    cr_assert_eq(record_encode(&in, &b), 0);
    for (size_t len = 0; len < b.len; len++) {
        /* A copy of exactly this size, so that a sanitizer sees a read behind it. */
        uint8_t *cut = malloc(len + (len == 0));
        memcpy(cut, b.data, len);
        cr_assert_eq(record_decode(bytes_of(cut, len), &out, &arena), ERR_CORRUPT, "at %zu", len);
        free(cut);
    }
    buf_u8(&b, 0);
    cr_assert_eq(record_decode(buf_bytes(&b), &out, &arena), ERR_CORRUPT, "a byte too many");
    buf_fini(&b);
}

Test(record, every_flipped_bit_is_noticed) {
    uint64_t rng = test_seed();
    struct buf b = {0};
    struct job_record in = full_record(&rng), out;
    cr_assert_eq(record_encode(&in, &b), 0);
    for (size_t i = 0; i < b.len; i++) {
        b.data[i] ^= (uint8_t)(1u << (i % 8));
        int code = record_decode(buf_bytes(&b), &out, &arena);
        cr_assert_eq(code, ERR_CORRUPT, "byte %zu: %d", i, code);
        b.data[i] ^= (uint8_t)(1u << (i % 8));
    }
    buf_fini(&b);
}

/* Sets the checksum right again after the bytes behind it were changed. */
static void reseal(struct buf *b) {
    uint32_t crc = crc32c(0, b->data + 8, b->len - 8);
    for (uint32_t i = 0; i < 4; i++) b->data[4 + i] = (uint8_t)(crc >> (8 * i));
}

Test(record, damage_with_a_valid_checksum_never_reads_beyond_the_bytes) {
    uint64_t rng = test_seed();
    struct buf b = {0};
    struct job_record in = full_record(&rng), out;
    cr_assert_eq(record_encode(&in, &b), 0);
    int refused = 0;
    for (int i = 0; i < 20000; i++) {
        size_t at = 8 + (size_t)(rng_next(&rng) % (b.len - 8));
        uint8_t old = b.data[at];
        b.data[at] = (uint8_t)rng_next(&rng);
        reseal(&b);
        int code = record_decode(buf_bytes(&b), &out, &arena);
        cr_assert(code == 0 || code == ERR_CORRUPT, "byte %zu: %d", at, code);
        refused += code != 0;
        b.data[at] = old;
        arena_reset(&arena);
    }
    cr_assert_gt(refused, 0);
    buf_fini(&b);
}

Test(record, a_newer_version_is_refused_and_version_zero_is_corrupt) {
    uint64_t rng = 1;
    struct buf b = {0};
    struct job_record in = full_record(&rng), out;
    cr_assert_eq(record_encode(&in, &b), 0);
    cr_assert_eq(b.data[3], RECORD_VERSION);
    b.data[3] = 0;
    cr_assert_eq(record_decode(buf_bytes(&b), &out, &arena), ERR_CORRUPT);
    b.data[3] = RECORD_VERSION + 1;
    buf_u64le(&b, 7); /* what the newer version added */
    reseal(&b);
    cr_assert_eq(record_decode(buf_bytes(&b), &out, &arena), ERR_VERSION);
    buf_fini(&b);
}

/* No newer version can look like this one: it is this one's record, with a damaged byte. */
Test(record, a_version_that_has_flipped_is_damage) {
    uint64_t rng = 3;
    struct buf b = {0};
    struct job_record in = full_record(&rng), out;
    cr_assert_eq(record_encode(&in, &b), 0);
    for (uint32_t bit = 0; bit < 8; bit++) {
        b.data[3] = (uint8_t)(RECORD_VERSION ^ 1u << bit);
        cr_assert_eq(record_decode(buf_bytes(&b), &out, &arena), ERR_CORRUPT, "bit %u", bit);
    }
    buf_fini(&b);
}

/* Bytes as version 1 wrote them: whatever version this build writes, it must read them. */
Test(record, a_record_of_version_1_is_still_read) {
    static const char fields[] =
        "\x01\0\0\0\0\0\0\0"                       /* id */
        "\x02\0\0\0\0\0\0\0"                       /* seed */
        "\x01\x00"                                 /* ready, no error */
        "\x04\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0" /* priority, stage, tries, deaths */
        "\x05\0\0\0\0\0\0\0"                       /* attempt */
        "\x06\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0" /* times */
        "\0\0\0\0"                                                                 /* input_stage */
        "\x02\0\0\0\0\0\0\0\xaa\0\0\0\x01hi"                        /* body: 2 bytes inline */
        "\0\0\0\0\0\0\0\0\0\0\0\0\0"                                /* no input */
        "\0\0\x10\0\0\0\0\0\xbb\0\0\0\x02"                          /* result: 1 MiB in blob */
        "\x01\0\0\0k\x01\0\0\0t\0\0\0\0\x01\0\0\0p\0\0\0\0\0\0\0\0" /* strings */
        "\0\0\0\0\0\0\0\0";                                         /* no stages, no attempts */
    struct buf b = {0};
    struct job_record r;
    buf_append(&b, "PSJ\x01\0\0\0\0", 8);
    buf_append(&b, fields, sizeof fields - 1);
    reseal(&b);
    cr_assert_eq(record_decode(buf_bytes(&b), &r, &arena), 0);
    cr_assert(r.id == 1 && r.seed == 2 && r.state == JOB_READY && r.priority == 4 && r.stage == 1);
    cr_assert(r.tries == 2 && r.deaths == 3 && r.attempt == 5 && r.accepted_ms == 6);
    cr_assert(r.ready_ms == 7 && r.expires_ms == 8 && r.finished_ms == 9);
    cr_assert(r.body.bytes == 2 && r.body.crc == 0xaa && bytes_is(r.body.inlined, "hi"));
    cr_assert(r.result.bytes == 1u << 20 && r.result.in_blob && r.input.bytes == 0);
    cr_assert(bytes_is(r.kind, "k") && bytes_is(r.tenant, "t") && bytes_is(r.pipeline, "p"));
    buf_fini(&b);
}

/* Version 4 knew no families: a job that it left in the middle of its way has none. */
Test(record, a_record_of_version_4_is_still_read) {
    static const char fields[] =
        "\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0"     /* id, seed */
        "\x01\x00"                                 /* ready, no error */
        "\x04\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0" /* priority, stage, tries, deaths */
        "\x05\0\0\0\0\0\0\0"                       /* attempt */
        "\x06\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0"     /* accepted, ready */
        "\x08\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"       /* expires, not finished */
        "\0\0\0\0"                                 /* input_stage */
        "\x02\0\0\0\0\0\0\0\xaa\0\0\0\x01hi"       /* body: 2 bytes inline */
        "\x03\0\0\0\0\0\0\0\xbb\0\0\0\x01"
        "abc"                        /* input: the first stage's output */
        "\0\0\0\0\0\0\0\0\0\0\0\0\0" /* no result */
        "\x01\0\0\0k\x01\0\0\0t\0\0\0\0\x01\0\0\0p\0\0\0\0\0\0\0\0" /* strings */
        "\0\0\0\0\0\0\0\0"                                          /* no stages, no attempts */
        "\x0b\0\0\0\0\0\0\0\x0c\0\0\0\0\0\0\0"                      /* origin, heir */
        "\x01\0\0\0"                                                /* a line of history: */
        "\x02\0\0\0\0\0\0\0\x01\x01\x00\x00"                        /* seq, stage done, ready */
        "\x05\0\0\0\0\0\0\0\x06\0\0\0\0\0\0\0\x01\0\0\0w"           /* attempt, time, by */
        "\x0d\0\0\0"                                                /* timeouts */
        "\x04\0\0\0yard";                                           /* source */
    struct buf b = {0};
    struct job_record r;
    buf_append(&b, "PSJ\x04\0\0\0\0", 8);
    buf_append(&b, fields, sizeof fields - 1);
    reseal(&b);
    cr_assert_eq(record_decode(buf_bytes(&b), &r, &arena), 0);
    cr_assert(r.id == 1 && r.state == JOB_READY && r.stage == 1 && r.input.bytes == 3);
    cr_assert(r.origin == 11 && r.heir == 12 && r.timeouts == 13 && bytes_is(r.source, "yard"));
    cr_assert(r.n_notes == 1 && r.notes[0].type == JOB_NOTE_STAGE && bytes_is(r.notes[0].by, "w"));
    cr_assert(r.parent == 0 && r.first_child == 0 && r.child == 0 && r.n_children == 0);
    struct buf now = {0}; /* the next change writes it as this build does */
    struct job_record again;
    cr_assert_eq(record_encode(&r, &now), 0);
    cr_assert_eq(now.data[3], RECORD_VERSION);
    cr_assert_eq(record_decode(buf_bytes(&now), &again, &arena), 0);
    cr_assert(again.timeouts == 13 && again.n_notes == 1 && again.parent == 0);
    buf_fini(&now);
    buf_fini(&b);
}

Test(record, what_is_over_a_limit_is_not_written) {
    uint64_t rng = 2;
    struct buf b = {0};
    struct job_record ok = full_record(&rng), r = ok;
    r.kind = random_bytes(&arena, &rng, LIMIT_NAME_BYTES + 1);
    cr_assert_eq(record_encode(&r, &b), ERR_LIMIT);
    r = ok;
    r.reason = random_bytes(&arena, &rng, LIMIT_REASON_BYTES + 1);
    cr_assert_eq(record_encode(&r, &b), ERR_LIMIT);
    r = ok;
    r.n_attempts = LIMIT_ATTEMPTS + 1;
    cr_assert_eq(record_encode(&r, &b), ERR_LIMIT);
    r = ok;
    r.state = JOB_LEASED;
    cr_assert_eq(record_encode(&r, &b), ERR_LIMIT, "a lease does not survive the broker");
    cr_assert_eq(b.len, 0);
    buf_fini(&b);
}
