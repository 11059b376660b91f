#include "workers/infer/model.h"

#include <assert.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/log.h"
#include "schemas/model_dir.h"
#include "workers/infer/adapter.h"
#include "workers/infer/config.h"
#include "workers/infer/decoder.h"
#include "workers/infer/encoder.h"
#include "workers/infer/labels.h"
#include "workers/infer/manifest.h"
#include "workers/infer/packed.h"
#include "workers/infer/safetensors.h"
#include "workers/infer/stored.h"
#include "workers/infer/weights.h"

#define ROWS_MAX_DEFAULT 2048u

struct model {
    struct config config;
    struct safetensors *tensors; /* mapped as long as packed weights may borrow from it */
    struct packed *packed;       /* as long as weights borrow from it; NULL: packed by ourselves */
    struct weights weights;
    struct encoder encoder; /* one of the two is in use, by config.arch->kind */
    struct decoder decoder;
    struct model_info info;
    struct labels labels;
    struct adapter **adapter; /* [n_adapters] */
    uint32_t n_adapters;
    char *dir;
    char numerics_id[96];
};

static void fill_info(struct model *m) {
    const struct config *c = &m->config;
    bool decoder = c->arch->kind == MODEL_DECODER;
    uint64_t weight_bytes = m->info.weight_bytes;
    m->info = (struct model_info){.kind = c->arch->kind,
                                  .architecture = c->arch->name,
                                  .vocab = c->vocab,
                                  .dim = c->dim,
                                  .layers = c->layers,
                                  .heads = c->heads,
                                  .kv_heads = c->kv_heads,
                                  .head_dim = c->head_dim,
                                  .context = decoder ? m->decoder.context : c->context,
                                  .text_context = c->text_context,
                                  .labels = c->labels,
                                  .labels_of_tokens = c->arch->of_tokens,
                                  .kv_tokens = m->decoder.pool.pages * KVPOOL_PAGE_TOKENS,
                                  .kv_page_tokens = KVPOOL_PAGE_TOKENS,
                                  .kv_bytes = m->decoder.pool.pages * m->decoder.pool.page_bytes,
                                  .seqs_max = decoder ? m->decoder.forward.seqs_max : 0,
                                  .parameters = m->weights.parameters,
                                  .weight_bytes = weight_bytes,
                                  .cached = m->packed != NULL,
                                  .n_eos = c->n_eos,
                                  .bos = c->bos};
    _Static_assert(sizeof m->info.eos == sizeof c->eos, "one limit on the ids that end a text");
    memcpy(m->info.eos, c->eos, sizeof c->eos);
}

bool model_weights_parse(const char *text, struct model_config *c) {
    bool floats = strcmp(text, "f32") == 0 || strcmp(text, "bf16") == 0;
    if (!floats && !stored_type_parse(text, &c->weights)) return false;
    if (floats) c->weights = *text == 'f' ? DTYPE_F32 : DTYPE_BF16;
    c->widen = floats;
    return true;
}

/* Loads the weights, from the cache where it has them, and keeps them there where it has not. */
static int load_weights(struct model *m, struct ops *ops, const struct weights_source *from,
                        bool cache, char *err, size_t err_bytes) {
    struct weights_source source = *from;
    char key[HASH_HEX_BYTES], root[MODEL_DIR_BYTES], what[64], why[512], quoted[600];
    int rc = 0;
    if (cache) {
        snprintf(what, sizeof what, "%s%s recipe %d", stored_type_name(from->want),
                 from->widen ? " widened" : "", STORED_RECIPE);
        model_dir_root(root);
        rc = packed_key(m->dir, m->tensors, ops->layout, what, key, err, err_bytes);
        if (rc == 0) source.packed = m->packed = packed_open(root, key);
    }
    if (rc == 0) rc = weights_load(&m->weights, ops, &source, &m->config, err, err_bytes);
    if (rc != 0) return rc;
    const struct weight **list = malloc(weights_most(&m->weights) * sizeof *list);
    uint32_t n = list ? weights_list(&m->weights, list) : 0;
    for (uint32_t i = 0; i < n; i++) m->info.weight_bytes += list[i]->bytes;
    if (cache && !m->packed && m->info.weight_bytes >= PACKED_BYTES_LEAST &&
        packed_save(root, key, list, n, m->weights.parameters, why, sizeof why) < 0)
        log_warn("weights_not_cached", "reason=%s", log_quote(quoted, sizeof quoted, why));
    free(list);
    return 0;
}

