#include "store/dir.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"

int store_path(const char *dir, const char *name, char out[STORE_PATH_BYTES], char *err,
               size_t err_bytes) {
    int n = snprintf(out, STORE_PATH_BYTES, "%s/%s", dir, name);
    if (n > 0 && n < STORE_PATH_BYTES) return 0;
    return err_set(err, err_bytes, -ENAMETOOLONG, "%s: the path is too long", dir);
}

/* The lock file holds the pid of whoever has it, as text. */
static long read_pid(int fd) {
    char text[32];
    ssize_t n = pread(fd, text, sizeof text - 1, 0);
    text[n > 0 ? n : 0] = '\0';
    return strtol(text, NULL, 10);
}

static int take_lock(const char *path, int *lock_fd, char *err, size_t err_bytes) {
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) return err_set(err, err_bytes, -errno, "%s: %s", path, strerror(errno));
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        int code = errno == EWOULDBLOCK ? -EBUSY : -errno;
        if (code == -EBUSY)
            err_set(err, err_bytes, code,
                    "%s: the store is open in process %ld; stop it, or use another folder", path,
                    read_pid(fd));
        else
            err_set(err, err_bytes, code, "%s: cannot be locked: %s", path, strerror(-code));
        close(fd);
        return code;
    }
    char text[32];
    int n = snprintf(text, sizeof text, "%ld\n", (long)getpid());
    if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)n, 0) != n) {
        int code = errno != 0 ? -errno : -EIO;
        close(fd);
        return err_set(err, err_bytes, code, "%s: cannot be written: %s", path, strerror(-code));
    }
    *lock_fd = fd;
    return 0;
}

bool store_dir_made(const char *dir) {
    char path[STORE_PATH_BYTES];
    return store_path(dir, "STORE", path, NULL, 0) == 0 && access(path, F_OK) == 0;
}

int store_dir_lock(const char *dir, int *lock_fd, bool *made, char *err, size_t err_bytes) {
    static const char *const folders[] = {"meta", "blob"};
    char path[STORE_PATH_BYTES];
    for (int i = 0; i < 2; i++) {
        int code = store_path(dir, folders[i], path, err, err_bytes);
        if (code != 0) return code;
        code = file_mkdirs(path);
        if (code != 0)
            return err_set(err, err_bytes, code, "%s: cannot be made: %s", path, err_text(code));
    }
    int code = store_path(dir, "lock", path, err, err_bytes);
    if (code == 0) code = take_lock(path, lock_fd, err, err_bytes);
    if (code == 0) *made = store_dir_made(dir);
    return code;
}

void store_dir_unlock(int lock_fd) {
    if (lock_fd >= 0) close(lock_fd);
}

int store_dir_backup_open(const char *dir, int *fd, char *err, size_t err_bytes) {
    char path[STORE_PATH_BYTES];
    int code = store_path(dir, "backup.lock", path, err, err_bytes);
    if (code != 0) return code;
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (*fd >= 0) return 0;
    return err_set(err, err_bytes, -errno, "%s: %s", path, strerror(errno));
}

int store_dir_backup_begin(const char *dir, int *fd, char *err, size_t err_bytes) {
    int code = store_dir_backup_open(dir, fd, err, err_bytes);
    if (code != 0) return code;
    /* Who asks whether there is a backup has the lock for an instant. */
    for (int i = 0; (code = flock(*fd, LOCK_EX | LOCK_NB)) != 0 && i < 100; i++) usleep(10000);
    if (code == 0) return 0;
    close(*fd);
    *fd = -1;
    return err_set(err, err_bytes, -EBUSY, "%s: another backup of this store is under way", dir);
}

bool store_dir_in_backup(int fd) {
    if (fd < 0) return false;
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) return errno == EWOULDBLOCK;
    flock(fd, LOCK_UN);
    return false;
}

int store_dir_sync(const char *path, char *err, size_t err_bytes) {
    int code = 0;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) != 0) code = -errno;
    if (fd >= 0) close(fd);
    if (code == 0) return 0;
    return err_set(err, err_bytes, code, "%s: cannot be flushed: %s", path, strerror(-code));
}

int store_dir_sync_names(const char *dir, char *err, size_t err_bytes) {
    static const char *const folders[] = {"meta", "blob", ".", ".."};
    char path[STORE_PATH_BYTES];
    int code = 0;
    for (int i = 0; code == 0 && i < 4; i++) {
        code = store_path(dir, folders[i], path, err, err_bytes);
        if (code == 0) code = store_dir_sync(path, err, err_bytes);
    }
    return code;
}

int store_dir_mark(const char *dir, char *err, size_t err_bytes) {
    static const char text[] = "A penstock store. Its jobs are in meta, their larger payloads in "
                               "blob; both belong together.\n";
    char path[STORE_PATH_BYTES];
    int code = store_path(dir, "STORE", path, err, err_bytes);
    return code == 0 ? file_replace(path, text, sizeof text - 1, err, err_bytes) : code;
}
