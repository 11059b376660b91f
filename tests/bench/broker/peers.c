#include "tests/bench/broker/peers.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"

enum { CONNECTIONS_MAX = 64, START_MS = 10000, BATCH = 64, COMMAND_BYTES = 128, WARM_MS = 200 };

/* ---- a connection with what has been read and not yet understood ---- */

struct line_reader {
    int fd;
    char *data;
    size_t at, len, cap;
};

static int connect_to(const char *path) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) die("socket: %s", strerror(errno));
    if (connect(fd, (struct sockaddr *)&a, sizeof a) == 0) return fd;
    close(fd);
    return -1;
}

static int connect_patiently(const char *path) {
    int64_t end = clock_mono_ms() + START_MS;
    for (int fd; clock_mono_ms() < end; usleep(10000))
        if ((fd = connect_to(path)) >= 0) return fd;
    die("%s: nobody answers", path);
}

static void write_all(int fd, const char *data, size_t n) {
    for (ssize_t done; n; data += done, n -= (size_t)done)
        if ((done = send(fd, data, n, MSG_NOSIGNAL)) < 0) die("writing: %s", strerror(errno));
}

/* Reads more; with `wait` at least a byte. False: nothing is there. */
static bool read_more(struct line_reader *r, bool wait) {
    if (r->at) {
        memmove(r->data, r->data + r->at, r->len - r->at);
        r->len -= r->at;
        r->at = 0;
    }
    if (r->cap - r->len < 65536) {
        r->cap = r->cap ? 2 * r->cap : 1 << 18;
        if (!(r->data = realloc(r->data, r->cap))) die("out of memory");
    }
    ssize_t n = recv(r->fd, r->data + r->len, r->cap - r->len, wait ? 0 : MSG_DONTWAIT);
    if (n == 0) die("the peer has closed the connection");
    if (n < 0 && errno != EAGAIN && errno != EINTR) die("reading: %s", strerror(errno));
    if (n > 0) r->len += (size_t)n;
    return n > 0;
}

/* The next whole line, without its end; NULL: not all of it is there. */
static char *next_line(struct line_reader *r, bool wait) {
    for (;;) {
        char *from = r->data + r->at;
        char *end = r->len > r->at ? memchr(from, '\n', r->len - r->at) : NULL;
        if (end) {
            end[end > from && end[-1] == '\r' ? -1 : 0] = 0;
            r->at = (size_t)(end + 1 - r->data);
            return from;
        }
        if (!read_more(r, wait)) return NULL;
    }
}

/* Waits for n bytes and the line's end behind them, and passes over them. */
static const char *take_body(struct line_reader *r, size_t n) {
    while (r->len - r->at < n + 2) read_more(r, true);
    r->at += n + 2;
    return r->data + r->at - n - 2;
}

/* ---- producers ---- */

static atomic_ullong acknowledged; /* by the consumer of this run */

struct producer {
    struct line_reader in;
    bool in_reply; /* redis: the line with the id follows */
    struct buf going;
};

/* Gathered, and written with one call for each connection and turn. */
static void publish(const struct peer *p, struct producer *c, const char *body,
                    uint32_t body_bytes) {
    char command[COMMAND_BYTES];
    int n = p->publish(command, sizeof command, body_bytes);
    buf_append(&c->going, command, (size_t)n);
    buf_append(&c->going, body, body_bytes);
    if (buf_append(&c->going, p->publish_end, strlen(p->publish_end)) != 0) die("out of memory");
}

static void publish_flush(struct producer *c) {
    if (c->going.len) write_all(c->in.fd, (const char *)c->going.data, c->going.len);
    buf_clear(&c->going);
}

/* How many publications have been confirmed since the last call. */
static uint32_t confirmed(struct producer *c) {
    uint32_t n = 0;
    for (char *line; (line = next_line(&c->in, false)) != NULL;) {
        if (c->in_reply) {
            c->in_reply = false;
            n++;
        } else if (line[0] == '$') {
            c->in_reply = true;
        } else if (strncmp(line, "INSERTED", 8) == 0) {
            n++;
        } else {
            die("the peer answers: %s", line);
        }
    }
    return n;
}

static void *consumer_thread_main(void *arg) {
    void **a = arg;
    const struct peer *p = a[0];
    int fd = connect_patiently(a[1]);
    p->consume(fd, *(const uint32_t *)a[2]);
    close(fd);
    return NULL;
}

