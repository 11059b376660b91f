/* penstock version. */
#include <stdio.h>

#include "client/cli/plain.h"
#include "schemas/msg.h"

int cli_verb_version(int argc, char **argv) {
    static struct cli c;
    int code = plain_parse(&c, argc, argv, 0, NULL, "Print the version of this program.");
    if (code != CLI_OK) return code;
    if (c.json)
        printf("{\"version\": \"%s\", \"protocol\": %d}\n", penstock_version(), MSG_MAJOR);
    else
        printf("penstock %s, protocol %d\n", penstock_version(), MSG_MAJOR);
    return CLI_OK;
}
