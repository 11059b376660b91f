#include "workers/infer/stored.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "kernels/source.h"
#include "workers/infer/tensor_values.h"

#define NAME_BYTES 320u
#define SCALE_MAX 0x1p64f /* of a step between neighbouring weights */

static const struct {
    const char *name;
    enum dtype dtype;
} types[] = {{"f32", DTYPE_F32}, {"bf16", DTYPE_BF16}, {"w8a8", DTYPE_W8}, {"w4a8", DTYPE_W4}};

bool stored_type_parse(const char *text, enum dtype *out) {
    for (size_t i = 2; i < sizeof types / sizeof *types; i++)
        if (strcmp(types[i].name, text) == 0) {
            *out = types[i].dtype;
            return true;
        }
    return false;
}

const char *stored_type_name(enum dtype t) {
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].dtype == t) return types[i].name;
    return "f32";
}

void stored_as_text(struct quantize_as as, char as_text[STORED_AS_CHARS]) {
    snprintf(as_text, STORED_AS_CHARS, "w%d/%u", as.dtype == DTYPE_W8 ? 8 : 4, as.group);
}

bool stored_as_parse(const char *text, struct quantize_as *out) {
    static const uint32_t groups[] = {32, 64, 128};
    for (int four = 0; four < 2; four++)
        for (size_t i = 0; i < 3; i++) {
            char known[STORED_AS_CHARS];
            struct quantize_as as = {four ? DTYPE_W4 : DTYPE_W8, groups[i]};
            stored_as_text(as, known);
            if (strcmp(known, text) != 0) continue;
            *out = as;
            return true;
        }
    return false;
}

int stored_check(const struct safetensors *st, enum dtype *to, char *err, size_t err_bytes) {
    const char *version = safetensors_metadata(st, STORED_KEY_VERSION);
    const char *type = safetensors_metadata(st, STORED_KEY_TO);
    const char *where = safetensors_where(st);
    if (!version)
        return err_set(err, err_bytes, ERR_FIELD,
                       "%s: __metadata__: " STORED_KEY_VERSION
                       ": missing, config.json says that the model is quantized",
                       where);
    if (strcmp(version, STORED_VERSION) != 0)
        return err_set(err, err_bytes, ERR_VERSION,
                       "%s: __metadata__: " STORED_KEY_VERSION
                       ": %.40s is not known here, only " STORED_VERSION
                       "; quantize the model again",
                       where, version);
    if (type && stored_type_parse(type, to)) return 0;
    return err_set(err, err_bytes, ERR_FIELD,
                   "%s: __metadata__: " STORED_KEY_TO ": %.40s, must be w8a8 or w4a8", where,
                   type ? type : "missing");
}

/* One of the three tensors of a matrix, with its type and shape checked. */
static int part(const struct safetensors *st, const char *name, const char *suffix,
                const char *type, uint64_t n, uint64_t width, const struct tensor **out, char *err,
                size_t err_bytes) {
    char full[NAME_BYTES];
    snprintf(full, sizeof full, "%.256s%s", name, suffix);
    const struct tensor *t = *out = safetensors_find(st, full);
    if (!t)
        return err_set(err, err_bytes, ERR_FIELD,
                       "%s: tensor %s: missing, __metadata__ says that %s is quantized",
                       safetensors_where(st), full, name);
    if (strcmp(t->type, type) != 0)
        return err_set(err, err_bytes, ERR_FIELD, "%s: tensor %s: dtype %s, must be %s",
                       safetensors_path(st, t), full, t->type, type);
    if (t->rank == 2 && t->shape[0] == n && t->shape[1] == width) return 0;
    return err_set(err, err_bytes, ERR_FIELD,
                   "%s: tensor %s: its shape is not [%" PRIu64 ", %" PRIu64
                   "], as config.json and __metadata__ ask for",
                   safetensors_path(st, t), full, n, width);
}

/* The first scale that is none: negative, not a number, or so large that a product overflows. */
static uint64_t first_bad_scale(const struct tensor *t) {
    for (uint64_t i = 0; i < t->elements; i++) {
        float scale = source_element(t->data, DTYPE_BF16, i);
        if (!(scale >= 0 && scale <= SCALE_MAX)) return i;
    }
    return t->elements;
}

int stored_find(struct quantized *out, const struct safetensors *st, const char *name, uint32_t n,
                uint32_t k, char *err, size_t err_bytes) {
    const char *text = safetensors_metadata(st, name);
    const struct tensor *packed, *scale, *zero;
    struct quantize_as as;
    if (!text) return 0;
    if (!stored_as_parse(text, &as))
        return err_set(err, err_bytes, ERR_FIELD,
                       "%s: __metadata__: %s: %.40s is not w8 or w4 in groups of 32, 64 or 128",
                       safetensors_where(st), name, text);
    uint32_t groups = quantized_groups(k, as.group);
    int rc = part(st, name, STORED_PACKED, "U8", n, quantized_row_bytes(k, as.dtype), &packed, err,
                  err_bytes);
    if (rc == 0) rc = part(st, name, STORED_SCALE, "BF16", n, groups, &scale, err, err_bytes);
    if (rc == 0) rc = part(st, name, STORED_ZERO, "U8", n, groups, &zero, err, err_bytes);
    if (rc != 0) return rc;
    uint64_t bad = first_bad_scale(scale);
    if (bad != scale->elements)
        return err_set(err, err_bytes, ERR_CORRUPT,
                       "%s: tensor %s: element %" PRIu64
                       " is no scale: a NaN, negative or too large",
                       safetensors_path(st, scale), scale->name, bad);
    *out = (struct quantized){
        .n = n,
        .k = k,
        .dtype = as.dtype,
        .quant = {.group = as.group, .q = packed->data, .scale = scale->data, .zero = zero->data}};
    return 1;
}

struct quantize_as stored_recipe(const struct config *c, enum dtype to, const char *pattern) {
    const struct arch_names *names = &c->arch->names;
    if (pattern == names->pooler || pattern == names->classes) return (struct quantize_as){0};
    /* A few inputs of an encoder are far larger than the others: kept apart in smaller groups. */
    if (c->arch->kind == MODEL_ENCODER) return (struct quantize_as){to, 32};
    if (to == DTYPE_W8 || pattern == names->head) return (struct quantize_as){DTYPE_W8, 64};
    return (struct quantize_as){DTYPE_W4, 64};
}
