#include "broker/history.h"

#include "base/err.h"
#include "schemas/pack.h"

/* Every job was accepted before anything else happened to it. */
enum { SEQ_ACCEPTED = 1 };

static const char *note_name(enum job_note_type type) {
    static const char *const names[JOB_NOTES] = {
        [JOB_NOTE_LEASED] = "leased",         [JOB_NOTE_STAGE] = "stage_done",
        [JOB_NOTE_FAILED] = "attempt_failed", [JOB_NOTE_BACK] = "returned",
        [JOB_NOTE_ENDED] = "ended",           [JOB_NOTE_JOINED] = "joined"};
    return names[type];
}

/* ---- writing it ---- */

/* Behind every number of the starts before, whatever they told and did not write. */
static uint64_t next_seq(const struct broker *b, struct job *j) {
    uint64_t least = store_epoch(b->store) << 32;
    if (j->last_seq < least) j->last_seq = least;
    return ++j->last_seq;
}

static void add(struct broker *b, struct job *j, enum job_note_type type, enum job_error error,
                uint32_t stage, const char *by) {
    struct job_line line = {.seq = next_seq(b, j),
                            .attempt = j->attempt,
                            .at_ms = b->now_wall_ms,
                            .type = (uint8_t)type,
                            .state = (uint8_t)j->state,
                            .error = (uint8_t)error,
                            .stage = (uint8_t)stage};
    bytes_to_cstr(bytes_str(by), line.by, sizeof line.by);
    job_note(j, &line);
}

void history_add(struct broker *b, struct job *j, const struct job_event *e, uint32_t fx,
                 uint32_t stage, const char *by) {
    bool ended = fx & JOB_FX_TERMINAL;
    switch (e->type) {
    case JOB_EV_LEASED: add(b, j, JOB_NOTE_LEASED, JOB_ERROR_NONE, stage, by); break;
    case JOB_EV_STAGE_DONE: add(b, j, JOB_NOTE_STAGE, JOB_ERROR_NONE, stage, by); break;
    case JOB_EV_FAILED: add(b, j, JOB_NOTE_FAILED, e->error, stage, by); break;
    case JOB_EV_LOST: add(b, j, JOB_NOTE_FAILED, JOB_ERROR_WORKER_DIED, stage, by); break;
    case JOB_EV_RETURNED: add(b, j, JOB_NOTE_BACK, JOB_ERROR_NONE, stage, by); break;
    case JOB_EV_JOINED:
        if (!ended) add(b, j, JOB_NOTE_JOINED, JOB_ERROR_NONE, stage, by);
        break;
    case JOB_EV_COMMITTED:
    case JOB_EV_DUE:
    case JOB_EV_CHILD:
    case JOB_EV_CANCEL:
    case JOB_EV_EXPIRE:
    case JOB_EV_KEPT: break;
    }
    if (ended) add(b, j, JOB_NOTE_ENDED, j->error, stage, e->type == JOB_EV_CANCEL ? by : "");
}

/* ---- telling it ---- */

/* One line as the data of an EVENT; of a job that waits for its parts with these. */
static void pack_note(struct buf *out, const struct job_note *n, struct bytes reason,
                      uint64_t first_child, uint32_t children) {
    struct packer p = packer_of(out);
    char id[JOB_ID_CHARS + 1];
    bool waits = n->state == JOB_WAITING;
    buf_clear(out);
    pack_map(&p, waits ? 8 : 6);
    if (waits) {
        job_id_text(first_child, id);
        pack_kv_str(&p, "first_child", children ? id : "");
        pack_kv_u64(&p, "children", children);
    }
    pack_kv_str(&p, "state", job_state_name(n->state));
    pack_kv_str(&p, "what", note_name(n->type));
    pack_str(&p, "at_ms");
    pack_i64(&p, n->at_ms);
    pack_str(&p, "by");
    pack_strn(&p, n->by);
    pack_kv_str(&p, "error_class", n->error ? job_error_name(n->error) : "");
    pack_str(&p, "reason");
    pack_strn(&p, reason);
}

static void pack_state(struct buf *out, enum job_state state, const char *reason) {
    struct packer p = packer_of(out);
    buf_clear(out);
    pack_map(&p, reason ? 2 : 1);
    pack_kv_str(&p, "state", job_state_name(state));
    if (reason) pack_kv_str(&p, "reason", reason);
}

