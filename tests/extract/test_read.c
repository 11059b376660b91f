/* What the reader believes of a helper: frames made by hand, right and wrong. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "base/limits.h"
#include "tests/extract/help.h"
#include "workers/encode/extract_read.h"

static struct arena a;
static struct extract_reader r;
static struct buf said;

static void setup(void) {
    arena_init(&a, 64u << 20);
    extract_reader_init(&r, &a, 10000);
}

static void teardown(void) {
    extract_reader_fini(&r);
    buf_fini(&said);
    arena_fini(&a);
}

TestSuite(read, .init = setup, .fini = teardown);

static void put_f32(float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    buf_u32le(&said, bits);
}

static size_t begin(enum frame_type type) {
    size_t at = said.len;
    buf_u32le(&said, 0);
    buf_u8(&said, (uint8_t)type);
    return at;
}

static void end(size_t at) {
    said.data[at] = (uint8_t)(said.len - at - 4);
    said.data[at + 1] = (uint8_t)((said.len - at - 4) >> 8);
}

static void hello(unsigned version, uint32_t pages, const char *format, const char *encoding) {
    size_t at = begin(FRAME_HELLO);
    buf_u16le(&said, (uint16_t)version);
    buf_u8(&said, strcmp(format, "pdf") == 0);
    buf_u32le(&said, pages);
    buf_lenbytes(&said, bytes_str(format));
    buf_lenbytes(&said, bytes_str(encoding));
    end(at);
}

/* A page of 100 x 200 points with this box for every one of `boxes` characters. */
static void page(uint32_t number, unsigned outcome, struct bytes text, struct extract_box box,
                 uint32_t boxes) {
    size_t at = begin(FRAME_PAGE);
    buf_u32le(&said, number);
    buf_u8(&said, (uint8_t)outcome);
    put_f32(100);
    put_f32(200);
    buf_lenbytes(&said, text);
    buf_lenbytes(&said, bytes_str(outcome == EXTRACT_OK ? "" : "a reason"));
    for (uint32_t i = 0; i < boxes; i++) {
        put_f32(box.x0);
        put_f32(box.y0);
        put_f32(box.x1);
        put_f32(box.y1);
    }
    end(at);
}

static const struct extract_box fits = {1, 2, 100, 200};

/* Feeds what was said in pieces, then forgets it. */
static int feed(size_t piece) {
    int rc = 0;
    for (size_t at = 0; rc == 0 && at < said.len; at += piece)
        rc = extract_reader_feed(&r, said.data + at, said.len - at < piece ? said.len - at : piece);
    buf_clear(&said);
    return rc;
}

static void afresh(void) {
    extract_reader_fini(&r);
    extract_reader_init(&r, &a, 10000);
}

Test(read, frames_are_the_same_in_pieces_of_any_size) {
    for (size_t piece = 1; piece < 200; piece += 7) {
        afresh();
        hello(FRAME_VERSION, 3, "pdf", "");
        page(1, EXTRACT_OK, bytes_str("合同\n"), fits, 3);
        page(2, EXTRACT_FAILED, bytes_str(""), fits, 0);
        page(3, EXTRACT_PARTIAL, bytes_str("ab"), fits, 2);
        end(begin(FRAME_END));
        cr_assert_eq(feed(piece), 0, "pieces of %zu", piece);
        cr_assert(r.hello && r.end && r.next == 3 && r.chars == 5 && r.in.len == 0);
        cr_assert(bytes_is(buf_bytes(&r.text), "合同\nab"));
        cr_assert(r.pages[2].begin == 3 && r.pages[2].end == 5);
        cr_assert(bytes_is(r.pages[1].reason, "a reason") && r.pages[0].width_pt == 100);
        cr_assert(r.boxes.len == 5 * sizeof fits && memcmp(r.boxes.data, &fits, sizeof fits) == 0);
    }
}

