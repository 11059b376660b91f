#include "client/cli/table.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <wchar.h>

#define GAP 2u        /* blanks between columns */
#define NARROWEST 10u /* no column is cut below that */

void table_init(struct table *t, const char *const *heads) {
    *t = (struct table){0};
    for (; heads[t->columns]; t->columns++) {
        const char *colon = strchr(heads[t->columns], ':');
        t->max[t->columns] = colon ? strtoul(colon + 1, NULL, 10) : SIZE_MAX;
    }
    for (size_t i = 0; i < t->columns; i++) {
        table_cell(t, "%.*s", (int)strcspn(heads[i], ":"), heads[i]);
        table_style(t, TERM_BOLD);
    }
}

void table_fini(struct table *t) {
    for (size_t i = 0; i < t->cells; i++) free(t->cell[i]);
    free(t->cell);
    free(t->style);
    *t = (struct table){0};
}

/* Columns that the character at p takes, and its bytes. */
static size_t width_of(const char *p, size_t *bytes) {
    wchar_t c;
    mbstate_t state;
    memset(&state, 0, sizeof state);
    size_t n = mbrtowc(&c, p, strlen(p), &state);
    if (n == 0 || n > 4) {
        *bytes = 1;
        return 1;
    }
    *bytes = n;
    int w = wcwidth(c);
    return w < 0 ? 1 : (size_t)w;
}

static size_t text_width(const char *text) {
    size_t width = 0, bytes;
    for (; *text; text += bytes) width += width_of(text, &bytes);
    return width;
}

/* Cuts at max columns; the last one shows that something is missing. */
static void cut(char *text, size_t max) {
    if (max < 2 || text_width(text) <= max) return;
    size_t width = 0, bytes;
    for (char *p = text; *p; p += bytes) {
        size_t w = width_of(p, &bytes);
        if (width + w > max - 1) {
            strcpy(p, "~"); /* at least one more byte was there */
            return;
        }
        width += w;
    }
}

/* Chinese and Japanese are written without blanks: a line that was broken there leaves none. */
static bool is_unspaced(const char *p) {
    wchar_t c;
    mbstate_t state;
    memset(&state, 0, sizeof state);
    size_t n = mbrtowc(&c, p, strlen(p), &state);
    return n > 1 && n <= 4 && wcwidth(c) == 2 && !(c >= 0xAC00 && c <= 0xD7A3); /* Hangul */
}

/* One line of it, and nothing that a terminal obeys. */
static void make_line(char *text) {
    char *to = text;
    const char *before = NULL; /* the character that was written last */
    for (const char *p = text; *p;) {
        if (*p == '\n' && before && is_unspaced(before) && is_unspaced(p + 1)) {
            p++;
        } else if ((unsigned char)*p < 0x20 || *p == 0x7F) {
            *to++ = ' ';
            before = NULL;
            p++;
        } else {
            size_t bytes;
            width_of(p, &bytes);
            before = to;
            while (bytes-- > 0) *to++ = *p++;
        }
    }
    *to = '\0';
}

void table_cell(struct table *t, const char *format, ...) {
    if (t->cells == t->cap) {
        size_t cap = t->cap ? t->cap * 2 : 64;
        char **cell = realloc(t->cell, cap * sizeof *cell);
        if (cell) t->cell = cell;
        enum term_style *style = realloc(t->style, cap * sizeof *style);
        if (style) t->style = style;
        if (!cell || !style) return;
        t->cap = cap;
    }
    va_list args;
    va_start(args, format);
    char *text = NULL;
    if (vasprintf(&text, format, args) < 0) text = NULL;
    va_end(args);
    if (!text) return;
    make_line(text);
    if (t->cells >= t->columns) cut(text, t->max[t->cells % t->columns]);
    t->style[t->cells] = TERM_PLAIN;
    t->cell[t->cells++] = text;
}

void table_style(struct table *t, enum term_style style) {
    if (t->cells) t->style[t->cells - 1] = style;
}

void table_time(struct table *t, int64_t wall_ms) {
    char text[32] = "-";
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm tm;
    if (wall_ms > 0 && localtime_r(&seconds, &tm))
        strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &tm);
    table_cell(t, "%s", text);
}

void table_duration(struct table *t, int64_t ms) {
    if (ms < 0)
        table_cell(t, "-");
    else if (ms < 1000)
        table_cell(t, "%lld ms", (long long)ms);
    else if (ms < 120000)
        table_cell(t, "%.1f s", (double)ms / 1000);
    else
        table_cell(t, "%lld min", (long long)(ms / 60000));
}

/* The widest column gives way, a column on the screen at a time. */
static void fit(const struct table *t, size_t *width) {
    size_t room = (size_t)term_columns(stdout), total = 0;
    for (size_t c = 0; c < t->columns; c++) total += width[c] + (c ? GAP : 0);
    while (total > room) {
        size_t widest = 0;
        for (size_t c = 1; c < t->columns; c++)
            if (width[c] > width[widest]) widest = c;
        if (width[widest] <= NARROWEST) break;
        width[widest]--;
        total--;
    }
    for (size_t i = 0; i < t->cells; i++) cut(t->cell[i], width[i % t->columns]);
}

void table_print(const struct table *t) {
    size_t width[TABLE_COLUMNS] = {0};
    for (size_t i = 0; i < t->cells; i++) {
        size_t w = text_width(t->cell[i]), c = i % t->columns;
        if (w > width[c]) width[c] = w;
    }
    if (term_is(stdout)) fit(t, width);
    for (size_t i = 0; i < t->cells; i++) {
        size_t c = i % t->columns;
        const char *on = term_on(stdout, t->style[i]);
        printf("%s%s%s", on, t->cell[i], on[0] ? term_off(stdout) : "");
        if (c + 1 == t->columns || i + 1 == t->cells)
            putchar('\n');
        else
            printf("%*s", (int)(width[c] - text_width(t->cell[i]) + GAP), "");
    }
}
