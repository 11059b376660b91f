/* keeper.h - the process that is started: it forks the worker, and tells the broker when that died.
 *
 *   start --fork--> worker runs --exit 0 (drained)--> exit 0
 *                      |     ^--exit before its stages were open--> exit with its status
 *                      v killed, or exited otherwise
 *                   report what was in flight, wait, fork again
 *
 * A job that ran is reported as dead with the worker. Who is killed from outside (SIGKILL, and the
 * kernel has counted no kill for want of memory) is given back instead, once: when the next worker
 * is killed so with the same job running, that counts.
 *
 * SIGTERM and SIGINT are handed on: the worker drains and the keeper ends with it. The worker never
 * outlives the keeper. The keeper holds no socket while a worker runs: it has no threads to fork.
 *
 * Units: milliseconds.  Owner: main.  Memory: the flight table.  Errors: the exit status.
 * Threads: one. */
#ifndef PENSTOCK_WORKERS_KEEPER_H
#define PENSTOCK_WORKERS_KEEPER_H

#include "workers/worker.h"

/* Returns the exit status. */
int keeper_run(const struct worker_config *c);
/* "killed by signal 11 (Segmentation fault) in stage infer.embed" from a status of waitpid. */
void keeper_cause(int status, const char *run, const char *last_words, char *out, size_t out_bytes);

#endif
