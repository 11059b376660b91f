/* What the broker may send and write, checked at the moment it does. */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "schemas/pack.h"
#include "tests/sim/world.h"

bool output_read(struct bytes data, struct output *out) {
    struct reader r = reader_of(data);
    read_bytes(&r, 5); /* the head of a msgpack bin */
    *out = (struct output){read_u64le(&r), read_u64le(&r), read_u64le(&r)};
    return !r.bad;
}

/* ---- the disk ---- */

static void check_end(const struct cell *c, const struct job_record *r) {
    if (r->state == JOB_DONE) {
        struct output o;
        CHECK(r->attempt == c->leased_attempt, "%s is ended by attempt %llx, not the current one",
              sim_name(c->id), (unsigned long long)r->attempt);
        CHECK(output_read(disk_payload(c, r, JOB_SLOT_RESULT), &o), "%s has no result",
              sim_name(c->id));
        CHECK(o.job == c->id && o.stage == r->n_stages - 1 && o.attempt == r->attempt,
              "%s has the result of %llx", sim_name(c->id), (unsigned long long)o.attempt);
    }
    CHECK(r->finished_ms > 0, "an end without a time");
}

static void check_history(const struct cell *c, const struct job_record *r) {
    uint64_t seq = 1;
    uint32_t ends = 0;
    for (uint32_t i = 0; i < r->n_notes; i++) {
        const struct job_note *n = &r->notes[i];
        CHECK(n->seq > seq, "%s: its history goes back", sim_name(c->id));
        CHECK(n->type != JOB_NOTE_LEASED || n->attempt <= c->leased_attempt ||
                  n->attempt <= c->unsent_attempt,
              "%s: a lease that never was", sim_name(c->id));
        ends += n->type == JOB_NOTE_ENDED;
        seq = n->seq;
    }
    bool ended = job_state_terminal(r->state);
    CHECK(ends == ended, "%s is %s, and its history has %u ends", sim_name(c->id),
          job_state_name(r->state), ends);
    if (!ended) return;
    const struct job_note *last = &r->notes[r->n_notes - 1];
    CHECK(last->type == JOB_NOTE_ENDED && last->state == r->state,
          "%s: its history ends otherwise than it did", sim_name(c->id));
    if (r->state != JOB_DONE) return;
    CHECK(r->n_notes >= 2 && last[-1].type == JOB_NOTE_STAGE && last[-1].attempt == r->attempt &&
              last[-1].stage == r->n_stages - 1,
          "%s is done, and its history does not know its last stage", sim_name(c->id));
}

/* ---- parents and children ---- */

static bool fans_out(const struct job_record *r) {
    return memmem(r->plan.data, r->plan.len, "fan_out", 7) != NULL;
}

/* A child is on disk only with a parent that knows it. */
static void check_child(const struct job_record *r) {
    struct job_record parent;
    CHECK(disk_record(disk_cell(r->parent), &parent, NULL), "%s has no parent", sim_name(r->id));
    CHECK(r->child < parent.n_children && r->id == parent.first_child + r->child,
          "%s is not child %u of its parent", sim_name(r->id), r->child);
    CHECK(parent.state == JOB_WAITING, "the parent of a new child is %s",
          job_state_name(parent.state));
    CHECK(r->priority == parent.priority && r->expires_ms == parent.expires_ms &&
              bytes_eq(r->tenant, parent.tenant),
          "another priority, deadline or tenant than its parent");
}

