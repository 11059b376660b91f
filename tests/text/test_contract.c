#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "kernels/ops.h"
#include "schemas/pack.h"
#include "tests/text/help.h"
#include "workers/infer/models.h"
#include "workers/post/classify.h"
#include "workers/post/risk.h"
#include "workers/stage.h"

/* ---- the files ---- */

Test(policy, the_files_that_come_along_fit_together) {
    struct taxonomy *t;
    struct policy *p;
    struct classifier *c;
    struct risks *r;
    char err[512] = "";
    cr_assert_eq(taxonomy_load(&t, "pipelines/contract/taxonomy.yaml", err, sizeof err), 0, "%s",
                 err);
    cr_assert_eq(policy_load(&p, "pipelines/contract/policy.yaml", t, err, sizeof err), 0, "%s",
                 err);
    cr_assert_eq(classifier_open(&c, t, err, sizeof err), 0, "%s", err);
    cr_assert_eq(risks_open(&r, p, t, err, sizeof err), 0, "%s", err);
    cr_assert_eq(t->n_types, 41);
    for (uint32_t i = 0; i < t->n_types; i++)
        cr_assert(t->types[i].n_cues_en > 0 && t->types[i].n_cues_zh > 0, "%s", t->types[i].name);
    cr_assert_geq(p->n_rules, 15);
    risks_close(r);
    classifier_close(c);
    policy_free(p);
    taxonomy_free(t);
}

#define TYPES                                                                                      \
    "name: t\nversion: 3\nweights:\n  en: {cosine: 0.5, cue: 0.5, threshold: 0.3}\n"               \
    "  zh: {cosine: 0.1, cue: 0.9, threshold: 0.4}\ntypes:\n"                                      \
    "  - {name: Cap, en: a cap, zh: 上限, cues_en: ['cap'], cues_zh: ['上限']}\n"              \
    "  - {name: Term, en: a term, zh: 期限, cues_en: ['term'], cues_zh: []}\n"

static void taxonomy_must_refuse(const char *yaml, const char *says) {
    struct folder f;
    struct taxonomy *t;
    char path[512], err[512] = "";
    folder_begin(&f);
    folder_write(&f, "taxonomy.yaml", yaml, strlen(yaml));
    snprintf(path, sizeof path, "%s/taxonomy.yaml", f.dir);
    int rc = taxonomy_load(&t, path, err, sizeof err);
    folder_end(&f);
    cr_assert(rc < 0 && !t);
    cr_assert(strstr(err, says), "'%s' does not say '%s'", err, says);
}

Test(policy, a_damaged_taxonomy_is_refused_with_its_place) {
    taxonomy_must_refuse("", "empty");
    taxonomy_must_refuse("name: [", "line");
    taxonomy_must_refuse("name: t\nversion: 1\n", "weights");
    taxonomy_must_refuse(TYPES "  - {name: Cap, en: a, zh: b, cues_en: [], cues_zh: []}\n",
                         "twice");
    taxonomy_must_refuse(TYPES "  - {name: X, en: a, zh: b, cues_en: [], colour: red}\n", "colour");
}

Test(policy, a_cue_that_is_no_pattern_is_refused_with_its_type) {
    static const char *cues[] = {"fine", "("};
    struct taxonomy_type type = {
        .name = "Broken", .en = "a", .zh = "b", .cues_en = cues, .n_cues_en = 2};
    struct taxonomy t = {.name = "t", .types = &type, .n_types = 1};
    struct classifier *c;
    char err[512] = "";
    cr_assert_lt(classifier_open(&c, &t, err, sizeof err), 0);
    cr_assert(strstr(err, "Broken") && strstr(err, "cue 2"), "%s", err);
}

/* Loads TYPES and a policy of these rules; NULL when refused, with err. */
struct rules {
    struct folder folder;
    struct taxonomy *t;
    struct policy *p;
    char err[512];
};

static int rules_load(struct rules *r, const char *rules) {
    char path[512];
    *r = (struct rules){0};
    folder_begin(&r->folder);
    folder_write(&r->folder, "taxonomy.yaml", TYPES, strlen(TYPES));
    folder_write(&r->folder, "policy.yaml", rules, strlen(rules));
    snprintf(path, sizeof path, "%s/taxonomy.yaml", r->folder.dir);
    cr_assert_eq(taxonomy_load(&r->t, path, r->err, sizeof r->err), 0, "%s", r->err);
    snprintf(path, sizeof path, "%s/policy.yaml", r->folder.dir);
    int rc = policy_load(&r->p, path, r->t, r->err, sizeof r->err);
    folder_end(&r->folder);
    return rc;
}

