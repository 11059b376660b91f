#include "tests/bench/contract/cuad.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "workers/encode/unicode.h"

#define FILE_BYTES_MAX (64u << 20)
#define COLUMNS (1u + 2u * CUAD_CATEGORIES)
#define TEXTS_MAX 65536u

/* One CSV field, unquoted in place; *at moves behind its comma or line end, *last tells which. */
static char *field(char **at, int *last) {
    char *s = *at, *to = s, *begin = s;
    int quoted = *s == '"';
    s += quoted;
    while (*s) {
        if (quoted && s[0] == '"' && s[1] == '"')
            s++; /* a doubled quote is one */
        else if (quoted ? s[0] == '"' : *s == ',' || *s == '\n' || *s == '\r')
            break;
        *to++ = *s++;
    }
    if (quoted && *s == '"') s++;
    if (*s == '\r') s++;
    *last = *s != ',';
    *at = *s ? s + 1 : s;
    *to = '\0';
    return begin;
}

static unsigned long hex(const char *s, int digits) {
    char text[9] = "";
    memcpy(text, s, (size_t)digits);
    return strtoul(text, NULL, 16);
}

/* The next string of ['...', "..."], unescaped into `to`; NULL at the end. */
static char *literal(const char **at, char **to) {
    const char *s = *at;
    while (*s && *s != '\'' && *s != '"') s++;
    if (!*s) return NULL;
    char quote = *s++, *begin = *to;
    for (; *s && *s != quote; s++) {
        if (*s != '\\') {
            *(*to)++ = *s;
            continue;
        }
        int digits = s[1] == 'x' ? 2 : s[1] == 'u' ? 4 : s[1] == 'U' ? 8 : 0;
        if (digits && strnlen(s + 2, (size_t)digits) == (size_t)digits) {
            *to += unicode_put(*to, (uint32_t)hex(s + 2, digits));
            s += 1 + digits;
        } else if (*++s) {
            *(*to)++ = *s == 'n' || *s == 't' || *s == 'r' ? ' ' : *s;
        } else {
            break;
        }
    }
    *(*to)++ = '\0';
    *at = *s ? s + 1 : s;
    return begin;
}

static int add_texts(struct cuad *c, uint32_t category, const char *list, char **to) {
    char *text;
    while ((text = literal(&list, to))) {
        if (strlen(text) < 5) continue;
        if (c->n_texts == TEXTS_MAX) return -1;
        c->texts[c->n_texts++] = (struct cuad_text){c->contracts, category, text};
    }
    return 0;
}

int cuad_open(struct cuad *c, const char *path) {
    void *data;
    size_t bytes;
    char err[256], *fields[COLUMNS];
    *c = (struct cuad){0};
    if (file_read(path, FILE_BYTES_MAX, &data, &bytes, err, sizeof err) < 0) {
        fprintf(stderr, "contract: %s\n", err);
        return -1;
    }
    c->memory[0] = data;
    c->memory[1] = malloc(bytes + 1);
    c->texts = calloc(TEXTS_MAX, sizeof *c->texts);
    c->answers = calloc(bytes / COLUMNS + 1, CUAD_CATEGORIES * sizeof(char *));
    if (!c->memory[1] || !c->texts || !c->answers) return -1;
    char *at = c->memory[0], *to = c->memory[1];
    for (uint32_t row = 0; *at; row++) {
        int last = 0;
        uint32_t n = 0;
        while (!last && n < COLUMNS) fields[n++] = field(&at, &last);
        if (n != COLUMNS || !last) {
            fprintf(stderr, "contract: %s: row %u has not %u columns\n", path, row + 1, COLUMNS);
            return -1;
        }
        for (uint32_t k = 0; k < CUAD_CATEGORIES; k++) {
            if (row == 0) c->names[k] = fields[1 + 2 * k];
            if (row == 0) continue;
            c->answers[c->contracts * CUAD_CATEGORIES + k] = fields[2 + 2 * k];
            if (add_texts(c, k, fields[1 + 2 * k], &to) < 0) return -1;
        }
        c->contracts += row > 0;
    }
    return 0;
}

void cuad_close(struct cuad *c) {
    free(c->memory[0]);
    free(c->memory[1]);
    free(c->texts);
    free(c->answers);
    *c = (struct cuad){0};
}
