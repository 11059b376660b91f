#include "pipelines/settings.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"
#include "pipelines/settings_file.h"
#include "pipelines/yaml_text.h"

#define FILE_BYTES_MAX (256u * 1024u)
#define OTHERS "*"
enum { FIELDS_MAX = 8 };

/* Where a check is: an entry of a list of the file. `seen` counts how often each field was given in
 * this list so far, which is how its line is found. */
struct place {
    const char *path, *data, *list;
    char entry[LIMIT_NAME_BYTES + 1];
    struct {
        const char *field;
        uint32_t times;
    } seen[FIELDS_MAX];
    char *err;
    size_t err_bytes;
};

static void enter_list(struct place *p, const char *list) {
    p->list = list;
    memset(p->seen, 0, sizeof p->seen);
}

/* The field is given in this entry; returns how many entries of the list had it before. */
static uint32_t note_field(struct place *p, const char *field) {
    uint32_t i = 0;
    while (p->seen[i].field && strcmp(p->seen[i].field, field) != 0) i++;
    p->seen[i].field = field;
    return p->seen[i].times++;
}

static int refuse(const struct place *p, const char *field, uint32_t nth, int code,
                  const char *format, ...) __attribute__((format(printf, 5, 6)));
static int refuse(const struct place *p, const char *field, uint32_t nth, int code,
                  const char *format, ...) {
    char what[256];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    return err_set(p->err, p->err_bytes, code, "%s: %s: %s: %s %s, line: %u", p->path, p->list,
                   p->entry, field, what, yaml_text_line(p->data, p->list, field, nth));
}

static int number(struct place *p, const char *field, const int64_t *given, int64_t min,
                  int64_t max, int64_t otherwise, int64_t *out) {
    *out = otherwise;
    if (!given) return 0;
    uint32_t nth = note_field(p, field);
    if (*given < min || *given > max)
        return refuse(p, field, nth, ERR_LIMIT,
                      "is %" PRId64 "; write a number from %" PRId64 " to %" PRId64, *given, min,
                      max);
    *out = *given;
    return 0;
}

static int bounds(struct place *p, const int64_t *jobs, const int64_t *bytes,
                  struct settings_bounds *out) {
    int64_t jobs_max, bytes_max;
    int code = number(p, "jobs_max", jobs, 1, LIMIT_JOBS_QUEUED, 0, &jobs_max);
    if (code == 0) code = number(p, "bytes_max", bytes, 1, SETTINGS_BYTES_MAX, 0, &bytes_max);
    if (code == 0) *out = (struct settings_bounds){(uint32_t)jobs_max, (uint64_t)bytes_max};
    return code;
}

/* A burst is what a second brings, if nothing else is said, and one job at least. */
static int pace(struct place *p, const struct file_tenant *in, struct settings_tenant *out) {
    int64_t burst;
    double rate = in->rate_per_s ? *in->rate_per_s : 0;
    if (in->rate_per_s) {
        uint32_t nth = note_field(p, "rate_per_s");
        if (!(rate >= 0.001 && rate <= SETTINGS_RATE_MAX))
            return refuse(p, "rate_per_s", nth, ERR_LIMIT, "is %g; write a number from 0.001 to %d",
                          rate, SETTINGS_RATE_MAX);
    } else if (in->burst) {
        return refuse(p, "burst", note_field(p, "burst"), ERR_FIELD,
                      "stands without rate_per_s; write both");
    }
    int code = number(p, "burst", in->burst, 1, SETTINGS_RATE_MAX, (int64_t)ceil(rate), &burst);
    out->rate_per_s = rate;
    out->burst = (uint32_t)burst;
    return code;
}

/* Names the entry that is checked from now on. */
static int name(struct place *p, const char *field, const char *text, bool others) {
    uint32_t nth = note_field(p, field);
    snprintf(p->entry, sizeof p->entry, "%s", text);
    size_t ok = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
    if (text[ok] == '\0' || (others && strcmp(text, OTHERS) == 0)) return 0;
    return refuse(p, field, nth, ERR_FIELD,
                  "has other characters than letters, digits, '.', '_' and '-'%s",
                  others ? "; \"*\" stands for all that are not named" : "");
}

static int twice(const struct place *p, const char *field, uint32_t nth) {
    return refuse(p, field, nth, ERR_FIELD, "is there twice; remove one of them");
}

/* ---- the lists ---- */

