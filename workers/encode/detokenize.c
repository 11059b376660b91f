#include "workers/encode/detokenize.h"

#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "workers/encode/unicode.h"

#define PIECE_BYTES_MAX (16u << 20) /* of one token, with what replaces its parts */
#define REPLACEMENT "\xEF\xBF\xBD"  /* U+FFFD */

/* ---- reading ---- */

static int read_string(struct buf *out, const struct json *j) {
    return json_str(j) ? buf_append(out, json_str(j), json_str_len(j)) : ERR_FIELD;
}

static int read_piece_step(struct detokenizer *d, const struct json *j, const char *type,
                           int *stage, const char *where, char *err, size_t err_bytes) {
    static const char *const order[] = {"Replace", "ByteFallback", "Fuse", "Strip"};
    int at = 0;
    while (at < 4 && strcmp(type, order[at]) != 0) at++;
    if (at == 4)
        return err_set(err, err_bytes, ERR_FIELD, "%s: %.60s: this decoder is not supported", where,
                       type);
    if (at < *stage || (at == *stage && at != 0))
        return err_set(
            err, err_bytes, ERR_FIELD,
            "%s: Sequence: %s: only Replace, ByteFallback, Fuse, Strip in that order are "
            "supported",
            where, type);
    *stage = at;
    d->kind = DETOKENIZE_PIECES;
    if (at == 1) d->byte_fallback = true;
    if (at == 2) d->fuse = true;
    if (at == 3) {
        d->strip_start = (uint32_t)json_int(json_get(j, "start"), 0);
        if (json_int(json_get(j, "stop"), 0) != 0 || json_int(json_get(j, "start"), 0) < 0 ||
            read_string(&d->strip, json_get(j, "content")) < 0 ||
            unicode_count(buf_bytes(&d->strip)) != 1)
            return err_set(err, err_bytes, ERR_FIELD,
                           "%s: Strip: only one character from the start is supported", where);
    }
    if (at != 0) return 0;
    if (d->n_replace == DETOKENIZER_REPLACES_MAX)
        return err_set(err, err_bytes, ERR_LIMIT, "%s: more than %u Replace", where,
                       DETOKENIZER_REPLACES_MAX);
    uint32_t i = d->n_replace++;
    if (read_string(&d->replace[i].from, json_get(json_get(j, "pattern"), "String")) < 0 ||
        d->replace[i].from.len == 0 || read_string(&d->replace[i].to, json_get(j, "content")) < 0)
        return err_set(err, err_bytes, ERR_FIELD,
                       "%s: Replace: only a pattern String and a content are supported", where);
    return 0;
}

int detokenizer_read(struct detokenizer *d, const struct json *j, const char *where, char *err,
                     size_t err_bytes) {
    *d = (struct detokenizer){.kind = DETOKENIZE_JOIN};
    if (json_kind(j) == JSON_NULL) return 0;
    const char *type = json_str(json_get(j, "type"));
    const struct json *list = json_get(j, "decoders");
    if (type && strcmp(type, "Sequence") == 0 && json_kind(list) == JSON_ARRAY &&
        json_len(list) == 1) {
        j = json_at(list, 0);
        type = json_str(json_get(j, "type"));
    }
    if (!type) return err_set(err, err_bytes, ERR_FIELD, "%s: type: missing", where);
    if (strcmp(type, "ByteLevel") == 0) {
        d->kind = DETOKENIZE_BYTELEVEL;
        return 0;
    }
    if (strcmp(type, "Metaspace") == 0) {
        d->kind = DETOKENIZE_META;
        return metaspace_read(&d->metaspace, j, where, err, err_bytes);
    }
    if (strcmp(type, "WordPiece") == 0) {
        d->kind = DETOKENIZE_WORDPIECE;
        d->cleanup = json_bool(json_get(j, "cleanup"), true);
        if (!json_get(j, "prefix")) return buf_append(&d->prefix, "##", 2);
        return read_string(&d->prefix, json_get(j, "prefix"));
    }
    int stage = 0, rc = 0;
    if (strcmp(type, "Sequence") != 0)
        return read_piece_step(d, j, type, &stage, where, err, err_bytes);
    d->kind = DETOKENIZE_PIECES;
    for (size_t i = 0; rc == 0 && i < json_len(list); i++) {
        type = json_str(json_get(json_at(list, i), "type"));
        rc = read_piece_step(d, json_at(list, i), type ? type : "(no type)", &stage, where, err,
                             err_bytes);
    }
    return rc;
}

void detokenizer_fini(struct detokenizer *d) {
    buf_fini(&d->prefix);
    buf_fini(&d->strip);
    for (uint32_t i = 0; i < d->n_replace; i++) {
        buf_fini(&d->replace[i].from);
        buf_fini(&d->replace[i].to);
    }
    *d = (struct detokenizer){0};
}

void detokenize_state_fini(struct detokenize_state *s) {
    buf_fini(&s->held);
    *s = (struct detokenize_state){0};
}

