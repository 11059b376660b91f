#include <criterion/criterion.h>
#include <signal.h>
#include <string.h>

#include "base/err.h"
#include "broker/job.h"
#include "broker/tenant.h"
#include "schemas/msg.h"
#include "store/record.h"

static const struct pipeline_stage stages[] = {
    {.name = "a", .run = "test.a", .timeout_ms = 100, .checkpoint = true},
    {.name = "b", .run = "test.b", .timeout_ms = 100},
    {.name = "c", .run = "test.c", .timeout_ms = 100},
};
static const struct pipeline three = {.name = "three",
                                      .kind = "text.embed",
                                      .n_stages = 3,
                                      .stages = stages,
                                      .tries_max = 3,
                                      .timeouts_max = 2,
                                      .deaths_max = 2,
                                      .backoff_ms = 100,
                                      .backoff_max_ms = 500,
                                      .plan = {"plan", 4}};

static struct tenant nobody = {.name = "default"};

enum { NOW = 1000000, TOKEN = 7 };

static struct job *job_in(enum job_state state, uint32_t stage) {
    struct job *j = job_new(&three);
    cr_assert_not_null(j);
    j->id = 42;
    j->kind = kind_find(bytes_str("text.embed"));
    j->tenant = &nobody;
    j->state = state;
    j->stage = stage;
    j->durable_stage = (uint8_t)stage;
    cr_assert_eq(job_begin(j), 0);
    j->accepted_ms = NOW - 10;
    if (state == JOB_LEASED) {
        j->attempt = TOKEN;
        j->span = (uint8_t)(3 - stage);
    }
    return j;
}

static uint32_t happens(struct job *j, enum job_event_type type) {
    struct job_event e = {.type = type, .stage = j->stage};
    if (type == JOB_EV_LEASED) e.attempt = j->attempt + 1, e.span = 1;
    if (type == JOB_EV_STAGE_DONE || type == JOB_EV_FAILED || type == JOB_EV_LOST ||
        type == JOB_EV_RETURNED)
        e.attempt = TOKEN;
    if (type == JOB_EV_FAILED) e.error = JOB_ERROR_TRANSIENT;
    return job_transition(j, &e, NOW);
}

Test(broker_job, a_committed_job_is_ready_unless_it_has_to_wait) {
    struct job *j = job_in(JOB_ACCEPTED, 0), *later = job_in(JOB_ACCEPTED, 0);
    later->ready_ms = NOW + 1;
    cr_assert_eq(happens(j, JOB_EV_COMMITTED), JOB_FX_READY);
    cr_assert_eq(j->state, JOB_READY);
    cr_assert_eq(happens(later, JOB_EV_COMMITTED), JOB_FX_DELAY);
    cr_assert_eq(later->state, JOB_DELAYED);
    cr_assert_eq(happens(later, JOB_EV_DUE), 0, "not yet");
    later->ready_ms = NOW;
    cr_assert_eq(happens(later, JOB_EV_DUE), JOB_FX_READY);
    job_free(j);
    job_free(later);
}

Test(broker_job, a_span_goes_through_its_stages_under_one_token_and_commits_checkpoints) {
    struct job *j = job_in(JOB_READY, 0);
    struct job_event lease = {.type = JOB_EV_LEASED, .attempt = TOKEN, .span = 3};
    cr_assert_eq(job_transition(j, &lease, NOW), JOB_FX_UNQUEUE);
    struct job_event done = {.type = JOB_EV_STAGE_DONE, .attempt = TOKEN, .more = true};
    cr_assert_eq(job_transition(j, &done, NOW), JOB_FX_COMMIT);
    cr_assert(j->state == JOB_LEASED && j->stage == 1 && j->attempt == TOKEN);
    done.stage = 1;
    cr_assert_eq(job_transition(j, &done, NOW), 0, "a stage without a checkpoint costs no commit");
    cr_assert_eq(j->stage, 2);
    done.stage = 2;
    done.more = false;
    uint32_t fx = job_transition(j, &done, NOW);
    cr_assert(fx & JOB_FX_COMMIT && fx & JOB_FX_TERMINAL && fx & JOB_FX_UNLEASE);
    cr_assert(j->state == JOB_DONE && j->finished_ms == NOW);
    job_free(j);
}

