#include "client/cli/plain.h"

#include <stdio.h>
#include <string.h>

static error_t parse(int key, char *arg, struct argp_state *state) {
    (void)arg;
    if (key == ARGP_KEY_INIT) state->child_inputs[0] = state->input;
    return ARGP_ERR_UNKNOWN;
}

int plain_parse(struct cli *c, int argc, char **argv, int args_max, const char *args_doc,
                const char *doc) {
    const struct argp argp = {
        .parser = parse, .args_doc = args_doc, .doc = doc, .children = cli_common};
    cli_parse(&argp, argc, argv, c);
    if (c->n <= args_max) return CLI_OK;
    return cli_usage("unexpected argument '%s'; see `%s --help`", c->args[args_max], argv[0]);
}

int plain_show(struct cli *c, plain_ask_fn *ask, void (*print)(const struct json *document)) {
    struct penstock *p;
    struct penstock_doc doc;
    char err[PENSTOCK_ERR_BYTES];
    int code = cli_open(c, &p);
    if (code != CLI_OK) return code;
    int rc = ask(p, &doc, cli_answer_ms(c), err, sizeof err);
    struct json *j = NULL;
    if (rc < 0)
        code = cli_failed(c, p, rc, err);
    else if (c->json)
        puts(doc.json);
    else if (json_parse(&j, doc.json, strlen(doc.json), err, sizeof err) == 0)
        print(j);
    else
        code = cli_fail(PENSTOCK_PROTOCOL, err);
    json_free(j);
    penstock_doc_free(&doc);
    penstock_close(p);
    return code;
}
