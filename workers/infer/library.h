/* library.h - the imported models of this user: content-addressed files, a directory a model.
 *
 *   ROOT/NAME/            a Hugging Face directory: hard links to blobs, and its manifest
 *   ROOT/.blobs/SHA256    each content once, read-only
 *   ROOT/.staging-*       an import under way; swept by the next change when it was killed
 *   ROOT/.pull/           downloads under way (pull.h)
 *   ROOT/.lock            held by whoever changes something
 *
 * A model appears by one rename of a directory that is complete, checked and flushed, so a crash at
 * any point leaves nothing half-imported.
 *
 * Units: bytes.  Owner: library_open gives a library, locked, to library_close.  Memory: paths.
 * Errors: -errno, ERR_*, with err naming the path.  Threads: one; processes wait for the lock. */
#ifndef PENSTOCK_WORKERS_INFER_LIBRARY_H
#define PENSTOCK_WORKERS_INFER_LIBRARY_H

#include "workers/infer/manifest.h"

struct library;
/* Makes root where it is missing, waits for the lock, sweeps what was left. */
int library_open(struct library **out, const char *root, char *err, size_t err_bytes);
void library_close(struct library *l); /* NULL is fine; takes back what was not kept */

struct library_source {
    const char *dir, *origin; /* origin is remembered */
    bool share; /* dir lies at root, and nobody writes its files any more: they are linked */
};
/* Copies (or shares, where the file system can) the files of a folder that belong to a model into
 * blobs, and links them into a staging directory, whose path is *dir until library_close. Space is
 * checked first. */
int library_stage(struct library *l, const struct library_source *from, const char *name,
                  const char **dir, char *err, size_t err_bytes);
/* One more file of what was staged, under that name. */
int library_add(struct library *l, const char *path, const char *name, char *err, size_t err_bytes);
/* -ENOSPC when the disk has no room for so many bytes, and some to spare. */
int library_check_space(const char *root, uint64_t bytes, char *err, size_t err_bytes);
const struct manifest *library_staged(const struct library *l);
/* Makes what was staged the model NAME. -EEXIST when there is another of that name, unless
 * replace. */
int library_keep(struct library *l, bool replace, char *err, size_t err_bytes);
int library_remove(struct library *l, const char *name, char *err, size_t err_bytes);

#endif
