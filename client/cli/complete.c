#include "client/cli/complete.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "schemas/kinds.h"

#define ASK_MS 250 /* an engine that takes longer is not asked for its jobs */
#define JOBS 50u
#define OPTIONS_MAX 64
#define OPTION_INDENT_MAX 6 /* help indents what it says of an option deeper */

struct offered {
    char name[40];  /* with its dashes */
    char brief[4];  /* "-w", or empty */
    char value[32]; /* "FILE"; empty: it takes none */
};
struct options {
    struct offered at[OPTIONS_MAX];
    int n;
};

static void offer(const char *word, const char *begun) {
    if (strncmp(word, begun, strlen(begun)) == 0) puts(word);
}

/* ---- options, from --help ---- */

/* "  -x, --text=TEXT    The text" or "      --stream". */
static void take_line(struct options *o, const char *line) {
    struct offered *to = &o->at[o->n];
    size_t indent = strspn(line, " ");
    const char *dashes = strstr(line, "--");
    if (o->n == OPTIONS_MAX || indent > OPTION_INDENT_MAX || line[indent] != '-' || !dashes) return;
    *to = (struct offered){0};
    size_t name = strcspn(dashes, "= \n[");
    snprintf(to->name, sizeof to->name, "%.*s", (int)name, dashes);
    if (dashes > line + indent) snprintf(to->brief, sizeof to->brief, "%.2s", line + indent);
    if (dashes[name] == '=')
        snprintf(to->value, sizeof to->value, "%.*s", (int)strcspn(dashes + name + 1, " \n"),
                 dashes + name + 1);
    o->n++;
}

static void read_options(const char *verb, struct options *o) {
    char program[4096 + 16], line[256];
    int out[2];
    o->n = 0;
    cli_program_dir(program);
    strcat(program, "penstock");
    if (pipe(out) != 0) return;
    pid_t pid = fork();
    if (pid == 0) {
        dup2(out[1], STDOUT_FILENO);
        close(out[0]);
        close(out[1]);
        execl(program, program, verb, "--help", (char *)NULL);
        _exit(127);
    }
    close(out[1]);
    FILE *help = fdopen(out[0], "r");
    while (help && fgets(line, sizeof line, help)) take_line(o, line);
    if (help) fclose(help);
    if (pid > 0) waitpid(pid, NULL, 0);
}

static const struct offered *find(const struct options *o, const char *word) {
    for (int i = 0; i < o->n; i++)
        if (strcmp(word, o->at[i].name) == 0 ||
            (o->at[i].brief[0] && strcmp(word, o->at[i].brief) == 0))
            return &o->at[i];
    return NULL;
}

/* ---- arguments, by what the table and the help call them ---- */

static void offer_jobs(const char *begun) {
    struct penstock *p;
    struct penstock_list l;
    const struct penstock_filter newest = {.limit = JOBS};
    char err[PENSTOCK_ERR_BYTES];
    if (penstock_open(&p, NULL, err, sizeof err) < 0) return;
    if (penstock_list(p, &newest, &l, ASK_MS, err, sizeof err) == 0) {
        for (size_t i = 0; i < l.n; i++) offer(l.rows[i].job, begun);
        penstock_list_free(&l);
    }
    penstock_close(p);
}

static void offer_kinds(const char *begun) {
    const struct kind_desc *k;
    for (uint32_t i = 0; (k = kind_at(i)); i++) offer(k->name, begun);
}

/* A word such as JOB, [KIND] or show|cancel, up to a blank. */
static void offer_meant(const char *meant, const char *begun) {
    static const char *const states[] = {"accepted", "ready",  "delayed",   "leased", "waiting",
                                         "done",     "failed", "cancelled", "expired"};
    static const char *const levels[] = {"debug", "info", "warn", "error"};
    char word[64];
    meant += strspn(meant, "[");
    size_t len = strcspn(meant, " ].");
    snprintf(word, sizeof word, "%.*s", (int)len, meant);
    if (strcmp(word, "JOB") == 0) offer_jobs(begun);
    if (strcmp(word, "KIND") == 0) offer_kinds(begun);
    for (size_t i = 0; strcmp(word, "STATE") == 0 && i < sizeof states / sizeof *states; i++)
        offer(states[i], begun);
    for (size_t i = 0; strcmp(word, "LEVEL") == 0 && i < sizeof levels / sizeof *levels; i++)
        offer(levels[i], begun);
    if (!islower((unsigned char)word[0])) return;
    for (char *rest = word, *one; (one = strsep(&rest, "|"));) offer(one, begun);
}

/* The i-th argument of a verb; the last one repeats. */
static const char *argument(const char *args, int i) {
    for (const char *blank; i > 0 && (blank = strchr(args, ' ')); i--) args = blank + 1;
    return i > 0 && !strstr(args, "...") ? "" : args;
}

void complete_words(char **words, int n) {
    static const struct cli_verb *verb;
    const char *begun = n ? words[n - 1] : "";
    size_t n_verbs;
    const struct cli_verb *verbs = cli_verbs(&n_verbs);
    for (size_t i = 0; i < n_verbs; i++) {
        if (n <= 1) offer(verbs[i].name, begun);
        if (n > 1 && strcmp(words[0], verbs[i].name) == 0) verb = &verbs[i];
    }
    if (n <= 1 || !verb) return;
    struct options o;
    read_options(verb->name, &o);
    const struct offered *open = NULL; /* an option whose value comes next */
    int arguments = 0;
    for (int i = 1; i + 1 < n; i++) {
        if (strcmp(words[i], "=") == 0) continue; /* bash makes a word of it */
        const struct offered *named = words[i][0] == '-' ? find(&o, words[i]) : NULL;
        arguments += !open && words[i][0] != '-';
        open = !open && named && named->value[0] ? named : NULL;
    }
    if (open)
        offer_meant(open->value, strcmp(begun, "=") == 0 ? "" : begun);
    else if (begun[0] == '-')
        for (int i = 0; i < o.n; i++) offer(o.at[i].name, begun);
    else
        offer_meant(argument(verb->args, arguments), begun);
}
