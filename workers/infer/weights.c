#include "workers/infer/weights.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "kernels/source.h"
#include "workers/infer/packed.h"
#include "workers/infer/safetensors.h"
#include "workers/infer/stored.h"
#include "workers/infer/tensor_values.h"

#define SHAPE_CHARS (TENSOR_RANK_MAX * 22u + 3u)

/* One load: what every step needs. */
struct load {
    struct weights *w;
    struct ops *ops;
    const struct safetensors *st;
    const struct config *c;
    enum dtype want, stored;
    bool widen;
    struct packed *packed;
    const char *prefix;
    char *err;
    size_t err_bytes;
};

/* "[30522, 384]" */
static void shape_text(const uint64_t *shape, uint32_t rank, char out[SHAPE_CHARS]) {
    int used = snprintf(out, SHAPE_CHARS, "[");
    for (uint32_t i = 0; i < rank; i++)
        used +=
            snprintf(out + used, SHAPE_CHARS - (size_t)used, "%s%" PRIu64, i ? ", " : "", shape[i]);
    snprintf(out + used, SHAPE_CHARS - (size_t)used, "]");
}

/* A tensor by name, with its shape, type and values checked; d1 0 asks for a vector [d0]. */
static int need(struct load *l, const char *pattern, uint32_t layer, const char *suffix,
                uint64_t d0, uint64_t d1, const struct tensor **out, enum dtype *dtype) {
    char name[256], wanted[SHAPE_CHARS], found[SHAPE_CHARS];
    if (!arch_tensor_name(name, sizeof name, l->prefix, pattern, layer, suffix))
        return err_set(l->err, l->err_bytes, ERR_LIMIT, "a tensor's name is too long");
    const struct tensor *t = safetensors_find(l->st, name);
    if (!t)
        return err_set(l->err, l->err_bytes, ERR_FIELD, "%s: tensor %s: missing, a %s has one",
                       safetensors_where(l->st), name, l->c->arch->name);
    const char *path = safetensors_path(l->st, t);
    if (t->rank != (d1 ? 2 : 1) || t->shape[0] != d0 || (d1 && t->shape[1] != d1)) {
        uint64_t asked[] = {d0, d1};
        shape_text(asked, d1 ? 2 : 1, wanted);
        shape_text(t->shape, t->rank, found);
        return err_set(l->err, l->err_bytes, ERR_FIELD,
                       "%s: tensor %s: shape %s, config.json asks for %s", path, name, found,
                       wanted);
    }
    if (tensor_dtype(t, dtype) != 0 || (*dtype == DTYPE_F8E4M3 && !d1))
        return err_set(l->err, l->err_bytes, -ENOTSUP,
                       "%s: tensor %s: dtype %s; weights are F32, F16 or BF16, those of a matrix"
                       " may be F8_E4M3",
                       path, name, t->type);
    uint64_t bad = l->packed && d1 ? t->elements : tensor_first_not_finite(t, *dtype);
    if (bad != t->elements)
        return err_set(l->err, l->err_bytes, ERR_CORRUPT,
                       "%s: tensor %s: element %" PRIu64 " is a NaN or an infinity", path, name,
                       bad);
    l->w->parameters += t->elements;
    *out = t;
    return 0;
}

static int no_memory(struct load *l, size_t bytes) {
    return err_set(l->err, l->err_bytes, -ENOMEM, "no memory for %zu bytes of weights", bytes);
}

/* Vectors end to end as one buffer of floats in *out: biases, or gains. */
static int take_floats(struct load *l, const char *const *pattern, const uint32_t *n,
                       uint32_t parts, uint32_t layer, const char *suffix, float **out) {
    uint32_t total = 0, used = 0;
    float plus = strcmp(suffix, ".weight") == 0 ? l->c->arch->gain_plus : 0;
    for (uint32_t i = 0; i < parts; i++) total += n[i];
    float *host = malloc(total * sizeof *host);
    *out = l->ops->alloc(l->ops, total * sizeof *host);
    int rc = host && *out ? 0 : no_memory(l, total * sizeof *host);
    for (uint32_t p = 0; rc == 0 && p < parts; p++) {
        const struct tensor *t;
        enum dtype dtype;
        rc = need(l, pattern[p], layer, suffix, n[p], 0, &t, &dtype);
        for (uint32_t i = 0; rc == 0 && i < n[p]; i++)
            host[used + i] = source_element(t->data, dtype, i) + plus;
        used += n[p];
    }
    if (rc == 0) l->ops->upload(l->ops, *out, host, total * sizeof *host);
    free(host);
    return rc;
}

