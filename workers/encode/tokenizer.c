#include "workers/encode/tokenizer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/json.h"
#include "base/limits.h"
#include "workers/encode/added.h"
#include "workers/encode/bpe.h"
#include "workers/encode/detokenize.h"
#include "workers/encode/normalize.h"
#include "workers/encode/pretokenize.h"
#include "workers/encode/template.h"
#include "workers/encode/unigram.h"
#include "workers/encode/vocab.h"
#include "workers/encode/vocab_files.h"
#include "workers/encode/wordpiece.h"

#define TEXT_BYTES_MAX (16u * 1024u * 1024u)
#define NORMAL_BYTES_MAX (8u * TEXT_BYTES_MAX)    /* of a text that its normalizer lengthens */
#define SCRATCH_BYTES_MAX (1024u * 1024u * 1024u) /* what TEXT_BYTES_MAX can need */

struct tokenizer {
    struct vocab vocab;       /* the model's */
    struct vocab extra;       /* added tokens; they hide the model's */
    struct buf special;       /* a byte for each id of extra */
    struct added raw, normal; /* looked for before, and after normalizing */
    struct normalizer normalizer;
    struct pretokenizer pretokenizer;
    enum { MODEL_WORDPIECE, MODEL_BPE, MODEL_UNIGRAM } model;
    struct wordpiece wordpiece;
    struct bpe bpe;
    struct unigram unigram;
    struct template template;
    struct detokenizer detokenizer;
};

/* ---- opening ---- */

static int read_vocab(struct tokenizer *t, const struct json *model, char *err, size_t err_bytes) {
    const struct json *vocab = json_get(model, "vocab"), *value;
    const char *token;
    size_t it = 0;
    if (json_kind(vocab) != JSON_OBJECT)
        return err_set(err, err_bytes, ERR_FIELD, "model.vocab: missing or not an object");
    while (json_next(vocab, &it, &token, &value)) {
        int64_t id = json_int(value, -1);
        if (id < 0 || id >= VOCAB_IDS_MAX)
            return err_set(err, err_bytes, ERR_FIELD,
                           "model.vocab: %.60s: its id is not from 0 to %u", token,
                           VOCAB_IDS_MAX - 1);
        int rc = vocab_add(&t->vocab, bytes_str(token), (uint32_t)id);
        if (rc < 0)
            return err_set(err, err_bytes, rc, "model.vocab: %.60s: %s", token, err_text(rc));
    }
    return 0;
}

static int read_model(struct tokenizer *t, const struct json *model, char *err, size_t err_bytes) {
    const char *type = json_str(json_get(model, "type"));
    if (type && strcmp(type, "Unigram") == 0) {
        t->model = MODEL_UNIGRAM;
        return unigram_read(&t->unigram, &t->vocab, model, "model", err, err_bytes);
    }
    int rc = read_vocab(t, model, err, err_bytes);
    if (rc < 0) return rc;
    if (type && strcmp(type, "WordPiece") == 0) {
        t->model = MODEL_WORDPIECE;
        return wordpiece_read(&t->wordpiece, &t->vocab, model, "model", err, err_bytes);
    }
    t->model = MODEL_BPE;
    if (!type || strcmp(type, "BPE") != 0)
        return err_set(err, err_bytes, ERR_FIELD,
                       "model: %.60s: is not supported; WordPiece, BPE and Unigram are",
                       type ? type : "(no type)");
    return bpe_read(&t->bpe, &t->vocab, model, "model", err, err_bytes);
}

/* A token looked for in normalized text is normalized itself. */
static int add_to_set(struct tokenizer *t, struct bytes content, bool normalized,
                      struct added_token flags) {
    if (!normalized) return added_add(&t->raw, content, flags);
    struct buf normal = {.max_bytes = NORMAL_BYTES_MAX};
    int rc = normalizer_run(&t->normalizer, content, &normal);
    if (rc == 0) rc = added_add(&t->normal, buf_bytes(&normal), flags);
    buf_fini(&normal);
    return rc;
}

