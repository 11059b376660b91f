#include "workers/encode/layout.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "workers/encode/unicode.h"

#define EDGE_SHARE 0.12f /* of the page's height, where running lines stand */
#define SAME_HEIGHT 3.0f /* points */
#define RUNNING_CHARS_MAX 200u
#define RUNNING_PAGES_MIN 2u /* a line that comes back on so many pages ... */
#define RUNNING_SHARE 4u     /* ... and on a fourth of all, or on */
#define RUNNING_ENOUGH 5u    /* this many, is a running one */
#define GAP 1.25f            /* times the usual distance of lines: a new paragraph */
#define SIZE_STEP 1.15f      /* times the height of letters: a heading or what follows one */
#define COLUMN_GAP 1.5f      /* times the height of letters: another cell of a table */
#define FULL_SHARE 0.75f     /* of the widest line of a page */

struct line {
    const char *text; /* without its line end */
    uint32_t bytes, begin, chars, page;
    struct extract_box box; /* of what is drawn; all zero: nothing is */
    bool running, apart;    /* apart: a blank line belongs in front of it */
};
struct layout {
    const struct extracted *x;
    struct arena *arena;
    struct line *at;
    uint32_t n;
};

static bool is_drawn(const struct extract_box *b) {
    return b->x1 > 0 || b->y1 > 0;
}

static void grow(struct extract_box *all, const struct extract_box *b) {
    if (!is_drawn(b)) return;
    if (!is_drawn(all)) {
        *all = *b;
        return;
    }
    if (b->x0 < all->x0) all->x0 = b->x0;
    if (b->y0 < all->y0) all->y0 = b->y0;
    if (b->x1 > all->x1) all->x1 = b->x1;
    if (b->y1 > all->y1) all->y1 = b->y1;
}

/* ---- lines ---- */

/* Whether two characters in a row stand on lines of their own, though nothing parts them: neither
 * center is at the height of the other, or the second one is left of the first. */
static bool is_elsewhere(const struct extract_box *a, const struct extract_box *b) {
    if (!is_drawn(a) || !is_drawn(b)) return false;
    float y_a = (a->y0 + a->y1) / 2, y_b = (b->y0 + b->y1) / 2;
    bool level = (y_b > a->y0 && y_b < a->y1) || (y_a > b->y0 && y_a < b->y1);
    return !level || b->x1 < a->x0;
}

static int lines_find(struct layout *l) {
    const struct extracted *x = l->x;
    const char *text = x->text.data, *end = text + x->text.len;
    uint32_t n = x->pages_in + 1, at = 0, page = 0;
    for (const char *s = text; s < end && (s = memchr(s, '\n', (size_t)(end - s))); s++) n++;
    for (uint32_t i = 1; i < x->chars; i++) n += is_elsewhere(&x->boxes[i - 1], &x->boxes[i]);
    l->at = arena_calloc(l->arena, n, sizeof *l->at);
    if (!l->at) return -ENOMEM;
    while (text < end) {
        while (page + 1 < x->pages_in && at >= x->pages[page].end) page++;
        struct line line = {.text = text, .begin = at, .page = page};
        const char *stop = text, *next = text;
        while (next < end && at < x->pages[page].end) {
            if (line.chars > 0 && is_elsewhere(&x->boxes[at - 1], &x->boxes[at])) break;
            uint32_t c = unicode_next(&next);
            grow(&line.box, &x->boxes[at++]);
            if (c == '\n') break;
            stop = next;
            line.chars++;
        }
        if (next == text) break; /* text behind the last page: there is none */
        line.bytes = (uint32_t)(stop - text);
        if (line.chars > 0) l->at[l->n++] = line;
        text = next;
    }
    return 0;
}

/* ---- running lines ---- */

struct key { /* of a line near an edge, in two readings */
    uint64_t hash;
    float y;
    uint32_t line, page;
};

static uint64_t mix(uint64_t h, uint64_t v) {
    return (h ^ v) * 0x100000001B3u; /* FNV-1a, a number at a time */
}

