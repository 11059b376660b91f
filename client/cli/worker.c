/* penstock worker ls|drain: who is registered, and who shall leave. */
#include <stdio.h>
#include <stdlib.h>
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

static void print_row(struct table *t, const struct json *w) {
    table_cell(t, "%s", str(w, "name"));
    table_cell(t, "%lld", (long long)json_int(json_get(w, "pid"), 0));
    table_cell(t, "%s", str(w, "state"));
    table_cell(t, "%lld", (long long)json_int(json_get(w, "leases"), 0));
    table_cell(t, "%lld", (long long)json_int(json_get(w, "credit"), 0));
    table_duration(t, json_int(json_get(w, "age_ms"), -1));
    table_duration(t, json_int(json_get(w, "heard_ms"), -1));
    table_cell(t, "%lld", (long long)json_int(json_get(w, "done"), 0));
    table_cell(t, "%lld", (long long)json_int(json_get(w, "failed"), 0));
    joined_cell(t, json_get(w, "runs"));
    joined_cell(t, json_get(w, "models"));
}

static bool keyed; /* whoever asks has a key, which may not see every worker */

static void print(const struct json *list) {
    static const char *const heads[] = {"name",    "pid",       "state",     "leases",
                                        "credits", "since",     "heard",     "done",
                                        "failed",  "stages:50", "models:40", NULL};
    struct table t;
    table_init(&t, heads);
    for (size_t i = 0; i < json_len(list); i++) print_row(&t, json_at(list, i));
    table_print(&t);
    table_fini(&t);
    if (json_len(list) == 0)
        fprintf(stderr,
                "no worker is registered%s; `penstock up` starts one, or run penstock-worker\n",
                keyed ? " for this key's tenant (a key with the right admin sees all)" : "");
}

static void print_drained(const struct json *list) {
    const struct json *w = json_at(list, 0);
    printf("%s is draining, %lld leases\n", str(w, "name"),
           (long long)json_int(json_get(w, "leases"), 0));
}

static const char *drained; /* the worker that drain_one names */

static int drain_one(struct penstock *p, struct penstock_doc *out, int timeout_ms, char *err,
                     size_t err_bytes) {
    return penstock_drain(p, drained, out, timeout_ms, err, err_bytes);
}

int cli_verb_worker(int argc, char **argv) {
    static struct cli c;
    int code = plain_parse(&c, argc, argv, 2, "ls|drain NAME",
                           "List the workers. Or let one, named by its name or session, end what "
                           "it runs, give back the rest and leave: nothing is lost or counted.");
    if (code != CLI_OK) return code;
    keyed = c.key || getenv("PENSTOCK_KEY");
    if (c.n == 1 && strcmp(c.args[0], "ls") == 0) return plain_show(&c, penstock_workers, print);
    if (c.n != 2 || strcmp(c.args[0], "drain") != 0)
        return cli_usage("write `penstock worker ls` or `penstock worker drain NAME`");
    drained = c.args[1];
    return plain_show(&c, drain_one, print_drained);
}
