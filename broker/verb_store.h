/* verb_store.h - `penstock-broker store check|backup|compact`: for a store that no broker has open.
 *
 * Units: none.  Owner, memory: its own.  Errors: exit codes: 0 no problem, 1 problems or a store
 * that cannot be opened, 2 usage.  Threads: main. */
#ifndef PENSTOCK_BROKER_VERB_STORE_H
#define PENSTOCK_BROKER_VERB_STORE_H

/* argv[0] is "store". */
int verb_store(int argc, char **argv);

#endif
