/* dir.h - the folder of a store: who has it open, and whether it was ever made.
 *
 *   DIR/lock   flock'ed by the process that has it open, holds its pid
 *   DIR/STORE  written once both environments exist: without it a missing data file means "new",
 *              with it "lost"
 *   DIR/meta, DIR/blob
 *   DIR/backup.lock  flock'ed by a backup that copies them while another process has the store:
 *              until it ends, no payload is deleted that the copy of meta may name
 *
 * Units: none.  Owner: the lock lives as long as its descriptor.  Memory: none.
 * Errors: -EBUSY (err names the pid), -errno.  Threads: any. */
#ifndef PENSTOCK_STORE_DIR_H
#define PENSTOCK_STORE_DIR_H

#include <stdbool.h>
#include <stddef.h>

#define STORE_PATH_BYTES 4096

int store_path(const char *dir, const char *name, char out[STORE_PATH_BYTES], char *err,
               size_t err_bytes);
/* Whether a store was ever made there. */
bool store_dir_made(const char *dir);
/* Makes the folders when missing, takes the lock; *made: the store has existed before. */
int store_dir_lock(const char *dir, int *lock_fd, bool *made, char *err, size_t err_bytes);
void store_dir_unlock(int lock_fd); /* negative is fine */
/* A backup has it alone: -EBUSY when another one is under way. The lock ends with its process. */
int store_dir_backup_begin(const char *dir, int *fd, char *err, size_t err_bytes);
/* The same file for who asks, and the question; an fd that is negative says no. */
int store_dir_backup_open(const char *dir, int *fd, char *err, size_t err_bytes);
bool store_dir_in_backup(int fd);
/* Makes the names of the new data files durable. Before the first commit: one file that is there
 * with its commit, beside one that is not, would be no store. */
int store_dir_sync_names(const char *dir, char *err, size_t err_bytes);
/* Writes DIR/STORE. */
int store_dir_mark(const char *dir, char *err, size_t err_bytes);
int store_dir_sync(const char *path, char *err, size_t err_bytes); /* one folder's names */

#endif
