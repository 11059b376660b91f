#include "workers/post/flat.h"

#include <errno.h>
#include <string.h>

#include "workers/encode/unicode.h"

#define WIDTH_MAX 160u /* wider lines tell nothing about a page */

static bool is_break(char c) {
    return c == '\n' || c == '\r' || c == '\f';
}

/* White space at `at`, to where it ends; *line_end tells whether a line ends in it. */
static const char *skip_space(const char *at, const char *end, bool *line_end) {
    *line_end = false;
    while (at < end) {
        const char *next = at;
        if (!unicode_is_space(unicode_next(&next))) break;
        *line_end |= is_break(*at);
        at = next;
    }
    return at;
}

/* "twenty-" "one": the hyphen belongs to the number. */
static bool ends_in_tens(const char *begin, const char *hyphen) {
    static const char *const tens[] = {"twenty", "thirty",  "forty",  "fifty",
                                       "sixty",  "seventy", "eighty", "ninety"};
    for (size_t i = 0; i < sizeof tens / sizeof *tens; i++) {
        size_t n = strlen(tens[i]);
        if ((size_t)(hyphen - begin) >= n && strncasecmp(hyphen - n, tens[i], n) == 0) return true;
    }
    return false;
}

static bool is_small(char c) {
    return c >= 'a' && c <= 'z';
}

struct flattening {
    struct flat *f;
    char *to;
    size_t len;
    const char *all;
    uint32_t widest; /* line of the text, up to WIDTH_MAX */
};

static uint32_t width_of(const char *at, const char *end) {
    uint32_t width = 0;
    while (at < end && width < WIDTH_MAX) width += unicode_is_han(unicode_next(&at)) ? 2 : 1;
    return width;
}

static uint32_t widest_line(struct bytes text) {
    const char *at = text.data, *end = at + text.len, *line = at;
    uint32_t widest = 0;
    for (; at <= end; at++) {
        if (at < end && !is_break(*at)) continue;
        uint32_t width = width_of(line, at);
        if (width > widest) widest = width;
        line = at + 1;
    }
    return widest;
}

/* Whether the line that ends at `end` goes as far as lines of this text do. */
static bool is_full(const struct flattening *w, const char *end) {
    const char *begin = end;
    while (begin > w->all && !is_break(begin[-1])) begin--;
    return width_of(begin, end) * 4 >= w->widest * 3;
}

static void put(struct flattening *w, const char *from, const char *to) {
    memcpy(w->to + w->len, from, (size_t)(to - from));
    w->len += (size_t)(to - from);
}

static void change(struct flattening *w, const char *text) {
    w->f->changes[w->f->n++] = (struct flat_change){(uint32_t)w->len, (uint32_t)(text - w->all)};
}

/* The white space [gap, next) in which a line ends, between what comes before and behind it. */
static void put_gap(struct flattening *w, const char *begin, const char *gap, const char *next) {
    const char *before, *behind = next;
    uint32_t last = unicode_before(gap, &before);
    bool han = unicode_is_han(last) && unicode_is_han(unicode_next(&behind));
    if (last == '-' && before > begin) {
        if (is_small(before[-1]) && is_small(*next) && !ends_in_tens(begin, before)) w->len--;
    } else if (!han) {
        w->to[w->len++] = ' ';
    }
    change(w, next);
}

static void put_clause(struct flattening *w, const char *begin, const char *end) {
    const char *at = begin, *from = begin;
    while (at < end) {
        const char *gap = at;
        bool line_end;
        if (!unicode_is_space(unicode_next(&at))) continue;
        at = skip_space(gap, end, &line_end);
        if (!line_end || gap == begin || at == end || !is_full(w, gap)) continue;
        put(w, from, gap);
        put_gap(w, begin, gap, at);
        from = at;
    }
    put(w, from, end);
}

int flat_make(struct flat *f, struct bytes text, const struct clauses *cs, struct arena *a) {
    const char *all = text.data;
    size_t breaks = 0, at = 0;
    for (size_t i = 0; i < text.len; i++) breaks += is_break(all[i]);
    *f = (struct flat){.changes = arena_calloc(a, breaks + 1, sizeof *f->changes)};
    struct flattening w = {.f = f, .to = arena_alloc(a, text.len + 1), .all = all};
    w.widest = widest_line(text);
    if (!w.to || !f->changes) return -ENOMEM;
    change(&w, all);
    for (uint32_t i = 0; i < cs->n; i++) {
        put(&w, all + at, all + cs->at[i].begin);
        put_clause(&w, all + cs->at[i].begin, all + cs->at[i].end);
        at = cs->at[i].end;
    }
    put(&w, all + at, all + text.len);
    f->text = bytes_of(w.to, w.len);
    return 0;
}

/* Where a byte of the flat text stands in the text. */
static uint32_t place(const struct flat *f, uint32_t at) {
    uint32_t low = 0, high = f->n; /* the last change at or before it */
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (f->changes[middle].flat <= at)
            low = middle;
        else
            high = middle;
    }
    return f->changes[low].text + (at - f->changes[low].flat);
}

void flat_restore(const struct flat *f, struct bytes text, struct entities *e) {
    const char *all = text.data, *counted = all;
    uint32_t chars = 0;
    for (uint32_t i = 0; i < e->n; i++) {
        struct entity *x = &e->at[i];
        x->begin = place(f, x->begin);
        x->end = place(f, x->end - 1) + 1; /* behind its last byte, not in front of the next */
        chars += (uint32_t)unicode_count(bytes_of(counted, (size_t)(all + x->begin - counted)));
        x->char_begin = chars;
        counted = all + x->begin;
        chars += (uint32_t)unicode_count(bytes_of(counted, x->end - x->begin));
        x->char_end = chars;
        counted = all + x->end;
    }
}
