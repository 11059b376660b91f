#include "tests/infer/help.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "workers/stage.h"

void backends_open(struct help_backends *b) {
    static const struct ops_config configs[HELP_BACKENDS_MAX] = {
        {.backend = "ref"},
        {.backend = "cpu", .level = "plain"},
        {.backend = "cpu", .level = "avx2"},
        {.backend = "cpu", .level = "avx512"}};
    *b = (struct help_backends){0};
    for (uint32_t i = 0; i < HELP_BACKENDS_MAX; i++) {
        char err[256];
        if (ops_open(&b->ops[b->n], &configs[i], err, sizeof err) != 0) continue;
        b->name[b->n] = configs[i].level ? configs[i].level : configs[i].backend;
        b->n++;
    }
    cr_assert(b->n > 0, "no backend opens");
}

void backends_close(struct help_backends *b) {
    for (uint32_t i = 0; i < b->n; i++) ops_close(b->ops[i]);
}

static struct ops *open_or_fail(const char *backend, uint32_t threads) {
    struct ops *ops = NULL;
    char err[256] = "";
    struct ops_config c = {.backend = backend, .level = "auto", .threads = threads};
    cr_assert_eq(ops_open(&ops, &c, err, sizeof err), 0, "%s", err);
    return ops;
}

struct ops *help_open_ref(void) {
    return open_or_fail("ref", 0);
}

struct ops *help_open_best(uint32_t threads) {
    return open_or_fail("auto", threads);
}

void goldens_load(struct goldens *g, const char *ids_path, const char *floats_path) {
    char err[256] = "", *text, *line, *rest;
    size_t bytes;
    uint32_t n = 0, cap = 0;
    *g = (struct goldens){0};
    cr_assert_eq(file_read(ids_path, 1 << 24, (void **)&text, &bytes, err, sizeof err), 0, "%s",
                 err);
    for (const char *c = text; *c; c++) cap += *c == ',' || *c == '\n';
    g->ids = malloc((cap + 1) * sizeof *g->ids);
    g->begin = calloc(cap + 2, sizeof *g->begin);
    for (line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        struct json *row;
        cr_assert_eq(json_parse(&row, line, strlen(line), err, sizeof err), 0, "%s", err);
        for (size_t i = 0; i < json_len(row); i++)
            g->ids[n++] = (uint32_t)json_int(json_at(row, i), 0);
        json_free(row);
        g->begin[++g->cases] = n;
    }
    free(text);
    cr_assert_eq(file_read(floats_path, 1 << 24, (void **)&g->expected, &bytes, err, sizeof err), 0,
                 "%s", err);
    g->expected_n = bytes / sizeof(float);
    cr_assert(g->cases > 0 && g->expected_n > 0);
}

void goldens_free(struct goldens *g) {
    free(g->begin);
    free(g->ids);
    free(g->expected);
}

struct model *model_must_open(const char *dir, struct ops *ops, const struct model_config *c) {
    struct model *m = NULL;
    char err[512] = "";
    cr_assert_eq(model_open(&m, dir, ops, c, err, sizeof err), 0, "%s", err);
    return m;
}

const char *minilm_dir(void) {
    static char dir[512];
    const char *cache = getenv("PENSTOCK_CACHE"), *xdg = getenv("XDG_CACHE_HOME"),
               *home = getenv("HOME");
    char config[600];
    if (cache && *cache)
        snprintf(dir, sizeof dir, "%s", cache);
    else if (xdg && *xdg)
        snprintf(dir, sizeof dir, "%s/penstock", xdg);
    else
        snprintf(dir, sizeof dir, "%s/.cache/penstock", home ? home : "");
    strncat(dir, "/models/all-MiniLM-L6-v2", sizeof dir - strlen(dir) - 1);
    snprintf(config, sizeof config, "%s/model.safetensors", dir);
    if (access(config, R_OK) != 0)
        cr_skip_test("all-MiniLM-L6-v2 is not in the user's cache (%s)", dir);
    return dir;
}

double cosine(const float *a, const float *b, uint32_t n) {
    double ab = 0, aa = 0, bb = 0;
    for (uint32_t i = 0; i < n; i++) {
        ab += (double)a[i] * (double)b[i];
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
    }
    return ab / sqrt(aa * bb);
}

static void path_in(const struct scratch *s, const char *file, char out[512]) {
    snprintf(out, 512, "%s/%s", s->dir, file);
}

static void read_in(const struct scratch *s, const char *file, char **data, size_t *bytes) {
    char path[512], err[256] = "";
    path_in(s, file, path);
    cr_assert_eq(file_read(path, 1 << 24, (void **)data, bytes, err, sizeof err), 0, "%s", err);
}

void scratch_copy(const struct scratch *s, const char *dir, const char *file) {
    struct scratch from;
    char *data;
    size_t bytes;
    snprintf(from.dir, sizeof from.dir, "%s", dir);
    read_in(&from, file, &data, &bytes);
    scratch_write(s, file, data, bytes);
    free(data);
}

