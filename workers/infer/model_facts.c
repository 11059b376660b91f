#include "workers/infer/model_facts.h"

#include <dirent.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "workers/chat/chat.h"
#include "workers/infer/kvpool.h"
#include "workers/infer/safetensors.h"
#include "workers/infer/stored.h"
#include "workers/infer/tensor_values.h"
#include "workers/infer/weights.h"

#define TOKENIZER_BYTES_MAX (256u << 20)
#define CARD_BYTES_MAX (4u << 20)

static bool there(const char *dir, const char *file, char path[PATH_MAX]) {
    int n = snprintf(path, PATH_MAX, "%s/%s", dir, file);
    return n > 0 && n < PATH_MAX && access(path, R_OK) == 0;
}

bool model_facts_has_tokenizer(const char *dir) {
    char path[PATH_MAX];
    return there(dir, "tokenizer.json", path) || there(dir, "vocab.json", path) ||
           there(dir, "vocab.txt", path);
}

static void read_tokenizer(struct model_facts *f) {
    char path[PATH_MAX], err[256];
    struct json *root = NULL;
    if (there(f->dir, "tokenizer.json", path) &&
        json_load(&root, path, TOKENIZER_BYTES_MAX, err, sizeof err) == 0) {
        const struct json *model = json_get(root, "model");
        const char *type = json_str(json_get(model, "type"));
        snprintf(f->tokenizer, sizeof f->tokenizer, "%.40s, %zu tokens", type ? type : "unknown",
                 json_len(json_get(model, "vocab")));
    } else if (there(f->dir, "vocab.json", path)) {
        snprintf(f->tokenizer, sizeof f->tokenizer, "BPE of vocab.json and merges.txt");
    }
    json_free(root);
}

static void read_chat(struct model_facts *f) {
    char err[LIMIT_REASON_BYTES] = "";
    struct chat *chat = NULL;
    if (chat_open(&chat, f->dir, err, sizeof err) < 0)
        snprintf(f->chat, sizeof f->chat, "not supported: %.280s", err);
    else if (chat_is_there(chat))
        snprintf(f->chat, sizeof f->chat, "supported");
    chat_close(chat);
}

/* "license: mit" of the card's front matter, between two lines of dashes. */
static void read_licence(struct model_facts *f) {
    char path[PATH_MAX], err[256], *rest;
    void *text;
    size_t bytes;
    if (!there(f->dir, "README.md", path) ||
        file_read(path, CARD_BYTES_MAX, &text, &bytes, err, sizeof err) != 0)
        return;
    uint32_t dashes = 0;
    for (char *line = strtok_r(text, "\r\n", &rest); line && dashes < 2;
         line = strtok_r(NULL, "\r\n", &rest)) {
        dashes += strcmp(line, "---") == 0;
        if (dashes == 0) break;
        if (strncmp(line, "license:", 8) == 0)
            snprintf(f->licence, sizeof f->licence, "%.60s", line + 8 + strspn(line + 8, " \"'"));
    }
    free(text);
}

static void read_tensors(struct model_facts *f, const struct safetensors *s) {
    for (uint32_t i = 0; i < safetensors_count(s); i++) {
        const struct tensor *t = safetensors_at(s, i);
        enum dtype dtype;
        f->file_bytes += t->bytes;
        size_t len = strlen(t->name), end = strlen(STORED_SCALE);
        bool scale =
            f->config.quantized && len > end && strcmp(t->name + len - end, STORED_SCALE) == 0;
        if (scale || tensor_dtype(t, &dtype) != 0) continue;
        f->parameters += t->elements;
        size_t used = strlen(f->stored);
        if (!strstr(f->stored, t->type) && used + sizeof t->type + 1 < sizeof f->stored)
            snprintf(f->stored + used, sizeof f->stored - used, "%s%s", used ? " " : "", t->type);
    }
}

