#include "pipelines/recipe.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/file.h"
#include "base/limits.h"
#include "pipelines/recipe_file.h"

#define RECIPE_ARENA_BYTES (1024u * 1024u)
#define PATH_BYTES 4096

static const char image_features[] = "defects area_px largest_px contrast score shift_px residual";
static const char log_features[] = "events errors warnings malformed";

/* A recipe, and where all its parts lie. */
struct made {
    struct recipe recipe; /* first: a recipe is a made */
    struct arena arena;
    struct recipe_file *file;
};

struct place {
    const char *where;
    char *err;
    size_t err_bytes;
};

const char *recipe_op_text(enum recipe_op op) {
    static const char *const texts[] = {">", ">=", "<", "<=", "==", "!="};
    return texts[op];
}

bool recipe_op_holds(enum recipe_op op, double a, double b) {
    switch (op) {
    case RECIPE_GT: return a > b;
    case RECIPE_GE: return a >= b;
    case RECIPE_LT: return a < b;
    case RECIPE_LE: return a <= b;
    case RECIPE_EQ: return a == b;
    case RECIPE_NE: return a != b;
    }
    return false;
}

bool recipe_is_inline(struct bytes text) {
    return text.len > 0 && memchr(text.data, '\n', text.len) != NULL;
}

/* ---- checks ---- */

static int number(const struct place *p, const char *field, const int64_t *given, uint32_t min,
                  uint32_t max, uint32_t otherwise, uint32_t *out) {
    *out = otherwise;
    if (!given) return 0;
    if (*given < min || *given > max)
        return err_set(p->err, p->err_bytes, ERR_LIMIT,
                       "%s: %s is %" PRId64 "; it must be %u to %u", p->where, field, *given, min,
                       max);
    *out = (uint32_t)*given;
    return 0;
}

/* The first word is the default and true. */
static int choice(const struct place *p, const char *field, const char *given, const char *yes,
                  const char *no, bool *out) {
    *out = !given || strcmp(given, yes) == 0;
    if (*out || strcmp(given, no) == 0) return 0;
    return err_set(p->err, p->err_bytes, ERR_FIELD, "%s: %s is \"%.64s\"; it is %s or %s", p->where,
                   field, given, yes, no);
}

static bool in_list(const char *list, const char *word) {
    size_t len = strlen(word);
    for (const char *at = list; len > 0 && (at = strstr(at, word)); at++)
        if ((at == list || at[-1] == ' ') && (at[len] == ' ' || at[len] == '\0')) return true;
    return false;
}

static int check_rule(const struct place *p, const struct file_rule *in, struct recipe_rule *out) {
    static const char *const stats[] = {"min", "mean", "max", "last", "count"};
    const char *name = in->feature, *dot = strrchr(name, '.');
    *out = (struct recipe_rule){.feature = name, .op = in->op, .value = in->value};
    if (!isfinite(in->value))
        return err_set(p->err, p->err_bytes, ERR_FIELD, "%s: the rule on %s has no finite value",
                       p->where, name);
    bool image = strncmp(name, "image.", 6) == 0, log = strncmp(name, "log.", 4) == 0;
    if (image || log) {
        const char *list = image ? image_features : log_features, *word = strchr(name, '.') + 1;
        out->source = image ? RECIPE_IMAGE : RECIPE_LOG;
        out->name = bytes_str(word);
        if (in_list(list, word)) return 0;
        return err_set(p->err, p->err_bytes, ERR_FIELD,
                       "%s: there is no feature %s; behind %s may stand: %s", p->where, name,
                       image ? "image." : "log.", list);
    }
    out->source = RECIPE_READING;
    for (int s = 0; dot && dot > name && s < 5; s++) {
        if (strcmp(dot + 1, stats[s]) != 0) continue;
        out->stat = (enum recipe_stat)s;
        out->name = bytes_of(name, (size_t)(dot - name));
        return 0;
    }
    return err_set(p->err, p->err_bytes, ERR_FIELD,
                   "%s: feature %s does not say which value of the reading: put .min, .mean, .max, "
                   ".last or .count behind it, or name an image. or log. feature",
                   p->where, name);
}

static int check_rules(const struct place *p, struct arena *a, const struct file_rule *in,
                       uint32_t n, const struct recipe_rule **out) {
    struct recipe_rule *rules = arena_calloc(a, (size_t)n + 1, sizeof *rules);
    int code = rules ? 0 : err_set(p->err, p->err_bytes, -ENOMEM, "%s: no memory", p->where);
    for (uint32_t i = 0; code == 0 && i < n; i++) code = check_rule(p, &in[i], &rules[i]);
    *out = rules;
    return code;
}

