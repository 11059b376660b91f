/* The broker's memory, between two turns: everything that it counts and links, counted anew. */
#include <string.h>

#include "tests/sim/world.h"

struct sums {
    const struct broker *b;
    uint64_t handed, delays, expiries, leases;
    uint32_t queued[LIMIT_PIPELINES], ready, watches;
    struct counts all, counts;
    struct {
        uint64_t ready, leased, delayed, bytes;
    } row[TALLY_ROWS];
};

/* The job counts as one, and at its stages: where it is, and where its lease may take it. */
static void count_in(struct counts *c, const struct broker *b, const struct job *j) {
    uint32_t to = j->stage + 1 + (j->state == JOB_LEASED ? j->span : 0);
    uint32_t t = sim_tenant(bytes_str(j->tenant->name));
    c->tenant[t].jobs++;
    c->tenant[t].of_jobs += j->body.bytes;
    if (!j->parent) {
        c->tenant[t].submitted++;
        c->tenant[t].of_submitted += j->body.bytes;
        c->level[j->priority]++;
    }
    if (j->seat) c->tenant[t].of_source[sim_source(bytes_str(j->seat->source->name))]++;
    if (job_state_terminal(j->state) && !j->leaving) return;
    for (uint32_t i = 0; i < b->load.caps.n; i++)
        for (uint32_t k = j->stage; k < to && k < j->n_stages; k++)
            if (strcmp(b->load.caps.cap[i].stage->run, j->pipeline->stages[k].run) == 0) {
                c->at_stage[i][k]++;
                c->bytes[i][k] += j->body.bytes;
            }
}

/* The tally, counted anew. */
static void check_tally(struct sums *s, const struct job *j) {
    const char *id = sim_name(j->id);
    bool waits =
        !job_state_terminal(j->state) && j->state != JOB_ACCEPTED && j->state != JOB_WAITING;
    CHECK(waits == (j->tally_row != 0), "%s: %s and %scounted", id, job_state_name(j->state),
          j->tally_row ? "" : "not ");
    if (!waits) return;
    uint32_t i = j->tally_row - 1u;
    const struct tally_row *row = &s->b->tally.row[i];
    CHECK(strcmp(row->pipeline, j->pipeline->name) == 0 && row->index == j->stage,
          "%s is counted at %s/%u", id, row->pipeline, row->index);
    s->row[i].ready += j->state == JOB_READY;
    s->row[i].leased += j->state == JOB_LEASED;
    s->row[i].delayed += j->state == JOB_DELAYED;
    s->row[i].bytes += j->body.bytes;
}

/* A parent waits for exactly those children that have not ended; none outlives its parent. */
static void check_family(const struct broker *b, const struct job *j) {
    const struct job *parent = j->parent ? job_table_find(&b->jobs, j->parent) : NULL;
    uint32_t n = 0;
    for (uint32_t i = 0; i < j->n_children; i++)
        n += job_table_find(&b->jobs, j->first_child + i) != NULL;
    if (j->state == JOB_WAITING)
        CHECK(n == j->n_expected && (n > 0 || j->commits > 0), "%s waits for %u of %u children",
              sim_name(j->id), j->n_expected, n);
    else if (!job_state_terminal(j->state))
        CHECK(n == 0, "%s goes on before its children have ended", sim_name(j->id));
    bool over = job_state_terminal(j->state) || j->state == JOB_ACCEPTED;
    if (j->parent && (!parent || job_state_terminal(parent->state)))
        CHECK(over, "%s is %s, and its parent has ended", sim_name(j->id),
              job_state_name(j->state));
}

/* A job runs what it was accepted with; who came after the files changed runs what they say now,
 * and so does a part unless its pipeline is gone. */
