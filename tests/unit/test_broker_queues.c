#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/rng.h"
#include "broker/due.h"
#include "broker/peer.h"
#include "broker/ready.h"
#include "broker/table.h"
#include "broker/tenant.h"
#include "broker/watch.h"
#include "schemas/pack.h"

static struct pipeline_stage stages[] = {{.name = "a", .run = "test.a"},
                                         {.name = "b", .run = "test.b", .model = "m"},
                                         {.name = "c", .run = "test.c"}};
static struct pipeline chain = {.name = "chain", .n_stages = 3, .stages = stages};

static struct tenant somebody = {.name = "somebody"};

static struct job *job(uint64_t id, uint32_t priority, uint32_t stage) {
    struct job *j = job_new(&chain);
    cr_assert_not_null(j);
    j->id = id;
    j->tenant = &somebody;
    j->priority = (uint8_t)priority;
    j->stage = stage;
    return j;
}

/* ---- tenants ---- */

Test(broker_tenant, a_name_has_one_tenant_for_as_long_as_the_table_lives) {
    struct tenants t = {0};
    const struct tenant *a = tenant_get(&t, bytes_str("a")), *b = tenant_get(&t, bytes_str("b"));
    cr_assert_not_null(a);
    cr_assert_neq(a, b);
    cr_assert_eq(tenant_get(&t, bytes_str("a")), a);
    cr_assert_str_eq(b->name, "b");
    tenants_fini(&t);
}

Test(broker_tenant, names_that_are_none_and_more_than_the_limit_are_turned_away) {
    struct tenants t = {0};
    char name[LIMIT_NAME_BYTES + 2];
    memset(name, 'x', sizeof name);
    cr_assert_null(tenant_get(&t, bytes_str("")));
    cr_assert_null(tenant_get(&t, bytes_of("a\0b", 3)));
    cr_assert_null(tenant_get(&t, bytes_of(name, LIMIT_NAME_BYTES + 1)));
    cr_assert_not_null(tenant_get(&t, bytes_of(name, LIMIT_NAME_BYTES)));
    for (uint32_t i = 1; i < LIMIT_TENANTS; i++) {
        snprintf(name, sizeof name, "t%u", i);
        cr_assert_not_null(tenant_get(&t, bytes_str(name)));
    }
    cr_assert_null(tenant_get(&t, bytes_str("one more")));
    cr_assert_not_null(tenant_get(&t, bytes_str("t1")), "those that are known stay");
    tenants_fini(&t);
}

/* ---- due ---- */

Test(broker_due, entries_come_back_in_the_order_of_their_deadlines) {
    enum { N = 2000 };
    static struct due d[N];
    struct due_table t;
    uint64_t rng = 11;
    due_init(&t, N);
    for (int i = 0; i < N; i++)
        cr_assert_eq(due_set(&t, &d[i], (int64_t)(rng_next(&rng) % 500)), 0);
    for (int i = 0; i < N; i += 3) due_set(&t, &d[i], (int64_t)(rng_next(&rng) % 500)); /* moved */
    for (int i = 0; i < N; i += 5) due_drop(&t, &d[i]);
    int64_t last = -1;
    uint32_t seen = 0;
    for (struct due *x; (x = due_late(&t, 1000)); seen++) {
        cr_assert_geq(x->at_ms, last);
        cr_assert((x - d) % 5 != 0, "a dropped entry came back");
        last = x->at_ms;
        due_drop(&t, x);
    }
    cr_assert_eq(seen, N - N / 5);
    due_fini(&t);
}

Test(broker_due, it_says_who_is_late_and_how_long_to_sleep) {
    struct due_table t;
    struct due a = {0}, b = {0};
    due_init(&t, 2);
    cr_assert_eq(due_wait_ms(&t, 0), -1);
    due_set(&t, &a, 100);
    due_set(&t, &b, 50);
    cr_assert_eq(due_wait_ms(&t, 20), 30);
    cr_assert_null(due_late(&t, 49));
    cr_assert_eq(due_late(&t, 50), &b);
    cr_assert_eq(due_wait_ms(&t, 70), 0);
    due_drop(&t, &b);
    due_drop(&t, &b);
    cr_assert_null(due_late(&t, 70));
    due_fini(&t);
}

