#include "tests/sim/world.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "broker/verdicts.h"

enum { KILLED = 1, ENDED = 2, PATIENCE_MS = 600000 };

struct world *W;

uint64_t draw(uint64_t below) {
    return below ? rng_next(&W->rng) % below : 0;
}
bool toss(uint32_t in_thousand) {
    return draw(1000) < in_thousand;
}
bool chance(uint32_t in_thousand) {
    return W->faults && toss(in_thousand);
}

const char *sim_name(uint64_t job) {
    static char text[JOB_ID_CHARS + 1];
    job_id_text(job, text);
    return text;
}

void world_broken(const char *what, const char *format, ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fprintf(stderr, "broken: %s: %s\n  world %llu, step %llu: run with WORLD=%llu\n", what, text,
            (unsigned long long)W->seed, (unsigned long long)W->steps, (unsigned long long)W->seed);
    abort();
}

/* ---- the broker's life ---- */

/* Other settings, as if somebody had written the file anew. */
static void settle(void) {
    uint32_t n = 0;
    char err[512];
    struct settings *s;
    while (W->settings[n]) n++;
    uint64_t which = W->rush ? n - 1 : draw(n);
    if (!W->play && !W->rush && toss(300)) which = n;
    CHECK(settings_load(&s, W->settings[which], err, sizeof err) == 0, "%s", err);
    CHECK(load_settle(W->b, s) == 0, "out of memory");
    tenants_settled(s);
    memset(&W->counts, 0xFF, sizeof W->counts); /* what is there may be more than is allowed now */
}

/* The pipeline files of one folder or another, as if somebody had edited them. */
static void edit_pipelines(void) {
    struct pipelines fresh = {0};
    const struct pipeline *p;
    char err[256];
    uint32_t n = 0;
    while (W->folders[n].n) n++;
    const struct pipelines *from = &W->folders[toss(700) ? 0 : draw(n)];
    for (uint32_t i = 0; i < from->n; i++) {
        int e = pipeline_from_plan(&fresh, from->items[i]->plan, &p, err, sizeof err);
        CHECK(e == 0 && fresh.n == i + 1, "a plan is not the pipeline that it came from");
        fresh.items[i]->retired = false;
    }
    CHECK(versions_settle(W->b, &fresh) == 0, "out of memory");
    W->edited_id = W->b->last_id;
}

static bool was_a_file(const struct pipeline *p) {
    for (const struct pipelines *f = W->folders; f->n; f++)
        for (uint32_t i = 0; i < f->n; i++)
            if (bytes_eq(f->items[i]->plan, p->plan)) return true;
    return false;
}

static void broker_start(void) {
    struct broker *b = W->b = calloc(1, sizeof *b);
    char err[256];
    CHECK(b, "out of memory");
    W->disk.epoch++;
    W->disk.poisoned = false;
    b->config = (struct config){.lease_ms = LEASE_MS,
                                .heartbeat_ms = BEAT_MS,
                                .queue_max = 150,
                                .upload_ttl_ms = UPLOAD_TTL_MS};
    b->config.bodies_bytes = toss(500) ? 0 : UINT32_MAX;
    b->config.retain_ms = W->keep.retain_ms;
    b->config.retain_failed_ms = W->keep.retain_failed_ms;
    b->config.retain_bytes = W->keep.retain_bytes;
    if (W->rush) b->config.queue_max = 500;
    W->before = (struct before){.user = USERS};
    W->chosen_seq = 0;
    b->started_ms = b->now_ms = W->mono_ms;
    b->now_wall_ms = W->wall_ms;
    due_init(&b->leases, LIMIT_WORKERS * LIMIT_SPAN_JOBS);
    due_init(&b->delays, LIMIT_JOBS_QUEUED);
    due_init(&b->expiries, LIMIT_JOBS_QUEUED);
    watches_init(&b->watches, 64);
    workers_init(&b->peers);
    b->payload.max_bytes = LIMIT_BODY_BYTES + LIMIT_OUTPUT_BYTES;
    CHECK(job_table_init(&b->jobs, LIMIT_JOBS_QUEUED) == 0, "out of memory");
    CHECK(owed_init(&b->owed, 16) == 0, "out of memory");
    if (!W->play) tenants_keys(b);
    b->settings_fd = b->versions.fd = -1;
    settle();
    edit_pipelines();
    CHECK(recover(b, err, sizeof err) == 0, "%s", err);
    W->edited_id = b->last_id;
    for (uint32_t i = b->n_loaded; i < b->pipelines.n; i++)
        CHECK(was_a_file(b->pipelines.items[i]), "a version that never was");
    CHECK(committer_start(&b->committer, NULL) == 0, "the store thread");
    b->clients = &W->clients_sock;
    b->workers = &W->workers_sock;
}

static void drop_list(struct commit_list *l) {
    for (struct commit_op *op = l->first, *next; op; op = next) {
        next = op->next;
        commit_op_free(op);
    }
}

/* Everything in its memory is gone; the disk stays as it is. */
static void broker_drop(void) {
    struct broker *b = W->b;
    drop_list(&b->outbox);
    drop_list(&b->retries);
    drop_list(&b->no_room);
    net_drop_store();
    committer_stop(b->committer);
    verdicts_fini(b);
    watches_fini(&b->watches);
    uploads_fini(&b->uploads);
    streams_fini(&b->streams);
    owed_fini(&b->owed);
    packs_fini(&b->packs);
    ready_fini(&b->ready);
    job_table_fini(&b->jobs);
    load_fini(&b->load);
    versions_close(b);
    tenants_fini(&b->tenants);
    workers_fini(&b->peers);
    due_fini(&b->leases);
    due_fini(&b->delays);
    due_fini(&b->expiries);
    buf_fini(&b->scratch);
    buf_fini(&b->payload);
    buf_fini(&b->plan.packed);
    free(b);
    W->b = NULL;
    net_reset();
}

