/* The set of models of a worker process. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "tests/infer/help.h"
#include "workers/encode/tokenizer.h"
#include "workers/infer/models.h"

static struct ops *ops;

static void begin(void) {
    ops = help_open_ref();
}

static void end(void) {
    ops_close(ops);
}

TestSuite(models, .init = begin, .fini = end);

Test(models, a_folder_of_models_and_named_ones_are_listed_by_name) {
    struct models *m;
    char err[256] = "";
    const char *named[] = {"tiny=examples/models/tiny-llama",
                           "bert=tests/golden/models/llama-tied"};
    cr_assert_eq(models_open(&m, ops, "tests/golden/models", named, 2, err, sizeof err), 0, "%s",
                 err);
    uint32_t n = models_count(m);
    cr_assert(n > 4, "%u models", n);
    for (uint32_t i = 1; i < n; i++)
        cr_assert_lt(strcmp(models_name(m, i - 1), models_name(m, i)), 0);
    cr_assert_str_eq(models_dir(m, bytes_str("tiny")), "examples/models/tiny-llama");
    cr_assert_null(models_name(m, n));
    cr_assert_str_eq(models_dir(m, bytes_str("llama-bf16")), "tests/golden/models/llama-bf16");
    cr_assert_str_eq(models_dir(m, bytes_str("bert")), "tests/golden/models/llama-tied",
                     "a name given goes first");
    cr_assert_null(models_dir(m, bytes_str("ber")));
    cr_assert_eq(models_ops(m), ops);
    models_close(m);
}

Test(models, a_model_is_opened_once_and_an_unknown_one_named_with_those_at_hand) {
    struct models *m;
    struct model *a, *b;
    struct tokenizer *t, *u;
    char err[256] = "";
    const char *named[] = {"tiny=examples/models/tiny-llama"};
    cr_assert_eq(models_open(&m, ops, NULL, named, 1, err, sizeof err), 0, "%s", err);
    cr_assert_eq(models_get(m, bytes_str("tiny"), &a, err, sizeof err), 0, "%s", err);
    cr_assert_eq(models_get(m, bytes_str("tiny"), &b, err, sizeof err), 0, "%s", err);
    cr_assert(a == b && model_info(a)->vocab == 1024);
    cr_assert_eq(models_tokenizer(m, bytes_str("tiny"), &t, err, sizeof err), 0, "%s", err);
    cr_assert_eq(models_tokenizer(m, bytes_str("tiny"), &u, err, sizeof err), 0, "%s", err);
    cr_assert(t == u && tokenizer_vocab(t) == 1024);
    cr_assert_eq(models_get(m, bytes_str("large"), &a, err, sizeof err), ERR_UNKNOWN);
    cr_assert(!a && strstr(err, "large") && strstr(err, "tiny"), "%s", err);
    models_close(m);
}

Test(models, what_is_no_model_is_refused_at_the_start) {
    struct models *m;
    char err[512] = "", long_name[256];
    const char *named[1] = {"tiny"};
    cr_assert_eq(models_open(&m, ops, NULL, named, 1, err, sizeof err), -EINVAL);
    cr_assert(!m && strstr(err, "NAME=DIR"), "%s", err);
    named[0] = "tiny=tests/golden";
    cr_assert_eq(models_open(&m, ops, NULL, named, 1, err, sizeof err), -ENOENT);
    cr_assert(strstr(err, "config.json"), "%s", err);
    cr_assert_eq(models_open(&m, ops, "tests/golden/none", NULL, 0, err, sizeof err), -ENOENT);
    cr_assert(strstr(err, "tests/golden/none"), "%s", err);
    snprintf(long_name, sizeof long_name, "%065d=tests/golden/models/bert", 1);
    named[0] = long_name;
    cr_assert_eq(models_open(&m, ops, NULL, named, 1, err, sizeof err), ERR_LIMIT);
    cr_assert(strstr(err, "64"), "%s", err);
    cr_assert_eq(models_open(&m, ops, NULL, NULL, 0, err, sizeof err), 0, "no models is fine");
    cr_assert_eq(models_count(m), 0);
    models_close(m);
}

Test(models, adapters_are_found_beside_models_and_are_none) {
    struct models *m;
    struct model *tied, *bert;
    const struct adapter *a, *b;
    char err[512] = "";
    const char *named[] = {"loud=tests/golden/lora/llama-all", "bert=tests/golden/models/bert",
                           "tied=tests/golden/models/llama-tied"};
    cr_assert_eq(models_open(&m, ops, "tests/golden/lora", named, 3, err, sizeof err), 0, "%s",
                 err);
    cr_assert_eq(models_count(m), 2, "adapters are no models");
    cr_assert_null(models_dir(m, bytes_str("llama-all")));
    cr_assert_eq(models_get(m, bytes_str("loud"), &tied, err, sizeof err), ERR_UNKNOWN);
    cr_assert_eq(models_get(m, bytes_str("tied"), &tied, err, sizeof err), 0, "%s", err);
    cr_assert_eq(models_get(m, bytes_str("bert"), &bert, err, sizeof err), 0, "%s", err);
    cr_assert_eq(models_adapter(m, tied, bytes_str("llama-some"), &a, err, sizeof err), 0, "%s",
                 err);
    cr_assert_eq(models_adapter(m, tied, bytes_str("llama-some"), &b, err, sizeof err), 0, "%s",
                 err);
    cr_assert(a && a == b, "opened once");
    cr_assert_eq(models_adapter(m, tied, bytes_str("loud"), &b, err, sizeof err), 0, "%s", err);
    cr_assert_neq(a, b);
    cr_assert_eq(models_adapter(m, tied, bytes_str("../x"), &a, err, sizeof err), ERR_UNKNOWN);
    cr_assert(!a && strstr(err, "adapter ../x") && strstr(err, "llama-some"), "%s", err);
    cr_assert_neq(models_adapter(m, bert, bytes_str("loud"), &a, err, sizeof err), 0);
    cr_assert(!a && strstr(err, "adapter_model.safetensors"), "%s", err);
    models_close(m);
}

Test(models, a_model_that_cannot_be_opened_says_why_each_time_it_is_asked_for) {
    struct scratch s;
    struct models *m;
    struct model *model;
    char err[512] = "", named[300];
    const char *list[] = {named};
    scratch_begin(&s, "tests/golden/models/bert");
    scratch_truncate(&s, "model.safetensors", 1000);
    snprintf(named, sizeof named, "cut=%s", s.dir);
    cr_assert_eq(models_open(&m, ops, NULL, list, 1, err, sizeof err), 0, "%s", err);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(models_get(m, bytes_str("cut"), &model, err, sizeof err), ERR_CORRUPT);
        cr_assert(!model && strstr(err, "truncated"), "%s", err);
    }
    models_close(m);
    scratch_end(&s);
}
