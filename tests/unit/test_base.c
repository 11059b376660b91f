#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/log.h"
#include "base/rng.h"

/* ---- err ---- */

Test(err, every_code_has_a_text) {
    for (int code = ERR_CANCELLED; code <= ERR_CORRUPT; code++)
        cr_assert_str_neq(err_text(code), "unknown error");
    cr_assert_str_eq(err_text(-ENOSPC), "No space left on device");
    cr_assert_str_eq(err_text(ENOSPC), "No space left on device");
    cr_assert_str_eq(err_text(-999999), "unknown error");
}

Test(err, a_sentence_is_cut_between_characters_and_stays_utf8_on_one_line) {
    char err[8];
    cr_assert_eq(err_set(err, sizeof err, -EIO, "%s", "abcde\xE5\x90\x88"), -EIO);
    cr_assert_str_eq(err, "abcde");
    err_set(err, sizeof err, -EIO, "%s", "a\xFF\nb");
    cr_assert_str_eq(err, "a? b");
    cr_assert_eq(err_set(NULL, 0, -EIO, "nobody reads this"), -EIO);
    err_set(err, 1, -EIO, "x");
    cr_assert_str_eq(err, "");
}

/* ---- clock, log ---- */

Test(clock, time_goes_forward) {
    int64_t a = clock_mono_ns(), b = clock_mono_ns();
    cr_assert_geq(b, a);
    cr_assert_gt(clock_wall_ms(), 1700000000000);
}

/* Runs one log call with stderr in a file, and reads the file. */
static size_t logged(const char *text, char *out, size_t out_bytes) {
    char path[] = "/tmp/penstock-log-XXXXXX";
    int fd = mkstemp(path), kept = dup(2);
    dup2(fd, 2);
    log_info("happened", "%s", text);
    log_debug("not_shown", "%s", text);
    dup2(kept, 2);
    close(kept);
    ssize_t n = pread(fd, out, out_bytes - 1, 0);
    close(fd);
    unlink(path);
    cr_assert_geq(n, 0);
    out[n] = '\0';
    return (size_t)n;
}

Test(log, an_event_is_one_line_whatever_it_holds) {
    char out[8192], quoted[64];
    log_init("test", LOG_INFO);
    logged(log_quote(quoted, sizeof quoted, "say \"no\"\n\x01"), out, sizeof out);
    cr_assert(strstr(out, " level=info app=test event=happened \"say \\\"no\\\"\\n\\x01\"\n"), "%s",
              out);
    cr_assert_eq(strchr(out, '\n'), out + strlen(out) - 1);
    cr_assert_eq(strncmp(out, "ts=20", 5), 0);
}

Test(log, a_long_line_is_cut_and_says_so) {
    char out[8192], *text = malloc(5000);
    memset(text, 'x', 4999);
    text[4999] = '\0';
    size_t n = logged(text, out, sizeof out);
    cr_assert_leq(n, 2048);
    cr_assert_str_eq(out + n - strlen("x cut=true\n"), "x cut=true\n");
    free(text);
}

Test(log, as_json_every_line_is_an_object_with_the_same_keys) {
    char out[8192], err[256], quoted[128];
    struct json *j = NULL;
    log_init("test", LOG_INFO);
    log_write_as(LOG_JSON);
    char text[512];
    snprintf(text, sizeof text,
             "job=01AB n=-12 big=12345678901234567890 ok=true zero=007 why=%s "
             "bad=\xff\xc3 loose empty= last=x",
             log_quote(quoted, sizeof quoted, "say \"no\" \\ \n\x01 \xc3\xa9"));
    size_t n = logged(text, out, sizeof out);
    cr_assert_eq(out[n - 1], '\n');
    cr_assert_eq(json_parse(&j, out, n - 1, err, sizeof err), 0, "%s: %s", err, out);
    cr_assert_str_eq(json_str(json_get(j, "level")), "info");
    cr_assert_str_eq(json_str(json_get(j, "event")), "happened");
    cr_assert_str_eq(json_str(json_get(j, "job")), "01AB");
    cr_assert_eq(json_int(json_get(j, "n"), 0), -12);
    cr_assert_str_eq(json_str(json_get(j, "big")), "12345678901234567890");
    cr_assert_str_eq(json_str(json_get(j, "zero")), "007");
    cr_assert(json_bool(json_get(j, "ok"), false));
    cr_assert_str_eq(json_str(json_get(j, "why")), "say \"no\" \\ \n\x01 \xc3\xa9");
    cr_assert_str_eq(json_str(json_get(j, "bad")), "\xef\xbf\xbd\xef\xbf\xbd");
    cr_assert_str_eq(json_str(json_get(j, "message")), "loose");
    cr_assert_str_eq(json_str(json_get(j, "empty")), "");
    cr_assert_str_eq(json_str(json_get(j, "last")), "x");
    json_free(j);
    log_write_as(LOG_LOGFMT);
}

