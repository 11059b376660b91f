/* pipeline.h - pipeline files: which stages a job kind runs through, and how.
 *
 *   name: text.embed
 *   kind: text.embed
 *   stages:
 *     - {name: encode, run: encode.texts, model: all-MiniLM-L6-v2}
 *     - {name: infer,  run: infer.embed,  model: all-MiniLM-L6-v2, batch: {max: 32, slo_ms: 500}}
 *     - {name: post,   run: post.embed}
 *   retry: {max: 3, timeouts_max: 3, deaths_max: 3, backoff_ms: 200, backoff_max_ms: 10000}
 *   timeout_ms: 60000
 *   queue_max: 100000
 *
 * Read with libcyaml; every refusal names file, line where known, field, limit and fix. A pipeline
 * is immutable once loaded; its version is the CRC32C of its canonical plan, so that a job keeps
 * the plan that it started with.
 *
 * Units: milliseconds.  Owner: pipelines_load gives a set to pipelines_free; everything inside is
 * borrowed from it.  Memory: a few KiB a file.  Errors: ERR_FIELD, ERR_LIMIT, -errno with err.
 * Threads: immutable after load. */
#ifndef PENSTOCK_PIPELINES_PIPELINE_H
#define PENSTOCK_PIPELINES_PIPELINE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"

struct pipeline_stage {
    const char *name;  /* encode, infer, post */
    const char *run;   /* the stage program a worker registers */
    const char *model; /* NULL: none */
    const char *adapter;
    uint32_t timeout_ms;     /* of one attempt; 0 in the file takes the pipeline's */
    uint32_t batch_max;      /* jobs run together, 1 when absent */
    uint32_t batch_delay_ms; /* wait at most this long for more */
    /* Batches and waits are chosen so that a job ends so soon after it has reached a worker; 0: by
     * the two above. */
    uint32_t batch_slo_ms;
    bool checkpoint; /* commit its output; a lost worker restarts behind it */
    /* The pipeline of the jobs that its output asks for; the stage behind it joins their results.
     * NULL: its output is the next stage's input. */
    const char *fan_out;
    bool partial; /* the join runs even when some of them are not done */
};
struct pipeline {
    const char *name, *kind;
    uint32_t version;
    uint32_t n_stages;
    const struct pipeline_stage *stages;
    /* transient failures and timeouts of a stage, deaths of workers: each counted for itself */
    uint32_t tries_max, timeouts_max, deaths_max;
    uint32_t backoff_ms, backoff_max_ms; /* doubles from one to the other */
    uint32_t queue_max;                  /* jobs waiting in it; beyond, submits are refused */
    /* stages and policy as a msgpack document (pipeline_from_plan) */
    struct bytes plan;
    bool retired; /* only from a job's plan: runs what was accepted, takes no new jobs */
};
struct pipelines {           /* pointers to items stay valid when it grows */
    struct pipeline **items; /* [n] */
    uint32_t n;
};

/* Where the pipeline files are: `given` (--pipelines), else $PENSTOCK_PIPELINES, else the installed
 * ones: the first of BIN/../../pipelines and BIN/../share/penstock/pipelines that exists, BIN being
 * the folder of this program. What is given may be several folders with ':' between them; an empty
 * one stands for the installed ones. -ENOENT with err naming the places. */
int pipelines_dir(const char *given, char *out, size_t out_bytes, char *err, size_t err_bytes);
/* All *.yaml of these folders (':' between them), each in the order of their names; out is zeroed
 * before. On failure out is empty. */
int pipelines_load(struct pipelines *out, const char *dirs, char *err, size_t err_bytes);
/* One file, appended; -EEXIST when its name is taken. */
int pipeline_load(struct pipelines *out, const char *path, char *err, size_t err_bytes);
void pipelines_free(struct pipelines *p);
/* Puts those of `fresh`, which it takes, in front of `set`. One that `set` has with the same plan
 * stays where its jobs know it, and is loaded (again); the others of `set` are retired. -ENOMEM
 * leaves both as they were. */
int pipelines_replace(struct pipelines *set, struct pipelines *fresh);
/* The version as people see it: 8 hexadecimal digits. */
void pipeline_version_text(uint32_t version, char out[9]);
/* The current one of that name; NULL: none. */
const struct pipeline *pipeline_find(const struct pipelines *p, struct bytes name);
/* Rebuilds a pipeline from the plan kept with a job, appended to `out` as retired unless name and
 * version are there already; *found is it. */
int pipeline_from_plan(struct pipelines *out, struct bytes plan, const struct pipeline **found,
                       char *err, size_t err_bytes);

#endif
