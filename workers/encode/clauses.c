#include "workers/encode/clauses.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "base/err.h"
#include "workers/encode/marker.h"
#include "workers/encode/unicode.h"

#define WINDOW_BYTES (CLAUSE_COST_MAX * 4u + 16u)
#define WRAP_CHARS_MAX 120u /* no longer line than this: the text is hard-wrapped */
#define WRAP_CHARS_TOP 400u /* longer ones may be; those beyond count as this */

const char *clause_language_name(enum clause_language l) {
    return l == LANGUAGE_ZH ? "zh" : "en";
}

enum clause_language clauses_language(struct bytes text) {
    const char *at = text.data, *end = at + text.len;
    size_t han = 0, letters = 0;
    while (at < end) {
        uint32_t c = unicode_next(&at);
        if (unicode_is_han(c))
            han++;
        else if (unicode_is_letter(c))
            letters++;
    }
    return han * 3 > letters ? LANGUAGE_ZH : LANGUAGE_EN;
}

/* ---- lines ---- */

struct line {
    uint32_t begin, end; /* bytes, white space at the ends left out */
    uint32_t chars;
    bool blank_before, blank_after;
    struct marker marker;
};
struct lines {
    struct line *at;
    uint32_t n, wrap_chars; /* 0: not hard-wrapped */
};

static bool is_line_end(uint32_t c) {
    return (c >= '\n' && c <= '\r') || c == 0x85 || c == 0x2028 || c == 0x2029;
}

static uint32_t count_line_ends(struct bytes text) {
    const char *at = text.data, *end = at + text.len;
    uint32_t n = 1;
    while (at < end) n += is_line_end(unicode_next(&at));
    return n;
}

/* Cuts white space and byte order marks off both ends. */
static void trim(const char *all, uint32_t *begin, uint32_t *end) {
    const char *at = all + *begin, *stop = all + *end, *next = at;
    while (at < stop) {
        uint32_t c = unicode_next(&next);
        if (!unicode_is_space(c) && c != 0xFEFF) break;
        at = next;
    }
    while (at < stop) {
        uint32_t c = unicode_before(stop, &next);
        if (!unicode_is_space(c) && c != 0xFEFF) break;
        stop = next;
    }
    *begin = (uint32_t)(at - all);
    *end = (uint32_t)(stop - all);
}

static struct bytes part(struct bytes text, uint32_t begin, uint32_t end) {
    return bytes_of((const char *)text.data + begin, end - begin);
}

/* The width of a page of small print: a third of the lines come close to it, and hardly one goes
 * beyond. Paragraphs that are lines have all lengths: 0. */
static uint32_t wide_wrap(const struct lines *ls) {
    uint32_t count[WRAP_CHARS_TOP + 1] = {0}, beyond = 0, full = 0, width = WRAP_CHARS_TOP;
    for (uint32_t i = 0; i < ls->n; i++)
        count[ls->at[i].chars < WRAP_CHARS_TOP ? ls->at[i].chars : WRAP_CHARS_TOP]++;
    while (width > 0 && (beyond + count[width]) * 20 <= ls->n) beyond += count[width--];
    for (uint32_t k = width * 3 / 4; k <= width; k++) full += count[k];
    return width < WRAP_CHARS_TOP && full * 3 >= ls->n ? width : 0;
}

/* The lines that are not blank, with what stands around them. */
static int lines_read(struct bytes text, struct arena *a, struct lines *out) {
    const char *all = text.data, *at = all, *end = all + text.len, *begin = all;
    *out = (struct lines){.at = arena_alloc(a, count_line_ends(text) * sizeof *out->at)};
    if (!out->at) return -ENOMEM;
    bool blank = true;
    uint32_t longest = 0;
    while (begin <= end) {
        const char *stop = at;
        bool at_end = at == end;
        if (!at_end && !is_line_end(unicode_next(&at))) continue;
        struct line l = {.begin = (uint32_t)(begin - all), .end = (uint32_t)(stop - all)};
        trim(all, &l.begin, &l.end);
        /* CR LF is one line end, and a form feed between two lines is no blank line */
        bool feed = stop < end && (*stop == '\f' || (stop > all && stop[-1] == '\f'));
        bool pair = stop < end && *stop == '\n' && stop > all && stop[-1] == '\r';
        if (l.begin == l.end && (feed || pair)) {
            begin = at;
            continue;
        }
        if (l.begin == l.end) {
            blank = true;
            if (out->n) out->at[out->n - 1].blank_after = true;
        } else {
            l.blank_before = blank;
            l.chars = (uint32_t)unicode_count(part(text, l.begin, l.end));
            if (l.chars > longest) longest = l.chars;
            out->at[out->n++] = l;
            blank = false;
        }
        if (at_end) break;
        begin = at;
    }
    if (out->n) out->at[out->n - 1].blank_after = true;
    out->wrap_chars = longest <= WRAP_CHARS_MAX ? longest : wide_wrap(out);
    for (uint32_t i = 0; i < out->n; i++) {
        struct line *l = &out->at[i];
        l->marker = marker_read(part(text, l->begin, l->end), l->blank_before && l->blank_after);
    }
    return 0;
}

