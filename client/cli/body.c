#include "client/cli/body.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/file.h"
#include "client/cli/cli.h"
#include "schemas/json_schema.h"
#include "schemas/pack.h"

#define FILE_BYTES_MAX (64u * 1024u * 1024u) /* the broker's own limits are lower and named by it */

int body_init(struct body *b, const char *kind) {
    *b = (struct body){.kind = kind_find(bytes_str(kind)), .json = json_new_object()};
    return b->json ? CLI_OK : cli_fail(PENSTOCK_MEMORY, "out of memory");
}

void body_fini(struct body *b) {
    json_free(b->json);
    for (uint32_t i = 0; i < b->n_bins; i++) free(b->bin[i].data);
    *b = (struct body){0};
}

static int read_input(const char *path, char **text, size_t *bytes) {
    char err[512];
    void *data;
    if (strcmp(path, "-") == 0) path = "/dev/stdin";
    int rc = file_read(path, FILE_BYTES_MAX, &data, bytes, err, sizeof err);
    *text = data;
    return rc < 0 ? cli_usage("%s", err) : CLI_OK;
}

/* The broker ignores fields that it does not know; from the command line they are mistakes. */
static int unknown_field(const struct body *b, const char *name) {
    if (strcmp(name, "model") == 0)
        return cli_usage("%s has no field 'model': the pipeline names the model; write one that "
                         "names yours, and submit with --pipeline (see README)",
                         b->kind->name);
    return cli_usage("%s has no field '%.60s'; `penstock schema %s` lists them", b->kind->name,
                     name, b->kind->name);
}

int body_load(struct body *b, const char *path) {
    char *text, err[512];
    size_t bytes;
    int code = read_input(path, &text, &bytes);
    if (code != CLI_OK) return code;
    struct json *j;
    int rc = json_parse(&j, text, bytes, err, sizeof err);
    free(text);
    if (rc < 0) return cli_usage("%s: %s", path, err);
    if (json_kind(j) != JSON_OBJECT) {
        json_free(j);
        return cli_usage(
            "%s: the body is a JSON object of the kind's fields; see `penstock schema`", path);
    }
    json_free(b->json);
    b->json = j;
    const char *key;
    const struct json *value;
    for (size_t it = 0; b->kind && json_next(j, &it, &key, &value);)
        if (!field_find(b->kind->fields, b->kind->n, key)) return unknown_field(b, key);
    return CLI_OK;
}

/* ---- one field ---- */

static int no_memory(void) {
    return cli_fail(PENSTOCK_MEMORY, "out of memory");
}

/* Appends to a list that may not be there yet. */
static int append(struct body *b, const struct field *f, struct json *item) {
    struct json *list = json_new_array();
    const struct json *old = json_get(b->json, f->name);
    int rc = list ? 0 : -ENOMEM;
    for (size_t i = 0; rc == 0 && i < json_len(old); i++) {
        const struct json *s = json_at(old, i);
        rc = json_str(s) ? json_push(list, json_new_str(json_str(s), json_str_len(s))) : 0;
    }
    if (rc == 0) rc = json_push(list, item);
    if (rc == 0) return json_set(b->json, f->name, list) < 0 ? no_memory() : CLI_OK;
    json_free(list);
    return no_memory();
}

/* The strings of a list that is written as JSON. */
static int append_list(struct body *b, const struct field *f, const char *text, size_t bytes) {
    struct json *list;
    char err[256];
    if (json_parse(&list, text, bytes, err, sizeof err) < 0)
        return cli_usage("%s: %s; write [\"one\", \"two\"]", f->name, err);
    int code = CLI_OK;
    for (size_t i = 0; code == CLI_OK && i < json_len(list); i++) {
        const struct json *s = json_at(list, i);
        code = json_str(s) ? append(b, f, json_new_str(json_str(s), json_str_len(s)))
                           : cli_usage("%s: item %zu is not a string; write [\"one\", \"two\"]",
                                       f->name, i);
    }
    json_free(list);
    return code;
}

