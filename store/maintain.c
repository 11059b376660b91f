#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "store/dir.h"
#include "store/state.h"
#include "store/store.h"

static const char *const halves[] = {"meta", "blob"};

static struct env *half_of(struct store *s, int i) {
    return i == 0 ? s->meta : s->blob;
}

static int make_folder(const char *path, char *err, size_t err_bytes) {
    if (mkdir(path, 0700) == 0) return 0;
    int code = -errno;
    return err_set(err, err_bytes, code, "%s: cannot be made: %s", path, err_text(code));
}

/* LMDB's copy is one write after the other; it is durable once the file was flushed. */
static int flush_file(const char *path, char *err, size_t err_bytes) {
    FILE *f = fopen(path, "r+");
    int code = f && fsync(fileno(f)) == 0 ? 0 : -errno;
    if (f) fclose(f);
    if (code == 0) return 0;
    return err_set(err, err_bytes, code, "%s: cannot be flushed: %s", path, err_text(code));
}

/* s NULL: another process has the store open. */
static int copy_half(const char *from, struct store *s, int i, const char *to, char *err,
                     size_t err_bytes) {
    char dir[STORE_PATH_BYTES], source[STORE_PATH_BYTES], file[STORE_PATH_BYTES];
    int code = store_path(to, halves[i], dir, err, err_bytes);
    if (code == 0) code = store_path(from, halves[i], source, err, err_bytes);
    if (code == 0) code = store_path(dir, "data.mdb", file, err, err_bytes);
    if (code == 0) code = make_folder(dir, err, err_bytes);
    if (code != 0) return code;
    code = s ? env_copy(half_of(s, i), dir) : env_copy_live(source, dir);
    if (code != 0)
        return err_set(err, err_bytes, code, "%s: cannot be copied to %s: %s", source, file,
                       err_text(code));
    return flush_file(file, err, err_bytes);
}

static void remove_parts(const char *of, const char *const *parts, size_t n) {
    char path[STORE_PATH_BYTES];
    for (size_t i = 0; i < n; i++)
        if (store_path(of, parts[i], path, NULL, 0) == 0) remove(path);
}

/* What an open store has beside its data. */
static const char *const locks[] = {"meta/lock.mdb", "blob/lock.mdb", "lock", "backup.lock"};

static void remove_copies(const char *to) {
    static const char *const parts[] = {"meta/data.mdb", "meta", "blob/data.mdb", "blob", "STORE"};
    remove_parts(to, locks, sizeof locks / sizeof *locks);
    remove_parts(to, parts, sizeof parts / sizeof *parts);
    remove(to);
}

/* Payloads that came while meta was copied, or whose jobs were deleted, go: what is left is a store
 * as it was stopped, and it has been opened once. */
static int sweep_copy(const char *partial, char *err, size_t err_bytes) {
    struct store *s;
    struct store_config c = {.dir = partial};
    int code = store_open(&s, &c, err, err_bytes);
    if (code != 0) return code;
    store_close(s);
    remove_parts(partial, locks, sizeof locks / sizeof *locks);
    return 0;
}

/* The copy has its name when it is whole, and only then. */
static int give_name(const char *partial, const char *to, char *err, size_t err_bytes) {
    char folder[STORE_PATH_BYTES];
    int code = store_dir_sync_names(partial, err, err_bytes);
    if (code == 0) code = store_dir_mark(partial, err, err_bytes);
    int failed = code != 0 ? 0 : renameat2(AT_FDCWD, partial, AT_FDCWD, to, RENAME_NOREPLACE);
    if (failed != 0 && errno == EINVAL) failed = rename(partial, to); /* a file system without it */
    if (failed != 0) {
        code = -errno;
        err_set(err, err_bytes, code, "%s: cannot be made: %s", to, strerror(-code));
    }
    if (code == 0) code = store_path(to, "..", folder, err, err_bytes);
    return code == 0 ? store_dir_sync(folder, err, err_bytes) : code;
}

static int copy_both(const char *from, struct store *s, const char *to, char *err,
                     size_t err_bytes) {
    char partial[STORE_PATH_BYTES];
    struct stat st;
    size_t len = strlen(to);
    while (len > 1 && to[len - 1] == '/') len--;
    int n = snprintf(partial, sizeof partial, "%.*s.partial", (int)len, to);
    if (n < 0 || (size_t)n >= sizeof partial)
        return err_set(err, err_bytes, -ENAMETOOLONG, "%s: the path is too long", to);
    if (lstat(to, &st) == 0)
        return err_set(err, err_bytes, -EEXIST,
                       "%s is there already and is left alone; name a folder that is not", to);
    remove_copies(partial); /* of a backup that was killed */
    int code = make_folder(partial, err, err_bytes);
    if (code != 0) return code;
    for (int i = 0; code == 0 && i < 2; i++) code = copy_half(from, s, i, partial, err, err_bytes);
    if (code == 0 && !s) code = sweep_copy(partial, err, err_bytes);
    if (code == 0) code = give_name(partial, to, err, err_bytes);
    if (code != 0) remove_copies(partial);
    return code;
}

int store_backup(struct store *s, const char *to, char *err, size_t err_bytes) {
    if (!s->meta) return err_set(err, err_bytes, -EIO, "%s: the store is not open", s->dir);
    return copy_both(s->dir, s, to, err, err_bytes);
}

/* meta is copied first. What it names is in blob by then, and stays there until the lock is
 * gone. */
int store_backup_live(const char *dir, const char *to, char *err, size_t err_bytes) {
    int fd;
    int code = store_dir_backup_begin(dir, &fd, err, err_bytes);
    if (code != 0) return code;
    code = copy_both(dir, NULL, to, err, err_bytes);
    store_dir_unlock(fd);
    return code;
}

/* Both copies say the same as the files that they replace, so a crash between the two renames
 * leaves one store of two that fit. */
static int move_half(struct store *s, int i, const char *to, char *err, size_t err_bytes) {
    char from[STORE_PATH_BYTES], into[STORE_PATH_BYTES], name[32];
    snprintf(name, sizeof name, "%s/data.mdb", halves[i]);
    int code = store_path(to, name, from, err, err_bytes);
    if (code == 0) code = store_path(s->dir, name, into, err, err_bytes);
    if (code == 0 && rename(from, into) != 0)
        code = err_set(err, err_bytes, -errno, "%s: cannot be replaced: %s", into, strerror(errno));
    if (code == 0) code = store_path(s->dir, halves[i], into, err, err_bytes);
    return code == 0 ? store_dir_sync(into, err, err_bytes) : code;
}

int store_compact(struct store *s, char *err, size_t err_bytes) {
    char to[STORE_PATH_BYTES], later[64] = "";
    int code = store_path(s->dir, "compact", to, err, err_bytes);
    if (code != 0) return code;
    remove_copies(to); /* of a compaction that was killed between its renames */
    pthread_rwlock_wrlock(&s->in_use);
    code = store_backup(s, to, err, err_bytes);
    if (code == 0) {
        store_envs_close(s);
        for (int i = 0; code == 0 && i < 2; i++) code = move_half(s, i, to, err, err_bytes);
        int reopened =
            store_envs_open(s, true, code == 0 ? err : later, code == 0 ? err_bytes : sizeof later);
        if (reopened != 0) store_envs_close(s);
        if (code == 0) code = reopened;
    }
    pthread_rwlock_unlock(&s->in_use);
    remove_copies(to);
    return code;
}
