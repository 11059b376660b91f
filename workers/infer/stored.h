/* stored.h - quantized matrices in the files of a model directory.
 *
 * Matrix NAME.weight [n][k] stands in the safetensors files as
 *   NAME.weight_packed      U8   [n][k], or [n][(k + 1) / 2] of 4 bits, even k in the low nibble
 *   NAME.weight_scale       BF16 [n][(k + group - 1) / group]
 *   NAME.weight_zero_point  U8   of the same shape
 * which mean what struct quant says. Their __metadata__ has penstock.quantized (the version of all
 * this: 1), penstock.to (w8a8 or w4a8), penstock.source (the SHA-256 of the weights' files that it
 * was made of, one after the other), penstock.calibration, and for each matrix its name with what
 * it is: "w8/64" is 8 bits in groups of 64. config.json says quant_method penstock in its
 * quantization_config. A tied embedding keeps its own tensor for looking tokens up; the head made
 * of it stands beside it under the head's name.
 *
 * Units: elements.  Owner: what is found borrows the files.  Memory: none.
 * Errors: ERR_FIELD, ERR_CORRUPT, ERR_VERSION, ERR_LIMIT with file, tensor and reason in err.
 * Threads: any. */
#ifndef PENSTOCK_WORKERS_INFER_STORED_H
#define PENSTOCK_WORKERS_INFER_STORED_H

#include <stdbool.h>

#include "workers/infer/config.h"
#include "workers/infer/quantize.h"
#include "workers/infer/safetensors.h"

#define STORED_VERSION "1"
#define STORED_KEY_VERSION "penstock.quantized"
#define STORED_KEY_TO "penstock.to"
#define STORED_KEY_SOURCE "penstock.source"
#define STORED_KEY_CALIBRATION "penstock.calibration"
#define STORED_METHOD "penstock" /* quant_method of config.json */
#define STORED_PACKED "_packed"  /* behind NAME.weight */
#define STORED_SCALE "_scale"
#define STORED_ZERO "_zero_point"

/* "w8a8", "w4a8" to DTYPE_W8, DTYPE_W4; false for other texts. */
bool stored_type_parse(const char *text, enum dtype *out);
const char *stored_type_name(enum dtype t); /* of F32 and BF16 too: "f32", "bf16" */
/* "w8/64"; as_text holds STORED_AS_CHARS. */
#define STORED_AS_CHARS 16u
void stored_as_text(struct quantize_as as, char as_text[STORED_AS_CHARS]);
bool stored_as_parse(const char *text, struct quantize_as *out);

/* Of a directory whose config.json says that it is quantized. */
int stored_check(const struct safetensors *st, enum dtype *to, char *err, size_t err_bytes);
/* 1: the matrix of that name is quantized, and here it is; 0: it is not. */
int stored_find(struct quantized *out, const struct safetensors *st, const char *name, uint32_t n,
                uint32_t k, char *err, size_t err_bytes);

/* How a linear weight of a model is stored under `to` (DTYPE_W8 or DTYPE_W4); pattern is one of
 * the architecture's names. */
struct quantize_as stored_recipe(const struct config *c, enum dtype to, const char *pattern);
/* Changes whenever a recipe or the search does: the bits of results change with it. */
#define STORED_RECIPE 1

#endif
