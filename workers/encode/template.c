#include "workers/encode/template.h"

#include <stdbool.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "workers/encode/vocab.h"

static int put(struct template *t, bool after, const struct json *id, char *err, size_t err_bytes) {
    uint32_t *n = after ? &t->n_after : &t->n_before;
    int64_t v = json_int(id, -1);
    if (v < 0 || v >= VOCAB_IDS_MAX)
        return err_set(err, err_bytes, ERR_FIELD, "post_processor: a special token without an id");
    if (*n == TEMPLATE_TOKENS_MAX)
        return err_set(err, err_bytes, ERR_LIMIT, "post_processor: more than %u special tokens",
                       TEMPLATE_TOKENS_MAX);
    (after ? t->after : t->before)[(*n)++] = (uint32_t)v;
    return 0;
}

static int read_template(struct template *t, const struct json *j, char *err, size_t err_bytes) {
    const struct json *single = json_get(j, "single"), *tokens = json_get(j, "special_tokens");
    bool after = false;
    for (size_t i = 0; i < json_len(single); i++) {
        const struct json *item = json_at(single, i);
        if (json_get(item, "Sequence")) {
            if (after)
                return err_set(err, err_bytes, ERR_FIELD,
                               "post_processor: TemplateProcessing: single: names the text twice");
            after = true;
            continue;
        }
        const char *name = json_str(json_get(json_get(item, "SpecialToken"), "id"));
        const struct json *ids = name ? json_get(json_get(tokens, name), "ids") : NULL;
        if (json_len(ids) == 0)
            return err_set(err, err_bytes, ERR_FIELD,
                           "post_processor: TemplateProcessing: special_tokens: %.60s: missing",
                           name ? name : "(no id)");
        for (size_t k = 0; k < json_len(ids); k++) {
            int rc = put(t, after, json_at(ids, k), err, err_bytes);
            if (rc < 0) return rc;
        }
    }
    if (!after)
        return err_set(err, err_bytes, ERR_FIELD,
                       "post_processor: TemplateProcessing: single: does not name the text");
    return 0;
}

int template_read(struct template *t, const struct json *j, char *err, size_t err_bytes) {
    if (json_kind(j) == JSON_NULL) return 0;
    const char *type = json_str(json_get(j, "type"));
    if (!type) return err_set(err, err_bytes, ERR_FIELD, "post_processor: type: missing");
    if (strcmp(type, "ByteLevel") == 0) return 0;
    bool adds = t->n_before + t->n_after > 0;
    if (strcmp(type, "Sequence") == 0) {
        const struct json *list = json_get(j, "processors");
        for (size_t i = 0; i < json_len(list); i++) {
            const char *inner = json_str(json_get(json_at(list, i), "type"));
            if (inner && strcmp(inner, "Sequence") == 0)
                return err_set(err, err_bytes, ERR_FIELD,
                               "post_processor: a Sequence in a Sequence is not supported");
            int rc = template_read(t, json_at(list, i), err, err_bytes);
            if (rc < 0) return rc;
        }
        return 0;
    }
    if (adds)
        return err_set(err, err_bytes, ERR_FIELD,
                       "post_processor: Sequence: two that add tokens are not supported");
    if (strcmp(type, "TemplateProcessing") == 0) return read_template(t, j, err, err_bytes);
    if (strcmp(type, "BertProcessing") != 0 && strcmp(type, "RobertaProcessing") != 0)
        return err_set(err, err_bytes, ERR_FIELD,
                       "post_processor: %.60s: this post-processor is not supported", type);
    int rc = put(t, false, json_at(json_get(j, "cls"), 1), err, err_bytes);
    return rc < 0 ? rc : put(t, true, json_at(json_get(j, "sep"), 1), err, err_bytes);
}
