/* manifest.h - what a model's directory consists of: its files with their sizes and SHA-256.
 *
 * penstock-manifest.json in the directory: {"model", "origin", "digest", "files": {PATH: {"bytes",
 * "sha256"}}}. The digest is the SHA-256 of a line "SHA256  PATH\n" for each file, sorted by path.
 *
 * Units: bytes.  Owner: a loaded or filled manifest is freed by manifest_fini.  Memory: a row a
 * file.  Errors: -errno, ERR_FIELD, ERR_CORRUPT, ERR_LIMIT with the path in err.  Threads: any. */
#ifndef PENSTOCK_WORKERS_INFER_MANIFEST_H
#define PENSTOCK_WORKERS_INFER_MANIFEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/digest.h"

#define MANIFEST_NAME "penstock-manifest.json"
#define MANIFEST_FILES_MAX 1024u
#define MANIFEST_FILE_BYTES_MAX (UINT64_C(1) << 50) /* so that sums of them fit */

struct manifest_file {
    char *path; /* relative to the directory */
    uint64_t bytes;
    char sha256[DIGEST_SHA256_CHARS];
};
struct manifest {
    char *model, *origin;
    char digest[DIGEST_SHA256_CHARS];
    struct manifest_file *file; /* [n], sorted by path once it was written or loaded */
    uint32_t n;
};

void manifest_fini(struct manifest *m); /* accepts zeroed memory */
/* -ENOENT without err touched: the directory has none. */
int manifest_load(struct manifest *m, const char *dir, char *err, size_t err_bytes);
/* Copies path. ERR_LIMIT: the file is too large, or one too many. */
int manifest_add(struct manifest *m, const char *path, uint64_t bytes, char *err, size_t err_bytes);
/* Sorts the files, computes the digest, and writes it into dir. */
int manifest_write(struct manifest *m, const char *dir, char *err, size_t err_bytes);
/* Compares sizes, and hashes when deep, with what is there: ERR_CORRUPT names the first file that
 * differs. */
int manifest_check(const struct manifest *m, const char *dir, bool deep, char *err,
                   size_t err_bytes);
/* The sizes of a directory that has a manifest; 0 where it has none. */
int manifest_check_dir(const char *dir, char *err, size_t err_bytes);
uint64_t manifest_bytes(const struct manifest *m);

#endif
