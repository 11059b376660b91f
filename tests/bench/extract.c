/* extract.c - how fast documents are read, beside pdftotext, which is Poppler too and has no
 * limits.
 *
 * usage: extract        (PENSTOCK_DATA names the folder that holds contracts/pdf/; without it only
 *                        the small document of this program is read)
 *
 * Both are run the same way: one process a document, its output read from a pipe. We also give a
 * box for every character; pdftotext (poppler-utils) the text alone. A run reads every document
 * with both in turn. Besides wall time there is processor time, ours and the child's, which other
 * programs on the machine do not stretch as much. The limit of a small document is starting a
 * process and seeing its end. Prints a table and writes build/bench/extract.json.
 *
 * Units: seconds, pages.  Owner, errors: a program; it exits 1 with a message. */
#include <dirent.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/limits.h"
#include "tests/bench/report/report.h"
#include "workers/encode/extract.h"

enum { RUNS = 5, DOCUMENTS_MAX = 64, SMALL_TIMES = 20 };

extern char **environ;

struct document {
    char path[600];
    struct bytes bytes;
    uint32_t pages;
};

struct spent {
    double wall_s, cpu_s;
};

static const char small[] =
    "%PDF-1.4\n"
    "trailer << /Size 6 /Root 1 0 R >>\n"
    "1 0 obj\n<< /Type /Catalog /Pages 2 0 R >>\nendobj\n"
    "2 0 obj\n<< /Type /Pages /Count 1 /Kids [3 0 R] >>\nendobj\n"
    "3 0 obj\n<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 5 0 R\n"
    "/Resources << /Font << /F1 4 0 R >> >> >>\nendobj\n"
    "4 0 obj\n<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>\nendobj\n"
    "5 0 obj\n<< /Length 46 >>\nstream\nBT /F1 12 Tf 72 700 Td (One small page) Tj ET  \n"
    "endstream\nendobj\n%%EOF\n";

static void die(const char *what) {
    fprintf(stderr, "extract: %s\n", what);
    exit(1);
}

static double cpu_s(int who) {
    struct rusage u;
    getrusage(who, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static struct spent now(void) {
    return (struct spent){(double)clock_mono_ns() / 1e9,
                          cpu_s(RUSAGE_SELF) + cpu_s(RUSAGE_CHILDREN)};
}

static void add_since(struct spent *total, struct spent then) {
    struct spent at = now();
    total->wall_s += at.wall_s - then.wall_s;
    total->cpu_s += at.cpu_s - then.cpu_s;
}

static void ours(struct document *d, struct spent *total) {
    struct arena a;
    struct extracted x;
    char err[512];
    arena_init(&a, LIMIT_ARENA_BYTES);
    struct spent then = now();
    if (extract_run(NULL, d->bytes, bytes_str("pdf"), NULL, &a, &x, err, sizeof err) != 0) die(err);
    add_since(total, then);
    if (x.pages_ok != x.pages_in) die("a page was not read whole");
    d->pages = x.pages_in;
    arena_fini(&a);
}

/* Runs a program and reads what it writes; false when it is not installed. */
static bool theirs(char *const *argv, struct spent *total) {
    posix_spawn_file_actions_t files;
    char chunk[65536];
    int out[2], status;
    pid_t pid;
    struct spent then = now();
    if (pipe(out) != 0) die("no pipe");
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, out[1], STDOUT_FILENO);
    posix_spawn_file_actions_addclose(&files, out[0]);
    posix_spawn_file_actions_addclose(&files, out[1]);
    int rc = posix_spawnp(&pid, argv[0], &files, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&files);
    close(out[1]);
    while (rc == 0 && read(out[0], chunk, sizeof chunk) > 0) {
    }
    close(out[0]);
    if (rc != 0) return false;
    if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status)) die("a peer died");
    add_since(total, then);
    return WEXITSTATUS(status) != 127;
}

static bool pdftotext(const struct document *d, struct spent *total) {
    char *argv[] = {"pdftotext", "-q", (char *)(uintptr_t)d->path, "-", NULL};
    return theirs(argv, total);
}

/* ---- cases ---- */

