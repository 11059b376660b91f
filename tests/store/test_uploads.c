#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/rng.h"
#include "store/uploads.h"
#include "tests/store/fixture.h"

static struct fixture f;

static void setup(void) {
    fixture_open(&f);
}

static void teardown(void) {
    fixture_close(&f);
}
TestSuite(uploads, .init = setup, .fini = teardown);

static struct upload_record record_of(uint64_t id, struct bytes whole) {
    return (struct upload_record){.id = id,
                                  .bytes = whole.len,
                                  .crc = crc32c(0, whole.data, whole.len),
                                  .tenant = bytes_str("default"),
                                  .key = bytes_str("scan-17")};
}

static void begin(uint64_t id, struct bytes whole) {
    struct store_write *w;
    struct upload_record u = record_of(id, whole);
    cr_assert_eq(store_write_begin(f.store, &w), 0);
    cr_assert_eq(uploads_add(w, &u), 0);
    cr_assert_eq(store_commit(w), 0);
}

/* What the record says; have is UINT64_MAX when there is none. */
static struct upload_record look(uint64_t id) {
    struct store_read *t;
    struct upload_record u = {.have = UINT64_MAX};
    cr_assert_eq(store_read_begin(f.store, &t), 0);
    int code = uploads_get(t, id, &u);
    cr_assert(code == 0 || code == -ENOENT, "%d", code);
    store_read_end(t);
    return u;
}

/* The next chunk of the upload, in a transaction of its own. */
static int append(uint64_t id, struct bytes whole, size_t len) {
    struct store_write *w;
    struct upload_record u;
    cr_assert_eq(store_write_begin(f.store, &w), 0);
    cr_assert_eq(uploads_get(store_write_view(w), id, &u), 0);
    int code = uploads_append(w, &u, bytes_of((const uint8_t *)whole.data + u.have, len));
    if (code == 0) return store_commit(w);
    store_abort(w);
    return code;
}

static void append_all(uint64_t id, struct bytes whole) {
    size_t chunk = uploads_chunk_bytes(f.store);
    for (size_t at = (size_t)look(id).have; at < whole.len; at += chunk)
        cr_assert_eq(append(id, whole, whole.len - at < chunk ? whole.len - at : chunk), 0);
}

/* The job that the upload becomes. */
static void become_job(uint64_t id, struct bytes whole) {
    struct store_write *w;
    uint64_t rng = id, existing;
    struct job_record r = random_record(&f.arena, &rng, id);
    r.key = (struct bytes){NULL, 0};
    r.body = (struct job_payload){
        .bytes = whole.len, .crc = crc32c(0, whole.data, whole.len), .in_blob = true};
    cr_assert_eq(store_write_begin(f.store, &w), 0);
    cr_assert_eq(uploads_take(w, id), 0);
    cr_assert_eq(jobs_add(w, &r, &existing), 0);
    cr_assert_eq(store_commit(w), 0);
}

static uint64_t chunks(void) {
    struct store_usage u;
    cr_assert_eq(store_usage(f.store, &u), 0);
    return u.chunks;
}

Test(uploads, chunks_survive_each_start_and_become_the_body_of_the_job) {
    uint64_t rng = test_seed();
    size_t chunk = uploads_chunk_bytes(f.store);
    cr_assert(chunk <= LIMIT_FRAME_BYTES && chunk > LIMIT_FRAME_BYTES / 2, "%zu", chunk);
    struct bytes whole = random_bytes(&f.arena, &rng, 3 * chunk + 12345);
    begin(7, whole);
    for (uint32_t i = 1; i <= 3; i++) {
        cr_assert_eq(append(7, whole, chunk), 0);
        cr_assert_eq(fixture_reopen(&f), 0, "%s", f.err);
        cr_assert_eq(look(7).have, i * chunk, "the sweep of a start leaves it alone");
        cr_assert_eq(check_prints_nothing(&f), 0);
    }
    append_all(7, whole);
    struct upload_record u = look(7);
    cr_assert(u.have == u.bytes && u.have_crc == u.crc);
    uint64_t before = chunks();
    become_job(7, whole);
    cr_assert_eq(look(7).have, UINT64_MAX);
    cr_assert_eq(fixture_reopen(&f), 0, "%s", f.err);
    cr_assert_eq(chunks(), before, "nothing was copied");
    struct buf out = {0};
    cr_assert_eq(read_body(&f, 7, &out), 0);
    cr_assert(bytes_eq(buf_bytes(&out), whole));
    buf_fini(&out);
    cr_assert_eq(check_prints_nothing(&f), 0);
}

