#include "tests/bench/parity/goldens.h"

#include <dirent.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"

#define FILE_BYTES_MAX (64u * 1024u * 1024u)

void golden_die(const char *what) {
    fprintf(stderr, "parity: %s\n", what);
    exit(1);
}

static void *read_whole(const char *dir, const char *name, size_t *bytes) {
    char path[800], err[256];
    void *data;
    snprintf(path, sizeof path, "%.511s/%.255s", dir, name);
    if (file_read(path, FILE_BYTES_MAX, &data, bytes, err, sizeof err) != 0) golden_die(err);
    return data;
}

static uint32_t *ids_of(const struct json *list, uint32_t *n) {
    *n = (uint32_t)json_len(list);
    uint32_t *ids = calloc(*n + 1u, sizeof *ids);
    if (!ids) golden_die("no memory");
    for (uint32_t i = 0; i < *n; i++) ids[i] = (uint32_t)json_int(json_at(list, i), 0);
    return ids;
}

/* One list of ids a line. */
static void load_cases(struct golden *g, const char *name) {
    size_t bytes;
    char *text = read_whole(g->dir, name, &bytes), *rest, err[256];
    uint32_t ids_max = 1;
    for (size_t i = 0; i < bytes; i++) ids_max += text[i] == ',' || text[i] == '\n';
    g->ids = calloc(ids_max, sizeof *g->ids);
    g->begin = calloc(ids_max + 1, sizeof *g->begin);
    if (!g->ids || !g->begin) golden_die("no memory");
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        struct json *list;
        uint32_t n;
        if (json_parse(&list, line, strlen(line), err, sizeof err) != 0) golden_die(err);
        uint32_t *ids = ids_of(list, &n);
        memcpy(g->ids + g->begin[g->cases], ids, n * sizeof *ids);
        g->begin[g->cases + 1] = g->begin[g->cases] + n;
        g->cases++;
        free(ids);
        json_free(list);
    }
    free(text);
}

bool golden_load(struct golden *g, const char *dir) {
    size_t bytes;
    char err[256], cases[600];
    struct json *j;
    *g = (struct golden){0};
    snprintf(g->dir, sizeof g->dir, "%s", dir);
    snprintf(cases, sizeof cases, "%s/cases.jsonl", dir);
    if (access(cases, F_OK) != 0) return false;
    load_cases(g, "cases.jsonl");
    g->expected = read_whole(dir, "expected.f32", &bytes);
    g->expected_n = bytes / sizeof(float);
    char *text = read_whole(dir, "golden.json", &bytes);
    if (json_parse(&j, text, bytes, err, sizeof err) != 0) golden_die(err);
    const char *script = json_str(json_get(j, "script")), *sha = json_str(json_get(j, "sha256"));
    if (!script || !sha) golden_die("a golden.json without script or sha256");
    snprintf(g->script, sizeof g->script, "%s", script);
    snprintf(g->sha256, sizeof g->sha256, "%s", sha);
    const char *base = json_str(json_get(j, "base"));
    snprintf(g->base, sizeof g->base, "%s", base ? base : "");
    g->prompt = ids_of(json_get(j, "prompt"), &g->prompt_n);
    g->new_ids = ids_of(json_get(j, "new_ids"), &g->new_n);
    json_free(j);
    free(text);
    return true;
}

bool golden_minilm(struct golden *g, char *model_dir, size_t model_dir_bytes) {
    const char *cache = getenv("PENSTOCK_CACHE"), *xdg = getenv("XDG_CACHE_HOME"),
               *home = getenv("HOME");
    char base[300], weights[600];
    size_t bytes;
    if (cache && *cache)
        snprintf(base, sizeof base, "%.250s", cache);
    else if (xdg && *xdg)
        snprintf(base, sizeof base, "%.250s/penstock", xdg);
    else
        snprintf(base, sizeof base, "%.250s/.cache/penstock", home ? home : "");
    snprintf(model_dir, model_dir_bytes, "%s/models/all-MiniLM-L6-v2", base);
    snprintf(weights, sizeof weights, "%.500s/model.safetensors", model_dir);
    if (access(weights, R_OK) != 0) return false;
    *g = (struct golden){.dir = "tests/golden/minilm", .script = "tests/golden/minilm.py"};
    load_cases(g, "ids.jsonl");
    g->expected = read_whole(g->dir, "embeddings.f32", &bytes);
    g->expected_n = bytes / sizeof(float);
    return true;
}

void golden_free(struct golden *g) {
    free(g->begin);
    free(g->ids);
    free(g->expected);
    free(g->prompt);
    free(g->new_ids);
    *g = (struct golden){0};
}

/* Files that the digest is of. */
static int is_hashed(const struct dirent *d) {
    const char *end = strrchr(d->d_name, '.');
    return strcmp(d->d_name, "config.json") == 0 || strcmp(d->d_name, "adapter_config.json") == 0 ||
           (end && (strcmp(end, ".f32") == 0 || strcmp(end, ".safetensors") == 0));
}

void golden_digest(const struct golden *g, char out[65]) {
    crypto_hash_sha256_state state;
    uint8_t hash[crypto_hash_sha256_BYTES];
    struct dirent **entries;
    int n = scandir(g->dir, &entries, is_hashed, alphasort);
    if (n <= 0) golden_die("goldens without values");
    crypto_hash_sha256_init(&state);
    for (int i = 0; i < n; i++) {
        size_t bytes;
        void *data = read_whole(g->dir, entries[i]->d_name, &bytes);
        crypto_hash_sha256_update(&state, data, bytes);
        free(data);
        free(entries[i]);
    }
    free(entries);
    crypto_hash_sha256_final(&state, hash);
    sodium_bin2hex(out, 65, hash, sizeof hash);
}
