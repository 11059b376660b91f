#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/sock.h"
#include "base/thread.h"

#define PATIENCE_MS 20000

struct pair {
    struct sock_ctx *ctx;
    struct sock *router, *dealer;
    char dir[32];
};

static void pair_open(struct pair *p, const char *kind, int hwm) {
    char endpoint[96], err[256] = "";
    strcpy(p->dir, "/tmp/penstock-sock-XXXXXX");
    cr_assert_not_null(mkdtemp(p->dir));
    if (strcmp(kind, "ipc") == 0)
        snprintf(endpoint, sizeof endpoint, "ipc://%s/s", p->dir);
    else if (strcmp(kind, "tcp") == 0)
        strcpy(endpoint, "tcp://127.0.0.1:*");
    else
        strcpy(endpoint, "inproc://s");
    cr_assert_eq(sock_ctx_open(&p->ctx), 0);
    struct sock_config c = {.type = SOCK_ROUTER, .hwm = hwm, .bind = true, .endpoint = endpoint};
    cr_assert_eq(sock_open(&p->router, p->ctx, &c, err, sizeof err), 0, "%s", err);
    c = (struct sock_config){.type = SOCK_DEALER, .hwm = hwm};
    c.endpoint = sock_endpoint(p->router);
    cr_assert_eq(sock_open(&p->dealer, p->ctx, &c, err, sizeof err), 0, "%s", err);
}

static void pair_close(struct pair *p) {
    sock_close(p->dealer);
    sock_close(p->router);
    sock_ctx_close(p->ctx);
    char path[64];
    snprintf(path, sizeof path, "%s/s", p->dir);
    unlink(path);
    rmdir(p->dir);
}

static int recv_wait(struct sock *s, struct sock_msg *m) {
    int64_t end_ms = clock_mono_ms() + PATIENCE_MS;
    for (;;) {
        int rc = sock_recv(s, m);
        if (rc != 0 || clock_mono_ms() > end_ms) return rc;
        struct sock_wait w = {.sock = s, .readable = true};
        sock_wait(&w, 1, 100);
    }
}

static int send_wait(struct sock *s, const struct sock_msg *m) {
    int64_t end_ms = clock_mono_ms() + PATIENCE_MS;
    for (;;) {
        int rc = sock_send(s, m);
        if (rc != -EAGAIN || clock_mono_ms() > end_ms) return rc;
        struct sock_wait w = {.sock = s, .writable = true};
        sock_wait(&w, 1, 100);
    }
}

static void echo_on(const char *kind) {
    struct pair p;
    pair_open(&p, kind, 0);
    static uint8_t large[LIMIT_FRAME_BYTES];
    memset(large, 'L', sizeof large);
    struct sock_msg m = {
        .frames = 3, .frame = {bytes_str("hi"), bytes_of(NULL, 0), bytes_of(large, sizeof large)}};
    cr_assert_eq(send_wait(p.dealer, &m), 0);
    struct sock_msg got, back;
    cr_assert_eq(recv_wait(p.router, &got), 1);
    cr_assert_eq(got.frames, 3);
    cr_assert_gt(got.peer.len, 0);
    cr_assert(bytes_is(got.frame[0], "hi"));
    cr_assert_eq(got.frame[1].len, 0);
    cr_assert(bytes_eq(got.frame[2], bytes_of(large, sizeof large)));
    cr_assert_eq(send_wait(p.router, &got), 0, "a received message goes back as it is");
    sock_msg_fini(&got);
    cr_assert_eq(recv_wait(p.dealer, &back), 1);
    cr_assert_eq(back.frames, 3);
    cr_assert(bytes_eq(back.frame[2], bytes_of(large, sizeof large)));
    sock_msg_fini(&back);
    sock_msg_fini(&back);
    cr_assert_eq(sock_recv(p.dealer, &back), 0);
    pair_close(&p);
}

Test(sock, messages_go_there_and_back_over_inproc) {
    echo_on("inproc");
}
Test(sock, messages_go_there_and_back_over_ipc) {
    echo_on("ipc");
}
Test(sock, messages_go_there_and_back_over_tcp) {
    echo_on("tcp");
}

Test(sock, a_peer_that_is_gone_is_reported_not_waited_for) {
    struct pair p;
    pair_open(&p, "ipc", 0);
    struct sock_msg m = {.frames = 1, .frame = {bytes_str("hello")}}, got;
    cr_assert_eq(send_wait(p.dealer, &m), 0);
    cr_assert_eq(recv_wait(p.router, &got), 1);
    m.peer = got.peer;
    sock_msg_fini(&got);
    struct sock_msg other = m;
    other.peer = (struct sock_peer){.len = 5, .id = {1, 2, 3, 4, 5}};
    cr_assert_eq(sock_send(p.router, &other), -EHOSTUNREACH);
    other.peer.len = 0;
    cr_assert_eq(sock_send(p.router, &other), -EHOSTUNREACH);
    sock_close(p.dealer);
    p.dealer = NULL;
    int64_t end_ms = clock_mono_ms() + PATIENCE_MS;
    int rc = 0;
    while (rc != -EHOSTUNREACH && clock_mono_ms() < end_ms) {
        rc = sock_send(p.router, &m);
        usleep(1000);
    }
    cr_assert_eq(rc, -EHOSTUNREACH);
    pair_close(&p);
}

