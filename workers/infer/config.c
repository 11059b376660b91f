#include "workers/infer/config.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/json.h"

#define JSON_BYTES_MAX (4u * 1024u * 1024u)
#define LABELS_MAX 4096u

/* One JSON file of the directory, with what its messages need. */
struct file {
    const char *dir;
    char path[PATH_MAX];
    struct json *root;
    char *err;
    size_t err_bytes;
};

static int file_load(struct file *f, const char *name) {
    int n = snprintf(f->path, sizeof f->path, "%s/%s", f->dir, name);
    f->root = NULL;
    if (n < 0 || (size_t)n >= sizeof f->path)
        return err_set(f->err, f->err_bytes, -ENAMETOOLONG, "%s/%s: the path is too long", f->dir,
                       name);
    return json_load(&f->root, f->path, JSON_BYTES_MAX, f->err, f->err_bytes);
}

/* 1: loaded; 0: there is no such file. */
static int file_load_optional(struct file *f, const char *name) {
    int n = snprintf(f->path, sizeof f->path, "%s/%s", f->dir, name);
    if (n > 0 && (size_t)n < sizeof f->path && access(f->path, F_OK) != 0) return 0;
    int rc = file_load(f, name);
    return rc ? rc : 1;
}

static int need_u32(const struct file *f, const char *key, int64_t min, int64_t max,
                    uint32_t *out) {
    int64_t v = 0;
    int rc = json_need_int(f->root, f->path, key, min, max, &v, f->err, f->err_bytes);
    *out = (uint32_t)v;
    return rc;
}

/* As need_u32, but absent and null leave *out as it is. */
static int want_u32(const struct file *f, const char *key, int64_t min, int64_t max,
                    uint32_t *out) {
    return json_kind(json_get(f->root, key)) == JSON_NULL ? 0 : need_u32(f, key, min, max, out);
}

static int refuse(const struct file *f, const char *key, const char *value) {
    return err_set(f->err, f->err_bytes, -ENOTSUP, "%s: %s: %s is not supported", f->path, key,
                   value ? value : "this value");
}

static int read_arch(struct config *c, const struct file *f) {
    const char *name = json_str(json_at(json_get(f->root, "architectures"), 0));
    if (!name)
        return err_set(f->err, f->err_bytes, ERR_FIELD, "%s: architectures: missing", f->path);
    c->arch = arch_find(name);
    if (c->arch) return 0;
    char known[512] = "";
    const struct arch *a;
    for (uint32_t i = 0, used = 0; (a = arch_at(i)) && used < sizeof known; i++)
        used +=
            (uint32_t)snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", a->name);
    return err_set(f->err, f->err_bytes, -ENOTSUP,
                   "%s: architectures: %s is not supported; supported are %s", f->path, name,
                   known);
}

static int read_act(struct config *c, const struct file *f) {
    static const struct {
        const char *name;
        enum ops_act act;
    } acts[] = {{"gelu", OPS_ACT_GELU},
                {"gelu_new", OPS_ACT_GELU_TANH},
                {"gelu_pytorch_tanh", OPS_ACT_GELU_TANH},
                {"relu", OPS_ACT_RELU},
                {"silu", OPS_ACT_SILU},
                {"swish", OPS_ACT_SILU}};
    const char *name = NULL;
    const char *key = c->arch->act_key ? c->arch->act_key : "hidden_act";
    int rc = json_need_str(f->root, f->path, key, &name, f->err, f->err_bytes);
    if (rc != 0) return rc;
    for (size_t i = 0; i < sizeof acts / sizeof *acts; i++)
        if (strcmp(acts[i].name, name) == 0) {
            c->act = acts[i].act;
            return 0;
        }
    return refuse(f, key, name);
}

