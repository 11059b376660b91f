/* stage.h - what a stage program is: a function from a job and an input document to an output.
 *
 * The worker (worker.c, span.c) leases jobs, batches them and calls the stages of a span in order;
 * a stage knows nothing of sockets, leases or the broker. Inputs and outputs are msgpack documents
 * (schemas/pack.h) in the job's arena: between two stages of one process they are handed over as
 * they are, between processes they travel through the broker, and nobody can tell the difference.
 * Large arrays inside them are bin values, little-endian.
 *
 * A batch is a list of items; each fails or succeeds alone. A stage checks `cancelled` at least
 * every 100 ms of work and stops that item with item_fail(item, JOB_ERROR_CANCELLED, ...).
 *
 * The documents between the built-in stages:
 *   document (encode.document -> encode.contract)
 *            { format: "pdf"|"txt"|"text", encoding: str, text: str, pages_in: u64,
 *              pages: [[number, outcome, width, height, begin, end, reason, running]],
 *              boxes: bin u16le [code points][x0 y0 x1 y1] }        (encode/document.h)
 *   tokens   (encode.texts, encode.contract, encode.part -> infer.embed)
 *            { model: str, seqs: [bin u32le ids], truncated: [bool], keep: any }
 *   vectors  (infer.embed -> post.embed, post.contract, post.qc)
 *            { model: str, dim: u64, vectors: bin f32le [n][dim], tokens: [u64],
 *              truncated: [bool], keep: any }
 *   `keep` passes through infer.embed untouched: what the post stage needs.
 *     of encode.texts     nil
 *     of encode.contract  { language: "en"|"zh", clauses: bin u32le [n][9], document: as above }
 *                         (encode/clauses_pack.h); seqs: a clause each
 *     of encode.part      { recipe: str (the whole YAML), image: [13], log: [13] or nil }: facts,
 *                         no judgement (encode/part_facts.h); seqs: the recipe's described causes
 *                         in its order, then the log's chosen templates; neither without a log
 *   prompt   (encode.prompt -> infer.generate)   { model: str, ids: bin u32le }
 *   tokens out (infer.generate -> post.generate) { model: str, prompt_tokens: u64, texts:
 *              [{ ids: bin u32le, finish: str, text: str, logprobs: [f64] and top_logprobs:
 *                 [[[id, f64]]] where asked for }] }
 *
 * Units: in the names.  Owner: the item and everything in it belongs to the worker and lives until
 * the span ends; `self` belongs to the stage between open and close.  Memory: item->arena, capped.
 * Errors: run returns nothing, each item carries its own outcome; open returns negative with err.
 * Threads: open, run and close on the compute thread; item_emit from there too. */
#ifndef PENSTOCK_WORKERS_STAGE_H
#define PENSTOCK_WORKERS_STAGE_H

#include <stdatomic.h>
#include <stdbool.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/limits.h"
#include "schemas/job.h"

struct stage_item;
/* The worker's way to send an event while a stage runs; NULL in tests and tools. */
struct stage_emitter {
    void (*emit)(void *arg, const struct stage_item *i, const char *type, struct bytes data);
    void *arg;
};

struct stage_item {
    uint64_t job, attempt, seed;
    uint32_t stage;          /* index in the pipeline */
    uint32_t priority;       /* of the job: 0 is served first */
    struct bytes kind, body; /* the job's kind and its checked body */
    struct bytes model;      /* named by the plan; empty without */
    struct bytes adapter;    /* of the model, for jobs that name none; empty without */
    struct bytes input;      /* the previous stage's output; {NULL, 0} at the first */
    struct arena *arena;
    const atomic_bool *cancelled;
    const struct stage_emitter *emit_to; /* the worker's; see item_emit */

    /* The outcome: exactly one of them. */
    struct bytes output;  /* item_done; in the arena or borrowed from the input */
    enum job_error error; /* item_fail */
    char reason[LIMIT_REASON_BYTES];
    /* of what computed it; NULL: no arithmetic that matters; static or the ops' own */
    const char *numerics_id;

    bool waits; /* joined a stage that has not begun it yet: its time does not count */
};
void item_done(struct stage_item *i, struct bytes output);
/* Copies a finished buf into the arena and takes that as output; a buf error fails the item. */
void item_done_buf(struct stage_item *i, const struct buf *output);
void item_fail(struct stage_item *i, enum job_error error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The same from a negative error and its err: no memory and full queues are transient. */
void item_fail_rc(struct stage_item *i, int rc, const char *err);
bool item_cancelled(const struct stage_item *i);
/* Streams an event ("token", "progress", "notice") with a msgpack map to whoever watches the job;
 * best effort: dropped when the link is behind. */
void item_emit(struct stage_item *i, const char *type, struct bytes data);

/* What a stage that is stepped tells of itself, for the broker's metrics: the first four are now,
 * the others since the start. */
struct stage_load {
    atomic_ullong running, waiting, kv_pages, kv_pages_max;
    atomic_ullong steps, steps_us, tokens, pauses;
};

/* What a stage may ask of its process: models are opened once and shared by its stages. */
struct models;
struct stage_context {
    struct stage_load *load; /* NULL: nobody asks; else of one stage, which alone writes it */
    struct models *models;   /* workers/infer/models.h */
    const char *recipes;     /* the folder that --recipes names; NULL: none was */
};

/* A stage runs a batch to its end (run_batch), or lets items join while others run (join and step).
 * A stage of the second kind owns an item from join until it stands in `ended`, outcome and all;
 * the worker calls step again and again as long as any is there, with other stages' batches in
 * between. */
struct stage_program {
    const char *run;  /* "infer.embed" */
    bool needs_model; /* its plan must name a model that the worker has */
    /* may be NULL */
    int (*open)(void **self, const struct stage_context *c, char *err, size_t err_bytes);
    void (*run_batch)(void *self, struct stage_item **items, uint32_t n);
    int (*join)(void *self, struct stage_item *item); /* -ENOMEM: it was not taken */
    /* About 100 ms of work for all that have joined; returns how many ended, at most max. */
    uint32_t (*step)(void *self, struct stage_item **ended, uint32_t max);
    void (*close)(void *self); /* may be NULL */
};
/* Every program in this binary; NULL past the end. */
const struct stage_program *stage_at(uint32_t i);
const struct stage_program *stage_find(struct bytes run); /* NULL: unknown */

#endif
