#include "workers/encode/vocab_files.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/file.h"
#include "base/json.h"

#define CONFIG_BYTES_MAX (16u * 1024u * 1024u)
static bool path_in(char path[4096], const char *dir, const char *name) {
    int n = snprintf(path, 4096, "%s/%s", dir, name);
    return n > 0 && n < 4096 && access(path, R_OK) == 0;
}

/* Calls add(to, line, number) for each line of a file, its line end cut off. */
static int each_line(const char *path, int (*add)(struct json *, const char *, size_t, size_t),
                     struct json *to, char *err, size_t err_bytes) {
    void *text;
    size_t bytes;
    int rc = file_read(path, VOCAB_FILE_BYTES_MAX, &text, &bytes, err, err_bytes);
    if (rc < 0) return rc;
    const char *at = text, *end = at + bytes;
    for (size_t n = 0; rc == 0 && at < end; n++) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        const char *next = stop ? stop + 1 : end;
        if (!stop) stop = end;
        if (stop > at && stop[-1] == '\r') stop--;
        if (memchr(at, 0, (size_t)(stop - at)))
            rc = err_set(err, err_bytes, ERR_CORRUPT, "%s: line %zu: a NUL", path, n + 1);
        else
            rc = add(to, at, (size_t)(stop - at), n);
        at = next;
    }
    free(text);
    return rc;
}

static int add_token_line(struct json *vocab, const char *line, size_t bytes, size_t number) {
    char *key = strndup(line, bytes);
    if (!key) return -ENOMEM;
    int rc = json_set(vocab, key, json_new_int((int64_t)number));
    free(key);
    return rc;
}

static int add_merge_line(struct json *merges, const char *line, size_t bytes, size_t number) {
    if (bytes == 0 || (number == 0 && bytes >= 8 && memcmp(line, "#version", 8) == 0)) return 0;
    return json_push(merges, json_new_str(line, bytes));
}

/* Takes the children, whatever happens. */
static int put_model(struct json *out, const char *model_text, struct json *vocab,
                     struct json *merges, const char *unknown) {
    struct json *model = NULL;
    int rc = json_parse(&model, model_text, strlen(model_text), NULL, 0);
    if (rc == 0) {
        rc = json_set(model, "vocab", vocab);
        vocab = NULL;
    }
    if (rc == 0 && merges) {
        rc = json_set(model, "merges", merges);
        merges = NULL;
    }
    if (rc == 0 && unknown)
        rc = json_set(model, "unk_token", json_new_str(unknown, strlen(unknown)));
    if (rc == 0) return json_set(out, "model", model);
    json_free(vocab);
    json_free(merges);
    json_free(model);
    return rc;
}

static const char *config_str(const struct json *config, const char *key, const char *otherwise) {
    const struct json *j = json_get(config, key);
    const char *text = json_str(json_kind(j) == JSON_OBJECT ? json_get(j, "content") : j);
    return text ? text : otherwise;
}

/* ---- added tokens ---- */

static int push_added(struct json *list, int64_t id, const char *content,
                      const struct json *flags) {
    struct json *j = json_new_object();
    int rc = json_set(j, "id", json_new_int(id));
    if (rc == 0) rc = json_set(j, "content", json_new_str(content, strlen(content)));
    static const char *const names[] = {"single_word", "lstrip", "rstrip", "normalized", "special"};
    for (size_t i = 0; rc == 0 && i < sizeof names / sizeof *names; i++)
        rc = json_set(j, names[i],
                      json_new_bool(json_bool(json_get(flags, names[i]), i == 4 && !flags)));
    if (rc < 0) {
        json_free(j);
        return rc;
    }
    return json_push(list, j);
}

static int add_added(struct json *out, const char *dir, const struct json *config,
                     const struct json *vocab) {
    struct json *list = json_new_array(), *file = NULL;
    char path[4096], why[256];
    const struct json *decoder = json_get(config, "added_tokens_decoder"), *value;
    const char *key;
    size_t it = 0;
    int rc = list ? 0 : -ENOMEM;
    if (decoder) {
        while (rc == 0 && json_next(decoder, &it, &key, &value))
            if (json_str(json_get(value, "content")))
                rc = push_added(list, strtoll(key, NULL, 10), json_str(json_get(value, "content")),
                                value);
    } else if (path_in(path, dir, "added_tokens.json") &&
               json_load(&file, path, CONFIG_BYTES_MAX, why, sizeof why) == 0) {
        while (rc == 0 && json_next(file, &it, &key, &value))
            rc = push_added(list, json_int(value, -1), key, NULL);
    } else {
        static const char *const usual[] = {"[PAD]", "[UNK]",  "[CLS]",
                                            "[SEP]", "[MASK]", "<|endoftext|>"};
        for (size_t i = 0; rc == 0 && i < sizeof usual / sizeof *usual; i++)
            if (json_get(vocab, usual[i]))
                rc = push_added(list, json_int(json_get(vocab, usual[i]), -1), usual[i], NULL);
    }
    json_free(file);
    if (rc == 0) return json_set(out, "added_tokens", list);
    json_free(list);
    return rc;
}

