/* The clients and workers: they do what real ones do, and everything that real ones might. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "schemas/pack.h"
#include "tests/sim/world.h"

static bool connected(uint32_t conn) {
    return conn < W->n_conns && W->conns[conn].open;
}

static void say(uint32_t conn, enum msg_type type, const void *header) {
    net_send(conn, type, header, NULL, 0);
}

/* ---- clients ---- */

static const char *const pipeline_names[] = {"one", "chain", "late", "fan", "fan.some"};

const char *const sim_source_names[SOURCES] = {"yard", "gate", "belt"};

uint32_t sim_source(struct bytes name) {
    for (uint32_t i = 0; i < SOURCES; i++)
        if (bytes_is(name, sim_source_names[i])) return i;
    world_broken("a source", "%.*s is none", (int)name.len, (const char *)name.data);
}

void actors_body(struct packer *p, uint64_t n, size_t padding) {
    static char xs[3000];
    char text[32];
    memset(xs, 'x', sizeof xs);
    snprintf(text, sizeof text, "text %llu", (unsigned long long)n);
    pack_map(p, 1);
    pack_str(p, "texts");
    pack_array(p, 2);
    pack_str(p, text);
    pack_strn(p, bytes_of(xs, padding));
}

static void pack_body(struct packer *p, uint64_t n) {
    actors_body(p, n, n % 7 ? n % 100 : 1500);
}

static uint64_t body_of(const struct client *c, uint64_t req, int key) {
    return key >= 0 ? (uint64_t)key : req + (uint64_t)(c - W->clients) * 1000000;
}

static const char *pipeline_for(uint64_t n) {
    return W->rush ? "late" : pipeline_names[n % 5];
}

static uint64_t some_priority(void) {
    return W->rush ? 5 : draw(10);
}

/* Of an accepted one; 0: none. */
static uint64_t job_of_key(uint32_t tenant, struct bytes key) {
    uint64_t id;
    int e = jobs_by_key(NULL, bytes_str(sim_tenant_name(tenant)), key, &id);
    return e == 0 && disk_cell(id)->accepted ? id : 0;
}

/* A key that is known is no new job: no quota, source or level stands in its way. */
static void check_refused(const struct client *c, const struct request_out *o,
                          const struct packet *p) {
    struct msg_refused m;
    struct refusal why;
    char key[16];
    snprintf(key, sizeof key, "key-%d", o->key);
    if (!o->known || o->known != job_of_key(c->tenant, bytes_str(key))) return;
    CHECK(msg_decode(msg_desc(MSG_REFUSED), p->frame[1], &m, &why) == 0, "%s", why.message);
    CHECK(!bytes_is(m.code, "full") && !bytes_is(m.code, "sampled"), "%s is known: %.*s", key,
          (int)m.message.len, (const char *)m.message.data);
}

static void send_submit(struct client *c, struct request_out *o) {
    struct buf body = {0};
    struct packer p = packer_of(&body);
    char key[16];
    uint64_t n = body_of(c, o->req, o->key);
    snprintf(key, sizeof key, "key-%d", o->key);
    pack_body(&p, n);
    struct msg_submit m = {.req = o->req,
                           .kind = bytes_str("text.embed"),
                           .pipeline = bytes_str(pipeline_for(n)),
                           .priority = some_priority()};
    if (o->key >= 0) m.key = bytes_str(key);
    if (!W->rush && toss(600)) m.source = bytes_str(sim_source_names[draw(SOURCES)]);
    if (toss(150)) m.delay_ms = draw(3000);
    if (toss(150)) m.ttl_ms = 1 + draw(1500);
    m.has_seed = toss(300);
    if (m.has_seed) m.seed = draw(UINT64_MAX);
    struct bytes payload = buf_bytes(&body);
    o->sent_ms = W->mono_ms;
    o->known = m.key.len ? job_of_key(c->tenant, m.key) : 0;
    net_send(c->conn, MSG_SUBMIT, &m, &payload, 1);
    buf_fini(&body);
}

