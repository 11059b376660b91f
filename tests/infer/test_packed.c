/* The cache of packed weights: what it gives back, and that nothing damaged, stale or cut is
 * believed. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "tests/infer/help.h"
#include "workers/infer/packed.h"
#include "workers/infer/quantize.h"
#include "workers/infer/safetensors.h"

#define LLAMA "tests/golden/models/llama-tied"
#define KEY "0123456789abcdef"
#define WEIGHTS 3u

static struct scratch scratch;
static struct ops *ops;
static struct weight weight[WEIGHTS];
static const struct weight *list[WEIGHTS];

/* A float weight, a pair, and a quantized one. */
static void begin(void) {
    char err[256] = "";
    float w[48 * 40];
    struct quantized q;
    scratch_begin(&scratch, NULL);
    ops = help_open_best(1);
    for (uint32_t i = 0; i < 48 * 40; i++) w[i] = (float)(i * 7919 % 1000) / 1000 - 0.5f;
    cr_assert_eq(
        quantize_matrix(&q, 48, 40, w, DTYPE_F32, (struct quantize_as){DTYPE_W4, 32}, NULL, 1), 0);
    cr_assert_eq(
        ops->weight_pack(ops, &weight[0], 33, 40, w, DTYPE_F32, DTYPE_BF16, err, sizeof err), 0,
        "%s", err);
    cr_assert_eq(ops->weight_pack_pair(ops, &weight[1], 24, 40, w, w + 24 * 40, DTYPE_F32,
                                       DTYPE_F32, err, sizeof err),
                 0, "%s", err);
    cr_assert_eq(
        ops->weight_pack(ops, &weight[2], 48, 40, &q.quant, DTYPE_W4, DTYPE_W4, err, sizeof err), 0,
        "%s", err);
    quantized_fini(&q);
    for (uint32_t i = 0; i < WEIGHTS; i++) list[i] = &weight[i];
}

static void end(void) {
    for (uint32_t i = 0; i < WEIGHTS; i++) ops->weight_free(ops, &weight[i]);
    ops_close(ops);
    scratch_end(&scratch);
}

TestSuite(packed, .init = begin, .fini = end);

static void save(void) {
    char err[256] = "";
    cr_assert_eq(packed_save(scratch.dir, KEY, list, WEIGHTS, 1234, err, sizeof err), 1, "%s", err);
}

static void path_of(char out[400]) {
    snprintf(out, 400, "%s/" PACKED_FOLDER "/" KEY, scratch.dir);
}

Test(packed, what_was_saved_comes_back_byte_for_byte) {
    char err[256] = "";
    cr_assert_null(packed_open(scratch.dir, KEY), "nothing was saved");
    save();
    struct packed *p = packed_open(scratch.dir, KEY);
    cr_assert(p);
    cr_assert_eq(packed_parameters(p), 1234);
    for (uint32_t i = 0; i < WEIGHTS; i++) {
        struct weight w = {0};
        cr_assert_eq(
            packed_next(p, ops, list[i]->n, list[i]->k, list[i]->pair, &w, err, sizeof err), 0,
            "%s", err);
        cr_assert(w.dtype == list[i]->dtype && w.group == list[i]->group && !w.owned);
        cr_assert(w.bytes == list[i]->bytes && memcmp(w.data, list[i]->data, w.bytes) == 0);
        ops->weight_free(ops, &w);
    }
    struct weight more;
    cr_assert_eq(packed_next(p, ops, 33, 40, false, &more, err, sizeof err), ERR_CORRUPT);
    packed_close(p);
}

Test(packed, a_weight_of_another_shape_is_not_given) {
    struct weight w;
    char err[256] = "";
    save();
    struct packed *p = packed_open(scratch.dir, KEY);
    cr_assert_eq(packed_next(p, ops, 34, 40, false, &w, err, sizeof err), ERR_CORRUPT);
    cr_assert(*err);
    packed_close(p);
}