/* The letters and numbers of a line; shifted: its first number counts from the page's. Zero: there
 * are none. *numbered tells whether there was a number. */
static uint64_t line_key(const struct line *l, bool shifted, bool *numbered) {
    uint64_t h = 0xCBF29CE484222325u;
    bool any = false;
    *numbered = false;
    for (uint32_t i = 0; i < l->bytes; i++) {
        unsigned char c = (unsigned char)l->text[i];
        if (c >= '0' && c <= '9') {
            uint64_t number = 0;
            for (; i < l->bytes && l->text[i] >= '0' && l->text[i] <= '9' && number < 1000000; i++)
                number = number * 10 + (uint64_t)(l->text[i] - '0');
            i--;
            h = mix(h, 0x100 + (shifted && !*numbered ? number - l->page : number));
            *numbered = any = true;
        } else if (c >= 0x80 || (c | 0x20u) - 'a' < 26) {
            h = mix(h, c < 0x80 ? c | 0x20u : c);
            any = true;
        }
    }
    return any ? h : 0;
}

static int by_hash(const void *x, const void *y) {
    const struct key *a = x, *b = y;
    if (a->hash != b->hash) return a->hash < b->hash ? -1 : 1;
    return a->y < b->y ? -1 : a->y > b->y;
}

static int by_page(const void *x, const void *y) {
    const struct key *a = x, *b = y;
    return a->page < b->page ? -1 : a->page > b->page;
}

/* "12", "- 12 -", "Page 12 of 90", 第 2 页 共 9 页, iv: a page number even where it comes but once. */
static bool is_page_number(const struct line *l) {
    static const char *const words[] = {"page", "of", "第", "页", "頁", "共", "\xE3\x80\x80", NULL};
    uint32_t digits = 0, roman = 0;
    for (uint32_t i = 0; i < l->bytes;) {
        unsigned char c = (unsigned char)l->text[i];
        uint32_t word = 0;
        for (int k = 0; words[k] && !word; k++) {
            uint32_t len = (uint32_t)strlen(words[k]);
            if (len <= l->bytes - i && strncasecmp(l->text + i, words[k], len) == 0) word = len;
        }
        if (word == 0) {
            word = 1;
            if (c >= '0' && c <= '9')
                digits++;
            else if (c < 0x80 && strchr("ivxIVX", c))
                roman++;
            else if (c >= 0x80 || !strchr(" -/.|", c))
                return false;
        }
        i += word;
    }
    return (digits > 0 && digits <= 8 && roman == 0) || (digits == 0 && roman > 0 && roman <= 6);
}

/* Lines that read alike and stand at one height of their pages. */
static void mark_groups(struct layout *l, struct key *keys, uint32_t n) {
    qsort(keys, n, sizeof *keys, by_hash);
    for (uint32_t i = 0, end; i < n; i = end) {
        uint32_t pages = 1;
        for (end = i + 1; end < n && keys[end].hash == keys[i].hash; end++)
            if (keys[end].y - keys[end - 1].y > SAME_HEIGHT) break;
        qsort(&keys[i], end - i, sizeof *keys, by_page);
        for (uint32_t k = i + 1; k < end; k++) pages += keys[k].page != keys[k - 1].page;
        if (pages < RUNNING_PAGES_MIN) continue;
        if (pages < RUNNING_ENOUGH && pages * RUNNING_SHARE < l->x->pages_in) continue;
        for (uint32_t k = i; k < end; k++) l->at[keys[k].line].running = true;
    }
}

/* A page number that is the first or the last of what else is left of a page, wherever it
 * stands. */
static void mark_first_and_last(struct layout *l) {
    for (uint32_t i = 0, end; i < l->n; i = end) {
        uint32_t first = UINT32_MAX, last = 0;
        for (end = i; end < l->n && l->at[end].page == l->at[i].page; end++) {
            if (l->at[end].running) continue;
            if (first == UINT32_MAX) first = end;
            last = end;
        }
        if (first >= last) continue;
        l->at[first].running = is_page_number(&l->at[first]);
        l->at[last].running = is_page_number(&l->at[last]);
    }
}

