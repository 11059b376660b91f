#include "client/cli/supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAUSE_MIN_MS 200
#define PAUSE_MAX_MS 5000
#define STEADY_MS 3000 /* what lived so long has not failed to start: no reason to hold back */

/* In the new process: its own group, so that Ctrl-C reaches only the supervisor, which drains. */
static void become(const struct child *c, pid_t parent) {
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) _exit(0); /* the parent died before prctl */
    int null = open("/dev/null", O_RDONLY);
    if (null >= 0) dup2(null, STDIN_FILENO);
    dup2(STDERR_FILENO, STDOUT_FILENO); /* stdout is for data */
    execv(c->argv[0], c->argv);
    fprintf(stderr, "penstock: cannot run %s: %s\n", c->argv[0], strerror(errno));
    _exit(127);
}

int child_start(struct child *c, int64_t now_ms) {
    pid_t parent = getpid(), pid = fork();
    if (pid < 0) return -errno;
    if (pid == 0) become(c, parent);
    c->pid = pid;
    c->started_ms = now_ms;
    return 0;
}

static void ended(struct child *c, int status, int64_t now_ms) {
    if (now_ms - c->started_ms >= STEADY_MS) c->pause_ms = 0;
    c->pause_ms = c->pause_ms ? c->pause_ms * 2 : PAUSE_MIN_MS;
    if (c->pause_ms > PAUSE_MAX_MS) c->pause_ms = PAUSE_MAX_MS;
    c->restart_ms = now_ms + c->pause_ms;
    c->status = status;
    c->pid = 0;
    c->ends++;
}

uint32_t children_reap(struct child *c, uint32_t n, int64_t now_ms) {
    uint32_t gone = 0;
    for (uint32_t i = 0; i < n; i++) {
        int status;
        if (c[i].pid == 0 || waitpid(c[i].pid, &status, WNOHANG) != c[i].pid) continue;
        ended(&c[i], status, now_ms);
        gone++;
    }
    return gone;
}

void children_restart(struct child *c, uint32_t n, int64_t now_ms) {
    for (uint32_t i = 0; i < n; i++)
        if (c[i].pid == 0 && now_ms >= c[i].restart_ms && child_start(&c[i], now_ms) < 0)
            c[i].restart_ms = now_ms + PAUSE_MAX_MS;
}

void children_signal(const struct child *c, uint32_t n, int signal) {
    for (uint32_t i = 0; i < n; i++)
        if (c[i].pid > 0) kill(c[i].pid, signal);
}

bool children_gone(const struct child *c, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        if (c[i].pid > 0) return false;
    return true;
}
