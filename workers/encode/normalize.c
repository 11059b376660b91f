#include "workers/encode/normalize.h"

#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/regex.h"
#include "workers/encode/unicode.h"

#define SEQUENCE_DEPTH_MAX 8

/* ---- reading ---- */

static struct normalize_step *add(struct normalizer *n, enum normalize_kind kind) {
    if (n->n == NORMALIZER_STEPS_MAX) return NULL;
    struct normalize_step *s = &n->steps[n->n++];
    *s = (struct normalize_step){.kind = kind};
    return s;
}

static int add_all(struct normalizer *n, const enum normalize_kind *kinds, uint32_t count,
                   const char *where, char *err, size_t err_bytes) {
    for (uint32_t i = 0; i < count; i++)
        if (!add(n, kinds[i]))
            return err_set(err, err_bytes, ERR_LIMIT, "%s: more than %u steps", where,
                           NORMALIZER_STEPS_MAX);
    return 0;
}

static int add_form(struct normalizer *n, enum unicode_form form, const char *where, char *err,
                    size_t err_bytes) {
    int rc = add_all(n, &(enum normalize_kind){NORMALIZE_FORM}, 1, where, err, err_bytes);
    if (rc == 0) n->steps[n->n - 1].form = form;
    return rc;
}

static int read_bert(struct normalizer *n, const struct json *j, const char *where, char *err,
                     size_t err_bytes) {
    bool lower = json_bool(json_get(j, "lowercase"), true);
    int rc = 0;
    if (json_bool(json_get(j, "clean_text"), true))
        rc = add_all(n, &(enum normalize_kind){NORMALIZE_CLEAN}, 1, where, err, err_bytes);
    if (rc == 0 && json_bool(json_get(j, "handle_chinese_chars"), true))
        rc = add_all(n, &(enum normalize_kind){NORMALIZE_HAN}, 1, where, err, err_bytes);
    if (rc == 0 && json_bool(json_get(j, "strip_accents"), lower)) { /* null: as lowercase says */
        rc = add_form(n, UNICODE_NFD, where, err, err_bytes);
        if (rc == 0)
            rc = add_all(n, &(enum normalize_kind){NORMALIZE_ACCENTS}, 1, where, err, err_bytes);
    }
    if (rc == 0 && lower)
        rc = add_all(n, &(enum normalize_kind){NORMALIZE_LOWER}, 1, where, err, err_bytes);
    return rc;
}

static int read_replace(struct normalizer *n, const struct json *j, const char *where, char *err,
                        size_t err_bytes) {
    struct normalize_step *s = add(n, NORMALIZE_REPLACE);
    if (!s)
        return err_set(err, err_bytes, ERR_LIMIT, "%s: more than %u steps", where,
                       NORMALIZER_STEPS_MAX);
    const struct json *content = json_get(j, "content");
    const struct json *plain = json_get(json_get(j, "pattern"), "String");
    const char *regex = json_str(json_get(json_get(j, "pattern"), "Regex"));
    if (!json_str(content) || (!json_str(plain) && !regex))
        return err_set(err, err_bytes, ERR_FIELD,
                       "%s: Replace: needs a pattern (String or Regex) and a content", where);
    int rc = buf_append(&s->to, json_str(content), json_str_len(content));
    if (rc < 0) return rc;
    if (regex) return regex_open(&s->regex, regex, "", err, err_bytes);
    if (json_str_len(plain) == 0)
        return err_set(err, err_bytes, ERR_FIELD, "%s: Replace: pattern: is empty", where);
    return buf_append(&s->from, json_str(plain), json_str_len(plain));
}