/* The input of a join: what was kept, and the end of every child, in order. */
static void check_join(const struct job_record *r, struct bytes input, struct output *kept) {
    struct pack_doc *d;
    char err[256] = "";
    CHECK(pack_parse(&d, input, err, sizeof err) == 0, "%s: %s", sim_name(r->id), err);
    const struct pack_val *list = pack_get(pack_root(d), "children");
    struct bytes keep = pack_as_bytes(pack_get(pack_root(d), "keep"));
    struct reader at = reader_of(keep);
    *kept = (struct output){read_u64le(&at), read_u64le(&at), read_u64le(&at)};
    CHECK(!at.bad && pack_len(list) == r->n_children, "%s joins %u of %u", sim_name(r->id),
          pack_len(list), r->n_children);
    for (uint32_t i = 0; i < r->n_children; i++) {
        struct job_record child;
        const struct pack_val *v = pack_at(list, i);
        bool there = disk_record(disk_cell(r->first_child + i), &child, NULL);
        if (!there) continue; /* a dead letter that was dropped since */
        CHECK(job_state_terminal(child.state), "%s joins a child that lives", sim_name(r->id));
        CHECK(bytes_is(pack_as_bytes(pack_get(v, "state")), job_state_name(child.state)),
              "%s joins a child that ended otherwise", sim_name(r->id));
    }
    pack_free(d);
}

void oracle_put(struct cell *c, const struct job_record *r, const struct job_record *was) {
    CHECK(r->state != JOB_LEASED && r->state != JOB_ACCEPTED, "a lease is no thing on disk");
    check_history(c, r);
    if (!was) {
        struct bytes body = disk_payload(c, r, JOB_SLOT_BODY);
        CHECK(body.len == r->body.bytes && crc32c(0, body.data, body.len) == r->body.crc,
              "%s has not the body that its record says", sim_name(c->id));
        CHECK(!c->upload.len, "%s is a job and an upload", sim_name(c->id));
        c->seed = r->seed;
        c->body_crc = r->body.crc;
        c->version = crc32c(0, r->plan.data, r->plan.len);
        c->tenant = sim_tenant(r->tenant);
        c->known = true;
        c->of_one = bytes_is(r->pipeline, "one");
        c->not_before_ms = r->ready_ms - WALL_BEGIN_MS - WALL_OFF_MS;
        CHECK(!job_state_terminal(r->state), "a new job is at its end");
        if (r->parent) check_child(r);
        struct job_record dead;
        if (r->origin)
            CHECK(disk_record(disk_cell(r->origin), &dead, NULL) && dead.state == JOB_FAILED &&
                      !dead.heir && bytes_eq(dead.tenant, r->tenant) && dead.seed == r->seed &&
                      dead.body.crc == r->body.crc,
                  "%s is made of what is no dead letter", sim_name(c->id));
        return;
    }
    CHECK(r->seed == was->seed && r->body.crc == was->body.crc &&
              r->accepted_ms == was->accepted_ms && bytes_eq(r->key, was->key) &&
              bytes_eq(r->plan, was->plan),
          "%s changed what never changes", sim_name(c->id));
    if (!c->unsure &&
        job_state_terminal(was->state)) { /* the same again, after a flush that failed */
        struct job_record heir;
        CHECK(r->state == was->state && r->attempt == was->attempt, "%s ends twice, %s then %s",
              sim_name(c->id), job_state_name(was->state), job_state_name(r->state));
        if (r->heir)
            CHECK((!was->heir || was->heir == r->heir) &&
                      disk_record(disk_cell(r->heir), &heir, NULL) && heir.origin == c->id,
                  "%s has an heir that is none", sim_name(c->id));
        return;
    }
    CHECK(r->stage >= was->stage || job_state_terminal(r->state) || c->unsure,
          "%s goes back on disk", sim_name(c->id));
    CHECK((r->deaths >= was->deaths || c->unsure) && r->deaths <= 3 && r->tries <= 3 &&
              r->timeouts <= 3,
          "deaths %u tries %u", r->deaths, r->tries);
    CHECK(c->tenant == sim_tenant(r->tenant), "%s is another tenant's now", sim_name(c->id));
    if (job_state_terminal(r->state)) {
        if (r->state == JOB_CANCELLED && bytes_is(r->reason, "enough"))
            CHECK(c->cancel_asked || W->play, "%s is cancelled by another tenant", sim_name(c->id));
        check_end(c, r);
    } else if (was->state == JOB_WAITING && r->state == JOB_READY) {
        struct output o;
        check_join(r, disk_payload(c, r, JOB_SLOT_STAGE + r->input_stage), &o);
    } else if (r->stage > was->stage) {
        struct output o;
        CHECK(r->input_stage == r->stage - 1, "the input is of another stage");
        CHECK(output_read(disk_payload(c, r, JOB_SLOT_STAGE + r->input_stage), &o),
              "a checkpoint without its output");
        CHECK(o.job == c->id && o.stage == r->input_stage, "a checkpoint of something else");
        CHECK(o.attempt == c->delivered[o.stage], "%s: the checkpoint of a stale attempt",
              sim_name(c->id));
    }
}

