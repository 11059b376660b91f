/* stage_test.h - stages that do as the job's body says: for the tests of worker and broker.
 *
 *   test.echo   gives { input, body, stage, batch } back: batch is how many ran together
 *   test.sleep  body { ms, deaf }: sleeps, then echoes; emits progress every 50 ms; deaf: ignores
 *               that it was cancelled
 *   test.crash  body { signal, exit }: raises the signal, or exits; without either it echoes
 *   test.steps  body { steps, ms }: takes so many steps of ms each; two run, the others that have
 *               joined wait; gives { order }: how many had ended before it
 *   test.fail   body { class, reason }: fails so
 *
 * Only `--stages` with their names offers them; "all" does not.
 *
 * Units: milliseconds.  Owner, memory, errors, threads: as workers/stage.h. */
#ifndef PENSTOCK_WORKERS_STAGE_TEST_H
#define PENSTOCK_WORKERS_STAGE_TEST_H

#include "workers/stage.h"

const struct stage_program *stage_test_find(struct bytes run); /* NULL: unknown */

#endif
