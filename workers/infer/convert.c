#include "workers/infer/convert.h"

#include <dirent.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/digest.h"
#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "kernels/source.h"
#include "schemas/model_dir.h"
#include "workers/infer/safetensors.h"
#include "workers/infer/stored.h"
#include "workers/infer/tensor_values.h"
#include "workers/infer/tensor_writer.h"
#include "workers/infer/weights.h"

#define FILE_BYTES_MAX (512u << 20) /* of one that is copied: tokenizers */
#define CONFIG_BYTES_MAX (4u << 20)
#define PARTS 3 /* packed, scale, zero point */

/* A tensor of the new files: copied, or quantized. */
struct item {
    char name[320];
    const struct tensor *from;
    const char *pattern; /* of a matrix; NULL: copied */
    uint32_t layer;
    struct quantize_as as;
    uint32_t plan[PARTS];
};
struct convert {
    const char *dir, *out;
    const struct convert_options *o;
    struct config config;
    struct safetensors *st;
    struct tensor_writer *writer;
    struct item *item;
    uint32_t n, matrices;
    double off, all; /* squared errors and squares of what was quantized */
    char *err;
    size_t err_bytes;
};

static int no_memory(struct convert *c) {
    return err_set(c->err, c->err_bytes, -ENOMEM, "no memory to quantize %s", c->dir);
}

/* ---- which tensors there will be ---- */

/* Whether a tensor is the weight of that pattern in some layer. */
static bool is_weight(const struct convert *c, const char *name, const char *pattern,
                      const char *prefix, uint32_t *layer) {
    char full[320];
    uint32_t layers = strstr(pattern, "%u") ? c->config.layers : 1;
    for (*layer = 0; *layer < layers; ++*layer)
        if (arch_tensor_name(full, sizeof full, prefix, pattern, *layer, ".weight") &&
            strcmp(full, name) == 0)
            return true;
    return false;
}

/* NULL: it is none that is quantized. */
static const char *pattern_of(const struct convert *c, const char *name, const char *prefix,
                              uint32_t *layer) {
    const struct arch_names *names = &c->config.arch->names;
    const char *const patterns[] = {names->q,    names->k,  names->v,    names->o,
                                    names->gate, names->up, names->down, names->head};
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++)
        if (patterns[i] && is_weight(c, name, patterns[i], prefix, layer)) return patterns[i];
    return NULL;
}

/* The scales of an fp8 matrix go with it. */
static bool is_fp8_scale(const struct safetensors *st, const char *name) {
    static const char *const suffixes[] = {"_scale_inv", "_scale"};
    for (size_t i = 0; i < 2; i++) {
        size_t len = strlen(name), end = strlen(suffixes[i]);
        char base[320];
        if (len <= end || strcmp(name + len - end, suffixes[i]) != 0) continue;
        snprintf(base, sizeof base, "%.*s", (int)(len - end < 300 ? len - end : 300), name);
        const struct tensor *t = safetensors_find(st, base);
        if (t && strcmp(t->type, "F8_E4M3") == 0) return true;
    }
    return false;
}

static int add_item(struct convert *c, const char *name, const struct tensor *from,
                    const char *pattern, uint32_t layer) {
    struct item *it = &c->item[c->n++];
    *it = (struct item){.from = from, .pattern = pattern, .layer = layer};
    snprintf(it->name, sizeof it->name, "%.300s", name);
    if (pattern) it->as = stored_recipe(&c->config, c->o->to, pattern);
    if (!it->as.group) it->pattern = NULL;
    c->matrices += it->pattern != NULL;
    if (!it->pattern || from->rank == 2) return 0;
    return err_set(c->err, c->err_bytes, ERR_FIELD, "%s: tensor %s: is no matrix",
                   safetensors_path(c->st, from), name);
}