Test(broker_due, its_cap_is_an_error_and_moving_an_entry_needs_no_room) {
    struct due_table t;
    struct due d[3] = {0};
    due_init(&t, 2);
    cr_assert_eq(due_set(&t, &d[0], 1), 0);
    cr_assert_eq(due_set(&t, &d[1], 2), 0);
    cr_assert_eq(due_set(&t, &d[2], 3), -ENOSPC);
    cr_assert_eq(due_set(&t, &d[0], 9), 0);
    cr_assert_eq(due_late(&t, 9), &d[1]);
    due_fini(&t);
}

/* ---- ready ---- */

Test(broker_ready, priority_goes_before_age_and_age_before_nothing) {
    struct ready *r = calloc(1, sizeof *r);
    struct job *j[] = {job(1, 5, 0), job(2, 5, 0), job(3, 0, 0), job(4, 9, 0)};
    for (int i = 0; i < 4; i++) cr_assert_eq(ready_add(r, j[i]), 0);
    cr_assert(r->n == 1 && r->jobs == 4);
    static const int order[] = {2, 0, 1, 3};
    for (int i = 0; i < 4; i++) {
        struct job *head = ready_head(&r->queue[0]);
        cr_assert_eq(head, j[order[i]]);
        ready_drop(r, head);
        ready_drop(r, head);
    }
    cr_assert_null(ready_head(&r->queue[0]));
    cr_assert_eq(r->jobs, 0);
    for (int i = 0; i < 4; i++) job_free(j[i]);
    ready_fini(r);
    free(r);
}

Test(broker_ready, a_queue_is_for_one_program_model_and_stage) {
    struct ready *r = calloc(1, sizeof *r);
    struct job *a = job(1, 4, 0), *b = job(2, 4, 1), *again = job(3, 4, 1);
    ready_add(r, a);
    ready_add(r, b);
    ready_add(r, again);
    cr_assert_eq(r->n, 2);
    cr_assert_str_eq(r->queue[1].run, "test.b");
    cr_assert_str_eq(r->queue[1].model, "m");
    cr_assert_eq(r->queue[1].jobs, 2);
    job_free(a);
    job_free(b);
    job_free(again);
    ready_fini(r);
    free(r);
}

/* Serves n jobs of the one queue and counts them, and their bytes, by tenant. */
static void serve(struct ready *r, uint32_t n, uint32_t *jobs, uint64_t *bytes,
                  const struct tenant *tenants) {
    for (uint32_t i = 0; i < n; i++) {
        struct job *j = ready_head(&r->queue[0]);
        cr_assert_not_null(j);
        cr_assert_eq(ready_head(&r->queue[0]), j, "looking changes nothing");
        jobs[j->tenant - tenants]++;
        bytes[j->tenant - tenants] += j->body.bytes;
        ready_serve(j);
        ready_drop(r, j);
        job_free(j);
    }
}

static void wait_in(struct ready *r, struct tenant *t, uint64_t id, uint64_t bytes) {
    struct job *j = job(id, 4, 0);
    j->tenant = t;
    j->body.bytes = bytes;
    cr_assert_eq(ready_add(r, j), 0);
}

Test(broker_ready, a_tenant_with_few_jobs_does_not_wait_behind_one_with_many) {
    struct tenant t[2] = {{.name = "many"}, {.name = "few"}};
    uint32_t jobs[2] = {0};
    uint64_t bytes[2] = {0};
    struct ready *r = calloc(1, sizeof *r);
    for (uint64_t id = 1; id <= 20000; id++) wait_in(r, &t[0], id, 100);
    for (uint64_t id = 20001; id <= 20050; id++) wait_in(r, &t[1], id, 100);
    serve(r, 110, jobs, bytes, t);
    cr_assert_eq(jobs[1], 50, "%u of them", jobs[1]);
    serve(r, 20050 - 110, jobs, bytes, t);
    cr_assert(jobs[0] == 20000 && !ready_head(&r->queue[0]) && !t[0].flows && !t[1].flows);
    ready_fini(r);
    free(r);
}

