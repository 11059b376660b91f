#include "client/cli/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "client/cli/cli.h"

#define LOG_BYTES_MAX (1u << 20)
#define LOG_LINES 20 /* of its end, when it cannot start */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at) {
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

/* The new process: a group of its own, so that Ctrl-C reaches the parent, which stops it. */
static void become(const struct engine *e, const char *models, int ready, pid_t parent) {
    char program[4096 + 16], dir[ENGINE_PATH_BYTES + 16], log[ENGINE_PATH_BYTES + 16];
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) _exit(0);
    snprintf(dir, sizeof dir, "%s/engine", e->dir);
    snprintf(log, sizeof log, "%s/log", e->dir);
    cli_program_dir(program);
    strcat(program, "penstock");
    int null = open("/dev/null", O_RDONLY), out = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    dup2(null, STDIN_FILENO);
    dup2(ready, STDOUT_FILENO);
    dup2(out, STDERR_FILENO);
    execl(program, program, "up", "--json", "--dir", dir, "--models", models, (char *)NULL);
    fprintf(stderr, "cannot run %s: %s\n", program, strerror(errno));
    _exit(127);
}

static void tell_log(const struct engine *e) {
    char path[ENGINE_PATH_BYTES + 16];
    void *log;
    size_t bytes;
    snprintf(path, sizeof path, "%s/log", e->dir);
    if (file_read(path, LOG_BYTES_MAX, &log, &bytes, NULL, 0) < 0) return;
    const char *at = (const char *)log + bytes;
    for (int lines = 0; at > (const char *)log; at--)
        if (at[-1] == '\n' && lines++ == LOG_LINES) break;
    fputs(at, stderr);
    free(log);
}

int engine_start(struct engine *e, const char *models) {
    const char *temp = getenv("TMPDIR");
    *e = (struct engine){0};
    int n = snprintf(e->dir, sizeof e->dir, "%s/penstock-XXXXXX", temp && temp[0] ? temp : "/tmp");
    int ready[2];
    if (n < 0 || (size_t)n >= sizeof e->dir || !mkdtemp(e->dir)) {
        e->dir[0] = '\0';
        return cli_usage("cannot make a folder in %s; set TMPDIR to a short one that can be "
                         "written",
                         temp ? temp : "/tmp");
    }
    if (pipe2(ready, O_CLOEXEC) != 0) return cli_fail(PENSTOCK_MEMORY, strerror(errno));
    snprintf(e->endpoint, sizeof e->endpoint, "ipc://%s/engine/clients", e->dir);
    pid_t parent = getpid();
    e->pid = fork();
    if (e->pid == 0) become(e, models, ready[1], parent);
    close(ready[1]);
    char c = 0; /* its line of JSON, or the end of the pipe */
    ssize_t got = e->pid > 0 ? read(ready[0], &c, 1) : -1;
    bool stopped = got < 0 && errno == EINTR;
    close(ready[0]);
    if (got == 1) return CLI_OK;
    if (stopped) return CLI_FAILED;
    tell_log(e);
    return cli_fail(PENSTOCK_PROTOCOL, "the engine cannot start; what it said is above");
}

void engine_stop(struct engine *e) {
    if (e->pid > 0) {
        kill(e->pid, SIGTERM);
        while (waitpid(e->pid, NULL, 0) < 0 && errno == EINTR) continue;
    }
    if (e->dir[0]) nftw(e->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    *e = (struct engine){0};
}
