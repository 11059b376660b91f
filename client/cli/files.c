#include "client/cli/files.h"

#include <dirent.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"

#define DEPTH_MAX 64 /* folders in folders */

/* Takes path. */
static int take(struct files *f, char *path, size_t name_at, char *err, size_t err_bytes) {
    if (f->n == FILES_MAX) {
        free(path);
        return err_set(err, err_bytes, ERR_LIMIT, "more than %u files; name fewer at a time",
                       FILES_MAX);
    }
    if (f->n == f->cap) {
        uint32_t cap = f->cap ? f->cap * 2 : 64;
        struct file_named *at = realloc(f->at, cap * sizeof *at);
        if (!at) {
            free(path);
            return err_set(err, err_bytes, -ENOMEM, "out of memory");
        }
        f->at = at;
        f->cap = cap;
    }
    f->at[f->n++] = (struct file_named){path, path + name_at};
    return 0;
}

static bool wanted(const struct files_how *how, const char *name) {
    if (!how->patterns) return true;
    for (const char *const *p = how->patterns; *p; p++)
        if (fnmatch(*p, name, FNM_CASEFOLD) == 0) return true;
    return false;
}

static int add_folder(struct files *f, const char *folder, size_t name_at, int depth,
                      const struct files_how *how, char *err, size_t err_bytes) {
    DIR *d = opendir(folder);
    if (!d) return err_set(err, err_bytes, -errno, "%s: %s", folder, strerror(errno));
    int rc = 0;
    for (struct dirent *e; rc == 0 && (e = readdir(d));) {
        char *path;
        struct stat st;
        if (e->d_name[0] == '.') continue;
        if (asprintf(&path, "%s/%s", folder, e->d_name) < 0) {
            rc = err_set(err, err_bytes, -ENOMEM, "out of memory");
            break;
        }
        bool there = lstat(path, &st) == 0, link = there && S_ISLNK(st.st_mode);
        if (link) there = stat(path, &st) == 0;
        bool skip = how->skip_ino && st.st_ino == how->skip_ino && st.st_dev == how->skip_dev;
        if (there && S_ISREG(st.st_mode) && wanted(how, e->d_name)) {
            rc = take(f, path, name_at, err, err_bytes);
            continue;
        }
        if (there && S_ISDIR(st.st_mode) && !link && !skip && how->recursive && depth < DEPTH_MAX)
            rc = add_folder(f, path, name_at, depth + 1, how, err, err_bytes);
        free(path);
    }
    closedir(d);
    return rc;
}

int files_add(struct files *f, const char *arg, const struct files_how *how, char *err,
              size_t err_bytes) {
    struct stat st;
    if (stat(arg, &st) != 0) return err_set(err, err_bytes, -errno, "%s: %s", arg, strerror(errno));
    char *path = strdup(arg);
    if (!path) return err_set(err, err_bytes, -ENOMEM, "out of memory");
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/') path[--len] = '\0';
    if (!S_ISDIR(st.st_mode)) {
        const char *slash = strrchr(path, '/');
        return take(f, path, slash ? (size_t)(slash + 1 - path) : 0, err, err_bytes);
    }
    int rc = add_folder(f, path, len + 1, 0, how, err, err_bytes);
    free(path);
    return rc;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct file_named *)a)->name, ((const struct file_named *)b)->name);
}

const char *files_sort(struct files *f) {
    if (f->n) qsort(f->at, f->n, sizeof *f->at, by_name);
    for (uint32_t i = 1; i < f->n; i++)
        if (by_name(&f->at[i - 1], &f->at[i]) == 0) return f->at[i].name;
    return NULL;
}

void files_fini(struct files *f) {
    for (uint32_t i = 0; i < f->n; i++) free(f->at[i].path);
    free(f->at);
    *f = (struct files){0};
}
