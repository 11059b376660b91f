#include "tests/extract/help.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static uint32_t open_files(void) {
    uint32_t n = 0;
    DIR *d = opendir("/proc/self/fd");
    cr_assert(d);
    while (readdir(d)) n++;
    closedir(d);
    return n;
}

static void no_child_is_left(void) {
    cr_assert(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD, "a child was left");
}

/* ---- what holds of every result ---- */

static bool box_is_none(const struct extract_box *b) {
    return b->x0 == 0 && b->y0 == 0 && b->x1 == 0 && b->y1 == 0;
}

static void check_page(const struct extracted *x, const struct extract_page *p) {
    for (uint32_t i = p->begin; x->boxes && i < p->end; i++) {
        const struct extract_box *b = &x->boxes[i];
        cr_assert(b->x0 >= 0 && b->x0 <= b->x1 && b->x1 <= p->width_pt, "page %u", p->number);
        cr_assert(b->y0 >= 0 && b->y0 <= b->y1 && b->y1 <= p->height_pt, "page %u", p->number);
    }
    if (p->outcome == EXTRACT_FAILED) cr_assert(p->begin == p->end && p->reason.len > 0);
    if (p->outcome == EXTRACT_PARTIAL) cr_assert(p->end > p->begin && p->reason.len > 0);
    if (x->boxes && p->end > p->begin) {
        cr_assert(bytes_is(text_span(x, p->end - 1, p->end), "\n"));
        cr_assert(box_is_none(&x->boxes[p->end - 1]));
    }
}

void check_extracted(const struct extracted *x) {
    uint32_t chars = 0, of[3] = {0};
    cr_assert_eq(utf8_check(x->text.data, x->text.len), x->text.len);
    for (size_t i = 0; i < x->text.len; i++)
        chars += (((const uint8_t *)x->text.data)[i] & 0xc0) != 0x80;
    cr_assert_eq(chars, x->chars);
    cr_assert(x->pages_in > 0);
    for (uint32_t i = 0; i < x->pages_in; i++) {
        const struct extract_page *p = &x->pages[i];
        cr_assert_eq(p->number, i + 1);
        cr_assert_eq(p->begin, i == 0 ? 0 : x->pages[i - 1].end);
        cr_assert(p->begin <= p->end);
        of[p->outcome]++;
        check_page(x, p);
    }
    cr_assert_eq(x->pages[x->pages_in - 1].end, x->chars);
    cr_assert(of[EXTRACT_OK] == x->pages_ok && of[EXTRACT_PARTIAL] == x->pages_partial &&
              of[EXTRACT_FAILED] == x->pages_failed);
    cr_assert_eq(x->pages_ok + x->pages_partial + x->pages_failed, x->pages_in);
}

struct extracted must_extract_within(struct arena *a, struct bytes document,
                                     const struct extract_limits *l) {
    struct extracted x;
    char err[512] = "";
    uint32_t files = open_files();
    int rc = extract_run(l, document, bytes_str("auto"), NULL, a, &x, err, sizeof err);
    cr_assert_eq(rc, 0, "%d: %s", rc, err);
    cr_assert_eq(open_files(), files, "a file was left open");
    no_child_is_left();
    check_extracted(&x);
    return x;
}

struct extracted must_extract(struct arena *a, struct bytes document) {
    return must_extract_within(a, document, NULL);
}

void must_be_unharmed(struct arena *a) {
    use_real_helper();
    struct extracted x = must_extract(a, pdf_good(a, 2));
    cr_assert(bytes_is(x.text, "Page 1 of the good document\nPage 2 of the good document\n"),
              "%.*s", (int)x.text.len, (const char *)x.text.data);
    cr_assert(x.pages_ok == 2 && x.boxes);
}

