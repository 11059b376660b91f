/* verb_tokenize.c - `penstock-worker tokenize`: lines of stdin to token ids. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/arena.h"
#include "base/args.h"
#include "schemas/model_dir.h"
#include "workers/encode/tokenizer.h"
#include "workers/verbs.h"

#define LINE_ARENA_BYTES (256u * 1024u * 1024u)

struct options {
    const char *dir;
    char room[MODEL_DIR_BYTES];
    uint32_t max;
    bool special;
};

static const struct argp_option options[] = {
    {"max", 'm', "N", 0, "cut to N tokens, the special ones kept", 0},
    {"no-special", 's', NULL, 0, "without the special tokens that the tokenizer adds", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct options *o = state->input;
    char *end;
    unsigned long v;
    switch (key) {
    case 'm':
        v = strtoul(arg, &end, 10);
        if (*arg == '-' || end == arg || *end || v == 0 || v > UINT32_MAX)
            argp_error(state, "--max %s: not a number of tokens", arg);
        o->max = (uint32_t)v;
        break;
    case 's': o->special = false; break;
    case ARGP_KEY_ARG:
        if (o->dir) argp_usage(state);
        o->dir = model_dir_find(arg, o->room);
        break;
    case ARGP_KEY_END:
        if (!o->dir) argp_error(state, "a MODEL_DIR is needed");
        break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

/* Prints the ids of one line; a line that cannot be read is told and skipped. */
static int print_line(const struct tokenizer *t, const struct options *o, struct bytes line,
                      uint64_t number, struct arena *arena) {
    struct tokens tokens;
    char err[512] = "";
    arena_reset(arena);
    int rc = tokenizer_encode(t, line, o->special, o->max, arena, &tokens, err, sizeof err);
    if (rc != 0) {
        fprintf(stderr, "line %llu: %s\n", (unsigned long long)number, err);
        puts("null");
        return rc;
    }
    putchar('[');
    for (uint32_t i = 0; i < tokens.n; i++) printf("%s%u", i ? "," : "", tokens.ids[i]);
    puts("]");
    return 0;
}

int verb_tokenize(int argc, char **argv) {
    static const struct argp argp = {
        options,
        parse,
        "MODEL_DIR",
        "Print the token ids of each line of stdin, one JSON array a line; null "
        "for a line that is refused.",
        NULL,
        NULL,
        NULL};
    struct options o = {.special = true};
    struct tokenizer *t = NULL;
    struct arena arena;
    char err[512] = "", *line = NULL;
    size_t room = 0;
    ssize_t n;
    int status = 0;
    args_parse(&argp, argc, argv, &o);
    if (model_dir_need(o.dir, err, sizeof err) != 0 ||
        tokenizer_open(&t, o.dir, err, sizeof err) != 0) {
        fprintf(stderr, "%s: %s\n", argv[0], err);
        return 1;
    }
    arena_init(&arena, LINE_ARENA_BYTES);
    for (uint64_t number = 1; (n = getline(&line, &room, stdin)) >= 0; number++) {
        if (n > 0 && line[n - 1] == '\n') n--;
        if (print_line(t, &o, bytes_of(line, (size_t)n), number, &arena) != 0) status = 1;
    }
    free(line);
    arena_fini(&arena);
    tokenizer_close(t);
    return status;
}
