/* part_facts.h - what encode.part found in an image and a log: all that post.qc judges by.
 *
 * encode.part hands it over as `keep`: a map {recipe, image, log}. It holds facts only, so that the
 * same facts under another recipe would be judged without decoding again.
 *
 * Units: pixels of the upright part; gray levels; milliseconds since 1970.  Owner: part_facts_read
 * borrows from the document and the arena.  Memory: about 100 KiB packed at the most.
 * Errors: ERR_CORRUPT, -ENOMEM.  Threads: any. */
#ifndef PENSTOCK_WORKERS_ENCODE_PART_FACTS_H
#define PENSTOCK_WORKERS_ENCODE_PART_FACTS_H

#include "schemas/pack.h"
#include "workers/encode/devlog.h"
#include "workers/encode/image_inspect.h"

#define PART_EVENTS_MAX 48u      /* templates that are compared with the causes */
#define PART_EVIDENCE_BYTES 512u /* of a line that is shown */

struct part_line {
    uint32_t line; /* 0: none */
    int64_t time_ms;
    struct bytes text;
};
struct part_event { /* all lines of one template */
    uint64_t id;
    struct bytes text;
    enum devlog_severity severity;
    uint32_t count;
    struct part_line first, last;
};
struct part_reading {
    struct bytes name;
    uint32_t count;
    double min, mean, max, last;
    struct part_line at_min, at_max, at_last; /* only of those that a rule of the recipe names */
};
struct part_image {
    struct bytes format;
    uint32_t width, height, shrink, orientation;
    bool compared, refined;  /* what follows counts when compared */
    double shift_x, shift_y; /* of the part against its reference, at the center */
    double residual;         /* mean difference of gray after the translation */
    double gain, offset;     /* that matched the part's gray to the reference's */
    const struct image_region *regions;
    uint32_t n, n_all;
};
struct part_log {
    struct bytes format;
    uint32_t lines, events, malformed, errors, warnings, cut, left_out, templates;
    int64_t time_first_ms, time_last_ms; /* DEVLOG_NO_TIME: none */
    const struct part_reading *readings;
    uint32_t n_readings;
    const struct part_event *chosen; /* the templates that were embedded, in that order */
    uint32_t n_chosen;
};
struct part_facts {
    struct bytes recipe; /* YAML */
    struct part_image image;
    bool has_log;
    struct part_log log;
};

/* From what was found; -ENOMEM. d may be NULL: no log. */
int part_facts_make(struct part_facts *out, const struct recipe *r, const struct inspection *in,
                    const struct devlog *d, struct arena *a);
void part_facts_pack(struct packer *p, const struct part_facts *f);
int part_facts_read(struct part_facts *out, const struct pack_val *keep, struct arena *a);

#endif