Test(broker_ready, tenants_share_by_bytes_and_not_by_jobs) {
    enum { TENANTS = 4, JOBS = 6000 };
    static const uint64_t size[TENANTS] = {1000, 9000, 40000, 300000};
    struct tenant t[TENANTS] = {{.name = "a"}, {.name = "b"}, {.name = "c"}, {.name = "d"}};
    uint32_t jobs[TENANTS] = {0};
    uint64_t bytes[TENANTS] = {0}, cost[TENANTS], least = UINT64_MAX, most = 0;
    struct ready *r = calloc(1, sizeof *r);
    for (uint64_t i = 0; i < JOBS; i++)
        for (int k = 0; k < TENANTS; k++) wait_in(r, &t[k], i * TENANTS + (uint64_t)k + 1, size[k]);
    serve(r, 5000, jobs, bytes, t);
    for (int k = 0; k < TENANTS; k++) {
        cost[k] = bytes[k] + 4096ull * jobs[k];
        least = cost[k] < least ? cost[k] : least;
        most = cost[k] > most ? cost[k] : most;
    }
    /* Deficit round robin's bound: the largest job and a turn. */
    cr_assert_leq(most - least, 304096 + 2 * 16384, "%llu and %llu bytes",
                  (unsigned long long)least, (unsigned long long)most);
    while (ready_head(&r->queue[0])) serve(r, 1, jobs, bytes, t);
    ready_fini(r);
    free(r);
}

Test(broker_ready, tenants_share_in_proportion_to_their_weights) {
    enum { TENANTS = 3 };
    static const struct settings_tenant weighs[TENANTS] = {
        {.weight = 1}, {.weight = 3}, {.weight = 10}};
    struct tenant t[TENANTS] = {{.name = "a"}, {.name = "b"}, {.name = "c"}};
    uint32_t jobs[TENANTS] = {0};
    uint64_t bytes[TENANTS] = {0};
    double least = 1e18, most = 0;
    struct ready *r = calloc(1, sizeof *r);
    for (uint64_t id = 1; id <= 9000; id++) wait_in(r, &t[id % TENANTS], id, 9000);
    for (int k = 0; k < TENANTS; k++) t[k].settings = &weighs[k];
    serve(r, 3500, jobs, bytes, t);
    for (int k = 0; k < TENANTS; k++) {
        double service = (double)jobs[k] * (9000 + 4096) / weighs[k].weight;
        least = service < least ? service : least;
        most = service > most ? service : most;
    }
    cr_assert_leq(most - least, 13096 + 2 * 16384, "%u, %u and %u jobs", jobs[0], jobs[1], jobs[2]);
    serve(r, 9000 - 3500, jobs, bytes, t);
    cr_assert_eq(jobs[0], 3000, "the least of them is not left out");
    ready_fini(r);
    free(r);
}

/* What every tenant that waits in a level sees of the others' service, as long as it is not served
 * itself: a turn of theirs for each turn that its own job needs, and what they had left over. */
struct fairness {
    struct ready *r;
    struct tenant tenant[6];
    struct settings_tenant weighs[6];
    struct job *waiting[400];
    uint32_t n;
    int64_t seen[6][READY_LEVELS][6], dearest[6][READY_LEVELS]; /* of its heads meanwhile */
    uint64_t rng, id;
};
enum { TURN = 16384, DEAREST = 64 * TURN };

static int64_t price(const struct job *j) {
    return j->body.bytes < DEAREST - 4096 ? (int64_t)j->body.bytes + 4096 : DEAREST;
}

static uint32_t drawn(struct fairness *f, uint32_t below) {
    return (uint32_t)(rng_next(&f->rng) % below);
}

static void forget_service(struct fairness *f, ptrdiff_t t, uint32_t level) {
    memset(f->seen[t][level], 0, sizeof f->seen[t][level]);
    f->dearest[t][level] = 0;
}

static void one_comes(struct fairness *f) {
    uint32_t t = drawn(f, 6) % (1 + drawn(f, 6)), level = drawn(f, 3);
    struct job *j = job(++f->id, level, 0);
    j->tenant = &f->tenant[t];
    j->body.bytes = drawn(f, 4) ? drawn(f, 20000) : drawn(f, 2000000);
    cr_assert_eq(ready_add(f->r, j), 0);
    if (j->flow->head == j) forget_service(f, t, level);
    f->waiting[f->n++] = j;
}

static void one_goes(struct fairness *f, uint32_t i) {
    struct job *j = f->waiting[i];
    f->waiting[i] = f->waiting[--f->n];
    ready_drop(f->r, j);
    job_free(j);
}

