/* penstock pipeline ls: the pipelines and the versions of them that jobs still run. */
#include <stdio.h>
#include <string.h>

#include "client/cli/plain.h"
#include "client/cli/table.h"

static const char *str(const struct json *j, const char *key) {
    const char *s = json_str(json_get(j, key));
    return s ? s : "";
}

static void print(const struct json *stats) {
    static const char *const heads[] = {"name", "kind", "version", "state", "stages", "jobs", NULL};
    const struct json *list = json_get(stats, "pipelines");
    struct table t;
    table_init(&t, heads);
    for (size_t i = 0; i < json_len(list); i++) {
        const struct json *p = json_at(list, i);
        table_cell(&t, "%s", str(p, "name"));
        table_cell(&t, "%s", str(p, "kind"));
        table_cell(&t, "%s", str(p, "version"));
        table_cell(&t, "%s", json_bool(json_get(p, "retired"), false) ? "retired" : "loaded");
        table_cell(&t, "%lld", (long long)json_int(json_get(p, "stages"), 0));
        table_cell(&t, "%lld", (long long)json_int(json_get(p, "jobs"), 0));
    }
    if (json_len(list)) table_print(&t);
    table_fini(&t);
    const char *refused = str(stats, "pipelines_refused");
    if (json_len(list) == 0)
        fputs("the broker shows its pipelines to a key with the right admin\n", stderr);
    if (refused[0]) fprintf(stderr, "the files as they are now were not taken: %s\n", refused);
}

int cli_verb_pipeline(int argc, char **argv) {
    static struct cli c;
    int code = plain_parse(&c, argc, argv, 1, "ls",
                           "List the pipelines, with their live jobs, and the versions that were "
                           "replaced while jobs of them still run.");
    if (code != CLI_OK) return code;
    if (c.n != 1 || strcmp(c.args[0], "ls") != 0) return cli_usage("write `penstock pipeline ls`");
    return plain_show(&c, penstock_status, print);
}
