/* err.h - how a call says that it failed.
 *
 * A function that can fail returns 0 (or a count) on success and a negative error: a negated
 * errno value where one fits (-ENOMEM, -ENOSPC, -EINVAL), else one of the ERR_ codes below, which
 * start beyond every errno. What a user will read is also written into `char *err, size_t
 * err_bytes`: what was wrong, where, and what to do about it, in one sentence without a newline.
 *
 * Units: none.  Owner: none.  Memory: none.  Errors: n/a.  Threads: any. */
#ifndef PENSTOCK_BASE_ERR_H
#define PENSTOCK_BASE_ERR_H

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>

enum {
    ERR_CORRUPT = -2001, /* stored or received bytes fail their checksum or structure */
    ERR_VERSION = -2002, /* a major version that this build does not speak */
    ERR_LIMIT = -2003,   /* beyond a limit of base/limits.h or of the configuration */
    ERR_FIELD = -2004,   /* a field is missing, of the wrong type or out of its bounds */
    ERR_UNKNOWN = -2005, /* a name (kind, pipeline, stage, model) that nobody registered */
    ERR_FULL = -2006,    /* a bounded queue is full: try again later */
    ERR_STALE = -2007,   /* a fencing token that is no longer current */
    ERR_CLOSED = -2008,  /* the peer or the ring is closed */
    ERR_CANCELLED = -2009
};

/* "corrupt data", "No space left on device": a static text for any code above or errno. */
const char *err_text(int code);

/* Writes a formatted sentence into err (truncated to fit, always terminated; err may be NULL when
 * err_bytes is 0) and returns code, so that `return err_set(err, n, -EINVAL, "...")` reads well. */
int err_set(char *err, size_t err_bytes, int code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
int err_vset(char *err, size_t err_bytes, int code, const char *format, va_list args);
/* Names a thing as the reader knows it: `name` wherever err has `path`. An empty path changes
 * nothing; what becomes too long is cut. */
void err_speak_of(char *err, size_t err_bytes, const char *path, const char *name);

#endif
