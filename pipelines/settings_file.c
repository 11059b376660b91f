#include "pipelines/settings_file.h"

#include "base/limits.h"
#include "pipelines/settings.h"
#include "pipelines/yaml_text.h"

#define TEXT(key, type, member, bytes, flags)                                                      \
    CYAML_FIELD_STRING_PTR(key, CYAML_FLAG_POINTER | (flags), struct type, member, 1, bytes)
#define NUMBER(key, type, member)                                                                  \
    CYAML_FIELD_INT_PTR(key, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct type, member)
#define LIST(key, member, entry, most)                                                             \
    CYAML_FIELD_SEQUENCE_COUNT(key, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,                      \
                               struct settings_file, member, n_##member, entry, 0, most)
#define REQUIRED CYAML_FLAG_DEFAULT

static const cyaml_schema_field_t tenant_fields[] = {
    TEXT("name", file_tenant, name, LIMIT_NAME_BYTES, REQUIRED),
    NUMBER("weight", file_tenant, weight),
    NUMBER("jobs_max", file_tenant, jobs_max),
    NUMBER("bytes_max", file_tenant, bytes_max),
    CYAML_FIELD_FLOAT_PTR("rate_per_s", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,
                          struct file_tenant, rate_per_s),
    NUMBER("burst", file_tenant, burst),
    CYAML_FIELD_END};
static const cyaml_schema_value_t tenant_value = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct file_tenant, tenant_fields)};

static const cyaml_schema_field_t level_fields[] = {
    CYAML_FIELD_INT_PTR("level", CYAML_FLAG_POINTER, struct file_level, level),
    NUMBER("jobs_max", file_level, jobs_max), NUMBER("bytes_max", file_level, bytes_max),
    TEXT("full", file_level, full, LIMIT_NAME_BYTES, CYAML_FLAG_OPTIONAL), CYAML_FIELD_END};
static const cyaml_schema_value_t level_value = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct file_level, level_fields)};

static const cyaml_schema_field_t cap_fields[] = {
    TEXT("run", file_cap, run, LIMIT_NAME_BYTES, REQUIRED), NUMBER("jobs_max", file_cap, jobs_max),
    NUMBER("bytes_max", file_cap, bytes_max), CYAML_FIELD_END};
static const cyaml_schema_value_t cap_value = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct file_cap, cap_fields)};

static const cyaml_schema_field_t source_fields[] = {
    TEXT("name", file_source, name, LIMIT_NAME_BYTES, REQUIRED),
    TEXT("policy", file_source, policy, LIMIT_NAME_BYTES, REQUIRED),
    CYAML_FIELD_INT_PTR("depth", CYAML_FLAG_POINTER, struct file_source, depth),
    NUMBER("above", file_source, above),
    NUMBER("keep_one_of", file_source, keep_one_of),
    NUMBER("interval_ms", file_source, interval_ms),
    CYAML_FIELD_END};
static const cyaml_schema_value_t source_value = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct file_source, source_fields)};

static const cyaml_schema_field_t settings_fields[] = {
    NUMBER("dedupe_window_s", settings_file, dedupe_window_s),
    LIST("tenants", tenants, &tenant_value, LIMIT_TENANTS),
    LIST("levels", levels, &level_value, SETTINGS_LEVELS),
    LIST("stages", stages, &cap_value, SETTINGS_STAGES_MAX),
    LIST("sources", sources, &source_value, SETTINGS_SOURCES_MAX),
    CYAML_FIELD_END};
static const cyaml_schema_value_t settings_value = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct settings_file, settings_fields)};

static const char *fix_of(cyaml_err_t e) {
    switch (e) {
    case CYAML_ERR_INVALID_KEY:
        return "; fields are tenants (name, weight, jobs_max, bytes_max, rate_per_s, burst), "
               "levels (level, jobs_max, bytes_max, full), stages (run, jobs_max, bytes_max), "
               "sources (name, policy, depth, above, keep_one_of, interval_ms), dedupe_window_s";
    case CYAML_ERR_MAPPING_FIELD_MISSING:
        return "; a tenant needs its name, a level its level, a stage its run, a source name, "
               "policy and depth";
    case CYAML_ERR_INVALID_VALUE: return "; tenants, levels, stages and sources are lists of maps";
    case CYAML_ERR_STRING_LENGTH_MIN:
    case CYAML_ERR_STRING_LENGTH_MAX: return "; names have 1 to 64 bytes";
    case CYAML_ERR_SEQUENCE_ENTRIES_MAX:
        return "; 1024 tenants, 10 levels, 64 stages, 1024 sources are the most";
    case CYAML_ERR_ALIAS: return "; anchors and aliases are not allowed, write the value out";
    default: return "";
    }
}

int settings_file_load(struct settings_file **out, const char *yaml, size_t bytes,
                       const char *where, char *err, size_t err_bytes) {
    void *loaded;
    int code = yaml_text_load(yaml, bytes, where, &settings_value, fix_of, &loaded, err, err_bytes);
    if (code == 0) *out = loaded;
    return code;
}

void settings_file_free(struct settings_file *f) {
    yaml_text_free(&settings_value, f);
}
