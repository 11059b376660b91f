/* The sample documents, and those of PENSTOCK_DATA: every span is exactly the text in its boxes. */
#include <criterion/criterion.h>
#include <glob.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "tests/text/help.h"
#include "workers/encode/layout.h"
#include "workers/encode/unicode.h"
#include "workers/post/flat.h"
#include "workers/post/prov.h"

struct sample {
    struct arena arena;
    struct extracted x;
    struct document d;
    struct clauses cs;
    struct entities e;
    uint32_t *first; /* [chars + 1]: the byte at which a character begins */
    uint64_t spans, fragments;
};

static void sample_begin(struct sample *s, const char *path) {
    void *data;
    size_t bytes;
    struct flat flat;
    struct grammar *g;
    char err[512] = "";
    *s = (struct sample){0};
    arena_init(&s->arena, 256u << 20);
    cr_assert_eq(file_read(path, 64u << 20, &data, &bytes, err, sizeof err), 0, "%s", err);
    cr_assert_eq(extract_run(NULL, bytes_of(data, bytes), bytes_str("auto"), NULL, &s->arena, &s->x,
                             err, sizeof err),
                 0, "%s: %s", path, err);
    free(data);
    cr_assert_eq(layout_document(&s->d, &s->x, &s->arena), 0);
    struct bytes text = s->d.text;
    cr_assert_eq(clauses_split(text, &s->arena, &s->cs), 0);
    cr_assert_eq(flat_make(&flat, text, &s->cs, &s->arena), 0);
    cr_assert_eq(grammar_open(&g, err, sizeof err), 0, "%s", err);
    cr_assert_eq(entities_find(g, flat.text, GRAMMAR_EN | GRAMMAR_ZH, clauses_language(text), NULL,
                               &s->arena, &s->e, err, sizeof err),
                 0, "%s", err);
    grammar_close(g);
    flat_restore(&flat, text, &s->e);
    s->first = arena_calloc(&s->arena, s->d.chars + 1u, sizeof *s->first);
    const char *at = text.data;
    for (uint32_t i = 0; i < s->d.chars; i++) {
        s->first[i] = (uint32_t)(at - (const char *)text.data);
        unicode_next(&at);
    }
    s->first[s->d.chars] = (uint32_t)text.len;
}

static void pages_are_accounted_for(const struct sample *s, const char *path) {
    const struct document *d = &s->d;
    uint32_t behind = 0;
    cr_assert_gt(d->pages_in, 0);
    cr_assert_eq(d->pages_in, d->pages_ok + d->pages_partial + d->pages_failed, "%s", path);
    cr_assert_eq(d->n_pages, d->pages_in);
    for (uint32_t i = 0; i < d->n_pages; i++) {
        cr_assert_eq(d->pages[i].number, i + 1);
        cr_assert(d->pages[i].begin >= behind && d->pages[i].end <= d->chars);
        cr_assert(d->pages[i].outcome == EXTRACT_OK || d->pages[i].reason.len > 0);
        behind = d->pages[i].end;
    }
}

/* Nothing that a page draws is lost: each character is in the text or in a running line. */
static uint32_t drawn(struct bytes text) {
    const char *at = text.data, *end = at + text.len;
    uint32_t n = 0;
    while (at < end) n += !unicode_is_space(unicode_next(&at));
    return n;
}

static void nothing_is_lost(const struct sample *s, const char *path) {
    uint32_t running = 0;
    for (uint32_t i = 0; i < s->d.n_pages; i++) running += drawn(s->d.pages[i].running);
    cr_assert_eq(drawn(s->d.text) + running, drawn(s->x.text), "%s", path);
}

/* As the result says it. */
static void round_outwards(struct extract_box *b) {
    *b = (struct extract_box){floorf(b->x0 * 100) / 100, floorf(b->y0 * 100) / 100,
                              ceilf(b->x1 * 100) / 100, ceilf(b->y1 * 100) / 100};
}

