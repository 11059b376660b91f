#include "tests/bench/broker/load.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

#include "base/clock.h"
#include "schemas/cert.h"
#include "schemas/many.h"
#include "schemas/msg.h"
#include "schemas/pack.h"

enum {
    BODY_BYTES_MAX = 1 << 20,
    CONNECTIONS_MAX = 64,
    OUTSTANDING_MAX = 64,
    ANSWER_MS = 10000,
    CREDIT = 64,
    WARM_MS = 200,
    SAMPLES_MAX = 1 << 20
};

void die(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fputs("broker: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

/* ---- messages ---- */

struct message { /* two frames, and a payload where there is one */
    uint8_t tag[MSG_TAG_BYTES];
    struct buf header;
    struct bytes payload;
    unsigned long long sent; /* with a key of their own */
};

static void encode(struct message *m, enum msg_type type, const void *header) {
    buf_clear(&m->header);
    if (msg_encode(type, header, m->tag, &m->header) != 0) die("a message cannot be encoded");
}

static void send_message(void *socket, const struct message *m) {
    int more = m->payload.len ? ZMQ_SNDMORE : 0;
    if (zmq_send(socket, m->tag, sizeof m->tag, ZMQ_SNDMORE) < 0 ||
        zmq_send(socket, m->header.data, m->header.len, more) < 0 ||
        (more && zmq_send(socket, m->payload.data, m->payload.len, 0) < 0))
        die("sending: %s", zmq_strerror(errno));
}

/* A body of text.embed that takes exactly so many bytes. */
static struct bytes body(struct buf *b, uint32_t bytes) {
    static char text[BODY_BYTES_MAX];
    memset(text, 'x', sizeof text);
    for (uint32_t n = bytes - 16; n < bytes; n++) { /* the map around it takes 10 to 14 bytes */
        buf_clear(b);
        struct packer p = packer_of(b);
        pack_map(&p, 1);
        pack_str(&p, "texts");
        pack_array(&p, 1);
        pack_strn(&p, bytes_of(text, n));
        if (b->len == bytes) return buf_bytes(b);
    }
    die("no body takes %u bytes", bytes);
}

/* ---- connections ---- */

/* What is to be said is gathered into one MANY, as a pipelining client of the peers gathers its
 * commands into one write. */
struct link {
    void *socket;
    struct buf going;
    uint32_t n;
    zmq_msg_t header, payload; /* of the message that came last */
    struct many_it coming;     /* what is left of it */
    struct bytes heard;        /* the header of the one that link_hear found */
};

static void link_init(struct link *l, void *socket) {
    *l = (struct link){.socket = socket};
    zmq_msg_init(&l->header);
    zmq_msg_init(&l->payload);
}

static void link_close(struct link *l) {
    zmq_msg_close(&l->header);
    zmq_msg_close(&l->payload);
    zmq_close(l->socket);
    buf_fini(&l->going);
}

static void link_flush(struct link *l) {
    struct message out = {0};
    struct msg_many m = {.n = l->n};
    if (l->n == 0) return;
    many_end(&l->going, l->n);
    encode(&out, MSG_MANY, &m);
    out.payload = buf_bytes(&l->going);
    send_message(l->socket, &out);
    buf_fini(&out.header);
    buf_clear(&l->going);
    l->n = 0;
}

static void link_say(struct link *l, const struct message *m) {
    struct bytes frame[] = {bytes_of(m->tag, sizeof m->tag), buf_bytes(&m->header), m->payload};
    uint32_t frames = m->payload.len ? 3 : 2;
    if (many_add(&l->going, &l->n, frame, frames)) return;
    link_flush(l);
    if (!many_add(&l->going, &l->n, frame, frames)) send_message(l->socket, m);
}

/* Receives one message if one is there: 1, with the header and the first payload frame. */
static int receive(struct link *l, uint8_t tag[MSG_TAG_BYTES]) {
    zmq_msg_t frame;
    zmq_msg_init(&frame);
    if (zmq_msg_recv(&frame, l->socket, ZMQ_DONTWAIT) < 0) {
        zmq_msg_close(&frame);
        return 0;
    }
    if (zmq_msg_size(&frame) == MSG_TAG_BYTES) memcpy(tag, zmq_msg_data(&frame), MSG_TAG_BYTES);
    int more = zmq_msg_more(&frame);
    for (int i = 0; more; i++) {
        zmq_msg_t *to = i == 0 ? &l->header : i == 1 ? &l->payload : &frame;
        if (zmq_msg_recv(to, l->socket, 0) < 0) die("receiving: %s", zmq_strerror(errno));
        more = zmq_msg_more(to);
    }
    zmq_msg_close(&frame);
    return 1;
}

static struct bytes bytes_in(zmq_msg_t *z) {
    return bytes_of(zmq_msg_data(z), zmq_msg_size(z));
}

/* The next message that has come, alone or in a MANY: its type; 0: there is none. */
static int link_hear(struct link *l) {
    struct refusal why;
    struct msg_many m;
    uint8_t tag[MSG_TAG_BYTES] = {0};
    if (l->coming.left == 0) {
        if (!receive(l, tag)) return 0;
        l->heard = bytes_in(&l->header);
        if (tag[3] != MSG_MANY) return tag[3];
        if (msg_decode(msg_desc(MSG_MANY), l->heard, &m, &why) != 0 ||
            many_begin(&l->coming, bytes_in(&l->payload), m.n, &why) != 0)
            die("%s", why.message);
    }
    if (many_next(&l->coming, &why) != 1) die("%s", why.message);
    l->heard = l->coming.frame[1];
    return l->coming.tag[3];
}

/* ---- clients ---- */

static void *client_socket(void *ctx, const char *endpoint, const struct load_keys *k) {
    void *s = zmq_socket(ctx, ZMQ_DEALER);
    int zero = 0;
    zmq_setsockopt(s, ZMQ_LINGER, &zero, sizeof zero);
    if (k && (zmq_setsockopt(s, ZMQ_CURVE_SERVERKEY, k->server_public, sizeof k->server_public) ||
              zmq_setsockopt(s, ZMQ_CURVE_PUBLICKEY, k->own_public, sizeof k->own_public) ||
              zmq_setsockopt(s, ZMQ_CURVE_SECRETKEY, k->own_secret, sizeof k->own_secret)))
        die("CURVE: %s", zmq_strerror(errno));
    if (!s || zmq_connect(s, endpoint) != 0) die("%s: %s", endpoint, zmq_strerror(errno));
    return s;
}

/* What an answer leads to; returns 1 when a request has come to its end. */
static int answered(struct link *l, enum load_what what, int type, struct message *wait) {
    if (what == LOAD_ECHO || type == MSG_RESULT) return 1;
    if (type == MSG_ACCEPTED_MANY) return 1;
    if (type != MSG_ACCEPTED) die("the broker answered %02x", (unsigned)type);
    if (what == LOAD_ACCEPT) return 1;
    struct msg_accepted m;
    struct refusal why;
    if (msg_decode(msg_desc(MSG_ACCEPTED), l->heard, &m, &why) != 0) die("%s", why.message);
    struct msg_wait w = {.req = 1, .job = m.job, .timeout_ms = 60000};
    encode(wait, MSG_WAIT, &w);
    link_say(l, wait);
    return 0;
}

static void encode_submit(struct message *m, const struct load *l) {
    struct msg_submit s = {.req = 1,
                           .kind = bytes_str("text.embed"),
                           .pipeline = bytes_str(l->pipeline),
                           .has_seed = true,
                           .seed = 7};
    struct msg_submit_many many = {
        .req = 1, .kind = s.kind, .pipeline = s.pipeline, .has_seed = true, .seed = 7};
    char key[32];
    if (l->keyed) s.key = bytes_of(key, (size_t)snprintf(key, sizeof key, "key-%llu", m->sent++));
    if (l->batch)
        encode(m, MSG_SUBMIT_MANY, &many);
    else
        encode(m, MSG_SUBMIT, &s);
}

static void send_submit(struct link *to, const struct load *l, struct message *m) {
    if (l->keyed || !m->header.len) encode_submit(m, l);
    if (l->what == LOAD_ECHO)
        send_message(to->socket, m);
    else
        link_say(to, m);
}

/* The same body so many times, as the payload of a SUBMIT_MANY. */
static struct bytes many(struct buf *to, struct bytes body, uint32_t n) {
    struct packer p = packer_of(to);
    pack_array(&p, n);
    for (uint32_t i = 0; i < n; i++) pack_raw(&p, body);
    if (to->error || to->len > BODY_BYTES_MAX) die("a batch of %u does not fit a frame", n);
    return buf_bytes(to);
}

/* Answers to one connection's requests come in their order. */
struct connection {
    struct link link;
    int64_t sent_ns[OUTSTANDING_MAX];
    uint32_t oldest;
};

struct samples {
    uint32_t *us10; /* tenths of a microsecond */
    size_t n;
};

static void take_sample(struct samples *s, int64_t ns) {
    if (s->n < SAMPLES_MAX) s->us10[s->n++] = (uint32_t)(ns / 100);
}

static int by_time(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* Takes what has come and begins as much anew; returns how many requests came to their end. */
static uint32_t turn(struct connection *c, const struct load *l, struct message *submit,
                     struct message *wait, struct samples *samples) {
    uint32_t ended = 0;
    for (int type; (type = link_hear(&c->link)) != 0;) {
        if (!answered(&c->link, l->what, type, wait)) continue;
        int64_t now = clock_mono_ns();
        take_sample(samples, now - c->sent_ns[c->oldest]);
        c->sent_ns[c->oldest] = now;
        c->oldest = (c->oldest + 1) % l->outstanding;
        send_submit(&c->link, l, submit);
        ended++;
    }
    link_flush(&c->link);
    return ended;
}

static double measure(struct connection *c, zmq_pollitem_t *item, const struct load *l,
                      struct message *submit, struct samples *samples, uint64_t *in_all) {
    struct message wait = {0};
    uint64_t ended = 0, before = 0;
    int64_t began = 0, now = clock_mono_ns(), warm = now + INT64_C(1000000) * WARM_MS;
    int64_t end = warm + l->ms * INT64_C(1000000);
    while (l->requests ? ended < l->requests : now < end) {
        if (zmq_poll(item, (int)l->connections, ANSWER_MS) <= 0)
            die("no answer from %s", l->endpoint);
        for (uint32_t i = 0; i < l->connections; i++)
            if (item[i].revents & ZMQ_POLLIN) ended += turn(&c[i], l, submit, &wait, samples);
        now = clock_mono_ns();
        *in_all = ended + before;
        if (!began && (l->requests || now >= warm)) {
            began = now;
            before = ended;
            ended = samples->n = 0;
        }
    }
    buf_fini(&wait.header);
    return (double)ended * 1e9 / (double)(now - began);
}

struct load_result load_run(const struct load *l) {
    void *ctx = zmq_ctx_new();
    struct connection c[CONNECTIONS_MAX] = {0};
    zmq_pollitem_t item[CONNECTIONS_MAX];
    struct buf b = {0}, batch = {0};
    struct message submit = {.payload = body(&b, l->body_bytes)};
    struct samples samples = {.us10 = malloc(SAMPLES_MAX * sizeof *samples.us10)};
    if (!samples.us10) die("out of memory");
    if (l->batch) submit.payload = many(&batch, submit.payload, l->batch);
    for (uint32_t i = 0; i < l->connections; i++) {
        link_init(&c[i].link, client_socket(ctx, l->endpoint, l->keys));
        item[i] = (zmq_pollitem_t){.socket = c[i].link.socket, .events = ZMQ_POLLIN};
        for (uint32_t k = 0; k < l->outstanding; k++) {
            c[i].sent_ns[k] = clock_mono_ns();
            send_submit(&c[i].link, l, &submit);
        }
        link_flush(&c[i].link);
    }
    struct load_result r = {0};
    r.rate = measure(c, item, l, &submit, &samples, &r.ended);
    if (l->batch) r.rate *= l->batch;
    if (samples.n && l->what != LOAD_DONE) {
        qsort(samples.us10, samples.n, sizeof *samples.us10, by_time);
        r.p50_us = samples.us10[samples.n / 2] / 10.0;
        r.p99_us = samples.us10[samples.n * 99 / 100] / 10.0;
    }
    for (uint32_t i = 0; i < l->connections; i++) link_close(&c[i].link);
    zmq_ctx_term(ctx);
    free(samples.us10);
    buf_fini(&submit.header);
    buf_fini(&batch);
    buf_fini(&b);
    return r;
}

/* ---- keys ---- */

void load_keys_make(struct load_keys *k) {
    if (zmq_curve_keypair(k->server_public, k->server_secret) ||
        zmq_curve_keypair(k->own_public, k->own_secret))
        die("CURVE: %s", zmq_strerror(errno));
}

static void write_cert(const char *dir, const char *name, const struct cert *cert, bool secret) {
    char path[512];
    struct buf text = {0};
    snprintf(path, sizeof path, "%s/keys/%s.cert%s", dir, name, secret ? "_secret" : "");
    FILE *f = cert_print(cert, secret, &text) == 0 ? fopen(path, "we") : NULL;
    if (!f || fwrite(text.data, 1, text.len, f) != text.len || fclose(f) != 0 ||
        chmod(path, 0600) != 0)
        die("%s cannot be written", path);
    buf_fini(&text);
}

/* One key for clients and worker; its tenant has an index of its jobs, which plain ones lack. */
static void write_keys(const char *dir, const struct load_keys *k) {
    char path[512];
    struct cert own = {.name = "broker"},
                peer = {.name = "bench", .tenant = "bench", .rights = CERT_ALL, .stages = "*"};
    snprintf(path, sizeof path, "%s/keys", dir);
    mkdir(path, 0700);
    memcpy(own.public_key, k->server_public, sizeof k->server_public);
    memcpy(own.secret_key, k->server_secret, sizeof k->server_secret);
    memcpy(peer.public_key, k->own_public, sizeof k->own_public);
    write_cert(dir, "broker", &own, true);
    write_cert(dir, "bench", &peer, false);
}

/* ---- servers ---- */

pid_t child_start(void) {
    pid_t parent = getpid(), pid = fork();
    if (pid < 0) die("fork: %s", strerror(errno));
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) _exit(1);
    }
    return pid;
}

static void echo_main(const char *endpoint, const struct load_keys *k) {
    void *ctx = zmq_ctx_new(), *s = zmq_socket(ctx, ZMQ_ROUTER);
    int one = 1;
    if (k && (zmq_setsockopt(s, ZMQ_CURVE_SERVER, &one, sizeof one) ||
              zmq_setsockopt(s, ZMQ_CURVE_SECRETKEY, k->server_secret, sizeof k->server_secret)))
        _exit(1);
    if (zmq_bind(s, endpoint) != 0) _exit(1);
    for (;;) {
        zmq_msg_t frame;
        zmq_msg_init(&frame);
        if (zmq_msg_recv(&frame, s, 0) < 0) continue;
        int more = zmq_msg_more(&frame) ? ZMQ_SNDMORE : 0;
        zmq_msg_send(&frame, s, more);
        zmq_msg_close(&frame);
    }
}

pid_t echo_start(const char *endpoint, const struct load_keys *keys) {
    pid_t pid = child_start();
    if (pid == 0) echo_main(endpoint, keys);
    return pid;
}

static void write_file(const char *dir, const char *name, const char *text) {
    char path[512];
    snprintf(path, sizeof path, "%s/pipelines/%s", dir, name);
    FILE *f = fopen(path, "we");
    if (!f || fputs(text, f) < 0 || fclose(f) != 0) die("%s cannot be written", path);
}

pid_t broker_start(const char *dir, const struct load_keys *keys) {
    char path[512], program[512], key_dir[512];
    const char *bin = getenv("PENSTOCK_BIN");
    snprintf(path, sizeof path, "%s/pipelines", dir);
    mkdir(path, 0700);
    write_file(dir, "echo.yaml",
               "name: echo\nkind: text.embed\nqueue_max: 1000000\nstages:\n"
               "  - {name: only, run: test.echo}\n");
    write_file(dir, "echo3.yaml",
               "name: echo3\nkind: text.embed\nqueue_max: 1000000\nstages:\n"
               "  - {name: a, run: test.echo, checkpoint: true}\n"
               "  - {name: b, run: test.echo, checkpoint: true}\n"
               "  - {name: c, run: test.echo}\n");
    snprintf(path, sizeof path, "%s/pipelines", dir);
    snprintf(program, sizeof program, "%s/penstock-broker", bin ? bin : "build/bin");
    snprintf(key_dir, sizeof key_dir, "%s/keys", dir);
    if (keys) write_keys(dir, keys);
    pid_t pid = child_start();
    if (pid == 0) {
        execl(program, program, "--dir", dir, "--pipelines", path, "--log-level", "warn",
              "--meta-cap", "8589934592", keys ? "--curve" : (char *)NULL, "--keys", key_dir,
              (char *)NULL);
        _exit(127);
    }
    return pid;
}

double child_stop(pid_t pid) {
    struct rusage u = {0};
    kill(pid, SIGKILL);
    wait4(pid, NULL, 0, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e6 +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

/* ---- a worker ---- */

struct worker_thread {
    pthread_t thread;
    const char *endpoint;
    const struct load_keys *keys;
    uint32_t output_bytes;
    atomic_ullong done;
    atomic_bool stop;
};

static void worker_beats(struct link *l, struct message *m, uint64_t epoch) {
    struct msg_heartbeat beat = {.session = bytes_str("bench"), .epoch = epoch};
    encode(m, MSG_HEARTBEAT, &beat);
    send_message(l->socket, m);
}

/* How many stages a lease's plan has: a list of fewer than sixteen. */
static uint32_t plan_stages(struct bytes plan) {
    uint8_t head = plan.len ? *(const uint8_t *)plan.data : 0;
    if ((head & 0xf0) != 0x90) die("a plan is not a short list");
    return head & 0x0f;
}

/* Returns how many stages it answered. */
static uint32_t worker_hears(struct link *l, int type, uint64_t *epoch, struct message *done) {
    struct refusal why;
    if (type == MSG_REGISTERED) {
        struct msg_registered m;
        if (msg_decode(msg_desc(MSG_REGISTERED), l->heard, &m, &why) != 0) die("%s", why.message);
        *epoch = m.epoch;
    } else if (type == MSG_LEASE) {
        struct msg_lease m;
        if (msg_decode(msg_desc(MSG_LEASE), l->heard, &m, &why) != 0) die("%s", why.message);
        uint32_t stages = plan_stages(m.plan);
        for (uint32_t k = 0; k < stages; k++) {
            struct msg_stage_done d = {.job = m.job,
                                       .stage = m.stage + k,
                                       .attempt = m.attempt,
                                       .more = k + 1 < stages,
                                       .run_us = 1};
            encode(done, MSG_STAGE_DONE, &d);
            link_say(l, done);
        }
        return stages;
    }
    return 0;
}

static void *worker_thread_main(void *arg) {
    struct worker_thread *w = arg;
    static const uint8_t runs[] = "\x91\xa9test.echo";
    struct buf b = {0};
    struct message out = {0}, done = {.payload = body(&b, w->output_bytes)};
    struct msg_register r = {.session = bytes_str("bench"),
                             .name = bytes_str("bench"),
                             .runs = {.raw = bytes_of(runs, sizeof runs - 1), .count = 1},
                             .credit_jobs = CREDIT,
                             .credit_bytes = UINT32_MAX,
                             .many = true};
    void *ctx = zmq_ctx_new();
    struct link l;
    link_init(&l, client_socket(ctx, w->endpoint, w->keys));
    uint64_t epoch = 0;
    int64_t beaten = 0;
    encode(&out, MSG_REGISTER, &r);
    send_message(l.socket, &out);
    while (!atomic_load(&w->stop)) {
        zmq_pollitem_t item = {.socket = l.socket, .events = ZMQ_POLLIN};
        zmq_poll(&item, 1, 100);
        for (int type; (type = link_hear(&l)) != 0;)
            atomic_fetch_add(&w->done, worker_hears(&l, type, &epoch, &done));
        link_flush(&l);
        if (epoch && clock_mono_ms() - beaten > 500) {
            worker_beats(&l, &out, epoch);
            beaten = clock_mono_ms();
        }
    }
    link_close(&l);
    zmq_ctx_term(ctx);
    buf_fini(&out.header);
    buf_fini(&done.header);
    buf_fini(&b);
    return NULL;
}

struct worker_thread *worker_start(const char *endpoint, uint32_t output_bytes,
                                   const struct load_keys *keys) {
    struct worker_thread *w = calloc(1, sizeof *w);
    if (!w) die("out of memory");
    w->endpoint = endpoint;
    w->keys = keys;
    w->output_bytes = output_bytes;
    if (pthread_create(&w->thread, NULL, worker_thread_main, w) != 0) die("no thread");
    return w;
}

uint64_t worker_done(const struct worker_thread *w) {
    return atomic_load(&w->done);
}

void worker_stop(struct worker_thread *w) {
    atomic_store(&w->stop, true);
    pthread_join(w->thread, NULL);
    free(w);
}
