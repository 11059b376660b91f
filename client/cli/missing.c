#include "client/cli/missing.h"

#include <stdio.h>
#include <string.h>

#include "base/json.h"

#define ASK_MS 1000

static const char *str(const struct json *j, const char *key) {
    const char *s = json_str(json_get(j, key));
    return s ? s : "";
}

static struct json *document(int rc, struct penstock_doc *d) {
    struct json *j = NULL;
    if (rc == 0) json_parse(&j, d->json, strlen(d->json), NULL, 0);
    penstock_doc_free(d);
    return j;
}

static bool has(const struct json *names, const char *name) {
    for (size_t i = 0; i < json_len(names); i++) {
        const char *s = json_str(json_at(names, i));
        if (s && strcmp(s, name) == 0) return true;
    }
    return false;
}

/* The stage that the job waits for; NULL when it waits for none. */
static const struct json *waited_for(const struct json *job) {
    if (strcmp(str(job, "state"), "ready") != 0) return NULL;
    const struct json *stages = json_get(job, "stages");
    for (size_t i = 0; i < json_len(stages); i++)
        if (strcmp(str(json_at(stages, i), "state"), "ready") == 0) return json_at(stages, i);
    return NULL;
}

static bool tell(const char *job, const struct json *stage, const struct json *workers) {
    const char *run = str(stage, "run"), *model = str(stage, "model");
    size_t n = 0, runs = 0;
    if (!run[0]) return false;
    for (size_t i = 0; i < json_len(workers); i++) {
        const struct json *w = json_at(workers, i);
        if (json_bool(json_get(w, "leaving"), false)) continue;
        n++;
        if (!has(json_get(w, "runs"), run)) continue;
        if (!model[0] || has(json_get(w, "models"), model)) return false;
        runs++;
    }
    fprintf(stderr, "penstock: job %s waits for stage %s (%s%s%s), and ", job, str(stage, "name"),
            run, model[0] ? " with model " : "", model);
    if (n == 0)
        fputs("no worker is registered, or this key may not see it; `penstock up` starts one\n",
              stderr);
    else if (runs == 0)
        fprintf(stderr,
                "no worker runs %s; start one that does: `penstock-worker --stages %s`, or, where "
                "it is a stage in Python, `penstock up --python FILE`\n",
                run, run);
    else
        fprintf(stderr,
                "no worker has that model; import it (`penstock model import`) or name its folder, "
                "and start the workers again: `penstock up --model %s=DIR`\n",
                model);
    return true;
}

bool missing_tell(struct penstock *p, const char *job) {
    struct penstock_doc d;
    char err[PENSTOCK_ERR_BYTES];
    bool told = false;
    struct json *shown = document(penstock_show(p, job, &d, ASK_MS, err, sizeof err), &d);
    const struct json *stage = waited_for(shown);
    if (stage) {
        struct json *workers = document(penstock_workers(p, &d, ASK_MS, err, sizeof err), &d);
        if (workers) told = tell(job, stage, workers);
        json_free(workers);
    }
    json_free(shown);
    return told;
}

int missing_wait(struct penstock *p, const char *job, int timeout_ms, struct penstock_result *out,
                 char *err, size_t err_bytes) {
    if (timeout_ms <= MISSING_AFTER_MS)
        return penstock_wait(p, job, timeout_ms, out, err, err_bytes);
    int rc = penstock_wait(p, job, MISSING_AFTER_MS, out, err, err_bytes);
    if (rc < 0 || out->terminal) return rc;
    penstock_result_free(out);
    missing_tell(p, job);
    return penstock_wait(p, job, timeout_ms - MISSING_AFTER_MS, out, err, err_bytes);
}
