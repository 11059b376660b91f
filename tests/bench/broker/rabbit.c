#include "tests/bench/broker/rabbit.h"

#if __has_include(<amqp_tcp_socket.h>)

#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"

#define SERVER "/usr/lib/rabbitmq/bin/rabbitmq-server"

enum { CONNECTIONS_MAX = 64, WINDOW_MAX = 64, START_MS = 60000, WARM_MS = 200 };
enum { PREFETCH = 1024, ACKED_TOGETHER = 64, FRAME_BYTES = 131072 };

struct server {
    char dir[PATH_MAX];
    int port, dist_port, epmd_port;
    pid_t pid, epmd;
};

/* ---- the server ---- */

static int free_port(void) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, bytes) != 0 ||
        getsockname(fd, (struct sockaddr *)&a, &bytes) != 0)
        die("no port: %s", strerror(errno));
    close(fd);
    return ntohs(a.sin_port);
}

static void set(const char *name, const char *format, ...) {
    char value[PATH_MAX + 64];
    va_list args;
    va_start(args, format);
    vsnprintf(value, sizeof value, format, args);
    va_end(args);
    setenv(name, value, 1);
}

static void exec_server(const struct server *s) {
    char log[PATH_MAX + 16];
    snprintf(log, sizeof log, "%s/log", s->dir);
    int in = open("/dev/null", O_RDONLY), out = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    dup2(in, 0);
    dup2(out, 1);
    dup2(out, 2);
    set("RUNNING_UNDER_SYSTEMD", "true"); /* no script stays between us and it */
    set("HOME", "%s", s->dir);            /* its cookie */
    set("RABBITMQ_NODENAME", "bench%d@localhost", (int)getpid());
    set("RABBITMQ_MNESIA_BASE", "%s", s->dir);
    set("RABBITMQ_LOG_BASE", "%s", s->dir);
    set("RABBITMQ_PID_FILE", "%s/pid", s->dir);
    set("RABBITMQ_ENABLED_PLUGINS_FILE", "%s/plugins", s->dir);
    set("RABBITMQ_CONF_ENV_FILE", "%s/none", s->dir);
    set("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1");
    set("RABBITMQ_NODE_PORT", "%d", s->port);
    set("RABBITMQ_DIST_PORT", "%d", s->dist_port);
    set("ERL_EPMD_ADDRESS", "127.0.0.1");
    set("ERL_EPMD_PORT", "%d", s->epmd_port);
    execl(SERVER, SERVER, (char *)NULL);
    _exit(127);
}

static void server_start(struct server *s, const char *dir) {
    char port[16];
    if (!realpath(dir, s->dir)) die("%s: %s", dir, strerror(errno));
    s->port = free_port();
    s->dist_port = free_port();
    s->epmd_port = free_port();
    snprintf(port, sizeof port, "%d", s->epmd_port);
    if ((s->epmd = child_start()) == 0) {
        execlp("epmd", "epmd", "-port", port, "-address", "127.0.0.1", (char *)NULL);
        _exit(127);
    }
    if ((s->pid = child_start()) == 0) exec_server(s);
}

static void server_stop(const struct server *s) {
    if (s->pid) child_stop(s->pid);
    child_stop(s->epmd);
}

/* ---- connections ---- */

static bool is_well(amqp_rpc_reply_t r) {
    return r.reply_type == AMQP_RESPONSE_NORMAL;
}

/* NULL: nobody answers there. */
static amqp_connection_state_t connect_once(int port) {
    amqp_connection_state_t c = amqp_new_connection();
    amqp_socket_t *s = c ? amqp_tcp_socket_new(c) : NULL;
    if (!s) die("out of memory");
    if (amqp_socket_open(s, "127.0.0.1", port) == AMQP_STATUS_OK &&
        is_well(amqp_login(c, "/", 1, FRAME_BYTES, 0, AMQP_SASL_METHOD_PLAIN, "guest", "guest")) &&
        amqp_channel_open(c, 1))
        return c;
    amqp_destroy_connection(c);
    return NULL;
}

static amqp_connection_state_t connect_to(const struct server *s) {
    amqp_connection_state_t c = connect_once(s->port);
    if (!c) die("RabbitMQ takes no connection");
    return c;
}