/* Some jobs in one message, keys twice among them, and now and then something that is no job. */
static void send_many(struct client *c) {
    struct buf list = {0};
    struct packer p = packer_of(&list);
    uint32_t n = 1 + (uint32_t)draw(W->rush ? 12 : 6);
    pack_array(&p, n);
    for (uint32_t i = 0; i < n; i++) {
        int key = toss(400) ? (int)draw(KEYS) : -1;
        char text[16];
        snprintf(text, sizeof text, "key-%d", key);
        if (toss(20)) {
            pack_u64(&p, i);
            continue;
        }
        if (key >= 0) {
            pack_array(&p, 2);
            pack_str(&p, text);
        }
        pack_body(&p, body_of(c, ++c->req, key));
    }
    struct msg_submit_many m = {.req = ++c->req,
                                .kind = bytes_str("text.embed"),
                                .pipeline = bytes_str(pipeline_for(draw(5))),
                                .priority = some_priority(),
                                .ttl_ms = toss(150) ? 1 + draw(1500) : 0};
    if (!W->rush && toss(400)) m.source = bytes_str(sim_source_names[draw(SOURCES)]);
    struct bytes payload = buf_bytes(&list);
    net_send(c->conn, MSG_SUBMIT_MANY, &m, &payload, 1);
    W->submitted += n;
    buf_fini(&list);
}

/* What it may ask for, and what it may not: then the broker must act as if there were no such job.
 */
static void remember_asking(struct client *c, struct cell *of, uint64_t req, bool drop, bool all) {
    if (of && (c->admin || !of->known || of->tenant == c->tenant)) {
        of->cancel_asked = true;
        of->drop_asked |= drop && !all;
    } else {
        c->poked[c->n_poked++ % 16] = req;
    }
    for (uint32_t i = 0; drop && all && i < TENANTS; i++)
        W->drop_asked[i] |= c->admin || i == c->tenant;
}

/* A dead letter, whoever's it is; else this job. */
static uint64_t some_dead(uint64_t job) {
    for (int i = 0; i < 20 && W->disk.n; i++) {
        const struct cell *c = W->disk.cells[draw(W->disk.n)];
        if (c->end.offset && c->end.state == JOB_FAILED) return c->id;
    }
    return job;
}

/* Again, or gone: one of them, or all that there are. */
static void ask_about_dead(struct client *c, uint64_t job) {
    uint64_t req = ++c->req;
    struct msg_requeue again = {.req = req, .job = toss(500) ? job : 0, .limit = 1 + draw(5)};
    struct msg_drop drop = {.req = req, .job = toss(800) ? job : 0, .limit = 1 + draw(2)};
    bool drops = toss(150);
    remember_asking(c, disk_cell(job), req, drops, drop.job == 0);
    if (drops)
        say(c->conn, MSG_DROP, &drop);
    else
        say(c->conn, MSG_REQUEUE, &again);
}

static void ask_about(struct client *c, uint64_t job) {
    uint64_t req = ++c->req;
    struct msg_wait wait = {.req = req, .job = job, .timeout_ms = draw(2000)};
    struct msg_result_get get = {.req = req, .job = job};
    struct msg_show show = {.req = req, .job = job};
    struct msg_cancel cancel = {.req = req, .job = job, .reason = bytes_str("enough")};
    struct msg_events events = {.req = req, .job = job, .from = UINT64_MAX, .follow = toss(700)};
    if (toss(500)) events.from = draw(2) ? 0 : (W->disk.epoch << 32) + draw(50);
    struct msg_events_stop stop = {.req = req - draw(8)};
    struct msg_list list = {.req = req, .limit = 1 + draw(20)};
    struct msg_status status = {.req = req};
    const struct fake_worker *w = &W->workers[draw(WORKERS)];
    struct msg_drain drain = {.req = req, .worker = bytes_str(toss(200) ? "w" : w->session)};
    remember_asking(c, disk_cell(job), req, false, false);
    if (W->faults && toss(40)) say(c->conn, MSG_DRAIN, &drain);
    if (W->faults && toss(35)) ask_about_dead(c, some_dead(job));
    switch (draw(12)) {
    case 0: say(c->conn, MSG_RESULT_GET, &get); break;
    case 1: say(c->conn, MSG_SHOW, &show); break;
    case 2:
        if (toss(400)) say(c->conn, MSG_CANCEL, &cancel);
        break;
    case 3:
    case 4: say(c->conn, MSG_EVENTS, &events); break;
    case 5: say(c->conn, MSG_EVENTS_STOP, &stop); break;
    case 6:
        if (toss(50)) say(c->conn, MSG_LIST, &list);
        break;
    case 7:
        if (toss(50)) say(c->conn, MSG_STATUS, &status);
        break;
    default: say(c->conn, MSG_WAIT, &wait); break;
    }
}

