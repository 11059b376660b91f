/* file.h - whole files: read under a cap, mapped read-only, replaced atomically.
 *
 * Units: bytes.  Owner: file_read gives memory to free(); a map is unmapped by file_unmap.
 * Memory: as said.  Errors: -errno, ERR_LIMIT with the path in err.  Threads: any. */
#ifndef PENSTOCK_BASE_FILE_H
#define PENSTOCK_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>

int file_read(const char *path, size_t max_bytes, void **data, size_t *bytes, char *err,
              size_t err_bytes); /* a NUL follows the bytes */
struct file_map {
    const void *data; /* page-aligned, PROT_READ, MAP_SHARED */
    size_t bytes;
};
int file_map(const char *path, struct file_map *out, char *err, size_t err_bytes);
void file_unmap(struct file_map *m); /* accepts zeroed memory */
/* Writes a temporary beside path, fsyncs it, renames, fsyncs the folder. */
int file_replace(const char *path, const void *data, size_t bytes, char *err, size_t err_bytes);
/* The same for what only its owner may read: mode 0600 from the first byte on. */
int file_replace_secret(const char *path, const void *data, size_t bytes, char *err,
                        size_t err_bytes);
/* Like mkdir -p, mode 0700 for what it makes; the names that it made survive a loss of power. */
int file_mkdirs(const char *path);

/* The first of n folders that is there, each given relative to the running program's own folder
 * ("/../share/..."): -ENOENT when none is, and out is the program's folder. */
int file_beside_program(const char *const *beside, int n, char *out, size_t out_bytes);
bool file_is_folder(const char *path);
/* Like rm -r: follows no link; -ENOTEMPTY when something could not be removed. */
int file_remove_tree(const char *path);

#endif
