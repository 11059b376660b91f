/* medium.h - what a disk may hold of the files below a folder when the power goes.
 *
 * Each file is kept twice: as the programs see it, and as it would be read after the loss of all
 * that was not flushed. In between lie the sectors that were written since, each version of each.
 * medium_crash writes a copy in which any choice of those has reached the disk: the page cache
 * writes back what it likes, in any order, and a write of several sectors may be torn between two.
 * A file's length and its name are kept in the same way.
 *
 * Units: bytes, sectors of 512.  Owner: the caller.  Memory: twice the files, as they are touched.
 * Errors: a record that cannot be imitated returns -EINVAL with err.  Threads: one. */
#ifndef PENSTOCK_TESTS_FAULTS_MEDIUM_H
#define PENSTOCK_TESTS_FAULTS_MEDIUM_H

#include "base/bytes.h"
#include "tests/faults/record.h"

#define MEDIUM_SECTOR 512u
#define MEDIUM_FILE_BYTES (512ull << 20) /* no file may grow beyond */
#define MEDIUM_NODES 64u

struct medium_version { /* a sector as it was after some write */
    uint32_t sector, write;
    bool void_; /* overtaken: the medium has this one or a later one */
    uint8_t data[MEDIUM_SECTOR];
};
struct medium_node {
    char *path, *old_path; /* old_path: renamed, and the rename is not on disk yet */
    bool folder, named;    /* named: its name is on disk */
    uint8_t *seen, *kept;  /* [MEDIUM_FILE_BYTES], sparse */
    uint64_t seen_bytes, kept_bytes;
    uint64_t *sizes; /* [n_sizes] since the last flush */
    struct medium_version *versions;
    uint32_t n_sizes, sizes_cap, n_versions, versions_cap, writes;
};
struct medium {
    char *root;
    struct medium_node node[MEDIUM_NODES];
    uint32_t n;
    uint64_t records, flushes;
};

enum medium_loss {
    LOSS_ALL,     /* nothing that was not flushed */
    LOSS_NONE,    /* the power goes, the cache had just been written back */
    LOSS_WRITES,  /* some writes, whole */
    LOSS_PAGES,   /* some pages of 4096 bytes, each as it was at some time */
    LOSS_SECTORS, /* some sectors of 512 bytes, each as it was at some time */
    LOSSES
};

void medium_init(struct medium *m, const char *root);
void medium_fini(struct medium *m);
/* Takes a record of the broker's; those of clients are none of its business. */
int medium_apply(struct medium *m, enum record_type type, const char *path, uint64_t number,
                 struct bytes data, char *err, size_t err_bytes);
/* Makes the folder `to`, which must not exist, and in it what is left of the root. */
int medium_crash(const struct medium *m, const char *to, enum medium_loss loss, uint64_t seed);
/* Whether every file is what the programs saw: -ENOENT or ERR_CORRUPT when a change went unseen. */
int medium_compare(const struct medium *m, char *err, size_t err_bytes);

#endif
