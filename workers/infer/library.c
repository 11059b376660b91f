#include "workers/infer/library.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "schemas/model_dir.h"

#define SPARE_BYTES (64u << 20) /* left free on the disk by an import */
#define COPY_BYTES (1u << 20)

struct library {
    char root[PATH_MAX / 4], staging[PATH_MAX / 2], name[MODEL_DIR_BYTES / 16];
    char within[PATH_MAX];    /* what is staged lies in this folder, links followed */
    struct manifest manifest; /* of what is staged */
    int lock;
};

static int fail(const char *verb, const char *path, char *err, size_t err_bytes) {
    int code = -errno;
    return err_set(err, err_bytes, code, "cannot %s %s: %s", verb, path, err_text(code));
}

static int sync_folder(const char *path, char *err, size_t err_bytes) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = fd >= 0 && fsync(fd) == 0 ? 0 : fail("flush", path, err, err_bytes);
    if (fd >= 0) close(fd);
    return rc;
}

/* Blobs that no model links, and those that were not finished. */
static void sweep_blobs(const struct library *l) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/.blobs", l->root);
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));) {
        struct stat st;
        snprintf(path, sizeof path, "%s/.blobs/%s", l->root, e->d_name);
        if (lstat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_nlink == 1) unlink(path);
    }
    if (d) closedir(d);
}

/* What a process that died with the lock left behind. */
static void sweep(const struct library *l) {
    char path[PATH_MAX];
    DIR *d = opendir(l->root);
    for (struct dirent *e; d && (e = readdir(d));) {
        if (strncmp(e->d_name, ".staging-", 9) != 0) continue;
        snprintf(path, sizeof path, "%s/%s", l->root, e->d_name);
        file_remove_tree(path);
    }
    if (d) closedir(d);
    sweep_blobs(l);
}

int library_open(struct library **out, const char *root, char *err, size_t err_bytes) {
    char path[PATH_MAX];
    struct library *l = calloc(1, sizeof *l);
    *out = NULL;
    if (!l) return err_set(err, err_bytes, -ENOMEM, "no memory for a library of models");
    int len = snprintf(l->root, sizeof l->root, "%s", root), rc;
    l->lock = -1;
    if (len < 0 || (size_t)len >= sizeof l->root) {
        free(l);
        return err_set(err, err_bytes, -ENAMETOOLONG, "%.100s...: the path is too long", root);
    }
    snprintf(path, sizeof path, "%s/.blobs", root);
    rc = file_mkdirs(path);
    if (rc != 0) err_set(err, err_bytes, rc, "cannot make %s: %s", path, err_text(rc));
    snprintf(path, sizeof path, "%s/.lock", root);
    if (rc == 0 && ((l->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644)) < 0 ||
                    flock(l->lock, LOCK_EX) != 0))
        rc = fail("lock", path, err, err_bytes);
    if (rc != 0) {
        library_close(l);
        return rc;
    }
    sweep(l);
    *out = l;
    return 0;
}

void library_close(struct library *l) {
    if (!l) return;
    if (*l->staging) {
        file_remove_tree(l->staging);
        sweep_blobs(l);
    }
    manifest_fini(&l->manifest);
    if (l->lock >= 0) close(l->lock);
    free(l);
}

/* ---- staging ---- */

/* Where the files of a folder may lie: in it, or, where it is a snapshot of the Hugging Face cache
 * (models--ORG--NAME/snapshots/COMMIT, whose files are links into models--ORG--NAME/blobs), in that
 * repository's part of the cache. */
static int find_within(struct library *l, const char *from, char *err, size_t err_bytes) {
    char path[PATH_MAX];
    if (!realpath(from, l->within)) return fail("find", from, err, err_bytes);
    snprintf(path, sizeof path, "%s", l->within);
    char *commit = strrchr(path, '/'), *snapshots, *repository;
    if (commit) *commit = '\0';
    snapshots = strrchr(path, '/');
    if (!snapshots || strcmp(snapshots, "/snapshots") != 0) return 0;
    *snapshots = '\0';
    repository = strrchr(path, '/');
    if (repository && strncmp(repository, "/models--", 9) == 0)
        snprintf(l->within, sizeof l->within, "%s", path);
    return 0;
}

