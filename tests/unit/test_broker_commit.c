#include <criterion/criterion.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "broker/commit.h"

struct rig {
    char dir[64];
    struct store *store;
    struct committer *committer;
};

static void rig_open(struct rig *r) {
    char err[256] = "";
    strcpy(r->dir, "/tmp/penstock-commit-XXXXXX");
    cr_assert_not_null(mkdtemp(r->dir));
    struct store_config c = {.dir = r->dir, .meta_cap_bytes = 1 << 26, .blob_cap_bytes = 1 << 26};
    cr_assert_eq(store_open(&r->store, &c, err, sizeof err), 0, "%s", err);
    cr_assert_eq(committer_start(&r->committer, r->store), 0);
}

static void rig_close(struct rig *r) {
    char command[128];
    committer_stop(r->committer);
    store_close(r->store);
    snprintf(command, sizeof command, "rm -rf %s", r->dir);
    cr_assert_eq(system(command), 0);
}

static struct commit_op *submit(uint64_t id, const char *key, struct bytes body) {
    static const struct job_stage_record stage = {.name = {"s", 1}};
    struct commit_op *op = commit_op_new(COMMIT_ADD);
    cr_assert_not_null(op);
    op->job = id;
    op->record = (struct job_record){.id = id,
                                     .seed = id * 10,
                                     .kind = bytes_str("text.embed"),
                                     .tenant = bytes_str("default"),
                                     .key = key ? bytes_str(key) : (struct bytes){NULL, 0},
                                     .pipeline = bytes_str("p"),
                                     .plan = bytes_str("plan"),
                                     .state = JOB_READY,
                                     .accepted_ms = 1,
                                     .n_stages = 1,
                                     .stages = &stage};
    op->record.body = (struct job_payload){.bytes = body.len,
                                           .crc = crc32c(0, body.data, body.len),
                                           .in_blob = body.len > LIMIT_INLINE_BYTES};
    op->slot = JOB_SLOT_BODY;
    op->n_parts = 1;
    op->parts[0] = body;
    return op;
}

static struct commit_op *done(struct rig *r) {
    struct pollfd p = {.fd = commit_fd(r->committer), .events = POLLIN};
    for (int i = 0; i < 100; i++) {
        struct commit_op *op = commit_pop(r->committer);
        if (op) return op;
        poll(&p, 1, 100);
    }
    cr_assert_fail("the store thread does not answer");
    return NULL;
}

static int outcome(struct rig *r, struct commit_op *op) {
    commit_push(r->committer, op);
    op = done(r);
    int e = op->error;
    commit_op_free(op);
    return e;
}

static int stored(struct rig *r, uint64_t id, enum job_state *state) {
    struct store_read *t;
    struct job_record rec;
    cr_assert_eq(store_read_begin(r->store, &t), 0);
    int e = jobs_get(t, id, &rec, NULL);
    if (e == 0 && state) *state = rec.state;
    store_read_end(t);
    return e;
}

Test(broker_commit, what_comes_back_without_an_error_is_in_the_store) {
    struct rig r;
    rig_open(&r);
    for (uint64_t id = 1; id <= 500; id++)
        commit_push(r.committer, submit(id, NULL, bytes_str("b")));
    cr_assert_eq(commit_outstanding(r.committer), 500);
    for (uint64_t id = 1; id <= 500; id++) {
        struct commit_op *op = done(&r);
        cr_assert(op->error == 0 && op->job == id, "they come back in order");
        cr_assert_eq(stored(&r, id, NULL), 0);
        commit_op_free(op);
    }
    cr_assert_eq(commit_outstanding(r.committer), 0);
    struct commit_stats s = commit_stats(r.committer);
    cr_assert_eq(s.ops, 500);
    cr_assert_lt(s.commits, 500, "a commit takes what has gathered");
    rig_close(&r);
}

