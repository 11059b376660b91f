/* adapter_config.h - what adapter_config.json says: which products an adapter changes, by how much.
 *
 * A product x W^T of the model becomes x W^T + scale (x A^T) B^T, where A has `rank` rows and scale
 * is lora_alpha / rank, or lora_alpha / sqrt(rank) with use_rslora; rank_pattern and alpha_pattern
 * say otherwise for the modules that they match. What the engine lacks (DoRA, trained biases,
 * modules_to_save and the like) is refused by name, and so is a setting that it does not know,
 * unless it is off. fan_in_fan_out concerns layers that store their weights transposed; no family
 * here has one, and peft ignores it for all others too.
 *
 * Source: Hu et al. 2021, "LoRA"; Kalajdzievski 2023, "rsLoRA"; the fields are those of peft.
 *
 * Units: none.  Owner: adapter_config_load gives what adapter_config_fini frees.  Memory: the JSON.
 * Errors: -errno, ERR_FIELD, ERR_LIMIT, -ENOTSUP, -ENOMEM with file and field in err.
 * Threads: one. */
#ifndef PENSTOCK_WORKERS_INFER_ADAPTER_CONFIG_H
#define PENSTOCK_WORKERS_INFER_ADAPTER_CONFIG_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ADAPTER_RANK_MAX 512u
#define ADAPTER_PATTERNS_MAX 64u

struct json;
struct regex;
/* Which modules: by the ends of their names, or by a pattern of the whole name. */
struct adapter_modules {
    const struct json *list;
    struct regex *pattern;
    bool all; /* "all-linear" */
};
struct adapter_config {
    char path[PATH_MAX];
    struct json *root;
    struct adapter_modules targets, excluded;
    bool rslora;
    uint32_t rank;
    double alpha;
    const char *base; /* base_model_name_or_path, or NULL */
};

int adapter_config_load(struct adapter_config *c, const char *dir, char *err, size_t err_bytes);
void adapter_config_fini(struct adapter_config *c); /* accepts zeroed memory */
/* Whether the module of that layer ("model.layers.0.self_attn.q_proj") is changed: 1, 0, or an
 * error of the pattern. */
int adapter_config_targets(const struct adapter_config *c, const char *module, uint32_t layer,
                           char *err, size_t err_bytes);
/* Rank and scale of a module that is. */
int adapter_config_scale(const struct adapter_config *c, const char *module, uint32_t *rank,
                         float *scale, char *err, size_t err_bytes);

#endif
