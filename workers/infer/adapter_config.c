#include "workers/infer/adapter_config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/regex.h"

#define JSON_BYTES_MAX (1024u * 1024u)
#define PATTERN_BYTES_MAX 4000u

/* Read here, or without effect on what an adapter that is there computes. */
static const char *const known_keys[] = {
    "peft_type",
    "r",
    "lora_alpha",
    "use_rslora",
    "target_modules",
    "exclude_modules",
    "rank_pattern",
    "alpha_pattern",
    "layers_to_transform",
    "bias",
    "init_lora_weights",
    "base_model_name_or_path",
    "auto_mapping",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "fan_in_fan_out",
    "inference_mode",
    "loftq_config",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
};
/* These begin with the model's own weights; the others change them first. */
static const char *const known_starts[] = {"gaussian", "orthogonal", "eva"};

static int refuse(const struct adapter_config *c, const char *key, const char *value, char *err,
                  size_t err_bytes) {
    return err_set(err, err_bytes, -ENOTSUP,
                   "%s: %s: %s is not supported; import the model with the adapter merged into it"
                   " (merge_and_unload of peft)",
                   c->path, key, value);
}

static bool is_one_of(const char *text, const char *const *list, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (strcmp(text, list[i]) == 0) return true;
    return false;
}

/* Absent, null, false, or empty: a feature that is off. */
static bool is_off(const struct json *v) {
    switch (json_kind(v)) {
    case JSON_NULL: return true;
    case JSON_BOOL: return !json_bool(v, true);
    case JSON_STR: return json_str_len(v) == 0;
    case JSON_ARRAY:
    case JSON_OBJECT: return json_len(v) == 0;
    default: return false;
    }
}

static int check_features(const struct adapter_config *c, char *err, size_t err_bytes) {
    const char *type = json_str(json_get(c->root, "peft_type"));
    const char *bias = json_str(json_get(c->root, "bias")), *key;
    const struct json *start = json_get(c->root, "init_lora_weights"), *value;
    if (!type || strcmp(type, "LORA") != 0)
        return refuse(c, "peft_type", type ? type : "an adapter without it", err, err_bytes);
    for (size_t it = 0; json_next(c->root, &it, &key, &value);)
        if (!is_off(value) && !is_one_of(key, known_keys, sizeof known_keys / sizeof *known_keys))
            return refuse(c, key, "an adapter that sets it", err, err_bytes);
    if (bias && strcmp(bias, "none") != 0) return refuse(c, "bias", bias, err, err_bytes);
    if (json_kind(start) != JSON_STR ||
        is_one_of(json_str(start), known_starts, sizeof known_starts / sizeof *known_starts))
        return 0;
    return refuse(c, "init_lora_weights", json_str(start), err, err_bytes);
}

static int read_modules(const struct adapter_config *c, const char *key, struct adapter_modules *m,
                        char *err, size_t err_bytes) {
    const struct json *v = json_get(c->root, key);
    const char *text = json_str(v);
    char pattern[PATTERN_BYTES_MAX + 16], why[200];
    if (json_kind(v) == JSON_ARRAY) m->list = v;
    for (size_t i = 0; i < json_len(m->list); i++)
        if (!json_str(json_at(v, i)))
            return err_set(err, err_bytes, ERR_FIELD, "%s: %s: element %zu is not a name", c->path,
                           key, i);
    if (!text) return 0;
    m->all = strcmp(text, "all-linear") == 0;
    if (m->all) return 0;
    if (strlen(text) > PATTERN_BYTES_MAX)
        return err_set(err, err_bytes, ERR_LIMIT, "%s: %s: more than %u bytes", c->path, key,
                       PATTERN_BYTES_MAX);
    snprintf(pattern, sizeof pattern, "^(?:%s)\\z", text);
    int rc = regex_open(&m->pattern, pattern, "", why, sizeof why);
    return rc == 0 ? 0 : err_set(err, err_bytes, rc, "%s: %s: %s", c->path, key, why);
}

static int read_targets(struct adapter_config *c, char *err, size_t err_bytes) {
    int rc = read_modules(c, "target_modules", &c->targets, err, err_bytes);
    if (rc == 0) rc = read_modules(c, "exclude_modules", &c->excluded, err, err_bytes);
    if (rc == 0 && !c->targets.all && !c->targets.pattern && json_len(c->targets.list) == 0)
        rc = err_set(err, err_bytes, ERR_FIELD,
                     "%s: target_modules: neither a list of names nor a pattern", c->path);
    return rc;
}

