/* engine.h - an engine for one run: `penstock up` on a folder of its own, removed at the end.
 *
 * Units: none.  Owner: engine_start to engine_stop.  Memory: none.
 * Errors: exit codes, after complaining with what the engine said.  Threads: one. */
#ifndef PENSTOCK_CLIENT_ENGINE_H
#define PENSTOCK_CLIENT_ENGINE_H

#include <sys/types.h>

#define ENGINE_PATH_BYTES 96 /* of the folder: a socket's path is short */

struct engine { /* zeroed: none */
    pid_t pid;
    char dir[ENGINE_PATH_BYTES], endpoint[ENGINE_PATH_BYTES + 32];
};
/* Returns when it is ready, or a signal was handled; `models` is a folder of models beside the
 * user's own. */
int engine_start(struct engine *e, const char *models);
void engine_stop(struct engine *e); /* accepts zeroed memory */

#endif
