#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/sock.h"
#include "base/thread.h"
#include "client/penstock.h"
#include "schemas/batch.h"
#include "schemas/job.h"
#include "schemas/msg.h"
#include "schemas/pack.h"

/* A broker of this test: answers each message as the step says, in order, then falls silent. */
enum answer {
    NOTHING,
    ACCEPT,
    ACCEPT_MANY,
    REFUSE,
    STATE,
    DONE,
    FAILED,
    PONG_,
    ROWS,
    EVENT_STATE,
    EVENT_LAST,
    STRANGE
};
struct step {
    enum msg_type expect;
    enum answer answer[4]; /* up to the first NOTHING behind the first */
};

struct fake {
    const struct step *steps;
    int n, done;
    struct sock_ctx *ctx;
    struct sock *router;
    pthread_t thread;
    char dir[32], endpoint[64];
    uint64_t ids;
    int wrong; /* messages that were not expected */
};

static void send_answer(struct fake *f, const struct sock_msg *to, enum msg_type type,
                        const void *in, struct bytes payload) {
    uint8_t tag[MSG_TAG_BYTES];
    struct buf header = {0};
    int rc = msg_encode(type, in, tag, &header);
    if (rc < 0) abort();
    struct sock_msg m = {.peer = to->peer,
                         .frames = payload.data ? 4 : 2,
                         .frame = {bytes_of(tag, 4), buf_bytes(&header)}};
    if (payload.data) { /* in two parts, cut in the middle */
        m.frame[2] = bytes_of(payload.data, payload.len / 2);
        m.frame[3] =
            bytes_of((const char *)payload.data + payload.len / 2, payload.len - payload.len / 2);
    }
    sock_send(f->router, &m);
    buf_fini(&header);
}

static void answer_job(struct fake *f, const struct sock_msg *m, enum answer a, uint64_t req) {
    const uint64_t job = 1ull << 40;
    struct msg_state state = {.req = req, .job = job, .state = bytes_str("leased"), .stage = 1};
    struct msg_result result = {
        .req = req, .job = job, .state = bytes_str("done"), .kind = bytes_str("text.embed")};
    struct msg_accepted accepted = {
        .req = req, .job = job, .state = bytes_str("ready"), .seed = 42, .existing = true};
    struct msg_event event = {.req = req,
                              .job = job,
                              .seq = 1,
                              .type = bytes_str("state"),
                              .data = bytes_of("\x81\xA5state\xA5ready", 13)};
    if (a == ACCEPT) send_answer(f, m, MSG_ACCEPTED, &accepted, bytes_of(NULL, 0));
    if (a == STATE) send_answer(f, m, MSG_STATE, &state, bytes_of(NULL, 0));
    if (a == DONE)
        send_answer(f, m, MSG_RESULT, &result,
                    bytes_of("\x81\xA3"
                             "dim\x02",
                             6));
    result.state = bytes_str("failed");
    result.error_class = bytes_str("permanent");
    result.reason = bytes_str("no such model");
    if (a == FAILED) send_answer(f, m, MSG_RESULT, &result, bytes_of(NULL, 0));
    if (a == EVENT_STATE) send_answer(f, m, MSG_EVENT, &event, bytes_of(NULL, 0));
    event.last = true;
    event.data = bytes_of("\x81\xA5state\xA4"
                          "done",
                          12);
    if (a == EVENT_LAST) send_answer(f, m, MSG_EVENT, &event, bytes_of(NULL, 0));
}

