#include "workers/encode/pretokenize.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "workers/encode/unicode.h"

#define SEQUENCE_DEPTH_MAX 8

/* GPT-2's table: printable Latin-1 stands for itself, the other 68 bytes for U+0100 and up, in
 * order. */
static bool stands_for_itself(uint32_t byte) {
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

uint32_t bytelevel_char(uint8_t byte) {
    if (stands_for_itself(byte)) return byte;
    if (byte <= 0x20) return 0x100u + byte;           /* 33 of them */
    if (byte <= 0xA0) return 0x121u + (byte - 0x7Fu); /* 34 of them */
    return 0x143u;                                    /* 0xAD */
}

int bytelevel_byte(uint32_t c) {
    if (c <= 0xFF) return stands_for_itself(c) ? (int)c : -1;
    if (c <= 0x120) return (int)c - 0x100;
    if (c <= 0x142) return (int)c - 0x121 + 0x7F;
    return c == 0x143 ? 0xAD : -1;
}

/* ---- reading ---- */

static struct pretokenize_step *add(struct pretokenizer *p, enum pretokenize_kind kind,
                                    const char *where, char *err, size_t err_bytes) {
    if (p->n == PRETOKENIZER_STEPS_MAX) {
        err_set(err, err_bytes, ERR_LIMIT, "%s: more than %u steps", where, PRETOKENIZER_STEPS_MAX);
        return NULL;
    }
    struct pretokenize_step *s = &p->steps[p->n++];
    *s = (struct pretokenize_step){.kind = kind, .behavior = SPLIT_ISOLATED};
    return s;
}

static int add_regex(struct pretokenizer *p, const char *pattern, const char *where, char *err,
                     size_t err_bytes) {
    struct pretokenize_step *s = add(p, PRETOKENIZE_SPLIT, where, err, err_bytes);
    return s ? splitter_open_regex(&s->splitter, pattern, err, err_bytes) : ERR_LIMIT;
}

/* What the pattern matches goes; what lies between, with inverted. */
static int add_removed(struct pretokenizer *p, const char *pattern, bool inverted,
                       const char *where, char *err, size_t err_bytes) {
    int rc = add_regex(p, pattern, where, err, err_bytes);
    if (rc < 0) return rc;
    p->steps[p->n - 1].behavior = SPLIT_REMOVED;
    p->steps[p->n - 1].inverted = inverted;
    return 0;
}

static int read_behavior(struct pretokenize_step *s, const char *type, const struct json *j,
                         const char *otherwise, const char *where, char *err, size_t err_bytes) {
    static const struct {
        const char *name;
        enum split_behavior behavior;
    } behaviors[] = {{"Removed", SPLIT_REMOVED},
                     {"Isolated", SPLIT_ISOLATED},
                     {"MergedWithPrevious", SPLIT_WITH_PREVIOUS},
                     {"MergedWithNext", SPLIT_WITH_NEXT}};
    const char *behavior = json_str(json_get(j, "behavior"));
    size_t i = 0, n = sizeof behaviors / sizeof *behaviors;
    if (!behavior) behavior = otherwise;
    while (i < n && strcmp(behavior, behaviors[i].name) != 0) i++;
    if (i == n)
        return err_set(err, err_bytes, ERR_FIELD, "%s: %s: behavior %.40s is not supported", where,
                       type, behavior);
    s->behavior = behaviors[i].behavior;
    return 0;
}

/* Each sign for itself: ASCII signs and P*. */
static int read_punctuation(struct pretokenizer *p, const struct json *j, const char *where,
                            char *err, size_t err_bytes) {
    struct pretokenize_step *s = add(p, PRETOKENIZE_SPLIT, where, err, err_bytes);
    if (!s) return ERR_LIMIT;
    splitter_open_sign(&s->splitter);
    return read_behavior(s, "Punctuation", j, "Isolated", where, err, err_bytes);
}

static int read_split(struct pretokenizer *p, const struct json *j, const char *where, char *err,
                      size_t err_bytes) {
    struct pretokenize_step *s = add(p, PRETOKENIZE_SPLIT, where, err, err_bytes);
    if (!s) return ERR_LIMIT;
    int rc = read_behavior(s, "Split", j, "(missing)", where, err, err_bytes);
    if (rc < 0) return rc;
    s->inverted = json_bool(json_get(j, "invert"), false);
    const struct json *plain = json_get(json_get(j, "pattern"), "String");
    const char *regex = json_str(json_get(json_get(j, "pattern"), "Regex"));
    if (regex) return splitter_open_regex(&s->splitter, regex, err, err_bytes);
    if (!json_str(plain) || json_str_len(plain) == 0)
        return err_set(err, err_bytes, ERR_FIELD, "%s: Split: needs a pattern (String or Regex)",
                       where);
    return splitter_open_string(&s->splitter, bytes_of(json_str(plain), json_str_len(plain)));
}

static int read_bytelevel(struct pretokenizer *p, const struct json *j, const char *where,
                          char *err, size_t err_bytes) {
    if (json_bool(json_get(j, "add_prefix_space"), true) &&
        !add(p, PRETOKENIZE_BLANK, where, err, err_bytes))
        return ERR_LIMIT;
    if (json_bool(json_get(j, "use_regex"), true)) {
        int rc = add_regex(p, SPLIT_GPT2, where, err, err_bytes);
        if (rc < 0) return rc;
    }
    return add(p, PRETOKENIZE_BYTES, where, err, err_bytes) ? 0 : ERR_LIMIT;
}

int metaspace_read(struct metaspace *m, const struct json *j, const char *where, char *err,
                   size_t err_bytes) {
    static const char *const schemes[] = {"never", "first", "always"};
    const struct json *character = json_get(j, "replacement");
    const char *scheme = json_str(json_get(j, "prepend_scheme"));
    struct bytes text = bytes_of(json_str(character), json_str_len(character));
    if (!text.data || text.len > sizeof m->character || unicode_count(text) != 1)
        return err_set(err, err_bytes, ERR_FIELD, "%s: Metaspace: replacement: not one character",
                       where);
    memcpy(m->character, text.data, text.len);
    m->bytes = (uint32_t)text.len;
    if (!scheme) /* as it was written before there was a scheme */
        scheme = schemes[json_bool(json_get(j, "add_prefix_space"), true) ? 2 : 0];
    for (int i = 0; i < 3; i++) {
        if (strcmp(scheme, schemes[i]) != 0) continue;
        m->prepend = (enum metaspace_prepend)i;
        return 0;
    }
    return err_set(err, err_bytes, ERR_FIELD,
                   "%s: Metaspace: prepend_scheme: %.40s is not never, first or always", where,
                   scheme);
}

static int read_metaspace(struct pretokenizer *p, const struct json *j, const char *where,
                          char *err, size_t err_bytes) {
    struct metaspace m;
    int rc = metaspace_read(&m, j, where, err, err_bytes);
    if (rc < 0) return rc;
    struct pretokenize_step *s = add(p, PRETOKENIZE_META, where, err, err_bytes);
    if (!s) return ERR_LIMIT;
    s->metaspace = m;
    if (!json_bool(json_get(j, "split"), true)) return 0;
    s = add(p, PRETOKENIZE_SPLIT, where, err, err_bytes);
    if (!s) return ERR_LIMIT;
    s->behavior = SPLIT_WITH_NEXT;
    return splitter_open_string(&s->splitter, bytes_of(m.character, m.bytes));
}

static int read_any(struct pretokenizer *p, const struct json *j, int depth, const char *where,
                    char *err, size_t err_bytes) {
    if (json_kind(j) == JSON_NULL) return 0;
    const char *type = json_str(json_get(j, "type"));
    if (!type) return err_set(err, err_bytes, ERR_FIELD, "%s: type: missing", where);
    if (strcmp(type, "BertPreTokenizer") == 0)
        return add(p, PRETOKENIZE_BERT, where, err, err_bytes) ? 0 : ERR_LIMIT;
    if (strcmp(type, "ByteLevel") == 0) return read_bytelevel(p, j, where, err, err_bytes);
    if (strcmp(type, "Split") == 0) return read_split(p, j, where, err, err_bytes);
    if (strcmp(type, "Digits") == 0) {
        bool each = json_bool(json_get(j, "individual_digits"), false);
        return add_regex(p, each ? "\\p{N}" : "\\p{N}+", where, err, err_bytes);
    }
    if (strcmp(type, "Metaspace") == 0) return read_metaspace(p, j, where, err, err_bytes);
    if (strcmp(type, "Punctuation") == 0) return read_punctuation(p, j, where, err, err_bytes);
    if (strcmp(type, "WhitespaceSplit") == 0)
        return add_removed(p, "\\s", false, where, err, err_bytes);
    if (strcmp(type, "Whitespace") == 0)
        return add_removed(p, "\\w+|[^\\w\\s]+", true, where, err, err_bytes);
    if (strcmp(type, "Sequence") != 0)
        return err_set(err, err_bytes, ERR_FIELD, "%s: %.60s: this pre-tokenizer is not supported",
                       where, type);
    if (depth == SEQUENCE_DEPTH_MAX)
        return err_set(err, err_bytes, ERR_LIMIT, "%s: Sequence: nested deeper than %d", where,
                       SEQUENCE_DEPTH_MAX);
    const struct json *list = json_get(j, "pretokenizers");
    if (json_kind(list) != JSON_ARRAY)
        return err_set(err, err_bytes, ERR_FIELD, "%s: Sequence: pretokenizers: not a list", where);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < json_len(list); i++)
        rc = read_any(p, json_at(list, i), depth + 1, where, err, err_bytes);
    return rc;
}