/* ---- messages to clients ---- */

static void state_is_durable(uint64_t id, struct bytes state) {
    enum job_state s;
    struct job_record r;
    CHECK(job_state_parse(state, &s) == 0, "an unknown state");
    if (!job_state_terminal(s)) return;
    CHECK(disk_record(disk_cell(id), &r, NULL) && r.state == s, "%s is said to be %s", sim_name(id),
          job_state_name(s));
}

static void sent_accepted(const struct msg_accepted *m) {
    struct cell *c = disk_cell(m->job);
    struct job_record r;
    if (c && c->deleted) return; /* the next operation, before this answer left */
    CHECK(disk_record(c, &r, NULL), "%s is accepted and not on disk", sim_name(m->job));
    CHECK(m->seed == c->seed, "another seed");
    c->accepted = true;
    state_is_durable(m->job, m->state);
}

static void sent_accepted_many(const struct msg_accepted_many *m) {
    struct pack_doc *d;
    char err[256] = "";
    uint64_t accepted = 0, refused = 0;
    CHECK(pack_parse(&d, m->jobs, err, sizeof err) == 0, "%s", err);
    const struct pack_val *list = pack_root(d);
    for (uint32_t i = 0; i < pack_len(list); i++) {
        const struct pack_val *v = pack_at(list, i);
        struct msg_accepted one = {.state = pack_as_bytes(pack_get(v, "state")),
                                   .seed = pack_as_u64(pack_get(v, "seed"), 0)};
        if (pack_get(v, "code")) {
            refused++;
            continue;
        }
        CHECK(job_id_parse(pack_as_bytes(pack_get(v, "job")), &one.job) == 0, "a job without id");
        sent_accepted(&one);
        accepted++;
    }
    CHECK(accepted == m->accepted && refused == m->refused, "the verdicts do not add up");
    pack_free(d);
}

static void sent_result(const struct msg_result *m, const struct sock_msg *raw) {
    struct cell *c = disk_cell(m->job);
    struct job_record r;
    CHECK(disk_record(c, &r, NULL) && job_state_terminal(r.state), "%s: a result without an end",
          sim_name(m->job));
    CHECK(bytes_is(m->state, job_state_name(r.state)) && m->attempt == r.attempt,
          "another result than the recorded one");
    struct buf whole = {0};
    for (uint32_t i = 2; i < raw->frames; i++)
        buf_append(&whole, raw->frame[i].data, raw->frame[i].len);
    struct bytes kept =
        r.result.bytes ? disk_payload(c, &r, JOB_SLOT_RESULT) : (struct bytes){NULL, 0};
    CHECK(bytes_eq(buf_bytes(&whole), kept), "another payload than the recorded one");
    buf_fini(&whole);
}

