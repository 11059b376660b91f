/* qc.c - how many labelled defects the reference comparison finds, how often it is wrong, how fast.
 *
 * usage: qc        (PENSTOCK_DATA names the folder that holds deeppcb/; else it says so and stops)
 *
 * DeepPCB: pairs of a tested board and its template with labelled boxes. The names are sorted;
 * pairs 0, 5, 10, ... are those that the recipe below was tuned on, pairs 2, 7, 12, ... are held
 * out. A label is found when a box overlaps it with an intersection over union of at least 0.33; a
 * box that overlaps no label so is false. Prints a table and writes build/bench/qc.json.
 *
 * Units: milliseconds, shares.  Owner, errors: a program; it exits 1 with a message. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/file.h"
#include "base/limits.h"
#include "tests/bench/report/report.h"
#include "workers/encode/image_inspect.h"

enum { PAIRS_MAX = 400, EVERY = 5, LABELS_MAX = 64, TYPES = 7, RUNS = 5 };
#define IOU_MIN 0.33

/* The labels leave about ten pixels around a defect. */
static const char recipe_text[] = "name: deeppcb\n"
                                  "version: 1\n"
                                  "registration: {max_shift_px: 16, map: affine, levels: keep}\n"
                                  "compare: {tolerance_px: 2, contrast_min: 128, merge_px: 6, "
                                  "margin_px: 10}\n"
                                  "thresholds: {area_min_px: 20}\n";
static const char *const type_names[TYPES] = {
    "", "open", "short", "mousebite", "spur", "spurious copper", "pin-hole"};

struct label {
    double x0, y0, x1, y1;
    int type;
};
struct pair {
    struct bytes part, reference;
    struct label labels[LABELS_MAX];
    int n_labels;
};
struct score {
    uint32_t labels[TYPES], found[TYPES], boxes, wrong, pairs; /* index 0: all types */
};
struct bench {
    struct recipe *recipe;
    struct arena files, job;
    struct report *report;
};

static void die(const char *what) {
    fprintf(stderr, "qc: %s\n", what);
    exit(1);
}

static struct bytes load(struct bench *b, const char *dir, const char *name, const char *tail) {
    char path[1024], err[256];
    void *data;
    size_t bytes;
    snprintf(path, sizeof path, "%s/%s%s", dir, name, tail);
    if (file_read(path, 1u << 20, &data, &bytes, err, sizeof err) != 0) die(err);
    void *copy = arena_copy(&b->files, data, bytes + 1);
    free(data);
    if (!copy) die("no memory");
    return bytes_of(copy, bytes);
}

static void load_pair(struct bench *b, const char *dir, const char *name, struct pair *p) {
    const char *text = load(b, dir, name, ".txt").data;
    *p = (struct pair){.part = load(b, dir, name, "_test.png"),
                       .reference = load(b, dir, name, "_temp.png")};
    for (int used; p->n_labels < LABELS_MAX; text += used) {
        struct label *l = &p->labels[p->n_labels];
        if (sscanf(text, "%lf %lf %lf %lf %d%n", &l->x0, &l->y0, &l->x1, &l->y1, &l->type, &used) !=
            5)
            break;
        if (l->type < 1 || l->type >= TYPES) die("a label's type is not 1 to 6");
        p->n_labels++;
    }
}

static double overlap(const struct image_box *b, const struct label *l) {
    double bx = b->x, by = b->y, bx1 = bx + b->width, by1 = by + b->height;
    double x0 = bx > l->x0 ? bx : l->x0, x1 = bx1 < l->x1 ? bx1 : l->x1;
    double y0 = by > l->y0 ? by : l->y0, y1 = by1 < l->y1 ? by1 : l->y1;
    if (x1 <= x0 || y1 <= y0) return 0;
    double both = (x1 - x0) * (y1 - y0), label = (l->x1 - l->x0) * (l->y1 - l->y0);
    return both / ((double)b->width * b->height + label - both);
}

static void score_pair(struct bench *b, const struct pair *p, struct score *s) {
    struct inspection in;
    char err[256];
    bool found[LABELS_MAX] = {false};
    arena_reset(&b->job);
    if (image_inspect(p->part, p->reference, b->recipe, &b->job, &in, err, sizeof err) != 0)
        die(err);
    for (uint32_t i = 0; i < in.n; i++) {
        bool hit = false;
        if (in.regions[i].area_px < b->recipe->area_min_px) continue;
        for (int k = 0; k < p->n_labels; k++)
            if (overlap(&in.regions[i].box, &p->labels[k]) >= IOU_MIN) hit = found[k] = true;
        s->boxes++;
        s->wrong += !hit;
    }
    for (int k = 0; k < p->n_labels; k++) {
        s->labels[0]++, s->labels[p->labels[k].type]++;
        s->found[0] += found[k], s->found[p->labels[k].type] += found[k];
    }
    s->pairs++;
}