int pretokenizer_read(struct pretokenizer *p, const struct json *j, const char *where, char *err,
                      size_t err_bytes) {
    return read_any(p, j, 0, where, err, err_bytes);
}

void pretokenizer_fini(struct pretokenizer *p) {
    for (uint32_t i = 0; i < p->n; i++) splitter_fini(&p->steps[i].splitter);
    *p = (struct pretokenizer){0};
}

/* ---- running ---- */

/* A growing list of pieces; grows by doubling inside the arena. */
struct list {
    struct arena *arena;
    struct span *at;
    uint32_t n, cap;
    int rc;
};

static void push(struct list *l, size_t begin, size_t end) {
    if (l->rc < 0 || begin == end) return;
    if (l->n == l->cap) {
        uint32_t cap = l->cap ? l->cap * 2 : 64;
        struct span *more = arena_alloc(l->arena, cap * sizeof *more);
        if (!more) {
            l->rc = -ENOMEM;
            return;
        }
        if (l->n) memcpy(more, l->at, l->n * sizeof *more);
        l->at = more;
        l->cap = cap;
    }
    l->at[l->n++] = (struct span){(uint32_t)begin, (uint32_t)end};
}

static void split_bert(const char *text, struct span piece, struct list *out) {
    const char *at = text + piece.begin, *end = text + piece.end, *word = at;
    while (at < end) {
        const char *begin = at;
        uint32_t c = unicode_next(&at);
        bool space = unicode_is_space(c);
        if (!space && !unicode_is_punct(c)) continue;
        push(out, (size_t)(word - text), (size_t)(begin - text));
        if (!space) push(out, (size_t)(begin - text), (size_t)(at - text));
        word = at;
    }
    push(out, (size_t)(word - text), (size_t)(end - text));
}

