#include "workers/infer/adapter.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "kernels/source.h"
#include "workers/infer/adapter_config.h"
#include "workers/infer/safetensors.h"
#include "workers/infer/tensor_values.h"

#define PARTS_MAX 3u
#define WEIGHTS_NAME "adapter_model.safetensors"

/* One load: what every step needs. */
struct load {
    const char *dir;
    struct adapter *a;
    const struct config *c;
    struct adapter_config config;
    struct safetensors *st;
    bool *used; /* [tensors of st] */
    char *err;
    size_t err_bytes;
};
/* One matrix of a block: its two factors, or none. */
struct part {
    const char *pattern;
    uint32_t n, rank;
    const struct tensor *a, *b;
    enum dtype a_type, b_type;
    float scale;
};

static int no_memory(struct load *l) {
    return err_set(l->err, l->err_bytes, -ENOMEM, "no memory for the adapter of %s",
                   l->config.path);
}

/* The adapter is sound, and of another model, or its configuration is that of another. */
__attribute__((format(printf, 3, 4))) static int misfit(struct load *l, int rc, const char *format,
                                                        ...) {
    char why[600];
    va_list args;
    va_start(args, format);
    err_vset(why, sizeof why, rc, format, args);
    va_end(args);
    const char *base = l->config.base && *l->config.base ? l->config.base : "an unnamed model";
    return err_set(l->err, l->err_bytes, rc,
                   "%s: is an adapter of %.200s and does not fit this %s: " WEIGHTS_NAME ": %s",
                   l->dir, base, l->c->arch->name, why);
}

/* A factor by name; *out NULL when it is not there. */
static void find(struct load *l, const char *module, const char *factor,
                 const struct tensor **out) {
    char name[320];
    snprintf(name, sizeof name, "base_model.model.%s.%s.weight", module, factor);
    *out = safetensors_find(l->st, name);
}

static int check_factor(struct load *l, const struct tensor *t, uint64_t d0, uint64_t d1,
                        enum dtype *dtype) {
    const char *path = safetensors_path(l->st, t);
    for (uint32_t i = 0; i < safetensors_count(l->st); i++)
        if (safetensors_at(l->st, i) == t) l->used[i] = true;
    if (t->rank != 2 || t->shape[0] != d0 || t->shape[1] != d1)
        return misfit(l, ERR_FIELD,
                      "tensor %s: shape [%" PRIu64 ", %" PRIu64 "], the model and"
                      " adapter_config.json ask for [%" PRIu64 ", %" PRIu64 "]",
                      t->name, t->rank > 0 ? t->shape[0] : 0, t->rank > 1 ? t->shape[1] : 0, d0,
                      d1);
    if (tensor_dtype(t, dtype) != 0 || *dtype == DTYPE_F8E4M3)
        return err_set(l->err, l->err_bytes, -ENOTSUP,
                       "%s: tensor %s: dtype %s; adapters are F32, F16 or BF16", path, t->name,
                       t->type);
    uint64_t bad = tensor_first_not_finite(t, *dtype);
    if (bad == t->elements) return 0;
    return err_set(l->err, l->err_bytes, ERR_CORRUPT,
                   "%s: tensor %s: element %" PRIu64 " is a NaN or an infinity", path, t->name,
                   bad);
}

