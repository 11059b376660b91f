/* penstock schema [KIND]: a job kind as JSON Schema. */
#include <stdio.h>
#include <stdlib.h>

#include "client/cli/plain.h"
#include "client/cli/table.h"
#include "schemas/json_schema.h"

static void list_kinds(bool json) {
    static const char *const heads[] = {"kind", "what", NULL};
    const struct kind_desc *k;
    struct table t;
    table_init(&t, heads);
    if (json) putchar('[');
    for (uint32_t i = 0; (k = kind_at(i)); i++) {
        table_cell(&t, "%s", k->name);
        table_cell(&t, "%s", k->doc);
        if (json) printf("%s\"%s\"", i ? ", " : "", k->name);
    }
    if (json)
        puts("]");
    else
        table_print(&t);
    table_fini(&t);
}

int cli_verb_schema(int argc, char **argv) {
    static struct cli c;
    int code =
        plain_parse(&c, argc, argv, 1, "[KIND]",
                    "Print a job kind's fields as JSON Schema; without KIND list the kinds.");
    if (code != CLI_OK) return code;
    if (c.n == 0) {
        list_kinds(c.json);
        return CLI_OK;
    }
    const struct kind_desc *k = kind_find(bytes_str(c.args[0]));
    if (!k) return cli_usage("there is no kind '%s'; `penstock schema` lists them", c.args[0]);
    struct json *j;
    char *text = json_schema(k, &j) == 0 ? json_text(j, 2) : NULL;
    if (!text) return cli_fail(PENSTOCK_MEMORY, "out of memory");
    puts(text);
    free(text);
    json_free(j);
    return CLI_OK;
}
