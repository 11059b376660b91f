/* link.h - the worker's side of the wire: one thread that owns the socket and never computes.
 *
 *   new --stages open--> registering --REGISTERED--> registered --SIGTERM--> draining --> done
 *                             ^                          |
 *                             +------- REREGISTER -------+
 *
 * Beats by its own timer, whatever the stages do. An outcome is held until it is acknowledged and
 * sent again after every registration and after a lease's time, with the same token: the broker
 * answers recorded or stale, and either ends it. A stage that runs past its timeout is reported and
 * cancelled; one that goes on for the grace time ends the process, which the keeper reports.
 *
 * Units: milliseconds.  Owner: worker_run calls link_run on the main thread.  Memory: leases and
 * outcomes, bounded by the credit.  Errors: the exit status.  Threads: the main thread. */
#ifndef PENSTOCK_WORKERS_LINK_H
#define PENSTOCK_WORKERS_LINK_H

#include "workers/worker.h"

/* 0: drained; 1: the stages could not be opened, or the socket failed. */
int link_run(struct worker *w);

#endif