static uint32_t load(struct document *out) {
    const char *data = getenv("PENSTOCK_DATA");
    char dir[512], err[512];
    struct dirent **names;
    uint32_t n = 0;
    snprintf(dir, sizeof dir, "%s/contracts/pdf", data ? data : "");
    int all = data && *data ? scandir(dir, &names, NULL, alphasort) : 0;
    for (int i = 0; i < all; i++) {
        size_t len = strlen(names[i]->d_name), bytes;
        struct document *d = &out[n];
        void *read;
        if (n < DOCUMENTS_MAX && len > 4 && len < 64 &&
            strcmp(names[i]->d_name + len - 4, ".pdf") == 0) {
            snprintf(d->path, sizeof d->path, "%s/%.64s", dir, names[i]->d_name);
            if (file_read(d->path, 64u << 20, &read, &bytes, err, sizeof err) != 0) die(err);
            d->bytes = bytes_of(read, bytes);
            n++;
        }
        free(names[i]);
    }
    if (all > 0) free(names);
    return n;
}

static void report_pages(struct report *r, const char *name, const double *we, const double *they,
                         bool peer) {
    double ratio[RUNS];
    for (int i = 0; i < RUNS; i++) ratio[i] = peer ? we[i] / they[i] : 0;
    report_add(r, &(struct report_row){.name = name,
                                       .unit = "pages/s",
                                       .value = report_median(we, RUNS),
                                       .peer = "pdftotext",
                                       .peer_value = peer ? report_median(they, RUNS) : 0,
                                       .ratio = peer ? report_median(ratio, RUNS) : 0,
                                       .runs = RUNS});
}

static void measure_documents(struct report *r, struct document *d, uint32_t n) {
    double wall[2][RUNS], cpu[2][RUNS];
    bool peer = true;
    for (int run = 0; run < RUNS; run++) {
        struct spent we = {0}, they = {0};
        double pages = 0;
        for (uint32_t i = 0; i < n; i++) {
            ours(&d[i], &we);
            peer = peer && pdftotext(&d[i], &they);
            pages += d[i].pages;
        }
        wall[0][run] = pages / we.wall_s;
        cpu[0][run] = pages / we.cpu_s;
        wall[1][run] = peer ? pages / they.wall_s : 0;
        cpu[1][run] = peer ? pages / they.cpu_s : 0;
    }
    report_pages(r, "contracts", wall[0], wall[1], peer);
    report_pages(r, "contracts, by processor time", cpu[0], cpu[1], peer);
}

static void measure_small(struct report *r) {
    struct document d = {.path = "/tmp/penstock-bench-XXXXXX", .bytes = bytes_str(small)};
    double we_ms[RUNS], they_ms[RUNS], start_ms[RUNS];
    char *nothing[] = {"true", NULL};
    int fd = mkstemp(d.path);
    bool peer = true;
    if (fd < 0 || write(fd, small, sizeof small - 1) != (ssize_t)(sizeof small - 1))
        die("cannot write a small document");
    close(fd);
    for (int run = 0; run < RUNS; run++) {
        struct spent we = {0}, they = {0}, start = {0};
        for (int i = 0; i < SMALL_TIMES; i++) {
            ours(&d, &we);
            peer = peer && pdftotext(&d, &they);
            if (!theirs(nothing, &start)) die("there is no program called true");
        }
        we_ms[run] = we.wall_s * 1e3 / SMALL_TIMES;
        they_ms[run] = they.wall_s * 1e3 / SMALL_TIMES;
        start_ms[run] = start.wall_s * 1e3 / SMALL_TIMES;
    }
    unlink(d.path);
    report_add(r, &(struct report_row){.name = "one small page",
                                       .unit = "ms",
                                       .value = report_median(we_ms, RUNS),
                                       .peer = "pdftotext",
                                       .peer_value = peer ? report_median(they_ms, RUNS) : 0,
                                       .limit = report_median(start_ms, RUNS),
                                       .limit_of = "a process that does nothing",
                                       .less_is_better = true,
                                       .runs = RUNS});
}

int main(void) {
    static struct document documents[DOCUMENTS_MAX];
    uint32_t n = load(documents);
    struct report *r = report_open("extract", RUNS);
    if (n > 0)
        measure_documents(r, documents, n);
    else
        puts("contracts: skipped, PENSTOCK_DATA does not name a folder that holds contracts/pdf/");
    measure_small(r);
    report_close(r);
    for (uint32_t i = 0; i < n; i++) free((void *)(uintptr_t)documents[i].bytes.data);
    return 0;
}
