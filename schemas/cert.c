#include "schemas/cert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"
#include "base/file.h"

static const struct {
    enum cert_right right;
    const char *word;
} rights[] = {
    {CERT_SUBMIT, "submit"}, {CERT_READ, "read"}, {CERT_ADMIN, "admin"}, {CERT_WORKER, "worker"}};
#define N_RIGHTS (sizeof rights / sizeof *rights)
#define RIGHTS_ARE "rights are submit, read, admin and worker:STAGE"

/* ---- words ---- */

static bool name_byte(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
}

bool cert_name_ok(struct bytes name) {
    const char *text = name.data;
    if (name.len == 0 || name.len > LIMIT_NAME_BYTES || text[0] == '.' || text[0] == '-')
        return false;
    for (size_t i = 0; i < name.len; i++)
        if (!name_byte(text[i])) return false;
    return true;
}

static bool stage_ok(struct bytes stage) {
    const char *text = stage.data;
    if (bytes_is(stage, "*")) return true;
    if (stage.len > 0 && text[stage.len - 1] == '*') stage.len--;
    return cert_name_ok(stage);
}

/* The next item of a list with commas, without the spaces around it. */
static bool next_item(struct bytes *list, struct bytes *item) {
    if (!list->data) return false;
    const char *at = list->data, *end = at + list->len;
    const char *comma = list->len ? memchr(at, ',', list->len) : NULL;
    const char *stop = comma ? comma : end;
    *list = comma ? bytes_of(comma + 1, (size_t)(end - comma - 1)) : (struct bytes){NULL, 0};
    while (at < stop && *at == ' ') at++;
    while (stop > at && stop[-1] == ' ') stop--;
    *item = bytes_of(at, (size_t)(stop - at));
    return true;
}

static uint32_t right_of(struct bytes word) {
    for (size_t i = 0; i < N_RIGHTS; i++)
        if (bytes_is(word, rights[i].word)) return rights[i].right;
    return 0;
}

bool cert_stage_in(const char *stages, struct bytes stage) {
    struct bytes list = bytes_str(stages), item;
    while (next_item(&list, &item)) {
        const char *text = item.data;
        if (item.len > 0 && text[item.len - 1] == '*') {
            size_t head = item.len - 1;
            if (stage.len >= head && (head == 0 || memcmp(stage.data, text, head) == 0))
                return true;
        } else if (bytes_eq(item, stage)) {
            return true;
        }
    }
    return false;
}

static int add_stage(struct cert *c, struct bytes stage, char *err, size_t err_bytes) {
    size_t used = strlen(c->stages);
    if (!stage_ok(stage))
        return err_set(err, err_bytes, -EINVAL,
                       "'%.*s' is not the name of a stage; write worker:infer.embed, worker:post.* "
                       "or worker:*",
                       (int)(stage.len > 64 ? 64 : stage.len), (const char *)stage.data);
    if (used + stage.len + 2 > sizeof c->stages)
        return err_set(err, err_bytes, ERR_LIMIT, "the stages have more than %u bytes together",
                       CERT_STAGES_BYTES - 1);
    if (used) c->stages[used++] = ',';
    memcpy(c->stages + used, stage.data, stage.len);
    c->stages[used + stage.len] = '\0';
    return 0;
}

int cert_rights_parse(struct cert *c, const char *text, char *err, size_t err_bytes) {
    struct bytes list = bytes_str(text), item;
    c->rights = 0;
    c->stages[0] = '\0';
    while (next_item(&list, &item)) {
        const char *word = item.data;
        if (item.len > 7 && memcmp(word, "worker:", 7) == 0) {
            int rc = add_stage(c, bytes_of(word + 7, item.len - 7), err, err_bytes);
            if (rc < 0) return rc;
            c->rights |= CERT_WORKER;
            continue;
        }
        uint32_t right = right_of(item);
        if (right == CERT_WORKER)
            return err_set(
                err, err_bytes, -EINVAL,
                "a worker's stages must be named: worker:infer.embed, or worker:* for all");
        if (!right)
            return err_set(err, err_bytes, -EINVAL, "'%.*s' is not a right; " RIGHTS_ARE,
                           (int)(item.len > 64 ? 64 : item.len), word);
        c->rights |= right;
    }
    return 0;
}

void cert_rights_text(uint32_t given, const char *stages, char *out, size_t out_bytes) {
    struct buf b = {0};
    for (size_t i = 0; i + 1 < N_RIGHTS; i++)
        if (given & rights[i].right) buf_printf(&b, "%s%s", b.len ? "," : "", rights[i].word);
    struct bytes list = bytes_str(given & CERT_WORKER ? stages : NULL), item;
    while (next_item(&list, &item))
        buf_printf(&b, "%sworker:%.*s", b.len ? "," : "", (int)item.len, (const char *)item.data);
    snprintf(out, out_bytes, "%.*s", (int)b.len, b.data ? (const char *)b.data : "");
    buf_fini(&b);
}

