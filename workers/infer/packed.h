/* packed.h - packed weights of a model kept on disk, so that the next start need not pack again.
 *
 *   MODELS/.packed/KEY    a header, a row a matrix, and the matrices as weight_borrow takes them
 *
 * The key is a hash of what the packed bytes depend on: the backend's layout, the type asked for,
 * the recipe, config.json, and each weights' file by its header (all names, types, shapes) and its
 * content. The content of an imported model is known by the SHA-256 of its manifest, which the
 * import has checked, with the file's size and time of change in case somebody wrote to it since. A
 * loose directory's would take seconds to hash at every start: there size, device, inode, time of
 * change of the content and of the inode (which no call can set back) stand for it.
 *
 * A file appears whole, by one rename of what was written and flushed. Header and rows carry a
 * checksum and each matrix a CRC32C; all of them are compared at every opening, which reads the
 * file once, at the speed of memory when it is cached. What is truncated, stale, damaged or of
 * another version is as if it were not there. The bytes are mapped and shared by all processes.
 *
 * Once PACKED_FOLDER_BYTES are taken, the models that were not opened for the longest time go.
 *
 * Units: bytes.  Owner: packed_open gives a set to packed_close; weights borrow its map until then.
 * Memory: the map.  Errors: reasons for a log: without this cache everything works, only slower.
 * Threads: one caller at a time; processes may do the same at once. */
#ifndef PENSTOCK_WORKERS_INFER_PACKED_H
#define PENSTOCK_WORKERS_INFER_PACKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/hash.h"
#include "kernels/ops.h"

#define PACKED_FOLDER ".packed" /* below the models of this user */
#define PACKED_FOLDER_BYTES (64ull << 30)
#define PACKED_BYTES_LEAST (32u << 20) /* less is packed faster than anybody notices */

struct packed;
struct safetensors;

/* What the weights of `dir` become; `what` names type and recipe. */
int packed_key(const char *dir, const struct safetensors *st, const char *layout, const char *what,
               char key[HASH_HEX_BYTES], char *err, size_t err_bytes);
/* NULL: there is none, or none that can be trusted. */
struct packed *packed_open(const char *root, const char *key);
void packed_close(struct packed *p); /* NULL is fine */
uint64_t packed_parameters(const struct packed *p);
/* The next matrix, which must be of that shape: ERR_CORRUPT when it is not. */
int packed_next(struct packed *p, struct ops *ops, uint32_t n, uint32_t k, bool pair,
                struct weight *out, char *err, size_t err_bytes);
/* Writes what packed_open will give: 1 when it was written, 0 when it would not pay. */
int packed_save(const char *root, const char *key, const struct weight *const *weight, uint32_t n,
                uint64_t parameters, char *err, size_t err_bytes);

#endif