Test(broker_commit, what_hangs_on_an_operation_is_in_its_transaction) {
    enum { JOBS = 1000 };
    struct rig r;
    rig_open(&r);
    struct commit_op *first = NULL, **last = &first;
    for (uint64_t id = 1; id <= JOBS; id++) {
        *last = submit(id, id % 10 == 3 ? "same" : NULL, bytes_str("b"));
        last = &(*last)->also;
    }
    commit_push(r.committer, first);
    cr_assert_eq(commit_outstanding(r.committer), 1);
    first = done(&r);
    uint64_t id = 0;
    for (struct commit_op *op = first; op; op = op->also) {
        cr_assert(op->error == 0 && op->job == ++id, "in their order");
        bool again = id % 10 == 3 && id != 3;
        cr_assert_eq(op->existing, again ? 3 : 0, "a key counts within the batch too");
        cr_assert_eq(stored(&r, id, NULL), again ? -ENOENT : 0);
    }
    cr_assert_eq(id, JOBS);
    commit_op_free(first);
    struct commit_stats s = commit_stats(r.committer);
    cr_assert(s.commits == 1 && s.ops == JOBS);
    store_fail_commit(r.store, 1, -EIO);
    first = submit(JOBS + 1, NULL, bytes_str("b"));
    first->also = submit(JOBS + 2, NULL, bytes_str("b"));
    commit_push(r.committer, first);
    first = done(&r);
    cr_assert(first->error == -EIO && first->also->error == -EIO, "it fails as a whole");
    commit_op_free(first);
    rig_close(&r);
}

Test(broker_commit, a_transaction_ends_when_it_holds_many_bytes) {
    enum { OPS = 20, PARTS = 15, BYTES = 64 << 20 };
    struct rig r;
    rig_open(&r);
    static uint8_t part[LIMIT_FRAME_BYTES];
    struct commit_op *op[OPS];
    /* They fail, being too large for the store's cap: what counts is how many go together. */
    for (uint32_t i = 0; i < OPS; i++) {
        op[i] = submit(i + 1, NULL, bytes_str("b"));
        op[i]->n_parts = PARTS;
        for (uint32_t k = 0; k < PARTS; k++) op[i]->parts[k] = bytes_of(part, sizeof part);
        cr_assert_eq(commit_op_bytes(op[i]), PARTS * sizeof part);
    }
    for (uint32_t i = 0; i < OPS; i++) commit_push(r.committer, op[i]);
    for (uint32_t i = 0; i < OPS; i++) commit_op_free(done(&r));
    cr_assert_geq(commit_stats(r.committer).commits,
                  OPS * PARTS * sizeof part / (BYTES + PARTS * sizeof part));
    rig_close(&r);
}

Test(broker_commit, a_key_that_is_taken_names_its_job_even_within_one_batch) {
    struct rig r;
    rig_open(&r);
    commit_push(r.committer, submit(1, "k", bytes_str("same")));
    commit_push(r.committer, submit(2, "k", bytes_str("same")));
    commit_push(r.committer, submit(3, "k", bytes_str("other")));
    struct commit_op *op[3] = {done(&r), done(&r), done(&r)};
    cr_assert(op[0]->existing == 0 && op[0]->error == 0);
    cr_assert(op[1]->existing == 1 && !op[1]->conflict && op[1]->existing_seed == 10);
    cr_assert(op[2]->existing == 1 && op[2]->conflict);
    cr_assert_eq(stored(&r, 2, NULL), -ENOENT);
    cr_assert_eq(stored(&r, 3, NULL), -ENOENT);
    for (int i = 0; i < 3; i++) commit_op_free(op[i]);
    rig_close(&r);
}

Test(broker_commit, large_bodies_go_to_chunks_and_come_back) {
    struct rig r;
    rig_open(&r);
    static uint8_t body[300000];
    for (size_t i = 0; i < sizeof body; i++) body[i] = (uint8_t)(i * 7);
    cr_assert_eq(outcome(&r, submit(1, NULL, bytes_of(body, sizeof body))), 0);
    struct store_read *t;
    struct job_record rec;
    struct buf out = {0};
    cr_assert_eq(store_read_begin(r.store, &t), 0);
    cr_assert_eq(jobs_get(t, 1, &rec, NULL), 0);
    cr_assert(rec.body.in_blob);
    cr_assert_eq(store_payload_get(t, 1, JOB_SLOT_BODY, &rec.body, &out), 0);
    cr_assert(bytes_eq(buf_bytes(&out), bytes_of(body, sizeof body)));
    store_read_end(t);
    buf_fini(&out);
    rig_close(&r);
}

