/* Preloaded into a broker: logs what it does to the files below PENSTOCK_RECORD_ROOT into the file
 * PENSTOCK_RECORD_LOG (record.h). PENSTOCK_RECORD_KILL=N kills the process with SIGKILL after its
 * N-th record, so that nothing is done that is not in the log; PENSTOCK_RECORD_FLUSH_US makes
 * flushes as slow as those of a disk. One lock is held over each change and its record. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tests/faults/record.h"

#define FDS 1024
#define REAL(name, ...) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))(__VA_ARGS__)

struct tracked {
    char *path; /* NULL: not below the root */
    bool through;
};
static struct tracked tracked[FDS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int log_fd = -1;
static long records_left = -1; /* -1: never */
static unsigned flush_us;

__attribute__((constructor)) static void start(void) {
    const char *log = getenv("PENSTOCK_RECORD_LOG"), *kill_at = getenv("PENSTOCK_RECORD_KILL");
    const char *us = getenv("PENSTOCK_RECORD_FLUSH_US");
    if (log) log_fd = REAL(open, log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (kill_at) records_left = atol(kill_at);
    if (us) flush_us = (unsigned)atol(us);
}

static bool below_root(const char *path) {
    const char *root = getenv("PENSTOCK_RECORD_ROOT");
    if (log_fd < 0 || !root || strncmp(path, root, strlen(root)) != 0) return false;
    const char *name = strrchr(path, '/');
    return name && strcmp(name, "/lock.mdb") != 0 && strcmp(name, "/lock") != 0;
}

/* The lock is held. */
static void record(enum record_type type, const char *path, uint64_t number,
                   const struct iovec *data, int n) {
    uint32_t word[2] = {(uint32_t)type, (uint32_t)strlen(path)};
    uint64_t wide[2] = {number, 0};
    struct iovec all[64 + 3] = {{word, sizeof word}, {wide, sizeof wide}, {(void *)path, word[1]}};
    for (int i = 0; i < n; i++) {
        all[3 + i] = data[i];
        wide[1] += data[i].iov_len;
    }
    ssize_t want = (ssize_t)(sizeof word + sizeof wide + word[1] + wide[1]);
    if (REAL(writev, log_fd, all, 3 + n) != want) abort(); /* a log with a hole proves nothing */
    if (records_left > 0 && --records_left == 0) kill(getpid(), SIGKILL);
}

static void record_text(enum record_type type, const char *path, const char *text) {
    struct iovec data = {(void *)text, text ? strlen(text) : 0};
    record(type, path, 0, &data, 1);
}

/* ---- descriptors ---- */

static void track(int fd, const char *path, int flags, bool made) {
    if (fd < 0 || fd >= FDS || !below_root(path)) return;
    free(tracked[fd].path);
    tracked[fd] = (struct tracked){strdup(path), (flags & (O_DSYNC | O_SYNC)) != 0};
    if (made) record(RECORD_FILE, path, 0, NULL, 0);
    if (flags & O_TRUNC) record_text(RECORD_STRANGE, path, "O_TRUNC");
}

static int open_and_track(const char *path, int flags, mode_t mode) {
    pthread_mutex_lock(&lock);
    bool made = (flags & O_CREAT) && access(path, F_OK) != 0;
    int fd = REAL(open, path, flags, mode), e = errno;
    if (fd >= 0) track(fd, path, flags, made);
    pthread_mutex_unlock(&lock);
    errno = e;
    return fd;
}

static mode_t mode_of(int flags, va_list args) {
    return flags & O_CREAT ? va_arg(args, mode_t) : 0;
}
int open(const char *path, int flags, ...) {
    va_list args;
    va_start(args, flags);
    mode_t mode = mode_of(flags, args);
    va_end(args);
    return open_and_track(path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    va_list args;
    va_start(args, flags);
    mode_t mode = mode_of(flags, args);
    va_end(args);
    return open_and_track(path, flags, mode);
}

int mkostemp(char *path, int flags) {
    pthread_mutex_lock(&lock);
    int fd = REAL(mkostemp, path, flags), e = errno;
    if (fd >= 0) track(fd, path, flags, true);
    pthread_mutex_unlock(&lock);
    errno = e;
    return fd;
}

int close(int fd) {
    pthread_mutex_lock(&lock);
    if (fd >= 0 && fd < FDS) {
        free(tracked[fd].path);
        tracked[fd] = (struct tracked){0};
    }
    int rc = REAL(close, fd), e = errno;
    pthread_mutex_unlock(&lock);
    errno = e;
    return rc;
}

static const struct tracked *tracked_of(int fd) {
    return fd >= 0 && fd < FDS && tracked[fd].path ? &tracked[fd] : NULL;
}

/* ---- writes ---- */

/* Cuts data to what was written. */
static void record_write(const struct tracked *t, const struct iovec *data, int n, uint64_t at,
                         ssize_t wrote) {
    struct iovec part[64];
    if (wrote <= 0) return;
    if (n > 64) {
        record_text(RECORD_STRANGE, t->path, "a write of more than 64 parts");
        return;
    }
    size_t left = (size_t)wrote;
    int used = 0;
    for (; used < n && left > 0; left -= part[used++].iov_len)
        part[used] = (struct iovec){data[used].iov_base,
                                    data[used].iov_len < left ? data[used].iov_len : left};
    if (t->through && flush_us) usleep(flush_us);
    record(t->through ? RECORD_THROUGH : RECORD_WRITE, t->path, at, part, used);
}

ssize_t pwrite(int fd, const void *data, size_t bytes, off_t at) {
    const struct tracked *t = tracked_of(fd);
    if (!t) return REAL(pwrite, fd, data, bytes, at);
    pthread_mutex_lock(&lock);
    ssize_t n = REAL(pwrite, fd, data, bytes, at);
    int e = errno;
    record_write(t, &(struct iovec){(void *)data, bytes}, 1, (uint64_t)at, n);
    pthread_mutex_unlock(&lock);
    errno = e;
    return n;
}
ssize_t pwrite64(int fd, const void *data, size_t bytes, off64_t at) {
    return pwrite(fd, data, bytes, at);
}

ssize_t writev(int fd, const struct iovec *data, int n) {
    const struct tracked *t = tracked_of(fd);
    if (!t) return REAL(writev, fd, data, n);
    pthread_mutex_lock(&lock);
    off_t at = lseek(fd, 0, SEEK_CUR);
    ssize_t wrote = REAL(writev, fd, data, n);
    int e = errno;
    record_write(t, data, n, (uint64_t)at, wrote);
    pthread_mutex_unlock(&lock);
    errno = e;
    return wrote;
}

ssize_t write(int fd, const void *data, size_t bytes) {
    if (!tracked_of(fd)) return REAL(write, fd, data, bytes);
    return writev(fd, &(struct iovec){(void *)data, bytes}, 1);
}

static int strange(int fd, int rc, const char *what) {
    const struct tracked *t = tracked_of(fd);
    int e = errno;
    pthread_mutex_lock(&lock);
    if (t) record_text(RECORD_STRANGE, t->path, what);
    pthread_mutex_unlock(&lock);
    errno = e;
    return rc;
}

ssize_t pwritev(int fd, const struct iovec *data, int n, off_t at) {
    ssize_t wrote = REAL(pwritev, fd, data, n, at);
    strange(fd, 0, "pwritev");
    return wrote;
}

/* ---- sizes and flushes ---- */

static int resized(int fd, int rc) {
    const struct tracked *t = tracked_of(fd);
    struct stat st;
    if (rc == 0 && t && fstat(fd, &st) == 0)
        record(RECORD_SIZE, t->path, (uint64_t)st.st_size, NULL, 0);
    return rc;
}

int ftruncate(int fd, off_t bytes) {
    pthread_mutex_lock(&lock);
    int rc = REAL(ftruncate, fd, bytes), e = errno;
    resized(fd, rc);
    pthread_mutex_unlock(&lock);
    errno = e;
    return rc;
}
int ftruncate64(int fd, off64_t bytes) {
    return ftruncate(fd, bytes);
}

/* Preallocated blocks read as zeros, as a hole does. */
int fallocate(int fd, int mode, off_t at, off_t bytes) {
    pthread_mutex_lock(&lock);
    int rc = REAL(fallocate, fd, mode, at, bytes), e = errno;
    resized(fd, rc);
    pthread_mutex_unlock(&lock);
    if (rc == 0 && (mode & ~FALLOC_FL_KEEP_SIZE)) strange(fd, 0, "fallocate that changes data");
    errno = e;
    return rc;
}
int fallocate64(int fd, int mode, off64_t at, off64_t bytes) {
    return fallocate(fd, mode, at, bytes);
}
int posix_fallocate(int fd, off_t at, off_t bytes) {
    pthread_mutex_lock(&lock);
    int rc = REAL(posix_fallocate, fd, at, bytes);
    resized(fd, rc);
    pthread_mutex_unlock(&lock);
    return rc;
}
int posix_fallocate64(int fd, off64_t at, off64_t bytes) {
    return posix_fallocate(fd, at, bytes);
}

static int flush(int fd, int (*real)(int)) {
    const struct tracked *t = tracked_of(fd);
    if (!t) return real(fd);
    pthread_mutex_lock(&lock);
    if (flush_us) usleep(flush_us);
    int rc = real(fd), e = errno;
    if (rc == 0) record(RECORD_FLUSH, t->path, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    errno = e;
    return rc;
}
int fsync(int fd) {
    return flush(fd, (int (*)(int))dlsym(RTLD_NEXT, "fsync"));
}
int fdatasync(int fd) {
    return flush(fd, (int (*)(int))dlsym(RTLD_NEXT, "fdatasync"));
}

void *mmap(void *want, size_t bytes, int protection, int flags, int fd, off_t at) {
    if ((flags & MAP_SHARED) && (protection & PROT_WRITE)) strange(fd, 0, "a writable map");
    return REAL(mmap, want, bytes, protection, flags, fd, at);
}

/* ---- names ---- */

int mkdir(const char *path, mode_t mode) {
    pthread_mutex_lock(&lock);
    int rc = REAL(mkdir, path, mode), e = errno;
    if (rc == 0 && below_root(path)) record(RECORD_FOLDER, path, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    errno = e;
    return rc;
}

int rename(const char *from, const char *to) {
    pthread_mutex_lock(&lock);
    int rc = REAL(rename, from, to), e = errno;
    if (rc == 0 && below_root(from)) record_text(RECORD_RENAME, from, to);
    pthread_mutex_unlock(&lock);
    errno = e;
    return rc;
}

int unlink(const char *path) {
    pthread_mutex_lock(&lock);
    int rc = REAL(unlink, path), e = errno;
    if (rc == 0 && below_root(path)) record(RECORD_UNLINK, path, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    errno = e;
    return rc;
}
