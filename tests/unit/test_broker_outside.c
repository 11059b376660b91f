#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/thread.h"
#include "broker/caps.h"
#include "broker/health.h"
#include "broker/peer.h"
#include "broker/ready.h"
#include "broker/stall.h"
#include "broker/tally.h"
#include "broker/tenant.h"

static struct pipeline_stage stages[] = {{.name = "a", .run = "test.a"},
                                         {.name = "b", .run = "test.b", .model = "m"}};
static struct pipeline two = {.name = "two", .n_stages = 2, .stages = stages};
static struct tenant somebody = {.name = "somebody"};

static struct job *job(uint64_t id, enum job_state state) {
    struct job *j = job_new(&two);
    cr_assert_not_null(j);
    j->id = id;
    j->tenant = &somebody;
    j->state = state;
    j->body.bytes = 100;
    return j;
}

/* ---- histogram ---- */

Test(histogram, a_duration_counts_in_the_first_bucket_that_holds_it) {
    struct histogram h = {0};
    for (uint32_t i = 0; i < HISTOGRAM_BOUNDS; i++) {
        if (i) cr_assert_gt(histogram_bound_us[i], histogram_bound_us[i - 1]);
        histogram_add(&h, histogram_bound_us[i]);
        histogram_add(&h, histogram_bound_us[i] + 1);
    }
    cr_assert_eq(h.count[0], 1);
    for (uint32_t i = 1; i < HISTOGRAM_BOUNDS; i++) cr_assert_eq(h.count[i], 2, "bucket %u", i);
    cr_assert_eq(h.count[HISTOGRAM_BOUNDS], 1);
    cr_assert_eq(histogram_count(&h), 2 * HISTOGRAM_BOUNDS);
}

/* ---- tally ---- */

Test(tally, a_job_counts_once_where_it_stands_and_nowhere_after_its_end) {
    static struct tally t;
    struct job *j = job(1, JOB_ACCEPTED);
    tally_place(&t, j);
    cr_assert_eq(t.n, 0, "what is not accepted yet does not wait");
    j->state = JOB_READY;
    tally_place(&t, j);
    tally_place(&t, j);
    cr_assert_eq(t.row[0].ready, 1);
    cr_assert_eq(t.row[0].bytes, 100);
    j->state = JOB_LEASED;
    tally_place(&t, j);
    cr_assert(t.row[0].ready == 0 && t.row[0].leased == 1 && t.row[0].in == 1);
    j->stage = 1;
    tally_place(&t, j);
    cr_assert(t.n == 2 && t.row[0].leased == 0 && t.row[0].out == 1 && t.row[0].bytes == 0);
    cr_assert_str_eq(t.row[1].stage, "b");
    cr_assert(t.row[1].leased == 1 && t.row[1].in == 1);
    j->state = JOB_DONE;
    tally_place(&t, j);
    tally_remove(&t, j);
    cr_assert(t.row[1].leased == 0 && t.row[1].out == 1 && t.row[1].bytes == 0);
    job_free(j);
}

Test(tally, a_pipeline_that_lies_where_another_was_is_counted_by_its_own_name) {
    static struct tally t;
    struct pipeline p = two;
    struct job *j = job(1, JOB_READY);
    j->pipeline = &p;
    tally_place(&t, j);
    tally_remove(&t, j);
    p.name = "other";
    tally_place(&t, j);
    cr_assert_eq(t.n, 2);
    cr_assert_str_eq(t.row[1].pipeline, "other");
    job_free(j);
}

