#include "tests/bench/engine/llama.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"

static void die(const char *what, const char *of) {
    fprintf(stderr, "engine: %s: %s\n", of, what);
    exit(1);
}

static const char *last_part(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

uint32_t llamas_find(struct llama *out, const char *model_dir, const char *formats) {
    static const struct {
        const char *name, *options;
    } peers[] = {{"llama.cpp", ""}, {"ik_llama.cpp", ""}};
    const char *dir = getenv("PEERS"), *model = last_part(model_dir);
    uint32_t n = 0;
    for (const char *f = formats; dir && *f; f += strcspn(f, " "), f += strspn(f, " "))
        for (size_t i = 0; i < sizeof peers / sizeof *peers && n < LLAMAS_MAX; i++) {
            struct llama *l = &out[n];
            int length = (int)strcspn(f, " ");
            char program[600];
            snprintf(l->name, sizeof l->name, "%s %.*s", peers[i].name, length, f);
            snprintf(l->bin, sizeof l->bin, "%.400s/%s/build/bin", dir, peers[i].name);
            snprintf(l->model, sizeof l->model, "%.400s/models/%.200s-%.*s.gguf", dir, model,
                     length, f);
            snprintf(program, sizeof program, "%s/llama-bench", l->bin);
            l->options = peers[i].options;
            if (access(program, X_OK) == 0 && access(l->model, R_OK) == 0) n++;
        }
    return n;
}

/* Runs a program of the peer's; what it printed, for free(). */
static char *run(const struct llama *l, const char *program, const char *arguments) {
    struct buf out = {0};
    char command[2048];
    size_t n;
    snprintf(command, sizeof command, "'%s/%s' -m '%s' %s %s 2>/dev/null", l->bin, program,
             l->model, l->options, arguments);
    FILE *f = popen(command, "re");
    if (!f) die("cannot be started", l->name);
    do {
        uint8_t *at = buf_extend(&out, 4096);
        if (!at) die("no memory", l->name);
        n = fread(at, 1, 4096, f);
        out.len -= 4096 - n;
    } while (n > 0);
    if (pclose(f) != 0 || buf_u8(&out, 0) != 0) die("failed", command);
    return (char *)out.data;
}

/* llama-bench's one test. */
static double bench_rate(const struct llama *l, uint32_t threads, uint32_t prompt,
                         uint32_t tokens) {
    char arguments[128];
    snprintf(arguments, sizeof arguments, "-t %u -p %u -n %u -r 1 -o json", threads, prompt,
             tokens);
    char *text = run(l, "llama-bench", arguments);
    const char *at = strstr(text, "\"avg_ts\":");
    double rate = at ? strtod(at + 9, NULL) : 0;
    if (rate <= 0) die("llama-bench prints no avg_ts", l->name);
    free(text);
    return rate;
}

double llama_prefill(const struct llama *l, uint32_t threads, uint32_t tokens) {
    return bench_rate(l, threads, tokens, 0);
}

double llama_decode(const struct llama *l, uint32_t threads, uint32_t tokens) {
    return bench_rate(l, threads, 0, tokens);
}

double llama_decode_batch(const struct llama *l, uint32_t threads, uint32_t n,
                          uint32_t prompt_tokens, uint32_t tokens) {
    char arguments[200];
    double rate = 0;
    /* Room for the prompts and the texts, and for what it warms up with. */
    snprintf(arguments, sizeof arguments, "-t %u -c %u -b 2048 -ub 512 -npp %u -ntg %u -npl %u",
             threads, n * (prompt_tokens + tokens) + 512, prompt_tokens, tokens, n);
    char *text = run(l, "llama-batched-bench", arguments);
    /* Its table: prompt, tokens, texts, cached, then seconds and rates of both phases. */
    for (const char *line = text; line && *line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (sscanf(line, "| %*d | %*d | %*d | %*d | %*f | %*f | %*f | %lf", &rate) == 1) break;
    }
    if (rate <= 0) die("llama-batched-bench prints no table", l->name);
    free(text);
    return rate;
}
