/* penstock worker ls: who is registered. */
#include <stdio.h>
#include <string.h>

#include "client/cli/plain.h"
#include "client/cli/table.h"

static const char *str(const struct json *j, const char *key) {
    const char *s = json_str(json_get(j, key));
    return s ? s : "";
}

static void joined_cell(struct table *t, const struct json *list) {
    char text[512] = "";
    size_t len = 0;
    for (size_t i = 0; i < json_len(list) && len < sizeof text; i++) {
        const char *s = json_str(json_at(list, i));
        int n = snprintf(text + len, sizeof text - len, "%s%s", i ? "," : "", s ? s : "");
        len += n > 0 ? (size_t)n : 0;
    }
    table_cell(t, "%s", text);
}

static void print(const struct json *list) {
    static const char *const heads[] = {"name",   "host",  "pid",     "leases",    "done",
                                        "failed", "heard", "runs:50", "models:40", NULL};
    struct table t;
    table_init(&t, heads);
    for (size_t i = 0; i < json_len(list); i++) {
        const struct json *w = json_at(list, i);
        table_cell(&t, "%s", str(w, "name"));
        table_cell(&t, "%s", str(w, "host"));
        table_cell(&t, "%lld", (long long)json_int(json_get(w, "pid"), 0));
        table_cell(&t, "%lld", (long long)json_int(json_get(w, "leases"), 0));
        table_cell(&t, "%lld", (long long)json_int(json_get(w, "done"), 0));
        table_cell(&t, "%lld", (long long)json_int(json_get(w, "failed"), 0));
        table_duration(&t, json_int(json_get(w, "heard_ms"), -1));
        joined_cell(&t, json_get(w, "runs"));
        joined_cell(&t, json_get(w, "models"));
    }
    table_print(&t);
    table_fini(&t);
    if (json_len(list) == 0)
        fputs("no worker is registered; `penstock up` starts one, or run penstock-worker\n",
              stderr);
}

int cli_verb_worker(int argc, char **argv) {
    static struct cli c;
    if (argc < 2 || (strcmp(argv[1], "ls") != 0 && argv[1][0] != '-'))
        return cli_usage("penstock worker ls lists the workers");
    int code = plain_parse(&c, argc, argv, 1, "ls", "List the workers.");
    return code != CLI_OK ? code : plain_show(&c, penstock_workers, print);
}