/* Hands over one stretch, matched or not. For MergedWithPrevious and -Next a match joins its
 * neighbour unless that is a match too; `joined` carries what the next stretch needs to know. */
struct splitting {
    struct list *out;
    const struct pretokenize_step *step;
    bool last_hit, any; /* the stretch before was a match; there was one */
    size_t held;        /* MergedWithNext: begin of a match that waits; SIZE_MAX: none */
};

static void stretch(struct splitting *s, size_t begin, size_t end, bool hit) {
    if (begin == end) return;
    hit ^= s->step->inverted;
    switch (s->step->behavior) {
    case SPLIT_ISOLATED: push(s->out, begin, end); break;
    case SPLIT_REMOVED:
        if (!hit) push(s->out, begin, end);
        break;
    case SPLIT_WITH_PREVIOUS:
        if (hit && s->any && !s->last_hit && s->out->rc == 0)
            s->out->at[s->out->n - 1].end = (uint32_t)end;
        else
            push(s->out, begin, end);
        break;
    case SPLIT_WITH_NEXT:
        if (hit) {
            if (s->held != SIZE_MAX) push(s->out, s->held, begin);
            s->held = begin;
        } else {
            push(s->out, s->held != SIZE_MAX ? s->held : begin, end);
            s->held = SIZE_MAX;
        }
        break;
    }
    s->last_hit = hit;
    s->any = true;
}

