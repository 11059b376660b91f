/* vocab_files.h - model directories from before tokenizer.json, told as the file they lack.
 *
 * vocab.txt makes a BERT tokenizer; vocab.json with merges.txt (or GPT-2's encoder.json with
 * vocab.bpe) a byte-level BPE, with Qwen2's pattern and NFC when tokenizer_config.json names its
 * class. Added tokens come from tokenizer_config.json or added_tokens.json.
 *
 * Units: bytes.  Owner: the caller frees the value with json_free.  Memory: ten times the files.
 * Errors: -ENOENT naming what was looked for, ERR_FIELD, ERR_LIMIT, -ENOMEM with err.  Threads:
 * any. */
#ifndef PENSTOCK_WORKERS_ENCODE_VOCAB_FILES_H
#define PENSTOCK_WORKERS_ENCODE_VOCAB_FILES_H

#include <stddef.h>

struct json;
#define VOCAB_FILE_BYTES_MAX (256u * 1024u * 1024u)

int vocab_files_load(struct json **out, const char *dir, char *err, size_t err_bytes);

#endif