static int take_bias(struct load *l, bool has, const char *pattern, uint32_t n, uint32_t layer,
                     float **out) {
    return has ? take_floats(l, &pattern, &n, 1, layer, ".bias", out) : 0;
}

/* The gains of a norm, as they are multiplied in. */
static int take_gains(struct load *l, const char *pattern, uint32_t n, uint32_t layer,
                      float **out) {
    return pattern ? take_floats(l, &pattern, &n, 1, layer, ".weight", out) : 0;
}

static int take_norm(struct load *l, const char *pattern, uint32_t layer,
                     struct weights_norm *out) {
    if (!pattern) return 0;
    int rc = take_gains(l, pattern, l->c->dim, layer, &out->gamma);
    if (rc == 0 && l->c->arch->norm == OPS_LAYERNORM)
        rc = take_floats(l, &pattern, &l->c->dim, 1, layer, ".bias", &out->beta);
    return rc;
}

/* A matrix to be packed: in the file, or made of what is there. */
struct source {
    const struct tensor *t; /* NULL: quantized in the file */
    enum dtype dtype;       /* of data, which is a struct quant for W8 and W4 */
    const void *data;
    float *wide; /* NULL: not made float32 */
    struct quantized quantized;
};

/* A matrix that the file has quantized, as it is or widened. */
static int use_stored(struct load *l, const char *name, struct source *s) {
    l->w->parameters += (uint64_t)s->quantized.n * s->quantized.k;
    s->dtype = s->quantized.dtype;
    s->data = &s->quantized.quant;
    if (!l->widen) return 0;
    size_t k = s->quantized.k;
    s->dtype = DTYPE_F32;
    s->data = s->wide = malloc(s->quantized.n * k * sizeof *s->wide);
    if (!s->wide)
        return err_set(l->err, l->err_bytes, -ENOMEM, "no memory to widen tensor %s", name);
    for (uint32_t row = 0; row < s->quantized.n; row++)
        quantized_row_f32(s->wide + row * k, &s->quantized, row);
    return 0;
}

/* Quantizes a matrix of floats as the recipe has it. */
static int quantize_source(struct load *l, const char *pattern, uint32_t n, uint32_t k,
                           struct source *s) {
    struct quantize_as as = stored_recipe(l->c, l->want, pattern);
    if (!as.group) return 0;
    int rc = quantize_matrix(&s->quantized, n, k, s->data, s->dtype, as, NULL, l->ops->threads);
    if (rc != 0)
        return err_set(l->err, l->err_bytes, rc, "no memory to quantize tensor %s", s->t->name);
    s->dtype = as.dtype;
    s->data = &s->quantized.quant;
    return 0;
}

/* What a file says that it is decides its numerics_id, so each matrix has to be of that kind; 1
 * when it is. */
static int check_recipe(const struct load *l, const char *pattern, const char *name,
                        const struct quantized *q) {
    struct quantize_as as = stored_recipe(l->c, l->stored, pattern);
    char is[STORED_AS_CHARS], asked[STORED_AS_CHARS] = "as it was";
    if (as.group == q->quant.group && as.dtype == q->dtype) return 1;
    stored_as_text((struct quantize_as){q->dtype, q->quant.group}, is);
    if (as.group) stored_as_text(as, asked);
    return err_set(l->err, l->err_bytes, ERR_FIELD,
                   "%s: __metadata__: %s is %s, but a %s model has it %s: quantize the model again",
                   safetensors_where(l->st), name, is, stored_type_name(l->stored), asked);
}

/* Matrix `pattern`; with_values NULL: its own, else those of another of the same shape. */
static int find_matrix(struct load *l, const char *pattern, const char *with_values, uint32_t layer,
                       uint32_t n, uint32_t k, struct source *s) {
    char name[256];
    *s = (struct source){0};
    if (l->c->quantized &&
        arch_tensor_name(name, sizeof name, l->prefix, pattern, layer, ".weight")) {
        int rc = stored_find(&s->quantized, l->st, name, n, k, l->err, l->err_bytes);
        if (rc > 0) rc = check_recipe(l, pattern, name, &s->quantized);
        if (rc != 0) return rc < 0 ? rc : use_stored(l, name, s);
    }
    int rc = need(l, with_values ? with_values : pattern, layer, ".weight", n, k, &s->t, &s->dtype);
    if (rc != 0) return rc;
    s->data = s->t->data;
    if (s->dtype == DTYPE_F8E4M3) {
        rc = tensor_widen(&s->wide, l->st, s->t, l->c->fp8_block, l->err, l->err_bytes);
        s->dtype = DTYPE_F32;
        s->data = s->wide;
    }
    return rc == 0 && dtype_quantized(l->want) ? quantize_source(l, pattern, n, k, s) : rc;
}