static atomic_bool stop;

static double produce(const struct peer *p, const char *path, enum load_what what,
                      uint32_t connections, uint32_t outstanding, uint32_t body_bytes, int ms) {
    static struct producer c[CONNECTIONS_MAX];
    struct pollfd item[CONNECTIONS_MAX];
    char *body = malloc(body_bytes);
    if (!body) die("out of memory");
    memset(body, 'x', body_bytes);
    uint64_t sent = 0, ended = 0, at_begin = 0;
    int64_t began = 0, now = clock_mono_ns(), warm = now + INT64_C(1000000) * WARM_MS;
    int64_t end = warm + ms * INT64_C(1000000);
    for (uint32_t i = 0; i < connections; i++) {
        c[i] = (struct producer){.in.fd = connect_patiently(path)};
        item[i] = (struct pollfd){.fd = c[i].in.fd, .events = POLLIN};
        for (uint32_t k = 0; k < outstanding; k++, sent++) publish(p, &c[i], body, body_bytes);
        publish_flush(&c[i]);
    }
    for (uint32_t turn = 0; now < end; turn++) {
        if (poll(item, connections, what == LOAD_DONE ? 1 : START_MS) < 0) die("poll");
        for (uint32_t i = 0; i < connections; i++) {
            uint32_t n = item[i].revents ? confirmed(&c[i]) : 0;
            if (what == LOAD_ACCEPT) ended += n;
            for (; what == LOAD_ACCEPT && n; n--, sent++) publish(p, &c[i], body, body_bytes);
        }
        if (what == LOAD_DONE) ended = atomic_load(&acknowledged);
        for (; what == LOAD_DONE && sent - ended < (uint64_t)connections * outstanding; sent++)
            publish(p, &c[sent % connections], body, body_bytes);
        for (uint32_t i = 0; i < connections; i++) publish_flush(&c[i]);
        now = clock_mono_ns();
        if (!began && now >= warm) {
            began = now;
            at_begin = ended;
        }
    }
    for (uint32_t i = 0; i < connections; i++) {
        close(c[i].in.fd);
        free(c[i].in.data);
        buf_fini(&c[i].going);
    }
    free(body);
    return (double)(ended - at_begin) * 1e9 / (double)(now - began);
}

bool peer_installed(const struct peer *p) {
    return access(p->program, X_OK) == 0;
}

double peer_run(const struct peer *p, const char *dir, enum load_what what, uint32_t connections,
                uint32_t outstanding, uint32_t body_bytes, int ms) {
    char path[128];
    snprintf(path, sizeof path, "%s/peer", dir);
    unlink(path);
    pid_t pid = child_start();
    if (pid == 0) {
        p->exec(p->program, dir);
        _exit(127);
    }
    close(connect_patiently(path));
    pthread_t consumer;
    void *arg[] = {(void *)(uintptr_t)p, path, &body_bytes};
    atomic_store(&acknowledged, 0);
    atomic_store(&stop, false);
    if (what == LOAD_DONE && pthread_create(&consumer, NULL, consumer_thread_main, arg) != 0)
        die("no thread");
    double rate = produce(p, path, what, connections, outstanding, body_bytes, ms);
    atomic_store(&stop, true);
    if (what == LOAD_DONE) {
        int fd = connect_patiently(path); /* wakes a consumer that waits for a message */
        struct producer last = {.in.fd = fd};
        publish(p, &last, "x", 1);
        publish_flush(&last);
        pthread_join(consumer, NULL);
        buf_fini(&last.going);
        close(fd);
    }
    child_stop(pid);
    return rate;
}

/* ---- redis: XADD, XREADGROUP, XACK ---- */

static void redis_exec(const char *program, const char *dir) {
    execl(program, program, "--port", "0", "--unixsocket", "peer", "--dir", dir, "--save", "",
          "--appendonly", "yes", "--appendfsync", "always", "--loglevel", "warning", "--logfile",
          "redis.log", (char *)NULL);
}

static int redis_publish(char *to, size_t bytes, uint32_t body_bytes) {
    return snprintf(to, bytes, "*5\r\n$4\r\nXADD\r\n$1\r\nq\r\n$1\r\n*\r\n$1\r\nb\r\n$%u\r\n",
                    body_bytes);
}

static char *redis_line(struct line_reader *r, char type) {
    char *line = next_line(r, true);
    if (line[0] != type) die("redis answers: %s", line);
    return line + 1;
}