Test(broker_job, a_stage_that_ends_a_span_makes_the_job_ready_for_the_next_worker) {
    struct job *j = job_in(JOB_LEASED, 0);
    cr_assert_eq(happens(j, JOB_EV_STAGE_DONE), JOB_FX_READY | JOB_FX_UNLEASE | JOB_FX_COMMIT);
    cr_assert(j->state == JOB_READY && j->stage == 1);
    job_free(j);
    j = job_in(JOB_LEASED, 1);
    cr_assert_eq(happens(j, JOB_EV_STAGE_DONE), JOB_FX_READY | JOB_FX_UNLEASE);
    job_free(j);
}

Test(broker_job, only_the_current_token_stage_and_span_change_a_leased_job) {
    static const enum job_event_type types[] = {JOB_EV_STAGE_DONE, JOB_EV_FAILED, JOB_EV_LOST,
                                                JOB_EV_RETURNED};
    struct job *j = job_in(JOB_LEASED, 1);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        for (uint64_t token = TOKEN - 1; token <= TOKEN + 1; token += 2) {
            struct job_event e = {.type = types[i], .attempt = token, .stage = 1};
            cr_assert_eq(job_transition(j, &e, NOW), JOB_FX_STALE);
            cr_assert(j->state == JOB_LEASED && j->stage == 1 && j->tries == 0 && j->deaths == 0);
        }
    struct job_event other = {.type = JOB_EV_STAGE_DONE, .attempt = TOKEN, .stage = 0};
    cr_assert_eq(job_transition(j, &other, NOW), JOB_FX_STALE);
    other.stage = 2;
    cr_assert_eq(job_transition(j, &other, NOW), JOB_FX_STALE);
    j->span = 1;
    struct job_event beyond = {
        .type = JOB_EV_STAGE_DONE, .attempt = TOKEN, .stage = 1, .more = true};
    cr_assert_eq(job_transition(j, &beyond, NOW), JOB_FX_STALE);
    job_free(j);
}

Test(broker_job, no_outcome_reaches_a_job_that_is_not_leased) {
    for (enum job_state s = JOB_ACCEPTED; s < JOB_STATES; s++) {
        if (s == JOB_LEASED) continue;
        struct job *j = job_in(s, 1);
        j->attempt = TOKEN; /* as it is after the lease ended */
        cr_assert_eq(happens(j, JOB_EV_STAGE_DONE), JOB_FX_STALE);
        cr_assert_eq(happens(j, JOB_EV_FAILED), JOB_FX_STALE);
        cr_assert_eq(happens(j, JOB_EV_LOST), JOB_FX_STALE);
        cr_assert_eq(happens(j, JOB_EV_RETURNED), JOB_FX_STALE);
        cr_assert_eq(j->state, s);
        job_free(j);
    }
}

Test(broker_job, nothing_changes_an_end) {
    for (enum job_state s = 0; s < JOB_STATES; s++) {
        if (!job_state_terminal(s)) continue;
        struct job *j = job_in(s, 1);
        j->expires_ms = 1;
        cr_assert_eq(happens(j, JOB_EV_CANCEL), 0);
        cr_assert_eq(happens(j, JOB_EV_EXPIRE), 0);
        cr_assert_eq(happens(j, JOB_EV_DUE), 0);
        cr_assert_eq(happens(j, JOB_EV_COMMITTED), 0);
        cr_assert_eq(j->state, s);
        job_free(j);
    }
}

