/* thread.h - named threads and process signals.
 *
 * Units: none.  Owner: the caller joins what it starts.  Memory: none.  Errors: -errno.
 * Threads: signals_init before any other thread exists. */
#ifndef PENSTOCK_BASE_THREAD_H
#define PENSTOCK_BASE_THREAD_H

#include <pthread.h>

/* Starts x_thread_main(arg) under a name of at most 15 characters (as `top -H` shows it), with all
 * signals blocked: they go to the main thread. */
int thread_start(pthread_t *t, const char *name, void *(*thread_main)(void *), void *arg);

/* Blocks SIGTERM, SIGINT and SIGHUP, ignores SIGPIPE, and returns a signalfd to poll, or -errno. */
int signals_init(void);
int signals_read(int fd); /* the next pending signal number, 0 when none */

#endif
