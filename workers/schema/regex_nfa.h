/* regex_nfa.h - a regular expression read into a nondeterministic automaton over characters.
 *
 * Units: code points.  Owner: the caller; nfa_fini.  Memory: at most NFA_NODES_MAX nodes.  Errors:
 * ERR_FIELD with what is not supported and where, ERR_LIMIT.  Threads: immutable once read. */
#ifndef PENSTOCK_WORKERS_SCHEMA_REGEX_NFA_H
#define PENSTOCK_WORKERS_SCHEMA_REGEX_NFA_H

#include <stdbool.h>
#include <stdint.h>

#define NFA_NODES_MAX 4096u
#define NFA_RANGES_MAX 16384u
#define NFA_NONE UINT32_MAX

struct nfa_range {
    uint32_t lo, hi;
};
struct nfa_node {
    enum { NFA_CHAR, NFA_SPLIT, NFA_BEGIN, NFA_FINISH, NFA_MATCH } kind;
    uint32_t next, other; /* other: SPLIT only */
    uint32_t range, ranges;
    uint32_t pattern; /* MATCH: which one */
};
struct nfa {
    struct nfa_node *node;
    struct nfa_range *range;
    uint32_t nodes, ranges;
};
int nfa_init(struct nfa *a);
void nfa_fini(struct nfa *a);
/* Adds a pattern; *first is where it begins. */
int nfa_read(struct nfa *a, const char *text, uint32_t number, uint32_t *first, char *err,
             uint32_t err_bytes);

#endif
