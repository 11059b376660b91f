#include "base/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/err.h"
#include "base/thread.h"

#define ADDRESS_BYTES 80
enum { IDLE_S = 10, CONNECTION_BYTES = 16 * 1024, WAIT_MS = 100, BACKLOG = 16 };

struct http {
    struct MHD_Daemon *daemon;
    pthread_t thread;
    _Atomic bool stop;
    http_serve serve;
    void *arg;
    struct buf body; /* of the answer that is being made */
    char address[ADDRESS_BYTES];
};

/* ---- where to listen ---- */

struct place {
    struct sockaddr_storage addr;
    socklen_t len;
    bool loopback;
};

static int bad_address(const char *text, char *err, size_t err_bytes) {
    return err_set(err, err_bytes, -EINVAL,
                   "%.60s is no address to listen on: write ADDRESS:PORT, such as 127.0.0.1:9464",
                   text);
}

/* ADDRESS:PORT, with an IPv6 address in brackets. */
static int parse_place(const char *text, struct place *p, char *err, size_t err_bytes) {
    char host[ADDRESS_BYTES], *end;
    const char *colon = strrchr(text, ':');
    size_t len = colon ? (size_t)(colon - text) : 0;
    if (!colon || len == 0 || len >= sizeof host) return bad_address(text, err, err_bytes);
    memcpy(host, text, len);
    host[len] = '\0';
    long port = strtol(colon + 1, &end, 10);
    if (end == colon + 1 || *end || port < 0 || port > 65535)
        return bad_address(text, err, err_bytes);
    memset(p, 0, sizeof *p);
    struct sockaddr_in *v4 = (struct sockaddr_in *)&p->addr;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&p->addr;
    if (strcmp(host, "localhost") == 0) strcpy(host, "127.0.0.1");
    if (host[0] == '[' && host[len - 1] == ']') {
        host[len - 1] = '\0';
        if (inet_pton(AF_INET6, host + 1, &v6->sin6_addr) != 1)
            return bad_address(text, err, err_bytes);
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons((uint16_t)port);
        p->len = sizeof *v6;
        p->loopback = IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
    } else {
        if (inet_pton(AF_INET, host, &v4->sin_addr) != 1) return bad_address(text, err, err_bytes);
        v4->sin_family = AF_INET;
        v4->sin_port = htons((uint16_t)port);
        p->len = sizeof *v4;
        p->loopback = ntohl(v4->sin_addr.s_addr) >> 24 == 127;
    }
    return 0;
}

static int listen_at(const struct place *p, const char *text, char *err, size_t err_bytes) {
    int one = 1, fd = socket(p->addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (fd >= 0 && bind(fd, (const struct sockaddr *)&p->addr, p->len) == 0 &&
        listen(fd, BACKLOG) == 0)
        return fd;
    int e = -errno;
    if (fd >= 0) close(fd);
    return err_set(err, err_bytes, e, "cannot listen on http://%s: %s", text, err_text(e));
}

static void name_place(int fd, char out[ADDRESS_BYTES]) {
    struct sockaddr_storage addr;
    socklen_t len = sizeof addr;
    char host[INET6_ADDRSTRLEN] = "";
    if (getsockname(fd, (struct sockaddr *)&addr, &len) != 0) return;
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)&addr;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&addr;
    bool six = addr.ss_family == AF_INET6;
    inet_ntop(addr.ss_family, six ? (const void *)&v6->sin6_addr : (const void *)&v4->sin_addr,
              host, sizeof host);
    snprintf(out, ADDRESS_BYTES, six ? "[%s]:%u" : "%s:%u", host,
             ntohs(six ? v6->sin6_port : v4->sin_port));
}

/* ---- serving ---- */