Test(uploads, what_is_no_chunk_is_not_written) {
    uint64_t rng = 1;
    size_t chunk = uploads_chunk_bytes(f.store);
    struct bytes whole = random_bytes(&f.arena, &rng, 2 * chunk);
    begin(1, whole);
    size_t bad[] = {0, 1, chunk - 1};
    for (size_t i = 0; i < 3; i++) cr_assert_eq(append(1, whole, bad[i]), ERR_LIMIT);
    cr_assert_eq(append(1, whole, chunk), 0);
    cr_assert_eq(append(1, whole, chunk - 1), ERR_LIMIT);
    cr_assert_eq(append(1, whole, chunk), 0);
    cr_assert_eq(append(1, whole, chunk), ERR_LIMIT, "it is whole");
    struct upload_record large = record_of(2, whole);
    large.bytes = LIMIT_OUTPUT_BYTES + 1;
    struct store_write *w;
    cr_assert_eq(store_write_begin(f.store, &w), 0);
    cr_assert_eq(uploads_add(w, &large), ERR_LIMIT);
    store_abort(w);
}

Test(uploads, a_dropped_one_gives_its_space_back) {
    uint64_t rng = 2;
    struct bytes whole = random_bytes(&f.arena, &rng, 5u << 20);
    struct store_write *w;
    begin(1, whole);
    begin(2, whole);
    append_all(1, whole);
    append_all(2, whole);
    uint64_t both = chunks();
    cr_assert_eq(store_write_begin(f.store, &w), 0);
    cr_assert_eq(uploads_del(w, 1), 0);
    cr_assert_eq(uploads_del(w, 1), -ENOENT);
    cr_assert_eq(store_commit(w), 0);
    cr_assert_eq(chunks(), both, "until a crash can no longer bring it back");
    begin(3, whole);
    cr_assert_eq(chunks(), both / 2);
    cr_assert_eq(check_prints_nothing(&f), 0);
}

Test(uploads, a_commit_that_tears_blob_and_meta_apart_costs_the_chunk_only) {
    uint64_t rng = test_seed();
    size_t chunk = uploads_chunk_bytes(f.store);
    struct bytes whole = random_bytes(&f.arena, &rng, 4 * chunk);
    begin(1, whole);
    for (uint32_t i = 0; i < 4; i++) {
        store_fail_commit(f.store, 1, -EIO);
        cr_assert_eq(append(1, whole, chunk), -EIO);
        cr_assert_eq(store_reopen(f.store, f.err, sizeof f.err), 0, "%s", f.err);
        cr_assert_eq(look(1).have, i * chunk);
        cr_assert_eq(append(1, whole, chunk), 0);
    }
    become_job(1, whole);
    struct buf out = {0};
    cr_assert_eq(read_body(&f, 1, &out), 0);
    cr_assert(bytes_eq(buf_bytes(&out), whole));
    buf_fini(&out);
}

static int count(void *arg, const struct upload_record *u) {
    uint64_t *last = arg;
    cr_assert_gt(u->id, *last);
    cr_assert(bytes_is(u->tenant, "default") && bytes_is(u->key, "scan-17"));
    *last = u->id;
    return u->id == 9 ? 77 : 0;
}

Test(uploads, a_walk_sees_them_in_order_and_stops_where_it_is_told) {
    struct store_read *t;
    uint64_t ids[] = {300, 2, 9, 1}, last = 0;
    for (size_t i = 0; i < 4; i++) begin(ids[i], bytes_str("body"));
    cr_assert_eq(store_read_begin(f.store, &t), 0);
    cr_assert_eq(uploads_walk(t, count, &last), 77);
    cr_assert_eq(last, 9);
    store_read_end(t);
}

Test(uploads, a_token_belongs_to_one_id_of_one_store) {
    struct fixture other;
    fixture_open(&other);
    uint64_t token = uploads_token(f.store, 1);
    cr_assert_neq(token, uploads_token(f.store, 2));
    cr_assert_neq(token, uploads_token(other.store, 1));
    cr_assert_eq(fixture_reopen(&f), 0, "%s", f.err);
    cr_assert_eq(token, uploads_token(f.store, 1), "a name is good after a restart too");
    fixture_close(&other);
}
