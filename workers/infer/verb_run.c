/* verb_run.c - `penstock-worker run`: texts by one decoder, in this process. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/args.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "kernels/ops.h"
#include "schemas/kinds.h"
#include "schemas/model_dir.h"
#include "workers/chat/chat.h"
#include "workers/encode/tokenizer.h"
#include "workers/infer/generate.h"
#include "workers/infer/guides.h"
#include "workers/infer/model.h"
#include "workers/schema/compile.h"
#include "workers/verbs.h"

#define PROMPT_ARENA_BYTES (256u * 1024u * 1024u)

struct options {
    const char *dir, *prompt, *messages, *device, *schema, *adapter;
    const char *draft;
    char room[MODEL_DIR_BYTES], draft_room[MODEL_DIR_BYTES];
    enum speculate_mode speculate;
    uint64_t max_tokens, seed, top_k, threads;
    uint64_t n, top_logprobs;
    double temperature, top_p, min_p, repetition, presence, frequency;
    struct bytes stop[GEN_STOPS_MAX];
    uint32_t n_stop;
    bool json, logprobs;
    struct model_config model;
};
#define TEXTS_MAX 16u
enum {
    OPT_SEED = 256,
    OPT_TOP_K,
    OPT_TOP_P,
    OPT_MIN_P,
    OPT_REPETITION,
    OPT_PRESENCE,
    OPT_FREQUENCY,
    OPT_TEXTS,
    OPT_LOGPROBS,
    OPT_ADAPTER,
    OPT_SPECULATE,
    OPT_DRAFT,
    OPT_DEVICE,
    OPT_MEMORY_EFFICIENT,
    OPT_THREADS,
    OPT_WEIGHTS,
    OPT_JSON,
    OPT_STOP,
    OPT_SCHEMA,
    OPT_MESSAGES
};

static const struct argp_option options[] = {
    {"prompt", 'p', "TEXT", 0, "the text to continue", 0},
    {"messages", OPT_MESSAGES, "FILE", 0,
     "answer the conversation in FILE by the model's chat template: JSON, a list of {role, "
     "content},"
     " or {messages, tools, template_vars}",
     0},
    {"max-tokens", 'n', "N", 0, "stop after N new tokens, 1 to 8192 (128)", 0},
    {"temperature", 't', "T", 0, "0 is greedy (the default), else seeded sampling", 0},
    {"top-k", OPT_TOP_K, "K", 0, "sample among the K most likely; 0 (the default): all", 0},
    {"top-p", OPT_TOP_P, "P", 0, "sample among the most likely that together reach P", 0},
    {"min-p", OPT_MIN_P, "P", 0, "sample among those at least P times as likely as the likeliest",
     0},
    {"repetition-penalty", OPT_REPETITION, "FACTOR", 0,
     "divide positive logits of tokens that are there by it, multiply negative ones (1)", 0},
    {"presence-penalty", OPT_PRESENCE, "P", 0,
     "take P off the logits of tokens that were written, -2 to 2", 0},
    {"frequency-penalty", OPT_FREQUENCY, "P", 0,
     "take P off for each time that a token was written, -2 to 2", 0},
    {"n", OPT_TEXTS, "N", 0, "write N texts of the prompt, each drawn by itself; up to 16", 0},
    {"logprobs", OPT_LOGPROBS, "N", 0,
     "with --json: the log probability of each token, and of the N most likely, 0 to 20", 0},
    {"seed", OPT_SEED, "S", 0, "of the sampling (0)", 0},
    {"stop", OPT_STOP, "TEXT", 0, "end before this text; up to 8 times", 0},
    {"adapter", OPT_ADAPTER, "DIR", 0, "with a LoRA adapter of the model, as peft saves it", 0},
    {"schema", OPT_SCHEMA, "FILE", 0, "write one JSON value that the JSON Schema in FILE allows",
     0},
    {"speculate", OPT_SPECULATE, "lookup|off", 0,
     "guess the next tokens from what the text repeats (lookup, the default) and compute guesses"
     " that pay beside the next; no text differs by it",
     0},
    {"draft", OPT_DRAFT, "MODEL", 0, "let a small model of the same family guess instead", 0},
    {"memory-efficient", OPT_MEMORY_EFFICIENT, NULL, 0,
     "keys and values in int8, a KV pool of at most 256 MiB, smaller chunks", 0},
    {"device", OPT_DEVICE, "D", 0, "auto (the default), cpu, or ref: the slow oracle", 0},
    {"backend", OPT_DEVICE, "D", OPTION_ALIAS, NULL, 0},
    {"threads", OPT_THREADS, "N", 0, "0 (the default): one a core", 0},
    {"weights", OPT_WEIGHTS, "TYPE", 0,
     "linear weights as f32, bf16, w8a8 or w4a8 (default: quantized ones as they are, others f32)",
     0},
    {"json", OPT_JSON, NULL, 0, "print one JSON object instead of the text", 0},
    {0}};

/* The bounds of an option are those of a job's field. */
static const struct field *field_of(const char *name) {
    const struct kind_desc *kind = kind_find(bytes_str("text.generate"));
    const struct field *f = field_find(kind->fields, kind->n, name);
    assert(f);
    return f;
}