/* What it is packed as. */
static enum dtype packed_as(const struct load *l, const struct source *s) {
    if (dtype_quantized(s->dtype)) return s->dtype;
    return dtype_quantized(l->want) ? DTYPE_F32 : l->want;
}

/* Done with a source: what was made goes, unless the packed weight borrows it, and so does the
 * memory of what was read. */
static int drop_source(struct load *l, struct source *s, const struct weight *packed, int rc) {
    if (packed->owned && s->t) safetensors_release(s->t);
    quantized_fini(&s->quantized);
    if (!s->wide) return rc;
    if (packed->data != s->wide) {
        free(s->wide);
        return rc;
    }
    float **grown = realloc(l->w->kept, (l->w->n_kept + 1) * sizeof *grown);
    if (grown) {
        l->w->kept = grown;
        grown[l->w->n_kept++] = s->wide;
        return rc;
    }
    free(s->wide);
    return no_memory(l, packed->bytes);
}

static int take_matrix_of(struct load *l, const char *pattern, const char *with_values,
                          uint32_t layer, uint32_t n, uint32_t k, struct weight *out) {
    struct source s;
    if (l->packed) return packed_next(l->packed, l->ops, n, k, false, out, l->err, l->err_bytes);
    int rc = find_matrix(l, pattern, with_values, layer, n, k, &s);
    if (rc == 0)
        rc = l->ops->weight_pack(l->ops, out, n, k, s.data, s.dtype, packed_as(l, &s), l->err,
                                 l->err_bytes);
    return drop_source(l, &s, out, rc);
}

static int take_matrix(struct load *l, const char *pattern, uint32_t layer, uint32_t n, uint32_t k,
                       struct weight *out) {
    return take_matrix_of(l, pattern, NULL, layer, n, k, out);
}

static int check_alike(struct load *l, const struct source *a, const char *a_name,
                       const struct source *b, const char *b_name) {
    bool quantized = dtype_quantized(a->dtype);
    if (a->dtype == b->dtype &&
        (!quantized || a->quantized.quant.group == b->quantized.quant.group))
        return 0;
    return err_set(l->err, l->err_bytes, -ENOTSUP,
                   "%s: tensors %s and %s are of different types: they must agree",
                   safetensors_where(l->st), a_name, b_name);
}

/* Several matrices over the same input, in one packed weight. */
static int take_matrices(struct load *l, const char *const *pattern, const uint32_t *n,
                         uint32_t parts, uint32_t layer, bool pair, struct weight *out) {
    struct source s[3] = {0};
    const void *data[3];
    uint32_t rows = 0;
    char first[256] = "", name[256] = "";
    int rc = 0;
    for (uint32_t i = 0; i < parts; i++) rows += n[i];
    if (l->packed)
        return packed_next(l->packed, l->ops, pair ? n[0] : rows, l->c->dim, pair, out, l->err,
                           l->err_bytes);
    arch_tensor_name(first, sizeof first, l->prefix, pattern[0], layer, ".weight");
    for (uint32_t i = 0; rc == 0 && i < parts; i++) {
        rc = find_matrix(l, pattern[i], NULL, layer, n[i], l->c->dim, &s[i]);
        data[i] = s[i].data;
        arch_tensor_name(name, sizeof name, l->prefix, pattern[i], layer, ".weight");
        if (rc == 0) rc = check_alike(l, &s[i], name, &s[0], first);
    }
    enum dtype want = packed_as(l, &s[0]);
    if (rc == 0 && pair)
        rc = l->ops->weight_pack_pair(l->ops, out, n[0], l->c->dim, data[0], data[1], s[0].dtype,
                                      want, l->err, l->err_bytes);
    else if (rc == 0)
        rc = l->ops->weight_pack_stack(l->ops, out, parts, n, l->c->dim, data, s[0].dtype, want,
                                       l->err, l->err_bytes);
    for (uint32_t i = 0; i < parts; i++) rc = drop_source(l, &s[i], out, rc);
    return rc;
}

