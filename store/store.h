/* store.h - the two durable environments of the broker, `meta` and `blob`, as one.
 *
 * A write transaction spans both: store_commit flushes blob first, then meta, so that a reference
 * never precedes what it names; what a crash leaves in blob without a reference is swept at open.
 * Nothing is promised until store_commit returns 0. After a failed commit the store refuses writes
 * (-EIO) until store_reopen has checked it. New jobs may fill 80 % of a map's cap (store_has_room,
 * store_write_room); the rest is for outcomes, and a reserve of pages for deletes alone.
 *
 * Units: bytes.  Owner: the opener; one write transaction at a time, by the store thread; reads by
 * any thread, short.  Memory: LMDB's maps plus one chunk.  Errors: ERR_FULL no room under the cap
 * (the disk is sound), -ENOSPC, -EIO, ERR_CORRUPT, ERR_VERSION with err.  Threads: as said. */
#ifndef PENSTOCK_STORE_STORE_H
#define PENSTOCK_STORE_STORE_H

#include "store/jobs.h"

struct store;
struct store_config {
    const char *dir;         /* made when missing: dir/meta, dir/blob, dir/lock */
    uint64_t meta_cap_bytes; /* map size; 0 takes 1 GiB (sparse) */
    uint64_t blob_cap_bytes; /* 0 takes 8 GiB (sparse) */
    /* For looking after a store: counts no start, sweeps nothing, refuses writes, makes no new one
     * (-ENOENT). A damaged store opens so as far as LMDB can. */
    bool as_is;
};

/* -EBUSY when another process has it (err names its pid). Sweeps orphans, counts the start. */
int store_open(struct store **out, const struct store_config *c, char *err, size_t err_bytes);
void store_close(struct store *s);
uint64_t store_epoch(const struct store *s); /* starts of a broker on this store, from 1 */
/* After a failed commit: checks the store and writes and flushes, on trial, as much as that commit
 * had to. */
int store_reopen(struct store *s, char *err, size_t err_bytes);

int store_write_begin(struct store *s, struct store_write **out);
int store_commit(struct store_write *w); /* ends w, whatever it returns */
void store_abort(struct store_write *w);
int store_read_begin(struct store *s, struct store_read **out);
void store_read_end(struct store_read *t);
/* How many records the walks of this transaction came by that cannot be read (ERR_CORRUPT), and
 * left out. */
uint64_t store_read_damaged(const struct store_read *t);
struct store_read *store_write_view(struct store_write *w); /* reads what w has written so far */

/* Payloads: decides inline or blob, fills *out (inline: borrows parts' first bytes when they are
 * one part, else copies into a). parts together are the payload. */
int store_payload_put(struct store_write *w, uint64_t job, uint32_t slot, const struct bytes *parts,
                      uint32_t n, struct arena *a, struct job_payload *out);
/* Reads a whole payload into `out` (checks the CRC: ERR_CORRUPT names job, slot and chunk). */
int store_payload_get(struct store_read *t, uint64_t job, uint32_t slot,
                      const struct job_payload *p, struct buf *out);
/* Frees the slot's blobs that no record names any more; records that are replaced or deleted free
 * theirs by themselves (jobs.h). The space comes back with the transaction after this one: until
 * then a crash must find what the committed record names. */
int store_payload_del(struct store_write *w, uint64_t job, uint32_t slot);

struct store_usage {
    /* live pages against the cap */
    uint64_t meta_bytes, meta_cap_bytes, blob_bytes, blob_cap_bytes;
    uint64_t jobs, chunks;
};
int store_usage(struct store *s, struct store_usage *out);

/* What a new job with such a payload takes of each half, about. */
struct store_room {
    uint64_t meta_bytes, blob_bytes;
};
struct store_room store_room_of(uint64_t payload_bytes);
/* Whether so much more would stay below 80 % of both caps, as of the last commit. Any thread. */
bool store_has_room(const struct store *s, struct store_room more);
/* How many bytes either half is over percent of its cap, or both together over bytes (0: any
 * number), as of the last commit; 0: none. Any thread. */
uint64_t store_over(const struct store *s, uint32_t percent, uint64_t bytes);
/* store_has_room for this transaction: ERR_FULL when a job with such a payload is one too many. */
int store_write_room(const struct store_write *w, uint64_t payload_bytes);
/* Whether an outcome with such a payload fits; it may use what is kept from new jobs. ERR_FULL. */
int store_outcome_room(const struct store_write *w, uint64_t payload_bytes);

/* On the store thread or offline, in a read transaction: walks every record, key, blob and CRC;
 * prints findings through fn; returns how many problems, or an error. */
int store_check(struct store *s, void (*fn)(void *arg, const char *finding), void *arg);

/* Copies a consistent store, without its free pages, into the folder `to`, which must not exist;
 * it can be opened in place of this one. On the store thread between transactions, or offline. */
int store_backup(struct store *s, const char *to, char *err, size_t err_bytes);
/* The same of a store that another process has open and goes on writing to: the copy is of one
 * moment, and only the payloads of jobs that are deleted wait for its end. */
int store_backup_live(const char *dir, const char *to, char *err, size_t err_bytes);
/* Replaces both data files by such copies: the space of deleted jobs goes back to the disk. Takes
 * the store alone; on failure it goes on with what it had, or refuses everything (-EIO). */
int store_compact(struct store *s, char *err, size_t err_bytes);

/* Offline, opened as_is: moves records that cannot be read, with the payloads that only they named,
 * into files in `dir/quarantine`, writes all indexes anew from the records, and says through fn
 * what it changed. A payload that is damaged stays with its job, which a start then ends. Returns
 * the number of changes, or an error with err. */
int store_repair(struct store *s, void (*fn)(void *arg, const char *line), void *arg, char *err,
                 size_t err_bytes);

/* Tests: the n-th commit from now fails with `error` between blob and meta (0 switches it off). */
void store_fail_commit(struct store *s, uint32_t countdown, int error);

#endif