static enum MHD_Result answer(void *arg, struct MHD_Connection *c, const char *url,
                              const char *method, const char *version, const char *upload,
                              size_t *upload_bytes, void **state) {
    static int begun;
    struct http *h = arg;
    (void)version;
    (void)upload;
    if (!*state) { /* the headers have come; the answer waits until the whole request has */
        *state = &begun;
        return MHD_YES;
    }
    if (*upload_bytes) { /* a body that nobody wants is read past */
        *upload_bytes = 0;
        return MHD_YES;
    }
    struct http_answer a = {
        .status = MHD_HTTP_OK, .type = "text/plain; charset=utf-8", .body = &h->body};
    buf_clear(&h->body);
    bool get = strcmp(method, MHD_HTTP_METHOD_GET) == 0;
    if (get || strcmp(method, MHD_HTTP_METHOD_HEAD) == 0) {
        h->serve(h->arg, url, &a);
    } else {
        a.status = MHD_HTTP_METHOD_NOT_ALLOWED;
        buf_printf(&h->body, "GET and HEAD alone are answered here\n");
    }
    if (h->body.error) {
        a.status = MHD_HTTP_INTERNAL_SERVER_ERROR;
        a.type = "text/plain; charset=utf-8";
        buf_clear(&h->body);
        buf_printf(&h->body, "the answer is too long or there is no memory\n");
    }
    struct MHD_Response *r =
        MHD_create_response_from_buffer(h->body.len, h->body.data, MHD_RESPMEM_MUST_COPY);
    if (!r) return MHD_NO;
    MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, a.type);
    MHD_add_response_header(r, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    if (a.status == MHD_HTTP_METHOD_NOT_ALLOWED)
        MHD_add_response_header(r, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
    enum MHD_Result queued = MHD_queue_response(c, a.status, r);
    MHD_destroy_response(r);
    return queued;
}

static void *http_thread_main(void *arg) {
    struct http *h = arg;
    while (!atomic_load(&h->stop)) MHD_run_wait(h->daemon, WAIT_MS);
    return NULL;
}

int http_open(struct http **out, const struct http_config *c, char *err, size_t err_bytes) {
    struct place place;
    int e = parse_place(c->address, &place, err, err_bytes);
    if (e) return e;
    if (!place.loopback && !c->anywhere)
        return err_set(err, err_bytes, -EPERM,
                       "http://%s is beyond the loopback, and who calls there is not asked who he "
                       "is: say --http-anywhere too, behind a firewall",
                       c->address);
    struct http *h = calloc(1, sizeof *h);
    if (!h) return err_set(err, err_bytes, -ENOMEM, "out of memory");
    h->serve = c->serve;
    h->arg = c->arg;
    h->body.max_bytes = HTTP_ANSWER_BYTES;
    int fd = listen_at(&place, c->address, err, err_bytes);
    if (fd < 0) {
        free(h);
        return fd;
    }
    name_place(fd, h->address);
    h->daemon = MHD_start_daemon(MHD_USE_EPOLL, 0, NULL, NULL, answer, h, MHD_OPTION_LISTEN_SOCKET,
                                 (MHD_socket)fd, MHD_OPTION_CONNECTION_LIMIT,
                                 (unsigned)HTTP_CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT,
                                 (unsigned)IDLE_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
                                 (size_t)CONNECTION_BYTES, MHD_OPTION_END);
    if (!h->daemon) {
        close(fd);
        free(h);
        return err_set(err, err_bytes, -EIO, "the HTTP server on %s does not start", c->address);
    }
    if ((e = thread_start(&h->thread, "http", http_thread_main, h))) {
        MHD_stop_daemon(h->daemon);
        free(h);
        return err_set(err, err_bytes, e, "the HTTP thread does not start: %s", err_text(e));
    }
    *out = h;
    return 0;
}

void http_close(struct http *h) {
    if (!h) return;
    atomic_store(&h->stop, true);
    pthread_join(h->thread, NULL);
    MHD_stop_daemon(h->daemon);
    buf_fini(&h->body);
    free(h);
}

const char *http_address(const struct http *h) {
    return h->address;
}
