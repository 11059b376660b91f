#include "workers/infer/adapter_facts.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/json.h"
#include "workers/infer/adapter_config.h"
#include "workers/infer/safetensors.h"

struct facts {
    const char *dir;
    struct adapter_config config;
    uint64_t parameters, file_bytes;
    uint32_t matrices; /* that it changes */
    char stored[64];   /* their types: "BF16", "F32 F16" */
};

bool adapter_facts_is_one(const char *dir) {
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/config.json", dir) >= (int)sizeof path) return false;
    if (access(path, F_OK) == 0) return false;
    return snprintf(path, sizeof path, "%s/adapter_config.json", dir) < (int)sizeof path &&
           access(path, F_OK) == 0;
}

static void read_tensors(struct facts *f, const struct safetensors *s) {
    for (uint32_t i = 0; i < safetensors_count(s); i++) {
        const struct tensor *t = safetensors_at(s, i);
        size_t used = strlen(f->stored);
        f->parameters += t->elements;
        f->file_bytes += t->bytes;
        f->matrices += strstr(t->name, ".lora_A.") != NULL;
        if (!strstr(f->stored, t->type) && used + sizeof t->type + 1 < sizeof f->stored)
            snprintf(f->stored + used, sizeof f->stored - used, "%s%s", used ? " " : "", t->type);
    }
}

static int read_facts(struct facts *f, const char *dir, char *err, size_t err_bytes) {
    char path[PATH_MAX];
    struct safetensors *s = NULL;
    *f = (struct facts){.dir = dir};
    int rc = adapter_config_load(&f->config, dir, err, err_bytes);
    if (rc != 0) return rc;
    if (snprintf(path, sizeof path, "%s/adapter_model.safetensors", dir) >= (int)sizeof path)
        rc = err_set(err, err_bytes, -ENAMETOOLONG, "%s: the path is too long", dir);
    if (rc == 0) rc = safetensors_open_file(&s, path, err, err_bytes);
    if (rc == 0) read_tensors(f, s);
    safetensors_close(s);
    return rc;
}

/* target_modules as people read them: names, or the pattern. */
static void targets_text(const struct facts *f, char *out, size_t out_bytes) {
    const struct json *v = json_get(f->config.root, "target_modules");
    const char *text = json_str(v);
    size_t used = 0;
    snprintf(out, out_bytes, "%s", text ? text : "");
    for (size_t i = 0; i < json_len(v) && used < out_bytes; i++)
        used += (size_t)snprintf(out + used, out_bytes - used, "%s%s", i ? ", " : "",
                                 json_str(json_at(v, i)));
}

static struct json *text_or_null(const char *text) {
    return text && *text ? json_new_str(text, strlen(text)) : json_new_null();
}

static int show_json(const struct facts *f, const char *targets) {
    struct json *j = json_new_object();
    const char *slash = strrchr(f->dir, '/');
    json_set(j, "adapter", text_or_null(slash ? slash + 1 : f->dir));
    json_set(j, "dir", text_or_null(f->dir));
    json_set(j, "kind", text_or_null("adapter"));
    json_set(j, "base", text_or_null(f->config.base));
    json_set(j, "rank", json_new_int(f->config.rank));
    json_set(j, "alpha", json_new_real(f->config.alpha));
    json_set(j, "rslora", json_new_bool(f->config.rslora));
    json_set(j, "targets", text_or_null(targets));
    json_set(j, "matrices", json_new_int(f->matrices));
    json_set(j, "parameters", json_new_int((int64_t)f->parameters));
    json_set(j, "stored", text_or_null(f->stored));
    json_set(j, "file_bytes", json_new_int((int64_t)f->file_bytes));
    char *text = json_text(j, 2);
    json_free(j);
    if (!text) return -ENOMEM;
    puts(text);
    free(text);
    return 0;
}

int adapter_facts_show(const char *dir, bool json, char *err, size_t err_bytes) {
    struct facts f;
    char targets[1024];
    int rc = read_facts(&f, dir, err, err_bytes);
    if (rc == 0) targets_text(&f, targets, sizeof targets);
    if (rc == 0 && json) {
        rc = show_json(&f, targets);
        if (rc != 0) err_set(err, err_bytes, rc, "no memory");
    } else if (rc == 0) {
        printf("%-13s %s\n%-13s %s\n", "adapter", dir, "of", f.config.base ? f.config.base : "?");
        printf("%-13s %u, alpha %g%s\n", "rank", f.config.rank, f.config.alpha,
               f.config.rslora ? ", rsLoRA" : "");
        printf("%-13s %s\n%-13s %u\n", "targets", targets, "matrices", f.matrices);
        printf("%-13s %" PRIu64 " (%.2f MB, stored as %s)\n", "parameters", f.parameters,
               (double)f.file_bytes / 1e6, f.stored);
    }
    adapter_config_fini(&f.config);
    return rc;
}