static void check_version(const struct broker *b, const struct job *j) {
    const struct cell *c = disk_cell(j->id);
    uint32_t i = 0;
    if (c && c->record.len)
        CHECK(j->pipeline->version == c->version, "%s runs another version of %s", sim_name(j->id),
              j->pipeline->name);
    while (i < b->pipelines.n && b->pipelines.items[i] != j->pipeline) i++;
    CHECK(i < b->pipelines.n, "%s runs what is not there any more", sim_name(j->id));
    if (j->id <= W->edited_id || i < b->n_loaded) return;
    bool gone = true;
    for (uint32_t k = 0; k < b->n_loaded; k++)
        gone &= strcmp(b->pipelines.items[k]->name, j->pipeline->name) != 0;
    CHECK(j->parent && gone, "%s was accepted with a version of %s that was retired",
          sim_name(j->id), j->pipeline->name);
}

static void check_job(void *arg, struct job *j) {
    struct sums *s = arg;
    const char *id = sim_name(j->id);
    CHECK((j->state == JOB_LEASED) == (j->worker != NULL), "%s: %s, worker %p", id,
          job_state_name(j->state), (void *)j->worker);
    CHECK((j->state == JOB_LEASED) == (j->lease_due.slot != 0), "%s: lease timer", id);
    CHECK((j->state == JOB_DELAYED) == (j->delay_due.slot != 0), "%s: delay timer", id);
    CHECK((j->flow != NULL) == (j->state == JOB_READY && j->commits == 0),
          "%s: %s with %u commits is %squeued", id, job_state_name(j->state), j->commits,
          j->flow ? "" : "not ");
    if (job_state_terminal(j->state) || j->state == JOB_ACCEPTED)
        CHECK(j->commits > 0, "%s: %s and no commit is pending", id, job_state_name(j->state));
    if (job_state_terminal(j->state)) CHECK(!j->expiry_due.slot, "%s: expiry timer", id);
    CHECK(j->stage < j->n_stages && j->durable_stage <= j->stage, "%s: stage %u", id, j->stage);
    if (j->state == JOB_LEASED) CHECK(j->span >= 1, "%s: span", id);
    check_family(s->b, j);
    check_version(s->b, j);
    if (j->in_memory) CHECK(j->handed.len > 0 && j->stage > 0, "%s: handed", id);
    check_tally(s, j);
    s->handed += j->handed.len;
    s->delays += j->delay_due.slot != 0;
    s->expiries += j->expiry_due.slot != 0;
    s->leases += j->lease_due.slot != 0;
    s->ready += j->flow != NULL;
    for (const struct watch *w = j->watches; w; w = w->next) s->watches++;
    for (uint32_t i = 0; i < s->b->n_loaded; i++)
        if (strcmp(s->b->pipelines.items[i]->name, j->pipeline->name) == 0) s->queued[i]++;
    count_in(&s->all, s->b, j);
    if (!j->leaving) count_in(&s->counts, s->b, j); /* else another one has its place */
}

/* The counts are those of the jobs, and none passes its limit, but for a restart or new settings:
 * then it goes down. */
