/* penstock queue ls|stat: the stages of each pipeline, what stands there, what comes and goes. */
#include <stdio.h>
#include <string.h>

#include "client/cli/plain.h"
#include "client/cli/table.h"

static double number(const struct json *j, const char *key) {
    return json_num(json_get(j, key), 0);
}

static void begin_row(struct table *t, const struct json *q) {
    const char *pipeline = json_str(json_get(q, "pipeline")),
               *stage = json_str(json_get(q, "stage"));
    table_cell(t, "%s", pipeline ? pipeline : "");
    table_cell(t, "%s", stage ? stage : "");
}

static void print_now(const struct json *queues) {
    static const char *const heads[] = {"pipeline", "stage",  "ready", "leased",
                                        "delayed",  "oldest", "bytes", NULL};
    struct table t;
    table_init(&t, heads);
    for (size_t i = 0; i < json_len(queues); i++) {
        const struct json *q = json_at(queues, i);
        begin_row(&t, q);
        table_cell(&t, "%.0f", number(q, "ready"));
        table_cell(&t, "%.0f", number(q, "leased"));
        table_cell(&t, "%.0f", number(q, "delayed"));
        table_duration(&t, number(q, "ready") > 0 ? (int64_t)number(q, "oldest_ms") : -1);
        table_cell(&t, "%.0f", number(q, "bytes"));
    }
    table_print(&t);
    table_fini(&t);
}

static void print_pace(const struct json *queues) {
    static const char *const heads[] = {"pipeline", "stage", "in", "out", "in/s", "out/s", NULL};
    struct table t;
    table_init(&t, heads);
    for (size_t i = 0; i < json_len(queues); i++) {
        const struct json *q = json_at(queues, i);
        begin_row(&t, q);
        table_cell(&t, "%.0f", number(q, "in"));
        table_cell(&t, "%.0f", number(q, "out"));
        table_cell(&t, "%.1f", number(q, "in_rate"));
        table_cell(&t, "%.1f", number(q, "out_rate"));
    }
    table_print(&t);
    table_fini(&t);
}

int cli_verb_queue(int argc, char **argv) {
    static struct cli c;
    int code = plain_parse(&c, argc, argv, 1, "ls|stat",
                           "Show each stage of each pipeline that had jobs since the broker's "
                           "start. ls: what is ready, leased and delayed there now, how long the "
                           "oldest waits and the bytes of the bodies; stat: how many jobs came and "
                           "left, and how many a second of late.");
    if (code != CLI_OK) return code;
    const char *what = c.n == 1 ? c.args[0] : "";
    if (strcmp(what, "ls") == 0) return plain_show(&c, penstock_queues, print_now);
    if (strcmp(what, "stat") == 0) return plain_show(&c, penstock_queues, print_pace);
    return cli_usage("write `penstock queue ls` or `penstock queue stat`");
}
