/* verb_run.c - `penstock-worker run`: one text by one decoder, in this process. */
#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/json.h"
#include "kernels/ops.h"
#include "workers/encode/tokenizer.h"
#include "workers/infer/generate.h"
#include "workers/infer/model.h"
#include "workers/verbs.h"

#define PROMPT_ARENA_BYTES (256u * 1024u * 1024u)

struct options {
    const char *dir, *prompt, *device;
    uint64_t max_tokens, seed, top_k, threads;
    double temperature, top_p;
    struct bytes stop[GEN_STOPS_MAX];
    uint32_t n_stop;
    bool json;
};
enum { OPT_SEED = 256, OPT_TOP_K, OPT_TOP_P, OPT_DEVICE, OPT_THREADS, OPT_JSON, OPT_STOP };

static const struct argp_option options[] = {
    {"prompt", 'p', "TEXT", 0, "the text to continue", 0},
    {"max-tokens", 'n', "N", 0, "stop after N new tokens (128)", 0},
    {"temperature", 't', "T", 0, "0 is greedy (the default), else seeded sampling", 0},
    {"top-k", OPT_TOP_K, "K", 0, "sample among the K most likely", 0},
    {"top-p", OPT_TOP_P, "P", 0, "sample among the most likely that together reach P", 0},
    {"seed", OPT_SEED, "S", 0, "of the sampling (0)", 0},
    {"stop", OPT_STOP, "TEXT", 0, "end before this text; up to 8 times", 0},
    {"device", OPT_DEVICE, "D", 0, "auto (the default), cpu, or ref: the slow oracle", 0},
    {"backend", OPT_DEVICE, "D", OPTION_ALIAS, NULL, 0},
    {"threads", OPT_THREADS, "N", 0, "0 (the default): one a core", 0},
    {"json", OPT_JSON, NULL, 0, "print one JSON object instead of the text", 0},
    {0}};

static uint64_t number(struct argp_state *state, const char *name, const char *text, uint64_t max) {
    char *end;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (errno || *text == '-' || end == text || *end || v > max)
        argp_error(state, "--%s %s: not a whole number up to %" PRIu64, name, text, max);
    return v;
}

