/* digest.h - the digests by which others know a file: SHA-256, and git's name for a blob.
 *
 * Git's is SHA-1 over "blob LENGTH", a NUL and the content (gitformat-objects); it serves to find
 * what went wrong on the way, not against forgery.
 *
 * Units: bytes.  Owner, memory: the caller's buffers; files are read in pieces.
 * Errors: -errno with the path in err.  Threads: any. */
#ifndef PENSTOCK_BASE_DIGEST_H
#define PENSTOCK_BASE_DIGEST_H

#include <stdint.h>

#include "base/bytes.h"

#define DIGEST_SHA256_CHARS 65 /* hexadecimal, with the NUL */
#define DIGEST_GIT_CHARS 41

void digest_sha256(struct bytes content, char out[DIGEST_SHA256_CHARS]);
void digest_git(struct bytes content, char out[DIGEST_GIT_CHARS]);
/* Of a file's content; bytes (NULL is fine) is how many were read. */
int digest_file_sha256(const char *path, char out[DIGEST_SHA256_CHARS], uint64_t *bytes, char *err,
                       size_t err_bytes);
int digest_file_git(const char *path, char out[DIGEST_GIT_CHARS], char *err, size_t err_bytes);

#endif
