#include "workers/keeper.h"

#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/thread.h"
#include "workers/outbox.h"

#define BACKOFF_MS 100
#define BACKOFF_MAX_MS 10000
#define HEALTHY_MS 60000 /* a worker that lived so long starts the backoff anew */
#define REPORT_MS 3000   /* then the broker finds out by itself, when the leases run out */
#define REPORT_AGAIN_MS 1000
#define REPORT_TICK_MS 20

void keeper_cause(int status, const char *run, const char *last_words, char *out,
                  size_t out_bytes) {
    char how[128];
    if (WIFSIGNALED(status)) {
        int number = WTERMSIG(status);
        snprintf(how, sizeof how, "killed by signal %d (%s)", number, strsignal(number));
    } else {
        snprintf(how, sizeof how, "exited with status %d", WEXITSTATUS(status));
    }
    bool by_kill = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    snprintf(out, out_bytes, "%s%s%s%s%s%s", how, run[0] ? " in stage " : "", run,
             last_words[0] ? ": " : "", last_words,
             by_kill ? "; by hand, or by the kernel for want of memory" : "");
}

/* ---- a kill from outside ---- */

/* What ran when somebody killed the worker, so that no job has the benefit of the doubt twice in a
 * row: a killer that the kernel does not know of may have had its reason in the job. */
struct doubt {
    uint64_t oom_kills; /* of this machine, when the worker was started */
    bool outside;       /* the last worker was killed, and not by the kernel */
    uint64_t job[FLIGHT_SLOTS];
    uint32_t n;
};

/* How often the kernel has killed for want of memory; UINT64_MAX: it does not say. */
static uint64_t oom_kills(void) {
    char line[128];
    uint64_t n = UINT64_MAX;
    FILE *f = fopen("/proc/vmstat", "re");
    while (f && fgets(line, sizeof line, f) && sscanf(line, "oom_kill %" SCNu64, &n) != 1) continue;
    if (f) fclose(f);
    return n;
}

/* SIGKILL is sent by the kernel for want of memory, which it counts, or by somebody's hand. */
static bool killed_outside(int status, uint64_t oom_kills_before) {
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && oom_kills_before != UINT64_MAX &&
           oom_kills() == oom_kills_before;
}

static bool had_doubt(const struct doubt *d, uint64_t job) {
    for (uint32_t i = 0; i < d->n; i++)
        if (d->job[i] == job) return true;
    return false;
}

static void remember(struct doubt *d, const struct flight *f) {
    d->n = 0;
    for (uint32_t i = 0; d->outside && i < FLIGHT_SLOTS; i++)
        if (atomic_load(&f->slot[i].state) == FLIGHT_RUNNING) d->job[d->n++] = f->slot[i].job;
}

/* ---- reporting a death ---- */

static int collect(const struct flight *f, int status, const struct doubt *d, struct outbox *b) {
    for (uint32_t i = 0; i < FLIGHT_SLOTS; i++) {
        const struct flight_slot *s = &f->slot[i];
        unsigned state = atomic_load(&s->state);
        if (state == FLIGHT_FREE || atomic_load(&s->gone)) continue;
        bool ran = state == FLIGHT_RUNNING && (!d->outside || had_doubt(d, s->job));
        struct outcome *o =
            outcome_new(ran ? OUTCOME_FAILED : OUTCOME_RETURNED, NULL, atomic_load(&s->stage));
        if (!o) return -ENOMEM;
        o->job = s->job;
        o->attempt = s->attempt;
        o->error = JOB_ERROR_WORKER_DIED;
        if (ran) keeper_cause(status, s->run, f->last_words, o->reason, sizeof o->reason);
        outbox_add(b, o);
    }
    return 0;
}

static void take_acks(struct sock *s, struct outbox *b) {
    for (struct sock_msg m = {.frames = 0}; sock_recv(s, &m) > 0; sock_msg_fini(&m)) {
        const struct msg_desc *d;
        struct msg_stage_ack ack;
        struct refusal why;
        if (msg_open(m.frame, m.frames, MSG_B2W, &d, &why) == 0 && d->type == MSG_STAGE_ACK &&
            msg_decode(d, m.frame[1], &ack, &why) == 0)
            outbox_acknowledged(b, ack.job, (uint32_t)ack.stage, ack.attempt, false);
    }
}

static void send_until(struct sock *s, enum msg_type type, const void *message, int64_t until_ms) {
    struct buf scratch = {0};
    while (outbox_send(s, type, message, (struct bytes){NULL, 0}, &scratch) == -EAGAIN &&
           clock_mono_ms() < until_ms)
        usleep(REPORT_TICK_MS * 1000);
    buf_fini(&scratch);
}

