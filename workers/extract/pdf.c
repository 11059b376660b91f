#include "workers/extract/pdf.h"

#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <poppler.h>

#include "base/limits.h"
#include "workers/extract/sandbox.h"

#define HEADER_WITHIN 1024u
#define END_WITHIN 4096u
#define SIDE_MAX_PT 200000.0 /* a page of 70 m; PDF itself ends at 14400 */
#define UNKNOWN_SHARE 20u    /* partial: more than one letter in so many is unknown */
#define REPLACEMENT 0xfffdu
#define GAP_EM 0.25f /* two letters of a word are nearer than so much of their size */

static bool found(struct bytes in, const char *mark) {
    return in.len > 0 && memmem(in.data, in.len, mark, strlen(mark)) != NULL;
}

bool pdf_is(struct bytes d) {
    return found(bytes_of(d.data, d.len < HEADER_WITHIN ? d.len : HEADER_WITHIN), "%PDF-");
}

static bool has_end(struct bytes d) {
    size_t tail = d.len < END_WITHIN ? d.len : END_WITHIN;
    return found(bytes_of((const char *)d.data + d.len - tail, tail), "%%EOF");
}

/* What bears on every page: whether the file has its end, and whether poppler-data can be read. */
struct state {
    bool whole, data;
};

static bool has_data(void) {
    int fd = open(PDF_DATA_FOLDER "/cMap", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return false;
    close(fd);
    return true;
}

/* ---- one page ---- */

/* The text and boxes of one page as they go out; grown once for all pages. */
struct page_text {
    struct buf text;
    struct extract_box *boxes;
    uint32_t chars, room, letters, unknown;
};

static bool is_unknown(gunichar c) {
    bool private_use = (c >= 0xe000 && c <= 0xf8ff) || c >= 0xf0000;
    return c == REPLACEMENT || private_use || (c < 0x20 && c != '\n') || (c >= 0x7f && c < 0xa0);
}

static float inside(double v, float max) {
    float f = isfinite(v) ? (float)v : 0;
    return f < 0 ? 0 : f > max ? max : f;
}

/* Clipped to the page; a box that has no area, as line ends have, is none. */
static struct extract_box box_of(const PopplerRectangle *r, const struct extract_page *p) {
    struct extract_box b = {
        inside(fmin(r->x1, r->x2), p->width_pt), inside(fmin(r->y1, r->y2), p->height_pt),
        inside(fmax(r->x1, r->x2), p->width_pt), inside(fmax(r->y1, r->y2), p->height_pt)};
    return b;
}

static int put(struct page_text *t, gunichar c, struct extract_box box) {
    if (t->chars == t->room) {
        uint32_t room = t->room ? t->room * 2 : 8192;
        struct extract_box *more = reallocarray(t->boxes, room, sizeof *more);
        if (!more) return -1;
        t->boxes = more;
        t->room = room;
    }
    char utf8[6];
    int len = g_unichar_to_utf8(c, utf8);
    t->boxes[t->chars++] = box;
    return buf_append(&t->text, utf8, (size_t)len);
}

/* What is between two letters of which Poppler says that they follow each other: 0 nothing, ' ' a
 * gap in a row, whose box is *gap, '\n' a jump. Poppler ends words at gaps, and rows at wider ones,
 * but forgets that end where another row goes on at the same height, as in the cells of a table. */
static gunichar between(const struct extract_box *x, const struct extract_box *y,
                        struct extract_box *gap) {
    float dx = fmaxf(y->x0 - x->x1, x->x0 - y->x1), dy = fmaxf(y->y0 - x->y1, x->y0 - y->y1);
    float em = fmaxf(fmaxf(x->x1 - x->x0, x->y1 - x->y0), fmaxf(y->x1 - y->x0, y->y1 - y->y0));
    if (fmaxf(dx, dy) <= GAP_EM * em) return 0;
    if (dy > 0 || y->x0 < x->x1) return '\n';
    *gap = (struct extract_box){x->x1, fmaxf(x->y0, y->y0), y->x0, fminf(x->y1, y->y1)};
    return ' ';
}

/* Poppler's text to ours, letter by letter. Without pairs nothing has a box. */
static int take(struct page_text *t, const char *text, const PopplerRectangle *at, bool paired,
                const struct extract_page *p) {
    const struct extract_box none = {0, 0, 0, 0};
    struct extract_box last = none, gap = none;
    bool joined = false; /* the character before is a letter with a box */
    int rc = 0;
    guint i = 0;
    for (const char *c = text; rc == 0 && *c; c = g_utf8_next_char(c), i++) {
        gunichar u = g_utf8_get_char(c);
        bool blank = u == ' ' || u == '\n';
        struct extract_box box = paired && u != '\n' ? box_of(&at[i], p) : none;
        gunichar missing = paired && joined && !blank ? between(&last, &box, &gap) : 0;
        if (missing) rc = put(t, missing, missing == ' ' ? gap : none);
        t->letters += !blank;
        t->unknown += is_unknown(u);
        if (u < 0x20 && u != '\n') u = REPLACEMENT;
        if (rc == 0) rc = put(t, u, box);
        joined = !blank;
        last = box;
    }
    return rc;
}

static void outcome(struct extract_page *p, enum extract_outcome outcome, char *reason,
                    size_t reason_bytes, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
static void outcome(struct extract_page *p, enum extract_outcome outcome, char *reason,
                    size_t reason_bytes, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(reason, reason_bytes, format, args);
    va_end(args);
    p->outcome = outcome;
    p->reason = bytes_str(reason);
}

static guint pictures(PopplerPage *page) {
    GList *images = poppler_page_get_image_mapping(page);
    guint n = g_list_length(images);
    poppler_page_free_image_mapping(images);
    return n;
}

/* What became of a page whose text was taken. */
static void judge(struct extract_page *p, const struct page_text *t, PopplerPage *page, bool paired,
                  struct state s, char *reason, size_t bytes) {
    guint images = t->letters == 0 ? pictures(page) : 0;
    if (images > 0)
        outcome(p, EXTRACT_FAILED, reason, bytes, "no text: a scan (%u picture%s)", images,
                images == 1 ? "" : "s");
    else if (sandbox_out_of_memory())
        outcome(p, EXTRACT_PARTIAL, reason, bytes, "some of it needs more memory than the limit");
    else if (!s.whole)
        outcome(p, t->letters ? EXTRACT_PARTIAL : EXTRACT_FAILED, reason, bytes,
                "%sthe file has no end mark: it is cut off", t->letters ? "" : "no text: ");
    else if (!paired)
        outcome(p, EXTRACT_PARTIAL, reason, bytes, "its letters have no boxes: they do not pair");
    else if (t->unknown * UNKNOWN_SHARE > t->letters)
        outcome(p, EXTRACT_PARTIAL, reason, bytes,
                "%u of %u characters are unknown: a font does not say which they are", t->unknown,
                t->letters);
    else if (t->letters == 0 && !s.data)
        outcome(p, EXTRACT_FAILED, reason, bytes,
                "no text: blank, or in a font that needs poppler-data, which cannot be read here");
    else if (t->letters == 0)
        outcome(p, EXTRACT_OK, reason, bytes, "blank");
}

static void read_text(struct page_text *t, struct extract_page *p, PopplerPage *page,
                      struct state s, char *reason, size_t bytes) {
    PopplerRectangle *at = NULL;
    guint n_at = 0;
    char *text = poppler_page_get_text(page);
    if (!text || !poppler_page_get_text_layout(page, &at, &n_at)) n_at = 0;
    if (text && !g_utf8_validate(text, -1, NULL)) {
        char *valid = g_utf8_make_valid(text, -1);
        g_free(text);
        text = valid;
    }
    bool paired = text && (guint)g_utf8_strlen(text, -1) == n_at;
    int rc = text ? take(t, text, at, paired, p) : 0;
    if (rc == 0 && t->chars > 0 && t->letters > 0) {
        const struct extract_box none = {0, 0, 0, 0};
        bool ended = ((const char *)t->text.data)[t->text.len - 1] == '\n';
        if (!ended) rc = put(t, '\n', none);
    }
    g_free(at);
    g_free(text);
    if (rc < 0)
        outcome(p, EXTRACT_FAILED, reason, bytes, "its text needs more memory than the limit");
    else
        judge(p, t, page, paired, s, reason, bytes);
    if (p->outcome == EXTRACT_FAILED || t->letters == 0) {
        buf_clear(&t->text);
        t->chars = 0;
    }
}

static void read_page(struct output *o, struct page_text *t, PopplerDocument *d, uint32_t number,
                      struct state s) {
    char reason[160];
    struct extract_page p = {.number = number};
    double width = 0, height = 0;
    PopplerPage *page = poppler_document_get_page(d, (int)number - 1);
    buf_clear(&t->text);
    t->chars = t->letters = t->unknown = 0;
    if (page) poppler_page_get_size(page, &width, &height);
    if (!page) {
        outcome(&p, EXTRACT_FAILED, reason, sizeof reason, "the page is damaged");
    } else if (!(width > 0 && width <= SIDE_MAX_PT && height > 0 && height <= SIDE_MAX_PT)) {
        outcome(&p, EXTRACT_FAILED, reason, sizeof reason, "the page is %g x %g points large",
                width, height);
    } else {
        p.width_pt = (float)width;
        p.height_pt = (float)height;
        read_text(t, &p, page, s, reason, sizeof reason);
    }
    if (page) g_object_unref(page);
    output_page(o, &p, buf_bytes(&t->text), t->boxes, t->chars);
}

/* ---- the document ---- */

static void say_unreadable(struct output *o, struct bytes document, const GError *e) {
    char reason[256];
    if (sandbox_out_of_memory())
        output_death(FRAME_DEATH_MEMORY, "");
    else if (e && g_error_matches(e, POPPLER_ERROR, POPPLER_ERROR_ENCRYPTED))
        output_bad(o, FRAME_BAD_DOCUMENT, "encrypted: it opens with a password only");
    else {
        snprintf(reason, sizeof reason, "damaged beyond repair%s: %s",
                 has_end(document) ? "" : ", and cut off",
                 e ? e->message : "Poppler does not say why");
        output_bad(o, FRAME_BAD_DOCUMENT, reason);
    }
}

void pdf_read(struct output *o, struct bytes document, uint32_t first, uint32_t last) {
    GError *e = NULL;
    if (!pdf_is(document)) {
        output_bad(o, FRAME_BAD_DOCUMENT, "not a PDF: there is no %PDF- in its first 1024 bytes");
        return;
    }
    GBytes *bytes = g_bytes_new_static(document.data, document.len);
    PopplerDocument *d = poppler_document_new_from_bytes(bytes, NULL, &e);
    if (!d) {
        say_unreadable(o, document, e);
        return;
    }
    int pages = poppler_document_get_n_pages(d);
    if (pages <= 0) {
        output_bad(o, FRAME_BAD_DOCUMENT, "it has no pages");
        return;
    }
    if ((uint32_t)pages > LIMIT_EXTRACT_PAGES_IN) {
        char reason[96];
        snprintf(reason, sizeof reason, "it has %d pages; the most is %u", pages,
                 LIMIT_EXTRACT_PAGES_IN);
        output_bad(o, FRAME_BAD_LIMIT, reason);
        return;
    }
    struct page_text t = {0};
    struct state s = {.whole = has_end(document), .data = has_data()};
    if (last > (uint32_t)pages) last = (uint32_t)pages;
    output_hello(o, "pdf", "", true, (uint32_t)pages);
    for (uint32_t number = first; number <= last; number++) read_page(o, &t, d, number, s);
    output_end(o);
}
