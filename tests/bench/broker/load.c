#include "tests/bench/broker/load.h"

#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

#include "base/clock.h"
#include "schemas/msg.h"
#include "schemas/pack.h"

enum { BODY_BYTES = 256, CONNECTIONS_MAX = 64, ANSWER_MS = 10000, CREDIT = 64 };

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

static struct bytes body(void) {
    static uint8_t text[BODY_BYTES];
    static struct buf b;
    memset(text, 'x', sizeof text);
    buf_clear(&b);
    struct packer p = packer_of(&b);
    pack_map(&p, 1);
    pack_str(&p, "texts");
    pack_array(&p, 1);
    pack_strn(&p, bytes_of(text, BODY_BYTES - 10)); /* map, key, list and length take 10 bytes */
    if (b.len != BODY_BYTES) die("the body has %zu bytes", b.len);
    return buf_bytes(&b);
}

/* Receives one message if one is there: its type, and its header in h. */
static int receive(void *socket, zmq_msg_t *h) {
    zmq_msg_t frame;
    zmq_msg_init(&frame);
    if (zmq_msg_recv(&frame, socket, ZMQ_DONTWAIT) < 0) {
        zmq_msg_close(&frame);
        return 0;
    }
    int type = ((const uint8_t *)zmq_msg_data(&frame))[3];
    int more = zmq_msg_more(&frame);
    for (int i = 0; more; i++) {
        zmq_msg_t *to = i == 0 ? h : &frame;
        if (zmq_msg_recv(to, socket, 0) < 0) die("receiving: %s", zmq_strerror(errno));
        more = zmq_msg_more(to);
    }
    zmq_msg_close(&frame);
    return type;
}

/* ---- clients ---- */

static void *client_socket(void *ctx, const char *endpoint) {
    void *s = zmq_socket(ctx, ZMQ_DEALER);
    int zero = 0;
    zmq_setsockopt(s, ZMQ_LINGER, &zero, sizeof zero);
    if (!s || zmq_connect(s, endpoint) != 0) die("%s: %s", endpoint, zmq_strerror(errno));
    return s;
}

/* What an answer leads to; returns 1 when a request has come to its end. */
static int answered(void *socket, enum load_what what, int type, zmq_msg_t *header,
                    struct message *wait) {
    if (what == LOAD_ECHO || type == MSG_RESULT) return 1;
    if (type != MSG_ACCEPTED) die("the broker answered %02x", (unsigned)type);
    if (what == LOAD_ACCEPT) return 1;
    struct msg_accepted m;
    struct refusal why;
    struct bytes document = bytes_of(zmq_msg_data(header), zmq_msg_size(header));
    if (msg_decode(msg_desc(MSG_ACCEPTED), document, &m, &why) != 0) die("%s", why.message);
    struct msg_wait w = {.req = 1, .job = m.job, .timeout_ms = 60000};
    encode(wait, MSG_WAIT, &w);
    send_message(socket, wait);
    return 0;
}

double load_run(const char *endpoint, enum load_what what, uint32_t connections,
                uint32_t outstanding, int ms) {
    void *ctx = zmq_ctx_new();
    zmq_pollitem_t item[CONNECTIONS_MAX];
    struct message submit = {.payload = body()}, wait = {0};
    struct msg_submit s = {.req = 1,
                           .kind = bytes_str("text.embed"),
                           .pipeline = bytes_str("echo"),
                           .has_seed = true,
                           .seed = 7};
    zmq_msg_t header;
    zmq_msg_init(&header);
    encode(&submit, MSG_SUBMIT, &s);
    for (uint32_t c = 0; c < connections; c++) {
        item[c] = (zmq_pollitem_t){.socket = client_socket(ctx, endpoint), .events = ZMQ_POLLIN};
        for (uint32_t i = 0; i < outstanding; i++) send_message(item[c].socket, &submit);
    }
    uint64_t ended = 0;
    int64_t began = 0, now = clock_mono_ns(), warm = now + INT64_C(200000000);
    int64_t end = warm + ms * INT64_C(1000000);
    while (now < end) {
        if (zmq_poll(item, (int)connections, ANSWER_MS) <= 0) die("no answer from %s", endpoint);
        for (uint32_t c = 0; c < connections; c++) {
            if (!(item[c].revents & ZMQ_POLLIN)) continue;
            for (int type; (type = receive(item[c].socket, &header)) != 0;)
                if (answered(item[c].socket, what, type, &header, &wait)) {
                    ended++;
                    send_message(item[c].socket, &submit);
                }
        }
        now = clock_mono_ns();
        if (!began && now >= warm) {
            began = now;
            ended = 0;
        }
    }
    for (uint32_t c = 0; c < connections; c++) zmq_close(item[c].socket);
    zmq_msg_close(&header);
    zmq_ctx_term(ctx);
    buf_fini(&submit.header);
    buf_fini(&wait.header);
    return (double)ended * 1e9 / (double)(now - began);
}