/* Refuses every third job; the others get ids that count up. */
static void answer_many(struct fake *f, const struct sock_msg *m, uint64_t req) {
    struct batch_it it;
    struct batch_item item;
    struct refusal why;
    struct buf list = {0};
    struct packer p = packer_of(&list);
    batch_begin(&it, m->frame[2], &why);
    uint32_t n = it.left;
    pack_array(&p, n);
    for (uint32_t i = 0; batch_next(&it, &item, &why) > 0; i++) {
        char id[JOB_ID_CHARS + 1];
        job_id_text(++f->ids, id);
        pack_map(&p, 2);
        pack_kv_str(&p, i % 3 == 2 ? "code" : "job", i % 3 == 2 ? "full" : id);
        if (i % 3 == 2)
            pack_kv_u64(&p, "retry_after_ms", 5);
        else
            pack_kv_bool(&p, "existing", item.key.len > 0);
    }
    struct msg_accepted_many answer = {
        .req = req, .accepted = n - n / 3, .refused = n / 3, .jobs = buf_bytes(&list)};
    send_answer(f, m, MSG_ACCEPTED_MANY, &answer, bytes_of(NULL, 0));
    buf_fini(&list);
}

static void answer(struct fake *f, const struct sock_msg *m, enum answer a) {
    uint64_t req = msg_req(m->frame[1]);
    struct msg_refused refused = {.req = req,
                                  .code = bytes_str("missing"),
                                  .field = bytes_str("texts"),
                                  .message = bytes_str("field 'texts' is missing"),
                                  .fix = bytes_str("give it"),
                                  .retry_after_ms = 9};
    struct msg_pong pong = {.req = req, .version = bytes_str("9"), .epoch = 3, .accepting = true};
    struct msg_jobs jobs = {.req = req, .next = 5};
    struct buf rows = {0};
    struct packer p = packer_of(&rows);
    pack_array(&p, 1);
    pack_map(&p, 3);
    pack_kv_str(&p, "job", "0000000000005");
    pack_kv_str(&p, "state", "failed");
    pack_kv_u64(&p, "accepted_ms", 77);
    jobs.jobs = buf_bytes(&rows);
    if (a == ACCEPT_MANY) answer_many(f, m, req);
    if (a == REFUSE) send_answer(f, m, MSG_REFUSED, &refused, bytes_of(NULL, 0));
    if (a == PONG_) send_answer(f, m, MSG_PONG, &pong, bytes_of(NULL, 0));
    if (a == ROWS) send_answer(f, m, MSG_JOBS, &jobs, bytes_of(NULL, 0));
    if (a == STRANGE) { /* what a client must pass over */
        pong.req = req + 1000;
        send_answer(f, m, MSG_PONG, &pong, bytes_of(NULL, 0));
        struct sock_msg junk = {.peer = m->peer, .frames = 1, .frame = {bytes_str("junk")}};
        sock_send(f->router, &junk);
    }
    answer_job(f, m, a, req);
    buf_fini(&rows);
}

static void *fake_thread_main(void *arg) {
    struct fake *f = arg;
    for (; f->done < f->n;) {
        struct sock_wait w = {.sock = f->router, .readable = true};
        struct sock_msg m;
        if (sock_wait(&w, 1, 20000) == 0) break;
        if (sock_recv(f->router, &m) != 1) continue;
        const struct step *s = &f->steps[f->done++];
        if (((const uint8_t *)m.frame[0].data)[3] != (uint8_t)s->expect) f->wrong++;
        for (int i = 0; i < 4 && s->answer[i] != NOTHING; i++) answer(f, &m, s->answer[i]);
        sock_msg_fini(&m);
    }
    return NULL;
}

static struct penstock *fake_open(struct fake *f, const struct step *steps, int n) {
    char err[PENSTOCK_ERR_BYTES];
    *f = (struct fake){.steps = steps, .n = n, .dir = "/tmp/penstock-fake-XXXXXX"};
    cr_assert_not_null(mkdtemp(f->dir));
    snprintf(f->endpoint, sizeof f->endpoint, "ipc://%s/s", f->dir);
    cr_assert_eq(sock_ctx_open(&f->ctx), 0);
    struct sock_config c = {.type = SOCK_ROUTER, .bind = true, .endpoint = f->endpoint};
    cr_assert_eq(sock_open(&f->router, f->ctx, &c, err, sizeof err), 0, "%s", err);
    cr_assert_eq(thread_start(&f->thread, "fake", fake_thread_main, f), 0);
    struct penstock *p;
    cr_assert_eq(penstock_open(&p, f->endpoint, err, sizeof err), 0, "%s", err);
    return p;
}