Test(log, json_is_whole_whatever_is_cut) {
    char out[8192], err[256];
    uint64_t seed = 7;
    log_init("test", LOG_INFO);
    log_write_as(LOG_JSON);
    for (int round = 0; round < 60; round++) { /* below the limit of lines a second */
        char text[3000];
        size_t len = (size_t)(rng_next(&seed) % (sizeof text - 1));
        for (size_t i = 0; i < len; i++)
            text[i] = "a=\"\\ \x01\xc3\xa9\xff\n0x{}"[rng_next(&seed) % 15];
        text[len] = '\0';
        struct json *j = NULL;
        size_t n = logged(text, out, sizeof out);
        cr_assert_gt(n, 0);
        cr_assert_eq(memchr(out, '\n', n), out + n - 1);
        int e = json_parse(&j, out, n - 1, err, sizeof err);
        cr_assert(e == 0 || strstr(err, "duplicate"), "%s: %.300s", err, out);
        json_free(j);
    }
    log_write_as(LOG_LOGFMT);
}

/* What is written to stderr while fn runs. */
static size_t caught(void (*fn)(void), char *out, size_t out_bytes) {
    char path[] = "/tmp/penstock-log-XXXXXX";
    int fd = mkstemp(path), kept = dup(2);
    dup2(fd, 2);
    fn();
    dup2(kept, 2);
    close(kept);
    ssize_t n = pread(fd, out, out_bytes - 1, 0);
    close(fd);
    unlink(path);
    cr_assert_geq(n, 0);
    out[n] = '\0';
    return (size_t)n;
}

static uint32_t lines_of(const char *text, const char *what) {
    uint32_t n = 0;
    for (const char *at = text; (at = strstr(at, what)); at++) n++;
    return n;
}

static void storm(void) {
    for (int i = 0; i < 1000; i++) log_info("storm", "n=%d", i);
    log_info("calm", "n=1");
    log_flush(); /* its second is not over */
}

static void after_the_storm(void) {
    usleep(1100000);
    log_flush();
    log_flush();
    log_info("storm", "n=1000");
}

Test(log, of_one_event_so_many_lines_a_second_and_then_how_many_were_not) {
    static char out[65536];
    log_init("test", LOG_INFO);
    caught(storm, out, sizeof out);
    uint32_t lines = lines_of(out, "event=storm");
    cr_assert(lines >= LOG_LINES_A_SECOND && lines <= 5 * LOG_LINES_A_SECOND, "%u", lines);
    cr_assert_eq(lines_of(out, "event=calm"), 1, "others are not held back");
    uint32_t told = 0;
    caught(after_the_storm, out, sizeof out);
    cr_assert_eq(lines_of(out, "event=log_suppressed of=storm lines="), 1, "%s", out);
    sscanf(strstr(out, "lines="), "lines=%u", &told);
    if (lines == LOG_LINES_A_SECOND) cr_assert_eq(told, 1000 - lines);
    cr_assert(strstr(out, "event=storm n=1000\n"), "%s", out);
}

Test(log, levels_parse_and_others_are_refused) {
    enum log_level level;
    cr_assert_eq(log_level_parse("warn", &level), 0);
    cr_assert_eq(level, LOG_WARN);
    cr_assert_eq(log_level_parse("loud", &level), -EINVAL);
    enum log_format format;
    cr_assert_eq(log_format_parse("json", &format), 0);
    cr_assert_eq(format, LOG_JSON);
    cr_assert_eq(log_format_parse("xml", &format), -EINVAL);
}

