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

/* Nobody else may commit meanwhile: the two copies are of one state. */
static int copy_half(struct store *s, int i, const char *to, char *err, size_t err_bytes) {
    char dir[STORE_PATH_BYTES], file[STORE_PATH_BYTES];
    int code = store_path(to, halves[i], dir, err, err_bytes);
    if (code == 0) code = store_path(dir, "data.mdb", file, err, err_bytes);
    if (code == 0) code = make_folder(dir, err, err_bytes);
    if (code != 0) return code;
    code = env_copy(half_of(s, i), dir);
    if (code != 0)
        return err_set(err, err_bytes, code, "%s: cannot be copied: %s", dir, err_text(code));
    return flush_file(file, err, err_bytes);
}

int store_backup(struct store *s, const char *to, char *err, size_t err_bytes) {
    if (!s->meta) return err_set(err, err_bytes, -EIO, "%s: the store is not open", s->dir);
    int code = make_folder(to, err, err_bytes);
    for (int i = 0; code == 0 && i < 2; i++) code = copy_half(s, i, to, err, err_bytes);
    if (code == 0) code = store_dir_sync_names(to, err, err_bytes);
    return code == 0 ? store_dir_mark(to, err, err_bytes) : code;
}

static void remove_copies(const char *to) {
    static const char *const parts[] = {"meta/data.mdb", "meta", "blob/data.mdb", "blob", "STORE"};
    char path[STORE_PATH_BYTES];
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (store_path(to, parts[i], path, NULL, 0) == 0) remove(path);
    remove(to);
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
    remove_copies(to); /* of a compaction that was killed */
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
