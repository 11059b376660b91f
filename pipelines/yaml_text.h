/* yaml_text.h - a YAML text read by a libcyaml schema, and one sentence about what was wrong.
 *
 * Anchors and aliases are refused: a small file must stay small in memory. (libyaml has a yaml_free
 * of its own, hence the longer names.)
 *
 * Units: bytes.  Owner: yaml_text_load gives what the schema describes to yaml_text_free.
 * Memory: libcyaml's.  Errors: ERR_FIELD, -ENOMEM with err as "WHERE: what, line: n; fix".
 * Threads: any. */
#ifndef PENSTOCK_PIPELINES_YAML_TEXT_H
#define PENSTOCK_PIPELINES_YAML_TEXT_H

#include <cyaml/cyaml.h>
#include <stddef.h>

/* What to do about an error, "; names have 1 to 64 bytes", or "". */
typedef const char *yaml_text_fix(cyaml_err_t e);

/* data ends with a NUL behind its bytes, as file_read gives it; where names it in err. */
int yaml_text_load(const char *data, size_t bytes, const char *where,
                   const cyaml_schema_value_t *schema, yaml_text_fix *fix, void **out, char *err,
                   size_t err_bytes);
/* The line, from 1, where the key `field` stands for the nth time (from 0) behind the key `list`,
 * or the list itself with NULL; 1 when it is not there. For what a schema does not check, in a file
 * that it let pass. */
unsigned yaml_text_line(const char *data, const char *list, const char *field, unsigned nth);
void yaml_text_free(const cyaml_schema_value_t *schema, void *loaded); /* NULL is fine */

#endif
