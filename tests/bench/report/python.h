/* python.h - a peer that is a Python program: a line asks, a line answers.
 *
 * PEERS=DIR names a virtual environment, or a folder with one's bin/python.
 *
 * Units: none.  Owner: python_start gives what python_stop ends.  Memory: none.
 * Errors: false, and a line on stderr when the program could not begin.  Threads: one caller. */
#ifndef PENSTOCK_TESTS_BENCH_REPORT_PYTHON_H
#define PENSTOCK_TESTS_BENCH_REPORT_PYTHON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/types.h>

enum { PYTHON_ARGUMENTS_MAX = 6 };
struct python {
    FILE *ask, *answer; /* its stdin and stdout; NULL: it does not run */
    pid_t pid;
};
/* arguments: of the script, NULL behind the last. True once the program has said `ready`. */
bool python_start(struct python *p, const char *script, const char *const *arguments);
bool python_ask(struct python *p, const char *line, char *answer, size_t answer_bytes);
void python_stop(struct python *p); /* accepts zeroed memory */

/* PEERS/bin/python; false where it is not. */
bool python_find(char *path, size_t path_bytes);

#endif
