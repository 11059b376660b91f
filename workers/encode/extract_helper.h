/* extract_helper.h - a penstock-extract process from its start to its burial.
 *
 * The document goes in as a sealed memory file, which a helper cannot change for the next one;
 * frames come out of a pipe; what it writes to standard error is kept to its last line. It gets its
 * own process group (a Ctrl-C is for the worker), no environment, and no signal mask.
 *
 * Units:   milliseconds, bytes.
 * Owner:   extract_helper_end closes and reaps what extract_helper_start made; always call it.
 * Memory:  none but the document file.
 * Errors:  ERR_FULL with err: no process, no pipe, no memory file.
 * Threads: any; the helper dies with the thread that started it. */
#ifndef PENSTOCK_WORKERS_ENCODE_EXTRACT_HELPER_H
#define PENSTOCK_WORKERS_ENCODE_EXTRACT_HELPER_H

#include <sys/types.h>

#include "base/bytes.h"

struct extract_helper {
    pid_t pid;
    int frames_fd, words_fd;    /* the pipes' ends, not blocking */
    bool killed;                /* by extract_helper_kill */
    char line[160], words[160]; /* of its standard error: the line being read, the last whole one */
    size_t line_len;
};

struct extract_end {
    int status;     /* as of wait(2) */
    int64_t cpu_ms; /* that it used */
};

/* A sealed memory file with the document, for close(2); negative: ERR_FULL. */
int extract_document_fd(struct bytes document, char *err, size_t err_bytes);

/* argv ends with NULL and starts with the path. */
int extract_helper_start(struct extract_helper *h, char *const *argv, int document_fd, char *err,
                         size_t err_bytes);

/* Waits up to wait_ms for frames: their bytes, 0 when there are none yet, ERR_CLOSED at the end. */
ssize_t extract_helper_read(struct extract_helper *h, void *to, size_t room, int wait_ms);
void extract_helper_kill(struct extract_helper *h);
/* Waits a moment for its end, then kills it, and reaps. */
void extract_helper_end(struct extract_helper *h, struct extract_end *out);

#endif
