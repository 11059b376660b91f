/* The result of qc.inspect: the verdict, its defects, and the causes with their evidence. */
#include <stdio.h>

#include "client/cli/outcome_kinds.h"
#include "client/cli/table.h"

static const char *str(const struct json *j, const char *key) {
    const char *s = json_str(json_get(j, key));
    return s ? s : "";
}

static double num(const struct json *j, const char *key) {
    return json_num(json_get(j, key), 0);
}

static void print_rules(const struct json *rules) {
    for (size_t i = 0; i < json_len(rules); i++) {
        const struct json *r = json_at(rules, i);
        if (!json_bool(json_get(r, "holds"), false)) continue;
        printf("  because %s is %g (rule: %s %g)\n", str(r, "feature"), num(r, "measured"),
               str(r, "op"), num(r, "value"));
    }
}

static void print_defects(const struct json *rows) {
    static const char *const heads[] = {"defect:40", "score",    "x,y", "size",
                                        "area",      "contrast", NULL};
    struct table t;
    if (json_len(rows) == 0) return;
    putchar('\n');
    table_init(&t, heads);
    for (size_t i = 0; i < json_len(rows); i++) {
        const struct json *d = json_at(rows, i), *box = json_get(d, "box");
        table_cell(&t, "%s", str(d, "class"));
        table_cell(&t, "%.2f", num(d, "score"));
        table_cell(&t, "%.0f,%.0f", json_num(json_at(box, 0), 0), json_num(json_at(box, 1), 0));
        table_cell(&t, "%.0fx%.0f", json_num(json_at(box, 2), 0), json_num(json_at(box, 3), 0));
        table_cell(&t, "%.0f", num(json_get(d, "size"), "area"));
        table_cell(&t, "%.0f", num(d, "contrast"));
    }
    table_print(&t);
    table_fini(&t);
}

static void print_causes(const struct json *rows) {
    if (json_len(rows))
        printf("\n%slikely causes%s\n", term_on(stdout, TERM_BOLD), term_off(stdout));
    for (size_t i = 0; i < json_len(rows); i++) {
        const struct json *c = json_at(rows, i), *lines = json_get(c, "evidence");
        printf("%.2f  %s%s%s\n", num(c, "score"), term_on(stdout, i ? TERM_PLAIN : TERM_YELLOW),
               str(c, "cause"), term_off(stdout));
        for (size_t k = 0; k < json_len(lines); k++) {
            const struct json *e = json_at(lines, k);
            printf("      line %-4.0f %s\n", num(e, "line"), str(e, "text"));
            if (str(e, "rule")[0]) printf("                so that %s\n", str(e, "rule"));
        }
    }
}

void outcome_qc(const struct json *j) {
    const char *state = str(j, "state");
    printf("%s%s%s  part %s, recipe %s version %.0f, worst difference %.2f\n",
           term_on(stdout, term_style_of(state)), state, term_off(stdout), str(j, "PartId"),
           str(j, "RecipeId"), num(j, "version"), num(j, "score"));
    print_rules(json_get(j, "rules"));
    print_defects(json_get(j, "defects"));
    print_causes(json_get(j, "causes"));
}