static int take_table(struct load *l, const char *pattern, uint32_t rows, void **out) {
    if (!pattern) return 0;
    const struct tensor *t;
    enum dtype dtype;
    int rc = need(l, pattern, 0, ".weight", rows, l->c->dim, &t, &dtype);
    if (rc != 0) return rc;
    if (pattern == l->c->arch->names.embed) l->w->embed_dtype = dtype;
    if (dtype != l->w->embed_dtype || dtype == DTYPE_F8E4M3)
        return err_set(l->err, l->err_bytes, -ENOTSUP,
                       "%s: tensor %s is %s: the embedding tables must agree and be no fp8",
                       safetensors_path(l->st, t), t->name, t->type);
    if (l->ops->host) {
        l->w->borrows_tables = true;
        *out = (void *)(uintptr_t)t->data;
        safetensors_release(t);
        return 0;
    }
    *out = l->ops->alloc(l->ops, t->bytes);
    if (!*out) return no_memory(l, t->bytes);
    l->ops->upload(l->ops, *out, t->data, t->bytes);
    return 0;
}

static int take_layer(struct load *l, uint32_t i, struct weights_layer *w) {
    const struct config *c = l->c;
    const struct arch_names *names = &c->arch->names;
    uint32_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    const char *qkv[] = {names->q, names->k, names->v}, *gate_up[] = {names->gate, names->up};
    uint32_t qkv_n[] = {q, kv, kv}, gate_up_n[] = {c->inner, c->inner};
    int rc;
    if ((rc = take_norm(l, names->attn_in, i, &w->attn_in)) != 0 ||
        (rc = take_norm(l, names->attn_out, i, &w->attn_out)) != 0 ||
        (rc = take_norm(l, names->mlp_in, i, &w->mlp_in)) != 0 ||
        (rc = take_norm(l, names->mlp_out, i, &w->mlp_out)) != 0 ||
        (rc = take_gains(l, names->q_norm, c->head_dim, i, &w->q_gamma)) != 0 ||
        (rc = take_gains(l, names->k_norm, c->head_dim, i, &w->k_gamma)) != 0 ||
        (rc = take_matrices(l, qkv, qkv_n, 3, i, false, &w->qkv)) != 0 ||
        (rc = take_matrix(l, names->o, i, c->dim, q, &w->o)) != 0 ||
        (rc = take_bias(l, c->o_bias, names->o, c->dim, i, &w->o_bias)) != 0)
        return rc;
    if (c->qkv_bias && (rc = take_floats(l, qkv, qkv_n, 3, i, ".bias", &w->qkv_bias)) != 0)
        return rc;
    if (c->arch->gated)
        rc = take_matrices(l, gate_up, gate_up_n, 2, i, true, &w->up);
    else
        rc = take_matrix(l, names->up, i, c->inner, c->dim, &w->up);
    if (rc != 0 || (rc = take_bias(l, c->mlp_bias, names->up, c->inner, i, &w->up_bias)) != 0 ||
        (rc = take_matrix(l, names->down, i, c->dim, c->inner, &w->down)) != 0)
        return rc;
    return take_bias(l, c->mlp_bias, names->down, c->dim, i, &w->down_bias);
}

/* The head of an encoder that sorts texts or their tokens. */
static int take_classes(struct load *l) {
    const struct arch_names *names = &l->c->arch->names;
    struct weights *w = l->w;
    uint32_t dim = l->c->dim;
    int rc = 0;
    if (names->pooler && ((rc = take_matrix(l, names->pooler, 0, dim, dim, &w->pooler)) != 0 ||
                          (rc = take_bias(l, true, names->pooler, dim, 0, &w->pooler_bias)) != 0))
        return rc;
    if ((rc = take_matrix(l, names->classes, 0, l->c->labels, dim, &w->classes)) != 0) return rc;
    return take_bias(l, true, names->classes, l->c->labels, 0, &w->classes_bias);
}

/* The first prefix under which the embedding is found; the first of all when none fits. */
const char *weights_prefix(const struct arch *a, const struct safetensors *st) {
    char name[256];
    for (uint32_t i = 0; a->prefix[i]; i++)
        if (arch_tensor_name(name, sizeof name, a->prefix[i], a->names.embed, 0, ".weight") &&
            safetensors_find(st, name))
            return a->prefix[i];
    return a->prefix[0];
}