Test(log, a_quoted_value_fits_any_buffer) {
    char buf[16];
    for (size_t n = 0; n <= sizeof buf; n++) {
        memset(buf, '#', sizeof buf);
        log_quote(buf, n, "\"\"\"\"\"\"\"\"\"\"\"\"");
        if (n) cr_assert_lt(strnlen(buf, n), n);
        for (size_t i = n; i < sizeof buf; i++) cr_assert_eq(buf[i], '#');
    }
}

/* ---- arena ---- */

Test(arena, an_arena_that_begins_in_memory_of_the_caller_takes_blocks_of_its_own_behind_it) {
    static _Alignas(ARENA_ALIGN) unsigned char first[1024];
    struct arena a;
    arena_init_in(&a, 1 << 20, first, sizeof first);
    unsigned char *small = arena_alloc(&a, 100), *large = arena_alloc(&a, 5000);
    cr_assert(small > first && small + 100 <= first + sizeof first);
    cr_assert(large && (large < first || large >= first + sizeof first));
    arena_reset(&a);
    cr_assert_eq(arena_alloc(&a, 100), small);
    cr_assert_null(arena_alloc(&a, 1 << 20), "the cap counts the caller's block too");
    arena_fini(&a);
    arena_fini(&a);
}

Test(arena, pointers_are_aligned_distinct_and_keep_their_bytes) {
    struct arena a;
    arena_init(&a, 8u << 20);
    uint64_t seed = 1;
    uint8_t *p[2000];
    size_t n[2000];
    for (int i = 0; i < 2000; i++) {
        n[i] = rng_next(&seed) % (i % 100 ? 300 : 100000);
        p[i] = arena_alloc(&a, n[i]);
        cr_assert_not_null(p[i]);
        cr_assert_eq((uintptr_t)p[i] % 64, 0);
        memset(p[i], i & 255, n[i]);
    }
    for (int i = 0; i < 2000; i++)
        for (size_t k = 0; k < n[i]; k++) cr_assert_eq(p[i][k], (uint8_t)(i & 255));
    arena_fini(&a);
}

Test(arena, the_cap_is_hard_and_reset_makes_room_again) {
    struct arena a;
    arena_init(&a, 1u << 20);
    for (int round = 0; round < 3; round++) {
        size_t got = 0;
        while (arena_alloc(&a, 10000)) got += 10000;
        cr_assert_leq(a.used_bytes, 1u << 20);
        cr_assert_gt(got, 700000);
        arena_reset(&a);
    }
    cr_assert_null(arena_alloc(&a, 1u << 20), "no room for the block's own head");
    cr_assert_null(arena_alloc(&a, SIZE_MAX));
    cr_assert_null(arena_calloc(&a, SIZE_MAX / 2, 3));
    cr_assert_not_null(arena_alloc(&a, 500000), "a refusal costs nothing");
    arena_fini(&a);
    arena_fini(&(struct arena){0});
}

Test(arena, text_and_zeroed_memory_are_as_asked) {
    struct arena a;
    arena_init(&a, 1u << 20);
    cr_assert_str_eq(arena_strndup(&a, "hello", 3), "hel");
    cr_assert_str_eq(arena_printf(&a, "%d-%s", 7, "x"), "7-x");
    memset(arena_alloc(&a, 1000), 0xFF, 1000);
    arena_reset(&a);
    const uint8_t *z = arena_calloc(&a, 100, 10);
    for (int i = 0; i < 1000; i++) cr_assert_eq(z[i], 0);
    arena_fini(&a);
}

/* ---- bytes ---- */

