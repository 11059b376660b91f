/* Several tenants: who speaks for whom, that nobody hears of another's jobs, that each gets its
 * share of the workers, and that no quota is passed. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "schemas/pack.h"
#include "tests/sim/world.h"

static const char *const names[TENANTS] = {TENANT_DEFAULT, "ada", "bob", "cyd"};
/* Clients 0 to 3 speak for these; the last one is an operator too. */
static const uint32_t tenant_of_client[CLIENTS] = {1, 2, 2, 3};

uint32_t sim_tenant(struct bytes tenant) {
    for (uint32_t i = 0; i < TENANTS; i++)
        if (bytes_is(tenant, names[i])) return i;
    world_broken("a tenant", "%.*s is none", (int)tenant.len, (const char *)tenant.data);
}

const char *sim_tenant_name(uint32_t tenant) {
    return names[tenant];
}

void tenants_begin(void) {
    for (uint32_t i = 0; i < CLIENTS; i++) {
        W->clients[i].tenant = tenant_of_client[i];
        W->clients[i].admin = i + 1 == CLIENTS;
        W->clients[i].following.wants = toss(400);
        W->clients[i].following.results = toss(500);
        W->clients[i].following.only_one = toss(300);
    }
}

/* A key a tenant, one for the operator, one for the workers: by their numbers. */
void tenants_keys(struct broker *b) {
    struct auth_key *keys = W->keys;
    for (uint32_t i = 0; i < USERS; i++) {
        const char *of = i < TENANTS ? names[i] : "cyd";
        keys[i] = (struct auth_key){.user = LIMIT_PEER_KEYS + i,
                                    .tenant = tenant_get(&b->tenants, bytes_str(of))};
        CHECK(keys[i].tenant, "out of memory");
        keys[i].cert.rights = i == USER_WORKER ? CERT_WORKER : CERT_SUBMIT | CERT_READ;
        if (i == USER_ADMIN) keys[i].cert.rights |= CERT_ADMIN;
        strcpy(keys[i].cert.stages, "*");
    }
    b->auth.on = true;
    b->auth.keys = keys;
}

/* ---- nobody hears of another's jobs ---- */

static void check_seen(const struct conn *to, uint64_t job) {
    const struct cell *c = disk_cell(job);
    if (to->user == USER_ADMIN || !c || !c->known) return;
    CHECK(to->user == c->tenant, "%s of %s is shown to %s", sim_name(job), names[c->tenant],
          names[to->user]);
}

static void check_list(const struct conn *to, struct bytes list, const char *key) {
    struct pack_doc *d;
    char err[256] = "";
    uint64_t job;
    CHECK(pack_parse(&d, list, err, sizeof err) == 0, "%s", err);
    const struct pack_val *root = pack_root(d);
    const struct pack_val *own = pack_get(root, key);
    if (own && job_id_parse(pack_as_bytes(own), &job) == 0) check_seen(to, job);
    for (uint32_t i = 0; !own && i < pack_len(root); i++)
        if (job_id_parse(pack_as_bytes(pack_get(pack_at(root, i), key)), &job) == 0)
            check_seen(to, job);
    pack_free(d);
}

/* Whatever names a job, to a client. */
void tenants_sent(const struct conn *to, enum msg_type type, const void *header) {
    if (!W->b->auth.on || to->to_workers) return;
    switch ((int)type) {
    case MSG_ACCEPTED: check_seen(to, ((const struct msg_accepted *)header)->job); break;
    case MSG_RESULT: check_seen(to, ((const struct msg_result *)header)->job); break;
    case MSG_STATE: check_seen(to, ((const struct msg_state *)header)->job); break;
    case MSG_EVENT: check_seen(to, ((const struct msg_event *)header)->job); break;
    case MSG_ENDED: check_seen(to, ((const struct msg_ended *)header)->job); break;
    case MSG_ACCEPTED_MANY:
        check_list(to, ((const struct msg_accepted_many *)header)->jobs, "job");
        break;
    case MSG_JOBS: check_list(to, ((const struct msg_jobs *)header)->jobs, "job"); break;
    case MSG_JOB: check_list(to, ((const struct msg_job *)header)->job, "job"); break;
    default: break;
    }
}

/* ---- quotas ---- */

/* What a tenant may have accepted at once, at most, from now on. */
void tenants_settled(const struct settings *s) {
    for (uint32_t i = 0; i < TENANTS; i++)
        W->bucket[i] = (struct bucket){settings_tenant(s, names[i])->burst, W->mono_ms};
    for (uint32_t q = 0; q < READY_QUEUES; q++)
        for (uint32_t l = 0; l < READY_LEVELS; l++) memset(W->lane[q][l].on, 0, TENANTS);
}

static bool somebody_leaves(const struct broker *b) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < SETTINGS_LEVELS; i++) n += b->load.leaving[i];
    for (const struct tenant *t = b->tenants.first; t; t = t->next)
        for (const struct source *s = t->sources; s; s = s->next) n += s->leaving;
    return n > 0;
}

