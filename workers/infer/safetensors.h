/* safetensors.h - the weights of a model directory, mapped and checked, never copied.
 *
 * Reads model.safetensors, or the shards that model.safetensors.index.json names. A file is
 * 8 bytes of header length (little-endian), a JSON header {name: {dtype, shape, data_offsets}},
 * then the data, which the tensors must cover without gap or overlap. Whatever lies about itself is
 * refused with the file and the tensor named: header length, types, shapes, offsets, duplicate
 * names. Format: https://github.com/huggingface/safetensors (README, "Format").
 *
 * Units: bytes, elements.  Owner: safetensors_open gives a set to safetensors_close; tensors and
 * their data are borrowed until then.  Memory: the maps, and a table of the tensors.
 * Errors: -errno, ERR_CORRUPT, ERR_LIMIT, -ENOTSUP, -ENOMEM with err.  Threads: immutable after
 * open. */
#ifndef PENSTOCK_WORKERS_INFER_SAFETENSORS_H
#define PENSTOCK_WORKERS_INFER_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"

#define TENSOR_RANK_MAX 8u
/* A hundred thousand tensors; as JSON in memory a header takes ten times its text. */
#define SAFETENSORS_HEADER_BYTES_MAX (16u * 1024u * 1024u)
#define SAFETENSORS_SHARDS_MAX 256u

struct tensor {
    char *name;
    char type[12]; /* as the file says it: "F32", "BF16", "I64" */
    uint32_t rank;
    uint64_t shape[TENSOR_RANK_MAX];
    uint64_t elements;
    const void *data; /* aligned to its element */
    size_t bytes;
    uint32_t shard;
};

struct safetensors;
int safetensors_open(struct safetensors **out, const char *dir, char *err, size_t err_bytes);
/* One file by its path. */
int safetensors_open_file(struct safetensors **out, const char *path, char *err, size_t err_bytes);
void safetensors_close(struct safetensors *s); /* NULL is fine */
uint32_t safetensors_count(const struct safetensors *s);
/* In the order of names. */
const struct tensor *safetensors_at(const struct safetensors *s, uint32_t i);
const struct tensor *safetensors_find(const struct safetensors *s,
                                      const char *name); /* NULL: absent */
/* A text of the files' __metadata__ by its key; NULL: no file has it. */
const char *safetensors_metadata(const struct safetensors *s, const char *key);
/* The same by number, in the files' order; false past the end. */
bool safetensors_metadata_at(const struct safetensors *s, uint32_t i, const char **key,
                             const char **value);
/* Gives the memory that a tensor's pages hold back to the system; they are read again when they
 * are needed. */
void safetensors_release(const struct tensor *t);
/* File i and its header, the length in front of it included; NULL past the end. */
const char *safetensors_file(const struct safetensors *s, uint32_t i, struct bytes *header);
/* The file that holds it, for messages. */
const char *safetensors_path(const struct safetensors *s, const struct tensor *t);
/* The file that names them all, the index where there is one. */
const char *safetensors_where(const struct safetensors *s);

#endif
