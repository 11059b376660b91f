/* penstock status: counts, queues, the store's size. */
#include <stdio.h>

#include "client/cli/plain.h"
#include "client/cli/table.h"

static double number(const struct json *j, const char *key) {
    return json_num(json_get(j, key), 0);
}

static void print_queues(const struct json *queues) {
    if (json_len(queues) == 0) return;
    static const char *const heads[] = {"run", "model", "stage", "queued", NULL};
    struct table t;
    table_init(&t, heads);
    for (size_t i = 0; i < json_len(queues); i++) {
        const struct json *q = json_at(queues, i);
        const char *run = json_str(json_get(q, "run")), *model = json_str(json_get(q, "model"));
        table_cell(&t, "%s", run ? run : "");
        table_cell(&t, "%s", model ? model : "");
        table_cell(&t, "%.0f", number(q, "stage"));
        table_cell(&t, "%.0f", number(q, "queued"));
    }
    table_print(&t);
    table_fini(&t);
}

static void print_sources(const struct json *sources) {
    static const char *const heads[] = {"source",  "policy",  "jobs", "depth",
                                        "dropped", "sampled", NULL};
    struct table t;
    if (json_len(sources) == 0) return;
    table_init(&t, heads);
    for (size_t i = 0; i < json_len(sources); i++) {
        const struct json *q = json_at(sources, i);
        const char *name = json_str(json_get(q, "name")), *how = json_str(json_get(q, "policy"));
        double depth = number(q, "depth");
        table_cell(&t, "%s", name ? name : "");
        table_cell(&t, "%s", how && depth > 0 ? how : "");
        table_cell(&t, "%.0f", number(q, "jobs"));
        table_cell(&t, "%.0f", depth);
        table_cell(&t, "%.0f", number(q, "dropped"));
        table_cell(&t, "%.0f", number(q, "sampled"));
    }
    table_print(&t);
    table_fini(&t);
}

static void print_damage(const struct json *s) {
    printf("scrub %.1f MiB read, %.0f rounds, %.0f damaged\n",
           number(s, "scrubbed_bytes") / 1048576, number(s, "scrub_rounds"), number(s, "damaged"));
    if (number(s, "damaged") > 0)
        puts("DAMAGED: the log names what; stop the broker and run `penstock store check`");
    if (number(s, "set_aside") > 0)
        printf("DAMAGED: %.0f records could not be read at the start; stop the broker and run "
               "`penstock store repair`\n",
               number(s, "set_aside"));
}

static void print(const struct json *s) {
    double up_s = number(s, "uptime_ms") / 1000;
    bool all = json_get(s, "workers") != NULL; /* else the key may see its own jobs alone */
    printf("up %.0f s, start %.0f, %s", up_s, number(s, "epoch"),
           json_bool(json_get(s, "accepting"), true) ? "accepting" : "not accepting");
    double workers = number(s, "workers");
    if (all) printf(", %.0f worker%s", workers, workers == 1 ? "" : "s");
    putchar('\n');
    if (json_bool(json_get(s, "stalled"), false))
        puts("STALLED: jobs wait, a free worker could run them, and nothing moves");
    if (all)
        printf("store %.1f of %.1f MiB, %.0f commits, the last took %.0f us\n",
               number(s, "store_bytes") / 1048576, number(s, "store_cap_bytes") / 1048576,
               number(s, "commits"), number(s, "commit_us"));
    else
        fputs("the jobs of this key's tenant; a key with the right admin sees all\n", stderr);
    if (all) print_damage(s);
    printf("jobs");
    const struct json *jobs = json_get(s, "jobs"), *value;
    const char *state;
    for (size_t it = 0; json_next(jobs, &it, &state, &value);)
        printf("  %s %lld", state, (long long)json_int(value, 0));
    putchar('\n');
    print_queues(json_get(s, "queues"));
    print_sources(json_get(s, "sources"));
}

int cli_verb_status(int argc, char **argv) {
    static struct cli c;
    int code = plain_parse(&c, argc, argv, 0, NULL, "Show the broker's counts and queues.");
    return code != CLI_OK ? code : plain_show(&c, penstock_status, print);
}