static void client_hears(struct client *c, const struct packet *p) {
    struct refusal why;
    const struct msg_desc *d = msg_desc(((const uint8_t *)p->frame[0].data)[3]);
    uploader_hears(c, d, p);
    follow_hears(c, d, p);
    for (uint32_t i = 0; i < 16; i++)
        if (c->poked[i] && c->poked[i] == msg_req(p->frame[1]))
            CHECK(d->type != MSG_RESULT && d->type != MSG_JOB && d->type != MSG_STATE &&
                      d->type != MSG_EVENT,
                  "%s about a job of somebody else", d->name);
    if (d->type != MSG_ACCEPTED && d->type != MSG_REFUSED) return;
    uint64_t req = msg_req(p->frame[1]);
    if (d->type == MSG_ACCEPTED) {
        struct msg_accepted m;
        CHECK(msg_decode(d, p->frame[1], &m, &why) == 0, "%s", why.message);
        c->known[c->next_known++ % 64] = m.job;
        if (c->n_known < 64) c->n_known++;
    }
    for (uint32_t i = 0; i < c->n_open; i++) {
        if (c->open[i].req != req) continue;
        if (d->type == MSG_REFUSED) check_refused(c, &c->open[i], p);
        c->open[i] = c->open[--c->n_open];
    }
}

static void client_step(struct client *c) {
    if (!connected(c->conn)) {
        c->conn = net_connect(false);
        W->conns[c->conn].user = c->admin ? USER_ADMIN : c->tenant;
    }
    for (struct packet *p; (p = net_receive(c->conn));) {
        client_hears(c, p);
        free(p);
    }
    if (chance(2)) {
        net_close(c->conn);
        return;
    }
    for (uint32_t i = 0; i < c->n_open; i++) { /* no answer: again under its key, or forgotten */
        struct request_out *o = &c->open[i];
        if (W->mono_ms - o->sent_ms < 1000) continue;
        if (o->key >= 0 && W->faults)
            send_submit(c, o);
        else
            *o = c->open[--c->n_open];
    }
    if (c->n_open < 8 && W->submitted < W->jobs_wanted && toss(700)) {
        struct request_out *o = &c->open[c->n_open++];
        *o = (struct request_out){.req = ++c->req, .key = toss(200) ? (int)draw(KEYS) : -1};
        send_submit(c, o);
        W->submitted++;
    }
    if (W->submitted < W->jobs_wanted && toss(W->rush ? 500 : 60)) send_many(c);
    uploader_step(c);
    follow_step(c);
    if (!toss(400)) return;
    const struct client *whose = toss(200) ? &W->clients[draw(CLIENTS)] : c;
    if (whose->n_known) ask_about(c, whose->known[draw(whose->n_known)]);
}

/* ---- workers ---- */

/* What each kind of worker can run; the first one can run everything. */
enum { RUNS_MAX = 8 };
static const char *const runs_of[WORKERS][RUNS_MAX] = {
    {"test.one", "test.a", "test.b", "test.c", "test.fan", "test.join", "test.part"},
    {"test.a", "test.c", "test.join"},
    {"test.b"},
    {"test.one", "test.b", "test.c", "test.fan"},
    {"test.one", "test.a", "test.b", "test.part"}};

static void ask_to_register(struct fake_worker *w) {
    struct buf runs = {0}, models = {0};
    struct packer p = packer_of(&runs), q = packer_of(&models);
    uint32_t n = 0;
    while (n < RUNS_MAX && runs_of[w->kind][n]) n++;
    pack_array(&p, n);
    for (uint32_t i = 0; i < n; i++) pack_str(&p, runs_of[w->kind][i]);
    pack_array(&q, 1);
    pack_str(&q, "m");
    struct msg_register m = {.session = bytes_str(w->session),
                             .name = bytes_str("w"),
                             .runs = {.raw = buf_bytes(&runs), .count = n},
                             .models = {.raw = buf_bytes(&models), .count = w->kind % 2 ? 0 : 1},
                             .credit_jobs = 1 + draw(CREDIT_MAX),
                             .credit_bytes = 500 + draw(5000),
                             .many = toss(500)};
    if (!m.models.count) m.models.raw = (struct bytes){NULL, 0};
    say(w->conn, MSG_REGISTER, &m);
    w->asked_ms = W->mono_ms;
    buf_fini(&runs);
    buf_fini(&models);
}