/* ---- the file's text: ZPL, one section deep ---- */

struct line {
    uint32_t number;
    bool indented;
    struct bytes name, value; /* value.data NULL: a section begins */
};

static bool blank(char c) {
    return c == ' ' || c == '\t' || c == '\r';
}

static int bad(const struct line *l, const char *what, char *err, size_t err_bytes) {
    return err_set(err, err_bytes, ERR_CORRUPT, "line %u: %s", l->number, what);
}

/* The value behind '=': in quotes, or up to a comment. */
static int take_value(struct line *l, const char *at, const char *end, char *err,
                      size_t err_bytes) {
    while (at < end && blank(*at)) at++;
    if (at < end && (*at == '"' || *at == '\'')) {
        const char *close = memchr(at + 1, *at, (size_t)(end - at - 1));
        if (!close) return bad(l, "a quote is not closed", err, err_bytes);
        l->value = bytes_of(at + 1, (size_t)(close - at - 1));
        for (at = close + 1; at < end && blank(*at);) at++;
        if (at < end && *at != '#') return bad(l, "something follows the value", err, err_bytes);
        return 0;
    }
    const char *hash = memchr(at, '#', (size_t)(end - at));
    if (hash) end = hash;
    while (end > at && blank(end[-1])) end--;
    l->value = bytes_of(at, (size_t)(end - at));
    return 0;
}

/* Reads one line off *rest. 1: something is on it; 0: nothing, or a comment. */
static int take_line(struct bytes *rest, struct line *l, char *err, size_t err_bytes) {
    const char *at = rest->data, *all = at + rest->len;
    const char *newline = memchr(at, '\n', rest->len), *end = newline ? newline : all;
    *rest = newline ? bytes_of(newline + 1, (size_t)(all - newline - 1)) : bytes_of(all, 0);
    l->number++;
    l->indented = at < end && blank(*at);
    l->value = (struct bytes){NULL, 0};
    if (memchr(at, '\0', (size_t)(end - at))) return bad(l, "a NUL byte", err, err_bytes);
    while (at < end && blank(*at)) at++;
    if (at == end || *at == '#') return 0;
    const char *name = at;
    while (at < end && (name_byte(*at) || *at == '/')) at++;
    l->name = bytes_of(name, (size_t)(at - name));
    while (at < end && blank(*at)) at++;
    if (l->name.len == 0) return bad(l, "not `name = value`", err, err_bytes);
    if (at == end || *at == '#') return 1;
    if (*at != '=') return bad(l, "not `name = value`", err, err_bytes);
    return take_value(l, at + 1, end, err, err_bytes) < 0 ? ERR_CORRUPT : 1;
}

static int take_key(const struct line *l, char out[SOCK_KEY_BYTES], char *err, size_t err_bytes) {
    uint8_t raw[SOCK_RAW_KEY_BYTES];
    if (bytes_to_cstr(l->value, out, SOCK_KEY_BYTES) != 0 || sock_curve_raw(raw, out) != 0)
        return bad(l, "not a key of 40 characters (Z85)", err, err_bytes);
    return 0;
}

static int take_name(const struct line *l, char *out, size_t bytes, char *err, size_t err_bytes) {
    if (!cert_name_ok(l->value))
        return bad(l, "a name has 1 to 64 of the characters A-Z a-z 0-9 . _ -", err, err_bytes);
    return bytes_to_cstr(l->value, out, bytes);
}

static int take_rights(struct cert *c, const struct line *l, char *err, size_t err_bytes) {
    struct bytes list = l->value, item;
    c->rights = 0;
    while (next_item(&list, &item)) {
        uint32_t right = right_of(item);
        if (!right && item.len)
            return bad(l, "rights are submit, read, admin and worker", err, err_bytes);
        c->rights |= right;
    }
    return 0;
}

static int take_stages(struct cert *c, const struct line *l, char *err, size_t err_bytes) {
    struct bytes list = l->value, item;
    c->stages[0] = '\0';
    while (next_item(&list, &item))
        if (item.len && add_stage(c, item, NULL, 0) != 0)
            return bad(l, "stages are names such as infer.embed, or end with *", err, err_bytes);
    return 0;
}