/* "+w-f32", "+w-w4a8.1+kv-bf16": weights quantized by another recipe give other bits. */
static void name_numerics(struct model *m, const struct ops *ops, const struct weights_source *w,
                          enum dtype kv) {
    enum dtype type = m->config.quantized && !w->widen ? w->stored : w->want;
    bool floats = m->config.arch->kind == MODEL_ENCODER || kv == DTYPE_F32;
    char recipe[16] = "";
    if (dtype_quantized(type)) snprintf(recipe, sizeof recipe, ".%d", STORED_RECIPE);
    snprintf(m->numerics_id, sizeof m->numerics_id, "%s+w-%s%s%s", ops->numerics_id,
             stored_type_name(type), recipe,
             floats           ? ""
             : kv == DTYPE_I8 ? "+kv-i8"
                              : "+kv-bf16");
}

void model_config_lean(struct model_config *c) {
    c->rows_max = 256;
    c->kv = DTYPE_I8;
    c->kv_bytes = 256u << 20;
}

int model_open(struct model **out, const char *dir, struct ops *ops,
               const struct model_config *config, char *err, size_t err_bytes) {
    struct model_config c = config ? *config : (struct model_config){0};
    uint32_t rows_max = c.rows_max ? c.rows_max : ROWS_MAX_DEFAULT;
    struct model *m = calloc(1, sizeof *m);
    if (c.kv == DTYPE_F32 && c.weights != DTYPE_F32) c.kv = DTYPE_BF16;
    *out = NULL;
    if (!m) return err_set(err, err_bytes, -ENOMEM, "no memory for a model");
    m->dir = strdup(dir);
    int rc = m->dir ? 0 : err_set(err, err_bytes, -ENOMEM, "no memory for a model");
    if (rc == 0) rc = manifest_check_dir(dir, err, err_bytes);
    if (rc == 0) rc = config_load(&m->config, dir, err, err_bytes);
    if (rc == 0 && m->config.labels)
        rc = labels_read(&m->labels, dir, m->config.labels, err, err_bytes);
    if (rc == 0) rc = safetensors_open(&m->tensors, dir, err, err_bytes);
    struct weights_source from = {.tensors = m->tensors, .want = c.weights, .widen = c.widen};
    if (rc == 0 && m->config.quantized) rc = stored_check(m->tensors, &from.stored, err, err_bytes);
    if (m->config.quantized && !c.widen && c.kv == DTYPE_F32) c.kv = DTYPE_BF16;
    if (rc == 0 && m->config.quantized && dtype_quantized(from.want) && from.want != from.stored)
        rc = err_set(err, err_bytes, -EINVAL, "%s: is %s; make %s of the model it was made of", dir,
                     stored_type_name(from.stored), stored_type_name(from.want));
    assert(!from.widen || !dtype_quantized(from.want));
    if (rc == 0) rc = load_weights(m, ops, &from, c.cache, err, err_bytes);
    if (rc == 0 && m->config.arch->kind == MODEL_ENCODER)
        rc = encoder_init(&m->encoder, ops, &m->config, &m->weights, rows_max, err, err_bytes);
    else if (rc == 0)
        rc = decoder_init(&m->decoder, ops, &m->config, &m->weights, rows_max, c.kv_tokens,
                          c.kv_bytes, c.kv, err, err_bytes);
    if (rc != 0) {
        model_close(m);
        return rc;
    }
    name_numerics(m, ops, &from, c.kv);
    fill_info(m);
    *out = m;
    return 0;
}