static int read_step(struct normalizer *n, const struct json *j, const char *type,
                     const char *where, char *err, size_t err_bytes) {
    static const struct {
        const char *type;
        enum unicode_form form;
    } forms[] = {
        {"NFC", UNICODE_NFC}, {"NFD", UNICODE_NFD}, {"NFKC", UNICODE_NFKC}, {"NFKD", UNICODE_NFKD}};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        if (strcmp(type, forms[i].type) == 0)
            return add_form(n, forms[i].form, where, err, err_bytes);
    if (strcmp(type, "BertNormalizer") == 0) return read_bert(n, j, where, err, err_bytes);
    if (strcmp(type, "Replace") == 0) return read_replace(n, j, where, err, err_bytes);
    if (strcmp(type, "Lowercase") == 0)
        return add_all(n, &(enum normalize_kind){NORMALIZE_LOWER}, 1, where, err, err_bytes);
    if (strcmp(type, "StripAccents") == 0)
        return add_all(n, &(enum normalize_kind){NORMALIZE_MARKS}, 1, where, err, err_bytes);
    if (strcmp(type, "Strip") == 0) {
        int rc = add_all(n, &(enum normalize_kind){NORMALIZE_STRIP}, 1, where, err, err_bytes);
        if (rc < 0) return rc;
        n->steps[n->n - 1].left = json_bool(json_get(j, "strip_left"), false);
        n->steps[n->n - 1].right = json_bool(json_get(j, "strip_right"), false);
        return 0;
    }
    if (strcmp(type, "Precompiled") == 0) {
        const struct json *map = json_get(j, "precompiled_charsmap");
        int rc = add_all(n, &(enum normalize_kind){NORMALIZE_CHARSMAP}, 1, where, err, err_bytes);
        if (rc == 0 && !json_str(map))
            rc = err_set(err, err_bytes, ERR_FIELD,
                         "%s: Precompiled: precompiled_charsmap: missing", where);
        if (rc < 0) return rc;
        return charsmap_read(&n->steps[n->n - 1].charsmap,
                             bytes_of(json_str(map), json_str_len(map)), where, err, err_bytes);
    }
    if (strcmp(type, "Prepend") == 0) {
        int rc = add_all(n, &(enum normalize_kind){NORMALIZE_PREPEND}, 1, where, err, err_bytes);
        const struct json *prepend = json_get(j, "prepend");
        if (rc == 0 && !json_str(prepend))
            rc = err_set(err, err_bytes, ERR_FIELD, "%s: Prepend: prepend: missing", where);
        if (rc < 0) return rc;
        return buf_append(&n->steps[n->n - 1].to, json_str(prepend), json_str_len(prepend));
    }
    return err_set(err, err_bytes, ERR_FIELD, "%s: %.60s: this normalizer is not supported", where,
                   type);
}

static int read_any(struct normalizer *n, const struct json *j, int depth, const char *where,
                    char *err, size_t err_bytes) {
    if (json_kind(j) == JSON_NULL) return 0;
    const char *type = json_str(json_get(j, "type"));
    if (!type) return err_set(err, err_bytes, ERR_FIELD, "%s: type: missing", where);
    if (strcmp(type, "Sequence") != 0) return read_step(n, j, type, where, err, err_bytes);
    if (depth == SEQUENCE_DEPTH_MAX)
        return err_set(err, err_bytes, ERR_LIMIT, "%s: Sequence: nested deeper than %d", where,
                       SEQUENCE_DEPTH_MAX);
    const struct json *list = json_get(j, "normalizers");
    if (json_kind(list) != JSON_ARRAY)
        return err_set(err, err_bytes, ERR_FIELD, "%s: Sequence: normalizers: not a list", where);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < json_len(list); i++)
        rc = read_any(n, json_at(list, i), depth + 1, where, err, err_bytes);
    return rc;
}

int normalizer_read(struct normalizer *n, const struct json *j, const char *where, char *err,
                    size_t err_bytes) {
    return read_any(n, j, 0, where, err, err_bytes);
}

void normalizer_fini(struct normalizer *n) {
    for (uint32_t i = 0; i < n->n; i++) {
        buf_fini(&n->steps[i].from);
        buf_fini(&n->steps[i].to);
        regex_close(n->steps[i].regex);
        charsmap_fini(&n->steps[i].charsmap);
    }
    *n = (struct normalizer){0};
}

/* ---- running ---- */

static void put(struct buf *out, uint32_t c) {
    char bytes[4];
    buf_append(out, bytes, unicode_put(bytes, c));
}