static void worker_starts(struct fake_worker *w) {
    uint32_t kind = w->kind;
    if (connected(w->conn)) net_close(w->conn);
    *w = (struct fake_worker){.kind = kind, .conn = net_connect(true)};
    W->conns[w->conn].user = USER_WORKER;
    snprintf(w->session, sizeof w->session, "s%llx", (unsigned long long)draw(UINT64_MAX));
    ask_to_register(w);
}

static void drop_held(struct fake_worker *w, uint32_t i) {
    w->held[i] = w->held[--w->n_held];
}

static void worker_hears(struct fake_worker *w, const struct packet *p) {
    struct refusal why;
    const struct msg_desc *d = msg_desc(((const uint8_t *)p->frame[0].data)[3]);
    if (d->type == MSG_REGISTERED) {
        struct msg_registered m;
        CHECK(msg_decode(d, p->frame[1], &m, &why) == 0, "%s", why.message);
        w->registered = true;
        w->epoch = m.epoch;
    } else if (d->type == MSG_REREGISTER) {
        if (toss(800)) w->n_held = 0; /* else it goes on with what is not its own any more */
        w->registered = false;
        ask_to_register(w);
    } else if (d->type == MSG_LEASE) {
        struct msg_lease m;
        CHECK(msg_decode(d, p->frame[1], &m, &why) == 0, "%s", why.message);
        uint32_t span = ((const uint8_t *)m.plan.data)[0] & 15u; /* a fixarray */
        if (w->n_held == CREDIT_MAX * 4) drop_held(w, 0);
        bool fans = memmem(m.plan.data, m.plan.len, "test.fan", 8) != NULL;
        w->held[w->n_held++] = (struct held){m.job, m.attempt, (uint32_t)m.stage, span, fans};
    } else if (d->type == MSG_QUIET) {
        w->quiet = true;
    } else if (d->type == MSG_CANCEL_LEASE) {
        struct msg_cancel_lease m;
        CHECK(msg_decode(d, p->frame[1], &m, &why) == 0, "%s", why.message);
        for (uint32_t i = 0; i < w->n_held; i++)
            if (w->held[i].attempt == m.attempt && toss(900)) drop_held(w, i--);
    }
}

/* Some jobs, none, or now and then something that is no job. */
static void ask_for_children(struct buf *out, struct bytes keep) {
    struct packer p = packer_of(out);
    uint32_t n = (uint32_t)draw(5);
    pack_map(&p, 2);
    pack_str(&p, "children");
    pack_array(&p, n);
    for (uint32_t i = 0; i < n; i++)
        if (chance(10))
            pack_u64(&p, i);
        else
            pack_body(&p, draw(1000000));
    pack_str(&p, "keep");
    pack_raw(&p, keep);
}

static void send_done(struct fake_worker *w, const struct held *h, bool more, uint64_t stage) {
    static uint8_t padding[2000];
    struct buf out = {0};
    size_t more_bytes = toss(700) ? draw(50) : draw(sizeof padding), bytes = 24 + more_bytes;
    buf_append(&out, (uint8_t[]){0xC6, 0, 0, (uint8_t)(bytes >> 8), (uint8_t)bytes}, 5);
    buf_u64le(&out, h->job);
    buf_u64le(&out, stage);
    buf_u64le(&out, h->attempt);
    struct bytes part[2] = {buf_bytes(&out), bytes_of(padding, more_bytes)};
    struct buf asked = {0};
    if (h->fans) {
        buf_append(&out, padding, more_bytes);
        ask_for_children(&asked, buf_bytes(&out));
        part[0] = buf_bytes(&asked);
        part[1] = bytes_of(padding, 0);
    }
    struct msg_stage_done m = {.job = h->job,
                               .stage = stage,
                               .attempt = h->attempt,
                               .more = more,
                               .run_us = 1,
                               .numerics_id = bytes_str("sim")};
    net_send(w->conn, MSG_STAGE_DONE, &m, part, h->fans ? 1 : 2);
    w->before = (struct held){h->job, h->attempt, (uint32_t)stage, more, h->fans};
    buf_fini(&asked);
    buf_fini(&out);
}