/* The factors of one matrix, under any prefix of the family. */
static int find_part(struct load *l, uint32_t layer, uint32_t k, struct part *p) {
    const struct arch *arch = l->c->arch;
    char module[256], wanted[256] = "";
    int targeted = 0, rc;
    for (uint32_t i = 0; arch->prefix[i] && !p->a && !p->b; i++) {
        if (!arch_tensor_name(module, sizeof module, arch->prefix[i], p->pattern, layer, ""))
            return err_set(l->err, l->err_bytes, ERR_LIMIT, "a tensor's name is too long");
        find(l, module, "lora_A", &p->a);
        find(l, module, "lora_B", &p->b);
        targeted = adapter_config_targets(&l->config, module, layer, l->err, l->err_bytes);
        if (targeted < 0) return targeted;
        if (targeted) memcpy(wanted, module, sizeof wanted);
    }
    if (!*wanted && !p->a && !p->b) return 0;
    if (!targeted && (p->a || p->b))
        return err_set(l->err, l->err_bytes, ERR_FIELD,
                       "%s: tensor %s: of a matrix that target_modules of %s does not name",
                       safetensors_where(l->st), p->a ? p->a->name : p->b->name, l->config.path);
    if (!p->a || !p->b)
        return misfit(l, ERR_FIELD,
                      "tensor base_model.model.%s.%s.weight is missing, and target_modules of"
                      " adapter_config.json names its matrix",
                      p->a || p->b ? module : wanted, p->a ? "lora_B" : "lora_A");
    rc = adapter_config_scale(&l->config, module, &p->rank, &p->scale, l->err, l->err_bytes);
    if (rc == 0) rc = check_factor(l, p->a, p->rank, k, &p->a_type);
    if (rc == 0) rc = check_factor(l, p->b, p->n, p->rank, &p->b_type);
    return rc;
}

/* Packs host [n][k] and takes it. */
static int pack(struct load *l, struct weight *w, uint32_t n, uint32_t k, float *host) {
    struct adapter *a = l->a;
    int rc = a->ops->weight_pack(a->ops, w, n, k, host, DTYPE_F32, DTYPE_F32, l->err, l->err_bytes);
    float **grown = NULL;
    if (rc == 0 && w->data == host) {
        grown = realloc(a->kept, (a->n_kept + 1) * sizeof *grown);
        if (!grown) rc = no_memory(l);
    }
    if (!grown) {
        if (rc != 0 && w->n) a->ops->weight_free(a->ops, w);
        free(host);
        return rc;
    }
    a->kept = grown;
    grown[a->n_kept++] = host;
    return 0;
}

/* B of one matrix times its scale, rows `stride` apart; false when that overflows. */
static bool scale_b(struct load *l, const struct part *p, float *to, uint32_t stride) {
    for (uint32_t r = 0; p->rank && r < p->n; r++, to += stride) {
        source_row_f32(to, p->b->data, p->b_type, r, p->rank);
        for (uint32_t j = 0; j < p->rank; j++) {
            to[j] *= p->scale;
            if (isfinite(to[j])) continue;
            err_set(l->err, l->err_bytes, ERR_FIELD,
                    "%s: tensor %s: too large for the scale %g that %s says",
                    safetensors_path(l->st, p->b), p->b->name, (double)p->scale, l->config.path);
            return false;
        }
    }
    return true;
}

/* A block of matrices over the same input of width k, as one pair. */
static int take_block(struct load *l, uint32_t layer, struct part *part, uint32_t parts, uint32_t k,
                      struct adapter_pair *out) {
    uint32_t rank = 0, n = 0, row = 0, column = 0;
    int rc;
    for (uint32_t i = 0; i < parts; i++) {
        if ((rc = find_part(l, layer, k, &part[i])) != 0) return rc;
        rank += part[i].rank;
        n += part[i].n;
    }
    if (rank == 0) return 0;
    float *a = calloc((size_t)rank * k, sizeof *a), *b = calloc((size_t)n * rank, sizeof *b);
    if (!a || !b) {
        free(a);
        free(b);
        return no_memory(l);
    }
    for (uint32_t i = 0; i < parts; i++, row += part[i - 1].n) {
        const struct part *p = &part[i];
        for (uint32_t r = 0; r < p->rank; r++)
            source_row_f32(a + (size_t)(column + r) * k, p->a->data, p->a_type, r, k);
        if (!scale_b(l, p, b + (size_t)row * rank + column, rank)) {
            free(a);
            free(b);
            return ERR_FIELD;
        }
        column += p->rank;
    }
    if (rank > l->a->rank_max) l->a->rank_max = rank;
    rc = pack(l, &out->a, rank, k, a);
    if (rc != 0)
        free(b);
    else
        rc = pack(l, &out->b, n, rank, b);
    return rc;
}

