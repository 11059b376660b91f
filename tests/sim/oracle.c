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

static const char *name(uint64_t id) {
    static char text[JOB_ID_CHARS + 1];
    job_id_text(id, text);
    return text;
}

/* ---- the disk ---- */

static void check_end(const struct cell *c, const struct job_record *r) {
    if (r->state == JOB_DONE) {
        struct output o;
        CHECK(r->attempt == c->leased_attempt, "%s is ended by attempt %llx, not the current one",
              name(c->id), (unsigned long long)r->attempt);
        CHECK(output_read(disk_payload(c, r, JOB_SLOT_RESULT), &o), "%s has no result",
              name(c->id));
        CHECK(o.job == c->id && o.stage == r->n_stages - 1 && o.attempt == r->attempt,
              "%s has the result of %llx", name(c->id), (unsigned long long)o.attempt);
    }
    CHECK(r->finished_ms > 0, "an end without a time");
}

static void check_history(const struct cell *c, const struct job_record *r) {
    uint64_t seq = 1;
    uint32_t ends = 0;
    for (uint32_t i = 0; i < r->n_notes; i++) {
        const struct job_note *n = &r->notes[i];
        CHECK(n->seq > seq, "%s: its history goes back", name(c->id));
        CHECK(n->type != JOB_NOTE_LEASED || n->attempt <= c->leased_attempt,
              "%s: a lease that never was", name(c->id));
        ends += n->type == JOB_NOTE_ENDED;
        seq = n->seq;
    }
    bool ended = job_state_terminal(r->state);
    CHECK(ends == ended, "%s is %s, and its history has %u ends", name(c->id),
          job_state_name(r->state), ends);
    if (!ended) return;
    const struct job_note *last = &r->notes[r->n_notes - 1];
    CHECK(last->type == JOB_NOTE_ENDED && last->state == r->state,
          "%s: its history ends otherwise than it did", name(c->id));
    if (r->state != JOB_DONE) return;
    CHECK(r->n_notes >= 2 && last[-1].type == JOB_NOTE_STAGE && last[-1].attempt == r->attempt &&
              last[-1].stage == r->n_stages - 1,
          "%s is done, and its history does not know its last stage", name(c->id));
}

/* ---- parents and children ---- */

static bool fans_out(const struct job_record *r) {
    return memmem(r->plan.data, r->plan.len, "fan_out", 7) != NULL;
}

/* A child is on disk only with a parent that knows it. */
static void check_child(const struct job_record *r) {
    struct job_record parent;
    CHECK(disk_record(disk_cell(r->parent), &parent, NULL), "%s has no parent", name(r->id));
    CHECK(r->child < parent.n_children && r->id == parent.first_child + r->child,
          "%s is not child %u of its parent", name(r->id), r->child);
    CHECK(parent.state == JOB_WAITING, "the parent of a new child is %s",
          job_state_name(parent.state));
    CHECK(r->priority == parent.priority && bytes_eq(r->tenant, parent.tenant), "another tenant");
}

/* The input of a join: what was kept, and the end of every child, in order. */
static void check_join(const struct job_record *r, struct bytes input, struct output *kept) {
    struct pack_doc *d;
    char err[256] = "";
    CHECK(pack_parse(&d, input, err, sizeof err) == 0, "%s: %s", name(r->id), err);
    const struct pack_val *list = pack_get(pack_root(d), "children");
    struct bytes keep = pack_as_bytes(pack_get(pack_root(d), "keep"));
    struct reader at = reader_of(keep);
    *kept = (struct output){read_u64le(&at), read_u64le(&at), read_u64le(&at)};
    CHECK(!at.bad && pack_len(list) == r->n_children, "%s joins %u of %u", name(r->id),
          pack_len(list), r->n_children);
    for (uint32_t i = 0; i < r->n_children; i++) {
        struct job_record child;
        const struct pack_val *v = pack_at(list, i);
        bool there = disk_record(disk_cell(r->first_child + i), &child, NULL);
        if (!there) continue; /* a dead letter that was dropped since */
        CHECK(job_state_terminal(child.state), "%s joins a child that lives", name(r->id));
        CHECK(bytes_is(pack_as_bytes(pack_get(v, "state")), job_state_name(child.state)),
              "%s joins a child that ended otherwise", name(r->id));
    }
    pack_free(d);
}