/* A list, or one string more: "[INST]" is a string. */
static int append_text(struct body *b, const struct field *f, const char *text, size_t bytes) {
    static const char spaces[] = " \t\r\n";
    const char *begin = text + strspn(text, spaces);
    if (*begin == '[') {
        begin += 1 + strspn(begin + 1, spaces);
        if (*begin == '"' || *begin == ']') return append_list(b, f, text, bytes);
    }
    return append(b, f, json_new_str(text, bytes));
}

static int not_a(const struct field *f, const char *text, const char *what) {
    return cli_usage("%s: '%.60s' is not %s (%s)", f->name, text, what, f->doc);
}

static int set_number(struct body *b, const struct field *f, const char *text) {
    char *end;
    errno = 0;
    if (f->type == FIELD_F64) {
        double v = strtod(text, &end);
        if (end == text || *end || errno) return not_a(f, text, "a number");
        return json_set(b->json, f->name, json_new_real(v)) < 0 ? no_memory() : CLI_OK;
    }
    long long v = strtoll(text, &end, 10);
    if (end == text || *end || errno) return not_a(f, text, "an integer");
    return json_set(b->json, f->name, json_new_int(v)) < 0 ? no_memory() : CLI_OK;
}

/* Takes data. A field that is given again has its last value. */
static int set_bin(struct body *b, const struct field *f, void *data, size_t bytes) {
    uint32_t i = 0;
    while (i < b->n_bins && b->bin[i].field != f) i++;
    if (i == BODY_BINS_MAX) {
        free(data);
        return cli_usage("more than %u binary fields", BODY_BINS_MAX);
    }
    if (i == b->n_bins)
        b->n_bins++;
    else
        free(b->bin[i].data);
    b->bin[i] = (struct body_bin){f, data, bytes};
    return CLI_OK;
}

static int set_bin_from(struct body *b, const struct field *f, const char *text, size_t bytes) {
    void *copy = malloc(bytes ? bytes : 1);
    if (!copy) return no_memory();
    memcpy(copy, text, bytes);
    return set_bin(b, f, copy, bytes);
}

static int load_bin(struct body *b, const struct field *f, const char *path) {
    char *data;
    size_t bytes;
    int code = read_input(path, &data, &bytes);
    return code == CLI_OK ? set_bin(b, f, data, bytes) : code;
}

/* A value that may be given as its JSON text, or a text for a list of them. */
static int load_text(struct body *b, const struct field *f, const char *path) {
    char *text;
    size_t bytes;
    int code = read_input(path, &text, &bytes);
    if (code != CLI_OK) return code;
    size_t good = utf8_check(text, bytes);
    if (good != bytes)
        code = cli_usage("%s: byte %zu is not UTF-8", path, good);
    else if (f->type == FIELD_STRS)
        code = append_text(b, f, text, bytes);
    else if (json_set(b->json, f->name, json_new_str(text, bytes)) < 0)
        code = no_memory();
    free(text);
    return code;
}

static int set_field(struct body *b, const struct field *f, const char *text, size_t bytes) {
    if (f->type == FIELD_BIN && text[0] == '@') return load_bin(b, f, text + 1);
    if (f->type == FIELD_BIN) return set_bin_from(b, f, text, bytes);
    if (f->type == FIELD_PACK && text[0] == '@') return load_text(b, f, text + 1);
    size_t good = utf8_check(text, bytes);
    if (good != bytes)
        return cli_usage("%s: byte %zu is not UTF-8; convert it first, as with iconv -f GB18030 "
                         "-t UTF-8",
                         f->name, good);
    bool yes = strcmp(text, "true") == 0 || strcmp(text, "1") == 0;
    switch (f->type) {
    case FIELD_U64:
    case FIELD_F64: return set_number(b, f, text);
    case FIELD_BOOL:
        if (!yes && strcmp(text, "false") != 0 && strcmp(text, "0") != 0)
            return not_a(f, text, "true or false");
        return json_set(b->json, f->name, json_new_bool(yes)) < 0 ? no_memory() : CLI_OK;
    case FIELD_STRS: return append(b, f, json_new_str(text, bytes));
    default:
        return json_set(b->json, f->name, json_new_str(text, bytes)) < 0 ? no_memory() : CLI_OK;
    }
}