Test(packed, no_changed_byte_is_believed) {
    char path[400];
    struct stat st;
    save();
    path_of(path);
    cr_assert_eq(stat(path, &st), 0);
    int fd = open(path, O_RDWR);
    uint32_t believed = 0;
    for (off_t at = 0; at < st.st_size; at += at < 200 ? 1 : 97) {
        uint8_t was, now;
        cr_assert_eq(pread(fd, &was, 1, at), 1);
        now = (uint8_t)(was ^ 0x10);
        cr_assert_eq(pwrite(fd, &now, 1, at), 1);
        struct packed *p = packed_open(scratch.dir, KEY);
        /* Between the matrices lies nothing that is read. */
        for (uint32_t i = 0; p && i < WEIGHTS; i++) {
            struct weight w = {0};
            char err[256];
            if (packed_next(p, ops, list[i]->n, list[i]->k, list[i]->pair, &w, err, sizeof err) ||
                memcmp(w.data, list[i]->data, w.bytes) != 0)
                believed++;
        }
        packed_close(p);
        cr_assert_eq(pwrite(fd, &was, 1, at), 1);
    }
    cr_assert_eq(believed, 0);
    close(fd);
    struct packed *p = packed_open(scratch.dir, KEY);
    cr_assert(p, "put back it is good again");
    packed_close(p);
}

Test(packed, a_file_that_was_cut_or_grew_is_not_believed) {
    char path[400];
    struct stat st;
    save();
    path_of(path);
    cr_assert_eq(stat(path, &st), 0);
    for (off_t bytes = 0; bytes < 5000; bytes += bytes < 1000 ? 13 : 101) {
        save();
        cr_assert_eq(truncate(path, bytes), 0);
        cr_assert_null(packed_open(scratch.dir, KEY), "%ld bytes", (long)bytes);
    }
    cr_assert_eq(unlink(path), 0);
    cr_assert_eq(mkfifo(path, 0600), 0);
    cr_assert_null(packed_open(scratch.dir, KEY), "a pipe is no file");
    cr_assert_eq(unlink(path), 0);
    save();
    cr_assert_eq(truncate(path, st.st_size - 1), 0);
    cr_assert_null(packed_open(scratch.dir, KEY));
    save();
    cr_assert_eq(truncate(path, st.st_size + 4096), 0);
    cr_assert_null(packed_open(scratch.dir, KEY));
}

Test(packed, a_disk_that_takes_no_more_is_told_and_leaves_nothing_behind) {
    char err[256] = "", path[400];
    struct rlimit was, small = {4096, 4096};
    getrlimit(RLIMIT_FSIZE, &was);
    small.rlim_max = was.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    int rc = packed_save(scratch.dir, KEY, list, WEIGHTS, 1, err, sizeof err);
    setrlimit(RLIMIT_FSIZE, &was);
    cr_assert_eq(rc, -EFBIG, "%d: %s", rc, err);
    cr_assert(strstr(err, "cannot write"), "%s", err);
    path_of(path);
    cr_assert(access(path, F_OK) != 0);
    snprintf(path, sizeof path, "%s/" PACKED_FOLDER, scratch.dir);
    cr_assert_eq(rmdir(path), 0, "something was left in the folder");
}

static void key_of(const char *dir, const char *what, char key[HASH_HEX_BYTES]) {
    struct safetensors *st = NULL;
    char err[256] = "";
    cr_assert_eq(safetensors_open(&st, dir, err, sizeof err), 0, "%s", err);
    cr_assert_eq(packed_key(dir, st, ops->layout, what, key, err, sizeof err), 0, "%s", err);
    safetensors_close(st);
}

Test(packed, the_key_changes_with_the_files_and_with_what_is_asked_for) {
    char a[HASH_HEX_BYTES], b[HASH_HEX_BYTES];
    static const char *const files[] = {"config.json", "model.safetensors"};
    for (size_t i = 0; i < 2; i++) scratch_copy(&scratch, LLAMA, files[i]);
    key_of(scratch.dir, "bf16", a);
    key_of(scratch.dir, "bf16", b);
    cr_assert_str_eq(a, b);
    key_of(scratch.dir, "f32", b);
    cr_assert_str_neq(a, b);
    scratch_replace(&scratch, "config.json", "\"vocab_size\"", "\"vocab_size_\"");
    key_of(scratch.dir, "bf16", b);
    cr_assert_str_neq(a, b);
    scratch_copy(&scratch, LLAMA, "config.json");
    key_of(scratch.dir, "bf16", b);
    cr_assert_str_eq(a, b);

    /* One weight written in place, and the time of change set back. */
    char path[400];
    struct stat st;
    const uint32_t word = 0x3f800000;
    snprintf(path, sizeof path, "%s/model.safetensors", scratch.dir);
    cr_assert_eq(stat(path, &st), 0);
    scratch_patch(&scratch, "model.safetensors", (size_t)st.st_size - 4, &word, 4);
    const struct timespec times[] = {st.st_atim, st.st_mtim};
    cr_assert_eq(utimensat(AT_FDCWD, path, times, 0), 0);
    key_of(scratch.dir, "bf16", b);
    cr_assert_str_neq(a, b, "the inode's own time tells");
}