static void one_is_served(struct fairness *f) {
    struct job *j = ready_head(&f->r->queue[0]);
    ptrdiff_t by = j->tenant - f->tenant;
    uint32_t level = j->priority, i = 0;
    cr_assert_eq((uint32_t)__builtin_ctz(f->r->queue[0].levels), level, "a lower level waits");
    for (const struct ready_flow *x = j->flow->next; x != j->flow; x = x->next) {
        ptrdiff_t t = x->tenant - f->tenant;
        int64_t *dearest = &f->dearest[t][level], turn = TURN * (int64_t)tenant_weight(x->tenant);
        if (price(x->head) > *dearest) *dearest = price(x->head);
        int64_t turns = *dearest / turn + 2;
        f->seen[t][level][by] += price(j);
        cr_assert_leq(f->seen[t][level][by],
                      turns * TURN * (int64_t)tenant_weight(j->tenant) + DEAREST,
                      "tenant %d waits for too much of %d", (int)t, (int)by);
    }
    forget_service(f, by, level);
    while (f->waiting[i] != j) i++;
    ready_serve(j);
    one_goes(f, i);
}

Test(broker_ready, nobody_who_waits_sees_more_of_the_others_than_their_weights_allow) {
    struct fairness *f = calloc(1, sizeof *f);
    f->r = calloc(1, sizeof *f->r);
    const char *given = getenv("PENSTOCK_SEED");
    f->rng = given ? strtoull(given, NULL, 10) : 20251124;
    for (int t = 0; t < 6; t++) f->tenant[t].settings = &f->weighs[t];
    for (uint32_t step = 0; step < 300000; step++) {
        if (step % 5000 == 0) { /* new settings */
            for (int t = 0; t < 6; t++) f->weighs[t].weight = 1 + drawn(f, drawn(f, 2) ? 3 : 40);
            memset(f->seen, 0, sizeof f->seen);
        }
        bool full = f->n == 400, empty = f->n == 0;
        uint32_t what = drawn(f, 20);
        if (!full && (empty || what < 9))
            one_comes(f);
        else if (what < 10)
            one_goes(f, drawn(f, f->n));
        else
            one_is_served(f);
    }
    while (f->n) one_is_served(f);
    ready_fini(f->r);
    free(f->r);
    free(f);
}

Test(broker_ready, among_many_tenants_nobody_starves_while_jobs_come_and_go) {
    enum { TENANTS = 1000, TURNS = 200000 };
    static struct tenant t[TENANTS];
    static uint32_t jobs[TENANTS];
    static uint64_t bytes[TENANTS];
    struct ready *r = calloc(1, sizeof *r);
    uint64_t rng = 3, id = 0;
    for (int k = 0; k < TENANTS; k++)
        for (int i = 0; i < 1 + k % 50; i++) wait_in(r, &t[k], ++id, 100);
    for (int i = 0; i < TURNS; i++) { /* the first tenant floods, everybody keeps something */
        struct job *j = ready_head(&r->queue[0]);
        struct tenant *of = j->tenant;
        serve(r, 1, jobs, bytes, t);
        wait_in(r, of, ++id, 100);
        if (rng_next(&rng) % 2) wait_in(r, &t[0], ++id, 100);
    }
    uint32_t least = UINT32_MAX, most = 0;
    for (int k = 0; k < TENANTS; k++) {
        least = jobs[k] < least ? jobs[k] : least;
        most = jobs[k] > most ? jobs[k] : most;
    }
    cr_assert(least >= 40, "the last one had %u turns", least);
    cr_assert(jobs[0] <= 5 * (uint32_t)(TURNS / TENANTS), "the flood had %u of %d", jobs[0], TURNS);
    while (ready_head(&r->queue[0])) serve(r, 1, jobs, bytes, t);
    ready_fini(r);
    free(r);
}

Test(broker_ready, too_many_kinds_of_queue_are_refused) {
    struct ready *r = calloc(1, sizeof *r);
    static struct pipeline_stage stage[READY_QUEUES + 1];
    static struct pipeline p[READY_QUEUES + 1];
    static char name[READY_QUEUES + 1][16];
    struct job *j[READY_QUEUES + 1];
    for (int i = 0; i <= READY_QUEUES; i++) {
        snprintf(name[i], sizeof name[i], "run.%d", i);
        stage[i] = (struct pipeline_stage){.name = "s", .run = name[i]};
        p[i] = (struct pipeline){.n_stages = 1, .stages = &stage[i]};
        j[i] = job_new(&p[i]);
        j[i]->tenant = &somebody;
        cr_assert_eq(ready_add(r, j[i]), i < READY_QUEUES ? 0 : ERR_LIMIT);
    }
    for (int i = 0; i <= READY_QUEUES; i++) job_free(j[i]);
    ready_fini(r);
    free(r);
}

