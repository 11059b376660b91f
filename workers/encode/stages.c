#include "workers/encode/stages.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "schemas/kinds.h"
#include "workers/infer/config.h"
#include "workers/infer/models.h"

#define MODELS_MAX 64u

struct encode_self {
    struct models *models;
    uint32_t n;
    struct {
        char name[LIMIT_NAME_BYTES + 1];
        uint32_t context;
        int64_t bos;
    } known[MODELS_MAX];
};

int encode_open(void **self, const struct stage_context *c, char *err, size_t err_bytes) {
    if (!c->models)
        return err_set(err, err_bytes, -EINVAL,
                       "the worker has no models: start it with --models DIR");
    struct encode_self *s = calloc(1, sizeof *s);
    if (!s) return err_set(err, err_bytes, -ENOMEM, "encode: out of memory");
    s->models = c->models;
    *self = s;
    return 0;
}

void encode_close(void *self) {
    free(self);
}

static int look_up(struct encode_self *s, struct bytes name, uint32_t *context, int64_t *bos,
                   char *err, size_t err_bytes) {
    for (uint32_t i = 0; i < s->n; i++) {
        if (!bytes_is(name, s->known[i].name)) continue;
        *context = s->known[i].context;
        *bos = s->known[i].bos;
        return 0;
    }
    struct config config;
    const char *dir = models_dir(s->models, name);
    if (!dir)
        return err_set(err, err_bytes, ERR_UNKNOWN, "this worker has no model %.*s", (int)name.len,
                       name.len ? (const char *)name.data : "");
    int rc = config_load(&config, dir, err, err_bytes);
    if (rc < 0) return rc;
    *context = config.arch->kind == MODEL_ENCODER ? config.text_context : config.context;
    *bos = config.bos;
    if (s->n == MODELS_MAX) return 0; /* read again the next time */
    if (bytes_to_cstr(name, s->known[s->n].name, sizeof s->known[s->n].name) < 0) return 0;
    s->known[s->n].context = *context;
    s->known[s->n++].bos = *bos;
    return 0;
}

bool encode_model(struct encode_self *s, struct stage_item *i, struct tokenizer **t,
                  uint32_t *context, int64_t *bos) {
    char err[LIMIT_REASON_BYTES] = "";
    int64_t unused;
    int rc = look_up(s, i->model, context, bos ? bos : &unused, err, sizeof err);
    if (rc == 0) rc = models_tokenizer(s->models, i->model, t, err, sizeof err);
    if (rc < 0) item_fail_rc(i, rc, err);
    return rc == 0;
}

bool encode_chat(struct encode_self *s, struct stage_item *i, struct chat **chat) {
    char err[LIMIT_REASON_BYTES] = "";
    int rc = models_chat(s->models, i->model, chat, err, sizeof err);
    if (rc < 0) item_fail_rc(i, rc, err);
    return rc == 0;
}

bool encode_body(struct stage_item *i, const char *kind, void *out) {
    const struct kind_desc *k = kind_find(i->kind);
    struct refusal why;
    if (!k || strcmp(k->name, kind) != 0) {
        item_fail(i, JOB_ERROR_PERMANENT, "this stage runs %s jobs, not %.*s", kind,
                  (int)i->kind.len, i->kind.len ? (const char *)i->kind.data : "");
        return false;
    }
    if (kind_decode(k, i->body, out, &why) == 0) return true;
    item_fail(i, JOB_ERROR_PERMANENT, "body: %s: %s", why.field, why.message);
    return false;
}

void encode_pack_ids(struct packer *p, const uint32_t *ids, uint32_t n) {
    struct buf bin = {0};
    for (uint32_t k = 0; k < n; k++) buf_u32le(&bin, ids[k]);
    if (bin.error && !p->out->error) p->out->error = bin.error;
    pack_bin(p, buf_bytes(&bin));
    buf_fini(&bin);
}

void encode_pack(struct packer *p, struct bytes model, const struct tokens *seqs, uint32_t n) {
    pack_str(p, "model");
    pack_strn(p, model);
    pack_str(p, "seqs");
    pack_array(p, n);
    for (uint32_t k = 0; k < n; k++) encode_pack_ids(p, seqs[k].ids, seqs[k].n);
    pack_str(p, "truncated");
    pack_array(p, n);
    for (uint32_t k = 0; k < n; k++) pack_bool(p, seqs[k].truncated);
}