Test(sock, a_full_queue_is_an_answer) {
    struct pair p;
    pair_open(&p, "inproc", 10);
    struct sock_msg m = {.frames = 2, .frame = {bytes_str("a"), bytes_str("b")}}, got;
    int sent = 0, rc;
    while ((rc = sock_send(p.dealer, &m)) == 0 && sent < 1000) sent++;
    cr_assert_eq(rc, -EAGAIN);
    cr_assert(sent >= 10 && sent <= 40, "%d", sent);
    for (int i = 0; i < sent; i++) {
        cr_assert_eq(recv_wait(p.router, &got), 1);
        cr_assert_eq(got.frames, 2, "whole messages only");
        sock_msg_fini(&got);
    }
    cr_assert_eq(sock_recv(p.router, &got), 0);
    cr_assert_eq(send_wait(p.dealer, &m), 0);
    pair_close(&p);
}

Test(sock, nothing_is_sent_before_there_is_a_connection) {
    struct sock_ctx *ctx;
    struct sock *s;
    char err[256];
    cr_assert_eq(sock_ctx_open(&ctx), 0);
    struct sock_config c = {.type = SOCK_DEALER, .endpoint = "ipc:///tmp/penstock-nobody"};
    cr_assert_eq(sock_open(&s, ctx, &c, err, sizeof err), 0);
    struct sock_msg m = {.frames = 1, .frame = {bytes_str("a")}};
    cr_assert_eq(sock_send(s, &m), -EAGAIN);
    struct sock_wait w = {.sock = s, .writable = true};
    cr_assert_eq(sock_wait(&w, 1, 20), 0);
    cr_assert_not(w.writable);
    sock_close(s);
    sock_ctx_close(ctx);
}

Test(sock, frames_beyond_the_caps_are_not_sent) {
    struct pair p;
    pair_open(&p, "inproc", 0);
    uint8_t *large = calloc(1, LIMIT_FRAME_BYTES + 1);
    struct sock_msg m = {.frames = 1, .frame = {bytes_of(large, LIMIT_FRAME_BYTES + 1)}};
    cr_assert_eq(sock_send(p.dealer, &m), ERR_LIMIT);
    m.frame[0].len--;
    cr_assert_eq(sock_send(p.dealer, &m), 0);
    m.frames = LIMIT_FRAMES + 1;
    cr_assert_eq(sock_send(p.dealer, &m), ERR_LIMIT);
    free(large);
    pair_close(&p);
}

Test(sock, endpoints_that_others_could_reach_are_refused_with_the_fix) {
    struct sock_ctx *ctx;
    struct sock *s;
    char err[256];
    cr_assert_eq(sock_ctx_open(&ctx), 0);
    const char *const open_to_all[] = {"tcp://*:7790",
                                       "tcp://0.0.0.0:7790",
                                       "tcp://192.168.1.1:7790",
                                       "tcp://127.0.0.1.example.org:7790",
                                       "tcp://127.0.0.1:0;10.0.0.1:7790",
                                       "tcp://eth0:7790",
                                       "tcp://[::1]:7790",
                                       "tcp://127.0.0.1"};
    for (size_t i = 0; i < sizeof open_to_all / sizeof *open_to_all; i++) {
        struct sock_config c = {.type = SOCK_ROUTER, .bind = true, .endpoint = open_to_all[i]};
        cr_assert_eq(sock_open(&s, ctx, &c, err, sizeof err), -EPERM, "%s", open_to_all[i]);
        cr_assert(strstr(err, "use tcp://127.0.0.1:port"), "%s", err);
        cr_assert_null(s);
    }
    const char *const wrong[] = {"", "ipc://", "inproc://", "udp://127.0.0.1:1", "/tmp/x"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct sock_config c = {.type = SOCK_DEALER, .endpoint = wrong[i]};
        cr_assert_eq(sock_open(&s, ctx, &c, err, sizeof err), -EINVAL, "%s", wrong[i]);
    }
    char path[200] = "ipc:///tmp/";
    memset(path + 11, 'p', 150);
    struct sock_config c = {.type = SOCK_ROUTER, .bind = true, .endpoint = path};
    cr_assert_eq(sock_open(&s, ctx, &c, err, sizeof err), -ENAMETOOLONG);
    c.endpoint = "ipc:///nowhere/at/all";
    cr_assert_lt(sock_open(&s, ctx, &c, err, sizeof err), 0);
    cr_assert(strstr(err, "cannot bind ipc:///nowhere/at/all"), "%s", err);
    sock_ctx_close(ctx);
}

Test(sock, a_loop_sleeps_on_descriptors_and_sockets_together) {
    struct pair p;
    int fd[2];
    pair_open(&p, "inproc", 0);
    cr_assert_eq(pipe(fd), 0);
    struct sock_wait w[2] = {{.sock = p.router, .readable = true}, {.fd = fd[0], .readable = true}};
    cr_assert_eq(sock_wait(w, 2, 0), 0);
    cr_assert_not(w[0].readable || w[1].readable);
    cr_assert_eq(write(fd[1], "x", 1), 1);
    w[0].readable = w[1].readable = true;
    cr_assert_eq(sock_wait(w, 2, 1000), 1);
    cr_assert(!w[0].readable && w[1].readable);
    struct sock_msg m = {.frames = 1, .frame = {bytes_str("a")}};
    cr_assert_eq(sock_send(p.dealer, &m), 0);
    w[0].readable = w[1].readable = true;
    cr_assert_eq(sock_wait(w, 2, 1000), 2);
    cr_assert(w[0].readable && w[1].readable);
    close(fd[0]);
    close(fd[1]);
    pair_close(&p);
}