void oracle_put(struct cell *c, const struct job_record *r, const struct job_record *was) {
    CHECK(r->state != JOB_LEASED && r->state != JOB_ACCEPTED, "a lease is no thing on disk");
    check_history(c, r);
    if (!was) {
        struct bytes body = disk_payload(c, r, JOB_SLOT_BODY);
        CHECK(body.len == r->body.bytes && crc32c(0, body.data, body.len) == r->body.crc,
              "%s has not the body that its record says", name(c->id));
        CHECK(!c->upload.len, "%s is a job and an upload", name(c->id));
        c->seed = r->seed;
        c->body_crc = r->body.crc;
        c->version = crc32c(0, r->plan.data, r->plan.len);
        c->not_before_ms = W->mono_ms + (r->ready_ms - r->accepted_ms) - 2500;
        CHECK(!job_state_terminal(r->state), "a new job is at its end");
        if (r->parent) check_child(r);
        struct job_record dead;
        if (r->origin)
            CHECK(disk_record(disk_cell(r->origin), &dead, NULL) && dead.state == JOB_FAILED &&
                      !dead.heir && dead.seed == r->seed && dead.body.crc == r->body.crc,
                  "%s is made of what is no dead letter", name(c->id));
        return;
    }
    CHECK(r->seed == was->seed && r->body.crc == was->body.crc &&
              r->accepted_ms == was->accepted_ms && bytes_eq(r->key, was->key) &&
              bytes_eq(r->plan, was->plan),
          "%s changed what never changes", name(c->id));
    if (!c->unsure &&
        job_state_terminal(was->state)) { /* the same again, after a flush that failed */
        struct job_record heir;
        CHECK(r->state == was->state && r->attempt == was->attempt, "%s ends twice, %s then %s",
              name(c->id), job_state_name(was->state), job_state_name(r->state));
        if (r->heir)
            CHECK((!was->heir || was->heir == r->heir) &&
                      disk_record(disk_cell(r->heir), &heir, NULL) && heir.origin == c->id,
                  "%s has an heir that is none", name(c->id));
        return;
    }
    CHECK(r->stage >= was->stage || job_state_terminal(r->state) || c->unsure,
          "%s goes back on disk", name(c->id));
    CHECK((r->deaths >= was->deaths || c->unsure) && r->deaths <= 3 && r->tries <= 3 &&
              r->timeouts <= 3,
          "deaths %u tries %u", r->deaths, r->tries);
    if (job_state_terminal(r->state)) {
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
              name(c->id));
    }
}

/* ---- messages to clients ---- */

static void state_is_durable(uint64_t id, struct bytes state) {
    enum job_state s;
    struct job_record r;
    CHECK(job_state_parse(state, &s) == 0, "an unknown state");
    if (!job_state_terminal(s)) return;
    CHECK(disk_record(disk_cell(id), &r, NULL) && r.state == s, "%s is said to be %s", name(id),
          job_state_name(s));
}

static void sent_accepted(const struct msg_accepted *m) {
    struct cell *c = disk_cell(m->job);
    struct job_record r;
    if (c && c->dropped) return; /* the next operation, before this answer left */
    CHECK(disk_record(c, &r, NULL), "%s is accepted and not on disk", name(m->job));
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
          name(m->job));
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
        CHECK(m->last, "something follows the end of %s", name(m->job));
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
          name(id), (unsigned long long)m->have, (unsigned long long)u.have);
    CHECK(m->have >= c->told_have && c->body.len == u.have, "%s lost a chunk", name(id));
    c->told_have = m->have;
}

