#include "workers/extract/output.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static void write_all(const uint8_t *data, size_t bytes) {
    while (bytes > 0) {
        ssize_t n = write(STDOUT_FILENO, data, bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) _exit(1);
        data += n;
        bytes -= (size_t)n;
    }
}

static struct buf *begin(struct output *o, enum frame_type type) {
    buf_clear(&o->frame);
    buf_u32le(&o->frame, 0); /* the length, known at the end */
    buf_u8(&o->frame, (uint8_t)type);
    return &o->frame;
}

static void end(struct output *o) {
    struct buf *b = &o->frame;
    if (b->error < 0) {
        output_death(FRAME_DEATH_MEMORY, "");
        _exit(1);
    }
    uint32_t bytes = (uint32_t)(b->len - 4);
    for (int i = 0; i < 4; i++) b->data[i] = (uint8_t)(bytes >> (8 * i));
    write_all(b->data, b->len);
}

static void put_f32(struct buf *b, float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    buf_u32le(b, bits);
}

void output_hello(struct output *o, const char *format, const char *encoding, bool has_boxes,
                  uint32_t pages_in) {
    struct buf *b = begin(o, FRAME_HELLO);
    o->has_boxes = has_boxes;
    buf_u16le(b, FRAME_VERSION);
    buf_u8(b, has_boxes);
    buf_u32le(b, pages_in);
    buf_lenbytes(b, bytes_str(format));
    buf_lenbytes(b, bytes_str(encoding));
    end(o);
}

void output_page(struct output *o, const struct extract_page *p, struct bytes text,
                 const struct extract_box *boxes, uint32_t chars) {
    struct buf *b = begin(o, FRAME_PAGE);
    buf_u32le(b, p->number);
    buf_u8(b, (uint8_t)p->outcome);
    put_f32(b, p->width_pt);
    put_f32(b, p->height_pt);
    buf_lenbytes(b, text);
    buf_lenbytes(b, p->reason);
    for (uint32_t i = 0; o->has_boxes && i < chars; i++) {
        put_f32(b, boxes[i].x0);
        put_f32(b, boxes[i].y0);
        put_f32(b, boxes[i].x1);
        put_f32(b, boxes[i].y1);
    }
    end(o);
}

void output_bad(struct output *o, enum frame_bad kind, const char *reason) {
    struct buf *b = begin(o, FRAME_BAD);
    buf_u8(b, (uint8_t)kind);
    buf_lenbytes(b, bytes_str(reason));
    end(o);
}

void output_end(struct output *o) {
    begin(o, FRAME_END);
    end(o);
}

void output_death(enum frame_death cause, const char *detail) {
    uint8_t frame[10 + 64] = {0};
    size_t len = strlen(detail);
    if (len > 64) len = 64;
    frame[0] = (uint8_t)(6 + len);
    frame[4] = FRAME_DEATH;
    frame[5] = (uint8_t)cause;
    frame[6] = (uint8_t)len;
    memcpy(frame + 10, detail, len);
    write_all(frame, 10 + len);
}