static int read_added(struct tokenizer *t, const struct json *list, char *err, size_t err_bytes) {
    for (size_t i = 0; i < json_len(list); i++) {
        const struct json *j = json_at(list, i), *content = json_get(j, "content");
        if (!json_str(content) ||
            utf8_check(json_str(content), json_str_len(content)) != json_str_len(content))
            return err_set(err, err_bytes, ERR_FIELD, "added_tokens: item %zu: content: missing",
                           i);
        struct bytes text = bytes_of(json_str(content), json_str_len(content));
        int64_t id =
            vocab_find(&t->vocab, text); /* the model's id goes first, as in the reference */
        if (id < 0) id = json_int(json_get(j, "id"), -1);
        if (id < 0 || id >= VOCAB_IDS_MAX)
            return err_set(err, err_bytes, ERR_FIELD,
                           "added_tokens: item %zu: id: not from 0 to %u", i, VOCAB_IDS_MAX - 1);
        bool special = json_bool(json_get(j, "special"), false);
        struct added_token flags = {.id = (uint32_t)id,
                                    .single_word = json_bool(json_get(j, "single_word"), false),
                                    .lstrip = json_bool(json_get(j, "lstrip"), false),
                                    .rstrip = json_bool(json_get(j, "rstrip"), false)};
        int rc = vocab_add(&t->extra, text, flags.id);
        while (rc == 0 && t->special.len < t->extra.ids) rc = buf_u8(&t->special, 0);
        if (rc == 0) t->special.data[id] |= special;
        if (rc == 0)
            rc = add_to_set(t, text, json_bool(json_get(j, "normalized"), !special), flags);
        if (rc < 0)
            return err_set(err, err_bytes, rc, "added_tokens: item %zu: %s", i, err_text(rc));
    }
    added_sort(&t->raw);
    added_sort(&t->normal);
    return 0;
}

static int read_file(struct tokenizer *t, const struct json *j, char *err, size_t err_bytes) {
    if (json_kind(json_get(j, "model")) != JSON_OBJECT)
        return err_set(err, err_bytes, ERR_FIELD, "model: missing or not an object");
    int rc =
        normalizer_read(&t->normalizer, json_get(j, "normalizer"), "normalizer", err, err_bytes);
    if (rc == 0)
        rc = pretokenizer_read(&t->pretokenizer, json_get(j, "pre_tokenizer"), "pre_tokenizer", err,
                               err_bytes);
    if (rc == 0)
        rc = detokenizer_read(&t->detokenizer, json_get(j, "decoder"), "decoder", err, err_bytes);
    if (rc == 0) rc = template_read(&t->template, json_get(j, "post_processor"), err, err_bytes);
    if (rc == 0) rc = read_model(t, json_get(j, "model"), err, err_bytes);
    if (rc == 0) rc = read_added(t, json_get(j, "added_tokens"), err, err_bytes);
    return rc;
}

int tokenizer_open(struct tokenizer **out, const char *dir, char *err, size_t err_bytes) {
    char path[4096], why[512] = "";
    struct json *j = NULL;
    *out = NULL;
    int n = snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    if (n < 0 || (size_t)n >= sizeof path)
        return err_set(err, err_bytes, ERR_LIMIT, "the path of the model is too long");
    bool file = access(path, F_OK) == 0;
    int rc = file ? json_load(&j, path, VOCAB_FILE_BYTES_MAX, err, err_bytes)
                  : vocab_files_load(&j, dir, err, err_bytes);
    if (rc < 0) return rc;
    struct tokenizer *t = calloc(1, sizeof *t);
    rc = t ? read_file(t, j, why, sizeof why) : -ENOMEM;
    json_free(j);
    if (rc == 0) {
        *out = t;
        return 0;
    }
    tokenizer_close(t);
    return err_set(err, err_bytes, rc, "%s: %s", file ? path : dir, why[0] ? why : err_text(rc));
}

