#include "workers/infer/stages.h"

#include "base/err.h"
#include "workers/infer/models.h"

struct model *infer_model(struct models *models, struct stage_item *i, struct bytes name,
                          enum model_kind kind) {
    struct model *m = NULL;
    char err[LIMIT_REASON_BYTES];
    if (i->model.len > 0 && !bytes_eq(i->model, name)) {
        item_fail(i, JOB_ERROR_PERMANENT, "tokens of model %.*s, but the plan names %.*s",
                  (int)(name.len < LIMIT_NAME_BYTES ? name.len : LIMIT_NAME_BYTES),
                  name.len ? (const char *)name.data : "", (int)i->model.len,
                  (const char *)i->model.data);
        return NULL;
    }
    int rc = models_get(models, name, &m, err, sizeof err);
    if (rc != 0) {
        item_fail_rc(i, rc, err);
        return NULL;
    }
    if (model_info(m)->kind != kind) {
        item_fail(i, JOB_ERROR_PERMANENT, "model %.*s is a %s, this stage needs %s", (int)name.len,
                  (const char *)name.data, model_info(m)->architecture,
                  kind == MODEL_ENCODER ? "an encoder" : "a decoder");
        return NULL;
    }
    i->numerics_id = model_numerics_id(m);
    return m;
}

bool infer_adapter(struct models *models, struct stage_item *i, struct model *m, struct bytes *name,
                   const struct adapter **out) {
    char err[LIMIT_REASON_BYTES];
    *out = NULL;
    if (name->len == 0) *name = i->adapter;
    int rc = name->len > 0 ? models_adapter(models, m, *name, out, err, sizeof err) : 0;
    if (rc != 0) item_fail_rc(i, rc, err);
    return rc == 0;
}

uint32_t *infer_ids(struct stage_item *i, const struct model *m, struct bytes bin, const char *what,
                    uint32_t *n) {
    char err[200];
    if (bin.len == 0 || bin.len % sizeof(uint32_t) != 0 ||
        bin.len / sizeof(uint32_t) > UINT32_MAX) {
        item_fail(i, JOB_ERROR_PERMANENT, "%s: %zu bytes are not a list of ids of 4 bytes", what,
                  bin.len);
        return NULL;
    }
    uint32_t *ids = arena_alloc(i->arena, bin.len);
    if (!ids) {
        item_fail(i, JOB_ERROR_TRANSIENT, "%s: no memory for %zu bytes of ids", what, bin.len);
        return NULL;
    }
    *n = (uint32_t)(bin.len / sizeof(uint32_t));
    struct reader r = reader_of(bin);
    for (uint32_t k = 0; k < *n; k++) ids[k] = read_u32le(&r);
    if (model_check_ids(m, *n, ids, err, sizeof err) != 0) {
        item_fail(i, JOB_ERROR_PERMANENT, "%s: %s", what, err);
        return NULL;
    }
    return ids;
}

int infer_open(void **self, const struct stage_context *c, char *err, size_t err_bytes) {
    if (!c->models)
        return err_set(err, err_bytes, -EINVAL,
                       "the worker has no models: start it with --models DIR");
    *self = c->models;
    return 0;
}