/* A state that is told is one that the job has reached on disk, if it is an end. */
static void sent_event(const struct msg_event *m) {
    struct pack_doc *d;
    char err[256] = "";
    if (!bytes_is(m->type, "state")) return;
    CHECK(pack_parse(&d, m->data, err, sizeof err) == 0, "%s", err);
    struct bytes state = pack_as_bytes(pack_get(pack_root(d), "state"));
    state_is_durable(m->job, state);
    if (bytes_is(pack_as_bytes(pack_get(pack_root(d), "what")), "ended"))
        CHECK(m->last, "something follows the end of %s", sim_name(m->job));
    pack_free(d);
}

/* What is said to be there is on disk, and stays until the upload is a job or was dropped. */
static void sent_upload_state(const struct msg_upload_state *m) {
    struct upload_record u;
    char key[LIMIT_KEY_BYTES + 1];
    uint64_t id;
    CHECK(job_id_parse(bytes_of(m->upload.data, JOB_ID_CHARS), &id) == 0, "a name without id");
    struct cell *c = disk_cell(id);
    if (m->bytes == 0 || !disk_upload(c, &u, key)) return; /* it went on before this left */
    CHECK(m->bytes == u.bytes && m->have <= u.have, "%s: %llu bytes are said to be there, not %llu",
          sim_name(id), (unsigned long long)m->have, (unsigned long long)u.have);
    CHECK(m->have >= c->told_have && c->body.len == u.have, "%s lost a chunk", sim_name(id));
    c->told_have = m->have;
}

/* ---- messages of workers and to them ---- */

/* It offers itself anew, maybe on a connection that is not its last any more. */
static void delivered_register(const struct sock_msg *raw) {
    struct msg_register m;
    struct refusal why;
    int e = msg_decode(msg_desc(MSG_REGISTER), raw->frame[1], &m, &why);
    CHECK(e == 0 || W->play, "%s", why.message);
    if (e) return;
    for (uint32_t i = 0; i < WORKERS; i++)
        if (bytes_is(m.session, W->workers[i].session)) {
            struct conn *c = &W->conns[W->workers[i].conn];
            c->quiet = false;
            c->anew = true;
        }
}

void oracle_delivered(const struct sock_msg *raw) {
    struct msg_stage_done m;
    struct refusal why;
    if (((const uint8_t *)raw->frame[0].data)[3] == MSG_REGISTER) delivered_register(raw);
    if (((const uint8_t *)raw->frame[0].data)[3] != MSG_STAGE_DONE) return;
    int e = msg_decode(msg_desc(MSG_STAGE_DONE), raw->frame[1], &m, &why);
    CHECK(e == 0 || W->play, "%s", why.message);
    if (e) return;
    struct cell *c = disk_cell(m.job);
    if (c && c->leased_attempt == m.attempt && m.stage >= c->leased_from && m.stage < STAGES_MAX)
        c->delivered[m.stage] = m.attempt;
}

/* The stages of a lease are those that the job was accepted with, whatever the files are now. */
static void check_plan(const struct msg_lease *m, const struct job_record *r) {
    struct pack_doc *leased, *kept;
    char err[256] = "";
    const struct pipeline *now = pipeline_find(&W->b->pipelines, r->pipeline);
    bool outlived = !now || now->retired || !bytes_eq(now->plan, r->plan);
    W->outlived += outlived;
    if (W->steps % 4 && !outlived) return;
    CHECK(pack_parse(&leased, m->plan, err, sizeof err) == 0, "%s", err);
    CHECK(pack_parse(&kept, r->plan, err, sizeof err) == 0, "%s", err);
    const struct pack_val *stages = pack_get(pack_root(kept), "stages");
    for (uint32_t i = 0; i < pack_len(pack_root(leased)); i++) {
        const struct pack_val *a = pack_at(pack_root(leased), i);
        const struct pack_val *b = pack_at(stages, (uint32_t)m->stage + i);
        CHECK(bytes_eq(pack_as_bytes(pack_get(a, "run")), pack_as_bytes(pack_get(b, "run"))) &&
                  pack_as_u64(pack_get(a, "timeout_ms"), 0) ==
                      pack_as_u64(pack_get(b, "timeout_ms"), 1),
              "%s is leased with a stage of another version", sim_name(m->job));
    }
    pack_free(leased);
    pack_free(kept);
}

