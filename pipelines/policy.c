#include "pipelines/policy.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"
#include "pipelines/yaml_text.h"

#define FILE_BYTES_MAX (1024u * 1024u)
#define TEXT_BYTES_MAX 4096u

#define TEXT(key, type, member, flags)                                                             \
    CYAML_FIELD_STRING_PTR(key, CYAML_FLAG_POINTER | (flags), struct type, member, 1,              \
                           TEXT_BYTES_MAX)
#define FRACTION(type, member) CYAML_FIELD_FLOAT(#member, CYAML_FLAG_DEFAULT, struct type, member)

/* ---- schemas ---- */

static const cyaml_schema_value_t cue_value = {
    CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char, 1, TEXT_BYTES_MAX)};

static const cyaml_schema_field_t type_fields[] = {
    TEXT("name", taxonomy_type, name, 0),
    TEXT("en", taxonomy_type, en, 0),
    TEXT("zh", taxonomy_type, zh, 0),
    CYAML_FIELD_SEQUENCE_COUNT("cues_en", CYAML_FLAG_POINTER, struct taxonomy_type, cues_en,
                               n_cues_en, &cue_value, 0, TAXONOMY_CUES_MAX),
    CYAML_FIELD_SEQUENCE_COUNT("cues_zh", CYAML_FLAG_POINTER, struct taxonomy_type, cues_zh,
                               n_cues_zh, &cue_value, 0, TAXONOMY_CUES_MAX),
    CYAML_FIELD_END};
static const cyaml_schema_value_t type_value = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct taxonomy_type, type_fields)};
static const cyaml_schema_field_t weights_fields[] = {
    FRACTION(taxonomy_weights, cosine), FRACTION(taxonomy_weights, cue),
    FRACTION(taxonomy_weights, threshold), CYAML_FIELD_END};
static const cyaml_schema_field_t languages_fields[] = {
    CYAML_FIELD_MAPPING("en", CYAML_FLAG_DEFAULT, struct taxonomy_languages, en, weights_fields),
    CYAML_FIELD_MAPPING("zh", CYAML_FLAG_DEFAULT, struct taxonomy_languages, zh, weights_fields),
    CYAML_FIELD_END};
static const cyaml_schema_field_t taxonomy_fields[] = {
    TEXT("name", taxonomy, name, 0),
    CYAML_FIELD_UINT("version", CYAML_FLAG_DEFAULT, struct taxonomy, version),
    CYAML_FIELD_MAPPING("weights", CYAML_FLAG_DEFAULT, struct taxonomy, weights, languages_fields),
    CYAML_FIELD_SEQUENCE_COUNT("types", CYAML_FLAG_POINTER, struct taxonomy, types, n_types,
                               &type_value, 1, TAXONOMY_TYPES_MAX),
    CYAML_FIELD_END};
static const cyaml_schema_value_t taxonomy_value = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct taxonomy, taxonomy_fields)};

static const cyaml_strval_t levels[] = {
    {"low", POLICY_LOW}, {"medium", POLICY_MEDIUM}, {"high", POLICY_HIGH}};
static const cyaml_strval_t whens[] = {
    {"present", POLICY_PRESENT}, {"absent", POLICY_ABSENT}, {"value", POLICY_VALUE}};
static const cyaml_strval_t entities[] = {{"duration", POLICY_DURATION},
                                          {"percentage", POLICY_PERCENTAGE},
                                          {"amount", POLICY_AMOUNT},
                                          {"conflict", POLICY_CONFLICT}};
static const cyaml_schema_field_t rule_fields[] = {
    TEXT("id", policy_rule, id, 0),
    TEXT("type", policy_rule, type, 0),
    TEXT("match", policy_rule, match, CYAML_FLAG_OPTIONAL),
    TEXT("why_en", policy_rule, why_en, 0),
    TEXT("why_zh", policy_rule, why_zh, 0),
    CYAML_FIELD_ENUM("level", CYAML_FLAG_STRICT, struct policy_rule, level, levels,
                     CYAML_ARRAY_LEN(levels)),
    CYAML_FIELD_ENUM("when", CYAML_FLAG_STRICT, struct policy_rule, when, whens,
                     CYAML_ARRAY_LEN(whens)),
    CYAML_FIELD_ENUM("entity", CYAML_FLAG_STRICT | CYAML_FLAG_OPTIONAL, struct policy_rule, entity,
                     entities, CYAML_ARRAY_LEN(entities)),
    CYAML_FIELD_FLOAT_PTR("above", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct policy_rule,
                          above),
    CYAML_FIELD_FLOAT_PTR("below", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct policy_rule,
                          below),
    CYAML_FIELD_END};
