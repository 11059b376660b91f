/* devlog_table.c - CSV logs: a header names the columns; numbers are readings, the rest words. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "workers/encode/devlog_build.h"
#include "workers/encode/devlog_csv.h"
#include "workers/encode/devlog_time.h"

#define SNIFF_RECORDS 6u

struct header {
    uint32_t n;
    struct bytes name[DEVLOG_COLUMNS_MAX];
};

static struct bytes trim(struct bytes b) {
    const char *s = b.data;
    while (b.len > 0 && (*s == ' ' || *s == '\t')) s++, b.len--;
    while (b.len > 0 && (s[b.len - 1] == ' ' || s[b.len - 1] == '\t')) b.len--;
    return bytes_of(s, b.len);
}

/* Whether a field may name a column: it is no value, and no sentence. */
static bool names_column(struct bytes f) {
    int64_t unused;
    double number;
    const char *s = f.data;
    if (f.len == 0 || f.len > LIMIT_NAME_BYTES || devlog_number(f, &number)) return false;
    if (devlog_time(s, f.len, &unused) > 0 || memchr(s, '=', f.len)) return false;
    return memmem(s, f.len, ": ", 2) == NULL && (s[0] < '0' || s[0] > '9');
}

static bool is_header(const struct csv *c) {
    for (uint32_t i = 0; i < c->n; i++) {
        struct bytes f = trim(c->field[i]);
        if (!names_column(f)) return false;
        for (uint32_t k = 0; k < i; k++)
            if (bytes_eq(f, trim(c->field[k]))) return false;
    }
    return c->n > 0;
}

/* A header is copied, since fields last until the next record only. */
static int take_header(struct header *h, const struct csv *c, bool named, struct arena *a) {
    h->n = c->n;
    for (uint32_t i = 0; i < c->n; i++) {
        struct bytes f = trim(c->field[i]);
        char *name = named ? arena_strndup(a, f.data, f.len) : arena_printf(a, "c%u", i + 1);
        if (!name) return -ENOMEM;
        h->name[i] = bytes_str(name);
    }
    return 0;
}

static void row(struct devlog_build *b, const struct header *h, const struct csv *c) {
    double number;
    build_begin(b, c->line, c->raw);
    for (uint32_t i = 0; !b->skip && i < c->n; i++) {
        struct bytes f = trim(c->field[i]);
        if (f.len == 0) continue;
        if (devlog_is_time_name(h->name[i])) {
            int64_t ms;
            devlog_time(f.data, f.len, &ms);
            build_time(b, ms);
            if (ms != DEVLOG_NO_TIME) continue;
        }
        if (devlog_number(f, &number))
            build_reading(b, h->name[i], number);
        else
            build_named_words(b, h->name[i], f);
    }
    build_end(b);
}

static bool blank(const struct csv *c) {
    return trim(c->raw).len == 0;
}

int devlog_csv_read(struct devlog_build *b, struct bytes text, char delimiter) {
    struct header *h = arena_calloc(b->arena, 1, sizeof *h);
    struct csv *c = arena_alloc(b->arena, sizeof *c);
    int got, code = 0;
    if (!h || !c) return -ENOMEM;
    csv_init(c, text, delimiter);
    while (code == 0 && (got = csv_next(c)) >= 0) {
        if (blank(c)) continue;
        if (got == 0) {
            build_text(b, c->line, c->raw, true);
        } else if (h->n == 0) {
            bool named = is_header(c);
            code = take_header(h, c, named, b->arena);
            if (code == 0 && !named) row(b, h, c);
        } else if (c->n != h->n) {
            build_text(b, c->line, c->raw, true);
        } else {
            row(b, h, c);
        }
    }
    b->out->lines = c->next_line - 1;
    return code;
}

/* How many of the first records have as many columns as the header; 0: there is no header. */
static uint32_t agree(struct csv *c, struct bytes text, char delimiter) {
    uint32_t n = 0, same = 0, seen = 0;
    int got;
    csv_init(c, text, delimiter);
    while (seen < SNIFF_RECORDS && (got = csv_next(c)) >= 0) {
        if (blank(c)) continue;
        if (n == 0) {
            if (got == 0 || c->n < 2 || !is_header(c)) return 0;
            n = c->n;
            continue;
        }
        seen++;
        same += got == 1 && c->n == n;
    }
    return same * 2 > seen ? same : 0;
}

int devlog_csv_sniff(struct bytes text, struct arena *a, char *delimiter) {
    static const char delimiters[] = ",;\t|";
    struct csv *c = arena_alloc(a, sizeof *c);
    uint32_t best = 0;
    *delimiter = 0;
    if (!c) return -ENOMEM;
    for (const char *d = delimiters; *d; d++) {
        uint32_t same = agree(c, text, *d);
        if (same > best) *delimiter = *d, best = same;
    }
    return 0;
}