static void sent_lease(const struct msg_lease *m, const struct sock_msg *raw) {
    struct cell *c = disk_cell(m->job);
    struct job_record r;
    struct output o;
    struct buf input = {0};
    CHECK(disk_record(c, &r, NULL) && !job_state_terminal(r.state), "%s is leased after its end",
          sim_name(m->job));
    CHECK(m->attempt > c->leased_attempt, "an attempt is used twice");
    check_plan(m, &r);
    CHECK(m->seed == c->seed, "another seed");
    CHECK(m->priority == r.priority, "another priority");
    CHECK(W->mono_ms >= c->not_before_ms, "%s is leased before its time", sim_name(m->job));
    CHECK(raw->frame[2].len == r.body.bytes &&
              crc32c(0, raw->frame[2].data, raw->frame[2].len) == c->body_crc,
          "another body");
    for (uint32_t i = 3; i < raw->frames; i++)
        buf_append(&input, raw->frame[i].data, raw->frame[i].len);
    if (m->stage) {
        if (fans_out(&r))
            check_join(&r, buf_bytes(&input), &o);
        else
            CHECK(output_read(buf_bytes(&input), &o), "a stage without its input");
        CHECK(o.job == m->job && o.stage == m->stage - 1 && o.attempt == c->delivered[m->stage - 1],
              "stage %llu of %s gets the output of stage %llu, attempt %llx, not %llx",
              (unsigned long long)m->stage, sim_name(m->job), (unsigned long long)o.stage,
              (unsigned long long)o.attempt, (unsigned long long)c->delivered[m->stage - 1]);
    } else {
        CHECK(input.len == 0, "an input for the first stage");
    }
    buf_fini(&input);
    if (c->leased_step != W->steps) c->leased_was = c->leased_attempt;
    c->leased_step = W->steps;
    c->leased_attempt = m->attempt;
    c->leased_from = (uint32_t)m->stage;
}

/* The lease was given, and taken back when it could not be sent. */
void oracle_unsent(const struct sock_msg *raw) {
    struct msg_lease m;
    struct refusal why;
    if (((const uint8_t *)raw->frame[0].data)[3] != MSG_LEASE) return;
    CHECK(msg_decode(msg_desc(MSG_LEASE), raw->frame[1], &m, &why) == 0, "%s", why.message);
    struct cell *c = disk_cell(m.job);
    if (c) c->unsent_attempt = m.attempt;
}

static void sent_stage_ack(const struct msg_stage_ack *m) {
    struct cell *c = disk_cell(m->job);
    struct job_record r;
    if (bytes_is(m->verdict, "stale")) {
        W->stale++;
        return;
    }
    CHECK(disk_record(c, &r, NULL), "%s: an outcome of no job", sim_name(m->job));
    /* Another worker may get the job before this one hears that it gave it back. */
    bool was = c->leased_step == W->steps && m->attempt == c->leased_was;
    CHECK(m->attempt == c->leased_attempt || was, "%s: stage %llu of a stale attempt is recorded",
          sim_name(m->job), (unsigned long long)m->stage);
    if (r.state == JOB_DONE && m->attempt == r.attempt && m->stage == r.n_stages - 1)
        CHECK(++c->end_acks == 1, "%s: its end is acknowledged twice", sim_name(m->job));
}

/* A worker that was told that no lease follows gets none, unless it registers anew; what is said
 * between that and its answer was about the time before. */
static void check_quiet(struct conn *c, enum msg_type type) {
    bool one = !W->play; /* session a connection */
    CHECK(type != MSG_LEASE || !c->quiet || !one, "a lease for a worker that was told to leave");
    if (type == MSG_QUIET && !c->anew) c->quiet = true;
    if (type == MSG_REGISTERED) c->anew = false;
}

