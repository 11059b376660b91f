#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "kernels/ops.h"
#include "schemas/pack.h"
#include "tests/qc/help.h"
#include "workers/infer/models.h"
#include "workers/stage.h"

#define ITEMS 8

static const char *const stages[3] = {"encode.part", "infer.embed", "post.qc"};

/* The three stages with MiniLM; and jobs that run through them together. */
static struct engine {
    struct ops *ops;
    struct models *models;
    void *self[3];
    struct stage_item item[ITEMS];
    struct arena arena[ITEMS], files;
    struct pack_doc *doc[ITEMS]; /* of the outputs */
    uint32_t n;
} engine;

static const char *minilm_dir(void) {
    static char dir[512];
    struct stat st;
    const char *cache = getenv("PENSTOCK_CACHE"), *xdg = getenv("XDG_CACHE_HOME");
    const char *home = getenv("HOME"), *name = "models/all-MiniLM-L6-v2";
    if (cache && *cache)
        snprintf(dir, sizeof dir, "%s/%s", cache, name);
    else if (xdg && *xdg)
        snprintf(dir, sizeof dir, "%s/penstock/%s", xdg, name);
    else
        snprintf(dir, sizeof dir, "%s/.cache/penstock/%s", home ? home : "", name);
    if (stat(dir, &st) != 0)
        cr_skip_test("all-MiniLM-L6-v2 is not in the user's cache: run ops/models");
    return dir;
}

static void begin(void) {
    struct engine *e = &engine;
    char named[600], err[512];
    const char *const list[] = {named};
    struct ops_config config = {.backend = "auto", .level = "auto", .threads = 1};
    *e = (struct engine){0};
    snprintf(named, sizeof named, "m=%s", minilm_dir());
    setenv("PENSTOCK_RECIPES", "examples/qc", 1);
    cr_assert_eq(ops_open(&e->ops, &config, err, sizeof err), 0, "%s", err);
    cr_assert_eq(models_open(&e->models, e->ops, NULL, list, 1, err, sizeof err), 0, "%s", err);
    struct stage_context context = {.models = e->models};
    for (int k = 0; k < 3; k++) {
        const struct stage_program *p = stage_find(bytes_str(stages[k]));
        cr_assert_not_null(p, "%s is not registered", stages[k]);
        if (p->open) cr_assert_eq(p->open(&e->self[k], &context, err, sizeof err), 0, "%s", err);
    }
    arena_init(&e->files, 1u << 28);
}

static void end(void) {
    struct engine *e = &engine;
    for (int k = 0; k < 3; k++) {
        const struct stage_program *p = stage_find(bytes_str(stages[k]));
        if (p->close) p->close(e->self[k]);
    }
    for (uint32_t i = 0; i < e->n; i++) {
        pack_free(e->doc[i]);
        arena_fini(&e->arena[i]);
    }
    models_close(e->models);
    ops_close(e->ops);
    arena_fini(&e->files);
}
TestSuite(inspect, .init = begin, .fini = end);

/* A job of this body; strings that are NULL are left out. */
static void submit(struct bytes image, struct bytes log, const char *recipe, const char *part) {
    struct engine *e = &engine;
    struct buf b = {0};
    struct packer p = packer_of(&b);
    cr_assert_lt(e->n, ITEMS);
    pack_map(&p, log.data ? 4 : 3);
    pack_str(&p, "image");
    pack_bin(&p, image);
    pack_kv_str(&p, "recipe", recipe);
    pack_kv_str(&p, "part_id", part);
    if (log.data) {
        pack_str(&p, "log");
        pack_bin(&p, log);
    }
    arena_init(&e->arena[e->n], 1u << 28);
    void *body = arena_copy(&e->arena[e->n], b.data, b.len);
    e->item[e->n] = (struct stage_item){.job = ((uint64_t)1 << 50) + e->n,
                                        .kind = bytes_str("qc.inspect"),
                                        .body = bytes_of(body, b.len),
                                        .model = bytes_str("m"),
                                        .error = JOB_ERROR_TRANSIENT,
                                        .arena = &e->arena[e->n]};
    e->n++;
    buf_fini(&b);
}

/* All jobs through all stages, as one batch; those that fail stop there. */
static void run_all(void) {
    struct engine *e = &engine;
    char err[256];
    bool alive[ITEMS];
    for (uint32_t i = 0; i < e->n; i++) alive[i] = true;
    for (int k = 0; k < 3; k++) {
        struct stage_item *batch[ITEMS];
        uint32_t n = 0;
        for (uint32_t i = 0; i < e->n; i++)
            if (alive[i]) batch[n++] = &e->item[i];
        for (uint32_t i = 0; i < n; i++) batch[i]->error = JOB_ERROR_TRANSIENT;
        stage_find(bytes_str(stages[k]))->run_batch(e->self[k], batch, n);
        for (uint32_t i = 0; i < e->n; i++) {
            alive[i] = alive[i] && e->item[i].error == JOB_ERROR_NONE;
            e->item[i].input = e->item[i].output;
        }
    }
    for (uint32_t i = 0; i < e->n; i++)
        if (alive[i])
            cr_assert_eq(pack_parse(&e->doc[i], e->item[i].output, err, sizeof err), 0, "%s", err);
}