Test(broker_commit, after_a_failed_commit_nothing_is_written_before_a_reopen) {
    struct rig r;
    rig_open(&r);
    cr_assert_eq(outcome(&r, submit(1, NULL, bytes_str("b"))), 0);
    store_fail_commit(r.store, 1, EIO);
    cr_assert_neq(outcome(&r, submit(2, NULL, bytes_str("b"))), 0);
    cr_assert_neq(outcome(&r, submit(3, NULL, bytes_str("b"))), 0);
    cr_assert_eq(stored(&r, 1, NULL), 0, "reads go on");
    cr_assert_eq(outcome(&r, commit_op_new(COMMIT_REOPEN)), 0);
    cr_assert_eq(outcome(&r, submit(4, NULL, bytes_str("b"))), 0);
    cr_assert_eq(stored(&r, 4, NULL), 0);
    cr_assert_eq(stored(&r, 3, NULL), -ENOENT);
    rig_close(&r);
}

Test(broker_commit, what_was_refused_is_forgotten_and_forgetting_twice_is_fine) {
    struct rig r;
    rig_open(&r);
    cr_assert_eq(outcome(&r, submit(1, "k", bytes_str("b"))), 0);
    for (int i = 0; i < 2; i++) {
        struct commit_op *op = submit(1, "k", bytes_str("b"));
        op->type = COMMIT_FORGET;
        cr_assert_eq(outcome(&r, op), 0);
        cr_assert_eq(stored(&r, 1, NULL), -ENOENT);
    }
    commit_push(r.committer, submit(2, "k", bytes_str("b")));
    struct commit_op *op = done(&r);
    cr_assert_eq(op->existing, 0, "its key is free again");
    commit_op_free(op);
    rig_close(&r);
}

Test(broker_commit, an_update_replaces_the_record_and_keeps_its_payload) {
    struct rig r;
    rig_open(&r);
    enum job_state state;
    cr_assert_eq(outcome(&r, submit(1, NULL, bytes_str("b"))), 0);
    struct commit_op *op = submit(1, NULL, bytes_str("the result"));
    op->type = COMMIT_UPDATE;
    op->slot = JOB_SLOT_RESULT;
    op->record.state = JOB_DONE;
    op->record.result = op->record.body;
    op->record.body =
        (struct job_payload){.bytes = 1, .crc = crc32c(0, "b", 1), .inlined = {"b", 1}};
    cr_assert_eq(outcome(&r, op), 0);
    cr_assert_eq(stored(&r, 1, &state), 0);
    cr_assert_eq(state, JOB_DONE);
    rig_close(&r);
}

Test(broker_commit, stopping_finishes_what_was_pushed) {
    struct rig r;
    rig_open(&r);
    for (uint64_t id = 1; id <= 300; id++)
        commit_push(r.committer, submit(id, NULL, bytes_str("b")));
    committer_stop(r.committer);
    for (uint64_t id = 1; id <= 300; id++) cr_assert_eq(stored(&r, id, NULL), 0);
    cr_assert_eq(committer_start(&r.committer, r.store), 0);
    rig_close(&r);
}

static struct commit_op *outcome_of(uint64_t id, enum job_state state, struct bytes output) {
    struct commit_op *op = submit(id, NULL, output);
    op->type = COMMIT_UPDATE;
    op->slot = JOB_SLOT_RESULT;
    op->record.state = state;
    op->record.finished_ms = 5;
    op->record.result = op->record.body;
    op->record.body =
        (struct job_payload){.bytes = 1, .crc = crc32c(0, "b", 1), .inlined = {"b", 1}};
    if (output.len == 0) op->n_parts = 0;
    return op;
}

