#include "pipelines/yaml_numbers.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/err.h"

struct walk {
    yaml_document_t *doc;
    const char *where;
    char *err;
    size_t err_bytes;
};

/* -?(0|[1-9][0-9]*) */
static bool is_whole(const char *text) {
    const char *digits = text + (*text == '-');
    size_t n = strspn(digits, "0123456789");
    return n > 0 && digits[n] == '\0' && (n == 1 || digits[0] != '0');
}

static bool is_real(const char *text) {
    char *end;
    double x = strtod(text, &end);
    return *text && *end == '\0' && text[strspn(text, "0123456789+-.eE")] == '\0' && isfinite(x);
}

static int check_scalar(const struct walk *w, const yaml_node_t *node, const char *field,
                        bool whole) {
    const char *text = (const char *)node->data.scalar.value;
    if (strlen(text) == node->data.scalar.length && (whole ? is_whole(text) : is_real(text)))
        return 0;
    return err_set(w->err, w->err_bytes, ERR_FIELD, "%s: %s is \"%.40s\", line: %zu; %s", w->where,
                   field, text, node->start_mark.line + 1,
                   whole ? "give a whole number in decimal, without unit or fraction"
                         : "give a number in decimal, without unit");
}

static const cyaml_schema_field_t *field_of(const cyaml_schema_value_t *schema,
                                            const yaml_node_t *key) {
    const cyaml_schema_field_t *f = schema->mapping.fields;
    while (f->key && strcmp(f->key, (const char *)key->data.scalar.value) != 0) f++;
    return f->key ? f : NULL;
}

static int check(const struct walk *w, int at, const cyaml_schema_value_t *schema,
                 const char *field) {
    const yaml_node_t *node = yaml_document_get_node(w->doc, at);
    int rc = 0;
    if (node->type == YAML_SCALAR_NODE && schema->type == CYAML_FLOAT)
        return check_scalar(w, node, field, false);
    if (node->type == YAML_SCALAR_NODE && (schema->type == CYAML_INT || schema->type == CYAML_UINT))
        return check_scalar(w, node, field, true);
    if (node->type == YAML_SEQUENCE_NODE && schema->type == CYAML_SEQUENCE)
        for (yaml_node_item_t *i = node->data.sequence.items.start;
             rc == 0 && i < node->data.sequence.items.top; i++)
            rc = check(w, *i, schema->sequence.entry, field);
    if (node->type == YAML_MAPPING_NODE && schema->type == CYAML_MAPPING)
        for (yaml_node_pair_t *p = node->data.mapping.pairs.start;
             rc == 0 && p < node->data.mapping.pairs.top; p++) {
            const cyaml_schema_field_t *f =
                field_of(schema, yaml_document_get_node(w->doc, p->key));
            if (f) rc = check(w, p->value, &f->value, f->key);
        }
    return rc;
}

int yaml_numbers_check(const char *data, size_t bytes, const char *where,
                       const cyaml_schema_value_t *schema, char *err, size_t err_bytes) {
    yaml_parser_t parser;
    yaml_document_t doc;
    struct walk w = {&doc, where, err, err_bytes};
    if (!yaml_parser_initialize(&parser))
        return err_set(err, err_bytes, -ENOMEM, "%s: no memory to read it", where);
    yaml_parser_set_input_string(&parser, (const yaml_char_t *)data, bytes);
    int rc = 0;
    if (yaml_parser_load(&parser, &doc)) {
        if (yaml_document_get_root_node(&doc)) rc = check(&w, 1, schema, "it");
        yaml_document_delete(&doc);
    } else {
        rc = err_set(err, err_bytes, -ENOMEM, "%s: no memory to read it", where);
    }
    yaml_parser_delete(&parser);
    return rc;
}