/* ---- byte-level: any bytes, shown as whole characters ---- */

/* How many bytes at s belong together: a character (*good), an unfinished one (*open: more may
 * come), or the longest beginning of one that goes wrong behind it. */
static size_t utf8_unit(const uint8_t *s, size_t n, bool *good, bool *open) {
    uint8_t c = s[0], lo = 0x80, hi = 0xBF;
    size_t want = c < 0x80 ? 1 : c >= 0xC2 && c <= 0xDF ? 2 : (c & 0xF0) == 0xE0 ? 3 : 4;
    *open = false;
    *good = c < 0x80;
    if (want == 1 || (c >= 0x80 && c < 0xC2) || c > 0xF4) return 1;
    if (c == 0xE0) lo = 0xA0;
    if (c == 0xED) hi = 0x9F;
    if (c == 0xF0) lo = 0x90;
    if (c == 0xF4) hi = 0x8F;
    for (size_t i = 1; i < want; i++, lo = 0x80, hi = 0xBF) {
        if (i == n) {
            *open = true;
            return i;
        }
        if (s[i] < lo || s[i] > hi) return i;
    }
    *good = true;
    return want;
}

static int show_bytes(struct buf *held, bool end, struct buf *out) {
    size_t at = 0;
    while (at < held->len) {
        bool good, open;
        size_t n = utf8_unit(held->data + at, held->len - at, &good, &open);
        if (open && !end) break;
        if (good)
            buf_append(out, held->data + at, n);
        else
            buf_append(out, REPLACEMENT, 3);
        at += n;
    }
    memmove(held->data, held->data + at, held->len - at);
    held->len -= at;
    return held->error ? held->error : out->error;
}

/* A token that is not spelt in the printable alphabet (an added one) stands for itself. */
static int bytelevel_bytes(struct bytes token, struct buf *out) {
    const char *at = token.data, *end = at + token.len;
    size_t before = out->len;
    while (at < end) {
        int byte = bytelevel_byte(unicode_next(&at));
        if (byte < 0) {
            out->len = before;
            return buf_append(out, token.data, token.len);
        }
        buf_u8(out, (uint8_t)byte);
    }
    return out->error;
}

static int next_bytelevel(struct detokenize_state *s, struct bytes token, struct buf *out) {
    bytelevel_bytes(token, &s->held);
    return s->held.len ? show_bytes(&s->held, false, out) : s->held.error;
}

/* ---- WordPiece ---- */

/* The reference's cleanup sees one token at a time, blank included. */
static struct bytes clean_up(struct bytes piece) {
    static const char *const glued[] = {" .",  " ?",  " !",   " ,",  " n't",
                                        " 'm", " 's", " 've", " 're"};
    for (size_t i = 0; i < sizeof glued / sizeof *glued; i++) {
        size_t n = strlen(glued[i]);
        if (piece.len >= n && memcmp(piece.data, glued[i], n) == 0)
            return bytes_of((const char *)piece.data + 1, piece.len - 1);
    }
    return piece;
}

static int next_wordpiece(const struct detokenizer *d, struct detokenize_state *s,
                          struct bytes token, struct buf *out) {
    bool first = !s->begun;
    s->begun = true;
    if (first) return buf_append(out, token.data, token.len);
    if (token.len >= d->prefix.len && memcmp(token.data, d->prefix.data, d->prefix.len) == 0)
        return buf_append(out, (const char *)token.data + d->prefix.len, token.len - d->prefix.len);
    buf_clear(&s->held);
    buf_append(&s->held, " ", 1);
    buf_append(&s->held, token.data, token.len);
    struct bytes piece = buf_bytes(&s->held);
    if (d->cleanup) piece = clean_up(piece);
    buf_append(out, piece.data, piece.len);
    int rc = s->held.error ? s->held.error : out->error;
    buf_clear(&s->held);
    return rc;
}

/* ---- pieces ---- */

/* Takes the character off the front of the text (fused) or of each piece. */
static int put_piece(const struct detokenizer *d, struct detokenize_state *s, struct bytes piece,
                     struct buf *out) {
    const char *at = piece.data, *end = at + piece.len;
    if (!d->fuse) s->stripped = 0;
    while (at < end && s->stripped < d->strip_start) {
        if ((size_t)(end - at) < d->strip.len || memcmp(at, d->strip.data, d->strip.len) != 0)
            s->stripped = d->strip_start;
        else
            s->stripped++, at += d->strip.len;
    }
    return buf_append(out, at, (size_t)(end - at));
}

/* A run of byte tokens has ended: characters when all of it is UTF-8, else U+FFFD for each byte. */
static int put_run(const struct detokenizer *d, struct detokenize_state *s, struct buf *out) {
    if (s->held.len == 0) return s->held.error;
    int rc = 0;
    if (utf8_check(s->held.data, s->held.len) == s->held.len)
        rc = put_piece(d, s, buf_bytes(&s->held), out);
    else
        for (size_t i = 0; i < s->held.len; i++)
            rc = put_piece(d, s, bytes_of(REPLACEMENT, 3), out);
    buf_clear(&s->held);
    return rc;
}

