/* feed.h - how a file becomes the body of a job, for each kind: one table.
 *
 * Units: bytes.  Owner: the caller's buffer.  Memory: the file and the body.
 * Errors: -errno, ERR_FIELD with what is wrong with the file in err.  Threads: any. */
#ifndef PENSTOCK_CLIENT_FEED_H
#define PENSTOCK_CLIENT_FEED_H

#include "client/cli/body.h"

/* Which files of a folder are for this kind, as files_how wants it; NULL: all of them. */
const char *const *feed_patterns(const char *kind);
/* Appends the body: what `set` has, and what the file and its neighbours give besides. */
int feed_body(const struct body *set, const char *path, struct buf *out, char *err,
              size_t err_bytes);

#endif
