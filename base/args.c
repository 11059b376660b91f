#include "base/args.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void args_parse(const struct argp *argp, int argc, char **argv, void *input) {
    argp_err_exit_status = ARGS_USAGE;
    int rc = argp_parse(argp, argc, argv, 0, NULL, input);
    if (rc == 0) return;
    fprintf(stderr, "%s: the command line cannot be read: %s\n", program_invocation_short_name,
            strerror(rc));
    exit(1);
}
