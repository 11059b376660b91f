#include "pipelines/schema.h"

#include <cyaml/cyaml.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"
#include "base/limits.h"

#define FILE_BYTES_MAX (64u * 1024u)

#define TEXT(key, type, member, flags)                                                             \
    CYAML_FIELD_STRING_PTR(key, CYAML_FLAG_POINTER | (flags), struct type, member, 1,              \
                           LIMIT_NAME_BYTES)
#define NUMBER(key, type, member)                                                                  \
    CYAML_FIELD_INT_PTR(key, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct type, member)
#define REQUIRED CYAML_FLAG_DEFAULT
#define OPTIONAL CYAML_FLAG_OPTIONAL

static const cyaml_schema_field_t batch_fields[] = {
    NUMBER("max", file_batch, max), NUMBER("delay_ms", file_batch, delay_ms), CYAML_FIELD_END};

static const cyaml_schema_field_t stage_fields[] = {
    TEXT("name", file_stage, name, REQUIRED),
    TEXT("run", file_stage, run, REQUIRED),
    TEXT("model", file_stage, model, OPTIONAL),
    TEXT("adapter", file_stage, adapter, OPTIONAL),
    NUMBER("timeout_ms", file_stage, timeout_ms),
    CYAML_FIELD_MAPPING_PTR("batch", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_stage,
                            batch, batch_fields),
    CYAML_FIELD_BOOL("checkpoint", CYAML_FLAG_OPTIONAL, struct file_stage, checkpoint),
    CYAML_FIELD_END};

static const cyaml_schema_value_t stage_value = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct file_stage, stage_fields)};

static const cyaml_schema_field_t retry_fields[] = {
    NUMBER("max", file_retry, max), NUMBER("backoff_ms", file_retry, backoff_ms),
    NUMBER("backoff_max_ms", file_retry, backoff_max_ms),
    NUMBER("deaths_max", file_retry, deaths_max), CYAML_FIELD_END};

static const cyaml_schema_field_t pipeline_fields[] = {
    TEXT("name", pipeline_file, name, REQUIRED),
    TEXT("kind", pipeline_file, kind, REQUIRED),
    CYAML_FIELD_SEQUENCE_COUNT("stages", CYAML_FLAG_POINTER, struct pipeline_file, stages, n_stages,
                               &stage_value, 1, LIMIT_STAGES),
    CYAML_FIELD_MAPPING_PTR("retry", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct pipeline_file,
                            retry, retry_fields),
    NUMBER("timeout_ms", pipeline_file, timeout_ms),
    NUMBER("queue_max", pipeline_file, queue_max),
    CYAML_FIELD_END};

static const cyaml_schema_value_t pipeline_value = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct pipeline_file, pipeline_fields)};

/* libcyaml says what was wrong in its first error line and where in the lines that follow, the
 * innermost place first. */
struct story {
    char what[160], where[160];
};

static void listen(cyaml_log_t level, void *ctx, const char *format, va_list args) {
    struct story *s = ctx;
    char line[256];
    if (level < CYAML_LOG_ERROR) return;
    vsnprintf(line, sizeof line, format, args);
    line[strcspn(line, "\n")] = '\0';
    const char *text = strncmp(line, "Load: ", 6) == 0 ? line + 6 : line;
    bool place = strstr(text, "(line: ") != NULL;
    char *into = place ? s->where : s->what;
    if (into[0] == '\0' && strcmp(text, "Backtrace:") != 0) {
        while (*text == ' ') text++;
        snprintf(into, sizeof s->what, "%.159s", text);
    }
}

static cyaml_config_t config_of(struct story *s) {
    return (cyaml_config_t){.log_fn = listen,
                            .log_ctx = s,
                            .mem_fn = cyaml_mem,
                            .log_level = CYAML_LOG_ERROR,
                            .flags = CYAML_CFG_NO_ALIAS};
}

/* libcyaml places an unknown key at the value before it: look for the key itself. */
static void place_key(struct story *s, const char *data) {
    static const char before[] = "Unexpected key: ";
    if (strncmp(s->what, before, sizeof before - 1) != 0) return;
    const char *key = s->what + sizeof before - 1;
    size_t len = strlen(key);
    unsigned line = 1;
    for (const char *at = data; *at; line += *at == '\n', at++) {
        bool starts = at == data || strchr(" {,\n", at[-1]);
        if (!starts || strncmp(at, key, len) != 0 || at[len + strspn(at + len, " ")] != ':')
            continue;
        snprintf(s->where, sizeof s->where, "line: %u", line);
        return;
    }
}

static const char *fix_of(cyaml_err_t e) {
    switch (e) {
    case CYAML_ERR_INVALID_KEY:
        return "; fields are name, kind, stages (name, run, model, adapter, timeout_ms, batch: "
               "{max, delay_ms}, checkpoint), retry (max, backoff_ms, backoff_max_ms, deaths_max), "
               "timeout_ms, queue_max";
    case CYAML_ERR_MAPPING_FIELD_MISSING:
        return "; a pipeline needs name, kind and stages, a stage needs name and run";
    case CYAML_ERR_STRING_LENGTH_MIN:
    case CYAML_ERR_STRING_LENGTH_MAX: return "; names have 1 to 64 bytes";
    case CYAML_ERR_SEQUENCE_ENTRIES_MIN:
    case CYAML_ERR_SEQUENCE_ENTRIES_MAX: return "; a pipeline has 1 to 16 stages";
    case CYAML_ERR_ALIAS: return "; anchors and aliases are not allowed, write the value out";
    default: return "";
    }
}

int pipeline_file_load(struct pipeline_file **out, const char *path, char *err, size_t err_bytes) {
    struct story story = {{0}, {0}};
    cyaml_config_t config = config_of(&story);
    void *data;
    size_t bytes;
    int code = file_read(path, FILE_BYTES_MAX, &data, &bytes, err, err_bytes);
    if (code != 0) return code;
    cyaml_data_t *loaded = NULL;
    cyaml_err_t e = cyaml_load_data(data, bytes, &config, &pipeline_value, &loaded, NULL);
    if (e == CYAML_ERR_INVALID_KEY) place_key(&story, data);
    free(data);
    if (e == CYAML_OK && loaded) {
        *out = (struct pipeline_file *)loaded;
        return 0;
    }
    if (e == CYAML_OK) return err_set(err, err_bytes, ERR_FIELD, "%s: the file is empty", path);
    return err_set(err, err_bytes, e == CYAML_ERR_OOM ? -ENOMEM : ERR_FIELD, "%s: %s%s%s%s", path,
                   story.what[0] ? story.what : cyaml_strerror(e), story.where[0] ? ", " : "",
                   story.where, fix_of(e));
}

void pipeline_file_free(struct pipeline_file *f) {
    struct story story = {{0}, {0}};
    cyaml_config_t config = config_of(&story);
    if (f) cyaml_free(&config, &pipeline_value, f, 0);
}