static double real(struct argp_state *state, const char *name, const char *text, double max) {
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end || !(v >= 0 && v <= max))
        argp_error(state, "--%s %s: not a number from 0 to %g", name, text, max);
    return v;
}

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct options *o = state->input;
    switch (key) {
    case 'p': o->prompt = arg; break;
    case 'n': o->max_tokens = number(state, "max-tokens", arg, 1u << 20); break;
    case 't': o->temperature = real(state, "temperature", arg, 2); break;
    case OPT_TOP_K: o->top_k = number(state, "top-k", arg, 1u << 20); break;
    case OPT_TOP_P: o->top_p = real(state, "top-p", arg, 1); break;
    case OPT_SEED: o->seed = number(state, "seed", arg, UINT64_MAX); break;
    case OPT_DEVICE: o->device = arg; break;
    case OPT_THREADS: o->threads = number(state, "threads", arg, 1024); break;
    case OPT_JSON: o->json = true; break;
    case OPT_STOP:
        if (o->n_stop == GEN_STOPS_MAX) argp_error(state, "--stop: at most %u", GEN_STOPS_MAX);
        o->stop[o->n_stop++] = bytes_str(arg);
        break;
    case ARGP_KEY_ARG:
        if (o->dir) argp_usage(state);
        o->dir = arg;
        break;
    case ARGP_KEY_END:
        if (!o->dir || !o->prompt) argp_error(state, "a MODEL_DIR and --prompt are needed");
        break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

/* What is open while the verb runs. */
struct session {
    struct ops *ops;
    struct model *model;
    struct tokenizer *tokenizer;
    struct arena arena;
};

static void stream_text(struct gen *g, struct bytes piece) {
    (void)g;
    fwrite(piece.data, 1, piece.len, stdout);
    fflush(stdout);
}

static int print_json(const struct session *s, const struct options *o, const struct gen *g) {
    struct json *root = json_new_object(), *ids = json_new_array();
    for (uint32_t i = 0; i < g->tokens; i++) json_push(ids, json_new_int(g->ids[i]));
    json_set(root, "model", json_new_str(o->dir, strlen(o->dir)));
    json_set(root, "architecture",
             json_new_str(model_info(s->model)->architecture,
                          strlen(model_info(s->model)->architecture)));
    json_set(root, "prompt_tokens", json_new_int(g->prompt_tokens));
    json_set(root, "tokens", json_new_int(g->tokens));
    json_set(root, "ids", ids);
    json_set(root, "finish_reason",
             json_new_str(gen_finish_name(g->finish), strlen(gen_finish_name(g->finish))));
    json_set(root, "text",
             json_new_str(g->text.data ? (const char *)g->text.data : "", g->text.len));
    json_set(root, "numerics_id",
             json_new_str(model_numerics_id(s->model), strlen(model_numerics_id(s->model))));
    char *text = json_text(root, 0);
    json_free(root);
    if (!text) return err_set(NULL, 0, -ENOMEM, "no memory");
    puts(text);
    free(text);
    return 0;
}

static int run(struct session *s, const struct options *o, char *err, size_t err_bytes) {
    struct ops_config ops = {
        .backend = o->device, .level = "auto", .threads = (uint32_t)o->threads};
    struct tokens prompt;
    int rc;
    if ((rc = ops_open(&s->ops, &ops, err, err_bytes)) != 0 ||
        (rc = model_open(&s->model, o->dir, s->ops, NULL, err, err_bytes)) != 0 ||
        (rc = tokenizer_open(&s->tokenizer, o->dir, err, err_bytes)) != 0 ||
        (rc = tokenizer_encode(s->tokenizer, bytes_str(o->prompt), true, 0, &s->arena, &prompt, err,
                               err_bytes)) != 0)
        return rc;
    const struct model_info *info = model_info(s->model);
    if (info->kind != MODEL_DECODER)
        return err_set(err, err_bytes, -EINVAL, "%s: a %s does not write text; run needs a decoder",
                       o->dir, info->architecture);
    struct gen g = {.prompt = prompt.ids,
                    .prompt_tokens = prompt.n,
                    .tokens_max = (uint32_t)o->max_tokens,
                    .temperature = (float)o->temperature,
                    .top_p = (float)o->top_p,
                    .top_k = (uint32_t)o->top_k,
                    .seed = o->seed,
                    .n_stop = o->n_stop,
                    .on_text = o->json ? NULL : stream_text};
    memcpy(g.stop, o->stop, sizeof g.stop);
    g.ids = arena_calloc(&s->arena, o->max_tokens + 1, sizeof *g.ids);
    if (!g.ids)
        return err_set(err, err_bytes, -ENOMEM, "no memory for %" PRIu64 " tokens", o->max_tokens);
    int64_t began = clock_mono_ns();
    generate(s->model, s->tokenizer, (struct gen *[]){&g}, 1);
    double seconds = (double)(clock_mono_ns() - began) / 1e9;
    if (g.finish == GEN_FAILED) {
        rc = err_set(err, err_bytes, g.error, "%s", g.err);
    } else if (o->json) {
        rc = print_json(s, o, &g);
        if (rc != 0) err_set(err, err_bytes, rc, "no memory for the result");
    } else {
        putchar('\n');
    }
    if (rc == 0)
        fprintf(stderr, "%u prompt tokens, %u tokens in %.2f s (%.1f a second), ended by %s, %s\n",
                g.prompt_tokens, g.tokens, seconds, g.tokens / seconds, gen_finish_name(g.finish),
                model_numerics_id(s->model));
    gen_fini(&g);
    return rc;
}

int verb_run(int argc, char **argv) {
    static const struct argp argp = {options,
                                     parse,
                                     "MODEL_DIR --prompt TEXT",
                                     "Continue a text with a decoder, without a broker.",
                                     NULL,
                                     NULL,
                                     NULL};
    struct options o = {.device = "auto", .max_tokens = 128, .top_p = 1};
    struct session s = {0};
    char err[512] = "";
    argp_err_exit_status = 2;
    argp_parse(&argp, argc, argv, 0, NULL, &o);
    arena_init(&s.arena, PROMPT_ARENA_BYTES);
    int rc = run(&s, &o, err, sizeof err);
    if (rc != 0) fprintf(stderr, "%s: %s; see `penstock run --help`\n", argv[0], err);
    tokenizer_close(s.tokenizer);
    model_close(s.model);
    ops_close(s.ops);
    arena_fini(&s.arena);
    return rc == 0 ? 0 : 1;
}