/* The steps that look at one character at a time. */
static int run_chars(enum normalize_kind kind, struct bytes text, struct buf *out) {
    const char *at = text.data, *end = at + text.len;
    while (at < end) {
        const char *begin = at;
        uint32_t c = unicode_next(&at), lower[2];
        switch (kind) {
        case NORMALIZE_CLEAN:
            if (unicode_is_space(c) &&
                (c == '\t' || c == '\n' || c == '\r' || !unicode_is_format(c)))
                put(out, ' ');
            else if (c != 0xFFFD && !unicode_is_format(c))
                buf_append(out, begin, (size_t)(at - begin));
            break;
        case NORMALIZE_HAN:
            if (unicode_is_han(c)) put(out, ' ');
            buf_append(out, begin, (size_t)(at - begin));
            if (unicode_is_han(c)) put(out, ' ');
            break;
        case NORMALIZE_ACCENTS:
            if (!unicode_is_accent(c)) buf_append(out, begin, (size_t)(at - begin));
            break;
        case NORMALIZE_MARKS:
            if (!unicode_is_mark(c)) buf_append(out, begin, (size_t)(at - begin));
            break;
        default: /* NORMALIZE_LOWER */
            for (uint32_t i = 0, n = unicode_lower(c, lower); i < n; i++) put(out, lower[i]);
        }
    }
    return out->error;
}

static int replace_string(const struct normalize_step *s, struct bytes text, struct buf *out) {
    const char *at = text.data, *end = at + text.len;
    while (at < end && !out->error) {
        const char *hit = memmem(at, (size_t)(end - at), s->from.data, s->from.len);
        buf_append(out, at, (size_t)((hit ? hit : end) - at));
        if (!hit) break;
        buf_append(out, s->to.data, s->to.len);
        at = hit + s->from.len;
    }
    return out->error;
}

static int replace_regex(const struct normalize_step *s, struct bytes text, struct buf *out) {
    const char *all = text.data;
    struct regex_span spans[REGEX_GROUPS];
    size_t from = 0, copied = 0;
    int rc = 0;
    while (!out->error && (rc = regex_find(s->regex, all, text.len, from, spans)) == 1) {
        buf_append(out, all + copied, spans[0].begin - copied);
        buf_append(out, s->to.data, s->to.len);
        copied = from = spans[0].end;
        if (spans[0].end > spans[0].begin) continue;
        if (from == text.len) break;
        const char *next = all + from; /* an empty match: go on behind the next character */
        unicode_next(&next);
        from = (size_t)(next - all);
    }
    if (rc < 0) return rc;
    return buf_append(out, all + copied, text.len - copied);
}

static int strip(const struct normalize_step *s, struct bytes text, struct buf *out) {
    const char *at = text.data, *end = at + text.len, *next;
    while (s->left && at < end && (next = at, unicode_is_space(unicode_next(&next)))) at = next;
    while (s->right && at < end && unicode_is_space(unicode_before(end, &next))) end = next;
    return buf_append(out, at, (size_t)(end - at));
}

static int run_step(const struct normalize_step *s, struct bytes text, struct buf *out) {
    switch (s->kind) {
    case NORMALIZE_FORM: return unicode_normalize((enum unicode_form)s->form, text, out);
    case NORMALIZE_PREPEND:
        buf_append(out, s->to.data, s->to.len);
        return buf_append(out, text.data, text.len);
    case NORMALIZE_REPLACE:
        return s->regex ? replace_regex(s, text, out) : replace_string(s, text, out);
    case NORMALIZE_STRIP: return strip(s, text, out);
    case NORMALIZE_CHARSMAP: return charsmap_run(&s->charsmap, text, out);
    default: return run_chars(s->kind, text, out);
    }
}

int normalizer_run(const struct normalizer *n, struct bytes text, struct buf *out) {
    struct buf other = {.max_bytes = out->max_bytes};
    int rc = buf_append(out, text.data, text.len);
    for (uint32_t i = 0; rc == 0 && out->len > 0 && i < n->n; i++) {
        struct buf swap = other;
        other = *out;
        *out = swap;
        buf_clear(out);
        rc = run_step(&n->steps[i], buf_bytes(&other), out);
    }
    buf_fini(&other);
    return rc;
}