Test(read, a_box_that_is_not_on_its_page_is_refused) {
    const struct extract_box wrong[] = {{-1, 0, 1, 1},       {0, 0, 100.5F, 1},   {0, 0, 1, 201},
                                        {5, 0, 4, 1},        {0, 5, 1, 4},        {NAN, 0, 1, 1},
                                        {0, NAN, 1, 1},      {0, 0, NAN, 1},      {0, 0, 1, NAN},
                                        {0, 0, INFINITY, 1}, {0, -INFINITY, 1, 1}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        afresh();
        hello(FRAME_VERSION, 1, "pdf", "");
        page(1, EXTRACT_OK, bytes_str("a"), wrong[i], 1);
        cr_assert_eq(feed(1000), ERR_CORRUPT, "box %zu", i);
        cr_assert(r.next == 0 && r.chars == 0 && r.text.len == 0 && r.boxes.len == 0);
    }
}

Test(read, frames_that_do_not_fit_together_are_refused) {
    for (int i = 0;; i++) {
        afresh();
        if (i > 2) hello(FRAME_VERSION, 2, "pdf", "");
        switch (i) {
        case 0: hello(FRAME_VERSION + 1, 1, "pdf", ""); break;
        case 1: hello(FRAME_VERSION, 1, "exe", ""); break;
        case 2: hello(FRAME_VERSION, LIMIT_EXTRACT_PAGES_IN + 1, "pdf", ""); break;
        case 3: hello(FRAME_VERSION, 2, "pdf", ""); break;
        case 4: page(2, EXTRACT_OK, bytes_str("a"), fits, 1); break;
        case 5: page(1, 3, bytes_str("a"), fits, 1); break;
        case 6: page(1, EXTRACT_OK, bytes_str("a"), fits, 2); break;
        case 7: page(1, EXTRACT_OK, bytes_str("ab"), fits, 1); break;
        case 8: page(1, EXTRACT_OK, bytes_str("\xff"), fits, 1); break;
        case 9: page(1, EXTRACT_OK, bytes_of("\0", 1), fits, 1); break;
        case 10: page(1, EXTRACT_FAILED, bytes_str("a"), fits, 1); break;
        case 11: end(begin((enum frame_type)9)); break;
        case 12: buf_u32le(&said, 0); break;
        case 13: end(begin(FRAME_BAD)); break;
        case 14:
            end(begin(FRAME_END));
            page(1, EXTRACT_OK, bytes_str("a"), fits, 1);
            break;
        default: return;
        }
        cr_assert_eq(feed(1000), ERR_CORRUPT, "case %d", i);
        cr_assert(r.next == 0 && r.chars == 0, "case %d", i);
    }
}

Test(read, a_page_before_hello_and_a_wrong_second_helper_are_refused) {
    page(1, EXTRACT_OK, bytes_str("a"), fits, 1);
    cr_assert_eq(feed(1000), ERR_CORRUPT);
    afresh();
    hello(FRAME_VERSION, 2, "pdf", "");
    page(1, EXTRACT_OK, bytes_str("a"), fits, 1);
    cr_assert_eq(feed(1000), 0);
    extract_reader_restart(&r);
    hello(FRAME_VERSION, 3, "pdf", "");
    cr_assert_eq(feed(1000), ERR_CORRUPT);
    extract_reader_restart(&r);
    hello(FRAME_VERSION, 2, "pdf", "");
    page(2, EXTRACT_OK, bytes_str("b"), fits, 1);
    cr_assert_eq(feed(1000), 0);
    cr_assert(bytes_is(buf_bytes(&r.text), "ab") && r.next == 2);
}

Test(read, output_beyond_the_limit_is_refused_before_it_is_held) {
    hello(FRAME_VERSION, 1, "pdf", "");
    buf_u32le(&said, 4000000000u);
    cr_assert_eq(feed(1000), ERR_LIMIT);
    afresh();
    hello(FRAME_VERSION, 2, "pdf", "");
    char text[400];
    memset(text, 'x', sizeof text);
    page(1, EXTRACT_OK, bytes_of(text, 400), fits, 400); /* 6800 bytes */
    cr_assert_eq(feed(1000), 0);
    page(2, EXTRACT_OK, bytes_of(text, 200), fits, 200); /* 3400 bytes */
    cr_assert_eq(feed(1000), ERR_LIMIT);
    cr_assert(r.next == 1 && r.chars == 400);
}
