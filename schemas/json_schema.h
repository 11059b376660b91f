/* json_schema.h - a job kind's field table as JSON Schema (2020-12), for `penstock schema KIND`.
 *
 * Units: none.  Owner: the caller frees with json_free.  Memory: base/json.h's.  Errors: -ENOMEM.
 * Threads: any. */
#ifndef PENSTOCK_SCHEMAS_JSON_SCHEMA_H
#define PENSTOCK_SCHEMAS_JSON_SCHEMA_H

#include "base/json.h"
#include "schemas/kinds.h"

int json_schema(const struct kind_desc *kind, struct json **out);
/* msgpack to JSON and back, as --json prints results and `submit --json-body` reads bodies; bin
 * becomes base64. */
int json_from_pack(struct bytes document, struct json **out, char *err, size_t err_bytes);
int json_to_pack(const struct json *in, struct buf *out, char *err, size_t err_bytes);

#endif