static int check_tenant(struct place *p, const struct file_tenant *in,
                        struct settings_tenant *out) {
    int64_t weight;
    int code = name(p, "name", in->name, true);
    if (code == 0) code = number(p, "weight", in->weight, 1, SETTINGS_WEIGHT_MAX, 1, &weight);
    if (code != 0) return code;
    *out = (struct settings_tenant){.weight = (uint32_t)weight};
    snprintf(out->name, sizeof out->name, "%s", in->name);
    code = bounds(p, in->jobs_max, in->bytes_max, &out->bounds);
    return code == 0 ? pace(p, in, out) : code;
}

static int check_tenants(struct place *p, const struct settings_file *f, struct settings *s) {
    enter_list(p, "tenants");
    s->tenants = f->n_tenants ? calloc(f->n_tenants, sizeof *s->tenants) : NULL;
    if (f->n_tenants && !s->tenants) return -ENOMEM;
    for (uint32_t i = 0; i < f->n_tenants; i++) {
        struct settings_tenant *t = &s->tenants[s->n_tenants];
        int code = check_tenant(p, &f->tenants[i], t);
        if (code != 0) return code;
        for (uint32_t k = 0; k < i; k++)
            if (strcmp(f->tenants[k].name, t->name) == 0) return twice(p, "name", i);
        if (strcmp(t->name, OTHERS) == 0)
            s->others = *t;
        else
            s->n_tenants++;
    }
    return 0;
}

static int when_full(struct place *p, const char *given, bool *drops) {
    if (!given) return 0;
    uint32_t nth = note_field(p, "full");
    *drops = strcmp(given, "drop_oldest") == 0;
    if (*drops || strcmp(given, "reject") == 0) return 0;
    return refuse(p, "full", nth, ERR_FIELD, "is \"%.64s\"; write reject or drop_oldest", given);
}

static int check_levels(struct place *p, const struct settings_file *f, struct settings *s) {
    uint32_t seen = 0;
    enter_list(p, "levels");
    for (uint32_t i = 0; i < f->n_levels; i++) {
        const struct file_level *in = &f->levels[i];
        int64_t level;
        snprintf(p->entry, sizeof p->entry, "%" PRId64, *in->level);
        int code = number(p, "level", in->level, 0, SETTINGS_LEVELS - 1, 0, &level);
        if (code == 0 && (seen & 1u << level)) return twice(p, "level", i);
        if (code == 0) code = bounds(p, in->jobs_max, in->bytes_max, &s->levels[level].bounds);
        if (code == 0) code = when_full(p, in->full, &s->levels[level].drops);
        if (code != 0) return code;
        seen |= 1u << level;
    }
    return 0;
}

static int check_stages(struct place *p, const struct settings_file *f, struct settings *s) {
    enter_list(p, "stages");
    s->stages = f->n_stages ? calloc(f->n_stages, sizeof *s->stages) : NULL;
    if (f->n_stages && !s->stages) return -ENOMEM;
    for (uint32_t i = 0; i < f->n_stages; i++) {
        struct settings_stage *to = &s->stages[i];
        int code = name(p, "run", f->stages[i].run, false);
        if (code == 0) code = bounds(p, f->stages[i].jobs_max, f->stages[i].bytes_max, &to->bounds);
        if (code != 0) return code;
        snprintf(to->run, sizeof to->run, "%s", f->stages[i].run);
        for (uint32_t k = 0; k < i; k++)
            if (strcmp(s->stages[k].run, to->run) == 0) return twice(p, "run", i);
        s->n_stages++;
    }
    return 0;
}

static const char *const policies[] = {"block", "drop_oldest", "sample"};

const char *settings_policy_name(enum settings_policy p) {
    return policies[p];
}

static int policy(struct place *p, const char *given, enum settings_policy *out) {
    uint32_t nth = note_field(p, "policy");
    for (int i = 0; i < 3; i++)
        if (strcmp(given, policies[i]) == 0) {
            *out = (enum settings_policy)i;
            return 0;
        }
    return refuse(p, "policy", nth, ERR_FIELD, "is \"%.64s\"; write block, drop_oldest or sample",
                  given);
}

/* What thins out is only for a source that is sampled, which needs one way to do it. */
static int sampling(struct place *p, const struct file_source *in, uint32_t nth,
                    struct settings_source *out) {
    int64_t above, keep, interval;
    int code = number(p, "above", in->above, 0, out->depth, out->depth / 2, &above);
    if (code == 0) code = number(p, "keep_one_of", in->keep_one_of, 2, 1000000, 0, &keep);
    if (code == 0) code = number(p, "interval_ms", in->interval_ms, 1, 86400000, 0, &interval);
    if (code != 0) return code;
    out->above = (uint32_t)above;
    out->keep_one_of = (uint32_t)keep;
    out->interval_ms = (uint32_t)interval;
    bool sampled = out->policy == SOURCE_SAMPLE;
    bool sound = sampled ? !keep != !interval : !in->above && !keep && !interval;
    if (sound) return 0;
    return refuse(p, "policy", nth, ERR_FIELD,
                  sampled ? "is sample, which needs either keep_one_of or interval_ms"
                          : "is not sample; take above, keep_one_of and interval_ms out");
}