static uint64_t number(struct argp_state *state, const char *name, const char *text, uint64_t min,
                       uint64_t max) {
    char *end;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (errno || *text == '-' || end == text || *end || v < min || v > max)
        argp_error(state, "--%s %s: not a whole number from %" PRIu64 " to %" PRIu64, name, text,
                   min, max);
    return v;
}

static uint64_t number_of(struct argp_state *state, const char *name, const char *text,
                          const struct field *f) {
    return number(state, name, text, f->min, f->max);
}

static double real_of(struct argp_state *state, const char *name, const char *text,
                      const struct field *f) {
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end || !(v >= f->fmin && v <= f->fmax))
        argp_error(state, "--%s %s: not a number from %g to %g", name, text, f->fmin, f->fmax);
    return v;
}

static void add_stop(struct options *o, struct argp_state *state, const char *text) {
    const struct field *f = field_of("stop");
    if (o->n_stop == GEN_STOPS_MAX) argp_error(state, "--stop: at most %u", GEN_STOPS_MAX);
    if (strlen(text) > f->item_max)
        argp_error(state, "--stop: more than %" PRIu64 " bytes", f->item_max);
    o->stop[o->n_stop++] = bytes_str(text);
}

static void check_together(const struct options *o, struct argp_state *state) {
    if (!o->dir)
        argp_error(state, "which model? give its folder, or a name of `penstock model ls`");
    if (!o->prompt && !o->messages)
        argp_error(state, "nothing to write on from: give --prompt TEXT or --messages FILE");
    if (o->prompt && o->messages)
        argp_error(state, "--prompt and --messages: one of them, not both");
    if (o->schema && o->n_stop)
        argp_error(state, "--stop: not with --schema, which says where a text ends");
    if (o->logprobs && !o->json)
        argp_error(state, "--logprobs: only with --json, which has a place for them");
}

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct options *o = state->input;
    switch (key) {
    case 'p': o->prompt = arg; break;
    case 'n': o->max_tokens = number_of(state, "max-tokens", arg, field_of("max_tokens")); break;
    case 't': o->temperature = real_of(state, "temperature", arg, field_of("temperature")); break;
    case OPT_TOP_K: o->top_k = number_of(state, "top-k", arg, field_of("top_k")); break;
    case OPT_TOP_P: o->top_p = real_of(state, "top-p", arg, field_of("top_p")); break;
    case OPT_MIN_P: o->min_p = real_of(state, "min-p", arg, field_of("min_p")); break;
    case OPT_REPETITION:
        o->repetition = real_of(state, "repetition-penalty", arg, field_of("repetition_penalty"));
        break;
    case OPT_PRESENCE:
        o->presence = real_of(state, "presence-penalty", arg, field_of("presence_penalty"));
        break;
    case OPT_FREQUENCY:
        o->frequency = real_of(state, "frequency-penalty", arg, field_of("frequency_penalty"));
        break;
    case OPT_TEXTS:
        o->n = number_of(state, "n", arg, field_of("n"));
        assert(o->n <= TEXTS_MAX);
        break;
    case OPT_LOGPROBS:
        o->logprobs = true;
        o->top_logprobs = number_of(state, "logprobs", arg, field_of("top_logprobs"));
        break;
    case OPT_SEED: o->seed = number(state, "seed", arg, 0, UINT64_MAX); break;
    case OPT_ADAPTER: o->adapter = arg; break;
    case OPT_SPECULATE:
        if (!speculate_mode_of(arg, &o->speculate))
            argp_error(state, "--speculate %s: use lookup or off", arg);
        break;
    case OPT_DRAFT: o->draft = model_dir_find(arg, o->draft_room); break;
    case OPT_DEVICE: o->device = arg; break;
    case OPT_MEMORY_EFFICIENT: model_config_lean(&o->model); break;
    case OPT_THREADS: o->threads = number(state, "threads", arg, 0, 1024); break;
    case OPT_WEIGHTS:
        if (!model_weights_parse(arg, &o->model))
            argp_error(state, "--weights %s: use f32, bf16, w8a8 or w4a8", arg);
        break;
    case OPT_JSON: o->json = true; break;
    case OPT_SCHEMA: o->schema = arg; break;
    case OPT_MESSAGES: o->messages = arg; break;
    case OPT_STOP: add_stop(o, state, arg); break;
    case ARGP_KEY_ARG:
        if (o->dir) argp_usage(state);
        o->dir = model_dir_find(arg, o->room);
        break;
    case ARGP_KEY_END: check_together(o, state); break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

/* What is open while the verb runs. */
struct session {
    struct ops *ops;
    struct model *model, *draft; /* draft: NULL without --draft */
    struct tokenizer *tokenizer;
    struct guides *guides; /* with a schema */
    struct guide *guide[TEXTS_MAX];
    struct arena arena;
};

static void stream_text(struct gen *g, struct bytes piece) {
    (void)g;
    fwrite(piece.data, 1, piece.len, stdout);
    fflush(stdout);
}

static void set_text(struct json *j, const char *key, const char *text) {
    json_set(j, key, json_new_str(text, strlen(text)));
}

static struct json *tops_of(const struct gen *g, uint32_t k) {
    struct json *list = json_new_array();
    for (uint32_t i = 0; i < g->top_n; i++) {
        const struct sample_top *top = &g->top[(size_t)k * g->top_n + i];
        struct json *pair = json_new_array();
        if (top->id == OPS_NO_TOKEN) {
            json_free(pair);
            break;
        }
        json_push(pair, json_new_int(top->id));
        json_push(pair, json_new_real((double)top->logprob));
        json_push(list, pair);
    }
    return list;
}

/* What each text has. */
static void set_written(struct json *j, const struct gen *g) {
    struct json *ids = json_new_array(), *logprobs = json_new_array(), *tops = json_new_array();
    for (uint32_t i = 0; i < g->tokens; i++) {
        json_push(ids, json_new_int(g->ids[i]));
        if (g->logprob) json_push(logprobs, json_new_real((double)g->logprob[i]));
        if (g->top) json_push(tops, tops_of(g, i));
    }
    json_set(j, "tokens", json_new_int(g->tokens));
    json_set(j, "ids", ids);
    set_text(j, "finish_reason", gen_finish_name(g->finish));
    json_set(j, "text", json_new_str(g->text.data ? (const char *)g->text.data : "", g->text.len));
    if (g->logprob)
        json_set(j, "logprobs", logprobs);
    else
        json_free(logprobs);
    if (g->top)
        json_set(j, "top_logprobs", tops);
    else
        json_free(tops);
}

static int print_json(const struct session *s, const struct options *o, const struct gen *g) {
    struct json *root = json_new_object(), *choices = json_new_array();
    set_text(root, "model", o->dir);
    if (o->adapter) set_text(root, "adapter", o->adapter);
    set_text(root, "architecture", model_info(s->model)->architecture);
    json_set(root, "prompt_tokens", json_new_int(g->prompt_tokens));
    set_written(root, g);
    set_text(root, "numerics_id", model_numerics_id(s->model));
    for (uint64_t i = 0; o->n > 1 && i < o->n; i++) {
        struct json *choice = json_new_object();
        set_written(choice, &g[i]);
        json_push(choices, choice);
    }
    if (o->n > 1)
        json_set(root, "choices", choices);
    else
        json_free(choices);
    char *text = json_text(root, 0);
    json_free(root);
    if (!text) return err_set(NULL, 0, -ENOMEM, "no memory");
    puts(text);
    free(text);
    return 0;
}

/* The texts that the options ask for; NULL without memory. */
static struct gen *make_texts(struct session *s, const struct options *o,
                              const struct gen *prompt) {
    struct gen *gens = arena_calloc(&s->arena, o->n, sizeof *gens);
    for (uint32_t i = 0; gens && i < o->n; i++) {
        struct gen *g = &gens[i];
        *g = *prompt;
        g->tokens_max = (uint32_t)o->max_tokens;
        g->temperature = (float)o->temperature;
        g->top_p = (float)o->top_p;
        g->top_k = (uint32_t)o->top_k;
        g->min_p = (float)o->min_p;
        g->repetition = (float)o->repetition;
        g->presence = (float)o->presence;
        g->frequency = (float)o->frequency;
        g->seed = o->seed;
        g->stream = i;
        g->same_prompt = i > 0 ? gens : NULL;
        g->n_stop = o->n_stop;
        g->on_text = o->json || o->n > 1 ? NULL : stream_text;
        memcpy(g->stop, o->stop, sizeof g->stop);
        g->ids = arena_calloc(&s->arena, o->max_tokens + 1, sizeof *g->ids);
        if (o->logprobs) g->logprob = arena_calloc(&s->arena, o->max_tokens + 1, sizeof(float));
        g->top_n = (uint32_t)o->top_logprobs;
        if (g->top_n)
            g->top = arena_calloc(&s->arena, (o->max_tokens + 1) * g->top_n, sizeof *g->top);
        if (!g->ids || (o->logprobs && !g->logprob) || (g->top_n && !g->top)) return NULL;
    }
    return gens;
}

/* Has the texts keep to the schema, if there is one. */
static int guide_texts(struct session *s, const struct options *o, struct gen *gens, char *err,
                       size_t err_bytes) {
    char why[LIMIT_REASON_BYTES] = "";
    void *text;
    size_t bytes;
    if (!o->schema) return 0;
    int rc = file_read(o->schema, SCHEMA_BYTES_MAX, &text, &bytes, why, sizeof why);
    if (rc != 0) return err_set(err, err_bytes, rc, "--schema: %s", why);
    uint32_t context = model_info(s->model)->context;
    rc = guides_open(&s->guides, s->tokenizer, model_info(s->model), err, err_bytes);
    for (uint64_t i = 0; rc == 0 && i < o->n; i++) {
        struct gen *g = &gens[i];
        uint32_t room = g->prompt_tokens <= context ? context + 1 - g->prompt_tokens : 1;
        if (g->tokens_max > room) g->tokens_max = room;
        rc = guide_new(s->guides, bytes_of(text, bytes), g->tokens_max, &s->guide[i], why,
                       sizeof why);
        if (rc == 0)
            g->guide = guide_of(s->guide[i]);
        else
            err_set(err, err_bytes, rc, "--schema %s: %s", o->schema,
                    why + (strncmp(why, "schema: ", 8) == 0 ? 8 : 0));
    }
    free(text);
    return rc;
}

static int tell(const struct session *s, const struct options *o, const struct gen *g, char *err,
                size_t err_bytes) {
    for (uint64_t i = 0; i < o->n; i++)
        if (g[i].finish == GEN_FAILED) return err_set(err, err_bytes, g[i].error, "%s", g[i].err);
    if (o->json)
        return print_json(s, o, g) == 0 ? 0 : err_set(err, err_bytes, -ENOMEM, "no memory");
    if (o->n == 1) putchar('\n');
    for (uint64_t i = 0; o->n > 1 && i < o->n; i++) {
        fwrite(g[i].text.data, 1, g[i].text.len, stdout);
        putchar('\n');
    }
    fflush(stdout); /* before what is told on stderr, which may be the same pipe */
    return 0;
}

/* The ids of the prompt, or of the conversation. */
static int encode(struct session *s, const struct options *o, struct tokens *out, char *err,
                  size_t err_bytes) {
    struct chat_input in = {.add_generation_prompt = true, .now_s = clock_wall_ms() / 1000};
    struct json *document = NULL;
    struct chat *chat = NULL;
    void *text = NULL;
    size_t bytes;
    char why[LIMIT_REASON_BYTES] = "";
    if (!o->messages)
        return tokenizer_encode(s->tokenizer, bytes_str(o->prompt), true, 0, &s->arena, out, err,
                                err_bytes);
    int rc = file_read(o->messages, LIMIT_BODY_BYTES, &text, &bytes, why, sizeof why);
    if (rc < 0) return err_set(err, err_bytes, rc, "--messages: %s", why);
    if ((rc = chat_open(&chat, o->dir, err, err_bytes)) < 0) goto end;
    rc = chat_json(&document, bytes_of(text, bytes), why, sizeof why);
    if (rc == 0) rc = chat_read(&in, document, why, sizeof why);
    if (rc == 0) rc = chat_encode(chat, &in, s->tokenizer, &s->arena, out, why, sizeof why);
    if (rc < 0) err_set(err, err_bytes, rc, "--messages %s: %s", o->messages, why);
end:
    free(text);
    json_free(document);
    chat_close(chat);
    return rc;
}

static int run(struct session *s, const struct options *o, char *err, size_t err_bytes) {
    struct ops_config ops = {
        .backend = o->device, .level = "auto", .threads = (uint32_t)o->threads};
    struct tokens prompt;
    int rc;
    if ((rc = model_dir_need(o->dir, err, err_bytes)) != 0) return rc;
    if (o->adapter && !file_is_folder(o->adapter))
        return err_set(err, err_bytes, ERR_UNKNOWN,
                       "--adapter %s: there is no such folder; name one that peft has saved, with "
                       "adapter_config.json in it",
                       o->adapter);
    if ((rc = ops_open(&s->ops, &ops, err, err_bytes)) != 0 ||
        (rc = model_open(&s->model, o->dir, s->ops, &o->model, err, err_bytes)) != 0)
        return rc;
    const struct model_info *info = model_info(s->model);
    if (info->kind != MODEL_DECODER)
        return err_set(err, err_bytes, -EINVAL, "%s: a %s does not write text; run needs a decoder",
                       o->dir, info->architecture);
    if ((rc = tokenizer_open(&s->tokenizer, o->dir, err, err_bytes)) != 0 ||
        (rc = encode(s, o, &prompt, err, err_bytes)) != 0)
        return rc;
    if (o->draft &&
        (rc = speculate_draft_open(&s->draft, o->draft, s->ops, s->tokenizer, err, err_bytes)) != 0)
        return rc;
    struct gen of_prompt = {.prompt = prompt.ids, .prompt_tokens = prompt.n};
    if (o->adapter &&
        (rc = model_adapter(s->model, o->adapter, &of_prompt.adapter, err, err_bytes)) != 0)
        return rc;
    struct gen *g = make_texts(s, o, &of_prompt), *list[TEXTS_MAX];
    if (!g)
        return err_set(err, err_bytes, -ENOMEM,
                       "no memory for %" PRIu64 " texts of %" PRIu64 " tokens", o->n,
                       o->max_tokens);
    rc = guide_texts(s, o, g, err, err_bytes);
    if (rc != 0) return rc;
    for (uint64_t i = 0; i < o->n; i++) list[i] = &g[i];
    struct gen_loop_config c = {.speculate = s->draft ? SPECULATE_DRAFT : o->speculate,
                                .draft = s->draft};
    int64_t began = clock_mono_ns();
    struct gen_loop_stats did = generate_with(s->model, s->tokenizer, &c, list, (uint32_t)o->n);
    double seconds = (double)(clock_mono_ns() - began) / 1e9;
    uint32_t tokens = 0;
    for (uint64_t i = 0; i < o->n; i++) tokens += g[i].tokens;
    rc = tell(s, o, g, err, err_bytes);
    if (rc == 0)
        fprintf(stderr, "%u prompt tokens, %u tokens in %.2f s (%.1f a second), ended by %s, %s\n",
                g->prompt_tokens, tokens, seconds, tokens / seconds, gen_finish_name(g->finish),
                model_numerics_id(s->model));
    if (rc == 0 && did.guesses > 0)
        fprintf(stderr, "%" PRIu64 " of %" PRIu64 " guessed tokens were right, %" PRIu64 " steps\n",
                did.guesses_right, did.guesses, did.steps);
    for (uint64_t i = 0; i < o->n; i++) gen_fini(&g[i]);
    return rc;
}

int verb_run(int argc, char **argv) {
    static const struct argp argp = {
        options,
        parse,
        "MODEL_DIR --prompt TEXT\nMODEL_DIR --messages FILE",
        "Continue a text, or a conversation, with a decoder, without a broker.",
        NULL,
        NULL,
        NULL};
    struct options o = {.device = "auto",
                        .max_tokens = 128,
                        .top_p = 1,
                        .repetition = 1,
                        .n = 1,
                        .model = {.cache = true}};
    struct session s = {0};
    char err[512] = "";
    args_parse(&argp, argc, argv, &o);
    arena_init(&s.arena, PROMPT_ARENA_BYTES);
    int rc = run(&s, &o, err, sizeof err);
    if (rc != 0) fprintf(stderr, "%s: %s\n", argv[0], *err ? err : err_text(rc));
    for (uint32_t i = 0; i < TEXTS_MAX; i++) guide_free(s.guide[i]);
    guides_close(s.guides);
    tokenizer_close(s.tokenizer);
    model_close(s.draft);
    model_close(s.model);
    ops_close(s.ops);
    arena_fini(&s.arena);
    return rc == 0 ? 0 : 1;
}