/* ---- the two families ---- */

static int load_bert(struct json **out, const char *dir, const struct json *config, char *err,
                     size_t err_bytes) {
    char path[4096];
    if (!path_in(path, dir, "vocab.txt")) return -ENOENT;
    struct json *vocab = json_new_object();
    struct buf text = {0};
    int rc = vocab ? each_line(path, add_token_line, vocab, err, err_bytes) : -ENOMEM;
    bool lower = json_bool(json_get(config, "do_lower_case"), true);
    bool accents = json_bool(json_get(config, "strip_accents"), lower);
    bool han = json_bool(json_get(config, "tokenize_chinese_chars"), true);
    int64_t cls = json_int(json_get(vocab, config_str(config, "cls_token", "[CLS]")), -1);
    int64_t sep = json_int(json_get(vocab, config_str(config, "sep_token", "[SEP]")), -1);
    if (rc == 0)
        rc = buf_printf(&text,
                        "{\"normalizer\":{\"type\":\"BertNormalizer\",\"lowercase\":%s,"
                        "\"strip_accents\":%s,\"handle_chinese_chars\":%s},"
                        "\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},"
                        "\"decoder\":{\"type\":\"WordPiece\"},\"post_processor\":{"
                        "\"type\":\"BertProcessing\",\"cls\":[\"\",%lld],\"sep\":[\"\",%lld]}}",
                        lower ? "true" : "false", accents ? "true" : "false",
                        han ? "true" : "false", (long long)cls, (long long)sep);
    if (rc == 0) rc = json_parse(out, text.data, text.len, err, err_bytes);
    buf_fini(&text);
    if (rc == 0) rc = add_added(*out, dir, config, vocab);
    if (rc == 0)
        return put_model(*out, "{\"type\":\"WordPiece\"}", vocab, NULL,
                         config_str(config, "unk_token", "[UNK]"));
    json_free(vocab);
    return rc;
}

static const char gpt2_parts[] =
    "{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
    "\"decoder\":{\"type\":\"ByteLevel\"}}";

static const char qwen2_parts[] =
    "{\"normalizer\":{\"type\":\"NFC\"},"
    "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":["
    "{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":{\"Regex\":\""
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}"
    "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"}},"
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]},"
    "\"decoder\":{\"type\":\"ByteLevel\"}}";

static int load_bpe(struct json **out, const char *dir, const struct json *config, char *err,
                    size_t err_bytes) {
    static const char *const names[][2] = {{"vocab.json", "merges.txt"},
                                           {"encoder.json", "vocab.bpe"}};
    char vocab_path[4096], merges_path[4096];
    int i = 0;
    while (i < 2 &&
           !(path_in(vocab_path, dir, names[i][0]) && path_in(merges_path, dir, names[i][1])))
        i++;
    if (i == 2) return -ENOENT;
    bool qwen2 = strncmp(config_str(config, "tokenizer_class", ""), "Qwen2", 5) == 0;
    const char *parts = qwen2 ? qwen2_parts : gpt2_parts;
    struct json *vocab = NULL, *merges = json_new_array();
    int rc = merges ? json_parse(out, parts, strlen(parts), err, err_bytes) : -ENOMEM;
    if (rc == 0) rc = json_load(&vocab, vocab_path, VOCAB_FILE_BYTES_MAX, err, err_bytes);
    if (rc == 0) rc = each_line(merges_path, add_merge_line, merges, err, err_bytes);
    if (rc == 0) rc = add_added(*out, dir, config, vocab);
    if (rc == 0) return put_model(*out, "{\"type\":\"BPE\"}", vocab, merges, NULL);
    json_free(vocab);
    json_free(merges);
    return rc;
}

int vocab_files_load(struct json **out, const char *dir, char *err, size_t err_bytes) {
    char path[4096];
    struct json *config = NULL;
    *out = NULL;
    if (err_bytes) err[0] = '\0';
    int rc = path_in(path, dir, "tokenizer_config.json")
                 ? json_load(&config, path, CONFIG_BYTES_MAX, err, err_bytes)
                 : 0;
    if (rc == 0) rc = load_bpe(out, dir, config, err, err_bytes);
    if (rc == -ENOENT && !*out) rc = load_bert(out, dir, config, err, err_bytes);
    json_free(config);
    if (rc == 0) return 0;
    json_free(*out);
    *out = NULL;
    if (err_bytes && err[0]) return rc;
    if (rc == -ENOENT)
        return err_set(err, err_bytes, rc,
                       "%s: no tokenizer: looked for tokenizer.json, vocab.json with merges.txt, "
                       "encoder.json with vocab.bpe, vocab.txt",
                       dir);
    return err_set(err, err_bytes, rc, "%s: %s", dir, err_text(rc));
}