Test(bytes, fields_written_are_the_fields_read) {
    struct buf b = {0};
    buf_u8(&b, 0xAB);
    buf_u16le(&b, 0x1234);
    buf_u32le(&b, 0x89ABCDEF);
    buf_u64le(&b, 0x0123456789ABCDEF);
    buf_u64be(&b, 0x0123456789ABCDEF);
    buf_lenbytes(&b, bytes_str("text"));
    cr_assert_eq(b.len, 1 + 2 + 4 + 8 + 8 + 4 + 4);
    cr_assert_eq(
        memcmp(b.data, "\xAB\x34\x12\xEF\xCD\xAB\x89\xEF\xCD\xAB\x89\x67\x45\x23\x01\x01", 16), 0);
    struct reader r = reader_of(buf_bytes(&b));
    cr_assert_eq(read_u8(&r), 0xAB);
    cr_assert_eq(read_u16le(&r), 0x1234);
    cr_assert_eq(read_u32le(&r), 0x89ABCDEF);
    cr_assert_eq(read_u64le(&r), 0x0123456789ABCDEF);
    cr_assert_eq(read_u64be(&r), 0x0123456789ABCDEF);
    cr_assert(bytes_is(read_lenbytes(&r), "text"));
    cr_assert_not(r.bad);
    cr_assert_eq(read_left(&r), 0);
    buf_fini(&b);
}

Test(bytes, a_reader_at_its_end_is_bad_and_stays_bad) {
    struct reader r = reader_of(bytes_of("\x01\x02\x03", 3));
    cr_assert_eq(read_u32le(&r), 0);
    cr_assert(r.bad);
    cr_assert_eq(read_u8(&r), 0, "also what would fit");
    struct reader lying = reader_of(bytes_of("\xFF\xFF\xFF\xFFx", 5));
    cr_assert_null(read_lenbytes(&lying).data);
    cr_assert(lying.bad);
    struct reader none = reader_of(bytes_of(NULL, 0));
    read_bytes(&none, 0);
    cr_assert_not(none.bad);
}

Test(bytes, a_buffer_keeps_its_cap_and_its_first_error) {
    struct buf b = {.max_bytes = 100};
    for (int i = 0; i < 10; i++) cr_assert_eq(buf_append(&b, "0123456789", 10), 0);
    cr_assert_eq(buf_append(&b, "x", 1), ERR_LIMIT);
    cr_assert_eq(buf_append(&b, "", 0), ERR_LIMIT, "the error sticks");
    cr_assert_eq(b.len, 100);
    cr_assert_null(buf_extend(&b, 1));
    buf_clear(&b);
    cr_assert_eq(buf_printf(&b, "%d+%d", 1, 2), 0);
    cr_assert(bytes_is(buf_bytes(&b), "1+2"));
    buf_fini(&b);
    buf_fini(&(struct buf){0});
}

Test(bytes, a_c_string_has_no_inner_nul_and_fits) {
    char out[4];
    cr_assert_eq(bytes_to_cstr(bytes_str("abc"), out, sizeof out), 0);
    cr_assert_str_eq(out, "abc");
    cr_assert_eq(bytes_to_cstr(bytes_str("abcd"), out, sizeof out), ERR_LIMIT);
    cr_assert_eq(bytes_to_cstr(bytes_of("a\0b", 3), out, sizeof out), -EINVAL);
    cr_assert_eq(bytes_to_cstr(bytes_of(NULL, 0), out, sizeof out), 0);
}

Test(crc32c, published_answers) {
    uint8_t b[32];
    cr_assert_eq(crc32c(0, "123456789", 9), 0xE3069283);
    memset(b, 0, 32); /* RFC 3720, B.4 */
    cr_assert_eq(crc32c(0, b, 32), 0x8A9136AA);
    memset(b, 0xFF, 32);
    cr_assert_eq(crc32c(0, b, 32), 0x62A8AB43);
    for (int i = 0; i < 32; i++) b[i] = (uint8_t)i;
    cr_assert_eq(crc32c(0, b, 32), 0x46DD794E);
    cr_assert_eq(crc32c(0, NULL, 0), 0);
}

Test(crc32c, both_ways_agree_on_long_data) {
    static uint8_t data[20000];
    uint64_t rng = 3;
    for (size_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)rng_next(&rng);
    for (size_t len = 3000; len < sizeof data - 7; len += 1 + rng_next(&rng) % 97) {
        const uint8_t *at = data + rng_next(&rng) % 8;
        uint32_t begin = (uint32_t)rng_next(&rng);
        cr_assert_eq(crc32c(begin, at, len), crc32c_plain(begin, at, len), "%zu bytes", len);
    }
}