static int check_image(const struct place *p, const struct recipe_file *f, struct recipe *r) {
    static const struct file_registration no_registration;
    static const struct file_compare no_compare;
    const struct file_registration *g = f->registration ? f->registration : &no_registration;
    const struct file_compare *c = f->compare ? f->compare : &no_compare;
    int code =
        number(p, "registration: max_shift_px", g->max_shift_px, 0, 512, 16, &r->max_shift_px);
    if (code == 0) code = choice(p, "registration: map", g->map, "affine", "shift", &r->affine);
    if (code == 0)
        code = choice(p, "registration: levels", g->levels, "match", "keep", &r->match_levels);
    if (code == 0)
        code = number(p, "compare: side_px", c->side_px, 16, LIMIT_IMAGE_SIDE, 2048, &r->side_px);
    if (code == 0)
        code = number(p, "compare: tolerance_px", c->tolerance_px, 0, 16, 2, &r->tolerance_px);
    if (code == 0)
        code = number(p, "compare: contrast_min", c->contrast_min, 1, 255, 40, &r->contrast_min);
    if (code == 0) code = number(p, "compare: merge_px", c->merge_px, 0, 64, 4, &r->merge_px);
    if (code == 0) code = number(p, "compare: margin_px", c->margin_px, 0, 512, 0, &r->margin_px);
    if (code == 0) code = choice(p, "compare: color", c->color, "rgb", "gray", &r->color);
    r->ignore = c->ignore;
    r->n_ignore = c->n_ignore;
    return code;
}

static int check_thresholds(const struct place *p, struct arena *a, const struct recipe_file *f,
                            struct recipe *r) {
    static const struct file_rule any_defect = {"image.defects", RECIPE_GE, 1};
    static const struct file_thresholds absent;
    const struct file_thresholds *t = f->thresholds ? f->thresholds : &absent;
    r->score_min = t->score_min ? *t->score_min : 0;
    r->n_ng = t->n_ng ? t->n_ng : 1;
    if (!(r->score_min >= 0 && r->score_min <= 1))
        return err_set(p->err, p->err_bytes, ERR_LIMIT,
                       "%s: thresholds: score_min is %g; it must be 0 to 1", p->where,
                       r->score_min);
    int code = number(p, "thresholds: area_min_px", t->area_min_px, 1, LIMIT_IMAGE_PIXELS, 20,
                      &r->area_min_px);
    if (code == 0)
        code = number(p, "thresholds: defects_max", t->defects_max, 1, RECIPE_DEFECTS_MAX, 64,
                      &r->defects_max);
    if (code == 0) code = check_rules(p, a, t->n_ng ? t->ng : &any_defect, r->n_ng, &r->ng);
    return code;
}

static int check_causes(const struct place *p, struct arena *a, const struct recipe_file *f,
                        struct recipe *r) {
    struct recipe_cause *causes = arena_calloc(a, (size_t)f->n_causes + 1, sizeof *causes);
    int code = causes ? 0 : err_set(p->err, p->err_bytes, -ENOMEM, "%s: no memory", p->where);
    for (uint32_t i = 0; code == 0 && i < f->n_causes; i++) {
        const struct file_cause *in = &f->causes[i];
        causes[i] = (struct recipe_cause){in->cause, in->describe, NULL, in->n_rules};
        code = check_rules(p, a, in->rules, in->n_rules, &causes[i].rules);
        if (code == 0 && !in->describe && in->n_rules == 0)
            code =
                err_set(p->err, p->err_bytes, ERR_FIELD,
                        "%s: cause %s has neither a description nor rules: nothing would find it",
                        p->where, in->cause);
        for (uint32_t k = 0; code == 0 && k < i; k++)
            if (strcmp(causes[k].cause, in->cause) == 0)
                code = err_set(p->err, p->err_bytes, ERR_FIELD, "%s: two causes are named %s",
                               p->where, in->cause);
    }
    r->causes = causes;
    r->n_causes = f->n_causes;
    return code;
}

/* A reference lies below the recipe's folder: no absolute path, no way up. */
static int check_reference(const struct place *p, struct arena *a, const char *dir,
                           const char *given, struct recipe *r) {
    if (!given) return 0;
    if (!dir)
        return err_set(
            p->err, p->err_bytes, ERR_FIELD,
            "%s: a recipe inside a job cannot name a file (reference: %.64s); send it in "
            "the job's field reference",
            p->where, given);
    if (given[0] == '/' || strcmp(given, "..") == 0 || strncmp(given, "../", 3) == 0 ||
        strstr(given, "/../") || strstr(given, "/..") == given + strlen(given) - 3)
        return err_set(p->err, p->err_bytes, ERR_FIELD,
                       "%s: reference %.64s is not below the recipe's folder", p->where, given);
    r->reference = arena_printf(a, "%s/%s", dir, given);
    return r->reference ? 0 : err_set(p->err, p->err_bytes, -ENOMEM, "%s: no memory", p->where);
}

