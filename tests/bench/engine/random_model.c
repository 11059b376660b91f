#include "tests/bench/engine/random_model.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/file.h"
#include "base/rng.h"
#include "kernels/half.h"

enum { NORMALS = 1 << 16, CHUNK = 1 << 16, LAYER_TENSORS = 12 };
static const double deviation = 0.02;

static const struct random_shape shapes[] = {{"0.5B", 24, 896, 14, 2, 4864, 151936},
                                             {"1.5B", 28, 1536, 12, 2, 8960, 151936}};

const struct random_shape *random_shape_find(const char *name) {
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (strcmp(shapes[i].name, name) == 0) return &shapes[i];
    return NULL;
}

static uint32_t head_dim(const struct random_shape *s) {
    return s->dim / s->heads;
}

uint64_t random_shape_layers_macs(const struct random_shape *s) {
    uint64_t qkv = (uint64_t)s->dim * (s->heads + 2 * s->kv_heads) * head_dim(s);
    return s->layers * (qkv + (uint64_t)s->dim * s->dim + (uint64_t)3 * s->dim * s->inner);
}

uint64_t random_shape_head_macs(const struct random_shape *s) {
    return (uint64_t)s->dim * s->vocab;
}

static void die(const char *what) {
    fprintf(stderr, "engine: %s\n", what);
    exit(1);
}

/* How a tensor is filled: with draws, with ones, or with the rows of the embedding, moved on. */
enum fill { NORMAL, UNIT_NORMAL, ONES, SUCCESSORS };
struct tensor {
    char name[96];
    uint32_t n, k; /* k 0: a vector */
    enum fill fill;
};

static uint64_t elements(const struct tensor *t) {
    return (uint64_t)t->n * (t->k ? t->k : 1);
}

/* The tensors of layer i, of which there are LAYER_TENSORS. */
static void layer_tensors(const struct random_shape *s, uint32_t i, struct tensor *t) {
    uint32_t q = s->heads * head_dim(s), kv = s->kv_heads * head_dim(s);
    const struct {
        const char *name;
        uint32_t n, k;
        enum fill fill;
    } all[LAYER_TENSORS] = {{"input_layernorm.weight", s->dim, 0, ONES},
                            {"self_attn.q_proj.weight", q, s->dim, NORMAL},
                            {"self_attn.q_proj.bias", q, 0, NORMAL},
                            {"self_attn.k_proj.weight", kv, s->dim, NORMAL},
                            {"self_attn.k_proj.bias", kv, 0, NORMAL},
                            {"self_attn.v_proj.weight", kv, s->dim, NORMAL},
                            {"self_attn.v_proj.bias", kv, 0, NORMAL},
                            {"self_attn.o_proj.weight", s->dim, q, NORMAL},
                            {"post_attention_layernorm.weight", s->dim, 0, ONES},
                            {"mlp.gate_proj.weight", s->inner, s->dim, NORMAL},
                            {"mlp.up_proj.weight", s->inner, s->dim, NORMAL},
                            {"mlp.down_proj.weight", s->dim, s->inner, NORMAL}};
    for (uint32_t j = 0; j < LAYER_TENSORS; j++, t++) {
        snprintf(t->name, sizeof t->name, "model.layers.%" PRIu32 ".%s", i, all[j].name);
        t->n = all[j].n;
        t->k = all[j].k;
        t->fill = all[j].fill;
    }
}

static uint32_t list_tensors(const struct random_shape *s, bool known_text, struct tensor *t) {
    uint32_t n = 0;
    t[n++] = (struct tensor){"model.embed_tokens.weight", s->vocab, s->dim,
                             known_text ? UNIT_NORMAL : NORMAL};
    for (uint32_t i = 0; i < s->layers; i++, n += LAYER_TENSORS) layer_tensors(s, i, t + n);
    t[n++] = (struct tensor){"model.norm.weight", s->dim, 0, ONES};
    if (known_text) t[n++] = (struct tensor){"lm_head.weight", s->vocab, s->dim, SUCCESSORS};
    return n;
}

static void write_all(FILE *f, const void *data, size_t bytes) {
    if (fwrite(data, 1, bytes, f) != bytes) die("the model cannot be written: is the disk full?");
}

