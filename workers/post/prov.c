#include "workers/post/prov.h"

#include "workers/encode/unicode.h"

struct prov_it prov_begin(const struct document *d, uint32_t text_at, uint32_t begin,
                          uint32_t end) {
    return (struct prov_it){d, (const char *)d->text.data + text_at, begin, d->boxes ? end : begin};
}

static void enclose(struct prov *p, const struct extract_box *b, uint32_t at) {
    if (p->begin == p->end) {
        p->box = *b;
        p->begin = at;
    }
    if (b->x0 < p->box.x0) p->box.x0 = b->x0;
    if (b->y0 < p->box.y0) p->box.y0 = b->y0;
    if (b->x1 > p->box.x1) p->box.x1 = b->x1;
    if (b->y1 > p->box.y1) p->box.y1 = b->y1;
    p->end = at + 1;
}

bool prov_next(struct prov_it *it, struct prov *out) {
    const struct document *d = it->document;
    *out = (struct prov){0};
    while (it->next < it->end) {
        uint32_t c = unicode_next(&it->at), at = it->next++;
        if (c == '\n' || c == '\f') {
            if (out->begin < out->end) return true;
            continue;
        }
        struct extract_box box;
        if (!out->page) out->page = document_page_of(d, at);
        if (unicode_is_space(c) || !out->page || !document_box(d, out->page, at, &box)) continue;
        enclose(out, &box, at);
    }
    return out->begin < out->end;
}