static bool declare(amqp_connection_state_t c) {
    amqp_table_entry_t type = {.key = amqp_cstring_bytes("x-queue-type")};
    type.value.kind = AMQP_FIELD_KIND_UTF8;
    type.value.value.bytes = amqp_cstring_bytes("quorum");
    amqp_table_t arguments = {.num_entries = 1, .entries = &type};
    amqp_queue_declare(c, 1, amqp_cstring_bytes("q"), 0, 1, 0, 0, arguments);
    return is_well(amqp_get_rpc_reply(c));
}

/* Waits until it takes a queue. False: it ended, or takes none in all this time. */
static bool server_ready(struct server *s) {
    for (int64_t end = clock_mono_ms() + START_MS; clock_mono_ms() < end; usleep(100000)) {
        if (waitpid(s->pid, NULL, WNOHANG) == s->pid) {
            s->pid = 0;
            return false;
        }
        amqp_connection_state_t c = connect_once(s->port);
        bool ready = c && declare(c);
        if (c) amqp_destroy_connection(c);
        if (ready) return true;
    }
    return false;
}

/* ---- producers ---- */

struct producer {
    amqp_connection_state_t c;
    uint64_t low, beyond; /* all up to low are confirmed; bit k: low + 1 + k is */
};

static void publish(struct producer *p, const char *body, uint32_t bytes) {
    amqp_basic_properties_t kept = {._flags = AMQP_BASIC_DELIVERY_MODE_FLAG, .delivery_mode = 2};
    amqp_bytes_t payload = {.len = bytes, .bytes = (void *)(uintptr_t)body};
    if (amqp_basic_publish(p->c, 1, amqp_empty_bytes, amqp_cstring_bytes("q"), 0, 0, &kept,
                           payload) != AMQP_STATUS_OK)
        die("RabbitMQ takes no message");
}

/* How many it is that were not confirmed before. */
static uint32_t confirm(struct producer *p, const amqp_basic_ack_t *a) {
    uint64_t ahead = a->delivery_tag - p->low; /* from 1 to the window */
    uint32_t n = 1;
    if (a->delivery_tag <= p->low || ahead > WINDOW_MAX) die("RabbitMQ confirms what was not sent");
    if (a->multiple) {
        uint64_t those = ahead == 64 ? UINT64_MAX : (UINT64_C(1) << ahead) - 1;
        n = (uint32_t)ahead - (uint32_t)__builtin_popcountll(p->beyond & those);
        p->beyond = ahead == 64 ? 0 : p->beyond >> ahead;
        p->low = a->delivery_tag;
    } else {
        p->beyond |= UINT64_C(1) << (ahead - 1);
    }
    for (; p->beyond & 1; p->beyond >>= 1) p->low++;
    return n;
}

/* How many publications have been confirmed since the last call. */
static uint32_t confirmed(struct producer *p) {
    uint32_t n = 0;
    for (;;) {
        amqp_frame_t f;
        struct timeval now = {0, 0};
        amqp_maybe_release_buffers(p->c);
        int e = amqp_simple_wait_frame_noblock(p->c, &f, &now);
        if (e == AMQP_STATUS_TIMEOUT) return n;
        if (e != AMQP_STATUS_OK) die("RabbitMQ: %s", amqp_error_string2(e));
        if (f.frame_type != AMQP_FRAME_METHOD || f.payload.method.id != AMQP_BASIC_ACK_METHOD)
            die("RabbitMQ answers something else than a confirmation");
        n += confirm(p, f.payload.method.decoded);
    }
}

static atomic_ullong acknowledged; /* by the consumer of this run */
static atomic_bool stop;