Test(broker_commit, an_operation_that_cannot_be_written_fails_alone) {
    static char reason[LIMIT_REASON_BYTES + 2];
    struct rig r;
    memset(reason, 'x', sizeof reason - 1);
    rig_open(&r);
    for (uint64_t id = 1; id <= 200; id++) {
        struct commit_op *op = submit(id, NULL, bytes_str("b"));
        if (id % 7 == 0) op->record.reason = bytes_str(reason);
        commit_push(r.committer, op);
    }
    for (uint64_t id = 1; id <= 200; id++) {
        struct commit_op *op = done(&r);
        cr_assert_eq(op->job, id, "they come back in order");
        cr_assert_eq(op->error, id % 7 == 0 ? ERR_LIMIT : 0, "job %d", (int)id);
        cr_assert_eq(stored(&r, id, NULL), id % 7 == 0 ? -ENOENT : 0);
        commit_op_free(op);
    }
    cr_assert_eq(outcome(&r, submit(201, NULL, bytes_str("b"))), 0, "the store is not poisoned");
    rig_close(&r);
}

Test(broker_commit, a_store_at_its_cap_refuses_jobs_and_still_takes_outcomes_and_deletes) {
    static uint8_t body[60000], large[LIMIT_FRAME_BYTES];
    struct rig r;
    enum job_state state;
    uint64_t n = 0;
    rig_open(&r);
    for (int e = 0; e == 0; n += e == 0) {
        e = outcome(&r, submit(n + 1, NULL, bytes_of(body, sizeof body)));
        cr_assert(e == 0 || e == ERR_FULL, "%d", e);
    }
    cr_assert_gt(n, 500);
    cr_assert_eq(stored(&r, n + 1, NULL), -ENOENT);
    /* Outcomes may use the rest, until only the reserve is left; then small ones still fit. */
    uint64_t id = 1;
    while (outcome(&r, outcome_of(id, JOB_DONE, bytes_of(large, sizeof large))) == 0) id++;
    cr_assert_gt(id, 5);
    cr_assert_neq(stored(&r, id, &state) == 0 && state == JOB_DONE, 1);
    cr_assert_eq(outcome(&r, outcome_of(id, JOB_CANCELLED, (struct bytes){NULL, 0})), 0);
    cr_assert_eq(stored(&r, id, &state), 0);
    cr_assert_eq(state, JOB_CANCELLED);
    for (uint64_t gone = 1; gone <= n / 2; gone++) {
        struct commit_op *op = submit(gone, NULL, (struct bytes){NULL, 0});
        op->type = COMMIT_FORGET;
        cr_assert_eq(outcome(&r, op), 0);
    }
    cr_assert_eq(outcome(&r, submit(n + 1, NULL, bytes_of(body, sizeof body))), 0, "room again");
    rig_close(&r);
}

Test(broker_commit, what_follows_an_outcome_without_room_never_overtakes_it) {
    static uint8_t large[LIMIT_FRAME_BYTES];
    struct rig r;
    rig_open(&r);
    for (uint64_t id = 1; id <= 100; id++)
        cr_assert_eq(outcome(&r, submit(id, NULL, bytes_str("b"))), 0);
    cr_assert_eq(outcome(&r, submit(9999, NULL, bytes_str("b"))), 0);
    for (uint64_t id = 1;
         outcome(&r, outcome_of(id, JOB_DONE, bytes_of(large, sizeof large))) == 0;)
        id++;
    commit_push(r.committer, outcome_of(9999, JOB_READY, bytes_of(large, sizeof large)));
    commit_push(r.committer, outcome_of(9999, JOB_CANCELLED, (struct bytes){NULL, 0}));
    struct commit_op *first = done(&r), *second = done(&r);
    cr_assert_eq(first->error, ERR_FULL);
    cr_assert_eq(second->error, ERR_FULL, "it was pushed before the first came back");
    cr_assert_eq(outcome(&r, outcome_of(9999, JOB_CANCELLED, (struct bytes){NULL, 0})), 0,
                 "and now whoever pushes knows");
    commit_op_free(first);
    commit_op_free(second);

    rig_close(&r);
}

/* ---- uploads ---- */

