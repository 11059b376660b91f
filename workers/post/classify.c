#include "workers/post/classify.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/limits.h"
#include "base/regex.h"
#include "workers/encode/tokenizer.h"
#include "workers/infer/model.h"
#include "workers/infer/models.h"

#define LANGUAGES 2u
#define SETS_MAX 16u /* models and languages whose vectors are kept */

struct cues {
    struct regex **at;
    uint32_t n;
};
struct vector_set {
    char model[LIMIT_NAME_BYTES + 1];
    enum clause_language language;
    uint32_t dim;
    float *vectors;
};
struct classifier {
    const struct taxonomy *taxonomy;
    struct cues *cues[LANGUAGES]; /* [n_types] each */
    struct vector_set sets[SETS_MAX];
    uint32_t n_sets;
};

static int compile(struct cues *out, const char *const *patterns, uint32_t n, const char *type,
                   char *err, size_t err_bytes) {
    char why[256];
    out->at = calloc(n + 1, sizeof(struct regex *));
    if (!out->at) return -ENOMEM;
    for (; out->n < n; out->n++) {
        int rc = regex_open(&out->at[out->n], patterns[out->n], "i", why, sizeof why);
        if (rc < 0)
            return err_set(err, err_bytes, rc, "taxonomy: %s: cue %u: %s", type, out->n + 1, why);
    }
    return 0;
}

int classifier_open(struct classifier **out, const struct taxonomy *t, char *err,
                    size_t err_bytes) {
    struct classifier *c = calloc(1, sizeof *c);
    int rc = c ? 0 : -ENOMEM;
    *out = NULL;
    if (c) c->taxonomy = t;
    for (uint32_t l = 0; rc == 0 && l < LANGUAGES; l++) {
        c->cues[l] = calloc(t->n_types, sizeof(struct cues));
        if (!c->cues[l]) rc = -ENOMEM;
    }
    for (uint32_t i = 0; rc == 0 && i < t->n_types; i++) {
        const struct taxonomy_type *type = &t->types[i];
        rc = compile(&c->cues[LANGUAGE_EN][i], type->cues_en, type->n_cues_en, type->name, err,
                     err_bytes);
        if (rc == 0)
            rc = compile(&c->cues[LANGUAGE_ZH][i], type->cues_zh, type->n_cues_zh, type->name, err,
                         err_bytes);
    }
    if (rc == 0) {
        *out = c;
        return 0;
    }
    classifier_close(c);
    return rc == -ENOMEM ? err_set(err, err_bytes, rc, "taxonomy: out of memory") : rc;
}

void classifier_close(struct classifier *c) {
    if (!c) return;
    for (uint32_t l = 0; l < LANGUAGES; l++) {
        for (uint32_t i = 0; c->cues[l] && i < c->taxonomy->n_types; i++) {
            for (uint32_t k = 0; k < c->cues[l][i].n; k++) regex_close(c->cues[l][i].at[k]);
            free(c->cues[l][i].at);
        }
        free(c->cues[l]);
    }
    for (uint32_t i = 0; i < c->n_sets; i++) free(c->sets[i].vectors);
    free(c);
}

/* ---- the types as vectors ---- */

/* English descriptions begin with the type's name, its slashes read as "or". */
static int describe(const struct taxonomy_type *type, enum clause_language language,
                    struct buf *out) {
    buf_clear(out);
    if (language == LANGUAGE_ZH) return buf_append(out, type->zh, strlen(type->zh));
    for (const char *at = type->name; *at; at++)
        *at == '/' ? buf_append(out, " or ", 4) : buf_append(out, at, 1);
    return buf_printf(out, ". %s", type->en);
}

