/* Preloaded into a program: the N-th of some kind of call fails, once. PENSTOCK_FAULT=KIND:N:ERRNO
 * says which; PENSTOCK_FAULT_ROOT, whose files are meant by writes and flushes. PENSTOCK_FAULT_LOG
 * is a file that takes a line when the fault was made, and, at the program's end, one with the
 * calls that there were of each kind.
 *
 *   write    of a file below the root; ERRNO 0 writes half
 *   flush    fsync or fdatasync of such a file, and a write through an O_DSYNC descriptor
 *   malloc   any allocation; returns NULL
 *   message  zmq_msg_send of a message's first frame
 *   send     on a connection, by whatever thread of libzmq */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <zmq.h>

#define REAL(name, ...) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))(__VA_ARGS__)

enum kind { WRITE, FLUSH, MALLOC, MESSAGE, SEND, KINDS };
static const char *const kind_names[KINDS] = {"write", "flush", "malloc", "message", "send"};

static atomic_long calls[KINDS];
static long wanted[KINDS]; /* 0: none */
static int fault_errno, log_fd = -1;
static char root[512];

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t n, size_t bytes);
void *__libc_realloc(void *p, size_t bytes);
void *__libc_memalign(size_t align, size_t bytes);

__attribute__((constructor)) static void start(void) {
    const char *fault = getenv("PENSTOCK_FAULT"), *log = getenv("PENSTOCK_FAULT_LOG");
    const char *below = getenv("PENSTOCK_FAULT_ROOT");
    if (below) snprintf(root, sizeof root, "%s/", below);
    if (log) log_fd = open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    for (int k = 0; k < KINDS; k++) atomic_store(&calls[k], 0);
    for (int k = 0; fault && k < KINDS; k++) {
        size_t len = strlen(kind_names[k]);
        if (strncmp(fault, kind_names[k], len) != 0 || fault[len] != ':') continue;
        char *end;
        wanted[k] = strtol(fault + len + 1, &end, 10);
        fault_errno = *end ? atoi(end + 1) : 0;
    }
}

static void say(const char *text, int len) {
    if (log_fd >= 0 && len > 0) REAL(write, log_fd, text, (size_t)len);
}

__attribute__((destructor)) static void count(void) {
    char line[256];
    say(line,
        snprintf(line, sizeof line, "calls write %ld flush %ld malloc %ld message %ld send %ld\n",
                 calls[WRITE], calls[FLUSH], calls[MALLOC], calls[MESSAGE], calls[SEND]));
}

/* Whether this call is the one; errno is set. */
static bool fails(enum kind k) {
    if (atomic_fetch_add(&calls[k], 1) + 1 != wanted[k]) return false;
    say("fault\n", 6);
    errno = fault_errno;
    return true;
}

static bool of_store(int fd) {
    char link[64], path[512];
    if (!root[0]) return false;
    int e = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    errno = e;
    path[n > 0 ? n : 0] = '\0';
    return strncmp(path, root, strlen(root)) == 0;
}

static bool through(int fd) {
    return (fcntl(fd, F_GETFL) & O_DSYNC) != 0;
}

/* ---- files ---- */

ssize_t pwrite(int fd, const void *data, size_t bytes, off_t at) {
    if (!of_store(fd)) return REAL(pwrite, fd, data, bytes, at);
    if (through(fd) && fails(FLUSH)) return -1;
    if (!fails(WRITE)) return REAL(pwrite, fd, data, bytes, at);
    return fault_errno ? -1 : REAL(pwrite, fd, data, bytes / 2, at);
}

ssize_t write(int fd, const void *data, size_t bytes) {
    if (!of_store(fd) || !fails(WRITE)) return REAL(write, fd, data, bytes);
    return fault_errno ? -1 : REAL(write, fd, data, bytes / 2);
}

ssize_t writev(int fd, const struct iovec *data, int n) {
    if (!of_store(fd) || !fails(WRITE)) return REAL(writev, fd, data, n);
    return fault_errno ? -1 : REAL(write, fd, data[0].iov_base, data[0].iov_len / 2);
}

/* A change of size has no half. */
static int no_room(void) {
    if (!errno) errno = ENOSPC;
    return -1;
}

int ftruncate(int fd, off_t bytes) {
    return of_store(fd) && fails(WRITE) ? no_room() : REAL(ftruncate, fd, bytes);
}

int fallocate(int fd, int mode, off_t at, off_t bytes) {
    return of_store(fd) && fails(WRITE) ? no_room() : REAL(fallocate, fd, mode, at, bytes);
}

int fsync(int fd) {
    return of_store(fd) && fails(FLUSH) ? -1 : REAL(fsync, fd);
}

int fdatasync(int fd) {
    return of_store(fd) && fails(FLUSH) ? -1 : REAL(fdatasync, fd);
}

/* ---- memory ---- */

void *malloc(size_t bytes) {
    return fails(MALLOC) ? NULL : __libc_malloc(bytes);
}
void *calloc(size_t n, size_t bytes) {
    return fails(MALLOC) ? NULL : __libc_calloc(n, bytes);
}
void *realloc(void *p, size_t bytes) {
    return fails(MALLOC) ? NULL : __libc_realloc(p, bytes);
}
void *aligned_alloc(size_t align, size_t bytes) {
    return fails(MALLOC) ? NULL : __libc_memalign(align, bytes);
}

/* ---- the network ---- */

int zmq_msg_send(zmq_msg_t *m, void *socket, int flags) {
    static _Thread_local bool within; /* a message that has begun goes on */
    bool first = !within;
    if (first && fails(MESSAGE)) return -1;
    int rc = REAL(zmq_msg_send, m, socket, flags);
    if (rc >= 0) within = (flags & ZMQ_SNDMORE) != 0;
    return rc;
}

/* A connection that is broken for sending is broken. */
ssize_t send(int fd, const void *data, size_t bytes, int flags) {
    if (!fails(SEND)) return REAL(send, fd, data, bytes, flags);
    shutdown(fd, SHUT_RDWR);
    errno = fault_errno;
    return -1;
}