/* The median time of a pair in each run, and the median of those, in the process's own time, which
 * other programs on the machine do not stretch as much. */
static double time_pairs(struct bench *b, const struct pair *pairs, uint32_t n, bool compare) {
    double run[RUNS], each[PAIRS_MAX];
    struct inspection in;
    char err[256];
    for (int r = 0; r < RUNS; r++) {
        for (uint32_t i = 0; i < n; i++) {
            struct timespec t0, t1;
            struct bytes reference = compare ? pairs[i].reference : (struct bytes){NULL, 0};
            arena_reset(&b->job);
            clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t0);
            image_inspect(pairs[i].part, reference, b->recipe, &b->job, &in, err, sizeof err);
            clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t1);
            each[i] =
                (double)(t1.tv_sec - t0.tv_sec) * 1e3 + (double)(t1.tv_nsec - t0.tv_nsec) / 1e6;
        }
        run[r] = report_median(each, (int)n);
    }
    return report_median(run, RUNS);
}

static void measure(struct bench *b, const char *split, const struct pair *pairs, uint32_t n) {
    struct score s = {.pairs = 0};
    char name[64];
    for (uint32_t i = 0; i < n; i++) score_pair(b, &pairs[i], &s);
    for (int t = 0; t < TYPES; t++) {
        snprintf(name, sizeof name, "%s: found, %s (%u)", split, t ? type_names[t] : "all",
                 s.labels[t]);
        report_add(b->report, &(struct report_row){.name = name,
                                                   .unit = "share",
                                                   .value = (double)s.found[t] / s.labels[t],
                                                   .limit_of = "all",
                                                   .limit = 1,
                                                   .runs = (int)s.labels[t]});
    }
    snprintf(name, sizeof name, "%s: false boxes", split);
    report_add(b->report, &(struct report_row){.name = name,
                                               .unit = "an image",
                                               .value = (double)s.wrong / s.pairs,
                                               .runs = (int)s.pairs});
}

static int is_label_file(const struct dirent *d) {
    size_t n = strlen(d->d_name);
    return n > 4 && strcmp(d->d_name + n - 4, ".txt") == 0;
}

static uint32_t load_split(struct bench *b, const char *dir, int first, struct pair *out) {
    struct dirent **names;
    uint32_t n = 0;
    int all = scandir(dir, &names, is_label_file, alphasort);
    if (all <= 0) die("there are no pairs");
    for (int i = 0; i < all; i++) {
        names[i]->d_name[strlen(names[i]->d_name) - 4] = '\0';
        if (i % EVERY == first && n < PAIRS_MAX) load_pair(b, dir, names[i]->d_name, &out[n++]);
        free(names[i]);
    }
    free(names);
    return n;
}

int main(void) {
    static struct pair tuning[PAIRS_MAX], held_out[PAIRS_MAX];
    struct bench b = {0};
    const char *data = getenv("PENSTOCK_DATA");
    char dir[512], err[512];
    if (!data || !*data) {
        puts("qc: skipped, PENSTOCK_DATA is not set: it names the folder that holds deeppcb/");
        return 0;
    }
    snprintf(dir, sizeof dir, "%s/deeppcb", data);
    if (recipe_parse(&b.recipe, bytes_str(recipe_text), NULL, "recipe", err, sizeof err) != 0)
        die(err);
    arena_init(&b.files, (size_t)1 << 30);
    arena_init(&b.job, LIMIT_ARENA_BYTES);
    uint32_t n = load_split(&b, dir, 0, tuning), m = load_split(&b, dir, 2, held_out);
    printf("DeepPCB, %u pairs to tune on, %u held out; %g is the least overlap\n", n, m, IOU_MIN);
    b.report = report_open("qc", RUNS);
    measure(&b, "tuning", tuning, n);
    measure(&b, "held out", held_out, m);
    report_add(b.report, &(struct report_row){.name = "decode, 640 x 640 at 1 bit, CPU time",
                                              .unit = "ms",
                                              .value = time_pairs(&b, held_out, m, false)});
    report_add(b.report, &(struct report_row){.name = "inspect: decode both, align, compare",
                                              .unit = "ms",
                                              .value = time_pairs(&b, held_out, m, true)});
    report_close(b.report);
    recipe_free(b.recipe);
    arena_fini(&b.files);
    arena_fini(&b.job);
    return 0;
}
