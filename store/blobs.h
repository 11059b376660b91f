/* blobs.h - payloads too large for a job's record, cut into chunks of two size classes.
 *
 * A chunk's value and LMDB's 16-byte overflow header together fill whole pages. Payloads of up to
 * BLOB_SMALL_MAX_BYTES are cut into chunks of a single page, in a table of their own: any free page
 * will do. The chunks of larger ones, and of uploads, are the smallest run of pages that holds 64
 * KiB of data and our header (17 pages of 4 KiB), however little is in it, so any run that was
 * freed fits any of them and the file does not fragment. A store of before the small class has all
 * of its payloads in large chunks; a payload is looked for in both.
 *
 * A payload is named by (job, slot, CRC32C of the whole): a new version of a slot lies beside the
 * one that the committed record still names, so that a crash between the commits of `blob` and
 * `meta` leaves the old one whole.
 *
 *   key    job u64be | slot u32be | crc u32be | index u32be
 *   value  "PSB" version u8 | crc u32 | data bytes u32 | index u32 | payload bytes u64 | job u64 |
 *          data | zeros       (little-endian; crc covers all from `data bytes` to the data's end)
 *
 * Units: bytes.  Owner: the caller's transaction.  Memory: none of its own; chunks are written into
 * the map's dirty pages.  Errors: ERR_CORRUPT with err naming job, slot and chunk, env.h's.
 * Threads: as the transaction. */
#ifndef PENSTOCK_STORE_BLOBS_H
#define PENSTOCK_STORE_BLOBS_H

#include "store/env.h"

#define BLOB_DATA_MIN_BYTES (64u * 1024u)
#define BLOB_SMALL_MAX_BYTES (32u * 1024u)
#define BLOB_KEY_BYTES 20u

struct blob_id {
    uint64_t job;
    uint32_t slot, crc;
};
/* Of the large class: a chunk's value, header and padding included, and payload bytes in a full
 * one. */
size_t blob_value_bytes(uint32_t page_bytes);
size_t blob_data_bytes(uint32_t page_bytes);
uint64_t blob_room_bytes(uint64_t payload_bytes); /* that a payload takes, with its pages' ends */

int blob_put(struct env_txn *t, struct blob_id id, const struct bytes *parts, uint32_t n);
/* Writes parts as the large chunks from `index` on of a payload of total bytes; all but the
 * payload's last chunk are full. */
int blob_put_at(struct env_txn *t, struct blob_id id, uint64_t total, uint32_t index,
                const struct bytes *parts, uint32_t n);
/* Checks the first `have` bytes of a payload of total bytes, of which crc is the CRC32C. */
int blob_check(const struct env_txn *t, struct blob_id id, uint64_t total, uint64_t have,
               uint32_t crc, char *err, size_t err_bytes);
/* Appends payload_bytes to out. */
int blob_get(const struct env_txn *t, struct blob_id id, uint64_t payload_bytes, struct buf *out,
             char *err, size_t err_bytes);
/* Whether a chunk by itself is sound: 0, ERR_CORRUPT. */
int blob_is_bad(struct bytes key, struct bytes value);
/* Appends whatever the chunks of a payload hold, sound or not. */
int blob_salvage(struct env_txn *t, struct blob_id id, struct buf *out);
int blob_del(struct env_txn *t, struct blob_id id); /* 0 also when there is nothing */

/* Calls fn for each payload, or each version of a slot, whatever its chunks, once for each class
 * that it lies in; stops at a nonzero return, which it returns. Deletes while walking are not
 * allowed: collect first. */
int blob_walk(struct env_txn *t, int (*fn)(void *arg, struct blob_id id), void *arg);
int blob_walk_slot(struct env_txn *t, uint64_t job, uint32_t slot,
                   int (*fn)(void *arg, struct blob_id id), void *arg);
int blob_count(const struct env_txn *t, uint64_t *chunks); /* of both classes */

#endif