static struct bytes reason_of(const struct job *j, const struct job_line *l) {
    if (l->type == JOB_NOTE_ENDED && j->reason) return bytes_str(j->reason);
    for (uint32_t i = 0; l->type == JOB_NOTE_FAILED && i < j->n_tries; i++)
        if (j->try_log[i].attempt == l->attempt && j->try_log[i].reason)
            return bytes_str(j->try_log[i].reason);
    return bytes_str("");
}

static struct job_note note_of(const struct job_line *l) {
    return (struct job_note){.seq = l->seq,
                             .type = (enum job_note_type)l->type,
                             .state = (enum job_state)l->state,
                             .error = (enum job_error)l->error,
                             .stage = l->stage,
                             .attempt = l->attempt,
                             .at_ms = l->at_ms,
                             .by = bytes_str(l->by)};
}

/* A client that is gone or does not read loses its stream; the latter is told where to go on. */
static void tell(struct broker *b, struct watch *w, const struct msg_event *m) {
    int e = reply_client(b, &w->peer, MSG_EVENT, m);
    if (e == 0) {
        w->told_seq = m->seq;
        return;
    }
    if (e == -EAGAIN)
        owed_notice(&b->owed, &w->peer, w->req, OWED_EVENTS, w->job->id, w->told_seq, b->now_ms);
    watch_drop(&b->watches, w);
}

static void to_followers(struct broker *b, struct job *j, struct msg_event *m) {
    for (struct watch *w = j->watches, *next; w; w = next) {
        next = w->next;
        if (w->type != WATCH_EVENTS) continue;
        m->req = w->req;
        tell(b, w, m);
    }
}

int history_tell_dropped(struct broker *b, const struct owed *o) {
    struct msg_event m = {
        .req = o->req, .job = o->job, .seq = o->at, .type = bytes_str("dropped"), .last = true};
    return reply_client(b, &o->peer, MSG_EVENT, &m);
}

static uint64_t seq_of(const struct job *j) {
    return j->told_seq ? j->told_seq : SEQ_ACCEPTED;
}

void history_stream(struct broker *b, struct job *j, const char *type, uint64_t stage,
                    uint64_t attempt, struct bytes data) {
    struct msg_event m = {.job = j->id,
                          .seq = next_seq(b, j),
                          .type = bytes_str(type),
                          .stage = stage,
                          .attempt = attempt,
                          .data = data};
    to_followers(b, j, &m);
}

void history_child(struct broker *b, struct job *j, const struct job *child) {
    struct buf data = {.max_bytes = LIMIT_HEADER_BYTES};
    struct packer p = packer_of(&data);
    char id[JOB_ID_CHARS + 1];
    if (!j->watches) return;
    job_id_text(child->id, id);
    pack_map(&p, 5);
    pack_kv_str(&p, "job", id);
    pack_kv_u64(&p, "child", child->child);
    pack_kv_str(&p, "state", job_state_name(child->state));
    pack_kv_str(&p, "error_class", child->state == JOB_FAILED ? job_error_name(child->error) : "");
    pack_kv_str(&p, "reason", child->reason ? child->reason : "");
    history_stream(b, j, "child", j->stage, j->attempt, buf_bytes(&data));
    buf_fini(&data);
}

static bool followed(const struct job *j) {
    const struct watch *w = j->watches;
    while (w && w->type != WATCH_EVENTS) w = w->next;
    return w;
}

void history_tell(struct broker *b, struct job *j, bool last) {
    uint64_t told = j->told_seq;
    if (j->n_lines) j->told_seq = j->lines[j->n_lines - 1].seq;
    if (!followed(j)) return;
    struct buf data = {.max_bytes = LIMIT_HEADER_BYTES};
    bool told_any = false;
    for (uint32_t i = 0; i < j->n_lines; i++) {
        const struct job_line *l = &j->lines[i];
        if (l->seq <= told) continue;
        struct job_note n = note_of(l);
        pack_note(&data, &n, reason_of(j, l), j->first_child, j->n_children);
        struct msg_event m = {.job = j->id,
                              .seq = l->seq,
                              .type = bytes_str("state"),
                              .stage = l->stage,
                              .attempt = l->attempt,
                              .last = last && i + 1u == j->n_lines,
                              .data = buf_bytes(&data)};
        to_followers(b, j, &m);
        told_any = true;
    }
    if (!told_any) {
        pack_state(&data, j->state, j->reason);
        struct msg_event m = {.job = j->id,
                              .seq = next_seq(b, j),
                              .type = bytes_str("state"),
                              .stage = j->stage,
                              .attempt = j->attempt,
                              .last = last,
                              .data = buf_bytes(&data)};
        to_followers(b, j, &m);
    }
    buf_fini(&data);
}

