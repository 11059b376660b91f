#include "schemas/model_dir.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/limits.h"

void model_dir_root(char out[MODEL_DIR_BYTES]) {
    const char *cache = getenv("PENSTOCK_CACHE"), *user = getenv("XDG_CACHE_HOME");
    const char *home = getenv("HOME");
    if (cache && cache[0])
        snprintf(out, MODEL_DIR_BYTES, "%s/models", cache);
    else if (user && user[0])
        snprintf(out, MODEL_DIR_BYTES, "%s/penstock/models", user);
    else
        snprintf(out, MODEL_DIR_BYTES, "%s/.cache/penstock/models", home ? home : "");
}

const char *model_dir_find(const char *word, char room[MODEL_DIR_BYTES]) {
    char root[MODEL_DIR_BYTES];
    if (!model_dir_is_name(word) || file_is_folder(word)) return word;
    model_dir_root(root);
    int n = snprintf(room, MODEL_DIR_BYTES, "%s/%s", root, word);
    return n > 0 && (size_t)n < MODEL_DIR_BYTES && file_is_folder(room) ? room : word;
}

int model_dir_need(const char *dir, char *err, size_t err_bytes) {
    if (file_is_folder(dir)) return 0;
    if (model_dir_is_name(dir))
        return err_set(err, err_bytes, ERR_UNKNOWN,
                       "model %s is not here; `penstock model ls` lists those that are", dir);
    return err_set(err, err_bytes, ERR_UNKNOWN,
                   "%s: there is no such folder; name a model's, or a model that `penstock model "
                   "ls` lists",
                   dir);
}

static bool ends_with(const char *text, const char *end) {
    size_t len = strlen(text), n = strlen(end);
    return len >= n && strcmp(text + len - n, end) == 0;
}

bool model_dir_is_path(const char *path) {
    for (const char *p = path; *p; p++)
        if (!isascii((unsigned char)*p) || !isprint((unsigned char)*p)) return false;
    for (;; path++) {
        size_t len = strcspn(path, "/");
        if (len == 0 || (len == 1 && path[0] == '.') || (len == 2 && strncmp(path, "..", 2) == 0))
            return false;
        path += len;
        if (!*path) return true;
    }
}

bool model_dir_wants(const char *path) {
    static const char *const names[] = {"config.json",
                                        "generation_config.json",
                                        "tokenizer.json",
                                        "tokenizer_config.json",
                                        "tokenizer.model",
                                        "special_tokens_map.json",
                                        "added_tokens.json",
                                        "vocab.json",
                                        "vocab.txt",
                                        "merges.txt",
                                        "chat_template.jinja",
                                        "chat_template.json",
                                        "additional_chat_templates/tool_use.jinja",
                                        "modules.json",
                                        "sentence_bert_config.json",
                                        "config_sentence_transformers.json",
                                        "preprocessor_config.json",
                                        "model.safetensors.index.json",
                                        "README.md",
                                        "LICENSE",
                                        "LICENSE.md",
                                        "LICENSE.txt"};
    if (!model_dir_is_path(path)) return false;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(path, names[i]) == 0) return true;
    const char *slash = strchr(path, '/');
    if (!slash)
        return ends_with(path, ".safetensors") && path[0] != '.' &&
               strncmp(path, "consolidated", 12) != 0;
    /* 1_Pooling/config.json and its like, which modules.json names */
    return isdigit((unsigned char)path[0]) && path[1] == '_' && strcmp(slash, "/config.json") == 0;
}

bool model_dir_is_name(const char *name) {
    size_t len = strlen(name);
    for (size_t i = 0; i < len; i++)
        if (!isalnum((unsigned char)name[i]) && !strchr("-_.", name[i])) return false;
    return len >= 1 && len <= LIMIT_NAME_BYTES && name[0] != '.';
}