static bool ends_sentence(struct bytes text, const struct line *l) {
    const char *start;
    uint32_t c = unicode_before((const char *)text.data + l->end, &start);
    return c == '.' || c == ';' || c == ':' || c == '!' || c == '?' || c == 0x3002 || c == 0xFF1B ||
           c == 0xFF1A || c == 0xFF01 || c == 0xFF1F;
}

/* Whether what follows a line's number begins with a small letter. */
static bool goes_on(struct bytes text, const struct line *l) {
    uint32_t begin = l->begin + l->marker.number_bytes, end = l->end;
    trim(text.data, &begin, &end);
    const char *at = (const char *)text.data + begin;
    if (begin == end) return false;
    uint32_t c = unicode_next(&at);
    return unicode_is_letter(c) && !unicode_is_upper(c) && !unicode_is_han(c);
}

/* Whether line i goes on with the paragraph of line i - 1. */
static bool continues(struct bytes text, const struct lines *ls, uint32_t i) {
    const struct line *l = &ls->at[i], *before = &ls->at[i - 1];
    if (l->blank_before || before->marker.heading_only) return false;
    bool full = ls->wrap_chars > 0 && before->chars * 4 >= ls->wrap_chars * 3;
    if (l->marker.number_bytes > 0) /* "...in Section" / "5.2 and...": a wrapped reference */
        return full && !ends_sentence(text, before) && l->marker.level > 1 && goes_on(text, l);
    if (l->marker.heading_only && !full) return false;
    if (!ends_sentence(text, before)) return ls->wrap_chars > 0 || l->chars < WRAP_CHARS_MAX;
    return full;
}

/* ---- clauses ---- */

struct splitting {
    struct bytes text;
    struct arena *arena;
    struct clauses *out;
    uint32_t cap;
    struct clause_part heading, number; /* in force, and their level */
    uint32_t level;
    const char *counted; /* characters are counted up to here */
    uint32_t chars;
};

/* Byte offsets come in ascending order, so one pass over the text counts all characters. */
static uint32_t chars_at(struct splitting *s, uint32_t byte) {
    const char *at = (const char *)s->text.data + byte;
    s->chars += (uint32_t)unicode_count(bytes_of(s->counted, (size_t)(at - s->counted)));
    s->counted = at;
    return s->chars;
}

static int push(struct splitting *s, uint32_t begin, uint32_t end, struct clause c) {
    struct clauses *out = s->out;
    trim(s->text.data, &begin, &end);
    if (begin == end) return 0;
    if (out->n == CLAUSES_MAX) return ERR_LIMIT;
    if (out->n == s->cap) {
        uint32_t cap = s->cap ? s->cap * 2 : 64;
        struct clause *more = arena_alloc(s->arena, cap * sizeof *more);
        if (!more) return -ENOMEM;
        if (out->n) memcpy(more, out->at, out->n * sizeof *more);
        out->at = more;
        s->cap = cap;
    }
    c.begin = begin;
    c.end = end;
    c.char_begin = chars_at(s, begin);
    c.char_end = chars_at(s, end);
    out->at[out->n++] = c;
    return 0;
}

static uint32_t cost(struct bytes text) {
    const char *at = text.data, *end = at + text.len;
    uint32_t n = 0;
    while (at < end) n += unicode_is_han(unicode_next(&at)) ? 4 : 1;
    return n;
}

/* Where a stretch without a sentence end is cut: behind its last comma or blank, else anywhere. */
static size_t hard_cut(struct bytes text) {
    const char *all = text.data, *at = all, *end = all + text.len;
    size_t best = 0;
    uint32_t n = 0;
    while (at < end) {
        uint32_t c = unicode_next(&at);
        n += unicode_is_han(c) ? 4 : 1;
        if (n > CLAUSE_COST_MAX) break;
        if (unicode_is_space(c) || c == ',' || c == 0xFF0C || c == 0x3001)
            best = (size_t)(at - all);
    }
    return best > (size_t)(at - all) / 2 ? best : (size_t)(at - all);
}