static void fake_close(struct fake *f, struct penstock *p) {
    char path[64];
    penstock_close(p);
    pthread_join(f->thread, NULL);
    cr_assert_eq(f->done, f->n, "the broker saw %d messages of %d", f->done, f->n);
    cr_assert_eq(f->wrong, 0);
    sock_close(f->router);
    sock_ctx_close(f->ctx);
    snprintf(path, sizeof path, "%s/s", f->dir);
    unlink(path);
    rmdir(f->dir);
}

static const char job[] = "0000010000000";

Test(client, a_submit_is_accepted_whatever_else_arrives) {
    static const struct step steps[] = {{MSG_SUBMIT, {STRANGE, ACCEPT}}};
    struct fake f;
    struct penstock *p = fake_open(&f, steps, 1);
    struct penstock_accepted a;
    char err[PENSTOCK_ERR_BYTES] = "";
    struct penstock_job j = {.kind = "text.embed", .body_json = "{\"texts\": [\"x\"]}"};
    cr_assert_eq(penstock_submit(p, &j, &a, 10000, err, sizeof err), 0, "%s", err);
    cr_assert_eq(a.seed, 42);
    cr_assert(a.existing);
    cr_assert_str_eq(a.state, "ready");
    cr_assert_eq(strlen(a.job), 13);
    fake_close(&f, p);
}

Test(client, a_refusal_comes_in_parts_and_in_words) {
    static const struct step steps[] = {{MSG_SUBMIT, {REFUSE}}, {MSG_PING, {PONG_}}};
    struct fake f;
    struct penstock *p = fake_open(&f, steps, 2);
    struct penstock_accepted a;
    struct penstock_pong pong;
    char err[PENSTOCK_ERR_BYTES] = "";
    struct penstock_job j = {.kind = "text.embed"};
    cr_assert_eq(penstock_submit(p, &j, &a, 10000, err, sizeof err), PENSTOCK_REFUSED);
    cr_assert_str_eq(err, "field 'texts' is missing; give it (missing, again in 9 ms)");
    cr_assert_str_eq(penstock_refusal(p)->field, "texts");
    cr_assert_eq(penstock_refusal(p)->retry_after_ms, 9);
    cr_assert_eq(penstock_ping(p, &pong, 10000, err, sizeof err), 0);
    cr_assert_str_eq(pong.version, "9");
    cr_assert_eq(penstock_refusal(p)->code[0], '\0', "only of the last call");
    fake_close(&f, p);
}

Test(client, many_jobs_go_in_few_messages_and_each_has_its_verdict) {
    enum { N = 2500 };
    static const struct step steps[] = {{MSG_SUBMIT_MANY, {ACCEPT_MANY}},
                                        {MSG_SUBMIT_MANY, {ACCEPT_MANY}},
                                        {MSG_SUBMIT_MANY, {ACCEPT_MANY}}};
    static struct penstock_item items[N];
    struct penstock_verdict *v = calloc(N, sizeof *v);
    struct fake f;
    struct penstock *p = fake_open(&f, steps, 3);
    char err[PENSTOCK_ERR_BYTES] = "";
    size_t answered;
    for (int i = 0; i < N; i++)
        items[i] = (struct penstock_item){.body_json = "{\"texts\": [\"x\"]}",
                                          .key = i % 2 ? "key" : NULL};
    struct penstock_job common = {.kind = "text.embed"};
    cr_assert_eq(penstock_submit_many(p, &common, items, N, v, &answered, 10000, err, sizeof err),
                 0, "%s", err);
    cr_assert_eq(answered, N);
    for (int i = 0; i < N; i++) {
        uint64_t id;
        cr_assert_eq(v[i].refused, i % 1024 % 3 == 2);
        if (v[i].refused) {
            cr_assert_str_eq(v[i].refusal.code, "full");
            cr_assert_eq(v[i].refusal.retry_after_ms, 5);
            continue;
        }
        cr_assert_eq(job_id_parse(bytes_str(v[i].accepted.job), &id), 0);
        cr_assert(id == (uint64_t)i + 1 && v[i].accepted.existing == (i % 2 == 1));
    }
    fake_close(&f, p);
    free(v);
}