/* A tied head has the values of the embedding; quantized it may be stored beside it. */
static int take_head(struct load *l) {
    const struct arch_names *names = &l->c->arch->names;
    uint64_t before = l->w->parameters;
    int rc = take_matrix_of(l, names->head, l->c->tied ? names->embed : NULL, 0, l->c->vocab,
                            l->c->dim, &l->w->head);
    if (l->c->tied) l->w->parameters = before; /* counted with the embedding */
    return rc;
}

int weights_load(struct weights *w, struct ops *ops, const struct weights_source *from,
                 const struct config *c, char *err, size_t err_bytes) {
    const struct arch_names *names = &c->arch->names;
    struct load l = {.w = w,
                     .ops = ops,
                     .st = from->tensors,
                     .c = c,
                     .want = from->want,
                     .stored = from->stored,
                     .widen = from->widen,
                     .packed = from->packed,
                     .prefix = weights_prefix(c->arch, from->tensors),
                     .err = err,
                     .err_bytes = err_bytes};
    *w = (struct weights){.ops = ops, .layers = c->layers};
    int rc = -ENOMEM;
    w->layer = calloc(c->layers, sizeof *w->layer);
    if (!w->layer)
        rc = no_memory(&l, c->layers * sizeof *w->layer);
    else if ((rc = take_table(&l, names->embed, c->vocab, &w->embed)) == 0 &&
             (rc = take_table(&l, names->positions, c->positions, &w->positions)) == 0 &&
             (rc = take_table(&l, names->types, c->types, &w->types)) == 0 &&
             (rc = take_norm(&l, names->embed_norm, 0, &w->embed_norm)) == 0)
        rc = take_norm(&l, names->final_norm, 0, &w->final_norm);
    for (uint32_t i = 0; rc == 0 && i < c->layers; i++) rc = take_layer(&l, i, &w->layer[i]);
    if (rc == 0 && names->head) rc = take_head(&l);
    if (rc == 0 && names->classes) rc = take_classes(&l);
    if (rc == 0 && l.packed) w->parameters = packed_parameters(l.packed);
    if (rc != 0) weights_fini(w);
    return rc;
}

uint32_t weights_list(const struct weights *w, const struct weight **out) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < w->layers; i++) {
        const struct weights_layer *l = &w->layer[i];
        const struct weight *of_layer[] = {&l->qkv, &l->o, &l->up, &l->down};
        for (uint32_t k = 0; k < 4; k++) out[n++] = of_layer[k];
    }
    const struct weight *heads[] = {&w->head, &w->pooler, &w->classes};
    for (uint32_t k = 0; k < 3; k++)
        if (heads[k]->n) out[n++] = heads[k];
    return n;
}

static void drop(struct ops *ops, void *buffer) {
    if (buffer) ops->free(ops, buffer);
}

static void drop_norm(struct ops *ops, struct weights_norm *n) {
    drop(ops, n->gamma);
    drop(ops, n->beta);
}

void weights_fini(struct weights *w) {
    struct ops *ops = w->ops;
    if (!ops) return;
    for (uint32_t i = 0; w->layer && i < w->layers; i++) {
        struct weights_layer *l = &w->layer[i];
        struct weight *matrices[] = {&l->qkv, &l->o, &l->up, &l->down};
        float *vectors[] = {l->qkv_bias,  l->o_bias,  l->up_bias,
                            l->down_bias, l->q_gamma, l->k_gamma};
        struct weights_norm *norms[] = {&l->attn_in, &l->attn_out, &l->mlp_in, &l->mlp_out};
        for (uint32_t k = 0; k < 4; k++) {
            if (matrices[k]->n) ops->weight_free(ops, matrices[k]);
            drop_norm(ops, norms[k]);
        }
        for (uint32_t k = 0; k < sizeof vectors / sizeof *vectors; k++) drop(ops, vectors[k]);
    }
    struct weight *heads[] = {&w->head, &w->pooler, &w->classes};
    for (uint32_t i = 0; i < 3; i++)
        if (heads[i]->n) ops->weight_free(ops, heads[i]);
    drop(ops, w->pooler_bias);
    drop(ops, w->classes_bias);
    for (uint32_t i = 0; i < w->n_kept; i++) free(w->kept[i]);
    free(w->kept);
    void *tables[] = {w->embed, w->positions, w->types};
    for (uint32_t i = 0; i < 3 && !w->borrows_tables; i++) drop(ops, tables[i]);
    drop_norm(ops, &w->embed_norm);
    drop_norm(ops, &w->final_norm);
    free(w->layer);
    *w = (struct weights){0};
}