void must_refuse(struct arena *a, struct bytes document, const struct extract_limits *l, int code,
                 const char *says) {
    struct extracted x;
    char err[512] = "";
    uint32_t files = open_files();
    int rc = extract_run(l, document, bytes_str(""), NULL, a, &x, err, sizeof err);
    cr_assert_eq(rc, code, "%d, wanted %d: %s", rc, code, err);
    cr_assert(strstr(err, says), "\"%s\" is not in: %s", says, err);
    cr_assert_eq(open_files(), files, "a file was left open");
    no_child_is_left();
    must_be_unharmed(a);
}

/* ---- parts of a result ---- */

struct bytes text_span(const struct extracted *x, uint32_t begin, uint32_t end) {
    const uint8_t *p = x->text.data;
    size_t from = x->text.len, to = x->text.len;
    uint32_t chars = 0;
    for (size_t i = 0; i < x->text.len; i++) {
        if ((p[i] & 0xc0) == 0x80) continue;
        if (chars == begin) from = i;
        if (chars++ == end) {
            to = i;
            break;
        }
    }
    return bytes_of(p + from, to - from);
}

struct bytes page_text(const struct extracted *x, uint32_t page) {
    return text_span(x, x->pages[page].begin, x->pages[page].end);
}

void page_is(const struct extracted *x, uint32_t page, enum extract_outcome outcome,
             const char *says) {
    const struct extract_page *p = &x->pages[page];
    char *reason = bytes_dup(p->reason);
    cr_assert_eq(p->outcome, outcome, "page %u: outcome %d: %s", page + 1, p->outcome,
                 reason ? reason : "");
    if (says)
        cr_assert(reason && strstr(reason, says), "\"%s\" is not in: %s", says,
                  reason ? reason : "");
    else
        cr_assert_eq(p->reason.len, 0, "%s", reason);
    free(reason);
}

/* ---- other helpers ---- */

static char *in_new_folder(struct arena *a, const char *name) {
    char folder[] = "/tmp/penstock-extract-test-XXXXXX";
    cr_assert(mkdtemp(folder));
    char *path = arena_printf(a, "%s/%s", folder, name);
    cr_assert(path);
    return path;
}

void use_script(struct arena *a, const char *script) {
    char *path = in_new_folder(a, "helper");
    FILE *f = fopen(path, "w");
    cr_assert(f);
    fprintf(f, "#!/bin/sh\n%s\n", script);
    cr_assert_eq(fclose(f), 0);
    cr_assert_eq(chmod(path, 0700), 0);
    use_real_helper();
    setenv("PENSTOCK_EXTRACT", path, 1);
}

void use_misbehaving(struct arena *a, const char *how) {
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    cr_assert(n > 0);
    self[n] = '\0';
    char *path = in_new_folder(a, arena_printf(a, "misbehave-%s", how));
    cr_assert_eq(symlink(self, path), 0);
    use_real_helper();
    setenv("PENSTOCK_EXTRACT", path, 1);
}

/* Removes what a test had put in the helper's place. */
void use_real_helper(void) {
    const char *path = getenv("PENSTOCK_EXTRACT");
    if (path && strncmp(path, "/tmp/penstock-extract-test-", 27) == 0) {
        char folder[PATH_MAX];
        unlink(path);
        snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(path, '/') - path), path);
        rmdir(folder);
    }
    unsetenv("PENSTOCK_EXTRACT");
}

const char *data_dir(const char *below) {
    static char dir[512];
    struct stat st;
    const char *data = getenv("PENSTOCK_DATA");
    if (!data || !*data) cr_skip_test("PENSTOCK_DATA is not set: no %s", below);
    snprintf(dir, sizeof dir, "%s/%s", data, below);
    if (stat(dir, &st) != 0) cr_skip_test("%s is not there", dir);
    return dir;
}

uint64_t test_seed(void) {
    const char *given = getenv("SEED");
    uint64_t seed = given ? strtoull(given, NULL, 10) : 20261123;
    cr_log_info("SEED=%llu", (unsigned long long)seed);
    return seed;
}
