/* transfer.h - a GET over HTTP or HTTPS: into memory, or onto the end of a file that was begun.
 *
 * The only door to libcurl. What breaks off, stands still or is answered by "later" (408, 425, 429,
 * 5xx) is tried again where it stopped, with growing pauses, until `attempts` in a row have brought
 * nothing. Certificates are checked; a redirect never leads from HTTPS to HTTP, and the token is
 * not sent on to another host, port or scheme.
 *
 * Units: bytes, seconds.  Owner: transfer_open gives what transfer_close frees; the configuration's
 * texts are borrowed until then.  Memory: libcurl's, a connection or two.
 * Errors: -errno of the disk, ERR_CORRUPT for an answer that cannot be right, ERR_CLOSED when
 * nobody answers or the connection fails, ERR_UNKNOWN for a refusal, whose HTTP status and words
 * transfer_status and transfer_words keep; err names the address.  Threads: one. */
#ifndef PENSTOCK_WORKERS_INFER_TRANSFER_H
#define PENSTOCK_WORKERS_INFER_TRANSFER_H

#include "base/bytes.h"

struct transfer;
struct transfer_config {
    const char *token; /* NULL: none */
    uint32_t stall_s;  /* so long without a byte, or without a connection, is a failure */
    uint32_t attempts; /* in a row that bring nothing; at least 1 */
    uint32_t pause_ms; /* before the second attempt; doubled before each further one */
    /* The file has so many bytes now; it may become shorter, where a server cannot resume. */
    void (*moved)(void *arg, uint64_t bytes);
    /* A sentence on why it is tried again, and when. */
    void (*retrying)(void *arg, const char *why);
    void *arg;
};
int transfer_open(struct transfer **out, const struct transfer_config *c, char *err,
                  size_t err_bytes);
void transfer_close(struct transfer *t); /* NULL is fine */

/* Appends the body to out; ERR_LIMIT beyond out->max_bytes. */
int transfer_text(struct transfer *t, const char *url, struct buf *out, char *err,
                  size_t err_bytes);
/* Makes the file at path `bytes` long: begins it, or asks for what it lacks (RFC 9110, section 14).
 * What has come stays when it fails. */
int transfer_file(struct transfer *t, const char *url, const char *path, uint64_t bytes, char *err,
                  size_t err_bytes);

long transfer_status(const struct transfer *t);       /* of the last answer; 0: there was none */
const char *transfer_words(const struct transfer *t); /* X-Error-Message of it, else "" */
/* Percent-encoded but for letters, digits, "-._~" and what `keep` holds, for free(); NULL without
 * memory. */
char *transfer_escape(const char *text, const char *keep);

#endif
