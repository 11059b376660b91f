/* extract.c - any bytes as what a helper says: the reader refuses them or gives a text of which
 * every page follows the one before, every character has a box on its page, and all is under the
 * limit. The first byte is the size of the pieces in which they come; a zero byte there starts a
 * second helper half way. */
#include <stdlib.h>

#include "base/limits.h"
#include "workers/encode/extract_read.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

#define OUTPUT_BYTES (1u << 20)

static void must(bool holds) {
    if (!holds) abort();
}

static void check_page(const struct extract_reader *r, uint32_t i) {
    const struct extract_page *p = &r->pages[i];
    const struct extract_box *boxes = (const struct extract_box *)(const void *)r->boxes.data;
    must(p->number == i + 1 && p->outcome <= EXTRACT_FAILED && p->begin <= p->end);
    must(p->begin == (i == 0 ? 0 : r->pages[i - 1].end) && p->end <= r->chars);
    must(p->outcome != EXTRACT_FAILED || p->begin == p->end);
    must(utf8_check(p->reason.data, p->reason.len) == p->reason.len);
    for (uint32_t c = p->begin; r->has_boxes && c < p->end; c++) {
        must(boxes[c].x0 >= 0 && boxes[c].x0 <= boxes[c].x1 && boxes[c].x1 <= p->width_pt);
        must(boxes[c].y0 >= 0 && boxes[c].y0 <= boxes[c].y1 && boxes[c].y1 <= p->height_pt);
    }
}

static void check(const struct extract_reader *r) {
    uint32_t chars = 0;
    for (size_t i = 0; i < r->text.len; i++) chars += (r->text.data[i] & 0xc0) != 0x80;
    must(chars == r->chars && utf8_check(r->text.data, r->text.len) == r->text.len);
    must(r->text.len + r->boxes.len <= OUTPUT_BYTES && r->in.len <= OUTPUT_BYTES + 1024);
    must(r->boxes.len == (r->has_boxes ? chars * sizeof(struct extract_box) : 0));
    must(r->next <= r->pages_in && r->pages_in <= LIMIT_EXTRACT_PAGES_IN);
    must(r->next == 0 ? r->chars == 0 : r->pages[r->next - 1].end == r->chars);
    for (uint32_t i = 0; i < r->next; i++) check_page(r, i);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    struct extract_reader r;
    struct arena a;
    if (bytes < 1) return 0;
    size_t step = data[0] ? data[0] : 64, restart_at = data[0] ? bytes : bytes / 2;
    arena_init(&a, 64u << 20);
    extract_reader_init(&r, &a, OUTPUT_BYTES);
    for (size_t at = 1, n; at < bytes; at += n) {
        n = bytes - at < step ? bytes - at : step;
        if (at < restart_at && at + n >= restart_at) extract_reader_restart(&r);
        if (extract_reader_feed(&r, data + at, n) != 0) break;
    }
    check(&r);
    extract_reader_fail_page(&r, "the helper is gone");
    check(&r);
    extract_reader_fini(&r);
    arena_fini(&a);
    return 0;
}