/* ---- messages of workers and to them ---- */

/* It offers itself anew, maybe on a connection that is not its last any more. */
static void delivered_register(const struct sock_msg *raw) {
    struct msg_register m;
    struct refusal why;
    int e = msg_decode(msg_desc(MSG_REGISTER), raw->frame[1], &m, &why);
    CHECK(e == 0, "%s", why.message);
    for (uint32_t i = 0; i < WORKERS; i++)
        if (bytes_is(m.session, W->workers[i].session)) W->conns[W->workers[i].conn].quiet = false;
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
              "%s is leased with a stage of another version", name(m->job));
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
          name(m->job));
    CHECK(m->attempt > c->leased_attempt, "an attempt is used twice");
    check_plan(m, &r);
    CHECK(m->seed == c->seed, "another seed");
    CHECK(W->mono_ms >= c->not_before_ms, "%s is leased before its time", name(m->job));
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
              (unsigned long long)m->stage, name(m->job), (unsigned long long)o.stage,
              (unsigned long long)o.attempt, (unsigned long long)c->delivered[m->stage - 1]);
    } else {
        CHECK(input.len == 0, "an input for the first stage");
    }
    buf_fini(&input);
    c->leased_attempt = m->attempt;
    c->leased_from = (uint32_t)m->stage;
}

static void sent_stage_ack(const struct msg_stage_ack *m) {
    struct cell *c = disk_cell(m->job);
    struct job_record r;
    if (bytes_is(m->verdict, "stale")) {
        W->stale++;
        return;
    }
    CHECK(disk_record(c, &r, NULL), "an outcome of no job");
    CHECK(m->attempt == c->leased_attempt, "%s: stage %llu of a stale attempt is recorded",
          name(m->job), (unsigned long long)m->stage);
    if (r.state == JOB_DONE && m->attempt == r.attempt && m->stage == r.n_stages - 1)
        CHECK(++c->end_acks == 1, "%s: its end is acknowledged twice", name(m->job));
}

/* A worker that was told that no lease follows gets none, unless it registers anew. */
static void check_quiet(struct conn *c, enum msg_type type) {
    CHECK(type != MSG_LEASE || !c->quiet, "a lease for a worker that was told to leave");
    if (type == MSG_QUIET) c->quiet = true;
}

void oracle_sent(struct conn *c, const struct sock_msg *raw) {
    union {
        struct msg_accepted accepted;
        struct msg_refused refused;
        struct msg_accepted_many accepted_many;
        struct msg_result result;
        struct msg_state state;
        struct msg_event event;
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
        CHECK(++W->told_sampled <= W->disk.sampled[0] + W->disk.sampled[1] + W->disk.sampled[2],
              "a job is said to be sampled out, and is not counted");
    check_quiet(c, d->type);
    if (d->type == MSG_ACCEPTED) sent_accepted(&m.accepted);
    if (d->type == MSG_ACCEPTED_MANY) sent_accepted_many(&m.accepted_many);
    if (d->type == MSG_RESULT) sent_result(&m.result, raw);
    if (d->type == MSG_STATE) state_is_durable(m.state.job, m.state.state);
    if (d->type == MSG_EVENT) sent_event(&m.event);
    if (d->type == MSG_UPLOAD_STATE) sent_upload_state(&m.upload);
    if (d->type == MSG_LEASE) sent_lease(&m.lease, raw);
    if (d->type == MSG_STAGE_ACK) sent_stage_ack(&m.ack);
}

/* ---- the broker's memory, between two turns ---- */

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
    c->jobs++;
    c->of_jobs += j->body.bytes;
    if (!j->parent) {
        c->submitted++;
        c->of_submitted += j->body.bytes;
        c->level[j->priority]++;
    }
    if (j->seat) c->of_source[sim_source(bytes_str(j->seat->source->name))]++;
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
    const char *id = name(j->id);
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
              name(j->id), j->n_expected, n);
    else if (!job_state_terminal(j->state))
        CHECK(n == 0, "%s goes on before its children have ended", name(j->id));
    bool over = job_state_terminal(j->state) || j->state == JOB_ACCEPTED;
    if (j->parent && (!parent || job_state_terminal(parent->state)))
        CHECK(over, "%s is %s, and its parent has ended", name(j->id), job_state_name(j->state));
}

