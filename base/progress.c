#include "base/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/term.h"

#define BAR_EVERY_MS 100
#define LINE_EVERY_MS 5000
#define BAR_COLUMNS_MAX 40

void progress_init(struct progress *p, uint64_t total, bool quiet, int64_t now_ms) {
    *p = (struct progress){.total = total, .began_ms = now_ms, .said_ms = now_ms};
    p->how = quiet ? PROGRESS_QUIET : term_is(stderr) ? PROGRESS_BAR : PROGRESS_LINES;
}

double progress_rate(const struct progress *p, int64_t now_ms) {
    int64_t ms = now_ms - p->began_ms;
    uint64_t worked = p->done > p->free ? p->done - p->free : 0;
    return ms > 0 ? (double)worked * 1000 / (double)ms : 0;
}

/* "1:02:03", "0:09"; "-:--" while nothing is known. */
static void eta_text(const struct progress *p, double rate, char out[32]) {
    if (rate <= 0) {
        snprintf(out, 32, "-:--");
        return;
    }
    double left_s = (double)(p->total > p->done ? p->total - p->done : 0) / rate;
    uint64_t s = left_s < 3.6e8 ? (uint64_t)(left_s + 0.5) : 360000000;
    if (s >= 3600)
        snprintf(out, 32, "%" PRIu64 ":%02u:%02u", s / 3600, (unsigned)(s / 60 % 60),
                 (unsigned)(s % 60));
    else
        snprintf(out, 32, "%u:%02u", (unsigned)(s / 60), (unsigned)(s % 60));
}

static void draw_bar(struct progress *p, const char *words) {
    bool utf8 = term_utf8();
    int room = term_columns(stderr) - (int)strlen(words) - 10; /* the percentage and blanks */
    if (room > BAR_COLUMNS_MAX) room = BAR_COLUMNS_MAX;
    uint64_t full = room > 0 && p->total ? p->done * (uint64_t)room / p->total : 0;
    fprintf(stderr, "\r\033[K %s%3u%%%s ", term_on(stderr, TERM_BOLD),
            p->total ? (unsigned)(p->done * 100 / p->total) : 100, term_off(stderr));
    fputs(term_on(stderr, p->failed ? TERM_YELLOW : TERM_GREEN), stderr);
    for (uint64_t i = 0; i < full; i++) fputs(utf8 ? "\u2501" : "#", stderr);
    fprintf(stderr, "%s%s", term_off(stderr), term_on(stderr, TERM_DIM));
    for (int i = (int)full; i < room; i++) fputs(utf8 ? "\u2500" : ".", stderr);
    fprintf(stderr, "%s  %s", term_off(stderr), words);
    fflush(stderr);
    p->drawn = true;
}

void progress_show(struct progress *p, int64_t now_ms) {
    int64_t every_ms = p->how == PROGRESS_BAR ? BAR_EVERY_MS : LINE_EVERY_MS;
    if (p->how == PROGRESS_QUIET || now_ms - p->said_ms < every_ms) return;
    p->said_ms = now_ms;
    char eta[32], failed[40] = "", words[128];
    double rate = progress_rate(p, now_ms);
    eta_text(p, rate, eta);
    if (p->failed) snprintf(failed, sizeof failed, "  %" PRIu64 " failed", p->failed);
    if (p->bytes) {
        int digits = snprintf(NULL, 0, "%.1f", (double)p->total / 1e6);
        snprintf(words, sizeof words, "%*.1f/%.1f MB  %5.1f MB/s  ETA %s%s", digits,
                 (double)p->done / 1e6, (double)p->total / 1e6, rate / 1e6, eta, failed);
    } else {
        int digits = snprintf(NULL, 0, "%" PRIu64, p->total);
        snprintf(words, sizeof words, "%*" PRIu64 "/%" PRIu64 "  %5.1f/s  ETA %s%s", digits,
                 p->done, p->total, rate, eta, failed);
    }
    if (p->how == PROGRESS_BAR)
        draw_bar(p, words);
    else
        fprintf(stderr, "penstock: %s\n", words);
}

void progress_clear(struct progress *p) {
    if (!p->drawn) return;
    fputs("\r\033[K", stderr);
    fflush(stderr);
    p->drawn = false;
}