Test(crc32c, both_ways_agree_at_every_length_offset_and_cut) {
    uint8_t data[200];
    uint64_t seed = 9;
    for (size_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)rng_next(&seed);
    for (size_t from = 0; from < 9; from++)
        for (size_t len = 0; len + from <= sizeof data; len++) {
            uint32_t whole = crc32c(0, data + from, len);
            cr_assert_eq(whole, crc32c_plain(0, data + from, len));
            cr_assert_eq(whole, crc32c(crc32c(0, data + from, len / 3), data + from + len / 3,
                                       len - len / 3));
        }
}

Test(utf8, every_code_point_and_nothing_else) {
    for (uint32_t c = 0; c <= 0x110000; c++) {
        uint8_t b[4];
        size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
        for (size_t i = n; i-- > 1;) b[i] = (uint8_t)(0x80 | (c >> (6 * (n - 1 - i)) & 0x3F));
        static const uint8_t lead[] = {0, 0x00, 0xC0, 0xE0, 0xF0};
        b[0] = (uint8_t)(lead[n] | c >> (6 * (n - 1)));
        bool good = c < 0x110000 && !(c >= 0xD800 && c < 0xE000);
        cr_assert_eq(utf8_check(b, n) == n, good, "U+%X", c);
        if (n > 1) cr_assert_eq(utf8_check(b, n - 1), 0, "U+%X cut", c);
    }
}

Test(utf8, the_first_bad_byte_is_found_behind_good_ones) {
    char text[64];
    for (size_t at = 0; at < 40; at++) {
        memset(text, 'a', sizeof text);
        text[at] = (char)0x80;
        cr_assert_eq(utf8_check(text, 50), at);
    }
    cr_assert_eq(utf8_check("\xC0\x80", 2), 0, "overlong");
    cr_assert_eq(utf8_check("\xE0\x9F\xBF", 3), 0, "overlong");
    cr_assert_eq(utf8_check("\xF0\x8F\xBF\xBF", 4), 0, "overlong");
    cr_assert_eq(utf8_check(NULL, 0), 0);
}

Test(utf8, text_of_any_length_is_read_to_its_end_and_no_further) {
    for (size_t len = 1; len < 100; len++) {
        char *text = malloc(len);
        memset(text, 'x', len);
        cr_assert_eq(utf8_check(text, len), len);
        text[len - 1] = (char)0xC3; /* a character that is cut */
        cr_assert_eq(utf8_check(text, len), len - 1);
        free(text);
    }
}

Test(utf8, a_cut_never_splits_a_character) {
    struct bytes text = bytes_str("a\xC3\xA9\xE5\x90\x88\xF0\x9F\x98\x80z");
    const size_t want[] = {0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 11, 11};
    for (size_t max = 0; max < sizeof want / sizeof *want; max++)
        cr_assert_eq(utf8_cut(text, max), want[max], "at %zu", max);
}

/* ---- rng ---- */

Test(rng, philox_gives_the_published_words) {
    const struct {
        uint64_t seed, stream, position;
        uint32_t word[4];
    } kat[] = {
        {0, 0, 0, {0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8}},
        {UINT64_MAX, UINT64_MAX, UINT64_MAX, {0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD}},
        {0x299F31D0A4093822,
         0x0370734413198A2E,
         0x85A308D3243F6A88,
         {0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1}},
    };
    for (int i = 0; i < 3; i++)
        for (uint32_t w = 0; w < 4; w++)
            cr_assert_eq(rng_u32(kat[i].seed, kat[i].stream, kat[i].position, w), kat[i].word[w]);
}

Test(rng, units_lie_in_zero_to_one_and_are_even) {
    int bins[10] = {0};
    for (uint64_t i = 0; i < 100000; i++) {
        float u = rng_unit(42, 1, i);
        cr_assert(u >= 0 && u < 1);
        bins[(int)(u * 10)]++;
    }
    for (int i = 0; i < 10; i++) cr_assert(bins[i] > 9600 && bins[i] < 10400, "%d", bins[i]);
}

Test(rng, a_sequence_is_that_of_splitmix64) {
    uint64_t state = 1234567;
    cr_assert_eq(rng_next(&state), 6457827717110365317u);
    cr_assert_eq(rng_next(&state), 3203168211198807973u);
}

