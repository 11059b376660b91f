/* penstock ping: is the broker there? */
#include <inttypes.h>
#include <stdio.h>

#include "client/cli/plain.h"

int cli_verb_ping(int argc, char **argv) {
    static struct cli c;
    int code = plain_parse(&c, argc, argv, 0, NULL, "Ask whether the broker is there.");
    struct penstock *p;
    if (code == CLI_OK) code = cli_open(&c, &p);
    if (code != CLI_OK) return code;
    struct penstock_pong pong;
    char err[PENSTOCK_ERR_BYTES];
    int rc = penstock_ping(p, &pong, cli_answer_ms(&c), err, sizeof err);
    if (rc < 0)
        code = cli_failed(&c, p, rc, err);
    else if (c.json)
        printf("{\"version\": \"%s\", \"epoch\": %" PRIu64 ", \"accepting\": %s, "
               "\"round_trip_ms\": %.3f}\n",
               pong.version, pong.epoch, pong.accepting ? "true" : "false", pong.round_trip_ms);
    else
        printf("broker %s at %s, start %" PRIu64 ", %s, %.2f ms\n", pong.version,
               penstock_endpoint(p), pong.epoch, pong.accepting ? "accepting" : "not accepting",
               pong.round_trip_ms);
    penstock_close(p);
    return code;
}
