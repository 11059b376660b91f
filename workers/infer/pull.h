/* pull.h - the files of a model from the hub, fetched into a folder that outlives the attempt.
 *
 *   ROOT/.pull/ORG--NAME/              the files; FILE.part is one begun; locked by a pull
 *   ROOT/.pull/ORG--NAME/.state.json   {"repository", "commit", "files": {PATH: HASH}}
 *
 * The state is written before the first byte of a file, so what is there is known by its hash: a
 * later pull goes on with it when the hub still lists that hash, else removes it. Every file is
 * hashed when it is whole, those that were there too. config.json comes first: a model that cannot
 * be run is refused before its weights are fetched.
 *
 * Units: bytes, seconds.  Owner: pull_open gives what pull_close frees.  Memory: the listing.
 * Errors: those of hub.h, -ENOSPC, -EBUSY, ERR_CORRUPT when a hash is wrong again and again.
 * Threads: one. */
#ifndef PENSTOCK_WORKERS_INFER_PULL_H
#define PENSTOCK_WORKERS_INFER_PULL_H

#include "workers/infer/hub.h"

struct pull_options {
    const char *spec, *root; /* "hf:ORG/NAME[@REV]"; where the models lie; borrowed */
    uint32_t stall_s;
};
struct pull;
/* Asks the hub what the model consists of. */
int pull_open(struct pull **out, const struct pull_options *o, char *err, size_t err_bytes);
const struct hub_repo *pull_repo(const struct pull *p);
/* Fetches what is missing, told on stderr. *dir is the folder with all files until pull_close. */
int pull_files(struct pull *p, const char **dir, char *err, size_t err_bytes);
/* done: the folder is not needed any more. NULL is fine. */
void pull_close(struct pull *p, bool done);

/* Removes what an unfinished pull has left. */
int pull_forget(const char *spec, const char *root, char *err, size_t err_bytes);
/* A line on stderr for each unfinished pull. */
void pull_tell_unfinished(const char *root);

#endif
