/* args.h - the command line of every program, read by argp or not run at all.
 *
 * argp reports what a user did wrong, and ends the process; that it could not read the line for
 * want of memory it only returns, and a program that goes on would run with its defaults.
 *
 * Units: none.  Owner, memory: argp's, for the call.  Errors: ends the process, with ARGS_USAGE
 * for a usage error and 1 without memory, each with a line on stderr.  Threads: main, at start. */
#ifndef PENSTOCK_BASE_ARGS_H
#define PENSTOCK_BASE_ARGS_H

#include <argp.h>

#define ARGS_USAGE 2

void args_parse(const struct argp *argp, int argc, char **argv, void *input);

#endif