int cert_parse(struct cert *out, struct bytes text, char *err, size_t err_bytes) {
    enum { NOWHERE, METADATA, CURVE } section = NOWHERE;
    struct line l = {0};
    *out = (struct cert){0};
    if (text.len > CERT_BYTES_MAX)
        return err_set(err, err_bytes, ERR_LIMIT, "a certificate has at most %u bytes",
                       CERT_BYTES_MAX);
    while (text.len > 0) {
        int rc = take_line(&text, &l, err, err_bytes);
        if (rc < 0) return rc;
        if (rc == 0) continue;
        if (!l.indented) {
            section = bytes_is(l.name, "metadata") ? METADATA
                      : bytes_is(l.name, "curve")  ? CURVE
                                                   : NOWHERE;
            continue;
        }
        rc = 0;
        if (section == METADATA && bytes_is(l.name, "name"))
            rc = take_name(&l, out->name, sizeof out->name, err, err_bytes);
        else if (section == METADATA && bytes_is(l.name, "tenant"))
            rc = take_name(&l, out->tenant, sizeof out->tenant, err, err_bytes);
        else if (section == METADATA && bytes_is(l.name, "rights"))
            rc = take_rights(out, &l, err, err_bytes);
        else if (section == METADATA && bytes_is(l.name, "stages"))
            rc = take_stages(out, &l, err, err_bytes);
        else if (section == CURVE && bytes_is(l.name, "public-key"))
            rc = take_key(&l, out->public_key, err, err_bytes);
        else if (section == CURVE && bytes_is(l.name, "secret-key"))
            rc = take_key(&l, out->secret_key, err, err_bytes);
        if (rc < 0) return rc;
    }
    if (out->public_key[0]) return 0;
    return err_set(err, err_bytes, ERR_CORRUPT, "no public-key in a section `curve`");
}

int cert_print(const struct cert *c, bool secret, struct buf *out) {
    buf_printf(out, "# Penstock certificate. %s\n",
               secret ? "Holds a secret key: for its owner alone."
                      : "Holds a public key: may be shown to anybody.");
    buf_printf(out, "metadata\n    name = \"%s\"\n", c->name);
    if (c->tenant[0]) buf_printf(out, "    tenant = \"%s\"\n", c->tenant);
    if (c->rights) {
        buf_printf(out, "    rights = \"");
        for (size_t i = 0, n = 0; i < N_RIGHTS; i++)
            if (c->rights & rights[i].right)
                buf_printf(out, "%s%s", n++ ? "," : "", rights[i].word);
        buf_printf(out, "\"\n");
    }
    if (c->stages[0]) buf_printf(out, "    stages = \"%s\"\n", c->stages);
    buf_printf(out, "curve\n    public-key = \"%s\"\n", c->public_key);
    if (secret) buf_printf(out, "    secret-key = \"%s\"\n", c->secret_key);
    return out->error;
}

/* ---- files ---- */

int cert_load(struct cert *out, const char *path, char *err, size_t err_bytes) {
    void *data;
    size_t bytes;
    char why[256];
    struct stat st;
    int rc = file_read(path, CERT_BYTES_MAX, &data, &bytes, err, err_bytes);
    if (rc < 0) return rc;
    rc = cert_parse(out, bytes_of(data, bytes), why, sizeof why);
    free(data);
    if (rc < 0) return err_set(err, err_bytes, rc, "%s: %s", path, why);
    if (!out->secret_key[0]) return 0;
    char public_key[SOCK_KEY_BYTES];
    if (stat(path, &st) != 0) rc = -errno;
    if (rc == 0 && (st.st_mode & 077))
        rc = err_set(err, err_bytes, -EPERM,
                     "%s holds a secret key and can be read by other users; run chmod 600 on it, "
                     "and make a new key if others may have seen it",
                     path);
    else if (rc == 0 && (sock_curve_public(public_key, out->secret_key) != 0 ||
                         strcmp(public_key, out->public_key) != 0))
        rc = err_set(err, err_bytes, ERR_CORRUPT, "%s: its two keys do not belong together", path);
    else if (rc < 0)
        err_set(err, err_bytes, rc, "%s: %s", path, err_text(rc));
    if (rc < 0) *out = (struct cert){0};
    return rc;
}

int cert_pair_load(struct cert_pair *out, const char *file, const char *server, bool *used,
                   char *err, size_t err_bytes) {
    bool own = file && file[0], of_server = server && server[0];
    uint8_t raw[SOCK_RAW_KEY_BYTES];
    *used = false;
    *out = (struct cert_pair){0};
    if (!own && !of_server) return 0;
    if (!own || !of_server)
        return err_set(
            err, err_bytes, -EINVAL,
            "%s is missing: a connection is encrypted with both --key-file NAME.cert_secret and "
            "--server-key broker.cert",
            own ? "the broker's key" : "one's own key");
    int rc = cert_load(&out->own, file, err, err_bytes);
    if (rc < 0) return rc;
    if (!out->own.secret_key[0])
        return err_set(err, err_bytes, -EINVAL,
                       "%s holds no secret key; name the .cert_secret file", file);
    if (sock_curve_raw(raw, server) == 0) {
        memcpy(out->server_key, server, SOCK_KEY_BYTES);
    } else {
        struct cert c;
        rc = cert_load(&c, server, err, err_bytes);
        if (rc < 0) return rc;
        memcpy(out->server_key, c.public_key, SOCK_KEY_BYTES);
    }
    out->curve = (struct sock_curve){out->own.public_key, out->own.secret_key, out->server_key};
    *used = true;
    return 0;
}