Test(broker_ready, between_queues_priority_then_the_later_stage_then_age) {
    struct job *early = job(1, 4, 0), *late = job(9, 4, 2), *urgent = job(5, 0, 0),
               *older = job(2, 4, 2);
    cr_assert(ready_before(late, early), "what is nearly finished drains first");
    cr_assert(ready_before(urgent, late));
    cr_assert(ready_before(older, late) && !ready_before(late, older));
    job_free(early);
    job_free(late);
    job_free(urgent);
    job_free(older);
}

/* ---- table ---- */

Test(broker_table, it_finds_every_job_while_it_grows_and_shrinks) {
    enum { N = 20000 };
    static struct job *j[N];
    struct job_table t;
    uint64_t id = 0;
    cr_assert_eq(job_table_init(&t, N), 0);
    for (int i = 0; i < N; i++) {
        j[i] = job(id = job_id_next(id, i / 100), 0, 0);
        cr_assert_eq(job_table_insert(&t, j[i]), 0);
    }
    struct job *one_more = job(id + 1, 0, 0);
    cr_assert_eq(job_table_insert(&t, one_more), ERR_FULL);
    job_free(one_more);
    for (int i = 0; i < N; i += 2) {
        job_table_remove(&t, j[i]);
        job_table_remove(&t, j[i]);
    }
    cr_assert_eq(t.len, N / 2);
    for (int i = 0; i < N; i++) cr_assert_eq(job_table_find(&t, j[i]->id), i % 2 ? j[i] : NULL);
    for (int i = 0; i < N; i += 2) job_free(j[i]);
    job_table_fini(&t);
}

/* ---- workers ---- */

static struct worker *registered(struct workers *t, const char *session, const char *run,
                                 const char *model, uint64_t jobs, uint64_t bytes) {
    struct buf runs = {0}, models = {0};
    struct packer p = packer_of(&runs), q = packer_of(&models);
    pack_array(&p, 1);
    pack_str(&p, run);
    pack_array(&q, model ? 1 : 0);
    if (model) pack_str(&q, model);
    struct msg_register m = {.session = bytes_str(session),
                             .name = bytes_str("w"),
                             .runs = {buf_bytes(&runs), 1},
                             .models = {buf_bytes(&models), model ? 1 : 0},
                             .credit_jobs = jobs,
                             .credit_bytes = bytes};
    struct sock_peer peer = {.len = 1, .id = {1}};
    struct worker *w = NULL;
    int e = worker_register(t, &m, &peer, 0, &w);
    buf_fini(&runs);
    buf_fini(&models);
    return e ? NULL : w;
}

Test(broker_peer, credits_bound_leases_and_bytes_but_one_job_of_any_size_fits) {
    struct workers t;
    workers_init(&t);
    struct worker *w = registered(&t, "s", "test.a", NULL, 2, 100);
    struct job *a = job(1, 0, 0), *b = job(2, 0, 0);
    cr_assert(worker_has_credit(w, 5000), "nothing else would ever run it");
    worker_take(w, a, 60);
    cr_assert(worker_has_credit(w, 40) && !worker_has_credit(w, 41));
    worker_take(w, b, 40);
    cr_assert_not(worker_has_credit(w, 0));
    cr_assert(w->leases == 2 && w->bytes == 100);
    worker_give(a);
    worker_give(a);
    cr_assert(w->leases == 1 && w->bytes == 40 && w->first == b && !a->worker);
    worker_give(b);
    w->leaving = true;
    cr_assert_not(worker_has_credit(w, 0));
    job_free(a);
    job_free(b);
    workers_fini(&t);
}

Test(broker_peer, a_worker_runs_what_it_registered_with_the_models_it_has) {
    struct workers t;
    workers_init(&t);
    struct worker *with = registered(&t, "1", "test.b", "m", 1, 1);
    struct worker *without = registered(&t, "2", "test.b", NULL, 1, 1);
    struct job *j = job(1, 0, 1);
    cr_assert_eq(worker_span(with, j), 1);
    cr_assert_eq(worker_span(without, j), 0);
    j->stage = 0;
    cr_assert_eq(worker_span(with, j), 0);
    cr_assert(worker_can(without, "test.b", NULL));
    job_free(j);
    workers_fini(&t);
}

