#include "client/cli/feed.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "schemas/pack.h"

#define FIELDS_MAX 4u
#define SUFFIXES_MAX 6

static const struct rules {
    const char *kind;
    const char *patterns[SUFFIXES_MAX];
    /* The field that takes a file with this suffix ("": any), and the one that takes what the
     * first cannot: text that is not UTF-8, or too long. */
    struct take {
        const char *suffix, *field, *otherwise;
    } takes[3];
    const char *stem; /* the field that gets the file's name without its suffix */
    struct {          /* a file of the same stem beside it; the first that is there */
        const char *field, *suffix[SUFFIXES_MAX];
    } beside;
} table[] = {
    {.kind = "contract.analyze",
     .patterns = {"*.pdf", "*.txt"},
     .takes = {{".txt", "text", "document"}, {"", "document", "text"}}},
    {.kind = "qc.inspect",
     .patterns = {"*.png", "*.jpg", "*.jpeg"},
     .takes = {{"", "image", NULL}},
     .stem = "part_id",
     .beside = {"log", {".log", ".csv", ".jsonl", ".txt"}}},
    {.kind = "text.embed", .patterns = {"*.txt"}, .takes = {{"", "texts", NULL}}},
    {.kind = "text.generate", .patterns = {"*.txt"}, .takes = {{"", "prompt", NULL}}},
};

static const struct rules *rules_of(const char *kind) {
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (strcmp(table[i].kind, kind) == 0) return &table[i];
    return NULL;
}

const char *const *feed_patterns(const char *kind) {
    const struct rules *r = rules_of(kind);
    return r ? r->patterns : NULL;
}

/* ---- what a file gives ---- */

struct given {
    const struct field *field;
    char *data; /* owned */
    size_t bytes;
};
struct feed {
    const struct body *set;
    struct given given[FIELDS_MAX];
    uint32_t n;
};

static bool is_set(const struct body *set, const char *name) {
    for (uint32_t i = 0; i < set->n_bins; i++)
        if (strcmp(set->bin[i].field->name, name) == 0) return true;
    return json_get(set->json, name) != NULL;
}

/* Takes data. */
static void give(struct feed *f, const struct field *field, char *data, size_t bytes) {
    f->given[f->n++] = (struct given){field, data, bytes};
}

/* NULL when the kind has no such field, or it cannot hold this. */
static const struct field *fits(const struct kind_desc *kind, const char *name, const char *data,
                                size_t bytes) {
    const struct field *f = name ? field_find(kind->fields, kind->n, name) : NULL;
    if (!f || f->type == FIELD_BIN) return f;
    if (f->type == FIELD_STR && bytes > f->max) return NULL;
    return utf8_check(data, bytes) == bytes ? f : NULL;
}

static const struct field *choose(const struct kind_desc *kind, const char *path, const char *data,
                                  size_t bytes) {
    const struct rules *r = rules_of(kind->name);
    size_t len = strlen(path);
    for (const struct take *t = r ? r->takes : NULL; t && t->suffix; t++) {
        size_t suffix = strlen(t->suffix);
        if (suffix > len || strcasecmp(path + len - suffix, t->suffix) != 0) continue;
        const struct field *f = fits(kind, t->field, data, bytes);
        return f ? f : fits(kind, t->otherwise, data, bytes);
    }
    for (uint32_t i = 0; i < kind->n; i++) /* of a kind without rules the first that is needed */
        if (kind->fields[i].required) return fits(kind, kind->fields[i].name, data, bytes);
    return NULL;
}