static int read_sizes(struct config *c, const struct file *f) {
    int rc;
    if ((rc = need_u32(f, "hidden_size", 1, 1 << 16, &c->dim)) != 0 ||
        (rc = need_u32(f, "num_hidden_layers", 1, CONFIG_LAYERS_MAX, &c->layers)) != 0 ||
        (rc = need_u32(f, "num_attention_heads", 1, 1024, &c->heads)) != 0 ||
        (rc = need_u32(f, "intermediate_size", 1, 1 << 20, &c->inner)) != 0 ||
        (rc = need_u32(f, "vocab_size", 1, 1 << 24, &c->vocab)) != 0 ||
        (rc = need_u32(f, "max_position_embeddings", 1, 1 << 24, &c->context)) != 0)
        return rc;
    c->kv_heads = c->heads;
    c->head_dim = c->arch->head_dim ? c->arch->head_dim : c->dim / c->heads;
    if (c->arch->kind == MODEL_DECODER) {
        if ((rc = want_u32(f, "num_key_value_heads", 1, 1024, &c->kv_heads)) != 0 ||
            (rc = want_u32(f, "head_dim", 2, OPS_HEAD_DIM_MAX, &c->head_dim)) != 0)
            return rc;
    }
    bool derived = !c->arch->head_dim && json_kind(json_get(f->root, "head_dim")) == JSON_NULL;
    if (derived && c->dim % c->heads != 0)
        return err_set(f->err, f->err_bytes, ERR_FIELD,
                       "%s: hidden_size %u is not a multiple of num_attention_heads %u", f->path,
                       c->dim, c->heads);
    if (c->heads % c->kv_heads != 0)
        return err_set(f->err, f->err_bytes, ERR_FIELD,
                       "%s: num_attention_heads %u is not a multiple of num_key_value_heads %u",
                       f->path, c->heads, c->kv_heads);
    if (c->head_dim > OPS_HEAD_DIM_MAX)
        return err_set(f->err, f->err_bytes, ERR_LIMIT, "%s: heads of %u, the limit is %u", f->path,
                       c->head_dim, OPS_HEAD_DIM_MAX);
    if (c->arch->rope && c->head_dim % 2 != 0)
        return err_set(f->err, f->err_bytes, ERR_FIELD,
                       "%s: head_dim %u is odd: it cannot be rotated", f->path, c->head_dim);
    if (c->arch->names.types && (rc = need_u32(f, "type_vocab_size", 1, 1024, &c->types)) != 0)
        return rc;
    c->positions = c->context;
    c->padding = c->arch->after_padding ? json_int(json_get(f->root, "pad_token_id"), 1) : -1;
    if (c->padding + 1 >= c->context || c->padding < -1)
        return err_set(f->err, f->err_bytes, ERR_FIELD,
                       "%s: pad_token_id: leaves none of %u positions", f->path, c->context);
    c->context -= (uint32_t)(c->padding + 1);
    c->eps = json_real(json_get(f->root, c->arch->eps_key), c->arch->eps);
    if (!(c->eps > 0 && c->eps < 1))
        return err_set(f->err, f->err_bytes, ERR_FIELD, "%s: %s: not between 0 and 1", f->path,
                       c->arch->eps_key);
    return 0;
}

/* rope_theta and rope_scaling, or rope_parameters, which replaces the two in newer files: for all
 * layers, or one object a kind of layer. */
static int read_rope(struct config *c, const struct file *f) {
    const struct json *parameters = json_get(f->root, "rope_parameters");
    const struct json *full = json_get(parameters, "full_attention");
    const char *local_key = c->arch->local_theta_key;
    c->rope[0].theta = json_real(json_get(f->root, "rope_theta"),
                                 c->arch->rope_theta > 0 ? c->arch->rope_theta : 10000);
    int rc;
    if (full)
        rc = rope_plan_read(&c->rope[0], full, f->path, "rope_parameters", f->err, f->err_bytes);
    else if (json_kind(parameters) != JSON_NULL)
        rc = rope_plan_read(&c->rope[0], parameters, f->path, "rope_parameters", f->err,
                            f->err_bytes);
    else
        rc = rope_plan_read(&c->rope[0], json_get(f->root, "rope_scaling"), f->path, "rope_scaling",
                            f->err, f->err_bytes);
    c->rope[1] = c->rope[0];
    if (rc == 0 && local_key) {
        c->rope[1] = (struct rope_plan){.theta = json_real(json_get(f->root, local_key), 10000)};
        rc = rope_plan_read(&c->rope[1], json_get(parameters, "sliding_attention"), f->path,
                            "rope_parameters", f->err, f->err_bytes);
    }
    return rc;
}

