#include "base/term.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define COLUMNS_DEFAULT 80
#define COLUMNS_MIN 20

bool term_is(FILE *f) {
    return isatty(fileno(f)) == 1;
}

int term_columns(FILE *f) {
    struct winsize w;
    if (ioctl(fileno(f), TIOCGWINSZ, &w) != 0 || w.ws_col == 0) return COLUMNS_DEFAULT;
    return w.ws_col < COLUMNS_MIN ? COLUMNS_MIN : w.ws_col;
}

bool term_utf8(void) {
    static const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *value = getenv(names[i]);
        if (value && value[0]) return strcasestr(value, "utf-8") || strcasestr(value, "utf8");
    }
    return false;
}

static bool colored(FILE *f) {
    const char *none = getenv("NO_COLOR"), *term = getenv("TERM");
    return term_is(f) && !(none && none[0]) && term && strcmp(term, "dumb") != 0;
}

const char *term_on(FILE *f, enum term_style style) {
    static const char *const on[] = {"",         "\033[1m",  "\033[2m", "\033[31m",
                                     "\033[32m", "\033[33m", "\033[36m"};
    return colored(f) ? on[style] : "";
}

const char *term_off(FILE *f) {
    return colored(f) ? "\033[0m" : "";
}

void term_clean(char *text) {
    for (unsigned char *p = (unsigned char *)text; *p; p++) {
        bool second = *p == 0xC2 && p[1] >= 0x80 && p[1] < 0xA0; /* U+0080 to U+009F */
        if (!second && ((*p >= 0x20 && *p != 0x7F) || *p == '\n' || *p == '\t')) continue;
        *p = ' ';
        if (second) *++p = ' ';
    }
}

void term_put(FILE *f, const char *text) {
    if (!term_is(f)) {
        fputs(text, f);
        return;
    }
    char *clean = strdup(text);
    if (clean) term_clean(clean);
    fputs(clean ? clean : "(no memory to show it)", f);
    free(clean);
}

enum term_style term_style_of(const char *word) {
    static const struct {
        const char *word;
        enum term_style style;
    } words[] = {{"high", TERM_RED},      {"NG", TERM_RED},    {"failed", TERM_RED},
                 {"medium", TERM_YELLOW}, {"low", TERM_GREEN}, {"OK", TERM_GREEN},
                 {"done", TERM_GREEN}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(word, words[i].word) == 0) return words[i].style;
    return TERM_PLAIN;
}