static struct bytes sample(const char *name) {
    char path[200];
    snprintf(path, sizeof path, "examples/qc/%s", name);
    return file_of(&engine.files, path);
}

static const struct pack_val *result(uint32_t i) {
    cr_assert_eq(engine.item[i].error, JOB_ERROR_NONE, "job %u: %s", i, engine.item[i].reason);
    return pack_root(engine.doc[i]);
}

static void is(const struct pack_val *map, const char *key, const char *text) {
    struct bytes b = pack_as_bytes(pack_get(map, key));
    cr_assert(bytes_is(b, text), "%s is \"%.*s\", not \"%s\"", key, (int)b.len,
              b.data ? (const char *)b.data : "", text);
}

static void fails(uint32_t i, const char *says) {
    const struct stage_item *item = &engine.item[i];
    cr_assert_eq(item->error, JOB_ERROR_PERMANENT, "job %u: %d %s", i, item->error, item->reason);
    cr_assert(strstr(item->reason, says), "job %u: \"%s\" is not in: %s", i, says, item->reason);
}

/* Whether some defect's box lies within slack of this one. */
static bool defect_at(const struct pack_val *r, int x, int y, int w, int h, int slack) {
    const struct pack_val *all = pack_get(r, "defects");
    for (uint32_t i = 0; i < pack_len(all); i++) {
        const struct pack_val *box = pack_get(pack_at(all, i), "box");
        int64_t bx = pack_as_i64(pack_at(box, 0), -1), by = pack_as_i64(pack_at(box, 1), -1);
        int64_t bw = pack_as_i64(pack_at(box, 2), -1), bh = pack_as_i64(pack_at(box, 3), -1);
        if (bx >= x - slack && by >= y - slack && bx + bw <= x + w + slack &&
            by + bh <= y + h + slack)
            return true;
    }
    return false;
}

Test(inspect, the_good_sample_is_ok_and_the_bad_one_ng_with_its_cause) {
    submit(sample("part-ok.png"), sample("part-ok.log"), "board-a", "SN41");
    submit(sample("part-ng.png"), sample("part-ng.log"), "board-a", "SN42");
    run_all();
    const struct pack_val *ok = result(0), *ng = result(1), *first;
    is(ok, "state", "OK");
    cr_assert_eq(pack_len(pack_get(ok, "defects")), 0);
    cr_assert_eq(pack_len(pack_get(ok, "causes")), 0);
    is(ng, "state", "NG");
    cr_assert_eq(pack_len(pack_get(ng, "defects")), 2);
    cr_assert(defect_at(ng, 186, 113, 20, 9, 6), "the missing resistor");
    cr_assert(defect_at(ng, 162, 136, 7, 13, 6), "the bridge");
    cr_assert_eq(pack_len(pack_get(ng, "causes")), 3);
    first = pack_at(pack_get(ng, "causes"), 0);
    is(first, "cause", "nozzle vacuum loss");
    const struct pack_val *evidence = pack_get(first, "evidence");
    cr_assert_eq(pack_as_u64(pack_get(pack_at(evidence, 0), "line"), 0), 17);
    struct bytes text = pack_as_bytes(pack_get(pack_at(evidence, 0), "text"));
    cr_assert(memmem(text.data, text.len, "R7 lost from nozzle 4", 21));
}

Test(inspect, a_result_has_the_names_of_opc_40100_and_its_versions) {
    submit(sample("part-ng.png"), sample("part-ng.log"), "board-a", "SN42");
    run_all();
    const struct pack_val *r = result(0);
    char id[JOB_ID_CHARS + 1];
    job_id_text(engine.item[0].job, id);
    is(r, "PartId", "SN42");
    is(r, "RecipeId", "board-a");
    is(r, "ResultId", id);
    is(r, "MeasId", id);
    is(r, "method", "zero-shot");
    cr_assert_eq(pack_as_u64(pack_get(r, "ResultState"), 0), 1);
    cr_assert_eq(pack_kind(pack_get(r, "IsPartial")), PACK_BOOL);
    cr_assert_eq(pack_kind(pack_get(r, "IsSimulated")), PACK_BOOL);
    cr_assert_eq(pack_as_u64(pack_get(r, "version"), 0), 1);
    cr_assert_eq(pack_as_f64(pack_get(r, "threshold"), 9), 0);
    cr_assert_gt(pack_as_f64(pack_get(r, "score"), 0), 0.2);
    const struct pack_val *d = pack_at(pack_get(r, "defects"), 0), *size = pack_get(d, "size");
    is(d, "class", "missing part or excess solder");
    cr_assert_gt(pack_as_u64(pack_get(d, "contrast"), 0), 40);
    cr_assert_geq(pack_as_u64(pack_get(size, "area"), 0), 24);
    cr_assert_eq(pack_as_u64(pack_get(size, "width"), 0),
                 pack_as_u64(pack_at(pack_get(d, "box"), 2), 1));
    cr_assert_eq(pack_len(pack_get(r, "rules")), 2);
    cr_assert(pack_as_bool(pack_get(pack_at(pack_get(r, "rules"), 0), "holds"), false));
}