Test(client, many_large_jobs_are_cut_into_frames) {
    static const struct step steps[] = {{MSG_SUBMIT_MANY, {ACCEPT_MANY}},
                                        {MSG_SUBMIT_MANY, {ACCEPT_MANY}}};
    static uint8_t body[400000], whole[1 << 20];
    struct penstock_item items[4];
    struct penstock_verdict v[4];
    struct fake f;
    struct penstock *p = fake_open(&f, steps, 2);
    char err[PENSTOCK_ERR_BYTES] = "";
    size_t answered;
    struct buf b = {0};
    struct packer q = packer_of(&b);
    pack_map(&q, 1);
    pack_str(&q, "text");
    memset(body, 'x', sizeof body);
    pack_strn(&q, bytes_of(body, sizeof body));
    for (int i = 0; i < 4; i++) items[i] = (struct penstock_item){b.data, b.len, NULL, NULL};
    struct penstock_job common = {.kind = "text.embed"};
    cr_assert_eq(penstock_submit_many(p, &common, items, 4, v, &answered, 10000, err, sizeof err),
                 0, "%s", err);
    cr_assert(answered == 4 && v[2].accepted.job[0]);
    items[0] = (struct penstock_item){whole, sizeof whole, NULL, NULL};
    cr_assert_eq(penstock_submit_many(p, &common, items, 1, v, &answered, 100, err, sizeof err),
                 PENSTOCK_INVALID);
    cr_assert_not_null(strstr(err, "submit it alone"));
    buf_fini(&b);
    fake_close(&f, p);
}

Test(client, what_may_be_repeated_is_asked_again_when_no_answer_comes) {
    static const struct step steps[] = {{MSG_PING, {NOTHING}}, {MSG_PING, {PONG_}}};
    struct fake f;
    struct penstock *p = fake_open(&f, steps, 2);
    struct penstock_pong pong;
    char err[PENSTOCK_ERR_BYTES] = "";
    cr_assert_eq(penstock_ping(p, &pong, 20000, err, sizeof err), 0, "%s", err);
    fake_close(&f, p);
}

Test(client, a_submit_without_a_key_is_never_repeated) {
    static const struct step steps[] = {{MSG_SUBMIT, {NOTHING}}};
    struct fake f;
    struct penstock *p = fake_open(&f, steps, 1);
    struct penstock_accepted a;
    char err[PENSTOCK_ERR_BYTES] = "";
    struct penstock_job j = {.kind = "text.embed"};
    cr_assert_eq(penstock_submit(p, &j, &a, 5000, err, sizeof err), PENSTOCK_TIMEOUT);
    cr_assert(strstr(err, "--key"), "%s", err);
    fake_close(&f, p);
}

Test(client, a_submit_with_a_key_is_repeated) {
    static const struct step steps[] = {{MSG_SUBMIT, {NOTHING}}, {MSG_SUBMIT, {ACCEPT}}};
    struct fake f;
    struct penstock *p = fake_open(&f, steps, 2);
    struct penstock_accepted a;
    char err[PENSTOCK_ERR_BYTES] = "";
    struct penstock_job j = {.kind = "text.embed", .key = "k"};
    cr_assert_eq(penstock_submit(p, &j, &a, 20000, err, sizeof err), 0, "%s", err);
    fake_close(&f, p);
}