void scratch_begin(struct scratch *s, const char *copy_of) {
    const char *tmp = getenv("TMPDIR");
    static const char *const files[] = {"config.json", "model.safetensors"};
    snprintf(s->dir, sizeof s->dir, "%s/penstock-infer-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    cr_assert(mkdtemp(s->dir));
    for (size_t i = 0; copy_of && i < 2; i++) scratch_copy(s, copy_of, files[i]);
}

static void remove_tree(const char *dir) {
    DIR *d = opendir(dir);
    struct dirent *e;
    while (d && (e = readdir(d))) {
        char path[1024];
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (e->d_type == DT_DIR)
            remove_tree(path);
        else
            unlink(path);
    }
    if (d) closedir(d);
    rmdir(dir);
}

void scratch_end(struct scratch *s) {
    remove_tree(s->dir);
}

void scratch_write(const struct scratch *s, const char *file, const void *data, size_t bytes) {
    char path[512];
    path_in(s, file, path);
    char *slash = strrchr(path, '/');
    *slash = '\0';
    mkdir(path, 0700);
    *slash = '/';
    FILE *f = fopen(path, "wb");
    cr_assert(f && fwrite(data, 1, bytes, f) == bytes && fclose(f) == 0, "cannot write %s", path);
}

void scratch_text(const struct scratch *s, const char *file, const char *text) {
    scratch_write(s, file, text, strlen(text));
}

void scratch_replace(const struct scratch *s, const char *file, const char *from, const char *to) {
    char *data, *at;
    size_t bytes;
    read_in(s, file, &data, &bytes);
    cr_assert((at = memmem(data, bytes, from, strlen(from))), "%s has no %s", file, from);
    size_t head = (size_t)(at - data), tail = bytes - head - strlen(from),
           total = head + strlen(to) + tail;
    char *out = malloc(total + 1);
    memcpy(out, data, head);
    memcpy(out + head, to, strlen(to));
    memcpy(out + head + strlen(to), at + strlen(from), tail);
    scratch_write(s, file, out, total);
    free(out);
    free(data);
}

void scratch_tensors(const struct scratch *s, const char *file, const char *header,
                     const void *data, size_t bytes) {
    size_t text = strlen(header), n = (text + 7) / 8 * 8, total = 8 + n + bytes;
    uint8_t *out = malloc(total);
    for (int i = 0; i < 8; i++) out[i] = (uint8_t)(n >> 8 * i);
    memset(out + 8, ' ', n);
    memcpy(out + 8, header, text);
    if (bytes) memcpy(out + 8 + n, data, bytes);
    scratch_write(s, file, out, total);
    free(out);
}

static size_t header_bytes(const char *data) {
    uint64_t n = 0;
    for (int i = 0; i < 8; i++) n |= (uint64_t)(uint8_t)data[i] << 8 * i;
    return (size_t)n;
}

void scratch_header_replace(const struct scratch *s, const char *from, const char *to) {
    char *data, *at, header[65536];
    size_t bytes;
    read_in(s, "model.safetensors", &data, &bytes);
    size_t n = header_bytes(data), tail;
    cr_assert((at = memmem(data + 8, n, from, strlen(from))), "the header has no %s", from);
    tail = (size_t)(data + 8 + n - at) - strlen(from);
    int used = snprintf(header, sizeof header, "%.*s%s%.*s", (int)(at - data - 8), data + 8, to,
                        (int)tail, at + strlen(from));
    cr_assert((size_t)used < sizeof header);
    scratch_tensors(s, "model.safetensors", header, data + 8 + n, bytes - 8 - n);
    free(data);
}

size_t scratch_tensor_at(const struct scratch *s, const char *tensor) {
    char *data, err[256] = "";
    size_t bytes;
    struct json *header;
    read_in(s, "model.safetensors", &data, &bytes);
    size_t n = header_bytes(data);
    cr_assert_eq(json_parse(&header, data + 8, n, err, sizeof err), 0, "%s", err);
    int64_t at = json_int(json_at(json_get(json_get(header, tensor), "data_offsets"), 0), -1);
    cr_assert(at >= 0, "no tensor %s", tensor);
    json_free(header);
    free(data);
    return 8 + n + (size_t)at;
}

void scratch_patch(const struct scratch *s, const char *file, size_t at, const void *data,
                   size_t bytes) {
    char path[512];
    path_in(s, file, path);
    FILE *f = fopen(path, "r+b");
    cr_assert(f && fseek(f, (long)at, SEEK_SET) == 0 && fwrite(data, 1, bytes, f) == bytes &&
              fclose(f) == 0);
}

void scratch_truncate(const struct scratch *s, const char *file, size_t bytes_less) {
    char path[512];
    struct stat st;
    path_in(s, file, path);
    cr_assert(stat(path, &st) == 0 && truncate(path, st.st_size - (off_t)bytes_less) == 0);
}

void help_run_stage(const struct stage_program *p, void *self, struct stage_item **items,
                    uint32_t n) {
    struct stage_item *ended[64];
    if (p->run_batch) {
        p->run_batch(self, items, n);
        return;
    }
    for (uint32_t i = 0; i < n; i++) cr_assert_eq(p->join(self, items[i]), 0);
    while (n > 0) {
        uint32_t some = p->step(self, ended, 64);
        cr_assert_leq(some, n);
        n -= some;
    }
}