void model_close(struct model *m) {
    if (!m) return;
    for (uint32_t i = 0; i < m->n_adapters; i++) adapter_close(m->adapter[i]);
    free(m->adapter);
    free(m->dir);
    encoder_fini(&m->encoder);
    decoder_fini(&m->decoder);
    weights_fini(&m->weights);
    packed_close(m->packed);
    safetensors_close(m->tensors);
    labels_fini(&m->labels);
    free(m);
}

const struct model_info *model_info(const struct model *m) {
    return &m->info;
}

const char *model_numerics_id(const struct model *m) {
    return m->numerics_id;
}

int model_check_ids(const struct model *m, uint32_t n, const uint32_t *ids, char *err,
                    size_t err_bytes) {
    for (uint32_t i = 0; i < n; i++)
        if (ids[i] >= m->config.vocab)
            return err_set(err, err_bytes, ERR_FIELD,
                           "token %u has the id %u: the model's vocabulary has %u", i, ids[i],
                           m->config.vocab);
    return 0;
}

static int need_kind(const struct model *m, enum model_kind kind, char *err, size_t err_bytes) {
    if (m->config.arch->kind == kind) return 0;
    return err_set(err, err_bytes, -EINVAL, "%s is %s: it cannot %s", m->config.arch->name,
                   kind == MODEL_ENCODER ? "a decoder" : "an encoder",
                   kind == MODEL_ENCODER ? "embed a text" : "generate");
}

/* The name that a directory or an identifier ends with. */
static struct bytes last_part(const char *path) {
    size_t end = strlen(path), at;
    while (end > 0 && path[end - 1] == '/') end--;
    for (at = end; at > 0 && path[at - 1] != '/';) at--;
    return bytes_of(path + at, end - at);
}

static void note_base(const struct model *m, const struct adapter *a) {
    char of[600], here[PATH_MAX + 8], adapter[PATH_MAX + 8];
    if (!*a->base || bytes_eq(last_part(a->base), last_part(m->dir))) return;
    log_warn("adapter_of_another_model", "adapter=%s says_of=%s model=%s",
             log_quote(adapter, sizeof adapter, a->dir), log_quote(of, sizeof of, a->base),
             log_quote(here, sizeof here, m->dir));
}

int model_adapter(struct model *m, const char *dir, const struct adapter **out, char *err,
                  size_t err_bytes) {
    struct forward *f =
        m->config.arch->kind == MODEL_ENCODER ? &m->encoder.forward : &m->decoder.forward;
    struct adapter *a = NULL, **grown = NULL;
    *out = NULL;
    for (uint32_t i = 0; i < m->n_adapters; i++)
        if (strcmp(m->adapter[i]->dir, dir) == 0) {
            *out = m->adapter[i];
            return 0;
        }
    int rc = adapter_open(&a, m->weights.ops, &m->config, dir, err, err_bytes);
    if (rc == 0) rc = forward_adapt(f, a, err, err_bytes);
    if (rc == 0) {
        grown = realloc(m->adapter, (m->n_adapters + 1) * sizeof *grown);
        if (!grown) rc = err_set(err, err_bytes, -ENOMEM, "no memory for an adapter");
    }
    if (rc != 0) {
        adapter_close(a);
        return rc;
    }
    m->adapter = grown;
    grown[m->n_adapters++] = a;
    note_base(m, a);
    *out = a;
    return 0;
}

int model_embed(struct model *m, uint32_t n_seq, const uint32_t *begin, const uint32_t *ids,
                float *out, char *err, size_t err_bytes) {
    return model_embed_with(m, n_seq, begin, ids, NULL, out, err, err_bytes);
}

