#include "workers/infer/models.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/limits.h"
#include "workers/chat/chat.h"
#include "workers/encode/tokenizer.h"
#include "workers/infer/generate.h"
#include "workers/infer/guides.h"
#include "workers/infer/model.h"

struct entry {
    char *name, *dir;
    struct model *model;         /* NULL until first used */
    struct tokenizer *tokenizer; /* NULL until first used */
    struct chat *chat;           /* NULL until first used */
    struct guides *guides;       /* NULL until first used; borrows both */
    struct entry *draft;         /* that guesses for it; NULL: none */
    struct model *drafting;      /* it, opened once more for this; NULL until first used */
};
struct list {
    struct entry entry[MODELS_COUNT_MAX]; /* sorted by name */
    uint32_t n;
};
struct models {
    struct ops *ops;
    struct model_config config;
    struct list models, adapters; /* an adapter belongs to the model that opened it */
    enum speculate_mode speculate;
};

static int no_memory(char *err, size_t err_bytes) {
    return err_set(err, err_bytes, -ENOMEM, "no memory for a list of models");
}

static struct entry *find(struct list *l, struct bytes name) {
    for (uint32_t i = 0; i < l->n; i++)
        if (bytes_is(name, l->entry[i].name)) return &l->entry[i];
    return NULL;
}

/* Takes dir. A name that is there already keeps its place: what was named goes before the
 * folder. */
static int add(struct list *l, struct bytes name, char *dir, char *err, size_t err_bytes) {
    int rc = 0;
    if (!dir)
        rc = no_memory(err, err_bytes);
    else if (name.len == 0 || name.len > LIMIT_NAME_BYTES)
        rc = err_set(err, err_bytes, ERR_LIMIT, "model %s: a name has 1 to %u bytes", dir,
                     LIMIT_NAME_BYTES);
    else if (l->n == MODELS_COUNT_MAX)
        rc = err_set(err, err_bytes, ERR_LIMIT, "model %s: more than %u of them", dir,
                     MODELS_COUNT_MAX);
    if (rc != 0 || find(l, name)) {
        free(dir);
        return rc;
    }
    char *copy = bytes_dup(name);
    if (!copy) {
        free(dir);
        return no_memory(err, err_bytes);
    }
    l->entry[l->n++] = (struct entry){.name = copy, .dir = dir};
    return 0;
}

static bool has(const char *dir, const char *file) {
    char path[4096];
    int n = snprintf(path, sizeof path, "%s/%s", dir, file);
    return n > 0 && (size_t)n < sizeof path && access(path, R_OK) == 0;
}

bool models_is_one(const char *dir) {
    return has(dir, "config.json") || has(dir, "adapter_config.json");
}

/* The list that a directory belongs to; NULL: neither a model nor an adapter. */
static struct list *list_for(struct models *m, const char *dir) {
    if (has(dir, "config.json")) return &m->models;
    return has(dir, "adapter_config.json") ? &m->adapters : NULL;
}

static int add_named(struct models *m, const char *named, char *err, size_t err_bytes) {
    const char *equals = strchr(named, '=');
    struct list *list = equals ? list_for(m, equals + 1) : NULL;
    if (!equals)
        return err_set(err, err_bytes, -EINVAL, "--model %s: not of the form NAME=DIR", named);
    if (!list)
        return err_set(err, err_bytes, -ENOENT,
                       "--model %s: there is no config.json (or adapter_config.json) that can be"
                       " read",
                       named);
    return add(list, bytes_of(named, (size_t)(equals - named)), strdup(equals + 1), err, err_bytes);
}

static int add_folder(struct models *m, const char *dir, char *err, size_t err_bytes) {
    DIR *d = opendir(dir);
    struct dirent *e;
    int rc = 0;
    if (!d) return err_set(err, err_bytes, -errno, "--models %s: %s", dir, strerror(errno));
    while (rc == 0 && (e = readdir(d))) {
        char *path = NULL;
        struct list *list = NULL;
        if (e->d_name[0] == '.') continue;
        if (asprintf(&path, "%s/%s", dir, e->d_name) < 0)
            rc = no_memory(err, err_bytes);
        else if ((list = list_for(m, path)))
            rc = add(list, bytes_str(e->d_name), path, err, err_bytes);
        else
            free(path);
    }
    closedir(d);
    return rc;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

int models_open(struct models **out, struct ops *ops, const char *dir, const char *const *named,
                uint32_t n, char *err, size_t err_bytes) {
    struct models *m = calloc(1, sizeof *m);
    int rc = m ? 0 : no_memory(err, err_bytes);
    *out = NULL;
    if (m) m->ops = ops;
    for (uint32_t i = 0; rc == 0 && i < n; i++) rc = add_named(m, named[i], err, err_bytes);
    if (rc == 0 && dir) rc = add_folder(m, dir, err, err_bytes);
    if (rc != 0) {
        models_close(m);
        return rc;
    }
    struct list *const lists[] = {&m->models, &m->adapters};
    for (size_t i = 0; i < 2; i++)
        qsort(lists[i]->entry, lists[i]->n, sizeof *lists[i]->entry, by_name);
    *out = m;
    return 0;
}

void models_configure(struct models *m, const struct model_config *c) {
    m->config = *c;
}

static void list_fini(struct list *l) {
    for (uint32_t i = 0; i < l->n; i++) {
        guides_close(l->entry[i].guides);
        chat_close(l->entry[i].chat);
        model_close(l->entry[i].model);
        model_close(l->entry[i].drafting);
        if (l->entry[i].tokenizer) tokenizer_close(l->entry[i].tokenizer);
        free(l->entry[i].name);
        free(l->entry[i].dir);
    }
}

void models_close(struct models *m) {
    if (!m) return;
    list_fini(&m->models);
    list_fini(&m->adapters);
    free(m);
}

uint32_t models_count(const struct models *m) {
    return m->models.n;
}

const char *models_name(const struct models *m, uint32_t i) {
    return i < m->models.n ? m->models.entry[i].name : NULL;
}

const char *models_dir(const struct models *m, struct bytes name) {
    for (uint32_t i = 0; i < m->models.n; i++)
        if (bytes_is(name, m->models.entry[i].name)) return m->models.entry[i].dir;
    return NULL;
}

static int unknown(const struct list *l, const char *what, struct bytes name, char *err,
                   size_t err_bytes) {
    char names[256] = "none";
    for (uint32_t i = 0, used = 0; i < l->n && used < sizeof names; i++)
        used += (uint32_t)snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "",
                                   l->entry[i].name);
    return err_set(err, err_bytes, ERR_UNKNOWN, "%s %.*s is not here; there are: %s", what,
                   (int)(name.len < LIMIT_NAME_BYTES ? name.len : LIMIT_NAME_BYTES),
                   (const char *)name.data, names);
}