Test(tally, more_stages_than_rows_share_the_last_one) {
    static struct tally t;
    static char names[TALLY_ROWS + 8][16];
    static struct pipeline many[TALLY_ROWS + 8];
    struct job *jobs[TALLY_ROWS + 8];
    for (uint32_t i = 0; i < TALLY_ROWS + 8; i++) {
        snprintf(names[i], sizeof names[i], "p%u", i);
        many[i] = two;
        many[i].name = names[i];
        jobs[i] = job(i + 1, JOB_READY);
        jobs[i]->pipeline = &many[i];
        tally_place(&t, jobs[i]);
    }
    cr_assert_eq(t.n, TALLY_ROWS);
    cr_assert_str_eq(t.row[TALLY_ROWS - 1].pipeline, "other");
    cr_assert_eq(t.row[TALLY_ROWS - 1].ready, 9);
    for (uint32_t i = 0; i < TALLY_ROWS + 8; i++) {
        tally_remove(&t, jobs[i]);
        job_free(jobs[i]);
    }
    cr_assert_eq(t.row[TALLY_ROWS - 1].ready, 0);
    char run[16];
    for (uint32_t i = 0; i < 2 * TALLY_RUNS; i++) {
        snprintf(run, sizeof run, "run%u", i);
        cr_assert_not_null(tally_times_of(&t, run));
    }
    cr_assert_eq(t.n_times, TALLY_RUNS);
    cr_assert_str_eq(t.times[TALLY_RUNS - 1].run, "other");
}

Test(tally, a_sample_tells_rates_and_the_age_of_the_oldest_ready_job) {
    static struct tally t;
    static struct ready r;
    struct job *a = job(1, JOB_READY), *b = job(2, JOB_READY);
    tally_sample(&t, &r, 1000, 50000);
    a->queued_ms = 40000;
    b->queued_ms = 45000;
    tally_place(&t, a);
    tally_place(&t, b);
    cr_assert_eq(ready_add(&r, a), 0);
    cr_assert_eq(ready_add(&r, b), 0);
    for (int s = 2; s < 200; s++) {
        for (int n = 0; n < 5; n++) { /* five jobs a second pass by */
            t.row[0].in++;
            t.row[0].out++;
        }
        tally_sample(&t, &r, s * 1000, 50000);
    }
    cr_assert_eq(t.row[0].oldest_ms, 10000);
    cr_assert_float_eq(t.row[0].in_rate, 5.0, 0.1);
    cr_assert_float_eq(t.row[0].out_rate, 5.0, 0.1);
    ready_drop(&r, a);
    tally_sample(&t, &r, 200000, 50000);
    cr_assert_eq(t.row[0].oldest_ms, 5000);
    ready_drop(&r, b);
    ready_fini(&r);
    job_free(a);
    job_free(b);
}

/* ---- the stall alarm ---- */

Test(stall, the_alarm_rings_once_when_nothing_moved_for_its_time_and_ends_when_something_does) {
    struct stall s = {0};
    int64_t now_ms = 1000;
    cr_assert_eq(stall_look(&s, true, 7, now_ms), STALL_NOTHING);
    cr_assert_eq(stall_look(&s, true, 7, now_ms += STALL_AFTER_MS), STALL_NOTHING,
                 "the first look only learnt how much had moved");
    cr_assert_eq(stall_look(&s, true, 7, now_ms += STALL_AFTER_MS), STALL_BEGINS);
    cr_assert_eq(stall_look(&s, true, 7, now_ms += STALL_AFTER_MS), STALL_NOTHING);
    cr_assert(s.since_ms != 0 && s.stalls == 1);
    cr_assert_eq(stall_look(&s, true, 8, ++now_ms), STALL_ENDS);
    cr_assert_eq(stall_look(&s, true, 8, ++now_ms), STALL_NOTHING);
    cr_assert_eq(stall_look(&s, false, 8, now_ms += 2 * STALL_AFTER_MS), STALL_NOTHING,
                 "nobody who could: no alarm");
    cr_assert_eq(stall_look(&s, true, 8, now_ms += 2 * STALL_AFTER_MS), STALL_NOTHING,
                 "the time counts from when somebody could");
}

Test(stall, only_a_free_worker_that_can_run_a_ready_job_is_a_reason) {
    static struct ready r;
    char runs[1][LIMIT_NAME_BYTES + 1] = {"test.b"};
    struct worker w = {.runs = runs, .n_runs = 1, .credit_jobs = 4};
    struct caps none = {0};
    struct workers all = {.first = &w, .n = 1};
    struct job *j = job(1, JOB_READY);
    cr_assert_not(stall_could_move(&r, &none, &all), "nothing is queued");
    cr_assert_eq(ready_add(&r, j), 0);
    cr_assert_not(stall_could_move(&r, &none, &all), "it cannot run test.a");
    strcpy(runs[0], "test.a");
    cr_assert(stall_could_move(&r, &none, &all));
    w.choked = true;
    cr_assert(stall_could_move(&r, &none, &all),
              "one that beats and does not read is what it is for");
    w.leaving = true;
    cr_assert_not(stall_could_move(&r, &none, &all));
    w.leaving = false;
    w.leases = 1;
    cr_assert_not(stall_could_move(&r, &none, &all), "it is at work");
    ready_drop(&r, j);
    ready_fini(&r);
    job_free(j);
}