void tokenizer_close(struct tokenizer *t) {
    if (!t) return;
    normalizer_fini(&t->normalizer);
    pretokenizer_fini(&t->pretokenizer);
    detokenizer_fini(&t->detokenizer);
    added_fini(&t->raw);
    added_fini(&t->normal);
    bpe_fini(&t->bpe);
    unigram_fini(&t->unigram);
    buf_fini(&t->special);
    vocab_fini(&t->extra);
    vocab_fini(&t->vocab);
    free(t);
}

uint32_t tokenizer_vocab(const struct tokenizer *t) {
    return t->vocab.ids > t->extra.ids ? t->vocab.ids : t->extra.ids;
}

int64_t tokenizer_id(const struct tokenizer *t, const char *token) {
    int64_t id = vocab_find(&t->extra, bytes_str(token));
    return id >= 0 ? id : vocab_find(&t->vocab, bytes_str(token));
}

/* ---- encoding ---- */

struct encoding {
    const struct tokenizer *t;
    struct buf ids;
    size_t ids_max; /* bytes of ids after which nothing more is needed */
    struct arena scratch;
    struct bpe_room room;
    bool first; /* what is encoded now is what the document begins with */
};

static bool enough(const struct encoding *e) {
    return e->ids.len > e->ids_max;
}

/* Text between added tokens, normalized: pieces, and each piece's tokens. */
static int encode_plain(struct encoding *e, struct bytes text) {
    struct pieces pieces;
    arena_reset(&e->scratch);
    int rc = pretokenizer_run(&e->t->pretokenizer, text, e->first, &e->scratch, &pieces);
    for (uint32_t i = 0; rc == 0 && i < pieces.n && !enough(e); i++) {
        struct bytes word =
            bytes_of(pieces.text + pieces.at[i].begin, pieces.at[i].end - pieces.at[i].begin);
        switch (e->t->model) {
        case MODEL_BPE: rc = bpe_word(&e->t->bpe, word, &e->room, &e->ids); break;
        case MODEL_UNIGRAM:
            rc = unigram_word(&e->t->unigram, word, &e->room.symbols, &e->ids);
            break;
        default: rc = wordpiece_word(&e->t->wordpiece, word, &e->ids);
        }
    }
    return rc;
}

/* Gives the added tokens of one set their ids and hands what lies between to `rest`. */
static int encode_added(struct encoding *e, const struct added *set, struct bytes text,
                        int (*rest)(struct encoding *, struct bytes)) {
    size_t from = 0;
    struct added_hit hit;
    int rc = 0;
    while (rc == 0 && !enough(e) && added_find(set, text, from, &hit)) {
        if (hit.begin > from)
            rc = rest(e, bytes_of((const char *)text.data + from, hit.begin - from));
        if (rc == 0) rc = buf_append(&e->ids, &hit.id, sizeof hit.id);
        from = hit.end;
        e->first = false;
    }
    if (rc == 0 && from < text.len && !enough(e))
        rc = rest(e, bytes_of((const char *)text.data + from, text.len - from));
    return rc;
}

static int encode_normalized(struct encoding *e, struct bytes text) {
    if (e->t->normal.n == 0) return encode_plain(e, text);
    return encode_added(e, &e->t->normal, text, encode_plain);
}

static int encode_raw(struct encoding *e, struct bytes text) {
    if (e->t->normalizer.n == 0) return encode_normalized(e, text);
    struct buf normal = {.max_bytes = NORMAL_BYTES_MAX};
    int rc = normalizer_run(&e->t->normalizer, text, &normal);
    if (rc == 0) rc = encode_normalized(e, buf_bytes(&normal));
    buf_fini(&normal);
    return rc;
}

