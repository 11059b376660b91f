#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "store/pages_care.h"
#include "tests/pages/pages_fixture.h"

static struct rig g;
static struct chain c;

static void setup(void) {
    rig_make(&g, 2);
    chain_make(&c, &g, 0x155, 20);
    rig_open(&g);
    cr_assert_eq(store_chain(&g, &c, 0), 20);
    pages_close(g.pages);
    g.pages = NULL;
}

static void teardown(void) {
    chain_free(&c);
    rig_remove(&g);
}
TestSuite(pages_care, .init = setup, .fini = teardown, .timeout = 60);

struct found {
    struct pages_found f[4];
    char group[4][64];
    int n;
};

static int note(void *arg, const struct pages_found *f) {
    struct found *found = arg;
    cr_assert_lt(found->n, 4);
    snprintf(found->group[found->n], 64, "%s", f->group);
    found->f[found->n++] = *f;
    return 0;
}

static const char *path_of(const char *group, const char *name) {
    static char path[512], fingerprint[PAGE_FINGERPRINT_CHARS];
    page_fingerprint(&g.config.model, fingerprint);
    snprintf(path, sizeof path, "%s/%s/%s/%s", g.dir, fingerprint, group, name);
    return path;
}

static void flip_where(const char *group, const void *text, size_t len) {
    void *data;
    size_t bytes, at = 0;
    cr_assert_eq(file_read(path_of(group, "data.mdb"), 1u << 28, &data, &bytes, g.err, 512), 0);
    while (at + len <= bytes && memcmp((uint8_t *)data + at, text, len) != 0) at++;
    cr_assert_lt(at, bytes);
    uint8_t flipped = ((uint8_t *)data)[at] ^ 4;
    int fd = open(path_of(group, "data.mdb"), O_RDWR);
    cr_assert_eq(pwrite(fd, &flipped, 1, (off_t)at), 1);
    close(fd);
    free(data);
}