static struct commit_op *of_upload(enum commit_type type, struct bytes whole, uint64_t offset,
                                   struct bytes chunk) {
    struct commit_op *op = commit_op_new(type);
    cr_assert_not_null(op);
    op->upload = (struct upload_record){.id = 1,
                                        .bytes = whole.len,
                                        .crc = crc32c(0, whole.data, whole.len),
                                        .tenant = bytes_str("default")};
    op->offset = offset;
    op->record.kind = bytes_str("text.embed");
    op->record.tenant = bytes_str("default");
    if (type == COMMIT_CHUNK) {
        op->n_parts = 1;
        op->parts[0] = chunk;
    }
    return op;
}

/* Runs one and returns it, to be freed. */
static struct commit_op *ran(struct rig *r, struct commit_op *op) {
    commit_push(r->committer, op);
    return done(r);
}

static struct commit_op *submit_upload(struct bytes whole, const char *key) {
    struct commit_op *op = submit(1, key, whole);
    op->n_parts = 0;
    op->record.body.in_blob = true;
    op->upload = (struct upload_record){.id = 1,
                                        .bytes = whole.len,
                                        .have = whole.len,
                                        .crc = op->record.body.crc,
                                        .have_crc = op->record.body.crc,
                                        .tenant = bytes_str("default")};
    return op;
}

static void reopen(struct rig *r) {
    cr_assert_eq(outcome(r, commit_op_new(COMMIT_REOPEN)), 0);
}

static struct bytes whole_of(struct rig *r, size_t *chunk) {
    *chunk = uploads_chunk_bytes(r->store);
    uint8_t *data = calloc(1, 2 * *chunk);
    cr_assert_not_null(data);
    for (size_t i = 0; i < 2 * *chunk; i++) data[i] = (uint8_t)(i * 31 >> 3);
    return bytes_of(data, 2 * *chunk);
}

Test(broker_commit, a_chunk_is_written_behind_what_is_on_disk_and_nowhere_else) {
    struct rig r;
    size_t chunk;
    rig_open(&r);
    struct bytes whole = whole_of(&r, &chunk);
    struct bytes part[2] = {bytes_of(whole.data, chunk),
                            bytes_of((const uint8_t *)whole.data + chunk, chunk)};
    struct commit_op *op = ran(&r, of_upload(COMMIT_CHUNK, whole, 0, part[0]));
    cr_assert(op->error == 0 && op->behind && op->upload.bytes == 0, "there is no such upload");
    commit_op_free(op);
    cr_assert_eq(outcome(&r, of_upload(COMMIT_UPLOAD, whole, 0, part[0])), 0);
    op = ran(&r, of_upload(COMMIT_CHUNK, whole, chunk, part[1]));
    cr_assert(op->error == 0 && op->behind && op->upload.have == 0, "there would be a hole");
    commit_op_free(op);
    for (uint32_t i = 0; i < 2; i++) {
        op = ran(&r, of_upload(COMMIT_CHUNK, whole, i * chunk, part[i]));
        cr_assert(op->error == 0 && !op->behind && op->upload.have == (i + 1) * chunk);
        commit_op_free(op);
        op = ran(&r, of_upload(COMMIT_CHUNK, whole, i * chunk, part[i]));
        cr_assert(op->error == 0 && op->behind && op->upload.have == (i + 1) * chunk, "twice");
        commit_op_free(op);
    }
    cr_assert_eq(outcome(&r, submit_upload(whole, NULL)), 0);
    cr_assert_eq(stored(&r, 1, NULL), 0);
    op = ran(&r, of_upload(COMMIT_LOOK, whole, 0, part[0]));
    cr_assert(op->error == 0 && op->existing == 1 && op->existing_seed == 10 && !op->conflict);
    commit_op_free(op);
    op = of_upload(COMMIT_LOOK, whole, 0, part[0]);
    op->record.tenant = bytes_str("another");
    op = ran(&r, op);
    cr_assert(op->error == 0 && op->existing == 0, "another tenant's job is none");
    commit_op_free(op);
    free((void *)whole.data);
    rig_close(&r);
}

/* The flush of the submit fails: half of the times its job is on disk all the same. Taken back, the
 * upload is whole again and can be submitted. */