/* ---- file ---- */

static char *test_dir(char out[32]) {
    strcpy(out, "/tmp/penstock-file-XXXXXX");
    cr_assert_not_null(mkdtemp(out));
    return out;
}

Test(file, what_is_replaced_is_read_and_mapped) {
    char dir[32], path[64], err[256];
    snprintf(path, sizeof path, "%s/f", test_dir(dir));
    for (size_t n = 1; n < 300000; n = n * 7 + 1) {
        uint8_t *data = malloc(n);
        for (size_t i = 0; i < n; i++) data[i] = (uint8_t)(i * 31);
        cr_assert_eq(file_replace(path, data, n, err, sizeof err), 0, "%s", err);
        void *back;
        size_t bytes;
        cr_assert_eq(file_read(path, n, &back, &bytes, err, sizeof err), 0, "%s", err);
        cr_assert_eq(bytes, n);
        cr_assert_eq(memcmp(back, data, n), 0);
        cr_assert_eq(((char *)back)[n], '\0');
        struct file_map m;
        cr_assert_eq(file_map(path, &m, err, sizeof err), 0, "%s", err);
        cr_assert_eq(m.bytes, n);
        cr_assert_eq(memcmp(m.data, data, n), 0);
        file_unmap(&m);
        free(back);
        cr_assert_eq(file_read(path, n - 1, &back, &bytes, err, sizeof err), ERR_LIMIT);
        cr_assert(strstr(err, path));
        cr_assert_null(back);
        free(data);
    }
    unlink(path);
    cr_assert_eq(rmdir(dir), 0, "no temporary stays behind");
}

Test(file, failures_name_the_path_and_leave_nothing) {
    char err[256];
    void *data = (void *)1;
    size_t bytes;
    cr_assert_eq(file_read("/nowhere/x", 10, &data, &bytes, err, sizeof err), -ENOENT);
    cr_assert_null(data);
    cr_assert_str_eq(err, "cannot open /nowhere/x: No such file or directory");
    cr_assert_eq(file_replace("/nowhere/x", "a", 1, err, sizeof err), -ENOENT);
    struct file_map m;
    cr_assert_eq(file_map("/nowhere/x", &m, err, sizeof err), -ENOENT);
    cr_assert_eq(file_map("/", &m, err, sizeof err), ERR_CORRUPT);
    cr_assert_eq(file_map("/dev/null", &m, err, sizeof err), ERR_CORRUPT);
    file_unmap(&m);
}

Test(file, folders_are_made_with_their_parents_for_the_owner_only) {
    char dir[32], path[64];
    struct stat st;
    snprintf(path, sizeof path, "%s/a/b/c", test_dir(dir));
    cr_assert_eq(file_mkdirs(path), 0);
    cr_assert_eq(file_mkdirs(path), 0, "again");
    cr_assert_eq(stat(path, &st), 0);
    cr_assert_eq(st.st_mode & 0777, 0700);
    snprintf(path, sizeof path, "%s/f", dir);
    cr_assert_eq(file_replace(path, "", 0, NULL, 0), 0);
    cr_assert_eq(file_mkdirs(path), -ENOTDIR);
    cr_assert_lt(file_mkdirs(""), 0);
}

/* ---- hash ---- */

Test(hash, a_name_is_of_the_parts_and_of_where_they_end) {
    const struct bytes one[] = {bytes_str("ab"), bytes_str("c")};
    const struct bytes other[] = {bytes_str("a"), bytes_str("bc")};
    const struct bytes none[] = {bytes_of(NULL, 0), bytes_str("abc")};
    char a[HASH_HEX_BYTES], b[HASH_HEX_BYTES], c[HASH_HEX_BYTES];
    hash_hex(one, 2, a);
    hash_hex(one, 2, b);
    cr_assert_str_eq(a, b);
    cr_assert_eq(strspn(a, "0123456789abcdef"), HASH_HEX_BYTES - 1);
    hash_hex(other, 2, b);
    hash_hex(none, 2, c);
    cr_assert_str_neq(a, b);
    cr_assert_str_neq(a, c);
}
