#include "tests/bench/report/report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"

enum { VALUES_MAX = 1024 };

struct report {
    const char *name;
    char machine[300];
    struct json *rows;
    int runs;
};

static void machine_name(char *to, size_t bytes) {
    char line[256];
    FILE *f = fopen("/proc/cpuinfo", "re");
    snprintf(to, bytes, "unknown processor");
    while (f && fgets(line, sizeof line, f)) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !colon) continue;
        snprintf(to, bytes, "%.*s, %ld cores", (int)strcspn(colon + 2, "\n"), colon + 2,
                 sysconf(_SC_NPROCESSORS_ONLN));
        break;
    }
    if (f) fclose(f);
}

struct report *report_open(const char *name, int runs) {
    struct report *b = calloc(1, sizeof *b);
    if (!b) exit(1);
    *b = (struct report){.name = name, .rows = json_new_array(), .runs = runs};
    machine_name(b->machine, sizeof b->machine);
    printf("%s on %s, median of %d runs\n%-40s %12s %-14s %6s %6s  %s\n", name, b->machine, runs,
           "case", "value", "unit", "ratio", "of it", "beside the peer; of the limit");
    fflush(stdout);
    return b;
}

static void put_text(struct json *to, const char *key, const char *text) {
    json_set(to, key, text ? json_new_str(text, strlen(text)) : json_new_null());
}

static void put_number(struct json *to, const char *key, double v) {
    json_set(to, key, v > 0 ? json_new_real(v) : json_new_null());
}

void report_add(struct report *b, const struct report_row *r) {
    bool peer = r->peer && r->peer_value > 0, limited = r->limit > 0;
    double ratio = peer ? r->value / r->peer_value : 0,
           fraction = limited ? r->value / r->limit : 0;
    char ratio_text[16] = "-", fraction_text[16] = "-";
    if (r->less_is_better) {
        ratio = peer ? r->peer_value / r->value : 0;
        fraction = limited ? r->limit / r->value : 0;
    }
    if (r->ratio > 0) ratio = r->ratio;
    if (r->fraction > 0) fraction = r->fraction;
    if (peer) snprintf(ratio_text, sizeof ratio_text, "%.2f", ratio);
    if (limited) snprintf(fraction_text, sizeof fraction_text, "%.0f %%", 100 * fraction);
    printf("%-40s %12.*f %-14s %6s %6s ", r->name, r->value < 10 ? 3 : 1, r->value, r->unit,
           ratio_text, fraction_text);
    if (peer) printf(" %s: %.*f;", r->peer, r->peer_value < 10 ? 3 : 1, r->peer_value);
    if (limited) printf(" %s: %.*f", r->limit_of, r->limit < 10 ? 3 : 1, r->limit);
    puts("");
    fflush(stdout);
    struct json *j = json_new_object();
    put_text(j, "case", r->name);
    json_set(j, "value", json_new_real(r->value));
    put_text(j, "unit", r->unit);
    put_text(j, "peer", peer ? r->peer : NULL);
    put_number(j, "peer_value", peer ? r->peer_value : 0);
    put_number(j, "ratio", ratio);
    put_number(j, "limit", r->limit);
    put_text(j, "limit_of", limited ? r->limit_of : NULL);
    put_number(j, "fraction", fraction);
    json_set(j, "runs", json_new_int(r->runs ? r->runs : b->runs));
    json_push(b->rows, j);
}

void report_close(struct report *b) {
    const char *commit = getenv("PENSTOCK_COMMIT");
    char path[128], err[256] = "out of memory";
    struct json *all = json_new_object();
    put_text(all, "bench", b->name);
    put_text(all, "machine", b->machine);
    put_text(all, "commit", commit ? commit : "unknown");
    json_set(all, "rows", b->rows);
    char *text = json_text(all, 2);
    snprintf(path, sizeof path, "build/bench/%s.json", b->name);
    if (!text || file_mkdirs("build/bench") != 0 ||
        file_replace(path, text, strlen(text), err, sizeof err) != 0) {
        fprintf(stderr, "%s: %s cannot be written: %s\n", b->name, path, err);
        exit(1);
    }
    free(text);
    json_free(all);
    free(b);
}

int report_by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

double report_median(const double *v, int n) {
    double sorted[VALUES_MAX];
    if (n < 1 || n > VALUES_MAX) return 0;
    memcpy(sorted, v, (size_t)n * sizeof *v);
    qsort(sorted, (size_t)n, sizeof *sorted, report_by_value);
    return sorted[n / 2];
}