Test(inspect, the_same_log_in_three_formats_gives_the_same_cause) {
    static const char *const formats[] = {"text", "csv", "jsonl"};
    submit(sample("part-ng.png"), sample("part-ng.log"), "board-a", "a");
    submit(sample("part-ng.png"), sample("part-ng.csv"), "board-a", "b");
    submit(sample("part-ng.png"), sample("part-ng.jsonl"), "board-a", "c");
    run_all();
    for (uint32_t i = 0; i < 3; i++) {
        const struct pack_val *log = pack_get(result(i), "log");
        const struct pack_val *cause = pack_at(pack_get(result(i), "causes"), 0);
        is(log, "format", formats[i]);
        cr_assert_eq(pack_as_u64(pack_get(log, "malformed"), 9), 0);
        cr_assert_eq(pack_as_u64(pack_get(log, "errors"), 9), 1);
        is(cause, "cause", "nozzle vacuum loss");
        cr_assert_float_eq(pack_as_f64(pack_get(cause, "score"), 0), 0.78, 0.05);
    }
}

Test(inspect, bad_jobs_fail_with_a_reason_each_and_harm_no_other) {
    struct bytes png = sample("part-ng.png"), noise = {arena_alloc(&engine.files, 5000), 5000};
    for (size_t i = 0; i < noise.len; i++) ((uint8_t *)(uintptr_t)noise.data)[i] = (uint8_t)(i * i);
    submit(noise, noise, "board-a", "an image of noise");
    submit(bytes_of(png.data, png.len / 2), noise, "board-a", "half an image");
    submit(png, noise, "board-b", "no such recipe");
    submit(png, noise, "name: x\nversion: 1\nreference: board-a.png\n", "a file from outside");
    submit(png, (struct bytes){NULL, 0}, "name: x\nversion: 1\n", "nothing to compare with");
    submit(png, noise, "name: x\nversion: one\n", "no recipe");
    submit(png, noise, "board-a", "a log of noise");
    submit(sample("part-ok.png"), (struct bytes){NULL, 0}, "board-a", "no log");
    run_all();
    fails(0, "neither JPEG nor PNG");
    fails(1, "PNG: ");
    fails(2, "there is no recipe board-b in examples/qc");
    fails(3, "cannot name a file");
    fails(4, "none of its ng rules can be decided");
    fails(5, "recipe: ");
    is(result(6), "state", "NG");
    cr_assert_gt(pack_as_u64(pack_get(pack_get(result(6), "log"), "malformed"), 0), 0);
    is(result(7), "state", "OK");
    cr_assert_eq(pack_kind(pack_get(result(7), "log")), PACK_NIL);
}

Test(inspect, a_job_may_bring_its_own_reference_and_recipe) {
    struct engine *e = &engine;
    struct image reference = picture_board(&e->files, 96, 64, 1, 3);
    struct image part = picture_copy(&e->files, &reference);
    picture_box(&part, 40, 20, 8, 8, 0);
    struct bytes files[2] = {png_of_picture(&e->files, &part),
                             png_of_picture(&e->files, &reference)};
    struct buf b = {0};
    struct packer p = packer_of(&b);
    submit(files[0], (struct bytes){NULL, 0}, "x\n", "x");
    pack_map(&p, 6);
    pack_str(&p, "image"), pack_bin(&p, files[0]);
    pack_str(&p, "reference"), pack_bin(&p, files[1]);
    pack_kv_str(&p, "recipe", "name: mine\nversion: 9\ncompare: {tolerance_px: 1}\n");
    pack_kv_str(&p, "part_id", "p");
    pack_kv_str(&p, "meas_id", "m-1");
    pack_kv_bool(&p, "simulated", true);
    e->item[0].body = bytes_of(arena_copy(e->item[0].arena, b.data, b.len), b.len);
    buf_fini(&b);
    run_all();
    is(result(0), "state", "NG");
    is(result(0), "MeasId", "m-1");
    is(result(0), "RecipeId", "mine");
    cr_assert(pack_as_bool(pack_get(result(0), "IsSimulated"), false));
    cr_assert_eq(pack_as_u64(pack_get(result(0), "version"), 0), 9);
    cr_assert(defect_at(result(0), 40, 20, 8, 8, 1));
}

Test(inspect, results_do_not_depend_on_the_batch) {
    submit(sample("part-ng.png"), sample("part-ng.log"), "board-a", "p");
    run_all();
    struct bytes alone =
        bytes_of(arena_copy(&engine.files, engine.item[0].output.data, engine.item[0].output.len),
                 engine.item[0].output.len);
    engine.item[0].input = (struct bytes){NULL, 0};
    pack_free(engine.doc[0]);
    engine.doc[0] = NULL;
    submit(sample("part-ok.png"), sample("part-ok.log"), "board-a", "q");
    submit(sample("part-ng.png"), sample("part-ng.csv"), "board-a", "r");
    run_all();
    cr_assert(bytes_eq(alone, engine.item[0].output));
}
