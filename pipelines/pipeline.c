#include "pipelines/pipeline.h"

#include <assert.h>
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/file.h"
#include "base/limits.h"
#include "pipelines/plan.h"
#include "pipelines/schema.h"
#include "schemas/kinds.h"

#define PATH_BYTES 4096

/* Where an error is: a file, and the stage in it or "". */
struct place {
    const char *path, *stage;
    char *err;
    size_t err_bytes;
};

static int refuse(const struct place *p, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static int refuse(const struct place *p, int code, const char *format, ...) {
    char what[384];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    bool staged = p->stage[0] != '\0';
    return err_set(p->err, p->err_bytes, code, "%s: %s%s%s%s", p->path, staged ? "stage " : "",
                   p->stage, staged ? ": " : "", what);
}

static int number(const struct place *p, const char *field, const int64_t *given, uint32_t min,
                  uint32_t max, uint32_t otherwise, uint32_t *out) {
    *out = otherwise;
    if (!given) return 0;
    if (*given < min || *given > max)
        return refuse(p, ERR_LIMIT, "%s is %" PRId64 "; it must be %u to %u", field, *given, min,
                      max);
    *out = (uint32_t)*given;
    return 0;
}

/* Names travel in messages, metrics and file names. */
static int name(const struct place *p, const char *field, const char *text) {
    size_t ok = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
    if (text[ok] == '\0' && ok > 0 && ok <= LIMIT_NAME_BYTES) return 0;
    return refuse(p, ERR_FIELD, "%s is \"%.80s\"; use 1 to %u letters, digits, '.', '_' and '-'",
                  field, text, LIMIT_NAME_BYTES);
}

static int check_fan_out(const struct place *p, const struct file_fan_out *in, bool last,
                         struct pipeline_stage *out) {
    if (!in) return 0;
    out->fan_out = in->pipeline;
    out->partial = in->partial && strcmp(in->partial, "allow") == 0;
    if (in->partial && !out->partial && strcmp(in->partial, "fail") != 0)
        return refuse(p, ERR_FIELD, "fan_out: partial is \"%.40s\"; it is allow or fail",
                      in->partial);
    if (last)
        return refuse(p, ERR_FIELD,
                      "fan_out is set on the last stage; the stage behind it joins the results");
    return name(p, "fan_out: pipeline", in->pipeline);
}

static int check_stage(const struct place *p, const struct file_stage *in, uint32_t timeout_ms,
                       struct pipeline_stage *out) {
    *out = (struct pipeline_stage){.name = in->name,
                                   .run = in->run,
                                   .model = in->model,
                                   .adapter = in->adapter,
                                   .checkpoint = in->checkpoint};
    int code = name(p, "name", in->name);
    if (code == 0) code = name(p, "run", in->run);
    if (code == 0 && in->model) code = name(p, "model", in->model);
    if (code == 0 && in->adapter) code = name(p, "adapter", in->adapter);
    if (code == 0 && in->adapter && !in->model)
        code = refuse(p, ERR_FIELD, "adapter is set without a model; name the model it belongs to");
    if (code == 0)
        code = number(p, "timeout_ms", in->timeout_ms, 0, PIPELINE_TIMEOUT_MAX_MS, 0,
                      &out->timeout_ms);
    if (out->timeout_ms == 0) out->timeout_ms = timeout_ms;
    if (code == 0)
        code = number(p, "batch: max", in->batch ? in->batch->max : NULL, 1, LIMIT_SPAN_JOBS, 1,
                      &out->batch_max);
    if (code == 0)
        code = number(p, "batch: delay_ms", in->batch ? in->batch->delay_ms : NULL, 0,
                      PIPELINE_BATCH_DELAY_MAX_MS, 0, &out->batch_delay_ms);
    if (code == 0)
        code = number(p, "batch: slo_ms", in->batch ? in->batch->slo_ms : NULL, 0,
                      PIPELINE_SLO_MAX_MS, 0, &out->batch_slo_ms);
    if (code == 0 && out->batch_slo_ms && in->batch->delay_ms)
        code = refuse(p, ERR_FIELD,
                      "batch: delay_ms beside slo_ms, which says by itself how long to wait; leave "
                      "one");
    return code;
}

static int check_policy(const struct place *p, const struct pipeline_file *f,
                        struct pipeline *out) {
    static const struct file_retry absent;
    const struct file_retry *r = f->retry ? f->retry : &absent;
    int code = number(p, "retry: max", r->max, 1, LIMIT_ATTEMPTS, 3, &out->tries_max);
    if (code == 0)
        code = number(p, "retry: timeouts_max", r->timeouts_max, 1, LIMIT_ATTEMPTS, out->tries_max,
                      &out->timeouts_max);
    if (code == 0)
        code =
            number(p, "retry: deaths_max", r->deaths_max, 1, LIMIT_ATTEMPTS, 3, &out->deaths_max);
    if (code == 0)
        code = number(p, "retry: backoff_ms", r->backoff_ms, 1, PIPELINE_BACKOFF_MAX_MS, 200,
                      &out->backoff_ms);
    uint32_t most = out->backoff_ms > 10000 ? out->backoff_ms : 10000;
    if (code == 0)
        code = number(p, "retry: backoff_max_ms", r->backoff_max_ms, out->backoff_ms,
                      PIPELINE_BACKOFF_MAX_MS, most, &out->backoff_max_ms);
    if (code == 0)
        code = number(p, "queue_max", f->queue_max, 1, LIMIT_JOBS_QUEUED, 100000, &out->queue_max);
    return code;
}

static int check_kind(const struct place *p, const char *kind) {
    char known[256] = "";
    if (kind_find(bytes_str(kind))) return 0;
    for (uint32_t i = 0; kind_at(i); i++) {
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", kind_at(i)->name);
    }
    return refuse(p, ERR_UNKNOWN, "kind is \"%s\"; the kinds are %s", kind, known);
}

/* Checks a file field by field into a pipeline that borrows from it. */
static int check(const struct pipeline_file *f, const char *path, struct pipeline *out,
                 struct pipeline_stage *stages, char *err, size_t err_bytes) {
    struct place p = {path, "", err, err_bytes};
    uint32_t timeout_ms;
    *out = (struct pipeline){
        .name = f->name, .kind = f->kind, .n_stages = f->n_stages, .stages = stages};
    int code = name(&p, "name", f->name);
    if (code == 0) code = check_kind(&p, f->kind);
    if (code == 0) code = check_policy(&p, f, out);
    if (code == 0)
        code =
            number(&p, "timeout_ms", f->timeout_ms, 1, PIPELINE_TIMEOUT_MAX_MS, 60000, &timeout_ms);
    for (uint32_t i = 0; code == 0 && i < f->n_stages; i++) {
        p.stage = f->stages[i].name;
        code = check_stage(&p, &f->stages[i], timeout_ms, &stages[i]);
        if (code == 0)
            code = check_fan_out(&p, f->stages[i].fan_out, i + 1 == f->n_stages, &stages[i]);
        for (uint32_t k = 0; code == 0 && k < i; k++)
            if (strcmp(stages[k].name, stages[i].name) == 0)
                code = refuse(&p, ERR_FIELD, "two stages have this name; rename one");
    }
    return code;
}

/* ---- the set ---- */

static int append(struct pipelines *set, struct pipeline *p) {
    struct pipeline **more = realloc(set->items, (set->n + 1) * sizeof *more);
    if (!more) return -ENOMEM;
    more[set->n++] = p;
    set->items = more;
    return 0;
}

int pipeline_load(struct pipelines *out, const char *path, char *err, size_t err_bytes) {
    struct pipeline_file *f;
    struct pipeline_stage stages[LIMIT_STAGES];
    struct pipeline checked, *made = NULL;
    int code = pipeline_file_load(&f, path, err, err_bytes);
    if (code != 0) return code;
    code = check(f, path, &checked, stages, err, err_bytes);
    if (code == 0 && pipeline_find(out, bytes_str(f->name)))
        code = err_set(err, err_bytes, -EEXIST,
                       "%s: name is \"%s\", which another file has; rename one", path, f->name);
    if (code == 0 && out->n >= LIMIT_PIPELINES)
        code = err_set(err, err_bytes, ERR_LIMIT, "%s: more than %u pipelines; remove some", path,
                       LIMIT_PIPELINES);
    if (code == 0) {
        code = plan_copy(&made, &checked);
        if (code == 0) code = append(out, made);
        if (code != 0) {
            plan_free(made);
            err_set(err, err_bytes, code, "%s: %s", path, err_text(code));
        }
    }
    pipeline_file_free(f);
    return code;
}

/* A list of folders has ':' between them. */
static int folder_len(const char *list) {
    return (int)strcspn(list, ":");
}

static const char *next_folder(const char *list) {
    const char *colon = strchr(list, ':');
    return colon ? colon + 1 : NULL;
}

static int is_yaml(const struct dirent *d) {
    size_t len = strlen(d->d_name);
    return d->d_name[0] != '.' && len > 5 && strcmp(d->d_name + len - 5, ".yaml") == 0;
}

static int load_folder(struct pipelines *out, const char *dir, char *err, size_t err_bytes) {
    struct dirent **names = NULL;
    int n = scandir(dir, &names, is_yaml, alphasort);
    if (n < 0)
        return err_set(err, err_bytes, -errno, "%s: cannot be read: %s", dir, strerror(errno));
    int code = n > 0 ? 0
                     : err_set(err, err_bytes, -ENOENT,
                               "%s: there is no pipeline file (*.yaml) in it; name the folder with "
                               "--pipelines or $PENSTOCK_PIPELINES",
                               dir);
    for (int i = 0; i < n; i++) {
        char path[PATH_BYTES];
        int len = snprintf(path, sizeof path, "%s/%s", dir, names[i]->d_name);
        if (code == 0 && len >= (int)sizeof path)
            code = err_set(err, err_bytes, -ENAMETOOLONG, "%s: the path is too long", dir);
        if (code == 0) code = pipeline_load(out, path, err, err_bytes);
        free(names[i]);
    }
    free(names);
    return code;
}

int pipelines_load(struct pipelines *out, const char *dirs, char *err, size_t err_bytes) {
    int code = 0;
    *out = (struct pipelines){0};
    for (const char *at = dirs; code == 0 && at; at = next_folder(at)) {
        char dir[PATH_BYTES];
        snprintf(dir, sizeof dir, "%.*s", folder_len(at), at);
        code = load_folder(out, dir, err, err_bytes);
    }
    if (code != 0) pipelines_free(out);
    return code;
}

void pipelines_free(struct pipelines *p) {
    for (uint32_t i = 0; i < p->n; i++) plan_free(p->items[i]);
    free(p->items);
    *p = (struct pipelines){0};
}

int pipelines_replace(struct pipelines *set, struct pipelines *fresh) {
    uint32_t n = fresh->n;
    struct pipeline **items = malloc((n + set->n + 1) * sizeof *items);
    if (!items) return -ENOMEM;
    for (uint32_t i = 0; i < fresh->n; i++) {
        items[i] = fresh->items[i];
        for (uint32_t k = 0; k < set->n; k++) {
            if (!set->items[k] || !bytes_eq(set->items[k]->plan, items[i]->plan)) continue;
            plan_free(items[i]);
            items[i] = set->items[k];
            items[i]->retired = false;
            set->items[k] = NULL;
        }
    }
    for (uint32_t k = 0; k < set->n; k++) {
        if (!set->items[k]) continue;
        set->items[k]->retired = true;
        items[n++] = set->items[k];
    }
    free(set->items);
    free(fresh->items);
    *fresh = (struct pipelines){0};
    *set = (struct pipelines){items, n};
    return 0;
}

void pipeline_version_text(uint32_t version, char out[9]) {
    snprintf(out, 9, "%08" PRIx32, version);
}

const struct pipeline *pipeline_find(const struct pipelines *p, struct bytes wanted) {
    for (uint32_t i = 0; i < p->n; i++)
        if (!p->items[i]->retired && bytes_is(wanted, p->items[i]->name)) return p->items[i];
    return NULL;
}

int pipeline_from_plan(struct pipelines *out, struct bytes plan, const struct pipeline **found,
                       char *err, size_t err_bytes) {
    struct pipeline *made;
    for (uint32_t i = 0; i < out->n; i++) {
        if (!bytes_eq(out->items[i]->plan, plan)) continue;
        *found = out->items[i];
        return 0;
    }
    int code = plan_decode(plan, &made, err, err_bytes);
    if (code != 0) return code;
    made->retired = true;
    code = append(out, made);
    if (code != 0) {
        plan_free(made);
        return err_set(err, err_bytes, code, "a job's plan: %s", err_text(code));
    }
    *found = made;
    return 0;
}

/* ---- where the files are ---- */

static int installed_folder(char *out, size_t out_bytes, char *err, size_t err_bytes) {
    static const char *const beside[] = {"/../../pipelines", "/../share/penstock/pipelines"};
    if (file_beside_program(beside, 2, out, out_bytes) == 0) return 0;
    return err_set(err, err_bytes, -ENOENT,
                   "no folder of pipelines at %s%s or %s%s; name one with --pipelines DIR", out,
                   beside[0], out, beside[1]);
}

int pipelines_dir(const char *given, char *out, size_t out_bytes, char *err, size_t err_bytes) {
    const char *named = given && given[0] ? given : getenv("PENSTOCK_PIPELINES");
    size_t len = 0;
    for (const char *at = named ? named : ""; at; at = next_folder(at)) {
        char dir[PATH_BYTES];
        snprintf(dir, sizeof dir, "%.*s", folder_len(at), at);
        int code = dir[0] ? 0 : installed_folder(dir, sizeof dir, err, err_bytes);
        if (code != 0) return code;
        int n = snprintf(out + len, out_bytes - len, "%s%s", len ? ":" : "", dir);
        if (n < 0 || (size_t)n >= out_bytes - len || !file_is_folder(dir))
            return err_set(err, err_bytes, -ENOENT, "%s: there is no such folder of pipelines",
                           dir);
        len += (size_t)n;
    }
    return 0;
}