/* Tells the broker what died with the worker, on a connection of its own. */
static void report(const struct worker_config *c, const struct flight *f, int status,
                   const struct doubt *d) {
    struct sock_ctx *ctx = NULL;
    struct sock *s = NULL;
    struct outbox b = {0};
    struct buf scratch = {0};
    char err[256] = "";
    if (f->session[0] == '\0' || !atomic_load(&f->started)) return;
    struct sock_config sc = {.type = SOCK_DEALER, .endpoint = c->endpoint, .curve = c->curve};
    int code = collect(f, status, d, &b);
    if (code == 0) code = sock_ctx_open(&ctx);
    if (code == 0) code = sock_open(&s, ctx, &sc, err, sizeof err);
    uint32_t total = b.n;
    int64_t until_ms = clock_mono_ms() + REPORT_MS;
    if (code == 0 && b.n > 0) {
        /* The leases belong to the dead worker's connection; its beat says that this is it now. */
        struct msg_heartbeat beat = {.session = bytes_str(f->session),
                                     .epoch = atomic_load(&f->epoch)};
        send_until(s, MSG_HEARTBEAT, &beat, until_ms);
    }
    while (code == 0 && b.n > 0 && clock_mono_ms() < until_ms) {
        outbox_flush(&b, s, clock_mono_ms(), REPORT_AGAIN_MS, &scratch);
        struct sock_wait w = {.sock = s, .readable = true};
        sock_wait(&w, 1, REPORT_TICK_MS);
        take_acks(s, &b);
    }
    /* What is to blame was reported and acknowledged: other leases are given back. */
    struct msg_goodbye bye = {.session = bytes_str(f->session), .dead = b.n == 0};
    if (code == 0) send_until(s, MSG_GOODBYE, &bye, until_ms);
    log_info("death_reported", "leases=%u unacknowledged=%u", total, b.n);
    outbox_fini(&b);
    buf_fini(&scratch);
    sock_close(s);
    sock_ctx_close(ctx);
}

/* ---- the loop ---- */

static pid_t start(const struct worker_config *c, struct flight *f, int signal_fd) {
    pid_t keeper = getpid();
    fflush(NULL);
    pid_t child = fork();
    if (child != 0) return child;
    close(signal_fd);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != keeper) _exit(1); /* it died before the line above */
    exit(worker_run(c, f));
}

/* Waits until the worker has ended; hands signals on. */
static int watch(pid_t child, int signal_fd, bool *draining) {
    int status = 0;
    int pid_fd = pidfd_open(child, 0);
    for (;;) {
        /* Without pidfds (an old kernel) the worker's end is noticed a little later. */
        struct pollfd p[] = {{.fd = signal_fd, .events = POLLIN}, {.fd = pid_fd, .events = POLLIN}};
        poll(p, 2, pid_fd < 0 ? 100 : -1);
        for (int n; (n = signals_read(signal_fd)) != 0;) {
            if (n != SIGTERM && n != SIGINT) continue;
            *draining = true;
            kill(child, SIGTERM);
        }
        if (waitpid(child, &status, WNOHANG) == child) break;
    }
    if (pid_fd >= 0) close(pid_fd);
    return status;
}

/* Sleeps before the next start; a signal ends it: true. */
static bool pause_ms(int signal_fd, int64_t ms) {
    int64_t until_ms = clock_mono_ms() + ms;
    for (;;) {
        int64_t left_ms = until_ms - clock_mono_ms();
        if (left_ms <= 0) return false;
        struct pollfd p = {.fd = signal_fd, .events = POLLIN};
        poll(&p, 1, (int)left_ms);
        for (int n; (n = signals_read(signal_fd)) != 0;)
            if (n == SIGTERM || n == SIGINT) return true;
    }
}

int keeper_run(const struct worker_config *c) {
    struct flight *f = NULL;
    struct doubt doubt = {0};
    int code = flight_new(&f), exit_status = 1;
    int signal_fd = code == 0 ? signals_init() : code;
    int64_t backoff_ms = BACKOFF_MS;
    if (signal_fd < 0) log_error("worker_start_failed", "error=\"%s\"", err_text(signal_fd));
    for (bool draining = false; signal_fd >= 0 && !draining;) {
        char cause[LIMIT_REASON_BYTES], quoted[LIMIT_REASON_BYTES + 64];
        int64_t begun_ms = clock_mono_ms();
        flight_clear(f);
        doubt.oom_kills = oom_kills();
        pid_t child = start(c, f, signal_fd);
        if (child < 0) {
            log_error("worker_start_failed", "error=\"%s\"", err_text(-errno));
            break;
        }
        int status = watch(child, signal_fd, &draining);
        if (WIFEXITED(status) && (WEXITSTATUS(status) == 0 || !atomic_load(&f->started))) {
            exit_status = WEXITSTATUS(status);
            break;
        }
        keeper_cause(status, "", f->last_words, cause, sizeof cause);
        log_error("worker_died", "pid=%ld cause=%s", (long)child,
                  log_quote(quoted, sizeof quoted, cause));
        doubt.outside = killed_outside(status, doubt.oom_kills);
        report(c, f, status, &doubt);
        remember(&doubt, f);
        if (clock_mono_ms() - begun_ms > HEALTHY_MS) backoff_ms = BACKOFF_MS;
        if (!draining && pause_ms(signal_fd, backoff_ms)) {
            exit_status = 0;
            break;
        }
        backoff_ms = backoff_ms * 2 < BACKOFF_MAX_MS ? backoff_ms * 2 : BACKOFF_MAX_MS;
    }
    if (signal_fd >= 0) close(signal_fd);
    flight_free(f);
    return exit_status;
}