Test(broker_job, transient_failures_back_off_until_the_tries_are_used_up) {
    struct job *j = job_in(JOB_LEASED, 0);
    int64_t expected[] = {100, 200};
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(happens(j, JOB_EV_FAILED),
                     JOB_FX_DELAY | JOB_FX_UNLEASE | JOB_FX_COMMIT | JOB_FX_TRY);
        cr_assert_eq(j->ready_ms, NOW + expected[i]);
        j->state = JOB_LEASED;
    }
    uint32_t fx = happens(j, JOB_EV_FAILED);
    cr_assert(fx & JOB_FX_TERMINAL && fx & JOB_FX_TRY);
    cr_assert(j->state == JOB_FAILED && j->error == JOB_ERROR_TRANSIENT);
    job_free(j);
}

Test(broker_job, the_backoff_doubles_up_to_its_cap) {
    static const int64_t ms[] = {100, 200, 400, 500, 500};
    for (uint32_t i = 0; i < 5; i++) cr_assert_eq(job_backoff_ms(&three, i + 1), ms[i]);
    cr_assert_eq(job_backoff_ms(&three, UINT32_MAX), 500);
}

Test(broker_job, a_permanent_failure_is_not_tried_again) {
    struct job *j = job_in(JOB_LEASED, 0);
    struct job_event e = {.type = JOB_EV_FAILED, .attempt = TOKEN, .error = JOB_ERROR_PERMANENT};
    cr_assert(job_transition(j, &e, NOW) & JOB_FX_TERMINAL);
    cr_assert(j->state == JOB_FAILED && j->error == JOB_ERROR_PERMANENT);
    job_free(j);
}

Test(broker_job, deaths_are_counted_apart_from_tries_and_quarantine_a_job) {
    struct job *j = job_in(JOB_LEASED, 0);
    cr_assert_eq(happens(j, JOB_EV_LOST),
                 JOB_FX_READY | JOB_FX_UNLEASE | JOB_FX_COMMIT | JOB_FX_TRY);
    cr_assert(j->state == JOB_READY && j->deaths == 1 && j->tries == 0);
    j->state = JOB_LEASED;
    cr_assert(happens(j, JOB_EV_LOST) & JOB_FX_TERMINAL);
    cr_assert(j->state == JOB_FAILED && j->error == JOB_ERROR_WORKER_DIED);
    job_free(j);
}

Test(broker_job, a_stage_that_succeeds_gives_the_next_one_its_own_tries) {
    struct job *j = job_in(JOB_LEASED, 0);
    j->tries = 2;
    happens(j, JOB_EV_STAGE_DONE);
    cr_assert_eq(j->tries, 0);
    job_free(j);
}

Test(broker_job, a_returned_lease_counts_for_nothing) {
    struct job *j = job_in(JOB_LEASED, 1);
    cr_assert_eq(happens(j, JOB_EV_RETURNED), JOB_FX_READY | JOB_FX_UNLEASE);
    cr_assert(j->state == JOB_READY && j->tries == 0 && j->deaths == 0 && j->stage == 1);
    job_free(j);
}

Test(broker_job, cancel_and_expiry_end_every_live_state_and_take_the_lease_back) {
    for (enum job_state s = JOB_READY; s <= JOB_LEASED; s++)
        for (int expiry = 0; expiry < 2; expiry++) {
            struct job *j = job_in(s, 0);
            j->expires_ms = NOW;
            uint32_t fx = happens(j, expiry ? JOB_EV_EXPIRE : JOB_EV_CANCEL);
            cr_assert(fx & JOB_FX_COMMIT && fx & JOB_FX_TERMINAL && fx & JOB_FX_UNQUEUE);
            cr_assert_eq((fx & JOB_FX_UNLEASE) != 0, s == JOB_LEASED);
            cr_assert_eq(j->state, expiry ? JOB_EXPIRED : JOB_CANCELLED);
            job_free(j);
        }
}

Test(broker_job, nothing_expires_early_or_without_a_deadline) {
    struct job *j = job_in(JOB_READY, 0);
    cr_assert_eq(happens(j, JOB_EV_EXPIRE), 0);
    j->expires_ms = NOW + 1;
    cr_assert_eq(happens(j, JOB_EV_EXPIRE), 0);
    cr_assert_eq(j->state, JOB_READY);
    job_free(j);
}

