#include "workers/encode/extract_read.h"

#include <math.h>
#include <string.h>

#include "base/err.h"
#include "base/limits.h"

#define PAGE_FIXED_BYTES 22u /* of a PAGE frame without text, reason and boxes, its type included */

void extract_reader_init(struct extract_reader *r, struct arena *a, uint64_t output_bytes) {
    *r = (struct extract_reader){.a = a, .output_bytes = output_bytes};
}

void extract_reader_fini(struct extract_reader *r) {
    buf_fini(&r->in);
    buf_fini(&r->text);
    buf_fini(&r->boxes);
}

void extract_reader_restart(struct extract_reader *r) {
    buf_clear(&r->in);
    r->hello = r->end = false;
    r->bad = 0;
    r->death = 0;
    r->said[0] = '\0';
}

void extract_reader_fail_page(struct extract_reader *r, const char *reason) {
    if (r->next >= r->pages_in) return;
    r->pages[r->next] = (struct extract_page){.number = r->next + 1,
                                              .outcome = EXTRACT_FAILED,
                                              .begin = r->chars,
                                              .end = r->chars,
                                              .reason = bytes_str(reason)};
    r->next++;
}

/* ---- pieces of a frame ---- */

static float read_f32(struct reader *in) {
    uint32_t bits = read_u32le(in);
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

static bool is_text(struct bytes b) {
    return utf8_check(b.data, b.len) == b.len && (b.len == 0 || !memchr(b.data, 0, b.len));
}

static uint32_t count_chars(struct bytes text) {
    uint32_t n = 0;
    for (size_t i = 0; i < text.len; i++) n += (((const uint8_t *)text.data)[i] & 0xc0) != 0x80;
    return n;
}

static int take_said(struct extract_reader *r, struct bytes s) {
    if (s.len > EXTRACT_REASON_BYTES || !is_text(s)) return ERR_CORRUPT;
    if (s.len > 0) memcpy(r->said, s.data, s.len);
    r->said[s.len] = '\0';
    return 0;
}

/* One of a list of words that the reader knows, as a static string; NULL: unknown. */
static const char *known(struct bytes word, const char *const *words) {
    for (; *words; words++)
        if (bytes_is(word, *words)) return *words;
    return NULL;
}

/* ---- frames ---- */

static int take_hello(struct extract_reader *r, struct reader *in) {
    static const char *const formats[] = {"pdf", "txt", NULL};
    static const char *const encodings[] = {"", "utf-8", "utf-16le", "utf-16be", "gb18030", NULL};
    if (r->hello) return ERR_CORRUPT;
    if (read_u16le(in) != FRAME_VERSION) return ERR_CORRUPT;
    bool has_boxes = read_u8(in) != 0;
    uint32_t pages_in = read_u32le(in);
    const char *format = known(read_lenbytes(in), formats);
    const char *encoding = known(read_lenbytes(in), encodings);
    if (in->bad || !format || !encoding) return ERR_CORRUPT;
    if (pages_in == 0 || pages_in > LIMIT_EXTRACT_PAGES_IN) return ERR_CORRUPT;
    r->hello = true;
    if (r->pages) /* a helper after the first has the same document */
        return pages_in == r->pages_in && has_boxes == r->has_boxes && format == r->format
                   ? 0
                   : ERR_CORRUPT;
    r->pages = arena_calloc(r->a, pages_in, sizeof *r->pages);
    if (!r->pages) return -ENOMEM;
    r->pages_in = pages_in;
    r->has_boxes = has_boxes;
    r->format = format;
    r->encoding = encoding;
    return 0;
}

static bool box_fits(const struct extract_box *b, const struct extract_page *p) {
    /* Written so that a NaN fails. */
    return b->x0 >= 0 && b->x0 <= b->x1 && b->x1 <= p->width_pt && b->y0 >= 0 && b->y0 <= b->y1 &&
           b->y1 <= p->height_pt;
}

static int take_boxes(struct extract_reader *r, struct reader *in, const struct extract_page *p,
                      uint32_t chars) {
    if (read_left(in) != (size_t)chars * FRAME_BOX_BYTES) return ERR_CORRUPT;
    if (chars == 0) return 0;
    struct extract_box *to = buf_extend(&r->boxes, (size_t)chars * sizeof *to);
    if (!to) return r->boxes.error;
    for (uint32_t i = 0; i < chars; i++) {
        to[i].x0 = read_f32(in);
        to[i].y0 = read_f32(in);
        to[i].x1 = read_f32(in);
        to[i].y1 = read_f32(in);
        if (!box_fits(&to[i], p)) return ERR_CORRUPT;
    }
    return 0;
}

static int take_page(struct extract_reader *r, struct reader *in) {
    if (!r->hello || r->next >= r->pages_in) return ERR_CORRUPT;
    struct extract_page p = {.number = read_u32le(in)};
    uint8_t outcome = read_u8(in);
    p.width_pt = read_f32(in);
    p.height_pt = read_f32(in);
    struct bytes text = read_lenbytes(in), reason = read_lenbytes(in);
    if (in->bad || p.number != r->next + 1 || outcome > EXTRACT_FAILED) return ERR_CORRUPT;
    if (!isfinite(p.width_pt) || !isfinite(p.height_pt) || p.width_pt < 0 || p.height_pt < 0)
        return ERR_CORRUPT;
    if (!is_text(text) || reason.len > EXTRACT_REASON_BYTES || !is_text(reason)) return ERR_CORRUPT;
    if (outcome == EXTRACT_FAILED && text.len > 0) return ERR_CORRUPT;
    uint32_t chars = count_chars(text);
    uint64_t more = text.len + (r->has_boxes ? (uint64_t)chars * sizeof(struct extract_box) : 0);
    if (r->text.len + r->boxes.len + more > r->output_bytes) return ERR_LIMIT;

    size_t boxes_before = r->boxes.len;
    int rc = 0;
    if (r->has_boxes)
        rc = take_boxes(r, in, &p, chars);
    else if (read_left(in) > 0)
        rc = ERR_CORRUPT;
    if (rc == 0 && reason.len > 0) {
        p.reason = bytes_of(arena_strndup(r->a, reason.data, reason.len), reason.len);
        if (!p.reason.data) rc = -ENOMEM;
    }
    if (rc == 0 && text.len > 0) rc = buf_append(&r->text, text.data, text.len);
    if (rc < 0) { /* the page is not there, so its boxes are not either */
        r->boxes.len = boxes_before;
        return rc;
    }
    p.outcome = (enum extract_outcome)outcome;
    p.begin = r->chars;
    r->chars += chars;
    p.end = r->chars;
    r->pages[r->next++] = p;
    return 0;
}

static int take_frame(struct extract_reader *r, struct bytes frame) {
    struct reader in = reader_of(frame);
    uint8_t type = read_u8(&in), kind;
    if (r->end || r->bad || r->death) return ERR_CORRUPT;
    switch (type) {
    case FRAME_HELLO: return take_hello(r, &in);
    case FRAME_PAGE: return take_page(r, &in);
    case FRAME_BAD:
        kind = read_u8(&in);
        if (r->hello || kind < FRAME_BAD_DOCUMENT || kind > FRAME_BAD_SYSTEM) return ERR_CORRUPT;
        r->bad = (enum frame_bad)kind;
        break;
    case FRAME_DEATH:
        kind = read_u8(&in);
        if (kind < FRAME_DEATH_MEMORY || kind > FRAME_DEATH_SYSCALL) return ERR_CORRUPT;
        r->death = (enum frame_death)kind;
        break;
    case FRAME_END: r->end = true; return r->hello ? 0 : ERR_CORRUPT;
    default: return ERR_CORRUPT;
    }
    struct bytes said = read_lenbytes(&in);
    return in.bad ? ERR_CORRUPT : take_said(r, said);
}

int extract_reader_feed(struct extract_reader *r, const void *data, size_t bytes) {
    int rc = buf_append(&r->in, data, bytes);
    if (rc < 0) return rc;
    uint64_t left = r->output_bytes - r->text.len - r->boxes.len;
    struct reader in = reader_of(buf_bytes(&r->in));
    size_t used = 0;
    while (rc == 0 && read_left(&in) >= 4) {
        uint32_t len = read_u32le(&in);
        if (len == 0) return ERR_CORRUPT;
        if (len > left + PAGE_FIXED_BYTES + EXTRACT_REASON_BYTES) return ERR_LIMIT;
        if (read_left(&in) < len) break;
        rc = take_frame(r, read_bytes(&in, len));
        used += 4 + (size_t)len;
    }
    if (rc < 0) return rc;
    if (used > 0) memmove(r->in.data, r->in.data + used, r->in.len - used);
    r->in.len -= used;
    return 0;
}