Test(broker_peer, a_session_that_registers_again_is_the_same_worker) {
    struct workers t;
    workers_init(&t);
    struct worker *w = registered(&t, "s", "test.a", NULL, 1, 1);
    cr_assert_eq(registered(&t, "s", "test.c", NULL, 5, 1), w);
    cr_assert(t.n == 1 && w->credit_jobs == 5 && worker_can(w, "test.c", NULL) &&
              !worker_can(w, "test.a", NULL));
    cr_assert_eq(worker_by_session(&t, bytes_str("s"), 0), w);
    cr_assert_null(worker_by_session(&t, bytes_str("S"), 0));
    workers_fini(&t);
}

Test(broker_peer, there_are_only_so_many_workers) {
    struct workers t;
    char session[16];
    workers_init(&t);
    for (unsigned i = 0; i < LIMIT_WORKERS; i++) {
        snprintf(session, sizeof session, "s%u", i);
        cr_assert_not_null(registered(&t, session, "test.a", NULL, 1, 1));
    }
    cr_assert_null(registered(&t, "one more", "test.a", NULL, 1, 1));
    worker_remove(&t, worker_by_session(&t, bytes_str("s7"), 0));
    cr_assert_not_null(registered(&t, "one more", "test.a", NULL, 1, 1));
    workers_fini(&t);
}

Test(broker_peer, silence_is_measured_from_the_last_time_a_worker_was_heard) {
    struct workers t;
    workers_init(&t);
    struct worker *w = registered(&t, "s", "test.a", NULL, 1, 1);
    worker_heard(&t, w, 1000, 500);
    cr_assert_null(due_late(&t.due, 1499));
    worker_heard(&t, w, 1400, 500);
    cr_assert_null(due_late(&t.due, 1899));
    cr_assert_eq(due_late(&t.due, 1900), &w->due);
    workers_fini(&t);
}

/* ---- watches ---- */

Test(broker_watch, waits_and_streams_are_bounded_found_and_dropped) {
    static struct watches t;
    struct sock_peer one = {.len = 1, .id = {1}}, two = {.len = 1, .id = {2}};
    struct job *j = job(1, 0, 0);
    watches_init(&t, 3);
    cr_assert_eq(watch_add(&t, j, WATCH_WAIT, &one, 5, 100), 0);
    cr_assert_eq(watch_add(&t, j, WATCH_EVENTS, &one, 6, 0), 0);
    cr_assert_eq(watch_add(&t, j, WATCH_EVENTS, &two, 6, 0), 0);
    cr_assert_eq(watch_add(&t, j, WATCH_EVENTS, &two, 7, 0), ERR_FULL);
    cr_assert_eq(t.due.len, 1, "only a wait has a time");
    cr_assert_eq(watch_find(&t, &one, 5)->type, WATCH_WAIT, "a wait is found too");
    struct watch *w = watch_find(&t, &two, 6);
    cr_assert(w && sock_peer_eq(&w->peer, &two));
    watch_drop(&t, w);
    cr_assert_null(watch_find(&t, &two, 6));
    cr_assert_not_null(watch_find(&t, &one, 6));
    watches_fini(&t);
    cr_assert(t.n == 0 && t.due.len == 0 && !j->watches);
    job_free(j);
}

Test(broker_watch, one_client_leaves_room_for_the_others) {
    static struct watches t;
    struct sock_peer one = {.len = 1, .id = {1}}, two = {.len = 1, .id = {2}};
    struct job *j = job(1, 0, 0);
    watches_init(&t, 2 * LIMIT_PEER_WATCHES);
    for (uint64_t i = 0; i < LIMIT_PEER_WATCHES; i++)
        cr_assert_eq(watch_add(&t, j, i % 2 ? WATCH_WAIT : WATCH_EVENTS, &one, i, 100), 0);
    cr_assert_eq(watch_add(&t, j, WATCH_WAIT, &one, 999, 100), ERR_LIMIT);
    cr_assert_eq(watch_add(&t, j, WATCH_WAIT, &two, 999, 100), 0);
    watch_drop(&t, watch_find(&t, &one, 0));
    cr_assert_eq(watch_add(&t, j, WATCH_EVENTS, &one, 999, 0), 0);
    watches_fini(&t);
    job_free(j);
}
