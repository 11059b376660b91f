/* worker.h - the process that computes: its configuration, its two threads and what is between.
 *
 *   broker <--> link thread (link.c, main thread)  -- leases -->   compute thread (worker.c)
 *               never computes, never blocks       <-- outcomes --  opens stages, batches, runs,
 *                                                  <-- notes ----  steps what can be joined
 *
 * Units: milliseconds.  Owner: the keeper's child runs worker_run once.  Memory: rings of fixed
 * size; arenas and outputs as lease.h says.  Errors: the exit status.  Threads: as drawn. */
#ifndef PENSTOCK_WORKERS_WORKER_H
#define PENSTOCK_WORKERS_WORKER_H

#include "base/ring.h"
#include "base/sock.h"
#include "workers/infer/speculate.h"
#include "workers/lease.h"
#include "workers/pace.h"

#define WORKER_STAGES_MAX 64u
#define WORKER_MODELS_MAX 64u

struct worker_config {
    const char *endpoint;           /* of the broker's worker socket */
    const struct sock_curve *curve; /* NULL: plain */
    const char *name;               /* for people */
    const struct stage_program *programs[WORKER_STAGES_MAX];
    uint32_t n_programs;
    bool programs_named;    /* by --stages: one that cannot open is an error; else it is left out */
    const char *models_dir; /* or NULL */
    const char *models[WORKER_MODELS_MAX]; /* "NAME=DIR" */
    uint32_t n_models;
    enum speculate_mode speculate;
    const char *drafts[WORKER_MODELS_MAX]; /* "MODEL=DRAFT" */
    uint32_t n_drafts;
    const char *recipes;   /* a folder of them; NULL: recipes_dir finds it */
    const char *backend;   /* of the operations: auto, ref, cpu */
    uint32_t threads;      /* 0: one a core */
    const char *weights;   /* as model_weights_parse takes it; NULL: as models are stored */
    bool memory_efficient; /* as model_config_lean says */
    uint32_t credit_jobs;
    uint32_t grace_ms; /* a stage that goes on so long after its timeout ends the process */
};

/* What was learnt of a stage with an objective, with a model. */
#define WORKER_PACES_MAX 32u
struct worker_pace {
    char run[LIMIT_NAME_BYTES + 1], model[LIMIT_NAME_BYTES + 1];
    struct pace pace;
};
struct worker_stage {
    const struct stage_program *program;
    void *self;
};
struct worker {
    const struct worker_config *config;
    struct flight *flight;
    struct ring leases;   /* struct lease: link to compute */
    struct ring outcomes; /* struct outcome: compute to link */
    struct ring notes;    /* struct note: compute to link, dropped when full */
    atomic_bool draining; /* give back what has not begun */
    struct stage_load load;

    /* Written before OUTCOME_OPENED, constant behind it: */
    struct worker_stage stages[WORKER_STAGES_MAX];
    uint32_t n_stages;
    struct buf runs, models; /* msgpack lists of names, for REGISTER */
    uint32_t n_models;
    char numerics_id[128];

    /* The compute thread's: */
    struct ops *ops;
    struct models *set;
    struct stage_emitter emitter;
    struct rider *stepped[FLIGHT_SLOTS]; /* in stages that are stepped (span.c) */
    uint32_t n_stepped;
    struct worker_pace paces[WORKER_PACES_MAX];
    uint32_t n_paces;
};

/* Runs until it was drained. Returns the exit status: 0 drained, 1 could not start or failed. */
int worker_run(const struct worker_config *c, struct flight *f);
/* NULL: not offered by this worker. Any thread, after OUTCOME_OPENED. */
const struct worker_stage *worker_stage_find(const struct worker *w, const char *run);

#endif