/* One XREADGROUP's answer: appends the ids to `ack`, a RESP command under way; how many. */
static uint32_t redis_messages(struct line_reader *r, char *ack, size_t *used) {
    uint32_t n = 0;
    char *line = next_line(r, true);
    if (strcmp(line, "*-1") == 0) return 0; /* nothing came in time */
    if (strcmp(line, "*1") != 0) die("redis answers: %s", line);
    redis_line(r, '*');
    take_body(r, strtoul(redis_line(r, '$'), NULL, 10));
    n = (uint32_t)strtoul(redis_line(r, '*'), NULL, 10);
    for (uint32_t i = 0; i < n; i++) {
        redis_line(r, '*');
        size_t bytes = strtoul(redis_line(r, '$'), NULL, 10);
        const char *id = take_body(r, bytes);
        *used += (size_t)snprintf(ack + *used, 64, "$%zu\r\n%.*s\r\n", bytes, (int)bytes, id);
        for (unsigned long k = strtoul(redis_line(r, '*'), NULL, 10); k; k--)
            take_body(r, strtoul(redis_line(r, '$'), NULL, 10));
    }
    return n;
}

static void redis_consume(int fd, uint32_t body_bytes) {
    static const char group[] = "XGROUP CREATE q g 0 MKSTREAM\r\n";
    static const char more[] = "XREADGROUP GROUP g c COUNT 64 BLOCK 100 STREAMS q >\r\n";
    struct line_reader r = {.fd = fd};
    char ids[BATCH * 64], command[sizeof ids + 256];
    (void)body_bytes;
    write_all(fd, group, sizeof group - 1);
    redis_line(&r, '+');
    write_all(fd, more, sizeof more - 1);
    while (!atomic_load(&stop)) {
        size_t used = 0;
        uint32_t n = redis_messages(&r, ids, &used);
        int len = n ? snprintf(command, sizeof command,
                               "*%u\r\n$4\r\nXACK\r\n$1\r\nq\r\n$1\r\ng\r\n%.*s%s", n + 3,
                               (int)used, ids, more)
                    : snprintf(command, sizeof command, "%s", more);
        write_all(fd, command, (size_t)len);
        if (n) redis_line(&r, ':');
        atomic_fetch_add(&acknowledged, n);
    }
    free(r.data);
}

const struct peer peer_redis = {.name = "Redis Streams, appendfsync always",
                                .program = "/usr/bin/redis-server",
                                .get = "apt-get install redis-server",
                                .exec = redis_exec,
                                .publish = redis_publish,
                                .publish_end = "\r\n",
                                .consume = redis_consume};

/* ---- beanstalkd: put, reserve, delete ---- */

static void beanstalkd_exec(const char *program, const char *dir) {
    char socket[256];
    snprintf(socket, sizeof socket, "unix:%s/peer", dir);
    execl(program, program, "-l", socket, "-b", dir, "-f0", "-z", "1048576", (char *)NULL);
}

static int beanstalkd_publish(char *to, size_t bytes, uint32_t body_bytes) {
    return snprintf(to, bytes, "put 0 0 60 %u\r\n", body_bytes);
}

static void beanstalkd_consume(int fd, uint32_t body_bytes) {
    struct line_reader r = {.fd = fd};
    char command[COMMAND_BYTES];
    (void)body_bytes;
    for (int i = 0; i < BATCH; i++) write_all(fd, "reserve\r\n", 9);
    while (!atomic_load(&stop)) {
        char *line = next_line(&r, true);
        unsigned long long id, bytes;
        if (strcmp(line, "DELETED") == 0) {
            atomic_fetch_add(&acknowledged, 1);
        } else if (sscanf(line, "RESERVED %llu %llu", &id, &bytes) == 2) {
            take_body(&r, bytes);
            int n = snprintf(command, sizeof command, "delete %llu\r\nreserve\r\n", id);
            write_all(fd, command, (size_t)n);
        } else {
            die("beanstalkd answers: %s", line);
        }
    }
    free(r.data);
}

const struct peer peer_beanstalkd = {.name = "beanstalkd -f0",
                                     .program = "/usr/bin/beanstalkd",
                                     .get = "apt-get install beanstalkd",
                                     .exec = beanstalkd_exec,
                                     .publish = beanstalkd_publish,
                                     .publish_end = "\r\n",
                                     .consume = beanstalkd_consume};