/* Opens a file of the folder for reading, and only where it truly lies there: a link that leads out
 * of it would make another file's content that of a model. */
static int open_within(const struct library *l, const char *path, int *out, char *err,
                       size_t err_bytes) {
    char link[64], lies[PATH_MAX];
    size_t n = strlen(l->within);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return fail("open", path, err, err_bytes);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, lies, sizeof lies - 1);
    lies[len > 0 ? len : 0] = '\0';
    *out = fd;
    if (strncmp(lies, l->within, n) == 0 && (lies[n] == '/' || n == 1)) return 0;
    close(fd);
    return err_set(err, err_bytes, -EPERM,
                   "%s: is a link that leads out of the folder, to %s; put the file itself there",
                   path, lies);
}

static int list_folder(struct library *l, const char *from, const char *inside, char *err,
                       size_t err_bytes) {
    char path[PATH_MAX], name[2 * NAME_MAX + 2];
    snprintf(path, sizeof path, "%.3000s/%s", from, inside);
    DIR *d = opendir(path);
    if (!d) return fail("read", path, err, err_bytes);
    int rc = 0;
    for (struct dirent *e; rc == 0 && (e = readdir(d));) {
        struct stat st;
        snprintf(name, sizeof name, "%s%s%s", inside, *inside ? "/" : "", e->d_name);
        snprintf(path, sizeof path, "%.3000s/%s", from, name);
        if (e->d_name[0] == '.' || stat(path, &st) != 0) continue;
        if (S_ISDIR(st.st_mode) && !*inside)
            rc = list_folder(l, from, name, err, err_bytes);
        else if (S_ISREG(st.st_mode) && model_dir_wants(name)) {
            int fd = -1;
            rc = open_within(l, path, &fd, err, err_bytes);
            if (rc == 0)
                rc = manifest_add(&l->manifest, name, (uint64_t)st.st_size, err, err_bytes);
            if (fd >= 0) close(fd);
        }
    }
    closedir(d);
    return rc;
}

int library_check_space(const char *root, uint64_t bytes, char *err, size_t err_bytes) {
    struct statvfs fs;
    if (statvfs(root, &fs) != 0) return fail("look at", root, err, err_bytes);
    uint64_t room = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (room >= bytes + SPARE_BYTES) return 0;
    return err_set(err, err_bytes, -ENOSPC,
                   "%s: needs %" PRIu64 " MB, the disk has %" PRIu64
                   " MB free; make room, or move the cache with PENSTOCK_CACHE",
                   root, (bytes + SPARE_BYTES) / 1000000, room / 1000000);
}

/* Shares the extents where the file system can, else copies. */
static int copy_content(int from, int to) {
    if (ioctl(to, FICLONE, from) == 0) return 0;
    for (;;) {
        ssize_t n = copy_file_range(from, NULL, to, NULL, COPY_BYTES * 64, 0);
        if (n == 0) return 0;
        if (n > 0 || errno == EINTR) continue;
        if (errno != EXDEV && errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP)
            return -errno;
        break;
    }
    char *room = malloc(COPY_BYTES);
    int rc = room ? 0 : -ENOMEM;
    for (ssize_t n; rc == 0 && (n = read(from, room, COPY_BYTES)) != 0;) {
        if (n < 0 && errno != EINTR) rc = -errno;
        for (ssize_t at = 0, wrote; rc == 0 && at<n; at += wrote> 0 ? wrote : 0) {
            wrote = write(to, room + at, (size_t)(n - at));
            if (wrote < 0 && errno != EINTR) rc = -errno;
        }
    }
    free(room);
    return rc;
}

/* The content of in, which is `from`, at temp, whose end is XXXXXX: a copy, or where it may be
 * shared the same file under a second name. It is on the disk then, and who could read it can read
 * it still; nobody writes it. */
