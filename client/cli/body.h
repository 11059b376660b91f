/* body.h - a job's body from what the command line was given.
 *
 * Units: bytes.  Owner: body_fini.  Memory: JSON, about ten times the text.
 * Errors: CLI_USAGE or CLI_FAILED, after complaining.  Threads: one. */
#ifndef PENSTOCK_CLIENT_BODY_H
#define PENSTOCK_CLIENT_BODY_H

#include "base/json.h"
#include "schemas/kinds.h"

#define BODY_BINS_MAX 8u
struct body {
    const struct kind_desc *kind; /* NULL: a kind this build does not know */
    struct json *json;            /* object: all fields but the binary ones */
    struct body_bin {
        const struct field *field;
        void *data; /* owned */
        size_t bytes;
    } bin[BODY_BINS_MAX];
    uint32_t n_bins;
};
int body_init(struct body *b, const char *kind);
void body_fini(struct body *b); /* accepts zeroed memory */
/* --body-json: a JSON object, - is stdin */
int body_load(struct body *b, const char *path);
/* --text: the kind's first required field, or of those of which one is given the text */
int body_text(struct body *b, const char *text);
/* --file: the same, or the binary one; of a list of texts, a line each */
int body_file(struct body *b, const char *path);
/* --set name=value; of a binary field, or one of any value as JSON, name=@FILE */
int body_set(struct body *b, const char *assignment);
/* Appends all of it as a msgpack map, to which the caller appends `more` pairs. */
int body_pack(const struct body *b, uint32_t more, struct buf *out);

#endif
