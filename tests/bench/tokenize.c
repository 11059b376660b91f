/* tokenize.c - how many bytes of text a second become tokens, beside Hugging Face tokenizers.
 *
 * usage: tokenize
 *
 * Documents of about 4 KB, English and Chinese, through tokenizer_encode, a family of tokenizers a
 * row: those with the vocabulary of a real model where it is at hand (MiniLM in the user's cache,
 * PENSTOCK_DATA/tokenizers), else small ones of tests/golden/tokenizers. English is Shakespeare
 * where PENSTOCK_DATA has it, else a contract again and again. The peer runs on one thread, through
 * its batch interface without offsets: PEERS=DIR names a folder whose bin/python has it (python3 -m
 * venv DIR, then DIR/bin/pip install tokenizers). Both count processor time, and must find as many
 * tokens. Prints a table and writes build/bench/tokenize.json.
 *
 * Units: MB (a million bytes) a second.  Owner, errors: a program; it exits 1 with a message. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/file.h"
#include "schemas/model_dir.h"
#include "tests/bench/report/python.h"
#include "tests/bench/report/report.h"
#include "workers/encode/tokenizer.h"

enum { RUNS = 5, RUN_NS = 150000000, DOCUMENT_BYTES = 4096, TEXT_BYTES = 1000000 };

struct texts {
    const char *language;
    char path[64]; /* for the peer: a NUL behind each document */
    struct buf all;
};

static void die(const char *what) {
    fprintf(stderr, "tokenize: %s\n", what);
    exit(1);
}

static double processor_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* A megabyte of the file, again and again, cut into documents at line ends. */
static void texts_load(struct texts *t, const char *language, const char *path) {
    char err[512];
    void *file;
    size_t bytes, held = 0;
    *t = (struct texts){.language = language};
    if (file_read(path, 64u << 20, &file, &bytes, err, sizeof err) != 0) die(err);
    for (size_t at = 0; t->all.len < TEXT_BYTES; at = at + 1 == bytes ? 0 : at + 1) {
        buf_u8(&t->all, ((uint8_t *)file)[at]);
        if (++held < DOCUMENT_BYTES || ((char *)file)[at] != '\n') continue;
        buf_u8(&t->all, 0);
        held = 0;
    }
    while (t->all.data[t->all.len - 1] != 0) t->all.len--; /* whole documents only */
    free(file);
    snprintf(t->path, sizeof t->path, "build/bench/tokenize-%s.txt", language);
    mkdir("build", 0777);
    mkdir("build/bench", 0777);
    if (file_replace(t->path, t->all.data, t->all.len, err, sizeof err) != 0) die(err);
}

/* Every document once; how many tokens. Adds the bytes to *bytes. */
static size_t encode_all(const struct tokenizer *t, const struct texts *texts, struct arena *a,
                         double *bytes) {
    const char *at = (const char *)texts->all.data, *end = at + texts->all.len;
    size_t tokens = 0;
    for (size_t n; at < end; at += n + 1) {
        struct tokens k;
        char err[256];
        n = strlen(at);
        arena_reset(a);
        if (tokenizer_encode(t, bytes_of(at, n), false, 0, a, &k, err, sizeof err) != 0) die(err);
        tokens += k.n;
        *bytes += (double)n;
    }
    return tokens;
}

static double ours(const struct tokenizer *t, const struct texts *texts, size_t *tokens) {
    struct arena a;
    double began = processor_ns(), now, bytes = 0;
    arena_init(&a, 64u << 20);
    do {
        *tokens = encode_all(t, texts, &a, &bytes);
        now = processor_ns();
    } while (now - began < RUN_NS);
    arena_fini(&a);
    return bytes * 1e3 / (now - began);
}

static double theirs(struct python *p, const char *dir, size_t *tokens) {
    char line[128], *rest;
    if (!p->ask) return 0;
    if (!python_ask(p, dir, line, sizeof line)) die("the peer has ended");
    double bytes_per_s = strtod(line, &rest);
    *tokens = strtoul(rest, NULL, 10);
    return bytes_per_s / 1e6;
}

static void run_case(struct report *report, const char *family, const char *dir,
                     const struct texts *texts, struct python *peer) {
    double value[RUNS], peer_value[RUNS], ratio[RUNS];
    size_t tokens, their_tokens = 0;
    struct tokenizer *t;
    char name[64], err[512];
    if (tokenizer_open(&t, dir, err, sizeof err) != 0) die(err);
    theirs(peer, dir, &their_tokens); /* it opens the tokenizer, and fills its caches */
    for (int i = 0; i < RUNS; i++) {
        value[i] = ours(t, texts, &tokens);
        peer_value[i] = theirs(peer, dir, &their_tokens);
        ratio[i] = peer->ask ? value[i] / peer_value[i] : 0;
    }
    if (peer->ask && tokens != their_tokens)
        printf("%s: %zu tokens, the peer has %zu\n", dir, tokens, their_tokens);
    snprintf(name, sizeof name, "%s.%s", family, texts->language);
    report_add(report, &(struct report_row){.name = name,
                                            .unit = "MB/s",
                                            .value = report_median(value, RUNS),
                                            .peer = "tokenizers, one thread",
                                            .peer_value = report_median(peer_value, RUNS),
                                            .ratio = report_median(ratio, RUNS)});
    tokenizer_close(t);
}

/* Where a family's vocabulary lies: a real one, or what this repository has. */
static const char *family_dir(const char *family, char room[MODEL_DIR_BYTES]) {
    const char *data = getenv("PENSTOCK_DATA");
    char model[MODEL_DIR_BYTES];
    if (strcmp(family, "bert") == 0) {
        const char *dir = model_dir_find("all-MiniLM-L6-v2", model);
        if (dir == model) return strcpy(room, dir);
    }
    int n = data ? snprintf(room, MODEL_DIR_BYTES, "%s/tokenizers/%s", data, family) : 0;
    if (n > 0 && (size_t)n < MODEL_DIR_BYTES && file_is_folder(room)) return room;
    snprintf(room, MODEL_DIR_BYTES, "tests/golden/tokenizers/%s", family);
    return room;
}

int main(void) {
    static const char *const families[] = {"bert",  "gpt2",   "qwen2", "llama3",
                                           "o200k", "llama2", "xlmr"};
    const char *data = getenv("PENSTOCK_DATA");
    char path[600], room[MODEL_DIR_BYTES];
    struct texts texts[2];
    struct python peers[2];
    snprintf(path, sizeof path, "%s/text/tinyshakespeare.txt", data ? data : "");
    texts_load(&texts[0], "en", access(path, R_OK) == 0 ? path : "examples/contract-en.txt");
    texts_load(&texts[1], "zh", "examples/contract-zh.txt");
    for (int i = 0; i < 2; i++)
        python_start(&peers[i], "tests/bench/tokenize/peer.py",
                     (const char *const[]){texts[i].path, NULL});
    if (!peers[0].ask) printf("no peer: set PEERS to a virtual environment with tokenizers\n");
    for (size_t f = 0; f < sizeof families / sizeof *families; f++)
        printf("%s: %s\n", families[f], family_dir(families[f], room));
    struct report *report = report_open("tokenize", RUNS);
    for (size_t f = 0; f < sizeof families / sizeof *families; f++)
        for (int i = 0; i < 2; i++)
            run_case(report, families[f], family_dir(families[f], room), &texts[i], &peers[i]);
    report_close(report);
    for (int i = 0; i < 2; i++) {
        python_stop(&peers[i]);
        buf_fini(&texts[i].all);
    }
    return 0;
}
