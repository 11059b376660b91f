/* template.h - the post-processor of tokenizer.json: which special tokens stand around a text.
 *
 * Supported: none, TemplateProcessing (its form for one text), BertProcessing, RobertaProcessing,
 * ByteLevel (which changes no ids), and a Sequence of these, where at most one adds tokens.
 *
 * Units: tokens.  Owner: embedded in the tokenizer.  Memory: none.  Errors: ERR_FIELD, ERR_LIMIT
 * with the name of what is not supported.  Threads: immutable once read. */
#ifndef PENSTOCK_WORKERS_ENCODE_TEMPLATE_H
#define PENSTOCK_WORKERS_ENCODE_TEMPLATE_H

#include <stddef.h>
#include <stdint.h>

struct json;
#define TEMPLATE_TOKENS_MAX 16u

struct template {
    uint32_t before[TEMPLATE_TOKENS_MAX], after[TEMPLATE_TOKENS_MAX];
    uint32_t n_before, n_after;
};

int template_read(struct template *t, const struct json *j, char *err, size_t err_bytes);

#endif