static int read_positions(struct config *c, const struct file *f) {
    const char *kind = json_str(json_get(f->root, "position_embedding_type"));
    if (!c->arch->rope)
        return kind && strcmp(kind, "absolute") != 0 ? refuse(f, "position_embedding_type", kind)
                                                     : 0;
    double partial = json_real(json_get(f->root, "partial_rotary_factor"), 1.0);
    if (partial < 1.0 || partial > 1.0)
        return refuse(f, "partial_rotary_factor", "a part of a head");
    return read_rope(c, f);
}

/* layer_types, one word a layer. */
static int read_layer_types(struct config *c, const struct file *f, const struct json *types) {
    if (json_len(types) != c->layers)
        return err_set(f->err, f->err_bytes, ERR_FIELD, "%s: layer_types: %zu words for %u layers",
                       f->path, json_len(types), c->layers);
    for (uint32_t i = 0; i < c->layers; i++) {
        const char *type = json_str(json_at(types, i));
        c->windowed[i] = type && strcmp(type, "sliding_attention") == 0;
        if (!c->windowed[i] && (!type || strcmp(type, "full_attention") != 0))
            return refuse(f, "layer_types", type);
        if (c->windowed[i] && c->window == 0)
            return err_set(f->err, f->err_bytes, ERR_FIELD,
                           "%s: sliding_window: missing, layer %u has one", f->path, i);
    }
    return 0;
}

/* Which layers see a window only, and how many keys it has. */
static int read_windows(struct config *c, const struct file *f) {
    enum arch_window by = c->arch->window;
    uint32_t late = c->layers, pattern = 6;
    int rc = 0;
    if (by == ARCH_WINDOW_NEVER) return 0;
    if (json_bool(json_get(f->root, "use_sliding_window"), by != ARCH_WINDOW_LATE))
        rc = want_u32(f, "sliding_window", 1, 1 << 24, &c->window);
    if (rc != 0 || (rc = want_u32(f, "max_window_layers", 0, 1 << 24, &late)) != 0 ||
        (rc = want_u32(f, "sliding_window_pattern", 1, 1 << 24, &pattern)) != 0)
        return rc;
    const struct json *types = json_get(f->root, "layer_types");
    if (json_kind(types) != JSON_NULL) return read_layer_types(c, f, types);
    for (uint32_t i = 0; i < c->layers && c->window; i++)
        c->windowed[i] = by == ARCH_WINDOW_ALL || (by == ARCH_WINDOW_LATE && i >= late) ||
                         (by == ARCH_WINDOW_PATTERN && (i + 1) % pattern != 0);
    return 0;
}

/* What is multiplied into embeddings and scores. */
static int read_scales(struct config *c, const struct file *f) {
    const char *key = c->arch->query_key;
    double query = key ? json_real(json_get(f->root, key), 256) : c->head_dim;
    double softcap = json_real(json_get(f->root, "attn_logit_softcapping"), 0);
    if (!(query > 0 && query < 1e6))
        return err_set(f->err, f->err_bytes, ERR_FIELD, "%s: %s: not between 0 and 1e6", f->path,
                       key);
    if (!(softcap >= 0 && softcap < 1e6))
        return err_set(f->err, f->err_bytes, ERR_FIELD,
                       "%s: attn_logit_softcapping: not between 0 and 1e6", f->path);
    c->score_scale = (float)(1 / sqrt(query));
    c->embed_scale = c->arch->embed_scaled ? (float)sqrt(c->dim) : 1;
    c->softcap = (float)softcap;
    return 0;
}

/* Weights of fp8 with scales beside them, and what `penstock model quantize` made; whatever else is
 * quantized is refused by its method. */
static int read_quantization(struct config *c, const struct file *f) {
    const struct json *q = json_get(f->root, "quantization_config");
    const struct json *block = json_get(q, "weight_block_size");
    const char *method = json_str(json_get(q, "quant_method"));
    c->fp8_block[0] = c->fp8_block[1] = 128;
    if (json_kind(q) == JSON_NULL) return 0;
    c->quantized = method && strcmp(method, "penstock") == 0;
    if (c->quantized) return 0;
    if (!method || (strcmp(method, "fp8") != 0 && strcmp(method, "fbgemm_fp8") != 0))
        return refuse(f, "quantization_config", method ? method : "a quantized model");
    for (uint32_t i = 0; i < 2 && json_kind(block) != JSON_NULL; i++) {
        int64_t side = json_int(json_at(block, i), 0);
        if (side < 1 || side > 1 << 20)
            return err_set(f->err, f->err_bytes, ERR_FIELD,
                           "%s: quantization_config: weight_block_size: not two sizes", f->path);
        c->fp8_block[i] = (uint32_t)side;
    }
    return 0;
}

