#include "workers/encode/wordpiece.h"

#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "workers/encode/unicode.h"

int wordpiece_read(struct wordpiece *w, const struct vocab *v, const struct json *model,
                   const char *where, char *err, size_t err_bytes) {
    const char *unknown, *prefix = json_str(json_get(model, "continuing_subword_prefix"));
    if (!prefix) prefix = "##";
    int rc = json_need_str(model, where, "unk_token", &unknown, err, err_bytes);
    if (rc < 0) return rc;
    int64_t id = vocab_find(v, bytes_str(unknown));
    if (id < 0)
        return err_set(err, err_bytes, ERR_FIELD, "%s: unk_token: %.60s is not in the vocabulary",
                       where, unknown);
    int64_t chars = json_int(json_get(model, "max_input_chars_per_word"), 100);
    if (chars < 1 || chars > WORDPIECE_CHARS_MAX)
        return err_set(err, err_bytes, ERR_LIMIT,
                       "%s: max_input_chars_per_word: %lld is not from 1 to %u", where,
                       (long long)chars, WORDPIECE_CHARS_MAX);
    if (strlen(prefix) > sizeof w->prefix)
        return err_set(err, err_bytes, ERR_LIMIT,
                       "%s: continuing_subword_prefix: at most %zu bytes", where, sizeof w->prefix);
    *w = (struct wordpiece){.vocab = v,
                            .prefix_bytes = (uint32_t)strlen(prefix),
                            .chars_max = (uint32_t)chars,
                            .unknown = (uint32_t)id};
    memcpy(w->prefix, prefix, w->prefix_bytes);
    return 0;
}

int wordpiece_word(const struct wordpiece *w, struct bytes word, struct buf *ids) {
    size_t before = ids->len;
    if (word.len > w->chars_max * (size_t)4 || unicode_count(word) > w->chars_max)
        return buf_append(ids, &w->unknown, sizeof w->unknown);
    /* The prefix lies in front of what is left, so that each candidate is one run of bytes. */
    char room[WORDPIECE_PREFIX_BYTES_MAX + WORDPIECE_CHARS_MAX * 4];
    char *begin = room + WORDPIECE_PREFIX_BYTES_MAX, *end = begin + word.len;
    memcpy(begin, word.data, word.len);
    for (bool first = true; begin < end; first = false) {
        uint32_t prefix = first ? 0 : w->prefix_bytes;
        if (prefix) memcpy(begin - prefix, w->prefix, prefix);
        int64_t id = -1;
        const char *cut = end;
        if (cut - begin > (int64_t)w->vocab->longest_bytes) {
            cut = begin + w->vocab->longest_bytes;
            while (((unsigned char)*cut & 0xC0) == 0x80) cut--;
        }
        while (cut > begin) {
            id = vocab_find(w->vocab, bytes_of(begin - prefix, (size_t)(cut - begin) + prefix));
            if (id >= 0) break;
            unicode_before(cut, &cut);
        }
        if (id < 0) { /* the word as a whole is unknown */
            ids->len = before;
            return buf_append(ids, &w->unknown, sizeof w->unknown);
        }
        uint32_t u = (uint32_t)id;
        buf_append(ids, &u, sizeof u);
        begin += cut - begin;
    }
    return ids->error;
}