static int list_items(struct convert *c) {
    const struct arch_names *names = &c->config.arch->names;
    const char *prefix = weights_prefix(c->config.arch, c->st);
    char head[320] = "", embed[320] = "";
    int rc = 0;
    bool tied = c->config.tied && names->head;
    c->item = calloc(safetensors_count(c->st) + 1, sizeof *c->item);
    if (!c->item) return no_memory(c);
    if (tied) {
        arch_tensor_name(head, sizeof head, prefix, names->head, 0, ".weight");
        arch_tensor_name(embed, sizeof embed, prefix, names->embed, 0, ".weight");
        const struct tensor *t = safetensors_find(c->st, embed);
        if (!t)
            return err_set(c->err, c->err_bytes, ERR_FIELD, "%s: tensor %s: missing",
                           safetensors_where(c->st), embed);
        rc = add_item(c, head, t, names->head, 0);
    }
    for (uint32_t i = 0; rc == 0 && i < safetensors_count(c->st); i++) {
        const struct tensor *t = safetensors_at(c->st, i);
        uint32_t layer = 0;
        if (strcmp(t->name, head) == 0 || is_fp8_scale(c->st, t->name)) continue;
        const char *pattern = pattern_of(c, t->name, prefix, &layer);
        rc = add_item(c, t->name, t, pattern, layer);
    }
    if (rc == 0 && c->matrices == 0)
        rc = err_set(c->err, c->err_bytes, ERR_FIELD, "%s: has no linear weights of a %s",
                     safetensors_where(c->st), c->config.arch->name);
    return rc;
}

static int plan_part(struct convert *c, struct item *it, uint32_t part, const char *suffix,
                     const char *type, uint64_t width, size_t element) {
    char name[352];
    const uint64_t shape[] = {it->from->shape[0], width};
    snprintf(name, sizeof name, "%s%s", it->name, suffix);
    int n = tensor_writer_plan(c->writer, name, type, 2, shape, shape[0] * width * element);
    if (n < 0) return no_memory(c);
    it->plan[part] = (uint32_t)n;
    return 0;
}

static int plan_item(struct convert *c, struct item *it) {
    const struct tensor *t = it->from;
    if (!it->pattern) {
        int n = tensor_writer_plan(c->writer, it->name, t->type, t->rank, t->shape, t->bytes);
        if (n < 0) return no_memory(c);
        it->plan[0] = (uint32_t)n;
        return 0;
    }
    char as[STORED_AS_CHARS];
    uint32_t k = (uint32_t)t->shape[1], groups = quantized_groups(k, it->as.group);
    stored_as_text(it->as, as);
    if (tensor_writer_note(c->writer, it->name, as) != 0) return no_memory(c);
    int rc = plan_part(c, it, 0, STORED_PACKED, "U8", quantized_row_bytes(k, it->as.dtype), 1);
    if (rc == 0) rc = plan_part(c, it, 1, STORED_SCALE, "BF16", groups, 2);
    return rc ? rc : plan_part(c, it, 2, STORED_ZERO, "U8", groups, 1);
}

/* What the new files say about themselves. */
static int note_origin(struct convert *c) {
    char digest[DIGEST_SHA256_CHARS];
    struct buf all = {0};
    struct bytes header;
    const char *path;
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && (path = safetensors_file(c->st, i, &header)); i++) {
        rc = digest_file_sha256(path, digest, NULL, c->err, c->err_bytes);
        buf_append(&all, digest, strlen(digest));
    }
    if (rc == 0 && all.error) rc = no_memory(c);
    if (rc == 0 && all.len > strlen(digest)) digest_sha256(buf_bytes(&all), digest);
    buf_fini(&all);
    if (rc != 0) return rc;
    if (tensor_writer_note(c->writer, STORED_KEY_VERSION, STORED_VERSION) != 0 ||
        tensor_writer_note(c->writer, STORED_KEY_TO, stored_type_name(c->o->to)) != 0 ||
        tensor_writer_note(c->writer, STORED_KEY_SOURCE, digest) != 0 ||
        tensor_writer_note(c->writer, STORED_KEY_CALIBRATION, "none") != 0)
        return no_memory(c);
    return 0;
}

/* ---- writing them ---- */