static int mark_running(struct layout *l) {
    struct key *keys = arena_calloc(l->arena, 2 * (size_t)l->n + 1, sizeof *keys);
    uint32_t n = 0;
    if (!keys) return -ENOMEM;
    for (uint32_t i = 0; i < l->n; i++) {
        struct line *line = &l->at[i];
        float height = l->x->pages[line->page].height_pt;
        bool edge =
            line->box.y1 <= height * EDGE_SHARE || line->box.y0 >= height * (1 - EDGE_SHARE);
        if (line->chars > RUNNING_CHARS_MAX || !is_drawn(&line->box)) continue;
        if (!edge) continue;
        line->running = is_page_number(line);
        bool numbered;
        uint64_t hash = line_key(line, false, &numbered);
        if (hash == 0) continue;
        keys[n++] = (struct key){hash, line->box.y0, i, line->page};
        if (numbered)
            keys[n++] = (struct key){~line_key(line, true, &numbered), line->box.y0, i, line->page};
    }
    mark_groups(l, keys, n);
    mark_first_and_last(l);
    return 0;
}

/* ---- paragraphs ---- */

static float height_of(const struct line *l) {
    return l->box.y1 - l->box.y0;
}

static int by_value(const void *x, const void *y) {
    const float *a = x, *b = y;
    return *a < *b ? -1 : *a > *b;
}

/* The next line that stays in the text; l->n past the end. */
static uint32_t next_kept(const struct layout *l, uint32_t i) {
    while (i < l->n && l->at[i].running) i++;
    return i;
}

/* From the bottom of one line to the bottom of the next, in heights of a line; 0: they do not
 * follow each other downwards on one page. */
static float distance(const struct line *a, const struct line *b) {
    float height = height_of(a) < height_of(b) ? height_of(a) : height_of(b);
    if (a->page != b->page || !is_drawn(&a->box) || !is_drawn(&b->box) || height <= 0) return 0;
    float d = (b->box.y1 - a->box.y1) / height;
    return d > 0.3f && d < 10 ? d : 0;
}

/* Within paragraphs lines follow full ones, so the median behind those is the usual distance. */
static int mark_paragraphs(struct layout *l) {
    float *seen = arena_calloc(l->arena, (size_t)l->n + 1, sizeof *seen), widest = 0;
    uint32_t n = 0;
    if (!seen) return -ENOMEM;
    for (uint32_t i = 0; i < l->n; i++) {
        float width = l->at[i].box.x1 - l->at[i].box.x0;
        if (!l->at[i].running && width > widest) widest = width;
    }
    for (uint32_t i = next_kept(l, 0), j; (j = next_kept(l, i + 1)) < l->n; i = j) {
        float d = distance(&l->at[i], &l->at[j]), width = l->at[i].box.x1 - l->at[i].box.x0;
        if (d > 0 && width >= FULL_SHARE * widest) seen[n++] = d;
    }
    if (n == 0) return 0;
    qsort(seen, n, sizeof *seen, by_value);
    float usual = seen[n / 2];
    for (uint32_t i = next_kept(l, 0), j; (j = next_kept(l, i + 1)) < l->n; i = j) {
        struct line *a = &l->at[i], *b = &l->at[j];
        float d = distance(a, b), high = height_of(a), low = height_of(b);
        if (high < low) high = height_of(b), low = height_of(a);
        b->apart = d > GAP * usual || (d > 0 && high > SIZE_STEP * low);
    }
    return 0;
}

/* ---- the document ---- */

struct writing {
    char *text;
    uint8_t *boxes;
    size_t bytes;
    uint32_t chars;
};

/* A character that the page does not draw. */
static void put_mark(struct writing *w, char c) {
    w->text[w->bytes++] = c;
    memset(w->boxes + (size_t)w->chars++ * 8, 0, 8);
}