/* What of it is quantized, and how; its elements count as parameters, a tied head's do not. */
static int read_quantized(struct model_facts *f, const struct safetensors *s, char *err,
                          size_t err_bytes) {
    const char *name, *as;
    char head[256] = "";
    const struct arch *arch = f->config.arch;
    if (!f->config.quantized) return 0;
    int rc = stored_check(s, &f->quantized, err, err_bytes);
    if (arch->names.head)
        arch_tensor_name(head, sizeof head, weights_prefix(arch, s), arch->names.head, 0,
                         ".weight");
    for (uint32_t i = 0; rc == 0 && safetensors_metadata_at(s, i, &name, &as); i++) {
        struct quantize_as how;
        char part[320];
        snprintf(part, sizeof part, "%.280s" STORED_PACKED, name);
        const struct tensor *packed = safetensors_find(s, part);
        if (!packed || !stored_as_parse(as, &how)) continue;
        uint64_t values = packed->elements * (how.dtype == DTYPE_W4 ? 2 : 1);
        f->matrices[how.dtype == DTYPE_W4]++;
        f->weight_bytes += packed->bytes + values / how.group * 3;
        bool is_head = strcmp(name, head) == 0;
        if (is_head) snprintf(f->head, sizeof f->head, "%.15s", as);
        if (!is_head || !f->config.tied) f->parameters += values;
    }
    return rc;
}

int model_facts_read(struct model_facts *f, const char *dir, char *err, size_t err_bytes) {
    struct safetensors *s = NULL;
    *f = (struct model_facts){.dir = dir};
    int rc = config_load(&f->config, dir, err, err_bytes);
    if (rc == 0) rc = safetensors_open(&s, dir, err, err_bytes);
    if (rc != 0) return rc;
    read_tensors(f, s);
    rc = read_quantized(f, s, err, err_bytes);
    safetensors_close(s);
    if (rc != 0) return rc;
    rc = manifest_load(&f->manifest, dir, err, err_bytes);
    if (rc == -ENOENT) rc = 0;
    if (rc == 0 && f->config.labels)
        rc = labels_read(&f->labels, dir, f->config.labels, err, err_bytes);
    read_tokenizer(f);
    read_chat(f);
    read_licence(f);
    return rc;
}

void model_facts_fini(struct model_facts *f) {
    labels_fini(&f->labels);
    manifest_fini(&f->manifest);
}

/* Bytes of K and V of one token. */
static uint64_t kv_bytes(const struct config *c, enum dtype dtype) {
    return kvpool_token_bytes(&(struct kvpool_config){
        .layers = c->layers, .kv_heads = c->kv_heads, .head_dim = c->head_dim, .dtype = dtype});
}

static struct json *text_or_null(const char *text) {
    return text && *text ? json_new_str(text, strlen(text)) : json_new_null();
}

static struct json *labels_json(const struct labels *l) {
    struct json *names = l->n ? json_new_array() : json_new_null();
    for (uint32_t i = 0; i < l->n; i++) json_push(names, text_or_null(l->name[i]));
    return names;
}

static struct json *facts_json(const struct model_facts *f) {
    const struct config *c = &f->config;
    struct json *j = json_new_object(), *memory = json_new_object();
    const char *name = strrchr(f->dir, '/') ? strrchr(f->dir, '/') + 1 : f->dir;
    bool decoder = c->arch->kind == MODEL_DECODER;
    json_set(j, "model", text_or_null(name));
    json_set(j, "dir", text_or_null(f->dir));
    json_set(j, "architecture", text_or_null(c->arch->name));
    json_set(j, "kind", text_or_null(decoder ? "decoder" : "encoder"));
    json_set(j, "parameters", json_new_int((int64_t)f->parameters));
    json_set(j, "stored", text_or_null(f->stored));
    json_set(j, "file_bytes", json_new_int((int64_t)f->file_bytes));
    json_set(memory, "f32", json_new_int((int64_t)f->parameters * 4));
    json_set(memory, "bf16", json_new_int((int64_t)f->parameters * 2));
    if (f->quantized)
        json_set(memory, stored_type_name(f->quantized), json_new_int((int64_t)f->weight_bytes));
    json_set(j, "memory_bytes", memory);
    json_set(j, "quantized",
             f->quantized ? text_or_null(stored_type_name(f->quantized)) : json_new_null());
    json_set(j, "head", text_or_null(f->head));
    json_set(j, "kv_bytes_token",
             decoder ? json_new_int((int64_t)kv_bytes(c, DTYPE_F32)) : json_new_null());
    json_set(j, "kv_bytes_token_efficient",
             decoder ? json_new_int((int64_t)kv_bytes(c, DTYPE_I8)) : json_new_null());
    json_set(j, "context", json_new_int(decoder ? c->context : c->text_context));
    json_set(j, "layers", json_new_int(c->layers));
    json_set(j, "dim", json_new_int(c->dim));
    json_set(j, "vocab", json_new_int(c->vocab));
    json_set(j, "classes", labels_json(&f->labels));
    json_set(j, "tokenizer", text_or_null(f->tokenizer));
    json_set(j, "chat_template", text_or_null(f->chat));
    json_set(j, "licence", text_or_null(f->licence));
    json_set(j, "origin", text_or_null(f->manifest.origin));
    json_set(j, "digest", text_or_null(f->manifest.digest));
    return j;
}