int model_embed_with(struct model *m, uint32_t n_seq, const uint32_t *begin, const uint32_t *ids,
                     const struct adapter *const *adapter, float *out, char *err,
                     size_t err_bytes) {
    int rc = need_kind(m, MODEL_ENCODER, err, err_bytes);
    if (rc == 0 && n_seq > 0) rc = model_check_ids(m, begin[n_seq], ids, err, err_bytes);
    return rc ? rc : encoder_embed(&m->encoder, n_seq, begin, ids, adapter, out, err, err_bytes);
}

const char *model_label(const struct model *m, uint32_t i) {
    assert(i < m->labels.n);
    return m->labels.name[i];
}

int model_classify(struct model *m, uint32_t n_seq, const uint32_t *begin, const uint32_t *ids,
                   float *out, char *err, size_t err_bytes) {
    int rc = need_kind(m, MODEL_ENCODER, err, err_bytes);
    if (rc == 0 && m->config.labels == 0)
        rc = err_set(err, err_bytes, -EINVAL, "%s has no classes", m->config.arch->name);
    if (rc == 0 && n_seq > 0) rc = model_check_ids(m, begin[n_seq], ids, err, err_bytes);
    return rc ? rc : encoder_classify(&m->encoder, n_seq, begin, ids, out, err, err_bytes);
}

int model_hidden(struct model *m, uint32_t rows, const uint32_t *ids, float *out, char *err,
                 size_t err_bytes) {
    int rc = need_kind(m, MODEL_ENCODER, err, err_bytes);
    if (rc == 0) rc = model_check_ids(m, rows, ids, err, err_bytes);
    return rc ? rc : encoder_hidden(&m->encoder, rows, ids, out, err, err_bytes);
}

struct seq *seq_new(struct model *m) {
    assert(m->config.arch->kind == MODEL_DECODER);
    return decoder_seq_new(&m->decoder);
}

void seq_free(struct seq *s) {
    decoder_seq_free(s);
}

void seq_adapt(struct seq *s, const struct adapter *a) {
    assert(s->len == 0);
    s->adapter = a;
}

uint32_t seq_len(const struct seq *s) {
    return s->len;
}

uint32_t model_kv_free(const struct model *m) {
    return m->decoder.pool.free_n * KVPOOL_PAGE_TOKENS;
}

int model_step(struct model *m, uint32_t n, struct seq **seqs, const uint32_t *begin,
               const uint32_t *ids, const float **logits, char *err, size_t err_bytes) {
    return model_step_tails(m, n, seqs, begin, ids, NULL, logits, err, err_bytes);
}

int model_step_tails(struct model *m, uint32_t n, struct seq **seqs, const uint32_t *begin,
                     const uint32_t *ids, const uint32_t *tail, const float **logits, char *err,
                     size_t err_bytes) {
    int rc = need_kind(m, MODEL_DECODER, err, err_bytes);
    if (rc == 0 && n > 0) rc = model_check_ids(m, begin[n], ids, err, err_bytes);
    if (rc == 0) rc = decoder_step(&m->decoder, n, seqs, begin, ids, tail, err, err_bytes);
    if (logits) *logits = rc == 0 ? m->decoder.logits : NULL;
    return rc;
}

uint32_t seq_share(struct seq *to, const struct seq *from, uint32_t tokens) {
    return decoder_share(to, from, tokens);
}

void seq_cut(struct seq *s, uint32_t len) {
    decoder_cut(s, len);
}

void model_sample(struct model *m, uint32_t n, const struct sample_row *row, uint32_t *tokens,
                  float *logprob, struct sample_top *top) {
    model_sample_at(m, n, NULL, row, tokens, logprob, top);
}

void model_sample_at(struct model *m, uint32_t n, const uint32_t *at, const struct sample_row *row,
                     uint32_t *tokens, float *logprob, struct sample_top *top) {
    assert(m->config.arch->kind == MODEL_DECODER);
    decoder_sample(&m->decoder, n, at, row, tokens, logprob, top);
}