/* A tab comes between cells of a table that nothing else parts. */
static void put_line(struct writing *w, const struct layout *l, const struct line *line) {
    const struct extract_page *page = &l->x->pages[line->page];
    const char *at = line->text, *next = at;
    for (uint32_t i = 0; i < line->chars; i++, at = next) {
        const struct extract_box *b = &l->x->boxes[line->begin + i];
        unicode_next(&next);
        if (i > 0 && is_drawn(b) && is_drawn(b - 1) && *at != ' ' && at[-1] != ' ' &&
            b->x0 - b[-1].x1 > COLUMN_GAP * (b->y1 - b->y0))
            put_mark(w, '\t');
        memcpy(w->text + w->bytes, at, (size_t)(next - at));
        w->bytes += (size_t)(next - at);
        document_put_box(w->boxes + (size_t)w->chars++ * 8, b, page->width_pt, page->height_pt);
    }
}

/* All lines of a page, from l->at[*at] on: into the text, or to the page's running lines. */
static int put_page(struct writing *w, const struct layout *l, uint32_t number, uint32_t *at,
                    struct document_page *page) {
    uint32_t first = *at, end = first;
    size_t running = 0;
    while (end < l->n && l->at[end].page == number) {
        if (l->at[end].running) running += l->at[end].bytes + 1;
        end++;
    }
    char *kept = running ? arena_alloc(l->arena, running) : NULL;
    if (running && !kept) return -ENOMEM;
    size_t used = 0;
    bool begun = false;
    for (uint32_t i = first; i < end; i++) {
        const struct line *line = &l->at[i];
        if (line->running) {
            if (used) kept[used++] = '\n';
            memcpy(kept + used, line->text, line->bytes);
            used += line->bytes;
            continue;
        }
        if (!begun && w->chars > 0) put_mark(w, '\f');
        if (!begun) page->begin = w->chars;
        if (begun) put_mark(w, '\n');
        if (begun && line->apart) put_mark(w, '\n');
        begun = true;
        put_line(w, l, line);
    }
    if (!begun) page->begin = w->chars;
    page->end = w->chars;
    page->running = bytes_of(kept, used);
    *at = end;
    return 0;
}

static int write_pages(struct layout *l, struct document *out, struct document_page *pages) {
    const struct extracted *x = l->x;
    /* at most a mark in front of each character, and one more a line */
    size_t chars = 2 * (size_t)x->chars + l->n + 1, bytes = x->text.len + chars;
    struct writing w = {.text = arena_alloc(l->arena, bytes),
                        .boxes = arena_calloc(l->arena, chars, 8)};
    if (!w.text || !w.boxes) return -ENOMEM;
    uint32_t at = 0;
    for (uint32_t i = 0; i < x->pages_in; i++) {
        int rc = put_page(&w, l, i, &at, &pages[i]);
        if (rc < 0) return rc;
    }
    out->text = bytes_of(w.text, w.bytes);
    out->chars = w.chars;
    out->boxes = w.boxes;
    return 0;
}

int layout_document(struct document *out, const struct extracted *x, struct arena *a) {
    struct document_page *pages = arena_calloc(a, (size_t)x->pages_in + 1, sizeof *pages);
    struct layout l = {.x = x, .arena = a};
    if (!pages) return -ENOMEM;
    *out = (struct document){.format = bytes_str(x->format),
                             .encoding = bytes_str(x->encoding),
                             .text = x->text,
                             .chars = x->chars,
                             .pages = pages,
                             .n_pages = x->pages_in,
                             .pages_in = x->pages_in,
                             .pages_ok = x->pages_ok,
                             .pages_partial = x->pages_partial,
                             .pages_failed = x->pages_failed};
    for (uint32_t i = 0; i < x->pages_in; i++) {
        const struct extract_page *p = &x->pages[i];
        pages[i] = (struct document_page){.number = p->number,
                                          .outcome = p->outcome,
                                          .width_pt = p->width_pt,
                                          .height_pt = p->height_pt,
                                          .begin = p->begin,
                                          .end = p->end,
                                          .reason = p->reason};
    }
    if (!x->boxes) return 0;
    int rc = lines_find(&l);
    if (rc == 0) rc = mark_running(&l);
    if (rc == 0) rc = mark_paragraphs(&l);
    return rc < 0 ? rc : write_pages(&l, out, pages);
}