static void write_head(FILE *f, const struct tensor *t, uint32_t n) {
    struct buf head = {0}, size = {0};
    uint64_t at = 0;
    buf_printf(&head, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (uint32_t i = 0; i < n; i++) {
        uint64_t end = at + 2 * elements(&t[i]);
        buf_printf(&head, ",\"%s\":{\"dtype\":\"BF16\",\"shape\":[%" PRIu32, t[i].name, t[i].n);
        if (t[i].k) buf_printf(&head, ",%" PRIu32, t[i].k);
        buf_printf(&head, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", at, end);
        at = end;
    }
    buf_printf(&head, "}");
    while (head.len % 8) buf_printf(&head, " ");
    if (buf_u64le(&size, head.len) != 0 || head.error) die("no memory");
    write_all(f, size.data, size.len);
    write_all(f, head.data, head.len);
    buf_fini(&head);
    buf_fini(&size);
}

/* `count` draws of the stream `seed` from its element `from` on, which is a multiple of CHUNK. */
static void draw(const uint16_t *normals, uint64_t seed, uint64_t from, uint16_t *to,
                 uint64_t count) {
    uint64_t state = (seed << 40) + from;
    for (uint64_t i = 0; i < count; i += 4) {
        uint64_t bits = rng_next(&state);
        for (uint64_t j = i; j < i + 4 && j < count; j++, bits >>= 16)
            to[j] = normals[bits % NORMALS];
    }
}

static void write_tensor(FILE *f, const struct tensor *t, uint64_t seed, const uint16_t *normals,
                         uint16_t *room) {
    uint64_t left = elements(t);
    for (uint64_t from = 0; left; from += CHUNK) {
        uint64_t count = left < CHUNK ? left : CHUNK;
        draw(normals, seed, from, room, count);
        for (uint64_t i = 0; t->fill == ONES && i < count; i++) room[i] = bf16_of_float(1);
        write_all(f, room, 2 * count);
        left -= count;
    }
}

/* The head of a known text: row i is the embedding of the token before i, whose tensor has the
 * seed 0 and is drawn again; its last row comes first. */
static void write_successors(FILE *f, const struct tensor *t, const uint16_t *normals) {
    uint64_t count = elements(t), row = t->k;
    uint16_t *all = malloc(2 * (count + CHUNK));
    if (!all) die("no memory");
    for (uint64_t from = 0; from < count; from += CHUNK)
        draw(normals, 0, from, all + from, count - from < CHUNK ? count - from : CHUNK);
    write_all(f, all + count - row, 2 * row);
    write_all(f, all, 2 * (count - row));
    free(all);
}

/* Box and Muller's pairs, as many as 16 bits can choose from. */
static uint16_t *normals_new(double size) {
    uint16_t *v = malloc(NORMALS * sizeof *v);
    if (!v) die("no memory");
    for (uint32_t i = 0; i < NORMALS; i++) {
        double u = (rng_u32(1, 0, i, 0) + 0.5) * 0x1p-32, angle = rng_u32(1, 0, i, 1) * 0x1p-32;
        v[i] = bf16_of_float((float)(size * sqrt(-2 * log(u)) * cos(2 * M_PI * angle)));
    }
    return v;
}

static void write_weights(const struct random_shape *s, const char *dir, bool known_text) {
    struct tensor *t = calloc(s->layers * LAYER_TENSORS + 3, sizeof *t);
    uint16_t *small = normals_new(deviation), *unit = normals_new(1);
    uint16_t *room = malloc(CHUNK * sizeof *room);
    char path[1024];
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    FILE *f = fopen(path, "we");
    if (!t || !room || !f) die("the model cannot be written");
    uint32_t n = list_tensors(s, known_text, t);
    write_head(f, t, n);
    for (uint32_t i = 0; i < n; i++)
        if (t[i].fill == SUCCESSORS)
            write_successors(f, &t[i], small);
        else
            write_tensor(f, &t[i], i, t[i].fill == UNIT_NORMAL ? unit : small, room);
    if (fclose(f) != 0) die("the model cannot be written: is the disk full?");
    free(t);
    free(small);
    free(unit);
    free(room);
}

static void write_text(const char *dir, const char *name, const struct buf *b) {
    char path[1024], err[256] = "no memory";
    snprintf(path, sizeof path, "%s/%s", dir, name);
    if (b->error || file_replace(path, b->data, b->len, err, sizeof err) != 0) die(err);
}

static void write_config(const struct random_shape *s, const char *dir, bool tied) {
    struct buf b = {0};
    buf_printf(&b,
               "{\"architectures\": [\"Qwen2ForCausalLM\"], \"model_type\": \"qwen2\",\n"
               " \"hidden_size\": %u, \"num_hidden_layers\": %u, \"num_attention_heads\": %u,\n"
               " \"num_key_value_heads\": %u, \"intermediate_size\": %u, \"vocab_size\": %u,\n",
               s->dim, s->layers, s->heads, s->kv_heads, s->inner, s->vocab);
    buf_printf(&b,
               " \"hidden_act\": \"silu\", \"rms_norm_eps\": 1e-06, \"rope_theta\": 1000000.0,\n"
               " \"max_position_embeddings\": 32768, \"max_window_layers\": %u,\n"
               " \"use_sliding_window\": false, \"attention_dropout\": 0.0,\n"
               " \"initializer_range\": 0.02, \"use_cache\": true, \"torch_dtype\": \"bfloat16\",\n"
               " \"bos_token_id\": 151643, \"eos_token_id\": 151645,\n"
               " \"tie_word_embeddings\": %s}\n",
               s->layers, tied ? "true" : "false");
    write_text(dir, "config.json", &b);
    buf_clear(&b);
    buf_printf(&b, "{\"bos_token_id\": 151643, \"eos_token_id\": 151645}\n");
    write_text(dir, "generation_config.json", &b);
    buf_fini(&b);
}

static void copy_tokenizer(const char *dir) {
    static const char *const files[] = {"vocab.json", "merges.txt", "tokenizer_config.json",
                                        "special_tokens_map.json", "added_tokens.json"};
    const char *data = getenv("PENSTOCK_DATA");
    char path[1024], err[256];
    for (size_t i = 0; data && i < sizeof files / sizeof *files; i++) {
        struct buf b = {0};
        void *text;
        snprintf(path, sizeof path, "%s/tokenizers/qwen2/%s", data, files[i]);
        if (file_read(path, 64u << 20, &text, &b.len, err, sizeof err) != 0) die(err);
        b.data = text;
        write_text(dir, files[i], &b);
        free(text);
    }
}

void random_model_make(const struct random_shape *s, const char *dir, bool known_text) {
    if (file_mkdirs(dir) != 0) die("the model's folder cannot be made");
    write_config(s, dir, !known_text);
    copy_tokenizer(dir);
    write_weights(s, dir, known_text);
}