static int embed_types(const struct taxonomy *t, struct model *m, const struct tokenizer *tokenizer,
                       struct vector_set *set, char *err, size_t err_bytes) {
    const struct model_info *info = model_info(m);
    struct arena a;
    struct buf text = {0}, ids = {0};
    arena_init(&a, 64u << 20);
    uint32_t *begin = arena_calloc(&a, t->n_types + 1, sizeof *begin);
    int rc = begin ? 0 : -ENOMEM;
    for (uint32_t i = 0; rc == 0 && i < t->n_types; i++) {
        struct tokens k;
        rc = describe(&t->types[i], set->language, &text);
        if (rc == 0)
            rc = tokenizer_encode(tokenizer, buf_bytes(&text), true, info->text_context, &a, &k,
                                  err, err_bytes);
        if (rc == 0) rc = buf_append(&ids, k.ids, k.n * sizeof *k.ids);
        begin[i + 1] = (uint32_t)(ids.len / sizeof *k.ids);
    }
    set->dim = info->dim;
    set->vectors = malloc((size_t)t->n_types * info->dim * sizeof(float));
    if (rc == 0 && !set->vectors) rc = -ENOMEM;
    if (rc == 0)
        rc = model_embed(m, t->n_types, begin, (const uint32_t *)(const void *)ids.data,
                         set->vectors, err, err_bytes);
    buf_fini(&text);
    buf_fini(&ids);
    arena_fini(&a);
    return rc;
}

int classifier_vectors(struct classifier *c, struct models *models, struct bytes model,
                       enum clause_language language, const float **vectors, uint32_t *dim,
                       char *err, size_t err_bytes) {
    for (uint32_t i = 0; i < c->n_sets; i++) {
        if (c->sets[i].language != language || !bytes_is(model, c->sets[i].model)) continue;
        *vectors = c->sets[i].vectors;
        *dim = c->sets[i].dim;
        return 0;
    }
    struct vector_set *set = &c->sets[c->n_sets];
    struct model *m;
    struct tokenizer *tokenizer;
    if (c->n_sets == SETS_MAX)
        return err_set(err, err_bytes, ERR_LIMIT, "taxonomy: vectors of more than %u models",
                       SETS_MAX);
    *set = (struct vector_set){.language = language};
    int rc = bytes_to_cstr(model, set->model, sizeof set->model);
    if (rc < 0) return err_set(err, err_bytes, rc, "taxonomy: the model's name is too long");
    rc = models_get(models, model, &m, err, err_bytes);
    if (rc == 0 && model_info(m)->kind != MODEL_ENCODER)
        rc = err_set(err, err_bytes, ERR_FIELD, "model %s is no encoder", set->model);
    if (rc == 0) rc = models_tokenizer(models, model, &tokenizer, err, err_bytes);
    if (rc == 0) rc = embed_types(c->taxonomy, m, tokenizer, set, err, err_bytes);
    if (rc < 0) {
        free(set->vectors);
        return rc;
    }
    c->n_sets++;
    *vectors = set->vectors;
    *dim = set->dim;
    return 0;
}

/* ---- one clause ---- */

static double cue_of(const struct cues *cues, struct bytes seen) {
    struct regex_span spans[REGEX_GROUPS];
    double miss = 1;
    for (uint32_t k = 0; k < cues->n; k++)
        if (regex_find(cues->at[k], seen.data, seen.len, 0, spans) == 1) miss /= 2;
    return 1 - miss;
}

void classifier_score(const struct classifier *c, enum clause_language language, const float *types,
                      uint32_t dim, const float *vector, struct bytes seen, size_t heading_bytes,
                      struct class_score *scores) {
    const struct taxonomy_languages *all = &c->taxonomy->weights;
    const struct taxonomy_weights *w = language == LANGUAGE_ZH ? &all->zh : &all->en;
    struct bytes heading = bytes_of(seen.data, heading_bytes);
    struct bytes own = bytes_of((const char *)seen.data + heading_bytes, seen.len - heading_bytes);
    for (uint32_t i = 0; i < c->taxonomy->n_types; i++) {
        const float *t = types + (size_t)i * dim;
        double dot = 0;
        for (uint32_t d = 0; d < dim; d++) dot += (double)t[d] * (double)vector[d];
        const struct cues *cues = &c->cues[language][i];
        double above = heading_bytes ? cue_of(cues, heading) / 2 : 0, cue = cue_of(cues, own);
        if (above > cue) cue = above;
        scores[i] = (struct class_score){w->cosine * dot + w->cue * cue, dot, cue};
    }
}