static void split_step(const struct pretokenize_step *step, const char *text, struct span piece,
                       struct list *out) {
    struct splitting s = {.out = out, .step = step, .held = SIZE_MAX};
    struct bytes part = bytes_of(text + piece.begin, piece.end - piece.begin);
    size_t from = 0, begin, end;
    int rc;
    while (out->rc == 0 && (rc = splitter_find(&step->splitter, part, from, &begin, &end)) != 0) {
        if (rc < 0) {
            out->rc = rc;
            return;
        }
        stretch(&s, piece.begin + from, piece.begin + begin, false);
        stretch(&s, piece.begin + begin, piece.begin + end, true);
        from = end;
    }
    stretch(&s, piece.begin + from, piece.end, false);
    if (s.held != SIZE_MAX) push(out, s.held, piece.end);
}

/* Blanks replaced, and one in front where the scheme asks for it. */
static char *put_meta(const struct metaspace *m, const char *from, const char *end, bool first,
                      char *to) {
    bool asks = m->prepend == PREPEND_ALWAYS || (m->prepend == PREPEND_FIRST && first);
    bool there = *from == ' ' ||
                 ((size_t)(end - from) >= m->bytes && memcmp(from, m->character, m->bytes) == 0);
    if (asks && !there) to = mempcpy(to, m->character, m->bytes);
    for (; from < end; from++)
        if (*from == ' ')
            to = mempcpy(to, m->character, m->bytes);
        else
            *to++ = *from;
    return to;
}

/* Rewrites all pieces into a new text. first: the text is what the document begins with. */
static int rewrite(const struct pretokenize_step *step, bool first, struct arena *scratch,
                   const struct pieces *in, struct pieces *out) {
    size_t bytes = 0;
    for (uint32_t i = 0; i < in->n; i++) bytes += in->at[i].end - in->at[i].begin;
    /* a byte takes at most the four of a character, and so does what is put in front of a piece */
    char *text = arena_alloc(scratch, (bytes + in->n) * sizeof step->metaspace.character + 1);
    struct span *at = arena_alloc(scratch, (in->n + 1) * sizeof *at);
    if (!text || !at) return -ENOMEM;
    char *to = text;
    for (uint32_t i = 0; i < in->n; i++) {
        const char *from = in->text + in->at[i].begin, *end = in->text + in->at[i].end;
        at[i].begin = (uint32_t)(to - text);
        if (step->kind == PRETOKENIZE_META) {
            to = put_meta(&step->metaspace, from, end, first && in->at[i].begin == 0, to);
        } else if (step->kind == PRETOKENIZE_BLANK) {
            if (*from != ' ') *to++ = ' ';
            memcpy(to, from, (size_t)(end - from));
            to += end - from;
        } else {
            while (from < end) to += unicode_put(to, bytelevel_char((uint8_t)*from++));
        }
        at[i].end = (uint32_t)(to - text);
    }
    *out = (struct pieces){text, at, in->n};
    return 0;
}

int pretokenizer_run(const struct pretokenizer *p, struct bytes text, bool first,
                     struct arena *scratch, struct pieces *out) {
    assert(text.len <= UINT32_MAX / 4);
    struct span *whole = arena_alloc(scratch, sizeof *whole);
    if (!whole) return -ENOMEM;
    *whole = (struct span){0, (uint32_t)text.len};
    *out = (struct pieces){text.data, whole, text.len > 0};
    for (uint32_t k = 0; k < p->n; k++) {
        const struct pretokenize_step *step = &p->steps[k];
        struct list list = {.arena = scratch};
        if (step->kind == PRETOKENIZE_BLANK || step->kind == PRETOKENIZE_META ||
            step->kind == PRETOKENIZE_BYTES) {
            int rc = rewrite(step, first, scratch, out, out);
            if (rc < 0) return rc;
            continue;
        }
        for (uint32_t i = 0; i < out->n && list.rc == 0; i++) {
            if (step->kind == PRETOKENIZE_BERT)
                split_bert(out->text, out->at[i], &list);
            else
                split_step(step, out->text, out->at[i], &list);
        }
        if (list.rc < 0) return list.rc;
        out->at = list.at;
        out->n = list.n;
    }
    return 0;
}