/* ---- glance and health ---- */

static void *publish(void *arg) {
    struct glance_box *box = arg;
    for (uint64_t i = 1; i <= 20000; i++) {
        struct glance *g = glance_begin(box);
        g->accepted = g->refused = g->dropped = i;
        glance_publish(box);
    }
    return NULL;
}

Test(glance, a_reader_sees_whole_copies_that_never_go_back) {
    struct glance_box *box = glance_new();
    pthread_t t;
    cr_assert_not_null(box);
    cr_assert_eq(thread_start(&t, "publish", publish, box), 0);
    uint64_t last = 0;
    while (last < 20000) {
        const struct glance *g = glance_latest(box);
        cr_assert(g->accepted == g->refused && g->refused == g->dropped, "torn");
        cr_assert_geq(g->accepted, last);
        last = g->accepted;
    }
    pthread_join(t, NULL);
    glance_free(box);
}

static uint32_t ask(struct glance_box *box, const char *path, char *text, size_t bytes) {
    struct buf body = {.max_bytes = HTTP_ANSWER_BYTES};
    struct http_answer a = {.status = 200, .body = &body};
    health_serve(box, path, &a);
    cr_assert_eq(body.error, 0);
    snprintf(text, bytes, "%.*s", (int)body.len, (const char *)body.data);
    buf_fini(&body);
    return a.status;
}

Test(health, every_phase_is_told_as_it_is) {
    struct glance_box *box = glance_new();
    char text[256];
    cr_assert_not_null(box);
    cr_assert_eq(ask(box, "/startupz", text, sizeof text), 503);
    cr_assert(strstr(text, "opened"));
    atomic_store(&box->phase, GLANCE_RECOVERING);
    atomic_store(&box->recovered, 1234);
    cr_assert_eq(ask(box, "/startupz", text, sizeof text), 503);
    cr_assert(strstr(text, "1234 jobs"), "%s", text);
    cr_assert_eq(ask(box, "/readyz", text, sizeof text), 503);
    cr_assert_eq(ask(box, "/livez", text, sizeof text), 200, "a long start is no death");
    health_ready(box);
    cr_assert_eq(ask(box, "/startupz", text, sizeof text), 200);
    cr_assert_eq(ask(box, "/readyz", text, sizeof text), 200);
    cr_assert_eq(ask(box, "/livez", text, sizeof text), 200);
    for (int c = GLANCE_DRAINING; c <= GLANCE_FULL; c++) {
        atomic_store(&box->condition, c);
        cr_assert_eq(ask(box, "/readyz", text, sizeof text), 503, "%s", text);
        cr_assert_eq(ask(box, "/livez", text, sizeof text), 200);
    }
    atomic_store(&box->condition, GLANCE_ACCEPTING);
    atomic_store(&box->turned_ms, clock_mono_ms() - HEALTH_STUCK_MS - 1);
    cr_assert_eq(ask(box, "/livez", text, sizeof text), 503);
    cr_assert(strstr(text, "stuck"));
    cr_assert_eq(ask(box, "/readyz", text, sizeof text), 503);
    cr_assert_eq(ask(box, "/startupz", text, sizeof text), 200, "it did start");
    cr_assert_eq(ask(box, "/nowhere", text, sizeof text), 404);
    glance_free(box);
}

Test(health, a_name_with_quotes_stays_within_its_label_and_is_no_html) {
    struct glance_box *box = glance_new();
    cr_assert_not_null(box);
    struct glance *g = glance_begin(box);
    g->at_ms = 1;
    g->n_rows = 1;
    strcpy(g->row[0].pipeline, "a\"b\\c\n<i>");
    glance_publish(box);
    char *text = malloc(65536);
    cr_assert_not_null(text);
    cr_assert_eq(ask(box, "/metrics", text, 65536), 200);
    cr_assert(strstr(text, "depth{pipeline=\"a\\\"b\\\\c\\n<i>\",stage=\"\"} 0\n"), "%s", text);
    cr_assert_eq(ask(box, "/status", text, 65536), 200);
    cr_assert_null(strstr(text, "<i>"));
    free(text);
    glance_free(box);
}

