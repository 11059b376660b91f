/* model_dir.h - where the models of this user lie, and which files belong to one.
 *
 * $PENSTOCK_CACHE/models, else $XDG_CACHE_HOME/penstock/models, else ~/.cache/penstock/models. A
 * model is a Hugging Face directory there; names that begin with a dot are the library's own
 * (workers/infer/library.h).
 *
 * Units: none.  Owner, memory: the caller's buffers.  Errors: ERR_UNKNOWN.  Threads: any. */
#ifndef PENSTOCK_SCHEMAS_MODEL_DIR_H
#define PENSTOCK_SCHEMAS_MODEL_DIR_H

#include <stdbool.h>
#include <stddef.h>

#define MODEL_DIR_BYTES 4096u

void model_dir_root(char out[MODEL_DIR_BYTES]);
/* What a verb's MODEL_DIR means: the folder of that name, else the model of that name at the root,
 * written to room, else the word as it is. */
const char *model_dir_find(const char *word, char room[MODEL_DIR_BYTES]);
/* ERR_UNKNOWN with what to do unless what model_dir_find made of a word is a folder. */
int model_dir_need(const char *dir, char *err, size_t err_bytes);
/* Whether a file, named by its path in the repository, is one that the engine reads or a person
 * wants to know: weights, configuration, tokenizer, templates, pooling, card and licence. */
bool model_dir_wants(const char *path);
/* Whether a path can be that of a file of a model, wherever it came from: relative, of printable
 * ASCII, and no part of it empty, "." or "..". */
bool model_dir_is_path(const char *path);
/* A model's name: 1 to 64 bytes of letters, digits, "-", "_" and ".", not a dot first. */
bool model_dir_is_name(const char *name);

#endif
