#include "pipelines/schema.h"

#include <stdlib.h>

#include "base/err.h"
#include "base/file.h"
#include "base/limits.h"
#include "pipelines/yaml_text.h"

#define FILE_BYTES_MAX (64u * 1024u)

#define TEXT(key, type, member, flags)                                                             \
    CYAML_FIELD_STRING_PTR(key, CYAML_FLAG_POINTER | (flags), struct type, member, 1,              \
                           LIMIT_NAME_BYTES)
#define NUMBER(key, type, member)                                                                  \
    CYAML_FIELD_INT_PTR(key, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct type, member)
#define REQUIRED CYAML_FLAG_DEFAULT
#define OPTIONAL CYAML_FLAG_OPTIONAL

static const cyaml_schema_field_t batch_fields[] = {
    NUMBER("max", file_batch, max), NUMBER("delay_ms", file_batch, delay_ms),
    NUMBER("slo_ms", file_batch, slo_ms), CYAML_FIELD_END};

static const cyaml_schema_field_t fan_out_fields[] = {
    TEXT("pipeline", file_fan_out, pipeline, REQUIRED),
    TEXT("partial", file_fan_out, partial, OPTIONAL), CYAML_FIELD_END};

static const cyaml_schema_field_t stage_fields[] = {
    TEXT("name", file_stage, name, REQUIRED),
    TEXT("run", file_stage, run, REQUIRED),
    TEXT("model", file_stage, model, OPTIONAL),
    TEXT("adapter", file_stage, adapter, OPTIONAL),
    NUMBER("timeout_ms", file_stage, timeout_ms),
    CYAML_FIELD_MAPPING_PTR("batch", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_stage,
                            batch, batch_fields),
    CYAML_FIELD_MAPPING_PTR("fan_out", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_stage,
                            fan_out, fan_out_fields),
    CYAML_FIELD_BOOL("checkpoint", CYAML_FLAG_OPTIONAL, struct file_stage, checkpoint),
    CYAML_FIELD_END};

static const cyaml_schema_value_t stage_value = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct file_stage, stage_fields)};

static const cyaml_schema_field_t retry_fields[] = {
    NUMBER("max", file_retry, max),
    NUMBER("backoff_ms", file_retry, backoff_ms),
    NUMBER("backoff_max_ms", file_retry, backoff_max_ms),
    NUMBER("timeouts_max", file_retry, timeouts_max),
    NUMBER("deaths_max", file_retry, deaths_max),
    CYAML_FIELD_END};

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

static const char *fix_of(cyaml_err_t e) {
    switch (e) {
    case CYAML_ERR_INVALID_KEY:
        return "; fields are name, kind, stages (name, run, model, adapter, timeout_ms, batch: "
               "{max, delay_ms}, checkpoint, fan_out: {pipeline, partial}), retry (max, "
               "timeouts_max, deaths_max, backoff_ms, "
               "backoff_max_ms), timeout_ms, queue_max";
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
    void *data, *loaded;
    size_t bytes;
    int code = file_read(path, FILE_BYTES_MAX, &data, &bytes, err, err_bytes);
    if (code != 0) return code;
    code = yaml_text_load(data, bytes, path, &pipeline_value, fix_of, &loaded, err, err_bytes);
    free(data);
    if (code == 0) *out = loaded;
    return code;
}

void pipeline_file_free(struct pipeline_file *f) {
    yaml_text_free(&pipeline_value, f);
}