Test(pages_care, groups_tell_of_themselves_beside_an_engine_or_alone) {
    for (int beside = 0; beside < 2; beside++) {
        int to[2], from[2];
        char byte = 0;
        pid_t child = 0;
        cr_assert(pipe(to) == 0 && pipe(from) == 0);
        if (beside && (child = fork()) == 0) {
            rig_open(&g);
            if (write(from[1], "o", 1) != 1 || read(to[0], &byte, 1) != 1) _exit(1);
            _exit(read_chain(&g, &c) == 20 ? 0 : 2);
        }
        if (beside) cr_assert_eq(read(from[0], &byte, 1), 1);
        struct found found = {0};
        cr_assert_eq(pages_each(g.dir, NULL, note, &found, g.err, sizeof g.err), 0, "%s", g.err);
        cr_assert_eq(found.n, 2);
        cr_assert_str_eq(found.group[0], "global");
        cr_assert_eq(found.f[0].code, 0);
        cr_assert_eq(found.f[0].usage.pages, 20);
        cr_assert_eq(found.f[0].usage.cap_bytes, CAP);
        cr_assert_str_eq(found.f[0].about, "a model of tests");
        cr_assert_eq(found.f[0].shape.data_bytes, DATA);
        cr_assert_gt(found.f[0].changed_ms, clock_wall_ms() - 60000);
        cr_assert_eq(found.f[1].window_tokens, WINDOW);
        cr_assert_eq(found.f[1].usage.pages, 3);
        if (!beside) continue;
        int status;
        cr_assert_eq(write(to[1], "r", 1), 1);
        cr_assert_eq(waitpid(child, &status, 0), child);
        cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
}

Test(pages_care, one_model_is_chosen_by_the_beginning_of_its_fingerprint) {
    char fingerprint[PAGE_FINGERPRINT_CHARS];
    struct found found = {0};
    page_fingerprint(&g.config.model, fingerprint);
    fingerprint[6] = '\0';
    cr_assert_eq(pages_each(g.dir, fingerprint, note, &found, g.err, sizeof g.err), 0);
    cr_assert_eq(found.n, 2);
    cr_assert_eq(pages_each(g.dir, "none", note, &found, g.err, sizeof g.err), -ENOENT);
    cr_assert_not_null(strstr(g.err, "none"));
    cr_assert_eq(pages_each("/nowhere", NULL, note, &found, g.err, sizeof g.err), -ENOENT);
    cr_assert_eq(found.n, 2);
}

Test(pages_care, verify_finds_and_drops_damaged_pages_and_leaves_the_others) {
    struct found found = {0};
    flip_where("global", c.data[7] + 100, 32);
    flip_where("window", c.data[18] + DATA + 100, 32);
    cr_assert_eq(pages_each(g.dir, NULL, note, &found, g.err, sizeof g.err), 0);
    cr_assert_eq(found.f[0].torn + found.f[1].torn, 0, "nothing is read to list");
    found.n = 0;
    cr_assert_eq(pages_verify(g.dir, NULL, note, &found, g.err, sizeof g.err), 0);
    cr_assert(found.f[0].torn == 1 && found.f[1].torn == 1);
    cr_assert(found.f[0].code == 0 && found.f[1].code == 0, "%s", found.f[0].why);
    found.n = 0;
    cr_assert_eq(pages_verify(g.dir, NULL, note, &found, g.err, sizeof g.err), 0);
    cr_assert_eq(found.f[0].torn, 0);
    cr_assert_eq(found.f[0].usage.pages, 19);
    cr_assert_eq(found.f[1].usage.pages, 2);
}

Test(pages_care, what_cannot_be_opened_is_told_and_left_until_it_is_dropped) {
    struct found found = {0};
    cr_assert_eq(truncate(path_of("global", "data.mdb"), 5000), 0);
    cr_assert_eq(pages_verify(g.dir, NULL, note, &found, g.err, sizeof g.err), 0);
    cr_assert_eq(found.n, 2);
    cr_assert_eq(found.f[0].code, ERR_CORRUPT);
    cr_assert_not_null(strstr(found.f[0].why, "global"), "%s", found.f[0].why);
    cr_assert_eq(found.f[1].code, 0);
    cr_assert_eq(access(path_of("global", "data.mdb"), F_OK), 0);
    found.n = 0;
    cr_assert_eq(pages_drop(g.dir, NULL, note, &found, g.err, sizeof g.err), 0);
    cr_assert_eq(found.f[0].code, 0);
    cr_assert_eq(access(path_of("global", "data.mdb"), F_OK), -1);
    cr_assert_eq(access(path_of("window", "data.mdb"), F_OK), -1);
    rig_open(&g);
    cr_assert_null(pages_remade(g.pages, 0));
    cr_assert_eq(read_chain(&g, &c), 0);
    cr_assert_eq(store_chain(&g, &c, 0), 20);
}

Test(pages_care, drop_empties_a_cache_that_an_engine_has_open) {
    int to[2], from[2], status;
    char byte = 0;
    cr_assert(pipe(to) == 0 && pipe(from) == 0);
    pid_t child = fork();
    if (child == 0) {
        rig_open(&g);
        if (read_chain(&g, &c) != 20) _exit(1);
        if (write(from[1], "o", 1) != 1 || read(to[0], &byte, 1) != 1) _exit(2);
        if (read_chain(&g, &c) != 0) _exit(3);
        _exit(store_chain(&g, &c, 0) == 20 && read_chain(&g, &c) == 20 ? 0 : 4);
    }
    struct found found = {0};
    cr_assert_eq(read(from[0], &byte, 1), 1);
    cr_assert_eq(pages_drop(g.dir, NULL, note, &found, g.err, sizeof g.err), 0);
    cr_assert_eq(found.f[0].code, 0, "%s", found.f[0].why);
    cr_assert_eq(found.f[0].usage.pages, 20);
    cr_assert_eq(write(to[1], "r", 1), 1);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%x", (unsigned)status);
}
