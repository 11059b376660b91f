/* model.c - fuzzes a model directory: up to the first NUL config.json, up to the second the
 * header of model.safetensors, behind it the data. Whatever opens must run a token without a
 * fault. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/ops.h"
#include "workers/infer/model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static char dir[] = "/tmp/penstock-fuzz-XXXXXX";
static struct ops *ops;

static void path_of(char out[128], const char *file) {
    snprintf(out, 128, "%s/%s", dir, file);
}

static void clean_up(void) {
    char path[128];
    path_of(path, "config.json");
    unlink(path);
    path_of(path, "model.safetensors");
    unlink(path);
    rmdir(dir);
    ops_close(ops);
}

static void set_up(void) {
    char err[256];
    if (ops || !mkdtemp(dir) || atexit(clean_up) != 0) return;
    if (ops_open(&ops, &(struct ops_config){.backend = "ref"}, err, sizeof err) != 0) abort();
}

/* A file of an 8-byte length (where there is one) and the bytes. */
static void write_file(const char *file, uint64_t length, size_t length_bytes, const uint8_t *data,
                       size_t bytes) {
    char path[128];
    path_of(path, file);
    FILE *f = fopen(path, "wb");
    for (size_t i = 0; f && i < length_bytes; i++) fputc((int)(length >> 8 * i & 255), f);
    if (!f || fwrite(data, 1, bytes, f) != bytes || fclose(f) != 0) abort();
}

static void run_token(struct model *m) {
    const struct model_info *info = model_info(m);
    const uint32_t id[] = {info->vocab - 1}, begin[] = {0, 1};
    char err[256];
    if (info->kind == MODEL_ENCODER) {
        float *out = calloc(info->dim, sizeof *out);
        if (!out || model_embed(m, 1, begin, id, out, err, sizeof err) != 0) abort();
        free(out);
        float *scores = calloc(info->labels + 1u, sizeof *scores);
        if (!scores) abort();
        if (info->labels && model_classify(m, 1, begin, id, scores, err, sizeof err) != 0) abort();
        free(scores);
    } else {
        struct seq *s = seq_new(m);
        if (!s || model_step(m, 1, &s, begin, id, NULL, err, sizeof err) != 0) abort();
        seq_free(s);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    const uint8_t *end = data + bytes, *header = memchr(data, 0, bytes);
    struct model *m;
    char err[256];
    set_up();
    if (!header) return 0;
    write_file("config.json", 0, 0, data, (size_t)(header - data));
    header++;
    const uint8_t *tensors = memchr(header, 0, (size_t)(end - header));
    if (!tensors) tensors = end;
    write_file("model.safetensors", (uint64_t)(tensors - header), 8, header,
               (size_t)(end - header));
    const struct model_config c = {.rows_max = 4, .kv_tokens = 32};
    if (model_open(&m, dir, ops, &c, err, sizeof err) == 0) {
        run_token(m);
        model_close(m);
    } else if (m || !*err) {
        abort(); /* refused without a word */
    }
    return 0;
}
