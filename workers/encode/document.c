#include "workers/encode/document.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/err.h"
#include "workers/encode/unicode.h"

#define PAGE_ITEMS 8u /* of a packed page */
#define BOX_BYTES 8u
#define BOX_STEPS 65535.0f

static uint32_t form_feeds(struct bytes text) {
    const char *at = text.data, *end = at + text.len;
    uint32_t n = 0;
    while (at < end && (at = memchr(at, '\f', (size_t)(end - at)))) n++, at++;
    return n;
}

void document_of_text(struct document *out, struct bytes text) {
    *out = (struct document){.format = bytes_str("text"), .text = text};
    out->chars = (uint32_t)unicode_count(text);
    out->pages_in = out->pages_ok = form_feeds(text) + 1;
}

const char *document_outcome_name(enum extract_outcome o) {
    static const char *const names[] = {"ok", "partial", "failed"};
    return names[o];
}

const struct document_page *document_page_of(const struct document *d, uint32_t at) {
    uint32_t low = 0, high = d->n_pages; /* the first page that ends behind it */
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (d->pages[middle].end > at)
            high = middle;
        else
            low = middle + 1;
    }
    return low < d->n_pages && d->pages[low].begin <= at ? &d->pages[low] : NULL;
}

/* ---- boxes ---- */

static void put_step(uint8_t *to, float at, float of) {
    float steps = of > 0 ? roundf(at / of * BOX_STEPS) : 0;
    uint16_t v = steps <= 0 ? 0 : steps >= BOX_STEPS ? UINT16_MAX : (uint16_t)steps;
    to[0] = (uint8_t)v;
    to[1] = (uint8_t)(v >> 8);
}

void document_put_box(uint8_t to[8], const struct extract_box *box, float width_pt,
                      float height_pt) {
    put_step(to, box->x0, width_pt);
    put_step(to + 2, box->y0, height_pt);
    put_step(to + 4, box->x1, width_pt);
    put_step(to + 6, box->y1, height_pt);
}

bool document_box(const struct document *d, const struct document_page *page, uint32_t at,
                  struct extract_box *out) {
    if (!d->boxes) return false;
    struct reader r = reader_of(bytes_of(d->boxes + (size_t)at * BOX_BYTES, BOX_BYTES));
    uint16_t v[4];
    for (int k = 0; k < 4; k++) v[k] = read_u16le(&r);
    if (!(v[0] | v[1] | v[2] | v[3])) return false;
    float x = page->width_pt / BOX_STEPS, y = page->height_pt / BOX_STEPS;
    *out = (struct extract_box){(float)v[0] * x, (float)v[1] * y, (float)v[2] * x, (float)v[3] * y};
    return true;
}

/* ---- packed ---- */

static void kv_bytes(struct packer *p, const char *key, struct bytes v) {
    pack_str(p, key);
    pack_strn(p, v);
}

void document_pack(struct packer *p, const struct document *d) {
    pack_map(p, 6);
    kv_bytes(p, "format", d->format);
    kv_bytes(p, "encoding", d->encoding);
    kv_bytes(p, "text", d->text);
    pack_kv_u64(p, "pages_in", d->pages_in);
    pack_str(p, "pages");
    pack_array(p, d->n_pages);
    for (uint32_t i = 0; i < d->n_pages; i++) {
        const struct document_page *page = &d->pages[i];
        pack_array(p, PAGE_ITEMS);
        pack_u64(p, page->number);
        pack_u64(p, page->outcome);
        pack_f32(p, page->width_pt);
        pack_f32(p, page->height_pt);
        pack_u64(p, page->begin);
        pack_u64(p, page->end);
        pack_strn(p, page->reason);
        pack_strn(p, page->running);
    }
    pack_str(p, "boxes");
    pack_bin(p, bytes_of(d->boxes, d->boxes ? (size_t)d->chars * BOX_BYTES : 0));
}

static bool is_size(float pt) {
    return pt >= 0 && pt <= 1e6f; /* NaN is not */
}

/* behind: where the page before ended. */
static bool read_page(struct document_page *page, const struct pack_val *v, uint32_t chars,
                      uint32_t behind) {
    uint64_t n[PAGE_ITEMS];
    for (uint32_t k = 0; k < PAGE_ITEMS; k++) n[k] = pack_as_u64(pack_at(v, k), UINT64_MAX);
    *page = (struct document_page){
        .number = (uint32_t)n[0],
        .outcome = (enum extract_outcome)n[1],
        .width_pt = (float)pack_as_f64(pack_at(v, 2), -1),
        .height_pt = (float)pack_as_f64(pack_at(v, 3), -1),
        .begin = (uint32_t)n[4],
        .end = (uint32_t)n[5],
        .reason = pack_as_bytes(pack_at(v, 6)),
        .running = pack_as_bytes(pack_at(v, 7)),
    };
    return n[0] <= UINT32_MAX && n[1] <= EXTRACT_FAILED && is_size(page->width_pt) &&
           is_size(page->height_pt) && n[4] >= behind && n[4] <= n[5] && n[5] <= chars;
}

int document_read(struct document *out, const struct pack_val *v, struct arena *a, char *err,
                  size_t err_bytes) {
    const struct pack_val *list = pack_get(v, "pages"), *text = pack_get(v, "text");
    struct bytes boxes = pack_as_bytes(pack_get(v, "boxes"));
    uint32_t n = pack_len(list), counts[3] = {0};
    uint64_t pages_in = pack_as_u64(pack_get(v, "pages_in"), 0);
    *out = (struct document){.format = pack_as_bytes(pack_get(v, "format")),
                             .encoding = pack_as_bytes(pack_get(v, "encoding")),
                             .text = pack_as_bytes(text),
                             .n_pages = n,
                             .pages_in = (uint32_t)pages_in};
    if (pack_kind(text) != PACK_STR || out->text.len > UINT32_MAX)
        return err_set(err, err_bytes, ERR_CORRUPT, "document: it has no text");
    out->chars = (uint32_t)unicode_count(out->text);
    if (boxes.len > 0 && (boxes.len != (size_t)out->chars * BOX_BYTES || n == 0))
        return err_set(err, err_bytes, ERR_CORRUPT,
                       "document: %zu bytes of boxes for %u characters", boxes.len, out->chars);
    if (pages_in == 0 || pages_in > UINT32_MAX || (n > 0 && n != pages_in))
        return err_set(err, err_bytes, ERR_CORRUPT, "document: %u of %llu pages", n,
                       (unsigned long long)pages_in);
    struct document_page *pages = arena_calloc(a, n + 1, sizeof *pages);
    if (!pages) return err_set(err, err_bytes, -ENOMEM, "no memory for %u pages", n);
    for (uint32_t i = 0, behind = 0; i < n; behind = pages[i++].end) {
        if (!read_page(&pages[i], pack_at(list, i), out->chars, behind))
            return err_set(err, err_bytes, ERR_CORRUPT, "document: page %u is not in the text",
                           i + 1);
        counts[pages[i].outcome]++;
    }
    out->pages = pages;
    out->boxes = boxes.len ? boxes.data : NULL;
    out->pages_ok = n ? counts[EXTRACT_OK] : out->pages_in;
    out->pages_partial = counts[EXTRACT_PARTIAL];
    out->pages_failed = counts[EXTRACT_FAILED];
    return 0;
}
