/* Text files: the encoding is found, every character kept, and what is no text refused. */
#include <criterion/criterion.h>
#include <iconv.h>
#include <string.h>

#include "tests/extract/help.h"

static struct arena a;

static void setup(void) {
    arena_init(&a, 256u << 20);
}

static void teardown(void) {
    arena_fini(&a);
}

TestSuite(text_file, .init = setup, .fini = teardown);

static const char chinese[] = "第一条 本合同自双方签字之日起生效。\r\n甲方：青禾机械有限公司\n";

static struct bytes in_encoding(const char *text, const char *encoding) {
    size_t in_left = strlen(text), room = 4 * in_left + 16;
    char *in = (char *)(uintptr_t)text, *out = arena_alloc(&a, room), *to = out;
    iconv_t c = iconv_open(encoding, "UTF-8");
    cr_assert(out && c != (iconv_t)-1);
    cr_assert_neq(iconv(c, &in, &in_left, &to, &room), (size_t)-1);
    iconv_close(c);
    return bytes_of(out, (size_t)(to - out));
}

static struct bytes marked(const char *mark, struct bytes text) {
    uint8_t *out = arena_alloc(&a, strlen(mark) + text.len);
    memcpy(out, mark, strlen(mark));
    memcpy(out + strlen(mark), text.data, text.len);
    return bytes_of(out, strlen(mark) + text.len);
}

static void is_read(struct bytes document, const char *encoding, const char *text) {
    struct extracted x = must_extract(&a, document);
    cr_assert_str_eq(x.encoding, encoding);
    cr_assert(bytes_is(x.text, text), "%s: %.*s", encoding, (int)x.text.len,
              (const char *)x.text.data);
    cr_assert_str_eq(x.format, "txt");
    cr_assert(x.pages_in == 1 && x.pages_ok == 1 && x.boxes == NULL);
    cr_assert(x.pages[0].begin == 0 && x.pages[0].end == x.chars && x.pages[0].width_pt == 0);
}

Test(text_file, every_encoding_gives_the_same_characters) {
    is_read(bytes_str(chinese), "utf-8", chinese);
    is_read(marked("\xef\xbb\xbf", bytes_str(chinese)), "utf-8", chinese);
    is_read(marked("\xff\xfe", in_encoding(chinese, "UTF-16LE")), "utf-16le", chinese);
    is_read(marked("\xfe\xff", in_encoding(chinese, "UTF-16BE")), "utf-16be", chinese);
    is_read(in_encoding(chinese, "UTF-16LE"), "utf-16le", chinese);
    is_read(in_encoding(chinese, "UTF-16BE"), "utf-16be", chinese);
    is_read(in_encoding(chinese, "GB18030"), "gb18030", chinese);
    is_read(in_encoding(chinese, "GBK"), "gb18030", chinese);
    is_read(in_encoding("Plain text in UTF-16.\n", "UTF-16LE"), "utf-16le",
            "Plain text in UTF-16.\n");
    is_read(in_encoding("𠮷 is beyond sixteen bits", "UTF-16BE"), "utf-16be",
            "𠮷 is beyond sixteen bits");
    is_read(in_encoding("\U0001f600 & 㐂", "GB18030"), "gb18030", "\U0001f600 & 㐂");
}

Test(text_file, a_text_larger_than_a_pipe_and_a_chunk_is_whole) {
    struct buf b = {0};
    while (b.len < 3u << 20) buf_printf(&b, "%zu: %s", b.len, chinese);
    struct extracted x = must_extract(&a, buf_bytes(&b));
    cr_assert(bytes_eq(x.text, buf_bytes(&b)));
    struct bytes gb;
    buf_u8(&b, 0);
    gb = in_encoding((char *)b.data, "GB18030");
    x = must_extract(&a, gb);
    cr_assert(bytes_eq(x.text, bytes_of(b.data, b.len - 1)));
    buf_fini(&b);
}

Test(text_file, a_european_text_that_passes_for_gb18030_is_partial) {
    struct extracted x = must_extract(&a, bytes_str("r\xe9silier le march\xe9s, \x93Hello\x94s"));
    page_is(&x, 0, EXTRACT_PARTIAL, "looks like a European text");
}

Test(text_file, what_is_in_no_encoding_is_refused_with_the_byte) {
    must_refuse(&a, bytes_of("abc\xff\xff\xff", 6), NULL, ERR_CORRUPT,
                "byte 3 is not UTF-8, byte 3 not GB18030");
    must_refuse(&a, bytes_of("\xff\xfe\x00\xdc\x41\x00", 6), NULL, ERR_CORRUPT, "UTF-16: byte 2");
    must_refuse(&a, bytes_of("\xff\xfe\x41\x00\x42", 5), NULL, ERR_CORRUPT, "UTF-16: byte 4");
    must_refuse(&a,
                bytes_of("\xef\xbb\xbf"
                         "ab\xff",
                         6),
                NULL, ERR_CORRUPT, "byte 5");
    must_refuse(&a, bytes_of("text\0with\1zeros\2and\3noise\4", 26), NULL, ERR_CORRUPT,
                "byte 4 is zero");
    must_refuse(&a, bytes_str("\1\2\3\4\5\6\7 a text\1\2\3"), NULL, ERR_CORRUPT,
                "control characters");
    must_refuse(&a, bytes_of("\xff\xfe\x41\x00\x00\x00", 6), NULL, ERR_CORRUPT, "zero characters");
}

Test(text_file, other_formats_are_refused_by_name) {
    must_refuse(&a, bytes_of("PK\003\004\024\0\6\0", 8), NULL, ERR_CORRUPT, "DOCX");
    must_refuse(&a, bytes_of("\211PNG\r\n\032\n", 8), NULL, ERR_CORRUPT, "a PNG image");
    must_refuse(&a, bytes_str("{\\rtf1\\ansi text}"), NULL, ERR_CORRUPT, "an RTF document");
    must_refuse(&a, bytes_of("\xff\xfe\0\0A\0\0\0", 8), NULL, ERR_CORRUPT, "UTF-32");
}

Test(text_file, the_format_can_be_named) {
    struct extracted x;
    char err[256];
    int rc =
        extract_run(NULL, bytes_str("no PDF"), bytes_str("pdf"), NULL, &a, &x, err, sizeof err);
    cr_assert(rc == ERR_CORRUPT && strstr(err, "not a PDF: there is no %PDF-"), "%s", err);
    rc = extract_run(NULL, bytes_str("%PDF- is a mark"), bytes_str("txt"), NULL, &a, &x, err,
                     sizeof err);
    cr_assert(rc == 0 && bytes_is(x.text, "%PDF- is a mark"), "%s", err);
    rc = extract_run(NULL, bytes_str("x"), bytes_str("docx"), NULL, &a, &x, err, sizeof err);
    cr_assert(rc == ERR_CORRUPT && strstr(err, "docx is not auto, pdf or txt"), "%s", err);
}
