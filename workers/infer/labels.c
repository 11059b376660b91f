#include "workers/infer/labels.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"

#define JSON_BYTES_MAX (4u * 1024u * 1024u)

void labels_fini(struct labels *l) {
    for (uint32_t i = 0; l->name && i < l->n; i++) free(l->name[i]);
    free(l->name);
    *l = (struct labels){0};
}

/* A key of id2label is the class's number in decimal. */
static int read_names(struct labels *l, const struct json *names, const char *path, char *err,
                      size_t err_bytes) {
    const struct json *value;
    const char *key;
    for (size_t it = 0; json_next(names, &it, &key, &value);) {
        char *end;
        unsigned long id = strtoul(key, &end, 10);
        if (*key < '0' || *key > '9' || *end || id >= l->n || !json_str(value))
            return err_set(err, err_bytes, ERR_FIELD,
                           "%s: id2label: %.60s: not the name of one of %u classes", path, key,
                           l->n);
        free(l->name[id]);
        l->name[id] = bytes_dup(bytes_of(json_str(value), json_str_len(value)));
        if (!l->name[id])
            return err_set(err, err_bytes, -ENOMEM, "no memory for the names of classes");
    }
    return 0;
}

int labels_read(struct labels *l, const char *dir, uint32_t n, char *err, size_t err_bytes) {
    char path[PATH_MAX];
    struct json *root = NULL;
    *l = (struct labels){.name = calloc(n + 1u, sizeof(char *)), .n = n};
    int len = snprintf(path, sizeof path, "%s/config.json", dir), rc = l->name ? 0 : -ENOMEM;
    if (len < 0 || (size_t)len >= sizeof path) rc = -ENAMETOOLONG;
    if (rc == 0)
        rc = json_load(&root, path, JSON_BYTES_MAX, err, err_bytes);
    else
        err_set(err, err_bytes, rc, "%.200s: %s", dir, err_text(rc));
    if (rc == 0) rc = read_names(l, json_get(root, "id2label"), path, err, err_bytes);
    for (uint32_t i = 0; rc == 0 && i < n; i++)
        if (!l->name[i] && asprintf(&l->name[i], "LABEL_%u", i) < 0) {
            l->name[i] = NULL;
            rc = err_set(err, err_bytes, -ENOMEM, "no memory for the names of classes");
        }
    json_free(root);
    return rc;
}