static uint64_t sampled_out(void) {
    uint64_t n = 0;
    for (uint32_t i = 0; i < TENANTS * SOURCES; i++)
        n += W->disk.sieve[i / SOURCES][i % SOURCES].sampled;
    return n;
}

void oracle_sent(struct conn *c, const struct sock_msg *raw) {
    union {
        struct msg_accepted accepted;
        struct msg_refused refused;
        struct msg_accepted_many accepted_many;
        struct msg_result result;
        struct msg_state state;
        struct msg_event event;
        struct msg_ended ended;
        struct msg_stream stream;
        struct msg_lease lease;
        struct msg_upload_state upload;
        struct msg_stage_ack ack;
        unsigned char other[512];
    } m;
    const struct msg_desc *d;
    struct refusal why;
    enum msg_direction from = c->to_workers ? MSG_B2W : MSG_B2C;
    CHECK(msg_open(raw->frame, raw->frames, from, &d, &why) == 0, "%s", why.message);
    CHECK(msg_decode(d, raw->frame[1], &m, &why) == 0, "%s: %s", d->name, why.message);
    if (d->type == MSG_REFUSED && !c->to_workers && bytes_is(m.refused.code, "sampled"))
        CHECK(++W->told_sampled <= sampled_out(),
              "a job is said to be sampled out, and is not counted");
    tenants_sent(c, d->type, &m);
    check_quiet(c, d->type);
    if (d->type == MSG_ACCEPTED) sent_accepted(&m.accepted);
    if (d->type == MSG_ACCEPTED_MANY) sent_accepted_many(&m.accepted_many);
    if (d->type == MSG_RESULT) sent_result(&m.result, raw);
    if (d->type == MSG_STATE) state_is_durable(m.state.job, m.state.state);
    if (d->type == MSG_EVENT) sent_event(&m.event);
    uint32_t conn = (uint32_t)(c - W->conns);
    if (d->type == MSG_ENDED && !W->play) follow_sent_ended(conn, &m.ended, raw);
    if (d->type == MSG_STREAM && !W->play) follow_sent_stream(conn, &m.stream);
    if (d->type == MSG_UPLOAD_STATE) sent_upload_state(&m.upload);
    if (d->type == MSG_LEASE) sent_lease(&m.lease, raw);
    if (d->type == MSG_STAGE_ACK) sent_stage_ack(&m.ack);
}

void oracle_end(void) {
    uint64_t dropped[TENANTS][SOURCES];
    memcpy(dropped, W->left_out, sizeof dropped); /* of these there is no record any more */
    for (uint32_t i = 0; i < W->disk.n; i++) {
        struct cell *c = W->disk.cells[i];
        struct job_record r;
        CHECK(!c->upload.len, "%s is an upload that never ends", sim_name(c->id));
        if (!disk_record(c, &r, NULL)) {
            CHECK(!c->accepted || c->deleted, "%s was accepted and is gone", sim_name(c->id));
            continue;
        }
        CHECK(job_state_terminal(r.state), "%s never ends", sim_name(c->id));
        W->ends[r.state]++;
        if (r.source.len && r.state == JOB_CANCELLED && bytes_is(r.reason, "dropped"))
            dropped[c->tenant][sim_source(r.source)]++;
    }
    for (uint32_t i = 0; i < TENANTS * SOURCES; i++) {
        const struct sieve *s = &W->disk.sieve[i / SOURCES][i % SOURCES];
        uint64_t n = dropped[i / SOURCES][i % SOURCES];
        CHECK(n == s->dropped, "source %s of %s dropped %llu jobs and counts %llu",
              sim_source_names[i % SOURCES], sim_tenant_name(i / SOURCES), (unsigned long long)n,
              (unsigned long long)s->dropped);
        W->dropped += n;
        W->sampled += s->sampled;
    }
}
