/* versions.h - the pipeline files as they are now, and the versions of them that jobs still run.
 *
 * A job keeps the plan that it was accepted with: its record holds the whole of it, so that a
 * restart finds it whatever has become of the file. When the files change (SIGHUP, or a change in
 * their folders) the new ones take what is submitted from then on; the old ones stay as `retired`
 * for as long as a live job runs them. A file that cannot be read, or does not fit to the others,
 * changes nothing: the pipelines from before go on, and the log and STATS say why.
 *
 * In b->pipelines the first b->n_loaded are from files, the others are retired. Live jobs count
 * against the queue_max of the loaded pipeline of their name, whatever their version.
 *
 * Units: none.  Owner: the broker.  Memory: some KiB a version.  Errors: as each call says.
 * Threads: the loop thread. */
#ifndef PENSTOCK_BROKER_VERSIONS_H
#define PENSTOCK_BROKER_VERSIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pipelines/pipeline.h"

#define VERSIONS_SHOWN_MAX 128 /* in STATS */

struct broker;
struct buf;
struct versions {
    char dirs[4096];   /* the folders, ':' between them; empty: nothing is read again */
    int fd;            /* inotify of the folders; -1: none */
    int64_t loaded_ms; /* wall clock */
    char refused[600]; /* why the files were not taken; empty: they were */
};

/* Reads the files and begins to watch them; opens with b->config.pipelines. */
int versions_open(struct broker *b, char *err, size_t err_bytes);
void versions_close(struct broker *b);   /* frees the pipelines too; accepts zeroed memory */
bool versions_changed(struct broker *b); /* since the last call */
void versions_reload(struct broker *b);
/* From now on these are the loaded ones; takes them. -ENOMEM leaves everything as it was. */
int versions_settle(struct broker *b, struct pipelines *fresh);
/* STATS: a list of {name, kind, version, retired, stages, jobs}. */
void versions_pack(struct broker *b, struct buf *out);

#endif
