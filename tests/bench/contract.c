/* contract.c - how often contract.analyze is right on contracts that people have labelled.
 *
 * usage: contract [--model DIR] [--threads N] [--all]
 *
 * CUAD (PENSTOCK_DATA/contracts/clauses_train.csv). Clause types: each labelled text against the
 * taxonomy; right when one of the labels of that text is found first (top-1) or among the first
 * three. Every second contract is held out: weights, threshold and grammars were chosen on the
 * others; --all takes both halves. Entities: the annotators' answer is among what the grammar finds
 * in the labelled texts. Prints a table and writes build/bench/contract.json; the limit is 1.
 *
 * Units: shares.  Owner, errors: a program; it exits 1 with a message. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "kernels/ops.h"
#include "tests/bench/contract/cuad.h"
#include "tests/bench/report/report.h"
#include "workers/encode/tokenizer.h"
#include "workers/infer/model.h"
#include "workers/infer/models.h"
#include "workers/post/classify.h"
#include "workers/post/contract_dir.h"
#include "workers/post/entities.h"
#include "workers/post/values.h"

enum { BATCH = 32, FIRST_CLAUSE = 3 }; /* categories before are names and dates, not clauses */

struct bench {
    struct ops *ops;
    struct models *models;
    struct model *model;
    struct tokenizer *tokenizer;
    struct taxonomy *taxonomy;
    struct classifier *classifier;
    struct grammar *grammar;
    struct cuad cuad;
    bool all;
    struct report *report;
};

static void die(const char *what) {
    fprintf(stderr, "contract: %s\n", what);
    exit(1);
}

static void put_row(struct bench *b, const char *name, uint32_t right, uint32_t of) {
    double share = of ? (double)right / of : 0;
    report_add(b->report, &(struct report_row){.name = name,
                                               .unit = "share",
                                               .value = share,
                                               .limit_of = "all right",
                                               .limit = 1,
                                               .runs = (int)of});
}

/* ---- clause types ---- */

struct tally {
    uint32_t of, top1, top3, answered, answered_right;
};

/* Whether a contract has this very text under this category. */
static bool labelled(const struct bench *b, uint32_t text, uint32_t category) {
    const struct cuad_text *t = &b->cuad.texts[text];
    uint32_t first = text;
    while (first > 0 && b->cuad.texts[first - 1].contract == t->contract) first--;
    for (uint32_t i = first; i < b->cuad.n_texts && b->cuad.texts[i].contract == t->contract; i++)
        if (b->cuad.texts[i].category == category && strcmp(b->cuad.texts[i].text, t->text) == 0)
            return true;
    return false;
}

/* A text that stands under several categories counts once, where it stands first. */
static bool counts(const struct bench *b, uint32_t text) {
    const struct cuad_text *t = &b->cuad.texts[text];
    if (!b->all && t->contract % 2 == 0) return false;
    for (uint32_t k = 0; k < t->category; k++)
        if (labelled(b, text, k)) return false;
    for (uint32_t i = text; i > 0 && b->cuad.texts[i - 1].contract == t->contract &&
                            b->cuad.texts[i - 1].category == t->category;
         i--)
        if (strcmp(b->cuad.texts[i - 1].text, t->text) == 0) return false;
    return true;
}

static void judge(const struct bench *b, uint32_t text, const struct class_score *s,
                  struct tally *all, struct tally *clauses) {
    uint32_t best[3] = {0}, n = b->taxonomy->n_types;
    bool right[3] = {false, false, false};
    for (uint32_t k = 0; k < 3; k++) {
        best[k] = UINT32_MAX;
        for (uint32_t i = 0; i < n; i++) {
            bool taken = (k > 0 && best[0] == i) || (k > 1 && best[1] == i);
            if (!taken && (best[k] == UINT32_MAX || s[i].score > s[best[k]].score)) best[k] = i;
        }
        right[k] = labelled(b, text, best[k]);
    }
    bool answered = s[best[0]].score >= b->taxonomy->weights.en.threshold;
    struct tally *to[2] = {all, b->cuad.texts[text].category >= FIRST_CLAUSE ? clauses : NULL};
    for (int k = 0; k < 2 && to[k]; k++) {
        to[k]->of++;
        to[k]->top1 += right[0];
        to[k]->top3 += right[0] || right[1] || right[2];
        to[k]->answered += answered;
        to[k]->answered_right += answered && right[0];
    }
}