static int take_content(int in, const char *from, char *temp, bool share, char *err,
                        size_t err_bytes) {
    struct stat st;
    int out = mkostemp(temp, O_CLOEXEC), rc = 0;
    if (out < 0) rc = fail("create", temp, err, err_bytes);
    if (rc == 0 && fstat(in, &st) != 0) rc = fail("look at", from, err, err_bytes);
    if (rc == 0 && share) {
        close(out);
        out = unlink(temp) == 0 && link(from, temp) == 0 ? open(temp, O_RDONLY | O_CLOEXEC) : -1;
        if (out < 0) rc = fail("link", temp, err, err_bytes);
    } else if (rc == 0 && (rc = copy_content(in, out)) != 0) {
        err_set(err, err_bytes, rc, "cannot copy %s: %s", from, err_text(rc));
    }
    if (rc == 0 && (fchmod(out, (st.st_mode & 0444) | 0400) != 0 || fsync(out) != 0))
        rc = fail("flush", temp, err, err_bytes);
    if (out >= 0) close(out);
    return rc;
}

/* The content of a blob is known to all who could read one of the files that it was made of. */
static int open_to_more(const char *blob, const char *copy, char *err, size_t err_bytes) {
    struct stat has, wants;
    if (stat(blob, &has) == 0 && stat(copy, &wants) == 0 &&
        ((wants.st_mode & ~has.st_mode & 0444) == 0 ||
         chmod(blob, (has.st_mode | wants.st_mode) & 0444) == 0))
        return 0;
    return fail("open to all", blob, err, err_bytes);
}

/* One file, open as in, as a blob and a link to it at `to`. Fills the row; closes in. */
static int take_file(struct library *l, int in, const char *from, const char *to, bool share,
                     struct manifest_file *row, char *err, size_t err_bytes) {
    char temp[PATH_MAX], blob[PATH_MAX], there[DIGEST_SHA256_CHARS];
    snprintf(temp, sizeof temp, "%s/.blobs/new-XXXXXX", l->root);
    int rc = take_content(in, from, temp, share, err, err_bytes);
    close(in);
    if (rc == 0) rc = digest_file_sha256(temp, row->sha256, &row->bytes, err, err_bytes);
    snprintf(blob, sizeof blob, "%s/.blobs/%s", l->root, row->sha256);
    bool whole = rc == 0 && access(blob, F_OK) == 0 &&
                 digest_file_sha256(blob, there, NULL, NULL, 0) == 0 &&
                 strcmp(there, row->sha256) == 0; /* else it is damaged, and replaced */
    if (rc == 0 && !whole && rename(temp, blob) != 0)
        rc = fail("rename into", blob, err, err_bytes);
    if (rc == 0 && whole) rc = open_to_more(blob, temp, err, err_bytes);
    unlink(temp); /* gone already where it became the blob */
    if (rc == 0 && link(blob, to) != 0) rc = fail("link", to, err, err_bytes);
    return rc;
}

static int take_all(struct library *l, const char *from, bool share, char *err, size_t err_bytes) {
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < l->manifest.n; i++) {
        struct manifest_file *row = &l->manifest.file[i];
        char in[PATH_MAX], to[PATH_MAX];
        const char *slash = strrchr(row->path, '/');
        snprintf(to, sizeof to, "%s/%.*s", l->staging, slash ? (int)(slash - row->path) : 0,
                 row->path);
        if (slash && mkdir(to, 0755) != 0 && errno != EEXIST)
            return fail("make", to, err, err_bytes);
        int n = snprintf(in, sizeof in, "%s/%s", from, row->path);
        snprintf(to, sizeof to, "%s/%.1500s", l->staging, row->path);
        if (n < 0 || (size_t)n >= sizeof in)
            return err_set(err, err_bytes, -ENAMETOOLONG, "%s: the path is too long", from);
        int fd;
        rc = open_within(l, in, &fd, err, err_bytes);
        if (rc == 0) rc = take_file(l, fd, in, to, share, row, err, err_bytes);
        *strrchr(to, '/') = '\0';
        if (rc == 0 && slash) rc = sync_folder(to, err, err_bytes);
    }
    return rc;
}

