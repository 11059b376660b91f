/* compile.h - a JSON Schema (draft 2020-12) to the grammar of the texts that a model may write.
 *
 * The texts are a part of what the schema allows: compact JSON, members in the order of
 * `properties`, none that the schema does not name.
 * Supported: type, const and enum (beside type only), anyOf, oneOf (of different types), allOf (of
 * one), $ref into the schema itself (#, #/...), $defs; minLength, maxLength, pattern, format (date,
 * time, date-time, uuid, ipv4); minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf
 * (whole); items, prefixItems, minItems, maxItems; properties, required, additionalProperties as a
 * boolean. Annotations are left alone. Any other keyword is refused with its place, and so is what
 * cannot hold.
 *
 * Units: bytes.  Owner: grammar_fini.  Memory: as grammar.h says.  Errors: ERR_FIELD, ERR_LIMIT,
 * -ENOMEM with the place in the schema in err.  Threads: any. */
#ifndef PENSTOCK_WORKERS_SCHEMA_COMPILE_H
#define PENSTOCK_WORKERS_SCHEMA_COMPILE_H

#include "workers/schema/grammar.h"

#define SCHEMA_BYTES_MAX (64u * 1024u)

int schema_compile(struct grammar *g, struct bytes schema, char *err, size_t err_bytes);

#endif
