/* child.h - servers under test as processes that go when this program does.
 *
 * Units: none.  Owner: child_program gives what child_end ends.  Memory: none.
 * Errors: a message and exit(1).  Threads: one caller. */
#ifndef PENSTOCK_TESTS_BENCH_ENGINE_CHILD_H
#define PENSTOCK_TESTS_BENCH_ENGINE_CHILD_H

#include <sys/types.h>

/* BIN/NAME with arguments, NULL behind the last; what it prints goes nowhere. */
pid_t child_program(const char *bin, const char *name, const char *const *arguments);
void child_end(pid_t pid);

#endif
