/* tensor_writer.h - writes the weights of a model directory as safetensors files.
 *
 * All tensors are planned first (name, type, shape), which decides the files: model.safetensors, or
 * shards of at most TENSOR_WRITER_SHARD_BYTES of data with their index. Then their bytes come in
 * any order, in pieces. The files are whole, flushed and named once tensor_writer_end says 0; the
 * folder is for the caller to rename or to remove.
 *
 * Units: bytes.  Owner: tensor_writer_new gives one to tensor_writer_free.  Memory: the plan.
 * Errors: -errno, -ENOMEM with the path in err.  Threads: one caller at a time. */
#ifndef PENSTOCK_WORKERS_INFER_TENSOR_WRITER_H
#define PENSTOCK_WORKERS_INFER_TENSOR_WRITER_H

#include <stddef.h>
#include <stdint.h>

#define TENSOR_WRITER_SHARD_BYTES (4ull << 30)

struct tensor_writer;
/* dir is copied. NULL: no memory. */
struct tensor_writer *tensor_writer_new(const char *dir);
void tensor_writer_free(struct tensor_writer *w); /* NULL is fine */
/* A text of every file's __metadata__. */
int tensor_writer_note(struct tensor_writer *w, const char *key, const char *value);
/* type: "F32", "F16", "BF16", "U8". The number that tensor_writer_put takes, or -ENOMEM. */
int tensor_writer_plan(struct tensor_writer *w, const char *name, const char *type, uint32_t rank,
                       const uint64_t *shape, size_t bytes);
/* After the last plan: creates the files and writes their headers. */
int tensor_writer_begin(struct tensor_writer *w, char *err, size_t err_bytes);
int tensor_writer_put(struct tensor_writer *w, uint32_t tensor, size_t at, const void *data,
                      size_t bytes, char *err, size_t err_bytes);
uint64_t tensor_writer_bytes(const struct tensor_writer *w); /* of all tensors planned */
int tensor_writer_end(struct tensor_writer *w, char *err, size_t err_bytes);

#endif
