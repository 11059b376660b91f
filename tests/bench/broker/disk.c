/* The disk, as broker.c measures it beside everything else: flushes and LMDB commits. */
#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/bench/broker/load.h"

enum { RECORD_BYTES = 256 };

double flush_rate(const char *dir, int ms) {
    char path[512];
    static uint8_t page[4096];
    snprintf(path, sizeof path, "%s/flush", dir);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) die("%s: %s", path, strerror(errno));
    for (int i = 0; i < 256; i++) /* so that no flush allocates blocks */
        if (write(fd, page, sizeof page) != (ssize_t)sizeof page)
            die("%s: %s", path, strerror(errno));
    if (fsync(fd) != 0) die("%s: %s", path, strerror(errno));
    uint64_t n = 0;
    int64_t began = clock_mono_ns(), now = began;
    for (; now - began < ms * INT64_C(1000000); n++, now = clock_mono_ns()) {
        page[0]++;
        if (pwrite(fd, page, sizeof page, (off_t)(n % 256) * 4096) != (ssize_t)sizeof page ||
            fdatasync(fd) != 0)
            die("%s: %s", path, strerror(errno));
    }
    close(fd);
    unlink(path);
    return (double)n * 1e9 / (double)(now - began);
}

double lmdb_rate(const char *dir, int ms, uint32_t records) {
    char path[512];
    static uint8_t record[RECORD_BYTES];
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;
    snprintf(path, sizeof path, "%s/lmdb", dir);
    if (mdb_env_create(&env) || mdb_env_set_mapsize(env, (size_t)1 << 32) ||
        mdb_env_open(env, path, MDB_NOSUBDIR, 0600) || mdb_txn_begin(env, NULL, 0, &txn) ||
        mdb_dbi_open(txn, NULL, MDB_INTEGERKEY, &dbi) || mdb_txn_commit(txn))
        die("%s cannot be opened", path);
    uint64_t n = 0;
    int64_t began = clock_mono_ns(), now = began;
    for (; now - began < ms * INT64_C(1000000); now = clock_mono_ns()) {
        if (mdb_txn_begin(env, NULL, 0, &txn)) die("%s: no transaction", path);
        for (uint32_t i = 0; i < records; i++, n++) {
            MDB_val key = {sizeof n, &n}, value = {sizeof record, record};
            if (mdb_put(txn, dbi, &key, &value, MDB_APPEND)) die("%s: a put failed", path);
        }
        if (mdb_txn_commit(txn)) die("%s: a commit failed", path);
    }
    mdb_env_close(env);
    unlink(path);
    snprintf(path, sizeof path, "%s/lmdb-lock", dir);
    unlink(path);
    return (double)n * 1e9 / (double)(now - began);
}
