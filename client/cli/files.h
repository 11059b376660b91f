/* files.h - the files that the arguments of a verb name, folders opened.
 *
 * A file of a folder is taken when it matches one of the patterns and its name does not begin with
 * a dot; a file named itself is always taken. The order is that of the names' bytes.
 *
 * Units: none.  Owner: files_fini.  Memory: the paths.  Errors: -errno with err; ERR_LIMIT beyond
 * FILES_MAX.  Threads: one. */
#ifndef PENSTOCK_CLIENT_FILES_H
#define PENSTOCK_CLIENT_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define FILES_MAX 1000000u

struct files_how {
    const char *const *patterns; /* of file names, ends with NULL; NULL: all */
    bool recursive;              /* folders of folders too; links to folders are not followed */
    dev_t skip_dev;              /* this folder is left out: skip_ino 0 is none */
    ino_t skip_ino;
};
struct file_named {
    char *path;
    const char *name; /* of path: relative to the argument it came from */
};
struct files {
    struct file_named *at;
    uint32_t n, cap;
};
int files_add(struct files *f, const char *arg, const struct files_how *how, char *err,
              size_t err_bytes);
/* Sorts by name; the name that two files have, or NULL. */
const char *files_sort(struct files *f);
void files_fini(struct files *f); /* accepts zeroed memory */

#endif