/* ---- http ---- */

static void serve_path(void *arg, const char *path, struct http_answer *out) {
    (void)arg;
    if (strcmp(path, "/long") == 0) buf_extend(out->body, HTTP_ANSWER_BYTES + 1);
    buf_printf(out->body, "you asked for %s", path);
}

static struct http *server(void) {
    struct http *h = NULL;
    char err[256];
    struct http_config c = {.address = "127.0.0.1:0", .serve = serve_path};
    cr_assert_eq(http_open(&h, &c, err, sizeof err), 0, "%s", err);
    return h;
}

static int dial(const struct http *h) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    to.sin_port = htons((uint16_t)atoi(strrchr(http_address(h), ':') + 1));
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct timeval patience = {.tv_sec = 20};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    cr_assert_eq(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

/* The answer to one request, as far as it fits. */
static void talk(const struct http *h, const char *request, char *out, size_t bytes) {
    int fd = dial(h);
    size_t len = 0;
    cr_assert_eq(write(fd, request, strlen(request)), (ssize_t)strlen(request));
    for (ssize_t n; len + 1 < bytes && (n = read(fd, out + len, bytes - 1 - len)) > 0;)
        len += (size_t)n;
    out[len] = '\0';
    close(fd);
}

Test(http, get_and_head_are_answered_and_nothing_else, .timeout = 60) {
    struct http *h = server();
    char text[2048];
    talk(h, "GET /a HTTP/1.0\r\n\r\n", text, sizeof text);
    cr_assert(strstr(text, " 200 ") && strstr(text, "you asked for /a"), "%s", text);
    talk(h, "HEAD /a HTTP/1.0\r\n\r\n", text, sizeof text);
    cr_assert(strstr(text, " 200 ") && !strstr(text, "you asked"), "%s", text);
    talk(h, "POST /a HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc", text, sizeof text);
    cr_assert(strstr(text, " 405 ") && strstr(text, "Allow: GET, HEAD"), "%s", text);
    talk(h, "GET /long HTTP/1.0\r\n\r\n", text, sizeof text);
    cr_assert(strstr(text, " 500 "), "%s", text);
    talk(h, "nonsense\r\n\r\n", text, sizeof text);
    cr_assert_null(strstr(text, " 200 "));
    http_close(h);
}

Test(http, clients_that_say_nothing_are_few_at_a_time_and_make_room_again, .timeout = 60) {
    struct http *h = server();
    char text[2048];
    int silent[HTTP_CONNECTIONS * 2];
    for (uint32_t i = 0; i < HTTP_CONNECTIONS * 2; i++) silent[i] = dial(h);
    for (uint32_t i = 0; i < HTTP_CONNECTIONS * 2; i++) close(silent[i]);
    bool answered = false;
    for (int i = 0; i < 100 && !answered; i++) {
        talk(h, "GET /a HTTP/1.0\r\n\r\n", text, sizeof text);
        answered = strstr(text, " 200 ") != NULL;
        if (!answered) usleep(50000);
    }
    cr_assert(answered);
    http_close(h);
}

Test(http, an_address_beyond_the_loopback_has_to_be_asked_for) {
    struct http *h = NULL;
    char err[256];
    struct http_config c = {.address = "0.0.0.0:0", .serve = serve_path};
    cr_assert_eq(http_open(&h, &c, err, sizeof err), -EPERM);
    cr_assert(strstr(err, "--http-anywhere"));
    c.anywhere = true;
    cr_assert_eq(http_open(&h, &c, err, sizeof err), 0, "%s", err);
    http_close(h);
    static const char *const bad[] = {
        "",     ":80",   "127.0.0.1", "127.0.0.1:", "127.0.0.1:x",
        "[::1", "[]:80", "::1:80x",   "host:80",    "127.0.0.1:70000"};
    c.anywhere = false;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        c.address = bad[i];
        cr_assert_eq(http_open(&h, &c, err, sizeof err), -EINVAL, "%s", bad[i]);
    }
}