int adapter_config_load(struct adapter_config *c, const char *dir, char *err, size_t err_bytes) {
    *c = (struct adapter_config){0};
    int n = snprintf(c->path, sizeof c->path, "%s/adapter_config.json", dir);
    if (n < 0 || (size_t)n >= sizeof c->path)
        return err_set(err, err_bytes, -ENAMETOOLONG, "%s: the path is too long", dir);
    int64_t rank;
    int rc = json_load(&c->root, c->path, JSON_BYTES_MAX, err, err_bytes);
    if (rc == 0) rc = check_features(c, err, err_bytes);
    if (rc == 0)
        rc = json_need_int(c->root, c->path, "r", 1, ADAPTER_RANK_MAX, &rank, err, err_bytes);
    if (rc == 0) {
        c->rank = (uint32_t)rank;
        c->alpha = json_num(json_get(c->root, "lora_alpha"), NAN);
        c->base = json_str(json_get(c->root, "base_model_name_or_path"));
        c->rslora = json_bool(json_get(c->root, "use_rslora"), false);
        if (!isfinite(c->alpha))
            rc = err_set(err, err_bytes, ERR_FIELD, "%s: lora_alpha: not a number", c->path);
    }
    if (rc == 0 && (json_len(json_get(c->root, "rank_pattern")) > ADAPTER_PATTERNS_MAX ||
                    json_len(json_get(c->root, "alpha_pattern")) > ADAPTER_PATTERNS_MAX))
        rc = err_set(err, err_bytes, ERR_LIMIT,
                     "%s: rank_pattern, alpha_pattern: more than %u patterns", c->path,
                     ADAPTER_PATTERNS_MAX);
    if (rc == 0) rc = read_targets(c, err, err_bytes);
    if (rc != 0) adapter_config_fini(c);
    return rc;
}

void adapter_config_fini(struct adapter_config *c) {
    json_free(c->root);
    regex_close(c->targets.pattern);
    regex_close(c->excluded.pattern);
    *c = (struct adapter_config){0};
}

/* Whether the name is the module's, or that of its last parts. */
static bool is_suffix(const char *module, const char *name) {
    size_t m = strlen(module), n = strlen(name);
    if (n > m || strcmp(module + m - n, name) != 0) return false;
    return n == m || module[m - n - 1] == '.';
}

/* 1, 0, or ERR_LIMIT. */
static int is_among(const struct adapter_modules *m, const char *module) {
    struct regex_span spans[REGEX_GROUPS];
    if (m->all) return 1;
    if (m->pattern) return regex_find(m->pattern, module, strlen(module), 0, spans);
    for (size_t i = 0; i < json_len(m->list); i++)
        if (is_suffix(module, json_str(json_at(m->list, i)))) return 1;
    return 0;
}

int adapter_config_targets(const struct adapter_config *c, const char *module, uint32_t layer,
                           char *err, size_t err_bytes) {
    const struct json *layers = json_get(c->root, "layers_to_transform");
    bool here = is_off(layers);
    if (json_kind(layers) == JSON_INT) here = json_int(layers, -1) == layer;
    for (size_t i = 0; i < json_len(layers) && !here; i++)
        here = json_int(json_at(layers, i), -1) == layer;
    int found = here ? is_among(&c->targets, module) : 0;
    int excluded = found > 0 ? is_among(&c->excluded, module) : 0;
    if (found < 0 || excluded < 0)
        return err_set(err, err_bytes, ERR_LIMIT, "%s: %s: the pattern takes too long to match %s",
                       c->path, found < 0 ? "target_modules" : "exclude_modules", module);
    return found > 0 && excluded == 0;
}

/* The value of the first pattern that matches the end of the module's name, or the other one. */
static int by_pattern(const struct adapter_config *c, const char *field, const char *module,
                      double otherwise, double *out, char *err, size_t err_bytes) {
    const struct json *patterns = json_get(c->root, field), *value;
    const char *key;
    *out = otherwise;
    for (size_t it = 0; json_next(patterns, &it, &key, &value);) {
        char pattern[PATTERN_BYTES_MAX + 32], why[200];
        struct regex *r = NULL;
        struct regex_span spans[REGEX_GROUPS];
        if (strlen(key) > PATTERN_BYTES_MAX)
            return err_set(err, err_bytes, ERR_LIMIT, "%s: %s: more than %u bytes", c->path, field,
                           PATTERN_BYTES_MAX);
        snprintf(pattern, sizeof pattern, "^(?:.*\\.)?(?:%s)\\z", key);
        int rc = regex_open(&r, pattern, "", why, sizeof why);
        if (rc != 0) return err_set(err, err_bytes, rc, "%s: %s: %s", c->path, field, why);
        rc = regex_find(r, module, strlen(module), 0, spans);
        regex_close(r);
        if (rc < 0)
            return err_set(err, err_bytes, rc, "%s: %s: a pattern takes too long to match %s",
                           c->path, field, module);
        if (rc == 0) continue;
        *out = json_num(value, NAN);
        return 0;
    }
    return 0;
}

int adapter_config_scale(const struct adapter_config *c, const char *module, uint32_t *rank,
                         float *scale, char *err, size_t err_bytes) {
    double r, alpha;
    int rc = by_pattern(c, "rank_pattern", module, c->rank, &r, err, err_bytes);
    if (rc == 0) rc = by_pattern(c, "alpha_pattern", module, c->alpha, &alpha, err, err_bytes);
    if (rc != 0) return rc;
    if (!(r >= 1 && r <= ADAPTER_RANK_MAX && r == floor(r)))
        return err_set(err, err_bytes, ERR_FIELD, "%s: rank_pattern: %s: not from 1 to %u", c->path,
                       module, ADAPTER_RANK_MAX);
    if (!isfinite(alpha))
        return err_set(err, err_bytes, ERR_FIELD, "%s: alpha_pattern: %s: not a number", c->path,
                       module);
    *rank = (uint32_t)r;
    *scale = (float)(alpha / (c->rslora ? sqrt(r) : r));
    if (isfinite(*scale)) return 0;
    return err_set(err, err_bytes, ERR_FIELD, "%s: lora_alpha: %s: %g is too large", c->path,
                   module, alpha);
}