static int check_values(struct convert *c, const struct tensor *t, enum dtype *dtype) {
    if (tensor_dtype(t, dtype) != 0)
        return err_set(c->err, c->err_bytes, -ENOTSUP,
                       "%s: tensor %s: dtype %s; what is quantized is F32, F16, BF16 or F8_E4M3",
                       safetensors_path(c->st, t), t->name, t->type);
    if (t->elements == 0 || t->shape[0] > INT32_MAX || t->shape[1] > INT32_MAX)
        return err_set(c->err, c->err_bytes, ERR_FIELD, "%s: tensor %s: empty, or too large",
                       safetensors_path(c->st, t), t->name);
    uint64_t bad = tensor_first_not_finite(t, *dtype);
    if (bad == t->elements) return 0;
    return err_set(c->err, c->err_bytes, ERR_CORRUPT,
                   "%s: tensor %s: element %" PRIu64 " is a NaN or an infinity",
                   safetensors_path(c->st, t), t->name, bad);
}

/* Every 16th row tells how far off they are. */
static int measure(struct convert *c, const struct quantized *q, const void *data,
                   enum dtype dtype) {
    float *a = malloc(q->k * sizeof *a), *b = malloc(q->k * sizeof *b);
    for (uint32_t row = 0; a && b && row < q->n; row += 16) {
        source_row_f32(a, data, dtype, row, q->k);
        quantized_row_f32(b, q, row);
        for (uint32_t i = 0; i < q->k; i++) {
            c->all += (double)a[i] * (double)a[i];
            c->off += (double)(a[i] - b[i]) * (double)(a[i] - b[i]);
        }
    }
    int rc = a && b ? 0 : no_memory(c);
    free(a);
    free(b);
    return rc;
}

static int write_matrix(struct convert *c, const struct item *it) {
    const struct tensor *t = it->from;
    struct quantized q = {0};
    enum dtype dtype;
    float *wide = NULL;
    const void *data = t->data;
    int rc = check_values(c, t, &dtype);
    if (rc != 0) return rc;
    if (dtype == DTYPE_F8E4M3) {
        rc = tensor_widen(&wide, c->st, t, c->config.fp8_block, c->err, c->err_bytes);
        dtype = DTYPE_F32;
        data = wide;
    }
    if (rc == 0 && quantize_matrix(&q, (uint32_t)t->shape[0], (uint32_t)t->shape[1], data, dtype,
                                   it->as, NULL, c->o->threads) != 0)
        rc = no_memory(c);
    if (rc == 0) rc = measure(c, &q, data, dtype);
    size_t groups = (size_t)q.n * quantized_groups(q.k, it->as.group);
    const void *parts[PARTS] = {q.quant.q, q.quant.scale, q.quant.zero};
    const size_t bytes[PARTS] = {q.n * quantized_row_bytes(q.k, it->as.dtype), 2 * groups, groups};
    for (uint32_t i = 0; rc == 0 && i < PARTS; i++)
        rc = tensor_writer_put(c->writer, it->plan[i], 0, parts[i], bytes[i], c->err, c->err_bytes);
    quantized_fini(&q);
    free(wide);
    return rc;
}

static int write_items(struct convert *c) {
    int rc = 0;
    for (uint32_t i = 0, done = 0; rc == 0 && i < c->n; i++) {
        const struct item *it = &c->item[i];
        if (it->pattern)
            rc = write_matrix(c, it);
        else
            rc = tensor_writer_put(c->writer, it->plan[0], 0, it->from->data, it->from->bytes,
                                   c->err, c->err_bytes);
        safetensors_release(it->from);
        if (it->pattern && c->o->on_matrix) c->o->on_matrix(++done, c->matrices);
    }
    return rc;
}

/* ---- the other files ---- */

static int copy_file(struct convert *c, const char *name) {
    char from[PATH_MAX], to[PATH_MAX];
    void *data;
    size_t bytes;
    snprintf(from, sizeof from, "%.3000s/%.600s", c->dir, name);
    snprintf(to, sizeof to, "%.3000s/%.600s", c->out, name);
    int rc = file_read(from, FILE_BYTES_MAX, &data, &bytes, c->err, c->err_bytes);
    if (rc != 0) return rc;
    char *slash = strrchr(to, '/');
    *slash = '\0';
    rc = file_mkdirs(to);
    *slash = '/';
    if (rc != 0)
        err_set(c->err, c->err_bytes, rc, "cannot make the folder of %s: %s", to, err_text(rc));
    else
        rc = file_replace(to, data, bytes, c->err, c->err_bytes);
    free(data);
    return rc;
}