static bool holds(const struct prov *p, const struct extract_box *b) {
    float x = (b->x0 + b->x1) / 2, y = (b->y0 + b->y1) / 2;
    return x >= p->box.x0 && x <= p->box.x1 && y >= p->box.y0 && y <= p->box.y1;
}

/* The characters of the document whose centers lie in the boxes of the span are the span's. */
static void span_is_in_its_boxes(struct sample *s, const char *path, uint32_t begin, uint32_t end) {
    const struct document *d = &s->d;
    struct prov_it it = prov_begin(d, s->first[begin], begin, end);
    struct prov p;
    uint32_t inside = 0, expected = 0, strangers = 0, stranger = 0;
    for (uint32_t i = begin; i < end; i++) {
        struct extract_box b;
        const struct document_page *page = document_page_of(d, i);
        const char *at = (const char *)d->text.data + s->first[i];
        expected += page && document_box(d, page, i, &b) && !unicode_is_space(unicode_next(&at));
    }
    while (prov_next(&it, &p)) {
        s->fragments++;
        round_outwards(&p.box);
        for (uint32_t i = p.page->begin; i < p.page->end; i++) {
            struct extract_box b;
            const char *at = (const char *)d->text.data + s->first[i];
            if (unicode_is_space(unicode_next(&at)) || !document_box(d, p.page, i, &b)) continue;
            if (!holds(&p, &b)) continue;
            bool mine = i >= p.begin && i < p.end;
            inside += mine;
            if (!mine && strangers++ == 0) stranger = i;
        }
    }
    cr_expect_eq(inside, expected, "%s: %u of %u characters of [%u, %u)", path, inside, expected,
                 begin, end);
    cr_expect_eq(strangers, 0, "%s: %u characters, the first is %u, in the boxes of [%u, %u)", path,
                 strangers, stranger, begin, end);
    s->spans++;
}

static void sample_holds(const char *path, uint32_t pages, uint32_t clauses_min,
                         uint32_t entities_min) {
    struct sample s;
    sample_begin(&s, path);
    pages_are_accounted_for(&s, path);
    nothing_is_lost(&s, path);
    if (pages) cr_assert_eq(s.d.pages_ok, pages);
    cr_assert_geq(s.cs.n, clauses_min, "%s: %u clauses", path, s.cs.n);
    cr_assert_geq(s.e.n, entities_min, "%s: %u entities", path, s.e.n);
    for (uint32_t i = 0; i < s.cs.n; i++)
        span_is_in_its_boxes(&s, path, s.cs.at[i].char_begin, s.cs.at[i].char_end);
    for (uint32_t i = 0; i < s.e.n; i++)
        span_is_in_its_boxes(&s, path, s.e.at[i].char_begin, s.e.at[i].char_end);
    fprintf(stderr,
            "%s: %u pages (%u ok, %u partial, %u failed), %u characters, %u clauses, %u "
            "entities, %llu boxes\n",
            path, s.d.pages_in, s.d.pages_ok, s.d.pages_partial, s.d.pages_failed, s.d.chars,
            s.cs.n, s.e.n, (unsigned long long)s.fragments);
    arena_fini(&s.arena);
}

Test(samples, each_span_of_the_samples_is_the_text_in_its_boxes) {
    sample_holds("examples/contract-en.pdf", 3, 30, 25);
    sample_holds("examples/contract-zh.pdf", 3, 25, 30);
}

Test(samples, each_span_of_real_contracts_is_the_text_in_its_boxes) {
    char pattern[600];
    glob_t found;
    snprintf(pattern, sizeof pattern, "%s/*.pdf", data_dir("contracts/pdf"));
    cr_assert_eq(glob(pattern, 0, NULL, &found), 0);
    for (size_t i = 0; i < found.gl_pathc; i++) sample_holds(found.gl_pathv[i], 0, 20, 5);
    globfree(&found);
}
