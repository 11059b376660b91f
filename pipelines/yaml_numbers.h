/* yaml_numbers.h - that the numbers of a YAML text are numbers to their last character.
 *
 * libcyaml reads a number as strtoll does and leaves what stands behind it: `60s` is 60, `1.9e3`
 * is 1, `010` is 8. Here they are refused, by walking the text's nodes beside the schema.
 *
 * Units: bytes.  Owner: the caller's.  Memory: libyaml's, for the call.  Errors: ERR_FIELD, -ENOMEM
 * with err as "WHERE: FIELD is "60s", line: n; fix".  Threads: any. */
#ifndef PENSTOCK_PIPELINES_YAML_NUMBERS_H
#define PENSTOCK_PIPELINES_YAML_NUMBERS_H

#include <cyaml/cyaml.h>
#include <stddef.h>

/* Of a text that libcyaml has taken by this schema. */
int yaml_numbers_check(const char *data, size_t bytes, const char *where,
                       const cyaml_schema_value_t *schema, char *err, size_t err_bytes);

#endif
