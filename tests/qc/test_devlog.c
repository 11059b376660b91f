#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/limits.h"
#include "base/rng.h"
#include "tests/qc/help.h"
#include "workers/encode/devlog.h"
#include "workers/encode/devlog_csv.h"
#include "workers/encode/devlog_time.h"
#include "workers/encode/devlog_words.h"

static struct arena arena;
static void begin(void) {
    arena_init(&arena, 1u << 28);
}
static void end(void) {
    arena_fini(&arena);
}
TestSuite(devlog, .init = begin, .fini = end);

static struct devlog parse_as(const char *text, size_t len, enum devlog_format format) {
    struct devlog d;
    char err[256] = "";
    cr_assert_eq(devlog_parse(bytes_of(text, len), format, &arena, &d, err, sizeof err), 0, "%s",
                 err);
    return d;
}
static struct devlog parse(const char *text) {
    return parse_as(text, strlen(text), DEVLOG_AUTO);
}

static void template_is(const struct devlog *d, uint32_t event, const char *text) {
    cr_assert_lt(event, d->n_events);
    uint32_t t = d->events[event].template_i;
    cr_assert_neq(t, DEVLOG_NO_TEMPLATE);
    cr_assert(bytes_is(d->templates[t].text, text), "\"%.*s\" instead of \"%s\"",
              (int)d->templates[t].text.len, (const char *)d->templates[t].text.data, text);
}

static const struct devlog_feature *reading(const struct devlog *d, const char *name) {
    const struct devlog_feature *f = devlog_feature(d, bytes_str(name));
    cr_assert_not_null(f, "no reading %s", name);
    return f;
}

/* ---- times ---- */

Test(devlog, times_of_many_kinds_are_milliseconds_since_1970) {
    static const struct {
        const char *text;
        int64_t ms;
        size_t len; /* 0: all of it */
    } times[] = {
        {"1970-01-01T00:00:00Z", 0, 0},
        {"2026-01-02T03:04:05.678Z", 1767323045678, 0},
        {"2026-01-02T03:04:05.678901+08:00", 1767294245678, 0},
        {"2026-01-02 03:04:05,6", 1767323045600, 0},
        {"2026-01-02 03:04:05 +0800 x", 1767294245000, 25},
        {"2026/01/02 03:04", 1767323040000, 0},
        {"02.01.2026 03:04:05", 1767323045000, 0},
        {"20260102T030405", 1767323045000, 0},
        {"20260102 030405.250", 1767323045250, 0},
        {"1767323045", 1767323045000, 0},
        {"1767323045.5 start", 1767323045500, 12},
        {"1767323045678", 1767323045678, 0},
        {"2024-02-29", 1709164800000, 0},
        {"2000-12-31 23:59:60", 978307200000, 0},
        {"03:04:05.678", DEVLOG_NO_TIME, 0},
        {"Jan  2 03:04:05 host", DEVLOG_NO_TIME, 15},
    };
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        int64_t ms;
        size_t want = times[i].len ? times[i].len : strlen(times[i].text);
        size_t len = devlog_time(times[i].text, strlen(times[i].text), &ms);
        cr_assert_eq(len, want, "%s: %zu bytes", times[i].text, len);
        cr_assert_eq(ms, times[i].ms, "%s: %lld", times[i].text, (long long)ms);
    }
}

Test(devlog, what_is_no_time_is_not_taken_for_one) {
    static const char *const texts[] = {
        "",           "2026",         "2026-13-01", "2026-02-30",     "2025-02-29", "26-01-02",
        "20260102",   "123456789012", "25:00:00",   "12:60",          "1.2.2026",   "2026-01/02",
        "9999999999", "0000000000",   "12:30x",     "Foo 12 01:02:03"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        int64_t ms;
        cr_assert_eq(devlog_time(texts[i], strlen(texts[i]), &ms), 0, "%s", texts[i]);
        cr_assert_eq(ms, DEVLOG_NO_TIME);
    }
}

