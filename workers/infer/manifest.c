#include "workers/infer/manifest.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "schemas/model_dir.h"

#define JSON_BYTES_MAX (1u << 20)

void manifest_fini(struct manifest *m) {
    for (uint32_t i = 0; i < m->n; i++) free(m->file[i].path);
    free(m->file);
    free(m->model);
    free(m->origin);
    *m = (struct manifest){0};
}

static int no_memory(char *err, size_t err_bytes) {
    return err_set(err, err_bytes, -ENOMEM, "no memory for a manifest");
}

static int by_path(const void *a, const void *b) {
    return strcmp(((const struct manifest_file *)a)->path, ((const struct manifest_file *)b)->path);
}

int manifest_add(struct manifest *m, const char *path, uint64_t bytes, char *err,
                 size_t err_bytes) {
    if (bytes > MANIFEST_FILE_BYTES_MAX)
        return err_set(err, err_bytes, ERR_LIMIT,
                       "%s: %" PRIu64 " bytes; a file has at most %" PRIu64, path, bytes,
                       MANIFEST_FILE_BYTES_MAX);
    if (m->n == MANIFEST_FILES_MAX)
        return err_set(err, err_bytes, ERR_LIMIT, "%s: a model of more than %u files", path,
                       MANIFEST_FILES_MAX);
    struct manifest_file *grown = realloc(m->file, (m->n + 1) * sizeof *grown);
    char *copy = strdup(path);
    if (grown) m->file = grown;
    if (!grown || !copy) {
        free(copy);
        return no_memory(err, err_bytes);
    }
    m->file[m->n++] = (struct manifest_file){.path = copy, .bytes = bytes};
    return 0;
}

static int digest(struct manifest *m) {
    struct buf b = {0};
    if (m->n) qsort(m->file, m->n, sizeof *m->file, by_path);
    for (uint32_t i = 0; i < m->n; i++)
        buf_printf(&b, "%s  %s\n", m->file[i].sha256, m->file[i].path);
    int rc = b.error;
    if (rc == 0) digest_sha256(buf_bytes(&b), m->digest);
    buf_fini(&b);
    return rc;
}

static int read_files(struct manifest *m, const char *path, const struct json *files, char *err,
                      size_t err_bytes) {
    const struct json *row;
    const char *name;
    int rc = 0;
    for (size_t it = 0; rc == 0 && json_next(files, &it, &name, &row);) {
        const char *sha256 = json_str(json_get(row, "sha256"));
        int64_t bytes = json_int(json_get(row, "bytes"), -1);
        if (!sha256 || strlen(sha256) != DIGEST_SHA256_CHARS - 1 || bytes < 0 ||
            !model_dir_is_path(name))
            return err_set(err, err_bytes, ERR_FIELD, "%s: files: %s: not a file of the model",
                           path, name);
        rc = manifest_add(m, name, (uint64_t)bytes, err, err_bytes);
        if (rc != 0) return rc;
        memcpy(m->file[m->n - 1].sha256, sha256, DIGEST_SHA256_CHARS);
    }
    return rc;
}

int manifest_load(struct manifest *m, const char *dir, char *err, size_t err_bytes) {
    char path[PATH_MAX];
    struct json *root = NULL;
    *m = (struct manifest){0};
    int len = snprintf(path, sizeof path, "%s/%s", dir, MANIFEST_NAME);
    if (len < 0 || (size_t)len >= sizeof path || access(path, F_OK) != 0) return -ENOENT;
    int rc = json_load(&root, path, JSON_BYTES_MAX, err, err_bytes);
    if (rc != 0) return rc == -ENOENT ? ERR_CORRUPT : rc;
    const char *model = json_str(json_get(root, "model")),
               *origin = json_str(json_get(root, "origin"));
    m->model = strdup(model ? model : "");
    m->origin = strdup(origin ? origin : "");
    if (!m->model || !m->origin) rc = no_memory(err, err_bytes);
    if (rc == 0) rc = read_files(m, path, json_get(root, "files"), err, err_bytes);
    if (rc == 0 && m->n == 0)
        rc = err_set(err, err_bytes, ERR_FIELD, "%s: files: missing or empty", path);
    if (rc == 0 && digest(m) != 0) rc = no_memory(err, err_bytes);
    json_free(root);
    if (rc != 0) manifest_fini(m);
    return rc;
}

int manifest_write(struct manifest *m, const char *dir, char *err, size_t err_bytes) {
    char path[PATH_MAX];
    if (digest(m) != 0) return no_memory(err, err_bytes);
    struct json *root = json_new_object(), *files = json_new_object();
    json_set(root, "model", json_new_str(m->model, strlen(m->model)));
    json_set(root, "origin", json_new_str(m->origin, strlen(m->origin)));
    json_set(root, "digest", json_new_str(m->digest, strlen(m->digest)));
    for (uint32_t i = 0; i < m->n; i++) {
        struct json *row = json_new_object();
        json_set(row, "bytes", json_new_int((int64_t)m->file[i].bytes));
        json_set(row, "sha256", json_new_str(m->file[i].sha256, strlen(m->file[i].sha256)));
        json_set(files, m->file[i].path, row);
    }
    json_set(root, "files", files);
    char *text = json_text(root, 2);
    json_free(root);
    int len = snprintf(path, sizeof path, "%s/%s", dir, MANIFEST_NAME);
    int rc = text && len > 0 && (size_t)len < sizeof path
                 ? file_replace(path, text, strlen(text), err, err_bytes)
                 : no_memory(err, err_bytes);
    free(text);
    return rc;
}

int manifest_check(const struct manifest *m, const char *dir, bool deep, char *err,
                   size_t err_bytes) {
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < m->n; i++) {
        const struct manifest_file *f = &m->file[i];
        char path[PATH_MAX], sha256[DIGEST_SHA256_CHARS];
        struct stat st;
        int len = snprintf(path, sizeof path, "%s/%s", dir, f->path);
        if (len < 0 || (size_t)len >= sizeof path || stat(path, &st) != 0)
            return err_set(err, err_bytes, ERR_CORRUPT,
                           "%s/%s: missing, the model was imported with it", dir, f->path);
        if ((uint64_t)st.st_size != f->bytes)
            return err_set(err, err_bytes, ERR_CORRUPT,
                           "%s: has %" PRIu64 " bytes, was imported with %" PRIu64
                           ": import it again",
                           path, (uint64_t)st.st_size, f->bytes);
        if (deep) rc = digest_file_sha256(path, sha256, NULL, err, err_bytes);
        if (deep && rc == 0 && strcmp(sha256, f->sha256) != 0)
            rc = err_set(err, err_bytes, ERR_CORRUPT,
                         "%s: SHA-256 is %.16s..., was imported with %.16s...: import it again",
                         path, sha256, f->sha256);
    }
    return rc;
}

int manifest_check_dir(const char *dir, char *err, size_t err_bytes) {
    struct manifest m;
    int rc = manifest_load(&m, dir, err, err_bytes);
    if (rc != 0) return rc == -ENOENT ? 0 : rc;
    rc = manifest_check(&m, dir, false, err, err_bytes);
    manifest_fini(&m);
    return rc;
}

uint64_t manifest_bytes(const struct manifest *m) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < m->n; i++) bytes += m->file[i].bytes;
    return bytes;
}
