#include "tests/store/fixture.h"

#include <criterion/criterion.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/rng.h"

void fixture_make(struct fixture *f) {
    memset(f, 0, sizeof *f);
    const char *tmp = getenv("TMPDIR");
    snprintf(f->dir, sizeof f->dir, "%s/penstock-store-XXXXXX", tmp ? tmp : "/tmp");
    cr_assert_not_null(mkdtemp(f->dir));
    arena_init(&f->arena, 64u << 20);
    f->config = (struct store_config){
        .dir = f->dir, .meta_cap_bytes = 16u << 20, .blob_cap_bytes = 64u << 20};
}

void fixture_open_caps(struct fixture *f, uint64_t meta_cap_bytes, uint64_t blob_cap_bytes) {
    fixture_make(f);
    f->config.meta_cap_bytes = meta_cap_bytes;
    f->config.blob_cap_bytes = blob_cap_bytes;
    int code = store_open(&f->store, &f->config, f->err, sizeof f->err);
    cr_assert_eq(code, 0, "%s", f->err);
}

void fixture_open(struct fixture *f) {
    fixture_open_caps(f, 16u << 20, 64u << 20);
}

int fixture_reopen(struct fixture *f) {
    store_close(f->store);
    f->store = NULL;
    return store_open(&f->store, &f->config, f->err, sizeof f->err);
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw) {
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

void fixture_close(struct fixture *f) {
    store_close(f->store);
    arena_fini(&f->arena);
    nftw(f->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

struct bytes random_bytes(struct arena *a, uint64_t *rng, size_t len) {
    uint8_t *p = arena_alloc(a, len + 1);
    cr_assert_not_null(p);
    for (size_t i = 0; i < len; i++) p[i] = (uint8_t)rng_next(rng);
    return bytes_of(p, len);
}

static struct bytes short_bytes(struct arena *a, uint64_t *rng, size_t max) {
    return random_bytes(a, rng, (size_t)(rng_next(rng) % (max + 1)));
}

struct job_record random_record(struct arena *a, uint64_t *rng, uint64_t id) {
    struct job_record r = {.id = id, .seed = rng_next(rng)};
    r.kind = short_bytes(a, rng, LIMIT_NAME_BYTES);
    r.tenant = short_bytes(a, rng, LIMIT_NAME_BYTES);
    r.source = short_bytes(a, rng, LIMIT_NAME_BYTES);
    r.key = short_bytes(a, rng, LIMIT_KEY_BYTES);
    r.pipeline = short_bytes(a, rng, LIMIT_NAME_BYTES);
    r.plan = short_bytes(a, rng, 600);
    r.reason = short_bytes(a, rng, LIMIT_REASON_BYTES);
    r.state = rng_next(rng) % 2 ? JOB_READY : JOB_DELAYED;
    r.error = (enum job_error)(rng_next(rng) % JOB_ERRORS);
    r.priority = (uint32_t)(rng_next(rng) % 10);
    r.stage = (uint32_t)(rng_next(rng) % LIMIT_STAGES);
    r.tries = (uint32_t)rng_next(rng);
    r.timeouts = (uint32_t)rng_next(rng);
    r.deaths = (uint32_t)rng_next(rng);
    r.attempt = rng_next(rng);
    r.accepted_ms = (int64_t)rng_next(rng);
    r.ready_ms = (int64_t)rng_next(rng);
    r.expires_ms = (int64_t)rng_next(rng);
    r.finished_ms = (int64_t)(rng_next(rng) >> 1);
    r.input_stage = (uint32_t)(rng_next(rng) % LIMIT_STAGES);
    r.n_stages = (uint32_t)(rng_next(rng) % (LIMIT_STAGES + 1));
    r.n_attempts = (uint32_t)(rng_next(rng) % (LIMIT_ATTEMPTS + 1));
    struct job_stage_record *stages = arena_calloc(a, LIMIT_STAGES, sizeof *stages);
    struct job_attempt *attempts = arena_calloc(a, LIMIT_ATTEMPTS, sizeof *attempts);
    for (uint32_t i = 0; i < r.n_stages; i++)
        stages[i] = (struct job_stage_record){short_bytes(a, rng, LIMIT_NAME_BYTES),
                                              short_bytes(a, rng, LIMIT_NAME_BYTES),
                                              short_bytes(a, rng, 128),
                                              rng_next(rng),
                                              (int64_t)rng_next(rng),
                                              (int64_t)rng_next(rng),
                                              (int64_t)rng_next(rng),
                                              rng_next(rng),
                                              rng_next(rng)};
    for (uint32_t i = 0; i < r.n_attempts; i++)
        attempts[i] = (struct job_attempt){(uint32_t)rng_next(rng),
                                           (enum job_error)(rng_next(rng) % JOB_ERRORS),
                                           rng_next(rng),
                                           (int64_t)rng_next(rng),
                                           (int64_t)rng_next(rng),
                                           short_bytes(a, rng, LIMIT_NAME_BYTES),
                                           short_bytes(a, rng, LIMIT_REASON_BYTES)};
    r.stages = stages;
    r.attempts = attempts;
    r.origin = rng_next(rng);
    r.heir = rng_next(rng);
    r.n_notes = (uint32_t)(rng_next(rng) % (LIMIT_NOTES + 1));
    struct job_note *notes = arena_calloc(a, LIMIT_NOTES, sizeof *notes);
    for (uint32_t i = 0; i < r.n_notes; i++)
        notes[i] = (struct job_note){rng_next(rng),
                                     (enum job_note_type)(rng_next(rng) % JOB_NOTES),
                                     (enum job_state)(rng_next(rng) % JOB_STATES),
                                     (enum job_error)(rng_next(rng) % JOB_ERRORS),
                                     (uint32_t)(rng_next(rng) % LIMIT_STAGES),
                                     rng_next(rng),
                                     (int64_t)rng_next(rng),
                                     short_bytes(a, rng, LIMIT_NAME_BYTES)};
    r.notes = notes;
    return r;
}

static void expect_bytes(struct bytes a, struct bytes b, const char *what) {
    cr_assert(bytes_eq(a, b), "%s differs (%zu and %zu bytes)", what, a.len, b.len);
}

static void expect_payload(const struct job_payload *a, const struct job_payload *b) {
    cr_assert_eq(a->bytes, b->bytes);
    cr_assert_eq(a->crc, b->crc);
    cr_assert_eq(a->in_blob, b->in_blob);
    expect_bytes(a->inlined, b->inlined, "inline payload");
}

void expect_same_record(const struct job_record *a, const struct job_record *b) {
    cr_assert_eq(a->id, b->id);
    cr_assert_eq(a->seed, b->seed);
    cr_assert_eq(a->state, b->state);
    cr_assert_eq(a->error, b->error);
    cr_assert_eq(a->priority, b->priority);
    cr_assert_eq(a->stage, b->stage);
    cr_assert_eq(a->tries, b->tries);
    cr_assert_eq(a->timeouts, b->timeouts);
    cr_assert_eq(a->deaths, b->deaths);
    cr_assert_eq(a->attempt, b->attempt);
    cr_assert_eq(a->accepted_ms, b->accepted_ms);
    cr_assert_eq(a->ready_ms, b->ready_ms);
    cr_assert_eq(a->expires_ms, b->expires_ms);
    cr_assert_eq(a->finished_ms, b->finished_ms);
    cr_assert_eq(a->input_stage, b->input_stage);
    expect_bytes(a->kind, b->kind, "kind");
    expect_bytes(a->tenant, b->tenant, "tenant");
    expect_bytes(a->source, b->source, "source");
    expect_bytes(a->key, b->key, "key");
    expect_bytes(a->pipeline, b->pipeline, "pipeline");
    expect_bytes(a->plan, b->plan, "plan");
    expect_bytes(a->reason, b->reason, "reason");
    expect_payload(&a->body, &b->body);
    expect_payload(&a->input, &b->input);
    expect_payload(&a->result, &b->result);
    cr_assert_eq(a->n_stages, b->n_stages);
    for (uint32_t i = 0; i < a->n_stages; i++) {
        const struct job_stage_record *x = &a->stages[i], *y = &b->stages[i];
        expect_bytes(x->name, y->name, "stage name");
        expect_bytes(x->worker, y->worker, "stage worker");
        expect_bytes(x->numerics_id, y->numerics_id, "numerics id");
        cr_assert(x->attempt == y->attempt && x->queued_ms == y->queued_ms &&
                  x->started_ms == y->started_ms && x->done_ms == y->done_ms &&
                  x->run_us == y->run_us && x->output_bytes == y->output_bytes);
    }
    cr_assert_eq(a->n_attempts, b->n_attempts);
    for (uint32_t i = 0; i < a->n_attempts; i++) {
        const struct job_attempt *x = &a->attempts[i], *y = &b->attempts[i];
        expect_bytes(x->worker, y->worker, "attempt worker");
        expect_bytes(x->reason, y->reason, "attempt reason");
        cr_assert(x->stage == y->stage && x->error == y->error && x->attempt == y->attempt &&
                  x->started_ms == y->started_ms && x->ended_ms == y->ended_ms);
    }
    cr_assert(a->origin == b->origin && a->heir == b->heir);
    cr_assert_eq(a->n_notes, b->n_notes);
    for (uint32_t i = 0; i < a->n_notes; i++) {
        const struct job_note *x = &a->notes[i], *y = &b->notes[i];
        expect_bytes(x->by, y->by, "note");
        cr_assert(x->seq == y->seq && x->type == y->type && x->state == y->state &&
                  x->error == y->error && x->stage == y->stage && x->attempt == y->attempt &&
                  x->at_ms == y->at_ms);
    }
}

int commit_put(struct fixture *f, const struct job_record *r) {
    struct store_write *w;
    int code = store_write_begin(f->store, &w);
    if (code != 0) return code;
    code = jobs_put(w, r);
    if (code == 0) return store_commit(w);
    store_abort(w);
    return code;
}

int commit_add(struct fixture *f, const struct job_record *r, uint64_t *existing) {
    struct store_write *w;
    int code = store_write_begin(f->store, &w);
    if (code != 0) return code;
    code = jobs_add(w, r, existing);
    if (code == 0) return store_commit(w);
    store_abort(w);
    return code;
}

int commit_job(struct fixture *f, uint64_t id, struct bytes body) {
    struct store_write *w;
    struct job_record r = {.id = id, .state = JOB_READY, .kind = bytes_str("test")};
    uint64_t existing;
    int code = store_write_begin(f->store, &w);
    if (code != 0) return code;
    code = store_payload_put(w, id, JOB_SLOT_BODY, &body, 1, &f->arena, &r.body);
    if (code == 0) code = jobs_add(w, &r, &existing);
    if (code == 0) return store_commit(w);
    store_abort(w);
    return code;
}

int read_body(struct fixture *f, uint64_t id, struct buf *out) {
    struct store_read *t;
    struct job_record r;
    int code = store_read_begin(f->store, &t);
    if (code != 0) return code;
    code = jobs_get(t, id, &r, &f->arena);
    if (code == 0) code = store_payload_get(t, id, JOB_SLOT_BODY, &r.body, out);
    store_read_end(t);
    return code;
}

static void print_finding(void *arg, const char *finding) {
    (void)arg;
    cr_log_info("%s", finding);
}

int check_prints_nothing(struct fixture *f) {
    return store_check(f->store, print_finding, NULL);
}

uint64_t test_seed(void) {
    const char *given = getenv("PENSTOCK_SEED");
    uint64_t seed = given ? strtoull(given, NULL, 10) : (uint64_t)clock_wall_ms();
    cr_log_info("PENSTOCK_SEED=%llu", (unsigned long long)seed);
    return seed;
}
