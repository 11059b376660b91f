/* verbs.h - what the worker's program does besides working: `penstock-worker VERB ...`.
 *
 * A verb parses its own arguments (argv[0] is the verb), writes data to stdout and everything else
 * to stderr, and returns the exit status: 0 done, 1 failed, 2 wrong usage.
 *
 * Units: none.  Owner: argv is borrowed.  Memory: freed on return.  Errors: told on stderr.
 * Threads: the main thread. */
#ifndef PENSTOCK_WORKERS_VERBS_H
#define PENSTOCK_WORKERS_VERBS_H

/* run MODEL_DIR --prompt TEXT | --messages FILE: continues a text or a conversation with a decoder,
 * without a broker. */
int verb_run(int argc, char **argv);
/* tokenize MODEL_DIR: the ids of each line of stdin, one JSON array a line. */
int verb_tokenize(int argc, char **argv);
/* model pull|import|verify|ls|show|rm: the models of this user. */
int verb_model(int argc, char **argv);

#endif