Test(client, a_result_in_parts_is_put_together) {
    static const struct step steps[] = {
        {MSG_WAIT, {DONE}}, {MSG_RESULT_GET, {FAILED}}, {MSG_RESULT_GET, {STATE}}};
    struct fake f;
    struct penstock *p = fake_open(&f, steps, 3);
    struct penstock_result r;
    char err[PENSTOCK_ERR_BYTES] = "";
    cr_assert_eq(penstock_wait(p, job, 10000, &r, err, sizeof err), 0, "%s", err);
    cr_assert(r.terminal);
    cr_assert_str_eq(r.json, "{\"dim\": 2}");
    cr_assert_eq(r.body_bytes, 6);
    penstock_result_free(&r);
    cr_assert_eq(penstock_result(p, job, &r, 10000, err, sizeof err), 0, "%s", err);
    cr_assert_str_eq(r.error_class, "permanent");
    cr_assert_str_eq(r.reason, "no such model");
    cr_assert_null(r.json);
    penstock_result_free(&r);
    cr_assert_eq(penstock_result(p, job, &r, 10000, err, sizeof err), 0, "%s", err);
    cr_assert_not(r.terminal);
    cr_assert_eq(r.stage, 1);
    penstock_result_free(&r);
    penstock_result_free(&r);
    fake_close(&f, p);
}

Test(client, a_wait_of_nothing_looks_once) {
    static const struct step steps[] = {{MSG_WAIT, {STATE}}};
    struct fake f;
    struct penstock *p = fake_open(&f, steps, 1);
    struct penstock_result r;
    char err[PENSTOCK_ERR_BYTES] = "";
    cr_assert_eq(penstock_wait(p, job, 0, &r, err, sizeof err), 0, "%s", err);
    cr_assert_not(r.terminal);
    cr_assert_str_eq(r.state, "leased");
    fake_close(&f, p);
}

Test(client, rows_are_typed_and_pages_chained) {
    static const struct step steps[] = {{MSG_LIST, {ROWS}}};
    struct fake f;
    struct penstock *p = fake_open(&f, steps, 1);
    struct penstock_list l;
    char err[PENSTOCK_ERR_BYTES] = "";
    cr_assert_eq(penstock_list(p, NULL, &l, 10000, err, sizeof err), 0, "%s", err);
    cr_assert_eq(l.n, 1);
    cr_assert_str_eq(l.rows[0].job, "0000000000005");
    cr_assert_eq(l.rows[0].accepted_ms, 77);
    cr_assert_str_eq(l.next, "0000000000005");
    penstock_list_free(&l);
    penstock_list_free(&l);
    fake_close(&f, p);
}

static int count_event(void *arg, const struct penstock_event *e) {
    char *seen = arg;
    strcat(strcat(seen, e->text ? e->text : "?"), " ");
    return strcmp(seen, "ready ready ") == 0 ? -1 : 0;
}

Test(client, a_stream_that_falls_silent_is_begun_anew_without_repeating_the_state) {
    static const struct step steps[] = {{MSG_EVENTS, {EVENT_STATE}},
                                        {MSG_EVENTS_STOP, {NOTHING}},
                                        {MSG_EVENTS, {EVENT_STATE, EVENT_LAST}}};
    struct fake f;
    struct penstock *p = fake_open(&f, steps, 3);
    char err[PENSTOCK_ERR_BYTES] = "", seen[64] = "";
    cr_assert_eq(penstock_events(p, job, count_event, seen, 30000, err, sizeof err), 0, "%s", err);
    cr_assert_str_eq(seen, "ready done ");
    fake_close(&f, p);
}

Test(client, a_callback_may_stop_a_stream) {
    static const struct step steps[] = {{MSG_EVENTS, {EVENT_STATE, EVENT_STATE}},
                                        {MSG_EVENTS_STOP, {NOTHING}}};
    struct fake f;
    struct penstock *p = fake_open(&f, steps, 2);
    char err[PENSTOCK_ERR_BYTES] = "", seen[64] = "";
    int rc = penstock_events(p, job, count_event, seen, 30000, err, sizeof err);
    cr_assert_eq(rc, PENSTOCK_STOPPED, "%d %s", rc, err);
    fake_close(&f, p);
}

