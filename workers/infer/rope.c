#include "workers/infer/rope.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"

/* A number above `above` and below 1e12. */
static int need_real(const struct json *object, const char *file, const char *key, const char *name,
                     double above, double *out, char *err, size_t err_bytes) {
    *out = json_real(json_get(object, name), NAN);
    if (*out > above && *out < 1e12) return 0;
    return err_set(err, err_bytes, ERR_FIELD, "%s: %s: %s: not between %g and 1e12", file, key,
                   name, above);
}

int rope_plan_read(struct rope_plan *p, const struct json *object, const char *file,
                   const char *key, char *err, size_t err_bytes) {
    const char *type = json_str(json_get(object, "rope_type"));
    int rc = 0;
    if (!type) type = json_str(json_get(object, "type"));
    p->theta = json_real(json_get(object, "rope_theta"), p->theta);
    if (!(p->theta > 1 && p->theta < 1e12))
        return err_set(err, err_bytes, ERR_FIELD, "%s: rope_theta: not between 1 and 1e12", file);
    if (json_kind(object) == JSON_NULL || (type && strcmp(type, "default") == 0)) return 0;
    if (type && strcmp(type, "linear") == 0)
        p->scaling = ROPE_LINEAR;
    else if (type && strcmp(type, "llama3") == 0)
        p->scaling = ROPE_LLAMA3;
    else
        return err_set(err, err_bytes, -ENOTSUP, "%s: %s: %s is not supported", file, key,
                       type ? type : "this value");
    rc = need_real(object, file, key, "factor", 0, &p->factor, err, err_bytes);
    if (rc != 0 || p->scaling != ROPE_LLAMA3) return rc;
    if ((rc = need_real(object, file, key, "low_freq_factor", 0, &p->low, err, err_bytes)) != 0 ||
        (rc = need_real(object, file, key, "high_freq_factor", p->low, &p->high, err, err_bytes)))
        return rc;
    return need_real(object, file, key, "original_max_position_embeddings", 0, &p->original, err,
                     err_bytes);
}

/* Frequency i of head_dim / 2. */
static float frequency(const struct rope_plan *p, uint32_t head_dim, uint32_t i) {
    float base = 1 / powf((float)p->theta, (float)(2 * i) / (float)head_dim);
    if (p->scaling == ROPE_AS_TRAINED) return base;
    float factor = (float)p->factor, slow = base / factor;
    if (p->scaling == ROPE_LINEAR) return slow;
    float wavelength = (float)(2 * M_PI) / base;
    if (wavelength > (float)(p->original / p->low)) return slow;
    if (wavelength < (float)(p->original / p->high)) return base;
    float smooth = ((float)p->original / wavelength - (float)p->low) / (float)(p->high - p->low);
    return (1 - smooth) * base / factor + smooth * base;
}

int rope_tables(struct rope *out, struct ops *ops, const struct rope_plan *p, uint32_t head_dim,
                uint32_t positions) {
    uint32_t half = head_dim / 2;
    size_t n = (size_t)positions * half;
    float *host = malloc(n * sizeof *host);
    float *cosines = ops->alloc(ops, n * sizeof *host);
    float *sines = ops->alloc(ops, n * sizeof *host);
    *out = (struct rope){cosines, sines};
    for (int which = 0; host && cosines && sines && which < 2; which++) {
        for (uint32_t i = 0; i < half; i++) {
            float turn = frequency(p, head_dim, i);
            for (uint32_t at = 0; at < positions; at++) {
                double angle = (double)((float)at * turn);
                host[(size_t)at * half + i] = (float)(which ? sin(angle) : cos(angle));
            }
        }
        ops->upload(ops, which ? sines : cosines, host, n * sizeof *host);
    }
    int rc = host && cosines && sines ? 0 : -ENOMEM;
    free(host);
    return rc;
}

void rope_drop(struct rope *r, struct ops *ops) {
    if (r->cos) ops->free(ops, (void *)(uintptr_t)r->cos);
    if (r->sin) ops->free(ops, (void *)(uintptr_t)r->sin);
    *r = (struct rope){0};
}