Test(broker_job, a_lease_needs_a_newer_token, .signal = SIGABRT) {
    struct job *j = job_in(JOB_READY, 0);
    j->attempt = 9;
    struct job_event e = {.type = JOB_EV_LEASED, .attempt = 9, .span = 1};
    job_transition(j, &e, NOW);
}

/* ---- records ---- */

static struct bytes owned(const char *text) {
    return bytes_of(strdup(text), strlen(text));
}

Test(broker_job, a_record_brings_back_a_leased_job_at_its_checkpoint) {
    struct job *j = job_in(JOB_LEASED, 2), *back = NULL;
    struct bytes body = bytes_str("body"), checkpoint = bytes_str("output of a");
    struct arena a;
    struct job_record made, read;
    struct buf bytes = {0};
    arena_init(&a, 1 << 20);
    j->durable_stage = 1;
    j->seed = 99;
    j->key = owned("k");
    j->priority = 3;
    j->deaths = 1;
    j->attempt = UINT64_C(5) << 32 | 3;
    cr_assert_eq(job_payload_set(&j->body, &body, 1), 0);
    cr_assert_eq(job_payload_set(&j->input, &checkpoint, 1), 0);
    j->stages[0].numerics_id = strdup("n1");
    strcpy(j->stages[0].worker, "w1");
    job_log_try(j, "w2", 1, JOB_ERROR_WORKER_DIED, bytes_str("unheard"), NOW);

    cr_assert_eq(job_record_make(j, &a, &made), 0);
    cr_assert(made.body.bytes == 4 && !made.body.inlined.data, "the first record has the body");
    made.body.inlined = body; /* as jobs_put does */
    cr_assert_eq(record_encode(&made, &bytes), 0);
    cr_assert_eq(record_decode(buf_bytes(&bytes), &read, &a), 0);
    cr_assert(read.state == JOB_READY && read.stage == 1, "a lease does not survive the broker");
    cr_assert_eq(job_from_record(&read, j->kind, &three, &back), 0);
    cr_assert(back->id == 42 && back->seed == 99 && back->stage == 1 && back->durable_stage == 1);
    cr_assert(back->priority == 3 && back->deaths == 1 && back->attempt == j->attempt);
    cr_assert(bytes_is(back->key, "k") && bytes_is(back->body.inlined, "body"));
    cr_assert(bytes_is(back->input.inlined, "output of a"));
    cr_assert_str_eq(back->stages[0].worker, "w1");
    cr_assert_str_eq(back->stages[0].numerics_id, "n1");
    cr_assert(back->n_tries == 1 && back->try_log[0].stage == 1);
    cr_assert_str_eq(back->try_log[0].reason, "unheard");
    buf_fini(&bytes);
    arena_fini(&a);
    job_free(j);
    job_free(back);
}

Test(broker_job, only_the_record_that_adds_a_job_brings_its_body) {
    struct job *j = job_in(JOB_ACCEPTED, 0);
    struct bytes body = bytes_str("body");
    struct arena a;
    struct job_record r;
    arena_init(&a, 1 << 20);
    cr_assert_eq(job_payload_set(&j->body, &body, 1), 0);
    cr_assert_eq(job_record_make(j, &a, &r), 0);
    cr_assert(bytes_is(r.body.inlined, "body"));
    cr_assert(!job_payload_left(&j->body));
    happens(j, JOB_EV_COMMITTED);
    job_body_leave(j);
    cr_assert(job_payload_left(&j->body));
    cr_assert_eq(job_record_make(j, &a, &r), 0);
    cr_assert(r.body.bytes == 4 && r.body.crc == crc32c(0, "body", 4) && !r.body.inlined.data);
    arena_fini(&a);
    job_free(j);
}