static bool is_weights(const char *name) {
    size_t len = strlen(name);
    return (len > 12 && strcmp(name + len - 12, ".safetensors") == 0) ||
           strcmp(name, "model.safetensors.index.json") == 0 || strcmp(name, "config.json") == 0;
}

static int copy_folder(struct convert *c, const char *inside) {
    char path[PATH_MAX], name[600];
    snprintf(path, sizeof path, "%.3000s/%.300s", c->dir, inside);
    DIR *d = opendir(path);
    if (!d) return err_set(c->err, c->err_bytes, -errno, "cannot read %s", path);
    int rc = 0;
    for (struct dirent *e; rc == 0 && (e = readdir(d));) {
        struct stat st;
        snprintf(name, sizeof name, "%.300s%s%.255s", inside, *inside ? "/" : "", e->d_name);
        snprintf(path, sizeof path, "%.3000s/%s", c->dir, name);
        if (e->d_name[0] == '.' || stat(path, &st) != 0) continue;
        if (S_ISDIR(st.st_mode) && !*inside)
            rc = copy_folder(c, name);
        else if (S_ISREG(st.st_mode) && model_dir_wants(name) && !is_weights(name))
            rc = copy_file(c, name);
    }
    closedir(d);
    return rc;
}

static int write_config(struct convert *c) {
    char path[PATH_MAX];
    struct json *root = NULL, *q = json_new_object();
    const char *to = stored_type_name(c->o->to);
    snprintf(path, sizeof path, "%.4000s/config.json", c->dir);
    int rc = json_load(&root, path, CONFIG_BYTES_MAX, c->err, c->err_bytes);
    json_set(q, "quant_method", json_new_str(STORED_METHOD, strlen(STORED_METHOD)));
    json_set(q, "format", json_new_str(to, strlen(to)));
    if (rc != 0) {
        json_free(q);
        return rc;
    }
    json_set(root, "quantization_config", q);
    char *text = json_text(root, 2);
    json_free(root);
    if (!text) return no_memory(c);
    snprintf(path, sizeof path, "%.4000s/config.json", c->out);
    rc = file_replace(path, text, strlen(text), c->err, c->err_bytes);
    free(text);
    return rc;
}

static int run(struct convert *c, struct convert_report *report) {
    int rc = config_load(&c->config, c->dir, c->err, c->err_bytes);
    if (rc == 0 && c->config.quantized)
        rc = err_set(c->err, c->err_bytes, -EINVAL,
                     "%s: is quantized already; quantize the model that it was made of", c->dir);
    if (rc == 0) rc = safetensors_open(&c->st, c->dir, c->err, c->err_bytes);
    if (rc == 0) rc = list_items(c);
    if (rc == 0 && !(c->writer = tensor_writer_new(c->out))) rc = no_memory(c);
    if (rc == 0) rc = note_origin(c);
    for (uint32_t i = 0; rc == 0 && i < c->n; i++) rc = plan_item(c, &c->item[i]);
    if (rc == 0) rc = tensor_writer_begin(c->writer, c->err, c->err_bytes);
    if (rc == 0) rc = write_items(c);
    if (rc == 0) rc = copy_folder(c, "");
    if (rc == 0) rc = write_config(c);
    if (rc == 0) rc = tensor_writer_end(c->writer, c->err, c->err_bytes);
    if (rc != 0) return rc;
    *report = (struct convert_report){.matrices = c->matrices,
                                      .to_bytes = tensor_writer_bytes(c->writer),
                                      .error = c->all > 0 ? sqrt(c->off / c->all) : 0};
    for (uint32_t i = 0; i < safetensors_count(c->st); i++)
        report->from_bytes += safetensors_at(c->st, i)->bytes;
    return 0;
}

int convert_model(const char *dir, const char *out, const struct convert_options *o,
                  struct convert_report *report, char *err, size_t err_bytes) {
    struct convert *c = calloc(1, sizeof *c);
    if (!c) return err_set(err, err_bytes, -ENOMEM, "no memory to quantize %s", dir);
    *c = (struct convert){.dir = dir, .out = out, .o = o, .err = err, .err_bytes = err_bytes};
    int rc = run(c, report);
    tensor_writer_free(c->writer);
    safetensors_close(c->st);
    free(c->item);
    free(c);
    return rc;
}