/* What is staged is all there: the blobs are on the disk, and the manifest is written. */
static int end_staging(struct library *l, char *err, size_t err_bytes) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/.blobs", l->root);
    int rc = sync_folder(path, err, err_bytes);
    return rc ? rc : manifest_write(&l->manifest, l->staging, err, err_bytes);
}

int library_add(struct library *l, const char *path, const char *name, char *err,
                size_t err_bytes) {
    char to[PATH_MAX];
    int rc = manifest_add(&l->manifest, name, 0, err, err_bytes), in;
    if (rc != 0) return rc;
    snprintf(to, sizeof to, "%s/%s", l->staging, name);
    if ((in = open(path, O_RDONLY | O_CLOEXEC)) < 0) return fail("open", path, err, err_bytes);
    rc = take_file(l, in, path, to, false, &l->manifest.file[l->manifest.n - 1], err, err_bytes);
    return rc ? rc : end_staging(l, err, err_bytes);
}

int library_stage(struct library *l, const struct library_source *from, const char *name,
                  const char **dir, char *err, size_t err_bytes) {
    struct manifest *m = &l->manifest;
    *dir = l->staging;
    m->model = strdup(name);
    m->origin = strdup(from->origin);
    snprintf(l->name, sizeof l->name, "%s", name);
    snprintf(l->staging, sizeof l->staging, "%s/.staging-XXXXXX", l->root);
    if (!m->model || !m->origin) return err_set(err, err_bytes, -ENOMEM, "no memory for a name");
    int rc = find_within(l, from->dir, err, err_bytes);
    if (rc == 0) rc = list_folder(l, from->dir, "", err, err_bytes);
    if (rc == 0 && !from->share)
        rc = library_check_space(l->root, manifest_bytes(m), err, err_bytes);
    if (rc != 0 || !mkdtemp(l->staging)) {
        if (rc == 0) rc = fail("create", l->staging, err, err_bytes);
        *l->staging = '\0';
        return rc;
    }
    if (chmod(l->staging, 0755) != 0) return fail("open to all", l->staging, err, err_bytes);
    rc = take_all(l, from->dir, from->share, err, err_bytes);
    return rc ? rc : end_staging(l, err, err_bytes);
}

const struct manifest *library_staged(const struct library *l) {
    return &l->manifest;
}

int library_keep(struct library *l, bool replace, char *err, size_t err_bytes) {
    char place[PATH_MAX];
    snprintf(place, sizeof place, "%s/%s", l->root, l->name);
    int rc = sync_folder(l->staging, err, err_bytes);
    if (rc != 0) return rc;
    if (renameat2(AT_FDCWD, l->staging, AT_FDCWD, place, RENAME_NOREPLACE) == 0)
        *l->staging = '\0';
    else if (errno != EEXIST)
        return fail("rename into", place, err, err_bytes);
    else if (!replace)
        return err_set(err, err_bytes, -EEXIST,
                       "%s: there is another model of that name; choose one with --name, or "
                       "--replace it",
                       place);
    else if (renameat2(AT_FDCWD, l->staging, AT_FDCWD, place, RENAME_EXCHANGE) != 0)
        return fail("replace", place, err, err_bytes);
    return sync_folder(l->root, err, err_bytes); /* what was replaced goes with library_close */
}

int library_remove(struct library *l, const char *name, char *err, size_t err_bytes) {
    char place[PATH_MAX], gone[PATH_MAX];
    snprintf(place, sizeof place, "%s/%s", l->root, name);
    snprintf(gone, sizeof gone, "%s/.staging-gone", l->root);
    if (rename(place, gone) != 0) return fail("remove", place, err, err_bytes);
    int rc = sync_folder(l->root, err, err_bytes);
    file_remove_tree(gone);
    sweep_blobs(l);
    return rc;
}