/* ---- servers ---- */

static pid_t child(void) {
    pid_t parent = getpid(), pid = fork();
    if (pid < 0) die("fork: %s", strerror(errno));
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) _exit(1);
    }
    return pid;
}

static void echo_main(const char *endpoint) {
    void *ctx = zmq_ctx_new(), *s = zmq_socket(ctx, ZMQ_ROUTER);
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

pid_t echo_start(const char *endpoint) {
    pid_t pid = child();
    if (pid == 0) echo_main(endpoint);
    return pid;
}

pid_t broker_start(const char *dir) {
    static const char pipeline[] = "name: echo\nkind: text.embed\nstages:\n"
                                   "  - {name: only, run: test.echo}\nqueue_max: 1000000\n";
    char path[512], program[512];
    const char *bin = getenv("PENSTOCK_BIN");
    snprintf(path, sizeof path, "%s/pipelines", dir);
    mkdir(path, 0700);
    snprintf(path, sizeof path, "%s/pipelines/echo.yaml", dir);
    FILE *f = fopen(path, "we");
    if (!f || fputs(pipeline, f) < 0 || fclose(f) != 0) die("%s cannot be written", path);
    snprintf(path, sizeof path, "%s/pipelines", dir);
    snprintf(program, sizeof program, "%s/penstock-broker", bin ? bin : "build/bin");
    pid_t pid = child();
    if (pid == 0) {
        execl(program, program, "--dir", dir, "--pipelines", path, "--log-level", "warn",
              (char *)NULL);
        _exit(127);
    }
    return pid;
}

void child_stop(pid_t pid) {
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

/* ---- a worker ---- */

struct worker_thread {
    pthread_t thread;
    const char *endpoint;
    atomic_bool stop;
};

static void worker_beats(void *socket, struct message *m, uint64_t epoch) {
    struct msg_heartbeat beat = {.session = bytes_str("bench"), .epoch = epoch};
    encode(m, MSG_HEARTBEAT, &beat);
    send_message(socket, m);
}

static void worker_hears(void *socket, int type, zmq_msg_t *header, uint64_t *epoch,
                         struct message *done) {
    struct bytes document = bytes_of(zmq_msg_data(header), zmq_msg_size(header));
    struct refusal why;
    if (type == MSG_REGISTERED) {
        struct msg_registered m;
        if (msg_decode(msg_desc(MSG_REGISTERED), document, &m, &why) != 0) die("%s", why.message);
        *epoch = m.epoch;
    } else if (type == MSG_LEASE) {
        struct msg_lease m;
        if (msg_decode(msg_desc(MSG_LEASE), document, &m, &why) != 0) die("%s", why.message);
        struct msg_stage_done d = {
            .job = m.job, .stage = m.stage, .attempt = m.attempt, .run_us = 1};
        encode(done, MSG_STAGE_DONE, &d);
        send_message(socket, done);
    }
}

static void *worker_thread_main(void *arg) {
    struct worker_thread *w = arg;
    static const uint8_t runs[] = "\x91\xa9test.echo";
    struct message out = {0}, done = {.payload = body()};
    struct msg_register r = {.session = bytes_str("bench"),
                             .name = bytes_str("bench"),
                             .runs = {.raw = bytes_of(runs, sizeof runs - 1), .count = 1},
                             .credit_jobs = CREDIT,
                             .credit_bytes = UINT32_MAX};
    void *ctx = zmq_ctx_new(), *s = client_socket(ctx, w->endpoint);
    uint64_t epoch = 0;
    int64_t beaten = 0;
    zmq_msg_t header;
    zmq_msg_init(&header);
    encode(&out, MSG_REGISTER, &r);
    send_message(s, &out);
    while (!atomic_load(&w->stop)) {
        zmq_pollitem_t item = {.socket = s, .events = ZMQ_POLLIN};
        zmq_poll(&item, 1, 100);
        for (int type; (type = receive(s, &header)) != 0;)
            worker_hears(s, type, &header, &epoch, &done);
        if (epoch && clock_mono_ms() - beaten > 500) {
            worker_beats(s, &out, epoch);
            beaten = clock_mono_ms();
        }
    }
    zmq_msg_close(&header);
    zmq_close(s);
    zmq_ctx_term(ctx);
    buf_fini(&out.header);
    buf_fini(&done.header);
    return NULL;
}

struct worker_thread *worker_start(const char *endpoint) {
    struct worker_thread *w = calloc(1, sizeof *w);
    if (!w) die("out of memory");
    w->endpoint = endpoint;
    if (pthread_create(&w->thread, NULL, worker_thread_main, w) != 0) die("no thread");
    return w;
}

void worker_stop(struct worker_thread *w) {
    atomic_store(&w->stop, true);
    pthread_join(w->thread, NULL);
    free(w);
}

/* ---- the disk ---- */

double flush_rate(const char *dir, int ms) {
    char path[512];
    static uint8_t page[4096];
    snprintf(path, sizeof path, "%s/flush", dir);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) die("%s: %s", path, strerror(errno));
    for (int i = 0; i < 256; i++) /* so that no flush allocates blocks */
        if (write(fd, page, sizeof page) != (ssize_t)sizeof page)
            die("%s: %s", path, strerror(errno));
    if (fsync(fd) != 0) die("%s: %s", path, strerror(errno));
    uint64_t n = 0;
    int64_t began = clock_mono_ns(), now = began;
    for (; now - began < ms * INT64_C(1000000); n++, now = clock_mono_ns()) {
        page[0]++;
        if (pwrite(fd, page, sizeof page, (off_t)(n % 256) * 4096) != (ssize_t)sizeof page ||
            fdatasync(fd) != 0)
            die("%s: %s", path, strerror(errno));
    }
    close(fd);
    unlink(path);
    return (double)n * 1e9 / (double)(now - began);
}

double lmdb_rate(const char *dir, int ms) {
    char path[512];
    static uint8_t record[BODY_BYTES];
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;
    snprintf(path, sizeof path, "%s/lmdb", dir);
    if (mdb_env_create(&env) || mdb_env_set_mapsize(env, 1u << 28) ||
        mdb_env_open(env, path, MDB_NOSUBDIR, 0600) || mdb_txn_begin(env, NULL, 0, &txn) ||
        mdb_dbi_open(txn, NULL, MDB_INTEGERKEY, &dbi) || mdb_txn_commit(txn))
        die("%s cannot be opened", path);
    uint64_t n = 0;
    int64_t began = clock_mono_ns(), now = began;
    for (; now - began < ms * INT64_C(1000000); n++, now = clock_mono_ns()) {
        MDB_val key = {sizeof n, &n}, value = {sizeof record, record};
        if (mdb_txn_begin(env, NULL, 0, &txn) || mdb_put(txn, dbi, &key, &value, MDB_APPEND) ||
            mdb_txn_commit(txn))
            die("%s: a commit failed", path);
    }
    mdb_env_close(env);
    unlink(path);
    snprintf(path, sizeof path, "%s/lmdb-lock", dir);
    unlink(path);
    return (double)n * 1e9 / (double)(now - began);
}