static void judge_batch(struct bench *b, const float *types, uint32_t dim, const uint32_t *texts,
                        uint32_t n, struct tally *all, struct tally *clauses) {
    static float vectors[BATCH * 4096];
    uint32_t begin[BATCH + 1] = {0};
    struct arena a;
    struct buf ids = {0};
    char err[256] = "";
    struct class_score *scores = calloc(b->taxonomy->n_types, sizeof *scores);
    arena_init(&a, 256u << 20);
    for (uint32_t i = 0; i < n; i++) {
        struct tokens k;
        if (tokenizer_encode(b->tokenizer, bytes_str(b->cuad.texts[texts[i]].text), true,
                             model_info(b->model)->text_context, &a, &k, err, sizeof err) < 0)
            die(err);
        buf_append(&ids, k.ids, k.n * sizeof *k.ids);
        begin[i + 1] = begin[i] + k.n;
    }
    if (ids.error || !scores || dim > 4096) die("no memory");
    if (model_embed(b->model, n, begin, (const uint32_t *)(const void *)ids.data, vectors, err,
                    sizeof err) < 0)
        die(err);
    for (uint32_t i = 0; i < n; i++) {
        classifier_score(b->classifier, LANGUAGE_EN, types, dim, vectors + (size_t)i * dim,
                         bytes_str(b->cuad.texts[texts[i]].text), 0, scores);
        judge(b, texts[i], scores, all, clauses);
    }
    free(scores);
    buf_fini(&ids);
    arena_fini(&a);
}

static void clause_types(struct bench *b) {
    struct tally all = {0}, clauses = {0};
    uint32_t batch[BATCH], n = 0, dim;
    const float *types;
    char err[512] = "";
    if (classifier_vectors(b->classifier, b->models, bytes_str("m"), LANGUAGE_EN, &types, &dim, err,
                           sizeof err) < 0)
        die(err);
    for (uint32_t i = 0; i < b->cuad.n_texts; i++) {
        if (counts(b, i)) batch[n++] = i;
        if (n < BATCH && i + 1 < b->cuad.n_texts) continue;
        judge_batch(b, types, dim, batch, n, &all, &clauses);
        n = 0;
    }
    put_row(b, "all 41 categories, top-1", all.top1, all.of);
    put_row(b, "all 41 categories, top-3", all.top3, all.of);
    put_row(b, "without names and dates, top-1", clauses.top1, clauses.of);
    put_row(b, "without names and dates, top-3", clauses.top3, clauses.of);
    put_row(b, "without names and dates, over the threshold", clauses.answered, clauses.of);
    put_row(b, "of those over the threshold, right", clauses.answered_right, clauses.answered);
}

/* ---- entities ---- */

/* "5/8/2014" as ISO 8601; false for any other answer. */
static bool date_answer(const char *answer, char iso[40]) {
    unsigned m, d, y;
    char rest;
    if (sscanf(answer, "%2u/%2u/%4u%c", &m, &d, &y, &rest) != 3) return false;
    snprintf(iso, 40, "%04u-%02u-%02u", y < 70 ? y + 2000 : y < 100 ? y + 1900 : y, m, d);
    return true;
}

/* "30 days" as ISO 8601. */
static bool duration_answer(const char *answer, char iso[24]) {
    double n, days;
    char unit[16];
    bool business;
    return sscanf(answer, "%lf %15s", &n, unit) == 2 &&
           value_duration(n, bytes_str(unit), iso, &days, &business);
}

/* All texts of a category in a contract, a line each. */
static void joined(const struct bench *b, uint32_t contract, uint32_t category, struct buf *out) {
    buf_clear(out);
    for (uint32_t i = 0; i < b->cuad.n_texts; i++)
        if (b->cuad.texts[i].contract == contract && b->cuad.texts[i].category == category)
            buf_printf(out, "%s\n", b->cuad.texts[i].text);
}

static bool found(const struct bench *b, struct bytes text, enum entity_type type,
                  const char *iso) {
    struct arena a;
    struct entities e;
    char err[256];
    bool hit = false;
    arena_init(&a, 64u << 20);
    if (entities_find(b->grammar, text, GRAMMAR_EN, LANGUAGE_EN, NULL, &a, &e, err, sizeof err) < 0)
        die(err);
    for (uint32_t i = 0; i < e.n; i++) {
        if (e.at[i].type != type) continue;
        hit |= type == ENTITY_LAW ? e.at[i].name.len == strlen(iso) &&
                                        strncasecmp(e.at[i].name.data, iso, strlen(iso)) == 0
                                  : strcmp(e.at[i].iso, iso) == 0;
    }
    arena_fini(&a);
    return hit;
}

static bool has_figures(struct bytes text) {
    for (size_t i = 0; i < text.len; i++)
        if (isdigit(((const unsigned char *)text.data)[i])) return true;
    return false;
}

