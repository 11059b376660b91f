#include "store/pages_care.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/err.h"
#include "store/page_open.h"

#define SLICE_PAGES 64u /* read in one transaction, and then bad ones are dropped */

enum what { LOOK, VERIFY, DROP };
struct care {
    const char *dir, *only;
    enum what what;
    int (*fn)(void *arg, const struct pages_found *f);
    void *arg;
};

static int drop_bad(struct page_group *g) {
    struct env_txn t;
    int code = page_group_begin(g, true, &t);
    if (code != 0) return code;
    code = page_group_drop_bad(g, &t);
    if (code == 0) return page_group_commit(g, &t);
    page_group_abort(g, &t);
    return code;
}

/* Reads on from *at. -ENOENT: to the end. */
static int verify_slice(struct page_group *g, struct page_node *at, uint64_t *torn) {
    struct env_txn t;
    struct bytes data;
    int code = page_group_begin(g, false, &t);
    if (code != 0) return code;
    uint64_t before = *torn;
    for (uint32_t i = 0; code == 0 && i < SLICE_PAGES; i++) {
        code = page_group_next(g, &t, at);
        if (code == 0 && page_group_get(g, &t, &at->key, NULL, NULL, &data) != 0) ++*torn;
        if (*torn - before == PAGE_GROUP_BAD_MAX) break;
    }
    page_group_abort(g, &t);
    int dropped = *torn > before ? drop_bad(g) : 0;
    return dropped != 0 ? dropped : code;
}

static void open_and(const struct care *c, const char *dir, struct pages_found *f) {
    struct page_group g = {0};
    struct stat st;
    char path[PAGE_GROUP_PATH_BYTES + 512];
    snprintf(path, sizeof path, "%s/data.mdb", dir);
    if (stat(path, &st) == 0) f->changed_ms = (int64_t)st.st_mtim.tv_sec * 1000;
    f->code = page_group_open(&g, &(struct page_group_config){.dir = dir}, f->why, sizeof f->why);
    if (f->code != 0) return;
    f->shape = g.shape;
    f->window_tokens = g.window_tokens;
    f->code = page_group_about(&g, f->about, sizeof f->about);
    if (f->code == 0) f->code = page_group_usage(&g, &f->usage);
    struct page_node at = {0};
    while (f->code == 0 && c->what == VERIFY) f->code = verify_slice(&g, &at, &f->torn);
    if (f->code == -ENOENT && c->what == VERIFY) f->code = 0;
    if (f->code == 0 && c->what == DROP) f->code = page_group_clear(&g);
    if (f->code != 0)
        err_set(f->why, sizeof f->why, f->code, "%s: %s", dir,
                f->code == ERR_CORRUPT ? "damage was found; the next engine makes it anew"
                                       : err_text(f->code));
    page_group_close(&g);
}

static int visit_group(const struct care *c, const char *model, const char *group) {
    char dir[PAGE_GROUP_PATH_BYTES];
    struct pages_found f = {.model = model, .group = group};
    int n = snprintf(dir, sizeof dir, "%s/%s/%s", c->dir, model, group);
    if (n < 0 || (size_t)n >= sizeof dir) return -ENAMETOOLONG;
    open_and(c, dir, &f);
    if (c->what == DROP) {
        int removed = page_group_remove(dir);
        if (removed != -EBUSY) f.code = removed;
    }
    return c->fn(c->arg, &f);
}

static int is_name(const struct dirent *e) {
    return e->d_name[0] != '.';
}

/* The folders in `dir`, by name. */
static int names_in(const char *dir, struct dirent ***names, char *err, size_t err_bytes) {
    int n = scandir(dir, names, is_name, alphasort);
    if (n >= 0) return n;
    int code = -errno;
    return err_set(err, err_bytes, code, "%s: %s", dir,
                   code == -ENOENT ? "no pages were ever kept there" : err_text(code));
}

static int visit_model(const struct care *c, const char *model, char *err, size_t err_bytes) {
    char path[PAGE_GROUP_PATH_BYTES];
    struct dirent **groups;
    struct stat st;
    int n = snprintf(path, sizeof path, "%s/%s", c->dir, model), code = 0;
    if (n < 0 || (size_t)n >= sizeof path || stat(path, &st) != 0 || !S_ISDIR(st.st_mode)) return 0;
    n = names_in(path, &groups, err, err_bytes);
    for (int i = 0; i < n; i++) {
        if (code == 0) code = visit_group(c, model, groups[i]->d_name);
        free(groups[i]);
    }
    if (n >= 0) free(groups);
    return n < 0 ? n : code;
}

static int visit(const struct care *c, char *err, size_t err_bytes) {
    struct dirent **models;
    int n = names_in(c->dir, &models, err, err_bytes), code = 0;
    bool any = false;
    if (n < 0) return n;
    for (int i = 0; i < n; i++) {
        const char *name = models[i]->d_name;
        if (code == 0 && (!c->only || strncmp(name, c->only, strlen(c->only)) == 0)) {
            any = true;
            code = visit_model(c, name, err, err_bytes);
        }
        free(models[i]);
    }
    free(models);
    if (code == 0 && c->only && !any)
        return err_set(err, err_bytes, -ENOENT, "%s: nothing there begins with %s", c->dir,
                       c->only);
    return code;
}

int pages_each(const char *dir, const char *only, int (*fn)(void *arg, const struct pages_found *f),
               void *arg, char *err, size_t err_bytes) {
    return visit(&(struct care){dir, only, LOOK, fn, arg}, err, err_bytes);
}

int pages_verify(const char *dir, const char *only,
                 int (*fn)(void *arg, const struct pages_found *f), void *arg, char *err,
                 size_t err_bytes) {
    return visit(&(struct care){dir, only, VERIFY, fn, arg}, err, err_bytes);
}

int pages_drop(const char *dir, const char *only, int (*fn)(void *arg, const struct pages_found *f),
               void *arg, char *err, size_t err_bytes) {
    return visit(&(struct care){dir, only, DROP, fn, arg}, err, err_bytes);
}