static int print_json(struct json *j) {
    char *text = json_text(j, 2);
    json_free(j);
    if (!text) return -ENOMEM;
    puts(text);
    free(text);
    return 0;
}

static void bytes_text(uint64_t bytes, char out[24]) {
    if (bytes >= 1000000000)
        snprintf(out, 24, "%.1f GB", (double)bytes / 1e9);
    else
        snprintf(out, 24, "%.1f MB", (double)bytes / 1e6);
}

static void row(const char *name, const char *value) {
    if (value && *value) printf("%-14s %s\n", name, value);
}

int model_facts_show(const struct model_facts *f, bool json) {
    if (json) return print_json(facts_json(f));
    const struct config *c = &f->config;
    bool decoder = c->arch->kind == MODEL_DECODER;
    char text[128], f32[24], bf16[24], file[24];
    bytes_text(f->parameters * 4, f32);
    bytes_text(f->parameters * 2, bf16);
    bytes_text(f->file_bytes, file);
    row("model", f->dir);
    snprintf(text, sizeof text, "%s, %s", c->arch->name, decoder ? "a decoder" : "an encoder");
    row("architecture", text);
    snprintf(text, sizeof text, "%" PRIu64 " (%s, stored as %s)", f->parameters, file, f->stored);
    row("parameters", text);
    if (f->quantized) {
        snprintf(text, sizeof text, "%s: %u matrices of 8 bits, %u of 4; head %s",
                 stored_type_name(f->quantized), f->matrices[0], f->matrices[1],
                 *f->head ? f->head : "none");
        row("precision", text);
        bytes_text(f->weight_bytes, file);
        snprintf(text, sizeof text, "%s as quantized, %s in float32, %s in bf16", file, f32, bf16);
    } else {
        snprintf(text, sizeof text, "%s in float32, %s in bf16", f32, bf16);
    }
    row("memory", text);
    if (decoder) {
        snprintf(text, sizeof text,
                 "%" PRIu64 " bytes a token; %" PRIu64 " with --memory-efficient",
                 kv_bytes(c, DTYPE_F32), kv_bytes(c, DTYPE_I8));
        row("cache", text);
    }
    snprintf(text, sizeof text, "%u tokens", decoder ? c->context : c->text_context);
    row("context", text);
    snprintf(text, sizeof text, "%u layers of %u, vocabulary %u", c->layers, c->dim, c->vocab);
    row("shape", text);
    for (uint32_t i = 0; i < f->labels.n; i++) row(i ? "" : "classes", f->labels.name[i]);
    row("tokenizer", f->tokenizer);
    row("chat template", f->chat);
    row("licence", f->licence);
    row("origin", f->manifest.origin);
    row("digest", f->manifest.digest);
    return 0;
}

static int visible(const struct dirent *d) {
    return d->d_name[0] != '.';
}

int model_facts_list(const char *root, bool json, char *err, size_t err_bytes) {
    struct dirent **entry;
    int n = scandir(root, &entry, visible, alphasort), rc = 0;
    if (n < 0) n = 0; /* nothing was imported yet */
    struct json *rows = json_new_array();
    if (!json && n > 0)
        printf("%-32s %-34s %12s  %s\n", "model", "architecture", "parameters", "origin");
    for (int i = 0; i < n; i++) {
        char dir[PATH_MAX], config[PATH_MAX];
        struct model_facts f = {0};
        snprintf(dir, sizeof dir, "%.3500s/%s", root, entry[i]->d_name);
        int bad = there(dir, "config.json", config) ? model_facts_read(&f, dir, err, err_bytes) : 1;
        if (bad < 0) fprintf(stderr, "%s: %s\n", entry[i]->d_name, err);
        if (bad < 0) rc = bad;
        if (bad == 0 && json) json_push(rows, facts_json(&f));
        if (bad == 0 && !json)
            printf("%-32s %-34s %12" PRIu64 "  %s\n", entry[i]->d_name, f.config.arch->name,
                   f.parameters, f.manifest.origin ? f.manifest.origin : "");
        model_facts_fini(&f);
        free(entry[i]);
    }
    if (n > 0) free(entry);
    if (rc != 0) err_set(err, err_bytes, rc, "not all models can be read");
    if (json) return print_json(rows) ? -ENOMEM : rc;
    json_free(rows);
    return rc;
}