Test(broker_job, a_record_that_does_not_fit_its_pipeline_is_corrupt) {
    struct job_record r = {.id = 1, .n_stages = 2};
    struct job *j = NULL;
    const struct kind_desc *kind = kind_find(bytes_str("text.embed"));
    cr_assert_eq(job_from_record(&r, kind, &three, &j), ERR_CORRUPT);
    r.n_stages = 3;
    r.stage = 3;
    cr_assert_eq(job_from_record(&r, kind, &three, &j), ERR_CORRUPT);
}

Test(broker_job, a_job_keeps_the_newest_attempts_only) {
    struct job *j = job_in(JOB_READY, 0);
    for (uint32_t i = 0; i < LIMIT_ATTEMPTS + 5; i++) {
        j->attempt = i;
        job_log_try(j, "w", 0, JOB_ERROR_TRANSIENT, bytes_str("why"), NOW);
    }
    cr_assert_eq(j->n_tries, LIMIT_ATTEMPTS);
    cr_assert_eq(j->try_log[0].attempt, 5);
    cr_assert_eq(j->try_log[LIMIT_ATTEMPTS - 1].attempt, LIMIT_ATTEMPTS + 4);
    job_free(j);
}

Test(broker_job, payloads_up_to_the_inline_limit_sit_in_the_record) {
    static uint8_t data[LIMIT_INLINE_BYTES + 1];
    struct job_payload p = {0};
    struct bytes parts[] = {bytes_of(data, 1000), bytes_of(data, 24), bytes_of(data, 1)};
    cr_assert_eq(job_payload_set(&p, parts, 2), 0);
    cr_assert(p.bytes == 1024 && !p.in_blob && p.inlined.len == 1024);
    cr_assert_eq(job_payload_set(&p, parts, 3), 0);
    cr_assert(p.bytes == 1025 && p.in_blob && p.inlined.len == 0);
    cr_assert_eq(p.crc, crc32c(0, data, 1025), "of the whole, however it is cut");
    cr_assert_eq(job_payload_set(&p, NULL, 0), 0);
    cr_assert(p.bytes == 0 && !p.in_blob);
}

Test(broker_job, reasons_are_cut_to_their_limit) {
    struct job *j = job_in(JOB_READY, 0);
    char text[LIMIT_REASON_BYTES * 2];
    memset(text, 'x', sizeof text);
    job_set_reason(j, bytes_of(text, sizeof text));
    cr_assert_eq(strlen(j->reason), LIMIT_REASON_BYTES - 1);
    job_set_reason(j, bytes_str("short"));
    cr_assert_str_eq(j->reason, "short");
    job_free(j);
}

Test(broker_job, an_end_that_is_not_on_disk_is_not_shown) {
    struct job *j = job_in(JOB_DONE, 2);
    j->commits = 1;
    cr_assert_eq(job_seen_state(j), JOB_LEASED);
    j->commits = 0;
    cr_assert_eq(job_seen_state(j), JOB_DONE);
    job_free(j);
}

Test(broker_job, every_message_fits_the_buffer_that_dispatch_decodes_into) {
    for (uint32_t i = 0; msg_desc_at(i); i++) cr_assert_leq(msg_desc_at(i)->struct_bytes, 512);
}

Test(broker_job, a_drop_that_was_not_written_leaves_the_job_as_it_waited) {
    struct job *j = job_new(&three);
    struct job_event cancel = {.type = JOB_EV_CANCEL}, kept = {.type = JOB_EV_KEPT};
    j->state = JOB_READY;
    j->stage = 1;
    cr_assert(job_transition(j, &cancel, NOW) & JOB_FX_TERMINAL);
    cr_assert_eq(job_transition(j, &kept, NOW), JOB_FX_READY);
    cr_assert(j->state == JOB_READY && j->stage == 1 && !j->finished_ms && !j->error);
    j->ready_ms = NOW + 5;
    j->state = JOB_DELAYED;
    job_transition(j, &cancel, NOW);
    cr_assert_eq(job_transition(j, &kept, NOW), JOB_FX_DELAY);
    cr_assert_eq(j->state, JOB_DELAYED);
    job_free(j);
}