Test(client, no_broker_is_said_in_time_with_the_next_step) {
    struct penstock *p;
    struct penstock_pong pong;
    char err[PENSTOCK_ERR_BYTES] = "";
    int64_t start_ms = clock_mono_ms();
    cr_assert_eq(penstock_open(&p, "ipc:///tmp/penstock-nobody-here", err, sizeof err), 0);
    cr_assert_eq(penstock_ping(p, &pong, 200, err, sizeof err), PENSTOCK_UNREACHABLE);
    cr_assert(strstr(err, "penstock up") && strstr(err, "nobody-here"), "%s", err);
    cr_assert_lt(clock_mono_ms() - start_ms, 10000);
    penstock_close(p);
}

Test(client, arguments_that_no_broker_would_take_are_refused_here) {
    struct penstock *p;
    struct penstock_accepted a;
    struct penstock_result r;
    char err[PENSTOCK_ERR_BYTES] = "";
    cr_assert_eq(penstock_open(&p, "tcp://10.1.2.3:7790", err, sizeof err), PENSTOCK_INVALID);
    cr_assert_null(p);
    cr_assert_eq(penstock_open(&p, "ipc:///tmp/penstock-nobody-here", err, sizeof err), 0);
    cr_assert_eq(penstock_wait(p, "123", 0, &r, err, sizeof err), PENSTOCK_INVALID);
    cr_assert_eq(penstock_wait(p, NULL, 0, &r, err, sizeof err), PENSTOCK_INVALID);
    struct penstock_job j = {.kind = NULL};
    cr_assert_eq(penstock_submit(p, &j, &a, 100, err, sizeof err), PENSTOCK_INVALID);
    j = (struct penstock_job){.kind = "k", .body_json = "{"};
    cr_assert_eq(penstock_submit(p, &j, &a, 100, err, sizeof err), PENSTOCK_INVALID);
    cr_assert(strstr(err, "line 1"), "%s", err);
    char *large = calloc(1, LIMIT_BODY_BYTES + 1);
    j = (struct penstock_job){.kind = "k", .body = large, .body_bytes = LIMIT_BODY_BYTES + 1};
    cr_assert_eq(penstock_submit(p, &j, &a, 100, err, sizeof err), PENSTOCK_INVALID);
    cr_assert(strstr(err, "at most 16777216"), "%s", err);
    free(large);
    j = (struct penstock_job){.kind = "k", .has_priority = true, .priority = 10};
    cr_assert_eq(penstock_submit(p, &j, &a, 100, err, sizeof err), PENSTOCK_INVALID);
    penstock_close(p);
    penstock_close(NULL);
}

/* ---- many at once ---- */

struct bulk {
    uint32_t given, n, accepted, ended, stop_after;
    int rc[4];
    char state[4][17], why[PENSTOCK_ERR_BYTES];
};

static int bulk_next(void *arg, struct penstock_job *j, uint64_t *tag) {
    struct bulk *b = arg;
    if (b->given == b->n) return 0;
    *tag = b->given++;
    *j = (struct penstock_job){.kind = "text.embed", .body_json = "{}", .key = "k"};
    return 1;
}

static void bulk_accepted(void *arg, uint64_t tag, const struct penstock_accepted *a) {
    struct bulk *b = arg;
    cr_assert_lt(tag, b->n);
    cr_assert_eq(strlen(a->job), 13);
    b->accepted++;
}

static void bulk_ended(void *arg, uint64_t tag, int rc, const struct penstock_result *r,
                       const char *why) {
    struct bulk *b = arg;
    b->rc[tag] = rc;
    snprintf(b->state[tag], sizeof b->state[tag], "%s", r->state);
    snprintf(b->why, sizeof b->why, "%s", why);
    b->ended++;
}

static int bulk_tick(void *arg) {
    struct bulk *b = arg;
    return b->stop_after && b->accepted >= b->stop_after;
}