static int unknown_kind(void) {
    return cli_usage(
        "this program does not know that kind of job; `penstock schema` lists those it "
        "does; for another give the whole body with --body-json");
}

/* The field that --text and --file mean: the first that is required, or of those of which one is
 * given the one of the type that fits, else the first of those. */
static const struct field *main_field(const struct body *b, enum field_type fits) {
    for (uint32_t i = 0; b->kind && i < b->kind->n; i++) {
        const struct field *f = &b->kind->fields[i];
        if (f->required || (f->one_of && f->type == fits)) return f;
    }
    for (uint32_t i = 0; b->kind && i < b->kind->n; i++)
        if (b->kind->fields[i].one_of) return &b->kind->fields[i];
    return NULL;
}

int body_text(struct body *b, const char *text) {
    const struct field *f = main_field(b, FIELD_STR);
    return f ? set_field(b, f, text, strlen(text)) : unknown_kind();
}

static int each_line(struct body *b, const struct field *f, char *text, size_t bytes) {
    int code = CLI_OK;
    for (char *at = text, *end = text + bytes; code == CLI_OK && at < end;) {
        char *line_end = memchr(at, '\n', (size_t)(end - at));
        size_t len = line_end ? (size_t)(line_end - at) : (size_t)(end - at);
        char *next = at + len + 1;
        if (len && at[len - 1] == '\r') len--;
        at[len] = '\0';
        if (len) code = set_field(b, f, at, len);
        at = next;
    }
    return code;
}

int body_file(struct body *b, const char *path) {
    const struct field *f = main_field(b, FIELD_BIN);
    if (!f) return unknown_kind();
    if (f->type == FIELD_BIN) return load_bin(b, f, path);
    char *text;
    size_t bytes;
    int code = read_input(path, &text, &bytes);
    if (code != CLI_OK) return code;
    if (f->type == FIELD_STRS)
        code = each_line(b, f, text, bytes);
    else
        code = set_field(b, f, text, bytes);
    free(text);
    return code;
}

int body_set(struct body *b, const char *assignment) {
    const char *equals = strchr(assignment, '=');
    char name[LIMIT_NAME_BYTES + 1];
    if (!b->kind) return unknown_kind();
    if (!equals || (size_t)(equals - assignment) >= sizeof name)
        return cli_usage("--set %.60s: write --set name=value", assignment);
    memcpy(name, assignment, (size_t)(equals - assignment));
    name[equals - assignment] = '\0';
    const struct field *f = field_find(b->kind->fields, b->kind->n, name);
    if (!f) return unknown_field(b, name);
    const char *value = equals + 1;
    if (f->type != FIELD_STRS) return set_field(b, f, value, strlen(value));
    if (value[0] == '@' && value[1]) return load_text(b, f, value + 1);
    if (utf8_check(value, strlen(value)) == strlen(value))
        return append_text(b, f, value, strlen(value));
    return set_field(b, f, value, strlen(value)); /* says what is wrong with it */
}

int body_pack(const struct body *b, uint32_t more, struct buf *out) {
    struct packer p = packer_of(out);
    const char *key;
    const struct json *value;
    char err[256];
    pack_map(&p, (uint32_t)json_len(b->json) + b->n_bins + more);
    for (size_t it = 0; json_next(b->json, &it, &key, &value);) {
        pack_str(&p, key);
        if (json_to_pack(value, out, err, sizeof err) < 0) return cli_usage("%s: %s", key, err);
    }
    for (uint32_t i = 0; i < b->n_bins; i++) {
        pack_str(&p, b->bin[i].field->name);
        pack_bin(&p, bytes_of(b->bin[i].data, b->bin[i].bytes));
    }
    return out->error ? no_memory() : CLI_OK;
}