static void check_load(const struct broker *b, const struct sums *s) {
    const struct load *l = &b->load;
    const struct counts *all = &s->all, *now = &s->counts, *was = &W->counts;
    CHECK(l->all.jobs == b->jobs.len, "live jobs");
    for (uint32_t i = 0; i < b->n_loaded; i++)
        CHECK(l->pipeline[i].jobs == s->queued[i], "jobs of a pipeline");
    for (const struct tenant *t = b->tenants.first; t; t = t->next) {
        const struct settings_bounds *most = &t->settings->bounds;
        uint32_t k = sim_tenant(bytes_str(t->name)), jobs = now->tenant[k].submitted;
        uint64_t bytes = now->tenant[k].of_submitted;
        CHECK(t->live.jobs == all->tenant[k].jobs && t->live.bytes == all->tenant[k].of_jobs,
              "jobs of %s", t->name);
        CHECK(!most->jobs_max || jobs <= most->jobs_max || jobs <= was->tenant[k].submitted,
              "tenant %s has %u jobs", t->name, jobs);
        CHECK(!most->bytes_max || bytes <= most->bytes_max || bytes <= was->tenant[k].of_submitted,
              "tenant %s has %llu bytes", t->name, (unsigned long long)bytes);
        for (const struct source *x = t->sources; x; x = x->next) {
            uint32_t i = sim_source(bytes_str(x->name)), depth = x->settings->depth;
            uint32_t n = now->tenant[k].of_source[i];
            CHECK(x->live.jobs == all->tenant[k].of_source[i], "jobs of source %s", x->name);
            CHECK(!depth || n <= depth || n <= was->tenant[k].of_source[i], "source %s has %u jobs",
                  x->name, n);
        }
    }
    for (uint32_t i = 0; i < SETTINGS_LEVELS; i++) {
        uint32_t max = l->settings->levels[i].bounds.jobs_max;
        CHECK(l->level[i].jobs == all->level[i], "jobs of level %u", i);
        CHECK(!max || now->level[i] <= max || now->level[i] <= was->level[i],
              "level %u has %u jobs", i, now->level[i]);
    }
    for (uint32_t i = 0; i < l->caps.n; i++)
        for (uint32_t k = 0; k < STAGES_MAX; k++) {
            const struct cap *cap = &l->caps.cap[i];
            const struct settings_bounds *most = &cap->stage->bounds;
            uint32_t n = now->at_stage[i][k];
            uint64_t bytes = now->bytes[i][k];
            CHECK(cap->at[k].jobs == all->at_stage[i][k] && cap->at[k].bytes == all->bytes[i][k],
                  "%s counts %u jobs and has %u", cap->stage->run, cap->at[k].jobs,
                  all->at_stage[i][k]);
            CHECK(!most->jobs_max || n <= most->jobs_max || n <= was->at_stage[i][k],
                  "%s has %u jobs", cap->stage->run, n);
            CHECK(!most->bytes_max || n <= 1 || bytes <= most->bytes_max ||
                      bytes <= was->bytes[i][k],
                  "%s has %llu bytes", cap->stage->run, (unsigned long long)bytes);
        }
    W->counts = *all;
}

void oracle_broker(const struct broker *b) {
    if (W->steps++ % 4) return;
    struct sums s = {.b = b};
    job_table_each(&b->jobs, check_job, &s);
    CHECK(s.handed == b->handed_bytes, "handed bytes");
    CHECK(s.delays == b->delays.len && s.expiries == b->expiries.len && s.leases == b->leases.len,
          "a timer without a job");
    CHECK(s.ready == b->ready.jobs, "queued jobs");
    for (uint32_t i = 0; i < b->tally.n; i++) {
        const struct tally_row *t = &b->tally.row[i];
        CHECK(t->ready == s.row[i].ready && t->leased == s.row[i].leased &&
                  t->delayed == s.row[i].delayed && t->bytes == s.row[i].bytes &&
                  t->in - t->out == t->ready + t->leased + t->delayed,
              "the tally of %s/%s", t->pipeline, t->stage);
    }
    CHECK(s.watches == b->watches.n, "watches");
    check_load(b, &s);
    uint64_t leases = 0;
    for (const struct worker *w = b->peers.first; w; w = w->next) {
        uint32_t n = 0;
        uint64_t bytes = 0;
        for (const struct job *j = w->first; j; j = j->lease_next) {
            CHECK(j->worker == w && j->state == JOB_LEASED, "a lease of somebody else");
            CHECK(j->deaths == 0 || w->leases == 1, "%s is not alone after %u deaths",
                  sim_name(j->id), j->deaths);
            n++;
            bytes += j->lease_bytes;
        }
        CHECK(n == w->leases && bytes == w->bytes && n <= w->credit_jobs, "credits: %u of %u", n,
              w->credit_jobs);
        CHECK(w->due.slot, "a worker that can never be lost");
        leases += n;
    }
    CHECK(leases == s.leases, "leases");
}
