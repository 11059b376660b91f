#include "base/file.h"

#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/err.h"

static int fail(const char *verb, const char *path, char *err, size_t err_bytes) {
    int code = -errno;
    return err_set(err, err_bytes, code, "cannot %s %s: %s", verb, path, err_text(code));
}

/* Reads to the end, whatever fstat says: /proc and pipes have no size. */
static int read_all(int fd, const char *path, size_t max_bytes, struct buf *out, char *err,
                    size_t err_bytes) {
    for (;;) {
        size_t len = out->len;
        uint8_t *at = buf_extend(out, 64 * 1024);
        if (!at) return err_set(err, err_bytes, out->error, "cannot read %s: out of memory", path);
        ssize_t n = read(fd, at, 64 * 1024);
        out->len = len + (n > 0 ? (size_t)n : 0);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return fail("read", path, err, err_bytes);
        if (n == 0) return 0;
        if (out->len > max_bytes)
            return err_set(err, err_bytes, ERR_LIMIT, "%s is larger than %zu bytes", path,
                           max_bytes);
    }
}

int file_read(const char *path, size_t max_bytes, void **data, size_t *bytes, char *err,
              size_t err_bytes) {
    *data = NULL;
    *bytes = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return fail("open", path, err, err_bytes);
    struct buf b = {0};
    int rc = read_all(fd, path, max_bytes, &b, err, err_bytes);
    close(fd);
    if (rc == 0 && buf_u8(&b, 0) < 0)
        rc = err_set(err, err_bytes, -ENOMEM, "cannot read %s: out of memory", path);
    if (rc < 0) {
        buf_fini(&b);
        return rc;
    }
    *data = b.data;
    *bytes = b.len - 1;
    return 0;
}

int file_map(const char *path, struct file_map *out, char *err, size_t err_bytes) {
    *out = (struct file_map){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return fail("open", path, err, err_bytes);
    struct stat st;
    if (fstat(fd, &st) != 0) {
        int rc = fail("stat", path, err, err_bytes);
        close(fd);
        return rc;
    }
    if (!S_ISREG(st.st_mode) || st.st_size == 0) {
        close(fd);
        return err_set(err, err_bytes, ERR_CORRUPT, "%s: %s", path,
                       S_ISREG(st.st_mode) ? "the file is empty" : "not a regular file");
    }
    size_t bytes = (size_t)st.st_size;
    void *data = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
    int rc = data == MAP_FAILED ? fail("map", path, err, err_bytes) : 0;
    close(fd);
    if (rc == 0) *out = (struct file_map){data, bytes};
    return rc;
}

void file_unmap(struct file_map *m) {
    if (m->data) munmap((void *)(uintptr_t)m->data, m->bytes);
    *m = (struct file_map){0};
}

static int write_all(int fd, const uint8_t *data, size_t bytes) {
    while (bytes > 0) {
        ssize_t n = write(fd, data, bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -errno;
        data += n;
        bytes -= (size_t)n;
    }
    return 0;
}

/* The rename itself must reach the disk: that is a change of the folder. */
static int sync_folder_of(const char *path) {
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    size_t len = slash ? (size_t)(slash - path) : 1;
    if (len >= sizeof folder) return -ENAMETOOLONG;
    memcpy(folder, slash ? path : ".", len);
    folder[len] = '\0';
    int fd = open(len ? folder : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return -errno;
    int rc = fsync(fd) != 0 ? -errno : 0;
    close(fd);
    return rc;
}

static int replace(const char *path, const void *data, size_t bytes, mode_t mode, char *err,
                   size_t err_bytes) {
    char temp[PATH_MAX];
    int n = snprintf(temp, sizeof temp, "%s.XXXXXX", path);
    if (n < 0 || (size_t)n >= sizeof temp)
        return err_set(err, err_bytes, -ENAMETOOLONG, "cannot write %s: the name is too long",
                       path);
    int fd = mkostemp(temp, O_CLOEXEC);
    if (fd < 0) return fail("create a temporary beside", path, err, err_bytes);
    int rc = write_all(fd, data, bytes);
    if (rc == 0 && fchmod(fd, mode) != 0) rc = -errno;
    if (rc == 0 && fsync(fd) != 0) rc = -errno;
    if (close(fd) != 0 && rc == 0) rc = -errno;
    if (rc == 0 && rename(temp, path) != 0) rc = -errno;
    if (rc < 0) unlink(temp);
    if (rc == 0) rc = sync_folder_of(path);
    if (rc < 0) return err_set(err, err_bytes, rc, "cannot write %s: %s", path, err_text(rc));
    return 0;
}

int file_replace(const char *path, const void *data, size_t bytes, char *err, size_t err_bytes) {
    return replace(path, data, bytes, 0644, err, err_bytes);
}

int file_replace_secret(const char *path, const void *data, size_t bytes, char *err,
                        size_t err_bytes) {
    return replace(path, data, bytes, 0600, err, err_bytes);
}

int file_mkdirs(const char *path) {
    char part[PATH_MAX];
    size_t len = strlen(path);
    if (len == 0) return -ENOENT;
    if (len >= sizeof part) return -ENAMETOOLONG;
    memcpy(part, path, len + 1);
    for (size_t i = 1; i <= len; i++) {
        if (part[i] != '/' && part[i] != '\0') continue;
        char end = part[i];
        part[i] = '\0';
        int made = mkdir(part, 0700), rc = 0;
        if (made != 0 && errno != EEXIST) return -errno;
        if (made == 0) rc = sync_folder_of(part);
        if (rc != 0) return rc;
        part[i] = end;
    }
    struct stat st;
    if (stat(path, &st) != 0) return -errno;
    return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
}

bool file_is_folder(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at) {
    (void)st, (void)kind, (void)at;
    remove(path); /* what stays keeps its folder from going, and so is told */
    return 0;
}

int file_remove_tree(const char *path) {
    struct stat st;
    if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) != 0) return -errno;
    return lstat(path, &st) == 0 ? -ENOTEMPTY : 0;
}

int file_beside_program(const char *const *beside, int n, char *out, size_t out_bytes) {
    char bin[PATH_MAX];
    ssize_t len = readlink("/proc/self/exe", bin, sizeof bin - 1);
    bin[len > 0 ? len : 0] = '\0';
    char *slash = strrchr(bin, '/');
    if (slash) *slash = '\0';
    for (int i = 0; i < n; i++) {
        int wrote = snprintf(out, out_bytes, "%s%s", bin, beside[i]);
        if (wrote >= 0 && (size_t)wrote < out_bytes && file_is_folder(out)) return 0;
    }
    snprintf(out, out_bytes, "%s", bin);
    return -ENOENT;
}
