/* slo.c - a latency objective at growing rates of arrival: what a worker gets done, and how late.
 *
 * usage: slo [--model DIR] [--threads N] [--slo MS] [--seconds N]
 *
 * A real worker computes the vectors of jobs of one sentence of 8 to 48 words. This program is
 * its broker: it holds at most 64 leases out; a job may wait here too, and its time is from its
 * arrival to its last outcome. The peak is what the worker does in batches of 32 with 64 jobs
 * always waiting; the rates are parts of it, arrivals a Poisson process. A batch is told by the run
 * time that its members share. Prints a table and writes build/bench/slo.json.
 *
 * Units: jobs a second, milliseconds.  Owner, errors: a program; it exits 1 with a message. */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

#include "base/clock.h"
#include "base/rng.h"
#include "schemas/msg.h"
#include "schemas/pack.h"
#include "tests/bench/report/report.h"

enum { CREDIT = 64, JOBS_MAX = 200000, STAGES = 3, WARM_MS = 1500, RATES = 7 };

struct job {
    int64_t arrived_ns, ended_ns; /* 0: not yet */
};
struct bench {
    void *ctx, *socket;
    zmq_msg_t peer; /* the worker's routing id */
    pid_t worker;
    uint64_t state;
    struct buf header, body;
    struct job *job;         /* of this case */
    uint32_t arrived, given; /* jobs of it */
    uint32_t ended, batches;
    uint64_t base, run_us; /* job ids of the case begin at base */
    uint32_t slo_ms;       /* 0: batches of 32, a wait of 2 ms */
};

static void die(const char *what) {
    fprintf(stderr, "slo: %s\n", what);
    exit(1);
}

static void say(struct bench *b, enum msg_type type, const void *message, struct bytes payload) {
    uint8_t tag[MSG_TAG_BYTES];
    zmq_msg_t to;
    buf_clear(&b->header);
    if (msg_encode(type, message, tag, &b->header) != 0) die("a message cannot be encoded");
    zmq_msg_init(&to);
    zmq_msg_copy(&to, &b->peer);
    if (zmq_msg_send(&to, b->socket, ZMQ_SNDMORE) < 0 ||
        zmq_send(b->socket, tag, sizeof tag, ZMQ_SNDMORE) < 0 ||
        zmq_send(b->socket, b->header.data, b->header.len, payload.len ? ZMQ_SNDMORE : 0) < 0 ||
        (payload.len && zmq_send(b->socket, payload.data, payload.len, 0) < 0))
        die(zmq_strerror(errno));
}

/* ---- a job ---- */

static struct bytes plan_of(const struct bench *b, struct buf *out) {
    static const char *const runs[STAGES] = {"encode.texts", "infer.embed", "post.embed"};
    struct packer p = packer_of(out);
    pack_array(&p, STAGES);
    for (int i = 0; i < STAGES; i++) {
        pack_map(&p, 4u + (i == 1) + (b->slo_ms && i == 1));
        pack_kv_str(&p, "name", runs[i]);
        pack_kv_str(&p, "run", runs[i]);
        pack_kv_str(&p, "model", "minilm");
        pack_kv_u64(&p, "timeout_ms", 60000);
        if (i != 1) continue;
        pack_kv_u64(&p, "batch_max", 32);
        if (b->slo_ms) pack_kv_u64(&p, "batch_slo_ms", b->slo_ms);
    }
    return buf_bytes(out);
}

static struct bytes body_of(struct bench *b) {
    static const char *const words[] = {"the ",   "press ", "weld ",     "camera ", "part ",
                                        "seam ",  "line ",  "pressure ", "on ",     "was ",
                                        "found ", "below ", "limit ",    "after ",  "shift "};
    char text[1024] = "";
    size_t at = 0;
    for (uint64_t n = 8 + rng_next(&b->state) % 41; n > 0; n--)
        at += (size_t)snprintf(text + at, sizeof text - at, "%s",
                               words[rng_next(&b->state) % (sizeof words / sizeof *words)]);
    buf_clear(&b->body);
    struct packer p = packer_of(&b->body);
    pack_map(&p, 1);
    pack_str(&p, "texts");
    pack_array(&p, 1);
    pack_strn(&p, bytes_of(text, at));
    return buf_bytes(&b->body);
}

static void lease(struct bench *b) {
    struct buf plan = {0};
    struct msg_lease m = {.job = b->base + b->given,
                          .kind = bytes_str("text.embed"),
                          .attempt = b->base + b->given,
                          .priority = 4,
                          .body_parts = 1,
                          .plan = plan_of(b, &plan)};
    say(b, MSG_LEASE, &m, body_of(b));
    buf_fini(&plan);
    b->given++;
}