static int put_result(const struct encoding *e, const struct template *around, uint32_t max,
                      struct arena *a, struct tokens *out) {
    size_t n = e->ids.len / sizeof(uint32_t), added = around->n_before + around->n_after;
    out->truncated = max > 0 && n + added > max;
    if (out->truncated) n = max > added ? max - added : 0;
    if (n + added > UINT32_MAX) return ERR_LIMIT;
    out->ids = arena_alloc(a, (n + added + 1) * sizeof *out->ids);
    if (!out->ids) return -ENOMEM;
    uint32_t *to = out->ids;
    for (uint32_t i = 0; i < around->n_before; i++) *to++ = around->before[i];
    if (n) memcpy(to, e->ids.data, n * sizeof *to);
    to += n;
    for (uint32_t i = 0; i < around->n_after; i++) *to++ = around->after[i];
    out->n = (uint32_t)(n + added);
    return 0;
}

int tokenizer_encode(const struct tokenizer *t, struct bytes text, bool special, uint32_t max,
                     struct arena *a, struct tokens *out, char *err, size_t err_bytes) {
    static const struct template nothing;
    *out = (struct tokens){0};
    if (text.len > TEXT_BYTES_MAX)
        return err_set(err, err_bytes, ERR_LIMIT, "a text of %zu bytes: at most %u", text.len,
                       TEXT_BYTES_MAX);
    size_t bad = utf8_check(text.data, text.len);
    if (bad != text.len)
        return err_set(err, err_bytes, ERR_FIELD, "the text is not UTF-8 at byte %zu", bad);
    struct encoding e = {
        .t = t, .ids_max = max ? max * sizeof(uint32_t) : SIZE_MAX - 1, .first = true};
    arena_init(&e.scratch, SCRATCH_BYTES_MAX);
    int rc = encode_added(&e, &t->raw, text, encode_raw);
    if (rc == 0) rc = put_result(&e, special ? &t->template : &nothing, max, a, out);
    arena_fini(&e.scratch);
    bpe_room_fini(&e.room);
    buf_fini(&e.ids);
    return rc < 0 ? err_set(err, err_bytes, rc, "cannot tokenize: %s", err_text(rc)) : 0;
}

/* ---- decoding ---- */

struct token_stream {
    const struct tokenizer *t;
    bool skip;
    struct detokenize_state state;
};

struct token_stream *token_stream_new(const struct tokenizer *t, bool skip) {
    struct token_stream *s = calloc(1, sizeof *s);
    if (s) *s = (struct token_stream){.t = t, .skip = skip};
    return s;
}

void token_stream_free(struct token_stream *s) {
    if (!s) return;
    detokenize_state_fini(&s->state);
    free(s);
}

int token_stream_next(struct token_stream *s, uint32_t id, struct buf *out) {
    const struct tokenizer *t = s->t;
    if (s->skip && id < t->special.len && t->special.data[id]) return 0;
    struct bytes token = vocab_token(&t->extra, id);
    if (!token.data) token = vocab_token(&t->vocab, id);
    if (!token.data) return 0; /* an id that the vocabulary leaves out has no text */
    return detokenizer_next(&t->detokenizer, &s->state, token, out);
}

int token_stream_flush(struct token_stream *s, struct buf *out) {
    return detokenizer_flush(&s->t->detokenizer, &s->state, out);
}

int tokenizer_decode(const struct tokenizer *t, const uint32_t *ids, uint32_t n, bool skip,
                     struct buf *out) {
    struct token_stream s = {.t = t, .skip = skip};
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < n; i++) rc = token_stream_next(&s, ids[i], out);
    if (rc == 0) rc = token_stream_flush(&s, out);
    detokenize_state_fini(&s.state);
    return rc;
}

int tokenizer_piece(const struct tokenizer *t, uint32_t id, struct buf *out, bool *differs) {
    struct bytes token = vocab_token(&t->extra, id);
    *differs = false;
    if (id < t->special.len && t->special.data[id]) return 0;
    if (!token.data) token = vocab_token(&t->vocab, id);
    if (!token.data) return 0;
    return detokenizer_piece(&t->detokenizer, token, out, differs);
}