void history_probe(struct broker *b) {
    for (struct watch *w = b->watches.all, *next; w; w = next) {
        next = w->all_next;
        if (w->type != WATCH_EVENTS) continue;
        struct buf data = {.max_bytes = LIMIT_HEADER_BYTES};
        pack_state(&data, job_seen_state(w->job), NULL);
        struct msg_event m = {.req = w->req,
                              .job = w->job->id,
                              .seq = seq_of(w->job),
                              .type = bytes_str("state"),
                              .stage = w->job->stage,
                              .attempt = w->job->attempt,
                              .data = buf_bytes(&data)};
        tell(b, w, &m);
        buf_fini(&data);
    }
}

/* ---- telling it again ---- */

/* One EVENT of a record's history; the reason of a failed attempt is kept with the attempt. */
static int tell_note(struct broker *b, const struct request *r, const struct job_record *rec,
                     const struct job_note *n, bool last) {
    const struct msg_events *m = r->header;
    struct buf data = {.max_bytes = LIMIT_HEADER_BYTES};
    struct bytes reason = n->type == JOB_NOTE_ENDED ? rec->reason : bytes_str("");
    for (uint32_t i = 0; n->type == JOB_NOTE_FAILED && i < rec->n_attempts; i++)
        if (rec->attempts[i].attempt == n->attempt) reason = rec->attempts[i].reason;
    pack_note(&data, n, reason, rec->first_child, rec->n_children);
    struct msg_event e = {.req = m->req,
                          .job = m->job,
                          .seq = n->seq,
                          .type = bytes_str("state"),
                          .stage = n->stage,
                          .attempt = n->attempt,
                          .last = last,
                          .data = buf_bytes(&data)};
    int code = reply_client(b, &r->peer, MSG_EVENT, &e);
    buf_fini(&data);
    return code;
}

static int tell_accepted(struct broker *b, const struct request *r, const struct job_record *rec) {
    const struct msg_events *m = r->header;
    struct buf data = {.max_bytes = LIMIT_HEADER_BYTES};
    struct packer p = packer_of(&data);
    pack_map(&p, 4);
    pack_kv_str(&p, "state", job_state_name(JOB_ACCEPTED));
    pack_kv_str(&p, "what", "accepted");
    pack_str(&p, "at_ms");
    pack_i64(&p, rec->accepted_ms);
    pack_str(&p, "by");
    pack_strn(&p, rec->tenant);
    struct msg_event e = {.req = m->req,
                          .job = m->job,
                          .seq = SEQ_ACCEPTED,
                          .type = bytes_str("state"),
                          .data = buf_bytes(&data)};
    int code = reply_client(b, &r->peer, MSG_EVENT, &e);
    buf_fini(&data);
    return code;
}

void history_replay(struct broker *b, const struct request *r, const struct job *j,
                    const struct job_record *rec) {
    const struct msg_events *m = r->header;
    uint64_t newest = j ? seq_of(j) : SEQ_ACCEPTED;
    bool accepted = !j || j->state != JOB_ACCEPTED;
    int e = m->from < SEQ_ACCEPTED && accepted ? tell_accepted(b, r, rec) : 0;
    for (uint32_t i = 0; e == 0 && i < rec->n_notes; i++) {
        const struct job_note *n = &rec->notes[i];
        bool last = !j && i + 1 == rec->n_notes && n->type == JOB_NOTE_ENDED;
        if (j && n->seq > j->told_seq) break; /* an end that is not on disk yet */
        newest = n->seq > newest ? n->seq : newest;
        if (n->seq <= m->from) continue;
        e = tell_note(b, r, rec, n, last);
        if (last) return;
    }
    struct watch *w = watch_find(&b->watches, &r->peer, m->req);
    if (e) { /* what was told of the history is not known any more: all of it again */
        if (w) watch_drop(&b->watches, w);
        if (e == -EAGAIN)
            owed_notice(&b->owed, &r->peer, m->req, OWED_EVENTS, m->job, m->from, b->now_ms);
        return;
    }
    if (w) w->told_seq = newest;
    struct buf data = {.max_bytes = LIMIT_HEADER_BYTES};
    pack_state(&data, j ? job_seen_state(j) : rec->state, NULL);
    struct msg_event now = {.req = m->req,
                            .job = m->job,
                            .seq = newest,
                            .type = bytes_str("state"),
                            .stage = j ? j->stage : rec->stage,
                            .attempt = j ? j->attempt : rec->attempt,
                            .last = !j || !m->follow,
                            .data = buf_bytes(&data)};
    reply_client(b, &r->peer, MSG_EVENT, &now);
    buf_fini(&data);
}