/* ---- what the worker says ---- */

static void on_done(struct bench *b, const struct msg_stage_done *m) {
    struct msg_stage_ack ack = {
        .job = m->job, .stage = m->stage, .attempt = m->attempt, .verdict = bytes_str("recorded")};
    say(b, MSG_STAGE_ACK, &ack, (struct bytes){NULL, 0});
    if (m->job < b->base || m->job - b->base >= b->given) return;
    if (m->stage == 1 && m->run_us != b->run_us) {
        b->run_us = m->run_us;
        b->batches++;
    }
    if (m->stage + 1 < STAGES) return;
    b->job[m->job - b->base].ended_ns = clock_mono_ns();
    b->ended++;
}

/* One message, if one is there; true: there was. */
static bool hear(struct bench *b) {
    zmq_msg_t frame[8];
    uint32_t n = 0;
    struct refusal why;
    union {
        struct msg_register reg;
        struct msg_heartbeat beat;
        struct msg_stage_done done;
    } m;
    for (bool more = true; more && n < 8; n++) {
        zmq_msg_init(&frame[n]);
        if (zmq_msg_recv(&frame[n], b->socket, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(&frame[n]);
            return false;
        }
        more = zmq_msg_more(&frame[n]);
    }
    if (n < 3 || zmq_msg_size(&frame[1]) != MSG_TAG_BYTES) die("not a message");
    uint8_t type = ((uint8_t *)zmq_msg_data(&frame[1]))[MSG_TAG_BYTES - 1];
    struct bytes header = bytes_of(zmq_msg_data(&frame[2]), zmq_msg_size(&frame[2]));
    if (type == MSG_STAGE_FAILED) die("a job has failed");
    if (type == MSG_REGISTER || type == MSG_HEARTBEAT || type == MSG_STAGE_DONE)
        if (msg_decode(msg_desc(type), header, &m, &why) != 0) die(why.message);
    zmq_msg_copy(&b->peer, &frame[0]);
    if (type == MSG_REGISTER) {
        struct msg_registered r = {
            .session = m.reg.session, .epoch = 1, .heartbeat_ms = 500, .lease_ms = 60000};
        say(b, MSG_REGISTERED, &r, (struct bytes){NULL, 0});
    } else if (type == MSG_HEARTBEAT) {
        struct msg_heartbeat_ack r = {.epoch = 1};
        say(b, MSG_HEARTBEAT_ACK, &r, (struct bytes){NULL, 0});
    } else if (type == MSG_STAGE_DONE) {
        on_done(b, &m.done);
    }
    for (uint32_t i = 0; i < n; i++) zmq_msg_close(&frame[i]);
    return true;
}

static void start(struct bench *b, const char *dir, const char *threads) {
    char endpoint[128], model[700], program[512];
    const char *bin = getenv("PENSTOCK_BIN");
    snprintf(endpoint, sizeof endpoint, "ipc:///tmp/penstock-slo-%ld", (long)getpid());
    snprintf(model, sizeof model, "minilm=%s", dir);
    snprintf(program, sizeof program, "%s/penstock-worker", bin ? bin : "build/bin");
    b->ctx = zmq_ctx_new();
    b->socket = zmq_socket(b->ctx, ZMQ_ROUTER);
    if (zmq_bind(b->socket, endpoint) != 0) die(zmq_strerror(errno));
    zmq_msg_init(&b->peer);
    b->worker = fork();
    if (b->worker == 0) {
        execl(program, program, "--connect", endpoint, "--stages",
              "encode.texts,infer.embed,post.embed", "--model", model, "--threads", threads,
              "--log-level", "warn", (char *)NULL);
        _exit(127);
    }
    for (int64_t until = clock_mono_ms() + 30000; zmq_msg_size(&b->peer) == 0;) {
        zmq_pollitem_t item = {.socket = b->socket, .events = ZMQ_POLLIN};
        zmq_poll(&item, 1, 100);
        hear(b);
        if (clock_mono_ms() > until || waitpid(b->worker, NULL, WNOHANG) != 0)
            die("the worker has not registered");
    }
}

/* ---- a case ---- */

/* Jobs arrive at so many a second (0: as many as it takes) for so long; all of them end. */
static double run_case(struct bench *b, double rate, double seconds) {
    int64_t began = clock_mono_ns(), until = began + (int64_t)(seconds * 1e9), next = began;
    b->base += b->given;
    b->arrived = b->given = b->ended = b->batches = 0;
    memset(b->job, 0, JOBS_MAX * sizeof *b->job);
    for (int64_t now = began; now < until || b->ended < b->arrived; now = clock_mono_ns()) {
        bool closed = rate <= 0;
        while (now < until && b->arrived < JOBS_MAX &&
               (closed ? b->arrived - b->ended < CREDIT : next <= now)) {
            double u = (double)(rng_next(&b->state) % 1000000 + 1) / 1000001;
            b->job[b->arrived++].arrived_ns = closed ? now : next;
            if (!closed) next += (int64_t)(-log(u) / rate * 1e9);
        }
        while (b->given < b->arrived && b->given - b->ended < CREDIT) lease(b);
        int64_t wait_ns = closed || now >= until ? 5000000 : next - now;
        zmq_pollitem_t item = {.socket = b->socket, .events = ZMQ_POLLIN};
        zmq_poll(&item, 1, wait_ns > 1000000 ? (long)(wait_ns / 1000000) : 0);
        while (hear(b)) continue;
    }
    return b->ended / ((double)(clock_mono_ns() - began) / 1e9);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double latency_ms(const struct bench *b, double part) {
    double *ms = calloc(b->arrived + 1, sizeof *ms);
    if (!ms) die("no memory");
    for (uint32_t i = 0; i < b->arrived; i++)
        ms[i] = (double)(b->job[i].ended_ns - b->job[i].arrived_ns) / 1e6;
    qsort(ms, b->arrived, sizeof *ms, by_value);
    double found = ms[(uint32_t)(part * (b->arrived - 1))];
    free(ms);
    return found;
}

static void tell(struct report *r, const char *name, const char *unit, double value,
                 const char *limit_of, double limit, bool less) {
    report_add(r, &(struct report_row){.name = name,
                                       .unit = unit,
                                       .value = value,
                                       .limit_of = limit_of,
                                       .limit = limit,
                                       .less_is_better = less,
                                       .runs = 1});
}

static void sweep(struct bench *b, struct report *r, double seconds, uint32_t slo_ms) {
    static const double part[RATES] = {0.05, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95};
    run_case(b, 0, WARM_MS / 1e3);
    double peak = run_case(b, 0, seconds);
    tell(r, "slo.peak", "jobs/s", peak, NULL, 0, false);
    tell(r, "slo.peak.batch", "jobs", (double)b->arrived / b->batches, NULL, 0, false);
    b->slo_ms = slo_ms;
    for (int i = 0; i < RATES; i++) {
        char name[64];
        run_case(b, peak * part[i], WARM_MS / 1e3);
        double done = run_case(b, peak * part[i], seconds);
        snprintf(name, sizeof name, "slo.at%.0f", 100 * part[i]);
        tell(r, name, "jobs/s", done, "peak", peak, false);
        snprintf(name, sizeof name, "slo.at%.0f.p50", 100 * part[i]);
        tell(r, name, "ms", latency_ms(b, 0.5), NULL, 0, true);
        snprintf(name, sizeof name, "slo.at%.0f.p99", 100 * part[i]);
        tell(r, name, "ms", latency_ms(b, 0.99), "objective", slo_ms, true);
        snprintf(name, sizeof name, "slo.at%.0f.batch", 100 * part[i]);
        tell(r, name, "jobs", (double)b->arrived / b->batches, NULL, 0, false);
    }
}

static const char *option(int argc, char **argv, const char *name, const char *otherwise) {
    for (int i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], name) == 0) return argv[i + 1];
    return otherwise;
}

int main(int argc, char **argv) {
    static struct bench b = {.state = 1, .base = 1};
    char dir[600];
    const char *cache = getenv("PENSTOCK_CACHE"), *home = getenv("HOME");
    if (cache)
        snprintf(dir, sizeof dir, "%s/models/all-MiniLM-L6-v2", cache);
    else
        snprintf(dir, sizeof dir, "%s/.cache/penstock/models/all-MiniLM-L6-v2", home ? home : "");
    uint32_t slo_ms = (uint32_t)strtoul(option(argc, argv, "--slo", "500"), NULL, 10);
    double seconds = strtod(option(argc, argv, "--seconds", "10"), NULL);
    if (slo_ms == 0 || seconds <= 0) die("--slo MS and --seconds N are above 0");
    b.job = calloc(JOBS_MAX, sizeof *b.job);
    if (!b.job) die("no memory");
    start(&b, option(argc, argv, "--model", dir), option(argc, argv, "--threads", "0"));
    struct report *r = report_open("slo", 1);
    sweep(&b, r, seconds, slo_ms);
    report_close(r);
    kill(b.worker, SIGTERM);
    waitpid(b.worker, NULL, 0);
    return 0;
}