static int unknown_adapter(const struct models *m, struct bytes name, char *err, size_t err_bytes) {
    char known[400];
    unknown(&m->adapters, "adapter", name, known, sizeof known);
    return err_set(err, err_bytes, ERR_UNKNOWN,
                   "%s; name its folder when the workers start: `penstock up --model %.*s=DIR`",
                   known, (int)(name.len < LIMIT_NAME_BYTES ? name.len : LIMIT_NAME_BYTES),
                   (const char *)name.data);
}

int models_get(struct models *m, struct bytes name, struct model **out, char *err,
               size_t err_bytes) {
    struct entry *e = find(&m->models, name);
    *out = NULL;
    if (!e) return unknown(&m->models, "model", name, err, err_bytes);
    int rc = e->model ? 0 : model_open(&e->model, e->dir, m->ops, &m->config, err, err_bytes);
    *out = e->model;
    return rc;
}

int models_adapter(struct models *m, struct model *model, struct bytes name,
                   const struct adapter **out, char *err, size_t err_bytes) {
    const struct entry *e = find(&m->adapters, name);
    *out = NULL;
    if (!e) return unknown_adapter(m, name, err, err_bytes);
    int rc = model_adapter(model, e->dir, out, err, err_bytes);
    char known[LIMIT_NAME_BYTES + 16]; /* who reads it knows no folder of this machine */
    snprintf(known, sizeof known, "adapter %s", e->name);
    if (rc != 0) err_speak_of(err, err_bytes, e->dir, known);
    return rc;
}

int models_tokenizer(struct models *m, struct bytes name, struct tokenizer **out, char *err,
                     size_t err_bytes) {
    struct entry *e = find(&m->models, name);
    *out = NULL;
    if (!e) return unknown(&m->models, "model", name, err, err_bytes);
    int rc = e->tokenizer ? 0 : tokenizer_open(&e->tokenizer, e->dir, err, err_bytes);
    *out = e->tokenizer;
    return rc;
}

int models_chat(struct models *m, struct bytes name, struct chat **out, char *err,
                size_t err_bytes) {
    struct entry *e = find(&m->models, name);
    *out = NULL;
    if (!e) return unknown(&m->models, "model", name, err, err_bytes);
    int rc = e->chat ? 0 : chat_open(&e->chat, e->dir, err, err_bytes);
    *out = e->chat;
    return rc;
}

int models_guides(struct models *m, struct bytes name, struct guides **out, char *err,
                  size_t err_bytes) {
    struct entry *e = find(&m->models, name);
    struct tokenizer *t;
    struct model *model;
    *out = NULL;
    int rc = models_get(m, name, &model, err, err_bytes);
    if (rc == 0) rc = models_tokenizer(m, name, &t, err, err_bytes);
    if (rc == 0 && !e->guides) rc = guides_open(&e->guides, t, model_info(model), err, err_bytes);
    if (rc == 0) *out = e->guides;
    return rc;
}

int models_speculate(struct models *m, enum speculate_mode mode, const char *const *drafts,
                     uint32_t n, char *err, size_t err_bytes) {
    m->speculate = mode;
    for (uint32_t i = 0; i < n; i++) {
        const char *equals = strchr(drafts[i], '=');
        if (!equals)
            return err_set(err, err_bytes, ERR_FIELD, "--draft %s: not of the form MODEL=DRAFT",
                           drafts[i]);
        struct bytes of = bytes_of(drafts[i], (size_t)(equals - drafts[i])),
                     by = bytes_str(equals + 1);
        struct entry *model = find(&m->models, of), *draft = find(&m->models, by);
        if (!model || !draft) {
            char why[300];
            int rc = unknown(&m->models, "model", model ? by : of, why, sizeof why);
            return err_set(err, err_bytes, rc, "--draft %s: %s", drafts[i], why);
        }
        model->draft = draft;
    }
    return 0;
}

int models_guessing(struct models *m, struct bytes name, struct gen_loop_config *c, char *err,
                    size_t err_bytes) {
    struct entry *e = find(&m->models, name);
    struct tokenizer *t;
    if (!e) return unknown(&m->models, "model", name, err, err_bytes);
    c->speculate = m->speculate;
    if (!e->draft) return 0;
    int rc = models_tokenizer(m, name, &t, err, err_bytes);
    if (rc == 0 && !e->drafting)
        rc = speculate_draft_open(&e->drafting, e->draft->dir, m->ops, t, err, err_bytes);
    c->draft = e->drafting;
    if (rc == 0) c->speculate = SPECULATE_DRAFT;
    return rc;
}

struct ops *models_ops(struct models *m) {
    return m->ops;
}