static int read_features(struct config *c, const struct file *f) {
    const struct arch *a = c->arch;
    bool attention = json_bool(json_get(f->root, "attention_bias"), false);
    c->qkv_bias =
        a->qkv_bias == ARCH_BIAS_ALWAYS || (a->qkv_bias == ARCH_BIAS_ATTENTION && attention);
    c->o_bias = a->o_bias == ARCH_BIAS_ALWAYS || (a->o_bias == ARCH_BIAS_ATTENTION && attention);
    c->mlp_bias = a->mlp_bias == ARCH_BIAS_ALWAYS;
    c->tied = json_bool(json_get(f->root, "tie_word_embeddings"), a->tied);
    if (a->gated && json_bool(json_get(f->root, "mlp_bias"), false))
        return refuse(f, "mlp_bias", "true");
    if (a->kind == MODEL_ENCODER && json_bool(json_get(f->root, "is_decoder"), false))
        return refuse(f, "is_decoder", "true");
    if (json_bool(json_get(f->root, "use_bidirectional_attention"), false))
        return refuse(f, "use_bidirectional_attention", "true");
    if (json_kind(json_get(f->root, "final_logit_softcapping")) != JSON_NULL)
        return refuse(f, "final_logit_softcapping", NULL);
    return read_quantization(c, f);
}

/* How many classes the head has: as many as id2label names. */
static int read_labels(struct config *c, const struct file *f) {
    const struct json *names = json_get(f->root, "id2label");
    if (!c->arch->names.classes) return 0;
    c->labels = (uint32_t)(json_len(names) ? json_len(names) : 2);
    int rc = want_u32(f, "num_labels", 1, LABELS_MAX, &c->labels);
    if (rc == 0 && c->labels > LABELS_MAX)
        rc = err_set(f->err, f->err_bytes, ERR_LIMIT, "%s: id2label: %u classes, the limit is %u",
                     f->path, c->labels, LABELS_MAX);
    return rc;
}

/* One id or a list of them. */
static int read_eos(struct config *c, const struct file *f) {
    const struct json *eos = json_get(f->root, "eos_token_id");
    if (json_kind(eos) == JSON_NULL) return 0;
    size_t n = json_kind(eos) == JSON_ARRAY ? json_len(eos) : 1;
    if (n > CONFIG_EOS_MAX)
        return err_set(f->err, f->err_bytes, ERR_LIMIT,
                       "%s: eos_token_id: %zu ids, the limit is %u", f->path, n, CONFIG_EOS_MAX);
    c->n_eos = 0;
    for (size_t i = 0; i < n; i++) {
        int64_t id = json_int(json_kind(eos) == JSON_ARRAY ? json_at(eos, i) : eos, -1);
        if (id < 0 || id >= c->vocab)
            return err_set(f->err, f->err_bytes, ERR_FIELD, "%s: eos_token_id: not an id below %u",
                           f->path, c->vocab);
        c->eos[c->n_eos++] = (uint32_t)id;
    }
    return 0;
}

static int read_ends(struct config *c, struct file *f) {
    int rc = read_eos(c, f);
    if (rc != 0) return rc;
    c->bos = json_int(json_get(f->root, "bos_token_id"), -1);
    if (c->bos >= c->vocab || c->bos < -1)
        return err_set(f->err, f->err_bytes, ERR_FIELD, "%s: bos_token_id: not an id below %u",
                       f->path, c->vocab);
    struct file g = {.dir = f->dir, .err = f->err, .err_bytes = f->err_bytes};
    rc = file_load_optional(&g, "generation_config.json");
    if (rc <= 0) return rc;
    rc = read_eos(c, &g);
    json_free(g.root);
    return rc;
}