static int give_file(struct feed *f, const char *path, char *err, size_t err_bytes) {
    void *data;
    size_t bytes;
    int rc = file_read(path, LIMIT_OUTPUT_BYTES, &data, &bytes, err, err_bytes);
    if (rc < 0) return rc;
    const struct field *field = choose(f->set->kind, path, data, bytes);
    if (!field) {
        size_t good = utf8_check(data, bytes);
        free(data);
        if (good != bytes)
            return err_set(err, err_bytes, ERR_FIELD,
                           "byte %zu is not UTF-8; convert it first, as with iconv -f GB18030 -t "
                           "UTF-8",
                           good);
        return err_set(err, err_bytes, ERR_FIELD,
                       "%zu bytes are more than a field of %s takes; split it", bytes,
                       f->set->kind->name);
    }
    give(f, field, data, bytes);
    return 0;
}

/* The file's stem, and the first neighbour of the same stem. */
static int give_neighbours(struct feed *f, const char *path, char *err, size_t err_bytes) {
    const struct rules *r = rules_of(f->set->kind->name);
    const struct kind_desc *kind = f->set->kind;
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    const char *dot = strrchr(name, '.');
    size_t end = dot && dot > name ? (size_t)(dot - path) : strlen(path);
    if (r && r->stem && !is_set(f->set, r->stem)) {
        struct bytes stem = bytes_of(name, end - (size_t)(name - path));
        char *copy = bytes_dup(stem);
        if (!copy) return err_set(err, err_bytes, -ENOMEM, "out of memory");
        give(f, field_find(kind->fields, kind->n, r->stem), copy, stem.len);
    }
    if (!r || !r->beside.field || is_set(f->set, r->beside.field)) return 0;
    for (const char *const *s = r->beside.suffix; *s; s++) {
        char beside[PATH_MAX];
        void *data;
        size_t bytes;
        int n = snprintf(beside, sizeof beside, "%.*s%s", (int)end, path, *s);
        if (n < 0 || (size_t)n >= sizeof beside || access(beside, F_OK) != 0) continue;
        int rc = file_read(beside, LIMIT_OUTPUT_BYTES, &data, &bytes, err, err_bytes);
        if (rc < 0) return rc;
        give(f, field_find(kind->fields, kind->n, r->beside.field), data, bytes);
        return 0;
    }
    return 0;
}

/* ---- the body ---- */

/* One text a line; empty lines are none. */
static void pack_lines(struct packer *p, struct bytes text) {
    const char *at = text.data;
    for (int pass = 0, lines = 0; pass < 2; pass++) {
        if (pass) pack_array(p, (uint32_t)lines);
        for (size_t i = 0, len; i < text.len; i += len + 1) {
            const char *end = memchr(at + i, '\n', text.len - i);
            len = end ? (size_t)(end - at) - i : text.len - i;
            size_t used = len && at[i + len - 1] == '\r' ? len - 1 : len;
            if (used == 0) continue;
            if (pass) pack_strn(p, bytes_of(at + i, used));
            lines++;
        }
    }
}

static void pack_given(struct packer *p, const struct given *g) {
    struct bytes data = bytes_of(g->data, g->bytes);
    pack_str(p, g->field->name);
    if (g->field->type == FIELD_BIN)
        pack_bin(p, data);
    else if (g->field->type == FIELD_STRS)
        pack_lines(p, data);
    else
        pack_strn(p, data);
}

int feed_body(const struct body *set, const char *path, struct buf *out, char *err,
              size_t err_bytes) {
    struct feed f = {.set = set};
    int rc = give_file(&f, path, err, err_bytes);
    if (rc == 0) rc = give_neighbours(&f, path, err, err_bytes);
    if (rc == 0) {
        struct packer p = packer_of(out);
        uint32_t n = 0;
        for (uint32_t i = 0; i < f.n; i++) n += !is_set(set, f.given[i].field->name);
        rc = body_pack(set, n, out) == 0 ? 0 : ERR_FIELD;
        for (uint32_t i = 0; i < f.n; i++)
            if (!is_set(set, f.given[i].field->name)) pack_given(&p, &f.given[i]);
        if (out->error) rc = err_set(err, err_bytes, -ENOMEM, "out of memory");
    }
    for (uint32_t i = 0; i < f.n; i++) free(f.given[i].data);
    return rc;
}
