#include "pipelines/recipe_file.h"

#include "base/limits.h"
#include "pipelines/yaml_text.h"

#define TEXT(key, type, member, bytes, flags)                                                      \
    CYAML_FIELD_STRING_PTR(key, CYAML_FLAG_POINTER | (flags), struct type, member, 1, bytes)
#define NUMBER(key, type, member)                                                                  \
    CYAML_FIELD_INT_PTR(key, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct type, member)
#define PART(key, type, member, fields)                                                            \
    CYAML_FIELD_MAPPING_PTR(key, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct type, member,    \
                            fields)
#define LIST(key, type, member, entry, most)                                                       \
    CYAML_FIELD_SEQUENCE_COUNT(key, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct type, member, \
                               n_##member, entry, 0, most)
#define REQUIRED CYAML_FLAG_DEFAULT
#define OPTIONAL CYAML_FLAG_OPTIONAL

static const cyaml_strval_t ops[] = {{">", RECIPE_GT},  {">=", RECIPE_GE}, {"<", RECIPE_LT},
                                     {"<=", RECIPE_LE}, {"==", RECIPE_EQ}, {"!=", RECIPE_NE},
                                     {"gt", RECIPE_GT}, {"ge", RECIPE_GE}, {"lt", RECIPE_LT},
                                     {"le", RECIPE_LE}, {"eq", RECIPE_EQ}, {"ne", RECIPE_NE}};

static const cyaml_schema_field_t rule_fields[] = {
    TEXT("feature", file_rule, feature, 2 * LIMIT_NAME_BYTES, REQUIRED),
    CYAML_FIELD_ENUM("op", CYAML_FLAG_STRICT, struct file_rule, op, ops, CYAML_ARRAY_LEN(ops)),
    CYAML_FIELD_FLOAT("value", CYAML_FLAG_DEFAULT, struct file_rule, value), CYAML_FIELD_END};
static const cyaml_schema_value_t rule_value = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct file_rule, rule_fields)};

static const cyaml_schema_field_t cause_fields[] = {
    TEXT("cause", file_cause, cause, LIMIT_NAME_BYTES, REQUIRED),
    TEXT("describe", file_cause, describe, RECIPE_DESCRIBE_BYTES, OPTIONAL),
    LIST("rules", file_cause, rules, &rule_value, RECIPE_RULES_MAX), CYAML_FIELD_END};
static const cyaml_schema_value_t cause_value = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct file_cause, cause_fields)};

static const cyaml_schema_field_t box_fields[] = {
    CYAML_FIELD_UINT("x", CYAML_FLAG_DEFAULT, struct recipe_box, x),
    CYAML_FIELD_UINT("y", CYAML_FLAG_DEFAULT, struct recipe_box, y),
    CYAML_FIELD_UINT("width", CYAML_FLAG_DEFAULT, struct recipe_box, width),
    CYAML_FIELD_UINT("height", CYAML_FLAG_DEFAULT, struct recipe_box, height), CYAML_FIELD_END};
static const cyaml_schema_value_t box_value = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct recipe_box, box_fields)};

static const cyaml_schema_field_t registration_fields[] = {
    NUMBER("max_shift_px", file_registration, max_shift_px),
    TEXT("map", file_registration, map, LIMIT_NAME_BYTES, OPTIONAL),
    TEXT("levels", file_registration, levels, LIMIT_NAME_BYTES, OPTIONAL), CYAML_FIELD_END};

static const cyaml_schema_field_t compare_fields[] = {
    TEXT("color", file_compare, color, LIMIT_NAME_BYTES, OPTIONAL),
    NUMBER("side_px", file_compare, side_px),
    NUMBER("tolerance_px", file_compare, tolerance_px),
    NUMBER("contrast_min", file_compare, contrast_min),
    NUMBER("merge_px", file_compare, merge_px),
    NUMBER("margin_px", file_compare, margin_px),
    LIST("ignore", file_compare, ignore, &box_value, RECIPE_IGNORE_MAX),
    CYAML_FIELD_END};

static const cyaml_schema_field_t thresholds_fields[] = {
    NUMBER("area_min_px", file_thresholds, area_min_px),
    NUMBER("defects_max", file_thresholds, defects_max),
    CYAML_FIELD_FLOAT_PTR("score_min", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,
                          struct file_thresholds, score_min),
    LIST("ng", file_thresholds, ng, &rule_value, RECIPE_RULES_MAX), CYAML_FIELD_END};

static const cyaml_schema_field_t classes_fields[] = {
    TEXT("brighter", file_classes, brighter, LIMIT_NAME_BYTES, OPTIONAL),
    TEXT("darker", file_classes, darker, LIMIT_NAME_BYTES, OPTIONAL), CYAML_FIELD_END};

static const cyaml_schema_field_t recipe_fields[] = {
    TEXT("name", recipe_file, name, LIMIT_NAME_BYTES, REQUIRED),
    CYAML_FIELD_INT("version", CYAML_FLAG_DEFAULT, struct recipe_file, version),
    TEXT("reference", recipe_file, reference, 1024, OPTIONAL),
    PART("registration", recipe_file, registration, registration_fields),
    PART("compare", recipe_file, compare, compare_fields),
    PART("thresholds", recipe_file, thresholds, thresholds_fields),
    PART("classes", recipe_file, classes, classes_fields),
    LIST("causes", recipe_file, causes, &cause_value, RECIPE_CAUSES_MAX),
    CYAML_FIELD_END};
static const cyaml_schema_value_t recipe_value = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct recipe_file, recipe_fields)};

static const char *fix_of(cyaml_err_t e) {
    switch (e) {
    case CYAML_ERR_INVALID_KEY:
        return "; fields are name, version, reference, registration (max_shift_px, map, levels), "
               "compare (color, side_px, tolerance_px, contrast_min, merge_px, margin_px, ignore), "
               "thresholds (area_min_px, score_min, defects_max, ng), classes (brighter, darker), "
               "causes (cause, describe, rules)";
    case CYAML_ERR_MAPPING_FIELD_MISSING:
        return "; a recipe needs name and version, a cause its cause, a rule feature, op and value";
    case CYAML_ERR_INVALID_VALUE:
        return "; numbers are numbers, and an op is one of > >= < <= == != (in quotes) or gt ge lt "
               "le eq ne";
    case CYAML_ERR_STRING_LENGTH_MIN:
    case CYAML_ERR_STRING_LENGTH_MAX: return "; names have 1 to 64 bytes, descriptions 1024";
    case CYAML_ERR_SEQUENCE_ENTRIES_MAX: return "; 64 causes, 64 boxes, 16 rules are the most";
    case CYAML_ERR_ALIAS: return "; anchors and aliases are not allowed, write the value out";
    default: return "";
    }
}

int recipe_file_load(struct recipe_file **out, const char *yaml, size_t bytes, const char *where,
                     char *err, size_t err_bytes) {
    void *loaded;
    int code = yaml_text_load(yaml, bytes, where, &recipe_value, fix_of, &loaded, err, err_bytes);
    if (code == 0) *out = loaded;
    return code;
}

void recipe_file_free(struct recipe_file *f) {
    yaml_text_free(&recipe_value, f);
}