static const cyaml_schema_value_t rule_value = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct policy_rule, rule_fields)};
static const cyaml_schema_field_t policy_fields[] = {
    TEXT("name", policy, name, 0),
    CYAML_FIELD_UINT("version", CYAML_FLAG_DEFAULT, struct policy, version),
    CYAML_FIELD_SEQUENCE_COUNT("rules", CYAML_FLAG_POINTER, struct policy, rules, n_rules,
                               &rule_value, 1, POLICY_RULES_MAX),
    CYAML_FIELD_END};
static const cyaml_schema_value_t policy_value = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct policy, policy_fields)};

/* ---- loading ---- */

static const char *no_fix(cyaml_err_t e) {
    (void)e;
    return "";
}

static int load(void **out, const char *path, const cyaml_schema_value_t *schema, char *err,
                size_t err_bytes) {
    void *data;
    size_t bytes;
    *out = NULL;
    int rc = file_read(path, FILE_BYTES_MAX, &data, &bytes, err, err_bytes);
    if (rc < 0) return rc;
    rc = yaml_text_load(data, bytes, path, schema, no_fix, out, err, err_bytes);
    free(data);
    return rc;
}

int taxonomy_load(struct taxonomy **out, const char *path, char *err, size_t err_bytes) {
    void *data;
    int rc = load(&data, path, &taxonomy_value, err, err_bytes);
    *out = data;
    struct taxonomy *t = *out;
    for (uint32_t i = 0; rc == 0 && i < t->n_types; i++)
        for (uint32_t k = 0; rc == 0 && k < i; k++)
            if (strcmp(t->types[i].name, t->types[k].name) == 0)
                rc = err_set(err, err_bytes, ERR_FIELD, "%s: types: %s is there twice", path,
                             t->types[i].name);
    if (rc == 0) return 0;
    taxonomy_free(t);
    *out = NULL;
    return rc;
}

void taxonomy_free(struct taxonomy *t) {
    yaml_text_free(&taxonomy_value, t);
}

const char *policy_level_name(enum policy_level l) {
    return l == POLICY_HIGH ? "high" : l == POLICY_MEDIUM ? "medium" : "low";
}

static int check_rule(const struct policy_rule *r, const struct taxonomy *types, const char *path,
                      char *err, size_t err_bytes) {
    bool known = strcmp(r->type, "Any") == 0;
    for (uint32_t i = 0; !known && i < types->n_types; i++)
        known = strcmp(types->types[i].name, r->type) == 0;
    if (!known)
        return err_set(err, err_bytes, ERR_FIELD, "%s: rule %s: type: %s has no type %s", path,
                       r->id, types->name, r->type);
    if ((r->when == POLICY_VALUE) != (r->entity != POLICY_NO_ENTITY))
        return err_set(err, err_bytes, ERR_FIELD,
                       "%s: rule %s: entity: goes with `when: value`, and with nothing else", path,
                       r->id);
    bool limit = r->above || r->below;
    if (r->when == POLICY_VALUE && limit == (r->entity == POLICY_CONFLICT))
        return err_set(err, err_bytes, ERR_FIELD,
                       "%s: rule %s: above, below: a value needs one of them, a conflict none",
                       path, r->id);
    if (r->when == POLICY_ABSENT && (r->match || strcmp(r->type, "Any") == 0))
        return err_set(err, err_bytes, ERR_FIELD,
                       "%s: rule %s: `when: absent` goes with a type, and without match", path,
                       r->id);
    return 0;
}

int policy_load(struct policy **out, const char *path, const struct taxonomy *types, char *err,
                size_t err_bytes) {
    void *data;
    int rc = load(&data, path, &policy_value, err, err_bytes);
    *out = data;
    for (uint32_t i = 0; rc == 0 && i < (*out)->n_rules; i++)
        rc = check_rule(&(*out)->rules[i], types, path, err, err_bytes);
    if (rc == 0) return 0;
    policy_free(*out);
    *out = NULL;
    return rc;
}

void policy_free(struct policy *p) {
    yaml_text_free(&policy_value, p);
}