static int check_source(struct place *p, const struct file_source *in, uint32_t nth,
                        struct settings_source *out) {
    int64_t depth;
    int code = name(p, "name", in->name, true);
    if (code == 0) code = policy(p, in->policy, &out->policy);
    if (code == 0) code = number(p, "depth", in->depth, 1, SETTINGS_DEPTH_MAX, 0, &depth);
    if (code != 0) return code;
    out->depth = (uint32_t)depth;
    snprintf(out->name, sizeof out->name, "%s", in->name);
    return sampling(p, in, nth, out);
}

static int check_sources(struct place *p, const struct settings_file *f, struct settings *s) {
    enter_list(p, "sources");
    s->sources = f->n_sources ? calloc(f->n_sources, sizeof *s->sources) : NULL;
    if (f->n_sources && !s->sources) return -ENOMEM;
    for (uint32_t i = 0; i < f->n_sources; i++) {
        struct settings_source one = {.depth = 0};
        int code = check_source(p, &f->sources[i], i, &one);
        if (code != 0) return code;
        for (uint32_t k = 0; k < i; k++)
            if (strcmp(f->sources[k].name, one.name) == 0) return twice(p, "name", i);
        if (strcmp(one.name, OTHERS) == 0)
            s->other_sources = one;
        else
            s->sources[s->n_sources++] = one;
    }
    return 0;
}

static int check_window(const struct place *p, const struct settings_file *f, struct settings *s) {
    const int64_t *given = f->dedupe_window_s;
    if (!given) return 0;
    s->dedupe_window_ms = *given * 1000;
    if (*given >= 1 && *given <= SETTINGS_WINDOW_MAX_S) return 0;
    return err_set(p->err, p->err_bytes, ERR_LIMIT,
                   "%s: dedupe_window_s is %" PRId64 "; write a number from 1 to %d, line: %u",
                   p->path, *given, SETTINGS_WINDOW_MAX_S,
                   yaml_text_line(p->data, "dedupe_window_s", NULL, 0));
}

/* ---- the whole ---- */

static int read_file(struct settings *s, const char *path, char *err, size_t err_bytes) {
    void *data = NULL;
    size_t bytes;
    struct settings_file *f = NULL;
    int code = file_read(path, FILE_BYTES_MAX, &data, &bytes, err, err_bytes);
    if (code != 0) return code;
    code = settings_file_load(&f, data, bytes, path, err, err_bytes);
    struct place p = {.path = path, .data = data, .err = err, .err_bytes = err_bytes};
    if (code == 0 && (code = check_tenants(&p, f, s)) == 0 &&
        (code = check_levels(&p, f, s)) == 0 && (code = check_stages(&p, f, s)) == 0)
        code = check_sources(&p, f, s);
    if (code == 0) code = check_window(&p, f, s);
    if (code == -ENOMEM) err_set(err, err_bytes, code, "%s: out of memory", path);
    settings_file_free(f);
    free(data);
    return code;
}

int settings_load(struct settings **out, const char *path, char *err, size_t err_bytes) {
    struct settings *s = calloc(1, sizeof *s);
    if (!s) return err_set(err, err_bytes, -ENOMEM, "out of memory for the settings");
    s->others.weight = 1;
    int code = path ? read_file(s, path, err, err_bytes) : 0;
    if (code == 0)
        *out = s;
    else
        settings_free(s);
    return code;
}

void settings_free(struct settings *s) {
    if (!s) return;
    free(s->tenants);
    free(s->stages);
    free(s->sources);
    free(s);
}

const struct settings_tenant *settings_tenant(const struct settings *s, const char *name_of) {
    for (uint32_t i = 0; i < s->n_tenants; i++)
        if (strcmp(s->tenants[i].name, name_of) == 0) return &s->tenants[i];
    return &s->others;
}

const struct settings_source *settings_source(const struct settings *s, const char *name_of) {
    for (uint32_t i = 0; i < s->n_sources; i++)
        if (strcmp(s->sources[i].name, name_of) == 0) return &s->sources[i];
    return &s->other_sources;
}