static int hex(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f') return (c | 0x20) - 'a' + 10;
    return -1;
}

static int byte_token(struct bytes token) {
    const char *t = token.data;
    if (token.len != 6 || memcmp(t, "<0x", 3) != 0 || t[5] != '>') return -1;
    int high = hex(t[3]), low = hex(t[4]);
    return high < 0 || low < 0 ? -1 : high << 4 | low;
}

static int replace(struct bytes token, const struct buf *from, const struct buf *to,
                   struct buf *out) {
    const char *at = token.data, *end = at + token.len;
    while (at < end && !out->error) {
        const char *hit = memmem(at, (size_t)(end - at), from->data, from->len);
        buf_append(out, at, (size_t)((hit ? hit : end) - at));
        if (!hit) break;
        buf_append(out, to->data, to->len);
        at = hit + from->len;
    }
    return out->error;
}

static int next_pieces(const struct detokenizer *d, struct detokenize_state *s, struct bytes token,
                       struct buf *out) {
    struct buf room[2] = {{.max_bytes = PIECE_BYTES_MAX}, {.max_bytes = PIECE_BYTES_MAX}};
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < d->n_replace; i++) {
        struct buf *to = &room[i & 1];
        buf_clear(to);
        rc = replace(token, &d->replace[i].from, &d->replace[i].to, to);
        token = buf_bytes(to);
    }
    int byte = d->byte_fallback ? byte_token(token) : -1;
    if (rc == 0 && byte >= 0) rc = buf_u8(&s->held, (uint8_t)byte);
    if (rc == 0 && byte < 0) {
        rc = put_run(d, s, out);
        if (rc == 0) rc = put_piece(d, s, token, out);
    }
    buf_fini(&room[0]);
    buf_fini(&room[1]);
    return rc;
}

/* In the first token it is what was put in front, and goes; else it is a blank. */
static int next_meta(const struct metaspace *m, struct detokenize_state *s, struct bytes token,
                     struct buf *out) {
    const char *at = token.data, *end = at + token.len;
    while (at < end) {
        const char *hit = memmem(at, (size_t)(end - at), m->character, m->bytes);
        buf_append(out, at, (size_t)((hit ? hit : end) - at));
        if (!hit) break;
        if (s->begun || m->prepend == PREPEND_NEVER) buf_append(out, " ", 1);
        at = hit + m->bytes;
    }
    s->begun = true;
    return out->error;
}

int detokenizer_next(const struct detokenizer *d, struct detokenize_state *s, struct bytes token,
                     struct buf *out) {
    switch (d->kind) {
    case DETOKENIZE_BYTELEVEL: return next_bytelevel(s, token, out);
    case DETOKENIZE_WORDPIECE: return next_wordpiece(d, s, token, out);
    case DETOKENIZE_META: return next_meta(&d->metaspace, s, token, out);
    case DETOKENIZE_PIECES: return next_pieces(d, s, token, out);
    default:
        if (s->begun) buf_append(out, " ", 1);
        s->begun = true;
        return buf_append(out, token.data, token.len);
    }
}

int detokenizer_flush(const struct detokenizer *d, struct detokenize_state *s, struct buf *out) {
    if (s->held.len == 0) return s->held.error;
    if (d->kind == DETOKENIZE_BYTELEVEL) return show_bytes(&s->held, true, out);
    return d->kind == DETOKENIZE_PIECES ? put_run(d, s, out) : 0;
}

int detokenizer_piece(const struct detokenizer *d, struct bytes token, struct buf *out,
                      bool *differs) {
    struct detokenize_state s = {.begun = true}, first = {0};
    struct buf other = {0};
    size_t before = out->len;
    *differs = false;
    if (d->kind == DETOKENIZE_JOIN || d->kind == DETOKENIZE_WORDPIECE) return ERR_FIELD;
    if (d->kind == DETOKENIZE_BYTELEVEL) { /* bytes that are part of a character too */
        int failed = bytelevel_bytes(token, out);
        return failed ? failed : out->len > before;
    }
    s.stripped = d->strip_start;
    int rc = detokenizer_next(d, &s, token, out);
    if (rc == 0) rc = detokenizer_next(d, &first, token, &other);
    if (rc == 0) rc = buf_append(out, s.held.data, s.held.len);
    if (rc == 0) rc = buf_append(&other, first.held.data, first.held.len);
    if (rc == 0)
        *differs = !bytes_eq(bytes_of(out->data + before, out->len - before), buf_bytes(&other));
    detokenize_state_fini(&s);
    detokenize_state_fini(&first);
    buf_fini(&other);
    return rc ? rc : out->len > before;
}