static void send_failed(struct fake_worker *w, const struct held *h, const char *error) {
    struct msg_stage_failed m = {.job = h->job,
                                 .stage = h->stage,
                                 .attempt = h->attempt,
                                 .error_class = bytes_str(error),
                                 .reason = bytes_str("it broke")};
    say(w->conn, MSG_STAGE_FAILED, &m);
}

/* One thing that happens to one of its leases. */
static void work(struct fake_worker *w) {
    uint32_t i = (uint32_t)draw(w->n_held);
    struct held *h = &w->held[i];
    struct msg_return back = {.job = h->job, .stage = h->stage, .attempt = h->attempt};
    struct msg_progress progress = {
        .job = h->job, .stage = h->stage, .attempt = h->attempt, .type = bytes_str("progress")};
    if (chance(30)) {
        send_failed(w, h, "transient");
        drop_held(w, i);
    } else if (chance(10)) {
        send_failed(w, h, toss(500) ? "permanent" : "timeout");
        drop_held(w, i);
    } else if (chance(20)) {
        say(w->conn, MSG_RETURN, &back);
        drop_held(w, i);
    } else if (chance(50)) {
        say(w->conn, MSG_PROGRESS, &progress);
    } else if (chance(5)) {
        send_done(w, h, toss(500), draw(STAGES_MAX)); /* nonsense, unless it happens to fit */
        drop_held(w, i);
    } else {
        bool more = h->left > 1;
        send_done(w, h, more, h->stage);
        if (more) {
            h->stage++;
            h->left--;
        } else {
            drop_held(w, i);
        }
    }
}

static void worker_step(struct fake_worker *w) {
    if (W->mono_ms < w->frozen_until_ms && W->faults) return;
    if (chance(3)) { /* kill -9, and another process starts */
        worker_starts(w);
        return;
    }
    if (chance(3)) w->frozen_until_ms = W->mono_ms + (int64_t)draw(4 * LEASE_MS);
    if (chance(4) || !connected(w->conn)) { /* the same process, another connection */
        if (connected(w->conn)) net_close(w->conn);
        w->conn = net_connect(true);
        W->conns[w->conn].user = USER_WORKER;
        if (!w->registered) ask_to_register(w);
    }
    for (struct packet *p; (p = net_receive(w->conn));) {
        worker_hears(w, p);
        free(p);
    }
    if (w->quiet && !w->n_held) { /* another process takes its place */
        struct msg_goodbye m = {.session = bytes_str(w->session)};
        if (toss(900)) say(w->conn, MSG_GOODBYE, &m);
        worker_starts(w);
        return;
    }
    if (!w->registered && W->mono_ms - w->asked_ms > 200) ask_to_register(w);
    if (w->registered && W->mono_ms - w->beat_ms >= BEAT_MS) {
        struct msg_heartbeat m = {.session = bytes_str(w->session), .epoch = w->epoch};
        say(w->conn, MSG_HEARTBEAT, &m);
        w->beat_ms = W->mono_ms;
    }
    if (w->before.attempt && chance(5))
        send_done(w, &w->before, w->before.left != 0, w->before.stage);
    if (w->n_held && toss(W->faults ? 500 : 1000)) work(w);
    if (chance(1)) {
        struct msg_goodbye m = {.session = bytes_str(w->session)};
        say(w->conn, MSG_GOODBYE, &m);
    }
}

/* ---- all of them ---- */

void actors_step(void) {
    for (uint32_t i = 0; i < CLIENTS; i++) client_step(&W->clients[i]);
    for (uint32_t i = 0; i < WORKERS; i++) {
        struct fake_worker *w = &W->workers[i];
        if (!w->session[0]) {
            w->kind = i;
            w->conn = UINT32_MAX;
            worker_starts(w);
        }
        worker_step(w);
    }
}

/* From now on nothing fails any more; workers that said goodbye are replaced. */
void actors_heal(void) {
    for (uint32_t i = 0; i < WORKERS; i++) worker_starts(&W->workers[i]);
}