static int read_pooling(struct config *c, const struct file *f) {
    static const struct {
        const char *key, *word;
        enum ops_pool pool;
    } kinds[] = {{"pooling_mode_mean_tokens", "mean", OPS_POOL_MEAN},
                 {"pooling_mode_cls_token", "cls", OPS_POOL_FIRST},
                 {"pooling_mode_max_tokens", "max", OPS_POOL_MAX},
                 {"pooling_mode_lasttoken", "lasttoken", OPS_POOL_LAST}};
    const char *word = json_str(json_get(f->root, "pooling_mode")), *key;
    const struct json *value;
    int found = -1;
    for (size_t i = 0; word && i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i].word, word) == 0) found = (int)i;
    if (word && found < 0) return refuse(f, "pooling_mode", word);
    for (size_t it = 0; !word && json_next(f->root, &it, &key, &value);) {
        if (strncmp(key, "pooling_mode_", 13) != 0 || !json_bool(value, false)) continue;
        int known = -1;
        for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
            if (strcmp(kinds[i].key, key) == 0) known = (int)i;
        if (known < 0) return refuse(f, key, "true");
        if (found >= 0) return refuse(f, key, "more than one pooling mode");
        found = known;
    }
    if (found < 0)
        return err_set(f->err, f->err_bytes, ERR_FIELD, "%s: no pooling mode is chosen", f->path);
    c->pool = kinds[found].pool;
    return 0;
}

static int read_module(struct config *c, struct file *f, const struct json *module) {
    const char *type = json_str(json_get(module, "type")),
               *path = json_str(json_get(module, "path"));
    const char *name = type ? strrchr(type, '.') : NULL;
    name = name ? name + 1 : type;
    if (name && strcmp(name, "Transformer") == 0) return 0;
    if (name && strcmp(name, "Normalize") == 0) {
        c->normalize = true;
        return 0;
    }
    if (!name || strcmp(name, "Pooling") != 0) return refuse(f, "type", type);
    if (!path || *path == '/' || strstr(path, ".."))
        return err_set(f->err, f->err_bytes, ERR_FIELD, "%s: path: not a folder of the model",
                       f->path);
    char inside[512];
    snprintf(inside, sizeof inside, "%.400s/config.json", path);
    struct file p = {.dir = f->dir, .err = f->err, .err_bytes = f->err_bytes};
    int rc = file_load(&p, inside);
    if (rc == 0) rc = read_pooling(c, &p);
    json_free(p.root);
    return rc;
}

/* How an encoder makes one vector of a text: what sentence-transformers wrote beside the model. */
static int read_sentences(struct config *c, const struct file *config) {
    struct file f = {.dir = config->dir, .err = config->err, .err_bytes = config->err_bytes};
    c->text_context = c->context;
    c->pool = OPS_POOL_MEAN;
    int rc = file_load_optional(&f, "modules.json");
    c->normalize = rc == 0;
    if (rc < 0) return rc;
    rc = 0;
    for (size_t i = 0; rc == 0 && i < json_len(f.root); i++)
        rc = read_module(c, &f, json_at(f.root, i));
    json_free(f.root);
    if (rc == 0) rc = file_load_optional(&f, "sentence_bert_config.json");
    if (rc <= 0) return rc;
    rc = want_u32(&f, "max_seq_length", 1, c->context, &c->text_context);
    json_free(f.root);
    return rc;
}

int config_load(struct config *out, const char *dir, char *err, size_t err_bytes) {
    struct file f = {.dir = dir, .err = err, .err_bytes = err_bytes};
    *out = (struct config){.bos = -1};
    int rc = file_load(&f, "config.json");
    if (rc != 0) return rc;
    if ((rc = read_arch(out, &f)) == 0 && (rc = read_sizes(out, &f)) == 0 &&
        (rc = read_act(out, &f)) == 0 && (rc = read_positions(out, &f)) == 0 &&
        (rc = read_windows(out, &f)) == 0 && (rc = read_scales(out, &f)) == 0 &&
        (rc = read_features(out, &f)) == 0 && (rc = read_labels(out, &f)) == 0)
        rc = out->arch->kind == MODEL_ENCODER ? read_sentences(out, &f) : read_ends(out, &f);
    json_free(f.root);
    return rc;
}