Test(devlog, every_day_of_two_centuries_counts_one_more) {
    static const int length[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int64_t day = 0, ms;
    char text[32];
    for (int y = 1970; y <= 2100; y++)
        for (int m = 1; m <= 12; m++) {
            bool leap = m == 2 && y % 4 == 0 && (y % 100 != 0 || y % 400 == 0);
            for (int d = 1; d <= length[m - 1] + leap; d++, day++) {
                snprintf(text, sizeof text, "%04d-%02d-%02d", y, m, d);
                cr_assert_eq(devlog_time(text, 10, &ms), 10, "%s", text);
                cr_assert_eq(ms, day * 86400000, "%s", text);
            }
        }
}

/* ---- words ---- */

Test(devlog, what_varies_is_masked_and_words_stay) {
    static const char *const cases[][2] = {
        {"axis 3 following error 0.42mm", "axis <num> following error <num>mm"},
        {"temp=71.5C limit: 80", "temp=<num>C limit: <num>"},
        {"job SN20261123-0041 (R12) done.", "job <id> (R<num>) done."},
        {"read /var/log/x.txt from 10.0.0.7:502", "read <path> from <ip>"},
        {"C:\\data\\a.csv \"http://host/a?b=1\"", "<path> \"<path>\""},
        {"id 550e8400-e29b-41d4-a716-446655440000 reg 0x1F3A crc 9f86d081",
         "id <id> reg <hex> crc <hex>"},
        {"cycle 1,234.5 of 12/34 at 10:32:07", "cycle <num> of <num> at <time>"},
        {"done 2026-01-02 03:04:05 ok", "done <time> ok"},
        {"真空 过低 -41.3kPa", "真空 过低 <num>kPa"},
        {"plain words, no number!", "plain words, no number!"},
        {"  spaces\tand   tabs ", "spaces and tabs"},
        {"-5 +3 1e9 2.5e-3 .5", "<num> <num> <num> <num> <num>"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct devlog_words w = {.len = 0};
        devlog_words(&w, bytes_str(cases[i][0]));
        cr_assert(bytes_is(bytes_of(w.text, w.len), cases[i][1]), "\"%.*s\" instead of \"%s\"",
                  (int)w.len, w.text, cases[i][1]);
    }
}

Test(devlog, lines_that_differ_in_values_share_a_template_and_its_id) {
    struct devlog d = parse("INFO picked R1 from F12 at -64.3kPa\n"
                            "INFO picked R22 from F3 at -9.25kPa\n"
                            "WARN low vacuum\n");
    cr_assert_eq(d.n_templates, 2);
    cr_assert_eq(d.events[0].template_i, d.events[1].template_i);
    cr_assert_eq(d.templates[0].count, 2);
    cr_assert(d.templates[0].first_event == 0 && d.templates[0].last_event == 1);
    struct devlog other = parse("x\n2026-01-02 03:04:05 INFO picked R9 from F1 at -1kPa\n");
    cr_assert_eq(other.templates[1].id, d.templates[0].id);
}

Test(devlog, severity_is_known_by_its_words) {
    struct devlog d =
        parse("[ERROR] x\nwarning: y\nall fine\n伺服 报警 17\nalarm 3 raised\nerrors 0\n");
    static const enum devlog_severity expected[] = {DEVLOG_ERROR, DEVLOG_WARNING, DEVLOG_PLAIN,
                                                    DEVLOG_ERROR, DEVLOG_ERROR,   DEVLOG_PLAIN};
    for (uint32_t i = 0; i < 6; i++)
        cr_assert_eq(d.templates[d.events[i].template_i].severity, expected[i], "%u", i);
}

/* ---- text ---- */

Test(devlog, a_text_log_gives_times_lines_and_readings) {
    struct devlog d =
        parse("\xEF\xBB\xBF[2026-01-02 03:04:05.500] INFO spindle speed=1200rpm load: 41%\r\n"
              "\r\n"
              "2026-01-02 03:04:07 INFO spindle speed=1350.5rpm load:38.5%\r\n"
              "no time here, speed = 7\n");
    cr_assert(d.format == DEVLOG_TEXT && d.lines == 4 && d.n_events == 3 && d.malformed == 0);
    cr_assert(d.events[1].line == 3 && d.events[1].time_ms == 1767323047000);
    cr_assert_eq(d.events[2].time_ms, DEVLOG_NO_TIME);
    cr_assert(d.time_first_ms == 1767323045500 && d.time_last_ms == 1767323047000);
    const struct devlog_feature *f = reading(&d, "speed");
    cr_assert(f->count == 2 && f->min == 1200 && f->max == 1350.5 && f->last == 1350.5);
    cr_assert(f->min_event == 0 && f->max_event == 1 && f->sum == 2550.5);
    cr_assert_eq(reading(&d, "load")->last, 38.5);
    template_is(&d, 0, "INFO spindle speed=<num>rpm load: <num>%");
}

/* ---- CSV ---- */

static const char *csv_fields(const char *text, char delimiter) {
    static char out[1024];
    struct csv *c = arena_alloc(&arena, sizeof *c);
    int got;
    out[0] = '\0';
    csv_init(c, bytes_str(text), delimiter);
    while ((got = csv_next(c)) >= 0) {
        size_t n = strlen(out);
        snprintf(out + n, sizeof out - n, "%u%s", c->line, got ? ":" : "!");
        for (uint32_t i = 0; got && i < c->n; i++) {
            n = strlen(out);
            snprintf(out + n, sizeof out - n, "[%.*s]", (int)c->field[i].len,
                     (const char *)c->field[i].data);
        }
        strcat(out, " ");
    }
    return out;
}

Test(devlog, csv_is_read_as_rfc_4180_says) {
    cr_assert_str_eq(csv_fields("a,b,c\r\n1,2,3\r\n", ','), "1:[a][b][c] 2:[1][2][3] ");
    cr_assert_str_eq(csv_fields("a,\"b,\"\"x\"\"\r\ny\",c\n1,,\n", ','),
                     "1:[a][b,\"x\"\r\ny][c] 3:[1][][] ");
    cr_assert_str_eq(csv_fields("\"\",x", ','), "1:[][x] ");
    cr_assert_str_eq(csv_fields("a;b\n1,5;2\n", ';'), "1:[a][b] 2:[1,5][2] ");
    cr_assert_str_eq(csv_fields("one\n", ','), "1:[one] ");
}

Test(devlog, a_stray_quote_costs_one_line) {
    cr_assert_str_eq(csv_fields("a,b\n1,\"open\n2,3\n4,5\n", ','),
                     "1:[a][b] 2! 3:[2][3] 4:[4][5] ");
    cr_assert_str_eq(csv_fields("a,b\n1,\"x\"y\n2,3\n", ','), "1:[a][b] 2! 3:[2][3] ");
    cr_assert_str_eq(csv_fields("a,b\n1,x\"y\n2,3\n", ','), "1:[a][b] 2! 3:[2][3] ");
}

Test(devlog, a_csv_log_gives_readings_by_column_and_words_by_name) {
    struct devlog d = parse("time,Air temperature [K],state,message\n"
                            "2026-01-02T03:04:05Z,298.1,run,\"all, fine\"\n"
                            "2026-01-02T03:04:06Z,299.4,stop,\"door open\"\n"
                            "2026-01-02T03:04:07Z,1,2\n"
                            "garbage\n"
                            "2026-01-02T03:04:08Z,,run,\"all, fine\"\n");
    cr_assert(d.format == DEVLOG_CSV && d.n_events == 5 && d.malformed == 2 && d.lines == 6);
    const struct devlog_feature *f = reading(&d, "Air temperature [K]");
    cr_assert(f->count == 2 && f->min == 298.1 && f->max == 299.4);
    template_is(&d, 0, "state=run all, fine");
    template_is(&d, 1, "state=stop door open");
    template_is(&d, 3, "garbage");
    cr_assert_eq(d.events[4].time_ms, 1767323048000);
    cr_assert_eq(d.events[4].line, 6);
}

Test(devlog, other_delimiters_and_missing_headers_are_known) {
    struct devlog d = parse("a;b\n1,5;x\n2;y\n");
    cr_assert_eq(d.format, DEVLOG_CSV);
    cr_assert_eq(reading(&d, "a")->last, 2);
    d = parse("a\tb\n1\t2\n3\t4\n");
    cr_assert_eq(reading(&d, "b")->max, 4);
    static const char bare[] = "1,x\n2,y\n";
    d = parse_as(bare, sizeof bare - 1, DEVLOG_CSV);
    cr_assert_eq(reading(&d, "c1")->count, 2);
    template_is(&d, 1, "c2=y");
}

Test(devlog, text_with_commas_is_no_csv) {
    struct devlog d =
        parse("2026-01-02 03:04:05,123 INFO a, b\n2026-01-02 03:04:06,456 INFO c, d\n");
    cr_assert(d.format == DEVLOG_TEXT && d.n_events == 2 && d.malformed == 0);
    d = parse("Started, all axes homed\n12 parts, 3 rejects, door closed, ok\nStopped\n");
    cr_assert_eq(d.format, DEVLOG_TEXT);
}

/* ---- JSON lines ---- */

Test(devlog, json_lines_give_members_as_readings_and_words) {
    struct devlog d =
        parse("{\"ts\": 1767323045678, \"level\": \"ERROR\", \"msg\": \"servo 2 overload\", "
              "\"axis\": {\"load\": 93.5, \"name\": \"X\"}, \"ok\": false, \"list\": [1, 2], "
              "\"n\": null}\n"
              "{\"time\": \"2026-01-02T03:04:06Z\", \"axis\": {\"load\": \"17\"}}\n"
              "{broken\n"
              "[1, 2]\n"
              "{\"a\": 1, \"a\": 2}\n");
    cr_assert(d.format == DEVLOG_JSONL && d.n_events == 5);
    cr_assert_eq(d.malformed, 3);
    cr_assert_eq(d.events[0].time_ms, 1767323045678);
    cr_assert_eq(d.events[1].time_ms, 1767323046000);
    const struct devlog_feature *f = reading(&d, "axis.load");
    cr_assert(f->count == 2 && f->max == 93.5 && f->last == 17);
    template_is(&d, 0, "ERROR servo <num> overload axis.name=X ok=false");
    cr_assert_eq(d.events[1].template_i, DEVLOG_NO_TEMPLATE);
    template_is(&d, 2, "{broken");
}

Test(devlog, a_json_time_of_any_length_is_no_harm) {
    char text[400];
    for (int digits = 1; digits < 300; digits += 7) {
        int n = snprintf(text, sizeof text, "{\"ts\": ");
        memset(text + n, '7', (size_t)digits);
        snprintf(text + n + digits, sizeof text - (size_t)(n + digits), ".25, \"time\": -1e%d}\n",
                 digits);
        struct devlog d = parse(text);
        cr_assert_eq(d.n_events, 1);
        cr_assert_eq(d.events[0].time_ms, DEVLOG_NO_TIME);
    }
}

Test(devlog, a_deep_or_wide_json_line_is_survived) {
    struct buf b = {0};
    for (int i = 0; i < 3000; i++) buf_printf(&b, "{\"a\":");
    buf_printf(&b, "1");
    for (int i = 0; i < 3000; i++) buf_printf(&b, "}");
    buf_printf(&b, "\n{");
    for (int i = 0; i < 1000; i++) buf_printf(&b, "%s\"k%d\":%d", i ? "," : "", i, i);
    buf_printf(&b, "}\n");
    struct devlog d = parse_as((char *)b.data, b.len, DEVLOG_AUTO);
    cr_assert_eq(d.n_events, 2);
    cr_assert_eq(d.n_features, LIMIT_DEVLOG_FEATURES);
    cr_assert_eq(d.readings_left_out, 1000 - LIMIT_DEVLOG_FEATURES);
    buf_fini(&b);
}

/* ---- caps and noise ---- */

static void is_sound(const struct devlog *d, size_t bytes) {
    cr_assert_leq(d->n_events, LIMIT_DEVLOG_LINES);
    cr_assert_leq(d->n_templates, LIMIT_DEVLOG_TEMPLATES);
    cr_assert_leq(d->n_features, LIMIT_DEVLOG_FEATURES);
    cr_assert_leq(d->lines, bytes + 1);
    uint64_t counted = 0;
    for (uint32_t i = 0; i < d->n_events; i++) {
        const struct devlog_event *e = &d->events[i];
        cr_assert_leq(e->text.len, LIMIT_DEVLOG_LINE_BYTES);
        cr_assert_eq(utf8_check(e->text.data, e->text.len), e->text.len);
        cr_assert(e->template_i == DEVLOG_NO_TEMPLATE || e->template_i < d->n_templates);
        cr_assert(i == 0 || e->line > d->events[i - 1].line);
    }
    for (uint32_t i = 0; i < d->n_templates; i++) {
        const struct devlog_template *t = &d->templates[i];
        cr_assert_eq(utf8_check(t->text.data, t->text.len), t->text.len);
        cr_assert(t->count > 0 && t->first_event <= t->last_event && t->last_event < d->n_events);
        counted += t->count;
    }
    cr_assert_leq(counted, d->n_events);
    for (uint32_t i = 0; i < d->n_features; i++) {
        const struct devlog_feature *f = &d->features[i];
        cr_assert(f->count > 0 && f->min <= f->max && f->last >= f->min && f->last <= f->max);
        cr_assert(f->min_event < d->n_events && f->max_event < d->n_events);
        cr_assert_eq(utf8_check(f->name.data, f->name.len), f->name.len);
    }
}

Test(devlog, binary_noise_is_counted_and_kept_as_text) {
    uint64_t seed = test_seed();
    for (int round = 0; round < 30; round++) {
        size_t len = (size_t)(rng_next(&seed) % 20000);
        char *noise = arena_alloc(&arena, len + 1);
        for (size_t i = 0; i < len; i++) noise[i] = (char)rng_next(&seed);
        if (round % 3 == 1 && len > 0) noise[0] = '{';
        for (int f = DEVLOG_AUTO; f <= DEVLOG_JSONL; f++) {
            struct devlog d = parse_as(noise, len, (enum devlog_format)f);
            is_sound(&d, len);
            if (len > 1000) cr_assert_gt(d.malformed, 0);
        }
        arena_reset(&arena);
    }
}

Test(devlog, a_mebibyte_of_the_worst_is_parsed_in_good_time) {
    static const char *const worst[] = {"\xFF", "\xE4\xB8", "\n",  "a=1 ", "\"",    "\",",
                                        "{",    "1,",       "x\n", "=",    "<num>", "é"};
    size_t len = LIMIT_BODY_BYTES;
    char *text = malloc(len);
    for (size_t w = 0; w < sizeof worst / sizeof *worst; w++)
        for (int f = DEVLOG_TEXT; f <= DEVLOG_JSONL; f++) {
            size_t n = strlen(worst[w]);
            for (size_t i = 0; i < len; i++) text[i] = worst[w][i % n];
            int64_t began = clock_mono_ms();
            struct devlog d = parse_as(text, len, (enum devlog_format)f);
            cr_assert_lt(clock_mono_ms() - began, 20000, "case %zu as %d", w, f);
            is_sound(&d, len);
            arena_reset(&arena);
        }
    free(text);
}

Test(devlog, what_is_beyond_a_cap_is_counted) {
    struct buf b = {0};
    for (uint32_t i = 0; i < LIMIT_DEVLOG_LINES + 10; i++) buf_append(&b, "x\n", 2);
    struct devlog d = parse_as((char *)b.data, b.len, DEVLOG_AUTO);
    cr_assert(d.n_events == LIMIT_DEVLOG_LINES && d.events_left_out == 10);
    buf_clear(&b);
    for (uint32_t i = 0; i < LIMIT_DEVLOG_TEMPLATES + 7; i++) {
        char word[9] = {0};
        for (uint32_t k = 0, v = i; k < 8; k++, v /= 4) word[k] = "wxyz"[v % 4];
        buf_printf(&b, "%s\n", word);
    }
    d = parse_as((char *)b.data, b.len, DEVLOG_AUTO);
    cr_assert(d.n_templates == LIMIT_DEVLOG_TEMPLATES && d.words_left_out == 7);
    buf_clear(&b);
    for (int i = 0; i < 3000; i++) buf_printf(&b, "é ");
    d = parse_as((char *)b.data, b.len, DEVLOG_AUTO);
    cr_assert(d.lines_cut == 1 && d.events[0].text.len <= LIMIT_DEVLOG_LINE_BYTES);
    is_sound(&d, b.len);
    buf_fini(&b);
}

Test(devlog, an_empty_log_and_one_that_is_too_large_have_answers) {
    struct devlog d = parse("");
    cr_assert(d.n_events == 0 && d.lines == 0);
    d = parse("\n \t\r\n\n");
    cr_assert(d.n_events == 0 && d.lines == 3);
    char err[256];
    char *large = calloc(1, LIMIT_BODY_BYTES + 1);
    int code = devlog_parse(bytes_of(large, LIMIT_BODY_BYTES + 1), DEVLOG_AUTO, &arena, &d, err,
                            sizeof err);
    free(large);
    cr_assert_eq(code, ERR_LIMIT);
    cr_assert(strstr(err, "it may have"), "%s", err);
    arena_fini(&arena);
    arena_init(&arena, 4096);
    cr_assert_eq(devlog_parse(bytes_str("x"), DEVLOG_AUTO, &arena, &d, err, sizeof err), -ENOMEM);
}

Test(devlog, the_maintenance_data_is_read_whole) {
    char path[700];
    snprintf(path, sizeof path, "%s/ai4i2020_first8000.csv", data_dir("logs"));
    struct bytes file = file_of(&arena, path);
    struct devlog d = parse_as(file.data, file.len, DEVLOG_AUTO);
    cr_assert(d.format == DEVLOG_CSV && d.n_events == 8000 && d.malformed == 0);
    const struct devlog_feature *torque = reading(&d, "Torque [Nm]");
    cr_assert(torque->count == 8000 && torque->min > 0 && torque->max < 100);
    cr_assert_lt(d.n_templates, 20);
}

/* ---- encodings ---- */

/* UTF-16 of ASCII and of one pressure sign; big: the high byte first. */
static size_t widen(const char *text, bool mark, bool big, char *out) {
    size_t n = 0;
    if (mark) out[n++] = big ? '\xFE' : '\xFF', out[n++] = big ? '\xFF' : '\xFE';
    for (const char *s = text; *s; s++) {
        out[n + big] = *s;
        out[n + !big] = 0;
        n += 2;
    }
    return n;
}

Test(devlog, utf_16_with_and_without_its_mark_reads_as_utf_8_does) {
    const char *text = "axis 1 following error 0.3mm\r\nspindle stopped, pressure=4.2\r\n";
    char wide[256];
    for (int mark = 0; mark < 2; mark++)
        for (int big = 0; big < 2; big++) {
            struct devlog d = parse_as(wide, widen(text, mark, big, wide), DEVLOG_AUTO);
            cr_assert(d.n_events == 2 && d.malformed == 0);
            template_is(&d, 0, "axis <num> following error <num>mm");
            const struct devlog_feature *f = devlog_feature(&d, bytes_str("pressure"));
            cr_assert(f && f->last > 4.19 && f->last < 4.21);
        }
    size_t cut = widen(text, true, false, wide) - 1; /* half a character at its end */
    struct devlog d = parse_as(wide, cut, DEVLOG_TEXT);
    is_sound(&d, cut);
    cr_assert_gt(d.malformed, 0);
}

Test(devlog, gb18030_reads_as_utf_8_does) {
    struct devlog same = parse("主轴过载报警\n温度=71.5\n"); /* spindle overload, a temperature */
    struct devlog d =
        parse("\xD6\xF7\xD6\xE1\xB9\xFD\xD4\xD8\xB1\xA8\xBE\xAF\n\xCE\xC2\xB6\xC8=71.5\n");
    cr_assert(d.n_events == 2 && d.malformed == 0);
    for (int i = 0; i < 2; i++) cr_assert(bytes_eq(d.events[i].text, same.events[i].text));
    cr_assert(devlog_feature(&d, bytes_str("温度")));
}

Test(devlog, a_degree_sign_of_latin_1_is_not_chinese) {
    struct devlog d = parse("oil 71\xB0"
                            "C after restart\nheater at 210\xB0"
                            "C\n");
    cr_assert(d.n_events == 2 && d.malformed == 2);
    cr_assert(memmem(d.events[0].text.data, d.events[0].text.len, "71\xEF\xBF\xBD", 5));
}
