#include "workers/encode/devlog_csv.h"

#include <string.h>

void csv_init(struct csv *c, struct bytes text, char delimiter) {
    c->at = text.data;
    c->end = c->at ? c->at + text.len : c->at;
    c->delimiter = delimiter;
    c->line = 0;
    c->next_line = 1;
    c->n = 0;
}

struct filling {
    struct csv *c;
    size_t used;
};

static bool keep(struct filling *f, char byte) {
    if (f->used == sizeof f->c->text) return false;
    f->c->text[f->used++] = byte;
    return true;
}

static bool at_line_end(const struct csv *c, const char *at) {
    return at == c->end || *at == '\n' || (*at == '\r' && (at + 1 == c->end || at[1] == '\n'));
}

/* A field from `at`; its end, or NULL when it is bad. */
static const char *field(struct filling *f, const char *at, uint32_t *lines) {
    struct csv *c = f->c;
    if (at < c->end && *at == '"') {
        for (at++;; at++) {
            if (at == c->end) return NULL;
            if (*at == '"' && (at + 1 == c->end || at[1] != '"')) break;
            if (*at == '"') at++;
            if (*at == '\n') ++*lines;
            if (!keep(f, *at)) return NULL;
        }
        at++;
        return at_line_end(c, at) || *at == c->delimiter ? at : NULL;
    }
    for (; !at_line_end(c, at) && *at != c->delimiter; at++)
        if (*at == '"' || !keep(f, *at)) return NULL;
    return at;
}

int csv_next(struct csv *c) {
    struct filling f = {c, 0};
    if (c->at == c->end) return -1;
    const char *at = c->at, *newline = memchr(at, '\n', (size_t)(c->end - at));
    const char *line_end = newline ? newline : c->end;
    size_t raw = (size_t)(line_end - at);
    if (raw > 0 && at[raw - 1] == '\r') raw--;
    c->raw = bytes_of(at, raw);
    c->line = c->next_line;
    uint32_t lines = 0;
    bool good = true;
    for (c->n = 0;; at++) {
        if (c->n == DEVLOG_COLUMNS_MAX) good = false;
        size_t begin = f.used;
        at = good ? field(&f, at, &lines) : NULL;
        if (!at) {
            good = false;
            break;
        }
        c->field[c->n++] = bytes_of(c->text + begin, f.used - begin);
        if (at_line_end(c, at)) break;
    }
    if (good) {
        while (at < c->end && *at != '\n') at++;
        c->at = at < c->end ? at + 1 : at;
        c->next_line += lines + 1;
        return 1;
    }
    c->at = newline ? newline + 1 : c->end;
    c->next_line++;
    return 0;
}