/* As many whole sentences of a text as an encoder can see at once; bytes. */
static size_t sentences_that_fit(struct bytes text) {
    size_t cut = 0;
    uint32_t spent = 0;
    while (cut < text.len) {
        size_t next = sentence_end(text, cut);
        spent += cost(part(text, (uint32_t)cut, (uint32_t)next));
        if (spent > CLAUSE_COST_MAX) return cut > 0 ? cut : hard_cut(part(text, 0, (uint32_t)next));
        cut = next;
    }
    return cut;
}

static int push_paragraph(struct splitting *s, uint32_t begin, uint32_t end, struct clause c) {
    int rc = 0;
    while (rc == 0 && begin < end) {
        /* A window of four bytes a letter always costs more than the limit when it is full, so that
         * its own end is never taken for a sentence's. */
        uint32_t stop = end - begin > WINDOW_BYTES ? begin + WINDOW_BYTES : end;
        while (stop < end && (((const uint8_t *)s->text.data)[stop] & 0xC0) == 0x80) stop--;
        uint32_t cut = begin + (uint32_t)sentences_that_fit(part(s->text, begin, stop));
        rc = push(s, begin, cut, c);
        begin = cut;
    }
    return rc;
}

/* A heading line: it holds for what follows; one that nothing follows is a clause itself. */
static int heading_line(struct splitting *s, const struct lines *ls, uint32_t i) {
    const struct line *l = &ls->at[i];
    const struct marker *m = &l->marker;
    s->heading = (struct clause_part){l->begin + m->heading_begin, l->begin + m->heading_end};
    s->number = (struct clause_part){l->begin, l->begin + m->number_bytes};
    s->level = m->level;
    if (i + 1 < ls->n) return 0;
    struct clause c = {.heading = s->heading, .number = s->number, .level = s->level};
    return push(s, l->begin, l->end, c);
}

int clauses_split(struct bytes text, struct arena *a, struct clauses *out) {
    struct lines ls;
    struct splitting s = {.text = text, .arena = a, .out = out, .counted = text.data};
    *out = (struct clauses){0};
    if (text.len > UINT32_MAX) return ERR_LIMIT;
    int rc = lines_read(text, a, &ls);
    for (uint32_t i = 0; rc == 0 && i < ls.n;) {
        const struct line *l = &ls.at[i];
        if (l->marker.heading_only) {
            rc = heading_line(&s, &ls, i++);
            continue;
        }
        uint32_t last = i;
        while (last + 1 < ls.n && continues(text, &ls, last + 1)) last++;
        const struct marker *m = &l->marker;
        struct clause c = {.level = s.level, .number = s.number, .heading = s.heading};
        if (m->number_bytes) {
            c.level = m->level;
            c.number = (struct clause_part){l->begin, l->begin + m->number_bytes};
        }
        if (m->heading_end > m->heading_begin) {
            c.heading =
                (struct clause_part){l->begin + m->heading_begin, l->begin + m->heading_end};
            if (m->level <= 1) s.heading = c.heading; /* holds for the items below */
        }
        rc = push_paragraph(&s, l->begin, ls.at[last].end, c);
        i = last + 1;
    }
    return rc;
}

/* Copies with every run of white space as one blank; between two Han characters as none. */
static void put_flat(const char *at, const char *end, struct buf *out) {
    bool gap = false, han_before = false;
    while (at < end) {
        const char *begin = at;
        uint32_t c = unicode_next(&at);
        if (unicode_is_space(c)) {
            gap = true;
            continue;
        }
        bool han = unicode_is_han(c);
        if (gap && !(han && han_before)) buf_append(out, " ", 1);
        buf_append(out, begin, (size_t)(at - begin));
        gap = false;
        han_before = han;
    }
}

int clause_seen(struct bytes text, const struct clause *c, struct buf *out, size_t *heading_bytes) {
    const char *all = text.data;
    uint32_t begin = c->begin;
    if (c->number.begin == begin && c->number.end < c->end) begin = c->number.end;
    if (c->heading.end > c->heading.begin && c->heading.end <= c->begin) {
        put_flat(all + c->heading.begin, all + c->heading.end, out);
        buf_append(out, ". ", 2);
    }
    if (heading_bytes) *heading_bytes = out->len;
    uint32_t end = c->end;
    trim(all, &begin, &end);
    put_flat(all + begin, all + end, out);
    return out->error;
}