/* Called while the broker sleeps: kill -9 and the end of the world leave by longjmp. */
void world_fate(void) {
    if (chance(W->rush ? 1 : 6)) {
        W->kills++;
        if (toss(500)) net_run_store((uint32_t)draw(40)); /* committed and never answered */
        longjmp(W->crash, KILLED);
    }
    if (chance(1)) {
        W->drains++;
        W->signalled = true;
    }
    if (chance(W->rush ? 1 : 4)) settle();
    if (chance(4)) edit_pipelines();
    if (W->faults && W->submitted >= W->jobs_wanted && toss(5)) {
        W->faults = false;
        actors_heal();
    }
    if (!W->faults && W->b->jobs.len == 0 && W->b->uploads.n == 0 && !W->b->outbox.first &&
        !W->b->retries.first && !W->b->no_room.first && commit_outstanding(W->b->committer) == 0 &&
        !W->b->draining && follow_done())
        longjmp(W->crash, ENDED);
    CHECK(W->mono_ms < PATIENCE_MS, "%u jobs do not end", W->b->jobs.len);
}

static void check_nothing_left(void) {
    const struct broker *b = W->b;
    CHECK(b->ready.jobs == 0 && b->handed_bytes == 0 && b->watches.n == 0, "something is left");
    CHECK(b->coming.blob_bytes == 0, "room is kept for no commit");
    CHECK(b->commit_bytes == 0, "bytes are counted that no commit holds");
    CHECK(b->leases.len == 0 && b->delays.len == 0 && b->expiries.len == 0, "a timer is left");
    for (const struct tenant *t = b->tenants.first; t; t = t->next)
        for (const struct source *s = t->sources; s; s = s->next)
            CHECK(s->dropped ==
                          W->disk
                              .sieve[sim_tenant(bytes_str(t->name))][sim_source(bytes_str(s->name))]
                              .dropped &&
                      !s->oldest,
                  "source %s counts otherwise than the disk", s->name);
    for (uint32_t i = 0; i < b->n_loaded; i++)
        CHECK(b->load.pipeline[i].jobs == 0, "a count is left");
}

void world_kill(void) {
    longjmp(W->crash, KILLED);
}

void world_end(void) {
    longjmp(W->crash, ENDED);
}

static void world_init(const char *const *settings, const struct pipelines *folders) {
    W = calloc(1, sizeof *W);
    if (!W || !(W->lane = calloc(READY_QUEUES, sizeof *W->lane))) abort();
    W->settings = settings;
    W->folders = folders;
    W->workers_sock.to_workers = true;
    W->wall_ms = WALL_BEGIN_MS;
}

static void world_fini(void) {
    free(W->lane);
    free(W->told);
    net_fini();
    disk_fini();
    free(W);
    W = NULL;
}

void world_play(const struct pipelines *folder, void (*play)(void)) {
    static const char *const settings[] = {NULL};
    struct pipelines folders[] = {*folder, {.n = 0}};
    world_init(settings, folders);
    W->play = play;
    volatile bool over = false;
    while (!over) {
        broker_start();
        int fate = setjmp(W->crash);
        if (fate == 0) loop_run(W->b, -1);
        over = fate == ENDED;
        broker_drop();
    }
    world_fini();
}

void world_run(uint64_t seed, uint32_t jobs, const struct pipelines *folders,
               const char *const *settings, struct totals *sum) {
    world_init(settings, folders);
    struct world *w = W;
    w->seed = w->rng = seed;
    w->faults = true;
    w->jobs_wanted = jobs;
    w->rush = toss(150);
    if (toss(500)) w->keep.retain_ms = 500 + (int64_t)draw(5000);
    if (toss(500)) w->keep.retain_failed_ms = 500 + (int64_t)draw(5000);
    if (toss(500)) w->keep.retain_bytes = 20000 + draw(100000);
    for (uint32_t i = 0; i < CLIENTS; i++) w->clients[i].conn = UINT32_MAX;
    tenants_begin();
    volatile bool over = false;
    while (!over) {
        broker_start();
        int fate = setjmp(w->crash);
        if (fate == 0) loop_run(w->b, -1); /* returns when it has drained */
        if (fate == ENDED) {
            over = true;
            check_nothing_left();
        }
        broker_drop();
    }
    oracle_end();
    for (int s = JOB_DONE; s < JOB_STATES; s++) sum->ends[s] += w->ends[s], sum->jobs += w->ends[s];
    sum->steps += w->steps;
    sum->kills += w->kills;
    sum->drains += w->drains;
    sum->disk_failures += w->disk_failures;
    sum->stale += w->stale;
    sum->dropped += w->dropped;
    sum->sampled += w->sampled;
    sum->uploads += w->uploads;
    sum->outlived += w->outlived;
    sum->contested += w->contested;
    sum->deleted += w->deleted;
    sum->followed += w->followed;
    sum->gaps += w->gaps;
    sum->many += w->many;
    world_fini();
}