static int check(const struct place *p, struct made *m, const char *dir) {
    const struct recipe_file *f = m->file;
    struct recipe *r = &m->recipe;
    r->name = f->name;
    r->brighter = f->classes && f->classes->brighter ? f->classes->brighter : "brighter";
    r->darker = f->classes && f->classes->darker ? f->classes->darker : "darker";
    int code = number(p, "version", &f->version, 0, UINT32_MAX, 0, &r->version);
    if (code == 0) code = check_reference(p, &m->arena, dir, f->reference, r);
    if (code == 0) code = check_image(p, f, r);
    if (code == 0) code = check_thresholds(p, &m->arena, f, r);
    if (code == 0) code = check_causes(p, &m->arena, f, r);
    return code;
}

/* ---- making ---- */

int recipe_parse(struct recipe **out, struct bytes yaml, const char *dir, const char *where,
                 char *err, size_t err_bytes) {
    struct place p = {where, err, err_bytes};
    if (yaml.len > LIMIT_RECIPE_BYTES)
        return err_set(err, err_bytes, ERR_LIMIT, "%s: the recipe has %zu bytes; it may have %u",
                       where, yaml.len, LIMIT_RECIPE_BYTES);
    size_t bad = utf8_check(yaml.data, yaml.len);
    if (bad < yaml.len || memchr(yaml.data, '\0', yaml.len))
        return err_set(err, err_bytes, ERR_FIELD, "%s: the recipe is not UTF-8 text", where);
    struct made *m = calloc(1, sizeof *m);
    if (!m) return err_set(err, err_bytes, -ENOMEM, "%s: no memory", where);
    arena_init(&m->arena, RECIPE_ARENA_BYTES);
    char *text = arena_strndup(&m->arena, yaml.data, yaml.len);
    int code = text ? recipe_file_load(&m->file, text, yaml.len, where, err, err_bytes)
                    : err_set(err, err_bytes, -ENOMEM, "%s: no memory", where);
    if (code == 0) code = check(&p, m, dir);
    m->recipe.yaml = bytes_of(text, yaml.len);
    if (code == 0)
        *out = &m->recipe;
    else
        recipe_free(&m->recipe);
    return code;
}

void recipe_free(struct recipe *r) {
    struct made *m = (struct made *)r;
    if (!m) return;
    recipe_file_free(m->file);
    arena_fini(&m->arena);
    free(m);
}

static int is_yaml(const struct dirent *d) {
    size_t len = strlen(d->d_name);
    return d->d_name[0] != '.' && len > 5 && strcmp(d->d_name + len - 5, ".yaml") == 0;
}

static int unknown(const char *dir, struct bytes name, char *err, size_t err_bytes) {
    char known[256] = "";
    struct dirent **names = NULL;
    int n = scandir(dir, &names, is_yaml, alphasort);
    for (int i = 0; i < n; i++) {
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%.*s", i ? ", " : "",
                 (int)strlen(names[i]->d_name) - 5, names[i]->d_name);
        free(names[i]);
    }
    free(names);
    return err_set(err, err_bytes, ERR_UNKNOWN,
                   "there is no recipe %.*s in %s (name their folder with --recipes); there %s%s",
                   (int)name.len, (const char *)name.data, dir, n > 0 ? "are: " : "is none", known);
}

int recipe_load(struct recipe **out, const char *dir, struct bytes name, char *err,
                size_t err_bytes) {
    char path[PATH_BYTES], text[LIMIT_NAME_BYTES + 1];
    void *data = NULL;
    size_t bytes;
    if (bytes_to_cstr(name, text, sizeof text) != 0 || text[0] == '.' || text[0] == '\0' ||
        strchr(text, '/'))
        return err_set(err, err_bytes, ERR_FIELD,
                       "recipe: a name has 1 to %u bytes, no '/', and no '.' in front",
                       LIMIT_NAME_BYTES);
    int len = snprintf(path, sizeof path, "%s/%s.yaml", dir, text);
    if (len < 0 || (size_t)len >= sizeof path)
        return err_set(err, err_bytes, -ENAMETOOLONG, "%s: the path is too long", dir);
    int code = file_read(path, LIMIT_RECIPE_BYTES, &data, &bytes, err, err_bytes);
    if (code == -ENOENT) return unknown(dir, name, err, err_bytes);
    if (code == 0) code = recipe_parse(out, bytes_of(data, bytes), dir, path, err, err_bytes);
    free(data);
    return code;
}

int recipes_dir(const char *given, char *out, size_t out_bytes, char *err, size_t err_bytes) {
    static const char *const beside[] = {"/../../examples/qc", "/../share/penstock/recipes"};
    const char *named = given && given[0] ? given : getenv("PENSTOCK_RECIPES");
    if (named && named[0]) {
        int n = snprintf(out, out_bytes, "%s", named);
        if (n >= 0 && (size_t)n < out_bytes && file_is_folder(named)) return 0;
        return err_set(err, err_bytes, -ENOENT, "%s: there is no such folder of recipes", named);
    }
    if (file_beside_program(beside, 2, out, out_bytes) == 0) return 0;
    return err_set(
        err, err_bytes, -ENOENT,
        "no folder of recipes at %s%s or %s%s; name one with --recipes DIR, or send the recipe "
        "in the job",
        out, beside[0], out, beside[1]);
}