static void rules_free(struct rules *r) {
    policy_free(r->p);
    taxonomy_free(r->t);
}

#define HEAD "name: p\nversion: 1\nrules:\n"
#define RULE(id, level, when, type, more)                                                          \
    "  - {id: " id ", level: " level ", when: " when ", type: " type ", why_en: w, why_zh: w" more \
    "}\n"

Test(policy, rules_that_say_nothing_are_refused_by_name) {
    static const struct {
        const char *rule, *says;
    } bad[] = {{RULE("a", "low", "present", "Nobody", ""), "Nobody"},
               {RULE("a", "grave", "present", "Cap", ""), "line"},
               {RULE("a", "low", "value", "Cap", ""), "entity"},
               {RULE("a", "low", "value", "Cap", ", entity: duration"), "above"},
               {RULE("a", "low", "present", "Cap", ", entity: duration"), "entity"},
               {RULE("a", "low", "absent", "Any", ""), "absent"},
               {RULE("a", "low", "absent", "Cap", ", match: x"), "absent"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[1024];
        struct rules r;
        snprintf(text, sizeof text, HEAD "%s", bad[i].rule);
        cr_assert_lt(rules_load(&r, text), 0, "%s", bad[i].rule);
        cr_assert(strstr(r.err, bad[i].says), "'%s' does not say '%s'", r.err, bad[i].says);
        rules_free(&r);
    }
}

/* ---- risks ---- */

Test(risk, rules_look_at_presence_absence_values_and_words) {
    static const char rules[] = HEAD RULE("cap", "medium", "present", "Cap", "")
        RULE("grave-cap", "high", "present", "Cap", ", match: 'gra(ve)'")
            RULE("no-term", "low", "absent", "Term", "") RULE("no-cap", "low", "absent", "Cap", "")
                RULE("long", "low", "value", "Any", ", entity: duration, above: 60, below: 100")
                    RULE("differ", "high", "value", "Any", ", entity: conflict");
    struct rules r;
    struct risks *risks;
    cr_assert_eq(rules_load(&r, rules), 0, "%s", r.err);
    cr_assert_eq(risks_open(&risks, r.p, r.t, r.err, sizeof r.err), 0, "%s", r.err);
    struct clause at[3] = {
        {.begin = 0, .end = 10}, {.begin = 10, .end = 20}, {.begin = 20, .end = 30}};
    struct typed_clause clauses[3] = {
        {.clause = &at[0], .seen = bytes_str("a GRAVE cap"), .type = 0},
        {.clause = &at[1], .seen = bytes_str("x"), .type = UINT32_MAX},
        {.clause = &at[2], .seen = bytes_str("y"), .type = UINT32_MAX, .also = {0}, .n_also = 1}};
    struct entity found[] = {{.type = ENTITY_DURATION, .begin = 12, .end = 14, .number = 90},
                             {.type = ENTITY_DURATION, .begin = 22, .end = 24, .number = 60},
                             {.type = ENTITY_AMOUNT, .begin = 25, .end = 27, .conflict = true}};
    struct entities entities = {.at = found, .n = 3};
    struct findings findings;
    struct arena a;
    arena_init(&a, 1u << 20);
    cr_assert_eq(risks_find(risks, clauses, 3, &entities, &a, &findings), 0);
    static const struct {
        const char *rule;
        uint32_t clause;
    } expected[] = {{"grave-cap", 0}, {"cap", 0}, {"long", 1},
                    {"differ", 2},    {"cap", 2}, {"no-term", UINT32_MAX}};
    cr_assert_eq(findings.n, 6);
    for (uint32_t i = 0; i < 6; i++) {
        cr_assert_str_eq(r.p->rules[findings.at[i].rule].id, expected[i].rule);
        cr_assert_eq(findings.at[i].clause, expected[i].clause);
    }
    arena_fini(&a);
    risks_close(risks);
    rules_free(&r);
}

/* ---- the stages on the real model ---- */

#define STAGES 4
struct engine {
    struct ops *ops;
    struct models *models;
    void *self[STAGES];
};
static const char *const stages[STAGES] = {"encode.document", "encode.contract", "infer.embed",
                                           "post.contract"};

static void engine_open(struct engine *e) {
    char named[600], err[512] = "";
    const char *list[] = {named};
    struct ops_config config = {.backend = "auto", .level = "auto", .threads = 1};
    snprintf(named, sizeof named, "m=%s", minilm_dir());
    *e = (struct engine){0};
    cr_assert_eq(ops_open(&e->ops, &config, err, sizeof err), 0, "%s", err);
    cr_assert_eq(models_open(&e->models, e->ops, NULL, list, 1, err, sizeof err), 0, "%s", err);
    struct stage_context context = {.models = e->models};
    for (int k = 0; k < STAGES; k++) {
        const struct stage_program *p = stage_find(bytes_str(stages[k]));
        if (!p->open) continue;
        cr_assert_eq(p->open(&e->self[k], &context, err, sizeof err), 0, "%s", err);
    }
}

static void engine_close(struct engine *e) {
    for (int k = 0; k < STAGES; k++) {
        const struct stage_program *p = stage_find(bytes_str(stages[k]));
        if (p->close) p->close(e->self[k]);
    }
    models_close(e->models);
    ops_close(e->ops);
}

struct job {
    struct stage_item item;
    struct arena arena;
    struct buf body;
};

static void job_begin(struct job *j, struct bytes text) {
    *j = (struct job){.item = {.kind = bytes_str("contract.analyze"), .model = bytes_str("m")}};
    arena_init(&j->arena, 1u << 28);
    struct packer p = packer_of(&j->body);
    pack_map(&p, 1);
    pack_str(&p, "text");
    pack_strn(&p, text);
    j->item.body = buf_bytes(&j->body);
    j->item.arena = &j->arena;
}

static void job_stage(struct job *j, const struct engine *e, int k) {
    struct stage_item *items[] = {&j->item};
    stage_find(bytes_str(stages[k]))->run_batch(e->self[k], items, 1);
    if (k < STAGES - 1 && j->item.error == JOB_ERROR_NONE) j->item.input = j->item.output;
}

static void job_end(struct job *j) {
    buf_fini(&j->body);
    arena_fini(&j->arena);
}

/* text[charspan], counted here once more from the beginning. */
static struct bytes cut(struct bytes text, const struct pack_val *span) {
    const unsigned char *s = text.data;
    uint64_t from = pack_as_u64(pack_at(span, 0), 0), to = pack_as_u64(pack_at(span, 1), 0), n = 0;
    size_t begin = 0, end = 0;
    for (size_t i = 0; i <= text.len; i++) {
        if (i < text.len && (s[i] & 0xC0) == 0x80) continue;
        if (n == from) begin = i;
        if (n == to) end = i;
        n++;
    }
    return bytes_of(s + begin, end - begin);
}

static const struct pack_val *clause_with(const struct pack_val *root, const char *words) {
    const struct pack_val *clauses = pack_get(root, "clauses");
    for (uint32_t i = 0; i < pack_len(clauses); i++) {
        struct bytes text = pack_as_bytes(pack_get(pack_at(clauses, i), "text"));
        if (memmem(text.data, text.len, words, strlen(words))) return pack_at(clauses, i);
    }
    cr_assert_fail("no clause has '%s'", words);
    return NULL;
}

struct expected {
    const char *words, *type, *rule; /* rule NULL: no risk */
};

static void example_is_analyzed(const char *path, const char *language, const struct expected *want,
                                size_t n) {
    struct engine e;
    struct job j, again;
    struct pack_doc *doc;
    void *data;
    size_t bytes;
    char err[256] = "";
    engine_open(&e);
    cr_assert_eq(file_read(path, 1u << 20, &data, &bytes, err, sizeof err), 0, "%s", err);
    struct bytes text = bytes_of(data, bytes);
    job_begin(&j, text);
    job_begin(&again, text);
    for (int k = 0; k < STAGES; k++) {
        job_stage(&j, &e, k);
        job_stage(&again, &e, k);
        cr_assert_eq(j.item.error, JOB_ERROR_NONE, "%s: %s", stages[k], j.item.reason);
    }
    cr_assert(bytes_eq(j.item.output, again.item.output), "the same text gives the same bytes");
    cr_assert_eq(pack_parse(&doc, j.item.output, err, sizeof err), 0, "%s", err);
    const struct pack_val *root = pack_root(doc), *list = pack_get(root, "entities");
    cr_assert(bytes_is(pack_as_bytes(pack_get(root, "language")), language));
    cr_assert(bytes_is(pack_as_bytes(pack_get(root, "method")), "zero-shot"));
    for (uint32_t i = 0; i < pack_len(list); i++)
        cr_assert(bytes_eq(cut(text, pack_get(pack_at(list, i), "charspan")),
                           pack_as_bytes(pack_get(pack_at(list, i), "value"))));
    list = pack_get(root, "clauses");
    for (uint32_t i = 0; i < pack_len(list); i++)
        cr_assert(bytes_eq(cut(text, pack_get(pack_at(list, i), "charspan")),
                           pack_as_bytes(pack_get(pack_at(list, i), "text"))));
    for (size_t i = 0; i < n; i++) {
        const struct pack_val *c = clause_with(root, want[i].words), *risk = pack_get(c, "risk");
        struct bytes type = pack_as_bytes(pack_get(c, "type"));
        cr_expect(bytes_is(type, want[i].type), "%s: %.*s", want[i].words, (int)type.len,
                  (const char *)type.data);
        if (want[i].rule)
            cr_expect(bytes_is(pack_as_bytes(pack_get(risk, "rule")), want[i].rule), "%s",
                      want[i].words);
        else
            cr_expect_eq(pack_kind(risk), PACK_NIL, "%s", want[i].words);
    }
    pack_free(doc);
    free(data);
    job_end(&j);
    job_end(&again);
    engine_close(&e);
}

Test(contract, the_english_example_is_read_as_it_is_meant) {
    static const struct expected want[] = {
        {"renews automatically", "Renewal Term", "renewal-notice-over-60-days"},
        {"at least 12,000 units", "Minimum Commitment", "minimum-commitment"},
        {"liquidated damages", "Liquidated Damages", "daily-penalty-high"},
        {"liability is unlimited", "Uncapped Liability", "uncapped-liability"},
        {"laws of the\nState of New York", "Governing Law", NULL},
        {"general liability insurance", "Insurance", NULL},
        {"ship each confirmed order", "Other", NULL}};
    example_is_analyzed("examples/contract-en.txt", "en", want, sizeof want / sizeof *want);
}

Test(contract, the_chinese_example_is_read_as_it_is_meant) {
    static const struct expected want[] = {
        {"自动续展一年", "Expiration Date", "renewal-notice-over-60-days"},
        {"不低于人民币二十万元", "Minimum Commitment", "minimum-commitment"},
        {"千分之三", "Liquidated Damages", "daily-penalty-high"},
        {"无限责任", "Uncapped Liability", "uncapped-liability"},
        {"均适用中华人民共和国法律", "Governing Law", NULL},
        {"产品责任险", "Insurance", NULL},
        {"查阅乙方与本合同有关的账簿", "Audit Rights", NULL},
        {"青禾精密制造有限公司", "Parties", NULL},
        {"商业秘密", "Other", NULL}};
    example_is_analyzed("examples/contract-zh.txt", "zh", want, sizeof want / sizeof *want);
}

Test(contract, what_cannot_be_analyzed_fails_its_job_with_the_reason) {
    struct engine e;
    struct job j;
    engine_open(&e);
    job_begin(&j, bytes_str(" \n\t \n"));
    job_stage(&j, &e, 0);
    job_stage(&j, &e, 1);
    cr_assert_eq(j.item.error, JOB_ERROR_PERMANENT);
    cr_assert(strstr(j.item.reason, "white space"), "%s", j.item.reason);
    job_end(&j);
    job_begin(&j, bytes_str("A first clause.\n\nA second clause that is longer."));
    for (int k = 0; k < 3; k++) job_stage(&j, &e, k);
    cr_assert_eq(j.item.error, JOB_ERROR_NONE, "%s", j.item.reason);
    atomic_bool cancelled = true;
    j.item.cancelled = &cancelled;
    job_stage(&j, &e, 3);
    cr_assert_eq(j.item.error, JOB_ERROR_CANCELLED);
    job_end(&j);
    engine_close(&e);
}