static double produce(const struct server *s, enum load_what what, uint32_t connections,
                      uint32_t outstanding, uint32_t body_bytes, int ms) {
    static struct producer p[CONNECTIONS_MAX];
    struct pollfd item[CONNECTIONS_MAX];
    char *body = calloc(1, body_bytes);
    if (!body || outstanding > WINDOW_MAX) die("out of memory");
    uint64_t sent = 0, ended = 0, at_begin = 0;
    for (uint32_t i = 0; i < connections; i++) {
        p[i] = (struct producer){.c = connect_to(s)};
        item[i] = (struct pollfd){.fd = amqp_get_sockfd(p[i].c), .events = POLLIN};
        if (!amqp_confirm_select(p[i].c, 1)) die("RabbitMQ confirms nothing");
    }
    int64_t began = 0, now = clock_mono_ns(), warm = now + INT64_C(1000000) * WARM_MS;
    int64_t end = warm + ms * INT64_C(1000000);
    for (; sent < (uint64_t)connections * outstanding; sent++)
        publish(&p[sent % connections], body, body_bytes);
    while (now < end) {
        if (poll(item, connections, what == LOAD_DONE ? 1 : START_MS) < 0) die("poll");
        for (uint32_t i = 0; i < connections; i++) {
            uint32_t n = item[i].revents ? confirmed(&p[i]) : 0;
            if (what == LOAD_ACCEPT) ended += n;
            for (; what == LOAD_ACCEPT && n; n--, sent++) publish(&p[i], body, body_bytes);
        }
        if (what == LOAD_DONE) ended = atomic_load(&acknowledged);
        for (; what == LOAD_DONE && sent - ended < (uint64_t)connections * outstanding; sent++)
            publish(&p[sent % connections], body, body_bytes);
        now = clock_mono_ns();
        if (!began && now >= warm) {
            began = now;
            at_begin = ended;
        }
    }
    for (uint32_t i = 0; i < connections; i++) amqp_destroy_connection(p[i].c);
    free(body);
    return (double)(ended - at_begin) * 1e9 / (double)(now - began);
}

/* ---- the consumer ---- */

static void *consumer_thread_main(void *arg) {
    amqp_connection_state_t c = connect_to(arg);
    uint32_t waiting = 0;
    amqp_basic_qos(c, 1, 0, PREFETCH, 0);
    amqp_basic_consume(c, 1, amqp_cstring_bytes("q"), amqp_empty_bytes, 0, 0, 0, amqp_empty_table);
    if (!is_well(amqp_get_rpc_reply(c))) die("RabbitMQ lets nobody consume");
    while (!atomic_load(&stop)) {
        amqp_envelope_t e;
        struct timeval wait = {0, 100000};
        amqp_maybe_release_buffers(c);
        if (!is_well(amqp_consume_message(c, &e, &wait, 0))) continue;
        uint64_t tag = e.delivery_tag;
        amqp_destroy_envelope(&e);
        if (++waiting < ACKED_TOGETHER && (amqp_frames_enqueued(c) || amqp_data_in_buffer(c)))
            continue;
        if (amqp_basic_ack(c, 1, tag, 1) != AMQP_STATUS_OK) die("RabbitMQ takes no ack");
        atomic_fetch_add(&acknowledged, waiting);
        waiting = 0;
    }
    amqp_destroy_connection(c);
    return NULL;
}

bool rabbit_installed(void) {
    return access(SERVER, X_OK) == 0;
}

double rabbit_run(const char *dir, enum load_what what, uint32_t connections, uint32_t outstanding,
                  uint32_t body_bytes, int ms) {
    struct server s = {.pid = 0};
    pthread_t consumer;
    double rate = 0;
    server_start(&s, dir);
    if (server_ready(&s)) {
        atomic_store(&acknowledged, 0);
        atomic_store(&stop, false);
        if (what == LOAD_DONE && pthread_create(&consumer, NULL, consumer_thread_main, &s) != 0)
            die("no thread");
        rate = produce(&s, what, connections, outstanding, body_bytes, ms);
        atomic_store(&stop, true);
        if (what == LOAD_DONE) pthread_join(consumer, NULL);
    } else {
        fprintf(stderr, "broker: RabbitMQ cannot be started here: its rows are empty\n");
    }
    server_stop(&s);
    return rate;
}

#else

bool rabbit_installed(void) {
    return false;
}

double rabbit_run(const char *dir, enum load_what what, uint32_t connections, uint32_t outstanding,
                  uint32_t body_bytes, int ms) {
    (void)dir, (void)what, (void)connections, (void)outstanding, (void)body_bytes, (void)ms;
    return 0;
}

#endif
