/* labels.h - what the classes of an encoder's head are called: id2label of config.json.
 *
 * A class without a name there is LABEL_N, as in the reference.
 *
 * Units: classes.  Owner: labels_fini after labels_read, failed or not.  Memory: the names.
 * Errors: those of the file, ERR_FIELD for an id2label of other classes, with the path in err.
 * Threads: immutable once read. */
#ifndef PENSTOCK_WORKERS_INFER_LABELS_H
#define PENSTOCK_WORKERS_INFER_LABELS_H

#include <stddef.h>
#include <stdint.h>

struct labels {
    char **name; /* [n] */
    uint32_t n;
};
int labels_read(struct labels *l, const char *dir, uint32_t n, char *err, size_t err_bytes);
void labels_fini(struct labels *l); /* accepts zeroed memory */

#endif
