/* load.h - what the live jobs add up to, and whether one more fits.
 *
 * A job counts from the moment it is admitted until its end is on disk: in all, for its tenant, in
 * its source, in its pipeline, in its priority level, and at its stage (caps.h). An upload's bytes
 * count for the tenant from its beginning on. Jobs that a stage fans out to were accepted with
 * their parent: they count, but not in the level, and nothing refuses them; whoever submits next
 * may have to wait for them. The limits are those of the command line, of the
 * pipeline files and of the settings (pipelines/settings.h), which are read again while the broker
 * runs; jobs that are there stay when a limit goes below them.
 *
 * Units: jobs, bytes of bodies.  Owner: the broker; the settings belong to the load.  Memory: some
 * KiB.  Errors: a refusal that names the limit, what is there, and when to come again.
 * Threads: the loop thread. */
#ifndef PENSTOCK_BROKER_LOAD_H
#define PENSTOCK_BROKER_LOAD_H

#include "broker/caps.h"
#include "broker/gauge.h"
#include "schemas/field.h"

struct broker;
struct draft;
struct source;
struct tenant;
struct load {
    struct settings *settings;         /* NULL before the first load_settle */
    uint32_t leaving[SETTINGS_LEVELS]; /* of these, are being dropped for another of the level */
    struct gauge all, level[SETTINGS_LEVELS], pipeline[LIMIT_PIPELINES]; /* those that are loaded */
    struct caps caps;
    int64_t quiet_ms; /* nobody had a job accepted since then when the broker started */
};
void load_fini(struct load *l); /* accepts zeroed memory */
/* From now on these settings hold; takes them. -ENOMEM leaves everything as it was. */
int load_settle(struct broker *b, struct settings *s);

/* The pipelines have changed: counts the live jobs of each anew. */
void load_recount(struct broker *b);

/* The job counts, once however often it is said; and no more. */
void load_take(struct broker *b, struct job *j);
void load_give(struct broker *b, struct job *j);
void load_untake(struct broker *b, struct job *j); /* for now: it has not left */

/* Whether the draft, of this source (or NULL) and so many bytes, is one too many, and why.
 * load_spend: it was not, and counts for its tenant's rate. */
bool load_refuses(struct broker *b, const struct draft *d, const struct source *s, uint64_t bytes,
                  struct refusal *why);
void load_spend(struct broker *b, struct tenant *t);
/* The same for an upload that begins. */
bool load_refuses_upload(struct broker *b, const struct tenant *t, uint64_t bytes,
                         struct refusal *why);

#endif
