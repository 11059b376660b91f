/* supervise.h - child processes that are kept running, and stopped in order.
 *
 * A child that ends is started again after a pause of 200 ms, which doubles up to 5 s while it dies
 * within three seconds of its start. Children get SIGTERM when this process dies, whatever of.
 *
 * Units: milliseconds of clock_mono_ms, passed in.  Owner: the caller owns the children; argv is
 * borrowed for their life.  Memory: none.  Errors: -errno.  Threads: the main thread only. */
#ifndef PENSTOCK_CLIENT_SUPERVISE_H
#define PENSTOCK_CLIENT_SUPERVISE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct child {
    char name[64]; /* for messages */
    char **argv;   /* argv[0] is the program's path */
    pid_t pid;     /* 0: not running */
    int status;    /* of the last end, as waitpid gives it */
    uint32_t ends; /* how often it ended */
    int64_t started_ms, restart_ms;
    uint32_t pause_ms;
};

int child_start(struct child *c, int64_t now_ms);
/* Collects children that ended; each gets its restart_ms. Returns how many ended. */
uint32_t children_reap(struct child *c, uint32_t n, int64_t now_ms);
/* Starts those whose pause is over. */
void children_restart(struct child *c, uint32_t n, int64_t now_ms);
void children_signal(const struct child *c, uint32_t n, int signal);
bool children_gone(const struct child *c, uint32_t n);

#endif