static int run_bulk(struct fake *f, const struct step *steps, int n_steps, struct bulk *b,
                    uint32_t window, bool results, int silent_ms) {
    struct penstock *p = fake_open(f, steps, n_steps);
    struct penstock_bulk how = {.next = bulk_next,
                                .accepted = bulk_accepted,
                                .ended = bulk_ended,
                                .tick = bulk_tick,
                                .arg = b,
                                .window = window,
                                .results = results};
    char err[PENSTOCK_ERR_BYTES] = "";
    int rc = penstock_bulk(p, &how, silent_ms, err, sizeof err);
    fake_close(f, p);
    return rc;
}

Test(bulk, what_is_refused_for_now_is_submitted_again_and_its_result_comes) {
    static const struct step steps[] = {{MSG_SUBMIT, {REFUSE}},
                                        {MSG_SUBMIT, {STRANGE, ACCEPT}},
                                        {MSG_WAIT, {STATE}},
                                        {MSG_WAIT, {DONE}}};
    struct fake f;
    struct bulk b = {.n = 1};
    cr_assert_eq(run_bulk(&f, steps, 4, &b, 0, true, 20000), 0);
    cr_assert_eq(b.accepted, 1);
    cr_assert_eq(b.ended, 1);
    cr_assert_eq(b.rc[0], 0);
    cr_assert_str_eq(b.state[0], "done");
}

Test(bulk, what_a_lost_connection_swallowed_is_said_again) {
    static const struct step steps[] = {{MSG_SUBMIT, {NOTHING}},
                                        {MSG_SUBMIT, {ACCEPT}},
                                        {MSG_WAIT, {NOTHING}},
                                        {MSG_WAIT, {FAILED}}};
    struct fake f;
    struct bulk b = {.n = 1};
    cr_assert_eq(run_bulk(&f, steps, 4, &b, 0, true, 60000), 0);
    cr_assert_eq(b.accepted, 1);
    cr_assert_str_eq(b.state[0], "failed");
}

Test(bulk, no_more_than_the_window_is_under_way) {
    static const struct step steps[] = {
        {MSG_SUBMIT, {ACCEPT}}, {MSG_SUBMIT, {ACCEPT}}, {MSG_SUBMIT, {ACCEPT}}};
    struct fake f;
    struct bulk b = {.n = 3};
    cr_assert_eq(run_bulk(&f, steps, 3, &b, 1, false, 20000), 0);
    cr_assert_eq(b.ended, 3);
    cr_assert_str_eq(b.state[2], "ready", "without results it has ended when it is accepted");
}

Test(bulk, it_stops_when_it_is_told_to) {
    static const struct step steps[] = {{MSG_SUBMIT, {ACCEPT}}};
    struct fake f;
    struct bulk b = {.n = 1, .stop_after = 1};
    cr_assert_eq(run_bulk(&f, steps, 1, &b, 0, true, 20000), PENSTOCK_STOPPED);
    cr_assert_eq(b.ended, 0);
}

Test(bulk, a_broker_that_is_silent_is_unreachable) {
    static const struct step steps[] = {{MSG_SUBMIT, {NOTHING}}};
    struct fake f;
    struct bulk b = {.n = 1};
    cr_assert_eq(run_bulk(&f, steps, 1, &b, 0, true, 500), PENSTOCK_UNREACHABLE);
}

static int next_without_key(void *arg, struct penstock_job *j, uint64_t *tag) {
    int more = bulk_next(arg, j, tag);
    j->key = NULL;
    return more;
}

Test(bulk, a_job_without_a_key_is_no_job_of_a_bulk) {
    struct fake f;
    struct bulk b = {.n = 2};
    struct penstock *p = fake_open(&f, NULL, 0);
    struct penstock_bulk how = {.next = next_without_key, .ended = bulk_ended, .arg = &b};
    cr_assert_eq(penstock_bulk(p, &how, 1000, NULL, 0), 0);
    cr_assert_eq(b.ended, 2);
    cr_assert_eq(b.rc[1], PENSTOCK_INVALID);
    cr_assert(strstr(b.why, "idempotency key"));
    fake_close(&f, p);
}