static void entity_case(struct bench *b, const char *name, const char *category,
                        enum entity_type type) {
    uint32_t k = 0, of = 0, right = 0;
    struct buf text = {0};
    while (k < CUAD_CATEGORIES && strcmp(b->cuad.names[k], category) != 0) k++;
    if (k == CUAD_CATEGORIES) die(category);
    for (uint32_t c = 0; c < b->cuad.contracts; c++) {
        if (!b->all && c % 2 == 0) continue;
        char iso[128];
        const char *answer = b->cuad.answers[c * CUAD_CATEGORIES + k];
        bool is = type == ENTITY_DATE       ? date_answer(answer, iso)
                  : type == ENTITY_DURATION ? duration_answer(answer, iso)
                                            : *answer != '\0' && strlen(answer) < sizeof iso;
        if (type == ENTITY_LAW && is) snprintf(iso, sizeof iso, "%s", answer);
        joined(b, c, k, &text);
        if (!is || text.len == 0 || (type == ENTITY_DATE && !has_figures(buf_bytes(&text))))
            continue;
        of++;
        right += found(b, buf_bytes(&text), type, iso);
    }
    buf_fini(&text);
    put_row(b, name, right, of);
}

/* ---- the program ---- */

static const char *option(int argc, char **argv, const char *name) {
    for (int i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], name) == 0) return argv[i + 1];
    return NULL;
}

static void open_all(struct bench *b, const char *model, const char *threads) {
    char named[700], path[4096], err[512] = "";
    const char *list[] = {named}, *data = getenv("PENSTOCK_DATA"), *home = getenv("HOME");
    const char *cache = getenv("PENSTOCK_CACHE");
    struct ops_config config = {"auto", "auto", threads ? (uint32_t)strtoul(threads, NULL, 10) : 0};
    if (!data || !*data) {
        printf("skipped: PENSTOCK_DATA is not set, so there are no labelled contracts\n");
        exit(0);
    }
    if (model)
        snprintf(named, sizeof named, "m=%s", model);
    else if (cache && *cache)
        snprintf(named, sizeof named, "m=%s/models/all-MiniLM-L6-v2", cache);
    else
        snprintf(named, sizeof named, "m=%s/.cache/penstock/models/all-MiniLM-L6-v2",
                 home ? home : "");
    snprintf(path, sizeof path, "%s/contracts/clauses_train.csv", data);
    if (cuad_open(&b->cuad, path) < 0) exit(1);
    if (ops_open(&b->ops, &config, err, sizeof err) < 0 ||
        models_open(&b->models, b->ops, NULL, list, 1, err, sizeof err) < 0 ||
        models_get(b->models, bytes_str("m"), &b->model, err, sizeof err) < 0 ||
        models_tokenizer(b->models, bytes_str("m"), &b->tokenizer, err, sizeof err) < 0 ||
        contract_file("taxonomy.yaml", path, sizeof path, err, sizeof err) < 0 ||
        taxonomy_load(&b->taxonomy, path, err, sizeof err) < 0 ||
        classifier_open(&b->classifier, b->taxonomy, err, sizeof err) < 0 ||
        grammar_open(&b->grammar, err, sizeof err) < 0)
        die(err);
    if (b->taxonomy->n_types != CUAD_CATEGORIES) die("the taxonomy is not CUAD's");
    for (uint32_t k = 0; k < CUAD_CATEGORIES; k++)
        if (strcmp(b->taxonomy->types[k].name, b->cuad.names[k]) != 0) die(b->cuad.names[k]);
}

int main(int argc, char **argv) {
    struct bench b = {0};
    for (int i = 1; i < argc; i++) b.all |= strcmp(argv[i], "--all") == 0;
    open_all(&b, option(argc, argv, "--model"), option(argc, argv, "--threads"));
    printf("%u contracts of CUAD, %u labelled texts; measured on %s\n", b.cuad.contracts,
           b.cuad.n_texts, b.all ? "all" : "every second contract");
    b.report = report_open("contract", 1);
    clause_types(&b);
    entity_case(&b, "agreement date, normalized", "Agreement Date", ENTITY_DATE);
    entity_case(&b, "effective date, normalized", "Effective Date", ENTITY_DATE);
    entity_case(&b, "expiration date, normalized", "Expiration Date", ENTITY_DATE);
    entity_case(&b, "renewal notice period, normalized", "Notice Period To Terminate Renewal",
                ENTITY_DURATION);
    entity_case(&b, "governing law", "Governing Law", ENTITY_LAW);
    report_close(b.report);
    grammar_close(b.grammar);
    classifier_close(b.classifier);
    taxonomy_free(b.taxonomy);
    models_close(b.models);
    ops_close(b.ops);
    cuad_close(&b.cuad);
    return 0;
}
