/* uploads.h - a body that arrives in pieces, before there is a job that owns it.
 *
 * An upload has the id of the job that it becomes, and its bytes lie where that job's body will:
 * nothing is copied when the job is added. Each chunk is written, and counted in the upload's
 * record, in one transaction, so that what `have` says survives a crash.
 *
 *   uploads_add -> uploads_append ... -> uploads_take and jobs_add, in one transaction
 *              \-> uploads_del
 *
 * Units: bytes.  Owner: a record's strings are borrowed from the caller when put, from the
 * transaction when got.  Memory: none.  Errors: -ENOENT (no such upload), ERR_CORRUPT, ERR_LIMIT,
 * store errors.  Threads: as the transaction. */
#ifndef PENSTOCK_STORE_UPLOADS_H
#define PENSTOCK_STORE_UPLOADS_H

#include "store/jobs.h"

struct store;

struct upload_record {
    uint64_t id;
    uint64_t bytes, have;   /* of the whole; of what is there */
    uint32_t crc, have_crc; /* CRC32C of the whole, as its sender says; of what is there */
    struct bytes tenant, key;
};

int uploads_add(struct store_write *w, const struct upload_record *u); /* writes or replaces */
int uploads_get(struct store_read *t, uint64_t id, struct upload_record *out);
/* Writes data behind what is there and updates *u, which must be as uploads_get fills it. All but
 * the last chunk have uploads_chunk_bytes. */
int uploads_append(struct store_write *w, struct upload_record *u, struct bytes data);
/* The record goes, the bytes stay: a job that was added in this transaction names them. */
int uploads_take(struct store_write *w, uint64_t id);
int uploads_del(struct store_write *w, uint64_t id); /* and the bytes, with the next transaction */

/* In the order of their ids; fn returns nonzero to stop, which is returned, and writes nothing.
 * What cannot be read is left out and counted (store_read_damaged). */
int uploads_walk(struct store_read *t, int (*fn)(void *arg, const struct upload_record *u),
                 void *arg);
/* Checks the bytes that are there, against their own checksums and that of the record. */
int uploads_check(struct store_read *t, const struct upload_record *u, char *err, size_t err_bytes);

/* How many bytes a chunk has: as many whole blobs as go into one frame. */
uint32_t uploads_chunk_bytes(struct store *s);
/* A number that belongs to this id in this store, and that nobody can guess. */
uint64_t uploads_token(const struct store *s, uint64_t id);

#endif
