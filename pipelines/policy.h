/* policy.h - what contract.analyze is told by files: clause types (taxonomy.yaml) and risk rules
 * (policy.yaml). The files say what their fields mean; every refusal names file, line and field.
 *
 * Units: durations in days, percentages in per cent.  Owner: X_load gives what X_free frees;
 * everything inside is borrowed from it.  Memory: a few times the file.  Errors: ERR_FIELD,
 * ERR_LIMIT, -errno with err.  Threads: immutable after load. */
#ifndef PENSTOCK_PIPELINES_POLICY_H
#define PENSTOCK_PIPELINES_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TAXONOMY_TYPES_MAX 256u
#define TAXONOMY_CUES_MAX 32u /* of a type in a language */
#define POLICY_RULES_MAX 256u

struct taxonomy_weights {
    double cosine, cue, threshold;
};
struct taxonomy_type {
    const char *name, *en, *zh;      /* en and zh describe it */
    const char **cues_en, **cues_zh; /* PCRE2 patterns, case ignored */
    uint32_t n_cues_en, n_cues_zh;
};
struct taxonomy_languages {
    struct taxonomy_weights en, zh;
};
struct taxonomy {
    const char *name;
    uint32_t version;
    struct taxonomy_languages weights;
    struct taxonomy_type *types;
    uint32_t n_types;
};
int taxonomy_load(struct taxonomy **out, const char *path, char *err, size_t err_bytes);
void taxonomy_free(struct taxonomy *t); /* NULL is fine */

enum policy_level { POLICY_LOW, POLICY_MEDIUM, POLICY_HIGH };
const char *policy_level_name(enum policy_level l);
enum policy_when { POLICY_PRESENT, POLICY_ABSENT, POLICY_VALUE };
enum policy_entity {
    POLICY_NO_ENTITY,
    POLICY_DURATION,
    POLICY_PERCENTAGE,
    POLICY_AMOUNT,
    POLICY_CONFLICT /* words and figures that differ */
};
struct policy_rule {
    const char *id, *type; /* type "Any": every clause */
    const char *match;     /* PCRE2, case ignored; NULL: none */
    const char *why_en, *why_zh;
    enum policy_level level;
    enum policy_when when;
    enum policy_entity entity;
    double *above, *below; /* NULL: open */
};
struct policy {
    const char *name;
    uint32_t version;
    struct policy_rule *rules;
    uint32_t n_rules;
};
/* A rule about a type that the taxonomy lacks is refused. */
int policy_load(struct policy **out, const char *path, const struct taxonomy *types, char *err,
                size_t err_bytes);
void policy_free(struct policy *p); /* NULL is fine */

#endif
