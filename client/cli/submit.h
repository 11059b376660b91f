/* submit.h - what `penstock submit` was told, and its half for files and folders.
 *
 * Units: in the names.  Owner: argv; submit_files owns what it makes.  Memory: the bodies of the
 * jobs that are not accepted yet, at most a window of them, and a few bytes a file.
 * Errors: exit codes.  Threads: one. */
#ifndef PENSTOCK_CLIENT_SUBMIT_H
#define PENSTOCK_CLIENT_SUBMIT_H

#include "client/cli/body.h"
#include "client/cli/cli.h"

#define SUBMIT_SETS_MAX 1024
#define SUBMIT_WINDOW_MAX 256

struct submit {
    struct cli c; /* args: the kind, then files and folders */
    struct penstock_job job;
    bool wait, stream, quiet, recursive, again;
    const char *body_path, *out, *glob;
    uint32_t window; /* 0: the client's default */
    struct {         /* --text, --file, --set in the order given */
        int (*take)(struct body *b, const char *arg);
        const char *arg;
    } sets[SUBMIT_SETS_MAX];
    size_t n_sets;
};

/* A job for each file; `set` has the fields that all of them share. */
int submit_files(const struct submit *in, const struct body *set);

#endif