Test(broker_commit, a_submit_that_is_taken_back_leaves_the_upload) {
    for (int landed = 0; landed < 2; landed++) {
        struct rig r;
        size_t chunk;
        rig_open(&r);
        struct bytes whole = whole_of(&r, &chunk);
        cr_assert_eq(outcome(&r, of_upload(COMMIT_UPLOAD, whole, 0, whole)), 0);
        for (uint32_t i = 0; i < 2; i++)
            cr_assert_eq(
                outcome(&r, of_upload(COMMIT_CHUNK, whole, i * chunk,
                                      bytes_of((const uint8_t *)whole.data + i * chunk, chunk))),
                0);
        if (landed) {
            cr_assert_eq(outcome(&r, submit_upload(whole, "k")), 0);
        } else {
            store_fail_commit(r.store, 1, -EIO);
            cr_assert_neq(outcome(&r, submit_upload(whole, "k")), 0);
            reopen(&r);
        }
        struct commit_op *op = submit_upload(whole, "k");
        op->type = COMMIT_FORGET;
        op = ran(&r, op);
        cr_assert(op->error == 0 && op->upload.bytes == whole.len);
        commit_op_free(op);
        cr_assert_eq(stored(&r, 1, NULL), -ENOENT);
        reopen(&r); /* sweeps what nobody names */
        cr_assert_eq(outcome(&r, submit_upload(whole, "k")), 0);
        struct store_read *t;
        struct job_record rec;
        struct buf body = {0};
        cr_assert_eq(store_read_begin(r.store, &t), 0);
        cr_assert_eq(jobs_get(t, 1, &rec, NULL), 0);
        cr_assert_eq(store_payload_get(t, 1, JOB_SLOT_BODY, &rec.body, &body), 0);
        cr_assert(bytes_eq(buf_bytes(&body), whole));
        store_read_end(t);
        buf_fini(&body);
        free((void *)whole.data);
        rig_close(&r);
    }
}

Test(broker_commit, an_upload_whose_key_has_a_job_is_dropped) {
    struct rig r;
    struct store_usage u;
    rig_open(&r);
    struct bytes body = bytes_str("a body");
    struct commit_op *first = submit(5, "k", body);
    cr_assert_eq(outcome(&r, first), 0);
    struct commit_op *op = of_upload(COMMIT_UPLOAD, body, 0, body);
    cr_assert_eq(outcome(&r, op), 0);
    cr_assert_eq(outcome(&r, of_upload(COMMIT_CHUNK, body, 0, body)), 0);
    op = ran(&r, submit_upload(body, "k"));
    cr_assert(op->error == 0 && op->existing == 5 && !op->conflict);
    commit_op_free(op);
    op = ran(&r, of_upload(COMMIT_CHUNK, body, 0, body));
    cr_assert(op->behind && op->upload.bytes == 0);
    commit_op_free(op);
    cr_assert_eq(store_usage(r.store, &u), 0);
    cr_assert_eq(u.chunks, 0);
    rig_close(&r);
}

/* An operation that spoils its transaction has the others applied again. */
Test(broker_commit, a_chunk_is_written_once_though_its_batch_was_tried_twice) {
    struct rig r;
    size_t chunk;
    rig_open(&r);
    struct bytes whole = whole_of(&r, &chunk);
    cr_assert_eq(outcome(&r, of_upload(COMMIT_UPLOAD, whole, 0, whole)), 0);
    struct commit_op *first = of_upload(COMMIT_CHUNK, whole, 0, bytes_of(whole.data, chunk));
    struct commit_op *bad = submit(1, NULL, bytes_str("b"));
    bad->record.n_stages = LIMIT_STAGES + 1;
    first->also = bad; /* in one transaction, whatever else gathers */
    commit_push(r.committer, first);
    struct commit_op *op = done(&r);
    cr_assert(op->error == 0 && !op->behind && op->upload.have == chunk, "%d %d", op->error,
              op->behind);
    cr_assert_eq(bad->error, ERR_LIMIT);
    commit_op_free(op);
    free((void *)whole.data);
    rig_close(&r);
}