static void check_rate(const struct settings_tenant *s, struct bucket *k, uint32_t jobs) {
    if (s->rate_per_s <= 0) return;
    k->level += s->rate_per_s * (double)(W->mono_ms - k->at_ms) / 1000;
    if (k->level > s->burst) k->level = s->burst;
    k->level -= jobs;
    k->at_ms = W->mono_ms;
    CHECK(k->level > -1e-6, "%s has %u jobs accepted faster than %g a second", s->name, jobs,
          s->rate_per_s);
}

/* A client's message was handled: are there jobs now beyond its tenant's quotas? Parts count. */
static void check_quota(const struct broker *b) {
    uint32_t jobs = b->jobs.len - W->before.jobs;
    if (b->jobs.len <= W->before.jobs || W->before.user == USERS) return;
    const struct tenant *t = W->keys[W->before.user].tenant;
    const struct settings_bounds *most = &t->settings->bounds;
    if (W->before.user != USER_ADMIN) /* who may queue the dead letters of others again */
        check_rate(t->settings, &W->bucket[sim_tenant(bytes_str(t->name))], jobs);
    if (W->before.user == USER_ADMIN || somebody_leaves(b)) return;
    CHECK(!most->jobs_max || t->live.jobs <= most->jobs_max, "%s has %u jobs", t->name,
          t->live.jobs);
    uint64_t bytes = t->live.bytes + t->upload_bytes;
    CHECK(!most->bytes_max || bytes <= most->bytes_max || bytes <= W->before.bytes,
          "%s has %llu bytes", t->name, (unsigned long long)bytes);
}

/* Before the broker takes a message, and when it asks for the next: user of that message's sender,
 * USERS for none or a worker's. */
void tenants_message(uint32_t user) {
    const struct broker *b = W->b;
    if (!b->auth.on) return;
    check_quota(b);
    W->before = (struct before){.user = user, .jobs = b->jobs.len};
    if (user == USERS) return;
    const struct tenant *t = W->keys[user].tenant;
    W->before.bytes = t->live.bytes + t->upload_bytes;
}

/* ---- fair share ---- */

/* While several tenants wait in one level of one queue, each is served by its weight: what they
 * were served since both wait differs by no more than two turns and two jobs. A flow is known to
 * have waited all the while when its last job of before is still in it. New weights hold from the
 * next turn on: what is left of one that has begun comes on top. */
static double cost_of(const struct job *j) {
    uint64_t bytes = j->body.bytes;
    if (j->stage && j->stages) bytes += j->stages[j->stage - 1].output_bytes;
    return 4096 + (double)bytes;
}

static void look_at(struct lane *lane, const struct ready_flow *f, uint32_t i) {
    const struct job *last = job_table_find(&W->b->jobs, lane->last[i]);
    if (!lane->on[i] || !last || last->flow != f) {
        lane->begun[i] = (double)f->deficit / tenant_weight(f->tenant);
        for (uint32_t k = 0; k < TENANTS; k++) {
            lane->since[i][k] = lane->served[i];
            lane->since[k][i] = lane->served[k];
        }
    }
    lane->on[i] = 1;
    lane->last[i] = f->tail->id;
}

static void leased(const struct job *j) {
    const struct ready_flow *f = j->flow, *g = f;
    if (!W->b->auth.on) return;
    CHECK(f && f->head == j, "%s is leased before its turn", sim_name(j->id));
    struct lane *lane = &W->lane[f->queue - W->b->ready.queue][f->level];
    uint8_t here[TENANTS] = {0};
    do {
        uint32_t i = sim_tenant(bytes_str(g->tenant->name));
        look_at(lane, g, i);
        here[i] = 1;
    } while ((g = g->next) != f);
    uint32_t me = sim_tenant(bytes_str(j->tenant->name));
    double cost = cost_of(j), most;
    if (cost > W->cost_max) W->cost_max = cost;
    most = 16384 + fmax(16384, lane->begun[me]) + 2 * W->cost_max;
    lane->served[me] += cost / settings_tenant(W->b->load.settings, j->tenant->name)->weight;
    for (uint32_t k = 0; k < TENANTS; k++) {
        lane->on[k] &= here[k];
        if (k == me || !lane->on[k]) continue;
        double ahead =
            lane->served[me] - lane->since[me][k] - (lane->served[k] - lane->since[k][me]);
        CHECK(ahead <= most, "%s is %.0f bytes behind its share beside %s", names[k], ahead,
              names[me]);
        W->contested++;
    }
    if (f->head == f->tail) lane->on[me] = 0;
}

/* The job is chosen, and still in its queue. */
void __real_ready_serve(struct job *j);
void __wrap_ready_serve(struct job *j);
void __wrap_ready_serve(struct job *j) {
    leased(j);
    __real_ready_serve(j);
}