static int take_layer(struct load *l, uint32_t i) {
    const struct config *c = l->c;
    const struct arch_names *names = &c->arch->names;
    struct adapter_pair *to = l->a->layer[i];
    uint32_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    struct part qkv[] = {{names->q, .n = q}, {names->k, .n = kv}, {names->v, .n = kv}};
    struct part o[] = {{names->o, .n = c->dim}}, down[] = {{names->down, .n = c->dim}};
    struct part gated[] = {{names->gate, .n = c->inner}, {names->up, .n = c->inner}};
    struct part up[] = {{names->up, .n = c->inner}};
    bool pair = c->arch->gated;
    int rc;
    if ((rc = take_block(l, i, qkv, 3, c->dim, &to[ADAPTER_QKV])) != 0 ||
        (rc = take_block(l, i, o, 1, q, &to[ADAPTER_O])) != 0 ||
        (rc = take_block(l, i, pair ? gated : up, pair ? 2 : 1, c->dim, &to[ADAPTER_UP])) != 0)
        return rc;
    return take_block(l, i, down, 1, c->inner, &to[ADAPTER_DOWN]);
}

/* A tensor that no matrix took would be left out in silence. */
static int check_used(struct load *l) {
    bool any = false;
    for (uint32_t i = 0; i < safetensors_count(l->st); i++) {
        any |= l->used[i];
        if (!l->used[i])
            return misfit(l, -ENOTSUP,
                          "tensor %s: not of a matrix in its %u layers; adapters of"
                          " others are not supported",
                          safetensors_at(l->st, i)->name, l->c->layers);
    }
    if (any) return 0;
    return misfit(l, ERR_FIELD, "there is no tensor in it");
}

static int open_tensors(struct load *l, const char *dir) {
    char path[PATH_MAX], old[PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/" WEIGHTS_NAME, dir);
    if (n < 0 || (size_t)n >= sizeof path)
        return err_set(l->err, l->err_bytes, -ENAMETOOLONG, "%s: the path is too long", dir);
    snprintf(old, sizeof old, "%s/adapter_model.bin", dir);
    if (access(path, F_OK) != 0 && access(old, F_OK) == 0)
        return err_set(l->err, l->err_bytes, -ENOTSUP,
                       "%s: pickled weights are not read; write adapter_model.safetensors with"
                       " save_pretrained of peft",
                       old);
    return safetensors_open_file(&l->st, path, l->err, l->err_bytes);
}

int adapter_open(struct adapter **out, struct ops *ops, const struct config *c, const char *dir,
                 char *err, size_t err_bytes) {
    struct load l = {.dir = dir, .c = c, .err = err, .err_bytes = err_bytes};
    *out = NULL;
    int rc = adapter_config_load(&l.config, dir, err, err_bytes);
    if (rc != 0) return rc;
    rc = open_tensors(&l, dir);
    if (rc == 0) {
        l.a = calloc(1, sizeof *l.a);
        l.used = calloc((size_t)safetensors_count(l.st) + 1, sizeof *l.used);
        if (l.a) l.a->layer = calloc(c->layers, sizeof *l.a->layer);
        if (!l.a || !l.used || !l.a->layer) rc = no_memory(&l);
    }
    if (rc == 0) {
        l.a->ops = ops;
        l.a->layers = c->layers;
        snprintf(l.a->base, sizeof l.a->base, "%s", l.config.base ? l.config.base : "");
        snprintf(l.a->dir, sizeof l.a->dir, "%s", dir);
    }
    for (uint32_t i = 0; rc == 0 && i < c->layers; i++) rc = take_layer(&l, i);
    if (rc == 0) rc = check_used(&l);
    if (rc == 0)
        *out = l.a;
    else
        adapter_close(l.a);
    free(l.used);
    safetensors_close(l.st);
    adapter_config_fini(&l.config);
    return rc;
}

void adapter_close(struct adapter *a) {
    if (!a) return;
    for (uint32_t i = 0; i < a->layers; i++)
        for (uint32_t k = 0; k < ADAPTER_BLOCKS; k++) {
            struct adapter_pair *p = &a->layer[i][k];
            if (p->a.n) a->ops->weight_free(a->ops, &p->a);
            if (p->b.n) a->ops->weight_free(a->ops, &p->b);
        }
    for (uint32_t i = 0; i < a->n_kept; i++) free(a->kept[i]);
    free(a->kept);
    free(a->layer);
    free(a);
}