/* A job runs what it was accepted with; who came after the files changed runs what they say now,
 * and so does a part unless its pipeline is gone. */
static void check_version(const struct broker *b, const struct job *j) {
    const struct cell *c = disk_cell(j->id);
    uint32_t i = 0;
    if (c && c->record.len)
        CHECK(j->pipeline->version == c->version, "%s runs another version of %s", name(j->id),
              j->pipeline->name);
    while (i < b->pipelines.n && b->pipelines.items[i] != j->pipeline) i++;
    CHECK(i < b->pipelines.n, "%s runs what is not there any more", name(j->id));
    if (j->id <= W->edited_id || i < b->n_loaded) return;
    bool gone = true;
    for (uint32_t k = 0; k < b->n_loaded; k++)
        gone &= strcmp(b->pipelines.items[k]->name, j->pipeline->name) != 0;
    CHECK(j->parent && gone, "%s was accepted with a version of %s that was retired", name(j->id),
          j->pipeline->name);
}

static void check_job(void *arg, struct job *j) {
    struct sums *s = arg;
    const char *id = name(j->id);
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
    for (const struct tenant *t = b->tenants.first; t; t = t->next) { /* there is but one */
        const struct settings_bounds *most = &t->settings->bounds;
        CHECK(t->live.jobs == all->jobs && t->live.bytes == all->of_jobs, "jobs of %s", t->name);
        CHECK(!most->jobs_max || now->submitted <= most->jobs_max ||
                  now->submitted <= was->submitted,
              "tenant %s has %u jobs", t->name, now->submitted);
        CHECK(!most->bytes_max || now->of_submitted <= most->bytes_max ||
                  now->of_submitted <= was->of_submitted,
              "tenant %s has %llu bytes", t->name, (unsigned long long)now->of_submitted);
        for (const struct source *x = t->sources; x; x = x->next) {
            uint32_t i = sim_source(bytes_str(x->name)), depth = x->settings->depth;
            CHECK(x->live.jobs == all->of_source[i], "jobs of source %s", x->name);
            CHECK(!depth || now->of_source[i] <= depth || now->of_source[i] <= was->of_source[i],
                  "source %s has %u jobs", x->name, now->of_source[i]);
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
            CHECK(j->deaths == 0 || w->leases == 1, "%s is not alone after %u deaths", name(j->id),
                  j->deaths);
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

void oracle_end(void) {
    uint64_t dropped[SOURCES] = {0};
    for (uint32_t i = 0; i < W->disk.n; i++) {
        struct cell *c = W->disk.cells[i];
        struct job_record r;
        CHECK(!c->upload.len, "%s is an upload that never ends", name(c->id));
        if (!disk_record(c, &r, NULL)) {
            CHECK(!c->accepted || c->dropped, "%s was accepted and is gone", name(c->id));
            continue;
        }
        CHECK(job_state_terminal(r.state), "%s never ends", name(c->id));
        W->ends[r.state]++;
        if (r.source.len && r.state == JOB_CANCELLED && bytes_is(r.reason, "dropped"))
            dropped[sim_source(r.source)]++;
    }
    for (uint32_t i = 0; i < SOURCES; i++) {
        CHECK(dropped[i] == W->disk.dropped[i], "source %s dropped %llu jobs and counts %llu",
              sim_source_names[i], (unsigned long long)dropped[i],
              (unsigned long long)W->disk.dropped[i]);
        W->dropped += dropped[i];
        W->sampled += W->disk.sampled[i];
    }
}
